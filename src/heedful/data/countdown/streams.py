"""Streams of search: what the twelve strategies write about given problems, and how hard these are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from heedful.data.countdown import sampler, writers
from heedful.data.countdown.game import STRATEGIES, check
from heedful.data.countdown.instances import as_arrays

BUDGET = 2**23  # bytes of text and tokens that are held at a time
CHUNK = 4096


class Stream(NamedTuple):
    """A search written down. tokens: int16, ids of the compact language from <s> to </s>."""

    text: str
    tokens: np.ndarray
    explored: int
    solved: bool


class Task(NamedTuple):
    """What to search: `strategy` is one of the twelve; `seed` is that of the breadth-first shuffles."""

    target: int
    nums: Sequence[int]
    strategy: str
    seed: int = 0


class Traces(NamedTuple):
    """Some of the streams of many problems, one after the other.

    explored, solved: int64 (N,). text: uint8, the bytes of all streams, and where each ends, int64 (N,); tokens: int16,
    the same.
    """

    explored: np.ndarray
    solved: np.ndarray
    text: np.ndarray
    text_ends: np.ndarray
    tokens: np.ndarray
    token_ends: np.ndarray


def streams(tasks: Sequence[Task], *, legacy: bool = False, cap: int = 0, limit: int = 0) -> Iterator[Stream]:
    """The stream of every task, in order, made some at a time.

    legacy: as the paper's code writes them, where breadth-first search visits finished leaves again. cap: the largest
    result that is a legal move, limit: the most operations that are explored (the stream then breaks off); 0 is none.
    Raises HeedfulError for a problem that breaks the rules.
    """
    for task in tasks:
        check(task.target, task.nums, task.strategy, task.seed)
    for start in range(0, len(tasks), CHUNK):
        some = tasks[start : start + CHUNK]
        problems = as_arrays([(task.target, task.nums) for task in some])
        strategies = np.array([STRATEGIES.index(task.strategy) for task in some], np.int64)
        seeds = np.array([task.seed for task in some], np.int64)
        for part in traces(problems, strategies, seeds, legacy=legacy, cap=cap, limit=limit):
            for i in range(len(part.explored)):
                begin, first = (part.text_ends[i - 1], part.token_ends[i - 1]) if i else (0, 0)
                yield Stream(
                    part.text[begin : part.text_ends[i]].tobytes().decode(),
                    part.tokens[first : part.token_ends[i]],
                    int(part.explored[i]),
                    bool(part.solved[i]),
                )


def stream(target: int, nums: Sequence[int], strategy: str, seed: int = 0, **options: Any) -> Stream:
    """The stream of one task; see `streams`."""
    return next(streams([Task(target, nums, strategy, seed)], **options))


def traces(
    problems: np.ndarray,
    strategies: np.ndarray,
    seeds: np.ndarray,
    *,
    legacy: bool = False,
    cap: int = 0,
    limit: int = 0,
    text: bool = True,
    tokens: bool = True,
) -> Iterator[Traces]:
    """Streams as arrays, as many at a time as BUDGET bytes hold. The arguments are those of `instances.Drawn`."""
    start = 0
    while start < len(problems):
        rest = slice(start, None)
        done, *made = writers.trace(
            problems[rest], strategies[rest], seeds[rest], cap, legacy, limit, text, tokens, BUDGET
        )
        yield Traces(*made)
        start += done


class Difficulty(NamedTuple):
    """How hard a problem is. solutions: ends of the whole tree of moves that are the target; ends: all of them.
    explored: for each strategy the operations it explores until it solves the problem, 0 where it does not.
    """

    solutions: int
    ends: int
    explored: tuple[int, ...]

    @property
    def solvable(self) -> bool:
        """Whether there is a solution at all."""
        return self.solutions > 0

    @property
    def difficult(self) -> bool:
        """Whether none of the twelve strategies solves it, the paper's word for a hard problem."""
        return not any(self.explored)


def difficulties(
    problems: Sequence[tuple[int, Sequence[int]]], *, seed: int = 0, cap: int = 0, legacy: bool = False
) -> list[Difficulty]:
    """The difficulty of each problem (target, numbers), from the whole tree and from running all twelve strategies.

    With six numbers a problem takes some ten milliseconds, with four a tenth of one. seed: of the shuffles; another one
    seldom changes who solves what. Raises HeedfulError for a problem that breaks the rules.
    """
    for target, numbers in problems:
        check(target, numbers, STRATEGIES[-1])
    arrays = as_arrays(problems)
    ends, explored = survey(arrays, np.full(len(problems), seed, np.int64), cap=cap, legacy=legacy)
    return [
        Difficulty(solutions, all_ends, tuple(row))
        for (solutions, all_ends), row in zip(ends.tolist(), explored.tolist(), strict=True)
    ]


def survey(
    problems: np.ndarray, seeds: np.ndarray, *, cap: int = 0, legacy: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """`difficulties` as arrays: int64 (N, 2), solutions and ends, and int64 (N, 12), explored by each strategy.

    The arguments are those of `instances.Drawn`.
    """
    every = len(STRATEGIES)
    strategies = np.tile(np.arange(every), len(problems))
    tasks = (np.repeat(problems, every, axis=0), strategies, np.repeat(seeds, every))
    parts = list(traces(*tasks, cap=cap, legacy=legacy, text=False, tokens=False))
    explored = np.concatenate([np.where(part.solved, part.explored, 0) for part in parts])
    return sampler.count_ends(problems, cap), explored.reshape(-1, every)
