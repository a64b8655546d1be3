"""Intervals against hand values and simulated coverage; text measurements; the rows that reach the report."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pytest

from heedful.errors import HeedfulError
from heedful.evals import language
from heedful.evals.intervals import bootstrap, kl_to_start, paired_bootstrap, per_prompt, tie_rate, win_rate

NAN = float("nan")


def test_paired_bootstrap_hand_values() -> None:
    interval = paired_bootstrap([1, 2, 3, 4], [2, 4, 4, 6])
    assert interval.estimate == pytest.approx(1.5)
    assert (interval.n, interval.missing) == (4, 0)
    # Every difference is 1 or 2, so no resampled mean lies outside; zero is excluded.
    assert 1.0 <= interval.low < 1.5 < interval.high <= 2.0
    assert interval.excludes_zero


def test_paired_is_narrower_than_unpaired_for_correlated_prompts() -> None:
    rng = np.random.default_rng(3)
    prompt = rng.normal(0, 10, 60)
    before, after = prompt + rng.normal(0, 1, 60), prompt + 1 + rng.normal(0, 1, 60)
    paired = paired_bootstrap(before, after)
    alone = bootstrap(after)
    assert paired.excludes_zero
    assert (paired.high - paired.low) < 0.3 * (alone.high - alone.low)


def test_mean_interval_matches_the_normal_one_for_large_symmetric_data() -> None:
    values = np.random.default_rng(0).normal(5, 2, 400)
    interval = bootstrap(values, samples=20_000)
    half = 1.96 * values.std(ddof=1) / 20
    assert interval.low == pytest.approx(values.mean() - half, abs=0.03)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.03)


@pytest.mark.parametrize("kind", ["normal", "skewed"])
def test_coverage_over_prompts_with_repeated_samples(kind: str) -> None:
    """95% intervals cover the truth; resampling the 4 samples of a prompt singly would cover about 70%."""
    rng = np.random.default_rng(11)
    covered = 0
    for trial in range(300):
        if kind == "normal":
            prompt = rng.normal(0, 1, 30)
        else:
            prompt = rng.exponential(1, 30) - 1
        after = prompt[:, None] + 0.3 + rng.normal(0, 0.2, (30, 4))
        interval = paired_bootstrap(np.zeros(30), after, samples=1000, seed=trial)
        covered += interval.low <= 0.3 <= interval.high
    assert 0.89 <= covered / 300 <= 0.98


def test_bca_corrects_for_skew() -> None:
    """For a right-skewed sample the upper arm is longer than the lower one, more so than by percentiles."""
    values = np.random.default_rng(5).exponential(1, 40)
    interval = bootstrap(values)
    rng = np.random.default_rng(0)
    plain = np.quantile(values[rng.integers(0, 40, (10_000, 40))].mean(-1), [0.025, 0.975])
    assert interval.high - interval.estimate > interval.estimate - interval.low
    assert interval.high > plain[1] and interval.low > plain[0]


def test_same_seed_same_interval_and_statistic_is_free() -> None:
    values = np.arange(50.0) ** 2
    assert bootstrap(values, seed=4) == bootstrap(values, seed=4)
    assert bootstrap(values, seed=4) != bootstrap(values, seed=5)
    median = bootstrap(values, statistic=np.median)
    assert median.estimate == np.median(values)
    assert median.low < median.estimate < median.high


def test_samples_of_a_prompt_are_averaged_first() -> None:
    nested = [[1.0, 3.0], [5.0], [NAN, 7.0]]
    assert per_prompt(nested).tolist() == [2.0, 5.0, 7.0]
    assert per_prompt([1, 5, 3, 7], groups=["a", "b", "a", "c"]).tolist() == [2.0, 5.0, 7.0]
    assert bootstrap([1, 5, 3, 7], groups=["a", "b", "a", "c"]) == bootstrap([2.0, 5.0, 7.0])


def test_one_prompt_has_no_interval_and_constants_have_width_zero() -> None:
    one = paired_bootstrap([1.0], [3.0])
    assert one.estimate == 2.0 and not one.known and one.bounds() is None and not one.excludes_zero
    constant = paired_bootstrap([1.0] * 9, [3.0] * 9)
    assert (constant.low, constant.high) == (2.0, 2.0)


def test_nan_is_left_out_and_counted() -> None:
    interval = paired_bootstrap([1.0, NAN, 2.0, 3.0], [2.0, 5.0, NAN, 5.0])
    assert interval.estimate == pytest.approx(1.5)
    assert (interval.n, interval.missing) == (2, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: paired_bootstrap([1, 2], [1]), "2 prompts and after has 1"),
        (lambda: win_rate([1, 2], [1]), "2 prompts and after has 1"),
        (lambda: bootstrap([]), "empty"),
        (lambda: bootstrap([NAN, NAN]), "all 2 are NaN"),
        (lambda: bootstrap([1.0, math.inf]), "infinite"),
        (lambda: bootstrap(["a", "b"]), "not a number"),
        (lambda: bootstrap("abc"), "list of numbers"),
        (lambda: bootstrap([1, 2, 3], level=1.0), "level"),
        (lambda: bootstrap([1, 2, 3], samples=5), "samples"),
        (lambda: bootstrap([1, 2, 3], groups=["a"]), "group labels"),
        (lambda: bootstrap([[[1.0]]]), "nested too deeply"),
        (lambda: kl_to_start([[1.0, 2.0]], [[1.0]]), "completions"),
    ],
)
def test_bad_input_is_one_clear_error(call, message: str) -> None:
    with pytest.raises(HeedfulError, match=message):
        call()


def test_win_rate_hand_values() -> None:
    rate = win_rate([1, 1, 1, 1], [2, 0, 1, 2])
    assert rate.estimate == pytest.approx(0.625)  # two wins, one loss, one tie
    # All pairs of samples meet: (1,3) against (2,2) is one win and one loss.
    assert win_rate([[1, 3]], [[2, 2]]).estimate == 0.5
    assert win_rate([1, NAN], [2, 2]).missing == 1


def test_winning_everything_is_not_certainty() -> None:
    rate = win_rate([0] * 20, [1] * 20)
    assert rate.estimate == 1.0 and rate.high == 1.0
    assert rate.low == pytest.approx(0.8316, abs=1e-4)  # Clopper-Pearson for 20 of 20
    assert win_rate([1] * 20, [0] * 20).high == pytest.approx(1 - 0.8316, abs=1e-4)


def test_tie_rate() -> None:
    assert tie_rate([1, 2, 3], [1, 5, 3]) == pytest.approx(2 / 3)
    assert tie_rate([[1, 1, 2], [3, 4, 5]]) == pytest.approx((1 / 3 + 0) / 2)
    assert math.isnan(tie_rate([[1], [2]]))


def test_kl_from_completions() -> None:
    kl = kl_to_start([[-10.0, -12.0], [-8.0, -8.0]], [[-11.0, -15.0], [-9.0, -9.0]])
    assert kl.estimate == pytest.approx((2.0 + 1.0) / 2)
    assert kl.n == 2
    # A known case: samples of N(1,1) against N(0,1) have KL 1/2.
    x = np.random.default_rng(0).normal(1, 1, 4000)
    known = kl_to_start(-0.5 * (x - 1) ** 2, -0.5 * x**2, samples=1000)
    assert known.low < 0.5 < known.high and known.high - known.low < 0.1


def test_text_measurements_by_hand() -> None:
    text = "Don't panic: well-known facts cost 3.5 euros. Is that so?"
    assert language.words(text) == [
        "don't",
        "panic",
        "well-known",
        "facts",
        "cost",
        "3",
        "5",
        "euros",
        "is",
        "that",
        "so",
    ]
    assert language.sentence_count(text) == 2
    assert language.sentence_count("") == 0 and language.sentence_count("no end") == 1
    assert language.words("猫が好き") == list("猫が好き")
    assert language.content_words("It is the 3 cats’ x day") == ["3", "cats", "day"]
    for good in ("Yes.", "Yes!  ", 'He said "yes."', "**Done.**", "(Really?)", "好き。"):
        assert language.ends_in_sentence(good), good
    for bad in ("", "Yes", "Yes,", "1. milk\n2. eggs", "e.g. this"):
        assert not language.ends_in_sentence(bad), bad
    # a b c a b c: trigrams abc bca cab abc, one of four seen before.
    assert language.repetition("a b c a b c") == pytest.approx(0.25)
    assert language.repetition("a b") == 0.0
    assert language.overlap("Cats eat mice.", "The cats and dogs eat.") == pytest.approx(2 / 3)
    assert math.isnan(language.overlap("x", "it is"))
    assert language.question_echo("What do cats eat?", "Cats eat fresh mice.") == pytest.approx(0.5)
    messages = [{"role": "user", "content": "What do cats eat?"}]
    assert language.question_echo(messages, "Cats eat fresh mice.") == pytest.approx(0.5)
    measured = language.measure("Mice.", prompt="Cats?", start="Cats eat mice.")
    assert measured["very_short"] == 1.0 and measured["overlap"] == pytest.approx(1 / 3)


def test_measurements_stay_fast_on_hostile_text() -> None:
    for text in ("." * 200_000, "\n" * 200_000, '."' * 100_000, "a-" * 100_000, "'" * 200_000):
        language.measure(text)


GOOD = [
    "Sleep restores the brain and body, so most adults need about eight hours every single night.",
    "Plants turn sunlight, water and carbon dioxide into sugar; the process is called photosynthesis.",
    "Boil the eggs for seven minutes, then cool them in cold water before you peel them.",
]


def test_healthy_answers_raise_no_warning() -> None:
    shorter = [" ".join(t.split()[:10]) + "." for t in GOOD]
    signs, warnings = language.hacking_signs(
        GOOD, shorter, prompts=["Why sleep?", "How do plants eat?", "Eggs?"]
    )
    assert warnings == []
    assert signs["very_short_after"] == 0 and signs["collapse_after"] == 0
    assert 0.4 < signs["overlap_with_start"] < 1


@pytest.mark.parametrize(
    ("after", "word"),
    [
        (["Bite", "Bite.", "Eat"], "under 8 words"),
        ([t.rstrip(".") + " and" for t in GOOD], "end in a sentence"),
        (["sleep is good " * 12 + "."] * 3, "Repeated"),
        (["It depends on many different things, so please ask an expert about that."] * 3, "identical"),
        (["Why should people sleep every night, people should sleep?"] * 3, "taken from the question"),
        (
            ["Nothing whatever relates these words with anything said earlier, sadly, friend."] * 3,
            "keep only",
        ),
    ],
)
def test_each_trick_is_named(after: list[str], word: str) -> None:
    prompts = ["Why should people sleep every night?"] * 3
    _, warnings = language.hacking_signs(GOOD, after, prompts=prompts)
    assert any(word in w for w in warnings), warnings


def test_compare_rows() -> None:
    prompts = ["Why sleep?", "How do plants eat?", "How long do eggs boil?"]
    after = [" ".join(t.split()[:10]) + "." for t in GOOD]
    scores = [0.0, 1.0, NAN], [1.0, 3.0, 2.0]
    rows = language.compare(prompts, GOOD, after, *scores, logp_after=[-1, -2, -3], logp_start=[-3, -3, -3])
    by_name = {r["name"]: r for r in rows}
    assert set(rows[0]) == {"name", "before", "after", "change", "interval", "better", "unit", "note"}
    score = by_name["judge score"]
    assert (score["before"], score["after"], score["change"]) == (0.5, 2.0, 1.5)
    assert "1 of 3 prompts without a score left out" in score["note"]
    assert by_name["win rate"]["after"] == 1.0
    length = by_name["answer length"]
    assert length["after"] == 10 and length["change"] == pytest.approx(length["after"] - length["before"])
    assert length["interval"][0] <= length["change"] <= length["interval"][1] < 0
    assert by_name["KL to the start model"]["after"] == pytest.approx(1.0)
    overlap = by_name["overlap with start answers"]
    assert overlap["before"] is None and 0.4 < overlap["after"] < 1
    json.dumps(rows, allow_nan=False)


def test_compare_with_several_samples_and_without_scores() -> None:
    rows = language.compare(["p", "q"], [[GOOD[0], GOOD[1]], [GOOD[1], GOOD[2]]], [[GOOD[0]], [GOOD[2]]])
    by_name = {r["name"]: r for r in rows}
    assert "judge score" not in by_name
    assert by_name["overlap with start answers"]["before"] is not None
    json.dumps(rows, allow_nan=False)
    silent = language.compare(["p", "q"], GOOD[:2], GOOD[:2], [NAN, NAN], [1.0, 1.0])
    assert silent[0]["change"] is None and "no prompt" in silent[0]["note"]
    for text in ("", "…", "\U0001f600"):
        json.dumps(language.compare(["p", "q"], [text, text], [text, text], [1, 1], [1, 1]), allow_nan=False)


@pytest.mark.parametrize(
    "call",
    [
        lambda: language.compare(["p"], GOOD, GOOD),
        lambda: language.compare(["p", "q", "r"], GOOD, GOOD[:2]),
        lambda: language.compare(["p", "q", "r"], GOOD, GOOD, [1, 2], [1, 2]),
        lambda: language.compare(["p", "q", "r"], GOOD, GOOD, [1, 2, 3]),
        lambda: language.compare(["p", "q", "r"], GOOD, GOOD, logp_after=[1, 2, 3]),
        lambda: language.compare([], [], []),
        lambda: language.hacking_signs("one text", "another"),
        lambda: language.hacking_signs([[]], [["x"]]),
        lambda: language.heldout_rows(["p"], [["a", "b"]], [["a"]]),
        lambda: language.prompt_text(7),
        lambda: language.implicit_rewards([1, 2], [1]),
    ],
)
def test_mismatches_are_refused(call) -> None:
    with pytest.raises(HeedfulError):
        call()


def test_implicit_rewards_warn_when_h_w_falls() -> None:
    rng = np.random.default_rng(0)
    rows, warnings = language.implicit_rewards(rng.normal(-3, 1, 40), rng.normal(-9, 1, 40))
    by_name = {r["name"]: r for r in rows}
    assert by_name["h_w (chosen)"]["before"] == 0 and by_name["h_w (chosen)"]["interval"][1] < 0
    assert by_name["h_w − h_l"]["change"] > 5 and by_name["preference accuracy"]["after"] == 1.0
    assert by_name["preference accuracy"]["before"] == 0.5
    assert len(warnings) == 1 and "h_w fell by" in warnings[0] and "includes zero" not in warnings[0]
    assert language.implicit_rewards(rng.normal(2, 1, 40), rng.normal(-9, 1, 40))[1] == []
    unsure = language.implicit_rewards([-1.0, 0.9, -0.2], [0.0, 0.0, 0.0])[1]
    assert "includes zero" in unsure[0]


def test_heldout_rows_and_samples_show_wins_and_losses() -> None:
    prompts = [f"question {i}" for i in range(50)]
    before, after = ["old answer."] * 50, ["new."] * 50
    changes = np.linspace(-2, 3, 50)
    rows = language.heldout_rows(prompts, before, after, [0.0] * 49 + [NAN], changes, None, ["note"] * 50)
    assert rows[0] == {
        "prompt": "question 0",
        "before": {"text": "old answer.", "score": 0.0, "words": 2, "notes": ""},
        "after": {"text": "new.", "score": -2.0, "words": 1, "notes": "note"},
    }
    assert rows[-1]["before"]["score"] is None
    picked = language.pick_samples(rows, limit=10)
    gains = [p["after"]["score"] for p in picked]
    assert len(picked) == 10 and max(gains) == rows[48]["after"]["score"] and min(gains) == -2.0
    assert set(picked[0]) == {"input", "before", "after", "group"}


def test_no_torch_is_imported() -> None:
    code = "import sys, heedful.evals.language, heedful.evals.intervals; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
