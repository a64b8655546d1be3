"""Whether a policy of DROID's goes by its pictures: its error on the demonstrations that it learned, with their own
pictures and with those of other moments of the same task.

A policy that has learned everything but to look knows the way from where the hand is; it is as good with the wrong
pictures. Trials alone cannot tell that from a policy that looks and errs.
"""

from __future__ import annotations

from statistics import fmean
from typing import Any

import numpy as np
import torch

from heedful.papers.seeds import Result
from heedful.recipes import demos_train, demos_train_data
from heedful.run import Run, derive_seed

FRAMES = 400


def sees(learning: demos_train.Config, run: Run) -> Result:
    """{"own", "others"}: centimetres between where the hand is to be at the end of a chunk and where it was, over
    `FRAMES` frames of the arm's own demonstrations, means over tasks.

    learning: the options that the arm was trained with.
    """
    from heedful.policies.actions.build import load

    learned = demos_train_data.open_sources(learning)
    demos_train_data.keep_pictures(learning, learned, run)
    frames = learned.sources[0].frames
    rng = np.random.default_rng(derive_seed(learning.seed, "sees"))
    picked = rng.integers(0, len(frames), FRAMES)
    rows = np.stack([np.arange(FRAMES), np.zeros(FRAMES, int), picked], 1)
    batch = demos_train_data.collate(learning, learned, rows, learning.seed)
    tasks = np.array(
        [frames.episodes.episode(frames.place(k)[0]).meta["current_task"] for k in picked.tolist()]
    )
    other = np.arange(FRAMES)
    for task in sorted(set(tasks)):
        mixed = rng.permutation(np.flatnonzero(tasks == task))
        other[mixed] = np.roll(mixed, 1)
    policy: Any = load(f"{learning.out}/model")[0]
    swapped = {camera: batch.observations[camera][torch.from_numpy(other)] for camera in learning.cameras}
    return {
        name: _error(policy, observations, batch.actions, tasks, learning.actions)
        for name, observations in (
            ("own", batch.observations),
            ("others", {**batch.observations, **swapped}),
        )
    }


def _error(policy: Any, observations: Any, actions: Any, tasks: np.ndarray, kind: str) -> float:
    with torch.no_grad():
        said = policy.draw(policy.encode(observations), 1, generator=torch.Generator().manual_seed(0))[:, 0]
    off = 100 * (_end(said, kind) - _end(actions, kind)).norm(dim=-1).numpy()
    return fmean(float(off[tasks == task].mean()) for task in sorted(set(tasks)))


def _end(actions: Any, kind: str) -> Any:
    """(B, H, 7) -> (B, 3): where a chunk ends, from wherever changes begin."""
    return actions[..., :3].sum(1) if kind == "delta" else actions[:, -1, :3]
