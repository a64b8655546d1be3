"""Before and after `heedful personalize fit`: what does not go together, what it will cost, what to say at the end."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heedful.recipes.audit_plan import SECONDS, refuse_missing, shown_time

if TYPE_CHECKING:
    from heedful.recipes.personalize import Config

BUILDERS_OF = {
    "prior_scale": (1.0, ("prior", "epinet")),
    "prior": ("linear", ("prior",)),
    "annotators": ("", ("annotator", "mixture")),
}
UNTRAINED = ("builder", "heads", "anchor", "features", "dimensions", "pool_share", "style", "precision")
"""Options of training, which saved scores do without."""
TOKENS = 350
"""Of a prompt and an answer, where costs are estimated."""
MINILM_SIZE = 384


def problems(cfg: Config) -> list[str]:
    """Why these options cannot run, each a sentence; empty when they can."""
    from heedful.recipes.personalize import Config as Defaults

    wrong = []
    if not cfg.files:
        wrong.append("give at least one FILE of preference pairs")
    twice = sorted({name for name in cfg.files if cfg.files.count(name) > 1})
    if twice:
        wrong.append(f"{twice[0]} is given twice")
    if cfg.eval and cfg.eval in cfg.files:
        wrong.append(f"{cfg.eval} cannot be learned from and be the evaluation file at once")
    if cfg.scores:
        default = Defaults()
        for name in (*UNTRAINED, *BUILDERS_OF, "model"):
            if getattr(cfg, name) != getattr(default, name):
                wrong.append(f"--{name.replace('_', '-')} has no meaning with --scores: nothing is trained")
        if cfg.eval:
            wrong.append("--eval has no meaning with --scores, which have none of its answers")
    else:
        wrong += _training(cfg)
    if not cfg.eval:
        for name, default in (("subset", "subset"), ("shots", 5), ("draws", 20)):
            if getattr(cfg, name) != default:
                wrong.append(f"--{name} has no meaning without --eval")
    if not 0 < cfg.temperature < math.inf:
        wrong.append("--temperature must be a number above 0")
    if not 0 < cfg.pool_share < 1:
        wrong.append("--pool-share must be between 0 and 1")
    for name in ("pool_limit", "shots", "draws"):
        if getattr(cfg, name) < (2 if name == "pool_limit" else 1):
            wrong.append(f"--{name.replace('_', '-')} must be at least {2 if name == 'pool_limit' else 1}")
    return wrong


def _training(cfg: Config) -> list[str]:
    wrong = []
    if cfg.model and cfg.features == "tfidf":
        wrong.append("--model has no meaning with --features tfidf, which needs none")
    if not cfg.model and cfg.features == "reward":
        wrong.append("--features reward needs --model, a reward model (a sequence classifier)")
    if cfg.dimensions != 128 and cfg.features != "tfidf":
        wrong.append(f"--dimensions has no meaning with --features {cfg.features} (only tfidf)")
    for name, (default, builders) in BUILDERS_OF.items():
        if getattr(cfg, name) != default and cfg.builder not in builders:
            wrong.append(
                f"--{name.replace('_', '-')} has no meaning with --builder {cfg.builder} (only {', '.join(builders)})"
            )
    if cfg.precision != "auto" and cfg.features not in ("lm", "reward"):
        wrong.append(f"--precision has no meaning with --features {cfg.features} (only lm, reward)")
    if cfg.builder == "annotator" and cfg.heads != 100:
        wrong.append("--heads has no meaning with --builder annotator: there is one for each annotator")
    if cfg.builder == "annotator" and not cfg.annotators:
        wrong.append("--builder annotator needs --annotators, the column that says who labelled a pair")
    if cfg.heads < 2:
        wrong.append("--heads must be at least 2")
    if cfg.dimensions < 1:
        wrong.append("--dimensions must be at least 1")
    for name in ("prior_scale", "anchor"):
        if not 0 <= getattr(cfg, name) < math.inf:
            wrong.append(f"--{name.replace('_', '-')} must be a number of 0 or more")
    return wrong


def describe(cfg: Config) -> str:
    """The plan, the memory and the cost; rows are counted, nothing is learned and no weights are read."""
    from heedful.data.problems import HUB, printable
    from heedful.data.rows import read
    from heedful.recipes.personalize_scores import scores_file

    files = [*cfg.files, *([cfg.eval] if cfg.eval else [])]
    refuse_missing([name for name in files if not name.startswith(HUB)])
    if cfg.scores:
        scores_file(cfg.scores)
    counts = {name: sum(1 for _ in read(name)) for name in files}
    rows, trained = sum(counts.values()), sum(counts[name] for name in cfg.files)
    lines = [f"plan ({cfg.preset} preset)"]
    if cfg.scores:
        lines.append(f"  heads        the columns of {printable(cfg.scores)}; nothing is trained")
    else:
        lines += [
            f"  features     {cfg.features}{f' ({cfg.model})' if cfg.model else ''}"
            + (" and style" if cfg.style else ""),
            f"  heads        {cfg.heads} by {cfg.builder}"
            + (f", prior of scale {cfg.prior_scale:g}" if cfg.builder in ("prior", "epinet") else ""),
        ]
    lines += [f"  file         {printable(name)}: {count:,} pairs" for name, count in counts.items()]
    share = "all" if cfg.scores else f"{cfg.pool_share:.0%}"
    lines.append(f"  pool         {share} of the prompts, at most {cfg.pool_limit:,} pairs")
    if cfg.eval:
        lines += _targets(cfg)
    size, weights, flops = _trunk(cfg, rows)
    # chosen and rejected in float32 and once more in float64, while heads are fitted
    features = trained * size * 2 * (4 + 8)
    fitting = 0 if cfg.scores else trained * cfg.heads * 8 * 4
    lines += [
        f"memory         about {0.5 + (weights + features + fitting) / 2**30:.1f} GiB"
        + (f", {weights / 2**30:.1f} of them the model" if weights else ""),
        f"disk           about {rows * size * 8 / 2**30:.2f} GiB of features (kept, see --cache)",
    ]
    if flops:
        lines.append(
            f"cost           about {shown_time(flops / 1.5e11)} at 150 GFLOP/s (2 CPU cores, bf16), "
            f"{shown_time(flops / 1.6e14)} at 160 TFLOP/s (one data-centre GPU at 40%)"
        )
    else:
        seconds = rows * SECONDS.get(cfg.features, 0.0) + trained * size * cfg.heads * 4e-7 + 5
        lines.append(f"cost           about {shown_time(seconds)} of one CPU core")
    return "\n".join([*lines, "nothing was run (--dry-run)"])


def _targets(cfg: Config) -> list[str]:
    """What the evaluation file holds: a line for all its distributions, and one for those that are too small."""
    from collections import Counter

    from heedful.data.rows import read

    found = Counter(str(row.get(cfg.subset, "")) for row in read(cfg.eval))
    enough = [name for name, count in found.items() if name and count > cfg.shots]
    few = len([name for name in found if name]) - len(enough)
    lines = [
        f"  targets      {len(enough)} distributions by {cfg.subset!r}, {cfg.shots} pairs each, {cfg.draws} draws"
    ]
    if few:
        lines.append(f"               {few} more have {cfg.shots} pairs or fewer and are left out")
    return lines


def _trunk(cfg: Config, rows: int) -> tuple[int, float, float]:
    """(D, bytes of weights, floating-point operations for the features of all pairs)."""
    from heedful.judges.answer_features import STYLE

    beside = len(STYLE) if cfg.style else 0
    if cfg.scores or cfg.features == "tfidf":
        return cfg.dimensions + beside, 0.0, 0.0
    if cfg.features == "minilm":
        return 2 * MINILM_SIZE + beside, 9e7, 0.0
    from heedful.model_sizes import size_of

    size = size_of(cfg.model)
    weights = size.parameters * (4 if cfg.precision == "fp32" else 2)
    return size.hidden + beside, weights, 2.0 * size.parameters * rows * 2 * TOKENS


def closing(cfg: Config, result: dict[str, Any]) -> str:
    """What a finished fit says in the terminal: the summary, and what to do next."""
    out = Path(cfg.out)
    return "\n".join(
        [
            *result["summary"],
            "",
            f"report: {out / 'report.html'}",
            f"next:   heedful personalize query {out}",
        ]
    )
