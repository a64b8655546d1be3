"""Before and after a run of `heedful prefer`: what does not go together, what it will cost, what came out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from heedful.recipes.settings import out_of_range

if TYPE_CHECKING:
    from heedful.recipes.prefer import Config

SHORT = 64
"""Tokens of a prompt where a job does not say."""
FROM_PAIRS = ("dpo", "robust", "ipo", "hinge", "simpo", "orpo", "kto", "sft")
FROM_SAMPLES = ("best", "rwr", "reinforce", "ppo", "apa")
OPTION_OF = {
    "label_smoothing": (0.0, ("dpo", "robust")),
    "gamma": (1.0, ("simpo",)),
    "tau": (1.0, ("rwr", "apa")),
    "clip": (0.2, ("ppo",)),
    "value_coef": (0.1, ("ppo",)),
    "value_clip": (0.2, ("ppo",)),
    "discount": (1.0, ("ppo",)),
    "gae_lambda": (0.95, ("ppo",)),
    "kl": (0.0, FROM_SAMPLES),
    "kl_target": (0.0, ("rwr", "reinforce", "ppo", "apa")),
    "baseline": ("group", ("reinforce", "ppo", "apa")),
    "negative": ("none", ("best",)),
    "negative_form": ("logp", ("best",)),
    "negative_weight": (0.1, ("best",)),
    "negative_floor": (0.01, ("best",)),
    "reference": ("start", ("dpo", "robust", "ipo", "hinge", "kto", "best")),
    "pairs": ("best_worst", FROM_PAIRS),
    "margin": (0.0, FROM_PAIRS),
}


WITH_BETA = ("dpo", "robust", "ipo", "hinge", "simpo", "orpo", "kto")
BETA, BETA_OF = 0.1, {"simpo": 2.0}
"""What --beta is where it is not given; Meng et al. 2024 take 2 to 2.5 for SimPO, whose loss is per token."""


def beta_of(cfg: Config) -> float:
    """The beta of the loss: as it is given, or the method's own."""
    return BETA_OF.get(cfg.method, BETA) if cfg.beta == -1 else cfg.beta


def unused(cfg: Config) -> list[str]:
    """Which options were given and change nothing, each a sentence. A preset's own values nobody gave."""
    from heedful.recipes.prefer import preset

    usual = preset(cfg.preset)
    wrong = []
    if cfg.method not in WITH_BETA and cfg.beta not in (BETA, usual.beta):
        wrong.append(f"--beta has no meaning with {cfg.method} (only {', '.join(WITH_BETA)})")
    if not cfg.rounds and cfg.n != usual.n:
        wrong.append("--n needs rounds: give --rounds")
    if not cfg.lora_rank and cfg.lora_alpha != usual.lora_alpha and not cfg.reward_model:
        wrong.append("--lora-alpha has no meaning with --lora-rank 0: there is no adapter")
    return wrong


def problems(cfg: Config) -> list[str]:
    """Why these options cannot run, each a sentence; empty when they can."""
    wrong = []
    if cfg.method not in FROM_PAIRS + FROM_SAMPLES:
        return [f"there is no method {cfg.method!r}; choose one of {', '.join(FROM_PAIRS + FROM_SAMPLES)}"]
    if not cfg.data and not cfg.prompts:
        wrong.append("give --data FILE (preference pairs) or --prompts FILE with --judge")
    if cfg.judge and cfg.reward_model:
        wrong.append("give --judge or --reward-model, not both")
    only_pairs = cfg.offline_share == 1 and cfg.method in FROM_PAIRS
    if cfg.rounds > 0 and not (cfg.judge or cfg.reward_model) and not only_pairs:
        wrong.append("learning from samples needs --judge or --reward-model")
    wrong += _round_problems(cfg)
    if cfg.rounds == 0 and cfg.method in FROM_SAMPLES:
        wrong.append(f"{cfg.method} learns from scored samples: give --prompts and --judge (or --rounds)")
    if cfg.rounds == 0 and cfg.prompts:
        wrong.append(
            "--rounds 0 learns from --data and leaves --prompts unused; use --eval-prompts, or --rounds 1"
        )
    if cfg.rounds == 0 and not cfg.data and cfg.prompts:
        wrong.append("--rounds 0 needs --data")
    if cfg.rounds > 0 and cfg.n < 2 and cfg.method != "reinforce":
        wrong.append(f"{cfg.method} compares samples of a prompt: --n must be at least 2")
    if (
        cfg.rounds > 0
        and cfg.n == 1
        and cfg.method == "reinforce"
        and cfg.baseline in ("group", "leave_one_out")
    ):
        wrong.append(
            f"--baseline {cfg.baseline} compares samples of a prompt: --n must be at least 2, "
            "or --baseline none or batch"
        )
    if cfg.eval_data and not cfg.data:
        wrong.append("--eval-data needs --data")
    for name, (default, methods) in OPTION_OF.items():
        if getattr(cfg, name) != default and cfg.method not in methods:
            wrong.append(
                f"--{name.replace('_', '-')} has no meaning with {cfg.method} (only {', '.join(methods)})"
            )
    if cfg.rounds == 0 and (cfg.pairs != "best_worst" or cfg.margin):
        wrong.append("--pairs and --margin select among samples; with --rounds 0 there are none")
    if cfg.merged and not cfg.lora_rank:
        wrong.append("--merged has no meaning with --lora-rank 0: all weights are saved")
    wrong += out_of_range(
        cfg,
        at_least_one=("n", "max_new_tokens", "batch_size", "eval_limit", "eval_n", "max_rows", "keep"),
        not_negative=(
            *("learning_rate", "warmup", "weight_decay", "clip_norm", "micro_tokens", "margin"),
            *("max_steps", "save_every", "log_every", "prompts_per_round", "eval_rounds", "kl_target"),
            *("value_coef", "negative_weight", "kl"),
        ),
        above_zero=("epochs", "beta", "tau", "clip", "value_clip", "kl_horizon"),
    )
    if not 0 <= cfg.ema < 1:
        wrong.append("--ema must be 0 or more and below 1")
    if not 0 <= cfg.label_smoothing < 0.5:
        wrong.append("--label-smoothing must be 0 or more and below 0.5")
    for name in ("discount", "gae_lambda", "reference_decay"):
        if not 0 <= getattr(cfg, name) <= 1:
            wrong.append(f"--{name.replace('_', '-')} must be from 0 to 1")
    if not 0 <= cfg.negative_floor < 1:
        wrong.append("--negative-floor must be 0 or more and below 1")
    if not 0 < cfg.eval_share < 1:
        wrong.append("--eval-share must be between 0 and 1")
    if cfg.lora_rank < 0:
        wrong.append("--lora-rank must be 0 or more")
    return wrong


def _round_problems(cfg: Config) -> list[str]:
    """What does not go together in the driver's own options."""
    wrong = []
    if not 0 <= cfg.offline_share <= 1:
        wrong.append("--offline-share must be from 0 to 1")
    elif cfg.offline_share and not cfg.data:
        wrong.append("--offline-share takes answers from --data: give it")
    if not cfg.rounds:
        alone = ("prompts_per_round", "offline_share", "eval_rounds")
        wrong += [f"--{n.replace('_', '-')} needs rounds: give --rounds" for n in alone if getattr(cfg, n)]
        if cfg.reference != "start":
            wrong.append("--reference refresh and ema move from round to round: give --rounds")
    if cfg.reference_decay != 0.6 and cfg.reference != "ema":
        wrong.append("--reference-decay has no meaning without --reference ema")
    if cfg.reference != "start" and cfg.method == "best" and cfg.negative_form != "ratio":
        wrong.append("--reference has no meaning with best (only with --negative-form ratio)")
    if cfg.negative == "none":
        given = (("negative_form", "logp"), ("negative_weight", 0.1), ("negative_floor", 0.01))
        wrong += [
            f"--{name.replace('_', '-')} has no meaning without --negative"
            for name, default in given
            if getattr(cfg, name) != default
        ]
    if cfg.kl_target and not cfg.kl:
        wrong.append("--kl-target adapts --kl: give --kl a first value above 0")
    if cfg.kl_target:
        from heedful.policies.stages import plain_sampling

        if not plain_sampling(temperature=cfg.temperature, top_p=cfg.top_p, top_k=cfg.top_k):
            wrong.append(
                "--kl-target needs samples that tell the KL: leave --temperature at 1, --top-p at 1 and --top-k at 0"
            )
    if cfg.kl_horizon != 10000.0 and not cfg.kl_target:
        wrong.append("--kl-horizon has no meaning without --kl-target")
    if cfg.method == "ppo" and cfg.value_coef and cfg.baseline != "group":
        wrong.append("--baseline has no meaning with ppo's value head (--value-coef 0 leaves it out)")
    if cfg.gold and not (cfg.prompts or cfg.data):
        wrong.append("--gold scores held-out prompts: give --prompts or --data")
    return wrong


def describe(cfg: Config) -> str:
    """The plan, the memory and the cost of a run, from the model's configuration alone; nothing is loaded."""
    rows, prompts = _count(cfg.data), _count(cfg.prompts)
    per_round = rows if not cfg.rounds else cfg.prompts_per_round or prompts or rows
    steps = cfg.max_steps or max(1, round(cfg.epochs * -(-per_round // cfg.batch_size)))
    steps *= max(1, cfg.rounds)
    held = min(cfg.eval_limit, max(1, int(per_round * cfg.eval_share))) * cfg.eval_n * 2
    measured = 1 + (cfg.rounds // cfg.eval_rounds) / 2 if cfg.eval_rounds else 1
    return resources(
        cfg,
        trained=f"{'LoRA' if cfg.lora_rank else 'all'} by {cfg.method}",
        lora_rank=cfg.lora_rank,
        data=f"{rows:,} pairs, {prompts:,} prompts",
        stages=max(1, cfg.rounds),
        steps=steps,
        tokens=steps * cfg.batch_size * (SHORT + 2 * cfg.max_new_tokens),
        drawn=round(cfg.rounds * per_round * cfg.n * (1 - cfg.offline_share) + held * measured),
    )


def resources(
    cfg: Any,
    *,
    trained: str,
    lora_rank: int,
    data: str,
    stages: int,
    steps: int,
    tokens: int,
    drawn: int,
    prompt_tokens: int = SHORT,
) -> str:
    """Memory and cost of `steps` that train on `tokens` token positions in all, and of `drawn` completions.

    cfg has model, preset, batch_size, max_new_tokens, max_rows, micro_tokens and precision. lora_rank 0 trains all
    weights. prompt_tokens: of an average prompt; those of long ones take memory while sampling, too. Memory counts
    weights, gradients, AdamW's two moments, checkpoints of activations for one micro-batch and the keys and values of
    the rows sampled together. Cost counts 2 floating-point operations per weight and token forward and 4 backward. Both
    are estimates.
    """
    from heedful.model_sizes import size_of

    size = size_of(cfg.model)
    weights_trained = lora_rank * sum(a + b for a, b in size.linear) if lora_rank else size.parameters
    if not steps:
        weights_trained = 0
    half = 2 if cfg.precision != "fp32" else 4
    weights = size.parameters * (half if lora_rank or not steps else 4)
    reference = 0 if lora_rank or not steps else size.parameters * 4
    states = weights_trained * 12
    activations = cfg.micro_tokens * size.layers * size.hidden * 34 * half / 2 if steps else 0
    kept = cfg.max_new_tokens + (prompt_tokens if prompt_tokens > SHORT else 0)
    cache = cfg.max_rows * kept * size.layers * size.kv_width * 2 * half
    sampled = drawn * (cfg.max_new_tokens + prompt_tokens)
    flops = 6 * size.parameters * tokens + 2 * size.parameters * (sampled + tokens)

    def gib(x: float) -> str:
        return f"{x / 2**30:.2f} GiB"

    return "\n".join(
        [
            f"plan ({cfg.preset} preset)",
            f"  model        {cfg.model}: {size.parameters / 1e6:,.1f} M parameters, {size.layers} layers",
            f"  trained      {weights_trained / 1e6:,.2f} M parameters ({trained.replace(' by', ') by', 1)}"
            + ("" if " by" in trained else ")"),
            f"  data         {data}",
            f"  work         {stages} stage(s), {steps:,} steps of {cfg.batch_size}",
            f"  sampling     {drawn:,} completions of up to {cfg.max_new_tokens} tokens",
            "memory",
            f"  weights      {gib(weights)}" + (f", reference {gib(reference)}" if reference else ""),
            f"  training     {gib(states)} gradients and AdamW, about {gib(activations)} activations",
            f"  sampling     about {gib(cache)} keys and values",
            f"  at most      about {gib(weights + reference + max(states + activations, cache))}",
            "cost",
            f"  arithmetic   about {flops / 1e15:,.3f} PFLOP",
            f"  time         about {hours(flops / 1.5e11)} at 150 GFLOP/s (2 CPU cores, bf16), "
            f"{hours(flops / 1.6e14)} at 160 TFLOP/s (one data-centre GPU at 40%)",
            "nothing was run (--dry-run)",
        ]
    )


def hours(seconds: float) -> str:
    """A duration in the unit that suits it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"


def _count(path: str) -> int:
    if not path:
        return 0
    from heedful.data.rows import read

    return sum(1 for _ in read(path))


def closing(folder: Path, result: dict[str, Any], *, model: bool = True) -> str:
    """What a finished run says in the terminal: the summary of its report, and where things are."""
    import json

    report = json.loads((folder / "report.json").read_text())
    lines = [*report["summary"], *(f"warning: {w}" for w in report["warnings"])]
    places = [f"report: {folder / 'report.html'}", *([f"model:  {folder / 'model'}"] if model else [])]
    return "\n".join([*lines, "", *places])
