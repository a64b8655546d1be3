"""Personal rewards on other trunks: reward models as the Hub has them, saved scores, and a person as a judge."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from personalize_people import crowd, label_of, read, write
from transformers import AutoModelForSequenceClassification, AutoTokenizer, GemmaConfig, LlamaConfig

from heedful.cli import main
from heedful.errors import HeedfulError
from heedful.feedback import Samples
from heedful.judges import probe_models
from heedful.judges.answer_features import STYLE, AnswerFeatures, How, style
from heedful.judges.personal import PersonalReward
from heedful.judges.probe_models import pooled_pairs
from heedful.recipes.personalize_judge import personal_judge
from heedful.recipes.personalize_pairs import Label
from heedful.recipes.personalize_store import open_person
from heedful.recipes.personalize_targets import CHOSEN, OWN, few_shot

SMALL: dict[str, Any] = {
    "vocab_size": 420,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "num_labels": 1,
}


def classifier(folder: Path, kind: str) -> Path:
    """A random reward model of a real architecture, saved as the Hub has it."""
    config = GemmaConfig(head_dim=8, **SMALL) if kind == "gemma" else LlamaConfig(**SMALL)
    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim > 1:
                p.mul_(6.0)
    model.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["gemma", "llama"])
def paper(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny reward model, training pairs, RewardBench-style rows, and the run of the paper preset."""
    folder = tmp_path_factory.mktemp(request.param)
    classifier(folder / "model", request.param)
    write(folder / "pairs.jsonl", crowd(60))
    rows = [
        {**row, "subset": name}
        for name, count, who in (
            ("alpacaeval-easy", 14, "wordy"),
            ("hep-python", 12, "brief"),
            ("few", 5, "brief"),
        )
        for row in crowd(count, seed=len(name), who=(who,))
    ]
    rows.append({**crowd(1)[0], "subset": "hep-python"})
    write(folder / "bench.jsonl", rows)
    assert main([*preset(folder), "--out", str(folder / "run"), "--quiet"]) == 0
    return folder


def preset(folder: Path, *more: str) -> list[str]:
    words = [
        "personalize",
        "fit",
        str(folder / "pairs.jsonl"),
        "--preset",
        "paper",
        "--model",
        str(folder / "model"),
    ]
    words += [
        "--eval",
        str(folder / "bench.jsonl"),
        "--heads",
        "12",
        "--device",
        "cpu",
        "--precision",
        "fp32",
    ]
    return [*words, "--cache", str(folder / "cache"), *more]


# ---- the paper preset


def test_the_trunk_is_read_where_transformers_reads_its_score(paper: Path) -> None:
    person = open_person(paper / "run")
    row = person.pool[3]
    model = AutoModelForSequenceClassification.from_pretrained(paper / "model")
    tokenizer = AutoTokenizer.from_pretrained(paper / "model")
    features, pooled = person.features(), pooled_pairs(str(paper / "model"), device="cpu", precision="fp32")
    for side, made in (("first", person.first[3]), ("second", person.second[3])):
        talk = [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row[side]}]
        ids = tokenizer.apply_chat_template(talk, return_tensors="pt", return_dict=True)
        with torch.no_grad():
            out = model(**ids, output_hidden_states=True)
        state = out.hidden_states[-1][0, -1].numpy()
        raw = made * features.arrays["scale"] + features.arrays["mean"]
        np.testing.assert_allclose(raw, state, rtol=2e-3, atol=2e-4)
        part = pooled([(row["prompt"], row[side], row[side])])
        assert part["chosen_score"][0] == pytest.approx(out.logits[0, 0].item(), rel=2e-3, abs=2e-4)


def test_the_preset_reports_every_distribution_and_leaves_the_small_one_out(paper: Path) -> None:
    result = json.loads((paper / "run" / "result.json").read_text())
    targets = result["targets"]
    assert [(row["subset"], row["pairs"]) for row in targets["rows"]] == [
        ("alpacaeval-easy", 14),
        ("hep-python", 13),
    ]
    assert targets["left_out"] == {"few": 5}
    arms = ["uniform", "single", "best_head", "fine_tuned", "reweighting", CHOSEN, OWN]
    assert list(targets["overall"]) == arms
    for row in targets["rows"]:
        assert all(0 <= row["mean"][arm] <= 1 and row["sd"][arm] >= 0 for arm in arms)
        assert sum(row["used"].values()) == 20
        stage = next(
            s for s in map(stage_of, (paper / "run" / "targets").iterdir()) if s["subset"] == row["subset"]
        )
        assert all(len(values) == 20 for values in stage["accuracy"].values())
        assert row["mean"]["reweighting"] == pytest.approx(np.mean(stage["accuracy"]["reweighting"]))
        # Shares of the pairs that were not drawn, of which there are pairs - 5.
        left = row["pairs"] - 5
        assert all(abs(2 * left * v - round(2 * left * v)) < 1e-6 for v in stage["accuracy"]["single"])
    page = (paper / "run" / "report.html").read_text()
    assert "Target distributions" in page and "the model&#39;s own head" in page and "hep-python" in page
    # Its prompt is in the evaluation file, so it was neither trained on nor is it in the pool.
    assert crowd(1)[0]["prompt"] not in {row["prompt"] for row in read(paper / "run" / "pool.jsonl")}
    assert result["pairs"] == 60 and result["training pairs"] + result["pairs to ask about"] == 59


def stage_of(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def test_the_preset_resumes_to_the_same_numbers(paper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = paper / "run"
    before = (run / "result.json").read_bytes()
    next((run / "targets").iterdir()).unlink()
    (run / "result.json").unlink()
    monkeypatch.setattr("heedful.judges.reward.RewardModel.load", None)  # all features are kept
    assert main([*preset(paper), "--out", str(run), "--quiet"]) == 0
    assert (run / "result.json").read_bytes() == before


class Watched(PersonalReward):
    """Notes which rows are adapted to and which are scored."""

    def adapt(self, first: Any, second: Any, label: Any) -> PersonalReward:
        self.drawn: set[float] = set(np.asarray(first)[:, 0].tolist())
        assert len(self.drawn) == 5, "without replacement"
        return super().adapt(first, second, label)

    def predict(self, features: Any, used: Any = None) -> Any:
        if len(features) == 4:
            assert not self.drawn & set(np.asarray(features)[:, 0].tolist())
            self.scored = getattr(self, "scored", 0) + 1
        return super().predict(features, used)


def test_labelled_pairs_are_never_scored() -> None:
    rng = np.random.default_rng(0)
    chosen, rejected = rng.normal(size=(9, 3)), rng.normal(size=(9, 3))
    reward = Watched(heads=4, builder="random")
    reward.fit(rng.normal(size=(30, 3)), rng.normal(size=(30, 3)))
    found = few_shot(reward, {"chosen": chosen, "rejected": rejected}, shots=5, draws=20, seed=3)
    assert reward.scored == 20 * 5 * 2 and reward.labels_ == []
    assert len(set(found["accuracy"]["reweighting"])) > 1, "every draw is another one"
    again = few_shot(reward, {"chosen": chosen, "rejected": rejected}, shots=5, draws=20, seed=3)
    assert again == found


def test_rows_without_a_distribution_are_named(paper: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = read(paper / "bench.jsonl")
    del rows[3]["subset"]
    write(paper / "odd.jsonl", rows)
    words = [*preset(paper), "--out", str(paper / "odd"), "--quiet", "--eval", str(paper / "odd.jsonl")]
    assert main(words) == 1
    assert "odd.jsonl:4: subset: is missing; --subset says which column it is" in capsys.readouterr().err
    assert main([*words, "--subset", "who", "--shots", "40", "--out", str(paper / "odd2")]) == 1
    assert "has more than 40 pairs" in capsys.readouterr().err


def test_a_language_model_is_no_trunk_for_reward(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.save(tmp_path / "model")
    file = write(tmp_path / "p.jsonl", crowd(40))
    words = ["personalize", "fit", str(file), "--features", "reward", "--model", str(tmp_path / "model")]
    assert main([*words, "--out", str(tmp_path / "run"), "--cache", str(tmp_path / "c"), "--quiet"]) == 1
    assert "is no reward model (a sequence classifier)" in capsys.readouterr().err


def test_a_dry_run_needs_no_model_and_says_plan_memory_and_cost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "p.jsonl", crowd(40))
    write(tmp_path / "e.jsonl", [{**row, "subset": "abc"[i % 3]} for i, row in enumerate(crowd(17, seed=5))])
    words = ["personalize", "fit", "p.jsonl", "--preset", "paper", "--eval", "e.jsonl", "--dry-run"]
    assert main(words) == 0
    told = capsys.readouterr().out
    for part in (
        r"plan \(paper preset\)",
        r"features     reward \(Ray2333/GRM-Gemma-2B-rewardmodel-ft\)\n",
        r"heads        100 by prior, prior of scale 1",
        r"p\.jsonl: 40 pairs",
        r"targets      2 distributions by 'subset', 5 pairs each, 20 draws",
        r"1 more have 5 pairs or fewer and are left out",
        # 2,506,172,416 parameters on the model's card, two bytes each.
        r"memory         about \d+\.\d GiB, 4\.7 of them the model",
        r"cost           about .* at 150 GFLOP/s .* at 160 TFLOP/s",
        r"nothing was run",
    ):
        assert re.search(part, told), (part, told)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["e.jsonl", "p.jsonl"]
    assert main(["personalize", "fit", "p.jsonl", "--dry-run"]) == 0
    assert "100 by pca" in capsys.readouterr().out


# ---- features


def test_every_way_to_features_gives_the_same(tmp_path: Path) -> None:
    tiny.save(tmp_path / "lm")
    rows = crowd(50)
    file = write(tmp_path / "p.jsonl", rows)
    words = [
        "personalize",
        "fit",
        str(file),
        "--features",
        "lm",
        "--model",
        str(tmp_path / "lm"),
        "--device",
        "cpu",
    ]
    words += [
        "--precision",
        "fp32",
        "--out",
        str(tmp_path / "run"),
        "--cache",
        str(tmp_path / "c"),
        "--quiet",
    ]
    assert main(words) == 0
    person = open_person(tmp_path / "run")
    assert person.first.shape[1] == 32 + len(STYLE)
    pool = person.pool[:6]
    first, second = person.features().of_pairs([(r["prompt"], r["first"], r["second"]) for r in pool])
    np.testing.assert_allclose(first, person.first[:6], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(second, person.second[:6], rtol=1e-3, atol=1e-4)
    answers = [(r["prompt"], r[side]) for r in pool for side in ("first", "second", "second")]
    many = person.features().of_answers(answers)
    np.testing.assert_allclose(many[0::3], first, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(many[2::3], second, rtol=1e-3, atol=1e-4)
    assert person.features().of_answers([]).shape == (0, 42)


def test_style_counts_what_it_says() -> None:
    text = "# Title\n\nOne **bold** word? Yes!\n\n- item\n2. item `x`"
    counts = dict(zip(STYLE, np.expm1(style([text])[0]), strict=True))
    assert counts["headings"] == pytest.approx(1) and counts["list items"] == pytest.approx(2)
    assert counts["bold"] == pytest.approx(1) and counts["code"] == pytest.approx(2)
    assert counts["questions"] == pytest.approx(1) and counts["exclamations"] == pytest.approx(1)
    assert counts["paragraphs"] == pytest.approx(3) and style([]).shape == (0, len(STYLE))


# ---- saved scores


def saved(rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Scores of three reward models, of both answers: short ones, long ones, and one of no taste."""

    def scores(text: str) -> list[float]:
        count = len(text.split())
        return [-count, 100.0 * count, float(len(text) % 7)]

    answers = [(row["prompt"], row[side]) for row in rows for side in ("chosen", "rejected")]
    made = [{"prompt": p, "completion": a, "scores": scores(a)} for p, a in answers]
    return made, np.array([row["scores"] for row in made])


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scored")
    rows = crowd(40)
    write(folder / "p.jsonl", rows)
    made, matrix = saved(rows)
    write(
        folder / "s.jsonl", [{**r, "scores": dict(zip(("short", "long", "odd"), r["scores"]))} for r in made]
    )
    np.savez(folder / "s.npz", scores=matrix, names=np.array(["short", "long", "odd"]))
    for name in ("jsonl", "npz"):
        words = ["personalize", "fit", str(folder / "p.jsonl"), "--scores", str(folder / f"s.{name}")]
        assert main([*words, "--out", str(folder / f"run-{name}"), "--quiet"]) == 0
    return folder


def test_saved_scores_are_the_heads_from_either_kind_of_file(scored: Path) -> None:
    one, other = open_person(scored / "run-jsonl"), open_person(scored / "run-npz")
    assert one.reward.heads_ == other.reward.heads_ == ["short", "long", "odd"]
    assert len(one.pool) == 40, "nothing is trained, so every pair can be asked about"
    np.testing.assert_array_equal(one.first, other.first)
    assert json.loads((scored / "run-npz" / "result.json").read_text())["features"].startswith("saved scores")
    for person in (one, other):
        person.take([Label(row["id"], float(label_of(row))) for row in person.ask(5)])
        assert person.reward.weights_[0] > 0.9
        while person.undo():
            pass


def test_rows_bring_their_own_scores(scored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, run = crowd(30, seed=3, who=("brief",)), str(scored / "run-npz")
    made, _ = saved(rows)
    named = [
        {**row, "chosen_scores": made[2 * i]["scores"], "rejected_scores": made[2 * i + 1]["scores"]}
        for i, row in enumerate(rows)
    ]
    file = write(scored / "own.jsonl", named[:6])
    assert main(["personalize", "adapt", run, "--labels", str(file), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["new"] == 6 and max(told["weights"], key=told["weights"].get) == "short"
    file = write(scored / "more.jsonl", named)
    assert main(["personalize", "score", run, str(file), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["tested"] == 24 and told["left_out_labelled"] == 6 and told["accuracy"]["estimate"] > 0.9
    assert main(["personalize", "score", run, str(write(scored / "c.jsonl", made[:4])), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 4
    assert main(["personalize", "adapt", run, "--undo", "6"]) == 0


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (
            {"chosen_scores": [1, 2, 3]},
            "rejected_scores: a list of numbers, or numbers by name, is needed, not null",
        ),
        (
            {"chosen_scores": [1, 2], "rejected_scores": [1, 2, 3]},
            "chosen_scores: there are 2 scores, but 3 heads",
        ),
        (
            {"chosen_scores": {"a": 1}, "rejected_scores": [1, 2, 3]},
            "chosen_scores: the heads are other ones",
        ),
        (
            {"chosen_scores": [1, 2, None], "rejected_scores": [1, 2, 3]},
            "chosen_scores: odd is no finite number",
        ),
    ],
)
def test_rows_with_other_scores_are_named(
    scored: Path, row: dict[str, Any], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    base = crowd(1, seed=8)[0]
    file = write(scored / "bad.jsonl", [{**base, **row}])
    for command in (
        ["adapt", str(scored / "run-npz"), "--labels", str(file)],
        ["score", str(scored / "run-npz"), str(file)],
    ):
        assert main(["personalize", *command]) == 1
        assert f"bad.jsonl:1: {told}" in capsys.readouterr().err


def test_files_of_scores_that_do_not_fit_are_refused(
    scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = read(scored / "s.jsonl")
    np.savez(tmp_path / "short.npz", scores=np.zeros((10, 3)))
    np.savez(tmp_path / "nan.npz", scores=np.full((80, 3), np.nan))
    np.savez(tmp_path / "flat.npz", scores=np.zeros(80))
    np.savez(tmp_path / "other.npz", values=np.zeros((80, 3)))
    (tmp_path / "no.npz").write_bytes(b"PK not")
    write(tmp_path / "gap.jsonl", rows[:-1])
    write(tmp_path / "odd.jsonl", [*rows, {**rows[0], "scores": {"short": 1, "long": 2, "odd": 99}}])
    for name, told in (
        ("short.npz", "scores: there are 5 pairs of answers, but the files have 40"),
        ("nan.npz", "scores: pair 1 has a value that is no finite number"),
        ("flat.npz", "scores: the shape is (80,)"),
        ("other.npz", "has no array `scores`, only values"),
        ("no.npz", "cannot be read as npz"),
        ("gap.jsonl", "p.jsonl:40: rejected: "),
        ("odd.jsonl", "odd.jsonl:81: scores: this answer has other scores further up"),
        ("none.jsonl", "none.jsonl: there is no such file"),
        ("s.txt", "there is no such file"),
    ):
        words = ["personalize", "fit", str(scored / "p.jsonl"), "--scores", str(tmp_path / name), "--quiet"]
        assert main([*words, "--out", str(tmp_path / f"run-{name}")]) == 1, name
        assert told in capsys.readouterr().err, name


def test_saved_scores_cannot_judge_new_text(scored: Path) -> None:
    with pytest.raises(HeedfulError, match="cannot judge samples"):
        personal_judge(f"personalize:{scored / 'run-npz'}")
    with pytest.raises(HeedfulError, match="new text cannot be scored"):
        open_person(scored / "run-npz").featurise("Q?", ["a"])
    features = AnswerFeatures(How("scores", style=False), {"scale": np.ones(3, np.float32)})
    assert features.about == "saved scores of other reward models"


def test_another_model_in_the_same_folder_is_read_again(tmp_path: Path) -> None:
    """Raw features are kept by what the folder holds, not by its name."""
    classifier(tmp_path / "model", "llama")
    file = write(tmp_path / "p.jsonl", crowd(40))
    words = ["personalize", "fit", str(file), "--features", "reward", "--model", str(tmp_path / "model")]
    words += [
        "--cache",
        str(tmp_path / "c"),
        "--heads",
        "4",
        "--device",
        "cpu",
        "--precision",
        "fp32",
        "--quiet",
    ]
    assert main([*words, "--out", str(tmp_path / "one")]) == 0
    assert main([*words, "--out", str(tmp_path / "same")]) == 0
    shutil.rmtree(tmp_path / "model")
    classifier(tmp_path / "model", "gemma")
    assert main([*words, "--out", str(tmp_path / "other")]) == 0
    one, same, other = (open_person(tmp_path / name).first for name in ("one", "same", "other"))
    assert np.array_equal(one, same) and not np.allclose(one, other)


# ---- a person as a judge


@pytest.fixture(scope="module")
def brief(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run of a person who prefers brief answers, and a tiny model that answers in whole sentences."""
    folder = tmp_path_factory.mktemp("brief")
    file = write(folder / "p.jsonl", crowd(240))
    words = ["personalize", "fit", str(file), "--out", str(folder / "me"), "--cache", str(folder / "c")]
    assert main([*words, "--heads", "20", "--dimensions", "8", "--pool-share", "0.3", "--quiet"]) == 0
    person = open_person(folder / "me")
    person.take([Label(row["id"], float(label_of(row))) for row in person.ask(15)])
    questions = [
        f"What is {word}?" for word in ("red", "green", "blue", "water", "France", "an egg", "Paris", "rain")
    ]
    write(folder / "q.jsonl", [{"prompt": q} for q in questions])
    # Both answers are as likely as the other to begin with.
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tiny, "ANSWERS", ["Paris is the capital of France.", tiny.ANSWERS[1]])
        tiny.assistant(folder / "model", [question for question in questions for _ in range(2)])
    return folder


def test_the_judge_scores_as_the_person_does(brief: Path) -> None:
    person, judge = open_person(brief / "me"), personal_judge(f"personalize:{brief / 'me'}")
    talk = [{"role": "user", "content": "B?"}]
    answers = ["word1", "word2 " * 30 + "clear", "word3 " * 9, "word4 " * 4]
    feedback = judge(Samples(["A?", talk], answers, 2))
    assert feedback.score.shape == (2, 2)
    wanted = [*person.score("A?", answers[:2]), *person.score(talk, answers[2:])]
    np.testing.assert_allclose(feedback.score.flatten().numpy(), wanted, rtol=1e-5)
    assert feedback.score[0, 0] > feedback.score[0, 1] and feedback.score[1, 1] > feedback.score[1, 0]


def prefer(folder: Path, judge: str) -> list[str]:
    """Tune the model of `folder` for one round; the judge is the gold judge too."""
    words = [
        "prefer",
        "--model",
        str(folder / "model"),
        "--prompts",
        str(folder / "q.jsonl"),
        "--judge",
        judge,
    ]
    words += [
        "--gold",
        judge,
        "--out",
        str(folder / "tuned"),
        "--rounds",
        "1",
        "--n",
        "6",
        "--max-new-tokens",
        "40",
    ]
    words += [
        "--learning-rate",
        "2e-3",
        "--epochs",
        "4",
        "--batch-size",
        "4",
        "--eval-share",
        "0.4",
        "--eval-n",
        "8",
    ]
    return [*words, "--device", "cpu", "--precision", "fp32", "--quiet"]


def test_a_policy_is_tuned_to_the_person(brief: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words, run = prefer(brief, f"personalize:{brief / 'me'}"), brief / "tuned"
    assert main(words) == 0, capsys.readouterr().err
    result = json.loads((run / "result.json").read_text())
    assert result["judge_score_change_low"] > 0 and result["words_after"] < 0.8 * result["words_before"]
    assert result["gold_score_after"] == pytest.approx(result["judge_score_after"])
    person, checked = open_person(brief / "me"), 0
    for row in read(run / "heldout.jsonl"):
        for side in ("before", "after"):
            (score,) = person.score(row["prompt"], [row[side]["text"]])
            assert row[side]["score"] == pytest.approx(score, rel=1e-4, abs=1e-4)
            checked += 1
    assert checked >= 6
    # What the person says later makes another judge: the run does not go on with it.
    person.label(person.ask(1)[0]["id"], 1)
    assert main(words) == 1
    assert re.search(r"data file .*me/labels\.jsonl has changed since the run began", capsys.readouterr().err)
    person.undo()


def test_the_person_must_be_there(brief: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for spec, told in (
        ("personalize:", "names no run folder"),
        (f"personalize:{brief}/no", "there is no run folder"),
    ):
        words = prefer(brief, spec)
        words[words.index("--out") + 1] = str(brief / "none")
        assert main(words) == 1
        assert told in capsys.readouterr().err


# ---- MiniLM


@pytest.mark.skipif(
    importlib.util.find_spec(probe_models.PACKAGE) is None,
    reason=f"MiniLM is not installed; {probe_models.INSTALL}",
)
def test_heads_on_minilm_follow_a_person_by_meaning(tmp_path: Path) -> None:
    kind = ["I would be glad to help you.", "Of course, with pleasure.", "Sure, here is how it works."]
    curt = ["Leave me alone.", "No, I hate this question.", "Go away, that is stupid."]
    rows = [
        {"prompt": f"Question {i}?", "chosen": a, "rejected": b}
        for i, (a, b) in enumerate(zip(kind * 14, [c for c in curt for _ in range(14)], strict=True))
    ]
    rows = [
        row if i % 2 else {**row, "chosen": row["rejected"], "rejected": row["chosen"]}
        for i, row in enumerate(rows)
    ]
    run = tmp_path / "run"
    command = [
        "personalize",
        "fit",
        str(write(tmp_path / "pairs.jsonl", rows)),
        "--features",
        "minilm",
        "--no-style",
    ]
    more = [
        "--builder",
        "pca",
        "--heads",
        "8",
        "--pool-share",
        "0.4",
        "--cache",
        str(tmp_path / "cache"),
        "--quiet",
    ]
    assert main([*command, *more, "--device", "cpu", "--out", str(run)]) == 0
    person = open_person(run)
    for row in person.pool[:5]:
        person.label(row["id"], int(row["first"] in kind))
    scores = person.score("How do I cook rice?", ["I am happy to show you.", "Shut up and go away."])
    assert scores[0] > scores[1], "neither answer was in the pairs"
