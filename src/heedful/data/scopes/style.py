"""How long and in what tone a prompt asks its answer to be, so that a small model comes to an end in time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random

from heedful.data.scopes.slots import lines

_LENGTH = re.compile(
    r"\b(?:short\w*|brief\w*|concise\w*|long\w*|lengthy|length|limit\w*|tl;?dr|one-liner|terse|"
    r"(?:under|below|within|at most|fewer than|less than|more than|over|max\w*|exactly) \w+ (?:characters?|letters?)|"
    r"\w+ (?:words?|sentences?|lines?|characters?))\b",
    re.IGNORECASE,
)
_SHAPE = re.compile(
    r"\b(?:parts?|bullets?|lists?|headings?|headed|sections?|steps?|tables?|numbered|paragraphs?|json|yaml|items|points|"
    r"stanzas|columns)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Style:
    """What the effect leaves open: `length` may be asked for, and a count of sentences too (`count`)."""

    length: bool = True
    count: bool = True


def style_for(effect: str) -> Style:
    """What a prompt may ask for beside the effect: an effect on the length is not to be met already without it.

    Quoted text of the effect is not looked at.
    """
    plain = re.sub(r"'[^']*'|\"[^\"]*\"|“[^”]*”|‘[^’]*’", "", effect)
    shaped = bool(_SHAPE.search(plain))
    return Style(length=not _LENGTH.search(plain) or shaped, count=not shaped)


def hint(file: str, style: Style, rng: Random, tones: str = "tones") -> tuple[str, str]:
    """(adjectives before the noun, a sentence after the prompt), either may be "" but seldom both are."""
    tone = rng.choice(lines(file, tones)).text
    if not style.length:
        after = rng.choice([*lines(file, "longer"), None])
        return rng.choice((tone, "", "")), f" {after}" if after else ""
    adjectives = [item.text.replace("{tone}", tone) for item in lines(file, "terse")]
    sentences = [item.text for item in lines(file, "tails")]
    if not style.count:
        adjectives = [text for text in adjectives if "sentence" not in text]
        sentences = [text for text in sentences if not re.search("sentence|lines|words", text)]
    drawn = rng.random()
    if drawn < 0.5:
        return rng.choice(adjectives), ""
    if drawn < 0.88:
        return rng.choice((tone, "", "")), f" {rng.choice(sentences)}"
    return rng.choice((tone, "")), ""


def tail(file: str, style: Style, rng: Random) -> str:
    """A sentence after a question that asks for a short answer; "" at times, and always where length is the effect."""
    section = "longer" if not style.length else "hints" if style.count else "shapeless"
    return f" {rng.choice(lines(file, section))}" if rng.random() < 0.8 else ""
