"""How far a trained pair gets at PackTable by itself: `heedful correct eval`, and the end of `train` and `learn`.

Episode i of a measurement has the same seed whichever pair is measured, so pairs compare episode by episode. Seeds of
demonstrations, of tuning, of measurements and of episodes with a person never meet.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from heedful.errors import HeedfulError

TEST, VALIDATION, LIVE = 1_000_000_000, 2_000_000_000, 3_000_000_000
"""First seeds of episodes that measure, that settings are chosen by, and that a person corrects."""
PART = 5
"""Episodes between two savings."""


@dataclass(frozen=True)
class Eval:
    """Measure a trained pair by itself at PackTable: success of the task and of every stage, with intervals."""

    run: Positional[Annotated[str, arg(metavar="RUN")]]
    """A run of `correct train` or `correct learn`."""
    episodes: int = 50
    """How many; their seeds are the same for every run."""
    out: str = ""
    """Where to write the episodes as JSON."""
    device: str = "auto"
    """cpu, cuda, mps or auto."""
    json: bool = False
    """Print the measures as JSON."""


def evaluate(options: Eval) -> int:
    """Run `heedful correct eval`. Raises HeedfulError for a run that has no pair, or was not trained at PackTable."""
    from heedful.atomic import write_file
    from heedful.device import pick_device
    from heedful.recipes.correct_models import open_talker

    if options.episodes < 1:
        raise HeedfulError("--episodes must be at least 1")
    talker = open_talker(options.run, device=pick_device(options.device))
    if talker.making.world is None:
        raise HeedfulError(
            f"{options.run} was not trained on demonstrations of PackTable: nothing here can say how far it gets. "
            "Measure it on its own robot"
        )
    table = open_table(talker.making.world)
    rows = [attempt(table, talker, TEST + i) for i in range(options.episodes)]
    table.close()
    if options.out:
        write_file(Path(options.out), (json.dumps(rows, indent=1) + "\n").encode())
    found = measures(rows)
    if options.json:
        print(json.dumps(found))
    else:
        print(
            "\n".join(f"{name:<24} {value['estimate']:6.1%}{_ends(value)}" for name, value in found.items())
        )
    return 0


COMMANDS = {"eval": (Eval, evaluate)}


def open_table(world: Mapping[str, Any]) -> Any:
    """The `PackTable` of a pair's `TalkerMaking.world`."""
    from heedful.data.pack_table import PackTable

    return PackTable(**{**world, "size": tuple(world["size"])})


def attempt(table: Any, pair: Any, seed: int) -> dict[str, Any]:
    """One episode from the reset `seed`, the pair alone: seed, success, steps, and which stages were done."""
    from heedful.recipes.correct_live import Nobody, take

    # Where nobody speaks there is nothing to log.
    nothing: Any = None
    take(table, pair, Nobody(), nothing, pair.timing, episode=0, seed=seed, source="")
    return outcome(table, seed)


def outcome(table: Any, seed: int) -> dict[str, Any]:
    """How an episode that is over went."""
    return {
        "seed": seed,
        "success": table.succeeded,
        "steps": table.table.steps,
        "stages": dict(table.stages),
    }


def measured(talker: Any, episodes: int, name: str, run: Any, *, first: int = TEST) -> list[dict[str, Any]]:
    """Episodes of a pair from seed `first` on, kept in the run as `<name>.jsonl`; none where it has no PackTable."""
    if talker.making.world is None or not episodes:
        return []

    def part(begin: int) -> list[dict[str, Any]]:
        table = open_table(talker.making.world)
        rows = [attempt(table, talker, first + i) for i in range(begin, min(episodes, begin + PART))]
        table.close()
        return rows

    return run.in_parts(name, episodes, PART, part)


def measures(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Success of the task, and of each stage: of all episodes, and of those that had done the stage before it."""
    from heedful.evals.intervals import share

    def told(values: Sequence[bool]) -> dict[str, Any]:
        found = share([float(v) for v in values])
        return {"estimate": found.estimate, "interval": found.bounds(), "n": len(values)}

    result = {"success": told([row["success"] for row in rows])}
    before = [True] * len(rows)
    for stage in rows[0]["stages"]:
        done = [bool(row["stages"][stage]) for row in rows]
        result[stage] = told(done)
        if any(before):
            result[f"{stage}, if so far"] = told([d for d, b in zip(done, before, strict=True) if b])
        before = [d and b for d, b in zip(done, before, strict=True)]
    return result


def stage_success(rows: Sequence[Mapping[str, Any]]) -> float:
    """The share of stages that were done among those that were begun: the one number by which a low level is tuned.

    A stage is begun where all before it are done.
    """
    begun = done = 0
    for row in rows:
        for reached in row["stages"].values():
            begun += 1
            if not reached:
                break
            done += 1
    return done / begun


def _ends(value: Mapping[str, Any]) -> str:
    low, high = value["interval"] or (None, None)
    return "" if low is None else f"  ({low:.1%} to {high:.1%}, {value['n']} episodes)"
