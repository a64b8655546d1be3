"""Before a run of `heedful demos train`: what does not go together, what it is made of, what it will cost."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heedful.errors import HeedfulError
from heedful.recipes import plan
from heedful.recipes.demos_train import TA, TO, TP
from heedful.recipes.settings import fit_config

if TYPE_CHECKING:
    from heedful.fit import FitConfig
    from heedful.policies.actions.build import Making
    from heedful.recipes.demos_train import Config
    from heedful.recipes.demos_train_data import Learned
    from heedful.run import Run

AT_LEAST_ONE = (
    *("instructions", "features", "denoising_steps", "sample_steps", "noises", "steps", "batch_size", "keep"),
)
NOT_NEGATIVE = (
    "learning_rate",
    "warmup",
    "weight_decay",
    "clip_norm",
    "micro_rows",
    "save_every",
    "log_every",
)
SENTENCE_NUMBERS = {"minilm": 384, "words": 128}
"""Numbers of a sentence; of an encoder that is not here, as many as DistilBERT has."""
CORE, GPU = 2.5e10, 4e13
"""Floating-point operations a second: one CPU core, measured; a data-centre GPU at about a tenth of its peak."""


def check(cfg: Config) -> None:
    """Raises HeedfulError with every reason why these options cannot run."""
    wrong = [f"--{n.replace('_', '-')} must be at least 1" for n in AT_LEAST_ONE if getattr(cfg, n) < 1]
    wrong += [
        f"--{n.replace('_', '-')} must be a number of 0 or more"
        for n in NOT_NEGATIVE
        if not 0 <= getattr(cfg, n) < math.inf
    ]
    if not cfg.data:
        wrong.insert(0, "--data is needed: demonstrations of what is to be learned")
    if len(cfg.ranges) > len(cfg.data) + len(cfg.mix):
        wrong.append(f"--ranges: {len(cfg.ranges)} files for {len(cfg.data) + len(cfg.mix)} data sets")
    if not cfg.cameras or len(set(cfg.cameras)) < len(cfg.cameras):
        wrong.append("--cameras needs one or more names, each once")
    if not 0 <= cfg.weight <= 1:
        wrong.append("--weight is a share, from 0 to 1")
    if not cfg.mix and cfg.mix_reading != "cartesian":
        wrong.append("--mix-reading is about --mix, which is not there")
    if not 0 < cfg.crop <= 1 or not 0 <= cfg.jitter <= 1:
        wrong.append("--crop is a share above 0 and at most 1, --jitter from 0 to 1")
    if cfg.size < 16:
        wrong.append("--size must be at least 16")
    if not 0 < cfg.average <= 1:
        wrong.append("--average is a rate above 0 and at most 1")
    if not cfg.channels or min(cfg.channels, default=0) < 1 or min(cfg.hidden, default=1) < 1:
        wrong.append("--channels and --hidden are layers of at least 1")
    if cfg.points < 0:
        wrong.append("--points is 0 or more")
    if cfg.images == "conv" and cfg.vision:
        wrong.append("--vision is for --images resnet")
    if wrong:
        raise HeedfulError("; ".join(wrong))


def files_of(cfg: Config) -> list[str]:
    """The files whose hashes the run keeps: small ones that say what the data sets are, and the ranges."""
    told = [Path(path) / "meta" / "info.json" for path in (*cfg.data, *cfg.mix)]
    return [str(path) for path in told if path.is_file()] + [name for name in cfg.ranges if name != "-"]


def same_data(learned: Learned, run: Run) -> None:
    """Raises HeedfulError where the data sets are not those that the run began with."""
    import json

    from heedful.policies.actions.numbers import ActionNumbers

    told = {
        "sources": [source.facts for source in learned.sources],
        "numbers": asdict(learned.numbers),
        "low": learned.low,
        "high": learned.high,
    }
    begun = run.once("data.json", lambda: told)
    begun |= {"numbers": asdict(ActionNumbers.from_json(begun["numbers"]))}
    if json.dumps(begun, sort_keys=True) != json.dumps(told, sort_keys=True):
        paths = [
            now["path"] for now, then in zip(told["sources"], begun["sources"], strict=False) if now != then
        ]
        raise HeedfulError(
            f"the data has changed since {run.folder} began ({', '.join(paths) or 'its numbers'}): bring it back, or "
            "choose another output folder"
        )


def making_of(cfg: Config, learned: Learned) -> Making:
    """What the policy is made of. Every size is an option, so that a small one of the paper's kind can be made too."""
    from heedful.policies.actions import ActionSpace
    from heedful.policies.actions.build import unet_making

    network: dict[str, Any] = {"pretrained": cfg.vision} if cfg.vision else {}
    if cfg.images == "conv":
        network = {"widths": cfg.channels, "points": cfg.points}
    jitter = dict.fromkeys(("brightness", "contrast", "saturation", "hue"), cfg.jitter)
    made = unet_making(
        learned.seen,
        ActionSpace(learned.low, learned.high, TP),
        learned.numbers,
        size="paper" if cfg.images == "resnet" else "laptop",
        sentences=cfg.sentences,
        pooling=cfg.pooling,
        ema=cfg.average,
        crop=cfg.crop,
        jitter=jitter if cfg.jitter else None,
        network=network,
    )
    head = {
        "widths": cfg.widths,
        "size": cfg.features,
        "hidden": cfg.hidden,
        "steps": cfg.denoising_steps,
        "sample_steps": min(cfg.sample_steps, cfg.denoising_steps),
        "noises": cfg.noises,
        "residual": cfg.residual,
    }
    return replace(made, head={**made.head, **head})


def fit_settings(cfg: Config, device: str) -> FitConfig:
    """How it learns: each row of the table of draws once."""
    from heedful.device import pick_precision

    settings = fit_config(cfg, pick_precision(cfg.precision, device))
    return replace(settings, micro_cost=cfg.micro_rows)


def describe(cfg: Config) -> str:
    """The plan, the parameters, the memory and the cost, from one pass of one sample; nothing is written.

    Raises HeedfulError as reading the data does.
    """
    from heedful.recipes.demos_train_data import open_sources

    learned = open_sources(cfg)
    counted = _counted(cfg, learned)
    drawn = cfg.steps * cfg.batch_size
    rows = min(cfg.batch_size, cfg.micro_rows or cfg.batch_size)
    memory = 20 * counted["parameters"] + rows * counted["kept"]
    flops = 3 * counted["flops"] * drawn
    shown = sum(source.facts["frames"] for source in learned.sources) * len(cfg.cameras)
    disk = shown * cfg.size**2 * (3 if cfg.pictures == "raw" else 0.35)
    network = "ResNet-50" if cfg.images == "resnet" and not cfg.vision else cfg.vision or "four convolutions"
    lines = [
        f"plan ({cfg.preset} preset)",
        *(
            f"  data         {one['path']}: {one['episodes']:,} episodes, {one['frames']:,} frames to learn from, "
            f"{one['share of the batch']:.0%} of a batch"
            for one in (source.facts for source in learned.sources)
        ),
        f"  policy       {counted['parameters'] / 1e6:,.1f} M parameters: {network} for each of {len(cfg.cameras)} "
        f"cameras at {cfg.size}, U-Net {'/'.join(map(str, cfg.widths))}; sentences by {cfg.sentences}, frozen",
        f"  acting       {TO} frames seen, {TP} actions predicted by {cfg.sample_steps} DDIM steps, {TA} carried out; "
        f"{cfg.actions}",
        f"  training     {cfg.steps:,} steps of {cfg.batch_size}, {cfg.noises} noises each",
        "memory",
        f"  training     about {memory / 2**30:.2f} GiB: weights, average, gradients, two moments, and what "
        f"{rows:g} samples keep for the gradient",
        f"  pictures     about {disk / 2**30:.2f} GiB on disk ({cfg.pictures})",
        "cost",
        f"  arithmetic   about {flops / 1e15:,.2f} PFLOP",
        f"  time         about {plan.hours(flops / CORE)} on one CPU core (25 GFLOP/s), at least "
        f"{plan.hours(flops / GPU)} on a GPU (40 TFLOP/s); decoding pictures comes on top",
        "nothing was run (--dry-run)",
    ]
    return "\n".join(lines)


def _counted(cfg: Config, learned: Learned) -> dict[str, float]:
    """Parameters, floating-point operations forward, and bytes kept for the gradient, of one sample.

    Counted on the policy itself with a sentence encoder that needs no model; the layer that reads sentences is
    corrected for the other size.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from heedful.policies.actions.build import build

    making = making_of(cfg, learned)
    policy: Any = build(replace(making, encoder={**making.encoder, "sentences": "words"}, ema=0.0))
    wider = (_sentence_numbers(cfg.sentences) - SENTENCE_NUMBERS["words"]) * (cfg.hidden or (0,))[0]
    seen: dict[str, Any] = {
        name: torch.zeros(1, TO, *shape, dtype=torch.float32 if name == "state" else torch.uint8)
        for name, shape in learned.seen.shapes.items()
    }
    kept = 0

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += 0 if isinstance(tensor, torch.nn.Parameter) else tensor.numel() * tensor.element_size()
        return tensor

    # which actions does not matter here, so none of them counts
    actions, none = torch.zeros(1, TP, len(learned.low)), torch.zeros(1, TP, dtype=torch.bool)
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t),
        FlopCounterMode(display=False) as counter,
    ):
        policy.loss({**seen, "task": ["go"]}, actions, mask=none)
    return {
        "parameters": sum(p.numel() for p in policy.module.parameters()) + wider,
        "flops": counter.get_total_flops(),
        "kept": kept,
    }


def _sentence_numbers(name: str) -> int:
    from heedful.model_folder import read_json

    config = Path(name) / "config.json"
    if config.is_file():
        told = read_json(config)
        return int(told.get("hidden_size") or told.get("dim") or 768)
    return SENTENCE_NUMBERS.get(name, 768)
