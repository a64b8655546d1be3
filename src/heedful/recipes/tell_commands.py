"""`heedful tell list | enable | disable | compose | revert | conflicts`: options, and what the terminal shows."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from heedful.data.problems import printable
from heedful.errors import HeedfulError

if TYPE_CHECKING:
    from heedful.recipes.tell_changes import Changed
    from heedful.recipes.tell_store import Adapter, Figure

STORE = "runs/tell"
Names = Positional[Annotated[tuple[str, ...], arg(metavar="NAME [NAME ...]")]]


@dataclass(frozen=True)
class List:
    """List the adapters of a store: how well each keeps to its scope, and which are enabled."""

    store: str = STORE
    """The folder of all adapters."""
    json: bool = False
    """Print as JSON."""


@dataclass(frozen=True)
class Enable:
    """Use adapters: STORE/current becomes the sum of all that are enabled. One that leaks is refused."""

    names: Names
    """The adapters to enable."""
    max_leak: float = 0.15
    """Largest share of near-scope, or of general, answers that an adapter may change."""
    weight: float = 1.0
    """How strongly; 1 is as trained."""
    store: str = STORE
    """The folder of all adapters."""
    json: bool = False
    """Print as JSON."""


@dataclass(frozen=True)
class Disable:
    """Stop using adapters; they stay in the store."""

    names: Names
    """The adapters to disable."""
    store: str = STORE
    """The folder of all adapters."""
    json: bool = False
    """Print as JSON."""


@dataclass(frozen=True)
class Compose:
    """Make one adapter of several: the exact sum of their changes, or with --joint one trained on all their scopes."""

    names: Names
    """The adapters to put together."""
    out: str
    """Name of the new adapter."""
    weights: tuple[float, ...] = ()
    """One weight for each adapter; 1 each where none is given."""
    joint: bool = False
    """Train a new adapter on the scopes of all, instead of adding them up."""
    store: str = STORE
    """The folder of all adapters."""
    json: bool = False
    """Print as JSON."""


@dataclass(frozen=True)
class Revert:
    """Undo the last enable, disable or compose. Again: the one before."""

    store: str = STORE
    """The folder of all adapters."""
    json: bool = False
    """Print as JSON."""


@dataclass(frozen=True)
class Conflicts:
    """Find sentences that get in each other's way: their scopes overlap and their effects clash."""

    names: Positional[Annotated[tuple[str, ...], arg(metavar="[NAME ...]")]] = ()
    """Compare only these; all of the store where none is named."""
    store: str = STORE
    """The folder of all adapters."""
    json: bool = False
    """Print as JSON."""


def list_command(options: List) -> int:
    """Run `heedful tell list`."""
    from heedful.recipes.tell_store import is_current, list_adapters

    store = Path(options.store)
    adapters, fresh = list_adapters(store), is_current(store)
    if options.json:
        print(json.dumps({"adapters": [_plain(a) for a in adapters], "current_is_up_to_date": fresh}))
        return 0
    if not adapters:
        print(f'no adapters in {store}; make one: heedful tell "Always end emails to my manager with ..."')
        return 0
    print(
        table(
            ["name", "in use", "S_in", "S_near", "S_general", "minutes", "base", "sentence"],
            map(_row, adapters),
        )
    )
    if not fresh:
        again = next((a.name for a in adapters if a.weight is not None), "")
        how = f"heedful tell enable {again}" if again else "heedful tell revert"
        print(f"warning: {store / 'current'} is not the sum of what is enabled now; make it again: {how}")
    return 0


def enable_command(options: Enable) -> int:
    """Run `heedful tell enable`."""
    from heedful.recipes.tell_changes import enable

    changed = enable(Path(options.store), *options.names, max_leak=options.max_leak, weight=options.weight)
    return _say(changed, options.json)


def disable_command(options: Disable) -> int:
    """Run `heedful tell disable`."""
    from heedful.recipes.tell_changes import disable

    return _say(disable(Path(options.store), *options.names), options.json)


def compose_command(options: Compose) -> int:
    """Run `heedful tell compose`."""
    from heedful.recipes.tell_changes import compose

    if options.joint:
        if options.weights:
            raise HeedfulError("--weights has no meaning with --joint: one adapter is trained on all scopes")
        from heedful.recipes.tell_joint import main

        return main(options)
    weights = options.weights or (1.0,) * len(options.names)
    return _say(compose(Path(options.store), options.names, weights, options.out), options.json)


def revert_command(options: Revert) -> int:
    """Run `heedful tell revert`."""
    from heedful.recipes.tell_changes import revert

    return _say(revert(Path(options.store)), options.json)


def conflicts_command(options: Conflicts) -> int:
    """Run `heedful tell conflicts`."""
    from heedful.recipes.tell_conflicts import store_conflicts

    found, notes = store_conflicts(Path(options.store), options.names or None)
    if options.json:
        print(json.dumps({"conflicts": [asdict(c) for c in found], "notes": notes}))
        return 0
    if found:
        rows = [[c.a, c.b, f"{c.overlap:.0%}", f"{c.where}, and {c.why}"] for c in found]
        print(table(["one", "other", "overlap", "why"], rows))
    else:
        print("no conflicts found")
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    return 0


COMMANDS: dict[str, tuple[type, Callable[[Any], int]]] = {
    "list": (List, list_command),
    "enable": (Enable, enable_command),
    "disable": (Disable, disable_command),
    "compose": (Compose, compose_command),
    "revert": (Revert, revert_command),
    "conflicts": (Conflicts, conflicts_command),
}
"""What follows `heedful tell`: options and what to run with them."""


def table(names: Sequence[str], rows: Any) -> str:
    """Columns of text, aligned; the last is as long as it is."""
    lines = [list(names), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(names) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths)), line[-1]]).rstrip()
        for line in lines
    )


def _row(adapter: Adapter) -> list[str]:
    figures = [_shown(adapter.figures.get(key)) for key in ("s_in", "s_near")]
    general = adapter.figures.get("s_general")
    base = Path(adapter.base).name if adapter.base.startswith(("/", ".")) else adapter.base
    about = adapter.sentence
    if adapter.why:
        about = f"{adapter.state}: {adapter.why}" + (f" [{adapter.sentence}]" if adapter.sentence else "")
    used = "no" if adapter.weight is None else "yes" if adapter.weight == 1 else f"{adapter.weight:g} x"
    minutes = "" if adapter.minutes is None else f"{adapter.minutes:.1f}"
    return [adapter.name, used, *figures, _shown(general), minutes, base, about]


def _shown(figure: Figure | None) -> str:
    return "" if figure is None else str(figure)


def _plain(adapter: Adapter) -> dict[str, Any]:
    plain = asdict(adapter) | {"folder": str(adapter.folder), "enabled": adapter.weight is not None}
    figures = plain.pop("figures")
    leaks = [figures[key]["value"] for key in ("s_near", "s_general") if key in figures]
    return plain | figures | {"leak": max(leaks) if len(leaks) == 2 else None}


def _say(changed: Changed, as_json: bool) -> int:
    if as_json:
        print(json.dumps(asdict(changed)))
        return 0
    for line in changed.done:
        print(line)
    for warning in changed.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return 0
