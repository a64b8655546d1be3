"""LeRobotDataset v3, and v2.0 and v2.1, as episodes. What `lerobot` itself needs is not asked for here."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from heedful.data.episodes import (
    LANGUAGE,
    Array,
    Episode,
    LanguageRow,
    check_columns,
    check_frames,
    check_index,
    check_range,
)
from heedful.data.episodes.lerobot_rows import FIXED, VIDEO_PLACE, read_episode_lines, read_rows, read_tasks
from heedful.data.episodes.meta import read_info
from heedful.data.episodes.pack import WORK, finish_packing
from heedful.data.episodes.tables import FrameError, TableColumns, decode_picture, from_arrow, language_rows
from heedful.data.episodes.video import Video, Videos, pyav
from heedful.errors import HeedfulError
from heedful.model_folder import read_json

DATA_V3 = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_V3 = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
DATA_V2 = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
VIDEO_V2 = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
ROWS_V3 = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
FOLDERS = ("data", "videos", "stats", "meta")
Place = tuple[int, int]


def recognises(path: Path) -> bool:
    """Whether `path` is a LeRobotDataset."""
    return (path / "meta" / "info.json").is_file() or (path / WORK / "plan.json").is_file()


def open_folder(path: Path, strict: bool = True) -> LeRobotEpisodes:
    """Open a LeRobotDataset; an interrupted packing of ours is finished first."""
    finish_packing(path)
    return LeRobotEpisodes(path, strict)


class LeRobotEpisodes:
    """`Episodes` of a LeRobotDataset. Raises HeedfulError where its meta files are missing, damaged or of version 1.

    strict: False opens it too where rows of meta/episodes cannot be read; asking for such an episode raises then.
    """

    def __init__(self, path: Path, strict: bool = True) -> None:
        self.path = path
        self._told = read_json(path / "meta" / "info.json")
        self.info = read_info(self._told, path / "meta" / "info.json")
        version = self.info.codebase_version
        if not version.startswith(("v2.", "v3.")):
            raise HeedfulError(f"{path}: LeRobotDataset {version} is not read here; v2.0, v2.1 and v3 are")
        self.layout = f"LeRobotDataset {version}"
        self._v3 = version.startswith("v3.")
        self._columns = TableColumns()
        self._videos = Videos()
        self._paths: dict[tuple[str, Place, str], Path] = {}
        self._broken: list[str] = []
        self._lost: dict[int, str] = {}
        self._rows = self._read_rows(strict) if self._v3 else read_episode_lines(path)
        self._facts = [n for n in self._rows if n not in FIXED and n.split("/")[0] not in FOLDERS]
        self._episodes: dict[int, Episode] = {}
        if self._v3:
            self._first_row = self._first_rows()

    def __len__(self) -> int:
        return len(self._rows["length"])

    # ---- meta

    def episode(self, i: int) -> Episode:
        """Episode `i`, counted from 0."""
        i = check_index(i, len(self), self.path)
        if i in self._lost:
            raise HeedfulError(self._lost[i])
        if i not in self._episodes:
            meta = {name: self._rows[name][i] for name in self._facts if self._rows[name][i] is not None}
            self._episodes[i] = Episode(
                i, int(self._rows["length"][i]), tuple(self._rows["tasks"][i] or ()), meta
            )
        return self._episodes[i]

    @cached_property
    def tasks(self) -> dict[str, int]:
        """Each instruction and its `task_index`. Raises HeedfulError where one is not UTF-8 text, saying which."""
        tasks, told = self.read_tasks()
        if told:
            raise HeedfulError(told[0])
        return tasks

    def read_tasks(self) -> tuple[dict[str, int], list[str]]:
        """(each instruction that can be read and its `task_index`, what is wrong with the others)."""
        return read_tasks(self.path, self._v3)

    def stats(self) -> dict[str, dict[str, Array]]:
        """The statistics of the whole data set as its files have them; empty where they have none."""
        file = self.path / "meta" / "stats.json"
        if not file.exists():
            return {}
        return {
            name: {stat: np.asarray(value) for stat, value in stats.items()}
            for name, stats in read_json(file).items()
            if isinstance(stats, dict)
        }

    def rows(self) -> dict[str, list[Any]]:
        """All columns of meta/episodes, statistics too, one value an episode."""
        return self._read_rows(strict=True, with_stats=True) if self._v3 else dict(self._rows)

    @cached_property
    def row_files(self) -> list[Path]:
        """The files of meta/episodes, in order."""
        return sorted((self.path / "meta" / "episodes").glob("*/*.parquet"))

    def _read_rows(self, strict: bool, with_stats: bool = False) -> dict[str, list[Any]]:
        rows, self._broken, self._lost = read_rows(self.row_files, self.info, self.path, with_stats)
        told = [*self._broken, *self._lost.values()]
        if strict and told:
            raise HeedfulError(told[0])
        return rows

    # ---- where things stand

    def data_file(self, place: Place) -> Path:
        """The Parquet file of frames at (chunk, file)."""
        return self._at(self._told.get("data_path") or DATA_V3, place)

    def video_file(self, camera: str, place: Place) -> Path:
        """The video at (chunk, file)."""
        return self._at(self._told.get("video_path") or VIDEO_V3, place, camera)

    def row_file(self, place: Place) -> Path:
        """The file of meta/episodes at (chunk, file)."""
        return self._at(ROWS_V3, place)

    def _at(self, pattern: str, place: Place, camera: str = "") -> Path:
        key = (pattern, place, camera)
        if key not in self._paths:
            self._paths[key] = self._checked_path(pattern, place, camera)
        return self._paths[key]

    def _checked_path(self, pattern: str, place: Place, camera: str) -> Path:
        try:
            name = pattern.format(chunk_index=place[0], file_index=place[1], video_key=camera)
        except (KeyError, IndexError, ValueError) as error:
            raise HeedfulError(
                f"{self.path}/meta/info.json: path {pattern!r} is not understood: {error}"
            ) from error
        return _inside(self.path, name)

    def next_file(self) -> Place:
        """The place after all files of the data set."""
        kinds = {name.removesuffix("/chunk_index") for name in self._rows if name.endswith("/chunk_index")}
        places = [
            place
            for kind in kinds
            for place in zip(self._rows[f"{kind}/chunk_index"], self._rows[f"{kind}/file_index"], strict=True)
            if None not in place
        ]
        if not places:
            return (0, 0)
        chunk, file = max(places)
        return (chunk, file + 1) if file + 1 < self.info.chunks_size else (chunk + 1, 0)

    def _first_rows(self) -> dict[Place, int]:
        first: dict[Place, int] = {}
        unread = -1
        for i in range(len(self)):
            found = self._place_of(i)
            if found is None:
                unread = i
                continue
            place, start = found
            if place not in first and unread == i - 1 >= 0:
                # Episodes whose rows are lost may stand before it in the file; the file's own first frame tells.
                with suppress(HeedfulError):
                    frame = self._columns.read(self.data_file(place), "index", 0, 1, f"episode {i}")
                    start = min(start, frame[0].as_py())
            first[place] = min(first.get(place, start), start)
        return first

    def _place_of(self, i: int) -> tuple[Place, int] | None:
        """(chunk and file of the frames of episode `i`, their first row among all frames); None where it is lost."""
        names = ("data/chunk_index", "data/file_index", "dataset_from_index")
        chunk, file, start = (self._cell(name, i) for name in names)
        return None if None in (chunk, file, start) else ((chunk, file), start)

    def _cell(self, name: str, i: int) -> Any:
        return self._rows[name][i] if name in self._rows else None

    def table_of(self, i: int) -> tuple[Path, int]:
        """(file of the frames of episode `i`, its first row there)."""
        if self._v3:
            found = self._place_of(i)
            if found is None:
                raise HeedfulError(
                    self._lost.get(i, f"{self.path}: meta/episodes does not place episode {i}")
                )
            return self.data_file(found[0]), found[1] - self._first_row[found[0]]
        chunk = i // max(1, self.info.chunks_size)
        pattern = self._told.get("data_path") or DATA_V2
        return _inside(self.path, pattern.format(episode_chunk=chunk, episode_index=i)), 0

    def video_of(self, i: int, camera: str) -> tuple[Path, float]:
        """(video of a camera with episode `i`, seconds where the episode begins in it)."""
        if self._v3:
            chunk, file, begins = (self._cell(f"videos/{camera}/{part}", i) for part in VIDEO_PLACE)
            if None in (chunk, file, begins):
                raise HeedfulError(
                    f"{self.path}: episode {i} has no video of camera {camera!r} in meta/episodes"
                )
            return self.video_file(camera, (chunk, file)), float(begins)
        pattern = self._told.get("video_path") or VIDEO_V2
        name = pattern.format(
            episode_chunk=i // max(1, self.info.chunks_size), episode_index=i, video_key=camera
        )
        return _inside(self.path, name), 0.0

    # ---- frames

    def columns(
        self, i: int, names: Sequence[str] | None = None, start: int = 0, stop: int | None = None
    ) -> dict[str, Array]:
        """See `Episodes.columns`."""
        episode = self.episode(i)
        start, stop = check_range(episode, start, stop, self.path)
        found = {}
        for name in check_columns(names, self.info, self.path):
            column = self._read(episode.index, name, start, stop)
            where = f"{self.path}: episode {episode.index}, column {name!r}"
            found[name] = from_arrow(column, self.info.features[name], where, start)
        return found

    def need(self, file: Path) -> None:
        """Called before a file of frames is read; a data set whose files are elsewhere brings it."""

    def _read(self, i: int, name: str, start: int, stop: int) -> pa.ChunkedArray:
        file, first = self.table_of(i)
        self.need(file)
        return self._columns.read(file, name, first + start, first + stop, f"episode {i}")

    def frames(self, i: int, camera: str, indices: Sequence[int]) -> NDArray[np.uint8]:
        """See `Episodes.frames`."""
        episode = self.episode(i)
        wanted = check_frames(episode, camera, indices, self.info, self.path)
        where = f"{self.path}: episode {episode.index}, camera {camera!r}"
        if not wanted:
            return np.zeros((0, *self.info.features[camera].shape), dtype=np.uint8)
        if self.info.features[camera].dtype == "image":
            low, high = min(wanted), max(wanted) + 1
            cells = self._read(episode.index, camera, low, high)
            pictures = {k: self._picture(cells[k - low].as_py(), f"{where}, frame {k}") for k in set(wanted)}
            return np.stack([pictures[k] for k in wanted])
        file, begins = self.video_of(episode.index, camera)
        self.need(file)
        if not file.is_file():
            raise HeedfulError(f"{where}: its video {file} is missing")
        video = self._video(file, where)
        places = video.at([begins + k / self.info.fps for k in wanted], 0.5 / self.info.fps)
        if -1 in places:
            frame = wanted[places.index(-1)]
            at = begins + frame / self.info.fps
            raise FrameError(
                f"{where}: frame {frame} of {episode.length} is not in {file.name}: the video has no picture at "
                f"{at:.3f} s" + (f"; it ends at {video.times[-1]:.3f} s" if len(video) else "; it is empty"),
                frame,
            )
        try:
            return video.pictures(places)
        except HeedfulError as error:
            frame = next(
                (k for k, p in sorted(zip(wanted, places, strict=True)) if not _decodes(video, p)), None
            )
            named = "" if frame is None else f", frame {frame}"
            raise FrameError(f"{where}{named}: {error}", frame) from error

    def _video(self, file: Path, where: str) -> Video:
        try:
            return self._videos[file]
        except HeedfulError as error:
            raise HeedfulError(f"{where}: {error}") from error
        except (
            pyav().error.FFmpegError
        ) as error:  # one that is cut off within its index opens, and cannot be sought
            raise HeedfulError(f"{where}: {file} cannot be read as a video: {error}") from error

    def _picture(self, cell: Any, where: str) -> NDArray[np.uint8]:
        data = (cell or {}).get("bytes")
        if data is None and cell and cell.get("path"):
            file = _inside(self.path, str(cell["path"]))
            data = file.read_bytes() if file.is_file() else None
        return decode_picture(data, where)

    def language(self, i: int) -> list[LanguageRow]:
        """See `Episodes.language`."""
        found = [row for name in LANGUAGE if name in self.info.features for row in self.spoken(i, name)]
        return sorted(found, key=lambda row: row.timestamp)

    def spoken(self, i: int, column: str) -> list[LanguageRow]:
        """The rows of one language column of episode `i`. Raises HeedfulError naming episode, column and frame."""
        episode = self.episode(i)
        stamps = self.columns(i, ["timestamp"])["timestamp"]
        values = self._read(episode.index, column, 0, episode.length)
        where = f"{self.path}: episode {episode.index}, column {column!r}"
        return language_rows(column, values, stamps, where)

    def film(self, i: int, camera: str) -> tuple[Path, float] | None:
        """See `Episodes.film`. Raises HeedfulError naming episode and camera where the file is no video."""
        i = check_index(i, len(self), self.path)
        if self.info.features[camera].dtype != "video":
            return None
        file, begins = self.video_of(i, camera)
        if file.is_file():
            self._video(file, f"{self.path}: episode {i}, camera {camera!r}")
        return file, begins

    def problems(self) -> list[str]:
        """Leftovers of a killed writer, files that are lost, and columns of the tables that info.json does not name."""
        found = list(self._broken)
        if (self.path / WORK).exists():
            found.append(
                f"{WORK}: a recording was stopped before it was finalised; opening it for writing tidies up"
            )
        used, unplaced = self._used_files()
        found += unplaced
        present = {p for part in ("data", "videos") for p in (self.path / part).rglob("*") if p.is_file()}
        found += [f"{p.relative_to(self.path)} is missing" for p in sorted(used - present)]
        found += [
            f"{p.relative_to(self.path)} belongs to no episode (LeRobot would read it all the same)"
            for p in sorted(present - used)
            # Where rows are lost, it may be theirs.
            if p.suffix in (".parquet", ".mp4") and not self._broken
        ]
        for file in sorted(used & present):
            if file.suffix == ".parquet":
                try:
                    names = self._columns.names(file, "frames")
                except HeedfulError as error:
                    found.append(str(error))
                    continue
                unknown = [n for n in names if n not in self.info.features]
                found += [
                    f"{file.relative_to(self.path)}: column {n!r} is not in meta/info.json" for n in unknown
                ]
        return found

    def _used_files(self) -> tuple[set[Path], list[str]]:
        """(files that hold frames of episodes, what is wrong with the places of the others)."""
        cameras = [c for c in self.info.cameras if self.info.features[c].dtype == "video"]
        used: set[Path] = set()
        unplaced: list[str] = []
        for i in range(len(self)):
            try:
                used.add(self.table_of(i)[0])
            except HeedfulError as error:
                unplaced.append(str(error))
                continue
            for camera in cameras:
                try:
                    used.add(self.video_of(i, camera)[0])
                except HeedfulError as error:
                    unplaced.append(str(error))
        return used, unplaced


def _decodes(video: Video, place: int) -> bool:
    try:
        return len(video.pictures([place])) > 0
    except HeedfulError:
        return False


def _inside(folder: Path, name: str) -> Path:
    """A path within the data set. Raises HeedfulError where a file names one outside it."""
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()) and not path.is_symlink():
        raise HeedfulError(f"{folder}: {name!r} lies outside the data set")
    return path
