"""Transitions out of a replay buffer: rewards as a critic wants them, chunks of actions, returns, mixed batches.

Letters: B transitions, S steps of an episode, H steps of an action chunk, A numbers of an action.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from heedful.data.replay import ReplayBuffer
from heedful.errors import HeedfulError
from heedful.judges.critic import Transitions
from heedful.judges.critic_returns import monte_carlo_returns, success_masks
from heedful.policies.actions import ActionSpace, Observations, rows

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Rewards:
    """How rewards are read: scale * r + bias, discounted by gamma a step.

    success: the raw reward of a solved step. Where given, such a step ends the task whatever the stored terminals say,
    and nothing else does (PA-RL, on sparse tasks). failure: the raw reward of a step without success, for the return of
    an episode that never succeeds (see `monte_carlo_returns`).
    """

    scale: float = 1.0
    bias: float = 0.0
    gamma: float = 0.99
    success: float | None = None
    failure: float | None = None


class TransitionTable:
    """The transitions of a buffer's first `episodes` (all without), as torch batches.

    A transition is a state, a chunk of H actions that begins there, and the state after it; a chunk is cut where the
    episode ends (its last action is repeated, and does not count). `states` numbers all states, ends of episodes too.
    """

    def __init__(
        self, buffer: ReplayBuffer, space: ActionSpace, rewards: Rewards, *, episodes: int | None = None
    ) -> None:
        if len(space.low) != buffer.actions:
            raise HeedfulError(
                f"actions have {buffer.actions} numbers in {buffer.folder}, and {len(space.low)} bounds"
            )
        count = buffer.episodes if episodes is None else episodes
        if not 0 <= count <= buffer.episodes:
            raise HeedfulError(f"{buffer.folder} has {buffer.episodes} episodes, not {count}")
        self.buffer, self.space, self.rewards = buffer, space, rewards
        self.ends = buffer.ends[:count]
        self.states = int(self.ends[-1]) if count else 0
        said = [info.get("task") for info in buffer.infos[:count]]
        self.tasks = [str(task) for task in said] if said and None not in said else []
        last = np.zeros(self.states, dtype=bool)
        last[self.ends - 1] = True
        self.rows = np.flatnonzero(~last)
        self._last = (
            self.ends[np.searchsorted(self.ends, self.rows, side="right")] - 1
        )  # last state of its episode
        self._prepare()

    def __len__(self) -> int:
        return len(self.rows)

    def _prepare(self) -> None:
        how, horizon = self.rewards, self.space.horizon
        raw = np.array(self.buffer.column("reward")[self.rows], dtype=np.float64)
        reward = how.scale * raw + how.bias
        stored = np.array(self.buffer.column("terminal")[self.rows])
        mask = 1.0 - stored if how.success is None else success_masks(raw, how.success).astype(np.float64)
        end = self.rows + 1 == self._last
        failure = None if how.failure is None else how.scale * how.failure + how.bias
        self.mc_return = monte_carlo_returns(reward, mask, end, gamma=how.gamma, failure=failure)
        # A chunk's reward is the discounted sum of its steps, up to the end of the task or the episode.
        total, alive, steps = np.zeros_like(reward), np.ones_like(reward), np.zeros_like(reward)
        left = self._last - self.rows
        for i in range(horizon):
            inside = (left > i) & (alive > 0)
            at = np.minimum(np.arange(len(reward)) + i, len(reward) - 1)
            total += np.where(inside, how.gamma**i * reward[at], 0.0)
            steps += inside
            alive = np.where(inside, alive * mask[at], alive)
        self.reward = total.astype(np.float32)
        # The critic discounts H steps; where the episode was cut after fewer, the mask makes up for it.
        self.mask = (alive * (how.gamma or 1.0) ** (steps - horizon)).astype(np.float32)

    def observe(self, states: Tensor) -> dict[str, Any]:
        """Observations of states (B,), for a `CandidateCache`; with the "task" where episodes say theirs."""
        index = states.numpy()
        seen: dict[str, Any] = {
            name: torch.from_numpy(np.asarray(self.buffer.column(f"observation/{name}")[index]))
            for name in self.buffer.shapes
        }
        if self.tasks:
            seen["task"] = [self.tasks[i] for i in np.searchsorted(self.ends, index, side="right")]
        return seen

    def batch(self, index: Tensor) -> Transitions:
        """Transitions `index` (B,). `index` and `next_index` of what comes out number states, for caches."""
        chosen = index.numpy()
        here, last = self.rows[chosen], self._last[chosen]
        after = np.minimum(here + self.space.horizon, last)
        steps = np.minimum(here[:, None] + np.arange(self.space.horizon), last[:, None] - 1)
        action = torch.from_numpy(np.asarray(self.buffer.column("action")[steps]))
        state, following = torch.from_numpy(here), torch.from_numpy(after)
        return Transitions(
            self.observe(state),
            self.space.check(action, f"actions of {self.buffer.folder}"),
            torch.from_numpy(self.reward[chosen]),
            torch.from_numpy(self.mask[chosen]),
            self.observe(following),
            torch.from_numpy(self.mc_return[chosen]),
            state,
            following,
        )

    def moments(
        self, names: Sequence[str] = ()
    ) -> tuple[dict[str, tuple[float, ...]], dict[str, tuple[float, ...]]]:
        """Mean and std of each number of the observations, for `ObservationSpace`; names: which, all without."""
        wanted = names or [name for name, shape in self.buffer.shapes.items() if len(shape) == 1]
        columns = {
            name: np.asarray(self.buffer.column(f"observation/{name}")[: self.states]) for name in wanted
        }
        mean = {n: tuple(c.mean(0, dtype=np.float64).tolist()) for n, c in columns.items()}
        std = {n: tuple(c.std(0, dtype=np.float64).tolist()) for n, c in columns.items()}
        return mean, std


class JoinedTables:
    """Several tables as one, offline and online data as a rule; transitions and states are numbered on and on."""

    def __init__(self, tables: Sequence[TransitionTable]) -> None:
        self.tables = list(tables)
        self.starts = np.cumsum([0, *map(len, self.tables)])
        self.first_states = np.cumsum([0, *(table.states for table in self.tables)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def states(self) -> int:
        """States of all tables."""
        return int(self.first_states[-1])

    def batch(self, index: Tensor) -> Transitions:
        """See `TransitionTable.batch`."""
        which = np.searchsorted(self.starts, index.numpy(), side="right") - 1
        order = torch.from_numpy(np.argsort(which, kind="stable"))
        parts = []
        for i, table in enumerate(self.tables):
            mine = order[torch.from_numpy(which)[order] == i]
            if len(mine):
                part = table.batch(index[mine] - int(self.starts[i]))
                shift = int(self.first_states[i])
                assert part.index is not None and part.next_index is not None
                parts.append(replace(part, index=part.index + shift, next_index=part.next_index + shift))
        back = torch.argsort(order)

        def tensors(name: str) -> Tensor:
            return torch.cat([getattr(part, name) for part in parts])[back]

        return Transitions(
            rows(_appended([part.observations for part in parts]), back),
            tensors("action"),
            tensors("reward"),
            tensors("mask"),
            rows(_appended([part.next_observations for part in parts]), back),
            tensors("mc_return"),
            tensors("index"),
            tensors("next_index"),
        )

    def observe(self, states: Tensor) -> dict[str, Any]:
        """See `TransitionTable.observe`."""
        which = torch.from_numpy(np.searchsorted(self.first_states, states.numpy(), side="right") - 1)
        order = torch.argsort(which, stable=True)
        parts = [
            table.observe(states[order[which[order] == i]] - int(self.first_states[i]))
            for i, table in enumerate(self.tables)
            if (which == i).any()
        ]
        return rows(_appended(parts), torch.argsort(order))


def mixed_indices(
    sizes: Sequence[int], shares: Sequence[float], *, steps: int, batch: int, generator: torch.Generator
) -> Tensor:
    """(steps, batch) transitions of joined tables, drawn with replacement: of each step so large a share of each table.

    shares sum to 1, as 0.5 and 0.5; what rounding leaves goes to the last. A table without transitions gives its share
    to the others. Rows of this are what a stage of `fit` takes one of at each step, so an update-to-data ratio is a
    number of steps. Raises HeedfulError when there is nothing to draw from.
    """
    if len(sizes) != len(shares) or any(s < 0 for s in shares) or abs(sum(shares) - 1) > 1e-6:
        raise HeedfulError(
            f"shares of {len(sizes)} tables must be 0 or more and sum to 1; they are {list(shares)}"
        )
    open_shares = [share if size else 0.0 for size, share in zip(sizes, shares, strict=True)]
    total = sum(open_shares)
    if not total:
        raise HeedfulError("there is no transition to draw a batch from")
    counts = [round(batch * share / total) for share in open_shares]
    largest = max(i for i, share in enumerate(open_shares) if share)
    counts[largest] += batch - sum(counts)
    parts, start = [], 0
    for size, count in zip(sizes, counts, strict=True):
        if count:
            parts.append(start + torch.randint(size, (steps, count), generator=generator))
        start += size
    return torch.cat(parts, 1)


def _appended(parts: Sequence[Observations]) -> Observations:
    """Observations of several tables one after another."""
    columns = {name: [part[name] for part in parts] for name in parts[0]}
    return {
        name: torch.cat(values)
        if isinstance(values[0], Tensor)
        else [text for part in values for text in part]
        for name, values in columns.items()
    }
