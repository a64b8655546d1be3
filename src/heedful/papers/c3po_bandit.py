"""The bandit of C3PO's appendix C (Stephan et al. 2024, arXiv 2402.10893): what DPO on (y+, y-) pairs converges to.

Prefer every sample of pi+ over every sample of pi-. Such pairs follow a Bradley-Terry model exactly, with the reward
r* = log pi+ - log pi-; so DPO with pi- as the reference converges to pi* ∝ (pi+)^(1/beta) (pi-)^(1 - 1/beta): pi+
itself at beta 1, the geometric mean of the two at beta 2, sharper than pi+ below 1.

Letters: A actions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from heedful.papers.results import Claim, Plot, Series, Table
from heedful.papers.seeds import over_seeds

if TYPE_CHECKING:
    from heedful.run import Run

Array = NDArray[np.float64]

ACTIONS = np.arange(1, 101)
PAIRS = 10**8
STEPS = 400
BETAS = (0.5, 0.75, 1.0, 1.5, 2.0)
BOUND = 0.005
"""Largest total variation that counts as the closed form."""
ENOUGH = 1e-4
"""Mass that an action needs under both policies before its reward is compared: at 1e8 pairs, 10,000 draws."""


def _normal(weights: Array) -> Array:
    return weights / weights.sum()


def hill(centre: float) -> Array:
    """The paper's policies: (A,) probabilities ∝ exp(-(i - centre)^2 / 1000)."""
    return _normal(np.exp(-((ACTIONS - centre) ** 2) / 1000.0))


PLUS, MINUS = hill(70), hill(40)


def closed_form(beta: float) -> Array:
    """pi* ∝ (pi+)^(1/beta) (pi-)^(1 - 1/beta), (A,)."""
    return _normal(PLUS ** (1 / beta) * MINUS ** (1 - 1 / beta))


def total_variation(p: Array, q: Array) -> float:
    """Half the summed distance of two distributions over actions, from 0 to 1."""
    return float(np.abs(p - q).sum() / 2)


def draw_pairs(seed: int, pairs: int = PAIRS) -> NDArray[np.int64]:
    """How often each (winner, loser) comes up among `pairs` pairs with y_w ~ pi+ and y_l ~ pi-: (A, A) counts.

    A loss that is a mean over pairs sees nothing of a pair but which two actions it holds, so these counts are the
    data set.
    """
    table = np.outer(PLUS, MINUS)
    counts = np.random.default_rng(seed).multinomial(pairs, (table / table.sum()).ravel())
    return counts.reshape(table.shape)


def learn(
    counts: NDArray[np.int64], beta: float, *, reference: Array | None = None, steps: int = STEPS
) -> Array:
    """The policy (A,) that `dpo_loss` reaches on the pairs: one logit per action, Adam at 1, from the reference (pi-).

    The loss of each of the A x A kinds of pair is `dpo_loss` itself on a batch of one; their mean, weighted by the
    counts, is its value on the whole batch of pairs, because it is a mean over pairs.
    """
    import torch

    from heedful.losses import dpo_loss

    size = len(ACTIONS)
    weight = torch.tensor(counts / counts.sum(), dtype=torch.float32).reshape(-1)
    start = torch.tensor(np.log(MINUS if reference is None else reference), dtype=torch.float32)

    def table(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        winner, loser = values[:, None].expand(size, size), values[None].expand(size, size)
        return winner.reshape(-1), loser.reshape(-1)

    def of_pair(*pair: torch.Tensor) -> torch.Tensor:
        chosen, rejected, ref_chosen, ref_rejected = (value[None] for value in pair)
        return dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta=beta)[0]

    losses = torch.vmap(of_pair)
    ref_winner, ref_loser = table(start)
    logits = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=1.0)
    for _ in range(steps):
        winner, loser = table(logits.log_softmax(0))
        optimizer.zero_grad()
        (weight * losses(winner, loser, ref_winner, ref_loser)).sum().backward()
        optimizer.step()
    return _normal(logits.detach().double().softmax(0).numpy())


def reward_error(policy: Array, beta: float) -> float:
    """Largest |r - r*| over the actions with enough mass, r = beta log(policy / pi-) being DPO's implicit reward.

    A Bradley-Terry reward is known up to a constant; it is chosen so that the mean difference under the mixture of
    both policies is 0.
    """
    gap = beta * np.log(policy / MINUS) - np.log(PLUS / MINUS)
    gap -= ((PLUS + MINUS) / 2 * gap).sum()
    return float(np.abs(gap[np.minimum(PLUS, MINUS) >= ENOUGH]).max())


def bandit_claims(seeds: Sequence[int], run: Run | None = None) -> tuple[list[Claim], Table, Plot]:
    """The claims, one for each beta, with a table and a plot of the learned policies.

    With a run each seed is kept in it. A claim holds when every seed, and the interval over seeds, stays within
    `BOUND`. Raises `HeedfulError` without seeds.
    """
    found = [_once(seed, run) for seed in seeds]
    claims, rows = [], []
    for beta in BETAS:
        policies = [np.array(of_seed[str(beta)]) for of_seed in found]
        distances = [total_variation(policy, closed_form(beta)) for policy in policies]
        mean, interval = over_seeds(distances)
        worst = max(distances)
        claims.append(
            Claim(
                claim=f"Bandit, beta {beta:g}: DPO on pairs of pi+ over pi- learns (pi+)^(1/beta) (pi-)^(1 - 1/beta), "
                f"to within a total variation of {BOUND}",
                paper="the closed form, so 0 (appendix C)",
                measured=mean,
                interval=interval,
                holds=worst <= BOUND and (interval is None or interval[1] <= BOUND),
                note=f"total variation, mean over {len(distances)} seed{'s' if len(distances) > 1 else ''}; "
                f"the worst is {worst:.2g}",
            )
        )
        errors = [reward_error(policy, beta) for policy in policies]
        centres = [float((ACTIONS * policy).sum()) for policy in (closed_form(beta), policies[0])]
        rows.append([beta, mean, worst, max(errors), *centres])
    return claims, _table(rows), _plot(found)


def _once(seed: int, run: Run | None) -> dict[str, list[float]]:
    def make() -> dict[str, list[float]]:
        counts = draw_pairs(seed)
        return {str(beta): learn(counts, beta).tolist() for beta in BETAS}

    return make() if run is None else run.once(f"bandit/seed{seed}.json", make)


def _table(rows: list[list[Any]]) -> Table:
    return Table(
        title="Bandit: the learned policy against the closed form",
        columns=[
            "beta",
            "total variation, mean",
            "total variation, worst seed",
            "reward, largest error",
            "mean action, closed form",
            "mean action, learned",
        ],
        rows=rows,
        note=f"{PAIRS:,} pairs for each seed, 100 actions, Adam at learning rate 1 for {STEPS} steps from pi-. The "
        "reward is DPO's implicit one, beta log(pi / pi-), against log(pi+ / pi-), over actions with a mass of at "
        f"least {ENOUGH:g} under both; its error is that of the worst seed.",
    )


def _plot(found: list[dict[str, list[float]]]) -> Plot:
    x = ACTIONS.tolist()
    series = [Series("pi- (reference)", x, MINUS.tolist())]
    for beta in BETAS:
        policies = np.array([of_seed[str(beta)] for of_seed in found])
        band = (policies.min(0).tolist(), policies.max(0).tolist())
        series.append(Series(f"learned, beta {beta:g}", x, policies.mean(0).tolist(), *band))
    series.append(Series("pi+", x, PLUS.tolist()))
    return Plot(
        title="Bandit: what DPO learns from pairs of pi+ over pi-",
        x_label="action",
        y_label="probability",
        series=series,
        note="Mean over seeds, with a band from the lowest to the highest seed, which is thinner than the line. The "
        "line of pi+ lies on the one learned at beta 1.",
    )
