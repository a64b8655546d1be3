"""The adapters of `heedful tell`, kept by name in one folder: what there is, how it measured, what is enabled.

STORE/NAME/model       the adapter of one sentence, with scope.yaml, result.json and report.html beside it
STORE/enabled.json     which adapters are in use, in order, with weights, and what was changed before
STORE/current/model    the sum of the enabled ones; a model folder like any other, gone when none is enabled

Nothing here writes; see tell_changes.
"""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heedful.config import load_yaml
from heedful.data.problems import printable
from heedful.errors import HeedfulError
from heedful.manifest import sha256_of
from heedful.model_folder import ADAPTER, ADAPTER_CONFIG, read_json

if TYPE_CHECKING:
    from heedful.data.scopes import Scope

STORE = Path("runs/tell")
CURRENT, COMPOSED, ENABLED = "current", "composed.json", "enabled.json"
READY, UNMEASURED, UNFINISHED, DAMAGED = "ready", "unmeasured", "unfinished", "damaged"
MAX_LEAK = 0.15
TRACES = ("manifest.json", "config.yaml", "scope.yaml", "result.json", COMPOSED, "model")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,99}")


@dataclass(frozen=True)
class Figure:
    """A share with its 95% interval; the bounds are None where they are not known."""

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.value:.2f}"
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


@dataclass(frozen=True)
class Member:
    """A trained adapter in a composed one: its weight, and what was measured of it alone."""

    name: str
    weight: float
    sentence: str = ""
    figures: Mapping[str, Figure] = field(default_factory=dict)


@dataclass(frozen=True)
class Adapter:
    """A folder of the store. state: ready, unmeasured (no result.json), unfinished (no model) or damaged; `why` says
    more. weight: where it is enabled.

    figures: `s_in`, `s_near`, `s_general`, `s_out` as far as they were measured. members: of a composed adapter.
    """

    name: str
    folder: Path
    state: str
    why: str = ""
    sentence: str = ""
    base: str = ""
    minutes: float | None = None
    figures: Mapping[str, Figure] = field(default_factory=dict)
    members: tuple[Member, ...] = ()
    weight: float | None = None

    @property
    def model(self) -> Path:
        """The adapter itself."""
        return self.folder / "model"


def check_name(name: str) -> str:
    """`name`, when an adapter may have it. Raises HeedfulError for a path, an odd character and `current`."""
    if not _NAME.fullmatch(name) or name == CURRENT:
        raise HeedfulError(
            f"{printable(name)!r} is no name for an adapter: letters, digits, '-', '_' and '.', beginning with a "
            f"letter or a digit, no path, and not {CURRENT!r}"
        )
    return name


def check_free(folder: Path) -> None:
    """Raises HeedfulError when a run would write its model over a composed adapter's."""
    if (folder / COMPOSED).exists():
        raise HeedfulError(f"{folder} is a composed adapter; choose another name, or remove that folder")


def list_adapters(store: Path = STORE) -> list[Adapter]:
    """Every adapter of the store by name, also those of runs that are unfinished or damaged."""
    weights = dict(enabled(store))
    return [_adapter(store / name, weights.get(name)) for name in names_in(store)]


def names_in(store: Path) -> list[str]:
    """The names of all adapters, also of enabled ones whose folder is gone."""
    names = {name for name, _ in enabled(store)}
    for folder in store.iterdir() if store.is_dir() else []:
        named = _NAME.fullmatch(folder.name) and folder.name != CURRENT
        if named and folder.is_dir() and any((folder / trace).exists() for trace in TRACES):
            names.add(folder.name)
    return sorted(names)


def find(store: Path, name: str) -> Adapter:
    """One adapter. Raises HeedfulError with the names there are."""
    check_name(name)
    names = names_in(store)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(names) or 'none'}"
        raise HeedfulError(f"there is no adapter {name!r} in {store}; {hint}")
    return _adapter(store / name, dict(enabled(store)).get(name))


def enabled(store: Path = STORE) -> list[tuple[str, float]]:
    """Names and weights of the enabled adapters, in order."""
    return pairs_in(read_state(store)["enabled"], store)


def read_state(store: Path) -> dict[str, Any]:
    """What enabled.json holds: `enabled` and `history`. Raises HeedfulError when it is damaged."""
    path = store / ENABLED
    if not path.exists():
        return {"enabled": [], "history": []}
    state = read_json(path)
    history = state.get("history")
    if not isinstance(history, list) or not all(isinstance(entry, dict) for entry in history):
        raise HeedfulError(f"{path}: history must be a list; remove the file and enable the adapters again")
    return {"enabled": state.get("enabled"), "history": history}


def pairs_in(rows: Any, store: Path) -> list[tuple[str, float]]:
    """(name, weight) of the rows in enabled.json. Raises HeedfulError when they are damaged."""
    try:
        return [(check_name(str(row["name"])), float(row["weight"])) for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise HeedfulError(
            f"{store / ENABLED} must list names and weights; remove the file and enable the adapters again"
        ) from error


def ready(store: Path, name: str) -> Adapter:
    """An adapter that has a model. Raises HeedfulError for any other, with what to do."""
    adapter = find(store, name)
    if adapter.state in (UNFINISHED, DAMAGED):
        leave = f", or leave it out: heedful tell disable {name}" if adapter.weight is not None else ""
        raise HeedfulError(
            f"{name} is {adapter.state}: {adapter.why}; run its `heedful tell` command again{leave}"
        )
    return adapter


def leaks(adapter: Adapter) -> list[tuple[str, str, Figure]]:
    """(whose, where, how much) of every leak that was measured; a composed adapter has those of its members.

    Raises HeedfulError when the near-scope or the general prompts were not measured.
    """
    parts = [(adapter.name, adapter.figures)]
    if adapter.members and not adapter.figures:
        parts = [(member.name, member.figures) for member in adapter.members]
    found = []
    for name, figures in parts:
        outside = "s_general" if "s_general" in figures else "s_out"
        for key, place in (("s_near", "near its scope"), (outside, "on general prompts")):
            if key not in figures:
                wanted = "s_general" if key == "s_out" else key
                raise HeedfulError(
                    f"{adapter.name} is not enabled: its leak was not measured (no {wanted} in result.json of {name}); "
                    "run its `heedful tell` command again to finish it"
                )
            found.append((name, place, figures[key]))
    return found


def common_base(store: Path, names: Sequence[str]) -> str:
    """The base model of these adapters. Raises HeedfulError when they do not share one."""
    adapters = [ready(store, name) for name in names]
    for other in adapters[1:]:
        if not _same_base(adapters[0].base, other.base):
            raise HeedfulError(
                f"{adapters[0].name} and {other.name} have different base models, {adapters[0].base or '(none named)'} "
                f"and {other.base or '(none named)'}: adapters work together on one base only; train one of them "
                "again with --model"
            )
    return adapters[0].base if adapters else ""


def joint_scopes(store: Path, names: Sequence[str]) -> list[Scope]:
    """The scopes of these adapters, in order, to train one adapter on all; those of the members where composed.

    Raises HeedfulError when an adapter or its scope.yaml is missing or damaged, or when the bases differ.
    """
    from heedful.data.scopes import read_scope

    if len(names) < 2 or len(set(names)) < len(names):
        raise HeedfulError("joint training needs two or more different adapters")
    common_base(store, names)
    members = [part for name in names for part in parts_of(find(store, name))]
    return [read_scope(store / check_name(part) / "scope.yaml") for part in dict.fromkeys(members)]


def parts_of(adapter: Adapter) -> list[str]:
    """The names of the sentences in this adapter: its own, or those that it was added up from or trained on."""
    names = [member.name for member in adapter.members] or [adapter.name]
    return [part for name in names for part in _trained_on(adapter.folder.parent / name) or [name]]


def _trained_on(folder: Path) -> list[str]:
    """The members of a `compose --joint`; [] for any other folder."""
    path = folder / "config.yaml"
    try:
        names = load_yaml(path).get("joint") if path.exists() else None
    except HeedfulError:
        return []
    return [name for name in map(str, names) if _NAME.fullmatch(name)] if isinstance(names, list) else []


def in_words(pairs: Sequence[tuple[str, float]]) -> str:
    """A sum of adapters, such as `a + 0.5 x b`."""
    return " + ".join(name if weight == 1 else f"{weight:g} x {name}" for name, weight in pairs)


def is_current(store: Path = STORE) -> bool:
    """Whether STORE/current is the sum of what is enabled, with the tensors the adapters have now."""
    wanted = enabled(store)
    folder = store / CURRENT
    if not wanted:
        return not (folder / "model").exists()
    try:
        made = read_json(folder / COMPOSED)
    except HeedfulError:
        return False
    tensors = [(name, weight, sha256_of(store / name / "model" / ADAPTER)) for name, weight in wanted]
    held = [tuple(part.get(key) for key in ("name", "weight", "sha256")) for part in _objects(made.get("of"))]
    return held == tensors and made.get("sha256") == sha256_of(folder / "model" / ADAPTER) is not None


def _adapter(folder: Path, weight: float | None) -> Adapter:
    sentence, base, members = "", "", ()
    try:
        if not folder.is_dir():
            raise HeedfulError("it is enabled, but its folder is gone")
        sentence = _sentence(folder)
        if (folder / COMPOSED).exists():
            members = tuple(_members(folder / COMPOSED))
            sentence = in_words([(m.name, m.weight) for m in members])
        if not (folder / "model").exists():
            return Adapter(folder.name, folder, UNFINISHED, "it has no model yet", sentence, weight=weight)
        if not (folder / "model" / ADAPTER).is_file() or not (folder / "model" / ADAPTER_CONFIG).is_file():
            raise HeedfulError(f"{folder / 'model'} lacks {ADAPTER} or {ADAPTER_CONFIG}")
        base = str(read_json(folder / "model" / ADAPTER_CONFIG).get("base_model_name_or_path") or "")
        result = read_json(folder / "result.json") if (folder / "result.json").exists() else {}
        figures, minutes = _figures(result, folder / "result.json"), result.get("minutes")
    except HeedfulError as error:
        return Adapter(folder.name, folder, DAMAGED, str(error), sentence, base, weight=weight)
    state, why = (READY, "") if figures or members else (UNMEASURED, "it has no result.json yet")
    return Adapter(
        folder.name, folder, state, why, sentence, base, _number(minutes), figures, members, weight
    )


def _sentence(folder: Path) -> str:
    for name in ("config.yaml", "scope.yaml"):  # the first is much smaller, but empty after --scope FILE
        held = load_yaml(folder / name) if (folder / name).exists() else {}
        joint = held.get("config") if "joint" in held else None
        said = (joint if isinstance(joint, dict) else held).get("sentence")
        if said:
            return str(said)
    return ""


def _figures(result: Mapping[str, Any], path: Path) -> dict[str, Figure]:
    found = {}
    for key in ("s_in", "s_near", "s_general", "s_out"):
        if key in result:
            found[key] = _figure(
                result[key], result.get(f"{key}_low"), result.get(f"{key}_high"), f"{path}: {key}"
            )
    return found


def _figure(value: Any, low: Any, high: Any, where: str) -> Figure:
    number = _number(value)
    if number is None:
        raise HeedfulError(f"{where} must be a number, not {value!r}")
    return Figure(number, _number(low), _number(high))


def _number(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) and math.isfinite(value) else None


def _objects(rows: Any) -> list[dict[str, Any]]:
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _members(path: Path) -> Iterator[Member]:
    rows = _objects(read_json(path).get("members"))
    if not rows:
        raise HeedfulError(f"{path} has no members; compose it again")
    for row in rows:
        try:
            figures = {
                key: _figure(held["value"], held["low"], held["high"], f"{path}: {key}")
                for key, held in row["figures"].items()
            }
            yield Member(check_name(row["name"]), float(row["weight"]), str(row["sentence"]), figures)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise HeedfulError(f"{path}: a member is damaged ({error}); compose it again") from error


def _same_base(a: str, b: str) -> bool:
    if not a or a == b:
        return a == b and bool(a)
    from heedful import smollm2

    # an adapter made with another cache folder, or on another machine, names the same SmolLM2 by another path
    both_smol = all(name == smollm2.NAME or smollm2.is_converted_path(name) for name in (a, b))
    return both_smol or os.path.realpath(a) == os.path.realpath(b)
