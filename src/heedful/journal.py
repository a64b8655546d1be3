"""An append-only JSONL file that several programs write to: an entry is on the disk before the call that adds it
returns.

A line that a kill or a full disk has left torn was never confirmed to anyone, and is cut off at the next write.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from heedful.atomic import make_folder, sync, write_all, writing
from heedful.errors import HeedfulError

Entry = Mapping[str, Any]


class Journal:
    """The entries of the file at `path`; each is handed to `apply` once, in order, whoever wrote it.

    apply(entries) goes through (entry, where), as many as are new; `where` is file:line. It may raise HeedfulError for
    an entry that it cannot take, which is handed to it again next time. Use `writing_to` to append, so that what is
    decided from the entries so far is decided with all of them.
    """

    def __init__(self, path: Path, apply: Callable[[Iterable[tuple[dict[str, Any], str]]], None]) -> None:
        self.path, self._apply = path, apply
        self._at, self._line = 0, 0
        self._lock = threading.RLock()
        self.refresh()

    def refresh(self) -> None:
        """Apply the entries that were appended since. Raises HeedfulError with the line where the file is damaged."""
        with self._lock:
            if self.path.exists():
                with self.path.open("rb") as stream:
                    stream.seek(self._at)
                    self._take(stream.read())

    @contextmanager
    def writing_to(self) -> Iterator[Callable[[Sequence[Entry]], None]]:
        """Inside, no other program writes, all entries have been applied, and the value appends more.

        It returns when they are on the disk, all or none of them. Raises HeedfulError when the disk is full or
        read-only.
        """
        with self._lock:
            make_folder(self.path.parent)
            with writing(self.path):
                descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                self.refresh()
                if os.fstat(descriptor).st_size > self._at:
                    with writing(self.path):
                        os.ftruncate(descriptor, self._at)
                yield lambda entries: self._append(descriptor, entries)
            finally:
                os.close(descriptor)

    def _append(self, descriptor: int, entries: Sequence[Entry]) -> None:
        data = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries).encode()
        with writing(self.path):
            try:
                write_all(descriptor, data)
                os.fsync(descriptor)
                sync(self.path.parent)
            except OSError:
                os.ftruncate(descriptor, self._at)
                raise
        self._take(data)

    def _take(self, data: bytes) -> None:
        self._apply(self._entries(data[: data.rfind(b"\n") + 1]))

    def _entries(self, whole: bytes) -> Iterator[tuple[dict[str, Any], str]]:
        for line in whole.splitlines(keepends=True):
            where = f"{self.path}:{self._line + 1}"
            try:
                entry = json.loads(line) if line.strip() else None
            except ValueError as error:
                raise HeedfulError(f"{where}: not JSON ({error}); remove the line") from error
            if entry is not None and not isinstance(entry, dict):
                raise HeedfulError(f"{where}: no JSON object; remove the line")
            if entry is not None:
                yield entry, where
            self._line += 1
            self._at += len(line)
