"""Statistics of a column, as LeRobot stores them: min, max, mean, std, count and five quantiles.

Those of a data set are made of its episodes': extremes of the extremes, the pooled mean and standard deviation, and,
as in LeRobot, the mean of the episodes' quantiles weighted by frames. Pictures are counted in [0, 1] for each channel,
from about a hundred frames of an episode, every other pixel or fewer, as a histogram: exact and small.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Stats = dict[str, Array]
QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
NAMES = ("min", "max", "mean", "std", "count", *QUANTILES)
SIDE = 150
"""Pictures are thinned to about so many pixels a side before they are counted."""
PICTURES_COUNTED = 100


def column_stats(values: Array) -> Stats:
    """Statistics over the frames of `values`, (T, *shape) or (T,); each is of a frame's shape, at least (1,)."""
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim == 1:
        numbers = numbers[:, None]
    with np.errstate(invalid="ignore"):
        stats = {
            "min": numbers.min(axis=0),
            "max": numbers.max(axis=0),
            "mean": numbers.mean(axis=0),
            "std": numbers.std(axis=0),
            "count": np.array([len(numbers)], dtype=np.int64),
        }
        levels = np.quantile(numbers, list(QUANTILES.values()), axis=0)
    return stats | dict(zip(QUANTILES, levels, strict=True))


class PictureStats:
    """Counts the colours of an episode's pictures while they are recorded."""

    def __init__(self) -> None:
        self._counts = np.zeros((3, 256), dtype=np.int64)
        self._pictures = 0
        self._seen = 0
        self._every = 1

    def add(self, picture: NDArray[np.uint8]) -> None:
        """Count one picture, uint8 (H, W, 3); after a hundred only every second, then every fourth, and so on."""
        self._seen += 1
        if (self._seen - 1) % self._every:
            return
        step = max(1, max(picture.shape[:2]) // SIDE, 2)
        small = picture[::step, ::step]
        for channel in range(3):
            self._counts[channel] += np.bincount(small[..., channel].ravel(), minlength=256)
        self._pictures += 1
        if self._pictures % PICTURES_COUNTED == 0:
            self._every *= 2

    def result(self) -> Stats:
        """The statistics, each of shape (3, 1, 1) but `count`, which is (1,) and counts pictures."""
        levels = np.arange(256) / 255
        weight = self._counts / np.maximum(self._counts.sum(axis=1, keepdims=True), 1)
        mean = weight @ levels
        cumulative = np.cumsum(weight, axis=1)
        seen = self._counts > 0
        stats = {
            "min": levels[np.argmax(seen, axis=1)],
            "max": levels[255 - np.argmax(seen[:, ::-1], axis=1)],
            "mean": mean,
            "std": np.sqrt(np.maximum(weight @ levels**2 - mean**2, 0)),
        }
        for name, quantile in QUANTILES.items():
            stats[name] = levels[np.argmax(cumulative >= quantile - 1e-12, axis=1)]
        shaped = {name: value.reshape(3, 1, 1) for name, value in stats.items()}
        return shaped | {"count": np.array([self._pictures], dtype=np.int64)}


def pool_stats(many: Iterable[Mapping[str, Mapping[str, Any]]]) -> dict[str, Stats]:
    """Statistics of a data set from its episodes', for each column that any has."""
    gathered: dict[str, dict[str, list[Array]]] = {}
    for stats in many:
        for column, values in stats.items():
            into = gathered.setdefault(column, {name: [] for name in NAMES})
            for name in NAMES:
                if name in values:
                    into[name].append(np.asarray(values[name], dtype=np.float64))
    return {column: _pool(values) for column, values in gathered.items()}


def _pool(values: dict[str, list[Array]]) -> Stats:
    counts = np.stack(values["count"]).reshape(-1)
    means, deviations = np.stack(values["mean"]), np.stack(values["std"])
    weight = (counts / counts.sum()).reshape(-1, *[1] * (means.ndim - 1))
    mean = (weight * means).sum(axis=0)
    pooled = {
        "min": np.stack(values["min"]).min(axis=0),
        "max": np.stack(values["max"]).max(axis=0),
        "mean": mean,
        "std": np.sqrt((weight * (deviations**2 + (means - mean) ** 2)).sum(axis=0)),
        "count": np.array([int(counts.sum())], dtype=np.int64),
    }
    for name in QUANTILES:
        if len(values[name]) == len(counts):
            pooled[name] = (weight * np.stack(values[name])).sum(axis=0)
    return pooled
