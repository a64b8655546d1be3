"""Plots of the report page as inline SVG that takes its colours from the page, light or dark.

Figures are drawn with marker colours that no plot uses otherwise and then rewritten to CSS variables. Metric
names and titles never enter the SVG: the page prints them beside it, escaped. What is drawn as text is
numbers and the names of stages.
"""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, ScalarFormatter

SERIES = 6  # colours the page defines, --s1 … --s6; more lines than that would not be told apart
_COLOURS = {f"#0000{i:02x}": f"var(--s{i})" for i in range(1, SERIES + 1)}
_INK, _GRID = "#000011", "#000012"
_COLOURS |= {_INK: "currentColor", _GRID: "var(--grid)"}
_DASHES = ["-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)), (0, (9, 3)), (0, (3, 3))]
_POINTS = 400  # more than the plot has pixels helps nobody and makes the page heavy

_SETTINGS = {
    "svg.fonttype": "none",
    "text.usetex": False,
    "font.family": ["DejaVu Sans"],
    "font.size": 9,
    "axes.unicode_minus": True,
    "path.simplify": True,
}

MARKED = 12
"""Stages whose starts are marked; more would be a fence."""
Series = tuple[Sequence[float], Sequence[float]]
DOUBLING = "training pairs"
"""An axis on which each step is twice the one before."""
UNITS = (
    *("step", "steps", "samples", "tokens", "seconds", DOUBLING),
    *("share of labels flipped", "confidence", "cosine of chosen and rejected"),
    *(
        "labels",
        "heads, the heaviest first",
        "episodes",
        "return",
        "instructions",
        "metres",
        "training pairs",
    ),
)
"""What an axis may be of: nothing else is drawn, whatever a file says."""


def stage_offsets(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Where each stage begins on one common axis: stages follow one another in order of first appearance."""
    last: dict[str, float] = {}
    for row in rows:
        stage = str(row.get("stage", ""))
        last[stage] = max(last.get(stage, 0.0), float(row.get("step", 0)))
    offsets, at = {}, 0.0
    for stage, steps in last.items():
        offsets[stage] = at
        at += steps
    return offsets


def line_colour(i: int) -> int:
    """Which of the page's colours line i takes; the grey one stands for `before` and comes last."""
    return (i + 1) % SERIES + 1


def curves(
    series: Sequence[Series], stages: dict[str, float], label: str, name: str, *, unit: str = "step"
) -> Markup:
    """Lines over steps, or another of `UNITS`; `stages` are the starts of stages on the same axis. `label` is read
    aloud, `name` makes ids unique on the page."""
    figure, axes = _figure()
    for i, (x, y) in enumerate(series):
        x, y = _thin(np.asarray(x, dtype=float), np.asarray(y, dtype=float))
        colour, dash = f"#0000{line_colour(i):02x}", _DASHES[i % SERIES]
        if len(x) >= 60:
            axes.plot(x, y, color=colour, linewidth=0.7, alpha=0.35)
            axes.plot(x, _running_mean(y, len(x) // 20), color=colour, linewidth=1.6, linestyle=dash)
        else:
            marker = "o" if len(x) < 12 else ""
            axes.plot(x, y, color=colour, linewidth=1.6, linestyle=dash, marker=marker, markersize=3)
    if unit == DOUBLING:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(ScalarFormatter(useOffset=False))
    elif unit != "confidence":
        axes.set_xlim(left=min(0.0, axes.get_xlim()[0]))
    if 1 < len(stages) <= MARKED:
        _mark_stages(axes, stages)
    low, high = axes.get_ylim()
    if low < 0 < high:
        axes.axhline(0, color=_INK, linewidth=0.6, alpha=0.5, zorder=0)
    axes.set_xlabel(unit if unit in UNITS else "", color=_INK, labelpad=1)
    return _svg(figure, label, name)


def bars(values: Sequence[float], label: str, name: str, *, unit: str = "") -> Markup:
    """One bar for each value, side by side in the order given; `unit` is one of `UNITS`."""
    figure, axes = _figure()
    axes.bar(np.arange(1, len(values) + 1), np.asarray(values, dtype=float), width=0.85, color="#000002")
    axes.set_xlim(0.4, len(values) + 0.6)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlabel(unit if unit in UNITS else "", color=_INK, labelpad=1)
    return _svg(figure, label, name)


def histogram(before: Sequence[float], after: Sequence[float], unit: str, label: str, name: str) -> Markup:
    """Two distributions over the same bins; the thin lines are the medians."""
    figure, axes = _figure()
    both = np.concatenate([np.asarray(before, dtype=float), np.asarray(after, dtype=float)])
    bins = np.histogram_bin_edges(both, bins=min(24, max(6, len(before) // 3)))
    for i, values in enumerate((before, after), start=1):
        colour = f"#0000{i:02x}"
        axes.hist(values, bins=list(bins), color=colour, alpha=0.45, histtype="stepfilled")
        axes.hist(values, bins=list(bins), color=colour, histtype="step", linewidth=1.2)
        axes.axvline(float(np.median(values)), color=colour, linewidth=1.4, linestyle=_DASHES[1])
    axes.set_xlabel(unit, color=_INK, labelpad=1)
    axes.set_ylabel("answers", color=_INK, labelpad=2)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    return _svg(figure, label, name)


def scatter(before: Sequence[float], after: Sequence[float], label: str, name: str) -> Markup:
    """One point per answer: before across, after up; points above the diagonal gained."""
    figure, axes = _figure()
    both = np.concatenate([np.asarray(before, dtype=float), np.asarray(after, dtype=float)])
    pad = 0.05 * (float(np.ptp(both)) or 1.0)
    span = [float(both.min()) - pad, float(both.max()) + pad]
    axes.plot(span, span, color=_INK, linewidth=0.7, alpha=0.6)
    size = 16 if len(before) < 200 else 5
    axes.scatter(before, after, s=size, color="#000002", alpha=0.65, linewidths=0)
    axes.set_xlim(*span)
    axes.set_ylim(*span)
    axes.set_xlabel("before", color=_INK, labelpad=1)
    axes.set_ylabel("after", color=_INK, labelpad=2)
    return _svg(figure, label, name)


def _figure() -> tuple[Figure, Axes]:
    with matplotlib.rc_context(_SETTINGS):  # type: ignore[arg-type]
        figure = Figure(figsize=(4.0, 2.5), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
    figure.patch.set_alpha(0)
    axes.patch.set_alpha(0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_GRID)
    axes.grid(True, axis="y", color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_INK, length=2.5, color=_GRID, pad=2)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5))
        formatter = ScalarFormatter(useOffset=False)
        formatter.set_powerlimits((-3, 5))
        axis.set_major_formatter(formatter)
        axis.get_offset_text().set_color(_INK)
    return figure, axes


def _mark_stages(axes: Axes, stages: dict[str, float]) -> None:
    left, right = axes.get_xlim()
    # A metric of the first stages only has an axis that ends before the others begin.
    starts = [(name, at) for name, at in stages.items() if at < right]
    for i, (name, at) in enumerate(starts):
        if i:
            axes.axvline(at, color=_INK, linewidth=0.7, alpha=0.45, linestyle=_DASHES[2])
        end = starts[i + 1][1] if i + 1 < len(starts) else right
        # About 45 characters fit across; a name that does not fit its stage is left to the page's text.
        room = int(45 * (end - at) / max(right - left, 1e-9))
        if 0 < len(name) <= room:
            place = {"xytext": (3, -1), "textcoords": "offset points", "va": "top"}
            axes.annotate(
                name,
                (at, 1.0),
                xycoords=axes.get_xaxis_transform(),
                **place,
                alpha=0.75,
                color=_INK,
                parse_math=False,
            )
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.12 * (high - low))


def _thin(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if len(x) <= _POINTS:
        return x, y
    edges = np.linspace(0, len(x), _POINTS + 1).astype(int)[:-1]
    counts = np.diff(np.append(edges, len(x)))
    return np.add.reduceat(x, edges) / counts, np.add.reduceat(y, edges) / counts


def _running_mean(y: np.ndarray, window: int) -> np.ndarray:
    """Mean over what lies within half a window; at the ends over what is there."""
    kernel = np.ones(2 * (window // 2) + 1)
    return np.convolve(y, kernel, "same") / np.convolve(np.ones_like(y), kernel, "same")


def _svg(figure: Figure, label: str, salt: str) -> Markup:
    out = io.StringIO()
    with matplotlib.rc_context({**_SETTINGS, "svg.hashsalt": salt}):  # type: ignore[arg-type]
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    root = ET.fromstring(out.getvalue())
    _clean(root, salt)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("role", "img")
    root.set("aria-label", label)
    return Markup(ET.tostring(root, encoding="unicode"))


def _clean(node: ET.Element, salt: str) -> None:
    """Plain tag names, ids unique on the page, colours from the page; no metadata, no style sheet."""
    node.tag = node.tag.rpartition("}")[2]
    for child in list(node):
        if child.tag.rpartition("}")[2] in ("metadata", "style"):
            node.remove(child)
        else:
            _clean(child, salt)
    attributes = {name.rpartition("}")[2]: value for name, value in node.attrib.items()}
    node.attrib.clear()
    for name, value in attributes.items():
        if name == "id":
            value = f"{salt}-{value}"
        elif name == "href":
            value = f"#{salt}-{value[1:]}"
        value = re.sub(r"url\(#", f"url(#{salt}-", value)
        value = re.sub(r"#0000[01][0-9a-f]", lambda m: _COLOURS.get(m.group(), m.group()), value)
        node.set(name, value)
