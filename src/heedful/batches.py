"""Which rows a step takes, and how they are cut into micro-batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from heedful.errors import HeedfulError
from heedful.run import derive_seed


@dataclass
class Micro:
    """Rows that go through the model together, and their summed weight."""

    indices: list[int] = field(default_factory=list)
    rows: list[Any] = field(default_factory=list)
    weight: float = 0.0
    cost: float = 0.0


@lru_cache(maxsize=4)
def row_order(seed: int, stage: str, epoch: int, count: int) -> Tensor:
    """The order of `count` rows in an epoch: int64 (count,), a pure function of its arguments."""
    generator = torch.Generator().manual_seed(derive_seed(seed, stage, "order", epoch))
    return torch.randperm(count, generator=generator)


def step_rows(seed: int, stage: str, step: int, count: int, batch_size: int) -> list[int]:
    """Row indices of `step` (from 0). The last step of an epoch is short when batch_size leaves a rest."""
    epoch, place = divmod(step, math.ceil(count / batch_size))
    return row_order(seed, stage, epoch, count)[place * batch_size : (place + 1) * batch_size].tolist()


def micro_batches(
    indices: Sequence[int],
    rows: Sequence[Any],
    limit: float,
    cost: Callable[[Any], float] | None = None,
    weight: Callable[[Any], float] | None = None,
) -> list[Micro]:
    """Group rows into micro-batches of summed cost <= `limit` (0: one), the costly first.

    A row above the limit goes alone; a row of weight 0 adds nothing to a step and is left out. Raises
    `HeedfulError` for a weight that is negative or not finite.
    """
    taken = []
    for index in indices:
        row = rows[index]
        w, c = float(weight(row)) if weight else 1.0, float(cost(row)) if cost else 1.0
        if not (math.isfinite(w) and w >= 0):
            raise HeedfulError(f"row {index} has weight {w}; weights must be finite and not negative")
        if w > 0:
            taken.append((c, w, index, row))
    # Rows of like cost side by side: less padding when a batch is padded to its longest row.
    taken.sort(key=lambda entry: -entry[0])
    micros: list[Micro] = []
    for c, w, index, row in taken:
        if not micros or (limit > 0 and micros[-1].cost + c > limit):
            micros.append(Micro())
        last = micros[-1]
        last.indices.append(index)
        last.rows.append(row)
        last.weight += w
        last.cost += c
    return micros
