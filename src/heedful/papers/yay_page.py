"""Tables and plots of Yell At Your Robot, from the results of arms alone."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from heedful.data.pack_table import STAGES
from heedful.papers.onpolicy_arms import got, mean_and_half
from heedful.papers.results import Plot, Series, Table, Value
from heedful.papers.seeds import Done, Result
from heedful.papers.yay_sizes import NAMES, ROUNDS, SETUP

ROUND_ARMS = ("base", *(f"post-{k}" for k in range(1, ROUNDS + 1)))


def tables(done: Done, shared: Result | None, world: Result | None) -> list[Table]:
    """The tables, those without rows left out."""
    made = [arms_table(done), stages_table(done), rounds_table(done), world_table(world), data_table(shared)]
    return [table for table in made if table.rows]


def arms_table(done: Done) -> Table:
    """What each arm achieves."""
    rows: list[list[Value]] = []
    for arm, name in NAMES.items():
        results = got(done, SETUP, arm)
        if results:
            columns = [[fmean(r[key]) for r in results] for key in ("success", "stages", "interventions")]
            rows.append(
                [
                    name,
                    len(results),
                    len(results[0]["success"]),
                    *(v for c in columns for v in mean_and_half(c)),
                ]
            )
    columns = ["arm", "seeds", "episodes", "task", "±", "stages", "±", "said in an episode", "±"]
    note = (
        "Shares of episodes in which the whole task was done, and of the eight stages; means over seeds with half the "
        "95% interval. Arms with fewer episodes have the first ones of the others."
    )
    return Table("Arms", columns, rows, note)


def stages_table(done: Done) -> Table:
    """Each stage: the share of episodes in which it was done."""
    rows: list[list[Value]] = []
    for arm, name in NAMES.items():
        results = got(done, SETUP, arm)
        if results:
            rows.append([name, *(fmean(fmean(r[f"stage {stage}"]) for r in results) for stage in STAGES)])
    note = "Means over seeds. What the oracle's row lacks no words can mend: those are failures of the low level."
    return Table("Stages", ["arm", *STAGES], rows, note)


def rounds_table(done: Done) -> Table:
    """What the rounds were learned from."""
    rows: list[list[Value]] = []
    for arm in ROUND_ARMS[1:]:
        results = got(done, SETUP, arm)
        if results:
            learned = fmean(r["learned_from"] for r in results)
            rows.append([NAMES[arm], len(results), learned, fmean(r["share"] for r in results)])
    columns = ["round", "seeds", "corrections", "as a share of the demonstrations' segments"]
    return Table(
        "Rounds", columns, rows, "The paper's corrections are 4 to 11% of its segments, in 2 or 3 rounds."
    )


def world_table(world: Result | None) -> Table:
    """How the world was chosen."""
    columns = ["camera off by (m)", "noise on actions", "stages that were begun", "task", ""]
    rows: list[list[Value]] = [
        [
            one["world"]["camera_jitter"],
            one["world"]["action_noise"],
            one["stages"],
            one["task"],
            "taken" if world and one["world"] == world["world"] else "",
        ]
        for one in (world or {}).get("tried", ())
    ]
    note = "A pair with a seed of its own on validation episodes; wanted are 70 to 85% and 10 to 30%."
    return Table("How the low level was made imperfect", columns, rows, note)


def data_table(shared: Result | None) -> Table:
    """The demonstrations."""
    told: Mapping[str, Any] = shared or {}
    columns = ["episodes", "steps", "segments", "learned by the low level", "wordings"]
    rows: list[list[Value]] = (
        [[told["episodes"], told["steps"], told["segments"], told["learned"], told["wordings"]]]
        if told
        else []
    )
    return Table("Demonstrations", columns, rows)


def plots(done: Done) -> list[Plot]:
    """Success over the rounds."""
    series = []
    for name, key in (("task", "success"), ("stages", "stages")):
        points = [
            (k, [fmean(r[key]) for r in results])
            for k, arm in enumerate(ROUND_ARMS)
            if (results := got(done, SETUP, arm))
        ]
        if points:
            x, values = [float(k) for k, _ in points], [v for _, v in points]
            series.append(Series(name, x, [*map(fmean, values)], [*map(min, values)], [*map(max, values)]))
    note = "Means over seeds; bands from the least to the most."
    return [Plot("By itself, after each round", "round", "share", series, note)] if series else []
