"""Pictures of a data set a second time, quicker to reach: JPEG one after another, or raw pixels.

A video must be decoded from its last key frame; a JPEG alone, and raw pixels not at all. They cost disk: see
docs/benchmarks.md for bytes a frame beside the speed. A proxy belongs to the very files it was made of; when these
change it is made anew. It lies in a folder of its own, one file of pictures a camera, put in place whole.
"""

from __future__ import annotations

import io
import json
import mmap
import os
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from heedful.atomic import appearing, make_folder, write_file
from heedful.data.episodes import Array, Episode, Episodes, Info, LanguageRow, check_frames
from heedful.data.episodes.copy import resized
from heedful.data.episodes.tables import decode_picture
from heedful.errors import HeedfulError
from heedful.model_folder import read_json

Kind = Literal["jpeg", "raw"]
BATCH = 64


def fingerprint(episodes: Episodes, kind: Kind, size: tuple[int, int] | None, quality: int) -> str:
    """What a proxy was made of: the data set's files with their sizes and times, its cameras, and how it was made."""
    files = (
        [episodes.path]
        if episodes.path.is_file()
        else sorted(p for p in episodes.path.rglob("*") if p.is_file())
    )
    told = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files if not p.name.startswith(".")]
    made = [told, list(episodes.info.cameras), kind, size, quality]
    return sha256(json.dumps(made).encode()).hexdigest()


def with_proxy(
    episodes: Episodes,
    folder: Path,
    kind: Kind = "jpeg",
    *,
    size: tuple[int, int] | None = None,
    quality: int = 90,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ProxyEpisodes:
    """The same episodes with pictures from a proxy in `folder`, which is made if it is not there or is of other files.

    size: (H, W) of its pictures. Raises HeedfulError where a picture cannot be read or the disk is full.
    """
    mark = fingerprint(episodes, kind, size, quality)
    facts = folder / "proxy.json"
    if not facts.exists() or read_json(facts).get("made_of") != mark:
        make_folder(folder)
        facts.unlink(missing_ok=True)
        for camera in episodes.info.cameras:
            _write_camera(episodes, camera, folder, kind, size, quality, progress)
        lengths = [episodes.episode(i).length for i in range(len(episodes))]
        told = {"made_of": mark, "kind": kind, "size": size, "quality": quality, "lengths": lengths}
        write_file(facts, json.dumps(told).encode())
    return ProxyEpisodes(episodes, folder)


def _write_camera(
    episodes: Episodes,
    camera: str,
    folder: Path,
    kind: Kind,
    size: tuple[int, int] | None,
    quality: int,
    progress: Callable[[int, int], None],
) -> None:
    from PIL import Image

    starts = [0]
    with appearing(folder / f"{camera}.pictures") as out:
        for i in range(len(episodes)):
            progress(i, len(episodes))
            length = episodes.episode(i).length
            for first in range(0, length, BATCH):
                for picture in episodes.frames(i, camera, range(first, min(length, first + BATCH))):
                    small = resized(picture, size) if size else picture
                    if kind == "raw":
                        data = small.tobytes()
                    else:
                        held = io.BytesIO()
                        Image.fromarray(small).save(held, "JPEG", quality=quality)
                        data = held.getvalue()
                    out.write(data)
                    starts.append(starts[-1] + len(data))
    with appearing(folder / f"{camera}.starts") as out:
        out.write(np.array(starts, dtype="<i8").tobytes())


class ProxyEpisodes:
    """`Episodes` whose pictures come from a proxy; all else comes from the data set itself."""

    def __init__(self, episodes: Episodes, folder: Path) -> None:
        from dataclasses import replace

        self._of, self._folder = episodes, folder
        told = read_json(folder / "proxy.json")
        self.path, self.layout = episodes.path, f"{episodes.layout}, {told['kind']} proxy"
        self._kind: Kind = told["kind"]
        self._first = np.cumsum([0, *told["lengths"]])
        features = dict(episodes.info.features)
        if told["size"]:
            for camera in episodes.info.cameras:
                features[camera] = replace(features[camera], shape=(*told["size"], 3))
        self.info: Info = replace(episodes.info, features=features)
        self._open: dict[str, tuple[Any, Array]] = {}
        self._process = os.getpid()

    def __len__(self) -> int:
        return len(self._of)

    @property
    def bytes_per_frame(self) -> float:
        """Bytes on disk for one picture."""
        files = [self._folder / f"{camera}.pictures" for camera in self.info.cameras]
        return sum(f.stat().st_size for f in files) / max(1, int(self._first[-1]) * len(files))

    def episode(self, i: int) -> Episode:
        """See `Episodes.episode`."""
        return self._of.episode(i)

    def columns(
        self, i: int, names: Sequence[str] | None = None, start: int = 0, stop: int | None = None
    ) -> dict[str, Array]:
        """See `Episodes.columns`."""
        return self._of.columns(i, names, start, stop)

    def _file(self, camera: str) -> tuple[Any, Array]:
        if self._process != os.getpid():
            self._open, self._process = {}, os.getpid()
        if camera not in self._open:
            starts = np.fromfile(self._folder / f"{camera}.starts", dtype="<i8")
            path = self._folder / f"{camera}.pictures"
            if len(starts) != self._first[-1] + 1 or path.stat().st_size != starts[-1]:
                raise HeedfulError(f"{path} is not whole; remove {self._folder}, and it is made anew")
            with path.open("rb") as file:
                self._open[camera] = (mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), starts)
        return self._open[camera]

    def frames(self, i: int, camera: str, indices: Sequence[int]) -> NDArray[np.uint8]:
        """See `Episodes.frames`."""
        episode = self._of.episode(i)
        wanted = check_frames(episode, camera, indices, self.info, self.path)
        data, starts = self._file(camera)
        shape = self.info.features[camera].shape
        found = np.empty((len(wanted), *shape), dtype=np.uint8)
        for k, frame in enumerate(wanted):
            row = int(self._first[episode.index]) + frame
            low, high = int(starts[row]), int(starts[row + 1])
            if self._kind == "raw":
                found[k] = np.frombuffer(data, np.uint8, high - low, low).reshape(shape)
            else:
                where = f"{self.path}: episode {episode.index}, camera {camera!r}, frame {frame} of the proxy"
                found[k] = decode_picture(data[low:high], where)
        return found

    def language(self, i: int) -> list[LanguageRow]:
        """See `Episodes.language`."""
        return self._of.language(i)

    def film(self, i: int, camera: str) -> None:
        """None: a proxy has no videos."""

    def problems(self) -> list[str]:
        """See `Episodes.problems`."""
        return self._of.problems()
