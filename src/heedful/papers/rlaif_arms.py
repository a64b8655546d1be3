"""The five requirements on the simulated world: AI feedback and imitation at equal budget, over seeds and base models.

Every run is `heedful critique` with the world's own roles. The learning rates, epochs and beta were chosen on seed 100,
which no result is from, and are the same for every base and teacher; AI feedback has those of six settings that served
it best.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from heedful.papers import rlaif_world as world
from heedful.papers.results import Claim, Part, Plot, Series, Table, Tier
from heedful.papers.seeds import decided, near, over_seeds
from heedful.recipes import critique
from heedful.recipes.critique_arms import ARMS
from heedful.recipes.critique_roles import Roles
from heedful.run import Run, open_run

STRONG = 0.8
"""What the critic's own answers are graded on average."""
BASELINE = 0.5
WEAK = 0.4
PARTIAL = ("teacher_start", "feedback")
"""The arms that depend on the teacher; the others are those of the weakest one."""
NEAR = 0.05
"""Win rates closer than this are about the same."""


@dataclass(frozen=True)
class Size:
    """How much a tier trains and tests. bases: (width, layers, steps of reading) by name, the least capable first."""

    bases: Mapping[str, tuple[int, int, int]]
    teachers: tuple[float, ...]
    prompts: int
    held_out: int


SIZES: dict[Tier, Size] = {
    "smoke": Size({"small": (32, 2, 120)}, (0.4, 0.8), 60, 40),
    "main": Size({"small": (64, 2, 800), "large": (96, 3, 1400)}, (0.4, 0.6, 0.8), 600, 600),
}
LEARNING = {
    "learning_rate": 1e-3,
    "epochs": 3.0,
    "start_epochs": 10.0,
    "feedback_learning_rate": 5e-4,
    "feedback_epochs": 3.0,
    "beta": 0.1,
    "batch_size": 16,
}

Cell = tuple[str, float, int]
"""(base, the teacher's mean grade, seed)."""
Done = dict[Cell, dict[str, Any]]


def world_part(tier: Tier, seeds: Sequence[int], run: Run, until: float | None = None) -> Part:
    """The five requirements of the protocol, each as a claim, with every arm's win rate behind them."""
    done = run_cells(tier, seeds, run, until)
    size = SIZES[tier]
    claims = [make(done, size, seeds, tier) for make in CLAIMS]
    whole = len(size.bases) * len(size.teachers) * len(seeds)
    notes = [f"Simulated world: {len(done)} of {whole} runs are done."]
    if not done:
        return Part(claims, notes=notes)
    return Part(claims, [arms_table(done), gains_table(done)], [gains_plot(done)], notes)


def run_cells(tier: Tier, seeds: Sequence[int], run: Run, until: float | None = None) -> Done:
    """All runs, or those that can be begun before `until` (of time.monotonic) and those done earlier."""
    done: Done = {}
    for seed in seeds:
        for teacher in SIZES[tier].teachers:
            for base in SIZES[tier].bases:
                found = cell(base, teacher, seed, tier, run, until)
                if found is not None:
                    done[base, teacher, seed] = found
    return done


def cell(
    base: str, teacher: float, seed: int, tier: Tier, run: Run, until: float | None = None
) -> dict[str, Any] | None:
    """result.json by evaluator, and the mean grade of each arm's answers; None when `until` came first."""
    name = f"world/seed{seed}/{base}-teacher{teacher:g}"
    if run.path(f"{name}.json").exists():
        return run.once(f"{name}.json", dict)
    if until is not None and time.monotonic() > until:
        return None
    size, found = SIZES[tier], {}
    cfg = config(base, seed, tier, run)
    arms = None if teacher == size.teachers[0] else PARTIAL
    for evaluator in ("evaluator", "second"):
        with open_run(run.path(name), cfg, seed=seed, command="reproduce") as own:
            found[evaluator] = critique.run(
                cfg, own, roles=roles(teacher, evaluator, seed), arms=arms, until=until
            )
        if found[evaluator] is None:
            return None
    return run.once(f"{name}.json", lambda: {**found, "grades": grades(name, run)})


def config(base: str, seed: int, tier: Tier, run: Run) -> critique.Config:
    """The settings of a run, with its prompts written down; all runs of a seed share them."""
    size = SIZES[tier]
    prompts = world.instructions(size.prompts + size.held_out, seed, "prompts")
    files = {}
    for part, some in (("train", prompts[: size.prompts]), ("held", prompts[size.prompts :])):
        path = run.path(f"world/seed{seed}/{part}.jsonl")
        run.once(f"world/seed{seed}/{part}.jsonl", lambda some=some: [{"prompt": prompt} for prompt in some])
        files[part] = str(path)
    return replace(
        critique.Config(),
        out="",
        model=str(world.base_model(base, *size.bases[base], seed, run)),
        prompts=files["train"],
        eval_prompts=files["held"],
        template="none",
        temperature=1.0,
        eval_temperature=1.0,
        top_p=1.0,
        max_new_tokens=world.LONGEST,
        train_tokens=world.LONGEST,
        eval_limit=size.held_out,
        lora_rank=0,
        seed=seed,
        device="cpu",
        precision="fp32",
        micro_tokens=0.0,
        save_every=200,
        log_every=5,
        quiet=True,
        **LEARNING,
    )


def roles(teacher: float, evaluator: str, seed: int) -> Roles:
    """A teacher of that mean grade, the critic with its answers, one of the evaluators, and the baseline."""
    return Roles(
        teacher=world.writer(world.QUALITIES[teacher], seed, "teacher"),
        critic=world.judge("critic", seed),
        critic_answers=world.writer(world.QUALITIES[STRONG], seed, "critic"),
        evaluator=world.judge(evaluator, seed),
        baseline=world.writer(world.QUALITIES[BASELINE], seed, "baseline"),
        names={
            "teacher": f"a generator of grade {teacher:g}",
            "critic": "the oracle with noise",
            "critic_answers": f"a generator of grade {STRONG:g}",
            "evaluator": f"the oracle {evaluator}",
            "baseline": f"a generator of grade {BASELINE:g}",
        },
    )


def grades(name: str, run: Run) -> dict[str, float]:
    """What the critic's oracle, without noise, makes of each arm's held-out answers."""
    found = {}
    for arm in ("base", *ARMS):
        path = run.path(f"{name}/arms/{arm}/answers.jsonl")
        if path.exists():
            rows = [json.loads(line) for line in path.read_bytes().splitlines()]
            found[arm] = float(
                np.mean([world.grade(r["prompt"], c["text"]) for r in rows for c in r["completions"]])
            )
    return found


# ---- claims

Value = Callable[[Done, str, int], float]
"""Of one base and seed."""


def win(
    done: Done, base: str, seed: int, arm: str, *, teacher: float = WEAK, evaluator: str = "evaluator"
) -> float:
    """An arm's win rate against the baseline; of the arms that no teacher plays a part in, whatever the teacher."""
    return done[base, teacher, seed][evaluator][f"{arm}_win"]


def gain(done: Done, base: str, seed: int, teacher: float) -> float:
    """What AI feedback adds to the win rate of the start."""
    start, after = (win(done, base, seed, arm, teacher=teacher) for arm in PARTIAL)
    return after - start


def per_seed(
    done: Done, bases: Sequence[str], teachers: Sequence[float], seeds: Sequence[int], value: Value
) -> list[float]:
    """The mean over bases of a value, for every seed that has all it needs."""
    whole = [s for s in seeds if all((base, teacher, s) in done for base in bases for teacher in teachers)]
    return [float(np.mean([value(done, base, seed) for base in bases])) for seed in whole]


def _claim(
    text: str,
    paper: str,
    value: Value,
    *,
    bases: Sequence[int] | None = None,
    steps: tuple[int, ...] = (0,),
    bound: float = 0.0,
    within: bool = False,
    note: str = "",
) -> Callable[[Done, Size, Sequence[int], Tier], Claim]:
    """A claim that a value, averaged over bases, is above a bound, or `within` it of 0, over the seeds.

    bases: by place, the least capable first; all unless given. steps: the teachers that it needs, by place.
    """

    def make(done: Done, size: Size, seeds: Sequence[int], tier: Tier) -> Claim:
        if tier == "smoke":
            return Claim(text, paper, note="not in the smoke tier, whose models have read next to nothing")
        names = list(size.bases)
        chosen = names if bases is None else [names[i] for i in bases]
        values = per_seed(done, chosen, [size.teachers[i] for i in steps], seeds, value)
        if not values:
            return Claim(text, paper, note="not run yet")
        measured, interval = over_seeds(values)
        holds = (near if within else decided)(measured, interval, bound)
        told = f"{len(values)} seed(s), base {' and '.join(chosen)}"
        return Claim(text, paper, measured, interval, holds, f"{told}; {note}" if note else told)

    return make


CLAIMS = [
    _claim(
        f"World (i): imitating the weak teacher on a tenth is about as good as on all (to within {NEAR:g} of win rate; "
        "measured: a tenth less all)",
        "LLaMA-1: 42.6 against 47.1; with Claude as evaluator 55.0 against 57.6",
        lambda d, b, s: win(d, b, s, "teacher_start") - win(d, b, s, "teacher_sft"),
        bound=NEAR,
        within=True,
    ),
    _claim(
        "World (ii): AI feedback from there is better than imitating the weak teacher on all (measured: the lead)",
        "all six bases with GPT-4; Mistral-7B 71.1 against 56.8",
        lambda d, b, s: win(d, b, s, "feedback") - win(d, b, s, "teacher_sft"),
        bound=1e-9,
    ),
    *(
        _claim(
            f"World (iii): imitating the critic is at least as good as AI feedback, {name} base (measured: the lead)",
            "five of six bases with GPT-4; Mistral-7B 75.3 against 71.1",
            lambda d, b, s: win(d, b, s, "critic_sft") - win(d, b, s, "feedback"),
            bases=(place,),
        )
        for place, name in enumerate(("small", "large"))
    ),
    *(
        _claim(
            f"World (iv): what AI feedback adds shrinks as the teacher nears the critic, {a} to {b} "
            "(measured: the fall of the gain)",
            "LLaMA-1: +5.0 after the GPT-3.5 start, +1.1 after the GPT-4 start",
            lambda d, base, s, a=a, b=b: gain(d, base, s, a) - gain(d, base, s, b),
            steps=(place, place + 1),
            bound=1e-9,
        )
        for place, (a, b) in enumerate(((0.4, 0.6), (0.6, 0.8)))
    ),
    _claim(
        "World (iv): on the more capable base a strong start and then AI feedback beats imitating the critic on all "
        "(measured: the lead)",
        "may: Mistral-7B 77.9 against 75.3, LLaMA-1 52.9 against 57.4",
        lambda d, b, s: win(d, b, s, "critic_feedback") - win(d, b, s, "critic_sft"),
        bases=(-1,),
        bound=1e-9,
    ),
    _claim(
        "World (v): a second evaluator, which dislikes words that say nothing, orders imitation of the critic and AI "
        "feedback as the first does (measured: its lead of imitation)",
        "not so in the paper: with Claude as critic and evaluator LLaMA-1 has 64.7 against 66.5",
        lambda d, b, s: (
            win(d, b, s, "critic_sft", evaluator="second") - win(d, b, s, "feedback", evaluator="second")
        ),
        note="whichever way it falls, both evaluators' win rates are in the table",
    ),
]


# ---- tables


def arms_table(done: Done) -> Table:
    """Every arm by base and teacher: win rates by both evaluators, their errors, the length-controlled win rate."""
    rows = []
    for base, teacher in dict.fromkeys((base, teacher) for base, teacher, _ in done):
        cells = [result for (b, t, _), result in done.items() if (b, t) == (base, teacher)]
        for arm in ("base", *ARMS):
            if f"{arm}_win" not in cells[0]["evaluator"]:
                continue
            wins = [c["evaluator"][f"{arm}_win"] for c in cells]
            mean, interval = over_seeds(wins)
            prompts = sum(c["evaluator"]["held_out_prompts"] for c in cells)
            span = "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"
            more = [
                float(np.mean(values))
                for values in (
                    [c["evaluator"][f"{arm}_lc_win"] for c in cells],
                    [c["second"][f"{arm}_win"] for c in cells],
                    [c["grades"][arm] for c in cells],
                    [c["evaluator"][f"{arm}_words"] for c in cells],
                )
            ]
            about = "the base" if arm == "base" else ARMS[arm].about
            rows.append(
                [base, teacher, about, len(cells), mean, math.sqrt(mean * (1 - mean) / prompts), span, *more]
            )
    columns = [
        *("base", "teacher", "arm", "seeds", "win rate", "SE", "95% over seeds"),
        *("equal length", "second evaluator", "grade", "words"),
    ]
    note = (
        f"Win rates are against a generator of grade {BASELINE:g}; the critic's own answers are graded {STRONG:g}. SE "
        "is sqrt(p(1 - p)/n) over the held-out prompts of all seeds. The grade is the critic's oracle, noiseless."
    )
    return Table("Simulated world: every arm", columns, rows, note)


def gains_table(done: Done) -> Table:
    """What AI feedback adds, by base and teacher."""
    rows = []
    for base, teacher in dict.fromkeys((base, teacher) for base, teacher, _ in done):
        values = [gain(done, base, s, teacher) for b, t, s in done if (b, t) == (base, teacher)]
        mean, interval = over_seeds(values)
        rows.append(
            [
                base,
                teacher,
                len(values),
                mean,
                "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}",
            ]
        )
    return Table(
        "Simulated world: what AI feedback adds to its start",
        ["base", "teacher", "seeds", "gain", "95% over seeds"],
        rows,
    )


def gains_plot(done: Done) -> Plot:
    """The gain over the teacher's grade, one line for each base."""
    series = []
    for base in dict.fromkeys(base for base, _, _ in done):
        teachers = sorted({teacher for b, teacher, _ in done if b == base})
        values = [
            [gain(done, base, s, t) for b, t, s in done if (b, t) == (base, teacher)] for teacher in teachers
        ]
        low, high = [min(v) for v in values], [max(v) for v in values]
        series.append(Series(base, teachers, [float(np.mean(v)) for v in values], low, high))
    return Plot(
        "Simulated world: what AI feedback adds as the teacher nears the critic",
        "grade of the teacher",
        "gain in win rate",
        series,
        "Means over seeds, with a band from the lowest to the highest seed.",
    )
