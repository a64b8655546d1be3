"""Drawing solvable problems, and what is known about a problem from its whole tree, compiled.

Sample `i` of a part is a pure function of (seed, part, i): nothing is carried from one to the next, so any number of
workers makes the same data. Random bits are SplitMix64 (Steele, Lea, Flood 2014), counted up from a hash of the three.
"""

from __future__ import annotations

import numpy as np

from heedful.data.countdown.compiled import entry, part
from heedful.data.countdown.searchers import move

STEP = np.uint64(0x9E3779B97F4A7C15)
FIRST, SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
BY30, BY27, BY31, BY32 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(32)
# Which side of the split a problem is on must not depend on the seed of a data set: more data never leaks.
SPLIT = np.uint64(0x436F756E74646F77)
TRIES = 1_000_000
TRAIN, HELDOUT_INPUTS, HELDOUT_TARGETS = range(3)


@part
def mixed(z: np.uint64) -> np.uint64:
    """SplitMix64's finalizer: 64 bits in, 64 bits out, one to one."""
    z = (z ^ (z >> BY30)) * FIRST
    z = (z ^ (z >> BY27)) * SECOND
    return z ^ (z >> BY31)


@part
def below(state: np.ndarray, n: int) -> int:
    """A whole number from 0 to n - 1, uniform to within n / 2**32; `state`, uint64 (1,), moves on."""
    state[0] += STEP
    return np.int64(((mixed(state[0]) >> BY32) * np.uint64(n)) >> BY32)  # type: ignore[return-value]


@part
def problem_hash(problem: np.ndarray, ordered: np.ndarray) -> int:
    """32 bits that stand for (target, multiset of inputs). ordered: int64 (6,), scratch."""
    count = problem[1]
    for i in range(count):
        item, place = problem[2 + i], i
        while place > 0 and ordered[place - 1] > item:
            ordered[place] = ordered[place - 1]
            place -= 1
        ordered[place] = item
    state = mixed(SPLIT + np.uint64(problem[0]))
    for i in range(count):
        state = mixed(state + STEP + np.uint64(ordered[i]))
    return np.int64(state >> BY32)  # type: ignore[return-value]


@part
def walk(
    problem: np.ndarray, cap: int, every: bool, level: np.ndarray, solution: np.ndarray
) -> tuple[int, int]:
    """Depth first through the whole tree: (how many ends are the target, how many ends there are).

    Without `every` it stops at the first solution, which is then in `solution`, int64 (5, 4): operator, left, right,
    result. Pairs by position, operators in the order + * - /. level: int64 (7, 6), scratch.
    """
    target, count = problem[0], problem[1]
    first, second, tried = np.zeros(7, np.int64), np.ones(7, np.int64), np.full(7, -1, np.int64)
    for i in range(count):
        level[0, i] = problem[2 + i]
    depth, goals, ends = 0, 0, 0
    while depth >= 0:
        size = count - depth
        if size == 2:
            for operator in range(4):
                legal, left, right, result = move(level[depth, 0], level[depth, 1], operator)
                if not legal or (cap > 0 and result > cap):
                    continue
                ends += 1
                if result == target:
                    goals += 1
                    if not every:
                        solution[depth, 0], solution[depth, 1] = operator, left
                        solution[depth, 2], solution[depth, 3] = right, result
                        return goals, ends
            depth -= 1
            continue
        tried[depth] += 1
        if tried[depth] == 4:
            tried[depth] = 0
            second[depth] += 1
            if second[depth] == size:
                first[depth] += 1
                second[depth] = first[depth] + 1
                if second[depth] == size:
                    depth -= 1
                    continue
        i, j = first[depth], second[depth]
        legal, left, right, result = move(level[depth, i], level[depth, j], tried[depth])
        if not legal or (cap > 0 and result > cap):
            continue
        filled = 0
        for source in range(size):
            if source != i and source != j:
                level[depth + 1, filled] = level[depth, source]
                filled += 1
        level[depth + 1, filled] = result
        solution[depth, 0], solution[depth, 1], solution[depth, 2] = tried[depth], left, right
        solution[depth, 3] = result
        depth += 1
        first[depth], second[depth], tried[depth] = 0, 1, -1
    return goals, ends


@entry
def draw(
    seed: int,
    side: int,
    start: int,
    count: int,
    targets: np.ndarray,
    fewest: int,
    most: int,
    low: int,
    high: int,
    cap: int,
    held: int,
    strategy: int,
    beams: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Samples `start` to `start + count - 1` of one side of the split.

    A target is drawn from `targets` and a number of inputs from fewest..most; then inputs from low..high, again and
    again until the problem is on this side (held: hashes below it are held out; targets that are held out have no
    other side) and has a solution. strategy: 0 to 11, or -1 for the paper's mixture: two coins and, for breadth
    first, a beam from 1..beams.

    Returns problems, int64 (N, 8), strategies and seeds for their shuffles, int64 (N,), and the first solution of
    each, int64 (N, 5, 4). It stops at a problem that TRIES draws did not make solvable: from there on the counts of
    inputs are 0.
    """
    problems = np.zeros((count, 8), np.int64)
    strategies, seeds = np.zeros(count, np.int64), np.zeros(count, np.int64)
    solutions = np.zeros((count, 5, 4), np.int64)
    level, ordered, state = np.empty((7, 6), np.int64), np.empty(6, np.int64), np.empty(1, np.uint64)
    stream = mixed(mixed(np.uint64(seed)) + STEP * np.uint64(side + 1))
    for row in range(count):
        state[0] = mixed(stream + STEP * np.uint64(start + row))
        problem = problems[row]
        problem[0] = targets[below(state, len(targets))]
        size = fewest + below(state, most - fewest + 1)
        for _ in range(TRIES):
            problem[1] = size
            for i in range(size):
                problem[2 + i] = low + below(state, high - low + 1)
            if side != HELDOUT_TARGETS and (problem_hash(problem, ordered) < held) != (
                side == HELDOUT_INPUTS
            ):
                problem[1] = 0
                continue
            if walk(problem, cap, False, level, solutions[row])[0]:
                break
            problem[1] = 0
        if problem[1] == 0:
            break
        if strategy >= 0:
            strategies[row] = strategy
        else:
            deep, mult, beam = below(state, 2), below(state, 2), below(state, beams)
            strategies[row] = 6 * mult + (0 if deep else 1 + beam)
        seeds[row] = below(state, 2**31)
    return problems, strategies, seeds, solutions


@entry
def hashes(problems: np.ndarray) -> np.ndarray:
    """`problem_hash` of each problem, int64 (N,)."""
    ordered = np.empty(6, np.int64)
    found = np.empty(len(problems), np.int64)
    for row in range(len(problems)):
        found[row] = problem_hash(problems[row], ordered)
    return found


@entry
def count_ends(problems: np.ndarray, cap: int) -> np.ndarray:
    """Of the whole tree of each problem: int64 (N, 2), how many ends are the target, and how many there are."""
    ends = np.zeros((len(problems), 2), np.int64)
    level, solution = np.empty((7, 6), np.int64), np.empty((5, 4), np.int64)
    for row in range(len(problems)):
        ends[row, 0], ends[row, 1] = walk(problems[row], cap, True, level, solution)
    return ends
