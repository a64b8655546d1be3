"""What `heedful retrieve train` leaves behind: the model with its card, result.json, heldout.jsonl, values.json (what
every writer found for every held-out question), the report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from heedful import hub
from heedful.atomic import write_file
from heedful.evals import language
from heedful.evals.retrieval import interval
from heedful.policies.language import LanguagePolicy
from heedful.recipes import retrieve_report
from heedful.recipes.retrieve_bootstrap import Prompt
from heedful.recipes.retrieve_measure import Measured, key_of
from heedful.recipes.retrieve_train import TRAINS
from heedful.recipes.retrieve_train_data import Asked
from heedful.recipes.retrieve_train_stages import Stages
from heedful.recipes.retrieve_writers import RULES
from heedful.report import write_report
from heedful.run import Run, read_metrics

if TYPE_CHECKING:
    from heedful.recipes.retrieve_train import Config

LIMITS = [
    "Numbers are of this run's held-out questions and of this corpus and retriever; another retriever wants training "
    "of its own.",
    "For one seed of training. Train with other seeds before you conclude much.",
]
SAID = (
    "method",
    "reward",
    "diversity",
    "temperature",
    "pairs",
    "loss",
    "beta",
    "iterations",
    "rules",
    "bootstrap_hops",
)
"""Options that say what was done."""
TALLY = ("prompts", "informative", "queries", "complete", "repeated", "blank", "echoes", "pairs", "targets")
"""Columns of the table of what was tried."""


def finish(
    cfg: Config,
    policy: LanguagePolicy,
    asked: Asked,
    stages: Stages,
    prompts: Sequence[Prompt],
    measured: Mapping[str, Measured],
    run: Run,
) -> dict[str, Any]:
    """Save the model and write the files; returns the result. The last of `measured` is what the run is about."""
    before, last = measured["before"], list(measured)[-1]
    after = measured[last]
    rows = retrieve_report.change_rows(before, after) if last != "before" else []
    result = _result(cfg, asked, stages, prompts, measured, last, rows, run)
    sides = SimpleNamespace(run=last, against="before")
    summary = [*retrieve_report.sentences(sides, after, before, rows), *_sentences(cfg, measured, stages)]
    comparing = before if last != "before" else None
    page = {
        "title": f"{cfg.model} as a writer of queries, after {cfg.method}",
        "job": "retrieve",
        "summary": summary,
        "warnings": [
            *retrieve_report.warnings(after, asked.facts),
            *_warnings(asked, stages, rows),
            *_beaten(measured, cfg.rules),
        ],
        "comparisons": rows,
        "curves": _curves(cfg),
        "tables": [
            *([_writers(measured)] if len(measured) > 1 else []),
            *retrieve_report.tables(sides, after, comparing),
            *_tried(stages),
            *_prompts(prompts),
        ],
        "samples": retrieve_report.samples(after, comparing),
        "columns": ["before", last],
        "headings": {"samples": "Queries side by side, with what each hop found"},
        "data": {
            key.replace("_", " "): value
            for key, value in asked.facts.items()
            if key not in ("examples", "content", "mtime_ns")
        },
        "feedback": {name.replace("_", " "): getattr(cfg, name) for name in SAID} | _costs(stages, measured),
        "limits": [*LIMITS, *retrieve_report.LIMITS],
    }
    if run.rank == 0:
        if cfg.method in TRAINS:
            card = {
                "base_model": cfg.model,
                "method": cfg.method,
                "feedback": f"{cfg.reward} of what {cfg.retriever} finds",
                "summary": summary,
                "comparisons": rows,
                "limits": page["limits"],
            }
            hub.save_model(policy.module, policy.tokenizer, run.path("model"), card=card, merged=cfg.merged)
        held = _heldout(before, after)
        _write(run, "heldout.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in held))
        values = {"ids": [turn.question.id for turn in after.turns]}
        values |= {name: one.per_question() for name, one in measured.items()}
        if stages.harvests:
            values["informative"] = stages.informative()
        _write(run, "values.json", json.dumps(values, ensure_ascii=False))
        _write(run, "report.json", json.dumps(page, ensure_ascii=False, indent=1))
        _write(run, "result.json", json.dumps(result, ensure_ascii=False, indent=1))
        write_report(run.folder)
    return result


def _write(run: Run, name: str, text: str) -> None:
    write_file(run.path(name), (text.rstrip("\n") + "\n").encode())


def _result(
    cfg: Config,
    asked: Asked,
    stages: Stages,
    prompts: Sequence[Prompt],
    measured: Mapping[str, Measured],
    last: str,
    rows: Sequence[Mapping[str, Any]],
    run: Run,
) -> dict[str, Any]:
    result: dict[str, Any] = {
        "job": "retrieve train",
        **{
            name: getattr(cfg, name)
            for name in ("model", *SAID, "retriever", "merge", "repeats", "k", "passage_words", "seed")
        },
        "hops": asked.hops,
        "train_questions": len(asked.train),
        "held_out_questions": len(asked.test),
        "steps": sum("loss" in row for row in read_metrics(run.folder)),
    }
    for chosen in stages.chosen:
        for name, count in chosen.counts.items():
            result[f"tried_{name}"] = result.get(f"tried_{name}", 0) + count
    for name, value in _costs(stages, {}).items():
        result[key_of(name)] = value
    if prompts[1:]:
        result["bootstrap_scores"] = [round(prompt.score, 6) for prompt in prompts]
    result |= measured[last].numbers()
    for name, one in measured.items():
        if name != last:
            prefix = name.replace("-", "_")
            result |= {f"{prefix}_{key}": value for key, value in one.numbers().items()}
    for row in rows:
        if row["unit"] == "share":
            key = key_of(row["name"])
            result[f"change_in_{key}"] = round(row["change"], 6)
            if row["interval"]:
                result[f"change_in_{key}_interval"] = [round(v, 6) for v in row["interval"]]
    return result


def _sentences(cfg: Config, measured: Mapping[str, Measured], stages: Stages) -> list[str]:
    """What the other writers come to, and what was learned from."""
    said = []
    for name in (name for name in measured if name in RULES):
        row = _end(measured[name], measured[list(measured)[-1]])
        if row is not None:
            said.append(f'The rule "{name}" has {row["before"]:.1%}' + _surely(row, "this writer") + ".")
    if "few-shot" in measured and "after" in measured:
        row = _end(measured["few-shot"], measured["after"])
        if row is not None:
            said.append(f"The best few-shot prompt has {row['before']:.1%}" + _surely(row, "training") + ".")
    if "imitation" in measured:
        row = _end(measured["imitation"], measured["after"])
        if row is not None:
            said.append(f"After imitation alone it is {row['before']:.1%}" + _surely(row, "preferring") + ".")
    if stages.chosen:
        total = {
            name: sum(c.counts[name] for c in stages.chosen)
            for name in ("prompts", "informative", "pairs", "queries")
        }
        said.append(
            f"Of {total['prompts']:,} questions and hops {total['informative']:,} had queries of different worth; "
            f"{total['queries']:,} queries gave {total['pairs']:,} pairs."
        )
    return said


def _beaten(measured: Mapping[str, Measured], rules: Sequence[str]) -> list[str]:
    """Which rules find more than the writer that the run is about, as surely as its questions can tell. rules: those
    that it learned from."""
    last = list(measured)[-1]
    found = []
    for name in (name for name in measured if name in RULES):
        row = _end(measured[name], measured[last])
        if row is not None and row["interval"] and row["interval"][1] < 0:
            shares = f"{row['before']:.1%} against {row['after']:.1%}"
            advice = (
                "which costs no model" if name in rules else f"or have its queries tried too (--rules {name})"
            )
            found.append(f'The rule "{name}" beats this writer: {shares}. Search with it, {advice}.')
    return found


def _end(before: Measured, after: Measured) -> dict[str, Any] | None:
    """The comparison of what questions are told apart by: recall after the last hop, or the answers' F1."""
    rows = {row["name"]: row for row in retrieve_report.change_rows(before, after)}
    return rows.get(f"recall after hop {after.hops}", rows.get("answer F1"))


def _surely(row: Mapping[str, Any], what: str) -> str:
    text = f"; {what} adds {100 * row['change']:+.1f} points"
    if row["interval"]:
        low, high = row["interval"]
        text += f" (interval {100 * low:+.1f} to {100 * high:+.1f})"
    return text


def _warnings(asked: Asked, stages: Stages, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    found = []
    shared = asked.facts["held_out_with_gold_of_training"]
    if shared:
        found.append(
            f"{shared:,} of {len(asked.test):,} held-out questions need a passage that a training question needs too; "
            "what was learned about such passages counts as well."
        )
    if asked.facts.get("without_reward"):
        found.append(
            f"{asked.facts['without_reward']:,} training questions say nothing that could be rewarded."
        )
    for number, chosen in enumerate(stages.chosen, start=1):
        rate = chosen.counts["informative"] / max(1, chosen.counts["prompts"])
        if rate < 0.2:
            found.append(
                f"Part {number}: only {rate:.0%} of the questions and hops had queries of different worth, so there "
                "was little to learn from; take more --prompts or --samples, or a higher --temperature."
            )
    for row in rows:
        if row["unit"] == "share" and row["interval"] and row["interval"][1] < 0:
            found.append(f"{row['name'].capitalize()} fell: the interval of its change lies below 0.")
    return found


def _writers(measured: Mapping[str, Measured]) -> dict[str, Any]:
    """Every writer that was measured, at the end of all hops."""
    rows = []
    for name, one in measured.items():
        values = one.values()
        last = [values.get(f"{what} after hop {one.hops}") for what in ("recall", "AP")]
        shown = [_shown(v) for v in (*last, values.get("answer exact match"))]
        tokens = [one.cost.get(key) for key in ("prompt_tokens", "completion_tokens")]
        count = len(one.turns)
        rows.append(
            [
                name,
                *shown,
                f"{one.words.mean():.1f}",
                *("–" if t is None else f"{t / count:,.0f}" for t in tokens),
            ]
        )
    columns = ["writer", "recall", "average precision", "answer exact match", "words of a query"]
    columns += ["tokens read per question", "tokens written"]
    return {
        "title": "All writers",
        "note": "after the last hop, 95% intervals over questions; few-shot: the best bootstrapped prompt, untrained",
        "columns": columns,
        "rows": rows,
    }


def _shown(values: Any) -> str:
    if values is None or not np.isfinite(values).any():
        return "–"
    got = interval(values.tolist())
    return f"{got.estimate:.1%}" + (f" ({got.low:.1%} to {got.high:.1%})" if got.known else "")


def _tried(stages: Stages) -> list[dict[str, Any]]:
    rows = [[row["part"], row["hop"], *(row[name] for name in TALLY)] for row in stages.by_hop()]
    if not rows:
        return []
    return [
        {
            "title": "What was tried",
            "note": "informative: questions whose queries were not all worth the same; complete: queries after which "
            "nothing was missing; repeated, blank and echoing queries take no part",
            "columns": ["part", "hop", *TALLY],
            "rows": rows,
        }
    ]


def _prompts(prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
    if not prompts[1:]:
        return []
    rows = [
        [i, f"{prompt.score:.3f}", len(prompt.demos), "\n\n".join(prompt.demos) or "(none)"]
        for i, prompt in enumerate(prompts)
    ]
    return [
        {
            "title": "Prompts",
            "note": "what queries were tried with; the reward is on training questions that prompts were chosen by",
            "columns": ["prompt", "reward", "demonstrations", "text"],
            "rows": rows,
        }
    ]


def _costs(stages: Stages, measured: Mapping[str, Measured]) -> dict[str, Any]:
    """What trying cost, over all parts; and what a question costs at the end."""
    told: dict[str, Any] = {}
    for harvest in stages.harvests:
        for name, count in harvest.cost.items():
            key = f"training {name.replace('_', ' ')}"
            told[key] = told.get(key, 0) + count
    for name, one in measured.items():
        for key, tokens in one.cost.items():
            told[f"{name}: {key.replace('_', ' ')}"] = tokens
    return told


def _curves(cfg: Config) -> list[dict[str, Any]]:
    parts = range(cfg.iterations)
    made = [{"title": f"imitation, part {p + 1}", "stage": f"part{p}/imitate", "y": ["loss"]} for p in parts]
    if cfg.method == "leret":
        for p in parts:
            made.append({"title": f"preferences, part {p + 1}", "stage": f"part{p}/prefer", "y": ["loss"]})
            made.append(
                {
                    "title": f"implicit rewards, part {p + 1}",
                    "stage": f"part{p}/prefer",
                    "y": ["h_w", "h_l", "margin"],
                }
            )
    return made if cfg.method in TRAINS else []


def _heldout(before: Measured, after: Measured) -> list[dict[str, Any]]:
    """Rows for `heedful compare`."""
    return language.heldout_rows(
        [turn.question.question for turn in after.turns],
        [[retrieve_report.in_words(turn)] for turn in before.turns],
        [[retrieve_report.in_words(turn)] for turn in after.turns],
        before.best_known[:, None],
        after.best_known[:, None],
    )
