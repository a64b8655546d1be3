"""The advice of an audit, in words. Where length says as much as the probe, that comes first."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from heedful.data.problems import printable
from heedful.recipes.audit_measure import FileNumbers, Measured

CONTAMINATED = 0.005
"""Share of a file's prompts in the evaluation set from which the advice mentions it."""
NEAR = 0.1
"""Share of near-duplicate prompts from which it does."""


def name_of(file: str) -> str:
    """A file as the page calls it."""
    return printable(Path(file).name if "/" in file and not file.startswith("hub:") else file)


def names_of(files: list[str]) -> list[str]:
    """Names of files, with their folder where two would be the same."""
    short = [name_of(file) for file in files]
    return [printable(file) if short.count(name) > 1 else name for file, name in zip(files, short)]


def length_explains(one: FileNumbers) -> bool:
    """Whether length alone is better than chance and the probe not surely better than length."""
    return one.length.low > 0.5 and not one.gap.low > 0


def advice(measured: Measured, probe: str, below: float) -> list[str]:
    """Sentences, the most important first."""
    names = names_of([one.file for one in measured.files])
    said: list[str] = []
    for name, one in zip(names, measured.files):
        if length_explains(one):
            said.append(_length(name, one))
    for name, one in zip(names, measured.files):
        if not length_explains(one):
            said.append(_learned(name, one, probe))
    for name, one in zip(names, measured.files):
        said += _repeats(name, one)
    for name, one in zip(names, measured.files):
        said += [
            *_scale(name, one),
            *_noise(name, one),
            _information(name, one),
            *_suspects(name, one, below),
        ]
    return [*said, *_compared(measured, names)]


def percent(value: float) -> str:
    """A share as people read it."""
    return "–" if math.isnan(value) else f"{100 * value:.1f}%"


def points(value: float) -> str:
    """A difference of shares in points, with its sign."""
    # Zero is added because what rounds to -0 would have a minus.
    return f"{round(100 * value, 1) + 0.0:+.1f}"


def span(interval: Any, show: Any = percent) -> str:
    """An estimate with its interval."""
    if not interval.known:
        return show(interval.estimate)
    return f"{show(interval.estimate)} ({show(interval.low)} to {show(interval.high)})"


def _length(name: str, one: FileNumbers) -> str:
    which = "longer" if one.chosen_longer.estimate >= 0.5 else "shorter"
    rate = max(one.chosen_longer.estimate, 1 - one.chosen_longer.estimate)
    better = "more than" if one.gap.high < 0 else "as much as"
    held = "" if math.isnan(one.balanced) else f", and with length held equal only {percent(one.balanced)}"
    return (
        f"{name}: length explains {better} the probe does: the {which} answer is the chosen one in {percent(rate)} of "
        f"the pairs, length alone predicts {span(one.length)} of held-out pairs, the probe {span(one.probe)}{held}; a "
        f"reward model of this file will first of all learn to prefer {which} answers, so balance or control length "
        "before training on it."
    )


def _learned(name: str, one: FileNumbers, probe: str) -> str:
    if not one.probe.low > 0.5:
        return (
            f"{name}: {probe} learns nothing that is surely better than chance ({span(one.probe)} on held-out pairs): "
            "more pairs, a stronger probe (--probe minilm, lm or tuned), or a look at the labels is needed before the "
            "rest of this page says anything about this file."
        )
    held = "" if math.isnan(one.balanced) else f"; with length held equal it has {percent(one.balanced)}"
    apart, more = 100 * abs(one.gap.estimate), "more" if one.gap.estimate >= 0 else "fewer"
    return (
        f"{name}: the probe predicts {span(one.probe)} of held-out pairs, {apart:.1f} points {more} "
        f"than length alone, which has {span(one.length)}{held}."
    )


def _repeats(name: str, one: FileNumbers) -> list[str]:
    said, counts = [], one.counts
    told = {
        "duplicates": "repeat an earlier pair",
        "contradictory": "contradict another pair",
        "identical": "have the same answer twice",
        "mismatched": "have answers to different prompts",
        "faulty": "are faulty",
    }
    found = [f"{counts[key]:,} {words}" for key, words in told.items() if counts[key]]
    if found:
        said.append(f"{name}: of {counts['rows']:,} rows {', '.join(found)}; --clean drops them.")
    inside = counts.get("prompts_in_eval", 0)
    if inside > CONTAMINATED * counts["prompts"]:
        said.append(
            f"{name}: {inside:,} of its {counts['prompts']:,} prompts are in the evaluation file and "
            f"{counts['near_eval']:,} more are almost the same as one there; the first were left out of training here, "
            "and must be wherever this evaluation is used."
        )
    if counts["near_duplicate_prompts"] > NEAR * counts["prompts"]:
        said.append(
            f"{name}: {counts['near_duplicate_prompts']:,} of {counts['prompts']:,} prompts are almost the same as "
            "another one, so the held-out accuracy may be too good."
        )
    return said


def _scale(name: str, one: FileNumbers) -> list[str]:
    slope, settled, sizes = one.scale["slope"], one.scale["saturation"], one.scale["n"]
    if len(sizes) < 2:
        return [f"{name}: {sizes[-1]:,} training pairs are too few for a scale curve."]
    told = f"{name}: each doubling of the pairs brings {span(slope, points)} points"
    if settled is not None:
        told += (
            f"; from {settled:,} pairs on no doubling brings a full one, so more of the same may help little"
        )
    elif slope.known and slope.low > 0:
        told += f", and the curve still rises at {sizes[-1]:,}: more of the same helps"
    else:
        told += ", which is not surely more than none"
    return [f"{told}."]


def _noise(name: str, one: FileNumbers) -> list[str]:
    tolerated = one.noise["tolerance"].estimate
    if math.isnan(tolerated):
        return []
    kept = one.noise["excess_retention"][one.noise["q"].index(0.3)]
    until = f"90% of it up to q* = {tolerated:.1f}" if tolerated else "less than 90% of it already at 10%"
    return [
        f"{name}: with 30% of the labels exchanged the probe keeps {percent(kept.estimate)} of what it has above "
        f"chance ({until}); robust accuracy may also mean that the pairs repeat one another. Its calibration error "
        f"is {one.reliability[0]['ece']:.3f}."
    ]


def _information(name: str, one: FileNumbers) -> str:
    over, held = one.information["least_over_random"], one.information["least_over_most_length_held"]
    word = "help" if over.low > 0 else "hurt" if over.high < 0 else "make no sure difference"

    return (
        f"{name}: pairs of unlike answers {word} against a random half ({span(over, points)} points); least against "
        f"most similar with length held {span(held, points)}."
    )


def _suspects(name: str, one: FileNumbers, below: float) -> list[str]:
    count = int((one.confidence < below).sum())
    if not count:
        return [
            f"{name}: the probe is sure of no mislabelled pair (no label gets less than {percent(below)})."
        ]
    told = (
        f"{name}: {count:,} labels get less than {percent(below)} from the cross-validated probe: read them"
    )
    if length_explains(one):
        told += ", but as it goes by length here, many of them may only be of unusual length"
    return [f"{told}."]


def _compared(measured: Measured, names: list[str]) -> list[str]:
    if len(names) < 2:
        return []
    accuracy = [one.estimate for one in measured.common_accuracy]
    best = max(range(len(names)), key=accuracy.__getitem__)
    beaten = [
        row
        for row in measured.comparisons
        if best in (row["a"], row["b"]) and row["holm"] < 0.05 and row["gap"].excludes_zero
    ]
    others = f"{len(beaten)} of the {len(names) - 1} other files" if len(names) > 2 else "the other file"
    surely = "surely" if beaten or len(names) > 2 else "not surely"
    said = (
        f"On {printable(measured.common)}, {names[best]} teaches most: {span(measured.common_accuracy[best])}. It is "
        f"{surely} ahead of {others} (paired intervals over prompts, and McNemar's test corrected for all comparisons)."
    )
    sizes = [one.counts["pairs"] for one in measured.files]
    if sizes[best] < max(sizes) and beaten:
        said += " It is not the largest file: size alone does not rank data sets."
    return [said]
