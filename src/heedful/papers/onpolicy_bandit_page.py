"""Tables and plots of the bandit runs, computed from the results alone; bands and ± are Student's over seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from heedful.papers.onpolicy_bandit import ABLATED, GAP, SIZES, WIDTHS, setups
from heedful.papers.onpolicy_bandit_claims import SAMPLES, WORLDS, after, last, over_run
from heedful.papers.onpolicy_driver import LABELS, OFFLINE, ONLINE
from heedful.papers.onpolicy_world import Name
from heedful.papers.results import Plot, Series, Table, Tier, Value
from heedful.papers.seeds import Done, Result, over_seeds

PROBE = {
    ("context optimal offline", "bon"): ".32 (.30 at .001), KL 1.8",
    ("context optimal offline", "ipo"): ".48",
    ("context optimal offline", "rwr"): ".935 at tau .1",
    ("context optimal offline gap", "ipo"): ".70, KL 3.1",
    ("context optimal offline gap", "dpo"): ".56 at beta .1, .63 at 1 (rate .003)",
    ("context mode offline", "bon"): ".956, KL 3.5",
    ("context mode offline", "dpo"): ".987 with 10 prompts",
    ("context mode offline", "rwr"): ".88 with 10 prompts",
    ("context mode offline gap", "ipo"): ".944, KL 1.5",
    ("context optimal online", "bon"): ".001: .352/.963; .003: .998/.999; .01: .980/.980",
    ("context optimal online", "ipo"): ".001: .308/.887; .003: .920/1.0; .01: .993/.992",
    ("context optimal online", "rwr"): "tau 1, .001: .406/.846; tau .1, .003: .992/.999",
    ("context optimal online", "ppo"): ".001: .740/.972; .003: .954/.984",
    ("context mode online", "bon"): "1",
    ("context mode online", "ipo"): "1 at .003",
    ("context mode online", "rwr"): ".967/.992",
    ("context mode online", "ppo"): ".983/.996 at .001",
}
"""Rewards of an earlier probe in NumPy, 3 seeds; online by learning rate after 175 and 375 steps."""


def tables(done: Done, tier: Tier, seeds: Sequence[int]) -> list[Table]:
    """One of offline and one of online runs for each world, and one for each ablation."""
    found = []
    for world, told in WORLDS.items():
        found += [_offline_table(world, told, done, seeds), _online_table(world, told, done, seeds)]
        found += _ablation_tables(world, told, done, tier, seeds)
    return [table for table in found if table.rows]


def _got(done: Done, key: str, method: str, seeds: Sequence[int]) -> list[Result]:
    return [done[key, method, seed] for seed in seeds if (key, method, seed) in done]


def _cells(values: Sequence[float | None]) -> list[Value]:
    """Mean, and half the width of its interval."""
    known = [value for value in values if value is not None]
    if not known:
        return [None, None]
    mean, interval = over_seeds(known)
    return [mean, None if interval is None else interval[1] - mean]


def _mean(got: Sequence[Result], name: str) -> float | None:
    known = [result[name][-1] for result in got if result[name][-1] is not None]
    return fmean(known) if known else None


def _offline_table(world: Name, told: str, done: Done, seeds: Sequence[int]) -> Table:
    rows: list[list[Value]] = []
    keys = [f"{reward} offline{gap}" for reward in ("optimal", "mode", *WIDTHS) for gap in ("", " gap")]
    for key in keys:
        for method in OFFLINE:
            full = f"{world} {key}"
            got = _got(done, full, method, seeds)
            if got:
                names = [_mean(got, name) for name in ("kl", "kl_forward", "entropy", "h_w", "h_l")]
                row = [
                    key.split()[0],
                    f"{GAP:g}" if key.endswith("gap") else "all",
                    LABELS[method],
                    *_knobs(got),
                ]
                rows.append([*row, *_cells([last(r) for r in got]), *names, PROBE.get((full, method), "")])
    columns = ["reward", "gap of pairs", "method", "rate", "knob", "reward at the end", "±"]
    columns += ["KL(pi, ref)", "KL(ref, pi)", "entropy", "h_w", "h_l", "earlier probe"]
    note = (
        "Means over seeds, ± half the 95% interval. Expected reward on new prompts (exact for one action). Nats per "
        "output; h_w and h_l over all pairs that are learned from. The knob is RWR's tau, DPO's beta, IPO's margin; "
        "the gap does not concern BoN and RWR."
    )
    return Table(f"{told}: offline", columns, rows, note)


def _online_table(world: Name, told: str, done: Done, seeds: Sequence[int]) -> Table:
    rows: list[list[Value]] = []
    for reward in ("optimal", "mode"):
        for method in ONLINE:
            key = f"{world} {reward} online"
            got = _got(done, key, method, seeds)
            if got:
                numbers = [*_cells([over_run(r) for r in got]), *_cells([after(r, SAMPLES) for r in got])]
                numbers += _cells([last(r) for r in got])
                numbers += [_mean(got, name) for name in ("kl", "kl_sampler", "entropy")]
                rows.append([reward, LABELS[method], *_knobs(got), *numbers, PROBE.get((key, method), "")])
    columns = [
        "reward",
        "method",
        "rate",
        "knob",
        "mean reward over the run",
        "±",
        f"after {SAMPLES} samples",
        "±",
    ]
    columns += ["at the end", "±", "KL(pi, ref)", "KL(pi, sampler)", "entropy", "earlier probe"]
    note = "As above; 10 prompts and 10 outputs for each in a round. Probe: by learning rate, after 175/375 steps."
    return Table(f"{told}: on policy", columns, rows, note)


def _knobs(got: Sequence[Result]) -> list[Value]:
    return [got[0]["lr"], got[0]["sharp"] or None]


ABLATIONS: dict[str, tuple[str, str, Callable[[Result], float]]] = {
    "B": ("samples drawn at once, in steps", "mean reward over the run", over_run),
    "T": (
        "passes over the samples of a round",
        f"reward after {SAMPLES} samples",
        lambda r: after(r, SAMPLES),
    ),
    "budget": ("T: N times T, a T-th of the rounds, T passes", "mean reward over the run", over_run),
}
"""By kind of setup: what varies, what is compared, and how it is read off a result."""


def _points(world: Name, kind: str, done: Done, tier: Tier, method: str, seeds: Sequence[int]) -> Any:
    """(x, results) of an ablation, in the order of x; the online run is the point of T at its own reuse."""
    found = {
        int(key.rsplit(" ", 1)[1]): _got(done, key, method, seeds)
        for key in setups(tier)
        if key.startswith(f"{world} {kind} ")
    }
    if kind == "T":
        found[SIZES[tier][world].reuse] = _got(done, f"{world} optimal online", method, seeds)
    return [(x, found[x]) for x in sorted(found) if found[x]]


def _ablation_tables(world: Name, told: str, done: Done, tier: Tier, seeds: Sequence[int]) -> list[Table]:
    made = []
    for kind, (varied, compared, read) in ABLATIONS.items():
        rows: list[list[Value]] = []
        for method in ABLATED:
            for x, got in _points(world, kind, done, tier, method, seeds):
                numbers = [*_cells([read(r) for r in got]), *_cells([last(r) for r in got])]
                rows.append([LABELS[method], x, got[0]["step"][-1], got[0]["samples"][-1], *numbers])
        columns = ["method", varied, "steps", "samples", compared, "±", "reward at the end", "±"]
        note = NOTES.get(kind, "")
        made.append(Table(f"{told}: {TITLES[kind]}", columns, rows, note))
    return made


TITLES = {
    "B": "samples of many steps drawn at once (100 a step)",
    "T": "reuse of samples",
    "budget": "the paper's data-budget ablation",
}
NOTES = {
    "budget": "10,000 samples and 100 steps in all. T changes two things for BoN: its samples are older, and the best "
    "is one of N = 10 T.",
    "T": "Knobs are those tuned for the on-policy run, whatever T is.",
}


# ---- plots


def plots(done: Done, tier: Tier, seeds: Sequence[int]) -> list[Plot]:
    """Reward along offline and online runs, and each ablation."""
    made = []
    for world, told in WORLDS.items():
        optimal = f"{world} optimal offline"
        gap = " gap" if world == "context" else ""
        lines = {m: optimal + (gap if m not in ("bon", "rwr") else "") for m in OFFLINE}
        note = f"Pairs at least {GAP:g} apart." if gap else "All pairs."
        made.append(
            _courses(
                f"{told}: offline, reward off pi_ref", "gradient steps", "step", lines, done, seeds, note
            )
        )
        lines = dict.fromkeys(ONLINE, f"{world} optimal online")
        made.append(
            _courses(f"{told}: on policy, reward off pi_ref", "samples", "samples", lines, done, seeds)
        )
        for kind, (varied, compared, read) in ABLATIONS.items():
            series = []
            for method in ABLATED:
                points = _points(world, kind, done, tier, method, seeds)
                if points:
                    ys = [[read(result) for result in got] for _, got in points]
                    series.append(_series(LABELS[method], [x for x, _ in points], ys))
            made.append(Plot(f"{told}: {TITLES[kind]}", varied, compared, series, NOTES.get(kind, "")))
    made.append(_winners(done, tier, seeds))
    return [plot for plot in made if plot.series]


def _courses(
    title: str,
    x_label: str,
    x: str,
    lines: Mapping[str, str],
    done: Done,
    seeds: Sequence[int],
    note: str = "",
) -> Plot:
    series = []
    for method, key in lines.items():
        got = _got(done, key, method, seeds)
        if got:
            ys = [list(values) for values in zip(*(result["reward"] for result in got), strict=True)]
            series.append(_series(LABELS[method], got[0][x], ys))
    return Plot(title, x_label, "expected reward", series, note)


def _series(name: str, x: Sequence[float], values: Sequence[Sequence[float]]) -> Series:
    spans = [over_seeds(of_x) for of_x in values]
    low = high = None
    if all(interval is not None for _, interval in spans):
        low, high = ([interval[end] for _, interval in spans if interval] for end in (0, 1))
    return Series(name, list(x), [mean for mean, _ in spans], low, high)


def _winners(done: Done, tier: Tier, seeds: Sequence[int]) -> Plot:
    size, lines = SIZES[tier]["context"], {"h_w": "winners", "h_l": "losers"}
    series = []
    for name, told in lines.items():
        points = []
        for count in sorted((*size.counts, size.prompts)):
            key = "context optimal offline gap" if count == size.prompts else f"context prompts {count}"
            known = [r[name][-1] for r in _got(done, key, "ipo", seeds) if r[name][-1] is not None]
            if known:
                points.append((count, known))
        if points:
            series.append(_series(told, [math.log10(x) for x, _ in points], [known for _, known in points]))
    return Plot(
        "One action: implicit rewards of offline IPO",
        "log10 of the number of prompts",
        "log pi - log pi_ref, nats",
        series,
        f"Pairs at least {GAP:g} apart, as they are learned from.",
    )


def notes(done: Done, tier: Tier, seeds: Sequence[int]) -> list[str]:
    """How much of the protocol was run, how knobs were chosen, and where the build departs from the paper's code."""
    whole = sum(len(setup.methods) for setup in setups(tier).values()) * len(seeds)
    told = [
        f"Bandits: {len(done)} of {whole} runs are done ({len(seeds)} seed{'s' if len(seeds) > 1 else ''})."
    ]
    if len(seeds) < 5:
        told.append("Bandits: fewer than the protocol's five seeds.")
    worlds = " and ".join(f"{len(size.tuning_seeds)} ({WORLDS[name]})" for name, size in SIZES[tier].items())
    told.append(
        f"Bandits: rate and knob of each method are those with the highest last reward on {worlds} worlds of other "
        "seeds, where more than one was tried; ablations take those of the setting that they vary."
    )
    told.append(
        "Bandits: departures from the paper's code. A token is scored by logits that have not seen it; the prompt is "
        "neither scored nor rewarded; dropout is on while pi_ref is learned, and off in it and in all later training; "
        "pi_ref learns on batches of 100 prompts; first samples come from pi_ref in both worlds; RWR is not clamped."
    )
    return told
