"""`PersonalReward`: labels in, a reward out, and an honest word on whether the weights are worth anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heedful.errors import HeedfulError
from heedful.judges import personal_files, reweighting_diagnosis
from heedful.judges.personal import PersonalReward
from heedful.judges.reweighting import sigmoid
from heedful.run import open_run

SIZE, SPANNED = 8, 5


def training(seed: int = 0, size: int = SIZE, spanned: int = SPANNED) -> tuple[Any, Any, Any]:
    """(chosen, rejected, what all want); pairs differ in the first `spanned` features alone."""
    rng = np.random.default_rng(seed)
    wanted = np.zeros(size)
    wanted[:spanned] = rng.normal(size=spanned)
    wanted /= np.linalg.norm(wanted)
    common = rng.normal(size=(600, size))
    first, second = common.copy(), common.copy()
    first[:, :spanned] += rng.normal(size=(600, spanned))
    wins = (rng.random(600) < sigmoid(8 * (first - second) @ wanted))[:, None]
    return np.where(wins, first, second), np.where(wins, second, first), wanted


@pytest.fixture
def reward() -> PersonalReward:
    chosen, rejected, _ = training()
    made = PersonalReward(heads=50, prior_scale=5.0, seed=1).fit(chosen, rejected)
    return made.set_pool(np.random.default_rng(5).normal(size=(400, SIZE)))


def labels_of(wanted: Any, n: int, seed: int = 2) -> tuple[Any, Any, Any]:
    first, second = np.random.default_rng(seed).normal(size=(2, n, len(wanted)))
    return first, second, ((first - second) @ wanted > 0).astype(float)


def person(seed: int = 3) -> Any:
    """Half of what they want is what nobody's pairs showed."""
    _, _, common = training()
    own = np.zeros(SIZE)
    own[SPANNED:] = np.random.default_rng(seed).normal(size=SIZE - SPANNED)
    return (common + own / np.linalg.norm(own)) / np.sqrt(2)


def accuracy(reward: PersonalReward, wanted: Any, used: Any = None) -> float:
    first, second, labels = labels_of(wanted, 2000, 99)
    return float(((reward.predict(first, used) > reward.predict(second, used)) == labels).mean())


# ---- labels


def test_a_few_labels_find_what_training_pairs_never_showed(reward: PersonalReward) -> None:
    wanted = person()
    assert accuracy(reward, wanted, "uniform") < 0.8 and reward.effective_heads_ == pytest.approx(50)
    reward.adapt(*labels_of(wanted, 20))
    assert accuracy(reward, wanted, "reweighting") > 0.87
    assert accuracy(reward, wanted, "uniform") < 0.8 and reward.effective_heads_ < 10
    assert reward.diagnose().used == "reweighting" and accuracy(reward, wanted) > 0.87


def test_one_by_one_or_all_at_once_undone_or_loaded_the_weights_are_the_same_bits(
    reward: PersonalReward, tmp_path: Path
) -> None:
    first, second, labels = labels_of(person(), 12)
    seen = [reward.weights_]
    for i in range(12):
        seen.append(reward.adapt(first[[i]], second[[i]], labels[[i]]).weights_)
    reward.undo(7)
    assert (reward.weights_ == seen[5]).all() and len(reward.labels_) == 5
    reward.adapt(first[5:], second[5:], labels[5:])
    assert (reward.weights_ == seen[12]).all()
    assert (reward.undo(12).adapt(first, second, labels).weights_ == seen[12]).all()
    reward.save(tmp_path / "heads")
    loaded = PersonalReward.load(tmp_path / "heads")
    assert (loaded.weights_ == seen[12]).all() and loaded.heads_ == reward.heads_
    assert loaded.diagnose() == reward.diagnose() and loaded.how == reward.how
    for used in (None, "uniform", "single", "best_head", "fine_tuned"):
        assert (loaded.predict(first, used) == reward.predict(first, used)).all()  # type: ignore[arg-type]
    assert (loaded.undo(4).weights_ == seen[8]).all()
    with pytest.raises(HeedfulError, match="9 labels cannot be taken back: there are 8"):
        loaded.undo(9)
    assert (loaded.adapt(np.zeros((0, SIZE)), np.zeros((0, SIZE)), []).weights_ == seen[8]).all()


def test_neither_the_order_of_labels_nor_of_answers_matters(reward: PersonalReward) -> None:
    first, second, labels = labels_of(person(), 30)
    labels[::7] = 0.5
    one = reward.adapt(first, second, labels).weights_
    tuned, told = reward.tuned_, reward.diagnose()
    order, turned = np.random.default_rng(0).permutation(30), np.arange(30) % 3 == 0
    sides = np.where(turned[:, None], second, first), np.where(turned[:, None], first, second)
    other = np.where(turned, 1 - labels, labels)
    reward.undo(30).adapt(sides[0][order], sides[1][order], other[order])
    assert np.abs(reward.weights_ - one).max() <= 1e-12
    assert reward.tuned_ == pytest.approx(tuned, abs=1e-9) and reward.diagnose().used == told.used


def test_labels_that_are_none_are_refused_and_nothing_is_taken(reward: PersonalReward) -> None:
    first, second, labels = labels_of(person(), 3)
    reward.adapt(first, second, labels)
    before = reward.weights_
    for a, b, y, told in (
        (first, second, [1, 0, 2], "a label is 1"),
        (first, second[:2], labels, "3 first answers, 2 second ones and 3 labels"),
        (first[:, :4], second[:, :4], labels, rf"\(answers, {SIZE}\)"),
        (first * np.nan, second, labels, "must be finite"),
    ):
        with pytest.raises(HeedfulError, match=told):
            reward.adapt(a, b, y)
    assert (reward.weights_ == before).all() and len(reward.labels_) == 3


# ---- scale


def test_every_head_has_the_scale_of_the_pool_and_labels_do_not_change_it() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(300, 6))
    loud = scores * np.array([1, 1000, 1e-3, 1, 50, 7]) + np.array([0, 5, 0, 100, 0, 0])
    plain, other = PersonalReward.from_scores(scores), PersonalReward.from_scores(loud)
    at, y = slice(0, 10), (rng.random(10) < 0.5).astype(float)
    plain.adapt(scores[at], scores[10:20], y)
    scale = other._scale.copy()
    other.adapt(loud[at], loud[10:20], y)
    assert other.weights_ == pytest.approx(plain.weights_, abs=1e-9) and plain.weights_.std() > 1e-3
    assert (other._scale == scale).all()
    margins = other.head_scores(loud)[::2] - other.head_scores(loud)[1::2]
    assert np.sqrt((margins**2).mean(0)) == pytest.approx(1, rel=0.2)


def test_a_pool_of_pairs_takes_out_what_prompts_do_to_both_answers() -> None:
    rng = np.random.default_rng(0)
    prompt = (
        10 * rng.normal(size=(200, 1)) * np.array([1.0, 0.0])
    )  # moves the first head's scores, in both answers
    first, second = rng.normal(size=(2, 200, 2)) + prompt
    pairs = PersonalReward.from_scores(first).set_pool(first, second)
    single = PersonalReward.from_scores(np.concatenate([first, second]))
    assert pairs._scale == pytest.approx([1 / np.sqrt(2)] * 2, rel=0.25)
    assert single._scale[0] < 0.3 * single._scale[1]


def test_a_new_pool_weighs_the_labels_anew(reward: PersonalReward) -> None:
    first, second, labels = labels_of(person(), 6)
    reward.adapt(first, second, labels)
    before = reward.weights_
    narrow = np.random.default_rng(8).normal(size=(300, SIZE)) * np.linspace(0.1, 2, SIZE)
    reward.set_pool(narrow)
    assert len(reward.labels_) == 6 and np.abs(reward.weights_ - before).max() > 1e-4
    again = reward.weights_
    assert (reward.undo(6).adapt(first, second, labels).weights_ == again).all()
    with pytest.raises(HeedfulError, match="at least two are needed"):
        reward.set_pool(narrow[:1])


def test_a_head_that_is_flat_on_the_pool_says_nothing() -> None:
    scores = np.random.default_rng(0).normal(size=(50, 3)) * np.array([1, 1, 0])
    made = PersonalReward.from_scores(scores)
    made.adapt([[0.0, 0.0, 9.0]], [[0.0, 0.0, -9.0]], [0])
    assert made.weights_ == pytest.approx([1 / 3] * 3)


# ---- heads from elsewhere


def test_saved_scores_are_heads_and_the_one_that_agrees_wins() -> None:
    rng = np.random.default_rng(1)
    pool = rng.normal(size=(200, 4))
    made = PersonalReward.from_scores(pool, names=["a", "b", "c", "d"], temperature=0.5)
    first, second = rng.normal(size=(2, 25, 4))
    made.adapt(first, second, (first[:, 2] > second[:, 2]).astype(float))
    assert made.heads_ == ["a", "b", "c", "d"] and made.weights_.argmax() == 2 and made.weights_[2] > 0.9
    assert np.corrcoef(made.predict(pool, "single"), pool[:, 0])[0, 1] == pytest.approx(1)
    assert np.corrcoef(made.predict(pool, "best_head"), pool[:, 2])[0, 1] == pytest.approx(1)
    assert np.corrcoef(made.predict(pool, "fine_tuned"), pool[:, 2])[0, 1] > 0.8
    for scores, told in ((pool[:, :1], "at least two are needed"), (pool[0], "must be a matrix")):
        with pytest.raises(HeedfulError, match=told):
            PersonalReward.from_scores(scores)
    with pytest.raises(HeedfulError, match="3 names for 4 heads"):
        PersonalReward.from_scores(pool, names=["a", "b", "c"])


def test_annotators_become_named_heads() -> None:
    chosen, rejected, _ = training()
    swapped = np.concatenate([chosen, rejected]), np.concatenate([rejected, chosen])
    made = PersonalReward(builder="annotator").fit(*swapped, annotators=["us"] * 600 + ["them"] * 600)
    assert made.heads_ == ["them", "us"]
    made.adapt(rejected[:6], chosen[:6], np.ones(6))
    assert made.weights_[0] > 0.95


def test_a_run_keeps_its_heads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen, rejected, _ = training()
    with open_run(tmp_path / "run", {}, seed=0) as run:
        one = PersonalReward(heads=5, builder="pca").fit(chosen, rejected, run=run)
    monkeypatch.setattr("heedful.judges.personal.build", None)
    with open_run(tmp_path / "run", {}, seed=0) as run:
        again = PersonalReward(heads=5, builder="pca").fit(chosen, rejected, run=run)
        assert (one.predict(chosen) == again.predict(chosen)).all() and again.heads_ == one.heads_
        assert again.diagnose().used == "single"
    monkeypatch.undo()
    (tmp_path / "run" / "heads.made.json").unlink()  # killed between the two files
    with open_run(tmp_path / "run", {}, seed=0) as run:
        assert PersonalReward(heads=5, builder="pca").fit(chosen, rejected, run=run).heads_ == one.heads_


# ---- queries


def test_queries_follow_the_current_weights(reward: PersonalReward) -> None:
    wanted = person()
    first, second, labels = labels_of(wanted, 200, 7)
    pool = reward.query_pool(first, second)
    asked = reward.query(pool)[0]
    assert asked == reward.query(first, second)[0]
    reward.adapt(first[[asked]], second[[asked]], labels[[asked]])
    values = pool.values(reward.weights_, "bald")
    values[asked] = -1
    assert reward.query(pool, exclude=[asked]) == [int(values.argmax())]
    chosen = reward.query(pool, criterion="variance", batch=5, exclude=[asked])
    assert len(set(chosen)) == 5 and asked not in chosen
    with pytest.raises(HeedfulError, match="second answers of the pool are missing"):
        reward.query(first)


def test_asking_what_heads_disagree_on_needs_fewer_labels_than_chance(reward: PersonalReward) -> None:
    lead = []
    for seed in range(4):
        wanted = person(seed)
        first, second, labels = labels_of(wanted, 300, 11)
        pool, found = reward.query_pool(first, second), []
        for active in (True, False):
            reward.undo(len(reward.labels_))
            asked: list[int] = []
            for n in range(5):
                asked.append(reward.query(pool, exclude=asked)[0] if active else n)
                reward.adapt(first[asked[-1:]], second[asked[-1:]], labels[asked[-1:]])
            found.append(accuracy(reward, wanted, "reweighting"))
        lead.append(found[0] - found[1])
    assert np.mean(lead) > 0


# ---- the reward


def test_probability_is_of_the_mean_reward_or_the_mean_of_probabilities(reward: PersonalReward) -> None:
    first, second, labels = labels_of(person(), 8)
    reward.adapt(first, second, labels)
    margin = reward.head_scores(first) - reward.head_scores(second)
    w = reward.weights_
    assert reward.probability(first, second, "reweighting") == pytest.approx(sigmoid(margin @ w))
    reward.average = "probability"
    assert reward.probability(first, second, "reweighting") == pytest.approx(sigmoid(margin) @ w)
    assert reward.probability(first, second, "uniform") == pytest.approx(sigmoid(margin).mean(1))
    assert reward.probability(first, first) == pytest.approx(0.5)
    assert reward.probability(first, second, "best_head") == pytest.approx(sigmoid(margin[:, w.argmax()]))
    with pytest.raises(HeedfulError, match="there is no reward 'best'; known: reweighting"):
        reward.predict(first, "best")  # type: ignore[arg-type]


def test_labels_change_what_is_fine_tuned(reward: PersonalReward) -> None:
    wanted = person()
    single = accuracy(reward, wanted, "single")
    reward.adapt(*labels_of(wanted, 60))
    first = reward.tuned_
    assert accuracy(reward, wanted, "fine_tuned") > single + 0.1
    assert np.abs(reward.undo(50).tuned_ - first).max() > 1e-3  # no stale answer after an undo


# ---- the diagnosis


def test_no_labels_no_opinion(reward: PersonalReward) -> None:
    told = reward.diagnose()
    assert told.used == "uniform" and "no labels yet" in told.why and told.figures["labels"] == 0
    assert (reward.predict(np.eye(SIZE)) == reward.predict(np.eye(SIZE), "uniform")).all()


def test_heads_that_agree_are_not_reweighted() -> None:
    chosen, rejected, wanted = training()
    made = PersonalReward(heads=20, prior_scale=0.0).fit(chosen, rejected)
    told = made.adapt(*labels_of(wanted, 5)).diagnose()
    assert told.used == "uniform" and "no help" in told.why and "the heads agree" in told.why
    assert told.figures["disagreement"] == pytest.approx(0, abs=1e-9)


def test_labels_that_do_not_tell_heads_apart_change_nothing(reward: PersonalReward) -> None:
    x = np.random.default_rng(0).normal(size=(5, SIZE))
    told = reward.adapt(x, x, np.full(5, 0.5)).diagnose()
    assert told.used == "uniform" and "do not tell the heads apart" in told.why


def test_where_no_head_is_right_the_head_is_tuned() -> None:
    chosen, rejected, wanted = training(spanned=SIZE)  # complete data: heads agree
    made = PersonalReward(heads=20, prior_scale=1.0).fit(chosen, rejected)
    told = made.adapt(*labels_of(-wanted, 40)).diagnose()
    assert told.used == "fine_tuned" and "fine-tuned head does better on labels left out" in told.why
    assert accuracy(made, -wanted) > 0.8 > 0.2 > accuracy(made, -wanted, "reweighting")
    assert told.figures["loss_fine_tuned"] < told.figures["loss_uniform"]


def test_heads_both_ways_fall_back_to_the_single_head_not_to_their_zero_mean() -> None:
    chosen, rejected, wanted = training()
    made = PersonalReward(heads=8, builder="pca").fit(chosen, rejected)
    assert np.abs(made.predict(chosen, "uniform")).max() < 1e-12
    assert made.diagnose().used == "single" and accuracy(made, wanted) > 0.9
    told = made.adapt(*labels_of(wanted, 2)).diagnose()
    assert told.used == "single" and "too few" in told.why


def test_labels_that_contradict_each_other_are_not_followed(reward: PersonalReward) -> None:
    first, second, labels = labels_of(person(), 6)
    some = np.array([0, 0, 1, 2, 3, 4, 5])  # an odd one out, so that something is left of the weights
    told = reward.adapt(
        np.concatenate([first, first[some]]),
        np.concatenate([second, second[some]]),
        np.concatenate([labels, 1 - labels[some]]),
    ).diagnose()
    assert told.used == "uniform" and "reweighting gives no help: on labels left out" in told.why
    assert told.figures["gain"] < -told.figures["gain_se"]


def test_a_best_head_needs_many_labels_and_a_clear_lead() -> None:
    rng = np.random.default_rng(0)
    n = 30
    labels = (rng.random(n) < 0.5).astype(float)
    told = {arm: 0.1 * rng.normal(size=n) for arm in reweighting_diagnosis.ARMS}
    told["best_head"] = 2 * labels - 1
    made = PersonalReward.from_scores(rng.normal(size=(50, 4)))

    def used(count: int) -> str:
        first, second = rng.normal(size=(2, count, 4))
        made.undo(len(made.labels_)).adapt(first, second, labels[:count])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                reweighting_diagnosis, "left_out_margins", lambda *_: {k: v[:count] for k, v in told.items()}
            )
            return made.diagnose().used

    assert used(n) == "best_head" and used(reweighting_diagnosis.ENOUGH_FOR_ONE - 1) != "best_head"


# ---- on disk


def test_damaged_folders_are_named(reward: PersonalReward, tmp_path: Path) -> None:
    folder = tmp_path / "heads"
    with pytest.raises(HeedfulError, match=r"cannot read .*personal\.json"):
        PersonalReward.load(folder)
    reward.save(folder)
    path, told = folder / personal_files.JSON, json.loads((folder / personal_files.JSON).read_text())
    for changed, message in (
        ("{", "is not JSON"),
        ("[]", "format is None"),
        (json.dumps(told | {"format": 99}), "format is 99; this heedful reads 1"),
        (json.dumps(told | {"names": ["a"]}), "do not fit together"),
        (json.dumps(told | {"labels": [1]}), "do not fit together"),
        (json.dumps({k: v for k, v in told.items() if k != "kind"}), "do not fit together"),
    ):
        path.write_text(changed)
        with pytest.raises(HeedfulError, match=message):
            PersonalReward.load(folder)
    path.write_text(json.dumps(told))
    arrays = folder / personal_files.ARRAYS
    arrays.write_bytes(arrays.read_bytes()[:100])
    with pytest.raises(HeedfulError, match=r"heads\.safetensors cannot be read"):
        PersonalReward.load(folder)


@pytest.mark.parametrize("builder", ["prior", "epinet", "pca"])
def test_every_kind_of_head_survives_the_disk(builder: Any, tmp_path: Path) -> None:
    chosen, rejected, _ = training()
    made = PersonalReward(heads=6, builder=builder, prior="mlp").fit(chosen[:100], rejected[:100])
    made.adapt(chosen[:5], rejected[:5], np.ones(5)).save(tmp_path)
    loaded = PersonalReward.load(tmp_path)
    assert (loaded.head_scores(chosen) == made.head_scores(chosen)).all()
    assert (loaded.weights_ == made.weights_).all() and loaded.diagnose() == made.diagnose()


def test_settings_are_checked_before_the_fit() -> None:
    for options, told in (
        ({"loss": "hinge"}, "no loss 'hinge'"),
        ({"temperature": 0.0}, "temperature"),
        ({"average": "median"}, "no average 'median'"),
        ({"margin": 0.0}, "must be above 0"),
        ({"builder": "deep"}, "no builder"),
    ):
        with pytest.raises(HeedfulError, match=told):
            PersonalReward(**options)  # type: ignore[arg-type]
    with pytest.raises(HeedfulError, match="call fit, from_scores or load first"):
        PersonalReward().predict(np.eye(3))
