"""MetaWorld's tasks with a reward for success alone, and its scripted policies, also with random phases.

`gymnasium.make("heedful.data.worlds.sawyer:Sawyer-v0", task="drawer-open-v3")`. What is seen are MetaWorld's 39
numbers, the goal among them; each reset draws a new place of object and goal by its seed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from heedful.data.worlds.sparse import Array, SparseTask, package
from heedful.errors import HeedfulError

STEPS = 200
"""Decisions before an episode is cut."""
PHASE = (3, 12)
"""Least and most decisions of a random phase."""
OFTEN = 0.06
"""Chance that one begins at a decision outside of one."""


class Sawyer(SparseTask):
    """Observation (39,); action (4,): where the hand moves and the gripper's effort, in [-1, 1]."""

    def __init__(
        self, task: str = "drawer-open-v3", *, repeat: int = 1, render_mode: str | None = None
    ) -> None:
        worlds = package("metaworld.env_dict").ALL_V3_ENVIRONMENTS
        if task not in worlds:
            raise HeedfulError(f"MetaWorld has no task {task!r}; it has {', '.join(sorted(worlds))}")
        self.task = task
        inner = worlds[task](render_mode=render_mode)
        inner._partially_observable = False
        # Kept from when the goal was hidden, its bounds would clip the goal to zero.
        inner.__dict__.pop("sawyer_observation_space", None)
        inner._freeze_rand_vec = False
        inner.seeded_rand_vec = inner._set_task_called = True
        super().__init__(inner, inner.action_space, repeat=repeat, render_mode=render_mode)

    def begin(self, seed: int) -> Any:
        """MetaWorld ignores the seed of its reset and has one of its own."""
        self.inner.seed(seed)
        # Its first reset differs from later ones, which begin where the arm was left.
        self.inner.reset()
        self.inner.seed(seed)
        return self.inner.reset()[0]

    def solved(self, shown: Any, info: Any) -> bool:
        """MetaWorld says it."""
        return bool(info["success"] > 0.5)


def scripted(env: Any, generator: np.random.Generator) -> Callable[[Array], Array]:
    """MetaWorld's own scripted policy of the task."""
    policy = package("metaworld.policies").ENV_POLICY_MAP[env.unwrapped.task]()
    return lambda seen: np.clip(policy.get_action(seen.astype(np.float64)), -1, 1)


def phases(env: Any, generator: np.random.Generator) -> Callable[[Array], Array]:
    """The same, in which every now and then a random action is held for a while."""
    policy, low, high = scripted(env, generator), env.action_space.low, env.action_space.high
    left, held = 0, np.zeros_like(low)

    def act(seen: Array) -> Array:
        nonlocal left, held
        if left == 0 and generator.random() < OFTEN:
            left, held = int(generator.integers(*PHASE, endpoint=True)), generator.uniform(low, high)
        if left:
            left -= 1
            return held
        return policy(seen)

    return act


gym.register("Sawyer-v0", entry_point=f"{__name__}:Sawyer", max_episode_steps=STEPS)
