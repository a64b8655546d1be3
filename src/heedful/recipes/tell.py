"""`heedful tell`: one sentence of feedback, applied where it applies and nowhere else.

C3PO (Stephan et al. 2024, "RLVF: Learning from Verbal Feedback without Overgeneralization") is the paper behind this
job. Departures from it, each on purpose:

1. The default method is `fork`, not `c3po`: at 135M parameters and a few dozen steps DPO alone leaves the effect
   improbable, and a mean over tokens hides the one place where a leak begins (docs/tell.md has the figures).
2. Likelihoods are means over an answer's tokens, then over answers. (The official code: over a batch's tokens.)
3. Sets of unequal size are cycled. (The official code cuts them to the smallest.)
4. Scopes come from grammars by default; a language model writes them with --teacher.
5. The editor of the effect revises where the model's own revision does not adhere; the share of each is reported.
6. h compares adherence by rule, which asks for a real body too; the paper's booleans count "at least as good".
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from heedful.errors import HeedfulError
from heedful.recipes.settings import fit_config

if TYPE_CHECKING:
    from heedful.data.scopes import Scope
    from heedful.run import Run

VOLATILE = (
    "json",
    "quiet",
    "dry_run",
    "yes",
    "edit",
    "save_every",
    "keep",
    "log_every",
    "micro_tokens",
    "max_rows",
)


@dataclass(frozen=True)
class Config:
    """Teach a language model one sentence of feedback, applied where it applies and nowhere else.

    Commands for what was learned: heedful tell list | enable | disable | compose | revert | conflicts
    """

    sentence: Positional[Annotated[str, arg(metavar="[SENTENCE]")]] = ""
    """The feedback, as `Always end emails to my manager with 'Onwards and upwards'`."""
    model: str = "smollm2"
    """Where to start: a Hub id, a model folder, a run folder, or `smollm2`."""
    name: str = ""
    """Name of the adapter; the default is made from the sentence."""
    store: str = "runs/tell"
    """The folder of all adapters; this one's run folder is STORE/NAME. The same command again resumes it."""

    domain: str = ""
    """When the feedback applies, where the sentence does not say it plainly: `emails to my manager`."""
    effect: str = ""
    """What it asks for, where the sentence does not say it plainly: `end with 'Onwards and upwards'`."""
    scope: str = ""
    """A scope file (YAML) to use as it is, instead of making one."""
    edit: bool = False
    """Write the scope to STORE/NAME/scope.yaml, and wait until it has been changed (or stop there)."""
    yes: bool = False
    """Do not ask whether the sentence was understood."""
    prompts: int = 96
    """Training prompts in scope, and as many general ones."""
    near_prompts: int = 192
    """Training prompts near the scope, where most is to be told apart."""
    test_near: int = 120
    """Near-scope prompts for the report; 48 in-scope and 60 general ones come beside them."""
    teacher: str = ""
    """Who writes the scope and judges: a model, or the base URL of an OpenAI-compatible server; none: grammars."""
    teacher_model: str = ""
    """The model's name on that server."""
    reviser: Literal["auto", "editor", "model"] = "auto"
    """Who revises answers: the effect's editor, or a model (the teacher or else the start model) with the editor to
    fall back on; auto: a model only where there is a teacher or no editor."""

    method: str = "fork"
    """in_context, in_context_cot, scd, scd_negatives, dpo, c3po, c3po_kl, c3po_no_near, c3po_no_general,
    c3po_imitate, fork."""
    beta: float = 0.1
    """Strength of the reference in DPO."""
    lambda_near: float = -1.0
    """Weight of the near-scope part; below 0: the method's own (C3PO .1)."""
    lambda_general: float = -1.0
    """Weight of the general part; below 0: the method's own (C3PO .2)."""

    train_tokens: int = 48
    """Longest answer that is learned from, in tokens; the effect is written after its last whole sentence."""
    max_new_tokens: int = 128
    """Longest answer to a test prompt, in tokens."""
    temperature: float = 0.7
    """Of sampling."""
    top_p: float = 0.7
    """Of sampling."""
    top_k: int = 50
    """Of sampling; 0 keeps all."""
    max_rows: int = 256
    """Samples drawn at the same time; lower it when memory runs out."""

    lora_rank: int = 16
    """Rank of the adapter."""
    lora_alpha: float = 32.0
    """Scale of the adapter."""
    lora_dropout: float = 0.0
    """Dropout of the adapter."""
    learning_rate: float = 1e-3
    """Peak learning rate of AdamW."""
    batch_size: int = 2
    """Rows per step; a row is a prompt in scope with its share of the others."""
    epochs: float = 2.0
    """Passes over the rows."""
    max_steps: int = 0
    """Steps, instead of epochs, when above 0."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """How the learning rate falls."""
    warmup: float = 0.05
    """Steps of warm-up, or a share when below 1."""
    micro_tokens: float = 2048.0
    """Token positions per forward pass; lower it when memory runs out, the result is the same."""
    save_every: int = 20
    """Steps between checkpoints."""
    keep: int = 2
    """Checkpoints kept."""
    log_every: int = 1
    """Steps between metric rows."""

    max_leak: float = 0.15
    """The report warns when near-scope or general leakage is above this; `tell enable` refuses such an adapter."""
    seed: int = 0
    """Of everything."""
    device: str = "auto"
    """cpu, cuda, mps or auto."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Arithmetic of the forward pass."""
    preset: Literal["laptop", "paper"] = "laptop"
    """laptop: SmolLM2 in minutes. paper: Mistral-7B-Instruct-v0.2, C3PO with the paper's settings."""
    dry_run: bool = False
    """Print the scope, the plan, the memory and the cost, and stop."""
    json: bool = False
    """Print result.json on standard output."""
    quiet: bool = False
    """No progress display."""


def preset(name: str) -> Config:
    """The defaults of a preset. Raises HeedfulError for an unknown name."""
    if name == "laptop":
        return Config()
    if name == "paper":
        # sections 4 and 5 and appendix of the paper, and its code: LoRA r 64, alpha 128, dropout .05
        return replace(
            Config(),
            preset="paper",
            model="mistralai/Mistral-7B-Instruct-v0.2",
            method="c3po",
            prompts=960,
            near_prompts=960,
            reviser="model",
            train_tokens=512,
            max_new_tokens=512,
            lora_rank=64,
            lora_alpha=128.0,
            lora_dropout=0.05,
            learning_rate=5e-5,
            batch_size=16,
            epochs=1.0,
            micro_tokens=8192.0,
        )
    raise HeedfulError(f"preset {name!r} is neither laptop nor paper")


def slug(sentence: str) -> str:
    """A folder name from a sentence: its telling words, at most 48 characters."""
    words = re.findall(r"[a-z0-9]+", re.sub(r"['’]", "", sentence.lower()))
    little = {
        "a",
        "an",
        "the",
        "always",
        "never",
        "please",
        "with",
        "to",
        "of",
        "in",
        "my",
        "and",
        "when",
        "i",
        "do",
        "not",
    }
    kept = [word for word in words if word not in little] or words
    made = ""
    for word in kept:
        if len(made) + len(word) > 47:
            break
        made = f"{made}-{word}" if made else word
    return made or "feedback"


def main(cfg: Config) -> int:
    """What `heedful tell SENTENCE` does; the exit status."""
    import json

    from heedful.recipes import tell_plan, tell_scope
    from heedful.recipes.tell_changes import refresh
    from heedful.recipes.tell_store import check_free, enabled
    from heedful.run import open_run

    cfg = tell_plan.settle(cfg)
    folder = Path(cfg.store) / cfg.name
    if cfg.dry_run:
        print(tell_plan.describe(cfg))
        return 0
    check_free(folder)
    files = [cfg.scope] if cfg.scope else []
    with open_run(folder, cfg, seed=cfg.seed, data=files, volatile=VOLATILE) as opened:
        cfg = replace(cfg, quiet=True, json=False, yes=True) if opened.rank else cfg
        scope = tell_scope.prepare(cfg, opened)
        if scope is None:
            return 0
        try:
            result = run(cfg, opened, scope)
        except BaseException:
            tell_scope.forget(cfg, opened)
            raise
        if opened.rank == 0 and cfg.name in dict(enabled(Path(cfg.store))):
            refresh(Path(cfg.store))  # what is in use has just been learned anew
    if cfg.json:
        print(json.dumps(result, ensure_ascii=False))
    elif not cfg.quiet:
        print(tell_plan.closing(folder, result, cfg))
    return 0


def run(cfg: Config, run: Run, scope: Scope, *, shared: Run | None = None) -> dict[str, Any]:
    """Answer, revise, learn, measure in, near and out of scope, save the adapter and the report; returns result.json.

    Every stage is kept in the run folder: a second call goes on where the first one stopped. shared: a run of the same
    seed that keeps what does not depend on the method (the start model's answers), when methods are compared.
    """
    from heedful.policies.backbone import Lora
    from heedful.policies.language import LanguagePolicy
    from heedful.recipes import tell_data, tell_eval, tell_methods, tell_report, tell_scope
    from heedful.sessions import session

    start = shared or run
    weights = tell_methods.weights_of(cfg.method, *lambdas(cfg))
    lora = Lora(cfg.lora_rank, cfg.lora_alpha, cfg.lora_dropout) if weights is not None else None
    policy = LanguagePolicy.load(
        cfg.model, lora=lora, precision=cfg.precision, device=cfg.device, seed=run.seed_for("adapter")
    )
    with session(run):
        before = tell_eval.answers(cfg, policy, scope, "before", start)
        again = tell_eval.answer_again(cfg, policy, scope, start)
        completions = tell_data.Completions()
        if weights is not None:
            revise = tell_scope.reviser(cfg, scope, policy, start)
            completions = tell_data.complete(cfg, policy, scope, start, revise=revise)
            learn(cfg, policy, completions, weights, run)
        after = tell_eval.answers(cfg, policy, scope, "after", run, method=cfg.method)
        measured = tell_eval.measure(cfg, policy, scope, before, after, again, run)
        return tell_report.finish(cfg, policy, scope, completions, measured, run)


def lambdas(cfg: Config) -> tuple[float | None, float | None]:
    """The two lambdas, None where the method's own are meant."""
    return (
        cfg.lambda_near if cfg.lambda_near >= 0 else None,
        cfg.lambda_general if cfg.lambda_general >= 0 else None,
    )


def learn(cfg: Config, policy: Any, completions: Any, weights: Any, run: Run) -> None:
    """One stage of `fit` with the method's loss."""
    from heedful.fit import fit
    from heedful.policies import scoped

    rows = scoped.scoped_rows(policy, completions.items, weights, run, shown="" if cfg.quiet else "reference")
    loss = scoped.objective(policy, weights, beta=cfg.beta)
    fit(
        "tell",
        loss,
        policy.module,
        rows,
        fit_config(cfg, policy.precision),
        run,
        cost=scoped.row_cost(policy),
    )
