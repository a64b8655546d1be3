"""What all seeds of `heedful reproduce yay` have in common: demonstrations, low levels, and the world that was chosen.

The low level is trained once, tuned by the world it acts in, and frozen before anything is compared (spec: a stage that
is begun is to succeed in 70 to 85%, the task in 10 to 30%, on episodes of their own).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from heedful.data.pack_table.expert import TASK
from heedful.data.segments import Segment, acting_segments
from heedful.papers.onpolicy_arms import attempt
from heedful.papers.seeds import Result
from heedful.papers.yay_sizes import NEAR, SETUP, STAGES_BAND, TASK_BAND, Size
from heedful.policies.actions import NetworkPolicy
from heedful.policies.actions.build import Making
from heedful.policies.instruct import Speaker
from heedful.recipes import correct, correct_eval, correct_high, correct_learn, correct_low
from heedful.recipes.correct_high import Lessons
from heedful.recipes.correct_low import Demos
from heedful.recipes.correct_models import Eyes, Talker, TalkerMaking
from heedful.run import Run, open_run

DATA_SEED = 1000
"""Of the demonstrations, the low levels, and the high level by which the world is chosen: no seed of an arm."""


@dataclass(frozen=True)
class Shared:
    """cfg: options of `correct train`; folder: the run of what is shared; making: with the world that was chosen."""

    cfg: correct.Config
    folder: Path
    demos: Demos
    lessons: Lessons
    low: NetworkPolicy
    low_making: Making
    making: TalkerMaking

    def pair(self, high: Speaker, low: NetworkPolicy | None = None) -> Talker:
        """A pair with the common low level, or with another one, whose high level still sees with the common eyes."""
        talker = Talker(self.making, low or self.low, self.low_making, high)
        talker.eyes = Eyes(self.low)
        return talker

    def other(self, which: str) -> NetworkPolicy:
        """The low level `flat` or `unfiltered`, trained once."""
        with opened(self.cfg) as own:
            return correct_low.train(self.cfg, self.demos, own, stage=which, segments=OTHERS[which](self))[0]


def _flat(shared: Shared) -> list[list[Segment]]:
    """Whole episodes, all under the same words."""
    return [
        [] if i in shared.demos.held else [Segment(0, len(actions), TASK)]
        for i, actions in enumerate(shared.demos.narrated.actions)
    ]


def _unfiltered(shared: Shared) -> list[list[Segment]]:
    """What was corrected afterwards, too."""
    demos = shared.demos
    least = correct_low.least_steps(shared.cfg, demos.narrated)
    return [
        [] if i in demos.held else acting_segments(segments, min_steps=least, drop_mistakes=False).segments
        for i, segments in enumerate(demos.narrated.segments)
    ]


OTHERS: Mapping[str, Callable[[Shared], Sequence[Sequence[Segment]]]] = {
    "flat": _flat,
    "unfiltered": _unfiltered,
}


@contextmanager
def opened(cfg: Any) -> Iterator[Run]:
    """A run folder of an arm."""
    with open_run(cfg.out, cfg, seed=cfg.seed, command="reproduce", volatile=correct.VOLATILE) as own:
        yield own


def shared_of(size: Size, run: Run, until: float | None = None) -> Shared | None:
    """Demonstrations, the low level, its lessons and the world, each made once; None when one is late."""
    folder = run.path(f"{SETUP}/shared")
    cfg = correct.Config(**size.train, out=str(folder), seed=DATA_SEED, eval_episodes=0, quiet=True)
    found: dict[str, Any] = {}

    def prepare() -> Result:
        with opened(cfg) as own:
            demos = correct_low.gather(cfg, own)
            low, low_making = correct_low.train(cfg, demos, own)
            making = correct_high.talking(cfg, demos)
            lessons = correct_high.lessons_of(cfg, demos, making, low, own)
        found["shared"] = Shared(cfg, folder, demos, lessons, low, low_making, making)
        return {
            "episodes": len(demos.narrated.segments),
            "steps": demos.steps,
            "segments": sum(map(len, demos.narrated.segments)),
            "learned": sum(map(len, demos.kept)),
            "mistakes": sum(bool(e) for e in demos.dropped.values()),
            "wordings": len(lessons.texts),
        }

    if attempt(f"{SETUP}/shared.json", prepare, run, until) is None:
        return None
    if not found:
        prepare()
    shared: Shared = found["shared"]
    chosen = attempt(f"{SETUP}/world.json", lambda: choose(shared, size), run, until)
    if chosen is None:
        return None
    world = {**(shared.making.world or {}), **chosen["world"]}
    return replace(shared, making=replace(shared.making, world=world))


# ---- the world


def choose(shared: Shared, size: Size) -> Result:
    """The first world in which a pair with a seed of its own stands within the bands, else the nearest of all.

    tried: of each world the success of a stage that was begun and of the task, on validation episodes.
    """
    cfg = replace(shared.cfg, out=str(shared.folder.parent / "tuning"))
    with opened(cfg) as own:
        correct_learn.inherit(shared.folder, own)
        high = correct_high.train(cfg, shared.lessons, shared.making.aliases, own)
        tried: list[Result] = []
        for number, world in enumerate(size.worlds):
            making = replace(shared.making, world={**(shared.making.world or {}), **world})
            pair = replace(shared, making=making).pair(high)
            rows = correct_eval.measured(
                pair, size.tuning, f"world-{number}", own, first=correct_eval.VALIDATION
            )
            stages, task = correct_eval.stage_success(rows), sum(r["success"] for r in rows) / len(rows)
            tried.append({"world": dict(world), "stages": stages, "task": task, "off": off(stages, task)})
            if not tried[-1]["off"]:
                break
    return {"world": min(tried, key=lambda one: one["off"])["world"], "tried": tried}


def off(stages: float, task: float) -> float:
    """By how much two success rates miss their bands together; 0 within both, or `NEAR` them."""
    missed = sum(
        max(0.0, low - value, value - high)
        for value, (low, high) in ((stages, STAGES_BAND), (task, TASK_BAND))
    )
    return missed if missed > NEAR else 0.0
