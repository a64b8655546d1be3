"""`heedful search view`: the tree of one search, as text in the terminal, as SVG, or on a page of its own."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from tyro.conf import Positional, arg

from heedful.errors import HeedfulError

if TYPE_CHECKING:
    from heedful.data.countdown.replay import Replay

KEPT = "greedy-samples.jsonl"
ORDER = ("after", "eval", "", "before")
"""Which of a run's sets of streams is meant where --set does not say: what was drawn last."""


@dataclass(frozen=True)
class Config:
    """Draw the search tree of a stream of Countdown: operations, dead ends, errors and the goal."""

    run: Positional[Annotated[str, arg(metavar="RUN")]]
    """A run of `heedful search pretrain`, `improve` or `eval`, or a file with `target`, `nums` and `stream`."""
    problem: int = 1
    """Which problem, from 1."""
    set: str = ""
    """Of a run: which test set, such as `heldout-targets`, or `before/heldout-targets` of `improve`."""
    out: str = ""
    """Write the picture there too: a .svg, or a page as .html."""
    most: int = 200
    """Most nodes drawn, beside the way to the goal."""
    json: bool = False
    """Print the tree as JSON."""


class Found(NamedTuple):
    """A stream and where it is from."""

    place: str
    stream: str
    target: int | None = None
    nums: list[int] | None = None


def main(cfg: Config) -> int:
    """Run `heedful search view`."""
    if cfg.problem < 1 or cfg.most < 1:
        raise HeedfulError("--problem and --most must be at least 1")
    if cfg.out and not cfg.out.endswith((".svg", ".html")):
        raise HeedfulError(f"--out {cfg.out} must end in .svg or .html")
    from heedful.data.countdown.replay import replay
    from heedful.recipes import search_tree

    found = find(cfg)
    told = replay(found.stream, found.target, found.nums)
    rows = search_tree.tree(told, cfg.most)
    if not rows:
        raise HeedfulError(f"{found.place}: {told.reason}; there is no tree to draw")
    if cfg.out:
        write(cfg.out, found.place, told, rows)
    if cfg.json:
        print(json.dumps(as_json(found.place, told, rows), ensure_ascii=False))
    else:
        plain = not _shows("├─→✓○")
        coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        text = [
            f"{found.place}: {sentence(told)}",
            "",
            *search_tree.lines(rows, colour=coloured, plain=plain),
        ]
        print("\n".join([*text, "", search_tree.legend(rows, plain=plain)]))
        if cfg.out:
            print(f"picture: {cfg.out}")
    return 0


def find(cfg: Config) -> Found:
    """The stream that is meant. Raises HeedfulError where there is none, and what there is instead."""
    path = Path(cfg.run).expanduser()
    if path.is_dir():
        name, file = kept(path, cfg.set)
        rows = _row(file, cfg.problem)
        try:
            prompt, text = str(rows["prompt"]), str(rows["completions"][0]["text"])
        except (KeyError, IndexError, TypeError) as error:
            raise HeedfulError(
                f"{file}: problem {cfg.problem} has no prompt with a completion; run the job again into another folder"
            ) from error
        _countdown(prompt, path)
        return Found(f"{name or path.name}, problem {cfg.problem}", f"{prompt} {text}")
    if cfg.set:
        raise HeedfulError(f"--set is for runs, and {path} is none")
    row = _row(path, cfg.problem)
    from heedful.recipes.search_streams import stream_fault

    fault = stream_fault(row)
    if fault:
        raise HeedfulError(f"{path}: problem {cfg.problem}: {fault[0]}: {fault[1]}")
    return Found(f"{path.name}, problem {cfg.problem}", row["stream"], row["target"], row["nums"])


def kept(run: Path, wanted: str = "") -> tuple[str, Path]:
    """(name, file) of a run's streams, one a problem. Raises HeedfulError where there are none, with what there is."""
    files = {str(file.parent.relative_to(run)): file for file in sorted(run.glob(f"**/{KEPT}"))}
    names = sorted(files, key=lambda name: (_rank(name), name))
    if not names:
        raise HeedfulError(
            f"{run} keeps no streams: give a run of `heedful search pretrain`, `improve` or `eval` that has answered "
            "its test sets"
        )
    name = next((n for n in names if not wanted or wanted in (n, n.rpartition("/")[2])), None)
    if name is None:
        raise HeedfulError(f"{run} has no test set {wanted!r}, but {', '.join(names)}")
    return name, files[name]


def write(out: str, place: str, found: Replay, rows: Any) -> None:
    """The picture as a file; .svg or .html."""
    from heedful import report_drawings
    from heedful.atomic import write_file
    from heedful.report import write_drawings

    title = f"{found.target} from {' '.join(map(str, found.numbers))}"
    as_rows = [row.as_json() for row in rows]
    if out.endswith(".html"):
        drawn = {"kind": "tree", "title": place, "rows": as_rows}
        write_drawings(out, title, [f"{sentence(found)}."], [drawn])
        return
    svg = report_drawings.tree(as_rows, f"{place}: {title}")
    assert svg is not None
    write_file(Path(out), report_drawings.standalone(svg).encode("utf-8", "replace"))


def sentence(found: Replay) -> str:
    """What became of a search, in words."""
    problem = f"{found.target} from {' '.join(map(str, found.numbers))}"
    many = f"{found.explored} operation{'' if found.explored == 1 else 's'}"
    wrong = ", ".join(f"{count} {kind}" for kind, count in found.census().items() if count)
    outcome = f"solved after {many}" if found.solved else f"not solved after {many} ({found.reason})"
    return f"{problem}, {outcome}; " + (f"errors: {wrong}" if wrong else "no errors")


def as_json(place: str, found: Replay, rows: Any) -> dict[str, Any]:
    """All of it for programs."""
    return {
        "problem": place,
        "target": found.target,
        "nums": list(found.numbers),
        "strict": found.solved,
        "reason": found.reason,
        "rating": found.rating,
        "explored": found.explored,
        "nodes": len(found.nodes),
        "tree": [row.as_json() for row in rows],
        "errors": [error._asdict() for error in found.errors],
    }


def _rank(name: str) -> int:
    first = name.partition("/")[0]
    return ORDER.index(first if first in ORDER else "")


def _row(path: Path, problem: int) -> dict[str, Any]:
    from heedful.data.rows import read

    rows: Iterator[dict[str, Any]] = read(path)
    row = next(islice(rows, problem - 1, None), None)
    if row is None:
        count = sum(1 for _ in read(path))
        raise HeedfulError(f"{path} has {count:,} problems, so there is no problem {problem:,}")
    return row


def _countdown(prompt: Any, run: Path) -> None:
    """Problems of the user's own have streams of any form, and no tree that could be read out of them."""
    from heedful.data.countdown.codec import is_compact

    if not isinstance(prompt, str) or not is_compact(prompt):
        raise HeedfulError(
            f"{run} searches problems of your own; only a search of Countdown can be drawn, since the form of others "
            "is yours. The report has examples as text."
        )


def _shows(text: str) -> bool:
    """Whether standard output can show these characters."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
