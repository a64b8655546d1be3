"""A copy of a module that follows it slowly: a critic's target network, a diffusion policy's averaged weights."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class Polyak:
    """slow <- slow + rate (fast - slow) after every step (Polyak and Juditsky 1992; Lillicrap et al. 2016, section 3).

    rise: begin as the plain mean of what was seen, until that has the same rate, so that the first weights, which
    nobody has trained, do not weigh on a short run; as a number, the n-th update has the rate n^-rise, which forgets
    faster below 1 (diffusion policies have 0.75). `module` is the copy: no gradients, evaluation mode; frozen weights
    are the module's own, not copied. Hand `tensors()` to `fit(state=...)` and `update` to its `after_step`, and a
    resumed run goes on exactly.
    """

    def __init__(self, fast: nn.Module, rate: float, *, rise: bool | float = False) -> None:
        if not 0 < rate <= 1:
            raise ValueError(f"rate must be above 0 and at most 1; it is {rate}")
        self.fast, self.rate, self.rise = fast, rate, rise
        frozen = {name: p for name, p in fast.named_parameters() if not p.requires_grad}
        self.shared = set(frozen)
        self.module = copy.deepcopy(fast, {id(p): p for p in frozen.values()}).requires_grad_(False).eval()
        self.updates = torch.zeros((), dtype=torch.int64)

    @torch.no_grad()
    def update(self) -> None:
        """Follow the module by one step; what is no floating number is taken over."""
        self.updates += 1
        rate = max(self.rate, 1 / float(self.updates) ** self.rise) if self.rise else self.rate
        fast = self.fast.state_dict()
        for name, slow in self._own().items():
            if slow.is_floating_point():
                slow.lerp_(fast[name].to(slow.dtype), rate)
            else:
                slow.copy_(fast[name])

    @torch.no_grad()
    def copy(self) -> None:
        """Be equal to the module, as if new."""
        self.module.load_state_dict(self.fast.state_dict())
        self.updates.zero_()

    def tensors(self, prefix: str = "slow") -> dict[str, Tensor]:
        """Everything that changes, by name; changed in place."""
        state = {f"{prefix}/{name}": value for name, value in self._own().items()}
        return {**state, f"{prefix}/updates": self.updates}

    def _own(self) -> dict[str, Tensor]:
        return {name: v for name, v in self.module.state_dict().items() if name not in self.shared}
