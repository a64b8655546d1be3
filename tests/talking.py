"""A pair of policies that needs no training, and people who say what a test wants, for the tests of `heedful correct`.

python talking.py run PAIR --out DIR ...     `heedful correct run` with this pair in place of a trained one
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from heedful.data.pack_table import PackTable
from heedful.data.pack_table.commands import COMMANDS, NUDGES, WORDINGS
from heedful.data.pack_table.expert import expert
from heedful.policies.commands import Snapper
from heedful.policies.override import Timing


@dataclass(frozen=True)
class Said:
    """What the stand-in of a high level says."""

    command: str
    candidates: tuple[tuple[str, float], ...]


class ExpertPair:
    """A high level that always says the same, and PackTable's expert as the low level: it follows what it is told."""

    fps = 15.0
    timing = Timing(hold=15, pre_roll=8, every=10)
    making = SimpleNamespace(
        world={"size": [32, 32]},
        cameras={name: f"observation.images.{name}" for name in ("top", "wrist")},
        state="observation.state",
    )

    def __init__(self, says: str = "open the bin", slow: float = 0.0) -> None:
        self.says, self.slow = says, slow
        self.snapper = Snapper(tuple(COMMANDS), WORDINGS)
        self.body: PackTable | None = None
        self.log: list[tuple[str, bool]] = []
        self.acting: Callable[[str, bool], None] = lambda command, fresh: None
        self.seen: list[np.ndarray] = []

    def begin(self) -> None:
        self.log.clear()
        self.seen.clear()
        self.rng = np.random.default_rng(0)
        self.doing: Iterator[np.ndarray] | None = None

    def see(self, observation: Mapping[str, Any]) -> None:
        self.seen.append(observation["state"])

    def propose(self) -> Said:
        return Said(self.says, ((self.says, 0.7), ("try again", 0.2), ("wait", 0.1)))

    def act(self, observation: Mapping[str, Any], command: str, fresh: bool) -> np.ndarray:
        self.log.append((command, fresh))
        self.acting(command, fresh)
        time.sleep(self.slow)
        if self.body is None:
            return np.array([*(0.5 * np.array(NUDGES.get(command, (0, 0, 0)))), 0, 0])
        if fresh or self.doing is None:
            self.doing = expert(self.body, command, self.rng)
        return next(self.doing, np.zeros(5))


class Told:
    """Says what a plan has for a step, once."""

    def __init__(self, plan: Mapping[int, list[str]]) -> None:
        self.plan = plan

    def begin(self) -> None:
        self.left = {step: list(words) for step, words in self.plan.items()}

    def say(self, table: PackTable, command: str) -> str | None:
        waiting = self.left.get(table.table.steps)
        return waiting.pop(0) if waiting else None


class ToldByCalls:
    """The same for a robot that counts no steps: calls are counted."""

    def __init__(self, plan: Mapping[int, str]) -> None:
        self.plan = plan

    def begin(self) -> None:
        self.left, self.steps = dict(self.plan), -1

    def say(self, table: Any, command: str) -> str | None:
        if command in self.plan.values() and command not in self.left.values():
            return None
        self.steps += 1
        return self.left.pop(self.steps, None)


def stand_in(slow: float = 0.0) -> None:
    """From now on any RUN is an `ExpertPair`; $TALKING_SLOW seconds are added to each of its steps."""
    from heedful.recipes import correct_models

    def opened(run: Any, *, device: str = "cpu") -> ExpertPair:
        return ExpertPair(slow=slow)

    correct_models.open_talker = opened  # type: ignore[assignment]


if __name__ == "__main__":
    from heedful.cli import main
    from heedful.data import pack_table

    pack_table.LONGEST = int(os.environ.get("TALKING_LONGEST", pack_table.LONGEST))
    stand_in(float(os.environ.get("TALKING_SLOW", "0")))
    sys.exit(main(["correct", *sys.argv[1:]]))
