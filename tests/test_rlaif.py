"""The reproduction of RLAIF: the bandit exactly, the world's grades and judges, claims from made-up results, and every
path of the simulated and the real part with models of a few thousand weights."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from heedful import run as run_module
from heedful.losses import bradley_terry_loss, nll_loss
from heedful.papers import rlaif, rlaif_arms, rlaif_bandit, rlaif_real, rlaif_real_claims, rlaif_verdicts
from heedful.papers import rlaif_world as world
from heedful.papers.results import Claim
from heedful.papers.rlaif_arms import Done
from heedful.recipes.critique_arms import ARMS
from heedful.run import open_run


@pytest.fixture(autouse=True)
def no_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "commit", lambda: None)


# ---- the bandit


def test_the_bandit_has_the_published_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_run(tmp_path / "run", {}, seed=0) as run:
        part = rlaif_bandit.bandit_part([0, 1], run)
        monkeypatch.setattr(rlaif_bandit, "_solve", lambda seed: pytest.fail("solved twice"))
        assert rlaif_bandit.bandit_part([0, 1], run) == part
    assert len(part.claims) == 6 and all(claim.holds for claim in part.claims)
    means = {claim.claim.split(" is ")[0]: claim.measured for claim in part.claims[:4]}
    assert means["Bandit: the mean arm of student"] == pytest.approx(40.0, abs=0.1)
    assert means["Bandit: the mean arm of AI feedback"] == pytest.approx(51.8, abs=0.3)
    assert means["Bandit: the mean arm of imitation of the teacher"] == pytest.approx(70.7, abs=0.1)
    assert means["Bandit: the mean arm of teacher"] == pytest.approx(78.5, abs=0.1)


def test_the_gradients_are_those_of_the_losses() -> None:
    counts = rlaif_bandit.draw_pairs(0, pairs=300)
    wins = rlaif_bandit.won(counts)
    draw = np.random.default_rng(0)
    reward = torch.tensor(draw.normal(0, 1, 100), requires_grad=True)
    first, second = np.nonzero(wins)
    times = wins[first, second].astype(int)
    winners, losers = (torch.tensor(np.repeat(side, times)) for side in (first, second))
    bradley_terry_loss(reward[winners], reward[losers])[0].backward()
    mine = rlaif_bandit.reward_gradient(reward.detach().numpy(), wins, wins.sum())
    assert reward.grad is not None and np.allclose(mine, reward.grad.numpy(), atol=1e-6)

    logits = torch.tensor(draw.normal(0, 1, 100), requires_grad=True)
    arms = torch.tensor(draw.integers(0, 100, 500))
    logp = logits.log_softmax(0)[arms][:, None]
    nll_loss(logp, torch.ones_like(logp))[0].backward()
    shares = np.bincount(arms.numpy(), minlength=100) / 500
    mine = rlaif_bandit.imitation_gradient(logits.detach().numpy(), shares)
    assert logits.grad is not None and np.allclose(mine, logits.grad.numpy(), atol=1e-6)


def test_a_bandit_claim_fails_outside_its_arm() -> None:
    assert rlaif_bandit._close("x", [50.4, 50.5], 50.5).holds
    assert rlaif_bandit._close("x", [50.0, 52.0], 50.5).holds is False


# ---- the world


def test_an_answer_is_graded_by_fields_order_and_what_else_is_said() -> None:
    prompt = "back a 1 b 2 c 3 d 4 e 5 : "
    whole = "e 5 , d 4 , c 3 , b 2 , a 1 ."
    assert world.parts(prompt, whole) == (1.0, 1.0, 1.0)
    assert world.parts(prompt, "e 5 , d 4 .") == (0.4, 1.0, 1.0)
    assert world.parts(prompt, "e 5 , d 7 .") == (0.2, 1.0, pytest.approx(2 / 3))
    assert world.parts(prompt, "well so a 1 , b 2 .") == (0.4, 0.0, pytest.approx(1 / 3))
    assert world.parts(prompt, "") == (0.0, 0.0, 1.0)
    assert world.grade(prompt, whole) == 1 and world.grade(prompt, "e 5 , e 5 .") < world.grade(
        prompt, "e 5 ."
    )


def test_generators_are_as_good_as_they_are_said_to_be() -> None:
    prompts, draw, answers = world.instructions(1500, 5), Random(5), [""]
    for target, quality in world.QUALITIES.items():
        answers = [world.answer(prompt, quality, draw) for prompt in prompts]
        mean = np.mean([world.grade(p, a) for p, a in zip(prompts, answers, strict=True)])
        assert mean == pytest.approx(target, abs=0.02)
    assert all(set(text.split()) <= set(world.WORDS) for text in (*answers, *prompts))
    assert max(len(text.split()) for text in answers) < world.LONGEST


def test_a_judge_errs_as_bradley_and_terry_say_and_the_same_in_both_orders() -> None:
    prompts, draw = world.instructions(3000, 6), Random(6)
    first, second = ([world.answer(p, 0.5, draw) for p in prompts] for _ in range(2))
    judge = world.judge("critic", 0)
    there, back = judge(prompts, first, second).p, judge(prompts, second, first).p
    assert torch.equal(there, 1 - back) and not torch.equal(
        there, world.judge("critic", 1)(prompts, first, second).p
    )
    gap = [world.grade(p, b) - world.grade(p, a) for p, a, b in zip(prompts, first, second, strict=True)]
    expected = 1 / (1 + np.exp(-world.SHARPNESS["critic"] * np.array(gap)))
    unequal = [i for i, pair in enumerate(zip(first, second, strict=True)) if pair[0] != pair[1]]
    assert there.numpy()[unequal].mean() == pytest.approx(expected[unequal].mean(), abs=0.03)
    clear = np.abs(np.array(gap)) > 0.3
    assert ((there.numpy() > 0.5) == (np.array(gap) > 0))[clear].mean() > 0.95


def test_the_parts_of_a_seed_share_no_prompt() -> None:
    assert not set(world.instructions(500, 0, "reading")) & set(world.instructions(500, 0, "prompts"))
    assert world.instructions(50, 1, "prompts") == world.instructions(50, 1, "prompts")


# ---- claims from made-up results

WINS = {
    "base": 0.2,
    "teacher_start": 0.42,
    "teacher_sft": 0.43,
    "feedback": 0.6,
    "critic_start": 0.7,
    "critic_sft": 0.75,
    "critic_feedback": 0.8,
}
GAINS = {0.4: 0.18, 0.6: 0.1, 0.8: 0.04}


def result(seed: int, teacher: float, wins: dict[str, float]) -> dict[str, Any]:
    arms = wins if teacher == 0.4 else {"teacher_start": 0.6, "feedback": 0.6 + GAINS[teacher]}
    numbers: dict[str, Any] = {"held_out_prompts": 600}
    for arm, value in arms.items():
        numbers |= {f"{arm}_win": value + 0.004 * seed, f"{arm}_lc_win": value, f"{arm}_words": 5.0}
    return {"evaluator": numbers, "second": numbers, "grades": dict.fromkeys(arms, 0.5)}


def made_up(seeds: Sequence[int] = (0, 1, 2), **changed: float) -> Done:
    return {
        (base, teacher, seed): result(seed, teacher, WINS | changed)
        for base in ("small", "large")
        for teacher in GAINS
        for seed in seeds
    }


def claims(done: Done, seeds: Sequence[int] = (0, 1, 2)) -> list[Claim]:
    return [make(done, rlaif_arms.SIZES["main"], seeds, "main") for make in rlaif_arms.CLAIMS]


def test_results_as_required_fulfil_the_requirements() -> None:
    made = claims(made_up())
    assert len(made) == 8 and all(claim.holds for claim in made)
    assert [claim.claim.split()[1].rstrip(":") for claim in made] == [
        *("(i)", "(ii)", "(iii)", "(iii)", "(iv)", "(iv)", "(iv)", "(v)")
    ]
    assert made[1].measured == pytest.approx(0.17) and made[1].interval is not None
    assert made[4].measured == pytest.approx(0.08) and "base small and large" in made[4].note


def test_results_of_another_kind_do_not() -> None:
    made = claims(made_up(feedback=0.78, teacher_start=0.3))
    assert [claim.holds for claim in made[:4]] == [False, True, False, False]
    assert made[-1].holds is False  # and that is said of the second evaluator too


def test_one_seed_decides_nothing_in_favour() -> None:
    made = claims(made_up((0,)), (0,))
    assert {claim.holds for claim in made} == {None} and all(claim.measured is not None for claim in made)


def test_a_seed_that_is_not_whole_is_left_out() -> None:
    done = made_up((0, 1))
    del done["large", 0.6, 1]
    falls = [claim for claim in claims(done, (0, 1)) if "0.4 to 0.6" in claim.claim]
    assert falls[0].note.startswith("1 seed(s)") and falls[0].interval is None
    assert "not run yet" in claims({})[0].note


def test_tables_show_every_arm_with_its_error() -> None:
    table = rlaif_arms.arms_table(made_up())
    assert len(table.rows) == 2 * (7 + 2 + 2)
    row = next(row for row in table.rows if row[:3] == ["small", 0.4, "imitation of the critic"])
    assert row[4] == pytest.approx(0.754) and row[5] == pytest.approx((0.754 * 0.246 / 1800) ** 0.5)
    assert len(rlaif_arms.gains_table(made_up()).rows) == 6
    assert [series.name for series in rlaif_arms.gains_plot(made_up()).series] == ["small", "large"]


# ---- running it


def test_the_world_runs_stops_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = rlaif_arms.Size({"small": (16, 1, 8)}, (0.4, 0.8), 20, 8)
    monkeypatch.setitem(rlaif_arms.SIZES, "smoke", size)
    monkeypatch.setattr(rlaif_arms, "LEARNING", rlaif_arms.LEARNING | {"epochs": 1.0, "start_epochs": 1.0})
    with open_run(tmp_path / "run", {}, seed=0) as run:
        late = rlaif_arms.world_part("smoke", [0], run, until=time.monotonic() - 1)
        assert late.notes == ["Simulated world: 0 of 2 runs are done."] and not late.tables
        part = rlaif_arms.world_part("smoke", [0], run)
        assert part.notes == ["Simulated world: 2 of 2 runs are done."]
        assert len(part.claims) == 8 and all("smoke" in claim.note for claim in part.claims)
        assert len(part.tables[0].rows) == 7 + 3
        again = rlaif_arms.world_part("smoke", [0, 1], run, until=time.monotonic() - 1)
        assert again.tables == part.tables and "2 of 4" in again.notes[0]
        kept = json.loads((tmp_path / "run/world/seed0/small-teacher0.4.json").read_text())
        assert set(kept["grades"]) == {"base", *ARMS}
        assert kept["evaluator"]["critic_sft_prompts"] == kept["evaluator"]["feedback_prompts"] == 20
        folders = tmp_path / "run/world/seed0/small-teacher0.4/evaluations"
        assert len(list(folders.iterdir())) == 2


def test_a_reward_of_made_up_verdicts_is_found_again() -> None:
    draw = np.random.default_rng(0)
    features = draw.normal(0, 1, (4000, 6)) * [1, 1, 5, 1, 1, 1]
    truth = np.array([1.5, -1.0, 0.0, 0.0, 0.0, 0.7])
    first, second = features[:2000], features[2000:]
    p = 1 / (1 + np.exp(-(first - second) @ truth))
    wins = draw.random(2000) < p
    chosen, rejected = (np.where(w[:, None], first, second) for w in (wins, ~wins))
    groups = [i // 4 for i in range(2000)]
    reward = rlaif_verdicts.fit_reward(chosen, rejected, groups)
    found = np.array(reward.weights) / np.array(reward.scale)
    assert found == pytest.approx(truth, abs=0.15)
    assert rlaif_verdicts.right(reward, chosen, rejected).mean() > 0.8
    few = rlaif_verdicts.fit_reward(chosen, rejected, groups, components=3)
    assert len(few.weights) == 4 and rlaif_verdicts.right(few, chosen, rejected).mean() > 0.6


def test_without_the_data_the_real_part_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rlaif_verdicts, "data_folder", lambda: None)
    with open_run(tmp_path / "run", {}, seed=0) as run:
        part = rlaif_real_claims.real_part("main", [0], run)
    assert all(claim.holds is None and "is not there" in claim.note for claim in part.claims)
    assert len(part.claims) == len(rlaif_real_claims.CLAIMS) and not part.tables


def alpaca(folder: Path) -> Path:
    """Data as AlpacaEval's: three generators, of which longer answers are preferred."""
    texts = {
        "text_davinci_003": "It is {}.",
        "gpt4": "It is {}, and the rainbow has it: red, green and blue.",
        "other": "Name {}.",
    }
    words = ["red", "green", "blue", "egg", "water", "France", "rainbow", "colour", "capital", "answer"]
    prompts = [f"What is {a} {b}?" for a in words for b in words[:6]]
    outputs, verdicts = [], []
    for i, prompt in enumerate(prompts):
        said = {name: text.format(prompt.split()[2]) for name, text in texts.items()}
        outputs += [
            {"prompt_id": i, "generator": g, "prompt": prompt, "response": t} for g, t in said.items()
        ]
        for other in ("gpt4", "other"):
            pair = sorted((said["text_davinci_003"], said[other]), key=len)
            verdicts.append({"prompt_id": i, "prompt": prompt, "chosen": pair[1], "rejected": pair[0]})
    (folder / "preferences").mkdir(parents=True)
    for name, rows in ((rlaif_verdicts.OUTPUTS, outputs), (rlaif_verdicts.VERDICTS, verdicts)):
        with gzip.open(folder / name, "wt") as stream:
            stream.writelines(json.dumps(row) + "\n" for row in rows)
    return folder


def test_the_real_part_runs_on_data_of_that_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = alpaca(tmp_path / "data")
    tiny.save(tmp_path / "start")
    monkeypatch.setattr(rlaif_verdicts, "data_folder", lambda: folder)
    monkeypatch.setattr(rlaif_real, "_model", lambda *_: str(tmp_path / "start"))
    size = rlaif_real.Size(train=20, held_out=10, critic=15, evaluator=15, tokens=12, longest_prompt=80)
    monkeypatch.setitem(rlaif_real.SIZES, "main", size)
    with open_run(tmp_path / "run", {}, seed=0) as run:
        late = rlaif_real_claims.real_part("main", [0], run, until=time.monotonic() - 1)
        assert all(claim.note == "not run yet" for claim in late.claims)
        part = rlaif_real_claims.real_part("main", [0, 1], run)
        again = rlaif_real_claims.real_part("main", [0, 1], run, until=time.monotonic() - 1)
    assert again == part
    assert all(claim.measured is not None and claim.interval is not None for claim in part.claims)
    arms, judges = part.tables
    assert [row[0] for row in arms.rows] == ["the base as it is", *(arm.about for arm in ARMS.values())]
    assert {row[0]: row[1] for row in judges.rows}[
        "evaluator"
    ] == 1.0  # longer is preferred, and it counts words
    world_of = rlaif_real.load(folder, size, 0, rlaif_real._policy(str(tmp_path / "start")))
    ids = [i for part_ids in world_of.parts.values() for i in part_ids]
    assert len(ids) == len(set(ids)) == 60


def test_the_collected_data_is_split_by_prompt() -> None:
    folder = rlaif_verdicts.data_folder()
    if folder is None:
        pytest.skip("the collected data (shared/data beside the checkout) is not there")

    class Encoder:
        def prompt(self, text: str) -> list[str]:
            return text.split()

    class Policy:
        encoder = Encoder()

    size = rlaif_real.SIZES["main"]
    found = rlaif_real.load(folder, size, 0, Policy())  # type: ignore[arg-type]
    texts = {name: {found.prompts[i] for i in ids} for name, ids in found.parts.items()}
    assert {name: len(ids) for name, ids in found.parts.items()} == {
        name: getattr(size, name) for name in found.parts
    }
    assert len(set.union(*texts.values())) == sum(map(len, texts.values()))
    assert all(found.answers[g][p] for g in (rlaif_real.WEAK, rlaif_real.STRONG) for p in texts["train"])


def test_the_parts_make_one_paper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rlaif_verdicts, "data_folder", lambda: None)
    with open_run(tmp_path / "run", {}, seed=0) as run:
        found = rlaif.run("smoke", [0], run, until=time.monotonic() - 1)
    assert found.paper == "rlaif" and len(found.claims) == 6 + 8 + 5
    assert replace(found, tier="smoke").title == rlaif.TITLE and set(rlaif.SEEDS) == {"smoke", "main"}
