"""Imitation: likelihood, plain, weighted by a score, or with a negative gradient on the losers."""

from __future__ import annotations

from typing import Literal

import torch

from heedful.losses.shapes import (
    MIN_NEG_LOGP,
    Logits,
    Mask,
    Places,
    Reduction,
    Result,
    Seq,
    Tok,
    as_metrics,
    masked,
    reduce,
    token_metrics,
)


def sequence_logp(logp: Tok, mask: Mask) -> Seq:
    """Summed log-probability of each sequence, (B, T) -> (B,)."""
    return masked(logp, mask).sum(-1)


def nll_loss(logp: Tok, mask: Mask, *, weight: Seq | None = None, reduction: Reduction = "token") -> Result:
    """Negative log-likelihood: supervised fine-tuning, Pref-FT, best-of-N, distillation.

    weight (B,) multiplies each sequence's term; it does not enter the denominator, so that doubling all
    weights doubles the loss. Metrics: nll, per token and unweighted.
    """
    logp = masked(logp, mask)
    scale = 1.0 if weight is None else weight.detach().float()[:, None]
    return reduce(-logp * scale, mask, reduction), token_metrics(mask, nll=-logp)


def rwr_weight(score: Seq, *, tau: float = 1.0, clamp: float | None = 10.0) -> Seq:
    """min(exp(score / tau), clamp): (B,) weights of reward-weighted regression; clamp=None sets no limit."""
    if tau <= 0 or (clamp is not None and clamp <= 0):
        raise ValueError(f"tau and clamp must be above 0; they are {tau} and {clamp}")
    weight = (score.detach().float() / tau).exp()
    return weight if clamp is None else weight.clamp(max=clamp)


def rwr_loss(logp: Tok, mask: Mask, score: Seq, *, tau: float = 1.0, clamp: float | None = 10.0) -> Result:
    """Reward-weighted regression: sequence likelihood weighted by min(exp(score / tau), clamp).

    Peters and Schaal 2007; the clamp at 10 is that of Tajwar et al. 2024's code. Metrics: nll, weight.
    """
    weight = rwr_weight(score, tau=tau, clamp=clamp)
    loss, metrics = nll_loss(logp, mask, weight=weight, reduction="sequence")
    return loss, {**metrics, **as_metrics(weight=weight)}


def best_of_n_loss(
    best: Seq,
    losers: Tok,
    mask: Mask,
    *,
    negative: Literal["worst", "mean", "sum"] = "worst",
    form: Literal["logp", "ratio", "unlikelihood"] = "logp",
    weight: float = 0.1,
    floor: float = 0.01,
    ref_losers: Tok | None = None,
) -> Result:
    """-log pi(y_best) plus an explicit negative gradient on the other samples. Tajwar et al. 2024, section 5 and code.

    losers (B, T): summed log-probabilities of a prompt's other samples, the worst last. negative: hold down the
    "worst" alone, or the "mean" or "sum" of all; form: log pi ("logp"), log pi less ref_losers ("ratio"), or
    -log(1 - pi) ("unlikelihood"). A loser less likely than `floor` times the best is let go: log pi has no end.
    Metrics: nll (of the best, per sequence), negative, let_go (share).
    """
    if negative not in ("worst", "mean", "sum") or form not in ("logp", "ratio", "unlikelihood"):
        raise ValueError(f"there is no negative={negative!r} with form={form!r}")
    if not 0 <= floor < 1:
        raise ValueError(f"floor must be at least 0 and below 1; it is {floor}")
    best, logp, there = best.float(), masked(losers, mask), mask.bool()
    if negative == "worst":
        there = there & (there.cumsum(-1) == there.sum(-1, keepdim=True))
    counted = there & ((logp - best[:, None]).exp() >= floor)
    if form == "ratio":
        if ref_losers is None:
            raise ValueError("form='ratio' needs ref_losers")
        logp = logp - masked(ref_losers, mask).detach()
    elif form == "unlikelihood":
        logp = -torch.log1p(-(1 - MIN_NEG_LOGP) * logp.exp())
    held = masked(logp, counted).sum(-1) / (there.sum(-1).clamp(min=1) if negative == "mean" else 1)
    gone = 1 - counted.sum() / there.sum().clamp(min=1)
    return (weight * held - best).mean(), as_metrics(nll=-best, negative=held, let_go=gone)


def choice_loss(logits: Logits, label: Places, *, weight: Seq | None = None) -> Result:
    """Cross-entropy of one of M choices, such as a command of a bank.

    weight (B,) multiplies each term and does not enter the denominator. Metrics: nll and accuracy, unweighted.
    """
    logp = logits.float().log_softmax(-1)
    nll = -logp.gather(-1, label[:, None])[:, 0]
    right = (logp.detach().argmax(-1) == label).float()
    scale = 1.0 if weight is None else weight.detach().float()
    return (nll * scale).mean(), as_metrics(nll=nll, accuracy=right)
