"""C3PO: learning from verbal feedback without overgeneralization (Stephan et al. 2024, arXiv 2402.10893).

Three parts: the bandit of appendix C, sentences of feedback with all methods, and composition of adapters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from heedful.papers.c3po_arms import ROUNDS, run_arms
from heedful.papers.c3po_bandit import bandit_claims
from heedful.papers.c3po_compose import compose_part, run_pairs
from heedful.papers.c3po_feedbacks import feedback_part
from heedful.papers.results import Part, Results, Tier, joined

if TYPE_CHECKING:
    from heedful.run import Run

TITLE = "C3PO: learning from verbal feedback without overgeneralization"
SEEDS = {"smoke": 1, "main": 3}


def run(tier: Tier, seeds: Sequence[int], run: Run, until: float | None = None) -> Results:
    """All parts of the reproduction; see `heedful.papers.reproduce` for what is filled in afterwards."""
    for methods in ROUNDS:
        # What most claims ask for first, with all seeds: a run that is stopped has then said most.
        for seed in seeds:
            run_arms(tier, [seed], run, until, [methods])
            run_pairs(tier, [seed], run, until)
    parts = [
        bandit(seeds, run),
        feedback_part(tier, seeds, run, until),
        compose_part(tier, seeds, run, until),
    ]
    return joined("c3po", TITLE, parts)


def bandit(seeds: Sequence[int], run: Run) -> Part:
    """(a) Appendix C, the same in both tiers: seconds."""
    claims, table, plot = bandit_claims(seeds, run)
    return Part(claims, [table], [plot])
