"""A critic step with action search, and a distillation step, against the same in plain PyTorch (`parl_peer`).

Two settings: `parl` is what PA-RL's release has (k = 32, m = 10, T = 10, ten members, n = 10, networks of 256);
`act` is what `heedful act` does by itself. States of 29 numbers and actions of 8, as in AntMaze.

ours        candidates from the cache of a frozen policy (offline, PA-RL trains the critic alone)
fresh       the same with candidates drawn for each batch, as the peer does: step for step the same losses
peer        see `parl_peer`

A step is the loss, its gradient, the optimiser and the slow weights. The arms take turns within one process, step by
step, because importing torch costs more than most steps; the first round warms up and is not counted. What the cache
costs to fill is added to ours: so many states for each step, 1 of PA-RL (a million of states, a million of steps) and
10 of `act` (30,000 states, 3,000 steps). `--setting parl` times PA-RL's alone, in batches of 256 as theirs; `--count`
is the batch, `--pairs` the rounds. The losses of `fresh` and the peer have to agree, or the benchmark fails.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import Result, alternate, line, main

MODULE = "benchmarks.parl_update"
BATCH, STATE, ACTION, RATE, EMA = 256, 29, 8, 3e-4, 0.005
CLOSE = 1e-3
"""Largest difference of two losses, as a share of the peer's."""


@dataclass(frozen=True)
class Setting:
    """Sizes. search, distil: k, m and T in the critic's step and in distillation."""

    search: tuple[int, int, int]
    distil: tuple[int, int, int]
    members: int
    width: int
    random: int
    policy: tuple[int, int]
    states_per_step: float


SETTINGS = {
    "parl": Setting((32, 10, 10), (32, 10, 10), 10, 256, 10, (256, 3), 1.0),
    "act": Setting((8, 1, 2), (16, 4, 5), 4, 128, 4, (128, 2), 10.0),
}


def world(setting: Setting, batch: int, seed: int = 0) -> dict[str, Any]:
    """Critic, policy and a batch of transitions, all at random."""
    import torch

    from heedful.judges.critic import Critic, CriticConfig, Transitions
    from heedful.policies.actions import ActionSpace
    from heedful.policies.actions.build import Making, build
    from heedful.policies.actions.observe import ObservationEncoder, ObservationSpace

    space, seen = ActionSpace((-1.0,) * ACTION, (1.0,) * ACTION), ObservationSpace({"state": (STATE,)})
    config = CriticConfig(members=setting.members, width=setting.width, random_actions=setting.random)
    critic = Critic(ObservationEncoder(seen), STATE, space, config, seed=seed)
    width, blocks = setting.policy
    head = {"width": width, "blocks": blocks, "dropout": 0.0}
    policy = build(Making("diffusion", seen, space, head=head, ema=EMA), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(2 * batch, STATE, generator=generator)
    action = 2 * torch.rand(batch, 1, ACTION, generator=generator) - 1
    reward = torch.randint(-1, 1, (batch,), generator=generator).float()
    transitions = Transitions(
        observations={"state": states[:batch]},
        action=action,
        reward=reward,
        mask=torch.ones(batch),
        next_observations={"state": states[batch:]},
        mc_return=-30 * torch.rand(batch, generator=generator),
        index=torch.arange(batch),
        next_index=torch.arange(batch, 2 * batch),
    )
    return {"critic": critic, "policy": policy, "states": states, "batch": transitions}


def cpu(call: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of a call, and what it gives."""
    began = time.process_time()
    out = call()
    return time.process_time() - began, out


def learner(module: Any) -> Callable[[Any], float]:
    """Gradient and optimiser, as `fit` has them."""
    import torch

    optimiser = torch.optim.AdamW(module.parameters(), lr=RATE, weight_decay=0.0, fused=True)

    def learn(loss: Any) -> float:
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return float(loss.detach())

    return learn


def run_child(setting: str, pairs: int, batch: int) -> Result:
    """CPU seconds of all arms in `pairs` rounds, and the losses that must agree."""
    import copy

    import torch

    from benchmarks.parl_peer import Peer, Search
    from heedful.judges.action_search import SearchConfig, improve, searched_loss
    from heedful.policies.actions.cache import CandidateCache

    torch.set_num_threads(1)
    sizes = SETTINGS[setting]
    here = world(sizes, batch)
    critic, policy, transitions, states = here["critic"], here["policy"], here["batch"], here["states"]
    cached_critic = copy.deepcopy(critic)
    how, distil = (SearchConfig(k, m, t) for k, m, t in (sizes.search, sizes.distil))
    peer = Peer(critic, policy, RATE, EMA)
    frozen, untrained = copy.deepcopy(policy), copy.deepcopy(critic)
    cache = CandidateCache(frozen, lambda i: {"state": states[i]}, how.samples, seed=0)
    every = torch.arange(2 * batch)
    fill = cpu(lambda: cache(every, 2 * batch))[0] / (2 * batch)
    plain = {
        "observations": states[:batch],
        "next_observations": states[batch:],
        "action": transitions.action[:, 0],
        "reward": transitions.reward,
        "mask": transitions.mask,
        "mc_return": transitions.mc_return,
    }
    learn, learn_cached, learn_policy = (
        learner(m) for m in (critic.module, cached_critic.module, policy.module)
    )

    def cached_step() -> float:
        now, after = (cache(index, 2 * batch) for index in (transitions.index, transitions.next_index))
        loss = learn_cached(searched_loss(cached_critic, transitions, now, after, how)[0])
        cached_critic.after_step(0)
        return loss

    def fresh_step(generator: torch.Generator) -> float:
        now = policy.act(transitions.observations, how.samples, generator=generator)
        after = policy.act(transitions.next_observations, how.samples, generator=generator)
        loss = learn(searched_loss(critic, transitions, now, after, how)[0])
        critic.after_step(0)
        return loss

    def distil_step(generator: torch.Generator) -> float:
        observations = transitions.observations
        found = improve(
            policy, critic, observations, distil, generator=generator, data_action=transitions.action
        )
        loss = learn_policy(policy.loss(observations, found.best())[0])
        policy.after_step(0)
        return loss

    theirs = [Search(s.samples, s.keep, s.steps, s.step_size) for s in (how, distil)]
    arms: dict[str, Callable[[torch.Generator], float]] = {
        "ours": lambda generator: cached_step(),
        "fresh": fresh_step,
        "peer": lambda generator: peer.critic_step(plain, theirs[0], generator),
        "distil": distil_step,
        "peer_distil": lambda generator: peer.distil_step(plain, theirs[1], generator),
    }
    spent: dict[str, list[float]] = {arm: [] for arm in arms}
    losses: dict[str, list[float]] = {arm: [] for arm in arms}
    for i in range(pairs + 1):
        for arm, step in arms.items():
            torch.manual_seed(i)
            seconds, loss = cpu(lambda step=step, i=i: step(torch.Generator().manual_seed(i)))
            losses[arm].append(loss)
            if i:
                spent[arm].append(seconds)
    gaps = {
        name: max(abs(a - b) / abs(b) for a, b in zip(losses[ours], losses[other], strict=True))
        for name, ours, other in (("gap", "fresh", "peer"), ("gap_distil", "distil", "peer_distil"))
    }
    with torch.no_grad():
        ours, before = (
            c.q(plain["observations"], transitions.action[:, None])[..., 0] for c in (critic, untrained)
        )
        other = peer.q(plain["observations"], plain["action"])
    gaps["gap_q"] = float((ours - other).abs().max() / (other - before).abs().max())
    wrong = {name: gap for name, gap in gaps.items() if not gap < CLOSE}
    if wrong:
        raise SystemExit(f"{MODULE}: the losses of ours and the peer differ: {wrong}, {losses}")
    return {**spent, **gaps, "fill": fill}


def run(
    pairs: int, keep: Path | None, count: int, extra: int, settings: Sequence[str] = tuple(SETTINGS)
) -> list[str]:
    """The settings that are asked for, in batches of `count`, and four lines for each."""
    arms = {name: {"setting": name, "pairs": pairs, "batch": count} for name in settings}
    done = alternate(MODULE, arms, 1, keep)
    return [text for name in settings for text in told(name, done[name][0], count)]


def told(name: str, result: Result, batch: int) -> list[str]:
    """The lines of one setting."""
    sizes, pairs = SETTINGS[name], len(result["ours"])
    ms = {
        arm: 1e3 * statistics.median(result[arm])
        for arm in ("ours", "fresh", "peer", "distil", "peer_distil")
    }
    share = 1e3 * sizes.states_per_step * result["fill"]
    ours = ms["ours"] + share
    k, m, t = sizes.search
    about = (
        f"batch {batch}, k {k}, m {m}, T {t}, {sizes.members} members of {sizes.width} x 3, n {sizes.random}; "
        f"1 thread, medians of {pairs} alternating rounds; losses of {pairs + 1} steps from the same draws agree to "
        f"{max(result['gap'], result['gap_distil']):.0e}, Q after them to {result['gap_q']:.0e} of what it moved"
    )
    kd, md, td = sizes.distil
    cached = f"candidates of a frozen policy from the cache, {share:.1f} ms of it for filling it"
    distilled = f"distillation with k {kd}, m {md}, T {td}, candidates drawn anew by both"
    label = f"parl_update_{name}"
    rows = (
        (
            label,
            ours + ms["distil"],
            ms["peer"] + ms["peer_distil"],
            f"both steps; goal 10; {cached}; {distilled}",
        ),
        (f"{label}_critic", ours, ms["peer"], f"the critic's step; {cached}"),
        (f"{label}_fresh", ms["fresh"], ms["peer"], "the critic's step, candidates drawn anew by both"),
        (f"{label}_distil", ms["distil"], ms["peer_distil"], distilled),
    )
    return [line(title, a, b, "CPU ms a step", f"{note}; {about}") for title, a, b, note in rows]


if __name__ == "__main__":
    main(MODULE, run_child, run, count=BATCH, settings=tuple(SETTINGS))
