"""OGBench's cube that has to be put elsewhere, and the oracle that its data were made with.

`gymnasium.make("heedful.data.worlds.cube:Cube-v0", task=1)`, tasks 1 to 5 of OGBench's cube-single. Slow: some 200
steps a second.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import gymnasium as gym
import numpy as np

from heedful.data.worlds.sparse import Array, SparseTask, package
from heedful.errors import HeedfulError

STEPS = 200
"""OGBench's own limit."""
TASKS = range(1, 6)


class Cube(SparseTask):
    """Observation (28,): arm, gripper and cube; action (5,): the hand's move and turn, and the gripper, in [-1, 1]."""

    def __init__(self, task: int = 2, *, repeat: int = 1, render_mode: str | None = None) -> None:
        if task not in TASKS:
            raise HeedfulError(f"cube-single has the tasks 1 to 5, not {task!r}")
        inner = _of_one_space(package("ogbench.manipspace.envs.cube_env").CubeEnv)(
            "single",
            permute_blocks=False,
            mode="task",
            reward_task_id=task,
            visualize_info=False,
            terminate_at_goal=False,
            render_mode=render_mode,
        )
        super().__init__(inner, inner.action_space, repeat=repeat, render_mode=render_mode)

    def begin(self, seed: int) -> Any:
        """Arm and cube are functions of the seed; so is what OGBench draws from the space of its actions."""
        self.inner.action_space.seed(seed)
        return self.inner.reset(seed=seed)[0]

    def solved(self, shown: Any, info: Any) -> bool:
        """OGBench says it."""
        return bool(info["success"])


def _of_one_space(env: Any) -> Any:
    """OGBench's environment makes a new space of actions, with a seed of its own, at each look."""

    class OneSpace(env):
        @cached_property
        def action_space(self) -> Any:
            return super().action_space

    return OneSpace


def oracle(env: Any, generator: np.random.Generator) -> Callable[[Array], Array]:
    """OGBench's Markov oracle: above the cube, down, grasp, carry, release."""
    inner = env.unwrapped.inner
    made = package("ogbench.manipspace.oracles.markov.cube_markov").CubeMarkovOracle(env=inner)
    # Its own reset draws from numpy's global generator.
    made._done, made._step = False, 0
    made._final_pos = generator.uniform(*inner._arm_sampling_bounds)
    made._final_yaw = generator.uniform(-np.pi, np.pi)
    turned = package("ogbench.manipspace.lie").SO3

    def act(seen: Array) -> Array:
        place = inner._cube_target_mocap_ids[0]
        yaw = turned(wxyz=inner._data.mocap_quat[place]).compute_yaw_radians()
        told = {
            "privileged/target_block": 0,
            "privileged/target_block_pos": inner._data.mocap_pos[place].copy(),
            "privileged/target_block_yaw": np.array([yaw]),
        }
        return made.select_action(seen, {**inner.get_step_info(), **told})

    return act


gym.register("Cube-v0", entry_point=f"{__name__}:Cube", max_episode_steps=STEPS)
