"""Checkpoints of a stage: a folder of safetensors files and a meta.json that says what they must contain.

`step-00000400/{model,optim}.safetensors + meta.json` while the stage runs, `final/` when it is done. Each is
written whole beside its place and renamed once, so what has the name is complete; sizes and sha256 in
meta.json tell a disk's damage afterwards.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from heedful.atomic import remove_folder, write_all, write_folder, writing
from heedful.errors import HeedfulError
from heedful.manifest import sha256_of

FORMAT = 1


def save_checkpoint(path: Path, tensors: Mapping[str, Mapping[str, Tensor]], meta: Mapping[str, Any]) -> None:
    """Write `tensors[part]` to `path/part.safetensors` and `meta` to `path/meta.json`, all or nothing.

    Raises `HeedfulError` naming `path` when the disk is full or read-only; older checkpoints are untouched.
    """

    def fill(folder: Path) -> None:
        for part, named in tensors.items():
            write_tensors(folder / f"{part}.safetensors", named)
        files = {
            file.name: {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
            for file in sorted(folder.iterdir())
        }
        text = json.dumps({"format": FORMAT, **meta, "files": files}, indent=1, ensure_ascii=False) + "\n"
        descriptor = os.open(folder / "meta.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            write_all(descriptor, text.encode())
        finally:
            os.close(descriptor)

    write_folder(path, fill)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """`save_file` whose failures are `OSError`s like those of every other write."""
    try:
        save_file({name: _own(tensor) for name, tensor in tensors.items()}, path)
    except SafetensorError as error:
        code = re.search(r"os error (\d+)", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from error
    # safetensors makes its files private to the user; a shared run folder must be readable as a whole.
    os.chmod(path, 0o644)


def _own(tensor: Tensor) -> Tensor:
    """On the CPU, and no view of something larger, which safetensors refuses."""
    tensor = tensor.detach().cpu().contiguous()
    alone = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return tensor if alone else tensor.clone()


def read_meta(path: Path) -> dict[str, Any]:
    """The checked meta.json of the checkpoint at `path`. Raises `HeedfulError` when it is not whole."""
    try:
        meta = json.loads((path / "meta.json").read_bytes())
        files = {name: (entry["bytes"], entry["sha256"]) for name, entry in meta["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise HeedfulError(f"{path} is damaged: meta.json cannot be read ({error})") from error
    for name, (size, digest) in files.items():
        file = path / name
        if not file.is_file():
            raise HeedfulError(f"{path} is damaged: {name} is missing")
        if file.stat().st_size != size or sha256_of(file) != digest:
            raise HeedfulError(f"{path} is damaged: {name} is not what was written")
    return meta


def read_part(path: Path, part: str) -> dict[str, Tensor]:
    """The tensors of `path/part.safetensors`, on the CPU; none when the checkpoint has no such part."""
    file = path / f"{part}.safetensors"
    return load_file(file) if file.exists() else {}


def checkpoint_steps(stage: Path) -> list[int]:
    """The steps that have a checkpoint in the folder `stage`, oldest first; damaged ones are counted too."""
    if not stage.is_dir():
        return []
    return sorted(int(path.name[5:]) for path in stage.glob("step-*") if path.name[5:].isdigit())


def step_folder(stage: Path, step: int) -> Path:
    """`stage/step-00000400`."""
    return stage / f"step-{step:08d}"


def newest_checkpoint(stage: Path) -> tuple[int, list[str]]:
    """(step of the newest checkpoint that is whole, what is wrong with newer ones); step 0 when none is."""
    problems = []
    for step in reversed(checkpoint_steps(stage)):
        try:
            read_meta(step_folder(stage, step))
        except HeedfulError as problem:
            problems.append(str(problem))
            continue
        return step, problems
    return 0, problems


def prune(stage: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints, and what a kill left half written."""
    steps = checkpoint_steps(stage)
    with writing(stage):
        for step in steps[: len(steps) - keep]:
            remove_folder(step_folder(stage, step))
        for left in stage.glob(".*.tmp"):
            if left.is_dir():
                remove_folder(left)


def drop_after(stage: Path, step: int) -> None:
    """Remove checkpoints newer than `step`: damaged ones, which `prune` must not count as kept."""
    with writing(stage):
        for newer in checkpoint_steps(stage):
            if newer > step:
                remove_folder(step_folder(stage, newer))


def load_into(named: Mapping[str, Tensor], stored: Mapping[str, Tensor], where: Path) -> None:
    """Copy `stored` into the tensors `named`, in place.

    Raises `HeedfulError` before anything is copied when names or shapes differ: the checkpoint is of another
    model, or other parameters were trained.
    """
    problems = [f"{name} is missing" for name in named if name not in stored]
    problems += [f"{name} is unknown to the model" for name in stored if name not in named]
    problems += [
        f"{name} has shape {tuple(stored[name].shape)}, the model's has {tuple(tensor.shape)}"
        for name, tensor in named.items()
        if name in stored and stored[name].shape != tensor.shape
    ]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise HeedfulError(f"{where} does not fit this model: {'; '.join(problems[:5])}{more}")
    for name, tensor in named.items():
        tensor.detach().copy_(stored[name])
