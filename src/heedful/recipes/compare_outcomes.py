"""What the runs of a comparison have come to: scores by seed and prompt, mean numbers, curves.

Letters: S seeds, P held-out prompts, N samples of a prompt, K held-out pairs (of all seeds, one after the other).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heedful.errors import HeedfulError
from heedful.evals.intervals import per_prompt
from heedful.recipes.compare_arms import Choice, Ran, Work, granted, run_config, start
from heedful.recipes.compare_plan import Arm
from heedful.run import read_metrics

Array = NDArray[np.float64]
AVERAGED = (
    "judge_score_after",
    "win_rate_after",
    "gold_score_after",
    "kl",
    "answer_length_after",
    "h_w",
    "h_l",
)
AVERAGED += ("preference_accuracy", "steps")
"""Numbers of prefer's result.json that are averaged over seeds."""


@dataclass
class Outcome:
    """A method after all its runs; the arrays are empty where it failed."""

    arm: Arm
    choice: Choice
    failed: str = ""
    scores: Array = field(default_factory=lambda: np.zeros((0, 0)))
    """(S, P): the judge's mean score of a prompt's answers."""
    gold: Array | None = None
    """(S, P): that of --gold."""
    rewards: Array | None = None
    """(K, 2): log policy less log reference of chosen and rejected; of methods that contrast the two."""
    numbers: dict[str, float] = field(default_factory=dict)
    """Means over seeds: those of `AVERAGED`, and seconds, samples and reward_queries of a run."""
    warnings: list[str] = field(default_factory=list)
    curve: list[dict[str, float]] = field(default_factory=list)
    """Means over seeds along the way: step, samples (drawn, or taken from --data), seconds, score, gold."""
    folders: list[Path] = field(default_factory=list)


@dataclass
class Start:
    """The start model on the reported prompts; scores as in `Outcome`, by the same seeds."""

    scores: Array
    gold: Array | None
    probe: Array
    """(P, N): the judge's scores of --best-of samples."""
    pairs: list[dict[str, Any]]
    """K rows of `compare_pairs.closeness`, with the seed."""


def collect(work: Work, arm: Arm, choice: Choice, runs: Sequence[Ran]) -> Outcome:
    """Read what the runs of a method left. It has failed when its choice of a rate has, or any reported run."""
    failed = choice.failed or next((ran.failed for ran in runs if ran.failed), "")
    made = Outcome(arm, choice, failed, folders=[ran.folder for ran in runs])
    if failed:
        return made
    made.scores = np.stack([scores_of(ran.folder / "after/feedback.jsonl") for ran in runs])
    if work.cfg.gold:
        made.gold = np.stack([scores_of(ran.folder / "after/gold.jsonl") for ran in runs])
    if arm.contrastive:
        rewards = [row for ran in runs for row in json.loads((ran.folder / "pair_rewards.json").read_bytes())]
        made.rewards = np.array(rewards, dtype=float).reshape(-1, 2)
    results = [ran.result for ran in runs]
    for name in AVERAGED:
        if all(name in result for result in results):
            made.numbers[name] = float(np.mean([result[name] for result in results]))
    if len(results) == 1 and "kl_low" in results[0]:
        made.numbers |= {name: results[0][name] for name in ("kl_low", "kl_high")}
    curves = [_curve(work, arm, choice.rate, ran) for ran in runs]
    made.curve = [
        {name: float(np.mean([point[name] for point in points])) for name in points[0]}
        for points in zip(*curves, strict=True)
    ]
    made.numbers |= _costs(runs)
    reports = [json.loads((ran.folder / "report.json").read_bytes()) for ran in runs]
    made.warnings = list(dict.fromkeys(text for report in reports for text in report["warnings"]))
    return made


def start_of(work: Work) -> Start:
    """Read the start model's answers to the reported prompts."""
    folders = [start(work, "test", seed) for seed in work.seeds]
    gold = [scores_of(folder / "before/gold.jsonl") for folder in folders] if work.cfg.gold else []
    return Start(
        np.stack([scores_of(folder / "before/feedback.jsonl") for folder in folders]),
        np.stack(gold) if gold else None,
        np.array(_scores(folders[0] / "probe/feedback.jsonl"), dtype=float),
        [
            {**row, "seed": seed}
            for seed, folder in zip(work.seeds, folders, strict=True)
            for row in json.loads((folder / "before/pairs.json").read_bytes())
        ],
    )


def scores_of(path: Path) -> Array:
    """(P,): the mean of each prompt's scores in a feedback file; NaN where nobody had an opinion."""
    return per_prompt(_scores(path))


def _scores(path: Path) -> list[list[float | None]]:
    try:
        return [json.loads(line)["score"] for line in path.read_bytes().splitlines()]
    except (OSError, ValueError, KeyError) as error:
        raise HeedfulError(f"{path} cannot be read ({error}); start anew in another folder") from error


def _curve(work: Work, arm: Arm, rate: float, ran: Ran) -> list[dict[str, float]]:
    """The points of one run: the start model, every measurement, the end."""
    cfg, rows = run_config(work, arm, rate, ran.seed, "test"), list(read_metrics(ran.folder))
    driver = {row["step"]: row for row in rows if row.get("stage") == "driver"}
    held = {row["step"]: row for row in rows if row.get("stage") == "held-out"}
    result = ran.result
    held[cfg.rounds] = {
        "judge_score": result["judge_score_after"],
        "gold_score": result.get("gold_score_after"),
    }
    per_round = granted(work, arm).prompts_per_round
    points = [{"step": 0.0, "samples": 0.0, "seconds": 0.0, "score": float(result["judge_score_before"])}]
    if work.cfg.gold:
        points[0]["gold"] = float(result["gold_score_before"])
    for r in sorted(held):
        samples = driver[r]["samples_used"] if arm.online else 2 * per_round * r
        point = {"step": r * cfg.max_steps, "samples": samples, "seconds": driver[r]["seconds"]}
        point["score"] = held[r]["judge_score"]
        if work.cfg.gold:
            point["gold"] = held[r]["gold_score"]
        points.append({name: np.nan if value is None else float(value) for name, value in point.items()})
    return points


def _costs(runs: Sequence[Ran]) -> dict[str, float]:
    """Means over seeds of what a run has used when it ends."""
    last = [[row for row in read_metrics(ran.folder) if row.get("stage") == "driver"][-1] for ran in runs]
    names = {"seconds": "seconds", "samples": "samples_used", "reward_queries": "reward_queries"}
    return {name: float(np.mean([row[theirs] for row in last])) for name, theirs in names.items()}
