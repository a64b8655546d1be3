"""`heedful critique`: is AI feedback worth more than imitating the critic, for this teacher, critic and base?

Sharma et al. 2024 (A Critical Evaluation of AI Feedback for Aligning Large Language Models, arXiv 2402.12366) is the
paper behind this job. Departures from it, each on purpose:

1. AdamW instead of RMSprop; both rescale the gradient, so its sum over an answer's tokens and its mean do the same.
2. The reference of AI feedback is the model it starts from, as in the paper; its log-probabilities are computed once.
3. By default two samples of the model are compared, which asks the critic about what the model does; with
   `--pairs teacher`, as in the paper, a sample and the answer of whoever it was started from.
4. A language model is asked in both orders. (The paper: one order, drawn at random.)
5. The length-controlled win rate stands beside the plain one.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from heedful.errors import HeedfulError

if TYPE_CHECKING:
    from heedful.recipes.critique_roles import Roles
    from heedful.run import Run

VOLATILE = (
    *("json", "quiet", "dry_run", "save_every", "keep", "log_every", "micro_tokens", "max_rows"),
    # what was not there stopped the run before anything was learned from the rest
    "drop_missing",
    # verdicts are kept under the evaluator's name, so another one may look at the same answers
    *("evaluator", "evaluator_model"),
)


@dataclass(frozen=True)
class Config:
    """Compare AI feedback with plain imitation, at an equal budget of prompts, and say which one to use.

    Teacher, critic and evaluator are each a model (name or folder), a server (http://...), or a file.
    """

    out: str = "runs/critique"
    """The run folder. The same command again resumes it; --evaluator may change from time to time."""
    model: str = "smollm2"
    """The base that all arms start from: a Hub id, a model folder, a run folder, or `smollm2`."""
    prompts: str = ""
    """Training prompts; without them those of the --teacher's file."""
    eval_prompts: str = ""
    """Held-out prompts; without them a share of --prompts is held out."""
    columns: tuple[str, ...] = ()
    """Column names, as `prompt=instruction completion=output`."""
    drop_faulty_rows: bool = False
    """Leave out rows of --prompts and --eval-prompts that have errors, and count them, instead of stopping."""
    drop_missing: bool = False
    """Leave prompts that the teacher, the critic or the baseline has no answer to out of every arm, and count them,
    instead of stopping."""
    template: Literal["auto", "chat", "none"] = "auto"
    """Whether a plain-text prompt goes through the chat template; auto: when there is one."""

    teacher: str = ""
    """Whose answers are imitated first, the weak one: a model, a server, or a file of answers (columns prompt and
    response or completion; FILE#NAME takes the rows whose generator is NAME)."""
    teacher_model: str = ""
    """The model's name on that server."""
    critic: str = ""
    """Who prefers one answer to another, the strong one: a language model or a server (asked in both orders), a saved
    reward model, `rule:...`, `path.py:function` in TRL's reward signature, or a file of verdicts (prompt, chosen,
    rejected), whose pairs are then learned from."""
    critic_model: str = ""
    """The model's name on that server."""
    critic_answers: str = ""
    """Who writes the critic's own answers, as --teacher; needed where the critic cannot write."""
    critic_answers_model: str = ""
    """The model's name on that server."""
    evaluator: str = ""
    """Who compares the arms with the baseline, as --critic, and better not the critic; a file is looked up by
    content, and what it lacks is written down."""
    evaluator_model: str = ""
    """The model's name on that server."""
    baseline: str = ""
    """Whose answers the arms are compared with, as --teacher; the default is the base itself."""
    baseline_model: str = ""
    """The model's name on that server."""
    disagreement: Literal["probability", "nan"] = "probability"
    """What two opposite verdicts on the two orders of a pair are: a tie, or no opinion."""
    judge_tokens: int = 256
    """Longest reply of a language model that judges, in tokens."""
    retries: int = 2
    """Further tries where a language model's verdict cannot be read."""

    start_share: float = 0.1
    """Share of the training prompts that the model is started on before AI feedback on the rest."""
    pairs: Literal["samples", "teacher"] = "samples"
    """What the critic compares: samples of the started model, or each with the answer of whoever it was started
    from (as in the paper)."""
    n: int = 2
    """Samples of the started model per prompt; with --pairs teacher 1 will do."""
    method: Literal["dpo", "ipo"] = "dpo"
    """How AI feedback is learned from."""
    beta: float = 0.05
    """Strength of the reference in dpo and ipo."""

    train_tokens: int = 256
    """Longest answer that is imitated, in tokens; a longer one is cut, and no end is taught there."""
    max_new_tokens: int = 256
    """Longest sample, in tokens."""
    temperature: float = 1.0
    """Of the samples that the critic compares."""
    eval_temperature: float = 0.7
    """Of the answers to held-out prompts, and of what models and servers write as teacher, critic or baseline."""
    top_p: float = 0.9
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
    learning_rate: float = 2e-4
    """Peak learning rate of AdamW in imitation."""
    feedback_learning_rate: float = 1e-4
    """Peak learning rate of AdamW in AI feedback."""
    batch_size: int = 8
    """Answers or pairs per step."""
    epochs: float = 1.0
    """Passes over the prompts in imitation of all."""
    start_epochs: float = 2.0
    """Passes over the start's prompts."""
    feedback_epochs: float = 1.0
    """Passes over the pairs in AI feedback."""
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    """How the learning rate falls."""
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
    eval_limit: int = 200
    """Most held-out prompts that are answered."""
    eval_n: int = 1
    """Samples per held-out prompt and arm."""
    seed: int = 0
    """Of everything."""
    device: str = "auto"
    """cpu, cuda, mps or auto."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Arithmetic of the forward pass."""
    preset: Literal["laptop", "paper"] = "laptop"
    """laptop: SmolLM2. paper: Mistral-7B with the paper's settings (Sharma et al. 2024); name the roles yourself."""
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
        # dpo-rlaif: SFT lr 1e-6, 9 epochs on the 10%, 6 on all; DPO beta .05, 3 epochs, lr 1e-7, batch 8, clip 10;
        # samples at T 1.0 and top-p .9, evaluation at T .7 and top-p .9 up to 512 tokens on AlpacaEval's 805 prompts
        return replace(
            Config(),
            preset="paper",
            model="mistralai/Mistral-7B-v0.1",
            template="none",
            pairs="teacher",
            n=1,
            beta=0.05,
            train_tokens=256,
            max_new_tokens=512,
            temperature=1.0,
            eval_temperature=0.7,
            top_p=0.9,
            lora_rank=0,
            learning_rate=1e-6,
            feedback_learning_rate=1e-7,
            batch_size=8,
            epochs=6.0,
            start_epochs=9.0,
            feedback_epochs=3.0,
            schedule="constant",
            warmup=0.0,
            clip_norm=10.0,
            micro_tokens=8192.0,
            save_every=500,
            eval_limit=805,
        )
    raise HeedfulError(f"preset {name!r} is neither laptop nor paper")


def main(cfg: Config) -> int:
    """What `heedful critique` does; the exit status."""
    import json

    from heedful.recipes import critique_plan
    from heedful.run import open_run

    cfg = settle(cfg)
    if cfg.dry_run:
        print(critique_plan.describe(cfg))
        return 0
    files = [name for name in (cfg.prompts, cfg.eval_prompts) if name and not name.startswith("hub:")]
    volatile = (*VOLATILE, *critique_plan.still_open(cfg))
    with open_run(cfg.out, cfg, seed=cfg.seed, data=files, volatile=volatile) as opened:
        cfg = replace(cfg, quiet=True, json=False) if opened.rank else cfg
        result = run(cfg, opened)
    assert result is not None
    if cfg.json:
        print(json.dumps(result, ensure_ascii=False))
    elif not cfg.quiet:
        print(critique_plan.closing(cfg))
    return 0


def settle(cfg: Config) -> Config:
    """Refuse what does not go together. Raises HeedfulError with the reason for each."""
    from heedful.recipes.critique_plan import problems

    wrong = problems(cfg)
    if wrong:
        raise HeedfulError("; ".join(wrong))
    return cfg


def run(
    cfg: Config,
    run: Run,
    *,
    roles: Roles | None = None,
    arms: Sequence[str] | None = None,
    until: float | None = None,
) -> dict[str, Any] | None:
    """Learn every arm, have all compared with the baseline, write the report; returns result.json.

    Every stage is kept in the run folder: a second call goes on where the first one stopped. roles: those of the
    options, unless a program brings its own. arms: some of `critique_arms.ARMS`, where a program needs no more.
    until: a time of time.monotonic after which no further arm is begun; then the result is None.
    """
    from heedful.recipes import critique_arms, critique_data, critique_eval, critique_report
    from heedful.recipes.critique_roles import open_roles
    from heedful.sessions import session

    with session(run):
        data = critique_data.load(cfg, run)
        roles = roles or open_roles(cfg, run, data)
        critique_data.answered(data, roles, cfg, run)
        tried = critique_eval.try_out(data, roles, run)
        chosen = critique_arms.in_order(arms)
        learned = {}
        for name in chosen:
            if until is not None and time.monotonic() > until:
                return None
            learned[name] = critique_arms.learn(name, cfg, data, roles, run)
            critique_eval.answer(name, cfg, data, run)
        measured = critique_eval.measure(chosen, cfg, data, roles, run)
        return critique_report.finish(cfg, data, roles, learned, tried, measured, run)
