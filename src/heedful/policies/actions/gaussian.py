"""A Gaussian policy: mean and bounded log-std by number, with or without tanh.

Letters: B observations, N actions each, F features, T numbers of an action.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from heedful.losses import Result, nll_loss
from heedful.policies.actions.nets import mlp

EDGE = 1e-6
"""tanh: actions are taken at most this close to the bounds, where its inverse is infinite."""


class GaussianHead(nn.Module):
    """N(mean, std) on numbers in [-1, 1]; tanh squashes what is drawn, else what leaves the bounds is clipped.

    The log-std moves between its two bounds by a tanh, so it has a gradient everywhere. Densities are those before
    clipping. Temperature multiplies the std; 0 gives the mean (tanh: of what is squashed).
    """

    continuous = True

    def __init__(
        self,
        features: int,
        numbers: int,
        *,
        hidden: Sequence[int] = (256, 256),
        log_std: tuple[float, float] = (-5.0, 2.0),
        tanh: bool = False,
    ) -> None:
        super().__init__()
        if not log_std[0] < log_std[1]:
            raise ValueError(f"log_std needs a lower and an upper bound; it is {log_std}")
        self.net = mlp([features, *hidden, 2 * numbers], layer_norm=True)
        self.log_std, self.tanh = log_std, tanh

    def _moments(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-std, (B, 1, T) each."""
        mean, free = self.net(features)[:, None].chunk(2, -1)
        low, high = self.log_std
        return mean, low + (high - low) * (free.tanh() + 1) / 2

    def draw(self, features: Tensor, n: int, *, temperature: float, generator: torch.Generator) -> Tensor:
        """(B, F) -> (B, N, T)."""
        mean, log_std = self._moments(features)
        shape = (len(mean), n, mean.shape[-1])
        noise = torch.randn(shape, generator=generator, device=generator.device).to(mean)
        drawn = mean + temperature * log_std.exp() * noise
        return drawn.tanh() if self.tanh else drawn.clamp(-1, 1)

    def log_prob(self, features: Tensor, actions: Tensor) -> Tensor:
        """Log-density of numbers (B, N, T), by number."""
        mean, log_std = self._moments(features)
        mean, log_std = mean.float(), log_std.float()
        inner = actions.float()
        squash = 0.0
        if self.tanh:
            inner = inner.clamp(-1 + EDGE, 1 - EDGE).atanh()
            squash = 2 * (math.log(2) - inner - softplus(-2 * inner))
        far = (inner - mean) * (-log_std).exp()
        return -0.5 * far.square() - log_std - 0.5 * math.log(2 * math.pi) - squash

    def loss(self, features: Tensor, actions: Tensor, *, weight: Tensor | None = None) -> Result:
        """Negative log-likelihood of numbers (B, T), summed over them."""
        logp = self.log_prob(features, actions[:, None])[:, 0]
        return nll_loss(logp, torch.ones_like(logp), weight=weight, reduction="sequence")
