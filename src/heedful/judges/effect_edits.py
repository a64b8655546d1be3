"""Editors: a revision of a text that has the effect, made by rule, with the rest of the text kept.

An editor takes the effect's options and a text and gives the revised text, or None where no good one can be made by
rule. It need not look whether the text has the effect already.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence

from heedful.evals.texts import words
from heedful.judges import effect_checks as checks
from heedful.judges import effect_emoji
from heedful.judges.effect_checks import Options
from heedful.judges.effect_text import (
    CLAUSE,
    MARKER,
    Unit,
    capital,
    clauses,
    cut,
    has_token,
    header_end,
    is_greeting,
    join,
    parts,
    units,
)
from heedful.judges.effect_words import word_set

QUESTION = "What do you think?"
_SHARE_KEPT = 0.6  # of the sentences, where a text should become shorter
_GREETINGS = word_set("ahoy hi hiya hello hey howdy greetings yo dear salutations aloha hola bonjour")
_GREETING = re.compile(
    rf"(?:{'|'.join(sorted(_GREETINGS))}|good (?:morning|afternoon|evening|day))(?: there| all| everyone)?(?!\w)",
    re.IGNORECASE,
)
# A text that must start with an article goes on with this where it does not start with another one.
_ARTICLES = {
    "the": "gist",
    "a": "short answer",
    "an": "answer",
    "this": "is the answer",
    "my": "answer",
    "our": "answer",
    "your": "answer",
}
# Sentences whose first word is one of these keep their meaning when it loses its capital.
_LOWERED = word_set("""
    a an the this that these those we you it he she they there here in on at to for from as if when while
    after before with your our my their its his her some many most all each every one it's there's that's
    you'll we'll please thank thanks
    """)
_PLEASANTRY = re.compile(r"I (?:hope|trust) (?:this|that|you|all|everything)\b", re.IGNORECASE)
# A sentence stands without these.
_LIGHT = word_set("""
    very really just quite simply so well actually basically please sorry hi hello hey oh ah um wow great
    okay ok lol haha indeed certainly however therefore rather somewhat sure absolutely
    """)

# ---- places in a text


def _append(text: str, piece: str, *, stop: bool = False) -> str:
    """The text with a piece at the end of its last paragraph, or below it where that is a list, heading or code."""
    text = text.rstrip()
    last = units(text)
    if not last:
        return piece
    line = text[text.rfind("\n") + 1 :]
    if last[-1].introduces or last[-1].kind == "code" or MARKER.match(line) or line.startswith(("|", "  ")):
        return f"{text}\n\n{piece}"
    ended = re.search(r"[.!?…:。！？][\"'”’)\]*_]*$", text) is not None or not re.search(r"\w\W?$", text)
    return f"{text}{'.' if stop and not ended else ''} {piece}"


def _decapitalised(text: str) -> str:
    first = re.match(r"[A-Z][\w'’]*", text)
    lowered = bool(first) and first[0].lower().replace("’", "'") in _LOWERED
    return text[:1].lower() + text[1:] if lowered else text


def _put(front: str, body: str, back: str) -> str:
    return (front + body.strip("\n").rstrip() + back).strip()


# ---- words and signs


def sign_off(o: Options, text: str) -> str | None:
    """The phrase as a last paragraph, in place of a closing formula, a signature or a placeholder for a name."""
    phrase = o["text"].strip()
    if not has_token(phrase) or effect_emoji.only_emoji(phrase):
        return _append(text, phrase)
    kept = parts(text, formulas=[phrase])
    body = (kept.head + kept.body).rstrip()
    return f"{body}\n\n{phrase}" if body else None


def opening(o: Options, text: str) -> str:
    """The phrase first, below a subject line; a greeting such as "Dear Sam," gives way to a phrase that greets."""
    phrase = o["text"].strip()
    start = header_end(text)
    header, message = text[:start], text[start:].lstrip()
    line, newline, rest = message.partition("\n")
    greets = words(phrase)[:1] and words(phrase)[0] in _GREETINGS
    inline = _GREETING.match(message) if greets and len(words(phrase)) <= 2 else None
    if inline:
        after = message[inline.end() :]
        return f"{header}{phrase.rstrip(' ,.!') if after.startswith((' ', ',', '!')) else phrase}{after}"
    if is_greeting(line) and newline:
        above = f"{phrase} {_ARTICLES[phrase.lower()]}:" if phrase.lower() in _ARTICLES else phrase
        return f"{header}{phrase}{newline}{rest}" if greets else f"{header}{above}\n\n{message}"
    quote = re.match(r"[\"'“‘*_]*", message)
    quoted, message = (quote[0], message[quote.end() :]) if quote else ("", message)
    if MARKER.match(quoted + message) or (quoted + message).startswith(("#", "```", "|", "**", "__")):
        return f"{header}{phrase}\n\n{quoted}{message}"
    if not re.search(r"\w$", phrase):
        return f"{header}{quoted}{phrase} {message}"
    if phrase.lower() in _ARTICLES:
        without = re.sub(r"^(?:The|A|An)\s+", "", message)
        rest = without if without != message else f"{_ARTICLES[phrase.lower()]}: {_decapitalised(message)}"
        return f"{header}{quoted}{phrase} {rest}"
    comma = len(words(phrase)) <= 4
    return f"{header}{quoted}{phrase}{', ' if comma else '. '}{_decapitalised(message) if comma else message}"


def include(o: Options, text: str) -> str:
    """The words as a short last sentence of the body, before a mail's closing."""
    kept, phrase = parts(text), o["text"].strip()
    sentence = len(words(phrase)) > 2
    if sentence and re.search(r"\w$", phrase):
        phrase = capital(phrase) + "."
    return _put(kept.head, _append(kept.body, phrase, stop=sentence), kept.closing)


def avoid(o: Options, text: str) -> str | None:
    """Without what it should avoid: signs and light words are cut, other words go with their sentence if they can."""
    phrase = o.get("text", "").strip()
    if phrase == "!":
        return re.sub(r"!+", ".", re.sub(r"\?!+|!+\?", "?", text))
    if phrase == "?":
        return re.sub(r"\?+", ".", text)
    if phrase in ("—", "–"):
        text = re.sub(rf"\s*{phrase}\s*", ", ", text)
    if any(checks.avoided(o, line) for block in _code(text) for line in block[1:-1]):
        return None
    light = phrase.lower() in _LIGHT or phrase.lower().endswith("ly") or not re.search(r"\w", phrase)
    if not light:
        text = _without_sentences(o, text)
    for _ in range(5):
        places = checks.avoided(o, text)
        if not places:
            return re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE).strip()
        text = cut(text, places)
    return None


def _code(text: str) -> list[list[str]]:
    """The lines of each fenced block, the fences first and last."""
    return [u.text.splitlines() for u in units(text) if u.kind == "code"]


def _without_sentences(o: Options, text: str) -> str:
    """Without the sentences that have what to avoid, where most of the body stays; else the text as it is."""
    kept = parts(text)
    pieces = units(kept.body)
    clean = [u for u in pieces if not checks.avoided(o, u.text) or u.kind == "code"]
    rest = join(clean)
    enough = len(words(rest)) >= max(checks.MIN_BODY, _SHARE_KEPT * len(words(kept.body)))
    lost_lead = any(u.kind == "item" and u not in clean for u in pieces)
    return _put(kept.head, rest, kept.closing) if enough and not lost_lead else text


def replacement(o: Options, text: str) -> str:
    """The new words in place of the old ones, capitals kept."""
    for start, end in reversed(checks.old_places(o, text)):
        old, new = text[start:end], o["new"]
        if o["old"].casefold() != new.casefold() and o["old"][:1].islower():
            if len(old) > 1 and old.isupper():
                new = new.upper()
            elif old[:1].isupper():
                new = capital(new)
        text = text[:start] + new + text[end:]
    return text


def emoji(o: Options, text: str) -> str:
    """An emoji after the last words of the body, before a mail's closing, or where the options want it."""
    wanted = (checks.wanted_emoji(o) or [effect_emoji.DEFAULT])[0]
    if o.get("where") == "start":
        start = header_end(text)
        return f"{text[:start]}{wanted} {text[start:].lstrip()}"
    if o.get("where") == "end":
        return _append(text, wanted)
    kept = parts(text)
    return _put(kept.head, _append(kept.body, wanted), kept.closing)


def no_emoji(o: Options, text: str) -> str:
    """Without any emoji."""
    return re.sub(r"[ \t]+$", "", cut(text, effect_emoji.found(text)), flags=re.MULTILINE).strip()


def question(o: Options, text: str) -> str | None:
    """A short question last, in place of a mail's closing and signature."""
    kept = parts(text)
    body = (kept.head + kept.body).rstrip()
    if checks.asks(o, body, None):
        return body
    return _append(body, QUESTION, stop=True) if kept.body.strip() else None


# ---- length


def length(o: Options, text: str) -> str | None:
    """The first sentences that fit, with a mail's greeting and closing where there is room for them."""
    if not checks.within({"unit": o["unit"], "least": o.get("least", 0)}, text, None) or "most" not in o:
        return None
    return _first_sentences(text, lambda t: checks.within(o, t, None), 1.0, floor(o))


def floor(o: Options) -> int:
    """The words a body must have under a limit of length; fewer than usual where the limit is very low."""
    most = o.get("most", math.inf)
    allowed = {"words": most // 2, "characters": most // 12}.get(o["unit"], math.inf)
    return max(1, int(min(checks.MIN_BODY, allowed)))


def shorter(o: Options, text: str) -> str | None:
    """The first of the sentences, about three in five, with a mail's greeting and closing."""
    return _first_sentences(text, lambda t: checks.is_shorter(t, text), _SHARE_KEPT, checks.MIN_BODY)


def _first_sentences(text: str, fits: Callable[[str], bool], share: float, least: int) -> str | None:
    kept = parts(text)
    pieces = units(kept.body)
    if len(pieces) > 1 and _PLEASANTRY.match(pieces[0].text):
        pieces = pieces[1:]
    most = math.ceil(share * len(pieces))
    for front, back in ((kept.head, kept.closing), (kept.head, ""), ("", "")):
        for count in range(most, 0, -1):
            body = _without_announcement(pieces[:count])
            candidate = _put(front, join(body), back)
            if body and not body[-1].introduces and fits(candidate) and len(words(join(body))) >= least:
                return candidate
    first = next((u for u in pieces if u.kind != "code" and not u.introduces), None)
    for found in reversed(list(CLAUSE.finditer(first.text)) if first else []):
        candidate = found.string[: found.start()].rstrip(" ,;:–—-") + "."
        if fits(candidate) and len(words(candidate)) >= least:
            return candidate
    return None


def _without_announcement(pieces: Sequence[Unit]) -> list[Unit]:
    kept = list(pieces)
    while len(kept) > 1 and kept[-1].introduces:
        kept.pop()
    return kept


# ---- format


def _sentences(text: str, at_least: int) -> list[str] | None:
    """The sentences of a body without list markers and headings, cut into clauses where there are too few."""
    pieces = units(text)
    if any(u.kind == "code" for u in pieces):
        return None
    kept = [u.text.strip() for u in pieces if u.kind != "heading" and words(u.text)]
    if len(kept) < at_least:
        kept = [clause for sentence in kept for clause in clauses(sentence)]
    return kept if len(kept) >= at_least else None


def bullets(o: Options, text: str) -> str | None:
    """Each sentence or list item as a bullet; None for code and for one sentence that has no clauses."""
    return _listed(text, lambda i: "- ")


def numbers(o: Options, text: str) -> str | None:
    """Each sentence or list item with its number; None as for `bullets`."""
    return _listed(text, lambda i: f"{i}. ")


def _listed(text: str, marker: Callable[[int], str]) -> str | None:
    """Every item of a list, or every sentence where the body has no list, as an item; announcements stay above."""
    kept = parts(text)
    pieces = units(kept.body)
    if any(u.kind == "code" for u in pieces):
        return None
    items: list[str] = []
    above: list[str] = []
    has_list = sum(u.kind == "item" for u in pieces) > 1
    for i, u in enumerate(pieces):
        if u.kind == "heading" or (u.introduces and not items and i + 1 < len(pieces)):
            above.append(u.text.strip())
        elif has_list and items and u.kind == "sentence" and "\n" not in u.gap:
            items[-1] += " " + u.text.strip()
        else:
            items.append(u.text.strip())
    if len(items) == 1:
        items = clauses(items[0])
    if len(items) < 2:
        return None
    listed = "\n".join(marker(i) + item for i, item in enumerate(items, start=1))
    body = "\n\n".join([*above, listed])
    return _put(kept.head, body, "\n\n" + kept.closing.strip() if kept.closing.strip() else "")


def headings(o: Options, text: str) -> str | None:
    """The sentences in equal parts under short headings; the titles of the options, or Part 1, Part 2 and so on."""
    kept = parts(text)
    titles = list(o.get("titles", []))
    count = o.get("count") or len(titles) or 3
    sentences = _sentences(kept.body, count)
    if sentences is None and not o.get("count") and not titles:
        count, sentences = 2, _sentences(kept.body, 2)
    if sentences is None:
        return None
    titles = titles or [f"Part {i}" for i in range(1, count + 1)]
    share = len(sentences) / count
    blocks = []
    for i, title in enumerate(titles):
        part = " ".join(sentences[round(i * share) : round((i + 1) * share)])
        blocks.append(f"## {title}\n\n{part}")
    return _put(kept.head, "\n\n".join(blocks), "\n\n" + kept.closing.strip() if kept.closing.strip() else "")


def code_only(o: Options, text: str) -> str | None:
    """The longest fenced block, or the longest run of lines that read as code, as one fenced block."""
    blocks = re.findall(r"```([\w+#.-]*)[ \t]*\n(.*?)(?:\n[ \t]*```|\Z)", text, re.DOTALL)
    blocks = [
        (tag, inner.rstrip()) for tag, inner in blocks if "```" not in inner and checks.code_lines(inner)
    ]
    if not blocks and "```" not in text:
        lines = [line for line in text.splitlines() if line.strip()]
        runs: list[list[str]] = [[]]
        for line, is_code in zip(lines, checks.code_like(lines)):
            if is_code:
                runs[-1].append(line)
            elif runs[-1]:
                runs.append([])
        blocks = [("", "\n".join(run)) for run in runs if checks.code_lines("\n".join(run))]
    if not blocks:
        return None
    tag, inner = max(blocks, key=lambda block: checks.code_lines(block[1]))
    return f"```{tag}\n{inner}\n```"


def as_json(o: Options, text: str) -> str:
    """The text as the one value of a JSON object, under "answer"."""
    return json.dumps({"answer": text.strip()}, ensure_ascii=False)


def lower_case(o: Options, text: str) -> str:
    """All letters small."""
    return text.lower()


def upper_case(o: Options, text: str) -> str:
    """All letters capitals."""
    return text.upper()
