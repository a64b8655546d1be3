"""Lengths (Tajwar et al. 2024, section 4): a small transformer learns to be short, or of middling length, from pairs of
its own answers; offline and on-policy methods, with and without a negative gradient.

The world is `onpolicy_lengths_text`: templated text, about 40 tokens long, and a transformer of a fifth of a million
parameters for Pythia-1.4B on AlpacaFarm. Departures and choices:

1. Every arm is one run of `heedful prefer` from the same pi_ref. A step is of 32 answers for all of them: 16 pairs, or
   8 prompts with 4 answers; a round is of two steps. Policies see the reward model, never the label.
2. Offline methods take each round from the pairs instead of sampling; on-policy DPO takes 2 samples of a prompt.
3. Each method has the best of four settings (learning rates, and where it has one a second knob), by the reward
   model's score over the run on Min of a seed that no result is from; the other tasks take it over.
   The grids were laid out after trial runs of that seed.
4. RWR weighs by min(exp(score / tau), 10) as the paper's code does, with its tau of 1 or 10. DPO and IPO are of whole
   sequences; the paper's code applies them to each token.
5. A run stops where the answers of a round all score the same; its last policy stands for the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Any

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
    off,
    reported,
    settings_table,
    tally,
)
from heedful.papers.results import Claim, Part, Plot, Table, Tier, Value
from heedful.papers.seeds import Done, Get, Result, claim

if TYPE_CHECKING:
    from heedful.recipes.prefer import Config
    from heedful.run import Run

OFFLINE: dict[str, Any] = {"offline_share": 1.0}
LOW, HIGH, WIDE = (1e-4, 3e-4), (3e-4, 1e-3), (1e-4, 3e-4, 1e-3, 3e-3)
METHODS = {
    "dpo_online": Method("on-policy DPO", {"method": "dpo", "n": 2}, grid(HIGH, beta=(0.1, 0.5))),
    "dpo": Method("DPO", {"method": "dpo", **OFFLINE}, grid(LOW, beta=(0.1, 2.0))),
    "ppo": Method("PPO", {"method": "ppo", "n": 4}, grid(HIGH, kl=(0.02, 0.2))),
    "rwr": Method("RWR", {"method": "rwr", "n": 4}, grid(HIGH, tau=(1.0, 10.0))),
    "sft": Method("Pref-FT", {"method": "sft", **OFFLINE}, grid(WIDE)),
    "ipo": Method("IPO", {"method": "ipo", **OFFLINE}, grid(LOW, beta=(0.02, 0.1))),
    "reinforce": Method("REINFORCE", {"method": "reinforce", "n": 4, "baseline": "running"}, grid(WIDE)),
    "best": Method("best of 4", {"method": "best", "n": 4}, grid(WIDE)),
    "ipo_online": Method("on-policy IPO", {"method": "ipo", "n": 2}, grid(HIGH, beta=(0.02, 0.1))),
    "rwr_sharp": Method("RWR, tau 0.2", {"method": "rwr", "n": 4, "tau": 0.2}, grid(WIDE)),
}
"""Of a method that learns from pairs a row of the batch is a pair, of the others a prompt with its answers."""
MAIN = tuple(METHODS)[:8]
TASKS: dict[texts.Label, tuple[str, ...]] = {"min": tuple(METHODS), "skew": MAIN, "mode": MAIN}
ANSWERS = 32
"""Of a step (the paper's M)."""
PER_ROUND = 2
"""Steps of a round (B / M)."""
TUNING_SEED = 1000
TRIED = "The reward model's score on held-out prompts of another seed, on Min; it alone decides."
NEAR = 1.0
"""Tokens up to which two lengths are about the same."""
NOISE = 0.1
"""Share of the mode's length within which methods are alike on Mode: the paper's figure has them 10% of it apart."""


@dataclass(frozen=True)
class Size:
    """How much an arm learns. early: the mark of the early comparison, a sixth of the steps as in the paper (100 of
    600)."""

    world: texts.Size
    rounds: int
    every: int
    early: int
    held_answers: int
    tasks: dict[texts.Label, tuple[str, ...]]


SIZES: dict[Tier, Size] = {
    "smoke": Size(
        texts.Size(reading=800, steps=60, prompts=40, answers=4, held_out=12, reward_epochs=1.0),
        rounds=2,
        every=1,
        early=1,
        held_answers=1,
        tasks={"min": ("dpo_online", "ppo", "sft"), "skew": ("dpo",)},
    ),
    "main": Size(
        texts.Size(reading=8000, steps=400, prompts=1000, answers=4, held_out=64, reward_epochs=2.0),
        rounds=42,
        every=7,
        early=1,
        held_answers=2,
        tasks=TASKS,
    ),
}


def lengths_part(tier: Tier, seeds: Sequence[int], run: Run, until: float | None = None) -> Part:
    """Claims about lengths on Min, Skew and Mode, with what was run behind each; three seeds are the protocol's."""
    done = run_arms(tier, seeds, run, until)
    size = SIZES[tier]
    total = sum(map(len, size.tasks.values())) * len(seeds)
    told = tally("Lengths", done, total)
    if not done:
        return Part(claims(done, tier, seeds), notes=told)
    tables = [
        lengths_table(done, tier),
        settings_table("Lengths: settings tried", "lengths/tuning", METHODS, tier, run, TRIED),
        worlds_table(tier, seeds, run),
    ]
    return Part(claims(done, tier, seeds), [t for t in tables if t.rows], plots(done, tier), told)


def run_arms(tier: Tier, seeds: Sequence[int], run: Run, until: float | None = None) -> Done:
    """All arms, or those that can be begun before `until` (of time.monotonic) and those done earlier."""
    done: Done = {}
    for seed in seeds:
        for task, methods in SIZES[tier].tasks.items():
            for method in methods:
                result = reported(
                    f"lengths/seed{seed}/{task}/{method}",
                    METHODS[method],
                    tier,
                    run,
                    until,
                    tuning=partial(tuning, method, tier=tier, run=run, until=until),
                    plan=partial(plan, task, method, seed, tier=tier, run=run),
                )
                if result is not None:
                    done[task, method, seed] = result
    return done


def tuning(method: str, knobs: Knobs, tier: Tier, run: Run, until: float | None = None) -> Result | None:
    """A run on Min of the tuning seed."""
    name = f"lengths/tuning/{method}-{called(knobs)}"
    return arm(name, lambda: plan("min", method, TUNING_SEED, knobs, tier, run), run, until)


def plan(
    task: texts.Label, method: str, seed: int, knobs: Knobs, tier: Tier, run: Run
) -> tuple[Config, dict[str, Any]]:
    """The settings of an arm, and pi_ref's mean length; makes the world of its seed where that is not made yet."""
    size = SIZES[tier]
    world = texts.make_world(seed, size.world, run)
    options = METHODS[method].options
    rows = ANSWERS // options.get("n", 2)
    cfg = replace(
        texts.settings(world, task, size.world, run),
        **options,
        **knobs,
        rounds=size.rounds,
        prompts_per_round=PER_ROUND * rows,
        batch_size=rows,
        eval_rounds=size.every,
        eval_n=size.held_answers,
    )
    return cfg, {"mean_tokens": world.mean_tokens, "knobs": called(knobs)}


# ---- claims

ORDER = (
    ("dpo_online", "dpo", "Min: about 1 token from step 100, and from 160; Skew: 0 from step 90, and 10"),
    ("dpo", "ppo", "Min: 1 token from step 160, and 45 at step 100, 6 at 600; Skew: 10 and 14"),
    ("ppo", "rwr", "Min: 45 tokens at step 100 and 6 at 600, and 135 and 72; Skew: 14 and 22"),
)
"""Shorter before longer, with the paper's figure."""
ALIKE = ("dpo_online", "dpo", "ppo", "rwr")
REPORTED = "reported, not expected: the protocol found it not robust"


def claims(done: Done, tier: Tier, seeds: Sequence[int]) -> list[Claim]:
    """Section 4's orderings, computed from the results alone."""
    size = SIZES[tier]
    last = size.rounds // size.every
    found = []

    def say(text: str, paper: str, value: Callable[[Get], float], **limit: Any) -> None:
        found.append(claim(f"Lengths: {text}", paper, value, done, tier, seeds, **limit))

    for task in ("min", "skew"):
        for a, b, paper in ORDER:
            for mark in (size.early, last):
                step = mark * size.every * PER_ROUND
                limit = f"at most {NEAR:g} token longer" if a == "dpo_online" else "shorter"
                say(
                    f"on {task.capitalize()} answers are {limit} after {step} steps of {METHODS[a].name} than of "
                    f"{METHODS[b].name} (measured: how many tokens shorter)",
                    paper,
                    lambda get, t=task, a=a, b=b, m=mark: length(get(t, b), m) - length(get(t, a), m),
                    bound=-NEAR if a == "dpo_online" else 1e-9,
                )
    say(
        f"on Skew, whose pairs hardly cover pi_ref, offline DPO stays more than {NEAR:g} token above on-policy DPO "
        "(measured: by how much at the end)",
        "10 tokens and 0",
        lambda get: length(get("skew", "dpo")) - length(get("skew", "dpo_online")),
        bound=NEAR,
    )
    say(
        f"on Mode on-policy DPO, DPO, PPO and RWR end within {NOISE:.0%} of the mode of each other in distance from it "
        "(measured: the largest difference, as a share of the mode)",
        "no order: 5 to 20 tokens for DPO, 10 to 17 for RWR, 28 for PPO, at a mode of 203",
        lambda get: spread(get, "mode"),
        bound=NOISE,
        above=False,
    )
    say(
        "methods are further apart on Min than on Mode (measured: how much further, as a share of the mode)",
        "section 4: on-policy samples and negative gradients matter where the peak is off pi_ref",
        lambda get: spread(get, "min") - spread(get, "mode"),
    )
    for method in ("dpo", "ipo"):
        say(
            f"on Min, from the same pairs, {METHODS[method].name} ends shorter than Pref-FT, which has no negative "
            "gradient (measured: by how many tokens)",
            "a headline of the paper; no number for this task",
            lambda get, m=method: length(get("min", "sft")) - length(get("min", m)),
        )
    say(
        "on Min on-policy IPO ends shorter than on-policy best of 4 (measured: by how many tokens)",
        REPORTED,
        lambda get: length(get("min", "best")) - length(get("min", "ipo_online")),
    )
    say(
        "on Min offline IPO ends shorter than RWR with a sharp tau (measured: by how many tokens)",
        REPORTED,
        lambda get: length(get("min", "rwr_sharp")) - length(get("min", "ipo")),
    )
    return found


def spread(get: Get, task: str) -> float:
    """The largest difference between methods in the distance of their answers from what the task prefers, in shares of
    pi_ref's mean length."""
    middle = get(task, ALIKE[0])["mean_tokens"]
    target = middle if task == "mode" else 0.0
    values = [off(get(task, method), target) for method in ALIKE]
    return (max(values) - min(values)) / middle


# ---- tables and plots


def lengths_table(done: Done, tier: Tier) -> Table:
    """A row for each task and method: lengths at both marks, scores, and how far pi_ref was left behind."""
    rows = []
    for task, methods in SIZES[tier].tasks.items():
        for method in methods:
            results = got(done, task, method)
            if results:
                rows.append(_row(task, METHODS[method].name, results, SIZES[tier].early))
    columns = ["task", "method", "seeds", "setting", "tokens at the start", "early", "±", "at the end", "±"]
    columns += ["from the mode", "score of the reward model", "KL", "h_w", "h_l"]
    note = (
        "Held-out prompts, means over seeds, ± half the 95% interval over seeds. Tokens are without the end token; an "
        f"answer is cut off at {texts.LONGEST}. 'From the mode' is the mean distance of an answer's length from "
        "pi_ref's mean. KL to pi_ref in nats per answer; h_w and h_l of held-out pairs."
    )
    return Table("Lengths: every method", columns, rows, note)


def _row(task: str, name: str, results: Sequence[Result], early: int) -> list[Value]:
    row: list[Value] = [task, name, len(results), results[0]["knobs"]]
    row.append(fmean(length(r, 0) for r in results))
    for mark in (early, -1):
        row += mean_and_half([length(r, mark) for r in results])
    row.append(fmean(off(r, r["mean_tokens"]) for r in results))
    row.append(fmean(r["course"]["judge"][-1] for r in results))
    return row + [fmean(r[key] for r in results) for key in ("kl", "h_w", "h_l")]


def worlds_table(tier: Tier, seeds: Sequence[int], run: Run) -> Table:
    """What pi_ref and the reward models of each seed are."""
    rows = []
    for seed in seeds:
        for task in SIZES[tier].tasks:
            path = f"texts/seed{seed}/reward-{task}.json"
            if run.path(path).exists():
                told = run.once(path, dict)
                rows.append([seed, task, told["mean_tokens"], told["pairs"], told["accuracy"]])
    columns = ["seed", "task", "mean tokens of pi_ref", "pairs", "reward model: right on held-out pairs"]
    return Table("Lengths: pi_ref and reward models", columns, rows)


def plots(done: Done, tier: Tier) -> list[Plot]:
    """Lengths over steps, a plot for each task; on Mode the distance from the mode."""
    found = []
    for task, methods in SIZES[tier].tasks.items():
        lines = [(task, method, METHODS[method].name) for method in methods if method in MAIN]
        label = "tokens from the mode" if task == "mode" else "tokens"
        y = (lambda r, i: off(r, r["mean_tokens"], i)) if task == "mode" else length
        plot = courses(
            f"Lengths on {task.capitalize()}", label, done, lines, y, "Bands: least to largest of seeds."
        )
        found += [plot] if plot.series else []
    return found
