"""The pages of `heedful personalize`: what a fit has made, and what is known of the person since.

Letters: K heads, P pairs of the pool, n labels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from heedful.evals.intervals import Interval, share
from heedful.judges.probes import Array
from heedful.judges.reweighting_diagnosis import Used
from heedful.recipes.audit_advice import percent, span
from heedful.recipes.audit_report import plain
from heedful.recipes.personalize_data import population, write_json
from heedful.recipes.personalize_person import PAGE, write_page
from heedful.recipes.personalize_targets import ARM_NAMES

if TYPE_CHECKING:
    from heedful.recipes.personalize import Config
    from heedful.recipes.personalize_data import Data, Featured
    from heedful.run import Run

LIMITS = [
    "A personal reward is no better than its heads: what no head tells apart cannot be learned from a few labels.",
    "The pool's labels are the file's, not a person's: accuracy on the pool says how well the heads learned the crowd.",
    "Pairs that were chosen because they tell most are no random sample: accuracy on labels left out is not that on "
    "other pairs.",
]
TARGET_LIMIT = (
    "Intervals over distributions treat them as a sample of distributions; the draws of one share its pairs. Of a "
    "published reward model it is not known which of these pairs its own training has seen."
)


# ---- the fit


def measure(cfg: Config, data: Data, made: Featured, run: Run) -> dict[str, Any]:
    """How well the heads know the crowd: on the pool, by the labels of the files, before any label of a person."""
    from heedful.judges.personal import PersonalReward
    from heedful.recipes.personalize_store import HEADS

    reward = PersonalReward.load(run.path(HEADS))
    said = 2 * population(data) - 1
    prompts = [json.dumps(row["prompt"], sort_keys=True) for row in run.once("pool.jsonl", list)]
    margins = reward.head_scores(made.first) - reward.head_scores(made.second)
    both_ways = _cancel(margins)
    heads = np.sort(_right(margins * said[:, None]).mean(0))[::-1]
    found = {
        arm: _by_prompt(
            _right((reward.predict(made.first, arm) - reward.predict(made.second, arm)) * said), prompts
        )
        for arm in _arms(both_ways)
    }
    told = reward.diagnose()
    return {
        "features": made.features.about,
        "heads": len(reward.heads_),
        "size": made.features.size,
        "accuracy": {arm: plain(interval) for arm, interval in found.items()},
        "head_accuracy": {
            "best": float(heads[0]),
            "median": float(np.median(heads)),
            "worst": float(heads[-1]),
        },
        "disagreement": told.figures["disagreement"],
        "both_ways": both_ways,
        "used": told.used,
        "prompts": len(set(prompts)),
    }


def _cancel(margins: Array) -> bool:
    """Whether heads come both ways, so that their mean is rounding. margins: (P, K)."""
    size = float(np.sqrt(np.square(margins).mean()))
    return not size > 0 or float(np.abs(margins.mean(1)).max()) < 1e-6 * size


def _arms(both_ways: bool) -> tuple[Used, ...]:
    """The rewards without a label of which there is something to say."""
    return ("single",) if both_ways else ("uniform", "single")


def _right(margins: Array) -> Array:
    return 0.5 * (1 + np.sign(margins))


def _by_prompt(right: Array, prompts: Sequence[str]) -> Interval:
    """Mean over prompts, with an interval over them."""
    groups: dict[str, list[float]] = {}
    for prompt, value in zip(prompts, right.tolist(), strict=True):
        groups.setdefault(prompt, []).append(value)
    return share(list(groups.values()))


def finish(
    cfg: Config, data: Data, measured: Mapping[str, Any], targets: dict[str, Any] | None, run: Run
) -> dict[str, Any]:
    """Write result.json, page.json, report.json and report.html; returns the result."""
    said = _said(cfg, data, measured, targets)
    result: dict[str, Any] = {
        "job": "personalize",
        "builder": "scores" if cfg.scores else cfg.builder,
        "seed": cfg.seed,
        **{key: data.facts[key] for key in ("pairs", "training pairs", "pairs to ask about")},
        **measured,
        "summary": said,
    }
    if targets is not None:
        result["targets"] = targets
    accuracy = measured["accuracy"]
    rows = [[ARM_NAMES[arm], shown(accuracy[arm])] for arm in _arms(measured["both_ways"])]
    rows += [[f"{which} head", percent(value)] for which, value in measured["head_accuracy"].items()]
    page = {
        "title": "Personal reward model",
        "job": "personalize",
        "summary": said,
        "warnings": _warnings(data, measured),
        "tables": [
            *([_target_table(targets), _overall_table(targets)] if targets else []),
            {
                "title": "The heads, before any label",
                "note": f"accuracy on the {data.facts['pairs to ask about']:,} pairs of the pool, by the labels of the "
                "files; 95% intervals over prompts. The heads have seen none of their prompts.",
                "columns": ["", "accuracy"],
                "rows": rows,
            },
        ],
        "data": {
            **data.facts,
            "features": measured["features"],
            "heads": measured["heads"],
            "builder": result["builder"],
            "files": list(cfg.files),
            **({"evaluation": cfg.eval} if cfg.eval else {}),
        },
        "limits": [*LIMITS, *([TARGET_LIMIT] if targets else [])],
    }
    write_json(run, "result.json", result)
    write_json(run, PAGE, page)
    write_page(run.folder)
    return result


def _said(
    cfg: Config, data: Data, measured: Mapping[str, Any], targets: Mapping[str, Any] | None
) -> list[str]:
    apart, uniform = measured["disagreement"], ""
    if measured["both_ways"]:
        uniform = ", which is used until there are labels: these heads come both ways, so that their mean says nothing."
    else:
        if measured.get("used") == "single":
            uniform = ", which is used until there are labels, since these heads were fitted to nobody's"
        uniform += f"; uniform mean {shown(measured['accuracy']['uniform'])}."
    said = [
        f"{measured['heads']} heads on {measured['features']}; two of them put a pair of the pool the other way round "
        f"{apart:.1%} of the time.",
        "Before any label, by the labels of the files on pairs of unseen prompts: single head "
        + shown(measured["accuracy"]["single"])
        + uniform,
    ]
    if targets is not None:
        plain = _arms(measured["both_ways"])[0]
        overall, gain = targets["overall"], targets["gains"][plain]
        said.insert(
            0,
            f"With {cfg.shots} labelled pairs of each of {len(targets['rows'])} distributions, reweighting is right on "
            f"{shown(overall['reweighting'])} of the rest, the {ARM_NAMES[plain]} on {shown(overall[plain])}: "
            f"{shown_points(gain)} points.",
        )
    return said


def _warnings(data: Data, measured: Mapping[str, Any]) -> list[str]:
    said = []
    if measured["disagreement"] < 0.01:
        said.append(
            "The heads agree on nearly every pair: reweighting has nothing to choose between. Use another --builder, "
            "such as pca or annotator, or a larger --prior-scale."
        )
    if data.facts["pairs to ask about"] < 50:
        said.append(f"Only {data.facts['pairs to ask about']} pairs can be asked about.")
    return said


def shown(interval: Mapping[str, Any]) -> str:
    """An interval that went through JSON."""
    low, high = (float("nan") if interval[k] is None else interval[k] for k in ("low", "high"))
    return span(Interval(interval["estimate"], low, high))


def shown_points(interval: Mapping[str, Any]) -> str:
    """A difference of two shares that went through JSON, in points."""
    low, high = (float("nan") if interval[k] is None else interval[k] for k in ("low", "high"))
    return span(Interval(interval["estimate"], low, high), lambda value: f"{100 * value:+.1f}")


def _target_table(targets: Mapping[str, Any]) -> dict[str, Any]:
    arms = list(targets["overall"])

    def cell(row: Mapping[str, Any], arm: str) -> str:
        spread = row["sd"][arm]
        return percent(row["mean"][arm]) + ("" if spread is None else f" ± {100 * spread:.1f}")

    left = ", ".join(f"{name} ({count})" for name, count in targets["left_out"].items())
    return {
        "title": "Target distributions",
        "note": "accuracy on the pairs that were not drawn: mean and standard deviation over draws"
        + (f"; too few pairs, left out: {left}" if left else ""),
        "columns": ["", "pairs", *(ARM_NAMES[arm] for arm in arms), "heads left"],
        "rows": [
            [
                row["subset"],
                f"{row['pairs']:,}",
                *(cell(row, arm) for arm in arms),
                f"{row['effective_heads']:.1f}",
            ]
            for row in targets["rows"]
        ],
    }


def _overall_table(targets: Mapping[str, Any]) -> dict[str, Any]:
    rows = []
    for arm, interval in targets["overall"].items():
        gain = targets["gains"].get(arm)
        rows.append([ARM_NAMES[arm], shown(interval), "" if gain is None else shown_points(gain)])
    return {
        "title": "All distributions",
        "note": "every distribution counts the same; 95% intervals over distributions",
        "columns": ["", "accuracy", "reweighting less this, points"],
        "rows": rows,
    }
