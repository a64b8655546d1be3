"""Tasks with scripted behaviours: their behaviours solve them, and what is collected is a function of the seed."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from heedful.data import peaks
from heedful.data.worlds import maze, sawyer, sparse
from heedful.errors import HeedfulError
from heedful.evals.environments import opener
from heedful.recipes import act, act_collect, act_freeze, act_report
from heedful.run import open_run

pytestmark = pytest.mark.filterwarnings("ignore")
WORLD = "heedful.data.worlds"
SOLVED = {
    "maze": ("gymnasium_robotics", f"{WORLD}.maze:PlayMaze-UMaze-v0", "solve", {}),
    "maze-tuning": ("gymnasium_robotics", f"{WORLD}.maze:PlayMaze-Tuning-v0", "solve", {}),
    "sawyer": ("metaworld", f"{WORLD}.sawyer:Sawyer-v0", "scripted", {"task": "push-v3"}),
    "drawer": ("metaworld", f"{WORLD}.sawyer:Sawyer-v0", "scripted", {"task": "drawer-open-v3", "repeat": 2}),
    "fetch": ("gymnasium_robotics", f"{WORLD}.fetch:Fetch-v0", "scripted", {"task": "push"}),
    "fetch-pick": ("gymnasium_robotics", f"{WORLD}.fetch:Fetch-v0", "scripted", {"task": "pick"}),
    "cube": ("ogbench", f"{WORLD}.cube:Cube-v0", "oracle", {"task": 1}),
}


def episode(env: Any, behaviour: Any, seed: int, steps: int = 1000) -> dict[str, Any]:
    """What is seen and earned until the episode ends, or `steps` are over."""
    seen, _ = env.reset(seed=seed)
    act, out = behaviour(env, np.random.default_rng(seed)), {"seen": [seen], "reward": [], "info": {}}
    ended = cut = False
    while not (ended or cut) and len(out["reward"]) < steps:
        action = np.clip(act(seen), env.action_space.low, env.action_space.high)
        seen, reward, ended, cut, out["info"] = env.step(action)
        out["seen"].append(seen)
        out["reward"].append(reward)
    return {**out, "seen": np.stack(out["seen"]), "ended": ended}


@pytest.mark.parametrize("name", SOLVED)
def test_its_behaviour_solves_it_and_an_episode_depends_on_its_seed_alone(name: str) -> None:
    package, spec, behaviour, options = SOLVED[name]
    pytest.importorskip(package)
    act_by = getattr(import_module(spec.partition(":")[0]), behaviour)
    env = gym.make(spec, **options)
    first = episode(env, act_by, 5)
    assert first["ended"] and first["info"]["success"]
    assert first["reward"][-1] == 1 and not any(first["reward"][:-1])
    assert first["seen"].dtype == np.float32 and first["seen"].shape[1:] == env.observation_space.shape
    # after another episode that was broken off, and another place
    other = episode(env, act_by, 6, steps=4)
    assert not np.array_equal(first["seen"][0], other["seen"][0])
    again = episode(env, act_by, 5, steps=12)
    np.testing.assert_array_equal(again["seen"], first["seen"][: len(again["seen"])])
    env.close()


def test_a_maze_is_one_of_gymnasiums() -> None:
    pytest.importorskip("gymnasium_robotics")
    check_env(gym.make(f"{WORLD}.maze:PlayMaze-UMaze-v0").unwrapped, skip_render_check=True)


def test_play_knows_of_no_goal_and_goes_everywhere_and_a_biased_one_pushes_aside() -> None:
    pytest.importorskip("gymnasium_robotics")
    env = gym.make(f"{WORLD}.maze:PlayMaze-Tuning-v0", start="anywhere", max_episode_steps=400)
    task, been = env.unwrapped, set()
    for seed in range(3):
        seen = episode(env, maze.play, seed)["seen"]
        been |= {task.cell_of(place) for place in seen[:, :2]}
    assert len(been) >= len(maze.cells(task.map)) - 1
    here = np.append(task.middle((1, 4)), [0, 0]).astype(np.float32)
    force, askew = (getattr(maze, name)(env, np.random.default_rng(0))(here) for name in ("solve", "biased"))
    assert np.abs(force).max() == pytest.approx(1) and np.linalg.norm(askew) <= maze.WEAK + 1e-6
    env.close()


def test_ways_through_a_maze_by_hand() -> None:
    """1 1 1 1 / 1 a . 1 / 1 1 . 1 / 1 b . 1 / 1 1 1 1: from a to b are four steps."""
    walls = ((1, 1, 1, 1), (1, 0, 0, 1), (1, 1, 0, 1), (1, 0, 0, 1), (1, 1, 1, 1))
    assert maze.farthest(walls) == ((1, 1), (3, 1))
    assert maze.distances(walls, (3, 1)) == {(3, 1): 0, (3, 2): 1, (2, 2): 2, (1, 2): 3, (1, 1): 4}
    assert maze.farthest(maze.TUNING) == ((1, 4), (3, 4))


def test_random_phases_hold_an_action_and_spoil_some_episodes() -> None:
    pytest.importorskip("metaworld")
    env = gym.make(f"{WORLD}.sawyer:Sawyer-v0", task="drawer-open-v3")
    seen, _ = env.reset(seed=0)
    plain, broken = (
        sawyer.scripted(env, np.random.default_rng(0)),
        sawyer.phases(env, np.random.default_rng(0)),
    )
    same = [np.array_equal(plain(seen), broken(seen)) for _ in range(300)]
    least, most = sawyer.PHASE
    runs = "".join("." if s else "x" for s in same).strip("x").split(".")
    lengths = [len(run) for run in runs if run]
    assert 0.2 < np.mean(same) < 0.9 and min(lengths) >= least
    assert len(lengths) > 5 and sorted(lengths)[len(lengths) // 2] <= most
    env.close()


@pytest.mark.parametrize(
    ("spec", "options", "said"),
    [
        (f"{WORLD}.maze:PlayMaze-UMaze-v0", ("start=there",), "starts cell and anywhere"),
        (f"{WORLD}.sawyer:Sawyer-v0", ("task=fly-v3",), "MetaWorld has no task 'fly-v3'; it has assembly"),
        (f"{WORLD}.fetch:Fetch-v0", ("task=throw",), "choose push, pick"),
        (f"{WORLD}.cube:Cube-v0", ("task=9",), "tasks 1 to 5"),
    ],
)
def test_options_that_a_world_does_not_have(spec: str, options: tuple[str, ...], said: str) -> None:
    for name in ("gymnasium_robotics", "metaworld", "ogbench"):
        pytest.importorskip(name)
    with pytest.raises(HeedfulError, match=said):
        opener(spec, options)()


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(sparse, "import_module", missing)
    for spec in (f"{WORLD}.maze:PlayMaze-UMaze-v0", f"{WORLD}.cube:Cube-v0", f"{WORLD}.fetch:Fetch-v0"):
        with pytest.raises(HeedfulError, match=r"pip install 'heedful\[worlds\]'"):
            opener(spec)()


# ---- the bandit


def test_four_peaks_and_data_with_and_without_what_is_best() -> None:
    env = gym.make("heedful.data.peaks:Peaks-v0")
    heights = []
    for place in peaks.PLACES:
        env.reset(seed=0)
        _, reward, ended, _, info = env.step(place)
        heights.append(reward)
        assert ended and info["success"] == (
            place is peaks.PLACES[0] or np.array_equal(place, peaks.PLACES[0])
        )
    assert heights == pytest.approx(peaks.HEIGHTS.tolist(), abs=1e-3)
    found = {"around": [], "beside": []}
    for seed in range(200):
        for name, far in found.items():
            env.reset(seed=seed)
            action = getattr(peaks, name)(env, np.random.default_rng(seed))(np.zeros(1))
            far.append(np.linalg.norm(peaks.PLACES - np.clip(action, -1, 1), axis=1).min())
    assert max(found["around"]) < 1e-6 and min(found["beside"]) > peaks.NEAR + 0.05
    turned = gym.make("heedful.data.peaks:Peaks-v0", turned=True).unwrapped.places
    assert np.abs(turned).min(1) == pytest.approx(0, abs=1e-6), "on the axes"


# ---- freezing


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> list[act.Config]:
    """Clones are not trained: one succeeds the less, the more noise its data have. What was asked for, in order."""
    asked: list[act.Config] = []

    def clone(cfg: act.Config, run: Any) -> dict[str, Any]:
        asked.append(cfg)
        noise = json.loads((Path(cfg.data[0]) / "report.json").read_text())["data"]["noise"]
        return {"cloned_success": max(0.0, 0.95 - sum(noise))}

    monkeypatch.setattr(act, "run", clone)
    monkeypatch.setattr(act_collect, "PART", 4)
    return asked


def collecting(folder: Path, **more: Any) -> act_collect.Config:
    options: dict[str, Any] = {"noise": (0.1, 0.2), "episodes": 6, "freeze": (0.3, 0.5), "scales": (1, 2, 3)}
    return act_collect.Config(
        env="heedful.data.point_reach:PointReach-v0",
        behaviour=("heedful.data.point_reach:corners",),
        out=str(folder),
        quiet=True,
        **{**options, **more},
    )


def collected(cfg: act_collect.Config) -> dict[str, Any]:
    with open_run(cfg.out, cfg, seed=cfg.seed, volatile=act_collect.VOLATILE) as run:
        return act_collect.run(cfg, run)


def test_the_first_noise_whose_clone_is_neither_good_nor_useless_is_taken(
    trials: list[act.Config], tmp_path: Path
) -> None:
    result = collected(collecting(tmp_path / "a"))
    assert result["noise"] == [0.2, 0.4] and result["clone_success"] == pytest.approx(0.35)
    assert [cfg.seed for cfg in trials] == [act_freeze.VALIDATION] * 2, "3 is not tried; seeds of their own"
    said = json.loads((tmp_path / "a" / "manifest.json").read_text())["frozen"]
    assert said["scale"] == 2 and said["inside"] and [one["scale"] for one in said["tried"]] == [1, 2]
    report = json.loads((tmp_path / "a" / "report.json").read_text())
    assert report["tables"][-1]["rows"][1] == ["2", "0.2 0.4", "35.0%", "taken"] and not report["warnings"]
    # the data are those that the clone learned from
    for name in ("column-00.bin", "column-01.bin", "episodes.jsonl"):
        assert (tmp_path / "a/data" / name).read_bytes() == (tmp_path / "a/freeze/2/data" / name).read_bytes()
    again = collected(collecting(tmp_path / "a"))
    assert again == result and len(trials) == 2
    assert json.loads((tmp_path / "a" / "manifest.json").read_text())["frozen"] == said


def test_where_no_noise_is_right_the_nearest_is_taken_and_said(
    trials: list[act.Config], tmp_path: Path
) -> None:
    result = collected(collecting(tmp_path / "a", scales=(0.5, 1, 0.2)))
    assert result["clone_success"] == pytest.approx(0.65) and len(trials) == 3
    report = json.loads((tmp_path / "a" / "report.json").read_text())
    assert "65.0%, was taken" in report["warnings"][0]


def test_a_real_clone_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(act_report, "write_report", lambda folder: folder)
    result = collected(collecting(tmp_path / "a", scales=(1,), clone_steps=2, clone_episodes=3))
    assert 0 <= result["clone_success"] <= 1
    told = json.loads((tmp_path / "a" / "freeze" / "1.json").read_text())
    assert told == {"success": result["clone_success"], "episodes": 3, "seed": act_freeze.VALIDATION}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"freeze": (0.5, 0.3)}, "the least and the most"),
        ({"freeze": (0.3,)}, "the least and the most"),
        ({"noise": (0.0,)}, "which is 0"),
        ({"scales": ()}, "--scales"),
        ({"clone_steps": 0}, "at least 1"),
    ],
)
def test_options_of_freezing_that_make_no_sense(more: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(HeedfulError, match=said):
        act_collect.main(collecting(tmp_path / "a", **more))
