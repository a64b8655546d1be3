"""Robot demonstrations: episodes of frames, with low-dimensional columns, camera pictures and language.

`open_episodes` reads every layout this library knows; what it gives back is the same for all of them:

    LeRobotDataset v3 (ours, natively) and v2.1        lerobot.py
    DROID as it was recorded (metadata, HDF5, MP4)     droid.py
    RLDS, that is TFRecord files with tf.train.Example rlds.py
    HDF5 of robomimic and of ALOHA                     hdf5.py

The names are LeRobot's: `observation.state`, `observation.images.wrist`, `action`, `timestamp` (seconds from the
episode's first frame), `frame_index`, `task_index`. Nothing here imports pyarrow or PyAV until a data set is opened.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from heedful.errors import HeedfulError

Array = NDArray[Any]
CODEBASE_VERSION = "v3.0"
PERSISTENT_STYLES = ("subtask", "plan", "memory", "motion", "task_aug")
"""Styles whose rows hold until the next of the same style (LeRobot's language.py)."""
EVENT_STYLES = ("interjection", "vqa", "trace")
"""Styles whose rows belong to one frame."""
LANGUAGE = ("language_persistent", "language_events")
PICTURES = ("image", "video")
NUMBERS = (
    *("float16", "float32", "float64", "bool"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
)
SUCCESS = ("is_episode_successful", "success")
"""Where an episode's row says whether it succeeded."""
SPEAKER = {"interjection": "user", "task_aug": "user"}
"""Who says a row of a style where nobody is named; the other styles are the assistant's."""


@dataclass(frozen=True)
class Feature:
    """One column. dtype: a NumPy number, `string`, `image`, `video` or `language`; shape of one frame.

    names: what the entries are called, as a list or, as LeRobot also has it, a mapping. info: a video's codec facts.
    """

    dtype: str
    shape: tuple[int, ...]
    names: Any = None
    info: Mapping[str, Any] | None = None

    @property
    def is_picture(self) -> bool:
        """Whether frames of it are camera pictures."""
        return self.dtype in PICTURES

    def as_json(self) -> dict[str, Any]:
        """The entry of `info.json`."""
        row: dict[str, Any] = {"dtype": self.dtype, "shape": list(self.shape), "names": self.names}
        return row | ({"info": dict(self.info)} if self.info else {})


DEFAULT_FEATURES: Mapping[str, Feature] = {
    "timestamp": Feature("float32", (1,)),
    "frame_index": Feature("int64", (1,)),
    "episode_index": Feature("int64", (1,)),
    "index": Feature("int64", (1,)),
    "task_index": Feature("int64", (1,)),
}
LANGUAGE_FEATURES: Mapping[str, Feature] = {name: Feature("language", (1,)) for name in LANGUAGE}


@dataclass(frozen=True)
class Info:
    """What a data set is: frames a second, robot, columns. The sizes are LeRobot's limits, in files and megabytes."""

    fps: float
    robot_type: str = ""
    features: Mapping[str, Feature] = field(default_factory=dict)
    total_episodes: int = 0
    total_frames: int = 0
    codebase_version: str = CODEBASE_VERSION
    chunks_size: int = 1000
    data_files_size_in_mb: float = 100
    video_files_size_in_mb: float = 200
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Whatever else the file says; kept, not used."""

    @cached_property
    def cameras(self) -> tuple[str, ...]:
        """The names of the picture columns, in order."""
        return tuple(name for name, feature in self.features.items() if feature.is_picture)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns that `Episodes.columns` gives, in order: no pictures, no language."""
        return tuple(n for n, f in self.features.items() if not f.is_picture and f.dtype != "language")


@dataclass(frozen=True)
class Episode:
    """One demonstration. tasks: its instructions, the first of them the main one; meta: everything else known of it."""

    index: int
    length: int
    tasks: tuple[str, ...]
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LanguageRow:
    """Something said: a `subtask` holds from `timestamp` (seconds) on, an `interjection` belongs to that moment."""

    content: str | None
    style: str | None = "interjection"
    timestamp: float = 0.0
    role: str = "user"
    camera: str | None = None
    tool_calls: tuple[Any, ...] = ()

    @property
    def column(self) -> str:
        """The LeRobot column it is stored in. Raises HeedfulError for a style LeRobot does not know."""
        return language_column(self.style)


def language_column(style: str | None) -> Literal["language_persistent", "language_events"]:
    """Where rows of `style` are stored. Raises HeedfulError for an unknown style."""
    if style in PERSISTENT_STYLES:
        return "language_persistent"
    if style is None or style in EVENT_STYLES:
        return "language_events"
    known = ", ".join((*PERSISTENT_STYLES, *EVENT_STYLES))
    raise HeedfulError(f"language style {style!r} is unknown; LeRobot has {known}")


class Episodes(Protocol):
    """Episodes on disk. Opening reads no frame; the readers are per process and not shared between threads."""

    path: Path
    info: Info
    layout: str
    """What it was read as, for people: `LeRobotDataset v3.0`, `DROID (raw)`."""

    def __len__(self) -> int:
        """How many episodes there are."""
        ...

    def episode(self, i: int) -> Episode:
        """Episode `i`, counted from 0."""
        ...

    def columns(
        self, i: int, names: Sequence[str] | None = None, start: int = 0, stop: int | None = None
    ) -> dict[str, Array]:
        """Columns of frames `start` to `stop` of episode `i`: (T, *shape), without the axis of a shape (1,).

        None stands for all columns, and for the end. Raises HeedfulError naming episode, column and frame.
        """
        ...

    def frames(self, i: int, camera: str, indices: Sequence[int]) -> NDArray[np.uint8]:
        """Pictures of frames `indices` of episode `i`: uint8 RGB, (n, H, W, 3), in the order asked for.

        Raises HeedfulError naming episode, camera and frame where a picture is missing or damaged.
        """
        ...

    def language(self, i: int) -> list[LanguageRow]:
        """What is said in episode `i`, in order of time."""
        ...

    def film(self, i: int, camera: str) -> tuple[Path, float] | None:
        """(video of the camera at the data set's own rate, seconds where the episode begins); None: no such."""
        ...

    def problems(self) -> list[str]:
        """What is wrong with the files as a whole, found without reading frames: leftovers, lost files."""
        ...


def open_episodes(path: str | Path) -> Episodes:
    """Open a data set of demonstrations of any known layout.

    Raises HeedfulError where there is none, and where its tables cannot be read, naming the file.
    """
    place = Path(path).expanduser()
    if not place.exists():
        raise HeedfulError(f"{place}: there is no such file or folder")
    reader = _reader_of(place)
    if reader is not None:
        return reader.open_folder(place)
    raise HeedfulError(
        f"{place} holds no demonstrations that are known: LeRobotDataset v2.1 and v3 (meta/info.json), RLDS "
        "(*.tfrecord-*), DROID as recorded (trajectory.h5), HDF5 of robomimic or ALOHA"
    )


def recognises(path: Path) -> bool:
    """Whether there are demonstrations of a known layout at `path`, which exists."""
    return _reader_of(path) is not None


def _reader_of(path: Path) -> Any:
    from importlib import import_module

    readers = (import_module(f"heedful.data.episodes.{m}") for m in ("lerobot", "rlds", "droid", "hdf5"))
    return next((reader for reader in readers if reader.recognises(path)), None)


def outcome(episode: Episode) -> bool | None:
    """Whether an episode succeeded, as its row says; None where it does not say."""
    said = [bool(episode.meta[name]) for name in SUCCESS if episode.meta.get(name) is not None]
    return all(said) if said else None


def check_index(i: int, count: int, path: Path) -> int:
    """`i` as an index from 0. Raises HeedfulError where there is no such episode."""
    if not -count <= i < count:
        raise HeedfulError(f"{path}: there is no episode {i}; it has {count}")
    return int(i) % count


def check_range(episode: Episode, start: int, stop: int | None, path: Path) -> tuple[int, int]:
    """(start, stop) within the episode. Raises HeedfulError for frames that it does not have."""
    end = episode.length if stop is None else stop
    if not 0 <= start <= end <= episode.length:
        raise HeedfulError(
            f"{path}: episode {episode.index} has frames 0 to {episode.length - 1}, not {start} to {end}"
        )
    return start, end


def check_frames(episode: Episode, camera: str, indices: Iterable[int], info: Info, path: Path) -> list[int]:
    """The indices as a list. Raises HeedfulError for an unknown camera, and for frames that are not there."""
    if camera not in info.cameras:
        raise HeedfulError(
            f"{path}: there is no camera {camera!r}; it has {', '.join(info.cameras) or 'no camera'}"
        )
    wanted = [int(i) for i in indices]
    wrong = [i for i in wanted if not 0 <= i < episode.length]
    if wrong:
        raise HeedfulError(
            f"{path}: episode {episode.index} has no frame {wrong[0]}; its last is {episode.length - 1}"
        )
    return wanted


def check_columns(names: Sequence[str] | None, info: Info, path: Path) -> list[str]:
    """The columns asked for. Raises HeedfulError naming those that are not there, and what is."""
    if names is None:
        return list(info.columns)
    unknown = [name for name in names if name not in info.columns]
    if unknown:
        raise HeedfulError(f"{path}: there is no column {unknown[0]!r}; it has {', '.join(info.columns)}")
    return list(names)
