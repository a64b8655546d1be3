"""What a run of `heedful act` learns in: an environment, offline data, or both, of the same shapes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from heedful.data.offline_files import bounds_in
from heedful.data.offline_import import import_episodes, space_of_data
from heedful.data.replay import ReplayBuffer
from heedful.data.transitions import Rewards, TransitionTable
from heedful.errors import HeedfulError
from heedful.evals.control import action_space_of, shapes_of
from heedful.evals.environments import opener
from heedful.manifest import sha256_of
from heedful.policies.actions import ActionSpace
from heedful.recipes.act_methods import has_critic
from heedful.run import Run

if TYPE_CHECKING:
    from heedful.recipes.act import Config

NEVER = 1_000_000
"""Steps after which an episode is cut where nobody says anything else."""
TOLERANCE = 1e-5


@dataclass
class World:
    """make: opens the environment, None without one. offline: the data, None without any. facts: for the report."""

    make: Callable[[], Any] | None
    shapes: dict[str, tuple[int, ...]]
    space: ActionSpace
    rewards: Rewards
    offline: TransitionTable | None
    task: str = ""
    max_steps: int = NEVER
    facts: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def solved(self, reward: Any, said: bool | None) -> bool | None:
        """Whether an episode with these rewards succeeded: what the environment says, else a sparse reward."""
        if said is not None or self.rewards.success is None:
            return said
        return bool((np.abs(np.asarray(reward, float) - self.rewards.success) <= TOLERANCE).any())


def open_world(cfg: Config, run: Run) -> World:
    """The environment and the offline data, which is checked and copied into the run folder once.

    Raises HeedfulError for data that is faulty, of other shapes than the environment, or of returns that say little
    within the critic's histogram.
    """
    rewards = Rewards(
        scale=cfg.reward_scale,
        bias=cfg.reward_bias,
        gamma=cfg.gamma,
        success=cfg.success_reward if cfg.sparse else None,
        failure=cfg.failure_reward if cfg.sparse else None,
    )
    make = opener(cfg.env, cfg.env_args) if cfg.env else None
    shapes: dict[str, tuple[int, ...]] | None = None
    space: ActionSpace | None = None
    if make is not None:
        env = make()
        try:
            shapes = shapes_of(env)
            space = action_space_of(env, cfg.horizon) if cfg.action_bounds == "env" else None
        finally:
            env.close()
    elif cfg.action_bounds == "env":
        known = next((b for b in map(bounds_in, cfg.data) if b is not None), None)
        space = ActionSpace(*known, cfg.horizon) if known else None
    facts: dict[str, Any] = {"environment": cfg.env or "none"}
    warnings = _changed(cfg, run)
    if not cfg.data:
        assert shapes is not None
        if space is None:
            raise HeedfulError("--action-bounds data needs --data")
        return World(
            make,
            shapes,
            space,
            rewards,
            None,
            cfg.task,
            cfg.max_steps or NEVER,
            {**facts, "offline data": "none"},
            warnings,
        )

    def load() -> dict[str, Any]:
        _, found = import_episodes(
            cfg.data,
            run.path("data"),
            shapes=shapes,
            space=space,
            max_steps=cfg.max_steps,
            drop_faulty=cfg.drop_faulty,
            unmarked_succeed=cfg.unmarked_succeed,
            task=cfg.task,
        )
        return found

    found = run.once("data.json", load)
    known_shapes = {name: tuple(shape) for name, shape in found["shapes"].items()}
    if space is None:
        space = space_of_data(found["low"], found["high"], cfg.horizon)
        warnings.append(
            "The bounds of actions are the least and greatest in the data: what lies beyond them cannot be learned."
        )
    buffer = ReplayBuffer(run.path("data"), known_shapes, len(space.low))
    table = TransitionTable(buffer, space, rewards)
    warnings += _outside(cfg, table)
    world = World(
        make, known_shapes, space, rewards, table, _task(cfg, table), cfg.max_steps or NEVER, facts, warnings
    )
    facts.update(_described(world, found))
    if cfg.sparse and not facts["offline transitions that end the task"]:
        warnings.append(
            f"No step of the data has the success reward {cfg.success_reward:g}: a critic learns nothing from it. Is "
            "--success-reward the raw one, before --reward-scale?"
        )
    return world


def _changed(cfg: Config, run: Run) -> list[str]:
    """Warns where the environment's file is no longer the one that the run began with: correcting it is allowed."""
    file = cfg.env.rpartition(":")[0]
    if not file.endswith(".py"):
        return []
    now = {"sha256": sha256_of(Path(file).expanduser())}
    if run.once("environment.json", lambda: now) == now:
        return []
    return [
        f"{file} has changed since the run began: parts of it were run in an earlier form of the environment."
    ]


def _outside(cfg: Config, table: TransitionTable) -> list[str]:
    """Warns of returns that the critic's histogram does not reach, and refuses where it does not tell them apart."""
    if cfg.q_target != "hl_gauss" or not has_critic(cfg.method):
        return []
    reached, low, high = table.mc_return, cfg.q_min, cfg.q_max
    room = 1e-4 * (high - low)  # returns are sums, which are rounded
    outside = (reached < low - room) | (reached > high + room)
    if not outside.any():
        return []
    said = (
        f"{outside.sum():,} of the data's {len(reached):,} discounted returns ({reached.min():.4g} to "
        f"{reached.max():.4g}) lie outside the critic's histogram (--q-min {low:g} to --q-max {high:g}) and count as "
        "its nearer end"
    )
    if 2 * outside.sum() > len(reached) or np.ptp(reached.clip(low, high)) <= room:
        raise HeedfulError(
            f"{said}, so that the critic would learn next to nothing: give --q-min and --q-max that hold these returns "
            "and better ones, or --q-target mse"
        )
    if not cfg.quiet:
        print(f"warning: {said}", file=sys.stderr)
    return [f"{said}."]


def _task(cfg: Config, table: TransitionTable) -> str:
    """What the environment is asked to do: --task, or the one task of the data."""
    if cfg.task or not table.tasks or not cfg.env:
        return cfg.task
    different = set(table.tasks)
    if len(different) > 1:
        raise HeedfulError(
            f"the data has {len(different)} tasks; say which the environment sets, with --task: "
            f"{', '.join(sorted(different)[:5])}"
        )
    return different.pop()


def _described(world: World, found: dict[str, Any]) -> dict[str, Any]:
    table = world.offline
    assert table is not None
    raw = np.asarray(table.buffer.column("reward"))
    starts = [0, *table.ends[:-1].tolist()]
    parts = [raw[a : b - 1] for a, b in zip(starts, table.ends.tolist())]
    returns = np.array([part.sum(dtype=np.float64) for part in parts])
    said = [world.solved(part, info.get("success")) for part, info in zip(parts, table.buffer.infos)]
    facts: dict[str, Any] = {
        "offline episodes": found["episodes"],
        "offline steps": found["steps"],
        "offline return": f"least {returns.min():.4g}, median {np.median(returns):.4g}, mean {returns.mean():.4g}, "
        f"most {returns.max():.4g}",
        "offline transitions that end the task": int((table.mask == 0).sum()),
    }
    if all(s is not None for s in said):
        facts["offline success rate"] = f"{np.mean([bool(s) for s in said]):.1%}"
    for key, name in (("faulty", "faulty episodes left out"), ("short", "episodes without a usable step")):
        if found[key]:
            facts[name] = found[key]
    if found["left_out"]:
        facts["last steps left out, whose next state is not in the file"] = found["left_out"]
    return facts
