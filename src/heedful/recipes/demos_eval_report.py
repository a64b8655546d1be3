"""What `heedful demos eval` found: success with intervals over trials, motion, and where the films are."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from heedful.atomic import write_file
from heedful.data.table.arm import HERTZ
from heedful.errors import HeedfulError
from heedful.evals.intervals import share
from heedful.evals.table_trials import MOVED, STILL
from heedful.recipes.demos_eval import Rows
from heedful.report import write_report
from heedful.run import Run

if TYPE_CHECKING:
    from heedful.recipes.demos_eval import Config

AS_SHOWN = "as_shown"
FEW = 30
"""Trials of a setting below which a warning says that little can be told."""
LIMITS = [
    "Intervals are over trials, for one policy, one scene and one seed of training.",
    "The simulated table is not a room: what holds here need not hold on a robot.",
]


def finish(cfg: Config, done: Rows, run: Run) -> dict[str, Any]:
    """Write result.json, report.json and report.html; returns the result. Raises HeedfulError where all broke."""
    settings = {setting: summed(_all(tasks.values())) for setting, tasks in done.items()}
    other = summed(_all(rows for name, tasks in done.items() if name != AS_SHOWN for rows in tasks.values()))
    if not any(one["trials"] for one in settings.values()):
        raise HeedfulError(f"no trial was finished: {_broken(done)[0]}")
    result: dict[str, Any] = {"job": "demos eval", "run": cfg.run, "seed": cfg.seed, "settings": settings}
    if other["trials"]:
        result["out_of_distribution"] = other
    summary = [f"{name.replace('_', ' ')}: {_said(one)}." for name, one in settings.items()]
    if other["trials"] and len(settings) > 2:
        summary.append(f"out of distribution, all together: {_said(other)}.")
    films = sorted(path.name for path in run.path("video").glob("*.mp4"))
    page = {
        "job": "demos eval",
        "title": f"{cfg.run} at the simulated table",
        "summary": [line[0].upper() + line[1:] for line in summary],
        "warnings": _warnings(settings, _broken(done)),
        "tables": [_table(done)],
        "data": {"held-out scene of seed": cfg.seed, "trials of each task and setting": cfg.episodes},
        "feedback": {
            "success": "asked of the simulator",
            "first motion": f"the arm is {MOVED * 100:g} cm from where it began",
            "stuck": f"the finger tips stay within {MOVED * 100:g} cm for {STILL / HERTZ:g} s before the task is done",
            "films": [f"video/{name}" for name in films],
        },
        "limits": LIMITS,
    }
    for name, value in (("report.json", page), ("result.json", result)):
        write_file(run.path(name), (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode())
    write_report(run.folder)
    return result


def summed(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of trials: how many, success with its 95% interval, seconds to the first motion (mean of those that moved), the
    shares that never moved and that were stuck, metres between finger tips and object at the nearest; and how many
    broke."""
    whole = [row for row in rows if "broken" not in row]
    told: dict[str, Any] = {"trials": len(whole), "broken": len(rows) - len(whole)}
    if not whole:
        return told
    success = share([row["success"] for row in whole])
    moved = [row["first_motion"] / HERTZ for row in whole if row["first_motion"] is not None]
    return {
        **told,
        "success": round(success.estimate, 6),
        "interval": success.bounds(),
        "first_motion_s": round(fmean(moved), 4) if moved else None,
        "never_moved": round(1 - len(moved) / len(whole), 6),
        "stuck": round(fmean(row["stuck"] for row in whole), 6),
        "nearest_m": round(fmean(row["nearest"] for row in whole), 4),
    }


def _all(parts: Iterable[Sequence[Mapping[str, Any]]]) -> list[Mapping[str, Any]]:
    return [row for rows in parts for row in rows]


def _broken(done: Rows) -> list[str]:
    return [
        f"{setting}, {task}, trial {row['index']}: {row['broken']}"
        for setting, tasks in done.items()
        for task, rows in tasks.items()
        for row in rows
        if "broken" in row
    ]


def _said(one: Mapping[str, Any]) -> str:
    if not one["trials"]:
        return "no trial was finished"
    ends = f" (interval {one['interval'][0]:.1%} to {one['interval'][1]:.1%})" if one["interval"] else ""
    first = (
        "it never moved"
        if one["first_motion_s"] is None
        else f"first motion after {one['first_motion_s']:.2g} s"
    )
    return (
        f"{one['success']:.1%} success{ends}, {first}, stuck in {one['stuck']:.0%} of {one['trials']} trials"
    )


def _table(done: Rows) -> dict[str, Any]:
    rows = []
    for setting, tasks in done.items():
        for task, trials in tasks.items():
            one = summed(trials)
            if not one["trials"]:
                rows.append([setting, task, 0, "", "", "", "", "", one["broken"]])
                continue
            low, high = one["interval"] or (None, None)
            rows.append(
                [
                    setting.replace("_", " "),
                    task,
                    one["trials"],
                    f"{one['success']:.0%}",
                    "" if low is None else f"{low:.0%} to {high:.0%}",
                    "never" if one["first_motion_s"] is None else f"{one['first_motion_s']:.2f}",
                    f"{one['stuck']:.0%}",
                    f"{100 * one['nearest_m']:.1f}",
                    one["broken"],
                ]
            )
    return {
        "title": "By setting and task",
        "columns": [
            "setting",
            "task",
            "trials",
            "success",
            "interval",
            "first motion, s",
            "stuck",
            "nearest, cm",
            "broken",
        ],
        "rows": rows,
    }


def _warnings(settings: Mapping[str, Mapping[str, Any]], broken: Sequence[str]) -> list[str]:
    said = []
    if any(one["trials"] < FEW for one in settings.values()):
        said.append(f"Fewer than {FEW} trials of a setting tell little; take more --episodes.")
    if broken:
        said.append(
            f"The simulation broke in {len(broken)} trials, which were dropped; the first: {broken[0]}."
        )
    return said
