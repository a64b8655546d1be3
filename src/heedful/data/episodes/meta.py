"""The files of meta/ of a LeRobotDataset: written whole, read with the file and line of what is wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from heedful.atomic import appearing, write_file
from heedful.data.episodes import (
    CODEBASE_VERSION,
    DEFAULT_FEATURES,
    LANGUAGE,
    LANGUAGE_FEATURES,
    NUMBERS,
    Feature,
    Info,
)
from heedful.data.episodes.stats import Stats, pool_stats
from heedful.errors import HeedfulError

if TYPE_CHECKING:
    from heedful.data.episodes.lerobot import LeRobotEpisodes

PATHS = {
    "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
    "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
}
OWN = ("timestamp", "frame_index", "episode_index", "index", "task_index")


def after(chunk: int, file: int, chunks_size: int) -> tuple[int, int]:
    """The place of the next file."""
    return (chunk, file + 1) if file + 1 < chunks_size else (chunk + 1, 0)


def write_info(folder: Path, info: Info, total_tasks: int) -> None:
    """Write meta/info.json, whole or not at all."""
    told: dict[str, Any] = {
        "codebase_version": info.codebase_version,
        "robot_type": info.robot_type,
        "total_episodes": info.total_episodes,
        "total_frames": info.total_frames,
        "total_tasks": total_tasks,
        "chunks_size": info.chunks_size,
        "data_files_size_in_mb": info.data_files_size_in_mb,
        "video_files_size_in_mb": info.video_files_size_in_mb,
        "fps": int(info.fps) if float(info.fps).is_integer() else info.fps,
        "splits": {"train": f"0:{info.total_episodes}"},
        **PATHS,
        "features": {name: feature.as_json() for name, feature in info.features.items()},
    }
    if not any(f.dtype == "video" for f in info.features.values()):
        told["video_path"] = None
    text = json.dumps({**info.extra, **told}, indent=4, ensure_ascii=False)
    write_file(folder / "meta" / "info.json", text.encode())


def write_stats(folder: Path, stats: Mapping[str, Stats]) -> None:
    """Write meta/stats.json."""
    told = {name: {stat: value.tolist() for stat, value in s.items()} for name, s in stats.items()}
    write_file(folder / "meta" / "stats.json", json.dumps(told, indent=4).encode())


def settle_stats(there: LeRobotEpisodes) -> dict[str, Stats]:
    """The statistics of the episodes that count.

    Where meta/stats.json counts other frames, as a writer that was killed between it and meta/info.json leaves it, they
    are pooled from the rows of meta/episodes and written anew.
    """
    told = there.stats()
    numbers = [told[n] for n, f in there.info.features.items() if n in told and f.dtype in NUMBERS]
    if {int(np.sum(stats.get("count", 0))) for stats in numbers} == {there.info.total_frames}:
        return pool_stats([told])
    kept: dict[str, dict[str, list[Any]]] = {}
    for name, values in there.rows().items():
        if name.startswith("stats/") and None not in values:
            column, _, stat = name.removeprefix("stats/").rpartition("/")
            kept.setdefault(column, {})[stat] = values
    whole = {
        name: stats for name, stats in kept.items() if {"count", "mean", "std", "min", "max"} <= {*stats}
    }
    pooled = pool_stats(
        {name: {stat: values[i] for stat, values in stats.items()} for name, stats in whole.items()}
        for i in range(len(there))
    )
    settled = {**told, **pooled} if len(there) else {}
    if told or settled:
        write_stats(there.path, settled)
    return settled


def write_tasks(folder: Path, tasks: Mapping[str, int]) -> None:
    """Write meta/tasks.parquet, a table that pandas reads with the instruction as its index, as LeRobot needs it."""
    import pandas as pd

    frame = pd.DataFrame(
        {"task_index": list(tasks.values())}, index=pd.Index(list(tasks), name="task", dtype=object)
    )
    with appearing(folder / "meta" / "tasks.parquet") as out:
        pq.write_table(pa.Table.from_pandas(frame), out)


def whole_info(info: Info) -> Info:
    """The data set that is written, with the columns that every one has. Raises HeedfulError for what cannot be."""
    features = {n: f for n, f in info.features.items() if n not in OWN}
    if any(name in features for name in LANGUAGE):
        features |= LANGUAGE_FEATURES
    for name, feature in features.items():
        if feature.dtype not in (*NUMBERS, "string", "image", "video", "language"):
            raise HeedfulError(f"column {name!r}: dtype {feature.dtype!r} is unknown")
        if not feature.shape or "/" in name:
            raise HeedfulError(f"column {name!r} needs a shape, (1,) for one number, and a name without '/'")
    if not 0 < info.fps < 10_000:
        raise HeedfulError(f"fps must be above 0, not {info.fps}")
    plain = replace(info, features=features | dict(DEFAULT_FEATURES), codebase_version=CODEBASE_VERSION)
    return replace(plain, total_episodes=0, total_frames=0)


def checked_value(value: Any, feature: Feature, where: str) -> Any:
    """A frame's value of a column, in its dtype. Raises HeedfulError with the place where it is of another kind."""
    if feature.dtype == "string":
        if not isinstance(value, str):
            raise HeedfulError(f"{where} must be text, not {type(value).__name__}")
        return value
    array = np.asarray(value)
    if feature.is_picture:
        if array.dtype != np.uint8 or array.shape != feature.shape:
            raise HeedfulError(f"{where} must be uint8 {feature.shape}, not {array.dtype} {array.shape}")
        return array
    shaped = array.reshape(1) if feature.shape == (1,) and array.ndim == 0 else array
    if shaped.shape != feature.shape or shaped.dtype.kind not in "biuf":
        raise HeedfulError(
            f"{where} must be {feature.dtype} {feature.shape}, not {array.dtype} {array.shape}"
        )
    kind = np.dtype(feature.dtype)
    if kind.kind in "iub" and shaped.dtype.kind == "f":
        raise HeedfulError(f"{where} must be {feature.dtype}, not {array.dtype}")
    return shaped.astype(kind)[0] if feature.shape == (1,) else shaped.astype(kind)


def checked_meta(meta: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What can be a column of meta/episodes; None is left out. Raises HeedfulError naming what cannot."""
    kept: dict[str, Any] = {}
    for name, value in meta.items():
        if value is None:
            continue
        if isinstance(value, np.ndarray | np.generic):
            value = value.tolist()
        if name in ("episode_index", "tasks", "length") or name.split("/")[0] in (
            "data",
            "videos",
            "stats",
            "meta",
        ):
            raise HeedfulError(f"{where}: {name!r} is a name of LeRobot's own; call it otherwise in `meta`")
        flat = value if isinstance(value, list | tuple) else [value]
        if any(not isinstance(v, bool | int | float | str | list | tuple) for v in flat):
            raise HeedfulError(
                f"{where}: meta {name!r} must be a number, text, true or false, or a list of these"
            )
        kept[name] = list(value) if isinstance(value, tuple) else value
    return kept


def check_same(ours: Info, there: Info, folder: Path) -> None:
    """Raise HeedfulError where a folder's data set has other columns or another rate."""
    new = {n: (f.dtype, f.shape) for n, f in ours.features.items()}
    old = {n: (f.dtype, f.shape) for n, f in there.features.items()}
    for name in {**old, **new}:
        if new.get(name) != old.get(name):
            raise HeedfulError(
                f"{folder} has column {name!r} as {old.get(name, 'nothing')}, and {new.get(name, 'nothing')} is to be "
                "written: record into another folder"
            )
    if ours.fps != there.fps:
        raise HeedfulError(
            f"{folder} has {there.fps} frames a second, not {ours.fps}: record into another folder"
        )


def read_info(told: Mapping[str, Any], file: Path) -> Info:
    """info.json as `Info`. Raises HeedfulError naming the file."""
    features: dict[str, Feature] = {}
    try:
        for name, row in told["features"].items():
            names, shape, facts = (
                row.get("names"),
                tuple(row["shape"]),
                row.get("info") or row.get("video_info"),
            )
            if row["dtype"] in ("image", "video") and len(shape) == 3 and shape[0] == 3 and shape[2] != 3:
                shape, names = (shape[1], shape[2], shape[0]), ["height", "width", "channels"]
            features[str(name)] = Feature(str(row["dtype"]), shape, names, facts)
        known = ("codebase_version", "robot_type", "features", "fps", "total_episodes", "total_frames")
        sizes = ("chunks_size", "data_files_size_in_mb", "video_files_size_in_mb")
        paths = ("data_path", "video_path", "splits", "total_tasks", "total_videos", "total_chunks")
        return Info(
            fps=float(told["fps"]),
            robot_type=str(told.get("robot_type") or ""),
            features=features,
            total_episodes=int(told["total_episodes"]),
            total_frames=int(told["total_frames"]),
            codebase_version=str(told["codebase_version"]),
            **{name: type(getattr(Info, name))(told[name]) for name in sizes if told.get(name)},
            extra={n: v for n, v in told.items() if n not in (*known, *sizes, *paths)},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise HeedfulError(f"{file} is not as LeRobot writes it: {error!r}") from error


def read_lines(file: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file. Raises HeedfulError naming file and line."""
    if not file.is_file():
        raise HeedfulError(f"{file} is missing")
    found = []
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        if line.strip():
            try:
                found.append(json.loads(line.decode("utf-8")))
            except ValueError as error:
                raise HeedfulError(f"{file}:{number}: {error}") from error
    return found
