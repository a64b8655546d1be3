"""What a person says while a robot acts: segments and the mistake filter, the log on disk, and whose command counts
when."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heedful.data import corrections as logs
from heedful.data.corrections import CorrectionLog, clip_sayings, language_events, recorded, subtasks
from heedful.data.segments import (
    CORRECTION,
    MISTAKE,
    SHORT,
    Saying,
    Segment,
    acting_segments,
    all_starts,
    check_segments,
    chunk_at,
    draw_starts,
    frames_before,
    sayings,
    speaking_segments,
)
from heedful.errors import HeedfulError
from heedful.policies import override
from heedful.policies.override import HIGH_LEVEL, PERSON, UNDO, Clip, State, Timing, drive

SEGMENTS = [
    Segment(0, 30, "open the lid"),
    Segment(30, 60, "pick up the cube"),
    Segment(60, 85, "move left a bit", CORRECTION),
    Segment(85, 95, "go lower", CORRECTION),
    Segment(100, 140, "close the lid"),
]


# ---- segments


def test_the_segment_before_a_correction_is_the_mistake() -> None:
    """Also where it is a correction itself; what follows a correction is kept, and what is short is told apart."""
    kept = acting_segments(SEGMENTS, min_steps=20)
    assert [s.text for s in kept.segments] == ["open the lid", "close the lid"]
    assert kept.dropped == {MISTAKE: 2, SHORT: 1}
    unfiltered = acting_segments(SEGMENTS, min_steps=20, drop_mistakes=False)
    assert len(unfiltered.segments) == 4 and unfiltered.dropped == {SHORT: 1}
    assert speaking_segments(SEGMENTS).segments == SEGMENTS
    assert len(speaking_segments(SEGMENTS, drop_mistakes=True).segments) == 3


@pytest.mark.parametrize(
    ("segments", "said"),
    [
        ([Segment(0, 0, "x")], "segment 0 has the steps 0 to 0 of 50"),
        ([Segment(0, 60, "x")], "segment 0 has the steps 0 to 60"),
        ([Segment(0, 20, "x"), Segment(10, 30, "y")], "segment 1 begins at step 10"),
        ([Segment(0, 20, " ")], "has no words"),
        ([Segment(0, 20, "x", "shout")], "of the kind 'shout'"),
    ],
)
def test_segments_that_cannot_be_are_named(segments: list[Segment], said: str) -> None:
    with pytest.raises(HeedfulError, match=f"episode 3: .*{said}"):
        check_segments(segments, 50, "episode 3")


@settings(max_examples=50, deadline=None)
@given(step=st.integers(0, 29), horizon=st.integers(1, 40), past=st.integers(0, 3))
def test_a_chunk_never_crosses_the_end_of_its_segment(step: int, horizon: int, past: int) -> None:
    actions = np.arange(50.0)[:, None]
    chunk, mask = chunk_at(actions, step, 30, horizon, past=past, start=0)
    assert chunk.shape == (horizon, 1) and mask.shape == (horizon,)
    wanted = step - past + np.arange(horizon)
    assert (mask == ((wanted >= 0) & (wanted < 30))).all()
    assert (chunk[mask, 0] == wanted[mask]).all() and chunk.max() <= 29 and chunk.min() >= 0
    with pytest.raises(HeedfulError, match="no chunk at step 30"):
        chunk_at(actions, 30, 30, horizon)


def test_starts_of_chunks() -> None:
    kept = acting_segments(SEGMENTS, min_steps=20).segments
    starts = all_starts([kept, []], stride=10)
    assert [(s.step, s.stop) for s in starts] == [
        (0, 30),
        (10, 30),
        (20, 30),
        *((i, 140) for i in (100, 110, 120, 130)),
    ]
    drawn = draw_starts([kept, [], kept], 500, np.random.default_rng(0))
    assert len(drawn) == 1000 and {s.episode for s in drawn} == {0, 2}
    assert all(next(k for k in kept if k.text == s.text).start <= s.step < s.stop for s in drawn)
    share = np.mean([s.text == "open the lid" for s in drawn])
    assert 0.45 < share < 0.55  # by segment, not by step
    assert drawn == draw_starts([kept, [], kept], 500, np.random.default_rng(0))


def test_what_is_said_looks_ahead() -> None:
    said = list(sayings(SEGMENTS, look_ahead=5))
    at = {s.step: s.text for s in said}
    assert at[24] == "open the lid" and at[25] == "pick up the cube" and at[56] == "move left a bit"
    assert at[92] == "go lower"  # nothing is said in the pause: its own words stand
    assert at[139] == "close the lid" and 97 not in at
    assert len(said) == sum(s.steps for s in SEGMENTS)


def test_frames_of_a_history() -> None:
    assert frames_before(10, 4, stride=3).tolist() == [1, 4, 7, 10]
    assert frames_before(4, 4, stride=3).tolist() == [0, 0, 1, 4]
    assert frames_before(12, 2, stride=5, first=10).tolist() == [10, 12]


# ---- the log


def add(log: CorrectionLog, step: int = 100, **more: Any) -> logs.Correction:
    said: dict[str, Any] = {
        "episode": 2,
        "source": logs.TYPED,
        "words": "left!",
        "command": "move left a bit",
    }
    return log.add(step=step, pre_roll=30, overridden="pick up the cube", time=5.0, **(said | more))


def test_every_correction_is_a_row(tmp_path: Path) -> None:
    log = CorrectionLog(tmp_path / "deep" / "corrections.jsonl")
    assert log.rows() == [] and log.undo() is None
    snap = {
        "words": "left!",
        "how": "words",
        "score": 0.9,
        "runner_up": "go lower",
        "runner_up_score": 0.1,
        "best": "x",
    }
    one = add(log, snap=snap)
    two = add(log, 110, first=100)
    refused = add(log, 115, words="hm", command=None, snap={"reason": "no command says that"})
    assert (one.id, one.pre_roll, one.status, one.how, one.runner_up) == (
        "c000001",
        (70, 100),
        "accepted",
        "words",
        "go lower",
    )
    assert two.pre_roll == (100, 110)
    assert (refused.status, refused.reason) == ("refused", "no command says that")
    undone = log.undo(time=6.0)
    assert undone is not None and undone.id == two.id and undone.status == "undone"
    log.keep_clip(one.id, 70, 160)
    again = CorrectionLog(log.path)
    assert again.rows() == log.rows() and again.rows()[0].clip == (70, 160)
    assert [r.id for r in again.rows(status=logs.ACCEPTED)] == [one.id] and again.rows(episode=9) == []
    for call, said in (
        (lambda: log.undo(two.id), "'c000002' was undone"),
        (lambda: log.undo("c9"), "'c9' is not there"),
        (lambda: log.keep_clip(one.id, 5, 5), "no clip of steps 5 to 5"),
        (lambda: add(log, words=" "), "needs words"),
        (lambda: add(log, step=3, first=4), "steps of 0 or more"),
    ):
        with pytest.raises(HeedfulError, match=said):
            call()


def test_a_row_is_on_the_disk_before_the_call_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written and flushed, file and folder, and only then known."""
    events: list[str] = []
    write, flush = os.write, os.fsync
    monkeypatch.setattr(os, "write", lambda *a: events.append("write") or write(*a))
    monkeypatch.setattr(os, "fsync", lambda *a: events.append("fsync") or flush(*a))
    add(CorrectionLog(tmp_path / "c.jsonl"))
    assert events.index("write") < events.index("fsync") and events[-2:] == ["fsync", "fsync"]


def test_a_full_disk_keeps_nothing_of_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = CorrectionLog(tmp_path / "c.jsonl")
    add(log)
    before = log.path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(HeedfulError, match="no space is left"):
        add(log)
    monkeypatch.undo()
    assert log.path.read_bytes() == before and len(log.rows()) == 1
    assert add(log).id == "c000002"


def test_a_torn_line_is_cut_off_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    log = CorrectionLog(tmp_path / "c.jsonl")
    add(log)
    with log.path.open("ab") as stream:
        stream.write(b'{"correction": {"id": "c0000')
    again = CorrectionLog(log.path)
    assert len(again.rows()) == 1
    assert add(again).id == "c000002"
    assert len(CorrectionLog(log.path).rows()) == len(log.rows()) == 2
    whole = log.path.read_bytes()
    for line, said in (
        (b"nonsense\n", r"c\.jsonl:3: not JSON"),
        (b"[1]\n", r"c\.jsonl:3: no JSON object"),
        (b'{"undo": "c7", "time": 1}\n', r"c\.jsonl:3: neither a correction nor"),
        (b'{"undo": [], "time": 1}\n', r"c\.jsonl:3: neither a correction nor"),
        (b'{"clip": "c000001", "start": 1}\n', r"c\.jsonl:3: a clip without its steps"),
        (b'{"correction": {"id": "c3"}}\n', r"c\.jsonl:3: a damaged correction"),
        (whole.splitlines(keepends=True)[0], r"c\.jsonl:3: .* is there twice"),
    ):
        log.path.write_bytes(whole + line)
        with pytest.raises(HeedfulError, match=said):
            CorrectionLog(log.path)


def test_two_programs_write_to_one_log(tmp_path: Path) -> None:
    one, two = (CorrectionLog(tmp_path / "c.jsonl") for _ in range(2))
    ids = [add(log).id for log in (one, two, two, one)]
    assert ids == ["c000001", "c000002", "c000003", "c000004"]
    two.undo()
    assert one.rows() == two.rows() and one.rows()[3].status == "undone"


def test_what_was_confirmed_survives_a_kill(tmp_path: Path) -> None:
    """SIGKILL at any moment: every correction that `add` has returned is there, and the next one goes on."""
    path = tmp_path / "c.jsonl"
    program = (
        "import sys\nfrom heedful.data.corrections import CorrectionLog\n"
        f"log = CorrectionLog({str(path)!r})\n"
        "while True:\n"
        "    row = log.add(episode=0, step=1, source='typed', words='left' * 50, command='left')\n"
        "    sys.stdout.write(row.id + '\\n'); sys.stdout.flush()\n"
    )
    for _ in range(2):
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        told = [process.stdout.readline().strip() for _ in range(5)]
        process.send_signal(signal.SIGKILL)
        told += process.stdout.read().split()
        process.wait()
        rows = [row.id for row in CorrectionLog(path).rows()]
        confirmed = [id for id in told if len(id) == 7]
        assert set(confirmed) <= set(rows) and rows == sorted(rows)


def test_rows_become_language_columns(tmp_path: Path) -> None:
    log = CorrectionLog(tmp_path / "c.jsonl")
    add(log, 30)
    add(log, 45, words="no, right", command="move right a bit")
    log.undo()
    add(log, 60, command=None)
    rows = language_events(log.rows(), fps=15.0)
    assert rows == [
        {
            "role": "user",
            "content": "left!",
            "style": "interjection",
            "timestamp": 2.0,
            "camera": None,
            "tool_calls": (),
        }
    ]
    add(log, 5, episode=7)
    with pytest.raises(HeedfulError, match="of one episode"):
        language_events(log.rows(), fps=15.0)
    persistent = subtasks(["", "a", "a", "b", "b"], fps=10.0)
    assert [(r["content"], r["style"], r["timestamp"]) for r in persistent] == [
        ("a", "subtask", 0.1),
        ("b", "subtask", 0.3),
    ]


def test_what_was_not_acted_on_or_never_saved_teaches_nothing(tmp_path: Path) -> None:
    log = CorrectionLog(tmp_path / "c.jsonl")
    for episode in (0, 0, 1, 2):
        add(log, 40, episode=episode)
    for row in log.rows():
        log.keep_clip(row.id, 30, 50)
    log.undo("c000004")
    assert log.replaced("c000001").status == "replaced"
    with pytest.raises(HeedfulError, match="'c000001' was replaced"):
        log.undo("c000001")
    assert [row.id for row in recorded(log.rows(), 2)] == ["c000001", "c000002", "c000003"]
    assert [row.id for row in log.lose(1)] == ["c000003", "c000004"] and log.lose(1) == []
    again = CorrectionLog(log.path).rows()
    assert [row.status for row in again] == ["replaced", "accepted", "lost", "lost"]
    assert [row.clip for row in again] == [None, (30, 50), None, None]
    add(log, 5, episode=1)  # the episode that is recorded in its place
    assert [row.id for row in recorded(log.rows(), 2)] == ["c000001", "c000002", "c000005"]
    assert {saying.episode for saying in clip_sayings(log.rows())} == {0}


def test_clips_teach_the_command_pre_roll_included(tmp_path: Path) -> None:
    log = CorrectionLog(tmp_path / "c.jsonl")
    for step in (40, 80, 120):
        add(log, step)
    log.keep_clip("c000001", 10, 14)
    log.keep_clip("c000002", 70, 90)
    log.undo("c000002")
    assert list(clip_sayings(log.rows(), stride=2)) == [
        Saying(2, 10, "move left a bit"),
        Saying(2, 12, "move left a bit"),
    ]


# ---- whose command counts


TIMING = Timing(hold=10, pre_roll=5, every=8)


def played(
    timing: Timing, steps: int, said: dict[int, list[tuple[str | None, str]]]
) -> tuple[list[State], list[int], list[Clip]]:
    """States of each step, the steps at which the high level was asked, and all clips."""
    asked: list[int] = []

    def propose(state: State) -> str:
        asked.append(state.step)
        return f"h{state.step}"

    states = list(drive(timing, steps, lambda step: said.get(step, []), propose))
    return states[:-1], asked, list(states[-1].kept)


def test_the_high_level_is_asked_in_its_turn() -> None:
    states, asked, clips = played(TIMING, 20, {})
    assert asked == [0, 8, 16] and clips == []
    assert [s.command for s in states[:9]] == ["h0"] * 8 + ["h8"]
    assert [s.step for s in states if s.fresh] == [0, 8, 16]


def test_a_correction_counts_within_one_step_and_is_held() -> None:
    states, asked, clips = played(TIMING, 40, {11: [("left", "c1")]})
    assert [s.command for s in states[10:22]] == ["h8"] + ["left"] * 10 + ["h21"]
    assert states[11].fresh and not states[12].fresh and states[21].fresh
    assert states[11].source == PERSON and states[21].source == HIGH_LEVEL
    assert states[15].overridden == "h8"
    assert asked == [0, 8, 21, 29, 37]  # not while it is held; then at once, and its clock starts again
    assert clips == [Clip("c1", "left", start=6, said_at=11, stop=21)]


def test_another_correction_replaces_it_and_no_step_is_in_two_clips() -> None:
    states, _, clips = played(TIMING, 40, {11: [("left", "c1")], 14: [("right", "c2")], 30: [("up", "c3")]})
    assert states[14].command == "right" and states[14].fresh and states[14].overridden == "left"
    assert [(c.id, c.start, c.said_at, c.stop) for c in clips] == [
        ("c1", 6, 11, 14),
        ("c2", 14, 14, 24),
        ("c3", 25, 30, 40),
    ]


def test_two_in_one_step_leave_the_last() -> None:
    states, _, clips = played(TIMING, 30, {11: [("left", "c1"), ("right", "c2")]})
    assert states[11].command == "right" and states[11].overridden == "h8"
    assert [(c.id, c.start, c.stop) for c in clips] == [("c2", 6, 21)]


def test_undo_gives_the_word_back_at_once_and_keeps_no_clip() -> None:
    states, asked, clips = played(TIMING, 30, {11: [("left", "c1")], 13: [(UNDO, "c1")]})
    assert [s.command for s in states[10:15]] == ["h8", "left", "left", "h13", "h13"]
    assert states[13].fresh and asked == [0, 8, 13, 21, 29] and clips == []
    nothing, _, _ = played(TIMING, 5, {2: [(UNDO, "")]})
    assert [s.command for s in nothing] == ["h0"] * 5


def test_undo_after_the_hold_takes_the_last_one_back_and_frees_its_steps() -> None:
    """What is followed does not change; the next clip may reach into the steps that are free again."""
    said = {2: [("left", "c1")], 14: [("right", "c2")], 26: [(UNDO, "")], 27: [("up", "c3")]}
    states, asked, clips = played(Timing(hold=10, pre_roll=8, every=100), 40, said)
    assert states[26].source == HIGH_LEVEL and states[26].command == states[25].command and 26 not in asked
    assert [(c.id, c.start, c.stop) for c in clips] == [("c1", 0, 12), ("c3", 19, 37)]
    twice, _, left = played(Timing(10, 8, 100), 40, {**said, 28: [(UNDO, ""), (UNDO, "")]})
    assert left == [] and twice[28].command == "h28"


def test_undo_in_the_step_in_which_the_hold_ends() -> None:
    """The clip has just ended and nobody has written it down yet: it must not be."""
    states, _, clips = played(TIMING, 30, {2: [("left", "c1")], 12: [(UNDO, "")]})
    assert clips == [] and states[12].clips == () and states[12].command == "h12"


def test_where_a_clip_would_open_is_where_it_opens() -> None:
    """The log is told before the state changes: what it is told must be what becomes of it."""
    said = {
        2: [("a", "1")],
        5: [("b", "2"), ("c", "3")],
        17: [("d", "4")],
        19: [(UNDO, "")],
        21: [("e", "5")],
    }
    state, opened = State(), {}
    for step in range(30):
        for command, id in said.get(step, []):
            if command is not None:
                opened[id] = state.opening(TIMING)
            state = override.undone(state) if command is None else override.heard(state, TIMING, command, id)
        if override.wants_command(state, TIMING):
            state = override.proposed(state, "h")
        state = override.stepped(state, TIMING)
    kept = override.finished(state).kept
    assert {c.id: c.start for c in kept} == {"1": 0, "3": 5, "5": 16}
    assert all(opened[c.id] == c.start for c in kept)


def test_a_clip_begins_with_the_episode_and_ends_with_it() -> None:
    _, _, clips = played(TIMING, 30, {2: [("left", "c1")], 27: [("right", "c2")]})
    assert [(c.start, c.said_at, c.stop) for c in clips] == [(0, 2, 12), (22, 27, 30)]


def test_the_high_level_must_not_speak_into_a_correction() -> None:
    state = override.heard(State(), TIMING, "left", "c1")
    with pytest.raises(HeedfulError, match="was not asked"):
        override.proposed(state, "h")
    with pytest.raises(HeedfulError, match="needs a command"):
        override.heard(state, TIMING, " ", "c2")


@settings(max_examples=60, deadline=None)
@given(
    said=st.dictionaries(
        st.integers(0, 59),
        st.lists(st.sampled_from(["left", "right", UNDO]), min_size=1, max_size=2),
        max_size=8,
    ),
    hold=st.integers(1, 15),
    pre_roll=st.integers(0, 12),
)
def test_whatever_is_said_the_rules_hold(said: dict[int, list[str | None]], hold: int, pre_roll: int) -> None:
    events = {step: [(c, f"{step}.{i}") for i, c in enumerate(some)] for step, some in said.items()}
    states, asked, clips = played(Timing(hold, pre_roll, 6), 60, events)
    assert [s.step for s in states] == list(range(60)) and all(s.command for s in states)
    for step, some in events.items():
        if some[-1][0] is not UNDO:
            assert states[step].command == some[-1][0] and states[step].source == PERSON
    assert not any(states[step].source == PERSON for step in asked)
    labelled = [step for clip in clips for step in range(clip.start, clip.stop)]
    assert len(labelled) == len(set(labelled))
    for clip in clips:
        assert 0 <= clip.start <= clip.said_at < clip.stop <= min(60, clip.said_at + hold)
        assert clip.said_at - clip.start <= pre_roll
        assert all(states[step].command == clip.command for step in range(clip.said_at, clip.stop))
    # a replay of the same events is the same
    assert played(Timing(hold, pre_roll, 6), 60, events)[0] == states


def test_times_in_seconds() -> None:
    assert Timing.seconds(50.0) == Timing(200, 100, 200)
    assert Timing.seconds(15.0, hold=2.0) == Timing(30, 30, 60)
    with pytest.raises(HeedfulError, match="at least 1 control step"):
        Timing(0, 1, 1)


def test_a_session_logs_as_it_goes(tmp_path: Path) -> None:
    """The loop a recipe has: corrections to the log first, then to the state; clips to the log when they end."""
    log = CorrectionLog(tmp_path / "c.jsonl")
    waiting = {11: "left"}
    state_of: dict[int, State] = {}

    def said(step: int) -> list[tuple[str | None, str]]:
        if step not in waiting:
            return []
        before = state_of[step - 1].command
        row = log.add(
            episode=0, step=step, source=logs.SCRIPTED, words="a bit left", command=waiting[step],
            overridden=before, pre_roll=TIMING.pre_roll,
        )  # fmt: skip
        assert json.loads(log.path.read_text().splitlines()[-1])["correction"]["id"] == row.id
        return [(waiting[step], row.id)]

    for state in drive(TIMING, 30, said, lambda s: "h"):
        state_of[state.step] = state
        for clip in state.clips:
            log.keep_clip(clip.id, clip.start, clip.stop)
    (row,) = CorrectionLog(log.path).rows()
    assert row.clip == (6, 21) and row.overridden == "h" and row.pre_roll == (6, 11)
    assert [s.text for s in clip_sayings(log.rows())] == ["left"] * 15
