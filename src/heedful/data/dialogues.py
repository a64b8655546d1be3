"""Prompts that are hidden in texts: dialogues in the style of HH, and texts that begin alike."""

from __future__ import annotations

import re
from typing import Any

_TURN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")
_SPEAKER = {"Human": "user", "Assistant": "assistant"}
# Scripts that put no spaces between words, and their punctuation: Thai to Khmer, Chinese, Japanese.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]"
)


def hh_turns(text: str) -> list[dict[str, Any]] | None:
    """The messages of a dialogue in the style of HH; None for any other text. A message may be empty."""
    if "\n\nAssistant:" not in text or not text.lstrip().startswith("Human:"):
        return None
    _, *parts = _TURN.split(text)
    return [{"role": _SPEAKER[who], "content": said.strip()} for who, said in zip(parts[::2], parts[1::2])]


def shared_beginning(a: str, b: str) -> int:
    """How much of two texts is their prompt: all that they share, up to a place between two words.

    Something is left over of both. A space at the end goes to the answers, as in TRL; unlike there, no word is cut.
    0 when there is no such place.
    """
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if a.startswith(b[low:middle], low) else (low, middle - 1)
    cut = min(low, len(a.rstrip()) - 1, len(b.rstrip()) - 1)
    while cut > 0 and not (_between_words(a, cut) and _between_words(b, cut)):
        cut -= 1
    return max(0, cut - 1 if cut > 0 and a[cut - 1] == " " else cut)


def _between_words(text: str, cut: int) -> bool:
    before, after = text[cut - 1], text[cut]
    return before.isspace() or after.isspace() or bool(_UNSPACED.match(before) or _UNSPACED.match(after))
