"""The reproduction of Yell At Your Robot: arms in order, resumed, stopped; the world; claims that can fail."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("mujoco")

from talking import Told

from heedful.data.narrated import open_narrated
from heedful.data.pack_table import STAGES
from heedful.data.pack_table.commands import CLOSE_BIN, OPEN_BIN
from heedful.data.segments import CORRECTION, Segment
from heedful.errors import NotFinite
from heedful.model_folder import read_json
from heedful.papers import yay, yay_arms, yay_motor, yay_shared
from heedful.papers.results import Claim, Results, write_results
from heedful.papers.yay_claims import ABLATED, BESIDE, RULES, claims
from heedful.papers.yay_sizes import FEW, NAMES, RELEARNED, ROUNDS, SETUP, SIZES, Size
from heedful.policies.actions import act as actions_act
from heedful.recipes import correct_eval, correct_high, correct_learn
from heedful.run import open_run

SMOKE = SIZES["smoke"]
MAIN = SIZES["main"]
TINY = replace(SMOKE, train={**SMOKE.train, "episodes": 1, "high_steps": 2}, longest=10)


def reproduce(run: Any, until: float | None = None, seeds: list[int] | None = None) -> Results:
    return yay.run("main", seeds or [0], run, until)


class Says(Told):
    """In place of the scripted person: speaks at the third step."""

    def __init__(self, seed: int = 0, slips: float = 0.0) -> None:
        super().__init__({3: [OPEN_BIN]})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(run folder, results) of all arms at a size of seconds."""
    act = {"hidden": 32, "feedforward": 64, "heads": 2, "encoder_layers": 1, "decoder_layers": 1, "latent": 4}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(actions_act, "LAPTOP", {**act, "latent_layers": 1, "kl_weight": 10.0})
        patch.setitem(SIZES, "main", TINY)
        patch.setattr(yay_arms, "ScriptedPerson", Says)
        patch.setattr(yay_motor, "ScriptedPerson", Says)
        patch.setattr("heedful.recipes.correct_report.write_report", lambda folder: folder)
        folder = tmp_path_factory.mktemp("yay")
        with open_run(folder, {}, seed=0) as run:
            results = reproduce(run)
        yield folder, results


# ---- the whole of it


def test_every_arm_is_measured_and_the_page_shows_it(whole: Any, tmp_path: Path) -> None:
    _, results = whole
    tables = {table.title: table.rows for table in results.tables}
    assert [row[0] for row in tables["Arms"]] == list(NAMES.values())
    assert [row[0] for row in tables["Stages"]] == list(NAMES.values()) and len(tables["Stages"][0]) == 9
    said = {row[0]: row[7] for row in tables["Arms"]}
    assert all(said[NAMES[arm]] == (arm in yay_arms.SLIPS) for arm in NAMES)
    assert [row[2] for row in tables["Rounds"]] == [1.0] * ROUNDS and tables["Rounds"][0][3] > 0.05
    assert [row[-1] for row in tables["How the low level was made imperfect"]] == ["taken"]
    assert len(results.claims) == len(RULES) + len(BESIDE) + len(ABLATED)
    measured = [claim for claim in results.claims if claim.measured is not None]
    assert len(measured) == len(results.claims), "every claim has its arms"
    assert all(claim.holds is None for claim in measured), "one seed decides nothing"
    page = write_results(results, tmp_path / "yay.json").with_suffix(".md").read_text()
    assert "after each round" in page and "oracle" in page and "21 of 21 arms are done" in page


def test_what_each_arm_learned_from(whole: Any) -> None:
    folder, _ = whole
    place = folder / SETUP / "seed0"

    def told(arm: str) -> Any:
        return read_json(place / arm / "result.json")

    for number in range(1, ROUNDS + 1):
        assert told(f"post-{number}")["round"] == number and told(f"post-{number}")["corrections"] == 1
    assert told("equal")["corrections"] == 0 and told("pre-roll-0")["lessons"] < told("post-1")["lessons"]
    assert (place / "base" / "model" / "talker.json").is_file() and not (place / "onehot" / "model").exists()
    steps = {
        arm: read_json(place / arm / "high" / "final" / "meta.json")["step"]
        for arm in ("post-1", "equal", *RELEARNED)
    }
    assert steps == {arm: (3 if arm == "equal" else 1) * TINY.learn["high_steps"] for arm in steps}
    low = {
        arm: (place / arm / "model" / "low" / "model.safetensors").read_bytes()
        for arm in ("base", "post-1", "post-3")
    }
    assert len(set(low.values())) == 1, "the low level is frozen"


def test_taking_over_leaves_episodes_whose_own_part_is_learned(whole: Any) -> None:
    folder, _ = whole
    taken = open_narrated(folder / SETUP / "seed0" / "motor" / "taken-1")
    assert taken.episodes.episode(0).meta["taken_over"] == 1
    first = next(s for s in taken.segments[0] if s.kind == CORRECTION)
    assert (first.start, first.stop, first.text) == (3, 10, OPEN_BIN)
    assert [s.kind for s in taken.segments[0] if s.start < 3] == ["instruction"]
    # the expert steers: its first move is towards the knob, the pair's is another
    assert not np.allclose(taken.actions[0][3], taken.actions[0][2], atol=0.05)
    assert (folder / SETUP / "seed0" / "motor" / "round-3" / "motor" / "final").is_dir()


def test_the_same_command_again_does_nothing_twice(whole: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, results = whole

    def again(*_: Any, **__: Any) -> Any:
        raise AssertionError("done already")

    monkeypatch.setattr(yay_arms, "shared_of", again)
    monkeypatch.setattr(yay_arms, "take", again)
    with open_run(folder, {}, seed=0) as run:
        assert reproduce(run, time.monotonic() - 1) == results
        # a further seed is not begun when the time is over, and the page says what is missing
        more = reproduce_late(run, monkeypatch)
    assert any("21 of 42 arms are done" in note for note in more.notes)


def reproduce_late(run: Any, monkeypatch: pytest.MonkeyPatch) -> Results:
    monkeypatch.setattr(yay_arms, "shared_of", lambda *_: None)
    return reproduce(run, time.monotonic() - 1, [0, 1])


def test_an_arm_that_goes_to_pieces_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def pieces(self: Any, arm: str) -> Any:
        if arm == "flat":
            raise NotFinite("the loss is not finite")
        return result(0.5)

    monkeypatch.setitem(SIZES, "main", TINY)
    monkeypatch.setattr(yay_arms, "shared_of", lambda *_: SimpleNamespace())
    monkeypatch.setattr(yay_arms.Seed, "measured", pieces)
    with open_run(tmp_path, {}, seed=0) as run:
        results = reproduce(run)
    assert any("flat: one policy, no commands: the loss is not finite" in note for note in results.notes)
    lead = next(c for c in results.claims if "without commands (measured" in c.claim)
    assert lead.measured is None and "not finite" in lead.note


# ---- parts


def test_the_world_is_the_first_within_the_bands_or_the_nearest(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert yay_shared.off(0.8, 0.2) == 0 and yay_shared.off(0.70, 0.30) == 0
    assert yay_shared.off(0.855, 0.2) == 0 < yay_shared.off(0.87, 0.2), "20 episodes tell no hundredth"
    assert yay_shared.off(0.6, 0.2) == pytest.approx(0.1) and yay_shared.off(0.9, 0.5) == pytest.approx(0.25)
    rates = {0.0: (0.95, 0.7), 0.2: (0.80, 0.2), 0.3: (0.78, 0.2)}
    first: list[int] = []

    def measured(pair: Any, count: int, name: str, run: Any, *, first: int) -> Any:
        begun.append(first)
        return [
            {"world": pair.making.world, "success": k < 10 * rates[pair.making.world["action_noise"]][1]}
            for k in range(10)
        ]

    begun: list[int] = first
    for module, name, made in (
        (correct_learn, "inherit", lambda *_: []),
        (correct_high, "train", lambda *_, **__: None),
        (correct_eval, "measured", measured),
        (correct_eval, "stage_success", lambda rows: rates[rows[0]["world"]["action_noise"]][0]),
    ):
        monkeypatch.setattr(module, name, made)
    monkeypatch.setattr(yay_shared.Shared, "pair", lambda self, high: SimpleNamespace(making=self.making))
    making = yay_shared.TalkerMaking(15, {}, "x", world={"size": [32, 32]})
    cfg: Any = yay_shared.correct.Config(out=str(tmp_path / "shared"))
    shared = yay_shared.Shared(cfg, tmp_path / "shared", *(SimpleNamespace(),) * 4, making)  # type: ignore[arg-type]
    worlds = tuple({"camera_jitter": 0.0, "action_noise": noise} for noise in (0.0, 0.2, 0.3))
    found = yay_shared.choose(shared, Size({}, {}, worlds=worlds))
    assert found["world"] == worlds[1] and len(found["tried"]) == 2, "none harder is tried"
    assert set(begun) == {correct_eval.VALIDATION}
    rates[0.2] = rates[0.3] = (0.3, 0.0)
    assert yay_shared.choose(shared, Size({}, {}, worlds=worlds))["world"] == worlds[0], "the nearest"


def test_a_fixed_order_goes_by_the_clock() -> None:
    pair = SimpleNamespace(begin=lambda: None, fps=15)
    acting = yay_arms.InOrder(pair, [("open", 2), ("take", 1), ("close", 5)])
    acting.begin()
    said = []
    for _ in range(10):
        acting.see({})
        said.append(acting.propose().command)
    assert said == ["open"] * 2 + ["take"] + ["close"] * 7 and acting.fps == 15
    acting.begin()
    acting.see({})
    assert acting.propose().command == "open"
    told = [
        [Segment(0, 10, "slide the lid open"), Segment(10, 40, "open the bin")],
        [Segment(0, 20, "close the bin")],
    ]
    demos: Any = SimpleNamespace(demos=SimpleNamespace(narrated=SimpleNamespace(segments=told)))
    order = yay_arms.order_of(demos)
    assert order[0] == (OPEN_BIN, 20) and order[-1] == (CLOSE_BIN, 20) and len(order) == 11


def test_starts_are_drawn_from_old_and_new() -> None:
    rng = np.random.default_rng(0)
    rows = yay_motor.drawn([[], [Segment(3, 6, "a")]], 5, 7, rng)
    assert len(rows) == 7 and {row.episode for row in rows} == {6} and {row.step for row in rows} <= {3, 4, 5}
    assert yay_motor.drawn([[]], 0, 7, rng) == [] and yay_motor.drawn([[Segment(0, 1, "a")]], 0, 0, rng) == []


def test_numbers_of_an_arm() -> None:
    stages = {name: k < 4 for k, name in enumerate(STAGES)}
    rows = [
        {"success": False, "stages": stages, "said": 2, "steps": 600},
        {"success": True, "stages": dict.fromkeys(STAGES, True), "said": 0, "steps": 300},
    ]
    found = yay_arms.of_rows(rows, 1)
    assert (
        found["success"] == [0.0, 1.0] and found["stages"] == [0.5, 1.0] and found["seconds"] == [40.0, 20.0]
    )
    assert (
        found["interventions"] == [2.0, 0.0]
        and found["few success"] == [0.0]
        and found["few stages"] == [0.5]
    )
    assert found["stage close"] == [0.0, 1.0]


# ---- claims


def result(success: float, said: float = 0.0, count: int = 50, shift: int = 0) -> dict[str, Any]:
    flags = [float((k + shift) % count < round(success * count)) for k in range(count)]
    stages = [min(1.0, 0.5 + flag / 2) * (0.5 + success / 2) for flag in flags]
    columns = {"success": flags, "stages": stages, "interventions": [said] * count, "seconds": [1.0] * count}
    columns |= {f"stage {name}": flags for name in STAGES}
    few = {f"few {name}": values[:25] for name, values in columns.items()}
    return {**columns, **few, "learned_from": 3, "share": 0.1}


GOOD = {
    "flat": 0.05, "base": 0.2, "order": 0.1, "oracle": 0.9, "live": 0.7, "live-3": 0.8, "equal": 0.2,
    "post-1": 0.4, "post-2": 0.5, "post-3": 0.6, "motor": 0.4, "live-10": 0.6, "live-30": 0.4, "live-raw": 0.5,
    "unfiltered": 0.1, "onehot": 0.1, "history-0": 0.1, "pre-roll-0": 0.3, "ratio-50": 0.3, "ratio-100": 0.2,
    "raw": 0.3,
}  # fmt: skip


def verdicts(rates: dict[str, float], said: tuple[float, float] = (3.0, 1.0), seeds: int = 3) -> list[Claim]:
    done: Any = {}
    for seed in range(seeds):
        for arm, rate in rates.items():
            heard = said[arm == "live-3"] if arm in ("live", "live-3") else 0.0
            found = result(rate, heard)
            few = 25 if arm in FEW else 50
            done[SETUP, arm, seed] = {
                name: values[:few] if isinstance(values, list) else values for name, values in found.items()
            }
    return claims(done, "main", list(range(seeds)))


def test_claims_hold_where_they_should() -> None:
    found = verdicts(GOOD)
    assert [claim.holds for claim in found[: len(RULES) + len(BESIDE)]] == [True] * (len(RULES) + len(BESIDE))
    assert found[0].measured == pytest.approx(0.5) and found[3].measured == pytest.approx(2 / 3)
    assert all(claim.holds is None for claim in verdicts(GOOD, seeds=1)), "one seed decides nothing"
    assert all(claim.measured is None for claim in claims({}, "main", [0]))
    assert all(claim.measured is None and "smoke" in claim.note for claim in claims({}, "smoke", [0]))


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({"live": 0.2}, 0),
        ({"post-3": 0.2}, 1),
        ({"equal": 0.9}, 2),
        ({"oracle": 0.3}, 4),
        ({"motor": 0.9}, 7),
        ({"flat": 0.5}, 8),
        ({"order": 0.6}, 9),
    ],
)
def test_claims_fail_where_they_should(changed: dict[str, float], rule: int) -> None:
    found = verdicts({**GOOD, **changed})
    assert found[rule].holds is False, found[rule]
    assert all(claim.measured is not None and math.isfinite(claim.measured) for claim in found)


def test_saying_as_much_as_before_fails() -> None:
    assert verdicts(GOOD, said=(3.0, 2.9))[3].holds is False
    assert verdicts(GOOD, said=(0.0, 0.0))[3].measured is None, "nothing was said before"


def test_saying_less_to_a_robot_that_does_less_fails() -> None:
    worse = verdicts({**GOOD, "live-3": 0.1})[3]
    assert worse.holds is False and worse.measured == pytest.approx(2 / 3)
    assert "after the rounds against before: -60 points" in worse.note
    assert verdicts({**GOOD, "live-3": 0.1}, seeds=1)[3].holds is None


def test_ablations_are_compared_on_the_episodes_that_both_have() -> None:
    found = {claim.claim.split(" (measured")[0]: claim for claim in verdicts(GOOD)}
    assert len(found) == len(RULES) + len(BESIDE) + len(ABLATED)
    for arm, against, text in ABLATED:
        lead = np.mean(result(GOOD[against])["few stages"]) - np.mean(result(GOOD[arm])["few stages"])
        assert found[text].measured == pytest.approx(lead)
    worse = verdicts({**GOOD, "unfiltered": 0.9})
    assert next(c for c in worse if "mistake filter" in c.claim).holds is False


def test_sizes() -> None:
    assert set(MAIN.arms) == set(NAMES) and MAIN.episodes == 50 and yay.SEEDS["main"] == 3
    assert set(RELEARNED) < set(FEW) and MAIN.few == 25
