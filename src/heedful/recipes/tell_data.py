"""Completions for `heedful tell`: the start model's plain answers, whole and sane, and their revisions.

C3PO (Stephan et al. 2024, section 4.1). An answer that was cut off never reaches its end, so an effect that belongs
there would be taught at a place which the model never gets to. Such an answer is revised after its last whole sentence,
and counted; what the model went on to say is the plain answer at that place, and no end is taught where there was none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from heedful.data.scopes import KINDS, Scope
from heedful.errors import HeedfulError
from heedful.evals.texts import repetition, words
from heedful.judges.effects import Effect, adheres, edit
from heedful.policies.language import Completion, LanguagePolicy
from heedful.policies.scoped import Item
from heedful.policies.stages import sample_once
from heedful.recipes.settings import sampling
from heedful.run import Run

if TYPE_CHECKING:
    from heedful.recipes.tell import Config

SHORTEST = 8
"""Words that an answer needs to be trained on."""
LOOPING = 0.35
"""Share of repeated word trigrams from which an answer counts as a loop."""
PLACEHOLDERS = 4
"""`[Bracketed blanks]` from which an answer counts as a form, not an answer."""
FEWEST = 8
"""In-scope pairs below which nothing can be learned."""

Revise = Callable[[Sequence[str], Sequence[str]], Mapping[str, Any]]
"""Prompts and plain answers -> {"texts": a model's revisions, None where it gave none, "counts": of what happened}."""


@dataclass
class Completions:
    """Training items by kind, and what was left out or changed on the way, counted."""

    items: dict[str, list[Item]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def count(self, name: str, by: int = 1) -> None:
        """Add to a counter."""
        self.counts[name] = self.counts.get(name, 0) + by


def whole(completion: Completion) -> tuple[str | None, bool]:
    """The answer with a proper end, and whether it had to be shortened; None when no whole sentence is left."""
    text = completion.text.strip()
    if completion.finished:
        return text or None, False
    ends = [m.end() for m in re.finditer(r"[.!?][\"')\]]?(?=\s|$)", text)]
    return (text[: ends[-1]].rstrip() if ends else None), True


def degenerate(text: str) -> str:
    """Why an answer is not worth training on: "too_short", "loop" or "placeholders"; "" for a sane one."""
    if len(words(text)) < SHORTEST:
        return "too_short"
    if repetition(text) > LOOPING:
        return "loop"
    if len(re.findall(r"\[[^\]\n]{2,60}\]", text)) >= PLACEHOLDERS:
        return "placeholders"
    return ""


def complete(
    cfg: Config, policy: LanguagePolicy, scope: Scope, run: Run, *, revise: Revise | None = None
) -> Completions:
    """Plain answers of the start model to the training prompts, and revisions, kept in the run folder.

    revise: a model's revisions; the effect's editor stands in where it gives none or one that does not adhere.
    Raises HeedfulError when too few in-scope pairs are left, with what became of them.
    """
    made = Completions()
    with policy.reference():
        drawn = sample_kinds(cfg, policy, scope.train, "plain/answers", run, max_new_tokens=cfg.train_tokens)
    kept = {kind: sane(scope.train[kind], drawn[kind], kind, made) for kind in KINDS}
    offered: list[str | None] = [None] * len(kept["in"])
    if revise is not None and kept["in"]:
        prompts, texts = [item.prompt for item, _ in kept["in"]], [text for _, text in kept["in"]]
        # The replies are stages of their own, so a kill costs few of them.
        fresh = {} if run.there("plain/revised.json") else dict(revise(prompts, texts))
        given = run.once("plain/revised.json", lambda: fresh)
        offered = given["texts"]
        for name, count in given["counts"].items():
            made.count(f"reviser_{name}", count)
    made.items["in"] = revised(scope.effects, kept["in"], offered, made)
    already = made.counts.get("in_dropped_adheres_already", 0)
    if len(made.items["in"]) < FEWEST and already > len(kept["in"]) / 2:
        raise HeedfulError(
            f"there is nothing to learn: {already} of {len(kept['in'])} in-scope answers of {cfg.model} have the "
            f"effect already ({'; '.join(e.about for e in scope.effects)})"
        )
    if len(made.items["in"]) < FEWEST:
        raise HeedfulError(
            f"only {len(made.items['in'])} of {len(scope.train['in'])} in-scope answers could be used "
            f"({said(made.counts)}); give more --prompts, a larger --train-tokens, or a stronger model, under another "
            "--name"
        )
    for kind in ("near", "general"):
        made.items[kind] = [
            replace(item, revised=edit(scope.effects, text) if scope.effects else None)
            for item, text in kept[kind]
        ]
    run.once(
        "plain/rows.jsonl",
        lambda: [{"kind": kind, **asdict(item)} for kind in KINDS for item in made.items[kind]],
    )
    return made


def sane(
    prompts: Sequence[Any], outputs: Sequence[Completion], kind: str, made: Completions
) -> list[tuple[Item, str]]:
    """The usable answers, each with its text up to the last whole sentence; the others are counted and left out."""
    kept = []
    for prompt, completion in zip(prompts, outputs, strict=True):
        text, shortened = whole(completion)
        why = "unfinished" if text is None else degenerate(text)
        if text is None or why:
            made.count(f"{kind}_dropped_{why}")
            continue
        if shortened:
            made.count(f"{kind}_shortened")
        kept.append((Item(prompt, completion.text.strip(), ended=completion.finished), text))
    made.count(f"{kind}_kept", len(kept))
    return kept


def revised(
    effects: Sequence[Effect],
    pairs: Sequence[tuple[Item, str]],
    offered: Sequence[str | None],
    made: Completions,
) -> list[Item]:
    """In-scope items with a revision: the model's where it adheres, else the editor's; the others are dropped."""
    kept = []
    for (item, start), text in zip(pairs, offered, strict=True):
        if effects and adheres(effects, start):
            made.count("in_dropped_adheres_already")
            continue
        if text is not None and (not effects or adheres(effects, text, start=start)):
            made.count("revised_by_model")
        else:
            text = edit(effects, start) if effects else None
            if text is None or not adheres(effects, text, start=start):
                made.count("in_dropped_no_revision")
                continue
            made.count("revised_by_editor")
        kept.append(replace(item, revised=text))
    return kept


def sample_kinds(
    cfg: Config,
    policy: LanguagePolicy,
    prompts: Mapping[str, Sequence[Any]],
    name: str,
    run: Run,
    *,
    stream: str = "",
    **how: Any,
) -> dict[str, list[Completion]]:
    """One completion for each prompt of each kind, drawn side by side and kept as `<name>.jsonl`.

    T=.7, top-p .7 and top-k 50 are the paper's. stream and how: see `sample_once`.
    """
    flat = [prompt for kind in prompts for prompt in prompts[kind]]
    options = {**sampling(cfg), **how}
    outputs = iter(sample_once(policy, flat, 1, name, run, stream=stream, quiet=cfg.quiet, **options).outputs)
    return {kind: [next(outputs) for _ in prompts[kind]] for kind in prompts}


def said(counts: Mapping[str, int]) -> str:
    """Counters as text, the largest first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name.replace('_', ' ')}: {count}" for name, count in ordered) or "nothing was drawn"
