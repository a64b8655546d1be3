"""Adding two adapters up: does each sentence still hold, and nowhere else? Figure 7 of C3PO.

The adapters are those of one trained method and seed; their changes of the weights are added with weights 1 and 1, as
the paper does. Each sentence is then measured on its own test prompts, against the same start model's answers.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from heedful.data.scopes import KINDS
from heedful.papers.c3po_arms import SENTENCES, SIZES, arm, config, learning_rate, scope_of
from heedful.papers.results import Claim, Part, Table, Tier
from heedful.papers.seeds import near, over_seeds
from heedful.policies.language import LanguagePolicy
from heedful.recipes import tell_eval
from heedful.run import Run, open_run

METHOD = "fork"
PAIRS = (
    ("sign-off", "lol"),
    ("sign-off", "opening"),
    ("lol", "headings"),
    ("opening", "headings"),
    ("ampersand", "shorter"),
)
CLAIMS = (
    (
        "s_in",
        "The sum of two adapters changes S_in by at most .07 (measured: the mean change, with its sign)",
        0.07,
    ),
    (
        "s_out",
        "The sum of two adapters changes S_out by at most .05 (measured: the mean change, with its sign)",
        0.05,
    ),
)
PAPER = "Figure 7: virtually nothing is lost over 10 pairs"


def pair(names: tuple[str, str], seed: int, tier: Tier, run: Run) -> dict[str, dict[str, float]]:
    """For each of two sentences: s_in and s_out alone and of the sum of both adapters; done once."""
    size = SIZES[tier]
    alone = {name: arm(name, METHOD, seed, tier, run) for name in names}

    def make() -> dict[str, Any]:
        cfg = config(names[0], METHOD, seed, tier, run, learning_rate(METHOD, tier, run))
        policy = LanguagePolicy.load(cfg.model, precision=cfg.precision, device=cfg.device)
        base = run.path("feedback")
        for name in names:
            policy.load_adapter(name, base / name / f"seed{seed}" / METHOD / "model")
        policy.add_adapters("both", dict.fromkeys(names, 1.0))
        made: dict[str, Any] = {}
        folder = run.path(f"composed/{names[0]}+{names[1]}/seed{seed}")
        with open_run(folder, {"of": list(names)}, seed=seed, command="reproduce") as own:
            for name in names:
                scope = scope_of(name, size.scope, seed)
                with open_run(
                    base / name / f"seed{seed}" / "start",
                    {"sentence": SENTENCES[name]},
                    seed=seed,
                    command="reproduce",
                ) as start:
                    before = tell_eval.answers(
                        cfg, policy, scope, "before", start
                    )  # read back, as the arm left them
                after = tell_eval.answers(cfg, policy, scope, f"{name}/after", own)
                h = {k: tell_eval.changes(cfg, scope, k, before[k], after[k], own) for k in KINDS}
                out = np.mean([np.mean(np.abs(h[k])) for k in ("near", "general")])
                made[name] = {"s_in": float(np.mean(h["in"])), "s_out": float(out)}
        return made

    both = run.once(f"composed/{names[0]}+{names[1]}.seed{seed}.json", make)
    return {
        name: {
            f"{key}{of}": side[name][key]
            for of, side in (("", alone), ("_sum", both))
            for key in ("s_in", "s_out")
        }
        for name in names
    }


Pairs = list[tuple[tuple[str, str], int, dict[str, dict[str, float]]]]
"""(sentences, seed, `pair` of them)."""


def run_pairs(tier: Tier, seeds: Sequence[int], run: Run, until: float | None = None) -> Pairs:
    """The pairs whose adapters are there, or those that can be begun before `until` and those done earlier. The smoke
    tier has one sentence, so none."""
    done: Pairs = []
    for seed in seeds if tier == "main" else ():
        for names in PAIRS:
            ready = all(run.path(f"feedback/{n}/seed{seed}/{METHOD}.json").exists() for n in names)
            kept = run.path(f"composed/{names[0]}+{names[1]}.seed{seed}.json").exists()
            late = until is not None and time.monotonic() > until
            if kept or (ready and not late):
                done.append((names, seed, pair(names, seed, tier, run)))
    return done


def compose_part(tier: Tier, seeds: Sequence[int], run: Run, until: float | None = None) -> Part:
    """Claims of Figure 7 over the pairs that were run."""
    done = run_pairs(tier, seeds, run, until)
    claims = []
    for key, claim, bound in CLAIMS:
        if not done:
            claims.append(
                Claim(claim, PAPER, note="not run yet" if tier == "main" else "not in the smoke tier")
            )
            continue
        changes = [of[f"{key}_sum"] - of[key] for _, _, pair in done for of in pair.values()]
        measured, interval = over_seeds(changes)
        pairs, ran = len({names for names, _, _ in done}), len({seed for _, seed, _ in done})
        note = f"{pairs} of {len(PAIRS)} pairs, {ran} of {len(seeds)} seeds; interval over sentences in pairs; {METHOD}"
        claims.append(Claim(claim, PAPER, measured, interval, near(measured, interval, bound), note))
    rows = [
        [
            " + ".join(names),
            seed,
            name,
            *(round(of[k], 3) for k in ("s_in", "s_in_sum", "s_out", "s_out_sum")),
        ]
        for names, seed, pair in done
        for name, of in pair.items()
    ]
    columns = ["pair", "seed", "sentence", "S_in alone", "S_in of the sum", "S_out alone", "S_out of the sum"]
    return Part(claims, [Table("Two adapters added up", columns, rows)] if rows else [])
