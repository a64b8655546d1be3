"""Policies that make an action from noise; those with a likelihood learn by `nll_loss`."""

from __future__ import annotations

from heedful.losses.shapes import Result, Seq, Tok, as_metrics


def denoising_loss(predicted: Tok, target: Tok, *, weight: Seq | None = None) -> Result:
    """Squared error, summed over the T numbers of an action and a mean over the batch.

    target is the noise (Ho et al. 2020, eq. 14) or the velocity of a straight path (Lipman et al. 2023, eq. 23).
    weight (B,) multiplies each action's term and does not enter the denominator. Metrics: error, unweighted.
    """
    error = (predicted.float() - target.detach().float()).square().sum(-1)
    scale = 1.0 if weight is None else weight.detach().float()
    return (error * scale).mean(), as_metrics(error=error)
