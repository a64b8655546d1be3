"""Narrated demonstrations cut into skills: the mistake filter, where action chunks begin, and what to say when.

A demonstration is a list of segments, each with the words that were said for it (Yell At Your Robot, arXiv 2403.12910).
Where a segment is followed by a correction, it was the mistake: the policy that acts must not imitate it, and the one
that speaks must see it, since what follows is how it is corrected. So there is a filter for the one and none for the
other; both are options, since the asymmetry is an ablation.

Letters: T steps of an episode, H steps of an action chunk, A numbers of an action.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heedful.errors import HeedfulError

INSTRUCTION, CORRECTION = "instruction", "correction"
KINDS = (INSTRUCTION, CORRECTION)
MISTAKE, SHORT = "followed by a correction", "shorter than min_steps"
"""Why a segment is not learned from."""
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Segment:
    """Steps start to stop - 1 of an episode, and the words that were said for them."""

    start: int
    stop: int
    text: str
    kind: str = INSTRUCTION

    @property
    def steps(self) -> int:
        """How many steps it has."""
        return self.stop - self.start


@dataclass(frozen=True)
class Kept:
    """Segments to learn from, in order, and how many were left out for which reason."""

    segments: list[Segment]
    dropped: dict[str, int] = field(default_factory=dict)


def check_segments(segments: Sequence[Segment], length: int, where: str = "segments") -> None:
    """Raises HeedfulError naming the first segment that is empty, out of the `length` steps, out of order, without
    words, or of another kind than `KINDS`."""
    before = 0
    for i, segment in enumerate(segments):
        wrong = ""
        if not 0 <= segment.start < segment.stop <= length:
            wrong = f"has the steps {segment.start} to {segment.stop} of {length}"
        elif segment.start < before:
            wrong = f"begins at step {segment.start}, before the one ahead of it ends ({before})"
        elif not segment.text.strip():
            wrong = "has no words"
        elif segment.kind not in KINDS:
            wrong = f"is of the kind {segment.kind!r}; there are {' and '.join(KINDS)}"
        if wrong:
            raise HeedfulError(f"{where}: segment {i} {wrong}")
        before = segment.stop


def acting_segments(segments: Sequence[Segment], *, min_steps: int = 20, drop_mistakes: bool = True) -> Kept:
    """Segments that a policy which acts learns from.

    drop_mistakes: leave out a segment whose next one is a correction. min_steps: leave out what is shorter (the paper
    has 20 steps at 50 Hz). A segment that is both counts as a mistake.
    """
    kept, dropped = [], Counter[str]()
    for i, segment in enumerate(segments):
        corrected = i + 1 < len(segments) and segments[i + 1].kind == CORRECTION
        if drop_mistakes and corrected:
            dropped[MISTAKE] += 1
        elif segment.steps < min_steps:
            dropped[SHORT] += 1
        else:
            kept.append(segment)
    return Kept(kept, dict(dropped))


def speaking_segments(segments: Sequence[Segment], *, drop_mistakes: bool = False) -> Kept:
    """Segments that a policy which speaks learns from: all of them, unless the filter is switched on."""
    return acting_segments(segments, min_steps=1, drop_mistakes=drop_mistakes)


# ---- where chunks of actions begin


@dataclass(frozen=True)
class Start:
    """A chunk of actions begins at `step` of `episode` and does not go beyond `stop`."""

    episode: int
    step: int
    stop: int
    text: str


def all_starts(episodes: Sequence[Sequence[Segment]], *, stride: int = 1) -> list[Start]:
    """Every `stride`-th step of every segment; an epoch of these sees each step once."""
    return [
        Start(i, step, segment.stop, segment.text)
        for i, segments in enumerate(episodes)
        for segment in segments
        for step in range(segment.start, segment.stop, stride)
    ]


def draw_starts(
    episodes: Sequence[Sequence[Segment]], rounds: int, generator: np.random.Generator
) -> list[Start]:
    """`rounds` times one start in each episode: a random segment of it, then a random step of that, as in the paper.

    The episodes' segments are those that `acting_segments` kept; an episode without any gives none. Long segments are
    drawn no more often than short ones, unlike in `all_starts`.
    """
    starts = []
    for _ in range(rounds):
        for i, segments in enumerate(episodes):
            if segments:
                segment = segments[int(generator.integers(len(segments)))]
                step = int(generator.integers(segment.start, segment.stop))
                starts.append(Start(i, step, segment.stop, segment.text))
    return starts


def chunk_at(
    actions: Floats, step: int, stop: int, horizon: int, *, past: int = 0, start: int = 0
) -> tuple[Floats, NDArray[np.bool_]]:
    """(H, A) actions of an episode's (T, A), from step `step` - `past` on, and (H,) which of them are there.

    What would be before `start`, or at `stop` and beyond, is never read: the nearest action that is there is repeated,
    with the mask False. past: To - 1 for a policy that predicts from the first frame of its history on (Chi et al.
    2023). Raises HeedfulError for steps that the episode does not have.
    """
    if not 0 <= start <= step < stop <= len(actions):
        raise HeedfulError(f"there is no chunk at step {step} of {start} to {stop} in {len(actions)} actions")
    steps = step - past + np.arange(horizon)
    return actions[np.clip(steps, start, stop - 1)], (steps >= start) & (steps < stop)


def frames_before(step: int, count: int, *, stride: int = 1, first: int = 0) -> NDArray[np.int64]:
    """(count,) steps of an observation history that ends at `step`, oldest first, `stride` steps apart.

    Before `first` there is nothing: its frame is repeated.
    """
    return np.maximum(step - stride * np.arange(count - 1, -1, -1), first)


# ---- what to say when


@dataclass(frozen=True)
class Saying:
    """What is to be said at `step` of `episode`."""

    episode: int
    step: int
    text: str


def segment_at(segments: Sequence[Segment], step: int) -> Segment | None:
    """The segment that has this step; None between two of them and outside."""
    for segment in segments:
        if segment.start <= step < segment.stop:
            return segment
    return None


def sayings(
    segments: Sequence[Segment], *, look_ahead: int, episode: int = 0, stride: int = 1
) -> Iterator[Saying]:
    """For each `stride`-th step that a segment has, the words of the segment `look_ahead` steps later.

    The look-ahead (0.4 s in the paper) teaches the switch just before it is due. Where nothing is said that late, the
    words of the step's own segment stand: the last command goes on to the end, and none leaks out of a pause.
    """
    for segment in segments:
        for step in range(segment.start, segment.stop, stride):
            later = segment_at(segments, step + look_ahead)
            yield Saying(episode, step, (later or segment).text)
