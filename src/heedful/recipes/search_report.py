"""What the jobs of `heedful search` leave behind: result.json, heldout.jsonl, report.json and report.html."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from heedful.atomic import write_file
from heedful.data.countdown.replay import KINDS
from heedful.evals import language
from heedful.evals.intervals import Interval
from heedful.recipes.search_measure import Measured
from heedful.report import write_report
from heedful.run import Run

LIMITS = [
    "Intervals are over problems, for one seed of training. Train with other seeds before you conclude much.",
    "Problems of one kind are alike: accuracy on other numbers, targets or puzzles is another matter.",
]
NEEDS_ARITHMETIC = 0.05
"""Share of operations with wrong arithmetic above which improvement has hardly anything to go on (pilot runs)."""
LITTLE = 0.3
"""Accuracy below which the same holds."""


def finish_pretraining(
    cfg: Any,
    measured: Mapping[str, Measured],
    facts: Mapping[str, Any],
    drawings: Sequence[Mapping[str, Any]],
    run: Run,
) -> dict[str, Any]:
    """The result and page of `heedful search pretrain`. drawings: see search_pictures."""
    result = {"job": "search pretrain", "on": cfg.on if not cfg.data else "data", "seed": cfg.seed}
    result |= _plain(facts) | flat(measured)
    told = sentences(measured)
    page = {
        "title": "A decoder that learned from " + ("your rows" if cfg.data else cfg.on),
        "summary": told or ["The model is trained; nothing was answered (--eval-problems 0, or no --judge)."],
        "warnings": warnings(measured),
        "tables": [accuracy_table(measured), *error_tables(measured)] if measured else [],
        "drawings": list(drawings),
        "curves": [*budget_curves(measured), {"title": "loss by token", "stage": "pretrain", "y": ["nll"]}],
        "samples": examples(measured),
        "columns": ["verdict", "stream"],
        "data": dict(facts),
    }
    return finish(page, result, run)


def finish(page: dict[str, Any], result: dict[str, Any], run: Run) -> dict[str, Any]:
    """Write result.json, report.json and report.html; returns the result."""
    page = {"job": "search", **page, "limits": [*page.get("limits", []), *LIMITS]}
    if run.rank == 0:
        for name, value in (("report.json", page), ("result.json", result)):
            text = json.dumps(value, ensure_ascii=False, indent=1) + "\n"
            write_file(run.path(name), text.encode())
        write_report(run.folder)
    return result


def flat(measured: Mapping[str, Measured], prefix: str = "") -> dict[str, float]:
    """`<test set>_<name>` for result.json."""
    return {
        f"{prefix}{language.key_of(name)}_{key}": round(value, 6)
        for name, one in measured.items()
        for key, value in one.numbers().items()
        if value == value
    }


def sentences(measured: Mapping[str, Measured]) -> list[str]:
    """How many problems of each test set are solved, in words."""
    said = []
    for name, one in measured.items():
        got = one.accuracy
        said.append(
            f"It solves {got.estimate:.1%} of {len(one.prompts)} problems of {name} "
            f"(interval {got.low:.1%} to {got.high:.1%}), with {one.tokens.mean():.0f} tokens a stream."
        )
    return said


def warnings(measured: Mapping[str, Measured]) -> list[str]:
    """What stands in the way of learning from the model's own streams."""
    found = []
    for name, one in measured.items():
        numbers = one.numbers()
        wrong = numbers.get("errors_per_operation", 0.0)
        if wrong > NEEDS_ARITHMETIC:
            found.append(
                f"{name}: {wrong:.1%} of the operations are computed wrongly; train longer before `improve`, which has "
                f"little to go on above {NEEDS_ARITHMETIC:.0%}."
            )
        if numbers["accuracy"] < LITTLE:
            found.append(
                f"{name}: {numbers['accuracy']:.1%} solved; below {LITTLE:.0%} there is little to learn from."
            )
        if numbers["unfinished"] > 0.1:
            found.append(
                f"{name}: {numbers['unfinished']:.0%} of the streams do not end within the tokens they may have."
            )
    return found


def accuracy_table(measured: Mapping[str, Measured], ks: Sequence[int] = ()) -> dict[str, Any]:
    """Accuracy, interval, tokens, and pass@k where several streams were drawn."""
    rows = []
    for name, one in measured.items():
        got = one.accuracy
        cells = [name, len(one.prompts), f"{got.estimate:.1%}", f"{got.low:.1%} to {got.high:.1%}"]
        cells += [f"{one.tokens.mean():.1f}", f"{1 - one.finished.mean():.1%}"]
        rows.append([*cells, *(f"{one.pass_at(k).mean():.1%}" for k in ks)])
    names = ["test set", "problems", "accuracy", "interval", "tokens a stream", "do not end"]
    return {"title": "Accuracy", "columns": [*names, *(f"pass@{k}" for k in ks)], "rows": rows}


def error_tables(
    measured: Mapping[str, Measured], before: Mapping[str, Measured] | None = None
) -> list[dict[str, Any]]:
    """A table of the errors of each kind by stream, also of those before; none for worlds that count none."""
    known = [kind for kind in KINDS if any(kind in one.counts for one in measured.values())]
    if not known:
        return []
    sides = {"before": before, "after": measured} if before else {"": measured}
    rows = []
    for name in measured:
        for side, told in sides.items():
            errors = (told or {})[name].errors()
            cells = [*(_with_half(errors[kind]) for kind in known), f"{errors['explored'].estimate:.1f}"]
            rows.append([f"{name}, {side}" if side else name, *cells])
    return [
        {
            "title": "Errors by stream" + (", before and after" if before else ""),
            "note": "up to the first goal, ± 1.96 standard errors; arithmetic: an operation is wrong or not allowed",
            "columns": ["test set", *known, "operations explored"],
            "rows": rows,
        }
    ]


def _with_half(mean: Interval) -> str:
    return f"{mean.estimate:.2f}" + (f" ± {mean.high - mean.estimate:.2f}" if mean.known else "")


def budget_curves(
    measured: Mapping[str, Measured], before: Mapping[str, Measured] | None = None
) -> list[dict[str, Any]]:
    """Accuracy against the tokens that a stream may have; also that before."""
    if not measured:
        return []
    lines = {}
    for name, one in measured.items():
        if before:
            lines[f"{name}, before"] = [list(point) for point in before[name].by_budget()]
        lines[f"{name}, after" if before else name] = [list(point) for point in one.by_budget()]
    return [{"title": "accuracy against token budget", "x": "tokens", "lines": lines}]


def examples(measured: Mapping[str, Measured], each: int = 4) -> list[dict[str, Any]]:
    """Some problems with their stream, solved and not."""
    shown = []
    for name, one in measured.items():
        solved = one.solved[:, 0]
        picked = [int(i) for flags in (solved, ~solved) for i in flags.nonzero()[0][:each]]
        shown += [
            {
                "input": one.prompts[i],
                "group": name,
                "label": "solved" if solved[i] else "not solved",
                "before": {"text": one.reasons[i][0] or ("solved" if solved[i] else "not solved")},
                "after": {"text": one.texts[i][0], "score": _score(one, i)},
            }
            for i in picked
        ]
    return shown


def _score(one: Measured, i: int) -> float | None:
    """Of the first stream of a problem; None where the verifier had no opinion."""
    score = float(one.score[i, 0])
    return score if score == score else None


def change_rows(before: Mapping[str, Measured], after: Mapping[str, Measured]) -> list[dict[str, Any]]:
    """`comparisons` of report.json: each test set before and after, with paired intervals."""
    rows = []
    for name, old in before.items():
        new = after[name]
        pairs = [
            ("accuracy", old.solved.mean(1), new.solved.mean(1), "higher", "share"),
            ("tokens a stream", old.tokens.mean(1), new.tokens.mean(1), "none", "tokens"),
        ]
        pairs += [
            (f"{kind} errors", old.counts[kind], new.counts[kind], "lower", "")
            for kind in KINDS
            if kind in old.counts
        ]
        rows += [
            language.row(f"{what}, {name}", b.tolist(), a.tolist(), better=better, unit=unit)
            for what, b, a, better, unit in pairs
        ]
    return rows


def _plain(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {language.key_of(name): value for name, value in facts.items() if isinstance(value, int | float)}


def finish_improvement(
    cfg: Any,
    before: Mapping[str, Measured],
    after: Mapping[str, Measured],
    facts: Mapping[str, Any],
    told: Mapping[str, Any],
    drawings: Sequence[Mapping[str, Any]],
    run: Run,
) -> dict[str, Any]:
    """The result and page of `heedful search improve`. told: "rounds", "looks", "refreshed" or "selected"."""
    rows = change_rows(before, after)
    result: dict[str, Any] = {
        "job": "search improve",
        "method": cfg.method,
        "rounds": cfg.rounds,
        "seed": cfg.seed,
    }
    result |= flat(before, "before_") | flat(after, "after_")
    rounds = told.get("rounds") or []
    if rounds:
        result |= {f"last_round_{name}": value for name, value in rounds[-1].items() if value is not None}
        result["streams_drawn"] = cfg.rounds * cfg.problems * cfg.n
    result |= {f"selected_{name}": value for name, value in told.get("selected", {}).items()}
    if "refreshed" in told:
        result["reference_refreshed"] = len(told["refreshed"])
    said = [
        f"{row['name'].capitalize()}: {row['before']:.1%} before, {row['after']:.1%} after {cfg.rounds} "
        f"round{'' if cfg.rounds == 1 else 's'} of {cfg.method}{_surely(row)}."
        for row in rows
        if row["name"].startswith("accuracy")
    ]
    if "refreshed" in told:
        when = ", ".join(map(str, told["refreshed"])) or "none"
        said.append(f"Rounds after which the policy became the reference: {when}.")
    curves = [{"title": "score of the streams, by round", "stage": "rounds", "y": ["score", "solved"]}]
    curves += [{"title": "tokens of a stream, by round", "stage": "rounds", "y": ["tokens"]}]
    if "looks" in told:
        curves.append({"title": "problems set apart", "stage": "looks", "y": ["score", "average", "solved"]})
        curves.append(
            {"title": "distance to the reference, by token", "stage": "round", "y": ["log_ratio_squared"]}
        )
        curves.append({"title": "critic", "stage": "round", "y": ["value_loss"]})
    if "selected" in told:
        curves = [{"title": "score of the streams, by round", "stage": "driver", "y": ["score"]}]
    curves.append({"title": "loss", "stage": "round", "y": ["loss"]})
    page = {
        "title": f"{cfg.model} after {cfg.method}",
        "summary": said or ["The model has learned; nothing was answered (--eval-problems 0)."],
        "warnings": warnings(before),
        "comparisons": rows,
        "tables": error_tables(after, before),
        "drawings": list(drawings),
        "curves": [*budget_curves(after, before), *curves],
        "samples": pairs_shown(before, after),
        "data": dict(facts),
        "feedback": {
            "verifier": cfg.judge or "that of the model's run",
            **_kept(rounds),
            **told.get("selected", {}),
        },
    }
    return finish(page, result, run)


def pairs_shown(
    before: Mapping[str, Measured], after: Mapping[str, Measured], each: int = 6
) -> list[dict[str, Any]]:
    """Problems whose outcome changed, then others, with both streams."""
    shown = []
    for name, old in before.items():
        new = after[name]
        changed = (old.solved[:, 0] != new.solved[:, 0]).nonzero()[0].tolist()
        rest = [i for i in range(len(old.prompts)) if i not in set(changed)]
        for i in [*changed[:each], *rest[: each // 2]]:
            sides = {
                side: {"text": one.texts[i][0], "score": _score(one, i), "notes": one.reasons[i][0]}
                for side, one in (("before", old), ("after", new))
            }
            shown.append({"input": old.prompts[i], "group": name, **sides})
    return shown


def _surely(row: Mapping[str, Any]) -> str:
    if not row["interval"]:
        return ""
    low, high = row["interval"]
    zero = "excludes" if low > 0 or high < 0 else "includes"
    return f", a change of {100 * row['change']:+.1f} points (interval {100 * low:+.1f} to {100 * high:+.1f}, {zero} 0)"


def _kept(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    kept = [one["kept"] for one in rounds if "kept" in one]
    return {"streams imitated, by round": kept} if kept else {}


def finish_evaluation(
    cfg: Any,
    greedy: Mapping[str, Measured],
    tries: Mapping[str, Measured],
    facts: Mapping[str, Any],
    drawings: Sequence[Mapping[str, Any]],
    run: Run,
) -> dict[str, Any]:
    """The result and page of `heedful search eval`."""
    ks = [k for k in (1, 2, 4, 8, 16, 32, 64) if k < cfg.n] + ([cfg.n] if cfg.n else [])
    result = {"job": "search eval", "seed": cfg.seed, **flat(greedy)}
    for name, one in tries.items():
        result |= {f"{language.key_of(name)}_pass_at_{k}": round(float(one.pass_at(k).mean()), 6) for k in ks}
    for name, one in greedy.items():
        got = one.accuracy
        if got.known:
            result[f"{language.key_of(name)}_interval"] = [round(got.low, 6), round(got.high, 6)]
    tables = [accuracy_table(greedy)]
    if tries:
        tables.append(
            {**accuracy_table(tries, ks), "title": f"{cfg.n} streams at temperature {cfg.temperature}"}
        )
    page = {
        "title": f"{cfg.model} on held-out problems",
        "summary": sentences(greedy),
        "warnings": warnings(greedy),
        "tables": [*tables, *error_tables(greedy)],
        "drawings": list(drawings),
        "curves": budget_curves(greedy),
        "samples": examples(greedy),
        "columns": ["verdict", "stream"],
        "data": dict(facts),
    }
    return finish(page, result, run)
