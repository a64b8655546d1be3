"""How values of a run are shown: numbers with units, verdicts, untrusted text made printable, tables."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from heedful.evals.texts import words

CARDS = 4
OUTCOMES = ("win", "loss", "tie", "unscored")
TEXT_LIMIT = 20_000  # characters of one text on the page; the run folder has all of it
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def number(value: Any) -> float | None:
    """The value as a finite float; None for text, booleans, NaN and what is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def show_number(value: float | None, unit: str = "") -> str:
    """Three significant digits; shares as percent."""
    if value is None:
        return "–"
    if unit == "share":
        return _signless(f"{100 * value:.1f}".removesuffix(".0")) + "%"
    if value and (abs(value) >= 1e7 or abs(value) < 1e-3):
        return _signless(f"{value:.2e}")
    if value == int(value) or abs(value) >= 1000:
        return _signless(f"{value:,.0f}").replace(",", "\u202f")
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return _signless(f"{value:.{digits}f}")


def show_change(value: float | None, unit: str = "") -> str:
    """A difference with its sign; that of two shares is in points, because percent would be ambiguous."""
    if value is None:
        return "–"
    shown = show_number(abs(value), unit).removesuffix("%")
    sign = "" if re.fullmatch(r"[0.]+", shown) else "+" if value > 0 else "−"
    return sign + shown + (" pts" if unit == "share" else "")


def _signless(text: str) -> str:
    return text.replace("-", "−", 1) if re.search("[1-9]", text) else text.removeprefix("-")


def model_title(model: str) -> str:
    """A model's name for a heading: of a long path the last folders, without the `model` of a run."""
    path = Path(model)
    if not path.is_absolute() and len(path.parts) <= 3:
        return model
    parts = path.parts[:-1] if path.name == "model" else path.parts
    return "/".join(parts[-2:])


def comparison_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """One row of the before/after table: shown values, verdict, and the interval drawn from 0 to 100."""
    unit, better = str(row.get("unit") or ""), str(row.get("better") or "none")
    change = number(row.get("change"))
    interval = row.get("interval")
    ends = [number(v) for v in interval] if isinstance(interval, Sequence) else []
    low, high = ends if len(ends) == 2 else (None, None)
    known = change is not None and low is not None and high is not None
    drawn = None
    if change is not None and low is not None and high is not None:
        reach = 1.15 * max(abs(low), abs(high), abs(change), 1e-12)
        drawn = {"low": 50 + 50 * low / reach, "high": 50 + 50 * high / reach, "at": 50 + 50 * change / reach}
    verdict = _verdict(change, low, high, better)
    marks = {"better": "✓", "worse": "✗", "unclear": "≈", "changed": "•", "same": "="}
    return {
        "name": clean(row.get("name")),
        "note": clean(row.get("note")),
        "unit": "" if unit == "share" else clean(unit),
        "before": show_number(number(row.get("before")), unit),
        "after": show_number(number(row.get("after")), unit),
        "change": show_change(change, unit),
        "interval": f"{show_change(low, unit)} … {show_change(high, unit)}" if known else "",
        "drawn": drawn,
        "direction": {"higher": "higher is better", "lower": "lower is better"}.get(better, ""),
        "arrow": {"higher": "↑", "lower": "↓"}.get(better, ""),
        "verdict": verdict,
        "mark": marks.get(verdict, ""),
    }


def _verdict(change: float | None, low: float | None, high: float | None, better: str) -> str:
    if change is None:
        return ""
    if low is None or high is None:
        return "same" if change == 0 else ""
    if low == high == 0:
        return "same"
    if low <= 0 <= high:
        return "unclear"
    if better not in ("higher", "lower"):
        return "changed"
    return "better" if (change > 0) == (better == "higher") else "worse"


def clean(value: Any) -> str:
    """Text that any browser shows: control characters replaced, overlong text cut and said so.

    Escaping is the template's work, not done here.
    """
    text = "" if value is None else value if isinstance(value, str) else _plain(value)
    if len(text) > TEXT_LIMIT:
        text = f"{text[:TEXT_LIMIT]} … ({len(text) - TEXT_LIMIT:,} more characters in the run folder)"
    return _UNPRINTABLE.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping) or (
        isinstance(value, Sequence) and any(isinstance(v, Mapping) for v in value)
    ):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, Sequence):
        return ", ".join(clean(v) for v in value)
    return str(value)


def table(values: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Names and shown values of a mapping; nested names are joined by dots."""
    if not isinstance(values, Mapping):
        return [(prefix.removesuffix("."), clean(values))] if values not in (None, "", [], {}) else []
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            rows += table(value, f"{prefix}{name}.")
        else:
            rows.append((clean(f"{prefix}{name}"), "none" if value is None else clean(value)))
    return rows


def command_text(command: Any) -> str:
    """A command to copy, from text or from a list of arguments."""
    if isinstance(command, Sequence) and not isinstance(command, str):
        return clean(shlex.join(str(part) for part in command))
    return clean(command)


def prompt_turns(prompt: Any) -> list[tuple[str, str]]:
    """A prompt as (role, text) turns; plain text is one turn without a role."""
    if isinstance(prompt, Sequence) and not isinstance(prompt, str):
        return [
            (clean(m.get("role")), clean(m.get("content"))) if isinstance(m, Mapping) else ("", clean(m))
            for m in prompt
        ]
    return [("", clean(prompt))]


def sample_row(sample: Mapping[str, Any]) -> dict[str, Any]:
    """A sample with both sides shown and its outcome: win, loss, tie, or unscored."""
    sides = {}
    for side in ("before", "after"):
        part = sample.get(side)
        part = part if isinstance(part, Mapping) else {"text": part}
        text = part.get("text")
        sides[side] = {
            "text": clean(text),
            "score": number(part.get("score")),
            "shown_score": show_number(number(part.get("score"))),
            "notes": clean(part.get("notes")),
            "words": len(words(str(text or ""))),
        }
    before, after = sides["before"]["score"], sides["after"]["score"]
    outcome, change = "unscored", None
    if before is not None and after is not None:
        change = after - before
        outcome = "win" if change > 0 else "loss" if change < 0 else "tie"
    # A recipe may know better than the sign of a score: a gain outside the scope is a leak.
    if sample.get("outcome") in OUTCOMES:
        outcome = str(sample["outcome"])
    return {
        **sides,
        "turns": prompt_turns(sample.get("input")),
        "group": clean(sample.get("group")),
        "outcome": outcome,
        "label": clean(sample.get("label")),
        "change": show_change(change),
    }


def cards(rows: Sequence[dict[str, Any]], names: Sequence[Any] = ()) -> list[dict[str, Any]]:
    """The rows of these names; without names the first with an interval, those that became better or worse first."""
    if names:
        return [row for name in names for row in rows if row["name"] == clean(name)][:CARDS]
    known = [row for row in rows if row["drawn"]]
    return sorted(known, key=lambda row: (not row["direction"], row["verdict"] == "same"))[:CARDS]


def count_outcomes(samples: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many samples were won, lost, tied or not scored."""
    return {o: sum(s["outcome"] == o for s in samples) for o in OUTCOMES}


def outcome_names(samples: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What the filter of the samples calls each outcome: its label where all samples of it share one."""
    names = {"all": "All", "win": "Wins", "loss": "Losses", "tie": "Ties", "unscored": "Unscored"}
    for outcome in OUTCOMES:
        labels = {s["label"] for s in samples if s["outcome"] == outcome}
        if len(labels) == 1 and labels != {""}:
            names[outcome] = labels.pop().capitalize()
    return names
