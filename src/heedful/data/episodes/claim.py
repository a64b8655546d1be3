"""One writer at a time in the folder of a data set, and what one that was killed in its first episode leaves there."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

from heedful.atomic import sync, writing
from heedful.data.episodes.pack import WORK
from heedful.errors import HeedfulError

LOCK = ".writing"
FIRST = b"no episode counts yet\n"
"""What the lock file says from the opening of an empty folder until its first episode counts."""
PARTS = ("data", "videos", "meta")
BEGUN = (
    "data/chunk-000/file-000.parquet",
    "videos/*/chunk-000/file-000.mp4",
    "meta/episodes/chunk-000/file-000.parquet",
    "meta/tasks.parquet",
    "meta/stats.json",
)
"""All that there can be of a first episode before it counts."""


def lock_folder(folder: Path) -> int:
    """The descriptor that keeps other writers out until it is closed. Raises HeedfulError where one is at work."""
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise HeedfulError(
            f"{folder} is being written by another process: wait, or choose another folder"
        ) from None
    return descriptor


def begin_first(folder: Path) -> None:
    """Make a folder without meta/info.json ready for a first episode: what a killed writer had begun of one goes.

    Raises HeedfulError naming a file that no such writer has left; nothing is then removed.
    """
    others = [p for p in folder.iterdir() if p.name not in (WORK, LOCK, *PARTS)]
    if others:
        raise HeedfulError(f"{folder} is no data set and not empty ({others[0].name} is in it)")
    files = [
        p for part in PARTS for p in sorted((folder / part).rglob("*")) if p.is_symlink() or not p.is_dir()
    ]
    ours = (folder / LOCK).read_bytes() == FIRST
    foreign = [p for p in files if not (ours and _begun(p.relative_to(folder)))]
    if foreign:
        raise HeedfulError(
            f"{folder} has no meta/info.json, and {foreign[0].relative_to(folder)} is in it: choose an empty folder. "
            "Where this was a data set, put its meta/info.json back; to begin anew, move data/, videos/ and meta/ away"
        )
    with writing(folder):
        for file in files:
            file.unlink()
        shutil.rmtree(folder / WORK, ignore_errors=True)
        (folder / LOCK).write_bytes(FIRST)
        sync(folder / LOCK)


def end_first(folder: Path) -> None:
    """Note that an episode counts: from here on nothing is removed where meta/info.json is lost."""
    with writing(folder / LOCK):
        (folder / LOCK).write_bytes(b"")


def _begun(name: Path) -> bool:
    unfinished = name.name.startswith(".") and name.suffix == ".tmp"
    return unfinished or any(name.match(pattern) for pattern in BEGUN)
