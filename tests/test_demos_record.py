"""`heedful demos record`: DROID's protocol, cameras that must be live, marks that may be revised, kills, devices."""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_robot import CAMERAS, ToyRobot

from heedful.data.episodes import open_episodes
from heedful.data.episodes.write import EpisodeWriter
from heedful.data.robot import check_cameras, open_robot
from heedful.data.teleop import Controls, Gamepad, Keys, Scripted, open_teleop
from heedful.errors import HeedfulError
from heedful.recipes import demos_record_take
from heedful.recipes import demos_record_tasks as tasks
from heedful.recipes.demos_record import MarkEpisode, Record, mark, open_session, record
from heedful.recipes.demos_record_session import FAILURE, RECORDING, SUCCESS, Session, change_row
from heedful.recipes.demos_record_take import Take, recorded_info

TOY = f"{Path(__file__).with_name('toy_robot.py')}:robot"
WHO = {"collector": "Ada Lovelace", "building": "Engine house"}


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def session_in(folder: Path, **given: Any) -> Session:
    made = Session(folder, **given)
    made.set_up(**WHO, ticked=tasks.kinds_of(["3", "Move object into"]), typed=["water the plant"])
    made.new_scene()
    return made


def take(session: Session, robot: ToyRobot, said: str = "", **given: Any) -> Any:
    """One scripted episode; said: the mark, in place of the robot's own."""
    task = "nothing yet" if session.missing() else session.prompt().task
    one = Take(session, robot, Scripted(robot), task, **given)
    found = ""
    while not found:
        found = one.step()
    return one.end(said or found)  # type: ignore[arg-type]


def options(folder: Path, **given: Any) -> Record:
    own = {"robot": TOY, "teleop": "scripted", "own_tasks": ("push the square",), **WHO}
    return Record(str(folder), **{**own, **given})


# ---- what is asked for


def test_tasks_are_drawn_with_the_papers_weights() -> None:
    ticked, typed = list(tasks.KINDS), ["one of mine", "another of mine"]
    assert len(ticked) == 14
    drawn = [tasks.draw_task(ticked, typed, np.random.default_rng([0, n])) for n in range(8000)]
    several = [text for text in drawn if text.startswith("Do any")]
    assert 0.09 < len(several) / len(drawn) < 0.11
    forms = Counter(text.split(".")[0].split(",")[0] for text in several)
    assert len(forms) == 4 and min(forms.values()) > 0.2 * len(several)
    single = [text for text in drawn if not text.startswith("Do any")]
    counts = Counter(single)
    mine = sum(counts[text] for text in typed)
    assert 0.088 < mine / len(single) < 0.112
    kinds = np.array([counts[kind] for kind in tasks.KINDS])
    assert np.abs(kinds / kinds.sum() - 1 / 14).max() < 0.015


def test_lists_of_one_side_only_and_none() -> None:
    rng = np.random.default_rng(0)
    assert {tasks.draw_task([], ["a"], rng) for _ in range(30)} >= {"a"}
    assert all("a" not in tasks.draw_task(["KIND"], [], rng)[:1] for _ in range(30))
    with pytest.raises(HeedfulError, match="no tasks to draw"):
        tasks.draw_task([], [], rng)


def test_kinds_by_number_and_beginning() -> None:
    assert tasks.kinds_of(["1", "press", "14"]) == (tasks.KINDS[0], tasks.KINDS[13])
    for wrong, why in (("15", "is no kind"), ("open or close", "several"), ("", "is no kind")):
        with pytest.raises(HeedfulError, match=why):
            tasks.kinds_of([wrong])


def test_scene_changes_and_moves() -> None:
    changes = [tasks.draw_change(7, np.random.default_rng([1, n])) for n in range(4000)]
    assert 0.18 < sum(map(bool, changes)) / 4000 < 0.22 and {*changes} == {"", *tasks.CHANGES}
    rng = np.random.default_rng(0)
    assert tasks.draw_change(100, rng) == tasks.draw_change(300, rng) == tasks.MOVE
    assert tasks.MOVE not in {tasks.draw_change(0, rng) for _ in range(50)}


def test_prompt_stays_until_another_is_drawn(tmp_path: Path) -> None:
    first = session_in(tmp_path / "s", seed=3)
    asked = [first.prompt().task, *(first.next_task().task for _ in range(12))]
    assert len({*asked}) > 2 and first.prompt().task == asked[-1]
    assert Session(tmp_path / "s").prompt().task == asked[-1]


def test_old_scenes_are_asked_about(tmp_path: Path) -> None:
    clock = Clock()
    session = session_in(tmp_path / "s", clock=clock)
    assert session.prompt().warnings == ()
    clock.now += 21 * 60
    assert "time for a new one" in session.prompt().warnings[0]
    clock.now += 60 * 60
    assert "over an hour" in session.prompt().warnings[0]
    old = session.state.scene_id
    assert session.new_scene() != old and session.prompt().warnings == ()


def test_who_and_where_must_be_said_well(tmp_path: Path) -> None:
    session = Session(tmp_path / "s")
    assert len(session.missing()) == 4
    for wrong in ({"collector": "Ada"}, {"building": "B"}):
        with pytest.raises(HeedfulError, match="always spelt alike"):
            session.set_up(**wrong)
    with pytest.raises(HeedfulError, match="say first: who collects"):
        take(session, ToyRobot())
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(HeedfulError, match="not empty"):
        Session(tmp_path / "other")
    (tmp_path / "s" / "session.json").write_text("{")
    with pytest.raises(HeedfulError, match=r"session\.json cannot be read"):
        Session(tmp_path / "s")


# ---- one episode


def connected(**given: Any) -> ToyRobot:
    robot = ToyRobot(**given)
    robot.connect()
    return robot


def test_episode_is_a_failure_first_and_moved_when_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, robot = session_in(tmp_path / "s"), connected()
    places: list[str] = []
    kept = Session.keep

    def watched(self: Session, name: str) -> Any:
        one = kept(self, name)
        places.append(one.folder.parent.name)
        return one

    monkeypatch.setattr(Session, "keep", watched)
    one = take(session, robot)
    assert places == [FAILURE] and one.folder.parent.name == SUCCESS and one.success
    data = open_episodes(one.folder)
    assert len(data) == 1 and data.episode(0).length == one.frames == 12
    skipped = data.columns(0)["skip_action"]
    assert skipped.sum() == 3 and (data.columns(0)["action"][skipped] == 0).all()
    assert data.frames(0, CAMERAS[0], [0, 11]).shape == (2, 32, 48, 3)
    meta = data.episode(0).meta
    assert (
        meta["collector_id"] == "Ada Lovelace"
        and meta["building"] == "Engine house"
        and meta["robot_serial"] == "toy-1"
    )
    assert meta["scene_id"] == session.state.scene_id and meta["is_episode_successful"] is True
    # The date is not the collector (a mistake of a published port), nor is the building.
    assert len({meta["date"], meta["collector_id"], meta["building"]}) == 3
    robot.good = False
    assert take(session, robot).folder.parent.name == FAILURE and robot.stopped
    assert take(session, robot, "discard") is None
    assert len(session.episodes()) == 2 and not [*(session.folder / RECORDING).iterdir()]


def test_marks_and_instructions_may_be_revised(tmp_path: Path) -> None:
    session = session_in(tmp_path / "s")
    one = take(session, connected())
    back = session.mark(one.name, False)
    assert back.folder.parent.name == FAILURE and not back.success
    assert session.mark(one.name, True).success and session.mark(one.name, True).folder == one.folder
    told = session.describe(one.name, ["put it  there", "place it there"])
    data = open_episodes(told.folder)
    assert data.episode(0).tasks == ("put it there", "place it there")
    assert {*data.columns(0)["task_index"]} == {0} and told.task == one.task
    assert session.describe(one.name, ["once more"]).instructions == ("once more",)
    for wrong in ([], ["a", " "], ["a"] * 4):
        with pytest.raises(HeedfulError, match="one to 3"):
            session.describe(one.name, wrong)
    with pytest.raises(HeedfulError, match="no episode 'x'"):
        session.mark("x", True)


def test_a_kill_between_mark_and_move_is_made_good(tmp_path: Path) -> None:
    session, robot = session_in(tmp_path / "s"), connected()
    robot.good = False
    one = take(session, robot)
    change_row(one.folder, {"is_episode_successful": True, "tasks": ["told since"]})
    other = take(session, robot)
    shutil.move(other.folder, session.folder / RECORDING / other.name)  # saved, not yet moved to failure/
    (session.folder / RECORDING / "torn" / "videos").mkdir(parents=True)
    again = Session(session.folder)
    again.lock()
    assert [(e.name, e.success) for e in again.episodes()] == [(one.name, True), (other.name, False)]
    data = open_episodes(again.find(one.name).folder)
    assert data.episode(0).tasks == ("told since",) and not [*(session.folder / RECORDING).iterdir()]


def test_a_mark_leaves_what_a_recorder_has_in_hand(tmp_path: Path) -> None:
    session, robot = open_session(options(tmp_path / "s", new_scene=True), ToyRobot()), connected()
    first = take(session, robot)
    one = Take(session, robot, Scripted(robot), "task")
    one.step()
    before = session._file.read_bytes()
    assert mark(MarkEpisode(str(first.folder), outcome="failure", language=("a b",))) == 0
    assert session.find(first.name).folder.parent.name == FAILURE
    assert session.place(one.name).is_dir() and session._file.read_bytes() == before
    one.step()
    kept = one.end("success")
    assert kept is not None and kept.frames == 2 and len(session.episodes()) == 2


def test_an_episode_that_a_mark_moves_meanwhile_ends_no_recorder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, robot = session_in(tmp_path / "s"), connected()
    first, second = take(session, robot), take(session, robot)
    read = Session._kept

    def moved_first(self: Session, place: Path) -> Any:
        if place == first.folder:
            place.rename(self.folder / FAILURE / place.name)
        return read(self, place)

    monkeypatch.setattr(Session, "_kept", moved_first)
    session.__dict__.pop("_known")
    assert second.name in [one.name for one in session.episodes()]
    assert len(session.episodes()) == 2
    (second.folder / "meta" / "info.json").write_text("{")
    with pytest.raises(HeedfulError, match=second.name):  # what is damaged and has not moved is still told
        Session(tmp_path / "s").episodes()


def test_a_second_recorder_is_refused_while_the_first_is_at_work(tmp_path: Path) -> None:
    session, robot = open_session(options(tmp_path / "s", new_scene=True), ToyRobot()), connected()
    one = Take(session, robot, Scripted(robot), "task")
    for given in ({}, {"practice": True}):
        with pytest.raises(HeedfulError, match=rf"{tmp_path}/s is in use by process {os.getpid()}"):
            record(options(tmp_path / "s", episodes=1, **given))
    one.step()
    assert one.end("success") is not None
    session.close()
    with pytest.raises(HeedfulError, match="always spelt alike"):
        record(options(tmp_path / "s", collector="Ada"))
    assert record(options(tmp_path / "s", episodes=1)) == 0 and len(session.episodes()) == 2


class Pushing:
    """Somebody who holds a key for ever."""

    def begin(self) -> None:
        pass

    def read(self) -> Controls:
        return Controls(np.full(7, 0.1))

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    "ending", ["success", "failure", "discard", "limit", "camera", "full disk", "Ctrl-C"]
)
def test_the_robot_stands_still_however_an_episode_ends(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    robot = connected()
    one = Take(session_in(tmp_path / "s"), robot, Pushing(), "task")
    assert one.step() == "" and not robot.stopped
    if ending == "limit":
        monkeypatch.setattr(demos_record_take, "LONGEST", 2 / 15)
        one.end(one.step())
    elif ending == "camera":
        robot.broken = "none"
        with pytest.raises(HeedfulError, match="thrown away"):
            one.step()
    elif ending == "full disk":
        monkeypatch.setattr(EpisodeWriter, "add_frame", fails)
        with pytest.raises(HeedfulError, match="no space"):
            one.step()
    elif ending == "Ctrl-C":
        one.forget()
    else:
        one.end(ending)  # type: ignore[arg-type]
    assert robot.stopped and robot.connected


def fails(*_: Any) -> None:
    raise HeedfulError("no space is left")


class Deaf(ToyRobot):
    """Fails after three steps, and cannot be stopped either."""

    def act(self, action: Any) -> Any:
        if action is None or self.count > 5:
            raise HeedfulError("cannot be stopped" if action is None else "the cable is out")
        return super().act(action)


def test_a_robot_that_cannot_be_stopped_does_not_hide_why_the_episode_ended(tmp_path: Path) -> None:
    session, robot = session_in(tmp_path / "s"), Deaf()
    robot.connect()
    one = Take(session, robot, Pushing(), "task")
    with pytest.raises(HeedfulError, match="cable is out"):
        for _ in range(9):
            one.step()
    robot.count = 0
    one = Take(session, robot, Pushing(), "task")
    one.step()
    with pytest.raises(HeedfulError, match="cannot be stopped"):
        one.end("success")
    assert not session.episodes() and not [*(session.folder / RECORDING).iterdir()]


def test_a_reset_that_breaks_leaves_no_robot_moving(tmp_path: Path) -> None:
    robot = connected()
    robot.reset = fails
    with pytest.raises(HeedfulError, match="no space"):
        Take(session_in(tmp_path / "s"), robot, Pushing(), "task")
    assert robot.stopped


@pytest.mark.parametrize("camera_hz", [15, 5])
def test_a_camera_that_runs_by_the_clock_is_live(
    tmp_path: Path, camera_hz: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    robot = ToyRobot(steps=24, camera_hz=camera_hz)
    monkeypatch.setattr("heedful.data.robot.open_robot", lambda spec, **given: robot)
    assert record(options(tmp_path / "s", episodes=1)) == 0
    assert Session(tmp_path / "s").episodes()[0].frames == 24


@pytest.mark.parametrize(
    ("broken", "why"), [("none", "no picture"), ("hangs", "hangs"), ("shape", r"not uint8 \(32")]
)
def test_nothing_is_recorded_unless_every_camera_is_live(tmp_path: Path, broken: str, why: str) -> None:
    session, robot = session_in(tmp_path / "s"), connected()
    robot.broken = broken
    with pytest.raises(HeedfulError, match=f"wrist.*{why}"):
        take(session, robot)
    assert not session.episodes()
    robot.broken = ""
    one = Take(session, robot, Scripted(robot), "task")
    robot.broken = broken
    robot.steps = 99
    with pytest.raises(HeedfulError, match=f"{why}.*thrown away"):
        for _ in range(40):
            one.step()
    assert robot.stopped and not session.episodes() and not [*(session.folder / RECORDING).iterdir()]
    with pytest.raises(HeedfulError, match="names no camera"):
        robot.info = type(robot.info)(15, "blind", {"action": robot.info.features["action"]})
        check_cameras(robot)


def test_practice_saves_nothing(tmp_path: Path) -> None:
    session = Session(tmp_path / "s")
    assert take(session, connected(), practice=True) is None
    assert not session.episodes() and not [*(session.folder / RECORDING).iterdir()]


def test_a_robot_must_be_one(tmp_path: Path) -> None:
    with pytest.raises(HeedfulError, match="has no info, connect"):
        open_robot(TOY.replace(":robot", ":lame"))
    for wrong in ("arm", "table:x", "nowhere.py:robot"):
        with pytest.raises(HeedfulError):
            open_robot(wrong)
    robot = ToyRobot()
    del robot.info.features["action"]  # type: ignore[attr-defined]
    with pytest.raises(HeedfulError, match="no column `action`"):
        recorded_info(robot)


# ---- the command


def test_command_records_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert record(options(tmp_path / "s", episodes=2)) == 0
    assert record(options(tmp_path / "s", episodes=1, collector="")) == 0
    session = Session(tmp_path / "s")
    assert len(session.episodes()) == 3 and len({e.meta["scene_id"] for e in session.episodes()}) == 1
    said = capsys.readouterr().out
    assert said.count("next task: ") == 3 and said.count("success: 12 frames, 3 idle") == 3
    one = session.episodes()[0]
    assert mark(MarkEpisode(str(one.folder), outcome="failure", language=("a b",))) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {
        "episode": str(session.folder / FAILURE / one.name),
        "success": False,
        "language": ["a b"],
    }
    for wrong in (MarkEpisode(str(tmp_path)), MarkEpisode(told["episode"])):
        with pytest.raises(HeedfulError):
            mark(wrong)
    with pytest.raises(HeedfulError, match="who collects"):
        record(options(tmp_path / "new", collector=""))
    with pytest.raises(HeedfulError, match="needs a terminal"):
        record(options(tmp_path / "s", teleop="keyboard"))


def test_killed_at_any_moment_it_loses_the_episode_in_hand_at_most(tmp_path: Path) -> None:
    program = (
        "import sys; from heedful.recipes.demos_record import Record, record; "
        f"record(Record(sys.argv[1], robot={TOY!r}, teleop='scripted', own_tasks=('push',), episodes=500, "
        "collector='Ada Lovelace', building='Engine house'))"
    )
    environment = {**os.environ, "TOY_PAUSE": "0.002", "TOY_FPS": "500", "PYTHONUNBUFFERED": "1"}
    saved = 0
    for wait in (0.0, 0.07, 0.031):
        running = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "s")],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert running.stdout is not None
        for line in running.stdout:
            if line.startswith(("success", "failure")):
                saved += 1
                if saved % 2 == 0:
                    break
        time.sleep(wait)
        running.send_signal(signal.SIGKILL)
        rest = running.stdout.read()
        running.wait()
        saved += rest.count("success:")
        with closing(Session(tmp_path / "s")) as session:
            session.lock()
            there = session.episodes()
        # What was said to be saved is there; one more may have been saved and not yet said.
        assert saved <= len(there) <= saved + 1
        saved = len(there)
        for one in there:
            data = open_episodes(one.folder)
            assert len(data) == 1 and not data.problems() and data.episode(0).length == 12
            assert len(data.frames(0, CAMERAS[1], range(12))) == 12
    assert saved >= 6


# ---- devices


def test_keys_move_while_they_are_held() -> None:
    clock = Clock()
    keys = Keys(speed=0.5, hold=0.4, clock=clock)
    assert keys.read().action is None
    keys.press("w")
    keys.press("c")
    action = keys.read().action
    assert action is not None and action.tolist() == [0.5, 0, 0, 0, 0, 0, 1]
    keys.press("s")  # the opposite of w
    assert keys.read().action.tolist() == [0, 0, 0, 0, 0, 0, 1]  # type: ignore[union-attr]
    clock.now += 0.5
    assert keys.read() == Controls(None, "")
    keys.press(" ")
    assert keys.read().action.tolist() == [0.0] * 7  # type: ignore[union-attr]
    keys.press("y")
    assert keys.read().mark == "success" and keys.read().mark == ""
    keys.press("n")
    keys.begin()
    assert keys.read() == Controls(None, "")


def test_gamepad_is_read_from_linux_events(tmp_path: Path) -> None:
    device = tmp_path / "js"
    os.mkfifo(device)
    pad = Gamepad(str(device), speed=1.0)
    out = os.open(device, os.O_WRONLY)

    def event(value: int, kind: int, number: int) -> bytes:
        return struct.pack("<IhBB", 0, value, kind, number)

    # The state at the start is told as events too: no mark, and triggers that have not been touched.
    os.write(out, event(0, 0x82, 5) + event(1, 0x81, 0))
    assert pad.read() == Controls(None, "")
    os.write(out, event(1, 1, 5) + event(-32767, 2, 1) + event(3000, 2, 0) + event(32767, 2, 5)[:3])
    assert pad.read().action.tolist() == [1, 0, 0, 0, 0, 0, 0]  # type: ignore[union-attr]
    os.write(out, event(32767, 2, 5)[3:] + event(1, 1, 1))
    controls = pad.read()
    assert controls.action is not None and controls.action[6] == 1 and controls.mark == "failure"
    os.write(out, event(0, 1, 5))
    assert pad.read().action is None
    os.close(out)
    pad.close()
    with pytest.raises(HeedfulError, match="plug it in"):
        open_teleop(f"gamepad:{tmp_path}/none", None)
    with pytest.raises(HeedfulError, match="is not keyboard"):
        open_teleop("telepathy", None)
    with pytest.raises(HeedfulError, match="needs the simulated table"):
        open_teleop("scripted", object())


def test_the_simulated_table_is_a_robot(tmp_path: Path) -> None:
    pytest.importorskip("mujoco")
    assert record(options(tmp_path / "s", robot="table:1", own_tasks=(), size=(48, 64))) == 0
    one = Session(tmp_path / "s").episodes()[0]
    assert (
        one.success == one.meta["simulator_success"]
        and one.task.split(" (")[0] in {*_kinds()}
        and one.instructions
    )
    data = open_episodes(one.folder)
    assert data.episode(0).tasks == one.instructions and len(data.info.cameras) == 3


def _kinds() -> tuple[str, ...]:
    from heedful.data.table.robot import KINDS

    return tuple(KINDS)
