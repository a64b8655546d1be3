"""The arms of C3PO's Table 2 at the size of a laptop: sentences, methods, sizes, learning rates, and how one is run.

Departures: SmolLM2-135M for Mistral-7B, grammars for GPT-4's prompts, rules for GPT-4's verdicts, six sentences for
a hundred, and sizes by tier (`SIZES`). Every method has the learning rate, of the same few, that gave it the best
S_overall on the dev prompts of the first sentence; ablations of C3PO keep C3PO's. Rows and steps are the same for all:
one pass in 48 steps (the paper: one in about 51).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from heedful.data.scopes import KINDS, Scope, Sizes
from heedful.data.scopes.grammar import make_scope
from heedful.papers.results import Tier
from heedful.papers.seeds import Done
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
    batch_size: int
    epochs: float
    learning_rates: tuple[float, ...]


SIZES: dict[Tier, Size] = {
    "smoke": Size(
        ("sign-off",),
        Sizes(train=48, dev=4, test_in=12, test_near=24, test_general=12),
        48,
        64,
        4,
        3.0,
        (5e-3,),
    ),
    "main": Size(
        tuple(SENTENCES),
        Sizes(train=96, dev=40, test_in=50, test_near=60, test_general=50),
        48,
        112,
        2,
        1.0,
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
            batch_size=size.batch_size,
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


def run_arms(
    tier: Tier,
    seeds: Sequence[int],
    run: Run,
    until: float | None = None,
    rounds: Sequence[Sequence[str]] = ROUNDS,
) -> Done:
    """All arms, or those that can be started before `until` (of time.monotonic) and those done earlier."""
    done: Done = {}
    order = itertools.product(seeds, rounds, SIZES[tier].sentences)
    for seed, name, method in ((seed, name, m) for seed, methods, name in order for m in methods):
        late = until is not None and time.monotonic() > until
        made = run.path(f"feedback/{name}/seed{seed}/{method}.json").exists()
        if not late or (made and is_tuned(method, tier, run)):
            done[name, method, seed] = arm(name, method, seed, tier, run)
    return done
