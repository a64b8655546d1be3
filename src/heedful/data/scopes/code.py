"""Prompts for code: in scope tasks in the sentence's language, near the same tasks in others and talk about it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from heedful.data.scopes.domains import Code
from heedful.data.scopes.nouns import CODE, LANGUAGES
from heedful.data.scopes.slots import (
    Draft,
    Grammar,
    Half,
    Item,
    article,
    grouped,
    lines,
    listed,
    put,
    third_person,
)
from heedful.data.scopes.style import Style

_THINGS = {
    "SQL": ("query", "statement"),
    "HTML": ("page", "snippet"),
    "Bash": ("script", "one-liner", "command"),
}
_SIBLINGS = {
    "JavaScript": ("TypeScript", "Java"),
    "TypeScript": ("JavaScript",),
    "C": ("C++",),
    "C++": ("C",),
}
"""Languages whose code a reader may take for the other's."""
_CODE_CUE = (
    r"\b(?:git|regular expression|terminal|api|json|curl|pip|tuple|pointer|recursion|css|bash|race condition|"
    r"binary search|"
    r"(?:line|loop|array|array of words|strings?|constant|integers) in|stack and a queue|(?:in|R|C|Go) R\b)"
)


def code_grammar(request: Code, style: Style) -> Grammar:
    """The grammar for `Python code`, `SQL queries`, `code`."""
    language = request.language
    tasks = listed("code", f"tasks {language}") if language in _THINGS else listed("code", "tasks")
    mistaken = grouped("code", "mistaken").get(language)
    others = [
        Item(name) for name in LANGUAGES if name not in (language, *_THINGS, *_SIBLINGS.get(language, ()))
    ]
    pools: dict[str, Sequence[Item]] = {
        "frame": lines("code", "frames"),
        "task": tasks,
        "language": others,
        "mistaken": [Item(phrase) for phrase in mistaken or ()],
        "aside": lines("code", "asides"),
        "words": lines("code", "words only"),
    }
    return Grammar(
        name=f"code ({language or 'in any language'})",
        pools=pools,
        inside=lambda half: _inside(request, style, half),
        flip=lambda draft, half: _flip(request, draft, half),
        aside=lambda half: _aside(request, half),
        claims=_claims(request),
    )


def _inside(request: Code, style: Style, half: Half) -> Draft | None:
    frame, task = half.take("frame"), half.take("task")
    known = half.take("language") if not request.language else None
    language = request.language or (known.text if known else "Python")
    if frame is None or task is None:
        return None
    things = _THINGS.get(language) or [item.text for item in lines("code", "things")]
    hints = [
        item.text for item in lines("code", "hints") if language not in _THINGS or "library" not in item.text
    ]
    after = half.rng.choice(hints) if style.length and half.rng.random() < 0.5 else ""
    parts = {
        "frame": frame.text,
        "task": task.text,
        "thing": half.rng.choice(things),
        "a_thing": "",
        "language": language,
        "after": f" {after}" if after else "",
    }
    return _draft(parts, task.group, ("frame", frame.text), ("task", task.text))


def _draft(parts: dict[str, str], category: str, *slots: tuple[str, str]) -> Draft:
    task = parts["task"]
    # `a small Python script`, with the adjective first.
    adjective, _, thing = parts["thing"].rpartition(" ")
    a_thing = parts["a_thing"] or article(f"{adjective} {parts['language']} {thing}".strip())
    text = put(parts["frame"], a_thing=a_thing, lang=parts["language"], task=task, tasks=third_person(task))
    return Draft(text + parts["after"], category, frozenset(slots), parts)


def _flip(request: Code, draft: Draft, half: Half) -> Draft | None:
    """The same task in another language, or in words where any language counts."""
    parts = dict(draft.parts)
    slots = [("task", parts["task"])]
    if not request.language:
        frame = half.take("words")
        if frame is None:
            return None
        return Draft(
            put(frame.text, task=parts["task"]),
            draft.category,
            frozenset({*slots, ("words", frame.text)}),
            parts,
        )
    if request.language in _THINGS:
        other = half.take("mistaken")
        if other is None:
            return None
        bare = re.sub(r"^an? ", "", other.text)
        parts["a_thing"], parts["language"] = (
            other.text,
            bare if "{a_thing}" in parts["frame"] else _named(bare),
        )
        slots.append(("mistaken", other.text))
    else:
        other = half.take("language")
        if other is None:
            return None
        parts["language"] = other.text
        slots.append(("language", other.text))
    return _draft(parts, draft.category, ("frame", parts["frame"]), *slots)


def _named(thing: str) -> str:
    """`PowerShell script` as the name of a language: PowerShell."""
    return re.sub(
        r" (?:formula|expression|query|command|measure|document|page|layout|file|outline|script)$", "", thing
    )


def _aside(request: Code, half: Half) -> Draft | None:
    frame = half.take("aside", lambda item: bool(request.language) or "{lang}" not in item.text)
    task, other = half.take("task"), half.take("language")
    if frame is None or task is None:
        return None
    language = request.language or "it"
    text = put(frame.text, lang=language, other=other.text if other else "Lisp", task=task.text)
    slots = {("aside", frame.text)} | ({("task", task.text)} if "{task}" in frame.text else set())
    slots |= {("language", other.text)} if other and "{other}" in frame.text else set()
    return Draft(text, task.group if "{task}" in frame.text else "talk about languages", frozenset(slots))


def _claims(request: Code) -> Callable[[str], bool]:
    names = (
        LANGUAGES[request.language]
        if request.language
        else [name for names in LANGUAGES.values() for name in names]
    )
    known = "|".join(re.escape(name) for name in names if len(name) > 2 or name in ("C#", "C++", "JS"))
    known = known or rf"{re.escape(request.language)} (?:{'|'.join(CODE)})"
    general = (
        ""
        if request.language
        else rf"|\b(?:{'|'.join(word for word in CODE if word not in ('class', 'method'))})\b"
    )
    found = re.compile(rf"(?<!\w)(?:{known})(?!\w){general}", re.IGNORECASE)
    return lambda prompt: bool(found.search(prompt))
