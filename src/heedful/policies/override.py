"""Whose command the robot follows at each control step: the high level's, or a person's for a while.

A pure state machine for a live loop, a scripted person and a replay alike; it knows of no clock, no file and no
network. At each control step, in this order:

    state = heard(state, timing, "move left a bit", id)     for each correction that waits
    if wants_command(state, timing): state = proposed(state, command)
    act by state.command; where state.fresh, the policy that acts drops the rest of its chunk
    state = stepped(state, timing)

Where this departs from the code of Yell At Your Robot (spec 1.6):

1. A correction counts from the control step after it was heard. Theirs is polled where the low level is asked: up to
   2 s late.
2. The robot does not stand still while it is told something.
3. What is followed is what the caller says: the bank's command, or the raw words as theirs.
4. It is held for as long as its command usually takes, else `hold` control steps (theirs: 4 s, a skill's mean length),
   whether or not they are recorded; another correction replaces it at once, and its clip ends there.
5. When it ends the high level is asked at once, and its clock starts again. Theirs is asked at its next turn.
6. It can be undone. While it is followed, the high level is asked at that very step, and no clip is kept. Later in the
   episode too: its clip is dropped, and its steps are free again.
7. A clip begins `pre_roll` steps before the correction, yet never before the episode, nor inside the clip before it:
   no step has two labels.
8. There is no command of the first 3 s that nobody chose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from heedful.errors import HeedfulError

HIGH_LEVEL, PERSON = "high level", "person"
UNDO = None
"""In place of a command: the last correction is taken back."""


@dataclass(frozen=True)
class Timing:
    """All in control steps. hold: how long a correction is followed; pre_roll: what before it belongs to it; every: how
    often the high level is asked otherwise; lengths: commands that are followed for another time than `hold`."""

    hold: int
    pre_roll: int
    every: int
    lengths: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if min(self.hold, self.every, *self.lengths.values()) < 1 or self.pre_roll < 0:
            raise HeedfulError(
                "hold, every and lengths must be at least 1 control step and pre_roll 0 or more; they are "
                f"{self}"
            )

    def held(self, command: str) -> int:
        """How long a correction is followed that was taken for this command."""
        return self.lengths.get(command, self.hold)

    @classmethod
    def seconds(cls, fps: float, *, hold: float = 4.0, pre_roll: float = 2.0, every: float = 4.0) -> Timing:
        """From seconds at `fps` control steps a second; the paper's are 4 s (its longest skill), 2 s and 4 s at 50
        Hz."""
        return cls(max(1, round(hold * fps)), round(pre_roll * fps), max(1, round(every * fps)))


@dataclass(frozen=True)
class Clip:
    """Steps start to stop - 1 that belong to a correction, pre-roll included; said_at: where it began to count."""

    id: str
    command: str
    start: int
    said_at: int
    stop: int


@dataclass(frozen=True)
class State:
    """Where things stand at control step `step`, before it is carried out."""

    step: int = 0
    command: str = ""
    """What the robot follows; "" before anything was said."""
    source: str = HIGH_LEVEL
    fresh: bool = False
    """Whether the command, or who gives it, is new at this step: what was planned for the old one is dropped."""
    asked_at: int | None = None
    """The step at which the high level last gave a command; None: it is to be asked now."""
    id: str = ""
    """Of the correction that is followed."""
    said_at: int = 0
    clip_start: int = 0
    overridden: str = ""
    """What the correction replaced."""
    kept: tuple[Clip, ...] = ()
    """All clips of the episode so far, in order."""
    clips: tuple[Clip, ...] = ()
    """Those that have just ended; `stepped` forgets them."""

    @property
    def undoable(self) -> str:
        """The id of the correction that `undone` takes back: the one that is followed, else the last; "" for none."""
        return self.id if self.source == PERSON else self.kept[-1].id if self.kept else ""

    @property
    def unheeded(self) -> str:
        """The id of a correction of this very step: another one now replaces it before it did anything; "" for none."""
        return self.id if self.source == PERSON and self.said_at == self.step else ""

    def opening(self, timing: Timing) -> int:
        """The first step of the clip of a correction that is said now."""
        free = self.kept[-1].stop if self.kept else 0
        if self.source == PERSON and not self.unheeded:
            free = self.step  # the clip of the one that is followed ends here
        return max(free, self.step - timing.pre_roll)


def wants_command(state: State, timing: Timing) -> bool:
    """Whether the high level is to be asked at this step: never while a person's command is followed."""
    return state.source == HIGH_LEVEL and (
        state.asked_at is None or state.step - state.asked_at >= timing.every
    )


def proposed(state: State, command: str) -> State:
    """The high level's command from this step on. Raises HeedfulError while a person's is followed."""
    if state.source != HIGH_LEVEL:
        raise HeedfulError("the high level was not asked: a person's command is followed")
    return replace(state, command=command, asked_at=state.step, fresh=state.fresh or command != state.command)


def heard(state: State, timing: Timing, command: str, id: str) -> State:
    """A person's command from this step on; the clip of the one before ends here."""
    if not command.strip():
        raise HeedfulError("a correction needs a command")
    opening = state.opening(timing)
    state = replace(state, command=state.overridden) if state.unheeded else _ended(state)
    return replace(
        state,
        command=command,
        source=PERSON,
        fresh=True,
        id=id,
        said_at=state.step,
        clip_start=opening,
        overridden=state.command,
    )


def undone(state: State) -> State:
    """The last correction is taken back, with its clip; see `State.undoable`.

    One that is followed ends, and the high level is to be asked at this step. Nothing changes where there is none.
    """
    if state.source == PERSON:
        return replace(
            state,
            command=state.overridden,
            source=HIGH_LEVEL,
            fresh=True,
            asked_at=None,
            id="",
            overridden="",
        )
    id = state.undoable
    return replace(
        state,
        kept=tuple(clip for clip in state.kept if clip.id != id),
        clips=tuple(clip for clip in state.clips if clip.id != id),
    )


def stepped(state: State, timing: Timing) -> State:
    """After the control step was carried out; a correction that was held long enough ends."""
    state = replace(state, step=state.step + 1, fresh=False, clips=())
    if state.source == PERSON and state.step - state.said_at >= timing.held(state.command):
        state = _ended(state)
    return state


def finished(state: State) -> State:
    """When the episode ends: a correction that is still followed gets its clip."""
    return _ended(state)


def _ended(state: State) -> State:
    if state.source != PERSON:
        return state
    clip = Clip(state.id, state.command, state.clip_start, state.said_at, state.step)
    ended = (clip,) if clip.stop > clip.said_at else ()
    return replace(
        state,
        source=HIGH_LEVEL,
        asked_at=None,
        id="",
        overridden="",
        kept=state.kept + ended,
        clips=state.clips + ended,
    )


Said = tuple[str | None, str]
"""(command, or `UNDO`; id)."""


def drive(
    timing: Timing,
    steps: int,
    said: Callable[[int], Iterable[Said]],
    propose: Callable[[State], str],
    *,
    state: State | None = None,
) -> Iterator[State]:
    """The state of each of `steps` control steps, ready to be acted by, and then the one after the last, which has
    `kept` all clips.

    said(step): what came in before this step, in order. propose(state): what the high level says now. The caller acts
    between two values, so this is the loop of a live session, of a simulation with a scripted person, and of a
    replay.
    """
    state = state or State()
    for _ in range(steps):
        for command, id in said(state.step):
            state = undone(state) if command is None else heard(state, timing, command, id)
        if wants_command(state, timing):
            state = proposed(state, propose(state))
        yield state
        state = stepped(state, timing)
    yield finished(state)
