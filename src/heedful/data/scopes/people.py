"""Whom messages go to: the kinds of people and offices that a sentence may name, and others to set against them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random

from heedful.data.scopes.slots import Item, article, columns, grouped, listed, singular

NAMES = grouped("people", "names")
"""First names for people whom no sentence names, by the pronoun that suits them."""
GENDERED = grouped("people", "gendered")


@dataclass(frozen=True)
class Recipient:
    """Whom a sentence names: the phrase as it stands, its group ("" for a name or an unknown one), its topics."""

    phrase: str
    group: str
    pools: tuple[str, ...]
    noun: str
    many: bool = False


@dataclass(frozen=True)
class Group:
    """A kind of recipient: its name, the topics that suit it, groups too near to it, the nouns for it."""

    name: str
    pools: tuple[str, ...]
    close: tuple[str, ...]
    nouns: tuple[str, ...]


def _group(name: str, pools: str, close: str, nouns: str) -> Group:
    return Group(
        name, tuple(pools.split()), tuple(close.split()), tuple(noun.strip() for noun in nouns.split(";"))
    )


GROUPS = {row[0]: _group(*row) for row in columns("people", "groups")}
_NOUNS = {noun: group.name for group in GROUPS.values() for noun in group.nouns}
_LONGEST_NOUN = max(len(noun.split()) for noun in _NOUNS)
_WHOSE = re.compile(
    r"(?:my|our|the|a|an|his|her|their|any|all|every|each|all my|all our|all the|one of my)\b", re.I
)
_COLLECTIVE = ("team", "family", "parents", "staff", "school", "council", "club", "hr", "it")


def noun_group(noun: str) -> str:
    """The group that a noun names, in the singular or plural; "" for an unknown one."""
    noun = noun.casefold()
    return _NOUNS.get(noun) or _NOUNS.get(singular(noun)) or ""


def person_at(words: list[str], start: int) -> int:
    """How many words from `start` name a person or an office; 0 where none does."""
    for count in range(min(_LONGEST_NOUN, len(words) - start), 0, -1):
        if noun_group(" ".join(words[start : start + count])):
            return count
    return 0


def read_recipients(text: str) -> tuple[Recipient, ...]:
    """The recipients in a list such as `my boss and my team` or `Anna, Ben and Carla`."""
    parts = [
        part.strip() for part in re.split(r",\s*(?:and|or|&)?\s*|\s+(?:and|or|&)\s+", text) if part.strip()
    ]
    return tuple(_recipient(part) for part in parts)


def _recipient(text: str) -> Recipient:
    whose = _WHOSE.match(text)
    bare = text[whose.end() :].strip() if whose else text
    words = [word for word in bare.split() if not (word[:1].isupper() and word.casefold() not in _NOUNS)]
    # `my friend's mother` is a mother, and `the council's housing office` is none that is known.
    group, noun = "", bare
    if "'s " not in bare and "’s " not in bare:
        for start in range(len(words)):
            count = person_at(words, start)
            if count:
                noun = " ".join(words[start : start + count])
                group = noun_group(noun)
                break
    if not group:
        named = not whose and bare[:1].isupper()
        return Recipient(bare if named else _mine(text, whose), "", ("any", "people", "social"), noun)
    many = group not in _COLLECTIVE and singular(noun) != noun and noun.casefold() not in ("boss", "in-laws")
    return Recipient(text if many else _mine(text, whose), group, GROUPS[group].pools, noun, many)


def _mine(text: str, whose: re.Match[str] | None) -> str:
    if not whose:
        # `Mum`, `HR` and `Professor Lee` stand alone, `boss` does not.
        return text if text[:1].isupper() else f"my {text}"
    # `any manager` and `every friend` are asked for one at a time.
    return re.sub(r"^(?:any|all|every|each|all my|all our|one of my)\b", "my", text, flags=re.I)


def pronoun(phrase: str) -> str:
    """`she` or `he` where a phrase such as `my aunt` says so, else `they`; in `my manager's mother` the mother does."""
    words = re.sub(r".*['’]s ", "", phrase).replace(",", "").split()
    for word, nouns in GENDERED.items():
        if any(name in nouns for name in words) and " and " not in phrase:
            return word
    return "they"


_PRONOUNS = {"she": ("she", "her", "her"), "he": ("he", "him", "his")}
_THIRD = {"want": "wants", "have": "has", "like": "likes"}


def addressed(text: str, phrase: str) -> str:
    """`thank them for their help` as said of somebody: `thank her for her help` for `my aunt`."""
    known = _PRONOUNS.get(pronoun(phrase))
    if known is None:
        return text
    text = re.sub(r"\bthey (want|have|like)\b", lambda found: f"they {_THIRD[found[1]]}", text)
    for old, new in zip(("they", "them", "their"), known, strict=True):
        text = re.sub(rf"\b{old}\b", new, text)
    return text


def spoken(recipient: Recipient, rng: Random) -> str:
    """The recipient as an in-scope prompt names them: mostly in the sentence's own words."""
    said = pronoun(recipient.noun)
    name = rng.choice(NAMES[said] if said in NAMES else NAMES["she"] + NAMES["he"])
    if recipient.many:
        one = singular(recipient.noun)
        group = recipient.phrase if _WHOSE.match(recipient.phrase) else f"our {recipient.phrase}"
        whose = re.match(r"(?:my|our)\b", group)
        of_mine = f"one of {group}" if whose else article(one)
        mine = f"my {one}" if whose and whose[0] == "my" else article(one)
        called = f"{mine} {name}" if mine.startswith("my ") else f"{mine} called {name}"
        return rng.choices([group, mine, called, of_mine], (3, 3, 3, 1))[0]
    person = recipient.group and "people" in recipient.pools and recipient.group not in _COLLECTIVE
    if person and recipient.phrase == f"my {recipient.noun}" and rng.random() < 0.15:
        return f"{recipient.phrase} {name}"
    return recipient.phrase


def others(recipients: tuple[Recipient, ...]) -> list[Item]:
    """Recipients whom nobody could take for one of these; names where the sentence gives names.

    An item's group is the topics that suit it, and `more` the same as a tuple.
    """
    own = {recipient.group for recipient in recipients}
    closed = own | {name for group in own if group for name in GROUPS[group].close}
    closed |= {name for name, group in GROUPS.items() if own & set(group.close)}
    taken = {word.casefold() for recipient in recipients for word in _content(recipient.noun)}
    found = []
    for item in listed("people", "others"):
        if item.group not in closed and not taken & {word.casefold() for word in _content(item.text)}:
            pools = GROUPS[item.group].pools
            found.append(Item(item.text, " ".join(pools), pools))
    if any(not recipient.group and recipient.phrase[:1].isupper() for recipient in recipients):
        # For a sentence about Anna and Ben, the nearest others are people with other names.
        names = [name for name in NAMES["she"] + NAMES["he"] if name.casefold() not in taken]
        found += [Item(name, "name", ("any", "people", "social", "work", "home")) for name in names[::2]]
    return found + [Item(phrase, "tricky", ("any", "people")) for phrase in _tricky(recipients)]


def _content(phrase: str) -> list[str]:
    return [
        singular(word)
        for word in re.findall(r"[\w-]+", phrase)
        if word.casefold() not in ("my", "the", "a", "our", "of", "mine")
    ]


def _tricky(recipients: tuple[Recipient, ...]) -> list[str]:
    """Other people whose names hold the recipient's: `my manager's assistant`, `my friend's manager`."""
    found = []
    for recipient in recipients:
        if not recipient.group and recipient.phrase[:1].isupper():
            found += [f"{recipient.phrase}'s {who}" for who in ("mother", "brother", "neighbour", "boss")]
        elif recipient.group and recipient.group not in _COLLECTIVE:
            noun = singular(recipient.noun)
            owned = ("assistant", "mother") if recipient.group == "boss" else ("mother", "neighbour")
            found += [f"my {noun}'s {who}" for who in owned]
            if recipient.group not in ("client", "friend"):
                found += [f"my cousin's {noun}", f"my neighbour's {noun}"]
    return found
