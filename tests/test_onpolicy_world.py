"""The bandit worlds: the published numbers, what scores a token, and that pi_ref is near pi_data."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from heedful.papers.onpolicy_world import (
    ACTIONS,
    REWARDS,
    TOKENS,
    ContextPolicy,
    Policy,
    TokenPolicy,
    World,
    action_rewards,
    data_distribution,
    generator,
    make_world,
    measure,
)
from heedful.run import open_run


@pytest.fixture(scope="module")
def context() -> World:
    return make_world("context", 7)


@pytest.fixture(scope="module")
def tokens() -> World:
    return make_world("tokens", 7)


def vivid() -> TokenPolicy:
    """An untrained transformer whose output depends a lot on what it has read."""
    policy: Any = TokenPolicy(0)
    with torch.no_grad():
        policy.embed.weight.mul_(40)
        policy.place.weight.mul_(40)
        policy.head.weight.mul_(40)
        for block in policy.blocks:
            block.mix.weight.mul_(60)
            block.down.weight.mul_(60)
    return policy.eval()


def exact_bins() -> torch.Tensor:
    """Probabilities of the bins of tanh(Cauchy(-0.7, 0.4)) from its distribution function."""
    edges = torch.linspace(-1, 1, ACTIONS + 1, dtype=torch.float64)
    below = 0.5 + torch.atan((torch.atanh(edges) + 0.7) / 0.4) / math.pi
    return below.diff()


def test_pi_data_is_the_histogram_of_a_squashed_cauchy() -> None:
    exact, drawn = exact_bins(), data_distribution(3).double()
    assert drawn.sum() == pytest.approx(1, abs=1e-6) and drawn.min() > 0
    assert ((drawn - exact).abs() < 5 * (exact / 10_000).sqrt()).all()
    assert int(exact[1:-1].argmax()) + 1 == 16, "the hump's top; the Cauchy's centre lands in bin 19"
    assert int((math.tanh(-0.7) + 1) * 50) == 19 and exact[19] > 0.9 * exact[16]
    assert [round(float(exact[i]), 3) for i in (0, 70, 99)] == [0.078, 0.002, 0.042]
    assert (data_distribution(4) != data_distribution(3)).any()
    assert (data_distribution(3) == data_distribution(3)).all()


def test_rewards_are_bells() -> None:
    for name, (centre, width) in REWARDS.items():
        reward = action_rewards(name)
        assert reward.argmax() == centre and reward.max() == 1
        assert reward[int(centre - width)] == pytest.approx(math.exp(-1))
    assert float(exact_bins() @ action_rewards("optimal").double()) == pytest.approx(0.039, abs=1e-3)
    assert float(exact_bins() @ action_rewards("mode").double()) == pytest.approx(0.374, abs=4e-3)


def test_networks_have_the_published_sizes() -> None:
    def count(policy: Policy) -> int:
        return sum(weight.numel() for weight in policy.parameters())

    mlp = (100 * 50 + 50) + 2 * 50 + (50 * 256 + 256) + (256 * 256 + 256) + (256 * 100 + 100)
    assert count(ContextPolicy(0)) == mlp
    block = 2 * 2 * 48 + (48 * 144 + 144) + (48 * 48 + 48) + (48 * 192 + 192) + (192 * 48 + 48)
    assert count(TokenPolicy(0)) == 100 * 48 + 10 * 48 + 3 * block + 2 * 48 + 48 * 100
    first, second = TokenPolicy(0), TokenPolicy(0)
    assert all((a == b).all() for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert (TokenPolicy(1).embed.weight != first.embed.weight).any()


def test_making_a_policy_leaves_the_global_random_numbers_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    assert [policy(1).tokens for policy in (ContextPolicy, TokenPolicy)] == [1, TOKENS]
    assert (torch.rand(3) == expected).all()


def test_a_token_is_scored_by_what_stands_before_it_and_the_prompt_is_not_scored() -> None:
    policy = vivid()
    prompts = torch.tensor([5, 80])
    outputs = torch.randint(ACTIONS, (2, 3, TOKENS), generator=generator(0, "outputs"))
    logp = policy.logp(prompts, outputs).detach()
    assert logp.shape == (2, 3, TOKENS)
    for b in range(2):
        for n in range(3):
            for t in range(TOKENS):
                read = torch.cat([prompts[b : b + 1], outputs[b, n, :t]])
                following = policy(read[None])[0, -1].detach()
                assert float(following.exp().sum()) == pytest.approx(1, abs=1e-5)
                assert float(logp[b, n, t]) == pytest.approx(float(following[outputs[b, n, t]]), abs=1e-4)


@pytest.mark.parametrize("place", [0, 4, TOKENS - 1])
def test_a_token_moves_its_own_score_and_later_ones_but_not_its_own_distribution(place: int) -> None:
    policy, prompts = vivid(), torch.tensor([5])
    outputs = torch.randint(ACTIONS, (1, 1, TOKENS), generator=generator(1, "outputs"))
    changed = outputs.clone()
    changed[..., place] = (changed[..., place] + 37) % ACTIONS
    before, after = policy.log_probs(prompts, outputs)[0, 0], policy.log_probs(prompts, changed)[0, 0]
    same = (before - after).abs().amax(-1) < 1e-5
    assert same[: place + 1].all() and not same[place + 1 :].any()
    other = policy.log_probs(torch.tensor([6]), outputs)[0, 0]
    assert ((before - other).abs().amax(-1) > 1e-3).all(), "the prompt is read everywhere"


def test_samples_follow_the_distribution_they_are_scored_with() -> None:
    policy, prompts = vivid(), torch.tensor([5, 80])
    with torch.no_grad():
        outputs = policy.sample(prompts, 800, generator=generator(2, "outputs"))
        log_probs = policy.log_probs(prompts, outputs)
    assert outputs.shape == (2, 800, TOKENS)
    top = log_probs.exp().max(-1)
    hit = (outputs == top.indices).float()
    assert top.values.mean() > 0.1, "far from uniform, so that another place's distribution would show"
    error = (hit.mean(1) - top.values.mean(1)).abs()
    assert (error < 5 * (top.values.mean(1) / 800).sqrt()).all()
    again = policy.sample(prompts, 800, generator=generator(2, "outputs"))
    assert (again == outputs).all()


def test_one_action_has_one_way_of_being_scored(context: World) -> None:
    prompts = context.prompts[:4]
    outputs = context.reference.sample(prompts, 6, generator=generator(0, "outputs"))
    assert outputs.shape == (4, 6, 1)
    slow = Policy.logp(context.reference, prompts, outputs)
    torch.testing.assert_close(context.reference.logp(prompts, outputs), slow)


@pytest.mark.parametrize("name", ["context", "tokens"])
def test_pi_ref_is_near_pi_data_and_still(name: str, request: pytest.FixtureRequest) -> None:
    world: World = request.getfixturevalue(name)
    own = world.reference.log_probs(world.test, world.test_outputs)
    log_data = world.pi_data.log()
    assert float((own.exp() * (own - log_data)).sum(-1).mean()) < 2e-3
    assert float((world.pi_data * (log_data - own)).sum(-1).mean()) < 2e-3
    for reward, start in (("optimal", 0.039), ("mode", 0.374)):
        found = measure(world.reference, world, action_rewards(reward), world.reference, 0)
        assert found["reward"] == pytest.approx(start, abs=0.012)
        assert found["kl"] == found["kl_forward"] == found["kl_sampler"] == 0
    again = world.reference.log_probs(world.test, world.test_outputs)
    assert (own == again).all(), "no dropout"
    assert not own.requires_grad and not world.reference.training


def test_measuring_one_action_is_exact(context: World) -> None:
    policy: Any = ContextPolicy(3)
    with torch.no_grad():
        policy.net[-1].bias.copy_(torch.linspace(-1, 1, ACTIONS))
        p = policy(context.test).exp().double()
        q = context.reference(context.test).exp().double()
    found = measure(policy, context, action_rewards("optimal"), ContextPolicy(4), 0)
    assert found["reward"] == pytest.approx(float((p @ action_rewards("optimal").double()).mean()), rel=1e-4)
    assert found["kl"] == pytest.approx(float((p * (p / q).log()).sum(-1).mean()), rel=1e-4)
    assert found["kl_forward"] == pytest.approx(float((q * (q / p).log()).sum(-1).mean()), rel=1e-4)
    assert found["entropy"] == pytest.approx(float(-(p * p.log()).sum(-1).mean()), rel=1e-4)
    r = ContextPolicy(4)(context.test).exp().double().detach()
    assert found["kl_sampler"] == pytest.approx(float((p * (p / r).log()).sum(-1).mean()), rel=1e-4)


def test_measuring_many_tokens_agrees_with_counting(tokens: World) -> None:
    policy = copy.deepcopy(tokens.reference)
    assert isinstance(policy, TokenPolicy)
    with torch.no_grad():
        policy.head.weight[60:].mul_(1.5)
        policy.head.weight[:60].mul_(0.5)
        outputs = policy.sample(tokens.test, 8, generator=generator(5, "counting"))
        gap = (policy.logp(tokens.test, outputs) - tokens.reference.logp(tokens.test, outputs)).sum(-1)
    rewards = action_rewards("optimal")
    found = measure(policy, tokens, rewards, tokens.reference, 1)
    assert found["kl"] > 0.5 and found["kl_forward"] > 0.3
    assert found["kl_sampler"] == pytest.approx(found["kl"])
    assert found["kl"] == pytest.approx(float(gap.mean()), abs=5 * float(gap.std()) / gap.numel() ** 0.5)
    score = rewards[outputs].mean(-1)
    assert found["reward"] == pytest.approx(
        float(score.mean()), abs=5 * float(score.std()) / score.numel() ** 0.5
    )


def test_pi_ref_is_learned_once_and_seeds_share_nothing(context: World, tmp_path: Path) -> None:
    with open_run(tmp_path / "run", {}, seed=0) as run:
        made = make_world("context", 7, run)
        kept = run.path("bandit/context/seed7.safetensors")
        stamp = kept.stat().st_mtime_ns
        read = make_world("context", 7, run)
        assert kept.stat().st_mtime_ns == stamp
    for world in (made, read):
        assert (world.test_log_probs == context.test_log_probs).all()
    other = make_world("context", 8)
    assert (other.prompts[:5] != context.prompts[:5]).all() and (other.pi_data != context.pi_data).any()
    shared = (context.prompts[:, None, 0] == context.test[None, :, 0]).any()
    assert not shared, "test contexts are not among those learned on"
