"""PA-RL's two steps in plain PyTorch, as its release does them: a network for each member, everything evaluated.

What the release (JAX) does, in our words: candidates are drawn anew for each batch from observations repeated k times;
each member is a network of its own over [observation, action] side by side; all members are evaluated on n random
actions and on n copies of each of the two optimised actions, and the members that count are picked afterwards; after
the climb the candidates are scored once more. It asks for the action in s' twice, for the target and for the
conservative term; as a compiler may find the two to be the same, this program computes it once.

Letters: B transitions, k candidates, m kept, A numbers of an action.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from heedful.judges.critic import Critic
from heedful.policies.actions import NetworkPolicy


@dataclass(frozen=True)
class Search:
    """k, m, T and the size of a step."""

    samples: int
    keep: int
    steps: int
    step_size: float = 3e-4


class PlainQ(nn.Module):
    """One member: observation and action in, one number out."""

    def __init__(self, inputs: int, width: int, depth: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(depth):
            layers += [nn.Linear(inputs if i == 0 else width, width), nn.LayerNorm(width), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(width, 1))

    def forward(self, observations: Tensor, actions: Tensor) -> Tensor:
        """(R, S) and (R, A) -> (R,)."""
        return self.layers(torch.cat([observations, actions], -1)).squeeze(-1)


class PlainPolicy(nn.Module):
    """A diffusion policy: [observation, noisy action, features of the time] through residual blocks to the noise."""

    def __init__(self, of: NetworkPolicy) -> None:
        super().__init__()
        head: Any = of.module["head"]  # type: ignore[index]
        net = head.net
        self.time, self.blocks, self.out = (copy.deepcopy(part) for part in (net.time, net.blocks, net.out))
        parts = (net.of_features, net.of_numbers, net.of_time)
        self.first = nn.Linear(sum(p.in_features for p in parts), net.of_features.out_features)
        with torch.no_grad():
            self.first.weight.copy_(torch.cat([p.weight for p in parts], 1))
            self.first.bias.copy_(net.of_features.bias)
        self.beta, self.kept, self.steps = head.beta.clone(), head.kept.clone(), head.steps
        self.numbers = head.numbers

    def forward(self, observations: Tensor, x: Tensor, time: Tensor) -> Tensor:
        """Rows of each: (R, S), (R, A), (R,) -> (R, A)."""
        return self.out(self.blocks(self.first(torch.cat([observations, x, self.time(time)], -1))))

    @torch.no_grad()
    def sample(self, observations: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """(B, k, A)."""
        seen = observations.repeat_interleave(count, 0)
        shape = (len(seen), self.numbers)
        x = torch.randn(shape, generator=generator)
        for step in range(self.steps - 1, -1, -1):
            noise = self(seen, x, torch.full((len(seen),), float(step)))
            beta, kept = self.beta[step], self.kept[step]
            x = (x - beta / (1 - kept).sqrt() * noise) / (1 - beta).sqrt()
            if step:
                x = x + beta.sqrt() * torch.randn(shape, generator=generator)
            x = x.clamp(-1, 1)
        return x.unflatten(0, (-1, count))

    def loss(self, observations: Tensor, actions: Tensor) -> Tensor:
        """The mean squared error of the noise, summed over numbers."""
        step = torch.randint(self.steps, (len(actions),))
        noise = torch.randn_like(actions)
        kept = self.kept[step][:, None]
        predicted = self(observations, kept.sqrt() * actions + (1 - kept).sqrt() * noise, step.float())
        return (predicted - noise).square().sum(-1).mean()


class Peer:
    """Critic and policy with the weights of ours, and the two steps."""

    def __init__(self, critic: Critic, policy: NetworkPolicy, rate: float, ema: float) -> None:
        self.config = critic.config
        self.members = nn.ModuleList(_members(critic))
        self.targets = copy.deepcopy(self.members).requires_grad_(False)
        self.policy = PlainPolicy(policy)
        self.average = copy.deepcopy(self.policy).requires_grad_(False)
        self.ema, self.updates = ema, 0
        self.critic_optimiser = torch.optim.Adam(self.members.parameters(), lr=rate)
        self.policy_optimiser = torch.optim.Adam(self.policy.parameters(), lr=rate)

    def q(self, observations: Tensor, actions: Tensor, *, target: bool = False) -> Tensor:
        """(K, R)."""
        return torch.stack([q(observations, actions) for q in (self.targets if target else self.members)])

    def search(
        self, observations: Tensor, candidates: Tensor, how: Search, data_action: Tensor | None = None
    ) -> Tensor:
        """The best of the kept and climbed candidates, (B, A)."""
        b, k, a = candidates.shape
        seen = observations.repeat_interleave(k, 0)
        with torch.no_grad():
            value = self.q(seen, candidates.reshape(b * k, a)).mean(0).reshape(b, k)
        order = value.argsort(-1)[:, -how.keep :]
        kept = candidates.gather(1, order[..., None].expand(-1, -1, a))
        if data_action is not None:
            kept = torch.cat([kept[:, 1:], data_action[:, None]], 1)
        seen = observations.repeat_interleave(how.keep, 0)
        here = best = kept.reshape(-1, a)
        top = torch.full((len(here),), -math.inf)
        for step in range(how.steps + 1):
            place = here.detach().requires_grad_()
            with torch.set_grad_enabled(step < how.steps):
                now = self.q(seen, place).mean(0)
            better = now.detach() > top
            best, top = torch.where(better[:, None], here, best), torch.where(better, now.detach(), top)
            if step < how.steps:
                (slope,) = torch.autograd.grad(now.sum(), place)
                here = (here + how.step_size * slope).clamp(-1, 1)
        with torch.no_grad():
            value = self.q(seen, best).mean(0).reshape(b, how.keep)
        return best.reshape(b, how.keep, a)[torch.arange(b), value.argmax(-1)]

    def critic_step(
        self,
        batch: dict[str, Tensor],
        how: Search,
        generator: torch.Generator,
        given: Sequence[Tensor] | None = None,
    ) -> float:
        """One step of the critic; given: candidates at s and s' in place of fresh ones. Returns the loss."""
        seen, after = batch["observations"], batch["next_observations"]
        if given is None:
            given = [self.average.sample(x, how.samples, generator) for x in (seen, after)]
        action, later = self.search(seen, given[0], how), self.search(after, given[1], how)
        config, n = self.config, self.config.random_actions
        picked = torch.randint(config.members, (config.target_members,))
        with torch.no_grad():
            lowest = self.q(after, later, target=True)[picked].amin(0)
            target = batch["reward"] + config.gamma * batch["mask"] * lowest
        predicted = self.q(seen, batch["action"])
        td = (predicted - target).square().mean()
        random = 2 * torch.rand(len(seen), n, action.shape[-1]) - 1
        copies = [x[:, None].expand(-1, n, -1) for x in (later, action)]
        every = torch.cat([random, *copies], 1)
        rows = self.q(seen.repeat_interleave(3 * n, 0), every.flatten(0, 1)).unflatten(1, (-1, 3 * n))
        rows, predicted = rows[picked], predicted[picked]
        lifted = torch.maximum(rows[..., n:], batch["mc_return"][:, None])
        both = torch.cat([rows[..., :n], lifted, predicted[..., None]], -1)
        gap = both.logsumexp(-1) - math.log(3 * n + 1) - predicted
        loss = td + config.alpha * gap.mean()
        self.critic_optimiser.zero_grad()
        loss.backward()
        self.critic_optimiser.step()
        _follow(self.targets, self.members, config.target_rate)
        return float(loss.detach())

    def distil_step(self, batch: dict[str, Tensor], how: Search, generator: torch.Generator) -> float:
        """One step of the policy towards improved actions. Returns the loss."""
        seen = batch["observations"]
        drawn = self.average.sample(seen, how.samples, generator)
        loss = self.policy.loss(seen, self.search(seen, drawn, how, batch["action"]))
        self.policy_optimiser.zero_grad()
        loss.backward()
        self.policy_optimiser.step()
        self.updates += 1
        # As ours does, or the two would not stay equal: the first weights do not weigh on a short run.
        _follow(self.average, self.policy, max(self.ema, 1 / self.updates))
        return float(loss.detach())


@torch.no_grad()
def _follow(slow: nn.Module, fast: nn.Module, rate: float) -> None:
    for s, f in zip(slow.parameters(), fast.parameters(), strict=True):
        s.mul_(1 - rate).add_(f, alpha=rate)


def _members(critic: Critic) -> list[PlainQ]:
    """Each member of our ensemble as a network of its own, with the same weights."""
    ours: Any = critic.module["q"]  # type: ignore[index]
    out = []
    with torch.no_grad():
        for k in range(critic.config.members):
            first = torch.cat([ours.of_features.weight[k], ours.of_action[0].weight[k]]).T
            q = PlainQ(first.shape[1], critic.config.width, critic.config.depth)
            linear: list[Any] = [layer for layer in q.layers if isinstance(layer, nn.Linear)]
            norms: list[Any] = [layer for layer in q.layers if isinstance(layer, nn.LayerNorm)]
            linear[0].weight.copy_(first)
            linear[0].bias.copy_(ours.of_features.bias[k, 0])
            for to, of in zip(linear[1:], [*ours.inner, ours.last], strict=True):
                to.weight.copy_(of.weight[k].T)
                to.bias.copy_(of.bias[k, 0])
            for to, of in zip(norms, ours.norms, strict=True):
                to.weight.copy_(of.scale[k, 0])
                to.bias.copy_(of.shift[k, 0])
            out.append(q)
    return out
