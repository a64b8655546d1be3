"""HDF5 files of robomimic (also LIBERO) and of ALOHA (also Yell At Your Robot's) as episodes.

robomimic   one file, data/demo_0 and on: actions, rewards, dones, obs/NAME (pictures are uint8 with three channels)
ALOHA       one file an episode: action, observations/qpos, qvel, effort, images/CAMERA (raw, or JPEG padded to one
            length); beside it perhaps a JSON of commands with their steps, as Yell At Your Robot has them
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heedful.data.episodes import Episodes, LanguageRow
from heedful.data.episodes.droid import open_hdf5
from heedful.data.episodes.loaded import Loaded, LoadedEpisodes, Pictures, decoded, text
from heedful.errors import HeedfulError

Array = NDArray[Any]
SUFFIXES = (".hdf5", ".h5")
ROBOMIMIC_FPS = 20.0
"""robosuite's control rate, where the file does not say another."""
ALOHA_FPS = 50.0
STYLES = {"instruction": "subtask", "action": "subtask", "correction": "interjection"}
"""What kind of language row each kind of Yell At Your Robot's commands is."""


def recognises(path: Path) -> bool:
    """Whether `path` is such a file or a folder with one."""
    files = _files(path)
    if not files:
        return False
    with open_hdf5(files[0]) as file:
        return _is_robomimic(file) or _is_aloha(file)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix in SUFFIXES else []
    return sorted((p for p in path.iterdir() if p.suffix in SUFFIXES), key=lambda p: _number(p.name))


def _number(name: str) -> tuple[Any, ...]:
    """demo_2 before demo_10."""
    return tuple(int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name))


def _is_robomimic(file: Any) -> bool:
    return "data" in file and any("actions" in group for group in file["data"].values())


def _is_aloha(file: Any) -> bool:
    return "action" in file and "observations/qpos" in file


def open_folder(path: Path) -> Episodes:
    """Open them. Raises HeedfulError naming file and field where one cannot be read."""
    files = _files(path)
    with open_hdf5(files[0]) as first:
        robomimic = _is_robomimic(first)
    return _robomimic(path, files) if robomimic else _aloha(path, files)


# ---- robomimic


def _robomimic(path: Path, files: Sequence[Path]) -> Episodes:
    places: list[tuple[Path, str]] = []
    fps, robot, task = ROBOMIMIC_FPS, "", ""
    for place in files:
        with open_hdf5(place) as file:
            if not _is_robomimic(file):
                raise HeedfulError(f"{place} is not like {files[0].name}: it has no data/demo_*/actions")
            places += [(place, name) for name in sorted(file["data"], key=_number)]
            told = _attribute(file["data"], "env_args", place)
            arguments = told.get("env_kwargs") or {}
            fps = float(arguments.get("control_freq") or fps)
            robots = arguments.get("robots") or ""
            robot = robot or (robots if isinstance(robots, str) else "+".join(map(str, robots)))
            problem = _attribute(file["data"], "problem_info", place)
            task = task or str(problem.get("language_instruction") or told.get("env_name") or "")

    def load(i: int) -> Loaded:
        place, name = places[i]
        with open_hdf5(place) as file:
            group = file["data"][name]
            where = f"{path}: episode {i} ({place.name}, {name})"
            return _robomimic_episode(group, where, task, {"demo": name, "file": place.name}, file)

    return LoadedEpisodes(path, "HDF5 (robomimic)", len(places), load, fps=fps, robot_type=robot)


def _robomimic_episode(group: Any, where: str, task: str, meta: dict[str, Any], file: Any) -> Loaded:
    columns: dict[str, Array] = {}
    pictures: dict[str, Pictures] = {}
    for name in ("actions", "rewards", "dones"):
        if name in group:
            column = {"actions": "action", "rewards": "next.reward", "dones": "next.done"}[name]
            columns[column] = _numbers(group[name], f"{where}, {name}")
    for name, values in group["obs"].items() if "obs" in group else ():
        if values.dtype == np.uint8 and values.ndim == 4 and values.shape[-1] == 3:
            frames = np.asarray(values)
            pictures[f"observation.images.{name.removesuffix('_image')}"] = lambda k, frames=frames: frames[
                list(k)
            ]
        else:
            columns[f"observation.{name}"] = _numbers(values, f"{where}, obs/{name}")
    if "states" in group:
        columns["state"] = _numbers(group["states"], f"{where}, states")
    if "action" not in columns:
        raise HeedfulError(f"{where} has no actions")
    masks = [
        key
        for key, names in (file["mask"].items() if "mask" in file else ())
        if meta["demo"].encode() in set(names[:])
    ]
    if masks:
        meta = meta | {"filter_keys": sorted(masks)}
    return Loaded(len(columns["action"]), (task,) if task else (), columns, pictures, meta)


def _attribute(group: Any, name: str, place: Path) -> dict[str, Any]:
    if name not in group.attrs:
        return {}
    try:
        value = json.loads(text(group.attrs[name], f"{place}: {name}"))
    except ValueError as error:
        raise HeedfulError(f"{place}: attribute {name} is no JSON: {error}") from error
    return value if isinstance(value, dict) else {}


# ---- ALOHA


def _aloha(path: Path, files: Sequence[Path]) -> Episodes:
    def load(i: int) -> Loaded:
        where = f"{path}: episode {i} ({files[i].name})"
        with open_hdf5(files[i]) as file:
            if not _is_aloha(file):
                raise HeedfulError(f"{where} has no action or no observations/qpos")
            columns = {"action": _numbers(file["action"], f"{where}, action")}
            names = {
                "qpos": "observation.state",
                "qvel": "observation.velocity",
                "effort": "observation.effort",
            }
            for name, column in names.items():
                if name in file["observations"]:
                    columns[column] = _numbers(file["observations"][name], f"{where}, {name}")
            if "option" in file["observations"]:
                columns["option"] = np.asarray(file["observations/option"]).reshape(-1).astype(np.int64)
            length = len(columns["action"])
            pictures = {
                f"observation.images.{camera}": _aloha_pictures(file, camera, k)
                for k, camera in enumerate(sorted(file.get("observations/images", ())))
            }
            meta: dict[str, Any] = {"file": files[i].name}
            if "sim" in file.attrs:
                meta["sim"] = bool(file.attrs["sim"])
        return Loaded(length, (), columns, pictures, meta, _commands(files[i], where))

    speaks = any(_command_files(file) for file in files)
    return LoadedEpisodes(
        path, "HDF5 (ALOHA)", len(files), load, fps=ALOHA_FPS, robot_type="aloha", speaks=speaks
    )


def _aloha_pictures(file: Any, camera: str, number: int) -> Pictures:
    values = np.asarray(file[f"observations/images/{camera}"])
    if values.ndim == 4:
        return lambda indices: values[list(indices)]
    lengths = np.asarray(file["compress_len"])[number].astype(int) if "compress_len" in file else None
    # A decoder stops at the end of the JPEG, so the padding does no harm where the lengths are not stored.
    return decoded(
        [
            row[: lengths[k]].tobytes() if lengths is not None else row.tobytes()
            for k, row in enumerate(values)
        ]
    )


def _command_files(file: Path) -> list[Path]:
    found = file.parent.glob(f"{file.stem}*.json")
    return sorted(p for p in found if not p.stem[len(file.stem) :][:1].isdigit())


def _commands(file: Path, where: str) -> list[LanguageRow]:
    """Yell At Your Robot's commands of an episode, where a JSON with them stands beside it."""
    rows: list[LanguageRow] = []
    for beside in _command_files(file):
        try:
            told = json.loads(beside.read_bytes().decode("utf-8"))
            for command in told if isinstance(told, list) else []:
                style = STYLES.get(str(command.get("type", "instruction")), "subtask")
                at = int(command["start_timestep"]) / ALOHA_FPS
                rows.append(
                    LanguageRow(
                        str(command["command"]), style, at, "user" if style == "interjection" else "assistant"
                    )
                )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise HeedfulError(f"{where}: {beside.name}: {error!r}") from error
    return sorted(rows, key=lambda row: row.timestamp)


def _numbers(values: Any, where: str) -> Array:
    try:
        array = np.asarray(values)
    except OSError as error:
        raise HeedfulError(f"{where} is damaged: {error}") from error
    if array.dtype.kind not in "biuf" or array.ndim < 1:
        raise HeedfulError(f"{where} holds {array.dtype}, not numbers")
    return array.astype(np.float32) if array.dtype == np.float64 else array
