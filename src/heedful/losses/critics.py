"""Critics of actions: temporal differences, and what keeps Q-values of unseen actions low."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from heedful.losses.shapes import Bins, Kept, Members, Result, Seq, as_metrics


def td_loss(q: Members, target: Members | Seq, *, mask: Kept | None = None) -> Result:
    """Squared error of Q-values (B,) or (K, B): a mean over members and over the transitions that count.

    target is r + gamma (1 - done) Q'(s', a'), shared (B,) or one per member (K, B); it gets no gradient.
    Metrics: q, target, td_error (absolute).
    """
    keep = torch.ones_like(q, dtype=torch.bool) if mask is None else mask.bool().expand_as(q)
    count = keep.sum().clamp(min=1)
    q = torch.where(keep, q.float(), 0.0)
    target = torch.where(keep, target.detach().float().expand_as(q), 0.0)
    error = q - target
    means = as_metrics(q=q.sum() / count, target=target.sum() / count, td_error=error.abs().sum() / count)
    return error.square().sum() / count, means


def hl_gauss_edges(low: float, high: float, bins: int, like: Tensor) -> Tensor:
    """The bins + 1 edges of equal bins on [low, high], float32 on the device of `like`."""
    if not low < high or bins < 2:
        raise ValueError(f"a support needs low < high and two bins; it is [{low}, {high}] with {bins}")
    return torch.linspace(low, high, bins + 1, device=like.device)


def hl_gauss_target(
    target: Members, *, low: float, high: float, bins: int, sigma: float = 0.75
) -> Float[Tensor, "*K B M"]:
    """A Gaussian round each target, cut to [low, high] and summed by bin: probabilities (..., B, bins).

    Imani and White 2018; Farebrother et al. 2024, section 3. sigma is in widths of a bin. Targets outside the support
    count as its end. PA-RL's release divides by sqrt(2) sigma inside the *normal* CDF: that is sigma=0.75 * sqrt(2).
    """
    if not sigma > 0:
        raise ValueError(f"sigma must be above 0; it is {sigma}")
    edges = hl_gauss_edges(low, high, bins, target)
    width = (high - low) / bins
    at = target.detach().float().clamp(low, high)
    below = torch.special.ndtr((edges - at[..., None]) / (sigma * width))
    return below.diff(dim=-1) / (below[..., -1:] - below[..., :1])


def hl_gauss_value(logits: Bins, *, low: float, high: float) -> Members:
    """The mean of the histogram that logits (..., B, M) stand for, with the bins' centres as values."""
    edges = hl_gauss_edges(low, high, logits.shape[-1], logits)
    return logits.float().softmax(-1) @ ((edges[1:] + edges[:-1]) / 2)


def hl_gauss_loss(
    logits: Bins,
    target: Members | Seq,
    *,
    low: float,
    high: float,
    sigma: float = 0.75,
    mask: Kept | None = None,
) -> Result:
    """Cross-entropy of a histogram of Q-values with a Gaussian round the target. Farebrother et al. 2024.

    logits (B, M) or (K, B, M); target as in `td_loss`, shared (B,) or one per member. A mean over members and over the
    transitions that count. Metrics: q, target, td_error (absolute), outside (share of targets outside the support).
    """
    shape = logits.shape[:-1]
    keep = torch.ones(shape, dtype=torch.bool, device=logits.device)
    keep = keep if mask is None else mask.bool().expand(shape)
    count = keep.sum().clamp(min=1)
    logits = torch.where(keep[..., None], logits.float(), 0.0)
    target = torch.where(keep, target.detach().float().expand(shape), low)
    share = hl_gauss_target(target, low=low, high=high, bins=logits.shape[-1], sigma=sigma)
    entropy = -(share * logits.log_softmax(-1)).sum(-1)
    q = hl_gauss_value(logits.detach(), low=low, high=high)
    seen = {"q": q, "target": target, "td_error": (q - target).abs()}
    seen["outside"] = ((target < low) | (target > high)).float()
    metrics = as_metrics(**{name: torch.where(keep, part, 0.0).sum() / count for name, part in seen.items()})
    return torch.where(keep, entropy, 0.0).sum() / count, metrics


def cql_loss(
    q: Members,
    random: Float[Tensor, "*K B N"],
    policy: Float[Tensor, "*K B M"],
    *,
    copies: int = 1,
    floor: Seq | None = None,
) -> Result:
    """log-mean-exp of Q over actions of all kinds, less Q of the action in the data. Kumar et al. 2020; Cal-QL.

    q (K, B): the data's action; random (K, B, N): actions drawn uniformly; policy (K, B, M): those of the policy. The
    mean is over N + copies * M + 1 actions, the data's own among them. `copies` says how often each policy action
    stands in it: exactly log(copies) added to its Q, so a deterministic policy's actions are evaluated once, not N
    times. floor (B,): returns that were reached from there; Q of policy actions below it is lifted to it, without
    gradient (Nakamoto et al. 2023, eq. 4.1). No importance weights, as in PA-RL's release. A mean over members and
    transitions. Metrics: gap (the loss), q_random, q_policy, floored (share).
    """
    if copies < 1:
        raise ValueError(f"copies must be at least 1; it is {copies}")
    q, random, policy = q.float(), random.float(), policy.float()
    lifted = policy if floor is None else torch.maximum(policy, floor.detach().float()[:, None])
    every = torch.cat([random, lifted + math.log(copies), q[..., None]], -1)
    count = random.shape[-1] + copies * policy.shape[-1] + 1
    gap = every.logsumexp(-1) - math.log(count) - q
    low = torch.zeros_like(policy) if floor is None else (policy < floor.float()[:, None]).float()
    return gap.mean(), as_metrics(gap=gap, q_random=random, q_policy=policy, floored=low)


def expectile_loss(value: Seq, q: Seq, *, tau: float = 0.7) -> Result:
    """|tau - 1[u < 0]| u^2 with u = q - value: value learns an expectile of Q. Kostrikov et al. 2021, eq. 5.

    q (B,): Q of the data's action under the target critic, without gradient. Metrics: value, advantage (the mean of u).
    """
    if not 0 < tau < 1:
        raise ValueError(f"tau must be between 0 and 1; it is {tau}")
    value = value.float()
    u = q.detach().float() - value
    weight = torch.where(u < 0, 1 - tau, tau)
    return (weight * u.square()).mean(), as_metrics(value=value, advantage=u)
