"""Pictures of a run's streams of Countdown for its report: two search trees, and alignment with symbolic searches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from heedful.data.countdown.replay import replay
from heedful.evals.streams import Searches, correctness_alignment, state_alignment
from heedful.recipes import search_tree, search_view
from heedful.recipes.search_measure import Measured
from heedful.recipes.search_world import World
from heedful.run import Run

PROBLEMS = 200
"""Of all test sets together, so that alignment costs seconds."""
DRAWN = 120
"""Nodes of a tree in a report."""


def pictures(
    models: Mapping[str, Mapping[str, Measured]], world: World, context: int, run: Run
) -> list[dict[str, Any]]:
    """`drawings` of report.json: trees of the last model's streams, then alignment of all models with the strategies.

    models: name to test set to what was measured greedily, all on the same problems. context: tokens that a model has
    for problem and stream, after which the strategies are cut off for their states. Empty where the world has no
    strategies or nothing was measured.
    """
    if world.searches is None or not models or not any(models.values()):
        return []
    return [*trees(list(models.values())[-1]), *alignments(models, world, context, run)]


def trees(measured: Mapping[str, Measured]) -> list[dict[str, Any]]:
    """The tree of a solved and of a failed problem of the first test set, in each case the stream of median length."""
    name, one = next(iter(measured.items()))
    made = []
    for flags, word in ((one.solved[:, 0], "solved"), (~one.solved[:, 0], "not solved")):
        places = flags.nonzero()[0]
        if not len(places):
            continue
        order = places[np.argsort(one.tokens[places, 0], kind="stable")]
        i = int(order[(len(order) - 1) // 2])
        found = replay(f"{one.prompts[i]} {one.texts[i][0]}")
        made.append(
            {
                "kind": "tree",
                "title": f"{name}, problem {i + 1}: {word}",
                "note": f"{search_view.sentence(found)}. The {word} problem whose stream is of median length; "
                "`heedful search view` draws the others.",
                "rows": [row.as_json() for row in search_tree.tree(found, DRAWN)],
            }
        )
    return made


def alignments(
    models: Mapping[str, Mapping[str, Measured]], world: World, context: int, run: Run
) -> list[dict[str, Any]]:
    """Heatmaps of the models and the twelve strategies: which problems are solved, and which states visited."""
    first = next(iter(models.values()))
    each = max(1, PROBLEMS // len(first))
    prompts = [prompt for one in first.values() for prompt in one.prompts[:each]]

    def make() -> dict[str, Any]:
        assert world.searches is not None
        symbolic = world.searches(prompts, context)
        own = _searches(models, each)
        names = [*own.names, *symbolic.names]
        found = {
            "correctness": correctness_alignment(np.concatenate([own.solved, symbolic.solved])),
            "states": state_alignment([*own.states, *symbolic.states]),
        }
        return {"names": names} | {
            kind: [[round(v, 4) if np.isfinite(v) else None for v in row] for row in values.tolist()]
            for kind, values in found.items()
        }

    kept = run.once("alignment.json", make)
    said = f"{len(prompts)} problems of {' and '.join(first)}"
    notes = {
        "correctness": (
            "Alignment in what is solved",
            f"{said}; correlation (phi) of solved and not solved. No figure where a search solves all or none.",
        ),
        "states": (
            "Alignment in which states are visited",
            f"{said}; states that both visit over those of the one that visits more, a mean over problems. Strategies "
            f"are cut off after {context} tokens, as the model is.",
        ),
    }
    return [
        {"kind": "heatmap", "title": title, "note": note, "labels": kept["names"], "values": kept[kind]}
        for kind, (title, note) in notes.items()
    ]


def _searches(models: Mapping[str, Mapping[str, Measured]], each: int) -> Searches:
    """The models' greedy streams as searches."""
    solved, states = [], []
    for measured in models.values():
        solved.append(np.concatenate([one.solved[:each, 0] for one in measured.values()]))
        states.append(
            [
                replay(f"{prompt} {texts[0]}").states()
                for one in measured.values()
                for prompt, texts in zip(one.prompts[:each], one.texts, strict=False)
            ]
        )
    return Searches(list(models), np.stack(solved), states)
