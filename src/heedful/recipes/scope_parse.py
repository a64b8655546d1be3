"""What a model wrote about a scope, read strictly: numbered lists, one prompt, three named parts, yes or no.

Nothing is guessed or repaired: an item that does not have the form is returned as unparsable, with the reason.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from heedful.data.scopes.slots import alike
from heedful.evals.texts import sentence_count, words
from heedful.policies.asking import CLOSE, OPEN, answer_block, clean, excerpt, one_line, parse_choice

LONGEST_PROMPT = 500
"""Characters; three long sentences have about 400."""
LONGEST_TOPIC = 80
LONGEST_CLAUSE = 500
MOST_LINES = 100
MOST_SENTENCES = 3
ALIKE = 0.8
"""Two prompts of a kind are the same when this share of their words is."""

Problem = Callable[[str], str]
"""What is wrong with an item, or "" for nothing."""

_ITEM = re.compile(r"\s*(\d{1,3})[.)]\s+(\S.*)")
_PAIRS = {'"': '"', "“": "”", "«": "»", "„": "“"}
_ABBREVIATION = re.compile(
    r"\b(?:e\.\s?g|i\.\s?e|a\.m|p\.m|mr|mrs|ms|dr|prof|vs|etc|no|st)\.(?=\s)", re.IGNORECASE
)
_BLANK = re.compile(
    r"\[[^\]\d]*\b(?:name|names|insert|your|date|topic|recipient|company|project|subject|title|link|text|place|"
    r"number|position|event)\b[^\]]*\]|<(?:insert|your|name)\b[^>]*>|_{3,}|\{\{",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"(?<!\w)(?:'(.+?)'|\"(.+?)\"|“(.+?)”|‘(.+?)’|«(.+?)»)(?!\w)")
_LITTLE = frozenset(("a", "an", "the", "please"))


class Parsed(NamedTuple):
    """The items of one reply, and `reason: excerpt` for each one that could not be used."""

    items: list[str]
    bad: list[str]


def parse_list(reply: str, problem: Problem) -> Parsed:
    """The items of a numbered list between the tags, one line each, numbers rising.

    Every other line, every item with a problem, and the reply as a whole where it has no such list, is one bad item.
    """
    block = answer_block(reply)
    if block is None:
        return Parsed([], [f"no list between {OPEN} and {CLOSE}: {excerpt(reply) or '(empty)'}"])
    items: list[str] = []
    bad: list[str] = []
    last = 0
    lines = [line for line in block.split("\n") if line.strip()]
    for line in lines[:MOST_LINES]:
        match = _ITEM.fullmatch(line)
        number = int(match[1]) if match else 0
        item = _unquoted(one_line(match[2])) if match else ""
        if not match:
            reason = "no numbered item"
        elif number <= last:
            reason = "its number does not follow"
        else:
            reason, last = problem(item), number
        if reason:
            bad.append(f"{reason}: {excerpt(line)}")
        else:
            items.append(item)
    if len(lines) > MOST_LINES:
        bad.append(f"{len(lines) - MOST_LINES} lines too many: {excerpt(lines[MOST_LINES])}")
    return Parsed(items, bad)


def parse_prompt(reply: str, problem: Problem) -> str | None:
    """The single prompt, on one line, between the tags; None for anything else."""
    block = answer_block(reply)
    if block is None or "\n" in block.strip():
        return None
    item = _unquoted(one_line(block))
    return None if problem(item) else item


def parse_yes_no(reply: str) -> bool | None:
    """Whether the answer between the tags is YES; None when it is neither YES nor NO."""
    said = parse_choice(reply, ("YES", "NO"))
    return None if said is None else said == "YES"


def parse_parts(reply: str, names: Sequence[str]) -> dict[str, str] | None:
    """The JSON object between the tags: exactly these keys, each once, each a short text. None for anything else."""
    block = answer_block(reply)
    if block is None:
        return None
    try:
        value = json.loads(block, object_pairs_hook=_no_key_twice)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or set(value) != set(names):
        return None
    if not all(isinstance(part, str) for part in value.values()):
        return None
    # a JSON string can spell characters that the reply itself was cleaned of
    parts = {name: one_line(value[name]) for name in names}
    good = all(words(part) and len(part) <= LONGEST_CLAUSE for part in parts.values())
    return parts if good else None


def topic_problem(topic: str) -> str:
    """What keeps a text from being a category."""
    if not words(topic):
        return "no words"
    if len(topic) > LONGEST_TOPIC:
        return f"a topic of over {LONGEST_TOPIC} characters"
    return "holds a tag" if OPEN in topic or CLOSE in topic else ""


def prompt_problem(effect: str = "") -> Problem:
    """What keeps a text from being a prompt: it must be 1 to 3 whole sentences without blanks to fill in.

    effect: phrases that the effect quotes would, in a prompt, ask for what has to come from the feedback.
    """
    spoilers = [
        phrase.casefold()
        for match in _QUOTED.finditer(effect)
        if len(words(phrase := next(group for group in match.groups() if group))) > 1
    ]

    def problem(prompt: str) -> str:
        if len(words(prompt)) < 3:
            return "fewer than three words"
        if len(prompt) > LONGEST_PROMPT:
            return f"over {LONGEST_PROMPT} characters"
        if sentence_count(_ABBREVIATION.sub(" ", prompt)) > MOST_SENTENCES:
            return f"over {MOST_SENTENCES} sentences"
        if OPEN in prompt or CLOSE in prompt:
            return "holds a tag"
        if _BLANK.search(prompt):
            return "a blank to fill in"
        if any(phrase in prompt.casefold() for phrase in spoilers):
            return "gives the effect away"
        return ""

    return problem


@dataclass
class Seen:
    """Texts taken so far, by kind. Two of one kind are the same when most of their words are; two of different kinds
    only when all are, in order: a near-scope prompt may well differ from an in-scope one by a single word."""

    exact: set[tuple[str, ...] | str] = field(default_factory=set)
    bags: dict[str, list[frozenset[str]]] = field(default_factory=dict)

    def take(self, kind: str, text: str) -> bool:
        """Whether the text is new; if so it is taken."""
        order = normalised(text)
        bag = frozenset(order)
        known = self.bags.setdefault(kind, [])
        # `alike` is what a scope file, read back, calls the same prompt
        if {order, alike(text)} & self.exact or any(
            len(bag & old) >= ALIKE * len(bag | old) for old in known
        ):
            return False
        self.exact |= {order, alike(text)}
        known.append(bag)
        return True

    def forget(self, kind: str, text: str) -> None:
        """Undo `take` of this text."""
        order = normalised(text)
        self.exact -= {order, alike(text)}
        self.bags[kind].remove(frozenset(order))


def normalised(text: str) -> tuple[str, ...]:
    """The words of a text in lower case, without articles and "please"; all of them where it has no others."""
    every = words(clean(text))
    return tuple(word for word in every if word not in _LITTLE) or tuple(every)


def _unquoted(item: str) -> str:
    """An item without the quotation marks that models like to put around a whole prompt."""
    if len(item) > 2 and _PAIRS.get(item[0]) == item[-1]:
        inner = item[1:-1].strip()
        if item[0] not in inner and item[-1] not in inner:
            return inner
    return item


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key twice")
    return dict(pairs)
