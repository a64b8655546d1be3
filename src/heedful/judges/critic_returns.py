"""What a data set itself says of values: returns that were reached, and which steps end a task.

For sparse rewards as in PA-RL's and Cal-QL's code. Letters: S steps of a data set, episode after episode.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heedful.errors import HeedfulError

Floats = NDArray[np.float32]


def success_masks(reward: NDArray[np.floating], success: float, *, tolerance: float = 1e-5) -> Floats:
    """(S,) masks of bootstrapping: 0 where the reward is that of success, 1 elsewhere; stored ends do not count.

    success: the reward of a solved step after scaling and bias, such as 1 * scale + bias in a maze. An episode that
    ran out of time could have gone on, so its last step still bootstraps.
    """
    return np.where(np.abs(reward - success) <= tolerance, 0.0, 1.0).astype(np.float32)


def monte_carlo_returns(
    reward: NDArray[np.floating],
    mask: NDArray[np.floating],
    end: NDArray[np.bool_],
    *,
    gamma: float,
    failure: float | None = None,
) -> Floats:
    """(S,) discounted returns from each step to the end of its episode.

    mask: 0 where a step ends the task. end: the last step of each episode. failure: the reward of a step without
    success; an episode without any mask of 0 then has failure / (1 - gamma) at each of its steps, the return of never
    succeeding, instead of the sum that its time limit cut. Cal-QL needs these.

    Raises HeedfulError when the shapes differ, the last step ends no episode, or a reward is not finite (it is named).
    """
    if not reward.shape == mask.shape == end.shape or reward.ndim != 1:
        raise HeedfulError(
            f"returns: rewards {reward.shape}, masks {mask.shape} and ends {end.shape} must be (S,) each"
        )
    if not 0 <= gamma < 1 and failure is not None:
        raise HeedfulError(f"the return of never succeeding needs a gamma below 1; it is {gamma}")
    bad = np.flatnonzero(~np.isfinite(reward))
    if len(bad):
        raise HeedfulError(
            f"returns: the reward of step {bad[0]} is {reward[bad[0]]}; correct or drop its episode"
        )
    if len(end) and not end[-1]:
        raise HeedfulError("returns: the last step ends no episode: terminals or timeouts are missing")
    from scipy.signal import lfilter

    out = np.empty(len(reward), dtype=np.float32)
    first = 0
    for last in np.flatnonzero(end):
        part = slice(first, int(last) + 1)
        first = int(last) + 1
        if failure is not None and (mask[part] > 0).all():
            out[part] = failure / (1 - gamma)
            continue
        total, at = 0.0, part.stop
        # Between two ends of the task (there may be steps after a success) the return is a plain filter.
        for cut in [*(np.flatnonzero(mask[part] == 0) + part.start)[::-1], part.start - 1]:
            piece = reward[cut + 1 : at].astype(np.float64)[::-1]
            if len(piece):
                values, _ = lfilter([1.0], [1.0, -gamma], piece, zi=[gamma * total])
                out[cut + 1 : at] = values[::-1]
            if cut >= part.start:
                out[cut] = total = float(reward[cut])
                at = int(cut)
    return out
