"""Win rates, plain and at equal length: known truths, edges, and intervals that cover."""

from __future__ import annotations

import numpy as np
import pytest

from heedful.errors import HeedfulError
from heedful.evals.winrates import Judged, length_controlled, length_controlled_gap, win_share


def drawn(seed: int, level: float, slope: float, shift: float, n: int = 300) -> Judged:
    """Wins by a logistic model of the length difference, whose spread is that which the regression will see."""
    rng = np.random.default_rng(seed)
    longer = rng.normal(shift, 30, (n, 1))
    p = 1 / (1 + np.exp(-(level + slope * np.tanh(longer / longer.std()))))
    return Judged((rng.random((n, 1)) < p).astype(float), longer)


def test_it_finds_the_win_rate_at_equal_length_and_covers_it() -> None:
    truth = 1 / (1 + np.exp(-0.3))
    found = [length_controlled(drawn(seed, 0.3, 1.5, 20), samples=300, seed=seed) for seed in range(40)]
    assert np.mean([i.estimate for i in found]) == pytest.approx(truth, abs=0.02)
    assert sum(i.low <= truth <= i.high for i in found) >= 34
    assert win_share(drawn(0, 0.3, 1.5, 20)).estimate > truth + 0.05  # the plain one pays for length


def test_without_a_length_effect_it_is_the_plain_win_rate() -> None:
    rng = np.random.default_rng(0)
    wins = (rng.random((400, 1)) < 0.7).astype(float)
    judged = Judged(wins, np.full((400, 1), 7.0))
    assert length_controlled(judged, samples=200).estimate == pytest.approx(wins.mean(), abs=1e-3)


def test_a_model_that_wins_by_length_alone_is_at_half() -> None:
    longer = np.random.default_rng(1).normal(0, 10, (200, 1))
    found = length_controlled(Judged((longer > 0).astype(float), longer), samples=300)
    assert found.low < 0.5 < found.high and win_share(Judged((longer > 0).astype(float), longer)).known


def test_wins_of_all_are_no_certainty() -> None:
    judged = Judged(np.ones((10, 2)), np.random.default_rng(0).normal(0, 1, (10, 2)))
    found = length_controlled(judged)
    assert found.estimate == 1 and found.low == pytest.approx(0.025 ** (1 / 10))


def test_answers_of_a_prompt_share_its_weight_and_no_opinion_is_left_out() -> None:
    wins = np.array([[1.0, 1.0], [0.0, np.nan], [np.nan, np.nan], [1.0, 0.0]])
    judged = Judged(wins, np.zeros((4, 2)))
    found = length_controlled(judged, samples=100)
    assert found.estimate == pytest.approx(0.5, abs=1e-3) and (found.n, found.missing) == (3, 1)
    assert win_share(judged).estimate == pytest.approx(0.5)


def test_the_gap_is_paired() -> None:
    a = drawn(3, 0.0, 1.0, 0)
    b = Judged(np.clip(a.wins + 0.1, 0, 1), a.longer)
    gap = length_controlled_gap(a, b, samples=200)
    assert 0.04 < gap.estimate < 0.06 and gap.high - gap.low < 0.03
    same = length_controlled_gap(a, a, samples=50)
    assert (same.estimate, same.low, same.high) == (0, 0, 0)


def test_one_prompt_has_no_interval() -> None:
    assert not length_controlled(Judged(np.array([[0.6]]), np.zeros((1, 1)))).known


@pytest.mark.parametrize(
    ("wins", "longer", "said"),
    [
        (np.array([[1.2]]), np.zeros((1, 1)), "between 0 and 1"),
        (np.array([[1.0]]), np.array([[np.inf]]), "finite"),
        (np.array([1.0]), np.array([1.0]), "prompts, answers per prompt"),
    ],
)
def test_what_is_no_win_is_refused(wins: np.ndarray, longer: np.ndarray, said: str) -> None:
    with pytest.raises(HeedfulError, match=said):
        Judged(wins, longer)


def test_no_opinion_at_all_is_an_error() -> None:
    nothing = Judged(np.full((3, 1), np.nan), np.zeros((3, 1)))
    with pytest.raises(HeedfulError, match="no opinion on any of 3 prompts"):
        length_controlled(nothing)
    with pytest.raises(HeedfulError, match="on both sides"):
        length_controlled_gap(nothing, nothing)
