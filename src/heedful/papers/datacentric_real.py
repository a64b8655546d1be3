"""Real preferences: the five sources of GPT-4's verdicts on AlpacaEval, and HH: `heedful audit`, and ten splits."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from heedful.atomic import write_file
from heedful.data.quality.compare import interval_of
from heedful.data.quality.noise import LEVELS
from heedful.papers.datacentric_splits import (
    HH_CLAIMS,
    TEST,
    VERDICT_CLAIMS,
    hh_claims,
    hh_plot,
    hh_tables,
    splits_of,
    verdict_claims,
)
from heedful.papers.results import Claim, Part, Plot, Series, Table, Tier
from heedful.papers.rlaif_verdicts import VERDICTS, data_folder, read
from heedful.papers.seeds import decided, over_seeds
from heedful.run import Run, open_run

HH = "preferences/hh_harmless_base_test.jsonl.gz"
SMOKE_ROWS, SMOKE_TEST = 240, 60
LEAST_SEEDS, MOST_SEEDS = 3, 5
Found = tuple[float | None, tuple[float, float] | None]
"""What was measured, and its interval."""
AUDIT_CLAIMS = (
    (
        "The audit of GPT-4's verdicts begins with length, which explains as much as the probe (measured: probe less "
        "length, points)",
        "not in the paper; .73 against .76 on other splits, ours",
    ),
    (
        "Every real file gains from more pairs (measured: the least gain per doubling, points)",
        "every data set gains; the largest mean gain per doubling is 2.4 to 4.7 points (second hand)",
    ),
    (
        "Accuracy roughly holds with 30% of the labels flipped: at least .9 of the excess over chance in every file "
        "(measured: the least)",
        "accuracy roughly holds with 30 to 40% flipped (second hand)",
    ),
    (
        "Training on the pairs of least similar answers beats a random half (measured: mean over the files, points)",
        "helps small reward models most (second hand)",
    ),
    (
        "Size alone does not rank data sets: the largest file is not the best on the common evaluation (measured: "
        "points by which the best one leads it)",
        "10k UltraFeedback beats 140k HH on Chat (second hand)",
    ),
)
CLAIMS = (*HH_CLAIMS, *VERDICT_CLAIMS, *AUDIT_CLAIMS)
CUT_SHORT = "not in the smoke tier, whose files are cut short"


def write_files(folder: Path, into: Path, rows: int = 0) -> list[Path]:
    """The six files, rows without both answers left out, at most `rows` of each when above 0; written once."""
    by_source: dict[str, list[dict[str, Any]]] = {}
    for row in read(folder / VERDICTS):
        if row["chosen"].strip() and row["rejected"].strip():
            by_source.setdefault(row["source"], []).append(row)
    files = {f"gpt4-{name}": found for name, found in sorted(by_source.items())}
    files["hh-harmless"] = read(folder / HH)
    files["gpt4-all"] = [row for name in sorted(by_source) for row in by_source[name]]
    paths = []
    for name, found in files.items():
        path = into / f"{name}.jsonl"
        if not path.exists():
            kept = found[:: max(1, len(found) // rows)][:rows] if rows else found
            write_file(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept).encode())
        paths.append(path)
    return paths


def real_part(tier: Tier, seeds: Sequence[int], run: Run, until: float | None = None) -> Part:
    """The claims about real data; "not run" where the data is not there or the time is up."""
    folder = data_folder()
    if folder is None or not (folder / HH).is_file():
        return Part(
            [Claim(*pair, note="not run: ../shared/data/preferences is not there") for pair in CLAIMS]
        )
    if until is not None and time.monotonic() > until:
        return Part([Claim(*pair, note="not run yet") for pair in CLAIMS])
    *six, everything = write_files(folder, run.path("data"), SMOKE_ROWS if tier == "smoke" else 0)
    count = min(MOST_SEEDS, max(LEAST_SEEDS, len(seeds)))
    compared = audit_of(six, count, run, "six")
    whole = audit_of([everything], count, run, "all")
    hh = splits_of(six[-1], seeds, run, test=SMOKE_TEST if tier == "smoke" else TEST)
    verdicts = splits_of(everything, seeds, run)
    claims = [*hh_claims(hh), *verdict_claims(verdicts, chosen_longer(read(folder / VERDICTS)))]
    if tier == "smoke":
        claims = [Claim(claim.claim, claim.paper, note=CUT_SHORT) for claim in claims]
    rest = findings(compared, whole, tier)
    return Part(
        [*claims, *rest.claims],
        [*hh_tables(hh), *rest.tables],
        [hh_plot(hh), *rest.plots],
        rest.notes,
    )


def chosen_longer(rows: Sequence[Mapping[str, Any]]) -> tuple[float, tuple[float, float]]:
    """In how many percent of the pairs the chosen answer has more characters, with an interval over prompts."""
    longer = [len(row["chosen"]) > len(row["rejected"]) for row in rows]
    prompts = np.unique([row["prompt"] for row in rows], return_inverse=True)[1]
    table = np.stack([np.bincount(prompts, longer), np.bincount(prompts)], 1).astype(float)
    found = interval_of(table, lambda m: float(100 * m[0] / m[1]))
    return found.estimate, (found.low, found.high)


def audit_of(files: Sequence[Path], seeds: int, run: Run, name: str) -> dict[str, Any]:
    """result.json of an audit, resumed where it stopped."""
    from heedful.recipes import audit

    cfg = audit.Config(
        files=tuple(map(str, files)),
        out=str(run.path(f"{name}-{seeds}")),
        cache=str(run.path("features")),
        seeds=seeds,
        drop_faulty_rows=True,
        quiet=True,
    )
    with open_run(cfg.out, cfg, seed=0, data=files) as opened:
        return audit.run(cfg, opened)


def findings(compared: Mapping[str, Any], whole: Mapping[str, Any], tier: Tier) -> Part:
    """Claims, tables and a plot from the two audits' result.json."""
    files = {Path(one["file"]).stem: one for one in compared["files"]}
    everything = whole["files"][0]
    kept = {name: one["noise"]["excess_retention"][LEVELS.index(0.3)] for name, one in files.items()}
    known = {name: value for name, value in kept.items() if value["estimate"] is not None}
    least = min(known, key=lambda name: known[name]["estimate"]) if known else None
    over = over_seeds([100 * one["information"]["least_over_random"]["estimate"] for one in files.values()])
    said_first = everything["length_explains_as_much"] and "length explains" in whole["advice"][0]
    slopes = {name: one["scale"]["slope"] for name, one in files.items()}
    flattest = min(slopes, key=lambda name: slopes[name]["estimate"])
    sizes = [one["pairs"] for one in compared["files"]]
    accuracy = [one["estimate"] for one in compared["common"]["accuracy"]]
    best, largest = accuracy.index(max(accuracy)), sizes.index(max(sizes))
    names = list(files)
    values: list[tuple[Found, float, bool, str]] = [
        (
            _of(everything["probe_over_length"], 100),
            0.0,
            False,
            f"length alone {everything['length_accuracy']['estimate']:.3f}, probe "
            f"{everything['probe_accuracy']['estimate']:.3f}; the audit's first sentence says so: "
            f"{'yes' if said_first else 'NO'}",
        ),
        (_of(slopes[flattest], 100), 1e-9, True, f"the least: {flattest}; interval over its prompts"),
        (
            _of(known[least]) if least else (None, None),
            0.9,
            True,
            f"the least: {least}; interval over its prompts",
        ),
        (over, 1e-9, True, f"interval over the {len(files)} files"),
        _lead(compared, names, best, largest, accuracy),
    ]
    claims = []
    for (claim, paper), ((measured, interval), bound, above, note) in zip(AUDIT_CLAIMS, values, strict=True):
        if tier == "smoke" or measured is None:
            claims.append(Claim(claim, paper, note=CUT_SHORT))
            continue
        holds = decided(measured, interval, bound, above)
        if claim == AUDIT_CLAIMS[0][0]:
            # As much means: not surely less; the probe may be anything up to a sure lead.
            holds = said_first and interval is not None and not interval[0] > 0
        claims.append(Claim(claim, paper, measured, interval, holds, note))
    return Part(
        claims, [_table(files, compared, names)], [_plot(files)], [*compared["advice"], *whole["advice"]]
    )


def _of(found: Mapping[str, Any], times: float = 1) -> Found:
    if found["estimate"] is None:
        return None, None
    ends = None if found["low"] is None else (times * found["low"], times * found["high"])
    return times * found["estimate"], ends


def _lead(
    compared: Mapping[str, Any], names: list[str], best: int, largest: int, accuracy: list[float]
) -> tuple[Found, float, bool, str]:
    note = f"best {names[best]}, largest {names[largest]}"
    for row in compared["common"]["comparisons"]:
        if {row["a"], row["b"]} == {best, largest}:
            gap, sign = row["gap"], 1 if row["a"] == best else -1
            ends = sorted(sign * 100 * gap[end] for end in ("low", "high"))
            return (sign * 100 * gap["estimate"], (ends[0], ends[1])), 1e-9, True, note
    return (100 * (accuracy[best] - accuracy[largest]), None), 1e-9, True, note


def _table(files: Mapping[str, Any], compared: Mapping[str, Any], names: list[str]) -> Table:
    columns = [
        "file",
        "pairs",
        "chosen longer",
        "length",
        "probe",
        "balanced",
        "gain/doubling",
        "kept at 30%",
    ]
    columns += ["ECE", "least - random", "duplicates", "common eval"]
    rows = []
    for i, name in enumerate(names):
        one = files[name]
        numbers = [
            one["chosen_longer"]["estimate"],
            one["length_accuracy"]["estimate"],
            one["probe_accuracy"]["estimate"],
            one["probe_accuracy_length_balanced"],
            one["scale"]["slope"]["estimate"],
            one["noise"]["excess_retention"][LEVELS.index(0.3)]["estimate"],
            one["noise"]["ece"][0],
            one["information"]["least_over_random"]["estimate"],
        ]
        shown = [None if value is None else round(value, 3) for value in numbers]
        common = round(compared["common"]["accuracy"][i]["estimate"], 3)
        rows.append([name, one["pairs"], *shown, one["duplicates"], common])
    note = f"Probe: {compared['probe']}. Common evaluation: {compared['common']['on']}."
    return Table("Six real files", columns, rows, note)


def _plot(files: Mapping[str, Any]) -> Plot:
    series = [
        Series(name, list(LEVELS), [a["estimate"] for a in one["noise"]["accuracy"]])
        for name, one in files.items()
    ]
    return Plot(
        "Six real files: accuracy under label noise", "share of training labels flipped", "accuracy", series
    )
