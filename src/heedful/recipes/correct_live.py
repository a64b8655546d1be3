"""One episode in which a person may say something at any step: the loop of a script, a terminal and the web page.

Yell At Your Robot (arXiv 2403.12910); what departs from its code is listed in `heedful.policies.override`. At each
control step, in this order:

1. What was said since the last step is taken for a command, written to the log, and counts. The row is on the disk
   before the robot moves on.
2. Where no correction is followed, the high level is asked in its turn.
3. The low level acts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from heedful.data.corrections import Correction, CorrectionLog
from heedful.policies.command_words import normalised
from heedful.policies.commands import Snapper
from heedful.policies.override import (
    Clip,
    State,
    Timing,
    finished,
    heard,
    proposed,
    stepped,
    undone,
    wants_command,
)
from heedful.report_values import clean

UNDO_WORDS = ("undo", "undo that", "take that back")
MOST_SAID = 4
"""Lines that are taken in one control step; the robot does not stand still for somebody who pastes a page."""
LONGEST_SAYING = 200
"""Letters of a line that are kept."""


class Proposed(Protocol):
    """What the high level says: its command, and candidates with probabilities, the best first."""

    @property
    def command(self) -> str:
        """Of its bank."""
        ...

    @property
    def candidates(self) -> Sequence[tuple[str, float]]:
        """Commands and probabilities, the best first."""
        ...


class Pair(Protocol):
    """A high and a low level. `see` is called once a control step, before the others."""

    @property
    def snapper(self) -> Snapper:
        """Takes words for commands of its bank."""
        ...

    @property
    def fps(self) -> float:
        """Control steps a second."""
        ...

    def begin(self) -> None:
        """A new episode."""
        ...

    def see(self, observation: Mapping[str, Any]) -> None:
        """Remember what is seen."""
        ...

    def propose(self) -> Proposed:
        """What the high level says now."""
        ...

    def act(self, observation: Mapping[str, Any], command: str, fresh: bool) -> np.ndarray:
        """The low level's action; fresh: what was planned is dropped."""
        ...


class Body(Protocol):
    """What acts: PackTable, or a robot (`correct_bodies`)."""

    stages: dict[str, bool]

    @property
    def over(self) -> bool:
        """Whether the episode has ended."""
        ...

    @property
    def succeeded(self) -> bool:
        """Whether the task is done."""
        ...

    def reset(self, seed: int) -> dict[str, Any]:
        """A new episode; what is seen."""
        ...

    def act(self, action: np.ndarray) -> dict[str, Any]:
        """One control step; what is seen after it."""
        ...


class Speaks(Protocol):
    """Somebody who may say something at any step, such as `pack_table.people.Person`."""

    def begin(self) -> None:
        """An episode begins."""
        ...

    def say(self, table: Any, command: str) -> str | None:
        """What is said now, if anything. command: what the robot is following."""
        ...


class Nobody:
    """Says nothing: the robot on its own."""

    def begin(self) -> None:
        """Nothing happens."""

    def say(self, table: Any, command: str) -> None:
        """Nothing is said."""


@dataclass(frozen=True)
class Moment:
    """A control step that has been carried out. proposal: the newest of the high level; None before the first."""

    seen: dict[str, Any]
    state: State
    proposal: Proposed | None
    action: np.ndarray


@dataclass(frozen=True)
class Answer:
    """What became of a line. row: its row of the log, or of what it took back; None where there is none."""

    words: str
    row: Correction | None
    text: str
    """One line for the person who spoke."""


@dataclass(frozen=True)
class Taken:
    """An episode. commands: what was followed at each step; asked: (step, what the high level said)."""

    commands: list[str]
    asked: list[tuple[int, Proposed]]
    stages: dict[str, bool]
    succeeded: bool


def take(
    body: Body,
    pair: Pair,
    person: Speaks,
    log: CorrectionLog,
    timing: Timing,
    *,
    episode: int,
    seed: int,
    source: str | Callable[[], str],
    each: Callable[[Moment], None] | None = None,
    told: Callable[[Answer], None] | None = None,
    until: Callable[[], bool] | None = None,
) -> Taken:
    """Episode `episode` from the reset `seed`, to its end or as soon as `until`.

    each: called at every step. told: called for every line once it is on the disk. source: of the rows, see
    `data.corrections`; a function is asked at each line. "undo" takes back the last correction of the episode. Raises
    what the robot and the policies raise; rows of the episode are then in the log without an episode
    (`CorrectionLog.lose`).
    """
    ear = _Ear(log, pair.snapper, timing, episode, source, told or (lambda answer: None))
    seen, state, proposal = body.reset(seed), State(), None
    commands: list[str] = []
    asked: list[tuple[int, Proposed]] = []
    pair.begin()
    person.begin()
    while not body.over and not (until is not None and until()):
        pair.see(seen)
        for _ in range(MOST_SAID):
            words = person.say(body, state.command)
            if words is None:
                break
            state = ear.hear(words, state)
        if wants_command(state, timing):
            proposal = pair.propose()
            asked.append((state.step, proposal))
            state = proposed(state, proposal.command)
        action = pair.act(seen, state.command, state.fresh)
        _keep(log, state.clips)
        after = body.act(action)
        commands.append(state.command)
        if each is not None:
            each(Moment(seen, state, proposal, action))
        seen, state = after, stepped(state, timing)
    _keep(log, finished(state).clips)
    return Taken(commands, asked, dict(body.stages), body.succeeded)


@dataclass(frozen=True)
class _Ear:
    """Takes lines for commands and writes them down."""

    log: CorrectionLog
    snapper: Snapper
    timing: Timing
    episode: int
    source: str | Callable[[], str]
    told: Callable[[Answer], None]

    def hear(self, words: str, state: State) -> State:
        words = " ".join(clean(words).split())[:LONGEST_SAYING]
        if not words:
            return state
        if normalised(words) in UNDO_WORDS:
            return self._undo(words, state)
        snap = self.snapper(words)
        row = self.log.add(
            episode=self.episode,
            step=state.step,
            source=self.source if isinstance(self.source, str) else self.source(),
            words=words,
            command=snap.command,
            overridden=state.overridden if state.unheeded else state.command,
            pre_roll=self.timing.pre_roll,
            first=state.opening(self.timing),
            snap=snap.as_row(),
        )
        if row.command is not None:
            if state.unheeded:
                self.log.replaced(state.unheeded)
            state = heard(state, self.timing, row.command, row.id)
        self.told(Answer(words, row, str(snap)))
        return state

    def _undo(self, words: str, state: State) -> State:
        if not state.undoable:
            self.told(Answer(words, None, "there is nothing to take back in this episode"))
            return state
        row = self.log.undo(state.undoable)
        assert row is not None
        self.told(Answer(words, row, f"taken back: {row.words!r} -> {row.command}"))
        return undone(state)


def _keep(log: CorrectionLog, clips: Sequence[Clip]) -> None:
    for clip in clips:
        log.keep_clip(clip.id, clip.start, clip.stop)
