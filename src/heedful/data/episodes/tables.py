"""Columns of episodes as Parquet: Arrow types as LeRobot writes them, and values back, checked frame by frame."""

from __future__ import annotations

import io
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from heedful.atomic import appearing
from heedful.data.episodes import LANGUAGE, Feature, LanguageRow
from heedful.errors import HeedfulError

Array = NDArray[Any]
KEPT_BYTES = 256 * 2**20
"""Columns of row groups that a reader keeps in memory."""


class FrameError(HeedfulError):
    """What is wrong at one frame of an episode. frame: which, counted from 0."""

    def __init__(self, message: str, frame: int | None = None) -> None:
        super().__init__(message)
        self.frame = frame


def arrow_type(feature: Feature) -> pa.DataType:
    """The Arrow type of a column, the one LeRobot's `datasets` features give."""
    if feature.dtype == "language":
        raise HeedfulError("the language columns have types of their own")
    if feature.is_picture:
        return pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    if feature.dtype == "string":
        kind: pa.DataType = pa.string()
    else:
        kind = pa.from_numpy_dtype(np.dtype(feature.dtype))
    if feature.shape == (1,):
        return kind
    if len(feature.shape) == 1:
        return pa.list_(kind, feature.shape[0])
    for _ in feature.shape:
        kind = pa.list_(kind)
    return kind


def language_type(column: str) -> pa.DataType:
    """The Arrow type of `language_persistent` or `language_events` (LeRobot's language.py)."""
    rows = [
        pa.field("role", pa.string(), nullable=False),
        pa.field("content", pa.string()),
        pa.field("style", pa.string()),
        pa.field("timestamp", pa.float32(), nullable=False),
        pa.field("camera", pa.string()),
        pa.field("tool_calls", pa.list_(pa.json_())),
    ]
    return pa.list_(pa.struct([f for f in rows if column == LANGUAGE[0] or f.name != "timestamp"]))


def to_arrow(values: Array, feature: Feature) -> pa.Array:
    """A column, (T,) or (T, *shape), as Arrow."""
    kind = arrow_type(feature)
    if feature.dtype == "string":
        return pa.array(values.tolist(), kind)
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    if feature.shape == (1,):
        return flat
    if len(feature.shape) == 1:
        return pa.FixedSizeListArray.from_arrays(flat, feature.shape[0])
    for size in reversed(feature.shape):
        offsets = np.arange(0, len(flat) + 1, size, dtype=np.int32)
        flat = pa.ListArray.from_arrays(offsets, flat)
    return flat.cast(kind)


def language_arrays(rows: Sequence[LanguageRow], stamps: Array, length: int) -> tuple[pa.Array, pa.Array]:
    """Both language columns of an episode: the persistent rows on every frame, each event on the frame it is at.

    stamps: (T,) float32 seconds of the frames. An event between two frames goes to the nearer one.
    """
    persistent: list[dict[str, Any]] = []
    events: list[list[dict[str, Any]]] = [[] for _ in range(length)]
    for row in sorted(rows, key=lambda r: r.timestamp):
        told: dict[str, Any] = {"role": row.role, "content": row.content, "style": row.style}
        told |= {"camera": row.camera, "tool_calls": [json.dumps(call) for call in row.tool_calls] or None}
        if row.column == LANGUAGE[0]:
            persistent.append(told | {"timestamp": np.float32(row.timestamp)})
        else:
            events[int(np.argmin(np.abs(stamps - row.timestamp)))].append(told)
    return (
        _structs([persistent] * length, language_type(LANGUAGE[0])),
        _structs(events, language_type(LANGUAGE[1])),
    )


def _structs(rows: Sequence[Sequence[Mapping[str, Any]]], kind: pa.DataType) -> pa.Array:
    """Lists of structs with a JSON inside: built in parts, since Arrow makes no JSON values from Python objects."""
    flat = [row for per_frame in rows for row in per_frame]
    calls = [row["tool_calls"] for row in flat]
    storage = pa.array([call for many in calls for call in many or ()], pa.string())
    bounds = np.cumsum([0, *[len(many or ()) for many in calls]]).astype(np.int32)
    lists = pa.ListArray.from_arrays(
        pa.array(bounds, pa.int32()),
        pa.ExtensionArray.from_storage(pa.json_(), storage),
        mask=pa.array([many is None for many in calls], pa.bool_()),
    )
    fields = list(kind.value_type)
    parts = [
        lists if f.name == "tool_calls" else pa.array([row[f.name] for row in flat], f.type) for f in fields
    ]
    structs = pa.StructArray.from_arrays(parts, fields=fields)
    offsets = np.cumsum([0, *map(len, rows)]).astype(np.int32)
    return pa.ListArray.from_arrays(offsets, structs).cast(kind)


def write_table(path: Path, table: pa.Table, rows_in_group: int | None = None) -> None:
    """Put a Parquet file at `path`, whole or not at all. Raises HeedfulError where it cannot be written."""
    with appearing(path) as out:
        pq.write_table(table, out, compression="snappy", use_dictionary=True, row_group_size=rows_in_group)


def open_table(path: Path, holds: str) -> pq.ParquetFile:
    """A Parquet file, opened. holds: what is lost with it, for the error. Raises HeedfulError naming both."""
    if not path.is_file():
        raise HeedfulError(f"{path} is missing; it holds {holds}")
    try:
        return pq.ParquetFile(path, memory_map=True)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise HeedfulError(
            f"{path} is no whole Parquet file ({reason}); it holds {holds}. Where a recording was stopped before it "
            "was finalised its last file has no footer, and what is in that file is lost"
        ) from error


class TableColumns:
    """Columns of row ranges of Parquet files, with the last used row groups kept in memory."""

    def __init__(self, keep_bytes: int = KEPT_BYTES) -> None:
        self._files: OrderedDict[Path, tuple[pq.ParquetFile, Array]] = OrderedDict()
        self._groups: OrderedDict[tuple[Path, int, str], pa.ChunkedArray] = OrderedDict()
        self._bytes, self._keep = 0, keep_bytes

    def forget(self, path: Path) -> None:
        """Let a file go, and what is kept of it."""
        self._files.pop(path, None)
        for key in [key for key in self._groups if key[0] == path]:
            self._bytes -= self._groups.pop(key).nbytes

    def names(self, path: Path, holds: str) -> list[str]:
        """The names of the file's columns."""
        return list(self._file(path, holds)[0].schema_arrow.names)

    def read(self, path: Path, name: str, start: int, stop: int, holds: str) -> pa.ChunkedArray:
        """Rows `start` to `stop` of one column. Raises HeedfulError where the file is damaged or too short."""
        file, bounds = self._file(path, holds)
        if stop > bounds[-1]:
            raise HeedfulError(f"{path} has {bounds[-1]} rows, and {stop} are needed; it holds {holds}")
        if name not in file.schema_arrow.names:
            raise HeedfulError(f"{path} has no column {name!r}; it holds {holds}")
        first = int(np.searchsorted(bounds, start, side="right")) - 1
        parts: list[pa.Array] = []
        group = first
        while group < len(bounds) - 1 and bounds[group] < max(stop, start + 1):
            column = self._group(path, file, group, name, holds)
            low, high = (
                max(start - int(bounds[group]), 0),
                min(stop, int(bounds[group + 1])) - int(bounds[group]),
            )
            parts += column.slice(low, max(0, high - low)).chunks
            group += 1
        return pa.chunked_array(parts, file.schema_arrow.field(name).type)

    def _file(self, path: Path, holds: str) -> tuple[pq.ParquetFile, Array]:
        if path not in self._files:
            file = open_table(path, holds)
            sizes = [file.metadata.row_group(g).num_rows for g in range(file.metadata.num_row_groups)]
            self._files[path] = (file, np.cumsum([0, *sizes]))
            if len(self._files) > 64:
                self._files.popitem(last=False)
        return self._files[path]

    def _group(self, path: Path, file: pq.ParquetFile, group: int, name: str, holds: str) -> pa.ChunkedArray:
        key = (path, group, name)
        if key in self._groups:
            self._groups.move_to_end(key)
            return self._groups[key]
        try:
            column = file.read_row_group(group, columns=[name], use_threads=False).column(name)
        except (pa.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0]
            raise HeedfulError(f"{path}: column {name!r} is damaged ({reason}); it holds {holds}") from error
        self._groups[key] = column
        self._bytes += column.nbytes
        while self._bytes > self._keep and len(self._groups) > 1:
            self._bytes -= self._groups.popitem(last=False)[1].nbytes
        return column


def from_arrow(column: pa.ChunkedArray, feature: Feature, where: str, first: int = 0) -> Array:
    """A column as (T, *shape), without the axis of a shape (1,).

    where: `file: episode 3, column 'x'`. Raises HeedfulError with it and the frame where a value is missing, of
    another size, or text that is not UTF-8.
    """
    length = len(column)
    if feature.dtype == "string":
        return texts(column, where, first)
    flat, counts = (
        column.combine_chunks() if column.num_chunks != 1 else column.chunk(0),
        np.ones(length, int),
    )
    if flat.null_count:
        frame = first + int(np.flatnonzero(flat.is_null().to_numpy(zero_copy_only=False))[0])
        raise FrameError(f"{where}: frame {frame} has no value", frame)
    size = int(np.prod(feature.shape))
    if isinstance(flat, pa.ExtensionArray):
        flat = flat.storage
    inner = flat
    while (
        pa.types.is_list(inner.type)
        or pa.types.is_large_list(inner.type)
        or pa.types.is_fixed_size_list(inner.type)
    ):
        inner = inner.flatten()
    if len(inner) != length * size:
        counts = np.array([np.size(value) for value in flat.to_pylist()])
        frame = int(np.flatnonzero(counts != size)[0])
        raise FrameError(
            f"{where}: frame {first + frame} has {counts[frame]} numbers, not {size}", first + frame
        )
    if not (
        pa.types.is_floating(inner.type) or pa.types.is_integer(inner.type) or pa.types.is_boolean(inner.type)
    ):
        raise HeedfulError(f"{where} holds {inner.type}, not {feature.dtype}")
    numbers = np.asarray(inner.to_numpy(zero_copy_only=False))
    if (
        inner.null_count
        and np.issubdtype(numbers.dtype, np.floating)
        and not pa.types.is_floating(inner.type)
    ):
        frame = first + int(np.flatnonzero(np.isnan(numbers))[0]) // size
        raise FrameError(f"{where}: frame {frame} has no value", frame)
    numbers = numbers.astype(np.dtype(feature.dtype), copy=False)
    return numbers if feature.shape == (1,) else numbers.reshape(length, *feature.shape)


def plain_values(column: pa.ChunkedArray) -> tuple[list[Any], dict[int, str]]:
    """(Python values, {row: why} of those that are not UTF-8 text: None stands in their place)."""
    try:
        return column.to_pylist(), {}
    except UnicodeDecodeError:
        values: list[Any] = []
        bad: dict[int, str] = {}
        for row, value in enumerate(column):
            try:
                values.append(value.as_py())
            except UnicodeDecodeError as error:
                values.append(None)
                bad[row] = f"is not UTF-8 text: {error}"
        return values, bad


def texts(column: pa.ChunkedArray, where: str, first: int = 0) -> Array:
    """A column of text as objects, (T,); a missing one is "". Raises HeedfulError with the frame that is not UTF-8."""
    values, bad = plain_values(column)
    for row, why in bad.items():
        raise FrameError(f"{where}: frame {first + row} {why}", first + row)
    return np.array([value or "" for value in values], dtype=object)


def language_rows(column: str, values: pa.ChunkedArray, stamps: Array, where: str) -> list[LanguageRow]:
    """The rows of a language column of a whole episode; stamps: (T,) seconds of its frames.

    Raises HeedfulError with the frame whose rows are not UTF-8, or not as LeRobot has them.
    """
    persistent = column == LANGUAGE[0]
    try:
        # Persistent rows are repeated on every frame: those of one are taken, and all are looked at.
        values.validate(full=True)
        frames, bad = plain_values(values[:1] if persistent else values)
    except pa.ArrowInvalid:
        frames, bad = plain_values(values)
    for k, why in bad.items():
        raise FrameError(f"{where}: frame {k} {why}", k)
    found: list[LanguageRow] = []
    for k, rows in enumerate(frames[:1] if persistent else frames):
        for row in rows or []:
            try:
                found.append(
                    LanguageRow(
                        content=row["content"],
                        style=row["style"],
                        timestamp=float(row["timestamp"] if persistent else stamps[k]),
                        role=row["role"],
                        camera=row.get("camera"),
                        tool_calls=tuple(_call(call) for call in row.get("tool_calls") or ()),
                    )
                )
            except (KeyError, TypeError) as error:
                raise FrameError(f"{where}: frame {k}: a row lacks {error}", k) from error
    return found


def _call(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def encode_png(picture: NDArray[np.uint8]) -> bytes:
    """A picture as PNG, for a column of dtype `image`."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG", compress_level=1)
    return out.getvalue()


def decode_picture(data: bytes | None, where: str) -> NDArray[np.uint8]:
    """A PNG or JPEG as RGB, uint8 (H, W, 3). Raises HeedfulError naming the place where it is none."""
    from PIL import Image, UnidentifiedImageError

    if not data:
        raise HeedfulError(f"{where} is missing")
    try:
        with Image.open(io.BytesIO(data)) as picture:
            return np.asarray(picture.convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise HeedfulError(f"{where} is no whole picture: {error}") from error
