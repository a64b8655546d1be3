"""How long a run took over all its starts, and at which commits: sessions.json in the run folder.

[{"started": "2026-01-31T12:00:00+0000", "commit": "a2ce681…", "seconds": 512.3}, …]
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heedful.atomic import write_file
from heedful.errors import HeedfulError
from heedful.manifest import commit
from heedful.run import Run

NAME = "sessions.json"
EVERY = 20.0
"""Seconds between notes of the time: what a kill can lose."""


@dataclass(frozen=True)
class Spent:
    """Minutes of all starts together, and the commits they ran at, the oldest first."""

    minutes: float
    commits: list[str]


@contextmanager
def session(run: Run, *, every: float = EVERY) -> Iterator[None]:
    """Count the time of the block as one more start of the run, whether it ends well, by an error or by a kill.

    Raises `HeedfulError` when the file cannot be written, or read where an earlier start has left one.
    """
    if run.rank != 0:
        yield
        return
    earlier = _read(run.folder)
    begun, started = time.monotonic(), time.strftime("%Y-%m-%dT%H:%M:%S%z")
    this = {"started": started, "commit": commit() or "unknown"}
    stop = threading.Event()

    def note() -> None:
        rows = [*earlier, {**this, "seconds": round(time.monotonic() - begun, 1)}]
        write_file(run.path(NAME), (json.dumps(rows, indent=1) + "\n").encode())

    def beat() -> None:
        while not stop.wait(every):
            with suppress(HeedfulError):  # a full disk stops the work itself, with its own words
                note()

    note()
    clock = threading.Thread(target=beat, name="sessions", daemon=True)
    clock.start()
    try:
        yield
    finally:
        stop.set()
        clock.join()
        note()


def spent(folder: Path) -> Spent:
    """What the sessions of a run folder add up to."""
    rows = _read(folder)
    return Spent(sum(row["seconds"] for row in rows) / 60, list(dict.fromkeys(row["commit"] for row in rows)))


def _read(folder: Path) -> list[dict[str, Any]]:
    path = folder / NAME
    if not path.exists():
        return []
    try:
        rows = json.loads(path.read_bytes())
        return [
            {"started": r["started"], "commit": r["commit"], "seconds": float(r["seconds"])} for r in rows
        ]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise HeedfulError(f"{path} cannot be read ({error}); delete it to count the time anew") from error
