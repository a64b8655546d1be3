"""What simple rules find where LeReT is tried: anchors that nothing was learned for.

question  the question alone, at every hop
passage   a naive second query: the question and the first 200 characters of the best passage
title     the title of the best passage
double    the question alone with twice the passages, in one hop
feasible  the title of the first gold passage that is missing, where the one before it is found: what could be known
gold      the title of a gold passage that is missing, known or not
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from heedful.data.hops import Question, read_questions
from heedful.data.passages import plain_title
from heedful.papers.leret_setups import real_questions
from heedful.recipes.retrieve_pipeline import Steps, Turn, Write, found_titles, gold_recall, walk
from heedful.recipes.retrieve_writers import RULES, ask_question

if TYPE_CHECKING:
    from heedful.papers.leret_arms import Size
    from heedful.papers.leret_setups import Files
    from heedful.run import Run

WORDS = {
    "question": "question alone",
    "passage": "naive second query",
    "title": "title of the best passage",
    "double": "question alone, twice the passages",
    "feasible": "feasible oracle",
    "gold": "oracle title",
}


def ask_feasible(turns: Sequence[Turn]) -> list[str]:
    """The question; then the title of the first gold passage that is missing, if all before it on the way are found;
    else the question again. Gold titles are in the order of the way."""
    queries = []
    for turn in turns:
        found = {plain_title(title) for title in found_titles(turn)}
        missing = next((t for t in turn.question.gold_titles if plain_title(t) not in found), None)
        known = missing is not None and missing != turn.question.gold_titles[0] and turn.queries
        queries.append(missing if known and missing else turn.question.question)
    return queries


WRITERS: dict[str, Write] = {**RULES, "feasible": ask_feasible, "double": ask_question}


def rules_measured(size: Size, own: Files, setup: str, seed: int, run: Run) -> dict[str, dict[str, Any]]:
    """By rule what it finds for the test questions of a seed, question by question. Of real questions also "every": by
    rule and source the mean recall over all there are, which nothing was learned for."""
    from heedful.recipes.retrieve_measure import measure

    place = f"{setup}/seed{seed}/rules"
    told: dict[str, dict[str, Any]] = {}
    for name, turns in _walked(read_questions(own.test), size, own, place, run).items():
        told[name] = measure(turns, run, f"{place}/{name}", read=own.read).per_question()
    if size.data.kind == "real":
        told["every"] = {}
        for name, turns in _walked(real_questions(), size, own, f"{place}-every", run).items():
            by_source: dict[str, list[float]] = {}
            for turn, share in zip(turns, gold_recall(turns), strict=True):
                by_source.setdefault(turn.question.source, []).append(share)
            told["every"][name] = {source: fmean(shares) for source, shares in sorted(by_source.items())}
    return told


def _walked(
    questions: Sequence[Question], size: Size, own: Files, place: str, run: Run
) -> dict[str, list[Turn]]:
    """By rule the questions after their last hop."""
    from heedful.judges.search_index import cached_index

    _, retriever = cached_index(own.corpus, size.retriever(), quiet=True)  # type: ignore[arg-type]
    hops, k = size.options["hops"], size.options["k"]
    found = {}
    for name in WORDS:
        if name == "feasible" and size.data.kind == "real":
            continue  # nobody says in which order its gold passages are found
        steps = Steps(1, 2 * k) if name == "double" else Steps(hops, k)
        found[name] = walk(questions, WRITERS[name], retriever, steps, run=run, name=f"{place}/{name}")
    return found
