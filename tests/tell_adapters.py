"""Stores of tiny LoRA adapters, as `heedful tell` leaves them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tiny
import torch

from heedful import hub

TARGETS = ("q_proj", "v_proj", "down_proj")


def adapter(folder: Path, base: Path, *, seed: int = 0, rank: int = 2, alpha: float = 4, **more: Any) -> Path:
    """A random adapter of the model in `base`, saved as a run's model/ is."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]
        task_type="CAUSAL_LM",
        **{"target_modules": list(TARGETS), **more},
    )
    torch.manual_seed(seed)
    made: Any = get_peft_model(hub.load_model(base), config)
    with torch.no_grad():
        for name, p in made.named_parameters():
            if "lora_" in name:
                p.copy_(torch.randn(p.shape) * 0.2)
    return hub.save_model(made, tiny.tokenizer(), folder, card="x")


def sentence(
    store: Path,
    name: str,
    base: Path,
    *,
    seed: int = 0,
    near: float = 0.05,
    general: float = 0.0,
    scope: Any = None,
    **more: Any,
) -> Path:
    """A finished run folder of one sentence."""
    folder = store / name
    adapter(folder / "model", base, seed=seed, **more)
    scores = {"s_in": 0.9, "s_near": near, "s_general": general, "s_out": (near + general) / 2}
    result = {"minutes": 7.25, "noise_floor": 0.0}
    for key, value in scores.items():
        result |= {key: value, f"{key}_low": max(0.0, value - 0.04), f"{key}_high": value + 0.04}
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "config.yaml").write_text(f"sentence: Say {name}\n")
    (folder / "manifest.json").write_text("{}")
    if scope is not None:
        from heedful.data.scopes import write_scope

        write_scope(scope, folder / "scope.yaml")
    return folder


def four(root: Path) -> Path:
    """A store of three adapters on one base, a, b and c, and `alien` on another."""
    base = tiny.save(root / "start")
    for seed, name in enumerate("abc"):
        sentence(root / "tell", name, base, seed=seed, rank=2 + seed)
    sentence(root / "tell", "alien", tiny.save(root / "other", seed=9), seed=7)
    return root / "tell"
