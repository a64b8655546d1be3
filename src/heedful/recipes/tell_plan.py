"""Before and after a run of `heedful tell`: what does not go together, what it will cost, what came out."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heedful.errors import HeedfulError
from heedful.recipes import plan, tell_methods
from heedful.recipes.settings import out_of_range

if TYPE_CHECKING:
    from heedful.recipes.tell import Config


def settle(cfg: Config) -> Config:
    """Fill in what other options decide and refuse what does not go together.

    Raises HeedfulError with the reason for every pair of options that has no meaning.
    """
    from heedful.recipes.tell import slug

    if not cfg.sentence and cfg.scope:
        from heedful.data.scopes import read_scope

        cfg = replace(cfg, sentence=read_scope(Path(cfg.scope)).sentence)
    if not cfg.sentence.strip():
        raise HeedfulError(
            "say what to learn: heedful tell \"Always end emails to my manager with 'Cheers'\""
        )
    wrong = problems(cfg)
    if wrong:
        raise HeedfulError("; ".join(wrong))
    return cfg if cfg.name else replace(cfg, name=slug(cfg.sentence))


def problems(cfg: Config) -> list[str]:
    """Why these options cannot run, each a sentence; empty when they can."""
    wrong = []
    try:
        near, general = (v if v >= 0 else None for v in (cfg.lambda_near, cfg.lambda_general))
        tell_methods.weights_of(cfg.method, near, general)
    except HeedfulError as error:
        return [str(error)]
    if cfg.name and (
        cfg.name in ("current",) or not all(c.isalnum() or c in "-_." for c in cfg.name) or cfg.name[0] == "."
    ):
        wrong.append(f"--name {cfg.name!r} must be letters, digits, - _ and . and not `current`")
    if cfg.scope and (cfg.domain or cfg.effect):
        wrong.append("--scope FILE says domain and effect itself; give it or --domain and --effect, not both")
    if cfg.teacher_model and not cfg.teacher.startswith(("http://", "https://")):
        wrong.append("--teacher-model is the name of a model on a server: give --teacher URL with it")
    wrong += out_of_range(
        cfg,
        at_least_one=(
            *("prompts", "near_prompts", "test_near", "train_tokens", "max_new_tokens"),
            *("max_rows", "batch_size", "lora_rank", "keep"),
        ),
        not_negative=(
            *("learning_rate", "warmup", "micro_tokens", "max_steps", "save_every", "log_every"),
            *("max_leak", "lora_dropout"),
        ),
        above_zero=("epochs", "beta", "lora_alpha"),
    )
    for name in ("lambda_near", "lambda_general"):
        if math.isnan(getattr(cfg, name)) or getattr(cfg, name) == math.inf:
            wrong.append(f"--{name.replace('_', '-')} must be a number")
    if not cfg.lora_dropout < 1:
        wrong.append("--lora-dropout must be below 1")
    return wrong


def describe(cfg: Config) -> str:
    """The scope, the plan, the memory and the cost; no model is loaded and nothing is written."""
    from heedful.data.scopes import read_scope
    from heedful.recipes import tell_scope

    if cfg.scope:
        shown = tell_scope.describe(read_scope(Path(cfg.scope)))
    elif cfg.teacher:
        shown = f"feedback   {cfg.sentence}\nscope      to be written by {cfg.teacher}"
    else:
        shown = tell_scope.describe(tell_scope.trimmed(tell_scope.preview(cfg), cfg))
    weights = tell_methods.weights_of(cfg.method, None, None)
    tested = 48 + cfg.test_near + 60
    drawn = 2 * tested + 48 + (2 * cfg.prompts + cfg.near_prompts if weights is not None else 0)
    steps = 0
    if weights is not None:
        steps = cfg.max_steps or max(1, round(cfg.epochs * -(-cfg.prompts // cfg.batch_size)))
    per_row = (2 + cfg.near_prompts / cfg.prompts) * (48 + cfg.train_tokens)
    tokens = round(steps * cfg.batch_size * per_row)
    return (
        shown
        + "\n\n"
        + plan.resources(
            cfg,
            trained=f"LoRA by {cfg.method}" if weights is not None else f"nothing ({cfg.method})",
            lora_rank=cfg.lora_rank if weights is not None else 0,
            data=f"{2 * cfg.prompts + cfg.near_prompts} training prompts, {tested} test prompts",
            stages=1,
            steps=steps,
            tokens=tokens,
            drawn=drawn,
        )
    )


def closing(folder: Path, result: dict[str, Any], cfg: Config) -> str:
    """What a finished run says in the terminal: the summary of its report, and what to do next."""
    lines = [plan.closing(folder, result).removesuffix(f"\nmodel:  {folder / 'model'}")]
    if tell_methods.method(cfg.method).weights is not None:
        lines.append(f"adapter: {folder / 'model'}")
        lines.append(f'try it:  heedful sample {folder} "..."')
        if max(result["s_near"], result["s_general"]) <= cfg.max_leak:
            lines.append(f"use it:  heedful tell enable {folder.name} --store {cfg.store}")
    return "\n".join(lines)
