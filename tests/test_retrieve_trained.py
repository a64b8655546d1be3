"""How a run was trained to search is how `eval` and `ask` search with it, unless they are told otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import searcher

from heedful.cli import main
from heedful.errors import HeedfulError
from heedful.recipes.retrieve_eval import Config
from heedful.recipes.retrieve_trained import settle, trained_with

pytest.importorskip("bm25s", reason="BM25 needs the extra retrieve")

TOLD = {"job": "retrieve train", "hops": 3, "k": 2, "merge": "rrf", "repeats": "skip", "passage_words": 7}


def told(folder: Path, **more: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps({**TOLD, **more}))
    return folder


def used(cfg: Any) -> tuple[Any, ...]:
    return cfg.hops, cfg.k, cfg.merge, cfg.repeats, cfg.passage_words


def test_what_is_not_said_is_as_in_training(tmp_path: Path) -> None:
    run = told(tmp_path / "run")
    (run / "model").mkdir()
    for spec in (run, run / "model"):
        cfg, notes = settle(Config(str(spec)))
        assert used(cfg) == (3, 2, "rrf", "skip", 7) and notes == []
    assert (
        used(settle(Config("title"))[0]) == (0, 3, "score", "keep", 60) == used(settle(Config("nowhere"))[0])
    )
    assert settle(Config("title"), hops=2)[0].hops == 2
    older = {name: value for name, value in TOLD.items() if name != "repeats"}
    (told(tmp_path / "older") / "result.json").write_text(json.dumps(older))
    assert trained_with(str(tmp_path / "older"))["repeats"] == "keep"
    other = told(tmp_path / "other", job="search eval")
    assert trained_with(str(other)) == {} == trained_with("http://localhost:1/v1")


def test_options_override_and_what_differs_is_told(tmp_path: Path) -> None:
    run, other = told(tmp_path / "run"), told(tmp_path / "other", k=5)
    cfg, notes = settle(Config(str(run), k=4, merge="score", hops=3, repeats="keep", against=str(other)))
    assert used(cfg) == (3, 4, "score", "keep", 7)
    assert [note.split(":")[0] for note in notes] == [
        f"{run} was trained with --k 2, and is used here with 4",
        f"{run} was trained with --merge rrf, and is used here with score",
        f"{run} was trained with --repeats skip, and is used here with keep",
        f"{other} was trained with --k 5, and is used here with 4",
        f"{other} was trained with --merge rrf, and is used here with score",
        f"{other} was trained with --repeats skip, and is used here with keep",
    ]


@pytest.mark.parametrize("wrong", [{"k": "3"}, {"hops": 0}, {"merge": 1}, {"passage_words": True}])
def test_a_damaged_result_is_named(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(HeedfulError, match=rf"result.json: {next(iter(wrong))} is .* train the run again"):
        trained_with(str(told(tmp_path / "run", **wrong)))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """corpus.jsonl and test.jsonl, and a run folder with a model in it."""
    folder = tmp_path_factory.mktemp("trained")
    searcher.write_files(folder)
    searcher.save_writer(folder / "run" / "model", steps=1)
    told(folder / "run")
    (folder / "run" / "manifest.json").write_text("{}")
    return folder


def test_eval_and_ask_search_as_the_run_was_trained(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEEDFUL_CACHE", str(tmp_path / "cache"))
    corpus = ["--corpus", str(place / "corpus.jsonl"), "--max-new-tokens", "2", "--device", "cpu", "--quiet"]
    files = ["--questions", str(place / "test.jsonl"), "--limit", "2"]
    evaluate = ["retrieve", "eval", str(place / "run"), *files, *corpus, "--json", "--out"]
    assert main([*evaluate, str(tmp_path / "own")]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["hops"], result["k"], result["merge"]) == (3, 2, "rrf") and result["searches"] == 6
    assert result["repeats"] == "skip"
    assert "was trained" not in (tmp_path / "own" / "report.json").read_text()
    assert main([*evaluate, str(tmp_path / "told"), "--k", "1", "--hops", "1"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["hops"], result["k"], result["merge"]) == (1, 1, "rrf")
    warnings = json.loads((tmp_path / "told" / "report.json").read_text())["warnings"]
    assert [w.split("trained with ")[1].split(":")[0] for w in warnings[:2]] == [
        "--hops 3, and is used here with 1",
        "--k 2, and is used here with 1",
    ]
    assert main(["retrieve", "ask", str(place / "run"), "find red", *corpus, "--merge", "hop"]) == 0
    out = capsys.readouterr().out
    assert out.count("\nhop ") == 3 and out.startswith(f"note: {place / 'run'} was trained with --merge rrf")
    assert main(["retrieve", "ask", str(place / "run"), "find red", *corpus, "--json"]) == 0
    asked = json.loads(capsys.readouterr().out)
    assert len(asked["hops"]) == 3 and asked["notes"] == [] and len(asked["hops"][0]["hits"]) <= 2
