"""`heedful audit` on generated data whose truth is known: what it finds, says, cleans, refuses and keeps."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from audit_pairs import length_pairs, pairs, write

from heedful.cli import main
from heedful.data.quality.information import ARMS
from heedful.errors import HeedfulError
from heedful.evals.intervals import Interval
from heedful.recipes import audit, audit_clean, audit_learn, audit_plan, audit_tables
from heedful.recipes.audit_advice import points
from heedful.recipes.audit_survey import FINDINGS, survey
from heedful.run import open_run


def run(folder: Path, *files: Path, out: str = "run", **options: Any) -> dict[str, Any]:
    """An audit; its result."""
    cfg = audit.Config(
        files=tuple(map(str, files)),
        out=str(folder / out),
        cache=str(folder / "features"),
        quiet=True,
        **options,
    )
    assert audit.main(cfg) == 0
    return json.loads((folder / out / "result.json").read_text())


@pytest.fixture(scope="module")
def flipped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], list[dict[str, Any]]]:
    """(folder, result, rows) of an audit of 600 pairs, a tenth of whose labels is wrong, with --clean."""
    folder = tmp_path_factory.mktemp("flipped")
    rows = pairs(600, flipped=0.1)
    file = write(folder / "pairs.jsonl", rows)
    return folder, run(folder, file, clean=str(folder / "clean.jsonl")), rows


# ---- what is found


def test_wrong_labels_are_found_with_their_lines(flipped: Any) -> None:
    folder, _, rows = flipped
    wrong = {i for i, row in enumerate(rows, start=1) if row["flipped"]}
    suspects = [json.loads(line) for line in (folder / "run" / "suspicious.jsonl").read_text().splitlines()]
    first = [one["line"] for one in suspects[: len(wrong)]]
    assert len(wrong & set(first)) >= 0.9 * len(wrong)
    assert [one["confidence"] for one in suspects] == sorted(one["confidence"] for one in suspects)
    assert all(one["chosen"] == rows[one["line"] - 1]["chosen"] for one in suspects)


def test_accuracy_is_that_of_the_labels(flipped: Any) -> None:
    result = flipped[1]["files"][0]
    # A perfect model is right on nine tenths of such labels; the test labels are not cleaned.
    assert 0.82 <= result["probe_accuracy"]["estimate"] <= 0.96
    assert result["length_accuracy"]["low"] < 0.5 < result["probe_accuracy"]["low"]
    assert result["scale"]["slope"]["low"] > 0 and len(result["scale"]["n"]) >= 4
    accuracy = [a["estimate"] for a in result["noise"]["accuracy"]]
    assert accuracy[0] == pytest.approx(result["probe_accuracy"]["estimate"], abs=1e-6)
    assert accuracy[0] > accuracy[3] > accuracy[5] and abs(accuracy[5] - 0.5) < 0.1
    confidence = result["noise"]["mean_confidence"]
    assert all(a > b for a, b in pairwise(confidence[:5]))
    assert list(result["information"]["accuracy"]) == list(ARMS)


def test_the_cleaned_file_and_the_dropped_rows_make_up_the_whole(flipped: Any) -> None:
    folder, result, rows = flipped
    kept = [json.loads(line) for line in (folder / "clean.jsonl").read_text().splitlines()]
    dropped = [json.loads(line) for line in (folder / "clean.dropped.jsonl").read_text().splitlines()]
    lines = {one["line"] for one in dropped}
    assert kept == [row for i, row in enumerate(rows, start=1) if i not in lines]
    assert [one["row"] for one in dropped] == [rows[one["line"] - 1] for one in dropped]
    assert all(one["kind"] == "mislabelled" and one["confidence"] < 0.1 for one in dropped)
    assert all("likely mislabelled" in one["reason"] for one in dropped)
    wrong = [one["row"]["flipped"] for one in dropped]
    assert len(wrong) >= 20 and np.mean(wrong) > 0.9
    assert result["clean"] == {"kept": len(kept), "dropped": len(dropped), "mislabelled": len(dropped)}
    assert main(["check", str(folder / "clean.jsonl")]) == 0


def test_repeats_contradictions_and_useless_pairs_are_counted_and_dropped(tmp_path: Path) -> None:
    rows = pairs(120)
    rows += [
        rows[3],
        rows[4],
        rows[4],
        {**rows[7], "chosen": rows[7]["rejected"], "rejected": rows[7]["chosen"]},
    ]
    rows.append({**rows[9], "rejected": rows[9]["chosen"]})
    file = write(tmp_path / "pairs.jsonl", rows)
    result = run(tmp_path, file, clean=str(tmp_path / "out.jsonl"), clean_below=0.0)
    found = result["files"][0]
    assert (
        found["rows"],
        found["pairs"],
        found["duplicates"],
        found["contradictory"],
        found["identical"],
    ) == (
        125,
        124,
        3,
        2,
        1,
    )
    dropped = [json.loads(line) for line in (tmp_path / "out.dropped.jsonl").read_text().splitlines()]
    told = {one["line"]: (one["kind"], one["reason"]) for one in dropped}
    assert {line: kind for line, (kind, _) in told.items()} == {
        8: "contradictory",
        121: "duplicate",
        122: "duplicate",
        123: "duplicate",
        124: "contradictory",
        125: "identical",
    }
    assert told[121][1] == "the same pair as 4" and told[122][1] == told[123][1] == "the same pair as 5"
    assert any(
        "3 repeat an earlier pair, 2 contradict another pair, 1 have the same answer" in s
        for s in result["advice"]
    )


def test_answers_to_different_prompts_are_counted(tmp_path: Path) -> None:
    def talk(*turns: str) -> str:
        return "".join(f"\n\n{who}: {said}" for who, said in zip(["Human", "Assistant"] * 2, turns))

    rows = [
        {"chosen": talk(r["prompt"], r["chosen"]), "rejected": talk(r["prompt"], r["rejected"])}
        for r in pairs(80)
    ]
    rows.append(
        {"chosen": talk("Hi?", "Yes.", "Why?", "So."), "rejected": talk("Hi?", "No.", "How?", "Thus.")}
    )
    rows.append({"chosen": talk("Hello?", "Yes."), "rejected": talk("Goodbye?", "No.")})
    found = run(tmp_path, write(tmp_path / "hh.jsonl", rows))["files"][0]
    assert (found["mismatched"], found["pairs"], found["rows"]) == (2, 80, 82)


def test_the_findings_are_messages_that_the_reader_gives() -> None:
    import inspect

    from heedful.data import normalise

    source = inspect.getsource(normalise)
    assert all(part in source for part in FINDINGS)


# ---- what is said


def test_advice_begins_with_length_where_length_is_all_there_is(tmp_path: Path) -> None:
    result = run(tmp_path, write(tmp_path / "long.jsonl", length_pairs(500)))
    found = result["files"][0]
    assert result["advice"][0].startswith("long.jsonl: length explains ")
    assert "prefer longer answers" in result["advice"][0]
    assert found["length_explains_as_much"] and abs(found["chosen_longer"]["estimate"] - 0.85) < 0.04
    assert abs(found["length_accuracy"]["estimate"] - 0.85) < 0.08
    page = json.loads((tmp_path / "run" / "report.json").read_text())
    assert page["summary"][0] == page["tables"][0]["rows"][0][0] == result["advice"][0]
    shorter = [{**r, "chosen": r["rejected"], "rejected": r["chosen"]} for r in length_pairs(300, seed=1)]
    result = run(tmp_path, write(tmp_path / "short.jsonl", shorter), out="short")
    assert "prefer shorter answers" in result["advice"][0]


def test_advice_does_not_begin_with_length_where_words_decide(flipped: Any) -> None:
    assert not flipped[1]["files"][0]["length_explains_as_much"]
    assert "length explains" not in " ".join(flipped[1]["advice"])
    assert flipped[1]["advice"][0].startswith("pairs.jsonl: the probe predicts ")


def test_labels_that_are_noise_are_said_to_teach_nothing(tmp_path: Path) -> None:
    result = run(tmp_path, write(tmp_path / "noise.jsonl", pairs(300, flipped=0.5)))
    assert "learns nothing that is surely better than chance" in result["advice"][0]
    assert not result["files"][0]["length_explains_as_much"]


def test_the_page_has_the_table_four_plots_and_the_pairs_and_runs_nothing(tmp_path: Path) -> None:
    rows = pairs(200, flipped=0.2)
    attack = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    for row in rows:
        row["chosen"] += f" {attack}"
        row["rejected"] += f" {attack}"
    file = write(tmp_path / "<b>pairs.jsonl", rows)
    run(tmp_path, file)
    html = (tmp_path / "run" / "report.html").read_text()
    assert (
        "<script" not in html and "<img" not in html and "&lt;script&gt;" in html and "<b>pairs" not in html
    )
    titles = re.findall(r"<figcaption><b>([^<]*)</b>", html)
    assert [title.split(":")[0] for title in titles] == ["Scale", "Label noise", "Reliability", "Information"]
    headings = re.findall(r"<h2[^>]*>([^<]*)</h2>", html)
    assert {
        "Advice",
        "The files",
        "Scale",
        "Label noise",
        "Information content",
        "Plots",
        "Suspicious pairs",
    } <= set(headings)
    assert html.count('<article class="sample') == 20 and ">chosen</b>" in html and ">rejected</b>" in html
    # The plots come before the pairs, which need no filter: all of them are suspicious.
    assert html.index('id="curves"') < html.index('id="samples"') and 'class="filters"' not in html
    assert "TF-IDF of words and pairs of words" in html


# ---- files compared


def test_more_and_cleaner_pairs_are_surely_better(tmp_path: Path) -> None:
    good, noisy = (
        write(tmp_path / name, pairs(700, seed=seed, flipped=share))
        for name, seed, share in (("good.jsonl", 1, 0.0), ("noisy.jsonl", 2, 0.35))
    )
    evaluation = write(tmp_path / "eval.jsonl", pairs(300, seed=3))
    result = run(tmp_path, good, noisy, eval=str(evaluation))
    common = result["common"]
    row = common["comparisons"][0]
    assert common["pairs"] == 300 and row["gap"]["low"] > 0 and row["holm"] == row["p"] < 0.01
    estimate, interval = row["a_to_reach_b"]
    assert estimate is not None and estimate < 350 and interval["low"] <= estimate
    assert row["b_to_reach_a"][0] is None
    assert result["advice"][-1].startswith(f"On {evaluation}, good.jsonl teaches most")
    assert "It is surely ahead of the other file" in result["advice"][-1]


def test_without_an_evaluation_file_all_are_tested_on_the_held_out_pairs_of_all(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{i}.jsonl", pairs(200 * i, seed=i)) for i in (1, 2, 3)]
    result = run(tmp_path, *files)
    tests = [one["test"] for one in result["files"]]
    assert result["common"]["pairs"] == 3 * min(tests) and len(result["common"]["comparisons"]) == 3
    corrected = [row["holm"] for row in result["common"]["comparisons"]]
    assert all(h >= row["p"] for h, row in zip(corrected, result["common"]["comparisons"]))
    assert np.allclose(result["prompt_overlap"], np.eye(3))


def test_a_file_with_many_pairs_of_a_prompt_weighs_no_more_than_another(tmp_path: Path) -> None:
    """One file knows good words and the other, with eight pairs of each prompt, prefers the bad ones."""
    usual, turned = pairs(400, seed=1), pairs(800, seed=2)
    turned = [
        {"prompt": f"Of the other file, {i // 8}?", "chosen": row["rejected"], "rejected": row["chosen"]}
        for i, row in enumerate(turned)
    ]
    files = [write(tmp_path / "usual.jsonl", usual), write(tmp_path / "turned.jsonl", turned)]
    common = run(tmp_path, *files)["common"]
    assert common["prompts"] == 2 * 20 and common["pairs"] == 20 + 8 * 20
    # Each is right on its own half and wrong on the other's.
    assert all(abs(one["estimate"] - 0.5) < 0.15 for one in common["accuracy"])
    row = common["comparisons"][0]
    assert row["only_first"] + row["only_second"] <= 40 and row["p"] > 0.05
    assert row["gap"]["low"] < 0 < row["gap"]["high"]


def test_contamination_is_counted_and_kept_out_of_training(tmp_path: Path) -> None:
    rows, evaluation = pairs(300, seed=1), pairs(100, seed=2)
    near = [{**row, "prompt": row["prompt"] + " Thanks"} for row in evaluation[:10]]
    file = write(tmp_path / "pairs.jsonl", rows + evaluation[:40] + near)
    result = run(
        tmp_path,
        file,
        eval=str(write(tmp_path / "eval.jsonl", evaluation)),
        clean=str(tmp_path / "clean.jsonl"),
        clean_below=0.0,
    )
    found = result["files"][0]
    assert found["prompts_in_eval"] == found["pairs_in_eval"] == 40 and found["near_eval"] >= 10
    assert any("40 of its 350 prompts are in the evaluation file" in text for text in result["advice"])
    assert result["clean"]["in_eval"] == 40 and result["clean"]["kept"] == 310
    assert result["prompt_overlap"][0] == pytest.approx([1, 40 / 350], abs=1e-5)
    cfg = audit.Config(files=(str(file),), eval=str(tmp_path / "eval.jsonl"))
    with open_run(tmp_path / "again", {}, seed=0) as opened:
        surveys = survey([str(file), str(tmp_path / "eval.jsonl")], {}, opened)
    split = audit_learn.split(cfg, surveys)[0]
    prompts = surveys[0].of("prompt")
    assert not set(prompts[split.train]) & set(surveys[1].of("prompt"))
    assert not set(prompts[split.train]) & set(prompts[split.test])


def test_a_prompt_is_the_same_as_text_and_as_one_message(tmp_path: Path) -> None:
    rows = pairs(120)
    chat = [
        {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "chosen": [{"role": "assistant", "content": row["chosen"]}],
            "rejected": [{"role": "assistant", "content": row["rejected"]}],
        }
        for row in rows[:30]
    ]
    found = run(
        tmp_path, write(tmp_path / "text.jsonl", rows), eval=str(write(tmp_path / "chat.jsonl", chat))
    )["files"][0]
    assert found["prompts_in_eval"] == found["pairs_in_eval"] == 30


def test_a_suspicious_pair_that_is_repeated_is_shown_once(tmp_path: Path) -> None:
    rows = pairs(300)
    wrong = {**rows[0], "chosen": rows[0]["rejected"], "rejected": rows[0]["chosen"]}
    run(tmp_path, write(tmp_path / "pairs.jsonl", [*rows[1:], wrong, wrong, wrong]))
    suspects = [json.loads(line) for line in (tmp_path / "run" / "suspicious.jsonl").read_text().splitlines()]
    assert [one["line"] for one in suspects if one["prompt"] == wrong["prompt"]] == [300]


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ((math.inf, Interval(math.inf, math.inf, math.inf, 9)), "not reached"),
        ((math.inf, Interval(math.inf, 800.0, math.inf, 9)), "not reached (800 to not reached)"),
        ((64.0, Interval(64.0, 64.0, 64.0, 9)), "at most 64"),
        ((1234.6, Interval(1234.6, 64.0, 2000.0, 9)), "1,235 (at most 64 to 2,000)"),
    ],
)
def test_the_pairs_needed_say_what_is_known(found: Any, told: str) -> None:
    class File:
        scale: ClassVar = {"n": [64, 128]}

    assert audit_tables._effective(found, File()) == told  # type: ignore[arg-type]


def test_points_have_no_negative_zero() -> None:
    assert [points(v) for v in (-0.0001, 0.0, 0.0123, -0.05)] == ["+0.0", "+0.0", "+1.2", "-5.0"]


# ---- refusals


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ('{"prompt": "a?", "chosen": "b"}', "rejected: is missing"),
        ('{"prompt": "a?", "chosen": "b", "rejected": ""}', "rejected: is empty"),
        ('{"prompt": 3, "chosen": "b", "rejected": "c"}', "prompt: must be text"),
        ('{"prompt": "a?"', "not JSON"),
    ],
)
def test_bad_rows_are_named_by_file_line_and_field(
    row: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = write(tmp_path / "good.jsonl", pairs(40)), write(tmp_path / "bad.jsonl", pairs(40))
    with bad.open("a") as lines:
        lines.write(row + "\n")
    out = ["--out", str(tmp_path / "run"), "--cache", str(tmp_path / "f"), "--quiet"]
    assert main(["audit", str(good), str(bad), *out]) == 1
    said = capsys.readouterr().err
    assert f"{bad}:41: {told}" in said and "Traceback" not in said and str(good) not in said


def test_faulty_rows_can_be_left_out_and_are_counted(tmp_path: Path) -> None:
    file = write(tmp_path / "bad.jsonl", [*pairs(80), {"prompt": "a?", "chosen": "b", "rejected": ""}])
    result = run(tmp_path, file, drop_faulty_rows=True, clean=str(tmp_path / "clean.jsonl"))
    assert result["files"][0]["faulty"] == 1 and result["clean"]["faulty"] == 1
    with (tmp_path / "bad.jsonl").open("a") as lines:
        lines.write("{\n")
    with pytest.raises(HeedfulError, match=r"bad\.jsonl:82: not JSON"):
        run(tmp_path, file, out="other", drop_faulty_rows=True)


REFUSED = [
    ({"files": ()}, "give at least one FILE"),
    ({"files": ("a.jsonl", "a.jsonl")}, "a.jsonl is given twice"),
    ({"eval": "a.jsonl"}, "cannot be audited and be the evaluation file"),
    ({"model": "smollm2"}, "--model has no meaning with --probe tfidf"),
    ({"seeds": 2}, "--seeds must be at least 3"),
    ({"points": 1}, "--points must be at least 2"),
    ({"shown": -1}, "--shown must be 0 or more"),
    ({"seed": -1}, "--seed must be 0 or more"),
    ({"eval_share": 1.0}, "--eval-share must be between 0 and 1"),
    ({"clean_below": 0.5, "clean": "o.jsonl"}, "--clean-below must be 0 or more and below 0.5"),
    ({"clean_below": 0.2}, "--clean-below has no meaning without --clean"),
    ({"files": ("a.jsonl", "b.jsonl"), "clean": "o.jsonl"}, "--clean writes one file"),
    ({"clean": "o.csv"}, "its name must end in .jsonl"),
    ({"clean": "./a.jsonl"}, "--clean would write over a file that is read"),
    ({"eval": "o.dropped.jsonl", "clean": "./o.jsonl"}, "over a file that is read: o.dropped.jsonl"),
]


@pytest.mark.parametrize(("options", "told"), REFUSED, ids=[told for _, told in REFUSED])
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], told: str) -> None:
    cfg = audit.Config(**{"files": ("a.jsonl",), **options})
    assert any(told in sentence for sentence in audit_plan.problems(cfg))
    with pytest.raises(HeedfulError, match=re.escape(told)):
        audit.settle(cfg)


def test_missing_and_too_small_files_are_refused_before_anything_is_learned(tmp_path: Path) -> None:
    with pytest.raises(HeedfulError, match=r"nothing\.jsonl: there is no such file"):
        run(tmp_path, tmp_path / "nothing.jsonl")
    assert not (tmp_path / "run").exists()
    with pytest.raises(
        HeedfulError, match=r"small.jsonl: \d+ pairs to train on and \d+ to test on are too few"
    ):
        run(tmp_path, write(tmp_path / "small.jsonl", pairs(6)))
    same = [{"prompt": "a?", "chosen": "b", "rejected": "b"}] * 3
    with pytest.raises(HeedfulError, match="no pair of it can be used"):
        run(tmp_path, write(tmp_path / "same.jsonl", same), out="same")


def test_the_plan_counts_and_begins_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "pairs.jsonl", pairs(500))
    out = str(tmp_path / "run")
    assert main(["audit", str(file), "--out", out, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "500 rows" in said and "55 of the probe" in said and "nothing was run" in said
    assert not Path(out).exists()
    assert audit_plan.fits(audit.Config(files=("a",)), 500) == 3 * (4 + 6 + 5) + 3 * 5 - 5
    assert main(["audit", str(file), "--out", out, "--dry-run", "--probe", "minilm"]) == 0
    assert audit.preset("paper").probe == "tuned"


# ---- kept and made again


def test_the_same_command_again_gives_the_same_bytes_and_learns_nothing(
    flipped: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _, _ = flipped
    names = ("result.json", "report.json", "suspicious.jsonl")
    before = {name: (folder / "run" / name).read_bytes() for name in names}
    clean = (folder / "clean.jsonl").read_bytes()
    monkeypatch.setattr("heedful.judges.probes.count_words", _never)
    monkeypatch.setattr("heedful.judges.probes.learn_space", _never)
    run(folder, folder / "pairs.jsonl", clean=str(folder / "clean.jsonl"))
    assert {name: (folder / "run" / name).read_bytes() for name in names} == before
    assert (folder / "clean.jsonl").read_bytes() == clean


def _never(*_: Any, **__: Any) -> Any:
    raise AssertionError("this was done before")


def test_features_are_shared_by_content_and_not_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = pairs(100)
    run(tmp_path, write(tmp_path / "a.jsonl", rows))
    monkeypatch.setattr("heedful.judges.probes.count_words", _never)
    run(tmp_path, write(tmp_path / "b.jsonl", rows), out="b")
    with pytest.raises(AssertionError, match="this was done before"):
        run(tmp_path, write(tmp_path / "c.jsonl", pairs(100, seed=1)), out="c")


def test_a_changed_file_or_setting_is_refused(flipped: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "pairs.jsonl", pairs(100))
    run(tmp_path, file)
    with pytest.raises(HeedfulError, match="seeds"):
        run(tmp_path, file, seeds=4)
    write(file, pairs(101))
    with pytest.raises(HeedfulError, match="has changed since the run began"):
        run(tmp_path, file)


def test_a_damaged_feature_file_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "pairs.jsonl", pairs(100))
    run(tmp_path, file)
    part = next((tmp_path / "features").glob("*.npz"))
    part.write_bytes(part.read_bytes()[:200])
    with pytest.raises(HeedfulError, match="cannot be read back"):
        run(tmp_path, file, out="other")


def test_a_dropped_row_needs_a_reason_and_the_rest_none(tmp_path: Path) -> None:
    file = write(tmp_path / "pairs.jsonl", pairs(60))
    with open_run(tmp_path / "r", {}, seed=0) as opened:
        surveys = survey([str(file)], {}, opened)
    cfg = audit.Config(files=(str(file),))
    split = replace(audit_learn.split(cfg, surveys)[0])
    learned = audit_learn.Learned([1], crossed=np.linspace(-9, 9, 60))
    told = audit_clean.reasons(cfg, surveys[0], split, learned)
    assert {kind for kind, _ in told} <= {"", "mislabelled"} and ("", "") in told
