"""Trying queries hop by hop: several for each question, by several prompts, scored by what they find.

A hop is the unit of learning: each hop's queries are judged on the context right after them, and one of them is drawn
whose context begins the next hop (LeReT, arXiv 2410.23214). Every step is kept in parts in the run folder.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from heedful.data.hops import Question
from heedful.judges.search import Hit, Retriever
from heedful.recipes.retrieve_measure import local_cost
from heedful.recipes.retrieve_pipeline import Reward, Steps, Turn, search
from heedful.recipes.retrieve_train_pairs import Tried, draw_next
from heedful.recipes.retrieve_writers import RULES, few_shot_prompt, prompt_for, written_query
from heedful.run import Run

if TYPE_CHECKING:
    from heedful.policies.language import LanguagePolicy

PART = 256
"""Questions whose queries are searched for and scored together, which a kill can cost."""
Draw = Callable[[Sequence[Turn], Sequence[str], int, str], list[list[str]]]
"""(turns, demonstrations, n, name of the stage) -> n queries for each turn."""


@dataclass(frozen=True)
class Trial:
    """How queries are tried. prompts: the demonstrations of each prompt; samples: queries that each prompt writes;
    rules: names of `RULES`, each of which writes one more."""

    prompts: Sequence[Sequence[str]]
    samples: int = 1
    rules: Sequence[str] = ()
    steps: Steps = field(default_factory=Steps)
    passage_words: int = 60


@dataclass
class Harvest:
    """What came of it, hop by hop. cost: queries written, distinct ones searched for, tokens read and written."""

    hops: list[list[Tried]]
    cost: dict[str, int] = field(default_factory=dict)


def drawer(policy: LanguagePolicy, run: Run, *, passage_words: int, quiet: bool = True, **how: Any) -> Draw:
    """Queries by a local model; its replies are kept under the stage's name. how: temperature, max_new_tokens and the
    like, of `LanguagePolicy.sample`."""
    from heedful.policies.stages import sample_once

    def draw(turns: Sequence[Turn], demos: Sequence[str], n: int, name: str) -> list[list[str]]:
        prompts = [few_shot_prompt(policy, turn, passage_words=passage_words, demos=demos) for turn in turns]
        drawn = sample_once(policy, prompts, n, name, run, quiet=quiet, **how)
        return [[written_query(str(output)) for output in drawn.group(i)] for i in range(len(turns))]

    return draw


def try_queries(
    questions: Sequence[Question],
    draw: Draw,
    retriever: Retriever,
    reward: Reward,
    trial: Trial,
    run: Run,
    name: str,
) -> Harvest:
    """All hops of all questions; a question leaves when all its queries found everything, or nothing can be known.

    Kept as `<name>/hop1.jsonl` and so on. What is drawn is a function of the run's seed, `name`, hop and question.
    """
    turns = [Turn(question, trial.steps) for question in questions]
    hops: list[list[Tried]] = []
    searched = 0
    for hop in range(1, trial.steps.hops + 1):
        if not turns:
            break
        rows = _hop_rows(turns, draw, retriever, reward, trial, hop, run, name)
        hops.append([Tried.from_row(row) for row in rows])
        searched += sum(len(set(row["queries"])) for row in rows)
        turns = [
            turn.after(row["queries"][row["drawn"]], [Hit.from_row(hit) for hit in row["hits"]])
            for turn, row in zip(turns, rows, strict=True)
            if row["drawn"] is not None
        ]
    written = sum(len(row.queries) for rows in hops for row in rows)
    return Harvest(hops, {"queries": written, "searches": searched})


def add_tokens(harvest: Harvest, policy: LanguagePolicy, prompts: int, run: Run, name: str) -> None:
    """Count the tokens that a local model read and wrote for a harvest, from what `drawer` kept."""
    for number in range(prompts):
        cost = local_cost(policy, len(harvest.hops), run, stage_of(name, number))
        for key, tokens in cost.items():
            harvest.cost[key] = harvest.cost.get(key, 0) + (tokens or 0)


def stage_of(name: str, number: int) -> str:
    """Where the replies to a prompt are kept."""
    return f"{name}/prompt{number}"


def _hop_rows(
    turns: Sequence[Turn],
    draw: Draw,
    retriever: Retriever,
    reward: Reward,
    trial: Trial,
    hop: int,
    run: Run,
    name: str,
) -> list[dict[str, Any]]:
    file = f"{name}/hop{hop}"
    done = run.there(f"{file}.jsonl")
    queries: list[list[str]] = [[] for _ in turns]
    for number, demos in enumerate([] if done else trial.prompts):
        drawn = draw(turns, demos, trial.samples, f"{stage_of(name, number)}/hop{hop}-replies")
        for mine, more in zip(queries, drawn, strict=True):
            mine += more
    for rule in () if done else trial.rules:
        for mine, query in zip(queries, RULES[rule](turns), strict=True):
            mine.append(written_query(query))  # as it would be read if the model had written it

    def part(first: int) -> list[dict[str, Any]]:
        some = slice(first, first + PART)
        return _scored(turns[some], queries[some], retriever, reward, trial, run, file)

    return run.in_parts(file, len(turns), PART, part)


def _scored(
    turns: Sequence[Turn],
    queries: Sequence[Sequence[str]],
    retriever: Retriever,
    reward: Reward,
    trial: Trial,
    run: Run,
    file: str,
) -> list[dict[str, Any]]:
    """One row of each turn: its queries, what the context is worth after each, which one the next hop goes on from."""
    each = [(turn, query) for turn, some in zip(turns, queries, strict=True) for query in some]
    hits = search([turn for turn, _ in each], [query for _, query in each], retriever)
    after = [turn.after(query, found) for (turn, query), found in zip(each, hits, strict=True)]
    worth = iter(zip(reward(after), hits, strict=True))
    rows = []
    for turn, some in zip(turns, queries, strict=True):
        tried = [next(worth) for _ in some]
        scores = [score for score, _ in tried]
        drawn = draw_next(scores, random.Random(run.seed_for(file, turn.question.id)))
        rows.append(
            {
                "id": turn.question.id,
                "prompt": prompt_for(turn, passage_words=trial.passage_words),
                "queries": list(some),
                "scores": [None if math.isnan(score) else score for score in scores],
                "drawn": drawn,
                "hits": [] if drawn is None else [hit.as_row() for hit in tried[drawn][1]],
            }
        )
    return rows
