"""Six sentences of feedback, every method, the same data: what Table 2 of C3PO claims, and what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from heedful.papers.c3po_arms import (
    METHODS,
    RIVALS,
    SIZES,
    TUNED,
    is_tuned,
    learning_rate,
    run_arms,
    tuning_arm,
)
from heedful.papers.results import Claim, Part, Plot, Series, Table, Tier
from heedful.papers.seeds import Done, decided, jackknife, over_seeds
from heedful.run import Run


def covered(
    done: Done, methods: Sequence[str], names: Sequence[str], seeds: Sequence[int]
) -> tuple[list[str], list[int]]:
    """The sentences and seeds for which every one of these methods was run, as many seeds as the sentences share."""
    full = {
        seed: [name for name in names if all((name, method, seed) in done for method in methods)]
        for seed in seeds
    }
    have = [seed for seed in seeds if full[seed]]
    if not have:
        return [], []
    # A later seed that has seen fewer sentences is left out: a mean over other sentences is another quantity.
    most = full[have[0]]
    return most, [seed for seed in have if set(most) <= set(full[seed])]


def feedback_part(tier: Tier, seeds: Sequence[int], run: Run, until: float | None = None) -> Part:
    """Claims of Table 2 and of the ablations, with what was run behind each."""
    names = SIZES[tier].sentences
    done = run_arms(tier, seeds, run, until)
    claims = [make(done, names, seeds, tier) for make in CLAIMS]
    claims.append(slope_claim(done, names, seeds))
    told = notes(done, names, seeds)
    if not done:
        return Part(claims, notes=told)
    tables = [summary_table(done, names, seeds), tuning_table(tier, run), arms_table(done)]
    return Part(claims, [table for table in tables if table.rows], [scatter(done)], told)


def _compare(claim: str, paper: str, methods: Sequence[str], value: Any, bound: float, above: bool) -> Any:
    """A claim that `value` of the means by method is above or below a bound, for sentences like these: from three
    sentences on, the interval is over them, with seeds averaged, since another sentence moves a result more than
    another seed does."""

    def make(done: Done, names: Sequence[str], seeds: Sequence[int], tier: Tier) -> Claim:
        shared, have = covered(done, methods, names, seeds)
        if not shared or tier == "smoke":
            note = "not in the smoke tier, whose model knows nothing" if shared else "not run yet"
            return Claim(claim, paper, note=note)

        def of(names: Sequence[str], seeds: Sequence[int] = have) -> float:
            return value({m: _means(done, m, names, seeds) for m in methods})

        measured, interval = of(shared), None
        if not np.isfinite(measured):
            return Claim(claim, paper, note="undefined: a denominator was 0")
        if len(shared) >= 3:
            interval, over = jackknife(of, shared)[1], "sentences"
        else:
            values = [v for v in (of(shared, [seed]) for seed in have) if np.isfinite(v)]
            interval, over = over_seeds(values)[1] if values else None, "seeds"
        holds = decided(measured, interval, bound, above)
        note = f"{len(shared)} of {len(names)} sentences ({', '.join(shared)}), {len(have)} seed(s)"
        if interval is not None:
            note += f"; interval over {over}"
        if len(shared) < len(names) or len(have) < 3:
            note += "; fewer than the protocol's six sentences and three seeds"
        return Claim(claim, paper, measured, interval, holds, note)

    return make


def _means(done: Done, method: str, names: Sequence[str], seeds: Sequence[int]) -> Mapping[str, float]:
    keys = ("s_in", "s_near", "s_general", "s_out", "s_overall")
    runs = [done[name, method, seed] for name in names for seed in seeds]
    return {key: float(np.mean([result[key] for result in runs])) for key in keys}


def _ratio(a: float, b: float) -> float:
    return a / b if b > 0 else float("nan")


CLAIMS = [
    _compare(
        "S_overall of C3PO is the best of all methods, by at least .05 (measured: its lead over the best rival)",
        "Table 2: .7065, the others from .4045 (DPO) to .617 (SCD with negatives)",
        ("c3po", *RIVALS),
        lambda m: m["c3po"]["s_overall"] - max(m[r]["s_overall"] for r in RIVALS),
        0.05,
        True,
    ),
    _compare(
        "S_out of C3PO is at most .6 times that of SCD",
        "Table 2: .150 / .269 = .56",
        ("c3po", "scd"),
        lambda m: _ratio(m["c3po"]["s_out"], m["scd"]["s_out"]),
        0.6,
        False,
    ),
    _compare(
        "S_out of C3PO is at most .4 times that of DPO",
        "Table 2: .150 / .517 = .29",
        ("c3po", "dpo"),
        lambda m: _ratio(m["c3po"]["s_out"], m["dpo"]["s_out"]),
        0.4,
        False,
    ),
    _compare(
        "S_out of C3PO is at most .5 times that of in-context",
        "Table 2: .150 / .503 = .30",
        ("c3po", "in_context"),
        lambda m: _ratio(m["c3po"]["s_out"], m["in_context"]["s_out"]),
        0.5,
        False,
    ),
    _compare(
        "S_in of C3PO is at least that of SCD with negatives (measured: the difference)",
        "Table 2: .563 against .367",
        ("c3po", "scd_negatives"),
        lambda m: m["c3po"]["s_in"] - m["scd_negatives"]["s_in"],
        0.0,
        True,
    ),
    _compare(
        "S_in of C3PO is at least .75 times that of in-context",
        "Table 2: .563 / .677 = .83",
        ("c3po", "in_context"),
        lambda m: _ratio(m["c3po"]["s_in"], m["in_context"]["s_in"]),
        0.75,
        True,
    ),
    _compare(
        "DPO leaks more near the scope than outside it (measured: S_near - S_general)",
        "no number; our reading",
        ("dpo",),
        lambda m: m["dpo"]["s_near"] - m["dpo"]["s_general"],
        1e-9,
        True,
    ),
    _compare(
        "In-context leaks more near the scope than outside it (measured: S_near - S_general)",
        "no number; our reading",
        ("in_context",),
        lambda m: m["in_context"]["s_near"] - m["in_context"]["s_general"],
        1e-9,
        True,
    ),
    _compare(
        "Without the near term (lambda_near 0) more leaks near the scope (measured: the rise of S_near)",
        "both lambdas must be above 0; no number",
        ("c3po", "c3po_no_near"),
        lambda m: m["c3po_no_near"]["s_near"] - m["c3po"]["s_near"],
        1e-9,
        True,
    ),
    _compare(
        "Without the general term (lambda_general 0) more leaks outside it (measured: the rise of S_general)",
        "both lambdas must be above 0; no number",
        ("c3po", "c3po_no_general"),
        lambda m: m["c3po_no_general"]["s_general"] - m["c3po"]["s_general"],
        1e-9,
        True,
    ),
    _compare(
        "KL in place of the likelihood terms lowers S_in (measured: the fall)",
        "Figure 8",
        ("c3po", "c3po_kl"),
        lambda m: m["c3po"]["s_in"] - m["c3po_kl"]["s_in"],
        1e-9,
        True,
    ),
    _compare(
        "Ours: the fork terms lift S_overall above C3PO's by at least .05 (measured: the lead)",
        "not in the paper",
        ("c3po", "fork"),
        lambda m: m["fork"]["s_overall"] - m["c3po"]["s_overall"],
        0.05,
        True,
    ),
]


def slope_claim(done: Done, names: Sequence[str], seeds: Sequence[int]) -> Claim:
    """Over the sentences, S_out rises less with S_in for C3PO than for the others (Figure 2)."""
    claim = "Over the sentences, S_out rises less with S_in for C3PO than for the mean of the others"
    shared, have = covered(done, ("c3po", *RIVALS), names, seeds)
    if len(shared) < 4:
        return Claim(
            claim, "Figure 2: far flatter", note="not run yet: a slope needs at least four sentences"
        )

    def flatter(names: Sequence[str]) -> float:
        """The mean slope of the others less that of C3PO, with seeds averaged."""
        slopes = {}
        for method in ("c3po", *RIVALS):
            points = [_means(done, method, [name], have) for name in names]
            x, y = (np.array([point[key] for point in points]) for key in ("s_in", "s_out"))
            slopes[method] = float(np.polyfit(x, y, 1)[0]) if np.ptp(x) > 1e-6 else float("nan")
        others = [slopes[m] for m in RIVALS if np.isfinite(slopes[m])]
        return float(np.mean(others)) - slopes["c3po"] if others else float("nan")

    measured, interval = jackknife(flatter, shared)
    if not np.isfinite(measured):
        return Claim(claim, "Figure 2: far flatter", note="undefined: S_in was the same for all sentences")
    note = f"{len(shared)} sentences, {len(have)} seed(s); interval over sentences"
    return Claim(claim, "Figure 2: far flatter", measured, interval, decided(measured, interval, 0.0), note)


def summary_table(done: Done, names: Sequence[str], seeds: Sequence[int]) -> Table:
    """One row per method, over all the sentences and seeds it was run on."""
    rows = []
    for method in METHODS:
        got = [result for (_, m, _), result in done.items() if m == method]
        if got:
            keys = ("s_in", "s_near", "s_general", "s_out", "s_overall", "minutes")
            rows.append([method, len(got), *(round(float(np.mean([g[k] for g in got])), 3) for k in keys)])
    columns = ["method", "runs", "S_in", "S_near", "S_general", "S_out", "S_overall", "minutes"]
    note = (
        "Means over what was run; methods with other numbers of runs are not comparable here, the claims are."
    )
    return Table("All methods", columns, rows, note)


def tuning_table(tier: Tier, run: Run) -> Table:
    """What each learning rate gave on dev prompts, as far as it was tried."""
    keys, rows = ("s_in", "s_near", "s_general", "s_overall"), []
    for method in TUNED if len(SIZES[tier].learning_rates) > 1 else ():
        if is_tuned(method, tier, run):
            best = learning_rate(method, tier, run)
            for rate in SIZES[tier].learning_rates:
                got = tuning_arm(method, rate, tier, run)
                rows.append(
                    [method, f"{rate:g}", *(round(got[k], 3) for k in keys), "taken" if rate == best else ""]
                )
    columns = ["method", "learning rate", "S_in", "S_near", "S_general", "S_overall", ""]
    return Table("Learning rates, on the dev prompts of the first sentence", columns, rows)


def arms_table(done: Done) -> Table:
    """Every arm with its intervals over prompts."""
    rows = []
    for (name, method, seed), r in sorted(done.items()):
        spans = [
            f"{r[k]:.2f} ({r[f'{k}_low']:.2f} to {r[f'{k}_high']:.2f})"
            for k in ("s_in", "s_near", "s_general", "s_overall")
        ]
        rows.append([name, method, seed, *spans, round(r["noise_floor"], 3)])
    columns = ["sentence", "method", "seed", "S_in", "S_near", "S_general", "S_overall", "noise floor"]
    return Table("Every run, with 95% intervals over prompts", columns, rows)


def scatter(done: Done) -> Plot:
    """S_out against S_in, one marker for each method."""
    series = []
    for method in METHODS:
        got = [result for (_, m, _), result in done.items() if m == method]
        if got:
            x, y = (float(np.mean([g[k] for g in got])) for k in ("s_in", "s_out"))
            series.append(Series(method, [x], [y]))
    return Plot(
        "What is learned and what leaks", "S_in (higher is better)", "S_out (lower is better)", series
    )


def notes(done: Done, names: Sequence[str], seeds: Sequence[int]) -> list[str]:
    """How much of the protocol was run."""
    whole = len(names) * len(METHODS) * len(seeds)
    return [
        f"{len(done)} of {whole} runs are done ({len(names)} sentences, {len(METHODS)} methods, {len(seeds)} seeds)."
    ]
