"""Retrievers: whatever takes queries and a number and gives that many passages with scores, best first.

    found = retriever(["who made the film", "river through the town"], 3)    # a list of hits for each query

BM25 and dense retrieval are in search_words and search_dense, on an index that search_index builds; search_http asks
any JSON search API. Here are the protocol and the fusion of several rankings.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from heedful.config import content_hash
from heedful.data.passages import Passage
from heedful.errors import HeedfulError

T = TypeVar("T")
RANK_CONSTANT = 60
"""Of reciprocal rank fusion, as its authors chose it."""
DEPTH = 100
"""How many passages of each ranking a hybrid retriever fuses."""


class Hit(NamedTuple):
    """A passage that was found. Scores of one retriever compare, of two they need not."""

    passage: Passage
    score: float

    def as_row(self) -> dict[str, Any]:
        """A JSON object; `from_row` restores it exactly."""
        return {**self.passage._asdict(), "score": self.score}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Hit:
        """The inverse of `as_row`."""
        return cls(Passage(row["id"], row["title"], row["text"]), row["score"])


class Retriever(Protocol):
    """What a corpus is searched with.

    fingerprint: equal for two retrievers only when they give the same hits; results are kept under it.
    """

    @property
    def fingerprint(self) -> str:
        """A hash of the corpus and of the way it is searched."""
        ...

    def __call__(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """At most k hits for each query, best first; fewer, or none, where nothing fits. A blank query finds nothing.

        The hits to a query do not depend on the others. Raises HeedfulError for k below 1.
        """
        ...


def check_k(k: int) -> None:
    """Raises HeedfulError for k below 1."""
    if k < 1:
        raise HeedfulError(f"k must be at least 1, not {k}: it is how many passages a query brings")


def fused(
    rankings: Sequence[Sequence[T]],
    key: Callable[[T], Hashable],
    *,
    constant: float = RANK_CONSTANT,
) -> list[tuple[T, float]]:
    """One ranking of several by reciprocal rank fusion: the sum of 1 / (constant + rank), ranks from 1, best first.

    Of items with equal keys the first one seen is kept; ties keep the order in which they were seen.
    Source: Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion outperforms Condorcet and individual rank learning
    methods", SIGIR 2009.
    """
    items: dict[Hashable, T] = {}
    scores: dict[Hashable, float] = {}
    for ranking in rankings:
        for rank, item in enumerate(ranking, start=1):
            items.setdefault(key(item), item)
            scores[key(item)] = scores.get(key(item), 0.0) + 1 / (constant + rank)
    return sorted(((items[name], score) for name, score in scores.items()), key=lambda pair: -pair[1])


class Hybrid:
    """Several retrievers of one corpus as one: the first `depth` hits of each, by reciprocal rank fusion."""

    def __init__(
        self, retrievers: Sequence[Retriever], *, depth: int = DEPTH, constant: float = RANK_CONSTANT
    ) -> None:
        if len(retrievers) < 2 or depth < 1 or constant < 0:
            raise HeedfulError(
                "a hybrid needs two retrievers, a depth of at least 1 and a constant of 0 or more"
            )
        self.retrievers, self.depth, self.constant = list(retrievers), depth, constant

    @property
    def fingerprint(self) -> str:
        """See `Retriever`."""
        return content_hash(["hybrid", *(r.fingerprint for r in self.retrievers), self.depth, self.constant])

    def __call__(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """See `Retriever`."""
        check_k(k)
        found = [retriever(queries, max(k, self.depth)) for retriever in self.retrievers]
        return [
            [Hit(hit.passage, score) for hit, score in fused(rankings, _place, constant=self.constant)[:k]]
            for rankings in zip(*found, strict=True)
        ]


def _place(hit: Hit) -> Hashable:
    return hit.passage
