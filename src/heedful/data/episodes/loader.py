"""Training samples from demonstrations: which frame comes when is a pure function of the seed and the sample's number.

So a run that stopped at sample n goes on at sample n, with any number of workers, and nothing is stored for it. Data
sets are mixed by weight: of every block of draws each gets its share, in an order that the seed shuffles, and goes
through its own frames in permutations, one an epoch. Workers are started afresh (spawned), never forked: a decoder that
has run in the parent does not survive a fork.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heedful.data.episodes import Array, Episodes, check_columns, open_episodes
from heedful.errors import HeedfulError

BLOCK = 1000
"""Draws in which each data set gets its share."""
KEPT_BYTES = 2**30
"""Columns of a data set that are held in memory; larger ones are read episode by episode."""
Sample = dict[str, Any]


@dataclass(frozen=True)
class Window:
    """What belongs to a sample at frame t.

    history: pictures and states of frames t - (history - 1) * every, ..., t; frames before the first repeat it.
    horizon: actions of frames t - past, ..., t - past + horizon - 1; frames before the first and after the last repeat
    it, and `*_is_pad` says so. past: history - 1 for a policy whose chunks begin at its first frame (DROID's).
    """

    cameras: tuple[str, ...] = ()
    states: tuple[str, ...] = ("observation.state",)
    actions: tuple[str, ...] = ("action",)
    history: int = 1
    every: int = 1
    horizon: int = 1
    past: int = 0


class Frames:
    """Samples of one data set by number: frames of all episodes one after another.

    ranges: {episode: [(start, stop), ...]}, the frames that samples may stand at (`heedful demos trim --ranges`); what
    they look back and ahead at is not limited. Raises HeedfulError for columns and cameras that are not there.
    """

    def __init__(
        self,
        episodes: Episodes,
        window: Window,
        ranges: dict[int, list[tuple[int, int]]] | None = None,
        keep_bytes: int = KEPT_BYTES,
    ) -> None:
        self.episodes, self.window = episodes, window
        check_columns([*window.states, *window.actions], episodes.info, episodes.path)
        missing = [c for c in window.cameras if c not in episodes.info.cameras]
        if missing:
            raise HeedfulError(f"{episodes.path}: there is no camera {missing[0]!r}")
        if min(window.history, window.every, window.horizon) < 1 or window.past < 0:
            raise HeedfulError("history, every and horizon must be at least 1, and past at least 0")
        self.lengths = np.array([episodes.episode(i).length for i in range(len(episodes))])
        kept = ranges if ranges is not None else {i: [(0, int(n))] for i, n in enumerate(self.lengths)}
        rows = [(i, a, b) for i, many in sorted(kept.items()) for a, b in many if b > a]
        self._rows = np.array(rows, dtype=np.int64).reshape(-1, 3)
        self._ends = np.cumsum(self._rows[:, 2] - self._rows[:, 1])
        if not len(self):
            raise HeedfulError(f"{episodes.path}: there is no frame to draw")
        names = list(dict.fromkeys([*window.states, *window.actions]))
        features = episodes.info.features
        size = sum(np.dtype(features[n].dtype).itemsize * int(np.prod(features[n].shape)) for n in names)
        self._held: dict[str, list[Array]] | None = None
        if size * int(self.lengths.sum()) <= keep_bytes:
            each = [episodes.columns(i, names) for i in range(len(episodes))]
            self._held = {name: [columns[name] for columns in each] for name in names}

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def place(self, k: int) -> tuple[int, int]:
        """(episode, frame) of sample `k`."""
        row = int(np.searchsorted(self._ends, k, side="right"))
        i, _, stop = self._rows[row]
        return int(i), int(stop - (self._ends[row] - k))

    def groups(self) -> Array | None:
        """(samples,) the number of the file that each sample is in; None where the layout has no such files."""
        file_of: Any = getattr(self.episodes, "file_of", None)
        if file_of is None:
            return None
        numbers: dict[Path, int] = {}
        each = [numbers.setdefault(file_of(int(i)), len(numbers)) for i in self._rows[:, 0]]
        return np.repeat(each, self._rows[:, 2] - self._rows[:, 1])

    def __getitem__(self, k: int) -> Sample:
        """Sample `k`: states (history, D), actions (horizon, D), `*_is_pad` (horizon,), pictures (history, H, W, 3)."""
        i, t = self.place(k)
        window, last = self.window, int(self.lengths[i]) - 1
        back = np.maximum(t - window.every * np.arange(window.history - 1, -1, -1), 0)
        ahead = t - window.past + np.arange(window.horizon)
        sample: Sample = {"episode": i, "frame": t}
        for name in window.states:
            sample[name] = self._values(i, name, back)
        for name in window.actions:
            sample[name] = self._values(i, name, ahead.clip(0, last))
            sample[f"{name}_is_pad"] = (ahead < 0) | (ahead > last)
        for camera in window.cameras:
            sample[camera] = self.episodes.frames(i, camera, back.tolist())
        return sample

    def _values(self, i: int, name: str, frames: Array) -> Array:
        if self._held is not None:
            return self._held[name][i][frames]
        low, high = int(frames.min()), int(frames.max()) + 1
        return self.episodes.columns(i, [name], low, high)[name][frames - low]


def permutation(
    seed: int, number: int, epoch: int, size: int, groups: Array | None = None, near: int = 2
) -> NDArray[np.int64]:
    """The order of data set `number`'s samples in an epoch.

    groups: (size,) the file of each sample; files then come in random order, and samples of `near` files at a time are
    shuffled together, so that few files are needed at once.
    """
    rng = np.random.default_rng([seed, 1, number, epoch])
    if groups is None:
        return rng.permutation(size)
    turn = rng.permutation(int(groups.max()) + 1)[groups] // near
    return np.lexsort((rng.random(size), turn))


class Mixture:
    """Draws from data sets by weight; draw k is a pure function of (seed, k).

    weights: shares of the draws, in any unit; none stands for shares by frames. shuffle: False goes through frames in
    order (one data set only makes sense of that). groups: see `permutation`.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        weights: Sequence[float] = (),
        *,
        seed: int = 0,
        shuffle: bool = True,
        groups: Sequence[Array | None] = (),
    ) -> None:
        shares = np.array(weights or sizes, dtype=np.float64)
        if len(shares) != len(sizes) or (shares < 0).any() or not shares.sum() > 0:
            raise HeedfulError(f"{len(sizes)} data sets need as many weights, none below 0 and not all 0")
        self.sizes, self.seed, self.shuffle = list(sizes), seed, shuffle
        self._bounds = np.concatenate([[0.0], np.cumsum(shares / shares.sum())])
        self._bounds[-1] = 1.0
        self._groups = list(groups) or [None] * len(sizes)
        self._block: tuple[int, Array, Array] | None = None
        self._orders: dict[int, tuple[int, Array]] = {}

    def _counts(self, draws: int) -> NDArray[np.int64]:
        """How many of the first `draws` (whole blocks) went to each data set."""
        return np.diff(np.floor(draws * self._bounds + 1e-9).astype(np.int64))

    def draw(self, k: int) -> tuple[int, int]:
        """(data set, sample of it) of draw `k`."""
        block = k // BLOCK
        if self._block is None or self._block[0] != block:
            before = self._counts(block * BLOCK)
            each = self._counts((block + 1) * BLOCK) - before
            order = np.repeat(np.arange(len(self.sizes)), each)
            if self.shuffle:
                np.random.default_rng([self.seed, 0, block]).shuffle(order)
            turn = np.empty(BLOCK, dtype=np.int64)
            for number in range(len(self.sizes)):
                turn[order == number] = before[number] + np.arange(each[number])
            self._block = (block, order, turn)
        number, turn = int(self._block[1][k % BLOCK]), int(self._block[2][k % BLOCK])
        size = self.sizes[number]
        if not self.shuffle:
            return number, turn % size
        epoch = turn // size
        if number not in self._orders or self._orders[number][0] != epoch:
            order = permutation(self.seed, number, epoch, size, self._groups[number])
            self._orders[number] = (epoch, order)
        return number, int(self._orders[number][1][turn % size])


@dataclass(frozen=True)
class Source:
    """A data set of a mixture. proxy: a folder for quick pictures (`episodes.proxy`), "" for none."""

    path: str
    weight: float = 0.0
    proxy: str = ""
    proxy_kind: Any = "jpeg"
    size: tuple[int, int] | None = None
    ranges: dict[int, list[tuple[int, int]]] | None = None
    cache: str = ""
    """A folder to which files are brought as they are needed, "" to read them where they are."""
    cache_mb: float = 4096
    """Megabytes that the cache may hold."""

    def open(self) -> Episodes:
        """Open it, with its proxy if it has one."""
        if self.cache:
            from heedful.data.episodes.stream import stream_folder

            return stream_folder(Path(self.path), Path(self.cache), self.cache_mb)
        episodes = open_episodes(self.path)
        if not self.proxy:
            return episodes
        from heedful.data.episodes.proxy import with_proxy

        return with_proxy(episodes, Path(self.proxy), self.proxy_kind, size=self.size)


class Batches:
    """Batches by number: batch b holds draws b * batch_size and on. Opens its data sets where it is first used."""

    def __init__(
        self, sources: Sequence[Source], window: Window, batch_size: int, seed: int = 0, shuffle: bool = True
    ) -> None:
        self.sources, self.window, self.batch_size = list(sources), window, batch_size
        self.seed, self.shuffle = seed, shuffle
        self._opened: tuple[list[Frames], Mixture] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Without open files, for the workers."""
        return {**self.__dict__, "_opened": None}

    def _parts(self) -> tuple[list[Frames], Mixture]:
        if self._opened is None:
            frames = [
                Frames(source.open(), self.window, source.ranges, 0 if source.cache else KEPT_BYTES)
                for source in self.sources
            ]
            groups = [f.groups() if s.cache else None for f, s in zip(frames, self.sources, strict=True)]
            given = [source.weight for source in self.sources]
            weights = given if any(given) else ()
            mixture = Mixture(
                [len(f) for f in frames], weights, seed=self.seed, shuffle=self.shuffle, groups=groups
            )
            self._opened = (frames, mixture)
        return self._opened

    def __len__(self) -> int:
        """Batches in which as many samples are drawn as there are frames."""
        return -(-sum(len(f) for f in self._parts()[0]) // self.batch_size)

    def __getitem__(self, b: int) -> Sample:
        """Batch `b`: every entry of the samples stacked, and `source`, the number of the data set."""
        frames, mixture = self._parts()
        drawn = [mixture.draw(b * self.batch_size + k) for k in range(self.batch_size)]
        samples = [frames[number][k] for number, k in drawn]
        batch = {name: np.stack([s[name] for s in samples]) for name in samples[0]}
        return batch | {"source": np.array([number for number, _ in drawn])}


def load_batches(batches: Batches, start: int, stop: int, workers: int = 0) -> Iterator[Sample]:
    """Batches `start` to `stop` in order; with workers they are made ahead in processes of their own.

    The values are NumPy arrays without workers and torch tensors with them. Raises what reading raises.
    """
    if workers < 1:
        yield from (batches[b] for b in range(start, stop))
        return
    from torch.utils.data import DataLoader

    # A forked worker would inherit decoders and their threads in mid-work, which crashes.
    loader = DataLoader(
        batches,  # type: ignore[arg-type]
        batch_size=None,
        sampler=range(start, stop),
        num_workers=workers,
        multiprocessing_context="spawn",
    )
    yield from loader
