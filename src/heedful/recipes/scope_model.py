"""A language model as the maker of scopes and as the reviser of answers, local or behind a server.

The steps are those of C3PO (Stephan et al. 2024, arXiv 2402.10893): the sentence is taken apart, topics reach
slightly beyond its domain and are revised, and each topic gets in-scope and near-scope prompts; the latter are
checked by a second question and rewritten where they fail. Departures: the splits have topics of their own, so that
the reported numbers are on topics that were never trained on; general prompts are the package's, and those that the
second question finds inside the domain are left out.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from heedful.data.scopes import KINDS, PARTS, Scope, Sizes, general_prompts
from heedful.data.scopes.slots import alike
from heedful.errors import HeedfulError
from heedful.evals.texts import words
from heedful.judges import prompted_text
from heedful.judges.effects import Effect, infer_effects
from heedful.policies.asking import Sampler, ask, one_line
from heedful.recipes import scope_prompts
from heedful.recipes.scope_parse import LONGEST_CLAUSE, parse_parts
from heedful.recipes.scope_writer import (
    Maker,
    first_of,
    general_outside,
    list_topics,
    split_topics,
    write_prompts,
)
from heedful.run import derive_seed

if TYPE_CHECKING:
    from heedful.run import Run

CLAUSES = ("content", "domain", "effect")
COUNTED = (
    "unparsable",
    "unparsable_examples",
    "duplicates",
    "surplus",
    "topics",
    "near_check",
    "general_check",
)


def make_scope_with(
    policy: Sampler,
    sentence: str,
    *,
    domain: str = "",
    effect: str = "",
    effects: Sequence[Effect] = (),
    sizes: Sizes,
    seed: int,
    run: Run | None = None,
    retries: int = 3,
    categories: int = 24,
    temperature: float = 0.7,
    max_new_tokens: int = 1024,
    say: Callable[[str], None] | None = None,
) -> Scope:
    """The scope of a sentence of feedback, written by a language model.

    policy: a `LanguagePolicy` or `RemotePolicy`, or anything else with their `sample`. domain, effect: given, they are
    not asked for. effects: by default what `infer_effects` finds in the effect, and () where that is nothing.
    run: every reply is kept under `scope/` in it, so a second call asks nothing twice. retries: how often a reply
    that cannot be read, or prompts that are missing, are asked for again, with fresh random streams.
    categories: topics to ask for; each belongs to one split where there are as many as splits. say: gets a line
    after each step. `Scope.notes` counts unparsable items (with examples), duplicates, and what the checks of
    near-scope and general prompts found.

    Raises HeedfulError, with how many prompts of which kind came and how many are needed, when there are too few.
    """
    sentence, domain, effect = one_line(sentence), one_line(domain), one_line(effect)
    if not words(sentence) or max(map(len, (sentence, domain, effect))) > LONGEST_CLAUSE:
        raise HeedfulError(
            f"a sentence of feedback, its domain and its effect have 1 to {LONGEST_CLAUSE} characters each"
        )
    if categories < 1 or retries < 0:
        raise HeedfulError("categories must be at least 1 and retries at least 0")
    name = getattr(policy, "model", "") or getattr(policy, "source", "")
    notes: dict[str, Any] = {"maker": "model", "model": str(name or type(policy).__name__)}
    notes |= {key: {} for key in COUNTED}
    maker = Maker(
        policy, run, seed, retries, temperature, max_new_tokens, say or (lambda line: None), notes=notes
    )
    need = {kind: {part: sizes.of(part, kind) for part in PARTS} for kind in KINDS}
    _enough_general(len(general_prompts()), need["general"])  # before the model is asked for hours
    content = _decompose(maker, sentence, domain, effect)
    topics = list_topics(maker, categories)
    topics_of = split_topics(topics, {part: need["in"][part] + need["near"][part] for part in PARTS}, seed)
    notes["categories"] = topics_of
    parts: dict[str, dict[str, list[str]]] = {part: {} for part in PARTS}
    for kind in ("in", "near"):
        for split, prompts in write_prompts(maker, kind, need[kind], topics_of).items():
            parts[split][kind] = prompts
    for split, prompts in _general(maker, need["general"], parts).items():
        parts[split]["general"] = prompts
    used = [topic for topic in topics if any(topic in own for own in topics_of.values())]
    return Scope(
        sentence=sentence,
        content=content,
        domain=maker.domain,
        effect=maker.effect,
        effects=tuple(effects) or tuple(infer_effects(maker.effect)),
        categories=tuple(used),
        notes=notes,
        **parts,
    )


def _decompose(maker: Maker, sentence: str, domain: str, effect: str) -> str:
    """Settle domain and effect; returns the content."""
    maker.domain, maker.effect = domain, effect
    if domain and effect:
        return sentence
    question = scope_prompts.decompose(sentence, domain, effect)
    replies = maker.ask(
        [question], lambda reply: parse_parts(reply, CLAUSES), "decomposition", "decomposition"
    )
    parts = replies.values[0]
    if parts is None:
        raise HeedfulError(
            f"the model did not take {sentence!r} apart in {maker.retries + 1} tries{first_of(replies.examples)}; say "
            'when the feedback applies and what it asks for with --domain "..." and --effect "...", or use a larger '
            "model"
        )
    maker.domain, maker.effect = domain or parts["domain"], effect or parts["effect"]
    maker.say(f"domain: {maker.domain}; effect: {maker.effect}")
    return parts["content"]


def _general(
    maker: Maker, need: Mapping[str, int], parts: Mapping[str, Mapping[str, list[str]]]
) -> dict[str, list[str]]:
    """The package's general prompts outside the domain, in an order that is the same for every sentence."""
    scoped = {alike(prompt) for kinds in parts.values() for prompts in kinds.values() for prompt in prompts}
    prompts = [prompt for prompt in general_prompts() if alike(prompt) not in scoped]
    random.Random(derive_seed(0, "general prompts")).shuffle(prompts)
    prompts = general_outside(maker, prompts, sum(need.values()))
    _enough_general(len(prompts), need, " that the model finds outside the domain")
    maker.say(f"general prompts: {len(prompts)} of {sum(need.values())}")
    out: dict[str, list[str]] = {}
    for split in PARTS:
        out[split], prompts = prompts[: need[split]], prompts[need[split] :]
    return out


def _enough_general(count: int, need: Mapping[str, int], sort: str = "") -> None:
    if count < sum(need.values()):
        raise HeedfulError(
            f"{sum(need.values())} general prompts are needed, but the package has {count}{sort}; ask for fewer"
        )


# ---- revision


class Revisions(list[str | None]):
    """A model's revisions, None where it wrote none that can be read. counts: "revised", "unchanged" (equal to the
    answer), "unrevised" (the Nones) and "unparsable" (replies, those asked for again included)."""

    counts: dict[str, int]
    examples: list[str]


def revise_with(
    policy: Sampler,
    prompts: Sequence[str],
    answers: Sequence[str],
    effects_text: str,
    *,
    seed: int,
    run: Run | None = None,
    name: str = "revisions/model",
    retries: int = 3,
    temperature: float = 0.7,
    max_new_tokens: int = 768,
) -> Revisions:
    """A model's revision of each answer: an explanation, which is dropped, and the improved answer, which is kept.

    The model is told the effect and never the scope. Replies without exactly that form are asked for again at most
    `retries` times. In a run the replies are kept as `name.json`; as every other stage of a run, this must not be
    called from inside `run.once`.
    Raises HeedfulError when prompts and answers differ in number or the effect is empty.
    """
    if len(prompts) != len(answers):
        raise HeedfulError(f"there are {len(prompts)} prompts but {len(answers)} answers to revise")
    if not words(effects_text):
        raise HeedfulError('there is no effect to revise answers for; give it with --effect "..."')
    questions = [
        prompted_text.revise(p, a, one_line(effects_text)) for p, a in zip(prompts, answers, strict=True)
    ]
    replies = ask(
        policy,
        questions,
        prompted_text.parse_revision,
        seed=seed,
        name=name,
        run=run,
        retries=retries,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
    )
    revisions = Revisions(replies.values)
    pairs = [(new, old) for new, old in zip(revisions, answers, strict=True) if new is not None]
    revisions.counts = {
        "revised": len(pairs),
        "unchanged": sum(new.split() == old.split() for new, old in pairs),
        "unrevised": len(answers) - len(pairs),
        "unparsable": replies.unparsable,
    }
    revisions.examples = replies.examples
    return revisions
