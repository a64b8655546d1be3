"""Samples, feedback and selectors: rows worked out by hand, and what holds for any scores."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from heedful.errors import HeedfulError
from heedful.feedback import (
    Feedback,
    Samples,
    Selection,
    advantages,
    best,
    ema_baseline,
    imitate,
    pairs,
    reweight,
)

NAN = float("nan")


def judged(*scores: list[float], better: list[Any] | None = None) -> tuple[Samples, Feedback]:
    """Inputs "a", "b", ... with outputs "a0", "a1", ..., and these scores."""
    inputs = [chr(ord("a") + i) for i in range(len(scores))]
    outputs = [f"{x}{j}" for x, row in zip(inputs, scores, strict=True) for j in range(len(row))]
    return Samples(inputs, outputs, len(scores[0])), Feedback(torch.tensor(scores), better=better)


def won(selection: Selection) -> list[tuple[str, str]]:
    return [(row["chosen"], row["rejected"]) for row in selection.rows]


def column(selection: Selection, name: str) -> dict[str, Any]:
    return {row["output"]: row[name] for row in selection.rows}


# ---- samples and feedback


def test_samples_are_input_major() -> None:
    samples, _ = judged([1.0, 2.0, 3.0], [4.0, 5.0, 6.0])
    assert samples.group(0) == ["a0", "a1", "a2"]
    assert samples.group(1) == ["b0", "b1", "b2"]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Samples(["a", "b"], ["x"] * 5, 2), "5 outputs for 2 inputs with n=2; there must be 4"),
        (lambda: Samples(["a"], [], 0), "n is 0"),
        (lambda: Feedback(torch.zeros(4)), r"score is \(4,\)"),
        (lambda: Feedback(torch.zeros(2, 2, dtype=torch.long)), "floating-point"),
        (lambda: Feedback([[1.0]]), "score is list"),  # type: ignore[arg-type]
        (lambda: Feedback(torch.tensor([[0.0, math.inf]])), r"score\[0, 1\] is infinite"),
        (lambda: Feedback(torch.zeros(2, 2), better=["x"]), "1 better outputs for 2 inputs"),
        (lambda: Feedback(torch.zeros(2, 2), notes=["x", "y"]), "2 notes for 4 outputs"),
    ],
)
def test_wrong_shapes_are_refused(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(HeedfulError, match=said):
        make()


@pytest.mark.parametrize("select", [best, pairs, advantages, reweight, imitate])
def test_scores_of_other_samples_are_refused(select: Callable[..., Selection]) -> None:
    samples, _ = judged([1.0, 2.0], [3.0, 4.0])
    # as many numbers, but not these inputs and outputs
    feedback = Feedback(torch.zeros(1, 4), better=["x"])
    with pytest.raises(HeedfulError, match=r"shape \(1, 4\).*2 inputs with 2 outputs"):
        select(samples, feedback)


# ---- imitate, best


def test_imitate_takes_what_is_offered() -> None:
    samples, feedback = judged([NAN, NAN], [1.0, 2.0], [0.0, 0.0], better=["A", None, ""])
    rows, counts = imitate(samples, feedback)
    assert rows == [{"input": "a", "output": "A"}, {"input": "c", "output": ""}]
    assert counts == {"rows": 2, "no_opinion": 1}
    with pytest.raises(HeedfulError, match="no better outputs"):
        imitate(*judged([1.0, 2.0]))


def test_best_by_hand() -> None:
    scores = [[1.0, 3.0, 2.0], [NAN, -5.0, NAN], [NAN, NAN, NAN], [0.0, 2.0, 2.0]]
    rows, counts = best(*judged(*scores))
    assert rows == [
        {"input": "a", "output": "a1", "score": 3.0},
        {"input": "b", "output": "b1", "score": -5.0},
        {"input": "d", "output": "d1", "score": 2.0},
    ]
    assert counts == {"rows": 3, "ties": 1, "no_opinion": 5, "too_few": 1}
    assert [r["output"] for r in best(*judged(*scores), ties="all").rows] == ["a1", "b1", "d1", "d2"]
    dropped = best(*judged(*scores), ties="drop")
    assert [r["output"] for r in dropped.rows] == ["a1", "b1"]
    assert dropped.counts == {"rows": 2, "ties": 1, "no_opinion": 5, "too_few": 1}


# ---- pairs


def test_best_worst_by_hand() -> None:
    scores = [[1.0, 3.0, NAN, 2.0], [5.0, 5.0, 5.0, NAN], [NAN, 1.0, NAN, NAN], [0.0, 4.0, 0.0, 4.0]]
    rows, counts = pairs(*judged(*scores))
    assert rows[0] == {
        "input": "a",
        "chosen": "a1",
        "rejected": "a0",
        "margin": 2.0,
        "chosen_score": 3.0,
        "rejected_score": 1.0,
    }
    # of several best and worst, the ones sampled first
    assert (rows[1]["chosen"], rows[1]["rejected"]) == ("d1", "d0")
    assert counts == {"pairs": 2, "ties": 1, "too_close": 0, "identical": 0, "no_opinion": 5, "too_few": 1}


def test_all_pairs_by_hand() -> None:
    selection = pairs(*judged([1.0, 3.0, 3.0, NAN, 2.0]), how="all")
    assert won(selection) == [
        ("a1", "a0"),
        ("a2", "a0"),
        ("a4", "a0"),
        ("a1", "a4"),
        ("a2", "a4"),
    ]
    assert selection.counts["ties"] == 1
    assert selection.counts["pairs"] == 5


def test_adjacent_levels_by_hand() -> None:
    """Levels 3 (a1, a2), 2 (a4), 1 (a0): every pair across neighbouring levels, none across two."""
    selection = pairs(*judged([1.0, 3.0, 3.0, NAN, 2.0]), how="adjacent")
    assert won(selection) == [("a1", "a4"), ("a2", "a4"), ("a4", "a0")]
    assert selection.counts["ties"] == 1
    assert selection.counts["no_opinion"] == 1


def test_margin_by_hand() -> None:
    scores = [0.1, 0.2, 0.3, 0.4]
    selection = pairs(*judged(scores), how="all", margin=0.2)
    assert won(selection) == [("a2", "a0"), ("a3", "a0"), ("a3", "a1")]
    assert selection.counts == {
        "pairs": 3,
        "ties": 0,
        "too_close": 3,
        "identical": 0,
        "no_opinion": 0,
        "too_few": 0,
    }
    # in float32, 0.4 - 0.3 is a little below 0.1
    assert len(pairs(*judged(scores), how="adjacent", margin=0.1).rows) == 3
    assert len(pairs(*judged(scores), how="adjacent", margin=0.1001).rows) == 0


def test_the_same_output_is_no_pair_however_a_noisy_judge_scores_it() -> None:
    samples = Samples(["a"], ["yes", "yes", "no"], 3)
    selection = pairs(samples, Feedback(torch.tensor([[2.0, 1.0, 0.0]])), how="all")
    assert won(selection) == [("yes", "no"), ("yes", "no")]
    assert selection.counts["identical"] == 1


def test_better_against_every_output() -> None:
    samples, feedback = judged([1.0, NAN], [2.0, 3.0], [0.0, 0.0], better=["A", None, "c1"])
    rows, counts = pairs(samples, feedback, how="better")
    assert rows == [
        {
            "input": x,
            "chosen": y,
            "rejected": z,
            "margin": None,
            "chosen_score": None,
            "rejected_score": score,
        }
        for x, y, z, score in [("a", "A", "a0", 1.0), ("a", "A", "a1", None), ("c", "c1", "c0", 0.0)]
    ]
    assert counts == {"pairs": 3, "identical": 1, "no_opinion": 1}
    with pytest.raises(HeedfulError, match="margin"):
        pairs(samples, feedback, how="better", margin=1.0)
    with pytest.raises(HeedfulError, match="no better outputs"):
        pairs(*judged([1.0, 2.0]), how="better")


def test_actions_are_told_apart_by_their_values() -> None:
    """Long arrays print alike ("[0., 0., ..., 0.]"), so their text would not do."""
    still, moved = torch.zeros(5000), torch.zeros(5000)
    moved[2500] = 1.0
    samples = Samples(["state"], [still, moved, still.clone()], 3)
    selection = pairs(samples, Feedback(torch.tensor([[0.0, 1.0, 2.0]])), how="all")
    assert [(row["chosen"] is moved, row["rejected"] is moved) for row in selection.rows] == [
        (True, False),
        (False, True),
    ]
    assert selection.counts["identical"] == 1


@dataclass(frozen=True)
class Sampled:
    """Like a language model's completion: its text is what counts, not how likely it was."""

    text: str
    logp: float

    def __str__(self) -> str:
        return self.text


def test_completions_are_told_apart_by_their_text() -> None:
    samples = Samples(["a"], [Sampled("yes", -1.0), Sampled("yes", -1.1)], 2)
    feedback = Feedback(torch.tensor([[0.0, 1.0]]), better=["yes"])
    assert pairs(samples, feedback).counts["identical"] == 1
    assert pairs(samples, feedback, how="better").counts["identical"] == 2


# ---- advantages, reweight


def test_advantages_by_hand() -> None:
    scores = [[1.0, 3.0, NAN], [10.0, 4.0, 1.0], [NAN, 2.0, NAN]]
    seen = {"a0": 1.0, "a1": 3.0, "b0": 10.0, "b1": 4.0, "b2": 1.0, "c1": 2.0}
    wanted = {
        "none": seen,
        "batch": {k: v - 3.5 for k, v in seen.items()},
        "group": {"a0": -1.0, "a1": 1.0, "b0": 5.0, "b1": -1.0, "b2": -4.0, "c1": 0.0},
        "leave_one_out": {"a0": -2.0, "a1": 2.0, "b0": 7.5, "b1": -1.5, "b2": -6.0},
    }
    for baseline, values in wanted.items():
        selection = advantages(*judged(*scores), baseline=baseline)  # type: ignore[arg-type]
        assert column(selection, "advantage") == pytest.approx(values), baseline
        assert column(selection, "score") == {k: seen[k] for k in values}
        alone = baseline == "leave_one_out"
        assert selection.counts == {"rows": 6 - alone, "no_opinion": 3, "too_few": int(alone)}
    assert [row["input"] for row in advantages(*judged(*scores)).rows] == ["a", "a", "b", "b", "b", "c"]


def test_equal_inputs_are_separate_groups() -> None:
    samples = Samples(["same", "same"], ["w", "x", "y", "z"], 2)
    selection = advantages(samples, Feedback(torch.tensor([[0.0, 2.0], [10.0, 20.0]])))
    assert column(selection, "advantage") == {"w": -1.0, "x": 1.0, "y": -5.0, "z": 5.0}


def test_ema_over_rounds_by_hand() -> None:
    rounds = [judged([1.0, 3.0]), judged([10.0, NAN]), judged([NAN, NAN])]
    ema, seen = None, []
    for _, feedback in rounds:
        ema = ema_baseline(ema, feedback, decay=0.9)
        seen.append(ema)
    assert seen == pytest.approx([2.0, 0.9 * 2 + 0.1 * 10, 2.8])
    selection = advantages(*rounds[1], baseline="ema", ema=seen[0])
    assert column(selection, "advantage") == pytest.approx({"a0": 8.0})
    # 0 is a baseline like any other
    assert column(advantages(*rounds[1], baseline="ema", ema=0.0), "advantage") == {"a0": 10.0}


def test_reweight_by_hand() -> None:
    scores = [[0.0, math.log(2), NAN, 50.0]]
    selection = reweight(*judged(*scores))
    assert column(selection, "weight") == pytest.approx({"a0": 1.0, "a1": 2.0, "a3": 10.0})
    assert selection.counts == {"rows": 3, "clamped": 1, "no_opinion": 1}
    assert column(selection, "score")["a3"] == 50.0
    warm = reweight(*judged(*scores), tau=50.0, clamp=None)
    assert column(warm, "weight")["a3"] == pytest.approx(math.e)
    with pytest.raises(HeedfulError, match=r"exp\(50 / 0.5\) is too large"):
        reweight(*judged(*scores), tau=0.5, clamp=None)


# ---- what is refused


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda s, f: best(s, f, ties="last"), "first, all or drop"),
        (lambda s, f: pairs(s, f, how="random"), "best_worst, all, adjacent or better"),
        (lambda s, f: pairs(s, f, margin=-1.0), "0 or more"),
        (lambda s, f: pairs(s, f, margin=NAN), "0 or more"),
        (lambda s, f: advantages(s, f, baseline="mean"), "leave_one_out"),
        (lambda s, f: advantages(s, f, baseline="ema"), "ema_baseline"),
        (lambda s, f: advantages(s, f, baseline="group", ema=1.0), "take none"),
        (lambda s, f: reweight(s, f, tau=0.0), "above 0"),
        (lambda s, f: reweight(s, f, clamp=-1.0), "above 0"),
        (lambda s, f: ema_baseline(1.0, f, decay=1.5), r"\[0, 1\]"),
        (lambda s, f: ema_baseline(None, Feedback(torch.full((1, 2), NAN))), "nothing to average"),
    ],
)
def test_options_are_checked(call: Callable[[Samples, Feedback], Any], said: str) -> None:
    with pytest.raises(HeedfulError, match=said):
        call(*judged([1.0, 2.0]))


# ---- what holds for any scores

# few levels, so that ties and missing opinions are common
level = st.sampled_from([NAN, -1.0, 0.0, 0.5, 0.75, 2.0])
tables = st.integers(1, 5).flatmap(
    lambda n: st.lists(st.lists(level, min_size=n, max_size=n), min_size=1, max_size=4)
)
hows = st.sampled_from(["best_worst", "all", "adjacent"])
quick = settings(max_examples=80, deadline=None)


def scores_of(samples: Samples, feedback: Feedback) -> dict[str, float]:
    return dict(zip(samples.outputs, feedback.score.flatten().tolist(), strict=True))


@quick
@given(table=tables, how=hows, margin=st.sampled_from([0.0, 0.25, 1.0]))
def test_pairs_are_sound_and_everything_is_counted(table: list[list[float]], how: Any, margin: float) -> None:
    samples, feedback = judged(*table)
    score = scores_of(samples, feedback)
    rows, counts = pairs(samples, feedback, how=how, margin=margin)
    for row in rows:
        assert row["chosen"][0] == row["rejected"][0] == row["input"]
        assert row["chosen_score"] == score[row["chosen"]] > score[row["rejected"]] == row["rejected_score"]
        assert row["margin"] == row["chosen_score"] - row["rejected_score"] >= margin
    assert counts["pairs"] == len(rows) == len({(r["chosen"], r["rejected"]) for r in rows})
    scored = [[s for s in row if not math.isnan(s)] for row in table]
    assert counts["no_opinion"] == sum(map(len, table)) - sum(map(len, scored))
    assert counts["too_few"] == sum(len(row) < 2 for row in scored)
    tried = counts["pairs"] + counts["ties"] + counts["too_close"] + counts["identical"]
    if how == "best_worst":
        assert tried + counts["too_few"] == len(table)
    if how == "all":
        assert tried == sum(math.comb(len(row), 2) for row in scored)
    if how != "best_worst":
        assert counts["ties"] == sum(math.comb(c, 2) for row in scored for c in Counter(row).values())


@quick
@given(table=tables)
def test_ways_of_pairing_contain_each_other(table: list[list[float]]) -> None:
    every = set(won(pairs(*judged(*table), how="all")))
    assert set(won(pairs(*judged(*table), how="adjacent"))) <= every
    assert set(won(pairs(*judged(*table)))) <= every
    # the largest margin of an input is that of its best and worst
    widest = {row["input"]: row["margin"] for row in pairs(*judged(*table)).rows}
    for row in pairs(*judged(*table), how="all").rows:
        assert row["margin"] <= widest[row["input"]]


@quick
@given(table=tables, seed=st.integers(0, 1000), how=st.sampled_from(["all", "adjacent"]))
def test_order_of_samples_does_not_matter(table: list[list[float]], seed: int, how: Any) -> None:
    samples, feedback = judged(*table)
    order = torch.randperm(samples.n, generator=torch.Generator().manual_seed(seed))
    mixed = Samples(
        samples.inputs, [samples.group(i)[j] for i in range(len(samples.inputs)) for j in order], samples.n
    )
    shuffled = Feedback(feedback.score[:, order])
    one, other = pairs(samples, feedback, how=how), pairs(mixed, shuffled, how=how)
    assert set(won(one)) == set(won(other)) and one.counts == other.counts
    for baseline in ("batch", "group", "leave_one_out"):
        a, b = (advantages(s, f, baseline=baseline) for s, f in ((samples, feedback), (mixed, shuffled)))
        assert column(a, "advantage") == pytest.approx(column(b, "advantage"))


@quick
@given(table=tables, shift=st.sampled_from([-4.0, 1.0, 8.0]))
def test_a_shift_of_all_scores_changes_no_choice(table: list[list[float]], shift: float) -> None:
    samples, feedback = judged(*table)
    moved = Feedback(feedback.score + shift)
    for how in ("best_worst", "all", "adjacent"):
        assert won(pairs(samples, feedback, how=how)) == won(pairs(samples, moved, how=how))
    outputs = [[row["output"] for row in best(samples, f).rows] for f in (feedback, moved)]
    assert outputs[0] == outputs[1]
    for baseline in ("batch", "group", "leave_one_out"):
        before, after = (advantages(samples, f, baseline=baseline) for f in (feedback, moved))
        assert column(before, "advantage") == pytest.approx(column(after, "advantage"), abs=1e-6)


@quick
@given(table=tables)
def test_baselines_centre_what_they_cover(table: list[list[float]]) -> None:
    samples, feedback = judged(*table)
    batch = [row["advantage"] for row in advantages(samples, feedback, baseline="batch").rows]
    assert math.fsum(batch) == pytest.approx(0, abs=1e-6)
    group = advantages(samples, feedback, baseline="group").rows
    other = column(advantages(samples, feedback, baseline="leave_one_out"), "advantage")
    for x, row in zip(samples.inputs, table, strict=True):
        n = sum(not math.isnan(s) for s in row)
        mine = {r["output"]: r["advantage"] for r in group if r["input"] == x}
        assert math.fsum(mine.values()) == pytest.approx(0, abs=1e-6)
        # leaving oneself out stretches the advantage by n / (n - 1)
        if n > 1:
            assert {k: other[k] for k in mine} == pytest.approx({k: v * n / (n - 1) for k, v in mine.items()})


@quick
@given(table=tables, tau=st.sampled_from([0.1, 1.0, 5.0]))
def test_weights_rise_with_scores_up_to_the_clamp(table: list[list[float]], tau: float) -> None:
    samples, feedback = judged(*table)
    rows, counts = reweight(samples, feedback, tau=tau, clamp=4.0)
    for a in rows:
        assert a["weight"] == pytest.approx(min(math.exp(a["score"] / tau), 4.0), rel=1e-5)
    assert counts["clamped"] == sum(math.exp(row["score"] / tau) > 4 for row in rows)


@quick
@given(table=tables)
def test_selectors_are_pure_and_leave_out_only_what_has_no_opinion(table: list[list[float]]) -> None:
    samples, feedback = judged(*table, better=[None] * len(table))
    inputs, outputs, score = copy.copy(samples.inputs), copy.copy(samples.outputs), feedback.score.clone()
    for select in (imitate, best, pairs, advantages, reweight):
        first, again = select(samples, feedback), select(samples, feedback)
        assert first == again
        assert all(type(count) is int for count in first.counts.values())
    assert (samples.inputs, samples.outputs) == (inputs, outputs)
    assert torch.equal(feedback.score.nan_to_num(-9), score.nan_to_num(-9))
    scored = [y for y, s in scores_of(samples, feedback).items() if not math.isnan(s)]
    for select in (advantages, reweight):
        assert [row["output"] for row in select(samples, feedback).rows] == scored
