"""What `heedful critique` reads of its roles: whose answers are kept, what is counted, and when a file is refused."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
from test_critique import no_git, write  # noqa: F401

from heedful.errors import HeedfulError
from heedful.evals.intervals import Interval
from heedful.recipes import critique, critique_data, critique_plan, critique_report
from heedful.recipes.critique_arms import Learned
from heedful.recipes.critique_data import Data
from heedful.recipes.critique_eval import Measured
from heedful.recipes.critique_roles import Roles, open_roles
from heedful.run import open_run

PROMPTS = [f"What is {i}?" for i in range(20)]
HELD = [f"Name {i}." for i in range(4)]


def answers(path: Path, text: str, prompts: list[str] = PROMPTS) -> str:
    return str(write(path, [{"prompt": prompt, "response": text} for prompt in prompts]))


@pytest.fixture
def cfg(tmp_path: Path) -> critique.Config:
    (tmp_path / "judge.py").write_text(
        "def score(completions, **columns):\n    return [float(len(text)) for text in completions]\n"
    )
    return critique.Config(
        out=str(tmp_path / "run"),
        prompts=str(write(tmp_path / "prompts.jsonl", [{"prompt": prompt} for prompt in PROMPTS])),
        eval_prompts=str(write(tmp_path / "held.jsonl", [{"prompt": prompt} for prompt in HELD])),
        teacher=answers(tmp_path / "teacher.jsonl", "weak"),
        critic=f"{tmp_path}/judge.py:score",
        critic_answers=answers(tmp_path / "strong.jsonl", "strong"),
        evaluator=f"{tmp_path}/judge.py:score",
        quiet=True,
    )


def asked(cfg: critique.Config) -> list[str]:
    """What the command does before anything is learned; the teacher's answers that it keeps."""
    volatile = (*critique.VOLATILE, *critique_plan.still_open(cfg))
    with open_run(cfg.out, critique.settle(cfg), seed=0, volatile=volatile) as opened:
        assert critique.run(cfg, opened, until=time.monotonic() - 1) is None
    kept = (Path(cfg.out) / "answers/teacher.jsonl").read_text().splitlines()
    return [json.loads(row)["response"] for row in kept]


def test_answers_of_a_teacher_that_was_replaced_are_not_taken_for_the_new_one_s(
    cfg: critique.Config, tmp_path: Path
) -> None:
    lacking = replace(cfg, critic_answers=answers(tmp_path / "some.jsonl", "strong", PROMPTS[:5]))
    with pytest.raises(HeedfulError, match="has no answer to 15 of 20"):
        asked(lacking)
    assert set(asked(replace(cfg, teacher=answers(tmp_path / "other.jsonl", "other")))) == {"other"}


def test_answers_of_a_file_that_has_changed_are_read_again_until_all_are_there(
    cfg: critique.Config, tmp_path: Path
) -> None:
    some = answers(tmp_path / "some.jsonl", "strong", PROMPTS[:5])
    with pytest.raises(HeedfulError, match="has no answer to 15 of 20"):
        asked(replace(cfg, critic_answers=some))
    answers(tmp_path / "teacher.jsonl", "better")
    assert set(asked(cfg)) == {"better"}
    answers(tmp_path / "teacher.jsonl", "better still")
    with pytest.raises(HeedfulError, match="teacher is not what it was"):
        asked(cfg)


def test_rows_that_are_left_out_are_counted_for_the_report(cfg: critique.Config, tmp_path: Path) -> None:
    rows = [{"prompt": prompt, "response": "weak"} for prompt in PROMPTS]
    teacher = write(tmp_path / "teacher.jsonl", [*rows, {"prompt": "Why?", "response": ""}, rows[0]])
    verdicts = write(
        tmp_path / "verdicts.jsonl",
        [{"prompt": PROMPTS[0], "chosen": "a", "rejected": "b"}, {"prompt": PROMPTS[1], "chosen": "a"}],
    )
    cfg = replace(cfg, prompts="", teacher=str(teacher), critic=str(verdicts))
    with open_run(cfg.out, cfg, seed=0) as opened:
        data = critique_data.load(cfg, opened)
        open_roles(cfg, opened, data)
    assert data.facts == {
        f"faulty rows left out of {teacher}": 1,
        f"faulty rows left out of {verdicts}": 1,
        "further answers of the teacher to the same prompts, not used": 1,
    }


def test_an_evaluator_s_file_is_read_with_its_columns_and_refused_before_anything_is_learned(
    cfg: critique.Config, tmp_path: Path
) -> None:
    file = write(tmp_path / "verdicts.jsonl", [{"q": HELD[0], "good": "a", "rejected": "b"}])
    cfg = replace(cfg, evaluator=str(file), columns=("prompt=q", "chosen=good"))
    with open_run(cfg.out, cfg, seed=0) as opened:
        write(tmp_path / "prompts.jsonl", [{"q": prompt} for prompt in PROMPTS])
        write(tmp_path / "held.jsonl", [{"q": prompt} for prompt in HELD])
        data = critique_data.load(cfg, opened)
        roles = open_roles(cfg, opened, data)
        assert roles.evaluator([HELD[0]], ["a"], ["b"]).p.tolist() == [0.0]
        write(file, [{"q": HELD[0], "good": "a"}])
        with pytest.raises(HeedfulError, match=r"verdicts\.jsonl:1: rejected: is missing"):
            open_roles(cfg, opened, data)


def test_how_a_critic_is_asked_may_change_until_its_verdicts_are_there(cfg: critique.Config) -> None:
    out = Path(cfg.out)
    (out / "answers").mkdir(parents=True)
    (out / "answers/sources.json").write_text("{}")
    own = replace(cfg, critic="smollm2", critic_answers="")
    assert set(critique_plan.still_open(own)) == {"disagreement", "judge_tokens", "retries"}
    assert {"judge_tokens", "critic"} <= set(critique_plan.still_open(cfg))
    (out / "arms").mkdir()
    (out / "arms/critic.json").write_text("{}")
    assert critique_plan.still_open(own) == critique_plan.still_open(cfg) == []


def test_a_negative_seed_is_refused_before_anything_is_learned(cfg: critique.Config) -> None:
    with pytest.raises(HeedfulError, match="--seed must be 0 or more"):
        critique.settle(replace(cfg, seed=-1))


def test_budgets_that_a_file_of_verdicts_makes_unequal_are_not_called_equal(cfg: critique.Config) -> None:
    data = Data(start=PROMPTS[:2], rest=PROMPTS[2:], held=HELD, row_of={})
    roles = Roles(lambda p: [], None, lambda p: [], lambda p, a, b: None)  # type: ignore[arg-type, return-value]
    measured = Measured(wins={"feedback": Interval(0.5, 0.4, 0.6, 4)})
    measured.controlled = measured.wins
    for lacking, told in ((0, False), (6, True)):
        learned = {"feedback": Learned(2, 18 - lacking, 12, {"prompts_without_verdict": lacking})}
        said = critique_report.sentences(data, roles, learned, measured)
        warned = critique_report.warnings(cfg, data, roles, learned, {}, measured)
        assert any("used the same 20 prompts once" in text for text in said) is not told
        assert any("verdicts on 12 of the 18 prompts" in text for text in warned) is told
