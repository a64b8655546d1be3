"""Towards Data-Centric RLHF: Simple Metrics for Preference Dataset Comparison (Shen, Sharma and Qin 2024, 2409.09603).

The paper's text was not at hand, so its tables cannot be checked here. What is checked: that the three metrics do what
they are for on data whose truth is known, and what they say of real preferences. Departures and readings:

1. The formulas are ours (see `heedful.data.quality.scale`, `quality.noise`, `quality.information`).
2. The synthetic world is a linear Bradley-Terry model; its probe is the right model, which no real probe is.
3. The real probe is TF-IDF with a logistic Bradley-Terry model, far below the paper's smallest model (350M parameters).
4. M4 is over ten splits by prompt, with an interval for splits that share their pairs; what else is said of real files
   comes from `heedful audit`, one split by prompt, three to five seeds, intervals over prompts.
5. The real files are the five sources of GPT-4's verdicts on AlpacaEval and the test split of HH harmless-base; the
   paper has HH-RLHF, UltraFeedback, LMSYS Arena and PKU-SafeRLHF.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from heedful.papers.datacentric_real import real_part
from heedful.papers.datacentric_synthetic import synthetic_part
from heedful.papers.results import Results, Tier, joined

if TYPE_CHECKING:
    from heedful.run import Run

TITLE = "Towards data-centric RLHF: simple metrics for preference dataset comparison"
SEEDS = {"smoke": 3, "main": 10}


def run(tier: Tier, seeds: Sequence[int], run: Run, until: float | None = None) -> Results:
    """Both parts of the reproduction; see `heedful.papers.reproduce` for what is filled in afterwards."""
    parts = [synthetic_part(seeds, run), real_part(tier, seeds, run, until)]
    return joined("datacentric", TITLE, parts)
