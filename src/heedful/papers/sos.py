"""Stream of Search: learning to search in language (Gandhi et al. 2024, arXiv 2404.03683).

The paper's text was not at hand: its figures are from its code, its logs and abstracts, and those called second hand
are unchecked. It has four numbers (K = 4), 500,000 problems and 257 million parameters. Here, on a CPU's budget:

1. K = 3 with a million parameters, three seeds, all arms; then K = 4 with five million, one seed, without improvement.
2. Streams and optimal paths are compared at equal optimiser tokens and at equal problems: a stream has some three
   times the tokens of a path. One pass over the problems for streams, as many tokens or problems for paths.
3. What improvement gains is compared with SoS that is trained on, on fresh streams, with the same compute, at a third
   of the learning rate, which falls to 0 once more.
4. Improvement is run where SoS passes a gate: below 5% wrong operations and above 30% solved. Otherwise its claims are
   not run, and say why.
5. Solved is decided by the strict verifier; what the paper's code would say stands beside it.
6. Unsolved and difficult problems are taken from those with held-out inputs.
7. See `heedful search` for what its training, STaR and APA do otherwise than the paper's code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from heedful.papers.results import Part, Results, Tier, joined
from heedful.papers.seeds import Done, setup_by_setup
from heedful.papers.sos_arms import NAMES, SIZES, Size, gate, run_arms
from heedful.papers.sos_claims import claims
from heedful.papers.sos_page import plots, tables

if TYPE_CHECKING:
    from heedful.run import Run

TITLE = "Stream of Search: learning to search in language"
SEEDS = {"smoke": 1, "main": 3}


def run(tier: Tier, seeds: Sequence[int], run: Run, until: float | None = None) -> Results:
    """Every setup, one after the other; see `heedful.papers.reproduce` for what is filled in afterwards."""
    sizes = SIZES[tier]
    setups = {setup: seeds[: size.seeds or None] for setup, size in sizes.items()}
    parts = [
        setup_part(done, tier, setup, own)
        for setup, own, done in setup_by_setup(
            setups,
            lambda setup, seed, until: run_arms(tier, setup, seed, run, until),
            lambda setup, seed: ("symbolic", *sizes[setup].arms),
            until,
        )
    ]
    return joined("sos", TITLE, parts)


def setup_part(done: Done, tier: Tier, setup: str, seeds: Sequence[int]) -> Part:
    """Claims, tables and plots of a setup."""
    size = SIZES[tier][setup]
    return Part(
        claims(done, tier, setup, seeds),
        tables(done, setup),
        plots(done, setup),
        notes(done, setup, size, seeds),
    )


def notes(done: Done, setup: str, size: Size, seeds: Sequence[int]) -> list[str]:
    """What was trained, how many arms are done, and the gate by seed."""
    cfg, numbers = size.pretrain, setup.upper()
    count = sum((setup, method, seed) in done for method in size.arms for seed in seeds)
    told = [
        f"{numbers}: {cfg.numbers} inputs from {cfg.inputs[0]} to {cfg.inputs[1]}, targets from {cfg.targets[0]} to "
        f"{cfg.targets[1]}, results to {cfg.cap or 'any size'}; {cfg.problems:,} problems, a model of {cfg.size}, "
        f"context {cfg.context}; {size.test:,} test problems of each kind.",
        f"{numbers}: {count} of {len(size.arms) * len(seeds)} arms are done.",
    ]
    for seed in seeds:
        sos = done.get((setup, "sos", seed))
        if sos is not None and "failed" not in sos:
            told.append(f"{numbers}, seed {seed}: {gate(sos) or 'the gate is passed'}.")
    for (_, method, seed), result in sorted(done.items()):
        if "failed" in result:
            told.append(f"{numbers}, seed {seed}, {NAMES[method]}: no result, {result['failed']}.")
    return told
