"""The driver of the bandit worlds: its batches and pairs, and each method's gradient worked out by hand."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from heedful.feedback import Feedback, Samples, pairs
from heedful.papers import onpolicy_driver
from heedful.papers.onpolicy_driver import (
    OBJECTIVES,
    OFFLINE,
    ONLINE,
    Batch,
    Knobs,
    Running,
    Setting,
    draw,
    learn,
    pair_indices,
    parts,
)
from heedful.papers.onpolicy_world import (
    ACTIONS,
    ContextPolicy,
    Policy,
    World,
    action_rewards,
    generator,
    make_world,
)

SMALL = Setting("context", "optimal", prompts=6, samples=4, rounds=3, reuse=2, every=2)
SHARP = {"rwr": 0.1, "dpo": 0.1, "ipo": 10.0}


@pytest.fixture(scope="module")
def world() -> World:
    return make_world("context", 11)


# ---- samples, steps and pairs


def test_all_methods_begin_with_the_same_samples_of_pi_ref(world: World) -> None:
    rewards = action_rewards("optimal")
    first = draw(SMALL, world, world.reference, rewards, Running(), 0)
    again = draw(replace(SMALL, gap=0.2, reuse=9), world, world.reference, rewards, Running(), 0)
    assert (first.outputs == again.outputs).all() and first.outputs.shape == (6, 4, 1)
    assert (first.old == first.reference).all()
    assert (first.score == rewards[first.outputs[..., 0]]).all()
    later = draw(SMALL, world, world.reference, rewards, Running(), 1)
    assert (later.outputs != first.outputs).any()


def test_a_round_of_some_prompts_takes_others_each_time(world: World) -> None:
    setting = replace(SMALL, prompts=50, batch=5)
    rewards = action_rewards("optimal")
    rounds = [draw(setting, world, world.reference, rewards, Running(), i).prompts for i in range(2)]
    for prompts in rounds:
        places = (prompts[:, None] == world.prompts[None, :50]).all(-1).nonzero()[:, 1].tolist()
        assert len(set(places)) == 5
    assert (rounds[0] != rounds[1]).any()


def test_each_pass_takes_every_prompt_once_in_its_own_order(world: World) -> None:
    setting = replace(SMALL, prompts=7, minibatch=3, reuse=4)
    chunks = list(parts(setting, world, 0))
    assert [len(chunk) for chunk in chunks] == [3, 3, 1] * 4
    assert setting.steps == 3 * len(chunks)
    passes = [torch.cat(chunks[i : i + 3]).tolist() for i in range(0, 12, 3)]
    assert all(sorted(order) == list(range(7)) for order in passes) and passes[0] != passes[1]


def test_the_parts_of_a_batch_belong_together(world: World) -> None:
    batch = draw(SMALL, world, world.reference, action_rewards("optimal"), Running(), 0)
    some = batch.part(torch.tensor([4, 1]))
    for name, value in vars(batch).items():
        assert (getattr(some, name) == value[[4, 1]]).all()


def test_scores_are_normalised_by_all_that_were_seen() -> None:
    running = Running()
    running.normalise(torch.tensor([[1.0, 3.0]]))
    got = running.normalise(torch.tensor([[5.0, 7.0]]))
    assert got.flatten().tolist() == pytest.approx([1 / 5**0.5, 3 / 5**0.5])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from([0.0, 0.1, 0.3, 0.5, 1.0, 1e-11]), min_size=4, max_size=4),
        min_size=1,
        max_size=3,
    ),
    st.sampled_from([0.0, 0.2]),
)
def test_pairs_are_those_of_the_selector(scores: list[list[float]], gap: float) -> None:
    score = torch.tensor(scores)
    winners, losers = pair_indices(score, gap)
    outputs = [f"{i}" for i in range(score.numel())]
    rows = pairs(Samples(list(range(len(scores))), outputs, 4), Feedback(score), how="all", margin=gap).rows
    got = {(str(w), str(lost)) for w, lost in zip(winners.tolist(), losers.tolist(), strict=True)}
    assert got == {(row["chosen"], row["rejected"]) for row in rows} and len(winners) == len(rows)


def test_rewards_that_differ_by_rounding_are_a_tie() -> None:
    winners, _ = pair_indices(torch.tensor([[0.3, 0.1 + 0.2 + 1e-8, 0.4]]), 0.0)
    assert winners.tolist() == [2, 2]


def test_of_too_many_pairs_some_are_drawn_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onpolicy_driver, "MOST_PAIRS", 3000)
    score = torch.rand(3, 60, generator=generator(0))
    winners, losers = pair_indices(score, 0.3, generator(1))
    flat = score.flatten()
    assert (winners // 60 == losers // 60).all() and (flat[winners] - flat[losers] >= 0.3).all()
    share = sum(abs(a - b) >= 0.3 for row in score.tolist() for a, b in combinations(row, 2)) / (3 * 59 * 30)
    assert len(winners) / 3000 == pytest.approx(share, abs=0.05)
    other, _ = pair_indices(score, 0.3, generator(2))
    assert len(other) != len(winners) or (other != winners).any()


# ---- gradients


class Logits(Policy):
    """One prompt whose logits are the parameters, so that a gradient is one on them."""

    tokens = 1

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def log_probs(self, prompts: Tensor, outputs: Tensor) -> Tensor:
        return self.logits.log_softmax(-1).expand(*outputs.shape, ACTIONS)

    def sample(self, prompts: Tensor, n: int, *, generator: torch.Generator) -> Tensor:
        raise AssertionError("a step draws nothing")


def gradient(method: str, *, ahead: float = 0.0, gap: float = 0.0) -> tuple[Tensor, Batch, Tensor]:
    """(gradient on the logits, the batch, probabilities); `ahead` is how far pi is from pi_ref on the best action."""
    reference = torch.linspace(-1, 1, ACTIONS)
    policy = Logits(reference + ahead * (torch.arange(ACTIONS) == 70))
    outputs = torch.tensor([3, 70, 64, 20])[None, :, None]
    score = action_rewards("optimal")[outputs[..., 0]]
    old = policy.logp(torch.zeros(1), outputs).detach()
    ref = reference.log_softmax(-1)[outputs]
    batch = Batch(torch.zeros(1), outputs, score, Running().normalise(score), ref, old)
    knobs = Knobs(0.1, SHARP.get(method, 0.0))
    loss = OBJECTIVES[method](policy, batch, replace(SMALL, gap=gap), knobs, generator(0))
    assert loss is not None
    loss.backward()
    assert policy.logits.grad is not None
    return policy.logits.grad, batch, policy.logits.detach().softmax(-1)


def unit(action: int) -> Tensor:
    return (torch.arange(ACTIONS) == action).float()


RANKED = [70, 64, 20, 3]
"""The outputs by their reward."""


def test_best_of_n_imitates_the_best_alone() -> None:
    got, _, p = gradient("bon")
    torch.testing.assert_close(got, p - unit(70))


def test_pref_ft_imitates_the_winner_of_each_pair() -> None:
    got, _, p = gradient("pref_ft")
    torch.testing.assert_close(got, p - (3 * unit(70) + 2 * unit(64) + unit(20)) / 6)
    got, _, p = gradient("pref_ft", gap=0.2)
    torch.testing.assert_close(got, p - (3 * unit(70) + 2 * unit(64)) / 5)


def test_rwr_weighs_by_the_reward_without_a_clamp() -> None:
    got, batch, p = gradient("rwr")
    weight = (batch.score[0] / 0.1).exp()
    assert weight.max() > 10_000
    units = torch.stack([unit(int(a)) for a in batch.outputs.flatten()])
    torch.testing.assert_close(got, (weight[:, None] * (p - units)).mean(0))


@pytest.mark.parametrize("method", ["reinforce", "ppo"])
def test_policy_gradients_push_by_the_advantage(method: str) -> None:
    got, batch, p = gradient(method)
    gain = (batch.score[0] - batch.score.mean()) / batch.score.std(correction=0)
    units = torch.stack([unit(int(a)) for a in batch.outputs.flatten()])
    torch.testing.assert_close(got, (gain[:, None] * (p - units)).mean(0), rtol=1e-4, atol=1e-6)
    assert got[70] < 0 < got[3], "up for the best, and down for the worst: a negative gradient"


def test_dpo_and_ipo_raise_the_winner_against_the_loser() -> None:
    apart = torch.stack([unit(won) - unit(lost) for won, lost in combinations(RANKED, 2)]).mean(0)
    torch.testing.assert_close(gradient("dpo")[0], -0.1 / 2 * apart)
    torch.testing.assert_close(gradient("ipo")[0], -2 * 10.0 * apart)


def test_ipo_is_content_at_its_margin_in_nats() -> None:
    got, _, _ = gradient("ipo", ahead=10.0)
    among_others = (
        torch.stack([unit(won) - unit(lost) for won, lost in combinations(RANKED[1:], 2)]).sum(0) / 6
    )
    torch.testing.assert_close(got, -2 * 10.0 * among_others, rtol=1e-4, atol=1e-4)
    past, _, _ = gradient("ipo", ahead=15.0)
    assert past[70] > 0, "beyond the margin it is pulled back"


# ---- whole runs


@pytest.mark.parametrize("method", sorted({*OFFLINE, *ONLINE}))
def test_every_method_learns_what_pays(method: str, world: World) -> None:
    setting = Setting("context", "mode", prompts=10, rounds=2, reuse=15, every=15)
    course: dict[str, Any] = learn(setting, method, Knobs(0.001, SHARP.get(method, 0.0)), world)
    assert course["step"] == [0, 15, 30] and course["samples"] == [0, 100, 200]
    rewards = course["reward"]
    assert rewards[0] == pytest.approx(0.374, abs=0.02) and rewards[-1] > rewards[0] + 0.1
    assert course["kl"][0] == 0 < course["kl"][-1] and course["kl_forward"][-1] > 0
    assert course["entropy"][-1] < course["entropy"][0]
    assert course["h_w"][-1] > course["h_l"][-1]
    assert course["margin"][-1] == pytest.approx(course["h_w"][-1] - course["h_l"][-1], abs=1e-3)


def test_a_run_is_a_function_of_its_seed_and_leaves_pi_ref_alone(world: World) -> None:
    before = copy.deepcopy(world.reference.state_dict())
    torch.manual_seed(1)
    first = learn(SMALL, "ipo", Knobs(0.003, 10.0), world)
    torch.manual_seed(2)
    assert learn(SMALL, "ipo", Knobs(0.003, 10.0), world) == first
    assert all((before[name] == value).all() for name, value in world.reference.state_dict().items())


def test_with_one_step_per_sample_ppo_is_reinforce(world: World) -> None:
    setting = replace(SMALL, reuse=1, rounds=4)
    first, second = (learn(setting, method, Knobs(0.003), world) for method in ("ppo", "reinforce"))
    assert first["reward"] == pytest.approx(second["reward"], rel=1e-4)
    more = replace(setting, reuse=6)
    first, second = (learn(more, method, Knobs(0.03), world) for method in ("ppo", "reinforce"))
    assert first["reward"][-1] != pytest.approx(second["reward"][-1], rel=1e-3), "the clip binds"


def test_offline_samples_stay_those_of_pi_ref(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    real = ContextPolicy.sample

    def noted(self: ContextPolicy, prompts: Tensor, n: int, *, generator: torch.Generator) -> Tensor:
        drawn.append((n, len(prompts)))
        return real(self, prompts, n, generator=generator)

    monkeypatch.setattr(ContextPolicy, "sample", noted)
    offline = learn(replace(SMALL, rounds=1, reuse=6), "bon", Knobs(0.01), world)
    assert drawn.count((4, 6)) == 1 and offline["samples"][-1] == 24
    drawn.clear()
    learn(SMALL, "bon", Knobs(0.01), world)
    assert drawn.count((4, 6)) == 3


@pytest.mark.parametrize("method", ["pref_ft", "dpo", "ipo"])
def test_pairs_too_close_leave_the_policy_where_it_is(method: str, world: World) -> None:
    course = learn(replace(SMALL, gap=2.0), method, Knobs(0.01, SHARP.get(method, 0.0)), world)
    assert course["kl"][-1] == 0 and course["h_w"] == [None] * len(course["step"])


def test_a_setting_says_all_its_numbers_in_its_name() -> None:
    fields = {"prompts": 9, "samples": 5, "rounds": 8, "reuse": 3, "batch": 2, "minibatch": 1, "gap": 0.5}
    changed = {replace(SMALL, **{name: value}).name for name, value in {**fields, "every": 7}.items()}
    changed |= {replace(SMALL, world="tokens").name, replace(SMALL, reward="mode").name}
    assert len(changed | {SMALL.name}) == len(fields) + 4
    assert Knobs(0.003).name == "0.003" and Knobs(0.003, 0.1).name == "0.003-0.1"
