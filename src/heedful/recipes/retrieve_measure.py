"""How well questions were searched for: recall and average precision at every hop, answers, queries, what it cost.

Letters: Q questions, H hops.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from heedful.evals import language
from heedful.evals.retrieval import answer_f1, exact_match, interval
from heedful.recipes.retrieve_pipeline import Read, Turn, gold_ap, gold_recall
from heedful.run import Run

if TYPE_CHECKING:
    from heedful.policies.language import LanguagePolicy

Array = np.ndarray


@dataclass(frozen=True)
class Measured:
    """What came of one writer. turns: after the last hop. recall, ap: (H, Q) of the merged context after each hop, NaN
    for questions without gold titles. em, f1: (Q,) of the reader's answers, NaN without answers; None without a reader.
    cost: tokens read and written by the writer; None for a rule.
    """

    turns: list[Turn]
    recall: Array
    ap: Array
    answers: list[str] | None = None
    em: Array | None = None
    f1: Array | None = None
    cost: dict[str, int | None] = field(default_factory=dict)

    @property
    def hops(self) -> int:
        """How many hops were made."""
        return len(self.recall)

    @property
    def words(self) -> Array:
        """(H, Q) words of each query."""
        return np.array([[len(turn.queries[h].split()) for turn in self.turns] for h in range(self.hops)])

    @property
    def without_hits(self) -> int:
        """Queries that found nothing."""
        return sum(not hits for turn in self.turns for hits in turn.found)

    def values(self) -> dict[str, Array]:
        """(Q,) numbers by name, those that are known: recall and AP after each hop, answers, words of a query."""
        out: dict[str, Array] = {}
        for name, table in (("recall", self.recall), ("AP", self.ap)):
            if np.isfinite(table).any():
                out |= {f"{name} after hop {h}": table[h - 1] for h in range(1, self.hops + 1)}
        if self.em is not None and self.f1 is not None:
            out |= {"answer exact match": self.em, "answer F1": self.f1}
        return {**out, "words of a query": self.words.mean(0)}

    @property
    def best_known(self) -> Array:
        """(Q,) what questions are told apart by: recall at the end, or the answers' F1 where nothing is gold."""
        last = self.recall[-1]
        return last if np.isfinite(last).any() or self.f1 is None else self.f1

    def per_question(self) -> dict[str, Any]:
        """Question by question, for values.json: recall and ap of each hop, the reader's exact match, and words of a
        query; what is not known is null."""
        told: dict[str, Any] = {
            "recall": [_or_null(row) for row in self.recall],
            "ap": [_or_null(row) for row in self.ap],
            "words": self.words.mean(0).round(4).tolist(),
        }
        if self.em is not None:
            told["em"] = _or_null(self.em)
        return told

    def numbers(self) -> dict[str, Any]:
        """For result.json: means, and intervals as `<name>_interval`."""
        told: dict[str, Any] = {}
        for name, values in self.values().items():
            got, key = interval(values.tolist()), key_of(name)
            told[key] = round(got.estimate, 6)
            if got.known:
                told[f"{key}_interval"] = [round(got.low, 6), round(got.high, 6)]
        return {
            **told,
            "searches": self.hops * len(self.turns),
            "without_hits": self.without_hits,
            **self.cost,
        }


def _or_null(values: Array) -> list[float | None]:
    return [None if np.isnan(value) else round(float(value), 6) for value in values]


def key_of(name: str) -> str:
    """The key of a value in result.json: "recall after hop 2" gives hop2_recall."""
    found = re.fullmatch(r"(.+) after hop (\d+)", name)
    return f"hop{found[2]}_{found[1].lower()}" if found else language.key_of(name)


def measure(
    turns: Sequence[Turn],
    run: Run,
    name: str,
    *,
    read: Read | None = None,
    cost: dict[str, int | None] | None = None,
) -> Measured:
    """All turns after their last hop, measured; a reader's answers are kept as `<name>/answers.json`."""
    hops = len(turns[0].queries)
    after = [[turn.at(h) for turn in turns] for h in range(1, hops + 1)]
    answers = em = f1 = None
    if read is not None:
        answers = run.once(f"{name}/answers.json", lambda: list(read(turns)))
        pairs = list(zip(answers, (turn.question.answers for turn in turns), strict=True))
        em = np.array([exact_match(answer, truths) for answer, truths in pairs])
        f1 = np.array([answer_f1(answer, truths) for answer, truths in pairs])
        if not np.isfinite(em).any():
            answers = em = f1 = None
    return Measured(
        list(turns),
        np.array([gold_recall(some) for some in after]),
        np.array([gold_ap(some) for some in after]),
        answers,
        em,
        f1,
        cost or {},
    )


def local_cost(policy: LanguagePolicy, hops: int, run: Run, name: str) -> dict[str, int | None]:
    """Tokens that a local model read and wrote for all queries, from what was kept of them."""

    def count() -> dict[str, int | None]:
        import json

        read = written = 0
        for h in range(1, hops + 1):
            with run.path(f"{name}/hop{h}-replies.jsonl").open("rb") as lines:
                for row in map(json.loads, lines):
                    read += len(policy.encoder.prompt(row["prompt"]))
                    written += sum(len(completion["ids"]) for completion in row["completions"])
        return {"prompt_tokens": read, "completion_tokens": written}

    return run.once(f"{name}/cost.json", count)


def served_cost(run: Run, role: str) -> dict[str, int | None]:
    """The same of a served model, as its server counts; None where it does not say."""
    from heedful.policies.calls import usage

    rows = [row for row in usage(run) if row["role"] == role]
    counted = all(not row["uncounted"] for row in rows)
    return {
        key: sum(row[key] for row in rows) if counted else None
        for key in ("prompt_tokens", "completion_tokens")
    }


def by_part(measured: Measured, part: Callable[[Turn], str]) -> dict[str, list[int]]:
    """Numbers of the questions of each part, parts in alphabetical order."""
    found: dict[str, list[int]] = {}
    for i, turn in enumerate(measured.turns):
        found.setdefault(part(turn), []).append(i)
    return dict(sorted(found.items()))
