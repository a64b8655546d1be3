"""A critic: an ensemble of Q-networks over observations and actions, its losses, and its slow copy.

TD, CQL and Cal-QL as in PA-RL's code (arXiv 2412.06685), IQL, and the settings of RLPD. Differences from the release,
on purpose: random actions are drawn between the real bounds; only the members that count are computed; the actions of
a deterministic policy are evaluated once; IQL is complete.

Letters: K members, B transitions, N actions of an observation, H steps of an action chunk, A numbers of an action.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from heedful.errors import HeedfulError
from heedful.feedback import Feedback, Samples
from heedful.judges.critic_nets import QEnsemble
from heedful.losses import Result, cql_loss, expectile_loss, hl_gauss_loss, hl_gauss_value, td_loss
from heedful.policies.actions import ActionSpace, Observations, stack
from heedful.policies.actions.nets import mlp
from heedful.polyak import Polyak


@dataclass(frozen=True)
class CriticConfig:
    """How a critic is made and learns; the defaults are PA-RL's."""

    method: Literal["td", "cql", "calql", "iql"] = "calql"
    """td: nothing keeps unseen actions low; cql, calql: `losses.cql_loss`; iql: only the data's actions."""
    members: int = 10
    """Q-networks in the ensemble."""
    target_members: int = 2
    """Members drawn at each step: the target is their minimum, and the conservative term is over them. 0: all."""
    distinct_members: bool = False
    """Draw them without replacement (REDQ, RLPD); PA-RL's code draws with."""
    width: int = 256
    """Width of hidden layers."""
    depth: int = 3
    """Hidden layers."""
    layer_norm: bool = True
    """Layer norm after each hidden layer."""
    activation: Literal["silu", "relu"] = "silu"
    """After each layer norm."""
    action_every_layer: bool = False
    """The action enters each hidden layer, not the first alone."""
    target: Literal["mse", "hl_gauss"] = "mse"
    """Squared error, or cross-entropy with a histogram over [q_min, q_max]."""
    q_min: float = -100.0
    """Lowest value of the histogram."""
    q_max: float = 0.0
    """Highest value of the histogram."""
    bins: int = 128
    """Bins of the histogram."""
    sigma: float = 0.75
    """Spread of its targets in bins; 1.0607 is what PA-RL's release amounts to."""
    gamma: float = 0.99
    """Discount of one environment step."""
    target_rate: float = 5e-3
    """How fast the target networks follow."""
    alpha: float = 0.005
    """Weight of the conservative term."""
    random_actions: int = 10
    """n of the conservative term: random actions, and copies of each policy action."""
    expectile: float = 0.7
    """iql: which expectile of Q is the value; 0.9 for sparse mazes."""

    def __post_init__(self) -> None:
        checks = {
            "method must be td, cql, calql or iql": self.method in ("td", "cql", "calql", "iql"),
            "target must be mse or hl_gauss": self.target in ("mse", "hl_gauss"),
            "members, width, depth and random_actions must be at least 1": min(
                self.members, self.width, self.depth, self.random_actions
            )
            >= 1,
            "target_members must be 0 (all) or more": self.target_members >= 0,
            "distinct_members cannot draw more than there are": not self.distinct_members
            or self.target_members <= self.members,
            "gamma must be from 0 to 1": 0 <= self.gamma <= 1,
            "target_rate must be above 0 and at most 1": 0 < self.target_rate <= 1,
            "alpha must be 0 or more": self.alpha >= 0,
            "expectile must be between 0 and 1": 0 < self.expectile < 1,
            "q_min must be below q_max": self.q_min < self.q_max,
            "bins must be at least 2 and sigma above 0": self.bins >= 2 and self.sigma > 0,
        }
        wrong = [rule for rule, holds in checks.items() if not holds]
        if wrong:
            raise HeedfulError(f"critic settings: {'; '.join(wrong)}")


def rlpd(config: CriticConfig | None = None) -> CriticConfig:
    """The settings of RLPD (Ball et al. 2023) on top of others: ten members with layer norm, the least of two of them.

    Its update-to-data ratio of 20, equal halves of offline and online data, and 5000 first steps are the recipe's.
    """
    return replace(
        config or CriticConfig(),
        method="td",
        members=10,
        target_members=2,
        distinct_members=True,
        layer_norm=True,
        activation="relu",
        width=256,
        depth=3,
        target="mse",
    )


@dataclass
class Transitions:
    """B transitions. action (B, H, A): a chunk; reward: what it brought, discounted inside the chunk; mask: 0 where the
    task ended; mc_return: the return that was reached, which Cal-QL needs; index, next_index: the numbers of both
    states, for caches of candidates."""

    observations: Observations
    action: Tensor
    reward: Tensor
    mask: Tensor
    next_observations: Observations
    mc_return: Tensor | None = None
    index: Tensor | None = None
    next_index: Tensor | None = None


class Critic:
    """Q(s, a) by an ensemble, itself a judge of samples; `module` is what `fit` trains.

    encoder: observations to features (B, F), the critic's own. Hand `after_step` and `state()` to `fit`.
    """

    def __init__(
        self, encoder: nn.Module, features: int, space: ActionSpace, config: CriticConfig, *, seed: int = 0
    ) -> None:
        self.space, self.config = space, config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            parts: dict[str, nn.Module] = {
                "encoder": encoder,
                "q": QEnsemble(
                    features,
                    space.numbers,
                    members=config.members,
                    width=config.width,
                    depth=config.depth,
                    layer_norm=config.layer_norm,
                    activation=config.activation,
                    action_every_layer=config.action_every_layer,
                    outputs=config.bins if config.target == "hl_gauss" else 1,
                ),
            }
            if config.method == "iql":
                sizes = [features, *[config.width] * config.depth, 1]
                parts["value"] = mlp(sizes, layer_norm=config.layer_norm)
            self.module = nn.ModuleDict(parts)
        # The value network has no slow copy in IQL, so the encoder and the ensemble alone are copied.
        self.slow = Polyak(
            nn.ModuleDict({name: parts[name] for name in ("encoder", "q")}), config.target_rate
        )

    def after_step(self, step: int) -> None:
        """The target networks follow."""
        self.slow.update()

    def state(self) -> dict[str, Tensor]:
        """The target networks, which `after_step` changes."""
        return self.slow.tensors("target")

    # ---- values

    def encode(self, observations: Observations, *, target: bool = False) -> Tensor:
        """Features (B, F), once for all actions of an observation."""
        return self._part("encoder", target)(observations)

    def q(
        self, features: Tensor, actions: Tensor, *, members: Tensor | None = None, target: bool = False
    ) -> Tensor:
        """(K, B, N) values of actions (B, N, H, A); members: indices of those to compute."""
        return self._values(self._outputs(features, actions, members, target))

    def score(
        self,
        features: Tensor,
        actions: Tensor,
        *,
        over: Literal["mean", "min"] = "mean",
        target: bool = False,
    ) -> Tensor:
        """(B, N) values, the mean or the minimum over members."""
        values = self.q(features, actions, target=target)
        return values.mean(0) if over == "mean" else values.amin(0)

    def __call__(self, samples: Samples) -> Feedback:
        """Judge samples: the mean over members, (B, N)."""
        actions = torch.stack(list(samples.outputs)).unflatten(0, (len(samples.inputs), samples.n))
        with torch.no_grad():
            return Feedback(score=self.score(self.encode(stack(samples.inputs)), actions).float())

    def _part(self, name: str, target: bool) -> Any:
        return self.slow.module[name] if target else self.module[name]  # type: ignore[index]

    def _outputs(self, features: Tensor, actions: Tensor, members: Tensor | None, target: bool) -> Tensor:
        return self._part("q", target)(features, self.space.to_unit(actions), members)

    def _values(self, outputs: Tensor) -> Tensor:
        if self.config.target == "mse":
            return outputs.squeeze(-1)
        low, high = self.config.q_min, self.config.q_max
        return hl_gauss_value(outputs.flatten(0, 1), low=low, high=high).unflatten(0, outputs.shape[:2])

    # ---- learning

    def drawn_members(self) -> Tensor | None:
        """Indices of this step's members, from torch's generator; None for all."""
        count, config = self.config.target_members, self.config
        if count == 0:
            return None
        if config.distinct_members:
            return torch.randperm(config.members)[:count]
        return torch.randint(config.members, (count,))

    def targets(self, batch: Transitions, next_action: Tensor | None, members: Tensor | None) -> Tensor:
        """(B,) r + gamma^H mask min_k Q'_k(s', a'), without gradient; iql has V(s') in place of the minimum."""
        discount = self.config.gamma**self.space.horizon
        with torch.no_grad():
            if self.config.method == "iql":
                features = self.encode(batch.next_observations)
                after = self.module["value"](features).squeeze(-1)  # type: ignore[index, operator]
            else:
                if next_action is None:
                    raise HeedfulError(f"{self.config.method} needs the next action of the policy")
                features = self.encode(batch.next_observations, target=True)
                after = self.q(features, next_action[:, None], members=members, target=True)[..., 0].amin(0)
            return batch.reward + discount * batch.mask * after

    def loss(
        self,
        batch: Transitions,
        *,
        next_action: Tensor | None = None,
        policy_actions: Tensor | None = None,
        copies: int = 1,
    ) -> Result:
        """The loss of a batch, for `fit`.

        next_action (B, H, A): what the policy would do in s', not needed by iql. policy_actions (B, M, H, A): what the
        policy would do, evaluated at s, for cql and calql: of PA-RL the two optimised actions of s' and s, with
        copies=n, for they are deterministic; of a Gaussian policy 2 n samples.
        Metrics: those of the parts, and q_minus_return (how far Q is above the returns that were reached).
        """
        members = self.drawn_members()
        target = self.targets(batch, next_action, members)
        features = self.encode(batch.observations)
        outputs = self._outputs(features, batch.action[:, None], None, target=False)
        config = self.config
        if config.target == "hl_gauss":
            total, metrics = hl_gauss_loss(
                outputs[:, :, 0], target, low=config.q_min, high=config.q_max, sigma=config.sigma
            )
        else:
            total, metrics = td_loss(outputs[:, :, 0, 0], target)
        values = self._values(outputs)[..., 0]
        if config.method in ("cql", "calql"):
            part, more = self._conservative(batch, features, values, policy_actions, members, copies)
            total, metrics = total + config.alpha * part, metrics | more
        elif config.method == "iql":
            part, more = self._value_loss(batch, features)
            total, metrics = total + part, metrics | more
        if batch.mc_return is not None:
            metrics["q_minus_return"] = (values.detach().mean(0) - batch.mc_return).mean()
        return total, metrics

    def _conservative(
        self,
        batch: Transitions,
        features: Tensor,
        values: Tensor,
        policy_actions: Tensor | None,
        members: Tensor | None,
        copies: int,
    ) -> Result:
        if policy_actions is None:
            raise HeedfulError(f"{self.config.method} needs actions of the policy")
        floor = batch.mc_return if self.config.method == "calql" else None
        if self.config.method == "calql" and floor is None:
            raise HeedfulError(
                "calql needs the return of each transition (mc_return); compute them, or use cql"
            )
        n = self.config.random_actions
        random = self.space.uniform(len(values[0]), n).to(policy_actions)
        q = self.q(features, torch.cat([random, policy_actions], 1), members=members)
        return cql_loss(
            values if members is None else values[members], q[..., :n], q[..., n:], copies=copies, floor=floor
        )

    def _value_loss(self, batch: Transitions, features: Tensor) -> Result:
        with torch.no_grad():
            slow = self.encode(batch.observations, target=True)
            q = self.q(slow, batch.action[:, None], target=True)[..., 0].amin(0)
        # The encoder is the ensemble's: the value network reads its features and does not change them.
        value = self.module["value"](features.detach()).squeeze(-1)  # type: ignore[index, operator]
        return expectile_loss(value, q, tau=self.config.expectile)
