"""What runs of `heedful correct train` and `learn` leave behind: result.json, report.json and report.html."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heedful.atomic import write_file
from heedful.evals import language
from heedful.recipes.correct_eval import measures, stage_success
from heedful.report import write_report
from heedful.run import Run, read_metrics

if TYPE_CHECKING:
    from heedful.recipes.correct import Config
    from heedful.recipes.correct_high import Lessons
    from heedful.recipes.correct_learn import Learn, Taught
    from heedful.recipes.correct_low import Demos
    from heedful.recipes.correct_models import Talker

FEW = 30
LIMITS = [
    "Intervals are over episodes, for one seed of training. Train with other seeds before you conclude much.",
    "What the low level never learned cannot be asked of it: corrections improve what is said, not what is done.",
    "A simulated person, table and camera stand for real ones in everything measured here.",
]
Rows = Sequence[Mapping[str, Any]]


def finish_training(
    cfg: Config, demos: Demos, talker: Talker, lessons: Lessons, taken: Rows, run: Run
) -> dict[str, Any]:
    """Write what `correct train` has to say; returns result.json."""
    bank = talker.high.bank
    result: dict[str, Any] = {
        "job": "correct train",
        "seed": cfg.seed,
        "episodes": len(demos.narrated.segments),
        "steps": demos.steps,
        "held_out_episodes": len(demos.held),
        "segments": sum(map(len, demos.kept)),
        "segments_left_out": sum(demos.dropped.values()),
        "lessons": len(lessons),
        "wordings": len(bank),
        "commands": len(talker.snapper.bank),
        **_held_out(run),
        **_measured(taken),
    }
    summary = [
        f"The low level learned {result['segments']} segments of {result['episodes']} episodes; "
        f"{result['segments_left_out']} were left out ({_counted(demos.dropped)}).",
        *_said_held_out(result),
        *_said_measured("The pair by itself", taken),
    ]
    page = {
        "job": "correct train",
        "title": f"Narrated demonstrations: {cfg.low}, {len(talker.snapper.bank)} commands",
        "summary": summary,
        "warnings": _warnings(taken, talker),
        "tables": [*_stages(taken), _commands(talker)],
        "curves": CURVES,
        "data": {
            "demonstrations": str(demos.narrated.episodes.path),
            "frames a second": demos.narrated.fps,
            "cameras": dict(demos.narrated.cameras),
            "neither level learned from episodes": list(demos.held),
        },
        "limits": LIMITS,
    }
    return _write(run, result, page)


def finish_learning(
    cfg: Learn, talker: Talker, taught: Taught, before: Rows, after: Rows, run: Run
) -> dict[str, Any]:
    """Write what `correct learn` has to say; returns result.json."""
    result: dict[str, Any] = {
        "job": "correct learn",
        "seed": cfg.seed,
        "round": taught.round,
        "corrections": len(taught.used),
        "lessons": taught.lessons,
        "clips_refused": len(taught.refused),
        "not_accepted": sum(taught.left.values()),
        "new_wordings": len(taught.new),
        "wordings": len(talker.high.bank),
        **_held_out(run),
        **{f"before_{name}": value for name, value in _measured(before).items()},
        **_measured(after),
    }
    summary = [
        f"Round {taught.round}: the high level learned from {len(taught.used)} corrections ({taught.lessons} moments), "
        f"{cfg.ratio:.0%} of each step; the low level stayed as it was.",
        *_said_held_out(result),
        *_said_measured("Before", before),
        *_said_measured("After", after),
    ]
    left = [f"{count} {what}" for what, count in taught.left.items()]
    warnings = [f"Refused: {text}." for text in taught.refused]
    warnings += [f"Corrections that were not learned from: {', '.join(left)}."] if left else []
    page = {
        "job": "correct learn",
        "title": f"Corrections, round {taught.round}",
        "summary": summary,
        "warnings": [*warnings, *_warnings(after, talker)],
        "comparisons": _changes(before, after),
        "tables": [*_stages(after), _corrections(taught)],
        "curves": CURVES,
        "data": {"run before": cfg.run, "corrections": cfg.corrections, "new wordings": list(taught.new)},
        "limits": LIMITS,
    }
    return _write(run, result, page)


def tell(cfg: Any, result: Mapping[str, Any]) -> None:
    """What a finished run says in the terminal."""
    if cfg.json:
        print(json.dumps(result, ensure_ascii=False))
    elif not cfg.quiet:
        from heedful.recipes.plan import closing

        print(closing(Path(cfg.out), {}))


CURVES: list[dict[str, Any]] = [
    {"title": "low level: loss", "stage": "low", "y": ["loss", "held_out_loss"]},
    {"title": "high level: loss", "stage": "high", "y": ["loss", "held_out_loss"]},
    {"title": "high level: how often it is right", "stage": "high", "y": ["accuracy", "held_out_accuracy"]},
    {"title": "high level: temperature", "stage": "high", "y": ["temperature"]},
]


def _write(run: Run, result: dict[str, Any], page: dict[str, Any]) -> dict[str, Any]:
    for name, value in (("report.json", page), ("result.json", result)):
        write_file(run.path(name), (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode())
    write_report(run.folder)
    return result


def _held_out(run: Run) -> dict[str, float]:
    """The last measures on held-out episodes, by stage."""
    found: dict[str, float] = {}
    for row in read_metrics(run.folder):
        for name, value in row.items():
            if name.startswith("held_out") and isinstance(value, float):
                found[f"{row['stage']}_{name}"] = round(value, 6)
    return found


def _measured(rows: Rows) -> dict[str, float]:
    if not rows:
        return {}
    return {
        "success": round(sum(bool(r["success"]) for r in rows) / len(rows), 6),
        "stage_success": round(stage_success(rows), 6),
        "eval_episodes": len(rows),
    }


def _said_held_out(result: Mapping[str, Any]) -> list[str]:
    if "high_held_out_accuracy" not in result:
        return []
    return [
        f"On episodes it did not learn from, the high level says the right command at "
        f"{result['high_held_out_accuracy']:.1%} of moments, and the very words at "
        f"{result['high_held_out_words_accuracy']:.1%}."
    ]


def _said_measured(who: str, rows: Rows) -> list[str]:
    if not rows:
        return []
    whole = measures(rows)["success"]
    ends = " (interval {:.1%} to {:.1%})".format(*whole["interval"]) if whole["interval"] else ""
    return [
        f"{who}: the whole task in {whole['estimate']:.1%} of {len(rows)} episodes{ends}; a stage that was begun was "
        f"done in {stage_success(rows):.1%}."
    ]


def _warnings(taken: Rows, talker: Talker) -> list[str]:
    if talker.making.world is None:
        return [
            "Nothing was measured: the demonstrations are not of PackTable. Try the pair on its own robot."
        ]
    if not taken:
        return ["Nothing was measured: --eval-episodes is 0; `heedful correct eval` can do it."]
    few = f"An evaluation of {len(taken)} episodes tells little; take --eval-episodes 50 or more."
    return [few] if len(taken) < FEW else []


def _stages(rows: Rows) -> list[dict[str, Any]]:
    if not rows:
        return []
    cells = [
        [
            name,
            f"{v['estimate']:.1%}",
            "{:.1%} to {:.1%}".format(*v["interval"]) if v["interval"] else "",
            v["n"],
        ]
        for name, v in measures(rows).items()
    ]
    columns = ["stage", "done", "interval", "episodes"]
    return [{"title": "Stages", "columns": columns, "rows": cells}]


def _commands(talker: Talker) -> dict[str, Any]:
    aliases = talker.making.aliases
    rows = [
        [command, "; ".join(t for t in talker.high.bank if aliases.get(t) == command and t != command)]
        for command in talker.snapper.bank
    ]
    return {"title": "Commands", "columns": ["command", "other wordings"], "rows": rows, "text": True}


def _corrections(taught: Taught) -> dict[str, Any]:
    rows = [
        [
            row.id,
            row.episode,
            row.words,
            row.command,
            row.overridden,
            "{} to {}".format(*(row.clip or ("", ""))),
        ]
        for row in taught.used
    ]
    columns = ["correction", "episode", "words", "command", "in place of", "steps"]
    return {"title": "Corrections learned from", "columns": columns, "rows": rows, "text": True}


def _changes(before: Rows, after: Rows) -> list[dict[str, Any]]:
    shared = [(b, a) for b, a in zip(before, after, strict=False) if b["seed"] == a["seed"]]
    if not shared:
        return []
    pairs = {
        "success rate": [(float(b["success"]), float(a["success"])) for b, a in shared],
        "stages done": [
            tuple(sum(map(bool, r["stages"].values())) / len(r["stages"]) for r in pair) for pair in shared
        ],
    }
    return [
        language.row(name, [b for b, _ in values], [a for _, a in values], better="higher", unit="share")
        for name, values in pairs.items()
    ]


def _counted(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in reasons.items()) or "none"
