"""The value head, what PPO learns from, best-of-N with a negative gradient: against computations by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import tiny
import torch

from heedful import losses
from heedful.errors import HeedfulError
from heedful.feedback import Feedback, Samples, ranked
from heedful.policies.actor_critic import next_kl, ppo_targets, score_and_value, token_values, value_head
from heedful.policies.language import LanguagePolicy
from heedful.policies.packing import Group
from heedful.run import open_run

NAN = float("nan")


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> LanguagePolicy:
    return LanguagePolicy.load(str(tiny.save(tmp_path_factory.mktemp("m") / "start")), precision="fp32")


GROUPS = [Group([5, 6, 7], [[8, 9], [10, 11, 12]]), Group([13, 14], [[15]])]


def test_a_value_is_the_head_on_the_state_before_its_token(policy: LanguagePolicy) -> None:
    head = value_head(policy)
    _, value, mask = score_and_value(policy, head, GROUPS)
    assert value.shape == (3, 3) and mask.sum(-1).tolist() == [2, 3, 1] and not value.any()
    with torch.no_grad():
        head.weight.copy_(torch.randn(head.weight.shape, generator=torch.Generator().manual_seed(0)))
        head.bias.fill_(0.5)
        logp, value, mask = score_and_value(policy, head, GROUPS)
        for row, (prompt, completion) in enumerate([(g.prompt, c) for g in GROUPS for c in g.completions]):
            ids = torch.tensor([[*prompt, *completion]], device=policy.device)
            states = policy.decoder(input_ids=ids).last_hidden_state[0]
            before = states[len(prompt) - 1 : -1]
            torch.testing.assert_close(value[row, : len(completion)], head(before)[:, 0], atol=1e-4, rtol=0)
        torch.testing.assert_close(logp, policy.logp_groups(GROUPS)[0], atol=1e-4, rtol=0)


def test_values_are_made_once(policy: LanguagePolicy, tmp_path: Path) -> None:
    head = value_head(policy)
    with open_run(tmp_path, {}, seed=0) as run:
        first = token_values(policy, head, GROUPS, run, "values.json")
        head.bias.data.fill_(1.0)
        assert token_values(policy, head, GROUPS, run, "values.json") == first
        assert [[len(c) for c in g] for g in first] == [[2, 3], [1]]


def test_an_architecture_without_hidden_states_at_hand_is_refused(policy: LanguagePolicy) -> None:
    policy.shares_prefix = False
    try:
        with pytest.raises(HeedfulError, match="--value-coef 0"):
            value_head(policy)
    finally:
        policy.shares_prefix = True


def test_targets_of_ppo_by_hand() -> None:
    old, ref, value = [[[-1.0, -2.0], [-0.5]]], [[[-1.5, -1.0], [-0.5]]], [[[0.2, 0.4], [0.1]]]
    made = ppo_targets(old, ref, value, [[1.0, -1.0]], kl=0.1, discount=0.9, lam=0.8)
    # rewards: -0.1 * (old - ref), the score on the last token
    r0, r1, r2 = -0.1 * 0.5, -0.1 * -1.0 + 1.0, -1.0
    last = r1 - 0.4
    first = r0 + 0.9 * 0.4 - 0.2 + 0.9 * 0.8 * last
    alone = r2 - 0.1
    assert made[0]["target"][0] == pytest.approx([first + 0.2, last + 0.4])
    assert made[0]["target"][1] == pytest.approx([r2])
    raw = [first, last, alone]
    mean = sum(raw) / 3
    spread = math.sqrt(sum((x - mean) ** 2 for x in raw) / 3)
    assert made[0]["advantage"][0] + made[0]["advantage"][1] == pytest.approx(
        [(x - mean) / spread for x in raw], abs=1e-5
    )


def test_no_opinion_is_no_score_at_the_end() -> None:
    with_none = ppo_targets(
        [[[-1.0]], [[-1.0]]], [[[-1.0]], [[-1.0]]], [[[0.0]], [[0.0]]], [[NAN], [1.0]], kl=0.0
    )
    assert with_none[0]["target"] == [[0.0]] and with_none[1]["target"] == [[1.0]]


@pytest.mark.parametrize(
    ("seen", "wanted"), [(6.0, 0.1), (6.6, 0.1 * (1 + 0.1 * 0.05)), (60.0, 0.1 * 1.01), (0.0, 0.1 * 0.99)]
)
def test_the_coefficient_moves_towards_the_target(seen: float, wanted: float) -> None:
    assert next_kl(0.1, seen, 500, target=6.0, horizon=10_000) == pytest.approx(wanted)
    assert next_kl(0.1, seen, 500, target=0.0) == 0.1


# ---- best of N with a negative gradient

BEST = torch.tensor([-2.0, -3.0])
LOSERS = torch.tensor([[-1.0, -4.0], [-5.0, NAN]])
REAL = torch.tensor([[1, 1], [1, 0]])


@pytest.mark.parametrize(
    ("negative", "held"), [("worst", [-4.0, -5.0]), ("mean", [-2.5, -5.0]), ("sum", [-5.0, -5.0])]
)
def test_losers_are_held_down(negative: str, held: list[float]) -> None:
    loss, metrics = losses.best_of_n_loss(BEST, LOSERS, REAL, negative=negative, weight=0.5, floor=0.0)  # type: ignore[arg-type]
    assert float(loss) == pytest.approx(sum(0.5 * h - b for h, b in zip(held, [-2.0, -3.0], strict=True)) / 2)
    assert float(metrics["nll"]) == 2.5 and float(metrics["negative"]) == pytest.approx(sum(held) / 2)


def test_forms_and_the_floor() -> None:
    ref = torch.tensor([[-1.5, -4.5], [-5.5, 0.0]])
    loss, _ = losses.best_of_n_loss(
        BEST, LOSERS, REAL, negative="sum", form="ratio", weight=1.0, floor=0.0, ref_losers=ref
    )
    assert float(loss) == pytest.approx((0.5 + 0.5 + 2.0 + 0.5 + 3.0) / 2)
    loss, _ = losses.best_of_n_loss(BEST, LOSERS, REAL, form="unlikelihood", weight=1.0, floor=0.0)
    wanted = (-math.log1p(-math.exp(-4.0)) + 2.0 - math.log1p(-math.exp(-5.0)) + 3.0) / 2
    assert float(loss) == pytest.approx(wanted, abs=1e-5)
    # a tenth of the best's probability is exp(-2.3) of it: -4 is below -2 - 2.3? no; -5 below -3 - 2.3? no
    _, metrics = losses.best_of_n_loss(BEST, LOSERS, REAL, negative="sum", floor=0.1)
    assert float(metrics["let_go"]) == 0
    _, metrics = losses.best_of_n_loss(BEST, LOSERS, REAL, negative="sum", floor=0.5)
    assert float(metrics["let_go"]) == pytest.approx(2 / 3)


def test_the_gradient_raises_the_best_and_lowers_the_losers() -> None:
    best, losers = BEST.clone().requires_grad_(), torch.nan_to_num(LOSERS).requires_grad_()
    for form in ("logp", "unlikelihood"):
        loss, _ = losses.best_of_n_loss(best, losers, REAL, negative="sum", form=form, floor=0.0)  # type: ignore[arg-type]
        up, down = torch.autograd.grad(loss, [best, losers])
        assert (up < 0).all() and (down[REAL.bool()] > 0).all() and down[1, 1] == 0
    with pytest.raises(ValueError, match="ref_losers"):
        losses.best_of_n_loss(BEST, LOSERS, REAL, form="ratio")
    with pytest.raises(ValueError, match="floor"):
        losses.best_of_n_loss(BEST, LOSERS, REAL, floor=1.0)


def test_ranked_puts_the_best_first_and_leaves_ties_out() -> None:
    samples = Samples(["p", "q", "r"], list("abcdefghi"), 3)
    score = torch.tensor([[0.0, 2.0, 1.0], [1.0, 1.0, 1.0], [NAN, NAN, 3.0]])
    rows, counts = ranked(samples, Feedback(score))
    assert [(row["output"], row["score"]) for row in rows] == [("b", 2.0), ("c", 1.0), ("a", 0.0)]
    assert counts == {"rows": 3, "ties": 1, "no_opinion": 2, "too_few": 1}
