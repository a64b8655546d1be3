"""What all parts of the HyRe reproduction share: a person with labels and a test, and every way to serve this person.

Rows that adapt and rows that test are drawn apart. Two arms see what no user can, and stand as bounds alone: the best
head on the test rows, and fine-tuning whose rate and steps are chosen on the test rows.

Letters: n labels, M test pairs, D features, K heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heedful.judges import head_tuning
from heedful.judges.personal import PersonalReward
from heedful.papers.results import Claim
from heedful.papers.seeds import decided, jackknife

Array = NDArray[np.float64]
SERVED = ("uniform", "single", "best_head", "fine_tuned", "reweighting")
BOUNDS = ("oracle_head", "oracle_tuned")
ARMS = (*SERVED, "diagnosed", *BOUNDS)
WORDS = {
    "uniform": "uniform mean",
    "single": "single head",
    "best_head": "best head on the labels",
    "fine_tuned": "fine-tuning, by cross-validation",
    "reweighting": "reweighting",
    "diagnosed": "what the diagnosis used",
    "oracle_head": "best head on the test (bound)",
    "oracle_tuned": "fine-tuning chosen on the test (bound)",
}


@dataclass(frozen=True)
class Person:
    """Someone's labels, and pairs to test on: (n, D) twice, (n,); (M, D) twice, (M,) whether they prefer the first."""

    first: Array
    second: Array
    labels: Array
    test_first: Array
    test_second: Array
    right: NDArray[np.bool_]


@dataclass(frozen=True)
class Tested:
    """What does not depend on labels: margins of the heads (M, K) and of the single head (M,) on the test pairs, and
    the differences of these pairs' features (M, D)."""

    heads: Array
    single: Array
    difference: Array


def scored(reward: PersonalReward, person: Person) -> Tested:
    """The test pairs of a person, scored; other draws of labels with the same test pairs can use it again."""
    single = reward.predict(person.test_first, "single") - reward.predict(person.test_second, "single")
    heads = reward.head_scores(person.test_first) - reward.head_scores(person.test_second)
    return Tested(heads, single, person.test_first - person.test_second)


def served(
    reward: PersonalReward, person: Person, counts: Sequence[int], ready: Tested | None = None
) -> dict[str, Any]:
    """Accuracy of every arm after the first `counts` labels: {arm: [accuracy at each count]}, with `effective` heads
    and what the diagnosis `used`. Labels that `reward` had are taken back first, and none are left."""
    reward.undo(len(reward.labels_))
    reference = reward.diagnose().used
    ready = ready or scored(reward, person)
    margins = ready.heads
    found: dict[str, list[Any]] = {name: [] for name in (*ARMS, "effective", "used")}
    best = max(_right(margins[:, k], person) for k in range(margins.shape[1]))
    uniform = _right(margins.mean(1), person)
    for count in counts:
        had = len(reward.labels_)
        reward.adapt(*(part[had:count] for part in (person.first, person.second, person.labels)))
        at = {
            "uniform": uniform,
            "single": _right(ready.single, person),
            "best_head": _right(margins[:, int(np.argmax(reward.weights_))], person),
            "fine_tuned": _right(ready.single + ready.difference @ reward.tuned_, person),
            "reweighting": _right(margins @ reward.weights_, person),
        }
        used = reward.diagnose().used
        at |= {
            "diagnosed": at[used],
            "oracle_head": best,
            "oracle_tuned": _tuned(ready, person, reward, count),
        }
        for name in ARMS:
            found[name].append(at[name])
        found["effective"].append(reward.effective_heads_)
        found["used"].append(used)
    reward.undo(len(reward.labels_))
    return found | {"reference": reference}


def mean_over(people: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean over people (or draws) of what `served` found; `used` becomes the share of each arm."""
    names = [name for name in people[0] if name not in ("used", "reference")]
    found: dict[str, Any] = {name: np.mean([one[name] for one in people], 0).tolist() for name in names}
    found["reference"] = people[0]["reference"]
    chosen = np.array([one["used"] for one in people])
    found["used"] = {arm: (chosen == arm).mean(0).tolist() for arm in SERVED}
    return found


def worst(text: str, cells: Sequence[Sequence[float]], bound: float) -> Claim:
    """A claim that the least of many means over seeds is at least a bound; cells: one row of the same cells per seed.

    The interval is the jackknife's over seeds, for the least of means is no mean.
    """
    if not cells:
        return Claim(text, "not in the paper", note="not run yet")

    def least(seeds: Sequence[str]) -> float:
        return float(np.mean([cells[int(seed)] for seed in seeds], 0).min())

    measured, interval = jackknife(least, [str(i) for i in range(len(cells))])
    holds = decided(measured, interval, bound)
    return Claim(
        text, "not in the paper", measured, interval, holds, f"{len(cells)} seed(s), {len(cells[0])} cells"
    )


def _right(margin: Array, person: Person) -> float:
    """Accuracy; a margin of 0 is half right."""
    return float(np.where(margin == 0, 0.5, (margin > 0) == person.right).mean())


def _tuned(ready: Tested, person: Person, reward: PersonalReward, count: int) -> float:
    """The best that gradient descent on the labels passes through, judged on the test rows."""
    x = person.first[:count] - person.second[:count]
    start = reward.predict(person.first[:count], "single") - reward.predict(person.second[:count], "single")
    way = head_tuning.paths(start, x @ x.T, person.labels[:count], np.ones((1, count)))[0]
    ends = way.reshape(-1, count)
    return max(_right(one, person) for one in (ready.single[:, None] + (ready.difference @ x.T) @ ends.T).T)
