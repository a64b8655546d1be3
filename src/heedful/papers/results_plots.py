"""Plots of a reproduction as SVG files: the same data give the same bytes, on any day and any machine."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from heedful.report_values import clean

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from heedful.papers.results import Plot, Series

# Okabe and Ito's colours, which people with any kind of colour vision can tell apart; yellow is too light for a line.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
MARKERS = "osD^vPX"
FEW = 15  # points of a line that still get markers
LONGEST = 60  # characters of a label
SETTINGS = {
    "svg.fonttype": "none",
    "font.family": ["DejaVu Sans"],
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
}


def draw(plot: Plot, salt: str) -> bytes:
    """The plot as an SVG file. `salt` goes into the ids inside, which must differ between plots of one page."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    out = io.BytesIO()
    with matplotlib.rc_context(), warnings.catch_warnings():
        # Whatever the reader's own matplotlibrc says; and a sign that the font lacks is the viewer's business.
        warnings.simplefilter("ignore")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({**SETTINGS, "svg.hashsalt": salt})  # type: ignore[arg-type]
        figure = Figure(figsize=(6.4, 3.8), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        lines = [_line(axes, i, series) for i, series in enumerate(plot.series)]
        axes.set_xlabel(_label(plot.x_label), parse_math=False)
        axes.set_ylabel(_label(plot.y_label), parse_math=False)
        if lines:
            # Set after the fact: a name that begins with an underscore would be left out.
            legend = axes.legend(lines, [str(i) for i in range(len(lines))], frameon=False, fontsize=8)
            for text, series in zip(legend.get_texts(), plot.series):
                text.set_parse_math(False)
                text.set_text(_label(series.name))
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    # Where the font is not installed, browsers would fall back to one with serifs.
    return out.getvalue().replace(b"font-family: 'DejaVu Sans';", b"font-family: 'DejaVu Sans', sans-serif;")


def _line(axes: Axes, i: int, series: Series) -> Any:
    colour = COLOURS[i % len(COLOURS)]
    few = len(series.x) <= FEW
    x, y = _numbers(series.x), _numbers(series.y)
    marker = MARKERS[i % len(MARKERS)] if few else ""
    dash = DASHES[i % len(DASHES)]
    (line,) = axes.plot(x, y, color=colour, linestyle=dash, linewidth=1.5, marker=marker, markersize=4.5)
    if series.low is not None and series.high is not None:
        low, high = _numbers(series.low), _numbers(series.high)
        if few:
            axes.vlines(x, low, high, color=colour, linewidth=1.0, alpha=0.8)
        else:
            axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    return line


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]


def _label(text: str) -> str:
    line = " ".join(clean(text).split())
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"
