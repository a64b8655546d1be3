"""Whether a text has an effect, and what of the text is the effect's own: one check and one body for each kind.

A check takes the effect's options, the text, and the text it started from, which only relative kinds look at.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from heedful.errors import HeedfulError
from heedful.evals.texts import words
from heedful.judges import effect_emoji, effect_text

Options = Mapping[str, Any]

MIN_BODY = 8  # words; an answer that is the effect alone, such as a sign-off without a mail, is no answer
NOTICED = 0.1  # a change of length below this share is noise
_BULK = 0.5  # share of the body's words that must stand in the list for the answer to be one
_SHORT_QUESTION = 6  # words; a closing question this short is put there by the effect


@lru_cache(maxsize=256)
def compiled(pattern: str) -> re.Pattern[str]:
    """A user's regular expression, `^` and `$` being the ends of lines. Raises HeedfulError saying what is wrong."""
    try:
        return re.compile(pattern, re.MULTILINE)
    except (re.error, OverflowError, RecursionError) as error:
        at = getattr(error, "pos", None)
        where = "" if at is None else f" at character {at + 1}"
        raise HeedfulError(
            f"the pattern {pattern!r} does not compile: {getattr(error, 'msg', error)}{where}"
        ) from error


# ---- words and signs


def ends_with(o: Options, text: str, start: str | None) -> bool:
    """Whether the text ends with the phrase; under `name_line`, a last line of at most four words may follow."""
    if effect_text.at_end(text, o["text"]):
        return True
    above, _, last = text.rstrip().rpartition("\n")
    name = o.get("name_line", False) and 1 <= len(words(last)) <= 4
    return bool(name and effect_text.at_end(above, o["text"]))


def starts_with(o: Options, text: str, start: str | None) -> bool:
    """The answer's first words; the lines `Subject:`, `To:` and so on of a mail are not counted."""
    message = text[effect_text.header_end(text) :]
    return any(effect_text.at_start(t, o["text"]) is not None for t in (text, message))


def includes(o: Options, text: str, start: str | None) -> bool:
    """Whether the text has the phrase, upper or lower case."""
    return bool(effect_text.spans(text, o["text"]))


def avoided(o: Options, text: str) -> list[effect_text.Span]:
    """Where a text has what it should avoid."""
    if "regex" in o:
        return [m.span() for m in compiled(o["regex"]).finditer(text) if m[0]]
    if wanted := effect_emoji.only_emoji(o["text"]):
        return effect_emoji.matching(text, wanted)
    return effect_text.spans(text, o["text"])


def avoids(o: Options, text: str, start: str | None) -> bool:
    """Whether the text has nothing of what it should avoid."""
    return not avoided(o, text)


def old_places(o: Options, text: str) -> list[effect_text.Span]:
    """Where a text still has the word to replace; within the new words it may stay."""
    new = new_places(o, text)
    same = o["old"].casefold() == o["new"].casefold()
    old = [
        (a, b) for a, b in effect_text.spans(text, o["old"]) if not same or not text[a:b].startswith(o["new"])
    ]
    return [(a, b) for a, b in old if same or not any(x <= a and b <= y for x, y in new)]


def new_places(o: Options, text: str) -> list[effect_text.Span]:
    """Where a text has the new words."""
    places = effect_text.spans(text, o["new"])
    if o["old"].casefold() == o["new"].casefold():
        return [(a, b) for a, b in places if text[a:b].startswith(o["new"])]
    return places


def replaced(o: Options, text: str, start: str | None) -> bool:
    """Whether the text has the new words and nowhere the old ones."""
    return bool(new_places(o, text)) and not old_places(o, text)


def wanted_emoji(o: Options) -> list[str]:
    """The emoji of which any will do; [] where every emoji will."""
    emoji = o.get("emoji", [])
    return effect_emoji.only_emoji(emoji) if isinstance(emoji, str) else list(emoji)


def has_emoji(o: Options, text: str, start: str | None) -> bool:
    """Whether the text has one of the wanted emoji where it is wanted."""
    places = effect_emoji.matching(text, wanted_emoji(o))
    if not places or o.get("where", "anywhere") == "anywhere":
        return bool(places)
    if o["where"] == "end":
        return not effect_text.has_token(text[places[-1][1] :])
    return not effect_text.has_token(text[effect_text.header_end(text) : places[0][0]])


def no_emoji(o: Options, text: str, start: str | None) -> bool:
    """Whether the text has no emoji; emoticons such as `:)` are none."""
    return not effect_emoji.found(text)


def matches(o: Options, text: str, start: str | None) -> bool:
    """Whether the pattern is found, or is not where `present` is false."""
    return (compiled(o["pattern"]).search(text) is not None) == o.get("present", True)


# ---- length


def measure(unit: str, text: str) -> int:
    """The length of a text in words, characters, paragraphs or sentences.

    A list item without a point is a sentence too; a mail's subject, greeting and closing are none.
    """
    if unit == "characters":
        return len(text.strip())
    if unit == "paragraphs":
        return len([block for block in re.split(r"\n\s*\n", text) if block.strip()])
    if unit == "words":
        return len(words(text))
    return sum(bool(words(piece.text)) for piece in effect_text.units(effect_text.parts(text).body))


def within(o: Options, text: str, start: str | None) -> bool:
    """Whether the length lies within the bounds."""
    length = measure(o["unit"], text)
    return o.get("least", 0) <= length <= o.get("most", length)


def is_shorter(text: str, start: str | None) -> bool:
    """Whether the larger of the two lost more than a tenth of its words; False where there is no start."""
    if start is None:
        return False
    now, then = len(words(text)), len(words(start))
    return then - now > NOTICED * then


def shorter(o: Options, text: str, start: str | None) -> bool:
    """Whether the text is noticeably shorter than its start."""
    return is_shorter(text, start)


def longer(o: Options, text: str, start: str | None) -> bool:
    """Whether the text is noticeably longer than its start; False where there is no start."""
    return start is not None and is_shorter(start, text)


# ---- format


def _in_list(text: str, marked: re.Pattern[str]) -> bool:
    """Whether at least two items hold at least half of the body's words."""
    count = inside = total = 0
    within_item = False
    for line in effect_text.parts(text).body.splitlines():
        item = marked.match(line) is not None
        within_item = item or (within_item and bool(re.match(r"\s+\S", line)))
        count += item
        length = len(words(line)) - (bool(re.match(r"\W*\d", line)) if item else 0)
        total += length
        inside += length * within_item
    return count >= 2 and inside >= _BULK * total and inside > 0


BULLET = re.compile(r"[ \t]*[-*•–—◦▪‣·+][ \t]+\S")
NUMBER = re.compile(
    r"[ \t]*(?:#{1,6}[ \t]+)?(?:\*\*)?(?:\(?\d{1,3}[.)]|[Ss]tep \d{1,3}[:.])(?:\*\*)?[ \t]+\S"
)


def bulleted(o: Options, text: str, start: str | None) -> bool:
    """Whether the body is mostly a list of at least two bullets."""
    return _in_list(text, BULLET)


def numbered(o: Options, text: str, start: str | None) -> bool:
    """Whether the body is mostly a list of at least two numbered items."""
    return _in_list(text, NUMBER)


def headed(o: Options, text: str, start: str | None) -> bool:
    """Whether the text has headed parts, each with words below its heading, under the titles where some are given."""
    titles: list[str] = []
    filled: list[bool] = []
    for line in text.splitlines():
        if effect_text.HEADING.match(line):
            titles.append(line)
            filled.append(False)
        elif filled and words(line):
            filled[-1] = True
    wanted = o.get("titles", [])
    right = all(effect_text.spans(title, w) for title, w in zip(titles, wanted))
    count = o.get("count") or len(wanted)
    return bool(filled) and all(filled) and right and (len(filled) == count if count else len(filled) >= 2)


_BLOCK = re.compile(r"```[\w+#.-]*[ \t]*\n(.*?)\n?[ \t]*```", re.DOTALL)
_CODE_LINE = re.compile(
    r"""\s*(?:
    [\w.\[\]'"]+(?:\s*,\s*[\w.]+)*\s*(?:[-+*/%|&]?=|:=)\s*\S.*        # an assignment
    |(?:const|let|var|int|float|double|char|auto|String|public|private|static|void)\s+\w+.*[;={(].*
    |[A-Za-z_][\w.]*\(.*\)\s*[;:{]?\s*(?:\#.*|//.*)?                  # a call
    |(?:def|class|for|while|if|elif|else|try|except|finally|with|async|fn|func|function|switch|case)\b.*[:{]\s*(?:\#.*|//.*)?
    |import\s+[\w.]+(?:\s+as\s+\w+|\s*,\s*[\w.]+)*;?
    |from\s+[\w.]+\s+import\s+.+
    |assert\s+.*[=<>(].*|return\b.*|pass|break|continue
    |@\w.*|\#include.*|using\s+namespace.*
    |(?:SELECT|INSERT\s+INTO|UPDATE|DELETE\s+FROM|CREATE\s+TABLE|FROM|WHERE|GROUP\s+BY|ORDER\s+BY)\b.*
    |</?[a-zA-Z!][^>]*>.*
    |[\]\[{}();,]+
    )\s*""",
    re.VERBOSE,
)
_COMMENT = re.compile(r"\s*(?:#|//|/\*|\*/|<!--|--\s)")


def code_like(lines: list[str]) -> list[bool]:
    """For each line whether it reads as code; lines indented below a line of code do."""
    result: list[bool] = []
    for line in lines:
        deeper = bool(result) and result[-1] and re.match(r"(?: {2,}|\t)\S", line) is not None
        result.append(deeper or _COMMENT.match(line) is not None or _CODE_LINE.fullmatch(line) is not None)
    return result


def code(text: str) -> str | None:
    """The code of a text that is nothing but code: one fenced block, or lines that read as code; else None."""
    block = _BLOCK.fullmatch(text.strip())
    if block and "```" not in block[1]:
        return block[1]
    lines = [line for line in text.splitlines() if line.strip()]
    only = bool(lines) and "```" not in text and all(code_like(lines))
    return text if only and code_lines(text) else None


def code_lines(text: str) -> int:
    """Lines that are neither empty nor a comment."""
    return sum(bool(line.strip()) and not _COMMENT.match(line) for line in text.splitlines())


def has_code(text: str) -> bool:
    """Whether a text has a line of code anywhere."""
    lines = [line for line in text.splitlines() if line.strip()]
    return "```" in text or any(
        is_code and not _COMMENT.match(line) for line, is_code in zip(lines, code_like(lines))
    )


def code_only(o: Options, text: str, start: str | None) -> bool:
    """Whether the text is code, with at least one line that is no comment, and nothing else."""
    return bool(code_lines(code(text) or ""))


def loaded(text: str) -> Any:
    """The JSON object or array that a text is, within a fence or without; None where it is neither."""
    block = _BLOCK.fullmatch(text.strip())

    def refuse(name: str) -> Any:
        raise ValueError(f"{name} is no JSON")

    try:
        value = json.loads(block[1] if block else text, parse_constant=refuse)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict | list) else None


def is_json(o: Options, text: str, start: str | None) -> bool:
    """Whether the text is a JSON object or array."""
    return loaded(text) is not None


# ---- case, question, language


def lower_case(o: Options, text: str, start: str | None) -> bool:
    """Whether the text has letters and none of them is a capital."""
    return text == text.lower() and any(c.isalpha() for c in text)


def upper_case(o: Options, text: str, start: str | None) -> bool:
    """Whether the text has letters and all of them are capitals."""
    return text == text.upper() and any(c.isalpha() for c in text)


def asks(o: Options, text: str, start: str | None) -> bool:
    """Whether the text ends with a question mark; quotes and markup may follow."""
    return re.search(r"[?？][\"'”’)\]*_\s]*$", text) is not None


# ---- bodies: the text without what the effect put there


def same(o: Options, text: str) -> str:
    """The whole text: the effect adds no words of its own."""
    return text


def without_phrase(o: Options, text: str) -> str:
    """Without the phrase where it opens or closes the text; of two words or more, without it anywhere.

    A model that writes nothing but the phrase, ten times, has written no body.
    """
    phrase = o["text"]
    while place := effect_text.at_end(text, phrase):
        text = text[: place[0]]
    message = effect_text.header_end(text)
    if place := effect_text.at_start(text[message:], phrase):
        text = text[:message] + text[message + place[1] :]
    if len(words(phrase)) > 1:
        text = effect_text.cut(text, effect_text.spans(text, phrase))
    return text.strip()


def without_text(o: Options, text: str) -> str:
    """Without the phrase, wherever it stands."""
    return effect_text.cut(text, effect_text.spans(text, o["text"])).strip()


def without_emoji(o: Options, text: str) -> str:
    """Without any emoji."""
    return effect_text.cut(text, effect_emoji.found(text)).strip()


def without_markers(o: Options, text: str) -> str:
    """Without the bullets or numbers before list items."""
    return "\n".join(effect_text.MARKER.sub("", line, count=1) for line in text.splitlines())


def without_headings(o: Options, text: str) -> str:
    """Without the heading lines."""
    return "\n".join(line for line in text.splitlines() if not effect_text.HEADING.match(line)).strip()


def without_question(o: Options, text: str) -> str:
    """Without a last question of a few words."""
    pieces = effect_text.units(text)
    short = bool(pieces) and asks(o, pieces[-1].text, None) and len(words(pieces[-1].text)) <= _SHORT_QUESTION
    return effect_text.join(pieces[:-1]) if short else text


def json_words(o: Options, text: str) -> str:
    """The text within the values of a JSON answer, one a line; the text itself where it is no JSON."""
    value, found = loaded(text), []
    if value is None:
        return text
    waiting = [value]
    while waiting:
        at = waiting.pop()
        if isinstance(at, dict | list):
            waiting.extend(reversed(at.values() if isinstance(at, dict) else at))
        else:
            found.append(str(at))
    return "\n".join(found)
