"""`heedful prefer` from files to report on a tiny random model: every method, judge and refusal."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file

from heedful import run as run_module
from heedful.cli import main as heedful
from heedful.errors import HeedfulError
from heedful.policies import objectives
from heedful.recipes import prefer
from heedful.recipes.plan import FROM_PAIRS, FROM_SAMPLES

WORDS = ["red", "green", "blue", "egg", "water", "France", "rainbow", "colour", "capital", "answer"]
JUDGE = '''
def letters(completions, **columns):
    """The share of plain letters; a random byte-level model writes few."""
    return [sum(c.isascii() and c.isalpha() for c in text) / max(1, len(text)) for text in completions]

def with_bonus(prompts, completions, bonus, **columns):
    return [b + s for b, s in zip(bonus, letters(completions))]

def centred(completions, **columns):
    return [10 * (share - 0.2) for share in letters(completions)]

def same(prompts, completions, **columns):
    return [1.0] * len(prompts)
'''


@pytest.fixture(autouse=True)
def no_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "commit", lambda: None)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    tiny.save(folder / "start")
    (folder / "judge.py").write_text(JUDGE)
    write(folder / "prompts.jsonl", [{"prompt": f"What is {w}?", "bonus": i} for i, w in enumerate(WORDS)])
    write(
        folder / "held.jsonl",
        [{"prompt": f"Where is {w} {p}?", "bonus": 0} for w in WORDS for p in ("now", "then", "here")],
    )
    write(
        folder / "pairs.jsonl",
        [
            {"prompt": f"Name {a} and {b}?", "chosen": f"{a}, {b}.", "rejected": f"I do not know {b} at all."}
            for i, a in enumerate(WORDS)
            for b in WORDS[:i]
        ],
    )
    return folder


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def start(place: Path, out: Path, *more: str) -> list[str]:
    """Arguments that every run here has."""
    shared = (
        f"--model {place}/start --out {out} --max-new-tokens 10 --eval-limit 4 --precision fp32 --device cpu"
    )
    return ["prefer", *shared.split(), "--quiet", *more]


def offline(place: Path, out: Path, *more: str) -> dict[str, Any]:
    assert heedful(start(place, out, "--data", f"{place}/pairs.jsonl", *more)) == 0
    return json.loads((out / "result.json").read_text())


def judged(place: Path, out: Path, *more: str, judge: str = "letters") -> dict[str, Any]:
    asked = ["--prompts", f"{place}/prompts.jsonl", "--eval-prompts", f"{place}/held.jsonl"]
    assert heedful(start(place, out, *asked, "--judge", f"{place}/judge.py:{judge}", *more)) == 0
    return json.loads((out / "result.json").read_text())


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# ---- methods


def test_the_plan_knows_the_methods() -> None:
    assert set(FROM_PAIRS) == {name for name, m in objectives.METHODS.items() if m.feedback == "pairs"}
    assert set(FROM_SAMPLES) == {name for name, m in objectives.METHODS.items() if m.feedback == "samples"}


@pytest.mark.parametrize("method", FROM_PAIRS)
def test_every_pair_method_learns_to_prefer_the_chosen_answers(
    method: str, place: Path, tmp_path: Path
) -> None:
    more = ["--method", method, "--learning-rate", "3e-3", "--epochs", "3", "--batch-size", "4"]
    result = offline(place, tmp_path / "run", *more)
    assert result["method"] == method and result["rounds"] == 0
    assert result["preference_accuracy"] > 0.9 and result["h_w"] > result["h_l"] + 0.5
    warnings = json.loads((tmp_path / "run/report.json").read_text())["warnings"]
    assert any(w.startswith("h_w fell by") for w in warnings) == (result["h_w"] < 0)
    logged = [row for row in rows(tmp_path / "run/metrics.jsonl") if "loss" in row]
    assert len(logged) == result["steps"]
    first, last = (sum(row["loss"] for row in part) for part in (logged[:5], logged[-5:]))
    assert last < first


@pytest.mark.parametrize("method", FROM_SAMPLES)
def test_every_sample_method_raises_the_score(method: str, place: Path, tmp_path: Path) -> None:
    more = [
        "--method",
        method,
        "--learning-rate",
        "1e-2",
        "--rounds",
        "3",
        "--n",
        "8",
        "--batch-size",
        "2",
        "--eval-limit",
        "30",
        "--eval-n",
        "8",
    ]
    # imitation alone learns slowly: no decay of the learning rate, and fresher samples for the one that takes them all
    slow = {
        "best": "--schedule constant --epochs 6",
        "rwr": "--schedule constant --epochs 2 --rounds 8 --n 16",
    }
    more += slow.get(method, "--tau 0.1 --epochs 6" if method == "apa" else "--epochs 6").split()
    if method == "rwr":
        more += ["--learning-rate", "5e-3"]
    judge = "centred" if method == "rwr" else "letters"
    result = judged(place, tmp_path / "run", *more, judge=judge)
    assert result["judge_score_change"] > 0 and result["judge_score_change_low"] > 0
    assert result["win_rate_after"] > 0.5


def test_pairs_from_samples_raise_the_score_and_the_judge_gets_its_columns(
    place: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    more = [
        "--learning-rate",
        "1e-2",
        "--rounds",
        "2",
        "--n",
        "6",
        "--batch-size",
        "2",
        "--eval-limit",
        "30",
        "--eval-n",
        "8",
        "--pairs",
        "all",
    ]
    result = judged(place, run, *more, "--epochs", "2", judge="with_bonus")
    assert result["judge_score_change_low"] > 0
    scored = rows(run / "round0/feedback.jsonl")
    drawn = rows(run / "round0/samples.jsonl")
    for i, (said, row) in enumerate(zip(scored, drawn, strict=True)):
        texts = [c["text"] for c in row["completions"]]
        wanted = [i + sum(c.isascii() and c.isalpha() for c in t) / max(1, len(t)) for t in texts]
        assert said["score"] == pytest.approx(wanted, abs=1e-5)
    kept = rows(run / "round0/rows.jsonl")
    counts = {k: v for k, v in result.items() if k.startswith("selected_")}
    assert counts["selected_pairs"] == len(kept) + len(rows(run / "round1/rows.jsonl"))
    assert sum(counts.values()) == 2 * len(WORDS) * 15
    assert all(row["chosen_score"] > row["rejected_score"] for row in kept)


def test_the_options_of_a_method_reach_its_loss(place: Path, tmp_path: Path) -> None:
    def first_losses(*more: str) -> list[float]:
        folder = tmp_path / "-".join(m.strip("-.") for m in more)
        offline(place, folder, "--max-steps", "3", "--learning-rate", "1e-2", *more)
        return [row["loss"] for row in rows(folder / "metrics.jsonl") if "loss" in row]

    assert first_losses("--beta", "0.1") != first_losses("--beta", "0.5")
    assert first_losses("--label-smoothing", "0.2") != first_losses("--beta", "0.1", "--seed", "0")
    assert first_losses("--method", "simpo", "--gamma", "0.5") != first_losses("--method", "simpo")


def test_kl_takes_the_log_ratio_off_the_scores(place: Path, tmp_path: Path) -> None:
    more = ["--method", "reinforce", "--learning-rate", "1e-2", "--rounds", "2", "--n", "6", "--epochs", "3"]
    free = judged(place, tmp_path / "free", *more)
    held = judged(place, tmp_path / "held", *more, "--kl", "2.0")
    assert held["kl"] < free["kl"]


# ---- reward models


def test_a_reward_model_is_fitted_saved_and_used_again(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoModelForSequenceClassification

    run = tmp_path / "run"
    more = ["--reward-model", f"{place}/start", "--rounds", "1", "--n", "4", "--learning-rate", "3e-3"]
    result = offline(place, run, *more)
    assert result["rounds"] == 1 and "judge_score_after" in result
    report = json.loads((run / "report.json").read_text())
    assert report["data"]["reward model: held-out accuracy"] > 0.8
    model = AutoModelForSequenceClassification.from_pretrained(run / "reward_model")
    assert model.config.num_labels == 1
    asked = ["--prompts", f"{place}/prompts.jsonl", "--reward-model", f"{run}/reward_model"]
    words = start(place, tmp_path / "second", *asked, "--rounds", "1", "--max-steps", "1")
    assert heedful(words) == 0
    capsys.readouterr()
    weights = run / "reward_model/model.safetensors"
    weights.write_bytes(weights.read_bytes() + b" ")
    assert f"data file {weights} has changed since the run began" in refused(words, capsys)


def test_held_out_prompts_that_the_reward_model_learned_from_are_left_out(
    place: Path, tmp_path: Path
) -> None:
    known = [row["prompt"] for row in rows(place / "pairs.jsonl")]
    mixed = write(
        tmp_path / "mixed.jsonl", [{"prompt": p} for p in [*known, *(f"Is {w} new?" for w in WORDS)]]
    )
    asked = ["--data", f"{place}/pairs.jsonl", "--prompts", str(mixed), "--eval-share", "0.3"]
    more = ["--reward-model", f"{place}/start", "--rounds", "1", "--n", "2", "--max-steps", "1"]
    assert heedful([*start(place, tmp_path / "run", *asked, *more), "--eval-limit", "99"]) == 0
    trained = {row["prompt"] for row in rows(tmp_path / "run/round0/samples.jsonl")}
    tested = {row["prompt"] for row in rows(tmp_path / "run/heldout.jsonl")}
    facts = json.loads((tmp_path / "run/report.json").read_text())["data"]
    assert facts["held-out prompts left out, being in the training pairs"] >= 1
    assert tested and not tested & trained


# ---- what a run leaves behind


def test_json_prints_the_result_and_transformers_loads_the_model(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run = tmp_path / "run"
    more = ["--log-every", "3", "--top-k", "5"]
    offline(place, run, "--max-steps", "4", "--learning-rate", "1e-2", "--json", "--merged", *more)
    printed = json.loads(capsys.readouterr().out)
    assert printed["steps"] == 4 and len([row for row in rows(run / "metrics.jsonl") if "loss" in row]) == 2
    # the answers are drawn from 5 tokens; the KL is not estimated on them
    drawn = [c["logp"] for row in rows(run / "kl/samples.jsonl") for c in row["completions"]]
    assert len(drawn) == printed["held_out_prompts"] and printed["kl"] < -sum(drawn) / len(drawn)
    assert printed == json.loads((run / "result.json").read_text())
    documented = (Path(__file__).parent.parent / "docs/prefer.md").read_text()
    for key in ("steps", "held_out_pairs", "kl", "h_w", "h_l", "preference_accuracy"):
        assert isinstance(printed[key], int | float) and f"`{key}`" in documented
    model = AutoModelForCausalLM.from_pretrained(run / "model")
    tokenizer = AutoTokenizer.from_pretrained(run / "model")
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], add_generation_prompt=True)
    ids = torch.tensor([ids["input_ids"] if hasattr(ids, "keys") else ids])
    before = AutoModelForCausalLM.from_pretrained(place / "start")
    assert not torch.allclose(model(ids).logits, before(ids).logits, atol=1e-3)
    page = (run / "report.html").read_text()
    assert "heedful prefer" in page and "<script" not in page.replace("</script", "")


def test_a_run_goes_on_from_a_run(place: Path, tmp_path: Path) -> None:
    offline(place, tmp_path / "first", "--max-steps", "3", "--learning-rate", "1e-2")
    arguments = start(place, tmp_path / "second", "--data", f"{place}/pairs.jsonl", "--max-steps", "1")
    arguments[arguments.index("--model") + 1] = str(tmp_path / "first")
    assert heedful(arguments) == 0


def test_the_same_command_does_nothing_twice_and_other_settings_are_refused(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    offline(place, run, "--max-steps", "2")
    weights = (run / "model/adapter_model.safetensors").read_bytes()
    metrics = (run / "metrics.jsonl").read_bytes()
    offline(place, run, "--max-steps", "2", "--save-every", "7")
    assert (run / "model/adapter_model.safetensors").read_bytes() == weights
    assert (run / "metrics.jsonl").read_bytes() == metrics
    words = start(place, run, "--data", f"{place}/pairs.jsonl", "--max-steps", "2", "--beta", "0.3")
    assert heedful(words) == 1
    said = capsys.readouterr().err
    assert "beta" in said and "0.1" in said and "0.3" in said and "Traceback" not in said
    copy = tmp_path / "pairs.jsonl"
    copy.write_text((place / "pairs.jsonl").read_text())
    changed = ["--data", str(copy), "--max-steps", "1"]
    assert heedful(start(place, tmp_path / "other", *changed)) == 0
    copy.write_text("\n".join(copy.read_text().splitlines()[:-1]) + "\n")
    assert heedful(start(place, tmp_path / "other", *changed)) == 1
    assert f"data file {copy} has changed" in capsys.readouterr().err


def test_another_seed_is_another_run_and_the_same_seed_the_same(place: Path, tmp_path: Path) -> None:
    def weights(name: str, seed: str) -> torch.Tensor:
        judged(place, tmp_path / name, "--max-steps", "2", "--rounds", "1", "--seed", seed)
        return torch.cat(
            [v.flatten() for v in load_file(tmp_path / name / "model/adapter_model.safetensors").values()]
        )

    a, b, c = weights("a", "1"), weights("b", "1"), weights("c", "2")
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_micro_batches_do_not_change_the_result(place: Path, tmp_path: Path) -> None:
    losses = []
    for name, tokens in (("whole", "0"), ("parts", "60")):
        offline(
            place, tmp_path / name, "--max-steps", "4", "--learning-rate", "1e-2", "--micro-tokens", tokens
        )
        losses.append([row["loss"] for row in rows(tmp_path / name / "metrics.jsonl") if "loss" in row])
    assert losses[0] == pytest.approx(losses[1], abs=1e-4) and losses[0][0] != losses[0][-1]


# ---- refusals


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert heedful(arguments) == 1
    said = capsys.readouterr()
    assert "Traceback" not in said.err and said.out == ""
    return said.err


def test_everything_wrong_with_the_data_is_said_at_once(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (place / "pairs.jsonl").read_text().splitlines()
    lines[3], lines[7] = '{"prompt": "A?", "chosen": "", "rejected": "b"}', "{broken"
    bad = tmp_path / "bad.jsonl"
    bad.write_text("\n".join(lines) + "\n")
    said = refused(start(place, tmp_path / "run", "--data", str(bad)), capsys)
    assert f"{bad}:4: chosen: " in said and f"{bad}:8: " in said


def test_held_out_prompts_must_not_be_trained_on(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = write(tmp_path / "held.jsonl", rows(place / "pairs.jsonl")[4:6])
    said = refused(
        start(place, tmp_path / "run", "--data", f"{place}/pairs.jsonl", "--eval-data", str(held)), capsys
    )
    assert "2 prompts are also in" in said and f"{held}:1" in said


def test_a_judge_without_differences_is_an_error(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--prompts", f"{place}/prompts.jsonl", "--judge", f"{place}/judge.py:same"]
    said = refused(start(place, tmp_path / "run", *asked), capsys)
    assert "no usable difference" in said


def test_an_output_folder_that_cannot_be_written_is_an_error(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    said = refused(start(place, tmp_path / "file", "--data", f"{place}/pairs.jsonl"), capsys)
    assert str(tmp_path / "file") in said
    if os.geteuid() != 0:
        (tmp_path / "locked").mkdir(mode=0o555)
        said = refused(start(place, tmp_path / "locked/run", "--data", f"{place}/pairs.jsonl"), capsys)
        assert "permission denied" in said


def test_presets_are_known_by_name() -> None:
    assert prefer.preset("laptop") == prefer.Config()
    assert prefer.preset("paper").model == "EleutherAI/pythia-1.4b"
    with pytest.raises(HeedfulError, match="neither laptop nor paper"):
        prefer.preset("desktop")
