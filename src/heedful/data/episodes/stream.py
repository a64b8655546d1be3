"""A LeRobotDataset whose files are elsewhere and more than the disk holds: brought as needed, the oldest let go.

`meta/` is brought whole. A file of frames is brought when it is first read and removed when the cache is over its size,
the one that was not used for longest first. Read in the order of `episodes.loader.permutation` with groups, each file
is brought about once an epoch. One process has one cache folder; workers each get one beside it.
"""

from __future__ import annotations

import os
import shutil
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path

from heedful.atomic import appearing, make_folder
from heedful.data.episodes.lerobot import LeRobotEpisodes
from heedful.errors import HeedfulError

MEGABYTE = 1024 * 1024
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
    place = cache / f"{os.getpid()}"
    _remove_abandoned(cache)
    shutil.rmtree(place, ignore_errors=True)
    make_folder(place)
    meta = [name for name in names if name.startswith("meta/")]
    if "meta/info.json" not in meta:
        raise HeedfulError("there is no meta/info.json: a LeRobotDataset is needed for streaming")
    for name in meta:
        if not (place / name).resolve().is_relative_to(place.resolve()):
            raise HeedfulError(f"{name!r} lies outside the data set")
        fetch(name, place / name)
    return StreamedEpisodes(place, fetch, limit_mb)


def stream_folder(source: Path, cache: Path, limit_mb: float) -> StreamedEpisodes:
    """Stream a data set from a folder that is slow to read, such as one mounted from another machine."""
    if not source.is_dir():
        raise HeedfulError(f"{source}: there is no such folder")

    def fetch(name: str, place: Path) -> None:
        with (source / name).open("rb") as given, appearing(place) as out:
            shutil.copyfileobj(given, out, MEGABYTE)

    names = [str(p.relative_to(source)) for p in sorted((source / "meta").rglob("*")) if p.is_file()]
    return stream(names, fetch, cache, limit_mb)


def _remove_abandoned(cache: Path) -> None:
    """Remove the folders of processes that are no more."""
    for folder in cache.iterdir() if cache.is_dir() else ():
        if folder.name.isdigit() and not Path(f"/proc/{folder.name}").exists() and Path("/proc").exists():
            shutil.rmtree(folder, ignore_errors=True)
