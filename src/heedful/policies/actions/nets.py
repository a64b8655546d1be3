"""The networks that heads are made of, and how they share work between the N actions of one observation.

Letters: B observations, N actions each, F features, T numbers of an action.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


def mlp(sizes: Sequence[int], *, layer_norm: bool = False) -> nn.Sequential:
    """Linear layers of these sizes with SiLU between them."""
    layers: list[nn.Module] = []
    for i, (inner, outer) in enumerate(pairwise(sizes)):
        layers.append(nn.Linear(inner, outer))
        if i + 2 < len(sizes):
            layers += [nn.LayerNorm(outer), nn.SiLU()] if layer_norm else [nn.SiLU()]
    return nn.Sequential(*layers)


class TimeFeatures(nn.Module):
    """Learned Fourier features of a time, (...,) -> (..., size), as in IDQL and PA-RL's code."""

    def __init__(self, size: int = 128) -> None:
        super().__init__()
        self.frequency = nn.Parameter(torch.randn(size // 2) * 0.2)

    def forward(self, time: Tensor) -> Tensor:
        """cos and sin of 2 pi w t."""
        phase = 2 * math.pi * time[..., None] * self.frequency
        return torch.cat([phase.cos(), phase.sin()], -1)


class ResidualBlock(nn.Module):
    """Dropout, LayerNorm, a linear layer four times as wide, SiLU, and back; added to the input (IDQL)."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Dropout(dropout),
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            nn.SiLU(),
            nn.Linear(4 * width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(..., W) -> (..., W)."""
        return x + self.inner(x)


class DenoisingNet(nn.Module):
    """What diffusion and flow learn: numbers from (features, numbers, time). IDQL's `MLPResNet`.

    Its first layer takes the three side by side. Written as a sum, what belongs to an observation is computed once
    (`condition`) for all its N actions and all steps of sampling, and what belongs to a time once for all rows.
    """

    def __init__(self, features: int, numbers: int, *, width: int, blocks: int, dropout: float) -> None:
        super().__init__()
        self.time = nn.Sequential(TimeFeatures(128), nn.Linear(128, 256), nn.SiLU(), nn.Linear(256, 128))
        self.of_features = nn.Linear(features, width)
        self.of_numbers = nn.Linear(numbers, width, bias=False)
        self.of_time = nn.Linear(128, width, bias=False)
        self.blocks = nn.Sequential(*[ResidualBlock(width, dropout) for _ in range(blocks)])
        self.out = nn.Sequential(nn.SiLU(), nn.Linear(width, numbers))

    def condition(self, features: Tensor) -> Tensor:
        """(B, F) -> (B, 1, W)."""
        return self.of_features(features)[:, None]

    def forward(self, condition: Tensor, numbers: Tensor, time: Tensor) -> Tensor:
        """condition (B, 1, W), numbers (B, N, T), time () or (B, N) in steps of sampling -> (B, N, T)."""
        x = condition + self.of_numbers(numbers) + self.of_time(self.time(time))
        return self.out(self.blocks(x))
