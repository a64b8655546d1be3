"""When a mode-seeking step moves probability faster than a mass-covering one: Tajwar et al. 2024, section 6.

A policy is a softmax over A actions, p, and its target is q. A step of gradient descent on the logits is one of

- forward KL(q || p), what Pref-FT, best-of-N and reward-weighted regression minimise: q - p;
- reverse KL(p || q), what KL-regularised reinforcement learning minimises: p (log(q / p) + KL(p || q)).

Both lead to q; theorem 6.5 says that they differ on the way. Which is faster depends on where p stands: the three
conditions here are worked out from these closed forms, and "reverse is faster" without one is false.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heedful.papers.results import Claim, Part, Table

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

TOY = (np.array([0.3, 0.3, 0.1, 0.3]), np.array([0.2, 0.1, 0.6, 0.1]))
"""p and q of the paper's toy example, by its project page."""
PAGE = {"forward": (0.33, 0.225, 0.22, 0.225), "reverse": (0.25, 0.2, 0.35, 0.2)}
"""What the page's figure shows after a step."""


def kl(p: Array, q: Array) -> Array:
    """KL(p || q) in nats, over the last axis."""
    return (p * np.log(p / q)).sum(-1)


def forward_step(p: Array, q: Array) -> Array:
    """The change of logits by a step of size 1 down KL(q || p), (..., A)."""
    return q - p


def reverse_step(p: Array, q: Array) -> Array:
    """The change of logits by a step of size 1 down KL(p || q), (..., A)."""
    return p * (np.log(q / p) + kl(p, q)[..., None])


def moved(p: Array, step: Array, rate: float = 1.0) -> Array:
    """The policy after its logits changed by rate * step."""
    weights = p * np.exp(rate * step)
    return weights / weights.sum(-1, keepdims=True)


def logarithmic_mean(a: Array | float, b: Array | float) -> Array:
    """(a - b) / log(a / b), and a where both are equal."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    same = a == b
    ratio = np.where(same, np.e, a / b)
    return np.where(same, a, (a - b) / np.log(ratio))


def reverse_separates_faster(p: Array | float, q1: Array | float, q2: Array | float) -> Flags:
    """(a) Two actions as likely as each other, p, with targets q1 > q2: whether a reverse step drives their logits
    further apart than a forward one. It does if and only if p is above the logarithmic mean of q1 and q2."""
    return np.asarray(p) > logarithmic_mean(q1, q2)


def reverse_spares_larger(p1: Array | float, q: Array | float, divergence: Array | float) -> Flags:
    """(b) Two actions with the same target q and p1 > p2: enough for a reverse step to take less from the larger one,
    against the smaller one, than a forward step, which always brings the two together. q > p1 exp(-KL(p || q))."""
    return np.asarray(q) > np.asarray(p1) * np.exp(-np.asarray(divergence))


def reverse_cuts_larger(p2: Array | float, q: Array | float, divergence: Array | float) -> Flags:
    """(c) The same two actions: enough for a reverse step to bring them together faster than a forward one.
    q < p2 exp(-KL(p || q)), p2 being the smaller."""
    return np.asarray(q) < np.asarray(p2) * np.exp(-np.asarray(divergence))


def gap_moved(step: Array) -> Array:
    """How much further apart a step moves the logits of actions 0 and 1."""
    return step[..., 0] - step[..., 1]


def theory_part(seed: int = 0, draws: int = 100_000) -> Part:
    """(a) to (c) on random policies and targets over 5 actions, and the toy where forward and reverse change places."""
    rng = np.random.default_rng(seed)
    claims = [_even(rng, draws), *_shared_target(rng, draws)]
    note = (
        "With softmax logits and a step of size 1 the reverse step drives the first two actions, which start level, "
        "apart faster than the forward one; the page's figure shows the opposite. Neither is the rule: condition (a) "
        "says which."
    )
    p, q = TOY
    rows = [["start", *map(float, p)], ["target", *map(float, q)]]
    for name, step in (("forward", forward_step), ("reverse", reverse_step)):
        rows.append([f"{name} step, computed", *(round(float(x), 3) for x in moved(p, step(p, q)))])
        rows.append([f"{name} step, the page's figure", *PAGE[name]])
    columns = ["", *(f"action {i}" for i in range(1, 5))]
    return Part(claims, [Table("Toy: one step towards a target", columns, rows, note)])


def _even(rng: np.random.Generator, draws: int) -> Claim:
    p, q = _simplex(rng, draws), _simplex(rng, draws)
    p[:, 1] = p[:, 0]
    p /= p.sum(-1, keepdims=True)
    q[:, :2] = np.sort(q[:, :2], -1)[:, ::-1]
    faster = gap_moved(reverse_step(p, q)) > gap_moved(forward_step(p, q))
    said = reverse_separates_faster(p[:, 0], q[:, 0], q[:, 1])
    return _claim(
        "Two actions as likely as each other: a mode-seeking step separates them faster if and only if their "
        "probability is above the logarithmic mean of their targets",
        faster == said,
        f"true for {said.mean():.0%} of these draws",
    )


def _shared_target(rng: np.random.Generator, draws: int) -> list[Claim]:
    p, q = _simplex(rng, draws), _simplex(rng, draws)
    p[:, :2] = np.sort(p[:, :2], -1)[:, ::-1]
    q[:, 1] = q[:, 0]
    q /= q.sum(-1, keepdims=True)
    ahead = gap_moved(reverse_step(p, q)) - gap_moved(forward_step(p, q))
    divergence = kl(p, q)
    spares = reverse_spares_larger(p[:, 0], q[:, 0], divergence)
    cuts = reverse_cuts_larger(p[:, 1], q[:, 0], divergence)
    return [
        _claim(
            "Two actions with one target q > p1 exp(-KL), p1 the larger: a mode-seeking step favours the larger one "
            "more than a mass-covering step, which always evens them out",
            ahead[spares] > 0,
            f"the condition is met in {spares.mean():.0%} of draws",
        ),
        _claim(
            "Two actions with one target q < p2 exp(-KL), p2 the smaller: a mode-seeking step cuts the larger one "
            "faster than a mass-covering step",
            ahead[cuts] < 0,
            f"the condition is met in {cuts.mean():.0%} of draws",
        ),
    ]


def _simplex(rng: np.random.Generator, draws: int) -> Array:
    return rng.dirichlet(np.full(5, 0.7), draws) * 0.999 + 0.0002


def _claim(text: str, right: Flags, note: str) -> Claim:
    share = float(right.mean())
    return Claim(
        f"Theory: {text}",
        "theorem 6.5: the two steps differ; the condition is ours, from their closed forms",
        share,
        None,
        bool(right.all()),
        f"share of {len(right):,} random policies and targets; {note}",
    )
