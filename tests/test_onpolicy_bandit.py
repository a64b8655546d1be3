"""The bandit half of the on-policy paper: what is run and tuned, how it resumes, and claims from made-up results."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heedful.papers import onpolicy_bandit
from heedful.papers.onpolicy_bandit import (
    ABLATED,
    SIZES,
    TUNING_SEEDS,
    Bench,
    bandit_part,
    grid,
    run_arms,
    setups,
)
from heedful.papers.onpolicy_bandit_claims import ASSERTED, REPORTED, after, claims, last, over_run
from heedful.papers.onpolicy_bandit_page import notes, plots, tables
from heedful.papers.onpolicy_driver import Knobs, Setting
from heedful.papers.onpolicy_theory import theory_part
from heedful.papers.results import Claim, joined, write_results
from heedful.papers.seeds import Done
from heedful.run import Run, open_run

SEEDS = (0, 1, 2, 3, 4)

# ---- what is run


def test_every_setting_has_a_name_of_its_own_and_reported_seeds_are_not_tuned_on() -> None:
    for tier in ("smoke", "main"):
        plan = setups(tier)
        assert len({setup.setting.name for setup in plan.values()}) == len(plan)
        for setup in plan.values():
            assert any(setup.tuned_in is other.setting for other in plan.values())
            assert all(grid(setup.tuned_in, method, tier) for method in setup.methods)
    assert not set(TUNING_SEEDS) & set(range(1000))


def test_the_protocol_is_that_of_the_paper() -> None:
    plan = {key: setup.setting for key, setup in setups("main").items()}
    for world, steps in (("context", 200), ("tokens", 200)):
        offline = plan[f"{world} optimal offline"]
        assert (offline.prompts, offline.samples, offline.rounds, offline.steps) == (100, 10, 1, steps)
        assert not offline.online and plan[f"{world} optimal online"].online
    assert plan["context optimal offline gap"].gap == 0.2 and plan["context optimal online"].steps == 375
    budgets = {key: s for key, s in plan.items() if key.startswith("context budget")}
    assert [s.reuse for s in budgets.values()] == [1, 10, 20, 50, 100]
    for s in budgets.values():
        assert s.steps == 100 and s.rounds * s.prompts * s.samples == 10_000
    for world in ("context", "tokens"):
        stale = [s for key, s in plan.items() if key.startswith(f"{world} B ")]
        assert {s.minibatch * s.samples for s in stale} == {100} and len({s.steps for s in stale}) == 1
        assert len({s.rounds * s.batch for s in stale}) == 1, "as many samples in all"
        assert [s.batch // 10 for s in stale] == list(SIZES["main"][world].staleness)
    assert sorted(s.prompts for key, s in plan.items() if "prompts" in key) == [5, 10, 1000]


def test_runs_are_measured_where_the_claims_read_them() -> None:
    for world in ("context", "tokens"):
        plan = {key: setup.setting for key, setup in setups("main").items()}
        for key in (f"{world} optimal online", f"{world} T 1"):
            setting = plan[key]
            rounds = setting.every / (setting.steps / setting.rounds)
            assert 10 % rounds == 0, (
                "at the end of the tenth round, so after 1000 samples and all passes over them"
            )


# ---- tuning and resuming


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return open_run(tmp_path / "run", {}, seed=0)


class Learner:
    """Stands in for `learn`: notes what is asked, and makes 0.01 the best rate, and a sharp 10 better than 50."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str, int]] = []
        self.dies_at = -1

    def __call__(self, setting: Setting, method: str, knobs: Knobs, world: Any) -> dict[str, list[Any]]:
        if len(self.asked) == self.dies_at:
            self.dies_at = -1
            raise KeyboardInterrupt
        self.asked.append((setting.name, method, knobs.name, world))
        reward = 0.9 - 0.1 * abs(knobs.lr - 0.01) / 0.01 - knobs.sharp / 1000
        return course(reward, 0.1 * world)


@pytest.fixture
def learner(monkeypatch: pytest.MonkeyPatch) -> Learner:
    made = Learner()
    monkeypatch.setattr(onpolicy_bandit, "learn", made)
    monkeypatch.setattr(onpolicy_bandit, "make_world", lambda name, seed, run: seed)
    return made


def course(end: float, start: float = 0.04, h_w: float | None = 3.0, middle: float | None = None) -> Any:
    middle = (start + end) / 2 if middle is None else middle
    numbers = {name: [0.0, 1.0, 2.0] for name in ("kl", "kl_forward", "kl_sampler", "entropy", "h_l")}
    return {
        "step": [0, 100, 200],
        "samples": [0, 1000, 2000],
        "reward": [start, middle, end],
        "h_w": [0.0, 1.0, h_w],
        **numbers,
    }


def shorten(monkeypatch: pytest.MonkeyPatch, *kept: str) -> None:
    """Run no more than these setups."""
    plan = {key: setup for key, setup in setups("smoke").items() if key in kept}
    monkeypatch.setattr(onpolicy_bandit, "setups", lambda tier: plan)


def test_knobs_are_chosen_on_tuning_seeds_alone_and_kept(run: Run, learner: Learner) -> None:
    setup = setups("main")["context optimal online"]
    bench = Bench("main", run)
    result = bench.arm(setup, "rwr", 3)
    assert result is not None and (result["lr"], result["sharp"]) == (0.01, 0.1)
    assert {seed for *_, seed in learner.asked[:-1]} == set(TUNING_SEEDS) and learner.asked[-1][-1] == 3
    tried = len(grid(setup.setting, "rwr", "main")) * len(TUNING_SEEDS)
    assert len(learner.asked) == tried + 1
    bench.arm(setup, "rwr", 4)
    ablation = setups("main")["context B 5"]
    assert bench.arm(ablation, "rwr", 3) is not None
    assert len(learner.asked) == tried + 3, (
        "nothing is tuned twice, and an ablation takes the knobs of its base"
    )
    assert Bench("main", run).arm(setup, "rwr", 3) == result and len(learner.asked) == tried + 3


def test_stopped_anywhere_the_same_results_come_out_and_nothing_is_done_twice(
    tmp_path: Path, learner: Learner, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten(monkeypatch, "context optimal offline", "context mode offline gap")
    with open_run(tmp_path / "whole", {}, seed=0) as run:
        whole = run_arms("smoke", [0, 1], run)
    calls = list(learner.asked)
    assert len(set(calls)) == len(calls)
    learner.asked.clear()
    with open_run(tmp_path / "torn", {}, seed=0) as run:
        for at in (1, 7, len(calls) // 2, len(calls) - 1):
            learner.dies_at = at
            with pytest.raises(KeyboardInterrupt):
                run_arms("smoke", [0, 1], run)
        assert run_arms("smoke", [0, 1], run) == whole
    assert learner.asked == calls


def test_after_the_time_nothing_is_begun_and_what_is_done_is_read(run: Run, learner: Learner) -> None:
    late = time.monotonic() - 1
    assert run_arms("smoke", [0], run, late) == {} and learner.asked == []
    bench = Bench("smoke", run)
    setup = setups("smoke")["context mode offline"]
    bench.arm(setup, "bon", 0)
    done = run_arms("smoke", [0], run, late)
    assert set(done) == {("context mode offline", "bon", 0)}
    part = bandit_part("smoke", [0], run, late)
    assert "1 of" in part.notes[0] and all(claim.holds is None for claim in part.claims)


def test_tuning_that_was_cut_short_chooses_nothing(run: Run, learner: Learner) -> None:
    setup = setups("main")["context optimal online"]
    learner.dies_at = 4
    with pytest.raises(KeyboardInterrupt):
        Bench("main", run).arm(setup, "bon", 0)
    assert Bench("main", run, until=time.monotonic() - 1).arm(setup, "bon", 0) is None
    assert len(learner.asked) == 4


def test_the_smoke_tier_runs_for_real_and_again_from_what_it_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten(monkeypatch, "context optimal online", "context mode offline gap")
    with open_run(tmp_path / "run", {}, seed=0) as run:
        first = bandit_part("smoke", [0], run)
        monkeypatch.setattr(onpolicy_bandit, "learn", None)
        assert bandit_part("smoke", [0], run) == first
    offline, online = first.tables[:2]
    assert [row[2] for row in offline.rows] == ["Pref-FT", "DPO", "IPO"] and len(online.rows) == 6
    rewards: list[Any] = [row[online.columns.index("at the end")] for row in online.rows]
    assert all(0.03 < reward < 0.2 for reward in rewards)
    path = write_results(joined("onpolicy", "On-policy", [first, theory_part(draws=200)]), tmp_path / "out")
    assert "One action: on policy" in path.with_suffix(".md").read_text()


# ---- claims

ENDS = {
    "optimal offline": {"pref_ft": 0.07, "bon": 0.30, "rwr": 0.93, "dpo": 0.60, "ipo": 0.50},
    "optimal offline gap": {"pref_ft": 0.65, "dpo": 0.80, "ipo": 0.70},
    "mode offline": {"pref_ft": 0.57, "bon": 0.95, "rwr": 0.94, "dpo": 0.99, "ipo": 0.97},
    "mode offline gap": {"pref_ft": 0.74, "dpo": 0.99, "ipo": 0.94},
}


def good(seeds: tuple[int, ...] = SEEDS) -> Done:
    """Results in which all that is asserted holds, and on-policy IPO and BoN tie."""
    done: Done = {}
    for key, setup in setups("main").items():
        kind, _, number = key.split(" ", 1)[1].rpartition(" ")
        for method in setup.methods:
            for seed in seeds:
                jitter = 0.001 * seed
                end = ENDS.get(key.split(" ", 1)[1], {}).get(method, 0.99) + jitter
                made = course(end, middle=0.95)
                if kind in ("B", "budget"):
                    made = course(0.9 - 0.004 * int(number) + jitter)
                if kind == "T":
                    made = course(0.9, middle=0.2 if number == "1" else 0.9)
                if kind == "prompts" or key == "context optimal offline gap":
                    count = int(number) if kind == "prompts" else 100
                    made["h_w"][-1] = {5: 4.5, 10: 3.8, 100: 3.0, 1000: 2.8}[count] + jitter
                done[key, method, seed] = {"lr": 0.01, "sharp": 0.1, **made}
    return done


def by_text(found: list[Claim], *parts: str) -> list[Claim]:
    return [claim for claim in found if all(part in claim.claim for part in parts)]


def only(found: list[Claim], *parts: str) -> Claim:
    (claim,) = by_text(found, *parts)
    return claim


def test_in_a_world_as_the_paper_has_it_all_that_is_asserted_holds() -> None:
    found = claims(good(), "main", SEEDS)
    assert len({claim.claim for claim in found}) == len(found)
    asserted = [claim for claim in found if claim.paper in (ASSERTED, "Figure 16, a trend")]
    assert len(asserted) > 25 and all(claim.holds for claim in asserted)
    assert all(claim.interval is not None and "5 seeds" in claim.note for claim in asserted)
    lead = only(found, "One action", "peaks off pi_ref, offline IPO ends higher")
    assert lead.measured == pytest.approx(0.70 - 0.30) and "at least 0.2 apart" in lead.note
    lead = only(found, "Ten tokens", "peaks off pi_ref, offline IPO ends higher")
    assert lead.measured == pytest.approx(0.50 - 0.30) and "apart" not in lead.note
    fewer = only(found, "One action", "PPO learns slower")
    assert fewer.measured == pytest.approx(0.75 * 0.004 * 49)
    trend = only(found, "the more prompts")
    by_hand = np.polyfit(np.log10([5, 10, 100, 1000]), [4.5, 3.8, 3.0, 2.8], 1)[0]
    assert trend.measured == pytest.approx(by_hand)
    assert only(found, "One action", "within 0.1 of BoN").measured == pytest.approx(0.04)
    bigger = only(found, "One action", "lead over BoN is larger")
    assert bigger.measured == pytest.approx(0.40 - (-0.01))


def test_what_is_not_robust_is_reported_whatever_it_is() -> None:
    found = [claim for claim in claims(good(), "main", SEEDS) if claim.paper == REPORTED]
    assert len(found) == 4
    sharp = only(found, "One action", "RWR")
    assert sharp.holds is False and sharp.measured == pytest.approx(0.70 - 0.93)
    assert all(claim.holds is False for claim in by_text(found, "on-policy IPO learns faster")), (
        "a tie is no lead"
    )
    other = claims(good(), "main", SEEDS)
    assert only(other, "those at least 0.2 apart", "IPO").measured == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("setup", "method", "broken"),
    [
        ("context optimal offline gap", "ipo", "peaks off pi_ref, offline IPO ends higher"),
        ("tokens optimal offline", "dpo", "peaks off pi_ref, offline DPO ends higher"),
        ("context optimal online", "dpo", "DPO gets further with samples of the policy itself"),
        ("tokens B 1", "bon", "BoN learns slower"),
        ("context optimal online", "ppo", "PPO gets further per sample"),
        ("context budget 1", "ppo", "PPO gets further when samples are renewed"),
        ("context mode offline", "bon", "within 0.1 of BoN"),
    ],
)
def test_each_claim_fails_when_its_results_do(setup: str, method: str, broken: str) -> None:
    done = good()
    for seed in SEEDS:
        done[setup, method, seed] = {"lr": 0.01, "sharp": 0.0, **course(0.02, middle=0.02)}
    world = "One action" if setup.startswith("context") else "Ten tokens"
    assert only(claims(done, "main", SEEDS), world, broken).holds is False


def test_one_seed_decides_nothing_and_a_noisy_lead_is_undecided() -> None:
    one = claims(good((0,)), "main", (0,))
    assert not any(claim.holds for claim in one) and all("1 seed" in claim.note for claim in one)
    done = good()
    for seed, end in zip(SEEDS, (0.2, 0.9, 0.2, 0.9, 0.9), strict=True):
        done["context optimal offline gap", "ipo", seed]["reward"][-1] = end
    assert only(claims(done, "main", SEEDS), "One action", "offline IPO ends higher than BoN").holds is None


def test_seeds_without_all_that_is_compared_are_left_out() -> None:
    done = good()
    del done["context optimal offline", "bon", 2]
    found = claims(done, "main", SEEDS)
    assert "4 seeds" in only(found, "One action", "offline IPO ends higher than BoN").note
    assert "5 seeds" in only(found, "Ten tokens", "offline IPO ends higher than BoN").note
    assert all(claim.measured is None and claim.note == "not run yet" for claim in claims({}, "main", SEEDS))
    assert all(claim.measured is None for claim in claims(good(), "smoke", SEEDS))


def test_prompts_without_a_pair_are_passed_over() -> None:
    done = good()
    done["context prompts 5", "ipo", 0]["h_w"][-1] = None
    trend = only(claims(done, "main", SEEDS), "the more prompts")
    assert "5 seeds" in trend.note and trend.holds
    done["context prompts 10", "ipo", 0]["h_w"][-1] = None
    assert "4 seeds" in only(claims(done, "main", SEEDS), "the more prompts").note


def test_readings_of_a_result() -> None:
    result = course(0.9, start=0.1, middle=0.5)
    assert last(result) == 0.9 and over_run(result) == pytest.approx(0.7)
    assert after(result, 1000) == 0.5 and after(result, 1999) == 0.5 and after(result, 2000) == 0.9


def test_tables_and_plots_show_every_run_and_the_probe() -> None:
    done = good()
    made = {table.title: table for table in tables(done, "main", SEEDS)}
    assert len(made) == 4 + 3 + 2, (
        "offline and on policy, the ablations; there is no data budget for ten tokens"
    )
    rows = made["One action: offline"].rows
    (ipo,) = [row for row in rows if row[:3] == ["optimal", "0.2", "IPO"]]
    assert ipo[5] == pytest.approx(0.702) and ipo[-1] == ".70, KL 3.1"
    assert ipo[6] == pytest.approx(2.77645 * 0.001 * 2.5**0.5 / 5**0.5, rel=1e-3)
    budget = made["One action: the paper's data-budget ablation"].rows
    assert [row[1] for row in budget if row[0] == "PPO"] == [1, 10, 20, 50, 100]
    reuse = made["One action: reuse of samples"].rows
    assert [row[1] for row in reuse if row[0] == "BoN"] == [1, 5, 15, 50], "with the on-policy run itself"

    drawn = {plot.title: plot for plot in plots(done, "main", SEEDS)}
    lines = {series.name: series for series in drawn["One action: implicit rewards of offline IPO"].series}
    assert list(lines["winners"].y) == pytest.approx([4.502, 3.802, 3.002, 2.802])
    on_policy = drawn["Ten tokens: on policy, reward off pi_ref"].series
    assert len(on_policy) == 6 and on_policy[0].low is not None
    assert len(drawn["One action: reuse of samples"].series) == len(ABLATED)
    assert tables({}, "main", SEEDS) == [] and plots({}, "main", SEEDS) == []
    assert "fewer than" in notes(good((0,)), "main", (0,))[1]
    assert not any("fewer than" in note for note in notes(done, "main", SEEDS))
    assert "5 (One action) and 2 (Ten tokens) worlds" in notes(done, "main", SEEDS)[1]
