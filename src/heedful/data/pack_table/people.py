"""Who corrects the robot at PackTable: a person who types, or a scripted one that watches with the simulator's eyes.

Both are asked the same at every step: is there something that you want to say? The scripted person needs half a second
to a second to speak, as people do, and fires on what a person would: a missed grasp, a drop, a step of the task whose
turn it is not, and two seconds in which nothing happens, or nothing but small moves (spec of `heedful reproduce yay`;
Yell At Your Robot, arXiv 2403.12910).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, Full, Queue
from typing import Literal, Protocol

import numpy as np

from heedful.data.pack_table import ORDER, PackTable
from heedful.data.pack_table.commands import (
    CLOSE_BIN,
    COMMANDS,
    NUDGES,
    OPEN_BIN,
    PLACE,
    RELEASE,
    RETRY,
    SHUT,
    WORDINGS,
    WRONG,
    advised,
    pick,
)
from heedful.data.table.arm import HERTZ

Cause = Literal["missed grasp", "drop", "wrong order", "stall"]
CAUSES: tuple[Cause, ...] = ("missed grasp", "drop", "wrong order", "stall")
STEPS = frozenset({OPEN_BIN, CLOSE_BIN, PLACE, RELEASE, RETRY, WRONG, *map(pick, ORDER)})
"""Commands that are steps of the task; the others only move the hand."""
STALL = 2.0
"""Seconds without motion on a step of the task."""
STILL = 0.012
"""Metres that count as no motion."""
QUIET = 2.5
"""Seconds that a person waits after having spoken, to see what comes of it."""


class Person(Protocol):
    """Somebody who may speak at any step."""

    def begin(self) -> None:
        """An episode begins."""
        ...

    def say(self, table: PackTable, command: str) -> str | None:
        """What is said at this step, if anything. command: what the robot is following now."""
        ...


class TypedPerson:
    """A live person: what is heard from a terminal or a page, in whatever thread, is said at the next step."""

    def __init__(self, waiting: int = 8) -> None:
        self.words: Queue[str] = Queue(waiting)

    def hear(self, words: str) -> bool:
        """Take a line; False when too many wait already, and this one is not taken."""
        try:
            self.words.put_nowait(words)
        except Full:
            return False
        return True

    def begin(self) -> None:
        """Forget what was typed before."""
        while self.say(None, "") is not None:
            pass

    def say(self, table: PackTable | None, command: str) -> str | None:
        """The oldest line that has been typed and not been said."""
        try:
            return self.words.get_nowait()
        except Empty:
            return None


@dataclass(frozen=True)
class Spoken:
    """What a scripted person said. seen: step at which the cause was seen; wrong: whether it was said by mistake."""

    step: int
    seen: int
    cause: Cause
    command: str
    text: str
    wrong: bool


class ScriptedPerson:
    """Watches and corrects. seed: of delays, wordings and slips. slips: how often the wrong thing is said.

    delay: least and most seconds from seeing to speaking. What has changed by then is not said. `log` has all that was.
    """

    def __init__(
        self, seed: int = 0, *, slips: float = 0.0, delay: tuple[float, float] = (0.5, 1.0), wordings: int = 3
    ) -> None:
        self.slips, self.delay, self.wordings = slips, delay, wordings
        self._rng = np.random.default_rng([seed, 15])
        self.log: list[Spoken] = []
        self.begin()

    def begin(self) -> None:
        """Forget the last episode; the log goes on."""
        self._seen: tuple[Cause, int, int] | None = None
        self._quiet_until = 0
        self._held = ""
        self._still: tuple[np.ndarray, int] | None = None
        self._shut = 0
        self._dropped = False

    def say(self, table: PackTable, command: str) -> str | None:
        """A wording, or None. Call it at every step: it remembers what it has seen."""
        step = table.table.steps
        cause = self._cause(table, WORDINGS.get(command, command), step)
        if step < self._quiet_until or not cause:
            self._seen = None
            return None
        if self._seen is None or self._seen[0] != cause:
            wait = round(self._rng.uniform(*self.delay) * HERTZ)
            self._seen = (cause, step, step + wait)
        if step < self._seen[2]:
            return None
        return self._speak(table, cause, self._seen[1], step, WORDINGS.get(command, command))

    def _speak(self, table: PackTable, cause: Cause, seen: int, step: int, followed: str) -> str | None:
        right = _answer(table, cause, followed)
        if not right:
            return None
        wrong = bool(self._rng.uniform() < self.slips)
        others = [one for one in COMMANDS if one != right]
        command = others[int(self._rng.integers(len(others)))] if wrong else right
        text = COMMANDS[command][int(self._rng.integers(self.wordings))]
        self.log.append(Spoken(step, seen, cause, command, text, wrong))
        self._quiet_until, self._seen, self._still, self._dropped = (
            step + round(QUIET * HERTZ),
            None,
            None,
            False,
        )
        return text

    def _cause(self, table: PackTable, command: str, step: int) -> Cause | Literal[""]:
        """What is wrong now. Looks at what changed since the last step, so it must see every one."""
        held, wanted, tip = table.held, table.wanted, table.table.tip
        before, self._held = self._held, held
        if (
            before
            and not held
            and command not in (RELEASE, WRONG, "open the gripper")
            and not table.inside(before)
        ):
            self._dropped = True
        if held:
            self._dropped = False
        shut = table.table.gripper > SHUT and not held and (command.startswith("pick") or command == RETRY)
        self._shut = self._shut + 1 if shut else 0
        if self._still is None or (command in STEPS and np.linalg.norm(tip - self._still[0]) > STILL):
            self._still = (tip, step)
        checks: tuple[tuple[Cause, Callable[[], bool]], ...] = (
            ("wrong order", lambda: bool(held) and bool(wanted) and held != wanted and command != WRONG),
            ("drop", lambda: self._dropped and command != pick(wanted)),
            ("wrong order", lambda: _out_of_turn(table, command)),
            ("missed grasp", lambda: self._shut >= 4 and bool(wanted)),
            ("stall", lambda: self._still is not None and step - self._still[1] > STALL * HERTZ),
        )
        found: list[Cause] = [cause for cause, true in checks if true()]
        return found[0] if found else ""


def _out_of_turn(table: PackTable, command: str) -> bool:
    """Whether the robot follows a step of the task that is not due: a pick before the bin is open, a lid that closes
    too early, an empty hand on its way to the bin."""
    if command not in STEPS:
        return False
    right = advised(table, command)
    again = {right, command} == {RETRY, pick(table.wanted)}
    return bool(right) and right != command and not again


def _answer(table: PackTable, cause: Cause, command: str) -> str:
    """What a person says about it; "" where there is nothing left to say."""
    wanted = table.wanted
    if cause == "missed grasp" and wanted:
        way = table.table.place(wanted).at[:2] - table.table.tip[:2]
        if 0.015 < float(np.linalg.norm(way)) < 0.05:
            return max(list(NUDGES)[:4], key=lambda name: float(way @ np.array(NUDGES[name][:2])))
        return RETRY
    right = advised(table, command)
    # Who stands still below a command is not helped by the same one.
    return RETRY if right == command and right.startswith("pick up") else right
