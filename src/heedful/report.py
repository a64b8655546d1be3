"""The report of a run and the comparison of two: one self-contained HTML file each, no scripts, no network.

Everything a model or a data file wrote is untrusted. Three walls keep it inert: the templates escape every
value, plots contain numbers and stage names only, and a Content-Security-Policy forbids scripts, network and
frames.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from heedful import __version__, report_drawings, report_plots
from heedful.atomic import write_file
from heedful.config import load_yaml
from heedful.errors import HeedfulError
from heedful.evals.texts import words
from heedful.report_compare import comparison_page
from heedful.report_values import (
    cards,
    clean,
    command_text,
    comparison_row,
    count_outcomes,
    number,
    outcome_names,
    sample_row,
    table,
)
from heedful.run import read_metrics

SAMPLES_SHOWN = 200
_NOT_METRICS = {"stage", "step", "time"}
_SCHEMA: dict[str, type] = {
    "title": str,
    "job": str,
    "summary": list,
    "warnings": list,
    "comparisons": list,
    "curves": list,
    "drawings": list,
    "samples": list,
    "cards": list,
    "tables": list,
    "columns": list,
    "headings": dict,
    "data": dict,
    "feedback": dict,
    "limits": list,
}
# What the curves of a run are grouped into when its recipe names none: title, and the metrics' names.
_GROUPS = [
    ("Loss", ("loss",)),
    ("Margin", ("margin",)),
    ("Preference accuracy", ("accuracy",)),
    ("Implicit rewards", ("h_w", "h_l")),
    ("KL to the start model", ("kl",)),
    ("Length", ("length", "words", "tokens")),
    ("Score", ("score", "reward", "win_rate", "tie_rate")),
    ("Learning rate", ("lr",)),
    ("Gradient norm", ("grad_norm",)),
]


def write_report(folder: str | Path) -> Path:
    """Render `<folder>/report.html` from the files of a run folder and return its path.

    Read are report.json, metrics.jsonl, manifest.json, config.yaml, result.json and heldout.jsonl, those
    that are there.
    An unfinished run gets a page that says so. Raises `HeedfulError` when the folder holds no run or a file
    of it cannot be read, naming the file and the field.
    """
    run = read_run(folder)
    report, metrics = run["report"], run["metrics"]
    warnings = [clean(w) for w in report.get("warnings", [])]
    if not run["finished"]:
        warnings.insert(
            0, "This run has not finished and has written no report yet. Its command, below, resumes it."
        )
    comparisons = [comparison_row(r) for r in report.get("comparisons", [])]
    samples = [sample_row(s) for s in report.get("samples", [])]
    shown, more = metric_curves(report.get("curves", []), metrics)
    page = {
        "title": clean(report.get("title") or f"Run {run['name']}"),
        "job": clean(report.get("job")),
        "summary": [clean(s) for s in report.get("summary", [])],
        "warnings": warnings,
        "finished": run["finished"],
        "comparisons": comparisons,
        "cards": cards(comparisons, report.get("cards", [])),
        "columns": tuple(map(clean, [*report.get("columns", []), "before", "after"][:2])),
        "headings": {str(k): clean(v) for k, v in report.get("headings", {}).items()},
        "grids": [_grid(t) for t in report.get("tables", [])],
        "drawings": drawings(report.get("drawings", [])),
        "heldout": heldout_plots(run["heldout"]),
        "curves": shown,
        "more_curves": more,
        "stages": [clean(s) for s in report_plots.stage_offsets(metrics) if s],
        "samples": samples[:SAMPLES_SHOWN],
        "samples_left_out": max(0, len(samples) - SAMPLES_SHOWN),
        "counts": count_outcomes(samples[:SAMPLES_SHOWN]),
        "sample_names": outcome_names(samples[:SAMPLES_SHOWN]),
        "tables": [
            ("Data", table(report.get("data"))),
            ("Feedback", table(report.get("feedback"))),
        ],
        "limits": [clean(s) for s in report.get("limits", [])],
        "command": command_text(run["manifest"].get("command")),
        "config": table(run["config"]),
        "result": table(run["result"]),
        **_environment_of(run["manifest"]),
    }
    return _write(run["folder"] / "report.html", "report.html.j2", page)


def write_drawings(
    path: str | Path, title: str, summary: Sequence[str], given: Sequence[Mapping[str, Any]]
) -> Path:
    """A page of drawings alone (`report_drawings.drawing`) in the file `path`; returns its path."""
    told = {"title": clean(title), "summary": [clean(s) for s in summary], "drawings": drawings(given)}
    return _write(Path(path), "drawings.html.j2", told)


def drawings(given: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The drawings that can be drawn, in order."""
    return [made for one in given if (made := report_drawings.drawing(one))]


def write_comparison(folder_a: str | Path, folder_b: str | Path, out: str | Path) -> Path:
    """Render the comparison of two runs (what changes from A to B) into the file `out` and return its path.

    Prompts that both have in heldout.jsonl are compared in pairs, with bootstrap intervals. Raises
    `HeedfulError` when one of the folders holds no run or cannot be read.
    """
    return _write(Path(out), "comparison.html.j2", comparison_page(read_run(folder_a), read_run(folder_b)))


def read_run(folder: str | Path) -> dict[str, Any]:
    """The files of a run folder that reports are made from, checked; missing ones are empty."""
    folder = Path(folder)
    if not folder.is_dir():
        raise HeedfulError(f"{folder} is no run folder: there is no such folder")
    known = ("report.json", "manifest.json", "metrics.jsonl", "result.json", "config.yaml")
    if not any((folder / name).exists() for name in known):
        raise HeedfulError(f"{folder} is no run folder: none of {', '.join(known)} is in it")
    report = _read_json(folder / "report.json")
    for field, kind in _SCHEMA.items():
        if field in report and report[field] is not None and not isinstance(report[field], kind):
            raise HeedfulError(f"{folder / 'report.json'}: {field!r} must be a {kind.__name__}")
    report = {name: value for name, value in report.items() if value is not None}
    for field in ("comparisons", "curves", "drawings", "samples", "tables"):
        for i, entry in enumerate(report.get(field, [])):
            if not isinstance(entry, dict):
                raise HeedfulError(f"{folder / 'report.json'}: {field}[{i}] must be a mapping")
    config = folder / "config.yaml"
    return {
        "folder": folder,
        "name": folder.resolve().name,
        "finished": (folder / "report.json").exists(),
        "report": report,
        "manifest": _read_json(folder / "manifest.json"),
        "result": _read_json(folder / "result.json"),
        "config": load_yaml(config) if config.exists() and config.stat().st_size else {},
        "metrics": [
            {**row, "stage": clean(row.get("stage"))}
            for row in read_metrics(folder)
            if number(row.get("step")) is not None
        ],
        "heldout": _read_heldout(folder / "heldout.jsonl"),
    }


def metric_curves(
    wanted: Sequence[Mapping[str, Any]], rows: Sequence[dict[str, Any]], start: int = 0
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Plots of metrics.jsonl: those the recipe names (else the known groups), and all the others.

    A wanted plot may bring its own "lines" instead, {label: [[x, y], ...]}, or "bars", [y, ...], and say what "x" is.
    """
    names = list(
        dict.fromkeys(n for row in rows for n in row if n not in _NOT_METRICS and number(row[n]) is not None)
    )
    if not wanted:
        wanted = [{"title": title, "y": _members(keys, names)} for title, keys in _GROUPS[:-2]]
    used = {n for w in wanted for n in w.get("y") or []}
    rest = [n for n in names if n not in used]
    others = [{"title": title, "y": _members(keys, rest)} for title, keys in _GROUPS]
    grouped = {n for w in others for n in w["y"]}
    others += [{"title": n, "y": [n]} for n in rest if n not in grouped]
    plots = [_curve(w, rows, f"curve-{start + i}") for i, w in enumerate([*wanted, *others])]
    shown = [p for p in plots[: len(wanted)] if p]
    return shown, [p for p in plots[len(wanted) :] if p]


def _members(keys: Sequence[str], names: Sequence[str]) -> list[str]:
    """Names that are a key or carry one (or its plural) as a whole part: heldout_kl, margins/mean."""
    parts = {n: "_" + re.sub(r"[/.]", "_", n.lower()) + "_" for n in names if not n.endswith("_per_s")}
    return [n for n, text in parts.items() if any(f"_{k}_" in text or f"_{k}s_" in text for k in keys)]


def _curve(wanted: Mapping[str, Any], rows: Sequence[dict[str, Any]], name: str) -> dict[str, Any] | None:
    bars = [value for given in wanted.get("bars") or [] if (value := number(given)) is not None]
    if bars:
        title = clean(wanted.get("title"))
        told = f"{title}: {len(bars)} bars, from {max(bars):.3g} to {min(bars):.3g}"
        svg = report_plots.bars(bars, told, name, unit=str(wanted.get("x") or ""))
        return {"title": title, "legend": [], "svg": svg, "note": clean(wanted.get("note"))}
    prefix = str(wanted.get("stage") or "")
    rows = [row for row in rows if row["stage"].startswith(prefix)]
    offsets = report_plots.stage_offsets(rows)
    lines, labels = _given_lines(wanted.get("lines"))
    offsets = {} if lines else offsets
    metrics = [] if lines else wanted.get("y") or []
    for metric in ([metrics] if isinstance(metrics, str) else list(metrics))[: report_plots.SERIES]:
        points = [
            (offsets[row["stage"]] + float(row["step"]), value)
            for row in rows
            if (value := number(row.get(metric))) is not None
        ]
        if points:
            points.sort()
            lines.append(tuple(zip(*points)))
            labels.append(clean(metric))
    if not lines:
        return None
    title = clean(wanted.get("title") or ", ".join(labels))
    ends = [f"{label} {y[0]:.3g} → {y[-1]:.3g}" for label, (_, y) in zip(labels, lines)]
    unit = str(wanted.get("x") or "step")
    svg = report_plots.curves(lines, offsets, f"{title}: {'; '.join(ends)}", name, unit=unit)
    legend = [(label, report_plots.line_colour(i), i) for i, label in enumerate(labels)]
    return {"title": title, "legend": legend, "svg": svg, "note": clean(wanted.get("note"))}


def _given_lines(given: Any) -> tuple[list[Any], list[str]]:
    """Lines that a recipe has drawn up itself, without the points that are no numbers, and their labels."""
    lines, labels = [], []
    for label, points in list(given.items() if isinstance(given, Mapping) else ())[: report_plots.SERIES]:
        known = [(number(x), number(y)) for x, y in points]
        known = sorted((x, y) for x, y in known if x is not None and y is not None)
        if known:
            lines.append(tuple(zip(*known)))
            labels.append(clean(label))
    return lines, labels


def _grid(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """A table that a recipe has drawn up itself: title, note, columns, rows of as many cells.

    What is right of the first column is aligned as numbers are, unless "text" says otherwise.
    """
    cells = [[clean(cell) for cell in row] for row in wanted.get("rows") or []]
    return {
        "title": clean(wanted.get("title")),
        "note": clean(wanted.get("note")),
        "columns": [clean(name) for name in wanted.get("columns") or []],
        "rows": cells,
        "align": "" if wanted.get("text") else "num",
    }


def heldout_plots(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """How answer lengths and scores are distributed over the held-out prompts; none without such rows."""
    plots = []
    sides = [[r[side] for r in rows] for side in ("before", "after")]
    lengths = [
        [float(number(s.get("words")) or len(words(str(s.get("text") or "")))) for s in side]
        for side in sides
    ]
    if len(rows) >= 4:
        svg = report_plots.histogram(
            lengths[0], lengths[1], "words", "Answer length before and after, held-out", "lengths"
        )
        note = "held-out answers; dashed: medians"
        legend = [("before", 1, 0), ("after", 2, 0)]
        plots.append({"title": "Answer length", "legend": legend, "svg": svg, "note": note})
    pairs = [(number(r["before"].get("score")), number(r["after"].get("score"))) for r in rows]
    scored = [(b, a) for b, a in pairs if b is not None and a is not None]
    # Of yes/no scores a plot of points would show four dots.
    if len(scored) >= 4 and len({x for pair in scored for x in pair}) > 2:
        before, after = zip(*scored)
        up, down = sum(a > b for b, a in scored), sum(a < b for b, a in scored)
        svg = report_plots.scatter(before, after, "Score before and after, one point per answer", "scores")
        note = f"one point per held-out answer: {up} above the diagonal gained, {down} below it lost"
        plots.append({"title": "Score, answer by answer", "legend": [], "svg": svg, "note": note})
    return plots


def _environment_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    starts = [s for s in manifest.get("started") or [] if isinstance(s, Mapping)]
    plain = {k: v for k, v in manifest.items() if k not in ("command", "started", "data")}
    data = manifest.get("data")
    data = data if isinstance(data, Mapping) else {}
    return {
        "environment": table(plain),
        "hashes": [(clean(k), clean(v) if v else "not a local file") for k, v in data.items()],
        "started": clean(starts[0].get("time")) if starts else "",
        "resumed": max(0, len(starts) - 1),
    }


def _read_json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise HeedfulError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(value, dict):
        raise HeedfulError(f"{path}: a JSON object is needed, found a {type(value).__name__}")
    return value


def _read_heldout(path: Path) -> list[dict[str, Any]]:
    rows = []
    for i, line in enumerate(path.read_bytes().splitlines() if path.exists() else [], start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise HeedfulError(f"{path}:{i}: not readable as JSON: {error}") from error
        if not isinstance(row, dict) or "prompt" not in row:
            raise HeedfulError(f"{path}:{i}: 'prompt' is missing")
        for side in ("before", "after"):
            if not isinstance(row.get(side), dict):
                raise HeedfulError(f"{path}:{i}: {side!r} must be a mapping with 'text', 'score' and 'words'")
        rows.append(row)
    return rows


def _write(path: Path, template: str, page: Mapping[str, Any]) -> Path:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template(template).render(
        page, version=__version__, written=time.strftime("%Y-%m-%d %H:%M")
    )
    write_file(path, html.encode("utf-8", "replace"))
    return path
