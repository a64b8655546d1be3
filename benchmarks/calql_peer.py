"""The critic's step of Cal-QL as CORL publishes it, in our words: two critics, each a network of its own.

CORL (one file for each algorithm): twin critics of ReLU layers, a tanh-Gaussian policy that sees each observation
repeated n times, n actions at s, n at s' and n at random, three passes of each critic over them, Cal-QL's floor on the
policy's, and the sum of both losses. Importance weights are an option there and are left out, as ours has none: the
data's action then stands among the others. The policy's own step is not part of it.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn


def layers(*sizes: int) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    parts: list[nn.Module] = []
    for inner, outer in pairwise(sizes):
        parts += [nn.Linear(inner, outer), nn.ReLU()]
    return nn.Sequential(*parts[:-1])


class Twin(nn.Module):
    """One critic: (B, S) with (B, A) or (B, N, A) to (B,) or (B, N)."""

    def __init__(self, inputs: int, width: int, depth: int) -> None:
        super().__init__()
        self.network = layers(inputs, *[width] * depth, 1)

    def forward(self, observations: Tensor, actions: Tensor) -> Tensor:
        """See the class."""
        if actions.ndim == 3:
            observations = observations[:, None].repeat_interleave(actions.shape[1], 1)
        return self.network(torch.cat([observations, actions], -1)).squeeze(-1)


class TanhGaussian(nn.Module):
    """mean and log-std by number; draws are squashed by tanh."""

    def __init__(self, observation: int, action: int, width: int, depth: int) -> None:
        super().__init__()
        self.network = layers(observation, *[width] * depth, 2 * action)

    def forward(self, observations: Tensor, repeat: int = 0) -> tuple[Tensor, Tensor]:
        """Actions and their log-probabilities, (B, A) or (B, repeat, A)."""
        if repeat:
            observations = observations[:, None].repeat_interleave(repeat, 1)
        mean, log_std = self.network(observations).chunk(2, -1)
        normal = torch.distributions.Normal(mean, log_std.clamp(-20, 2).exp())
        squashed = torch.distributions.TransformedDistribution(
            normal, torch.distributions.TanhTransform(cache_size=1)
        )
        drawn = squashed.rsample()
        return drawn, squashed.log_prob(drawn).sum(-1)


@dataclass(frozen=True)
class Rates:
    """gamma, the weight of the conservative term, n, and the learning and following rates."""

    gamma: float
    alpha: float
    actions: int
    learning: float
    target: float


class CalQL:
    """Twin critics with their targets and optimisers."""

    def __init__(self, critics: list[Twin], policy: Any, rates: Rates) -> None:
        self.critics, self.policy, self.rates = nn.ModuleList(critics), policy, rates
        self.targets = copy.deepcopy(self.critics).requires_grad_(False)
        self.optimisers = [torch.optim.Adam(critic.parameters(), lr=rates.learning) for critic in critics]

    def step(
        self, batch: dict[str, Tensor], given: tuple[Tensor, Tensor, Tensor] | None = None
    ) -> tuple[float, Tensor]:
        """One step. given: actions at s and s' (B, n, A) and in s' for the target (B, A), in place of the policy's.

        Returns the loss and the random actions.
        """
        seen, after, n = batch["observations"], batch["next_observations"], self.rates.actions
        predicted = [critic(seen, batch["action"]) for critic in self.critics]
        if given is None:
            later, _ = self.policy(after)
        else:
            later = given[2]
        lowest = torch.min(*[target(after, later) for target in self.targets])
        target = (batch["reward"] + batch["mask"] * self.rates.gamma * lowest).detach()
        td = [(q - target).square().mean() for q in predicted]
        random = later.new_empty(len(seen), n, later.shape[-1]).uniform_(-1, 1)
        if given is None:
            now, following = (self.policy(x, repeat=n)[0].detach() for x in (seen, after))
        else:
            now, following = given[:2]
        gaps = []
        for critic, q in zip(self.critics, predicted, strict=True):
            floor = batch["mc_return"][:, None].repeat(1, n)
            kinds = [critic(seen, kind) for kind in (random, now, following)]
            lifted = [torch.maximum(kind, floor) for kind in kinds[1:]]
            gaps.append((torch.cat([kinds[0], q[:, None], *lifted], 1).logsumexp(1) - q).mean())
        loss = sum(td) + self.rates.alpha * sum(gaps)  # type: ignore[operator]
        assert isinstance(loss, Tensor)
        for optimiser in self.optimisers:
            optimiser.zero_grad()
        loss.backward()
        for optimiser in self.optimisers:
            optimiser.step()
        with torch.no_grad():
            for slow, fast in zip(self.targets.parameters(), self.critics.parameters(), strict=True):
                slow.copy_((1 - self.rates.target) * slow + self.rates.target * fast)
        return float(loss.detach()), random
