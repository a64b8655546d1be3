"""`heedful retrieve` from the command line: index, ask, eval and generate, what they say, refuse, keep and resume."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from test_search_http import Server, server  # noqa: F401 (a fixture)
from test_search_index import die, in_child, write

from heedful.cli import main
from heedful.data.hops import read_questions
from heedful.data.hops.foldoc import installed
from heedful.data.hops.world import World
from heedful.data.passages import Passage
from heedful.judges import search_words
from heedful.judges.search_index import open_index
from heedful.recipes import retrieve_pipeline

pytest.importorskip("bm25s", reason="BM25 needs the extra retrieve")

SHARED = Path(__file__).parent.parent.parent / "shared" / "data" / "multihop"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with corpus.jsonl, train.jsonl, test.jsonl and index/."""
    folder = tmp_path_factory.mktemp("world") / "w"
    assert main(["retrieve", "generate", "--out", str(folder), "--entities", "300", "--hops", "2", "3",
                 "--train", "4", "--dev", "0", "--test", "60", "--json"]) == 0  # fmt: skip
    index = ["retrieve", "index", str(folder / "corpus.jsonl"), "--out", str(folder / "index"), "--quiet"]
    assert main(index) == 0
    return folder


def evaluate(world: Path, out: Path, *more: str, writer: str = "passage", ask: str = "test.jsonl") -> int:
    return main(["retrieve", "eval", writer, "--questions", str(world / ask), "--index", str(world / "index"),
                 "--out", str(out), "--quiet", *more])  # fmt: skip


# ---- generate and index


def test_generate_writes_the_world(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sorted(f.name for f in world.iterdir()) == ["corpus.jsonl", "index", "test.jsonl", "train.jsonl"]
    made = World(0, 300, (2, 3))
    rows = [json.loads(line) for line in (world / "corpus.jsonl").read_text().splitlines()]
    assert [Passage(**row) for row in rows] == list(made) and len(rows) == 312
    assert read_questions(world / "test.jsonl") == made.questions("test", 60)
    assert main(["retrieve", "generate", "--out", str(world)]) == 1
    assert "is there and not empty; choose another folder with --out" in capsys.readouterr().err
    assert main(["retrieve", "generate", "--out", str(world / "corpus.jsonl")]) == 1
    assert "choose another folder" in capsys.readouterr().err
    wrong = ["--source", "foldoc", "--form", "claim", "--entities", "9", "--dev", "-1"]
    assert main(["retrieve", "generate", "--out", str(world / "x"), *wrong]) == 1
    said = capsys.readouterr().err
    assert "--entities has no part in --source foldoc; --form has" in said and "must be 0 or more" in said
    assert (
        main(["retrieve", "generate", "--out", str(world / "x"), "--entities", "24", "--test", "9999"]) == 1
    )
    assert "test questions, not 9,999; make it larger" in capsys.readouterr().err
    assert not (world / "x").exists()


def test_generate_writes_foldoc(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not installed():
        pytest.skip("FOLDOC is not installed: apt-get install dict-foldoc")
    assert main(["retrieve", "generate", "--source", "foldoc", "--out", str(tmp_path / "f")]) == 0
    assert "train: 600\ndev: 100\ntest: 300" in capsys.readouterr().out
    assert len(read_questions(tmp_path / "f" / "test.jsonl")) == 300


def test_index_says_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "c.jsonl"
    rows = [{"title": "A", "text": "apples"}, {"title": "A", "text": "more"}, {"text": "none"}, {"text": " "}]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["retrieve", "index", str(source), "--out", str(tmp_path / "index"), "--quiet"]
    assert main(command) == 1
    assert (
        f"{source}:4: text: is empty" in capsys.readouterr().err
        and not (tmp_path / "index" / "bm25").exists()
    )
    assert main([*command, "--drop-faulty-rows"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"3 passages in {tmp_path / 'index'}, for bm25",
        "1 faulty passages were left out",
        "1 passages have no title",
        "1 passages have a title that another has",
    ]
    assert main([*command, "--drop-faulty-rows", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["passages"] == 3


# ---- ask


def test_ask_shows_each_hop(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    question = read_questions(world / "test.jsonl")[0]
    command = ["retrieve", "ask", "title", f"  {question.question} ", "--index", str(world / "index")]
    assert main([*command, "--hops", "2", "--k", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    _, bm25 = open_index(world / "index", "bm25")
    (first,) = bm25([question.question], 2)
    (second,) = bm25([first[0].passage.title], 2)
    assert lines[0] == f"hop 1: {question.question}" and lines[5] == f"hop 2: {first[0].passage.title}"
    assert lines[1] == f"  1. {first[0].passage.title}  ({first[0].score:.2f})"
    assert lines[2].strip().rstrip("…") in first[0].passage.text
    assert lines[8].startswith(f"  2. {second[1].passage.title}") and len(lines) == 10
    assert main([*command, "--hops", "1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["question"] == question.question and len(told["hops"]) == 1 and told["answer"] is None
    assert told["hops"][0]["hits"][0] == first[0].as_row() == told["context"][0]


def test_ask_says_when_nothing_is_found_and_escapes_what_others_wrote(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEEDFUL_CACHE", str(tmp_path))
    source = write(tmp_path / "c.jsonl", [Passage("1", "", "a red \x1b[31m dragon")])
    command = ["retrieve", "ask", "title", "--corpus", str(source), "--quiet"]
    assert main([*command, "zebra", "--hops", "1"]) == 0
    assert capsys.readouterr().out == "hop 1: zebra\n  nothing was found\n"
    assert main([*command, "dragon"]) == 0
    out = capsys.readouterr().out
    assert "(no title)" in out and "\x1b" not in out and "hop 2: (blank)\n  nothing was found" in out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["question", "q"], "name what is searched: --corpus FILE, or --index FOLDER"),
        (["question", " ", "--index", "x"], "the question is blank"),
        (["gold", "q", "--index", "x"], "the rule gold needs to know what is gold"),
        (["question", "q", "--index", "x", "--hops", "-1"], "--hops must be at least 1"),
        (["question", "q", "--index", "x", "--k", "-2"], "--k must be at least 1"),
        (["question", "q", "--index", "nowhere"], "nowhere holds no finished bm25 index"),
        (["question", "q", "--corpus", "nowhere.jsonl"], "nowhere.jsonl"),
        (["question", "q", "--retriever", "http"], "--retriever http needs --service"),
        (["question", "q", "--index", "x", "--service", "s"], "--service goes with --retriever http"),
        (["title", "q", "--retriever", "http", "--service", "s", "--corpus", "c"], "--corpus has no part in"),
        (
            ["http://host", "q", "--index", "x"],
            "RUN is a server: name the model to ask there with --writer-model",
        ),
        (["title", "q", "--index", "x", "--writer-model", "m"], "--writer-model goes with a server as RUN"),
        (["title", "q", "--index", "x", "--reader", "http://host"], "there with --reader-model"),
    ],
)
def test_what_cannot_be_asked(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["retrieve", "ask", *arguments]) == 1
    assert told in capsys.readouterr().err


# ---- eval


def result(out: Path) -> dict[str, Any]:
    return json.loads((out / "result.json").read_text())


def by_hand(world: Path, queries: Sequence[Sequence[str]], k: int) -> float:
    """Mean recall of the gold titles of questions for which several queries each were asked."""
    _, bm25 = open_index(world / "index", "bm25")
    shares = []
    for question, asked in zip(read_questions(world / "test.jsonl"), queries, strict=True):
        found = {hit.passage.title for hits in bm25(asked, k) for hit in hits}
        shares.append(len(found & set(question.gold_titles)) / len(question.gold_titles))
    return sum(shares) / len(shares)


def test_eval_measures_every_hop_of_both_writers(world: Path, tmp_path: Path) -> None:
    assert evaluate(world, tmp_path / "e", writer="gold") == 0
    told = result(tmp_path / "e")
    sizes = [told[name] for name in ("questions", "hops", "k", "passages", "absent", "searches")]
    assert sizes == [60, 3, 3, 312, 0, 180]
    questions = read_questions(world / "test.jsonl")
    alone = by_hand(world, [[q.question] for q in questions], 3)
    assert told["hop1_recall"] == told["against_hop1_recall"] == told["against_hop3_recall"]
    assert told["hop1_recall"] == pytest.approx(alone, abs=1e-6)
    assert told["hop1_recall"] < told["hop2_recall"] < told["hop3_recall"]
    assert told["change_in_hop3_recall"] == pytest.approx(told["hop3_recall"] - alone, abs=2e-6)
    low, high = told["change_in_hop3_recall_interval"]
    assert 0 < low < told["change_in_hop3_recall"] < high
    assert told["hop3_ap"] <= told["hop3_recall"]
    report = json.loads((tmp_path / "e" / "report.json").read_text())
    table = next(t for t in report["tables"] if t["title"] == "By hop")
    assert [row[:2] for row in table["rows"]] == [[w, h] for w in ("gold", "question") for h in (1, 2, 3)]
    parts = next(t for t in report["tables"] if t["title"] == "By number of gold passages")
    assert [row[:2] for row in parts["rows"]] == [["2", 30], ["3", 30]]
    assert "interval" in report["summary"][0] and (tmp_path / "e" / "report.html").stat().st_size > 10_000
    shown = report["samples"][0]["after"]["text"]
    assert shown.startswith("hop 1: ") and "   * " in shown


def test_eval_killed_at_any_search_ends_with_the_same_bytes(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrieve_pipeline, "PART", 25)
    assert evaluate(world, tmp_path / "whole") == 0
    call = search_words.Bm25.__call__
    for kills in (1, 5, 13):
        out = tmp_path / f"killed{kills}"

        def work(kills: int = kills, out: Path = out) -> None:
            left = [kills]

            def dying(self: Any, queries: Sequence[str], k: int) -> Any:
                left[0] -= 1
                return call(self, queries, k) if left[0] else die()

            search_words.Bm25.__call__ = dying  # type: ignore[method-assign]
            evaluate(world, out)

        assert in_child(work) == -signal.SIGKILL
        assert not (out / "result.json").exists()
        assert evaluate(world, out) == 0
        for name in ("result.json", "report.json", "run/hop3.jsonl", "against/hop1.jsonl"):
            assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    before = (tmp_path / "whole" / "run" / "hop1.jsonl").stat().st_mtime_ns
    assert evaluate(world, tmp_path / "whole") == 0
    assert (tmp_path / "whole" / "run" / "hop1.jsonl").stat().st_mtime_ns == before


def test_merges_give_the_same_recall_in_another_order(world: Path, tmp_path: Path) -> None:
    told = {}
    for merge in ("score", "rrf", "hop"):
        assert evaluate(world, tmp_path / merge, "--merge", merge, "--against", "", writer="title") == 0
        told[merge] = result(tmp_path / merge)
        assert "against" not in told[merge]
    # the first hop is the same whatever comes after it; at the end all hold what was found
    assert len({told[merge]["hop1_ap"] for merge in told}) == 1
    assert len({told[merge]["hop2_recall"] for merge in told}) == 1
    assert len({told[merge]["hop2_ap"] for merge in told}) > 1


def test_another_setting_or_corpus_needs_another_folder(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "e"
    assert evaluate(world, out, "--limit", "5") == 0
    assert evaluate(world, out, "--limit", "5", "--k", "4") == 1
    assert "k: 3 -> 4" in capsys.readouterr().err
    other = [
        "retrieve",
        "index",
        str(world / "corpus.jsonl"),
        "--out",
        str(tmp_path / "i"),
        "--b",
        "0.9",
        "--quiet",
    ]
    assert main(other) == 0
    command = [
        "retrieve",
        "eval",
        "passage",
        "--questions",
        str(world / "test.jsonl"),
        "--limit",
        "5",
        "--quiet",
    ]
    assert main([*command, "--index", str(tmp_path / "i"), "--out", str(out)]) == 1
    assert "was begun with another index" in capsys.readouterr().err


def test_faulty_files_are_told_before_there_is_a_run(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "e"
    bad = tmp_path / "q.jsonl"
    bad.write_text('{"question": "q", "gold_titles": ["Nobody"]}\n{"question": ""}\n')
    assert evaluate(world, out, ask=str(bad)) == 1
    assert f"{bad}:2: question: is empty" in capsys.readouterr().err
    assert evaluate(world, out, ask=str(tmp_path / "none.jsonl")) == 1
    assert "there is no such file" in capsys.readouterr().err
    bad.write_text('{"question": "q", "answer": "a"}\n')
    assert evaluate(world, out, ask=str(bad)) == 1
    assert (
        "has no gold titles, so only answers can be measured: name a model with --reader"
        in capsys.readouterr().err
    )
    for more, told in (
        (["--against", "http://host"], "compare two servers with two runs"),
        (["--max-absent", "2"], "--max-absent must be from 0 to 1"),
        (["--limit", "-1"], "--limit must be 0 or more"),
        (["--reader", "title"], "a rule cannot read; name a model"),
    ):
        assert evaluate(world, out, *more) == 1
        assert told in capsys.readouterr().err
    assert not out.exists(), "so that the mended file starts a run of its own"


def test_absent_gold_titles_are_counted_or_refused(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    questions = read_questions(world / "test.jsonl")[:10]
    rows = [q.as_row() for q in questions]
    rows[3]["gold_titles"][0] = "Nobody"
    ask = tmp_path / "q.jsonl"
    ask.write_text("".join(json.dumps(row) + "\n" for row in rows))
    total = sum(len(row["gold_titles"]) for row in rows)
    assert evaluate(world, tmp_path / "e", "--max-absent", "0.01", ask=str(ask)) == 1
    assert f"1 of {total} gold titles are not in the corpus" in capsys.readouterr().err
    assert evaluate(world, tmp_path / "e", ask=str(ask)) == 0
    assert result(tmp_path / "e")["absent"] == 1
    warned = json.loads((tmp_path / "e" / "report.json").read_text())["warnings"]
    assert any(f"1 of {total} gold titles are not in the corpus" in w and "Nobody" in w for w in warned)


def test_questions_without_hits_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEEDFUL_CACHE", str(tmp_path))
    corpus = write(tmp_path / "c.jsonl", [Passage("1", "Dragon", "red"), Passage("2", "Dragon", "green")])
    ask = tmp_path / "q.jsonl"
    ask.write_text(
        '{"question": "zebra", "gold_titles": ["Dragon"]}\n{"question": "green", "gold_titles": ["Dragon"]}\n'
    )
    command = ["retrieve", "eval", "title", "--questions", str(ask), "--corpus", str(corpus), "--hops", "2"]
    assert main([*command, "--out", str(tmp_path / "e"), "--quiet", "--against", ""]) == 0
    told = result(tmp_path / "e")
    assert (told["without_hits"], told["searches"], told["hop2_recall"], told["titles_again"]) == (
        2,
        4,
        0.5,
        1,
    )
    warned = json.loads((tmp_path / "e" / "report.json").read_text())["warnings"]
    assert "2 of 4 searches found nothing." in " ".join(warned) and "a title that another has" in " ".join(
        warned
    )


def test_a_search_service_is_asked_and_its_death_is_told(
    world: Path,
    server: Server,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, bm25 = open_index(world / "index", "bm25")
    server.answer = lambda asked: [hit.as_row() for hit in bm25([asked["q"]], asked["k"])[0]]
    service = tmp_path / "service.yaml"
    fields = {"id": "id", "title": "title", "text": "text", "score": "score", "retries": 0}
    service.write_text(json.dumps({"url": server.url, "body": {"q": "{query}", "k": "{k}"}, **fields}))
    command = ["retrieve", "eval", "passage", "--questions", str(world / "test.jsonl"), "--quiet", "--limit", "6",
               "--retriever", "http", "--service", str(service), "--out"]  # fmt: skip
    assert main([*command, str(tmp_path / "http")]) == 0
    assert evaluate(world, tmp_path / "here", "--limit", "6") == 0
    ours, theirs = result(tmp_path / "http"), result(tmp_path / "here")
    assert {k: v for k, v in ours.items() if "hop" in k} == {k: v for k, v in theirs.items() if "hop" in k}
    asked = len(server.asked)
    assert asked == len({row["q"] for row in server.asked}), "no query is sent twice in a run"
    server.shutdown()
    server.server_close()
    assert main([*command, str(tmp_path / "http")]) == 0
    capsys.readouterr()
    assert main([*command, str(tmp_path / "dead")]) == 1
    assert "/search failed 1 times, the last time: no answer" in capsys.readouterr().err


def test_a_model_writes_and_answers(world: Path, tmp_path: Path) -> None:
    import tiny

    model = str(tiny.save(tmp_path / "model"))
    more = ["--limit", "3", "--hops", "2", "--passage-words", "8", "--max-new-tokens", "4", "--reader", model]
    for out in ("one", "two"):
        assert evaluate(world, tmp_path / out, *more, "--device", "cpu", writer=model) == 0
    told = result(tmp_path / "one")
    assert told == result(tmp_path / "two")
    assert told["prompt_tokens"] > told["completion_tokens"] > 0 and 0 <= told["answer_f1"] <= 1
    replies = (tmp_path / "one" / "run" / "hop2-replies.jsonl").read_text().splitlines()
    prompts = [json.loads(reply)["prompt"] for reply in replies]
    questions = read_questions(world / "test.jsonl")[:3]
    assert all(f"Question: {q.question}\n" in prompt for q, prompt in zip(questions, prompts, strict=True))


# ---- real questions

EXPECTED = {
    # source: the question, then 200 characters of the best passage; six passages at once; then a missing gold title
    "hotpotqa": (0.645, 0.695, 0.750, 0.950),
    "musique": (0.427, 0.459, 0.494, 0.795),
}


def test_real_questions_have_the_recall_that_was_measured_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is not there: real multi-hop questions are not part of heedful")
    from heedful.evals.retrieval import recall
    from heedful.judges.search_index import cached_index
    from heedful.recipes.retrieve_pipeline import Steps, Turn, found_titles, hop
    from heedful.recipes.retrieve_writers import RULES

    monkeypatch.setenv("HEEDFUL_CACHE", os.environ.get("HEEDFUL_CACHE") or str(tmp_path))
    passages, bm25 = cached_index(SHARED / "corpus.jsonl.gz", "bm25")
    questions = read_questions(SHARED / "train.jsonl")
    assert len(passages) == 13_921 and len(questions) == 200
    for source, expected in EXPECTED.items():
        asked = [question for question in questions if question.source == source]
        measured = []
        for rules, k in (
            (["question"], 3),
            (["question", "passage"], 3),
            (["question"], 6),
            (["question", "gold"], 3),
        ):
            turns = [Turn(question, Steps(k=k)) for question in asked]
            for rule in rules:
                turns = hop(turns, RULES[rule], bm25)
            found = [recall(found_titles(turn), turn.question.gold_titles) for turn in turns]
            measured.append(sum(found) / len(found))
        assert measured == pytest.approx(expected, abs=0.01), source
        turns = [Turn(question, Steps(repeats="skip")) for question in asked]
        for _ in range(2):
            turns = hop(turns, RULES["question"], bm25)
        found = [recall(found_titles(turn), turn.question.gold_titles) for turn in turns]
        assert sum(found) / len(found) == pytest.approx(measured[2]), "as good as six passages at once"
