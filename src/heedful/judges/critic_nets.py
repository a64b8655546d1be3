"""An ensemble of Q-networks as one module: every layer is one batched product over its members.

Letters: K members, B observations, N actions each, F features, T numbers of an action, W width.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CACHED_ROWS = 5120
"""Rows, over all members, that are computed at a time, half as many with gradients: more leave the cache."""


class MembersLinear(nn.Module):
    """K linear layers side by side: (K, R, I) -> (K, R, O); orthogonal weights of this gain, each member its own."""

    def __init__(self, members: int, inner: int, outer: int, *, gain: float, bias: bool = True) -> None:
        super().__init__()
        weight = torch.stack([nn.init.orthogonal_(torch.empty(outer, inner), gain).T for _ in range(members)])
        self.weight = nn.Parameter(weight.contiguous())
        self.bias = nn.Parameter(torch.zeros(members, 1, outer)) if bias else None

    def forward(self, x: Tensor, members: Tensor | None = None) -> Tensor:
        """x (K, R, I), or (R, I) where all members see the same; members: which of them, all without."""
        weight = self.weight if members is None else self.weight[members]
        if x.ndim == 2:
            x = x.expand(len(weight), -1, -1)
        if self.bias is None:
            return torch.bmm(x, weight)
        return torch.baddbmm(self.bias if members is None else self.bias[members], x, weight)


class MembersNorm(nn.Module):
    """K layer norms side by side, each with its own scale and shift."""

    def __init__(self, members: int, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(members, 1, width))
        self.shift = nn.Parameter(torch.zeros(members, 1, width))

    def forward(self, x: Tensor, members: Tensor | None = None) -> Tensor:
        """(K, R, W) -> the same."""
        scale, shift = (p if members is None else p[members] for p in (self.scale, self.shift))
        return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:]), scale)


class QEnsemble(nn.Module):
    """K networks from (features, action) to `outputs` numbers: linear, layer norm, SiLU or ReLU, `depth` times.

    The first layer takes features and action side by side; as a sum of two products, the part of the features is
    computed once for all N actions of an observation. action_every_layer: the action enters each layer (PA-RL on
    CALVIN). The last layer begins near zero (gain 1e-2).
    """

    def __init__(
        self,
        features: int,
        numbers: int,
        *,
        members: int = 10,
        width: int = 256,
        depth: int = 3,
        layer_norm: bool = True,
        activation: Literal["silu", "relu"] = "silu",
        action_every_layer: bool = False,
        outputs: int = 1,
    ) -> None:
        super().__init__()
        if members < 1 or depth < 1:
            raise ValueError(f"members and depth must be at least 1; they are {members} and {depth}")
        self.members, self.numbers = members, numbers
        self.activate = {"silu": F.silu, "relu": F.relu}[activation]
        gain = 2**0.5
        self.of_features = MembersLinear(members, features, width, gain=gain)
        entries = depth if action_every_layer else 1
        self.of_action = nn.ModuleList(
            [MembersLinear(members, numbers, width, gain=gain, bias=False) for _ in range(entries)]
        )
        self.inner = nn.ModuleList(
            [MembersLinear(members, width, width, gain=gain) for _ in range(depth - 1)]
        )
        self.norms = nn.ModuleList([MembersNorm(members, width) for _ in range(depth)] if layer_norm else [])
        self.last = MembersLinear(members, width, outputs, gain=1e-2)

    def forward(self, features: Tensor, actions: Tensor, members: Tensor | None = None) -> Tensor:
        """features (B, F), actions (B, N, T) -> (K, B, N, outputs); members: which to compute, all without."""
        b, n, _ = actions.shape
        count = self.members if members is None else len(members)
        rows = CACHED_ROWS // 2 if torch.is_grad_enabled() else CACHED_ROWS
        part = max(1, rows // (count * n))
        if part < b and actions.device.type == "cpu":
            pieces = zip(features.split(part), actions.split(part), strict=True)
            return torch.cat([self._forward(f, a, members) for f, a in pieces], 1)
        return self._forward(features, actions, members)

    def _forward(self, features: Tensor, actions: Tensor, members: Tensor | None) -> Tensor:
        b, n, _ = actions.shape
        flat = actions.flatten(0, 1)
        x = self.of_features(features, members)[:, :, None] + self.of_action[0](flat, members).unflatten(
            1, (b, n)
        )
        x = self._after(x.flatten(1, 2), 0, members)
        for i, layer in enumerate(self.inner, start=1):
            x = layer(x, members)
            if len(self.of_action) > 1:
                x = x + self.of_action[i](flat, members)
            x = self._after(x, i, members)
        return self.last(x, members).unflatten(1, (b, n))

    def _after(self, x: Tensor, layer: int, members: Tensor | None) -> Tensor:
        if len(self.norms):
            x = self.norms[layer](x, members)
        return self.activate(x)
