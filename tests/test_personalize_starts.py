"""`heedful personalize`: starts that went wrong can be corrected, kills lose nothing, and figures mean something."""

# ruff: noqa: F811  a fixture of another test file is also a parameter
from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from personalize_people import crowd, label_of, read, write
from test_personalize import arguments, asked, fitted, refused, run, said  # noqa: F401

from heedful.errors import HeedfulError
from heedful.recipes.personalize_pairs import Label
from heedful.recipes.personalize_report import _cancel, _said
from heedful.recipes.personalize_scores import scores_in
from heedful.recipes.personalize_store import open_person
from heedful.recipes.personalize_targets import summary


def test_a_start_that_went_wrong_takes_the_correction(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    people = crowd(60)
    write(tmp_path / "people.jsonl", people)
    write(tmp_path / "faulty.jsonl", [*people, {"prompt": "Q?", "chosen": "", "rejected": "b"}])
    write(tmp_path / "eval.jsonl", [{**row, "kind": "one"} for row in crowd(8, seed=5)])
    saved = [
        {"prompt": row["prompt"], "completion": row[side], "scores": [len(row[side]), i]}
        for i, row in enumerate(people)
        for side in ("chosen", "rejected")
    ]
    write(tmp_path / "few.jsonl", saved[:-1])
    write(tmp_path / "all.jsonl", saved)

    def words(name: str, file: str = "people.jsonl") -> list[str]:
        return ["fit", str(tmp_path / file), "--out", str(tmp_path / name), "--quiet"]

    def scores(file: str) -> list[str]:
        return ["--scores", str(tmp_path / file)]

    small = ["--cache", str(tmp_path / "cache"), "--dimensions", "4"]
    targets = [*small, "--eval", str(tmp_path / "eval.jsonl"), "--draws", "2"]
    who = [*small, "--builder", "annotator", "--annotators"]
    for name, file, wrong, told, right in (
        ("rows", "faulty.jsonl", small, "faulty.jsonl:61: chosen: is empty", [*small, "--drop-faulty-rows"]),
        ("who", "people.jsonl", [*who, "whom"], "whom: a name or a number is needed", [*who, "who"]),
        (
            "targets",
            "people.jsonl",
            targets,
            "eval.jsonl:1: subset: is missing",
            [*targets, "--subset", "kind"],
        ),
        ("scores", "people.jsonl", scores("few.jsonl"), "has no scores of this answer", scores("all.jsonl")),
        ("none", "people.jsonl", scores("none.jsonl"), "there is no such file", scores("all.jsonl")),
    ):
        assert told in refused(capsys, *words(name, file), *wrong)
        said(capsys, *words(name, file), *right)


def test_heads_that_a_kill_left_half_made_are_made_again(
    fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(fitted, tmp_path / "copy"))
    config = folder / "run/config.yaml"
    config.write_text(config.read_text().replace(str(fitted), str(folder)))
    for name in ("heads/personal.json", "fit.json", "result.json"):
        (folder / "run" / name).unlink()
    told = refused(capsys, "query", str(folder / "run"))
    assert "is unfinished: run its command again (heads/personal.json is missing)" in told
    said(capsys, "fit", *arguments(folder), "--quiet")
    for name in ("heads/personal.json", "heads/heads.safetensors"):
        assert (folder / "run" / name).read_bytes() == (fitted / "run" / name).read_bytes()


def test_pairs_for_neither_use_are_counted(fitted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = arguments(fitted)
    words[2] = str(fitted / "limited")
    said(capsys, "fit", *words, "--quiet", "--pool-limit", "50")
    data = json.loads((fitted / "limited/report.json").read_text())["data"]
    (unused,) = (value for name, value in data.items() if name.startswith("held out and not asked about"))
    assert (
        unused == 22 and data["pairs"] == 240 == data["training pairs"] + data["pairs to ask about"] + unused
    )


# ---- labels


def test_labels_are_taken_back_only_together_with_the_new_ones(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = crowd(1, seed=9)[0]
    id_row, other = asked(capsys, run, 2)
    first = write(run.parent / "a.jsonl", [{"id": id_row["id"], "label": 1}, own])
    said(capsys, "adapt", str(run), "--labels", str(first))
    before = (run / "labels.jsonl").read_bytes()
    own_id = list(open_person(run).labels)[1]
    for rows, told in (
        ([{"id": "nowhere", "label": 1}], "there is no pair 'nowhere'"),
        ([{"id": own_id, "label": 0}], "there is no pair"),
        ([{"id": other["id"], "label": 1}, {"id": id_row["id"], "label": 0}], "has the label 1 already"),
        ([{**own, "label": 0.5}], "b.jsonl:1: label: 0.5 is a tie"),
    ):
        wrong = write(run.parent / "b.jsonl", rows)
        assert told in refused(capsys, "adapt", str(run), "--undo", "1", "--labels", str(wrong))
        assert (run / "labels.jsonl").read_bytes() == before, told
    turned = {"prompt": own["prompt"], "chosen": own["rejected"], "rejected": own["chosen"]}
    right = write(run.parent / "c.jsonl", [turned, {"id": own_id, "label": 1}, {"id": own_id, "label": 0}])
    assert "has the label" in refused(capsys, "adapt", str(run), "--undo", "1", "--labels", str(right))
    told = said(
        *(capsys, "adapt", str(run), "--undo", "1", "--json"),
        *("--labels", str(write(right, [turned, {"id": other["id"], "label": 0.5}]))),
    )
    assert told["undone"] == [own_id] and (told["new"], told["known"], told["labels"]) == (2, 0, 3)
    person = open_person(run)
    assert person.labels[own_id] != json.loads(before.splitlines()[1])["label"] and person.export()
    weights = person.reward.weights_
    person.change([], undo=3)
    person.take([Label(id_row["id"], 1.0), Label(other["id"], 0.5)])
    assert not np.array_equal(person.reward.weights_, weights) and len(person.labels) == 2


def test_labels_before_the_fit_has_ended_are_taken(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "page.json").unlink()
    row = asked(capsys, run, 1)[0]
    file = write(run.parent / "l.jsonl", [{"id": row["id"], "label": 1}])
    assert said(capsys, "adapt", str(run), "--labels", str(file), "--json")["new"] == 1


def test_the_report_follows_labels_from_elsewhere(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    person = open_person(run)
    person.take([Label(row["id"], float(label_of(row))) for row in person.ask(3)])
    assert "3 labels leave" not in (run / "report.html").read_text()
    said(capsys, "adapt", str(run))
    assert "3 labels leave" in (run / "report.html").read_text()
    written = (run / "report.html").stat().st_mtime_ns
    said(capsys, "adapt", str(run))
    assert (run / "report.html").stat().st_mtime_ns == written, "nothing is new"
    person.change([], undo=3)
    os.utime(run / "report.html", ns=(1, 1))
    said(capsys, "adapt", str(run))
    assert "labels leave" not in (run / "report.html").read_text()


# ---- figures


def test_nothing_is_said_of_the_mean_of_heads_that_cancel(
    run: Path, fitted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    margins = rng.normal(size=(40, 6))
    assert _cancel(np.concatenate([margins, -margins], 1)) and _cancel(0 * margins) and not _cancel(margins)
    page = json.loads((fitted / "run/report.json").read_text())
    assert [row[0] for row in page["tables"][0]["rows"]][:2] == ["single head", "best head"]
    assert "come both ways" in page["summary"][1]
    person = open_person(run)
    person.take([Label(row["id"], float(label_of(row))) for row in person.ask(5)])
    figures = said(capsys, "adapt", str(run), "--json")["figures"]
    assert "accuracy_single" in figures and not {"accuracy_uniform", "loss_uniform"} & set(figures)
    page = json.loads((run / "report.json").read_text())
    assert page["tables"][0]["rows"][0] == ["uniform mean of the heads", "–", "–"]
    words = arguments(fitted)
    words[2] = str(fitted / "random")
    told = said(capsys, "fit", *words, "--quiet", "--json", "--builder", "random")
    assert (
        not told["both_ways"]
        and "since these heads were fitted to nobody's; uniform mean" in told["summary"][1]
    )


def test_the_headline_of_target_distributions_leaves_out_a_mean_that_is_rounding(fitted: Path) -> None:
    from types import SimpleNamespace
    from typing import Any

    measured = json.loads((fitted / "run/fit.json").read_text())
    arms = ("uniform", "single", "best_head", "fine_tuned", "reweighting", "chosen by diagnosis")
    found = [
        {
            "subset": name,
            "pairs": 9,
            "accuracy": {arm: [0.4 + 0.1 * i, 0.5 + 0.1 * i] for arm in arms},
            "used": ["single", "single"],
            "effective_heads": [3.0, 4.0],
        }
        for i, name in enumerate("ab")
    ]
    targets = summary(found, {}, 0, both_ways=True)
    assert "uniform" not in targets["overall"] and set(targets["gains"]) == {
        "single",
        "best_head",
        "fine_tuned",
    }
    cfg: Any = SimpleNamespace(shots=5)
    headline = _said(cfg, cfg, measured, targets)[0]
    assert "of the rest, the single head on" in headline and "uniform" not in headline
    assert "uniform" in summary(found, {}, 0)["gains"]


def test_faulty_rows_left_out_of_scoring_are_counted(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [*crowd(4, seed=3), {"prompt": "Q?", "chosen": "", "rejected": "b"}]
    file = str(write(run.parent / "s.jsonl", rows))
    told = said(capsys, "score", str(run), file, "--drop-faulty-rows", "--json")
    assert (told["rows"], told["left_out_faulty"]) == (4, 1) and len(read(run / "scores.jsonl")) == 4
    assert "faulty rows left out: 1\n" in said(capsys, "score", str(run), file, "--drop-faulty-rows")


@pytest.mark.parametrize(
    "number", [1e300, 10**400, float("nan"), True, None], ids=lambda number: repr(number)[:6]
)
def test_a_score_that_32_bits_do_not_hold_is_named(number: float) -> None:
    with pytest.raises(HeedfulError, match=r"^s.jsonl:3: scores: b is no finite number of 32 bits$"):
        scores_in({"scores": {"a": 1, "b": number}}, "scores", "s.jsonl:3", ())


def test_a_dry_run_with_saved_scores_says_what_will_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "fit",
        str(write(tmp_path / "p.jsonl", crowd(9))),
        "--dry-run",
        "--scores",
        str(tmp_path / "s.npz"),
    ]
    assert "s.npz: there is no such file" in refused(capsys, *words)
    (tmp_path / "s.npz").touch()
    assert "pool         all of the prompts" in said(capsys, *words)
