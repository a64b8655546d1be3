"""What the tasks of this folder share: one vector of numbers seen, a reward of 1 for success and 0 before it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from importlib import import_module
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from heedful.errors import HeedfulError

Array = NDArray[np.float32]


def package(name: str) -> Any:
    """A module of an optional package. Raises HeedfulError with what to install where it is missing."""
    try:
        return import_module(name)
    except ImportError as error:
        top = name.partition(".")[0]
        raise HeedfulError(f"this task needs {top}: pip install 'heedful[worlds]' ({error})") from error


class SparseTask(gym.Env[Any, Any], ABC):
    """Observation (S,), action (A,) held for `repeat` steps of `inner`; success ends the episode.

    A subclass says how an episode begins, what is seen, and what success is.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(self, inner: Any, action_space: Any, *, repeat: int, render_mode: str | None) -> None:
        if repeat < 1:
            raise HeedfulError(f"repeat is {repeat}; an action is held for 1 step or more")
        self.inner, self.repeat, self.render_mode = inner, repeat, render_mode
        self.low, self.high = (np.asarray(b, np.float32) for b in (action_space.low, action_space.high))
        self.action_space = spaces.Box(self.low, self.high, dtype=np.float32)
        seen = self.see(self.begin(0))
        self.observation_space = spaces.Box(-np.inf, np.inf, seen.shape, np.float32)

    @abstractmethod
    def begin(self, seed: int) -> Any:
        """Begin the inner episode that belongs to a seed; what the inner environment shows."""

    def see(self, shown: Any) -> Array:
        """(S,) float32 from what the inner environment shows."""
        return np.asarray(shown, np.float32)

    @abstractmethod
    def solved(self, shown: Any, info: Any) -> bool:
        """Whether the task is solved after an inner step."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """A function of the seed, or of the seeds before where none is given."""
        super().reset(seed=seed)
        return self.see(self.begin(int(self.np_random.integers(2**31)))), {}

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Hold the action; reward 1 and the end at success."""
        held = np.clip(np.asarray(action, np.float32), self.low, self.high)
        shown, there = None, False
        for _ in range(self.repeat):
            shown, _, _, _, info = self.inner.step(held.copy())
            there = self.solved(shown, info)
            if there:
                break
        return self.see(shown), float(there), there, False, {"success": there}

    def render(self) -> Any:
        """What the inner environment draws."""
        return self.inner.render()

    def close(self) -> None:
        """Close the inner environment."""
        self.inner.close()
