"""Who writes the queries: a language model, local or served, or a simple rule to compare it with.

All rules begin with the question. Then come the question again; the question and the beginning of the best passage; the
title of the best passage; or, to see what room there is, the title of a gold passage that is still missing, which no
writer can know.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from heedful.data.passages import plain_title
from heedful.recipes.retrieve_pipeline import Turn, Write, found_titles

if TYPE_CHECKING:
    from heedful.judges.search import Hit
    from heedful.policies.encode import Prompt
    from heedful.policies.language import LanguagePolicy
    from heedful.policies.remote import RemotePolicy
    from heedful.run import Run

BEGINNING = 200
"""Characters of the best passage that the rule `passage` puts after the question."""


# ---- rules


def ask_question(turns: Sequence[Turn]) -> list[str]:
    """The question, at every hop."""
    return [turn.question.question for turn in turns]


def ask_passage(turns: Sequence[Turn]) -> list[str]:
    """The question; from the second hop on also the first 200 characters of the best passage."""
    return [
        f"{turn.question.question} {turn.context[0].passage.text[:BEGINNING]}"
        if turn.context
        else turn.question.question
        for turn in turns
    ]


def ask_title(turns: Sequence[Turn]) -> list[str]:
    """The question; from the second hop on the title of the best passage."""
    return [turn.context[0].passage.title if turn.context else turn.question.question for turn in turns]


def ask_gold(turns: Sequence[Turn]) -> list[str]:
    """The question; from the second hop on the title of a gold passage that is not found yet, or the question again.

    No bound: passages that share words with a title may stand before its own.
    """
    queries = []
    for turn in turns:
        found = {plain_title(title) for title in found_titles(turn)}
        missing = [title for title in turn.question.gold_titles if plain_title(title) not in found]
        queries.append(missing[0] if turn.queries and missing else turn.question.question)
    return queries


RULES: dict[str, Write] = {
    "question": ask_question,
    "passage": ask_passage,
    "title": ask_title,
    "gold": ask_gold,
}


# ---- language models

INSTRUCTION = "Write a short search query that finds the passages still missing to answer the question."
NOTHING = "(nothing yet)"
QUERY = "Search query:"
_LABEL = re.compile(r"^\s*(?:search\s+)?query\s*:\s*", re.IGNORECASE)


def prompt_for(turn: Turn, *, passage_words: int, demos: Sequence[str] = ()) -> str:
    """What a model is asked: the instruction, demonstrations if any, the passages found so far, the question.

    passage_words: words of each passage that are shown. demos: cases as `case_for` writes them, with their query.
    """
    parts = [INSTRUCTION, *demos, case_for(turn.question.question, turn.context, passage_words)]
    return "\n\n".join(parts)


def few_shot_prompt(
    policy: LanguagePolicy, turn: Turn, *, passage_words: int, demos: Sequence[str] = ()
) -> Prompt:
    """`prompt_for`; but where there are demonstrations and the model knows turns of a chat, those become turns: each
    case is a question to the model and its query the answer, which chat models follow far better than one long text."""
    if not demos or not getattr(policy.tokenizer, "chat_template", None):
        return prompt_for(turn, passage_words=passage_words, demos=demos)
    messages: list[dict[str, str]] = []
    for demo in demos:
        case, _, query = demo.rpartition(f"\n{QUERY} ")
        messages.append({"role": "user", "content": f"{case}\n{QUERY}"})
        messages.append({"role": "assistant", "content": query})
    last = case_for(turn.question.question, turn.context, passage_words)
    messages.append({"role": "user", "content": last})
    messages[0]["content"] = f"{INSTRUCTION}\n\n{messages[0]['content']}"
    return messages


def case_for(question: str, context: Sequence[Hit], passage_words: int, query: str = "") -> str:
    """One case: what was found, the question, and the query, or the place for it."""
    shown = [shown_passage(hit, i, passage_words) for i, hit in enumerate(context, start=1)]
    found = "\n".join(shown) or NOTHING
    return f"Found so far:\n{found}\nQuestion: {question}\n{QUERY}{' ' + query if query else ''}"


def shown_passage(hit: Hit, number: int, words: int) -> str:
    """`[1] Title: the first words of the text …` on one line."""
    text = hit.passage.text.split()
    cut = " ".join(text[:words]) + (" …" if len(text) > words else "")
    title = " ".join(hit.passage.title.split())
    return f"[{number}] {title}: {cut}" if title else f"[{number}] {cut}"


def written_query(text: str) -> str:
    """The query in a model's reply: its first line, without a label before it and quotation marks around it."""
    line = next((line for line in text.splitlines() if line.strip()), "")
    line = _LABEL.sub("", line).strip()
    while len(line) > 1 and line[0] in "\"'“‘«" and line[-1] in "\"'”’»":
        line = line[1:-1].strip()
    return " ".join(line.split())


def local_writer(
    policy: LanguagePolicy,
    run: Run,
    name: str,
    *,
    passage_words: int,
    demos: Sequence[str] = (),
    quiet: bool = True,
    **how: Any,
) -> Write:
    """A local model as a writer; its replies are kept as `<name>/hop1-replies.jsonl` and so on.

    how: temperature, max_new_tokens, max_rows and the like, of `LanguagePolicy.sample`.
    """
    from heedful.policies.stages import sample_once

    def write(turns: Sequence[Turn]) -> list[str]:
        number = len(turns[0].queries) + 1 if turns else 1
        prompts = [few_shot_prompt(policy, turn, passage_words=passage_words, demos=demos) for turn in turns]
        drawn = sample_once(policy, prompts, 1, f"{name}/hop{number}-replies", run, quiet=quiet, **how)
        return [written_query(str(output)) for output in drawn.outputs]

    return write


def direct_writer(policy: LanguagePolicy, *, passage_words: int, seed: int, **how: Any) -> Write:
    """A local model as a writer without a run folder."""
    import torch

    def write(turns: Sequence[Turn]) -> list[str]:
        prompts = [prompt_for(turn, passage_words=passage_words) for turn in turns]
        drawn = policy.sample(prompts, 1, generator=torch.Generator().manual_seed(seed), **how)
        return [written_query(str(output)) for output in drawn.outputs]

    return write


def served_writer(
    model: RemotePolicy,
    run: Run | None,
    name: str,
    *,
    passage_words: int,
    seed: int,
    max_new_tokens: int,
    temperature: float,
    demos: Sequence[str] = (),
    quiet: bool = True,
) -> Write:
    """A served model as a writer; in a run folder no call is made twice (policies/calls)."""
    import torch

    from heedful.policies.calls import Calls

    how: dict[str, Any] = {"temperature": temperature, "max_new_tokens": max_new_tokens}

    def write(turns: Sequence[Turn]) -> list[str]:
        number = len(turns[0].queries) + 1 if turns else 1
        prompts = [prompt_for(turn, passage_words=passage_words, demos=demos) for turn in turns]
        if run is None:
            drawn = model.sample(prompts, 1, generator=torch.Generator().manual_seed(seed), **how)
            return [written_query(str(output)) for output in drawn.outputs]
        calls = Calls(run, name, quiet=quiet)
        return run.once(
            f"{name}/hop{number}-replies.json",
            lambda: [
                written_query(text)
                for text in calls.texts(
                    model, prompts, seed=seed, readable=lambda t: bool(written_query(t)), **how
                )
            ],
        )

    return write
