"""Prompts on a topic: in scope questions about it, near the same questions about others and other work with it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from heedful.data.scopes.domains import Asked
from heedful.data.scopes.nouns import LANGUAGES, TOPICS, kin
from heedful.data.scopes.slots import Draft, Grammar, Half, Item, lines, listed, put, singular
from heedful.data.scopes.style import Style, tail

_OWN = 0.35
"""The share of in-scope questions that only this topic allows; all of them where it has many."""
_ENOUGH = 8
"""Topics beside an unknown one that are near enough to do without stranger ones."""
_WORKED = 0.2
"""Where any mention of the topic is meant: the share of other work, such as a slogan about it."""


def topic_grammar(request: Asked, style: Style) -> Grammar:
    """The grammar for `questions about history`, `talking about finance books`, `questions about beekeeping`."""
    topic = request.topic
    pools: dict[str, Sequence[Item]] = {
        "frame": lines("topics", "frames"),
        "own frame": [Item(frame, "", "own") for frame in topic.frames] if topic else [],
        "subject": _subjects(request),
        "stranger": _strangers(request),
        "facet": [] if topic else _facets(request.name),
        "aside": lines("topics", "asides that write"),
        "passing": lines("topics", "asides in passing"),
    }
    return Grammar(
        name=f"{'questions about' if request.only_questions else 'talk of'} a topic ({request.name})",
        pools=pools,
        inside=lambda half: _inside(request, style, half),
        flip=lambda draft, half: _flip(request, draft, half),
        aside=lambda half: _aside(request, half),
        claims=_claims(request),
        note=""
        if topic
        else "no list knows this topic: its aspects are general ones, which may not all suit it",
    )


def _subjects(request: Asked) -> list[Item]:
    if request.topic:
        return [Item(subject) for subject in request.topic.subjects]
    return _facets(request.name)


def _facets(name: str) -> list[Item]:
    return [Item(item.text, "facet", name) for item in listed("topics", _section(name))]


def _section(name: str) -> str:
    """Which aspects suit a name: a thing (`the French Revolution`, `Mozart`) or a field (`beekeeping`)."""
    thing = name[:1].isupper() or re.match(r"(?:the|my|our|an?) ", name)
    return "facets of a thing" if thing and name not in LANGUAGES else "facets"


def _strangers(request: Asked) -> list[Item]:
    """Subjects next to the topic that are not part of it."""
    if request.topic:
        return [Item(subject, name) for name in request.topic.near for subject in TOPICS[name].subjects]
    if request.name in LANGUAGES:
        return [Item(name) for name in LANGUAGES if name != request.name]
    section = "strange things" if _section(request.name) == "facets of a thing" else "strangers"
    taken = {singular(word) for word in re.findall(r"\w{4,}", request.name.lower())}
    near = [Item(name, "kin") for name in kin(request.name)]
    near = near if len(near) >= _ENOUGH else near + listed("topics", section)
    return [
        item
        for item in near
        if not taken & {singular(word) for word in re.findall(r"\w{4,}", item.text.lower())}
    ]


def _said(request: Asked, subject: Item) -> str:
    return put(subject.text, it=request.name) if "{it}" in subject.text else subject.text


def _quoting(frame: str, said: str, name: str) -> str:
    """The frame with its subject; a title in a quoted sentence is quoted the other way."""
    return put(frame, x=said.replace('"', "'") if '"' in frame else said, it=name)


def _inside(request: Asked, style: Style, half: Half) -> Draft | None:
    subject = half.take("subject")
    worked = not request.only_questions and half.rng.random() < _WORKED
    frames = request.topic.frames if request.topic else ()
    own = not worked and half.rng.random() < (_OWN if len(frames) < 10 else 1) and bool(frames)
    pool = "aside" if worked else "own frame" if own else "frame"
    frame = half.take(pool)
    if subject is None or frame is None:
        return None
    said = _said(request, subject)
    after = "" if worked else tail("topics", style, half.rng)
    parts = {"frame": frame.text, "pool": pool, "facet": subject.text, "after": after}
    text = _quoting(frame.text, said, request.name) + after
    return Draft(text, request.name, frozenset({(pool, frame.text), ("subject", subject.text)}), parts)


def _flip(request: Asked, draft: Draft, half: Half) -> Draft | None:
    """The same question about something next to the topic."""
    parts = dict(draft.parts)
    stranger = half.take("stranger")
    frame = parts["frame"]
    if stranger is None:
        return None
    if parts["pool"] == "own frame" or parts["pool"] == "aside":
        # A question that suits this topic alone gives way to one that suits any.
        taken = half.take("frame")
        if taken is None:
            return None
        frame = taken.text
    other = put(parts["facet"], it=stranger.text) if "{it}" in parts["facet"] else stranger.text
    slots = frozenset({("frame", frame), ("stranger", stranger.text)})
    return Draft(
        put(frame, x=other) + parts["after"], stranger.group if request.topic else stranger.text, slots, parts
    )


def _aside(request: Asked, half: Half) -> Draft | None:
    """Work with the topic's words, no question about it; where any mention counts, with its neighbours' words."""
    pool = "aside" if half.rng.random() < 0.6 else "passing"
    frame = half.take(pool)
    subject = half.take("subject" if request.only_questions else "stranger")
    if frame is None or subject is None:
        return None
    if request.only_questions:
        said, name = _said(request, subject), request.name
    else:
        facet = half.take("facet") if not request.topic else None
        said = put(facet.text, it=subject.text) if facet else subject.text
        name = subject.group if request.topic else subject.text
    slot = "subject" if request.only_questions else "stranger"
    text = _quoting(frame.text, said, name)
    work = "short texts" if pool == "aside" else "work on sentences"
    return Draft(text, work, frozenset({(pool, frame.text), (slot, subject.text)}))


def _claims(request: Asked) -> Callable[[str], bool]:
    words = {singular(word) for word in re.findall(r"\w{4,}", request.name.lower())} or {request.name.lower()}
    own = re.compile(rf"\b(?:{'|'.join(sorted(map(re.escape, words)))})", re.IGNORECASE)
    cue = request.topic.cue if request.topic else own
    return lambda prompt: bool(own.search(prompt) or cue.search(prompt))
