"""What Minari (0.5) says beside its numbers: bounds of actions, success of episodes, and pictures kept as JPEG."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heedful.errors import HeedfulError

SMALLEST = 32
"""Pixels of a side from which on Minari takes an array of bytes for a picture."""


def bounds(metadata: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """The bounds of actions in metadata.json; None where it gives none."""
    try:
        said = _space(metadata, "action_space")
        low, high = np.asarray(said["low"], float).reshape(-1), np.asarray(said["high"], float).reshape(-1)
    except (ValueError, KeyError, TypeError):
        return None
    if low.shape != high.shape or not (np.isfinite(low) & np.isfinite(high)).all():
        return None
    return tuple(low.tolist()), tuple(high.tolist())


def success(group: Any) -> bool | None:
    """Whether the infos say that an episode succeeded, in the group of newer files or the texts of others."""
    infos = group.get("infos")
    if infos is None:
        return None
    if hasattr(infos, "keys"):
        return bool(np.asarray(infos["success"][()]).any()) if "success" in infos else None
    said: list[bool] = []
    for text in infos[()]:
        try:
            row = json.loads(text)
        except (ValueError, TypeError):
            return None
        if isinstance(row, dict) and "success" in row:
            said.append(bool(row["success"]))
    return any(said) if said else None


def pictures(metadata: Mapping[str, Any]) -> set[str]:
    """The parts of an observation that are kept as JPEG, by name as in the file ("" is the whole of it).

    Minari does so from 0.5.4 on, unless `jpeg_encoding` says no, with what looks like a picture.
    """
    if not metadata.get("jpeg_encoding", False):
        return set()
    try:
        return {name for name, space in _parts(_space(metadata, "observation_space"), "") if _picture(space)}
    except (ValueError, KeyError, TypeError):
        return set()


def decoded(frames: Any, where: str) -> NDArray[np.uint8]:
    """Rows of JPEG bytes as pictures (S, H, W) or (S, H, W, C). Raises HeedfulError naming the row that is none."""
    from PIL import Image

    out = []
    for row, frame in enumerate(frames[()]):
        try:
            with Image.open(io.BytesIO(np.asarray(frame, np.uint8).tobytes()), formats=["JPEG"]) as image:
                out.append(np.asarray(image, dtype=np.uint8))
        except (OSError, ValueError) as error:
            raise HeedfulError(f"{where}, row {row}: not a JPEG picture: {error}") from error
    if len({picture.shape for picture in out}) > 1:
        raise HeedfulError(f"{where}: pictures of different sizes")
    return np.stack(out)


def _space(metadata: Mapping[str, Any], name: str) -> Any:
    said = metadata.get(name)
    return json.loads(said) if isinstance(said, str) else said


def _parts(space: Any, name: str) -> Iterator[tuple[str, Any]]:
    inner = space.get("subspaces") if isinstance(space, Mapping) else None
    if inner is None:
        yield name, space
        return
    named = inner.items() if isinstance(inner, Mapping) else ((f"_index_{i}", s) for i, s in enumerate(inner))
    for key, part in named:
        yield from _parts(part, f"{name}/{key}" if name else key)


def _picture(space: Any) -> bool:
    shape = space.get("shape") or ()
    return (
        space.get("type") == "Box"
        and space.get("dtype") == "uint8"
        and len(shape) in (2, 3)
        and min(shape[:2]) >= SMALLEST
        and bool((np.asarray(space["low"]) == 0).all() and (np.asarray(space["high"]) == 255).all())
    )
