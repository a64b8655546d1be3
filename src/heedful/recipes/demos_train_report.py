"""What a run of `heedful demos train` leaves behind: the policy, result.json, report.json and report.html."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heedful.atomic import write_file
from heedful.errors import HeedfulError
from heedful.evals.table_trials import Acting
from heedful.model_folder import read_json
from heedful.policies.actions.build import Making, load, save
from heedful.policies.actions.chunks import ChunkPolicy
from heedful.recipes.demos_train import TA, TO
from heedful.report import write_report
from heedful.run import Run, read_metrics

if TYPE_CHECKING:
    from heedful.recipes.demos_train import Config
    from heedful.recipes.demos_train_data import Learned

FORMAT = "heedful-droid-policy"
LIMITS = [
    "A loss says little about success: roll the policy out (`heedful demos eval`, or your own robot).",
    "The policy knows the rate, the cameras and the conventions of --data, and no others.",
]


def finish(cfg: Config, learned: Learned, policy: ChunkPolicy, making: Making, run: Run) -> dict[str, Any]:
    """Save the policy and how it acts, write result.json, report.json and report.html; returns the result."""
    acting = Acting(
        cfg.cameras,
        cfg.size,
        learned.drawn,
        cfg.actions,
        TO,
        TA,
        learned.fps,
        learned.extra.get("table_seed"),
    )
    save(policy, making, run.path("model"))
    losses = [row["loss"] for row in read_metrics(run.folder) if row.get("stage") == "train"]
    result: dict[str, Any] = {
        "job": "demos train",
        "seed": cfg.seed,
        "steps": cfg.steps,
        "parameters": sum(p.numel() for p in policy.module.parameters()),
        "samples": cfg.steps * cfg.batch_size,
        "first_loss": round(losses[0], 6),
        "last_loss": round(losses[-1], 6),
    }
    facts = {source.facts["path"]: source.facts for source in learned.sources}
    page = {
        "job": "demos train",
        "title": f"DROID's policy on {', '.join(Path(path).name for path in cfg.data)}"
        + (f", co-trained on {', '.join(Path(path).name for path in cfg.mix)}" if cfg.mix else ""),
        "summary": [
            f"The policy has learned {cfg.steps:,} steps of {cfg.batch_size}; the loss went from {losses[0]:.3g} to "
            f"{losses[-1]:.3g}. How often it succeeds is not measured here."
        ],
        "warnings": _warnings(cfg, learned),
        "tables": [
            {
                "title": "What was learned from",
                "columns": [
                    "data set",
                    "episodes",
                    "failed, left out",
                    "frames",
                    "share of a batch",
                    "drawn",
                ],
                "rows": [
                    [
                        path,
                        f"{one['episodes']:,}",
                        f"{one['failed episodes left out']:,}",
                        f"{one['frames']:,}",
                        f"{one['share of the batch']:.0%}",
                        f"{cfg.steps * cfg.batch_size * one['share of the batch'] / one['frames']:.1f} times",
                    ]
                    for path, one in facts.items()
                ],
            }
        ],
        "curves": [{"title": "loss", "stage": "train", "y": ["loss"]}],
        "data": facts,
        "feedback": {
            "actions": cfg.actions,
            "cameras": list(cfg.cameras),
            "instructions": f"one of the first {cfg.instructions} of an episode, drawn for each sample",
            "sentence encoder": f"{cfg.sentences}, {cfg.pooling}, frozen",
        },
        "limits": LIMITS,
    }
    told = {"format": FORMAT, **asdict(acting)}
    for name, value in (("policy.json", told), ("report.json", page), ("result.json", result)):
        write_file(run.path(name), (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode())
    write_report(run.folder)
    return result


def _warnings(cfg: Config, learned: Learned) -> list[str]:
    said = []
    for source in learned.sources:
        times = cfg.steps * cfg.batch_size * source.share / len(source.frames)
        if 0 < times < 1:
            said.append(
                f"{source.facts['path']}: only {times:.0%} of its frames were drawn in {cfg.steps:,} steps."
            )
        spoken = {len(texts) for texts in source.said if texts}
        if spoken and max(spoken) < cfg.instructions:
            said.append(
                f"{source.facts['path']}: no episode has more than {max(spoken)} instructions of {cfg.instructions}."
            )
    if cfg.images == "resnet" and not cfg.vision:
        said.append("ResNet-50 began with new weights; DROID's policy began with ImageNet's (--vision).")
    return said


def read_acting(folder: str | Path) -> Acting:
    """How the policy of a finished run acts. Raises HeedfulError where there is none."""
    place = Path(folder) / "policy.json"
    if not place.is_file():
        raise HeedfulError(
            f"{folder} holds no finished run of `heedful demos train` (policy.json is missing)"
        )
    told = read_json(place)
    try:
        if told.pop("format") != FORMAT:
            raise KeyError("format")
        return Acting(**{**told, "cameras": tuple(told["cameras"]), "drawn": tuple(told["drawn"])})
    except (KeyError, TypeError) as error:
        raise HeedfulError(f"{place} is damaged: {error}; train again into another folder") from error


def open_trained(folder: str | Path) -> tuple[ChunkPolicy, Acting]:
    """The policy of a finished run, and how it acts. Raises HeedfulError where there is none."""
    acting = read_acting(folder)
    policy, _ = load(Path(folder) / "model")
    if not isinstance(policy, ChunkPolicy):
        raise HeedfulError(f"{folder}/model holds no policy that follows instructions")
    return policy, acting
