"""Settings: dataclasses to YAML or JSON and back, the difference of two, and a hash of what they say."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
import types
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from heedful.errors import HeedfulError

C = TypeVar("C")


def to_plain(value: Any) -> Any:
    """A dataclass, or any nesting of them, as dicts, lists, strings, numbers, booleans and None.

    Raises `HeedfulError` for a value that a YAML file cannot hold.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return to_plain(value.value)
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(to_plain(item) for item in value)
    if isinstance(value, Path):
        return str(value)
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise HeedfulError(f"a setting holds a {type(value).__name__}, which a config file cannot: {value!r}")


def defaults_of(value: Any) -> dict[str, Any]:
    """The plain default of each field of a dataclass that has one; nothing for other values. What a run did that began
    before the field existed, where that is not its default, is the field's metadata "before"."""
    if not dataclasses.is_dataclass(value):
        return {}
    found: dict[str, Any] = {}
    for field in dataclasses.fields(value):
        if "before" in field.metadata:
            found[field.name] = field.metadata["before"]
        elif field.default is not dataclasses.MISSING:
            found[field.name] = to_plain(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            found[field.name] = to_plain(field.default_factory())
    return found


def from_plain(cls: type[C], data: Any, where: str = "config") -> C:
    """Build the dataclass `cls` from plain values, nested dataclasses included; missing keys take defaults.

    Raises `HeedfulError` naming the key for an unknown key, a missing required one or a wrong type.
    """
    return _build(cls, data, where)


def _build(kind: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _build_dataclass(kind, value, where)
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        return _build_union(arguments, value, where)
    if origin is Literal:
        if value in arguments:
            return value
        raise HeedfulError(f"{where}: {value!r} is none of {', '.join(map(repr, arguments))}")
    if origin in (list, tuple, Sequence) or kind in (list, tuple):
        return _build_sequence(origin or kind, arguments, value, where)
    if origin in (dict, Mapping) or kind is dict:
        if not isinstance(value, Mapping):
            raise HeedfulError(f"{where}: a mapping is needed, not {value!r}")
        item_kind = arguments[1] if arguments else Any
        return {key: _build(item_kind, item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(value)
    return _build_scalar(kind, value, where)


def _build_dataclass(cls: type, value: Any, where: str) -> Any:
    if isinstance(value, cls):
        return value
    if not isinstance(value, Mapping):
        raise HeedfulError(f"{where}: settings by name are needed, not {value!r}")
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    for key in value:
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(fields)}"
            raise HeedfulError(f"{where}: unknown setting {key!r}{hint}")
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in value:
            raise HeedfulError(f"{where}: the setting {name!r} is missing")
    kinds = get_type_hints(cls)
    return cls(**{key: _build(kinds[key], item, f"{where}.{key}") for key, item in value.items()})


def _build_union(kinds: Sequence[Any], value: Any, where: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    problems = []
    # An exact type first, else 3 would become 3.0 in `float | int`.
    for kind in sorted(kinds, key=lambda kind: type(value) is not kind):
        try:
            return _build(kind, value, where)
        except HeedfulError as problem:
            problems.append(problem)
    raise problems[0]


def _build_sequence(kind: Any, item_kinds: Sequence[Any], value: Any, where: str) -> Any:
    if not isinstance(value, list | tuple):
        raise HeedfulError(f"{where}: a list is needed, not {value!r}")
    fixed = kind is tuple and item_kinds and item_kinds[-1] is not Ellipsis
    if fixed and len(value) != len(item_kinds):
        raise HeedfulError(f"{where}: {len(item_kinds)} values are needed, not {len(value)}")
    kinds = item_kinds if fixed else [item_kinds[0] if item_kinds else Any] * len(value)
    items = [_build(k, item, f"{where}[{i}]") for i, (k, item) in enumerate(zip(kinds, value, strict=True))]
    return tuple(items) if kind is tuple else items


def _build_scalar(kind: Any, value: Any, where: str) -> Any:
    if kind is float and type(value) in (int, float, str):
        # YAML 1.1 reads the usual spelling 1e-5 as text, because it lacks the point of 1.0e-5.
        try:
            return float(value)
        except ValueError:
            raise HeedfulError(f"{where}: a number is needed, not {value!r}") from None
    if kind is Path and isinstance(value, str | Path):
        return Path(value)
    if kind in (bool, int, str) and type(value) is not kind:
        name = {bool: "true or false", int: "a whole number", str: "text"}[kind]
        raise HeedfulError(f"{where}: {name} is needed, not {value!r}")
    if isinstance(kind, type) and not isinstance(value, kind):
        raise HeedfulError(f"{where}: {kind.__name__} is needed, not {value!r}")
    return value


def dump_yaml(config: Any) -> str:
    """`config` (a dataclass or plain values) as YAML, keys in their own order; `load_yaml` gives it back."""
    return yaml.safe_dump(to_plain(config), sort_keys=False, allow_unicode=False, width=100)


def load_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML or JSON file. Raises `HeedfulError` with file and line when it holds none."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise HeedfulError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise HeedfulError(f"{path}: not UTF-8 text (byte {error.start})") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise HeedfulError(f"{path}{line}: not valid YAML: {getattr(error, 'problem', error)}") from error
    if not isinstance(data, dict):
        raise HeedfulError(f"{path}: settings by name are needed, found {type(data).__name__}")
    return data


def load_config(cls: type[C], path: Path) -> C:
    """The dataclass `cls` from a YAML or JSON file. Raises `HeedfulError` naming file and key."""
    return from_plain(cls, load_yaml(path), str(path))


def content_hash(value: Any) -> str:
    """64 hex digits (sha256) of what `value` says: key order does not matter, 1 and 1.0 are the same."""
    return hashlib.sha256(json.dumps(_canonical(to_plain(value)), sort_keys=True).encode()).hexdigest()


def _canonical(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _canonical(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    whole = isinstance(value, float) and math.isfinite(value) and value == int(value)
    return int(value) if whole else value


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name: `{"fit": {"lr": 1}}` becomes `{"fit.lr": 1}`; lists stay whole."""
    flat: dict[str, Any] = {}
    for key, value in to_plain(config).items():
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def difference(old: Any, new: Any, volatile: Sequence[str] = ()) -> list[str]:
    """One readable line per setting that differs, such as `fit.lr: 1e-05 -> 2e-05`; empty when none does.

    `volatile` names settings that may differ, by dotted name; a name also covers everything below it.
    """
    before, after = flatten(old), flatten(new)
    lines = []
    for key in [*before, *(key for key in after if key not in before)]:
        if any(key == name or key.startswith(f"{name}.") for name in volatile):
            continue
        if key not in after:
            lines.append(f"{key}: {before[key]!r} -> (absent)")
        elif key not in before:
            lines.append(f"{key}: (absent) -> {after[key]!r}")
        elif content_hash(before[key]) != content_hash(after[key]):
            lines.append(f"{key}: {before[key]!r} -> {after[key]!r}")
    return lines
