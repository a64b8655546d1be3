"""Effects from the words in which a person asks for them: "end with 'Onwards and upwards'", "no emoji", "shorter"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import islice

from heedful.judges.effect_kinds import Effect, made
from heedful.judges.effect_phrases import HELD, all_made, placed, replacement, said, unquoted
from heedful.judges.effect_rules import filler, read
from heedful.judges.effect_words import EACH, END, INCLUDE, NEGATION, PHRASE_FILLERS, POLITE, START

_QUOTED = re.compile(
    r"[“”„\"«]\s*(?P<double>[^“”„\"«»]+?)\s*[“”\"»]|‘\s*(?P<curly>.+?)\s*’(?!\w)|(?<!\w)''(?P<two>.+?)''(?!\w)"
    r"|(?<!\w)[’'](?=\S)(?P<single>.+?)(?<=\S)[’'](?!\w)|(?<!`)`(?P<tick>[^`]+)`(?!`)"
)

_LONGEST = 400  # characters; a clause beyond it is a text, and no request that rules can read
_MOST_PIECES = 12


def infer_effects(text: str) -> list[Effect]:
    """The effects that an effect clause asks for, such as "end with 'Onwards and upwards' and use no emoji".

    Quotes of any kind keep a text together; without quotes a text runs to the end of the clause. Returns [] unless
    the clause is understood as a whole: a part that no rule can check is not dropped in silence.
    """
    quotes: list[str] = []

    def hold(found: re.Match[str]) -> str:
        quotes.append(next(group for group in found.groups() if group is not None).strip())
        return f"\ue000{len(quotes) - 1}\ue001"

    clause = re.sub("[\ue000\ue001]", "", " ".join(text.split()))
    clause = _QUOTED.sub(hold, clause).strip().rstrip(".;,").strip()
    effects = _clause(clause, tuple(quotes)) if 0 < len(clause) <= _LONGEST else []
    effects = [effect for i, effect in enumerate(effects) if effect not in effects[:i]]
    return effects if sum(effect.kind == "language" for effect in effects) < 2 else []


_SPLIT = re.compile(
    r"\s*[,;.]\s+(?:(?:and|but|or|then|also)\s+)*|\s+(?:and|but|or|nor|then|plus)\s+(?:(?:also|then)\s+)?|;\s*"
    r"|\s+(?=(?:without|with no|in|under|using|as)\s)",
    re.IGNORECASE,
)
# A piece that starts so is a request of its own, and shares no negation with the piece before it.
_OWN = re.compile(
    r"(?:in|as|with|under|at|within|using|to|only|just|without|no|make|keep|be|answer|reply|respond|give|ask|format|return|"
    r"output|limit|stick|stay|replace|swap|call|address|number|split|organi[sz]e|match|translate|speak)\b"
    rf"|{END.pattern}|{START.pattern}|{INCLUDE.pattern}",
    re.IGNORECASE,
)
_FORBIDDEN_VERB = re.compile(
    r"\b(?:not|never|don't|cannot|can't|mustn't|shouldn't)\s+(?:ever\s+)?(?:answer|reply|respond|write|speak|talk|text|"
    r"send|give|format|put|say|make|be|use)(?:\s+(?:it|them|this|that|anything))?$",
    re.IGNORECASE,
)
_PREPOSITION = re.compile(r"(?:in|as|with|under|at|within|using|only|just|without|no)\b", re.IGNORECASE)


@lru_cache(maxsize=2048)  # the same endings are read again for every way to split what precedes them
def _clause(clause: str, quotes: tuple[str, ...]) -> list[Effect]:
    """The effects of a clause; of its pieces, where each can be read; of free text, to the clause's end."""
    if effects := _whole(clause, quotes):
        return effects
    for at in islice(_SPLIT.finditer(clause), _MOST_PIECES):
        left, right = clause[: at.start()], clause[at.end() :]
        if not at[0].strip() and _FORBIDDEN_VERB.search(left):
            continue  # "do not answer in French" is one request, and no wish for French
        first = _whole(left, quotes) or unquoted(_bare(left), quotes)
        if first and (rest := _after(first, at[0], right, quotes)):
            return first + rest
    return unquoted(_bare(clause), quotes)


def _whole(clause: str, quotes: tuple[str, ...]) -> list[Effect]:
    return read(_straight(clause)) or read(_bare(clause)) or _phrases(_bare(clause), quotes)


def _after(first: Sequence[Effect], joint: str, right: str, quotes: tuple[str, ...]) -> list[Effect]:
    """The effects of what follows a piece, whose verb or negation it may share: "no hashtags or emoji"."""
    forbidding = {"avoid", "no_emoji"}
    if first[-1].kind in forbidding:
        either = re.search(r"\bn?or\b", joint)
        verbs = ["never", "never say"] if either else ["never use"]
        own = NEGATION.match(right) or (_PREPOSITION if either else _OWN).match(_bare(right))
        for verb in [] if own else verbs:
            shared = _clause(f"{verb} {right}", quotes)
            if shared and shared[0].kind in forbidding:
                return shared
    if alone := _clause(right, quotes):
        return alone
    if first[-1].kind in {"include", "emoji"}:
        shared = _clause(f"include {right}", quotes)
        return shared if {effect.kind for effect in shared} <= {"include", "emoji"} else []
    return []


def _straight(clause: str) -> str:
    """With straight apostrophes, and "no emoji" for "emoji-free"."""
    return re.sub(r"\b(\w+)-free\b", r"no \1", clause.replace("’", "'"))


def _bare(clause: str) -> str:
    """Without politeness before the verb, and with straight apostrophes."""
    clause = _straight(clause)
    while found := POLITE.match(clause):
        clause = clause[found.end() :]
    return clause


# ---- with quoted text

_INSTEAD = re.compile(
    r",?\s*(?:instead of|rather than|in place of|not)\s+(?:with\s+)?"
    rf"(?:{HELD.pattern}|[\w' ]{{1,40}})$",
    re.IGNORECASE,
)
_NAME = re.compile(
    r",?\s*(?:and|followed by|then|above|before)\s+(?:my|your|their|his|her|the sender's|the|a) names?$",
    re.IGNORECASE,
)


def _phrases(clause: str, quotes: tuple[str, ...]) -> list[Effect]:
    """The effects of a clause whose texts are quoted and whose other words are all accounted for."""
    held = [quotes[int(i)] for i in HELD.findall(clause)]
    if not held or EACH.search(clause):
        return []
    if effects := replacement(clause, quotes) or _pattern(clause, held) or _titles(clause, held):
        return effects
    instead = _INSTEAD.search(clause)
    if instead and HELD.search(clause[: instead.start()]):
        held = held[:-1] if instead[1] else held
        clause = clause[: instead.start()]
    name = _NAME.search(clause)
    clause = clause[: name.start()] if name else clause
    marks = list(HELD.finditer(clause))
    among = HELD.sub(" ", clause[marks[0].end() : marks[-1].end()])
    if any(known.search(among) for known in (NEGATION, END, START, INCLUDE)):
        return []  # several requests; each text has a verb of its own
    if len(NEGATION.findall(clause)) > 1:
        return []
    either = re.search(rf"{HELD.pattern},?\s+or\s+", clause) is not None
    forbidden = NEGATION.search(clause) is not None
    rest = NEGATION.sub(" ", HELD.sub(" ", clause))
    end, start, verb = END.search(rest), START.search(rest), INCLUDE.search(rest)
    for known in (END, START, INCLUDE):
        rest = known.sub(" ", rest)
    if not filler(re.sub(r"\b(?:n?or|the way|to me|as)\b", " ", rest), PHRASE_FILLERS):
        return []
    if forbidden:
        return _forbidden(held, bool(start), bool(end))
    if len(held) > 1 and (start or end or either):
        return _any_of(held, bool(start), bool(end)) if either else []
    effects = [placed("opening", held[0])] if start else []
    effects += [placed("sign_off", held[0], **({"name_line": True} if name else {}))] if end else []
    if not effects and not name and (verb or re.search(r"\b(?:word|phrase|called?)\b", clause)):
        effects = [said(text) for text in held]
    return all_made(effects)


def _forbidden(texts: Sequence[str], start: bool, end: bool) -> list[Effect]:
    if not start and not end:
        return all_made([made("avoid", text=text) for text in texts])
    effects: list[Effect | None] = []
    for text in texts:
        literal = re.escape(text)
        after = r"(?!\w)" if re.search(r"\w$", text) else ""
        if start:
            effects.append(made("avoid", regex=rf"\A\W*{literal}{after}", name=f"{text} at the start"))
        if end:
            effects.append(made("avoid", regex=rf"(?<!\w){literal}\W*\Z", name=f"{text} at the end"))
    return all_made(effects)


def _any_of(texts: Sequence[str], start: bool, end: bool) -> list[Effect]:
    either = "|".join(rf"(?<!\w){re.escape(text)}(?!\w)" for text in texts)
    before, after = r"\A\W*" if start else "", r"\W*\Z" if end else ""
    return all_made([made("regex", pattern=f"{before}(?:{either}){after}")])


def _pattern(clause: str, held: Sequence[str]) -> list[Effect]:
    named = re.search(r"\b(?:regex|regexp|regular expression|pattern)\b", clause, re.IGNORECASE)
    if not named or len(held) != 1:
        return []
    rest = re.sub(
        r"\b(?:match(?:es|ing)?|fit|satisfy|against)\b", " ", NEGATION.sub(" ", HELD.sub(" ", clause))
    )
    rest = rest.replace(named[0], " ")
    known = filler(INCLUDE.sub(" ", rest), PHRASE_FILLERS)
    present = {"present": False} if NEGATION.search(clause) else {}
    return all_made([made("regex", pattern=held[0], **present)]) if known else []


def _titles(clause: str, held: Sequence[str]) -> list[Effect]:
    if len(held) < 2 or not re.search(r"\b(?:heading|header|title|headed|headlines?)", clause, re.I):
        return []
    rest = re.sub(
        r"\b(?:sub)?(?:headings?|headers?|titles?|headed|titled|parts?|sections?|under|three|two|four)\b",
        " ",
        clause,
    )
    return (
        all_made([made("headings", titles=list(held))]) if filler(HELD.sub(" ", rest), PHRASE_FILLERS) else []
    )
