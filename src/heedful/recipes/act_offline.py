"""The phases of `heedful act` that need no environment: cloning, and learning from offline data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from heedful.data.transitions import TransitionTable
from heedful.fit import Chain, fit
from heedful.judges.action_search import search
from heedful.judges.critic import Transitions
from heedful.losses import Result
from heedful.policies.actions.cache import CandidateCache
from heedful.recipes.act_agent import Agent, moved, search_config
from heedful.recipes.act_eval import Measured
from heedful.recipes.act_steps import (
    Batches,
    advantage_weights,
    climbing_loss,
    critic_loss,
    stage_config,
)
from heedful.recipes.act_world import World
from heedful.run import Run

if TYPE_CHECKING:
    from heedful.recipes.act import Config

PART = 256
"""Transitions whose targets are made together."""


def clone(cfg: Config, world: World, agent: Agent, run: Run) -> None:
    """Imitate the data, all of it alike."""
    table, policy = world.offline, agent.policy
    if table is None or not clones(cfg, world, agent):
        return

    def loss(batch: Transitions) -> Result:
        batch = moved(batch, agent.device)
        return policy.loss(batch.observations, batch.action)

    fit(
        "clone",
        loss,
        policy.module,
        Batches([len(table)], [1.0], cfg.clone_steps, cfg.batch_size, run.seed, "clone"),
        stage_config(cfg, cfg.clone_steps, cfg.learning_rate, warmup=cfg.warmup),
        run,
        collate=lambda rows: table.batch(rows[0]),
        after_step=policy.after_step,
        state=policy.state(),
    )


def clones(cfg: Config, world: World, agent: Agent) -> bool:
    """Whether the run has a phase of cloning."""
    return agent.method.clones and cfg.clone_steps > 0 and world.offline is not None


def learn(cfg: Config, world: World, agent: Agent, run: Run, measured: Measured) -> None:
    """The critic learns from the data, and the policy from the critic, by the method."""
    method, table = agent.method, world.offline
    if agent.critic is None or table is None or not method.offline or not cfg.critic_steps:
        return
    if method.policy_step == "climb":
        _together(cfg, table, agent, run)
        measured.policy("offline")
        return
    cache = CandidateCache(agent.policy, table.observe, cfg.samples, seed=run.seed, name="offline candidates")
    rounds = cfg.rounds if method.policy_step != "none" and cfg.distill_steps else 1
    for r in range(rounds):
        told = f" {r + 1}" if rounds > 1 else ""
        _critic(cfg, table, agent, cache, r, rounds, run)
        if method.acts == "search":
            measured.search(f"critic's choice{told}")
        if method.policy_step != "none" and cfg.distill_steps:
            _policy(cfg, table, agent, cache, r, rounds, run)
            measured.policy(f"offline{told}")
    if method.acts == "search" and method.policy_step != "none" and cfg.distill_steps:
        measured.search("offline, critic's choice")


def share_of(steps: int, r: int, rounds: int) -> int:
    """How many of all steps round r has; the first ones have what is left over. At least 1."""
    return max(1, steps // rounds + (r < steps % rounds))


def _critic(
    cfg: Config, table: TransitionTable, agent: Agent, cache: CandidateCache, r: int, rounds: int, run: Run
) -> None:
    critic = agent.critic
    assert critic is not None

    def candidates(batch: Transitions) -> tuple[Tensor, Tensor]:
        """Of both states at once: the weights of the policy are looked at at each call."""
        assert batch.index is not None and batch.next_index is not None
        drawn = cache(torch.cat([batch.index, batch.next_index]), table.states)[:, : cfg.td_samples]
        now, after = drawn.chunk(2)
        return now, after

    steps = share_of(cfg.critic_steps, r, rounds)
    fit(
        f"offline/critic-{r}",
        critic_loss(cfg, agent, candidates),
        critic.module,
        Batches([len(table)], [1.0], steps, cfg.batch_size, run.seed, f"offline/critic-{r}"),
        stage_config(cfg, steps, cfg.critic_rate),
        run,
        collate=lambda rows: table.batch(rows[0]),
        after_step=critic.after_step,
        state=critic.state(),
        chain=Chain(f"offline/critic-{r - 1}" if r else "", r, rounds),
    )


def _policy(
    cfg: Config, table: TransitionTable, agent: Agent, cache: CandidateCache, r: int, rounds: int, run: Run
) -> None:
    """What the policy is to learn is made once, for all transitions: neither policy nor critic moves meanwhile."""
    policy = agent.policy
    distills = agent.method.policy_step == "distill"
    made = run.once(f"offline/targets-{r}.safetensors", lambda: _targets(cfg, table, agent, cache, r, run))[
        "target" if distills else "weight"
    ].to(agent.device)

    def collate(rows: list[Any]) -> tuple[Transitions, Tensor]:
        return moved(table.batch(rows[0]), agent.device), made[rows[0].to(agent.device)]

    def loss(rows: tuple[Transitions, Tensor]) -> Result:
        batch, part = rows
        if distills:
            return policy.loss(batch.observations, part)
        return policy.loss(batch.observations, batch.action, weight=part)

    steps = share_of(cfg.distill_steps, r, rounds)
    fit(
        f"offline/policy-{r}",
        loss,
        policy.module,
        Batches([len(table)], [1.0], steps, cfg.batch_size, run.seed, f"offline/policy-{r}"),
        stage_config(cfg, steps, cfg.distill_rate),
        run,
        collate=collate,
        after_step=policy.after_step,
        state=policy.state(),
    )


def _targets(
    cfg: Config, table: TransitionTable, agent: Agent, cache: CandidateCache, r: int, run: Run
) -> dict[str, Tensor]:
    """`target`, improved actions (transitions, H, A), or `weight`, that of each action of the data."""
    critic, how, out = agent.critic, search_config(cfg), []
    assert critic is not None
    for first in range(0, len(table), PART):
        batch = moved(table.batch(torch.arange(first, min(first + PART, len(table)))), agent.device)
        assert batch.index is not None
        needed = agent.method.policy_step == "distill" or critic.config.method != "iql"
        drawn = cache(batch.index, table.states) if needed else None
        if agent.method.policy_step == "weighted":
            out.append(advantage_weights(cfg, critic, batch, drawn))
            continue
        found = search(critic, batch.observations, drawn, how, data_action=batch.action)
        generator = run.generator(f"offline/targets-{r}", first)
        out.append(found.best() if cfg.target_choice == "argmax" else found.drawn(generator))
    return {"target" if agent.method.policy_step == "distill" else "weight": torch.cat(out)}


def _together(cfg: Config, table: TransitionTable, agent: Agent, run: Run) -> None:
    """Critic and policy in one step under one optimiser, neither of which gives the other a gradient (as in FQL)."""
    critic, policy, entropy = agent.critic, agent.policy, agent.entropy
    assert critic is not None and entropy is not None
    module = nn.ModuleDict({"critic": critic.module, "policy": policy.module, "entropy": entropy})
    of_critic, of_policy = critic_loss(cfg, agent), climbing_loss(cfg, agent)

    def loss(batch: Transitions) -> Result:
        first, told = of_critic(batch)
        second, more = of_policy(batch)
        metrics: Mapping[str, Any] = {**told, **{f"policy_{name}": v for name, v in more.items()}}
        return first + second, dict(metrics)

    def groups(whole: nn.Module) -> list[dict[str, Any]]:
        trained = [(name, p) for name, p in whole.named_parameters() if p.requires_grad]
        return [
            {"params": [p for name, p in trained if name.startswith("critic.")], "lr": cfg.critic_rate},
            {"params": [p for name, p in trained if not name.startswith("critic.")], "lr": cfg.distill_rate},
        ]

    def after_step(step: int) -> None:
        critic.after_step(step)
        policy.after_step(step)

    fit(
        "offline/together",
        loss,
        module,
        Batches([len(table)], [1.0], cfg.critic_steps, cfg.batch_size, run.seed, "offline/together"),
        stage_config(cfg, cfg.critic_steps, cfg.critic_rate),
        run,
        collate=lambda rows: table.batch(rows[0]),
        after_step=after_step,
        state={**critic.state(), **policy.state()},
        groups=groups,
    )
