"""Passages of a corpus: checked once, then read from disk by number, whatever the size of the corpus.

A folder of passages holds `passages.jsonl` (id, title and text of each), where each line starts, and the hashes of the
titles in order, so that what is held in memory is what is asked for.
"""

from __future__ import annotations

import hashlib
import json
import operator
import os
import unicodedata
import weakref
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from heedful.atomic import write_folder, writing
from heedful.data.formats import cannot_open, scan
from heedful.data.problems import Problem, named, printable, what
from heedful.errors import HeedfulError
from heedful.manifest import sha256_of

COLUMNS: dict[str, tuple[str, ...]] = {
    "id": ("id", "_id", "docid", "doc_id", "pid"),
    "title": ("title", "name"),
    "text": ("text", "contents", "content", "body", "passage"),
}
"""What a column may be called; the first that a row has counts. Only the text is needed."""
SHOWN = 20
FACTS = "facts.json"


class Passage(NamedTuple):
    """One passage. The title is what gold titles of questions name; it may be empty, the text may not."""

    id: str
    title: str
    text: str

    @property
    def words(self) -> str:
        """What is searched: the title and the text."""
        return f"{self.title}\n{self.text}" if self.title else self.text


class Passages(Sequence[Passage]):
    """The passages of a folder that `write_passages` made, by number from 0; threads and forked processes may share it.

    `facts` is what was found while they were read: counts, and where they come from.
    Raises HeedfulError when the folder holds none.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.facts: dict[str, Any] = json.loads((folder / FACTS).read_bytes())
            self._starts = np.load(folder / "starts.npy", mmap_mode="r", allow_pickle=False)
            self._hashes = np.load(folder / "titles.npy", mmap_mode="r", allow_pickle=False)
            self._order = np.load(folder / "order.npy", mmap_mode="r", allow_pickle=False)
            self._descriptor = os.open(folder / "passages.jsonl", os.O_RDONLY)
        except (OSError, ValueError) as error:
            raise HeedfulError(f"{folder} holds no passages ({error}); make the index again") from error
        weakref.finalize(self, os.close, self._descriptor)

    @property
    def content(self) -> str:
        """A hash of all passages in their order."""
        return str(self.facts["content"])

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        at = operator.index(i)
        at += len(self) if at < 0 else 0
        if not 0 <= at < len(self):
            raise IndexError(i)
        start, end = int(self._starts[at]), int(self._starts[at + 1])
        return Passage(*json.loads(os.pread(self._descriptor, end - start, start)))

    def read(self, first: int, last: int) -> list[Passage]:
        """Passages `first` to `last` (excluded), in one read."""
        last = min(last, len(self))
        start, end = int(self._starts[first]), int(self._starts[last])
        left, parts = end - start, []
        while left:  # one pread may give less than asked for
            parts.append(os.pread(self._descriptor, left, end - left))
            if not parts[-1]:
                raise HeedfulError(f"{self.folder / 'passages.jsonl'} is cut short; make the index again")
            left -= len(parts[-1])
        return [Passage(*json.loads(line)) for line in b"".join(parts).split(b"\n")[:-1]]

    def numbers(self, title: str) -> list[int]:
        """The numbers of all passages of this title, in order; titles are compared as `plain_title` has them."""
        wanted = plain_title(title)
        key = np.uint64(_hash(wanted))
        first, last = np.searchsorted(self._hashes, key, "left"), np.searchsorted(self._hashes, key, "right")
        found = [int(n) for n in self._order[first:last]]
        return [n for n in found if plain_title(self[n].title) == wanted]


def plain_title(title: str) -> str:
    """A title as titles are compared: composed characters, single spaces, capitals as they are."""
    return " ".join(unicodedata.normalize("NFC", title).split())


def write_passages(source: str | Path, folder: Path, *, drop_faulty: bool = False) -> Passages:
    """Read a corpus file (JSONL, CSV, both also .gz, Parquet, or hub:owner/name) into a folder, or find it there.

    drop_faulty: rows without text, or with a title that is none, are left out and counted; rows that cannot be read
    stop it still. Raises HeedfulError with everything that is wrong, as file:line (the first 20 and how many more).
    """
    source = str(source)
    if (folder / FACTS).is_file():
        return Passages(folder)
    if fault := cannot_open(source):
        raise HeedfulError(printable(f"{source}: {fault}"))
    stamp = stamp_of(source)

    def fill(beside: Path) -> None:
        facts = _fill(source, beside, drop_faulty)
        if stamp_of(source) != stamp:
            raise HeedfulError(printable(f"{source}: was changed while it was read; start again"))
        (beside / FACTS).write_text(json.dumps({"source": source, **stamp, **facts}, ensure_ascii=False))

    write_folder(folder, fill)
    return Passages(folder)


def stamp_of(source: str) -> dict[str, Any]:
    """What tells that a file is still the same: size, time of change and sha256; nothing of data on the Hub."""
    path = Path(source)
    if not path.is_file():
        return {}
    status = path.stat()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": sha256_of(path)}


def changed(facts: Mapping[str, Any], source: str | Path) -> bool:
    """Whether a corpus has other content than when passages with these facts were read; one on the Hub is known by its
    name alone. Raises HeedfulError when there is no such corpus."""
    if fault := cannot_open(str(source)):
        raise HeedfulError(printable(f"{source}: {fault}"))
    path = Path(source)
    if not path.is_file() or "sha256" not in facts:
        return str(source) != facts["source"]
    status = path.stat()
    if (status.st_size, status.st_mtime_ns) == (facts["size"], facts["mtime_ns"]):
        return False
    return sha256_of(path) != facts["sha256"]


def _fill(source: str, folder: Path, drop_faulty: bool) -> dict[str, Any]:
    starts, hashes = array("Q", [0]), array("Q")
    content = hashlib.sha256()
    problems: list[Problem] = []
    unreadable = False
    count = dropped = without_title = 0
    with writing(folder), (folder / "passages.jsonl").open("wb", 2**20) as out:
        for item in scan(source):
            if item.problems:
                problems += item.problems
                unreadable = True
                continue
            if item.row is None:
                continue
            passage, faults = _passage(item.row, source, item.line, count + dropped)
            if faults:
                problems += faults
                dropped += 1
                continue
            without_title += not passage.title
            line = json.dumps(list(passage), ensure_ascii=False).encode("utf-8", "replace") + b"\n"
            out.write(line)
            content.update(line)
            starts.append(starts[-1] + len(line))
            hashes.append(_hash(plain_title(passage.title)))
            count += 1
    if problems and (unreadable or not drop_faulty or not count):
        more = f"\n… and {len(problems) - SHOWN:,} more" if len(problems) > SHOWN else ""
        hint = "" if unreadable or not count else "\n--drop-faulty-rows leaves such rows out and counts them"
        raise HeedfulError("\n".join(map(str, problems[:SHOWN])) + more + hint)
    if not count:
        raise HeedfulError(printable(f"{source}: there is no passage in it"))
    keys = np.frombuffer(hashes, np.uint64)
    order = np.argsort(keys, kind="stable").astype(np.int64)
    np.save(folder / "starts.npy", np.frombuffer(starts, np.uint64), allow_pickle=False)
    np.save(folder / "titles.npy", keys[order], allow_pickle=False)
    np.save(folder / "order.npy", order, allow_pickle=False)
    _, times = np.unique(keys, return_counts=True)
    same = int((times - 1).sum()) - max(0, without_title - 1)
    return {
        "content": content.hexdigest(),
        "passages": count,
        "left_out": dropped,
        "without_title": without_title,
        "titles_again": same,
    }


def _passage(row: Mapping[str, Any], source: str, line: int, number: int) -> tuple[Passage, list[Problem]]:
    problems = []

    def value(name: str) -> Any:
        return next((row[column] for column in COLUMNS[name] if row.get(column) is not None), None)

    text, title, key = value("text"), value("title"), value("id")
    if isinstance(text, list) and all(isinstance(part, str) for part in text):
        text = " ".join(part.strip() for part in text)  # sentences, as HotpotQA's corpus has them
    if text is None:
        have = ", ".join(map(named, list(row)[:5])) or "nothing"
        problems.append(Problem(source, line, "text", f"is missing; the row has {have}"))
    elif not isinstance(text, str):
        problems.append(Problem(source, line, "text", f"is {what(text)}, not text"))
    elif not text.strip():
        problems.append(Problem(source, line, "text", "is empty"))
    if title is not None and not isinstance(title, str):
        problems.append(Problem(source, line, "title", f"is {what(title)}, not text"))
    if key is not None and (isinstance(key, bool) or not isinstance(key, str | int)):
        problems.append(Problem(source, line, "id", f"is {what(key)}, not text or a whole number"))
    if problems:
        return Passage("", "", ""), problems
    return Passage(str(number if key is None else key), (title or "").strip(), str(text).strip()), []


def _hash(title: str) -> int:
    data = title.encode("utf-8", "replace")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def chunks(passages: Passages, size: int) -> Iterator[tuple[int, list[Passage]]]:
    """(number of the first, passages) of each part of at most `size`."""
    for first in range(0, len(passages), size):
        yield first, passages.read(first, first + size)
