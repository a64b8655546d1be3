"""A generated world of linked things, with passages about them and questions that need two to four of those.

People, towns, rivers, firms, films and more, each with a passage of a few sentences that says, in one of many ways,
what it is linked to. Six things share a name ("Marlow", "Marlow (river)", "Ada Marlow", "Marlow College", ...), some
have another name under which others speak of them, and some people are even called the same. A question names the first
thing alone: "How long is the river on which the birthplace of the director of the film ... lies?"

Everything is a pure function of (seed, number): passage 712,345 of a world of a million is made without the others.
Things are on one of three sides, and links stay on a side, so no gold passage of a test question is one of a training
question. The passages of all sides are one corpus.

Source: the generated analogue of HoVer (LeReT, arXiv 2410.23214); names and sentences are our own.
"""

from __future__ import annotations

import bisect
import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any, Literal, NamedTuple, cast, get_args

from heedful.data.hops import Question
from heedful.data.hops import words as words
from heedful.data.hops.texts import KINDS
from heedful.data.passages import Passage
from heedful.errors import HeedfulError

Side = Literal["train", "dev", "test"]
Form = Literal["question", "claim"]

NAMESAKES: tuple[tuple[str, ...], ...] = (
    ("town", "river", "person", "person", "firm", "film"),
    ("town", "region", "person", "college", "novel", "museum"),
    ("person", "person", "firm", "film", "college", "town"),
    ("river", "region", "person", "novel", "museum", "film"),
)
"""Four names and the things that bear each; this block is repeated. The two people of the first are called the same."""
BLOCK = tuple((name, kind) for name, kinds in enumerate(NAMESAKES) for kind in kinds)
PLACES = {kind: tuple(i for i, (_, k) in enumerate(BLOCK) if k == kind) for kind in KINDS}
TWINS = (2, 3)
"""Places in a block of the two people with one name."""
ALIAS_SHARE, FILLER_SHARE = 60, 30
"""Percent of things with another name, and of passages with a sentence that says nothing."""
SUPPORTED, NOT_SUPPORTED = "SUPPORTED", "NOT_SUPPORTED"

_ONSETS = words.listed("b br d dr f g gr h k kl l m n p pr r s st t tr v w z")
_VOWELS = words.listed("a e i o u")
_MIDDLES = words.listed("b d f g k l m n p r s t v z ld lm nd rb rk rt")
_ENDS = words.listed(
    "n nd rn l lk m r rt th sk x st nt rd lm ka ro na vik gard holm mont dun wick stad mor fell burg ton ford"
)
_RADIX = (len(_ONSETS) * len(_VOWELS), len(_MIDDLES) * len(_VOWELS), len(_ENDS))
MOST = math.prod(_RADIX) // len(NAMESAKES) * len(BLOCK)


class Draw:
    """Whole numbers that are a function of what they are for alone."""

    def __init__(self, *key: int | str) -> None:
        self._key = " ".join(map(str, key)).encode()
        self._bytes, self._round = b"", 0

    def below(self, n: int) -> int:
        """The next number, 0 to n - 1."""
        if len(self._bytes) < 4:
            self._bytes = hashlib.blake2b(self._key, digest_size=64, salt=bytes([self._round])).digest()
            self._round += 1
        value, self._bytes = int.from_bytes(self._bytes[:4], "little"), self._bytes[4:]
        return value % n

    def of(self, items: Sequence[Any]) -> Any:
        """One of the items."""
        return items[self.below(len(items))]


class Thing(NamedTuple):
    """A thing of the world. said: how others speak of it; profession: of a person, of a firm what it makes."""

    number: int
    kind: str
    title: str
    name: str
    alias: str
    profession: str
    said: str


@dataclass(frozen=True)
class Path:
    """A question without its first thing: kinds on the way, the links between them, the value that is asked for."""

    kinds: tuple[str, ...]
    links: tuple[str, ...]
    value: str


class World:
    """A world of so many things, one passage each; a sequence of passages. `question` makes its questions.

    entities: rounded up to whole blocks of 24, at least ten of them. hops: lengths of questions, taken in turn.
    Raises HeedfulError for more things than there are names, and for hops other than 2 to 4.
    """

    def __init__(self, seed: int = 0, entities: int = 5000, hops: Sequence[int] = (2, 3, 4)) -> None:
        if not 1 <= entities <= MOST:
            raise HeedfulError(f"a world has from 1 to {MOST:,} things, not {entities:,}")
        if not hops or not set(hops) <= {2, 3, 4}:
            raise HeedfulError(
                f"a question needs 2, 3 or 4 passages, not {', '.join(map(str, hops)) or 'none'}"
            )
        self.seed, self.hops = seed, tuple(hops)
        self.blocks = max(10, -(-entities // len(BLOCK)))
        self._thing = lru_cache(maxsize=65_536)(self._make_thing)
        self._paths = {h: _paths(h) for h in self.hops}

    def __len__(self) -> int:
        return self.blocks * len(BLOCK)

    def __getitem__(self, i: int) -> Passage:
        """Passage `i`."""
        if not 0 <= i < len(self):
            raise IndexError(i)
        return Passage(f"w{i}", self.thing(i).title, self.text(i))

    def __iter__(self) -> Iterator[Passage]:
        return (self[i] for i in range(len(self)))

    # ---- things

    def thing(self, i: int) -> Thing:
        """Thing `i`."""
        return self._thing(i)

    def _make_thing(self, i: int) -> Thing:
        block, place = divmod(i, len(BLOCK))
        group, kind = BLOCK[place]
        word = _word(self._mixed(block * len(NAMESAKES) + group))
        draw = Draw(self.seed, "thing", i)
        twin = place in TWINS
        shared = Draw(self.seed, "twins", block) if twin else draw
        first = shared.below(len(words.FIRST_NAMES))
        work = shared.below(len(words.PROFESSIONS))
        nick = shared.below(len(words.NICKNAMES))
        if place == TWINS[1]:
            work, nick = (work + 5) % len(words.PROFESSIONS), (nick + 5) % len(words.NICKNAMES)
        if kind == "person" and group == 2 and BLOCK[place - 1][1] == "person":
            # the second of two people with one surname, who share neither first name nor nickname
            other = Draw(self.seed, "thing", i - 1)
            first = _another(first, other.below(len(words.FIRST_NAMES)), len(words.FIRST_NAMES))
            other.below(len(words.PROFESSIONS))
            nick = _another(nick, other.below(len(words.NICKNAMES)), len(words.NICKNAMES))
        profession = words.PROFESSIONS[work] if kind == "person" else ""
        title = name = word
        if kind == "person":
            title = name = f"{words.FIRST_NAMES[first]} {word}"
            title = f"{name} ({profession})" if twin else name
            alias = f"{words.NICKNAMES[nick]} {word}"
        elif kind in ("town", "river", "region"):
            title = word if kind == "town" else f"{word} ({kind})"
            name = f"the {word}" if kind == "river" else word
            alias = {
                "town": draw.of((f"Port {word}", f"Upper {word}", f"{word} Cross")),
                "river": draw.of((f"the Black {word}", f"the Little {word}", f"the Grey {word}")),
                "region": draw.of((f"the {word} Marches", f"the {word} Vale", f"the Land of {word}")),
            }[kind]
        elif kind == "firm":
            made = draw.of(tuple(words.FIRM_WORDS))
            title = name = f"{word} {made}"
            profession = words.FIRM_WORDS[made]
            alias = draw.of((f"{word} and Daughters", f"the House of {word}", f"{word} Brothers"))
        elif kind == "film":
            title = name = f"The {draw.of(words.FILM_NOUNS)} of {word}"
            alias = f"{draw.of(('Dust', 'Snow', 'Smoke', 'Rain'))} over {word}"
        elif kind == "novel":
            title = name = f"A {draw.of(words.NOVEL_NOUNS)} in {word}"
            alias = f"{draw.of(('Notes', 'Ashes', 'Letters', 'Tales'))} from {word}"
        elif kind == "college":
            title = name = f"{word} College"
            alias = draw.of((f"the {word} Hall", f"the School of {word}"))
        else:
            title = name = f"{word} Museum"
            alias = draw.of((f"the {word} Rooms", f"the {word} Cabinet"))
        known = draw.below(100) < ALIAS_SHARE
        said = alias if known and draw.below(2) else name
        said = f"the {profession} {said}" if twin else said
        return Thing(i, kind, title, name, alias if known else "", profession, said)

    def _mixed(self, name: int) -> int:
        """A one-to-one mapping of name numbers, so that neighbours do not sound alike."""
        whole = math.prod(_RADIX)
        return (name * _step(whole) + Draw(self.seed, "names").below(2**31)) % whole

    def links(self, i: int) -> dict[str, int]:
        """What thing `i` is linked to, by the name of the link."""
        block, side = i // len(BLOCK), _side(i // len(BLOCK))
        draw = Draw(self.seed, "links", i)
        return {
            name: self.member(link.to, side, draw.below(self.members(link.to, side)))
            for name, link in KINDS[BLOCK[i - block * len(BLOCK)][1]].links.items()
        }

    def values(self, i: int) -> dict[str, str]:
        """The values of thing `i`, by name."""
        draw = Draw(self.seed, "values", i)
        return {name: _drawn(value, draw) for name, value in KINDS[self.thing(i).kind].values.items()}

    def members(self, kind: str, side: Side) -> int:
        """How many things of a kind are on a side."""
        return len(PLACES[kind]) * _blocks(self.blocks, side)

    def member(self, kind: str, side: Side, j: int) -> int:
        """The number of the j-th of them."""
        block, place = divmod(j, len(PLACES[kind]))
        return _block(side, block) * len(BLOCK) + PLACES[kind][place]

    def text(self, i: int) -> str:
        """The text of passage `i`: what the thing is, then everything that is known of it, in some order."""
        thing, kind, draw = self.thing(i), KINDS[self.thing(i).kind], Draw(self.seed, "text", i)
        noun = draw.of(kind.nouns).replace("{p}", thing.profession)
        adjective = draw.of(kind.adjectives)
        article = "an" if adjective[0] in "aeiou" else "a"
        opening = f"{_capital(thing.name)} {draw.of(('is', 'was'))} {article} {adjective} {noun}."
        links, values = self.links(i), self.values(i)
        facts = [
            draw.of(link.said).replace("{x}", self.thing(links[name]).said)
            for name, link in kind.links.items()
        ]
        facts += [draw.of(value.said).replace("{v}", values[name]) for name, value in kind.values.items()]
        if thing.alias:
            facts.append(draw.of(kind.also).replace("{a}", thing.alias))
        if draw.below(100) < FILLER_SHARE:
            facts.append(draw.of(words.FILLERS))
        ordered = [facts.pop(draw.below(len(facts))) for _ in range(len(facts))]
        return " ".join([opening, *map(_capital, ordered)])

    # ---- questions

    def question_count(self, side: Side) -> int:
        """How many different questions a side has."""
        sizes = [sum(self.members(p.kinds[0], side) for p in self._paths[h]) for h in self.hops]
        return min(sizes) * len(self.hops)

    def chain(self, side: Side, i: int) -> tuple[Path, list[int]]:
        """The path of question `i` of a side and the numbers of the things on it, which are its gold passages.

        Raises IndexError beyond the last question.
        """
        if side not in get_args(Side) or not 0 <= i < self.question_count(side):
            raise IndexError(f"{side} {i}: there are {self.question_count(side):,} questions")
        turn, place = divmod(i, len(self.hops))
        paths = self._paths[self.hops[place]]
        ends = list(accumulate(self.members(path.kinds[0], side) for path in paths))
        at = (turn * _step(ends[-1]) + Draw(self.seed, side, self.hops[place]).below(ends[-1])) % ends[-1]
        which = bisect.bisect_right(ends, at)
        path = paths[which]
        things = [self.member(path.kinds[0], side, at - (ends[which - 1] if which else 0))]
        for link in path.links:
            things.append(self.links(things[-1])[link])
        return path, things

    def question(self, side: Side, i: int, form: Form = "question") -> Question:
        """Question `i` of a side. form "claim": a statement that is right or, in half of them, has another value."""
        path, things = self.chain(side, i)
        draw = Draw(self.seed, side, "question", i)
        first = self.thing(things[0])
        called = first.alias if first.alias and draw.below(4) == 0 else first.name
        subject = (
            f"the {first.profession if first.kind == 'person' else KINDS[first.kind].word} {_bare(called)}"
        )
        for kind, link in zip(path.kinds, path.links, strict=False):
            subject = draw.of(KINDS[kind].links[link].asked).replace("{s}", subject)
        value, truth = KINDS[path.kinds[-1]].values[path.value], self.values(things[-1])[path.value]
        if form == "question":
            asked, answer = draw.of(value.asked).replace("{s}", subject), truth
        else:
            right = draw.below(2) == 0
            told = truth if right else next(v for _ in iter(int, 1) if (v := _drawn(value, draw)) != truth)
            asked = _capital(draw.of(value.told).replace("{s}", subject).replace("{v}", told))
            answer = SUPPORTED if right else NOT_SUPPORTED
        titles = tuple(self.thing(t).title for t in things)
        return Question(f"{side}-{i}", asked, titles, (answer,), len(things), f"{len(things)} hops")

    def questions(self, side: Side, count: int, form: Form = "question") -> list[Question]:
        """The first `count` questions of a side. Raises HeedfulError when there are not so many."""
        if count > self.question_count(side):
            raise HeedfulError(
                f"a world of {len(self):,} things has {self.question_count(side):,} {side} questions, not "
                f"{count:,}; make it larger"
            )
        return [self.question(side, i, form) for i in range(count)]

    def read(self, question: Question, titles: Sequence[str]) -> str:
        """What a perfect reader answers from the passages of these titles: the value at the end of the chain where the
        passage of every thing on it is there, else "unknown". Raises HeedfulError for a question of another world."""
        side, _, number = question.id.partition("-")
        if side not in get_args(Side) or not number.isdecimal():
            raise HeedfulError(f"{question.id!r} is no question of a generated world")
        path, things = self.chain(cast(Side, side), int(number))
        if not {self.thing(t).title for t in things} <= set(titles):
            return "unknown"
        truth = self.values(things[-1])[path.value]
        if question.answers and question.answers[0] in (SUPPORTED, NOT_SUPPORTED):
            return SUPPORTED if truth in question.question.rstrip(".").split() else NOT_SUPPORTED
        return truth


def _paths(hops: int) -> list[Path]:
    """All ways through so many things, no kind twice, so that no thing comes twice either."""
    found = [((kind,), ()) for kind in KINDS]
    for _ in range(hops - 1):
        found = [
            ((*kinds, link.to), (*links, name))
            for kinds, links in found
            for name, link in KINDS[kinds[-1]].links.items()
            if link.to not in kinds
        ]
    return [Path(kinds, links, value) for kinds, links in found for value in KINDS[kinds[-1]].values]


def _step(whole: int) -> int:
    """A step that visits every number below `whole` before it repeats one, far from its neighbours."""
    step = max(1, round(whole * 0.6180339887))
    while math.gcd(step, whole) != 1:
        step += 1
    return step


def _side(block: int) -> Side:
    return "test" if block % 10 == 0 else "dev" if block % 10 == 1 else "train"


def _blocks(blocks: int, side: Side) -> int:
    tens, rest = divmod(blocks, 10)
    return {"test": tens + (rest > 0), "dev": tens + (rest > 1), "train": 8 * tens + max(0, rest - 2)}[side]


def _block(side: Side, n: int) -> int:
    if side == "train":
        return n // 8 * 10 + 2 + n % 8
    return n * 10 + (side == "dev")


def _word(number: int) -> str:
    number, end = divmod(number, _RADIX[2])
    first, middle = divmod(number, _RADIX[1])
    parts = [
        _ONSETS[first // len(_VOWELS)],
        _VOWELS[first % len(_VOWELS)],
        _MIDDLES[middle // len(_VOWELS)],
        _VOWELS[middle % len(_VOWELS)],
        _ENDS[end],
    ]
    return "".join(parts).capitalize()


def _another(drawn: int, taken: int, whole: int) -> int:
    """A number below `whole` that is not `taken`, from one that was drawn."""
    return (taken + 1 + drawn % (whole - 1)) % whole


def _drawn(value: words.Value, draw: Draw) -> str:
    if value.words:
        return draw.of(value.words)
    low, high = value.numbers
    return str(low + draw.below(high - low + 1))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _bare(name: str) -> str:
    return name.removeprefix("the ")
