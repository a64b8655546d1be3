"""Every objective: tensors in, (loss, metrics) out. Pure functions of torch tensors.

Letters: B sequences, pairs or transitions; T tokens or action steps; K ensemble members.

- `logp` (B, T) holds log-probabilities of tokens under the policy that learns, in nats. `mask` (B, T) is
  non-zero where a token counts. What stands elsewhere never matters, not even NaN. Sequence-level losses
  take summed log-probabilities (B,), see `sequence_logp`.
- Inputs of any floating type; float32 inside. No gradient flows into references, old policies, advantages,
  scores, lengths or targets.
- A loss is a mean over the batch. reduction="sequence" sums over the tokens of a sequence and takes the
  mean over sequences; reduction="token" takes the mean over all tokens that count.
- Metrics are detached 0-d float32 tensors, means over the batch. Preference losses report `h_w` and `h_l`,
  the implicit rewards h = log pi(y|x) - log ref(y|x) of chosen and rejected in nats, *not* multiplied by
  beta; `margin`, the mean of h_w - h_l; and `accuracy`, the share of pairs with h_w > h_l, ties counting
  half. Losses without a reference use the log-probability per token instead of h.
- Options outside their range raise ValueError.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor
from torch.nn.functional import logsigmoid

Scalar = Float[Tensor, ""]
Seq = Float[Tensor, "B"]
Tok = Float[Tensor, "B T"]
Gain = Seq | Tok
Members = Float[Tensor, "*K B"]
Mask = Shaped[Tensor, "B T"]
Flags = Bool[Tensor, "B"]
Kept = Shaped[Tensor, "B"]
Result = tuple[Scalar, dict[str, Tensor]]
Reduction = Literal["token", "sequence"]

MAX_LOG_RATIO = 20.0
"""ppo: log-ratios above this are cut, so that exp stays finite."""
MIN_NEG_LOGP = 1e-6
"""orpo and unlikelihood: probabilities are kept this far below 1, where the odds are infinite."""


def sequence_logp(logp: Tok, mask: Mask) -> Seq:
    """Summed log-probability of each sequence, (B, T) -> (B,)."""
    return _masked(logp, mask).sum(-1)


# ---- imitation


def nll_loss(logp: Tok, mask: Mask, *, weight: Seq | None = None, reduction: Reduction = "token") -> Result:
    """Negative log-likelihood: supervised fine-tuning, Pref-FT, best-of-N, distillation.

    weight (B,) multiplies each sequence's term; it does not enter the denominator, so that doubling all
    weights doubles the loss. Metrics: nll, per token and unweighted.
    """
    logp = _masked(logp, mask)
    scale = 1.0 if weight is None else weight.detach().float()[:, None]
    return _reduce(-logp * scale, mask, reduction), _token_means(mask, nll=-logp)


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
    return loss, {**metrics, **_means(weight=weight)}


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
    best, logp, there = best.float(), _masked(losers, mask), mask.bool()
    if negative == "worst":
        there = there & (there.cumsum(-1) == there.sum(-1, keepdim=True))
    counted = there & ((logp - best[:, None]).exp() >= floor)
    if form == "ratio":
        if ref_losers is None:
            raise ValueError("form='ratio' needs ref_losers")
        logp = logp - _masked(ref_losers, mask).detach()
    elif form == "unlikelihood":
        logp = -torch.log1p(-(1 - MIN_NEG_LOGP) * logp.exp())
    held = _masked(logp, counted).sum(-1) / (there.sum(-1).clamp(min=1) if negative == "mean" else 1)
    gone = 1 - counted.sum() / there.sum().clamp(min=1)
    return (weight * held - best).mean(), _means(nll=-best, negative=held, let_go=gone)


# ---- preferences


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
    h_w, h_l = _log_ratio(chosen, ref_chosen), _log_ratio(rejected, ref_rejected)
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
    h_w, h_l = _log_ratio(chosen, ref_chosen), _log_ratio(rejected, ref_rejected)
    margin = h_w - h_l
    if per_token:
        if chosen_length is None or rejected_length is None:
            raise ValueError("ipo_loss with per_token=True needs chosen_length and rejected_length")
        margin = _per_token(h_w, chosen_length) - _per_token(h_l, rejected_length)
    elif chosen_length is not None or rejected_length is not None:
        raise ValueError("ipo_loss uses lengths only with per_token=True")
    return (margin - 1 / (2 * beta)).square().mean(), _pair_metrics(h_w, h_l)


def hinge_loss(
    chosen: Seq, rejected: Seq, ref_chosen: Seq, ref_rejected: Seq, *, beta: float = 0.1
) -> Result:
    """max(0, 1 - beta (h_w - h_l)): the hinge of SLiC (Zhao et al. 2023) on log-ratios (Liu et al. 2024)."""
    h_w, h_l = _log_ratio(chosen, ref_chosen), _log_ratio(rejected, ref_rejected)
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
    h_w, h_l = _per_token(chosen, chosen_length), _per_token(rejected, rejected_length)
    return -logsigmoid(beta * (h_w - h_l) - gamma).mean(), _pair_metrics(h_w, h_l)


def orpo_loss(
    chosen: Seq, rejected: Seq, chosen_length: Seq, rejected_length: Seq, *, beta: float = 0.1
) -> Result:
    """Likelihood of chosen and an odds ratio against rejected, no reference. Hong et al. 2024, eqs. 4 and 7.

    beta is the paper's lambda. p is the geometric mean probability of a completion's tokens; the likelihood
    term is per token of each chosen completion, then a mean over pairs. Metrics also: nll, log_odds_ratio.
    """
    h_w, h_l = _per_token(chosen, chosen_length), _per_token(rejected, rejected_length)
    ratio = _log_odds(h_w) - _log_odds(h_l)
    loss = (-h_w - beta * logsigmoid(ratio)).mean()
    return loss, {**_pair_metrics(h_w, h_l), **_means(nll=-h_w, log_odds_ratio=ratio)}


def kto_kl(logp: Seq, ref: Seq) -> Scalar:
    """KTO's reference point max(0, mean of log pi - log ref), detached, from *mismatched* pairs: after each
    prompt the completion of another. Ethayarajh et al. 2024, section 4."""
    return _log_ratio(logp, ref).detach().mean().clamp(min=0)


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
    h = _log_ratio(logp, ref)
    point = torch.as_tensor(kl, dtype=h.dtype, device=h.device).detach().clamp(min=0)
    sign = torch.where(label, 1.0, -1.0)
    weight = torch.where(label, desirable_weight, undesirable_weight)
    loss = (weight * torch.sigmoid(-sign * beta * (h - point))).mean()
    present = {name: part for name, part in (("h_w", h[label]), ("h_l", h[~label])) if len(part)}
    metrics = _means(accuracy=_share_above(sign * (h - point)), kl=point, **present)
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
    means = _means(chosen_score=r_w, rejected_score=r_l, margin=gap, accuracy=_share_above(gap))
    return loss, means


# ---- reinforcement learning


def reinforce_loss(logp: Tok, mask: Mask, advantage: Gain, *, reduction: Reduction = "sequence") -> Result:
    """The policy gradient, -advantage * log pi. Williams 1992.

    One advantage per sequence (B,), see `feedback.advantages`, or per token (B, T), see `returns.gae`. Metrics, per
    token: advantage, nll.
    """
    logp, gain = _masked(logp, mask), _spread(advantage, mask)
    return _reduce(-gain * logp, mask, reduction), _token_means(mask, advantage=gain, nll=-logp)


def ppo_loss(
    logp: Tok, old: Tok, mask: Mask, advantage: Gain, *, clip: float = 0.2, reduction: Reduction = "sequence"
) -> Result:
    """Clipped surrogate -min(ratio A, clip(ratio, 1 - clip, 1 + clip) A). Schulman et al. 2017, eq. 7.

    By token. old holds the log-probabilities under the policy that drew the samples. Where it equals logp,
    the gradient is that of `reinforce_loss`. Metrics, per token: ratio, clip_fraction, approx_kl (ratio - 1 -
    log ratio).
    """
    log_ratio = (_masked(logp, mask) - _masked(old, mask).detach()).clamp(max=MAX_LOG_RATIO)
    ratio, gain = log_ratio.exp(), _spread(advantage, mask)
    clipped = ratio.clamp(1 - clip, 1 + clip) * gain
    loss = _reduce(-torch.minimum(ratio * gain, clipped), mask, reduction)
    cut = (clipped < ratio * gain).float()
    return loss, _token_means(mask, ratio=ratio, clip_fraction=cut, approx_kl=ratio - 1 - log_ratio)


def value_loss(
    value: Tok, old: Tok, mask: Mask, target: Tok, *, clip: float | None = 0.2, reduction: Reduction = "token"
) -> Result:
    """Half the squared error of a critic, the larger of it and that of old + clip(value - old, -clip, clip).

    Value clipping as in Schulman et al.'s PPO code; clip=None is the plain squared error. target: returns,
    see `returns.gae`. Metrics, per token: value, target, clip_fraction.
    """
    value, old, target = _masked(value, mask), _masked(old, mask).detach(), _masked(target, mask).detach()
    error = (value - target).square()
    near = error if clip is None else (old + (value - old).clamp(-clip, clip) - target).square()
    loss = _reduce(0.5 * torch.maximum(error, near), mask, reduction)
    return loss, _token_means(mask, value=value, target=target, clip_fraction=(near > error).float())


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
    log_ratio = _masked(logp, mask) - _masked(ref, mask).detach()
    gain = _spread(advantage, mask)
    residual = log_ratio - gain / lam
    loss = _reduce(residual.square(), mask, reduction)
    return loss, _token_means(mask, log_ratio=log_ratio, advantage=gain, residual=residual.abs())


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
    means = _means(q=q.sum() / count, target=target.sum() / count, td_error=error.abs().sum() / count)
    return error.square().sum() / count, means


# ---- what they share


def _masked(values: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask.bool(), values.float(), 0.0)


def _spread(advantage: Tensor, mask: Tensor) -> Tensor:
    per_token = advantage.detach().float()
    return _masked(per_token[:, None] if per_token.ndim == 1 else per_token, mask)


def _reduce(values: Tensor, mask: Tensor, reduction: str) -> Tensor:
    kept = _masked(values, mask)
    if reduction == "token":
        return kept.sum() / mask.bool().sum().clamp(min=1)
    if reduction == "sequence":
        return kept.sum(-1).mean()
    raise ValueError(f"there is no reduction {reduction!r}; choose token or sequence")


def _log_ratio(logp: Tensor, ref: Tensor) -> Tensor:
    return logp.float() - ref.detach().float()


def _per_token(total: Tensor, length: Tensor) -> Tensor:
    return total.float() / length.detach().float().clamp(min=1)


def _log_odds(logp: Tensor) -> Tensor:
    logp = logp.clamp(max=-MIN_NEG_LOGP)
    return logp - torch.log(-torch.expm1(logp))


def _share_above(values: Tensor) -> Tensor:
    return (values > 0).float() + 0.5 * (values == 0).float()


def _pair_metrics(h_w: Tensor, h_l: Tensor) -> dict[str, Tensor]:
    gap = h_w - h_l
    return _means(h_w=h_w, h_l=h_l, margin=gap, accuracy=_share_above(gap))


def _means(**values: Tensor) -> dict[str, Tensor]:
    return {name: value.detach().float().mean() for name, value in values.items()}


def _token_means(mask: Tensor, **values: Tensor) -> dict[str, Tensor]:
    return _means(**{name: _reduce(value, mask, "token") for name, value in values.items()})
