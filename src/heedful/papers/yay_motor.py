"""A person who takes over instead of speaking: HG-DAgger on the low level (Kelly et al. 2019), at equal interventions.

Where the scripted person of the same seed would have spoken, an expert steers for as long as a correction is followed,
and the low level learns what it did. Rounds, shares and the number of interventions are those of the rounds of words.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from heedful.data.episodes import LanguageRow, open_episodes
from heedful.data.episodes.write import EpisodeWriter
from heedful.data.narrated import Narrated, open_narrated
from heedful.data.pack_table.commands import due
from heedful.data.pack_table.expert import TASK, expert, pack_frame, pack_info
from heedful.data.pack_table.people import ScriptedPerson
from heedful.data.segments import CORRECTION, Segment, Start, draw_starts
from heedful.model_folder import read_json
from heedful.papers.yay_shared import opened
from heedful.papers.yay_sizes import ROUNDS
from heedful.policies.actions import NetworkPolicy
from heedful.recipes import correct_eval, correct_learn, correct_low
from heedful.recipes.correct_models import Talker
from heedful.run import derive_seed

if TYPE_CHECKING:
    from heedful.papers.yay_arms import Seed

MOST = 3
"""Times the episodes of a round that may be needed to take over as often."""


@dataclass(frozen=True)
class Several:
    """Data sets one after the other, as `correct_low.chunk_batch` reads them."""

    parts: Sequence[Narrated]

    @property
    def cameras(self) -> Any:
        """Those of the first."""
        return self.parts[0].cameras

    @property
    def states(self) -> list[Any]:
        """By episode."""
        return [states for part in self.parts for states in part.states]

    @property
    def actions(self) -> list[Any]:
        """By episode."""
        return [actions for part in self.parts for actions in part.actions]

    def pictures(self, i: int, camera: str, steps: Sequence[int]) -> Any:
        """See `Narrated.pictures`."""
        for part in self.parts:
            if i < len(part.actions):
                return part.pictures(i, camera, steps)
            i -= len(part.actions)
        raise IndexError(i)


def pair(seed: Seed) -> Talker:
    """The seed's base pair with its low level after all rounds."""
    seed.learned(ROUNDS)
    base, shared = seed.base(), seed.shared
    sets, kept = [shared.demos.narrated], list(shared.demos.kept)
    low = copy.deepcopy(shared.low)
    for number in range(1, ROUNDS + 1):
        wanted = read_json(seed.folder(f"post-{number}") / "result.json")["corrections"]
        folder = taken_over(seed, shared.pair(base.high, low), number, wanted)
        if folder is None:
            continue
        sets.append(open_narrated(folder))
        newest = [[s for s in segments if s.kind == CORRECTION] for segments in sets[-1].segments]
        _learn(seed, low, sets, kept, newest, number)
        kept += newest
    return shared.pair(base.high, low)


def _learn(
    seed: Seed,
    low: NetworkPolicy,
    sets: Sequence[Narrated],
    old: Sequence[Sequence[Segment]],
    newest: Sequence[Sequence[Segment]],
    number: int,
) -> None:
    shared, steps = seed.shared, seed.size.motor_steps
    cfg = replace(
        shared.cfg,
        out=str(seed.folder(f"motor/round-{number}")),
        seed=seed.seed,
        low_steps=steps,
        low_rate=shared.cfg.low_rate / 3,
    )
    ratio = correct_learn.Learn("").ratio
    with opened(cfg) as run:
        rng = np.random.default_rng(run.seed_for("motor", number))
        wanted = steps * cfg.low_batch
        rows = drawn(old, 0, round((1 - ratio) * wanted), rng)
        rows += drawn(newest, len(old), wanted - len(rows), rng)
        correct_low.imitate(cfg, low, Several(sets), rows, run, stage="motor")


def drawn(
    segments: Sequence[Sequence[Segment]], first: int, count: int, rng: np.random.Generator
) -> list[Start]:
    """`count` starts in episodes that are numbered from `first` on."""
    there = sum(map(bool, segments))
    if not there or not count:
        return []
    rows = draw_starts(segments, math.ceil(count / there), rng)[:count]
    return [replace(row, episode=row.episode + first) for row in rows]


def taken_over(seed: Seed, acting: Talker, number: int, wanted: int) -> Path | None:
    """Episodes of a round in which an expert takes over `wanted` times; None where it never had to."""
    if not wanted:
        return None
    folder = seed.folder(f"motor/taken-{number}")
    world = seed.shared.making.world or {}
    table = correct_eval.open_table(world)
    live = ROUNDS * seed.seed + number - 1
    with EpisodeWriter(folder, pack_info(tuple(world["size"]))) as writer:
        done = writer.info.total_episodes
        count = sum(_taken_over(folder, done))
        for i in range(done, MOST * seed.size.collected):
            if count >= wanted:
                break
            person = ScriptedPerson(derive_seed(live, "person", i))
            first = correct_eval.LIVE + live * 1_000_000 + i
            count += _episode(writer, table, acting, person, first, wanted - count, seed.size.longest)
    table.close()
    return folder if count else None


def _taken_over(folder: Path, episodes: int) -> list[int]:
    """How often in each episode that is there; an earlier start wrote them."""
    if not episodes:
        return []
    there = open_episodes(folder)
    return [int(there.episode(i).meta["taken_over"]) for i in range(episodes)]


def _episode(
    writer: EpisodeWriter, table: Any, pair: Any, person: ScriptedPerson, seed: int, most: int, longest: int
) -> int:
    """Write one episode; how often the expert took over in it, at most `most` times."""
    seen, timing = table.reset(seed), pair.timing
    pair.begin()
    person.begin()
    rng = np.random.default_rng([seed, 16])
    rows: list[LanguageRow] = []
    said, steering, left, count, asked = "", iter(()), 0, 0, -timing.every
    step = 0

    def tell(command: str, by: str) -> None:
        rows.append(LanguageRow(command, "subtask", step / pair.fps, "assistant"))
        if by == "expert":
            rows.append(LanguageRow(command, "interjection", step / pair.fps))

    while not table.over and not (longest and step >= longest):
        pair.see(seen)
        words = person.say(table, said)
        if words is not None and not left and count < most:
            left, count = timing.held(due(table)), count + 1
            steering = iter(())
        if left:
            action = next(steering, None)
            while action is None:
                said = due(table) or said
                tell(said, "expert")
                steering = expert(table, said, rng)
                action = next(steering, None)
            left -= 1
            asked = asked if left else step - timing.every
        else:
            fresh = False
            if step - asked >= timing.every:
                before, said, asked = said, pair.propose().command, step
                fresh = said != before or not rows or rows[-1].style == "interjection"
                if fresh:
                    tell(said, "pair")
            action = pair.act(seen, said, fresh)
        writer.add_frame(pack_frame(seen, action))
        seen = table.act(action)
        step += 1
    writer.save_episode(TASK, {"taken_over": count, "is_episode_successful": table.succeeded}, rows)
    return count
