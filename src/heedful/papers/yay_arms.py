"""The arms of Yell At Your Robot, seed by seed: high levels, rounds of corrections, and what each pair achieves.

Episodes of a seed are the same for all of its arms. What is made for an arm lies in folders of its own, so that any
start goes on where the last one stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from heedful.data.corrections import ACCEPTED, SCRIPTED, CorrectionLog
from heedful.data.pack_table import ORDER
from heedful.data.pack_table.commands import (
    CLOSE_BIN,
    HOME,
    OPEN_BIN,
    PLACE,
    RELEASE,
    WORDINGS,
    advised,
    pick,
)
from heedful.data.pack_table.expert import TASK
from heedful.data.pack_table.people import ScriptedPerson
from heedful.data.table.arm import HERTZ
from heedful.errors import NotFinite
from heedful.model_folder import read_json
from heedful.papers import yay_motor
from heedful.papers.onpolicy_arms import attempt
from heedful.papers.results import Tier
from heedful.papers.seeds import Done, Result
from heedful.papers.yay_shared import Shared, opened, shared_of
from heedful.papers.yay_sizes import FEW, RELEARNED, ROUNDS, SETUP, SIZES, SLIPS, Size
from heedful.policies.commands import Snap
from heedful.recipes import correct_eval, correct_high, correct_learn
from heedful.recipes.correct_learn import Learn
from heedful.recipes.correct_live import Answer, Nobody, take
from heedful.recipes.correct_models import Proposal, Talker, open_talker, save_talker
from heedful.recipes.correct_run import Options
from heedful.recipes.correct_session import open_session
from heedful.run import Run, derive_seed

PART = 5
"""Episodes between two savings."""


def run_arms(tier: Tier, setup: str, seed: int, run: Run, until: float | None = None) -> Done:
    """The arms of a seed, those that can be begun before `until` and those done earlier."""
    size, done = SIZES[tier], {}
    # what is shared is only opened where something is left to do with it
    names = {arm: f"{SETUP}/seed{seed}/{arm}.json" for arm in size.arms}
    open_ = [arm for arm, name in names.items() if not run.path(name).exists()]
    shared = shared_of(size, run, until) if open_ else None
    for arm, name in names.items():
        if arm in open_ and shared is None:
            continue
        make = partial(_made, size, shared, arm, seed, run)
        result = attempt(name, make, run, until)
        if result is not None:
            done[SETUP, arm, seed] = result
    return done


def _made(size: Size, shared: Any, arm: str, seed: int, run: Run) -> Result:
    try:
        return Seed(size, shared, seed, run).measured(arm)
    except NotFinite as error:
        return {"failed": str(error)}


@dataclass(frozen=True)
class Seed:
    """What belongs to a seed; everything is made when it is first asked for, and read afterwards."""

    size: Size
    shared: Shared
    seed: int
    run: Run

    def folder(self, name: str) -> Path:
        """Of an arm or a round."""
        return self.run.path(f"{SETUP}/seed{self.seed}/{name}")

    # ---- pairs

    def pair(self, arm: str) -> Any:
        """What acts in an arm."""
        if arm in ("live", "live-10", "live-30", "base"):
            return self.base()
        if arm == "live-raw":
            return Replaced(self.base(), snapper=verbatim)
        if arm == "live-3":
            return self.learned(ROUNDS)
        if arm.startswith("post-"):
            return self.learned(int(arm.removeprefix("post-")))
        if arm in RELEARNED:
            return self.relearned(arm)
        if arm in ("onehot", "history-0"):
            return self.high(arm, **({"head": "onehot"} if arm == "onehot" else {"history": 1}))
        if arm == "equal":
            steps = ROUNDS * self.size.learn["high_steps"]
            self.base()
            return self._learn(arm, "base", corrections="", ratio=0.0, high_steps=steps)
        if arm == "motor":
            return yay_motor.pair(self)
        if arm == "unfiltered":
            return self.shared.pair(self.base().high, self.shared.other("unfiltered"))
        base = self.base()
        if arm == "flat":
            acting = self.shared.pair(base.high, self.shared.other("flat"))
            return Replaced(acting, propose=lambda: Proposal(TASK, ()))
        if arm == "order":
            return InOrder(base, order_of(self.shared))
        assert arm == "oracle"
        return base

    def high(self, name: str, **changed: Any) -> Talker:
        """A pair with a new high level of this seed, learned from the demonstrations."""
        lessons = self.shared.lessons
        cfg = replace(self.shared.cfg, out=str(self.folder(name)), seed=self.seed, **changed)
        lessons = replace(lessons, frames=lessons.frames[:, -cfg.history :])
        with opened(cfg) as own:
            return self.shared.pair(correct_high.train(cfg, lessons, self.shared.making.aliases, own))

    def base(self) -> Talker:
        """The pair that everything begins with; it is saved as `correct train` saves one."""
        talker = self.high("base")
        if not (self.folder("base") / "model" / "talker.json").exists():
            with opened(replace(self.shared.cfg, out=str(self.folder("base")), seed=self.seed)) as own:
                correct_learn.inherit(self.shared.folder, own)
            save_talker(talker, self.folder("base") / "model")
        return talker

    def learned(self, number: int) -> Talker:
        """The pair after round `number`: with a person in new episodes, then `heedful correct learn`."""
        before = "base" if number == 1 else f"post-{number - 1}"
        if not (self.folder(before) / "model" / "talker.json").exists():
            _ = self.base() if number == 1 else self.learned(number - 1)
        return self._learn(f"post-{number}", before, **self.said(number, before))

    def relearned(self, name: str) -> Talker:
        """The pair after round 1, done in another way."""
        self.base()
        heard = self.said(1, "base")
        return self._learn(name, "base", **{**heard, **RELEARNED[name]} if heard["corrections"] else heard)

    def _learn(self, name: str, before: str, **given: Any) -> Talker:
        own = {"run": str(self.folder(before)), "out": str(self.folder(name)), "seed": self.seed}
        options = Learn(**{**own, "eval_episodes": 0, "quiet": True, **self.size.learn, **given})
        if not (self.folder(name) / "result.json").exists():
            correct_learn.check(options)
            with opened(options) as run:
                correct_learn.run(options, run)
        return open_talker(self.folder(name))

    def said(self, number: int, before: str) -> dict[str, Any]:
        """Options of `correct learn` for a round in which the scripted person corrects the pair of `before`.

        Where nobody had anything to say, the round learns from what there was.
        """
        folder, seed = self.folder(f"said-{number}"), ROUNDS * self.seed + number - 1
        options = Options(
            str(self.folder(before)), str(folder), episodes=self.size.collected, seed=seed, quiet=True
        )
        with open_session(options) as session:
            while session.left:
                person = ScriptedPerson(derive_seed(seed, "person", session.done))
                late = self._late(session.connect())
                session.take(person, SCRIPTED, until=lambda late=late: "failure" if late() else "")
            rows = session.log.rows(status=ACCEPTED)
        heard = any(row.clip is not None for row in rows)
        return {"corrections": str(folder)} if heard else {"corrections": "", "ratio": 0.0}

    # ---- measuring

    def measured(self, arm: str) -> Result:
        """What an arm achieves: a list of numbers, one an episode, by name; and what its rounds heard."""
        pair = self.pair(arm)
        count = self.size.few if arm in FEW else self.size.episodes
        name = f"{SETUP}/seed{self.seed}/{arm}/episodes"
        rows = self.run.in_parts(
            name, count, PART, lambda first: self._episodes(arm, pair, first, count, name)
        )
        result = of_rows(rows, self.size.few)
        if arm.startswith("post-") or arm in RELEARNED:
            heard = read_json(self.folder(arm) / "result.json")["corrections"]
            demonstrated = sum(map(len, self.shared.demos.narrated.segments))
            result |= {"learned_from": heard, "share": heard / demonstrated}
        return result

    def _episodes(self, arm: str, pair: Any, first: int, count: int, name: str) -> list[dict[str, Any]]:
        table = correct_eval.open_table(self.shared.making.world or {})
        path = self.run.path(f"{name}.said-{first:04d}.jsonl")
        path.unlink(missing_ok=True)  # of a start that was killed
        log, rows = CorrectionLog(path), []
        for i in range(first, min(count, first + PART)):
            seed = correct_eval.TEST + 1000 * self.seed + i
            person: Any = Nobody()
            if arm in SLIPS:
                person = ScriptedPerson(derive_seed(self.seed, "person", i), slips=SLIPS[arm])
            acting: Any = Advised(pair, table) if arm == "oracle" else pair
            heard: list[Answer] = []
            take(
                table, acting, person, log, acting.timing, episode=i, seed=seed, source=SCRIPTED,
                told=heard.append, until=self._late(table),
            )  # fmt: skip
            said = sum(a.row is not None and a.row.status == ACCEPTED for a in heard)
            rows.append({**correct_eval.outcome(table, seed), "said": said})
        table.close()
        return rows

    def _late(self, table: Any) -> Callable[[], bool]:
        return lambda: bool(self.size.longest) and table.table.steps >= self.size.longest


def of_rows(rows: Sequence[Mapping[str, Any]], few: int) -> Result:
    """One number an episode of each measure; those of the first `few` episodes again, as `few NAME`."""
    columns: dict[str, list[float]] = {
        "success": [float(row["success"]) for row in rows],
        "stages": [fmean(map(float, row["stages"].values())) for row in rows],
        "interventions": [float(row["said"]) for row in rows],
        "seconds": [row["steps"] / HERTZ for row in rows],
    }
    columns |= {f"stage {name}": [float(row["stages"][name]) for row in rows] for name in rows[0]["stages"]}
    return {**columns, **{f"few {name}": values[:few] for name, values in columns.items()}}


# ---- other ways to choose commands


class Replaced:
    """A pair with some of its parts exchanged."""

    def __init__(self, pair: Any, **parts: Any) -> None:
        self.__dict__.update(parts)
        self._pair = pair

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pair, name)


def verbatim(words: str) -> Snap:
    """Words as their own command."""
    return Snap(words, words, "exact", words, 1.0, None, 0.0)


class Advised:
    """A pair with a high level that knows everything."""

    def __init__(self, pair: Any, table: Any) -> None:
        self._pair, self._table, self._said = pair, table, ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pair, name)

    def begin(self) -> None:
        """Nothing has been said."""
        self._said = ""
        self._pair.begin()

    def propose(self) -> Proposal:
        """What is right now; home when all is done."""
        self._said = advised(self._table, self._said) or HOME
        return Proposal(self._said, ())


class InOrder:
    """A pair that goes through commands by the clock, whatever happens, and stays at the last."""

    def __init__(self, pair: Any, commands: Sequence[tuple[str, int]]) -> None:
        self._pair, self._commands = pair, commands
        self._ends = np.cumsum([steps for _, steps in commands]).tolist()
        self._step = -1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pair, name)

    def begin(self) -> None:
        """The first command again."""
        self._step = -1
        self._pair.begin()

    def see(self, observation: Any) -> None:
        """One control step has come."""
        self._step += 1

    def propose(self) -> Proposal:
        """The command whose time it is."""
        at = next((k for k, end in enumerate(self._ends) if self._step < end), len(self._ends) - 1)
        return Proposal(self._commands[at][0], ())


def order_of(shared: Shared) -> list[tuple[str, int]]:
    """The task's commands in their order, each with the steps that it takes in the demonstrations on average."""
    steps: dict[str, list[int]] = {}
    for segments in shared.demos.narrated.segments:
        for segment in segments:
            steps.setdefault(WORDINGS.get(segment.text, segment.text), []).append(segment.steps)
    order = [OPEN_BIN, *(part for thing in ORDER for part in (pick(thing), PLACE, RELEASE)), CLOSE_BIN]
    return [(command, round(fmean(steps.get(command, [15])))) for command in order]
