"""Prompts for kinds of texts: in scope the sentence's kind on many subjects, near other kinds on the same subjects."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from heedful.data.scopes.domains import Writing
from heedful.data.scopes.nouns import KINDS, TOPICS, Kind, find_topic
from heedful.data.scopes.slots import (
    Draft,
    Grammar,
    Half,
    Item,
    article,
    lines,
    listed,
    plural,
    put,
    singular,
)
from heedful.data.scopes.style import Style, hint

_GUESS = Kind(("text",), "creative", "about", "guess")
"""What a kind of text that no list knows is taken for."""
_LOOSE = (
    "post",
    "list",
    "text",
    "plan",
    "note",
    "letter",
    "question",
    "story",
    "point",
    "title",
    "description",
)
"""Last words of kinds that say too little alone."""
_ARTFUL = ("creative", "posts", "occasions")


def writing_grammar(request: Writing, style: Style) -> Grammar:
    """The grammar for `poems`, `recipes`, `LinkedIn posts`, `cover letters`, `bedtime stories for my daughter`."""
    kinds = request.kinds or (_GUESS,)
    pool = kinds[0].pool
    families = {kind.family for kind in kinds}
    nouns = {noun.lower() for noun in request.nouns}
    near = [
        Item(kind.names[0], "", kind)
        for kind in KINDS
        if kind.pool == pool and kind.family not in families and kind.names[0].lower() not in nouns
    ]
    if pool in ("creative", "works"):
        near = [
            item
            for item in near
            if not (families & {"verse", "song"} and item.more.family in ("verse", "song"))
        ]
    pools: dict[str, Sequence[Item]] = {
        "frame": lines("writing", "frames"),
        "subject": _subjects(request, pool),
        "kind": near,
        "talk": lines("writing", "talk"),
        "other subject": listed("writing", f"subjects {pool}") if request.about else [],
        "audience": lines("writing", "audiences") if request.audience else [],
    }
    about = f" about {request.about}" if request.about else ""
    audience = f" for {request.audience}" if request.audience else ""
    return Grammar(
        name=f"texts ({', '.join(map(plural, request.nouns))}{about}{audience})",
        pools=pools,
        inside=lambda half: _inside(request, kinds, style, half),
        flip=lambda draft, half: _flip(request, draft, half),
        aside=lambda half: _aside(request, kinds, half),
        claims=_claims(request),
        note="no list knows this kind of text: general subjects, which may not all suit it"
        if request.guessed
        else "",
    )


def _subjects(request: Writing, pool: str) -> list[Item]:
    if not request.about:
        return listed("writing", f"subjects {pool}")
    topic = find_topic(request.about)
    if topic:
        return [Item(subject, topic.name) for subject in topic.subjects]
    return [Item(put(item.text, it=request.about), "about") for item in listed("writing", "around")]


def _inside(request: Writing, kinds: Sequence[Kind], style: Style, half: Half) -> Draft | None:
    which = half.rng.randrange(len(request.nouns))
    kind = kinds[min(which, len(kinds) - 1)]
    noun = request.nouns[which]
    mass = kind.mass and noun == kind.names[0]
    frame = half.take("frame", lambda item: _suits(item.text, mass, request.audience))
    subject = half.take("subject")
    if frame is None or subject is None:
        return None
    adjectives, after = hint("writing", style, half.rng, "tones" if kind.pool in _ARTFUL else "tones plain")
    parts = {
        "frame": frame.text,
        "subject": subject.text,
        "noun": noun,
        "join": "about" if request.about else kind.join,
        "mass": mass,
        "adjectives": adjectives,
        "audience": request.audience,
        "after": after,
    }
    return _draft(parts, subject.group or "subjects", ("frame", frame.text), ("subject", subject.text))


def _suits(frame: str, mass: bool, audience: str) -> bool:
    """Whether a frame goes with a noun in the plural, and with an audience that the sentence names."""
    return not (mass and re.search("Write (?:one|it)", frame)) and not (
        audience and re.search("[Ff]or (?:a|me)", frame)
    )


def _draft(parts: Mapping[str, str | bool], category: str, *slots: tuple[str, str]) -> Draft:
    noun, adjectives = str(parts["noun"]), str(parts["adjectives"])
    if re.match(r"short|quick|brief", noun):
        adjectives = re.sub(
            r"^(?:very )?(?:short|brief|quick)(?:,| and)? ?|(?:,| and) short$", "", adjectives
        )
    phrase = f"{adjectives} {noun}".strip()
    phrase = phrase if parts["mass"] else article(phrase)
    audience = f" for {parts['audience']}" if parts["audience"] else ""
    prompt = put(str(parts["frame"]), np=f"{phrase} {parts['join']} {parts['subject']}{audience}")
    return Draft(prompt + str(parts["after"]), category, frozenset(slots), parts)


def _flip(request: Writing, draft: Draft, half: Half) -> Draft | None:
    """The same prompt for another kind of text, another subject where one is given, or another audience."""
    parts = dict(draft.parts)
    slots = [("frame", parts["frame"]), ("subject", parts["subject"])]
    ways = ["kind"] * 2 + ["about"] * 2 * bool(request.about) + ["audience"] * 2 * bool(request.audience)
    way = half.rng.choice(ways)
    if way == "kind":
        other = half.take("kind", lambda item: _suits(parts["frame"], item.more.mass, ""))
        if other is None:
            return None
        join = "about" if request.about else other.more.join
        parts.update(noun=other.text, join=join, mass=other.more.mass)
        slots.append(("kind", other.text))
    elif way == "about":
        subject = half.take("other subject", lambda item: not _shares(item.text, request.about))
        if subject is None:
            return None
        parts["subject"] = subject.text
        slots[1] = ("other subject", subject.text)
    else:
        audience = half.take("audience", lambda item: not _shares(item.text, request.audience))
        if audience is None:
            return None
        parts["audience"] = audience.text
        slots.append(("audience", audience.text))
    category = str(parts["noun"]) if request.about else draft.category
    return _draft(parts, category, *slots)


def _shares(text: str, other: str) -> bool:
    """Whether two phrases share a word of four letters or more."""
    first, second = ({singular(w) for w in re.findall(r"\w{4,}", part.lower())} for part in (text, other))
    return bool(first & second)


def _aside(request: Writing, kinds: Sequence[Kind], half: Half) -> Draft | None:
    frame, other, subject = half.take("talk"), half.take("kind"), half.take("subject")
    if frame is None or other is None or subject is None:
        return None
    which = half.rng.randrange(len(request.nouns))
    kind, noun = kinds[min(which, len(kinds) - 1)], request.nouns[which]
    one, a, many = _forms(noun, kind.mass and noun == kind.names[0])
    another = other.text if other.more.mass else article(other.text)
    join = "about" if request.about else kind.join
    text = put(frame.text, a=a, many=many, one=one, another=another, join=join, it=subject.text)
    slots = {("talk", frame.text)} | ({("subject", subject.text)} if "{it}" in frame.text else set())
    return Draft(text, subject.group if "{it}" in frame.text else f"talk about {many}", frozenset(slots))


def _forms(noun: str, mass: bool) -> tuple[str, str, str]:
    """(one, with its article, several) of a kind of text."""
    return (noun, noun, noun) if mass else (noun, article(noun), plural(noun))


def _claims(request: Writing) -> Callable[[str], bool]:
    families = {kind.family for kind in request.kinds}
    akin = [kind for kind in KINDS if kind.family in families and kind.pool == request.kinds[0].pool]
    names = {name for kind in akin for name in kind.names} | set(request.nouns)
    head = {
        name.split()[-1]
        for name in names
        if len(name.split()) > 1 and request.kinds and len(request.kinds) == 1
    }
    known = names | {name for name in head if name not in _LOOSE}
    kind = re.compile(
        rf"\b(?:{'|'.join(sorted(map(re.escape, {f for n in known for f in (n, plural(n))})))})\b",
        re.IGNORECASE,
    )
    if request.kinds and request.kinds[0].pool == "food":
        cook = TOPICS["cooking"].cue
        return lambda prompt: bool(kind.search(prompt) or cook.search(prompt))
    return lambda prompt: bool(kind.search(prompt))
