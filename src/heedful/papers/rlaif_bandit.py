"""The bandit of Sharma et al. 2024 (arXiv 2402.12366): why AI feedback from a weak start falls short of imitation.

100 arms, the reward of arm i is i. The student plays around arm 40, the teacher around arm 80. AI feedback: pairs of
the student's own arms, labelled by the true reward, a reward for each arm fitted by Bradley and Terry's model, and the
policy that is best under that reward and a KL penalty to the student. Imitation: the teacher's arms, by likelihood.

As in the official code both are fitted by gradient descent for a fixed number of steps, and imitation begins at the
uniform policy, not at the student. Both matter, so the table has imitation from the student too.

The pairs are a matrix of counts: a mean over pairs sees nothing else of them. The gradients are written out; a test
compares them with those of `heedful.losses`.

Letters: A arms.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from heedful.papers.results import Claim, Part, Plot, Series, Table
from heedful.papers.seeds import over_seeds

if TYPE_CHECKING:
    from heedful.run import Run

Array = NDArray[np.float64]

ARMS = np.arange(100)
PAIRS = 250_000
RATE = 0.01
REWARD_STEPS = 7_500
IMITATION_STEPS = 15_000
BETA = 0.1
BETAS = (1.0, BETA, 0.01)
FAR = 70
"""Arms from here on are what the teacher plays and the student hardly does."""
WITHIN = 1.0
"""Arms by which a mean may differ from the published one."""
PUBLISHED = {"student": 40.0, "AI feedback": 51.8, "imitation of the teacher": 70.7, "teacher": 78.5}


def normal(weights: Array) -> Array:
    """Weights as probabilities."""
    return weights / weights.sum()


def hill(centre: float) -> Array:
    """A policy (A,) ∝ exp(-(i - centre)^2 / 300)."""
    return normal(np.exp(-((ARMS - centre) ** 2) / 300.0))


STUDENT, TEACHER = hill(40), hill(80)


def mean_arm(policy: Array) -> float:
    """The expected reward of a policy."""
    return float((ARMS * policy).sum())


def draw_pairs(seed: int, pairs: int = PAIRS) -> Array:
    """How often each (first, second) comes up among pairs of the student's arms: (A, A) counts."""
    table = np.outer(STUDENT, STUDENT)
    return (
        np.random.default_rng([seed, 0]).multinomial(pairs, table.ravel()).reshape(table.shape).astype(float)
    )


def won(counts: Array) -> Array:
    """How often arm i won against arm j, (A, A): the higher arm wins, and an arm against itself teaches nothing."""
    return np.tril(counts + counts.T, -1)


def reward_gradient(reward: Array, wins: Array, pairs: float) -> Array:
    """Of the mean Bradley-Terry loss over `pairs` pairs, (A,)."""
    wrong = wins / (1 + np.exp(reward[:, None] - reward[None])) / pairs
    return wrong.sum(0) - wrong.sum(1)


def fit_reward(counts: Array, *, steps: int = REWARD_STEPS) -> Array:
    """The reward of each arm, (A,), by full-batch gradient descent from 0. Pairs of equal arms count in the mean."""
    wins, pairs, reward = won(counts), counts.sum(), np.zeros(len(ARMS))
    for _ in range(steps):
        reward -= RATE * reward_gradient(reward, wins, pairs)
    return reward


def tilted(reward: Array, beta: float) -> Array:
    """The policy (A,) ∝ student * exp(reward / beta), which is best under the reward and beta * KL to the student."""
    return normal(STUDENT * np.exp((reward - reward.max()) / beta))


def imitation_gradient(logits: Array, shares: Array) -> Array:
    """Of the mean negative log-likelihood of arms that come up with these shares, (A,)."""
    return normal(np.exp(logits - logits.max())) - shares


def imitate(seed: int, *, start: Array | None = None, steps: int = IMITATION_STEPS) -> Array:
    """The policy (A,) after gradient descent on as many of the teacher's arms as there are pairs; from the uniform
    policy, or from `start`."""
    draw = np.random.default_rng([seed, 1])
    shares = draw.multinomial(PAIRS, TEACHER) / PAIRS
    logits = np.zeros(len(ARMS)) if start is None else np.log(start)
    for _ in range(steps):
        logits = logits - RATE * imitation_gradient(logits, shares)
    return normal(np.exp(logits - logits.max()))


def divergence(policy: Array) -> float:
    """KL(policy || student), in nats."""
    there = policy > 0
    return float((policy[there] * np.log(policy[there] / STUDENT[there])).sum())


# ---- claims


def bandit_part(seeds: Sequence[int], run: Run) -> Part:
    """The four published means, what beta changes, and why: seconds for each seed."""
    found = [run.once(f"bandit/seed{seed}.json", lambda seed=seed: _solve(seed)) for seed in seeds]
    means = {name: [mean_arm(np.array(of_seed[name])) for of_seed in found] for name in PUBLISHED}
    claims = [_close(name, means[name], target) for name, target in PUBLISHED.items()]
    gain = [b - a for a, b in zip(means["AI feedback"], means["imitation of the teacher"], strict=True)]
    measured, interval = over_seeds(gain)
    claims.append(
        Claim(
            "Bandit: imitation of the teacher is better than AI feedback from the student (measured: the difference)",
            "70.7 - 51.8 = 18.9",
            measured,
            interval,
            min(gain) > 0,
            "holds where it does for every seed",
        )
    )
    moved = [of_seed["betas"]["0.01"]["mean"] - of_seed["betas"]["1.0"]["mean"] for of_seed in found]
    measured, interval = over_seeds(moved)
    claims.append(
        Claim(
            "Bandit: a weaker KL penalty does not help: beta from 1 to .01 moves AI feedback by less than 10 arms",
            "44.8 to 52.6 = 7.8",
            measured,
            interval,
            max(moved) < 10,
            "holds where it does for every seed",
        )
    )
    return Part(claims, [_table(found), _betas(found)], [_plot(found)])


def _solve(seed: int) -> dict[str, Any]:
    counts = draw_pairs(seed)
    reward, wins = fit_reward(counts), won(counts)
    policies = {
        "student": STUDENT,
        "AI feedback": tilted(reward, BETA),
        "imitation of the teacher": imitate(seed),
        "imitation from the student": imitate(seed, start=STUDENT),
        "teacher": TEACHER,
    }
    betas = {
        str(beta): {"mean": mean_arm(tilted(reward, beta)), "kl": divergence(tilted(reward, beta))}
        for beta in BETAS
    }
    far = counts[FAR:].sum() + counts[:, FAR:].sum() - counts[FAR:, FAR:].sum()
    facts = {
        "far": far / counts.sum(),
        "best_arm": int(reward.argmax()),
        "ties": 1 - wins.sum() / counts.sum(),
    }
    return {name: policy.tolist() for name, policy in policies.items()} | {"betas": betas, "facts": facts}


def _close(name: str, values: Sequence[float], target: float) -> Claim:
    measured, interval = over_seeds(values)
    sides = [*values, *(interval or ())]
    return Claim(
        f"Bandit: the mean arm of {name} is {target:g} to within {WITHIN:g}",
        f"{target:g}",
        measured,
        interval,
        all(abs(value - target) <= WITHIN for value in sides),
        "every seed, and the interval over seeds, within that",
    )


def _table(found: Sequence[dict[str, Any]]) -> Table:
    rows = []
    for name in (
        "student",
        "AI feedback",
        "imitation from the student",
        "imitation of the teacher",
        "teacher",
    ):
        policies = [np.array(of_seed[name]) for of_seed in found]
        rows.append(
            [
                name,
                float(np.mean([mean_arm(p) for p in policies])),
                float(np.mean([p.argmax() for p in policies])),
                float(np.mean([divergence(p) for p in policies])),
            ]
        )
    facts = [of_seed["facts"] for of_seed in found]
    note = (
        f"{np.mean([f['far'] for f in facts]):.1%} of the student's pairs touch arm {FAR} or a higher one, and the "
        f"fitted reward is highest at arm {np.mean([f['best_arm'] for f in facts]):.0f}: what the student never plays "
        f"is never praised. {np.mean([f['ties'] for f in facts]):.1%} of the pairs are an arm against itself. "
        "Imitation begins at the uniform policy, as in the official code; begun at the student it gets less far in the "
        "same 15 000 steps, and is still ahead."
    )
    return Table(
        "Bandit: the policies", ["policy", "mean arm", "most likely arm", "KL to the student"], rows, note
    )


def _betas(found: Sequence[dict[str, Any]]) -> Table:
    rows = [
        [
            beta,
            *(
                float(np.mean([of_seed["betas"][str(beta)][key] for of_seed in found]))
                for key in ("mean", "kl")
            ),
        ]
        for beta in BETAS
    ]
    return Table(
        "Bandit: AI feedback by the strength of its KL penalty",
        ["beta", "mean arm", "KL to the student"],
        rows,
    )


def _plot(found: Sequence[dict[str, Any]]) -> Plot:
    x = ARMS.tolist()
    names = ("student", "AI feedback", "imitation of the teacher", "teacher")
    series = [
        Series(name, x, np.mean([of_seed[name] for of_seed in found], axis=0).tolist()) for name in names
    ]
    return Plot("Bandit: the policies", "arm", "probability", series, "Means over seeds.")
