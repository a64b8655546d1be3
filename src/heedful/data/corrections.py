"""What a person said while a robot acted: every correction is a row, on the disk before the robot moves on.

corrections.jsonl holds one JSON object a line and is only appended to:

    {"correction": {...}}                    one, with everything known of it
    {"undo": id, "time": seconds}            it was taken back, and so were its steps
    {"replaced": id, "time": seconds}        another one came within the same control step
    {"lost": id, "time": seconds}            its episode was never saved: the program was killed, or it was thrown away
    {"clip": id, "start": s, "stop": t}      the steps that were kept for it, once they are known

Raises of HeedfulError name file and line. Rows become LeRobot's `language_events` by `language_events`.
"""

from __future__ import annotations

import time as clock
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from heedful.data.segments import Saying
from heedful.errors import HeedfulError
from heedful.journal import Journal

ACCEPTED, REFUSED, UNDONE, REPLACED, LOST = "accepted", "refused", "undone", "replaced", "lost"
_ENDS = {"undo": UNDONE, "replaced": REPLACED, "lost": LOST}
"""What a row becomes, by the key of the line that says so."""
TYPED, SPOKEN, SCRIPTED = "typed", "spoken", "scripted"
"""Usual sources."""


@dataclass(frozen=True)
class Correction:
    """One thing said. Steps are control steps of the episode."""

    id: str
    time: float
    """Seconds since 1970."""
    episode: int
    step: int
    """From which it counted."""
    source: str
    words: str
    """As typed or heard."""
    command: str | None
    """What they were taken for, in words of the bank or, where those are not used, their own; None: refused."""
    overridden: str
    """What the robot was doing; "" for nothing."""
    pre_roll: tuple[int, int]
    """Steps (first, stop) before it that belong to it."""
    how: str = ""
    """By which rule they were taken for the command, see `commands.Snap`."""
    score: float | None = None
    runner_up: str | None = None
    runner_up_score: float | None = None
    reason: str = ""
    """Why they were refused."""
    status: str = ACCEPTED
    clip: tuple[int, int] | None = None
    """Steps (first, stop) that were kept for it, once they are known."""


class CorrectionLog:
    """The corrections in a file; opening it reads what is there. Several programs may have it open."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._rows: dict[str, Correction] = {}
        self._journal = Journal(self.path, self._apply)

    def add(
        self,
        *,
        episode: int,
        step: int,
        source: str,
        words: str,
        command: str | None,
        overridden: str = "",
        pre_roll: int = 0,
        first: int = 0,
        snap: dict[str, Any] | None = None,
        time: float | None = None,
    ) -> Correction:
        """Keep a correction; it is on the disk when this returns. command None: the words were refused.

        pre_roll: how many steps before `step` belong to it, none before step `first`. snap: `commands.Snap.as_row()`.
        Raises HeedfulError for no words, for steps below 0, and when the disk is full or read-only.
        """
        if not words.strip() or min(episode, step, pre_roll, first) < 0 or first > step:
            raise HeedfulError(
                "a correction needs words, and an episode and steps of 0 or more; they are "
                f"{words!r}, {episode}, {step}, {pre_roll} and {first}"
            )
        told = {
            k: v
            for k, v in (snap or {}).items()
            if k in ("how", "score", "runner_up", "runner_up_score", "reason")
        }
        with self._journal.writing_to() as append:
            row = Correction(
                id=f"c{len(self._rows) + 1:06d}",
                time=round(clock.time() if time is None else time, 3),
                episode=episode,
                step=step,
                source=source,
                words=words,
                command=command,
                overridden=overridden,
                pre_roll=(max(first, step - pre_roll), step),
                status=ACCEPTED if command is not None else REFUSED,
                **told,
            )
            append([{"correction": asdict(row)}])
        return self._rows[row.id]

    def undo(self, id: str | None = None, *, time: float | None = None) -> Correction | None:
        """Take back a correction, the last accepted one without `id`; None when there is none. It stays in the file.

        Raises HeedfulError for an id that is not there or was not accepted.
        """
        self._journal.refresh()
        if id is None:
            id = next((k for k, row in reversed(self._rows.items()) if row.status == ACCEPTED), None)
        return None if id is None else self._end("undo", [id], time)[0]

    def replaced(self, id: str, *, time: float | None = None) -> Correction:
        """Say that another correction came before this one was acted on. Raises HeedfulError as `undo` does."""
        return self._end("replaced", [id], time)[0]

    def lose(self, first: int, *, time: float | None = None) -> list[Correction]:
        """Say that the episodes from `first` on were never saved; the rows that are lost by it. Idempotent."""
        ids = [row.id for row in self.rows() if row.episode >= first and row.status != LOST]
        return self._end("lost", ids, time) if ids else []

    def _end(self, how: str, ids: Sequence[str], time: float | None) -> list[Correction]:
        with self._journal.writing_to() as append:
            for id in ids:
                was = self._rows[id].status if id in self._rows else ""
                if how != "lost" and was != ACCEPTED:
                    said = f"was {was}" if was else "is not there"
                    raise HeedfulError(f"{self.path}: the correction {id!r} {said}")
            append([{how: id, "time": round(clock.time() if time is None else time, 3)} for id in ids])
        return [self._rows[id] for id in ids]

    def keep_clip(self, id: str, start: int, stop: int) -> Correction:
        """Say which steps were kept for a correction. Raises HeedfulError for one that is not there, and no steps."""
        with self._journal.writing_to() as append:
            if id not in self._rows or not 0 <= start < stop:
                raise HeedfulError(
                    f"{self.path}: no clip of steps {start} to {stop} for the correction {id!r}"
                )
            append([{"clip": id, "start": start, "stop": stop}])
        return self._rows[id]

    def rows(self, *, episode: int | None = None, status: str | None = None) -> list[Correction]:
        """All corrections in order, or those of one episode or status; reads what other programs added."""
        self._journal.refresh()
        return [
            row
            for row in self._rows.values()
            if episode in (None, row.episode) and status in (None, row.status)
        ]

    def _apply(self, entries: Iterable[tuple[dict[str, Any], str]]) -> None:
        for entry, where in entries:
            self._take(entry, where)

    def _take(self, entry: dict[str, Any], where: str) -> None:
        if "correction" in entry:
            row = _from_json(entry["correction"], where)
            if row.id in self._rows:
                raise HeedfulError(f"{where}: the correction {row.id!r} is there twice; remove the line")
            self._rows[row.id] = row
            return
        how = next((key for key in (*_ENDS, "clip") if key in entry), "")
        id = entry.get(how)
        if not isinstance(id, str) or id not in self._rows:
            raise HeedfulError(f"{where}: neither a correction nor about one before it; remove the line")
        if how == "clip":
            self._rows[id] = replace(self._rows[id], clip=_clip(entry, where))
        else:
            self._rows[id] = replace(self._rows[id], status=_ENDS[how], clip=None)


def _clip(entry: dict[str, Any], where: str) -> tuple[int, int]:
    try:
        return int(entry["start"]), int(entry["stop"])
    except (TypeError, ValueError, KeyError) as error:
        raise HeedfulError(f"{where}: a clip without its steps ({error}); remove the line") from error


def _from_json(said: Any, where: str) -> Correction:
    try:
        pairs = {
            name: tuple(map(int, said[name])) for name in ("pre_roll", "clip") if said.get(name) is not None
        }
        known = {field.name for field in fields(Correction)}
        if set(said) - known:
            raise ValueError(f"{', '.join(sorted(set(said) - known))} unknown")
        row = Correction(**{**said, **pairs})
        if not isinstance(row.words, str) or row.status not in (ACCEPTED, REFUSED):
            raise ValueError("words or status")
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise HeedfulError(f"{where}: a damaged correction ({error}); remove the line") from error
    return row


# ---- what corrections are good for


def recorded(corrections: Sequence[Correction], episodes: int) -> list[Correction]:
    """Those of the first `episodes` episodes, the ones that were saved; what was lost with an episode is left out.

    A program that was killed leaves rows of an episode that nobody has; they are marked when its command runs again.
    """
    return [row for row in corrections if row.status != LOST and row.episode < episodes]


def language_events(corrections: Sequence[Correction], fps: float) -> list[dict[str, Any]]:
    """Rows of LeRobot's column `language_events` for one episode, style `interjection`, what was taken back left out.

    Keys are those of LeRobot's rows: role, content, style, timestamp (seconds from the episode's first frame), camera,
    tool_calls. The content is what was said. Raises HeedfulError when the corrections are of several episodes.
    """
    if len({row.episode for row in corrections}) > 1:
        raise HeedfulError("language events are of one episode; take `rows(episode=...)`")
    return [
        _language("user", row.words, "interjection", row.step, fps)
        for row in corrections
        if row.status == ACCEPTED
    ]


def subtasks(commands: Sequence[str], fps: float) -> list[dict[str, Any]]:
    """Rows of `language_persistent`, style `subtask`: the command of each step, at the steps where it changes."""
    return [
        _language("assistant", command, "subtask", step, fps)
        for step, command in enumerate(commands)
        if command and (step == 0 or commands[step - 1] != command)
    ]


def _language(role: str, content: str, style: str, step: int, fps: float) -> dict[str, Any]:
    stamp = step / fps
    return {
        "role": role, "content": content, "style": style, "timestamp": stamp, "camera": None, "tool_calls": ()
    }  # fmt: skip


def clip_sayings(corrections: Sequence[Correction], *, stride: int = 1) -> Iterator[Saying]:
    """Each `stride`-th step of each clip, with what is to be said there: the command, pre-roll included.

    Yell At Your Robot's correction episodes: the steps before the words teach to say them unasked. What was refused,
    taken back or never kept gives nothing.
    """
    for row in corrections:
        if row.status == ACCEPTED and row.clip is not None and row.command is not None:
            for step in range(*row.clip, stride):
                yield Saying(row.episode, step, row.command)
