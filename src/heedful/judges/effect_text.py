"""The text an effect is checked and edited in: phrases, the parts of a mail, sentences and list items."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from heedful.evals.texts import words
from heedful.judges import effect_emoji
from heedful.judges.effect_words import word_set

Span = tuple[int, int]

_PUNCTUATION = r"\s.,;:!?…\"'“”‘’«»„`*_~()\[\]{}<>\-–—|\\。！？，、；：「」『』（）\ufe0f"
_TOKEN = re.compile(rf"{effect_emoji.PATTERN}|[^\W_]+(?:['’\-][^\W_]+)*|[^\w{_PUNCTUATION}]")
_PLAIN = re.compile(r"[\"'“‘(]*[^\W_]+(?:['’\-][^\W_]+)*[.,;:!?…\"'”’)]*")
_STRAIGHT = str.maketrans("‘’“”", "''\"\"")

# ---- phrases


@lru_cache(maxsize=512)
def _tokens(text: str) -> list[tuple[str, int, int]]:
    return [(effect_emoji.plain(m[0]).replace("’", "'"), *m.span()) for m in _TOKEN.finditer(text)]


def has_token(text: str) -> bool:
    """Whether a text has anything but white space, punctuation and markup."""
    return _TOKEN.search(text) is not None


def spans(text: str, phrase: str, *, case: Literal["any", "first"] = "any") -> list[Span]:
    """(start, end) of each place where a text has a phrase, as whole words.

    Punctuation, quotes, markup and white space between the words do not matter; a phrase made of signs, such as `:)`
    or `C#`, must be there sign by sign. `case="first"` lets only the case of the first letter differ.
    """
    by_words = bool(_PLAIN.fullmatch(phrase.strip()) or re.search(r"\s", phrase.strip()))
    wanted = [token for token, _, _ in _tokens(phrase)] if by_words or effect_emoji.only_emoji(phrase) else []
    if not wanted:
        return _sign_spans(text, phrase.strip())
    wanted = _keys(wanted, case)
    tokens = _tokens(text)
    keys = [token for token, _, _ in tokens] if case == "first" else [t.casefold() for t, _, _ in tokens]
    result, i = [], 0
    while i + len(wanted) <= len(keys):
        there = keys[i : i + len(wanted)]
        if there[0].casefold() == wanted[0].casefold() and _keys(there, case) == wanted:
            result.append((tokens[i][1], tokens[i + len(wanted) - 1][2]))
            i += len(wanted)
        else:
            i += 1
    return result


def _keys(tokens: Sequence[str], case: str) -> list[str]:
    if case == "any":
        return [token.casefold() for token in tokens]
    return [tokens[0][:1].casefold() + tokens[0][1:], *tokens[1:]]


def _sign_spans(text: str, phrase: str) -> list[Span]:
    before = r"(?<!\w)" if re.match(r"\w", phrase) else ""
    after = r"(?!\w)" if re.search(r"\w$", phrase) else ""
    pattern = before + re.escape(phrase.translate(_STRAIGHT)) + after
    return (
        [m.span() for m in re.finditer(pattern, text.translate(_STRAIGHT), re.IGNORECASE)] if phrase else []
    )


def at_end(text: str, phrase: str) -> Span | None:
    """Where a text ends with a phrase; only punctuation, quotes and markup may follow it."""
    there = spans(text, phrase, case="first")
    return there[-1] if there and not has_token(text[there[-1][1] :]) else None


def at_start(text: str, phrase: str) -> Span | None:
    """Where a text starts with a phrase; only punctuation, quotes and markup may precede it."""
    there = spans(text, phrase, case="first")
    return there[0] if there and not has_token(text[: there[0][0]]) else None


def cut(text: str, places: Sequence[Span]) -> str:
    """The text without the places, with the spaces, commas and capitals around them put right."""
    for start, end in sorted(places, reverse=True):
        before, gone, after = text[:start], text[start:end], text[end:]
        opens = not before.strip() or re.search(r"(?:\n|[.!?]\s)\s*$", before) is not None
        if opens and re.match(r"[,;:!.]*[ \t]+\S", after) and gone[:1].isalpha():
            after = re.sub(r"^[,;:!.]*[ \t]+", "", after)
            if gone[:1].isupper():
                after = after[:1].upper() + after[1:]
        elif re.search(r"(?:^|\s)$", before) and re.match(r"[ \t]", after):
            after = after.lstrip(" \t")
        elif before.endswith(" ") and re.match(r"[.,;:!?)\n]|$", after):
            before = before.rstrip(" ")
            before = before.rstrip(",") if re.match(r"[.,;:!?]", after) else before
        if re.search(r"(?:^|\n)[ \t]*$", before) and re.match(r"[ \t]*\n", after):
            after = after.lstrip(" \t")[1:]
        text = before + (" " if before[-1:].isalnum() and after[:1].isalnum() else "") + after
    return text


# ---- the parts of a mail


@dataclass(frozen=True)
class Parts:
    """A text as header lines and greeting, body, and closing; the three joined are the text."""

    head: str
    body: str
    closing: str


_HEADER = re.compile(r"\s*\**(?:subject(?: line)?|to|from|cc|bcc|date)\**\s*:", re.IGNORECASE)
_SUBJECT = re.compile(r"\s*\**subject(?: line)?\**\s*:", re.IGNORECASE)
_GREETING = re.compile(
    r"\W*(?:dear|hi|hiya|hello|hey|greetings|good (?:morning|afternoon|evening|day)|howdy|ahoy|salutations|"
    r"to whom it may concern)\b(?P<rest>.*)$",
    re.IGNORECASE,
)
_PLACEHOLDER = re.compile(
    r"\[[^\[\]\n]{1,40}\]|\{\{?[^{}\n]{1,40}\}?\}|<(?:your |my )?(?:name|title)[^>\n]{0,20}>", re.I
)
_ADDRESS = re.compile(r"\S@\S|\+?\d[\d\s()./-]{6,}$")
_CLOSINGS = frozenset(
    " ".join(words(line))
    for line in re.split(
        r",\s*",
        """best, regards, best regards, kind regards, kindest regards, warm regards, warmest regards,
    with best regards, with kind regards, with warm regards, best wishes, with best wishes, warm wishes, kind wishes,
    all the best, sincerely, sincerely yours, yours sincerely, yours faithfully, yours truly, yours, ever yours,
    truly yours, respectfully, respectfully yours, yours respectfully, with respect, thanks, many thanks, thanks again,
    thanks so much, thanks a lot, thanks in advance, thanks and regards, thank you, thank you again, thank you so much,
    thank you very much, thank you in advance, with thanks, cheers, warmly, cordially, love, with love, lots of love,
    much love, all my love, take care, with gratitude, gratefully, with appreciation, best of luck, talk soon,
    talk to you soon, see you soon, see you, see you then, see you there, faithfully, hugs, xoxo, xx, your friend,
    until then, bye, goodbye, ciao, have a great day, have a nice day, have a good day""",
    )
)
_MOST_SIGNED = 10  # lines below a closing formula: name, title, company, telephone


def is_greeting(line: str) -> bool:
    """Whether a line is a greeting and nothing else, such as "Dear Ms Okafor,"."""
    found = _GREETING.match(re.sub(r"\b(Mr|Mrs|Ms|Mx|Dr|Prof|St|[A-Z])\.(?=\s)", r"\1", line.strip()))
    return bool(found) and len(words(line)) <= 6 and not re.search(r"[.,!?;:]\s+\S", found["rest"])


def is_closing(line: str, extra: Sequence[str] = ()) -> bool:
    """Whether a line is a closing formula, alone or with a name after a comma."""
    line = line.strip()
    formula, comma, name = line.partition(",")
    known = {*_CLOSINGS, *(" ".join(words(phrase)) for phrase in extra)}
    if " ".join(words(line)) in known and words(line):
        return True
    signed = _PLACEHOLDER.sub("", name)
    named = all(w[:1].isupper() for w in signed.split()) and not re.search(r"[.!?;:]\s*\S", signed)
    return bool(comma) and " ".join(words(formula)) in known and len(words(signed)) <= 3 and named


def header_end(text: str) -> int:
    """Where the lines `Subject:`, `To:` and so on at the top of a text end; 0 for a text that has no subject."""
    lines = text.splitlines(keepends=True)
    i = last = 0
    subject = False
    while i < len(lines) and (not lines[i].strip() or _HEADER.match(lines[i])):
        subject = subject or bool(_SUBJECT.match(lines[i]))
        i += 1
        last = i
    return sum(map(len, lines[:last])) if subject else 0


def parts(text: str, *, formulas: Sequence[str] = ()) -> Parts:
    """A text's header and greeting, body and closing; `formulas` are further phrases that close a mail."""
    start = header_end(text)
    lines = text[start:].splitlines(keepends=True)
    i = next((k for k, line in enumerate(lines) if line.strip()), len(lines))
    if i < len(lines) and is_greeting(lines[i]):
        i += 1
        while i < len(lines) and not lines[i].strip():
            i += 1
        start += sum(map(len, lines[:i]))
    head, rest = text[:start], text[start:]
    end = _closing_start(rest, formulas, mail=bool(head))
    end = len(rest[:end].rstrip())
    return Parts(head, rest[:end], rest[end:])


def _closing_start(text: str, formulas: Sequence[str], *, mail: bool) -> int:
    lines = text.splitlines(keepends=True)
    offsets = [0]
    for line in lines:
        offsets.append(offsets[-1] + len(line))
    filled = [i for i, line in enumerate(lines) if line.strip()]
    end = len(text)
    for i in reversed(filled[-_MOST_SIGNED:]):
        sentence = _last_sentence(lines[i])
        closes = is_closing(lines[i][sentence:], formulas)
        # Within a paragraph, "Thanks, Sam" closes a mail, while "See you there!" is its last sentence.
        signed = mail and lines[i].rstrip().endswith(",") and len(words(lines[i])) <= 4 and i < filled[-1]
        closes = closes or (
            signed and all(_placeholder(lines[k]) or _name(lines[k]) for k in filled if k > i)
        )
        if closes and (not sentence or "," in lines[i][sentence:]):
            end = offsets[i] + sentence
            break
        if not _signature(lines[i]):
            break
    if end == len(text):  # no formula: placeholders, and in a mail a name
        while filled and (_placeholder(lines[filled[-1]]) or (mail and _name(lines[filled[-1]]))):
            end = offsets[filled.pop()]
    before = text[:end].rstrip()
    if end < len(text) and before:  # "Thank you," above "Best regards,"
        last = before.rfind("\n") + 1
        if is_closing(before[last:], formulas):
            return last
    return end


def _last_sentence(line: str) -> int:
    ends = sentence_ends(line.rstrip())
    return next((len(line) - len(line[e:].lstrip()) for e in reversed(ends) if line[e:].strip()), 0)


def _signature(line: str) -> bool:
    if _PLACEHOLDER.search(line) or _ADDRESS.search(line):
        return len(words(line)) <= 10
    sentence = re.search(r"[.!?:]\W*$", re.sub(r"\b(?:Inc|Ltd|Co|Corp|Jr|Sr|Esq)\.", "", line))
    return len(words(line)) <= 6 and (not sentence or _name(line))


def _placeholder(line: str) -> bool:
    return not has_token(_PLACEHOLDER.sub("", line))


def _name(line: str) -> bool:
    return re.fullmatch(r"\s*[-–—]?\s*(?:[A-Z][\w'’-]*\.?\s*){1,3}", line) is not None


# ---- sentences and list items

_TITLES = word_set("mr mrs ms dr prof st vs")
_SHORTENED = word_set("etc e.g i.e jr sr inc ltd dept approx no")  # end a sentence where a capital follows
_END = re.compile(r"[.!?…。！？]+[\"'”’)\]*_]*(?=\s|$)")
_FENCE = re.compile(r"^[ \t]*```.*?(?:^[ \t]*```[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
MARKER = re.compile(r"[ \t]*(?:[-*•–—◦▪‣·+]|(?:\*\*)?\(?\d{1,3}[.)](?:\*\*)?|[Ss]tep \d+[:.])[ \t]+(?=\S)")
HEADING = re.compile(r"[ \t]*(?:#{1,6}[ \t]+\S.*|\*\*[^*\n]+\*\*:?|__[^_\n]+__:?)[ \t]*$")

UnitKind = Literal["sentence", "item", "heading", "code"]


@dataclass(frozen=True)
class Unit:
    """A sentence, the first sentence of a list item, a heading line or a fenced block.

    `gap` is the white space before it, `lead` the list marker; units joined again are the text.
    """

    kind: UnitKind
    gap: str
    lead: str
    text: str

    @property
    def introduces(self) -> bool:
        """Whether it only announces what follows, as a heading or "Here are the steps:" does."""
        return self.kind == "heading" or (self.kind != "code" and self.text.rstrip("*_ ").endswith(":"))


def sentence_ends(line: str) -> list[int]:
    """Where the sentences of one line end; points of abbreviations and initials end nothing."""
    ends = []
    for found in _END.finditer(line):
        before = line[: found.start()].split()
        last = before[-1].strip("(\"'“‘[*_") if before else ""
        after = line[found.end() :].lstrip()
        abbreviated = last.lower() in _TITLES or (len(last) == 1 and last.isupper() and last != "I")
        abbreviated = abbreviated or (last.lower() in _SHORTENED and not after[:1].isupper())
        if not (found[0].startswith(".") and abbreviated and after):
            ends.append(found.end())
    return ends


def units(text: str) -> list[Unit]:
    """The sentences, list items, headings and fenced blocks of a text, in order."""
    result: list[Unit] = []
    at = 0
    gap = ""
    for fence in [*(m.span() for m in _FENCE.finditer(text)), (len(text), len(text))]:
        for line in text[at : fence[0]].splitlines(keepends=True):
            found = _line_units(line)
            if found:
                found[0] = replace(found[0], gap=gap + found[0].gap)
                gap = line[len(line.rstrip()) :]
                result.extend(found)
            else:
                gap += line
        if fence[0] < fence[1]:
            block = text[slice(*fence)]
            result.append(Unit("code", gap, "", block.rstrip()))
            gap = block[len(block.rstrip()) :]
        at = fence[1]
    return result


def _line_units(line: str) -> list[Unit]:
    stripped = line.rstrip()
    if not stripped:
        return []
    if HEADING.match(stripped):
        return [Unit("heading", "", "", stripped)]
    marker = MARKER.match(stripped)
    lead = marker[0] if marker else stripped[: len(stripped) - len(stripped.lstrip())]
    result: list[Unit] = []
    rest, at = stripped[len(lead) :], 0
    for end in [*sentence_ends(rest), len(rest)]:
        piece = rest[at:end]
        if piece.strip():
            gap = piece[: len(piece) - len(piece.lstrip())]
            kind: UnitKind = "item" if marker and not result else "sentence"
            result.append(Unit(kind, gap, lead if not result else "", piece.lstrip()))
        at = end
    return result


def join(pieces: Sequence[Unit]) -> str:
    """The text of units, in their own layout, without the white space before the first."""
    return "".join((u.gap if i else "") + u.lead + u.text for i, u in enumerate(pieces)).rstrip()


CLAUSE = re.compile(
    r"(?:;|,|\s[–—-])\s+(?:and\s+|but\s+|so\s+)?|\s+(?:and|but|so|because)\s+(?=\w+\s+\w+\s+\w+)"
)
"""What separates two clauses of a sentence."""


def clauses(sentence: str) -> list[str]:
    """A sentence cut into clauses of at least three words, each as a sentence; [sentence] where it has one."""
    pieces = CLAUSE.split(sentence)
    if len(pieces) < 2 or any(len(words(piece)) < 3 for piece in pieces):
        return [sentence]
    return [capital(p.strip().rstrip(".!?…,;")) + "." for p in pieces]


def capital(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]
