"""What all prompts of a batch begin with, encoded once: instructions and demonstrations as long as many prompts.

The keys and values of the first tokens do not depend on what comes after them, so prompts with a common beginning need
it only once. This is exact up to rounding of the arithmetic.

Letters as in `sampling`: H heads, K key/value heads, G = H / K, D head size, R rows, S shared tokens; T own tokens of
all prompts together.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heedful.policies.packing import Group, Pack, UnsupportedModel, pack

LEAST = 96
"""Shared tokens below which prompts are encoded one by one: what is saved would be less than what the joining costs."""


def shared_length(prompts: Sequence[Sequence[int]]) -> int:
    """How many first tokens all prompts have in common, 0 where it is not worth the while; less than any prompt has."""
    if len(prompts) < 2:
        return 0
    shortest = min(map(len, prompts))
    first, last = min(prompts, key=list), max(prompts, key=list)  # what these two share, all share
    same = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    common = min(sum(1 for _ in same), shortest - 1)
    return common if common >= LEAST else 0


class Prefix:
    """Keys and values of the S shared tokens, (K, S, D) a layer; made by one forward pass."""

    def __init__(self, decoder: nn.Module, tokens: Sequence[int], device: torch.device | str) -> None:
        self.length = len(tokens)
        self.layout = pack([Group(tokens, [[0]])], device)
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        decoder(
            input_ids=self.layout.tokens,
            position_ids=self.layout.positions,
            use_cache=False,
            heedful_layout=self,
        )

    def attend(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        scaling: float,
        dropout: float = 0.0,
        window: int | None = None,
    ) -> Tensor:
        """Causal attention, (1, H, S, D) -> (1, S, H, D); the keys and values are kept."""
        if layer != len(self.keys) or (window is not None and self.length > window):
            raise UnsupportedModel(
                "layers out of order, or a beginning longer than the model's sliding window"
            )
        self.keys.append(key[0])
        self.values.append(value[0])
        return self.layout.attend(layer, query, key, value, scaling=scaling)

    def attend_from(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, layout: Pack, *, scaling: float
    ) -> Tensor:
        """Attention of each prompt's own tokens to the shared ones and to each other, (1, H, T, D) -> (1, T, H, D)."""
        pieces = []
        for start, end, _ in layout.segments:
            own = end - start
            keys = torch.cat([self.keys[layer], key[0, :, start:end]], 1)
            values = torch.cat([self.values[layer], value[0, :, start:end]], 1)
            seen = torch.ones(own, self.length + own, dtype=torch.bool, device=key.device).tril(self.length)
            pieces.append(
                F.scaled_dot_product_attention(
                    query[:, :, start:end],
                    keys[None],
                    values[None],
                    attn_mask=seen,
                    scale=scaling,
                    enable_gqa=query.shape[1] != key.shape[1],
                )
            )
        return torch.cat(pieces, 2).transpose(1, 2)

    def scores(self, layer: int, query: Tensor) -> Tensor:
        """Of rows' queries, scaled already: (R, K, G, D) -> (R, K, G, S) float32."""
        rows, kv, groups, size = query.shape
        flat = query.transpose(0, 1).reshape(kv, rows * groups, size)
        return (flat @ self.keys[layer].transpose(-1, -2)).view(kv, rows, groups, -1).transpose(0, 1).float()

    def mixed(self, layer: int, weights: Tensor) -> Tensor:
        """The values in the proportions of the weights, (R, K, G, S) -> (R, K, G, D)."""
        rows, kv, groups, shared = weights.shape
        flat = weights.transpose(0, 1).reshape(kv, rows * groups, shared)
        return (flat @ self.values[layer]).view(kv, rows, groups, -1).transpose(0, 1)
