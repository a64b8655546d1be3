"""`heedful correct replay`: recorded episodes again, as a timeline and a page, and what a high level says to them now.

With --run the frames of an episode are shown to that run's high level, as they were to the one that acted, and it is
asked at every correction. It sees the pictures as they are in the videos, which are compressed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from tyro.conf import Positional, arg

from heedful.errors import HeedfulError

if TYPE_CHECKING:
    from heedful.data.corrections import Correction
    from heedful.data.episodes import Episodes

CHUNK = 64
SHOWN = 3
"""Candidates of the high level."""


@dataclass(frozen=True)
class Replay:
    """Show recorded corrections again: as a timeline, as a page, and with what a high level says there now."""

    folder: Positional[Annotated[str, arg(metavar="DIR")]]
    """A folder of `heedful correct run`."""
    episode: int = -1
    """Which; -1: all, and of the page the first one in which something was said."""
    out: str = ""
    """Write the page of one episode here, such as episode.html."""
    run: str = ""
    """A run of `correct train` or `correct learn`, whose high level is asked again at each correction."""
    device: str = "auto"
    """run: cpu, cuda, mps or auto."""
    json: bool = False
    """Print the corrections as JSON, a line each."""


@dataclass(frozen=True)
class Said:
    """A correction, and what was thought at its step. then, now: candidates (command, probability), the best first.

    then: of the high level that acted, as far as it was recorded; now: of --run.
    """

    row: Correction
    then: tuple[tuple[str, float], ...] = ()
    now: tuple[tuple[str, float], ...] = ()

    @property
    def heeded(self) -> bool:
        """Whether the high level of --run now says by itself what it was told."""
        return bool(self.now) and self.now[0][0] == self.row.command


def replay(options: Replay) -> int:
    """Run `heedful correct replay`. Raises HeedfulError for a folder of something else, and unknown episodes."""
    from heedful.data.corrections import CorrectionLog, recorded
    from heedful.data.episodes import check_index, open_episodes

    folder = Path(options.folder).expanduser()
    log = folder / "corrections.jsonl"
    episodes = open_episodes(folder)
    if not len(episodes):
        raise HeedfulError(f"{folder} has no saved episode yet")
    rows = recorded(CorrectionLog(log).rows(), len(episodes))
    some = range(len(episodes))
    if options.episode != -1:
        some = [check_index(options.episode, len(episodes), folder)]
    talker: Any = None
    if options.run:
        from heedful.device import pick_device
        from heedful.recipes.correct_models import open_talker

        talker = open_talker(options.run, device=pick_device(options.device))
    said = {i: with_thoughts(episodes, i, [row for row in rows if row.episode == i], talker) for i in some}
    for i in some:
        for line in _json(said[i]) if options.json else timeline(episodes, i, said[i]):
            print(line)
    if talker and not options.json:
        print(_agreement([one for i in some for one in said[i]]))
    if options.out:
        shown = next((i for i in some if said[i]), some[0])
        written = write_page(episodes, shown, said[shown], Path(options.out))
        if not options.json:
            print(f"episode {shown}: {written}")
    return 0


COMMANDS: dict[str, tuple[type, Callable[[Any], int]]] = {"replay": (Replay, replay)}


def with_thoughts(episodes: Episodes, i: int, rows: Sequence[Correction], talker: Any = None) -> list[Said]:
    """The corrections of episode `i` with what was thought then and, where there is a pair, what it thinks now."""
    meta = episodes.episode(i).meta
    asked = list(
        zip(*(meta.get(f"asked_{name}") or () for name in ("step", "command", "probability")), strict=True)
    )
    now = ask_again(episodes, i, [row.step for row in rows], talker) if talker and rows else {}
    return [
        Said(
            row,
            tuple((command, p) for step, command, p in asked if step <= row.step)[-1:],
            tuple(now.get(row.step, ())),
        )
        for row in rows
    ]


def ask_again(
    episodes: Episodes, i: int, steps: Sequence[int], talker: Any
) -> dict[int, tuple[tuple[str, float], ...]]:
    """What the high level says at these steps of episode `i`, having seen all frames up to there.

    Raises HeedfulError where the data lacks a camera or the column of the state.
    """
    making, last = talker.making, max(steps)
    lacking = [n for n in (*making.cameras.values(), making.state) if n not in episodes.info.features]
    if lacking:
        raise HeedfulError(
            f"{episodes.path} has no {', '.join(lacking)}, which the policies were trained with"
        )
    states = np.array(episodes.columns(i, [making.state], 0, last + 1)[making.state])
    found: dict[int, tuple[tuple[str, float], ...]] = {}
    talker.begin()
    for start in range(0, last + 1, CHUNK):
        part = range(start, min(last + 1, start + CHUNK))
        pictures = {name: episodes.frames(i, column, part) for name, column in making.cameras.items()}
        for k in part:
            seen = {name: frames[k - start] for name, frames in pictures.items()}
            talker.see({**seen, "state": states[k]})
            if k in steps:
                found[k] = tuple(talker.propose().candidates[:SHOWN])
    return found


# ---- as text


def timeline(episodes: Episodes, i: int, said: Sequence[Said]) -> list[str]:
    """An episode in lines: what was followed from when on, what was said, what became of it, what is thought now."""
    from heedful.data.problems import printable

    episode, fps = episodes.episode(i), episodes.info.fps
    done = episode.meta.get("stage_done") or ()
    stages = f", {sum(map(bool, done))} of {len(done)} stages" if len(done) else ""
    outcome = "success" if episode.meta.get("is_episode_successful") else "failure"
    lines = [f"episode {i}: {outcome}{stages}, {episode.length / fps:.1f} s, {len(said)} lines were said"]
    events = [
        (round(row.timestamp * fps), 1, f"{row.timestamp:7.2f} s  follows  {row.content}")
        for row in episodes.language(i)
        if row.style == "subtask"
    ]
    for one in said:
        row = one.row
        became = f"-> {row.command} (instead of {row.overridden or 'nothing'}): " if row.command else ""
        clip = f", clip {row.clip[0] / fps:.2f} to {row.clip[1] / fps:.2f} s" if row.clip else ""
        reason = f", {row.reason}" if row.reason else ""
        text = f"{row.step / fps:7.2f} s  {row.source:<7}  {row.words!r} {became}{row.status}{clip}{reason}"
        events.append((row.step, 0, text))
        events += [
            (row.step, 0, f"{'':>11}{name:<7}  {_candidates(some)}")
            for name, some in (("then", one.then), ("now", one.now))
            if some
        ]
    return lines + [printable(text) for _, _, text in sorted(events, key=lambda event: event[:2])]


def _candidates(some: Sequence[tuple[str, float]]) -> str:
    return ", ".join(f"{command} ({p:.2f})" for command, p in some)


def _agreement(said: Sequence[Said]) -> str:
    counted = [one for one in said if one.row.status == "accepted"]
    before = sum(bool(one.then) and one.then[0][0] == one.row.command for one in counted)
    return (
        f"of {len(counted)} corrections that counted, the high level says {sum(one.heeded for one in counted)} by "
        f"itself now; the one that acted had said {before}"
    )


def _json(said: Sequence[Said]) -> list[str]:
    return [
        json.dumps({**asdict(one.row), "then": one.then, "now": one.now}, ensure_ascii=False) for one in said
    ]


# ---- as a page


def write_page(episodes: Episodes, i: int, said: Sequence[Said], out: Path) -> Path:
    """A page of its own: video, commands, corrections with their clips, and signals, in step."""
    from heedful.recipes.demos_view import Band, Table, write_view

    fps, length = episodes.info.fps, episodes.episode(i).length
    starts = [
        (round(r.timestamp * fps), r.content or "") for r in episodes.language(i) if r.style == "subtask"
    ]
    stops = [step for step, _ in starts[1:]] + [length]
    theirs = {(one.row.step, one.row.command) for one in said}
    followed = [
        Band(start, stop, text, (start, text) in theirs)
        for (start, text), stop in zip(starts, stops, strict=True)
    ]
    clips = [Band(*one.row.clip, f"“{one.row.words}”", True) for one in said if one.row.clip]
    head = ["said", "taken for", "instead of", "what became of it", "the robot thought"]
    rows = []
    for one in said:
        row = one.row
        cells = [
            row.words, row.command or "-", row.overridden, f"{row.status}{': ' if row.reason else ''}{row.reason}",
            _candidates(one.then),
        ]  # fmt: skip
        stop = row.clip[1] if row.clip else row.step + round(fps)
        rows.append((row.step, stop, [*cells, _candidates(one.now)] if one.now else cells))
    if any(one.now for one in said):
        head.append("now")
    return write_view(
        episodes,
        i,
        out,
        bands={
            "what the robot followed; yours set off": followed,
            "clips that are learned from, with what came before the words": clips,
        },
        table=Table("Corrections", head, rows),
    )
