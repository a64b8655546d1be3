"""A `PersonalReward` as a folder: personal.json (settings, names, labels) and heads.safetensors (every array)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from heedful.atomic import write_file
from heedful.errors import HeedfulError
from heedful.judges.heads import Heads

if TYPE_CHECKING:
    from heedful.judges.personal import PersonalReward
    from heedful.run import Run

Array = NDArray[Any]
JSON, ARRAYS = "personal.json", "heads.safetensors"
FORMAT = 1
OPTIONS = ("heads", "builder", "prior_scale", "prior", "anchor", "seed")
HEAD = "head."
"""What the names of the heads' own arrays begin with."""


def write(reward: PersonalReward, folder: Path) -> None:
    """Both files, the arrays first: a folder without personal.json is not finished. Raises HeedfulError."""
    from safetensors.numpy import save

    heads = reward._made
    arrays = {HEAD + name: array for name, array in heads.arrays.items()}
    arrays |= {"single": heads.single, "pool.scale": reward._scale, "pool.single": reward._single}
    arrays["pool.margins"] = reward._pool
    if reward.labels_:
        first, second, _ = zip(*reward.labels_, strict=True)
        arrays |= {"labels.first": np.stack(first), "labels.second": np.stack(second)}
    told = {
        "format": FORMAT,
        "options": {name: getattr(reward.how, name) for name in OPTIONS}
        | {"loss": reward.loss, "temperature": reward.temperature}
        | {"average": reward.average, "margin": reward.margin},
        "kind": heads.kind,
        "about": heads.about,
        "fitted": heads.fitted,
        "names": list(heads.names),
        "labels": [label for _, _, label in reward.labels_],
    }
    write_file(folder / ARRAYS, save({name: np.ascontiguousarray(a) for name, a in arrays.items()}))
    write_file(folder / JSON, (json.dumps(told, indent=1, ensure_ascii=False) + "\n").encode())


def read(cls: type[PersonalReward], folder: Path) -> PersonalReward:
    """What `write` wrote. Raises HeedfulError naming the file that is missing, damaged or of another version."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = folder / JSON
    try:
        told = json.loads(path.read_bytes())
    except OSError as error:
        raise HeedfulError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise HeedfulError(f"{path} is not JSON: {error}") from error
    version = told.get("format") if isinstance(told, dict) else None
    if version != FORMAT:
        raise HeedfulError(f"{path}: format is {version!r}; this heedful reads {FORMAT}")
    try:
        arrays = load_file(folder / ARRAYS)
    except (OSError, ValueError, SafetensorError) as error:
        raise HeedfulError(f"{folder / ARRAYS} cannot be read: {error}") from error
    try:
        return _restored(cls, told, arrays)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise HeedfulError(
            f"{path} and {ARRAYS} do not fit together ({type(error).__name__}: {error})"
        ) from error


def _restored(
    cls: type[PersonalReward], told: Mapping[str, Any], arrays: Mapping[str, Array]
) -> PersonalReward:
    reward = cls(**told["options"])
    own = {name.removeprefix(HEAD): array for name, array in arrays.items() if name.startswith(HEAD)}
    heads = Heads(told["kind"], own, tuple(told["names"]), arrays["single"], told["about"], told["fitted"])
    for name, array, shape in (
        ("pool.scale", arrays["pool.scale"], (len(heads.names),)),
        ("pool.single", arrays["pool.single"], (heads.size,)),
        ("pool.margins", arrays["pool.margins"], (len(arrays["pool.margins"]), len(heads.names))),
    ):
        if array.shape != shape:
            raise ValueError(f"{name} has the shape {array.shape}, not {shape}")
    reward._take(heads, None)
    reward._scale, reward._single, reward._pool = (
        arrays[f"pool.{name}"] for name in ("scale", "single", "margins")
    )
    if told["labels"]:
        reward.adapt(arrays["labels.first"], arrays["labels.second"], told["labels"])
    return reward


def kept_heads(run: Run, make: Callable[[], Heads]) -> Heads:
    """Heads made once in a run's folder, read back on every later call."""
    about: dict[str, Any] = {}

    def arrays() -> dict[str, Any]:
        import torch

        heads = make()
        about.update(kind=heads.kind, names=list(heads.names), about=heads.about, fitted=heads.fitted)
        both = {HEAD + name: array for name, array in heads.arrays.items()} | {"single": heads.single}
        return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in both.items()}

    # The arrays are large and the words are few, so there are two files; without the words, which come last, both are
    # made again.
    words = run.path("heads.made.json")
    stored = run.path("heads.made.safetensors")
    if stored.exists() and not words.exists():
        stored.unlink()
    found = run.once("heads.made.safetensors", arrays)
    told = run.once("heads.made.json", lambda: about)
    single = found["single"].numpy()
    own = {n.removeprefix(HEAD): t.numpy() for n, t in found.items() if n.startswith(HEAD)}
    return Heads(told["kind"], own, tuple(told["names"]), single, told["about"], told["fitted"])
