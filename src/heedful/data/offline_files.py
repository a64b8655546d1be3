"""Offline data as episodes: Minari's folders, D4RL's HDF5, .npz with D4RL's names, robots' demonstrations, and our own.

    Minari    DATASET/data/main_data.hdf5 with a group for each episode, and metadata.json (the package is not needed)
    D4RL      observations, actions, rewards, terminals and timeouts (or next_observations), one row for each step
    .npz      the same names
    Parquet   observation.*, action, next.reward, next.done, episode_index; next.truncated and next.success if there
    robots    demonstrations of any layout that `heedful.data.episodes` reads; see `offline_robot`
    ours      a folder that `heedful act collect` or a `ReplayBuffer` has written

An episode of S steps has S + 1 states. Where a file does not hold the last one, it is not made up: after a step that
ended the task nothing depends on it, so that step's own state stands for it; else the last step is left out and
counted.
"""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heedful.data import offline_minari
from heedful.data.episodes import recognises as demonstrations
from heedful.data.offline_episode import (
    Faulty,
    Found,
    Place,
    check_rows,
    check_there,
    episode_of,
    leaves,
    named,
    numbers,
)
from heedful.data.offline_robot import ended, is_of_a_step, parquet_column, robot_steps
from heedful.data.replay import FORMAT, ReplayBuffer
from heedful.errors import HeedfulError
from heedful.model_folder import read_json

Array = NDArray[Any]
HDF5 = (".hdf5", ".h5", ".hdf")
FORMS = (
    "a Minari folder, D4RL's .hdf5, .npz, .parquet, robot demonstrations (LeRobotDataset, DROID, RLDS, robomimic, "
    "ALOHA), or a folder of `heedful act collect`"
)
D4RL = {"action": "actions", "reward": "rewards", "terminal": "terminals", "state": "observations"}
MINARI = {**D4RL, "terminal": "terminations"}
LEROBOT = {"action": "action", "reward": "next.reward", "terminal": "next.done"}


def read_episodes(
    path: str | Path,
    *,
    max_steps: int = 0,
    names: Collection[str] = (),
    unmarked_succeed: bool = False,
    faulty: Faulty | None = None,
) -> Iterator[Found]:
    """The episodes of a file or folder, in order.

    max_steps: where an episode of a file without timeouts was cut, as D4RL's older files need it. names: the
    observations to read of demonstrations, which have many; all of them without. unmarked_succeed: see `robot_steps`.
    faulty: told of each episode that lacks fields or has them in other lengths or shapes (Minari), or whose reward or
    end is not known (robots), and which then is left out; without it such an episode is an error.
    Raises HeedfulError for a file that is not there or of no known kind, and for fields that are missing, no numbers,
    or of different lengths.
    """
    place = Path(path).expanduser()
    kind, inner = kind_of(place)
    if kind == "replay":
        yield from _replay(inner)
    elif kind == "minari":
        yield from _minari(inner, faulty)
    elif kind == "d4rl":
        with _hdf5(inner) as file:
            yield from _flat(str(inner), _arrays(file), max_steps)
    elif kind == "npz":
        yield from _flat(str(inner), _npz(inner), max_steps)
    elif kind == "robot":
        yield from _robot(inner, names, unmarked_succeed, faulty)
    else:
        yield from _parquet(inner)


def kind_of(path: Path) -> tuple[str, Path]:
    """(replay, minari, d4rl, npz, robot or parquet; the file or folder that holds the data)."""
    if not path.exists():
        raise HeedfulError(f"{path} does not exist; --data is {FORMS}")
    if path.is_dir():
        for folder in (path, path / "data"):
            if (folder / "meta.json").is_file() and read_json(folder / "meta.json").get("format") == FORMAT:
                return "replay", folder
            if (folder / "main_data.hdf5").is_file():
                return "minari", folder / "main_data.hdf5"
            if (folder / "metadata.json").is_file():
                said = read_json(folder / "metadata.json").get("data_format", "hdf5")
                raise HeedfulError(
                    f"{folder} has no main_data.hdf5 (its format is {said!r}); only Minari's HDF5 is read"
                )
        if demonstrations(path):
            return "robot", path
        raise HeedfulError(f"{path} is a folder without data that is known: --data is {FORMS}")
    if path.suffix in HDF5:
        with _hdf5(path) as file:
            if any(name.startswith("episode_") for name in file):
                return "minari", path
        return ("robot" if demonstrations(path) else "d4rl"), path
    if path.suffix in (".npz", ".parquet"):
        return path.suffix[1:], path
    if demonstrations(path):
        return "robot", path
    raise HeedfulError(f"{path}: {path.suffix or 'no ending'} is not known; --data is {FORMS}")


def bounds_in(path: str | Path) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """The bounds of actions that Minari's metadata.json gives beside the data; None where it gives none."""
    kind, inner = kind_of(Path(path).expanduser())
    file = inner.parent / "metadata.json"
    if kind != "minari" or not file.is_file():
        return None
    return offline_minari.bounds(read_json(file))


# ---- kinds


def _replay(folder: Path) -> Iterator[Found]:
    said = read_json(folder / "meta.json")
    try:
        shapes = {n.split("/", 1)[1]: tuple(s) for n, _, s in said["columns"] if n.startswith("observation/")}
        actions = next(s[0] for n, _, s in said["columns"] if n == "action")
    except (KeyError, ValueError, IndexError, StopIteration, TypeError) as error:
        raise HeedfulError(f"{folder / 'meta.json'} is damaged: {error}") from error
    buffer = ReplayBuffer(folder, shapes, actions)
    for number in range(buffer.episodes):
        yield Found(buffer.episode(number), Place(str(folder), {}, prefix=f"episode {number}/"))


def _minari(path: Path, faulty: Faulty | None) -> Iterator[Found]:
    said = path.parent / "metadata.json"
    pictures = offline_minari.pictures(read_json(said)) if said.is_file() else set()
    with _hdf5(path) as file:
        names = [n.removeprefix("episode_") for n in file if n.startswith("episode_")]
        odd = [n for n in names if not n.isdecimal()]
        if odd:
            raise HeedfulError(
                f"{path}: episode_{odd[0]} has no number: Minari's are episode_0, episode_1, ..."
            )
        for number in sorted(map(int, names)):
            where = Place(str(path), MINARI, prefix=f"episode_{number}/")
            try:
                found = _minari_episode(file[f"episode_{number}"], where, pictures)
            except HeedfulError as error:
                if faulty is None:
                    raise
                faulty(str(error))
                continue
            yield found


def _minari_episode(group: Any, where: Place, pictures: set[str]) -> Found:
    there = list(group) if hasattr(group, "keys") else []
    check_there(where, ("observations", "actions", "rewards", "terminations"), there)
    parts = leaves(group["observations"])
    for name in pictures & set(parts):
        parts[name] = offline_minari.decoded(parts[name], where(name))
    states = named(parts, where)
    action, reward, terminal = (numbers(group[MINARI[f]], where, f) for f in ("action", "reward", "terminal"))
    check_rows(where, {"actions": action, "rewards": reward, "terminations": terminal})
    count = len(reward)
    odd = [f"{where(n)} has {len(v)} rows" for n, v in states.items() if len(v) not in (count, count + 1)]
    if odd:
        raise HeedfulError(f"{', '.join(odd)}; {count + 1}, one more than steps, are expected")
    info: dict[str, Any] = {}
    success = offline_minari.success(group)
    if success is not None:
        info["success"] = success
    complete = all(len(values) > count for values in states.values())
    if not complete:
        states = {name: values[:count] for name, values in states.items()}
    return episode_of(states, action, reward, terminal, where, info, complete=complete)


def _robot(
    path: Path, names: Collection[str], unmarked_succeed: bool, faulty: Faulty | None
) -> Iterator[Found]:
    for steps in robot_steps(path, names, unmarked_succeed=unmarked_succeed, faulty=faulty):
        called = {**LEROBOT, **{n: f"observation.{n}" for n in steps.observations}}
        where = Place(f"{path}: episode {steps.number}", called)
        states = named(steps.observations, where)
        yield episode_of(states, steps.action, steps.reward, steps.terminal, where, steps.info)


def _parquet(path: Path) -> Iterator[Found]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise HeedfulError(f"{path}: not readable as Parquet: {error}") from error
    where = Place(str(path), LEROBOT)
    check_there(where, ("action", "next.reward", "next.done", "episode_index"), table.column_names)
    columns = {name: parquet_column(table, name, path) for name in table.column_names if is_of_a_step(name)}
    states = {n.removeprefix("observation."): v for n, v in columns.items() if n.startswith("observation")}
    if not states:
        raise HeedfulError(
            f"{path}: a column observation.* is missing; there are {', '.join(table.column_names)}"
        )
    number = columns["episode_index"].reshape(-1)
    changes = np.flatnonzero(np.diff(number) != 0) + 1
    if len(np.unique(number)) != len(changes) + 1:
        raise HeedfulError(
            f"{path}: episode_index: the rows of an episode do not stand together; sort the file"
        )
    terminal = ended(columns)
    for a, b in zip([0, *changes], [*changes, len(number)], strict=True):
        info: dict[str, Any] = {"episode_index": int(number[a])}
        if "next.success" in columns:
            info["success"] = bool(columns["next.success"][a:b].any())
        found = Place(str(path), {**LEROBOT, **{n: f"observation.{n}" for n in states}}, int(a))
        part = {name: values[a:b] for name, values in states.items()}
        yield episode_of(
            named(part, found),
            columns["action"][a:b],
            columns["next.reward"][a:b],
            terminal[a:b],
            found,
            info,
        )


def _flat(file: str, fields: Mapping[str, Any], max_steps: int) -> Iterator[Found]:
    """Episodes of arrays that have one row for each step, in D4RL's names."""
    where = Place(file, D4RL)
    check_there(where, ("observations", "actions", "rewards", "terminals"), list(fields))
    action, reward, terminal = (numbers(fields[D4RL[f]], where, f) for f in ("action", "reward", "terminal"))
    reward, terminal = reward.reshape(-1), terminal.reshape(-1)
    states = leaves(fields["observations"])
    check_rows(
        where,
        {
            "rewards": reward,
            "terminals": terminal,
            "actions": action,
            **{f"observations/{n}".rstrip("/"): v for n, v in states.items()},
        },
    )
    count = len(reward)
    if not count:
        raise HeedfulError(f"{file} has no row")
    following = _following(file, fields, states)
    end = terminal > 0
    if "timeouts" in fields:
        timeout = numbers(fields["timeouts"], where, "timeouts").reshape(-1)
        check_rows(where, {"rewards": reward, "timeouts": timeout})
        end = end | (timeout > 0)
    elif following is not None:
        jump = np.zeros(count, dtype=bool)
        for name, values in following.items():
            here = np.asarray(states[name][1:])
            jump[:-1] |= (np.asarray(values[: count - 1]) != here).reshape(count - 1, -1).any(1)
        end = end | jump
    elif max_steps:
        end = _cut_every(end, max_steps)
    elif not end[-1]:
        raise HeedfulError(
            f"{file}: timeouts is missing, and so is next_observations: where time ran out cannot be told; give "
            "--max-steps, the length at which episodes were cut"
        )
    stops = [*(np.flatnonzero(end) + 1).tolist(), *([] if end[-1] else [count])]
    first = 0
    for stop in stops:
        here = Place(file, D4RL, first)
        part = {name: np.asarray(values[first:stop]) for name, values in states.items()}
        if following is not None:
            part = {
                name: np.concatenate([values, np.asarray(following[name][stop - 1 : stop])])
                for name, values in part.items()
            }
        yield episode_of(
            named(part, here), action[first:stop], reward[first:stop], terminal[first:stop], here, {},
            complete=following is not None,
        )  # fmt: skip
        first = stop


def _following(file: str, fields: Mapping[str, Any], states: Mapping[str, Any]) -> dict[str, Any] | None:
    """The states after each step, in the parts and shapes of `states`; None where the file has none."""
    if "next_observations" not in fields:
        return None
    found = leaves(fields["next_observations"])
    if set(found) != set(states):
        have, want = (", ".join(n or "one array" for n in sorted(parts)) for parts in (found, states))
        raise HeedfulError(f"{file}: next_observations has {have}; {want} is expected, as observations has")
    for name, values in states.items():
        if found[name].shape != values.shape:
            told = f"next_observations/{name}".rstrip("/")
            raise HeedfulError(
                f"{file}: {told} has the shape {found[name].shape}; {values.shape} is expected, as observations has"
            )
    return found


def _cut_every(end: NDArray[np.bool_], steps: int) -> NDArray[np.bool_]:
    out, since = end.copy(), 0
    for i in range(len(out)):
        since += 1
        out[i] |= since == steps
        since = 0 if out[i] else since
    return out


# ---- files


def _hdf5(path: Path) -> Any:
    try:
        package = import_module("h5py")
    except ImportError as error:
        raise HeedfulError(f"{path}: reading HDF5 needs h5py: pip install 'heedful[act]'") from error
    try:
        return package.File(path, "r")
    except OSError as error:
        raise HeedfulError(f"{path}: not readable as HDF5: {error}") from error


def _arrays(file: Any) -> dict[str, Any]:
    return {name: file[name] for name in file}


def _npz(path: Path) -> dict[str, Array]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise HeedfulError(f"{path}: not readable as .npz: {error}") from error
