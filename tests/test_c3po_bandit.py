"""The bandit of C3PO's appendix C: the real DPO loss reaches the closed form, and only the right one."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from heedful import losses
from heedful.data.scopes import Sizes
from heedful.errors import HeedfulError
from heedful.papers import c3po, c3po_arms, c3po_bandit, scratch
from heedful.papers.c3po_bandit import (
    ACTIONS,
    BETAS,
    BOUND,
    MINUS,
    PLUS,
    bandit_claims,
    closed_form,
    draw_pairs,
    learn,
    reward_error,
    total_variation,
)
from heedful.papers.seeds import over_seeds, student_t
from heedful.run import open_run

WRONG = 0.05


@pytest.fixture(scope="module")
def counts() -> Any:
    return draw_pairs(0)


@pytest.fixture(scope="module")
def learned(counts: Any) -> dict[float, Any]:
    return {beta: learn(counts, beta) for beta in BETAS}


def test_the_policies_are_those_of_the_paper() -> None:
    assert len(ACTIONS) == 100 and PLUS.sum() == pytest.approx(1) and MINUS.sum() == pytest.approx(1)
    assert ACTIONS[PLUS.argmax()] == 70 and ACTIONS[MINUS.argmax()] == 40
    at = {int(action): i for i, action in enumerate(ACTIONS)}
    assert PLUS[at[70]] / PLUS[at[50]] == pytest.approx(math.exp(400 / 1000))


def test_the_closed_form_is_pi_plus_at_1_and_the_geometric_mean_at_2() -> None:
    assert closed_form(1) == pytest.approx(PLUS)
    middle = np.sqrt(PLUS * MINUS)
    assert closed_form(2) == pytest.approx(middle / middle.sum())
    spread = {beta: float(closed_form(beta) @ ACTIONS) for beta in (0.5, 1.0, 2.0)}
    assert spread[0.5] > spread[1.0] > spread[2.0]
    assert total_variation(closed_form(1e9), MINUS) < 1e-6


def test_preferences_between_samples_are_bradley_terry_with_the_log_ratio() -> None:
    """P(i beats j) among pairs that hold both is sigmoid(r*_i - r*_j): what makes the closed form DPO's optimum."""
    table = np.outer(PLUS, MINUS)
    reward = np.log(PLUS / MINUS)
    share = table / (table + table.T)
    assert share == pytest.approx(1 / (1 + np.exp(reward[None] - reward[:, None])))


def test_counts_are_the_pairs_that_were_drawn() -> None:
    counts = draw_pairs(3, pairs=1_000_000)
    assert counts.sum() == 1_000_000 and counts.shape == (100, 100)
    assert total_variation(counts.sum(1) / 1e6, PLUS) < 0.01, "winners come from pi+"
    assert total_variation(counts.sum(0) / 1e6, MINUS) < 0.01, "losers come from pi-"
    assert (counts == draw_pairs(3, pairs=1_000_000)).all()
    assert (counts != draw_pairs(4, pairs=1_000_000)).any()


@pytest.mark.parametrize("beta", BETAS)
def test_dpo_reaches_the_closed_form_and_the_reward(learned: dict[float, Any], beta: float) -> None:
    assert total_variation(learned[beta], closed_form(beta)) <= BOUND
    # 1e8 pairs leave about 1 / sqrt(16,000) of noise on the rarest action's reward.
    assert reward_error(learned[beta], beta) < 0.04


@pytest.mark.parametrize("beta", BETAS)
def test_another_beta_is_told_apart(learned: dict[float, Any], beta: float) -> None:
    for other in BETAS:
        if other != beta:
            assert total_variation(learned[beta], closed_form(other)) > WRONG
            assert reward_error(learned[beta], other) > WRONG


@pytest.mark.parametrize("reference", [PLUS, np.full(100, 0.01)], ids=["pi+", "uniform"])
def test_another_reference_is_told_apart(counts: Any, reference: Any) -> None:
    assert total_variation(learn(counts, 2.0, reference=reference), closed_form(2)) > WRONG


def test_preferences_the_other_way_round_are_told_apart(counts: Any) -> None:
    assert total_variation(learn(counts.T, 2.0), closed_form(2)) > WRONG


def test_it_is_the_librarys_own_loss_that_is_minimised(monkeypatch: pytest.MonkeyPatch, counts: Any) -> None:
    real = losses.dpo_loss

    def doubled(*tensors: torch.Tensor, beta: float) -> Any:
        return real(*tensors, beta=2 * beta)

    monkeypatch.setattr(losses, "dpo_loss", doubled)
    policy = learn(counts, 1.0)
    assert total_variation(policy, closed_form(1)) > WRONG
    assert total_variation(policy, closed_form(2)) <= BOUND


def test_the_weighted_loss_is_the_loss_on_the_pairs_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """One step on the counts of a few pairs moves the policy as one step on these pairs, one row each, does."""
    counts = draw_pairs(1, pairs=64)
    winners, losers = (torch.tensor(side) for side in np.nonzero(counts))
    times = torch.tensor(counts[np.nonzero(counts)])
    winners, losers = winners.repeat_interleave(times), losers.repeat_interleave(times)
    logits = torch.tensor(np.log(MINUS), dtype=torch.float32, requires_grad=True)
    ref = logits.detach().log_softmax(0)
    logp = logits.log_softmax(0)
    loss, _ = losses.dpo_loss(logp[winners], logp[losers], ref[winners], ref[losers], beta=0.75)
    loss.backward()

    taken = []
    real = torch.optim.Adam.step

    def noted(self: torch.optim.Adam, *a: Any, **k: Any) -> Any:
        taken.append(self.param_groups[0]["params"][0].grad.clone())
        return real(self, *a, **k)

    monkeypatch.setattr(torch.optim.Adam, "step", noted)
    learn(counts, 0.75, steps=1)
    assert logits.grad is not None
    torch.testing.assert_close(taken[0], logits.grad, atol=1e-6, rtol=1e-4)
    assert taken[0].abs().max() > 1e-3


def quick(monkeypatch: pytest.MonkeyPatch, policy: Any = None) -> list[float]:
    """Replace learning by its closed form, or by `policy`; the betas asked for are noted."""
    asked = []

    def instant(counts: Any, beta: float) -> Any:
        asked.append(beta)
        return closed_form(beta) if policy is None else policy

    monkeypatch.setattr(c3po_bandit, "learn", instant)
    return asked


def test_claims_table_and_plot_say_what_was_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    quick(monkeypatch)
    claims, table, plot = bandit_claims([0, 1, 2])
    assert [f"beta {beta:g}:" in claim.claim for beta, claim in zip(BETAS, claims, strict=True)] == [True] * 5
    assert all(claim.holds is True and claim.measured == 0 for claim in claims)
    assert [row[0] for row in table.rows] == list(BETAS)
    lines = {series.name: series.y for series in plot.series}
    assert lines["learned, beta 1"] == pytest.approx(lines["pi+"])
    assert lines["pi- (reference)"] == MINUS.tolist()

    quick(monkeypatch, policy=PLUS)
    claims, table, _ = bandit_claims([0, 1])
    assert [claim.holds for claim in claims] == [beta == 1 for beta in BETAS]
    assert table.rows[BETAS.index(2.0)][1] == pytest.approx(total_variation(PLUS, closed_form(2)))


def test_one_bad_seed_is_enough_for_a_claim_to_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = 0.98 * closed_form(1) + 0.02 * MINUS
    off = total_variation(bad, closed_form(1))
    policies = iter([*[closed_form(1)] * 12, bad])
    monkeypatch.setattr(c3po_bandit, "BETAS", (1.0,))
    monkeypatch.setattr(c3po_bandit, "learn", lambda counts, beta: next(policies))
    (claim,), _, _ = bandit_claims(range(13))
    assert claim.measured == pytest.approx(off / 13) and claim.holds is False
    assert claim.interval is not None and claim.interval[1] < BOUND < off, "the mean alone would let it pass"


def test_a_seed_that_is_done_is_not_learned_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = quick(monkeypatch)
    with open_run(tmp_path / "run", {}, seed=0) as run:
        first = bandit_claims([0], run)
        assert asked == list(BETAS)
        more = bandit_claims([0, 1], run)
        assert asked == [*BETAS, *BETAS], "only the new seed"
    with open_run(tmp_path / "run", {}, seed=0) as run:
        assert bandit_claims([0], run)[0] == first[0] and bandit_claims([0, 1], run)[0] == more[0]
    assert len(asked) == 2 * len(BETAS)


def test_the_paper_has_the_bandit_and_leaves_the_rest_open(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    quick(monkeypatch)
    few = replace(c3po_arms.SIZES["smoke"], scope=Sizes(12, 2, 4, 4, 4), max_new_tokens=16, epochs=1.0)
    monkeypatch.setitem(c3po_arms.SIZES, "smoke", few)
    monkeypatch.setattr(scratch, "scratch_assistant", partial(scratch.scratch_assistant, steps=120))
    with open_run(tmp_path / "run", {}, seed=0) as run:
        learned = c3po_arms.run_arms("smoke", [0], run, rounds=[("c3po",)])
        for method in c3po_arms.METHODS:  # each with options that go together
            assert c3po_arms.config("sign-off", method, 0, "smoke", run, 1e-3).method in (method, "c3po")
        results = c3po.run("smoke", [0], run, until=0.0)  # too late for any other arm
    assert results.title == c3po.TITLE
    assert set(learned) == {("sign-off", "c3po", 0)} and len(results.tables[1].rows) == 1
    bandit = [claim for claim in results.claims if claim.claim.startswith("Bandit")]
    assert len(bandit) == len(BETAS) and all(claim.holds for claim in bandit)
    for claim in results.claims[len(BETAS) :]:
        assert claim.paper and (claim.holds is None) == (claim.measured is None)


def test_intervals_over_seeds_are_students() -> None:
    mean, interval = over_seeds([1.0, 2.0, 3.0])
    assert mean == 2 and interval == pytest.approx((2 - 4.30265 / math.sqrt(3), 2 + 4.30265 / math.sqrt(3)))
    assert over_seeds([5.0]) == (5.0, None)
    # Printed tables of Student's t, 97.5%.
    assert [student_t(n) for n in (1, 10, 11, 30, 1000)] == pytest.approx(
        [12.706, 2.228, 2.201, 2.042, 1.962], abs=1e-3
    )
    with pytest.raises(HeedfulError, match="no seeds"):
        over_seeds([])
