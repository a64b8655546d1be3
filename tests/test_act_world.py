"""Environments and behaviours by name, the point that reaches corners, and films of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from heedful.data.point_reach import CORNERS, PointReach
from heedful.errors import HeedfulError
from heedful.evals.environments import Behaving, behaviour_of, opener
from heedful.evals.video import check_renders, record
from heedful.policies.actions import ActionSpace

POINT = "heedful.data.point_reach:PointReach-v0"
SQUARE = ActionSpace((-1.0, -1.0), (1.0, 1.0))


def test_environments_by_name(tmp_path: Path) -> None:
    assert opener(POINT, ("moving=true",))().observation_space.shape == (4,)
    file = tmp_path / "env.py"
    file.write_text(
        "import gymnasium\ndef make():\n    return gymnasium.make('Pendulum-v1')\ndef none():\n    return 3\n"
    )
    assert opener(f"{file}:make")().action_space.shape == (1,)
    for spec, arguments, said in (
        ("NoSuch-v0", (), "there is no environment 'NoSuch-v0'"),
        ("no.such.module:Env-v0", (), "the module no.such.module cannot be imported"),
        (f"{file}:other", (), "has no function 'other'"),
        (f"{tmp_path}/none.py:make", (), "the environment's file .* does not exist"),
        (POINT, ("moving",), "'moving' is not name=value"),
    ):
        with pytest.raises(HeedfulError, match=said):
            opener(spec, arguments)
    with pytest.raises(HeedfulError, match="cannot be made: TypeError"):
        opener(POINT, ("colour=red",))()
    with pytest.raises(HeedfulError, match="has no reset, step"):
        opener(f"{file}:none")()


def test_behaviours_act_inside_the_bounds_and_repeat_themselves() -> None:
    def way(noise: float, seed: int) -> list[float]:
        reach = behaviour_of("heedful.data.point_reach:reach", SQUARE)
        env = Behaving(PointReach(), lambda seed: (reach, noise), SQUARE)
        env.reset(seed=seed)
        actions = []
        for _ in range(4):
            actions.append(env.next_action())
            env.step(actions[-1])
        assert np.abs(actions).max() <= 1 and actions[0].dtype == np.float32
        return np.concatenate(actions).tolist()

    assert way(0.0, 1) == pytest.approx([1.0] * 8, abs=0.3) and way(0.5, 1) == way(0.5, 1) != way(0.5, 2)
    random = behaviour_of("random", SQUARE)(None, np.random.default_rng(0))
    assert np.ptp([random(None) for _ in range(50)]) > 1.5
    short: Any = lambda env, generator: lambda observation: [0.0]  # noqa: E731
    wrong = Behaving(PointReach(), lambda seed: (short, 0.0), SQUARE)
    wrong.reset(seed=0)
    with pytest.raises(HeedfulError, match="2 finite numbers are expected"):
        wrong.next_action()
    with pytest.raises(HeedfulError, match="is not random, module:function"):
        behaviour_of("walk", SQUARE)


def test_the_point_reaches_its_corner() -> None:
    env = gym.make(POINT, render_mode="rgb_array")
    state, _ = env.reset(seed=0)
    total = 0.0
    for _ in range(20):
        state, reward, ended, cut, info = env.step(np.clip((CORNERS[0] - state) * 5, -1, 1))
        total += float(reward)
        if ended or cut:
            break
    assert ended and not cut and total == 1.0 and info["success"]
    picture: Any = env.render()
    assert picture.shape == (64, 64, 3) and (picture == [0, 150, 0]).all(-1).any()


def test_films_have_a_picture_for_each_state(tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="films need PyAV")

    def act(observations: Any) -> torch.Tensor:
        return torch.full((1, 1, 2), 0.5)

    films = record(
        lambda: gym.make(POINT, render_mode="rgb_array"), act, tmp_path, episodes=2, seed=0, max_steps=5
    )
    assert [film.name for film in films] == ["episode-000.mp4", "episode-001.mp4"]
    for film in films:
        with av.open(str(film)) as container:
            pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert len(pictures) == 6 and pictures[0].shape == (64, 64, 3)
    for wrong in (None, lambda: 1 / 0):
        env = PointReach(render_mode="rgb_array")
        env.render = wrong or (lambda: None)  # type: ignore[method-assign]
        with pytest.raises(
            HeedfulError, match="ZeroDivisionError.*leave --video out" if wrong else "no pictures"
        ):
            check_renders(lambda env=env: env)
    with pytest.raises(HeedfulError, match="gives no pictures"):
        record(lambda: gym.make(POINT), act, tmp_path, episodes=1, seed=0, max_steps=5)
