"""The reproduction of the data-centric metrics: its world, its claims where they fail, and its real files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audit_pairs import length_pairs, pairs, write

from heedful.papers import datacentric, datacentric_real, datacentric_splits, datacentric_synthetic
from heedful.papers.rlaif_verdicts import data_folder
from heedful.papers.seeds import over_seeds, over_splits
from heedful.run import open_run


def test_the_world_follows_bradley_terry_and_the_wanted_correlation() -> None:
    direction = datacentric_synthetic.world(3)
    assert np.linalg.norm(direction) == pytest.approx(1)
    for similarity in (0.0, 0.8):
        drawn = datacentric_synthetic.draw(direction, 20_000, (1, 2), similarity=similarity)
        worth = drawn @ direction
        # Both answers have variance 1, so their difference has 2 (1 - correlation).
        assert worth.var() + worth.mean() ** 2 == pytest.approx(2 * (1 - similarity), rel=0.04)
        sure = 1 / (1 + np.exp(-datacentric_synthetic.BETA * np.abs(worth)))
        assert (worth > 0).mean() == pytest.approx(sure.mean(), abs=0.01)


def test_a_seed_gives_the_numbers_of_the_protocol() -> None:
    found = datacentric_synthetic.one_seed(0)
    assert found == datacentric_synthetic.one_seed(0)
    assert len(found["clean"]) == len(found["noisy"]) == 6
    assert found["clean"][0] < 0.86 < found["clean"][-1] and found["noisy"][-1] < found["clean"][-1]
    assert found["confidence"][0] > found["confidence"][3] + 0.2 and found["ece"][0] < 0.05 < found["ece"][3]
    assert found["similarity"][-1] < found["similarity"][0]


def part_of(monkeypatch: pytest.MonkeyPatch, folder: Path, **changed: Any) -> dict[str, bool | None]:
    """Whether each claim holds when the experiments had given these numbers instead."""
    found = datacentric_synthetic.one_seed(0) | changed
    monkeypatch.setattr(datacentric_synthetic, "one_seed", lambda seed: found)
    with open_run(folder, {}, seed=0) as run:
        part = datacentric_synthetic.synthetic_part([0, 1, 2], run)
    return {claim.claim[:40]: claim.holds for claim in part.claims}


def test_claims_can_fail(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    flat = [0.8] * 6
    wrong = part_of(
        monkeypatch,
        tmp_path / "wrong",
        clean=flat[::-1],
        noisy=flat,
        noise=[0.9, 0.8, 0.7, 0.6, 0.55, 0.4],
        confidence=[0.6, 0.7, 0.8, 0.9, 0.9, 0.9],
        similarity=[0.7, 0.8, 0.8, 0.9],
    )
    # n_eff of a flat curve is its smallest size; that claim alone is true of these numbers.
    assert list(wrong.values()).count(False) == len(wrong) - 1


def test_the_smoke_tier_runs_to_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datacentric_real, "data_folder", lambda: None)
    with open_run(tmp_path / "run", {}, seed=0) as run:
        results = datacentric.run("smoke", [0, 1, 2], run)
    assert results.paper == "datacentric" and len(results.claims) == 18
    real = [claim for claim in results.claims if claim.measured is None]
    assert len(real) == 11 and all("shared" in claim.note for claim in real)


def audited(accuracy: float, over: float, explains: bool) -> dict[str, Any]:
    def span(value: float | None, half: float = 0.01) -> dict[str, Any]:
        return (
            {"estimate": value, "low": None, "high": None}
            if value is None
            else {
                "estimate": value,
                "low": value - half,
                "high": value + half,
            }
        )

    return {
        "pairs": 100,
        "duplicates": 0,
        "probe_accuracy": span(accuracy),
        "length_accuracy": span(accuracy - over),
        "probe_over_length": span(over),
        "chosen_longer": span(0.7),
        "probe_accuracy_length_balanced": None,
        "length_explains_as_much": explains,
        "scale": {"slope": span(0.02)},
        "noise": {
            "excess_retention": [span(1.0), span(0.95), span(0.9), span(0.5), span(0.2), span(0.0)],
            "accuracy": [span(0.6)] * 6,
            "ece": [0.05] * 6,
        },
        "information": {"least_over_random": span(-0.01)},
    }


def test_claims_about_real_files_are_read_from_the_audits() -> None:
    names = ["gpt4-a", "hh-harmless"]
    files = [{"file": f"/x/{n}.jsonl", **audited(0.63, 0.05, False)} for n in names]
    files[1]["pairs"] = 200
    common = {
        "accuracy": [{"estimate": 0.7}, {"estimate": 0.6}],
        "on": "all",
        "comparisons": [{"a": 0, "b": 1, "gap": {"estimate": 0.1, "low": 0.05, "high": 0.15}}],
    }
    compared = {"files": files, "common": common, "probe": "words", "advice": ["a"]}
    for over, explains in ((-0.02, True), (0.05, False)):
        whole = {
            "files": [audited(0.7, over, explains)],
            "advice": ["all: length explains" if explains else "x"],
        }
        part = datacentric_real.findings(compared, whole, "main")
        holds = [claim.holds for claim in part.claims]
        assert holds == [explains, True, False, False, True]
        assert ("yes" if explains else "NO") in part.claims[0].note
    # An audit that does not begin with length has failed, whatever it measured.
    whole["files"], whole["advice"] = [audited(0.7, -0.02, True)], ["all: something else first"]
    assert datacentric_real.findings(compared, whole, "main").claims[0].holds is False
    assert all(c.measured is None for c in datacentric_real.findings(compared, whole, "smoke").claims)
    assert json.dumps([list(row) for row in part.tables[0].rows])


# ---- splits


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[dict[str, Any]]]:
    """(file, run folder, three splits) of generated pairs, two for a prompt."""
    folder = tmp_path_factory.mktemp("splits")
    file = write(folder / "pairs.jsonl", pairs(400, flipped=0.1, prompts=200))
    with open_run(folder / "run", {}, seed=0) as run:
        return file, folder / "run", datacentric_splits.splits_of(file, [0, 1, 2], run, test=81)


def test_splits_are_by_prompt_and_differ(splits: Any) -> None:
    # 81 test pairs would part the two pairs of a prompt, so it is 82.
    assert all((one["train"], one["test"]) == (318, 82) for one in splits[2])
    assert len({one["full"] for one in splits[2]}) > 1
    for one in splits[2]:
        assert one["sizes"][-1] == 318 and len(one["scale"]) == len(one["sizes"]) == 4
        assert one["scale"][-1] == one["noise"][0] == one["full"] > 0.75
        assert list(one["arms"]) == list(datacentric_splits.ARMS) and 0.35 < one["length"] < 0.65


def test_splits_are_kept(splits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("this was done before")

    file, folder, found = splits
    monkeypatch.setattr(datacentric_splits, "_split", never)
    with open_run(folder, {}, seed=0) as run:
        assert datacentric_splits.splits_of(file, [0, 1, 2], run, test=81) == found
        with pytest.raises(AssertionError, match="done before"):
            datacentric_splits.splits_of(file, [3], run, test=81)


def test_a_file_without_its_own_experiments_has_length_and_the_whole(tmp_path: Path) -> None:
    with open_run(tmp_path / "run", {}, seed=0) as run:
        found = datacentric_splits.splits_of(write(tmp_path / "p.jsonl", length_pairs(200)), [0], run)
    assert set(found[0]) == {"train", "test", "strength", "full", "length"}
    assert (found[0]["train"], found[0]["test"]) == (160, 40) and found[0]["length"] > 0.7


def test_claims_over_splits_can_hold_and_fail(splits: Any) -> None:
    assert datacentric_splits.hh_claims(splits[2])[0].holds is True
    bad = [
        one | {"full": 0.5, "length": 0.6, "scale": [0.7, 0.6, 0.55, 0.5 + i * 1e-4]}
        for i, one in enumerate(splits[2])
    ]
    assert [claim.holds for claim in datacentric_splits.hh_claims(bad)] == [False] * 4
    verdicts = datacentric_splits.verdict_claims
    ahead = [{"train": 80, "test": 20, "full": 0.73, "length": 0.76 + i / 1000} for i in range(3)]
    behind = [one | {"full": 0.8} for one in ahead]
    assert [claim.holds for claim in verdicts(ahead, (76.78, (75.0, 78.0)))] == [True, True]
    assert [claim.holds for claim in verdicts(behind, (75.6, (75.0, 78.0)))] == [False, False]
    assert [len(table.rows) for table in datacentric_splits.hh_tables(splits[2])] == [2, 2, 2]
    assert datacentric_splits.hh_plot(splits[2]).series[0].x == splits[2][0]["sizes"]


def test_the_interval_over_splits_counts_the_rows_that_they_share() -> None:
    values = [0.60, 0.62, 0.64, 0.61]
    mean, plain = over_seeds(values)
    again, wide = over_splits(values, train=300, test=100)
    assert plain is not None and wide is not None and again == mean
    # 1/4 + 1/3 in the place of 1/4
    assert (wide[1] - mean) / (plain[1] - mean) == pytest.approx(np.sqrt((1 / 4 + 1 / 3) / (1 / 4)))
    assert mean - wide[0] == pytest.approx(wide[1] - mean)
    assert over_splits([0.6], 300, 100) == (0.6, None)


def test_the_longer_answer_is_counted_in_characters_over_all_pairs() -> None:
    rows = [{"prompt": str(i // 2), "chosen": "aa" if i < 75 else "a", "rejected": "a"} for i in range(100)]
    share, (low, high) = datacentric_real.chosen_longer(rows)
    assert share == 75 and 60 < low < 75 < high < 90


@pytest.mark.skipif(data_folder() is None, reason="../shared/data/preferences is not there")
def test_the_real_files_are_the_sources_and_hh(tmp_path: Path) -> None:
    folder = data_folder()
    assert folder is not None
    paths = datacentric_real.write_files(folder, tmp_path, 20)
    assert [path.stem for path in paths] == [
        *(f"gpt4-{name}" for name in ("helpful_base", "koala", "oasst", "selfinstruct", "vicuna")),
        "hh-harmless",
        "gpt4-all",
    ]
    assert all(len(path.read_text().splitlines()) == 20 for path in paths)
    before = paths[0].stat().st_mtime_ns
    assert (
        datacentric_real.write_files(folder, tmp_path, 20) == paths and paths[0].stat().st_mtime_ns == before
    )
