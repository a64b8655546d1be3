"""The arms of Stream of Search: what is trained, how much of it, and how one arm is run.

sos          streams of search, one pass over the problems
op_tokens    optimal paths of the same problems, as many optimiser tokens as sos
op_problems  optimal paths of the same problems, one pass, so as many problems as sos
star, apa    sos improved on its own streams
more_star    sos trained on fresh streams with as much compute as star took; more_apa the same for apa

An arm is one run folder of `heedful search pretrain` or `improve` and one of `heedful search eval`, beside a JSON of
what was measured. All arms of a seed answer the same problems. Optimiser tokens count prompts, as their cost does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from heedful.errors import NotFinite, NothingToLearn
from heedful.papers.onpolicy_arms import attempt
from heedful.papers.results import Tier
from heedful.papers.seeds import Done, Result
from heedful.papers.sos_measure import INPUTS, measured, solved, symbolic, wrong_operations
from heedful.recipes import search, search_improve
from heedful.recipes.search_world import settings_of
from heedful.run import Run, open_run

if TYPE_CHECKING:
    from heedful.recipes.search_world import Settings

PRETRAINED = ("sos", "op_tokens", "op_problems")
IMPROVED = ("star", "apa")
CONTROLS = {"more_star": "star", "more_apa": "apa"}
"""A control, and the method whose compute it has."""
NAMES = {
    "sos": "SoS",
    "op_tokens": "OP, equal tokens",
    "op_problems": "OP, equal problems",
    "star": "SoS, then STaR",
    "apa": "SoS, then APA",
    "more_star": "SoS, more training (as STaR)",
    "more_apa": "SoS, more training (as APA)",
}
MIXTURE = "symbolic mixture"
FRESH = 1000
"""Controls train on the problems of another seed; held-out problems are the same whatever the seed."""
MOST_WRONG, LEAST_SOLVED = 0.05, 0.3
"""The gate: shares of operations computed wrongly and of problems with held-out inputs solved."""
FORWARD = 1 / 3
"""What a token costs that is drawn or scored, when one that is trained on costs 1 (2 N of 6 N operations)."""


@dataclass(frozen=True)
class Size:
    """How much is trained and measured.

    pretrain: game, model and problems of the arm sos. star, apa: options of `heedful search improve`. test: problems of
    each test set; tries: streams for each beside the greedy one. pool: held-out problems among which the unsolved and
    the difficult are looked for; hard: at most so many of each are answered. gated: whether SoS must pass the gate
    before it is improved. seeds: the first so many; 0: all.
    """

    pretrain: search.Config
    arms: tuple[str, ...] = (*PRETRAINED, *IMPROVED, *CONTROLS)
    star: Mapping[str, Any] = field(default_factory=dict)
    apa: Mapping[str, Any] = field(default_factory=dict)
    test: int = 1000
    tries: int = 8
    pool: int = 10_000
    hard: int = 2000
    gated: bool = True
    seeds: int = 0


SIZES: dict[Tier, dict[str, Size]] = {
    # Too little to learn a search from, so every model is let through the gate.
    "smoke": {
        "k3": Size(
            replace(search.preset("smoke"), problems=6_000, size="tiny"),
            star={"rounds": 2, "problems": 200},
            apa={"rounds": 3, "problems": 32, "critic_rounds": 1, "check_every": 2, "check_problems": 32},
            test=60,
            tries=4,
            pool=400,
            hard=40,
            gated=False,
        )
    },
    "main": {
        "k3": Size(search.preset("main")),
        # 170,000 streams are about 65 million tokens: with both baselines a night of two cores.
        "k4": Size(search.preset("stretch"), arms=PRETRAINED, test=500, pool=4000, hard=500, seeds=1),
    },
}


def run_arms(tier: Tier, setup: str, seed: int, run: Run, until: float | None = None) -> Done:
    """The arms of a seed, and "symbolic", in order; only those that can be begun before `until` and those done earlier.

    What learns from its own streams is {"failed": why} where SoS does not pass the gate, or where nothing was learned.
    """
    size = SIZES[tier][setup]
    place = f"{setup}/seed{seed}"
    start = replace(size.pretrain, seed=seed, tokens=0, eval_problems=0, quiet=True)
    settings = settings_of(start)
    done: Done = {}

    def keep(method: str, result: Result | None) -> Result | None:
        if result is not None:
            done[setup, method, seed] = result
        return result

    known = attempt(f"{place}/symbolic.json", lambda: symbolic(settings, size.test, size.pool), run, until)
    if keep("symbolic", known) is None:
        return done
    hard = {name: known["pool"][name][: size.hard] for name in ("unsolved", "difficult")}

    def arm(method: str, train: Callable[[str], Result]) -> Result | None:
        """Train, then measure: two pieces, so that time can end between them."""
        folder = f"{place}/{method}"
        trained = attempt(f"{folder}-trained.json", partial(_told, train, folder), run, until)
        if trained is None or "failed" in trained:
            return keep(method, trained)

        def measure() -> Result:
            how = {"test": size.test, "tries": size.tries, "seed": seed}
            return {**trained, "sets": measured(folder, settings, hard, run, **how)}

        return keep(method, attempt(f"{folder}.json", measure, run, until))

    sos = arm("sos", lambda folder: pretrained(folder, start, run))
    if sos is None or "failed" in sos:
        for method in size.arms if sos else ():
            keep(method, sos)
        return done
    paths = replace(start, on="solutions")
    for method, tokens in (("op_tokens", round(sos["work"])), ("op_problems", 0)):
        cfg = replace(paths, tokens=tokens)
        if method in size.arms:
            arm(method, lambda folder, cfg=cfg: pretrained(folder, cfg, run))
    closed = gate(sos) if size.gated else ""
    for method in (*IMPROVED, *CONTROLS):
        if method not in size.arms:
            continue
        of = done.get((setup, CONTROLS.get(method, "sos"), seed))
        if closed:
            keep(method, {"failed": closed})
        elif of is None:
            continue
        elif "failed" in of:
            keep(method, {"failed": f"{NAMES[CONTROLS[method]]}: {of['failed']}"})
        elif method in IMPROVED:
            options = {"method": method, **getattr(size, method)}
            arm(
                method,
                lambda folder, options=options: improved(
                    folder, f"{place}/sos", options, seed, settings, sos, run
                ),
            )
        else:
            cfg = replace(
                start,
                model=str(run.path(f"{place}/sos")),
                seed=seed + FRESH,
                problems=max(1, round(of["work"] / sos["row"])),
                learning_rate=start.learning_rate / 3,
            )
            arm(method, lambda folder, cfg=cfg: pretrained(folder, cfg, run, sos["work"]))
    return done


def _told(train: Callable[[str], Result], folder: str) -> Result:
    try:
        return train(folder)
    except (NotFinite, NothingToLearn) as error:
        return {"failed": str(error)}


def pretrained(folder: str, cfg: search.Config, run: Run, before: float = 0.0) -> Result:
    """Train as `heedful search pretrain` does. before: tokens that its start model took; work: those of the optimiser;
    row: of a training row; cut: the share of the rows that lost their end; problems: how many rows there were."""
    cfg = replace(cfg, out=str(run.path(folder)))
    with open_run(cfg.out, cfg, seed=cfg.seed, command="reproduce", volatile=search.VOLATILE) as own:
        told = search.run(cfg, own)
    row, rows = told["tokens_of_a_row"], told["training_rows"]
    return {
        "before": before,
        "work": cfg.tokens or rows * row,
        "row": row,
        "problems": rows,
        "cut": told["rows_that_lost_their_end"] / rows,
        "parameters": told["parameters"],
    }


def improved(
    folder: str, model: str, options: Mapping[str, Any], seed: int, settings: Settings, sos: Result, run: Run
) -> Result:
    """Improve as `heedful search improve` does. work: its compute in tokens trained on; rounds: what each drew."""
    cfg = search_improve.settle(
        search_improve.Config(
            out=str(run.path(folder)),
            model=str(run.path(model)),
            seed=seed,
            eval_problems=0,
            quiet=True,
            **options,
        )
    )
    with open_run(cfg.out, cfg, seed=seed, command="reproduce", volatile=search.VOLATILE) as own:
        told = search_improve.run(cfg, settings, own)
        rounds = [own.once(f"round{r}/round.json", dict) for r in range(cfg.rounds)]
    prompt = settings.numbers + 4  # <s> T t N a b c
    return {
        "before": sos["work"],
        "work": work(cfg, rounds, prompt),
        "rounds": [{key: one.get(key) for key in ("score", "solved", "tokens")} for one in rounds],
        "refreshed": told.get("reference_refreshed"),
    }


def work(cfg: search_improve.Config, rounds: Sequence[Mapping[str, Any]], prompt: int) -> float:
    """The compute of an improvement in tokens trained on, prompts included; a token drawn or scored counts `FORWARD`.

    star draws, and trains on what it keeps. apa draws, scores with reference and critic, trains policy and critic; the
    critic learns alone first; looks draw too. A kept stream is counted as long as one drawn.
    """
    streams = cfg.problems * cfg.n
    lengths = [one["tokens"] + prompt for one in rounds]
    if cfg.method == "star":
        return sum(
            n * (streams * FORWARD + cfg.epochs * one["kept"]) for n, one in zip(lengths, rounds, strict=True)
        )
    learned = sum(n * streams * (3 * FORWARD + 2 * cfg.epochs) for n in lengths)
    alone = lengths[0] * streams * cfg.critic_rounds * (FORWARD + cfg.epochs)
    looked = sum(lengths[cfg.check_every - 1 :: cfg.check_every]) * cfg.check_problems * FORWARD
    return learned + alone + looked


def gate(sos: Result) -> str:
    """Why SoS is not good enough for learning from its own streams; "" where it is."""
    wrong, right = wrong_operations(sos), solved(sos, INPUTS)
    if wrong <= MOST_WRONG and right >= LEAST_SOLVED:
        return ""
    return (
        f"the gate is not passed: {wrong:.1%} of the operations of SoS are computed wrongly (at most "
        f"{MOST_WRONG:.0%}) and it solves {right:.1%} (at least {LEAST_SOLVED:.0%})"
    )
