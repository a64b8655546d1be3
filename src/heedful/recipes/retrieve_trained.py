"""How a trained writer of queries was trained to search, for `heedful retrieve eval` and `ask`.

A writer learns to write for one pipeline: so many hops, so many passages of a hop, one way to merge them, repeats or
none, so many words of each shown. Used with another one it is measured beside what it was made for, so what is not said
is as in training.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from heedful.errors import HeedfulError
from heedful.model_folder import read_json

DEFAULTS: dict[str, Any] = {"hops": 0, "k": 3, "merge": "score", "repeats": "keep", "passage_words": 60}
"""For writers that were not trained here; 0 hops: as the questions need."""
UNSET = (0, "auto")
"""What stands in an option that was not given."""


def trained_with(spec: str) -> dict[str, Any]:
    """hops, k, merge, repeats and passage_words that a run of `heedful retrieve train` was trained with; {} for what is
    none. Runs that say nothing of repeats are older than the choice, and kept them.

    spec: the run folder, or the model folder in it. Raises HeedfulError when its result.json is damaged.
    """
    folder = Path(spec).expanduser()
    for place in (folder / "result.json", folder.parent / "result.json"):
        if not place.is_file():
            continue
        told = read_json(place)
        if told.get("job") != "retrieve train":
            return {}
        told.setdefault("repeats", "keep")
        found = {name: told[name] for name in DEFAULTS if name in told}
        for name, value in found.items():
            right = isinstance(value, type(DEFAULTS[name])) and not isinstance(value, bool)
            if not right or (isinstance(value, int) and value < 1):
                raise HeedfulError(f"{place}: {name} is {value!r}; the file is damaged, train the run again")
        return found
    return {}


def settle(cfg: Any, hops: int = 0) -> tuple[Any, list[str]]:
    """The options with what was not given filled in, and a sentence for each that is not as in training.

    cfg: of `eval` or `ask`; `run` is the writer, `against`, where there is one, the other one. What was not given is as
    the run was trained, else as DEFAULTS say. hops: for a writer that was not trained here.
    """
    own = trained_with(cfg.run)
    fallback = {**DEFAULTS, "hops": hops}
    filled = {
        name: own.get(name, fallback[name]) if getattr(cfg, name) in UNSET else getattr(cfg, name)
        for name in DEFAULTS
    }
    other = getattr(cfg, "against", "")
    told = _differences(cfg.run, own, filled) + (
        _differences(other, trained_with(other), filled) if other else []
    )
    return replace(cfg, **filled), told


def _differences(spec: str, trained: dict[str, Any], used: dict[str, Any]) -> list[str]:
    return [
        f"{spec} was trained with --{name.replace('_', '-')} {value}, and is used here with {used[name]}: it may do "
        "worse than it could."
        for name, value in trained.items()
        if used[name] != value
    ]
