"""The rules: problems, operations, the names of the twelve strategies, and how many operations a whole tree has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from heedful.data.problems import what
from heedful.errors import HeedfulError

OPERATORS = "+*-/"  # in the order in which the paper's code tries them
BEAMS = 5
STRATEGIES = tuple(
    name for h in ("sum", "mult") for name in (f"dfs-{h}", *(f"bfs-{h}-{b}" for b in range(1, BEAMS + 1)))
)
FEWEST, MOST = 2, 6
LARGEST_TARGET = 1_000_000
# Every number that can be made, plus one, is at most the product of the inputs plus one each. Below this limit whole
# numbers and the heuristics' means are exact in floating point, so the compiled order is that of the paper's code.
LARGEST_PRODUCT = 2**53
LARGEST_SEED = 2**63 - 1


class Operation(NamedTuple):
    """`left operator right=result`, as a stream claims it: the result may be wrong."""

    left: int
    operator: str
    right: int
    result: int

    def __str__(self) -> str:
        return f"{self.left}{self.operator}{self.right}={self.result}"


def outcome(left: int, operator: str, right: int) -> int | None:
    """What the operation gives; None where the game forbids it: below zero, by zero, or a division with a rest."""
    if operator == "+":
        return left + right
    if operator == "*":
        return left * right
    if operator == "-":
        return left - right if left >= right else None
    return left // right if right and left % right == 0 else None


def take(numbers: Sequence[int], operation: Operation) -> tuple[int, ...] | None:
    """`numbers` without one copy of each operand and with the result at the end; None where an operand is missing."""
    rest = list(numbers)
    for operand in (operation.left, operation.right):
        if operand not in rest:
            return None
        rest.remove(operand)
    return (*rest, operation.result)


@cache
def tree_size(count: int) -> int:
    """Operations of a whole tree over `count` numbers if every division came out: 4, 48, 1152, 46080, 2764800.

    The M of the paper's rating; it has none for six numbers.
    """
    return math.prod(math.comb(k, 2) * 4 for k in range(2, count + 1))


def rating(explored: int, count: int) -> float:
    """How good a correct stream is: 1 - (explored + 1) / M, at least 0. Accuracy counts ratings above 0."""
    return max(0.0, 1 - (explored + 1) / tree_size(count))


def fault(target: Any, nums: Any, strategy: str = "", seed: Any = 0) -> tuple[str, str] | None:
    """(field, what is wrong with it and what is allowed) of a problem, or None."""
    if not _whole(target):
        return "target", f"must be a whole number, not {what(target)}"
    if not 1 <= target <= LARGEST_TARGET:
        return "target", f"must be from 1 to {LARGEST_TARGET:,}, not {target}"
    if not isinstance(nums, list | tuple) or not all(_whole(n) for n in nums):
        return "nums", "must be a list of whole numbers"
    if not FEWEST <= len(nums) <= MOST:
        return "nums", f"must have {FEWEST} to {MOST} numbers, not {len(nums)}"
    if min(nums) < 0:
        return "nums", f"must not be negative, and {min(nums)} is"
    if math.prod(n + 1 for n in nums) > LARGEST_PRODUCT:
        return "nums", f"are too large: the product of each number plus 1 must be at most {LARGEST_PRODUCT:,}"
    if strategy and strategy not in STRATEGIES:
        return "strategy", f"must be one of {', '.join(STRATEGIES)}, not {strategy!r}"
    if "mult" in strategy and target < 2:
        return "target", "must be at least 2 for the heuristic mult, which needs a divisor above 1"
    if seed is not None and not _whole(seed):
        return "seed", f"must be a whole number or null, not {what(seed)}"
    if seed is not None and abs(seed) > LARGEST_SEED:
        return "seed", f"must be between -{LARGEST_SEED} and {LARGEST_SEED}"
    return None


def check(target: Any, nums: Any, strategy: str = "", seed: Any = 0) -> None:
    """Raise `HeedfulError` with what is wrong with a problem."""
    found = fault(target, nums, strategy, seed)
    if found:
        raise HeedfulError(": ".join(found))


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
