"""Passages and questions from files, gold titles, the generated world, and FOLDOC where it is installed."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from heedful.data.hops import Question, check_gold, read_questions
from heedful.data.hops.foldoc import BLANK, Foldoc, installed, load_foldoc
from heedful.data.hops.texts import KINDS
from heedful.data.hops.world import NOT_SUPPORTED, SUPPORTED, TWINS, World
from heedful.data.passages import Passage, Passages, write_passages
from heedful.errors import HeedfulError


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


# ---- passages


def test_passages_are_read_back_by_number_and_by_title(tmp_path: Path) -> None:
    composed = unicodedata.normalize("NFC", "Alû")
    source = lines(
        tmp_path / "c.jsonl",
        {"id": 5, "title": "Two", "text": " first "},
        {"_id": "x", "name": unicodedata.normalize("NFD", "Alû"), "contents": "second"},
        {"title": "Two", "text": ["Some sentences.", " As HotpotQA has them. "]},
        {"text": "no title\u2028and a strange line break"},
        {"title": None, "body": "none either", "text": None},
    )
    passages = write_passages(source, tmp_path / "passages")
    assert list(passages) == [
        Passage("5", "Two", "first"),
        Passage("x", unicodedata.normalize("NFD", "Alû"), "second"),
        Passage("2", "Two", "Some sentences. As HotpotQA has them."),
        Passage("3", "", "no title\u2028and a strange line break"),
        Passage("4", "", "none either"),
    ]
    assert passages[-1] == passages[4] and passages[1:3] == [passages[1], passages[2]]
    assert passages.read(1, 3) == passages[1:3] and passages.read(4, 99) == passages[4:]
    assert passages.numbers("Two") == [0, 2] == passages.numbers(" Two ") and passages.numbers("two") == []
    assert passages.numbers(composed) == [1]
    facts = passages.facts
    assert (facts["passages"], facts["without_title"], facts["titles_again"]) == (5, 2, 1)
    assert passages[0].words == "Two\nfirst" and passages[3].words == passages[3].text
    with pytest.raises(IndexError):
        passages[5]
    assert Passages(tmp_path / "passages").content == passages.content


def test_everything_wrong_with_a_corpus_is_told_at_once(tmp_path: Path) -> None:
    faults = [
        '{"text": ""}',
        '{"title": 3, "text": "t"}',
        '{"text": ["a", 1]}',
        '{"id": true, "text": "t"}',
        "{}",
    ]
    source = lines(tmp_path / "c.jsonl", *faults, {"text": "good"})
    with pytest.raises(HeedfulError) as told:
        write_passages(source, tmp_path / "passages")
    assert [line.removeprefix(f"{source}:") for line in str(told.value).splitlines()] == [
        "1: text: is empty",
        "2: title: is a number, not text",
        "3: text: is a list, not text",
        "4: id: is true or false, not text or a whole number",
        "5: text: is missing; the row has nothing",
        "--drop-faulty-rows leaves such rows out and counts them",
    ]
    assert not (tmp_path / "passages").exists()
    kept = write_passages(source, tmp_path / "passages", drop_faulty=True)
    assert list(kept) == [Passage("5", "", "good")] and kept.facts["left_out"] == 5
    many = lines(tmp_path / "many.jsonl", *['{"text": ""}'] * 30, {"text": "good"})
    with pytest.raises(HeedfulError, match="… and 10 more"):
        write_passages(many, tmp_path / "other")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"text": "good"}\n{"text": "cut', r"c\.jsonl:2: "),
        ("", "there is no passage in it"),
        ('{"text": " "}', "is empty$"),
    ],
)
def test_what_cannot_be_read_stops_it_always(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text(text)
    with pytest.raises(HeedfulError, match=told):
        write_passages(tmp_path / "c.jsonl", tmp_path / "passages", drop_faulty=True)
    with pytest.raises(HeedfulError, match=r"holds no passages .*make the index again"):
        Passages(tmp_path / "passages")


# ---- questions


def test_questions_come_in_the_columns_of_hotpotqa_and_hover(tmp_path: Path) -> None:
    file = lines(
        tmp_path / "q.jsonl",
        {
            "id": "a",
            "question": " Who \n made it? ",
            "gold_titles": ["A", "B", "A"],
            "answer": "x",
            "hops": 2,
        },
        {"_id": "b", "question": "q", "supporting_facts": [["A", 0], ["A", 3], ["B", 1]], "answer": "yes"},
        {"question": "q", "supporting_facts": {"title": ["C", "D"], "sent_id": [0, 1]}, "answers": ["1", 2]},
        {"uid": "d", "claim": "c", "supporting_facts": [["A", 0]], "label": "SUPPORTED", "num_hops": 3},
        {"id": "e", "question": "q", "gold_titles": '["A", "B"]', "answer": ""},
        {"id": "f", "question": "q", "answer": "only an answer", "source": "s"},
    )
    assert read_questions(file) == [
        Question("a", "Who made it?", ("A", "B"), ("x",), 2),
        Question("b", "q", ("A", "B"), ("yes",)),
        Question("2", "q", ("C", "D"), ("1", "2")),
        Question("d", "c", ("A",), ("SUPPORTED",), 3),
        Question("e", "q", ("A", "B")),
        Question("f", "q", (), ("only an answer",), 0, "s"),
    ]
    assert [q.id for q in read_questions(file, 2)] == ["a", "b"]
    again = lines(tmp_path / "again.jsonl", *(q.as_row() for q in read_questions(file)))
    assert read_questions(again) == read_questions(file)


def test_everything_wrong_with_questions_is_told_at_once(tmp_path: Path) -> None:
    file = lines(
        tmp_path / "q.jsonl",
        {"question": "", "gold_titles": ["A"]},
        {"id": "a", "question": "q", "gold_titles": "A"},
        {"id": "a", "question": "q", "gold_titles": ["A"]},
        {"id": "a", "question": "q", "gold_titles": ["A"]},
        {"question": "q"},
        {"title": "q", "gold_titles": [" "]},
        {"question": "q", "answer": {"text": 1}, "hops": -1},
        '{"question": ',
    )
    with pytest.raises(HeedfulError) as told:
        read_questions(file)
    found = [line.removeprefix(f"{file}:") for line in str(told.value).splitlines()]
    assert found[:-1] == [
        "1: question: is empty",
        "2: gold_titles: is no list of titles, nor of [title, sentence] pairs",
        "4: id: is that of line 3 too: 'a'",
        "5: gold_titles: is missing and so is the answer: nothing says what would be right",
        "6: question: is missing; the row has 'title', 'gold_titles'",
        "6: gold_titles: is no list of titles, nor of [title, sentence] pairs",
        "7: answer: is no text and no list of texts",
        "7: hops: is a number, not a whole number of 0 or more",
    ]
    assert found[-1].startswith("8: ")
    with pytest.raises(HeedfulError, match="there is no question in it"):
        read_questions(lines(tmp_path / "none.jsonl"))
    with pytest.raises(HeedfulError, match="there is no such file"):
        read_questions(tmp_path / "nowhere.jsonl")


def test_gold_titles_that_the_corpus_lacks(tmp_path: Path) -> None:
    titles = ("Alpha", "Beta", "Beta", "Delta")
    corpus = lines(tmp_path / "c.jsonl", *({"title": t, "text": f"text {i}"} for i, t in enumerate(titles)))
    passages = write_passages(corpus, tmp_path / "passages")
    questions = [Question("1", "q", ("Alpha", "beta")), Question("2", "q", ("Beta", "Gamma", "Delta"))]
    facts = check_gold(questions, passages, most=0.4, where="q.jsonl")
    assert facts == {
        "gold_titles": 5,
        "absent": 2,
        "questions_with_absent": 2,
        "examples": ["beta", "Gamma"],
    }
    with pytest.raises(HeedfulError) as told:
        check_gold(questions, passages, most=0.39, where="q.jsonl")
    assert str(told.value).splitlines() == [
        "q.jsonl: 2 of 5 gold titles are not in the corpus (40.0%; 39% is the most that is taken):",
        "  '1': 'beta' (the corpus has 'Beta')",
        "  '2': 'Gamma'",
        "These can never be found. Complete the corpus, mend the titles, or give a larger --max-absent.",
    ]
    many = [Question(f"{i}", "q", (f"none {i}",)) for i in range(25)]
    with pytest.raises(HeedfulError, match="… and 5 more"):
        check_gold(many, passages, most=0.5, where="q.jsonl")


# ---- the generated world

WORLD = World(1, 480)
SIDES: dict[Any, int] = {"train": 120, "dev": 30, "test": 60}


def test_a_world_is_a_function_of_its_seed_and_each_part_of_its_number() -> None:
    again = World(1, 480)
    assert again[433] == WORLD[433] and again.question("test", 7) == WORLD.question("test", 7)
    assert World(1, 4800).text(433) != "" and list(World(2, 480))[:24] != list(WORLD)[:24]
    # frozen, so that a world of last year is the world of today
    assert WORLD[0] == Passage("w0", WORLD[0].title, WORLD[0].text)
    assert World(0, 24).question("test", 0).id == "test-0" and len(World(0, 1)) == 240
    million = World(0, 1_000_000)
    assert (
        len(million) == 1_000_008 and million[712_345].title and million.question("train", 10**6).gold_titles
    )


def test_titles_are_all_different_and_names_are_shared() -> None:
    titles = [passage.title for passage in WORLD]
    assert len(set(titles)) == len(titles) == 480
    assert len({passage.text for passage in WORLD}) == 480
    things = [WORLD.thing(i) for i in range(480)]
    words = Counter(word for thing in things for word in set(re.findall(r"\w+", thing.title)))
    for i in range(0, 480, 24):
        one, other = things[i + TWINS[0]], things[i + TWINS[1]]
        assert one.name == other.name and one.title != other.title and one.profession != other.profession
        assert one.said.startswith(f"the {one.profession} ")
        assert words[one.name.split()[1]] == 6, "six things bear a name"
    # a link says of which kind a thing is, so what it is called then belongs to one thing only
    assert max(Counter((thing.kind, thing.said) for thing in things).values()) == 1


def test_every_question_has_a_path_that_its_passages_tell() -> None:
    seen: Counter[int] = Counter()
    for side, count in SIDES.items():
        for i in range(count):
            path, chain = WORLD.chain(side, i)
            question = WORLD.question(side, i)
            assert question.gold_titles == tuple(WORLD[t].title for t in chain)
            assert len(set(chain)) == len(chain) == question.hops
            for a, b, link in zip(chain, chain[1:], path.links, strict=False):
                assert WORLD.links(a)[link] == b
                told = WORLD.thing(b).said
                assert told.lower() in WORLD.text(a).lower()
            (answer,) = question.answers
            assert answer == WORLD.values(chain[-1])[path.value] and answer in WORLD.text(chain[-1])
            first = WORLD.thing(chain[0])
            assert any(n.removeprefix("the ") in question.question for n in (first.name, first.alias) if n)
            assert "{" not in question.question and "{" not in WORLD.text(chain[0])
            for later in map(WORLD.thing, chain[1:]):
                called = later.name.removeprefix("the ")
                # someone may be born in the town of the same name by chance
                assert called not in question.question or called in f"{first.name} {first.alias}", question
            seen[question.hops] += 1
    assert set(seen) == {2, 3, 4} and max(seen.values()) - min(seen.values()) == 0


def test_sides_share_no_passage_and_questions_do_not_repeat() -> None:
    gold = {
        side: {t for q in WORLD.questions(side, count) for t in q.gold_titles}
        for side, count in SIDES.items()
    }
    assert not gold["train"] & gold["test"] and not gold["dev"] & (gold["train"] | gold["test"])
    asked = [q.question for q in WORLD.questions("test", WORLD.question_count("test"))]
    assert len(set(asked)) > 0.99 * len(asked)
    with pytest.raises(HeedfulError, match=r"has [\d,]+ test questions, not 1,000,000; make it larger"):
        WORLD.questions("test", 1_000_000)


def test_claims_are_right_or_have_another_value() -> None:
    labels: Counter[str] = Counter()
    for i in range(60):
        claim, question = WORLD.question("test", i, "claim"), WORLD.question("test", i)
        truth = question.answers[0]
        assert claim.gold_titles == question.gold_titles and claim.question.endswith(".")
        right = claim.answers == (SUPPORTED,)
        assert right == (truth in claim.question.rstrip(".").split())
        labels[claim.answers[0]] += 1
        assert WORLD.read(claim, claim.gold_titles) == claim.answers[0]
        assert WORLD.read(question, question.gold_titles) == truth
        assert WORLD.read(question, question.gold_titles[1:]) == "unknown"
    assert 18 < labels[SUPPORTED] < 42 and set(labels) == {SUPPORTED, NOT_SUPPORTED}
    with pytest.raises(HeedfulError, match="is no question of a generated world"):
        WORLD.read(Question("other", "q"), [])


def test_bad_worlds_are_refused() -> None:
    with pytest.raises(HeedfulError, match=r"a world has from 1 to [0-9,]+ things, not 0"):
        World(0, 0)
    for hops in ((), (1,), (2, 5)):
        with pytest.raises(HeedfulError, match="a question needs 2, 3 or 4 passages"):
            World(0, 10, hops)
    with pytest.raises(IndexError):
        WORLD[480]
    assert {len(WORLD.question("test", i).gold_titles) for i in range(9)} == {2, 3, 4}
    assert {q.hops for q in World(0, 240, (3,)).questions("test", 9)} == {3}


def test_what_a_question_calls_a_link_is_not_what_a_passage_calls_it() -> None:
    little = "a an the of for in is was were are it its by to and that with at from on has be him her"
    small = set(little.split(" "))
    for kind in KINDS.values():
        for name, link in kind.links.items():
            asked = {w for text in link.asked for w in re.findall(r"[a-z]+", text.lower().replace("{s}", ""))}
            said = {w for text in link.said for w in re.findall(r"[a-z]+", text.lower().replace("{x}", ""))}
            assert not (asked & said) - small, (kind.word, name)


# ---- FOLDOC


@pytest.fixture(scope="module")
def foldoc() -> Foldoc:
    if not installed():
        pytest.skip("FOLDOC is not installed: apt-get install dict-foldoc")
    return load_foldoc()


def test_foldoc_is_a_corpus_with_questions(foldoc: Foldoc, tmp_path: Path) -> None:
    passages = foldoc.passages()
    assert len(passages) > 7000 and len({p.title for p in passages}) == len(passages)
    assert all(len(p.text) <= 600 and p.text for p in passages)
    sides = {side: foldoc.questions(side) for side in ("train", "dev", "test")}  # type: ignore[arg-type]
    assert len(sides["train"]) >= 600 and len(sides["dev"]) >= 100 and len(sides["test"]) >= 300
    gold = {side: {t for q in questions for t in q.gold_titles} for side, questions in sides.items()}
    assert not gold["train"] & gold["test"] and not gold["dev"] & (gold["train"] | gold["test"])
    by_title = {entry.title: entry for entry in foldoc.entries}
    for question in sides["test"]:
        one, other = (by_title[title] for title in question.gold_titles)
        assert question.answers == (other.title,) and foldoc.entries.index(other) in one.links
        asked = re.search(rf"Which (\S.*) term does the entry on {BLANK} refer to\?$", question.question)
        assert asked is not None and asked[1] == other.category
        same = [n for n in one.links if foldoc.entries[n].category == other.category]
        assert len(same) == 1, "one right answer"
        said = question.question.rpartition(" Which ")[0].lower()
        assert not re.search(rf"(?<!\w){re.escape(one.title.lower())}(?!\w)", said)
    with pytest.raises(HeedfulError, match=r"FOLDOC gives \d+ dev questions, not 9,999"):
        foldoc.questions("dev", 9999)


def test_a_simple_reader_answers_from_what_was_found(foldoc: Foldoc) -> None:
    questions = foldoc.questions("test", 100)
    right = [foldoc.read(q, q.gold_titles) == q.answers[0] for q in questions]
    assert sum(right) >= 95, "an answer of the first entry's own category may come first"
    assert all(foldoc.read(q, q.gold_titles[:1]) != q.answers[0] for q in questions)
    assert foldoc.read(questions[0], []) == "unknown"


def test_without_foldoc_the_line_that_installs_it_is_told(tmp_path: Path) -> None:
    with pytest.raises(HeedfulError, match="apt-get install dict-foldoc"):
        load_foldoc(tmp_path)
    for name in ("foldoc.index", "foldoc.dict.dz"):
        (tmp_path / name).write_text("x")
    with pytest.raises(HeedfulError, match="cannot be read"):
        load_foldoc(tmp_path)
