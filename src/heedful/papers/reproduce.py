"""`heedful reproduce PAPER`: run a paper's claims, write what was found as JSON, and make the page from it.

A paper is a module named in `PAPERS` with three names: `TITLE`; `SEEDS`, how many by tier; and
`run(tier, seeds, run, until) -> Results`; `run` is the opened folder. Two rules let it be stopped at any moment and
started again, also with more seeds: whatever takes long goes through `run.once` or `fit`, and the name of a stage that
belongs to a seed says which (`bandit/seed0.json`). What is made from several seeds is computed, not kept.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Protocol, cast

from tyro.conf import Positional, arg

from heedful.errors import HeedfulError

if TYPE_CHECKING:
    from heedful.papers.results import Claim, Results, Tier
    from heedful.run import Run

PAPERS = {
    "c3po": "heedful.papers.c3po",
    "rlaif": "heedful.papers.rlaif",
    "datacentric": "heedful.papers.datacentric",
    "onpolicy": "heedful.papers.onpolicy",
    "hyre": "heedful.papers.hyre",
    "sos": "heedful.papers.sos",
    "leret": "heedful.papers.leret",
    "parl": "heedful.papers.parl",
    "yay": "heedful.papers.yay",
    "droid": "heedful.papers.droid",
}
"""What can be reproduced: the name on the command line and its module."""


@dataclass(frozen=True)
class Reproduce:
    """Run the claims of a paper and write what holds: OUT/PAPER.json, with a page and plots made from it."""

    paper: Positional[Annotated[str, arg(metavar="PAPER")]]
    """One of: c3po, rlaif, datacentric, onpolicy, hyre, sos, leret, parl, yay, droid."""
    tier: Literal["smoke", "main"] = "smoke"
    """smoke: minutes, shows that it runs, writes PAPER.smoke.json. main: hours, the numbers that count."""
    seeds: int = 0
    """How many seeds; 0 takes as many as the tier has. More seeds later keep those that are done."""
    minutes: float = 0.0
    """Begin no further piece of the work after so many minutes, and write what there is; 0: all of it. What was not
    run says so, and the same command again goes on from there."""
    out: str = "docs/results"
    """Folder of the results, or the .json file itself."""
    work: str = "runs/reproduce"
    """Where the work is kept, in PAPER-TIER. The same command again resumes it."""
    render: bool = False
    """Run nothing: make page and plots anew from the JSON that is there."""
    json: bool = False
    """Print the results as JSON."""


class Paper(Protocol):
    """What the module of a paper has."""

    TITLE: str
    SEEDS: Mapping[str, int]

    def run(self, tier: Tier, seeds: Sequence[int], run: Run, until: float | None = None) -> Results:
        """The claims, tables and plots; tier, commit, seeds and minutes are filled in afterwards.

        until: after this time (of `time.monotonic`) nothing further is begun.
        """
        ...


def main(options: Reproduce) -> int:
    """What `heedful reproduce` does. 0 also where claims do not hold: that is a finding, not a failure.

    Raises `HeedfulError` for an unknown paper, a number of seeds below 0, the main tier under CI, results of the
    main tier in the way of the smoke tier's, and whatever the run itself meets.
    """
    paper = find(options.paper)
    if options.render:
        return _render(options)
    from heedful.papers.results import read_results, results_path, write_results
    from heedful.run import open_run
    from heedful.sessions import session, spent

    began, seeds = time.monotonic(), _seeds(options, paper)
    if options.tier == "main" and os.environ.get("CI", "").lower() not in ("", "0", "false"):
        raise HeedfulError(
            "the main tier takes hours and does not run in continuous integration (the variable CI is set); "
            "use --tier smoke, or unset CI"
        )
    results_path(options.paper, options.tier, options.out)  # refuses now what it would refuse hours later
    folder = Path(options.work) / f"{options.paper}-{options.tier}"
    asked = {"paper": options.paper, "tier": options.tier, "seeds": len(seeds)}
    with open_run(folder, asked, seed=0, volatile=("seeds",)) as opened:
        with session(opened):
            until = began + 60 * options.minutes if options.minutes > 0 else None
            results = paper.run(options.tier, seeds, opened, until)
        if opened.rank != 0:
            return 0
        used = spent(folder)
    results = replace(
        results, tier=options.tier, commit=", ".join(used.commits), seeds=seeds, minutes=used.minutes
    )
    path = write_results(results, options.out)
    if len(used.commits) > 1:
        print(
            f"{folder} keeps what earlier commits made ({', '.join(used.commits[:-1])}); "
            "delete it to run everything at this one",
            file=sys.stderr,
        )
    results = read_results(path)
    print(path.read_text(encoding="utf-8").rstrip() if options.json else summary(results, path))
    return 0


def find(name: str) -> Paper:
    """The module of a paper. Raises `HeedfulError` with the known names for another one."""
    if name not in PAPERS:
        raise HeedfulError(f"there is no paper {name!r}; known: {', '.join(PAPERS)}")
    return cast(Paper, importlib.import_module(PAPERS[name]))


def summary(results: Results, path: Path) -> str:
    """What a terminal shows: title, one block for each claim, the tally and where the page is."""
    from heedful.papers.results_page import tally

    lines = [_plain(results.title), ""]
    for claim in results.claims:
        lines += _claim(claim)
    return "\n".join([*lines, "", tally(results.claims), f"page: {path.with_suffix('.md')}"])


def _claim(claim: Claim) -> list[str]:
    from heedful.papers.results import verdict
    from heedful.papers.results_page import show, show_interval

    lines = [f"{verdict(claim):<13}  {_plain(claim.claim)}"]
    told = f"paper: {_plain(claim.paper)}"
    if claim.measured is not None:
        interval = f" ({show_interval(claim.interval)})" if claim.interval else ""
        told = f"here: {show(claim.measured)}{interval}; {told}"
    return [*lines, f"{'':13}  {told}"]


def _plain(text: str) -> str:
    from heedful.report_values import clean

    return " ".join(clean(text).split())


def _seeds(options: Reproduce, paper: Paper) -> list[int]:
    if options.seeds < 0:
        raise HeedfulError(
            f"--seeds is {options.seeds}; it is a number of seeds, 1 or more, or 0 for the default"
        )
    return list(range(options.seeds or paper.SEEDS[options.tier]))


def _render(options: Reproduce) -> int:
    from heedful.papers.results import render

    out = Path(options.out)
    paths = [out] if out.suffix == ".json" else [out / f"{options.paper}{end}.json" for end in ("", ".smoke")]
    there = [path for path in paths if path.exists()]
    if not there:
        raise HeedfulError(
            f"no results at {' or '.join(map(str, paths))}; run heedful reproduce {options.paper} first, "
            "or say with --out where they are"
        )
    pages = [str(render(path)) for path in there]
    print(json.dumps({"pages": pages}, ensure_ascii=False) if options.json else "\n".join(pages))
    return 0
