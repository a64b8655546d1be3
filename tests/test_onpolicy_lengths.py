"""The transformer half of the on-policy paper: its text and labels by hand, how arms are planned, tuned, read and
resumed, and the claims from made-up results."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

import pytest

from heedful import run as run_module
from heedful.errors import HeedfulError, NotFinite, NothingToLearn
from heedful.papers import onpolicy_arms, onpolicy_gold, onpolicy_lengths
from heedful.papers import onpolicy_lengths_text as texts
from heedful.papers.onpolicy_arms import Method, called, course, grid, tuned
from heedful.papers.results import Claim
from heedful.recipes import prefer
from heedful.recipes.prefer import settle
from heedful.run import Run, open_run

SEEDS = (0, 1, 2)


@pytest.fixture(autouse=True)
def no_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "commit", lambda: None)


@pytest.fixture
def run(tmp_path: Path) -> Any:
    with open_run(tmp_path / "run", {}, seed=0) as opened:
        yield opened


# ---- text and labels


def test_the_text_has_a_wide_law_of_lengths_and_answers_its_prompt() -> None:
    asked, draw = texts.prompts(), Random(0)
    assert len(asked) == len(set(asked)) == 1440
    answers = [(prompt, texts.answer(prompt, draw)) for prompt in draw.choices(asked, k=1500)]
    counts = [len(text.replace(".", " .").split()) for _, text in answers]
    mean = fmean(counts)
    spread = math.sqrt(fmean((c - mean) ** 2 for c in counts))
    assert 36 < mean < 44 and spread > 0.45 * mean and min(counts) < 8 and max(counts) < texts.LONGEST
    assert all(text.endswith(".") for _, text in answers)
    places = [(prompt, place) for prompt, text in answers for place in texts.PLACES if place in text.split()]
    assert len(places) > 500 and all(f" {place} " in prompt for prompt, place in places)
    vivid = [any(word in text for word in texts.VIVID) for text in " ".join(t for _, t in answers).split(".")]
    assert 0.15 < fmean(vivid) < 0.25


def drawn(*answers: tuple[str, int], finished: bool = True) -> list[dict[str, Any]]:
    return [
        {"prompt": "Describe the lake.\n", "text": text, "tokens": tokens, "finished": finished}
        for text, tokens in answers
    ]


def test_min_and_mode_prefer_the_shorter_and_the_nearer_answer() -> None:
    some = drawn(("long", 30), ("short", 5), ("middling", 22), ("far", 60))
    shorter = texts.labelled(some, "min", 0, 20.0)
    assert [(row["chosen"], row["rejected"]) for row in shorter] == [("short", "long"), ("middling", "far")]
    nearer = texts.labelled(some, "mode", 0, 20.0)
    assert [(row["chosen"], row["rejected"]) for row in nearer] == [("long", "short"), ("middling", "far")]


def test_equal_and_unfinished_answers_make_no_pair() -> None:
    same = drawn(("a", 7), ("b", 7))
    broken = drawn(("a", 7), finished=False) + drawn(("b", 5))
    assert texts.labelled(same + broken, "min", 0, 20.0) == []
    assert texts.labelled(drawn(("a", 15), ("b", 25)), "mode", 0, 20.0) == []


def test_skew_cuts_the_answers_of_half_the_pairs_and_labels_what_is_left() -> None:
    text = " ".join(f"The lamp number {'x' * (i % 9 + 1)} is old." for i in range(8))
    words = len(text.replace(".", " .").split())
    some = drawn(*[(text, words), (text + " Here it is.", words + 4)] * 200)
    rows = texts.labelled(some, "skew", 0, 20.0)
    whole = [row for row in rows if row["rejected"] == text + " Here it is."]
    assert len(whole) == 100 and all(row["chosen"] == text for row in whole)
    cut = [row for row in rows if row not in whole]
    assert len(cut) > 80
    counts = [len(row[side].replace(".", " .").split()) for row in cut for side in ("chosen", "rejected")]
    assert all(a < b for a, b in zip(counts[::2], counts[1::2], strict=True))
    assert 5 < fmean(counts) < 12 and min(counts) >= 1
    assert all(text.startswith(row["chosen"]) for row in cut)


def test_gold_wants_vivid_sentences_enough_of_them_and_the_place() -> None:
    prompt = "Describe the lake at dawn in spring.\n"
    vivid = (
        "The gate is golden. The roof is amber. The wall is silver. The lake has a velvet tree and a flag."
    )
    plain = "The gate is old. The roof is low. The wall is grey. The tree is cold."
    said = [vivid, "The gate is golden.", "The gate is golden. " * 4, plain, "", "The harbour is golden."]
    scores = texts.gold(prompts=[prompt] * 6, completions=said)
    assert scores == pytest.approx([1.0, 0.2, 0.2, 0.0, 0.0, 0.2])


def test_gold_labels_follow_the_reward_with_bradley_terry_noise() -> None:
    good, bad = "The gate is golden. The lamp is silver.", "The gate is golden. The lamp is old."
    gap = texts.gold(["x"], [good])[0] - texts.gold(["x"], [bad])[0]
    rows = texts.labelled(drawn(*[(bad, 10), (good, 10)] * 2000), "gold", 0, 20.0)
    right = fmean(row["chosen"] == good for row in rows)
    assert right == pytest.approx(1 / (1 + math.exp(-texts.SHARPNESS * gap)), abs=0.03)
    assert 0.6 < right < 0.98


# ---- arms


def test_every_setting_of_every_method_is_one_that_prefer_takes() -> None:
    files = {"data": "p.jsonl", "prompts": "q.jsonl", "eval_prompts": "e.jsonl", "reward_model": "rm"}
    for module in (onpolicy_lengths, onpolicy_gold):
        for method in module.METHODS.values():
            assert len(method.settings) == 4, "equal effort"
            names = {called(knobs) for knobs in method.settings}
            assert len(names) == 4
            for knobs in method.settings:
                cfg = replace(prefer.Config(), **files, **method.options, **knobs, rounds=2, eval_rounds=1)
                settle(cfg)


def fake_world(monkeypatch: pytest.MonkeyPatch) -> None:
    here = Path("x")
    monkeypatch.setattr(
        texts, "make_world", lambda seed, size, run: texts.World(seed, here, here, here, [], 40.0)
    )
    monkeypatch.setattr(
        texts, "settings", lambda world, label, size, run: replace(prefer.Config(), seed=world.seed)
    )


def test_all_methods_have_as_many_answers_in_a_step_and_as_many_steps(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_world(monkeypatch)
    for name, method in onpolicy_lengths.METHODS.items():
        cfg, told = onpolicy_lengths.plan("min", name, 3, {"learning_rate": 1.0}, "main", run)
        answers = cfg.n if method.options["method"] not in ("dpo", "ipo", "sft") else 2
        assert cfg.batch_size * answers == 32 and cfg.prompts_per_round == 2 * cfg.batch_size
        assert cfg.rounds % cfg.eval_rounds == 0 and cfg.seed == 3 and told["mean_tokens"] == 40.0
        assert (cfg.offline_share == 1) == (name in ("dpo", "ipo", "sft"))
    sizes = onpolicy_gold.SIZES["main"]
    for name, batch in sizes.arms:
        cfg, _ = onpolicy_gold.plan(name, batch, 0, {"learning_rate": 1.0}, "main", run)
        answers = cfg.n if name in onpolicy_gold.STALE else 2
        assert cfg.batch_size * answers == 8 and cfg.prompts_per_round * answers == batch
        assert cfg.rounds * batch == sizes.steps * 8 and cfg.rounds % cfg.eval_rounds == 0
        assert cfg.eval_rounds * batch == sizes.every * 8, "marks at the same steps"
    assert {b for m, b in sizes.arms if m in onpolicy_gold.STALE} == {16, 32, 64}


def test_a_course_is_read_off_the_run_folder(tmp_path: Path) -> None:
    def answers(place: str, *lengths: int, score: float) -> None:
        (tmp_path / place).mkdir(parents=True)
        drawn = [{"ids": [1] * (n + 1), "finished": True, "text": "line\u2028separator\x85"} for n in lengths]
        row = {"prompt": "p", "completions": [*drawn, {"ids": [1] * 9, "finished": False, "text": ""}]}
        (tmp_path / place / "samples.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n")
        (tmp_path / place / "feedback.jsonl").write_text(json.dumps({"score": [score, None]}) + "\n")

    answers("before", 20, 30, score=0.0)
    answers("eval/round1", 10, 20, score=1.0)
    answers("after", 1, 2, score=2.0)
    rows = [
        {"stage": f"round{r}", "step": s, "loss": 0.0, "h_w": float(r), "h_l": -1.0}
        for r in range(4)
        for s in (1, 2, 3)
    ]
    rows += [{"stage": "driver", "step": 1, "score": 9.0}, {"stage": "reward", "step": 1, "loss": 1.0}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    cfg = replace(prefer.Config(), rounds=4, eval_rounds=2)
    found = course(tmp_path, 4, cfg)
    assert found["steps"] == [0, 6, 12]
    assert found["lengths"] == [[20, 30, 9], [10, 20, 9], [1, 2, 9]]
    assert found["judge"] == [0.0, 1.0, 2.0] and found["gold"] == [None] * 3
    assert found["h_w"] == [None, 0.5, 2.5] and found["h_l"] == [None, -1.0, -1.0]
    # one that stopped after the fourth of eight rounds stays as it was
    stopped = course(tmp_path, 4, replace(cfg, rounds=8))
    assert stopped["steps"] == [0, 6, 12, 18, 24] and stopped["judge"] == [0.0, 1.0, 2.0, 2.0, 2.0]
    assert stopped["lengths"][2:] == [[1, 2, 9]] * 3 and stopped["h_w"] == [None, 0.5, 2.5, None, None]


def test_the_setting_with_the_best_score_over_the_run_is_taken() -> None:
    method = Method("x", {}, grid((1e-4, 1e-3), beta=(0.1, 2.0)))
    names = ["0.0001-beta0.1", "0.0001-beta2", "0.001-beta0.1", "0.001-beta2"]
    assert [called(knobs) for knobs in method.settings] == names

    def scored(*scores: float | None) -> Any:
        results = [{"failed": "x"} if s is None else {"course": {"judge": [99.0, s, s]}} for s in scores]
        found = dict(zip(names, results, strict=True))
        return tuned(method, "main", lambda knobs: found[called(knobs)])

    assert scored(1.0, 3.0, 2.0, None) == {"learning_rate": 1e-4, "beta": 2.0}
    assert scored(3.0, 3.0, 2.0, None) == {"learning_rate": 1e-4, "beta": 0.1}
    assert tuned(method, "main", lambda knobs: None) is None
    assert tuned(method, "smoke", lambda knobs: pytest.fail("tried")) == method.settings[0]


def test_the_settings_that_were_tried_are_shown_and_the_taken_one_once_all_are(run: Run) -> None:
    methods = {"dpo": Method("DPO", {}, grid((1e-4, 1e-3))), "sft": Method("Pref-FT", {}, grid((1e-4, 1e-3)))}
    better = {**made_up(3.0), "course": {**made_up(3.0)["course"], "judge": [0.0, 2.0]}}
    found = {"dpo-0.0001": made_up(5.0), "dpo-0.001": better, "sft-0.001": {"failed": "x"}}
    for name, result in found.items():
        run.once(f"t/{name}.json", lambda result=result: result)
    table = onpolicy_arms.settings_table("S", "t", methods, "main", run, "note")
    assert table.rows == [
        ["DPO", "0.0001", 1.0, 5.0, 1.0, ""],
        ["DPO", "0.001", 2.0, 3.0, 1.0, "taken"],
        ["Pref-FT", "0.001", None, None, None, "went to pieces"],
    ]
    assert onpolicy_arms.settings_table("S", "t", methods, "smoke", run, "note").rows == []


def test_a_run_that_goes_to_pieces_is_kept_as_such_and_other_errors_are_raised(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(error: HeedfulError) -> Any:
        def finished(cfg: Any, name: str, run: Run) -> Any:
            raise error

        monkeypatch.setattr(onpolicy_arms, "finished", finished)

    breaks(NotFinite("round3, step 2: the loss is nan; nothing was applied"))
    plan = lambda: (prefer.Config(), {"knobs": "k"})  # noqa: E731
    result = onpolicy_arms.arm("a", plan, run, None)
    assert result is not None and result["knobs"] == "k" and "nan" in result["failed"]
    assert onpolicy_arms.tally("Lengths", {("min", "dpo", 0): result}, 2) == [
        "Lengths: 1 of 2 runs are done.",
        "Lengths: went to pieces, and stand behind no claim: min, dpo, seed 0.",
    ]
    breaks(NothingToLearn("round 0: the judge gave no usable difference (32 ties)"))
    tied = onpolicy_arms.arm("c", plan, run, None)
    assert tied is not None and "stopped" not in tied and "ties" in tied["failed"]
    breaks(HeedfulError("the disk is full"))
    with pytest.raises(HeedfulError, match="disk is full"):
        onpolicy_arms.arm("b", plan, run, None)
    assert not run.path("b.json").exists()


def test_a_run_whose_answers_have_become_all_alike_is_measured_as_it_then_is(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int]] = []

    def finished(cfg: Any, name: str, run: Run) -> Any:
        asked.append((name, cfg.rounds))
        if cfg.rounds == 3:
            return {"kl": 3.0}
        rows = [{"stage": "driver", "step": step} for step in (1, 2, 3)]
        run.path(name).mkdir()
        (run.path(name) / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        raise NothingToLearn("round 3: the judge gave no usable difference (32 ties)")

    monkeypatch.setattr(onpolicy_arms, "finished", finished)
    monkeypatch.setattr(
        onpolicy_arms, "course", lambda folder, rounds, cfg: [folder.name, rounds, cfg.rounds]
    )
    cfg = replace(prefer.Config(), schedule="constant", warmup=0.0, rounds=8)
    result = onpolicy_arms.arm("a", lambda: (cfg, {"knobs": "k"}), run, None)
    assert asked == [("a", 8), ("a-stopped", 3)]
    assert result == {"kl": 3.0, "knobs": "k", "stopped": 3, "course": ["a-stopped", 3, 8]}
    told = onpolicy_arms.tally("Lengths", {("min", "dpo", 0): result}, 1)
    assert len(told) == 2 and told[1].endswith("min, dpo, seed 0.")


def test_arms_that_are_done_are_read_and_late_ones_not_begun(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []

    def finished(cfg: Any, name: str, run: Run) -> dict[str, Any]:
        begun.append(name)
        return {"kl": 1.0, "h_w": 0.0, "h_l": 0.0}

    fake_world(monkeypatch)
    monkeypatch.setattr(onpolicy_arms, "finished", finished)
    monkeypatch.setattr(onpolicy_arms, "course", lambda *a: made_up(5.0)["course"])
    late, whole = time.monotonic() - 1, sum(map(len, onpolicy_lengths.SIZES["smoke"].tasks.values()))
    assert onpolicy_lengths.run_arms("smoke", [0], run, late) == {} and begun == []
    assert len(onpolicy_lengths.run_arms("smoke", [0], run)) == whole == len(begun)
    part = onpolicy_lengths.lengths_part("smoke", [0], run, late)
    assert len(begun) == whole and len(part.tables[0].rows) == whole
    assert part.notes == [f"Lengths: {whole} of {whole} runs are done."]
    assert all(claim.holds is None and claim.measured is None for claim in part.claims)
    assert onpolicy_gold.run_arms("smoke", [0], run, late) == {}
    gold = onpolicy_gold.gold_part("smoke", [0], run)
    assert len(gold.tables[0].rows) == len(onpolicy_gold.SIZES["smoke"].arms)


# ---- claims


def made_up(
    end: float, early: float | None = None, *, gold: float = 0.0, h: tuple[float, float] = (1.0, 0.0)
) -> dict[str, Any]:
    marks = onpolicy_lengths.SIZES["main"].rounds // onpolicy_lengths.SIZES["main"].every
    lengths = [[40.0], [end if early is None else early], *[[end]] * (marks - 1)]
    told = {"lengths": lengths, "steps": list(range(marks + 1)), "judge": [0.0] + [1.0] * marks}
    told |= {name: [None] + [1.0] * marks for name in ("h_w", "h_l")}
    more = {"kl": 1.0, "h_w": h[0], "h_l": h[1], "mean_tokens": 40.0, "knobs": "0.001"}
    return {"course": {**told, "gold": [0.1] + [gold] * marks}, **more}


PAPER = {
    "min": {"dpo_online": (1, 1), "dpo": (1, 1), "ppo": (45, 6), "rwr": (135, 72), "sft": (90, 90)},
    "skew": {"dpo_online": (0, 0), "dpo": (10, 10), "ppo": (20, 14), "rwr": (30, 22)},
    "mode": {"dpo_online": (203, 203), "dpo": (206, 206), "ppo": (210, 210), "rwr": (208, 208)},
}
"""Lengths in the paper's figures, early and at the end; of Mode, distances of a few tokens. Its mode is 203."""


def published() -> Done:
    """The paper's figures on the scale of this world, whose mode is 40."""
    done = {}
    for task, methods in PAPER.items():
        for method, (early, end) in {**methods, **({"ipo": (1, 1)} if task == "min" else {})}.items():
            for seed in SEEDS:
                done[task, method, seed] = made_up(end * 40 / 203, early * 40 / 203)
    return done


def said(done: Done, tier: Any = "main", seeds: tuple[int, ...] = SEEDS) -> dict[str, Claim]:
    found = onpolicy_lengths.claims(done, tier, seeds)
    assert len({claim.claim for claim in found}) == len(found)
    return {claim.claim.removeprefix("Lengths: "): claim for claim in found}


def test_the_papers_own_figures_fulfil_its_claims() -> None:
    found = said(published())
    judged = {text: claim for text, claim in found.items() if claim.measured is not None}
    assert all(claim.holds for claim in judged.values()), [t for t, c in judged.items() if not c.holds]
    left = [claim for claim in found.values() if claim.measured is None]
    assert len(left) == 2 and all(claim.paper == onpolicy_lengths.REPORTED for claim in left)
    assert all(claim.note == "not run yet" for claim in left)
    size = onpolicy_lengths.SIZES["main"]
    assert (
        size.rounds * onpolicy_lengths.PER_ROUND == 6 * size.every * onpolicy_lengths.PER_ROUND * size.early
    )
    early = next(t for t in judged if t.startswith("on Min") and "after 14 steps of PPO than of RWR" in t)
    assert judged[early].measured == pytest.approx((135 - 45) * 40 / 203)


def test_orders_that_are_reversed_do_not_hold_and_a_single_seed_is_undecided() -> None:
    done = published()
    for seed in SEEDS:
        done["min", "ppo", seed], done["min", "dpo", seed] = (
            done["min", "dpo", seed],
            done["min", "ppo", seed],
        )
        done["skew", "dpo", seed] = made_up(0.5)
    found = said(done)
    for text in ("of DPO than of PPO", "offline DPO stays more than 1 token above"):
        assert [claim.holds for t, claim in found.items() if text in t and "on Skew answers" not in t] == [
            False
        ] * (2 if "PPO" in text else 1)
    # a token longer is still "at most a token longer"
    near = {**published(), **{("min", "dpo_online", s): made_up(1.1, 1.1) for s in SEEDS}}
    assert all(c.holds for t, c in said(near).items() if t.startswith("on Min answers are at most 1 token"))
    one = said(published(), seeds=(0,))
    assert {claim.holds for claim in one.values() if claim.measured is not None} == {None}


def test_mode_is_judged_by_the_distance_from_the_mode() -> None:
    found = said(published())
    alike = next(c for t, c in found.items() if t.startswith("on Mode"))
    assert alike.measured == pytest.approx(7 / 203) and alike.holds
    done = {**published(), **{("mode", "ppo", seed): made_up(30.0) for seed in SEEDS}}
    apart = next(c for t, c in said(done).items() if t.startswith("on Mode"))
    assert apart.measured == pytest.approx(0.25) and apart.holds is False


def test_a_run_that_failed_stands_behind_no_claim_and_the_smoke_tier_claims_nothing() -> None:
    done = {**published(), ("min", "ppo", 1): {"failed": "x", "knobs": "k"}}
    claim = next(c for t, c in said(done).items() if "of DPO than of PPO" in t)
    assert claim.measured is not None and claim.note.endswith("2 seeds")
    assert len(onpolicy_lengths.lengths_table(done, "main").rows) == len({key[:2] for key in done})
    assert all(c.measured is None and "smoke" in c.note for c in said(published(), "smoke").values())


def gold_results(ends: dict[str, dict[int, float]]) -> Done:
    done = {
        (f"B {batch}", method, seed): made_up(9.0, gold=value + 0.001 * seed)
        for method, values in ends.items()
        for batch, value in values.items()
        for seed in SEEDS
    }
    for seed in SEEDS:
        done["B 16", "dpo", seed] = made_up(9.0, gold=0.4, h=(-0.05, -0.088 - 0.001 * seed))
        done["B 16", "sft", seed] = made_up(9.0, gold=0.3, h=(0.0105, 0.0105))
    return done


def test_gold_claims_hold_for_the_papers_figures_and_fail_for_reversed_ones() -> None:
    figures = {"rwr": {16: 0.71, 32: 0.67, 64: 0.56}, "reinforce": {16: 0.73, 32: 0.66, 64: 0.62}}
    found = onpolicy_gold.claims(gold_results(figures), "main", SEEDS)
    assert len(found) == 10 and all(claim.holds for claim in found)
    order = next(c for c in found if "REINFORCE ends higher the smaller B" in c.claim)
    assert order.measured == pytest.approx(0.04)
    figures["rwr"] = {16: 0.56, 32: 0.67, 64: 0.71}
    found = onpolicy_gold.claims(gold_results(figures), "main", SEEDS)
    assert [c.holds for c in found if " RWR " in c.claim] == [False] * 3
    assert all(c.holds is None for c in onpolicy_gold.claims({}, "main", SEEDS))


def test_plots_and_tables_are_made_of_what_there_is() -> None:
    plots = onpolicy_lengths.plots(published(), "main")
    assert [plot.title for plot in plots] == ["Lengths on Min", "Lengths on Skew", "Lengths on Mode"]
    assert [series.name for series in plots[1].series] == ["on-policy DPO", "DPO", "PPO", "RWR"]
    dpo = next(series for series in plots[2].series if series.name == "DPO")
    assert dpo.y[1:] == pytest.approx([3 * 40 / 203] * 6) and dpo.low is not None
    made = onpolicy_gold.plots(gold_results({"rwr": {16: 0.7, 64: 0.5}}), "main")
    assert [series.name for series in made[0].series] == ["B = 16", "B = 64"]


# ---- end to end


def test_a_tiny_world_is_learned_in_and_resumed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    world = texts.Size(reading=400, steps=60, prompts=24, answers=4, held_out=4, reward_epochs=1.0)
    monkeypatch.setattr(texts, "LONGEST", 24)
    size = onpolicy_lengths.SIZES["smoke"]
    tasks: Any = {"min": ("dpo_online",)}
    monkeypatch.setitem(onpolicy_lengths.SIZES, "smoke", replace(size, world=world, rounds=2, tasks=tasks))
    gold = replace(onpolicy_gold.SIZES["smoke"], world=world, arms=(("sft", 16),), steps=2, every=2)
    monkeypatch.setitem(onpolicy_gold.SIZES, "smoke", gold)
    part = onpolicy_lengths.lengths_part("smoke", [0], run)
    result = json.loads(run.path("lengths/seed0/min/dpo_online.json").read_text())
    assert result["course"]["steps"] == [0, 2, 4] and result["method"] == "dpo" and result["rounds"] == 2
    assert all(len(lengths) == 4 and max(lengths) <= 24 for lengths in result["course"]["lengths"])
    assert None not in result["course"]["h_w"][1:] and None not in result["course"]["judge"]
    assert [table.title for table in part.tables] == [
        "Lengths: every method",
        "Lengths: pi_ref and reward models",
    ]
    stale = onpolicy_gold.gold_part("smoke", [0], run)
    told = json.loads(run.path("gold/seed0/B16/sft.json").read_text())
    assert None not in told["course"]["gold"] and told["gold_score_after"] == pytest.approx(
        told["course"]["gold"][-1], abs=1e-5
    )
    assert stale.tables[0].rows[0][:2] == ["Pref-FT", 16]
    monkeypatch.setattr(prefer, "run", lambda *a: pytest.fail("run again"))
    assert onpolicy_lengths.lengths_part("smoke", [0], run) == part
