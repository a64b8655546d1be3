"""Rarer ways to take a sentence of feedback apart, and what all of them share."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from heedful.data.scopes.nouns import find_topic, kin
from heedful.data.scopes.phrases import STARTERS, Token, is_effect_like, noun_phrase, tokenise, topic_end

HOW = ("answer", "reply", "respond", "write", "speak", "talk", "it", "them")
"""Words after which `in` mostly says how."""
SIGNS = " ,;:-–>="
"""What stands between a domain and an effect and belongs to neither."""


@dataclass(frozen=True)
class Reading:
    """A way to take a sentence apart, and how likely it is."""

    score: float
    domain: str
    effect: str


def part(text: str, tokens: list[Token], start: int, end: int) -> str:
    """The text of the tokens from `start` to `end`."""
    return text[tokens[start].start : tokens[end - 1].end] if start < end else ""


def without(text: str, tokens: list[Token], start: int, end: int) -> str:
    """The text without the tokens from `start` to `end`."""
    before = text[: tokens[start].start].strip(SIGNS) if start < len(tokens) else text
    after = text[tokens[end].start :].strip(SIGNS) if end < len(tokens) else ""
    return " ".join(part for part in (before, after) if part)


def starts_effect(tokens: list[Token], i: int) -> bool:
    """Whether an effect may begin at token `i`: with a verb, `always`, `no`, a quoted text."""
    return i < len(tokens) and (tokens[i].quoted or tokens[i].low in STARTERS)


_WORK = re.compile(
    r"(?:always |please |only )?(?P<work>summari[sz]e|translate|proofread|paraphrase)\b"
    r"(?P<what>(?: (?!in\b|with\b|as\b|using\b|to\b|into\b|without\b)[\w-]+){0,3})"
    r"(?P<into> (?:in)?to [A-Z]\w+)? (?=(?:in|with|as|using|without|within|by)\b)",
    re.IGNORECASE,
)


def work_on_texts(text: str, tokens: list[Token]) -> Iterator[Reading]:
    """`Summarise articles in three bullet points`, `Translate into German without accents`."""
    found = _WORK.match(text)
    after = tokenise(text[found.end() :]) if found else []
    if found and not noun_phrase(after, 1):
        domain = f"{found['work']}{found['what']}{found['into'] or ''}"
        yield Reading(125, domain[:1].lower() + domain[1:], f"write {text[found.end() :]}")


_ENDS = ("close", "end", "finish", "conclude", "open", "start", "begin")


def quoted_first(text: str, tokens: list[Token]) -> Iterator[Reading]:
    """`'Onwards' should close every email to my manager`."""
    if not tokens or not tokens[0].quoted:
        return
    for i in range(1, len(tokens)):
        found = noun_phrase(tokens, i)
        if found:
            verb = next((token.low for token in tokens[1:i] if token.low in _ENDS), "")
            effect = f"{verb} with {tokens[0].text}" if verb else f"include {tokens[0].text}"
            yield Reading(105, part(text, tokens, found.start, found.end), effect)
            return


def topic_named(text: str, tokens: list[Token]) -> Iterator[Reading]:
    """`Explain things about space with an analogy`, `History: three headed parts`."""
    for i, token in enumerate(tokens[:-1]):
        end = topic_end(tokens, i + 1) if token.low in ("about", "regarding", "concerning") else 0
        name = part(text, tokens, i + 1, end) if end else ""
        if name and (find_topic(name) or kin(name)):
            yield Reading(60, f"{token.low} {name}", without(text, tokens, i, end))
    head, colon, rest = text.partition(":")
    if colon and find_topic(head):
        yield Reading(60, head, rest)


_LEADS = ("in", "on", "for", "about", "at", "during", "with", "regarding", "concerning")


def unknown_phrase(text: str, tokens: list[Token]) -> Iterator[Reading]:
    """Phrases whose noun no list knows: `in sermons`, `For wedding vows, ...`, `about my allotment`."""
    if tokens and tokens[0].low in _LEADS:
        ends = [
            i for i in range(2, len(tokens)) if tokens[i].text in (",", ":") and starts_effect(tokens, i + 1)
        ]
        ends = ends or [i for i in range(2, len(tokens)) if starts_effect(tokens, i) and not tokens[i].quoted]
        if ends and not is_effect_like(part(text, tokens, 1, ends[0])):
            yield Reading(40, part(text, tokens, 1, ends[0]), text[tokens[ends[0]].start :])
    for i in range(len(tokens) - 1, 0, -1):
        if tokens[i].low in ("in", "on", "about", "for", "during") and i + 1 < len(tokens):
            end = next(
                (j for j in range(i + 1, len(tokens)) if tokens[j].text in ",;:" or tokens[j].quoted),
                len(tokens),
            )
            phrase = part(text, tokens, i + 1, end)
            # `Answer in a poem` says how, not when.
            how = tokens[i].low == "in" and tokens[i - 1].low in HOW
            if phrase and end == len(tokens) and not how and not is_effect_like(phrase):
                yield Reading(30, phrase, without(text, tokens, i, end))
                return
