"""The bandit half of Tajwar et al. 2024 (arXiv 2404.14367): which methods find a reward where pi_ref hardly goes.

1. Worlds and departures: `onpolicy_world`; the driver and the methods: `onpolicy_driver`; what is claimed of the
   results: `onpolicy_bandit_claims`, and shown: `onpolicy_bandit_page`.
2. Every method has the learning rate and second knob (RWR's tau, DPO's beta, IPO's margin), of a grid, that is best on
   worlds of other seeds (`TUNING_SEEDS`), whose contexts, pi_data and pi_ref no reported run shares. Best is the
   highest last reward, a mean over these seeds. Ablations take the knobs of the setting that they vary.
3. A run is a stage of its own (bandit/SETTING/METHOD/seedN.json), and so is a tuning run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

from heedful.papers.onpolicy_driver import OFFLINE, ONLINE, Knobs, Setting, learn
from heedful.papers.onpolicy_world import POOL, Name, World, make_world
from heedful.papers.results import Part, Tier
from heedful.papers.seeds import Done

if TYPE_CHECKING:
    from heedful.run import Run

PAIRWISE = ("pref_ft", "dpo", "ipo")
ABLATED = ("bon", "ppo", "ipo")
GAP = 0.2
"""Of the paper's offline script for one action."""
WIDTHS = ("optimal-20", "optimal-30")
SHARP: dict[Name, dict[str, tuple[float, ...]]] = {
    "context": {"rwr": (0.1, 1.0), "dpo": (0.1, 1.0), "ipo": (10.0,)},
    "tokens": {"rwr": (0.03, 0.1), "dpo": (0.1, 1.0), "ipo": (10.0, 50.0)},
}
"""The second knob's grid. A mean over nine tokens varies a third as much as one token: hence the smaller tau."""


@dataclass(frozen=True)
class Size:
    """How much is learned in one world."""

    prompts: int
    """Of an offline run."""
    passes: int
    """Over an offline run's samples."""
    minibatch: int
    """Prompts of a step of an offline run; 0: all."""
    rounds: int
    reuse: int
    """Of an online run, of 10 prompts."""
    every: int
    """Rounds of an online run between measurements."""
    staleness: tuple[int, ...]
    """B / M: steps for which samples are drawn at once."""
    stale_steps: int
    reuses: tuple[int, ...]
    """Other T at the online run's rounds."""
    budgets: tuple[int, ...]
    """T of the paper's data-budget ablation: N times T, a T-th of the rounds, T passes."""
    budget_steps: int
    counts: tuple[int, ...]
    """Other numbers of prompts of the offline run with a gap."""
    offline_rates: tuple[float, ...]
    online_rates: tuple[float, ...]
    tuning_seeds: tuple[int, ...]
    marks: int = 10
    """Measurements of a run that is not on policy with fresh rounds."""


TUNING_SEEDS = (1000, 1001, 1002, 1003, 1004)
"""As many as reported ones: high rates collapse onto some action, and with few seeds it happens to be the best one."""
CONTEXT = Size(
    prompts=100,
    passes=200,
    minibatch=0,
    rounds=25,
    reuse=15,
    every=1,
    staleness=(1, 5, 20, 50),
    stale_steps=200,
    reuses=(1, 5, 50),
    budgets=(1, 10, 20, 50, 100),
    budget_steps=100,
    counts=(5, 10, 1000),
    offline_rates=(0.001, 0.003, 0.01, 0.03),
    online_rates=(0.001, 0.003, 0.01, 0.03),
    tuning_seeds=TUNING_SEEDS,
)
TOKENS = Size(
    prompts=100,
    passes=20,
    minibatch=10,
    rounds=20,
    reuse=10,
    every=2,
    staleness=(1, 5, 20),
    stale_steps=100,
    reuses=(1, 30),
    budgets=(),
    budget_steps=0,
    counts=(),
    offline_rates=(0.0003, 0.001, 0.003),
    online_rates=(0.001, 0.003, 0.01),
    tuning_seeds=TUNING_SEEDS[:2],
    marks=5,
)
SMOKE = {
    "rounds": 2,
    "every": 2,
    "staleness": (1, 4),
    "stale_steps": 4,
    "reuses": (1,),
    "budgets": (),
    "counts": (),
    "marks": 2,
}
SIZES: dict[Tier, dict[Name, Size]] = {
    "smoke": {
        "context": replace(
            CONTEXT,
            **SMOKE,
            prompts=20,
            passes=10,
            reuse=5,
            offline_rates=(0.003, 0.01),
            online_rates=(0.01,),
        ),
        "tokens": replace(
            TOKENS,
            **SMOKE,
            prompts=10,
            passes=2,
            minibatch=5,
            reuse=2,
            offline_rates=(0.001,),
            online_rates=(0.003,),
        ),
    },
    "main": {"context": CONTEXT, "tokens": TOKENS},
}


@dataclass(frozen=True)
class Setup:
    """A setting, the methods that are run in it, and the setting whose tuned knobs they take."""

    setting: Setting
    methods: tuple[str, ...]
    tuned_in: Setting


def setups(tier: Tier) -> dict[str, Setup]:
    """All that is run, by name, in the order in which it is: what most claims ask for comes first."""
    found: dict[str, Setup] = {}
    for name, size in SIZES[tier].items():
        found |= _main(name, size)
    for name, size in SIZES[tier].items():
        found |= _ablations(name, size, found)
    return found


def _main(name: Name, size: Size) -> dict[str, Setup]:
    found: dict[str, Setup] = {}

    def add(key: str, setting: Setting, methods: tuple[str, ...]) -> None:
        found[f"{name} {key}"] = Setup(setting, methods, setting)

    for reward in ("optimal", "mode"):
        steps = size.passes * -(-size.prompts // (size.minibatch or size.prompts))
        offline = Setting(
            world=name,
            reward=reward,
            prompts=size.prompts,
            rounds=1,
            reuse=size.passes,
            minibatch=size.minibatch,
            every=max(1, steps // size.marks),
        )
        online = Setting(
            world=name, reward=reward, rounds=size.rounds, reuse=size.reuse, every=size.every * size.reuse
        )
        add(f"{reward} offline", offline, OFFLINE)
        if name == "context":
            add(f"{reward} offline gap", replace(offline, gap=GAP), PAIRWISE)
        if name == "context" or reward == "optimal":
            add(f"{reward} online", online, ONLINE)
    return found


def _ablations(name: Name, size: Size, found: dict[str, Setup]) -> dict[str, Setup]:
    base = found[f"{name} optimal online"].setting
    more: dict[str, Setup] = {}

    def add(key: str, setting: Setting, methods: tuple[str, ...] = ABLATED, of: Setting = base) -> None:
        more[f"{name} {key}"] = Setup(setting, methods, of)

    for times in size.staleness:
        rounds = size.stale_steps // times
        setting = replace(base, prompts=POOL, batch=10 * times, minibatch=10, rounds=rounds, reuse=1)
        add(f"B {times}", replace(setting, every=max(1, size.stale_steps // size.marks)))
    for reuse in size.reuses:
        add(f"T {reuse}", replace(base, reuse=reuse, every=min(5, size.rounds) * reuse))
    for times in size.budgets:
        rounds, every = size.budget_steps // times, max(1, size.budget_steps // size.marks)
        add(f"budget {times}", replace(base, samples=10 * times, rounds=rounds, reuse=times, every=every))
    gap = found.get(f"{name} optimal offline gap")
    for count in size.counts if gap else ():
        assert gap is not None
        add(f"prompts {count}", replace(gap.setting, prompts=count), ("ipo",), gap.setting)
    for width in WIDTHS if gap else ():
        assert gap is not None
        add(
            f"{width} offline gap", replace(gap.setting, reward=width), ("pref_ft", "dpo", "ipo"), gap.setting
        )
        offline = found[f"{name} optimal offline"].setting
        add(f"{width} offline", replace(offline, reward=width), ("bon",), offline)
    return more


def grid(setting: Setting, method: str, tier: Tier) -> list[Knobs]:
    """The knobs that are tried, the lowest learning rate first."""
    size = SIZES[tier][setting.world]
    sharp = SHARP[setting.world].get(method, (0.0,))
    if tier == "smoke":
        sharp = sharp[:1]
    rates = size.online_rates if setting.online else size.offline_rates
    return [Knobs(rate, second) for rate in rates for second in sharp]


class Bench:
    """The runs of a tier in a run folder: read where done, made where there is time, None where there is not."""

    def __init__(self, tier: Tier, run: Run, until: float | None = None) -> None:
        self.tier: Tier = tier
        self.run, self.until = run, until
        self.worlds: dict[tuple[Name, int], World] = {}

    def attempt(self, name: str, make: Callable[[], Any]) -> Any:
        """A stage, or None when it is not done and the time is over."""
        late = self.until is not None and time.monotonic() > self.until
        return None if late and not self.run.path(name).exists() else self.run.once(name, make)

    def world(self, name: Name, seed: int) -> World:
        """The world of a seed, made once."""
        if (name, seed) not in self.worlds:
            self.worlds[name, seed] = make_world(name, seed, self.run)
        return self.worlds[name, seed]

    def tuning(self, setting: Setting, method: str, knobs: Knobs) -> float | None:
        """The last reward, a mean over the tuning seeds; None when the time is over."""
        values = []
        for seed in SIZES[self.tier][setting.world].tuning_seeds:
            name = f"bandit/tuning/{setting.name}/{method}-{knobs.name}/seed{seed}.json"
            found = self.attempt(
                name, lambda seed=seed: learn(setting, method, knobs, self.world(setting.world, seed))
            )
            if found is None:
                return None
            values.append(found["reward"][-1])
        return fmean(values)

    def tuned(self, setting: Setting, method: str) -> Knobs | None:
        """The best of the grid, of equals the first; None when the time is over before all are tried."""
        tried = grid(setting, method, self.tier)
        if len(tried) == 1:
            return tried[0]
        values = {}
        for knobs in tried:
            value = self.tuning(setting, method, knobs)
            if value is None:
                return None
            values[knobs] = value
        return max(tried, key=lambda knobs: values[knobs])

    def arm(self, setup: Setup, method: str, seed: int) -> dict[str, Any] | None:
        """A reported run: its knobs and what `learn` gives."""
        setting = setup.setting
        name = f"bandit/{setting.name}/{method}/seed{seed}.json"
        if self.run.path(name).exists():
            return self.run.once(name, dict)
        knobs = self.tuned(setup.tuned_in, method)
        if knobs is None:
            return None

        def make() -> dict[str, Any]:
            course = learn(setting, method, knobs, self.world(setting.world, seed))
            return {"lr": knobs.lr, "sharp": knobs.sharp, **course}

        return self.attempt(name, make)


def run_arms(tier: Tier, seeds: Sequence[int], run: Run, until: float | None = None) -> Done:
    """All runs, or those that can be begun before `until` (of time.monotonic) and those done earlier."""
    bench, done = Bench(tier, run, until), Done()
    for key, setup in setups(tier).items():
        for seed in seeds:
            for method in setup.methods:
                result = bench.arm(setup, method, seed)
                if result is not None:
                    done[key, method, seed] = result
    return done


def bandit_part(tier: Tier, seeds: Sequence[int], run: Run, until: float | None = None) -> Part:
    """Claims, tables and plots of both worlds; five seeds are the protocol's."""
    from heedful.papers.onpolicy_bandit_claims import claims
    from heedful.papers.onpolicy_bandit_page import notes, plots, tables

    done = run_arms(tier, seeds, run, until)
    what = (done, tier, seeds)
    return Part(claims(*what), tables(*what), plots(*what), notes(*what))
