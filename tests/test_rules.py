"""Rules and Python functions as judges."""

from __future__ import annotations

import math
import sys
import textwrap
from operator import eq, ge, gt, le, lt
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from heedful.errors import HeedfulError
from heedful.feedback import Samples
from heedful.judges.rules import parse_judge, reward_function
from heedful.policies.language import Completion


def scores(spec: str, *answers: str, row: dict[str, Any] | None = None) -> list[float]:
    samples = Samples(["Why?"], list(answers), len(answers))
    return parse_judge(spec, columns=lambda prompt: row or {})(samples).score[0].tolist()


def test_a_length_that_fails_scores_by_the_share_that_is_too_much_or_missing() -> None:
    answers = ["one two", "one two three", "one two three four", "w " * 30]
    assert scores("rule:length<=3w", *answers) == pytest.approx([1, 1, -1 / 4, -27 / 30])
    assert scores("rule:length<3w", *answers) == pytest.approx([1, -1 / 3, -2 / 4, -28 / 30])
    assert scores("rule:length>3w", *answers) == pytest.approx([-2 / 4, -1 / 4, 1, 1])
    assert scores("rule:length>=3", *answers) == pytest.approx([-1 / 3, 1, 1, 1])
    assert scores("rule:length==3w", *answers) == pytest.approx([-1 / 3, 1, -1 / 4, -27 / 30])
    assert scores("rule:length < 9c", "12345678", "123456789") == pytest.approx([1, -1 / 9])
    assert scores("rule:length<=1s", "One. Two.", "One, two.") == [-1 / 2, 1]
    assert scores("rule:length<=0w", "", "one", "one two") == [1, -1, -1]
    assert scores("rule:length>=2w", "", "Don't go.") == [-1, 1]


@given(
    st.sampled_from(["<", "<=", ">", ">=", "=="]),
    st.integers(1, 60),
    st.integers(0, 200),
    st.integers(0, 200),
)
def test_a_length_nearer_to_the_limit_never_scores_lower(sign: str, limit: int, a: int, b: int) -> None:
    holds = {"<": lt, "<=": le, ">": gt, ">=": ge, "==": eq}[sign]
    first, second = scores(f"rule:length{sign}{limit}c", "x" * a, "x" * b)
    for score, length in ((first, a), (second, b)):
        assert score == 1 if holds(length, limit) else -1 <= score < 0
    same_side = (a - limit) * (b - limit) > 0
    if not holds(a, limit) and not holds(b, limit) and same_side and limit > 1:
        assert (first > second) == (abs(a - limit) < abs(b - limit))


def test_patterns_text_and_exact_answers() -> None:
    assert scores("rule:regex=^A.*c$", "Abc", "abc", "xAc") == [1, 0, 0]
    assert scores("rule:not-regex=#\\w", "no tag", "a #tag") == [1, 0]
    assert scores("rule:regex=a\\x3bb", "a;b", "ab") == [1, 0]
    assert scores("rule:regex=^\\w+=\\d$", "x=1", "x") == [1, 0]
    assert scores("rule:contains=Onwards", "and ONWARDS!", "no") == [1, 0]
    assert scores("rule:exact", " The  answer", "answer", row={"answer": "the answer"}) == [1, 0]
    assert scores("rule:exact=gold", "7", "8", row={"gold": 7}) == [1, 0]
    assert all(math.isnan(s) for s in scores("rule:exact", "7", row={"gold": 7}))


def test_rules_add_up_and_the_notes_name_the_failures() -> None:
    samples = Samples(["Why?"], ["Because.", "Because it is so."], 2)
    feedback = parse_judge("rule:length<3w; regex=so")(samples)
    assert feedback.score.tolist() == [[1, 1 - 2 / 4]]
    assert feedback.notes == ["fails regex=so", "fails length<3w"]
    unsure = parse_judge("rule:length<3w;exact")(samples)
    assert unsure.score[0, 0] == 1, "a rule without an opinion does not silence the others"
    assert unsure.notes is not None and unsure.notes[0] == ""


def test_scores_stand_where_their_samples_do_and_rows_are_read_once() -> None:
    asked: list[str] = []

    def columns(prompt: str) -> dict[str, Any]:
        asked.append(prompt)
        return {"answer": prompt.lower()}

    samples = Samples(["A", "B"], ["a", "b", "c", "b", "a", "B"], 3)
    feedback = parse_judge("rule:exact", columns=columns)(samples)
    assert feedback.score.tolist() == [[1, 0, 0], [1, 0, 1]] and asked == ["A", "B"]
    assert feedback.notes == ["", "fails exact", "fails exact", "", "fails exact", ""]


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("short", "neither rule:"),
        ("rule:", "neither rule:"),
        ("rule:brief", "there is no rule 'brief'"),
        ("rule:length<0w", "no answer has length<0w"),
        ("rule:length<forty", "there is no rule"),
        ("rule:length<-3w", "there is no rule"),
        ("rule:length=3w", "there is no rule"),
        ("rule:length<3w,exact", "there is no rule"),
        ("rule:regex=", "there is no rule"),
        ("rule:exact=", "there is no rule"),
        ("rule:contains", "there is no rule"),
        ("rule:regex=(", "does not compile: missing ), unterminated subpattern at character 1"),
        (
            "rule:exact;not-regex=ab[c",
            "the pattern 'ab[c' does not compile: unterminated character set at character 3",
        ),
        ("rule:regex=a{99999999999999999999}", "does not compile: the repetition number is too large"),
        ("package.module:function", "neither rule:"),
        ("nowhere.py:judge", "nowhere.py does not exist"),
        ("judge.py:", "neither rule:"),
        ("judge.py", "neither rule:"),
    ],
)
def test_other_specifications_are_refused(spec: str, told: str) -> None:
    with pytest.raises(HeedfulError) as refused:
        parse_judge(spec)
    assert told in str(refused.value)


def judge_file(folder: Path, text: str) -> str:
    path = folder / "judge.py"
    path.write_text(textwrap.dedent(text))
    return f"{path}:judge"


def test_a_function_gets_what_it_names(tmp_path: Path) -> None:
    spec = judge_file(
        tmp_path,
        """
        def judge(prompts, completions, topic):
            assert prompts == ["A?", "A?", "B?", "B?"] and topic == ["x", "x", None, None]
            return [len(c) if t else None for c, t in zip(completions, topic)]
        """,
    )
    rows = {"A?": {"topic": "x", "other": 1}, "B?": {"other": 2}}
    outputs = [Completion(t, (5, 2), True, -1.0) for t in ("a", "bb", "ccc", "dddd")]
    score = parse_judge(spec, columns=rows.__getitem__)(Samples(["A?", "B?"], outputs, 2)).score
    assert score[0].tolist() == [1, 2] and score[1].isnan().all()


def test_a_function_with_keywords_gets_everything() -> None:
    seen: dict[str, Any] = {}

    def judge(**everything: Any) -> list[float]:
        seen.update(everything)
        return [0.5] * len(everything["prompts"])

    asked = [{"role": "user", "content": "A?"}]
    outputs = [Completion("a", (5, 2), True, -1.0)]
    feedback = reward_function(judge, columns=lambda prompt: {"topic": "x"})(Samples([asked], outputs, 1))
    assert seen == {
        "prompts": [asked],
        "completions": [[{"role": "assistant", "content": "a"}]],
        "completion_ids": [[5, 2]],
        "topic": ["x"],
    }
    assert feedback.score.tolist() == [[0.5]]


@pytest.mark.parametrize("returned", [torch.tensor([1.0, 2.0]), (True, 2), [torch.tensor(1.0), 2]])
def test_numbers_come_in_many_types(returned: Any) -> None:
    judge = reward_function(lambda prompts, completions: returned)
    assert judge(Samples(["A?"], ["a", "b"], 2)).score.tolist() == [[1, 2]]


def test_messages_and_texts_may_stand_in_one_batch() -> None:
    seen: list[Any] = []
    asked = [{"role": "user", "content": "A?"}]
    reward_function(lambda completions: seen.extend(completions) or [0, 1])(
        Samples([asked, "B?"], ["a", "b"], 1)
    )
    assert seen == [[{"role": "assistant", "content": "a"}], "b"]


def test_none_and_nan_are_no_opinion() -> None:
    judge = reward_function(lambda completions: [None, math.nan, 3])
    score = judge(Samples(["A?"], ["a", "b", "c"], 3)).score
    assert score.isnan().tolist() == [[True, True, False]] and score[0, 2] == 3


def test_an_object_that_can_be_called_is_a_function() -> None:
    class Longer:
        def __call__(self, completions: list[str], power: float = 2.0) -> list[float]:
            return [len(c) ** power for c in completions]

    judge = reward_function(Longer(), columns=lambda prompt: {"other": 1})
    assert judge(Samples(["A?"], ["a", "bb"], 2)).score.tolist() == [[1, 4]]


def test_the_example_in_the_documentation_is_a_judge() -> None:
    judge = parse_judge(f"{Path(__file__).parent.parent / 'examples' / 'judge.py'}:concise")
    answers = [
        "Bees gather nectar, carry it home and fan it with their wings until it has thickened into honey.",
        "Bite.",
    ]
    for prompt in ("How do bees make honey?", [{"role": "user", "content": "How do bees make honey?"}]):
        good, trick = judge(Samples([prompt], answers, 2)).score[0].tolist()
        assert good > trick + 1


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        ([1.0] * 3, "returned 3 scores for 4 completions"),
        ([], "returned 0 scores for 4 completions"),
        (1.0, "returned float; a list of numbers is needed"),
        (None, "returned NoneType; a list of numbers is needed"),
        ({0: 1.0}, "returned dict; a list of numbers is needed"),
        ([1.0, 2, 3, "4"], "returned '4' for completion 2 of prompt 2"),
        ([1.0, [2], 3, "4"], "returned [2] for completion 2 of prompt 1"),
        (torch.ones(4, 2), "returned [1.0, 1.0] for completion 1 of prompt 1"),
        ([torch.ones(2), 1, 1, 1], "for completion 1 of prompt 1; a number or None is needed"),
        ([0, 0, float("inf"), 0], "returned inf for completion 1 of prompt 2"),
        ([0, 0, 0, 1e39], "returned 1e+39 for completion 2 of prompt 2"),
        ([0, -(10**400), 0, 0], "for completion 2 of prompt 1; use a finite number"),
    ],
)
def test_other_returns_are_refused(returned: Any, told: str) -> None:
    judge = reward_function(lambda prompts, completions: returned, name="judge.py:mine")
    with pytest.raises(HeedfulError, match=r"^judge\.py:mine returned ") as refused:
        judge(Samples(["A?", "B?"], ["a", "b", "c", "d"], 2))
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (lambda completions, gold: [1.0], r"needs gold: .* no such column \(they have topic\)"),
        (lambda completions, trainer_state, gold: [1.0], "needs trainer_state, gold: "),
        (lambda prompts, completions, /: [1.0], "takes arguments by position"),
    ],
)
def test_arguments_that_are_not_there_are_named(function: Any, told: str) -> None:
    with pytest.raises(HeedfulError, match=told):
        reward_function(function, name="mine", columns=lambda prompt: {"topic": "x"})(
            Samples(["A?"], ["a"], 1)
        )


def test_coroutines_are_refused() -> None:
    class Later:
        async def __call__(self, completions: list[str]) -> list[float]:
            return [1.0]

    with pytest.raises(HeedfulError, match="Later is a coroutine function"):
        reward_function(Later())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("\ndef judge(:\n", r"judge\.py:2: SyntaxError: invalid syntax$"),
        ("other = 1\n", r"judge\.py has no function 'judge'"),
        ("judge = 1\n", r"judge\.py has no function 'judge'"),
        ("\nimport no_such_module\n", r"judge\.py:2: ModuleNotFoundError: No module named"),
        ("import sys\nsys.exit(0)\n", r"judge\.py:2: SystemExit"),
        ("async def judge(prompts, completions): return []\n", r"judge\.py:judge is a coroutine function"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(HeedfulError, match=told):
        parse_judge(judge_file(tmp_path, text))
    assert "heedful_judge_judge" not in sys.modules or "has no" in told or "coroutine" in told


@pytest.mark.parametrize(
    ("body", "told", "cause"),
    [
        ("return [inner(c) for c in completions]", "raised ZeroDivisionError in line 2: ", ZeroDivisionError),
        ("sys.exit(0)", "raised SystemExit in line 4: ", SystemExit),
        ("return json.loads('{')", "raised JSONDecodeError in line 4: ", ValueError),
    ],
)
def test_what_a_function_raises_is_said_with_its_line(
    body: str, told: str, cause: type[BaseException], tmp_path: Path
) -> None:
    text = f"def inner(c):\n    return 1 / 0\ndef judge(completions):\n    {body}\nimport json, sys\n"
    with pytest.raises(HeedfulError, match=r"judge\.py:judge raised ") as refused:
        parse_judge(judge_file(tmp_path, text))(Samples(["A?"], ["a"], 1))
    assert told in str(refused.value) and isinstance(refused.value.__cause__, cause)


def test_a_file_is_run_once_and_may_hold_dataclasses(tmp_path: Path) -> None:
    spec = judge_file(
        tmp_path,
        """
        from __future__ import annotations
        from dataclasses import dataclass
        from pathlib import Path

        @dataclass
        class Weights:
            length: float = 2.0

        log = Path(__file__).with_name("log")
        log.write_text(log.read_text() + "x" if log.exists() else "x")

        def judge(completions):
            return [Weights().length * len(c) for c in completions]
        """,
    )
    judge = parse_judge(spec)
    for _ in range(3):
        assert judge(Samples(["A?"], ["a", "bb"], 2)).score.tolist() == [[2, 4]]
    assert (tmp_path / "log").read_text() == "x"
