"""What `heedful tell` leaves behind: the adapter with its card, result.json, and the report of where it applies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from heedful import hub
from heedful.atomic import write_file
from heedful.data.scopes import KINDS, Scope
from heedful.evals.scope import most_changed
from heedful.policies.language import LanguagePolicy
from heedful.recipes import tell_methods
from heedful.recipes.tell_data import Completions
from heedful.recipes.tell_eval import NAMES, Measured, adherence_name
from heedful.report import write_report
from heedful.run import Run, read_metrics
from heedful.sessions import spent

if TYPE_CHECKING:
    from heedful.recipes.tell import Config

SHOWN = 6
"""Samples of each kind side by side."""
CHANGED = 10
"""Most changed out-of-scope answers shown."""
LIMITS = [
    "Numbers are of this scope's test prompts, which share no topic, wording or recipient with the training prompts; "
    "real requests will differ from both.",
    "Intervals are over prompts, for one seed of training.",
    "An effect is checked by a rule; a rule cannot tell whether the answer is a good one.",
]


def finish(
    cfg: Config,
    policy: LanguagePolicy,
    scope: Scope,
    completions: Completions,
    measured: Measured,
    run: Run,
) -> dict[str, Any]:
    """Save the adapter, write heldout.jsonl, result.json, report.json and report.html; returns the result."""
    trained = tell_methods.method(cfg.method).weights is not None
    # The last step is logged whatever --log-every is.
    logged = [row for row in read_metrics(run.folder) if "loss" in row and row.get("stage") == "tell"]
    steps = max((int(row["step"]) for row in logged), default=0)
    # Of all starts together, and of the run alone, not of looking at it again.
    minutes = run.once("minutes.json", lambda: round(spent(run.folder).minutes, 2))
    result: dict[str, Any] = {
        "job": "tell",
        "method": cfg.method,
        "sentence": scope.sentence,
        "domain": scope.domain,
        "effect": scope.effect,
        "seed": cfg.seed,
        "steps": steps,
        **{f"test_{kind}": len(scope.test[kind]) for kind in KINDS},
        **{name: round(value, 6) for name, value in measured.numbers.items()},
        **completions.counts,
        "minutes": minutes,
    }
    by_model, by_editor = revised_of(completions.counts)
    if by_model + by_editor:
        result["revised_by_model_share"] = round(by_model / (by_model + by_editor), 4)
    summary = sentences(cfg, scope, measured, result)
    page = {
        "title": scope.sentence,
        "job": "tell",
        "summary": summary,
        "warnings": measured.warnings,
        "comparisons": measured.rows,
        "cards": [*(adherence_name(kind, measured.judged) for kind in KINDS), "S_overall"],
        "curves": CURVES if trained else [],
        "samples": samples(measured),
        "data": {
            "domain (when it applies)": scope.domain,
            "effect (what it asks for)": scope.effect,
            "checked by": "; ".join(e.about for e in scope.effects)
            or "a language model, asked in both orders",
            "categories": ", ".join(scope.categories),
            **{
                f"{NAMES[kind]} prompts": f"{len(scope.train[kind])} to train, {len(scope.test[kind])} to test; "
                f"such as: {' · '.join(scope.test[kind][:3])}"
                for kind in KINDS
            },
            **{f"scope: {name}": value for name, value in scope.notes.items()},
        },
        "feedback": {name.replace("_", " "): count for name, count in sorted(completions.counts.items())},
        "limits": LIMITS,
    }
    card = {
        "base_model": cfg.model,
        "method": cfg.method,
        "feedback": scope.sentence,
        "summary": summary,
        "comparisons": measured.rows,
        "limits": LIMITS,
    }
    if run.rank == 0:
        if trained:
            hub.save_model(policy.module, policy.tokenizer, run.path("model"), card=card)
        held = [row for kind in KINDS for row in measured.held[kind]]
        _write(run, "heldout.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in held))
        _write(run, "report.json", json.dumps(page, ensure_ascii=False, indent=1))
        _write(run, "result.json", json.dumps(result, ensure_ascii=False, indent=1))
        write_report(run.folder)
    return result


CURVES: list[dict[str, Any]] = [
    {"title": "loss", "stage": "tell", "y": ["loss"]},
    {"title": "implicit rewards in scope", "stage": "tell", "y": ["h_w", "h_l"]},
    {"title": "likelihood terms", "stage": "tell", "y": ["imitate", "near", "general"]},
    {"title": "fork terms", "stage": "tell", "y": ["fork", "near_fork", "general_fork"]},
    {"title": "gradient norm", "stage": "tell", "y": ["grad_norm"]},
]


JUDGED = {1: ("win", "judged better"), 0: ("tie", "judged the same"), -1: ("loss", "judged worse")}


def revised_of(counts: Mapping[str, Any]) -> tuple[int, int]:
    """How many revisions are the model's and the editor's."""
    return int(counts.get("revised_by_model", 0)), int(counts.get("revised_by_editor", 0))


def _write(run: Run, name: str, text: str) -> None:
    write_file(run.path(name), (text.rstrip("\n") + "\n").encode())


def sentences(cfg: Config, scope: Scope, measured: Measured, result: dict[str, Any]) -> list[str]:
    """The summary in words: where the sentence holds now, and where it should not and does."""
    rows = {row["name"]: row for row in measured.rows}
    said = []
    for kind in KINDS:
        row = rows[adherence_name(kind, measured.judged)]
        score = measured.scores[f"s_{kind}"]
        shares = (
            f"the judge finds that the answer follows the sentence better now for {row['after']:.0%} of the prompts, "
            f"and less well for {row['before']:.0%}"
            if measured.judged
            else f"{row['before']:.0%} of the answers had the effect before, {row['after']:.0%} have it now"
        )
        said.append(
            f"{NAMES[kind].capitalize()}: {shares} (S_{kind} {score.estimate:.2f}, interval {score.low:.2f} to "
            f"{score.high:.2f}, {len(scope.test[kind])} prompts)."
        )
    said.append(
        f"Overall {result['s_overall']:.2f} of 1 ({result['s_overall_low']:.2f} to {result['s_overall_high']:.2f}); "
        ".5 is a model that has not changed."
    )
    by_model = result.get("revised_by_model_share")
    if by_model is not None:
        said.append(
            f"{sum(revised_of(result))} in-scope answers were learned from; {by_model:.0%} of their revisions are the "
            f"model's own, the others the editor's. {result['steps']} steps; {result['minutes']:.1f} minutes in all."
        )
    return said


def samples(measured: Measured) -> list[dict[str, Any]]:
    """Answers side by side: some of each kind, evenly from the test set, then the most changed out of scope."""
    chosen = []
    for kind in KINDS:
        rows = measured.held[kind]
        step = max(1, len(rows) // SHOWN)
        chosen += [_sample(row, NAMES[kind], measured.judged) for row in rows[::step][:SHOWN]]
    out = [*measured.held["near"], *measured.held["general"]]
    return [
        *chosen,
        *(_sample(row, "most changed out of scope", measured.judged) for row in most_changed(out, CHANGED)),
    ]


def _sample(row: Mapping[str, Any], group: str, judged: bool) -> dict[str, Any]:
    # h and not the two scores: an answer that grew where shorter ones were asked for has neither, and has changed.
    if row["kind"] == "in" and judged:
        outcome, label = JUDGED[row["h"]]
    elif row["kind"] == "in":
        outcome, label = ("win", "obeys") if row["after"]["score"] else ("tie", "does not obey")
    elif row["h"]:
        outcome, label = "loss", "leaks" if row["h"] > 0 else "lost it"
    else:
        outcome, label = "tie", "left alone"
    sides = {side: {"text": row[side]["text"]} for side in ("before", "after")}
    return {"input": row["prompt"], **sides, "group": group, "outcome": outcome, "label": label}
