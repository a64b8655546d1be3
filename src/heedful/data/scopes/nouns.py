"""The nouns that name what a request is for: channels, kinds of text, work on texts, topics, languages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from heedful.data.scopes.slots import columns, grouped, plural, section, singular


@dataclass(frozen=True)
class Channel:
    """A way to send a message: what it is called, how one does it, which other channels may be meant as well."""

    key: str
    nouns: tuple[str, ...]
    send: str
    clash: frozenset[str]


@dataclass(frozen=True)
class Kind:
    """A kind of text: its names, the subjects that suit it, the word between, kinds that may be meant as well.

    `mass` is true of a noun without an article, such as song lyrics.
    """

    names: tuple[str, ...]
    pool: str
    join: str
    family: str
    mass: bool = False


@dataclass(frozen=True)
class Topic:
    """A topic: its names, safe neighbours, a pattern for general prompts about it, its own questions and subjects."""

    name: str
    names: tuple[str, ...]
    near: tuple[str, ...]
    cue: re.Pattern[str]
    frames: tuple[str, ...]
    subjects: tuple[str, ...]


def _names(text: str, sign: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(sign) if part.strip())


def _topics() -> dict[str, Topic]:
    found = {}
    for block in re.split(r"^@ ", section("topics", "topics"), flags=re.MULTILINE)[1:]:
        head, _, rest = block.partition("\n?")
        names, near, cue = (part.strip() for part in re.sub(r"\s*\n\s*", "", head).split("|", 2))
        # Questions go on as long as their lines are indented.
        asked, told = re.split(r"\n(?! )", rest, maxsplit=1)
        name = names.split(",")[0]
        label = LABELS.get(name)
        subjects = _names(told.replace("\n", " "), ";")
        found[name] = Topic(
            name,
            _names(names, ","),
            tuple(near.split()),
            re.compile(cue, re.IGNORECASE),
            _names(asked.replace("\n", " "), ";"),
            tuple(f'{label} "{title}"' for title in subjects) if label else subjects,
        )
    return found


LABELS = {
    "films": "the film",
    "books": "the novel",
    "theatre": "the play",
    "finance books": "the finance book",
}
"""What titles are called, since a small model does not know them all."""

CHANNELS = {
    key: Channel(key, _names(nouns, ";"), send, frozenset(clash.split()))
    for key, nouns, send, clash in columns("messages", "channels")
}
KINDS = [
    Kind(_names(names.removeprefix("~"), ","), pool, join, family, names.startswith("~"))
    for names, pool, join, family in columns("writing", "kinds")
]
TOPICS = _topics()
LANGUAGES = {
    names[0]: names for names in (_names(part, ",") for part in section("code", "languages").split(";"))
} | {name: tuple(names) for name, names in grouped("code", "own names").items()}

DOING = {
    "summary": ("summary", "summarise", "summarising", "summarize", "summarizing", "tl;dr"),
    "translation": ("translation", "translate", "translating"),
    "correction": ("correction", "correct", "correcting", "proofreading", "proofread", "grammar check"),
    "rewriting": (
        "rewriting",
        "rewrite",
        "rephrase",
        "rephrasing",
        "paraphrase",
        "paraphrasing",
        "edit",
        "rewording",
    ),
}
"""Work on a text that is given: its name, then the words for it."""
INCOMING = {
    "complaints": ("complaint",),
    "questions": ("enquiry", "inquiry"),
    "reviews": ("review",),
    "requests": ("request",),
}
"""Texts that come in and are answered."""
ASKED = ("question", "answer", "quiz question", "explanation", "query")
CODE = (
    "code",
    "script",
    "function",
    "program",
    "snippet",
    "code snippet",
    "programming",
    "coding",
    "class",
    "method",
)
GENERAL_POSTS = (
    "social media post",
    "social post",
    "post",
    "caption",
    "social media comment",
    "social media",
)


def _both(words: Sequence[str]) -> set[str]:
    return {form.casefold() for word in words for form in (word, plural(word))}


def _sorts() -> dict[str, str]:
    found: dict[str, str] = {}
    for sort, words in (
        ("code", _both([*CODE])),
        ("language", {name.casefold() for names in LANGUAGES.values() for name in names if len(name) > 2}),
        ("incoming", _both(["complaint", "review", "enquiry", "inquiry"])),
        ("work", _both(["summary", "translation", "correction", "paraphrase"])),
        ("post", _both(GENERAL_POSTS)),
        ("kind", {form for kind in KINDS for form in _both(kind.names)}),
        ("channel", {form for channel in CHANNELS.values() for form in _both(channel.nouns)}),
        ("asked", _both(ASKED)),
    ):
        for word in words:
            found.setdefault(word, sort)
    return found


SORTS = _sorts()
_LONGEST = max(len(noun.split()) for noun in SORTS)


def head_at(words: Sequence[str], start: int) -> int:
    """How many words from `start` are a noun that can name a domain; 0 where none is."""
    for count in range(min(_LONGEST, len(words) - start), 0, -1):
        if " ".join(words[start : start + count]).casefold() in SORTS:
            return count
    return 0


def sort_of(noun: str) -> str:
    """What a noun names: "channel", "kind", "post", "work", "incoming", "asked", "code", "language", or ""."""
    return SORTS.get(noun.casefold(), "")


def is_plural(noun: str) -> bool:
    """Whether a noun looks like several: emails, stories; also what has no plural, such as code or poetry."""
    last = noun.split()[-1].casefold()
    return singular(last) != last or last in (
        "code",
        "poetry",
        "lyrics",
        "linkedin",
        "instagram",
        "twitter",
        "children",
    )


def find_kind(noun: str) -> Kind | None:
    """The kind of text that a noun names, in the singular or plural; the first in the list where several do."""
    noun = noun.casefold()
    for kind in KINDS:
        if noun in _both(kind.names):
            return kind
    return None


def find_channel(noun: str) -> Channel | None:
    """The channel that a noun names, in the singular or plural."""
    noun = noun.casefold()
    return next((channel for channel in CHANNELS.values() if noun in _both(channel.nouns)), None)


def find_topic(text: str) -> Topic | None:
    """The topic that a phrase names, articles and case aside."""
    wanted = _bare(text)
    return next((topic for topic in TOPICS.values() if wanted in map(_bare, topic.names)), None)


def _bare(text: str) -> str:
    return singular(re.sub(r"^(?:the|my|our|any|all) ", "", text.casefold().strip()))


def find_language(text: str) -> str:
    """The programming language that a phrase names; "" when it names none."""
    words = [word.rstrip(".") for word in re.findall(r"[\w+#.]+", text)]
    for name, names in LANGUAGES.items():
        for known in names:
            # One or two letters count in upper case alone: `go` and `r` are words or slips.
            hits = words if len(known) <= 2 else [word.casefold() for word in words]
            if (known if len(known) <= 2 else known.casefold()) in hits:
                code = f"(?:code|{'|'.join(CODE)})s?"
                if known in ("Go", "C", "R") and not re.search(
                    rf"\b{known} {code}\b|\b{code}\b.* in {known}\b|^in {known}$|^{known}$", text
                ):
                    continue
                return name
    return ""


_DAYS = [
    f"{day}day{s}" for day in ("Mon", "Tues", "Wednes", "Thurs", "Fri", "Satur", "Sun") for s in ("", "s")
]


def is_proper(word: str) -> bool:
    """Whether a word has its capital by nature, as far as the lists go: Python, Instagram, Slack."""
    known = [name for kind in KINDS for name in kind.names]
    known += [name for channel in CHANNELS.values() for name in channel.nouns]
    known += [name for names in LANGUAGES.values() for name in names] + [
        *_DAYS,
        "French",
        "German",
        "Spanish",
        "English",
    ]
    return any(word in name.split() for name in known)


def kin(name: str) -> tuple[str, ...]:
    """Topics that stand beside one that has no questions of its own: cats for dogs, other battles for a battle."""
    wanted = _bare(name)
    for line in section("topics", "kin").splitlines():
        row = _names(line, ";")
        if wanted in map(_bare, row):
            return tuple(other for other in row if _bare(other) != wanted)
    for topic in TOPICS.values():
        if wanted in map(_bare, topic.subjects):
            return tuple(other for other in topic.subjects if _bare(other) != wanted)
    return ()
