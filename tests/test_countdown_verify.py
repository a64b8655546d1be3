"""Streams read: the compact language, the strict verifier, the paper's verifier with its holes, the error census."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heedful.data.countdown import codec, lines
from heedful.data.countdown.game import STRATEGIES, Operation
from heedful.data.countdown.instances import Instances, draw, solution
from heedful.data.countdown.paper_verdict import VALID, paper_verdict, worked_out
from heedful.data.countdown.replay import KINDS, replay
from heedful.data.countdown.streams import Stream, Task, streams
from heedful.data.countdown.vocabulary import TOKENS
from heedful.errors import HeedfulError

SOLVED = """\
Current State: 24:[4, 9, 3], Operations: []
Exploring Operation: 4+9=13, Resulting Numbers: [3, 13]
Generated Node #0,0: 24:[3, 13] Operation: 4+9=13
Moving to Node #0,0
Current State: 24:[3, 13], Operations: ['4+9=13']
Exploring Operation: 13-3=10, Resulting Numbers: [10]
10,24 unequal: No Solution
Moving to Node #0
Current State: 24:[4, 9, 3], Operations: []
Exploring Operation: 9-3=6, Resulting Numbers: [4, 6]
Generated Node #0,1: 24:[4, 6] Operation: 9-3=6
Moving to Node #0,1
Current State: 24:[4, 6], Operations: ['9-3=6']
Exploring Operation: 4*6=24, Resulting Numbers: [24]
24,24 equal: Goal Reached
"""


def made(instances: Instances, count: int, legacy: bool = False) -> list[tuple[Task, Stream]]:
    drawn = draw(instances, "train", 0, count)
    tasks = [
        Task(target, numbers[:size], STRATEGIES[strategy], seed)
        for (target, size, *numbers), strategy, seed in zip(
            drawn.problems.tolist(), drawn.strategies.tolist(), drawn.seeds.tolist(), strict=True
        )
    ]
    return list(zip(tasks, streams(tasks, legacy=legacy), strict=True))


# ---- the compact language


def test_the_codec_is_bijective_on_ten_thousand_streams() -> None:
    every = [
        *made(Instances(numbers=(2, 3)), 9300),
        *made(Instances(), 500),
        *made(Instances(), 150, legacy=True),
        *made(Instances(numbers=(3, 3), inputs=(90, 999)), 50),
    ]
    seen: dict[str, str] = {}
    for _, one in every:
        compact = codec.encode(one.text)
        assert codec.decode(compact) == one.text
        assert ["<s>", *compact.split(" "), "</s>"] == [TOKENS[token] for token in one.tokens]
        assert seen.setdefault(compact, one.text) == one.text
    assert len(every) == 10_000 and len(seen) == len({one.text for _, one in every}) > 9000


def test_optimal_paths_too_and_they_take_each_operand_once() -> None:
    drawn = draw(Instances(numbers=(2, 6)), "train", 0, 400)
    twice = 0
    for (target, size, *numbers), operations in zip(drawn.problems.tolist(), drawn.solutions, strict=True):
        steps = solution(operations, size)
        text = lines.optimal_path(target, numbers[:size], steps)
        compact = codec.encode(text)
        assert codec.decode(compact, optimal=True) == text
        for form in (text, compact):
            checked = replay(form, target, numbers[:size])
            assert checked.solved and checked.errors == [] and checked.solution == steps
        twice += len(set(numbers[:size])) < size
    assert twice > 10
    with pytest.raises(ValueError, match="not among"):
        lines.optimal_path(12, [3, 4, 5], [Operation(3, "+", 3, 6)])
    with pytest.raises(ValueError, match="not to 12"):
        lines.optimal_path(12, [3, 4], [Operation(3, "+", 4, 7)])


def test_the_compact_language_is_the_documented_one() -> None:
    compact = "T 24 N 4 9 3 E 4 + 9 = 13 3 13 S 3 13 E 13 - 3 = 10 10 X M 0 S 4 9 3 E 9 - 3 = 6 4 6 S 4 6"
    compact += " E 4 * 6 = 24 24 G"
    assert codec.encode(SOLVED) == compact
    assert codec.decode(compact) == codec.decode(f"<s>{compact}</s> E 1 + 1") == SOLVED
    assert codec.prompt(24, [4, 9, 3]) == compact[:12] and codec.is_compact(compact)
    assert not codec.is_compact(SOLVED) and codec.prompt(12_005, [1_000_000]) == "T 12 , 5 N 1 , 0 , 0"


@pytest.mark.parametrize(
    ("compact", "told"),
    [
        ("E 1 + 2 = 3 3 X", "token 1 .* prompt"),
        ("T 24 N 4 9 3 T 24", "token 7 .* prompt"),
        ("T 24 N 4 9 E 4 ? 9 = 13 13 X", "token 8 .* operator"),
        ("T 24 N 4 9 E 4 + 9 13 X", "token 10 .* ="),
        ("T 24 N 4 9 E 4 + 9 = X", "number from 0 to 999, found 'X'"),
        ("T 24 N 04 9", "found '04'"),
        ("T 24 N 4 0 , 9", "does not begin with 0"),
        ("T 24 N 4 9 S 3", "S only after"),
        ("T 24 N 4 9 3 M 0 7 S 4 5", "0,7 was not"),
        ("T 24 N 4 9 X", "one of E, S, M, F"),
        ("T 24 N", "found 'the end'"),
    ],
)
def test_what_is_no_stream_is_refused_with_its_place(compact: str, told: str) -> None:
    with pytest.raises(HeedfulError, match=told):
        codec.decode(compact)
    text = codec.decode(compact, lenient=True)
    assert "Unreadable: " in text or "#0,7" in text


@pytest.mark.parametrize(
    ("old", "new"),
    [("3, 13]", "3, 14]"), ("Node #0,1\n", "Node #0,2\n"), ("10,24", "11,24"), ("['9-3=6']", "['9-4=6']")],
)
def test_text_that_would_not_come_back_is_refused(old: str, new: str) -> None:
    changed = SOLVED.replace(old, new, 1)
    assert changed != SOLVED
    try:
        assert codec.decode(codec.encode(changed)) == changed
    except HeedfulError as error:
        assert "cannot be written in the compact language" in str(error)


# ---- the strict verifier


def test_symbolic_streams_are_accepted_where_they_succeed_and_have_no_errors() -> None:
    every = [
        *made(Instances(numbers=(2, 3)), 600),
        *made(Instances(), 120),
        *made(Instances(), 60, legacy=True),
    ]
    for task, one in every:
        for form in (one.text, codec.encode(one.text)):
            checked = replay(form, task.target, task.nums)
            assert checked.solved == one.solved and (checked.reason == "") == one.solved
            assert checked.explored == one.explored
            wrong = [error.message for error in checked.errors]
            assert wrong == ([] if one.explored else ["no operation is explored"])
        if one.solved:
            assert checked.solution[-1].result == task.target and len(checked.solution) == len(task.nums) - 1
            if len(task.nums) > 2:
                assert paper_verdict(one.text) == (True, VALID, pytest.approx(checked.rating))
    assert 0.4 < sum(one.solved for _, one in every) / len(every) < 0.9


def change(*pairs: tuple[str, str]) -> str:
    text = SOLVED
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    return text


@pytest.mark.parametrize(
    ("text", "told", "legacy"),
    [
        (change(("4*6=24", "4*6=25"), ("[24]", "[25]"), ("24,24", "25,24")), "4*6=25 is wrong", False),
        (change(("9-3=6", "3+3=6")), "takes numbers that [4, 9, 3] lacks", True),
        (change(("9-3=6", "9-3=7"), ("[4, 6]", "[4, 7]")), "9-3=7 is wrong", False),
        (change(("4*6=24", "4*7=24")), "4*7=24 is wrong", False),
        (
            change(("[4, 6]", "[4, 6, 24]"), ("Numbers: [24]", "Numbers: [6, 24]")),
            "leaves [4, 6], not [4, 6, 24]",
            True,
        ),
        # An input is left unused: the last state forgets it.
        (
            change(("9-3=6", "9+4=13"), ("[4, 6]", "[13]"), ("4*6=24", "9+15=24")),
            "leaves [3, 13], not [13]",
            False,
        ),
        # A state that no operation led to.
        (change(("24:[4, 6], Operations: ['9-3=6']", "24:[8, 3], Operations: ['9-3=6']")), "state", True),
        (change(("Operations: ['9-3=6']", "Operations: ['4+3=7']")), "state", False),
        (change(("24,24 equal", "6,24 equal")), "does not fit", True),
        (change(("9-3=6", "09-3=6")), "", False),
        (change(("9-3=6", "９-3=6")), "", True),
        (change(("4*6=24", "4*6=24.0")), "", False),
        (change(("4*6=24, R", "4*6=24 , R")), "", False),
        (change(("24,24 equal: Goal Reached\n", "")), "the goal is not reached", False),
        (change(("Exploring Operation: 4*6=24, Resulting Numbers: [24]\n", "")), "", False),
        (SOLVED.split("\n", 1)[1], "the first line is no problem", False),
        ("24,24 equal: Goal Reached\n", "the first line is no problem", False),
        ("", "the first line is no problem", False),
    ],
)
def test_the_strict_verifier_rejects(text: str, told: str, legacy: bool) -> None:
    checked = replay(text, 24, [4, 9, 3])
    assert not checked.solved and told in checked.reason and checked.reason
    assert checked.rating == 0 and checked.solution == ()
    assert paper_verdict(text).accepted is legacy


def test_holes_of_the_papers_verifier() -> None:
    """Reuse and unused inputs: the whole stream reads well, and the paper's code lets it through."""
    reuse = "\n".join(
        [
            "Current State: 24:[4, 9, 3], Operations: []",
            "Exploring Operation: 4+4=8, Resulting Numbers: [3, 8]",
            "Generated Node #0,0: 24:[3, 8] Operation: 4+4=8",
            "Moving to Node #0,0",
            "Current State: 24:[3, 8], Operations: ['4+4=8']",
            "Exploring Operation: 8*3=24, Resulting Numbers: [24]",
            "24,24 equal: Goal Reached",
        ]
    )
    unused = reuse.replace("4+4=8", "9+3=12").replace("[3, 8]", "[12]").replace("8*3=24", "12+12=24")
    for text in (reuse, unused):
        assert paper_verdict(text).accepted and paper_verdict(text).rating > 0.9
        assert not replay(text, 24, [4, 9, 3]).solved
    two = "Current State: 13:[9, 4], Operations: []\nExploring Operation: 9+4=13, Resulting Numbers: [13]\n"
    two += "13,13 equal: Goal Reached\n"
    assert replay(two, 13, [4, 9]).solved and not paper_verdict(two).accepted


def test_a_stream_of_another_problem_is_rejected() -> None:
    assert replay(SOLVED).solved and replay(SOLVED, 24, [3, 4, 9]).solved
    for target, numbers in [(25, [4, 9, 3]), (24, [4, 9, 9]), (24, [4, 9]), (24, [4, 9, 3, 3])]:
        assert "another problem" in replay(SOLVED, target, numbers).reason


def test_errors_off_the_way_are_counted_and_do_not_reject() -> None:
    text = change(("13-3=10", "13-3=11"), ("[10]", "[11]"), ("10,24", "11,24"), ("[3, 13]", "[3, 13, 13]"))
    checked = replay(text, 24, [4, 9, 3])
    assert checked.solved and checked.census()["arithmetic"] == 1
    assert replay(SOLVED + "what follows the goal is not read").solved
    assert replay(f"<|endoftext|>{SOLVED}<|endoftext|>").solved


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (SOLVED, {}),
        (change(("13-3=10", "13-3=11"), ("[10]", "[11]"), ("10,24", "11,24")), {"arithmetic": 1}),
        (change(("13-3=10", "3-13=0"), ("[10]", "[0]"), ("10,24", "0,24")), {"arithmetic": 1}),
        (change(("10,24 unequal: No Solution", "10,24 unequal: No Solution!")), {"formatting": 1}),
        (change(("Exploring Operation: 13-3=10, ", "Exploring 13-3=10 ")), {"formatting": 1, "other": 1}),
        (change(("Moving to Node #0\n", "Moving to Node #0,7\n")), {"exploration": 2}),
        (change(("Node #0,1", "Node #0,0")), {"exploration": 1}),
        (change(("Node #0,1", "Node #0,5,1")), {"exploration": 1}),
        (change(("10,24 unequal", "9,24 unequal")), {"other": 1}),
        (change(("[10]", "[3, 10]"), ("10,24", "3,24")), {"other": 1}),
        (change(("24:[3, 13], Operations", "24:[3, 12], Operations")), {"other": 2}),
        (SOLVED.split("\n", 1)[0], {"exploration": 1}),
    ],
)
def test_the_census(text: str, found: dict[str, int]) -> None:
    assert replay(text).census() == dict.fromkeys(KINDS, 0) | found


def test_states_that_were_visited() -> None:
    assert replay(SOLVED).states() == {(3, 4, 9), (3, 13), (10,), (4, 6), (24,)}
    assert (4, 7) not in replay(change(("9-3=6", "9-3=7"), ("[4, 6]", "[4, 7]"))).states()


# ---- no text is evaluated


@pytest.mark.parametrize(
    "text", ["1+2*3", "7/2", "6/2", "-3+5", "(1+2)*3", "10-4-3", "8/4/2", " 3+4", "00+1", "2*(3-(1))", "--3"]
)
def test_sums_are_worked_out_as_python_does(text: str) -> None:
    assert worked_out(text) == eval(text.strip())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1+",
        "(1",
        "1)",
        "07+1",
        "2**9",
        "__import__('os')",
        "1//2",
        "a",
        "1 2",
        "9" * 300,
        "1+" * 150 + "1",
    ],
)
def test_other_text_is_not(text: str) -> None:
    with pytest.raises((ValueError, ZeroDivisionError)):
        worked_out(text)


PIECES = [
    *SOLVED.splitlines(keepends=True),
    *SOLVED.replace(",", " , ").split(" "),
    *codec.encode(SOLVED).split(" "),
    "\n",
    "No solution found.",
    "24,24 equal: Goal Reached\n",
    "'",
    "][",
    "9" * 30,
    "L",
]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=4)), max_size=40), st.booleans())
def test_nothing_a_model_writes_makes_a_verifier_fail(pieces: list[str], compact: bool) -> None:
    text = (f"{codec.prompt(24, [4, 9, 3])} " if compact else SOLVED.split("\n")[0] + "\n") + " ".join(pieces)
    checked = replay(text, 24, [4, 9, 3])
    paper_verdict(text)
    if checked.solved:
        left = [4, 9, 3]
        for operation in checked.solution:
            left.remove(operation.left)
            left.remove(operation.right)
            assert operation.result == eval(str(operation).split("=")[0])
            left.append(operation.result)
        assert left == [24]


def test_corrupted_streams_are_never_proofs_unless_they_prove_it() -> None:
    """Streams with one digit changed: what is still accepted must have a solution that replays."""
    rng, accepted = random.Random(3), 0
    for task, one in made(Instances(numbers=(3, 3)), 400):
        if not one.solved:
            continue
        digits = [i for i, letter in enumerate(one.text) if letter.isdigit()]
        at = rng.choice(digits)
        text = one.text[:at] + str((int(one.text[at]) + 1) % 10) + one.text[at + 1 :]
        checked = replay(text, task.target, task.nums)
        accepted += checked.solved
        left = sorted(task.nums)
        for operation in checked.solution:
            assert eval(f"{operation.left}{operation.operator}{operation.right}") == operation.result
            left.remove(operation.left)
            left.remove(operation.right)
            left.append(operation.result)
        assert not checked.solved or left == [task.target]
    assert accepted > 20  # a digit off the way
