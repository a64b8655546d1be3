"""What a run of `heedful act` leaves behind: the policy, result.json, report.json and report.html."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from heedful.atomic import write_file
from heedful.data.replay import ReplayBuffer
from heedful.data.transitions import TransitionTable
from heedful.evals import language
from heedful.evals.intervals import Interval
from heedful.recipes.act_agent import Agent, save_agent
from heedful.recipes.act_eval import Measured, Measurement
from heedful.recipes.act_methods import METHODS
from heedful.recipes.act_world import World
from heedful.report import write_report
from heedful.run import Run, read_metrics

if TYPE_CHECKING:
    from heedful.recipes.act import Config

LIMITS = [
    "Intervals are over episodes, for one seed of training. Train with other seeds before you conclude much.",
    "Changes compare the same seeded episodes; a policy that draws at random meets them with other luck each time.",
    "A critic knows what the data shows: actions that nobody tried are guesses, which is why --conservatism is there.",
]
FEW = 30
"""Episodes of an evaluation below which a warning says that little can be told."""
WINDOW = 10
"""Episodes over which what was collected is averaged in the plot."""
HOW = {"policy": "the policy alone", "search": "the critic's choice"}


def finish(
    cfg: Config,
    world: World,
    agent: Agent,
    measured: Measured,
    history: Sequence[Mapping[str, Any]],
    films: Sequence[str],
    run: Run,
) -> dict[str, Any]:
    """Save the policy, write result.json, report.json and report.html; returns the result."""
    save_agent(cfg, agent, run.path("model"))
    taken = measured.taken
    rows = _changes(measured)
    broken = [text for told in history for text in told["broken"]]
    gaps = _gaps(run)
    result: dict[str, Any] = {
        "job": "act",
        "method": cfg.method,
        "policy": cfg.policy,
        "seed": cfg.seed,
        "offline_episodes": 0 if world.offline is None else len(world.offline.ends),
        "online_episodes": history[-1]["episodes"] if history else 0,
        "online_steps": sum(told["steps"] for told in history),
        "broken_episodes": len(broken) + sum(len(m.broken) for m in taken),
    }
    for m in taken:
        for name in ("success", "return", "length"):
            if (interval := m.interval(name)) is not None:
                result[f"{language.key_of(m.label)}_{name}"] = round(interval.estimate, 6)
    if gaps:
        result["q_minus_return"] = round(gaps[-1], 6)
    page = {
        "job": "act",
        "title": f"{METHODS[cfg.method].about}: {cfg.policy}, {cfg.env or 'offline data alone'}",
        "summary": _summary(cfg, measured, rows),
        "warnings": [
            *world.warnings,
            *_warnings(taken, broken),
            *_optimism(cfg, world, history, run),
        ],
        "comparisons": rows,
        "tables": _tables(taken, history),
        "curves": _curves(taken, history),
        "data": {
            **world.facts,
            "observations": {n: list(s) for n, s in world.shapes.items()},
            "actions": f"{len(world.space.low)} numbers, {world.space.horizon} in a row",
        },
        "feedback": _feedback(cfg, history, gaps, films),
        "limits": LIMITS,
    }
    for name, value in (("report.json", page), ("result.json", result)):
        write_file(run.path(name), (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode())
    write_report(run.folder)
    return result


def _changes(measured: Measured) -> list[dict[str, Any]]:
    """First against last: of the policy alone, and of what acts against the clone."""
    policies = [m for m in measured.taken if m.how == "policy"]
    searches = [m for m in measured.taken if m.how == "search"]
    pairs: list[tuple[str, Measurement, Measurement]] = []
    if len(policies) > 1:
        pairs.append(("the policy alone", policies[0], policies[-1]))
    if searches and policies:
        pairs.append(("with the critic's choice, against the clone alone", policies[0], searches[-1]))
    if len(searches) > 1:
        pairs.append(("the critic's choice", searches[0], searches[-1]))
    rows = []
    for what, first, last in pairs:
        note = f"{first.label} → {last.label}"
        for name, title, unit in (("success", "success rate", "share"), ("return", "return", "")):
            before, after = first.column(name), last.column(name)
            shared = [seed for seed in before if seed in after]
            if not shared:
                continue
            rows.append(
                language.row(
                    f"{title}, {what}",
                    [before[s] for s in shared],
                    [after[s] for s in shared],
                    better="higher",
                    unit=unit,
                    note=note,
                )
            )
    return rows


def _summary(cfg: Config, measured: Measured, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if not measured.taken:
        return ["The policy is trained; nothing was measured, for that takes --env and --eval-episodes."]
    said = []
    for m in measured.taken:
        rate = m.interval("success")
        value = m.interval("return")
        assert value is not None
        what = f"return {value.estimate:.4g}{_ends(value)}"
        if rate is not None:
            what = f"{rate.estimate:.1%} success{_ends(rate, percent=True)}, {what}"
        said.append(f"{m.label[0].upper()}{m.label[1:]} ({HOW[m.how]}): {what}.")
    for row in rows[:1]:
        if row["interval"]:
            low, high = row["interval"]
            sure = "excludes" if low > 0 or high < 0 else "includes"
            scale, unit = (100, " points") if row["unit"] == "share" else (1, "")
            said.append(
                f"Change of {row['name']}: {scale * row['change']:+.3g}{unit} (interval {scale * low:+.3g} to "
                f"{scale * high:+.3g}, {sure} 0)."
            )
    return said


def _ends(interval: Interval, *, percent: bool = False) -> str:
    if not interval.known:
        return ""
    if percent:
        return f" (interval {interval.low:.1%} to {interval.high:.1%})"
    return f" (interval {interval.low:.4g} to {interval.high:.4g})"


def _warnings(taken: Sequence[Measurement], broken: Sequence[str]) -> list[str]:
    said = []
    if not taken:
        said.append("Nothing was measured: whether the policy is any better than the data is not known.")
    elif len(taken[-1].episodes) < FEW:
        said.append(
            f"An evaluation of {len(taken[-1].episodes)} episodes tells little; take --eval-episodes 50 or more."
        )
    if taken and taken[-1].interval("success") is None:
        said.append(
            "The environment does not say what a success is; only returns are compared (or give --sparse)."
        )
    everywhere = [*broken, *(text for m in taken for text in m.broken)]
    if everywhere:
        said.append(
            f"The environment broke in {len(everywhere)} episodes, which were dropped; the first: {everywhere[0]}."
        )
    return said


def _optimism(cfg: Config, world: World, history: Sequence[Mapping[str, Any]], run: Run) -> list[str]:
    """Warns of each phase at whose end the critic's batches were worth more than any return reached by then."""
    tables = [world.offline] if world.offline is not None else []
    said = []
    for phase in ("offline", "online"):
        if phase == "online" and history and history[-1]["episodes"]:
            buffer = ReplayBuffer(run.path("online/replay"), world.shapes, len(world.space.low))
            tables.append(TransitionTable(buffer, world.space, world.rewards))
        gaps = _gaps(run, f"{phase}/")
        if not gaps or not tables:
            continue
        shares = [1.0] if len(tables) == 1 else [cfg.mixing, 1 - cfg.mixing]
        reached = sum(s * float(table.mc_return.mean()) for s, table in zip(shares, tables, strict=True))
        most = max(float(table.mc_return.max()) for table in tables)
        if gaps[-1] + reached > most:
            said.append(
                f"{phase.capitalize()}, the critic values the data's actions above any return that was reached "
                f"({most:.4g}): it is too optimistic. More --members or --conservatism, or --critic iql, may help."
            )
    return said


def _gaps(run: Run, phase: str = "") -> list[float]:
    rows = (row for row in read_metrics(run.folder) if row["stage"].startswith(phase))
    return [row["q_minus_return"] for row in rows if isinstance(row.get("q_minus_return"), float)]


def _tables(taken: Sequence[Measurement], history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for m in taken:
        rate, value, length = m.interval("success"), m.interval("return"), m.interval("length")
        assert value is not None and length is not None
        rows.append(
            [
                m.label,
                HOW[m.how],
                len(m.episodes),
                f"{rate.estimate:.1%}" if rate else "not said",
                f"{rate.low:.1%} to {rate.high:.1%}" if rate and rate.known else "",
                f"{value.estimate:.4g}",
                f"{value.low:.4g} to {value.high:.4g}" if value.known else "",
                f"{length.estimate:.1f}",
                len(m.broken),
            ]
        )
    columns = ["when", "who acts", "episodes", "success", "interval", "return", "interval", "steps", "broken"]
    tables = [{"title": "Measurements", "columns": columns, "rows": rows}] if rows else []
    if history:
        told = {
            "episodes tried": history[-1]["tried"],
            "kept": history[-1]["episodes"],
            "steps": sum(one["steps"] for one in history),
            "broken": sum(len(one["broken"]) for one in history),
        }
        tables.append({"title": "Collected online", "columns": list(told), "rows": [list(told.values())]})
    return tables


def _curves(taken: Sequence[Measurement], history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    curves: list[dict[str, Any]] = []
    for key, title in (("success", "success rate online"), ("returns", "return online")):
        values = [float(v) for told in history for v in told[key]]
        lines = {}
        if values and (key == "returns" or len(values) == sum(len(told["returns"]) for told in history)):
            means = [np.mean(values[max(0, i - WINDOW + 1) : i + 1]) for i in range(len(values))]
            lines[f"collected, mean of {WINDOW}"] = [[i + 1, float(v)] for i, v in enumerate(means)]
        measured = [
            [int(m.label.split()[1]), interval.estimate]
            for m in taken
            if m.label.startswith("after ")
            and (interval := m.interval(key.removesuffix("s") if key == "returns" else key))
        ]
        if measured:
            lines["measured"] = measured
        if lines:
            curves.append({"title": title, "x": "episodes", "lines": lines})
    return [
        *curves,
        {"title": "loss of cloning", "stage": "clone", "y": ["loss"]},
        {"title": "critic offline: loss", "stage": "offline/", "y": ["td_error"]},
        {
            "title": "critic: value of the data's actions less the return reached",
            "stage": "offline/",
            "y": ["q_minus_return"],
            "note": "a better policy earns more than the data did; far more is optimism",
        },
        {"title": "how much climbing raises a candidate", "stage": "offline/", "y": ["search_gain"]},
    ]


def _feedback(
    cfg: Config, history: Sequence[Mapping[str, Any]], gaps: Sequence[float], films: Sequence[str]
) -> dict[str, Any]:
    told: dict[str, Any] = {
        "critic": cfg.critic if METHODS[cfg.method].critic == "" else METHODS[cfg.method].critic
    }
    if gaps:
        told["value of the data's actions less the return reached, first and last"] = [
            round(gaps[0], 4),
            round(gaps[-1], 4),
        ]
    if history:
        told["episodes collected online"] = history[-1]["episodes"]
    if films:
        told["films"] = [f"video/{name}" for name in films]
    return told
