"""A bandit whose actions are points of a square with four peaks, one of them the highest: tier 0 of PA-RL.

`gymnasium.make("heedful.data.peaks:Peaks-v0")`. One step; the reward is the height of the highest peak there. Data can
have near-optimal actions (`around`) or none (`beside`): then what is best has to be made out from what lies about it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

Array = NDArray[np.float32]
PLACES = np.array([[0.55, 0.55], [0.55, -0.55], [-0.55, -0.55], [-0.55, 0.55]], dtype=np.float32)
HEIGHTS = np.array([1.0, 0.75, 0.6, 0.45], dtype=np.float32)
WIDTH = 0.25
"""Spread of a peak."""
NEAR = 0.15
"""How near the highest peak counts as success."""
RING = (0.25, 0.4)
"""How far from a peak `beside` keeps."""


class Peaks(gym.Env[Any, Any]):
    """Observation (1,): always 0; action (2,), in [-1, 1]. turned: the four peaks stand on the axes instead."""

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self, *, turned: bool = False) -> None:
        turn = np.pi / 4 if turned else 0.0
        rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]], np.float32)
        self.places = PLACES @ rotation.T
        self.observation_space = spaces.Box(-1, 1, (1,), np.float32)
        self.action_space = spaces.Box(-1, 1, (2,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """There is one state."""
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """The reward, and the end."""
        point = np.clip(np.asarray(action, np.float32), -1, 1)
        away = np.linalg.norm(self.places - point, axis=1)
        reward = float((HEIGHTS * np.exp(-(away**2) / (2 * WIDTH**2))).max())
        return np.zeros(1, np.float32), reward, True, False, {"success": bool(away[0] < NEAR)}


def around(env: Any, generator: np.random.Generator) -> Callable[[Array], Array]:
    """One of the four peaks, whichever; what is near it comes from `collect --noise`."""
    place = env.unwrapped.places[generator.integers(4)]
    return lambda observation: place


def beside(env: Any, generator: np.random.Generator) -> Callable[[Array], Array]:
    """Somewhere on a ring about one of the four: never so near that it counts."""
    place = env.unwrapped.places[generator.integers(4)]
    angle, radius = generator.uniform(0, 2 * np.pi), generator.uniform(*RING)
    return lambda observation: place + radius * np.array([np.cos(angle), np.sin(angle)])


gym.register("Peaks-v0", entry_point=f"{__name__}:Peaks", max_episode_steps=1)
