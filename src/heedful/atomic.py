"""Files that are either the old ones or the new ones, whole, whenever the process or the machine stops.

Everything is written beside its place under a temporary name, flushed to the disk, renamed once, and the
folder that holds the name is flushed too. Calls go through `os` so that tests can stop at each of them.
"""

from __future__ import annotations

import errno
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from heedful.errors import HeedfulError

ABANDONED = 24 * 3600
"""Seconds after which what a killed process had begun is removed."""
REASONS = {
    errno.ENOSPC: "no space is left on the device; free some",
    errno.EDQUOT: "the disk quota is used up; free some space",
    errno.EROFS: "the file system is read-only; make it writable or choose another output folder",
    errno.EACCES: "permission denied; make it writable or choose another output folder",
    errno.EPERM: "not permitted; make it writable or choose another output folder",
    errno.EIO: "the disk reports an input/output error; choose another one",
}


def cannot_write(path: Path, error: OSError) -> HeedfulError:
    """The error a user can act on for a failed write to `path`."""
    reason = REASONS.get(error.errno or 0, error.strerror or str(error))
    return HeedfulError(
        f"cannot write {path}: {reason}, then run the same command again: finished work is kept"
    )


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an `OSError` of the block into a `HeedfulError` that names `path`."""
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from error


def sync(path: Path) -> None:
    """Flush a file's or a folder's content to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes) -> None:
    """`os.write` until everything is written; a short write is continued."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def make_folder(path: Path) -> None:
    """Create `path` and its parents. Raises `HeedfulError` when a part of it is a file or cannot be made."""
    with writing(path):
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        for folder in reversed(missing):
            with suppress(FileExistsError):
                os.mkdir(folder)
            sync(folder.parent)
    if not path.is_dir():
        raise HeedfulError(f"{path} is a file; a folder is needed there: choose another name")


def write_file(path: Path, data: bytes) -> None:
    """Put `data` at `path`: afterwards the old or the new content is there, never a part.

    Raises `HeedfulError` naming the path when the disk is full or read-only; the old content then stays.
    """
    make_folder(path.parent)
    beside = path.with_name(f".{path.name}.tmp")
    try:
        with writing(path):
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            try:
                write_all(descriptor, data)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.replace(beside, path)
            sync(path.parent)
    except HeedfulError:
        with suppress(OSError):
            os.unlink(beside)
        raise


def write_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Put a folder of flat files at `path`: `fill` writes them beside, then one rename makes them visible.

    A folder that is already there is replaced. `fill` may raise `OSError`; it comes back as `HeedfulError`,
    what was written is removed (it may be what filled the disk), and nothing at `path` has changed.
    """
    make_folder(path.parent)
    beside = path.with_name(f".{path.name}.tmp")
    try:
        with writing(path):
            remove_folder(beside)
            os.mkdir(beside)
            fill(beside)
            for file in sorted(beside.iterdir()):
                sync(file)
            sync(beside)
            remove_folder(path)
            os.rename(beside, path)
            sync(path.parent)
    except HeedfulError:
        with suppress(OSError):
            remove_folder(beside)
        raise


def remove_folder(path: Path) -> None:
    """Remove a folder of flat files; a missing one is fine. Raises `OSError`."""
    if not path.exists():
        return
    # Names sort meta.json before model.safetensors: a half-removed checkpoint is never taken for a whole one.
    for file in sorted(path.iterdir()):
        os.unlink(file)
    os.rmdir(path)


@contextmanager
def appearing(path: Path) -> Iterator[BinaryIO]:
    """A file that is at `path` once the block has ended well; several processes may make the same one at once."""
    make_folder(path.parent)
    for old in path.parent.glob(f".{path.name}.*.tmp"):
        # A process that was killed cannot remove what it had begun.
        with suppress(OSError):
            if time.time() - old.stat().st_mtime > ABANDONED:
                old.unlink()
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with writing(path):
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            with os.fdopen(descriptor, "wb", 2**18) as stream:
                yield stream
                stream.flush()
                os.fsync(descriptor)
            os.replace(beside, path)
            sync(path.parent)
    except BaseException:
        with suppress(OSError):
            os.unlink(beside)
        raise
