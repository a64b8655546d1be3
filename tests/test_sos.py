"""The reproduction of Stream of Search: arms in order, resumed, stopped, gated; statistics; claims that can fail."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from heedful.data.countdown.game import STRATEGIES, tree_size
from heedful.data.countdown.instances import draw
from heedful.data.countdown.streams import stream
from heedful.errors import NothingToLearn
from heedful.papers import onpolicy_arms, sos, sos_arms, sos_claims, sos_measure, sos_page
from heedful.papers.results import Claim, Results, write_results
from heedful.papers.sos_arms import CONTROLS, IMPROVED, NAMES, PRETRAINED, SIZES, Size
from heedful.papers.sos_measure import INPUTS, SETS, TARGETS
from heedful.recipes import search, search_eval, search_improve
from heedful.recipes.search_countdown import instances_of
from heedful.recipes.search_world import Settings, open_world, settings_of
from heedful.run import Run, open_run

GAME = replace(
    search.Config(),
    numbers=2,
    inputs=(1, 20),
    targets=(10, 19),
    eval_share=0.4,
    problems=1000,
    size="tiny",
    context=40,
    batch_size=8,
    learning_rate=4e-3,
    save_every=0,
    precision="fp32",
    device="cpu",
)
TINY = Size(
    GAME,
    star={"rounds": 1, "problems": 150},
    apa={"rounds": 2, "problems": 8, "critic_rounds": 1, "check_every": 1, "check_problems": 4},
    test=12,
    tries=2,
    pool=60,
    hard=8,
    gated=False,
)
DEEP = replace(TINY, pretrain=replace(GAME, problems=64), arms=PRETRAINED, pool=8, hard=2, seeds=1)


def reproduce(run: Run, until: float | None = None, seeds: list[int] | None = None) -> Results:
    return sos.run("main", seeds or [0], run, until)


# ---- the whole of it, at a size of seconds


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(run folder, results) of all arms of one seed, and of K = 4."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "main", {"k3": TINY, "k4": replace(DEEP, arms=("sos",))})
        folder = tmp_path_factory.mktemp("sos")
        with open_run(folder, {}, seed=0) as run:
            results = reproduce(run)
        yield folder, results


def test_every_arm_is_measured_and_the_page_shows_it(whole: Any, tmp_path: Path) -> None:
    folder, results = whole
    titles = {table.title: table for table in results.tables}
    accuracy = titles["K3: accuracy"].rows
    assert [row[0] for row in accuracy] == [*NAMES.values(), "symbolic mixture"]
    assert [row[0] for row in titles["K4: accuracy"].rows] == ["SoS", "symbolic mixture"]
    tokens = {row[0]: row[2] for row in accuracy}
    own = {row[0]: row[3] for row in accuracy}
    assert tokens[NAMES["op_tokens"]] == pytest.approx(tokens[NAMES["sos"]], rel=1e-3)
    assert tokens[NAMES["op_problems"]] < tokens[NAMES["sos"]] and own[NAMES["sos"]] is None
    for control, method in CONTROLS.items():
        assert own[NAMES[control]] == pytest.approx(own[NAMES[method]], rel=0.1), "up to a row's length"
        assert tokens[NAMES[method]] == pytest.approx(tokens[NAMES["sos"]] + own[NAMES[method]])
    measured = [claim for claim in results.claims if claim.measured is not None]
    assert len(measured) > 15 and all(claim.holds is None for claim in measured), "one seed decides nothing"
    page = write_results(results, tmp_path / "sos.json").with_suffix(".md").read_text()
    for part in (
        "K3: errors",
        "K3: alignment in which states are visited",
        "K4: accuracy against token budget",
        "dfs-sum",
        "seed by seed",
    ):
        assert part in page
    assert (folder / "k3" / "seed0" / "apa-eval" / "report.html").exists(), "each arm has a report of its own"


def test_the_same_command_again_does_nothing_twice(whole: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, results = whole

    def again(*_: Any) -> Any:
        raise AssertionError("done already")

    for module in (search, search_improve, search_eval):
        monkeypatch.setattr(module, "run", again)
    monkeypatch.setattr(sos_arms, "symbolic", again)
    with open_run(folder, {}, seed=0) as run:
        assert reproduce(run, time.monotonic() - 1) == results


def test_all_arms_of_a_seed_answer_the_same_problems_that_none_was_trained_on(whole: Any) -> None:
    folder, _ = whole
    asked = {}
    for method in NAMES:
        for side in SETS:
            text = (folder / f"k3/seed0/{method}-eval/{side}/greedy-samples.jsonl").read_text()
            asked.setdefault(side, set()).add(tuple(line.split('"')[3] for line in text.splitlines()))
    assert all(len(found) == 1 for found in asked.values())
    instances = instances_of(settings_of(replace(GAME, seed=sos_arms.FRESH)))
    fresh = {(*sorted(row[2:4]), row[0]) for row in draw(instances, "train", 0, 500).problems.tolist()}
    words = [prompt.split() for found in asked.values() for prompt in next(iter(found))]
    assert not fresh & {(*sorted(map(int, w[3:])), int(w[1])) for w in words}


# ---- order, time, gate: with arms that are made up


def one_set(
    n: int = TINY.test, *, right: float = 0.5, wrong: float = 0.0, passed: float = 0.8
) -> dict[str, Any]:
    flags = [int(i < right * n) for i in range(n)]
    return {
        "solved": flags,
        "legacy": flags,
        "tokens": [20.0] * n,
        "ended": [1] * n,
        **dict.fromkeys(sos_page.KINDS, [0.0] * n),
        "arithmetic": [wrong * 4] * n,
        "explored": [4.0] * n,
        "pass": {"1": [right] * n, "2": [passed] * n},
        "tries_tokens": 9.0,
    }


def sets(**how: Any) -> dict[str, Any]:
    made = {name: one_set(**how) for name in (*SETS, "unsolved", "difficult")}
    made[INPUTS]["states"] = dict.fromkeys(STRATEGIES, 0.25)
    return made


@pytest.fixture
def faked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Arms that are made up at once. `made`: the stages in order; `sos`: what is measured; `fails`: a method."""
    world: dict[str, Any] = {"made": [], "sos": {"right": 0.5, "wrong": 0.01}, "fails": ""}

    def trained(folder: str, *_: Any) -> dict[str, Any]:
        world["made"].append(folder)
        if folder.endswith(world["fails"] or "no folder"):
            raise NothingToLearn("round 0: none of 40 streams is solved")
        return {"before": 0.0, "work": 300.0, "row": 10.0, "problems": 100, "cut": 0.0, "parameters": 7}

    def measured(folder: str, *_: Any, **how: Any) -> dict[str, Any]:
        world["made"].append(f"{folder}-eval")
        return sets(**world["sos"])

    monkeypatch.setitem(SIZES, "main", {"k3": replace(TINY, gated=True), "k4": DEEP})
    monkeypatch.setattr(sos_arms, "pretrained", trained)
    monkeypatch.setattr(sos_arms, "improved", trained)
    monkeypatch.setattr(sos_arms, "measured", measured)
    return world


def test_what_says_most_comes_first_and_depth_last(faked: dict[str, Any], tmp_path: Path) -> None:
    with open_run(tmp_path, {}, seed=0) as run:
        reproduce(run, seeds=[0, 1])
    arms = [stage for stage in faked["made"] if not stage.endswith("-eval")]
    order = [f"k3/seed{seed}/{method}" for seed in (0, 1) for method in (*PRETRAINED, *IMPROVED, *CONTROLS)]
    assert arms == [*order, *(f"k4/seed0/{method}" for method in PRETRAINED)]


def test_time_ends_between_pieces_and_the_next_start_goes_on(
    faked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, start = 0.0, sos_arms.pretrained
    monkeypatch.setattr(onpolicy_arms, "time", SimpleNamespace(monotonic=lambda: now))

    def slow(folder: str, *rest: Any) -> Any:
        nonlocal now
        now += 10
        return start(folder, *rest)

    monkeypatch.setattr(sos_arms, "pretrained", slow)
    with open_run(tmp_path, {}, seed=0) as run:
        first = reproduce(run, until=15)
        assert faked["made"] == ["k3/seed0/sos", "k3/seed0/sos-eval", "k3/seed0/op_tokens"]
        assert all(claim.measured is None for claim in first.claims if "optimal paths" in claim.claim)
        assert "K3: 1 of 7 arms are done." in first.notes and "K4: 0 of 3 arms are done." in first.notes
        now = 0.0
        reproduce(run)
    assert len(faked["made"]) == len(set(faked["made"])) == 2 * (7 + 3)


def test_where_nothing_was_run_no_claim_says_anything(tmp_path: Path) -> None:
    with open_run(tmp_path / "run", {}, seed=0) as run:
        for tier in SIZES:
            results = sos.run(tier, [0, 1, 2], run, until=time.monotonic() - 1)
            assert len(results.claims) > 20 and not results.tables and not results.plots
            assert all(claim.measured is None and claim.holds is None for claim in results.claims)
            assert write_results(results, tmp_path / f"{tier}.json").exists()


@pytest.mark.parametrize("sos_is", [{"right": 0.5, "wrong": 0.06}, {"right": 0.2, "wrong": 0.01}])
def test_a_closed_gate_leaves_improvement_undone_and_says_so(
    sos_is: dict[str, float], faked: dict[str, Any], tmp_path: Path
) -> None:
    faked["sos"] = sos_is
    with open_run(tmp_path, {}, seed=0) as run:
        results = reproduce(run, seeds=[0, 1, 2])
    assert not any(method in stage for stage in faked["made"] for method in (*IMPROVED, *CONTROLS))
    about = [claim for claim in results.claims if "STaR" in claim.claim or "APA" in claim.claim]
    assert len(about) == 14
    for claim in about:
        assert claim.measured is None and claim.holds is None and "the gate is not passed" in claim.note
    gates = [claim.holds for claim in results.claims if claim.paper.startswith("a gate of our protocol")]
    assert gates == [sos_is["wrong"] < 0.05, sos_is["right"] > 0.3]
    assert any("seed 2: the gate is not passed" in note for note in results.notes)
    assert any(stage.startswith("k4") for stage in faked["made"]), "depth does not wait for improvement"


def test_a_method_that_has_nothing_to_learn_from_takes_its_control_along(
    faked: dict[str, Any], tmp_path: Path
) -> None:
    faked["fails"] = "star"
    with open_run(tmp_path, {}, seed=0) as run:
        results = reproduce(run)
        again = reproduce(run)
    assert results == again and "k3/seed0/more_star" not in faked["made"]
    assert {"k3/seed0/apa-eval", "k3/seed0/more_apa-eval"} <= set(faked["made"])
    held = {claim.claim: claim for claim in results.claims}
    failed = next(c for name, c in held.items() if "STaR solves more than SoS, on held-out inputs" in name)
    assert failed.measured is None and "none of 40 streams is solved" in failed.note
    assert any(
        "APA solves more than SoS, on held-out inputs" in n and c.measured == 0 for n, c in held.items()
    )


# ---- statistics


def test_compute_is_counted_in_tokens_trained_on() -> None:
    star = search_improve.settle(search_improve.Config(method="star", rounds=2, problems=30, epochs=2))
    rounds = [{"tokens": 8.0, "kept": 10}, {"tokens": 18.0, "kept": 20}]
    # 30 streams of 10 and of 20 tokens are drawn, a third each; 10 and 20 of them are learned from twice
    assert sos_arms.work(star, rounds, 2) == pytest.approx(10 * (10 + 20) + 20 * (10 + 40))
    apa = search_improve.settle(
        search_improve.Config(
            method="apa", rounds=2, problems=6, epochs=2, critic_rounds=3, check_every=2, check_problems=3
        )
    )
    # rounds: drawn, reference, critic; then both models twice. The critic alone: 3 x 6 streams. One look: 3 streams.
    expected = (60 + 120) * (1 + 4) + 10 * 18 * (1 / 3 + 2) + 20 * 3 / 3
    assert sos_arms.work(apa, rounds, 2) == pytest.approx(expected)


def test_the_mixture_is_the_mean_over_what_is_drawn() -> None:
    weights = {name: sos_measure.weight(name, 3) for name in STRATEGIES}
    assert sum(weights.values()) == pytest.approx(1) and weights["bfs-mult-4"] == 0
    assert weights["dfs-mult"] == 0.25 and weights["bfs-sum-3"] == pytest.approx(1 / 12)
    solved = {name: [1, 0] if name == "dfs-sum" else [1, 1] for name in STRATEGIES}
    known = {"weights": weights, "sets": {INPUTS: {"solved": solved}}}
    assert sos_measure.mixture(known, INPUTS) == pytest.approx(0.25 * 0.5 + 0.75)


def test_unsolved_and_difficult_problems_are_what_they_are_called() -> None:
    settings = settings_of(search.preset("smoke"))
    found = sos_measure.symbolic(settings, 6, 300)
    drawn = draw(instances_of(settings), INPUTS, 0, 300)
    world = open_world(settings)

    def solves(row: list[int], strategy: str, seed: int) -> bool:
        made = stream(row[0], row[2:5], strategy, seed, cap=settings.cap)
        return made.solved and made.explored + 1 < tree_size(3)

    prompts = world.tests[INPUTS](300)
    wanted: dict[str, list[str]] = {"unsolved": [], "difficult": []}
    for i, row in enumerate(drawn.problems.tolist()):
        seed = int(drawn.seeds[i])
        if not solves(row, STRATEGIES[drawn.strategies[i]], seed):
            wanted["unsolved"].append(prompts[i])
            if not any(solves(row, name, seed) for name in STRATEGIES):
                wanted["difficult"].append(prompts[i])
    assert {name: found["pool"][name] for name in wanted} == wanted
    assert 0 < len(wanted["difficult"]) < len(wanted["unsolved"]) < 150
    for side in SETS:
        rows = draw(instances_of(settings), side, 0, 6)
        for name, flags in found["sets"][side]["solved"].items():
            assert flags == [
                int(solves(row, name, int(seed))) for row, seed in zip(rows.problems.tolist(), rows.seeds)
            ]


def test_both_verifiers_are_asked() -> None:
    right, reused = "E 9 - 3 = 6 4 6 S 4 6 E 4 * 6 = 24 24 G", "E 9 - 3 = 6 4 6 S 4 6 E 9 + 9 = 18 18 G"
    assert sos_measure.legacy("T 24 N 4 9 3", right) and not sos_measure.legacy("T 25 N 4 9 3", right)
    assert sos_measure.legacy("T 18 N 4 9 3", reused), "a number is used twice"
    judged = open_world(Settings()).judge
    from heedful.feedback import Samples

    assert float(judged(Samples(["T 18 N 4 9 3"], [reused], 1)).score[0, 0]) == 0


def test_numbers_of_a_result() -> None:
    single, several = {"sets": sets(right=0.5, wrong=0.25)}, {"sets": sets(n=40, right=0.1, passed=0.6)}
    assert sos_measure.wrong_operations(single) == pytest.approx(0.25)
    nothing = {"sets": {INPUTS: {**one_set(), "explored": [0.0] * 12}}}
    assert np.isnan(sos_measure.wrong_operations(nothing))
    assert sos_measure.solved(several, TARGETS) == pytest.approx(0.1)
    assert sos_measure.passed(several, INPUTS) == 0.6 and sos_measure.passed(several, INPUTS, 1) == 0.1
    assert sos_measure.equal_tries(single, several, INPUTS) == 2, "20 tokens are two streams of 9"
    several["sets"][INPUTS]["tries_tokens"] = 40.0
    assert sos_measure.equal_tries(single, several, INPUTS) == 1
    own = {"sets": {INPUTS: {"solved": [1, 1, 0, 0]}, TARGETS: {"solved": [1, 0]}}}
    theirs = {"a": ([1, 1, 0, 0], [1, 0]), "b": ([0, 0, 1, 1], [0, 1]), "c": ([1, 0, 0, 0], [1, 0])}
    known = {
        "weights": dict.fromkeys(theirs, 0.0),
        "sets": {
            side: {"solved": {name: both[i] for name, both in theirs.items()}} for i, side in enumerate(SETS)
        },
    }
    found = sos_measure.correlations(own, known)
    # (1/6) / sqrt(1/2 1/2 1/3 2/3)
    assert found == pytest.approx({"a": 1.0, "b": -1.0, "c": (1 / 3 - 1 / 6) / (0.5 * (2 / 9) ** 0.5)})


# ---- claims that can fail


def made_up(*, good: bool, seed: int) -> dict[tuple[str, str, int], Any]:
    def arm(right: float, wrong: float, passed: float, seed: int = seed) -> dict[str, Any]:
        made = sets(n=400, right=right + 0.0025 * seed, wrong=wrong, passed=passed + 0.001 * seed)
        made[TARGETS] = one_set(400, right=right - 0.05 if good else right + 0.05, passed=passed)
        return {"sets": made}

    low, high = arm(0.2, 0.3, 0.35), arm(0.4, 0.02, 0.8)
    sos_is = high if good else arm(0.25, 0.2, 0.5)
    paths = low if good else arm(0.6, 0.0, 0.9)
    better, control = (
        (arm(0.6, 0.0, 0.9), arm(0.45, 0.0, 0.9)) if good else (arm(0.15, 0.4, 0.4), arm(0.3, 0.3, 0.4))
    )
    done = {"sos": sos_is, "op_tokens": paths, "op_problems": paths}
    done |= dict.fromkeys(IMPROVED, better) | dict.fromkeys(CONTROLS, control)
    follows = [[1, 0] * 200] * len(STRATEGIES)
    solved = dict(zip(STRATEGIES, follows, strict=True))
    known = {side: {"solved": dict(solved)} for side in SETS}
    for side in SETS:
        known[side]["solved"]["dfs-sum" if good else "bfs-sum-1"] = sos_is["sets"][side]["solved"]
    done["symbolic"] = {"sets": known, "weights": {n: sos_measure.weight(n, 5) for n in STRATEGIES}}
    return {("k3", method, seed): result for method, result in done.items()}


def verdicts(make: Callable[[int], dict[tuple[str, str, int], Any]]) -> list[Claim]:
    done = {key: value for seed in range(3) for key, value in make(seed).items()}
    return sos_claims.claims(done, "main", "k3", [0, 1, 2])


@pytest.mark.parametrize("good", [True, False])
def test_claims_hold_where_numbers_do_and_fail_where_they_do_not(good: bool) -> None:
    found = verdicts(lambda seed: made_up(good=good, seed=seed))
    assert len(found) == 2 + 8 + 3 + 14
    assert {claim.holds for claim in found} == {good}, [c.claim for c in found if c.holds is not good]
    assert all(claim.claim.startswith("K3: ") and claim.note.endswith("3 seeds") for claim in found)
    lead = next(c for c in found if "tokens of the optimiser, on held-out inputs, greedily" in c.claim)
    assert lead.measured == pytest.approx(0.2 if good else -0.35)


def test_a_seed_without_a_gate_is_left_out_of_what_the_others_say() -> None:
    def make(seed: int) -> dict[tuple[str, str, int], Any]:
        made = made_up(good=True, seed=seed)
        if seed == 1:
            made["k3", "star", 1] = made["k3", "more_star", 1] = {"failed": "the gate is not passed"}
        return made

    claims = [claim for claim in verdicts(make) if "STaR" in claim.claim]
    assert all(claim.note.startswith("2 seeds") for claim in claims)
    assert all("seed 1: the gate is not passed" in claim.note for claim in claims)
