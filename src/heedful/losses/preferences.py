"""Preferences: pairs of a better and a worse completion, single completions called good or bad, reward models."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from heedful.losses.shapes import (
    MIN_NEG_LOGP,
    Flags,
    Members,
    Result,
    Scalar,
    Seq,
    as_metrics,
    log_ratio_to,
    mean_logp,
    share_above,
)


def dpo_loss(
    chosen: Seq,
    rejected: Seq,
    ref_chosen: Seq,
    ref_rejected: Seq,
    *,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
    robust: bool = False,
) -> Result:
    """Direct preference optimisation, -log sigmoid(beta (h_w - h_l)). Rafailov et al. 2023, eq. 7.

    label_smoothing in [0, 0.5) is the assumed share of flipped labels: conservative DPO (Mitchell 2023),
    whose optimum is a finite margin. robust=True makes the loss unbiased under that share instead
    (Chowdhury et al. 2024); it has no lower bound, so it wants early stopping.
    """
    if not 0 <= label_smoothing < 0.5:
        raise ValueError(f"label_smoothing must be at least 0 and below 0.5; it is {label_smoothing}")
    h_w, h_l = log_ratio_to(chosen, ref_chosen), log_ratio_to(rejected, ref_rejected)
    logits = beta * (h_w - h_l)
    kept, flipped = -logsigmoid(logits), -logsigmoid(-logits)
    if robust:
        loss = ((1 - label_smoothing) * kept - label_smoothing * flipped) / (1 - 2 * label_smoothing)
    else:
        loss = (1 - label_smoothing) * kept + label_smoothing * flipped
    return loss.mean(), _pair_metrics(h_w, h_l)


def ipo_loss(
    chosen: Seq,
    rejected: Seq,
    ref_chosen: Seq,
    ref_rejected: Seq,
    *,
    beta: float = 0.1,
    per_token: bool = False,
    chosen_length: Seq | None = None,
    rejected_length: Seq | None = None,
) -> Result:
    """Identity preference optimisation, (h_w - h_l - 1 / (2 beta))^2. Azar et al. 2023, eq. 17, beta for tau.

    The trap: TRL's DPOTrainer(loss_type="ipo") divides each h by its number of tokens, while eq. 17 as
    printed, and this function unless per_token=True, uses the sums. The target margin 1 / (2 beta) is then
    one of nats per *token* instead of nats per sequence, so a beta tuned for one form is off by about the
    completion length in the other. per_token needs the numbers of completion tokens, (B,) each. Metrics
    always tell the sums.
    """
    h_w, h_l = log_ratio_to(chosen, ref_chosen), log_ratio_to(rejected, ref_rejected)
    margin = h_w - h_l
    if per_token:
        if chosen_length is None or rejected_length is None:
            raise ValueError("ipo_loss with per_token=True needs chosen_length and rejected_length")
        margin = mean_logp(h_w, chosen_length) - mean_logp(h_l, rejected_length)
    elif chosen_length is not None or rejected_length is not None:
        raise ValueError("ipo_loss uses lengths only with per_token=True")
    return (margin - 1 / (2 * beta)).square().mean(), _pair_metrics(h_w, h_l)


def hinge_loss(
    chosen: Seq, rejected: Seq, ref_chosen: Seq, ref_rejected: Seq, *, beta: float = 0.1
) -> Result:
    """max(0, 1 - beta (h_w - h_l)): the hinge of SLiC (Zhao et al. 2023) on log-ratios (Liu et al. 2024)."""
    h_w, h_l = log_ratio_to(chosen, ref_chosen), log_ratio_to(rejected, ref_rejected)
    return torch.relu(1 - beta * (h_w - h_l)).mean(), _pair_metrics(h_w, h_l)


def simpo_loss(
    chosen: Seq,
    rejected: Seq,
    chosen_length: Seq,
    rejected_length: Seq,
    *,
    beta: float = 2.0,
    gamma: float = 1.0,
) -> Result:
    """-log sigmoid(beta (log pi(y_w) / |y_w| - log pi(y_l) / |y_l|) - gamma). Meng et al. 2024, eq. 6.

    Lengths are numbers of completion tokens. gamma is the margin itself, not the ratio gamma / beta.
    """
    h_w, h_l = mean_logp(chosen, chosen_length), mean_logp(rejected, rejected_length)
    return -logsigmoid(beta * (h_w - h_l) - gamma).mean(), _pair_metrics(h_w, h_l)


def orpo_loss(
    chosen: Seq, rejected: Seq, chosen_length: Seq, rejected_length: Seq, *, beta: float = 0.1
) -> Result:
    """Likelihood of chosen and an odds ratio against rejected, no reference. Hong et al. 2024, eqs. 4 and 7.

    beta is the paper's lambda. p is the geometric mean probability of a completion's tokens; the likelihood
    term is per token of each chosen completion, then a mean over pairs. Metrics also: nll, log_odds_ratio.
    """
    h_w, h_l = mean_logp(chosen, chosen_length), mean_logp(rejected, rejected_length)
    ratio = _log_odds(h_w) - _log_odds(h_l)
    loss = (-h_w - beta * logsigmoid(ratio)).mean()
    return loss, {**_pair_metrics(h_w, h_l), **as_metrics(nll=-h_w, log_odds_ratio=ratio)}


def kto_kl(logp: Seq, ref: Seq) -> Scalar:
    """KTO's reference point max(0, mean of log pi - log ref), detached, from *mismatched* pairs: after each
    prompt the completion of another. Ethayarajh et al. 2024, section 4."""
    return log_ratio_to(logp, ref).detach().mean().clamp(min=0)


def kto_loss(
    logp: Seq,
    ref: Seq,
    label: Flags,
    *,
    beta: float = 0.1,
    kl: float | Scalar = 0.0,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Result:
    """Kahneman-Tversky optimisation of completions, label True for good. Ethayarajh et al. 2024, eq. 7.

    kl is the reference point: `kto_kl` of the *whole* step's mismatched pairs, so that micro-batches agree
    with one big batch. It gets no gradient. The default 0 needs no second pass, and is not KTO as published.
    Metrics: h_w and h_l (means over good and bad ones; a key is absent when its label is), margin when both
    are there, accuracy (share on the right side of kl, ties half), kl.
    """
    h = log_ratio_to(logp, ref)
    point = torch.as_tensor(kl, dtype=h.dtype, device=h.device).detach().clamp(min=0)
    sign = torch.where(label, 1.0, -1.0)
    weight = torch.where(label, desirable_weight, undesirable_weight)
    loss = (weight * torch.sigmoid(-sign * beta * (h - point))).mean()
    present = {name: part for name, part in (("h_w", h[label]), ("h_l", h[~label])) if len(part)}
    metrics = as_metrics(accuracy=share_above(sign * (h - point)), kl=point, **present)
    if len(present) == 2:
        metrics["margin"] = metrics["h_w"] - metrics["h_l"]
    return loss, metrics


def bradley_terry_loss(
    chosen: Members, rejected: Members, *, margin: Seq | None = None, center: float = 0.0
) -> Result:
    """Reward-model loss -log sigmoid(r_w - r_l - margin) + center (r_w + r_l)^2 on scores, (B,) or (K, B).

    Ouyang et al. 2022, eq. 1; the margin column is that of Touvron et al. 2023, section 3.2.2; centring is
    that of Eisenstein et al. 2023. Members of an ensemble each get their own loss, then a mean: never the
    loss of the mean.
    Metrics: chosen_score, rejected_score, margin (r_w - r_l), accuracy.
    """
    r_w, r_l = chosen.float(), rejected.float()
    gap = r_w - r_l
    loss = -logsigmoid(gap if margin is None else gap - margin.detach().float()).mean()
    if center:
        loss = loss + center * (r_w + r_l).square().mean()
    means = as_metrics(chosen_score=r_w, rejected_score=r_l, margin=gap, accuracy=share_above(gap))
    return loss, means


def _log_odds(logp: Tensor) -> Tensor:
    logp = logp.clamp(max=-MIN_NEG_LOGP)
    return logp - torch.log(-torch.expm1(logp))


def _pair_metrics(h_w: Tensor, h_l: Tensor) -> dict[str, Tensor]:
    gap = h_w - h_l
    return as_metrics(h_w=h_w, h_l=h_l, margin=gap, accuracy=share_above(gap))
