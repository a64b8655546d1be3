"""A flow-matching policy: a velocity field that carries noise to actions along straight paths.

Lipman et al. 2023; Liu et al. 2023 (rectified flow).

Letters: B observations, N actions each, F features, T numbers of an action.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from heedful.losses import Result, denoising_loss
from heedful.policies.actions.nets import DenoisingNet

PATH_STEPS = 50
"""Steps in which `log_prob` follows an action back to its noise."""


class FlowHead(nn.Module):
    """Predicts the velocity from noise (time 0) to action (time 1); `steps` Euler steps of it make an action.

    Temperature multiplies the first noise; 0 starts from its mean. What is drawn is clipped at the end alone.
    """

    continuous = True

    def __init__(
        self,
        features: int,
        numbers: int,
        *,
        steps: int = 10,
        width: int = 256,
        blocks: int = 3,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if steps < 1:
            raise ValueError(f"steps must be at least 1; it is {steps}")
        self.net = DenoisingNet(features, numbers, width=width, blocks=blocks, dropout=dropout)
        self.numbers, self.steps = numbers, steps

    def _step(self, condition: Tensor, x: Tensor, step: int) -> Tensor:
        time = torch.tensor(float(step), dtype=x.dtype, device=x.device)
        return self.net(condition, x, time) / self.steps

    def draw(self, features: Tensor, n: int, *, temperature: float, generator: torch.Generator) -> Tensor:
        """(B, F) -> (B, N, T)."""
        condition = self.net.condition(features)
        shape = (len(features), n, self.numbers)
        x = temperature * torch.randn(shape, generator=generator, device=generator.device).to(condition)
        for step in range(self.steps):
            x = x + self._step(condition, x, step)
        return x.clamp(-1, 1)

    def loss(self, features: Tensor, actions: Tensor, *, weight: Tensor | None = None) -> Result:
        """Squared error of the velocity at a time drawn for each action, of numbers (B, T)."""
        time = torch.rand(len(actions), 1, device=actions.device, dtype=actions.dtype)
        noise = torch.randn_like(actions)
        x = (1 - time) * noise + time * actions
        predicted = self.net(self.net.condition(features), x[:, None], time * self.steps)[:, 0]
        return denoising_loss(predicted, actions - noise, weight=weight)

    def log_prob(self, features: Tensor, actions: Tensor) -> Tensor:
        """Log-density (B, N, 1) of numbers (B, N, T) under the flow in continuous time, before clipping.

        The path is followed back to its noise by the midpoint rule in `PATH_STEPS`, and the exact divergence of the
        velocity is summed along it (Chen et al. 2018, eq. 8). Sampling takes fewer and plainer steps, so what is drawn
        differs from this density by the error of those.
        """
        condition, x = self.net.condition(features), actions.float()
        condition = condition.expand(-1, x.shape[1], -1)
        total, size = torch.zeros_like(x[..., 0]), 1 / PATH_STEPS

        def velocity(condition: Tensor, x: Tensor, time: Tensor) -> Tensor:
            return self.net(condition[None, None], x[None, None], time)[0, 0]

        slopes = torch.func.vmap(torch.func.jacrev(velocity, argnums=1), in_dims=(0, 0, None))
        for step in range(PATH_STEPS, 0, -1):
            time = torch.tensor(step * size * self.steps, device=x.device)
            half = x - size / 2 * self.net(condition, x, time)
            time = time - size / 2 * self.steps
            x = x - size * self.net(condition, half, time)
            slope = slopes(condition.flatten(0, 1), half.flatten(0, 1), time)
            total = total + size * slope.diagonal(dim1=-2, dim2=-1).sum(-1).view_as(total)
        noise = -0.5 * x.square().sum(-1) - 0.5 * self.numbers * math.log(2 * math.pi)
        return (noise - total)[..., None]
