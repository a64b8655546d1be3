"""Rules that read one clause without free text: lengths, formats, emoji, signs, case, languages.

A rule applies where what it does not account for of the clause is filler; so a clause is either understood whole or
not at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from heedful.judges import effect_emoji
from heedful.judges.effect_kinds import Effect, made
from heedful.judges.effect_words import (
    EACH,
    END,
    FILLERS,
    LANGUAGES,
    NEGATION,
    NUMBER,
    SIGNS,
    START,
    number,
)

Build = Callable[[re.Match[str], bool], Effect | None]
"""The effect that a match asks for; the flag says that the clause forbids it."""


def filler(text: str, known: frozenset[str] = FILLERS) -> bool:
    """Whether a text has filler words and punctuation only."""
    return (
        not effect_emoji.found(text)
        and all(
            word.lower() in known or not re.search(r"\w", word)
            for word in re.findall(r"[\w'-]+|[^\w\s]", text)
        )
        and not re.search(r"[\ue000&#@/+*]", text)
    )


def read(clause: str) -> list[Effect]:
    """The effect of one clause that needs no quoted text; [] where no rule accounts for all of it."""
    if EACH.search(clause):
        return []
    for rule in (_code_only, _emoji, _question):
        if effect := rule(clause):
            return [effect]
    for pattern, build in _RULES:
        found = pattern.search(clause)
        if found is None:
            continue
        rest = clause[: found.start()] + " " + clause[found.end() :]
        forbids = len(NEGATION.findall(rest))
        if NEGATION.search(clause[found.end() :].partition(",")[2]):
            continue  # what comes after a comma forbids something else: "keep it short, do not answer"
        if forbids < 2 and filler(NEGATION.sub(" ", rest)) and (effect := build(found, forbids == 1)):
            return [effect]
    return []


def _compile(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


# ---- length

_UNIT = r"(?P<unit>word|sentence|character|char|letter|paragraph)s?"
_N = rf"(?P<n>{NUMBER})(?:\s+|-)(?:(?:short|full|brief|long)\s+)?"


def _limit(least: float | None = None, most: float | None = None, shift: int = 0) -> Build:
    """Options from N: a share of it for each bound, plus `shift`."""

    def build(found: re.Match[str], forbidden: bool) -> Effect | None:
        n = number(found["n"])
        unit = {"char": "character", "letter": "character"}.get(found["unit"].lower(), found["unit"].lower())
        bounds = {
            key: int(n * share) + shift
            for key, share in (("least", least), ("most", most))
            if share is not None
        }
        return None if forbidden else made("length", unit=unit + "s", **bounds)

    return build


def _over(found: re.Match[str], forbidden: bool) -> Effect | None:
    return _limit(most=1)(found, False) if forbidden else _limit(least=1, shift=1)(found, False)


def _between(found: re.Match[str], forbidden: bool) -> Effect | None:
    low, high = number(found["low"]), number(found["n"])
    upper = _limit(most=1)(found, forbidden)
    return upper and made("length", **upper.options, least=low) if low <= high else None


_LONG = r"(?:\s+(?:long|in length|in total|total|each|apiece))?"
_LENGTHS: list[tuple[str, Build]] = [
    (rf"(?:between\s+)?(?P<low>{NUMBER})\s*(?:and|to|or|-|–)\s*{_N}{_UNIT}{_LONG}", _between),
    (
        rf"(?:under|fewer than|less than|below|shorter than|smaller than)\s+{_N}{_UNIT}{_LONG}",
        _limit(most=1, shift=-1),
    ),
    (
        rf"(?:at (?:the )?most|no more than|not more than|not (?:be )?longer than|no longer than|not exceed(?:ing)?|"
        rf"(?:a )?max(?:imum)?(?: of)?|up to|within|limit(?:ed)?(?:\s+\w+){{0,3}}? to|cap(?:ped)?(?:\s+\w+){{0,3}}? at)"
        rf"\s+{_N}{_UNIT}{_LONG}",
        _limit(most=1),
    ),
    (
        r"(?:at (?:the )?least|no fewer than|no less than|not less than|(?:a )?min(?:imum)?(?: of)?)\s+"
        rf"{_N}{_UNIT}{_LONG}",
        _limit(least=1),
    ),
    (
        rf"(?:more than|over|longer than|exceed(?:s|ing)?|above|go(?:ing)? over|beyond)\s+{_N}{_UNIT}{_LONG}",
        _over,
    ),
    (rf"exactly\s+{_N}{_UNIT}{_LONG}", _limit(least=1, most=1)),
    (rf"(?:about|around|roughly|approximately)\s+{_N}{_UNIT}{_LONG}", _limit(least=0.75, most=1.25)),
    (rf"{_N}{_UNIT}\s+(?:or more|at least|or longer|minimum)", _limit(least=1)),
    (
        rf"{_N}{_UNIT}{_LONG}"
        r"(?:\s+(?:or (?:less|fewer|under|shorter)|max(?:imum)?|at (?:the )?most|tops|limit|cap|only))?",
        _limit(most=1),
    ),
]

# ---- format

_NOT_PROSE = (
    r"(?:,?\s*(?:instead of|rather than|and not|not|no|never|without)\s+(?:in\s+|as\s+)?"
    r"(?:(?:full|long|whole|running|plain|in)\s+)*(?:paragraphs?|prose|sentences|text|one block))?"
)
_MARKED = r"^[ \t]*[-*•][ \t]+"
_COUNTED = r"^[ \t]*\d{1,3}[.)][ \t]+"


def _simple(kind: str, *, name: str = "", avoid: str = "") -> Build:
    """A kind without options; where it is forbidden, what to avoid instead."""

    def build(found: re.Match[str], forbidden: bool) -> Effect | None:
        if not forbidden:
            return made(kind)
        return made("avoid", regex=avoid, name=name) if avoid else None

    return build


def _other(kind: str, forbidden_kind: str) -> Build:
    return lambda found, forbidden: made(forbidden_kind if forbidden else kind)


def _headings(found: re.Match[str], forbidden: bool) -> Effect | None:
    if forbidden:
        return made("avoid", regex=r"^#{1,6}[ \t].*$", name="headings")
    count = found["n"] or found["parts"]
    return made("headings", **({"count": number(count)} if count else {}))


_FORMATS: list[tuple[str, Build]] = [
    (
        rf"(?:under\s+)?(?:(?P<n>{NUMBER})\s+)?(?:(?:short|clear|separate|labelled|labeled|distinct|bold|markdown|section|headed)\s+)*"
        rf"(?:headed\s+(?:parts?|sections?|paragraphs?)|(?:sub-?)?(?:headings?|headers?)|"
        rf"(?:parts|sections|paragraphs)(?:,?\s+(?:each|every one))?,?\s+(?:with|under|having)\s+"
        rf"(?:(?:a|its|their|own|short|clear|separate)\s+)*(?:headings?|headers?|titles?))"
        rf"|(?:in|into|of|with)\s+(?P<parts>{NUMBER})\s+(?:separate\s+|clear\s+|distinct\s+)?(?:parts|sections)(?!,?\s+(?:each\s+)?(?:with|under|having)\b)",
        _headings,
    ),
    (
        r"(?:numbered|ordered|enumerated)(?:\s+(?:lists?|steps?|points?|items?|format?))?(?:\s+of\s+(?:steps|points|items))?"
        rf"|number\s+(?:(?:the|your|all|its|their)\s+)*(?:steps|points|items){_NOT_PROSE}",
        _simple("numbered", name="numbered lists", avoid=_COUNTED),
    ),
    (
        r"(?:bullet(?:ed)?[- ]?(?:points?|lists?|items?|format?)|bullets|bulleted|point form"
        r"|(?:as|in)\s+(?:a\s+)?list(?:\s+form(?:at)?)?)(?:\s+of\s+(?:points|items))?" + _NOT_PROSE,
        _simple("bullets", name="bullet points", avoid=_MARKED),
    ),
    (
        r"\blists?",
        lambda found, no: made("avoid", regex=f"{_MARKED}|{_COUNTED}", name="lists") if no else None,
    ),
    (r"(?:valid\s+)?json(?:\s+(?:object|format|only|array))?", _simple("json")),
    (
        r"(?:all[- ])?(?:lower[- ]?case|small letters|lower[- ]?cased?)(?:\s+(?:letters|only|characters))?",
        _simple("lower_case"),
    ),
    (
        r"(?:capitali[sz]e|capitali[sz]ing|capitali[sz]ation)(?:\s+(?:a|any)\s+(?:letter|word))?|shift key",
        lambda found, no: made("lower_case") if no else None,
    ),
    (
        r"(?:all[- ])?(?:upper[- ]?case|capitals|capital letters|block (?:letters|capitals))(?:\s+(?:letters|only))?",
        _other("upper_case", "lower_case"),
    ),
    (r"(?:all[- ]|full )?caps(?: lock)?(?:\s+only)?", _simple("upper_case")),
]


# ---- language, signs, relative length


def _language(found: re.Match[str], forbidden: bool) -> Effect | None:
    name = next(n for n, words in LANGUAGES.items() if found["name"].lower() in words.split())
    return None if forbidden else made("language", name=name)


def _sign(name: str, sign: str | None, pattern: str) -> Build:
    def build(found: re.Match[str], forbidden: bool) -> Effect | None:
        if not forbidden:
            return made("regex", pattern=pattern)
        return made("avoid", text=sign, name=name) if sign else made("avoid", regex=pattern, name=name)

    return build


_OR_NOT = r",?\s+(?:and\s+)?not\s+(?:so\s+|too\s+|as\s+)?"
"""Between a wish and its opposite, which says the same once more: "brief, not long"."""

_RULES: list[tuple[re.Pattern[str], Build]] = [
    *((_compile(rf"(?<![\w-])(?:{pattern})(?![\w-])"), build) for pattern, build in [*_LENGTHS, *_FORMATS]),
    (_compile(rf"\b(?P<name>{'|'.join(' '.join(LANGUAGES.values()).split())})\b"), _language),
    *(
        (_compile(rf"(?<!\w)(?:{asked})(?!\w)"), _sign(name, sign, p))
        for name, (asked, sign, p) in SIGNS.items()
    ),
    (
        _compile(
            r"\b(?:short and sweet|(?:write|say) less|short(?:er|ened)?|brief(?:er|ly)?|(?:more )?concise(?:ly|r)?|"
            r"(?:more )?succinct(?:ly)?|terse|(?:more )?to the point|"
            r"(?:much )?less (?:wordy|verbose|long|text)|shorten|trim|tighter|fewer words)\b"
            rf"(?:{_OR_NOT}(?:long(?:-winded|er)?|wordy|verbose|lengthy|rambling|detailed)\b)?"
        ),
        _other("shorter", "longer"),
    ),
    (
        _compile(
            r"\b(?:(?:so |too |that |as |very )?(?:wordy|verbose|long-winded|lengthy|rambling|long)|ramble|waffle|"
            r"so many words|too many words|go on and on)\b"
        ),
        lambda found, forbidden: made("shorter") if forbidden else None,
    ),
    (
        _compile(
            r"\b(?:(?:much |a bit )?longer|(?:in )?(?:more|greater) (?:details?|depth|length)|"
            r"more (?:detailed|thorough(?:ly)?)|elaborate|lengthier|more words)\b"
            rf"(?:{_OR_NOT}(?:short(?:er)?|brief(?:er)?|concise|terse)\b)?"
        ),
        _other("longer", "shorter"),
    ),
]

# ---- emoji, questions, code: rules that look at several places of the clause

_EMOJI_WORD = _compile(r"\b(?:emojis?|emoticons?)\b")
_PLAIN_EMOJI = _compile(
    rf"\b(?:a|an|no|some)\s+(?P<name>{'|'.join(sorted(effect_emoji.PLAIN_NAMES, key=len, reverse=True))})s?\b"
    r"|\b(?P<smileys>smileys)\b"
)


def _emoji(clause: str) -> Effect | None:
    wanted, name, at = _which_emoji(clause)
    if at is None:
        return None
    rest = clause[: at[0]] + " " + clause[at[1] :]
    forbidden = NEGATION.search(rest) is not None or clause[slice(*at)].lower().startswith("no ")
    rest = NEGATION.sub(" ", rest)
    where = "end" if END.search(rest) else "start" if START.search(rest) else ""
    if not filler(END.sub(" ", START.sub(" ", rest)), FILLERS | {"very", "off", "up", "line"}):
        return None
    if not forbidden:
        some = {"emoji": wanted[0] if len(wanted) == 1 else wanted} if wanted else {}
        return made("emoji", **some, **({"where": where} if where else {}))
    if where:
        return None
    if not wanted:
        return made("no_emoji")
    if len(wanted) == 1:
        return made("avoid", text=wanted[0])
    return made(
        "avoid", regex=f"(?:{'|'.join(map(effect_emoji.plain, wanted))})\ufe0f?", name=f"{name} emoji"
    )


def _which_emoji(clause: str) -> tuple[list[str], str, tuple[int, int] | None]:
    """The emoji a clause is about ([]: any), their name, and where the clause says so (None: nowhere)."""
    word = _EMOJI_WORD.search(clause)
    if places := effect_emoji.found(clause):
        emoji = clause[slice(*places[0])]
        tail = re.match(r"\s*emojis?\b", clause[places[0][1] :], re.IGNORECASE)
        alone = len(places) == 1
        return [emoji], emoji, (places[0][0], places[0][1] + (tail.end() if tail else 0)) if alone else None
    if word:
        before = list(re.finditer(r"[\w'-]+", clause[: word.start()]))[-3:]
        for first in before:
            name = clause[first.start() : word.start()].strip()
            if emoji := effect_emoji.named(name):
                return emoji, name, (first.start(), word.end())
        return [], "", word.span()
    plain = _PLAIN_EMOJI.search(clause)
    name = plain["name"] or "smiley" if plain else ""
    return (effect_emoji.named(name), name, plain.span()) if plain else ([], "", None)


_QUESTION = _compile(
    r"(?:\b(?:a|an|one|another|some|any|your|own|open|open-ended|follow-?up|short|friendly|relevant|clarifying|thoughtful|"
    r"good|quick|single|brief|simple|interesting)\s+)*\bquestions?(?:\s+mark)?\b(?:\s+back\b)?"
)


def _question(clause: str) -> Effect | None:
    found = _QUESTION.search(clause)
    if found is None:
        return None
    rest = clause[: found.start()] + " " + clause[found.end() :]
    asked = re.search(r"\bask(?:s|ing)?\b|\bpos(?:e|ing)\b", rest, re.IGNORECASE)
    last = END.search(rest)
    offered = re.search(
        r"\b(?:answer|reply|respond)\w*\s+(?:always\s+)?(?:with|in)\s*$", clause[: found.start()], re.I
    )
    rest = re.sub(r"\b(?:ask(?:s|ing)?|pos(?:e|ing))\b", " ", END.sub(" ", rest), flags=re.IGNORECASE)
    if not filler(NEGATION.sub(" ", rest), FILLERS | {"very", "user", "reader", "off", "up", "back", "them"}):
        return None
    if NEGATION.search(rest):
        at_end = {"regex": r"\?\W*\Z", "name": "question at the end"}
        return made("avoid", **(at_end if last else {"text": "?", "name": "questions"}))
    return made("question") if asked or last or offered else None


_EXCLUSIVE = _compile(
    r"\b(?:only|just|nothing but|nothing else|nothing more|solely|purely|exclusively|alone|pure)\b"
    r"|,?\s*\b(?:no|without(?: any)?|skip(?:ping)?(?: the| all| any)?|leave out(?: the| any)?|omit(?: the| any)?|"
    r"(?:don't|do not|never) (?:add|give|include|write)(?: any)?|minus(?: the| any)?)\s+(?:\w+\s+)?"
    r"(?:explanations?|prose|commentary|text|words|chatter|descriptions?|talk|introductions?|intro)\b"
    r"|,?\s*\b(?:don't|do not|never|without)\s+explain(?:ing)?(?:\s+(?:it|anything|them|the(?=\s+code)))?"
)
_CODE = _compile(
    r"\b(?:(?:python|javascript|java|sql|c\+\+|rust|source|program)\s+)?code(?:\s+(?:blocks?|snippets?))?\b|\bcode-only\b"
)


def _code_only(clause: str) -> Effect | None:
    rest, codes = _CODE.subn(" ", _EXCLUSIVE.sub(" ", clause))
    exclusive = _EXCLUSIVE.search(clause) or re.search(r"code-only", clause, re.IGNORECASE)
    understood = codes and exclusive and filler(rest, FILLERS | {"else", "block", "but"})
    return made("code_only") if understood else None
