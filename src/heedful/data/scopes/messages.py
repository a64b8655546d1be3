"""Prompts for messages: in scope with the sentence's channel and recipient, near with one of the two changed.

A near prompt keeps the topic and the wording of an in-scope prompt of its own set where it can, so that nothing but
the recipient or the channel tells them apart. The rest is other work with the same people and channels: advice,
reading, talk about the channel.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random

from heedful.data.scopes.domains import Message
from heedful.data.scopes.nouns import CHANNELS
from heedful.data.scopes.people import GROUPS, Recipient, addressed, others, spoken
from heedful.data.scopes.slots import (
    Draft,
    Grammar,
    Half,
    Item,
    article,
    columns,
    fill,
    gerund,
    grouped,
    lines,
    listed,
    plural,
    put,
    third_person,
)
from heedful.data.scopes.style import Style, hint

ANY_NOUN = ("email", "message", "letter", "note")
"""What a message is called where the sentence names no channel."""
_OCCASIONS = {
    "thank-you": "thank",
    "thank you": "thank",
    "apology": "apologise",
    "invitation": "invite",
    "reminder": "remind",
    "complaint": "complain",
    "congratulation": "congratulate",
    "congratulations": "congratulate",
}
"""Kinds of messages that are known by their first verb."""
_WORKING = ("work", "business", "professional", "office")
_PRIVATE = ("private", "personal", "family")
_WORK_POOLS = ("work", "trade")
_PRIVATE_POOLS = ("social", "home", "school")
_OPPOSITE = {
    "formal": ("informal", "chatty", "casual"),
    "informal": ("formal", "official"),
    "casual": ("formal", "official"),
}


def message_grammar(request: Message, style: Style) -> Grammar:
    """The grammar for `emails to my manager`, `DMs to Anna and Ben`, `texts`, `work emails`, `thank-you notes`."""
    readers = _readers(request)
    pools: dict[str, Sequence[Item]] = {
        "frame": lines("messages", "frames"),
        "topic": _topics(request),
        "reader": readers,
        "channel": _other_channels(request),
        "aside": [*lines("messages", "asides to a reader")]
        if request.recipients
        else lines("messages", "asides on a channel"),
        "channel aside": lines("messages", "asides on a channel"),
        "received": lines("messages", "received"),
        "thing": listed("messages", "other things"),
    }
    if request.before in (*_WORKING, *_PRIVATE):
        work = request.before in _WORKING
        apart = _PRIVATE_POOLS if work else _WORK_POOLS
        pools["other life"] = [
            replace(item, more=pool) for pool in apart for item in listed("messages", f"topics {pool}")
        ]
        pools["other reader"] = [item for item in readers if not _suits(request, item)]
        pools["reader"] = [item for item in readers if _suits(request, item)]
    name = " ".join(filter(None, (request.before, plural(request.noun) if request.noun else "messages")))
    whom = ", ".join(recipient.phrase for recipient in request.recipients)
    return Grammar(
        name=f"messages ({name}{f' to {whom}' if whom else ''})",
        pools=pools,
        inside=lambda half: _inside(request, style, half),
        flip=lambda draft, half: _flip(request, draft, half),
        aside=lambda half: _aside(request, half),
        claims=_claims(request),
    )


# ---- pools


def _topics(request: Message) -> list[Item]:
    if request.about:
        return [replace(item, group="about", more="any") for item in lines("messages", "about")]
    wanted = dict.fromkeys(pool for recipient in request.recipients for pool in recipient.pools)
    if request.before in _WORKING:
        wanted = dict.fromkeys(_WORK_POOLS)
    elif request.before in _PRIVATE:
        wanted = dict.fromkeys(("social", "people"))
    found = [
        replace(item, more=pool)
        for pool in wanted
        or ("any", "people", "work", "home", "social", "school", "service", "shopping", "civic")
        for item in listed("messages", f"topics {pool}")
    ]
    verb = _OCCASIONS.get(request.before.lower())
    if verb:
        # Topics of the occasion and others are split apart, so that both halves have both.
        found = [replace(item, group=f"{_occasion(item, verb)}: {item.group}") for item in found]
    return found


def _occasion(topic: Item, verb: str) -> str:
    return verb if topic.text.split()[0] == verb else "other"


def _readers(request: Message) -> list[Item]:
    return others(request.recipients)


def _other_channels(request: Message) -> list[Item]:
    if request.channel is None:
        return []
    closed = {request.channel.key, *request.channel.clash}
    return [
        Item(noun, "", (noun, join, send))
        for key, noun, join, send in columns("messages", "other channels")
        if key not in closed
    ]


# ---- prompts


def _inside(request: Message, style: Style, half: Half) -> Draft | None:
    verb = _OCCASIONS.get(request.before.lower())
    pools = {pool for recipient in request.recipients for pool in recipient.pools}
    to: str
    if request.recipients:
        recipient = half.rng.choice(request.recipients)
        pools, to = set(recipient.pools), spoken(recipient, half.rng)
        if len(request.recipients) > 1 and half.rng.random() < 0.2:
            first, second = half.rng.sample(request.recipients, 2)
            to = f"{first.phrase} and {second.phrase}"
            pools = set(first.pools) & set(second.pools)
    else:
        reader = half.take("reader", lambda item: _suits(request, item))
        if reader is None:
            return None
        pools, to = set(reader.more), reader.text
    topic = half.take("topic", lambda item: item.more in pools and (not verb or item.group.startswith(verb)))
    frame = half.take("frame")
    if topic is None or frame is None:
        return None
    noun, send = _called(request, half.rng)
    adjectives, after = hint("messages", style, half.rng)
    parts = {
        "frame": frame.text,
        "ask": fill(topic.text, {**grouped("messages", "values"), "it": [request.about]}, half.rng),
        "topic": topic.text,
        "pool": topic.more,
        "to": to,
        "noun": noun,
        "join": "to",
        "send": send,
        "adjectives": adjectives,
        "after": after,
    }
    return _draft(parts, topic.group.split(": ")[-1], ("frame", frame.text), ("topic", topic.text))


def _suits(request: Message, reader: Item) -> bool:
    if request.before in _WORKING:
        return bool({*_WORK_POOLS} & set(reader.more))
    return request.before not in _PRIVATE or "social" in reader.more


def _called(request: Message, rng: Random) -> tuple[str, str]:
    """(noun, how it is done) of an in-scope message."""
    if request.channel is None:
        noun = rng.choice(ANY_NOUN)
        return noun, CHANNELS[noun].send
    noun = request.noun
    if noun.lower() in ("text", "dm") and rng.random() < 0.3:
        noun = request.channel.nouns[0]
    named = request.before and request.before not in (*_WORKING, *_PRIVATE)
    if named or (request.before and rng.random() < 0.6):
        return f"{request.before} {noun}", f"send {{to}} {article(f'{request.before} {noun}')}"
    return noun, request.channel.send


def _draft(parts: Mapping[str, str], category: str, *slots: tuple[str, str]) -> Draft:
    noun, adjectives = parts["noun"], parts["adjectives"]
    ask = addressed(parts["ask"], parts["to"])
    # `a short, polite email to my manager`; a noun that begins with an adjective takes no second one of its kind.
    text = article(f"{adjectives} {noun}".strip())
    prompt = put(
        parts["frame"],
        msg=f"{text} {parts['join']} {parts['to']}",
        noun=noun,
        join=parts["join"],
        to=parts["to"],
        send=put(parts["send"], to=parts["to"]),
        ask=ask,
        asking=gerund(ask),
        asks=third_person(ask),
    )
    return Draft(prompt + parts["after"], category, frozenset(slots), parts)


def _flip(request: Message, draft: Draft, half: Half) -> Draft | None:
    """The same prompt for another reader or by another channel."""
    parts = dict(draft.parts)
    slots = [(name, parts[name]) for name in ("frame", "topic")]
    ways = _ways(request)
    way = ways[half.rng.randrange(len(ways))] if ways else ""
    if way == "channel":
        channel = half.take("channel")
        if channel is None:
            return None
        parts["noun"], parts["join"], parts["send"] = channel.more
        slots.append(("channel", channel.text))
    elif way == "reader":
        reader = half.take("reader", lambda item: parts["pool"] in item.more)
        if reader is None:
            return None
        parts["to"] = reader.text
        slots.append(("reader", reader.text))
    elif way == "thing":
        thing = half.take("thing")
        if thing is None:
            return None
        parts["ask"] = put(parts["topic"], it=thing.text)
        slots.append(("thing", thing.text))
    elif way == "opposite":
        other = half.rng.choice(_OPPOSITE[request.before.lower()])
        noun = parts["noun"].replace(request.before, other, 1)
        if noun == parts["noun"]:
            return None
        parts["noun"], parts["send"] = noun, f"send {{to}} {article(noun)}"
    elif way == "occasion":
        topic = half.take("topic", lambda item: item.group.startswith("other"))
        if topic is None or request.channel is None:
            return None
        parts["noun"], parts["send"] = request.noun, request.channel.send
        parts["ask"], parts["topic"] = fill(topic.text, grouped("messages", "values"), half.rng), topic.text
        slots = [("frame", parts["frame"]), ("topic", topic.text)]
    elif way == "other life":
        apart = _PRIVATE_POOLS if request.before in _WORKING else _WORK_POOLS
        topic = half.take("other life", lambda item: item.more in apart)
        reader = topic and half.take("other reader", lambda item: topic.more in item.more)
        if topic is None or reader is None or request.channel is None:
            return None
        parts["noun"], parts["send"], parts["to"] = request.noun, request.channel.send, reader.text
        parts["ask"], parts["topic"] = fill(topic.text, grouped("messages", "values"), half.rng), topic.text
        slots = [("frame", parts["frame"]), ("other life", topic.text), ("other reader", reader.text)]
    else:
        return None
    return _draft(parts, draft.category, *slots)


def _ways(request: Message) -> list[str]:
    """What may be flipped, the hardest of it more often."""
    found = []
    if request.recipients:
        found += ["reader"] * 3
    if request.channel is not None:
        found += ["channel"] * 2
    if request.about:
        found += ["thing"] * 2
    if request.before in (*_WORKING, *_PRIVATE):
        found += ["other life"] * 3
    if request.before.lower() in _OPPOSITE:
        found += ["opposite"] * 3
    if request.before.lower() in _OCCASIONS:
        found += ["occasion"] * 3
    return found


def _aside(request: Message, half: Half) -> Draft | None:
    on_channel = request.channel is not None and (not request.recipients or half.rng.random() < 0.25)
    frame = half.take("channel aside" if on_channel else "aside")
    topic = half.take(
        "topic", lambda item: not request.recipients or item.more in request.recipients[0].pools
    )
    received = half.take("received")
    if frame is None or topic is None or received is None:
        return None
    noun = request.noun or half.rng.choice(ANY_NOUN)
    if request.before and request.before not in (*_WORKING, *_PRIVATE):
        noun = f"{request.before} {noun}"
    other = half.take("channel")
    to = spoken(half.rng.choice(request.recipients), half.rng) if request.recipients else ""
    ask = fill(topic.text, {**grouped("messages", "values"), "it": [request.about]}, half.rng)
    prompt = put(
        frame.text,
        to=to,
        noun=noun,
        a_noun=article(noun),
        nouns=plural(noun),
        a_other=article(other.more[0] if other else "phone call"),
        text=received.text,
        ask=addressed(ask, to),
    )
    slots = [("channel aside" if on_channel else "aside", frame.text)]
    slots += [("topic", topic.text)] if "{ask}" in frame.text else []
    slots += [("received", received.text)] if "{text}" in frame.text else []
    category = topic.group.split(": ")[-1] if "{ask}" in frame.text else "other work"
    return Draft(prompt, category, frozenset(slots))


# ---- general prompts that may be in scope


def _claims(request: Message):
    nouns = (
        request.channel.nouns
        if request.channel
        else ("email", "message", "letter", "note", "text", "card", "write to")
    )
    channel = re.compile(rf"\b(?:{'|'.join(map(re.escape, nouns))})s?\b", re.IGNORECASE)
    if not request.recipients:
        return lambda prompt: bool(channel.search(prompt))
    people = re.compile(rf"\b(?:{'|'.join(_person_words(request.recipients))})s?\b", re.IGNORECASE)
    return lambda prompt: bool(people.search(prompt))


def _person_words(recipients: tuple[Recipient, ...]) -> list[str]:
    words = {word for recipient in recipients for word in (recipient.noun, *_group_nouns(recipient.group))}
    return sorted(re.escape(word) for word in words if word)


def _group_nouns(group: str) -> tuple[str, ...]:
    return GROUPS[group].nouns if group else ()
