"""What a model folder may contain: refused before anything in it is loaded.

Weights are read from safetensors alone, because pickled weights run code when they are read, and no Python
file of a model folder is ever imported. Everything here reads JSON and file names only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from heedful.errors import HeedfulError

PICKLED = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}
WEIGHTS, INDEX, ADAPTER = "model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"


def is_adapter(folder: Path) -> bool:
    """Whether the folder holds a peft adapter rather than a whole model."""
    return (folder / ADAPTER_CONFIG).is_file()


def is_model(folder: Path) -> bool:
    """Whether the folder is laid out as a Hugging Face model or adapter."""
    return (folder / "config.json").is_file() or is_adapter(folder)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises HeedfulError naming the file when it is missing or no JSON object."""
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise HeedfulError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise HeedfulError(f"{path} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise HeedfulError(f"{path} must hold a JSON object")
    return value


def check_configs(folder: Path) -> None:
    """Refuse a folder whose configuration asks for code that is not part of transformers.

    Raises HeedfulError naming the file and the field.
    """
    for name in ("config.json", "tokenizer_config.json", "generation_config.json"):
        path = folder / name
        if not path.is_file():
            continue
        for field, value in _fields(read_json(path)):
            if field == "auto_map" and value:
                raise HeedfulError(
                    f"{path} has auto_map: this model wants to run Python code from its own folder, which "
                    "heedful never does. If transformers knows the architecture by itself, remove auto_map"
                )
            if "attn_implementation" in field and "/" in str(value):
                raise HeedfulError(
                    f"{path} has {field}={value!r}: code from the Hub is not loaded; remove the field"
                )


def _fields(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield str(name), inner
            yield from _fields(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _fields(inner)


def check_weights(folder: Path, name: str) -> None:
    """Refuse a folder without safetensors weights; `name` is what the user called it.

    Raises HeedfulError: for pickled weights it says how to convert them.
    """
    if is_adapter(folder):
        wanted = folder / ADAPTER
        if not wanted.is_file():
            raise _no_weights(folder, name, "adapter_model.safetensors")
        return
    if (folder / WEIGHTS).is_file():
        return
    index = folder / INDEX
    if not index.is_file():
        raise _no_weights(folder, name, "model.safetensors")
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise HeedfulError(f"{index} has no weight_map; save the model again")
    for shard in sorted({str(s) for s in shards.values()}):
        if Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise HeedfulError(
                f"{index} names {shard!r}: weights must be .safetensors files in the same folder"
            )
        if not (folder / shard).is_file():
            raise HeedfulError(f"{index} names {shard}, which is missing; download or save the model again")


def _no_weights(folder: Path, name: str, wanted: str) -> HeedfulError:
    pickled = sorted(f.name for f in folder.iterdir() if f.suffix.lower() in PICKLED)
    if not pickled:
        return HeedfulError(f"{name} has no {wanted}; its folder {folder} holds no weights heedful can read")
    convert = (
        "from transformers import AutoModelForCausalLM as M; "
        f"M.from_pretrained({str(folder)!r}).save_pretrained('safe-copy')"
    )
    return HeedfulError(
        f"{name} has its weights in {', '.join(pickled[:3])}, a pickle, which can run code when it is read; "
        "heedful reads safetensors only. If you trust where the file comes from, convert it once: "
        f'python -c "{convert}" (and copy the tokenizer files), then use safe-copy'
    )
