"""Write episodes as LeRobotDataset v3, so that a kill at any moment loses at most the episode in hand.

While it records, a data set is whole after every `save_episode`: an episode goes into files of its own (data, one
video a camera, one row of meta/episodes), each put in place whole, and `meta/info.json`, written last, says how many
episodes count. What is there beyond that number is what a killed writer had begun; the next writer removes it.
`finalize` packs the small files into ones of LeRobot's sizes (`episodes.pack`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa

from heedful.atomic import make_folder, sync, writing
from heedful.data.episodes import (
    CODEBASE_VERSION,
    LANGUAGE,
    NUMBERS,
    SPEAKER,
    Episode,
    Info,
    LanguageRow,
)
from heedful.data.episodes.claim import begin_first, end_first, lock_folder
from heedful.data.episodes.meta import (
    OWN,
    after,
    check_same,
    checked_meta,
    checked_value,
    settle_stats,
    whole_info,
    write_info,
    write_stats,
    write_tasks,
)
from heedful.data.episodes.pack import WORK, finish_packing, pack, remove_leftovers
from heedful.data.episodes.stats import PICTURES_COUNTED, PictureStats, Stats, column_stats, pool_stats
from heedful.data.episodes.tables import encode_png, language_arrays, language_type, to_arrow, write_table
from heedful.data.episodes.video import ReadyVideo, Video, VideoWriter
from heedful.errors import HeedfulError

DATA = "data/chunk-{chunk:03d}/file-{file:03d}.parquet"
VIDEO = "videos/{camera}/chunk-{chunk:03d}/file-{file:03d}.mp4"
EPISODES = "meta/episodes/chunk-{chunk:03d}/file-{file:03d}.parquet"


class EpisodeWriter:
    """Writes one data set. One process at a time; opening a folder again goes on after its last saved episode.

    folder: new, empty, or a v3 data set with the same columns. info: fps, robot and columns; timestamp, frame_index,
    episode_index, index and task_index are added. codec, crf, gop: of the videos; a picture column of dtype `image`
    holds PNG instead. Raises HeedfulError where the folder holds something else, or another writer is at work.
    """

    def __init__(
        self, folder: str | Path, info: Info, *, codec: str = "h264", crf: int = 23, gop: int = 2
    ) -> None:
        self.folder = Path(folder).expanduser()
        self._encode = {"codec": codec, "crf": crf, "gop": gop}
        self.info = whole_info(info)
        make_folder(self.folder)
        self._lock: int | None = lock_folder(self.folder)
        self._tasks: dict[str, int] = {}
        self._stats: dict[str, Stats] = {}
        self._next_file: tuple[int, int] = (0, 0)
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        self._begin()

    # ---- recording

    def add_frame(self, frame: Mapping[str, Any]) -> None:
        """Add a frame to the episode in hand: a value for each column of `info.features`.

        Pictures are uint8 RGB (H, W, 3). `task` may say which instruction the frame belongs to (else the first).
        Raises HeedfulError naming column and frame for what is missing, unknown, or of another type or shape.
        """
        given = dict(frame)
        self._frame_tasks.append(given.pop("task", None))
        where = f"episode {self.info.total_episodes}, frame {self._length}"
        missing = [name for name in self._wanted if name not in given]
        unknown = [name for name in given if name not in self._wanted]
        if missing or unknown:
            self._frame_tasks.pop()
            told = [f"without {', '.join(missing)}"] * bool(missing) + [
                f"with unknown {', '.join(unknown)}"
            ] * bool(unknown)
            raise HeedfulError(f"{self.folder}: {where} comes {' and '.join(told)}")
        try:
            values = {
                name: checked_value(given[name], feature, f"{self.folder}: {where}, {name}")
                for name, feature in self._wanted.items()
            }
        except HeedfulError:
            self._frame_tasks.pop()
            raise
        for name, value in values.items():
            feature = self._wanted[name]
            if feature.is_picture:
                self._pictures[name].add(value)
            if feature.dtype == "video":
                with writing(self.folder / VIDEO.format(camera=name, chunk=0, file=0)):
                    self._videos[name].add(value)
            else:
                self._rows[name].append(encode_png(value) if feature.dtype == "image" else value)
        self._length += 1

    def add_columns(
        self,
        columns: Mapping[str, Any],
        videos: Mapping[str, Path],
        pictures: Mapping[str, Iterable[Any]],
        tasks: Sequence[str] | None = None,
    ) -> None:
        """Add a whole episode at once: columns (T, *shape), ready videos at this data set's rate (moved), pictures.

        tasks: the instruction of each frame. Raises HeedfulError as `add_frame` does, and where lengths differ.
        """
        where = f"{self.folder}: episode {self.info.total_episodes}"
        given = {*columns, *videos, *pictures}
        if self._length or given != set(self._wanted):
            differ = sorted(given ^ set(self._wanted))
            raise HeedfulError(
                f"{where}: columns are missing or unknown, or frames are there already: {differ}"
            )
        lengths = {name: len(values) for name, values in columns.items()}
        for name, values in columns.items():
            feature = self._wanted[name]
            self._rows[name] = [
                checked_value(v, feature, f"{where}, frame {k}, {name}") for k, v in enumerate(values)
            ]
        for name, path in videos.items():
            video = Video(path)
            lengths[name] = len(video)
            for k in range(0, len(video), max(1, len(video) // PICTURES_COUNTED)):
                self._pictures[name].add(video.pictures([k])[0])
            video.close()
            self._videos[name] = ReadyVideo(path, self.info.fps, len(video))
        for name, frames in pictures.items():
            lengths[name] = 0
            for value in frames:
                checked = checked_value(value, self._wanted[name], f"{where}, frame {lengths[name]}, {name}")
                self._pictures[name].add(checked)
                if self._wanted[name].dtype == "video":
                    with writing(self.folder):
                        self._videos[name].add(checked)
                else:
                    self._rows[name].append(encode_png(checked))
                lengths[name] += 1
        if len(set(lengths.values())) != 1:
            raise HeedfulError(f"{where}: the columns have unequal numbers of frames: {lengths}")
        self._length = next(iter(lengths.values()))
        self._frame_tasks = list(tasks) if tasks is not None else [None] * self._length

    def say(
        self,
        content: str,
        style: str = "interjection",
        *,
        role: str = "",
        timestamp: float | None = None,
        camera: str | None = None,
    ) -> LanguageRow:
        """Add a language row at `timestamp` seconds, or else at the newest frame (the first, before there is any)."""
        at = max(0, self._length - 1) / self.info.fps if timestamp is None else timestamp
        row = LanguageRow(content, style, at, role or SPEAKER.get(style, "assistant"), camera)
        _ = row.column
        self._language.append(row)
        return row

    def save_episode(
        self,
        tasks: Sequence[str] | str = (),
        meta: Mapping[str, Any] | None = None,
        language: Sequence[LanguageRow] = (),
    ) -> Episode:
        """Put the episode in hand on the disk; once this returns, no kill can lose it.

        tasks: its instructions, the main one first. meta: what else is known of it: numbers, text, true or false,
        lists of these; None is left out; they become columns of meta/episodes. language: rows beside those of `say`.
        Raises HeedfulError for an episode without frames or without an instruction.
        """
        given = (tasks,) if isinstance(tasks, str) else tuple(tasks)
        spoken = dict.fromkeys(task for task in (*given, *self._frame_tasks) if task is not None)
        where = f"{self.folder}: episode {self.info.total_episodes}"
        if not self._length:
            raise HeedfulError(f"{where} has no frames; discard() it, or add frames first")
        if not spoken:
            raise HeedfulError(f"{where} has no instruction: give save_episode one in `tasks`")
        wrong = [task for task in spoken if not isinstance(task, str)]
        if wrong:
            raise HeedfulError(f"{where}: an instruction must be text, not {wrong[0]!r}")
        extra = checked_meta(meta or {}, where)
        rows = [*self._language, *language]
        if rows and LANGUAGE[0] not in self.info.features:
            raise HeedfulError(
                f"{where}: language rows need the columns: add LANGUAGE_FEATURES to the features of the data set"
            )
        for task in spoken:
            self._tasks.setdefault(task, len(self._tasks))
        episode = Episode(self.info.total_episodes, self._length, tuple(spoken), extra)
        self._commit(episode, rows)
        self._begin()
        return episode

    def discard(self) -> None:
        """Forget the episode in hand."""
        for video in self._videos.values():
            video.abort()
        shutil.rmtree(self.folder / WORK, ignore_errors=True)
        self._begin()

    # ---- ending

    def finalize(self) -> None:
        """Forget the episode in hand, pack small files into LeRobot's sizes, and let the folder go.

        Without it the data set is whole too, in one file an episode. A kill in here is made good by the next opening.
        """
        if self._lock is None:
            return
        self.discard()
        shutil.rmtree(self.folder / WORK, ignore_errors=True)
        pack(self.folder, self.info)
        self.close()

    def close(self) -> None:
        """Let the folder go as it is."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> EpisodeWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finalize()
        else:
            self.discard()
            self.close()

    # ---- files

    def _open(self) -> None:
        finish_packing(self.folder)
        if not (self.folder / "meta" / "info.json").exists():
            begin_first(self.folder)
            return
        from heedful.data.episodes.lerobot import LeRobotEpisodes

        there = LeRobotEpisodes(self.folder)
        if there.info.codebase_version != CODEBASE_VERSION:
            raise HeedfulError(f"{self.folder} is {there.layout}; `heedful demos convert` makes v3 of it")
        check_same(self.info, there.info, self.folder)
        self.info = replace(
            there.info,
            features={
                name: replace(feature, info=feature.info or self.info.features[name].info)
                for name, feature in there.info.features.items()
            },
        )
        end_first(self.folder)
        self._stats = settle_stats(there)
        remove_leftovers(self.folder, there)
        self._tasks = there.tasks
        self._next_file = there.next_file()

    def _begin(self) -> None:
        self._length = 0
        self._wanted = {
            name: f for name, f in self.info.features.items() if name not in OWN and f.dtype != "language"
        }
        self._rows: dict[str, list[Any]] = {n: [] for n, f in self._wanted.items() if f.dtype != "video"}
        self._pictures = {name: PictureStats() for name, f in self._wanted.items() if f.is_picture}
        self._frame_tasks: list[str | None] = []
        self._language: list[LanguageRow] = []
        make_folder(self.folder / WORK)
        self._videos: dict[str, Any] = {
            name: VideoWriter(self.folder / WORK / f"{name}.mp4", self.info.fps, **self._encode)  # type: ignore[arg-type]
            for name, feature in self._wanted.items()
            if feature.dtype == "video"
        }

    def _commit(self, episode: Episode, language: Sequence[LanguageRow]) -> None:
        chunk, file = self._next_file
        features = dict(self.info.features)
        for name, video in self._videos.items():
            place = self.folder / VIDEO.format(camera=name, chunk=chunk, file=file)
            with writing(place):
                facts = video.close()
                make_folder(place.parent)
                sync(video.path)
                os.replace(video.path, place)
                sync(place.parent)
            features[name] = replace(features[name], info=facts)
        table, stats = self._table(episode, language)
        write_table(self.folder / DATA.format(chunk=chunk, file=file), table)
        stats |= {name: counted.result() for name, counted in self._pictures.items()}
        row = self._row(episode, stats, chunk, file)
        write_table(self.folder / EPISODES.format(chunk=chunk, file=file), pa.Table.from_pylist([row]))
        write_tasks(self.folder, self._tasks)
        pooled = pool_stats([self._stats, stats] if self._stats else [stats])
        write_stats(self.folder, pooled)
        info = replace(
            self.info,
            features=features,
            total_episodes=episode.index + 1,
            total_frames=self.info.total_frames + episode.length,
        )
        write_info(self.folder, info, len(self._tasks))
        # Not before it counts on the disk: an episode that could not be saved must not count in the next ones.
        self._stats, self.info = pooled, info
        self._next_file = after(chunk, file, info.chunks_size)
        if not episode.index:
            end_first(self.folder)

    def _table(self, episode: Episode, language: Sequence[LanguageRow]) -> tuple[pa.Table, dict[str, Stats]]:
        length, first = episode.length, self.info.total_frames
        counted = np.arange(length)
        main = episode.tasks[0]
        values: dict[str, Any] = {
            name: np.stack(rows) for name, rows in self._rows.items() if not self._is_png(name)
        }
        values |= {
            "timestamp": (counted / self.info.fps).astype(np.float32),
            "frame_index": counted,
            "episode_index": np.full(length, episode.index),
            "index": counted + first,
            "task_index": np.array([self._tasks[main if t is None else t] for t in self._frame_tasks]),
        }
        columns: dict[str, pa.Array] = {}
        spoken = language_arrays(language, values["timestamp"], length)
        for name, feature in self.info.features.items():
            if feature.dtype == "language":
                columns[name] = spoken[LANGUAGE.index(name)]
            elif feature.dtype == "image":
                pictures = [
                    {"bytes": data, "path": f"frame-{k:06d}.png"} for k, data in enumerate(self._rows[name])
                ]
                columns[name] = pa.array(pictures)
            elif feature.dtype != "video":
                columns[name] = to_arrow(values[name], feature)
        stats = {n: column_stats(v) for n, v in values.items() if self.info.features[n].dtype in NUMBERS}
        kinds = [
            pa.field(n, language_type(n) if n in LANGUAGE else column.type) for n, column in columns.items()
        ]
        return pa.Table.from_arrays(list(columns.values()), schema=pa.schema(kinds)), stats

    def _is_png(self, name: str) -> bool:
        return self._wanted[name].dtype == "image"

    def _row(self, episode: Episode, stats: Mapping[str, Stats], chunk: int, file: int) -> dict[str, Any]:
        row: dict[str, Any] = {
            "episode_index": episode.index,
            "tasks": list(episode.tasks),
            "length": episode.length,
            "data/chunk_index": chunk,
            "data/file_index": file,
            "dataset_from_index": self.info.total_frames,
            "dataset_to_index": self.info.total_frames + episode.length,
        }
        for name in self._videos:
            row |= {
                f"videos/{name}/chunk_index": chunk,
                f"videos/{name}/file_index": file,
                f"videos/{name}/from_timestamp": 0.0,
                f"videos/{name}/to_timestamp": episode.length / self.info.fps,
            }
        for name, values in stats.items():
            row |= {f"stats/{name}/{stat}": value.tolist() for stat, value in values.items()}
        row |= {"meta/episodes/chunk_index": chunk, "meta/episodes/file_index": file}
        return row | dict(episode.meta)
