"""Policies that follow commands and give chunks of actions: how they learn, and how their chunks are carried out.

Letters: B observations, N actions each, H steps of an action chunk, A numbers of an action, K numbers that stand for
it (see `actions.numbers`), T = H * K.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from heedful.errors import HeedfulError
from heedful.losses import Result
from heedful.policies.actions import ActionSpace, NetworkPolicy, Observations
from heedful.policies.actions.numbers import ActionNumbers

RISE = 0.75
"""How averaged weights begin, see `Polyak`: as in DROID's policy."""


class ChunkPolicy(NetworkPolicy):
    """A `TaskEncoder` and a head on its scenes. The head works on `numbers`; what it draws is clipped to the bounds.

    Without `numbers` the bounds become [-1, 1], as in the other policies.
    """

    def __init__(
        self,
        encoder: nn.Module,
        head: Any,
        space: ActionSpace,
        *,
        numbers: ActionNumbers | None = None,
        ema: float = 0.0,
    ) -> None:
        super().__init__(encoder, head, space, ema=ema, rise=RISE)
        self.numbers = numbers or bound_numbers(space)
        self.numbers.check(space)

    def encode(self, observations: Observations) -> Any:
        """A `Scene` of B observations."""
        return self.acting()["encoder"](observations)  # type: ignore[index, operator]

    def draw(self, encoded: Any, n: int, *, temperature: float = 1.0, generator: torch.Generator) -> Tensor:
        """See `ActionPolicy.draw`."""
        if n < 1 or not temperature >= 0:
            raise HeedfulError(
                f"n must be at least 1 and temperature 0 or more; they are {n} and {temperature}"
            )
        head: Any = self.acting()["head"]  # type: ignore[index]
        drawn = head.draw(encoded, n, temperature=temperature, generator=generator)
        return self.space.clip(self.numbers.decode(drawn.unflatten(-1, (self.space.horizon, -1))))

    def log_prob(self, encoded: Any, actions: Tensor) -> Tensor:
        """See `ActionPolicy.log_prob`: a lower bound, of diffusion by number and of ACT as one number.

        Raises HeedfulError where angles are predicted as six numbers: those have no density by unit of angle.
        """
        if self.numbers.euler:
            raise HeedfulError(
                "a policy that predicts rotations as six numbers has no density over Euler angles: make it without "
                "`euler` where log-probabilities are needed"
            )
        head: Any = self.acting()["head"]  # type: ignore[index]
        values = head.log_prob(encoded, self.numbers.encode(actions).flatten(-2))
        scale = values.new_tensor(self.numbers.scale).log().repeat(self.space.horizon)
        return values - (scale if values.shape[-1] == len(scale) else scale.sum())

    def loss(
        self,
        observations: Observations,
        actions: Tensor,
        *,
        weight: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Result:
        """See `ActionPolicy.loss`. mask (B, H): steps of a chunk that count (all), see `segments.chunk_at`."""
        if tuple(actions.shape[1:]) != self.space.shape:
            raise HeedfulError(
                f"actions have the shape {tuple(actions.shape[1:])}; {self.space.shape} is expected"
            )
        scene = self.module["encoder"](observations)  # type: ignore[index, operator]
        head: Any = self.module["head"]  # type: ignore[index]
        numbers = self.numbers.encode(actions.to(scene.numbers)).flatten(1)
        counted = (
            torch.ones_like(numbers)
            if mask is None
            else mask.to(numbers.device).repeat_interleave(self.numbers.size, 1)
        )
        return head.loss(scene, numbers, counted.bool(), weight=weight)


def bound_numbers(space: ActionSpace) -> ActionNumbers:
    """Numbers in which the bounds of a space are -1 and 1."""
    pairs = list(zip(space.low, space.high, strict=True))
    return ActionNumbers(tuple((a + b) / 2 for a, b in pairs), tuple((b - a) / 2 for a, b in pairs))


@dataclass(frozen=True)
class ChunkBatch:
    """B observations with their "task", the chunks (B, H, A) that were shown, and which of their steps count, (B,
    H)."""

    observations: Observations
    actions: Tensor
    mask: Tensor | None = None
    weight: Tensor | None = None


def chunk_objective(policy: ChunkPolicy) -> Callable[[ChunkBatch], Result]:
    """What `fit` takes as its loss; its `module` is `policy.module`, its `after_step` and `state` are the policy's."""
    return lambda batch: policy.loss(batch.observations, batch.actions, weight=batch.weight, mask=batch.mask)


# ---- carrying chunks out


def executed(chunks: Tensor, *, steps: int, past: int = 0) -> Tensor:
    """(..., H, A) -> (..., steps, A): what is done before the policy is asked again.

    past: steps of a chunk that are before the present, To - 1 for a policy that predicts from its first frame on.
    Raises HeedfulError when a chunk has fewer steps.
    """
    if not 1 <= past + steps <= chunks.shape[-2] or steps < 1 or past < 0:
        raise HeedfulError(f"a chunk of {chunks.shape[-2]} steps has no {steps} steps from step {past} on")
    return chunks[..., past : past + steps, :]


class TemporalEnsemble:
    """The mean of what several chunks say for one step, the oldest weighing most: exp(-k i) of the i-th oldest.

    Zhao et al. 2023, section IV-C; k = 0.01. `clear` it when the command changes, or the old command lives on in the
    mean.
    """

    def __init__(self, k: float = 0.01) -> None:
        self.k = k
        self._chunks: list[tuple[int, Tensor]] = []

    def clear(self) -> None:
        """Forget all chunks."""
        self._chunks = []

    def add(self, step: int, chunk: Tensor) -> None:
        """A chunk (H, A) whose first action is for `step`."""
        self._chunks.append((step, chunk))

    def at(self, step: int) -> Tensor:
        """(A,) for a step. Raises HeedfulError when no chunk reaches it; chunks that end before are forgotten."""
        self._chunks = [(first, chunk) for first, chunk in self._chunks if step < first + len(chunk)]
        said = [chunk[step - first] for first, chunk in self._chunks if first <= step]
        if not said:
            raise HeedfulError(f"no chunk says what to do at step {step}")
        weight = torch.exp(-self.k * torch.arange(len(said), dtype=torch.float64))
        return (torch.stack(said) * (weight / weight.sum()).to(said[0])[:, None]).sum(0)


def collate_chunks(rows: Sequence[ChunkBatch]) -> ChunkBatch:
    """Single rows, each a `ChunkBatch` of one, as one batch: `fit`'s `collate`.

    Raises HeedfulError when they do not all have the same parts.
    """
    first = rows[0]
    for name in ("mask", "weight"):
        if len({getattr(row, name) is None for row in rows}) > 1:
            raise HeedfulError(f"some rows of a batch have a {name} and some have none")
    observations = {
        name: torch.cat([row.observations[name] for row in rows])
        if isinstance(value, Tensor)
        else [text for row in rows for text in row.observations[name]]
        for name, value in first.observations.items()
    }
    mask, weight = (
        None if getattr(first, name) is None else torch.cat([getattr(row, name) for row in rows])
        for name in ("mask", "weight")
    )
    return ChunkBatch(observations, torch.cat([row.actions for row in rows]), mask, weight)
