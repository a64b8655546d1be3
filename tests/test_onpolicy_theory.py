"""Forward and reverse steps on a softmax: their closed forms, and when which one is faster."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from heedful.papers.onpolicy_theory import (
    PAGE,
    TOY,
    Array,
    forward_step,
    gap_moved,
    kl,
    logarithmic_mean,
    moved,
    reverse_cuts_larger,
    reverse_separates_faster,
    reverse_spares_larger,
    reverse_step,
    theory_part,
)

weights = st.lists(st.floats(1e-3, 1.0), min_size=3, max_size=8)
"""Of a distribution, before it is normalised."""


def normal(values: list[float]) -> Array:
    return np.array(values) / np.sum(values)


def lead(p: Array, q: Array) -> float:
    """How much further the reverse step drives actions 0 and 1 apart than the forward one."""
    return float(gap_moved(reverse_step(p, q)) - gap_moved(forward_step(p, q)))


@pytest.mark.parametrize("reverse", [False, True])
def test_steps_are_the_gradients(reverse: bool) -> None:
    rng = np.random.default_rng(0)
    logits = torch.tensor(rng.normal(size=6), requires_grad=True)
    q = torch.tensor(normal(rng.random(6).tolist()))
    p = logits.softmax(0)
    loss = (p * (p / q).log()).sum() if reverse else (q * (q / p).log()).sum()
    (grad,) = torch.autograd.grad(loss, logits)
    step = (reverse_step if reverse else forward_step)(p.detach().numpy(), q.numpy())
    np.testing.assert_allclose(step, -grad.numpy(), atol=1e-12)
    after = moved(p.detach().numpy(), step, 0.3)
    np.testing.assert_allclose(after, (logits - 0.3 * grad).softmax(0).detach().numpy(), atol=1e-12)


@settings(max_examples=300, deadline=None)
@given(weights, weights)
def test_a_level_actions_are_separated_faster_above_the_logarithmic_mean(
    a: list[float], b: list[float]
) -> None:
    size = min(len(a), len(b))
    p, q = a[:size], b[:size]
    p[1] = p[0]
    q[0], q[1] = max(q[:2]), min(q[:2])
    first, second = normal(p), normal(q)
    bound = float(logarithmic_mean(second[0], second[1]))
    assume(second[0] > second[1] * 1.001 and abs(first[0] / bound - 1) > 1e-6)
    said = bool(reverse_separates_faster(first[0], second[0], second[1]))
    assert said == (first[0] > bound) == (lead(first, second) > 0)


@settings(max_examples=300, deadline=None)
@given(weights, weights)
def test_b_and_c_with_one_target_the_larger_action_is_spared_or_cut(a: list[float], b: list[float]) -> None:
    size = min(len(a), len(b))
    p, q = a[:size], b[:size]
    p[0], p[1] = max(p[:2]), min(p[:2])
    q[1] = q[0]
    first, second = normal(p), normal(q)
    assume(first[0] > first[1] * 1.001)
    assert gap_moved(forward_step(first, second)) < 0, "forward always evens them out"
    divergence = kl(first, second)
    spared = bool(reverse_spares_larger(first[0], second[0], divergence))
    cut = bool(reverse_cuts_larger(first[1], second[0], divergence))
    assert not (spared and cut)
    if spared:
        assert lead(first, second) > -1e-12
    if cut:
        assert lead(first, second) < 1e-12


def test_both_ways_round_happen_so_that_neither_is_the_rule() -> None:
    p = normal([0.3, 0.3, 0.4])
    assert lead(p, normal([0.2, 0.1, 0.7])) > 0 > lead(p, normal([0.6, 0.3, 0.1]))
    sharp, flat = normal([0.06, 0.02, 0.92]), normal([0.4, 0.3, 0.3])
    assert lead(sharp, normal([0.3, 0.3, 0.4])) > 0 > lead(flat, normal([0.01, 0.01, 0.98]))


def test_the_logarithmic_mean_lies_between_the_others() -> None:
    assert logarithmic_mean(0.2, 0.2) == 0.2
    assert logarithmic_mean(0.2, 0.1) == pytest.approx(0.1 / np.log(2))
    assert np.sqrt(0.02) < logarithmic_mean(0.2, 0.1) < 0.15


def test_the_toy_gives_the_opposite_of_the_pages_figure() -> None:
    p, q = TOY
    forward, reverse = (moved(p, step(p, q)) for step in (forward_step, reverse_step))
    np.testing.assert_allclose(forward, [0.293, 0.265, 0.178, 0.265], atol=6e-4)
    np.testing.assert_allclose(reverse, [0.331, 0.269, 0.132, 0.269], atol=6e-4)
    assert forward[0] - forward[1] < reverse[0] - reverse[1]
    assert PAGE["forward"][0] - PAGE["forward"][1] > PAGE["reverse"][0] - PAGE["reverse"][1]
    assert reverse_separates_faster(p[0], q[0], q[1]), "condition (a) says so"


def test_the_part_holds_on_random_draws_and_says_how_often_it_applies() -> None:
    part = theory_part(seed=1, draws=5000)
    assert [claim.holds for claim in part.claims] == [True] * 3
    assert all(claim.measured == 1 for claim in part.claims)
    applies = [int(claim.note.split()[2].replace(",", "")) for claim in part.claims]
    assert applies[0] == 5000 and all(300 < count < 5000 for count in applies[1:])
    assert part.tables[0].rows[2][1:] == [0.293, 0.265, 0.178, 0.265]


def test_a_condition_that_is_wrong_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    from heedful.papers import onpolicy_theory

    monkeypatch.setattr(onpolicy_theory, "logarithmic_mean", lambda a, b: (a + b) / 2)
    claims = theory_part(seed=1, draws=5000).claims
    assert [claim.holds for claim in claims] == [False, True, True]
