"""A corpus of colours that lead to metals, questions about it, and a tiny writer of queries with a habit to lose.

The writer knows what to search for, but without demonstrations it writes "something" for half of the colours.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from heedful.data.hops import Question
from heedful.data.passages import Passage
from heedful.judges.search import Hit
from heedful.policies.decoder import new_decoder, word_tokenizer
from heedful.recipes.retrieve_pipeline import Turn
from heedful.recipes.retrieve_writers import case_for, prompt_for

LINKS = {
    "red": "copper",
    "green": "silver",
    "blue": "cobalt",
    "amber": "nickel",
    "violet": "zinc",
    "olive": "radium",
}
KNOWN = ("red", "green", "blue")
"""Colours for which it writes what it should, demonstrations or not."""
VERBS = ("find", "reach", "follow", "trace")
BAD = "something"


def questions() -> list[Question]:
    """One for each colour and verb."""
    return [
        Question(f"{verb}-{a}", f"{verb} {a}", (a.title(), b.title()), (b,), 2)
        for verb in VERBS
        for a, b in LINKS.items()
    ]


def passages() -> list[Passage]:
    """Two for each colour, and some that nothing needs."""
    made = [Passage(a, a.title(), f"{a} leads to {b}") for a, b in LINKS.items()]
    made += [Passage(b, b.title(), f"{b} is a metal") for b in LINKS.values()]
    return [*made, *(Passage(f"n{i}", f"Stone {i}", f"stone number {i}") for i in range(4))]


def turns(question: Question) -> tuple[Turn, Turn]:
    """Before the first hop, and before the second one when the first found the colour."""
    colour = question.gold_titles[0].lower()
    hit = Hit(Passage(colour, colour.title(), f"{colour} leads to {LINKS[colour]}"), 1.0)
    return Turn(question), Turn(question).after(colour, [hit])


def write_files(folder: Path) -> None:
    """corpus.jsonl, train.jsonl (three verbs) and test.jsonl (the fourth)."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = {"corpus": [p._asdict() for p in passages()], "train": [], "test": []}
    for question in questions():
        rows["test" if question.id.startswith(VERBS[-1]) else "train"].append(question.as_row())
    for name, some in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))


def save_writer(folder: Path, steps: int = 200) -> None:
    """Train it and save it as a Hub model is."""
    alone, shown = _lessons()
    texts = [*(f"{p} {q}" for p, q in [*alone, *shown]), *(p.words for p in passages()), *_marks()]
    policy = new_decoder(word_tokenizer(texts), "tiny", context=768, seed=0, device="cpu", precision="fp32")
    kinds = [[policy.group(prompt, [query]) for prompt, query in some] for some in (alone, shown)]
    optimizer = torch.optim.AdamW(policy.module.parameters(), lr=3e-3)
    draw = torch.Generator().manual_seed(0)
    for _ in range(steps):
        picked = [kind[i] for kind in kinds for i in torch.randint(len(kind), (8,), generator=draw).tolist()]
        logp, mask = policy.logp_groups(picked)
        loss = -(logp * mask).sum() / mask.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.module.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    policy.module.save_pretrained(folder)
    policy.tokenizer.save_pretrained(folder)


def _lessons() -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """(prompt, query) without demonstrations, and with one of a known colour and the first verb."""
    alone, shown = [], []
    for question in questions():
        colour = question.gold_titles[0].lower()
        for turn, right in zip(turns(question), (colour, LINKS[colour]), strict=True):
            alone.append((prompt_for(turn, passage_words=60), right if colour in KNOWN else BAD))
            shown += [(prompt_for(turn, passage_words=60, demos=[demo]), right) for demo in _demos()]
    return alone, shown


def _demos() -> list[str]:
    known = [q for q in questions()[: len(LINKS)] if q.gold_titles[0].lower() in KNOWN]
    return [
        case_for(q.question, turn.context, 60, query)
        for q in known
        for turn, query in zip(turns(q), (q.gold_titles[0].lower(), q.answers[0]), strict=True)
    ]


def _marks() -> list[str]:
    hits: Any = [Hit(p, 1.0) for p in passages()]
    return [case_for("", hits[i : i + 6], 60) for i in range(0, len(hits), 6)] + [
        " ".join(f"[{i}] {p.title}:" for i in range(1, 7) for p in passages())
    ]
