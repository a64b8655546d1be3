"""Scopes without a language model: grammars that make prompts inside and near what a sentence means.

The domain says which requests are meant (domains), and each sort of request has a grammar of its own:
messages, writing, topics, code and texts, with the word lists in `words/`. Every list
is split by the seed into a training half and a held-out half, so that a prompt of dev or test has topics, wordings
and, near the scope, recipients, channels or kinds of text that no training prompt has. What a general prompt shares
with the domain keeps it out of the general set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any

from heedful.data.scopes import KINDS, PARTS, Scope, Sizes, general_prompts
from heedful.data.scopes.code import code_grammar
from heedful.data.scopes.domains import (
    Asked,
    Code,
    Incoming,
    Message,
    Request,
    Work,
    Writing,
    read_domain,
    unread_part,
)
from heedful.data.scopes.messages import message_grammar
from heedful.data.scopes.sentences import read_sentence, split_sentence
from heedful.data.scopes.slots import Draft, Grammar, Wanted, alike, draw
from heedful.data.scopes.style import Style, style_for
from heedful.data.scopes.texts import incoming_grammar, work_grammar
from heedful.data.scopes.topics import topic_grammar
from heedful.data.scopes.writing import writing_grammar
from heedful.errors import HeedfulError
from heedful.judges.effects import Effect, infer_effects

MOST_CATEGORIES = 30

SKELETON = """\
sentence: {sentence}
domain: {domain}
effect: {effect}
train:
  in:
  - a prompt that is meant
  near:
  - one like it that is not
  general:
  - any other
test:
  in:
  - other prompts
  near:
  - of the same kinds
  general:
  - for the measurement"""


def make_scope(
    sentence: str,
    *,
    domain: str = "",
    effect: str = "",
    effects: Sequence[Effect] = (),
    sizes: Sizes | None = None,
    seed: int = 0,
) -> Scope:
    """The scope of a sentence, its prompts made by grammars; the same for the same sentence, sizes and seed.

    `domain` and `effect` stand in for what the sentence does not say, `effects` for the checks that would be inferred
    from the effect. Where a grammar cannot make as many prompts as `sizes` asks for, the sets are smaller and
    `notes["short"]` says by how much. Raises HeedfulError where domain or effect are neither given nor in the
    sentence, and for a domain that no grammar fits.
    """
    sizes = sizes or Sizes()
    sentence = " ".join(sentence.split())
    domain, effect = _parts(sentence, " ".join(domain.split()), " ".join(effect.split()))
    request = read_domain(domain)
    if request is None:
        skeleton = SKELETON.format(sentence=repr(sentence), domain=repr(domain), effect=repr(effect))
        raise HeedfulError(
            f"no grammar makes prompts for {domain!r}: it names no message, kind of text, topic or language. Say it "
            f"in other words with --domain, or give prompts of your own with --scope FILE, such as\n{skeleton}"
        )
    grammar = grammar_for(request, style_for(effect))
    rng = Random(f"{seed}\n{sentence}\n{domain}\n{effect}")
    made = draw(grammar, [Wanted(part, sizes.of(part, "in"), sizes.of(part, "near")) for part in _ORDER], rng)
    general = _general(grammar, made, sizes, rng)
    sets = {
        part: {
            "in": [draft.text for draft in made[part]["in"]],
            "near": [draft.text for draft in made[part]["near"]],
            "general": general[part],
        }
        for part in PARTS
    }
    return Scope(
        sentence=sentence,
        content=sentence,
        domain=domain,
        effect=effect,
        effects=tuple(effects) or tuple(infer_effects(effect)),
        categories=_categories(made),
        train=sets["train"],
        test=sets["test"],
        dev=sets["dev"],
        notes=_notes(grammar, domain, sets, sizes, seed),
    )


# Dev is small: made before the test set, it is never the one that is left without.
_ORDER = ("train", "dev", "test")


def _parts(sentence: str, domain: str, effect: str) -> tuple[str, str]:
    if not (domain and effect):
        if not domain and not effect:
            return split_sentence(sentence)
        read_when, read_what = read_sentence(sentence)
        domain = domain or read_when
        effect = effect or read_what
        if not domain or not effect:
            split_sentence(sentence)
    return domain, effect


def grammar_for(request: Request, style: Style) -> Grammar:
    """The grammar that makes prompts for a request."""
    if isinstance(request, Message):
        return message_grammar(request, style)
    if isinstance(request, Writing):
        return writing_grammar(request, style)
    if isinstance(request, Asked):
        return topic_grammar(request, style)
    if isinstance(request, Code):
        return code_grammar(request, style)
    if isinstance(request, Work):
        return work_grammar(request, style)
    assert isinstance(request, Incoming)
    return incoming_grammar(request, style)


def _general(
    grammar: Grammar, made: dict[str, dict[str, list[Draft]]], sizes: Sizes, rng: Random
) -> dict[str, list[str]]:
    """General prompts by part, none of which may be in scope or is a prompt of the scope already."""
    taken = {alike(draft.text) for kinds in made.values() for drafts in kinds.values() for draft in drafts}
    left = [text for text in general_prompts() if not grammar.claims(text) and alike(text) not in taken]
    rng.shuffle(left)
    found = {}
    for part in ("test", "dev", "train"):
        count = sizes.of(part, "general")
        found[part], left = left[:count], left[count:]
    return found


def _categories(made: dict[str, dict[str, list[Draft]]]) -> tuple[str, ...]:
    counts = Counter(
        draft.category for kinds in made.values() for drafts in kinds.values() for draft in drafts
    )
    return tuple(name for name, _ in counts.most_common(MOST_CATEGORIES))


def _notes(
    grammar: Grammar, domain: str, sets: dict[str, dict[str, list[str]]], sizes: Sizes, seed: int
) -> dict[str, Any]:
    notes: dict[str, Any] = {"maker": f"grammar: {grammar.name}", "seed": seed}
    if grammar.note:
        notes["maker"] += f"; {grammar.note}"
    short = {
        f"{part}.{kind}": f"{len(sets[part][kind])} of {sizes.of(part, kind)}"
        for part in PARTS
        for kind in KINDS
        if len(sets[part][kind]) < sizes.of(part, kind)
    }
    unread = unread_part(domain)
    if unread:
        notes["unread"] = f"the prompts do not look at {unread!r}, which the grammar cannot read"
    if short:
        notes["short"] = short
    return notes
