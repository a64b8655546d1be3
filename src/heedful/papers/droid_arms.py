"""How the arms of DROID are run: data sets once, demonstrations once a seed, then a run folder an arm.

An arm is one run of `heedful demos train` and one of `heedful demos eval` beside JSON files of what was measured. All
arms of a seed learn the same demonstrations and meet the same starts.
"""

from __future__ import annotations

import json
from functools import partial
from statistics import fmean
from typing import Any

from heedful.errors import NotFinite
from heedful.papers.droid_sees import sees
from heedful.papers.droid_sizes import ARMS, CO_TRAINING, DATA_SEED, SENSITIVITY, SIZES, Arm
from heedful.papers.onpolicy_arms import attempt
from heedful.papers.results import Tier
from heedful.papers.seeds import Done, Result
from heedful.recipes import demos_eval, demos_train
from heedful.run import Run, open_run

DEMONSTRATIONS = "in_domain"
AS_SHOWN = "as_shown"
NEAR = 0.05
"""Metres from the finger tips to the middle of the object (or of the drawer's handle) at which it was reached."""


def run_arms(tier: Tier, setup: str, seed: int, run: Run, until: float | None = None) -> Done:
    """The arms of a seed, those that can be begun before `until` and those done earlier; see `trained` and `sees`."""
    done: Done = {}
    for name, arm in ARMS[setup].items():
        sets = [DEMONSTRATIONS, *([arm.mix] if arm.mix else [])]
        if any(data_of(tier, one, seed, run, until) is None for one in sets):
            continue
        folder = f"{setup}/seed{seed}/{name}"
        made = partial(trained, tier, arm, seed, folder, run)
        result = attempt(f"{folder}.json", made, run, until)
        if result is None:
            continue
        if "failed" not in result:
            look = partial(sees, config_of(tier, arm, seed, folder, run), run)
            result |= {"sees": attempt(f"{folder}.sees.json", look, run, until)}
        done[setup, name, seed] = result
    return done


def place_of(name: str, seed: int) -> str:
    """Where a data set is in the run folder; demonstrations belong to a seed."""
    return f"data/{name}-seed{seed}" if name == DEMONSTRATIONS else f"data/{name}"


def data_of(tier: Tier, name: str, seed: int, run: Run, until: float | None = None) -> Result | None:
    """What a data set holds, made once; None when it is late. Beside it lie the frames that are not idle, by the rule
    of `heedful demos trim`."""
    place, size = place_of(name, seed), SIZES[tier]

    def make() -> Result:
        from heedful.data.episodes import open_episodes
        from heedful.data.episodes.policy import succeeded
        from heedful.data.episodes.ranges import ranges_to_keep, write_ranges
        from heedful.data.table.sets import generate

        side = size.picture
        generate(
            run.path(place),
            name,
            seed=seed if name == DEMONSTRATIONS else DATA_SEED,
            episodes=size.episodes.get(name, 0),
            per_scene=size.per_scene.get(name, 0),
            size=(side, side),
        )
        episodes = open_episodes(run.path(place))
        kept = ranges_to_keep(episodes)
        write_ranges(run.path(f"{place}.ranges.json"), kept, episodes)
        rows = [episodes.episode(i) for i in range(len(episodes))]
        frames = sum(row.length for row in rows)
        return {
            "episodes": len(rows),
            "scenes": len({row.meta["scene_id"] for row in rows}),
            "failed": sum(not succeeded(row) for row in rows),
            "frames": frames,
            "kept": sum(b - a for ranges in kept.values() for a, b in ranges),
            "tasks": sorted({row.meta["current_task"] for row in rows}) if name == DEMONSTRATIONS else [],
        }

    return attempt(f"{place}.json", make, run, until)


def trained(tier: Tier, arm: Arm, seed: int, folder: str, run: Run) -> Result:
    """Train and measure an arm; {"failed": why} where numbers were not finite.

    trials: {setting: rows of `table_trials`}; loss: the last that was logged.
    """
    learning = config_of(tier, arm, seed, folder, run)
    try:
        with open_run(
            learning.out, learning, seed=seed, command="reproduce", volatile=demos_train.VOLATILE
        ) as own:
            told = demos_train.run(learning, own)
    except NotFinite as error:
        return {"failed": str(error)}
    measuring = demos_eval.settle(
        demos_eval.Config(
            learning.out, **{"video": 0, "device": "cpu", "quiet": True, **SIZES[tier].evaluate}
        )
    )
    with open_run(
        measuring.out, measuring, seed=measuring.seed, command="reproduce", volatile=demos_eval.VOLATILE
    ) as own:
        demos_eval.run(measuring, own)
        rows = {setting: _rows(own, setting) for setting in measuring.settings}
    return {"loss": told["last_loss"], "trials": rows}


def _rows(own: Run, setting: str) -> list[dict[str, Any]]:
    """The trials of a setting that did not break, task by task."""
    files = sorted(own.path(setting).glob("task*.jsonl"))
    lines = [
        json.loads(line) | {"task": file.stem} for file in files for line in file.read_text().splitlines()
    ]
    return [line for line in lines if "broken" not in line]


def config_of(tier: Tier, arm: Arm, seed: int, folder: str, run: Run) -> demos_train.Config:
    """The options of an arm's training."""
    size = SIZES[tier]
    options: dict[str, Any] = {**size.train, **arm.train}
    if arm.half:
        options["batch_size"] //= 2
    sets = [DEMONSTRATIONS, *([arm.mix] if arm.mix else [])]
    paths = [str(run.path(place_of(name, seed))) for name in sets]
    return demos_train.Config(
        **options,
        out=str(run.path(folder)),
        data=tuple(paths[:1]),
        mix=tuple(paths[1:]),
        weight=arm.weight,
        ranges=() if arm.idle else tuple(f"{path}.ranges.json" for path in paths),
        pictures_in=str(run.path("pictures")),
        save_every=0,
        seed=seed,
        quiet=True,
    )


# ---- numbers of one result


def trials(result: Result, *, shown: bool) -> list[dict[str, Any]]:
    """The trials as it was shown, or all others."""
    return [
        row for setting, rows in result["trials"].items() if (setting == AS_SHOWN) == shown for row in rows
    ]


def success(result: Result, *, shown: bool) -> float:
    """The share of trials that succeeded, in distribution (as it was shown) or out of it."""
    return fmean(row["success"] for row in trials(result, shown=shown))


def reached(result: Result, *, shown: bool) -> float:
    """The share of trials in which the finger tips came within `NEAR` of the object."""
    return fmean(row["nearest"] <= NEAR for row in trials(result, shown=shown))


def motion(result: Result) -> float:
    """Seconds to the first motion over all trials; one that never moved counts with its whole length."""
    from heedful.data.table.arm import HERTZ

    rows = [*trials(result, shown=True), *trials(result, shown=False)]
    return fmean(row["steps"] if row["first_motion"] is None else row["first_motion"] for row in rows) / HERTZ


def stuck(result: Result) -> float:
    """The share of all trials in which the arm stood still for two seconds."""
    return fmean(row["stuck"] for row in [*trials(result, shown=True), *trials(result, shown=False)])


def of_all(setup_arm: str) -> tuple[str, str]:
    """(setup, arm) of an arm's name."""
    return (CO_TRAINING if setup_arm in ARMS[CO_TRAINING] else SENSITIVITY, setup_arm)
