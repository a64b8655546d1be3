"""`heedful critique` from files to report on a tiny model: arms, budget, roles of every kind, refusals, resuming."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
from scripted import fences, reply
from test_remote import Reply, Server, asked, choices
from transformers import LlamaConfig

from heedful import run as run_module
from heedful.cli import main as heedful
from heedful.cli import parse
from heedful.data.rows import prompt_key
from heedful.errors import HeedfulError
from heedful.evals.intervals import Interval
from heedful.policies import remote
from heedful.policies.calls import usage
from heedful.recipes import critique, critique_arms, critique_data, critique_plan, critique_report
from heedful.recipes.critique_arms import ARMS, FULL
from heedful.recipes.critique_roles import file_of, kind_of
from heedful.run import Run, open_run

WORDS = ["red", "green", "blue", "egg", "water", "France", "rainbow", "colour", "capital", "answer"]
PROMPTS = [f"What is {a} {b}?" for a in WORDS[:6] for b in WORDS[5:]]
HELD = [f"Name {a}." for a in WORDS if a != "egg"]
JUDGES = """
def eggs(completions, **columns):
    return [float("egg" in text) for text in completions]

def short(completions, **columns):
    return [-float(len(text)) for text in completions]

def same(completions, **columns):
    return [1.0] * len(completions)

def silent(completions, **columns):
    return [None] * len(completions)
"""


@pytest.fixture(autouse=True)
def no_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "commit", lambda: None)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def answers_to(prompts: list[str]) -> list[dict[str, Any]]:
    weak, strong = "I do not know, sorry!", "egg, egg and egg."
    made = []
    for prompt in prompts:
        made.append({"prompt": prompt, "response": weak, "generator": "weak"})
        made.append({"prompt": prompt, "response": strong, "generator": "strong"})
    return made


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    tiny.assistant(folder / "start", PROMPTS[::3])
    (folder / "judges.py").write_text(JUDGES)
    write(folder / "answers.jsonl", answers_to(PROMPTS))
    write(folder / "prompts.jsonl", [{"prompt": prompt} for prompt in PROMPTS])
    write(folder / "held.jsonl", [{"prompt": prompt} for prompt in HELD])
    return folder


def arguments(place: Path, out: Path, *more: str, **roles: str) -> list[str]:
    """A run that takes seconds; roles: those that are not the usual ones, by option."""
    named = {
        "teacher": f"{place}/answers.jsonl#weak",
        "critic": f"{place}/judges.py:short",
        "critic_answers": f"{place}/answers.jsonl#strong",
        "evaluator": f"{place}/judges.py:eggs",
    } | roles
    words = [word for name, spec in named.items() if spec for word in (f"--{name.replace('_', '-')}", spec)]
    shared = (
        f"--model {place}/start --out {out} --eval-prompts {place}/held.jsonl --precision fp32 --device cpu "
        "--lora-rank 0 --learning-rate 1e-2 --feedback-learning-rate 1e-3 --epochs 6 --start-epochs 6 "
        "--feedback-epochs 3 --top-p 1 --max-new-tokens 20 --train-tokens 24 --temperature 1.5 --quiet"
    )
    return ["critique", *shared.split(), *words, *more]


def begun(words: list[str], arms: tuple[str, ...] = ()) -> dict[str, Any] | None:
    """What the command does up to these arms."""
    cfg = critique.settle(parse("critique", words[1:]))
    volatile = (*critique.VOLATILE, *critique_plan.still_open(cfg))
    with open_run(cfg.out, cfg, seed=0, volatile=volatile) as opened:
        return critique.run(cfg, opened, arms=arms or None, until=None if arms else time.monotonic() - 1)


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert heedful(words) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


@pytest.fixture(scope="module")
def whole(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that tests look at."""
    out = tmp_path_factory.mktemp("whole") / "run"
    run_module.commit = lambda: None  # a fixture of one module: the others have their own
    assert heedful(arguments(place, out)) == 0
    return out


# ---- what it finds


def test_imitating_a_critic_whose_words_the_evaluator_wants_is_found_better(whole: Path) -> None:
    result = json.loads((whole / "result.json").read_text())
    assert result["critic_sft_win"] > 0.75 > result["teacher_sft_win"]
    assert result["better"] == "imitation" and result["critic_sft_minus_feedback_low"] > 0
    assert result["critic_sft_win_low"] <= result["critic_sft_win"] <= result["critic_sft_win_high"]
    for arm in ARMS:
        assert {f"{arm}_win", f"{arm}_lc_win", f"{arm}_words"} <= set(result)
    report = json.loads((whole / "report.json").read_text())
    first = report["summary"][0]
    assert first.startswith(
        "With this teacher, critic and base, imitation of the critic is as good as AI feedback"
    )
    page = (whole / "report.html").read_text()
    assert "imitation of the critic is as good as AI feedback" in page and "<script" not in page


def test_every_full_arm_uses_every_training_prompt_once(whole: Path) -> None:
    result = json.loads((whole / "result.json").read_text())
    assert result["budget_prompts"] == len(PROMPTS)
    assert {result[f"{arm}_prompts"] for arm in FULL} == {len(PROMPTS)}
    assert result["teacher_start_prompts"] == result["critic_start_prompts"] == result["start_prompts"] == 3
    asked_about = {row["prompt"] for row in rows(whole / "arms/feedback/samples.jsonl")}
    assert len(asked_about) == len(PROMPTS) - 3 and asked_about < set(PROMPTS)
    held = {row["prompt"] for row in rows(whole / "arms/critic_sft/answers.jsonl")}
    assert held == set(HELD)
    facts = json.loads((whole / "report.json").read_text())["data"]
    assert facts["budget: imitation of the critic"] == "30 answers imitated"
    assert facts["budget: teacher start, then AI feedback"].startswith(
        "3 answers imitated, then verdicts on 27"
    )


def test_ai_feedback_learns_what_the_critic_says(whole: Path) -> None:
    kept = rows(whole / "arms/feedback/rows.jsonl")
    assert kept and all(len(row["chosen"]) < len(row["rejected"]) for row in kept)
    counts = json.loads((whole / "arms/feedback/verdicts.json").read_text())["counts"]
    result = json.loads((whole / "result.json").read_text())
    assert result["feedback_pairs"] == len(kept) == result["feedback_rows"]
    assert result["feedback_critic_ties"] == counts["ties"] == result["feedback_ties"]
    logged = [row for row in rows(whole / "metrics.jsonl") if row["stage"] == "arms/feedback/dpo"]
    # the rate of the first step is 0: the policy is still its reference, the started model
    assert logged[0]["h_w"] == pytest.approx(0, abs=1e-3) == logged[0]["h_l"]
    assert sum(row["margin"] for row in logged[-3:]) > 0 and len(logged) == 12


def test_ai_feedback_samples_from_the_started_model(whole: Path) -> None:
    from heedful.policies.language import Completion, LanguagePolicy

    how: dict[str, Any] = {"precision": "fp32", "device": "cpu"}
    started = LanguagePolicy.load(str(whole / "arms/teacher_start/model"), **how)
    for row in rows(whole / "arms/feedback/samples.jsonl")[:5]:
        drawn = [Completion.from_row(completion) for completion in row["completions"]]
        (logps,) = started.sequence_logps([started.group(row["prompt"], drawn)])
        assert logps == pytest.approx([completion.logp for completion in drawn], abs=1e-2)


def test_the_folder_loads_as_the_best_arm_and_transformers_loads_each(whole: Path) -> None:
    from heedful.policies.language import LanguagePolicy

    result = json.loads((whole / "result.json").read_text())
    best = max(ARMS, key=lambda arm: result[f"{arm}_win"])
    assert os.readlink(whole / "model") == f"arms/{best}/model"
    LanguagePolicy.load(str(whole), precision="fp32", device="cpu")
    for arm in ARMS:
        assert (whole / "arms" / arm / "model/README.md").exists()


def test_another_evaluator_looks_at_the_same_answers(
    whole: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = json.loads((whole / "result.json").read_text())
    models = {f: f.stat().st_mtime_ns for f in (whole / "arms").rglob("model*.safetensors")}
    again = arguments(place, whole, evaluator=f"{place}/judges.py:short")
    assert heedful([*again, "--json"]) == 0
    after = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {f: f.stat().st_mtime_ns for f in models} == models
    assert after["critic_sft_win"] != before["critic_sft_win"]
    assert len(list((whole / "evaluations").iterdir())) == 2
    warned = json.loads((whole / "report.json").read_text())["warnings"]
    assert any(text.startswith("Critic and evaluator are the same") for text in warned)
    assert heedful(arguments(place, whole)) == 0
    assert json.loads((whole / "result.json").read_text()) == before


# ---- roles of every kind


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        ("https://host/v1", "server"),
        ("answers.jsonl", "file"),
        ("answers.jsonl.gz#gpt4", "file"),
        ("hub:owner/name", "file"),
        ("rule:length<40w", "function"),
        ("judge.py:f", "function"),
        ("smollm2", "model"),
        ("runs/x/model", "model"),
    ],
)
def test_a_role_is_known_by_its_text(spec: str, kind: str) -> None:
    assert kind_of(spec) == kind
    assert file_of("a/b.jsonl#x#y") == ("a/b.jsonl#x", "y") or file_of("a.jsonl#x") == ("a.jsonl", "x")


def test_existing_verdicts_are_a_critic(place: Path, tmp_path: Path) -> None:
    verdicts = write(
        tmp_path / "verdicts.jsonl",
        [{"prompt": p, "chosen": "egg, egg and egg.", "rejected": "I do not know."} for p in PROMPTS[:20]],
    )
    words = arguments(place, tmp_path / "run", critic=str(verdicts))
    assert heedful(words) == 0
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["feedback_pairs"] + result["start_prompts"] >= 18
    lacking = result["feedback_prompts_without_verdict"]
    assert lacking == 27 - result["feedback_pairs"] > 0
    assert result["feedback_prompts"] == 30 - lacking < result["teacher_sft_prompts"] == 30
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert any(text.startswith("The budgets are not equal") for text in report["warnings"])
    assert not any("used the same 30 prompts" in text for text in report["summary"])
    assert not (tmp_path / "run/arms/feedback/samples.jsonl").exists()


def test_a_file_that_evaluates_says_which_verdicts_it_lacks_and_then_goes_on(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = write(tmp_path / "known.jsonl", [{"prompt": "Other?", "chosen": "a", "rejected": "b"}])
    run = tmp_path / "run"
    words = arguments(place, run, evaluator=str(known))
    said = refused(words, capsys)
    (lacking,) = run.glob("evaluations/*/missing.jsonl")
    assert str(lacking) in said and "run the same command again" in said
    judged = [
        {"prompt": r["prompt"], "chosen": r["second"], "rejected": r["first"]}
        if "egg" in r["second"]
        else {"prompt": r["prompt"], "chosen": r["first"], "rejected": r["second"]}
        for r in rows(lacking)
    ]
    write(known, list({json.dumps(row): row for row in [*rows(known), *judged]}.values()))
    assert heedful(words) == 0
    assert json.loads((run / "result.json").read_text())["critic_sft_win"] > 0.6


def serve(answer: Callable[[str], str]) -> Server:
    return Server(lambda path, body: Reply({"choices": choices(path, [answer(asked(body))])}))


def test_servers_teach_criticise_and_evaluate(place: Path, tmp_path: Path) -> None:
    def model(question: str) -> str:
        found = fences(question)
        if len(found) < 3:
            return f"{question[:20]} egg."
        a, b = found[-2:]
        return reply("TIE" if len(a) == len(b) else "A" if len(a) < len(b) else "B")

    server = serve(model)
    words = arguments(
        place,
        tmp_path / "run",
        *("--prompts", f"{place}/prompts.jsonl", "--teacher-model", "weak", "--critic-model", "strong"),
        *("--evaluator-model", "other", "--baseline", server.url, "--baseline-model", "base"),
        teacher=server.url,
        critic=server.url,
        critic_answers="",
        evaluator=server.url,
    )
    assert heedful(words) == 0
    asked_of = {body["model"] for body in server.bodies()}
    assert asked_of == {"weak", "strong", "other", "base"}
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert any(name.startswith("calls: critic (strong)") for name in report["feedback"])
    before = len(server.requests)
    (tmp_path / "run/result.json").unlink()
    assert heedful(words) == 0 and len(server.requests) == before


# ---- what goes wrong


def test_a_server_that_is_not_there(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hasty(remote.RemotePolicy):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options, retries=0)

    monkeypatch.setattr(remote, "RemotePolicy", Hasty)
    words = arguments(
        place, tmp_path / "run", "--critic-model", "gpt", critic="http://127.0.0.1:9", critic_answers=""
    )
    said = refused(words, capsys)
    assert "http://127.0.0.1:9" in said and "no answer" in said and "the same command" in said
    assert (tmp_path / "run/answers/teacher.jsonl").exists()  # what was there already is kept


def test_a_critic_that_answers_nonsense_is_found_before_anything_is_learned(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server, run = serve(lambda question: "Bananas are yellow."), tmp_path / "run"
    words = arguments(place, run, "--critic-model", "gpt", critic=server.url)
    said = refused(words, capsys)
    assert "the critic gpt at" in said and "Bananas are yellow." in said and "nothing was learned yet" in said
    assert not (run / "arms").exists() and (run / "answers/critic_answers.jsonl").exists()
    before = (run / "answers/teacher.jsonl").read_bytes()
    assert begun(arguments(place, run)) is None  # the same folder goes on with a better critic
    assert (run / "answers/teacher.jsonl").read_bytes() == before


def test_verdicts_that_are_all_ties_stop_the_arm_and_keep_the_rest(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    said = refused(arguments(place, run, critic=f"{place}/judges.py:same"), capsys)
    assert "27 ties" in said and "teacher start, then AI feedback" in said and str(run) in said
    kept = run / "arms/teacher_start/sft/final/model.safetensors"
    before = kept.stat().st_mtime_ns
    assert heedful(arguments(place, run)) == 0
    assert kept.stat().st_mtime_ns == before
    changed = refused(arguments(place, run, critic=f"{place}/judges.py:eggs"), capsys)
    assert "critic" in changed and "Use the old settings" in changed


def test_judges_without_an_opinion(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for role in ("critic", "evaluator"):
        said = refused(arguments(place, tmp_path / role, **{role: f"{place}/judges.py:silent"}), capsys)
        assert f"the {role} " in said and "without a score" in said


def test_a_teacher_without_some_answers(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = {PROMPTS[4], PROMPTS[9]}
    some = [row for row in answers_to(PROMPTS) if row["prompt"] not in gone or row["generator"] == "strong"]
    teacher = write(tmp_path / "some.jsonl", some)
    run, more = tmp_path / "run", ("--prompts", f"{place}/prompts.jsonl")
    words = arguments(place, run, *more, teacher=f"{teacher}#weak")
    said = refused(words, capsys)
    assert "has no answer to 2 of 30 training prompts" in said and repr(PROMPTS[4]) in said
    assert "--drop-missing" in said
    dropped = arguments(place, tmp_path / "dropped", *more, "--drop-missing", teacher=f"{teacher}#weak")
    result = begun(dropped, ("critic_sft", "feedback"))
    assert result is not None and result["critic_sft_prompts"] == result["feedback_prompts"] == 28
    write(teacher, answers_to(PROMPTS))
    assert begun(words) is None
    assert len(rows(run / "answers/teacher.jsonl")) == 30
    write(teacher, [{**row, "response": row["response"] + "!"} for row in answers_to(PROMPTS)])
    said = refused(words, capsys)
    assert "teacher is not what it was" in said


def test_a_file_of_several_generators_must_say_whose(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(arguments(place, tmp_path / "a", teacher=f"{place}/answers.jsonl"), capsys)
    assert "several generators" in said and "weak, strong" in said
    said = refused(arguments(place, tmp_path / "b", teacher=f"{place}/answers.jsonl#gpt4"), capsys)
    assert "no answers of 'gpt4'" in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"critic_answers": ""}, "writes no answers"),
        ({"teacher": ""}, "give --teacher"),
        ({"teacher": "smollm2"}, "give --prompts FILE"),
        ({"evaluator": "http://host"}, "name the model on it with --evaluator-model"),
        ({"critic_model": "x"}, "--critic-model is the name of a model on a server"),
        ({"baseline_model": "x"}, "--baseline-model has no meaning without --baseline URL"),
        ({"teacher": "judges.py:f"}, "judges answers and writes none"),
        ({"critic": "none.jsonl"}, "there is no file none.jsonl"),
        ({"n": 1}, "--n must be at least 2"),
        ({"start_share": 1.0}, "--start-share must be between 0 and 1"),
        ({"beta": 0.0}, "--beta must be a number above 0"),
        ({"feedback_learning_rate": float("nan")}, "--feedback-learning-rate must be a number"),
    ],
)
def test_what_does_not_go_together_is_refused(change: dict[str, Any], said: str, place: Path) -> None:
    fine = critique.Config(
        teacher=f"{place}/answers.jsonl",
        critic=f"{place}/judges.py:short",
        critic_answers=f"{place}/answers.jsonl",
        evaluator=f"{place}/judges.py:eggs",
    )
    assert critique_plan.problems(fine) == []
    with pytest.raises(HeedfulError, match=said):
        critique.settle(replace(fine, **change))


def test_unequal_budgets_are_refused() -> None:
    with pytest.raises(HeedfulError, match="equal budget"):
        critique_data.check_budget({"a": ["x", "y"], "b": ["x"]})
    with pytest.raises(HeedfulError, match="equal budget"):
        critique_data.check_budget({"a": ["x", "x"], "b": ["x", "x"]})
    critique_data.check_budget({"a": ["x", "y"], "b": ["y", "x"]})


# ---- plans, presets, words


def test_the_plan_shows_roles_and_budget_and_runs_nothing(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert heedful([*arguments(place, tmp_path / "run"), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "budget: 30 prompts for each of" in said and "3 answers, then verdicts on 27 prompts" in said
    assert "54 verdicts of the critic" in said and not (tmp_path / "run").exists()


def test_presets_are_known_by_name() -> None:
    assert critique.preset("laptop") == critique.Config()
    paper = critique.preset("paper")
    assert (paper.beta, paper.learning_rate, paper.feedback_learning_rate) == (0.05, 1e-6, 1e-7)
    assert (paper.start_epochs, paper.epochs, paper.feedback_epochs) == (9, 6, 3)
    with pytest.raises(HeedfulError, match="neither laptop nor paper"):
        critique.preset("desktop")


@pytest.mark.parametrize(
    ("gap", "word", "text"),
    [
        (Interval(0.2, 0.1, 0.3, 50), "imitation", "is as good as AI feedback, and better"),
        (Interval(-0.2, -0.3, -0.1, 50), "feedback", "is not as good as AI feedback"),
        (Interval(0.1, -0.1, 0.3, 50), "undecided", "do not decide whether"),
        (Interval(0.1, float("nan"), float("nan"), 1), "undecided", "do not decide whether"),
    ],
)
def test_the_sentence_follows_the_interval(gap: Interval, word: str, text: str) -> None:
    from heedful.recipes.critique_eval import Measured

    measured = Measured(gaps={("feedback", "critic_sft"): (gap, gap)})
    assert critique_report.decision(gap) == word
    assert text in critique_report.verdict(measured, 50)


# ---- stopping and going on


def finished(folder: Path) -> dict[str, bytes]:
    kinds = ("model.safetensors", "adapter_model.safetensors", "answers.jsonl", "rows.jsonl", "result.json")
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.name in kinds}


def test_a_run_stopped_between_any_two_files_ends_as_if_it_had_not_been(
    whole: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, written = tmp_path / "run", 0
    write_file = run_module.write_file

    class Killed(BaseException):
        pass

    def counted(limit: int) -> Callable[[Path, bytes], None]:
        def one(path: Path, data: bytes) -> None:
            nonlocal written
            written += 1
            if written == limit:
                raise Killed
            write_file(path, data)

        return one

    for limit in (8, 12, 12):
        written = 0
        monkeypatch.setattr(run_module, "write_file", counted(limit))
        with pytest.raises(Killed):
            heedful(arguments(place, out))
    monkeypatch.setattr(run_module, "write_file", write_file)
    assert heedful(arguments(place, out)) == 0
    assert heedful(arguments(place, whole)) == 0
    assert finished(out) == finished(whole)


def test_a_program_may_stop_between_arms_and_take_some_of_them(place: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = arguments(place, run, "--lora-rank", "4", "--method", "ipo")
    assert begun(words) is None and not (run / "arms").exists()
    result = begun(words, ("feedback",))
    assert result is not None and "feedback_minus_teacher_start" in result and "better" not in result
    assert {path.name for path in (run / "arms").iterdir()} == {"teacher_start", "feedback"}
    assert (run / "arms/teacher_start/model/adapter_config.json").exists()
    # with an adapter too, the reference is the started model and not the base
    first = next(row for row in rows(run / "metrics.jsonl") if row["stage"] == "arms/feedback/ipo")
    assert first["h_w"] == pytest.approx(0, abs=1e-3) == first["h_l"]


def test_models_here_teach_and_criticise_and_a_saved_reward_model_evaluates(
    place: Path, tmp_path: Path
) -> None:
    from heedful.hub import save_model
    from heedful.judges.reward import RewardModel

    config = LlamaConfig(
        vocab_size=420, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=4096, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    tiny.model(config=config).save_pretrained(tmp_path / "model")
    tiny.tokenizer().save_pretrained(tmp_path / "model")
    rewarding = RewardModel.load(str(place / "start"), precision="fp32", device="cpu")
    rewarding.head.weight.data.normal_()  # type: ignore[union-attr, operator]
    save_model(rewarding.module, rewarding.tokenizer, tmp_path / "reward", card={})
    model, reward = str(tmp_path / "model"), str(tmp_path / "reward")
    roles = {"teacher": model, "critic": model, "critic_answers": "", "evaluator": reward}
    words = arguments(place, tmp_path / "run", "--prompts", f"{place}/prompts.jsonl", **roles)
    result = begun(words, ("feedback",))
    assert result is not None and 0 <= result["feedback_win"] <= 1 and result["feedback_rows"] > 10
    table = {row["role"]: row for row in usage(Run(tmp_path / "run", {}, 0))}
    assert table["teacher"]["calls"] == 30 and table["critic"]["calls"] > 50
    with pytest.raises(HeedfulError, match="is a reward model, which writes no answers"):
        begun(arguments(place, tmp_path / "no", critic=reward, critic_answers=""))
    with pytest.raises(HeedfulError, match=r"the baseline .* is a reward model, which writes no answers"):
        begun(arguments(place, tmp_path / "neither", baseline=reward))


def test_arms_come_with_what_they_start_from_and_in_order() -> None:
    assert critique_arms.in_order(("critic_sft", "feedback")) == ["teacher_start", "feedback", "critic_sft"]
    assert critique_arms.in_order(None) == list(ARMS)
    assert len({prompt_key(p) for p in PROMPTS}) == len(PROMPTS)
