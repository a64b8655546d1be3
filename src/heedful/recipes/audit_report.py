"""What `heedful audit` leaves behind: result.json, suspicious.jsonl, and a page with tables, four plots and advice."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from heedful.atomic import write_file
from heedful.data import quality
from heedful.data.problems import place
from heedful.data.quality.information import ALIKE
from heedful.evals.intervals import Interval
from heedful.recipes.audit_advice import advice, length_explains, names_of
from heedful.recipes.audit_learn import Learned
from heedful.recipes.audit_measure import Measured
from heedful.recipes.audit_survey import FAULTY, IDENTICAL, MISMATCH, Survey, pairs_of
from heedful.recipes.audit_tables import tables
from heedful.report import write_report
from heedful.report_plots import SERIES
from heedful.run import Run

if TYPE_CHECKING:
    from heedful.recipes.audit import Config

MORE = 10
"""Suspicious pairs in suspicious.jsonl for each one on the page."""
SAID = 2
"""Pieces of advice under the title, and the comparison of the files; all of it stands in a table."""
LIMITS = [
    "Everything learned here is learned by the probe named above; a larger reward model may rank the files otherwise.",
    "Intervals are over held-out prompts, seeds averaged; they hold for prompts like those of the file.",
    "Flipped labels are flipped at random. Real mistakes are not: annotators agree on the wrong answer for a reason, "
    "often its length.",
    "A suspicious pair is one that the rest of the file speaks against. It may be the one that is right.",
    "The languages are told by stop words and scripts, the near-duplicates by shared pairs of words.",
]


def finish(
    cfg: Config,
    surveys: Sequence[Survey],
    measured: Measured,
    learned: Sequence[Learned],
    columns: Mapping[str, str],
    cleaned: Mapping[str, int] | None,
    run: Run,
) -> dict[str, Any]:
    """Write suspicious.jsonl, result.json, report.json and report.html; returns the result."""
    probe = learned[0].about
    said = advice(measured, probe, cfg.clean_below)
    suspects = suspicious(cfg, surveys, measured, columns)
    result = numbers(cfg, measured, probe, said)
    if cleaned is not None:
        result["clean"] = dict(cleaned)
    page = {
        "title": "Audit of " + ", ".join(names_of([one.file for one in measured.files])),
        "job": "audit",
        "summary": [*said[:SAID], *(said[-1:] if len(cfg.files) > 1 else [])],
        "warnings": warnings(measured),
        "tables": [
            {"title": "Advice", "columns": ["in the order of weight"], "rows": [[text] for text in said]},
            *tables(measured),
        ],
        "curves": plots(measured),
        "samples": [_sample(one) for one in suspects if one["shown"]],
        "columns": ["chosen", "rejected"],
        "headings": {"samples": "Suspicious pairs", "curves": "Plots", "curves_first": "yes"},
        "data": {
            "probe": probe,
            "files": [one.file for one in measured.files],
            "evaluation": measured.common or "the held-out pairs of the file",
            **({"rows of it left out": left_out(surveys[len(cfg.files)])} if cfg.eval else {}),
            "held out": f"{cfg.eval_share:.0%} of the prompts, the same ones in every file",
            "seeds": cfg.seeds,
            "regularisation (C), file by file": [one.strength for one in learned if one.strength is not None],
        },
        "feedback": {f"cleaned: {name}": count for name, count in (cleaned or {}).items()},
        "limits": LIMITS,
    }
    rows = [{k: v for k, v in one.items() if k != "shown"} for one in suspects]
    _write(run, "suspicious.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    _write(run, "report.json", json.dumps(page, ensure_ascii=False, indent=1))
    _write(run, "result.json", json.dumps(result, ensure_ascii=False, indent=1))
    write_report(run.folder)
    return result


def _write(run: Run, name: str, text: str) -> None:
    write_file(run.path(name), (text.rstrip("\n") + "\n").encode() if text else b"")


# ---- numbers


def plain(value: Any) -> Any:
    """A value as JSON has it: intervals as estimate, low and high; NaN and infinities as null."""
    if isinstance(value, Interval):
        return {"estimate": plain(value.estimate), "low": plain(value.low), "high": plain(value.high)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, bool | str | int) or value is None:
        return value
    number = float(value)
    return round(number, 6) if math.isfinite(number) else None


def numbers(cfg: Config, measured: Measured, probe: str, said: list[str]) -> dict[str, Any]:
    """result.json. n_eff is null where the whole file does not reach the other's accuracy."""
    files = []
    for one in measured.files:
        told = {
            "file": one.file,
            **one.counts,
            "chosen_longer": one.chosen_longer,
            "length_accuracy": one.length,
            "probe_accuracy": one.probe,
            "probe_over_length": one.gap,
            "length_explains_as_much": length_explains(one),
            "probe_accuracy_length_balanced": one.balanced,
            "probe_prefers_longer": one.longer_picked,
            "scale": one.scale,
            "noise": {
                **one.noise,
                "ece": [r["ece"] for r in one.reliability],
                "mean_confidence": [r["mean_confidence"] for r in one.reliability],
            },
            "information": one.information,
            "similarity": one.similarity,
            f"share_with_cosine_from_{ALIKE}": one.alike,
            "spread_over_seeds": one.spread,
            "words": one.lengths,
            "languages": one.languages,
            "labels_below_threshold": int((one.confidence < cfg.clean_below).sum()),
        }
        files.append(plain(told))
    result: dict[str, Any] = {
        "job": "audit",
        "probe": probe,
        "seed": cfg.seed,
        "seeds": cfg.seeds,
        "files": files,
    }
    if measured.common:
        result["common"] = plain(
            {
                "on": measured.common,
                "pairs": measured.common_pairs,
                "prompts": measured.common_prompts,
                "accuracy": measured.common_accuracy,
                "length_accuracy": measured.common_length,
                "curves": measured.common_curves,
                "comparisons": measured.comparisons,
            }
        )
    result["prompt_overlap"] = plain(measured.overlap)
    result["advice"] = said
    return result


def left_out(evaluation: Survey) -> str:
    """How many rows of an evaluation file cannot be tested on, by reason."""
    counts = {
        "identical answers": IDENTICAL,
        "answers to different prompts": MISMATCH,
        "faulty": FAULTY,
    }
    found = {what: int((evaluation.state == state).sum()) for what, state in counts.items()}
    return ", ".join(f"{count:,} {what}" for what, count in found.items() if count) or "none"


def warnings(measured: Measured) -> list[str]:
    """What must be seen before any number."""
    said = []
    for name, one in zip(names_of([f.file for f in measured.files]), measured.files):
        if one.counts["test"] < 100:
            said.append(f"{name}: only {one.counts['test']} held-out pairs stand behind its numbers.")
    if len(measured.files) > SERIES:
        said.append(f"The plots show the first {SERIES} files; the tables have all.")
    return said


# ---- plots


def plots(measured: Measured) -> list[dict[str, Any]]:
    """Scale, noise, calibration and similarity, a line for each file."""
    names = names_of([one.file for one in measured.files])
    on = f"on {measured.common}" if measured.common else "on the held-out pairs"
    curves = measured.common_curves or [
        [point.estimate for point in one.scale["accuracy"]] for one in measured.files
    ]
    files = list(zip(names, measured.files))
    reliable = {
        name: list(zip(one.reliability[0]["confidence"], one.reliability[0]["accuracy"]))
        for name, one in files
    }
    return [
        {
            "title": "Scale: accuracy by number of training pairs",
            "x": "training pairs",
            "lines": {name: list(zip(one.scale["n"], curve)) for (name, one), curve in zip(files, curves)},
            "note": f"{on}; the axis doubles",
        },
        {
            "title": "Label noise: accuracy by share of flipped training labels",
            "x": "share of labels flipped",
            "lines": {
                name: list(zip(one.noise["q"], [a.estimate for a in one.noise["accuracy"]]))
                for name, one in files
            },
            "note": "on the held-out pairs of each file, whose labels are not flipped",
        },
        {
            "title": "Reliability: accuracy by confidence",
            "x": "confidence",
            "lines": {
                **dict(list(reliable.items())[: SERIES - 1]),
                "perfectly calibrated": [(0.5, 0.5), (1, 1)],
            },
            "note": "on the held-out pairs of each file, no labels flipped",
        },
        {
            "title": "Information: how similar chosen and rejected are",
            "x": "cosine of chosen and rejected",
            "lines": {name: one.histogram for name, one in files},
            "note": "share of the pairs, in twentieths of the axis",
        },
    ]


# ---- suspicious pairs


def suspicious(
    cfg: Config, surveys: Sequence[Survey], measured: Measured, columns: Mapping[str, str]
) -> list[dict[str, Any]]:
    """The pairs whose label the cross-validated probe believes least, of each file, with their lines and texts; of
    those that are in the file several times, the first."""
    names = names_of([one.file for one in measured.files])
    found = []
    for i, (name, one) in enumerate(zip(names, measured.files)):
        survey = surveys[i]
        again = quality.repeats(survey.of("high"), survey.of("low"), survey.of("side")).same_as >= 0
        doubted = np.flatnonzero((one.confidence < 0.5) & ~again)
        order = doubted[np.argsort(one.confidence[doubted], kind="stable")][: MORE * cfg.shown]
        rows = np.flatnonzero(survey.usable)[order]
        rank_of = {int(row): rank for rank, row in enumerate(rows)}
        wanted = np.zeros(len(survey.line), bool)
        wanted[rows] = True
        picked = []
        for number, (prompt, chosen, rejected) in pairs_of(survey, columns, wanted) if len(rows) else ():
            rank = rank_of[number]
            words = survey.words[number]
            picked.append(
                {
                    "file": one.file,
                    "line": int(survey.line[number]),
                    "confidence": round(float(one.confidence[order[rank]]), 4),
                    "prompt": prompt,
                    "chosen": chosen,
                    "rejected": rejected,
                    "words_chosen": int(words[0]),
                    "words_rejected": int(words[1]),
                    "name": name,
                    "shown": rank < max(1, cfg.shown // len(names)) if cfg.shown else False,
                }
            )
        found += sorted(picked, key=lambda one: (one["confidence"], one["line"]))
    return found


def _sample(one: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "input": one["prompt"],
        "before": {"text": one["chosen"]},
        "after": {"text": one["rejected"]},
        "group": f"suspicious in {one['name']}",
        "outcome": "loss",
        "label": f"line {place(one['file'], one['line'])}: label believed {one['confidence']:.1%}",
    }
