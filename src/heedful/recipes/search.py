"""`heedful search pretrain`: a small decoder learns to search in text, from streams of search or from solutions alone.

Gandhi et al. 2024 (Stream of Search, arXiv 2404.03683) is the paper behind `heedful search`. Departures from it and its
code, each on purpose:

1. A stream stands alone in a row and rows are packed without padding (the code pads to 4096 tokens). The end token is
   learned like every other (the code masks it, so its models never stop); prompts, which are random numbers, are not.
2. A stream longer than the context loses its end; the code goes on in a new row that has no problem in it.
3. One token for a number instead of a byte-pair encoding of text; a Llama instead of a GPT-Neo; no dropout.
4. What is solved is decided by replaying the stream from its root (`heedful search verify` has both verdicts).

`improve` and `eval` are in search_improve.py and search_eval.py. With --data and --judge the same three commands work
on any problem whose solutions can be written down and checked.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from heedful.errors import HeedfulError
from heedful.recipes.search_world import FILE, open_world, settings_of, world_files, world_text
from heedful.recipes.settings import fit_config

if TYPE_CHECKING:
    from heedful.run import Run

VOLATILE = ("json", "quiet", "save_every", "keep", "log_every", "micro_tokens", "max_rows")


@dataclass(frozen=True)
class Config:
    """Train a small decoder from scratch on streams of search (Countdown), or on rows of your own (--data)."""

    out: str = "runs/search"
    """The run folder. The same command again resumes it."""
    on: Literal["streams", "solutions"] = "streams"
    """Countdown: whole searches with their dead ends, or only a path to the goal (the paper's optimal paths)."""
    problems: int = 20_000
    """Countdown: training problems, each with one search; of --data the first so many rows, or all with 0."""
    tokens: int = 2_000_000
    """Tokens to train on, prompts included; 0 is one pass over the problems."""

    data: str = ""
    """Your own rows to imitate instead of Countdown: prompt and completion, JSONL, Parquet or CSV."""
    prompts: str = ""
    """Your own problems for `improve` and `eval`; those of --data where not given. Other columns go to the judge."""
    eval_prompts: str = ""
    """Held-out problems; without them a share is held out."""
    judge: str = ""
    """Your verifier, `path.py:function` in TRL's reward signature: above 0 is solved. Or a `rule:...`."""
    tokenizer: Literal["words", "bytes"] = "words"
    """Your own rows: a token for each word between spaces, or for each byte (where line breaks matter)."""
    eval_share: float = 0.1
    """Share of the problems held out; Countdown: of targets, and of (target, inputs) with other targets."""

    numbers: int = 3
    """Countdown: how many numbers, 2 to 6."""
    inputs: tuple[int, int] = (1, 20)
    """Countdown: smallest and largest input."""
    targets: tuple[int, int] = (10, 40)
    """Countdown: smallest and largest target."""
    cap: int = 400
    """Countdown: the largest result that is a legal move; 0 is no limit."""
    beams: int = 3
    """Countdown: breadth-first searches have beams from 1 to this."""

    model: str = ""
    """A model of `heedful search` to go on with; empty: new weights."""
    size: Literal["tiny", "1m", "3m", "5m"] = "1m"
    """Of a new model, in parameters."""
    context: int = 256
    """Of a new model: longest problem and stream, in tokens."""
    learning_rate: float = 1e-3
    """Peak learning rate of AdamW."""
    batch_size: int = 64
    """Streams per step."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """How the learning rate falls."""
    warmup: float = 0.02
    """Steps of warm-up, or a share when below 1."""
    weight_decay: float = 0.05
    """Of AdamW."""
    betas: tuple[float, float] = (0.9, 0.98)
    """AdamW's decay rates of the gradient's mean and square."""
    clip_norm: float = 1.0
    """Largest gradient norm."""
    micro_tokens: float = 8192.0
    """Tokens per forward pass; lower it when memory runs out, the result is the same."""
    save_every: int = 100
    """Steps between checkpoints."""
    keep: int = 2
    """Checkpoints kept."""
    log_every: int = 10
    """Steps between metric rows."""

    eval_problems: int = 200
    """Problems of each test set that are answered at the end, always with the most likely token; 0 answers none."""
    max_new_tokens: int = 0
    """Longest stream that is drawn; 0: what the context has room for."""
    max_rows: int = 256
    """Streams drawn at the same time."""
    seed: int = 0
    """Of everything: problems, searches, weights, order."""
    device: str = "auto"
    """cpu, cuda, mps or auto."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Arithmetic of the forward pass."""
    preset: Literal["smoke", "main", "stretch"] = "smoke"
    """smoke: 3 small numbers, minutes. main: 3 numbers to 49, targets to 100, an hour of one core. stretch: 4 numbers,
    5 million parameters, a night or a GPU."""
    json: bool = False
    """Print result.json on standard output."""
    quiet: bool = False
    """No progress display."""


def preset(name: str) -> Config:
    """The defaults of a preset. Raises HeedfulError for an unknown name."""
    if name == "smoke":
        return Config()
    if name == "main":
        return replace(
            Config(),
            preset="main",
            problems=370_000,
            tokens=30_000_000,
            inputs=(1, 49),
            targets=(10, 100),
            cap=999,
            beams=5,
            eval_problems=1000,
            save_every=500,
            log_every=50,
        )
    if name == "stretch":
        return replace(
            Config(),
            preset="stretch",
            problems=170_000,
            tokens=100_000_000,
            numbers=4,
            inputs=(1, 30),
            targets=(10, 100),
            cap=0,
            size="5m",
            context=1024,
            batch_size=16,
            eval_problems=1000,
            save_every=500,
            log_every=50,
        )
    raise HeedfulError(f"preset {name!r} is not smoke, main or stretch")


def main(cfg: Config) -> int:
    """What `heedful search pretrain` does; the exit status."""
    from heedful.run import open_run

    wrong = problems(cfg)
    if wrong:
        raise HeedfulError("; ".join(wrong))
    with open_run(
        cfg.out, cfg, seed=cfg.seed, data=world_files(settings_of(cfg)), volatile=VOLATILE
    ) as opened:
        cfg = replace(cfg, quiet=True, json=False) if opened.rank else cfg
        result = run(cfg, opened)
    tell(cfg, result)
    return 0


def problems(cfg: Config) -> list[str]:
    """What is wrong with the options; each a sentence."""
    wrong = []
    for name in ("batch_size", "max_rows", "context"):
        if getattr(cfg, name) < 1:
            wrong.append(f"--{name.replace('_', '-')} must be at least 1")
    for name in ("problems", "tokens", "eval_problems", "max_new_tokens"):
        if getattr(cfg, name) < 0:
            wrong.append(f"--{name.replace('_', '-')} must be 0 or more")
    own = bool(cfg.data or cfg.prompts)
    if cfg.prompts and not cfg.data:
        wrong.append("--prompts are problems without anything to imitate: give --data too")
    if cfg.eval_prompts and not own:
        wrong.append("--eval-prompts goes with --data")
    if cfg.judge and not own:
        wrong.append("--judge goes with --data: Countdown has its own verifier")
    if own and cfg.on == "solutions":
        wrong.append("--on solutions is for Countdown: --data are imitated as they are")
    if not own and not cfg.problems:
        wrong.append("--problems 0 takes all rows of --data; Countdown has no end, so say how many")
    if not 0 < cfg.eval_share < 1:
        wrong.append("--eval-share must be above 0 and below 1")
    return wrong


def run(cfg: Config, run: Run) -> dict[str, Any]:
    """Train, save the model, answer the test sets, write the report; returns result.json. Resumes where it stopped."""
    from heedful import hub
    from heedful.policies.decoder import fit_tokens, new_decoder, size_facts, steps_for
    from heedful.policies.language import LanguagePolicy
    from heedful.recipes import search_measure, search_pictures, search_report

    settings = settings_of(cfg)
    how: dict[str, Any] = {"precision": cfg.precision, "device": cfg.device}
    if cfg.model:
        policy = LanguagePolicy.load(cfg.model, template="none", small=True, **how)
        world = open_world(settings, policy.tokenizer)
    else:
        world = open_world(settings)
        policy = new_decoder(
            world.tokenizer, cfg.size, context=cfg.context, seed=run.seed_for("weights"), **how
        )
    run.once(FILE, lambda: world_text(settings))
    rows = world.rows(cfg.on, cfg.problems, policy.context)
    steps = steps_for(rows, cfg.tokens, cfg.batch_size) if cfg.tokens else 0
    learning = replace(fit_config(cfg, policy.precision), max_steps=steps)
    fit_tokens("pretrain", policy, rows, learning, run)
    if run.rank == 0:
        card = {"title": f"A decoder that searches in text ({cfg.on})", "method": "imitation"}
        hub.save_model(policy.module, policy.tokenizer, run.path("model"), card=card)
    measured = {}
    if cfg.eval_problems and (settings.judge or not (cfg.data or cfg.prompts)):
        for name, prompts in world.tests.items():
            measured[name] = search_measure.greedy(
                policy, world, prompts(cfg.eval_problems), f"eval/{name}", run, cfg
            )
    facts = {
        **world.facts,
        "training rows": len(rows),
        "tokens of a row": round(rows.tokens / len(rows), 2),
        "rows that lost their end": rows.cut,
        **size_facts(policy),
    }
    drawn = search_pictures.pictures({"model": measured}, world, policy.context, run)
    return search_report.finish_pretraining(cfg, measured, facts, drawn, run)


def tell(cfg: Any, result: dict[str, Any]) -> None:
    """Print what a finished job of `heedful search` has to say."""
    if cfg.json:
        print(json.dumps(result, ensure_ascii=False))
    elif not cfg.quiet:
        report = json.loads((Path(cfg.out) / "report.json").read_text())
        lines = [*report["summary"], *(f"warning: {w}" for w in report["warnings"])]
        more = [f"model:  {Path(cfg.out) / 'model'}"] if (Path(cfg.out) / "model").exists() else []
        print("\n".join([*lines, "", f"report: {Path(cfg.out) / 'report.html'}", *more]))
