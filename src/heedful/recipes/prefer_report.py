"""What `heedful prefer` leaves behind: the model with its card, result.json, the report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from heedful import hub
from heedful.atomic import write_file
from heedful.evals import language
from heedful.evals.heldout import Answers, Measured
from heedful.policies.language import LanguagePolicy
from heedful.recipes.prefer_data import Data
from heedful.report import write_report
from heedful.report_values import model_title
from heedful.run import Run, read_metrics

if TYPE_CHECKING:
    from heedful.recipes.prefer import Config

LIMITS = [
    "Numbers are of the held-out prompts of this run and of this judge; another judge may see it otherwise.",
    "Intervals are over prompts, for one seed of training. Train with other seeds before you conclude much.",
    "The KL estimate comes from few samples; it can be slightly negative when the models are close.",
]


def finish(
    cfg: Config,
    policy: LanguagePolicy,
    data: Data,
    before: Answers,
    after: Answers,
    measured: Measured,
    counts: dict[str, int],
    warnings: Sequence[str],
    run: Run,
) -> dict[str, Any]:
    """Save the model, write heldout.jsonl, result.json, report.json and report.html; returns the result.

    warnings: what the report says besides the signs of reward hacking.
    """
    result: dict[str, Any] = {
        "job": "prefer",
        "method": cfg.method,
        "rounds": cfg.rounds,
        "seed": cfg.seed,
        "steps": steps_taken(run),
        "held_out_prompts": len(before.samples.inputs),
        **{f"selected_{name}": count for name, count in counts.items()},
        **{name: round(value, 6) for name, value in measured.numbers.items()},
    }
    summary = sentences(cfg, measured, result)
    held = language.heldout_rows(
        before.samples.inputs,
        before.texts,
        after.texts,
        before.scores,
        after.scores,
        before.feedback.notes if before.feedback else None,
        after.feedback.notes if after.feedback else None,
    )
    page = {
        "title": f"{model_title(cfg.model)} after {cfg.method}",
        "job": "prefer",
        "summary": summary,
        "warnings": [*warnings, *measured.warnings],
        "comparisons": measured.rows,
        "curves": curves(cfg),
        "samples": language.pick_samples(held),
        "data": {
            "files": ", ".join(f for f in (cfg.data, cfg.prompts, cfg.eval_data, cfg.eval_prompts) if f),
            **data.facts,
        },
        "feedback": {
            "judge": cfg.judge or cfg.reward_model or "the preference pairs",
            **{name.replace("_", " "): count for name, count in counts.items()},
        },
        "limits": limits(cfg, policy),
    }
    card = {
        "base_model": cfg.model,
        "method": cfg.method,
        "feedback": page["feedback"]["judge"],
        "summary": summary,
        "comparisons": measured.rows,
        "limits": page["limits"],
    }
    if run.rank == 0:
        hub.save_model(policy.module, policy.tokenizer, run.path("model"), card=card, merged=cfg.merged)
        _write(run, "heldout.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in held))
        _write(run, "report.json", json.dumps(page, ensure_ascii=False, indent=1))
        _write(run, "result.json", json.dumps(result, ensure_ascii=False, indent=1))
        write_report(run.folder)
    return result


def steps_taken(run: Run) -> int:
    """Optimiser steps of all rounds: each logs its last one, whatever --log-every is."""
    last: dict[str, int] = {}
    for row in read_metrics(run.folder):
        stage = str(row.get("stage", ""))
        if "loss" in row and stage.startswith("round"):
            last[stage] = max(last.get(stage, 0), int(row["step"]))
    return sum(last.values())


def _write(run: Run, name: str, text: str) -> None:
    write_file(run.path(name), (text.rstrip("\n") + "\n").encode())


def sentences(cfg: Config, measured: Measured, result: dict[str, Any]) -> list[str]:
    """The summary in words: what moved, by how much, how surely."""
    rows = {row["name"]: row for row in measured.rows}
    said = []
    for name, text in (
        ("answer length", "Answers went from {before:.0f} to {after:.0f} words ({share:+.0%})"),
        ("judge score", "The judge's score went from {before:.2f} to {after:.2f}"),
    ):
        row = rows.get(name)
        if row is None or row["change"] is None:
            continue
        share = row["change"] / row["before"] if row["before"] else 0.0
        said.append(text.format(**row, share=share) + _surely(row) + ".")
    win = rows.get("win rate")
    if win is not None:
        low, high = win["interval"] or (float("nan"), float("nan"))
        said.append(
            f"The tuned model wins {win['after']:.0%} of the held-out prompts "
            f"(interval {0.5 + low:.0%} to {0.5 + high:.0%}; ties count half)."
        )
    if "h_w" in result:
        said.append(
            f"Implicit reward on {result['held_out_pairs']:.0f} held-out pairs: chosen {result['h_w']:+.2f}, "
            f"rejected {result['h_l']:+.2f} nats; {result['preference_accuracy']:.0%} of the pairs are ordered right."
        )
    said.append(f"KL to the start model: {result['kl']:.1f} nats per answer, after {result['steps']} steps.")
    if not measured.warnings:
        said.append("No sign of reward hacking among those looked for.")
    return said


def _surely(row: dict[str, Any]) -> str:
    if not row["interval"]:
        return ""
    low, high = row["interval"]
    zero = "excludes" if low > 0 or high < 0 else "includes"
    return (
        f", a change of {row['change']:+.2f} with an interval of {low:+.2f} to {high:+.2f} that {zero} zero"
    )


def curves(cfg: Config) -> list[dict[str, Any]]:
    """Which metrics the report draws."""
    made = [{"title": "loss", "stage": "round", "y": ["loss"]}]
    if cfg.method in ("dpo", "robust", "ipo", "hinge", "kto"):
        made.append({"title": "implicit rewards", "stage": "round", "y": ["h_w", "h_l"]})
        made.append({"title": "margin", "stage": "round", "y": ["margin"]})
    made.append({"title": "completion length", "stage": "round", "y": ["length"]})
    if cfg.rounds > 1:
        made.append({"title": "score of the samples, by round", "stage": "driver", "y": ["score"]})
        made.append({"title": "KL of the samples, by step", "stage": "round", "y": ["kl_ref", "kl_sampling"]})
    if cfg.eval_rounds:
        told = ["judge_score", "gold_score"] if cfg.gold else ["judge_score"]
        made.append({"title": "held-out score, by round", "stage": "held-out", "y": told})
    if cfg.reward_model:
        made.append({"title": "reward model", "stage": "reward", "y": ["loss", "accuracy"]})
    return [*made, {"title": "gradient norm", "stage": "round", "y": ["grad_norm"]}]


def limits(cfg: Config, policy: LanguagePolicy) -> list[str]:
    """Known limits, those of this run first."""
    own = []
    if policy.precision == "bf16":
        own.append("Computed in bf16: log-probabilities of long answers are good to a few tenths of a nat.")
    if policy.encoder.boundary_merges:
        own.append(
            f"{policy.encoder.boundary_merges} completions begin inside what the tokenizer would take as one token "
            "with the prompt; they were tokenised apart, as when sampling."
        )
    if not policy.shares_prefix:
        own.append("This architecture cannot share prompts between completions; padded batches were used.")
    return [*own, *LIMITS]
