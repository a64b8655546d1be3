"""Searching hop by hop: what is found, how it is merged, what it is worth, who writes the queries, and resuming."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from heedful.data.hops import Question
from heedful.data.passages import Passage
from heedful.errors import HeedfulError
from heedful.evals.retrieval import (
    answer_f1,
    average_precision,
    exact_match,
    interval,
    plain_answer,
    recall,
)
from heedful.judges.search import Hit
from heedful.recipes import retrieve_pipeline
from heedful.recipes.retrieve_pipeline import (
    Steps,
    Turn,
    gold_ap,
    gold_recall,
    hop,
    hops_for,
    merged,
    one_query,
    reward_of,
    search,
    walk,
)
from heedful.recipes.retrieve_readers import model_reader, reader_prompt, written_answer
from heedful.recipes.retrieve_writers import (
    RULES,
    direct_writer,
    prompt_for,
    shown_passage,
    written_query,
)
from heedful.run import open_run


def hit(name: str, score: float) -> Hit:
    return Hit(Passage(name.lower(), name, f"all about {name}"), score)


class Book:
    """A retriever that finds what a table says, and remembers what it was asked."""

    fingerprint = "book"

    def __init__(self, table: dict[str, list[Hit]], breaks_at: int = 10**9) -> None:
        self.table, self.breaks_at = table, breaks_at
        self.asked: list[str] = []

    def __call__(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        if len(self.asked) + len(queries) > self.breaks_at:
            raise KeyboardInterrupt
        self.asked += queries
        return [self.table.get(query, [])[:k] for query in queries]


# ---- what was found, as one ranking

FIRST = [hit("A", 9.0), hit("B", 8.0), hit("C", 1.0)]
SECOND = [hit("D", 5.0), hit("B", 8.5), hit("E", 0.5)]


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("score", [("A", 9.0), ("B", 8.5), ("D", 5.0), ("C", 1.0), ("E", 0.5)]),
        ("hop", [("A", 9.0), ("B", 8.0), ("C", 1.0), ("D", 5.0), ("E", 0.5)]),
        # B: 1/62 + 1/62; A and D: 1/61, A first; C and E: 1/63
        ("rrf", [("B", 2 / 62), ("A", 1 / 61), ("D", 1 / 61), ("C", 1 / 63), ("E", 1 / 63)]),
    ],
)
def test_hops_are_merged(how: Any, expected: list[tuple[str, float]]) -> None:
    found = merged([FIRST, SECOND], how)
    assert [h.passage.title for h in found] == [name for name, _ in expected]
    assert [h.score for h in found] == pytest.approx([score for _, score in expected])
    assert merged([FIRST], how)[0].passage.title == "A" and merged([], how) == [] == merged([[], []], how)


def test_a_passage_is_the_same_when_title_and_text_are() -> None:
    one, same = Hit(Passage("1", "T", "text"), 1.0), Hit(Passage("2", "T", "text"), 2.0)
    other = Hit(Passage("1", "T", "another text"), 0.5)
    assert merged([[one], [same, other]], "score") == [same, other]
    assert merged([[one], [same, other]], "hop") == [one, other]
    with pytest.raises(HeedfulError, match="no way 'best' to merge hops; choose one of score, rrf, hop"):
        merged([[one]], "best")  # type: ignore[arg-type]


# ---- what it is worth


def test_average_precision_worked_by_hand() -> None:
    # gold at ranks 1 and 3 of two: (1/1 + 2/3) / 2
    assert average_precision(["A", "x", "B"], ["A", "B"]) == pytest.approx((1 + 2 / 3) / 2)
    # one of three, at rank 2: (1/2) / 3
    assert average_precision(["x", "B"], ["A", "B", "C"]) == pytest.approx(1 / 6)
    # a second passage of a gold title is a miss and moves B to rank 3
    assert average_precision(["A", "A", "B"], ["A", "B"]) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision([" A  b"], ["A b"]) == 1.0 and average_precision(["a b"], ["A b"]) == 0.0
    assert average_precision([], ["A"]) == 0.0 and math.isnan(average_precision(["A"], []))


def test_recall_worked_by_hand() -> None:
    assert recall(["A", "A", "x"], ["A", "B", "C"]) == pytest.approx(1 / 3)
    assert recall(["B", "A"], ["A", "B"]) == 1.0 and recall([], ["A"]) == 0.0
    assert math.isnan(recall(["A"], []))


def test_answers_are_compared_as_squad_does() -> None:
    assert plain_answer("  The  U.S.A., a 'Country'! ") == "usa country"
    assert exact_match("The Beatles.", ["beatles"]) == 1.0 and exact_match("Beatle", ["Beatles"]) == 0.0
    assert exact_match("two", ["1", "Two"]) == 1.0 and math.isnan(exact_match("x", []))
    # two words in common; 3 said, 4 right: 2 * 2 / 7
    assert answer_f1("big red dog", ["a red dog named Bob"]) == pytest.approx(4 / 7)
    # a word counts as often as both have it: "red red" against "red" has one in common
    assert answer_f1("red red", ["red"]) == pytest.approx(2 / 3)
    assert answer_f1("yes it is", ["yes"]) == 0.0 and answer_f1("Yes.", ["yes"]) == 1.0
    assert answer_f1("red", ["blue", "red car"]) == pytest.approx(2 / 3) and math.isnan(answer_f1("x", []))
    assert answer_f1("", ["red"]) == 0.0


def test_means_come_with_intervals_and_without_unknown_questions() -> None:
    got = interval([1.0, 0.0, float("nan"), 0.5, 0.5])
    assert got.estimate == pytest.approx(0.5) and got.n == 4 and got.low < 0.5 < got.high


def test_rewards_are_of_everything_found_so_far() -> None:
    question = Question("1", "q", ("A", "D"), ("Bob",))
    turn = Turn(question).after("q", FIRST).after("r", SECOND)
    assert gold_recall([turn.at(1), turn]) == [0.5, 1.0]
    # A first, D third by score
    assert gold_ap([turn.at(1), turn]) == pytest.approx([0.5, (1 + 2 / 3) / 2])
    assert reward_of("ap")([turn]) == gold_ap([turn]) and reward_of("recall")([turn]) == [1.0]
    asked: list[Turn] = []

    def read(turns: Sequence[Turn]) -> list[str]:
        asked.extend(turns)
        return ["bob" if len(t.queries) == 2 else "tall Bob" for t in turns]

    unknown = Turn(Question("2", "q", ("A",)))
    assert reward_of("answer-f1", read)([turn.at(1), turn])[0] == pytest.approx(2 / 3)
    worth = reward_of("answer-em", read)([turn.at(1), unknown, turn])
    assert worth[0] == 0 and math.isnan(worth[1]) and worth[2] == 1 and unknown not in asked
    with pytest.raises(HeedfulError, match="reward answer-em is about a reader's answer"):
        reward_of("answer-em")
    with pytest.raises(HeedfulError, match="no reward 'bleu'; choose one of ap, recall"):
        reward_of("bleu")  # type: ignore[arg-type]


# ---- hop by hop


def test_only_the_first_line_of_a_query_is_sent() -> None:
    assert one_query("\n\n  who   was it\nno, wait") == "who was it" and one_query(" \n ") == ""
    book = Book({"who was it": FIRST})
    turns = [Turn(Question(str(i), "q"), Steps(k=2)) for i in range(2)]
    after = hop(turns, lambda _: ["who was it\nno, wait", "  "], book)
    assert [turn.queries for turn in after] == [("who was it",), ("",)]
    assert [len(turn.found[0]) for turn in after] == [2, 0] and after[1].context == []


@pytest.mark.parametrize(
    ("repeats", "expected"),
    [("keep", [["A", "B"], ["A", "B"], ["A", "C"]]), ("skip", [["A", "B"], ["C", "D"], ["E"]])],
)
def test_what_was_found_before_is_skipped_or_kept(repeats: Any, expected: list[list[str]]) -> None:
    ranked = [hit(name, 9.0 - i) for i, name in enumerate("ABCDE")]
    book = Book({"again": ranked, "other": [ranked[0], ranked[2], ranked[4], ranked[3]]})
    turns = [Turn(Question(str(i), "q"), Steps(3, 2, "hop", repeats)) for i in range(2)]
    for query in ("again", "again", "other"):
        turns = hop(turns, lambda _, query=query: [query] * 2, book)
    for turn in turns:
        assert [[h.passage.title for h in hits] for hits in turn.found] == expected
    assert book.asked == ["again", "again", "other"], "of equal queries the retriever is asked once"
    assert search([], [], book) == []


def test_a_passage_of_the_same_title_and_another_text_is_not_a_repeat() -> None:
    one, other = hit("A", 2.0), Hit(Passage("7", "A", "another text"), 1.0)
    turn = Turn(Question("1", "q"), Steps(2, 1, repeats="skip")).after("q", [one])
    assert search([turn], ["q"], Book({"q": [one, other]})) == [[other]]


def test_rules_write_queries() -> None:
    text = "x" * 300
    best = Hit(Passage("1", "Top", text), 2.0)
    question = Question("1", "Who?", ("B", "A"))
    fresh = Turn(question)
    turn = fresh.after("Who?", [best, hit("A", 1.0)])
    assert [RULES[name]([fresh]) for name in RULES] == [["Who?"]] * 4
    assert RULES["question"]([turn]) == ["Who?"]
    assert RULES["passage"]([turn]) == ["Who? " + "x" * 200]
    assert RULES["title"]([turn]) == ["Top"]
    assert RULES["gold"]([turn]) == ["B"]
    assert RULES["gold"]([turn.after("B", [hit("B", 1.0)])]) == ["Who?"]


def test_a_walk_is_resumed_without_searching_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieve_pipeline, "PART", 2)
    questions = [Question(f"{i}", f"q{i}", ("A",)) for i in range(5)]
    table = {f"q{i}": [hit("A", float(i)), hit("B", 0.5)] for i in range(5)} | {"A": SECOND}

    def walked(name: str, book: Book) -> list[Turn]:
        with open_run(tmp_path / name, {}, seed=0) as run:
            return walk(questions, RULES["title"], book, Steps(2, 2), run=run, name="side")

    whole = Book(table)
    turns = walked("whole", whole)
    assert turns[0].queries == ("q0", "B") and turns[1].queries == ("q1", "A"), (
        "B has the better score for q0"
    )
    assert [h.passage.title for h in turns[1].found[1]] == ["D", "B"] and turns[0].found[1] == ()
    assert whole.asked == ["q0", "q1", "q2", "q3", "q4", "B", "A", "A", "A"], "of a part each query once"
    for breaks_at in (0, 3, 5, 8):
        broken = Book(table, breaks_at)
        with pytest.raises(KeyboardInterrupt):
            walked(f"at{breaks_at}", broken)
        rest = Book(table)
        assert walked(f"at{breaks_at}", rest) == turns
        assert broken.asked + rest.asked == whole.asked
        for file in ("hop1.jsonl", "hop2.jsonl"):
            ours, theirs = (tmp_path / name / "side" / file for name in ("whole", f"at{breaks_at}"))
            assert ours.read_bytes() == theirs.read_bytes()
    assert sorted(f.name for f in (tmp_path / "at5" / "side").iterdir()) == ["hop1.jsonl", "hop2.jsonl"]
    again = Book({}, 0)
    assert walked("whole", again) == turns and again.asked == []


def test_how_many_hops_are_made() -> None:
    def asked(*golds: int, hops: int = 0) -> list[Question]:
        return [Question(f"{i}", "q", tuple("ABCDEFG"[:n]), hops=hops) for i, n in enumerate(golds)]

    assert hops_for(asked(2, 3), 0) == 3 and hops_for(asked(2, 7), 0) == 4 and hops_for(asked(2), 6) == 6
    assert hops_for(asked(0), 0) == 2 and hops_for(asked(0, hops=3), 0) == 3 and hops_for(asked(1), 0) == 1
    with pytest.raises(HeedfulError, match="--hops must be 0 or more"):
        hops_for(asked(2), -1)


# ---- models as writers and readers


def test_prompts_show_what_was_found_and_the_question_last() -> None:
    turn = Turn(Question("1", "Who made it?", ("A",))).after(
        "q", [hit("A", 2.0), Hit(Passage("2", "", "b " * 9), 1)]
    )
    text = prompt_for(turn, passage_words=3, demos=["A demonstration"])
    assert text.splitlines()[2:] == [
        "A demonstration",
        "",
        "Found so far:",
        "[1] A: all about A",
        "[2] b b b …",
        "Question: Who made it?",
        "Search query:",
    ]
    assert "(nothing yet)" in prompt_for(Turn(turn.question), passage_words=3)
    assert shown_passage(Hit(Passage("1", "A\nB", "c\n\nd"), 1), 4, 9) == "[4] A B: c d"
    assert reader_prompt(turn, 3).splitlines()[-4:] == [
        "[1] A: all about A",
        "[2] b b b …",
        "Question: Who made it?",
        "Answer:",
    ]


@pytest.mark.parametrize(
    ("said", "query"),
    [
        ("who made  it\nmore", "who made it"),
        ("\n Search Query: 'who made it'", "who made it"),
        ("query: “who made it”\n", "who made it"),
        ('""', ""),
        ("“", "“"),
        ("it's 'fine'", "it's 'fine'"),
        ("", ""),
    ],
)
def test_the_query_in_a_reply(said: str, query: str) -> None:
    assert written_query(said) == query


def test_the_answer_in_a_reply() -> None:
    assert written_answer("\nThe answer is: Bob  Dylan.\nHe") == "Bob Dylan" and written_answer(" ") == ""


def test_a_model_writes_and_reads_without_a_run_folder() -> None:
    from scripted import Scripted

    model = Scripted(lambda prompt, seed: "Search query: A" if "Search query" in prompt else "Answer: Bob.")
    turns = [Turn(Question("1", "Who?", ("A",), ("Bob",)))]
    policy: Any = model
    write: Callable[..., Any] = direct_writer(
        policy, passage_words=9, seed=0, temperature=0.0, max_new_tokens=5
    )
    after = hop(turns, write, Book({"A": FIRST}))
    assert after[0].queries == ("A",) and model.options[0] == {"temperature": 0.0, "max_new_tokens": 5}
    assert model_reader(policy, None, passage_words=9, seed=0)(after) == ["Bob"]
    assert "all about A" in model.calls[1][0]
