"""Changes to the adapters of `heedful tell`: enable behind a gate, disable, compose, revert.

What is enabled changes only after its sum was made, so a failure leaves both as they were.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from heedful.atomic import make_folder, remove_folder, write_file, writing
from heedful.data.problems import printable
from heedful.errors import HeedfulError
from heedful.manifest import sha256_of
from heedful.model_folder import ADAPTER
from heedful.recipes.tell_conflicts import store_conflicts
from heedful.recipes.tell_store import (
    COMPOSED,
    CURRENT,
    ENABLED,
    MAX_LEAK,
    Adapter,
    check_name,
    common_base,
    enabled,
    find,
    in_words,
    leaks,
    pairs_in,
    parts_of,
    read_state,
    ready,
)

Pairs = Sequence[tuple[str, float]]
"""Names of adapters with their weights."""


@dataclass(frozen=True)
class Changed:
    """What a command did: `done` in sentences, `warnings`, and what is enabled afterwards."""

    done: list[str]
    warnings: list[str]
    enabled: list[tuple[str, float]]


def enable(store: Path, *names: str, max_leak: float = MAX_LEAK, weight: float = 1.0) -> Changed:
    """Use these adapters too, each with `weight`, after those that are enabled; then make `current` again.

    An adapter that is enabled already gets the new weight. Raises HeedfulError when one of them leaks more than
    `max_leak` near its scope or on general prompts, was not measured, has another base model, or is part of an
    enabled one; nothing is changed then.
    """
    _some(names)
    if not math.isfinite(weight) or weight == 0:
        raise HeedfulError(f"--weight must be a finite number other than 0, not {weight:g}")
    with _changing(store):
        state, before = read_state(store), enabled(store)
        wanted, warnings = dict(before), []
        for name in names:
            warnings += check_leak(ready(store, name), max_leak)
            wanted[name] = float(weight)
        after = list(wanted.items())
        _refuse_twice(store, after)
        if weight > 1 or weight < 0:
            warnings.append(f"leaks were measured at weight 1, not {weight:g}")
        _commit(store, state, after, {"action": "enable", "names": names, "before": _rows(before)})
        clashes, unread = store_conflicts(store, [name for name, _ in after])
        warnings += [clash.warning for clash in clashes if clash.a in names or clash.b in names] + unread
    return Changed([f"enabled {', '.join(names)}", _place(store, after)], warnings, after)


def disable(store: Path, *names: str) -> Changed:
    """Stop using these adapters and make `current` again. Raises HeedfulError when one is not enabled."""
    _some(names)
    with _changing(store):
        state, before = read_state(store), enabled(store)
        known = [name for name, _ in before]
        for name in names:
            if name not in known:
                raise HeedfulError(
                    f"{printable(name)!r} is not enabled; enabled are: {', '.join(known) or 'none'}"
                )
        after = [(name, weight) for name, weight in before if name not in names]
        _commit(store, state, after, {"action": "disable", "names": names, "before": _rows(before)})
    return Changed([f"disabled {', '.join(names)}", _place(store, after)], [], after)


def compose(store: Path, names: Sequence[str], weights: Sequence[float], out: str) -> Changed:
    """A new adapter STORE/out whose change of the weights is exactly sum_i weights[i] * change_i.

    It is not enabled. Raises HeedfulError when `out` exists, when an adapter is named twice, is not ready or cannot
    be added up (see `heedful.policies.adapter_sum`), or when the bases differ.
    """
    check_name(out)
    if not names or len(names) != len(weights):
        raise HeedfulError(f"give one weight for each adapter: {len(names)} adapters, {len(weights)} weights")
    if len(set(names)) < len(names):
        raise HeedfulError("an adapter is named twice; name it once, with the sum of its weights")
    folder = store / out
    with _changing(store):
        if folder.exists():
            raise HeedfulError(f"{folder} is there already; choose another --out, or remove that folder")
        common_base(store, names)
        state, before = read_state(store), enabled(store)
        try:
            _write_sum(store, list(zip(names, map(float, weights), strict=True)), folder)
            _commit(store, state, before, {"action": "compose", "names": [out], "before": _rows(before)})
        except HeedfulError:
            _remove_sum(folder)
            raise
        clashes, unread = store_conflicts(store, names)
    warnings = [clash.warning for clash in clashes] + unread
    if len(names) > 1:
        warnings.append(
            "the sum itself was not measured, only its parts, each alone and at weight 1; "
            f"try it: heedful sample {folder}"
        )
    made = find(store, out).sentence
    return Changed([f"composed {out} = {made}; its model is in {folder}"], warnings, before)


def revert(store: Path) -> Changed:
    """Undo the last enable, disable or compose; call again for the one before. Raises HeedfulError without one."""
    with _changing(store):
        state = read_state(store)
        if not state["history"]:
            raise HeedfulError(
                f"there is nothing to revert in {store}: no adapter was enabled or composed there"
            )
        last = state["history"][-1]
        before = pairs_in(last.get("before"), store)
        names = [check_name(str(name)) for name in last.get("names") or []]
        _commit(store, {**state, "history": state["history"][:-1]}, before, None)
        done = [f"reverted: {last.get('action')} {', '.join(names)}"]
        if last.get("action") == "compose":
            done += [_remove_composed(store / name) for name in names]
        else:
            done.append(_place(store, before))
    return Changed(done, [], before)


def refresh(store: Path) -> None:
    """Make STORE/current again from what is enabled, as after training an enabled adapter anew."""
    with _changing(store):
        _make_current(store, enabled(store))


def check_leak(adapter: Adapter, max_leak: float = MAX_LEAK) -> list[str]:
    """The gate: warnings where only the interval reaches above `max_leak`.

    Raises HeedfulError with the largest figure, its interval and the way out when the estimate itself does, or when
    nothing was measured.
    """
    if not 0 <= max_leak <= 1:
        raise HeedfulError(f"--max-leak must be between 0 and 1, not {max_leak:g}")
    found = leaks(adapter)
    name, place, worst = max(found, key=lambda leak: leak[2].value)
    if worst.value > max_leak:
        enough = math.ceil(worst.value * 100 - 1e-9) / 100
        raise HeedfulError(
            f"{adapter.name} is not enabled: {name} leaks, it changes {worst} of the answers {place}, and --max-leak "
            f"is {max_leak:g}. Train it again with more and more varied prompts of that kind, or accept the leak: "
            f"heedful tell enable {adapter.name} --max-leak {enough:.2f}"
        )
    return [
        f"{name} may leak more than --max-leak {max_leak:g} {place}: {figure}; more test prompts would tell"
        for name, place, figure in found
        if figure.high is not None and figure.high > max_leak
    ]


def _some(names: Sequence[str]) -> None:
    if not names:
        raise HeedfulError("name at least one adapter; heedful tell list shows them")


def _refuse_twice(store: Path, after: Pairs) -> None:
    holder: dict[str, str] = {}
    for name, _ in after:
        for part in dict.fromkeys(parts_of(find(store, name))):
            if part in holder:
                raise HeedfulError(
                    f"{part} would be applied twice, by {holder[part]} and by {name}; "
                    f"first: heedful tell disable {holder[part]}"
                )
            holder[part] = name


def _place(store: Path, after: Pairs) -> str:
    folder = store / CURRENT
    if not after:
        return f"no adapter is enabled, so {folder} is gone: what answers is the base model"
    return f"{folder} is now {in_words(after)}; try it: heedful sample {folder}"


# ---- writing


@contextmanager
def _changing(store: Path) -> Iterator[None]:
    """Let one process at a time change the store; the others wait."""
    make_folder(store)
    with writing(store / ".lock"):
        descriptor = os.open(store / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        with writing(store / ".lock"):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _rows(pairs: Pairs) -> list[dict[str, Any]]:
    return [{"name": name, "weight": weight} for name, weight in pairs]


def _commit(store: Path, state: Mapping[str, Any], after: Pairs, entry: dict[str, Any] | None) -> None:
    if list(after) != enabled(store) or entry is None or entry["action"] != "compose":
        _make_current(store, after)
    history = list(state["history"])
    if entry is not None:
        history.append({**entry, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")})
    text = json.dumps({"enabled": _rows(after), "history": history}, indent=1)
    write_file(store / ENABLED, f"{text}\n".encode())


def _make_current(store: Path, after: Pairs) -> None:
    if not after:
        _remove_sum(store / CURRENT)
        return
    common_base(store, [name for name, _ in after])
    _write_sum(store, after, store / CURRENT)


def _write_sum(store: Path, pairs: Pairs, out: Path) -> None:
    from heedful.policies.adapter_sum import write_sum

    adapters = [ready(store, name) for name, _ in pairs]
    weights = [weight for _, weight in pairs]
    facts = {
        "title": f"{out.name}: {in_words(pairs)}",
        "base_model": adapters[0].base,
        "method": "the sum of LoRA adapters",
        "feedback": "; ".join(adapter.sentence for adapter in adapters if adapter.sentence),
        "limits": ["The sum was not measured by itself; its parts were, each alone and at weight 1."],
    }
    write_sum([adapter.model for adapter in adapters], weights, out / "model", card=facts)
    made = {
        "method": "sum",
        "sha256": sha256_of(out / "model" / ADAPTER),
        "of": [
            {"name": adapter.name, "weight": weight, "sha256": sha256_of(adapter.model / ADAPTER)}
            for adapter, weight in zip(adapters, weights, strict=True)
        ],
        "base_model": adapters[0].base,
        "members": [
            row for adapter, weight in zip(adapters, weights, strict=True) for row in _leaves(adapter, weight)
        ],
    }
    write_file(out / COMPOSED, (json.dumps(made, indent=1) + "\n").encode())


def _leaves(adapter: Adapter, weight: float) -> list[dict[str, Any]]:
    """The trained adapters in this one, with what was measured of each: a member may change or go later."""
    if adapter.members:
        return [asdict(member) | {"weight": member.weight * weight} for member in adapter.members]
    figures = {key: asdict(figure) for key, figure in adapter.figures.items()}
    return [{"name": adapter.name, "weight": weight, "sentence": adapter.sentence, "figures": figures}]


def _remove_sum(folder: Path) -> None:
    if not folder.exists():
        return
    with writing(folder):
        remove_folder(folder / "model")
        (folder / COMPOSED).unlink(missing_ok=True)
        if not any(folder.iterdir()):
            folder.rmdir()


def _remove_composed(folder: Path) -> str:
    files = [file.name for file in folder.iterdir()] if folder.is_dir() else []
    others = sorted(set(files) - {"model", COMPOSED})
    if others:
        return f"{folder} was kept, for it holds {', '.join(others[:3])} too; remove it yourself if you like"
    _remove_sum(folder)
    return f"removed {folder}"
