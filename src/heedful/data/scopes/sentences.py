"""One sentence of feedback taken apart: when it applies (the domain) and what it asks for (the effect).

The reader is a set of patterns, no model: it looks for a phrase that names requests (`emails to my manager`, `when I
ask for Python code`, `on Instagram`) and takes the rest for the effect. Text inside quotes is never read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from heedful.data.scopes.phrases import (
    ARTICLES,
    SUBORDINATORS,
    Phrase,
    Token,
    is_effect_like,
    noun_phrase,
    recipients,
    tokenise,
)
from heedful.data.scopes.readings import (
    SIGNS,
    Reading,
    part,
    quoted_first,
    starts_effect,
    topic_named,
    unknown_phrase,
    without,
    work_on_texts,
)
from heedful.data.scopes.slots import section
from heedful.data.scopes.trim import trimmed, trimmed_domain, trimmed_effect
from heedful.errors import HeedfulError

_MODAL = re.compile(
    r"(?:(?P<not>(?:should|must|shall|can|may|do|does|need|ought)(?: not|n't|n’t)|cannot|can't|can’t|mustn't|mustn’t)"
    r"|(?:should|must|shall|will|need to|needs to|have to|has to|ought to|are to|is to|to))\s+",
    re.IGNORECASE,
)
_PREPOSITIONS = (
    "in",
    "on",
    "for",
    "to",
    "inside",
    "within",
    "about",
    "across",
    "throughout",
    "during",
    "regarding",
)
_PLACES = (
    "end",
    "start",
    "beginning",
    "top",
    "bottom",
    "close",
    "opening",
    "subject",
    "title",
    "line",
    "ends",
    "body",
)
_OBJECT_VERBS = frozenset(section("sentences", "object verbs").split())
_PRONOUN_VERBS = (
    "keep",
    "make",
    "limit",
    "cut",
    "restrict",
    "trim",
    "have",
    "shorten",
    "compress",
    "leave",
    "put",
    "render",
)
_ASKING = ("ask", "asks", "know", "check", "see", "wonder", "say", "tell", "me", "as", "and")
_NEGATIONS = ("never", "don't", "don’t", "do", "not", "always", "only", "please", "just", "usually")
EXAMPLE = "Always end emails to my manager with 'Onwards and upwards'"


def split_sentence(sentence: str) -> tuple[str, str]:
    """(domain, effect) of a sentence: `("emails to my manager", "end with 'Onwards and upwards'")`.

    Raises HeedfulError that says which of the two it could not infer, and the options that give it.
    """
    domain, effect = read_sentence(sentence)
    if domain and effect:
        return domain, effect
    if not sentence.strip():
        raise HeedfulError(f"the sentence is empty; write one such as {EXAMPLE!r}")
    if domain:
        raise HeedfulError(
            f"cannot tell from {sentence!r} what should change in {domain!r}: say it in the sentence, or give it with "
            "--effect \"end with 'Onwards and upwards'\"; --scope FILE takes both from a file"
        )
    domain_asked = (
        "when it applies: name in it the requests it is meant for ('in emails to my manager', 'when I ask for Python "
        'code\'), or give them with --domain "emails to my manager"'
    )
    if effect:
        raise HeedfulError(
            f"cannot tell from {sentence!r} {domain_asked}; --scope FILE takes both from a file"
        )
    raise HeedfulError(
        f"cannot tell from {sentence!r} what should change, nor {domain_asked}; give what should change with "
        "--effect \"end with 'Onwards and upwards'\"; --scope FILE takes both from a file"
    )


def read_sentence(sentence: str) -> tuple[str, str]:
    """(domain, effect) as `split_sentence`, with "" for what cannot be inferred."""
    text = trimmed(sentence)
    tokens = tokenise(text)
    readings = sorted(_readings(text, tokens), key=lambda reading: -reading.score)
    for reading in readings:
        effect = trimmed_effect(reading.effect)
        if effect:
            return trimmed_domain(reading.domain, text), effect
    if readings:
        return trimmed_domain(readings[0].domain, text), ""
    return "", trimmed_effect(text)


# ---- ways to take a sentence apart


def _readings(text: str, tokens: list[Token]) -> Iterator[Reading]:
    if tokens and _subordinator(tokens, 0):
        yield from _clause_first(text, tokens)
        return
    yield from _clause_later(text, tokens)
    yield from _after_preposition(text, tokens)
    yield from _as_object(text, tokens)
    yield from _as_subject(text, tokens)
    yield from work_on_texts(text, tokens)
    yield from quoted_first(text, tokens)
    yield from topic_named(text, tokens)
    yield from unknown_phrase(text, tokens)


def _subordinator(tokens: list[Token], i: int) -> int:
    """How many tokens at `i` open a clause that says when; 0 where none does."""
    for words in SUBORDINATORS:
        if [token.low for token in tokens[i : i + len(words)]] == list(words):
            asking = i and tokens[i - 1].low in _ASKING and words[0] in ("if", "when")
            return 0 if asking else len(words)
    return 0


def _clause_first(text: str, tokens: list[Token]) -> Iterator[Reading]:
    opened = _subordinator(tokens, 0)
    commas = [i for i in range(opened, len(tokens)) if tokens[i].text in (",", ":", "–", ";", "-")]
    ends = [i for i in commas if starts_effect(tokens, i + 1)] or commas[:1]
    if ends:
        yield Reading(120, part(text, tokens, opened, ends[0]), part(text, tokens, ends[0] + 1, len(tokens)))
        return
    for i in range(opened + 1, len(tokens)):
        if tokens[i].low == "then":
            yield Reading(115, part(text, tokens, opened, i), part(text, tokens, i + 1, len(tokens)))
            return
    for i in range(opened, len(tokens)):
        found = noun_phrase(tokens, i) or recipients(tokens, i)
        if found and starts_effect(tokens, found.end):
            yield Reading(
                110, part(text, tokens, opened, found.end), part(text, tokens, found.end, len(tokens))
            )
            return
    for i in range(opened + 2, len(tokens)):
        if starts_effect(tokens, i) and tokens[i - 1].low not in ("to", "i", "you", "we", "me"):
            yield Reading(70, part(text, tokens, opened, i), part(text, tokens, i, len(tokens)))
            return
    yield Reading(20, part(text, tokens, opened, len(tokens)), "")


def _clause_later(text: str, tokens: list[Token]) -> Iterator[Reading]:
    for i in range(1, len(tokens)):
        opened = _subordinator(tokens, i)
        if not opened:
            continue
        end = next(
            (
                j
                for j in range(i + opened, len(tokens))
                if tokens[j].text == "," and starts_effect(tokens, j + 1)
            ),
            len(tokens),
        )
        domain = part(text, tokens, i + opened, end)
        if domain:
            yield Reading(100, domain, without(text, tokens, i, end))
            return


def _phrases(tokens: list[Token]) -> list[Phrase]:
    """The longest phrase at each place that can name a domain, but none that begins with the sentence's verb."""
    verb = _verb(tokens)
    found = []
    for i in range(len(tokens)):
        phrase = noun_phrase(tokens, i)
        inside = any(earlier.start <= i < earlier.end for earlier in found)
        if phrase and not inside and not (i <= verb and noun_phrase(tokens, verb + 1)):
            found.append(phrase)
    return found


def _after_preposition(text: str, tokens: list[Token]) -> Iterator[Reading]:
    phrases = _phrases(tokens)
    for i, token in enumerate(tokens[:-1]):
        if any(phrase.start <= i < phrase.end for phrase in phrases):
            continue
        found = next((phrase for phrase in phrases if phrase.start == i + 1), None)
        placed = bool(i) and tokens[i - 1].low in _PLACES
        led = token.low in (*_PREPOSITIONS, "of")
        # `Answer in a poem` says how, `Use rhyme in a poem` says when.
        how = i and tokens[i - 1].low in (
            "answer",
            "reply",
            "respond",
            "write",
            "speak",
            "talk",
            "it",
            "them",
        )
        if found and led and not (how and found.one and not found.roles):
            domain, rest = part(text, tokens, found.start, found.end), without(text, tokens, i, found.end)
            # `paragraphs of essays` is not `the end of essays`, yet better than nothing.
            sure = 55 if token.low == "of" and not placed else 80
            yield Reading(sure + _bonus(found) + 5 * (i == 0), domain, rest)
        whom = recipients(tokens, i + 1) if token.low in ("to", "for", "with") else None
        if whom and whom.known and not placed:
            domain = f"messages to {part(text, tokens, i + 1, whom.end)}"
            yield Reading(50 + 15 * (i == 0), domain, without(text, tokens, i, whom.end))


def _verb(tokens: list[Token]) -> int:
    """Where the verb is whose object a domain may be; -1 where the sentence begins with none."""
    v = 0
    while v < len(tokens) and tokens[v].low in _NEGATIONS:
        v += 1
    return v if v < len(tokens) and tokens[v].low in _OBJECT_VERBS else -1


def _as_object(text: str, tokens: list[Token]) -> Iterator[Reading]:
    v = _verb(tokens)
    if v < 0:
        return
    start = v + 1
    while start < min(v + 3, len(tokens)) and tokens[start].low in ("to", "off", "up", "out"):
        start += 1
    found = noun_phrase(tokens, start)
    if not found:
        return
    verb = part(text, tokens, 0, v) + " write" if tokens[v].low == "tell" else part(text, tokens, 0, v + 1)
    if tokens[v + 1].low == "off":
        verb += " off"
    if tokens[v].low in _PRONOUN_VERBS:
        verb += " it"
    rest = part(text, tokens, found.end, len(tokens))
    # `Write poems` says nothing; `Shorten emails to my boss` does.
    complete = rest or tokens[v].low in ("shorten", "compress", "trim", "lengthen")
    # `Text messages to mum should end with xx` begins with a noun.
    score = 78 + _bonus(found) - 30 * bool(_MODAL.match(rest))
    yield Reading(score, part(text, tokens, found.start, found.end), f"{verb} {rest}" if complete else "")


def _as_subject(text: str, tokens: list[Token]) -> Iterator[Reading]:
    found = noun_phrase(tokens, 0)
    if not found:
        return
    domain = part(text, tokens, found.start, found.end)
    rest = text[tokens[found.end - 1].end :].strip(SIGNS)
    if not rest:
        # `Shorter emails to my landlord`: the adjective is the effect.
        if is_effect_like(tokens[0].low) and tokens[0].low not in ARTICLES and found.before:
            yield Reading(60, part(text, tokens, 1, found.end), f"make it {tokens[0].low}")
        else:
            yield Reading(90, domain, "")
        return
    modal = _MODAL.match(rest)
    if modal:
        rest = f"do not {rest[modal.end() :]}" if modal["not"] else rest[modal.end() :]
    yield Reading(76 + _bonus(found) + 5 * bool(modal), domain, rest)


def _bonus(found: Phrase) -> float:
    several = 10 if found.many else -25 if found.one else 0
    return several + 10 * found.special + 0.5 * (found.end - found.start)
