"""What `heedful retrieve eval` leaves behind: result.json, report.json and report.html."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from heedful.atomic import write_file
from heedful.data.passages import plain_title
from heedful.evals import language
from heedful.evals.retrieval import interval
from heedful.recipes.retrieve_measure import Measured, by_part, key_of
from heedful.recipes.retrieve_pipeline import Turn
from heedful.report import write_report
from heedful.run import Run

LIMITS = [
    "Intervals are over questions. Where questions share passages, they are somewhat too narrow.",
    "A passage counts as found by its title: another passage of the same title counts too.",
]
SHOWN = 40
"""Questions of each outcome that are shown with all queries."""


def finish(
    cfg: Any,
    ours: Measured,
    against: Measured | None,
    facts: Mapping[str, Any],
    run: Run,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Write the files; returns the result. notes: warnings of what came before."""
    result: dict[str, Any] = {
        "job": "retrieve eval",
        "writer": cfg.run,
        "retriever": cfg.retriever,
        "merge": cfg.merge,
        "repeats": cfg.repeats,
        "questions": len(ours.turns),
        "hops": ours.hops,
        "k": cfg.k,
        "seed": cfg.seed,
        **ours.numbers(),
    }
    for name in ("passages", "absent", "questions_with_absent", "titles_again", "left_out"):
        if name in facts:
            result[name] = facts[name]
    rows: list[dict[str, Any]] = []
    if against is not None:
        rows = change_rows(against, ours)
        result |= {"against": cfg.against}
        result |= {f"against_{name}": value for name, value in against.numbers().items()}
        for row in rows:
            if row["unit"] == "share":
                key = key_of(row["name"])
                result[f"change_in_{key}"] = round(row["change"], 6)
                if row["interval"]:
                    result[f"change_in_{key}_interval"] = [round(v, 6) for v in row["interval"]]
    page = {
        "title": f"Queries of {cfg.run} on {len(ours.turns):,} questions",
        "job": "retrieve",
        "summary": sentences(cfg, ours, against, rows),
        "warnings": [*notes, *warnings(ours, facts)],
        "comparisons": rows,
        "tables": tables(cfg, ours, against),
        "samples": samples(ours, against),
        "columns": [cfg.against or "before", cfg.run],
        "headings": {"samples": "Queries side by side, with what each hop found"},
        "data": {
            name: value for name, value in facts.items() if name not in ("examples", "content", "mtime_ns")
        },
        "feedback": {f"{cfg.run}: {name}": value for name, value in ours.cost.items()},
        "limits": LIMITS,
    }
    if run.rank == 0:
        for name, value in (("report.json", page), ("result.json", result)):
            write_file(run.path(name), (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode())
        write_report(run.folder)
    return result


def change_rows(before: Measured, after: Measured) -> list[dict[str, Any]]:
    """`comparisons` of report.json: everything that both have, with paired intervals."""
    olds, news = before.values(), after.values()
    rows = []
    for name, new in news.items():
        if name in olds and np.isfinite(new).any():
            plain = name == "words of a query"
            unit, better = ("words", "none") if plain else ("share", "higher")
            rows.append(language.row(name, olds[name].tolist(), new.tolist(), better=better, unit=unit))
    return rows


def sentences(
    cfg: Any, ours: Measured, against: Measured | None, rows: Sequence[Mapping[str, Any]]
) -> list[str]:
    """What was found, in words."""
    said = []
    for name in (f"recall after hop {ours.hops}", "answer exact match"):
        values = ours.values().get(name)
        if values is None:
            continue
        got = interval(values.tolist())
        text = f"{name.capitalize()}: {got.estimate:.1%}"
        text += f" (interval {got.low:.1%} to {got.high:.1%}, {got.n} questions)" if got.known else ""
        row = next((row for row in rows if row["name"] == name), None)
        if row is not None:
            text += f"; {cfg.against} has {row['before']:.1%}"
            if row["interval"]:
                low, high = row["interval"]
                zero = "excludes" if low > 0 or high < 0 else "includes"
                text += (
                    f", a change of {100 * row['change']:+.1f} points (interval {100 * low:+.1f} to "
                    f"{100 * high:+.1f}, {zero} 0)"
                )
        said.append(text + ".")
    return said or ["Nothing could be measured."]


def warnings(ours: Measured, facts: Mapping[str, Any]) -> list[str]:
    """What stands in the way of trusting the numbers."""
    found = []
    if facts.get("absent"):
        listed = ", ".join(facts["examples"][:5])
        found.append(
            f"{facts['absent']:,} of {facts['gold_titles']:,} gold titles are not in the corpus and can never be found "
            f"({facts['questions_with_absent']:,} questions; the first: {listed})."
        )
    if facts.get("titles_again"):
        found.append(
            f"{facts['titles_again']:,} passages have a title that another has; a gold title counts as found whichever "
            "of them was."
        )
    if facts.get("left_out"):
        found.append(f"{facts['left_out']:,} faulty passages were left out.")
    if facts.get("without_title"):
        found.append(
            f"{facts['without_title']:,} passages have no title, so they can be gold to no question."
        )
    blank = sum(not query for turn in ours.turns for query in turn.queries)
    if ours.without_hits:
        found.append(
            f"{ours.without_hits:,} of {ours.hops * len(ours.turns):,} searches found nothing"
            + (f", {blank:,} of them because the query was blank." if blank else ".")
        )
    return found


def tables(cfg: Any, ours: Measured, against: Measured | None) -> list[dict[str, Any]]:
    """By hop; and at the end by part of the data and by number of gold passages, where there are several."""
    out = []
    sides = [(cfg.run, ours), *([(cfg.against, against)] if against is not None else [])]
    if np.isfinite(ours.recall).any():
        rows = [
            [
                name,
                h + 1,
                _shown(one.recall[h]),
                _shown(one.ap[h]),
                f"{one.words[h].mean():.1f}",
                sum(not turn.found[h] for turn in one.turns),
            ]
            for name, one in sides
            for h in range(one.hops)
        ]
        columns = ["writer", "after hop", "recall", "average precision", "words of a query", "without hits"]
        out.append(
            {"title": "By hop", "note": "95% intervals over questions", "columns": columns, "rows": rows}
        )
    for title, part in (
        ("By part of the data", lambda turn: turn.question.source or "unnamed"),
        ("By number of gold passages", lambda turn: str(len(turn.question.gold_titles))),
    ):
        parts = by_part(ours, part)
        if len(parts) > 1:
            rows = [
                [label, len(at), *(_shown(one.best_known[at]) for _, one in sides)]
                for label, at in parts.items()
            ]
            columns = ["", "questions", *(f"recall, {name}" for name, _ in sides)]
            out.append({"title": title, "note": "after the last hop", "columns": columns, "rows": rows})
    return out


def _shown(values: np.ndarray) -> str:
    if not np.isfinite(values).any():
        return "–"
    got = interval(values.tolist())
    return f"{got.estimate:.1%}" + (f" ({got.low:.1%} to {got.high:.1%})" if got.known else "")


def samples(ours: Measured, against: Measured | None) -> list[dict[str, Any]]:
    """Questions with the queries and hits of both writers: wins, losses and ties, the largest changes first."""
    score = ours.best_known
    other = against.best_known if against is not None else np.full(len(score), np.nan)
    change = np.nan_to_num(score - other)
    order = np.argsort(-np.abs(change), kind="stable").tolist()
    picked = [
        i
        for chosen in (
            [i for i in order if change[i] > 0],
            [i for i in order if change[i] < 0],
            [i for i in order if change[i] == 0],
        )
        for i in chosen[:SHOWN]
    ]
    shown = []
    for i in picked:
        question = ours.turns[i].question
        row: dict[str, Any] = {
            "input": question.question
            + (f"\n\nGold: {', '.join(question.gold_titles)}" if question.gold_titles else ""),
            "group": question.source,
        }
        for side, one in (("before", against), ("after", ours)):
            if one is not None:
                said = one.answers[i] if one.answers is not None else ""
                row[side] = {
                    "text": in_words(one.turns[i]) + (f"\nanswer: {said}" if said else ""),
                    "score": _number(float(one.best_known[i])),
                }
        shown.append(row)
    return shown


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None


def in_words(turn: Turn) -> str:
    """Each hop's query and the titles it found, gold ones marked with an asterisk."""
    gold = {plain_title(title) for title in turn.question.gold_titles}
    lines = []
    for h, (query, hits) in enumerate(zip(turn.queries, turn.found, strict=True), start=1):
        lines.append(f"hop {h}: {query or '(blank)'}")
        titles = [hit.passage.title or hit.passage.text[:40] for hit in hits]
        lines += [f"   {'*' if plain_title(title) in gold else '-'} {title}" for title in titles] or [
            "   (nothing)"
        ]
    return "\n".join(lines)
