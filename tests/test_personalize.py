"""`heedful personalize`: what fit leaves, labels that are never counted twice, scores that leave seen pairs out."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from personalize_people import crowd, label_of, read, write

from heedful.cli import main
from heedful.errors import HeedfulError
from heedful.judges.personal import PersonalReward
from heedful.recipes import personalize, personalize_plan
from heedful.recipes.personalize_pairs import Label, oriented, pair_id
from heedful.recipes.personalize_person import state
from heedful.recipes.personalize_store import open_person


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with people.jsonl and the run of a fit to it, without labels."""
    folder = tmp_path_factory.mktemp("fitted")
    write(folder / "people.jsonl", crowd(240))
    assert main(["personalize", "fit", *arguments(folder), "--quiet"]) == 0
    return folder


def arguments(folder: Path) -> list[str]:
    """Of a fit to people.jsonl that is done in a second."""
    words = [str(folder / "people.jsonl"), "--out", str(folder / "run"), "--cache", str(folder / "cache")]
    return [*words, "--heads", "20", "--dimensions", "8", "--pool-share", "0.3"]


@pytest.fixture
def run(fitted: Path, tmp_path: Path) -> Path:
    """A copy of the fitted run."""
    shutil.copytree(fitted / "run", tmp_path / "run")
    return tmp_path / "run"


def said(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    """What a command prints, as JSON where it is."""
    assert main(["personalize", *words]) == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    return json.loads(out) if "--json" in words and words[0] != "query" else out


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The error of a command."""
    assert main(["personalize", *words]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and "Traceback" not in captured.err
    return captured.err


def asked(capsys: pytest.CaptureFixture[str], run: Path, n: int, *words: str) -> list[dict[str, Any]]:
    text = said(capsys, "query", str(run), "-n", str(n), "--json", *words)
    return [json.loads(line) for line in text.splitlines()]


# ---- fit


def test_a_fit_leaves_what_is_needed_and_the_pool_was_not_trained_on(fitted: Path) -> None:
    run, rows = fitted / "run", crowd(240)
    pool = read(run / "pool.jsonl")
    asked_about = {row["prompt"] for row in pool}
    assert len(pool) == 72 and all(set(row) == {"id", "prompt", "first", "second", "source"} for row in pool)
    by_prompt = {row["prompt"]: row for row in rows}
    for row in pool:
        theirs = by_prompt[row["prompt"]]
        assert {row["first"], row["second"]} == {theirs["chosen"], theirs["rejected"]}
        assert row["source"].endswith(f"people.jsonl:{rows.index(theirs) + 1}")
    chosen_first = np.mean([row["first"] == by_prompt[row["prompt"]]["chosen"] for row in pool])
    assert 0.3 < chosen_first < 0.7, "the order says nothing of the label"
    result = json.loads((run / "result.json").read_text())
    assert result["training pairs"] == 240 - 72 and result["heads"] == 20 and result["size"] == 18
    person = open_person(run)
    assert person.first.shape == person.second.shape == (72, 18)
    made = person.featurise(pool[5]["prompt"], [pool[5]["first"], pool[5]["second"]])
    np.testing.assert_allclose(made, [person.first[5], person.second[5]], rtol=1e-5, atol=1e-6)
    page = (run / "report.html").read_text()
    assert "The heads, before any label" in page and not asked_about & {None}


def test_what_is_there_is_not_made_again_and_what_is_missing_comes_out_the_same(
    fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(fitted, folder)
    config = (folder / "run" / "config.yaml").read_text()
    (folder / "run" / "config.yaml").write_text(config.replace(str(fitted), str(folder)))
    whole = {p.name: p.read_bytes() for p in sorted((folder / "run").rglob("*")) if p.is_file()}
    stages = ["features.json", "heads", "pool.safetensors", "fit.json", "report.html"]
    for gone in stages:
        path = folder / "run" / gone
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        assert main(["personalize", "fit", *arguments(folder), "--quiet"]) == 0
        for name in (
            "features.safetensors",
            "heads.safetensors",
            "pool.safetensors",
            "pool.jsonl",
            "fit.json",
        ):
            (found,) = (folder / "run").rglob(name)
            assert found.read_bytes() == whole[name], (gone, name)

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("the heads are made again")

    monkeypatch.setattr(PersonalReward, "fit", never)
    assert main(["personalize", "fit", *arguments(folder), "--quiet"]) == 0


def test_other_settings_are_refused(fitted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = refused(capsys, "fit", *arguments(fitted), "--quiet", "--temperature", "2")
    assert "temperature: 1.0 -> 2.0" in told


def test_one_head_for_each_annotator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "p.jsonl", crowd(120))
    words = [
        "fit",
        str(file),
        "--out",
        str(tmp_path / "run"),
        "--cache",
        str(tmp_path / "c"),
        "--dimensions",
        "4",
    ]
    told = said(capsys, *words, "--builder", "annotator", "--annotators", "who", "--json", "--quiet")
    assert told["heads"] == 2
    person = open_person(tmp_path / "run")
    assert person.reward.heads_ == ["brief", "wordy"]
    pairs = person.ask(3)
    person.take([Label(row["id"], float(label_of(row, "wordy"))) for row in pairs])
    assert person.reward.weights_[1] > 0.9, "the labels of a wordy person point to the wordy annotator"
    rows = crowd(120)
    del rows[40]["who"]
    file = write(tmp_path / "gap.jsonl", rows)
    words[1], words[3] = str(file), str(tmp_path / "gap")
    told = refused(capsys, *words, "--builder", "annotator", "--annotators", "who", "--pool-share", "0.05")
    assert "gap.jsonl:41: who: a name or a number is needed, not None" in told
    words[3] = str(tmp_path / "one")
    write(file, crowd(60, who=("brief",)))
    told = refused(capsys, *words, "--builder", "annotator", "--annotators", "who")
    assert "all training pairs have 'brief'" in told


def test_too_little_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "p.jsonl", crowd(6))
    told = refused(capsys, "fit", str(file), "--out", str(tmp_path / "run"), "--quiet")
    assert "are too few" in told and "6 pairs of 6 prompts" in told
    told = refused(capsys, "fit", str(tmp_path / "none.jsonl"), "--out", str(tmp_path / "run"))
    assert "none.jsonl: there is no such file" in told


REFUSED = [
    ([], "give at least one FILE"),
    (["a.jsonl", "a.jsonl"], "a.jsonl is given twice"),
    (["a.jsonl", "--eval", "a.jsonl"], "cannot be learned from and be the evaluation file"),
    (["a.jsonl", "--model", "m"], "--model has no meaning with --features tfidf"),
    (["a.jsonl", "--features", "reward"], "--features reward needs --model"),
    (["a.jsonl", "--features", "lm", "--dimensions", "4"], "--dimensions has no meaning with --features lm"),
    (
        ["a.jsonl", "--prior-scale", "2"],
        "--prior-scale has no meaning with --builder pca (only prior, epinet)",
    ),
    (["a.jsonl", "--prior", "mlp"], "--prior has no meaning with --builder pca"),
    (["a.jsonl", "--annotators", "who"], "--annotators has no meaning with --builder pca"),
    (["a.jsonl", "--builder", "annotator"], "--builder annotator needs --annotators"),
    (
        ["a.jsonl", "--builder", "annotator", "--annotators", "who", "--heads", "7"],
        "--heads has no meaning with --builder annotator: there is one for each annotator",
    ),
    (
        ["a.jsonl", "--precision", "bf16"],
        "--precision has no meaning with --features tfidf (only lm, reward)",
    ),
    (["a.jsonl", "--heads", "1"], "--heads must be at least 2"),
    (["a.jsonl", "--dimensions", "0"], "--dimensions must be at least 1"),
    (["a.jsonl", "--anchor", "-1"], "--anchor must be a number of 0 or more"),
    (["a.jsonl", "--temperature", "0"], "--temperature must be a number above 0"),
    (["a.jsonl", "--pool-share", "1"], "--pool-share must be between 0 and 1"),
    (["a.jsonl", "--pool-limit", "1"], "--pool-limit must be at least 2"),
    (["a.jsonl", "--shots", "4"], "--shots has no meaning without --eval"),
    (["a.jsonl", "--eval", "e.jsonl", "--shots", "0"], "--shots must be at least 1"),
    (["a.jsonl", "--scores", "s.npz", "--builder", "prior"], "--builder has no meaning with --scores"),
    (["a.jsonl", "--scores", "s.npz", "--no-style"], "--style has no meaning with --scores"),
    (["a.jsonl", "--scores", "s.npz", "--precision", "fp32"], "--precision has no meaning with --scores"),
    (["a.jsonl", "--scores", "s.npz", "--eval", "e.jsonl"], "--eval has no meaning with --scores"),
]


@pytest.mark.parametrize(("words", "told"), REFUSED, ids=[" ".join(w) or "nothing" for w, _ in REFUSED])
def test_options_that_do_not_go_together_are_refused(
    words: list[str],
    told: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert told in refused(capsys, "fit", *words)
    assert list(tmp_path.iterdir()) == []


def test_every_refusal_has_a_case() -> None:
    import inspect

    source = inspect.getsource(personalize_plan.problems) + inspect.getsource(personalize_plan._training)
    # The loop over names makes two refusals of one line.
    assert source.count("wrong.append") == 19 <= len(REFUSED)


def test_the_group_says_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["personalize"]) == 2
    told = capsys.readouterr().err
    assert all(f"heedful personalize {what}" in told for what in ("fit", "adapt", "query", "score"))
    assert main(["personalize", "--help"]) == 0 and "personalize fit" in capsys.readouterr().out


# ---- adapt


def test_labels_move_the_reward_and_a_second_call_goes_on(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = asked(capsys, run, 6)
    assert len({row["id"] for row in rows}) == 6
    file = write(run.parent / "l.jsonl", [{"id": row["id"], "label": label_of(row)} for row in rows[:3]])
    first = said(capsys, "adapt", str(run), "--labels", str(file), "--json")
    assert (first["new"], first["known"], first["labels"]) == (3, 0, 3)
    assert first["effective_heads"] < 20 and sum(first["weights"].values()) == pytest.approx(1)
    assert first["used"] and first["why"] and "disagreement" in first["figures"]
    again = said(capsys, "adapt", str(run), "--labels", str(file), "--json")
    assert (again["new"], again["known"]) == (0, 3) and again["weights"] == first["weights"]
    # None is asked about twice, and the rest continues where the first call stopped.
    assert not {row["id"] for row in asked(capsys, run, 100)} & {row["id"] for row in rows[:3]}
    write(file, [{"id": row["id"], "label": label_of(row)} for row in rows])
    more = said(capsys, "adapt", str(run), "--labels", str(file), "--json")
    assert (more["new"], more["known"], more["labels"]) == (3, 3, 6)
    once = PersonalReward.load(run / "heads")
    person = open_person(run)
    places = [person.pool.index(person.row(row["id"])) for row in rows]
    once.adapt(person.first[places], person.second[places], [label_of(row) for row in rows])
    np.testing.assert_array_equal(once.weights_, person.reward.weights_)
    text = said(capsys, "adapt", str(run))
    assert "labels:          6" in text and more["why"] in text and "effective heads:" in text
    page = (run / "report.html").read_text()
    assert "Weights of the heads" in page and "Will reweighting help?" in page and "6 labels leave" in page
    assert page.count("<rect") + page.count("<path") > 20


def test_undo_takes_the_last_labels_back(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = asked(capsys, run, 3)
    before = open_person(run).reward.weights_
    file = write(run.parent / "l.jsonl", [{"id": row["id"], "label": 0.5} for row in rows])
    said(capsys, "adapt", str(run), "--labels", str(file))
    told = said(capsys, "adapt", str(run), "--undo", "3", "--json")
    assert told["undone"] == [row["id"] for row in rows[::-1]] and told["labels"] == 0
    np.testing.assert_array_equal(open_person(run).reward.weights_, before)
    assert "there are only 0 labels" in refused(capsys, "adapt", str(run), "--undo", "1")


def test_pairs_outside_the_pool_count_once_and_keep_their_features(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = crowd(6, seed=9, who=("brief",))
    pool = open_person(run).pool[0]
    better, worse = ("first", "second") if label_of(pool) else ("second", "first")
    rows.append({"prompt": pool["prompt"], "chosen": pool[better], "rejected": pool[worse]})
    file = write(run.parent / "own.jsonl", [*rows, rows[0]])
    told = said(capsys, "adapt", str(run), "--labels", str(file), "--json")
    assert (told["new"], told["known"]) == (7, 1)
    assert asked(capsys, run, 100)[0]["id"] != pool["id"] and len(asked(capsys, run, 100)) == 71
    weights = open_person(run).reward.weights_
    with monkeypatch.context() as patched:
        patched.setattr("heedful.judges.answer_features.AnswerFeatures.of_pairs", None)
        np.testing.assert_array_equal(open_person(run).reward.weights_, weights)
    shutil.rmtree(run / "own")
    np.testing.assert_allclose(open_person(run).reward.weights_, weights, rtol=1e-4)
    exported = open_person(run).export()
    assert [row["chosen"] for row in exported] == [row["chosen"] for row in rows]
    assert main(["check", str(write(run.parent / "out.jsonl", exported))]) == 0 and capsys.readouterr().out
    again = said(capsys, "adapt", str(run), "--labels", str(run.parent / "out.jsonl"), "--json")
    assert (again["new"], again["known"]) == (0, 7)


def test_every_bad_label_is_named_and_none_is_taken(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, other = (row["id"] for row in asked(capsys, run, 2))
    bad = [
        {"id": good, "label": 1},
        {"label": 1},
        {"id": 7, "label": 1},
        {"id": good},
        {"id": good, "label": True},
        {"prompt": "Q?", "chosen": "a", "rejected": "a"},
        {"prompt": "Q?", "chosen": "a"},
    ]
    file = write(run.parent / "bad.jsonl", bad)
    with file.open("a") as more:
        more.write("{\n")
    told = refused(capsys, "adapt", str(run), "--labels", str(file))
    for line, part in (
        (2, "id: is missing"),
        (3, "id: must be text, not a number"),
        (4, "label: is missing"),
        (5, "label: must be 1, 0 or 0.5, not true or false"),
        (6, "rejected"),
        (7, "rejected: is missing"),
        (8, "not JSON"),
    ):
        assert re.search(rf"bad\.jsonl:{line}: .*{part}", told), (line, told)
    unknown = write(
        run.parent / "u.jsonl",
        [
            {"id": "nowhere", "label": 1},
            {"id": good, "label": 2},
            {"id": other, "label": 1},
            {"id": other, "label": 0},
        ],
    )
    told = refused(capsys, "adapt", str(run), "--labels", str(unknown))
    assert "u.jsonl:1: id: there is no pair 'nowhere'" in told
    assert "u.jsonl:2: label: 2.0 is none of 1" in told
    assert f"u.jsonl:4: label: {other} has the label 1 already, not 0" in told
    assert open_person(run).labels == {} and not (run / "labels.jsonl").read_text()
    assert "u2.jsonl: there is no such file" in refused(
        capsys, "adapt", str(run), "--labels", f"{run}/../u2.jsonl"
    )
    said(
        capsys, "adapt", str(run), "--labels", str(write(run.parent / "g.jsonl", [{"id": good, "label": 1}]))
    )
    told = refused(
        capsys, "adapt", str(run), "--labels", str(write(run.parent / "g.jsonl", [{"id": good, "label": 0}]))
    )
    assert "g.jsonl:1: label:" in told and "undo that one first" in told


def test_a_folder_that_is_no_run_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "there is no run folder" in refused(capsys, "query", str(tmp_path / "none"))
    (tmp_path / "other").mkdir()
    assert "is no run of `heedful personalize fit`" in refused(capsys, "query", str(tmp_path / "other"))
    shutil.rmtree(run / "heads")
    assert "is unfinished: run its command again (heads is missing)" in refused(capsys, "query", str(run))


def test_a_reward_that_is_right_on_no_label_left_out_is_doubted(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    person = open_person(run)
    rows, rng = person.pool[:10], np.random.default_rng(0)
    doubts = []
    for _ in range(6):
        labels = rng.permutation([0.0, 1.0] * 5)
        person.take([Label(row["id"], float(label)) for row, label in zip(rows, labels)])
        now = state(person)
        right = now["figures"][f"accuracy_{now['used']}"]
        assert bool(now["doubts"]) == (right <= 0.5)
        doubts.append(bool(now["doubts"]))
        if now["doubts"]:
            assert "warning: What is used is right on" in said(capsys, "adapt", str(run))
        while person.undo():
            pass
    assert any(doubts), "labels that are coin tosses cannot be predicted"


# ---- the store


def test_two_programs_share_one_person(run: Path) -> None:
    one, other = open_person(run), open_person(run)
    first, second, third = (row["id"] for row in one.ask(3))
    assert one.label(first, 1) and other.label(second, 0)
    assert list(other.labels) == [first, second]
    assert not one.label(second, 0), "the other program has it already"
    with pytest.raises(HeedfulError, match="undo that one first"):
        one.label(second, 1)
    assert other.undo() == second and one.label(third, 1)
    other.refresh()
    assert one.labels == other.labels == open_person(run).labels == {first: 1.0, third: 1.0}
    np.testing.assert_array_equal(one.reward.weights_, other.reward.weights_)
    assert one.undo() == third and one.undo() == first and one.undo() is None


def test_a_kill_at_any_byte_loses_at_most_the_last_line(run: Path) -> None:
    person = open_person(run)
    *ids, fresh = (row["id"] for row in person.pool[:5])
    states = [dict(person.labels)]
    for id in ids:
        person.label(id, 1)
        states.append(dict(person.labels))
    person.undo()
    states.append(dict(person.labels))
    path = run / "labels.jsonl"
    whole = path.read_bytes()
    for cut in range(0, len(whole) + 1, 3):
        path.write_bytes(whole[:cut])
        left = states[whole[:cut].count(b"\n")]
        again = open_person(run)
        assert again.labels == left
        again.label(fresh, 0)
        assert open_person(run).labels == {**left, fresh: 0.0}


def test_a_damaged_line_is_named(run: Path) -> None:
    path = run / "labels.jsonl"
    id = open_person(run).pool[0]["id"]
    for line, told in (
        ("nonsense", "not JSON"),
        ('{"a": 1}', "neither a label"),
        ('{"undo": 1}', "undo: 1, with 0 labels before it"),
        ('{"id": "x", "label": 1}', "there is no pair 'x'"),
        (f'{{"id": "{id}", "label": 7}}', "label: 7 is none of 1"),
    ):
        path.write_text(line + "\n")
        with pytest.raises(HeedfulError, match=rf"labels\.jsonl:1: .*{re.escape(told)}"):
            open_person(run)


def test_labels_above_a_damaged_line_still_move_the_reward(run: Path) -> None:
    seen, other = open_person(run), open_person(run)
    first, second = (row["id"] for row in seen.pool[:2])
    other.label(first, 1)
    other.label(second, 0)
    path = run / "labels.jsonl"
    whole = path.read_text()
    path.write_text(whole + "nonsense\n")
    for _ in range(2):  # the damage is told each time, the labels above it count once
        with pytest.raises(HeedfulError, match=r"labels\.jsonl:3: not JSON"):
            seen.refresh()
    assert seen.labels == other.labels
    np.testing.assert_array_equal(seen.reward.weights_, other.reward.weights_)
    path.write_text(whole)
    assert seen.undo() == second


def test_ids_and_order_do_not_depend_on_which_answer_was_chosen() -> None:
    assert pair_id("q", "a", "b") == pair_id("q", "b", "a") != pair_id("p", "a", "b")
    assert oriented("q", "a", "b") == oriented("q", "b", "a")
    firsts = [oriented(f"q{i}", "long answer", "short")[0] for i in range(200)]
    assert 60 < firsts.count("short") < 140


# ---- score


def test_pairs_are_scored_and_the_seen_ones_left_out_of_the_accuracy(
    run: Path, fitted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    person = open_person(run)
    rows = person.ask(12)
    person.take([Label(row["id"], float(label_of(row))) for row in rows])
    fresh = crowd(80, seed=4, who=("brief",))
    seen = [
        {
            "prompt": r["prompt"],
            "chosen": min(r["first"], r["second"], key=len),
            "rejected": max(r["first"], r["second"], key=len),
        }
        for r in rows[:5]
    ]
    trained_prompts = {row["prompt"] for row in crowd(240)} - {row["prompt"] for row in person.pool}
    trained = [row for row in crowd(240) if row["prompt"] in trained_prompts][:7]
    file = write(run.parent / "new.jsonl", [*fresh, *seen, *trained])
    told = said(capsys, "score", str(run), str(file), "--json")
    assert (told["rows"], told["tested"], told["left_out_labelled"], told["left_out_trained"]) == (
        92,
        80,
        5,
        7,
    )
    assert told["accuracy"]["estimate"] > 0.7 > 0.6 > told["accuracy_single"]["estimate"]
    assert told["accuracy"]["low"] < told["accuracy"]["estimate"] < told["accuracy"]["high"]
    assert told["gain_over_single"]["low"] > 0
    scored = read(run / "scores.jsonl")
    assert [row["left_out"] for row in scored] == [None] * 80 + ["labelled"] * 5 + ["trained"] * 7
    right = np.mean([row["chosen_score"] > row["rejected_score"] for row in scored[:80]])
    assert right == pytest.approx(told["accuracy"]["estimate"], abs=1e-6)
    one = scored[3]
    again = open_person(run).score(one["prompt"], [one["chosen"], one["rejected"]])
    np.testing.assert_allclose([one["chosen_score"], one["rejected_score"]], again, rtol=1e-5)
    assert (one["probability"] > 0.5) == (one["chosen_score"] > one["rejected_score"])
    assert "accuracy on 80 pairs (left out by prompt: 5 labelled, 7 trained on)" in said(
        capsys, "score", str(run), str(file)
    )
    assert "none can be given" in said(capsys, "score", str(run), str(write(run.parent / "seen.jsonl", seen)))


def test_completions_are_scored(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": f"Q{i}?", "completion": "word1 " * (i + 1), "more": i} for i in range(5)]
    file, out = write(run.parent / "c.jsonl", rows), run.parent / "out.jsonl"
    assert said(capsys, "score", str(run), str(file), "--out", str(out), "--json")["rows"] == 5
    scored = read(out)
    assert [row["more"] for row in scored] == [0, 1, 2, 3, 4]
    for row in scored:
        (score,) = open_person(run).score(row["prompt"], [row["completion"]])
        assert row["score"] == pytest.approx(score, rel=1e-5)


def test_what_cannot_be_scored_is_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(run.parent / "s.jsonl", [{"prompt": "Q?"}])
    assert "s.jsonl: rows with prompt, chosen and rejected" in refused(capsys, "score", str(run), str(file))
    write(
        file,
        [{"prompt": "Q?", "chosen": "a", "rejected": "b"}, {"prompt": "Q?", "chosen": "a", "rejected": ""}],
    )
    assert "s.jsonl:2: rejected: is empty" in refused(capsys, "score", str(run), str(file))
    assert "would write over" in refused(capsys, "score", str(run), str(file), "--out", str(file))
    write(file, [])
    assert "has no rows" in refused(capsys, "score", str(run), str(file))


def test_text_from_files_is_inert_on_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    attack = "<script>alert(1)</script><img src=x>"
    rows = [{**row, "prompt": row["prompt"] + attack, "who": row["who"] + attack} for row in crowd(60)]
    file, run = write(tmp_path / "p.jsonl", rows), tmp_path / "run"
    words = [
        "--builder",
        "annotator",
        "--annotators",
        "who",
        "--dimensions",
        "4",
        "--cache",
        str(tmp_path / "c"),
    ]
    said(capsys, "fit", str(file), "--out", str(run), *words, "--quiet")
    pair = asked(capsys, run, 1)[0]
    said(
        capsys,
        "adapt",
        str(run),
        "--labels",
        str(write(tmp_path / "l.jsonl", [{"id": pair["id"], "label": 1}])),
    )
    html = (run / "report.html").read_text()
    assert "<script" not in html and "<img" not in html and "&lt;script&gt;" in html
    assert personalize.Config().builder == "pca"
