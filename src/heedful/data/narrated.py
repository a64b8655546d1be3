"""Demonstrations in which somebody said what is being done: a data set's language columns as segments.

A row of the style `subtask` begins a segment, which goes on to the next one. An `interjection` at the beginning of a
segment makes it a correction; inside a segment it cuts it in two, and the second part is the correction. So episodes
of `heedful correct run`, LeRobot's own annotations and generated narrations are read alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from heedful.data.episodes import Episodes, LanguageRow, open_episodes
from heedful.data.segments import CORRECTION, INSTRUCTION, Segment, check_segments
from heedful.errors import HeedfulError

IMAGES = "observation.images."
STATE, ACTION = "observation.state", "action"
SHOWN = 20
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Narrated:
    """Episodes with their segments, states (T, S) and actions (T, A). cameras: names of pictures and their columns.

    aliases: wordings and the commands they stand for, where the data says so (`segment_text`, `segment_command`).
    """

    episodes: Episodes
    cameras: Mapping[str, str]
    segments: list[list[Segment]]
    states: list[Floats]
    actions: list[Floats]
    aliases: dict[str, str] = field(default_factory=dict)

    @property
    def fps(self) -> float:
        """Frames a second."""
        return self.episodes.info.fps

    def pictures(self, i: int, camera: str, steps: Sequence[int]) -> NDArray[np.uint8]:
        """(n, 3, H, W) of a camera's name. Raises HeedfulError naming episode, camera and frame."""
        frames = self.episodes.frames(i, self.cameras[camera], steps)
        return np.ascontiguousarray(frames.transpose(0, 3, 1, 2))


def open_narrated(
    path: str | Path, cameras: Sequence[str] = (), *, episodes: Episodes | None = None
) -> Narrated:
    """Open narrated demonstrations of any layout that has language. cameras: columns of pictures, all by default.

    episodes: the data set opened already, as with a proxy. Raises HeedfulError with all that is wrong: no state, no
    actions, no such camera, an episode without a word, segments that are out of order, numbers that are not finite.
    """
    opened = open_episodes(path) if episodes is None else episodes
    info, place = opened.info, opened.path
    absent = [name for name in (STATE, ACTION) if name not in info.columns]
    if absent or not info.cameras:
        raise HeedfulError(
            f"{place}: there is no {' and no '.join(absent or ['camera'])}; it has "
            f"{', '.join((*info.columns, *info.cameras)) or 'nothing'}"
        )
    chosen = [name if name in info.cameras else IMAGES + name for name in cameras] or list(info.cameras)
    unknown = [name for name in chosen if name not in info.cameras]
    if unknown:
        raise HeedfulError(
            f"{place}: there is no camera {unknown[0].removeprefix(IMAGES)!r}; it has "
            f"{', '.join(name.removeprefix(IMAGES) for name in info.cameras)}"
        )
    if not len(opened):
        raise HeedfulError(f"{place} has no episode")
    wrong: list[str] = []
    segments, states, actions = [], [], []
    for i in range(len(opened)):
        columns = opened.columns(i, [STATE, ACTION])
        states.append(np.asarray(columns[STATE], np.float32))
        actions.append(np.asarray(columns[ACTION], np.float32))
        try:
            for name in (STATE, ACTION):
                _check_finite(columns[name], f"{place}: episode {i}, {name}")
            segments.append(
                segments_of(opened.language(i), info.fps, opened.episode(i).length, f"{place}: episode {i}")
            )
        except HeedfulError as error:
            wrong.append(str(error))
    if wrong:
        more = f"\nand {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise HeedfulError("\n".join(wrong[:SHOWN]) + more)
    named = {name.removeprefix(IMAGES): name for name in chosen}
    return Narrated(opened, named, segments, states, actions, _aliases(opened))


def segments_of(
    rows: Sequence[LanguageRow], fps: float, length: int, where: str = "the episode"
) -> list[Segment]:
    """Segments of an episode of `length` steps from what was said in it.

    Raises HeedfulError with `where` when nothing was, or what was said does not make segments in order.
    """
    begins: dict[int, str] = {}
    for row in rows:
        if row.style == "subtask" and row.content:
            begins[round(row.timestamp * fps)] = row.content
    if not begins:
        raise HeedfulError(
            f"{where} has no row of language of the style `subtask`: nobody said what is being done"
        )
    said = {round(row.timestamp * fps) for row in rows if row.style == "interjection" and row.content}
    first = min(begins)
    for step in sorted(said - set(begins)):
        if first < step < length:
            begins[step] = begins[max(b for b in begins if b < step)]
    starts = sorted(begins)
    segments = [
        Segment(start, stop, begins[start], CORRECTION if start in said else INSTRUCTION)
        for start, stop in zip(starts, [*starts[1:], length], strict=True)
    ]
    check_segments(segments, length, where)
    return segments


def _check_finite(values: NDArray[np.generic], where: str) -> None:
    bad = ~np.isfinite(np.asarray(values, np.float64))
    if bad.any():
        frame, number = np.argwhere(bad)[0].tolist()
        raise HeedfulError(f"{where}: number {number} of frame {frame} is not finite")


def _aliases(episodes: Episodes) -> dict[str, str]:
    """Raises HeedfulError for a wording that stands for two commands."""
    found: dict[str, str] = {}
    for i in range(len(episodes)):
        meta = episodes.episode(i).meta
        for text, command in zip(meta.get("segment_text") or (), meta.get("segment_command") or ()):
            if found.setdefault(str(text), str(command)) != command:
                raise HeedfulError(
                    f"{episodes.path}: episode {i}: {text!r} stands for {command!r}, and before it for {found[text]!r}"
                )
    return found
