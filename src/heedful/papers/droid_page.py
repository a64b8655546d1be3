"""Tables and plots of DROID, from the results of arms alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from heedful.evals.intervals import paired_bootstrap
from heedful.papers.droid_arms import AS_SHOWN, NEAR, motion, reached, stuck, success
from heedful.papers.droid_sizes import ARMS, CO_TRAINING, SENSITIVITY
from heedful.papers.onpolicy_arms import got, mean_and_half
from heedful.papers.results import Plot, Series, Table, Value
from heedful.papers.seeds import Done, Result

SHARES = (("none-2x", 0.0), ("mix-25", 0.25), ("diverse", 0.5), ("mix-75", 0.75))
"""Arms by the share of co-training in a batch."""


def tables(done: Done, seeds: Sequence[int]) -> list[Table]:
    """The tables of both setups, those without rows left out."""
    made = [success_table(done, setup) for setup in ARMS]
    made += [settings_table(done), tasks_table(done), trials_table(done, seeds), sees_table(done)]
    return [table for table in made if table.rows]


def success_table(done: Done, setup: str) -> Table:
    """Success, motion and the last loss of each arm of a setup."""
    rows: list[list[Value]] = []
    for name, arm in ARMS[setup].items():
        results = got(done, setup, name)
        if results:
            rows.append(
                [
                    name,
                    arm.about,
                    len(results),
                    *mean_and_half([success(r, shown=True) for r in results]),
                    *mean_and_half([success(r, shown=False) for r in results]),
                    *mean_and_half([reached(r, shown=False) for r in results]),
                    fmean(motion(r) for r in results),
                    fmean(stuck(r) for r in results),
                    fmean(r["loss"] for r in results),
                ]
            )
    columns = ["arm", "", "seeds", "as shown", "±", "out of distribution", "±", "reached there", "±"]
    columns += ["first motion, s", "stuck", "loss"]
    note = (
        "Shares of trials that succeed, means over seeds with half the 95% interval; of those out of distribution also "
        f"the share in which the object was reached, within {100 * NEAR:g} cm. Losses of different data do not compare."
    )
    return Table(setup, columns, rows, note)


def settings_table(done: Done) -> Table:
    """Success and nearness to the object of the arms of co-training, setting by setting."""
    rows: list[list[Value]] = []
    for name in ARMS[CO_TRAINING]:
        results = got(done, CO_TRAINING, name)
        for setting in results[0]["trials"] if results else ():
            some = [row for r in results for row in r["trials"][setting]]
            if some:
                shares = [fmean(row["success"] for row in r["trials"][setting]) for r in results]
                near = 100 * fmean(row["nearest"] for row in some)
                rows.append([name, setting.replace("_", " "), len(some), *mean_and_half(shares), near])
    columns = ["arm", "setting", "trials", "success", "±", "nearest, cm"]
    return Table("By setting", columns, rows, "Nearest: of the finger tips to the object, mean over trials.")


def tasks_table(done: Done) -> Table:
    """Which tasks succeed at all, over all arms and settings."""
    from heedful.data.table.sets import in_domain_tasks

    found: dict[tuple[int, str], list[int]] = {}
    for (_, _, seed), result in done.items():
        for row in (row for rows in result.get("trials", {}).values() for row in rows):
            found.setdefault((seed, row["task"]), []).append(row["success"])
    rows: list[list[Value]] = [
        [seed, in_domain_tasks(seed)[int(place.removeprefix("task"))].name, len(some), sum(some)]
        for (seed, place), some in sorted(found.items())
    ]
    note = "Over all arms and settings. The drawer stands in one place, so that it can be opened without looking."
    return Table("By task", ["seed", "task", "trials", "succeeded"], rows, note)


def trials_table(done: Done, seeds: Sequence[int]) -> Table:
    """The lead of co-training on many scenes, trial by trial, with seeds taken as given."""
    rows: list[list[Value]] = []
    for name in ARMS[CO_TRAINING]:
        for shown in (True, False):
            pairs = [
                pair
                for seed in seeds
                for pair in paired(
                    done.get((CO_TRAINING, name, seed)), done.get((CO_TRAINING, "diverse", seed)), shown=shown
                )
            ]
            if name != "diverse" and pairs:
                lead = paired_bootstrap(*zip(*pairs, strict=True))
                where = "as shown" if shown else "out of distribution"
                rows.append([name, where, len(pairs), lead.estimate, *(lead.bounds() or [None, None])])
    columns = ["over", "where", "trials", "lead", "from", "to"]
    note = (
        "Paired bootstrap over trials of all seeds, 95%: it does not count how another training would differ, as the "
        "claims' intervals do."
    )
    return Table("Lead of co-training on many scenes, trial by trial", columns, rows, note)


def sees_table(done: Done) -> Table:
    """Whether policies go by their pictures."""
    rows: list[list[Value]] = []
    for setup, arms in ARMS.items():
        for name in arms:
            seen = [result["sees"] for result in got(done, setup, name) if result.get("sees")]
            if seen:
                own = [one["own"] for one in seen]
                lost = [one["others"] - one["own"] for one in seen]
                rows.append([name, len(seen), *mean_and_half(own), *mean_and_half(lost)])
    note = (
        "On the demonstrations that an arm learned, at the frames that it learned from: centimetres between where the "
        "hand is to be after a chunk and where it was, and how many more they are with pictures of other moments of "
        "the same task. A policy that does not look loses nothing by them."
    )
    return Table("What pictures are worth", ["arm", "seeds", "error, cm", "±", "lost, cm", "±"], rows, note)


def paired(before: Result | None, after: Result | None, *, shown: bool) -> list[tuple[int, int]]:
    """Success of two arms in the trials that both finished."""
    if before is None or after is None or "failed" in before or "failed" in after:
        return []
    found = []
    for setting, rows in before["trials"].items():
        if (setting == AS_SHOWN) == shown:
            there = {(row["task"], row["index"]): row["success"] for row in after["trials"].get(setting, ())}
            found += [
                (row["success"], there[key]) for row in rows if (key := (row["task"], row["index"])) in there
            ]
    return found


def data_table(data: Mapping[str, Result]) -> Table:
    """What the data sets hold."""
    rows: list[list[Value]] = [
        [
            name,
            one["episodes"],
            one["scenes"],
            one["failed"],
            one["frames"],
            one["kept"] / one["frames"],
            "; ".join(one["tasks"]),
        ]
        for name, one in data.items()
    ]
    columns = ["data set", "episodes", "scenes", "failed, left out", "frames", "not idle", "tasks"]
    return Table("Data", columns, rows, "Not idle: the share of frames that openpi's rule keeps.")


def plots(done: Done) -> list[Plot]:
    """Success against the share of co-training in a batch."""
    series = []
    for shown, label in ((True, "as shown"), (False, "out of distribution")):
        points = []
        for name, share in SHARES:
            results = got(done, CO_TRAINING if name in ARMS[CO_TRAINING] else SENSITIVITY, name)
            if results:
                points.append((share, [success(r, shown=shown) for r in results]))
        if len(points) > 1:
            x, values = [share for share, _ in points], [v for _, v in points]
            series.append(Series(label, x, [*map(fmean, values)], [*map(min, values)], [*map(max, values)]))
    note = "Means over seeds; bands from the least to the most. At 0 the whole batch is demonstrations."
    title = "Success by the share of co-training in a batch"
    return [Plot(title, "share of co-training", "success", series, note)] if series else []
