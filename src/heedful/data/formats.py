"""Opening files of rows: every row with its place, and in its stead what is wrong where one cannot be read.

`scan` is the one way in, for checking and for reading. Nothing about a file makes it raise, and it holds one row
(Parquet: one batch) at a time.
"""

from __future__ import annotations

import codecs
import csv
import datetime
import decimal
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from heedful.data.problems import ENDINGS, HUB, Problem, format_of, named, short, what

BLANK = b" \t\r\n"
# A row is held in memory whole. Without a limit, a file in which no line ends would be too.
LONGEST_ROW = 2**25
DEEPEST = 64
BROKEN_GZIP = (EOFError, OSError, zlib.error)


class Item(NamedTuple):
    """A line of a file: a row and the byte at which it starts, or problems, or neither when it is blank."""

    line: int
    row: dict[str, Any] | None = None
    problems: tuple[Problem, ...] = ()
    start: int = 0


def cannot_open(path: str) -> str:
    """Why `path` cannot be opened, as far as one sees without reading it; "" when it can."""
    kind = format_of(path)
    if kind == "hub":
        fits = re.fullmatch(r"([\w.\-]+/)?[\w.\-]+(:[\w.\-\[\]%:]+)?", path.removeprefix(HUB))
        return "" if fits else "a data set on the Hub is named hub:owner/name or hub:owner/name:split"
    file = Path(path)
    try:
        if file.is_dir():
            return "is a folder; name the files in it"
        if not file.exists():
            return "there is no such file"
        if not file.is_file():
            return "is not a regular file"
        if kind:
            file.open("rb").close()
    except (OSError, ValueError) as error:
        return f"cannot be opened: {getattr(error, 'strerror', None) or error}"
    known = ", ".join(f".{ending}" for ending in ENDINGS)
    return "" if kind else f"the name must end in one of {known}, or be hub:owner/name"


def scan(path: str) -> Iterator[Item]:
    """Every line of a file or row of a data set, in order, blank and faulty ones too."""
    fault = cannot_open(path)
    kind = format_of(path)
    if fault:
        yield Item(0, problems=(Problem(path, 0, "", fault),))
    elif kind == "hub":
        advice = "look at the spelling and the network, or download the file and give its path"
        yield from _scan_foreign(_hub_rows(path), path, f"cannot be read from the Hub; {advice}")
    elif kind == "parquet":
        yield from _scan_foreign(_parquet_rows(path), path, "is not Parquet, or is damaged")
    else:
        with open_bytes(path) as stream:
            yield from (scan_csv if kind.startswith("csv") else scan_jsonl)(stream, path)


def open_bytes(path: str) -> BinaryIO:
    """The bytes of a file, decompressed when its name ends in `.gz`. Raises OSError."""
    if path.lower().endswith(".gz"):
        return cast(BinaryIO, gzip.GzipFile(path, "rb"))
    return open(path, "rb", buffering=2**18)


def lines(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """(first byte, line) of each line; of one over LONGEST_ROW only the beginning, longer than that."""
    offset = 0
    while line := stream.readline(LONGEST_ROW + 1):
        start, offset = offset, offset + len(line)
        rest = line
        while len(line) > LONGEST_ROW and rest and not rest.endswith(b"\n"):
            rest = stream.readline(LONGEST_ROW)
            offset += len(rest)
        if start == 0 and line.startswith(codecs.BOM_UTF8):
            start, line = 3, line[3:]
        yield start, line


# ---- JSONL


def scan_jsonl(stream: BinaryIO, name: str) -> Iterator[Item]:
    """The lines of a JSONL stream; `name` is what problems call it."""
    number = 0
    try:
        for start, line in lines(stream):
            number += 1
            if not line.strip(BLANK):
                yield Item(number)
                continue
            row, field, message = parse(line)
            if row is None:
                yield Item(number, problems=(Problem(name, number, field, message),))
            else:
                yield Item(number, row, start=start)
    except BROKEN_GZIP as error:
        yield Item(number + 1, problems=(_breaks_off(name, number, error),))


def _breaks_off(name: str, number: int, error: Exception) -> Problem:
    if isinstance(error, EOFError):
        message = "the compressed file breaks off here"
    elif isinstance(error, gzip.BadGzipFile) and "Not a gzipped file" in str(error):
        message = "other data follows the compressed part" if number else "is not a gzip file"
    elif isinstance(error, gzip.BadGzipFile | zlib.error):
        message = f"the compressed file is damaged here or before ({error})"
    else:
        message = f"cannot be read: {getattr(error, 'strerror', None) or error}"
    return Problem(name, number + 1, "", message)


class _Twice(ValueError):
    """A key that an object holds twice."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _Twice(next(key for key in keys if keys.count(key) > 1))
    return made


_DECODER = json.JSONDecoder(object_pairs_hook=_object)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def parse(line: bytes) -> tuple[dict[str, Any] | None, str, str]:
    """(row, "", "") of a line of JSON, or (None, field, what is wrong with it)."""
    if len(line) > LONGEST_ROW:
        return None, "", f"the line is longer than {LONGEST_ROW // 2**20} MiB"
    try:
        row = _DECODER.decode(line.rstrip(BLANK).decode("utf-8"))
    except UnicodeDecodeError as error:
        return None, "", f"not UTF-8 (byte {error.start + 1} of the line)"
    except json.JSONDecodeError as error:
        return None, "", f"not JSON: {error.msg} (column {error.colno})"
    except _Twice as error:
        return None, short(str(error)), "is there twice"
    except RecursionError:
        return None, "", f"is nested more than {DEEPEST} deep"
    except ValueError:
        return None, "", "a number has too many digits"
    if not isinstance(row, dict):
        return None, "", f"a JSON object is needed, not {what(row)}"
    # What parses here must also parse and encode later, with less stack left.
    if line.count(b"[") + line.count(b"{") > DEEPEST and _deeper(row, DEEPEST):
        return None, "", f"is nested more than {DEEPEST} deep"
    if _SURROGATE.search(line):
        for key, value in row.items():
            try:
                json.dumps({key: value}, ensure_ascii=False).encode()
            except UnicodeEncodeError:
                return None, short(key), "holds half a character (a lone surrogate)"
    return row, "", ""


def _deeper(value: Any, left: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return left == 0 or any(_deeper(item, left - 1) for item in inner)


# ---- CSV


def scan_csv(stream: BinaryIO, name: str) -> Iterator[Item]:
    """The rows of a CSV stream with a header; each has the number of the line on which it starts."""
    # The limit belongs to the whole process, so it is only ever raised.
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_ROW))
    faults: list[Problem] = []
    reader = csv.reader(_csv_text(stream, name, faults), strict=True)
    header: list[str] | None = None
    while True:
        number = reader.line_num + 1
        cells: list[str] | None = None
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            broken = (
                "a quote is opened and not closed" if "end of data" in str(error) else f"not CSV: {error}"
            )
            faults.append(Problem(name, number, "", broken))
        except BROKEN_GZIP as error:
            yield Item(number, problems=(_breaks_off(name, reader.line_num, error),))
            return
        if faults or cells is None:
            yield Item(number, problems=tuple(faults))
            faults.clear()
            # Without the header no row can be told.
            if header is None:
                return
        elif not cells:
            yield Item(number)
        elif header is None:
            header = cells
            twice = sorted({column for column in cells if cells.count(column) > 1})
            if twice:
                yield Item(
                    number, problems=tuple(Problem(name, number, short(c), "is there twice") for c in twice)
                )
                return
        elif len(cells) != len(header):
            fault = Problem(name, number, "", f"has {len(cells)} fields, but the header has {len(header)}")
            yield Item(number, problems=(fault,))
        else:
            yield Item(number, dict(zip(header, cells, strict=True)))


def _csv_text(stream: BinaryIO, name: str, faults: list[Problem]) -> Iterator[str]:
    for number, (_, line) in enumerate(lines(stream), 1):
        if len(line) > LONGEST_ROW:
            faults.append(Problem(name, number, "", f"the line is longer than {LONGEST_ROW // 2**20} MiB"))
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError as error:
            faults.append(Problem(name, number, "", f"not UTF-8 (byte {error.start + 1} of the line)"))
            yield line.decode("utf-8", "replace")


# ---- Parquet and the Hub


def _parquet_rows(path: str) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, buffer_size=2**18, page_checksum_verification=True) as file:
        names = file.schema_arrow.names
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"the column {named(twice[0])} is there twice")
        for batch in file.iter_batches(batch_size=64, use_threads=False):
            yield from batch.to_pylist()


def _hub_rows(path: str) -> Iterator[dict[str, Any]]:
    import datasets

    name, _, split = path.removeprefix(HUB).partition(":")
    yield from datasets.load_dataset(name, split=split or "train", streaming=True)


def _scan_foreign(rows: Iterator[dict[str, Any]], name: str, advice: str) -> Iterator[Item]:
    number = 0
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        # Arrow has a dozen exceptions of its own for bad bytes, and `datasets` passes on those of five libraries.
        except Exception as error:
            first = next(iter(str(error).strip().splitlines()), type(error).__name__)
            fault = Problem(name, number and number + 1, "", f"{advice} ({first[:200]})")
            yield Item(number + 1, problems=(fault,))
            return
        number += 1
        made, faults = {}, []
        for key, value in row.items():
            try:
                made[key] = _as_json(value)
            except UnicodeEncodeError:
                faults.append(Problem(name, number, short(key), "holds half a character (a lone surrogate)"))
            except TypeError as error:
                faults.append(
                    Problem(name, number, short(key), f"holds {error}, not text or numbers; drop the column")
                )
        yield Item(number, problems=tuple(faults)) if faults else Item(number, made)


def _as_json(value: Any, left: int = DEEPEST) -> Any:
    """A value of Arrow as one of JSON. Raises TypeError when there is none, UnicodeEncodeError for bad text."""
    if isinstance(value, str):
        value.encode()
        return value
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, dict | list | tuple) and left == 0:
        raise TypeError(f"values nested more than {DEEPEST} deep")
    if isinstance(value, dict):
        return {str(key): _as_json(item, left - 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(item, left - 1) for item in value]
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal | datetime.timedelta):
        return str(value)
    raise TypeError(type(value).__name__)
