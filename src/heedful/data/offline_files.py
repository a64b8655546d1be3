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
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heedful.data import offline_minari
from heedful.data.episodes import recognises as demonstrations
from heedful.data.offline_robot import ended, is_of_a_step, parquet_column, robot_steps
from heedful.data.replay import FORMAT, Episode, ReplayBuffer
from heedful.errors import HeedfulError
from heedful.model_folder import read_json

Array = NDArray[Any]
HDF5 = (".hdf5", ".h5", ".hdf")
FORMS = (
    "a Minari folder, D4RL's .hdf5, .npz, .parquet, robot demonstrations (LeRobotDataset, DROID, RLDS, robomimic, "
    "ALOHA), or a folder of `heedful act collect`"
)


@dataclass
class Found:
    """An episode as it stands in a file. where(field, row): the place of its row, counted from 0, for messages.

    left_out: steps that could not be used because the state after them is not in the file.
    """

    episode: Episode
    where: Place
    left_out: int = 0


@dataclass(frozen=True)
class Place:
    """Where an episode's fields stand: `file: actions, row 17`."""

    file: str
    names: Mapping[str, str]
    first: int = 0
    prefix: str = ""

    def __call__(self, field: str, row: int | None = None) -> str:
        named = self.names.get(field, field)
        return f"{self.file}: {self.prefix}{named}" + ("" if row is None else f", row {self.first + row}")


D4RL = {"action": "actions", "reward": "rewards", "terminal": "terminals", "state": "observations"}
MINARI = {**D4RL, "terminal": "terminations"}
LEROBOT = {"action": "action", "reward": "next.reward", "terminal": "next.done"}


def read_episodes(
    path: str | Path, *, max_steps: int = 0, names: Collection[str] = (), unmarked_succeed: bool = False
) -> Iterator[Found]:
    """The episodes of a file or folder, in order.

    max_steps: where an episode of a file without timeouts was cut, as D4RL's older files need it. names: the
    observations to read of demonstrations, which have many; all of them without. unmarked_succeed: see `robot_steps`.
    Raises HeedfulError for a file that is not there or of no known kind, and for fields that are missing or of
    different lengths.
    """
    place = Path(path).expanduser()
    kind, inner = kind_of(place)
    if kind == "replay":
        yield from _replay(inner)
    elif kind == "minari":
        yield from _minari(inner)
    elif kind == "d4rl":
        with _hdf5(inner) as file:
            yield from _flat(str(inner), _arrays(file), max_steps)
    elif kind == "npz":
        yield from _flat(str(inner), _npz(inner), max_steps)
    elif kind == "robot":
        yield from _robot(inner, names, unmarked_succeed)
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


def _minari(path: Path) -> Iterator[Found]:
    said = path.parent / "metadata.json"
    pictures = offline_minari.pictures(read_json(said)) if said.is_file() else set()
    with _hdf5(path) as file:
        numbers = sorted(int(n.removeprefix("episode_")) for n in file if n.startswith("episode_"))
        for number in numbers:
            group = file[f"episode_{number}"]
            where = Place(str(path), MINARI, prefix=f"episode_{number}/")
            needed = ("observations", "actions", "rewards", "terminations")
            _there(where, needed, list(group))
            leaves = _leaves(group["observations"])
            for name in pictures & set(leaves):
                leaves[name] = offline_minari.decoded(leaves[name], where(name))
            states = _named(leaves, where)
            action, reward, terminal = (np.asarray(group[name][()]) for name in needed[1:])
            count = len(reward)
            for name, values in states.items():
                if len(values) not in (count, count + 1):
                    raise HeedfulError(
                        f"{where(name)} has {len(values)} rows; {count + 1}, one more than steps, are expected"
                    )
            _same_length(where, {"actions": action, "rewards": reward, "terminations": terminal})
            info: dict[str, Any] = {}
            success = offline_minari.success(group)
            if success is not None:
                info["success"] = success
            short = any(len(values) == count for values in states.values())
            yield _episode(states, action, reward, terminal, where, info, complete=not short)


def _robot(path: Path, names: Collection[str], unmarked_succeed: bool) -> Iterator[Found]:
    for steps in robot_steps(path, names, unmarked_succeed=unmarked_succeed):
        called = {**LEROBOT, **{n: f"observation.{n}" for n in steps.observations}}
        where = Place(f"{path}: episode {steps.number}", called)
        states = _named(steps.observations, where)
        yield _episode(states, steps.action, steps.reward, steps.terminal, where, steps.info)


def _parquet(path: Path) -> Iterator[Found]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise HeedfulError(f"{path}: not readable as Parquet: {error}") from error
    where = Place(str(path), LEROBOT)
    _there(where, ("action", "next.reward", "next.done", "episode_index"), table.column_names)
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
        yield _episode(
            _named(part, found),
            columns["action"][a:b],
            columns["next.reward"][a:b].reshape(-1),
            terminal[a:b],
            found,
            info,
        )


def _flat(file: str, fields: Mapping[str, Any], max_steps: int) -> Iterator[Found]:
    """Episodes of arrays that have one row for each step, in D4RL's names."""
    where = Place(file, D4RL)
    _there(where, ("observations", "actions", "rewards", "terminals"), list(fields))
    reward = np.asarray(fields["rewards"][()]).reshape(-1)
    terminal = np.asarray(fields["terminals"][()]).reshape(-1)
    states = _leaves(fields["observations"])
    _same_length(
        where,
        {
            "rewards": reward,
            "terminals": terminal,
            "actions": fields["actions"],
            **{f"observations/{n}": v for n, v in states.items()},
        },
    )
    count = len(reward)
    if not count:
        raise HeedfulError(f"{file} has no row")
    following = _leaves(fields["next_observations"]) if "next_observations" in fields else None
    end = terminal > 0
    if "timeouts" in fields:
        _same_length(where, {"rewards": reward, "timeouts": fields["timeouts"]})
        end = end | (np.asarray(fields["timeouts"][()]).reshape(-1) > 0)
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
        yield _episode(
            _named(part, here), np.asarray(fields["actions"][first:stop]), reward[first:stop], terminal[first:stop],
            here, {}, complete=following is not None,
        )  # fmt: skip
        first = stop


def _cut_every(end: NDArray[np.bool_], steps: int) -> NDArray[np.bool_]:
    out, since = end.copy(), 0
    for i in range(len(out)):
        since += 1
        out[i] |= since == steps
        since = 0 if out[i] else since
    return out


# ---- one episode


def _episode(
    states: dict[str, Array],
    action: Array,
    reward: Array,
    terminal: Array,
    where: Place,
    info: dict[str, Any],
    *,
    complete: bool = False,
) -> Found:
    """complete: the states have one row more than the steps."""
    left = 0
    if not complete and len(terminal) and terminal[-1] > 0:
        states = {name: np.concatenate([values, values[-1:]]) for name, values in states.items()}
    elif not complete:
        left = 1
        action, reward, terminal = action[:-1], reward[:-1], terminal[:-1]
    action = np.asarray(action)
    flat = action.reshape(len(action), int(np.prod(action.shape[1:], dtype=np.int64)))
    return Found(Episode(states, flat, np.asarray(reward), np.asarray(terminal), info), where, left)


def _named(parts: Mapping[str, Any], where: Place) -> dict[str, Array]:
    """Observations by name as `evals.control.to_observation` does: numbers flat, images channels first."""
    out = {}
    for name, values in parts.items():
        array = np.asarray(values)
        image = array.ndim == 4 and array.dtype == np.uint8
        name = name or ("image" if image else "state")
        if image:
            out[name] = np.moveaxis(array, -1, 1) if array.shape[-1] in (1, 3, 4) else array
        elif array.dtype.kind in "fiub":
            flat = array.reshape(len(array), int(np.prod(array.shape[1:], dtype=np.int64)))
            out[name] = flat.astype(np.float32)
        else:
            raise HeedfulError(f"{where(name)} is {array.dtype}: no numbers, no images")
    return out


def _leaves(node: Any, name: str = "") -> dict[str, Any]:
    """Arrays of nested groups by name, joined by slashes; a lone array is called ""."""
    if not hasattr(node, "keys"):
        return {name: node}
    out: dict[str, Any] = {}
    for key in node.keys():  # noqa: SIM118 - a group of HDF5 is no dict
        out |= _leaves(node[key], f"{name}/{key}" if name else key)
    return out


def _there(where: Place, needed: tuple[str, ...], found: list[str]) -> None:
    missing = [name for name in needed if name not in found]
    if missing:
        raise HeedfulError(
            f"{where.file}: {where.prefix}{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing; "
            f"there are {', '.join(sorted(found)) or 'no fields'}"
        )


def _same_length(where: Place, fields: Mapping[str, Any]) -> None:
    lengths = {name: len(values) for name, values in fields.items()}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{where.prefix}{name} {count}" for name, count in lengths.items())
        raise HeedfulError(f"{where.file}: the fields have different numbers of rows: {said}")


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
