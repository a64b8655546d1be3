"""A process that appends episodes until it is killed. Run as `python replay_worker.py FOLDER`."""

from __future__ import annotations

import sys
from itertools import count

import numpy as np

from heedful.data.replay import Episode, ReplayBuffer

SHAPES = {"state": (3,), "front": (3, 4, 4)}


def made(number: int) -> Episode:
    """Episode `number`, a function of it alone."""
    rng = np.random.default_rng(number)
    steps = int(rng.integers(1, 9))
    return Episode(
        {
            "state": rng.normal(size=(steps + 1, 3)).astype(np.float32),
            "front": rng.integers(0, 256, (steps + 1, 3, 4, 4)).astype(np.uint8),
        },
        rng.uniform(-1, 1, (steps, 2)).astype(np.float32),
        rng.normal(size=steps).astype(np.float32),
        np.arange(steps) == steps - 1,
        {"seed": number, "success": bool(number % 2)},
    )


def main() -> None:
    """Append for ever; say the number of each episode once it is on the disk."""
    buffer = ReplayBuffer(sys.argv[1], SHAPES, 2)
    for number in count(buffer.episodes):
        buffer.add(made(number))
        print(number, flush=True)


if __name__ == "__main__":
    main()
