"""Diffusion over chunks of actions by a 1-D U-Net, as in DROID's policy (arXiv 2403.12945, appendix; Chi et al. 2023).

A chunk has H steps (Tp, 16), from the first of To frames on; Ta of them (8) are carried out, from the present on: see
`actions.chunks.executed`. Steps, noise schedule, DDIM and the bound on log-densities are `DiffusionHead`'s.

Letters: B observations, N actions each, H steps of a chunk, K numbers of a step, T = H * K, R noises for each, F
features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from heedful.errors import HeedfulError
from heedful.losses import Result, denoising_loss
from heedful.policies.actions.diffusion import DiffusionHead
from heedful.policies.actions.task import Scene, SceneVector, TaskEncoder

LAPTOP: dict[str, Any] = {
    "widths": (64, 128, 256),
    "size": 64,
    "hidden": (256, 128),
    "steps": 50,
    "sample_steps": 10,
    "noises": 4,
}
"""A size for a laptop: about 5 million weights."""
PAPER: dict[str, Any] = {
    "widths": (256, 512, 1024),
    "size": 512,
    "hidden": (1024, 512, 512),
    "steps": 100,
    "sample_steps": 10,
    "noises": 8,
}
"""DROID's."""
FAR = 2.0
"""A number beyond this was never scaled to [-1, 1]; what is nearer is clipped to it, as data outside the ranges is."""


class UNetHead(DiffusionHead):
    """Predicts the noise in a chunk; sizes: `LAPTOP` or `PAPER`. noises: R, for each observation of a batch, which is
    encoded once for all of them.

    residual: the network predicts what the noise is beyond sqrt(1 - kept) of the noisy chunk, which alone is most of it
    (as Karras et al. 2022, section 5, precondition theirs). Without it, as in DROID's, the network must first learn to
    give back its input, which a small one does not do well in a few thousand steps.
    """

    def __init__(
        self,
        encoder: TaskEncoder,
        horizon: int,
        numbers: int,
        *,
        widths: Sequence[int] = (64, 128, 256),
        kernel: int = 5,
        size: int = 64,
        hidden: Sequence[int] = (256, 128),
        steps: int = 50,
        sampler: Literal["ancestral", "ddim"] = "ddim",
        sample_steps: int = 0,
        noises: int = 1,
        residual: bool = False,
    ) -> None:
        if noises < 1:
            raise ValueError(f"noises must be at least 1; it is {noises}")
        vector = SceneVector(encoder, size=size, hidden=tuple(hidden))
        net = UNet(vector, horizon, numbers, widths=tuple(widths), kernel=kernel)
        super().__init__(
            vector.features,
            horizon * numbers,
            steps=steps,
            sampler=sampler,
            sample_steps=sample_steps,
            net=net,
        )
        self.noises, self.residual = noises, residual

    def _noise(self, condition: Tensor, x: Tensor, step: int) -> Tensor:
        predicted = super()._noise(condition, x, step)
        return predicted + (1 - self.kept[step]).sqrt() * x if self.residual else predicted

    def loss(  # type: ignore[override]
        self, features: Scene, actions: Tensor, mask: Tensor, *, weight: Tensor | None = None
    ) -> Result:
        """Squared error of R noises, each at a step of its own, in numbers (B, T) of which `mask` (B, T) counts."""
        shape = (len(actions), self.noises)
        step = torch.randint(self.steps, shape, device=actions.device)
        noise = torch.randn(*shape, actions.shape[1], device=actions.device, dtype=actions.dtype)
        kept = self.kept[step][..., None]
        clean = torch.where(mask, actions, 0.0)[:, None]
        if float(clean.detach().abs().amax()) > FAR:
            raise HeedfulError(
                f"a number of an action is {float(clean.abs().amax()):.1f}; this policy works on numbers in [-1, 1], "
                "which its sampling is clipped to: take `actions.numbers.ranges`, of data like these"
            )
        clean = clean.clamp(-1, 1)
        x = kept.sqrt() * clean + (1 - kept).sqrt() * noise
        predicted = self.net(self.net.condition(features), x, step.to(x.dtype))
        if self.residual:
            predicted = predicted + (1 - kept).sqrt() * x
        rows = mask[:, None].expand_as(noise).flatten(0, 1)
        scale = None if weight is None else weight.repeat_interleave(self.noises)
        return denoising_loss(predicted.flatten(0, 1), noise.flatten(0, 1), mask=rows, weight=scale)


class UNet(nn.Module):
    """Noise of a chunk from (scene, chunk, time): down, across and up again along the steps, with FiLM everywhere.

    Blocks are those of Chi et al. 2023. The chunk's steps are halved between widths, so H must be a multiple of
    2^(widths - 1).
    """

    def __init__(
        self, vector: SceneVector, horizon: int, numbers: int, *, widths: tuple[int, ...], kernel: int
    ) -> None:
        super().__init__()
        halvings = len(widths) - 1
        if not widths or any(w % 8 for w in widths) or horizon % 2**halvings or kernel % 2 == 0:
            raise ValueError(
                f"a U-Net of the widths {widths} needs multiples of 8, an odd kernel, and a chunk whose steps are a "
                f"multiple of {2 ** max(0, halvings)}; it has {horizon}"
            )
        self.vector, self.horizon, self.numbers = vector, horizon, numbers
        time = 2 * widths[0]
        self.time = nn.Sequential(nn.Linear(widths[0], 4 * time), nn.Mish(), nn.Linear(4 * time, time))
        self.time_size = widths[0]
        inner = vector.features + time

        def block(a: int, b: int) -> ChunkBlock:
            return ChunkBlock(a, b, inner, kernel)

        pairs = list(zip((numbers, *widths), widths))
        self.down = nn.ModuleList(nn.ModuleList([block(a, b), block(b, b)]) for a, b in pairs)
        self.halve = nn.ModuleList(nn.Conv1d(w, w, 3, stride=2, padding=1) for w in widths[:-1])
        self.middle = nn.ModuleList([block(widths[-1], widths[-1]) for _ in range(2)])
        turns = list(zip(widths[:0:-1], widths[-2::-1]))
        self.up = nn.ModuleList(nn.ModuleList([block(2 * a, b), block(b, b)]) for a, b in turns)
        self.stretch = nn.ModuleList(nn.ConvTranspose1d(b, b, 4, stride=2, padding=1) for _, b in turns)
        self.out = nn.Sequential(
            nn.Conv1d(widths[0], widths[0], kernel, padding=kernel // 2),
            nn.GroupNorm(8, widths[0]),
            nn.Mish(),
            nn.Conv1d(widths[0], numbers, 1),
        )

    def condition(self, features: Scene) -> Tensor:
        """(B, 1, F)."""
        return self.vector(features)[:, None]

    def forward(self, condition: Tensor, numbers: Tensor, time: Tensor) -> Tensor:
        """condition (B, 1, F), numbers (B, N, T), time () or (B, N) in steps of diffusion -> (B, N, T)."""
        b, n, _ = numbers.shape
        phase = self.time(sinusoids(time.expand(b, n), self.time_size))
        seen = torch.cat([condition.expand(-1, n, -1), phase], -1).flatten(0, 1)
        x = numbers.reshape(b * n, self.horizon, self.numbers).transpose(1, 2)
        kept = []
        for i, (first, second) in enumerate(self.down):  # type: ignore[misc]
            x = second(first(x, seen), seen)
            kept.append(x)
            x = self.halve[i](x) if i < len(self.halve) else x
        for block in self.middle:
            x = block(x, seen)
        for stretch, (first, second) in zip(self.stretch, self.up, strict=True):  # type: ignore[misc]
            x = stretch(second(first(torch.cat([x, kept.pop()], 1), seen), seen))
        return self.out(x).transpose(1, 2).reshape(b, n, -1)


class ChunkBlock(nn.Module):
    """Two convolutions along the steps, FiLM between them, and the input added."""

    def __init__(self, inner: int, outer: int, condition: int, kernel: int) -> None:
        super().__init__()

        def convolution(a: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv1d(a, outer, kernel, padding=kernel // 2), nn.GroupNorm(8, outer), nn.Mish()
            )

        self.first, self.second = convolution(inner), convolution(outer)
        self.film = nn.Sequential(nn.Mish(), nn.Linear(condition, 2 * outer))
        self.skip = nn.Conv1d(inner, outer, 1) if inner != outer else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x (M, inner, H), condition (M, F) -> (M, outer, H)."""
        scale, shift = self.film(condition)[..., None].chunk(2, 1)
        return self.second(scale * self.first(x) + shift) + self.skip(x)


def sinusoids(time: Tensor, size: int) -> Tensor:
    """(...,) -> (..., size): sines and cosines of a time, in steps of diffusion."""
    rate = torch.exp(-torch.log(torch.tensor(10_000.0)) * torch.arange(0, size, 2, device=time.device) / size)
    phase = time[..., None].float() * rate
    return torch.cat([phase.sin(), phase.cos()], -1)
