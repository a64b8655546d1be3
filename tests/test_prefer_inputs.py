"""What `heedful prefer` says of rows that do not fit the model, before it begins, and of a judge that was corrected."""

# ruff: noqa: F811  a fixture of another test file is also a parameter
from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_prefer import JUDGE, no_git, place, refused, rows, start, write  # noqa: F401

from heedful.cli import main as heedful


def test_pairs_longer_than_the_context_are_named(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = rows(place / "pairs.jsonl")
    long[2]["chosen"] = "water " * 600
    long[5]["rejected"] = "egg " * 600
    data = write(tmp_path / "long.jsonl", long)
    said = refused(start(place, tmp_path / "run", "--data", str(data), "--method", "simpo"), capsys)
    assert f"{data}:3: " in said and f"{data}:6: " in said and "context" in said
    # a reward model that is fitted to them says so too, before it is
    more = ["--data", str(data), "--reward-model", f"{place}/start", "--rounds", "1"]
    said = refused(start(place, tmp_path / "run", *more), capsys)
    assert f"{data}:3: " in said and f"{data}:6: " in said
    held = write(tmp_path / "held.jsonl", [{"prompt": "New?", "chosen": "egg " * 600, "rejected": "a"}])
    pairs = ["--data", f"{place}/pairs.jsonl", "--eval-data", str(held)]
    said = refused(start(place, tmp_path / "run", *pairs), capsys)
    assert f"{held}:1: " in said and "leave out these rows" in said
    known = {"config.yaml", "manifest.json", ".lock", "cache"}
    assert {path.name for path in (tmp_path / "run").iterdir()} <= known, "nothing was begun"


def test_prompts_that_leave_no_room_for_an_answer_are_named_before_anything_is_sampled(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = write(tmp_path / "held.jsonl", [{"prompt": "A?"}, {"prompt": "water " * 600}])
    asked = ["--prompts", f"{place}/prompts.jsonl", "--judge", "rule:length<9w"]
    said = refused(start(place, tmp_path / "run", *asked, "--eval-prompts", str(held)), capsys)
    assert f"{held}:2: " in said and "--max-new-tokens 10" in said and f"{held}:1: " not in said
    said = refused(start(place, tmp_path / "run", *asked, "--max-new-tokens", "4000"), capsys)
    assert f"{place}/prompts.jsonl:10: " in said and not (tmp_path / "run/before").exists()


def test_a_judge_may_be_corrected_and_the_report_says_so(place: Path, tmp_path: Path) -> None:
    judge, run = tmp_path / "judge.py", tmp_path / "run"
    asked = ["--prompts", f"{place}/prompts.jsonl", "--judge", f"{judge}:letters"]
    words = [*start(place, run, *asked), "--rounds", "1", "--max-steps", "1", "--eval-n", "1"]

    def warned() -> bool:
        warnings = json.loads((run / "report.json").read_text())["warnings"]
        return any(said.startswith(f"{judge} has changed since the run began") for said in warnings)

    judge.write_text("def letters(completions):\n    raise ValueError\n")
    assert heedful(words) == 1
    judge.write_text(JUDGE)
    assert heedful(words) == 0 and not warned(), "what failed at its first call has judged nothing"
    judge.write_text(JUDGE + "# corrected\n")
    assert heedful(words) == 0 and warned()
