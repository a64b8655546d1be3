"""Offline data into a replay buffer, checked on the way: what is wrong is named with file, field and row, all at once.

Letters: A numbers of an action.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heedful.data.offline_episode import Found
from heedful.data.offline_files import read_episodes
from heedful.data.replay import Episode, ReplayBuffer
from heedful.errors import HeedfulError
from heedful.policies.actions import SLACK, ActionSpace

Array = NDArray[Any]
SHOWN = 20
"""Problems that an error lists; the others are counted."""
FLUSH = 4096
"""Steps that go to the disk together."""
WIDEN = 1e-3
"""Half of the range that a number of an action gets which is the same everywhere in the data."""


def problems_of(
    found: Found, shapes: Mapping[str, Sequence[int]], actions: int, space: ActionSpace | None
) -> list[str]:
    """What is wrong with an episode, each with its place; empty when it can be used.

    shapes: of one observation by name. space: the bounds, None where they are not known.
    """
    episode, where, said = found.episode, found.where, []
    if set(episode.observations) != set(shapes):
        have, want = ", ".join(episode.observations) or "nothing", ", ".join(shapes)
        return [f"{where('observations')}: there is {have}; {want} is expected"]
    for name, shape in shapes.items():
        values = episode.observations[name]
        if values.shape[1:] != tuple(shape):
            said.append(f"{where(name)}: a row has the shape {values.shape[1:]}; {tuple(shape)} is expected")
        else:
            said += _not_finite(values, where, name)
    if episode.action.shape[1:] != (actions,):
        said.append(
            f"{where('action')}: an action has {episode.action.shape[-1]} numbers; {actions} are expected"
        )
    else:
        said += _not_finite(episode.action, where, "action")
        said += _out_of_bounds(episode.action, where, space) if space else []
    said += _not_finite(episode.reward, where, "reward")
    odd = np.flatnonzero(~np.isin(episode.terminal, (0, 1)))
    if len(odd):
        said.append(
            f"{where('terminal', int(odd[0]))}: {episode.terminal[odd[0]]} is neither 0 nor 1{_more(odd)}"
        )
    return said


def import_episodes(
    paths: Sequence[str],
    folder: Path,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    space: ActionSpace | None = None,
    max_steps: int = 0,
    drop_faulty: bool = False,
    unmarked_succeed: bool = False,
    task: str = "",
) -> tuple[ReplayBuffer, dict[str, Any]]:
    """Put the episodes of all files, in order, into a new buffer in `folder`; what was there of it is replaced.

    shapes, space: what the environment has; without them the first episode says the shapes, and bounds are not checked.
    Of demonstrations of robots, which have many, only the observations of the environment are read. drop_faulty: leave
    faulty episodes out and count them. unmarked_succeed: see `offline_robot.robot_steps`. task: what episodes that do
    not say it were to do. The second value is what was found: episodes, steps, faulty (how many were left out), short
    (episodes without a usable step), left_out (steps whose next state is not in the file), low and high (of each number
    of an action), shapes.

    Raises HeedfulError with the first `SHOWN` problems, and when no episode is left.
    """
    buffer: ReplayBuffer | None = None
    problems: list[str] = []
    waiting: list[Episode] = []
    counts = dict.fromkeys(("faulty", "short", "left_out"), 0)
    low = high = np.zeros(0)
    wrong = 0

    def faulty(*said: str) -> None:
        nonlocal wrong
        counts["faulty"] += 1
        wrong += len(said)
        problems.extend(said[: SHOWN - len(problems)])

    for path in paths:
        for found in read_episodes(
            path,
            max_steps=max_steps,
            names=tuple(shapes or ()),
            unmarked_succeed=unmarked_succeed,
            faulty=faulty,
        ):
            counts["left_out"] += found.left_out
            if found.episode.steps < 1:
                counts["short"] += 1
                continue
            if buffer is None:
                known = shapes or {n: v.shape[1:] for n, v in found.episode.observations.items()}
                actions = len(space.low) if space else found.episode.action.shape[-1]
                buffer = _emptied(folder, known, actions)
            said = problems_of(found, buffer.shapes, buffer.actions, space)
            if said:
                faulty(*said)
                continue
            action = found.episode.action
            if len(low):
                low, high = np.minimum(low, action.min(0)), np.maximum(high, action.max(0))
            else:
                low, high = action.min(0), action.max(0)
            if not wrong or drop_faulty:
                if task:
                    found.episode.info.setdefault("task", task)
                waiting.append(found.episode)
                if sum(episode.steps for episode in waiting) >= FLUSH:
                    buffer.extend(waiting)
                    waiting = []
    if buffer is not None:
        buffer.extend(waiting)
    if wrong and not drop_faulty:
        more = f"\n  and {wrong - len(problems)} more" if wrong > len(problems) else ""
        listed = "\n  ".join(problems)
        raise HeedfulError(
            f"the offline data has {wrong} problem(s) in {counts['faulty']} episode(s):\n  {listed}{more}\n"
            "Correct them, or leave these episodes out with --drop-faulty"
        )
    if buffer is None or not buffer.episodes:
        first = f"; the first problem: {problems[0]}" if problems else ""
        raise HeedfulError(
            f"{', '.join(paths)}: no episode can be used ({counts['faulty']} faulty, {counts['short']} without a "
            f"step){first}"
        )
    facts = {
        "episodes": buffer.episodes,
        "steps": buffer.rows - buffer.episodes,
        **counts,
        "low": [float(x) for x in low],
        "high": [float(x) for x in high],
        "shapes": {name: list(shape) for name, shape in buffer.shapes.items()},
    }
    return buffer, facts


def space_of_data(low: Sequence[float], high: Sequence[float], horizon: int) -> ActionSpace:
    """Bounds from the least and greatest number of each kind in the data."""
    pairs = [
        (a, b) if b - a > 2 * WIDEN else ((a + b) / 2 - WIDEN, (a + b) / 2 + WIDEN) for a, b in zip(low, high)
    ]
    return ActionSpace(tuple(a for a, _ in pairs), tuple(b for _, b in pairs), horizon)


def _emptied(folder: Path, shapes: Mapping[str, Sequence[int]], actions: int) -> ReplayBuffer:
    buffer = ReplayBuffer(folder, shapes, actions)
    buffer.truncate(0)
    return buffer


def _not_finite(values: Array, where: Any, field: str) -> list[str]:
    if values.dtype.kind != "f":
        return []
    bad = np.argwhere(~np.isfinite(values))
    if not len(bad):
        return []
    row = int(bad[0][0])
    which = f", number {int(bad[0][1])}" if values.ndim > 1 else ""
    return [f"{where(field, row)}{which}: {values[tuple(bad[0])]} is not finite{_more(np.unique(bad[:, 0]))}"]


def _out_of_bounds(action: Array, where: Any, space: ActionSpace) -> list[str]:
    low, high = np.array(space.low), np.array(space.high)
    slack = SLACK * (high - low)
    bad = np.argwhere((action < low - slack) | (action > high + slack))
    if not len(bad):
        return []
    row, number = map(int, bad[0])
    return [
        f"{where('action', row)}, number {number}: {action[row, number]:g} is outside [{low[number]:g}, "
        f"{high[number]:g}]{_more(np.unique(bad[:, 0]))}"
    ]


def _more(rows: Array) -> str:
    return f" ({len(rows) - 1} more rows of this episode)" if len(rows) > 1 else ""
