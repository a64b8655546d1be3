"""Prompts with a text given: work on it (summaries, translations), and replies to texts that come in."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from heedful.data.scopes.domains import Incoming, Work
from heedful.data.scopes.nouns import DOING, INCOMING
from heedful.data.scopes.people import noun_group
from heedful.data.scopes.slots import Draft, Grammar, Half, Item, article, lines, listed, put
from heedful.data.scopes.style import Style

_RESULT = {
    "summary": "summary",
    "translation": "translation",
    "correction": "corrected text",
    "rewriting": "new version of a text",
}
_DONE = {
    "summary": "summing up texts",
    "translation": "translating",
    "correction": "proofreading",
    "rewriting": "rewriting texts",
}


def work_grammar(request: Work, style: Style) -> Grammar:
    """The grammar for `summaries`, `translations into Spanish`, `when I ask you to proofread`."""
    others = [
        Item(frame.text, task) for task in DOING if task != request.task for frame in lines("texts", task)
    ]
    languages = [item for item in listed("texts", "languages") if item.text != request.language]
    pools: dict[str, Sequence[Item]] = {
        "frame": lines("texts", request.task),
        "text": [Item(_ended(item.text), item.group) for item in listed("texts", "texts")],
        "language": languages,
        "other frame": others,
        "aside": lines("texts", "other work"),
        "talk": lines("texts", "talk about work on texts"),
    }
    into = f" into {request.language}" if request.language else ""
    return Grammar(
        name=f"work on a given text ({request.task}{into})",
        pools=pools,
        inside=lambda half: _worked(request, half),
        flip=lambda draft, half: _other_work(request, draft, half),
        aside=lambda half: _no_work(request, half),
        claims=_claims([word for word in DOING[request.task] if word != "edit"]),
    )


def _ended(text: str) -> str:
    return text if text[-1] in ".?!" else f"{text}."


def _worked(request: Work, half: Half) -> Draft | None:
    frame, text = half.take("frame"), half.take("text")
    language = request.language
    if frame is None or text is None:
        return None
    slots = {("frame", frame.text), ("text", text.text)}
    if "{language}" in frame.text and not language:
        drawn = half.take("language")
        language = drawn.text if drawn else "French"
    prompt = put(frame.text, text=text.text, language=language)
    return Draft(prompt, text.group, frozenset(slots), {"text": text.text, "frame": frame.text})


def _other_work(request: Work, draft: Draft, half: Half) -> Draft | None:
    """Other work on the same text; at times the same translation into another language."""
    text = draft.parts["text"]
    if request.language and half.rng.random() < 0.5:
        frame, slot = draft.parts["frame"], "frame"
    else:
        drawn = half.take("other frame")
        if drawn is None:
            return None
        frame, slot = drawn.text, "other frame"
    language = half.take("language") if "{language}" in frame else None
    if "{language}" in frame and language is None:
        return None
    prompt = put(frame, text=text, language=language.text if language else "")
    slots = {(slot, frame), ("text", text)} | ({("language", language.text)} if language else set())
    return Draft(prompt, draft.category, frozenset(slots), draft.parts)


def _no_work(request: Work, half: Half) -> Draft | None:
    talk = half.rng.random() < 0.25
    frame, text = half.take("talk" if talk else "aside"), half.take("text")
    if frame is None or text is None:
        return None
    prompt = put(
        frame.text, text=text.text, doing=_DONE[request.task], a_result=article(_RESULT[request.task])
    )
    slots = {("talk" if talk else "aside", frame.text)} | (set() if talk else {("text", text.text)})
    return Draft(prompt, "talk" if talk else text.group, frozenset(slots))


def incoming_grammar(request: Incoming, style: Style) -> Grammar:
    """The grammar for replies to `customer complaints`, `reviews`, `questions from guests`."""
    other = {
        "complaints": "questions",
        "questions": "complaints",
        "reviews": "requests",
        "requests": "reviews",
    }[request.sort]
    # A bad review is a complaint by its text.
    told = "complaints" if re.match("bad|negative|angry|poor|one-star", request.noun) else request.sort
    pools: dict[str, Sequence[Item]] = {
        "frame": lines("texts", "replies"),
        "text": [Item(_ended(item.text), item.group) for item in listed("texts", told)],
        "work": lines("texts", "other work on incoming texts"),
        "other": [Item(_ended(item.text), item.group, other) for item in listed("texts", other)],
    }
    return Grammar(
        name=f"replies to texts that come in ({request.noun})",
        pools=pools,
        inside=lambda half: _replied(request, half),
        flip=lambda draft, half: _worked_on(request, draft, half),
        aside=lambda half: _other_reply(request, half),
        claims=_claims(INCOMING[request.sort] if request.sort != "questions" else ("customer", "enquiry")),
    )


def _replied(request: Incoming, half: Half) -> Draft | None:
    frame, text = half.take("frame"), half.take("text")
    if frame is None or text is None:
        return None
    prompt = put(frame.text, what=request.noun, text=text.text)
    parts = {"text": text.text, "frame": frame.text}
    return Draft(prompt, text.group, frozenset({("frame", frame.text), ("text", text.text)}), parts)


def _worked_on(request: Incoming, draft: Draft, half: Half) -> Draft | None:
    """The same text, but no reply is asked for."""
    frame = half.take("work")
    if frame is None:
        return None
    prompt = put(frame.text, what=request.noun, text=draft.parts["text"])
    return Draft(
        prompt, "other work", frozenset({("work", frame.text), ("text", draft.parts["text"])}), draft.parts
    )


def _other_reply(request: Incoming, half: Half) -> Draft | None:
    """A reply to another sort of text, in the same words."""
    frame, other = half.take("frame"), half.take("other")
    if frame is None or other is None:
        return None
    sender = re.match(r"(.*?)\s*(?:complaint|review|question|enquiry|inquiry|request)\b", request.noun)
    sort = other.more.removesuffix("s")
    what = f"{sender[1] if sender and noun_group(sender[1]) else 'customer'} {sort}"
    prompt = put(frame.text, what=what, text=other.text)
    return Draft(prompt, f"{sort}s: {other.group}", frozenset({("frame", frame.text), ("other", other.text)}))


def _claims(words: Sequence[str]) -> Callable[[str], bool]:
    found = re.compile("|".join(rf"\b{re.escape(word)}" for word in words), re.IGNORECASE)
    return lambda prompt: bool(found.search(prompt))
