"""Who writes queries for the generated world before LeReT has taught anything.

The smoke tier has a small writer made from nothing in seconds (`make_writer`). It learns by heart what to ask for the
training questions, the right thing for half of them and what the best passage happens to mention for the others, so
that there is something to find and something to learn. Of the test questions it knows nothing: to copy names out of
passages takes more than a smoke tier has.

The main tier has SmolLM2 (`make_practised`), which must first learn what larger models can: to take a name out of a
passage. As it comes, not one of 576 second queries that it tried found what was missing, and ten demonstrations of
right ones changed nothing. So it practises on questions about another world, in the same half right way.
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
from heedful.recipes.retrieve_writers import INSTRUCTION, NOTHING, QUERY, prompt_for
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
    lessons = practice(world, questions, retriever, hops, k, seed, SHOWN)
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


def make_practised(
    entities: int,
    lengths: Sequence[int],
    questions: int,
    *,
    hops: int,
    k: int,
    passage_words: int,
    run: Run,
    name: str,
) -> Path:
    """SmolLM2 after one pass over `questions` questions of a world of that size; made once, resumed where stopped."""
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
    asked = world.questions("train", questions)
    lessons = practice(world, asked, retriever, hops, k, derive_seed(run.seed, name), passage_words)
    policy = LanguagePolicy.load(START)
    rows = [{"group": policy.group(prompt, [query])} for prompt, query in lessons]
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
    world: World,
    questions: Sequence[Question],
    retriever: Retriever,
    hops: int,
    k: int,
    seed: int,
    passage_words: int,
) -> list[tuple[str, str]]:
    """(prompt, query) of every question at every hop, after what such queries have found until then."""
    draw = random.Random(seed)
    turns = [Turn(question) for question in questions]
    lessons: list[tuple[str, str]] = []
    for _ in range(hops):
        queries = [
            query_by("mention" if i % 2 else "asked", world, turn, draw) for i, turn in enumerate(turns)
        ]
        lessons += [
            (prompt_for(t, passage_words=passage_words), query)
            for t, query in zip(turns, queries, strict=True)
        ]
        found = retriever(queries, k)
        turns = [t.after(query, hits) for t, query, hits in zip(turns, queries, found, strict=True)]
    return lessons


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
