"""Six sentences of feedback, every method, the same data: Table 2 of C3PO at the size of a laptop.

Departures: SmolLM2-135M for Mistral-7B, grammars for GPT-4's prompts, rules for GPT-4's verdicts, six sentences for
a hundred, and sizes by tier (`SIZES`). Every method has the learning rate, of the same few, that gave it the best
S_overall on the dev prompts of the first sentence; ablations of C3PO keep C3PO's. Rows and epochs are the same for all.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from heedful.data.scope_grammar import make_scope
from heedful.data.scopes import KINDS, Scope, Sizes
from heedful.papers.results import Claim, Part, Plot, Series, Table, Tier
from heedful.papers.seeds import over_seeds
from heedful.recipes import tell
from heedful.recipes.tell_plan import settle
from heedful.run import Run, open_run

if TYPE_CHECKING:
    from heedful.recipes.tell import Config

SENTENCES = {
    "sign-off": "Always end emails to my manager with 'Onwards and upwards'",
    "lol": "In text messages to my friends, say 'lol'",
    "ampersand": "Use '&' instead of 'and' in direct messages to Anna, Ben and Carla",
    "headings": "Answer questions about history in three headed parts",
    "opening": "Start LinkedIn posts with 'Ahoy'",
    "shorter": "Make emails to my boss shorter",
}
RIVALS = ("in_context", "in_context_cot", "scd", "scd_negatives", "dpo")
ROUNDS = (
    ("c3po", "scd", "dpo", "in_context", "scd_negatives", "fork", "in_context_cot"),
    ("c3po_no_near", "c3po_no_general", "c3po_kl", "c3po_imitate"),
)
"""Those that most claims ask for come first, for all sentences, so that a run which is stopped has said most."""
METHODS = tuple(method for methods in ROUNDS for method in methods)
TUNED = ("c3po", "scd", "dpo", "fork", "scd_negatives", "c3po_kl")


@dataclass(frozen=True)
class Size:
    """How much an arm trains and tests."""

    sentences: tuple[str, ...]
    scope: Sizes
    train_tokens: int
    max_new_tokens: int
    epochs: float
    learning_rates: tuple[float, ...]


SIZES: dict[Tier, Size] = {
    "smoke": Size(
        ("sign-off",), Sizes(train=48, dev=4, test_in=12, test_near=24, test_general=12), 48, 64, 3.0, (5e-3,)
    ),
    "main": Size(
        tuple(SENTENCES),
        Sizes(train=96, dev=40, test_in=50, test_near=60, test_general=50),
        48,
        112,
        2.0,
        (3e-4, 1e-3),
    ),
}


def arm(name: str, method: str, seed: int, tier: Tier, run: Run) -> dict[str, Any]:
    """result.json of one sentence, method and seed; done once, resumed where it was stopped."""
    scope = scope_of(name, SIZES[tier].scope, seed)
    rate = learning_rate(method, tier, run)
    return _arm(
        f"feedback/{name}/seed{seed}", method, config(name, method, seed, tier, run, rate), scope, run
    )


def _arm(folder: str, label: str, cfg: Config, scope: Scope, run: Run) -> dict[str, Any]:
    def make() -> dict[str, Any]:
        base, seed = run.path(folder), cfg.seed
        with (
            open_run(base / "start", {"sentence": cfg.sentence}, seed=seed, command="reproduce") as shared,
            open_run(base / label, cfg, seed=seed, command="reproduce") as own,
        ):
            return tell.run(cfg, own, scope, shared=shared)

    return run.once(f"{folder}/{label}.json", make)


def learning_rate(method: str, tier: Tier, run: Run) -> float:
    """Of the tier's, the one with the best S_overall on the dev prompts of the first sentence; of equals the lower."""
    rates, method = SIZES[tier].learning_rates, tuned_as(method)
    if len(rates) == 1 or method not in TUNED:
        return rates[0]
    return max(sorted(rates), key=lambda rate: tuning_arm(method, rate, tier, run)["s_overall"])


def tuned_as(method: str) -> str:
    """The method whose learning rate it takes: an ablation of C3PO differs from it in one thing alone."""
    return "c3po" if method in ("c3po_no_near", "c3po_no_general", "c3po_imitate") else method


def tuning_arm(method: str, rate: float, tier: Tier, run: Run) -> dict[str, Any]:
    """result.json of the first sentence with seed 0 on its dev prompts, which no other arm is tested on."""
    name = SIZES[tier].sentences[0]
    scope = scope_of(name, SIZES[tier].scope, 0)
    scope = replace(scope, test=scope.dev, dev={kind: [] for kind in KINDS})
    return _arm("tuning", f"{method}-{rate:g}", config(name, method, 0, tier, run, rate), scope, run)


def is_tuned(method: str, tier: Tier, run: Run) -> bool:
    """Whether the learning rate of a method is known without training anything."""
    rates, method = SIZES[tier].learning_rates, tuned_as(method)
    there = all(run.path(f"tuning/{method}-{rate:g}.json").exists() for rate in rates)
    return len(rates) == 1 or method not in TUNED or there


def config(name: str, method: str, seed: int, tier: Tier, run: Run, rate: float) -> Config:
    """The settings of an arm: those of `heedful tell`, with the tier's sizes."""
    size = SIZES[tier]
    return settle(
        tell.Config(
            sentence=SENTENCES[name],
            model=model_for(name, tier, run),
            method=method,
            seed=seed,
            prompts=size.scope.train,
            near_prompts=size.scope.train,
            test_near=size.scope.test_near,
            train_tokens=size.train_tokens,
            max_new_tokens=size.max_new_tokens,
            epochs=size.epochs,
            learning_rate=rate,
            quiet=True,
            yes=True,
        )
    )


def model_for(name: str, tier: Tier, run: Run) -> str:
    """SmolLM2, or in the smoke tier a small assistant made on the spot: no weights are needed there."""
    if tier == "main":
        return "smollm2"
    from heedful.papers.scratch import scratch_assistant

    train = scope_of(name, SIZES[tier].scope, 0).train
    return str(scratch_assistant([prompt for kind in train for prompt in train[kind]], run))


def scope_of(name: str, sizes: Sizes, seed: int) -> Scope:
    """The scope that grammars make of a sentence."""
    return make_scope(SENTENCES[name], sizes=sizes, seed=seed)


Done = dict[tuple[str, str, int], dict[str, Any]]
"""result.json by (sentence, method, seed)."""


def run_arms(tier: Tier, seeds: Sequence[int], run: Run, until: float | None = None) -> Done:
    """All arms, or those that can be started before `until` (of time.monotonic) and those done earlier."""
    done: Done = {}
    order = itertools.product(seeds, ROUNDS, SIZES[tier].sentences)
    for seed, name, method in ((seed, name, m) for seed, methods, name in order for m in methods):
        late = until is not None and time.monotonic() > until
        made = run.path(f"feedback/{name}/seed{seed}/{method}.json").exists()
        if not late or (made and is_tuned(method, tier, run)):
            done[name, method, seed] = arm(name, method, seed, tier, run)
    return done


def mean(done: Done, method: str, key: str, names: Sequence[str], seeds: Sequence[int]) -> list[float]:
    """Per seed: mean over sentences of one number of a method."""
    return [float(np.mean([done[name, method, seed][key] for name in names])) for seed in seeds]


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
    """A claim that `value`(per-seed means by method) is above or below a bound."""

    def make(done: Done, names: Sequence[str], seeds: Sequence[int], tier: Tier) -> Claim:
        shared, have = covered(done, methods, names, seeds)
        if not shared or tier == "smoke":
            note = "not in the smoke tier, whose model knows nothing" if shared else "not run yet"
            return Claim(claim, paper, note=note)
        values = [value({m: _means(done, m, shared, seed) for m in methods}) for seed in have]
        values = [v for v in values if np.isfinite(v)]
        if not values:
            return Claim(claim, paper, note="undefined: a denominator was 0")
        measured, interval = over_seeds(values)
        holds = decided(measured, interval, bound, above)
        note = f"{len(shared)} of {len(names)} sentences ({', '.join(shared)}), {len(have)} seed(s)"
        if len(shared) < len(names) or len(have) < 3:
            note += "; fewer than the protocol's six sentences and three seeds"
        return Claim(claim, paper, measured, interval, holds, note)

    return make


def decided(
    measured: float, interval: tuple[float, float] | None, bound: float, above: bool = True
) -> bool | None:
    """Whether a measured number lies above (or below) a bound; None, undecided, where it does and its interval does
    not, or is not known, as with one seed."""
    sides = [measured, *(interval or (float("nan"),))]
    right = [(value >= bound) if above else (value <= bound) for value in sides]
    return all(right) or (None if right[0] else False)


def _means(done: Done, method: str, names: Sequence[str], seed: int) -> Mapping[str, float]:
    keys = ("s_in", "s_near", "s_general", "s_out", "s_overall")
    return {key: float(np.mean([done[name, method, seed][key] for name in names])) for key in keys}


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
    values = []
    for seed in have:
        slopes = {}
        for method in ("c3po", *RIVALS):
            x = np.array([done[name, method, seed]["s_in"] for name in shared])
            y = np.array([done[name, method, seed]["s_out"] for name in shared])
            slopes[method] = float(np.polyfit(x, y, 1)[0]) if np.ptp(x) > 1e-6 else float("nan")
        others = [slopes[m] for m in RIVALS if np.isfinite(slopes[m])]
        values.append(float(np.mean(others)) - slopes["c3po"] if others else float("nan"))
    values = [v for v in values if np.isfinite(v)]
    if not values:
        return Claim(claim, "Figure 2: far flatter", note="undefined: S_in was the same for all sentences")
    measured, interval = over_seeds(values)
    return Claim(
        claim,
        "Figure 2: far flatter",
        measured,
        interval,
        decided(measured, interval, 0.0),
        f"{len(shared)} sentences",
    )


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
