"""Before and after a run of `heedful tell`: what does not go together, what it will cost, what came out."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heedful.data.problems import printable
from heedful.errors import HeedfulError
from heedful.recipes import plan, tell_methods
from heedful.recipes.settings import out_of_range
from heedful.recipes.tell_store import check_name

if TYPE_CHECKING:
    from heedful.recipes.tell import Config


def settle(cfg: Config) -> Config:
    """Fill in what other options decide and refuse what does not go together.

    Raises HeedfulError with the reason for every pair of options that has no meaning.
    """
    from heedful.recipes.tell import slug

    if cfg.scope:
        from heedful.data.scopes import read_scope

        sentence = read_scope(Path(cfg.scope)).sentence
        if cfg.sentence and cfg.sentence.split() != sentence.split():
            raise HeedfulError(
                f"{cfg.scope} has another sentence, {printable(sentence)!r}: leave the sentence out, or change the file"
            )
        cfg = replace(cfg, sentence=cfg.sentence or sentence)
    if not cfg.sentence.strip():
        raise HeedfulError(
            "say what to learn: heedful tell \"Always end emails to my manager with 'Cheers'\""
        )
    wrong = problems(cfg)
    if wrong:
        raise HeedfulError("; ".join(wrong))
    cfg = cfg if cfg.name else replace(cfg, name=slug(cfg.sentence))
    try:
        check_name(cfg.name)
    except HeedfulError as error:
        raise HeedfulError(f"--name: {error}") from None
    return cfg


def problems(cfg: Config) -> list[str]:
    """Why these options cannot run, each a sentence; empty when they can."""
    wrong = []
    try:
        near, general = (v if v >= 0 else None for v in (cfg.lambda_near, cfg.lambda_general))
        tell_methods.weights_of(cfg.method, near, general)
    except HeedfulError as error:
        return [str(error)]
    if cfg.scope and (cfg.domain or cfg.effect):
        wrong.append("--scope FILE says domain and effect itself; give it or --domain and --effect, not both")
    server = cfg.teacher.startswith(("http://", "https://"))
    if cfg.teacher_model and not server:
        wrong.append("--teacher-model is the name of a model on a server: give --teacher URL with it")
    if server and not cfg.teacher_model:
        wrong.append("--teacher is a server: give --teacher-model, the name of the model on it")
    wrong += unused(cfg)
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


def unused(cfg: Config) -> list[str]:
    """Which options were given and change nothing, each a sentence. A preset's own values nobody gave."""
    from heedful.recipes.tell import preset

    usual = preset(cfg.preset)
    wrong = []
    given = [n for n in ("prompts", "near_prompts", "test_near") if getattr(cfg, n) != getattr(usual, n)]
    if cfg.scope and given:
        names = " and ".join(f"--{name.replace('_', '-')}" for name in given)
        wrong.append(
            f"{names}: a --scope FILE is used whole; take prompts out of it, or leave the option out"
        )
    weights = tell_methods.method(cfg.method).weights
    if cfg.beta != usual.beta and not (weights and weights.dpo):
        wrong.append(f"--beta has no meaning with {cfg.method}: it has no DPO")
    return wrong


def describe(cfg: Config) -> str:
    """The scope, the plan, the memory and the cost; no model is loaded and nothing is written.

    The scope is that of the run folder where it was made already. Raises HeedfulError for one that cannot work.
    """
    from heedful.data.scopes import read_scope
    from heedful.recipes import tell_scope
    from heedful.recipes.tell_eval import NOISE

    there = Path(cfg.store) / cfg.name / "scope.yaml"
    trained = {"in": cfg.prompts, "near": cfg.near_prompts, "general": cfg.prompts}
    tested = {"in": 48, "near": cfg.test_near, "general": 60}
    shown = f"feedback   {cfg.sentence}\nscope      to be written by {cfg.teacher}"
    if there.exists() or cfg.scope or not cfg.teacher:
        path = there if there.exists() else Path(cfg.scope)
        known = there.exists() or cfg.scope
        scope = read_scope(path) if known else tell_scope.trimmed(tell_scope.preview(cfg), cfg)
        tell_scope.check(scope, cfg)
        shown = tell_scope.describe(scope)
        trained, tested = ({kind: len(part[kind]) for kind in part} for part in (scope.train, scope.test))
    weights = tell_methods.weights_of(cfg.method, None, None)
    again = sum(min(NOISE // 2, tested[kind]) for kind in ("near", "general"))
    drawn = 2 * sum(tested.values()) + again + (sum(trained.values()) if weights is not None else 0)
    steps = 0
    if weights is not None:
        steps = cfg.max_steps or max(1, round(cfg.epochs * -(-trained["in"] // cfg.batch_size)))
    # Of a smaller set prompts come again, of a larger one several go into a row.
    others = sum(max(1.0, trained[kind] / trained["in"]) for kind in ("near", "general"))
    per_row = (1 + others) * (48 + cfg.train_tokens)
    tokens = round(steps * cfg.batch_size * per_row)
    return (
        shown
        + "\n\n"
        + plan.resources(
            cfg,
            trained=f"LoRA by {cfg.method}" if weights is not None else f"nothing ({cfg.method})",
            lora_rank=cfg.lora_rank if weights is not None else 0,
            data=f"{sum(trained.values())} training prompts, {sum(tested.values())} test prompts",
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
