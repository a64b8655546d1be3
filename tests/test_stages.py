"""Sampling and judging as stages: done once, kept, gone on with where a kill left them."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from heedful import run as run_module
from heedful.errors import HeedfulError
from heedful.feedback import Feedback, Samples
from heedful.policies import stages
from heedful.policies.language import Completion, LanguagePolicy
from heedful.policies.stages import judge_once, sample_once
from heedful.run import Run, open_run

PROMPTS: list[Any] = [f"What is number {i}?" for i in range(10)]
HOW: dict[str, Any] = {"max_new_tokens": 5, "temperature": 0.9}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "PART", 8)  # four prompts of two samples
    monkeypatch.setattr(run_module, "commit", lambda: None)


@pytest.fixture(scope="module")
def policy() -> LanguagePolicy:
    return LanguagePolicy(tiny.model(), tiny.tokenizer(), device="cpu", precision="fp32")


class Killed(Exception):
    """Stands for a kill."""


class Counting:
    """The policy, counting the prompts it answers; it is killed after `left` calls."""

    def __init__(self, policy: LanguagePolicy, left: int = 99) -> None:
        self.policy, self.left = policy, left
        self.asked: list[Any] = []

    def sample(self, inputs: list[Any], n: int, **how: Any) -> Samples:
        if not self.left:
            raise Killed
        self.left -= 1
        self.asked += inputs
        return self.policy.sample(inputs, n, **how)


def draw(folder: Path, policy: Any, name: str = "round0/samples", *, seed: int = 0, **how: Any) -> Samples:
    with open_run(folder, {}, seed=seed) as run:
        return sample_once(policy, PROMPTS, 2, name, run, quiet=True, **{**HOW, **how})


def test_samples_are_drawn_once_and_read_back_whole(policy: LanguagePolicy, tmp_path: Path) -> None:
    counting = Counting(policy)
    first = draw(tmp_path / "run", counting)
    assert counting.asked == PROMPTS and len(first.outputs) == 20 and first.n == 2
    assert all(isinstance(out, Completion) for out in first.outputs)
    again = draw(tmp_path / "run", Counting(policy, left=0))
    assert again == first
    lines = (tmp_path / "run/round0/samples.jsonl").read_text().splitlines()
    assert [json.loads(line)["prompt"] for line in lines] == PROMPTS
    assert [path.name for path in (tmp_path / "run/round0").iterdir()] == ["samples.jsonl"]


@pytest.mark.parametrize("calls", [0, 1, 2])
def test_a_kill_costs_one_part_and_changes_nothing(
    calls: int, policy: LanguagePolicy, tmp_path: Path
) -> None:
    whole = draw(tmp_path / "whole", policy)
    with pytest.raises(Killed):
        draw(tmp_path / "killed", Counting(policy, left=calls))
    assert not (tmp_path / "killed/round0/samples.jsonl").exists()
    counting = Counting(policy)
    assert draw(tmp_path / "killed", counting) == whole
    assert counting.asked == PROMPTS[4 * calls :]
    for file in ("whole", "killed"):
        assert [path.name for path in (tmp_path / file / "round0").iterdir()] == ["samples.jsonl"]
    names = [tmp_path / file / "round0/samples.jsonl" for file in ("whole", "killed")]
    assert names[0].read_bytes() == names[1].read_bytes()


def test_a_kill_after_the_last_part_draws_nothing_again(
    policy: LanguagePolicy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = draw(tmp_path / "run", policy)
    once = Run.once

    def killed(run: Run, name: str, make: Callable[[], Any]) -> Any:
        if name == "second/samples.jsonl":
            raise Killed
        return once(run, name, make)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Run, "once", killed)
        draw(tmp_path / "run", policy, "second/samples", stream="round0/samples")
    assert len(list((tmp_path / "run/second").iterdir())) == 3
    assert draw(tmp_path / "run", Counting(policy, left=0), "second/samples") == whole
    assert [path.name for path in (tmp_path / "run/second").iterdir()] == ["samples.jsonl"]


def test_what_is_kept_is_what_the_policy_drew_to_the_last_bit(policy: LanguagePolicy, tmp_path: Path) -> None:
    kept = draw(tmp_path, policy)
    with open_run(tmp_path, {}, seed=0) as run:
        parts = [
            policy.sample(PROMPTS[at : at + 4], 2, generator=run.generator("round0/samples", at), **HOW)
            for at in (0, 4, 8)
        ]
    # importance ratios of a resumed run rest on the log-probabilities
    assert kept.outputs == [output for part in parts for output in part.outputs]


def test_no_two_parts_share_random_numbers(policy: LanguagePolicy, tmp_path: Path) -> None:
    with open_run(tmp_path, {}, seed=0) as run:
        drawn = sample_once(policy, ["What is red?"] * 12, 3, "s", run, quiet=True, **HOW)
    assert len({tuple(output.ids for output in drawn.group(i)) for i in range(12)}) == 12


def test_a_damaged_file_is_named(policy: LanguagePolicy, tmp_path: Path) -> None:
    draw(tmp_path, policy)
    (tmp_path / "round0/samples.jsonl").write_text('{"prompt": "What')
    with pytest.raises(HeedfulError, match=r"samples\.jsonl cannot be read back"):
        draw(tmp_path, policy)


def test_parts_of_a_stage_with_a_longer_name_stay(policy: LanguagePolicy, tmp_path: Path) -> None:
    folder = tmp_path / "run/round0"
    folder.mkdir(parents=True)
    (folder / "samples2.part-0000.jsonl").write_text("{}\n")
    draw(tmp_path / "run", policy)
    assert (folder / "samples2.part-0000.jsonl").exists()


def test_samples_are_a_function_of_seed_and_stream(policy: LanguagePolicy, tmp_path: Path) -> None:
    def texts(folder: str, **how: Any) -> list[str]:
        return [out.text for out in draw(tmp_path / folder, policy, **how).outputs]

    first = texts("a")
    assert texts("b") == first != texts("c", seed=1)
    assert texts("a", name="round1/samples") != first
    assert texts("a", name="round2/samples", stream="round0/samples") == first
    assert texts("d", max_rows=2) == first, "memory does not change what is drawn"


def test_prompts_of_messages_come_back_as_they_were(policy: LanguagePolicy, tmp_path: Path) -> None:
    asked = [[{"role": "user", "content": "Où ?"}], "A?"]
    with open_run(tmp_path, {}, seed=0) as run:
        for _ in range(2):
            assert sample_once(policy, asked, 1, "s", run, quiet=True, **HOW).inputs == asked
        assert sample_once(policy, [], 3, "none", run, quiet=True, **HOW) == Samples([], [], 3)


def test_progress_is_shown_for_what_is_left(
    policy: LanguagePolicy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_run(tmp_path, {}, seed=0) as run:
        sample_once(policy, PROMPTS, 2, "s", run, **HOW)
        shown = capsys.readouterr().err
        assert "s: 10/10" in shown and "tokens/s" in shown
        sample_once(policy, PROMPTS, 2, "s", run, **HOW)
        assert capsys.readouterr().err == ""


def test_processes_meet_at_every_part(
    policy: LanguagePolicy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two threads stand for two processes: what one gathers alone, the other never sees, and both break off.
    barrier = threading.Barrier(2, timeout=20)
    ranks: dict[int, int] = {}
    said: list[dict[int, Any]] = [{}]

    def gather(value: Any, world: int) -> list[Any]:
        mine = said[0]
        mine[ranks[threading.get_ident()]] = value
        if barrier.wait() == 0:
            said[0] = {}
        barrier.wait()
        return [mine[rank] for rank in range(world)]

    monkeypatch.setattr(run_module, "gather", gather)
    counting = Counting(policy)
    found: dict[int, Any] = {}

    def process(rank: int) -> None:
        ranks[threading.get_ident()] = rank
        run = Run(tmp_path, {}, 0, rank, 2)
        try:
            drawn = sample_once(counting, PROMPTS, 2, "s", run, quiet=True, **HOW)  # type: ignore[arg-type]
            judged = judge_once(lambda s: Feedback(torch.ones(len(s.inputs), s.n)), drawn, "f", run)
            found[rank] = (drawn, judged.score.tolist())
        except Exception as error:
            barrier.abort()
            found[rank] = error

    for _ in range(2):
        threads = [threading.Thread(target=process, args=(rank,)) for rank in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found[0] == found[1] and not isinstance(found[0], Exception), found
    assert counting.asked == PROMPTS, "one process samples, once"


# ---- judging


def test_feedback_is_given_once_and_read_back_whole(tmp_path: Path) -> None:
    samples = Samples(["A?", "B?"], ["a", "b", "c", "d"], 2)
    given = Feedback(
        torch.tensor([[0.1, math.nan], [-3.0, 1 / 3]]),
        better=["z", None],
        notes=["", "short", 'with "quotes"', "ü\n"],
    )
    asked: list[Samples] = []

    def judge(judged: Samples) -> Feedback:
        asked.append(judged)
        return given

    with open_run(tmp_path, {}, seed=0) as run:
        first, again = (judge_once(judge, samples, "round0/feedback", run) for _ in range(2))
    assert asked == [samples]
    for read in (first, again):
        assert torch.equal(read.score.nan_to_num(9), given.score.nan_to_num(9))
        assert read.notes == given.notes and read.better == given.better
    rows = [json.loads(line) for line in (tmp_path / "round0/feedback.jsonl").read_text().splitlines()]
    assert rows[0] == {"score": [pytest.approx(0.1), None], "notes": ["", "short"], "better": "z"}


def test_feedback_without_notes_and_without_samples(tmp_path: Path) -> None:
    with open_run(tmp_path, {}, seed=0) as run:
        plain = judge_once(lambda s: Feedback(torch.zeros(1, 3)), Samples(["A"], ["a"] * 3, 3), "f", run)
        none = judge_once(lambda s: Feedback(torch.zeros(0, 3)), Samples([], [], 3), "none", run)
    assert plain.notes is None and plain.better is None and plain.score.tolist() == [[0, 0, 0]]
    assert none.score.shape == (0, 3) and none.notes is None


def test_a_judge_that_fails_is_asked_again(tmp_path: Path) -> None:
    samples = Samples(["A"], ["a"], 1)

    def broken(judged: Samples) -> Feedback:
        raise Killed

    with open_run(tmp_path, {}, seed=0) as run:
        with pytest.raises(Killed):
            judge_once(broken, samples, "f", run)
        assert judge_once(lambda s: Feedback(torch.ones(1, 1)), samples, "f", run).score.tolist() == [[1]]


@pytest.mark.parametrize("better", [["text"], [[{"role": "assistant", "content": "x"}]], [None]])
def test_what_to_imitate_is_kept(better: list[Any], tmp_path: Path) -> None:
    samples = Samples(["A"], ["a"], 1)
    with open_run(tmp_path, {}, seed=0) as run:
        assert (
            judge_once(lambda s: Feedback(torch.ones(1, 1), better=better), samples, "f", run).better
            == better
        )
