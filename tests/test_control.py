"""Rollouts: seeded, side by side or not the same, chunks, broken environments, success with intervals."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from heedful.data.replay import ReplayBuffer
from heedful.errors import HeedfulError
from heedful.evals.control import Rollouts, action_space_of, roll_out, shapes_of, to_observation


class Line(gym.Env):
    """A point on a line that is to reach 1; it starts at random. broken: raises at this step of odd seeds."""

    def __init__(self, broken: int = -1, says: bool = True) -> None:
        self.observation_space = spaces.Box(-9, 9, (1,), np.float64)
        self.action_space = spaces.Box(-0.5, 0.5, (1,), np.float32)
        self.broken, self.says = broken, says

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.at, self.steps, self.odd = self.np_random.uniform(-1, 0.5), 0, bool(seed and seed % 2)
        return np.array([self.at]), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if self.steps == self.broken and self.odd:
            raise RuntimeError("the simulator exploded")
        self.at += float(action[0])
        self.steps += 1
        there = self.at > 1
        return np.array([self.at]), -1.0, there, self.steps >= 12, {"success": there} if self.says else {}


def forward(observations: Any) -> Tensor:
    return torch.full((len(observations["state"]), 1, 1), 0.25)


def chunked(observations: Any) -> Tensor:
    """Three steps at once, the third of them back."""
    return torch.tensor([0.3, 0.2, -0.1]).view(1, 3, 1).expand(len(observations["state"]), -1, -1)


def equal(one: Rollouts, other: Rollouts) -> bool:
    return len(one.episodes) == len(other.episodes) and all(
        a.info == b.info
        and np.array_equal(a.observations["state"], b.observations["state"])
        and np.array_equal(a.action, b.action)
        for a, b in zip(one.episodes, other.episodes, strict=True)
    )


@pytest.mark.parametrize("act", [forward, chunked])
def test_side_by_side_is_the_same_as_one_after_another(act: Any) -> None:
    alone = roll_out(Line, act, episodes=7, seed=3, parallel=1)
    assert equal(alone, roll_out(Line, act, episodes=7, seed=3, parallel=4))
    starts = [float(e.observations["state"][0, 0]) for e in alone.episodes]
    assert len(set(starts)) == 7
    # numbered on, the same episodes; another seed or name, others
    assert equal(Rollouts(alone.episodes[5:]), roll_out(Line, act, episodes=2, seed=3, first=5))
    assert not equal(alone, roll_out(Line, act, episodes=7, seed=4))
    assert not equal(alone, roll_out(Line, act, episodes=7, seed=3, name="train"))


def test_an_episode_is_what_happened() -> None:
    episode = roll_out(Line, chunked, episodes=1, seed=0).episodes[0]
    actions = np.tile(np.array([0.3, 0.2, -0.1], np.float32), 5)[: episode.steps]
    np.testing.assert_allclose(episode.action[:, 0], actions)
    states = episode.observations["state"][:, 0]
    np.testing.assert_allclose(np.diff(states), actions, atol=1e-6)
    assert states[-1] > 1 >= states[-2] and episode.terminal.tolist() == [False] * (episode.steps - 1) + [
        True
    ]
    assert episode.info["success"] is True and episode.reward.tolist() == [-1.0] * episode.steps


def test_time_that_runs_out_is_no_end_of_the_task() -> None:
    def still(observations: Any) -> Tensor:
        return torch.zeros(len(observations["state"]), 1, 1)

    episodes = roll_out(Line, still, episodes=2, seed=0).episodes
    assert all(e.steps == 12 and not e.terminal.any() and e.info["success"] is False for e in episodes)
    assert [e.steps for e in roll_out(Line, still, episodes=2, seed=0, max_steps=5).episodes] == [5, 5]


def test_success_and_return_with_intervals() -> None:
    rollouts = roll_out(Line, chunked, episodes=20, seed=1)
    summary = rollouts.summary()
    assert summary["episodes"] == 20 and summary["broken"] == 0
    assert summary["success"]["estimate"] == np.mean([e.info["success"] for e in rollouts.episodes])
    low, high = summary["return"]["interval"]
    assert low < summary["return"]["estimate"] == -np.mean([e.steps for e in rollouts.episodes]) < high
    assert "success" not in roll_out(lambda: Line(says=False), forward, episodes=3, seed=1).summary()
    with pytest.raises(HeedfulError, match="nothing to sum up"):
        Rollouts().summary()


def test_a_broken_episode_is_dropped_and_counted() -> None:
    whole = roll_out(Line, forward, episodes=12, seed=2)
    odd = [i for i, e in enumerate(whole.episodes) if e.info["seed"] % 2]
    late = max(whole.episodes[i].steps for i in odd) - 1
    hit = [i for i in odd if whole.episodes[i].steps > late]
    assert 1 <= len(hit) <= 2
    some = roll_out(lambda: Line(broken=late), forward, episodes=12, seed=2, parallel=3)
    assert len(some.broken) == len(hit) and "the simulator exploded" in some.broken[0]
    assert f"episode {hit[0]}, step {late}" in some.broken[0]
    # the others are what they would have been
    assert equal(Rollouts([e for i, e in enumerate(whole.episodes) if i not in hit]), some)
    assert some.summary()["broken"] == len(hit)
    with pytest.raises(
        HeedfulError, match=r"episodes broke; the first ones:\n  episode \d+, step 0: RuntimeError"
    ):
        roll_out(lambda: Line(broken=0), forward, episodes=12, seed=2)


def test_a_reset_that_raises_and_a_reward_that_is_no_number() -> None:
    class Lost(Line):
        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            raise OSError("no such maze")

    class Worthless(Line):
        def step(self, action: np.ndarray) -> Any:
            seen, _, *rest = super().step(action)
            return seen, float("nan") if self.steps == 2 else -1.0, *rest

    with pytest.raises(HeedfulError, match="episode 0, reset: OSError: no such maze"):
        roll_out(Lost, forward, episodes=10, seed=0)
    with pytest.raises(HeedfulError, match="episode 0, step 1: ValueError: the reward is nan"):
        roll_out(Worthless, forward, episodes=10, seed=0)


@pytest.mark.parametrize(
    ("step", "seen", "reward", "said"),
    [
        (0, np.array([np.nan]), 0.0, "reset: ValueError: number 0 of the observation 'state' is nan"),
        (2, np.array([np.inf]), 0.0, "step 1: ValueError: number 0 of the observation 'state' is inf"),
        (2, np.zeros(2), 0.0, r"step 1: ValueError: .* the shapes \{'state': \(2,\)\}; the first one had"),
        (2, {"other": np.zeros(1)}, 0.0, r"step 1: ValueError: .* the shapes \{'other': \(1,\)\}"),
        (2, np.array(["far"]), 0.0, "step 1: HeedfulError: .* no numbers, no image"),
        (2, np.zeros(1), None, "step 1: ValueError: the reward is None; one finite number"),
        (2, np.zeros(1), np.zeros(2), "step 1: ValueError: the reward is .*; one finite number"),
    ],
)
def test_what_is_no_observation_and_no_reward_costs_its_episode(
    step: int, seen: Any, reward: Any, said: str
) -> None:
    whole = roll_out(Line, forward, episodes=8, seed=2)
    bad = whole.episodes[3].info["seed"]

    class Odd(Line):
        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            first, info = super().reset(seed=seed)
            self.bad = seed == bad
            return (seen if self.bad and step == 0 else first), info

        def step(self, action: np.ndarray) -> Any:
            result = super().step(action)
            return (seen, reward, *result[2:]) if self.bad and self.steps == step else result

    some = roll_out(Odd, forward, episodes=8, seed=2, parallel=3)
    assert len(some.broken) == 1 and re.match(f"episode 3, {said}", some.broken[0]), some.broken
    assert equal(Rollouts([e for i, e in enumerate(whole.episodes) if i != 3]), some)


def test_rollouts_go_into_a_buffer(tmp_path: Path) -> None:
    env = Line()
    buffer = ReplayBuffer(tmp_path / "r", shapes_of(env), 1)
    rollouts = roll_out(Line, forward, episodes=3, seed=0, task="go right")
    for episode in rollouts.episodes:
        buffer.add(episode)
    assert buffer.episodes == 3 and buffer.infos[0]["task"] == "go right"
    assert action_space_of(env, 2).shape == (2, 1)


def test_observations_of_all_kinds() -> None:
    image = np.zeros((8, 6, 3), np.uint8)
    seen = to_observation(
        {"observation": np.zeros((2, 2)), "desired_goal": np.ones(3, np.float64), "pixels": image}
    )
    assert seen["observation"].shape == (4,) and seen["desired_goal"].dtype == np.float32
    assert seen["pixels"].shape == (3, 8, 6) and list(to_observation(image)) == ["image"]
    with pytest.raises(HeedfulError, match="no numbers, no image"):
        to_observation({"name": np.array(["a"])})


@pytest.mark.parametrize(
    ("space", "said"),
    [
        (spaces.Discrete(3), "a vector of bounded numbers"),
        (spaces.Box(-np.inf, np.inf, (2,)), "finite bounds.*--action-bounds data"),
    ],
)
def test_actions_it_cannot_bound(space: Any, said: str) -> None:
    env = Line()
    env.action_space = space
    with pytest.raises(HeedfulError, match=said):
        action_space_of(env)


def test_a_gymnasium_environment_of_its_own() -> None:
    """Pendulum, with random actions between its bounds."""
    make = lambda: gym.make("Pendulum-v1")  # noqa: E731
    space = action_space_of(make())
    generator = torch.Generator().manual_seed(0)

    def act(observations: Any) -> Tensor:
        return space.uniform(len(observations["state"]), generator=generator)

    rollouts = roll_out(make, act, episodes=2, seed=0)
    assert [e.steps for e in rollouts.episodes] == [200, 200] and not rollouts.broken
    assert shapes_of(make()) == {"state": (3,)} and rollouts.episodes[0].observations["state"].shape == (
        201,
        3,
    )
