"""A diffusion policy: denoising diffusion over the numbers of an action.

Ho et al. 2020 with the cosine schedule of Nichol and Dhariwal 2021; network and sampler as in IDQL (Hansen-Estruch et
al. 2023) and PA-RL's release; DDIM (Song et al. 2021) as the other sampler.

Letters: B observations, N actions each, F features, T numbers of an action, D steps of diffusion.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from heedful.losses import Result, denoising_loss
from heedful.policies.actions.nets import DenoisingNet

BOUND_DRAWS = 8
"""Noises over which `log_prob` averages its bound, at each step."""


def cosine_betas(steps: int, offset: float = 0.008) -> Tensor:
    """(D,) noise variances. Nichol and Dhariwal 2021, eq. 17, cut at 0.999."""
    t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    kept = torch.cos((t + offset) / (1 + offset) * math.pi / 2).square()
    return (1 - kept[1:] / kept[:-1]).clamp(0, 0.999).float()


class DiffusionHead(nn.Module):
    """Predicts the noise in an action. Every step of sampling is clipped to [-1, 1], as released.

    sampler "ancestral" draws with std sqrt(beta_t) at all steps but the last, `temperature` times that; "ddim" is
    deterministic after the first noise, which `temperature` multiplies, and may take fewer `sample_steps` than D.
    net: what predicts the noise, with the two calls of a `DenoisingNet`, in place of one.
    """

    continuous = True
    beta: Tensor
    kept: Tensor

    def __init__(
        self,
        features: int,
        numbers: int,
        *,
        steps: int = 5,
        width: int = 256,
        blocks: int = 3,
        dropout: float = 0.1,
        sampler: Literal["ancestral", "ddim"] = "ancestral",
        sample_steps: int = 0,
        net: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if sampler not in ("ancestral", "ddim"):
            raise ValueError(f"there is no sampler {sampler!r}; choose ancestral or ddim")
        if steps < 1 or not 0 <= sample_steps <= steps or (sample_steps and sampler == "ancestral"):
            raise ValueError(
                "sample_steps is a number of ddim steps, at most that of steps, which is at least 1"
            )
        self.net: Any = net or DenoisingNet(features, numbers, width=width, blocks=blocks, dropout=dropout)
        self.numbers, self.steps, self.sampler = numbers, steps, sampler
        self.sample_steps = sample_steps or steps
        beta = cosine_betas(steps)
        self.register_buffer("beta", beta, persistent=False)
        self.register_buffer("kept", (1 - beta.double()).cumprod(0).float(), persistent=False)

    def _noise(self, condition: Tensor, x: Tensor, step: int) -> Tensor:
        return self.net(condition, x, torch.tensor(float(step), dtype=x.dtype, device=x.device))

    def _mean(self, condition: Tensor, x: Tensor, step: int) -> Tensor:
        """The mean of x one step earlier. Ho et al. 2020, eq. 11."""
        beta, kept = self.beta[step], self.kept[step]
        return (x - beta * (1 - kept).rsqrt() * self._noise(condition, x, step)) * (1 - beta).rsqrt()

    def draw(self, features: Tensor, n: int, *, temperature: float, generator: torch.Generator) -> Tensor:
        """(B, F) -> (B, N, T)."""
        condition = self.net.condition(features)
        shape = (len(features), n, self.numbers)

        def normal() -> Tensor:
            return torch.randn(shape, generator=generator, device=generator.device).to(condition)

        if self.sampler == "ddim":
            return self._ddim(condition, temperature * normal())
        x = normal()
        for step in range(self.steps - 1, -1, -1):
            x = self._mean(condition, x, step)
            if step:
                x = x + temperature * self.beta[step].sqrt() * normal()
            x = x.clamp(-1, 1)
        return x

    def _ddim(self, condition: Tensor, x: Tensor) -> Tensor:
        """Song et al. 2021, eq. 12 with sigma = 0; the predicted action is clipped, and the noise follows it."""
        places = torch.linspace(self.steps - 1, 0, self.sample_steps).round().long().tolist()
        for step, after in zip(places, [*places[1:], -1], strict=True):
            kept = self.kept[step]
            action = (x - (1 - kept).sqrt() * self._noise(condition, x, step)) * kept.rsqrt()
            action = action.clamp(-1, 1)
            if after < 0:
                return action
            noise = (x - kept.sqrt() * action) * (1 - kept).rsqrt()
            x = self.kept[after].sqrt() * action + (1 - self.kept[after]).sqrt() * noise
        return x

    def loss(self, features: Tensor, actions: Tensor, *, weight: Tensor | None = None) -> Result:
        """Squared error of the noise at a step drawn for each action, of numbers (B, T)."""
        step = torch.randint(self.steps, (len(actions),), device=actions.device)
        noise = torch.randn_like(actions)
        kept = self.kept[step][:, None]
        x = kept.sqrt() * actions + (1 - kept).sqrt() * noise
        condition = self.net.condition(features)
        predicted = self.net(condition, x[:, None], step[:, None].to(x.dtype))[:, 0]
        return denoising_loss(predicted, noise, weight=weight)

    def log_prob(self, features: Tensor, actions: Tensor) -> Tensor:
        """A lower bound, by number, on the log-density of numbers (B, N, T). Ho et al. 2020, eq. 5.

        It is that of the chain without clipping and with a last noise of variance beta_0. Its expectation is taken over
        `BOUND_DRAWS` noises, always the same ones for all actions, so that actions and policies compare without chance.
        """
        condition, x0 = self.net.condition(features), actions.float()
        generator = torch.Generator(x0.device).manual_seed(0)
        last = self.kept[-1]
        bound = -0.5 * (last * x0.square() - last - torch.log1p(-last))
        for step in range(self.steps):
            beta, kept = self.beta[step], self.kept[step]
            total = torch.zeros_like(x0)
            for _ in range(BOUND_DRAWS):
                noise = torch.randn(self.numbers, generator=generator, device=x0.device)
                x = kept.sqrt() * x0 + (1 - kept).sqrt() * noise
                mean = self._mean(condition, x, step).float()
                if step == 0:
                    total += -0.5 * (x0 - mean).square() / beta - 0.5 * torch.log(2 * math.pi * beta)
                    continue
                before = self.kept[step - 1]
                true = (before.sqrt() * beta * x0 + (1 - beta).sqrt() * (1 - before) * x) / (1 - kept)
                ratio = (1 - before) / (1 - kept)
                total -= 0.5 * (ratio - 1 - ratio.log() + (mean - true).square() / beta)
            bound = bound + total / BOUND_DRAWS
        return bound
