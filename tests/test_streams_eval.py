"""Accuracy by token budget, errors of each kind with intervals, alignment of searches, against hand-made values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from heedful.data.countdown.game import STRATEGIES, rating
from heedful.data.countdown.instances import SIDES, Instances, draw
from heedful.data.countdown.replay import replay
from heedful.data.countdown.streams import difficulties, stream
from heedful.errors import HeedfulError
from heedful.evals.streams import (
    accuracy_by_budget,
    correctness_alignment,
    error_counts,
    state_alignment,
    strategies,
)


def problems(count: int, seed: int = 3) -> list[tuple[int, list[int]]]:
    instances = Instances(seed=seed, numbers=(3, 3), inputs=(1, 20), targets=(10, 40), cap=400)
    rows = draw(instances, SIDES[0], 0, count).problems.tolist()
    return [(row[0], row[2 : 2 + row[1]]) for row in rows]


def test_accuracy_counts_streams_that_solve_within_the_budget() -> None:
    solved, tokens = [True, False, True, True], [5, 2, 9, 20]
    assert accuracy_by_budget(solved, tokens, [4, 20, 5, 9, 9]) == [(4, 0.0), (5, 0.25), (9, 0.5), (20, 0.75)]
    curve = accuracy_by_budget([solved, solved], [tokens, tokens], points=4)
    assert curve == [(5, 0.25), (10, 0.5), (15, 0.5), (20, 0.75)]
    assert accuracy_by_budget([True], [1]) == [(1, 1.0)]
    with pytest.raises(HeedfulError, match=r"solved is \(2,\) and tokens \(3,\)"):
        accuracy_by_budget([True, False], [1, 2, 3])
    with pytest.raises(HeedfulError, match="one of each"):
        accuracy_by_budget([], [])


def test_errors_are_means_with_the_intervals_of_the_paper() -> None:
    found = error_counts([{"arithmetic": n, "other": 2} for n in (0, 1, 5)])
    half = 1.96 * math.sqrt((4 + 1 + 9) / 2) / math.sqrt(3)
    assert (found["arithmetic"].estimate, found["arithmetic"].n) == (2.0, 3)
    assert found["arithmetic"].bounds() == pytest.approx([2 - half, 2 + half])
    assert found["other"].bounds() == [2.0, 2.0]
    alone = error_counts([{"arithmetic": 4}])["arithmetic"]
    assert alone.estimate == 4 and alone.bounds() is None
    for rows, said in (([], "no streams"), ([{"other": 1}, {"arithmetic": 1}], "different kinds")):
        with pytest.raises(HeedfulError, match=said):
            error_counts(rows)


def test_errors_are_counted_from_what_the_replay_finds() -> None:
    wrong = "T 24 N 4 9 3 E 9 - 3 = 7 4 7 S 4 7 E 4 * 7 = 24 24 G"
    right = "T 24 N 4 9 3 E 9 - 3 = 6 4 6 S 4 6 E 4 * 6 = 24 24 G"
    found = error_counts([replay(text).census() for text in (wrong, right)])
    assert found["arithmetic"].estimate == 1.0 and found["formatting"].estimate == 0.0


def test_alignment_in_correctness_is_phi() -> None:
    a, b = [1, 1, 0, 0, 1, 0, 1, 1], [1, 0, 0, 0, 1, 1, 1, 0]
    found = correctness_alignment([a, b, [1 - x for x in a], [1] * 8])
    both, only_a, only_b, none = 3, 2, 1, 2
    phi = (both * none - only_a * only_b) / math.sqrt(5 * 3 * 4 * 4)
    assert found[0, 1] == pytest.approx(phi) == pytest.approx(np.corrcoef(a, b)[0, 1])
    assert (
        found[0, 2] == pytest.approx(-1)
        and found[1, 2] == pytest.approx(-phi)
        and found[0, 0] == pytest.approx(1)
    )
    assert np.isnan(found[3]).all() and np.isnan(found[:, 3]).all(), "who solves all of them tells nothing"
    with pytest.raises(HeedfulError, match=r"\(searches, problems\)"):
        correctness_alignment([1, 0])


def test_alignment_in_states_is_a_mean_over_problems() -> None:
    one = [{(1, 2), (3,)}, {(5,)}, set()]
    two = [{(1, 2), (4,), (6,), (7,)}, {(5,)}, set()]
    found = state_alignment([one, two, [set(), {(9,)}, set()]])
    assert found[0, 1] == found[1, 0] == pytest.approx((1 / 4 + 1) / 2), (
        "the third problem has no states at all"
    )
    assert found[0, 0] == found[1, 1] == 1 and found[0, 2] == 0
    assert np.isnan(state_alignment([[set()], [set()]])).all()
    with pytest.raises(HeedfulError, match=r"\[1, 0\] problems"):
        state_alignment([[{(1,)}], []])


def test_the_twelve_strategies_as_searches() -> None:
    asked = problems(25)
    found = strategies(asked, cap=400)
    assert found.names == list(STRATEGIES) and found.solved.shape == (12, 25)
    known = np.array([one.explored for one in difficulties(asked, cap=400)]).T
    rated = np.array([[n > 0 and rating(n, 3) > 0 for n in row] for row in known.tolist()])
    assert (found.solved == rated).all() and 0.2 < found.solved.mean() < 0.95
    for s in (0, 4, 11):
        texts = [stream(target, numbers, STRATEGIES[s], 0, cap=400).text for target, numbers in asked]
        assert found.states[s] == [replay(text).states() for text in texts]
    alike = state_alignment([*found.states, found.states[0]])
    assert alike[12, 0] == 1 and (alike[12, 1:12] < 1).all() and (alike > 0).all(), (
        "all start at the same root"
    )
    cut = strategies(asked, cap=400, tokens=40)
    assert (cut.solved == found.solved).all(), "accuracy is that of whole streams"
    pairs = [(a, b) for s in range(12) for a, b in zip(cut.states[s], found.states[s], strict=True)]
    assert all(a <= b for a, b in pairs) and sum(a < b for a, b in pairs) > 100
    assert strategies([]).states == [] and strategies([]).solved.shape == (12, 0)
