"""An autoregressive policy: each number of an action is a token, chosen in turn given those before.

PA-RL's transformer (spec, section 3): GPT-2 blocks (Radford et al. 2019), the observation as one token, 128 bins, and
embeddings and output layers that belong to the place of a number in the action.

Letters: B observations, N actions each, F features, T numbers of an action, M bins, W width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heedful.losses import Result, nll_loss
from heedful.policies.sampling import choose

Cache = list[tuple[Tensor, Tensor]]


class Block(nn.Module):
    """A pre-norm transformer block that may see keys and values of tokens that stand before its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.merge = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, past: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """x (R, L, W) -> the same, and the keys and values (R, heads, past + L, size) up to its end."""
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.qkv(self.before_attention(x)).chunk(3, -1)
        )
        before = 0
        if past is not None:
            before = past[0].shape[2]
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        mask = torch.ones(x.shape[1], k.shape[2], dtype=torch.bool, device=x.device).tril(before)
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.merge(seen.transpose(1, 2).flatten(-2))
        return x + self.mlp(self.before_mlp(x)), (k, v)


class TokenHead(nn.Module):
    """A transformer over the numbers of an action; each is the nearest of `bins` points from -1 to 1.

    The observation's token is encoded once for all N actions. Temperature divides the logits; 0 takes the likeliest.
    """

    continuous = False

    def __init__(
        self,
        features: int,
        numbers: int,
        *,
        bins: int = 128,
        width: int = 256,
        layers: int = 4,
        heads: int = 8,
    ) -> None:
        super().__init__()
        if bins < 2 or width % heads:
            raise ValueError(
                f"bins must be at least 2 and width a multiple of heads; {bins}, {width}, {heads}"
            )
        self.numbers, self.bins = numbers, bins
        self.observe = nn.Linear(features, width)
        self.embed = nn.Parameter(0.02 * torch.randn(numbers, bins, width))
        self.place = nn.Parameter(0.02 * torch.randn(numbers + 1, width))
        self.blocks = nn.ModuleList([Block(width, heads) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)
        self.out = nn.Parameter(0.02 * torch.randn(numbers, bins, width))
        self.bias = nn.Parameter(torch.zeros(numbers, bins))

    def to_tokens(self, actions: Tensor) -> Tensor:
        """The nearest point of each number in [-1, 1]."""
        return ((actions + 1) / 2 * (self.bins - 1)).round().long().clamp(0, self.bins - 1)

    def to_numbers(self, tokens: Tensor) -> Tensor:
        """The points that tokens stand for."""
        return tokens / (self.bins - 1) * 2 - 1

    def _run(self, x: Tensor, past: Cache | None) -> tuple[Tensor, Cache]:
        kept: Cache = []
        for i, block in enumerate(self.blocks):
            x, both = block(x, past[i] if past else None)
            kept.append(both)
        return self.norm(x), kept

    def _begin(self, features: Tensor) -> tuple[Tensor, Cache]:
        """The state (B, W) that predicts the first number, and what later ones see of the observation."""
        hidden, past = self._run((self.observe(features) + self.place[0])[:, None], None)
        return hidden[:, 0], past

    def _logits(self, hidden: Tensor, place: int) -> Tensor:
        return (hidden @ self.out[place].T + self.bias[place]).float()

    def draw(self, features: Tensor, n: int, *, temperature: float, generator: torch.Generator) -> Tensor:
        """(B, F) -> (B, N, T). Each number of each action has a random number of its own."""
        hidden, past = self._begin(features)
        rows = len(features) * n
        uniform = torch.rand(rows, self.numbers, generator=generator, device=generator.device).to(hidden)
        logits = self._logits(hidden, 0).repeat_interleave(n, 0)
        past = [(k.repeat_interleave(n, 0), v.repeat_interleave(n, 0)) for k, v in past]
        tokens: list[Tensor] = []
        for place in range(self.numbers):
            chosen, _ = choose(logits, uniform[:, place], temperature=temperature)
            tokens.append(chosen)
            if place + 1 < self.numbers:
                x = self.embed[place][chosen] + self.place[place + 1]
                hidden, past = self._run(x[:, None], past)
                logits = self._logits(hidden[:, 0], place + 1)
        return self.to_numbers(torch.stack(tokens, -1)).to(features).unflatten(0, (-1, n))

    def log_prob(self, features: Tensor, actions: Tensor) -> Tensor:
        """Log-probability of the tokens nearest to numbers (B, N, T), by number."""
        n = actions.shape[1]
        tokens = self.to_tokens(actions).flatten(0, 1)
        first, past = self._begin(features)
        hidden = first.repeat_interleave(n, 0)[:, None]
        if self.numbers > 1:
            past = [(k.repeat_interleave(n, 0), v.repeat_interleave(n, 0)) for k, v in past]
            places = torch.arange(self.numbers - 1, device=tokens.device)
            later, _ = self._run(self.embed[places, tokens[:, :-1]] + self.place[1 : self.numbers], past)
            hidden = torch.cat([hidden, later], 1)
        logits = (torch.einsum("rtw,tmw->rtm", hidden, self.out) + self.bias).float()
        logp = logits.log_softmax(-1).gather(-1, tokens[..., None]).squeeze(-1)
        return logp.unflatten(0, (-1, n))

    def loss(self, features: Tensor, actions: Tensor, *, weight: Tensor | None = None) -> Result:
        """Cross-entropy of numbers (B, T), summed over them."""
        logp = self.log_prob(features, actions[:, None])[:, 0]
        return nll_loss(logp, torch.ones_like(logp), weight=weight, reduction="sequence")
