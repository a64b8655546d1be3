"""What is claimed of SmolLM2 with real answers (`rlaif_real`), and the tables behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from heedful.papers import rlaif_verdicts as verdicts
from heedful.papers.results import Claim, Part, Table, Tier
from heedful.papers.rlaif_real import BASELINE, compared
from heedful.papers.seeds import decided
from heedful.recipes.critique_arms import ARMS

if TYPE_CHECKING:
    from heedful.run import Run

NEAR = 0.05
"""Win rates closer than this are about the same."""
ABSENT = "the collected AlpacaEval data (shared/data beside the checkout) is not there"
NOTE = (
    "Real answers: one seed. Intervals are over held-out prompts; that the evaluator agrees with GPT-4 only as often "
    "as the table says is not in them."
)

CLAIMS: list[tuple[str, str, str, float, bool]] = [
    (
        "Real answers: imitating GPT-4 is at least as good as AI feedback from the weak start (measured: the lead)",
        "five of six bases with GPT-4; Mistral-7B 75.3 against 71.1",
        "critic_sft_minus_feedback",
        0.0,
        True,
    ),
    (
        "Real answers: the same at equal length",
        "not in the paper",
        "critic_sft_minus_feedback_lc",
        0.0,
        True,
    ),
    (
        "Real answers: AI feedback from the weak start is better than imitating the weak teacher on all (measured: "
        "the lead)",
        "all six bases with GPT-4; Mistral-7B 71.1 against 56.8",
        "feedback_minus_teacher_sft",
        1e-9,
        True,
    ),
    (
        f"Real answers: imitating the weak teacher on all is at most {NEAR:g} of win rate better than on a tenth "
        "(measured: the lead)",
        "LLaMA-1: 47.1 against 42.6; Mistral-7B 56.8 against 55.1",
        "teacher_sft_minus_teacher_start",
        NEAR,
        False,
    ),
    (
        "Real answers: a strong start and then AI feedback beats imitating GPT-4 on all (measured: the lead of "
        "imitation)",
        "Mistral-7B 77.9 against 75.3; not so for LLaMA-1, 52.9 against 57.4",
        "critic_sft_minus_critic_feedback",
        -1e-9,
        False,
    ),
]
"""(claim, paper, what of result.json, bound, whether above it)."""


def real_part(tier: Tier, seeds: Sequence[int], run: Run, until: float | None = None) -> Part:
    """The comparison with real answers, of the first seed; without the data a part that says so."""
    folder = verdicts.data_folder()
    found = None if folder is None else compared(tier, seeds[0], folder, run, until)
    if found is None:
        why = ABSENT if folder is None else "not run yet"
        return Part(
            [Claim(claim, paper, note=why) for claim, paper, *_ in CLAIMS], notes=[f"Real answers: {why}."]
        )
    claims = [_claim(found, tier, *made) for made in CLAIMS]
    return Part(claims, [arms_table(found), judges_table(found)], notes=[NOTE])


def _claim(
    found: dict[str, Any], tier: Tier, claim: str, paper: str, key: str, bound: float, above: bool
) -> Claim:
    if tier == "smoke":
        return Claim(claim, paper, note="not in the smoke tier, whose model knows nothing")
    result = found["result"]
    interval = (result[f"{key}_low"], result[f"{key}_high"]) if f"{key}_low" in result else None
    note = f"one seed, interval over {result['held_out_prompts']} prompts"
    return Claim(claim, paper, result[key], interval, decided(result[key], interval, bound, above), note)


def arms_table(found: dict[str, Any]) -> Table:
    """Every arm's win rate, plain and at equal length."""
    result = found["result"]
    rows = [
        [
            "the base as it is" if arm == "base" else ARMS[arm].about,
            result[f"{arm}_win"],
            _span(result, f"{arm}_win"),
            result[f"{arm}_lc_win"],
            _span(result, f"{arm}_lc_win"),
            result[f"{arm}_words"],
        ]
        for arm in ("base", *ARMS)
        if f"{arm}_win" in result
    ]
    columns = [
        "arm",
        "win rate",
        "95% over prompts",
        "equal length",
        "95% over prompts, equal length",
        "words",
    ]
    note = (
        f"Against {BASELINE} on {result['held_out_prompts']} held-out prompts, by the evaluator; every full arm "
        f"learned from the same {result['budget_prompts']} prompts."
    )
    return Table("Real answers: every arm", columns, rows, note)


def judges_table(found: dict[str, Any]) -> Table:
    """What critic and evaluator are worth."""
    rows = [
        [
            role,
            facts["accuracy"],
            f"{facts['low']:.3f} to {facts['high']:.3f}",
            facts["verdicts"],
            facts["ridge"],
        ]
        for role, facts in found["judges"].items()
    ]
    columns = ["judge", "agrees with GPT-4", "95% over prompts", "verdicts", "ridge"]
    note = "On real verdicts about the held-out prompts, which neither was fitted to; answers cut as the models' are."
    return Table("Real answers: the judges", columns, rows, note)


def _span(result: dict[str, Any], name: str) -> str:
    return f"{result[f'{name}_low']:.3f} to {result[f'{name}_high']:.3f}" if f"{name}_low" in result else ""
