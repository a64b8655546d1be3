"""Searching hop by hop: a writer turns a question and what was found so far into the next query for a retriever.

LeReT (Hsu et al. 2024, arXiv 2410.23214), whose pipeline this is, keeps the passages of all hops in one context, sorted
by the retriever's scores. Raw scores of different queries need not compare, so there are two other ways to merge.

Letters: Q questions, H hops.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from heedful.data.hops import Question
from heedful.errors import HeedfulError
from heedful.evals.retrieval import answer_f1, average_precision, exact_match, recall
from heedful.judges.search import Hit, Retriever, fused
from heedful.run import Run

Merge = Literal["score", "rrf", "hop"]
Repeats = Literal["skip", "keep"]
RewardName = Literal["ap", "recall", "answer-em", "answer-f1"]
MOST_HOPS = 4
"""Hops that are made where neither the options nor the data ask for more."""
PART = 512
"""Questions that are searched for together, which a kill can cost."""


@dataclass(frozen=True)
class Steps:
    """How a question is searched for.

    hops: searches; k: passages that each brings; merge: see `merged`. repeats: passages that an earlier hop found are
    left out for the next best ones (skip), or count among the k again (keep, the paper's way).
    """

    hops: int = 2
    k: int = 3
    merge: Merge = "score"
    repeats: Repeats = "keep"


@dataclass(frozen=True)
class Turn:
    """A question and what was done for it so far: the query of each hop, and what each found, best first."""

    question: Question
    steps: Steps = Steps()
    queries: tuple[str, ...] = ()
    found: tuple[tuple[Hit, ...], ...] = ()

    @property
    def context(self) -> list[Hit]:
        """All that was found, merged, each passage once; see `merged`."""
        return merged(self.found, self.steps.merge)

    def after(self, query: str, hits: Sequence[Hit]) -> Turn:
        """One hop later."""
        return replace(self, queries=(*self.queries, query), found=(*self.found, tuple(hits)))

    def at(self, hops: int) -> Turn:
        """As it was after so many hops."""
        return replace(self, queries=self.queries[:hops], found=self.found[:hops])


Write = Callable[[Sequence[Turn]], Sequence[str]]
"""Writes the next query for each of some turns, which are all at the same hop."""
Read = Callable[[Sequence[Turn]], Sequence[str]]
"""Answers the question of each turn from its context."""
Reward = Callable[[Sequence[Turn]], list[float]]
"""What the context of each turn is worth, from 0 to 1; NaN where nothing says what would be right."""


def merged(found: Sequence[Sequence[Hit]], how: Merge) -> list[Hit]:
    """The hits of several hops as one ranking, each passage once; passages are the same when title and text are.

    score: by the retriever's scores, of a passage found twice the higher one (the paper's way). rrf: reciprocal rank
    fusion, which becomes the score. hop: the hits of the first hop, then what is new in the second, and so on.
    """
    if how not in get_args(Merge):
        raise HeedfulError(
            f"there is no way {how!r} to merge hops; choose one of {', '.join(get_args(Merge))}"
        )
    if how == "rrf":
        return [Hit(hit.passage, score) for hit, score in fused(found, _same)]
    hits = [hit for hop in found for hit in hop]
    if how == "score":
        hits.sort(key=lambda hit: -hit.score)
    kept: dict[tuple[str, str], Hit] = {}
    for hit in hits:
        kept.setdefault(_same(hit), hit)
    return list(kept.values())


def _same(hit: Hit) -> tuple[str, str]:
    return hit.passage.title, hit.passage.text


def one_query(text: str) -> str:
    """What is sent of what a writer wrote: its first line that is not blank (the paper's code, too)."""
    return next((" ".join(line.split()) for line in text.splitlines() if line.strip()), "")


def search(turns: Sequence[Turn], queries: Sequence[str], retriever: Retriever) -> list[list[Hit]]:
    """What the query of each turn brings, at most `steps.k` passages, best first; turns are at the same hop and share
    their steps. Of equal queries the retriever is asked once."""
    if not turns:
        return []
    steps, hop = turns[0].steps, len(turns[0].queries)
    skips = steps.repeats == "skip"
    distinct = list(dict.fromkeys(queries))
    # where repeats are left out so many that k are left if all that was found is among them
    brought = dict(zip(distinct, retriever(distinct, steps.k * (hop + 1 if skips else 1)), strict=True))
    found = []
    for turn, query in zip(turns, queries, strict=True):
        held = {_same(hit) for hits in turn.found for hit in hits} if skips else ()
        found.append([hit for hit in brought[query] if _same(hit) not in held][: steps.k])
    return found


def hop(turns: Sequence[Turn], write: Write, retriever: Retriever) -> list[Turn]:
    """All turns one hop later: `write` makes the queries, the retriever brings passages for each."""
    queries = [one_query(text) for text in write(turns)]
    return [
        turn.after(query, hits)
        for turn, query, hits in zip(turns, queries, search(turns, queries, retriever), strict=True)
    ]


def walk(
    questions: Sequence[Question], write: Write, retriever: Retriever, steps: Steps, *, run: Run, name: str
) -> list[Turn]:
    """All questions through all hops; kept as `<name>/hop1.jsonl` and so on, in parts, so that a resumed run searches
    for nothing twice.

    What is kept is known by its name: another writer, retriever or other steps need another one.
    """
    turns = [Turn(question, steps) for question in questions]
    for number in range(1, steps.hops + 1):
        file = f"{name}/hop{number}"
        rows = _hop_rows(turns, write, retriever, file, run)
        turns = [
            turn.after(row["query"], [Hit.from_row(hit) for hit in row["hits"]])
            for turn, row in zip(turns, rows, strict=True)
        ]
    return turns


def _hop_rows(
    turns: Sequence[Turn], write: Write, retriever: Retriever, file: str, run: Run
) -> list[dict[str, Any]]:
    queries = [] if run.there(f"{file}.jsonl") else [one_query(text) for text in write(turns)]

    def part(first: int) -> list[dict[str, Any]]:
        some = queries[first : first + PART]
        return [
            {"id": turn.question.id, "query": query, "hits": [hit.as_row() for hit in hits]}
            for turn, query, hits in zip(
                turns[first:], some, search(turns[first : first + PART], some, retriever), strict=False
            )
        ]

    return run.in_parts(file, len(queries), PART, part)


def hops_for(questions: Sequence[Question], asked: int) -> int:
    """How many hops to make: as many as asked for, or with 0 as many passages as some question needs, at most four;
    two where the data do not say."""
    if asked < 0:
        raise HeedfulError(f"--hops must be 0 or more, not {asked}")
    needed = max((max(q.hops, len(q.gold_titles)) for q in questions), default=0)
    return asked or min(needed, MOST_HOPS) or 2


# ---- rewards


def found_titles(turn: Turn) -> list[str]:
    """The titles of its context, best first."""
    return [hit.passage.title for hit in turn.context]


def gold_ap(turns: Sequence[Turn]) -> list[float]:
    """Average precision of the context (the paper's reward)."""
    return [average_precision(found_titles(turn), turn.question.gold_titles) for turn in turns]


def gold_recall(turns: Sequence[Turn]) -> list[float]:
    """Share of the gold passages that are in the context."""
    return [recall(found_titles(turn), turn.question.gold_titles) for turn in turns]


def answer_reward(read: Read, score: Callable[[str, Sequence[str]], float]) -> Reward:
    """Without gold passages: whether the reader's answer from the context is right.

    score: `exact_match` or `answer_f1`.
    """

    def reward(turns: Sequence[Turn]) -> list[float]:
        known = [i for i, turn in enumerate(turns) if turn.question.answers]
        worth = [math.nan] * len(turns)
        for i, answer in zip(known, read([turns[i] for i in known]), strict=True):
            worth[i] = score(answer, turns[i].question.answers)
        return worth

    return reward


def reward_of(name: RewardName, read: Read | None = None) -> Reward:
    """The reward of that name. Raises HeedfulError for an unknown one, and for one that needs a reader and has none."""
    if name not in get_args(RewardName):
        raise HeedfulError(f"there is no reward {name!r}; choose one of {', '.join(get_args(RewardName))}")
    if name == "ap":
        return gold_ap
    if name == "recall":
        return gold_recall
    if read is None:
        raise HeedfulError(f"the reward {name} is about a reader's answer: name a reader")
    return answer_reward(read, exact_match if name == "answer-em" else answer_f1)
