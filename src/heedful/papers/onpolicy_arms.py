"""How an arm of the transformer half of the on-policy paper is run, what is read off its folder, and how results
become claims.

An arm is one run of `heedful prefer` in a folder of its own, beside a JSON of what was measured. "Steps" are steps of
the optimiser; a mark is a point at which the held-out prompts were answered, the first before any step.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from heedful.errors import NotFinite, NothingToLearn
from heedful.papers.results import Plot, Series, Table, Tier, Value
from heedful.papers.seeds import Done, Result, over_seeds
from heedful.run import Run, open_run, read_metrics

if TYPE_CHECKING:
    from heedful.recipes.prefer import Config


def attempt(name: str, make: Callable[[], Any], run: Run, until: float | None) -> Any:
    """A stage, `name` with its suffix; None when it is not done and the time is over."""
    late = until is not None and time.monotonic() > until
    return None if late and not run.path(name).exists() else run.once(name, make)


def arm(
    name: str, plan: Callable[[], tuple[Config, dict[str, Any]]], run: Run, until: float | None
) -> Result | None:
    """What `heedful prefer` measured, done once and resumed where it was stopped; None when it is late.

    plan: the settings, and what else the result is to tell. A run comes to its end early where the answers of a round
    are all worth the same, so that there is nothing to learn: then "stopped" tells after how many rounds, and its last
    policy stands for the rest. A run that goes to pieces gives {"failed": why} beside what the plan tells.
    """

    def make() -> Result:
        cfg, told = plan()
        try:
            return {**finished(cfg, name, run), **told, "course": course(run.path(name), cfg.rounds, cfg)}
        except (NotFinite, NothingToLearn) as error:
            done = max(
                (row["step"] for row in read_metrics(run.path(name)) if row["stage"] == "driver"), default=0
            )
            if isinstance(error, NothingToLearn) and done:
                return _stopped(cfg, told, f"{name}-stopped", done, run)
            return {"failed": str(error), **told}

    return attempt(f"{name}.json", make, run, until)


def _stopped(cfg: Config, told: dict[str, Any], name: str, rounds: int, run: Run) -> Result:
    """The same run with as many rounds as it had, so that its last policy is measured; at a constant learning rate
    these rounds come out as they did."""
    assert cfg.schedule == "constant" and not cfg.warmup
    result = finished(replace(cfg, rounds=rounds), name, run)
    return {**result, **told, "stopped": rounds, "course": course(run.path(name), rounds, cfg)}


def finished(cfg: Config, name: str, run: Run) -> Result:
    """result.json of `heedful prefer` in the folder `name`."""
    from heedful.recipes import prefer

    cfg = prefer.settle(cfg)
    with open_run(run.path(name), cfg, seed=cfg.seed, command="reproduce") as own:
        return prefer.run(cfg, own)


def course(folder: Path, rounds: int, cfg: Config) -> dict[str, list[Any]]:
    """Marks of a run of so many rounds, fewer than those of cfg where it stopped: steps; lengths of each held-out
    answer in tokens, without the end token; judge and gold, the mean scores where there are such; h_w and h_l, means
    of the steps since the mark before (None where there were none)."""
    told: dict[int, list[dict[str, Any]]] = {}
    for row in read_metrics(folder):
        if "loss" in row and str(row["stage"]).startswith("round"):
            told.setdefault(int(str(row["stage"]).removeprefix("round")), []).append(row)
    found: dict[str, list[Any]] = {name: [] for name in ("steps", "lengths", "judge", "gold", "h_w", "h_l")}
    ends = range(cfg.eval_rounds, cfg.rounds + 1, cfg.eval_rounds)
    marks = [(0, "before"), *((r, f"eval/round{r - 1}" if r < rounds else "after") for r in ends)]
    usual = cfg.eval_rounds * max(map(len, told.values()), default=0)
    before = 0
    for mark, place in marks:
        since = [row for r in range(before, mark) for row in told.get(r, ())]
        steps = len(since) if mark <= rounds else usual  # those that it would have taken
        found["steps"].append(steps + sum(found["steps"][-1:]))
        drawn = [one for row in rows_of(folder / place / "samples.jsonl") for one in row["completions"]]
        found["lengths"].append([len(one["ids"]) - one["finished"] for one in drawn])
        for name, file in (("judge", "feedback"), ("gold", "gold")):
            path = folder / place / f"{file}.jsonl"
            scores = [s for row in rows_of(path) for s in row["score"]] if path.exists() else []
            known = [score for score in scores if score is not None]
            found[name].append(fmean(known) if known else None)
        for name in ("h_w", "h_l"):
            values = [row[name] for row in since if row.get(name) is not None]
            found[name].append(fmean(values) if values else None)
        before = mark
    return found


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file of a run."""
    # bytes: str.splitlines would also break a row at a line separator inside a text
    return [json.loads(line) for line in path.read_bytes().splitlines()]


Knobs = dict[str, float]
"""Options of `heedful prefer` that are tuned: the learning rate, and at most one more."""


def grid(rates: Sequence[float], **second: Sequence[float]) -> tuple[Knobs, ...]:
    """Every rate with every value of the second option, if there is one."""
    made: list[Knobs] = [{"learning_rate": rate} for rate in rates]
    for name, values in second.items():
        made = [{**knobs, name: value} for knobs in made for value in values]
    return tuple(made)


def called(knobs: Knobs) -> str:
    """Part of a stage's name: "0.0003-beta0.1"."""
    rate, *more = knobs.items()
    return "-".join([f"{rate[1]:g}", *(f"{name}{value:g}" for name, value in more)])


@dataclass(frozen=True)
class Method:
    """A method's name on the page, its options, and the settings of which the best on the tuning seed is taken."""

    name: str
    options: dict[str, Any]
    settings: tuple[Knobs, ...]


def tuned(method: Method, tier: Tier, tried: Callable[[Knobs], Result | None]) -> Knobs | None:
    """The setting with the highest judge score over the run, of equals the first, a failed run being the worst; None
    when one could not be tried any more. The smoke tier takes the first without a trial."""
    if tier == "smoke" or len(method.settings) == 1:
        return method.settings[0]
    values = []
    for knobs in method.settings:
        result = tried(knobs)
        if result is None:
            return None
        values.append(-math.inf if "failed" in result else over_run(result, "judge"))
    return method.settings[values.index(max(values))]


# ---- what is read off a result


def reported(
    name: str,
    method: Method,
    tier: Tier,
    run: Run,
    until: float | None,
    *,
    tuning: Callable[[Knobs], Result | None],
    plan: Callable[[Knobs], tuple[Config, dict[str, Any]]],
) -> Result | None:
    """An arm with the knobs that `tuning` finds best for its method, done once; None when `until` came first."""
    if run.path(f"{name}.json").exists():
        return run.once(f"{name}.json", dict)
    knobs = tuned(method, tier, tuning)
    return None if knobs is None else arm(name, lambda: plan(knobs), run, until)


def whole(result: Result) -> bool:
    """Whether a run came to its end."""
    return "failed" not in result


def tally(name: str, done: Done, total: int) -> list[str]:
    """How many of the runs are done, which of them went to pieces, and which stopped early."""

    def some(key: str) -> str:
        return "; ".join(
            f"{task}, {method}, seed {seed}" for (task, method, seed), r in done.items() if key in r
        )

    told = [f"{name}: {len(done)} of {total} runs are done."]
    if some("failed"):
        told.append(f"{name}: went to pieces, and stand behind no claim: {some('failed')}.")
    if some("stopped"):
        told.append(
            f"{name}: stopped where the answers of a round were all worth the same, and measured from there on as "
            f"they were: {some('stopped')}."
        )
    return told


def got(done: Done, task: str, method: str) -> list[Result]:
    """The runs of a method on a task that came to their end, in the order of seeds."""
    some = [(seed, r) for (t, m, seed), r in done.items() if (t, m) == (task, method) and whole(r)]
    return [result for _, result in sorted(some, key=lambda one: one[0])]


def length(result: Result, mark: int = -1) -> float:
    """Mean length of the held-out answers at a mark, in tokens."""
    return fmean(result["course"]["lengths"][mark])


def off(result: Result, target: float, mark: int = -1) -> float:
    """Mean distance of the answers' lengths from a target, in tokens."""
    return fmean(abs(tokens - target) for tokens in result["course"]["lengths"][mark])


def over_run(result: Result, name: str) -> float:
    """The mean of `judge` or `gold` over all marks but the first: high when it is learned fast and stays."""
    return fmean(result["course"][name][1:])


# ---- tables and plots


def settings_table(
    title: str, folder: str, methods: Mapping[str, Method], tier: Tier, run: Run, note: str
) -> Table:
    """What each setting gave on the tuning seed, as far as it was tried; its runs are FOLDER/METHOD-SETTING.json."""
    rows = []
    for method, how in methods.items() if tier == "main" else ():
        names = [f"{folder}/{method}-{called(knobs)}.json" for knobs in how.settings]
        tried = [run.once(name, dict) if run.path(name).exists() else None for name in names]
        results = dict(zip(map(called, how.settings), tried, strict=True))
        taken = tuned(how, tier, lambda knobs, results=results: results[called(knobs)])
        for knobs, result in zip(how.settings, tried, strict=True):
            if result is not None:
                told = (
                    [over_run(result, "judge"), length(result), result["kl"]] if whole(result) else [None] * 3
                )
                mark = "taken" if knobs == taken else "" if whole(result) else "went to pieces"
                rows.append([how.name, called(knobs), *told, mark])
    return Table(
        title, ["method", "setting", "score over the run", "tokens at the end", "KL", ""], rows, note
    )


def mean_and_half(values: Sequence[float]) -> list[Value]:
    """The mean over seeds and half its 95% interval, None with one seed."""
    mean, interval = over_seeds(values)
    return [mean, None if interval is None else interval[1] - mean]


def curve(name: str, results: Sequence[Result], y: Callable[[Result, int], float | None]) -> Series:
    """The mean of y(result, mark) over seeds at every mark, with its band from the least to the largest."""
    steps = results[0]["course"]["steps"]
    told = [[value for r in results if (value := y(r, i)) is not None] for i in range(len(steps))]
    rows = [(step, values) for step, values in zip(steps, told) if values]
    ys = [values for _, values in rows]
    return Series(
        name, [step for step, _ in rows], [*map(fmean, ys)], low=[*map(min, ys)], high=[*map(max, ys)]
    )


def courses(
    title: str,
    label: str,
    done: Done,
    lines: Sequence[tuple[str, str, str]],
    y: Callable[[Result, int], float | None],
    note: str = "",
) -> Plot:
    """A plot over steps with a line for each (task, method, name) that was run, over all its seeds."""
    series = []
    for task, method, name in lines:
        results = got(done, task, method)
        if results:
            series.append(curve(name, results, y))
    return Plot(title, "steps", label, [one for one in series if one.x], note)
