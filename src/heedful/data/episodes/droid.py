"""DROID as it was recorded: for each episode a folder with metadata_*.json, trajectory.h5 and recordings/MP4.

The names are those of DROID's LeRobot port. Cameras are told apart by serial number: the metadata says which is the
wrist's and which are the two outside. Picture k of an MP4 belongs to step k, whatever rate the file claims. A video may
be one picture short (droid issue 54): asking for that frame raises an error that names it, and `heedful demos check`
lists it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heedful.data.episodes import Episodes
from heedful.data.episodes.loaded import Loaded, LoadedEpisodes, droid_columns
from heedful.data.episodes.video import Videos
from heedful.errors import HeedfulError
from heedful.model_folder import read_json

Array = NDArray[Any]
FPS = 15.0
CAMERAS = {"wrist": "wrist_left", "ext1": "exterior_1_left", "ext2": "exterior_2_left"}
TRAJECTORY = "trajectory.h5"
ACTIONS = (
    *("cartesian_position", "cartesian_velocity", "joint_position", "joint_velocity"),
    *("gripper_position", "gripper_velocity"),
)
STATES = {
    "cartesian_position": "cartesian_position",
    "gripper_position": "gripper_position",
    "joint_positions": "joint_position",
    "joint_velocities": "joint_velocity",
}


def recognises(path: Path) -> bool:
    """Whether episodes as DROID records them are below `path`."""
    return path.is_dir() and next(path.rglob(TRAJECTORY), None) is not None


def open_folder(path: Path) -> Episodes:
    """Open them, in order of their folders' names. Raises HeedfulError naming the episode that cannot be read."""
    folders = sorted(file.parent for file in path.rglob(TRAJECTORY))
    spoken = _annotations(path)
    videos = Videos()

    def load(i: int) -> Loaded:
        return _load(folders[i], f"{path}: episode {i} ({folders[i].relative_to(path)})", spoken, videos)

    def problems() -> list[str]:
        whole = set(folders)
        bare = sorted({file.parent for file in path.rglob("metadata_*.json")} - whole)
        return [f"{folder.relative_to(path)} has no {TRAJECTORY}" for folder in bare]

    return LoadedEpisodes(
        path, "DROID (raw)", len(folders), load, fps=FPS, robot_type="panda", problems=problems
    )


def hdf5() -> Any:
    """h5py. Raises HeedfulError with what to install where it is missing."""
    try:
        return import_module("h5py")
    except ImportError as error:
        raise HeedfulError("HDF5 files need h5py: pip install h5py") from error


def open_hdf5(file: Path) -> Any:
    """An HDF5 file, opened for reading. Raises HeedfulError naming it where it is none or was cut off."""
    try:
        return hdf5().File(file, "r")
    except OSError as error:
        raise HeedfulError(f"{file} cannot be read as HDF5: {error}") from error


def _annotations(path: Path) -> dict[str, Any]:
    """Instructions by episode id, from the file that DROID publishes beside the raw data."""
    files = sorted(
        [*path.glob("aggregated-annotations*.json"), *path.glob("droid_language_annotations*.json")]
    )
    return read_json(files[-1]) if files else {}


def _load(folder: Path, where: str, spoken: Mapping[str, Any], videos: Videos) -> Loaded:
    metadata = sorted(folder.glob("metadata_*.json"))
    if not metadata:
        raise HeedfulError(f"{where} has no metadata_*.json")
    told = read_json(metadata[0])
    with open_hdf5(folder / TRAJECTORY) as file:
        action = {name: _read(file, f"action/{name}", where) for name in ACTIONS if f"action/{name}" in file}
        robot = "observation/robot_state"
        state = {
            ours: _read(file, f"{robot}/{name}", where)
            for name, ours in STATES.items()
            if f"{robot}/{name}" in file
        }
        if not action or not state:
            raise HeedfulError(f"{where}: {TRAJECTORY} lacks action or {robot}")
        columns = droid_columns(action, state)
        length = len(next(iter(columns.values())))
        controller = "observation/controller_info/movement_enabled"
        # Without the dead man's grip the arm stands still while frames are recorded.
        moving = _read(file, controller, where).astype(bool) if controller in file else np.ones(length, bool)
        columns["skip_action"] = ~moving
        for role, camera in CAMERAS.items():
            name = f"observation/camera_extrinsics/{told.get(f'{role}_cam_serial')}_left"
            if name in file:
                columns[f"camera_extrinsics.{camera}"] = _read(file, name, where).astype(np.float32)
    success = bool(told.get("success", "success" in folder.parts))
    columns["is_episode_successful"] = np.full(length, success)
    pictures = {}
    for role, camera in CAMERAS.items():
        serial = told.get(f"{role}_cam_serial")
        film = folder / "recordings" / "MP4" / f"{serial}.mp4"
        if serial is not None:
            pictures[f"observation.images.{camera}"] = _from_video(film, length, videos)
    return Loaded(length, _instructions(told, spoken), columns, pictures, _meta(told, success))


def _read(file: Any, name: str, where: str) -> Array:
    try:
        return np.asarray(file[name])
    except (OSError, KeyError) as error:
        raise HeedfulError(f"{where}: {TRAJECTORY} has a damaged {name}: {error}") from error


def _from_video(film: Path, length: int, videos: Videos) -> Any:
    def pick(indices: Sequence[int]) -> NDArray[np.uint8]:
        if not film.is_file():
            raise HeedfulError(f"frame {indices[0]}: its video {film} is missing")
        video = videos[film]
        late = [k for k in indices if k >= len(video)]
        if late:
            raise HeedfulError(
                f"frame {late[0]} of {length} is not in {film.name}: it has {len(video)} pictures"
            )
        return video.pictures(indices)

    return pick


def _instructions(told: Mapping[str, Any], spoken: Mapping[str, Any]) -> tuple[str, ...]:
    rows = spoken.get(str(told.get("uuid")), {})
    labels = [str(rows[name]).strip() for name in sorted(rows) if name.startswith("language_instruction")]
    found = [label for label in labels if label] or [str(told.get("current_task") or "").strip()]
    return tuple(dict.fromkeys(label for label in found if label))


def _meta(told: Mapping[str, Any], success: bool) -> dict[str, Any]:
    meta: dict[str, Any] = {"success": success}
    for name, value in told.items():
        numbers = isinstance(value, list) and all(isinstance(v, int | float) for v in value)
        if isinstance(value, str | int | float | bool) or numbers:
            meta[name] = value
    return meta
