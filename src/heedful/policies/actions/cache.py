"""Candidate actions by transition, drawn once per policy: sampling a diffusion policy costs more than all the rest.

While the policy stays as it is (offline, PA-RL trains the critic alone), candidates of a data set's observations never
change. They are drawn in blocks of neighbours, always whole and with noise that is a function of the run's seed, the
policy's weights and the block: what a cache holds is the same bytes whenever and in whatever order it was filled, so a
resumed run, whose memory is empty, goes on exactly.

Letters: B observations, N candidates each, H steps of an action chunk, A numbers of an action.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from heedful.policies.actions import ActionPolicy, Observations
from heedful.run import derive_seed

BLOCK = 16
"""Observations drawn together: enough for the arithmetic to pay, few enough that little is drawn in vain."""


class CandidateCache:
    """N candidates for each of a growing list of observations, which `look(indices)` gives.

    `drawn` counts the observations sampled since the policy last changed; `dropped` how often it did.
    """

    def __init__(
        self,
        policy: ActionPolicy,
        look: Callable[[Tensor], Observations],
        n: int,
        *,
        seed: int,
        name: str = "candidates",
        temperature: float = 1.0,
        block: int = BLOCK,
    ) -> None:
        self.policy, self.look, self.n, self.block = policy, look, n, block
        self.seed, self.name, self.temperature = seed, name, temperature
        self.drawn = self.dropped = 0
        self._weights = ""
        self._blocks: dict[int, tuple[int, Tensor]] = {}  # up to which observation it is filled, candidates

    def __call__(self, index: Tensor, count: int) -> Tensor:
        """(B, N, H, A) candidates of observations `index` (B,), of `count` that there are by now.

        Blocks of other weights are dropped first: no candidate of an earlier policy ever comes out.
        """
        weights = self.policy.fingerprint()
        if weights != self._weights:
            self.dropped += bool(self._blocks)
            self._blocks, self._weights, self.drawn = {}, weights, 0
        places = index.div(self.block, rounding_mode="floor")
        wanted, where = torch.unique(places, return_inverse=True)
        for block in wanted.tolist():
            end = min((block + 1) * self.block, count)
            if block not in self._blocks or self._blocks[block][0] < end:
                self._blocks[block] = (end, self._draw(block, end))
        held = torch.stack([self._blocks[block][1] for block in wanted.tolist()])
        return held[where, index % self.block]

    def _draw(self, block: int, end: int) -> Tensor:
        first = block * self.block
        # The last block of a growing list is filled up with its last observation and drawn again when there are more:
        # its arithmetic is always that of a whole one, so the candidates that it had stay the same bytes.
        index = torch.arange(first, first + self.block).clamp(max=end - 1)
        self.drawn += end - first
        generator = torch.Generator().manual_seed(derive_seed(self.seed, self.name, self._weights, block))
        return self.policy.act(self.look(index), self.n, temperature=self.temperature, generator=generator)
