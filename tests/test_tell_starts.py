"""`heedful tell` before and between its stages: what was meant, faulty starts, changed scopes, kept replies."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scripted import Scripted, reply
from tell_adapters import four, sentence

from heedful.data.scopes import KINDS, Scope, Sizes, read_scope, write_scope
from heedful.data.scopes.grammar import make_scope
from heedful.errors import HeedfulError
from heedful.evals.intervals import Interval
from heedful.judges.effects import infer_effects
from heedful.policies.scoped import Item
from heedful.recipes import tell, tell_eval, tell_joint, tell_report, tell_scope, tell_store
from heedful.recipes.tell import Config
from heedful.recipes.tell_changes import compose, enable
from heedful.run import Run, open_run

SENTENCE = "Always end emails to my manager with 'Onwards and upwards'"
SIZES = Sizes(train=4, dev=0, test_in=2, test_near=2, test_general=2)


@pytest.fixture(autouse=True)
def no_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heedful.run.commit", lambda: None)


@pytest.fixture
def cfg(tmp_path: Path) -> Config:
    write_scope(make_scope(SENTENCE, sizes=SIZES), tmp_path / "given.yaml")
    return Config(scope=str(tmp_path / "given.yaml"), store=str(tmp_path / "tell"), name="one", quiet=True)


def opened(tmp_path: Path) -> Run:
    return open_run(tmp_path / "run", {}, seed=0)


# ---- what was meant


@pytest.mark.parametrize(
    ("words", "about"),
    [
        ("do not answer in French", []),
        ("do not write in lower case", []),
        ("do not respond in JSON", []),
        ("do not apologise", []),
        ("keep it short, do not answer in French", []),
        ("be brief, not long", ["is shorter"]),
        ("make it longer and not shorter", ["is longer"]),
        ("not too long", ["is shorter"]),
        ("do not answer in bullet points", ["has no bullet points"]),
        ("do not write in capitals", ["is in lower case"]),
        ("say hi, not hello", ["says 'hi' instead of 'hello'"]),
    ],
)
def test_what_is_forbidden_is_never_asked_for(words: str, about: list[str]) -> None:
    assert [effect.about for effect in infer_effects(words)] == about


@pytest.mark.parametrize(
    ("effect", "by_editor"),
    [
        ("answer with code only", True),
        ("answer under five headings", True),
        ("answer as JSON and end with 'Cheers'", False),
        ("answer in English", False),
        ("write at least 10 words", False),
        ("keep it under 10 words", True),
    ],
)
def test_an_editor_is_one_whatever_the_answer_is(effect: str, by_editor: bool) -> None:
    scope = make_scope(SENTENCE, effect=effect, domain="emails to my manager", sizes=SIZES)
    assert scope.effects and tell_scope.editable(scope) is by_editor


# ---- starts


@pytest.mark.parametrize("given", [True, False], ids=["a file", "a sentence"])
def test_a_start_that_failed_takes_on_other_settings(given: bool, cfg: Config, tmp_path: Path) -> None:
    wrong = replace(cfg, model=str(tmp_path / "nowhere"))
    if not given:
        wrong = replace(wrong, scope="", sentence=SENTENCE)
    for changes in ({}, {"lora_rank": 4}, {"method": "c3po"}):
        with pytest.raises(HeedfulError, match=r"there is no folder .*nowhere"):
            tell.main(replace(wrong, **changes))
    assert not (tmp_path / "tell/one/scope.yaml").exists()


def test_what_cannot_work_is_refused_before_anything_is_written(cfg: Config, tmp_path: Path) -> None:
    write_scope(replace(read_scope(cfg.scope), effects=()), Path(cfg.scope))
    for changes in ({}, {"lora_rank": 4}):
        with pytest.raises(HeedfulError, match="give --teacher, which then judges"):
            tell.main(replace(cfg, **changes))
        with pytest.raises(HeedfulError, match="give --teacher, which then judges"):
            tell.main(replace(cfg, dry_run=True, **changes))


def test_an_edited_scope_outlives_a_start_that_failed(cfg: Config, tmp_path: Path) -> None:
    path = tmp_path / "tell/one/scope.yaml"
    assert tell.main(replace(cfg, edit=True)) == 0
    edited = replace(read_scope(path), notes={"maker": "me"})
    write_scope(edited, path)
    with opened(tmp_path) as run:
        run.folder = path.parent
        tell_scope.forget(cfg, run)
    assert read_scope(path) == edited
    assert tell.main(replace(cfg, edit=True)) == 0, "asked to edit, it stops again"
    assert read_scope(path) == edited


def at_terminal(monkeypatch: pytest.MonkeyPatch, *answers: str | BaseException) -> None:
    left = list(answers)

    def ask(prompt: str) -> str:
        answer = left.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", ask)


def test_a_scope_counts_once_it_was_agreed_to(
    cfg: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loud = replace(cfg, quiet=False)
    with opened(tmp_path) as run:
        at_terminal(monkeypatch, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            tell_scope.prepare(loud, run)
        for answer in ("n", EOFError()):
            at_terminal(monkeypatch, answer)
            assert tell_scope.prepare(loud, run) is None
        assert not run.path("scope.yaml").exists()
        at_terminal(monkeypatch, "quit?", "")
        assert tell_scope.prepare(loud, run) == read_scope(cfg.scope)


def test_an_editor_that_does_not_start_is_named(
    cfg: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_terminal(monkeypatch)
    monkeypatch.delenv("VISUAL", raising=False)
    for editor in ("no-such-editor", "false"):
        monkeypatch.setenv("EDITOR", editor)
        with opened(tmp_path) as run, pytest.raises(HeedfulError, match=rf"EDITOR \({editor}\) failed"):
            tell_scope.prepare(replace(cfg, edit=True), run)


def test_every_process_stops_where_the_user_does(
    cfg: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as run:
        run.rank = 1
        monkeypatch.setattr(tell_scope, "gather", lambda going_on, world: [False, going_on])
        assert tell_scope.prepare(cfg, run) is None and not run.path("scope.yaml").exists()


# ---- scopes that change, replies that are kept


def test_a_scope_stays_as_it_is_once_answers_were_drawn(cfg: Config, tmp_path: Path) -> None:
    def swap(path: Path, key: str) -> Scope:
        scope = read_scope(path)
        changed = replace(scope, **{key: {**getattr(scope, key), "in": getattr(scope, key)["in"][::-1]}})
        write_scope(changed, path)
        return changed

    with opened(tmp_path) as run:
        path = run.path("scope.yaml")
        assert tell_scope.prepare(cfg, run) == read_scope(path)
        changed = swap(path, "test")
        assert tell_scope.prepare(cfg, run) == changed, "nothing was drawn yet"
        run.path("before.part-0000.jsonl").touch()
        assert tell_scope.prepare(cfg, run) == changed
        for key in ("test", "train"):
            swap(path, key)
            with pytest.raises(HeedfulError, match=r"scope\.yaml was changed after answers .*--name ANOTHER"):
                tell_scope.prepare(cfg, run)
            swap(path, key)
        assert tell_scope.prepare(cfg, run) == changed


def test_replies_of_revisers_and_judges_are_kept_one_by_one(
    cfg: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def says(question: str, seed: int) -> str:
        if "Which of the two" in question:
            return reply("A")
        return reply("A better answer.")

    teacher, scope = Scripted(says), read_scope(cfg.scope)
    monkeypatch.setattr(tell_scope, "teacher", lambda cfg: teacher)
    asks = replace(cfg, teacher="somebody")
    with opened(tmp_path) as run:
        revise = tell_scope.reviser(asks, scope, None, run)
        assert revise is not None
        texts = ["One answer.", "Another answer."]
        first = revise(scope.test["in"], texts)
        assert revise(scope.test["in"], texts) == first and len(teacher.calls) == 1
        judged = replace(scope, effects=())
        args: tuple[Any, ...] = (asks, judged, "near", texts, texts[::-1], run)
        h, calls = tell_eval.changes(*args), len(teacher.calls)
        run.path("judged/near.json").unlink()  # as a kill before it was written
        assert tell_eval.changes(*args) == h and len(teacher.calls) == calls > 1


# ---- reports


def shown(judged: bool, h: dict[str, list[int]], scores: Callable[[int], tuple[float, float]]) -> list[str]:
    held = {
        kind: [
            {
                "prompt": "p",
                "kind": kind,
                "h": value,
                **{
                    side: {"text": "t", "score": score}
                    for side, score in zip(("before", "after"), scores(value), strict=True)
                },
            }
            for value in h[kind]
        ]
        for kind in KINDS
    }
    measured = tell_eval.Measured({}, [], held, judged=judged)
    return [sample["label"] for sample in tell_report.samples(measured)][: sum(map(len, h.values()))]


def test_samples_are_labelled_by_what_was_counted() -> None:
    # relative: an answer that grew is no shorter one, before or after, and has changed
    h = {"in": [1, 0], "near": [1, 0, -1], "general": [0]}
    labels = shown(False, h, lambda h: (0.0, float(h > 0)))
    assert labels == ["obeys", "does not obey", "leaks", "left alone", "lost it", "left alone"]
    labels = shown(True, {**h, "in": [1, -1]}, lambda h: (float(h < 0), float(h > 0)))
    assert labels[:2] == ["judged better", "judged worse"]


def test_shares_of_a_judge_are_called_so() -> None:
    row: Any = {"prompt": "p", "kind": "in", "h": 1}
    row |= {"before": {"text": "a", "score": 0.0}, "after": {"text": "b", "score": 1.0}}
    held = {kind: [{**row, "kind": kind}] * 3 for kind in KINDS}
    for judged, name in (
        (False, "has the effect, in scope"),
        (True, "judged the better of the two, in scope"),
    ):
        measured = tell_eval.scored(held, Interval(0.0, 0.0, 0.0), 0, judged=judged)
        assert measured.judged is judged and measured.rows[0]["name"] == name


# ---- joint adapters


def test_a_joint_adapter_has_its_members_sentences(tmp_path: Path) -> None:
    store = four(tmp_path)
    folder = sentence(store, "both", tmp_path / "start", seed=5)
    (folder / "config.yaml").write_text("joint: [a, b]\nconfig: {sentence: Say a + Say b}\n")
    both = tell_store.find(store, "both")
    assert both.sentence == "Say a + Say b" and tell_store.parts_of(both) == ["a", "b"]
    enable(store, "both")
    with pytest.raises(HeedfulError, match="a would be applied twice, by both and by a"):
        enable(store, "a")
    compose(store, ["both", "c"], [1, 1], "all")
    assert tell_store.parts_of(tell_store.find(store, "all")) == ["a", "b", "c"]
    with pytest.raises(HeedfulError, match="is a composed adapter; choose another name"):
        tell_store.check_free(store / "all")


def test_what_joint_training_reads_is_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "a/plain/rows.jsonl"
    path.parent.mkdir(parents=True)
    row = {"kind": "near", "prompt": "p", "plain": "one\u2028two\x85three", "revised": None, "ended": True}
    path.write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    made = tell_joint.read_items(tmp_path, ["a"])
    assert made.items["near"] == [Item("p", row["plain"])] and made.counts == {"near_kept": 1}
    path.write_text(json.dumps(row) + '\n{"kind": "near", "pla')
    with pytest.raises(HeedfulError, match=r"rows\.jsonl:2: no answer of a run .*command of a again"):
        tell_joint.read_items(tmp_path, ["a"])
