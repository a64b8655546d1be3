"""Tables and plots of PA-RL, from the results of arms alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from heedful.papers.onpolicy_arms import got, mean_and_half
from heedful.papers.parl_arms import arms_of, episodes_to_goal, marks, raw, success
from heedful.papers.parl_sizes import NAMES, ONLINE, TUNED, Knobs, Setup
from heedful.papers.results import Plot, Series, Table, Value
from heedful.papers.seeds import Done, Result


def tables(done: Done, name: str, setup: Setup) -> list[Table]:
    """The tables of a setup, those without rows left out."""
    made = [success_table(done, name, setup), online_table(done, name, setup)]
    return [table for table in made if table.rows]


def success_table(done: Done, name: str, setup: Setup) -> Table:
    """Success of each arm by itself and by the critic's choice, at the end of the offline phase."""
    rows: list[list[Value]] = []
    for kind, arm in arms_of(setup):
        results = got(done, name, f"{kind}/{arm}")
        if arm in ONLINE or not results:
            continue
        # What a frozen clone does by itself stands in the clone's own row.
        own = mean_and_half([raw(r) for r in results]) if arm != "idql" else [None, None]
        chosen = [mean_and_half([searched(r)[i] for r in results]) for i in (0, -1) if searched(results[0])]
        first, last = [*chosen, [None, None], [None, None]][:2]
        gaps = [r["gap"] for r in results if r["gap"] is not None]
        rows.append([kind, NAMES[arm], len(results), *own, *first, *last, fmean(gaps) if gaps else None])
    columns = ["policy", "arm", "seeds", "by itself", "±", "clone, critic's choice", "±"]
    columns += ["at the end, critic's choice", "±", "Q less the return"]
    note = (
        "Shares of episodes that succeed, means over seeds with half the 95% interval; the last checkpoint of each. Q "
        "less the return: where rewards are sparse, an episode that failed has the return of failing for ever, so a "
        "policy that can succeed lies above the data's by right."
    )
    return Table(f"{setup.about}: offline", columns, rows, note)


def searched(result: Result) -> list[float]:
    """Success by the critic's choice, at each offline measurement of it."""
    labels = ("critic's choice", "offline, critic's choice")
    return [success(one) for one in result["measured"] if one["label"] in labels]


def online_table(done: Done, name: str, setup: Setup) -> Table:
    """Online arms: where they began, where they ended, and when they reached the goal."""
    rows: list[list[Value]] = []
    for kind, arm in arms_of(setup):
        results = got(done, name, f"{kind}/{arm}") if arm in ONLINE else []
        if results:
            before = mean_and_half([marks(r)[0][1] for r in results])
            after = mean_and_half([marks(r)[-1][1] for r in results])
            needed = [episodes_to_goal(r) for r in results]
            never = sum(n > marks(r)[-1][0] for n, r in zip(needed, results, strict=True))
            rows.append([NAMES[arm], len(results), *before, *after, *mean_and_half(needed), never])
    columns = [
        "arm",
        "seeds",
        "before",
        "±",
        "after",
        "±",
        "episodes to 80%",
        "±",
        "seeds that never reach it",
    ]
    note = "A seed that never reaches it counts as one measurement beyond its last."
    return Table(f"{setup.about}: online", columns, rows, note)


def settings_table(
    title: str, scores: Mapping[str, Sequence[tuple[Knobs, float | None]]], names: Mapping[str, str]
) -> Table:
    """Each method's settings with what they scored on the tuning task, and which was taken."""
    rows: list[list[Value]] = []
    for method in TUNED:
        known = [one for _, one in scores.get(method, ()) if one is not None]
        whole = len(known) == len(scores.get(method, ()))
        for number, (knobs, value) in enumerate(scores.get(method, ())):
            if value is not None:
                taken = whole and number == known.index(max(known))
                told = ", ".join(f"{key} {one:g}" for key, one in knobs.items())
                rows.append([names[method], told, value if value >= 0 else None, "taken" if taken else ""])
    note = "One seed of its own and a task of its own; three settings each. No figure where a run went to pieces."
    return Table(title, ["method", "setting", "success", ""], rows, note)


def data_table(setups: Mapping[str, Setup], data: Mapping[str, Result]) -> Table:
    """The data of every setup, and what a clone of them did before anything else was run."""
    rows: list[list[Value]] = [
        [
            setup.about,
            data[name]["episodes"],
            data[name]["steps"],
            data[name].get("success"),
            " ".join(f"{n:g}" for n in data[name].get("noise", setup.collect["noise"])),
            data[name].get("clone_success"),
        ]
        for name, setup in setups.items()
        if name in data
    ]
    columns = ["data", "episodes", "steps", "successful", "noise", "clone's success on validation seeds"]
    note = "The last column: what the noise was chosen by, before any reinforcement learning; empty where it was given."
    return Table("Data", columns, rows, note)


def plots(done: Done, name: str, setup: Setup) -> list[Plot]:
    """Success of online arms against the episodes they have collected."""
    series = []
    for kind, arm in arms_of(setup):
        results = got(done, name, f"{kind}/{arm}") if arm in ONLINE else []
        if results:
            # All seeds of an arm are measured at the same marks, but for episodes that broke.
            columns = list(zip(*(marks(r) for r in results)))
            x = [fmean(episodes for episodes, _ in column) for column in columns]
            values = [[value for _, value in column] for column in columns]
            series.append(
                Series(NAMES[arm], x, [*map(fmean, values)], [*map(min, values)], [*map(max, values)])
            )
    title = f"{setup.about}: success while learning online"
    note = "Means over seeds as each arm acts; bands from the least to the most."
    return [Plot(title, "episodes collected", "success", series, note)] if series else []
