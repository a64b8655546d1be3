"""Find what is wrong with demonstrations. Each check says what it saw, in which episode and at which frame.

An episode that cannot be read is a finding, and the check goes on with the others. Thresholds are named here; how often
each check is right and how much it finds, on data with seeded defects, stands in docs/demos.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heedful.data.episodes import DEFAULT_FEATURES, NUMBERS, Episodes
from heedful.data.episodes.check_survey import Finding, Survey
from heedful.data.episodes.ranges import MIN_IDLE, as_velocity, idle_by_speed, runs, signal_column
from heedful.errors import HeedfulError

Array = NDArray[Any]
JUMP_TIMES, JUMP_SHARE = 5.0, 0.1
"""A jump is this many times the 95th percentile of a dimension's steps, and this share of its range."""
STILL = 0.02
"""A position is idle where it moves less than this share of the 90th percentile of its steps."""
RATE_OFF = 0.15
"""Relative error of the frame rate that the motion itself shows."""
COPIED = 0.95
"""Share of episodes in which two columns must agree to be copies."""


def check_nan(seen: Survey) -> list[Finding]:
    """Numbers that are not finite."""
    found = []
    for i, columns in seen.columns.items():
        for name, values in columns.items():
            if values.dtype.kind == "f":
                bad = np.asarray(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))
                found += [
                    Finding("nan", "error", f"{name} is not finite", i, a, b - a, (name,))
                    for a, b in runs(bad)
                ]
    return found


def check_idle(seen: Survey) -> list[Finding]:
    """Runs of frames in which nothing moves, of openpi's length or longer."""
    episodes, found = seen.episodes, []
    name = signal_column(episodes.info.columns)
    if not name:
        return [Finding("idle", "note", "there is no column of actions or states")]
    moves: dict[int, Array] = {}
    source = ""
    for i, values in seen.each(name):
        moves[i], source = as_velocity(values, name, episodes.info.fps)
    if not moves:
        return []
    still: dict[int, Array]
    if source.startswith("differences"):
        together = np.abs(np.concatenate([m[1:] for m in moves.values()]))
        scale = np.array([np.percentile(d[d > 0], 90) if (d > 0).any() else 1.0 for d in together.T])
        still = {i: np.asarray((np.abs(m) <= STILL * scale).all(axis=1)) for i, m in moves.items()}
    else:
        still = {i: idle_by_speed(m) for i, m in moves.items()}
    for i, mask in still.items():
        for a, b in runs(mask):
            if b - a >= MIN_IDLE:
                found.append(Finding("idle", "warning", f"nothing moves ({source})", i, a, b - a))
    return found


def action_columns(episodes: Episodes) -> list[str]:
    """Columns of commanded positions."""
    return [n for n in episodes.info.columns if n.split(".")[0] == "action" and "velocity" not in n]


def check_jumps(seen: Survey) -> list[Finding]:
    """Actions that leap: far more in one frame than the dimension ever moves, grippers and turns by 2 pi left out."""
    found = []
    for name in action_columns(seen.episodes):
        together = seen.all(name).astype(np.float64)
        if len(together) < 20:
            continue
        steps = np.concatenate([np.abs(np.diff(v.reshape(len(v), -1), axis=0)) for _, v in seen.each(name)])
        steps = np.where(np.isfinite(steps), steps, 0)
        low, high = np.nanpercentile(together, [1, 99], axis=0)
        limit = np.maximum(JUMP_TIMES * np.percentile(steps, 95, axis=0), JUMP_SHARE * (high - low))
        few = np.array([len(np.unique(np.round(d, 3))) <= 4 for d in together.T])
        grip = np.array([is_gripper(seen.episodes, name, d) for d in range(together.shape[1])])
        for i, values in seen.each(name):
            leaps = np.abs(np.diff(values.reshape(len(values), -1).astype(np.float64), axis=0))
            turned = np.abs(leaps - 2 * np.pi) < 0.3
            bad = (leaps > limit) & ~turned & ~few & ~grip
            for t in np.flatnonzero(bad.any(axis=1)):
                d = int(np.argmax(np.where(bad[t], leaps[t] / np.maximum(limit, 1e-12), 0)))
                told = f"{name}[{d}] jumps by {leaps[t, d]:.3g}; {limit[d]:.3g} is the limit"
                found.append(Finding("jump", "warning", told, i, int(t) + 1, 1, (name,)))
    return found


def is_gripper(episodes: Episodes, name: str, dimension: int) -> bool:
    """Whether a dimension opens and closes a gripper, by its name, or as the last of 7 or 8 without names."""
    feature = episodes.info.features[name]
    names = flat_names(feature.names)
    if dimension < len(names):
        return "grip" in names[dimension].lower()
    size = int(np.prod(feature.shape))
    return "grip" in name.lower() or (size in (7, 8) and dimension == size - 1)


def flat_names(names: Any) -> list[str]:
    """A feature's names as a list: LeRobot has lists, mappings of lists, and nothing."""
    if isinstance(names, dict):
        return [
            str(n) for values in names.values() for n in (values if isinstance(values, list) else [values])
        ]
    return [str(n) for n in names] if isinstance(names, list | tuple) else []


def check_rate(seen: Survey) -> list[Finding]:
    """A frame rate that is not that of the time stamps, or of the motion: positions' steps against velocities."""
    fps = seen.episodes.info.fps
    found = []
    for i, stamps in seen.each("timestamp"):
        gaps = np.diff(stamps.astype(np.float64))
        if len(gaps) and abs(float(np.median(gaps)) * fps - 1) > 0.02:
            told = f"frames are {np.median(gaps):.4f} s apart, and the rate is {fps:g}"
            found.append(Finding("rate", "error", told, i, columns=("timestamp",)))
    for kind in ("joint", "cartesian"):
        pairs = [
            (p, v)
            for p in seen.episodes.info.columns
            for v in seen.episodes.info.columns
            # Commanded velocities are not always in radians a second; measured ones are.
            if p.startswith("observation.") and f"{kind}_position" in p
            if v == p.replace("_position", "_velocity")
        ]
        for position, velocity in pairs:
            shown = _shown_rate(seen, position, velocity)
            if shown and abs(shown / fps - 1) > RATE_OFF:
                told = (
                    f"{position} moves as at {shown:.1f} frames a second by {velocity}; the rate is {fps:g}"
                )
                return [*found, Finding("rate", "error", told, columns=(position, velocity))]
    return found


def _shown_rate(seen: Survey, position: str, velocity: str) -> float:
    """Frames a second at which positions move as velocities say; 0 where they do not go together."""
    moved, speed = [], []
    for i, values in seen.each(position):
        if velocity in seen.columns[i] and len(values) > 2:
            speeds = seen.columns[i][velocity].reshape(len(values), -1)
            moved.append(np.diff(values.reshape(len(values), -1), axis=0))
            speed.append((speeds[1:] + speeds[:-1]) / 2)
    if not moved:
        return 0.0
    step, rate = (
        np.concatenate(moved).astype(np.float64).ravel(),
        np.concatenate(speed).astype(np.float64).ravel(),
    )
    fine = np.isfinite(step) & np.isfinite(rate) & (np.abs(step) < 1.0)
    step, rate = step[fine], rate[fine]
    power = float(rate @ rate)
    if len(step) < 50 or power == 0 or float(step @ step) == 0:
        return 0.0
    slope = float(step @ rate) / power
    together = float(step @ rate) / np.sqrt(power * float(step @ step))
    return 1 / slope if together > 0.8 and slope > 0 else 0.0


def check_table(seen: Survey) -> list[Finding]:
    """Frames that are missing or out of order in the tables, and tasks that there are not."""
    tasks, wrong = _tasks(seen.episodes)
    found = [Finding("task", "error", told) for told in wrong]
    first = 0
    for i, columns in seen.columns.items():
        length = seen.episodes.episode(i).length
        if i and i - 1 not in seen.columns and len(columns.get("index", ())):
            first = int(columns["index"][0])  # how long the episodes before it were cannot be known
        for name, wanted in (
            ("frame_index", np.arange(length)),
            ("episode_index", np.full(length, i)),
            ("index", np.arange(first, first + length)),
        ):
            values = columns.get(name)
            if values is not None and not np.array_equal(values, wanted):
                t = int(np.flatnonzero(values != wanted)[0])
                told = f"{name} is {values[t]}, and should be {wanted[t]}"
                found.append(Finding("dropped", "error", told, i, t, 1, (name,)))
        stamps = columns.get("timestamp")
        if stamps is not None and length > 2:
            gaps = np.diff(stamps.astype(np.float64))
            late = np.flatnonzero(gaps > 1.5 * np.median(gaps))
            found += [
                Finding(
                    "dropped",
                    "error",
                    f"{gaps[t]:.3f} s pass before this frame",
                    i,
                    int(t) + 1,
                    1,
                    ("timestamp",),
                )
                for t in late
            ]
        if tasks is not None and "task_index" in columns:
            lost = ~np.isin(columns["task_index"], list(tasks.values()))
            found += [
                Finding(
                    "task",
                    "error",
                    f"task_index {columns['task_index'][a]} is that of no instruction that can be read",
                    i,
                    a,
                    b - a,
                    ("task_index",),
                )
                for a, b in runs(lost)
            ]
        if not any(task.strip() for task in seen.episodes.episode(i).tasks):
            found.append(Finding("task", "warning", "there is no instruction", i))
        first += length
    return found


def _tasks(episodes: Episodes) -> tuple[dict[str, int] | None, list[str]]:
    """({instruction: task_index}, None where there are none to compare with; what is wrong with the others)."""
    read: Any = getattr(episodes, "read_tasks", None)
    try:
        return read() if read else (None, [])
    except HeedfulError as error:
        return None, [str(error)]


def check_copies(seen: Survey) -> list[Finding]:
    """Columns of what is known of an episode that hold the same: one was written over the other."""
    values: dict[str, dict[int, str]] = {}
    for i, columns in seen.columns.items():
        facts = {n: v for n, v in seen.episodes.episode(i).meta.items() if isinstance(v, str | int | float)}
        for name, column in columns.items():
            if column.dtype == object and len(column) and all(v == column[0] for v in column):
                facts[name] = column[0]
        for name, value in facts.items():
            if not isinstance(value, bool) and not name.startswith("language_instruction"):
                values.setdefault(name, {})[i] = str(value)
    found = []
    names = sorted(values)
    for k, a in enumerate(names):
        for b in names[k + 1 :]:
            both = values[a].keys() & values[b].keys()
            same = [i for i in both if values[a][i] == values[b][i]]
            different = {values[a][i] for i in same}
            if len(both) > 1 and len(same) >= COPIED * len(both) and len(different) > 1:
                told = (
                    f"{a} and {b} are the same in {len(same)} of {len(both)} episodes: one copies the other"
                )
                found.append(Finding("copies", "warning", told, columns=(a, b)))
    return found


def check_action(seen: Survey, documented: dict[str, str] | None = None) -> list[Finding]:
    """An action column that is not what its names say: it equals another column of the actions.

    documented: {column: "joint velocity", ...}, what its documentation says; DROID's RLDS says that of its action.
    """
    said = {"action.original": "joint velocity"} if "DROID" in seen.episodes.layout else {}
    said |= documented or {}
    found = []
    parts = [n for n in seen.episodes.info.columns if n.startswith("action.")]
    for name in ("action", "action.original"):
        if name not in seen.episodes.info.columns:
            continue
        told = said.get(name) or " ".join(flat_names(seen.episodes.info.features[name].names))
        whole = seen.all(name)
        for part in parts:
            other = seen.all(part)
            size = min(other.shape[1], whole.shape[1])
            if part == name or size < 3 or len(other) != len(whole) or not len(whole):
                continue
            equal: Array = np.asarray(np.isclose(whole[:, :size], other[:, :size], atol=1e-6).all(axis=1))
            if equal.mean() < 0.99 or not np.ptp(other[:, :size], axis=0).any():
                continue
            have, want = _kind(part) or ("", ""), _kind(told) or ("", "")
            if any(a and b and a != b for a, b in zip(want, have, strict=True)):
                share = f"{equal.sum():,} of {len(equal):,} frames"
                text = f"{name} is documented as {told!r}, and equals {part} in {share}"
                found.append(Finding("action", "error", text, columns=(name, part)))
    return found


def _kind(words: str) -> tuple[str, str] | None:
    """(joint or cartesian, velocity or position) that a name speaks of; "" where it does not say."""
    low = words.lower().replace("_", " ").replace(".", " ")
    tokens = low.split()
    space = (
        "joint" if "joint" in low else "cartesian" if "cart" in low or {"x", "y", "z"} & set(tokens) else ""
    )
    if "roll" in tokens:
        space = "cartesian"
    kind = "velocity" if "vel" in low else "position" if "pos" in low else ""
    return (space, kind) if space or kind else None


def check_stats(seen: Survey) -> list[Finding]:
    """Statistics that are not those of the frames: left behind by an edit or a merge."""
    stats = getattr(seen.episodes, "stats", dict)()
    found = []
    whole = len(seen.columns) == len(seen.episodes)
    for name, feature in seen.episodes.info.features.items():
        if name not in stats or feature.dtype not in NUMBERS or name in DEFAULT_FEATURES:
            continue
        if not whole or any(name not in columns for columns in seen.columns.values()):
            continue  # of frames that cannot be read, which the survey has named, nothing can be compared
        values = seen.all(name).astype(np.float64)
        if not len(values):
            continue
        scale = np.maximum(np.nanstd(values, axis=0), 1e-6)
        with np.errstate(invalid="ignore"):
            truth = {"mean": values.mean(axis=0), "std": values.std(axis=0)}
            truth |= {"min": values.min(axis=0), "max": values.max(axis=0)}
        for stat, real in truth.items():
            told = np.asarray(stats[name].get(stat, real), dtype=np.float64).reshape(-1)
            off = np.abs(told - real) > 1e-3 * scale + 1e-6 if told.shape == real.shape else np.array([True])
            if off.any() and np.isfinite(real).all():
                text = f"the {stat} of {name} in stats.json is not that of the frames"
                found.append(Finding("stats", "error", text, columns=(name,)))
                break
    count = stats.get("index", stats.get("timestamp", {})).get("count")
    frames = sum(seen.episodes.episode(i).length for i in seen.columns)
    if whole and count is not None and int(np.asarray(count).reshape(-1)[0]) != frames:
        text = f"stats.json counts {int(np.asarray(count).reshape(-1)[0])} frames, and there are {frames}"
        found.append(Finding("stats", "error", text))
    return found


def check_files(seen: Survey) -> list[Finding]:
    """Leftovers of a stopped recording, lost files, columns nobody knows."""
    return [Finding("files", "error", told) for told in seen.episodes.problems()]


CHECKS: dict[str, Callable[[Survey], list[Finding]]] = {
    "files": check_files,
    "table": check_table,
    "nan": check_nan,
    "rate": check_rate,
    "idle": check_idle,
    "jump": check_jumps,
    "copies": check_copies,
    "action": check_action,
    "stats": check_stats,
}
"""Those that need no pictures; the others are in check_pictures."""


def summary(findings: Iterable[Finding]) -> Counter[str]:
    """How many findings each check has."""
    return Counter(f.check for f in findings)
