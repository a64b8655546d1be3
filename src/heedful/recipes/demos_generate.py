"""`heedful demos generate`: data sets of the simulated Franka table, by a scripted operator.

The sets are those of DROID's comparison in small: many scenes, few scenes, another lab's conventions, twice as many,
and demonstrations of three tasks at a scene that none of the others has.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg


@dataclass(frozen=True)
class Generate:
    """Make demonstrations on the simulated table: pictures, states, actions, three instructions, failures, pauses."""

    set: Positional[Annotated[Literal["diverse", "narrow", "oxe", "full", "in_domain"], arg(metavar="SET")]]
    """diverse (60 scenes x 20), narrow (3 x 400), oxe (other conventions), full (120 x 20), in_domain (3 x 40)."""
    out: str = ""
    """The new data set; one that was interrupted goes on. The default is the set's name."""
    episodes: int = 0
    """The first so many; 0: all of the set."""
    per_scene: int = 0
    """Episodes of each scene, where the set is to be smaller or larger; 0: the set's own number."""
    size: tuple[int, int] = (128, 128)
    """Height and width of the pictures; DROID's are 180 320."""
    seed: int = 0
    """Of scenes, tasks and operator: episode i is a function of the set, the seed and i."""
    workers: int = 1
    """Processes; the data is the same for any number of them."""
    codec: Literal["h264", "av1"] = "h264"
    """Of the videos."""
    json: bool = False
    """Print what was made as JSON."""
    quiet: bool = False
    """No progress display."""


def generate(options: Generate) -> int:
    """Run `heedful demos generate`. Raises HeedfulError for a folder with something else, and without MuJoCo."""
    from heedful.data.table.sets import generate as write
    from heedful.errors import HeedfulError

    if options.workers < 1 or options.episodes < 0:
        raise HeedfulError("--workers must be 1 or more, and --episodes 0 or more")
    folder = options.out or options.set
    begun, shown = time.monotonic(), 0.0

    def told(done: int, count: int) -> None:
        nonlocal shown
        if not options.quiet and not options.json and (time.monotonic() - shown > 5 or done == count):
            shown = time.monotonic()
            print(f"{done} of {count} episodes, {shown - begun:.0f} s", flush=True)

    count = write(
        folder,
        options.set,
        seed=options.seed,
        episodes=options.episodes,
        per_scene=options.per_scene,
        size=options.size,
        codec=options.codec,
        workers=options.workers,
        told=told,
    )
    if options.json:
        print(json.dumps({"set": options.set, "out": folder, "episodes": count, "seed": options.seed}))
    else:
        print(f"{folder}: {count} episodes; look at them with `heedful demos info {folder}`")
    return 0


COMMANDS: dict[str, tuple[type, Callable[[Any], int]]] = {"generate": (Generate, generate)}
