"""`heedful audit` at its edges: no shared words, faulty evaluation files, changed models, seeds that differ."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audit_pairs import pairs, write

from heedful.errors import HeedfulError
from heedful.judges import probes
from heedful.recipes import audit, audit_learn, audit_measure
from heedful.recipes.audit_survey import survey
from heedful.run import open_run


def config(folder: Path, *files: Path, out: str = "run", **options: Any) -> audit.Config:
    return audit.Config(
        files=tuple(map(str, files)),
        out=str(folder / out),
        cache=str(folder / "features"),
        quiet=True,
        **options,
    )


def test_a_file_whose_answers_share_no_word_is_refused_with_what_to_do(tmp_path: Path) -> None:
    rows = [{"prompt": f"q {i}?", "chosen": "👍" * (i + 1), "rejected": "👎" * (i + 2)} for i in range(60)]
    file = write(tmp_path / "thumbs.jsonl", rows)
    with pytest.raises(HeedfulError, match=r"thumbs\.jsonl: no word is in two training answers.*--probe"):
        audit.main(config(tmp_path, file))


def test_the_rows_of_an_evaluation_file_that_are_not_tested_on_are_counted(tmp_path: Path) -> None:
    rows = pairs(30, seed=1)
    rows[3]["rejected"] = rows[3]["chosen"]
    evaluation = write(tmp_path / "eval.jsonl", [*rows, {"prompt": "a?", "chosen": "b", "rejected": ""}])
    file = write(tmp_path / "pairs.jsonl", pairs(60))
    assert audit.main(config(tmp_path, file, eval=str(evaluation), drop_faulty_rows=True)) == 0
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert report["data"]["rows of it left out"] == "1 identical answers, 1 faulty"


def test_features_of_a_model_that_was_trained_on_in_its_folder_are_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def featurise(some: Sequence[probes.Pair]) -> dict[str, Any]:
        sides = np.random.default_rng(0).normal(size=(2, len(some), 4)).astype(np.float32)
        return {"chosen": sides[0], "rejected": sides[1], "similarity": np.zeros(len(some), np.float32)}

    monkeypatch.setattr(audit_learn, "_featurise", lambda cfg, spec: featurise)
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    file = write(tmp_path / "pairs.jsonl", pairs(60))
    made = []
    for i, weights in enumerate((b"old", b"old", b"new")):
        (model / "model.safetensors").write_bytes(weights)
        assert audit.main(config(tmp_path, file, out=f"run{i}", probe="lm", model=str(model))) == 0
        made.append(len(list((tmp_path / "features").glob("*.npz"))))
    assert made == [1, 1, 2]


def test_the_accuracy_of_the_whole_is_the_end_of_the_curve_where_seeds_differ(tmp_path: Path) -> None:
    """A fine-tuned probe learns otherwise with every seed: the average seed is reported, not what they say together."""
    files = [write(tmp_path / f"{i}.jsonl", pairs(150, seed=i)) for i in (1, 2)]
    cfg = config(tmp_path, *files)
    with open_run(tmp_path / "other", {}, seed=0) as opened:
        surveys = survey([*cfg.files], {}, opened)
    splits = audit_learn.split(cfg, surveys)
    rng, learned = np.random.default_rng(0), []
    for one, rows in zip(surveys, splits):
        tested, count = len(rows.test), int(one.usable.sum())
        common = sum(len(chosen) for _, chosen in rows.common)
        margins = [rng.normal(0.6, 1, (2, tested + common)) for _ in range(3)]
        learned.append(
            audit_learn.Learned(
                [len(rows.train) // 2, len(rows.train)],
                scale=margins,
                noise=[rng.normal(0.6, 1, (6, tested)) for _ in range(3)],
                information=[rng.normal(0.6, 1, (5, tested)) for _ in range(3)],
                crossed=rng.normal(0.6, 1, count),
                similarity=rng.random(count),
            )
        )
    measured = audit_measure.measure(cfg, surveys, splits, learned)
    for i, one in enumerate(measured.files):
        assert one.probe.estimate == pytest.approx(one.scale["accuracy"][-1].estimate)
        assert measured.common_accuracy[i].estimate == pytest.approx(measured.common_curves[i][-1])
    gap = measured.common_curves[0][-1] - measured.common_curves[1][-1]
    assert measured.comparisons[0]["gap"].estimate == pytest.approx(gap)
    reached = [measured.comparisons[0][name][0] for name in ("a_to_reach_b", "b_to_reach_a")]
    assert min(reached) < float("inf")
