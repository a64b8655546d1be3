"""What streams of search are like: accuracy by token budget, errors of each kind, alignment with other searches.

Measures of Gandhi et al. 2024 (Stream of Search, arXiv 2404.03683, sections 4 and 5 and their code) on streams that
have been replayed (`heedful.data.countdown.replay`). Alignment says how alike two searches are: in which problems they
solve, and in which states they come by.

Letters: P problems, S searches of the same P problems (models, symbolic strategies).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from heedful.errors import HeedfulError
from heedful.evals.intervals import Interval

NORMAL = 1.96
"""Standard errors on each side of a mean in the paper's intervals of 95%."""
States = Set[tuple[int, ...]]
"""The states that a search came by: `Replay.states()`."""


def accuracy_by_budget(
    solved: Any, tokens: Any, budgets: Sequence[int] = (), *, points: int = 24
) -> list[tuple[int, float]]:
    """(budget, share of streams that solve within so many tokens), budgets rising.

    solved, tokens: of one shape, (P,) or (P, n), a stream each. budgets: without them `points` even ones up to the
    longest stream. A stream that is longer than the budget is cut off there and counts as not solved.
    Raises HeedfulError for other shapes and for no streams.
    """
    right, length = np.asarray(solved, dtype=bool), np.asarray(tokens)
    if right.shape != length.shape or not right.size:
        raise HeedfulError(f"solved is {right.shape} and tokens {length.shape}; one of each for every stream")
    longest = int(length.max())
    grid = budgets or [max(1, round(longest * i / points)) for i in range(1, points + 1)]
    return [(b, float((right & (length <= b)).mean())) for b in sorted(set(grid))]


def error_counts(census: Sequence[Mapping[str, float]]) -> dict[str, Interval]:
    """Mean count of each kind by stream, with the paper's interval: 1.96 standard deviations over the root of P.

    census: one mapping a stream, as `Replay.census()` gives it; other counts in it (operations) are taken alike.
    The deviation is that of a sample, over P - 1. Raises HeedfulError for no streams, and where streams differ in the
    kinds.
    """
    if not census:
        raise HeedfulError("there are no streams to count errors in")
    if any(one.keys() != census[0].keys() for one in census):
        raise HeedfulError("the streams are counted in different kinds of errors")
    found = {}
    for kind in census[0]:
        values = np.array([one[kind] for one in census], dtype=float)
        mean, n = float(values.mean()), len(values)
        half = NORMAL * float(values.std(ddof=1)) / n**0.5 if n > 1 else float("nan")
        found[kind] = Interval(mean, mean - half, mean + half, n)
    return found


def correctness_alignment(solved: Any) -> NDArray[np.float64]:
    """(S, S), how alike searches are in which problems they solve: Pearson's correlation of 0 and 1, which is phi.

    solved: (S, P). A search that solves all or none has no correlation with any other: NaN, also on the diagonal.
    Raises HeedfulError for other shapes.
    """
    right = np.asarray(solved, dtype=float)
    if right.ndim != 2 or not right.size:
        raise HeedfulError(f"solved is {right.shape}; it is (searches, problems)")
    centred = right - right.mean(1, keepdims=True)
    centred[np.ptp(right, axis=1) == 0] = np.nan
    length = np.sqrt((centred**2).sum(1))
    return np.clip(centred @ centred.T / np.outer(length, length), -1, 1)


def state_alignment(states: Sequence[Sequence[States]]) -> NDArray[np.float64]:
    """(S, S), how alike searches are in the states they visit: |A and B| / max(|A|, |B|), a mean over problems.

    states: for each search the states of each problem, sorted numbers of nodes without an error. Problems where neither
    search has any are left out; NaN where that leaves none. Raises HeedfulError when searches differ in P.
    """
    visited = [[frozenset(one) for one in row] for row in states]
    if len({len(row) for row in visited}) > 1:
        raise HeedfulError(
            f"the searches are of {[len(row) for row in visited]} problems; they must be the same"
        )
    found = np.full((len(visited), len(visited)), np.nan)
    for i, a in enumerate(visited):
        for j, b in enumerate(visited[: i + 1]):
            shares = [len(x & y) / max(len(x), len(y)) for x, y in zip(a, b) if x or y]
            found[i, j] = found[j, i] = np.mean(shares) if shares else np.nan
    return found


class Searches(NamedTuple):
    """S searches of P problems. names: of the searches. solved: bool (S, P). states: (S, P) sets, see `States`."""

    names: list[str]
    solved: NDArray[np.bool_]
    states: list[list[States]]


def strategies(
    problems: Sequence[tuple[int, Sequence[int]]], *, cap: int = 0, seed: int = 0, tokens: int = 0
) -> Searches:
    """What the twelve symbolic strategies do on problems (target, numbers).

    solved counts as the paper's accuracy does: with a rating above 0, however long the search. For the states searches
    are cut off after `tokens` tokens of the compact language, problem included; 0 is no limit. cap: the largest result
    that is a legal move. seed: of the breadth-first shuffles. Raises HeedfulError for a problem that breaks the rules.
    """
    from heedful.data.countdown.game import STRATEGIES, rating
    from heedful.data.countdown.replay import replay
    from heedful.data.countdown.streams import Task, streams
    from heedful.data.countdown.vocabulary import TOKENS

    tasks = [Task(target, list(numbers), name, seed) for name in STRATEGIES for target, numbers in problems]
    solved: list[bool] = []
    states: list[States] = []
    for task, made in zip(tasks, streams(tasks, cap=cap), strict=True):
        solved.append(made.solved and rating(made.explored, len(task.nums)) > 0)
        kept = made.tokens[: tokens or None]
        states.append(replay(" ".join(TOKENS[token] for token in kept.tolist())).states())
    each = len(problems)
    return Searches(
        list(STRATEGIES),
        np.array(solved, dtype=bool).reshape(len(STRATEGIES), each),
        [states[start : start + each] for start in range(0, len(states), max(1, each))],
    )
