"""The reproduction of the data-centric metrics: its world, its claims where they fail, and its real files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heedful.papers import datacentric, datacentric_real, datacentric_synthetic
from heedful.papers.rlaif_verdicts import data_folder
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
    assert results.paper == "datacentric" and len(results.claims) == 14
    real = [claim for claim in results.claims if claim.measured is None]
    assert len(real) == 7 and all("shared" in claim.note for claim in real)


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
        assert holds == [True, True, True, explains, False, False, True]
        assert ("yes" if explains else "NO") in part.claims[3].note
    assert all(c.measured is None for c in datacentric_real.findings(compared, whole, "smoke").claims)
    assert json.dumps([list(row) for row in part.tables[0].rows])


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
