"""Fetch's arm that pushes, and one that picks and places, with scripted behaviours: gymnasium-robotics.

`gymnasium.make("heedful.data.worlds.fetch:Fetch-v0", task="push")`, or `task="pick"`. What is seen are Fetch's 25
numbers and the place where the object has to go; a reward of 1 for success ends the episode.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from heedful.data.worlds.sparse import Array, SparseTask, package
from heedful.errors import HeedfulError

TASKS = {"push": "push:MujocoFetchPushEnv", "pick": "pick_and_place:MujocoFetchPickAndPlaceEnv"}
STEPS = 50
"""Fetch's own limit."""
GAIN = 10.0
BEHIND = 0.08
"""How far behind the object a push begins."""
ABOVE = 0.08
"""How far above the object the hand travels, and from where it comes down."""


class Fetch(SparseTask):
    """Observation (28,); action (4,): where the hand moves and what the gripper does, in [-1, 1]."""

    def __init__(self, task: str = "push", *, repeat: int = 1, render_mode: str | None = None) -> None:
        if task not in TASKS:
            raise HeedfulError(f"there is no task {task!r} of Fetch's here; choose {', '.join(TASKS)}")
        module, _, name = TASKS[task].partition(":")
        inner = getattr(package(f"gymnasium_robotics.envs.fetch.{module}"), name)(render_mode=render_mode)
        self.task = task
        super().__init__(inner, inner.action_space, repeat=repeat, render_mode=render_mode)

    def begin(self, seed: int) -> Any:
        """Object and goal are functions of the seed."""
        return self.inner.reset(seed=seed)[0]

    def see(self, shown: Any) -> Array:
        """The 25 numbers and the goal."""
        return np.concatenate([shown["observation"], shown["desired_goal"]]).astype(np.float32)

    def solved(self, shown: Any, info: Any) -> bool:
        """Fetch says it."""
        return bool(info["is_success"] > 0.5)


def scripted(env: Any, generator: np.random.Generator) -> Callable[[Array], Array]:
    """Push: to the far side of the object, down, and towards the goal. Pick: grasp, lift, carry."""
    return _push if env.unwrapped.task == "push" else _pick()


def _towards(way: NDArray[Any], grip: float = 0.0) -> Array:
    return np.clip(np.append(GAIN * way, grip), -1, 1)


def _push(seen: Array) -> Array:
    hand, thing, goal = seen[:3], seen[3:6], seen[25:28]
    way = goal[:2] - thing[:2]
    way = way / max(1e-6, float(np.linalg.norm(way)))
    start = np.append(thing[:2] - BEHIND * way, thing[2])
    off = hand[:2] - thing[:2]
    along = float(off @ way)
    aside = float(np.linalg.norm(off - along * way))
    if along < 0 and aside < 0.02 and hand[2] < thing[2] + 0.03:
        return _towards(np.append(goal[:2] - thing[:2] - off + along * way, thing[2] - hand[2]))
    if float(np.linalg.norm(start[:2] - hand[:2])) < 0.02:
        return _towards(start - hand)
    return _towards(np.append(start[:2] - hand[:2], thing[2] + ABOVE - hand[2]))


def _pick() -> Callable[[Array], Array]:
    held = 0

    def act(seen: Array) -> Array:
        nonlocal held
        hand, thing, goal = seen[:3], seen[3:6], seen[25:28]
        near = float(np.linalg.norm(thing - hand))
        if near > 0.04:
            held = 0
        if held > 3:
            return _towards(goal - thing, -1.0)
        if near < 0.015 or (held and near < 0.04):
            held += 1
            return _towards(thing - hand, -1.0)
        over = float(np.linalg.norm(thing[:2] - hand[:2])) > 0.02
        return _towards(thing - hand + np.array([0, 0, ABOVE if over else 0]), 1.0)

    return act


gym.register("Fetch-v0", entry_point=f"{__name__}:Fetch", max_episode_steps=STEPS)
