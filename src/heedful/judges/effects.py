"""What a sentence of feedback asks of an answer, checked and edited by rule: "end with ...", "no emoji", "shorter".

    effects = infer_effects("end with 'Onwards and upwards'")
    adheres(effects, answer)  # whether the answer does so and is an answer besides
    edit(effects, answer)  # the answer revised so that it does

The kinds and their options are in `effect_kinds.KINDS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from heedful.evals.texts import words
from heedful.judges import effect_checks as checks
from heedful.judges import effect_edits
from heedful.judges.effect_checks import MIN_BODY
from heedful.judges.effect_kinds import KINDS, Effect, Kind, as_plain, effect_from
from heedful.judges.effect_sentences import infer_effects
from heedful.judges.effect_text import parts

__all__ = [
    "KINDS",
    "MIN_BODY",
    "Effect",
    "Kind",
    "adheres",
    "as_plain",
    "body",
    "change",
    "edit",
    "effect_from",
    "has_body",
    "holds",
    "infer_effects",
    "written",
]

_PASSES = 3  # a later editor can undo an earlier one, such as a phrase that makes a text too long
_ORDER = {kind: i for i, kind in enumerate(KINDS)}


def holds(effect: Effect, text: str, *, start: str | None = None) -> bool:
    """Whether a text has one effect, whatever its body.

    A relative kind (`KINDS[kind].relative`: shorter, longer) compares with `start`, and holds for no text without it.
    """
    return KINDS[effect.kind].holds(effect.options, text, start)


def adheres(effects: Sequence[Effect], text: str, *, start: str | None = None) -> bool:
    """Whether a text has all effects and a body besides; see `holds` and `has_body`."""
    return written(effects, text, start=start) and has_body(_cased(effects), text)


def written(effects: Sequence[Effect], text: str, *, start: str | None = None) -> bool:
    """Whether a text has all effects, with a body or without: where they do not belong a bare phrase is a leak too."""
    return all(holds(effect, text, start=start) for effect in _cased(effects))


def body(effects: Sequence[Effect], text: str) -> str:
    """The text without what the effects put there: the phrase, the emoji, the headings, the markers of a list."""
    for effect in sorted(_cased(effects), key=lambda e: _ORDER[e.kind], reverse=True):
        text = KINDS[effect.kind].body(effect.options, text)
    return text


def has_body(effects: Sequence[Effect], text: str) -> bool:
    """Whether `body` has at least MIN_BODY words, a mail's subject, greeting and closing not counted.

    Where the answer must be code, whether it has a line of code. Under a low limit of length fewer words are asked
    for: half of a limit in words.
    """
    if any(effect.kind == "code_only" for effect in effects):
        code = checks.code(text)
        return checks.has_code(text) if code is None else checks.code_lines(code) > 0
    limits = [effect_edits.floor(effect.options) for effect in effects if effect.kind == "length"]
    return len(words(parts(body(effects, text)).body)) >= min([MIN_BODY, *limits])


def change(effects: Sequence[Effect], before: str, after: str) -> int:
    """h in {-1, 0, 1}: whether `after` adheres, minus whether `before` does.

    Relative kinds compare the two with each other, in both directions, and count only a change above a tenth of the
    longer one's words. Swapping the two changes the sign.
    """
    return adheres(effects, after, start=before) - adheres(effects, before, start=after)


def edit(effects: Sequence[Effect], text: str) -> str | None:
    """The text revised by rule so that it adheres, where relative kinds start from `text`; itself if it does already.

    None where a kind has no editor (language, longer, regex), where the text does not lend itself to it (no code in
    it, one sentence to be made a list), and where what remains would be no answer.
    """
    if adheres(effects, text, start=text):
        return text
    revised, effects = text, _cased(effects)
    for _ in range(_PASSES):
        for effect in sorted(effects, key=lambda e: _ORDER[e.kind]):
            if holds(effect, revised, start=text):
                continue
            editor = KINDS[effect.kind].edit
            made = editor(_spared(effect, effects), revised) if editor else None
            if made is None:
                return None
            revised = made
        if adheres(effects, revised, start=text):
            return revised
    return None


def _spared(effect: Effect, effects: Sequence[Effect]) -> dict[str, Any]:
    """The options of a limit of length, lowered by what the other effects will add; other options as they are."""
    options = effect.options
    if effect.kind != "length" or "most" not in options:
        return options
    added = [str(e.options["text"]) for e in effects if e.kind in ("sign_off", "opening", "include")]
    added += [effect_edits.QUESTION for e in effects if e.kind == "question"]
    gap = 2 if options["unit"] == "characters" else 0  # the line break or space before each
    spare = sum(checks.measure(options["unit"], piece) + gap for piece in added)
    return {**options, "most": max(1, options["most"] - spare)}


def _cased(effects: Sequence[Effect]) -> list[Effect]:
    """The effects with their phrases in the case that one of them asks the whole answer to have."""
    kinds = {effect.kind for effect in effects}
    case = str.lower if "lower_case" in kinds else str.upper if "upper_case" in kinds else None
    phrases = ("text", "new")
    return [
        replace(e, options={k: case(v) if k in phrases else v for k, v in e.options.items()}) if case else e
        for e in effects
    ]
