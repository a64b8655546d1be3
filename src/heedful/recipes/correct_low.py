"""The low level of `heedful correct train`: its demonstrations, which of them it learns, and its training.

Letters: B chunks, H actions of a chunk, S numbers of the robot's state, A of an action.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from heedful.data.episodes import open_episodes
from heedful.data.episodes.proxy import with_proxy
from heedful.data.narrated import ACTION, Narrated, open_narrated
from heedful.data.segments import Segment, Start, acting_segments, chunk_at, draw_starts
from heedful.device import pick_device
from heedful.errors import HeedfulError
from heedful.fit import FitConfig, fit
from heedful.policies.actions import ActionSpace, NetworkPolicy
from heedful.policies.actions import build as actions_build
from heedful.policies.actions.chunks import ChunkBatch, ChunkPolicy, chunk_objective
from heedful.policies.actions.numbers import ranges, z_scores
from heedful.policies.actions.observe import ObservationSpace
from heedful.progress import Progress
from heedful.recipes.correct_models import STATE
from heedful.run import Run

if TYPE_CHECKING:
    from heedful.recipes.correct import Config

PACK_TABLE = "pack-table"
"""What the info of its data sets calls the robot."""
JITTER_SEED = 1
"""Of the camera that is off its place."""
ROUNDS = 1000
"""Starts drawn in each episode before they come again, at most."""
HELD_CHUNKS = 128
"""Chunks of held-out episodes on which the loss is measured."""


@dataclass(frozen=True)
class Demos:
    """Demonstrations as both levels learn them. held: episodes that neither does; kept: segments that the low level
    learns, none of a held one; dropped: how many it does not, by reason; world: settings of the `PackTable`."""

    narrated: Narrated
    held: tuple[int, ...]
    kept: list[list[Segment]]
    dropped: dict[str, int]
    world: dict[str, Any] | None

    @property
    def steps(self) -> int:
        """Of all episodes."""
        return sum(map(len, self.narrated.actions))


def gather(cfg: Config, run: Run) -> Demos:
    """Open the demonstrations, generated first where none are given; pictures get a raw or JPEG proxy in the run.

    Raises HeedfulError for what `open_narrated` refuses, where no segment is left to learn from, and where there are
    fewer episodes than --high-episodes: now, not when the low level has been trained.
    """
    folder = Path(cfg.data).expanduser() if cfg.data else generate(cfg, run)
    plain = open_episodes(folder)
    narrated = open_narrated(folder, cfg.cameras, episodes=plain)
    pixels = max(int(np.prod(plain.info.features[c].shape)) for c in narrated.cameras.values())
    # Raw pixels are quickest; from a certain size on they are too many for a disk.
    kind = "raw" if pixels <= 3 * 128 * 128 else "jpeg"
    with Progress("pictures", 1, unit="", quiet=cfg.quiet) as bar:
        proxy = with_proxy(
            plain,
            run.path("pictures"),
            kind,
            progress=lambda done, total: bar.show(0, f"{done} of {total}"),
        )
    narrated = replace(narrated, episodes=proxy)
    count = len(narrated.segments)
    order = np.random.default_rng(run.seed_for("held")).permutation(count).tolist()
    held = tuple(sorted(order[: math.ceil(cfg.held_out * count)])) if cfg.held_out else ()
    if len(held) == count:
        raise HeedfulError(
            f"{folder} has {count} episode(s): --held-out {cfg.held_out} leaves none to learn from"
        )
    if cfg.high_episodes > count - len(held):
        raise HeedfulError(
            f"--high-episodes {cfg.high_episodes}: there are {count - len(held)} episodes to learn from, "
            f"and {len(held)} held out"
        )
    kept, dropped = [], {}
    for i, segments in enumerate(narrated.segments):
        found = acting_segments(
            segments,
            min_steps=least_steps(cfg, narrated),
            drop_mistakes=not cfg.keep_mistakes,
        )
        kept.append([] if i in held else found.segments)
        for reason, number in found.dropped.items() if i not in held else ():
            dropped[reason] = dropped.get(reason, 0) + number
    if not any(kept):
        raise HeedfulError(f"{folder}: no segment is left to learn from ({dropped}); see --min-seconds")
    world = None
    if plain.info.robot_type == PACK_TABLE:
        height, width, _ = plain.info.features[next(iter(narrated.cameras.values()))].shape
        world = {
            "size": [height, width],
            "camera_jitter": cfg.camera_jitter,
            "camera_seed": JITTER_SEED,
            "action_noise": cfg.action_noise,
        }
    return Demos(narrated, held, kept, dropped, world)


def least_steps(cfg: Config, narrated: Narrated) -> int:
    """Of a segment that the low level learns."""
    return max(1, round(cfg.min_seconds * narrated.fps))


def generate(cfg: Config, run: Run) -> Path:
    """Narrated demonstrations of PackTable in the run's folder `demos`; those that are there stay."""
    from heedful.data.pack_table.expert import write_narrations

    folder = run.path("demos")
    with Progress("demonstrations", cfg.episodes, unit="episodes", quiet=cfg.quiet) as bar:
        write_narrations(
            folder,
            cfg.episodes,
            seed=cfg.seed,
            size=cfg.size,
            told=lambda done, total: bar.show(done, "written"),
            action_noise=cfg.demo_noise,
        )
    return folder


def making(cfg: Config, narrated: Narrated) -> actions_build.Making:
    """What the low level is made of: its spaces are those of the data."""
    states, actions = np.concatenate(narrated.states), np.concatenate(narrated.actions)
    features = narrated.episodes.info.features
    shapes: dict[str, tuple[int, ...]] = {}
    for name, column in narrated.cameras.items():
        height, width, colours = features[column].shape
        shapes[name] = (colours, height, width)
    shapes[STATE] = (states.shape[1],)
    mean, std = ({STATE: tuple(map(float, v))} for v in (states.mean(0), states.std(0)))
    low, high = actions.min(0), actions.max(0)
    flat = high - low < 1e-6  # a number that never changes still needs an interval
    space = ActionSpace(
        tuple(map(float, np.where(flat, low - 0.5, low))),
        tuple(map(float, np.where(flat, high + 0.5, high))),
        cfg.horizon,
    )
    seen = ObservationSpace(shapes, mean, std)
    network: dict[str, Any] = {"pretrained": cfg.backbone} if cfg.backbone else {}
    if cfg.preset == "laptop":
        network["points"] = cfg.points
    size: actions_build.Size = cfg.preset
    make = actions_build.act_making if cfg.low == "act" else actions_build.unet_making
    scaled = z_scores if cfg.low == "act" else ranges
    sums = velocities(narrated) if cfg.sums else ()
    shown = chunks_of(narrated.actions, cfg.horizon) if sums else actions
    numbers = scaled(torch.from_numpy(shown), sums=sums)
    return make(seen, space, numbers, size=size, sentences=cfg.sentences, network=network)


def velocities(narrated: Narrated) -> tuple[int, ...]:
    """Places of the action's numbers whose names begin with velocity_, but the gripper's: that one opens and shuts."""
    names = narrated.episodes.info.features[ACTION].names
    said = names if isinstance(names, list) else []
    return tuple(i for i, n in enumerate(said) if n.startswith("velocity_") and n != "velocity_gripper")


def chunks_of(actions: Sequence[np.ndarray], horizon: int) -> np.ndarray:
    """(n, H, A): chunks of all episodes, each from the middle of the one before on; short episodes end in zeros."""
    chunks = []
    for one in actions:
        padded = np.concatenate([one, np.zeros((max(0, horizon - len(one)), one.shape[1]), one.dtype)])
        windows = np.lib.stride_tricks.sliding_window_view(padded, horizon, axis=0)
        chunks.append(windows[:: max(1, horizon // 2)].transpose(0, 2, 1))
    return np.concatenate(chunks)


def train(
    cfg: Config,
    demos: Demos,
    run: Run,
    *,
    stage: str = "low",
    segments: Sequence[Sequence[Segment]] | None = None,
) -> tuple[NetworkPolicy, actions_build.Making]:
    """The low level, learned from segments (those of `demos` that are kept); frozen from here on.

    As many starts are drawn in each episode as it takes, up to `ROUNDS`: a random segment, then a random step of it.
    """
    made = making(cfg, demos.narrated)
    policy = actions_build.build(made, seed=run.seed_for(stage, "weights"))
    assert isinstance(policy, ChunkPolicy)
    chosen = demos.kept if segments is None else segments
    rounds = min(ROUNDS, math.ceil(cfg.low_steps * cfg.low_batch / sum(map(bool, chosen))))
    rows = draw_starts(chosen, rounds, np.random.default_rng(run.seed_for(stage, "starts")))
    evaluate = _held_loss(cfg, demos, policy, run, stage) if demos.held and segments is None else None
    imitate(cfg, policy, demos.narrated, rows, run, stage=stage, evaluate=evaluate)
    return policy, made


def imitate(
    cfg: Config,
    policy: NetworkPolicy,
    narrated: Any,
    rows: Sequence[Start],
    run: Run,
    *,
    stage: str,
    evaluate: Any = None,
) -> None:
    """Train a low level on chunks that begin at `rows` of `narrated`, for `cfg.low_steps`; it is frozen afterwards."""
    assert isinstance(policy, ChunkPolicy)
    device = pick_device(cfg.device)
    for module in (policy.module, *([policy.average.module] if policy.average else [])):
        module.to(device)
    policy.module.requires_grad_(True)
    fit(
        stage,
        chunk_objective(policy),
        policy.module,
        rows,
        FitConfig(
            lr=cfg.low_rate,
            batch_size=cfg.low_batch,
            max_steps=cfg.low_steps,
            schedule="cosine",
            warmup=0.01,
            weight_decay=1e-4,
            clip_norm=10.0,
            precision=cfg.precision,
            save_every=cfg.save_every,
            keep=cfg.keep,
            log_every=cfg.log_every,
            quiet=cfg.quiet,
        ),
        run,
        collate=lambda starts: chunk_batch(narrated, starts, cfg.horizon),
        after_step=policy.after_step,
        state=policy.state(),
        groups=(lambda module: _slow_eyes(module, cfg.backbone_rate)) if cfg.backbone_rate else None,
        evaluate=evaluate,
    )
    policy.module.requires_grad_(False).eval()


def chunk_batch(narrated: Any, starts: Sequence[Start], horizon: int) -> ChunkBatch:
    """Observations at starts, their commands, and the chunks (B, H, A) that followed, cut where the segment ends."""
    seen: dict[str, Any] = {
        name: torch.from_numpy(np.concatenate([narrated.pictures(s.episode, name, [s.step]) for s in starts]))
        for name in narrated.cameras
    }
    seen[STATE] = torch.from_numpy(np.stack([narrated.states[s.episode][s.step] for s in starts]))
    seen["task"] = [s.text for s in starts]
    chunks = [chunk_at(narrated.actions[s.episode], s.step, s.stop, horizon) for s in starts]
    actions, there = (torch.from_numpy(np.stack(part)) for part in zip(*chunks, strict=True))
    return ChunkBatch(seen, actions, there)


def _held_loss(cfg: Config, demos: Demos, policy: ChunkPolicy, run: Run, stage: str) -> Any:
    """What `fit` evaluates: the loss on chunks of episodes that were left out, always the same ones."""
    min_steps = least_steps(cfg, demos.narrated)
    kept: list[list[Segment]] = [
        acting_segments(segments, min_steps=min_steps).segments if i in demos.held else []
        for i, segments in enumerate(demos.narrated.segments)
    ]
    if not any(kept):
        return None
    rounds = math.ceil(HELD_CHUNKS / sum(map(bool, kept)))
    starts = draw_starts(kept, rounds, np.random.default_rng(run.seed_for(stage, "held")))[:HELD_CHUNKS]

    def evaluate(step: int) -> dict[str, float]:
        batch = chunk_batch(demos.narrated, starts, cfg.horizon)
        return {"held_out_loss": float(chunk_objective(policy)(batch)[0])}

    return evaluate


def _slow_eyes(module: nn.Module, rate: float) -> list[dict[str, Any]]:
    """The image networks at a learning rate of their own, everything else at the stage's."""
    eyes = {id(p) for p in module["encoder"].trunks.parameters()}  # type: ignore[index, union-attr]
    parts: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
    for p in module.parameters():
        if p.requires_grad:
            parts[id(p) in eyes].append(p)
    return [{"params": parts[0]}, {"params": parts[1], "lr": rate}]
