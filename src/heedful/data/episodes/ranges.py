"""Which frames of an episode are worth keeping: idle runs, and the ranges between them.

Two rules. `change` is openpi's for DROID (examples/droid/compute_droid_nonidle_ranges.py): a frame is idle where no
commanded joint velocity changes by 1e-3 or more from the frame before. Steady motion is idle under it too. `speed` asks
what one means: a frame is idle where every velocity itself is small. Both then drop idle runs of 7 frames and more,
keep what is left where it is 16 frames or longer, and cut the last 10 frames of each such range, whose action chunks
would reach into the idle run.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from heedful.data.episodes import Episodes
from heedful.errors import HeedfulError

Mask = NDArray[np.bool_]
Range = tuple[int, int]
Rule = Literal["change", "speed"]
CHANGE = 1e-3
SPEED = 1e-2
"""Rad/s or m/s below which nothing moves."""
MIN_IDLE, MIN_KEEP, DROP_LAST = 7, 16, 10
VELOCITIES = ("action.joint_velocity", "action.cartesian_velocity", "observation.state.joint_velocity")
POSITIONS = ("action.joint_position", "action.cartesian_position", "action", "observation.state")


def runs(mask: Mask) -> list[Range]:
    """(start, end) of each stretch of True, end not included."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def idle_by_change(velocity: NDArray[Any], threshold: float = CHANGE) -> Mask:
    """(T,) frames at which no entry of `velocity`, (T, D), has changed by `threshold` or more; never the first."""
    still = np.all(np.abs(np.diff(velocity, axis=0)) < threshold, axis=1)
    return np.concatenate([[False], still]) if len(velocity) else np.zeros(0, bool)


def idle_by_speed(velocity: NDArray[Any], threshold: float = SPEED) -> Mask:
    """(T,) frames at which every entry of `velocity`, (T, D), is below `threshold`."""
    return np.all(np.abs(velocity) < threshold, axis=1)


def keep_ranges(
    idle: Mask, min_idle: int = MIN_IDLE, min_keep: int = MIN_KEEP, drop_last: int = DROP_LAST
) -> list[Range]:
    """The ranges to keep, end not included; what `drop_last` leaves nothing of is left out."""
    keep = np.ones(len(idle), dtype=bool)
    for a, b in runs(idle):
        if b - a >= min_idle:
            keep[a:b] = False
    found = [(a, b - drop_last) for a, b in runs(keep) if b - a >= min_keep]
    return [(a, b) for a, b in found if b > a]


def velocity_of(episodes: Episodes, i: int, column: str = "") -> tuple[NDArray[np.float64], str]:
    """((T, D) velocities of episode `i`, where they come from): a column of velocities, or positions' differences.

    Raises HeedfulError where there is neither.
    """
    name = column or signal_column(episodes.info.columns)
    if not name:
        raise HeedfulError(
            f"{episodes.path}: there is no column of actions or states; name one with --signal"
        )
    return as_velocity(episodes.columns(i, [name])[name], name, episodes.info.fps)


def signal_column(have: Sequence[str]) -> str:
    """The column that shows best what moves: velocities before positions, commands before states; "" for none."""
    return next((n for n in (*VELOCITIES, *POSITIONS) if n in have), "")


def as_velocity(values: NDArray[Any], name: str, fps: float) -> tuple[NDArray[np.float64], str]:
    """((T, D) velocities, where they come from) of a column of velocities, or of positions."""
    numbers = values.astype(np.float64).reshape(len(values), -1)
    if "velocity" in name:
        return numbers, name
    return np.diff(numbers, axis=0, prepend=numbers[:1]) * fps, f"differences of {name}"


def idle_frames(
    episodes: Episodes, i: int, rule: Rule = "change", threshold: float = 0.0, column: str = ""
) -> Mask:
    """(T,) idle frames of episode `i` under a rule; threshold 0 is the rule's own."""
    velocity, _ = velocity_of(episodes, i, column)
    if rule == "change":
        return idle_by_change(velocity, threshold or CHANGE)
    return idle_by_speed(velocity, threshold or SPEED)


def ranges_to_keep(
    episodes: Episodes,
    rule: Rule = "change",
    threshold: float = 0.0,
    column: str = "",
    *,
    min_idle: int = MIN_IDLE,
    min_keep: int = MIN_KEEP,
    drop_last: int = DROP_LAST,
) -> dict[int, list[Range]]:
    """What to keep of each episode: `keep_ranges` of its `idle_frames`."""
    return {
        i: keep_ranges(idle_frames(episodes, i, rule, threshold, column), min_idle, min_keep, drop_last)
        for i in range(len(episodes))
    }


def range_key(meta: Mapping[str, Any], index: int) -> str:
    """What openpi calls an episode in its file of ranges; its number where the recording's folder is not known."""
    folder, file = meta.get("recording_folderpath"), meta.get("file_path")
    return f"{folder}--{file}" if folder and file else str(index)


def range_keys(episodes: Episodes) -> list[str]:
    """What each episode is called in a file of ranges: `range_key`, with its number where several share a recording."""
    keys = [range_key(episodes.episode(i).meta, i) for i in range(len(episodes))]
    counts = Counter(keys)
    return [f"{key}--{i}" if counts[key] > 1 else key for i, key in enumerate(keys)]


def read_ranges(file: Path, episodes: Episodes) -> dict[int, list[Range]]:
    """Ranges by episode from a file as openpi writes it.

    Raises HeedfulError naming an episode without an entry, or the episodes that one entry fits.
    """
    try:
        told = json.loads(file.read_bytes())
        rows = {str(name): [(int(a), int(b)) for a, b in ranges] for name, ranges in told.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise HeedfulError(f"{file} holds no ranges, {{episode: [[start, end], ...]}}: {error}") from error
    found: dict[int, list[Range]] = {}
    for i, key in enumerate(range_keys(episodes)):
        if key not in rows:
            shared = range_key(episodes.episode(i).meta, i)
            if shared in rows:
                fits = [j for j in range(len(episodes)) if range_key(episodes.episode(j).meta, j) == shared]
                raise HeedfulError(
                    f"{file}: the entry {shared!r} fits episodes {', '.join(map(str, fits))} of {episodes.path}, which "
                    "are of one recording; `heedful demos trim --ranges` on this data set writes an entry for each"
                )
            raise HeedfulError(f"{file} has no entry for episode {i}, {key!r}")
        found[i] = rows[key]
    return found


def write_ranges(file: Path, ranges: Mapping[int, Sequence[Range]], episodes: Episodes) -> None:
    """Write ranges as openpi does; episodes of one recording have its key with their number."""
    from heedful.atomic import write_file

    keys = range_keys(episodes)
    told = {keys[i]: [list(r) for r in rows] for i, rows in ranges.items()}
    write_file(file, json.dumps(told).encode())
