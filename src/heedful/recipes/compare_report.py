"""What `heedful compare-methods` leaves behind: result.json, the report with its curves, heldout.jsonl of the best."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heedful.atomic import write_file
from heedful.errors import HeedfulError
from heedful.evals import language
from heedful.recipes import compare_advice
from heedful.recipes.compare_advice import OPEN
from heedful.recipes.compare_arms import Work, granted
from heedful.recipes.compare_figures import Advice, Figures, Gap, best_of, gap, mean_of
from heedful.recipes.compare_outcomes import Outcome, Start, start_of
from heedful.report import write_report
from heedful.report_plots import SERIES
from heedful.report_values import model_title, show_change, show_number
from heedful.run import Run

if TYPE_CHECKING:
    from heedful.recipes.compare_methods import Config

SHOWN = 4
"""Samples of each method side by side with the start model's."""
AXES = {"step": "steps", "samples": "samples", "seconds": "seconds"}
QUESTIONS = {
    "method": "which method to use",
    "peak": "how far the reward's peak is from the start model",
    "on_policy": "whether sampling on-policy pays",
    "negative_gradient": "whether a negative gradient pays",
    "close_pairs": "whether h_w falls, and because pairs are close",
    "staleness": "whether fresher samples pay",
    "reuse": "whether more reuse of samples pays",
    "gold": "whether the judge's gain is real",
}
COLUMNS = ("method", "learning rate", "score", "change", "95% interval", "win rate")
COLUMNS_AFTER = ("KL", "words", "h_w", "h_l", "steps", "seconds", "samples", "reward queries")


def finish(cfg: Config, work: Work, outcomes: Sequence[Outcome], run: Run) -> dict[str, Any]:
    """Write heldout.jsonl, result.json, report.json and report.html; returns the result.

    Raises HeedfulError when every method has failed.
    """
    done = [made for made in outcomes if not made.failed]
    if not done:
        failures = "; ".join(f"{made.arm.label}: {made.failed}" for made in outcomes)
        raise HeedfulError(f"every method failed, so there is nothing to compare. {failures}")
    begin = start_of(work)
    found = figures(cfg, done, begin)
    advice = compare_advice.advise(found)
    best = best_of(found)
    result = numbers(cfg, work, outcomes, begin, found, advice)
    if run.rank == 0:
        held = _heldout(next(made for made in done if made.arm.label == best).folders[0])
        page = report(cfg, work, outcomes, begin, found, advice)
        _write(run, "heldout.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in held))
        _write(run, "report.json", json.dumps(page, ensure_ascii=False, indent=1))
        _write(run, "result.json", json.dumps(result, ensure_ascii=False, indent=1))
        write_report(run.folder)
    return result


def figures(cfg: Config, done: Sequence[Outcome], begin: Start) -> Figures:
    """What advice is made from: the gold judge's scores where there is one, else the judge's."""
    judged = {made.arm.label: made.scores for made in done}
    gold = {made.arm.label: made.gold for made in done if made.gold is not None}
    by_gold = begin.gold is not None
    return Figures(
        arms={made.arm.label: made.arm for made in done},
        scores=gold if by_gold else judged,
        start=begin.gold if begin.gold is not None else begin.scores,
        judged=judged,
        judged_start=begin.scores,
        probe=begin.probe,
        measure="gold score" if by_gold else "judge score",
        pairs=begin.pairs,
        rewards={
            made.arm.label: made.rewards for made in done if made.rewards is not None and len(made.rewards)
        },
        usual={"rounds": cfg.rounds, "epochs": cfg.epochs},
        rates={made.arm.label: made.choice.rate for made in done},
        seconds={made.arm.label: made.numbers["seconds"] for made in done},
        seed=cfg.seed,
    )


def numbers(
    cfg: Config,
    work: Work,
    outcomes: Sequence[Outcome],
    begin: Start,
    found: Figures,
    advice: Sequence[Advice],
) -> dict[str, Any]:
    """result.json: flat but for `advice`, a list; a method's numbers begin with its name."""
    best = best_of(found)
    choice = next(one for one in advice if one.about == "method")
    result: dict[str, Any] = {
        "job": "compare-methods",
        "methods": [made.arm.label for made in outcomes],
        "failed": [made.arm.label for made in outcomes if made.failed],
        "winner": best,
        "winner_decided": choice.verdict == best,
        "measure": found.measure,
        "seeds": cfg.seeds,
        "held_out_prompts": begin.scores.shape[1],
        "tuning_prompts": work.facts.get("held-out prompts: tune", 0),
        "start_score": round(float(mean_of(begin.scores)), 6),
    }
    for made in outcomes:
        key = made.arm.key
        result[f"{key}_learning_rate"] = made.choice.rate
        if made.failed:
            continue
        result[f"{key}_score"] = round(made.numbers["judge_score_after"], 6)
        for name, change in _changes(made, begin, found.seed).items():
            result[f"{key}_{name}_change"] = round(change.interval.estimate, 6)
            if change.interval.known:
                result[f"{key}_{name}_change_low"] = round(change.interval.low, 6)
                result[f"{key}_{name}_change_high"] = round(change.interval.high, 6)
            result[f"{key}_{name}_seeds_agree"] = change.agree
        told = {name: value for name, value in made.numbers.items() if name != "judge_score_after"}
        result |= {f"{key}_{name}": round(value, 6) for name, value in told.items()}
    result["advice"] = [
        {"about": one.about, "verdict": one.verdict, "text": one.text}
        | {name: round(float(value), 6) for name, value in one.figures.items()}
        for one in advice
    ]
    return result


def _changes(made: Outcome, begin: Start, seed: int) -> dict[str, Gap]:
    """The change of each score from the start model."""
    changes = {"score": gap(begin.scores, made.scores, seed=seed)}
    if made.gold is not None and begin.gold is not None:
        changes["gold"] = gap(begin.gold, made.gold, seed=seed)
    return changes


# ---- the report


def report(
    cfg: Config,
    work: Work,
    outcomes: Sequence[Outcome],
    begin: Start,
    found: Figures,
    advice: Sequence[Advice],
) -> dict[str, Any]:
    """report.json."""
    done = [made for made in outcomes if not made.failed]
    return {
        "title": f"Methods compared on {model_title(cfg.model)}",
        "job": "compare-methods",
        "summary": summary(advice),
        "warnings": warnings(cfg, outcomes),
        "tables": [
            _methods(outcomes, begin, found),
            _advice(advice),
            *([_rates(cfg, outcomes)] if len(cfg.learning_rates) > 1 else []),
        ],
        "comparisons": comparisons(done, begin, found.seed),
        "cards": [
            f"{found.measure}, {label}"
            for label in sorted(found.scores, key=lambda a: -mean_of(found.scores[a]))
        ],
        "curves": curves(done),
        "samples": [
            sample
            for made in done
            for sample in language.pick_samples(_heldout(made.folders[0]), SHOWN, made.arm.label)
        ],
        "data": {
            "files": ", ".join(f for f in (cfg.data, cfg.prompts, cfg.eval_data, cfg.eval_prompts) if f),
            **work.facts,
            "answers before and after, in plots and heldout.jsonl": best_of(found),
        },
        "feedback": {
            "judge": cfg.judge or cfg.reward_model,
            **({"gold judge": cfg.gold} if cfg.gold else {}),
            **{f"budget of {made.arm.label}": _budget(work, made, cfg) for made in outcomes},
        },
        "limits": limits(cfg),
    }


def summary(advice: Sequence[Advice]) -> list[str]:
    """The choice of a method and every sentence that takes a side; of the others, what they leave open."""
    taken = [one.text for one in advice if one.about == "method" or one.verdict != OPEN]
    left = [QUESTIONS[one.about] for one in advice if one.about != "method" and one.verdict == OPEN]
    if left:
        taken.append(f"Undecided: {'; '.join(dict.fromkeys(left))}. The figures are under Advice.")
    return taken


def _advice(advice: Sequence[Advice]) -> dict[str, Any]:
    """Every question with its answer."""
    rows = [[QUESTIONS[one.about], one.verdict.replace("_", " "), one.text] for one in advice]
    note = "A side is taken where the 95% interval over held-out prompts excludes zero and all seeds agree."
    columns = ["question", "answer", "on what it rests"]
    return {"title": "Advice", "note": note, "columns": columns, "rows": rows, "text": True}


def _budget(work: Work, made: Outcome, cfg: Config) -> str:
    allowed = granted(work, made.arm)
    answers = f"{cfg.n} samples of each" if made.arm.online else "both answers of a pair"
    return (
        f"{allowed.rounds} rounds of {allowed.prompts_per_round} prompts, {answers}; "
        f"{allowed.steps} steps of {cfg.batch_size}"
    )


def _methods(outcomes: Sequence[Outcome], begin: Start, found: Figures) -> dict[str, Any]:
    """The table of methods, the best first."""
    with_gold = begin.gold is not None
    order = sorted(
        (made for made in outcomes if not made.failed),
        key=lambda made: -mean_of(found.scores[made.arm.label]),
    )
    rows = []
    for made in order:
        changes, n = _changes(made, begin, found.seed), made.numbers
        row = [made.arm.label, f"{made.choice.rate:g}", show_number(n["judge_score_after"])]
        row += [*_change(changes["score"]), show_number(n.get("win_rate_after"), "share")]
        row += _change(changes["gold"]) if with_gold else []
        row += [show_number(n.get(name)) for name in ("kl", "answer_length_after", "h_w", "h_l", "steps")]
        rows.append([*row, *(show_number(n[name]) for name in ("seconds", "samples", "reward_queries"))])
    gold = ("gold change", "its interval") if with_gold else ()
    columns = [*COLUMNS, *gold, *COLUMNS_AFTER]
    for made in outcomes:
        if made.failed:
            rows.append([made.arm.label, f"{made.choice.rate:g}", "failed", *[""] * (len(columns) - 3)])
    return {
        "title": "Methods",
        "note": (
            "On held-out prompts that nothing was chosen by. Score: the judge's mean; KL in nats per answer; h_w and "
            "h_l: implicit rewards of held-out chosen and rejected answers, in nats; seconds of learning, sampling "
            "included, without measuring."
        ),
        "columns": columns,
        "rows": rows,
    }


def _change(change: Gap) -> list[str]:
    interval = change.interval
    if not interval.known:
        return [show_change(interval.estimate), ""]
    note = "" if change.agree else " (seeds disagree)"
    return [
        show_change(interval.estimate),
        f"{show_change(interval.low)} … {show_change(interval.high)}{note}",
    ]


def _rates(cfg: Config, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """How learning rates were chosen."""
    rates = sorted(cfg.learning_rates)

    def cell(made: Outcome, rate: float) -> str:
        score = made.choice.scores.get(rate)
        if score is None:
            return "failed"
        return show_number(score) + (" ✓" if rate == made.choice.rate and not made.choice.failed else "")

    return {
        "title": "How learning rates were chosen",
        "note": (
            "The judge's mean score on held-out prompts of their own, with the whole budget and a seed of its own; the "
            "best one, and of equals the lower, is reported above on other prompts and other seeds."
        ),
        "columns": ["method", *(f"{rate:g}" for rate in rates)],
        "rows": [[made.arm.label, *(cell(made, rate) for rate in rates)] for made in outcomes],
    }


def comparisons(done: Sequence[Outcome], begin: Start, seed: int) -> list[dict[str, Any]]:
    """Rows of report.json: every method's change of the judge's score, then of the gold score."""
    rows = []
    for made in done:
        name = f"judge score, {made.arm.label}"
        rows.append(
            language.row(name, begin.scores.T, made.scores.T, better="higher", unit="score", seed=seed)
        )
    for made in done:
        if made.gold is not None and begin.gold is not None:
            name = f"gold score, {made.arm.label}"
            rows.append(
                language.row(name, begin.gold.T, made.gold.T, better="higher", unit="score", seed=seed)
            )
    return rows


def curves(done: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Held-out score against steps, samples and seconds, at most as many methods in a plot as it has colours."""
    made = []
    parts = [done[i : i + SERIES] for i in range(0, len(done), SERIES)]
    measures = {"score": "held-out judge score"} | (
        {"gold": "held-out gold score"} if all("gold" in one.curve[0] for one in done) else {}
    )
    for measure, title in measures.items():
        for axis, name in AXES.items():
            for i, part in enumerate(parts):
                more = f" ({i + 1} of {len(parts)})" if len(parts) > 1 else ""
                lines = {
                    one.arm.label: [[point[axis], point[measure]] for point in one.curve] for one in part
                }
                note = (
                    "samples drawn; for offline methods answers taken from the data"
                    if axis == "samples"
                    else ""
                )
                made.append(
                    {"title": f"{title} against {name}{more}", "x": name, "lines": lines, "note": note}
                )
    return made


def warnings(cfg: Config, outcomes: Sequence[Outcome]) -> list[str]:
    """What a reader must know before believing the numbers, and what each method's own report warns of."""
    made = [f"{one.arm.label} failed: {one.failed}" for one in outcomes if one.failed]
    rates = sorted(cfg.learning_rates)
    for end, rate in (("lowest", rates[0]), ("highest", rates[-1])) if len(rates) > 1 else ():
        took = [one.arm.label for one in outcomes if not one.failed and one.choice.rate == rate]
        if took:
            made.append(
                f"The {end} of the learning rates was the best for {', '.join(took)}: a better one may lie beyond it."
            )
    for one in outcomes:
        made += [
            f"{one.arm.label}, learning rate {rate:g}: failed while rates were chosen"
            for rate, score in one.choice.scores.items()
            if score is None and not one.failed
        ]
    return [*made, *(f"{one.arm.label}: {text}" for one in outcomes for text in one.warnings)]


def limits(cfg: Config) -> list[str]:
    """Known limits."""
    seeds = (
        "Intervals are over prompts, for one seed of training: add --seeds before you conclude much."
        if cfg.seeds == 1
        else f"Intervals are over prompts; {cfg.seeds} seeds of training are averaged, and must agree to take a side."
    )
    return [
        seeds,
        "The judge that was learned from also measures here; --gold measures with another one."
        if not cfg.gold
        else "Learning rates were chosen by the judge, not by the gold judge.",
        "The budget counts steps, prompts and samples. Seconds differ between methods and between machines.",
        "Only learning rates are tuned. Other options of a method are what --methods says, or the defaults of prefer.",
    ]


def _heldout(folder: Path) -> list[dict[str, Any]]:
    with (folder / "heldout.jsonl").open("rb") as lines:
        return [json.loads(line) for line in lines]


def _write(run: Run, name: str, text: str) -> None:
    write_file(run.path(name), (text.rstrip("\n") + "\n").encode())
