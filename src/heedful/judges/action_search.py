"""Better actions by asking a critic: sample many, keep the best, climb a little. PA-RL (arXiv 2412.06685), section 4.

Global: rank k actions of the policy by the mean over the critic's members and keep the top m. Local: T steps along the
critic's gradient from each. The best is returned, or one drawn by softmax of its value. Either way the value of what
comes out is at least that of what went in, which nothing but comparing guarantees: a step may overshoot.

Letters: B observations, k candidates each, m kept, H steps of an action chunk, A numbers of an action.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from heedful.errors import HeedfulError
from heedful.judges.critic import Critic, Transitions
from heedful.losses import Result
from heedful.policies.actions import ActionPolicy, Observations, evaluating

CLIMBED_ROWS = 2560
"""Rows, over all members, that are climbed at a time: what the gradient of more needs would leave the cache."""
Score = Callable[[Tensor], Tensor]
"""Actions (B, N, H, A) of the same B observations to values (B, N), with gradients where they are enabled."""


@dataclass(frozen=True)
class SearchConfig:
    """How actions are improved; the defaults are PA-RL's."""

    samples: int = 32
    """k: actions drawn from the policy. 0: none, so that only the data's action is climbed from."""
    keep: int = 10
    """m: how many of them are climbed from."""
    steps: int = 10
    """T: gradient steps on each; 0 ranks alone."""
    step_size: float = 3e-4
    """Of a gradient step, in units of action squared per unit of Q: scale it with the rewards."""
    rule: Literal["best", "reject"] = "best"
    """best: take all steps and give back the best place on the way (as released); reject: a step that does not raise
    the value is not taken, and as the next would be the same, that candidate stays (the paper's Algorithm 1)."""
    over: Literal["mean", "min"] = "mean"
    """What of the members' values is climbed; ranking and choosing go by their mean."""
    target_critic: bool = False
    """Climb the target networks instead."""

    def __post_init__(self) -> None:
        if min(self.samples, self.steps) < 0 or self.keep < 1 or (self.samples and self.keep > self.samples):
            raise HeedfulError(
                f"action search: keep {self.keep} of {self.samples} samples and {self.steps} steps; keep must be at "
                "least 1 and at most the samples, and steps 0 or more"
            )
        if not self.step_size >= 0 or self.rule not in ("best", "reject") or self.over not in ("mean", "min"):
            raise HeedfulError("action search: step_size is 0 or more, rule best or reject, over mean or min")


@dataclass(frozen=True)
class Found:
    """actions (B, m, H, A) after both searches with their values (B, m), and the values (B, m) they began with."""

    actions: Tensor
    value: Tensor
    before: Tensor

    def best(self) -> Tensor:
        """(B, H, A): the action of the highest value."""
        return self._at(self.value.argmax(-1))

    def drawn(self, generator: torch.Generator, temperature: float = 1.0) -> Tensor:
        """(B, H, A): one each by softmax(value / temperature), in raw units of Q as in PA-RL's code."""
        if not temperature > 0:
            raise HeedfulError(f"the temperature of a softmax must be above 0; it is {temperature}")
        share = (self.value / temperature).softmax(-1)
        return self._at(torch.multinomial(share.to(generator.device), 1, generator=generator)[:, 0])

    def _at(self, place: Tensor) -> Tensor:
        return self.actions[torch.arange(len(place)), place.to(self.actions.device)]

    def metrics(self) -> dict[str, Tensor]:
        """Means: value, and gain (how much climbing raised a candidate)."""
        return {"value": self.value.mean(), "gain": (self.value - self.before).mean()}


def search(
    critic: Critic,
    observations: Observations,
    candidates: Tensor | None,
    config: SearchConfig,
    *,
    data_action: Tensor | None = None,
) -> Found:
    """Improve candidates (B, k, H, A), k = config.samples, of B observations by the critic's values.

    data_action (B, H, A): what the data did there; it takes the place of the worst that is kept, as in distillation
    (with a keep of 1 it stands beside that one). With config.samples of 0 it is the only one.
    Raises HeedfulError when candidates are missing, of another number, or a value is not finite.
    """
    with evaluating(critic.module):
        with torch.no_grad():
            features = critic.encode(observations)
            start = _kept(lambda a: critic.score(features, a), candidates, config, data_action)
            climbing = critic.encode(observations, target=True) if config.target_critic else features
        climbed, value, before = _climbed(critic, climbing, start, config)
        if config.over == "min" or config.target_critic:
            # What was climbed is not what is compared by: what is worse by that is not taken.
            with torch.no_grad():
                before, value = critic.score(features, torch.cat([start, climbed], 1)).chunk(2, 1)
            climbed = torch.where((value < before)[..., None, None], start, climbed)
            value = torch.maximum(value, before)
    _finite(value)
    return Found(climbed, value, before)


def improve(
    policy: ActionPolicy,
    critic: Critic,
    observations: Observations,
    config: SearchConfig,
    *,
    generator: torch.Generator,
    data_action: Tensor | None = None,
) -> Found:
    """`search` over fresh samples of the policy: how PA-RL acts, and makes what a policy is distilled from."""
    drawn = policy.act(observations, config.samples, generator=generator) if config.samples else None
    return search(critic, observations, drawn, config, data_action=data_action)


def searched_loss(
    critic: Critic,
    batch: Transitions,
    now: Tensor | None,
    after: Tensor | None,
    config: SearchConfig,
) -> Result:
    """The critic's loss where the policy is the search itself, the argmax of improved candidates: PA-RL's critic step.

    now, after (B, k, H, A): candidates of the policy at s and at s'; iql needs none. The two actions are deterministic,
    so the conservative term evaluates each once and counts it n times.
    """
    if critic.config.method == "iql":
        return critic.loss(batch)
    later = search(critic, batch.next_observations, after, config)
    if critic.config.method == "td":
        return critic.loss(batch, next_action=later.best())
    both = torch.stack([later.best(), search(critic, batch.observations, now, config).best()], 1)
    loss, metrics = critic.loss(
        batch, next_action=both[:, 0], policy_actions=both, copies=critic.config.random_actions
    )
    return loss, {**metrics, "search_gain": later.metrics()["gain"]}


def _climbed(
    critic: Critic, features: Tensor, start: Tensor, config: SearchConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """`climb` by the critic from start (B, m, H, A), on a processor some observations at a time."""
    rows = critic.config.members * start.shape[1]
    part = max(1, CLIMBED_ROWS // rows) if start.device.type == "cpu" else len(start)

    def one(seen: Tensor, begin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        def score(actions: Tensor) -> Tensor:
            return critic.score(seen, actions, over=config.over, target=config.target_critic)

        return climb(score, begin, config, clip=critic.space.clip)

    pieces = [one(*piece) for piece in zip(features.split(part), start.split(part), strict=True)]
    climbed, value, before = (torch.cat(column) for column in zip(*pieces, strict=True))
    return climbed, value, before


def climb(
    score: Score, actions: Tensor, config: SearchConfig, *, clip: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """T gradient steps from each of actions (B, N, H, A): where they lead, the value there and that of the start.

    The first value is never below the second.
    """
    here = best = clip(actions.detach())
    value, slope = _value_and_gradient(score, here, gradient=config.steps > 0)
    top = before = value
    for step in range(config.steps):
        assert slope is not None
        here = clip((best if config.rule == "reject" else here) + config.step_size * slope)
        value, fresh = _value_and_gradient(score, here, gradient=step + 1 < config.steps)
        better = value > top
        best = torch.where(better[..., None, None], here, best)
        top = torch.where(better, value, top)
        if config.rule == "reject" and fresh is not None:
            fresh = torch.where(better[..., None, None], fresh, slope)
        slope = fresh
    return best, top, before


def _value_and_gradient(score: Score, actions: Tensor, *, gradient: bool) -> tuple[Tensor, Tensor | None]:
    with torch.set_grad_enabled(gradient):
        place = actions.detach().requires_grad_(gradient)
        value = score(place)
        if not gradient:
            return value, None
        (slope,) = torch.autograd.grad(value.sum(), place)
    return value.detach(), slope


def _kept(
    score: Score, candidates: Tensor | None, config: SearchConfig, data_action: Tensor | None
) -> Tensor:
    """The best m, highest first, the last one replaced by the data's action where there is one.

    A single one is kept beside it: replaced, nothing of the ranking would be left.
    """
    if config.samples == 0:
        if data_action is None:
            raise HeedfulError("action search without samples needs the data's action to begin from")
        return data_action[:, None]
    if candidates is None or candidates.shape[1] != config.samples:
        found = None if candidates is None else candidates.shape[1]
        raise HeedfulError(
            f"action search: {found} candidates for each observation; {config.samples} are expected"
        )
    value = score(candidates)
    _finite(value)
    order = value.argsort(dim=-1, descending=True, stable=True)[:, : config.keep]
    kept = candidates[torch.arange(len(candidates), device=order.device)[:, None], order]
    if data_action is None:
        return kept
    return torch.cat([kept[:, : max(1, config.keep - 1)], data_action[:, None].to(kept)], 1)


def _finite(value: Tensor) -> None:
    if not value.isfinite().all():
        raise HeedfulError(
            "the critic's value of an action is not finite; lower its learning rate or the rewards' scale"
        )
