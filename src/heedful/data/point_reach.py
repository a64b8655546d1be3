"""A point in a square that has to reach one of four corners: RL in seconds, for tests and demos.

`gymnasium.make("heedful.data.point_reach:PointReach-v0")`. The reward is 1 where the corner is reached, which ends the
episode, and 0 before. Data of a behaviour that goes to all four corners alike has four modes at the start: cloning it
succeeds a quarter of the time, and a policy that averages the four goes nowhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

Array = NDArray[np.float32]
CORNERS = np.array([[0.8, 0.8], [0.8, -0.8], [-0.8, -0.8], [-0.8, 0.8]], dtype=np.float32)
STEP = 0.2
"""How far an action of 1 moves the point."""
NEAR = 0.15
"""How near a corner counts as reached."""
SIDE = 64
"""Pixels of a rendered picture."""


class PointReach(gym.Env[Any, Any]):
    """Observation (2,): where the point is, in [-1, 1]; action (2,): where it moves, in [-1, 1].

    moving: the corner to reach is another one in each episode, and its place the observation's last two numbers.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(self, *, moving: bool = False, render_mode: str | None = None) -> None:
        self.moving, self.render_mode = moving, render_mode
        self.observation_space = spaces.Box(-1, 1, (4 if moving else 2,), np.float32)
        self.action_space = spaces.Box(-1, 1, (2,), np.float32)
        self.goal, self.at = CORNERS[0], np.zeros(2, np.float32)

    def _seen(self) -> Array:
        return np.concatenate([self.at, self.goal]) if self.moving else self.at.copy()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """The point is put near the middle."""
        super().reset(seed=seed)
        self.at = self.np_random.uniform(-0.1, 0.1, 2).astype(np.float32)
        self.goal = CORNERS[int(self.np_random.integers(4)) if self.moving else 0]
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Move; reward 1 and the end at the corner."""
        move = STEP * np.clip(np.asarray(action, np.float32), -1, 1)
        self.at = np.clip(self.at + move, -1, 1).astype(np.float32)
        there = bool(np.linalg.norm(self.at - self.goal) < NEAR)
        return self._seen(), float(there), there, False, {"success": there}

    def render(self) -> Any:
        """A picture (64, 64, 3), the point in red, the corner in green; None where none was asked for."""
        if self.render_mode != "rgb_array":
            return None
        picture = np.full((SIDE, SIDE, 3), 255, np.uint8)
        for place, colour in ((self.goal, (0, 150, 0)), (self.at, (200, 0, 0))):
            column, row = ((place * [1, -1] + 1) / 2 * (SIDE - 1)).astype(int)
            picture[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3] = colour
        return picture


def corners(env: Any, generator: np.random.Generator) -> Callable[[Array], Array]:
    """A behaviour for `heedful act collect`: one of the four corners, whichever, straight."""
    return _straight(CORNERS[generator.integers(4)])


def reach(env: Any, generator: np.random.Generator) -> Callable[[Array], Array]:
    """A behaviour that goes to the corner that counts."""
    return _straight(env.unwrapped.goal)


def _straight(target: Array) -> Callable[[Array], Array]:
    def act(observation: Array) -> Array:
        way = target - observation[:2]
        return np.clip(way / max(STEP, float(np.abs(way).max())), -1, 1)

    return act


gym.register("PointReach-v0", entry_point=f"{__name__}:PointReach", max_episode_steps=20)
