"""Which language a text is written in, well enough for a profile of a data set: by script, and by stop words.

A text with few stop words of any known language is "other"; code, lists and single words are.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache

import numpy as np

LOOKED_AT = 300
"""Characters of a text that are looked at."""
LEAST = 0.08
"""Share of stop words from which a text counts as written in a language; lists of names have fewer."""
SCRIPTS = {
    "CJK": "chinese",
    "HIRAGANA": "japanese",
    "KATAKANA": "japanese",
    "HANGUL": "korean",
    "CYRILLIC": "cyrillic script",
    "ARABIC": "arabic script",
    "HEBREW": "hebrew",
    "DEVANAGARI": "devanagari script",
    "GREEK": "greek",
    "THAI": "thai",
}


def languages() -> list[str]:
    """All names that `language` can give, in a fixed order."""
    from heedful.judges.effect_languages import STOP_WORDS

    return [*STOP_WORDS, *dict.fromkeys(SCRIPTS.values()), "other"]


def language(text: str) -> str:
    """The language of a text's beginning, or its script where that is all that can be told; "other" for the rest."""
    from heedful.judges.effect_languages import STOP_WORDS

    text = text[:LOOKED_AT].lower()
    if not text.isascii():
        found = _script(text)
        if found:
            return found
    words = text.split()
    index, counts = _index(), dict.fromkeys(STOP_WORDS, 0)
    for word in words:
        for name in index.get(word.strip(".,;:!?\"'()"), ()):
            counts[name] += 1
    # English last in the table and first in doubt: it is what most of these data sets are in.
    best = max(counts, key=lambda name: (counts[name], name == "english"))
    return best if words and counts[best] >= LEAST * len(words) else "other"


@cache
def _index() -> dict[str, tuple[str, ...]]:
    """The languages of each stop word."""
    from heedful.judges.effect_languages import STOP_WORDS

    return {
        word: tuple(name for name, stop in STOP_WORDS.items() if word in stop)
        for word in set().union(*STOP_WORDS.values())
    }


def _script(text: str) -> str:
    """The script of most letters, where it is not the Latin one; kana decide for Japanese."""
    counts: dict[str, int] = {}
    letters = 0
    for char in text:
        if char.isalpha():
            letters += 1
            if not char.isascii():
                script = SCRIPTS.get(unicodedata.name(char, "").split(" ")[0].split("-")[0])
                if script:
                    counts[script] = counts.get(script, 0) + 1
    if 2 * sum(counts.values()) < letters or not counts:
        return ""
    if counts.get("japanese", 0) > 0.1 * letters:
        return "japanese"
    return max(counts, key=lambda script: counts[script])


def profile(codes: Sequence[int]) -> dict[str, float]:
    """Shares of the languages, the most frequent first, from places in `languages()`."""
    names = languages()
    counts = np.bincount(np.asarray(codes, np.int64), minlength=len(names))
    order = np.argsort(-counts, kind="stable")
    return {names[i]: float(counts[i] / max(1, len(codes))) for i in order.tolist() if counts[i]}
