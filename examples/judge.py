"""A judge of your own: a plain Python function in TRL's reward signature.

    heedful prefer --model smollm2 --prompts examples/prompts.train.jsonl --judge examples/judge.py:concise

A judge is called with equally long lists of prompts and completions and returns one number for each
completion; higher is better, None means "no opinion". Further columns of the prompts file arrive as keyword
arguments.

Pay for what you want, never for one cheap sign of it. A judge that pays for shortness alone teaches the model
to answer "Bite." to everything. So this one starts from the content and takes the length off at the end.
"""

from __future__ import annotations

import re
from typing import Any

FLOOR = 18
"""An answer to an everyday question has at least this many words that were not in the question."""
FREE = 50
"""Words up to here cost nothing."""


def words(text: str) -> list[str]:
    """The lower-case words of a text."""
    return re.findall(r"[a-z']+", text.lower())


def plain(message: Any) -> str:
    """A prompt or completion as text: it comes as a string, or as a list of chat messages."""
    return message if isinstance(message, str) else "\n".join(part["content"] for part in message)


def concise(prompts: list[Any], completions: list[Any], **columns: Any) -> list[float | None]:
    """Score answers: on the subject, finished, not repetitive, and no longer than needed. About -4 to 2."""
    return [score(plain(p), plain(c)) for p, c in zip(prompts, completions, strict=True)]


def score(prompt: str, completion: str) -> float | None:
    """The score of one answer to one prompt."""
    said = words(completion)
    if not said:
        return -4.0
    new = [word for word in said if word not in set(words(prompt))]
    # Long words of the question stand for its subject: an answer to any other question rarely has them.
    asked = {word for word in words(prompt) if len(word) > 4}
    if not asked:
        return None
    on_subject = len(asked & set(said)) / len(asked)
    finished = 1.0 if completion.rstrip().endswith((".", "!", "?")) else 0.0
    fresh = len(set(said)) / len(said)
    # Dearer than all that shortness can save, or "Bite." wins; and repeating the question is no answer either.
    too_short = max(0, FLOOR - len(new)) / FLOOR
    too_long = max(0, len(said) - FREE) / FREE
    return 0.5 * on_subject + 0.5 * finished + fresh - 4.0 * too_short - min(2.0, too_long)
