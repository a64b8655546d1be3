"""Critics: an ensemble that is its members, targets and conservative terms against plain code, returns, Polyak."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from heedful.errors import HeedfulError
from heedful.feedback import Samples
from heedful.fit import FitConfig, fit
from heedful.judges import critic_nets
from heedful.judges.critic import Critic, CriticConfig, Transitions, rlpd
from heedful.judges.critic_nets import QEnsemble
from heedful.judges.critic_returns import monte_carlo_returns, success_masks
from heedful.losses import hl_gauss_loss, hl_gauss_value
from heedful.policies.actions import ActionSpace, rows
from heedful.policies.actions.observe import ObservationEncoder, ObservationSpace
from heedful.run import open_run

SPACE = ActionSpace((-1.0, -2.0), (1.0, 4.0), horizon=2)
STATE = ObservationSpace({"state": (3,)})
SMALL = CriticConfig(members=4, width=16, depth=2, random_actions=5, alpha=0.5, gamma=0.9)
quick = settings(max_examples=15, deadline=None)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def critic(config: CriticConfig = SMALL, seed: int = 0, space: ActionSpace = SPACE) -> Critic:
    encoder = ObservationEncoder(STATE)
    made = Critic(encoder, encoder.features, space, config, seed=seed)
    with torch.no_grad():
        made.module["q"].last.weight.mul_(100)  # type: ignore[index, union-attr] # begins near zero
    made.slow.copy()
    return made


def batch(b: int = 6, seed: int = 1) -> Transitions:
    g = generator(seed)
    return Transitions(
        {"state": torch.randn(b, 3, generator=g)},
        SPACE.uniform(b, generator=g),
        torch.randn(b, generator=g),
        (torch.rand(b, generator=g) < 0.7).float(),
        {"state": torch.randn(b, 3, generator=g)},
        torch.randn(b, generator=g),
    )


# ---- the ensemble


def member(net: QEnsemble, k: int, features: Tensor, actions: Tensor) -> Tensor:
    """One member as plain layers over features and action side by side, action by action."""
    out = []
    for n in range(actions.shape[1]):
        action = actions[:, n]
        weight = torch.cat([net.of_features.weight[k], net.of_action[0].weight[k]])  # type: ignore[index]
        x = torch.cat([features, action], -1) @ weight + net.of_features.bias[k]  # type: ignore[index]
        for i in range(len(net.inner) + 1):
            if i:
                x = x @ net.inner[i - 1].weight[k] + net.inner[i - 1].bias[k]  # type: ignore[index]
                if len(net.of_action) > 1:
                    x = x + action @ net.of_action[i].weight[k]  # type: ignore[index]
            if len(net.norms):
                norm: Any = net.norms[i]
                x = F.layer_norm(x, x.shape[-1:], norm.scale[k, 0], norm.shift[k, 0])
            x = net.activate(x)
        out.append(x @ net.last.weight[k] + net.last.bias[k])  # type: ignore[index]
    return torch.stack(out, 1)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"layer_norm": False, "activation": "relu"},
        {"action_every_layer": True, "depth": 3},
        {"outputs": 7, "depth": 1},
        {"members": 1},
    ],
)
def test_the_ensemble_is_its_members(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net = QEnsemble(5, 3, **({"members": 4, "width": 8, "depth": 2} | options))
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.3 * torch.randn_like(p))
    features, actions = torch.randn(3, 5), torch.rand(3, 6, 3) * 2 - 1
    values = net(features, actions)
    assert values.shape == (net.members, 3, 6, options.get("outputs", 1))
    wanted = torch.stack([member(net, k, features, actions) for k in range(net.members)])
    torch.testing.assert_close(values, wanted, rtol=1e-4, atol=1e-5)
    # large batches are computed in parts, and have the same gradient
    slopes = torch.autograd.grad(values.square().sum(), list(net.parameters()))
    with monkeypatch.context() as patched:
        patched.setattr(critic_nets, "CACHED_ROWS", 13)
        parts = net(features, actions)
        torch.testing.assert_close(parts, wanted, rtol=1e-4, atol=1e-5)
        for some, whole in zip(
            torch.autograd.grad(parts.square().sum(), list(net.parameters())), slopes, strict=True
        ):
            torch.testing.assert_close(some, whole, rtol=1e-3, atol=1e-4)
        with torch.no_grad():
            torch.testing.assert_close(net(features, actions), wanted, rtol=1e-4, atol=1e-5)
    # some of them, some twice, are those same members; a gradient reaches no other
    some = torch.tensor([net.members - 1, 0, 0])
    part = net(features, actions, some)
    torch.testing.assert_close(part, wanted[some], rtol=1e-4, atol=1e-5)
    part.sum().backward()
    reached = net.last.weight.grad.abs().sum((1, 2)) > 0  # type: ignore[union-attr]
    assert reached.nonzero()[:, 0].tolist() == sorted({0, net.members - 1})


def test_members_begin_apart_and_near_zero() -> None:
    torch.manual_seed(0)
    net = QEnsemble(5, 3, members=4, width=32, depth=2)
    values = net(torch.randn(20, 5), torch.rand(20, 1, 3))[..., 0, 0]
    assert values.abs().max() < 0.1 and (values[0] - values[1]).abs().max() > 1e-4
    weight = net.inner[0].weight[1]  # type: ignore[index]
    torch.testing.assert_close(weight @ weight.T, 2 * torch.eye(32), rtol=1e-4, atol=1e-4)


def test_layer_norm_bounds_what_an_action_far_out_can_be_worth() -> None:
    """Why RLPD has it: without, Q grows with the distance; with, it stays."""
    torch.manual_seed(0)
    far = 1e4 * torch.ones(1, 1, 3)
    sizes = [
        QEnsemble(5, 3, members=1, width=32, layer_norm=n)(torch.zeros(1, 5), far).abs().item()
        for n in (True, False)
    ]
    assert sizes[0] < 1 < sizes[1]


# ---- targets


@pytest.mark.parametrize("distinct", [True, False])
def test_td_targets_are_the_least_of_the_drawn_members_of_the_slow_copy(distinct: bool) -> None:
    made = critic(replace(SMALL, method="td", target_members=2, distinct_members=distinct))
    data, action = batch(), SPACE.uniform(6, generator=generator(2))
    with torch.no_grad():
        for p in made.module.parameters():
            p.add_(1.0)  # the one that learns has moved on; the slow copy has not
    with torch.no_grad():
        every = made.q(data.next_observations["state"], action[:, None], target=True)[..., 0]
    torch.manual_seed(3)
    members = made.drawn_members()
    assert members is not None and len(members) == 2
    # a chunk of two steps is discounted twice
    wanted = data.reward + 0.9**2 * data.mask * every[members].amin(0)
    torch.testing.assert_close(made.targets(data, action, members), wanted)
    torch.manual_seed(3)
    loss, metrics = made.loss(data, next_action=action)
    q = made.q(data.observations["state"], data.action[:, None])[..., 0]
    torch.testing.assert_close(loss, (q - wanted).square().mean())
    torch.testing.assert_close(metrics["q_minus_return"], (q.mean(0) - data.mc_return).mean().detach())
    drawn = [made.drawn_members() for _ in range(50)]
    doubles = sum(int(pair[0]) == int(pair[1]) for pair in drawn if pair is not None)
    assert doubles == 0 if distinct else doubles > 3


def test_where_the_task_ended_nothing_follows() -> None:
    made = critic(replace(SMALL, method="td", target_members=0))
    data = batch()
    data.mask.zero_()
    assert torch.equal(made.targets(data, SPACE.uniform(6), None), data.reward)


def test_hl_gauss_critic_learns_a_histogram() -> None:
    config = replace(SMALL, method="td", target="hl_gauss", q_min=-5.0, q_max=5.0, bins=21, target_members=0)
    made = critic(config)
    data, action = batch(), SPACE.uniform(6, generator=generator(2))
    outputs = made.module["q"](data.observations["state"], SPACE.to_unit(data.action)[:, None])[:, :, 0]  # type: ignore[index, operator]
    assert outputs.shape == (4, 6, 21)
    values = made.q(data.observations["state"], data.action[:, None])[..., 0]
    torch.testing.assert_close(values, hl_gauss_value(outputs, low=-5.0, high=5.0))
    target = made.targets(data, action, None)
    wanted, _ = hl_gauss_loss(outputs, target, low=-5.0, high=5.0)
    torch.testing.assert_close(made.loss(data, next_action=action)[0], wanted)


# ---- conservative terms


def long_form(
    made: Critic, data: Transitions, policy: Tensor, n: int, members: Tensor, floor: bool
) -> Tensor:
    """Cal-QL as the release computes it: n copies of each policy action, all of them evaluated, the bound on those."""
    random = SPACE.uniform(len(data.reward), n)
    features = made.encode(data.observations)
    copied = policy.repeat_interleave(n, 1)
    q_data = made.q(features, data.action[:, None])[members][..., 0]
    samples = made.q(features, torch.cat([random, copied], 1))[members]
    if floor:
        assert data.mc_return is not None
        samples = torch.cat([samples[..., :n], samples[..., n:].maximum(data.mc_return[:, None])], -1)
    samples = torch.cat([samples, q_data[..., None]], -1) - math.log(3 * n + 1)
    return (samples.logsumexp(-1) - q_data).mean()


@pytest.mark.parametrize("method", ["cql", "calql"])
def test_the_log_n_shortcut_is_exactly_the_long_form(method: Any) -> None:
    made = critic(replace(SMALL, method=method))
    data = batch()
    both = SPACE.uniform(6, 2, generator=generator(4))  # optimised actions of s' and of s
    torch.manual_seed(7)
    loss, metrics = made.loss(data, next_action=both[:, 0], policy_actions=both, copies=5)
    torch.manual_seed(7)
    members = made.drawn_members()
    assert members is not None
    td, _ = critic(replace(SMALL, method="td")).loss(data, next_action=both[:, 0])
    torch.manual_seed(7)
    made.drawn_members()
    wanted = long_form(made, data, both, 5, members, floor=method == "calql")
    torch.testing.assert_close(metrics["gap"], wanted.detach(), rtol=1e-5, atol=1e-5)
    torch.manual_seed(7)
    td, _ = critic(replace(SMALL, method="td")).loss(data, next_action=both[:, 0])
    torch.testing.assert_close(loss, td + 0.5 * wanted, rtol=1e-5, atol=1e-5)
    assert (metrics["floored"] > 0) == (method == "calql")


def test_the_shortcut_has_the_gradient_of_the_long_form() -> None:
    data, both = batch(), SPACE.uniform(6, 2, generator=generator(4))
    grads = []
    for short in (True, False):
        made = critic(replace(SMALL, target_members=0))
        torch.manual_seed(7)
        if short:
            made.loss(data, next_action=both[:, 0], policy_actions=both, copies=5)[0].backward()
        else:
            part = long_form(made, data, both, 5, torch.arange(4), floor=True)
            td, _ = critic(replace(SMALL, method="td", target_members=0)).loss(data, next_action=both[:, 0])
            q = made.q(made.encode(data.observations), data.action[:, None])[..., 0]
            target = made.targets(data, both[:, 0], None)
            ((q - target).square().mean() + 0.5 * part).backward()
            assert td.isfinite()
        grads.append([p.grad.clone() for p in made.module.parameters() if p.grad is not None])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


def test_iql_uses_no_action_but_the_datas() -> None:
    made = critic(replace(SMALL, method="iql", expectile=0.8))
    data = batch()
    loss, metrics = made.loss(data)
    with torch.no_grad():
        value: Any = made.module["value"]  # type: ignore[index]
        after = value(data.next_observations["state"]).squeeze(-1)
        here = value(data.observations["state"]).squeeze(-1)
        slow = made.q(data.observations["state"], data.action[:, None], target=True)[..., 0].amin(0)
        q = made.q(data.observations["state"], data.action[:, None])[..., 0]
    u = slow - here
    wanted = (q - (data.reward + 0.81 * data.mask * after)).square().mean()
    wanted = wanted + (torch.where(u < 0, 0.2, 0.8) * u.square()).mean()
    torch.testing.assert_close(loss.detach(), wanted)
    torch.testing.assert_close(metrics["value"], here.mean())
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in value.parameters())
    assert not any(name.startswith("target/value") for name in made.state())


def test_conservative_critics_lower_what_nobody_did() -> None:
    """Trained on one action for each state, CQL's Q of that action ends above the rest; plain TD's need not."""
    g = generator(3)
    observations = {"state": torch.randn(64, 3, generator=g)}
    done = torch.zeros(64)
    data = Transitions(
        observations, 0.1 * SPACE.uniform(64, generator=g), torch.ones(64), done, observations, torch.ones(64)
    )
    others = SPACE.uniform(64, 20, generator=g)
    gaps = {}
    for method, floor in (("td", None), ("cql", None), ("calql", 1.0)):
        made = critic(replace(SMALL, method=method, alpha=1.0))
        optimizer = torch.optim.Adam(made.module.parameters(), lr=3e-3)
        data.mc_return = torch.full((64,), floor or 0.0)
        for step in range(60):
            torch.manual_seed(step)
            policy = SPACE.uniform(64, 2)
            loss, _ = made.loss(data, next_action=policy[:, 0], policy_actions=policy)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            q = made.score(made.encode(observations), torch.cat([data.action[:, None], others], 1))
        gaps[method] = (q[:, 0] - q[:, 1:].mean(1)).mean().item()
    assert gaps["cql"] > gaps["td"] + 0.5 and gaps["calql"] > gaps["td"]
    assert gaps["calql"] < gaps["cql"]  # what was reached anyway need not be pushed below it


# ---- as a judge, and through fit


def test_a_critic_judges_samples() -> None:
    made = critic()
    inputs = [{"state": torch.randn(3, generator=generator(i))} for i in range(2)]
    actions = SPACE.uniform(2, 3, generator=generator(9))
    feedback = made(Samples(inputs, list(actions.flatten(0, 1)), 3))
    states = torch.stack([x["state"] for x in inputs])
    with torch.no_grad():
        q = made.q(states, actions)
    torch.testing.assert_close(feedback.score, q.mean(0))
    torch.testing.assert_close(made.score(states, actions, over="min"), q.amin(0))


def test_an_observation_is_encoded_once_for_all_its_actions() -> None:
    seen: list[int] = []

    class Counted(ObservationEncoder):
        def forward(self, observations: Any) -> Tensor:
            seen.append(len(observations["state"]))
            return super().forward(observations)

    made = Critic(Counted(STATE), 3, SPACE, replace(SMALL, target_members=0))
    both = SPACE.uniform(6, 2, generator=generator(4))
    made.loss(batch(), next_action=both[:, 0], policy_actions=both, copies=5)
    assert seen == [6, 6]  # s' for the target, s for everything else


def test_a_stopped_critic_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    data = batch(32)
    both = SPACE.uniform(32, 2, generator=generator(4))

    def learn(folder: Path, stops: tuple[int, ...]) -> list[Tensor]:
        for stop in stops:
            made = critic(replace(SMALL, target_rate=0.1))
            with open_run(folder, {}, seed=0) as run:

                def loss(index: list[int], made: Critic = made) -> Any:
                    i = torch.tensor(index)
                    assert data.mc_return is not None
                    part = Transitions(
                        rows(data.observations, i),
                        data.action[i],
                        data.reward[i],
                        data.mask[i],
                        rows(data.next_observations, i),
                        data.mc_return[i],
                    )
                    return made.loss(part, next_action=both[i, 0], policy_actions=both[i], copies=3)

                def after(step: int, made: Critic = made, stop: int = stop) -> None:
                    made.after_step(step)
                    if step == stop:
                        raise KeyboardInterrupt

                how = FitConfig(
                    lr=1e-2, batch_size=8, max_steps=9, save_every=3, quiet=True, precision="fp32"
                )
                try:
                    fit(
                        "critic", loss, made.module, range(32), how, run, after_step=after, state=made.state()
                    )
                except KeyboardInterrupt:
                    continue
                return [*made.module.state_dict().values(), *made.state().values()]
        raise AssertionError("not finished")

    for a, b in zip(learn(tmp_path / "a", (99,)), learn(tmp_path / "b", (4, 8, 99)), strict=True):
        assert torch.equal(a, b)


def test_settings_of_rlpd() -> None:
    config = rlpd(CriticConfig(gamma=0.9, method="calql", target="hl_gauss"))
    assert (config.members, config.target_members, config.distinct_members, config.layer_norm) == (
        10,
        2,
        True,
        True,
    )
    assert (config.method, config.target, config.gamma) == ("td", "mse", 0.9)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: CriticConfig(method="sac"), "method must be"),  # type: ignore[arg-type]
        (
            lambda: CriticConfig(members=2, target_members=3, distinct_members=True),
            "draw more than there are",
        ),
        (lambda: CriticConfig(expectile=1.0, gamma=1.5), "gamma must be from 0 to 1; expectile"),
        (lambda: critic().loss(batch()), "needs the next action"),
        (lambda: critic().loss(batch(), next_action=SPACE.uniform(6)), "needs actions of the policy"),
        (
            lambda: critic().loss(
                replace(batch(), mc_return=None),
                next_action=SPACE.uniform(6),
                policy_actions=SPACE.uniform(6, 1),
            ),
            "compute them, or use cql",
        ),
    ],
)
def test_what_is_refused(call: Any, said: str) -> None:
    with pytest.raises(HeedfulError, match=said):
        call()


# ---- returns


def test_monte_carlo_returns_by_hand() -> None:
    # two episodes: one succeeds at its third step, one runs out of time
    reward = np.array([-1.0, -1.0, 0.0, -1.0, -1.0])
    end = np.array([False, False, True, False, True])
    mask = success_masks(reward, 0.0)
    assert mask.tolist() == [1, 1, 0, 1, 1]
    returns = monte_carlo_returns(reward, mask, end, gamma=0.9, failure=-1.0)
    assert returns.tolist() == pytest.approx([-1.9, -1.0, 0.0, -10.0, -10.0])
    # dense rewards: what was seen until the end
    plain = monte_carlo_returns(reward, mask, end, gamma=0.9)
    assert plain.tolist() == pytest.approx([-1.9, -1.0, 0.0, -1.9, -1.0])


@quick
@given(seed=st.integers(0, 2**31), episodes=st.integers(1, 4), gamma=st.sampled_from([0.0, 0.5, 0.99]))
def test_returns_are_the_discounted_sums(seed: int, episodes: int, gamma: float) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 30, episodes)
    total = int(lengths.sum())
    reward, mask = rng.normal(size=total), (rng.random(total) < 0.9).astype(np.float32)
    end = np.zeros(total, dtype=bool)
    end[lengths.cumsum() - 1] = True
    wanted, after = np.zeros(total), 0.0
    for t in range(total - 1, -1, -1):
        after = reward[t] + gamma * mask[t] * (0.0 if end[t] else after)
        wanted[t] = after
    np.testing.assert_allclose(
        monte_carlo_returns(reward, mask, end, gamma=gamma), wanted, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"reward": np.array([0.0, np.nan])}, "the reward of step 1 is nan"),
        ({"end": np.array([True, False])}, "terminals or timeouts are missing"),
        ({"mask": np.ones(3)}, r"must be \(S,\) each"),
        ({"gamma": 1.0, "failure": -1.0}, "needs a gamma below 1"),
    ],
)
def test_returns_of_damaged_data_are_refused(change: dict[str, Any], said: str) -> None:
    args: dict[str, Any] = {
        "reward": np.zeros(2),
        "mask": np.ones(2),
        "end": np.array([False, True]),
        "gamma": 0.9,
    }
    with pytest.raises(HeedfulError, match=said):
        monte_carlo_returns(**(args | change))


def test_the_critics_module_is_what_fit_trains() -> None:
    made = critic()
    assert isinstance(made.module, nn.Module) and not any(
        p.requires_grad for p in made.slow.module.parameters()
    )
    before = made.module["q"].last.weight.clone()  # type: ignore[index, union-attr]
    with torch.no_grad():
        made.module["q"].last.weight.add_(1.0)  # type: ignore[index, union-attr]
    made.after_step(1)
    slow: Any = made.slow.module["q"]  # type: ignore[index]
    torch.testing.assert_close(slow.last.weight, before + 5e-3)
