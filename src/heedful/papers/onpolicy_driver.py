"""One driver for every method on the bandit worlds: Algorithm 1 of Tajwar et al. 2024 (arXiv 2404.14367).

A round draws `batch` prompts and `samples` outputs for each, from the policy as it is, and scores them. `reuse` passes
over them follow, each in steps of `minibatch` prompts. One round is offline: all its samples come from pi_ref. A step
is one of Adam without clipping; nothing but the data and the reference holds the policy near pi_ref.

A local loop and not `fit`: runs are thousands of steps of a millisecond, on samples that change between them, and are
over in seconds, so that a whole run is a stage.

Letters: B prompts of a step, N outputs for each, T tokens of an output, P pairs.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from heedful import losses
from heedful.papers.onpolicy_world import Name, Policy, World, action_rewards, generator, measure
from heedful.run import derive_seed

OFFLINE: tuple[str, ...] = ("pref_ft", "bon", "rwr", "dpo", "ipo")
ONLINE: tuple[str, ...] = ("bon", "rwr", "reinforce", "ppo", "dpo", "ipo")
LABELS = {
    "pref_ft": "Pref-FT",
    "bon": "BoN",
    "rwr": "RWR",
    "reinforce": "REINFORCE",
    "ppo": "PPO",
    "dpo": "DPO",
    "ipo": "IPO",
}
MOST_PAIRS = 50_000
"""Pairs of one step; beyond them as many are drawn anew for each step, which has the same mean gradient."""


@dataclass(frozen=True)
class Setting:
    """What is learned on, and how often. Everything but the method and its knobs."""

    world: Name
    reward: str
    """One of `onpolicy_world.REWARDS`."""
    prompts: int = 10
    """Prompts there are to learn on."""
    samples: int = 10
    """N, outputs for each prompt of a round."""
    rounds: int = 25
    """How often outputs are drawn; 1 is offline."""
    reuse: int = 15
    """T, passes over the samples of a round."""
    batch: int = 0
    """Prompts of a round; 0: all of them."""
    minibatch: int = 0
    """Prompts of a step; 0: all of the round."""
    gap: float = 0.0
    """Pairs whose rewards differ by less are dropped, ties always."""
    every: int = 25
    """Steps between measurements; the last step is measured too."""

    @property
    def online(self) -> bool:
        """Whether later samples come from the policy that learns."""
        return self.rounds > 1

    @property
    def per_round(self) -> int:
        """Prompts of a round."""
        return self.batch or self.prompts

    @property
    def steps(self) -> int:
        """Gradient steps of a run."""
        return self.rounds * self.reuse * math.ceil(self.per_round / (self.minibatch or self.per_round))

    @property
    def name(self) -> str:
        """A name for files that holds every number."""
        numbers = {
            "p": self.prompts,
            "n": self.samples,
            "r": self.rounds,
            "t": self.reuse,
            "b": self.per_round,
            "m": self.minibatch or self.per_round,
            "e": self.every,
        }
        tail = "-".join(f"{key}{value}" for key, value in numbers.items())
        return f"{self.world}-{self.reward}-{tail}-g{self.gap:g}"


@dataclass(frozen=True)
class Knobs:
    """What is tuned for each method."""

    lr: float
    """Learning rate of Adam."""
    sharp: float = 0.0
    """RWR's tau, DPO's beta, IPO's margin h_w - h_l (which the paper's bandit code calls beta); 0 for the others."""

    @property
    def name(self) -> str:
        """For files: `0.003`, or `0.003-0.1` with the second knob."""
        return f"{self.lr:g}" + (f"-{self.sharp:g}" if self.sharp else "")


@dataclass
class Batch:
    """Samples of one round, or those of some of its prompts, and what the policies before the step thought of them."""

    prompts: Tensor
    """(B, ...)."""
    outputs: Tensor
    """(B, N, T)."""
    score: Tensor
    """(B, N)."""
    gain: Tensor
    """(B, N): the score, less the mean and over the deviation of all scores so far."""
    reference: Tensor
    """(B, N, T) log-probabilities under pi_ref."""
    old: Tensor
    """(B, N, T) log-probabilities under the policy that drew them."""

    def part(self, rows: Tensor) -> Batch:
        """The samples of some prompts."""
        return Batch(**{name: value[rows] for name, value in vars(self).items()})


@dataclass
class Running:
    """Count, mean and spread of all scores so far."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0

    def normalise(self, score: Tensor) -> Tensor:
        """Take the scores in, then give each less the mean and over the standard deviation."""
        self.count += score.numel()
        self.total += float(score.double().sum())
        self.squares += float(score.double().square().sum())
        mean = self.total / self.count
        return (score - mean) / (math.sqrt(max(0.0, self.squares / self.count - mean**2)) + 1e-8)


def learn(setting: Setting, method: str, knobs: Knobs, world: World) -> dict[str, list[Any]]:
    """Run a method; what was measured along the way, as lists over the times of measurement.

    step, samples (that were scored, so far) and what `measure` gives, on the test prompts. On the samples that are
    being learned from: score (their mean), h_w, h_l and margin: log pi - log pi_ref of the winners and losers of all
    pairs, and the difference; None without pairs. The seed is the world's; outputs of the first round and the order
    of the prompts are the same for all methods.
    """
    rewards = action_rewards(setting.reward)
    policy = copy.deepcopy(world.reference).requires_grad_(True)
    optimizer = torch.optim.Adam(policy.parameters(), lr=knobs.lr, fused=True)
    entries, running, step, scored = [], Running(), 0, 0
    for number in range(setting.rounds):
        sampler = copy.deepcopy(policy)
        batch = draw(setting, world, sampler, rewards, running, number)
        if not step:
            entries.append(_measured(policy, setting, world, rewards, sampler, batch, 0, 0))
        scored += batch.score.numel()
        for rows in parts(setting, world, number):
            draws = generator(world.seed, "pairs", step)
            loss = OBJECTIVES[method](policy, batch.part(rows), setting, knobs, draws)
            step += 1
            if loss is not None:
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
            if step % setting.every == 0 or step == setting.steps:
                entries.append(_measured(policy, setting, world, rewards, sampler, batch, step, scored))
    return {name: [_digits(entry[name]) for entry in entries] for name in entries[0]}


def draw(
    setting: Setting, world: World, sampler: Policy, rewards: Tensor, running: Running, number: int
) -> Batch:
    """The samples of round `number`."""
    draws = generator(world.seed, world.name, "round", number)
    prompts = world.prompts[: setting.prompts]
    if setting.per_round < setting.prompts:
        prompts = prompts[torch.randperm(setting.prompts, generator=draws)[: setting.per_round]]
    outputs = sampler.sample(prompts, setting.samples, generator=draws)
    score = rewards[outputs].mean(-1)
    with torch.no_grad():
        old, reference = (policy.logp(prompts, outputs) for policy in (sampler, world.reference))
    return Batch(prompts, outputs, score, running.normalise(score), reference, old)


def parts(setting: Setting, world: World, number: int) -> Iterator[Tensor]:
    """For each step of round `number`, which of its prompts it takes; each pass has an order of its own."""
    draws = generator(world.seed, "order", number)
    for _ in range(setting.reuse):
        order = torch.randperm(setting.per_round, generator=draws)
        yield from order.split(setting.minibatch or setting.per_round)


def pair_indices(score: Tensor, gap: float, draws: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Winners and losers of all pairs within a prompt, (P,) each, as places in the flattened (B, N) scores.

    Those of `feedback.pairs` with how="all" and margin=gap, in tensors, because a step of a millisecond cannot wait
    for rows; and rewards that differ by rounding alone are a tie. With more than `MOST_PAIRS` candidates, as many are
    drawn from them.
    """
    b, n = score.shape
    if b * n * (n - 1) // 2 <= MOST_PAIRS:
        first, second = torch.triu_indices(n, n, 1)
        rows = torch.arange(b)[:, None] * n
        first, second = (rows + first).flatten(), (rows + second).flatten()
    else:
        rows = torch.randint(b, (MOST_PAIRS,), generator=draws) * n
        place = torch.randint(n, (MOST_PAIRS,), generator=draws)
        other = (place + torch.randint(1, n, (MOST_PAIRS,), generator=draws)) % n
        first, second = rows + place, rows + other
    flat = score.flatten()
    difference = flat[first] - flat[second]
    slack = 1e-6 * torch.maximum(flat[first].abs(), flat[second].abs())
    keep = (difference.abs() > slack) & (difference.abs() >= gap - slack)
    ahead = difference > 0
    return torch.where(ahead, first, second)[keep], torch.where(ahead, second, first)[keep]


# ---- objectives: (policy, batch, setting, knobs, random numbers) -> loss, or None without anything to learn from

Objective = Callable[[Policy, Batch, Setting, Knobs, torch.Generator], Tensor | None]


def _pref_ft(policy: Policy, batch: Batch, setting: Setting, knobs: Knobs, draws: torch.Generator) -> Any:
    winners, _ = pair_indices(batch.score, setting.gap, draws)
    if not len(winners):
        return None
    logp = policy.logp(batch.prompts, batch.outputs).flatten(0, 1)[winners]
    return losses.nll_loss(logp, torch.ones_like(logp), reduction="sequence")[0]


def _bon(policy: Policy, batch: Batch, setting: Setting, knobs: Knobs, draws: torch.Generator) -> Any:
    best = batch.outputs[torch.arange(len(batch.score)), batch.score.argmax(1)][:, None]
    logp = policy.logp(batch.prompts, best)[:, 0]
    return losses.nll_loss(logp, torch.ones_like(logp), reduction="sequence")[0]


def _rwr(policy: Policy, batch: Batch, setting: Setting, knobs: Knobs, draws: torch.Generator) -> Any:
    logp = policy.logp(batch.prompts, batch.outputs).flatten(0, 1)
    # No clamp: the one at 10 is that of the paper's code for language models.
    score = batch.score.flatten()
    return losses.rwr_loss(logp, torch.ones_like(logp), score, tau=knobs.sharp, clamp=None)[0]


def _reinforce(policy: Policy, batch: Batch, setting: Setting, knobs: Knobs, draws: torch.Generator) -> Any:
    logp = policy.logp(batch.prompts, batch.outputs).flatten(0, 1)
    return losses.reinforce_loss(logp, torch.ones_like(logp), batch.gain.flatten())[0]


def _ppo(policy: Policy, batch: Batch, setting: Setting, knobs: Knobs, draws: torch.Generator) -> Any:
    logp, old = policy.logp(batch.prompts, batch.outputs).flatten(0, 1), batch.old.flatten(0, 1)
    return losses.ppo_loss(logp, old, torch.ones_like(logp), batch.gain.flatten())[0]


def _pairwise(policy: Policy, batch: Batch, setting: Setting, draws: torch.Generator) -> list[Tensor] | None:
    winners, losers = pair_indices(batch.score, setting.gap, draws)
    if not len(winners):
        return None
    own = policy.logp(batch.prompts, batch.outputs).sum(-1).flatten()
    reference = batch.reference.sum(-1).flatten()
    return [own[winners], own[losers], reference[winners], reference[losers]]


def _dpo(policy: Policy, batch: Batch, setting: Setting, knobs: Knobs, draws: torch.Generator) -> Any:
    pairs = _pairwise(policy, batch, setting, draws)
    return None if pairs is None else losses.dpo_loss(*pairs, beta=knobs.sharp)[0]


def _ipo(policy: Policy, batch: Batch, setting: Setting, knobs: Knobs, draws: torch.Generator) -> Any:
    pairs = _pairwise(policy, batch, setting, draws)
    return None if pairs is None else losses.ipo_loss(*pairs, beta=1 / (2 * knobs.sharp))[0]


OBJECTIVES: dict[str, Objective] = {
    "pref_ft": _pref_ft,
    "bon": _bon,
    "rwr": _rwr,
    "reinforce": _reinforce,
    "ppo": _ppo,
    "dpo": _dpo,
    "ipo": _ipo,
}


@torch.no_grad()
def _measured(
    policy: Policy,
    setting: Setting,
    world: World,
    rewards: Tensor,
    sampler: Policy,
    batch: Batch,
    step: int,
    scored: int,
) -> dict[str, float | None]:
    entry: dict[str, float | None] = {"step": step, "samples": scored}
    entry |= measure(policy, world, rewards, sampler, derive_seed(world.seed, "measured", step))
    h = (policy.logp(batch.prompts, batch.outputs) - batch.reference).sum(-1).flatten()
    winners, losers = pair_indices(batch.score, setting.gap, generator(world.seed, "measured pairs", step))
    entry |= {"score": float(batch.score.mean())}
    entry |= {"h_w": None, "h_l": None, "margin": None}
    if len(winners):
        h_w, h_l = float(h[winners].mean()), float(h[losers].mean())
        entry |= {"h_w": h_w, "h_l": h_l, "margin": h_w - h_l}
    return entry


def _digits(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")
