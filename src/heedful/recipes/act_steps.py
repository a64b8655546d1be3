"""What one step of `heedful act` learns: the critic's loss and the policy's, whatever the phase.

Letters: B transitions, N candidates each, M random actions, H steps of an action chunk, A numbers of an action.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from heedful.data.transitions import mixed_indices
from heedful.judges.action_search import improve, searched_loss
from heedful.judges.critic import Critic, Transitions
from heedful.losses import Result
from heedful.losses.shapes import as_metrics
from heedful.policies.actions import NetworkPolicy
from heedful.recipes.act_agent import Agent, moved, search_config
from heedful.run import derive_seed

if TYPE_CHECKING:
    from heedful.fit import FitConfig
    from heedful.recipes.act import Config

Candidates = Callable[[Transitions], tuple[Tensor, Tensor]]
"""N actions of the policy at s and at s', (B, N, H, A) each."""


class Batches(Sequence[Tensor]):
    """Indices of transitions for each of `steps` steps, drawn when asked for: a function of (seed, name, step)."""

    def __init__(
        self, sizes: Sequence[int], shares: Sequence[float], steps: int, batch: int, seed: int, name: str
    ) -> None:
        self.sizes, self.shares, self.steps, self.batch = list(sizes), list(shares), steps, batch
        self.seed, self.name = seed, name

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: Any) -> Any:
        if not 0 <= step < self.steps:
            raise IndexError(step)
        generator = torch.Generator().manual_seed(derive_seed(self.seed, self.name, "batch", step))
        return mixed_indices(self.sizes, self.shares, steps=1, batch=self.batch, generator=generator)[0]


def stage_config(cfg: Config, steps: int, rate: float, *, warmup: float = 0.0) -> FitConfig:
    """The settings of a stage whose rows are whole batches. Arithmetic is exact: Q-values differ by little."""
    from heedful.fit import FitConfig

    return FitConfig(
        lr=rate,
        batch_size=1,
        max_steps=steps,
        schedule="constant",
        warmup=warmup,
        clip_norm=cfg.clip_norm,
        precision="fp32",
        save_every=cfg.save_every,
        keep=cfg.keep,
        log_every=cfg.log_every,
        quiet=cfg.quiet,
    )


def generator_of_step() -> torch.Generator:
    """A generator that is a function of torch's own state, which `fit` sets for each step."""
    return torch.Generator().manual_seed(int(torch.randint(2**62, ())))


def fresh(cfg: Config, agent: Agent) -> Candidates:
    """Candidates drawn now."""

    def draw(batch: Transitions) -> tuple[Tensor, Tensor]:
        generator = generator_of_step()
        act = agent.policy.act
        now = act(batch.observations, cfg.td_samples, generator=generator)
        return now, act(batch.next_observations, cfg.td_samples, generator=generator)

    return draw


# ---- the critic


def critic_loss(
    cfg: Config, agent: Agent, candidates: Candidates | None = None
) -> Callable[[Transitions], Result]:
    """The critic's loss of a batch, by the method: with what the search would do, or with samples of the policy."""
    critic, how = agent.critic, search_config(cfg, td=True)
    assert critic is not None
    draw = candidates or fresh(cfg, agent)

    def searched(batch: Transitions) -> Result:
        batch = moved(batch, agent.device)
        now, after = (None, None) if critic.config.method == "iql" else draw(batch)
        return searched_loss(critic, batch, now, after, how)

    def sampled(batch: Transitions) -> Result:
        batch = moved(batch, agent.device)
        generator, n = generator_of_step(), critic.config.random_actions
        if critic.config.method == "td":
            after = agent.policy.act(batch.next_observations, 1, generator=generator)
            return critic.loss(batch, next_action=after[:, 0])
        after = agent.policy.act(batch.next_observations, n, generator=generator)
        now = agent.policy.act(batch.observations, n, generator=generator)
        return critic.loss(batch, next_action=after[:, 0], policy_actions=torch.cat([after, now], 1))

    return sampled if agent.method.policy_step == "climb" else searched


# ---- the policy


def distilled_loss(cfg: Config, agent: Agent) -> Callable[[Transitions], Result]:
    """PA-RL: the policy learns actions improved now, the data's own among them."""
    critic, how = agent.critic, search_config(cfg)
    assert critic is not None

    def loss(batch: Transitions) -> Result:
        batch = moved(batch, agent.device)
        generator = generator_of_step()
        found = improve(
            agent.policy, critic, batch.observations, how, generator=generator, data_action=batch.action
        )
        target = found.best() if cfg.target_choice == "argmax" else found.drawn(generator)
        value, metrics = agent.policy.loss(batch.observations, target)
        return value, {**metrics, **found.metrics()}

    return loss


def advantage_weights(cfg: Config, critic: Critic, batch: Transitions, candidates: Tensor | None) -> Tensor:
    """(B,) exp(advantage / temperature), at most `awr_clip`. Peng et al. 2019, eq. 9; Nair et al. 2020.

    The value is IQL's own, or the mean over candidates (B, N, H, A) of the policy (Wang et al. 2020, eq. 4).
    """
    with torch.no_grad():
        features = critic.encode(batch.observations)
        q = critic.score(features, batch.action[:, None])[:, 0]
        if critic.config.method == "iql":
            value = critic.module["value"](features).squeeze(-1)  # type: ignore[index, operator]
        else:
            assert candidates is not None
            value = critic.score(features, candidates).mean(-1)
        return ((q - value) / cfg.awr_temperature).exp().clamp(max=cfg.awr_clip)


def weighted_loss(cfg: Config, agent: Agent) -> Callable[[Transitions], Result]:
    """AWR: cloning, each action weighted by its advantage now."""
    critic = agent.critic
    assert critic is not None

    def loss(batch: Transitions) -> Result:
        batch = moved(batch, agent.device)
        drawn = None
        if critic.config.method != "iql":
            drawn = agent.policy.act(batch.observations, cfg.td_samples, generator=generator_of_step())
        weight = advantage_weights(cfg, critic, batch, drawn)
        value, metrics = agent.policy.loss(batch.observations, batch.action, weight=weight)
        return value, {**metrics, "weight": weight.mean()}

    return loss


def climbing_loss(cfg: Config, agent: Agent) -> Callable[[Transitions], Result]:
    """The policy climbs the critic, through its own sampling: SAC of a Gaussian, diffusion Q-learning of the others.

    SAC (Haarnoja et al. 2018), with the least of all members for calql and their mean for rlpd, as in their code.
    DQL (Wang et al. 2023, eq. 3): cloning plus -Q, divided by its mean size.
    """
    policy, critic, entropy = agent.policy, agent.critic, agent.entropy
    assert isinstance(policy, NetworkPolicy) and critic is not None and entropy is not None
    head: Any = policy.module["head"]  # type: ignore[index]
    numbers = policy.space.numbers
    target = numbers * (cfg.entropy or -1.0)

    def drawn(batch: Transitions) -> tuple[Tensor, Tensor, Tensor]:
        """Features, numbers (B, 1, T) with a gradient, and their Q by member (K, B)."""
        features = policy.module["encoder"](batch.observations)  # type: ignore[index, operator]
        action = head.draw(features, 1, temperature=1.0, generator=generator_of_step())
        with frozen(critic.module):
            q = critic.q(critic.encode(batch.observations), policy.space.from_unit(action))[..., 0]
        return features, action, q

    def sac(batch: Transitions) -> Result:
        batch = moved(batch, agent.device)
        features, action, q = drawn(batch)
        logp = head.log_prob(features, action).sum(-1)[:, 0]
        worth = q.amin(0) if cfg.method == "calql" else q.mean(0)
        coefficient = entropy.log.exp().detach()
        gap = (logp.detach() + target).mean()
        value = (coefficient * logp - worth).mean() - entropy.log * gap
        return value, as_metrics(value=worth, entropy=-logp, coefficient=coefficient)

    def dql(batch: Transitions) -> Result:
        batch = moved(batch, agent.device)
        cloned, metrics = policy.loss(batch.observations, batch.action)
        worth = drawn(batch)[2].mean(0)
        climbed = -worth.mean() / worth.abs().mean().detach().clamp(min=1e-6)
        return cloned + cfg.q_weight * climbed, {**metrics, **as_metrics(value=worth)}

    return sac if cfg.policy == "gaussian" else dql


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Inside, what is computed gives the module's parameters no gradient."""
    held = [p for p in module.parameters() if p.requires_grad]
    for p in held:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in held:
            p.requires_grad_(True)
