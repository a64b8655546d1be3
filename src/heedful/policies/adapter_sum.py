"""LoRA adapters added up on their files: the change of the weights is exactly sum_i weight_i * change_i.

An adapter's change of a layer is alpha / r * B A. Changes add up when the rows of every A and the columns of every B
are put one after the other; weights, and scalings that differ, are folded into B. One adapter at weight 1 comes out
as the same bytes. No model is loaded.
"""

from __future__ import annotations

import copy
import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from heedful.atomic import write_folder
from heedful.errors import HeedfulError
from heedful.model_card import card_text
from heedful.model_folder import ADAPTER, ADAPTER_CONFIG, check_weights, is_adapter, read_json

TOKENIZER_FILES = ("*.json", "*.jinja", "*.txt", "*.model")
PARTS = {".lora_A.weight": "A", ".lora_B.weight": "B"}
REFUSED = {
    "use_rslora": "it is rsLoRA, whose scaling alpha / sqrt(r) changes with the rank of the sum",
    "use_dora": "it is DoRA, which rescales the whole weight: its change depends on the other adapters",
    "lora_bias": "it trains biases (lora_bias), which have no low-rank change to add",
    "modules_to_save": "it replaces whole layers (modules_to_save), and two replacements have no sum",
    "trainable_token_indices": "it replaces rows of the embedding (trainable_token_indices)",
    "rank_pattern": "its layers have different ranks (rank_pattern)",
    "alpha_pattern": "its layers have different scalings (alpha_pattern)",
    "layer_replication": "it repeats layers of its base (layer_replication)",
    "target_parameters": "it adapts bare parameters (target_parameters)",
    "alora_invocation_tokens": "it acts after certain tokens only (alora_invocation_tokens)",
    "use_qalora": "it is QALoRA, which pools its inputs",
    "use_bdlora": "it is block-diagonal (use_bdlora)",
    "arrow_config": "it routes between adapters (arrow_config)",
    "kasa_config": "it truncates the weights of its base (kasa_config)",
    "monteclora_config": "it samples its weights (monteclora_config)",
}
"""Fields of adapter_config.json that make a sum of changes wrong, and why."""
PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
SHARED = ("task_type", "fan_in_fan_out", "revision")


def why_not(config: Mapping[str, Any]) -> str:
    """Why the adapter that `config` (of peft) describes cannot be part of a sum; empty when it can."""
    kind = str(getattr(config.get("peft_type"), "value", config.get("peft_type")))
    if kind != "LORA":
        return f"it is no LoRA adapter but {kind}"
    if config.get("bias", "none") != "none":
        return f"it trains biases of the base (bias={config['bias']!r}), which a sum of changes leaves out"
    for field, reason in REFUSED.items():
        if config.get(field):
            return reason
    if config.get("init_lora_weights", True) not in PLAIN_STARTS:
        start = config["init_lora_weights"]
        return f"it began with other weights in its base (init_lora_weights={start!r})"
    return ""


def base_of(folder: Path) -> str:
    """The base model an adapter folder names.

    Raises HeedfulError when it is no adapter, is damaged or names none.
    """
    if not is_adapter(folder):
        raise HeedfulError(f"{folder} holds no adapter ({ADAPTER_CONFIG})")
    base = read_json(folder / ADAPTER_CONFIG).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise HeedfulError(f"{folder / ADAPTER_CONFIG} names no base model (base_model_name_or_path)")
    return base


def sum_adapters(
    folders: Sequence[Path], weights: Sequence[float]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The configuration and the tensors of the adapter whose change is sum_i weights[i] * change_i.

    Its rank is the sum of the ranks. A weight of a power of two is folded in without rounding; any other rounds B
    once, to float32. Raises HeedfulError naming the folder and the reason: no LoRA, a variant whose changes do not
    add up (see `why_not`), other layers, other shapes, a damaged file, a weight that is no finite number.
    """
    if not folders or len(folders) != len(weights):
        raise HeedfulError(f"a sum needs one weight for each adapter, not {len(weights)} for {len(folders)}")
    for weight in weights:
        if not math.isfinite(weight):
            raise HeedfulError(f"a weight must be a finite number, not {weight}")
    members = [_read(Path(folder)) for folder in folders]
    first, tensors = members[0]
    for folder, (config, others) in zip(folders[1:], members[1:], strict=True):
        _check_alike(folders[0], first, tensors, folder, config, others)
    scalings = [Fraction(config["lora_alpha"]) / config["r"] for config, _ in members]
    alike = len(set(scalings)) == 1
    total = copy.deepcopy(first)
    total["r"] = sum(config["r"] for config, _ in members)
    # with one scaling for all it can stay outside, which keeps a single adapter as it is
    total["lora_alpha"] = sum(config["lora_alpha"] for config, _ in members) if alike else total["r"]
    factors = [
        Fraction(weight) * (1 if alike else scaling)
        for weight, scaling in zip(weights, scalings, strict=True)
    ]
    added = {}
    for name in tensors:
        if _part(name) == "A":
            added[name] = torch.cat([one[name] for _, one in members], dim=0)
        else:
            scaled = [_scaled(one[name], factor) for (_, one), factor in zip(members, factors, strict=True)]
            added[name] = torch.cat(scaled, dim=1)
        if not bool(torch.isfinite(added[name]).all()):
            raise HeedfulError(f"the sum of {_listed(folders)} is not finite in {name}: use smaller weights")
    return total, added


def write_sum(
    folders: Sequence[Path], weights: Sequence[float], out: Path, *, card: Mapping[str, Any]
) -> Path:
    """Write `sum_adapters` as a model folder, whole or not at all; a folder that is there is replaced.

    The tokenizer is that of the first adapter; `card` holds the facts of README.md (see `card_text`).
    Raises HeedfulError as `sum_adapters` does, and when the folder cannot be written.
    """
    config, tensors = sum_adapters(folders, weights)
    source = Path(folders[0])
    text = _config_text(source / ADAPTER_CONFIG, config)

    def fill(beside: Path) -> None:
        try:
            save_file(tensors, beside / ADAPTER, metadata={"format": "pt"})
        except SafetensorError as error:
            raise HeedfulError(f"cannot write {out / ADAPTER}: {error}") from error
        (beside / ADAPTER_CONFIG).write_bytes(text)
        for pattern in TOKENIZER_FILES:
            for file in sorted(source.glob(pattern)):
                if file.name != ADAPTER_CONFIG:
                    shutil.copyfile(file, beside / file.name)
        base = str(config.get("base_model_name_or_path") or "")
        (beside / "README.md").write_text(card_text(card, adapter=True, base=base), encoding="utf-8")
        for file in beside.iterdir():
            os.chmod(file, 0o644)  # safetensors makes its files private to the user

    write_folder(out, fill)
    return out


def _config_text(path: Path, config: Mapping[str, Any]) -> bytes:
    if read_json(path) == config:
        return path.read_bytes()
    return (json.dumps(config, indent=2, sort_keys=True)).encode()


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not is_adapter(folder):
        raise HeedfulError(f"{folder} holds no adapter ({ADAPTER_CONFIG})")
    check_weights(folder, str(folder))
    config = read_json(folder / ADAPTER_CONFIG)
    reason = why_not(config)
    if reason:
        raise HeedfulError(f"{folder} cannot be added up: {reason}")
    rank: Any = config.get("r")
    alpha: Any = config.get("lora_alpha")
    if type(rank) is not int or rank < 1 or type(alpha) not in (int, float) or not math.isfinite(alpha):
        raise HeedfulError(
            f"{folder / ADAPTER_CONFIG}: r and lora_alpha must be numbers, not {rank!r}, {alpha!r}"
        )
    try:
        tensors = load_file(folder / ADAPTER)
    except (OSError, SafetensorError) as error:
        raise HeedfulError(f"{folder / ADAPTER} cannot be read: {error}; train or save it again") from error
    for name, tensor in tensors.items():
        if _part(name) is None:
            raise HeedfulError(f"{folder} cannot be added up: {name} is no part of a low-rank change")
        held = tensor.shape[0 if _part(name) == "A" else 1] if tensor.ndim > 1 else 0
        if held != rank:
            raise HeedfulError(f"{folder / ADAPTER}: {name} has rank {held}, its configuration says {rank}")
    return config, tensors


def _part(name: str) -> str | None:
    return next((part for ending, part in PARTS.items() if name.endswith(ending)), None)


def _check_alike(
    first: Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    second: Path,
    other_config: Mapping[str, Any],
    others: Mapping[str, Tensor],
) -> None:
    ask = "train both with the same model and the same layers"
    for field in SHARED:
        if (config.get(field) or None) != (other_config.get(field) or None):
            raise HeedfulError(
                f"{first} and {second} cannot be added up: {field} is {config.get(field)!r} and "
                f"{other_config.get(field)!r}; {ask}"
            )
    only = sorted(set(tensors) ^ set(others))
    if only:
        owner = first if only[0] in tensors else second
        raise HeedfulError(
            f"{first} and {second} cannot be added up: they adapt different layers, and {only[0]} is in {owner} "
            f"alone; {ask}"
        )
    for name, tensor in tensors.items():
        axis = 0 if _part(name) == "A" else 1
        shapes = [[*t.shape[:axis], *t.shape[axis + 1 :]] for t in (tensor, others[name])]
        if shapes[0] != shapes[1]:
            raise HeedfulError(
                f"{first} and {second} cannot be added up: {name} is {list(tensor.shape)} and "
                f"{list(others[name].shape)}; {ask}"
            )


def _scaled(tensor: Tensor, factor: Fraction) -> Tensor:
    if factor == 1:
        return tensor
    return (tensor.double() * float(factor)).float()


def _listed(folders: Sequence[Path]) -> str:
    return " and ".join(str(folder) for folder in folders)
