"""Verdicts on pairs of answers: both orders, scores as verdicts, verdicts as scores, and verdicts from a file."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from heedful.errors import HeedfulError
from heedful.feedback import Feedback, Samples, pairs
from heedful.judges.comparing import (
    Comparison,
    as_judge,
    both_orders,
    by_score,
    check_useful,
    from_verdicts,
)

NAN = math.nan
Shown = Sequence[tuple[int, str, str]]


def listed(comparison: Comparison) -> list[float | None]:
    """p with None for NaN, which equals itself."""
    return [None if p != p else round(p, 6) for p in comparison.p.tolist()]


def longer(shown: Shown) -> list[float | None]:
    """Prefers the longer answer, wherever it stands."""
    return [0.9 if len(b) > len(a) else 0.1 if len(a) > len(b) else 0.5 for _, a, b in shown]


# ---- both orders


def test_a_verdict_counts_when_it_survives_exchanging_the_two() -> None:
    out = both_orders(["aa", "a", "ab"], ["a", "aa", "cd"], longer)
    assert listed(out) == [0.1, 0.9, 0.5]
    assert out.counts == {"ties": 1, "disagreements": 0, "unparsable": 0} and out.rates == {"position": 0.5}
    assert out.notes == ["the first is better", "the second is better", "tie"]


def test_the_two_questions_of_a_pair_follow_each_other_and_equal_answers_are_not_asked_about() -> None:
    seen: list[tuple[int, str, str]] = []

    def look(shown: Shown) -> list[float | None]:
        seen.extend(shown)
        return longer(shown)

    out = both_orders(["aa", "same  text", "b"], ["a", "same text\n", "bb"], look)
    assert seen == [(0, "aa", "a"), (0, "a", "aa"), (2, "b", "bb"), (2, "bb", "b")]
    assert listed(out) == [0.1, 0.5, 0.9] and out.counts["ties"] == 1
    assert out.notes is not None and out.notes[1] == "the answers are equal"


@pytest.mark.parametrize("favour", [0.0, 0.2, 0.8, 1.0])
def test_a_judge_that_goes_by_the_place_is_found_out(favour: float) -> None:
    """`favour` is the probability given to the answer shown second, whatever it is."""

    def look(shown: Shown) -> list[float | None]:
        return [favour] * len(shown)

    out = both_orders(["a"] * 3, ["b"] * 3, look)
    assert listed(out) == [None] * 3 and out.counts["disagreements"] == 3
    assert out.rates["position"] == pytest.approx(1 - favour)
    kept = both_orders(["a"] * 3, ["b"] * 3, look, disagreement="probability")
    assert listed(kept) == [0.5] * 3 and kept.counts == out.counts


@pytest.mark.parametrize(
    ("straight", "exchanged", "p", "kept", "count"),
    [
        (0.9, 0.3, 0.8, 0.8, None),
        (0.3, 0.9, 0.2, 0.2, None),
        (0.9, 0.6, None, 0.65, "disagreements"),
        (1.0, 0.5, None, 0.75, "disagreements"),
        (0.5, 0.5, 0.5, 0.5, "ties"),
        (None, 0.1, None, None, "unparsable"),
        (0.9, None, None, None, "unparsable"),
        (None, None, None, None, "unparsable"),
    ],
)
def test_what_two_verdicts_make(
    straight: float | None, exchanged: float | None, p: float | None, kept: float | None, count: str | None
) -> None:
    def look(shown: Shown) -> list[float | None]:
        return [straight, exchanged]

    out = both_orders(["a"], ["b"], look)
    assert listed(out) == [p]
    assert listed(both_orders(["a"], ["b"], look, disagreement="probability")) == [kept]
    assert {name for name, number in out.counts.items() if number} == ({count} if count else set())


verdict = st.one_of(st.none(), st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1, width=16))


@given(st.lists(st.tuples(verdict, verdict), max_size=8))
def test_exchanging_first_and_second_answers_exchanges_the_verdicts(said: list[tuple[Any, Any]]) -> None:
    first, second = [f"a{i}" for i in range(len(said))], [f"b{i}" for i in range(len(said))]

    def look(shown: Shown) -> list[float | None]:
        return [said[i][a.startswith("b")] for i, a, _ in shown]

    for disagreement in ("nan", "probability"):
        one = both_orders(first, second, look, disagreement=disagreement)
        other = both_orders(second, first, look, disagreement=disagreement)
        assert torch.allclose(one.p, 1 - other.p, atol=1e-6, equal_nan=True)
        assert one.counts == other.counts
        assert one.rates.get("position") == pytest.approx(other.rates.get("position"))
    strict = both_orders(first, second, look)
    winners = int(((strict.p - 0.5).abs() > 0).sum())
    assert sum(strict.counts.values()) + winners == len(said), "every pair is counted once"


def test_what_does_not_fit_is_refused_before_anybody_is_asked() -> None:
    def look(shown: Shown) -> list[float | None]:
        raise AssertionError("asked")

    with pytest.raises(HeedfulError, match="choose nan or probability"):
        both_orders(["a"], ["b"], look, disagreement="mean")  # type: ignore[arg-type]
    with pytest.raises(HeedfulError, match="1 verdicts came on 2 questions"):
        both_orders(["a"], ["b"], lambda shown: [0.5])
    assert listed(both_orders([], [], lambda shown: [])) == []


@pytest.mark.parametrize(
    ("p", "said"),
    [
        (torch.tensor([0.5], dtype=torch.float64), "float32"),
        (torch.tensor([[0.5]]), "one number for each pair"),
        ([0.5], "float32"),
        (torch.tensor([1.5]), r"in \[0, 1\]"),
        (torch.tensor([-0.1]), r"in \[0, 1\]"),
        (torch.tensor([math.inf]), r"in \[0, 1\]"),
    ],
)
def test_a_comparison_of_another_form_is_refused(p: Any, said: str) -> None:
    with pytest.raises(HeedfulError, match=said):
        Comparison(p)
    with pytest.raises(HeedfulError, match="2 notes for 1 pairs"):
        Comparison(torch.tensor([0.5]), notes=["", ""])


# ---- scores


def scores(table: dict[str, float]) -> Any:
    def judge(samples: Samples) -> Feedback:
        return Feedback(
            score=torch.tensor([table[o] for o in samples.outputs]).view(len(samples.inputs), samples.n)
        )

    return judge


def test_the_higher_score_wins() -> None:
    judge = scores({"low": -1.0, "high": 2.5, "also high": 2.5, "none": NAN})
    out = by_score(judge)(
        ["p"] * 5,
        ["low", "high", "high", "none", "low"],
        ["high", "low", "also high", "low", "none"],
    )
    assert listed(out) == [1.0, 0.0, 0.5, None, None]
    assert out.counts == {"ties": 1, "no_opinion": 2}


def test_the_judge_gets_each_prompt_with_its_two_answers() -> None:
    seen: list[Samples] = []

    def judge(samples: Samples) -> Feedback:
        seen.append(samples)
        return Feedback(score=torch.zeros(2, 2))

    by_score(judge)(["p", "q"], ["a", "c"], ["b", "d"])
    assert seen == [Samples(["p", "q"], ["a", "b", "c", "d"], 2)]
    with pytest.raises(HeedfulError, match="2 prompts, but 2 first answers and 1 second"):
        by_score(judge)(["p", "q"], ["a", "c"], ["b"])


def test_every_two_outputs_are_compared_and_the_score_is_the_share_of_wins() -> None:
    asked: list[tuple[Any, str, str]] = []

    def comparer(prompts: Sequence[Any], first: Sequence[str], second: Sequence[str]) -> Comparison:
        asked.extend(zip(prompts, first, second, strict=True))
        table = {("a", "b"): 1.0, ("a", "c"): 0.25, ("b", "c"): NAN}
        return Comparison(torch.tensor([table.get(pair, NAN) for pair in zip(first, second, strict=True)]))

    out = as_judge(comparer)(Samples(["p", "q"], ["a", "b", "c", "x", "y", "z"], 3))
    in_group = [("a", "b"), ("a", "c"), ("b", "c")], [("x", "y"), ("x", "z"), ("y", "z")]
    assert asked == [(prompt, *pair) for prompt, group in zip("pq", in_group) for pair in group]
    assert out.score[0].tolist() == [0.375, 1.0, 0.25] and out.score[1].isnan().all()
    assert out.notes is not None and out.notes[:2] == ["0.75 wins of 2", "1 wins of 1"]
    assert out.notes[3:] == ["never compared"] * 3


def test_one_output_alone_is_compared_with_nothing() -> None:
    out = as_judge(by_score(scores({"a": 1.0})))(Samples(["p"], ["a"], 1))
    assert out.score.shape == (1, 1) and out.score.isnan().all()


@given(st.lists(st.integers(-5, 5), min_size=2, max_size=6))
def test_scores_turned_into_verdicts_and_back_keep_their_order(values: list[int]) -> None:
    names = [f"o{i}" for i in range(len(values))]
    judge = scores({name: float(v) for name, v in zip(names, values, strict=True)})
    samples = Samples(["p"], names, len(names))
    back = as_judge(by_score(judge))(samples).score[0].tolist()
    for a, x in zip(values, back, strict=True):
        for b, y in zip(values, back, strict=True):
            assert (a > b) == (x > y) and (a == b) == (x == y)
    assert (
        pairs(samples, judge(samples), how="all").counts
        == pairs(samples, as_judge(by_score(judge))(samples), how="all").counts
    )


# ---- verdicts from a file


def written(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


TALK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]


def test_verdicts_are_looked_up_by_content(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "p", "chosen": "good ", "rejected": "bad"},
        {"prompt": "q", "chosen": "x", "rejected": "y"},
        {"prompt": "q", "chosen": "y", "rejected": "x"},
        {"prompt": "q", "chosen": "y", "rejected": "x"},
        {
            "prompt": TALK,
            "chosen": [{"role": "assistant", "content": "So."}],
            "rejected": [{"role": "assistant", "content": "No."}],
        },
    ]
    compare = from_verdicts(written(tmp_path / "v.jsonl", rows))
    prompts = ["p", "p", "q", TALK, "p", "other", "p"]
    first = ["bad", "good", "x", "So.", "same", "good", "bad"]
    second = ["good", " bad\n", "y", "No.", "same ", "bad", "worse"]
    out = compare(prompts, first, second)
    assert listed(out) == [1.0, 0.0, round(2 / 3, 6), 0.0, 0.5, None, None]
    assert out.counts == {"ties": 1, "missing": 2, "contradicted": 1}
    with pytest.raises(HeedfulError, match="1 prompts, but 0 first"):
        compare(["p"], [], [])


def test_columns_of_another_name_are_mapped(tmp_path: Path) -> None:
    path = written(tmp_path / "v.jsonl", [{"prompt": "p", "good": "a", "bad": "b"}])
    out = from_verdicts(path, {"chosen": "good", "rejected": "bad"})(["p"], ["b"], ["a"])
    assert listed(out) == [1.0]


def test_what_is_wrong_with_a_file_of_verdicts_is_said_with_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "v.jsonl"
    path.write_text(
        '{"prompt": "p", "chosen": "a", "rejected": "b"}\n{"prompt": "p", "chosen": "", "rejected": "b"}\n'
        '{"prompt": "p", "chosen": 3, "rejected": "b"}\n{"prompt": "p"\n'
    )
    with pytest.raises(HeedfulError) as refused:
        from_verdicts(path)
    said = str(refused.value)
    assert all(f"{path}:{line}" in said for line in (2, 3, 4)) and f"{path}:1" not in said
    with pytest.raises(HeedfulError, match="there is no such file"):
        from_verdicts(tmp_path / "nowhere.jsonl")
    path = written(tmp_path / "w.jsonl", [{"chosen": "abc", "rejected": "xyz"}])
    with pytest.raises(HeedfulError, match=r"w\.jsonl"):
        from_verdicts(path)


# ---- whether a comparison is of use


def comparison(p: list[float], **counts: int) -> Comparison:
    return Comparison(torch.tensor(p), counts=counts)


def test_one_winner_is_enough_unless_more_are_wanted() -> None:
    check_useful(comparison([0.5, NAN, 0.6]), "the critic")
    with pytest.raises(HeedfulError, match="a winner in 1 of 3 pairs of answers, and at least 2 are needed"):
        check_useful(comparison([0.5, NAN, 0.6], ties=1), "the critic", least=2)


@pytest.mark.parametrize(
    ("p", "counts", "said"),
    [
        ([0.5] * 3, {"ties": 3}, ["3 ties", "higher temperature"]),
        ([NAN] * 2, {"disagreements": 2}, ["2 where the two orders disagree", "disagreement='probability'"]),
        ([NAN] * 3, {"unparsable": 2, "disagreements": 1}, ["2 without a readable verdict", "more tokens"]),
        ([NAN], {"missing": 1}, ["1 that the file of verdicts does not have", "very prompts"]),
        ([NAN], {"no_opinion": 1}, ["1 without a score", "must score both"]),
        ([NAN], {}, ["in 0 of 1 pairs", "Use another judge"]),
        ([], {}, ["no pairs of answers to compare"]),
    ],
)
def test_a_comparison_without_a_winner_is_explained(
    p: list[float], counts: dict[str, int], said: list[str]
) -> None:
    with pytest.raises(HeedfulError) as refused:
        check_useful(comparison(p, **counts), "the critic gpt at http://host")
    message = str(refused.value)
    assert message.startswith("the critic gpt at http://host ") and all(part in message for part in said)


def test_the_explanation_shows_the_bias_and_a_reply_that_could_not_be_read() -> None:
    out = Comparison(
        torch.tensor([NAN, NAN]),
        counts={"disagreements": 1, "unparsable": 1},
        rates={"position": 0.93},
        examples=["As an AI model"],
    )
    with pytest.raises(HeedfulError, match=r"shown first 93% of its votes; .*'As an AI model'"):
        check_useful(out, "it")
