"""A live episode: what is said counts at once, is logged first, is held, undone and kept with its pre-roll."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from talking import ExpertPair, Told

pytest.importorskip("mujoco")

from heedful.data.corrections import CorrectionLog, clip_sayings
from heedful.data.pack_table import LONGEST, PackTable
from heedful.data.pack_table.commands import COMMANDS, OPEN_BIN, WAIT
from heedful.data.pack_table.people import ScriptedPerson, TypedPerson
from heedful.policies.override import PERSON, Timing
from heedful.recipes.correct_live import MOST_SAID, Answer, Nobody, Taken, take

TIMING = Timing(hold=60, pre_roll=30, every=60)


@pytest.fixture(scope="module")
def table() -> PackTable:
    return PackTable(size=None)


class Tape:
    """What the loop told while it ran, and how many rows the log had on the disk before each step was carried out."""

    def __init__(self, log: CorrectionLog) -> None:
        self.log, self.moments, self.answers, self.on_disk = log, [], [], []

    def acting(self, command: str, fresh: bool) -> None:
        lines = self.log.path.read_text().splitlines() if self.log.path.exists() else []
        self.on_disk.append(sum("correction" in json.loads(line) for line in lines))

    def told(self, answer: Answer) -> None:
        self.answers.append(answer)


def live(
    table: PackTable, folder: Path, plan: Mapping[int, list[str]], steps: int = LONGEST, **given: Any
) -> tuple[Taken, CorrectionLog, Tape, ExpertPair]:
    pair, log = ExpertPair(), CorrectionLog(folder / "corrections.jsonl")
    tape = Tape(log)
    pair.acting = tape.acting
    taken = take(
        table, pair, given.get("person", Told(plan)), log, given.get("timing", TIMING), episode=0, seed=1,
        source="scripted", each=tape.moments.append, told=tape.told, until=lambda: table.table.steps >= steps,
    )  # fmt: skip
    return taken, log, tape, pair


def test_a_live_episode(table: PackTable, tmp_path: Path) -> None:
    plan = {50: [COMMANDS[WAIT][1]], 200: ["move left a bit"], 210: ["Undo!"], 300: ["sing me a song"]}
    taken, log, tape, pair = live(table, tmp_path, plan, steps=310)
    assert len(taken.commands) == len(tape.moments) == len(pair.seen) == 310 and not taken.succeeded
    assert taken.commands[49:51] == [OPEN_BIN, WAIT] and taken.commands[109:111] == [WAIT, OPEN_BIN]
    assert taken.commands[209] == "move left a bit" and taken.commands[210] == OPEN_BIN
    # at once: the low level drops its plan at that very step, and the row is on the disk before it
    assert (
        pair.log[50] == (WAIT, True) and pair.log[51] == (WAIT, False) and pair.log[210] == (OPEN_BIN, True)
    )
    assert tape.on_disk[49:51] == [0, 1] and tape.on_disk[199:201] == [1, 2]
    rows = log.rows()
    assert [row.status for row in rows] == ["accepted", "undone", "refused"]
    assert rows[0].clip == (20, 110) and rows[0].overridden == OPEN_BIN and rows[1].clip is None
    assert [step for step, _ in taken.asked][:3] == [0, 110, 170] and taken.asked[0][1].command == OPEN_BIN


def test_what_fits_nothing_changes_nothing_and_is_told(table: PackTable, tmp_path: Path) -> None:
    said = {
        5: ["recite a poem about the sea"],
        8: ["a tad to the left please"],
        9: ["undo"],
        12: ["left or right"],
    }
    taken, log, tape, _ = live(table, tmp_path, said, steps=14)
    assert taken.commands[5:8] == [OPEN_BIN] * 3 and taken.commands[12:] == [OPEN_BIN] * 2
    assert taken.commands[8] == "move left a bit" and tape.moments[8].state.source == PERSON
    rows = log.rows()
    assert [row.status for row in rows] == ["refused", "undone", "refused"]
    assert rows[0].reason and "not taken" in tape.answers[0].text and rows[1].how == "words"
    assert "taken back" in tape.answers[2].text and "move left a bit" in tape.answers[2].text
    assert list(clip_sayings(rows)) == []


def test_an_undo_after_the_hold_means_the_last_correction(table: PackTable, tmp_path: Path) -> None:
    plan = {10: ["go higher"], 40: ["go lower"], 85: ["undo"], 90: ["wait"], 95: ["undo", "undo", "undo"]}
    taken, log, tape, _ = live(table, tmp_path, plan, steps=100, timing=Timing(20, 30, 200))
    assert taken.commands[85] == taken.commands[84] == OPEN_BIN and taken.commands[95] == OPEN_BIN
    assert [row.status for row in log.rows()] == ["undone"] * 3
    assert [row.clip for row in log.rows()] == [None] * 3
    assert [a.row.id if a.row else None for a in tape.answers if "back" in a.text] == [
        "c000002", "c000003", "c000001", None
    ]  # fmt: skip
    assert log.rows()[2].pre_roll == (60, 90)  # from the steps of the one that was taken back


def test_the_log_and_the_clips_agree_on_where_they_begin(table: PackTable, tmp_path: Path) -> None:
    """A correction that replaces another one begins where that one's clip ends, in the row as in the clip."""
    plan = {40: ["go higher"], 50: ["go lower"], 55: ["move left a bit", "move right a bit"]}
    taken, log, _, _ = live(table, tmp_path, plan, steps=80, timing=Timing(20, 30, 200))
    rows = log.rows()
    assert [row.status for row in rows] == ["accepted", "accepted", "replaced", "accepted"]
    assert [row.clip for row in rows] == [(10, 50), (50, 55), None, (55, 75)]
    for row in rows:
        assert row.clip is None or row.clip[0] == row.pre_roll[0]
    assert taken.commands[55] == "move right a bit" and rows[3].overridden == "go lower"
    steps = [saying.step for saying in clip_sayings(rows)]
    assert len(steps) == len(set(steps)) == 65


def test_a_flood_of_lines_does_not_stop_the_robot(table: PackTable, tmp_path: Path) -> None:
    person = TypedPerson()

    def flood() -> None:
        for _ in range(500):
            person.hear("go higher")

    taken = take(
        table, ExpertPair(), person, log := CorrectionLog(tmp_path / "c.jsonl"), TIMING, episode=0, seed=1,
        source="typed", until=lambda: table.table.steps >= 6,
        each=lambda moment: flood() if moment.state.step == 1 else None,
    )  # fmt: skip
    rows = log.rows()
    assert len(taken.commands) == 6 and [row.step for row in rows] == [2] * MOST_SAID + [3] * MOST_SAID
    assert [person.hear("x") for _ in range(10)] == [True] * 8 + [False] * 2
    assert [row.status for row in rows].count("accepted") == 2


def test_words_that_no_file_can_hold_are_kept_as_far_as_they_go(table: PackTable, tmp_path: Path) -> None:
    plan = {2: ["caf\udce9 \x1b[2J", "   ", "go higher " * 400]}
    _, log, _, _ = live(table, tmp_path, plan, steps=5)
    words = [row.words for row in CorrectionLog(log.path).rows()]
    assert words[0] == "caf\ufffd \ufffd[2J" and len(words) == 2 and len(words[1]) <= 200


def test_a_scripted_person_makes_a_robot_that_follows_do_more(tmp_path: Path) -> None:
    """The high level says "open the bin" for ever; with corrections the low level, which can do all, goes on."""
    body, pair = PackTable(size=None), ExpertPair()
    pair.body = body
    log = CorrectionLog(tmp_path / "c.jsonl")

    def episode(person: Any) -> Taken:
        return take(
            body, pair, person, log, TIMING, episode=0, seed=4, source="scripted",
            until=lambda: body.table.steps >= 240,
        )  # fmt: skip

    alone = episode(Nobody())
    assert not log.path.exists() and set(alone.commands) == {OPEN_BIN} and sum(alone.stages.values()) == 1
    helped = episode(ScriptedPerson(1))
    assert sum(helped.stages.values()) >= 2 and len(set(helped.commands)) > 1
    assert np.mean([row.status == "accepted" for row in log.rows()]) > 0.9
