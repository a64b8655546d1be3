"""`heedful act` on robot demonstrations: rewards out of marks of success, the environment's observations alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import episode_sets
import h5py
import numpy as np
import pytest
from test_act import SMALL
from test_act import data as corners  # noqa: F401 - a fixture
from test_episodes_layouts import robomimic

from heedful.data.episodes import Feature, Info
from heedful.data.episodes.lerobot import LeRobotEpisodes
from heedful.data.episodes.write import EpisodeWriter
from heedful.data.offline_files import Found, kind_of, read_episodes
from heedful.data.offline_import import import_episodes
from heedful.data.replay import ReplayBuffer
from heedful.errors import HeedfulError
from heedful.recipes import act, act_plan
from heedful.run import open_run

POINT = Info(
    fps=10,
    features={
        "observation.state": Feature("float32", (2,)),
        "observation.images.top": Feature("image", (64, 64, 3), ["height", "width", "channels"]),
        "action": Feature("float32", (2,)),
    },
)


def written(folder: Path, collected: str, *, info: Info = POINT, marks: bool = True, **columns: Any) -> Path:
    """What `act collect` has written as a LeRobotDataset, the states after the last steps left out."""
    buffer = ReplayBuffer(Path(collected) / "data", {"state": (2,)}, 2)
    writer = EpisodeWriter(folder, info)
    for number in range(buffer.episodes):
        episode = buffer.episode(number)
        for t in range(episode.steps):
            row: dict[str, Any] = {
                "observation.state": episode.observations["state"][t],
                "action": episode.action[t],
            }
            if "observation.images.top" in info.features:
                row["observation.images.top"] = episode_sets.picture(number, t)
            writer.add_frame(row | {name: value(episode, t) for name, value in columns.items()})
        good = bool(episode.reward.sum() > 0)
        writer.save_episode(["go to the corner"], {"success": good} if marks else {})
    writer.finalize()
    return folder


def read(path: Path, **more: Any) -> list[Found]:
    return list(read_episodes(path, **more))


def test_marks_of_success_are_the_sparse_rewards_they_were(corners: str, tmp_path: Path) -> None:  # noqa: F811
    made, original = read(written(tmp_path / "set", corners)), read(Path(corners))
    assert len(made) == len(original) == 80
    outcomes = set()
    for one, of in zip(made, original, strict=True):
        good = bool(of.episode.reward.sum() > 0)
        outcomes.add(good)
        # the state after a success stands for itself; of a failure the last step is left out
        steps = of.episode.steps - (not good)
        assert one.left_out == (not good) and one.episode.steps == steps
        assert np.array_equal(one.episode.reward, of.episode.reward[:steps])
        assert np.array_equal(one.episode.terminal, of.episode.terminal[:steps])
        assert np.array_equal(one.episode.action, of.episode.action[:steps])
        state, known = one.episode.observations["state"], of.episode.observations["state"]
        assert np.array_equal(state[:steps], known[:steps]) and len(state) == steps + 1
        assert one.episode.info["task"] == "go to the corner" and one.episode.info["success"] is good
        assert one.episode.observations["images.top"].shape == (steps + 1, 3, 64, 64)
    assert outcomes == {True, False}
    picture = episode_sets.picture(3, 2).transpose(2, 0, 1)
    assert np.array_equal(made[3].episode.observations["images.top"][2], picture)


def test_rewards_of_the_data_come_first(corners: str, tmp_path: Path) -> None:  # noqa: F811
    columns = {
        "next.reward": lambda episode, t: np.float32(t + 0.5),
        "next.done": lambda episode, t: t == episode.steps - 1,
        "next.truncated": lambda episode, t: t == episode.steps - 1 and episode.reward.sum() == 0,
    }
    kinds = {"next.reward": "float32", "next.done": "bool", "next.truncated": "bool"}
    features = {n: f for n, f in POINT.features.items() if not f.is_picture}
    features |= {name: Feature(kind, (1,)) for name, kind in kinds.items()}
    info = Info(fps=10, features=features)
    for one, of in zip(
        read(written(tmp_path / "set", corners, info=info, marks=False, **columns)),
        read(Path(corners)),
        strict=True,
    ):
        good = of.episode.reward.sum() > 0
        assert np.array_equal(one.episode.reward, np.arange(one.episode.steps) + 0.5)
        assert one.episode.terminal.sum() == one.episode.terminal[-1] == good
        assert "success" not in one.episode.info and one.left_out == (not good)


def test_only_what_the_environment_sees_is_read(
    corners: str,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = written(tmp_path / "set", corners)

    def closed(self: LeRobotEpisodes, i: int, camera: str, indices: Any) -> Any:
        raise AssertionError(f"{camera} was read")

    monkeypatch.setattr(LeRobotEpisodes, "frames", closed)
    buffer, facts = import_episodes([str(made)], tmp_path / "buffer", shapes={"state": (2,)})
    cfg = act_plan.settle(act.Config(out=str(tmp_path / "r"), data=(str(made),), dry_run=True, **SMALL))
    assert act.main(cfg) == 0 and "80 episodes" in capsys.readouterr().out, "the plan reads no picture either"
    assert buffer.shapes == {"state": (2,)} and facts["episodes"] == 80 and facts["left_out"] > 0
    with pytest.raises(
        HeedfulError, match=r"no observation of place is in the data; it has state, images\.top"
    ):
        import_episodes([str(made)], tmp_path / "other", shapes={"place": (2,)})
    with pytest.raises(HeedfulError, match="there is state; state, place is expected"):
        import_episodes([str(made)], tmp_path / "more", shapes={"state": (2,), "place": (2,)})
    with pytest.raises(HeedfulError, match=r"episode 0: observation\.state: a row has the shape \(2,\)"):
        import_episodes([str(made)], tmp_path / "shape", shapes={"state": (3,)})


def test_what_says_nothing_of_its_worth_is_refused(corners: str, tmp_path: Path) -> None:  # noqa: F811
    made = written(tmp_path / "set", corners, marks=False)
    with pytest.raises(
        HeedfulError, match=r"episode 0 has neither rewards \(next\.reward\) nor a mark of success"
    ):
        read(made)
    assert all(
        one.episode.reward[-1] == one.episode.terminal[-1] == 1 for one in read(made, unmarked_succeed=True)
    )
    bare = Info(fps=10, features={"observation.state": Feature("float32", (2,))})
    writer = EpisodeWriter(tmp_path / "bare", bare)
    writer.add_frame({"observation.state": np.zeros(2, np.float32)})
    writer.save_episode(["stand"], {"success": True})
    writer.finalize()
    with pytest.raises(HeedfulError, match=r"bare: action is missing; there are .*observation\.state"):
        read(tmp_path / "bare")


def test_rewards_whose_end_nobody_says_are_refused(corners: str, tmp_path: Path) -> None:  # noqa: F811
    columns = {"next.reward": lambda episode, t: np.float32(t == episode.steps - 1)}
    features = {n: f for n, f in POINT.features.items() if not f.is_picture}
    info = Info(fps=10, features=features | {"next.reward": Feature("float32", (1,))})
    made = written(tmp_path / "set", corners, info=info, marks=False, **columns)
    with pytest.raises(
        HeedfulError,
        match=r"set: episode 0 has rewards, but neither next\.done, .* nor a mark .*Add next\.done.*--unmarked-succeed",
    ):
        read(made)
    for one, of in zip(read(made, unmarked_succeed=True), read(Path(corners)), strict=True):
        steps = of.episode.steps
        assert one.episode.reward.tolist() == one.episode.terminal.tolist() == [0] * (steps - 1) + [1]
    marked = read(written(tmp_path / "marked", corners, info=info, **columns))
    assert all(one.episode.reward.sum() == one.episode.terminal.sum() for one in marked)


def test_episodes_that_say_nothing_of_their_worth_are_told_at_once_or_left_out(tmp_path: Path) -> None:
    features = {n: f for n, f in POINT.features.items() if not f.is_picture}
    writer = EpisodeWriter(tmp_path / "set", Info(fps=10, features=features))
    for good in (True, None, False, None):
        for _ in range(3):
            writer.add_frame({n: np.zeros(2, np.float32) for n in features})
        writer.save_episode(["stand"], {"success": good})
    writer.finalize()
    with pytest.raises(
        HeedfulError, match=r"2 problem\(s\) in 2 episode\(s\)(?s:.*)1 has neither(?s:.*)3 has neither"
    ):
        import_episodes([str(tmp_path / "set")], tmp_path / "r")
    buffer, facts = import_episodes([str(tmp_path / "set")], tmp_path / "r", drop_faulty=True)
    assert facts["faulty"] == 2 and [info["episode_index"] for info in buffer.infos] == [0, 2]


def test_robomimic_files_are_no_d4rl(tmp_path: Path) -> None:
    root = robomimic(tmp_path / "set")
    file = next(root.glob("*.hdf5"))
    assert kind_of(root)[0] == kind_of(file)[0] == "robot"
    with pytest.raises(HeedfulError, match=r"set: episode 0 has neither rewards"):
        read(root)
    rewards = []
    with h5py.File(file, "a") as opened:
        for name in ("demo_2", "demo_10"):
            rewards.append(np.arange(len(opened[f"data/{name}/actions"])) / 4)
            opened[f"data/{name}/rewards"] = rewards[-1]
    made = read(file)
    assert [one.episode.reward.tolist() for one in made] == [r.tolist() for r in rewards]
    assert [one.episode.terminal.tolist() for one in made] == [[0] * (len(r) - 1) + [1] for r in rewards]
    assert "images.agentview" in made[0].episode.observations


@pytest.mark.parametrize("options", [{}, {"env": "", "online_episodes": 0, "method": "clone"}])
def test_act_learns_from_demonstrations(corners: str, tmp_path: Path, options: dict[str, Any]) -> None:  # noqa: F811
    made = written(tmp_path / "set", corners)
    cfg = act_plan.settle(act.Config(out=str(tmp_path / "r"), data=(str(made),), **{**SMALL, **options}))
    with open_run(cfg.out, cfg, seed=cfg.seed, command="act", volatile=act.VOLATILE) as run:
        told = act.run(cfg, run)
    found = json.loads((tmp_path / "r" / "data.json").read_bytes())
    assert found["episodes"] == 80 and told["online_episodes"] == (2 if not options else 0)
    shapes = {"state": [2]} if not options else {"state": [2], "images.top": [3, 64, 64]}
    assert found["shapes"] == shapes
