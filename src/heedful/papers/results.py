"""What a reproduction found: claims, tables and plots as plain values, and the JSON file that holds them.

The JSON is the record. The page beside it (`PAPER.md`) and its plots (`PAPER-1.svg`, ...) are made from the JSON
alone, so they can be made again at any time and never say anything else.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from heedful.atomic import make_folder, write_file, writing
from heedful.config import from_plain
from heedful.errors import HeedfulError

Value = str | bool | int | float | None
Tier = Literal["smoke", "main"]
DIGITS = 6
"""Significant digits of a float in the file; a seed moves a result long before the sixth."""

NOTHING = 1e-12
"""What is nearer to 0 is what adding up in another order leaves of it."""


@dataclass(frozen=True)
class Claim:
    """One claim of a paper and what was measured for it."""

    claim: str
    """What is claimed, in a sentence that can be true or false."""
    paper: str
    """The paper's number, and where it stands there."""
    measured: float | None = None
    """Our number; None where there is none."""
    interval: tuple[float, float] | None = None
    """95% interval of `measured`; None when it is not known, as with one seed."""
    holds: bool | None = None
    """Whether the claim holds here; None: not run in this tier, or measured and undecided."""
    note: str = ""
    """What a reader must know to judge it."""


@dataclass(frozen=True)
class Table:
    """A table of the page. Every row has one value for each column."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Value]]
    note: str = ""

    def __post_init__(self) -> None:
        for i, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise HeedfulError(
                    f"table {self.title!r}, row {i}: {len(row)} values for {len(self.columns)} columns"
                )


@dataclass(frozen=True)
class Series:
    """One line of a plot: y over x, with a band from low to high if given; None is a gap."""

    name: str
    x: Sequence[float | None]
    y: Sequence[float | None]
    low: Sequence[float | None] | None = None
    high: Sequence[float | None] | None = None

    def __post_init__(self) -> None:
        for name in ("y", "low", "high"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.x):
                raise HeedfulError(
                    f"series {self.name!r}: {len(values)} values of {name} for {len(self.x)} of x"
                )
        if (self.low is None) != (self.high is None):
            raise HeedfulError(f"series {self.name!r}: a band needs both low and high")


@dataclass(frozen=True)
class Plot:
    """A plot of the page: lines; a series of one point is a marker."""

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    note: str = ""


@dataclass(frozen=True)
class Part:
    """What one part of a reproduction adds to the whole."""

    claims: Sequence[Claim] = field(default_factory=list)
    tables: Sequence[Table] = field(default_factory=list)
    plots: Sequence[Plot] = field(default_factory=list)
    notes: Sequence[str] = field(default_factory=list)


@dataclass(frozen=True)
class Results:
    """A reproduction. `heedful reproduce` fills in tier, commit, seeds and minutes."""

    paper: str
    """Its name on the command line."""
    title: str
    claims: Sequence[Claim] = field(default_factory=list)
    tables: Sequence[Table] = field(default_factory=list)
    plots: Sequence[Plot] = field(default_factory=list)
    notes: Sequence[str] = field(default_factory=list)
    tier: Tier = "smoke"
    commit: str | None = None
    """Of heedful; several where the run was resumed at another one, `+` marks uncommitted changes."""
    seeds: Sequence[int] = field(default_factory=list)
    minutes: float = 0.0
    """Of all starts together."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", self.paper):
            raise HeedfulError(
                f"the paper's name is {self.paper!r}; it names files, so lower-case letters, digits and single "
                "hyphens alone may stand in it"
            )


def joined(paper: str, title: str, parts: Sequence[Part]) -> Results:
    """The parts of a reproduction as one, in their order."""
    return Results(
        paper=paper,
        title=title,
        claims=[claim for part in parts for claim in part.claims],
        tables=[table for part in parts for table in part.tables],
        plots=[plot for part in parts for plot in part.plots],
        notes=[note for part in parts for note in part.notes],
    )


def verdict(claim: Claim) -> str:
    """`holds`, `does not hold`, `undecided` (measured, but the interval is too wide or unknown) or `not run`."""
    unknown = "not run" if claim.measured is None else "undecided"
    return {True: "holds", False: "does not hold", None: unknown}[claim.holds]


# ---- the file


def results_path(paper: str, tier: Tier, out: str | Path) -> Path:
    """Where results go: `out` itself when it names a .json file, else OUT/PAPER.json, or OUT/PAPER.smoke.json.

    Raises `HeedfulError` when the smoke tier would replace what the main tier found.
    """
    path = Path(out)
    if path.suffix != ".json":
        path = path / (f"{paper}.json" if tier == "main" else f"{paper}.{tier}.json")
    if tier != "main" and path.exists() and read_results(path).tier == "main":
        raise HeedfulError(
            f"{path} holds results of the main tier, which the {tier} tier does not replace; "
            "choose another --out, or delete the file"
        )
    return path


def write_results(results: Results, out: str | Path) -> Path:
    """Write the JSON file where `results_path` says, then the page and plots from it; returns the JSON's path.

    Each file is replaced whole. Floats keep six significant digits; NaN and infinities become null. Raises
    `HeedfulError` when a file cannot be written, and as `results_path` does.
    """
    path = results_path(results.paper, results.tier, out)
    text = _dump(_plain(results), 0) + "\n"
    try:
        data = text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, as models can write it
        data = text.encode(errors="backslashreplace")
    write_file(path, data)
    render(path)
    return path


def read_results(path: str | Path) -> Results:
    """The results in a JSON file. Raises `HeedfulError` naming the file and the key that is wrong."""
    path = Path(path)
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise HeedfulError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise HeedfulError(f"{path} is not JSON: {error}") from error
    return from_plain(Results, data, str(path))


def render(path: str | Path) -> Path:
    """Write the page and the plots of a JSON file beside it, anew; returns the page's path.

    `c3po.json` gives `c3po.md` and `c3po-1.svg`, ... in the order of the plots; numbered plots beyond them, left
    from an earlier time, are removed. The same JSON gives the same bytes. Raises `HeedfulError` when the JSON cannot
    be read or a file cannot be written.
    """
    from heedful.papers.results_page import page
    from heedful.papers.results_plots import draw

    path = Path(path)
    results = read_results(path)
    make_folder(path.parent)
    names = [f"{path.stem}-{i}.svg" for i in range(1, len(results.plots) + 1)]
    for name, plot in zip(names, results.plots):
        write_file(path.with_name(name), draw(plot, salt=name))
    target = path.with_suffix(".md")
    write_file(target, page(results, path.name, names).encode())
    numbered = re.compile(re.escape(path.stem) + r"-\d+\.svg")
    for old in sorted(path.parent.iterdir()):
        if numbered.fullmatch(old.name) and old.name not in names:
            with writing(old), suppress(FileNotFoundError):
                old.unlink()
    return target


def _plain(value: Any) -> Any:
    if isinstance(value, Claim) and value.interval and not all(map(math.isfinite, value.interval)):
        value = dataclasses.replace(value, interval=None)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: _plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    tolist = getattr(value, "tolist", None)  # numpy's and torch's numbers and arrays have it
    if callable(tolist):
        return _plain(tolist())
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | range):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        if abs(value) < NOTHING:
            return 0.0
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value


def _dump(value: Any, depth: int) -> str:
    """JSON with sorted keys and an indent; a list of numbers stays on one line, else plots fill pages."""
    pad = " " * (depth + 1)
    if isinstance(value, dict) and value:
        lines = [
            f"{pad}{json.dumps(key, ensure_ascii=False)}: {_dump(value[key], depth + 1)}"
            for key in sorted(value)
        ]
        return "{\n" + ",\n".join(lines) + "\n" + " " * depth + "}"
    if isinstance(value, list) and any(isinstance(item, dict | list | str) for item in value):
        lines = [f"{pad}{_dump(item, depth + 1)}" for item in value]
        return "[\n" + ",\n".join(lines) + "\n" + " " * depth + "]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
