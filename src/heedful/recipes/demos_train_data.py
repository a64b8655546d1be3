"""What `heedful demos train` learns from: data sets opened and checked, their numbers' ranges, draws, and batches.

Which frame comes when is decided before training begins: `draws` is a table of (number of the draw, data set, sample),
made by the mixture in its own order, and `fit` takes its rows in whatever order it has. A frame, its pictures and its
instruction are then functions of a row alone.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from heedful.data.episodes import open_episodes
from heedful.data.episodes.loader import Frames, Mixture, Window
from heedful.data.episodes.policy import PolicyEpisodes, instructions_of, succeeded
from heedful.data.episodes.proxy import with_proxy
from heedful.data.episodes.ranges import Range, read_ranges
from heedful.errors import HeedfulError
from heedful.policies.actions.chunks import ChunkBatch
from heedful.policies.actions.numbers import ActionNumbers, ranges
from heedful.policies.actions.observe import ObservationSpace
from heedful.policies.droid import EULER, GRIPPER, STATE, without_moving
from heedful.recipes.demos_train import TO, TP
from heedful.run import Run, derive_seed

if TYPE_CHECKING:
    from heedful.recipes.demos_train import Config

FLAT = 1e-3
"""A number of a state that varies less is not blown up to vary by 1."""


@dataclass(frozen=True)
class Source:
    """A data set that is open. said: the instructions of each of its episodes; share: of the draws."""

    frames: Frames
    said: tuple[tuple[str, ...], ...]
    share: float
    facts: dict[str, Any]


@dataclass(frozen=True)
class Learned:
    """All data sets, --data before --mix, and what is known of them together. low, high: bounds of actions."""

    sources: tuple[Source, ...]
    numbers: ActionNumbers
    low: tuple[float, ...]
    high: tuple[float, ...]
    seen: ObservationSpace
    fps: float
    drawn: tuple[int, int]
    """Height and width of the pictures of the first data set."""
    extra: dict[str, Any]
    """What the first data set says of itself."""


def open_sources(cfg: Config) -> Learned:
    """Open and check everything but pictures.

    Raises HeedfulError naming the data set, and episode and frame where it is about one: a missing camera or column,
    no instruction, different rates, numbers that are not finite, and nothing left to learn from.
    """
    paths = [*cfg.data, *cfg.mix]
    files = [*cfg.ranges, *["-"] * (len(paths) - len(cfg.ranges))]
    opened = [open_episodes(path) for path in paths]
    rates = {path: episodes.info.fps for path, episodes in zip(paths, opened, strict=True)}
    if len(set(rates.values())) > 1:
        told = ", ".join(f"{path} {rate:g}" for path, rate in rates.items())
        raise HeedfulError(
            f"the data sets have different rates ({told} frames a second), and a policy acts at one; `heedful demos "
            "convert --fps` corrects a rate that is said wrongly"
        )
    views = [
        PolicyEpisodes(
            episodes,
            cfg.cameras,
            actions=cfg.actions,
            reading="cartesian" if i < len(cfg.data) else cfg.mix_reading,
        )
        for i, episodes in enumerate(opened)
    ]
    kept = [_kept(cfg, view, file) for view, file in zip(views, files, strict=True)]
    said = [
        tuple(instructions_of(view, i) if i in frames else () for i in range(len(view)))
        for view, frames in zip(views, kept, strict=True)
    ]
    states, actions = _numbers(views, kept)
    window = Window(cfg.cameras, ("state",), ("action",), history=TO, horizon=TP, past=TO - 1)
    frames = [Frames(view, window, ranges) for view, ranges in zip(views, kept, strict=True)]
    shares = _shares(cfg, [len(f) for f in frames])
    facts = [
        {
            "path": path,
            "layout": f.episodes.layout,
            "episodes": len(ranges),
            "failed episodes left out": len(f.episodes) - len(ranges),
            "frames": len(f),
            "share of the batch": round(share, 4),
        }
        for path, f, ranges, share in zip(paths, frames, kept, shares, strict=True)
    ]
    low, high = actions.min(0), actions.max(0)
    low[EULER[0] : EULER[0] + 3], high[EULER[0] : EULER[0] + 3] = -np.pi, np.pi
    low[GRIPPER], high[GRIPPER] = min(low[GRIPPER], 0), max(high[GRIPPER], 1)
    first = opened[0].info
    return Learned(
        tuple(Source(*parts) for parts in zip(frames, said, shares, facts, strict=True)),
        ranges(torch.from_numpy(actions), euler=EULER, keep=(GRIPPER,)),
        tuple(low.tolist()),
        tuple(np.maximum(high, low + FLAT).tolist()),
        ObservationSpace(
            {"state": (STATE,), **dict.fromkeys(cfg.cameras, (3, cfg.size, cfg.size))},
            {"state": tuple(states.mean(0).tolist())},
            {"state": tuple(np.maximum(states.std(0), FLAT).tolist())},
            history=TO,
        ),
        first.fps,
        first.features[cfg.cameras[0]].shape[:2],  # type: ignore[arg-type]
        dict(first.extra),
    )


def _kept(cfg: Config, view: PolicyEpisodes, file: str) -> dict[int, list[Range]]:
    """The frames to learn from, by episode."""
    given = read_ranges(Path(file), view) if file != "-" else None
    kept: dict[int, list[Range]] = {}
    for i in range(len(view)):
        episode = view.episode(i)
        if cfg.failures or succeeded(episode):
            kept[i] = [(0, episode.length)] if given is None else given[i]
            over = [stop for _, stop in kept[i] if stop > episode.length]
            if over:
                raise HeedfulError(
                    f"{file}: episode {i} of {view.path} ends at frame {episode.length}, before {over[0]}"
                )
    if not kept:
        raise HeedfulError(
            f"{view.path}: all episodes failed, by their rows; --failures takes them all the same"
        )
    return kept


def _numbers(
    views: Sequence[PolicyEpisodes], kept: Sequence[dict[int, list[Range]]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """States and actions of all frames of the episodes that are learned from."""
    found = [view.columns(i) for view, some in zip(views, kept, strict=True) for i in some]
    states, actions = (
        np.concatenate([one[name] for one in found]).astype(np.float64) for name in ("state", "action")
    )
    return states, actions


def _shares(cfg: Config, sizes: Sequence[int]) -> list[float]:
    count = len(cfg.data)
    own, other = sum(sizes[:count]), sum(sizes[count:])
    weight = cfg.weight if cfg.mix else 0.0
    return [(1 - weight) * n / own for n in sizes[:count]] + [weight * n / other for n in sizes[count:]]


def keep_pictures(cfg: Config, learned: Learned, run: Run) -> None:
    """Bring all pictures to the size they are learned at, once, and read those from now on."""
    for i, source in enumerate(learned.sources):
        path = Path(source.facts["path"]).resolve()
        name = f"{path.name}-{derive_seed(0, str(path)) % 2**32:08x}"
        folder = Path(cfg.pictures_in) / name if cfg.pictures_in else run.path(f"pictures/{i}")

        def told(done: int, count: int, path: Path = path) -> None:
            if not cfg.quiet and sys.stderr.isatty():
                print(f"\r{path.name}: pictures of {done:,} of {count:,} episodes", end="", file=sys.stderr)

        source.frames.episodes = with_proxy(
            source.frames.episodes, folder, cfg.pictures, size=(cfg.size, cfg.size), progress=told
        )


def draws(cfg: Config, learned: Learned, seed: int) -> NDArray[np.int32]:
    """(steps * batch size, 3): the number of each draw, its data set, and its sample there."""
    mixture = Mixture(
        [len(source.frames) for source in learned.sources],
        [source.share for source in learned.sources],
        seed=derive_seed(seed, "mixture"),
    )
    count = cfg.steps * cfg.batch_size
    return np.array([(k, *mixture.draw(k)) for k in range(count)], dtype=np.int32)


def collate(cfg: Config, learned: Learned, rows: Iterable[NDArray[Any]], seed: int) -> ChunkBatch:
    """The samples of some draws, each with an instruction that is drawn for it."""
    samples, tasks = [], []
    for draw, number, k in (row.tolist() for row in rows):
        source = learned.sources[number]
        sample = source.frames[k]
        said = source.said[sample["episode"]][: cfg.instructions]
        tasks.append(said[derive_seed(seed, "instruction", draw) % len(said)])
        samples.append(sample)
    actions = np.stack([sample["action"] for sample in samples])
    if cfg.actions == "delta":
        actions = without_moving(actions, np.stack([sample["action_is_pad"] for sample in samples]))
    seen: dict[str, Any] = {"state": torch.from_numpy(np.stack([sample["state"] for sample in samples]))}
    for camera in cfg.cameras:
        pictures = np.stack([sample[camera] for sample in samples])
        seen[camera] = torch.from_numpy(pictures).movedim(-1, -3)
    return ChunkBatch({**seen, "task": tasks}, torch.from_numpy(actions))
