"""`heedful correct run`: what is recorded, what a kill costs, the summary, and a person at a terminal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import talking
from talking import ExpertPair
from toy_robot import ToyRobot

pytest.importorskip("mujoco")

from heedful.data.corrections import CorrectionLog, clip_sayings, recorded
from heedful.data.episodes import open_episodes
from heedful.data.narrated import open_narrated
from heedful.errors import HeedfulError
from heedful.recipes import correct_models, correct_session
from heedful.recipes.correct_bodies import RobotBody
from heedful.recipes.correct_run import Options, main, problems
from heedful.recipes.correct_session import open_session
from heedful.recipes.correct_summary import summary
from heedful.recipes.correct_terminal import in_the_terminal

SHORT = 40
"""Steps of the episodes here."""


@pytest.fixture(autouse=True)
def pair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(correct_models, "open_talker", lambda run, device="cpu": ExpertPair())


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Episodes of PackTable end after `SHORT` steps."""
    monkeypatch.setattr("heedful.data.pack_table.LONGEST", SHORT)


def record(folder: Path, plans: list[dict[int, list[str]]], **given: Any) -> list[Any]:
    options = Options("pair", str(folder), episodes=99, **given)
    with open_session(options) as session:
        return [session.take(talking.Told(plan), "typed") for plan in plans]


PLANS = [
    {5: ["go higher"], 25: ["left a bit please"], 30: ["undo"], 33: ["dance"]},
    {2: ["go lower", "go higher"]},
]


def test_what_is_recorded_is_a_data_set_with_language(tmp_path: Path, short: None) -> None:
    saved = record(tmp_path / "d", PLANS)
    assert [one.index for one in saved] == [0, 1] and not saved[0].succeeded
    data, log = open_episodes(tmp_path / "d"), CorrectionLog(tmp_path / "d" / "corrections.jsonl")
    assert len(data) == 2 and data.episode(0).length == SHORT and data.problems() == []
    spoken = data.language(0)
    assert [r.content for r in spoken if r.style == "interjection"] == ["go higher"]
    commands = [(round(r.timestamp * 15), r.content) for r in spoken if r.style == "subtask"]
    assert commands == [
        (0, "open the bin"), (5, "go higher"), (20, "open the bin"), (25, "move left a bit"), (30, "open the bin")
    ]  # fmt: skip
    action = data.columns(0)["action"]
    assert (action[5:20, 2] == 0.5).all() and (action[20:25] == 0).all()
    meta = data.episode(0).meta
    assert meta["asked_step"][:2] == [0, 20] and meta["asked_command"][0] == "open the bin"
    assert (
        meta["stage_name"][0] == "open"
        and not any(meta["stage_done"])
        and meta["seed"] != data.episode(1).meta["seed"]
    )
    rows = log.rows()
    assert [r.status for r in rows] == ["accepted", "undone", "refused", "replaced", "accepted"]
    assert rows[0].clip == (0, 20) and rows[4].clip == (0, 17)
    narrated = open_narrated(tmp_path / "d")  # as `correct learn` reads it
    assert [s.kind for s in narrated.segments[0]][:2] == ["instruction", "correction"]
    assert {s.episode for s in clip_sayings(recorded(rows, len(data)))} == {0, 1}


def test_the_summary_counts_what_was_saved(
    tmp_path: Path, short: None, capsys: pytest.CaptureFixture[str]
) -> None:
    record(tmp_path / "d", PLANS)
    found = summary(tmp_path / "d")
    assert found["episodes"] == 2 and found["said"] == {
        "accepted": 2,
        "undone": 1,
        "refused": 1,
        "replaced": 1,
    }
    assert found["corrections_per_episode"]["estimate"] == 1 and found["open"]["interval"][1] > 0.5
    options = Options("pair", str(tmp_path / "d"), episodes=3, person="nobody", json=True)
    assert main(options) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["episodes"] == 3 and told["corrections_per_episode"]["estimate"] == pytest.approx(2 / 3)
    assert told == json.loads((tmp_path / "d" / "summary.json").read_text())
    assert main(Options("pair", str(tmp_path / "d"), episodes=3, person="nobody")) == 0
    assert "2 accepted" in capsys.readouterr().out


def test_the_rows_of_an_episode_that_was_not_saved_are_lost(tmp_path: Path, short: None) -> None:
    def trip(moment: Any) -> None:
        if moment.state.step == 12:
            raise HeedfulError("the cable is out")

    options = Options("pair", str(tmp_path / "d"), episodes=9)
    with open_session(options) as session:
        with pytest.raises(HeedfulError, match="cable"):
            session.take(talking.Told(PLANS[0]), "typed", each=trip)
        assert session.take(talking.Told(PLANS[0]), "typed", until=lambda: "drop") is None
        kept = session.take(talking.Told(PLANS[1]), "typed", until=lambda: "")
        assert kept is not None and kept.index == 0 and len(kept.rows) == 2
    data, rows = open_episodes(tmp_path / "d"), CorrectionLog(tmp_path / "d" / "corrections.jsonl").rows()
    assert len(data) == 1 and [r.status for r in rows] == ["lost", "replaced", "accepted"]
    assert [r.content for r in data.language(0) if r.style == "interjection"] == ["go higher"]
    assert summary(tmp_path / "d")["lost"] == 1


def test_other_settings_and_other_folders_are_refused(tmp_path: Path, short: None) -> None:
    record(tmp_path / "d", [{}])
    with pytest.raises(HeedfulError, match="seed"):
        record(tmp_path / "d", [{}], seed=1)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("")
    with pytest.raises(HeedfulError, match="choose another --out"):
        record(tmp_path / "other", [{}])
    with open_session(Options("pair", str(tmp_path / "d"))), pytest.raises(HeedfulError, match="in use"):
        record(tmp_path / "d", [{}])
    wrong = Options("r", person="scripted", episodes=0, wrong=2, delay=(1, 0.5), robot="x.py:f")
    assert len(problems(wrong)) == 5
    with pytest.raises(HeedfulError, match="--wrong"):
        main(wrong)


def test_what_is_left_of_a_set_is_not_begun_over(tmp_path: Path, short: None) -> None:
    record(tmp_path / "d", [{}])
    (tmp_path / "d" / "meta" / "info.json").unlink()
    before = {p: p.read_bytes() for p in (tmp_path / "d" / "meta").rglob("*") if p.is_file()}
    (tmp_path / "moved").mkdir()
    for place in list((tmp_path / "d").iterdir()):
        if place.name != "meta":
            place.rename(tmp_path / "moved" / place.name)
    with pytest.raises(HeedfulError, match="choose another --out"):
        record(tmp_path / "d", [{}])
    assert before == {p: p.read_bytes() for p in (tmp_path / "d" / "meta").rglob("*") if p.is_file()}


def test_a_dry_run_makes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(Options("pair", str(tmp_path / "d"), dry_run=True)) == 0
    assert "25 commands" in capsys.readouterr().out and not (tmp_path / "d").exists()


# ---- killed


def digest(folder: Path) -> dict[str, Any]:
    data = open_episodes(folder)
    return {
        str(i): [
            *(np.asarray(v).tobytes() for v in data.columns(i, ["action", "observation.state"]).values()),
            data.language(i),
            dict(data.episode(i).meta),
            *(data.frames(i, camera, [0, 20]).tobytes() for camera in data.info.cameras),
        ]
        for i in range(len(data))
    }


def test_a_kill_loses_the_episode_in_hand_and_the_same_command_goes_on(tmp_path: Path, short: None) -> None:
    """What a killed and a whole run end with is the same, but for the lost rows; none of those is learned from."""

    def options(name: str) -> Options:
        return Options("pair", str(tmp_path / name), episodes=2, delay=(0.1, 0.2), wrong=0.3, json=True)

    command = f"run pair --out {tmp_path / 'killed'} --episodes 2 --delay 0.1 0.2 --wrong 0.3 --json"
    environment = {**os.environ, "TALKING_SLOW": "0.03", "TALKING_LONGEST": str(SHORT)}
    killed = subprocess.Popen([sys.executable, talking.__file__, *command.split()], env=environment)
    log = tmp_path / "killed" / "corrections.jsonl"
    wait_for(lambda: log.exists() and any(row.episode == 1 for row in CorrectionLog(log).rows()))
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    before = CorrectionLog(log).rows()
    assert len(open_episodes(tmp_path / "killed")) == 1 and recorded(before, 1) != before
    for name in ("whole", "killed"):
        main(options(name))
    assert digest(tmp_path / "killed") == digest(tmp_path / "whole")
    rows, other = (CorrectionLog(tmp_path / n / "corrections.jsonl").rows() for n in ("killed", "whole"))
    begun = {row.id for row in before if row.episode == 1}
    assert {row.status for row in rows if row.id in begun} == {"lost"}
    alike = [[(r.episode, r.step, r.words, r.clip) for r in recorded(some, 2)] for some in (rows, other)]
    assert alike[0] == alike[1] and list(clip_sayings(recorded(rows, 2))) == list(clip_sayings(other))


def wait_for(true: Callable[[], Any], seconds: float = 40) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


# ---- at a terminal


class Typing:
    """A person who types a line once a text has been printed, or a moment later, and then goes away."""

    def __init__(self, *lines: str | tuple[str, str]) -> None:
        self.lines = [("", line) if isinstance(line, str) else line for line in lines]
        self.shown: list[str] = []

    def __iter__(self) -> Iterator[str]:
        for text, line in self.lines:
            wait_for(lambda text=text: any(text in one for one in self.shown))
            time.sleep(0 if text else 0.2)
            yield line + "\n"

    @property
    def told(self) -> str:
        return "\n".join(self.shown)


def at_a_terminal(folder: Path, *lines: str | tuple[str, str]) -> str:
    """What a terminal has shown when these lines were typed."""
    typing = Typing(*lines)
    with open_session(Options("pair", str(folder), person="terminal", episodes=0)) as session:
        in_the_terminal(session, typing, typing.shown.append)
    return typing.told


def test_a_person_at_a_terminal(tmp_path: Path) -> None:
    told = at_a_terminal(
        tmp_path / "d", "go higher", "", ("robot  open", "go higher"), "a bit to the left", ("move left", "undo"),
        ("taken back", "fly to the moon"), "?", "done", ("episode 1: Enter", ""), "wait", ("you  wait", "quit"),
    )  # fmt: skip
    assert "'go higher' not taken: no episode is running" in told
    assert "you  go higher" in told and "'a bit to the left' -> move left a bit (words" in told
    assert "taken back: 'a bit to the left'" in told and "'fly to the moon' not taken" in told
    assert "robot  open the bin  (0.70; try again 0.20, wait 0.10)" in told
    assert "candidates: open the bin (0.70)" in told
    data = open_episodes(tmp_path / "d")
    assert len(data) == 2 and data.episode(0).meta["ended_by"] == "person"
    rows = CorrectionLog(tmp_path / "d" / "corrections.jsonl").rows()
    assert [(r.status, r.source, r.episode) for r in rows] == [
        ("accepted", "typed", 0), ("undone", "typed", 0), ("refused", "typed", 0), ("accepted", "typed", 1)
    ]  # fmt: skip
    # in real time: a fifth of a second between two lines is three steps or a few more
    assert 2 <= rows[1].step - rows[0].step <= 8


def test_a_terminal_that_floods_and_one_that_closes(tmp_path: Path) -> None:
    told = at_a_terminal(tmp_path / "d", "", *[("Enter", "go higher")] * 30, ("too much at once", "drop"))
    assert "'go higher' not taken: too much at once" in told and "not kept" in told
    rows = CorrectionLog(tmp_path / "d" / "corrections.jsonl").rows()
    assert len(open_episodes(tmp_path / "d")) == 0 and {row.status for row in rows} <= {"lost"}
    assert at_a_terminal(tmp_path / "d").endswith("Enter begins, quit ends")


# ---- a robot of one's own


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> ToyRobot:
    """The robot of `with_a_driver`, moved by a pair that moves where it waits."""
    robot = ToyRobot()
    monkeypatch.setattr("heedful.data.robot.open_robot", lambda spec, **given: robot)
    monkeypatch.setattr(
        ExpertPair, "act", lambda self, seen, command, fresh: np.full(7, 0.1 * (command == "wait"))
    )
    making = SimpleNamespace(cameras={"left": "observation.images.left"}, state="observation.state")
    monkeypatch.setattr(ExpertPair, "making", making)
    return robot


def with_a_driver(folder: Path) -> Options:
    return Options("pair", str(folder), person="web", robot="toy.py:robot", task="tidy up")


def test_a_robot_with_a_driver(tmp_path: Path, toy: ToyRobot) -> None:
    with open_session(with_a_driver(tmp_path / "d")) as session:
        steps: list[int] = []
        saved = session.take(
            talking.ToldByCalls({3: "wait"}), "typed", each=lambda m: steps.append(m.state.step),
            until=lambda: "success" if len(steps) >= 8 else "",
        )  # fmt: skip
        assert saved is not None and saved.succeeded and saved.stages == {}
    assert not toy.connected and toy.tasks == ["tidy up"] and toy.stopped
    data = open_episodes(tmp_path / "d")
    assert data.episode(0).tasks == ("tidy up",) and data.episode(0).meta["robot_serial"] == "toy-1"
    assert data.columns(0)["action"][:, 0].tolist() == pytest.approx([0] * 3 + [0.1] * 5)
    assert [r.content for r in data.language(0) if r.style == "interjection"] == ["wait"]
    with pytest.raises(HeedfulError, match=r"no observation\.images\.nose"):
        RobotBody(toy, {"nose": "observation.images.nose"}, "observation.state", "t")


@pytest.mark.parametrize("ending", ["success", "drop", "limit", "camera", "driver", "Ctrl-C"])
def test_the_robot_stands_still_however_an_episode_ends(
    tmp_path: Path, ending: str, toy: ToyRobot, monkeypatch: pytest.MonkeyPatch
) -> None:
    moving: list[bool] = []

    def trip(moment: Any) -> None:
        moving.append(not toy.stopped)
        if len(moving) == 3 and ending == "camera":
            toy.broken = "none"
        elif len(moving) == 3 and ending in ("driver", "Ctrl-C"):
            raise HeedfulError("the cable is out") if ending == "driver" else KeyboardInterrupt

    def until() -> Any:
        return ending if len(moving) >= 3 and ending in ("success", "drop") else ""

    if ending == "limit":
        monkeypatch.setattr(correct_session, "LONGEST", 3 / 15)
    with open_session(with_a_driver(tmp_path / "d")) as session:
        try:
            saved = session.take(talking.ToldByCalls({}), "typed", each=trip, until=until)
            assert (saved is None) == (ending == "drop") and ending not in ("camera", "driver", "Ctrl-C")
        except (HeedfulError, KeyboardInterrupt) as error:
            assert {"camera": "no picture", "driver": "cable"}.get(ending, "") in str(error)
            assert ending in ("camera", "driver", "Ctrl-C")
        assert toy.stopped and toy.connected and all(moving) and len(moving) >= 3


def test_a_robot_that_cannot_be_stopped_does_not_hide_why_the_episode_ended(
    tmp_path: Path, toy: ToyRobot, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deaf(action: Any) -> Any:
        raise HeedfulError("cannot be stopped" if action is None else "the cable is out")

    monkeypatch.setattr(toy, "act", deaf)
    with (
        pytest.raises(HeedfulError, match="cable is out"),
        open_session(with_a_driver(tmp_path / "d")) as session,
    ):
        session.take(talking.ToldByCalls({}), "typed")
    assert not toy.connected


def test_a_robot_whose_cameras_run_by_the_clock(tmp_path: Path, toy: ToyRobot) -> None:
    toy.camera_hz = 15
    steps: list[int] = []
    with open_session(with_a_driver(tmp_path / "d")) as session:
        saved = session.take(
            talking.ToldByCalls({}), "typed", each=lambda m: steps.append(m.state.step),
            until=lambda: "success" if len(steps) >= 24 else "",
        )  # fmt: skip
    assert saved is not None and saved.steps == 24
