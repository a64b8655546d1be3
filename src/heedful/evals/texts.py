"""Measurements of one text: words, sentences, repetition, overlap with another text, echo of the question."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from heedful.errors import HeedfulError

Answers = Sequence[str] | Sequence[Sequence[str]]  # one answer, or a list of samples, per prompt
VERY_SHORT = 8  # words; an everyday question is rarely answered in fewer

# A CJK character or kana counts as one word: those scripts put no spaces between words.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+(?:['\-]\w+)*")
_END = re.compile(r"[!?。！？…]+|[.](?!\w)")  # the point of "3.5" ends nothing
_LAST = re.compile(r"[.!?。！？…][\"'”’»)\]}*_`]*$")
_STOP = frozenset(
    re.findall(
        r"\S+",
        """
        a about above after again all also am an and any are as at be because been before being below
        between both but by can could did do does doing don't down during each few for from further had
        has have having he her here hers him his how i i'm if in into is it it's its itself just let's may
        me might more most must my no nor not now of off on once only or other our out over own same she
        should so some such than that that's the their them then there there's these they this those
        through to too under until up us very was we were what when where which while who whom why will
        with would you you're your yours
        """,
    )
)


def words(text: str) -> list[str]:
    """The words of a text in lower case; "don't" and "well-known" are one word each, punctuation is none."""
    return _WORD.findall(text.lower().replace("’", "'"))


def content_words(text: str) -> list[str]:
    """Words that carry meaning: English function words and single letters are left out, numbers are kept."""
    return [w for w in words(text) if w not in _STOP and (len(w) > 1 or not w.isascii() or w.isdigit())]


def sentence_count(text: str) -> int:
    """Number of sentences: stretches with at least one word, up to `.`, `!`, `?` or the end of the text."""
    return sum(bool(words(part)) for part in _END.split(text))


def ends_in_sentence(text: str) -> bool:
    """Whether the text ends in `.`, `!` or `?` (or their CJK forms); closing quotes and markup may follow."""
    return _LAST.search(text.rstrip()) is not None


def repetition(text: str) -> float:
    """Share of word trigrams that occurred earlier in the text; 0 for texts of fewer than four words."""
    w = words(text)
    trigrams = list(zip(w, w[1:], w[2:]))
    return 1 - len(set(trigrams)) / len(trigrams) if trigrams else 0.0


def overlap(text: str, start: str) -> float:
    """Recall of the start model's content words: the share that `text` still has. NaN if `start` has none."""
    wanted = set(content_words(start))
    return len(wanted & set(content_words(text))) / len(wanted) if wanted else math.nan


def question_echo(prompt: Any, text: str) -> float:
    """Share of the answer's content words that the question already had. NaN without content words.

    Some echo is natural; an answer made of the question alone is the cheapest way to please a judge of
    relevance.
    """
    given = set(content_words(prompt_text(prompt)))
    answer = content_words(text)
    return sum(w in given for w in answer) / len(answer) if answer else math.nan


def measure(text: str, *, prompt: Any = None, start: str | None = None) -> dict[str, float]:
    """Every measurement of one answer; `prompt` adds question_echo and `start` adds overlap."""
    count = len(words(text))
    result = {
        "words": float(count),
        "sentences": float(sentence_count(text)),
        "ends_in_sentence": float(ends_in_sentence(text)),
        "repetition": repetition(text),
        "very_short": float(count < VERY_SHORT),
    }
    if prompt is not None:
        result["question_echo"] = question_echo(prompt, text)
    if start is not None:
        result["overlap"] = overlap(text, start)
    return result


def prompt_text(prompt: Any) -> str:
    """The question as text: a string is itself, of a list of messages it is the last one of the user."""
    if isinstance(prompt, str):
        return prompt
    try:
        asked = [m for m in prompt if m["role"] == "user"] or prompt
        return str(asked[-1]["content"])
    except (TypeError, KeyError, IndexError) as error:
        raise HeedfulError(
            f'a prompt must be text or a list of {{"role", "content"}} messages: {prompt!r:.80}'
        ) from error


TEXT_MEASURES: dict[str, Callable[[str], float]] = {
    "words": lambda t: float(len(words(t))),
    "sentences": lambda t: float(sentence_count(t)),
    "very_short": lambda t: float(len(words(t)) < VERY_SHORT),
    "ends_in_sentence": lambda t: float(ends_in_sentence(t)),
    "repetition": repetition,
}


def answer_lists(answers: Any, name: str) -> list[list[str]]:
    """The samples of each prompt, from one text or a list of texts per prompt. Raises HeedfulError."""
    if isinstance(answers, str):
        raise HeedfulError(f"{name} must be a list with one entry per prompt, not one text")
    rows = []
    for i, entry in enumerate(answers):
        row = [str(t) for t in entry] if isinstance(entry, (list, tuple)) else [str(entry)]
        if not row:
            raise HeedfulError(f"{name}[{i}] has no answer")
        rows.append(row)
    return rows


def paired_answers(
    before: Any, after: Any, prompts: Sequence[Any] | None
) -> tuple[list[list[str]], list[list[str]]]:
    """`answer_lists` of both sides, checked to answer the same number of prompts. Raises HeedfulError."""
    befores, afters = answer_lists(before, "before"), answer_lists(after, "after")
    if len(befores) != len(afters):
        raise HeedfulError(
            f"before answers {len(befores)} prompts and after answers {len(afters)}; they must be the same"
        )
    if prompts is not None and len(prompts) != len(befores):
        raise HeedfulError(f"there are {len(prompts)} prompts but answers to {len(befores)}")
    if not befores:
        raise HeedfulError("there are no answers to compare: the held-out set is empty")
    return befores, afters


def overlaps(starts: list[list[str]], texts: list[list[str]], same: bool = False) -> list[list[float]]:
    """Every text against every start answer to the same prompt; `same` leaves out a text against itself."""
    return [
        [overlap(t, s) for i, s in enumerate(start) for j, t in enumerate(text) if not (same and i == j)]
        or [math.nan]
        for start, text in zip(starts, texts)
    ]
