"""Kinds of things of the generated world of `hops.world`, and the words their names are made of."""

from __future__ import annotations

from dataclasses import dataclass


def listed(text: str) -> tuple[str, ...]:
    """The words of a text."""
    return tuple(text.split())


@dataclass(frozen=True)
class Link:
    """A link to a thing of kind `to`. said: sentences of a passage; asked: noun phrases about `{s}`."""

    to: str
    said: tuple[str, ...]
    asked: tuple[str, ...]


@dataclass(frozen=True)
class Value:
    """A value: a whole number between `numbers` (both included), or one of `words`. told: claims about `{s}`."""

    said: tuple[str, ...]
    asked: tuple[str, ...]
    told: tuple[str, ...]
    numbers: tuple[int, int] = (0, 0)
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kind:
    """A kind of thing. word: what a question calls it; nouns: what its passage calls it; adjectives: how it is."""

    word: str
    nouns: tuple[str, ...]
    adjectives: tuple[str, ...]
    links: dict[str, Link]
    values: dict[str, Value]
    also: tuple[str, ...] = (
        "It is also known as {a}.",
        "Some call it {a}.",
        "Older papers have it as {a}.",
        "Another name for it is {a}.",
    )


PROFESSIONS = listed(
    "chemist painter sculptor botanist jurist cellist engraver surveyor astronomer dentist baker "
    "weaver pilot translator geologist typographer"
)
FIRST_NAMES = listed(
    "Ada Bruno Clara Dario Edith Felix Greta Hugo Irma Jonas Kaja Leon Mira Nils Olga Pavel Rosa "
    "Simon Tilda Ulrich Vera Willem Xenia Yves Zelda Anton Beata Cyrus Dora Emil Frida Gustav Helga "
    "Ivo Judit Karl Lotte Marek Nadia Oskar Paula Quentin Ragna Stefan Thea Urban Viola Wanda"
)
NICKNAMES = listed(
    "Rook Finch Cinder Badger Thimble Pepper Magpie Flint Bramble Copper Otter Juniper Ferret "
    "Sparrow Hazel Tinker Nettle Marten Plum Raven Clover Lynx Thistle Wren"
)
FILM_NOUNS = listed(
    "Lantern Orchard Harbour Clockmaker Winter Mirror Carousel Ferryman Garden Station Letter Thief "
    "Bridge Wedding Silence Horizon"
)
NOVEL_NOUNS = listed(
    "Season Stranger Funeral Summer Quarrel Lesson Widow Journey Secret Harvest Storm Holiday Debt "
    "Fever Promise Portrait"
)
FIRM_WORDS = {
    "Instruments": "measuring instruments",
    "Glass": "window glass",
    "Textiles": "woollen cloth",
    "Locks": "locks and safes",
    "Pianos": "pianos",
    "Boats": "rowing boats",
    "Paper": "writing paper",
    "Bicycles": "bicycles",
    "Clocks": "tower clocks",
    "Lamps": "street lamps",
}
FILLERS = (
    "Little else is written about it.",
    "A short article about it appeared in a local almanac.",
    "It has been the subject of two exhibitions.",
    "A plaque recalls this.",
    "Visitors often ask about it.",
    "A society keeps its papers.",
)
