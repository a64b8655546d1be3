"""Policies that make an action from noise or from a latent; those with a likelihood learn by `nll_loss`."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from heedful.losses.shapes import Mask, Result, Seq, Tok, as_metrics, masked, token_metrics


def denoising_loss(
    predicted: Tok, target: Tok, *, mask: Mask | None = None, weight: Seq | None = None
) -> Result:
    """Squared error, summed over the T numbers of an action and a mean over the batch.

    target is the noise (Ho et al. 2020, eq. 14) or the velocity of a straight path (Lipman et al. 2023, eq. 23).
    mask (B, T): numbers that count (all). weight (B,) multiplies each action's term and does not enter the
    denominator. Metrics: error, unweighted.
    """
    difference = predicted.float() - target.detach().float()
    error = (difference if mask is None else masked(difference, mask)).square().sum(-1)
    scale = 1.0 if weight is None else weight.detach().float()
    return (error * scale).mean(), as_metrics(error=error)


def gaussian_kl(mean: Float[Tensor, "B Z"], log_var: Float[Tensor, "B Z"]) -> Seq:
    """KL divergence of N(mean, exp(log_var)) from N(0, 1), summed over the latent's numbers, in nats."""
    mean, log_var = mean.float(), log_var.float()
    return 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(-1)


def act_loss(
    predicted: Tok,
    target: Tok,
    mask: Mask,
    kl: Seq,
    *,
    numbers: int,
    kl_weight: float = 10.0,
    weight: Seq | None = None,
) -> Result:
    """Action chunking with transformers: absolute error of a chunk plus kl_weight times the latent's KL.

    Zhao et al. 2023, Algorithm 1; the code's mean over a whole chunk, padding in the denominator. So the error is
    summed over the T numbers that count and divided by `numbers`, those of a whole chunk: each step of the data
    weighs alike. kl is `gaussian_kl`. weight (B,) multiplies each chunk's term. Metrics: l1, per number that counts,
    and kl.
    """
    if numbers < 1 or kl_weight < 0:
        raise ValueError(
            f"numbers must be at least 1 and kl_weight 0 or more; they are {numbers}, {kl_weight}"
        )
    error = masked(predicted.float() - target.detach().float(), mask).abs()
    value = error.sum(-1) / numbers + kl_weight * kl.float()
    scale = 1.0 if weight is None else weight.detach().float()
    return (value * scale).mean(), token_metrics(mask, l1=error) | as_metrics(kl=kl)
