"""ACT that follows commands: action chunking with transformers, as a conditional VAE (Zhao et al. 2023, arXiv
2304.13705; the low level of Yell At Your Robot, arXiv 2403.12910).

An encoder of actions makes a latent z of the chunk that was shown; a transformer reads z, the robot's numbers, the
command and all places of all images, and H queries become H actions. A command enters twice: by FiLM in the image
networks and as a token.

Where this departs from the papers' code:

1. Images are normalised once (theirs: twice).
2. Actions come from the last layer of the decoder (theirs: from the first, whatever their number).
3. Layers normalise first, positions are added once, at the input (theirs: after, and at each attention).
4. Each camera and frame has a learned position beside the sinusoidal ones of places.
5. No head says which steps are padding: theirs is never trained.
6. Where the image networks find keypoints, a perceptron from these, numbers and command is added to the chunk: a small
   transformer learns late to look.
7. z is drawn from N(0, temperature); theirs is 0 at test time, which is temperature 0.

Letters: B observations, N actions each, T numbers of a chunk, H steps, K numbers of a step, D hidden size, Z of the
latent, P places of all images.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from heedful.losses import Result, act_loss, gaussian_kl
from heedful.policies.actions.diffusion import BOUND_DRAWS
from heedful.policies.actions.task import Scene, TaskEncoder

LAPTOP: dict[str, Any] = {
    "hidden": 128,
    "feedforward": 512,
    "heads": 4,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "latent_layers": 2,
    "latent": 16,
    "kl_weight": 10.0,
}
"""A size for a laptop: under 2 million weights."""
PAPER: dict[str, Any] = {
    "hidden": 512,
    "feedforward": 3200,
    "heads": 8,
    "encoder_layers": 4,
    "decoder_layers": 7,
    "latent_layers": 4,
    "latent": 32,
    "kl_weight": 80.0,
}
"""Yell At Your Robot's."""
LATENT, NUMBERS, COMMAND = 0, 1, 2
"""Places of the three tokens before the images'."""


class ActHead(nn.Module):
    """From scenes to chunks of numbers; sizes: `LAPTOP` or `PAPER`."""

    continuous = True
    places: Tensor

    def __init__(
        self,
        encoder: TaskEncoder,
        horizon: int,
        numbers: int,
        *,
        hidden: int = 128,
        feedforward: int = 512,
        heads: int = 4,
        encoder_layers: int = 2,
        decoder_layers: int = 3,
        latent_layers: int = 2,
        latent: int = 16,
        kl_weight: float = 10.0,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if hidden % (4 * heads):
            raise ValueError(f"hidden must be a multiple of 4 times the heads; they are {hidden} and {heads}")
        self.horizon, self.numbers, self.latent, self.kl_weight = horizon, numbers, latent, kl_weight

        def layers(make: Any, kind: Any, count: int) -> Any:
            layer = make(hidden, heads, feedforward, dropout, batch_first=True, norm_first=True)
            more = {"enable_nested_tensor": False} if kind is nn.TransformerEncoder else {}
            return kind(layer, count, norm=nn.LayerNorm(hidden), **more)

        self.of_latent = nn.Linear(latent, hidden)
        self.of_numbers = nn.Linear(encoder.numbers, hidden) if encoder.numbers else None
        self.of_command = nn.Linear(encoder.language, hidden) if encoder.language else None
        self.token_places = nn.Parameter(torch.randn(3, hidden) * 0.02)
        self.of_images = nn.ModuleList(nn.Conv2d(c, hidden, 1) for c, _, _ in encoder.maps.values())
        self.of_points = nn.ModuleList(
            nn.Linear(encoder.places, hidden) for _ in (encoder.maps if encoder.places else ())
        )
        frames = encoder.space.history
        self.camera_places = nn.Parameter(torch.randn(len(encoder.maps), frames, hidden) * 0.02)
        for i, (_, h, w) in enumerate(encoder.maps.values()):
            self.register_buffer(f"grid_{i}", grid_positions(h, w, hidden), persistent=False)
        wide = encoder.numbers + encoder.language + encoder.places * frames * len(encoder.maps)
        self.short_way = (
            nn.Sequential(
                nn.Linear(wide, 2 * hidden),
                nn.SiLU(),
                nn.Linear(2 * hidden, hidden),
                nn.SiLU(),
                nn.Linear(hidden, horizon * numbers),
            )
            if encoder.places
            else None
        )
        self.encode = layers(nn.TransformerEncoderLayer, nn.TransformerEncoder, encoder_layers)
        self.queries = nn.Parameter(torch.randn(horizon, hidden) * 0.02)
        self.decode = layers(nn.TransformerDecoderLayer, nn.TransformerDecoder, decoder_layers)
        self.out = nn.Linear(hidden, numbers)

        self.summary = nn.Parameter(torch.randn(1, hidden) * 0.02)
        self.shown_numbers = nn.Linear(encoder.numbers, hidden) if encoder.numbers else None
        self.shown_actions = nn.Linear(numbers, hidden)
        self.register_buffer("places", line_positions(2 + horizon, hidden), persistent=False)
        self.look = layers(nn.TransformerEncoderLayer, nn.TransformerEncoder, latent_layers)
        self.moments = nn.Linear(hidden, 2 * latent)

    def seen(self, scene: Scene) -> tuple[Tensor, Tensor]:
        """What a scene is before any latent: numbers, command, places of images and the keypoints of each, (B, up to
        2 + P + one for each image, D), and what goes the short way, (B, 1, T) or zeros (B, 1, 1)."""
        parts = []
        if self.of_numbers is not None:
            parts.append(self.of_numbers(scene.numbers) + self.token_places[NUMBERS])
        if self.of_command is not None:
            parts.append(self.of_command(scene.language) + self.token_places[COMMAND])
        tokens = [part[:, None] for part in parts]
        for i, maps in enumerate(scene.maps.values()):
            seen = self.of_images[i](maps.flatten(0, 1)).unflatten(0, maps.shape[:2])
            places = getattr(self, f"grid_{i}") + self.camera_places[i][:, :, None, None]
            tokens.append((seen + places).movedim(2, -1).flatten(1, 3))
        for i, layer in enumerate(self.of_points):
            places = scene.points[list(scene.maps)[i]]
            tokens.append(layer(places) + self.camera_places[i])
        row = torch.cat(tokens, 1)
        if self.short_way is None:
            return row, row.new_zeros(len(row), 1, 1)
        points = [found.flatten(1) for found in scene.points.values()]
        return row, self.short_way(torch.cat([scene.numbers, scene.language, *points], -1))[:, None]

    def chunks(self, seen: tuple[Tensor, Tensor], latent: Tensor) -> Tensor:
        """What is `seen` of B scenes and latents (B, N, Z) -> (B, N, T)."""
        (tokens, short), (b, n, _) = seen, latent.shape
        first = self.of_latent(latent) + self.token_places[LATENT]
        whole = torch.cat([first[:, :, None], tokens[:, None].expand(-1, n, -1, -1)], 2).flatten(0, 1)
        queries = self.queries.expand(b * n, -1, -1)
        return self.out(self.decode(queries, self.encode(whole))).flatten(1).unflatten(0, (b, n)) + short

    def posterior(self, scene: Scene, actions: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of z, (B, Z) each, of numbers (B, T) of which `mask` (B, T) counts."""
        there = mask.unflatten(1, (self.horizon, self.numbers))[..., 0]
        # what does not count must not matter, not even where it is not finite
        steps = torch.where(mask, actions, 0.0).unflatten(1, (self.horizon, self.numbers))
        b = len(steps)
        parts = [self.summary.expand(b, 1, -1)]
        if self.shown_numbers is not None:
            parts.append(self.shown_numbers(scene.numbers)[:, None])
        parts.append(self.shown_actions(steps))
        tokens = torch.cat(parts, 1)
        before = tokens.shape[1] - self.horizon
        ignored = torch.cat([torch.zeros(b, before, dtype=torch.bool, device=there.device), ~there], 1)
        seen = self.look(tokens + self.places[: tokens.shape[1]], src_key_padding_mask=ignored)
        mean, log_var = self.moments(seen[:, 0]).chunk(2, -1)
        return mean, log_var

    def draw(self, scene: Scene, n: int, *, temperature: float, generator: torch.Generator) -> Tensor:
        """(B, N, T)."""
        seen = self.seen(scene)
        noise = torch.randn(len(seen[0]), n, self.latent, generator=generator, device=generator.device)
        if temperature == 0:
            return self.chunks(seen, torch.zeros_like(noise[:, :1]).to(seen[0])).expand(-1, n, -1)
        return self.chunks(seen, temperature * noise.to(seen[0]))

    def loss(self, scene: Scene, actions: Tensor, mask: Tensor, *, weight: Tensor | None = None) -> Result:
        """Of numbers (B, T)."""
        mean, log_var = self.posterior(scene, actions, mask)
        z = mean + (0.5 * log_var).exp() * torch.randn_like(mean)
        predicted = self.chunks(self.seen(scene), z[:, None])[:, 0]
        return act_loss(
            predicted,
            actions,
            mask,
            gaussian_kl(mean, log_var),
            numbers=self.horizon * self.numbers,
            kl_weight=self.kl_weight,
            weight=weight,
        )

    def log_prob(self, scene: Scene, actions: Tensor) -> Tensor:
        """A lower bound on the log-density of numbers (B, N, T), (B, N, 1): the evidence bound of the VAE.

        Absolute errors are those of a Laplace distribution of scale 1. Its expectation is taken over `BOUND_DRAWS`
        latents, always the same noises, so that actions and policies compare without chance.
        """
        b, n, _ = actions.shape
        flat = actions.float().flatten(0, 1)
        wide = Scene(scene.numbers.repeat_interleave(n, 0), scene.language.repeat_interleave(n, 0), {}, {})
        mean, log_var = self.posterior(wide, flat, torch.ones_like(flat, dtype=torch.bool))
        generator = torch.Generator(flat.device).manual_seed(0)
        seen, total = self.seen(scene), torch.zeros(b * n, device=flat.device)
        for _ in range(BOUND_DRAWS):
            noise = torch.randn(self.latent, generator=generator, device=flat.device)
            z = (mean + (0.5 * log_var).exp() * noise).unflatten(0, (b, n))
            error = (self.chunks(seen, z).flatten(0, 1) - flat).abs().sum(-1)
            total = total - error - flat.shape[-1] * math.log(2)
        return (total / BOUND_DRAWS - gaussian_kl(mean, log_var)).unflatten(0, (b, n))[..., None]


def line_positions(count: int, size: int) -> Tensor:
    """(count, size) sines and cosines of places in a row (Vaswani et al. 2017, section 3.5)."""
    place = torch.arange(count)[:, None]
    rate = torch.exp(-math.log(10_000) * torch.arange(0, size, 2) / size)
    return torch.stack([(place * rate).sin(), (place * rate).cos()], -1).flatten(1)


def grid_positions(height: int, width: int, size: int) -> Tensor:
    """(size, height, width): the first half of the numbers tells the row, the second the column, in shares of a turn
    (DETR)."""
    half = size // 2
    rate = torch.exp(-math.log(10_000) * torch.arange(0, half, 2) / half)

    def along(count: int) -> Tensor:
        phase = 2 * math.pi * (torch.arange(count)[:, None] + 1) / count * rate
        return torch.stack([phase.sin(), phase.cos()], -1).flatten(1).T

    rows = along(height)[:, :, None].expand(-1, -1, width)
    return torch.cat([rows, along(width)[:, None, :].expand(-1, height, -1)])
