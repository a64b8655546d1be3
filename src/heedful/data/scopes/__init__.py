"""The scope of one sentence of feedback: where it applies, what it asks for, and prompts inside, near and outside.

A scope is a YAML file that a person may edit. `read_scope` checks every key of it and tells all that is wrong at once.
The three kinds of prompts and their use are those of C3PO (Stephan et al. 2024, arXiv 2402.10893).
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from heedful.atomic import write_file
from heedful.config import to_plain
from heedful.data.problems import printable
from heedful.data.scopes.slots import alike
from heedful.errors import HeedfulError
from heedful.judges.effects import Effect, as_plain, effect_from

KINDS = ("in", "near", "general")
PARTS = ("train", "dev", "test")
TOLD = 40
"""How many problems of a file are told one by one."""


@dataclass(frozen=True)
class Sizes:
    """How many prompts a scope has: `train` and `dev` of each kind, and of the test set by kind."""

    train: int = 96
    dev: int = 24
    test_in: int = 48
    test_near: int = 120
    test_general: int = 60

    def of(self, part: str, kind: str) -> int:
        """The size of one set, such as `("test", "near")`."""
        tested = {"in": self.test_in, "near": self.test_near, "general": self.test_general}
        return tested[kind] if part == "test" else self.train if part == "train" else self.dev


@dataclass(frozen=True)
class Scope:
    """A sentence taken apart, and its prompts by part ("train", "dev", "test") and kind ("in", "near", "general").

    `content` is the whole sentence as an instruction, `domain` when it applies, `effect` what it asks for. `effects`
    are the checks of the effect; none where a judge checks it instead. `dev` is for choosing settings, `test` for the
    numbers that are reported. No prompt is in two lists. `notes` say who made the scope and what fell short.
    """

    sentence: str
    content: str
    domain: str
    effect: str
    effects: tuple[Effect, ...]
    categories: tuple[str, ...]
    train: dict[str, list[str]]
    test: dict[str, list[str]]
    dev: dict[str, list[str]]
    notes: dict[str, Any] = field(default_factory=dict)


@cache
def _general() -> tuple[str, ...]:
    text = (Path(__file__).parent / "general_prompts.jsonl").read_text(encoding="utf-8")
    return tuple(json.loads(line)["prompt"] for line in text.splitlines())


def general_prompts() -> list[str]:
    """The prompts that ship with the package: everyday requests of many kinds, in one fixed order."""
    return list(_general())


# ---- writing

HEAD = """\
# A scope of `heedful tell`: change what you like, then give it with --scope.
# in: the effect belongs there. near: like them in all but one thing, the answer must stay as it is. general: the rest.
# No prompt may come twice. Put a prompt into quotes where it has a colon or begins with a sign.
"""


def write_scope(scope: Scope, path: str | Path) -> None:
    """Write a scope as YAML, one prompt a line; `read_scope` gives back an equal one.

    Raises HeedfulError when the file cannot be written or `notes` hold what YAML cannot.
    """
    plain = {
        "sentence": scope.sentence,
        "content": scope.content,
        "domain": scope.domain,
        "effect": scope.effect,
        "effects": [as_plain(effect) for effect in scope.effects],
        "categories": list(scope.categories),
        **{part: {kind: list(getattr(scope, part)[kind]) for kind in KINDS} for part in PARTS},
        "notes": scope.notes,
    }
    text = yaml.safe_dump(to_plain(plain), sort_keys=False, allow_unicode=True, width=1_000_000)
    write_file(Path(path), (HEAD + text).encode("utf-8"))


# ---- reading

_TEXTS = ("sentence", "content", "domain", "effect")
_NEEDED = ("sentence", "domain", "effect", "train", "test")
_KNOWN = (*_TEXTS, "effects", "categories", *PARTS, "notes")


def read_scope(path: str | Path) -> Scope:
    """The scope in a YAML file.

    `content` (the sentence), `effects` and `categories` (none), `dev` (empty) and `notes` may be left out. Raises
    HeedfulError for a file that cannot be read or is no YAML, and for everything else that is wrong with it, all at
    once, a line each: `scope.yaml:17: train.near[3]: is empty`.
    """
    path = Path(path)
    node = _composed(path)
    if node is None:
        raise HeedfulError(f"{path}: the file is empty; a scope has the keys {', '.join(_NEEDED)}")
    problems: list[tuple[int, str]] = []
    data = _checked(node, problems)
    if problems:
        told = [f"{path}:{line}: {printable(text)}" for line, text in sorted(problems)]
        more = [f"... and {len(told) - TOLD} more"] if len(told) > TOLD else []
        count = f"{len(told)} problems" if len(told) > 1 else "one problem"
        raise HeedfulError("\n".join([f"{path}: {count} in the scope:", *told[:TOLD], *more]))
    return Scope(**data)


def _composed(path: Path) -> yaml.Node | None:
    try:
        return yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except OSError as error:
        raise HeedfulError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise HeedfulError(f"{path}: not UTF-8 text (byte {error.start})") from error
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise HeedfulError(f"{path}{line}: not valid YAML: {getattr(error, 'problem', error)}") from error


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1


def _plain(node: yaml.Node) -> Any:
    """The plain value of a node. Raises yaml.YAMLError for tags such as `!!python/object`."""
    return yaml.SafeLoader("").construct_document(node)


def _entries(
    node: yaml.Node, where: str, known: Sequence[str], problems: list[tuple[int, str]]
) -> dict[str, yaml.Node]:
    """The values of a mapping by key; unknown keys, and keys that come twice, are problems."""
    found: dict[str, yaml.Node] = {}
    prefix = f"{where}." if where else ""
    if not isinstance(node, yaml.MappingNode):
        problems.append(
            (_line(node), f"{where or 'the file'}: keys with values are needed, {', '.join(known)}")
        )
        return found
    for key, value in node.value:
        name = str(key.value) if isinstance(key, yaml.ScalarNode) else "?"
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            problems.append((_line(key), f"{prefix}{name[:60]}: there is no such key; {hint}"))
        elif name in found:
            problems.append((_line(key), f"{prefix}{name}: comes twice"))
        else:
            found[name] = value
    return found


def _checked(node: yaml.Node, problems: list[tuple[int, str]]) -> dict[str, Any]:
    entries = _entries(node, "", _KNOWN, problems)
    for name in _NEEDED:
        if name not in entries and isinstance(node, yaml.MappingNode):
            problems.append((_line(node), f"{name}: is missing"))
    data: dict[str, Any] = {
        name: _text(entries[name], name, problems) if name in entries else "" for name in _TEXTS
    }
    data["content"] = data["content"] or data["sentence"]
    data["effects"] = tuple(_effects(entries["effects"], problems)) if "effects" in entries else ()
    items = _texts(entries["categories"], "categories", problems) if "categories" in entries else []
    data["categories"] = tuple(text for _, _, text in items)
    seen: dict[str, str] = {}
    for part in ("train", "test", "dev"):
        data[part] = (
            _prompts(entries[part], part, seen, problems) if part in entries else {k: [] for k in KINDS}
        )
    data["notes"] = _notes(entries["notes"], problems) if "notes" in entries else {}
    return data


def _text(node: yaml.Node, where: str, problems: list[tuple[int, str]]) -> str:
    """The text of a node, "" with a problem where it has none."""
    text = node.tag == "tag:yaml.org,2002:str" and isinstance(node, yaml.ScalarNode)
    if text and node.value.strip():
        return node.value.strip()
    empty = text or node.tag == "tag:yaml.org,2002:null"
    sorts = {
        "seq": "a list",
        "map": "a key with a value",
        "int": "a number",
        "float": "a number",
        "bool": "yes or no",
    }
    sort = sorts.get(node.tag.rsplit(":", 1)[-1], "no text")
    problems.append(
        (_line(node), f"{where}: {'is empty' if empty else f'is {sort}; put it into quotes as a text'}")
    )
    return ""


def _texts(node: yaml.Node, where: str, problems: list[tuple[int, str]]) -> Iterator[tuple[int, str, str]]:
    """(line, key path, text) of each item of a list of texts."""
    if not isinstance(node, yaml.SequenceNode):
        problems.append((_line(node), f"{where}: a list is needed, one text a line after '- '"))
        return
    for i, item in enumerate(node.value):
        text = _text(item, f"{where}[{i}]", problems)
        if text:
            yield _line(item), f"{where}[{i}]", text


def _prompts(
    node: yaml.Node, part: str, seen: dict[str, str], problems: list[tuple[int, str]]
) -> dict[str, list[str]]:
    entries = _entries(node, part, KINDS, problems)
    found: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for kind in KINDS:
        where = f"{part}.{kind}"
        if kind not in entries:
            if isinstance(node, yaml.MappingNode):
                problems.append((_line(node), f"{where}: is missing"))
            continue
        before = len(problems)
        for line, place, text in _texts(entries[kind], where, problems):
            if alike(text) in seen:
                problems.append((line, f"{place}: is the same prompt as {seen[alike(text)]}"))
            else:
                seen[alike(text)] = place
                found[kind].append(text)
        if not found[kind] and len(problems) == before and part != "dev":
            problems.append((_line(entries[kind]), f"{where}: has no prompts"))
    return found


def _effects(node: yaml.Node, problems: list[tuple[int, str]]) -> Iterator[Effect]:
    if not isinstance(node, yaml.SequenceNode):
        problems.append((_line(node), "effects: a list is needed, such as [{kind: ..., ...}]"))
        return
    for i, item in enumerate(node.value):
        try:
            value = _plain(item)
            if not isinstance(value, Mapping):
                raise HeedfulError("a kind and its options are needed")
            yield effect_from(value)
        except (HeedfulError, yaml.YAMLError) as error:
            problems.append((_line(item), f"effects[{i}]: {error}"))


def _notes(node: yaml.Node, problems: list[tuple[int, str]]) -> dict[str, Any]:
    try:
        value = _plain(node)
        if isinstance(value, Mapping):
            return {str(key): item for key, item in to_plain(value).items()}
        problem = "keys with values are needed"
    except (HeedfulError, yaml.YAMLError) as error:
        problem = str(getattr(error, "problem", None) or error)
    problems.append((_line(node), f"notes: {problem}"))
    return {}
