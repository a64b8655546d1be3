"""Staleness under a gold reward (Tajwar et al. 2024, section 5, AlpacaFarm): a proxy is learned from labels,
policies from the proxy, and what is reported is the gold reward, which nothing learns from.

The world is that of the length tasks; the gold reward (`onpolicy_lengths_text.gold`) asks for vivid sentences, four or
more, and the place by its name. About two thousand labels with Bradley-Terry noise make the proxy.

1. A step is of 8 answers for every method (the paper's M): 2 prompts with 4 answers, or 4 pairs.
2. B, the answers drawn before the policy learns again, is 16, 32 or 64, so 2, 4 or 8 steps are made of them; the steps
   and the answers in all are the same.
3. Settings are chosen as for the length tasks, RWR's and REINFORCE's at B = 32, by the proxy's score over the run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Any

from heedful.papers import onpolicy_lengths
from heedful.papers import onpolicy_lengths_text as texts
from heedful.papers.onpolicy_arms import (
    Knobs,
    Method,
    arm,
    called,
    courses,
    got,
    grid,
    length,
    mean_and_half,
    over_run,
    reported,
    settings_table,
    tally,
)
from heedful.papers.onpolicy_lengths import HIGH, LOW, OFFLINE, TUNING_SEED, WIDE
from heedful.papers.results import Claim, Part, Plot, Table, Tier, Value
from heedful.papers.seeds import Done, Get, Result, claim

if TYPE_CHECKING:
    from heedful.recipes.prefer import Config
    from heedful.run import Run

ANSWERS = 8
"""Of a step (the paper's M)."""
BATCHES = (16, 32, 64)
"""The paper's B."""
MIDDLE = 32
TRIED = "The proxy's score on held-out prompts of another seed, RWR's and REINFORCE's at B = 32; it alone decides."
METHODS = {
    "rwr": Method("RWR", {"method": "rwr", "n": 4}, grid(HIGH, tau=(0.3, 1.0))),
    "reinforce": Method("REINFORCE", {"method": "reinforce", "n": 4, "baseline": "running"}, grid(WIDE)),
    "dpo_online": Method("on-policy DPO", {"method": "dpo", "n": 2}, grid(HIGH, beta=(0.1, 0.5))),
    "dpo": Method("DPO", {"method": "dpo", **OFFLINE}, grid(LOW, beta=(0.1, 2.0))),
    "sft": Method("Pref-FT", {"method": "sft", **OFFLINE}, grid(WIDE)),
}
STALE = ("rwr", "reinforce")


@dataclass(frozen=True)
class Size:
    """steps of an arm, and between two marks; the arms, (method, B); answers to each held-out prompt."""

    world: texts.Size
    steps: int
    every: int
    arms: tuple[tuple[str, int], ...]
    held_answers: int


SIZES: dict[Tier, Size] = {
    "smoke": Size(
        onpolicy_lengths.SIZES["smoke"].world,
        steps=8,
        every=8,
        arms=(("reinforce", 16), ("rwr", 64)),
        held_answers=1,
    ),
    "main": Size(
        replace(onpolicy_lengths.SIZES["main"].world, reward_epochs=4.0),
        steps=128,
        every=16,
        arms=(*((m, b) for b in BATCHES for m in STALE), ("dpo", 16), ("sft", 16), ("dpo_online", 16)),
        held_answers=2,
    ),
}


def gold_part(tier: Tier, seeds: Sequence[int], run: Run, until: float | None = None) -> Part:
    """Claims about staleness and about offline methods under a gold reward; three seeds are the protocol's."""
    done = run_arms(tier, seeds, run, until)
    told = tally("Gold reward", done, len(SIZES[tier].arms) * len(seeds))
    if not done:
        return Part(claims(done, tier, seeds), notes=told)
    tables = [
        gold_table(done, tier),
        settings_table("Gold reward: settings tried", "gold/tuning", METHODS, tier, run, TRIED),
        proxy_table(tier, seeds, run),
    ]
    return Part(claims(done, tier, seeds), [t for t in tables if t.rows], plots(done, tier), told)


def run_arms(tier: Tier, seeds: Sequence[int], run: Run, until: float | None = None) -> Done:
    """All arms, by ("B 16", method, seed), or those that can be begun before `until` and those done earlier."""
    done: Done = {}
    for seed in seeds:
        for method, batch in SIZES[tier].arms:
            result = reported(
                f"gold/seed{seed}/B{batch}/{method}",
                METHODS[method],
                tier,
                run,
                until,
                tuning=partial(tuning, method, tier=tier, run=run, until=until),
                plan=partial(plan, method, batch, seed, tier=tier, run=run),
            )
            if result is not None:
                done[f"B {batch}", method, seed] = result
    return done


def tuning(method: str, knobs: Knobs, tier: Tier, run: Run, until: float | None = None) -> Result | None:
    """A run on the tuning seed."""
    name = f"gold/tuning/{method}-{called(knobs)}"
    batch = MIDDLE if method in STALE else BATCHES[0]
    return arm(name, lambda: plan(method, batch, TUNING_SEED, knobs, tier, run), run, until)


def plan(
    method: str, batch: int, seed: int, knobs: Knobs, tier: Tier, run: Run
) -> tuple[Config, dict[str, Any]]:
    """The settings of an arm; makes the world of its seed and the proxy where they are not made yet."""
    size = SIZES[tier]
    world = texts.make_world(seed, size.world, run)
    options = METHODS[method].options
    answers = options.get("n", 2)
    cfg = replace(
        texts.settings(world, "gold", size.world, run),
        **options,
        **knobs,
        gold=f"{texts.__file__}:gold",
        rounds=size.steps * ANSWERS // batch,
        prompts_per_round=batch // answers,
        batch_size=ANSWERS // answers,
        eval_rounds=size.every * ANSWERS // batch,
        eval_n=size.held_answers,
    )
    return cfg, {"knobs": called(knobs)}


# ---- claims


def final(result: Result) -> float:
    """The mean gold reward of held-out answers at the end."""
    return result["course"]["gold"][-1]


def claims(done: Done, tier: Tier, seeds: Sequence[int]) -> list[Claim]:
    """What the paper's runs on AlpacaFarm show, computed from the results alone."""
    found = []

    def say(text: str, paper: str, value: Callable[[Get], float], **limit: Any) -> None:
        found.append(claim(f"Gold reward: {text}", paper, value, done, tier, seeds, **limit))

    small, middle, large = (f"B {batch}" for batch in BATCHES)
    figures = {
        "rwr": ".71, .67 and .56 at B = 64, 128 and 256 after 600 steps",
        "reinforce": ".73, .66 and .62 at B = 64, 128 and 256 after 600 steps",
    }
    for method in STALE:
        name = METHODS[method].name
        say(
            f"{name} ends higher with B = {BATCHES[0]} than with B = {BATCHES[2]} at the same steps and answers "
            "(measured: the lead)",
            figures[method],
            lambda get, m=method: final(get(small, m)) - final(get(large, m)),
        )
        say(
            f"{name} ends higher the smaller B is, of three (measured: the smaller of the two leads)",
            figures[method],
            lambda get, m=method: min(
                final(get(small, m)) - final(get(middle, m)), final(get(middle, m)) - final(get(large, m))
            ),
        )
        say(
            f"{name} is higher over the run with B = {BATCHES[0]} than with B = {BATCHES[2]} (measured: the lead)",
            "no number; our question, since both may end at the top",
            lambda get, m=method: over_run(get(small, m), "gold") - over_run(get(large, m), "gold"),
        )
    say(
        "from the same pairs DPO ends higher than Pref-FT (measured: the lead)",
        "gain over the start: +.135 and -.01 on AlpacaFarm",
        lambda get: final(get(small, "dpo")) - final(get(small, "sft")),
    )
    say(
        "the implicit rewards of held-out pairs are further apart after DPO than after Pref-FT (measured: how much "
        "further h_w - h_l, in nats)",
        "AlpacaFarm: .038 and 0; UltraFeedback: .85 and .3",
        lambda get: _margin(get(small, "dpo")) - _margin(get(small, "sft")),
    )
    say(
        "DPO lowers the implicit reward of chosen answers too (measured: h_w in nats)",
        "so on AlpacaFarm, -.05 (rejected -.088); not on UltraFeedback, +.6 (-.25)",
        lambda get: get(small, "dpo")["h_w"],
        bound=-1e-9,
        above=False,
    )
    say(
        "Pref-FT raises the implicit reward of rejected answers too (measured: h_l in nats)",
        "AlpacaFarm: +.0105, as for chosen; UltraFeedback: 3.3, chosen 3.6",
        lambda get: get(small, "sft")["h_l"],
    )
    return found


def _margin(result: Result) -> float:
    return result["h_w"] - result["h_l"]


# ---- tables and plots


def gold_table(done: Done, tier: Tier) -> Table:
    """A row for each arm: gold and proxy, lengths, KL, implicit rewards."""
    rows = []
    for method, batch in SIZES[tier].arms:
        results = got(done, f"B {batch}", method)
        if not results:
            continue
        row: list[Value] = [METHODS[method].name, batch, len(results), results[0]["knobs"]]
        row.append(fmean(r["course"]["gold"][0] for r in results))
        for values in ([over_run(r, "gold") for r in results], [final(r) for r in results]):
            row += mean_and_half(values)
        row += [fmean(r["course"]["judge"][-1] for r in results), fmean(length(r) for r in results)]
        rows.append(row + [fmean(r[key] for r in results) for key in ("kl", "h_w", "h_l")])
    columns = ["method", "B", "seeds", "setting", "gold at the start", "over the run", "±", "at the end", "±"]
    columns += ["proxy at the end", "tokens", "KL", "h_w", "h_l"]
    note = (
        "Held-out prompts, means over seeds, ± half the 95% interval over seeds. For DPO and Pref-FT, which draw "
        "nothing, B says how often they are measured, no more. KL in nats per answer; h_w and h_l of held-out pairs."
    )
    return Table("Gold reward: every arm", columns, rows, note)


def proxy_table(tier: Tier, seeds: Sequence[int], run: Run) -> Table:
    """What the proxies are."""
    rows = []
    for seed in seeds:
        path = f"texts/seed{seed}/reward-gold.json"
        if run.path(path).exists():
            told = run.once(path, dict)
            rows.append([seed, told["pairs"], told["accuracy"]])
    note = f"Labels are noisy, p = 1 / (1 + exp(-{texts.SHARPNESS:g} * difference of gold rewards))."
    return Table("Gold reward: proxies", ["seed", "pairs", "right on held-out labels"], rows, note)


def plots(done: Done, tier: Tier) -> list[Plot]:
    """Gold over steps by B, and implicit rewards over steps."""
    found = []
    for method in STALE:
        lines = [(f"B {batch}", method, f"B = {batch}") for batch in BATCHES]
        title = f"Gold reward of {METHODS[method].name} by B"
        found.append(
            courses(
                title,
                "gold reward",
                done,
                lines,
                lambda r, i: r["course"]["gold"][i],
                "Bands: least to largest of seeds.",
            )
        )
    for name, said in (("h_w", "chosen"), ("h_l", "rejected")):
        lines = [("B 16", method, METHODS[method].name) for method in METHODS]
        found.append(
            courses(
                f"Implicit reward of {said} answers ({name})",
                "nats",
                done,
                lines,
                lambda r, i, n=name: r["course"][n][i],
                "Of what is learned from, means since the mark before: the best and the worst of 4 answers for RWR and "
                "REINFORCE, the pairs for the others.",
            )
        )
    return [plot for plot in found if plot.series]
