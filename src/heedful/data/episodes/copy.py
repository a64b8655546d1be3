"""Copy episodes from any layout into a LeRobotDataset v3: whole, or only some of their frames.

Videos of a LeRobotDataset are copied packet by packet wherever a piece begins at a key frame, so nothing is lost; where
it does not, and for every other layout, pictures are encoded. What was copied how is counted.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heedful.data.episodes import DEFAULT_FEATURES, LANGUAGE, Array, Episodes, Feature, Info, LanguageRow
from heedful.data.episodes.pack import WORK
from heedful.data.episodes.video import Video, cut_video
from heedful.data.episodes.write import EpisodeWriter
from heedful.errors import HeedfulError

Range = tuple[int, int]
BATCH = 32
"""Pictures in memory at once while they are encoded."""


@dataclass(frozen=True)
class Piece:
    """An episode to be made: frames `ranges` (end not included) of episode `episode` of source `source`."""

    source: int
    episode: int
    ranges: tuple[Range, ...] | None = None
    meta: Mapping[str, Any] | None = None

    def as_json(self) -> list[Any]:
        """For the record of what was planned."""
        return [self.source, self.episode, self.ranges]


def copy_pieces(
    sources: Sequence[Episodes],
    pieces: Sequence[Piece],
    out: Path,
    *,
    made_by: str,
    fps: float = 0.0,
    task: str = "",
    size: tuple[int, int] | None = None,
    encode: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Counter[str]:
    """Write `pieces`, in order, as a data set in `out`; a stopped copy goes on where it stopped.

    fps: overrides a rate the source does not know. task: the instruction of episodes without one. size: (H, W) of
    pictures. encode: codec, crf, gop. Returns counts: episodes, frames, videos copied and encoded. Raises HeedfulError
    where sources differ in columns or rate, an episode has no instruction, or `out` was made from something else.
    """
    info = common_info(sources, fps, size)
    plan = json.dumps([[str(s.path) for s in sources], [p.as_json() for p in pieces], fps, size, task])
    from hashlib import sha256

    mark = {"made_by": made_by, "plan": sha256(plan.encode()).hexdigest()}
    # Facts of the old videos go: they are said anew for those that are written.
    features = {n: replace(f, info=None) if f.dtype == "video" else f for n, f in info.features.items()}
    counts: Counter[str] = Counter()
    wanted = replace(info, features=features, extra={"heedful": mark})
    with EpisodeWriter(out, wanted, **(encode or {})) as writer:
        there = writer.info.extra.get("heedful")
        if there != mark:
            raise HeedfulError(f"{out} holds a data set that was made otherwise; choose another folder")
        done = writer.info.total_episodes
        counts["episodes there before"] = done
        for k, piece in enumerate(pieces[done:], start=done):
            progress(k, len(pieces))
            counts += _copy(sources[piece.source], piece, writer, task, size)
        progress(len(pieces), len(pieces))
    return counts


def common_info(sources: Sequence[Episodes], fps: float = 0.0, size: tuple[int, int] | None = None) -> Info:
    """What the copies' data set is. Raises HeedfulError naming the column or rate in which sources differ."""
    first = sources[0]
    features = {n: f for n, f in first.info.features.items() if n not in DEFAULT_FEATURES}
    for other in sources[1:]:
        if not fps and other.info.fps != first.info.fps:
            raise HeedfulError(
                f"{other.path} has {other.info.fps:g} frames a second, and {first.path} {first.info.fps:g}: data sets "
                "of mixed rates are not joined; if one of them is wrong, convert it with --fps first"
            )
        theirs = {n: f for n, f in other.info.features.items() if n not in (*DEFAULT_FEATURES, *LANGUAGE)}
        ours = {n: f for n, f in features.items() if n not in LANGUAGE}
        for name in {**ours, **theirs}:
            a, b = ours.get(name), theirs.get(name)
            if a is None or b is None or (a.dtype, a.shape) != (b.dtype, b.shape):
                told = [f"{f.dtype} {f.shape}" if f else "absent" for f in (a, b)]
                raise HeedfulError(
                    f"column {name!r} is {told[0]} in {first.path} and {told[1]} in {other.path}"
                )
        features |= {n: f for n, f in other.info.features.items() if n in LANGUAGE}
    if size:
        features = {n: replace(f, shape=(*size, 3)) if f.is_picture else f for n, f in features.items()}
    return Info(
        fps=fps or first.info.fps,
        robot_type=first.info.robot_type,
        features=features,
        chunks_size=first.info.chunks_size,
        data_files_size_in_mb=first.info.data_files_size_in_mb,
        video_files_size_in_mb=first.info.video_files_size_in_mb,
    )


def _copy(
    source: Episodes, piece: Piece, writer: EpisodeWriter, task: str, size: tuple[int, int] | None
) -> Counter[str]:
    episode = source.episode(piece.episode)
    ranges = piece.ranges or ((0, episode.length),)
    where = f"{source.path}: episode {episode.index}"
    wrong = [r for r in ranges if not 0 <= r[0] < r[1] <= episode.length]
    if wrong or any(a[1] > b[0] for a, b in pairwise(ranges)):
        raise HeedfulError(f"{where} has {episode.length} frames; the ranges {list(ranges)} do not fit")
    frames = np.concatenate([np.arange(a, b) for a, b in ranges])
    counts: Counter[str] = Counter(episodes=1, frames=len(frames))
    names = [n for n in source.info.columns if n not in DEFAULT_FEATURES]
    whole = source.columns(
        episode.index, [*names, *(["task_index"] if "task_index" in source.info.features else [])]
    )
    tasks = episode.tasks or ((task,) if task else ())
    if not tasks:
        raise HeedfulError(f"{where} has no instruction; --task gives one to those without")
    videos, pictures = {}, {}
    for camera in source.info.cameras:
        copied = None if size else _cut(source, episode.index, camera, ranges, writer)
        if copied is not None:
            videos[camera] = copied
        else:
            pictures[camera] = _pictures(source, episode.index, camera, frames, size)
        counts[f"videos {'copied' if copied else 'encoded'}"] += source.info.features[camera].dtype == "video"
    writer.add_columns(
        {name: whole[name][frames] for name in names},
        videos,
        pictures,
        _frame_tasks(source, whole.get("task_index"), frames, tasks),
    )
    rows = _language(source.language(episode.index), ranges, source.info.fps, writer.info.fps)
    writer.save_episode(tasks, {**_plain(episode.meta), **(piece.meta or {})}, rows)
    return counts


def _frame_tasks(
    source: Episodes, index: Array | None, frames: Array, tasks: Sequence[str]
) -> list[str] | None:
    known: Mapping[str, int] | None = getattr(source, "tasks", None)
    if index is None or not known or len(tasks) < 2:
        return None
    texts = {number: text for text, number in known.items()}
    return [texts.get(int(k), tasks[0]) for k in index[frames]]


def _plain(meta: Mapping[str, Any]) -> dict[str, Any]:
    """What of an episode's meta can be a column of meta/episodes; names of LeRobot's own are none of its meta."""
    return {name.replace("/", "."): value for name, value in meta.items() if not isinstance(value, dict)}


def _language(
    rows: Sequence[LanguageRow], ranges: Sequence[Range], old: float, new: float
) -> list[LanguageRow]:
    """The rows of the kept frames, at their new times. A persistent row from before a range holds from its start."""
    kept: list[LanguageRow] = []
    first = 0
    for a, b in ranges:
        holding: dict[str | None, LanguageRow] = {}
        for row in rows:
            at = round(row.timestamp * old)
            if row.column == LANGUAGE[0] and at < a and row.style != "task_aug":
                holding[row.style] = row
            elif a <= at < b or (row.style == "task_aug" and not first):
                kept.append(replace(row, timestamp=max(0, first + at - a) / new))
        kept += [replace(row, timestamp=first / new) for row in holding.values()]
        first += b - a
    return kept


def _cut(
    source: Episodes, i: int, camera: str, ranges: Sequence[Range], writer: EpisodeWriter
) -> Path | None:
    """The camera's video of these frames, copied without encoding; None where that cannot be."""
    film = source.film(i, camera)
    if film is None or source.info.fps != writer.info.fps or not film[0].is_file():
        return None
    video = Video(film[0])
    try:
        counted = source.episode(i).length
        places = video.at([film[1] + k / source.info.fps for k in range(counted)], 0.5 / source.info.fps)
        if -1 in places or places != list(range(places[0], places[0] + counted)):
            return None  # encoding will say which frame is missing
        out = writer.folder / WORK / f"{camera}.copy.mp4"
        shifted = [(places[0] + a, places[0] + b) for a, b in ranges]
        return out if cut_video(video, shifted, source.info.fps, out) else None
    finally:
        video.close()


def _pictures(
    source: Episodes, i: int, camera: str, frames: Array, size: tuple[int, int] | None
) -> Iterator[NDArray[np.uint8]]:
    for start in range(0, len(frames), BATCH):
        for picture in source.frames(i, camera, frames[start : start + BATCH].tolist()):
            yield resized(picture, size) if size else picture


def resized(picture: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture (H, W, 3) at another size, averaged over the area."""
    from PIL import Image

    if picture.shape[:2] == tuple(size):
        return picture
    return np.asarray(Image.fromarray(picture).resize((size[1], size[0]), Image.Resampling.BOX))


def feature_table(features: Mapping[str, Feature]) -> list[tuple[str, str, str]]:
    """(column, dtype, shape) for people."""
    return [(name, f.dtype, "x".join(map(str, f.shape))) for name, f in features.items()]
