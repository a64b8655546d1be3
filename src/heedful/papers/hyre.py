"""Test-time alignment via hypothesis reweighting, HyRe (Lee et al. 2024, arXiv 2412.08812).

The paper's text and code were not at hand; what is known of it are abstracts, others' descriptions and peers'
reimplementations. Its tables are not reproduced. What is checked is what the method does on data whose truth is known,
where it fails, and what it is worth on real answers. Readings and departures:

1. Losses are summed over labels; every head is scaled by an unlabelled pool alone; adaptation rows never test.
2. Learned parts are anchored at zero and fitted without steps that leave the span of the data (`judges.heads`).
3. Worlds and sizes are ours, a CPU's; persons on real answers are rules, not people.
4. Fine-tuning, the rival, is gradient descent on one head, rate and steps by cross-validation on the labels.
5. Beside reweighting stands what `diagnose` used in its place where it thought that reweighting does not help.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from heedful.papers.hyre_cases import worst
from heedful.papers.hyre_cues import BUILDERS, PERSONS, cues_part, cues_seed
from heedful.papers.hyre_linear import WORLDS, linear_part, linear_seed
from heedful.papers.hyre_real import real_part
from heedful.papers.hyre_settled import SETTINGS, settled_part, settled_seed
from heedful.papers.hyre_shift import shift_part, shift_seed
from heedful.papers.results import Part, Results, Tier, joined
from heedful.papers.seeds import bounded

if TYPE_CHECKING:
    from heedful.run import Run

TITLE = "Test-time alignment via hypothesis reweighting (HyRe)"
SEEDS = {"smoke": 3, "main": 10}
STAGES: dict[str, Callable[[int, Tier, Run], dict[str, Any]]] = {
    "linear": linear_seed,
    "settled": settled_seed,
    "shift": shift_seed,
    "cues": cues_seed,
}


def run(tier: Tier, seeds: Sequence[int], run: Run, until: float | None = None) -> Results:
    """All parts of the reproduction; see `heedful.papers.reproduce` for what is filled in afterwards."""
    done: dict[str, list[dict[str, Any]]] = {name: [] for name in STAGES}
    for seed in seeds:
        for name, stage in STAGES.items():
            if until is None or time.monotonic() < until:
                done[name].append(stage(seed, tier, run))
    parts = [
        linear_part(done["linear"]),
        settled_part(done["settled"]),
        shift_part(done["shift"]),
        cues_part(done["cues"]),
        diagnosis_part(done),
        real_part(tier, seeds, run, until),
    ]
    return joined("hyre", TITLE, parts)


def settings_of(
    linear: dict[str, Any], settled: dict[str, Any], cues: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Every setting of a seed, for what the diagnosis is worth over all of them."""
    found = {f"linear: {name}": linear["worlds"][name] for name in WORLDS}
    found |= {f"settled: {name}": settled[name] for name in SETTINGS}
    found |= {f"digits, {builder}: {name}": cues[builder][name] for builder in BUILDERS for name in PERSONS}
    return found


def diagnosis_part(done: dict[str, list[dict[str, Any]]]) -> Part:
    """What following the diagnosis is worth, over all settings and counts."""
    both = [settings_of(*each) for each in zip(done["linear"], done["settled"], done["cues"], strict=False)]

    def over(values: Callable[[dict[str, Any], int], float]) -> list[list[float]]:
        return [[values(s, i) for s in one.values() for i in range(len(s["diagnosed"]))] for one in both]

    always = over(lambda s, i: s["diagnosed"][i] - s["reweighting"][i])
    never = over(lambda s, i: s["diagnosed"][i] - s[s["reference"]][i])
    fallback = over(lambda s, i: s["diagnosed"][i] - max(s["reweighting"][i], s[s["reference"]][i]))
    return Part(
        [
            bounded(
                "Over all settings and counts, what the diagnosis uses is better than reweighting always (measured: "
                "mean lead)",
                "not in the paper",
                [sum(row) / len(row) for row in always],
                1e-9,
            ),
            bounded(
                "Over all settings and counts, it is better than never looking at the labels (measured: mean lead)",
                "not in the paper",
                [sum(row) / len(row) for row in never],
                1e-9,
            ),
            worst(
                "In no setting and at no count does it lose more than .05 against the better of reweighting and not "
                "reweighting (measured: the worst mean over seeds)",
                fallback,
                -0.05,
            ),
        ]
    )
