"""Rows of preference pairs, completions or prompts, from files of any size.

`read` streams the rows of a file as they are. `open_rows` checks a file and gives its canonical rows by number,
read from disk one at a time: what is held in memory is where they start, 8 bytes a row.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import operator
import os
import shutil
import tempfile
import weakref
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from heedful.atomic import appearing
from heedful.data.formats import BLANK, LONGEST_ROW, cannot_open, lines, parse, scan, scan_jsonl
from heedful.data.normalise import COLUMNS, KINDS, Kind, normalise
from heedful.data.problems import HUB, Problem, format_of, place, printable
from heedful.data.validate import Checker, FileReport, Report, listed
from heedful.errors import HeedfulError


def parse_columns(columns: Sequence[str]) -> dict[str, str]:
    """The file's name for each canonical column, from `("prompt=instruction", "chosen=good")`.

    Only the columns that heedful itself reads have a canonical name; what a judge receives beside them keeps the
    name it has in the file. Raises HeedfulError for anything that is not `name=column`, an unknown name, and a
    name or a column that comes twice.
    """
    known: dict[str, str] = {}
    for text in columns:
        name, equals, theirs = (part.strip() for part in text.partition("="))
        if not name or not equals or not theirs:
            raise HeedfulError(f"--columns {text!r}: write name=column, such as prompt=instruction")
        if name not in COLUMNS:
            near = difflib.get_close_matches(name, COLUMNS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(COLUMNS)}"
            raise HeedfulError(f"--columns {text!r}: there is no column {name!r} to map to; {hint}")
        if name in known or theirs in known.values():
            raise HeedfulError(f"--columns {text!r}: {name if name in known else theirs} is mapped twice")
        known[name] = theirs
    return known


def read(path: str | Path) -> Iterator[dict[str, Any]]:
    """The rows of a file as they are, one at a time; blank lines are passed over.

    Raises HeedfulError, with the place, at the first line that cannot be read.
    """
    for item in scan(str(path)):
        if item.problems:
            raise HeedfulError(str(item.problems[0]))
        if item.row is not None:
            yield item.row


class Rows:
    """The canonical rows of a checked file, read from disk when asked for; make one with `open_rows`.

    It has a length, is indexed by whole numbers (negative ones count from the end) and can be iterated over.
    `report` is what the check found: counts, lengths and warnings. Threads and forked processes may share it.
    """

    def __init__(
        self,
        path: str,
        file: Path,
        starts: array[int],
        kind: Kind,
        columns: Mapping[str, str],
        report: FileReport,
    ) -> None:
        import numpy as np

        self.path, self.report = path, report
        self._file, self._columns = file, columns
        self._kind: Kind = kind
        self._text = format_of(path).startswith("csv")
        self._descriptor = os.open(file, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)
        status = os.fstat(self._descriptor)
        self._stamp = _stamp(status)
        starts.append(status.st_size)
        self._starts = np.frombuffer(starts, np.uint64)

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, i: int) -> dict[str, Any]:
        """Row `i`. Raises IndexError beyond the end, HeedfulError when the file has changed since it was checked."""
        at = operator.index(i)
        at += len(self) if at < 0 else 0
        if not 0 <= at < len(self):
            raise IndexError(f"{self.path}: there is no row {i}, only {len(self)}")
        start, end = int(self._starts[at]), int(self._starts[at + 1])
        row, *_ = parse(os.pread(self._descriptor, end - start, start).rstrip(BLANK))
        made = None if row is None else normalise(row, self._kind, self._columns, text=self._text)
        if made is None or not made.valid or _stamp(os.fstat(self._descriptor)) != self._stamp:
            raise HeedfulError(printable(f"{self._file}: has changed since it was checked; start again"))
        return made.row

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[i] for i in range(len(self)))

    def where(self, i: int) -> str:
        """File and place of row `i`, as an error names it. It counts lines, so it is for errors only."""
        line = i + 1
        if self._file == Path(self.path):
            with self._file.open("rb") as stream:
                left, line = int(self._starts[i]), 1
                while left and (data := stream.read(min(left, 2**20))):
                    line += data.count(b"\n")
                    left -= len(data)
        elif self._text or format_of(self.path) == "jsonl.gz":
            return printable(f"{self.path}: row {line}")
        return printable(f"{self.path}:{place(self.path, line)}")


def _stamp(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


def open_rows(
    path: str | Path,
    kind: str,
    columns: Mapping[str, str] | None = None,
    cache: str | Path | None = None,
    *,
    drop_faulty: bool = False,
) -> Rows:
    """Check a file and give its rows by number.

    JSONL is read where it lies. Everything else is converted once, as a stream, to a JSONL file in the folder
    `cache`, named by its content and found there again later (a Hub data set by its name: the first copy stays);
    without `cache`, in a temporary folder that goes away with the rows. drop_faulty: rows that can be read but have
    an error are left out and counted in `report.faulty_rows`; JSONL is then converted too.

    Raises HeedfulError listing what is wrong with the file (the first 20 errors and how many more there are), when
    there is no such kind, when the file changes meanwhile, and when the disk is full.
    """
    path = str(path)
    if kind not in KINDS:
        raise HeedfulError(f"there is no kind of rows {kind!r}; choose one of {', '.join(KINDS)}")
    fault = cannot_open(path)
    if fault:
        raise HeedfulError(printable(f"{path}: {fault}"))
    try:
        checker = Checker(path, kind, columns)
        return _open(path, checker, columns or {}, Path(cache) if cache else None, drop_faulty)
    except OSError as error:
        raise HeedfulError(printable(f"{path}: cannot be read: {error}")) from error


def _open(
    path: str, checker: Checker, columns: Mapping[str, str], cache: Path | None, drop_faulty: bool
) -> Rows:
    before = None if path.startswith(HUB) else _stamp(os.stat(path))
    folder = None
    if format_of(path) == "jsonl" and not drop_faulty:
        file, starts = Path(path), array("Q")
        for item in scan(path):
            checker.take(item)
            if item.row is not None:
                starts.append(item.start)
        report = _checked(checker)
    else:
        folder = None if cache else Path(tempfile.mkdtemp(prefix="heedful-"))
        try:
            file, starts, report = _converted(path, checker, cache or folder or Path(), drop_faulty)
        except BaseException:
            if folder:
                shutil.rmtree(folder, ignore_errors=True)
            raise
    rows = Rows(path, file, starts, checker.kind or KINDS[0], columns, report)
    if folder:
        weakref.finalize(rows, _remove, folder, os.getpid())
    if before is not None and _stamp(os.stat(path)) != before:
        raise HeedfulError(
            printable(f"{path}: was changed while it was read; start again when it is finished")
        )
    return rows


def _remove(folder: Path, owner: int) -> None:
    """A forked process that ends must not take the folder away from the one that made it."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


def _checked(checker: Checker, drop_faulty: bool = False) -> FileReport:
    report = checker.finish()
    drop_faulty = drop_faulty and not checker.unreadable and report.rows > report.faulty_rows
    if report.errors and not drop_faulty:
        raise HeedfulError(listed(Report([report]), "error"))
    return report


def _converted(
    path: str, checker: Checker, folder: Path, drop_faulty: bool
) -> tuple[Path, array[int], FileReport]:
    """Check `path` and have its rows as JSONL in `folder`, made now or before; with where each starts."""
    target = folder / _cache_name(path, f"{checker.kind}-kept" if drop_faulty else "")
    if target.exists():
        with target.open("rb") as stream:
            for item in scan_jsonl(stream, path) if path.startswith(HUB) else scan(path):
                checker.take(item)
        report = _checked(checker, drop_faulty)
    else:
        with appearing(target) as stream:
            for item in scan(path):
                good = checker.take(item)
                if item.row is not None and (good if drop_faulty else not checker.report.errors):
                    line = json.dumps(item.row, ensure_ascii=False).encode() + b"\n"
                    if len(line) > LONGEST_ROW:
                        checker.add(
                            Problem(path, item.line, "", f"is longer than {LONGEST_ROW // 2**20} MiB")
                        )
                    stream.write(line)
            report = _checked(checker, drop_faulty)
    with target.open("rb") as stream:
        starts = array("Q", (start for start, _ in lines(stream)))
    wanted = report.rows - report.faulty_rows
    if len(starts) != wanted:
        raise HeedfulError(
            f"{target} has {len(starts)} rows, not {wanted} as {path}; delete it and start again"
        )
    return target, starts, report


def _cache_name(path: str, mark: str = "") -> str:
    if path.startswith(HUB):
        return f"rows-{mark}{hashlib.sha256(path.encode()).hexdigest()[:32]}.jsonl"
    with open(path, "rb") as stream:
        # Equal bytes are read differently under another ending.
        kind = format_of(path).replace(".", "-")
        return f"rows-{kind}-{mark}{hashlib.file_digest(stream, 'sha256').hexdigest()[:32]}.jsonl"


def prompt_key(prompt: Any) -> bytes:
    """16 bytes that stand for a canonical prompt, text or messages: equal for equal prompts only."""
    return hashlib.blake2b(json.dumps(prompt, sort_keys=True).encode(), digest_size=16).digest()


def split_by_prompt(
    rows: Iterable[Mapping[str, Any]], share: float, seed: int
) -> tuple[Sequence[int], Sequence[int]]:
    """(training rows, held-out rows) by number, so that all rows of a prompt are on one side.

    Prompts are ranked by a hash of their text and the seed, and the first `share` of them, rounded, is held out: at
    least one and not all of them where there are two or more. The order of the rows plays no part.
    Raises HeedfulError when `share` is not between 0 and 1.
    """
    if not 0 <= share <= 1:
        raise HeedfulError(f"the held-out share must be between 0 and 1, not {share}")
    import numpy as np

    hashes = array("Q")
    for row in rows:
        prompt = json.dumps(row["prompt"], sort_keys=True).encode()
        hashes.frombytes(hashlib.blake2b(prompt, digest_size=8, key=str(seed).encode()).digest())
    if not hashes:
        return array("q"), array("q")
    ranks = np.frombuffer(hashes, np.uint64)
    prompts = np.unique(ranks)
    count = min(max(1, round(share * len(prompts))), len(prompts) - 1)
    held = ranks <= prompts[count - 1] if count else np.zeros(len(ranks), dtype=bool)
    train, out = (array("q", np.flatnonzero(side).astype(np.int64).tobytes()) for side in (~held, held))
    return train, out
