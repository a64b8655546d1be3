"""Words of a sentence, and the phrases in it that can name a domain, such as `questions about history`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from heedful.data.scopes.nouns import find_language, find_topic, head_at, is_plural, sort_of
from heedful.data.scopes.people import person_at
from heedful.data.scopes.slots import listed, section, singular

# An apostrophe inside a word is none of these quotes: they open after a space and close before one.
_QUOTED = (
    r"\"[^\"]+\"|“[^”]+”|„[^“”]+[“”]|«[^»]+»|‹[^›]+›|`[^`]+`|"
    r"(?<![\w])'(?=\S)(?:[^']|'(?=\w))*?(?<=\S)'(?!\w)|(?<![\w])‘(?=\S)(?:[^’]|’(?=\w))*?’(?!\w)|(?<![\w])‚[^‘’]+[‘’]"
)
_WORD = r"(?:Mr|Mrs|Ms|Dr|Prof|St)\.(?= )|#?[\w&][\w&+#/@'’.-]*[\w+#]|[\w&]"
_TOKEN = re.compile(rf"(?P<quoted>{_QUOTED})|(?P<word>{_WORD})|(?P<other>[^\s\w])")


def _words_of(name: str) -> frozenset[str]:
    return frozenset(section("sentences", name).split())


ARTICLES = _words_of("articles")
SUBORDINATORS = tuple(
    tuple(words.split())
    for words in (
        "every time", "each time", "any time", "anytime", "whenever", "when", "if", "once", "while", "as long as",
        "as soon as", "in case", "where", "wherever",
    )
)  # fmt: skip
STARTERS = _words_of("starters")
_STOPS = _words_of("stops")
_STYLE_WORDS = _words_of("style")
_EFFECT_WORDS = _STYLE_WORDS | _words_of("effects")
_TOO_GENERAL = _words_of("too general")
_NO_ADJECTIVE = _words_of("no adjectives")


@dataclass(frozen=True)
class Token:
    """A word, a sign or a quoted text of a sentence, with its place."""

    text: str
    start: int
    end: int
    quoted: bool

    @property
    def low(self) -> str:
        """The word in lower case; "" for a quoted text, which says nothing about the sentence."""
        return "" if self.quoted else self.text.lower()


@dataclass(frozen=True)
class Phrase:
    """Tokens `start` to `end` that name a domain: their head noun, what stands before it and what follows.

    `many` is true of several things and of all of them, `one` of a thing with `a` or `an`. `roles` are the attributes
    by their word: to, for, from, with, by, about, on, in. `known` is false of recipients that no list knows.
    """

    start: int
    end: int
    many: bool = False
    one: bool = False
    head: str = ""
    before: str = ""
    roles: tuple[tuple[str, str], ...] = ()
    known: bool = True

    @property
    def special(self) -> bool:
        """Whether it says more than its noun alone: to whom, about what, which sort."""
        return bool(self.roles or self.before)

    def role(self, *names: str) -> str:
        """The text of the first attribute with one of these words; "" where there is none."""
        return next((text for name, text in self.roles if name in names), "")


def tokenise(text: str) -> list[Token]:
    """The words, signs and quoted texts of a sentence."""
    return [
        Token(match[0], match.start(), match.end(), match["quoted"] is not None)
        for match in _TOKEN.finditer(text)
    ]


def is_effect_like(phrase: str) -> bool:
    """Whether a phrase after `in` or `on` says how and not when: `French`, `three parts`, `a friendly tone`."""
    words = [word for word in re.findall(r"[\w'-]+", phrase.lower()) if word not in ARTICLES]
    return not words or any(word in _EFFECT_WORDS or word.isdigit() for word in words[-3:] + words[:1])


def _words(tokens: Sequence[Token], start: int, count: int = 6) -> list[str]:
    """The words from `start` up to the first sign or quoted text."""
    found = []
    for token in tokens[start : start + count]:
        if token.quoted or not re.match(r"[\w&#]", token.text):
            break
        found.append(token.text)
    return found


def _is_name(word: str) -> bool:
    known = word in _TONGUES or word == "I" or word.lower() in _STOPS | STARTERS
    return word[:1].isupper() and not known


def noun_phrase(tokens: Sequence[Token], start: int) -> Phrase | None:
    """The phrase at `start` whose noun can name a domain, with all that belongs to it; None where there is none."""
    words = _words(tokens, start, 12)
    i = 0
    one = many = False
    while i < len(words) and (words[i].lower() in ARTICLES or (words[i].lower() == "of" and i)):
        many = many or words[i].lower() in ("all", "any", "every", "each")
        one = one or words[i].lower() in ("a", "an")
        i += 1
    first = i
    length = 0
    while i < min(first + 4, len(words)):
        length = head_at(words, i)
        if length or words[i].lower() in _NO_ADJECTIVE | _STOPS | STARTERS:
            break
        i += 1
    if not length:
        return None
    end = i + length
    # The last of several nouns is the head: Python code, LinkedIn posts, email messages.
    while end < len(words) and head_at(words, end):
        i, length = end, head_at(words, end)
        end += length
    head = " ".join(words[i:end])
    stop, roles = _attributes(tokens, start + end, head)
    before = " ".join(words[first:i])
    if head.lower() in _TOO_GENERAL and not roles and not before:
        return None
    return Phrase(start, stop, many or is_plural(head), one and not many, head, before, roles)


def _attributes(tokens: Sequence[Token], at: int, head: str) -> tuple[int, tuple[tuple[str, str], ...]]:
    """(the end of what belongs to a noun, its attributes by their word)."""
    roles = []
    while at + 1 < len(tokens):
        role, begin, end = _attribute(tokens, at, head)
        if not end:
            break
        roles.append((role, " ".join(token.text for token in tokens[begin:end]).replace(" ,", ",")))
        at = end
    return at, tuple(roles)


_TONGUES = {
    "English",
    "Latin",
    "Russian",
    "Chinese",
    "Japanese",
    *(item.text for item in listed("texts", "languages")),
}
_NONE = ("", 0, 0)
_SENDING = ("send", "write", "post", "draft", "get", "compose", "ask", "share")


def _attribute(tokens: Sequence[Token], at: int, head: str) -> tuple[str, int, int]:
    """(word, start, end) of one more attribute at `at`; the end is 0 where none is."""
    word, after, sort = tokens[at].low, tokens[at + 1], sort_of(head)
    if word in ("to", "for", "from", "with", "by"):
        found = recipients(tokens, at + 1)
        named = word in ("to", "from", "for") or singular(head.lower()) in ("chat", "conversation")
        if found and (named or _person_noun(tokens, at + 1)):
            return word, at + 1, found.end
        answers = sort == "asked" or singular(head.lower()) in ("reply", "response", "answer")
        inner = noun_phrase(tokens, at + 1) if word == "to" and answers else None
        if inner:
            return word, at + 1, inner.end
        if word == "for" and after.low in (
            "work",
            "school",
            "university",
            "beginners",
            "adults",
            "children",
            "kids",
        ):
            return word, at + 1, at + 2
        return _NONE
    platform = head_at(_words(tokens, at + 1), 0) if word == "on" else 0
    if platform:
        return word, at + 1, at + 1 + platform
    if word in ("about", "regarding", "concerning") or (
        word in ("on", "of") and sort in ("asked", "kind", "post")
    ):
        return "about", at + 1, topic_end(tokens, at + 1)
    if word == "in" and sort in ("code", "asked") and find_language(f"{after.text} code"):
        return word, at + 1, at + 2
    if word == "at" and after.low in ("work", "school", "university"):
        return word, at + 1, at + 2
    relative = at + 1 if word in ("that", "which") else at
    mine = [token.low for token in tokens[relative : relative + 2]]
    if len(mine) == 2 and mine[0] in ("i", "we", "you") and mine[1] in _SENDING:
        return "that", relative, relative + 2
    return _NONE


def _person_noun(tokens: Sequence[Token], start: int) -> bool:
    """Whether a noun for a person is there, and not just a name: after `with` a name may be a text to write."""
    words = _words(tokens, start)
    first = next((i for i, word in enumerate(words) if word.lower() not in ARTICLES), 0)
    return bool(words) and person_at(words, first) > 0


def topic_end(tokens: Sequence[Token], start: int) -> int:
    """The end of a topic that begins at token `start`; 0 where none does."""
    i = start
    while i < len(tokens) and not _ends_topic(tokens, i, start):
        i += 1
    return i if i > start else 0


_JOINING = ("and", "or", "of", "the", "my", "a", "an", "to", "for", "on", "at")


def _ends_topic(tokens: Sequence[Token], i: int, start: int) -> bool:
    token = tokens[i]
    following = tokens[i + 1] if i + 1 < len(tokens) else None
    if token.quoted or not re.match(r"[\w&#]", token.text):
        # A list of topics goes on after a comma that no effect follows.
        return not (token.text == "," and following and find_topic(following.text))
    if token.low == "in" and i > start and following:
        manner = " ".join(_words(tokens, i + 1, 3))
        return not manner or is_effect_like(manner)
    if token.low in _JOINING and following:
        whom = recipients(tokens, i + 1) if token.low in ("for", "to") and i > start else None
        verb = following.low in STARTERS - {"the", "your", "it"}
        return following.quoted or verb or following.text.isdigit() or bool(whom and whom.known)
    return token.low in _STOPS or (i > start and token.low in STARTERS | _STYLE_WORDS)


def recipients(tokens: Sequence[Token], start: int) -> Phrase | None:
    """A person, an office or a list of them at `start`: `my boss and my team`, `Anna, Ben and Carla`."""
    end, known = _recipient(tokens, start)
    if not end:
        return None
    while end < len(tokens):
        joined = end
        if tokens[joined].text == ",":
            joined += 1
        if joined < len(tokens) and tokens[joined].low in ("and", "or", "&"):
            joined += 1
        if joined == end:
            break
        following, other = _recipient(tokens, joined)
        if not following or not other:
            break
        end = following
    return Phrase(start, end, known=known)


def _recipient(tokens: Sequence[Token], start: int) -> tuple[int, bool]:
    """(the end of one recipient, whether a list knows it); (0, False) where none begins."""
    words = _words(tokens, start, 7)
    i = 0
    while i < len(words) and words[i].lower() in ARTICLES:
        i += 1
    owned = i > 0
    for skipped in range(i, min(i + 3, len(words))):
        count = person_at(words, skipped)
        if count:
            end = skipped + count
            while end < len(words) and _is_name(words[end]):
                end += 1
            return start + end, True
        if words[skipped].lower() in _STOPS or words[skipped].lower() in STARTERS:
            break
    named = i
    while named < min(i + 3, len(words)) and _is_name(words[named]) and not head_at(words, named):
        named += 1
    if named > i:
        return start + named, True
    if not owned or i >= len(words):
        return 0, False
    end = i
    while end < min(i + 3, len(words)) and words[end].lower() not in _STOPS | STARTERS | _STYLE_WORDS:
        end += 1
    return (start + end, False) if end > i and not head_at(words, i) else (0, False)
