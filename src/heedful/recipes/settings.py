"""From a job's options to the settings of sampling and of `fit`, and what is out of range: the same for every job."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from heedful.fit import FitConfig

DRAWN = ("temperature", "top_p", "top_k", "max_new_tokens", "stop", "max_rows")
RENAMED = {"lr": "learning_rate", "micro_cost": "micro_tokens"}
"""Settings of `fit` that a command line calls otherwise."""


def sampling(cfg: Any) -> dict[str, Any]:
    """How completions are drawn: the options of `LanguagePolicy.sample` that the job has."""
    return {name: getattr(cfg, name) for name in DRAWN if hasattr(cfg, name)}


def fit_config(cfg: Any, precision: str) -> FitConfig:
    """The settings of `fit`: what the job has as options, and fit's own defaults for the rest."""
    from dataclasses import fields

    from heedful.fit import FitConfig

    names = {field.name: RENAMED.get(field.name, field.name) for field in fields(FitConfig)}
    given = {name: getattr(cfg, option) for name, option in names.items() if hasattr(cfg, option)}
    return FitConfig(**{**given, "precision": precision})


def out_of_range(
    cfg: Any, *, at_least_one: Sequence[str], not_negative: Sequence[str], above_zero: Sequence[str]
) -> list[str]:
    """What training or sampling would refuse too, but only after a model was loaded; each a sentence.

    NaN, which compares as false with everything, is refused as well.
    """
    wrong = []
    for name in at_least_one:
        if getattr(cfg, name) < 1:
            wrong.append(f"--{name.replace('_', '-')} must be at least 1")
    for name in not_negative:
        if not 0 <= getattr(cfg, name) < math.inf:
            wrong.append(f"--{name.replace('_', '-')} must be a number of 0 or more")
    for name in above_zero:
        if not 0 < getattr(cfg, name) < math.inf:
            wrong.append(f"--{name.replace('_', '-')} must be a number above 0")
    draws = hasattr(cfg, "temperature")
    if draws and (not cfg.temperature >= 0 or not 0 < cfg.top_p <= 1 or cfg.top_k < 0):
        wrong.append("--temperature and --top-k must be 0 or more, --top-p above 0 and at most 1")
    return wrong
