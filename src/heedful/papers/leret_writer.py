"""Who writes queries for the generated world before LeReT has taught anything.

The smoke tier has a small writer made from nothing in seconds (`make_writer`). It learns by heart what to ask for the
training questions, the right thing for half of them and what the best passage happens to mention for the others, so
that there is something to find and something to learn. Of the test questions it knows nothing: to copy names out of
passages takes more than a smoke tier has.

The main tier has SmolLM2 (`make_practised`), which must first learn what larger models can: to take a name out of a
passage. As it comes, in a trial not one of 288 second queries found what was missing, nor did one of 32 after three,
six or ten demonstrations of right ones. So it practises on questions about another world, in the same half right way.
About half of the cases come after demonstrations of their own way, right or not, so that the model also learns to
follow those.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from heedful.data.hops import Question
from heedful.data.hops.world import World
from heedful.data.passages import plain_title
from heedful.fit import FitConfig
from heedful.judges.search import Retriever
from heedful.recipes.retrieve_pipeline import Read, Turn, found_titles
from heedful.recipes.retrieve_writers import (
    INSTRUCTION,
    NOTHING,
    QUERY,
    case_for,
    few_shot_prompt,
    prompt_for,
)
from heedful.run import Run, derive_seed

SHOWN = 60
"""Words of a passage in the small writer's prompts."""
START = "smollm2"
ANOTHER = 1
"""The seed of the world that SmolLM2 practises on; that of the reproduction is 0."""


@dataclass(frozen=True)
class Writer:
    """How it is made. passes: over all questions and hops; size: of `decoder.SIZES`; context: tokens."""

    passes: float = 40.0
    size: str = "tiny"
    context: int = 1024
    batch_size: int = 8
    learning_rate: float = 3e-3


def make_writer(
    world: World,
    questions: Sequence[Question],
    retriever: Retriever,
    how: Writer,
    *,
    hops: int,
    k: int,
    run: Run,
    name: str,
) -> Path:
    """The folder of the writer, in the layout of Hugging Face; made once, resumed where it was stopped."""
    from heedful import hub
    from heedful.policies.decoder import fit_tokens, new_decoder, token_rows, word_tokenizer

    folder = run.path(name)
    if (folder / "config.json").exists():
        return folder
    seed = derive_seed(run.seed, name)
    cases = practice(world, questions, retriever, hops, k, seed)
    lessons = [(prompt_for(case.turn, passage_words=SHOWN), case.query) for case in cases]
    words = [f"{passage.title} {passage.title}: {passage.text}" for passage in world]
    words += [f"{q.question} {INSTRUCTION} {NOTHING} Found so far: Question: {QUERY}" for q in questions]
    words += [" ".join(f"[{i}]" for i in range(1, 1 + k * (hops + 1))), *(query for _, query in lessons)]
    policy = new_decoder(
        word_tokenizer(words), how.size, context=how.context, seed=seed, device="cpu", precision="fp32"
    )
    rows = token_rows([policy.group(prompt, [query]) for prompt, query in lessons], how.context)
    settings = FitConfig(
        lr=how.learning_rate, batch_size=how.batch_size, epochs=how.passes, precision="fp32", quiet=True
    )
    fit_tokens(f"{name}-practice", policy, rows, settings, run)
    card = {"title": "A writer of queries for a generated world, for smoke tests"}
    return hub.save_model(policy.module, policy.tokenizer, folder, card=card)


@dataclass(frozen=True)
class Case:
    """A query after what was found before it; way: how it was made, see `query_by`."""

    turn: Turn
    way: str
    query: str


def make_practised(
    entities: int,
    lengths: Sequence[int],
    questions: int,
    *,
    hops: int,
    k: int,
    passage_words: int,
    demos: int,
    run: Run,
    name: str,
) -> Path:
    """SmolLM2 after one pass over `questions` questions of a world of that size; made once, resumed where stopped.

    demos: the most demonstrations before a case.
    """
    from heedful import hub
    from heedful.judges.search_index import cached_index
    from heedful.policies.decoder import fit_tokens
    from heedful.policies.language import LanguagePolicy

    folder = run.path(name)
    if (folder / "config.json").exists():
        return folder
    world = World(ANOTHER, entities, lengths)
    run.once(f"{name}-corpus.jsonl", lambda: [passage._asdict() for passage in world])
    _, retriever = cached_index(str(run.path(f"{name}-corpus.jsonl")), "bm25", quiet=True)
    seed = derive_seed(run.seed, name)
    cases = practice(world, world.questions("train", questions), retriever, hops, k, seed)
    policy = LanguagePolicy.load(START)
    rows = []
    for case, shown in zip(cases, demonstrated(cases, demos, passage_words, seed), strict=True):
        prompt = few_shot_prompt(policy, case.turn, passage_words=passage_words, demos=shown)
        rows.append({"group": policy.group(prompt, [case.query])})
    settings = FitConfig(
        lr=2e-4,
        batch_size=8,
        warmup=0.1,
        micro_cost=2048,
        precision=policy.precision,
        save_every=20,
        quiet=True,
    )
    fit_tokens(f"{name}-practice", policy, rows, settings, run)
    card = {"title": "SmolLM2 after practice in writing queries for a generated world"}
    return hub.save_model(policy.module, policy.tokenizer, folder, card=card)


def practice(
    world: World, questions: Sequence[Question], retriever: Retriever, hops: int, k: int, seed: int
) -> list[Case]:
    """A case of every question at every hop, after what such queries have found until then."""
    draw = random.Random(seed)
    turns = [Turn(question) for question in questions]
    cases: list[Case] = []
    for _ in range(hops):
        ways = ["mention" if i % 2 else "asked" for i in range(len(turns))]
        queries = [query_by(way, world, turn, draw) for way, turn in zip(ways, turns, strict=True)]
        cases += map(Case, turns, ways, queries)
        found = retriever(queries, k)
        turns = [t.after(query, hits) for t, query, hits in zip(turns, queries, found, strict=True)]
    return cases


def demonstrated(cases: Sequence[Case], most: int, passage_words: int, seed: int) -> list[tuple[str, ...]]:
    """What is shown before each case: before half of them nothing, else 1 to `most` cases of the same way."""
    draw = random.Random(derive_seed(seed, "demonstrated"))
    shown: list[tuple[str, ...]] = []
    for case in cases:
        others = [
            other for other in cases if other.way == case.way and other.turn.question != case.turn.question
        ]
        some = draw.sample(others, min(len(others), draw.choice((0, draw.randint(1, most)))))
        shown.append(
            tuple(case_for(o.turn.question.question, o.turn.context, passage_words, o.query) for o in some)
        )
    return shown


def query_by(way: str, world: World, turn: Turn, draw: random.Random) -> str:
    """asked: what the question asks for next, by its name in the passage that mentions it; mention: something that the
    best passage mentions, drawn at random. Before anything is found, the thing that the question names."""
    side, _, number = turn.question.id.partition("-")
    _, things = world.chain(side, int(number))  # type: ignore[arg-type]
    first = world.thing(things[0])
    named = (as_written(name, turn.question.question) for name in (first.alias, first.name) if name)
    begin = next((cut for cut in named if cut), first.name)
    if not turn.context:
        return begin
    best = turn.context[0].passage
    if way == "mention":
        links = world.links(int(best.id[1:])).values()
        said = [cut for other in links if (cut := as_written(world.thing(other).said, best.text))]
        return draw.choice(said) if said else f"{best.title}:"
    found = {plain_title(title) for title in found_titles(turn)}
    missing = next((i for i, t in enumerate(things) if plain_title(world.thing(t).title) not in found), None)
    if not missing:
        return begin if missing == 0 else f"{world.thing(things[-1]).title}:"
    return as_written(world.thing(things[missing]).said, world.text(things[missing - 1])) or begin


def as_written(name: str, text: str) -> str:
    """A name as a text has it, with the punctuation that sticks to it, so that its words can be copied; "" if it lacks
    the name."""
    found = re.search(rf"(?<!\S){re.escape(name.removeprefix('the '))}(?!\w)\S*", text, re.IGNORECASE)
    return found[0] if found else ""


def perfect_reader(world: World) -> Read:
    """A reader that answers from the context where all that is needed is there, and else says "unknown"."""
    return lambda turns: [world.read(turn.question, found_titles(turn)) for turn in turns]
