"""The metrics of preference data on inputs whose answers are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heedful.data import quality
from heedful.data.quality import compare as quality_compare
from heedful.data.quality import information as quality_information
from heedful.data.quality import noise as quality_noise
from heedful.data.quality import scale as quality_scale
from heedful.data.quality.profile import language, languages, profile
from heedful.errors import HeedfulError

# ---- repeats


def keys(values: list[int]) -> quality.Keys:
    return np.array(values, np.uint64)


def test_repeats_and_contradictions() -> None:
    pair = keys([1, 2, 1, 1, 3, 2, 4, 4, 4])
    side = np.array([0, 1, 0, 1, 0, 0, 1, 0, 1], bool)
    found = quality.repeats(pair, pair, side)
    assert found.same_as.tolist() == [-1, -1, 0, -1, -1, -1, -1, -1, 6]
    assert found.contradicted.tolist() == [True, True, True, True, False, True, True, True, True]
    # 1: two against one, 2: one against one, 4: two against one
    assert found.outvoted.tolist() == [False, True, False, True, False, True, False, True, False]


def test_no_pairs_have_no_repeats() -> None:
    found = quality.repeats(keys([]), keys([]), np.zeros(0, bool))
    assert all(len(part) == 0 for part in found)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=40))
def test_repeats_agree_with_counting(rows: list[tuple[int, bool]]) -> None:
    pair, side = keys([k for k, _ in rows]), np.array([s for _, s in rows], bool)
    found = quality.repeats(pair, pair, side)
    for i, (key, chosen) in enumerate(rows):
        earlier = [j for j in range(i) if rows[j] == (key, chosen)]
        ours, theirs = rows.count((key, chosen)), rows.count((key, not chosen))
        assert found.same_as[i] == (earlier[0] if earlier else -1)
        assert found.contradicted[i] == (theirs > 0) and found.outvoted[i] == (theirs >= ours and theirs > 0)


# ---- near-duplicates


def sentence(words: list[str]) -> str:
    return " ".join(words)


def test_minhash_estimates_the_jaccard_similarity() -> None:
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(60):
        words = [f"w{i}" for i in rng.integers(0, 1000, 60)]
        other = words[: int(rng.integers(5, 60))] + [f"v{i}" for i in rng.integers(0, 1000, 20)]
        a, b = (set(zip(["", *w], [*w, ""])) for w in (words, other))
        true = len(a & b) / len(a | b)
        errors.append(
            (quality.signature(sentence(words)) == quality.signature(sentence(other))).mean() - true
        )
    # The estimate is a mean of H Bernoulli variables, so its standard error is at most .09.
    assert abs(np.mean(errors)) < 0.04 and np.std(errors) < 0.11


def test_near_duplicates_are_found_and_strangers_are_not() -> None:
    rng = np.random.default_rng(1)
    texts = [sentence([f"w{i}" for i in rng.integers(0, 5000, 30)]) for _ in range(300)]
    changed = [text.rsplit(" ", 1)[0] + " please" for text in texts[:40]]
    signatures = np.stack([quality.signature(text) for text in [*texts, *changed]])
    found = quality.near_duplicates(signatures)
    assert found[:40].mean() > 0.95 and found[300:].mean() > 0.95 and not found[40:300].any()
    across = quality.near_duplicates_of(signatures[:300], signatures[300:])
    assert across[:40].mean() > 0.95 and not across[40:].any()
    assert quality.near_duplicates_of(signatures[:5], signatures[:5]).all()


def test_a_duplicate_on_one_side_is_no_contamination() -> None:
    text = "how do I boil an egg so that it stays soft inside"
    same = np.stack([quality.signature(text)] * 3)
    other = quality.signature("name a river in the north of France that reaches the sea")[None]
    assert not quality.near_duplicates_of(same, other).any()


def test_signatures_of_empty_and_single_words() -> None:
    assert (quality.signature("") == quality.signature("  ")).all()
    assert (quality.signature("Egg") == quality.signature("egg")).all()
    assert (quality.signature("egg") != quality.signature("tea")).any()


# ---- splits


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.floats(0.05, 0.95))
def test_a_prompt_is_on_one_side_in_every_file(seed: int, share: float) -> None:
    prompts = np.random.default_rng(seed % 97).integers(0, 2**63, 400).astype(np.uint64)
    held = quality.held_out(prompts, share, seed)
    again = quality.held_out(prompts[::-1], share, seed)[::-1]
    assert (held == again).all() and abs(held.mean() - share) < 0.15


def test_orders_keep_prompts_together_and_folds_too() -> None:
    prompts = np.repeat(np.arange(50, dtype=np.uint64), 3)
    order = quality.in_prompt_order(prompts, 5)
    assert sorted(order.tolist()) == list(range(150))
    assert all(len(set(prompts[order[i : i + 3]])) == 1 for i in range(0, 150, 3))
    assert (order != quality.in_prompt_order(prompts, 6)).any()
    fold = quality.folds(prompts, 5, 0)
    assert all(len(set(fold[prompts == p])) == 1 for p in range(50)) and set(fold) == set(range(5))


# ---- length


def test_length_features_order_pairs_by_words_then_characters() -> None:
    words = np.array([[3, 5], [5, 3], [4, 4], [4, 4]])
    characters = np.array([[90, 20], [20, 90], [30, 20], [20, 20]])
    found = quality.length_features(words, characters)[:, 0]
    assert found[0] < 0 < found[1] and found[2] > 0 and found[3] == 0
    assert quality.chosen_longer(words).tolist() == [0, 1, 0.5, 0.5]


def test_balanced_accuracy_of_the_length_rule_is_chance() -> None:
    longer = np.array([1.0] * 80 + [0.0] * 20)
    assert quality.balanced(longer, longer) == 0.5
    assert quality.balanced(np.ones(100), longer) == 1.0
    assert math.isnan(quality.balanced(longer[:80], longer[:80]))


# ---- scale


def test_sizes_double_up_to_the_whole() -> None:
    assert quality_scale.sizes(1000, 4, 32) == [125, 250, 500, 1000]
    assert quality_scale.sizes(100, 6, 32) == [50, 100]
    assert quality_scale.sizes(20, 6, 32) == [20]


def test_slope_and_gain_of_a_straight_curve_are_exact() -> None:
    numbers = [100, 200, 400, 800]
    rising = np.tile([0.6, 0.63, 0.66, 0.69], (50, 1))
    found = quality_scale.scale(numbers, rising)
    assert found["slope"].estimate == pytest.approx(0.03) and found["slope"].low == pytest.approx(0.03)
    assert [g.estimate for g in found["gain"]] == pytest.approx([0.03] * 3)
    assert found["saturation"] is None


def test_saturation_needs_a_small_gain_and_an_interval_with_zero() -> None:
    rng = np.random.default_rng(0)
    right = (rng.random((400, 1)) < np.array([[0.6, 0.7, 0.75, 0.753]])).astype(float)
    assert quality_scale.scale([100, 200, 400, 800], right)["saturation"] == 400
    # A gain of half a point that is there for sure is not saturation.
    sure = np.zeros((200, 2))
    sure[:120, 0] = sure[:121, 1] = 1
    sure = np.tile(sure, (30, 1))
    assert quality_scale.scale([100, 200], sure)["saturation"] is None


def test_one_flat_step_of_a_rising_curve_is_no_saturation() -> None:
    rng = np.random.default_rng(0)
    right = (rng.random((600, 1)) < np.array([[0.6, 0.602, 0.66, 0.72, 0.722]])).astype(float)
    assert quality_scale.scale([50, 100, 200, 400, 800], right)["saturation"] == 400


def test_needed_interpolates_over_the_logarithm() -> None:
    accuracy = np.array([0.6, 0.7, 0.65, 0.8])
    numbers = [100, 200, 400, 800]
    assert quality_scale.needed(numbers, accuracy, 0.65) == pytest.approx(100 * 2**0.5)
    assert quality_scale.needed(numbers, accuracy, 0.75) == pytest.approx(400 * 2**0.5)
    assert quality_scale.needed(numbers, accuracy, 0.5) == 100
    assert quality_scale.needed(numbers, accuracy, 0.81) == math.inf


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.4, 1.0), min_size=2, max_size=7), st.floats(0.4, 1.0), st.floats(0.0, 0.2))
def test_more_accuracy_never_needs_fewer_pairs(curve: list[float], target: float, more: float) -> None:
    numbers = [100 * 2**j for j in range(len(curve))]
    low, high = (quality_scale.needed(numbers, np.array(curve), t) for t in (target, target + more))
    assert low <= high and (math.isinf(low) or numbers[0] <= low <= numbers[-1])


def test_effective_size_that_is_not_reached_is_infinite() -> None:
    rng = np.random.default_rng(0)
    right = (rng.random((300, 3)) < np.array([[0.55, 0.6, 0.65]])).astype(float)
    estimate, interval = quality_scale.effective_size([100, 200, 400], right, np.ones(300))
    assert estimate == math.inf and interval.low == math.inf
    estimate, interval = quality_scale.effective_size([100, 200, 400], right, right[:, 1])
    assert 100 < estimate <= 400 and interval.low <= estimate <= interval.high


# ---- noise


def test_flips_are_nested_and_of_the_wanted_share() -> None:
    found = [quality_noise.flips(20_000, q, 3) for q in quality_noise.LEVELS]
    assert not found[0].any()
    for before, after, q in zip(found, found[1:], quality_noise.LEVELS[1:]):
        assert (before <= after).all() and abs(after.mean() - q) < 0.01


def test_retention_and_tolerance() -> None:
    kept = quality_noise.retention(np.array([0.9, 0.88, 0.86, 0.8, 0.7, 0.5]))
    assert kept == pytest.approx([1, 0.95, 0.9, 0.75, 0.5, 0])
    assert quality_noise.tolerance(quality_noise.LEVELS, kept + 1e-9) == 0.2
    # A level beyond one that was not tolerated does not count.
    assert quality_noise.tolerance((0, 0.1, 0.2), np.array([1, 0.8, 0.95])) == 0.0
    assert np.isnan(quality_noise.retention(np.array([0.51, 0.5]))).all()
    assert quality_noise.area((0, 0.25, 0.5), np.array([0.9, 0.9, 0.9])) == pytest.approx(0.9)


def test_reliability_of_a_calibrated_and_of_a_sure_model() -> None:
    rng = np.random.default_rng(0)
    margins = rng.normal(0, 2, 40_000)
    sides = np.where(rng.random(len(margins)) < 1 / (1 + np.exp(-margins)), margins, -margins)
    found = quality_noise.reliability(sides)
    assert found["ece"] < 0.01 and sum(found["pairs"]) == len(margins)
    assert len(found["confidence"]) == len(found["accuracy"]) == len(found["pairs"]) <= quality_noise.BINS
    assert quality_noise.reliability(np.zeros(50))["ece"] == pytest.approx(0, abs=1e-9)
    sure = quality_noise.reliability(np.where(rng.random(10_000) < 0.7, 20.0, -20.0))
    assert sure["ece"] == pytest.approx(0.3, abs=0.02)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-25, 25), min_size=1, max_size=60))
def test_the_calibration_error_is_the_weighted_gap(values: list[float]) -> None:
    margins = np.array(values)
    sure, right = quality_noise.confidence(margins), quality_noise.right_of(margins)
    edges = np.linspace(0.5, 1, quality_noise.BINS + 1)
    place = np.clip(np.searchsorted(edges[1:-1], sure), 0, quality_noise.BINS - 1)
    gap = sum(
        abs(right[place == b].mean() - sure[place == b].mean()) * (place == b).mean()
        for b in range(quality_noise.BINS)
        if (place == b).any()
    )
    assert quality_noise.reliability(margins)["ece"] == pytest.approx(gap, abs=1e-9)


# ---- information


def test_parts_are_halves_and_the_controlled_ones_have_equal_lengths() -> None:
    rng = np.random.default_rng(0)
    words = rng.integers(5, 200, (4000, 2))
    similarity = np.clip(words.sum(1) / 400 + rng.normal(0, 0.1, 4000), 0, 1)
    parts = quality_information.parts(similarity, words, 0)
    assert list(parts) == list(quality_information.ARMS)
    assert all(abs(len(rows) - 2000) < 30 and len(set(rows.tolist())) == len(rows) for rows in parts.values())
    least, most, _, held_least, held_most = parts.values()
    assert similarity[least].max() <= similarity[most].min() and not set(held_least) & set(held_most)
    assert words[most].sum(1).mean() > 1.5 * words[least].sum(1).mean()
    assert words[held_most].sum(1).mean() == pytest.approx(words[held_least].sum(1).mean(), rel=0.05)
    longer = (words[:, 0] > words[:, 1]).astype(float)
    assert longer[held_most].mean() == pytest.approx(longer[held_least].mean(), abs=0.02)
    assert similarity[held_most].mean() > similarity[held_least].mean() + 0.05


def test_parts_of_very_few_pairs() -> None:
    parts = quality_information.parts(np.array([0.1, 0.2]), np.array([[1, 2], [2, 1]]), 0)
    assert [len(rows) for rows in parts.values()][:3] == [1, 1, 1]


# ---- comparing


def test_mcnemar_and_holm_are_the_textbook_ones() -> None:
    first = np.array([1] * 15 + [0] * 5 + [1] * 30 + [0] * 10, float)
    second = np.array([0] * 15 + [1] * 5 + [1] * 30 + [0] * 10, float)
    found = quality_compare.mcnemar(first, second)
    assert (found["only_first"], found["only_second"]) == (15, 5)
    assert found["p"] == pytest.approx(2 * sum(math.comb(20, k) for k in range(6)) / 2**20)
    assert quality_compare.mcnemar(first, first)["p"] == 1.0
    with pytest.raises(HeedfulError, match="same rows"):
        quality_compare.mcnemar(first, second[:-1])
    assert quality_compare.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert quality_compare.holm([]) == []


def test_intervals_cover_the_truth_and_stay_unknown_where_they_must() -> None:
    hits = 0
    for seed in range(100):
        values = (np.random.default_rng(seed).random((120, 1)) < 0.7).astype(float)
        found = quality_compare.interval_of(values, lambda m: float(m[0]), seed=seed)
        hits += found.low <= 0.7 <= found.high
    assert hits >= 88
    assert not quality_compare.interval_of(np.ones((1, 1)), lambda m: float(m[0])).known
    assert not quality_compare.interval_of(np.ones((9, 1)), lambda m: math.nan).known


def test_rows_of_a_prompt_count_once() -> None:
    prompts = np.array([7, 7, 7, 9])
    assert quality_compare.by_prompt(np.array([1.0, 1, 1, 0]), prompts).tolist() == [1, 0]
    table = quality_compare.by_prompt(np.array([[1.0, 0], [0, 0], [1, 0], [0, 1]]), prompts)
    assert table == pytest.approx(np.array([[2 / 3, 0], [0, 1]]))


# ---- languages


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("What is the best way to make a cup of tea for all of us?", "english"),
        ("Was ist der beste Weg, um eine Tasse Tee zu kochen, wenn ich nicht viel Zeit habe?", "german"),
        ("Quelle est la meilleure façon de faire du thé pour nous dans la cuisine?", "french"),
        ("今天天气很好，我们去公园吧。", "chinese"),
        ("きょうはとてもいい天気ですね。", "japanese"),
        ("Сегодня очень хорошая погода.", "cyrillic script"),
        ("def f(x): return x**2", "other"),
        ("", "other"),
    ],
)
def test_languages(text: str, name: str) -> None:
    assert language(text) == name and name in languages()


def test_profile_gives_shares() -> None:
    code = {name: i for i, name in enumerate(languages())}
    assert profile([code["english"]] * 3 + [code["other"]]) == {"english": 0.75, "other": 0.25}
