"""What a network predicts in place of an action: angles without jumps, and numbers of like size.

An `ActionSpace` has the environment's own numbers. Two policies for robots work on others: Euler angles become six
numbers (`rotations`), and each number is shifted and scaled by what the data show: z-scores (ACT) or the range [-1,
1] (DROID). Velocities may be learned as what they add up to: where the chunk leads is seen, the noise of each step is
not.

Letters: A numbers of an action, K numbers that stand for it, H steps of a chunk.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from heedful.errors import HeedfulError
from heedful.policies.actions import ActionSpace
from heedful.policies.rotations import euler_to_rot6d, rot6d_to_euler


@dataclass(frozen=True)
class ActionNumbers:
    """Numbers (K,) for an action (A,): (x - shift) / scale, where x has six numbers in place of three angles.

    euler: places of the action where three Euler angles (xyz, radians) begin. sums: places among the K of numbers that
    are added up over the steps of a chunk, each from the first on.
    """

    shift: tuple[float, ...]
    scale: tuple[float, ...]
    euler: tuple[int, ...] = ()
    sums: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(self.shift) != len(self.scale) or not all(0 < s < float("inf") for s in self.scale):
            raise HeedfulError("action numbers: as many shifts as scales are needed, and scales above 0")
        if any(b - a < 3 for a, b in zip(sorted(self.euler), sorted(self.euler)[1:])):
            raise HeedfulError(f"action numbers: angles that begin at {self.euler} overlap")
        if any(not 0 <= i < len(self.shift) for i in self.sums):
            raise HeedfulError(f"action numbers: {self.sums} are not all places of {len(self.shift)} numbers")

    @property
    def size(self) -> int:
        """K."""
        return len(self.shift)

    @property
    def per_action(self) -> int:
        """A."""
        return self.size - 3 * len(self.euler)

    def check(self, space: ActionSpace) -> None:
        """Raises HeedfulError when the space's actions have other numbers than these stand for."""
        if self.per_action != len(space.low) or any(not 0 <= i <= len(space.low) - 3 for i in self.euler):
            raise HeedfulError(
                f"action numbers: {self.size} with angles at {list(self.euler)} stand for {self.per_action} numbers, "
                f"and the actions have {len(space.low)}"
            )

    def encode(self, actions: Tensor) -> Tensor:
        """(..., A) -> (..., K); with sums (..., H, A) -> (..., H, K)."""
        x = _added_up(_with_rot6d(actions, self.euler), self.sums)
        return (x - x.new_tensor(self.shift)) / x.new_tensor(self.scale)

    def decode(self, numbers: Tensor) -> Tensor:
        """(..., K) -> (..., A), not clipped to any bounds; angles are in (-pi, pi]. With sums (..., H, K)."""
        x = numbers * numbers.new_tensor(self.scale) + numbers.new_tensor(self.shift)
        if self.sums:
            steps = x.diff(dim=-2, prepend=torch.zeros_like(x[..., :1, :]))
            x = torch.where(_places(self.sums, x), steps, x)
        if not self.euler:
            return x
        parts, at = [], 0
        for first, last, angles in _pieces(self.per_action, self.euler):
            width = 6 if angles else last - first
            piece = x[..., at : at + width]
            parts.append(rot6d_to_euler(piece) if angles else piece)
            at += width
        return torch.cat(parts, -1)

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> ActionNumbers:
        """The inverse of `dataclasses.asdict`."""
        shift, scale, euler = (tuple(said[name]) for name in ("shift", "scale", "euler"))
        return cls(shift, scale, euler, tuple(said.get("sums", ())))


def z_scores(
    actions: Tensor, *, euler: Sequence[int] = (), sums: Sequence[int] = (), floor: float = 0.01
) -> ActionNumbers:
    """Mean 0 and std 1 over all actions (..., A), chunks (..., H, A) where there are sums; a std below `floor` counts
    as that (ACT: 0.01).

    Raises HeedfulError for no actions, and for numbers that are not finite.
    """
    x = _known(actions, euler, sums)
    std = x.std(0, correction=0).clamp(min=floor)
    return ActionNumbers(tuple(x.mean(0).tolist()), tuple(std.tolist()), tuple(euler), tuple(sums))


def ranges(
    actions: Tensor, *, euler: Sequence[int] = (), keep: Sequence[int] = (), sums: Sequence[int] = ()
) -> ActionNumbers:
    """The range of each number over all actions (..., A), chunks (..., H, A) where there are sums, becomes [-1, 1];
    keep: places left as they are (a gripper).

    A number that never changes becomes 0. Raises HeedfulError as `z_scores` does, and for an angle among `keep`.
    """
    x = _known(actions, euler, sums)
    low, high = x.amin(0), x.amax(0)
    shift, scale = (low + high) / 2, (high - low) / 2
    scale = torch.where(scale > 1e-6, scale, torch.ones_like(scale))
    for place in keep:
        if any(i <= place < i + 3 for i in euler):
            raise HeedfulError(f"action number {place} is an angle: it cannot be kept as it is")
        at = place + 3 * sum(i < place for i in euler)
        shift[at], scale[at] = 0.0, 1.0
    return ActionNumbers(tuple(shift.tolist()), tuple(scale.tolist()), tuple(euler), tuple(sums))


def _known(actions: Tensor, euler: Sequence[int], sums: Sequence[int]) -> Tensor:
    given = actions.double()
    if not given.numel() or not given.isfinite().all():
        raise HeedfulError("the actions to take ranges from are none, or some are not finite")
    return _added_up(_with_rot6d(given, euler), sums).flatten(0, -2)


def _added_up(x: Tensor, sums: Sequence[int]) -> Tensor:
    if not sums:
        return x
    return torch.where(_places(sums, x), x.cumsum(-2), x)


def _places(sums: Sequence[int], x: Tensor) -> Tensor:
    return torch.tensor([i in sums for i in range(x.shape[-1])], device=x.device)


def _with_rot6d(actions: Tensor, euler: Sequence[int]) -> Tensor:
    if not euler:
        return actions
    return torch.cat(
        [
            euler_to_rot6d(actions[..., first:last]) if angles else actions[..., first:last]
            for first, last, angles in _pieces(actions.shape[-1], euler)
        ],
        -1,
    )


def _pieces(count: int, euler: Sequence[int]) -> Iterator[tuple[int, int, bool]]:
    """(first, last, whether it is three angles) of each piece of an action."""
    at = 0
    for start in sorted(euler):
        if start > at:
            yield at, start, False
        yield start, start + 3, True
        at = start + 3
    if at < count:
        yield at, count, False
