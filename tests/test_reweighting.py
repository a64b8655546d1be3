"""Weights of heads from labels, which pairs are asked about, and fine-tuning as the rival."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heedful.errors import HeedfulError
from heedful.judges import head_tuning
from heedful.judges.reweighting import Reweighting, effective, label_loss, sigmoid
from heedful.judges.reweighting_queries import QueryPool, disagreement, entropy

LOSSES = ("log", "zero-one", "brier", "squared")


def labelled(n: int, heads: int, seed: int = 0, size: float = 3.0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    return size * rng.normal(size=(n, heads)), rng.choice([0.0, 0.5, 1.0], n)


# ---- weights


@pytest.mark.parametrize("loss", LOSSES)
def test_weights_are_the_prior_times_exp_of_the_summed_loss(loss: Any) -> None:
    margins, labels = labelled(6, 5, size=1.0)
    prior = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    made = Reweighting(5, prior=prior, loss=loss, temperature=0.7).add(margins, labels)
    p = 1 / (1 + np.exp(-margins))
    y = labels[:, None]
    each = {
        "log": -(y * np.log(p) + (1 - y) * np.log(1 - p)),
        "zero-one": np.where(y == 0.5, 0.5, (margins > 0) != (y == 1)),
        "brier": (p - y) ** 2,
        "squared": (margins - y) ** 2,
    }[loss]
    wanted = prior * np.exp(-each.sum(0) / 0.7)
    assert made.weights == pytest.approx(wanted / wanted.sum(), rel=1e-12)
    assert made.effective_heads == pytest.approx(1 / (made.weights**2).sum())
    assert made.best == each.sum(0).argmin() and len(made) == 6


def test_losses_are_summed_not_averaged() -> None:
    margins, labels = labelled(5, 8, size=1.0)
    once, thrice = (Reweighting(8).add(np.tile(margins, (k, 1)), np.tile(labels, k)) for k in (1, 3))
    assert thrice.losses == pytest.approx(3 * once.losses)
    assert thrice.effective_heads < once.effective_heads - 0.5


@settings(max_examples=12, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(2, 250))
def test_the_order_of_labels_does_not_matter(random: Any, n: int) -> None:
    # losses of very different sizes: plain sums would differ by far more than 1e-12 after exp
    margins, labels = labelled(n, 30, seed=n, size=1.0)
    margins = margins * np.array([1e-3, 1.0, 400.0])[np.arange(n) % 3][:, None]
    order = list(range(n))
    random.shuffle(order)
    one = Reweighting(30, temperature=1e-2).add(margins, labels)
    other = Reweighting(30, temperature=1e-2)
    for i in order:
        other.add(margins[[i]], labels[[i]])
    assert np.abs(one.weights - other.weights).max() <= 1e-12


def test_plain_sums_would_not_be_order_free_here() -> None:
    rng = np.random.default_rng(0)
    values = 400 * np.abs(rng.normal(size=400)) * np.array([1e-3, 1.0])[np.arange(400) % 2]
    forth, back = (sum(list(v)) for v in (values, values[::-1]))
    assert abs(np.exp((forth - back) / 1e-2) - 1) > 1e-11


def test_undo_gives_back_the_very_same_weights() -> None:
    margins, labels = labelled(40, 20)
    made = Reweighting(20)
    seen = [made.weights]
    for i in range(40):
        seen.append(made.add(margins[[i]], labels[[i]]).weights)
    for n in (1, 3, 0, 17):
        made.undo(n)
        assert (made.weights == seen[len(made)]).all()
    there = made.weights
    made.add(margins[5:9], labels[5:9]).undo(2).undo(2)
    assert (made.weights == there).all()
    assert (made.undo(len(made)).weights == seen[0]).all()
    with pytest.raises(HeedfulError, match="1 labels cannot be taken back: there are 0"):
        made.undo()
    with pytest.raises(HeedfulError, match="cannot be taken back"):
        made.undo(-1)


@pytest.mark.parametrize("loss", ["log", "zero-one", "brier"])
def test_which_answer_comes_first_does_not_matter(loss: Any) -> None:
    margins, labels = labelled(30, 10)
    turned = np.random.default_rng(1).random(30) < 0.5
    one = Reweighting(10, loss=loss).add(margins, labels)
    other = Reweighting(10, loss=loss).add(
        np.where(turned[:, None], -margins, margins), np.where(turned, 1 - labels, labels)
    )
    assert one.weights == pytest.approx(other.weights, abs=1e-12)


def test_a_tie_speaks_for_heads_that_see_one() -> None:
    margins = np.array([[0.0, 1.0, -1.0, 3.0]])
    log = Reweighting(4).add(margins, [0.5]).weights
    assert log[0] > log[1] > log[3] and log[1] == pytest.approx(log[2])
    assert label_loss("zero-one", margins, [0.5]) == pytest.approx(np.array([[0.0, 0.5, 0.5, 0.5]]))


def test_enormous_losses_neither_overflow_nor_lose_the_best_head() -> None:
    made = Reweighting(3).add(np.array([[1e6, -1e6, 1e5]]), [1])
    assert np.isfinite(made.weights).all() and made.weights == pytest.approx([0.5, 0, 0.5])
    assert sigmoid(np.array([-1e9, 0.0, 1e9])) == pytest.approx([0, 0.5, 1])


def test_left_out_is_what_the_others_say() -> None:
    margins, labels = labelled(7, 6)
    weights, losses = Reweighting(6).add(margins, labels).left_out()
    for i in range(7):
        others = Reweighting(6).add(np.delete(margins, i, 0), np.delete(labels, i))
        assert weights[i] == pytest.approx(others.weights, abs=1e-12)
        assert losses[i] == pytest.approx(others.losses)
    assert Reweighting(6).left_out()[0].shape == (0, 6)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"loss": "hinge"}, "there is no loss 'hinge'; known: log, zero-one"),
        ({"temperature": 0}, "must be above 0"),
        ({"prior": [1.0, 0.0, 1.0]}, "3 finite numbers above 0"),
        ({"prior": [1.0, 1.0]}, "3 finite numbers above 0"),
    ],
)
def test_wrong_settings_are_refused(options: Any, told: str) -> None:
    with pytest.raises(HeedfulError, match=told):
        Reweighting(3, **options)
    with pytest.raises(HeedfulError, match="at least one is needed"):
        Reweighting(0)


def test_wrong_labels_leave_everything_as_it_was() -> None:
    made = Reweighting(3).add([[1.0, 2.0, 3.0]], [1])
    before = made.weights
    for outputs, labels in ([[[1.0, 2.0]], [1]], [[[1.0, 2.0, np.nan]], [1]], [[[1.0, 2.0, 3.0]], [1, 0]]):
        with pytest.raises(HeedfulError):
            made.add(outputs, labels)
    assert (made.weights == before).all() and len(made) == 1
    assert (made.add(np.zeros((0, 3)), []).weights == before).all()


# ---- queries


def brute(margins: Any, w: Any, criterion: str) -> Any:
    p = 1 / (1 + np.exp(-margins))
    both = np.stack([p, 1 - p])
    mean = both @ w
    h = lambda q: -(q * np.log(q)).sum(0)  # noqa: E731
    if criterion == "entropy":
        return h(mean)
    if criterion == "bald":
        return h(mean) - h(both) @ w
    return (((both - mean[..., None]) ** 2) @ w).sum(0)


@pytest.mark.parametrize("criterion", ["entropy", "bald", "variance"])
def test_criteria_are_their_formulas_under_the_current_weights(criterion: Any) -> None:
    margins, _ = labelled(40, 12)
    w = np.random.default_rng(5).dirichlet(np.ones(12))
    pool = QueryPool(margins)
    assert pool.values(w, criterion) == pytest.approx(brute(margins, w, criterion), abs=2e-6)
    assert pool.choose(w, criterion) == [int(brute(margins, w, criterion).argmax())]
    one = np.eye(12)[3]
    assert pool.values(one, "bald") == pytest.approx(0, abs=1e-6)  # one head does not disagree with itself


def test_sure_heads_that_disagree_are_asked_and_unsure_ones_that_agree_are_not() -> None:
    pool = QueryPool([[8.0, -8.0], [0.0, 0.0], [8.0, 8.0]])
    w = [0.5, 0.5]
    assert pool.choose(w, "bald") == pool.choose(w, "variance") == [0]
    assert pool.values(w, "entropy")[:2] == pytest.approx([np.log(2)] * 2, abs=1e-3)
    assert entropy(np.array([0.0, 0.5, 1.0])) == pytest.approx([0, np.log(2), 0], abs=1e-9)


def test_a_batch_does_not_ask_the_same_thing_twice() -> None:
    rng = np.random.default_rng(0)
    base = 4 * rng.normal(size=(3, 50))
    base[0] *= 2
    margins = np.concatenate([base[[0]] + 1e-3 * rng.normal(size=(10, 50)), base[1:]])
    w = np.full(50, 0.02)
    pool = QueryPool(margins)
    alone = np.argsort(-pool.values(w, "variance"))[:3]
    assert (alone < 10).sum() >= 2  # the plain order would ask about copies
    chosen = pool.choose(w, "variance", batch=3)
    assert sum(i < 10 for i in chosen) == 1 and {10, 11} < set(chosen)
    everything = pool.choose(w, batch=99)
    assert sorted(everything) == list(range(12))


def test_what_is_known_is_not_asked_and_order_breaks_ties() -> None:
    pool = QueryPool(np.tile([[3.0, -3.0]], (4, 1)))
    w = [0.5, 0.5]
    assert pool.choose(w) == [0] and pool.choose(w, exclude=[0, 1]) == [2]
    assert pool.choose(w, batch=2, exclude=[1]) == [0, 2]
    assert pool.choose(w, exclude=range(4)) == [] == pool.choose(w, batch=2, exclude=range(4))
    with pytest.raises(HeedfulError, match="the pool has 4"):
        pool.choose(w, exclude=[4])
    with pytest.raises(HeedfulError, match="must be 1 or more"):
        pool.choose(w, batch=0)
    with pytest.raises(HeedfulError, match="no criterion 'margin'; known: entropy"):
        pool.choose(w, "margin")  # type: ignore[arg-type]
    with pytest.raises(HeedfulError, match="must be finite"):
        QueryPool([[np.inf, 0.0]])


def test_disagreement_is_the_chance_that_two_heads_differ() -> None:
    margins, _ = labelled(9, 7)
    w = np.random.default_rng(2).dirichlet(np.ones(7))
    pairs = itertools.product(range(7), repeat=2)
    wanted = sum(w[a] * w[b] * (np.sign(margins[:, a]) != np.sign(margins[:, b])).mean() for a, b in pairs)
    assert disagreement(margins, w) == pytest.approx(wanted)
    assert disagreement(np.ones((3, 7)), w) == pytest.approx(0, abs=1e-12)
    assert effective(np.full(4, 0.25)) == pytest.approx(4)


# ---- fine-tuning


def test_paths_are_gradient_descent_on_the_head() -> None:
    rng = np.random.default_rng(0)
    x, head, labels = rng.normal(size=(8, 5)), rng.normal(size=5), (rng.random(8) < 0.5).astype(float)
    kept = np.array([[1.0] * 8, [1, 0, 1, 1, 0, 1, 1, 1]])
    way = head_tuning.paths(x @ head, x @ x.T, labels, kept)
    for fold, rate in itertools.product(range(2), range(len(head_tuning.RATES))):
        some = kept[fold] > 0
        most = 0.25 * np.linalg.eigvalsh(x @ x.T).max() / some.sum()
        w, at = head.copy(), 0
        for step in range(head_tuning.STOPS[-1] + 1):
            if step == head_tuning.STOPS[at]:
                assert head + x.T @ way[fold, rate, at] == pytest.approx(w, abs=1e-9)
                at += 1
            wrong = sigmoid(x[some] @ w) - labels[some]
            w = w - head_tuning.RATES[rate] / most * x[some].T @ wrong / some.sum()


def test_tuning_learns_what_labels_say_and_leaves_a_good_head_alone() -> None:
    rng = np.random.default_rng(1)
    x, wanted = rng.normal(size=(30, 4)), np.array([1.0, -1.0, 0.5, 0.0])
    labels = (x @ wanted > 0).astype(float)
    away = -2 * wanted
    tuned = head_tuning.tune(x @ away, x @ x.T, labels)
    new = rng.normal(size=(500, 4))
    made = away + x.T @ tuned.parts
    assert (
        ((new @ made > 0) == (new @ wanted > 0)).mean()
        > 0.9
        > 0.1
        > ((new @ away > 0) == (new @ wanted > 0)).mean()
    )
    noise = (rng.random(30) < 0.5).astype(float)
    kept = head_tuning.tune(np.zeros(30), x @ x.T, noise)
    assert np.abs(kept.parts).sum() < np.abs(tuned.parts).sum()
    alone = head_tuning.tune(x[:1] @ away, x[:1] @ x[:1].T, labels[:1])
    assert alone.steps == 0 and (alone.parts == 0).all()


def test_tuning_depends_neither_on_the_order_nor_on_which_answer_comes_first() -> None:
    rng = np.random.default_rng(3)
    x, head = rng.normal(size=(13, 6)), rng.normal(size=6)
    labels = (rng.random(13) < 0.5).astype(float)
    one = x.T @ head_tuning.tune(x @ head, x @ x.T, labels).parts
    left = head_tuning.left_out(x @ head, x @ x.T, labels)
    order, turned = rng.permutation(13), rng.random(13) < 0.5
    z = np.where(turned[:, None], -x, x)[order]
    y = np.where(turned, 1 - labels, labels)[order]
    assert z.T @ head_tuning.tune(z @ head, z @ z.T, y).parts == pytest.approx(one, abs=1e-10)
    again = head_tuning.left_out(z @ head, z @ z.T, y)
    assert again == pytest.approx(np.where(turned, -left, left)[order], abs=1e-10)


def test_the_label_that_is_left_out_plays_no_part() -> None:
    rng = np.random.default_rng(4)
    x, head = rng.normal(size=(6, 5)), rng.normal(size=5)
    labels = (x[:, 0] > 0).astype(float)
    margins = head_tuning.left_out(x @ head, x @ x.T, labels)
    for i in range(6):
        flipped = labels.copy()
        flipped[i] = 1 - flipped[i]
        again = head_tuning.left_out(x @ head, x @ x.T, flipped)
        assert again[i] == margins[i] and (np.delete(again, i) != np.delete(margins, i)).any()
    assert head_tuning.left_out(np.zeros(0), np.zeros((0, 0)), np.zeros(0)).shape == (0,)


def test_many_labels_are_left_out_in_parts() -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(60, 5))
    labels = (x[:, 0] > 0).astype(float)
    margins = head_tuning.left_out(np.zeros(60), x @ x.T, labels)
    assert ((margins > 0) == (labels > 0)).mean() > 0.8
    noise = (rng.random(60) < 0.5).astype(float)
    assert ((head_tuning.left_out(np.zeros(60), x @ x.T, noise) > 0) == (noise > 0)).mean() < 0.7
