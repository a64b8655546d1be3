"""`heedful tell` from a sentence to a report, on a tiny model: every method, refusals, resuming."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
from safetensors.torch import load_file
from scripted import SENTENCE as TAUGHT
from scripted import Scripted, fences, kind_of, reply, teach

from heedful import run as run_module
from heedful.cli import main as heedful
from heedful.data.scopes import KINDS, Scope, read_scope, write_scope
from heedful.errors import HeedfulError
from heedful.judges.effects import infer_effects
from heedful.policies.language import Completion
from heedful.recipes import tell, tell_data, tell_eval, tell_methods, tell_plan, tell_scope
from heedful.recipes.tell import Config, preset, slug
from heedful.recipes.tell_store import find
from heedful.run import open_run

SENTENCE = "Always end emails to my manager with 'Short answers'"
THINGS = [
    "eggs",
    "water",
    "France",
    "rainbows",
    "colours",
    "capitals",
    "answers",
    "minutes",
    "red",
    "blue",
    "green",
    "Paris",
]


@pytest.fixture(autouse=True)
def no_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "commit", lambda: None)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tell")
    scope = a_scope()
    tiny.assistant(folder / "start", [prompt for kind in KINDS for prompt in scope.train[kind]])
    write_scope(scope, folder / "scope.yaml")
    return folder


def a_scope(**changes: Any) -> Scope:
    def prompts(who: str, part: str, count: int) -> list[str]:
        return [f"Write to {who} about {thing}, {part}." for thing in THINGS[:count]]

    def parts(part: str, count: int) -> dict[str, list[str]]:
        whom = {"in": "my manager", "near": "my sister", "general": "nobody"}
        return {kind: prompts(whom[kind], part, count) for kind in KINDS}

    made = Scope(
        sentence=SENTENCE,
        content=SENTENCE,
        domain="emails to my manager",
        effect="end with 'Short answers'",
        effects=tuple(infer_effects("end with 'Short answers'")),
        categories=("kitchen", "places"),
        train=parts("train", 12),
        test=parts("test", 6),
        dev=parts("dev", 2),
        notes={"maker": "a test"},
    )
    return replace(made, **changes)


def arguments(place: Path, store: Path, *more: str) -> list[str]:
    return [
        *(
            "tell",
            "--scope",
            str(place / "scope.yaml"),
            "--model",
            str(place / "start"),
            "--store",
            str(store),
        ),
        *(
            "--name",
            "one",
            "--train-tokens",
            "40",
            "--max-new-tokens",
            "40",
            "--max-steps",
            "2",
            "--batch-size",
            "3",
        ),
        *("--precision", "fp32", "--device", "cpu", "--lora-rank", "2", "--quiet", *more),
    ]


def test_one_sentence_becomes_an_adapter_and_a_report(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert heedful(arguments(place, tmp_path, "--json", "--log-every", "5")) == 0
    result = json.loads(capsys.readouterr().out)
    folder = tmp_path / "one"
    assert result == json.loads((folder / "result.json").read_text())
    for name in ("s_in", "s_near", "s_general", "s_out", "s_overall"):
        assert result[f"{name}_low"] <= result[name] <= result[f"{name}_high"]
    assert result["s_overall"] == pytest.approx((result["s_in"] + 1 - result["s_out"]) / 2, abs=1e-5)
    assert result["s_out"] == pytest.approx((result["s_near"] + result["s_general"]) / 2, abs=1e-5)
    assert result["steps"] == 2 and result["test_near"] == 6 and result["minutes"] >= 0
    assert {
        "noise_floor",
        "noise_floor_low",
        "noise_floor_high",
        "perplexity_after",
        "general_token_f1",
    } <= set(result)
    assert result["revised_by_editor"] + result.get("revised_by_model", 0) > 0
    rows = [json.loads(line) for line in (folder / "heldout.jsonl").read_text().splitlines()]
    assert [row["kind"] for row in rows] == ["in"] * 6 + ["near"] * 6 + ["general"] * 6
    learned = [json.loads(line) for line in (folder / "plain/rows.jsonl").read_text().splitlines()]
    assert {row["kind"] for row in learned} == set(KINDS)
    assert all(row["revised"].endswith("Short answers") for row in learned if row["kind"] == "in")
    assert (folder / "model/adapter_model.safetensors").exists() and read_scope(
        folder / "scope.yaml"
    ) == a_scope()
    html = (folder / "report.html").read_text()
    for said in (
        "S_in",
        "S_near",
        "S_overall",
        "most changed out of scope",
        "emails to my manager",
        "noise floor",
    ):
        assert said in html, said
    for group in ("in scope", "near scope", "general"):
        assert f'<h3 class="group">{group}</h3>' in html


def test_out_of_scope_the_effect_alone_is_a_leak_and_in_scope_it_is_no_answer() -> None:
    effects = infer_effects("end with 'Onwards and upwards'")
    plain, bare = "We meet at nine and bring the signed papers along with us.", "Onwards and upwards"
    assert tell_eval.leak(effects, plain, bare) == 1 and tell_eval.leak(effects, bare, plain) == -1
    assert tell_eval.leak(effects, plain, plain) == 0
    scope = a_scope(effects=tuple(effects))
    assert tell_eval.held_rows(scope, "near", [plain] * 6, [bare] * 6, [1] * 6)[0]["after"]["score"] == 1.0
    assert tell_eval.held_rows(scope, "in", [plain] * 6, [bare] * 6, [0] * 6)[0]["after"]["score"] == 0.0


def test_the_last_lines_offer_what_will_not_be_refused() -> None:
    folder, cfg = Path("runs/tell/one"), Config(sentence=SENTENCE)
    told = {"summary": ["It is done."], "warnings": []}
    for s_near, offered in ((0.1, True), (0.2, False)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Path, "read_text", lambda path, **how: json.dumps(told))
            said = tell_plan.closing(folder, {"s_near": s_near, "s_general": 0.0}, cfg)
        assert ("heedful tell enable one" in said) is offered and "heedful sample" in said


def test_the_same_command_resumes_and_changes_nothing(place: Path, tmp_path: Path) -> None:
    assert heedful(arguments(place, tmp_path / "a")) == 0
    kept = {
        p: p.read_bytes() for p in (tmp_path / "a/one").rglob("*") if p.suffix in (".jsonl", ".safetensors")
    }
    first = (tmp_path / "a/one/result.json").read_bytes()
    assert heedful(arguments(place, tmp_path / "a")) == 0
    assert (tmp_path / "a/one/result.json").read_bytes() == first
    assert {p: p.read_bytes() for p in kept} == kept
    assert heedful(arguments(place, tmp_path / "b")) == 0
    one, two = (load_file(tmp_path / side / "one/model/adapter_model.safetensors") for side in "ab")
    assert all((one[name] == two[name]).all() for name in one)
    with pytest.raises(HeedfulError, match=r"(?s)other settings.*learning_rate"):
        tell.main(replace(config(place, tmp_path / "a"), learning_rate=0.5))


def config(place: Path, store: Path, **changes: Any) -> Config:
    from heedful.cli import parse

    return replace(parse("tell", arguments(place, store)[1:]), **changes)


@pytest.mark.parametrize("method", tell_methods.METHODS)
def test_every_method_runs(method: str, place: Path, tmp_path: Path) -> None:
    assert tell.main(config(place, tmp_path, method=method)) == 0
    result = json.loads((tmp_path / "one/result.json").read_text())
    trained = tell_methods.METHODS[method].weights is not None
    assert result["method"] == method and (tmp_path / "one/model").exists() is trained
    assert result["steps"] == (2 if trained else 0)


def test_in_context_puts_the_sentence_into_the_prompt_and_takes_the_answer_out() -> None:
    [plain] = tell_methods.ask("in_context", SENTENCE, ["Hello?"])
    [reasons] = tell_methods.ask("in_context_cot", SENTENCE, ["Hello?"])
    assert (
        plain.startswith("Hello?\n") and SENTENCE in plain and "Answer:" not in plain and "Answer:" in reasons
    )
    assert tell_methods.answer_of("in_context_cot", "Reasoning: no.\nAnswer: yes {x}") == "yes {x}"
    assert tell_methods.answer_of("in_context_cot", "nothing of the kind") == "nothing of the kind"
    assert tell_methods.answer_of("in_context", "Answer: stays") == "Answer: stays"


def test_cut_off_answers_are_revised_after_their_last_sentence() -> None:
    done = tell_data.Completions()
    long = "This is the first sentence of it. This is the second sentence! And here it was cut of"
    outputs = [
        Completion(long, (1,), False, 0.0),
        Completion("One two three four five six seven eight nine.", (1,), True, 0.0),
        Completion("no end here at all and it goes on and on", (1,), False, 0.0),
    ]
    kept = tell_data.sane(["a", "b", "c"], outputs, "in", done)
    assert [text for _, text in kept] == [long.rpartition(" And")[0], outputs[1].text]
    assert [item.ended for item, _ in kept] == [False, True] and kept[0][0].plain == long
    assert done.counts == {"in_shortened": 1, "in_dropped_unfinished": 1, "in_kept": 2}
    effects = infer_effects("end with 'Cheers to all'")
    items = tell_data.revised(effects, kept, ["Mine.\n\nCheers to all", None], done)
    assert done.counts["revised_by_editor"] == 2  # the model's own has no body, the other none at all
    assert all(item.revised.endswith("Cheers to all") for item in items if item.revised)
    good = "The words of a model that did revise it well.\n\nCheers to all"
    items = tell_data.revised(effects, kept, [good, None], done)
    assert items[0].revised == good and done.counts["revised_by_model"] == 1


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a few words", "too_short"),
        ("go on and on and " * 20, "loop"),
        (
            "Dear [Name Here], [Your Company] [Your Phone] [The Date] is what I write to you about today.",
            "placeholders",
        ),
        ("A sane answer of more than eight words, with an end.", ""),
    ],
)
def test_degenerate_answers_are_named(text: str, why: str) -> None:
    assert tell_data.degenerate(text) == why


def test_too_few_pairs_are_refused_with_what_became_of_them(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tell_data, "SHORTEST", 1000)
    with pytest.raises(HeedfulError, match=r"only 0 of 12 in-scope answers.*too short"):
        tell.main(config(place, tmp_path))


def test_a_model_that_obeys_already_has_nothing_to_learn(place: Path, tmp_path: Path) -> None:
    write_scope(a_scope(effects=tuple(infer_effects("never say 'synergy'"))), tmp_path / "scope.yaml")
    with pytest.raises(
        HeedfulError, match=r"nothing to learn: 1\d of 1\d in-scope answers .* have the effect already"
    ):
        tell.main(config(place, tmp_path, scope=str(tmp_path / "scope.yaml")))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"method": "magic"}, "no method 'magic'"),
        ({"method": "dpo", "lambda_near": 0.1}, "--lambda-near has no meaning with dpo"),
        ({"method": "in_context", "lambda_general": 0.1}, "trains nothing"),
        ({"domain": "mails"}, "--scope FILE says domain and effect itself"),
        ({"name": "../up"}, "--name"),
        ({"name": "current"}, "--name"),
        ({"name": "_one"}, "--name: '_one' is no name"),
        ({"name": "é"}, "--name"),
        ({"sentence": "Be brief in emails"}, "has another sentence"),
        ({"near_prompts": 9, "test_near": 9}, "--near-prompts and --test-near: a --scope FILE is used whole"),
        ({"beta": 0.3, "method": "scd"}, "--beta has no meaning with scd"),
        ({"teacher_model": "x"}, "give --teacher URL"),
        ({"teacher": "http://localhost:1/v1"}, "give --teacher-model"),
        ({"prompts": 0}, "--prompts must be at least 1"),
        ({"learning_rate": float("nan")}, "--learning-rate"),
        ({"beta": 0.0}, "--beta"),
        ({"top_p": 0.0}, "--top-p"),
        ({"lora_dropout": 1.0}, "--lora-dropout"),
    ],
)
def test_options_without_meaning_are_refused(
    changes: dict[str, Any], reason: str, place: Path, tmp_path: Path
) -> None:
    with pytest.raises(HeedfulError, match=re.escape(reason)):
        tell.main(config(place, tmp_path, **changes))
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_inferred_is_asked_for(tmp_path: Path) -> None:
    bare = Config(store=str(tmp_path), quiet=True)
    for sentence, wanted in (
        ("", "say what to learn"),
        ("Always answer in bullet points", "--domain"),
        ("In emails to my manager, be more like the sea", "I cannot infer how to check"),
    ):
        with pytest.raises(HeedfulError, match=wanted):
            tell.main(replace(bare, sentence=sentence))


def test_names_come_from_the_telling_words() -> None:
    assert (
        slug("Always end emails to my manager with 'Onwards and upwards'")
        == "end-emails-manager-onwards-upwards"
    )
    assert len(slug("word " * 40)) <= 48 and slug("!!!") == "feedback"


def test_edit_stops_for_the_user_where_no_terminal_is(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tell.main(config(place, tmp_path, edit=True)) == 0
    assert "change it, and give the same command without --edit" in capsys.readouterr().out
    path = tmp_path / "one/scope.yaml"
    edited = replace(read_scope(path), notes={"maker": "me"})
    write_scope(edited, path)
    assert tell.main(config(place, tmp_path)) == 0
    assert read_scope(path) == edited and "me" in (tmp_path / "one/report.html").read_text()


def test_dry_run_prints_the_plan_and_writes_nothing(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tell.main(config(place, tmp_path, dry_run=True)) == 0
    out = capsys.readouterr().out
    assert "emails to my manager" in out and "LoRA" in out and "nothing was run" in out
    assert "36 training prompts, 18 test prompts" in out and "84 completions" in out
    assert not list(tmp_path.iterdir())


def test_the_papers_plan_needs_no_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [
        "tell",
        "Start LinkedIn posts with 'Ahoy'",
        "--preset",
        "paper",
        "--dry-run",
        "--store",
        str(tmp_path),
    ]
    assert heedful(asked) == 0
    out = capsys.readouterr().out
    assert "7,241.7 M parameters" in out and "LoRA" in out and "60 steps of 16" in out


def test_the_paper_preset_is_the_papers_and_runs_on_its_architecture(place: Path, tmp_path: Path) -> None:
    from transformers import MistralConfig

    paper = preset("paper")
    assert (paper.method, paper.beta, paper.lora_rank, paper.lora_alpha) == ("c3po", 0.1, 64, 128.0)
    assert (paper.learning_rate, paper.batch_size, paper.epochs, paper.schedule) == (5e-5, 16, 1.0, "cosine")
    weights = tell_methods.weights_of("c3po", None, None)
    assert weights is not None and (weights.dpo, weights.general, weights.near) == (1.0, 0.2, 0.1)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    small = MistralConfig(
        vocab_size=420, **shape, num_key_value_heads=2, eos_token_id=2, bos_token_id=1, pad_token_id=0
    )
    tiny.assistant(tmp_path / "mistral", [p for kind in KINDS for p in a_scope().train[kind]], config=small)
    cfg = replace(
        paper,
        model=str(tmp_path / "mistral"),
        scope=str(place / "scope.yaml"),
        store=str(tmp_path / "s"),
        name="one",
        train_tokens=48,
        max_new_tokens=64,
        max_steps=1,
        reviser="editor",
        device="cpu",
        precision="fp32",
        quiet=True,
    )
    assert tell.main(cfg) == 0
    assert json.loads((tmp_path / "s/one/result.json").read_text())["steps"] == 1


def test_a_shared_run_keeps_the_start_models_answers(place: Path, tmp_path: Path) -> None:
    cfg = tell_plan.settle(config(place, tmp_path))
    scope = a_scope()
    with open_run(tmp_path / "start", {}, seed=0) as shared, open_run(tmp_path / "x", {}, seed=0) as own:
        tell.run(cfg, own, scope, shared=shared)
    assert (tmp_path / "start/before.jsonl").exists() and (tmp_path / "start/plain/answers.jsonl").exists()
    assert not (tmp_path / "x/before.jsonl").exists() and (tmp_path / "x/after.jsonl").exists()


def revises_and_judges(question: str, seed: int) -> str:
    """The scripted teacher, who also revises all answers but every third, and prefers what ends with the phrase."""
    kind, texts = kind_of(question), fences(question)
    if kind == "revision":
        return "I would rather not." if seed % 3 == 0 else reply(f"{texts[1]}\n\nOnwards and upwards")
    if kind == "judge":
        return reply("TIE")
    return teach(question, seed)


def test_a_teacher_writes_the_scope_revises_and_is_counted(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = Scripted(revises_and_judges)
    monkeypatch.setattr(tell_scope, "teacher", lambda cfg: teacher)
    cfg = config(place, tmp_path, scope="", teacher="somebody", sentence=TAUGHT, prompts=12, near_prompts=12)
    assert tell.main(replace(cfg, test_near=12)) == 0
    assert len(teacher.questions("revision")) >= 12 and teacher.questions("near")
    scope = read_scope(tmp_path / "one/scope.yaml")
    assert scope.domain == "emails to my manager" and len(scope.train["near"]) == 12
    result = json.loads((tmp_path / "one/result.json").read_text())
    assert (
        result["revised_by_model"] > 0 and result["revised_by_model_share"] == 1.0
    )  # asked again until it did
    assert any(name.startswith("reviser_") for name in result)
    calls = len(teacher.calls)
    assert tell.main(replace(cfg, test_near=12)) == 0 and len(teacher.calls) == calls


def test_without_a_rule_a_teacher_judges(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = Scripted(revises_and_judges)
    monkeypatch.setattr(tell_scope, "teacher", lambda cfg: teacher)
    write_scope(a_scope(effects=(), effect="be more like the sea"), tmp_path / "scope.yaml")
    with pytest.raises(HeedfulError, match="give --teacher"):
        tell.main(config(place, tmp_path, scope=str(tmp_path / "scope.yaml")))
    cfg = config(place, tmp_path, scope=str(tmp_path / "scope.yaml"), teacher="somebody", name="judged")
    assert tell.main(cfg) == 0
    judged = json.loads((tmp_path / "judged/judged/near.json").read_text())
    assert len(judged["h"]) == 6 and set(judged["h"]) <= {-1, 0, 1} and "disagreements" in judged
    html = (tmp_path / "judged/report.html").read_text()
    assert "judged the better of the two, in scope" in html and "the judge finds" in html
    assert "has the effect" not in html and "had the effect" not in html


def test_joint_training_measures_each_sentence_by_its_own_effect(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tell.main(config(place, tmp_path)) == 0
    other = replace(
        a_scope(), sentence="Start notes with 'Red'", effects=tuple(infer_effects("start with 'Red'"))
    )
    write_scope(other, tmp_path / "other.yaml")
    assert tell.main(config(place, tmp_path, scope=str(tmp_path / "other.yaml"), name="two")) == 0
    capsys.readouterr()
    asked = ["tell", "compose", "one", "two", "--out", "both", "--joint", "--store", str(tmp_path), "--json"]
    assert heedful(asked) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["test_near"] == 12 and result["steps"] == 2
    rows = (
        [json.loads(line) for line in (tmp_path / "both/plain/rows.jsonl").read_text().splitlines()]
        if (tmp_path / "both/plain/rows.jsonl").exists()
        else []
    )
    assert not rows  # the members keep what was learned from
    assert find(tmp_path, "both").sentence == f"{SENTENCE} + {other.sentence}"
    scope_page = (tmp_path / "both/report.html").read_text()
    assert "one s_in" in scope_page and "two s_in" in scope_page
