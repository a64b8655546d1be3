"""Will reweighting help this person? What the labels so far say, and which reward is used because of it.

Reweighting can only choose among the heads. Where they agree, or where the labels do not tell them apart, it gives the
uniform mean; where no head is right, fine-tuning one head needs more labels but is not bound to the heads. Every arm
is judged on labels that it has not seen: each label in turn is left out.

Letters: n labels, P pairs of the pool, K heads.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from heedful.judges import head_tuning
from heedful.judges.reweighting import Reweighting, sigmoid
from heedful.judges.reweighting_queries import disagreement

Array = NDArray[np.float64]
Used = Literal["reweighting", "uniform", "single", "best_head", "fine_tuned"]
ARMS: tuple[Used, ...] = ("uniform", "single", "best_head", "fine_tuned", "reweighting")
AGREE = 0.01
"""Heads that put fewer pairs than this the other way round cannot be told apart."""
SPREAD = 0.97
"""Effective heads of all heads above which the labels have not told them apart."""
ENOUGH, ENOUGH_FOR_ONE = 4, 8
"""Labels from which leaving one out says something, and from which one head may stand for all."""
BACK, TUNED, ONE = 1.0, 0.5, 2.0
"""Standard errors by which the mean must beat reweighting, fine-tuning what it replaces, and the best head likewise.
These and the loss were chosen on worlds of `papers.hyre` under seeds that it does not report."""
TYPICAL = 2.0
"""Root mean square that the margins of every arm are brought to before they are judged."""


@dataclass(frozen=True)
class Diagnosis:
    """Which reward is used and why.

    used: reweighting, or what it falls back to: uniform (all heads the same), single (one head without a prior, where
    the uniform mean says nothing, as with heads that come both ways), best_head (on the labels), fine_tuned (the single
    head, on the labels). figures: what it is read from; loss_* and accuracy_* of labels left out.
    """

    used: Used
    why: str
    figures: dict[str, float] = field(default_factory=dict)


def left_out_margins(
    reweighting: Reweighting, margins: Array, single: Array, gram: Array, labels: Array
) -> dict[str, Array]:
    """For each arm the margin of every label, from the other labels, (n,).

    margins: (n, K) of the heads; single: (n,) of the single head; gram: (n, n), see `head_tuning`.
    """
    weights, losses = reweighting.left_out()
    rows = np.arange(len(labels))
    return {
        "uniform": margins @ reweighting.prior,
        "single": single,
        "best_head": margins[rows, losses.argmin(1)],
        "fine_tuned": head_tuning.left_out(single, gram, labels),
        "reweighting": (weights * margins).sum(1),
    }


def diagnose(
    reweighting: Reweighting,
    margins: Array,
    single: Array,
    gram: Array,
    labels: Array,
    pool: Array,
    *,
    fitted: bool = True,
) -> Diagnosis:
    """Choose what is used. pool: (P, K) margins of unlabelled pairs, for the disagreement of the heads. fitted: whether
    the heads were fitted to what people say; the mean of directions says nothing, and the single head stands for it.

    Loss is Brier's, of margins brought to one size for all arms: bounded, so that one label which a sure head gets
    wrong does not decide alone, and blind to how sure an arm is in general. Reweighting is used unless the heads cannot
    be told apart or the reference does better on labels left out. Heads that nobody's labels were fitted to must
    themselves beat the single head. Then fine-tuning and the best head may replace what is used.
    """
    n, heads = len(labels), margins.shape[1]
    plain = pool @ reweighting.prior
    size = np.sqrt(np.square(pool).mean()) if pool.size else 0.0
    # Heads that come both ways cancel: their mean is rounding.
    flat = not size > 0 or float(np.abs(plain).max()) < 1e-6 * size
    reference: Used = "single" if flat or not fitted else "uniform"
    share = reweighting.effective_heads / heads
    apart = disagreement(pool, reweighting.prior)
    figures = {
        "labels": float(n),
        "heads": float(heads),
        "effective_heads": reweighting.effective_heads,
        "disagreement": apart,
    }
    if n == 0:
        return Diagnosis(reference, f"there are no labels yet: {_words(reference)}", figures)
    told = left_out_margins(reweighting, margins, single, gram, labels)
    loss = {arm: _loss(told[arm], labels) for arm in ARMS}
    figures |= {f"loss_{arm}": float(loss[arm].mean()) for arm in ARMS}
    decided = labels != 0.5
    if decided.any():
        figures |= {
            f"accuracy_{arm}": float((0.5 * (1 + np.sign((2 * labels - 1) * told[arm])))[decided].mean())
            for arm in ARMS
        }
    gain = loss[reference] - loss["reweighting"]
    figures |= {"gain": float(gain.mean()), "gain_se": _error(gain)}
    used, why = _between(reference, apart, share, n, figures)
    rivals: tuple[tuple[Used, int, float], ...] = (
        ("best_head", ENOUGH_FOR_ONE, ONE),
        ("fine_tuned", ENOUGH, TUNED),
    )
    for arm, least, errors in rivals[0 if apart >= AGREE else 1 :]:
        better = loss[used] - loss[arm]
        if n >= least and better.mean() > max(errors * _error(better), 1e-9):
            why = (
                f"{_words(arm)} does better on labels left out than {_words(used)} "
                f"({loss[arm].mean():.3f} against {loss[used].mean():.3f}, Brier loss)"
            )
            used = arm
    return Diagnosis(used, why, figures)


def _between(
    reference: Used, apart: float, share: float, n: int, figures: dict[str, float]
) -> tuple[Used, str]:
    """Reweighting or the reference."""
    name = _words(reference)
    if apart < AGREE:
        return reference, (
            f"reweighting gives no help: the heads agree on {1 - apart:.1%} of the pool, so there is nothing to choose "
            f"between; {name} is used"
        )
    if share > SPREAD:
        return reference, (
            f"reweighting gives no help: {n} label(s) leave {figures['effective_heads']:.1f} of "
            f"{figures['heads']:.0f} heads, they do not tell the heads apart; {name} is used"
        )
    if n < ENOUGH and reference == "single":
        return reference, (
            f"heads that nobody's labels were fitted to know nothing but this person's {n} label(s), too few to check "
            f"it by leaving one out; {name} is used"
        )
    if n < ENOUGH:
        return "reweighting", (
            f"the heads disagree ({apart:.1%} of the pool) and {n} label(s) left {figures['effective_heads']:.1f} of "
            f"{figures['heads']:.0f}; too few labels to check it by leaving one out"
        )
    before, after = figures[f"loss_{reference}"], figures["loss_reweighting"]
    # Reweighting of fitted heads is given the benefit of the doubt: what is not told apart yet is near the mean anyway.
    doubt = BACK * figures["gain_se"] if reference == "uniform" else -1e-9
    if after - before <= doubt:
        return "reweighting", (
            f"on labels left out reweighting has a Brier loss of {after:.3f}, {name} {before:.3f}"
        )
    return reference, (
        f"reweighting gives no help: on labels left out it has a Brier loss of {after:.3f}, {name} {before:.3f}"
    )


def _words(arm: Used) -> str:
    return {
        "uniform": "the uniform mean of the heads",
        "single": "the single head",
        "best_head": "the best head",
        "fine_tuned": "the fine-tuned head",
        "reweighting": "reweighting",
    }[arm]


def _loss(margins: Array, labels: Array) -> Array:
    """Brier's, (n,), of margins of the size TYPICAL; margins that are all 0 stay so."""
    size = np.sqrt(np.square(margins).mean())
    return (sigmoid(margins * (TYPICAL / size if size > 1e-9 else 0.0)) - labels) ** 2


def _error(values: Array) -> float:
    """The standard error of a mean; 0 for fewer than two values."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
