"""`heedful compare-methods`: several methods of `heedful prefer` at one budget, with tuned learning rates.

Tajwar et al. 2024 (Preference Fine-Tuning of LLMs Should Leverage Suboptimal, On-Policy Data, arXiv 2404.14367) asks
when on-policy samples, their reuse and a negative gradient pay. This job asks it of a user's own data and judge:

1. Every method takes the same number of gradient steps and of prompts, each with the same number of samples.
2. Every method has the same learning rates to choose from. The choice is made on held-out prompts that no number of
   the report comes from, with a seed of its own.
3. Advice is given where an interval decides, and says "undecided" where none does.

Departures from the paper: those of `heedful prefer`; and methods are compared by the judge, or by --gold where it is
given, on held-out prompts, not by the training reward.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from heedful.errors import HeedfulError
from heedful.recipes import prefer

if TYPE_CHECKING:
    from heedful.run import Run

VOLATILE = (
    *(*prefer.VOLATILE, "out"),
    # each method and seed has a folder of its own, so further ones may join those that are done
    *("methods", "seeds"),
)


@dataclass(frozen=True)
class Config:
    """Compare methods of preference tuning at one budget, each with its best learning rate, and say which to use."""

    out: str = "runs/methods"
    """The run folder. The same command again resumes it; --methods and --seeds may be added to later."""
    model: str = "smollm2"
    """Where all methods start: a Hub id, a model folder, a run folder, or `smollm2`."""
    data: str = ""
    """Preference pairs, as in prefer; offline methods learn from them alone."""
    prompts: str = ""
    """Prompts to sample for; without them those of --data."""
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
    """Who scores samples and held-out answers: `rule:...`, `path.py:function` in TRL's reward signature, or
    `personalize:RUN`, a person."""
    reward_model: str = ""
    """A reward model as the judge: a saved one, or a language model to fit to the pairs of --data, once for all."""
    gold: str = ""
    """A second judge, or saved reward model, that only measures; the methods are then ranked by it."""
    methods: tuple[str, ...] = ()
    """METHOD[:online|offline][:option=value...], such as `dpo ipo:offline rwr:tau=0.1 best:negative=worst`. online (the
    default) samples, offline takes --data alone; options are those of prefer. rounds= and epochs= change how stale and
    how reused the samples are, at equal steps. Without any: dpo, best and ppo, and with --data dpo and sft offline."""
    learning_rates: tuple[float, ...] = (3e-5, 1e-4, 3e-4)
    """What every method's learning rate is chosen from; one of them alone needs no choice."""
    seeds: int = 1
    """Seeds of training that are reported; the choice of learning rates has one more."""

    rounds: int = 8
    """Rounds of sample, judge, learn."""
    prompts_per_round: int = 16
    """Prompts of a round, in turn; 0 takes all."""
    n: int = 4
    """Samples per prompt and round."""
    epochs: float = 2.0
    """Passes over the samples of a round."""
    batch_size: int = 8
    """Pairs (or prompts with their samples) per step."""
    beta: float = 0.1
    """Strength of the reference, where a method has one and names no own beta."""

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
    reward_learning_rate: float = 1e-4
    """Peak learning rate of a reward model that is fitted here."""
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    """How learning rates fall."""
    warmup: float = 0.1
    """Steps of warm-up, or a share when below 1."""
    weight_decay: float = 0.0
    """Of AdamW."""
    clip_norm: float = 1.0
    """Largest gradient norm."""
    micro_tokens: float = 1024.0
    """Token positions per forward pass; lower it when memory runs out, the result is the same."""
    save_every: int = 20
    """Steps between checkpoints."""
    keep: int = 2
    """Checkpoints kept."""
    log_every: int = 1
    """Steps between metric rows."""

    eval_share: float = 0.2
    """Share of prompts held out when no held-out file is given."""
    tune_share: float = 0.5
    """Share of the held-out prompts that learning rates are chosen on; nothing is reported of them."""
    eval_limit: int = 64
    """Most held-out prompts that are answered, of those to choose on and of those to report on."""
    eval_n: int = 2
    """Samples per held-out prompt."""
    best_of: int = 16
    """Samples of the start model per reported prompt that show where its scores lie."""
    curve_points: int = 4
    """How often the held-out prompts are measured while a method learns; 0: before and after only."""
    seed: int = 0
    """Of the choice of learning rates; the reported seeds are the ones after it."""
    device: str = "auto"
    """cpu, cuda, mps or auto."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Arithmetic of the forward pass."""
    preset: Literal["laptop", "paper"] = "laptop"
    """laptop: SmolLM2. paper: Pythia-1.4B with the paper's settings (Tajwar et al. 2024), 600 steps."""
    dry_run: bool = False
    """Print the plan, the memory and the cost of all methods, and stop."""
    json: bool = False
    """Print result.json on standard output."""
    quiet: bool = False
    """No progress display."""


def preset(name: str) -> Config:
    """The defaults of a preset. Raises HeedfulError for an unknown name."""
    theirs = prefer.preset(name)
    if name == "laptop":
        return Config()
    own = {field.name for field in fields(Config)} - {"out", "epochs", "seed"}
    shared = {f.name: getattr(theirs, f.name) for f in fields(theirs) if f.name in own}
    # understanding-rlhf scripts: 600 steps of M = 64 samples, here 16 prompts with C = 4; T = 1; B = 512, the largest
    # of 64 to 512, because every round ends with weights on disk; rates from DPO's 1e-7 to on-policy DPO's 1e-5
    return replace(
        Config(),
        **{
            **shared,
            "learning_rates": (1e-7, 1e-6, 1e-5),
            "seeds": 3,
            "rounds": 75,
            "prompts_per_round": 128,
            "n": 4,
            "batch_size": 16,
            "epochs": 1.0,
            "reward_learning_rate": 1e-5,
            "eval_n": 1,
            "curve_points": 12,
        },
    )


def main(cfg: Config) -> int:
    """What `heedful compare-methods` does; the exit status."""
    import json

    from heedful.recipes import compare_plan
    from heedful.recipes.personalize_judge import state_files
    from heedful.run import open_run

    cfg = settle(cfg)
    if cfg.dry_run:
        print(compare_plan.describe(cfg))
        return 0
    named = (cfg.data, cfg.prompts, cfg.eval_data, cfg.eval_prompts)
    files = [name for name in named if name and not name.startswith("hub:")]
    files += state_files(cfg.judge, cfg.gold)
    with open_run(cfg.out, cfg, seed=cfg.seed, data=files, volatile=VOLATILE) as opened:
        # Of several processes one speaks.
        cfg = replace(cfg, quiet=True, json=False) if opened.rank else cfg
        result = run(cfg, opened)
    if cfg.json:
        print(json.dumps(result, ensure_ascii=False))
    elif not cfg.quiet:
        print(compare_plan.closing(cfg))
    return 0


def settle(cfg: Config) -> Config:
    """Write out the methods and refuse what does not go together. Raises HeedfulError with the reason for each."""
    from heedful.recipes import compare_plan

    wrong = compare_plan.problems(cfg)
    if wrong:
        raise HeedfulError("; ".join(wrong))
    return replace(cfg, methods=tuple(arm.label for arm in compare_plan.arms_of(cfg)))


def run(cfg: Config, run: Run) -> dict[str, Any]:
    """Choose every method's learning rate, train and measure it at that, write the report; returns result.json.

    Every stage is kept in the run folder: a second call goes on where the first one stopped. A method that cannot learn
    (its loss is not finite, or the judge finds no difference between its samples) is reported as failed. Raises
    HeedfulError when all of them fail, and where `heedful prefer` would for a reason that is not the method's.
    """
    from heedful.recipes import compare_arms, compare_outcomes, compare_plan, compare_report
    from heedful.sessions import session

    with session(run):
        work = compare_arms.prepare(cfg, run)
        outcomes = []
        for arm in compare_plan.arms_of(cfg):
            choice = compare_arms.choose(work, arm)
            seeds = (
                []
                if choice.failed
                else [compare_arms.report_arm(work, arm, choice.rate, s) for s in work.seeds]
            )
            outcomes.append(compare_outcomes.collect(work, arm, choice, seeds))
        return compare_report.finish(cfg, work, outcomes, run)
