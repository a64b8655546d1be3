"""Prompts from slots: pools of phrases split into a training and a held-out half, and drawn evenly.

A grammar says which pools it has and how a prompt is put together; `draw` makes the sets. No phrase of a pool is in
both halves, so that a held-out prompt has another topic, another wording and, near the scope, another recipient than
every training prompt.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

HELD = 1 / 3
"""The share of each pool that only dev and test prompts are made from."""
FLIPPED = 0.7
"""The share of near prompts that are an in-scope prompt of the same set with one attribute changed."""
PATIENCE = 400
"""Draws in a row that bring nothing new, before a set is left short."""


@dataclass(frozen=True)
class Item:
    """A phrase of a pool with what is known of it: the group it is split and counted under, and free attributes."""

    text: str
    group: str = ""
    more: Any = None

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Draft:
    """A prompt, the category it belongs to, the phrases it is made of, and the parts that a flip may change."""

    text: str
    category: str
    slots: frozenset[tuple[str, str]]
    parts: Mapping[str, Any] = field(default_factory=dict)


class Half:
    """One half of every pool, drawn like cards: each phrase once before any comes again."""

    def __init__(self, pools: Mapping[str, Sequence[Item]], rng: Random) -> None:
        self.pools = pools
        self.rng = rng
        self._left: dict[str, list[Item]] = {}

    def take(self, pool: str, fits: Callable[[Item], bool] = lambda item: True) -> Item | None:
        """The next phrase of a pool that fits; None when none of the pool does."""
        for _ in range(2):
            left = self._left.setdefault(pool, [])
            found = next((i for i, item in enumerate(left) if fits(item)), None)
            if found is not None:
                return left.pop(found)
            # What is left over comes last, so that a phrase that seldom fits does not wait for ever.
            fresh = list(self.pools.get(pool, ()))
            self.rng.shuffle(fresh)
            self._left[pool] = fresh
        return None


@dataclass(frozen=True)
class Grammar:
    """How prompts of one domain are made.

    `inside` draws an in-scope prompt; `flip` changes one attribute of it so that it is out of scope; `aside` draws
    another near prompt. Each may give None when its draw does not fit. `claims` says whether a general prompt may
    be in scope, which then is left out.
    """

    name: str
    pools: Mapping[str, Sequence[Item]]
    inside: Callable[[Half], Draft | None]
    flip: Callable[[Draft, Half], Draft | None]
    aside: Callable[[Half], Draft | None]
    claims: Callable[[str], bool]
    note: str = ""


@dataclass(frozen=True)
class Wanted:
    """How many prompts of a set: in scope and near."""

    part: str
    inside: int
    near: int


def halves(items: Sequence[Item], rng: Random) -> tuple[list[Item], list[Item]]:
    """(training, held-out) items, each group of them split by `HELD`; one item alone is for training."""
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(item.group, []).append(item)
    train: list[Item] = []
    held: list[Item] = []
    # Small groups would all round the same way; what is owed is carried on to the next group.
    owed = 0.0
    for group in groups.values():
        rng.shuffle(group)
        owed += len(group) * HELD
        count = min(round(owed), len(group) - 1)
        owed -= count
        held += group[:count]
        train += group[count:]
    return train, held


def draw(grammar: Grammar, wanted: Sequence[Wanted], rng: Random) -> dict[str, dict[str, list[Draft]]]:
    """For each part ("train", "dev", ...) the "in" and "near" drafts, no text twice; fewer where it runs out.

    Every part but "train" is made from the held-out half of the pools.
    """
    split = {name: halves(items, rng) for name, items in grammar.pools.items()}
    sides = [Half({name: pair[i] for name, pair in split.items()}, rng) for i in (0, 1)]
    seen: set[str] = set()
    made: dict[str, dict[str, list[Draft]]] = {}
    for want in wanted:
        half = sides[want.part != "train"]
        inside = _distinct(lambda _, half=half: grammar.inside(half), want.inside, seen)
        # An equal share of the drafts starts each flip, in another order each round.
        flips = _distinct(
            lambda i, half=half, inside=inside: (
                grammar.flip(inside[i % len(inside)], half) if inside else None
            ),
            round(FLIPPED * want.near),
            seen,
        )
        asides = _distinct(lambda _, half=half: grammar.aside(half), want.near - len(flips), seen)
        short = want.near - len(flips) - len(asides)
        if short and inside:
            more = lambda i, half=half, inside=inside: grammar.flip(inside[i % len(inside)], half)  # noqa: E731
            flips += _distinct(more, short, seen)
        near = flips + asides
        rng.shuffle(near)
        made[want.part] = {"in": inside, "near": near}
    return made


def _distinct(make: Callable[[int], Draft | None], count: int, seen: set[str]) -> list[Draft]:
    found: list[Draft] = []
    draws = misses = 0
    while len(found) < count and misses < PATIENCE:
        draft = make(draws)
        draws += 1
        misses += 1
        if draft is not None and alike(draft.text) not in seen:
            seen.add(alike(draft.text))
            found.append(draft)
            misses = 0
    return found


def alike(text: str) -> str:
    """What two prompts that are the same to a reader share: words without case, spaces and punctuation."""
    return " ".join(re.findall(r"[\w&#+]+", text.casefold()))


# ---- lists of phrases, in words/*.txt


@cache
def section(file: str, name: str) -> str:
    """The part below `== name` of a word list that ships with the package; lines from `#` on are left out."""
    text = (Path(__file__).parent / "words" / f"{file}.txt").read_text(encoding="utf-8")
    parts = re.split(r"^== (.+)\n", text, flags=re.MULTILINE)
    found = dict(zip(parts[1::2], parts[2::2], strict=True))[name]
    return "\n".join(line for line in found.splitlines() if line.strip() and not line.startswith("# "))


def listed(file: str, name: str) -> list[Item]:
    """Items of a section with lines `group = phrase; phrase; ...`; other lines go on with the group above."""
    items: list[Item] = []
    group = ""
    for line in section(file, name).splitlines():
        start = re.match(r"(\S[^=;]*?) = ", line)
        if start:
            group = start[1]
            line = line[start.end() :]
        items += [Item(part.strip(), group) for part in line.split(";") if part.strip()]
    return items


@cache
def grouped(file: str, name: str) -> dict[str, list[str]]:
    """The phrases of a section by their group."""
    found: dict[str, list[str]] = {}
    for item in listed(file, name):
        found.setdefault(item.group, []).append(item.text)
    return found


@cache
def _lines(file: str, name: str) -> tuple[Item, ...]:
    return tuple(Item(line.strip()) for line in section(file, name).splitlines())


def lines(file: str, name: str) -> list[Item]:
    """One item for each line of a section."""
    return list(_lines(file, name))


def columns(file: str, name: str) -> list[list[str]]:
    """The parts between `|` of each line of a section; an indented line goes on with the one above."""
    joined = re.sub(r"\n +", " ", section(file, name))
    return [[part.strip() for part in line.split("|")] for line in joined.splitlines()]


# ---- English

_SILENT = re.compile(r"(?:hour|honest|heir|[AEFHILMNORSX](?:[A-Z]{0,3}s?)?\b(?!'))")
_YOU = re.compile(r"(?:u(?:ni(?!n|m)|s[ae]|til|k\b|topia)|eu|one\b|once)", re.IGNORECASE)


def article(phrase: str) -> str:
    """`phrase` with its indefinite article: an email, a useful note, an SMS, a uniform."""
    vowel = phrase[:1].lower() in "aeiou" and not _YOU.match(phrase)
    return f"{'an' if vowel or _SILENT.match(phrase) else 'a'} {phrase}"


def capital(text: str) -> str:
    """`text` with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def plural(noun: str) -> str:
    """The plural of a noun by the usual rules; a noun that looks like one already stays as it is."""
    irregular = {"person": "people", "child": "children", "woman": "women", "man": "men"}
    stem, space, last = noun.rpartition(" ")
    if last in irregular:
        return f"{stem}{space}{irregular[last]}"
    if last in _SAME[:-1] or singular(noun) != noun:
        return noun
    if re.search(r"[^aeiou]y$", last):
        return noun[:-1] + "ies"
    return noun + ("es" if re.search(r"(?:s|x|z|ch|sh)$", last) else "s")


_SAME = (
    "news",
    "maths",
    "mathematics",
    "physics",
    "economics",
    "politics",
    "series",
    "lyrics",
    "sports",
    "movies",
    "boss",
)
_SINGULAR = {
    "people": "person",
    "children": "child",
    "haikus": "haiku",
    "menus": "menu",
    "cookies": "cookie",
    "men": "man",
}


def singular(noun: str) -> str:
    """The singular of a plural by the usual rules, or the noun itself when it does not look like one."""
    stem, space, last = noun.rpartition(" ")
    if last.casefold() in _SINGULAR:
        return f"{stem}{space}{_SINGULAR[last.casefold()]}"
    if last.casefold() in _SAME:
        return noun
    if re.search(r"[^aeiou]ies$", last) and len(last) > 5:
        return noun[:-3] + "y"
    if re.search(r"(?:ss|sh|ch|x|zz)es$", last):
        return noun[:-2]
    return noun[:-1] if re.search(r"[^s'’iu]s$", last) else noun


_DOUBLED = (
    "sum",
    "let",
    "set",
    "put",
    "get",
    "plan",
    "cancel",
    "swap",
    "chat",
    "split",
    "run",
    "stop",
    "flip",
    "zip",
)


def gerund(phrase: str) -> str:
    """`ask for a day off` as `asking for a day off`."""
    verb, space, rest = phrase.partition(" ")
    if verb in _DOUBLED:
        verb += verb[-1]
    return f"{verb[:-1] if re.search('[^eo]e$', verb) else verb}ing{space}{rest}"


def third_person(phrase: str) -> str:
    """`ask for a day off` as `asks for a day off`."""
    verb, space, rest = phrase.partition(" ")
    if re.search(r"[^aeiou]y$", verb):
        verb = f"{verb[:-1]}ie"
    return f"{verb}{'es' if re.search('(?:s|sh|ch|x|z)$', verb) else 's'}{space}{rest}"


_FILL = re.compile(r"\{(\w+)\}")


def fill(text: str, values: Mapping[str, Sequence[str]], rng: Random) -> str:
    """`text` with each `{name}` drawn from its values; a name that comes twice gets two different ones."""
    used: dict[str, list[str]] = {}

    def choose(match: re.Match[str]) -> str:
        name = match[1]
        left = [value for value in values[name] if value not in used.get(name, ())]
        used.setdefault(name, []).append(rng.choice(left))
        return used[name][-1]

    return _FILL.sub(choose, text)


def put(frame: str, **parts: str) -> str:
    """`frame` with its `{names}` replaced; a name in capitals (`{Msg}`) gets a capital letter.

    Inserted texts are never read for names themselves, so a brace in them stays a brace.
    """

    def part(match: re.Match[str]) -> str:
        name = match[1]
        return parts[name] if name in parts else capital(parts[name[:1].lower() + name[1:]])

    return _FILL.sub(part, frame)
