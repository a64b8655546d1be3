"""dpo and grpo of `heedful search improve`: the driver of `heedful prefer` over a world's problems and verifier."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from heedful.policies.language import LanguagePolicy
from heedful.recipes import prefer, prefer_rounds
from heedful.recipes.prefer_data import Data
from heedful.recipes.search_measure import room
from heedful.recipes.search_world import World
from heedful.run import Run

if TYPE_CHECKING:
    from heedful.recipes.search_improve import Config


def learn(cfg: Config, policy: LanguagePolicy, world: World, run: Run) -> dict[str, Any]:
    """Learn in rounds; returns what was selected. dpo raises NothingToLearn when no problem of a round has
    streams worth more than others; grpo then goes on to the next round."""
    policy.keep_reference()
    prompts = world.train(0, cfg.rounds * cfg.problems)
    counts = prefer_rounds.learn(
        driver_config(cfg, room(policy, prompts, cfg.max_new_tokens)),
        policy,
        Data(prompts=prompts),
        world.judge,
        None,
        run,
    )
    return {"selected": counts}


def driver_config(cfg: Config, new_tokens: int) -> prefer.Config:
    """The driver's settings: all weights, problems in turn, solved against not solved or group advantages."""
    grpo = cfg.method == "grpo"
    return prefer.Config(
        method="ppo" if grpo else "dpo",
        rounds=cfg.rounds,
        n=cfg.n,
        prompts_per_round=cfg.problems,
        pairs="best_worst",
        baseline="group",
        value_coef=0.0 if grpo else prefer.Config.value_coef,
        beta=cfg.beta,
        clip=cfg.clip,
        lora_rank=0,
        temperature=cfg.temperature,
        max_new_tokens=new_tokens,
        max_rows=cfg.max_rows,
        learning_rate=cfg.learning_rate,
        batch_size=cfg.batch_size,
        epochs=cfg.epochs,
        schedule=cfg.schedule,
        warmup=cfg.warmup,
        weight_decay=cfg.weight_decay,
        clip_norm=cfg.clip_norm,
        micro_tokens=cfg.micro_tokens,
        save_every=cfg.save_every,
        keep=cfg.keep,
        log_every=cfg.log_every,
        quiet=cfg.quiet,
    )
