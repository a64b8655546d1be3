"""Policy gradients by token, and the critic beside them."""

from __future__ import annotations

import torch

from heedful.losses.shapes import (
    Gain,
    Mask,
    Reduction,
    Result,
    Tok,
    masked,
    reduce,
    spread,
    token_metrics,
)

MAX_LOG_RATIO = 20.0
"""ppo: log-ratios above this are cut, so that exp stays finite."""


def reinforce_loss(logp: Tok, mask: Mask, advantage: Gain, *, reduction: Reduction = "sequence") -> Result:
    """The policy gradient, -advantage * log pi. Williams 1992.

    One advantage per sequence (B,), see `feedback.advantages`, or per token (B, T), see `returns.gae`. Metrics, per
    token: advantage, nll.
    """
    logp, gain = masked(logp, mask), spread(advantage, mask)
    return reduce(-gain * logp, mask, reduction), token_metrics(mask, advantage=gain, nll=-logp)


def ppo_loss(
    logp: Tok, old: Tok, mask: Mask, advantage: Gain, *, clip: float = 0.2, reduction: Reduction = "sequence"
) -> Result:
    """Clipped surrogate -min(ratio A, clip(ratio, 1 - clip, 1 + clip) A). Schulman et al. 2017, eq. 7.

    By token. old holds the log-probabilities under the policy that drew the samples. Where it equals logp,
    the gradient is that of `reinforce_loss`. Metrics, per token: ratio, clip_fraction, approx_kl (ratio - 1 -
    log ratio).
    """
    log_ratio = (masked(logp, mask) - masked(old, mask).detach()).clamp(max=MAX_LOG_RATIO)
    ratio, gain = log_ratio.exp(), spread(advantage, mask)
    clipped = ratio.clamp(1 - clip, 1 + clip) * gain
    loss = reduce(-torch.minimum(ratio * gain, clipped), mask, reduction)
    cut = (clipped < ratio * gain).float()
    return loss, token_metrics(mask, ratio=ratio, clip_fraction=cut, approx_kl=ratio - 1 - log_ratio)


def value_loss(
    value: Tok, old: Tok, mask: Mask, target: Tok, *, clip: float | None = 0.2, reduction: Reduction = "token"
) -> Result:
    """Half the squared error of a critic, the larger of it and that of old + clip(value - old, -clip, clip).

    Value clipping as in Schulman et al.'s PPO code; clip=None is the plain squared error. target: returns,
    see `returns.gae`. Metrics, per token: value, target, clip_fraction.
    """
    value, old, target = masked(value, mask), masked(old, mask).detach(), masked(target, mask).detach()
    error = (value - target).square()
    near = error if clip is None else (old + (value - old).clamp(-clip, clip) - target).square()
    loss = reduce(0.5 * torch.maximum(error, near), mask, reduction)
    return loss, token_metrics(mask, value=value, target=target, clip_fraction=(near > error).float())


def apa_loss(
    logp: Tok, ref: Tok, mask: Mask, advantage: Gain, *, lam: float = 2.0, reduction: Reduction = "token"
) -> Result:
    """Advantage-induced policy alignment, (log pi - A / lam - log ref)^2 by token. Zhu et al. 2023.

    The target policy is ref exp(A / lam) with its normaliser taken as 1, so advantages should be centred:
    `returns.whiten` them, over the mask only. lam is the only knob on the distance to ref, the *reference* policy,
    not the one that drew the samples unless that is the reference. lam=2 is Stream of Search's. Metrics,
    per token: log_ratio, advantage, residual (absolute).
    """
    if lam <= 0:
        raise ValueError(f"lam must be above 0; it is {lam}")
    log_ratio = masked(logp, mask) - masked(ref, mask).detach()
    gain = spread(advantage, mask)
    residual = log_ratio - gain / lam
    loss = reduce(residual.square(), mask, reduction)
    return loss, token_metrics(mask, log_ratio=log_ratio, advantage=gain, residual=residual.abs())
