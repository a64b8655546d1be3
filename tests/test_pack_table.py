"""PackTable: the long task, its commands, narrated demonstrations with mistakes, and the scripted person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("mujoco")

from heedful.data.episodes import open_episodes
from heedful.data.pack_table import LID_OUT, LONGEST, ORDER, STAGES, PackTable, commands
from heedful.data.pack_table.commands import (
    CLOSE_BIN,
    CLOSE_HAND,
    COMMANDS,
    NUDGES,
    OPEN_BIN,
    PLACE,
    RELEASE,
    RETRY,
    WAIT,
    WORDINGS,
    WRONG,
    advised,
    due,
    follow,
    pick,
)
from heedful.data.pack_table.expert import MISTAKES, expert, narrate, write_narrations
from heedful.data.pack_table.people import CAUSES, Person, ScriptedPerson, TypedPerson
from heedful.data.table.operator import grasp_yaw
from heedful.data.table.render import Pictures
from heedful.errors import HeedfulError


@pytest.fixture(scope="module")
def blind() -> PackTable:
    return PackTable(size=None)


def do(table: PackTable, command: str, **given: Any) -> None:
    for action in expert(table, command, np.random.default_rng(0), **given):
        table.act(action)


def test_vocabulary() -> None:
    assert 24 <= len(COMMANDS) <= 30 and len(NUDGES) == 6 and RETRY in COMMANDS and WRONG in COMMANDS
    assert all(len({*texts}) == 3 and texts[0] == command for command, texts in COMMANDS.items())
    assert len(WORDINGS) == 3 * len(COMMANDS)  # no wording means two things


def test_the_task_from_open_to_close(blind: PackTable) -> None:
    blind.reset(1)
    assert not any(blind.stages.values()) and due(blind) == OPEN_BIN and blind.lid < 0.005
    said = []
    for expected in ("open", *(f"put {thing}" for thing in ORDER), "close"):
        while not blind.stages[expected]:
            said.append(due(blind))
            do(blind, said[-1])
    assert said == [OPEN_BIN, *(c for t in ORDER for c in (pick(t), PLACE, RELEASE)), CLOSE_BIN]
    assert blind.succeeded and blind.over and due(blind) == "" and blind.table.steps < LONGEST
    assert [*blind.stages] == [*STAGES] and len(STAGES) == 8


def test_order_counts(blind: PackTable) -> None:
    blind.reset(2)
    do(blind, OPEN_BIN)
    assert abs(blind.lid - LID_OUT) < 0.03
    do(blind, pick(ORDER[1]))
    assert blind.held == ORDER[1] and due(blind) == WRONG and not blind.stages[f"take {ORDER[1]}"]
    do(blind, WRONG)
    assert blind.held == "" and due(blind) == pick(ORDER[0])


@pytest.mark.parametrize("thing", ORDER)
def test_fingers_take_a_thing_at_any_yaw(
    blind: PackTable, thing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for turned in (0.0, 0.6, 1.2, np.pi / 2):
        monkeypatch.setattr(
            commands, "grasp_yaw", lambda one, turn, turned=turned: grasp_yaw(one, turn) + turned
        )
        blind.reset(4)
        do(blind, pick(thing))
        assert blind.held == thing and blind.lifted(thing), turned


def test_nudges_move_as_they_say(blind: PackTable) -> None:
    blind.reset(3)
    for command, way in NUDGES.items():
        before = blind.table.tip
        do(blind, command)
        moved = blind.table.tip - before
        assert 0.018 < moved @ np.array(way) < 0.04, command
        assert np.linalg.norm(moved - (moved @ np.array(way)) * np.array(way)) < 0.012, command
    with pytest.raises(HeedfulError, match="is no command"):
        next(follow(blind, "dance", np.random.default_rng(0)))
    for bad in ([0] * 4, [0, 0, 0, 0, np.nan]):
        with pytest.raises(HeedfulError, match="5 finite numbers"):
            blind.act(bad)


def test_a_step_is_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, draw = [], Pictures.draw

    def noted(self: Pictures, *given: Any) -> Any:
        drawn.append(1)
        return draw(self, *given)

    monkeypatch.setattr(Pictures, "draw", noted)
    table = PackTable(size=(16, 16))
    table.reset(0)
    drawn.clear()
    assert table.act(np.zeros(5))["wrist"].shape == (16, 16, 3) and len(drawn) == 1
    table.close()


def test_hand_stays_vertical(blind: PackTable) -> None:
    blind.reset(4)
    rng = np.random.default_rng(0)
    for _ in range(40):
        blind.act([*rng.uniform(-0.4, 0.4, 2), rng.uniform(-0.1, 0.4), *rng.uniform(-1, 1, 2)])
    from heedful.data.table.arm import joint_frames

    assert joint_frames(blind.table.joints)[7][2, 2] < -0.99


def test_narrations_are_functions_of_their_seed_and_succeed(blind: PackTable) -> None:
    first = narrate(blind, 5, mistake="")
    narrate(blind, 6, mistake="")
    again = narrate(blind, 5, mistake="")
    assert first.segments == again.segments and first.succeeded
    assert all((a == b).all() for a, b in zip(first.actions, again.actions, strict=True))
    assert all(s.kind == "instruction" for s in first.segments)
    _whole(first)


def _whole(told: Any) -> None:
    """Segments lie end to end, and each has words of its command."""
    at = 0
    for segment in told.segments:
        assert segment.start == at and segment.stop > at and WORDINGS[segment.text] == segment.command
        at = segment.stop
    assert at == len(told.actions) == len(told.frames)


def test_a_command_is_advised_until_it_is_done(blind: PackTable) -> None:
    """`due` jumps to the next command when the world allows it, a demonstration goes on to the end of this one."""
    blind.reset(3)
    said, early, command, steer = [], 0, "", iter(())
    while not blind.over:
        right = advised(blind, command)
        if not right:
            break
        if right != command:
            said.append(right)
            command, steer = right, expert(blind, right, np.random.default_rng(1))
        early += due(blind) not in (command, "")
        action = next(steer, None)
        steer = expert(blind, command, np.random.default_rng(1)) if action is None else steer
        blind.act(np.zeros(5) if action is None else action)
    three = [part for thing in ORDER for part in (pick(thing), PLACE, RELEASE)]
    assert blind.succeeded and said == [OPEN_BIN, *three, CLOSE_BIN] and early > 10


def test_who_gripped_nothing_is_told_to_try_again(blind: PackTable) -> None:
    blind.reset(3)
    rng = np.random.default_rng(0)
    for action in expert(blind, OPEN_BIN, rng):
        blind.act(action)
    assert advised(blind, pick(ORDER[0])) == pick(ORDER[0])  # a hand that pushed the lid is closed, too
    for action in expert(blind, pick(ORDER[0]), rng, off=(0.05, 0.04)):
        blind.act(action)
    assert blind.held == "" and due(blind) == pick(ORDER[0])
    assert advised(blind, pick(ORDER[0])) == advised(blind, RETRY) == RETRY
    for action in expert(blind, RETRY, rng):
        blind.act(action)
        assert advised(blind, RETRY) in (RETRY, PLACE)
    assert blind.held == ORDER[0] and advised(blind, RETRY) == PLACE


def test_some_demonstrations_begin_with_another_try(
    blind: PackTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heedful.data.pack_table.expert.MISSING", 1.0)
    monkeypatch.setattr("heedful.data.pack_table.expert.PRACTISING", 0.0)
    said = [s.command for s in narrate(blind, 2, mistake="").segments]
    assert said[0].startswith("go over the") and said[1:3] == [CLOSE_HAND, RETRY] and OPEN_BIN in said[3:5]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_followed_by_corrections(blind: PackTable, mistake: Any) -> None:
    told = narrate(blind, 5, mistake=mistake)
    _whole(told)
    corrections = [i for i, s in enumerate(told.segments) if s.kind == "correction"]
    assert told.mistake == mistake and len(corrections) == 1 and corrections[0] > 0
    assert told.stages["open"]
    said = told.segments[corrections[0]].command
    assert said in {"miss": [RETRY], "beside": [*NUDGES], "wrong thing": [WRONG]}.get(mistake, [*COMMANDS])


def run(table: PackTable, seed: int, person: Person, first: Any, most: int = 240) -> list[str]:
    """A robot that follows its own plan, and then the person's words. first: what it does before that."""
    table.reset(seed)
    person.begin()
    said: list[str] = []
    plan = iter(first)
    command, actions = WAIT, iter(())
    while table.table.steps < most:
        action = next(actions, None)
        if action is None:
            command = next(plan, WAIT)
            actions = expert(table, command, np.random.default_rng(0), off=(0.0, 0.0))
            continue
        table.act(action)
        words = person.say(table, command)
        if words:
            said.append(WORDINGS[words])
            command, actions = said[-1], expert(table, said[-1], np.random.default_rng(0))
    return said


def test_person_sees_a_stall_and_the_wrong_order(blind: PackTable) -> None:
    person = ScriptedPerson(0)
    said = run(blind, 9, person, [WAIT] * 30, most=150)
    assert said[:2] == [OPEN_BIN, pick(ORDER[0])] and person.log[0].cause == "stall"
    delays = [(one.step - one.seen) / 15 for one in person.log]
    assert all(0.4 <= delay <= 1.1 for delay in delays)
    person = ScriptedPerson(1)
    run(blind, 9, person, [OPEN_BIN, pick(ORDER[2])], most=140)
    assert person.log[0].cause == "wrong order" and person.log[0].command in (WRONG, pick(ORDER[0]))


@pytest.mark.parametrize("command", [pick(ORDER[0]), pick(ORDER[1]), RETRY, PLACE])
def test_person_sees_a_step_whose_turn_it_is_not(blind: PackTable, command: str) -> None:
    person = ScriptedPerson(1)
    run(blind, 9, person, [command] * 8, most=60)
    first = person.log[0]
    assert (first.cause, first.command) == ("wrong order", OPEN_BIN) and first.seen < 3


def test_small_moves_are_no_progress(blind: PackTable) -> None:
    person = ScriptedPerson(1)
    run(blind, 9, person, ["go higher", "go lower"] * 20, most=60)
    first = person.log[0]
    assert (first.cause, first.command) == ("stall", OPEN_BIN) and first.seen == 32


def test_nothing_is_said_to_a_robot_that_does_what_is_due(blind: PackTable) -> None:
    person, said = ScriptedPerson(1), [WAIT]

    def oracle() -> Iterator[str]:
        while not blind.succeeded:
            said.append(advised(blind, said[-1]))
            yield said[-1]

    run(blind, 9, person, oracle(), most=600)
    assert blind.succeeded and not person.log


def test_who_stands_still_is_not_told_the_same_again(blind: PackTable) -> None:
    blind.reset(4)
    for action in expert(blind, OPEN_BIN, np.random.default_rng(0)):
        blind.act(action)
    person = ScriptedPerson(1)
    said = []
    for _ in range(60):
        blind.act([0, 0, 0, 0, -1])
        said += [WORDINGS[words] for words in [person.say(blind, pick(ORDER[0]))] if words]
    assert said[0] == RETRY and person.log[0].cause == "stall"


def test_person_sees_a_missed_grasp_and_a_drop(blind: PackTable) -> None:
    person = ScriptedPerson(2)
    blind.reset(10)
    person.begin()
    do(blind, OPEN_BIN)

    def watch(command: str, **given: Any) -> list[str]:
        heard = []
        # Then it stands still, as a policy does that believes to be done.
        for action in _and_still(expert(blind, command, np.random.default_rng(0), **given)):
            blind.act(action)
            words = person.say(blind, command)
            heard += [WORDINGS[words]] if words else []
        return heard

    assert watch(pick(ORDER[0]), off=(0.05, 0.04)) and person.log[-1].cause == "missed grasp"
    assert person.log[-1].command in (RETRY, *NUDGES)
    do(blind, pick(ORDER[0]))
    person.begin()
    assert blind.held == ORDER[0]
    for _ in range(10):
        blind.act([0.0] * 5)
        assert person.say(blind, WAIT) is None and blind.held == ORDER[0]
    for _ in range(30):
        blind.act([0, 0, 0, 0, -1])
        if person.say(blind, PLACE):
            break
    assert person.log[-1].cause == "drop" and person.log[-1].command == pick(ORDER[0])
    assert {one.cause for one in person.log} <= {*CAUSES}


def _and_still(actions: Iterator[Any]) -> Iterator[Any]:
    yield from actions
    yield from [[0.0] * 5] * 18


def test_slips_and_wordings() -> None:
    class Still:
        """A table at which nothing happens."""

        class table:
            steps = 0
            tip = np.zeros(3)
            gripper = 0.0

        held, wanted, lid = "", ORDER[0], 0.0

        def inside(self, thing: str) -> bool:
            return False

    still: Any = Still()
    person = ScriptedPerson(0, slips=0.3)
    for step in range(12_000):
        still.table.steps = step
        person.say(still, WAIT)
    wrong = [one.wrong for one in person.log]
    assert len(wrong) > 100 and 0.18 < np.mean(wrong) < 0.42
    assert all((one.command != OPEN_BIN) == one.wrong for one in person.log)
    assert len(Counter(one.text for one in person.log if not one.wrong)) == 3


def test_a_live_person_is_asked_in_the_same_way(blind: PackTable) -> None:
    person = TypedPerson()
    person.words.put("typed before")
    person.begin()
    assert person.say(blind, WAIT) is None
    person.words.put("let go")
    assert person.say(blind, WAIT) == "let go" and person.say(blind, WAIT) is None


def test_narrations_on_disk(tmp_path: Path) -> None:
    assert write_narrations(tmp_path / "n", 1, size=(32, 32)) == 1
    data = open_episodes(tmp_path / "n")
    meta, rows = data.episode(0).meta, data.language(0)
    assert meta["segment_stop"][-1] == data.episode(0).length and meta["is_episode_successful"] in (
        True,
        False,
    )
    assert [row.content for row in rows if row.style == "subtask"] == meta["segment_text"]
    assert (
        data.columns(0)["action"].shape[1] == 5 and data.frames(0, "observation.images.top", [3]).std() > 10
    )
    assert write_narrations(tmp_path / "n", 1, size=(32, 32)) == 1
