"""`heedful prefer`: tune a language model from preference pairs, or from prompts and a judge.

Tajwar et al. 2024 (Preference Fine-Tuning of LLMs Should Leverage Suboptimal, On-Policy Data) is the paper behind
this job. Departures from it, each on purpose:

1. One reference for the whole run, the start model; its log-probabilities are computed once per row.
2. Log-probabilities are those of whole sequences. (The official code applies DPO and IPO per token.)
3. Sampled token ids are trained as they were drawn, the end token included.
4. Preference pairs from samples are best against worst of N by default; ties are dropped and counted.
5. Every round's completions are scored once by the reference, so that KL and h_w, h_l are known at every step.
6. The first round of the moving-average baselines subtracts its own mean, having no earlier one.
7. kto's reference point is 0, not a KL that is estimated from mismatched pairs of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from heedful.errors import HeedfulError
from heedful.recipes.settings import sampling

if TYPE_CHECKING:
    from heedful.run import Run

VOLATILE = ("json", "quiet", "dry_run", "save_every", "keep", "log_every", "micro_tokens", "max_rows")


@dataclass(frozen=True)
class Config:
    """Tune a language model from preference pairs (--data), or from prompts and a judge (--prompts, --judge)."""

    out: str = "runs/prefer"
    """The run folder. The same command again resumes it."""
    model: str = "smollm2"
    """Where to start: a Hub id, a model folder, a run folder, or `smollm2`."""
    data: str = ""
    """Preference pairs: JSONL (also .gz), Parquet, CSV or hub:owner/name. Columns as in TRL."""
    prompts: str = ""
    """Prompts to answer, for learning from the model's own samples."""
    eval_data: str = ""
    """Held-out pairs; without them a share of the prompts of --data is held out."""
    eval_prompts: str = ""
    """Held-out prompts; without them a share of --prompts is held out."""
    columns: tuple[str, ...] = ()
    """Column names, as `prompt=instruction chosen=good`."""
    drop_faulty_rows: bool = False
    """Leave out rows of --data and --prompts that have errors, and count them, instead of stopping."""
    template: Literal["auto", "chat", "none"] = "auto"
    """Whether a plain-text prompt goes through the chat template; auto: when there is one."""

    judge: str = ""
    """Who scores samples: `rule:...`, `path.py:function` in TRL's reward signature, or `personalize:RUN`, a person."""
    reward_model: str = ""
    """A reward model as the judge: a saved one, or a language model to fit to the pairs of --data."""
    gold: str = ""
    """A second judge, or saved reward model, that only measures: what a proxy's gain is worth."""
    method: str = "dpo"
    """dpo, robust, ipo, hinge, simpo, orpo, kto, sft; from samples also best, rwr, reinforce, ppo, apa."""
    rounds: int = -1
    """Rounds of sample, judge, learn; 0 learns from --data as it is; -1 is 2 with --prompts, else 0."""
    n: int = 4
    """Samples per prompt and round (the paper's C)."""
    prompts_per_round: int = 0
    """Prompts of a round, in turn; 0 takes all. Times --n this is the paper's B; --batch-size is its M (in prompts or
    pairs), --epochs its T: fewer prompts a round is fresher, more epochs is more reuse."""
    offline_share: float = 0.0
    """Share of a round's prompts that come from --data, with its answers, instead of being sampled; 1: all."""
    eval_rounds: int = 0
    """Measure the held-out prompts after every so many rounds; 0: before and after all of them."""
    pairs: Literal["best_worst", "all", "adjacent"] = "best_worst"
    """Which samples of a prompt become pairs."""
    margin: float = 0.0
    """Smallest score difference of a pair."""
    baseline: Literal["none", "batch", "group", "leave_one_out", "ema", "running"] = "group"
    """What reinforce, apa, and ppo without a value head subtract from a score; ema (decay .9) and running: the mean of
    earlier rounds."""
    negative: Literal["none", "worst", "mean", "sum"] = "none"
    """best: hold the other samples down too: the worst, or the mean or sum of all."""
    negative_form: Literal["logp", "ratio", "unlikelihood"] = "logp"
    """best: what of them: log pi, log pi - log ref, or -log(1 - pi)."""
    negative_weight: float = 0.1
    """best: how much that counts."""
    negative_floor: float = 0.01
    """best: samples whose probability is below this share of the best's are let go."""

    reference: Literal["start", "refresh", "ema"] = "start"
    """The reference of dpo and its kin: the start model; the policy at the start of each round; or a moving average."""
    reference_decay: float = 0.6
    """reference ema: what the reference keeps of itself at each round (TR-DPO's 1 - alpha)."""

    beta: float = -1.0
    """Strength of the reference in dpo, robust, ipo, hinge, kto, orpo and simpo (their papers' beta or lambda); -1 is
    0.1, with simpo 2."""
    label_smoothing: float = 0.0
    """dpo and robust: assumed share of flipped labels."""
    gamma: float = 1.0
    """simpo: target margin."""
    tau: float = 1.0
    """rwr: temperature of the weights; apa: what advantages are divided by (lambda)."""
    clip: float = 0.2
    """ppo: ratio clip."""
    value_coef: float = 0.1
    """ppo: weight of the value head's loss; 0: no value head, advantages as in reinforce."""
    value_clip: float = 0.2
    """ppo: how far a value may move in a round."""
    discount: float = 1.0
    """ppo: of rewards by token."""
    gae_lambda: float = 0.95
    """ppo: lambda of generalised advantage estimation."""
    kl: float = 0.0
    """reinforce, ppo, apa, rwr, best: subtract kl * log(policy/start) from every score (ppo: by token)."""
    kl_target: float = 0.0
    """Adapt kl towards this KL per completion, in nats; 0 keeps it fixed. Needs samples at temperature 1, none cut."""
    kl_horizon: float = 10000.0
    """Completions over which kl adapts."""

    max_new_tokens: int = 128
    """Longest sample, in tokens."""
    temperature: float = 1.0
    """Of sampling, in training and evaluation."""
    top_p: float = 1.0
    """Of sampling."""
    top_k: int = 0
    """Of sampling."""
    stop: tuple[str, ...] = ()
    """Strings that end a sample."""
    max_rows: int = 256
    """Samples drawn at the same time; lower it when memory runs out."""

    lora_rank: int = 16
    """Rank of the adapter; 0 trains all weights."""
    lora_alpha: float = 32.0
    """Scale of the adapter."""
    learning_rate: float = 1e-4
    """Peak learning rate of AdamW."""
    batch_size: int = 8
    """Pairs (or prompts with their samples) per step."""
    epochs: float = 1.0
    """Passes over the rows of a round."""
    max_steps: int = 0
    """Steps of a round, instead of epochs, when above 0."""
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    """How the learning rate falls."""
    warmup: float = 0.1
    """Steps of warm-up, or a share when below 1."""
    weight_decay: float = 0.0
    """Of AdamW."""
    clip_norm: float = 1.0
    """Largest gradient norm."""
    ema: float = 0.0
    """Decay of averaged weights; 0 keeps none."""
    micro_tokens: float = 1024.0
    """Token positions per forward pass; lower it when memory runs out, the result is the same."""
    save_every: int = 20
    """Steps between checkpoints."""
    keep: int = 2
    """Checkpoints kept."""
    log_every: int = 1
    """Steps between metric rows."""

    eval_share: float = 0.1
    """Share of prompts held out when no held-out file is given."""
    eval_limit: int = 64
    """Most held-out prompts that are answered."""
    eval_n: int = 2
    """Samples per held-out prompt."""
    merged: bool = False
    """Save the adapter merged into the weights."""
    seed: int = 0
    """Of everything."""
    device: str = "auto"
    """cpu, cuda, mps or auto."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Arithmetic of the forward pass."""
    preset: Literal["laptop", "paper"] = "laptop"
    """laptop: SmolLM2 in minutes. paper: Pythia-1.4B with the paper's settings (Tajwar et al. 2024), offline; its
    on-policy runs add --learning-rate 1e-5."""
    dry_run: bool = False
    """Print the plan, the memory and the cost, and stop."""
    json: bool = False
    """Print result.json on standard output."""
    quiet: bool = False
    """No progress display."""


def preset(name: str) -> Config:
    """The defaults of a preset. Raises HeedfulError for an unknown name."""
    if name == "laptop":
        return Config()
    if name == "paper":
        # understanding-rlhf scripts: DPO lr 5e-7 (on-policy it is 1e-5), batch 64, T=1, 256 new tokens
        return replace(
            Config(),
            preset="paper",
            model="EleutherAI/pythia-1.4b",
            lora_rank=0,
            learning_rate=5e-7,
            batch_size=64,
            beta=0.05,
            schedule="constant",
            warmup=0.0,
            max_new_tokens=256,
            max_steps=600,
            micro_tokens=8192.0,
            eval_limit=1000,
            save_every=100,
        )
    raise HeedfulError(f"preset {name!r} is neither laptop nor paper")


def main(cfg: Config) -> int:
    """What `heedful prefer` does; the exit status."""
    import json

    from heedful.recipes import plan
    from heedful.recipes.personalize_judge import state_files
    from heedful.run import open_run

    cfg = settle(cfg)
    if cfg.dry_run:
        print(plan.describe(cfg))
        return 0
    from heedful.recipes.prefer_data import model_files

    files = [
        f for f in (cfg.data, cfg.prompts, cfg.eval_data, cfg.eval_prompts) if f and not f.startswith("hub:")
    ]
    files += state_files(cfg.judge, cfg.gold) + model_files(cfg.reward_model, cfg.gold)
    with open_run(cfg.out, cfg, seed=cfg.seed, data=files, volatile=VOLATILE) as opened:
        # Of several processes one speaks.
        cfg = replace(cfg, quiet=True, json=False) if opened.rank else cfg
        result = run(cfg, opened)
    if cfg.json:
        print(json.dumps(result, ensure_ascii=False))
    elif not cfg.quiet:
        print(plan.closing(Path(cfg.out), result))
    return 0


def settle(cfg: Config) -> Config:
    """Fill in what other options decide and refuse what does not go together.

    Raises HeedfulError with the reason for every pair of options that has no meaning.
    """
    from heedful.recipes.plan import beta_of, problems, unused

    if cfg.rounds < 0:
        cfg = replace(cfg, rounds=2 if cfg.prompts else 0)
    cfg = replace(cfg, beta=beta_of(cfg))
    wrong = problems(cfg) + unused(cfg)
    if wrong:
        raise HeedfulError("; ".join(wrong))
    return cfg


def run(cfg: Config, run: Run) -> dict[str, float]:
    """Tune, measure before and after on held-out prompts, save the model and the report; returns result.json.

    Every stage is kept in the run folder: a second call goes on where the first one stopped.
    """
    from heedful.evals import heldout
    from heedful.policies.backbone import Lora
    from heedful.policies.language import LanguagePolicy
    from heedful.recipes import prefer_data, prefer_report, prefer_rounds

    data = prefer_data.load(cfg, run)
    lora = Lora(cfg.lora_rank, cfg.lora_alpha) if cfg.lora_rank else None
    how: dict[str, Any] = {"template": cfg.template, "precision": cfg.precision, "device": cfg.device}
    fitted = prefer_data.is_fitted(cfg)
    judge = None if fitted else prefer_data.judge(cfg, data, run, how)
    gold = prefer_data.gold_judge(cfg, data, how)
    files = prefer_data.judge_files(cfg)
    policy = LanguagePolicy.load(cfg.model, lora=lora, seed=run.seed_for("adapter"), **how)
    prefer_data.check_lengths(cfg, policy, data)
    if fitted:
        judge = prefer_data.judge(cfg, data, run, how)
    policy.keep_reference()

    ask: dict[str, Any] = {"n": cfg.eval_n, "quiet": cfg.quiet, **sampling(cfg)}
    before = heldout.answer(policy, data.eval_prompts, judge, "before", run, **ask)
    # Only now: a judge that failed when it was first asked has judged nothing, and may be corrected unnoticed.
    warnings = prefer_data.changed(files, run)
    counts = prefer_rounds.learn(cfg, policy, data, judge, gold, run)
    after = heldout.answer(policy, data.eval_prompts, judge, "after", run, **ask)
    measured = heldout.measure(
        policy,
        before,
        after,
        data.eval_pairs or heldout.as_pairs(before),
        run,
        quiet=cfg.quiet,
        **sampling(cfg),
    )
    if gold is not None:
        heldout.add_gold(measured, before, after, gold, run)
    return prefer_report.finish(cfg, policy, data, before, after, measured, counts, warnings, run)
