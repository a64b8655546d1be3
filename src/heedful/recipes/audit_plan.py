"""Before and after a run of `heedful audit`: what does not go together, what it will cost, what to say at the end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heedful.errors import HeedfulError

if TYPE_CHECKING:
    from heedful.recipes.audit import Config

LEAST_SEEDS = 3
SECONDS = {"tfidf": 2.5e-4, "minilm": 0.06, "lm": 0.35}
"""Of one core for the features of a pair; measured at 100 words an answer on a 2.5 GHz core."""
FIT_SECONDS = 1.8e-5
"""Of one core for a pair in one fit of a linear probe."""
WORDS_ALONE = 0.55
"""Share of FIT_SECONDS and BYTES that TF-IDF takes for so many pairs that pairs of words are left out."""
BYTES = {"tfidf": 1400, "minilm": 6200, "lm": 4700}
"""In the cache, and about as many in memory, for a pair."""


def problems(cfg: Config) -> list[str]:
    """Why these options cannot run, each a sentence; empty when they can."""
    wrong = []
    if not cfg.files:
        wrong.append("give at least one FILE of preference pairs")
    twice = sorted({name for name in cfg.files if cfg.files.count(name) > 1})
    if twice:
        wrong.append(f"{twice[0]} is given twice")
    if cfg.eval and cfg.eval in cfg.files:
        wrong.append(f"{cfg.eval} cannot be audited and be the evaluation file at once")
    if cfg.model and cfg.probe == "tfidf":
        wrong.append("--model has no meaning with --probe tfidf, which needs none")
    if cfg.seeds < LEAST_SEEDS:
        wrong.append(f"--seeds must be at least {LEAST_SEEDS}")
    for name in ("points", "arm_limit", "eval_limit"):
        if getattr(cfg, name) < 2:
            wrong.append(f"--{name.replace('_', '-')} must be at least 2")
    for name in ("shown", "seed"):
        if getattr(cfg, name) < 0:
            wrong.append(f"--{name} must be 0 or more")
    if not 0 < cfg.eval_share < 1:
        wrong.append("--eval-share must be between 0 and 1")
    if not 0 <= cfg.clean_below < 0.5:
        wrong.append("--clean-below must be 0 or more and below 0.5")
    if cfg.clean_below != 0.1 and not cfg.clean:
        wrong.append("--clean-below has no meaning without --clean")
    if cfg.clean and len(cfg.files) > 1:
        wrong.append("--clean writes one file: give it one FILE at a time")
    if cfg.clean and not cfg.clean.endswith(".jsonl"):
        wrong.append("--clean writes JSONL: its name must end in .jsonl")
    elif cfg.clean:
        from heedful.recipes.audit_clean import dropped_path

        read = [name for name in (*cfg.files, cfg.eval) if name]
        for written in (cfg.clean, str(dropped_path(cfg.clean))):
            if any(_same(written, name) for name in read):
                wrong.append(f"--clean would write over a file that is read: {written}")
    return wrong


def _same(a: str, b: str) -> bool:
    return Path(a).expanduser().absolute() == Path(b).expanduser().absolute()


def refuse_missing(files: Sequence[str]) -> None:
    """Raises HeedfulError naming every file that cannot be opened, before anything is begun."""
    from heedful.data.formats import cannot_open
    from heedful.data.problems import printable

    faults = [f"{file}: {fault}" for file in files if (fault := cannot_open(file))]
    if faults:
        raise HeedfulError("\n".join(map(printable, faults)))


def fits(cfg: Config, pairs: int) -> int:
    """How often the probe is fitted for one file of so many pairs."""
    from heedful.data.quality.information import ARMS
    from heedful.data.quality.noise import LEVELS
    from heedful.data.quality.scale import sizes
    from heedful.recipes.audit_learn import FOLDS, REPEATED, SMALLEST

    train = max(2, round(pairs * (1 - cfg.eval_share)))
    curve = len(sizes(train, cfg.points, SMALLEST))
    linear = cfg.probe != "tuned"
    repeated = cfg.seeds if linear and pairs <= REPEATED else 1
    # What a linear probe learns from all training pairs is the same for every seed, and for no flipped labels too.
    known = (cfg.seeds - 1 + (cfg.seeds if train <= cfg.arm_limit else 0)) if linear else 0
    return cfg.seeds * (curve + len(LEVELS) + len(ARMS)) + repeated * FOLDS - known


def describe(cfg: Config) -> str:
    """The plan, the memory and the cost; files are counted, nothing is learned."""
    from heedful.data.problems import printable
    from heedful.data.rows import read

    refuse_missing([name for name in (*cfg.files, cfg.eval) if name and not name.startswith("hub:")])
    counts = {name: sum(1 for _ in read(name)) for name in (*cfg.files, *([cfg.eval] if cfg.eval else []))}
    lines = [
        f"plan ({cfg.preset} preset)",
        f"  probe        {cfg.probe}{f' ({cfg.model})' if cfg.model else ''}",
    ]
    lines += [f"  file         {printable(name)}: {count:,} rows" for name, count in counts.items()]
    total = sum(fits(cfg, counts[name]) for name in cfg.files)
    lines.append(f"  fits         {total:,} of the probe, {cfg.seeds} seeds")
    rows = sum(counts.values())
    trained = sum(_trained(cfg, counts[name]) for name in cfg.files)
    if cfg.probe == "tuned":
        from heedful.model_sizes import size_of

        size = size_of(cfg.model)
        flops = 6 * size.parameters * trained * 600
        lines += [
            f"  pairs        {trained:,} in all fits together",
            f"memory         about {size.parameters * 4 / 2**30 + 1:.1f} GiB",
            f"cost           about {shown_time(flops / 1.5e11)} at 150 GFLOP/s (2 CPU cores, bf16), "
            f"{shown_time(flops / 1.6e14)} at 160 TFLOP/s (one data-centre GPU at 40%)",
        ]
    else:
        from heedful.judges.probes import ONLY_WORDS

        largest = max(counts.values())
        share = WORDS_ALONE if cfg.probe == "tfidf" and largest > ONLY_WORDS else 1.0
        gib = BYTES[cfg.probe] * share / 2**30
        seconds = rows * (SECONDS[cfg.probe] + 1e-4) + trained * FIT_SECONDS * share
        lines += [
            f"memory         about {0.7 + 2.2 * largest * gib:.1f} GiB",
            f"disk           about {rows * gib:.2f} GiB of features (kept, see --cache)",
            f"cost           about {shown_time(seconds)} of one CPU core",
        ]
    return "\n".join([*lines, "nothing was run (--dry-run)"])


def _trained(cfg: Config, pairs: int) -> int:
    """Training pairs of all fits of a file."""
    from heedful.recipes.audit_learn import FOLDS, REPEATED

    train = pairs * (1 - cfg.eval_share)
    arm = min(train, cfg.arm_limit)
    linear = cfg.probe != "tuned"
    repeated = cfg.seeds if linear and pairs <= REPEATED else 1
    # The sizes of the curve together are twice the whole, six levels of noise, five arms of two fifths.
    curve = train * (1 + cfg.seeds if linear else 2 * cfg.seeds)
    return round(curve + cfg.seeds * 8 * arm + repeated * (FOLDS - 1) * pairs)


def shown_time(seconds: float) -> str:
    """Seconds as a plan shows them: s, min or h."""
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"


def closing(cfg: Config, result: dict[str, Any]) -> str:
    """What a finished run says in the terminal: the advice, and where things are."""
    out = Path(cfg.out)
    lines = [
        *result["advice"],
        "",
        f"report:     {out / 'report.html'}",
        f"suspicious: {out / 'suspicious.jsonl'}",
    ]
    if cfg.clean:
        from heedful.recipes.audit_clean import dropped_path

        kept, dropped = result["clean"]["kept"], result["clean"]["dropped"]
        lines.append(
            f"clean:      {cfg.clean} ({kept:,} rows kept; {dropped:,} dropped, {dropped_path(cfg.clean)})"
        )
    return "\n".join(lines)
