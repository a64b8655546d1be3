"""Which problems there are, how they are split, and drawing them: sample `i` is a pure function of (seed, side, i).

The split is by problem, a target and its inputs in any order. Held-out targets are the first share of a fixed shuffle,
as in the paper's code (which gets the same nine of 10..100); held-out inputs are problems whose hash is small, whatever
the seed, so that more data of another seed never leaks into them. (The paper's code redraws while the *solution*, as a
list of operations, is in the training set, which lets problems through.)
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from heedful.data.countdown.game import (
    BEAMS,
    FEWEST,
    LARGEST_PRODUCT,
    LARGEST_SEED,
    LARGEST_TARGET,
    MOST,
    OPERATORS,
    STRATEGIES,
    Operation,
)
from heedful.errors import HeedfulError

if TYPE_CHECKING:
    import numpy as np

SIDES = ("train", "heldout-inputs", "heldout-targets")
MIXTURE = "mixture"
SHUFFLE = 4  # the seed of the paper's shuffle of the targets


@dataclass(frozen=True)
class Instances:
    """What problems are drawn, with the paper's values as defaults. Ranges include both ends."""

    seed: int = 0
    numbers: tuple[int, int] = (4, 4)
    inputs: tuple[int, int] = (1, 99)
    targets: tuple[int, int] = (10, 100)
    cap: int = 0
    """The largest result that is a legal move; 0 is no limit."""
    strategy: str = MIXTURE
    """One of the twelve, or `mixture`: a coin for the kind, one for the heuristic, a beam from 1 to `beams`."""
    beams: int = BEAMS
    held_targets: float = 0.1
    held_inputs: float = 0.1

    def __post_init__(self) -> None:
        """Raises HeedfulError with everything that is wrong."""
        low, high = self.inputs
        first, last = self.targets
        fewest, most = self.numbers
        checks = (
            (0 <= self.seed <= LARGEST_SEED, "the seed must be 0 or more and below 2**63"),
            (FEWEST <= fewest <= most <= MOST, f"there must be {FEWEST} to {MOST} numbers, fewest first"),
            (0 <= low <= high, "inputs must be 0 or more, the smaller one first"),
            ((high + 1) ** most <= LARGEST_PRODUCT, f"{most} inputs up to {high} are too large"),
            (
                1 <= first <= last <= LARGEST_TARGET,
                f"targets are from 1 to {LARGEST_TARGET:,}, the smaller one first",
            ),
            (first > 1 or self.strategy.startswith(("dfs-sum", "bfs-sum")), "target 1 has no heuristic mult"),
            (not self.cap or self.cap >= last, "the cap must be 0 or at least the largest target"),
            (
                self.strategy in (MIXTURE, *STRATEGIES),
                f"the strategy must be {MIXTURE} or {', '.join(STRATEGIES)}",
            ),
            (1 <= self.beams <= BEAMS, f"beams are from 1 to {BEAMS}"),
            (
                0 <= self.held_targets < 1 and 0 <= self.held_inputs < 1,
                "held-out shares are 0 or more and below 1",
            ),
        )
        wrong = [message for good, message in checks if not good]
        if wrong:
            raise HeedfulError("; ".join(wrong))


class Drawn(NamedTuple):
    """N samples. problems: int64 (N, 8), a target, how many numbers, the numbers. strategies: int64 (N,), places in
    `STRATEGIES`. seeds: int64 (N,), of the searchers' shuffles. solutions: int64 (N, 5, 4), see `solution`.
    """

    problems: np.ndarray
    strategies: np.ndarray
    seeds: np.ndarray
    solutions: np.ndarray


@lru_cache(maxsize=64)
def held_out_targets(targets: tuple[int, int], share: float) -> frozenset[int]:
    """The targets that no training problem has."""
    shuffled = list(range(targets[0], targets[1] + 1))
    random.Random(SHUFFLE).shuffle(shuffled)
    return frozenset(shuffled[: int(len(shuffled) * share + 1e-9)])


def draw(instances: Instances, side: str, start: int, count: int) -> Drawn:
    """Samples `start` to `start + count - 1` of a side; each has a solution.

    Raises HeedfulError when the side is empty, and when no solvable problem is found for a target.
    """
    import numpy as np

    from heedful.data.countdown import sampler

    if side not in SIDES:
        raise HeedfulError(f"there is no side {side!r}; choose one of {', '.join(SIDES)}")
    held = held_out_targets(instances.targets, instances.held_targets)
    every = range(instances.targets[0], instances.targets[1] + 1)
    targets = sorted(held) if side == "heldout-targets" else [t for t in every if t not in held]
    threshold = _threshold(instances)
    if not targets or (side == "heldout-inputs" and not threshold):
        raise HeedfulError(f"nothing is held out for the side {side}: give a share above 0")
    strategy = -1 if instances.strategy == MIXTURE else STRATEGIES.index(instances.strategy)
    drawn = Drawn(
        *sampler.draw(
            instances.seed,
            SIDES.index(side),
            start,
            count,
            np.array(targets, np.int64),
            *instances.numbers,
            *instances.inputs,
            instances.cap,
            threshold,
            strategy,
            instances.beams,
        )
    )
    failed = np.flatnonzero(drawn.problems[:, 1] == 0)
    if len(failed):
        target = drawn.problems[failed[0], 0]
        raise HeedfulError(
            f"sample {start + failed[0]} of {side}: {sampler.TRIES:,} draws of {instances.numbers[0]} to "
            f"{instances.numbers[1]} inputs from {instances.inputs[0]} to {instances.inputs[1]} never made {target}; "
            "widen the inputs or narrow the targets"
        )
    return drawn


def side_of(instances: Instances, problems: Sequence[tuple[int, Sequence[int]]]) -> list[str]:
    """Which side of the split each problem (target, numbers) is on."""
    from heedful.data.countdown import sampler

    held = held_out_targets(instances.targets, instances.held_targets)
    low = sampler.hashes(as_arrays(problems)) < _threshold(instances)
    return [
        SIDES[2] if target in held else SIDES[1] if small else SIDES[0]
        for (target, _), small in zip(problems, low, strict=True)
    ]


def as_arrays(problems: Sequence[tuple[int, Sequence[int]]]) -> np.ndarray:
    """Problems (target, numbers) as int64 (N, 8)."""
    import numpy as np

    made = np.zeros((len(problems), MOST + 2), np.int64)
    for row, (target, numbers) in zip(made, problems, strict=True):
        row[0], row[1] = target, len(numbers)
        row[2 : 2 + len(numbers)] = numbers
    return made


def solution(operations: np.ndarray, count: int) -> tuple[Operation, ...]:
    """The first solution of a problem with `count` numbers from its row of `Drawn.solutions`."""
    rows = operations[: count - 1].tolist()
    return tuple(
        Operation(left, OPERATORS[operator], right, result) for operator, left, right, result in rows
    )


def _threshold(instances: Instances) -> int:
    return int(instances.held_inputs * 2**32)
