"""Robot demonstrations of any layout that `heedful.data.episodes` reads, as steps with rewards.

Rewards are those of the data (`next.reward`). Where it has none, an episode that is marked as a success is worth 1 at
its last frame and 0 before it, one marked as a failure 0 throughout; the task ends at the last frame of a success,
where there is no `next.done`. Data that say neither are refused, unless whoever has them says that they are successes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heedful.data.episodes import Episodes, open_episodes, outcome
from heedful.data.offline_episode import Faulty
from heedful.errors import HeedfulError

Array = NDArray[Any]
SEEN = "observation."
REWARD, DONE, CUT, SUCCESS = "next.reward", "next.done", "next.truncated", "next.success"
MARKED = "is_episode_successful"


@dataclass(frozen=True)
class Steps:
    """One episode: observations by name (T, ...), action (T, A), reward and terminal (T,), and what is known of it."""

    number: int
    observations: Mapping[str, Array]
    action: Array
    reward: Array
    terminal: Array
    info: dict[str, Any]


def robot_steps(
    path: Path,
    wanted: Collection[str] = (),
    *,
    unmarked_succeed: bool = False,
    faulty: Faulty | None = None,
) -> Iterator[Steps]:
    """The episodes of a data set, in order; names of observations without "observation.".

    wanted: which observations; all of them without. Of those that the data does not have nothing is said here.
    unmarked_succeed: take episodes that do not say whether they succeeded for successes. faulty: told of each episode
    that is left out because its rewards or its end are not known; without it such an episode is an error.
    Raises HeedfulError where there is no `action`, no observation, or no mark of success where `next.reward` or
    `next.done` is missing.
    """
    data = open_episodes(path)
    there = set(data.info.columns)
    if "action" not in there:
        raise HeedfulError(f"{path}: action is missing; there are {', '.join(sorted(there)) or 'no columns'}")
    seen = [n for n in (*data.info.columns, *data.info.cameras) if n.startswith(SEEN) and _is_wanted(n, data)]
    names = [n for n in seen if not wanted or n.removeprefix(SEEN) in wanted]
    if not names:
        raise HeedfulError(
            f"{path}: no observation {'of ' + ', '.join(sorted(wanted)) if wanted else ''} is in the data; "
            f"it has {', '.join(n.removeprefix(SEEN) for n in seen) or 'none'}"
        )
    extra = [n for n in (REWARD, DONE, CUT, SUCCESS, MARKED) if n in there]
    columns = ["action", *extra, *(n for n in names if n not in data.info.cameras)]
    for number in range(len(data)):
        episode = data.episode(number)
        values = data.columns(number, columns)
        good = _good(outcome(episode), values)
        if good is None and unmarked_succeed:
            good = True
        where = f"{path}: episode {number}"
        try:
            reward, terminal = _rewards(values, good, where), _terminals(values, good, where)
        except HeedfulError as error:
            if faulty is None:
                raise
            faulty(str(error))
            continue
        pictures = {n: data.frames(number, n, range(episode.length)) for n in names if n in data.info.cameras}
        info: dict[str, Any] = {"episode_index": number}
        if good is not None:
            info["success"] = good
        if episode.tasks:
            info["task"] = episode.tasks[0]
        both = {**values, **pictures}
        yield Steps(
            number,
            {n.removeprefix(SEEN): both[n] for n in names},
            values["action"],
            reward,
            terminal,
            info,
        )


def _is_wanted(name: str, data: Episodes) -> bool:
    return name in data.info.cameras or data.info.features[name].dtype != "string"


def _good(marked: bool | None, values: Mapping[str, Array]) -> bool | None:
    told = [bool(np.any(values[n])) for n in (SUCCESS, MARKED) if n in values]
    return told[0] if told else marked


def _rewards(values: Mapping[str, Array], good: bool | None, where: str) -> Array:
    if REWARD in values:
        return values[REWARD]
    if good is None:
        raise HeedfulError(
            f"{where} has neither rewards ({REWARD}) nor a mark of success. If all episodes that have none are "
            "successes, say so with --unmarked-succeed"
        )
    reward = np.zeros(len(values["action"]))
    reward[-1:] = float(good)
    return reward


def _terminals(values: Mapping[str, Array], good: bool | None, where: str) -> Array:
    if DONE in values:
        return ended(values)
    if good is None:
        # Taken for unfinished, it would lose its last step, which is where the reward of a success stands.
        raise HeedfulError(
            f"{where} has rewards, but neither {DONE}, which says where the task ended, nor a mark of success. Add "
            f"{DONE}; or if all episodes that have none are successes, say so with --unmarked-succeed"
        )
    ends = np.zeros(len(values["action"]))
    ends[-1:] = float(good)
    return ends


def ended(values: Mapping[str, Array]) -> Array:
    """1 where the task ended, not where time ran out, of columns with next.done and perhaps next.truncated."""
    done = np.asarray(values[DONE], np.float64).reshape(-1)
    return np.where(np.asarray(values[CUT]).reshape(-1) > 0, 0.0, done) if CUT in values else done


# ---- a table of LeRobot's on its own


def is_of_a_step(name: str) -> bool:
    """Whether a column of LeRobot's tables says something of steps that is used here."""
    known = ("action", "next.reward", "next.done", "next.truncated", "next.success", "episode_index")
    return name.startswith("observation") or name in known


def parquet_column(table: Any, name: str, path: Path) -> Array:
    """A column as numbers (rows, ...). Raises HeedfulError naming the first row that is not like the others."""
    values = table.column(name).to_pylist()
    try:
        return np.array(values, dtype=np.float64)
    except (ValueError, TypeError):
        # Where rows differ in length: the first one that does is what the user looks for.
        first = len(values[0]) if isinstance(values[0], list) else -1
        row = next((i for i, v in enumerate(values) if not isinstance(v, list) or len(v) != first), 0)
        wanted = f"{first} numbers as row 0 is" if first >= 0 else "numbers"
        raise HeedfulError(f"{path}: {name}, row {row}: {values[row]!r:.80}: not {wanted}") from None
