"""What `heedful critique` leaves behind: result.json, the report, and the sentence that a user needs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heedful.atomic import write_file, writing
from heedful.evals import language
from heedful.evals.intervals import Interval
from heedful.policies.calls import usage
from heedful.recipes.critique_arms import ARMS, FULL, Learned
from heedful.recipes.critique_data import Data
from heedful.recipes.critique_eval import BASE, GAPS, Measured, Tried
from heedful.report import write_report
from heedful.report_values import model_title
from heedful.run import Run

if TYPE_CHECKING:
    from heedful.recipes.critique import Config
    from heedful.recipes.critique_roles import Roles

SHOWN = 6
"""Samples of each arm side by side with the baseline's."""
BETTER, WORSE, OPEN = "imitation", "feedback", "undecided"
LIMITS = [
    "Numbers are of the held-out prompts of this run, and of this evaluator; another one may order the arms otherwise. "
    "Run the same command with another --evaluator: the models are not learned again.",
    "Intervals are over prompts, for one seed of training.",
    "The length-controlled win rate takes out what a logistic regression on the difference of lengths explains, and "
    "nothing else that a judge may like for the wrong reason.",
    "The arms' answers end at --max-new-tokens; answers of a baseline or a teacher that is a file do not.",
    "The budget is counted in prompts. AI feedback draws and compares samples on top, imitation needs the critic to "
    "write whole answers; what each of the two costs is in the table of calls, not in the comparison.",
]


def finish(
    cfg: Config,
    data: Data,
    roles: Roles,
    learned: dict[str, Learned],
    tried: dict[str, Tried],
    measured: Measured,
    run: Run,
) -> dict[str, Any]:
    """Write heldout.jsonl, result.json, report.json and report.html; returns the result."""
    result = numbers(cfg, data, learned, tried, measured)
    summary = sentences(data, roles, learned, measured)
    page = {
        "title": f"{model_title(cfg.model)}: AI feedback or imitation of the critic",
        "job": "critique",
        "summary": summary,
        "warnings": warnings(cfg, data, roles, learned, tried, measured),
        "comparisons": comparisons(measured),
        "cards": [ARMS[name].about for name in ("teacher_sft", "feedback", "critic_sft", "critic_feedback")],
        "curves": [
            {"title": "loss of imitation", "stage": "arms/critic_sft", "y": ["loss"]},
            {"title": "loss of imitation, teacher", "stage": "arms/teacher_sft", "y": ["loss"]},
            {"title": "implicit rewards", "stage": f"arms/feedback/{cfg.method}", "y": ["h_w", "h_l"]},
            {"title": "preference accuracy", "stage": f"arms/feedback/{cfg.method}", "y": ["accuracy"]},
        ],
        "samples": [
            sample for name in FULL if name in measured.wins for sample in samples(name, data, measured)
        ],
        "data": {
            "prompts": cfg.prompts or cfg.teacher,
            "training prompts (the budget of each full arm)": len(data.train),
            "of them for the start": len(data.start),
            "held-out prompts": len(data.held),
            **{f"budget: {ARMS[name].about}": budget(learned[name]) for name in learned},
            **data.facts,
        },
        "feedback": {
            **{role.replace("_", " "): roles.name(role) for role in _ROLES},
            **{
                f"the critic's answers win against the teacher's, says the {role}": _told(found.wins)
                for role, found in tried.items()
            },
            **{
                f"{ARMS[name].about}: {key.replace('_', ' ')}": value
                for name in learned
                for key, value in learned[name].counts.items()
            },
            **{f"evaluator: {key.replace('_', ' ')}": value for key, value in measured.counts.items()},
            **{f"calls: {row['role']} ({row['model']})": _calls(row) for row in usage(run)},
        },
        "limits": LIMITS,
    }
    if run.rank == 0:
        held = [
            row for name in ("feedback",) if name in measured.wins for row in rows_of(name, data, measured)
        ]
        _write(run, "heldout.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in held))
        _write(run, "report.json", json.dumps(page, ensure_ascii=False, indent=1))
        _write(run, "result.json", json.dumps(result, ensure_ascii=False, indent=1))
        _point_to_best(measured, run)
        write_report(run.folder)
    return result


_ROLES = ("teacher", "critic", "critic_answers", "evaluator", "baseline")


def _write(run: Run, name: str, text: str) -> None:
    write_file(run.path(name), (text.rstrip("\n") + "\n").encode() if text else b"")


def _point_to_best(measured: Measured, run: Run) -> None:
    """`model` in the run folder is a link to the arm with the highest win rate, so that the run's name loads it."""
    best = max(
        (name for name in measured.wins if name != BASE), key=lambda name: measured.wins[name].estimate
    )
    link, beside = run.path("model"), run.path(".model.tmp")
    with writing(link):
        beside.unlink(missing_ok=True)
        os.symlink(Path("arms") / best / "model", beside)
        os.replace(beside, link)


# ---- numbers


def numbers(
    cfg: Config, data: Data, learned: dict[str, Learned], tried: dict[str, Tried], measured: Measured
) -> dict[str, Any]:
    """result.json: flat; shares are fractions, an interval that is not known is left out."""
    result: dict[str, Any] = {
        "job": "critique",
        "method": cfg.method,
        "seed": cfg.seed,
        "budget_prompts": len(data.train),
        "start_prompts": len(data.start),
        "held_out_prompts": len(data.held),
    }
    for name in measured.wins:
        _add(result, f"{name}_win", measured.wins[name])
        _add(result, f"{name}_lc_win", measured.controlled[name])
        result[f"{name}_words"] = round(measured.words[name], 3)
    for (a, b), (plain, controlled) in measured.gaps.items():
        _add(result, f"{b}_minus_{a}", plain)
        _add(result, f"{b}_minus_{a}_lc", controlled)
    if ("feedback", "critic_sft") in measured.gaps:
        result["better"] = decision(measured.gaps["feedback", "critic_sft"][0])
    for role, found in tried.items():
        if found.wins is not None:
            _add(result, f"critic_over_teacher_{role}", found.wins)
    for name, arm in learned.items():
        result[f"{name}_prompts"] = arm.imitated + arm.asked
        result[f"{name}_rows"] = arm.rows
        result |= {f"{name}_{key}": value for key, value in arm.counts.items()}
    result |= {f"evaluator_{key}": value for key, value in measured.counts.items()}
    return result


def _add(result: dict[str, Any], name: str, interval: Interval) -> None:
    result[name] = round(interval.estimate, 6)
    if interval.known:
        result[f"{name}_low"], result[f"{name}_high"] = round(interval.low, 6), round(interval.high, 6)


def decision(gap: Interval) -> str:
    """Which of the two the win rate of imitation less that of AI feedback speaks for; `undecided` where its interval
    includes 0 or is not known."""
    if not gap.excludes_zero:
        return OPEN
    return BETTER if gap.estimate > 0 else WORSE


# ---- words


def sentences(data: Data, roles: Roles, learned: dict[str, Learned], measured: Measured) -> list[str]:
    """The sentence a user needs, and the numbers behind it."""
    said = []
    if ("feedback", "critic_sft") in measured.gaps:
        said.append(verdict(measured, len(data.held)))
    for name in FULL:
        if name in measured.wins:
            said.append(
                f"{_first_upper(ARMS[name].about)}: wins {_told(measured.wins[name])} against "
                f"{roles.name('baseline')}, {_told(measured.controlled[name])} at equal length."
            )
    if ("critic_feedback", "critic_sft") in measured.gaps:
        plain, _ = measured.gaps["critic_feedback", "critic_sft"]
        said.append(
            "After a strong start AI feedback and imitation of the critic "
            + {
                BETTER: "differ in favour of imitation",
                WORSE: "differ in favour of AI feedback",
                OPEN: "cannot be told apart",
            }[decision(plain)]
            + f" (imitation less AI feedback: {_points(plain)})."
        )
    if not unequal(data, learned):
        said.append(f"Each full arm used the same {len(data.train)} prompts once.")
    return said


def unequal(data: Data, learned: dict[str, Learned]) -> str:
    """What a file of verdicts lacks for the budgets to be equal; "" where it lacks nothing."""
    lacking = max((arm.counts.get("prompts_without_verdict", 0) for arm in learned.values()), default=0)
    if not lacking:
        return ""
    return (
        f"The budgets are not equal: the critic's file has verdicts on {len(data.rest) - lacking} of the "
        f"{len(data.rest)} prompts that AI feedback is for, imitation used all {len(data.train)} prompts."
    )


def verdict(measured: Measured, prompts: int) -> str:
    """With this teacher, critic and base, imitation of the critic is / is not as good as AI feedback."""
    gap, controlled = measured.gaps["feedback", "critic_sft"]
    about = f"win rate of imitation less that of AI feedback {_points(gap)}, at equal length {_points(controlled)}"
    start = "With this teacher, critic and base, "
    if decision(gap) == BETTER:
        return f"{start}imitation of the critic is as good as AI feedback, and better ({about})."
    if decision(gap) == WORSE:
        return f"{start}imitation of the critic is not as good as AI feedback ({about})."
    return (
        f"{start}{prompts} held-out prompts do not decide whether imitation of the critic is as good as AI feedback "
        f"({about})."
    )


def warnings(
    cfg: Config,
    data: Data,
    roles: Roles,
    learned: dict[str, Learned],
    tried: dict[str, Tried],
    measured: Measured,
) -> list[str]:
    """What a reader must know before believing the numbers."""
    found = []
    if roles.source("critic") == roles.source("evaluator"):
        found.append(
            "Critic and evaluator are the same: AI feedback was learned from the very judge that compares the arms, "
            "which favours it. Give another --evaluator."
        )
    if ("feedback", "critic_sft") in measured.gaps:
        plain, controlled = measured.gaps["feedback", "critic_sft"]
        if plain.estimate * controlled.estimate < 0:
            found.append(
                "The difference between imitation and AI feedback changes its sign at equal length: the longer answers "
                "explain it."
            )
    critic = tried.get("critic")
    if critic is not None and critic.wins is not None and critic.wins.estimate <= 0.5:
        found.append(
            f"The critic does not prefer its own answers to the teacher's (they win {critic.wins.estimate:.0%}): there "
            "is little to gain from imitating it."
        )
    short = unequal(data, learned)
    if short:
        found.append(f"{short} Add the missing verdicts, or leave these prompts out of --prompts.")
    for name, arm in learned.items():
        if arm.asked and arm.rows < arm.asked / 2:
            found.append(
                f"{ARMS[name].about}: of {arm.asked} prompts only {arm.rows} gave a pair to learn from "
                "(see the counts under Feedback)."
            )
    unknown = measured.counts.get("no_opinion", 0)
    compared = sum(len(row) for scores in measured.scores.values() for row in scores)
    if unknown > compared / 10:
        found.append(f"The evaluator had no opinion on {unknown} of {compared} answers; they are left out.")
    return [*found, *([measured.missing] if measured.missing else [])]


def comparisons(measured: Measured) -> list[dict[str, Any]]:
    """Rows of report.json: every arm's win rate, plain and at equal length, and the differences behind the verdict."""
    rows = []
    for name, win in measured.wins.items():
        about = _about(name)
        note = f"against the baseline, ties count half; answers of {measured.words[name]:.0f} words"
        rows.append(language.interval_row(about, 0.5, win.shifted(-0.5), "higher", "share", note))
        rows.append(
            language.interval_row(
                f"{about} (equal length)", 0.5, measured.controlled[name].shifted(-0.5), "higher", "share", ""
            )
        )
    for a, b in [pair for pair in measured.gaps if pair in GAPS[:4]]:
        plain, controlled = measured.gaps[a, b]
        for gap, wins, how in (
            (plain, measured.wins, ""),
            (controlled, measured.controlled, " (equal length)"),
        ):
            name = f"from {_about(a)} to {_about(b)}{how}"
            rows.append(
                language.interval_row(name, wins[a].estimate, gap, "none", "share", "paired by prompt")
            )
    return rows


def _about(name: str) -> str:
    return "the base" if name == BASE else ARMS[name].about


def _first_upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _told(interval: Interval | None) -> str:
    if interval is None:
        return "unknown"
    if not interval.known:
        return f"{interval.estimate:.0%}"
    return f"{interval.estimate:.0%} ({interval.low:.0%} to {interval.high:.0%})"


def _points(gap: Interval) -> str:
    if not gap.known:
        return f"{100 * gap.estimate:+.0f} points"
    return f"{100 * gap.estimate:+.0f} points ({100 * gap.low:+.0f} to {100 * gap.high:+.0f})"


def budget(arm: Learned) -> str:
    """What an arm used, in words."""
    if not arm.asked:
        return f"{arm.imitated} answers imitated"
    return f"{arm.imitated} answers imitated, then verdicts on {arm.asked} prompts ({arm.rows} pairs)"


def _calls(row: dict[str, Any]) -> str:
    tokens = f"{row['prompt_tokens']:,} prompt and {row['completion_tokens']:,} completion tokens"
    return f"{row['calls']:,} calls, {tokens}, {row['unparsable']} unreadable"


# ---- samples


def rows_of(name: str, data: Data, measured: Measured) -> list[dict[str, Any]]:
    """Rows of heldout.jsonl for an arm: before is the baseline's answer, after the arm's; scores are who won."""
    texts, wins = measured.texts[name], measured.scores[name]
    return language.heldout_rows(
        data.held,
        [[base] * len(mine) for base, mine in zip(measured.baseline, texts, strict=True)],
        texts,
        [[1 - p for p in row] for row in wins],
        wins,
    )


def samples(name: str, data: Data, measured: Measured) -> list[dict[str, Any]]:
    """Some answers of an arm beside the baseline's, wins and losses."""
    return language.pick_samples(rows_of(name, data, measured), SHOWN, ARMS[name].about)
