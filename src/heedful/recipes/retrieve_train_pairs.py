"""From queries that were tried to what is learned: preference pairs, queries to imitate, and where the next hop begins.

All of it is keyed by the prompt without demonstrations, whoever wrote the queries, so that learning also distils what
demonstrations bring (LeReT, arXiv 2410.23214).
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from heedful.feedback import Feedback, How, Samples, best, pairs
from heedful.recipes.retrieve_writers import NOTHING

COMPLETE = 1.0
"""The reward of a context in which nothing is missing."""
TOP_BONUS = 0.5
"""What the best level is preferred by in the draw of the next hop's context."""
_ECHO = re.compile(r"\[\d+\]|\bfound so far:|\bquestion:|\bsearch query:", re.IGNORECASE)


def echoes(query: str) -> bool:
    """Whether a query repeats the prompt's own marks, such as the numbers of passages, instead of asking for anything.

    Those are dropped, as in the paper's code.
    """
    return bool(_ECHO.search(query)) or NOTHING in query


class Tried(NamedTuple):
    """What was tried for one question at one hop. prompt: without demonstrations; scores: of the context after each
    query, NaN where nothing says what would be right; drawn: the query that the next hop goes on from, if any."""

    id: str
    prompt: str
    queries: list[str]
    scores: list[float]
    drawn: int | None

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Tried:
        """From a JSON object, in which NaN is null."""
        scores = [math.nan if s is None else s for s in row["scores"]]
        return cls(row["id"], row["prompt"], row["queries"], scores, row["drawn"])


class Chosen(NamedTuple):
    """pairs: {"input", "chosen", "rejected", ...}; targets: {"input", "output", ...}, a best query of each prompt whose
    queries are not all worth the same; every: {"input", "output"} of all queries that take part, whatever they are
    worth; counts: what there was, and what was left out."""

    pairs: list[dict[str, Any]]
    targets: list[dict[str, Any]]
    every: list[dict[str, Any]]
    counts: dict[str, int]


def choose(tried: Sequence[Tried], how: How = "adjacent") -> Chosen:
    """Pairs between neighbouring levels of the score (or as `how` says, see `feedback.pairs`), and queries to imitate.

    Blank queries, echoes of the prompt, and repetitions of a query take no part. Prompts whose queries all tie give
    nothing. Of several best queries the first is imitated.
    """
    counts = {"prompts": len(tried), "informative": 0, "queries": 0, "complete": 0}
    counts |= {"blank": 0, "echoes": 0, "repeated": 0, "unknown": 0}
    width = max((len(row.queries) for row in tried), default=1)
    scores = torch.full((len(tried), width), math.nan)
    imitated = scores.clone()
    outputs: list[str] = []
    every: list[dict[str, Any]] = []
    for i, row in enumerate(tried):
        counts["queries"] += len(row.queries)
        counts["complete"] += sum(score >= COMPLETE for score in row.scores)
        seen: set[str] = set()
        for j, (query, score) in enumerate(zip(row.queries, row.scores, strict=True)):
            reason = (
                *(["blank"] if not query else []),
                *(["echoes"] if echoes(query) else []),
                *(["repeated"] if query in seen else []),
                *(["unknown"] if math.isnan(score) else []),
            )
            seen.add(query)
            if reason:
                counts[reason[0]] += 1
            else:
                scores[i, j] = score
                every.append({"input": row.prompt, "output": query})
        known = scores[i][~scores[i].isnan()]
        if len(known.unique()) > 1:
            counts["informative"] += 1
            imitated[i] = scores[i]
        outputs += [*row.queries, *[""] * (width - len(row.queries))]
    samples = Samples([row.prompt for row in tried], outputs, width)
    chosen = pairs(samples, Feedback(scores), how=how)
    targets = best(samples, Feedback(imitated))
    counts |= {"pairs": len(chosen.rows), "targets": len(targets.rows)}
    return Chosen(chosen.rows, targets.rows, every, counts)


def draw_next(scores: Sequence[float], draw: random.Random) -> int | None:
    """Which query's context the next hop begins with; None where every one is complete, or nothing is known.

    Complete ones are discarded. A level of the score is drawn in proportion to its value, the best level of those left
    with half a point more; then one of its queries (the paper's code).
    """
    left = [i for i, score in enumerate(scores) if score < COMPLETE]
    if not left:
        return None
    levels = sorted({scores[i] for i in left})
    weights = [*levels[:-1], levels[-1] + TOP_BONUS]
    (level,) = draw.choices(levels, weights)
    return draw.choice([i for i in left if scores[i] == level])
