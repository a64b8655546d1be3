"""A LeRobotDataset whose files are elsewhere and more than the disk holds: brought as needed, the oldest let go.

`meta/` is brought whole. A file of frames is brought when it is first read and removed when the cache is over its size,
the one that was not used for longest first. Read in the order of `episodes.loader.permutation` with groups, each file
is brought about once an epoch. Each data set that is opened has a folder of its own in the cache, locked while it is
open; those of this machine that nobody has locked any more are removed at the next opening.
"""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import tempfile
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from heedful.atomic import appearing, make_folder, writing
from heedful.data.episodes.lerobot import LeRobotEpisodes
from heedful.errors import HeedfulError

MEGABYTE = 1024 * 1024
LOCK = ".heedful-cache"
"""A folder of the cache without this file is not ours."""
Fetch = Callable[[str, Path], None]


class StreamedEpisodes(LeRobotEpisodes):
    """`Episodes` of files that `fetch(name, place)` puts into the cache folder `path`; `fetched` counts how often.

    Raises HeedfulError for a file that alone is larger than the cache.
    """

    def __init__(self, path: Path, fetch: Fetch, limit_mb: float) -> None:
        self._fetch, self._limit = fetch, limit_mb * MEGABYTE
        self._held: OrderedDict[Path, int] = OrderedDict()
        self.fetched = 0
        super().__init__(path)

    def need(self, file: Path) -> None:
        """Bring a file if it is not there, and let others go for it."""
        if file in self._held:
            self._held.move_to_end(file)
            return
        name = str(file.relative_to(self.path))
        try:
            self._fetch(name, file)
        except OSError as error:
            raise HeedfulError(f"{name} cannot be brought to {self.path}: {error}") from error
        self.fetched += 1
        size = self._held[file] = file.stat().st_size
        if size > self._limit:
            raise HeedfulError(
                f"{name} has {size:,} bytes, more than the cache of {self._limit:,.0f} may hold"
            )
        while sum(self._held.values()) > self._limit:
            old = next(iter(self._held))
            del self._held[old]
            self._columns.forget(old)
            self._videos.forget(old)
            old.unlink(missing_ok=True)

    def file_of(self, i: int) -> Path:
        """The file that most of episode `i` is in: its first video, else its table."""
        cameras = [c for c in self.info.cameras if self.info.features[c].dtype == "video"]
        return self.video_of(i, cameras[0])[0] if cameras else self.table_of(i)[0]

    @property
    def bytes_held(self) -> int:
        """Bytes of frames in the cache now."""
        return sum(self._held.values())


def stream(names: Iterable[str], fetch: Fetch, cache: Path, limit_mb: float) -> StreamedEpisodes:
    """Open a data set of the files `names`, which `fetch` brings. Raises HeedfulError where meta/ is not among them."""
    meta = [name for name in names if name.startswith("meta/")]
    if "meta/info.json" not in meta:
        raise HeedfulError("there is no meta/info.json: a LeRobotDataset is needed for streaming")
    make_folder(cache)
    _remove_abandoned(cache)
    place, lock = _own_folder(cache)
    try:
        for name in meta:
            if not (place / name).resolve().is_relative_to(place.resolve()):
                raise HeedfulError(f"{name!r} lies outside the data set")
            fetch(name, place / name)
        episodes = StreamedEpisodes(place, fetch, limit_mb)
    except BaseException:
        os.close(lock)
        raise
    weakref.finalize(episodes, os.close, lock)
    return episodes


def stream_folder(source: Path, cache: Path, limit_mb: float) -> StreamedEpisodes:
    """Stream a data set from a folder that is slow to read, such as one mounted from another machine."""
    if not source.is_dir():
        raise HeedfulError(f"{source}: there is no such folder")

    def fetch(name: str, place: Path) -> None:
        with (source / name).open("rb") as given, appearing(place) as out:
            shutil.copyfileobj(given, out, MEGABYTE)

    names = [str(p.relative_to(source)) for p in sorted((source / "meta").rglob("*")) if p.is_file()]
    return stream(names, fetch, cache, limit_mb)


def _own_folder(cache: Path) -> tuple[Path, int]:
    """A new folder in the cache and the descriptor whose lock says that it is in use."""
    with writing(cache):
        place = Path(tempfile.mkdtemp(prefix=f"{_kind()}-{os.getpid()}-", dir=cache))
        descriptor = os.open(place / f"{LOCK}.new", os.O_RDWR | os.O_CREAT, 0o666)
        # A disk that knows no locks refuses them to those who would remove the folder too.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Under its name only once it is locked: no other process may take it for abandoned in between.
        os.replace(place / f"{LOCK}.new", place / LOCK)
    return place, descriptor


def _remove_abandoned(cache: Path) -> None:
    """Remove the folders of this machine whose lock is free; other machines' locks may not be seen from here."""
    for folder in cache.iterdir():
        if folder.name.rsplit("-", 2)[0] != _kind():
            continue
        with suppress(OSError):
            descriptor = os.open(folder / LOCK, os.O_RDWR)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)


def _kind() -> str:
    return f"heedful-{platform.node()}"
