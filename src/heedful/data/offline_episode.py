"""One episode out of anybody's file: the places of its fields, its observations by name, the state after its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heedful.data.replay import Episode
from heedful.errors import HeedfulError

Array = NDArray[Any]
Faulty = Callable[[str], None]
"""Told what is wrong with an episode that is left out because of it."""


@dataclass
class Found:
    """An episode as it stands in a file. where(field, row): the place of its row, counted from 0, for messages.

    left_out: steps that could not be used because the state after them is not in the file.
    """

    episode: Episode
    where: Place
    left_out: int = 0


@dataclass(frozen=True)
class Place:
    """Where an episode's fields stand: `file: actions, row 17`."""

    file: str
    names: Mapping[str, str]
    first: int = 0
    prefix: str = ""

    def __call__(self, field: str, row: int | None = None) -> str:
        named = self.names.get(field, field)
        return f"{self.file}: {self.prefix}{named}" + ("" if row is None else f", row {self.first + row}")


def episode_of(
    states: dict[str, Array],
    action: Any,
    reward: Any,
    terminal: Any,
    where: Place,
    info: dict[str, Any],
    *,
    complete: bool = False,
) -> Found:
    """An episode of S steps; rewards and terminals are (S,) or (S, 1).

    complete: the states have one row more than the steps.
    Raises HeedfulError for fields that are no numbers, and for rewards and terminals that are not one for each step.
    """
    action = numbers(action, where, "action")
    reward, terminal = (
        _one_each(values, len(action), where, field)
        for field, values in (("reward", reward), ("terminal", terminal))
    )
    left = 0
    if not complete and len(terminal) and terminal[-1] > 0:
        states = {name: np.concatenate([values, values[-1:]]) for name, values in states.items()}
    elif not complete:
        left = 1
        action, reward, terminal = action[:-1], reward[:-1], terminal[:-1]
    flat = action.reshape(len(action), int(np.prod(action.shape[1:], dtype=np.int64)))
    return Found(Episode(states, flat, reward, terminal, info), where, left)


def named(parts: Mapping[str, Any], where: Place) -> dict[str, Array]:
    """Observations by name as `evals.control.to_observation` does: numbers flat, images channels first."""
    out = {}
    for name, values in parts.items():
        array = np.asarray(values)
        image = array.ndim == 4 and array.dtype == np.uint8
        name = name or ("image" if image else "state")
        if image:
            out[name] = np.moveaxis(array, -1, 1) if array.shape[-1] in (1, 3, 4) else array
        elif array.dtype.kind in "fiub" and array.ndim:
            flat = array.reshape(len(array), int(np.prod(array.shape[1:], dtype=np.int64)))
            out[name] = flat.astype(np.float32)
        else:
            raise HeedfulError(
                f"{where(name)} is {array.dtype} of the shape {array.shape}: no rows of numbers, no images"
            )
    return out


def leaves(node: Any, name: str = "") -> dict[str, Any]:
    """Arrays of nested groups by name, joined by slashes; a lone array is called ""."""
    if not hasattr(node, "keys"):
        return {name: node}
    out: dict[str, Any] = {}
    for key in node.keys():  # noqa: SIM118 - a group of HDF5 is no dict
        out |= leaves(node[key], f"{name}/{key}" if name else key)
    return out


def numbers(values: Any, where: Place, field: str) -> Array:
    """A field as an array, a row for each step. Raises HeedfulError for a group of fields and for what is no number."""
    if hasattr(values, "keys"):
        raise HeedfulError(
            f"{where(field)} is a group of {', '.join(values.keys()) or 'nothing'}; one array of numbers, a row for "
            "each step, is needed: join its parts"
        )
    array = np.asarray(values[()])
    if array.dtype.kind not in "fiub" or not array.ndim:
        raise HeedfulError(
            f"{where(field)} is {array.dtype} of the shape {array.shape}; numbers, a row for each step, are needed"
        )
    return array


def check_there(where: Place, needed: tuple[str, ...], found: list[str]) -> None:
    """Raises HeedfulError naming the fields that are missing."""
    missing = [name for name in needed if name not in found]
    if missing:
        raise HeedfulError(
            f"{where.file}: {where.prefix}{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing; "
            f"there are {', '.join(sorted(found)) or 'no fields'}"
        )


def check_rows(where: Place, fields: Mapping[str, Any]) -> None:
    """Raises HeedfulError with the number of rows of each field, where they differ."""
    lengths = {name: values.shape[0] if values.shape else 0 for name, values in fields.items()}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{where.prefix}{name} {count}" for name, count in lengths.items())
        raise HeedfulError(f"{where.file}: the fields have different numbers of rows: {said}")


def _one_each(values: Any, steps: int, where: Place, field: str) -> Array:
    array = numbers(values, where, field)
    if array.shape not in ((steps,), (steps, 1)):
        raise HeedfulError(
            f"{where(field)} has the shape {array.shape}; ({steps},), one number for each step, is expected"
        )
    return array.reshape(-1)
