"""RLAIF: a critical evaluation of AI feedback for aligning language models (Sharma et al. 2024, arXiv 2402.12366).

Three parts: the bandit of the paper's explanation, a simulated world whose answers are graded exactly, and SmolLM2 with
real answers and reward models of real GPT-4 verdicts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from heedful.papers.results import Results, Tier, joined
from heedful.papers.rlaif_arms import world_part
from heedful.papers.rlaif_bandit import bandit_part
from heedful.papers.rlaif_real_claims import real_part

if TYPE_CHECKING:
    from heedful.run import Run

TITLE = "A critical evaluation of AI feedback for aligning large language models"
SEEDS = {"smoke": 1, "main": 3}


def run(tier: Tier, seeds: Sequence[int], run: Run, until: float | None = None) -> Results:
    """All parts of the reproduction; see `heedful.papers.reproduce` for what is filled in afterwards."""
    parts = [bandit_part(seeds, run), world_part(tier, seeds, run, until), real_part(tier, seeds, run, until)]
    return joined("rlaif", TITLE, parts)
