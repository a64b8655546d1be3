"""Effects with a text of the user's: one word instead of another, and texts that stand without quotes.

Quoted texts are held aside as `HELD` marks, so that nothing in them is taken for the words of the request.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from heedful.judges import effect_emoji
from heedful.judges.effect_kinds import Effect, made
from heedful.judges.effect_words import DESCRIBED, EACH, MEANT, OBJECT, SIGNS, SLANG, word_set

HELD = re.compile("\ue000(\\d+)\ue001")
_LONGEST = 12  # words of an unquoted text; more is a description


def all_made(effects: Sequence[Effect | None]) -> list[Effect]:
    """The effects, or none of them where one could not be made."""
    return [effect for effect in effects if effect] if all(effects) else []


def placed(kind: str, text: str, **more: bool) -> Effect | None:
    """A text at the start (`opening`) or the end (`sign_off`) of the answer; an emoji is an emoji there."""
    if len(wanted := effect_emoji.only_emoji(text)) == 1:
        return made("emoji", emoji=wanted[0], where="end" if kind == "sign_off" else "start")
    return made("question") if kind == "sign_off" and text == "?" else made(kind, text=text, **more)


def said(text: str) -> Effect | None:
    """A text anywhere in the answer."""
    wanted = effect_emoji.only_emoji(text)
    return made("emoji", emoji=wanted[0]) if len(wanted) == 1 else made("include", text=text)


def _free(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE | re.VERBOSE)


# ---- one word instead of another

_ONE = (
    r"(?:the\s+(?:words?|phrase|term|symbol|sign|character|spelling)\s+)?"
    r"(?P<{0}>" + HELD.pattern.replace("(", "(?:") + r"|(?:(?:the|an)\s+)?[^\s,;\ue000]+)"
)
_OLD, _NEW = _ONE.format("old"), _ONE.format("new")
_ALL = r"(?:(?:every|all|each|any)\s+)?(?:(?:instances?|occurrences?|uses?)\s+of\s+)?"
_USE = r"(?:(?:always\s+)?(?:use|using|write|writing|say|saying|put|prefer|type|typing|spell|choose))"
_FOR = r"(?:instead\s+of|rather\s+than|in\s+place\s+of|in\s+lieu\s+of|(?:and\s+)?not|(?:and\s+)?never)"
# "do not answer" forbids to answer; "do" is no word to say instead.
_NO_VERB = r"(?!(?:do|does|did|should|must|shall|will|would|can|could|may|might|is|are|be)\s+(?:not|never)\b)"
_END = r"(?:\s+instead)?(?:\s+(?:everywhere|every\s+time|throughout|always|please))?"
_REPLACEMENTS = [
    _free(pattern + _END)
    for pattern in (
        rf"{_USE}\s+{_NEW}\s*,?\s+{_FOR}\s+(?:{_USE}\s+)?{_OLD}",
        rf"replace\s+{_ALL}{_OLD}\s+(?:with|by)\s+{_NEW}",
        rf"substitute\s+{_NEW}\s+for\s+{_ALL}{_OLD}",
        rf"substitute\s+{_ALL}{_OLD}\s+(?:with|by)\s+{_NEW}",
        rf"(?:never|don't|do\s+not|stop)\s+{_USE}\s+{_OLD}\s*[,;:.]?\s+(?:but|(?:(?:but|and)\s+)?{_USE})\s+{_NEW}",
        rf"instead\s+of\s+(?:{_USE}\s+)?{_OLD}\s*,?\s+{_USE}\s+{_NEW}",
        rf"{_NO_VERB}{_NEW}\s+{_FOR}\s+{_OLD}",
    )
]
# These also mean other things ("use emoji for fun", "change the tone to formal"): one side must be quoted or a sign.
_LOOSE = [
    _free(pattern + _END)
    for pattern in (
        rf"{_USE}\s+{_NEW}\s*,?\s+(?:over|for)\s+{_OLD}",
        rf"(?:replace|swap|exchange|change|turn)\s+{_ALL}{_OLD}\s+(?:with|by|for|to|into)\s+{_NEW}",
    )
]


def replacement(clause: str, quotes: Sequence[str]) -> list[Effect]:
    """The effect of "use X instead of Y" in its forms, quoted or not; [] for other clauses."""
    for pattern in [*_REPLACEMENTS, *_LOOSE]:
        found = pattern.fullmatch(clause)
        if found is None:
            continue
        given = HELD.search(clause) or re.search(r"\W", found["old"] + found["new"])
        texts = [_one(found[name], quotes) for name in ("old", "new")]
        if all(texts) and (given or pattern not in _LOOSE):
            return all_made([made("replace", old=texts[0], new=texts[1])])
    return []


def _one(text: str, quotes: Sequence[str]) -> str:
    """A quoted text, a word, or the sign that is named ("the ampersand"); "" for another word with an article."""
    if held := HELD.fullmatch(text):
        return quotes[int(held[1])]
    word = re.sub(r"^(?:the|an)\s+", "", text, flags=re.IGNORECASE)
    for asked, sign, _ in SIGNS.values():
        if sign and re.fullmatch(asked, word, re.IGNORECASE):
            return sign
    return word if word == text and word not in DESCRIBED else ""


# ---- texts without quotes

_WITH = r"(?:with|by\s+(?:saying|writing|adding|using)|using|on|as|in|saying)\s*:?\s+"
_TEXT = r"""(?P<given>(?:(?:the|your|my)\s+)?(?:exact\s+)?
    (?:hashtag|symbol|words?|phrase|line|sentence|expression|term|acronym|abbreviation|slang|name)\s*:?\s+)?(?P<text>.+)"""
_SAYING = r"(?:say|says|saying|utter|uttering)"
_MENTION = r"(?:includ(?:e|es|ing)|mention(?:s|ing)?|contain(?:s|ing)?)"
_WRITING = r"""(?:us(?:e|es|ing)|writ(?:e|es|ing)|add(?:s|ing)?|insert(?:ing)?|put
    |(?:throw|slip|drop|work|sprinkle)\s+in)"""
_NO = r"""(?:(?:never|don't|do\s+not)(?:\s+ever)?|stop|avoid|quit|refrain\s+from|without|no|not|shouldn't|must\s+not
    |mustn't|can't|cannot)\s+"""
_BE = r"(?:(?:should|must|has\s+to)\s+be|is|are|be)"
_TAIL = re.compile(
    r"[,\s]+(?:please|always|every time|each time|at all|ever|somewhere|anywhere|once|at least once|instead|though|too|"
    r"as well|again|in (?:it|them|there|your answers?|the (?:answer|reply|text)))$",
    re.IGNORECASE,
)


_DESCRIBING = word_set("about of like that which from for with in")  # "the line about the weather"


def _anything(text: str) -> bool:
    """Whether a text is given rather than described: "Stay curious", not "a short summary"."""
    return text.split()[0] not in MEANT and not any(w.strip(".,!?") in DESCRIBED for w in text.split())


def _sign_or_slang(text: str) -> bool:
    """Whether a text can only be meant letter by letter: signs, abbreviations, slang."""
    return all(w.lower() in SLANG or re.search(r"[^\w'’,.;:()-]", w) for w in text.split())


def _named(text: str) -> bool:
    """Whether a text is a sign, slang, a name or a number."""
    return all(w[:1].isupper() or w.isdigit() or _sign_or_slang(w) for w in text.split())


_Reading = tuple[re.Pattern[str], Callable[[str], bool], Callable[[str], Effect | None]]
"""A form of clause, whether its text is one to take as it stands, and the effect."""


def _readings() -> list[_Reading]:
    def end(text: str) -> Effect | None:
        return placed("sign_off", text)

    def start(text: str) -> Effect | None:
        return placed("opening", text)

    def never(text: str) -> Effect | None:
        return made("avoid", text=text)

    last = r"(?:sign-?off|closing|signature|(?:last|final|closing)\s+(?:words?|line|sentence|phrase))"
    first = r"(?:opening|(?:very\s+)?(?:first|opening)\s+(?:words?|line|sentence|phrase))"
    at_end = rf"(?:as\s+(?:the|a|your|my)\s+{last}|(?:at|to)\s+the\s+(?:very\s+)?(?:end|bottom))"
    at_start = rf"(?:(?:as\s+)?(?:the|your)\s+{first}|(?:at|to)\s+the\s+(?:very\s+)?(?:start|beginning|top))"
    put = r"(?:use|add|put|write|have|include|append|make)"
    forms: list[tuple[str, Callable[[str], bool], Callable[[str], Effect | None]]] = [
        (
            r"(?:end|clos|finish|conclud|sign(?:[- ]?off)?|wrap\s+up|round\s+off)(?:e|ing|s|es)?\s+"
            rf"{OBJECT}{_WITH}{_TEXT}",
            _anything,
            end,
        ),
        (rf"sign[- ]?off\s*:?\s+{_TEXT}", _anything, end),
        (rf"(?:the|your|my|make\s+the)\s+{last}\s+{_BE}\s+{_TEXT}", _anything, end),
        (rf"{put}\s+{_TEXT}\s+{at_end}", _anything, end),
        (
            rf"(?:start|begin|open|lead|kick\s+off|greet)(?:ning|ing|s)?\s+{OBJECT}{_WITH}{_TEXT}",
            _anything,
            start,
        ),
        (rf"(?:the|your|my|make\s+the)\s+{first}\s+(?:{_BE}\s+)?{_TEXT}", _anything, start),
        (rf"{put}\s+{_TEXT}\s+{at_start}", _anything, start),
        (rf"{_NO}(?:ever\s+)?{_SAYING}\s+{_TEXT}", _anything, never),
        (rf"{_NO}{_MENTION}\s+{_TEXT}", _named, never),
        (rf"{_NO}(?:{_WRITING}\s+)?{_TEXT}", _sign_or_slang, never),
        (rf"{_SAYING}\s+{_TEXT}", _anything, said),
        (rf"(?:call|address|refer\s+to)\s+(?:me|them|us|him|her)\s+(?:as\s+)?{_TEXT}", _named, said),
        (rf"{_MENTION}\s+(?:a\s+)?{_TEXT}", _named, said),
        (rf"{_WRITING}\s+(?:a\s+)?{_TEXT}", _sign_or_slang, said),
    ]
    return [(_free(pattern), literal, make) for pattern, literal, make in forms]


_READINGS = _readings()


def unquoted(clause: str, quotes: Sequence[str]) -> list[Effect]:
    """The effect of a clause whose text has no quotes; the text runs to the clause's end.

    [] for a text that is described rather than given ("end with a summary"), and for any clause of another form.
    """
    if HELD.search(clause) or EACH.search(clause):
        return []
    if effects := replacement(clause, quotes):
        return effects
    for pattern, literal, make in _READINGS:
        if found := pattern.fullmatch(clause):
            text = _given(found, literal)
            return all_made([make(text)]) if text else []
    return []


def _given(found: re.Match[str], literal: Callable[[str], bool]) -> str:
    """The text of a match; "" where it is described or too long."""
    text = found["text"].strip().strip("\"'“”‘’`")
    while (tail := _TAIL.search(text)) and tail.start():
        text = text[: tail.start()]
    text = text.strip(" ,;:") if len(text) > 2 else text.strip()
    named = re.fullmatch(r"(?:(?:the|a|any)\s+)?([^\w\s]+)\s+(?:symbol|sign|character|mark)s?", text, re.I)
    text = named[1] if named else text
    wanted = bool(text) and len(text.split()) <= _LONGEST
    described = found["given"] and text.split()[:1] and text.split()[0] in _DESCRIBING
    return text if wanted and not described and (found["given"] or literal(text)) else ""
