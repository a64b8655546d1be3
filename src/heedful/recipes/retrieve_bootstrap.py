"""Few-shot prompts for a writer of queries, bootstrapped: what it wrote itself, where that was worth something.

1. The writer, without demonstrations, searches for the first training questions. A trace is one of its queries with
   what was found before it; those that raised the reward are kept.
2. A candidate prompt holds some of them: the first ones, or a number drawn from 1 to the most, drawn at random.
3. Candidates are scored on the next training questions. The best ones are taken, the prompt without demonstrations
   comes before them.

Source: BootstrapFewShotWithRandomSearch of DSPy (Khattab et al. 2023), as LeReT uses it (arXiv 2410.23214). Departures,
each on purpose: a later hop's query must have raised the reward, since what earlier hops found makes any query
"successful"; demonstrations of all hops are taken in turn, so that rare successes of later hops are shown; there is no
candidate of labelled questions, since no question is labelled with a query.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from heedful.data.hops import Question
from heedful.errors import NothingToLearn
from heedful.judges.search import Retriever
from heedful.recipes.retrieve_pipeline import Reward, Steps, Turn, Write, walk
from heedful.recipes.retrieve_train_pairs import echoes
from heedful.recipes.retrieve_writers import case_for
from heedful.run import Run, derive_seed

Few = Callable[[Sequence[str], str], Write]
"""(demonstrations, name of its stage) -> the writer that sees them."""


@dataclass(frozen=True)
class Trace:
    """A query that was worth something. number: of its question; hop: from 1; case: as a prompt shows it."""

    number: int
    hop: int
    case: str


@dataclass(frozen=True)
class Search:
    """What a bootstrap needs to know. demos: the most in a prompt; candidates: prompts drawn at random, beside that of
    the first traces; rounds: further tries at temperature 1 for questions without a success."""

    demos: int = 3
    candidates: int = 12
    rounds: int = 0
    steps: Steps = field(default_factory=lambda: Steps(hops=1))
    passage_words: int = 60


@dataclass(frozen=True)
class Prompt:
    """Demonstrations, and the mean reward on the questions that prompts were chosen by; none: the prompt without."""

    demos: tuple[str, ...]
    score: float

    def as_row(self) -> dict[str, Any]:
        """A JSON object."""
        return {"demos": list(self.demos), "score": self.score}


def successes(turns: Sequence[Turn], reward: Reward, passage_words: int) -> list[Trace]:
    """The queries of finished turns that raised the reward, in the order of the turns. A hop's worth is that of what
    all hops so far found together; before the first hop it is 0, and unknown worth (NaN) is no success."""
    if not turns:
        return []
    hops = len(turns[0].queries)
    worth = [[0.0] * len(turns), *(reward([turn.at(h) for turn in turns]) for h in range(1, hops + 1))]
    found = []
    for i, turn in enumerate(turns):
        for h in range(1, hops + 1):
            before, query = turn.at(h - 1), turn.queries[h - 1]
            if query and worth[h][i] > worth[h - 1][i] and not echoes(query):
                case = case_for(turn.question.question, before.context, passage_words, query)
                found.append(Trace(i, h, case))
    return found


def candidates(traces: Sequence[Trace], search: Search, seed: int) -> list[tuple[str, ...]]:
    """Different lists of demonstrations: the first traces, then `search.candidates` lists drawn from all of them.

    Of each list the hops take turns, as long as a hop has traces left; which hop begins is drawn as well.
    """
    by_hop = [[t for t in traces if t.hop == h] for h in sorted({t.hop for t in traces})]
    made = [_in_turn(by_hop, search.demos)]
    for number in range(search.candidates):
        draw = random.Random(derive_seed(seed, "candidate", number))
        size = draw.randint(1, search.demos)
        parts = [draw.sample(part, len(part)) for part in by_hop]
        draw.shuffle(parts)
        made.append(_in_turn(parts, size))
    return [demos for demos in dict.fromkeys(made) if demos]


def _in_turn(parts: Sequence[Sequence[Trace]], size: int) -> tuple[str, ...]:
    longest = max(map(len, parts), default=0)
    mixed = [part[i] for i in range(longest) for part in parts if i < len(part)]
    return tuple(trace.case for trace in mixed[:size])


def bootstrap(
    train: Sequence[Question],
    dev: Sequence[Question],
    writer: Few,
    again: Few,
    retriever: Retriever,
    reward: Reward,
    search: Search,
    count: int,
    run: Run,
    name: str = "bootstrap",
) -> list[Prompt]:
    """The prompt without demonstrations and the `count` best ones with some, the best first; fewer when fewer differ.

    train: where traces come from. dev: what prompts are chosen by; both are training questions. writer: how queries are
    written; again: how in further rounds. Kept as `<name>/prompts.json`, with every search on the way.
    Raises NothingToLearn when no query is worth anything.
    """

    def searched(questions: Sequence[Question], write: Write, stage: str) -> list[Turn]:
        return walk(questions, write, retriever, search.steps, run=run, name=stage)

    traces: list[Trace] = []
    for number in range(1 + search.rounds):
        left = [q for i, q in enumerate(train) if i not in {t.number for t in traces}]
        if not left:
            break
        stage = f"{name}/traces{number}"
        turns = searched(left, (again if number else writer)((), stage), stage)
        place = {q.id: i for i, q in enumerate(train)}
        kept = run.once(f"{stage}.json", lambda turns=turns: _rows(turns, reward, search.passage_words))
        traces += [Trace(place[turns[i].question.id], hop, case) for i, hop, case in kept]
    if not traces:
        raise NothingToLearn(
            f"none of the queries that the model wrote for {len(train)} questions found anything, so there is no "
            "demonstration: take more of them (--bootstrap-train, --bootstrap-rounds), or --diversity temperature"
        )
    scored = []
    for number, demos in enumerate([(), *candidates(traces, search, run.seed_for(name))]):
        stage = f"{name}/candidate{number:02d}"
        turns = searched(dev, writer(demos, stage), stage)
        worth = run.once(f"{stage}/reward.json", lambda turns=turns: _known(reward(turns)))
        scored.append(Prompt(demos, float(np.mean(worth)) if worth else 0.0))
    best = sorted(scored[1:], key=lambda prompt: -prompt.score)[:count]
    chosen = [scored[0], *best]
    run.once(
        f"{name}/prompts.json",
        lambda: {
            "chosen": [prompt.as_row() for prompt in chosen],
            "scores": [prompt.score for prompt in scored],
            "traces": len(traces),
            "by_hop": {str(h): sum(t.hop == h for t in traces) for h in sorted({t.hop for t in traces})},
        },
    )
    return chosen


def _rows(turns: Sequence[Turn], reward: Reward, passage_words: int) -> list[list[Any]]:
    return [[t.number, t.hop, t.case] for t in successes(turns, reward, passage_words)]


def _known(values: Sequence[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]
