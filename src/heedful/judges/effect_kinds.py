"""The kinds of effect: the options of each, its words, its check, what of a text is its own, and its editor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from heedful.errors import HeedfulError
from heedful.judges import effect_checks as checks
from heedful.judges import effect_edits as edits
from heedful.judges import effect_emoji
from heedful.judges.effect_checks import Options
from heedful.judges.effect_languages import STOP_WORDS, is_in_language

UNITS = ("words", "sentences", "characters", "paragraphs")
LONGEST = 500  # characters of a phrase or a pattern


@dataclass(frozen=True)
class Effect:
    """What a sentence of feedback asks of an answer; `effect_from` makes one whose options are checked."""

    kind: str
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def about(self) -> str:
        """The effect in words that follow "an answer", such as "ends with 'Onwards and upwards'"."""
        return KINDS[self.kind].about(self.options)


@dataclass(frozen=True)
class Kind:
    """How effects of one kind are checked and edited."""

    about: Callable[[Options], str]
    holds: Callable[[Options, str, str | None], bool]
    edit: Callable[[Options, str], str | None] | None = None  # None: no rule can revise a text so
    body: Callable[[Options, str], str] = checks.same  # the text without what the effect put there
    options: dict[str, Callable[[Any], str]] = field(default_factory=dict)  # "" or what is wrong with a value
    required: tuple[str, ...] = ()
    together: Callable[[Options], str] = lambda o: ""  # "" or what is wrong with the options as a whole
    relative: bool = False  # compares an answer with the one it started from


# ---- options


def _text(value: Any) -> str:
    if not isinstance(value, str):
        return f"must be text, in quotes, and not {value!r}"
    if not value.strip() or value != value.strip():
        return "must not be empty" if not value.strip() else "must not start or end with a space"
    if "\n" in value:
        return "must be one line"
    return f"is longer than {LONGEST} characters" if len(value) > LONGEST else ""


def _pattern(value: Any) -> str:
    if not isinstance(value, str) or not value or len(value) > LONGEST:
        return f"must be a regular expression of at most {LONGEST} characters, in quotes"
    try:
        checks.compiled(value)
    except HeedfulError as error:
        return f"is wrong: {error}"
    return ""


def _flag(value: Any) -> str:
    return "" if isinstance(value, bool) else f"must be true or false and not {value!r}"


def _whole(low: int, high: int) -> Callable[[Any], str]:
    def rule(value: Any) -> str:
        right = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        return "" if right else f"must be a whole number from {low} to {high} and not {value!r}"

    return rule


def _one_of(*names: str) -> Callable[[Any], str]:
    return lambda value: "" if value in names else f"must be one of {', '.join(names)} and not {value!r}"


def _emoji(value: Any) -> str:
    all_emoji = value if isinstance(value, list) else [value]
    right = all(isinstance(e, str) and len(effect_emoji.only_emoji(e)) == 1 for e in all_emoji)
    return (
        ""
        if all_emoji and right
        else f"must be one emoji, or a list of emoji of which any will do, not {value!r}"
    )


def _titles(value: Any) -> str:
    right = isinstance(value, list) and 2 <= len(value) <= 12 and not any(_text(title) for title in value)
    return "" if right else "must be a list of 2 to 12 titles, each one line of text"


def _text_or_regex(o: Options) -> str:
    return "" if ("text" in o) != ("regex" in o) else "needs either text or regex"


def _some_limit(o: Options) -> str:
    if "most" not in o and "least" not in o:
        return "needs most, least or both"
    return "" if o.get("least", 0) <= o.get("most", 10**9) else "has a least that is above its most"


def _differ(o: Options) -> str:
    return "" if o["old"] != o["new"] else "needs an old and a new that differ"


def _counted(o: Options) -> str:
    both = "count" in o and "titles" in o
    return (
        "has a count that is not the number of its titles" if both and o["count"] != len(o["titles"]) else ""
    )


# ---- words


def quoted(text: str) -> str:
    """A phrase in quotes that it does not contain."""
    return f"'{text}'" if "'" not in text else f'"{text}"'


def _says(verb: str) -> Callable[[Options], str]:
    return lambda o: f"{verb} {quoted(o['text'])}"


def _is(words: str) -> Callable[[Options], str]:
    return lambda o: words


def _about_sign_off(o: Options) -> str:
    return f"ends with {quoted(o['text'])}" + (", a name below it or not" if o.get("name_line") else "")


def _about_avoid(o: Options) -> str:
    if "name" in o:
        return f"has no {o['name']}"
    return f"never says {quoted(o['text'])}" if "text" in o else f"has nothing that matches /{o['regex']}/"


def _about_emoji(o: Options) -> str:
    which = checks.wanted_emoji(o)
    where = {"end": " at the end", "start": " at the start"}.get(o.get("where", ""), "")
    return (
        f"has a {which[0]}" + (" or one like it" if len(which) > 1 else "") if which else "has an emoji"
    ) + where


def _about_length(o: Options) -> str:
    unit = o["unit"]
    if o.get("most") == o.get("least"):
        return f"has exactly {_count(o['most'], unit)}"
    limits = [f"at {side} {_count(o[side], unit)}" for side in ("least", "most") if side in o]
    return f"has {' and '.join(limits)}"


def _count(n: int, unit: str) -> str:
    return f"{n} {unit.removesuffix('s') if n == 1 else unit}"


def _about_headings(o: Options) -> str:
    if "titles" in o:
        return f"has parts headed {', '.join(map(quoted, o['titles']))}"
    return f"has {o['count']} headed parts" if "count" in o else "has headed parts"


def _about_regex(o: Options) -> str:
    return f"{'matches' if o.get('present', True) else 'does not match'} /{o['pattern']}/"


# ---- the kinds, in the order in which their editors are applied

KINDS: dict[str, Kind] = {
    "code_only": Kind(_is("is nothing but code"), checks.code_only, edits.code_only),
    "shorter": Kind(_is("is shorter"), checks.shorter, edits.shorter, relative=True),
    "longer": Kind(_is("is longer"), checks.longer, relative=True),
    "length": Kind(
        _about_length,
        checks.within,
        edits.length,
        options={"unit": _one_of(*UNITS), "most": _whole(1, 10**6), "least": _whole(1, 10**6)},
        required=("unit",),
        together=_some_limit,
    ),
    "language": Kind(
        lambda o: f"is in {o['name'].capitalize()}",
        is_in_language,
        options={"name": _one_of(*STOP_WORDS)},
        required=("name",),
    ),
    "headings": Kind(
        _about_headings,
        checks.headed,
        edits.headings,
        checks.without_headings,
        options={"count": _whole(1, 12), "titles": _titles},
        together=_counted,
    ),
    "bullets": Kind(_is("is in bullet points"), checks.bulleted, edits.bullets, checks.without_markers),
    "numbered": Kind(_is("is a numbered list"), checks.numbered, edits.numbers, checks.without_markers),
    "replace": Kind(
        lambda o: f"says {quoted(o['new'])} instead of {quoted(o['old'])}",
        checks.replaced,
        edits.replacement,
        options={"old": _text, "new": _text},
        required=("old", "new"),
        together=_differ,
    ),
    "avoid": Kind(
        _about_avoid,
        checks.avoids,
        edits.avoid,
        options={"text": _text, "regex": _pattern, "name": _text},
        together=_text_or_regex,
    ),
    "no_emoji": Kind(_is("has no emoji"), checks.no_emoji, edits.no_emoji),
    "lower_case": Kind(_is("is in lower case"), checks.lower_case, edits.lower_case),
    "upper_case": Kind(_is("is in capitals"), checks.upper_case, edits.upper_case),
    "include": Kind(
        _says("says"),
        checks.includes,
        edits.include,
        checks.without_text,
        options={"text": _text},
        required=("text",),
    ),
    "emoji": Kind(
        _about_emoji,
        checks.has_emoji,
        edits.emoji,
        checks.without_emoji,
        options={"emoji": _emoji, "where": _one_of("anywhere", "start", "end")},
    ),
    "opening": Kind(
        _says("starts with"),
        checks.starts_with,
        edits.opening,
        checks.without_phrase,
        options={"text": _text},
        required=("text",),
    ),
    "question": Kind(_is("ends with a question"), checks.asks, edits.question, checks.without_question),
    "sign_off": Kind(
        _about_sign_off,
        checks.ends_with,
        edits.sign_off,
        checks.without_phrase,
        options={"text": _text, "name_line": _flag},
        required=("text",),
    ),
    "regex": Kind(
        _about_regex,
        checks.matches,
        options={"pattern": _pattern, "present": _flag},
        required=("pattern",),
    ),
    "json": Kind(_is("is valid JSON"), checks.is_json, edits.as_json, checks.json_words),
}


def effect_from(value: Mapping[str, Any]) -> Effect:
    """The effect of a mapping as `as_plain` writes it: {"kind": "sign_off", "text": "Onwards and upwards"}.

    Raises HeedfulError naming the key for an unknown kind or option, a missing option, and a value it cannot have.
    """
    if not isinstance(value, Mapping):
        raise HeedfulError(f"an effect is a mapping with a kind and its options, not {value!r:.80}")
    if "kind" not in value:
        raise HeedfulError(f"an effect needs the key kind: one of {', '.join(sorted(KINDS))}")
    name = value["kind"]
    if not isinstance(name, str) or name not in KINDS:
        raise HeedfulError(f"kind: there is no effect {name!r:.80}; there are {', '.join(sorted(KINDS))}")
    kind = KINDS[name]
    options = {key: option for key, option in value.items() if key != "kind"}
    known = f"it has {', '.join(kind.options)}" if kind.options else "it has none"
    if unknown := [str(key) for key in options if key not in kind.options]:
        raise HeedfulError(f"{', '.join(unknown)}: the effect {name} has no such option; {known}")
    if missing := [key for key in kind.required if key not in options]:
        raise HeedfulError(f"{', '.join(missing)}: the effect {name} needs this option")
    for key, option in options.items():
        if wrong := kind.options[key](option):
            raise HeedfulError(f"{key}: the {key} of the effect {name} {wrong}")
    if wrong := kind.together(options):
        raise HeedfulError(f"{' or '.join(kind.options)}: the effect {name} {wrong}")
    return Effect(name, options)


def as_plain(effect: Effect) -> dict[str, Any]:
    """An effect as plain values for YAML or JSON; `effect_from` reads them back."""
    return {
        "kind": effect.kind,
        **{k: list(v) if isinstance(v, list) else v for k, v in effect.options.items()},
    }


def made(kind: str, **options: Any) -> Effect | None:
    """The effect, or None where its options are refused."""
    try:
        return effect_from({"kind": kind, **options})
    except HeedfulError:
        return None
