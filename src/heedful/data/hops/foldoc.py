"""Two-hop questions over a real dictionary of computing: FOLDOC, read where Debian's package dict-foldoc put it.

The Free On-line Dictionary of Computing (GFDL) is not part of heedful. An entry is a passage; a link of entry A to
entry B makes a question: the first sentence of A with its name blanked out, asking for the term of B's category that it
refers to. Both are gold, B is the answer. Questions of the training side and of the test side share no entry.

Source: LeReT (arXiv 2410.23214) has HotpotQA; this is a small stand-in of real text that needs no download.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from heedful.data.hops import Question
from heedful.data.passages import Passage
from heedful.errors import HeedfulError

Side = Literal["train", "dev", "test"]
FOLDER = Path("/usr/share/dictd")
INSTALL = "apt-get install dict-foldoc"
LEAST_WORDS, CHARACTERS, MOST_LINKED = 20, 600, 10
"""Shorter entries are left out; passages end here; what more entries link to is too easy to guess."""
BLANK = "this term"
_LINK = re.compile(r"\{([^{}]+)\}")
_SENSE = re.compile(r"^\s*(?:1\.\s*)?<([^<>]+)>\s*")
_END = re.compile(r"(?<=[a-z0-9)\"'}])[.!?](?=\s|$)")
_ABBREVIATIONS = re.compile(r"^\([^()]*\)\s*")
_ARTICLE = re.compile(rf"\b(?:the|an?) {BLANK}\b", re.IGNORECASE)
_ASKED = re.compile(r"Which (.+) term does the entry on")
_NOTES = re.compile(r"\(\d{4}-\d{2}-\d{2}\)|\[[^\[\]]*\]")


@dataclass
class Entry:
    """An entry. names: its headwords; category: the first tag of its first sense, or none; first: its first sentence;
    links: the numbers of the entries it mentions."""

    names: list[str]
    category: str
    text: str
    first: str
    mentions: list[str]
    links: list[int] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The headword it stands under."""
        return self.names[0]


@dataclass(frozen=True)
class Foldoc:
    """The dictionary as a corpus with questions. edges: (A, B) of each question, in an order that says nothing."""

    entries: list[Entry]
    edges: list[tuple[int, int]]

    def passages(self) -> list[Passage]:
        """One passage for each entry."""
        return [Passage(f"f{i}", entry.title, entry.text) for i, entry in enumerate(self.entries)]

    def questions(self, side: Side, count: int = 0) -> list[Question]:
        """The first `count` questions of a side, or all with 0. Raises HeedfulError when there are not so many."""
        chosen = [(a, b) for a, b in self.edges if _side(a) == _side(b) == side]
        if count > len(chosen):
            raise HeedfulError(f"FOLDOC gives {len(chosen):,} {side} questions, not {count:,}")
        return [self._question(a, b) for a, b in chosen[: count or None]]

    def read(self, question: Question, titles: Sequence[str]) -> str:
        """What a simple reader answers from the entries of these titles, best first: the one of the category that is
        asked for which another of them mentions; else the first of that category; else "unknown".

        It sees neither gold titles nor the answer.
        """
        asked = _ASKED.search(question.question)
        there = [n for title in titles if (n := self._numbers.get(title)) is not None]
        fits = [n for n in there if asked and self.entries[n].category == asked[1]]
        mentioned = [n for n in fits if any(n in self.entries[m].links for m in there)]
        return next((self.entries[n].title for n in [*mentioned, *fits]), "unknown")

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {entry.title: i for i, entry in enumerate(self.entries)}

    def _question(self, a: int, b: int) -> Question:
        one, other = self.entries[a], self.entries[b]
        asked = f"{one.first}. Which {other.category} term does the entry on {BLANK} refer to?"
        return Question(f"foldoc-{a}-{b}", asked, (one.title, other.title), (other.title,), 2, "foldoc")


def installed(folder: Path = FOLDER) -> bool:
    """Whether the dictionary is there."""
    return (folder / "foldoc.index").is_file() and (folder / "foldoc.dict.dz").is_file()


def load_foldoc(folder: Path = FOLDER) -> Foldoc:
    """Read the dictionary; a second or two. Raises HeedfulError with the line that installs it when it is missing."""
    if not installed(folder):
        raise HeedfulError(f"FOLDOC is not installed in {folder}; on Debian and Ubuntu: {INSTALL}")
    try:
        data = gzip.decompress((folder / "foldoc.dict.dz").read_bytes())
        lines = (folder / "foldoc.index").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError, EOFError, zlib.error) as error:
        raise HeedfulError(f"FOLDOC in {folder} cannot be read: {error}") from error
    headwords: dict[tuple[int, int], list[str]] = defaultdict(list)
    for line in lines:
        parts = line.split("\t")
        if len(parts) == 3 and not parts[0].startswith("00-database"):
            headwords[_number(parts[1]), _number(parts[2])].append(parts[0])
    entries: list[Entry] = []
    numbers: dict[str, int] = {}
    for (start, size), words in sorted(headwords.items()):
        entry = _entry(data[start : start + size].decode("utf-8", "replace"))
        if entry is None:
            continue
        for name in [*words, *entry.names]:
            numbers.setdefault(_key(name), len(entries))
        entries.append(entry)
    _distinct(entries)
    for i, entry in enumerate(entries):
        found = (numbers.get(_key(mention)) for mention in entry.mentions)
        entry.links = [n for n in dict.fromkeys(found) if n is not None and n != i]
    return Foldoc(entries, _edges(entries))


def _number(text: str) -> int:
    """A number as dictd writes it: base 64, the most significant digit first."""
    digits = base64.b64decode("A" * (-len(text) % 4) + text)
    return int.from_bytes(digits, "big")


def _key(name: str) -> str:
    return " ".join(name.lower().split())


def _entry(text: str) -> Entry | None:
    """What a definition says; None for one that is too short."""
    head, _, body = text.partition("\n\n")
    names = [" ".join(line.split()) for line in head.splitlines() if line.strip()]
    body = " ".join(_NOTES.sub(" ", body).split())
    sense = _SENSE.match(body)
    if sense is not None:
        body = body[sense.end() :]
    plain = " ".join(_LINK.sub(r"\1", body).split())
    if not names or len(plain.split()) < LEAST_WORDS:
        return None
    told = _ABBREVIATIONS.sub("", plain)
    end = _END.search(told)
    first = told[: end.start()] if end else told
    category = sense[1].split(",")[0].strip() if sense is not None else ""
    return Entry(names, category, plain[:CHARACTERS], first, _LINK.findall(body))


def _distinct(entries: Sequence[Entry]) -> None:
    """Titles are what gold passages are known by: a second entry under one headword gets a number."""
    seen: Counter[str] = Counter()
    for entry in entries:
        title = entry.title
        seen[title] += 1
        if seen[title] > 1:
            entry.names.insert(0, f"{title} ({seen[title]})")


def _edges(entries: Sequence[Entry]) -> list[tuple[int, int]]:
    """Links that make a question: to an entry that few link to, that has a category and is the only one of it there,
    from an entry whose first sentence, without its names, still says something."""
    linked = Counter(b for entry in entries for b in entry.links)
    edges = []
    for a, entry in enumerate(entries):
        entry.first = _blanked(entry)
        if len(entry.first.split()) < 5:
            continue
        categories = Counter(entries[b].category for b in entry.links)
        edges += [
            (a, b)
            for b in entry.links
            if linked[b] <= MOST_LINKED and entries[b].category and categories[entries[b].category] == 1
        ]
    return sorted(edges, key=lambda edge: hashlib.blake2b(repr(edge).encode(), digest_size=8).digest())


def _blanked(entry: Entry) -> str:
    text = entry.first
    for name in sorted(entry.names, key=len, reverse=True):
        if name.lower() not in text.lower():
            continue  # compiling a pattern for each name would take most of the time
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", BLANK, text, flags=re.IGNORECASE)
    return _ARTICLE.sub(BLANK, " ".join(text.split()))


def _side(number: int) -> Side:
    share = hashlib.blake2b(f"foldoc {number}".encode(), digest_size=2).digest()[0]
    return "test" if share < 80 else "dev" if share < 128 else "train"
