"""Narrated demonstrations of PackTable: an expert that says what it does, and in some episodes errs and is corrected.

An episode is cut into segments, each with the words that were said for it. Where one is followed by a correction it was
the mistake, and a policy that acts must not learn it (Yell At Your Robot, arXiv 2403.12910).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from heedful.data.episodes import LANGUAGE_FEATURES, Feature, Info, LanguageRow
from heedful.data.episodes.write import EpisodeWriter
from heedful.data.pack_table import LONGEST, ORDER, STATE, PackTable
from heedful.data.pack_table.commands import (
    CLOSE_HAND,
    COMMANDS,
    NUDGES,
    OPEN_HAND,
    RETRY,
    TURN_LEFT,
    TURN_RIGHT,
    WAIT,
    due,
    follow,
    pick,
)
from heedful.data.table.arm import HERTZ
from heedful.data.table.operator import steer

Kind = Literal["instruction", "correction"]
Mistake = Literal["miss", "beside", "wrong thing", "drop", "stall"]
MISTAKES: tuple[Mistake, ...] = ("miss", "beside", "wrong thing", "drop", "stall")
ERRING = 0.3
"""Share of episodes with a mistake that is made on purpose and then corrected."""
PRACTISING = 0.4
"""Share of episodes that begin with small moves, so that they are in the data at all."""
MISSING = 0.3
"""Share of episodes that begin with an empty grasp and another try, for the same reason."""
STUCK = 60
"""Steps after which a waypoint that is not reached is given up."""
TASK = f"put the {', the '.join(ORDER[:-1])} and the {ORDER[-1]} into the bin and close it"
"""The instruction of every episode."""


class Narrated(NamedTuple):
    """Steps start to stop - 1 of an episode and the words said for them. command: what the words mean."""

    start: int
    stop: int
    text: str
    kind: Kind
    command: str


@dataclass
class Narration:
    """An episode: observations and actions by step, segments, and how it went."""

    frames: list[dict[str, Any]] = field(default_factory=list)
    actions: list[np.ndarray] = field(default_factory=list)
    segments: list[Narrated] = field(default_factory=list)
    mistake: str = ""
    succeeded: bool = False
    stages: dict[str, bool] = field(default_factory=dict)


def narrate(
    table: PackTable, seed: int, *, mistake: Mistake | Literal[""] | None = None, speed: float = 0.7
) -> Narration:
    """Episode `seed`: a function of the seed and the table's settings. mistake: "" for none, None draws one for 30%.

    speed: the most of a step that the expert moves, as a share of what a step may move.
    """
    seen = table.reset(seed)
    rng = np.random.default_rng([seed, 14])
    drawn = MISTAKES[int(rng.integers(len(MISTAKES)))] if rng.uniform() < ERRING else ""
    teller = _Teller(table, rng, seen, speed, Narration(mistake=drawn if mistake is None else mistake))
    if rng.uniform() < PRACTISING:
        small = [*NUDGES, TURN_LEFT, TURN_RIGHT, OPEN_HAND, CLOSE_HAND]
        for i in rng.permutation(len(small))[: int(rng.integers(1, 4))]:
            teller.say(small[i])
    if rng.uniform() < MISSING:
        teller.miss()
    err_at = int(rng.integers(len(ORDER)))  # at which thing the mistake is made
    left = bool(teller.told.mistake)
    while not table.over:
        command = due(table)
        if not command:
            break
        now = ORDER.index(table.wanted) if table.wanted else -1
        if left and now == err_at and teller.err(command):
            left = False
        else:
            teller.say(command)
    told = teller.told
    told.succeeded, told.stages = table.succeeded, dict(table.stages)
    if left:
        told.mistake = ""
    return told


class _Teller:
    """Follows commands, and writes down what was said, seen and done."""

    def __init__(
        self, table: PackTable, rng: np.random.Generator, seen: dict[str, Any], speed: float, told: Narration
    ) -> None:
        self.table, self.rng, self.seen, self.speed, self.told = table, rng, seen, speed, told

    def say(
        self,
        command: str,
        kind: Kind = "instruction",
        off: tuple[float, float] = (0.0, 0.0),
        most: int = LONGEST,
        done: Callable[[], bool] = lambda: False,
    ) -> None:
        """Follow a command in one of its wordings, for `most` steps, or until `done`."""
        start = self.table.table.steps
        text = COMMANDS[command][int(self.rng.integers(3))]
        for action in expert(self.table, command, self.rng, speed=self.speed, off=off):
            if self.table.over or self.table.table.steps - start >= most or done():
                break
            self.step(action)
        self._end(start, text, kind, command)

    def step(self, action: np.ndarray) -> None:
        self.told.frames.append(self.seen)
        self.told.actions.append(action)
        self.seen = self.table.act(action)

    def _end(self, start: int, text: str, kind: Kind, command: str) -> None:
        stop = self.table.table.steps
        if stop > start:
            self.told.segments.append(Narrated(start, stop, text, kind, command))

    def miss(self) -> None:
        """Close the hand beside some thing and try again; the thing is put back where it is not due, which it is not
        before the bin is open."""
        thing = ORDER[int(self.rng.integers(len(ORDER)))]
        self.say(f"go over the {thing}", off=self._aside(0.0, 0.04))
        self.say(CLOSE_HAND)
        self.say(RETRY)

    def err(self, command: str) -> bool:
        """Make the mistake in place of `command` where it fits, and correct it; whether it was made."""
        mistake, wanted = self.told.mistake, self.table.wanted
        taking = bool(wanted) and command == pick(wanted)
        if mistake in ("miss", "beside", "wrong thing", "stall") and not taking:
            return False
        if mistake == "miss":
            self.say(command, off=self._aside(0.045, 0.06))
            self.say(RETRY, "correction")
        elif mistake == "beside":
            # It hovers beside the thing; a nudge brings it back over it.
            nudge = [*NUDGES][int(self.rng.integers(4))]
            away = -0.032 * np.array(NUDGES[nudge][:2])
            self.say(f"go over the {wanted}", off=(float(away[0]), float(away[1])))
            self.say(nudge, "correction")
        elif mistake == "wrong thing":
            others = [thing for thing in ORDER if thing != wanted and not self.table.inside(thing)]
            if not others:
                return False
            self._take_instead(command, others[int(self.rng.integers(len(others)))])
            if not self.table.over:
                self.say(due(self.table) or WAIT, "correction")
        elif mistake == "stall":
            start = self.table.table.steps
            for _ in range(int(self.rng.integers(32, 45))):
                if not self.table.over:
                    self.step(np.zeros(5))
            self._end(start, COMMANDS[command][int(self.rng.integers(3))], "instruction", command)
            self.say(command, "correction")
        elif mistake == "drop":
            if not (wanted and self.table.held == wanted):
                return False
            start = self.table.table.steps
            self.say(command, most=int(self.rng.integers(4, 9)))
            text = self.told.segments.pop().text if self.table.table.steps > start else command
            for _ in range(6):
                if not self.table.over:
                    self.step(np.array([0, 0, 0, 0, -1.0]))
            self._end(start, text, "instruction", command)
            if self.table.inside(wanted):
                self.told.mistake = ""  # it fell into the bin: nobody would call that one
            elif not self.table.over:
                self.say(pick(wanted), "correction")
        return True

    def _take_instead(self, command: str, other: str) -> None:
        start = self.table.table.steps
        for action in expert(self.table, pick(other), self.rng, speed=self.speed):
            if self.table.over:
                break
            self.step(action)
        self._end(start, COMMANDS[command][int(self.rng.integers(3))], "instruction", command)

    def _aside(self, least: float, most: float) -> tuple[float, float]:
        angle, far = self.rng.uniform(-np.pi, np.pi), self.rng.uniform(least, most)
        return float(far * np.cos(angle)), float(far * np.sin(angle))


def expert(
    table: PackTable,
    command: str,
    rng: np.random.Generator,
    *,
    speed: float = 0.7,
    off: tuple[float, float] = (0.0, 0.0),
) -> Iterator[np.ndarray]:
    """Actions (5,) that follow a command, each for the state at that moment, until it has been followed."""
    for to in follow(table, command, rng, off=off):
        waited = 0
        for _ in range(STUCK):
            action, near = steer(table.table, to, speed * to.slow)
            yield np.clip(np.array([*action[:3], action[5], action[6]]), -1, 1)
            waited += near
            if near and waited > to.wait:
                break


# ---- data sets


def pack_info(size: tuple[int, int]) -> Info:
    """The columns of a data set of PackTable, language among them."""
    names = ["height", "width", "channels"]
    features = {
        "observation.images.top": Feature("video", (*size, 3), names),
        "observation.images.wrist": Feature("video", (*size, 3), names),
        "observation.state": Feature("float32", (5,), list(STATE)),
        "action": Feature("float32", (5,), [f"velocity_{name}" for name in STATE]),
        **LANGUAGE_FEATURES,
    }
    return Info(HERTZ, "pack-table", features)


def pack_frame(seen: Mapping[str, Any], action: np.ndarray) -> dict[str, Any]:
    """A frame of such a data set: what `PackTable` showed, and what was done then."""
    pictures = {f"observation.images.{name}": seen[name] for name in ("top", "wrist")}
    return {**pictures, "observation.state": seen["state"], "action": action}


def write_narrations(
    folder: str | Path,
    episodes: int,
    *,
    seed: int = 0,
    size: tuple[int, int] = (64, 64),
    told: Callable[[int, int], None] | None = None,
    **settings: Any,
) -> int:
    """Write narrated episodes as LeRobotDataset v3; returns how many the folder holds. settings: of `PackTable`.

    Instructions are rows of the style `subtask`, corrections also `interjection`; the episode's row has the segments as
    `segment_{start,stop,text,kind,command}`. An interrupted folder goes on.
    """
    table = PackTable(size=size, **settings)
    with EpisodeWriter(folder, pack_info(size)) as writer:
        for index in range(writer.info.total_episodes, episodes):
            done = narrate(table, seed * 1_000_000 + index)
            for seen, action in zip(done.frames, done.actions, strict=True):
                writer.add_frame(pack_frame(seen, action))
            rows = [LanguageRow(s.text, "subtask", s.start / HERTZ, "assistant") for s in done.segments]
            rows += [
                LanguageRow(s.text, "interjection", s.start / HERTZ)
                for s in done.segments
                if s.kind == "correction"
            ]
            columns = {
                f"segment_{name}": [getattr(s, name) for s in done.segments] for name in Narrated._fields
            }
            meta = {"seed": seed, "mistake": done.mistake or "none", "is_episode_successful": done.succeeded}
            writer.save_episode(TASK, {**meta, **columns}, rows)
            if told:
                told(index + 1, episodes)
        count = writer.info.total_episodes
    table.close()
    return count
