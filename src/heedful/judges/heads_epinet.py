"""An epinet as a reward ensemble: one network, K draws of its random index (Osband et al. 2023, arXiv 2107.08924).

f(x, z) = base(x) + e([z; x]) . z + scale * e0([z; x]) . z, both e of one hidden layer, e0 random and frozen. The K
indices z are drawn once; each is a head. base sees every head's gradient, the features are given and get none.

Letters: n answers, D features, K heads, Z numbers in an index, H hidden units.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from heedful.judges.heads import Making, Pairs

Array = NDArray[np.float64]
INDEX, HIDDEN = 30, 50
STEPS, BATCH, RATE = 400, 128, 3e-3
PARTS = ("index", "input", "shift", "output")
"""Arrays of e, and with `fixed_` before the name of e0: (Z, H), (D, H), (H,), (H, Z)."""


def epinet_scores(arrays: Mapping[str, Array], x: Array) -> Array:
    """(n, D) -> (n, K)."""
    z = arrays["z"]

    def part(name: str) -> Array:
        index, inputs, shift, output = (arrays[f"{name}{one}"] for one in PARTS)
        hidden = np.maximum((x @ inputs + shift)[:, None] + z @ index, 0)
        # e . z sums over the index; done first, it leaves one number for each hidden unit and head.
        return np.einsum("nkh,kh->nk", hidden, z @ output.T)

    return (x @ arrays["base"])[:, None] + part("") + part("fixed_")


def fit_epinet(pairs: Pairs, how: Making) -> dict[str, Array]:
    """Train base and e by Adam on the Bradley-Terry loss of every head; returns the arrays of `epinet_scores`.

    The scale of the prior is in its output already.
    """
    import torch

    size = pairs.chosen.shape[1]
    rng = np.random.default_rng([how.seed, 5])
    z = torch.from_numpy(rng.normal(size=(how.heads, INDEX)) / np.sqrt(INDEX)).float()

    def layers(scale: float) -> list[torch.Tensor]:
        fan = size + INDEX
        index, inputs = (rng.normal(size=(rows, HIDDEN)) / np.sqrt(fan) for rows in (INDEX, size))
        output = scale * rng.normal(size=(HIDDEN, INDEX)) * np.sqrt(2 / HIDDEN)
        return [torch.from_numpy(one).float() for one in (index, inputs, np.zeros(HIDDEN), output)]

    learned = [one.requires_grad_() for one in layers(1.0)]
    fixed = layers(how.prior_scale)
    base = torch.zeros(size, requires_grad=True)
    sides = [torch.from_numpy(side).float() for side in (pairs.chosen, pairs.rejected)]

    def score(x: torch.Tensor) -> torch.Tensor:
        total = (x @ base)[:, None]
        for index, inputs, shift, output in (learned, fixed):
            hidden = torch.relu((x @ inputs + shift)[:, None] + z @ index)
            total = total + torch.einsum("nkh,kh->nk", hidden, z @ output.T)
        return total

    n = len(sides[0])
    decay = how.anchor / n
    optimiser = torch.optim.Adam([base, *learned], lr=RATE)
    order = np.concatenate([rng.permutation(n) for _ in range(-(-STEPS * BATCH // n))])
    for step in range(STEPS):
        some = torch.from_numpy(order[step * BATCH : (step + 1) * BATCH])
        loss = torch.nn.functional.softplus(score(sides[1][some]) - score(sides[0][some])).mean()
        loss = loss + 0.5 * decay * sum(one.square().sum() for one in (base, *learned))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    made = {"z": z, "base": base.detach()}
    made |= {name: one.detach() for name, one in zip(PARTS, learned, strict=True)}
    made |= {f"fixed_{name}": one for name, one in zip(PARTS, fixed, strict=True)}
    return {name: one.double().numpy() for name, one in made.items()}
