"""What changes from run A to run B: the content of the comparison page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from heedful.config import flatten
from heedful.evals.intervals import per_prompt
from heedful.evals.language import compare, hacking_signs, pick_samples
from heedful.report_values import (
    cards,
    clean,
    command_text,
    comparison_row,
    count_outcomes,
    number,
    outcome_names,
    sample_row,
    show_change,
    show_number,
)

_ABOUT_THE_START = {"overlap with start answers", "KL to the start model"}  # of one run, not of two
_JUDGES = ("judge", "reward_model", "score")


def comparison_page(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    """Values for the template, from two runs as `report.read_run` gives them."""
    rows, samples, notes = _heldout(a["heldout"], b["heldout"])
    changed = _config_changes(a["config"], b["config"])
    if any(any(word in name.lower() for word in _JUDGES) for name, _, _ in changed):
        notes.append(
            "The runs were judged differently (see the settings below): their scores may not be comparable."
        )
    notes += [f"Run {label} has not finished." for label, run in (("A", a), ("B", b)) if not run["finished"]]
    shown = [sample_row(s) for s in samples]
    rows = [comparison_row(r) for r in rows]
    return {
        "title": "Two runs compared",
        "runs": [
            {
                "label": label,
                "name": clean(run["name"]),
                "title": clean(run["report"].get("title")),
                "command": command_text(run["manifest"].get("command")),
            }
            for label, run in (("A", a), ("B", b))
        ],
        "warnings": [clean(n) for n in notes],
        "comparisons": rows,
        "cards": cards(rows),
        "columns": ("A", "B"),
        "shared": len({_key(r) for r in a["heldout"]} & {_key(r) for r in b["heldout"]}),
        "results": _result_rows(a["result"], b["result"]),
        "config_changes": [(clean(n), clean(x), clean(y)) for n, x, y in changed],
        "samples": shown,
        "samples_left_out": 0,
        "counts": count_outcomes(shown),
        "sample_names": outcome_names(shown),
    }


def _key(row: Mapping[str, Any]) -> str:
    return json.dumps(row["prompt"], sort_keys=True)


def _heldout(
    rows_a: Sequence[dict[str, Any]], rows_b: Sequence[dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[str]]:
    """Before/after rows, samples side by side, and remarks; empty when the runs share no held-out prompt."""
    by_prompt: list[dict[str, list[dict[str, Any]]]] = []
    for rows in (rows_a, rows_b):
        found: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            found.setdefault(_key(row), []).append(row)
        by_prompt.append(found)
    shared = [key for key in by_prompt[0] if key in by_prompt[1]]
    if not shared:
        missing = [label for label, rows in (("A", rows_a), ("B", rows_b)) if not rows]
        why = f"run {' and '.join(missing)} has no heldout.jsonl" if missing else "their held-out sets differ"
        return [], [], [f"No answers are compared: the runs share no held-out prompt ({why})."]
    notes = []
    left_out = len(by_prompt[0]) + len(by_prompt[1]) - 2 * len(shared)
    if left_out:
        notes.append(f"{left_out} held-out prompts that only one of the runs has are left out.")
    prompts = [by_prompt[0][key][0]["prompt"] for key in shared]
    texts = [[[str(r["after"].get("text") or "") for r in of[key]] for key in shared] for of in by_prompt]
    scores = [[[number(r["after"].get("score")) for r in of[key]] for key in shared] for of in by_prompt]
    scored = all((per_prompt(side) == per_prompt(side)).any() for side in scores)
    rows = compare(prompts, *texts, *(scores if scored else ()))
    signs = hacking_signs(*texts, prompts=prompts)[1]
    notes += [f"From A to B: {s}" for s in signs if "start model" not in s]
    pairs = [
        {"prompt": prompt, "before": first["after"], "after": second["after"]}
        for prompt, key in zip(prompts, shared)
        for first, second in zip(by_prompt[0][key], by_prompt[1][key])
    ]
    rows = [r for r in rows if r["name"] not in _ABOUT_THE_START]
    return rows, pick_samples(pairs, limit=40, group=""), notes


def _config_changes(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    flat_a, flat_b = flatten(a), flatten(b)
    absent = "(absent)"
    names = list(dict.fromkeys([*flat_a, *flat_b]))
    return [
        (
            name,
            clean(flat_a[name]) if name in flat_a else absent,
            clean(flat_b[name]) if name in flat_b else absent,
        )
        for name in names
        if flat_a.get(name, absent) != flat_b.get(name, absent)
    ]


def _result_rows(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    rows = []
    for name in dict.fromkeys([*a, *b]):
        x, y = number(a.get(name)), number(b.get(name))
        if x is not None and y is not None:
            rows.append((clean(name), show_number(x), show_number(y), show_change(y - x)))
        else:
            same = name in a and name in b and a[name] == b[name]
            shown = ["–" if name not in of else clean(of[name]) for of in (a, b)]
            rows.append((clean(name), *shown, "same" if same else "differs"))
    return rows
