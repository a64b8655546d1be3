"""The reproduction of DROID: arms and their data, in order, resumed, stopped, failed; claims that can fail."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("mujoco")
pytest.importorskip("av")

from heedful.config import load_yaml
from heedful.data.table.sets import in_domain_tasks
from heedful.errors import NotFinite
from heedful.papers import droid, droid_arms, droid_claims, droid_page, droid_sees, onpolicy_arms
from heedful.papers.droid_arms import config_of, motion, reached, stuck, success
from heedful.papers.droid_sizes import ARMS, CO_TRAINING, SENSITIVITY, SIZES
from heedful.papers.results import Results, write_results
from heedful.recipes import demos_eval, demos_train, demos_train_data
from heedful.recipes.demos_train import EXTERIOR
from heedful.run import open_run

ALL = [(setup, arm) for setup, arms in ARMS.items() for arm in arms]


def table(results: Results, title: str) -> list[Any]:
    return [row for one in results.tables if one.title == title for row in one.rows]


# ---- the whole of it, at a size of seconds


def shrink(patch: pytest.MonkeyPatch) -> None:
    """Three arms: without co-training, another convention, and without idle frames; a trial each."""
    other = ARMS[CO_TRAINING]["oxe"]
    patch.setitem(ARMS, CO_TRAINING, {"none": ARMS[CO_TRAINING]["none"], "oxe": other})
    patch.setitem(ARMS, SENSITIVITY, {"filtered": replace(other, idle=False)})
    smoke = SIZES["smoke"]
    evaluate = {"episodes": 1, "settings": ("as_shown", "camera"), "max_steps": 8}
    patch.setitem(SIZES, "main", replace(smoke, episodes={"oxe": 1, "in_domain": 1}, evaluate=evaluate))
    for module in ("demos_train_report", "demos_eval_report"):
        patch.setattr(f"heedful.recipes.{module}.write_report", lambda folder: folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(run folder, results) of the arms of `shrink`."""
    folder = tmp_path_factory.mktemp("droid")
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        with open_run(folder, {}, seed=0) as run:
            return folder, droid.run("main", [0], run)


def test_every_arm_is_trained_and_measured_and_the_page_shows_it(whole: Any, tmp_path: Path) -> None:
    folder, results = whole
    assert [row[0] for row in table(results, CO_TRAINING)] == ["none", "oxe"]
    assert [row[0] for row in table(results, SENSITIVITY)] == ["filtered"]
    assert [(row[0], row[2]) for row in table(results, "By setting")][:2] == [("none", 3), ("none", 3)]
    told = json.loads((folder / "co-training/seed0/none.json").read_text())
    assert set(told["trials"]) == {"as_shown", "camera"} and len(told["trials"]["camera"]) == 3
    assert {row["task"] for row in told["trials"]["camera"]} == {"task0", "task1", "task2"}
    assert [row[:2] for row in table(results, "What pictures are worth")] == [
        ["none", 1],
        ["oxe", 1],
        ["filtered", 1],
    ]
    data = {row[0]: row for row in table(results, "Data")}
    assert data["demonstrations, seed 0"][1] == 1 and 0 < data["demonstrations, seed 0"][5] < 1
    assert all(claim.measured is None for claim in results.claims), (
        "the arms that claims are about are not there"
    )
    page = write_results(results, tmp_path / "droid.json").with_suffix(".md").read_text()
    assert "2 of 2 arms are done" in " ".join(page.split()) and "another convention, fixed cameras" in page


def test_arms_share_demonstrations_pictures_and_starts(whole: Any) -> None:
    folder, _ = whole
    place = str(folder / "data/in_domain-seed0")
    said = {}
    for path in ("co-training/seed0/none", "co-training/seed0/oxe", "sensitivity/seed0/filtered"):
        config = load_yaml(folder / path / "config.yaml")
        assert config["data"] == [place] and config["steps"] == 2
        said[path] = [
            row["instruction"]
            for row in json.loads((folder / f"{path}.json").read_text())["trials"]["camera"]
        ]
        assert not (folder / path / "pictures").exists()
    assert len({tuple(words) for words in said.values()}) == 1
    assert len(list((folder / "pictures").iterdir())) == 2


def test_the_same_command_again_does_nothing_twice(whole: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, results = whole

    def again(*_: Any) -> Any:
        raise AssertionError("done already")

    shrink(monkeypatch)
    monkeypatch.setattr(demos_train, "run", again)
    monkeypatch.setattr(demos_eval, "run", again)
    with open_run(folder, {}, seed=0) as run:
        assert droid.run("main", [0], run, time.monotonic() - 1) == results


@pytest.mark.parametrize("looks", [True, False])
@pytest.mark.parametrize("arm", ["none", "delta"])
def test_a_policy_that_looks_is_told_from_one_that_does_not(
    whole: Any, looks: bool, arm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One knows each moment by its pictures, the other by the state, and both know what was done then."""
    folder, _ = whole
    shrink(monkeypatch)
    monkeypatch.setattr(droid_sees, "FRAMES", 40)
    known: dict[bytes, torch.Tensor] = {}

    def key(seen: Any, i: int) -> bytes:
        return (seen[EXTERIOR[0]] if looks else seen["state"])[i].numpy().tobytes()

    def collate(*given: Any) -> Any:
        batch = collated(*given)
        known.update({key(batch.observations, i): one for i, one in enumerate(batch.actions)})
        return batch

    def draw(seen: Any, n: int, *, generator: torch.Generator) -> torch.Tensor:
        return torch.stack([known[key(seen, i)] for i in range(len(seen["state"]))])[:, None]

    collated = demos_train_data.collate
    monkeypatch.setattr(demos_train_data, "collate", collate)
    policy = SimpleNamespace(encode=lambda seen: seen, draw=draw)
    monkeypatch.setattr("heedful.policies.actions.build.load", lambda path: (policy, None))
    with open_run(folder, {}, seed=0) as run:
        setting = config_of("main", ARMS[CO_TRAINING]["none"], 0, "x", run)
        changed = replace(setting, actions="delta" if arm == "delta" else "absolute")
        told = droid_sees.sees(changed, run)
    assert told["own"] == 0.0
    assert (told["others"] > 1.0) if looks else (told["others"] == 0.0)


# ---- what arms are


def test_arms_differ_in_what_they_say(tmp_path: Path) -> None:
    with open_run(tmp_path, {}, seed=0) as run:
        made = {arm: config_of("main", ARMS[setup][arm], 3, "x", run) for setup, arm in ALL}
        own = str(run.path("data/in_domain-seed3"))
    plain = made["diverse"]
    assert all(cfg.data == (own,) and cfg.seed == 3 and cfg.steps == plain.steps for cfg in made.values())
    mixed = {arm: Path(cfg.mix[0]).name for arm, cfg in made.items() if cfg.mix}
    assert mixed == {
        **{name: name for name in ("diverse", "narrow", "oxe", "full")},
        **dict.fromkeys(ARMS[SENSITIVITY], "diverse"),
    }
    # the same exposure to the demonstrations: half a batch of them, alone or beside others
    assert 2 * made["none"].batch_size == made["none-2x"].batch_size == plain.batch_size
    assert (plain.weight, made["mix-25"].weight, made["mix-75"].weight) == (0.5, 0.25, 0.75)
    assert [arm for arm, cfg in made.items() if cfg.mix_reading == "as_is"] == ["oxe"]
    assert [arm for arm, cfg in made.items() if cfg.ranges] == ["filtered"]
    assert made["filtered"].ranges == tuple(f"{p}.ranges.json" for p in (own, *plain.mix))
    assert [arm for arm, cfg in made.items() if cfg.instructions == 1] == ["one-instruction"]
    assert [arm for arm, cfg in made.items() if cfg.actions == "delta"] == ["delta"]
    size = SIZES["main"]
    scenes = {"diverse": 60, "narrow": 3, "oxe": 60}
    assert len({scenes[name] * size.per_scene[name] for name in scenes}) == 1, "as many episodes"
    assert size.per_scene["full"] == size.per_scene["diverse"] and droid.SEEDS["main"] >= 3


# ---- order, time, failures: with arms that are made up


def rows(
    share: float, n: int = 20, *, first: int | None = 3, stuck: float = 0.1, near: float = 0.1
) -> list[Any]:
    return [
        {
            "task": f"task{i % 2}",
            "index": i // 2,
            "success": int(i < round(share * n)),
            "steps": 60,
            "first_motion": first,
            "stuck": int(i < round(stuck * n)),
            "nearest": near if i % 2 else 0.5,
        }
        for i in range(n)
    ]


def result(shown: float, other: float, **more: Any) -> dict[str, Any]:
    others = {name: rows(other, **more) for name in ("distractors", "instance", "camera")}
    return {"loss": 1.0, "trials": {"as_shown": rows(shown, **more), **others}}


@pytest.fixture
def faked(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """`made`: what was made, in order; `fails`: an arm that goes to pieces."""
    world = SimpleNamespace(made=[], fails="")
    facts = {"episodes": 1, "scenes": 1, "failed": 0, "frames": 2, "kept": 1, "tasks": []}

    def data(tier: Any, name: str, seed: int, run: Any, until: Any = None) -> Any:
        place = droid_arms.place_of(name, seed)
        return onpolicy_arms.attempt(f"{place}.json", lambda: world.made.append(place) or facts, run, until)

    def trained(tier: Any, arm: Any, seed: int, folder: str, run: Any) -> Any:
        world.made.append(folder)
        if world.fails and folder.endswith(world.fails):
            return {"failed": "the loss is not finite"}
        return result(0.5, 0.4)

    for module in (droid_arms, droid):
        monkeypatch.setattr(module, "data_of", data)
    monkeypatch.setattr(droid_arms, "trained", trained)
    monkeypatch.setattr(droid_arms, "sees", lambda learning, run: {"own": 3.0, "others": 5.0})
    return world


def test_co_training_comes_first_and_demonstrations_belong_to_a_seed(
    faked: SimpleNamespace, tmp_path: Path
) -> None:
    with open_run(tmp_path, {}, seed=0) as run:
        droid.run("main", [0, 1], run)
    arms = [place for place in faked.made if not place.startswith("data/")]
    assert arms == [f"{setup}/seed{seed}/{arm}" for setup in ARMS for seed in (0, 1) for arm in ARMS[setup]]
    data = [place for place in faked.made if place.startswith("data/")]
    assert sorted(data) == [
        *(f"data/{name}" for name in ("diverse", "full")),
        *("data/in_domain-seed0", "data/in_domain-seed1"),
        *("data/narrow", "data/oxe"),
    ]


def test_time_ends_between_arms_and_the_next_start_goes_on(
    faked: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(onpolicy_arms, "time", SimpleNamespace(monotonic=lambda: now))
    trained = droid_arms.trained

    def slow(*given: Any) -> Any:
        nonlocal now
        now += 10
        return trained(*given)

    monkeypatch.setattr(droid_arms, "trained", slow)
    with open_run(tmp_path, {}, seed=0) as run:
        first = droid.run("main", [0], run, until=25)
        assert f"{CO_TRAINING}: 3 of {len(ARMS[CO_TRAINING])} arms are done." in first.notes
        assert first.claims[0].measured is not None and first.claims[0].holds is None
        now = 0.0
        again = droid.run("main", [0], run)
    assert len(faked.made) == len(set(faked.made))
    assert (
        f"{SENSITIVITY}: {len(ARMS[SENSITIVITY])} of {len(ARMS[SENSITIVITY])} arms are done." in again.notes
    )


def test_an_arm_that_goes_to_pieces_is_told(faked: SimpleNamespace, tmp_path: Path) -> None:
    faked.fails = "seed0/narrow"
    with open_run(tmp_path, {}, seed=0) as run:
        results = droid.run("main", [0], run)
    assert "narrow, seed 0: no result, the loss is not finite." in results.notes
    narrow = next(c for c in results.claims if "as many episodes of three scenes" in c.claim)
    assert narrow.measured is None
    assert "narrow" not in [row[0] for row in table(results, CO_TRAINING)]


def test_a_loss_that_is_not_finite_is_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def explodes(*_: Any) -> Any:
        raise NotFinite("the loss is nan")

    monkeypatch.setattr(demos_train, "run", explodes)
    with open_run(tmp_path, {}, seed=0) as run:
        told = droid_arms.trained("smoke", ARMS[CO_TRAINING]["none"], 0, "x", run)
    assert told == {"failed": "the loss is nan"}


def test_where_nothing_was_run_no_claim_says_anything(tmp_path: Path) -> None:
    with open_run(tmp_path / "run", {}, seed=0) as run:
        for tier in SIZES:
            results = droid.run(tier, [0, 1], run, until=time.monotonic() - 1)
            assert len(results.claims) > 10 and not results.tables and not results.plots
            assert all(claim.measured is None and claim.holds is None for claim in results.claims)
            assert write_results(results, tmp_path / f"{tier}.json").exists()


# ---- numbers of one result


def test_numbers_of_a_result() -> None:
    one = result(0.5, 0.2, first=None)
    one["trials"]["camera"] = rows(0.8, stuck=0.5)
    assert success(one, shown=True) == 0.5 and success(one, shown=False) == pytest.approx(0.4)
    assert motion(one) == pytest.approx((3 * 60 + 3) / 4 / 15) and stuck(one) == pytest.approx(0.2)
    assert reached(result(0.5, 0.2), shown=True) == 0 and reached(result(0, 0, near=0.05), shown=False) == 0.5
    pairs = droid_page.paired(result(0.5, 0.2), result(0.25, 0.2), shown=True)
    assert len(pairs) == 20 and sum(a for a, _ in pairs) == 10 and sum(b for _, b in pairs) == 5
    fewer = result(0.25, 0.2)
    del fewer["trials"]["as_shown"][3]
    assert len(droid_page.paired(result(0.5, 0.2), fewer, shown=True)) == 19
    assert (
        droid_page.paired(None, fewer, shown=True)
        == droid_page.paired({"failed": "x"}, fewer, shown=True)
        == []
    )


# ---- claims that can fail


def made_up(good: bool, seeds: tuple[int, ...] = (0, 1, 2)) -> Any:
    """Results in which the claims hold, or the other way round."""
    done = {}
    for seed in seeds:
        for setup, arm in ALL:
            worth = {"diverse": 0.8, "full": 0.75, "mix-25": 0.6, "mix-75": 0.6}.get(arm, 0.3)
            more: dict[str, Any] = {"first": 12, "stuck": 0.4, "near": 0.2}
            if arm == "diverse":
                more["near"] = 0.01
            if arm == "filtered":
                more |= {"first": 2, "stuck": 0.1}
            if not good:
                worth = 1 - worth
                more = {
                    "first": 14 - more["first"],
                    "stuck": 0.5 - more["stuck"],
                    "near": 0.21 - more["near"],
                }
            done[setup, arm, seed] = result(worth - 0.05 * (seed == 1), worth - 0.05 * (seed == 1), **more)
    return done


@pytest.mark.parametrize("good", [True, False])
def test_claims_hold_where_numbers_do_and_fail_where_they_do_not(good: bool) -> None:
    found = droid_claims.claims(made_up(good), "main", [0, 1, 2])
    assert len(found) == 16
    assert {claim.holds for claim in found} == {good}, [c.claim for c in found if c.holds is not good]
    lead = next(c for c in found if "as many episodes of three scenes" in c.claim)
    assert lead.measured == pytest.approx(0.5 if good else -0.5)
    assert all(claim.holds is None for claim in droid_claims.claims(made_up(good, (0,)), "main", [0]))
    assert all(c.measured is None for c in droid_claims.claims(made_up(good), "smoke", [0, 1, 2]))


def test_a_lead_of_one_seed_of_three_decides_nothing() -> None:
    done = made_up(True)
    for seed in (1, 2):
        done[CO_TRAINING, "narrow", seed] = result(0.85, 0.85)
    found = droid_claims.claims(done, "main", [0, 1, 2])
    lead = next(c for c in found if "as many episodes of three scenes" in c.claim)
    assert lead.holds is None and lead.interval is not None and lead.interval[0] < 0 < lead.interval[1]


def test_the_page_says_which_tasks_succeed() -> None:
    done = made_up(True, (0,))
    for one in done.values():
        for row in (row for rows in one["trials"].values() for row in rows):
            row["success"] = int(row["task"] == "task1" and row["index"] < 3)
    done[CO_TRAINING, "narrow", 0] = {"failed": "the loss is not finite"}
    trials = 4 * 10 * (len(ALL) - 1)
    names = [task.name for task in in_domain_tasks(0)]
    assert droid_page.tasks_table(done).rows == [
        [0, names[0], trials, 0],
        [0, names[1], trials, 4 * 3 * (len(ALL) - 1)],
    ]


def test_the_page_pairs_trials_and_draws_the_share() -> None:
    done = made_up(True)
    lead = {(row[0], row[1]): row for row in droid_page.trials_table(done, [0, 1, 2]).rows}
    row: list[Any] = list(lead["narrow", "out of distribution"])
    assert row[2] == 3 * 3 * 20 and row[3] == pytest.approx(0.5) and 0 < row[4] < 0.5 < row[5]
    (plot,) = droid_page.plots(done)
    assert [s.name for s in plot.series] == ["as shown", "out of distribution"]
    assert list(plot.series[1].x) == [0.0, 0.25, 0.5, 0.75]
