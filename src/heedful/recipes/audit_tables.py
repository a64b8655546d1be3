"""The tables of an audit: files across, measures down."""

from __future__ import annotations

import math
from typing import Any

from heedful.data.quality.information import ALIKE, ARMS
from heedful.recipes.audit_advice import names_of, percent, points, span
from heedful.recipes.audit_measure import FileNumbers, Measured


def tables(measured: Measured) -> list[dict[str, Any]]:
    """All of them, as a report's grids."""
    names = names_of([one.file for one in measured.files])
    made = [_files(measured, names)]
    if len(names) > 1 or measured.common:
        made += _comparisons(measured, names)
    made += [_scale(measured, names), _noise(measured, names), _information(measured, names)]
    return made


def _grid(title: str, note: str, names: list[str], rows: list[list[str]]) -> dict[str, Any]:
    return {"title": title, "note": note, "columns": ["", *names], "rows": rows}


def _files(measured: Measured, names: list[str]) -> dict[str, Any]:
    files = measured.files

    def row(title: str, show: Any) -> list[str]:
        return [title, *(show(one) for one in files)]

    def count(title: str, key: str, of: str = "") -> list[str]:
        def show(one: FileNumbers) -> str:
            value = one.counts[key]
            return f"{value:,} ({percent(value / max(1, one.counts[of]))})" if of else f"{value:,}"

        return row(title, show)

    rows = [
        row("length alone: held-out accuracy", lambda one: span(one.length)),
        row("the probe: held-out accuracy", lambda one: span(one.probe)),
        row("the probe less length, points", lambda one: span(one.gap, _points)),
        row("the probe, length held equal", lambda one: percent(one.balanced)),
        row("chosen is the longer one", lambda one: span(one.chosen_longer)),
        row("the probe prefers the longer one", lambda one: percent(one.longer_picked)),
        count("rows", "rows"),
        count("prompts", "prompts"),
        count("the same pair again", "duplicates", "rows"),
        count("contradictory pairs", "contradictory", "rows"),
        count("identical answers", "identical", "rows"),
        count("answers to different prompts", "mismatched", "rows"),
        count("faulty rows left out", "faulty", "rows"),
        count("near-duplicate prompts", "near_duplicate_prompts", "prompts"),
        count("trained on", "train"),
        count("held out", "test"),
    ]
    if "prompts_in_eval" in files[0].counts:
        rows += [
            count("prompts in the evaluation file", "prompts_in_eval", "prompts"),
            count("prompts almost the same as one there", "near_eval", "prompts"),
        ]
    rows += [
        row("words of chosen: median (5% to 95%)", lambda one: _words(one.lengths["chosen"])),
        row("words of rejected", lambda one: _words(one.lengths["rejected"])),
        row("languages", lambda one: ", ".join(f"{n} {s:.0%}" for n, s in list(one.languages.items())[:3])),
        row("gain per doubling, points", lambda one: span(one.scale["slope"], _points)),
        row("saturated from", lambda one: _number(one.scale["saturation"])),
        row("noise tolerated (q*)", lambda one: span(one.noise["tolerance"], lambda v: f"{v:.1f}")),
        row("calibration error", lambda one: f"{one.reliability[0]['ece']:.3f}"),
    ]
    note = (
        "95% intervals over prompts in brackets; shares of rows or prompts where one stands behind a count. "
        "Accuracies and the share in which the chosen one is longer are means over prompts; two answers of equally "
        "many words count half."
    )
    return _grid("The files", note, names, rows)


def _comparisons(measured: Measured, names: list[str]) -> list[dict[str, Any]]:
    made = []
    if measured.common:
        rows = [
            ["the probe", *(span(one) for one in measured.common_accuracy)],
            ["length alone", *(span(one) for one in measured.common_length)],
        ]
        size = f"{measured.common_pairs:,} pairs, {measured.common_prompts:,} prompts"
        note = f"Each file's probe on {measured.common} ({size}); means over prompts."
        made.append(_grid("On the common evaluation", note, names, rows))
    if measured.comparisons:
        made += [_compared(measured, names), _needed(measured, names)]
    others = [*names, "evaluation file"][: len(measured.overlap[0])]
    rows = [[name, *map(percent, shares)] for name, shares in zip(names, measured.overlap)]
    made.append(
        {
            "title": "Prompts that files share",
            "note": "Share of the row's prompts that the column has too.",
            "columns": ["", *others],
            "rows": rows,
        }
    )
    return made


def _compared(measured: Measured, names: list[str]) -> dict[str, Any]:
    columns = ["A against B", "A - B, points", "only A right", "only B right", "p", "p corrected"]
    rows = [
        [
            f"{names[row['a']]} against {names[row['b']]}",
            span(row["gap"], _points),
            f"{row['only_first']:,}",
            f"{row['only_second']:,}",
            f"{row['p']:.2g}",
            f"{row['holm']:.2g}",
        ]
        for row in measured.comparisons
    ]
    note = (
        "Paired, on the common evaluation: bootstrap over prompts; McNemar's exact test on one pair of each prompt, "
        "after Holm."
    )
    return {"title": "Files compared", "note": note, "columns": columns, "rows": rows}


def _needed(measured: Measured, names: list[str]) -> dict[str, Any]:
    """n_eff of each file against each other one."""
    cells = [["–"] * len(names) for _ in names]
    for row in measured.comparisons:
        for first, second, name in (
            (row["a"], row["b"], "a_to_reach_b"),
            (row["b"], row["a"], "b_to_reach_a"),
        ):
            cells[first][second] = _effective(row[name], measured.files[first])
    note = "n_eff: how many pairs of the row's file teach what all of the column's teaches, on the common evaluation."
    return _grid("Pairs needed", note, names, [[name, *row] for name, row in zip(names, cells)])


def _scale(measured: Measured, names: list[str]) -> dict[str, Any]:
    rows = []
    for name, one in zip(names, measured.files):
        gains = [None, *one.scale["gain"]]
        for n, accuracy, gain, spread in zip(
            one.scale["n"], one.scale["accuracy"], gains, one.spread["scale"]
        ):
            told = "–" if gain is None else span(gain, _points)
            rows.append([name if gain is None else "", f"{n:,}", span(accuracy), told, _spread(spread)])
    columns = ["file", "training pairs", "accuracy", "gain of the doubling, points", "SD over seeds, points"]
    note = "Nested subsets of prompts, tested on the file's own held-out pairs."
    return {"title": "Scale", "note": note, "columns": columns, "rows": rows}


def _noise(measured: Measured, names: list[str]) -> dict[str, Any]:
    rows = []
    for name, one in zip(names, measured.files):
        for j, q in enumerate(one.noise["q"]):
            r = one.reliability[j]
            rows.append(
                [
                    name if j == 0 else "",
                    f"{q:.0%}",
                    span(one.noise["accuracy"][j]),
                    span(one.noise["excess_retention"][j], percent),
                    percent(r["mean_confidence"]),
                    f"{r['ece']:.3f}",
                    _spread(one.spread["noise"][j]),
                ]
            )
    columns = [
        "file",
        "flipped",
        "accuracy",
        "kept above chance",
        "mean confidence",
        "ECE",
        "SD over seeds, points",
    ]
    note = (
        "Training labels are flipped, test labels are not. Kept above chance: (accuracy - 50%) over that of no flips. "
        "ECE over ten bins of confidence from 50% to 100%."
    )
    return {"title": "Label noise", "note": note, "columns": columns, "rows": rows}


def _information(measured: Measured, names: list[str]) -> dict[str, Any]:
    files = measured.files
    rows = [[f"accuracy: {arm}", *(span(one.information["accuracy"][arm]) for one in files)] for arm in ARMS]
    gaps = {
        "least_over_random": "least similar less random, points",
        "least_over_most": "least less most similar, points",
        "least_over_most_length_held": "the same, length held",
    }
    rows += [[title, *(span(one.information[key], _points) for one in files)] for key, title in gaps.items()]
    rows += [
        ["cosine: median (5% to 95%)", *(_cosine(one.similarity) for one in files)],
        [f"cosine {ALIKE} or more", *(percent(one.alike) for one in files)],
    ]
    note = (
        "Each arm is half of four fifths of the training pairs. Length held: taken within tenths of the two answers' "
        "length, apart by which is longer."
    )
    return _grid("Information content", note, names, rows)


def _points(value: float) -> str:
    return "–" if math.isnan(value) else points(value)


def _spread(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.1f}"


def _words(found: dict[str, float]) -> str:
    return f"{found['q50']:.0f} ({found['q05']:.0f} to {found['q95']:.0f})"


def _cosine(found: dict[str, float]) -> str:
    return f"{found['q50']:.2f} ({found['q05']:.2f} to {found['q95']:.2f})"


def _number(value: int | None) -> str:
    return "not yet" if value is None else f"{value:,}"


def _effective(found: Any, of: FileNumbers) -> str:
    estimate, interval = found
    least = of.scale["n"][0]

    def show(value: float) -> str:
        return "not reached" if math.isinf(value) else f"{'at most ' * (value <= least)}{value:,.0f}"

    if math.isinf(interval.low) or interval.low == interval.high:
        return show(estimate)
    return f"{show(estimate)} ({show(interval.low)} to {show(interval.high)})"
