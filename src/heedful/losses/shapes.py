"""What the losses share: the shapes of their arguments, masks, reductions and metrics."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

Scalar = Float[Tensor, ""]
Seq = Float[Tensor, "B"]
Tok = Float[Tensor, "B T"]
Gain = Seq | Tok
Members = Float[Tensor, "*K B"]
Bins = Float[Tensor, "*K B M"]
Mask = Shaped[Tensor, "B T"]
Flags = Bool[Tensor, "B"]
Kept = Shaped[Tensor, "B"]
Places = Int[Tensor, "B"]
Logits = Float[Tensor, "B M"]
Result = tuple[Scalar, dict[str, Tensor]]
Reduction = Literal["token", "sequence"]

MIN_NEG_LOGP = 1e-6
"""orpo and unlikelihood: probabilities are kept this far below 1, where the odds are infinite."""


def masked(values: Tensor, mask: Tensor) -> Tensor:
    """Values in float32 where the mask is set, 0 elsewhere."""
    return torch.where(mask.bool(), values.float(), 0.0)


def spread(advantage: Tensor, mask: Tensor) -> Tensor:
    """One advantage per sequence (B,) or per token (B, T) as one per token, detached and masked."""
    per_token = advantage.detach().float()
    return masked(per_token[:, None] if per_token.ndim == 1 else per_token, mask)


def reduce(values: Tensor, mask: Tensor, reduction: str) -> Tensor:
    """The mean over all tokens that count, or the mean over sequences of their sums."""
    kept = masked(values, mask)
    if reduction == "token":
        return kept.sum() / mask.bool().sum().clamp(min=1)
    if reduction == "sequence":
        return kept.sum(-1).mean()
    raise ValueError(f"there is no reduction {reduction!r}; choose token or sequence")


def log_ratio_to(logp: Tensor, ref: Tensor) -> Tensor:
    """log pi - log ref in float32; the reference gets no gradient."""
    return logp.float() - ref.detach().float()


def mean_logp(total: Tensor, length: Tensor) -> Tensor:
    """Summed log-probabilities over their numbers of tokens."""
    return total.float() / length.detach().float().clamp(min=1)


def share_above(values: Tensor) -> Tensor:
    """1 where above 0, a half where exactly 0."""
    return (values > 0).float() + 0.5 * (values == 0).float()


def as_metrics(**values: Tensor) -> dict[str, Tensor]:
    """Detached float32 means, the form of every metric."""
    return {name: value.detach().float().mean() for name, value in values.items()}


def token_metrics(mask: Tensor, **values: Tensor) -> dict[str, Tensor]:
    """The same over the tokens that count."""
    return as_metrics(**{name: reduce(value, mask, "token") for name, value in values.items()})
