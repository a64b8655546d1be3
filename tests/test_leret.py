"""The reproduction of LeReT: arms in order, resumed, stopped, chosen; rules; intervals; claims that can fail."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from heedful import run as run_module
from heedful.data.hops import Question
from heedful.data.hops.world import World
from heedful.data.passages import Passage
from heedful.errors import NothingToLearn
from heedful.judges.search import Hit
from heedful.papers import (
    leret,
    leret_arms,
    leret_claims,
    leret_rules,
    leret_setups,
    leret_writer,
    onpolicy_arms,
)
from heedful.papers.leret_arms import NAMES, RUNS, SIZES, Size
from heedful.papers.leret_intervals import Means, over_all, settled, tau
from heedful.papers.leret_rules import ask_feasible
from heedful.papers.leret_setups import Data, split
from heedful.papers.results import Claim, Results, write_results
from heedful.recipes import retrieve_train
from heedful.recipes.retrieve_pipeline import Turn
from heedful.recipes.retrieve_writers import case_for
from heedful.run import Run, open_run

pytest.importorskip("bm25s", reason="BM25 needs the extra retrieve")

SMOKE = SIZES["smoke"]["world"]
TINY = replace(
    SMOKE,
    data=replace(SMOKE.data, train=8, test=6, dev=3),
    options={**SMOKE.options, "bootstrap_train": 4, "bootstrap_dev": 2},
    runs=("leret",),
)
FOUR = ("base", "few_shot", "cd", "leret")


def reproduce(run: Run, until: float | None = None, seeds: list[int] | None = None) -> Results:
    return leret.run("main", seeds or [0], run, until)


@pytest.fixture(scope="module", autouse=True)
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No git, and a cache of its own for indexes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "commit", lambda: None)
        patch.setenv("HEEDFUL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


# ---- the whole of it, at a size of seconds


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(run folder, results) of one seed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "main", {"world": TINY})
        folder = tmp_path_factory.mktemp("leret")
        with open_run(folder, {}, seed=0) as run:
            results = reproduce(run)
    return folder, results


def test_every_writer_is_measured_and_the_page_shows_it(whole: Any, tmp_path: Path) -> None:
    folder, results = whole
    titles = {table.title: table for table in results.tables}
    found = titles["generated world: what every writer finds"].rows
    names = [row[0] for row in found]
    assert names[:2] == ["question alone", "naive second query"]
    assert names[-5:] == [NAMES[name] for name in (*FOUR, "temperature")]
    assert "generated world: 5 of 5 arms are done." in [note.lower() for note in results.notes]
    by = {row[0]: row for row in found}
    assert by["feasible oracle"][3] > by["question alone"][3] == by["question alone"][2]
    chosen = titles["generated world: options chosen on dev questions"].rows
    assert [row[1:3] for row in chosen] == [["cd_learning_rate", 3e-4], ["cd_learning_rate", 1e-3]]
    assert all(isinstance(row[3], float) for row in chosen)
    measured = [claim for claim in results.claims if claim.measured is not None]
    assert len(measured) >= 8
    page = write_results(results, tmp_path / "leret.json").with_suffix(".md").read_text()
    for part in ("what was tried", "seed by seed", "not among the runs of this setup, for their cost"):
        assert part in page
    assert (folder / "world/seed0/leret-run/report.html").exists(), "each run has a report of its own"


def test_no_question_is_on_two_sides_and_test_questions_choose_nothing(whole: Any) -> None:
    folder, _ = whole

    def read(name: str) -> set[str]:
        return {
            json.loads(line)["question"] for line in (folder / "world/seed0" / name).read_text().splitlines()
        }

    train, dev, test = (read(f"{side}.jsonl") for side in ("train", "dev", "test"))
    assert (len(train), len(dev), len(test)) == (8, 3, 6)
    assert not train & dev and not train & test and not dev & test
    for place in (folder / "world/tuned").glob("*-run"):
        told = json.loads((place / "values.json").read_text())["ids"]
        assert len(told) == 3 and all(name.startswith("dev-") for name in told)
    own = json.loads((folder / "world/seed0/leret-run/values.json").read_text())
    assert len(own["ids"]) == 6 and set(own["informative"].values()) <= {0, 0.5, 1}
    kept = sorted(p.name.split("-")[0] for p in (folder / "world/seed0/start").iterdir() if p.is_dir())
    # queries to learn from are tried once for tuning and for LeReT, and once by temperature
    assert kept.count("tried0") == 2 and kept.count("bootstrap") == 1


def test_the_same_command_again_does_nothing_twice(whole: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, results = whole

    def again(*_: Any, **__: Any) -> Any:
        raise AssertionError("done already")

    monkeypatch.setitem(SIZES, "main", {"world": TINY})
    monkeypatch.setattr(retrieve_train, "run", again)
    monkeypatch.setattr(leret_setups, "make_writer", lambda *_, **__: "writer")
    monkeypatch.setattr(leret_arms, "rules_measured", again)
    with open_run(folder, {}, seed=0) as run:
        assert reproduce(run, time.monotonic() - 1) == results


# ---- order, time, choice: with arms that are made up


def one(share: float, *, growth: float = 0.0, n: int = 60, hops: int = 2, **more: Any) -> dict[str, Any]:
    """What a writer found: a share at the last hop that grew by `growth` with each."""
    rows = [[float(i < (share - growth * (hops - 1 - h)) * n) for i in range(n)] for h in range(hops)]
    return {"recall": rows, "ap": rows, "words": [3.0] * n, "em": rows[-1], **more}


@pytest.fixture
def faked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Arms that are made up at once. made: the runs in order; fails: a run; dev: the recall that a rate has there."""
    world: dict[str, Any] = {"made": [], "fails": "", "dev": {}, "options": {}}

    def trained(
        size: Any, own: Any, setup: str, place: str, arm: str, options: Any, *_: Any, folder: str = ""
    ) -> Any:
        world["made"].append(f"{setup}/{place}/{folder or arm}")
        world["options"][world["made"][-1]] = dict(options)
        if arm == world["fails"]:
            return {"failed": "no query was worth anything"}
        share = world["dev"].get(folder, 0.5) if place == "tuned" else 0.5
        return {name or arm: one(share) for name in RUNS[arm].writers.values()}

    monkeypatch.setattr(leret_arms, "trained", trained)
    monkeypatch.setattr(leret_arms, "missing", lambda *_: "")
    monkeypatch.setattr(leret, "missing", lambda *_: "")
    monkeypatch.setattr(leret_arms, "files", lambda *_: SimpleNamespace(dev="", test="", read=None))
    monkeypatch.setattr(leret_arms, "replace", lambda own, **_: own)
    monkeypatch.setattr(leret_arms, "model", lambda *_, **__: "m")
    monkeypatch.setattr(leret_arms, "rules_measured", lambda *_: {"question": one(0.3), "passage": one(0.4)})
    return world


def test_what_says_most_comes_first(faked: dict[str, Any], tmp_path: Path) -> None:
    with open_run(tmp_path, {}, seed=0) as run:
        results = reproduce(run, seeds=[0, 1, 2])
    made = [stage for stage in faked["made"] if "/tuned/" not in stage]
    once = [f"world/seed0/{arm}" for arm in SIZES["main"]["world"].once]
    real = [f"real-{name}" for name in ("bm25/seed0/leret", "bm25/seed0/with_rules", "bm25/seed0/fresh")]
    real.append("real-dense/seed0/leret")
    more = [*real, *(f"foldoc/seed{s}/leret" for s in range(3))]
    assert made == ["world/seed0/leret", *once, "world/seed1/leret", "world/seed2/leret", *more]
    assert len(faked["made"]) - len(made) == 4, (
        "two rates of imitation, two of preferences, on the world alone"
    )
    assert any(note.startswith("Budget: about 4") for note in results.notes)


def test_rates_are_the_best_on_dev_and_hold_for_every_run_of_the_world(
    faked: dict[str, Any], tmp_path: Path
) -> None:
    faked["dev"] = {"leret-cd_learning_rate-0.0005": 0.6, "leret-learning_rate-0.0002": 0.4}
    with open_run(tmp_path, {}, seed=0) as run:
        reproduce(run)
    best = {"cd_learning_rate": 5e-4, "learning_rate": 5e-5}
    final = {stage: told for stage, told in faked["options"].items() if "/tuned/" not in stage}
    assert len(final) == 10
    for stage, told in final.items():
        rates = {name: told[name] for name in best if name in told}
        assert rates == (best if stage.startswith("world/") else {}), "the others take the defaults"
    assert final["world/seed0/iterative"]["iterations"] == 2
    first = faked["options"]["world/tuned/leret-learning_rate-5e-05"]
    assert first["cd_learning_rate"] == 5e-4 and "method" not in first
    assert faked["options"]["world/tuned/leret-cd_learning_rate-0.0002"]["method"] == "cd"


def test_time_ends_between_pieces_and_the_next_start_goes_on(
    faked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, start = 0.0, leret_arms.trained
    monkeypatch.setattr(onpolicy_arms, "time", SimpleNamespace(monotonic=lambda: now))

    def slow(*args: Any, **how: Any) -> Any:
        nonlocal now
        now += 10
        return start(*args, **how)

    monkeypatch.setattr(leret_arms, "trained", slow)
    with open_run(tmp_path, {}, seed=0) as run:
        first = reproduce(run, until=45)
        assert faked["made"][4:] == ["world/seed0/leret"]
        assert any("4 of 9 arms are done" in note for note in first.notes)
        five = [c for c in first.claims if c.claim.startswith("generated world: 5.")]
        assert len(five) == 2 and all(c.measured is None and c.note == "not run yet" for c in five)
        now = 0.0
        reproduce(run)
    assert len(faked["made"]) == len(set(faked["made"])) == 4 + 5 + 4 + 1


def test_a_failed_run_says_why_and_takes_what_starts_from_it_along(
    faked: dict[str, Any], tmp_path: Path
) -> None:
    faked["fails"] = "leret"
    with open_run(tmp_path, {}, seed=0) as run:
        results = reproduce(run)
    assert not any(stage.endswith("transfer_dense") for stage in faked["made"])
    about = [c for c in results.claims if "generated world: 1." in c.claim]
    assert len(about) == 3
    assert all(c.measured is None and c.note == "no query was worth anything" for c in about)
    seven = next(c for c in results.claims if "generated world: 7." in c.claim)
    assert seven.measured == 0, "the other retriever had a run of its own"


def test_without_the_other_retriever_only_its_arms_are_lacking(
    faked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leret_arms, "missing", lambda _, name: "no MiniLM" if name == "dense" else "")
    with open_run(tmp_path, {}, seed=0) as run:
        results = reproduce(run)
    assert not any("dense" in stage for stage in faked["made"])
    world = [c for c in results.claims if c.claim.startswith("generated world")]
    assert [c.claim[17:19] for c in world if c.note == "no MiniLM"] == ["7."]
    real = [c for c in results.claims if c.claim.startswith("real questions, MiniLM: L")]
    assert len(real) == 4 and all(c.note == "no MiniLM" for c in real)


@pytest.mark.parametrize(
    ("setup", "broken", "told"),
    [
        ("foldoc", "heedful.data.hops.foldoc.installed", "apt-get install dict-foldoc"),
        ("real-bm25", "heedful.papers.leret_setups.shared_folder", "not beside the checkout"),
    ],
)
def test_what_is_not_at_hand_is_said_by_every_claim(
    setup: str, broken: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broken, lambda *_: None)
    monkeypatch.setitem(SIZES, "main", {setup: SIZES["main"][setup]})
    with open_run(tmp_path / "run", {}, seed=0) as run:
        results = reproduce(run)
    assert len(results.claims) in (11, 13) and not results.tables
    for claim in results.claims:
        assert claim.measured is None and claim.holds is None
        assert told in claim.note or "for their cost" in claim.note
    assert told in results.notes[0] and write_results(results, tmp_path / "l.json").exists()


def test_where_nothing_was_run_no_claim_says_anything(tmp_path: Path) -> None:
    with open_run(tmp_path / "run", {}, seed=0) as run:
        for tier in SIZES:
            results = leret.run(tier, [0, 1, 2], run, until=time.monotonic() - 1)
            assert len(results.claims) >= 11 and not results.tables and not results.plots
            assert all(claim.measured is None and claim.holds is None for claim in results.claims)


def test_every_arm_of_the_issue_is_a_run_whose_options_have_a_meaning(tmp_path: Path) -> None:
    from heedful.recipes.retrieve_train_plan import settle

    wanted = {"few_shot", "few_shot_first", "sft_all", "iterative", "dpo", "recall", "all_pairs", "answer"}
    names = {own or name for name, run in RUNS.items() for own in run.writers.values()}
    assert names >= wanted | {"base", "cd", "leret", "temperature", "leret_dense"} and names == set(NAMES)
    base = retrieve_train.Config(questions="q", corpus="c", reader="a rule", **SIZES["main"]["world"].options)
    for arm in RUNS.values():
        settle(replace(base, **arm.options))


# ---- setups and rules


def test_practice_is_half_right_on_another_world_and_is_done_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from tiny import save

    from heedful.judges.search_index import cached_index
    from heedful.policies import decoder
    from heedful.policies.language import LanguagePolicy

    own, other = World(0, 240, (2,)), World(leret_writer.ANOTHER, 240, (2,))
    asked = other.questions("train", 40)
    assert not {q.question for q in asked} & {q.question for q in own.questions("test", 40)}
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps(passage._asdict()) + "\n" for passage in other))
    _, search = cached_index(str(corpus), "bm25", quiet=True)
    cases = leret_writer.practice(other, asked, search, 2, 3, 0)
    assert len(cases) == 80 and [len(case.turn.queries) for case in cases] == [0] * 40 + [1] * 40
    shown = leret_writer.demonstrated(cases, 2, 40, 0)
    assert {len(some) for some in shown} == {0, 1, 2} and 25 < sum(not some for some in shown) < 55
    way_of = {case_for(c.turn.question.question, c.turn.context, 40, c.query): c.way for c in cases}
    assert all(way_of[demo] == case.way for case, some in zip(cases, shown, strict=True) for demo in some)
    assert not any(c.turn.question.question in "".join(some) for c, some in zip(cases, shown, strict=True))
    hits = search([case.query for case in cases[40:]], 3)
    found = [
        q.gold_titles[1] in [hit.passage.title for hit in some] for q, some in zip(asked, hits, strict=True)
    ]
    assert sum(found[0::2]) >= 15 and sum(found[1::2]) < sum(found[0::2]) - 5

    start = save(tmp_path / "start")
    monkeypatch.setattr(leret_writer, "START", str(start))
    how: dict[str, Any] = {"hops": 2, "k": 1, "passage_words": 5, "demos": 2}
    with open_run(tmp_path / "run", {}, seed=0) as run:
        made = leret_writer.make_practised(240, (2,), 12, **how, run=run, name="world/practised")
        monkeypatch.setattr(decoder, "fit_tokens", lambda *_, **__: pytest.fail("practised twice"))
        assert leret_writer.make_practised(240, (2,), 12, **how, run=run, name="world/practised") == made
        data = Data("world", 1, 1, entities=240, lengths=(2,), practice=12)
        files = SimpleNamespace(corpus="", train="")
        assert leret_setups.model(data, "world", files, run, **how) == str(made)  # type: ignore[arg-type]
    before, after = (LanguagePolicy.load(str(place), device="cpu").module for place in (start, made))
    assert any(not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))


def test_real_questions_are_split_by_kind_without_overlap() -> None:
    file = [
        Question(f"{source}{i}", f"{source} {i}", ("a",), source=source) for source in "xy" for i in range(20)
    ]
    sides = split(file, Data("real", 12, 16), 0)
    ids = {side: [q.id for q in some] for side, some in sides.items()}
    assert (len(ids["train"]), len(ids["test"]), ids["dev"]) == (12, 16, [])
    assert not set(ids["train"]) & set(ids["test"])
    for side, count in (("train", 6), ("test", 8)):
        assert sum(name.startswith("x") for name in ids[side]) == count
    assert sides == split(file, Data("real", 12, 16), 0) != split(file, Data("real", 12, 16), 1)
    assert {name[0] for name in ids["train"][:6]} == {"x", "y"}, "the bootstrap sees both kinds"


def test_rules_find_what_is_known_of_the_real_questions(tmp_path: Path) -> None:
    """The anchors that were measured when the data were made."""
    if leret_setups.shared_folder() is None:
        pytest.skip("the real questions are not beside the checkout, in ../shared/data/multihop")
    size = replace(SIZES["main"]["real-bm25"], data=Data("real", 4, 4))
    with open_run(tmp_path, {}, seed=0) as run:
        own = leret_setups.files(size.data, "real-bm25", 0, run)
        every = leret_rules.rules_measured(size, own, "real-bm25", 0, run)["every"]
    known = {
        "question": (0.645, 0.427),
        "passage": (0.695, 0.459),
        "double": (0.75, 0.494),
        "gold": (0.95, 0.795),
    }
    for name, (hotpot, musique) in known.items():
        assert every[name] == pytest.approx({"hotpotqa": hotpot, "musique": musique}, abs=0.011), name


def test_the_feasible_oracle_asks_for_what_the_way_so_far_names() -> None:
    question = Question("q", "who", ("A", "B", "C"))

    def found(*titles: str) -> Turn:
        return Turn(question).after("x", [Hit(Passage(t, t, "text"), 1.0) for t in titles])

    asked = ask_feasible([Turn(question), found(), found("B"), found("A"), found("A", "B"), found("A", "C")])
    assert asked == ["who", "who", "who", "B", "C", "B"]
    assert ask_feasible([found("A", "B", "C")]) == ["who"]


# ---- intervals


def test_a_paired_interval_is_narrow_where_writers_agree_and_seeds_add_their_spread() -> None:
    rng = np.random.default_rng(0)
    easy = rng.random(200)
    done = {}
    for seed, lead in enumerate((0.1, 0.12, 0.3)):
        done["s", "a", seed] = {"recall": [easy.tolist()]}
        done["s", "b", seed] = {"recall": [(easy + lead + 0.01 * rng.standard_normal(200)).tolist()]}

    def lead_of(mean: Means) -> np.ndarray:
        return mean("b", "recall", -1) - mean("a", "recall", -1)

    single, interval = over_all(lead_of, done, "s", [0])
    assert interval is not None and single == pytest.approx([0.1], abs=0.01)
    assert interval[1] - interval[0] < 0.01 < easy.std() * 2 * 1.96 / 200**0.5 / 2
    single, interval = over_all(lead_of, done, "s", [0, 1, 2, 3])
    assert interval is not None and len(single) == 3
    assert interval[0] == pytest.approx(0.1, abs=0.02) and interval[1] > 0.22
    alone = over_all(lambda mean: mean("a", "recall", -1), done, "s", [0])[1]
    assert alone is not None and alone[1] - alone[0] > 0.06, "unpaired, the questions' own spread"
    assert over_all(lambda mean: mean("c", "recall", -1), done, "s", [0, 1]) == ([], None)


def test_what_is_not_known_is_left_out_of_means() -> None:
    done = {("s", "a", 0): {"recall": [[1.0, None, 0.0, None]], "informative": [0.5, 1.0]}}
    assert Means(done, "s", 0, 50)("a", "recall", -1)[0] == 0.5
    assert Means(done, "s", 0, 50)("a", "informative")[0] == 0.75
    assert Means(done, "s", 0).hops("a") == 1


def test_a_claim_is_settled_by_its_interval_and_by_every_seed() -> None:
    assert settled([0.2, 0.3], (0.1, 0.4), 0.0) is True
    assert settled([-0.2, -0.3], (-0.4, -0.1), 0.0) is False
    assert settled([0.2, -0.01], (0.05, 0.4), 0.0) is None, "one seed says otherwise"
    assert settled([0.2, 0.3], (-0.1, 0.4), 0.0) is None and settled([0.2], None, 0.0) is None


def test_kendalls_tau_by_hand() -> None:
    rows = [np.array([1.0, 1.0]), np.array([2.0, 1.0]), np.array([3.0, 3.0])]
    other = [np.array([1.0, 1.0]), np.array([3.0, 2.0]), np.array([2.0, 5.0])]
    # first: two pairs alike, one not; second: a tie counts for neither
    assert tau(rows, other).tolist() == pytest.approx([1 / 3, 2 / 3])


# ---- claims that can fail


def made_up(*, good: bool, seed: int) -> dict[tuple[str, str, int], Any]:
    def arm(share: float, growth: float = 0.05, **more: Any) -> dict[str, Any]:
        return one(share + 0.01 * seed, growth=growth, n=200, **more)

    shares = (0.4, 0.5, 0.6, 0.75) if good else (0.4, 0.35, 0.3, 0.2)
    done: dict[str, Any] = dict(zip(FOUR, map(arm, shares), strict=True))
    done["leret"] = arm(shares[-1], 0.2 if good else -0.1, informative=[0.9 if good else 0.2] * 50)
    done["temperature"] = arm(0.5, informative=[0.5] * 50)
    done |= {"feasible": arm(0.9), "passage": arm(0.45), "double": arm(0.5), "question": arm(0.44)}
    done["with_rules"] = arm(0.85 if good else 0.1)
    done |= {"base_fresh": arm(0.5), "few_shot_fresh": arm(0.55), "fresh": arm(0.85 if good else 0.1)}
    done["iterative"] = arm(0.8 if good else 0.1)
    done |= {"base_dense": arm(0.4), "leret_dense": arm(0.6 if good else 0.3)}
    if not good:  # readers that answer worse where more is found
        for name, share in zip(FOUR, (0.1, 0.2, 0.3, 0.4), strict=True):
            done[name]["em"] = one(share, n=200)["em"]
    return {("world", name, seed): result for name, result in done.items()}


@pytest.mark.parametrize("good", [True, False])
def test_claims_hold_where_numbers_do_and_fail_where_they_do_not(good: bool) -> None:
    done = {key: value for seed in range(3) for key, value in made_up(good=good, seed=seed).items()}
    found = leret_claims.claims(done, "main", "world", [0, 1, 2])
    assert len(found) == 11
    assert {claim.holds for claim in found} == {good}, [c.claim for c in found if c.holds is not good]
    assert all("3 seeds, interval over seeds and questions" in claim.note for claim in found)
    by = {claim.claim.partition(": ")[2][:40]: claim for claim in found}
    way = next(c for name, c in by.items() if name.startswith("2. LeReT goes at least half"))
    assert way.measured == pytest.approx(0.7 if good else -0.4, abs=0.01)
    growth = next(c for name, c in by.items() if name.startswith("3. "))
    assert growth.measured == pytest.approx(0.15 if good else -0.15, abs=0.01)
    answers = next(c for name, c in by.items() if name.startswith("4. "))
    assert answers.measured == pytest.approx(1.0 if good else -1.0)


@pytest.mark.parametrize("good", [True, False])
def test_claims_about_real_questions(good: bool) -> None:
    done: Any = {("real-bm25", name, s): r for (_, name, s), r in made_up(good=good, seed=0).items()}
    found: list[Claim] = leret_claims.claims(done, "main", "real-bm25", [0, 1, 2])
    assert len(found) == 13 and {claim.holds for claim in found} == {good}
    assert all("1 seed, interval over questions alone" in claim.note for claim in found)


def test_a_run_with_nothing_to_learn_from_is_kept_as_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(*_: Any, **__: Any) -> Any:
        raise NothingToLearn("none with queries of different worth")

    monkeypatch.setattr(retrieve_train, "run", nothing)
    own = leret_setups.Files("c", "q", "t", "d", None)
    size: Size = SIZES["main"]["real-bm25"]
    with open_run(tmp_path, {}, seed=0) as run:
        found = leret_arms.trained(size, own, "s", "seed0", "leret", {}, 0, "smollm2", run)
    assert found == {"failed": "none with queries of different worth"}
