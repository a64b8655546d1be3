"""Preference fine-tuning of LLMs should leverage suboptimal, on-policy data (Tajwar et al. 2024, arXiv 2404.14367).

Five parts: theory, the bandits, lengths on a small transformer, staleness under a gold reward, and SmolLM2 on real
preferences. The bandits take all seeds, the transformer the first three, SmolLM2 the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from heedful.papers.onpolicy_bandit import bandit_part
from heedful.papers.onpolicy_gold import gold_part
from heedful.papers.onpolicy_lengths import lengths_part
from heedful.papers.onpolicy_real_claims import real_part
from heedful.papers.onpolicy_theory import theory_part
from heedful.papers.results import Results, Tier, joined

if TYPE_CHECKING:
    from heedful.run import Run

TITLE = "Preference fine-tuning of LLMs should leverage suboptimal, on-policy data"
SEEDS = {"smoke": 1, "main": 5}
TRANSFORMER_SEEDS = 3


def run(tier: Tier, seeds: Sequence[int], run: Run, until: float | None = None) -> Results:
    """All parts of the reproduction; see `heedful.papers.reproduce` for what is filled in afterwards."""
    few = seeds[:TRANSFORMER_SEEDS]
    parts = [
        theory_part(),
        bandit_part(tier, seeds, run, until),
        lengths_part(tier, few, run, until),
        gold_part(tier, few, run, until),
        real_part(tier, few, run, until),
    ]
    return joined("onpolicy", TITLE, parts)
