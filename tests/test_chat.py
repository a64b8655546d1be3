"""`heedful sample`: one prompt, a file of prompts, a chat."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from heedful.cli import main
from heedful.policies import chat
from heedful.policies.language import LanguagePolicy

SMALL = ["--max-new-tokens", "8", "--device", "cpu", "--precision", "fp32"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a chat template, and one without."""
    folder = tmp_path_factory.mktemp("models")
    tiny.save(folder / "chat")
    tiny.model().save_pretrained(folder / "base")
    tiny.tokenizer(chat=False).save_pretrained(folder / "base")
    return folder


def policy() -> LanguagePolicy:
    return LanguagePolicy(tiny.model(), tiny.tokenizer(), device="cpu", precision="fp32")


# ---- one prompt, a file of prompts


def test_one_prompt_prints_the_completion_alone(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", f"{place}/chat", "What is water?", "--temperature", "0", *SMALL]) == 0
    printed = capsys.readouterr().out
    drawn = policy().sample(
        ["What is water?"], temperature=0.0, generator=torch.Generator(), max_new_tokens=8
    )
    assert printed == f"{drawn.outputs[0].text}\n" and len(printed) > 1


def test_several_samples_of_a_prompt_differ_and_a_seed_repeats_them(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def printed(*more: str) -> str:
        assert main(["sample", f"{place}/chat", "Why?", "--n", "3", *SMALL, *more]) == 0
        return capsys.readouterr().out

    first = printed("--seed", "1")
    assert len({*first.rstrip("\n").split("\n\n")}) == 3
    assert printed("--seed", "1") == first != printed("--seed", "2")
    assert printed("--seed", "1", "--temperature", "0") != first
    assert printed("--seed", "1", "--top-k", "1") == printed("--temperature", "0")


def test_prompts_of_a_file_become_rows_in_their_order(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["What is red?", [{"role": "user", "content": "Où est l'œuf ?"}]]
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": p}) + "\n" for p in asked))
    words = ["sample", f"{place}/chat", "--prompts", str(file), "--n", "2", *SMALL]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["prompt"] for row in rows] == [asked[0], asked[0], asked[1], asked[1]]
    assert "Où est l'œuf" in lines[2], "text stays readable"
    for row in rows:
        assert set(row) == {"prompt", "completion", "finished", "logp"}
        assert row["logp"] < 0 and isinstance(row["finished"], bool)
    assert main([*words, "--out", f"{tmp_path}/deep/samples.jsonl"]) == 0
    said = capsys.readouterr()
    assert said.out == "" and said.err.endswith(f"4 samples in {tmp_path}/deep/samples.jsonl\n")
    assert (tmp_path / "deep/samples.jsonl").read_text().splitlines() == lines


def test_stop_strings_and_templates_reach_the_model(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def printed(*more: str) -> str:
        words = ["sample", f"{place}/chat", "Name three colours.", "--temperature", "0", *SMALL, *more]
        assert main(words) == 0
        return capsys.readouterr().out.removesuffix("\n")

    whole = printed()
    assert printed("--stop", whole[2:4]) == whole[: whole.index(whole[2:4])]
    assert printed("--template", "none") != whole == printed("--template", "chat")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["Why?", "--prompts", "q.jsonl"], "give one prompt or --prompts FILE, not both"),
        (["--prompts", "nowhere.jsonl"], "nowhere.jsonl: "),
        (["Why?", "--n", "0"], "must be at least 1"),
        (["Why?", "--max-new-tokens", "0"], "must be at least 1"),
        (["Why?", "--temperature", "-1"], "temperature and top_k must be 0 or more"),
        (["Why?", "--temperature", "nan"], "temperature and top_k must be 0 or more"),
        (["Why?", "--top-p", "0"], "top_p above 0"),
        (["Why?", "--top-k", "-2"], "top_k must be 0 or more"),
        (["Why?", "--max-new-tokens", "600"], "context of 512"),
        (["--n", "2"], "have no meaning in a chat"),
        (["--out", "talk.jsonl"], "have no meaning in a chat"),
        (["--template", "none"], "have no meaning in a chat"),
    ],
)
def test_what_cannot_be_sampled_is_refused(
    arguments: list[str],
    told: str,
    place: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["sample", f"{place}/chat", *SMALL, *arguments]) == 1
    said = capsys.readouterr()
    assert told in said.err and said.out == "" and "Traceback" not in said.err
    assert list(tmp_path.iterdir()) == []


def test_a_bad_file_is_found_before_the_model_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "q.jsonl").write_text('{"prompt": "A?"}\n{broken\n')
    assert main(["sample", f"{tmp_path}/no-model", "--prompts", f"{tmp_path}/q.jsonl"]) == 1
    assert f"{tmp_path}/q.jsonl:2: " in capsys.readouterr().err


# ---- chat


def talk(given: str, monkeypatch: pytest.MonkeyPatch, *more: str, model: Path) -> int:
    monkeypatch.setattr("sys.stdin", io.StringIO(given))
    return main(["sample", str(model), "--seed", "3", *SMALL, *more])


def test_a_chat_answers_line_by_line_and_ends_with_the_input(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert talk("What is red?\nAnd blue?\n", monkeypatch, model=place / "chat") == 0
    printed = capsys.readouterr().out
    assert printed.startswith("you: model: ") and printed.endswith("you: \n")
    assert printed.count("you: ") == 3 and printed.count("model: ") == 2
    assert talk("What is red?\n\nAnd blue?\n", monkeypatch, model=place / "chat") == 0
    assert capsys.readouterr().out.count("model: ") == 1, "an empty line ends it"


def test_a_chat_needs_a_chat_template(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert talk("What is red?\n", monkeypatch, model=place / "base") == 1
    said = capsys.readouterr()
    assert f"{place}/base has no chat template" in said.err and said.out == ""


class Listener:
    """Stands for a policy: notes what it is asked, and answers with its number."""

    def __init__(self, context: int = 512) -> None:
        self.context, self.encoder = context, policy().encoder
        self.asked: list[list[dict[str, str]]] = []

    def sample(self, inputs: list[Any], n: int, **how: Any) -> Any:
        self.asked.append([dict(message) for message in inputs[0]])
        answer = type("Answer", (), {"text": f"answer {len(self.asked)}"})()
        return type("Drawn", (), {"outputs": [answer]})()


def converse(listener: Listener, lines: str, **how: Any) -> str:
    out = io.StringIO()
    how = {"max_new_tokens": 8, **how}
    assert chat.chat(listener, torch.Generator(), how, io.StringIO(lines), out) == 0  # type: ignore[arg-type]
    return out.getvalue()


def test_the_conversation_is_kept() -> None:
    listener = Listener()
    out = converse(listener, "one\n  two \n")
    assert out == "you: model: answer 1\nyou: model: answer 2\nyou: \n"
    assert [[m["content"] for m in messages] for messages in listener.asked] == [
        ["one"],
        ["one", "answer 1", "two"],
    ]
    assert [m["role"] for m in listener.asked[1]] == ["user", "assistant", "user"]


@pytest.mark.parametrize("context", range(100, 150, 4))
def test_the_oldest_turns_are_forgotten_when_the_context_is_full(context: int) -> None:
    # many lengths, because one where whole turns just fit would hide a half turn or a few tokens too many
    listener = Listener(context)
    converse(listener, "".join(f"question number {i}\n" for i in range(8)))
    for i, messages in enumerate(listener.asked):
        assert messages[-1]["content"] == f"question number {i}" and messages[0]["role"] == "user"
        assert len(listener.encoder.prompt(messages)) <= context - 8
        if len(messages) < 2 * i + 1:
            longer = [{"role": "user", "content": f"question number {i - len(messages) // 2 - 1}"}]
            longer += [{"role": "assistant", "content": f"answer {i - len(messages) // 2}"}, *messages]
            assert len(listener.encoder.prompt(longer)) > context - 8, "no more is forgotten than need be"
    lengths = [len(messages) for messages in listener.asked]
    assert lengths[:2] == [1, 3] and max(lengths) < 15


def test_a_line_longer_than_the_context_is_an_error(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert talk("why " * 600 + "\n", monkeypatch, model=place / "chat") == 1
    assert "context of 512" in capsys.readouterr().err
