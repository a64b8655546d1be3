"""The claims of C3PO's Table 2 from made-up results: what each compares, what is left out, what is not said."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from heedful.papers import c3po_arms, c3po_compose, c3po_feedbacks
from heedful.papers.c3po_arms import METHODS, SENTENCES
from heedful.papers.c3po_feedbacks import CLAIMS, covered, slope_claim
from heedful.papers.results import Claim
from heedful.papers.seeds import Done, decided, jackknife, over_seeds
from heedful.run import open_run

NAMES = tuple(SENTENCES)
TABLE_2 = {
    "in_context": (0.677, 0.503),
    "in_context_cot": (0.402, 0.246),
    "scd": (0.470, 0.269),
    "scd_negatives": (0.367, 0.133),
    "dpo": (0.326, 0.517),
    "c3po": (0.563, 0.150),
}
"""(S_in, S_out) as published."""


def result(s_in: float, s_out: float) -> dict[str, Any]:
    parts = {"s_in": s_in, "s_near": s_out + 0.05, "s_general": s_out - 0.05, "s_out": s_out}
    parts["s_overall"] = (s_in + 1 - s_out) / 2
    spans = {f"{name}_{end}": value for name, value in parts.items() for end in ("low", "high")}
    return {**parts, **spans, "noise_floor": 0.0, "minutes": 1.0}


def table_2(names: tuple[str, ...] = NAMES, seeds: tuple[int, ...] = (0, 1, 2)) -> Done:
    return {
        (name, method, seed): result(*figures)
        for name in names
        for method, figures in TABLE_2.items()
        for seed in seeds
    }


def claims(done: Done, seeds: tuple[int, ...] = (0, 1, 2)) -> dict[str, Claim]:
    made = [make(done, NAMES, seeds, "main") for make in CLAIMS]
    return {claim.claim: claim for claim in made}


def test_the_published_table_fulfils_its_own_claims() -> None:
    made = claims(table_2())
    said = {claim.claim.split(" (")[0]: claim for claim in made.values() if claim.holds is not None}
    assert all(claim.holds for claim in said.values()) and len(said) == 8
    best = said["S_overall of C3PO is the best of all methods, by at least .05"]
    assert best.measured == pytest.approx(0.7065 - 0.617, abs=1e-3) and best.interval is not None
    assert said["S_out of C3PO is at most .4 times that of DPO"].measured == pytest.approx(0.29, abs=0.01)
    assert "fewer than" not in best.note
    unsaid = [claim for claim in made.values() if claim.holds is None]
    assert len(unsaid) == 4 and all(claim.note == "not run yet" for claim in unsaid)


@pytest.mark.parametrize(
    ("measured", "interval", "above", "said"),
    [
        (0.2, (0.1, 0.3), True, True),
        (0.2, (-0.1, 0.5), True, None),
        (0.2, None, True, None),
        (-0.2, None, True, None),
        (-0.2, (-0.3, 0.1), True, None),
        (-0.2, (-0.3, -0.1), True, False),
        (0.2, (0.1, 0.3), False, False),
        (-0.2, (-0.3, -0.1), False, True),
    ],
)
def test_a_claim_holds_only_with_its_whole_interval(
    measured: float, interval: tuple[float, float] | None, above: bool, said: bool | None
) -> None:
    assert decided(measured, interval, 0.0, above) is said


def test_a_worse_c3po_is_said_not_to_hold() -> None:
    done = {key: result(0.2, 0.6) if key[1] == "c3po" else value for key, value in table_2().items()}
    said = [claim for claim in claims(done).values() if claim.holds is not None]
    assert (
        sum(claim.holds is False for claim in said) == 6
    )  # dpo's and in-context's own leaks stay as they were


def test_what_was_not_run_everywhere_is_compared_where_it_was_and_said() -> None:
    done = table_2(NAMES[:2], (0,))
    del done[NAMES[1], "scd", 0]
    assert covered(done, ("c3po", "scd"), NAMES, (0, 1)) == ([NAMES[0]], [0])
    claim = claims(done, (0, 1))["S_out of C3PO is at most .6 times that of SCD"]
    assert claim.holds is None and claim.interval is None  # one seed decides nothing in its favour
    assert "1 of 6 sentences" in claim.note and "fewer than" in claim.note


def test_a_later_seed_that_saw_fewer_sentences_is_left_out() -> None:
    done = {**table_2(NAMES[:3], (0,)), **table_2(NAMES[:1], (1,))}
    assert covered(done, ("c3po", "dpo"), NAMES, (0, 1)) == (list(NAMES[:3]), [0])


def test_a_slope_needs_four_sentences_and_compares_with_the_others() -> None:
    assert slope_claim(table_2(NAMES[:3]), NAMES, (0, 1, 2)).holds is None
    done = {}
    for i, name in enumerate(NAMES):
        for method in TABLE_2:
            steep = 0.1 if method == "c3po" else 0.9
            for seed in (0, 1):
                done[name, method, seed] = result(0.1 * i, steep * 0.1 * i)
    claim = slope_claim(done, NAMES, (0, 1))
    assert claim.holds and claim.measured == pytest.approx(0.8)
    for method in TABLE_2:  # one sentence that goes against it, and the interval over sentences is wide
        done[NAMES[0], method, 0] = done[NAMES[0], method, 1] = result(0.0, 0.9 if method == "c3po" else 0.0)
    assert slope_claim(done, NAMES, (0, 1)).holds is not True


def test_the_interval_is_over_sentences_and_holds_for_ratios() -> None:
    """Of a mean the jackknife is Student's interval; one seed of six sentences decides, one sentence does not."""
    values = {"a": 0.1, "b": 0.4, "c": 0.3, "d": 0.7}
    mean, interval = jackknife(lambda names: sum(values[n] for n in names) / len(names), list(values))
    assert (mean, interval) == (pytest.approx(0.375), pytest.approx(over_seeds(list(values.values()))[1]))
    assert jackknife(lambda names: float(len(names)), ["a", "b"]) == (2.0, None)
    noisy = table_2(seeds=(0,))
    for i, name in enumerate(NAMES):
        noisy[name, "scd", 0] = result(0.47, 0.269 + 0.005 * (-1) ** i)
    claim = claims(noisy, (0,))["S_out of C3PO is at most .6 times that of SCD"]
    assert claim.interval is not None and claim.interval[0] < 0.558 < claim.interval[1]
    assert claim.holds and "interval over sentences" in claim.note


def test_arms_that_are_done_are_read_and_late_ones_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = []

    def arm(name: str, method: str, seed: int, tier: Any, run: Any) -> dict[str, Any]:
        return run.once(
            f"feedback/{name}/seed{seed}/{method}.json", lambda: begun.append(method) or result(0.5, 0.1)
        )

    monkeypatch.setattr(c3po_arms, "arm", arm)
    with open_run(tmp_path / "run", {}, seed=0) as run:
        late = time.monotonic() - 1
        assert c3po_arms.run_arms("smoke", [0], run, late) == {}
        assert set(c3po_arms.run_arms("smoke", [0], run)) == {("sign-off", m, 0) for m in METHODS}
        assert len(begun) == len(METHODS)
        part = c3po_feedbacks.feedback_part("smoke", [0], run, late)
        assert len(begun) == len(METHODS) and len(part.tables[0].rows) == len(METHODS)
        assert f"{len(METHODS)} of {len(METHODS)} runs" in part.notes[0]
        assert all(claim.holds is None for claim in part.claims)  # the smoke tier claims nothing
        composed = c3po_compose.compose_part("smoke", [0], run)
        assert [claim.holds for claim in composed.claims] == [None, None]
