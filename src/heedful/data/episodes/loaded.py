"""Layouts whose episodes are read one at a time and whole: what they share."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heedful.data.episodes import (
    DEFAULT_FEATURES,
    LANGUAGE_FEATURES,
    Array,
    Episode,
    Feature,
    Info,
    LanguageRow,
    check_columns,
    check_frames,
    check_index,
    check_range,
)
from heedful.errors import HeedfulError

KEPT = 2
"""Episodes in memory: the one in use, and the one before."""
EPISODES_TRIED = 10
"""Episodes that are asked for a picture, to know its size, before a data set is given up."""
Pictures = Callable[[Sequence[int]], NDArray[np.uint8]]
NAMES = ["height", "width", "channels"]


@dataclass
class Loaded:
    """An episode in memory. columns: (T, *shape) each; pictures: a camera's frames on demand."""

    length: int
    tasks: tuple[str, ...]
    columns: dict[str, Array]
    pictures: dict[str, Pictures]
    meta: Mapping[str, Any] = field(default_factory=dict)
    language: Sequence[LanguageRow] = ()


class LoadedEpisodes:
    """`Episodes` of a layout that says how episode `i` is loaded.

    The columns are those of the first episode; another episode may lack none of them and have no others. Frames of
    the data set are not counted before they are read: `info.total_frames` is -1. speaks: some have language rows.
    """

    def __init__(
        self,
        path: Path,
        layout: str,
        count: int,
        load: Callable[[int], Loaded],
        *,
        fps: float,
        robot_type: str = "",
        problems: Callable[[], list[str]] = list,
        speaks: bool = False,
    ) -> None:
        if not count:
            raise HeedfulError(f"{path} holds no episodes")
        self.path, self.layout = path, layout
        self._count, self._load, self._problems = count, load, problems
        self._kept: OrderedDict[int, Loaded] = OrderedDict()
        self.info = Info(fps=fps, robot_type=robot_type, total_episodes=count, total_frames=-1)
        features = self._features(self._loaded(0))
        self.info = replace(self.info, features=features | (dict(LANGUAGE_FEATURES) if speaks else {}))

    def __len__(self) -> int:
        return self._count

    def _features(self, first: Loaded) -> dict[str, Feature]:
        features: dict[str, Feature] = {}
        for name, values in first.columns.items():
            text = values.dtype == object
            features[name] = Feature("string" if text else values.dtype.name, values.shape[1:] or (1,))
        for camera in first.pictures:
            features[camera] = Feature("video", self._size(first, camera), NAMES)
        own = {
            n: f for n, f in DEFAULT_FEATURES.items() if n in ("timestamp", "frame_index", "episode_index")
        }
        return features | own

    def _size(self, first: Loaded, camera: str) -> tuple[int, ...]:
        """A picture's shape, from the first episode that has one. Raises HeedfulError where none of the first has."""
        said = ""
        for i in range(min(self._count, EPISODES_TRIED)):
            try:
                return (first if i == 0 else self._load(i)).pictures[camera]([0])[0].shape
            except (HeedfulError, KeyError) as error:
                said = said or f"{self.path}: episode {i}, camera {camera!r}: {error}"
        raise HeedfulError(said)

    def _loaded(self, i: int) -> Loaded:
        if i in self._kept:
            self._kept.move_to_end(i)
            return self._kept[i]
        loaded = self._load(i)
        for name, values in loaded.columns.items():
            if len(values) != loaded.length:
                raise HeedfulError(
                    f"{self.path}: episode {i}, column {name!r} has {len(values)} frames, not {loaded.length}"
                )
        if self.info.features:
            there = {*loaded.columns, *loaded.pictures}
            own = {*DEFAULT_FEATURES, *LANGUAGE_FEATURES}
            wanted = {n for n in self.info.features if n not in own}
            told = [f"lacks {n!r}" for n in sorted(wanted - there)] + [
                f"has {n!r} too" for n in sorted(there - wanted)
            ]
            if told:
                raise HeedfulError(f"{self.path}: episode {i} {', '.join(told)}; episode 0 is not like this")
        stamps = np.arange(loaded.length)
        loaded.columns |= {
            "timestamp": (stamps / self.info.fps).astype(np.float32),
            "frame_index": stamps,
            "episode_index": np.full(loaded.length, i),
        }
        self._kept[i] = loaded
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return loaded

    def episode(self, i: int) -> Episode:
        """See `Episodes.episode`; the episode is loaded for it."""
        i = check_index(i, len(self), self.path)
        loaded = self._loaded(i)
        return Episode(i, loaded.length, loaded.tasks, loaded.meta)

    def columns(
        self, i: int, names: Sequence[str] | None = None, start: int = 0, stop: int | None = None
    ) -> dict[str, Array]:
        """See `Episodes.columns`."""
        episode = self.episode(i)
        start, stop = check_range(episode, start, stop, self.path)
        loaded = self._loaded(episode.index)
        found = {}
        for name in check_columns(names, self.info, self.path):
            values, feature = loaded.columns[name][start:stop], self.info.features[name]
            if (values.shape[1:] or (1,)) != feature.shape:
                raise HeedfulError(
                    f"{self.path}: episode {episode.index}, column {name!r} has frames of {values.shape[1:]}, not "
                    f"{feature.shape} as in episode 0"
                )
            found[name] = values[:, 0] if values.ndim == 2 and feature.shape == (1,) else values
        return found

    def frames(self, i: int, camera: str, indices: Sequence[int]) -> NDArray[np.uint8]:
        """See `Episodes.frames`."""
        episode = self.episode(i)
        wanted = check_frames(episode, camera, indices, self.info, self.path)
        if not wanted:
            return np.zeros((0, *self.info.features[camera].shape), dtype=np.uint8)
        try:
            return self._loaded(episode.index).pictures[camera](wanted)
        except HeedfulError as error:
            raise HeedfulError(f"{self.path}: episode {episode.index}, camera {camera!r}: {error}") from error

    def language(self, i: int) -> list[LanguageRow]:
        """See `Episodes.language`."""
        return list(self._loaded(self.episode(i).index).language)

    def film(self, i: int, camera: str) -> None:
        """None: the videos of such layouts, where there are any, have a rate of their own."""

    def problems(self) -> list[str]:
        """See `Episodes.problems`."""
        return self._problems()


def decoded(pictures: Sequence[bytes]) -> Pictures:
    """Pictures from their PNG or JPEG bytes, one a frame."""
    from heedful.data.episodes.tables import decode_picture

    def pick(indices: Sequence[int]) -> NDArray[np.uint8]:
        return np.stack([decode_picture(bytes(pictures[k]), f"frame {k}") for k in indices])

    return pick


def text(value: Any, where: str) -> str:
    """Bytes or text as text. Raises HeedfulError with the place where it is not UTF-8."""
    if isinstance(value, bytes | np.bytes_):
        try:
            return bytes(value).decode("utf-8")
        except UnicodeDecodeError as error:
            raise HeedfulError(f"{where} is not UTF-8 text: {error}") from error
    return str(value)


def droid_columns(action: Mapping[str, Array], state: Mapping[str, Array]) -> dict[str, Array]:
    """DROID's columns by the names of its LeRobot port: `observation.state.*`, `action.*`, and the two of joints and
    gripper together, 8 numbers each, that the port calls `observation.state` and `action`."""
    columns: dict[str, Array] = {}
    for side, parts in (("observation.state", state), ("action", action)):
        found = {name: _single(values) for name, values in parts.items()}
        columns |= {f"{side}.{name}": values for name, values in found.items()}
        if {"joint_position", "gripper_position"} <= set(found):
            whole = np.concatenate([found["joint_position"], found["gripper_position"]], axis=1)
            columns[side] = whole.astype(np.float32)
    return columns


def _single(values: Array) -> Array:
    values = np.asarray(values, dtype=np.float32)
    return values[:, None] if values.ndim == 1 else values
