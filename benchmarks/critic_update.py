"""A step of Cal-QL's critic against CORL's published one in its own manner (`calql_peer`), at CORL's sizes.

Two critics of 256 x 2 with ReLU and no layer norm, a tanh-Gaussian policy of 256 x 3, n = 10 actions at s, at s' and at
random, batch 256, states of 29 numbers and actions of 8. d3rlpy 2.8.1 pins gymnasium 1.0.0 and gym, and always weighs
by importance, which PA-RL's release and ours do not: its losses could not be compared.

critic_update        actions of the Gaussian policy: both evaluate 3 n + 1 of them
critic_update_parl   the policy is the action search, whose n draws are the same: ours evaluates each action once and
                     counts it n times, the peer evaluates n copies, as PA-RL's release does on top of such a step

A step is the draws, the loss, its gradient, the optimiser and the slow weights. Arms take turns within one process,
step by step; the first rounds check that from the same actions the losses agree (the peer's is a sum over two critics
and leaves a constant out), or the benchmark fails, and warm up.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.harness import Result, alternate, line, main
from benchmarks.parl_update import ACTION, CLOSE, STATE, cpu, learner

MODULE = "benchmarks.critic_update"
BATCH, N, WIDTH, DEPTH, CHECKED = 256, 10, 256, 2, 3
ALPHA, GAMMA, TARGET, RATE = 5.0, 0.99, 5e-3, 3e-4


def world() -> dict[str, Any]:
    """Our critic and policy, the peer with the same critics, and a batch."""
    import torch

    from benchmarks.calql_peer import CalQL, Rates, TanhGaussian, Twin
    from heedful.judges.critic import Critic, CriticConfig, Transitions
    from heedful.policies.actions import ActionSpace
    from heedful.policies.actions.build import Making, build
    from heedful.policies.actions.observe import ObservationEncoder, ObservationSpace

    space, seen = ActionSpace((-1.0,) * ACTION, (1.0,) * ACTION), ObservationSpace({"state": (STATE,)})
    config = CriticConfig(
        members=2,
        target_members=0,
        width=WIDTH,
        depth=DEPTH,
        layer_norm=False,
        activation="relu",
        alpha=ALPHA,
        random_actions=N,
        gamma=GAMMA,
        target_rate=TARGET,
    )
    critic = Critic(ObservationEncoder(seen), STATE, space, config)
    policy = build(Making("gaussian", seen, space, head={"hidden": (WIDTH,) * 3, "tanh": True}))
    ensemble: Any = critic.module["q"]  # type: ignore[index]
    twins = [Twin(STATE + ACTION, WIDTH, DEPTH) for _ in range(2)]
    with torch.no_grad():
        for k, twin in enumerate(twins):
            linear: list[Any] = [part for part in twin.network if isinstance(part, torch.nn.Linear)]
            linear[0].weight.copy_(
                torch.cat([ensemble.of_features.weight[k], ensemble.of_action[0].weight[k]]).T
            )
            linear[0].bias.copy_(ensemble.of_features.bias[k, 0])
            for to, of in zip(linear[1:], [*ensemble.inner, ensemble.last], strict=True):
                to.weight.copy_(of.weight[k].T)
                to.bias.copy_(of.bias[k, 0])
    peer = CalQL(twins, TanhGaussian(STATE, ACTION, WIDTH, 3), Rates(GAMMA, ALPHA, N, RATE, TARGET))
    generator = torch.Generator().manual_seed(0)
    batch = Transitions(
        observations={"state": torch.randn(BATCH, STATE, generator=generator)},
        action=2 * torch.rand(BATCH, 1, ACTION, generator=generator) - 1,
        reward=torch.randint(-1, 1, (BATCH,), generator=generator).float(),
        mask=torch.ones(BATCH),
        next_observations={"state": torch.randn(BATCH, STATE, generator=generator)},
        mc_return=-30 * torch.rand(BATCH, generator=generator),
    )
    plain = {
        "observations": batch.observations["state"],
        "next_observations": batch.next_observations["state"],
        "action": batch.action[:, 0],
        "reward": batch.reward,
        "mask": batch.mask,
        "mc_return": batch.mc_return,
    }
    return {"critic": critic, "policy": policy, "peer": peer, "batch": batch, "plain": plain}


def run_child(pairs: int) -> Result:
    """CPU seconds of all arms in `pairs` rounds."""
    import torch

    torch.set_num_threads(1)
    here = world()
    critic, policy, peer, batch, plain = (here[k] for k in ("critic", "policy", "peer", "batch", "plain"))
    learn = learner(critic.module)

    def draws(generator: torch.Generator) -> tuple[Any, Any]:
        after = policy.act(batch.next_observations, N, generator=generator)
        return policy.act(batch.observations, N, generator=generator), after

    def step(now: Any, after: Any, copies: int) -> float:
        both = torch.cat([after, now], 1)
        loss = learn(critic.loss(batch, next_action=after[:, 0], policy_actions=both, copies=copies)[0])
        critic.after_step(0)
        return loss

    def repeated(now: Any, after: Any) -> tuple[Any, Any, Any]:
        return now.expand(-1, N, -1, -1)[:, :, 0], after.expand(-1, N, -1, -1)[:, :, 0], after[:, 0, 0]

    gap = 0.0
    for i in range(2 * CHECKED):
        now, after = draws(torch.Generator().manual_seed(i))
        copies = N if i % 2 else 1
        now, after = (x[:, : N // copies] for x in (now, after))
        torch.manual_seed(i)
        ours = 2 * (step(now, after, copies) + ALPHA * math.log(3 * N + 1))
        torch.manual_seed(i)
        theirs = peer.step(plain, repeated(now, after))[0]
        gap = max(gap, abs(ours - theirs) / abs(theirs))
    if not gap < CLOSE:
        raise SystemExit(f"{MODULE}: the losses of ours and the peer differ by {gap}")
    now, after = draws(torch.Generator().manual_seed(0))
    one = now[:, :1], after[:, :1]
    arms: dict[str, Callable[[int], Any]] = {
        "ours": lambda i: step(*draws(torch.Generator().manual_seed(i)), 1),
        "peer": lambda i: peer.step(plain),
        "ours_parl": lambda i: step(*one, N),
        "peer_parl": lambda i: peer.step(plain, repeated(*one)),
    }
    spent: dict[str, list[float]] = {arm: [] for arm in arms}
    for i in range(pairs):
        for arm, call in arms.items():
            spent[arm].append(cpu(lambda call=call, i=i: call(i))[0])
    return {**spent, "gap": gap}


def run(pairs: int, keep: Path | None, count: int, extra: int) -> list[str]:
    """All rounds in one process, and the two lines."""
    return told(alternate(MODULE, {"all": {"pairs": 3 * pairs}}, 1, keep)["all"][0])


def told(result: Result) -> list[str]:
    """The two lines."""
    ms = {arm: 1e3 * statistics.median(result[arm]) for arm in ("ours", "peer", "ours_parl", "peer_parl")}
    about = (
        f"batch {BATCH}, 2 critics of {WIDTH} x {DEPTH}, n {N}, 1 thread, medians of {len(result['ours'])} alternating "
        f"rounds; goal 2; losses of {2 * CHECKED} steps from the same actions agree to {result['gap']:.0e}; "
        "CORL's step in our words"
    )
    gaussian = f"a Gaussian policy, drawn from by both; {about}"
    searched = f"the two actions of a deterministic policy, given to both; {about}"
    return [
        line("critic_update", ms["ours"], ms["peer"], "CPU ms a step", gaussian),
        line("critic_update_parl", ms["ours_parl"], ms["peer_parl"], "CPU ms a step", searched),
    ]


if __name__ == "__main__":
    main(MODULE, run_child, run)
