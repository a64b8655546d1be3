"""`heedful compare-methods` on a tiny random model: equal budgets, rates chosen on prompts of their own, resuming,
failures, the report; and its advice from made-up figures, in each direction."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from example_run import make_run
from test_prefer import JUDGE, WORDS, no_git, write  # noqa: F401
from test_report import ATTACKS, Page
from test_source import HEAVY, needs_at_import

from heedful import run as run_module
from heedful.cli import main as heedful
from heedful.cli import parse
from heedful.errors import HeedfulError
from heedful.evals import heldout
from heedful.evals.intervals import paired_bootstrap
from heedful.recipes import (
    compare_advice,
    compare_arms,
    compare_methods,
    compare_plan,
    compare_report,
    prefer,
    prefer_report,
)
from heedful.recipes.compare_figures import Figures, gap
from heedful.recipes.compare_outcomes import Outcome
from heedful.recipes.compare_pairs import token_overlap
from heedful.recipes.compare_plan import arms_of, budget, parse_arm
from heedful.report import write_report
from heedful.run import open_run, read_metrics

METHODS = ("dpo", "dpo:offline", "rwr:tau=0.1:rounds=1")


@pytest.fixture(autouse=True)
def no_pages_of_arms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every arm's own page is `heedful prefer`'s, tested there; drawing it takes longer than the rest."""
    monkeypatch.setattr(prefer_report, "write_report", lambda folder: None)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs") / "<i>here"
    folder.mkdir()
    tiny.save(folder / "start")
    (folder / "judge.py").write_text(JUDGE)
    write(folder / "prompts.jsonl", [{"prompt": f"What is {w}?", "bonus": i} for i, w in enumerate(WORDS)])
    asked = [f"Where is {w} {p}?" for w in WORDS for p in ("now", "then")]
    write(folder / "held.jsonl", [{"prompt": prompt, "bonus": 0} for prompt in asked])
    write(
        folder / "pairs.jsonl",
        [
            {"prompt": f"Name {a} and {b}?", "chosen": f"{a}, {b}.", "rejected": f"I do not know {b} at all."}
            for i, a in enumerate(WORDS)
            for b in WORDS[:i]
        ],
    )
    return folder


def command(
    place: Path, out: Path, *more: str, methods: Sequence[str] = METHODS, judge: str = "letters"
) -> list[str]:
    shared = (
        f"--model {place}/start --out {out} --max-new-tokens 8 --precision fp32 --device cpu --rounds 2 "
        "--prompts-per-round 4 --n 3 --batch-size 2 --epochs 1 --best-of 6 --learning-rates 1e-3 1e-2 "
        f"--prompts {place}/prompts.jsonl --eval-prompts {place}/held.jsonl --judge {place}/judge.py:{judge} --quiet"
    )
    return ["compare-methods", *shared.split(), "--methods", *methods, *more]


def with_pairs(place: Path) -> list[str]:
    return ["--data", f"{place}/pairs.jsonl", "--gold", f"{place}/judge.py:centred"]


@pytest.fixture(scope="module")
def whole(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished comparison that tests look at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "commit", lambda: None)
        patch.setattr(prefer_report, "write_report", lambda folder: None)
        out = tmp_path_factory.mktemp("whole") / "run"
        assert heedful(command(place, out, *with_pairs(place))) == 0
    return out


def result_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())


def arms_in(folder: Path, part: str) -> list[Path]:
    return sorted(path.parent for path in folder.glob(f"{part}/*/*/heldout.jsonl"))


def rows(path: Path) -> list[dict[str, Any]]:
    """JSON lines; a random model's text has line ends of other kinds in it, so by bytes."""
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def prompts_in(path: Path) -> set[str]:
    return {row["prompt"] for row in rows(path)}


# ---- budgets and learning rates


def test_every_method_gets_the_same_steps_and_samples(whole: Path) -> None:
    found = [*arms_in(whole, "tuning"), *arms_in(whole, "arms")]
    assert len(found) == 3 * 2 + 3
    for folder in found:
        metrics = list(read_metrics(folder))
        assert sum("loss" in row for row in metrics) == 4, folder
        last = [row for row in metrics if row["stage"] == "driver"][-1]
        offline = "offline" in str(folder.relative_to(whole))
        assert last["samples_used"] == (0 if offline else 24), folder
        taken = [len(rows(path)) for path in folder.glob("round*/samples.jsonl")]
        assert sum(taken) == (0 if offline else 8)
    result = result_of(whole)
    for key in ("dpo_online", "dpo_offline", "rwr_online_tau_0_1_rounds_1"):
        assert result[f"{key}_steps"] == 4 and result[f"{key}_seconds"] > 0


def test_rates_are_chosen_on_prompts_that_nothing_is_reported_of(whole: Path) -> None:
    sides = {name: prompts_in(whole / f"splits/prompts.{name}.jsonl") for name in ("train", "tune", "test")}
    pairs = {name: prompts_in(whole / f"splits/pairs.{name}.jsonl") for name in ("train", "tune", "test")}
    parts = [*sides.values(), *pairs.values()]
    assert all(parts) and sum(map(len, parts)) == len(set().union(*parts)) == 10 + 20 + 45
    for part, split in (("tuning", "tune"), ("arms", "test")):
        for folder in arms_in(whole, part):
            assert prompts_in(folder / "heldout.jsonl") == sides[split]
            trained = {row["prompt"] for path in folder.glob("round*/rows.jsonl") for row in rows(path)}
            assert trained and trained <= sides["train"] | pairs["train"]
            seed = json.loads((folder / "manifest.json").read_text())["seed"]
            assert seed == (0 if split == "tune" else 1)
    result = result_of(whole)
    for arm in map(parse_arm, METHODS):
        scores = {}
        for rate in (1e-3, 1e-2):
            told = json.loads((whole / f"results/tuning/{arm.name}/rate-{rate:g}.json").read_text())
            scores[rate] = told["result"]["judge_score_after"]
        assert len(set(scores.values())) == 2
        assert result[f"{arm.key}_learning_rate"] == max(scores, key=scores.__getitem__)
        config = (whole / f"arms/{arm.name}/seed1/config.yaml").read_text()
        assert f"learning_rate: {result[f'{arm.key}_learning_rate']}\n" in config


def test_an_arm_is_a_run_of_prefer_to_the_byte(whole: Path, place: Path, tmp_path: Path) -> None:
    arm = whole / "arms/dpo-online/seed1"
    rate = result_of(whole)["dpo_online_learning_rate"]
    files = {
        "data": "pairs.train",
        "eval-data": "pairs.test",
        "prompts": "prompts.train",
        "eval-prompts": "prompts.test",
    }
    named = [
        word for option, name in files.items() for word in (f"--{option}", f"{whole}/splits/{name}.jsonl")
    ]
    told = (
        f"--model {place}/start --out {tmp_path}/run --max-new-tokens 8 --precision fp32 --device cpu --rounds 2 "
        f"--prompts-per-round 4 --n 3 --batch-size 2 --max-steps 2 --seed 1 --learning-rate {rate} --quiet "
        f"--judge {place}/judge.py:letters --gold {place}/judge.py:centred --eval-rounds 1"
    )
    assert heedful(["prefer", *told.split(), *named]) == 0
    same = ["before/samples.jsonl", "before/feedback.jsonl", "before/gold.jsonl", "after/samples.jsonl"]
    for name in [*same, "heldout.jsonl", "result.json", "model/adapter_model.safetensors"]:
        assert (arm / name).read_bytes() == (tmp_path / "run" / name).read_bytes(), name


def test_only_reported_models_are_kept(whole: Path) -> None:
    assert len(list(whole.glob("arms/*/seed1/model/adapter_model.safetensors"))) == 3
    assert not list(whole.glob("tuning/**/*.safetensors"))


# ---- numbers and report


def test_numbers_are_those_of_the_arms(whole: Path) -> None:
    result = result_of(whole)
    own = result_of(whole / "arms/dpo-offline/seed1")
    for mine, theirs in (
        ("score", "judge_score_after"),
        ("score_change", "judge_score_change"),
        ("gold_change", "gold_score_change"),
        ("win_rate_after", "win_rate_after"),
        ("kl", "kl"),
        ("h_w", "h_w"),
        ("h_l", "h_l"),
    ):
        assert result[f"dpo_offline_{mine}"] == pytest.approx(own[theirs], abs=2e-6), mine
    # the same bootstrap with another seed
    for end in ("low", "high"):
        assert result[f"dpo_offline_score_change_{end}"] == pytest.approx(
            own[f"judge_score_change_{end}"], abs=0.02
        )
    rewards = np.array(json.loads((whole / "arms/dpo-offline/seed1/pair_rewards.json").read_text()))
    assert rewards.mean(0) == pytest.approx([own["h_w"], own["h_l"]], abs=1e-5)
    assert len(rewards) == own["held_out_pairs"] == len(rows(whole / "splits/pairs.test.jsonl"))
    assert not (whole / "arms/rwr-online-tau-0.1-rounds-1/seed1/pair_rewards.json").exists()
    scores = {label: result[f"{parse_arm(label).key}_gold_score_after"] for label in METHODS}
    assert result["winner"] == parse_arm(max(scores, key=scores.__getitem__)).label
    assert result["measure"] == "gold score" and result["held_out_prompts"] == 10
    about = {advice["about"]: advice for advice in result["advice"]}
    assert {"method", "peak", "on_policy", "negative_gradient", "close_pairs"} <= set(about)
    difference = paired_bootstrap(
        *(
            [row["score"] for row in rows(whole / f"arms/dpo-{mode}/seed1/after/gold.jsonl")]
            for mode in ("offline", "online")
        )
    )
    assert about["on_policy"]["online_less_offline"] == pytest.approx(difference.estimate, abs=1e-5)
    assert about["on_policy"]["online_less_offline_low"] == pytest.approx(difference.low, abs=1e-5)


def test_the_report_has_its_parts_and_escapes_what_it_was_given(whole: Path) -> None:
    report = json.loads((whole / "report.json").read_text())
    html = (whole / "report.html").read_text()
    page = Page(html)
    assert page.unbalanced == [] and "<i>here" in page.text and "<i>" not in html
    for text in (
        "Methods",
        "Advice",
        "How learning rates were chosen",
        "reward queries",
        "1 rounds of 8 prompts",
    ):
        assert text in page.text, text
    for axis in ("steps", "samples", "seconds"):
        for measure in ("judge", "gold"):
            assert f"held-out {measure} score against {axis}" in page.text
        assert f">{axis}</text>" in html
    methods = report["tables"][0]
    assert all(len(row) == len(methods["columns"]) for row in methods["rows"]) and len(methods["rows"]) == 3
    lines = {curve["x"]: curve["lines"] for curve in report["curves"] if "judge" in curve["title"]}
    start = result_of(whole)["start_score"]
    for label in (parse_arm(text).label for text in METHODS):
        ends = [lines[axis][label][-1][0] for axis in ("steps", "samples")]
        assert ends == [4, 16 if "offline" in label else 24]
        assert [lines[axis][label][0] for axis in lines] == [[0, pytest.approx(start)]] * 3
        assert len(lines["steps"][label]) == (2 if "rounds=1" in label else 3)
    assert {sample["group"] for sample in report["samples"]} == {parse_arm(text).label for text in METHODS}


def test_tables_and_lines_of_a_report_are_inert(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    report = json.loads((run / "report.json").read_text())
    bad = " ".join(ATTACKS)
    report["tables"] = [{"title": bad, "note": bad, "columns": [bad, bad], "rows": [[bad, bad], [bad, 1.5]]}]
    lines = {bad: [[0, 1], [2, None], ["x", 3], [4, 2.5]]}
    report["curves"] = [{"title": bad, "x": bad, "note": bad, "lines": lines}]
    (run / "report.json").write_text(json.dumps(report))
    page = Page(write_report(run).read_text())
    allowed = {"script", "img", "iframe", "object"}
    assert page.unbalanced == [] and not allowed & {tag for tag, _ in page.tags}
    assert not [name for _, given in page.tags for name in given if name.startswith("on")]
    assert page.text.count("onerror=") >= 9 and "1 → 2.5" in "".join(str(given) for _, given in page.tags)
    report["tables"] = ["no table"]
    (run / "report.json").write_text(json.dumps(report))
    with pytest.raises(HeedfulError, match=r"tables\[0\] must be a mapping"):
        write_report(run)


# ---- resuming


def test_a_comparison_that_was_stopped_goes_on_to_the_same_end(
    whole: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    for name in ("arms", "results/arms", "start/test-seed1", "tuning/dpo-online/rate-0.01"):
        shutil.rmtree(run / name)
    for name in ("results/tuning/dpo-online/rate-0.01.json", "result.json", "report.json", "report.html"):
        (run / name).unlink()
    calls = []
    own, answered = prefer.run, heldout.answer

    def stopped(cfg: Any, run: Any) -> Any:
        calls.append(str(run.folder))
        if len(calls) == 1:
            raise KeyboardInterrupt  # before anything
        made = own(cfg, run)
        if len(calls) == 3:
            raise KeyboardInterrupt  # with all of it on disk, and no result
        return made

    def answer(policy: Any, prompts: Any, judge: Any, name: str, run: Any, **how: Any) -> Any:
        if len(calls) == 5 and name == "after":
            calls.append("stopped")
            raise KeyboardInterrupt  # after training
        return answered(policy, prompts, judge, name, run, **how)

    monkeypatch.setattr(prefer, "run", stopped)
    monkeypatch.setattr(heldout, "answer", answer)
    words = command(place, run, *with_pairs(place))
    assert [heedful(words) for _ in range(4)] == [130, 130, 130, 0]
    assert len(calls) == 4 + 3 + 1 and len(set(calls) - {"stopped"}) == 4
    assert heedful(words) == 0 and len(calls) == 8
    for name in ("model/adapter_model.safetensors", "after/feedback.jsonl", "pair_rewards.json"):
        found = list(whole.glob(f"arms/*/seed1/{name}"))
        assert len(found) == (2 if "pair" in name else 3)
        for path in found:
            assert path.read_bytes() == (run / path.relative_to(whole)).read_bytes()
    ends = [
        {k: v for k, v in result_of(folder).items() if "seconds" not in k and k != "advice"}
        for folder in (whole, run)
    ]
    assert ends[0] == ends[1]


def test_seeds_and_methods_join_a_finished_comparison(
    whole: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    own = prefer.run
    monkeypatch.setattr(prefer, "run", lambda cfg, run: calls.append(run.folder) or own(cfg, run))
    run = tmp_path / "run"
    shutil.copytree(whole, run)  # also: a folder that was moved goes on
    words = command(place, run, *with_pairs(place), "--seeds", "2", methods=("dpo", "dpo:offline"))
    assert heedful(words) == 0
    assert [path.relative_to(run) for path in calls] == [
        Path("arms/dpo-online/seed2"),
        Path("arms/dpo-offline/seed2"),
    ]
    result = result_of(run)
    both = [result_of(run / f"arms/dpo-online/seed{seed}")["judge_score_after"] for seed in (1, 2)]
    assert result["dpo_online_score"] == pytest.approx(np.mean(both), abs=1e-6) and both[0] != both[1]
    assert result["dpo_online_score"] != result_of(whole)["dpo_online_score"] and result["seeds"] == 2
    assert "2 seeds of training are averaged" in (run / "report.html").read_text()
    assert heedful(command(place, run, *with_pairs(place), "--n", "4")) == 1


# ---- failures


def test_a_method_that_cannot_learn_is_reported_and_the_others_go_on(place: Path, tmp_path: Path) -> None:
    words = command(place, tmp_path / "run", methods=("dpo", "rwr"), judge="same")
    assert heedful([*words, "--learning-rates", "1e-2"]) == 0
    result = result_of(tmp_path / "run")
    assert result["failed"] == ["dpo:online"] and result["winner"] == "rwr:online"
    assert "dpo_online_score" not in result and not (tmp_path / "run/tuning").exists()
    assert result["held_out_prompts"] == 20 and result["tuning_prompts"] == 0
    assert "No method is shown to raise" in result["advice"][0]["text"] and not result["winner_decided"]
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert any("dpo:online failed: round 0" in text for text in report["warnings"])
    assert report["tables"][0]["rows"][-1][:3] == ["dpo:online", "0.01", "failed"]


def test_when_all_fail_it_says_why(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = command(place, tmp_path / "run", methods=("dpo", "ipo"), judge="same")
    assert heedful(words) == 1
    said = capsys.readouterr().err
    assert (
        "every method failed" in said and said.count("no usable difference") == 2 and "Traceback" not in said
    )


def test_one_rate_that_fails_is_not_chosen(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from heedful.policies import objectives

    own = objectives.objective

    def broken(policy: Any, method: str, **options: Any) -> Any:
        made = own(policy, method, **options)
        if method != "rwr":
            return made

        def loss(batch: Any) -> Any:
            scalar, metrics = made(batch)
            steepest = max(p.detach().abs().max() for p in policy.module.parameters() if p.requires_grad)
            return scalar * (float("nan") if steepest > 10 else 1.0), metrics

        return loss

    monkeypatch.setattr(objectives, "objective", broken)
    words = command(place, tmp_path / "run", methods=("best", "rwr"))
    words[words.index("1e-2")] = "50"
    cfg = compare_methods.settle(parse("compare-methods", words[1:]))
    with open_run(cfg.out, cfg, seed=cfg.seed) as run:
        work = compare_arms.prepare(cfg, run)
        choice = compare_arms.choose(work, parse_arm("rwr"))
    told = json.loads((tmp_path / "run/results/tuning/rwr-online/rate-50.json").read_text())
    assert "nothing was applied" in told["failed"]
    assert choice.rate == 1e-3 and choice.scores[50.0] is None and not choice.failed
    outcome = Outcome(parse_arm("rwr"), choice)
    assert "rwr:online, learning rate 50: failed while rates were chosen" in compare_report.warnings(
        cfg, [outcome]
    )


def test_one_reward_model_is_fitted_for_all(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = (
        f"compare-methods --model {place}/start --out {out} --max-new-tokens 8 --precision fp32 --device cpu --rounds "
        f"1 --prompts-per-round 4 --n 3 --batch-size 2 --epochs 1 --best-of 4 --learning-rates 1e-3 --quiet "
        f"--data {place}/pairs.jsonl --reward-model {place}/start --reward-learning-rate 3e-3 --eval-limit 5 "
        "--methods best sft:offline"
    )
    assert heedful(words.split()) == 0
    assert list(out.rglob("reward_model")) == [out / "reward_model"]
    report = json.loads((out / "report.json").read_text())
    assert report["data"]["reward model: held-out accuracy"] > 0.7
    assert report["data"]["held-out prompts: test"] == 5


# ---- plan and refusals


def test_the_plan_counts_all_runs(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert heedful([*command(place, tmp_path / "run", *with_pairs(place)), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert not (tmp_path / "run").exists()
    assert "2 learning rates each" in said and "9 stage(s), 36 steps of 2" in said
    assert "dpo:offline" in said and "4 steps in 2 rounds, 8 pairs" in said and "24 samples" in said
    paper = f"compare-methods --preset paper --data {place}/pairs.jsonl --reward-model x --dry-run"
    assert heedful(paper.split()) == 0
    said = capsys.readouterr().out
    assert "pythia-1.4b" in said and "600 steps in 75 rounds, 38,400 samples" in said


def test_help_needs_no_torch() -> None:
    for name in ("recipes/compare_methods.py", "recipes/compare_plan.py"):
        assert needs_at_import(name) & HEAVY == set()


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("dpo", "dpo:online"),
        ("dpo:offline", "dpo:offline"),
        ("best:online:negative=worst", "best:online:negative=worst"),
        ("rwr:tau=0.10:rounds=4", "rwr:online:tau=0.1:rounds=4"),
    ],
)
def test_methods_are_read(text: str, label: str) -> None:
    assert parse_arm(text).label == label and parse_arm(label) == parse_arm(text)


def config(**options: Any) -> compare_methods.Config:
    return replace(
        compare_methods.Config(), prompts="p.jsonl", data="d.jsonl", judge="rule:length<9w", **options
    )


def test_budgets_are_equal_whatever_a_method_has_of_its_own() -> None:
    cfg = config(rounds=8, prompts_per_round=16, batch_size=8, epochs=2.0)
    texts = (
        "dpo",
        "ppo:offline",
        "dpo:rounds=2",
        "dpo:rounds=16",
        "best:beta=1",
        "dpo:epochs=4",
        "dpo:epochs=4:rounds=4",
    )
    made = {text: budget(cfg, parse_arm(text), 99) for text in texts}
    assert {one.steps for one in made.values()} == {32}
    assert {one.prompts for text, one in made.items() if "epochs" not in text} == {128}
    assert {one.prompts for text, one in made.items() if "epochs" in text} == {64}
    assert (made["dpo:rounds=2"].prompts_per_round, made["dpo:rounds=2"].steps_per_round) == (64, 16)
    assert (made["dpo:rounds=16"].prompts_per_round, made["dpo:rounds=16"].steps_per_round) == (8, 2)
    assert (made["dpo:epochs=4"].prompts_per_round, made["dpo:epochs=4"].steps_per_round) == (8, 4)
    assert budget(config(prompts_per_round=0, epochs=1.0), parse_arm("dpo"), 17).steps_per_round == 3
    base = compare_plan.base_config(cfg, 1)
    for text in texts:
        own = compare_plan.arm_config(base, cfg, parse_arm(text), made[text], 1e-4)
        assert own.rounds * own.max_steps == 32 and own.n == cfg.n and own.learning_rate == 1e-4
        assert own.offline_share == float("offline" in text)
        assert own.epochs == (4.0 if "epochs" in text else 2.0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"methods": ("dpo", "dpq")}, "there is no method 'dpq'"),
        ({"methods": ("dpo", "dpo:sideways")}, "neither online, offline nor option=value"),
        ({"methods": ("dpo", "ipo:n=8")}, "'n' is no option that a method may have to itself"),
        ({"methods": ("dpo", "ipo:beta=x")}, "beta=x is no number"),
        ({"methods": ("dpo", "ipo:beta=1:beta=2")}, "beta is given twice"),
        ({"methods": ("dpo", "best:negative=much")}, "negative must be one of none, worst"),
        ({"methods": ("dpo", "dpo:online")}, "dpo:online comes twice"),
        ({"methods": ("dpo",)}, "at least two --methods"),
        ({"methods": ("dpo", "ipo:offline"), "data": ""}, "ipo:offline learns from pairs: give --data"),
        ({"methods": ("dpo", "ipo:tau=0.1")}, "ipo:online:tau=0.1: --tau has no meaning with ipo"),
        ({"methods": ("dpo", "ipo:beta=-1")}, "--beta must be a number above 0"),
        ({"methods": ("dpo", "dpo:rounds=3")}, "cannot be split evenly over 3 rounds"),
        ({"methods": ("dpo", "dpo:epochs=1")}, "choose no fewer than 2"),
        ({"methods": ("dpo", "dpo:epochs=5")}, "that give a whole number"),
        ({"methods": ("dpo", "dpo:rounds=0")}, "over 0 rounds"),
        ({"judge": ""}, "give --judge, or --reward-model"),
        ({"reward_model": "x"}, "--judge or --reward-model, not both"),
        ({"data": "", "prompts": ""}, "give --data FILE"),
        ({"learning_rates": ()}, "--learning-rates must be"),
        ({"learning_rates": (1e-4, 1e-4)}, "--learning-rates has one twice"),
        ({"learning_rates": (1e-4, float("nan"))}, "--learning-rates must be"),
        ({"seeds": 0}, "--seeds must be at least 1"),
        ({"tune_share": 1.0}, "--tune-share must be between 0 and 1"),
        ({"best_of": 1}, "--best-of must be at least 2"),
        ({"n": 1}, "--n must be at least 2"),
        ({"temperature": -1.0}, "--temperature"),
    ],
)
def test_what_does_not_go_together_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(HeedfulError) as refused:
        compare_methods.settle(replace(config(), **options))
    assert said in str(refused.value)


def test_without_methods_it_takes_those_of_the_paper_that_the_data_allow() -> None:
    assert [arm.label for arm in arms_of(config())] == [
        "dpo:online",
        "best:online",
        "ppo:online",
        "dpo:offline",
        "sft:offline",
    ]
    assert len(arms_of(replace(config(), data=""))) == 3
    assert [arm.label for arm in arms_of(config(methods=("dpo,ipo", "rwr")))] == [
        "dpo:online",
        "ipo:online",
        "rwr:online",
    ]


def test_too_few_held_out_prompts_are_refused(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = write(tmp_path / "few.jsonl", [{"prompt": "Where is it?"}])
    words = command(place, tmp_path / "run", methods=("dpo", "best"))
    words[words.index("--eval-prompts") + 1] = str(few)
    assert heedful(words) == 1
    said = capsys.readouterr().err
    assert "leave nothing for prompts.t" in said and "Traceback" not in said
    assert not (tmp_path / "run/results").exists()


# ---- advice from made-up figures

RNG = np.random.default_rng(0)
NOISE = RNG.normal(0, 0.05, (1, 60))


def scores(mean: float, spread: int = 0) -> np.ndarray:
    """(1, 60) scores round a mean; another `spread` is other noise."""
    return mean + np.roll(NOISE, spread, axis=1) - NOISE.mean()


def made_up(means: dict[str, float], **more: Any) -> Figures:
    """Figures of methods with these mean scores, a start model of 0 and probes round it."""
    arms = {parse_arm(text).label: parse_arm(text) for text in means}
    found = {
        label: scores(mean, i + 1) for i, (label, mean) in enumerate(zip(arms, means.values(), strict=True))
    }
    usual: dict[str, Any] = {
        "arms": arms,
        "scores": found,
        "judged": found,
        "start": scores(0.0),
        "judged_start": scores(0.0),
        "probe": np.random.default_rng(1).normal(0, 1, (60, 16)),
        "usual": {"rounds": 8, "epochs": 2.0},
    }
    return Figures(**(usual | more))


def one(found: Figures, about: str) -> compare_advice.Advice:
    chosen = [advice for advice in compare_advice.advise(found) if advice.about == about]
    assert len(chosen) == 1, chosen
    return chosen[0]


def test_a_side_is_taken_only_where_the_interval_and_all_seeds_do() -> None:
    assert gap(scores(0.0), scores(0.3, 1)).side == 1 and gap(scores(0.3), scores(0.0, 1)).side == -1
    assert gap(scores(0.0), scores(0.001, 1)).side == 0
    two = [np.concatenate([scores(a), scores(b, 3)]) for a, b in ((0.0, 0.0), (0.9, -0.1), (0.9, 0.4))]
    assert gap(two[0], two[1]).interval.excludes_zero and gap(two[0], two[1]).side == 0
    assert gap(two[0], two[2]).side == 1


def test_the_choice_of_a_method() -> None:
    clear = one(made_up({"dpo": 0.5, "best": 0.2}, rates={"dpo:online": 3e-4}), "method")
    assert clear.verdict == "dpo:online" and "Use dpo:online" in clear.text and "0.0003" in clear.text
    assert clear.figures["change"] == pytest.approx(0.5, abs=0.01)
    tied = made_up({"dpo": 0.5, "best": 0.499, "rwr": 0.1}, seconds={"dpo:online": 40.0, "best:online": 10.0})
    tied = one(tied, "method")
    assert tied.verdict == "undecided" and "cannot be told apart from best:online (" in tied.text
    assert "rwr" not in tied.text and "best:online took the least time (10 s against 40 s)" in tied.text
    none = one(made_up({"dpo": -0.5, "best": -0.2}), "method")
    assert none.verdict == "none" and "No method is shown to raise" in none.text
    unclear = one(made_up({"dpo": 0.001, "best": -0.2}), "method")
    assert unclear.verdict == "undecided" and "No method is shown to raise" in unclear.text


def test_the_peak_is_far_where_the_start_model_has_nothing_as_good() -> None:
    far = one(made_up({"dpo": 4.0, "best": 1.0}), "peak")
    assert far.verdict == "far" and far.figures["start_mass_at_best_level_high"] < 1 / 16
    assert "Expect on-policy sampling to pay" in far.text and far.figures["start_best_of_16"] < 4
    near = one(made_up({"dpo": 0.4, "best": 0.2}), "peak")
    assert near.verdict == "near" and near.figures["start_mass_at_best_level"] == pytest.approx(
        0.34, abs=0.05
    )
    between = one(made_up({"dpo": 1.53, "best": 0.2}), "peak")
    low, high = (between.figures[f"start_mass_at_best_level_{end}"] for end in ("low", "high"))
    assert between.verdict == "undecided" and low < 1 / 16 < high
    unmoved = one(made_up({"dpo": -4.0, "best": -4.0}), "peak")
    assert unmoved.verdict == "undecided" and "No method surely raised" in unmoved.text
    # where both modes were run, what was measured stands in place of what is to be expected
    both = one(made_up({"dpo": 4.0, "dpo:offline": 1.0}), "peak")
    assert both.verdict == "far" and "Expect" not in both.text


def test_probes_without_an_opinion_do_not_count() -> None:
    probe = np.random.default_rng(1).normal(0, 1, (60, 16))
    probe[:, 8:] = np.nan
    probe[0] = np.nan
    holed = one(made_up({"dpo": 0.4, "best": 0.2}, probe=probe), "peak")
    assert holed.verdict == "near" and holed.figures["start_mass_at_best_level"] == pytest.approx(
        0.34, abs=0.06
    )


@pytest.mark.parametrize(
    ("online", "offline", "verdict"), [(0.5, 0.1, "paid"), (0.1, 0.5, "cost"), (0.3, 0.299, "undecided")]
)
def test_on_policy_less_offline(online: float, offline: float, verdict: str) -> None:
    found = made_up({"dpo": online, "dpo:offline": offline, "best": 0.0, "ipo:offline:beta=1": 9.0})
    advice = one(found, "on_policy")
    assert advice.verdict == verdict and advice.text.endswith("over dpo).") == (verdict != "cost")
    assert advice.figures["online_less_offline"] == pytest.approx(online - offline, abs=0.01)
    assert not [
        a for a in compare_advice.advise(made_up({"dpo": 1, "ipo:offline": 0})) if a.about == "on_policy"
    ]


@pytest.mark.parametrize(
    ("down", "imitate", "verdict"), [(0.5, 0.1, "paid"), (0.1, 0.5, "cost"), (0.3, 0.299, "undecided")]
)
def test_whether_a_negative_gradient_pays(down: float, imitate: float, verdict: str) -> None:
    means = {"dpo": down, "ppo": down, "best:negative=worst": down, "best": imitate, "rwr": imitate}
    means |= {"reinforce:baseline=none": 9.0, "ipo:offline": 9.0}
    advice = one(made_up(means), "negative_gradient")
    assert advice.verdict == verdict and "reinforce" not in advice.text and "ipo" not in advice.text
    assert advice.figures["gain"] == pytest.approx(down - imitate, abs=0.01)
    alone = made_up({"dpo": 1.0, "sft:offline": 0.0})
    assert not [a for a in compare_advice.advise(alone) if a.about == "negative_gradient"]


@pytest.mark.parametrize(
    ("methods", "about", "verdict"),
    [
        ({"dpo:rounds=16": 0.5, "dpo": 0.1}, "staleness", "paid"),
        ({"dpo:rounds=2": 0.5, "dpo": 0.1}, "staleness", "cost"),
        ({"dpo:rounds=2": 0.3, "dpo": 0.299}, "staleness", "undecided"),
        ({"dpo": 0.1, "dpo:epochs=4": 0.5}, "reuse", "paid"),
        ({"dpo": 0.5, "dpo:epochs=4": 0.1}, "reuse", "cost"),
    ],
)
def test_staleness_and_reuse_where_nothing_else_differs(
    methods: dict[str, float], about: str, verdict: str
) -> None:
    advice = one(made_up({**methods, "ipo:rounds=4:epochs=8": 7.0, "dpo:beta=1": 5.0}), about)
    assert advice.verdict == verdict and "beta" not in advice.text and "ipo" not in advice.text


def pairs_of(relation: float, level: float) -> dict[str, Any]:
    """60 held-out pairs whose h_w falls (or rises) with the overlap of the two answers."""
    overlap = np.linspace(0.1, 0.9, 60)
    noise = np.random.default_rng(3).normal(0, 0.2, 60)
    h_w = level + relation * (overlap - 0.5) * 4 + noise
    rewards = {"dpo:online": np.stack([h_w, h_w - 2], axis=1)}
    rows = [
        {"seed": 1, "prompt": str(i), "overlap": o, "gap": -3.0, "tokens": 20} for i, o in enumerate(overlap)
    ]
    return {"rewards": rewards, "pairs": rows}


@pytest.mark.parametrize(
    ("relation", "level", "verdict", "said"),
    [
        (-1.0, -2.0, "fell_on_close_pairs", "the more so the closer the pair"),
        (1.0, -2.0, "fell_on_distant_pairs", "closeness is not the reason"),
        (0.0, -2.0, "fell", "because pairs are close is undecided"),
        (-1.0, 2.0, "rose", "h_w rose"),
        (-0.5, 0.0, "undecided", "Whether h_w falls is undecided"),
    ],
)
def test_close_pairs_and_the_fall_of_h_w(relation: float, level: float, verdict: str, said: str) -> None:
    advice = one(made_up({"dpo": 0.4, "best": 0.2}, **pairs_of(relation, level)), "close_pairs")
    assert advice.verdict == verdict and said in advice.text
    assert advice.figures["token_overlap"] == pytest.approx(0.5) and "0.3 nats a token" in advice.text
    if verdict.startswith("fell"):
        sign = advice.figures["overlap_with_h_w"]
        assert (sign > 0.2) - (sign < -0.2) == np.sign(relation)
    if relation < 0:
        assert advice.figures["h_w_closer_half"] < advice.figures["h_w_farther_half"]


def test_offline_methods_tell_of_held_out_pairs_before_online_ones() -> None:
    given = pairs_of(-1.0, -2.0)
    given["rewards"]["ipo:offline"] = -given["rewards"]["dpo:online"]
    advice = one(made_up({"dpo": 0.4, "ipo:offline": 0.2}, **given), "close_pairs")
    assert advice.verdict == "rose" and "over ipo:offline" in advice.text


@pytest.mark.parametrize(("gold", "verdict"), [(0.4, "real"), (-0.4, "hollow"), (0.001, "undecided")])
def test_a_judge_that_is_gamed_is_named(gold: float, verdict: str) -> None:
    found = made_up({"dpo": 0.5, "best": -0.5})
    by_gold = {"dpo:online": scores(gold, 5), "best:online": scores(-0.6, 6)}
    found = replace(found, scores=by_gold, measure="gold score")
    advice = one(found, "gold")
    assert advice.verdict == verdict and "dpo:online (judge +0.5" in advice.text and "best" not in advice.text
    assert not [a for a in compare_advice.advise(made_up({"dpo": 0.5, "best": 0.1})) if a.about == "gold"]


def test_the_overlap_of_two_answers() -> None:
    assert token_overlap([1, 2, 2], [2, 2, 1]) == 1 and token_overlap([1], [2]) == 0
    assert token_overlap([1, 1, 1, 2], [1, 1, 3, 4]) == 0.5
