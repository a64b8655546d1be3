"""The peer of `countdown_generate`: sampler and searchers in plain Python, written as one writes them down.

It shares no code with `heedful.data.countdown` and gives the same bytes: lists, recursion, `heapq`, `random`, strings
put together line by line. With `legacy` its streams are those of the paper's code.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

Heuristic = Callable[[Sequence[int], int], float]
WORD = 2**64 - 1


# ---- the game


def moves(a: int, b: int) -> Iterator[tuple[int, str]]:
    """(result, text) of every legal operation on two numbers."""
    high, low = max(a, b), min(a, b)
    yield a + b, f"{a}+{b}={a + b}"
    yield a * b, f"{a}*{b}={a * b}"
    yield high - low, f"{high}-{low}={high - low}"
    if low and high % low == 0:
        yield high // low, f"{high}/{low}={high // low}"


def children(nums: list[int], cap: int) -> Iterator[tuple[list[int], str]]:
    """(numbers, operation) of every move from a state."""
    for i, j in itertools.combinations(range(len(nums)), 2):
        rest = [n for k, n in enumerate(nums) if k not in (i, j)]
        for result, text in moves(nums[i], nums[j]):
            if not cap or result <= cap:
                yield [*rest, result], text


def solve(target: int, nums: list[int], cap: int) -> list[str] | None:
    """The operations of the first solution, depth first."""
    if len(nums) == 1:
        return [] if nums[0] == target else None
    for after, text in children(nums, cap):
        rest = solve(target, after, cap)
        if rest is not None:
            return [text, *rest]
    return None


# ---- heuristics


def sum_heuristic(nums: Sequence[int], target: int) -> float:
    """The mean distance to the target."""
    return sum(abs(n - target) for n in nums) / len(nums)


def mult_heuristic(nums: Sequence[int], target: int) -> float:
    """The sum of distances to the nearest divisor of the target."""
    divisors = [d for d in range(2, target + 1) if target % d == 0]
    return sum(min(abs(n - d) for d in divisors) for n in nums)


class Node:
    """A state of a search; nodes compare by heuristic."""

    def __init__(self, name: str, nums: list[int], done: list[str], score: float) -> None:
        self.name, self.nums, self.done, self.score = name, nums, done, score

    def __lt__(self, other: Node) -> bool:
        return self.score < other.score


def state_line(target: int, node: Node) -> str:
    """Where the search is."""
    return f"Current State: {target}:{node.nums}, Operations: {node.done}"


def expanded(node: Node, target: int, heuristic: Heuristic, cap: int) -> list[Node]:
    """All children of a node, best first."""
    made = [
        Node("", nums, [*node.done, text], heuristic(nums, target)) for nums, text in children(node.nums, cap)
    ]
    return sorted(made, key=lambda child: child.score)


# ---- searchers


def depth_first(target: int, nums: list[int], heuristic: Heuristic, cap: int) -> str:
    """The stream of a depth-first search."""
    lines: list[str] = []

    def visit(node: Node) -> bool:
        lines.append(state_line(target, node))
        kept = [child for child in expanded(node, target, heuristic, cap) if child.score <= target]
        for ordinal, child in enumerate(kept):
            child.name = f"{node.name},{ordinal}"
            lines.append(f"Exploring Operation: {child.done[-1]}, Resulting Numbers: {child.nums}")
            if child.nums == [target]:
                lines.append(f"{target},{target} equal: Goal Reached")
                return True
            if len(child.nums) == 1:
                lines.append(f"{child.nums[0]},{target} unequal: No Solution")
            else:
                lines.append(
                    f"Generated Node #{child.name}: {target}:{child.nums} Operation: {child.done[-1]}"
                )
                lines.append(f"Moving to Node #{child.name}")
                if visit(child):
                    return True
            if child is not kept[-1]:
                lines.append(f"Moving to Node #{node.name}")
                lines.append(state_line(target, node))
        return False

    visit(Node("0", nums, [], 0.0))
    return "\n".join(lines) + "\n"


def breadth_first(
    target: int, nums: list[int], heuristic: Heuristic, beam: int, seed: int, cap: int, legacy: bool
) -> str:
    """The stream of a best-first search with a beam."""
    rng = random.Random(seed)
    lines: list[str] = []
    heap = [Node("0", nums, [], heuristic(nums, target))]
    while heap:
        taken = [heapq.heappop(heap) for _ in range(min(beam, len(heap)))]
        for place, node in enumerate(taken):
            if place:
                lines.append(f"Moving to Node #{node.name}")
            lines.append(state_line(target, node))
            kept = expanded(node, target, heuristic, cap)[:beam]
            rng.shuffle(kept)
            ordinal = 0
            for child in kept:
                child.name = f"{node.name},{ordinal}"
                lines.append(f"Exploring Operation: {child.done[-1]}, Resulting Numbers: {child.nums}")
                if child.nums == [target]:
                    return "\n".join([*lines, f"{target},{target} equal: Goal Reached"]) + "\n"
                if len(child.nums) == 1:
                    lines.append(f"{child.nums[0]},{target} unequal: No Solution")
                else:
                    lines.append(
                        f"Generated Node #{child.name}: {target}:{child.nums} Operation: {child.done[-1]}"
                    )
                    ordinal += 1
            for child in sorted(kept, key=lambda child: child.score):
                if legacy or len(child.nums) > 1:
                    heapq.heappush(heap, child)
        if heap:
            lines.append(f"Moving to Node #{heap[0].name}")
    return "\n".join([*lines, "No solution found."])


def stream(
    target: int, nums: Sequence[int], strategy: str, seed: int = 0, *, legacy: bool = False, cap: int = 0
) -> str:
    """The stream of one of the twelve strategies."""
    kind, name, *beam = strategy.split("-")
    heuristic = sum_heuristic if name == "sum" else mult_heuristic
    if kind == "dfs":
        return depth_first(target, list(nums), heuristic, cap)
    return breadth_first(target, list(nums), heuristic, int(beam[0]), seed, cap, legacy)


# ---- sampling


class Sample(NamedTuple):
    """A drawn problem with what is needed to search it."""

    target: int
    nums: list[int]
    strategy: str
    seed: int
    solution: list[str]


def mixed(z: int) -> int:
    """SplitMix64's finalizer."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & WORD
    return z ^ (z >> 31)


STEP = 0x9E3779B97F4A7C15


def is_held_out(target: int, nums: list[int], share: float) -> bool:
    """Whether (target, inputs in any order) is among the held-out inputs."""
    state = mixed(0x436F756E74646F77 + target & WORD)
    for n in sorted(nums):
        state = mixed(state + STEP + n & WORD)
    return state >> 32 < int(share * 2**32)


def sample(
    index: int,
    *,
    seed: int = 0,
    numbers: tuple[int, int] = (4, 4),
    inputs: tuple[int, int] = (1, 99),
    targets: tuple[int, int] = (10, 100),
    cap: int = 0,
    beams: int = 5,
    held: float = 0.1,
) -> Sample:
    """Sample `index` of the training problems: a target, inputs until they have a solution, a strategy."""
    every = list(range(targets[0], targets[1] + 1))
    random.Random(4).shuffle(every)
    trained = sorted(every[int(len(every) * held + 1e-9) :])
    # The kernel's stream is mixed(mixed(seed) + STEP * (side + 1)); the training side is 0.
    state = mixed(mixed(mixed(seed) + STEP & WORD) + STEP * index & WORD)

    def below(n: int) -> int:
        nonlocal state
        state = state + STEP & WORD
        return (mixed(state) >> 32) * n >> 32

    target = trained[below(len(trained))]
    size = numbers[0] + below(numbers[1] - numbers[0] + 1)
    while True:
        nums = [inputs[0] + below(inputs[1] - inputs[0] + 1) for _ in range(size)]
        solution = None if is_held_out(target, nums, held) else solve(target, nums, cap)
        if solution is not None:
            break
    deep, mult, beam = below(2), below(2), below(beams)
    heuristic = "mult" if mult else "sum"
    strategy = f"dfs-{heuristic}" if deep else f"bfs-{heuristic}-{1 + beam}"
    return Sample(target, nums, strategy, below(2**31), solution)


def row(index: int, **options: Any) -> tuple[Sample, str]:
    """Sample `index` and its stream."""
    drawn = sample(index, **options)
    return drawn, stream(drawn.target, drawn.nums, drawn.strategy, drawn.seed, cap=options.get("cap", 0))
