"""Before a run of `heedful retrieve train`: what does not go together, what it will cost."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

from heedful.errors import HeedfulError
from heedful.recipes import plan
from heedful.recipes.retrieve_open import is_server, model_problems, search_problems
from heedful.recipes.retrieve_train import TRAINS
from heedful.recipes.retrieve_writers import RULES
from heedful.recipes.settings import out_of_range

if TYPE_CHECKING:
    from heedful.recipes.retrieve_train import Config

WORD_TOKENS, FRAME_TOKENS, QUESTION_TOKENS, QUERY_TOKENS = 1.4, 60, 30, 12
"""For estimates: tokens of a word of a passage; of the prompt's own words; of a question; of a query."""
DEFAULT_TEMPERATURE = {"prompts": 0.1, "temperature": 1.0}


def settle(cfg: Config) -> Config:
    """Fill in what other options decide and refuse what does not go together.

    Raises HeedfulError with the reason for every pair of options that has no meaning.
    """
    wrong = problems(cfg)
    if wrong:
        raise HeedfulError("; ".join(wrong))
    if cfg.temperature < 0:
        cfg = replace(cfg, temperature=DEFAULT_TEMPERATURE[cfg.diversity])
    if cfg.method in ("few_shot", "few_shot_all"):
        cfg = replace(cfg, bootstrap_hops="first" if cfg.method == "few_shot" else "all")
    return cfg


def problems(cfg: Config) -> list[str]:
    """Why these options cannot run, each a sentence; empty when they can."""
    wrong = search_problems(cfg)
    if not cfg.questions:
        wrong.append("--questions is needed: what is to be learned from")
    if is_server(cfg.model) or cfg.model in RULES:
        wrong.append(f"--model {cfg.model} cannot be trained here: name a model folder, a Hub id or a run")
    if cfg.reader in RULES:
        wrong.append(f"--reader {cfg.reader}: a rule cannot read; name a model")
    wrong += model_problems([("--reader", cfg.reader, cfg.reader_model)])
    if cfg.reward.startswith("answer-") and not cfg.reader:
        wrong.append(f"--reward {cfg.reward} is about a reader's answer: name a model with --reader")
    drawn = SimpleNamespace(
        **{**vars(cfg), "temperature": max(cfg.temperature, 0.0), "top_p": 1.0, "top_k": 0}
    )
    wrong += out_of_range(
        drawn,
        at_least_one=(
            *("prompts", "samples", "iterations", "bootstrap_train", "bootstrap_dev", "demos", "max_rows"),
            *("cd_batch_size", "batch_size", "eval_limit", "keep"),
        ),
        not_negative=(
            *("candidates", "bootstrap_rounds", "limit", "cd_learning_rate", "learning_rate", "warmup"),
            *("clip_norm", "micro_tokens", "save_every", "log_every", "lora_rank"),
        ),
        above_zero=("beta", "cd_epochs", "epochs", "lora_alpha"),
    )
    if cfg.temperature != cfg.temperature:
        wrong.append("--temperature must be a number")
    if not 0 <= cfg.max_absent <= 1:
        wrong.append("--max-absent must be from 0 to 1")
    if not 0 < cfg.eval_share < 1:
        wrong.append("--eval-share must be between 0 and 1")
    if cfg.merged and not cfg.lora_rank:
        wrong.append("--merged has no meaning with --lora-rank 0: all weights are saved")
    if cfg.rules and cfg.method not in TRAINS:
        wrong.append(
            f"--rules has no meaning with {cfg.method}, which tries no queries; --measure has rules, too"
        )
    if cfg.method in TRAINS:
        if cfg.diversity == "temperature" and cfg.temperature == 0:
            wrong.append(
                "--diversity temperature needs a --temperature above 0: at 0 all queries are the same"
            )
        if cfg.prompts * cfg.samples + len(cfg.rules) < 2:
            wrong.append(
                "queries are compared: --prompts times --samples must be at least 2, or name --rules"
            )
        if len(set(cfg.rules)) < len(cfg.rules):
            wrong.append(f"--rules {' '.join(cfg.rules)} names a rule twice")
        if cfg.diversity == "prompts" and cfg.prompts > 2 + cfg.candidates:
            wrong.append(
                f"--prompts {cfg.prompts} needs at least {cfg.prompts - 2} --candidates: beside the prompt without "
                "demonstrations and the one with the first of them, all are candidates"
            )
    if cfg.method != "leret":
        for name, default in (("loss", "ipo"), ("beta", 0.05)):
            if getattr(cfg, name) != default:
                wrong.append(f"--{name} has no meaning with {cfg.method}, which learns no preferences")
    return wrong


def describe(cfg: Config) -> str:
    """The plan, the memory and the cost; no model is loaded and nothing is written. Gold passages per question and the
    number of pairs are guesses, so the cost is one of the order."""
    from heedful.data.hops import read_questions
    from heedful.recipes.retrieve_pipeline import hops_for

    questions = read_questions(cfg.questions, cfg.limit)
    held = min(cfg.eval_limit, round(len(questions) * cfg.eval_share))
    train = len(questions) - (0 if cfg.eval_questions else held)
    if cfg.eval_questions:
        held = len(read_questions(cfg.eval_questions, cfg.eval_limit))
    hops = hops_for(questions, cfg.hops)
    zero = FRAME_TOKENS + QUESTION_TOKENS + round((hops - 1) / 2 * cfg.k * cfg.passage_words * WORD_TOKENS)
    bootstraps = cfg.method not in ("base",) and (cfg.diversity == "prompts" or "few_shot" in cfg.method)
    trains = cfg.method in TRAINS
    first = 1 if cfg.bootstrap_hops == "first" else hops
    beside = [name for name in cfg.measure if name not in RULES]
    drawn = held * hops * (1 + trains + len(beside) * trains)
    if bootstraps:
        drawn += first * (cfg.bootstrap_train + (2 + cfg.candidates) * cfg.bootstrap_dev)
    tried = train * hops * cfg.prompts * cfg.samples if trains else 0
    ruled = hops * ((len(cfg.measure) - len(beside)) * held + trains * len(cfg.rules) * train)
    informative = round(train * hops * 0.7)
    pairs = round(informative * 2.5) if cfg.method == "leret" else 0
    imitated = tried if cfg.method == "sft_all" else informative
    cd_steps = round(cfg.cd_epochs * imitated / cfg.cd_batch_size) if trains else 0
    steps = round(cfg.epochs * pairs / cfg.batch_size)
    tokens = (cd_steps * cfg.cd_batch_size + steps * cfg.batch_size) * (zero + 2 * QUERY_TOKENS)
    lines = plan.resources(
        cfg,
        trained=f"{'LoRA' if cfg.lora_rank else 'all'} by {cfg.method}"
        if trains
        else f"nothing ({cfg.method})",
        lora_rank=cfg.lora_rank if trains else 0,
        data=f"{train:,} questions to learn from, {held:,} held out, {hops} hops",
        stages=cfg.iterations * (1 + (cfg.method == "leret")) if trains else 0,
        steps=cd_steps + steps,
        tokens=tokens,
        drawn=drawn + tried,
        prompt_tokens=zero,
    )
    told = [
        f"  searches     about {drawn + tried + ruled:,}, of {cfg.k} passages each",
        f"  prompts      about {zero:,} tokens on average without demonstrations, which are encoded once for many",
        f"  pairs        about {pairs:,}, if 7 in 10 questions and hops have queries of different worth",
    ]
    before, _, after = lines.partition("memory\n")
    return before + "\n".join(told) + "\nmemory\n" + after
