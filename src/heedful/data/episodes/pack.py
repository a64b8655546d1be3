"""Pack the many small files of a recording into ones of LeRobot's sizes; made good at the next opening after a kill.

The new files are made in a folder of their own, then a plan is written beside them: what to remove, what to move in.
From that moment the packing can only go forward: whoever opens the data set next carries the plan out. Before it,
nothing of the data set has changed. Videos are joined packet by packet and tables row group by row group.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from heedful.atomic import make_folder, sync, write_file, writing
from heedful.data.episodes import Info
from heedful.data.episodes.tables import open_table
from heedful.data.episodes.video import coding, join_videos
from heedful.errors import HeedfulError

if TYPE_CHECKING:
    from heedful.data.episodes.lerobot import LeRobotEpisodes

WORK = ".recording"
"""The folder, in that of the data set, for what is not part of it yet."""
MEGABYTE = 1024 * 1024
Place = tuple[int, int]


def pack(folder: Path, info: Info) -> None:
    """Pack data, videos and episode rows. Raises HeedfulError where the disk is full; all is then as it was."""
    from heedful.data.episodes.lerobot import LeRobotEpisodes

    there = LeRobotEpisodes(folder)
    if not len(there):
        return
    rows = there.rows()
    work = folder / WORK
    make_folder(work)
    remove: list[str] = []
    move: list[tuple[str, str]] = []

    def put(
        kind: str,
        limit: float,
        path: Callable[[Place], Path],
        join: Callable[[Sequence[Place], Path], None],
        alike: Callable[[Place], Any] = lambda place: None,
    ) -> bool:
        """Pack the files of one kind, those together that are `alike`; whether anything changes."""
        chunks = [int(c) for c in rows[f"{kind}/chunk_index"]]
        files = [int(f) for f in rows[f"{kind}/file_index"]]
        places = list(zip(chunks, files, strict=True))
        groups = _groups(
            list(dict.fromkeys(places)), lambda p: path(p).stat().st_size, alike, limit * MEGABYTE
        )
        new = {
            old: (i // info.chunks_size, i % info.chunks_size)
            for i, group in enumerate(groups)
            for old in group
        }
        for group in groups:
            target = path(new[group[0]])
            if group == [new[group[0]]]:
                continue
            made = work / f"{len(move):06d}{target.suffix}"
            with writing(made):
                if len(group) == 1:
                    made.unlink(missing_ok=True)
                    os.link(path(group[0]), made)
                else:
                    join(group, made)
                sync(made)
            remove.extend(str(path(old).relative_to(folder)) for old in group)
            move.append((made.name, str(target.relative_to(folder))))
        rows[f"{kind}/chunk_index"] = [new[p][0] for p in places]
        rows[f"{kind}/file_index"] = [new[p][1] for p in places]
        return any(old != place for old, place in new.items())

    changed = put(
        "data",
        info.data_files_size_in_mb,
        there.data_file,
        lambda group, out: _join_tables([there.data_file(p) for p in group], out),
    )
    for camera in info.cameras:
        if info.features[camera].dtype == "video":
            changed |= _pack_camera(there, camera, rows, put)
    changed |= len(there.row_files) > 1
    if not changed:
        shutil.rmtree(work, ignore_errors=True)
        return
    table = _table(rows)
    per_file = max(1, int(len(table) * info.data_files_size_in_mb * MEGABYTE / max(1, table.nbytes)))
    for k, start in enumerate(range(0, len(table), per_file)):
        place = (k // info.chunks_size, k % info.chunks_size)
        part = table.slice(start, per_file)
        for name, number in zip(("chunk_index", "file_index"), place, strict=True):
            column = f"meta/episodes/{name}"
            part = part.set_column(
                part.schema.get_field_index(column), column, pa.array([number] * len(part), pa.int64())
            )
        made = work / f"{len(move):06d}.parquet"
        with writing(made):
            pq.write_table(part, made)
            sync(made)
        move.append((made.name, str(there.row_file(place).relative_to(folder))))
    remove.extend(str(path.relative_to(folder)) for path in there.row_files)
    write_file(work / "plan.json", json.dumps({"remove": remove, "move": move}).encode())
    finish_packing(folder)


def _pack_camera(there: LeRobotEpisodes, camera: str, rows: dict[str, list[Any]], put: Any) -> bool:
    kind = f"videos/{camera}"
    before = list(zip(rows[f"{kind}/chunk_index"], rows[f"{kind}/file_index"], strict=True))
    counts: dict[Place, int] = {}
    for place, length in zip(before, rows["length"], strict=True):
        counts[place] = counts.get(place, 0) + length
    shift: dict[Place, float] = dict.fromkeys(counts, 0.0)

    def join(group: Sequence[Place], out: Path) -> None:
        frames = [counts[p] for p in group]
        join_videos([file(p) for p in group], frames, there.info.fps, out)
        for i, place in enumerate(group):
            shift[place] = sum(frames[:i]) / there.info.fps

    def file(place: Place) -> Path:
        return there.video_file(camera, place)

    changed = put(kind, there.info.video_files_size_in_mb, file, join, lambda place: coding(file(place)))
    for end in ("from_timestamp", "to_timestamp"):
        times = rows[f"{kind}/{end}"]
        rows[f"{kind}/{end}"] = [float(t) + shift[p] for t, p in zip(times, before, strict=True)]
    return changed


def _groups(
    places: Sequence[Place], size: Callable[[Place], int], alike: Callable[[Place], Any], limit: float
) -> list[list[Place]]:
    """Neighbours together as long as they are alike and stay below the limit."""
    groups: list[list[Place]] = []
    total, kind = 0, None
    for place in places:
        bytes_of, before = size(place), kind
        kind = alike(place)
        if groups and kind == before and total + bytes_of < limit:
            groups[-1].append(place)
            total += bytes_of
        else:
            groups.append([place])
            total = bytes_of
    return groups


def _join_tables(paths: Sequence[Path], out: Path) -> None:
    first = open_table(paths[0], "frames")
    with pq.ParquetWriter(out, first.schema_arrow, compression="snappy") as writer:
        for path in paths:
            file = open_table(path, "frames")
            for group in range(file.metadata.num_row_groups):
                writer.write_table(file.read_row_group(group).cast(first.schema_arrow))


def _table(rows: dict[str, list[Any]]) -> pa.Table:
    """The rows of meta/episodes; a column of values that Arrow cannot hold together becomes text."""
    columns: dict[str, pa.Array] = {}
    for name, values in rows.items():
        try:
            columns[name] = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            if any(isinstance(v, str | list) for v in values):
                columns[name] = pa.array(
                    [v if v is None or isinstance(v, str) else json.dumps(v) for v in values]
                )
            else:
                columns[name] = pa.array([None if v is None else float(v) for v in values])
    return pa.table(columns)


def finish_packing(folder: Path) -> bool:
    """Carry out the plan of a packing that was stopped; whether there was one. Raises HeedfulError if it cannot."""
    work = folder / WORK
    plan = work / "plan.json"
    if not plan.exists():
        return False
    with writing(folder):
        told = json.loads(plan.read_bytes())
        if not (work / "removed").exists():
            for name in told["remove"]:
                with suppress(FileNotFoundError):
                    os.unlink(folder / name)
            # From here on what stands at a removed name is new, and must stay.
            write_file(work / "removed", b"")
        for name, target in told["move"]:
            make_folder((folder / target).parent)
            with suppress(FileNotFoundError):
                os.replace(work / name, folder / target)
            sync((folder / target).parent)
        lost = [target for _, target in told["move"] if not (folder / target).exists()]
        if lost:
            raise HeedfulError(f"{folder}: an interrupted packing cannot be finished: {lost[0]} is lost")
        plan.unlink()
        shutil.rmtree(work)
    return True


def remove_leftovers(folder: Path, there: LeRobotEpisodes) -> None:
    """Remove what a killed writer had begun: the files in the place of the next episode."""
    place = there.next_file()
    videos = [there.video_file(c, place) for c, f in there.info.features.items() if f.dtype == "video"]
    for path in (there.data_file(place), there.row_file(place), *videos):
        path.unlink(missing_ok=True)
    shutil.rmtree(folder / WORK, ignore_errors=True)
