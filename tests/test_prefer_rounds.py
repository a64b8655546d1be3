"""The driver's knobs on a tiny model: rounds in turn, mixing, reuse, references, the value head, what is logged."""

# ruff: noqa: F811  a fixture of another test file is also a parameter
from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_prefer import judged, no_git, offline, place, rows, start  # noqa: F401

from heedful.cli import main as heedful
from heedful.errors import HeedfulError
from heedful.policies import objectives
from heedful.policies.packing import Group
from heedful.recipes import prefer
from heedful.recipes.plan import WITH_BETA
from heedful.recipes.prefer_select import in_turn
from heedful.run import open_run, read_metrics

SHORT = ["--learning-rate", "1e-2", "--n", "4", "--batch-size", "2"]


def steps(folder: Path) -> list[dict[str, Any]]:
    return [row for row in read_metrics(folder) if "loss" in row]


def driver(folder: Path) -> list[dict[str, Any]]:
    return [row for row in read_metrics(folder) if row["stage"] == "driver"]


def test_each_prompt_is_taken_once_before_any_is_taken_twice(tmp_path: Path) -> None:
    with open_run(tmp_path, {}, seed=1) as run:
        taken = [i for r in range(5) for i in in_turn(7, 3, r, "prompts", run)]
        assert sorted(taken[:7]) == list(range(7)) and sorted(taken[7:14]) == list(range(7))
        assert taken[:7] != taken[7:14]
        assert in_turn(7, 7, 3, "prompts", run) == list(range(7))
        assert in_turn(7, 3, 0, "pairs", run) != in_turn(7, 3, 0, "prompts", run)


def test_a_round_takes_its_prompts_and_says_how_stale_and_reused_its_samples_are(
    place: Path,
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    more = ["--rounds", "5", "--prompts-per-round", "4", "--epochs", "3", "--method", "reinforce"]
    judged(place, run, *SHORT, *more, "--eval-rounds", "2", "--gold", f"{place}/judge.py:centred")
    asked = [row["prompt"] for r in range(5) for row in rows(run / f"round{r}/samples.jsonl")]
    assert set(Counter(asked).values()) == {2} and len(asked) == 20
    told = driver(run)
    assert [row["step"] for row in told] == [1, 2, 3, 4, 5]
    assert [row["samples_used"] for row in told] == [16, 32, 48, 64, 80]
    assert [row["reward_queries"] for row in told] == [16, 32, 48, 64, 80]
    assert {row["updates_per_refresh"] for row in told} == {6} and {row["reuse"] for row in told} == {3.0}
    assert all(math.isfinite(row["score"]) and math.isfinite(row["kl"]) for row in told)
    held = [row for row in read_metrics(run) if row["stage"] == "held-out"]
    assert [row["step"] for row in held] == [2, 4]
    assert all({"judge_score", "gold_score", "words"} <= set(row) for row in held)
    result = json.loads((run / "result.json").read_text())
    assert result["gold_score_after"] == pytest.approx(10 * (result["judge_score_after"] - 0.2), abs=1e-3)
    logged = steps(run)
    assert len(logged) == 5 * 6
    names = {
        "h_w",
        "h_l",
        "margin",
        "kl_ref",
        "kl_sampling",
        "entropy",
        "length",
        "samples_used",
        "reward_queries",
    }
    assert all(names <= set(row) for row in logged)
    # one learning rate schedule over all rounds
    rates = [row["lr"] for row in logged]
    top = rates.index(max(rates))
    assert rates[:top] == sorted(rates[:top]) and rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] < 0.1 * max(rates) and 0 < top < 6
    # a fresh sample's policy is the one that drew it, then it moves away
    assert abs(logged[0]["kl_sampling"]) < 1e-3 < logged[5]["kl_sampling"]


def test_kl_and_entropy_are_estimates_from_the_samples(place: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    judged(
        place, run, *SHORT, "--rounds", "1", "--method", "reinforce", "--batch-size", "10", "--max-steps", "1"
    )
    drawn = [c for row in rows(run / "round0/samples.jsonl") for c in row["completions"]]
    first = steps(run)[0]
    tokens = sum(len(c["ids"]) for c in drawn)
    assert first["entropy"] == pytest.approx(-sum(c["logp"] for c in drawn) / tokens, abs=1e-4)
    assert first["kl_ref"] == pytest.approx(0.0, abs=1e-3)
    assert first["length"] == pytest.approx(tokens / len(drawn))


@pytest.mark.parametrize("method", ["dpo", "reinforce"])
def test_samples_that_are_not_drawn_as_the_policy_is_tell_no_kl(
    method: str, place: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    more = ["--rounds", "1", "--max-steps", "1", "--method", method, "--top-p", "0.9"]
    judged(place, run, *SHORT, *more)
    (told,), first = driver(run), steps(run)[0]
    assert "score" in told and "h_w" in first
    assert not {"kl", "kl_ref", "kl_sampling", "entropy"} & (set(told) | set(first))


@pytest.mark.parametrize("method", ["dpo", "reinforce"])
def test_a_share_of_each_round_comes_from_the_data(method: str, place: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    more = ["--data", f"{place}/pairs.jsonl", "--offline-share", "0.5", "--prompts-per-round", "6"]
    judged(place, run, *SHORT, "--rounds", "2", "--method", method, *more)
    learned = rows(run / "round1/rows.jsonl")
    theirs = {row["prompt"] for row in rows(place / "pairs.jsonl")}
    own = [row for row in learned if row["prompt"] not in theirs]
    assert len(rows(run / "round1/samples.jsonl")) == 3
    assert len(learned) - len(own) == (3 if method == "dpo" else 6)
    told = driver(run)[-1]
    assert told["samples_used"] == 24 and told["reward_queries"] == (24 if method == "dpo" else 36)


def test_offline_rounds_of_pairs_need_no_judge_and_learn(place: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    more = ["--rounds", "3", "--offline-share", "1", "--prompts-per-round", "14", "--epochs", "4"]
    result = offline(place, run, *SHORT, *more)
    assert result["preference_accuracy"] > 0.9
    assert not list(run.glob("round*/samples.jsonl")) and "kl_ref" not in steps(run)[0]


def test_references_start_refreshed_and_averaged(place: Path, tmp_path: Path) -> None:
    folders = {}
    for name in ("start", "refresh", "ema"):
        folders[name] = tmp_path / name
        judged(place, folders[name], *SHORT, "--rounds", "3", "--reference", name)
    first = {
        name: [row for row in steps(folder) if row["stage"] == "round0"] for name, folder in folders.items()
    }
    assert [r["loss"] for r in first["start"]] == pytest.approx(
        [r["loss"] for r in first["refresh"]], abs=1e-6
    )
    third = {
        name: next(row for row in steps(folder) if row["stage"] == "round2")
        for name, folder in folders.items()
    }
    assert abs(third["refresh"]["h_w"]) < 1e-3 and abs(third["refresh"]["margin"]) < 1e-3
    assert abs(third["ema"]["logp_minus_ref"]) > 1e-3 and abs(third["start"]["logp_minus_ref"]) > 1e-3
    from safetensors.torch import load_file

    kept = sorted(f.parent.name for f in folders["ema"].glob("round*/reference.safetensors"))
    assert kept == ["round1", "round2"]
    again = load_file(folders["ema"] / "round2/reference.safetensors")
    assert any(value.abs().max() > 0 for name, value in again.items() if "lora_B" in name)


def test_ppo_has_a_value_head_that_learns_and_a_coefficient_that_adapts(place: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    more = ["--rounds", "3", "--epochs", "4", "--kl", "0.5", "--kl-target", "0.01", "--kl-horizon", "100"]
    judged(place, run, *SHORT, "--method", "ppo", *more)
    told = driver(run)
    assert told[0]["kl_coef"] == 0.5
    for before, after in itertools.pairwise(told):
        error = min(0.2, max(-0.2, before["kl"] / 0.01 - 1))
        assert after["kl_coef"] == pytest.approx(before["kl_coef"] * (1 + error * 40 / 100), rel=1e-5)
    free = tmp_path / "free"
    judged(place, free, *SHORT, "--method", "ppo", "--rounds", "4", "--epochs", "4", "--schedule", "constant")
    logged = steps(free)
    assert logged[0]["value"] == 0
    assert sum(row["value_loss"] for row in logged[-20:]) < 0.5 * sum(
        row["value_loss"] for row in logged[:20]
    )
    plain = tmp_path / "plain"
    judged(place, plain, *SHORT, "--method", "ppo", "--value-coef", "0", "--rounds", "1")
    assert "value_loss" not in steps(plain)[0]


@pytest.mark.parametrize("baseline", ["ema", "running"])
def test_moving_baselines_take_earlier_rounds(baseline: str, place: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    judged(place, run, *SHORT, "--method", "reinforce", "--rounds", "3", "--baseline", baseline)
    means = [row["score"] for row in driver(run)]
    earlier = [
        means[0],
        means[0],
        0.9 * means[0] + 0.1 * means[1] if baseline == "ema" else sum(means[:2]) / 2,
    ]
    for r in range(3):
        kept = rows(run / f"round{r}/rows.jsonl")
        assert all(row["score"] - row["advantage"] == pytest.approx(earlier[r], abs=1e-5) for row in kept)


@pytest.mark.parametrize("form", ["logp", "ratio", "unlikelihood"])
def test_best_of_n_with_a_negative_gradient(form: str, place: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    more = ["--method", "best", "--negative", "mean", "--negative-form", form, "--negative-weight", "0.5"]
    judged(place, run, *SHORT, "--rounds", "2", "--epochs", "4", *more)
    logged = steps(run)
    assert all({"nll", "negative", "let_go", "h_w", "h_l"} <= set(row) for row in logged)
    assert logged[-1]["margin"] > logged[0]["margin"]
    groups = Counter(row["prompt"] for row in rows(run / "round0/rows.jsonl"))
    assert max(groups.values()) == 4


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--offline-share 0.5", "--offline-share takes answers from --data"),
        ("--offline-share 1.5", "--offline-share must be from 0 to 1"),
        ("--kl-target 3 --method ppo", "give --kl a first value"),
        ("--kl-target 3 --kl 1", "--kl has no meaning with dpo"),
        ("--kl-target 3 --kl 1 --method ppo --temperature 0.7", "--kl-target needs samples that tell the KL"),
        ("--kl-target 3 --kl 1 --method ppo --top-p 0.9", "--kl-target needs samples that tell the KL"),
        ("--kl-target 3 --kl 1 --method ppo --top-k 9", "--kl-target needs samples that tell the KL"),
        ("--method rwr --beta 0.5", "--beta has no meaning with rwr (only dpo, robust"),
        ("--preset paper --method sft --beta 0.5", "--beta has no meaning with sft"),
        ("--beta -2", "--beta must be a number above 0"),
        ("--preset paper --lora-alpha 8", "--lora-alpha has no meaning with --lora-rank 0"),
        ("--method ppo --baseline ema", "--baseline has no meaning with ppo's value head"),
        ("--method best --negative-form ratio", "--negative-form has no meaning without --negative"),
        ("--negative worst", "--negative has no meaning with dpo"),
        ("--reference-decay 0.5", "--reference-decay has no meaning without --reference ema"),
        ("--method rwr --reference ema", "--reference has no meaning with rwr"),
        ("--method best --negative worst --reference ema", "only with --negative-form ratio"),
        ("--gae-lambda 0.5", "--gae-lambda has no meaning with dpo"),
        ("--prompts-per-round -1", "--prompts-per-round must be"),
        ("--method ppo --discount 1.5", "--discount must be from 0 to 1"),
    ],
)
def test_what_does_not_go_together_is_refused(
    options: str,
    said: str,
    place: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = ["--prompts", f"{place}/prompts.jsonl", "--judge", f"{place}/judge.py:letters", *options.split()]
    assert heedful(start(place, tmp_path / "run", *asked)) != 0
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_knobs_of_rounds_without_rounds_are_refused() -> None:
    for option in (
        {"prompts_per_round": 2},
        {"offline_share": 0.5},
        {"eval_rounds": 1},
        {"reference": "ema"},
        {"n": 8},
    ):
        with pytest.raises(HeedfulError, match="--rounds"):
            prefer.settle(prefer.Config(data="pairs.jsonl", **option))


def test_beta_is_the_methods_own_where_none_is_given() -> None:
    def settled(preset: str = "laptop", **options: Any) -> float:
        cfg = replace(prefer.preset(preset), data="pairs.jsonl", **options)
        once = prefer.settle(cfg)
        assert prefer.settle(once) == once
        return once.beta

    assert settled() == 0.1, "that of runs begun before"
    assert settled(method="simpo") == 2.0
    assert settled(method="simpo", beta=0.1) == 0.1
    assert settled("paper") == settled("paper", method="sft") == 0.05
    assert settled(method="sft") == 0.1
    with pytest.raises(HeedfulError, match="--beta"):
        settled(beta=0.0)
    # an adapter of the reward model's own
    settled(lora_rank=0, lora_alpha=8.0, reward_model="smollm2", rounds=1)


@pytest.mark.parametrize("method", objectives.METHODS)
def test_beta_counts_for_the_methods_that_take_it(method: str) -> None:
    numbers = {name: torch.tensor([-1.0, -2.0]) for name in ("ref", "advantage", "weight")}
    logp = torch.tensor([[-0.5, -1.0], [-0.1, -0.2]])
    part = objectives.Batch(logp, logp < 0, {**numbers, "old": logp - 0.1}, [1, 1])
    options = {"clip": 0.2, "gamma": 1.0}
    losses = {float(objectives.METHODS[method].loss(part, {**options, "beta": b})[0]) for b in (0.1, 0.5)}
    assert (len(losses) == 2) == (method in WITH_BETA)


def test_a_trained_round_whose_record_is_gone_is_said(place: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    more = ["--prompts", f"{place}/prompts.jsonl", "--judge", f"{place}/judge.py:letters", "--rounds", "1"]
    args = start(place, run, *more, *SHORT)
    assert heedful(args) == 0
    before = {f.name: f.read_bytes() for f in (run / "round0/final").glob("*.safetensors")}
    assert heedful(args) == 0  # nothing is done twice
    assert {f.name: f.read_bytes() for f in (run / "round0/final").glob("*.safetensors")} == before
    (run / "round0/round.json").unlink()
    assert heedful(args) != 0


def test_a_part_is_judged_while_the_next_is_drawn_and_gives_the_same(
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from heedful.feedback import Feedback, Samples
    from heedful.policies import stages
    from heedful.policies.language import LanguagePolicy

    policy = LanguagePolicy.load(f"{place}/start", precision="fp32", device="cpu")
    sizes: list[int] = []

    def judge(samples: Samples) -> Feedback:
        sizes.append(len(samples.inputs))
        return Feedback(
            torch.tensor([[float(len(str(o))) for o in samples.group(i)] for i in range(len(samples.inputs))])
        )

    prompts = [f"Say {i}" for i in range(10)]
    names = ("r/samples", "r/feedback")
    how: dict[str, Any] = {"max_new_tokens": 4, "quiet": True}
    with open_run(tmp_path / "whole", {}, seed=0) as run:
        stages.sample_and_judge(policy, prompts, 2, judge, names, run, **how)
    assert sizes == [10]
    monkeypatch.setattr(stages, "PART", 8)
    with open_run(tmp_path / "parts", {}, seed=0) as run:
        drawn2, said2 = stages.sample_and_judge(policy, prompts, 2, judge, names, run, **how)
        assert sizes[1:] == [4, 4, 2]
        assert [len(str(o)) for o in drawn2.outputs] == said2.score.flatten().tolist()
        again = stages.sample_and_judge(policy, prompts, 2, judge, names, run, **how)
        assert len(sizes) == 4 and torch.equal(again[1].score, said2.score)
        (tmp_path / "parts/r/feedback.jsonl").unlink()
        stages.sample_and_judge(policy, prompts, 2, judge, names, run, **how)
        assert sizes[4:] == [10]  # the samples were there: judged whole


@pytest.mark.parametrize("method", [m for m, one in objectives.METHODS.items() if one.feedback == "samples"])
def test_rows_of_any_length_add_up_to_one_batch(method: str) -> None:
    """As micro-batches: each row's loss by its weight, over the sum of the weights."""
    lengths, weight = [2, 6, 1], objectives.row_weight(method)
    generator = torch.Generator().manual_seed(0)
    logp = -torch.rand((3, 6), generator=generator)
    mask = torch.arange(6)[None] < torch.tensor(lengths)[:, None]
    numbers = {
        "old": -torch.rand((3, 6), generator=generator),
        "advantage": torch.tensor([1.0, -1.0, 0.5]),
        "weight": torch.tensor([0.5, 1.0, 0.2]),
    }
    options = {"clip": 0.2}

    def loss(rows: list[int]) -> float:
        part = objectives.Batch(
            logp[rows], mask[rows], {k: v[rows] for k, v in numbers.items()}, [1] * len(rows)
        )
        return float(objectives.METHODS[method].loss(part, options)[0])

    rows = [{"group": Group([1], [list(range(n))])} for n in lengths]
    shares = [weight(row) for row in rows]
    added = sum(share * loss([i]) for i, share in enumerate(shares)) / sum(shares)
    assert added == pytest.approx(loss([0, 1, 2]), rel=1e-5)
