"""`heedful demos eval`: chunks are carried out at the right step; success, motion and films; settings; resumed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("mujoco")
pytest.importorskip("av")

from test_demos_train import SMALL

from heedful.data.episodes import open_episodes
from heedful.data.table import Table
from heedful.data.table.operator import Operator
from heedful.data.table.render import Pictures
from heedful.data.table.scene import vary
from heedful.data.table.sets import draw_trial, generate, held_out_scene, in_domain_tasks
from heedful.errors import HeedfulError
from heedful.evals.table_trials import HELD, Acting, Trials, stood_still
from heedful.policies.actions import ActionPolicy
from heedful.policies.droid import action_of
from heedful.recipes import demos_eval, demos_eval_report, demos_train
from heedful.recipes.demos_eval import Config

CAMERA = "observation.images.exterior_1_left"
ACTING = Acting((CAMERA,), 16, (24, 24), "absolute", 2, 8, 15, 0)
DRAWER = next(task for task in in_domain_tasks(0) if task.verb == "open")


class Told(ActionPolicy):
    """Gives chunks of actions that are known before: entry 0 is the step before the present."""

    def __init__(self, actions: np.ndarray) -> None:
        self.actions, self.at, self.seen = actions, 0, []

    def act(self, observations: Any, n: int = 1, **_: Any) -> torch.Tensor:
        self.seen.append(observations)
        places = np.clip(np.arange(self.at - 1, self.at + 15), 0, len(self.actions) - 1)
        self.at += 8
        chunk = torch.from_numpy(self.actions[places]).float()
        return chunk.expand(len(observations["task"]), 1, 16, 7)

    encode = draw = log_prob = loss = None  # type: ignore[assignment]


def tried(acting: Acting, policy: ActionPolicy, indices: list[int], **more: Any) -> list[dict[str, Any]]:
    with Trials(acting, seed=0, parallel=len(indices), **more) as trials:
        return trials.run(policy, DRAWER, indices, generator=torch.Generator())


@pytest.fixture(scope="module")
def shown() -> SimpleNamespace:
    """What the scripted operator does in trial 0, step by step, and where the arm was."""
    scene, layout = draw_trial(0, 0, DRAWER)
    table = Table(scene, cameras=())
    seen = table.reset(layout)
    operator = Operator(table, DRAWER, np.random.default_rng(3), mistake="", pauses=False)
    told: dict[str, list[Any]] = {"to": [], "grip": [], "at": []}
    while not operator.done:
        action = operator.act()
        if operator.done or action is None:
            break
        told["at"].append(seen["cartesian_position"])
        seen = table.act(action)
        told["to"].append(table.action["cartesian_position"])
        told["grip"].append(table.action["gripper_position"])
    assert table.succeeded(DRAWER)
    return SimpleNamespace(**{name: np.array(values) for name, values in told.items()})


# ---- trials


def test_a_demonstration_that_is_given_back_in_chunks_succeeds(
    shown: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every action once, in order, none twice: a policy that was carried out a step late would not open the drawer."""
    done, move = [], Table.move

    def noted(self: Table, action: Any, space: Any) -> Any:
        done.append(action)
        return move(self, action, space)

    monkeypatch.setattr(Table, "move", noted)
    policy = Told(action_of(shown.to, shown.grip, shown.at))
    (row,) = tried(ACTING, policy, [0])
    assert row["success"] == 1 and row["steps"] <= len(shown.to) and row["stuck"] == 0
    assert 0 < row["first_motion"] < 15 and row["nearest"] < 0.05
    wanted = np.concatenate([shown.to, shown.grip], 1)[: len(done)]
    np.testing.assert_allclose(np.array(done), wanted, atol=1e-5)
    first, second = policy.seen[:2]
    assert first[CAMERA].shape == (1, 2, 3, 16, 16) and first[CAMERA].dtype == torch.uint8
    assert torch.equal(first["state"][0, 0], first["state"][0, 1]) and not torch.equal(
        second["state"][0, 0], second["state"][0, 1]
    )
    assert (
        row["instruction"] == first["task"][0] in DRAWER.instructions(np.random.default_rng(0))
        or "drawer" in (row["instruction"])
    )
    assert tried(ACTING, Told(policy.actions), [0]) == [row]


@pytest.mark.parametrize("history", [1, 2, 9])
def test_frames_that_the_policy_is_not_shown_are_not_drawn(
    history: int, shown: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A film needs all of them: what the policy sees is the same with one."""
    drawn, draw = [], Pictures.draw

    def noted(self: Pictures, *given: Any) -> Any:
        drawn.append(1)
        return draw(self, *given)

    monkeypatch.setattr(Pictures, "draw", noted)
    acting, seen, counts = replace(ACTING, history=history), [], []
    for film in (lambda i: None, lambda i: tmp_path / f"{i}.mp4"):
        policy = Told(action_of(shown.to, shown.grip, shown.at))
        with Trials(acting, seed=0, parallel=1, max_steps=24) as trials:
            drawn.clear()
            trials.run(policy, DRAWER, [0], generator=torch.Generator(), film=film)
        counts.append(len(drawn))
        seen.append([{k: v for k, v in looked.items() if k != "task"} for looked in policy.seen])
    assert counts == [1 + 3 * min(history, 8), 25]
    assert len(seen[0]) == 3
    for one, other in zip(*seen, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_deltas_are_added_to_where_the_arm_is(shown: SimpleNamespace) -> None:
    delta = replace(ACTING, actions="delta")
    changes = action_of(shown.to, shown.grip, shown.at, "delta")
    (row,) = tried(delta, Told(changes), [0])
    assert row["success"] == 1
    still = np.zeros((1, 7), np.float32)
    rows = tried(delta, Told(still), [0, 1], max_steps=45)
    assert [(r["success"], r["first_motion"], r["stuck"], r["steps"]) for r in rows] == [(0, None, 1, 45)] * 2
    assert rows[0]["nearest"] != rows[1]["nearest"], "each trial has a start of its own"


def test_a_moment_of_success_is_none(shown: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = iter([True] * (HELD - 1) + [False] + [True] * 40)
    monkeypatch.setattr(Table, "succeeded", lambda self, task: next(steps))
    (row,) = tried(ACTING, Told(action_of(shown.to, shown.grip, shown.at)), [0])
    assert row["success"] == 1 and row["steps"] == HELD + HELD


def test_a_simulation_that_breaks_costs_its_trial_alone(
    shown: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    move = Table.move

    def breaks(self: Table, action: Any, space: Any) -> Any:
        if self is trials._tables[0] and self.steps == 3:
            raise HeedfulError("unstable")
        return move(self, action, space)

    monkeypatch.setattr(Table, "move", breaks)
    policy = Told(action_of(shown.to, shown.grip, shown.at))
    with Trials(ACTING, seed=0, parallel=2, max_steps=16) as trials:
        rows = trials.run(policy, DRAWER, [0, 1], generator=torch.Generator())
        with pytest.raises(HeedfulError, match="3 trials need as many tables"):
            trials.run(policy, DRAWER, [0, 1, 2], generator=torch.Generator())
    assert rows[0] == {"index": 0, "broken": "unstable"} and rows[1]["steps"] == 16
    told = demos_eval_report.summed(rows)
    assert (told["trials"], told["broken"]) == (1, 1)


def test_settings_change_the_scene_and_the_rate_must_fit() -> None:
    plain, scene = held_out_scene(0), {}
    for setting in ("distractors", "instance", "camera"):
        with Trials(ACTING, seed=0, setting=setting, parallel=1) as trials:  # type: ignore[arg-type]
            scene[setting] = trials._tables[0].scene
        assert scene[setting] == vary(plain, setting, 0) != plain  # type: ignore[arg-type]
    with pytest.raises(HeedfulError, match="15 steps a second; the policy acts at 10"):
        Trials(replace(ACTING, fps=10), seed=0)
    with pytest.raises(HeedfulError, match="no camera 'top'"):
        Trials(replace(ACTING, cameras=("observation.images.top",)), seed=0)


def test_standing_still() -> None:
    line = np.arange(80.0)[:, None] * np.array([[0.002, 0, 0]])
    assert not stood_still(line, 30) and stood_still(line[:1].repeat(31, 0), 30)
    assert not stood_still(line[:1].repeat(30, 0), 30)
    paused = np.concatenate([line[:20], line[20:21].repeat(31, 0), line[20:]])
    assert stood_still(paused, 30)


def test_sums_over_trials() -> None:
    rows = [
        {"success": 1, "steps": 40, "first_motion": 3, "stuck": 0, "nearest": 0.02},
        {"success": 0, "steps": 90, "first_motion": None, "stuck": 1, "nearest": 0.30},
        {"success": 0, "steps": 90, "first_motion": 6, "stuck": 0, "nearest": 0.10},
        {"index": 3, "broken": "x"},
    ]
    told = demos_eval_report.summed(rows)
    assert (
        told["success"] == pytest.approx(1 / 3, abs=1e-6)
        and told["interval"][0] < 1 / 3 < told["interval"][1]
    )
    assert told["first_motion_s"] == pytest.approx(0.3) and told["never_moved"] == pytest.approx(
        1 / 3, abs=1e-6
    )
    assert told["stuck"] == pytest.approx(1 / 3, abs=1e-6) and told["nearest_m"] == pytest.approx(0.14)


# ---- the command


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("table")
    generate(root / "shown", "in_domain", episodes=1, size=(24, 24))
    cfg = replace(SMALL, data=(str(root / "shown"),), out=str(root / "run"), steps=1)
    assert demos_train.main(cfg) == 0
    return root / "run"


def test_a_run_is_measured_filmed_and_resumed(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = Config(
        str(trained),
        out=str(tmp_path),
        settings=("as_shown", "camera"),
        tasks=(DRAWER.name,),
        episodes=3,
        parallel=2,
        max_steps=10,
        device="cpu",
    )
    run, calls = Trials.run, []

    def stops(self: Trials, *given: Any, **more: Any) -> Any:
        calls.append(given[2])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return run(self, *given, **more)

    monkeypatch.setattr(Trials, "run", stops)
    with pytest.raises(KeyboardInterrupt):
        demos_eval.main(cfg)
    assert demos_eval.main(cfg) == 0 and [list(i) for i in calls] == [[0, 1], [2], [0, 1], [0, 1], [2]]
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["seed"] == 0 and set(result["settings"]) == {"as_shown", "camera"}
    assert result["settings"]["camera"]["trials"] == 3 and result["out_of_distribution"]["trials"] == 3
    films = sorted(path.name for path in (tmp_path / "video").iterdir())
    assert films == ["as_shown-task0-000.mp4", "camera-task0-000.mp4"]
    filmed = tmp_path / "video" / films[0]
    import av

    with av.open(str(filmed)) as film:
        pictures = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert len(pictures) == 11 and pictures[0].shape == (64, 128, 3), "two cameras beside each other"
    assert "by setting and task" in (tmp_path / "report.html").read_text().lower()
    assert "stuck" in capsys.readouterr().out
    one = [json.loads(line) for line in (tmp_path / "camera/task0.jsonl").read_text().splitlines()]
    assert [row["index"] for row in one] == [0, 1, 2] and all(row["steps"] == 10 for row in one)


def test_what_cannot_be_measured_is_refused(trained: Path, tmp_path: Path) -> None:
    def refused(match: str, **more: Any) -> None:
        with pytest.raises(HeedfulError, match=match):
            demos_eval.main(replace(Config(str(trained), out=str(tmp_path / "out")), **more))

    refused(r"'sing' cannot be asked for at this scene; what can: .*open: drawer", tasks=("sing",))
    refused("holds no finished run", run=str(tmp_path))
    refused("--episodes", episodes=0)
    told = json.loads((trained / "policy.json").read_text())
    copied = tmp_path / "copied"
    copied.mkdir()
    (copied / "policy.json").write_text(json.dumps({**told, "table_seed": None}))
    (copied / "model").symlink_to(trained / "model")
    refused("say with --seed which scene", run=str(copied))
    (copied / "policy.json").write_text(json.dumps({**told, "format": "x"}))
    refused("policy.json is damaged", run=str(copied))


def test_pictures_have_the_size_of_the_data(trained: Path) -> None:
    told = json.loads((trained / "policy.json").read_text())
    data = open_episodes(trained.parent / "shown")
    assert told["drawn"] == [24, 24] == list(data.info.features[CAMERA].shape[:2])
    assert told["table_seed"] == 0 and told["history"] == 2 and told["fps"] == 15
