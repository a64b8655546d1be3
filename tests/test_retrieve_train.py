"""`heedful retrieve train` from questions to a report, on a tiny writer of queries: every arm, refusals, resuming."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import searcher
import tiny
from crash_worker import child

from heedful import run as run_module
from heedful import stage as stage_module
from heedful.cli import main as heedful
from heedful.data.hops.world import World
from heedful.errors import HeedfulError, NothingToLearn
from heedful.policies.language import LanguagePolicy
from heedful.recipes import retrieve_demo, retrieve_train_learn, retrieve_train_plan
from heedful.recipes.retrieve_train import TRAINS, Config, preset, run
from heedful.recipes.retrieve_train_data import read_asked, split
from heedful.recipes.retrieve_writers import INSTRUCTION, QUERY
from heedful.run import open_run

pytest.importorskip("bm25s", reason="BM25 needs the extra retrieve")

CLOCKS = ("time", "tokens_per_s", "seconds")


@pytest.fixture(scope="module", autouse=True)
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No git, and a cache of its own for the index."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "commit", lambda: None)
        patch.setenv("HEEDFUL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train")
    searcher.write_files(folder)
    searcher.save_writer(folder / "writer")
    return folder


def config(place: Path, name: str, **changes: Any) -> Config:
    made = Config(
        questions=str(place / "train.jsonl"),
        eval_questions=str(place / "test.jsonl"),
        corpus=str(place / "corpus.jsonl"),
        out=str(place / name),
        model=str(place / "writer"),
        bootstrap_train=6,
        bootstrap_dev=6,
        candidates=3,
        demos=1,
        max_new_tokens=6,
        prompts=3,
        lora_rank=0,
        cd_learning_rate=3e-3,
        cd_epochs=8.0,
        learning_rate=1e-5,
        save_every=2,
        quiet=True,
        device="cpu",
        precision="fp32",
    )
    return replace(made, **changes)


def train(cfg: Config) -> dict[str, Any]:
    with open_run(cfg.out, cfg, seed=cfg.seed) as opened:
        return run(cfg, opened)


Whole = tuple[Config, dict[str, Any], list[tuple[str, list[str]]]]


@pytest.fixture(scope="module")
def whole(place: Path) -> Whole:
    """One run with everything, and the prompts that each stage of `fit` was given."""
    cfg, seen, fit = config(place, "whole"), [], retrieve_train_learn.fit
    tokenizer = LanguagePolicy.load(cfg.model, device="cpu").tokenizer

    def watched(stage: str, loss: Any, module: Any, rows: Any, *rest: Any, **more: Any) -> None:
        seen.append((stage, [tokenizer.decode(row["group"].prompt) for row in rows]))
        fit(stage, loss, module, rows, *rest, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieve_train_learn, "fit", watched)
        return cfg, train(cfg), seen


# ---- the whole job


def test_what_was_tried_with_demonstrations_is_learned_without(whole: Whole) -> None:
    cfg, result, _ = whole
    folder = Path(cfg.out)
    assert result["before_hop1_recall"] == result["before_hop2_recall"] / 2 == 0.25
    assert result["few_shot_hop2_recall"] >= 0.9 and result["imitation_hop2_recall"] >= 0.8
    assert result["hop1_recall"] > 0.4 and result["hop2_recall"] >= 0.75
    assert result["change_in_hop2_recall"] >= 0.25
    assert result["bootstrap_scores"][0] < result["bootstrap_scores"][1]
    assert result["tried_pairs"] == result["tried_targets"] > 10  # two levels a question: one pair each
    assert (result["hops"], result["train_questions"], result["held_out_questions"]) == (2, 18, 6)
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    first = next(row for row in metrics if row["stage"] == "part0/prefer")
    # the model after imitation is start and reference: no margin yet, of 1 / (2 beta) = 10 nats that are wanted
    assert first["loss"] == pytest.approx(100, rel=1e-4) and first["margin"] == pytest.approx(0, abs=1e-4)
    assert metrics[-1]["stage"] == "part0/prefer" and metrics[-1]["margin"] > 0.005
    assert result["steps"] == sum("loss" in row for row in metrics)


def test_no_hop_brings_what_was_found_before(whole: Whole) -> None:
    cfg, result, _ = whole
    assert (cfg.repeats, result["repeats"]) == ("skip", "skip")
    for stage in ("before", "after", "few-shot"):
        first, second = (
            [json.loads(line) for line in (Path(cfg.out) / stage / f"hop{h}.jsonl").read_text().splitlines()]
            for h in (1, 2)
        )
        brought = 0
        for one, two in zip(first, second, strict=True):
            ids = [{hit["title"] for hit in row["hits"]} for row in (one, two)]
            assert not ids[0] & ids[1]
            brought += len(ids[1])
        assert brought


def test_no_demonstration_reaches_a_training_prompt(whole: Whole) -> None:
    cfg, _, seen = whole
    demos = json.loads((Path(cfg.out) / "bootstrap/prompts.json").read_text())["chosen"][1]["demos"]
    assert demos and [stage for stage, _ in seen] == ["part0/imitate", "part0/prefer"]
    one = INSTRUCTION.split()
    for _, prompts in seen:
        assert len(prompts) > 10
        for prompt in prompts:
            words = prompt.split()
            assert words[1 : 1 + len(one)] == one or words[: len(one)] == one
            assert prompt.count(QUERY) == 1 and prompt.endswith(QUERY)
            assert not any(" ".join(demo.split()) in prompt for demo in demos)
    # while the sampling prompts do hold them
    replies = (Path(cfg.out) / "tried0/prompt1/hop1-replies.jsonl").read_text().splitlines()
    assert all(demos[0] in json.loads(line)["prompt"] for line in replies)


def test_the_report_tells_hops_costs_and_queries_side_by_side(whole: Whole) -> None:
    cfg, result, _ = whole
    folder = Path(cfg.out)
    report = json.loads((folder / "report.json").read_text())
    tables = {table["title"]: table for table in report["tables"]}
    writers = ["question", "title", "before", "few-shot", "imitation", "after"]
    assert [row[0] for row in tables["All writers"]["rows"]] == writers
    assert [row[5] for row in tables["All writers"]["rows"]][:2] == ["–", "–"]  # a rule reads no tokens
    assert result["question_hop2_recall"] == 0.5  # the colour's own passage, twice
    assert 'The rule "question" has 50.0%; this writer adds +' in " ".join(report["summary"])
    hops = [(row[0], row[1]) for row in tables["By hop"]["rows"]]
    assert hops == [("after", 1), ("after", 2), ("before", 1), ("before", 2)]
    assert [row[:2] for row in tables["What was tried"]["rows"]] == [[1, 1], [1, 2]]
    assert len(tables["Prompts"]["rows"]) == 3
    assert {row["name"] for row in report["comparisons"]} >= {"recall after hop 1", "recall after hop 2"}
    wins = [s for s in report["samples"] if s["after"]["score"] > s["before"]["score"]]
    assert (
        len(wins) >= 3 and "hop 2: " in wins[0]["after"]["text"] and searcher.BAD in wins[0]["before"]["text"]
    )
    assert result["training_prompt_tokens"] > result["training_completion_tokens"] > 0
    assert result["training_searches"] <= result["training_queries"] == 18 * 2 * 3
    assert result["completion_tokens"] > 0 and "imitation" in report["summary"][-2]
    assert len((folder / "heldout.jsonl").read_text().splitlines()) == 6
    assert (folder / "report.html").exists()
    (warning,) = report["warnings"]
    assert warning.startswith("6 of 6 held-out questions need a passage that a training question needs too")


def test_the_trained_run_is_scored_alike_by_eval(whole: Whole, capsys: pytest.CaptureFixture[str]) -> None:
    cfg, result, _ = whole
    words = (
        f"retrieve eval {cfg.out} --questions {cfg.eval_questions} --corpus {cfg.corpus} --json --device cpu"
    )
    words += f" --out {cfg.out}-eval --max-new-tokens 6 --precision fp32 --against {cfg.model}"
    assert heedful(words.split()) == 0
    told = json.loads(capsys.readouterr().out)
    for key in ("hop1_recall", "hop2_recall", "hop2_ap"):
        assert told[key] == result[key] and told[f"against_{key}"] == result[f"before_{key}"]


ARMS: dict[str, dict[str, Any]] = {
    "base": {"method": "base"},
    "few-shot": {"method": "few_shot"},
    "few-shot-all": {"method": "few_shot_all"},
    "cd": {"method": "cd"},
    "sft-all": {"method": "sft_all"},
    "iterative": {"iterations": 2},
    "dpo": {"loss": "dpo"},
    "per-token": {"loss": "ipo_per_token"},
    "recall": {"reward": "recall"},
    "all-pairs": {"pairs": "all"},
    "temperature": {"diversity": "temperature", "temperature": 4.0, "prompts": 6},
    "answer": {"reward": "answer-f1", "reader": "writer", "temperature": 1.0, "samples": 2},
}


def test_every_arm_runs_and_shares_what_depends_on_the_start_alone(place: Path) -> None:
    shared = place / "shared"
    for arm in ARMS:
        with pytest.MonkeyPatch.context() as patch:
            _arm_runs(place, shared, arm, patch)
    names = sorted(p.name.split("-")[0] for p in shared.iterdir() if p.is_dir() and p.name != "calls")
    # before: all arms and the one with a reader; bootstraps: of all hops, of the first, by recall, by answer
    assert names.count("before") == 2 and names.count("bootstrap") >= 4
    assert names.count("tried0") == 5  # ap (cd, dpo, ... alike), iterative, recall, temperature, answer


def _arm_runs(place: Path, shared: Path, arm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {**ARMS[arm], "cd_epochs": 1.0, "epochs": 0.5, "measure": ()}
    if changes.get("reader"):
        changes["reader"] = str(place / changes["reader"])
        # what it would read is beyond a writer of queries: a passage of the metal is answered by its name
        from heedful.recipes import retrieve_train_stages

        monkeypatch.setattr(retrieve_train_stages, "open_reader", lambda *_: _reader)
    cfg = config(place, arm, **changes)
    with open_run(shared, {}, seed=0) as common, open_run(cfg.out, cfg, seed=0) as opened:
        result = run(cfg, opened, shared=common)
    trains = cfg.method in TRAINS
    assert (Path(cfg.out) / "model").exists() == trains
    assert ("tried_pairs" in result) == trains and ("before_hop2_recall" in result) == (arm != "base")
    assert 0 <= result["hop2_recall"] <= 1
    stages = sorted(
        str(f.parent.parent.relative_to(cfg.out)) for f in Path(cfg.out).rglob("final/model.safetensors")
    )
    parts = range(cfg.iterations) if trains else ()
    kinds = ("imitate", "prefer") if cfg.method == "leret" else ("imitate",)
    assert stages == [f"part{p}/{kind}" for p in parts for kind in kinds]
    if arm == "few-shot":
        assert result["bootstrap_hops"] == "first" and "bootstrap_scores" in result
    if arm == "sft-all":
        rows = json.loads(next(shared.glob("tried0-*/hop1.jsonl")).read_text().splitlines()[0])
        assert rows["queries"] and result["steps"] * cfg.cd_batch_size > result["tried_targets"]
        assert result["steps"] == -(-_usable(result) // cfg.cd_batch_size)
    if arm == "answer":
        assert result["hop2_recall"] >= 0 and "answer_f1" in result
    if arm == "iterative":
        assert {p.name for p in Path(cfg.out).glob("tried*")} == {
            "tried1"
        }  # the first part depends on the start alone


def _usable(result: dict[str, Any]) -> int:
    """Queries that are neither blank nor echoes nor repeated: what `sft_all` imitates, once."""
    left_out = ("blank", "echoes", "repeated", "unknown")
    return result["tried_queries"] - sum(result[f"tried_{name}"] for name in left_out)


def _reader(turns: Any) -> list[str]:
    return [next((h.passage.id for h in t.context if h.passage.text.endswith("metal")), "") for t in turns]


# ---- rules

UNTAUGHT: dict[str, Any] = {"method": "cd", "cd_learning_rate": 0.0, "cd_epochs": 1.0}
"""Of a run that leaves its model as it was."""


def test_rules_teach_a_writer_that_comes_upon_nothing_of_its_own(place: Path) -> None:
    cfg = config(
        place,
        "rules",
        diversity="temperature",
        temperature=1e-4,
        prompts=1,
        max_new_tokens=10,
        rules=("question", "passage"),
        measure=("passage",),
    )
    result = train(cfg)
    assert result["tried_queries"] == 18 * 2 * 3 and result["training_completion_tokens"] < 18 * 2 * 10
    for hop in (1, 2):
        for row in map(json.loads, (Path(cfg.out) / f"tried0/hop{hop}.jsonl").read_text().splitlines()):
            own, asked, passage = row["queries"]
            colour = asked.split()[1]
            assert own in (colour, searcher.LINKS[colour], searcher.BAD)
            assert passage.startswith(asked) and (passage == asked) == (hop == 1)
    assert result["passage_hop2_recall"] == 1 and result["hop2_recall"] > result["before_hop2_recall"]


def test_a_rule_that_finds_more_than_the_writer_is_a_warning(place: Path) -> None:
    cfg = config(place, "beaten", method="base", measure=("passage",))
    result = train(cfg)
    assert result["hop2_recall"] < result["passage_hop2_recall"]
    told = json.loads((Path(cfg.out) / "report.json").read_text())["warnings"]
    assert 'The rule "passage" beats this writer: 100.0% against 50.0%' in " ".join(told)
    assert "--rules passage" in " ".join(told)
    learned = config(place, "beaten-too", **UNTAUGHT, rules=("passage",), measure=("passage",))
    assert train(learned)["hop2_recall"] < 1
    told = json.loads((Path(learned.out) / "report.json").read_text())["warnings"]
    assert "Search with it, which costs no model." in " ".join(told) and "--rules" not in " ".join(told)


# ---- refusals


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"questions": ""}, "--questions is needed"),
        ({"corpus": ""}, "name what is searched"),
        ({"reward": "answer-f1"}, "name a model with --reader"),
        ({"prompts": 1}, "at least 2"),
        ({"rules": ("title", "title")}, "names a rule twice"),
        ({"rules": ("title",), "method": "base"}, "--rules has no meaning with base"),
        ({"prompts": 6, "candidates": 2}, "at least 4 --candidates"),
        ({"diversity": "temperature", "temperature": 0.0}, "above 0"),
        ({"method": "cd", "loss": "dpo"}, "--loss has no meaning with cd"),
        ({"method": "base", "beta": 1.0}, "--beta has no meaning with base"),
        ({"model": "question"}, "cannot be trained"),
        ({"reader": "title"}, "a rule cannot read"),
        ({"merged": True}, "--merged"),
        ({"beta": 0.0}, "--beta must be a number above 0"),
        ({"epochs": float("nan")}, "--epochs"),
        ({"eval_share": 1.0}, "--eval-share"),
        ({"temperature": float("nan")}, "--temperature"),
    ],
)
def test_options_without_meaning_are_refused(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(HeedfulError, match=told):
        retrieve_train_plan.settle(config(tmp_path, "out", **changes))


def test_files_that_cannot_be_learned_from_are_refused_before_there_is_a_run(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(told: str, **files: Any) -> None:
        cfg = config(place, "refused", **files)
        with pytest.raises(HeedfulError, match=told):
            read_asked(cfg)

    refused("6 of its questions are in .* as well", questions=str(place / "test.jsonl"))
    answers = tmp_path / "answers.jsonl"
    answers.write_text('{"question": "who", "answer": "x"}\n{"question": "what", "answer": "y"}\n')
    refused("no question has gold titles", questions=str(answers))
    gold = tmp_path / "gold.jsonl"
    gold.write_text(
        '{"question": "who", "gold_titles": ["Red"]}\n{"question": "what", "gold_titles": ["Gold"]}\n'
    )
    refused("1 of 2 gold titles are not in the corpus", questions=str(gold))
    refused("leaves nothing to train or test on", questions=str(gold), eval_questions="")
    words = f"retrieve train --questions {gold} --corpus {place}/corpus.jsonl --out {tmp_path}/out --quiet"
    assert heedful(words.split()) == 1 and "heedful retrieve train: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    asked = read_asked(config(place, "shared-gold"))
    assert asked.facts["held_out_with_gold_of_training"] == 6


def test_a_share_is_held_out_where_no_file_is_given() -> None:
    questions = searcher.questions()
    train, test = split(questions, 0.25, 200, seed=1)
    assert len(test) == 6 and len(train) == 18 and not set(train) & set(test)
    assert [q for q in questions if q in set(train)] == train
    assert split(questions, 0.25, 4, seed=1)[1] != split(questions, 0.25, 4, seed=2)[1]


def test_nothing_to_compare_is_told(place: Path) -> None:
    cfg = config(place, "alike", diversity="temperature", temperature=1e-4, prompts=2)
    with pytest.raises(NothingToLearn, match="none with queries of different worth"):
        train(cfg)


def test_the_plan_costs_nothing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = f"retrieve train --questions {place}/train.jsonl --corpus {place}/corpus.jsonl --out {place}/dry"
    assert heedful([*words.split(), "--model", str(place / "writer"), "--dry-run"]) == 0
    small = capsys.readouterr().out
    assert heedful([*words.split(), "--preset", "paper", "--dry-run"]) == 0
    large = capsys.readouterr().out
    assert "14 questions to learn from, 4 held out, 2 hops" in small and "searches " in small
    assert "8,030.3 M parameters" in large and "all) by leret" in large.replace("(all)", "all)")
    assert not (place / "dry").exists() and preset("paper").lora_rank == 0
    with pytest.raises(HeedfulError, match="neither laptop nor paper"):
        preset("moon")


# ---- the demo


def test_the_demo_trains_on_a_world_whose_test_questions_need_other_passages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from heedful.recipes import retrieve_train

    given: list[Config] = []
    monkeypatch.setattr(retrieve_train, "main", lambda cfg: given.append(cfg) or 0)
    words = ["retrieve", "demo", "--out", str(tmp_path / "demo"), "--entities", "240", "--quiet"]
    assert heedful(words) == 0 and heedful(words) == 0
    cfg = given[0]
    assert given == [cfg, cfg] and retrieve_train_plan.problems(cfg) == []
    asked = read_asked(cfg)
    assert (len(asked.train), len(asked.test), asked.hops) == (64, 40, 2)
    assert asked.facts["held_out_with_gold_of_training"] == 0 and asked.facts["passages"] == len(
        World(0, 240)
    )
    assert cfg.out == str(tmp_path / "demo") and cfg.bootstrap_train + cfg.bootstrap_dev < 64
    assert heedful([*words, "--train", "80"]) == 1 and "train" in capsys.readouterr().err
    assert heedful(["retrieve", "demo", "--train", "2"]) == 1 and "at least 4" in capsys.readouterr().err
    assert retrieve_demo.Demo().model == "smollm2"


# ---- kills


def test_a_run_killed_while_sampling_and_while_training_ends_byte_identical(place: Path) -> None:
    tiny.needs_forks()
    options: dict[str, Any] = {"cd_epochs": 1.0, "cd_batch_size": 2, "limit": 8, "measure": ()}
    options |= {"save_every": 1, "bootstrap_dev": 2, "candidates": 1}
    wanted = config(place, "undisturbed", **options)
    assert child(lambda: train(wanted) and None) == 0
    want = left_behind(Path(wanted.out))
    cfg = config(place, "killed", **options)

    def dies(module: Any, name: str, at: int) -> Callable[[], None]:
        real, calls = getattr(module, name), []

        def work() -> None:
            def counted(*args: Any, **more: Any) -> Any:
                calls.append(1)
                if len(calls) == at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **more)

            setattr(module, name, counted)
            train(cfg)

        return work

    found = []
    # in the bootstrap, while trying queries for the first hop and for the second; twice in imitation, in preferences
    for module, name, at in (
        *((run_module, "write_file", at) for at in (25, 22, 8)),
        *((stage_module, "save_checkpoint", at) for at in (2, 2, 3)),
    ):
        assert child(dies(module, name, at)) == -signal.SIGKILL
        found.append({str(f.relative_to(cfg.out)) for f in Path(cfg.out).rglob("*")})
    first, second, third, fourth, fifth, sixth = found
    assert "bootstrap/traces0.json" in first and "bootstrap/prompts.json" not in first
    assert "tried0" in second and "tried0/hop1.jsonl" not in second
    assert "tried0/hop1.jsonl" in third and "tried0/hop2.jsonl" not in third
    assert "part0/imitate/step-00000001" in fourth and "part0/imitate/final" not in fourth
    assert "part0/imitate/step-00000002" in fifth and "part0/imitate/final" not in fifth
    assert "part0/prefer/step-00000001" in sixth and "part0/prefer/final" not in sixth
    assert child(lambda: train(cfg) and None) == 0
    assert left_behind(Path(cfg.out)) == want


def left_behind(folder: Path) -> dict[str, Any]:
    """What must be the same after any crash."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    kept = [f for f in sorted(folder.rglob("*")) if f.is_file()]
    same = [f for f in kept if f.suffix in (".safetensors", ".jsonl") and f.name != "metrics.jsonl"]
    texts = [folder / "result.json", folder / "report.json", *folder.glob("bootstrap/*.json")]
    return {
        "files": [str(f.relative_to(folder)) for f in kept],
        "bytes": {str(f.relative_to(folder)): f.read_bytes() for f in [*same, *texts]},
        "metrics": [{k: v for k, v in row.items() if k not in CLOCKS} for row in rows],
    }
