"""The phase of `heedful act` in the environment: collect with what acts best, then learn from what was collected.

An epoch is a few episodes, then the policy's steps, then the critic's (PA-RL's order). Both counts are ratios to the
steps of the environment. The replay buffer is on disk; an epoch that a kill interrupted while collecting begins anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from heedful.data.replay import ReplayBuffer
from heedful.data.transitions import JoinedTables, TransitionTable
from heedful.errors import HeedfulError
from heedful.evals.control import MAX_BROKEN, roll_out
from heedful.fit import Chain, fit
from heedful.judges.critic import Transitions
from heedful.losses import Result
from heedful.recipes.act_agent import Agent, collecting
from heedful.recipes.act_eval import Measured
from heedful.recipes.act_steps import (
    Batches,
    climbing_loss,
    critic_loss,
    distilled_loss,
    stage_config,
    weighted_loss,
)
from heedful.recipes.act_world import World
from heedful.run import Run

if TYPE_CHECKING:
    from heedful.recipes.act import Config

BROKEN_AT_FIRST = 2
"""Episodes that may break before their share counts."""
ENDLESS = 1_000_000_000
"""A chain's length: how many epochs there will be is not known, and the learning rate is constant."""

History = list[dict[str, Any]]


def learn(cfg: Config, world: World, agent: Agent, run: Run, measured: Measured) -> History:
    """All epochs; what each collected. Ends with a measurement."""
    if not cfg.online_episodes or world.make is None:
        return []
    buffer = ReplayBuffer(run.path("online/replay"), world.shapes, len(world.space.low))
    learners = _learners(cfg, agent)
    before = dict.fromkeys(learners, "")
    # A policy that climbs learns from batches like the critic's, as SAC, RLPD, Cal-QL and DQL do.
    even = agent.method.policy_step != "climb"
    history: History = []
    tried = kept = looked = 0
    epoch = 0
    while tried < cfg.online_episodes:
        wanted = max(cfg.warmup_episodes, cfg.epoch_episodes) if not epoch else cfg.epoch_episodes
        wanted = min(wanted, cfg.online_episodes - tried)
        told = _collect(cfg, world, agent, buffer, history, tried, kept, wanted, run)
        tried, kept = tried + wanted, told["episodes"]
        history.append({**told, "tried": tried})
        if told["steps"]:
            tables = [TransitionTable(buffer, world.space, world.rewards, episodes=kept)]
            tables = [*([world.offline] if world.offline else []), *tables]
            for name, learner in learners.items():
                steps = round(told["steps"] * (cfg.policy_utd if name == "policy" else cfg.critic_utd))
                if steps:
                    stage = f"online/{epoch:05d}/{name}"
                    over_all = even and name == "policy"
                    _fit(cfg, stage, before[name], epoch, learner, tables, steps, over_all, run)
                    before[name] = stage
        if cfg.eval_every and tried // cfg.eval_every > looked and tried < cfg.online_episodes:
            looked = tried // cfg.eval_every
            measured.as_it_acts(f"after {tried} episodes")
        epoch += 1
    if agent.method.acts == "search":
        measured.policy("online, the policy alone")
    measured.as_it_acts("online")
    return history


class _Learner:
    """A loss with the module it trains and what follows each step."""

    def __init__(
        self,
        loss: Callable[[Transitions], Result],
        module: nn.Module,
        follows: Any,
        rate: float,
    ) -> None:
        self.loss, self.module, self.rate = loss, module, rate
        self.after_step: Callable[[int], None] = follows.after_step
        self.state: Mapping[str, Tensor] = follows.state()


def _learners(cfg: Config, agent: Agent) -> dict[str, _Learner]:
    """The policy's first, as in PA-RL's release; optimisers begin anew, as there."""
    critic, policy, step = agent.critic, agent.policy, agent.method.policy_step
    assert critic is not None
    out: dict[str, _Learner] = {}
    module: nn.Module = policy.module
    if step == "climb":
        assert agent.entropy is not None
        module = nn.ModuleDict({"policy": policy.module, "entropy": agent.entropy})
        out["policy"] = _Learner(climbing_loss(cfg, agent), module, policy, cfg.distill_rate)
    elif step == "distill":
        out["policy"] = _Learner(distilled_loss(cfg, agent), module, policy, cfg.distill_rate)
    elif step == "weighted":
        out["policy"] = _Learner(weighted_loss(cfg, agent), module, policy, cfg.distill_rate)
    out["critic"] = _Learner(critic_loss(cfg, agent), critic.module, critic, cfg.critic_rate)
    return out


def _fit(
    cfg: Config,
    stage: str,
    before: str,
    epoch: int,
    learner: _Learner,
    tables: Sequence[TransitionTable],
    steps: int,
    over_all: bool,
    run: Run,
) -> None:
    """over_all: batches are even over all transitions (as PA-RL distills and AWR clones), else --mixing is the offline
    share."""
    joined = JoinedTables(tables)
    sizes = [len(table) for table in tables]
    even = [size / max(1, sum(sizes)) for size in sizes]
    mixed = even if over_all or len(tables) == 1 else [cfg.mixing, 1 - cfg.mixing]
    fit(
        stage,
        learner.loss,
        learner.module,
        Batches(sizes, mixed, steps, cfg.batch_size, run.seed, stage),
        stage_config(cfg, steps, learner.rate),
        run,
        collate=lambda rows: joined.batch(rows[0]),
        after_step=learner.after_step,
        state=learner.state,
        chain=Chain(before, epoch, ENDLESS),
    )


def _collect(
    cfg: Config,
    world: World,
    agent: Agent,
    buffer: ReplayBuffer,
    history: History,
    first: int,
    kept: int,
    wanted: int,
    run: Run,
) -> dict[str, Any]:
    """Collect episodes numbered from `first`, once; the buffer then has `kept` and those that did not break."""
    assert world.make is not None
    make, epoch = world.make, len(history)

    def collected() -> dict[str, Any]:
        buffer.truncate(kept)
        found = roll_out(
            make,
            collecting(cfg, agent, run.generator("online/act", epoch)),
            episodes=wanted,
            seed=run.seed,
            name="online",
            first=first,
            max_steps=world.max_steps,
            parallel=min(cfg.parallel, wanted),
            task=world.task,
        )
        if found.broken:
            # Before anything is written: once the environment is corrected, this epoch is collected anew.
            _enough([*history, {"broken": found.broken}], first + wanted)
        for episode in found.episodes:
            buffer.add(episode)
        said = [world.solved(e.reward, e.info.get("success")) for e in found.episodes]
        return {
            "episodes": buffer.episodes,
            "steps": sum(e.steps for e in found.episodes),
            "returns": found.returns(),
            "success": [s for s in said if s is not None],
            "broken": found.broken,
        }

    return run.once(f"online/{epoch:05d}/collected.json", collected)


def _enough(history: History, tried: int) -> None:
    """Stop where too many episodes break: each epoch alone has too few to tell."""
    broken = [text for told in history for text in told["broken"]]
    if len(broken) > max(BROKEN_AT_FIRST, MAX_BROKEN * tried):
        shown = "\n  ".join(broken[:5])
        raise HeedfulError(
            f"{len(broken)} of {tried} episodes collected online broke; the first ones:\n  {shown}\n"
            "What was learned until here is kept: correct the environment, and the same command goes on"
        )
