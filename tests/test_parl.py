"""The reproduction of PA-RL: settings, arms in order, resumed, stopped, failed; numbers; claims that can fail."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from heedful.config import load_yaml
from heedful.errors import NotFinite
from heedful.papers import onpolicy_arms, parl, parl_arms, parl_claims
from heedful.papers.parl_arms import arms_of, episodes_to_goal, marks, raw
from heedful.papers.parl_sizes import CLASSES, SETTINGS, SIZES, TUNING_SEED, Setup
from heedful.papers.results import Claim, Results, write_results
from heedful.recipes import act, act_collect, act_report
from heedful.run import Run, open_run

LEAST: dict[str, Any] = {
    "clone_steps": 2,
    "critic_steps": 2,
    "distill_steps": 2,
    "eval_episodes": 2,
    "batch_size": 4,
    "width": 8,
    "critic_width": 8,
    "bins": 5,
}
MAIN = SIZES["main"]
BANDIT = SIZES["smoke"]["bandit"]
TINY = replace(
    BANDIT,
    act={**BANDIT.act, **LEAST},
    collect={**BANDIT.collect, "episodes": 8},
    policies=("diffusion",),
    tuning="bandit-tuning",
)
POINT = SIZES["smoke"]["point"]
ONLINE = replace(
    POINT,
    act={**POINT.act, **LEAST, "max_steps": 3, "online_episodes": 2, "eval_every": 1},
    collect={**POINT.collect, "episodes": 4, "max_steps": 3},
)


def reproduce(run: Run, until: float | None = None, seeds: list[int] | None = None) -> Results:
    return parl.run("main", seeds or [0], run, until)


def table(results: Results, title: str) -> list[Any]:
    return [row for one in results.tables if one.title == title for row in one.rows]


# ---- the whole of it, at a size of seconds


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(run folder, results) of a setup with settings that are chosen, and of one with online arms."""
    sizes = {"bandit-tuning": replace(TINY, tuning=""), "bandit": TINY, "point": ONLINE}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "main", sizes)
        patch.setattr(act_report, "write_report", lambda folder: folder)
        patch.setattr("heedful.report.write_report", lambda folder: folder)
        folder = tmp_path_factory.mktemp("parl")
        with open_run(folder, {}, seed=0) as run:
            results = reproduce(run)
        yield folder, results


def test_every_arm_is_measured_and_the_page_shows_it(whole: Any, tmp_path: Path) -> None:
    folder, results = whole
    offline = table(results, f"{TINY.about}: offline")
    assert [(row[0], row[1]) for row in offline] == [(kind, parl.METHODS[arm]) for kind, arm in arms_of(TINY)]
    assert len(offline) == 6 and len(table(results, f"{ONLINE.about}: online")) == 3
    chosen = table(results, f"Settings, chosen on {TINY.about}")
    assert len(chosen) == 9 and sum(row[-1] == "taken" for row in chosen) == 3
    measured = [claim for claim in results.claims if claim.measured is not None]
    assert len(measured) > 8 and all(claim.holds is None for claim in measured), "one seed decides nothing"
    page = write_results(results, tmp_path / "parl.json").with_suffix(".md").read_text()
    for part in ("while learning online", "weighted cloning", "clone's success on validation seeds"):
        assert part in page
    assert (folder / "bandit/seed0/diffusion-parl/model/policy").is_dir(), (
        "each arm has a run folder of its own"
    )
    assert (folder / f"bandit-tuning/seed{TUNING_SEED}/parl-2.json").exists()


def test_arms_begin_with_one_clone_and_meet_the_same_episodes(whole: Any) -> None:
    folder, _ = whole
    met = set()
    for kind, arm in arms_of(TINY):
        config = load_yaml(folder / f"bandit/seed0/{kind}-{arm}/config.yaml")
        clone = "" if arm == "clone" else str(folder / f"bandit/seed0/{kind}-clone")
        assert config["start"] == clone and (config["clone_steps"] == 0) == (arm != "clone")
        for path in (folder / f"bandit/seed0/{kind}-{arm}/eval").glob("*.json"):
            met.add(tuple(part.split(",")[0] for part in path.read_text().split('"seed": ')[1:]))
    assert len(met) == 1
    assert not (folder / "point/seed0/gaussian-clone.json").exists(), "Cal-QL's policy clones for itself"


def test_settings_of_cal_ql_are_tried_on_a_policy_that_clones_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SIZES, "main", {"maze-tuning": replace(ONLINE, arms=("clone",), knobs={})})
    with open_run(tmp_path, {}, seed=0) as run:
        scores = parl_arms.tried("main", "maze-tuning", "calql", run)
    assert [knobs for knobs, _ in scores] == list(SETTINGS["maze-tuning"]["calql"])
    assert all(score is not None and score >= 0 for _, score in scores)
    config = load_yaml(tmp_path / f"maze-tuning/seed{TUNING_SEED}/calql-0/config.yaml")
    assert config["start"] == "" and config["clone_steps"] > 0 and config["policy"] == "gaussian"


def test_the_same_command_again_does_nothing_twice(whole: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, results = whole

    def again(*_: Any) -> Any:
        raise AssertionError("done already")

    for module in (act, act_collect):
        monkeypatch.setattr(module, "run", again)
    with open_run(folder, {}, seed=0) as run:
        assert reproduce(run, time.monotonic() - 1) == results


# ---- order, time, settings, failures: with arms that are made up


@pytest.fixture
def faked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """`made`: the folders in order; `knobs`: of each; `worth`: from knobs to success; `fails`: an arm."""
    world: dict[str, Any] = {"made": [], "knobs": {}, "worth": lambda knobs: 0.5, "fails": ""}
    many = replace(TINY, policies=("diffusion", "gaussian"))
    sizes = {"bandit-tuning": replace(TINY, tuning=""), "bandit": many, "point": ONLINE}

    def ran(cfg: act.Config, own: Run) -> Any:
        place = "/".join(Path(cfg.out).parts[-3:])
        world["made"].append(place)
        world["knobs"][place] = {
            name: getattr(cfg, name) for name in ("conservatism", "step_size", "samples", "climb_steps")
        }
        if place.endswith(world["fails"] or "nothing"):
            raise NotFinite("the loss is not finite")
        world["worthy"] = world["worth"](cfg)
        return {}

    def read(own: Run, told: Any) -> Any:
        arm = own.folder.name.partition("-")[2]
        return result(arm if "seed1000" not in str(own.folder) else own.folder.name, world["worthy"])

    monkeypatch.setitem(SIZES, "main", sizes)
    monkeypatch.setattr(act, "run", ran)
    monkeypatch.setattr(parl_arms, "read", read)
    collected = {"episodes": 8, "steps": 8, "success": 0.2, "noise": [0.1], "clone_success": 0.4}
    monkeypatch.setattr(act_collect, "run", lambda cfg, run: world["made"].append(cfg.out) or collected)
    # act refuses a --start that is not there, but only once it runs
    return world


def flags(share: float, n: int = 100) -> list[int]:
    return [int(i < round(share * n)) for i in range(n)]


def result(
    arm: str, worth: float, *, choice: float | None = None, best: float | None = None
) -> dict[str, Any]:
    """What an arm gives: its policy by itself has `worth`."""
    measured = [
        {"label": "cloned" if arm == "clone" else "at the start", "how": "policy", "success": flags(0.4)}
    ]
    if arm == "clone":
        measured[0]["success"] = flags(worth)

    def more(label: str, how: str, value: float | None) -> None:
        measured.append({"label": label, "how": how, "success": flags(worth if value is None else value)})

    searches = arm in ("parl", "global", "local", "idql", "online-parl", "online-idql")
    if searches:
        more("critic's choice", "search", choice)
    if arm not in ("clone", "idql", "online-idql"):
        more("offline", "policy", None)
    if arm in ("parl", "global", "local", "online-parl"):
        more("offline, critic's choice", "search", best)
    if arm.startswith("online"):
        how = "search" if searches else "policy"
        more("after 10 episodes", how, best)
        if searches:
            more("online, the policy alone", "policy", None)
        more("online", how, best)
    return {
        "measured": measured,
        "gap": 1.0,
        "online": {"episodes": 20 if "online" in arm else 0, "success": []},
    }


def test_clones_come_first_and_setups_one_after_the_other(faked: dict[str, Any], tmp_path: Path) -> None:
    with open_run(tmp_path, {}, seed=0) as run:
        reproduce(run, seeds=[0, 1])
    arms = [place for place in faked["made"] if place.startswith("bandit/seed")]
    expected = [
        f"bandit/seed{s}/{kind}-{arm}" for s in (0, 1) for kind, arm in arms_of(SIZES["main"]["bandit"])
    ]
    assert arms == expected and arms[0].endswith("diffusion-clone") and "gaussian-idql" not in str(arms)
    tuning = [place for place in faked["made"] if f"seed{TUNING_SEED}" in place]
    assert len(tuning) == len(set(tuning)) == 1 + 3 * 3, (
        "one clone, three settings of each method, once for all"
    )
    assert faked["made"].index(arms[-1]) < min(
        i for i, p in enumerate(faked["made"]) if p.startswith("point/seed")
    )


def test_the_best_setting_is_taken_by_all_that_share_the_method(
    faked: dict[str, Any], tmp_path: Path
) -> None:
    faked["worth"] = lambda cfg: 0.9 if cfg.conservatism == 0.01 else 0.1
    with open_run(tmp_path, {}, seed=0) as run:
        results = reproduce(run)
    best = SETTINGS["bandit-tuning"]["parl"][1]
    for kind in ("diffusion", "gaussian"):
        for arm in ("parl", "global", "local"):
            knobs = faked["knobs"][f"bandit/seed0/{kind}-{arm}"]
            assert knobs["conservatism"] == best["conservatism"] and knobs["step_size"] == best["step_size"]
            assert (knobs["climb_steps"] == 0) == (arm == "global") and (knobs["samples"] == 1) == (
                arm == "local"
            )
    taken = [row[1] for row in table(results, f"Settings, chosen on {TINY.about}") if row[-1] == "taken"]
    assert taken[:2] == ["conservatism 0.01, step_size 0.03", "conservatism 0.01, awr_temperature 0.1"]


def test_time_ends_between_arms_and_the_next_start_goes_on(
    faked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, start = 0.0, act.run
    monkeypatch.setattr(onpolicy_arms, "time", SimpleNamespace(monotonic=lambda: now))

    def slow(cfg: Any, own: Any) -> Any:
        nonlocal now
        now += 10
        return start(cfg, own)

    monkeypatch.setattr(act, "run", slow)
    with open_run(tmp_path, {}, seed=0) as run:
        # the clone; then four runs of the tuning task, after which PA-RL's settings are known; then nothing
        first = reproduce(run, until=45)
        assert len(faked["made"]) == 2 + 5 and all(claim.measured is None for claim in first.claims)
        assert f"{TINY.about}: 1 of 11 arms are done." in first.notes
        assert not any(row[-1] for row in table(first, f"Settings, chosen on {TINY.about}")[3:])
        now = 0.0
        reproduce(run)
    assert len(faked["made"]) == len(set(faked["made"]))


def test_an_arm_that_goes_to_pieces_is_told_and_a_clone_takes_its_arms_along(
    faked: dict[str, Any], tmp_path: Path
) -> None:
    faked["fails"] = "seed0/gaussian-clone"
    with open_run(tmp_path, {}, seed=0) as run:
        results = reproduce(run)
        assert reproduce(run) == results
    assert not any("bandit/seed0/gaussian-parl" in place for place in faked["made"])
    about = {claim.claim: claim for claim in results.claims}
    failed = next(claim for text, claim in about.items() if "the gaussian policy that learned" in text)
    assert failed.measured is None and "gaussian/clone, seed 0: the loss is not finite" in failed.note
    assert any(
        "gaussian/parl, seed 0: no result, the clone: the loss is not finite" in n for n in results.notes
    )
    diffusion = next(claim for text, claim in about.items() if "the diffusion policy that learned" in text)
    assert diffusion.measured is not None


def test_where_nothing_was_run_no_claim_says_anything(tmp_path: Path) -> None:
    with open_run(tmp_path / "run", {}, seed=0) as run:
        for tier in SIZES:
            results = parl.run(tier, [0, 1], run, until=time.monotonic() - 1)
            assert len(results.claims) > 10 and not results.tables and not results.plots
            assert all(claim.measured is None and claim.holds is None for claim in results.claims)
            assert write_results(results, tmp_path / f"{tier}.json").exists()


def test_every_setup_of_the_main_tier_is_tuned_elsewhere_with_equal_budgets() -> None:
    main = MAIN
    for name, setup in main.items():
        assert (setup.tuning in SETTINGS) == (name not in SETTINGS) and setup.tuning != name
        assert setup.act["eval_episodes"] >= 50
    for methods in SETTINGS.values():
        assert {len(settings) for settings in methods.values()} == {3}
    assert len(parl.SEEDS) == 2 and parl.SEEDS["main"] >= 5
    assert {kind for kind, _ in arms_of(main["umaze"])} == set(CLASSES)
    # where a clone was asked for before, the data were frozen by one that is not reported
    assert all("freeze" in setup.collect for name, setup in main.items() if "bandit" not in name)


# ---- numbers of one result


def test_marks_and_episodes_to_the_goal() -> None:
    one = result("online-parl", 0.1, best=0.5)
    one["measured"][3]["success"] = flags(0.3)  # offline, critic's choice
    one["measured"][-1]["success"] = flags(0.85)
    assert marks(one) == [(0, 0.3), (10, 0.5), (20, 0.85)] and episodes_to_goal(one) == 20
    assert episodes_to_goal(one, 0.4) == 10 and episodes_to_goal(one, 0.2) == 0
    assert episodes_to_goal(one, 0.9) == 30, "never: one mark beyond the last"
    gaussian = result("online-calql", 0.6)
    assert [episodes for episodes, _ in marks(gaussian)] == [0, 10, 20]
    assert raw(result("parl", 0.7)) == 0.7 and raw(result("clone", 0.3)) == 0.3 and raw(one) == 0.1
    assert parl_arms.score(result("parl", 0.6, best=0.8)) == pytest.approx(0.7)
    assert parl_arms.score(result("idql", 0.6)) == 0.6 and parl_arms.score({"failed": "x"}) == -1


# ---- claims that can fail


def made_up(setup: Setup, *, good: bool, seed: int) -> dict[tuple[str, str, int], Any]:
    s = 0.01 * seed
    done = {}
    for kind, arm in arms_of(setup):
        worth = {"clone": 0.3, "parl": 0.8, "global": 0.6, "local": 0.5, "awr": 0.7, "idql": 0.5}.get(
            arm, 0.4
        )
        best = {"online-parl": 0.9}.get(arm, worth + s)
        choice = {"global": 0.5, "parl": 0.7}.get(arm)
        if not good:
            worth, best = 1 - worth, 1 - best
            choice = None if choice is None else {"global": 0.2, "parl": 0.1}[arm]
        one = result(arm, worth + s, choice=choice, best=best)
        if arm == "online-parl":
            one["measured"][3]["success"] = flags(0.3 if good else 0.6)
        if arm in ("online-calql", "online-idql") and not good:
            one["measured"][-2 if arm == "online-calql" else -3]["success"] = flags(0.9)
        done["it", f"{kind}/{arm}", seed] = one
    return done


def verdicts(make: Callable[[int], dict[Any, Any]], monkeypatch: pytest.MonkeyPatch) -> list[Claim]:
    monkeypatch.setitem(SIZES, "main", {"it": MAIN["umaze-biased"]})
    done = {key: value for seed in range(3) for key, value in make(seed).items()}
    return parl_claims.claims(done, "main", "it", [0, 1, 2])


@pytest.mark.parametrize("good", [True, False])
def test_claims_hold_where_numbers_do_and_fail_where_they_do_not(
    good: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = MAIN["umaze-biased"]
    found = verdicts(lambda seed: made_up(setup, good=good, seed=seed), monkeypatch)
    assert len(found) == 4 + 2 + 1 + 1 + 2 + 3
    assert {claim.holds for claim in found} == {good}, [c.claim for c in found if c.holds is not good]
    assert all(claim.note.endswith("3 seeds") for claim in found)
    lead = next(c for c in found if "weighted cloning" in c.claim)
    assert "no near-optimal actions" in lead.claim and lead.measured == pytest.approx(0.1 if good else -0.1)


def test_claims_are_about_the_classes_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """One class that falls behind far enough turns the mean, and a failed seed is left out and named."""
    setup = MAIN["umaze-biased"]

    def make(seed: int) -> dict[Any, Any]:
        done = made_up(setup, good=True, seed=seed)
        done["it", "tokens/parl", seed] = result("parl", 0.02)
        if seed == 1:
            done["it", "flow/awr", 1] = {"failed": "not finite"}
        return done

    found = verdicts(make, monkeypatch)
    lead = next(c for c in found if "weighted cloning" in c.claim)
    assert lead.measured is not None and lead.measured < 0 and lead.note.startswith("2 seeds")
    assert "flow/awr, seed 1: not finite" in lead.note
    tokens = next(c for c in found if "the tokens policy" in c.claim)
    assert tokens.holds is False and next(c for c in found if "the flow policy" in c.claim).holds is True
