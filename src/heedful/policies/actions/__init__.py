"""Policies over actions: one protocol, whatever makes the action.

A policy samples N actions for each of B observations and learns by a supervised loss; nothing here differentiates an
action with respect to weights. That is all PA-RL asks of a policy class (arXiv 2412.06685): Gaussian, diffusion, flow,
action tokens and language models are served alike. An observation is encoded once for its N actions.

Letters: B observations, N actions each, H steps of an action chunk, A numbers of one action, T = H * A.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from heedful.errors import HeedfulError
from heedful.feedback import Samples
from heedful.losses import Result
from heedful.polyak import Polyak

Observations = Mapping[str, Any]
"""B observations by name: floats (B, S) such as "state", camera images (B, C, H, W) as uint8, and "task", a list of B
instructions, for policies that read."""
SLACK = 1e-4
"""How far out of bounds, as a share of the range, an action may be before it is refused rather than clipped."""


@dataclass(frozen=True)
class ActionSpace:
    """Bounds of each of A numbers, and how many actions in a row a policy gives at once.

    Raises HeedfulError for bounds that are missing, not finite or the wrong way round.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    horizon: int = 1

    def __post_init__(self) -> None:
        if len(self.low) != len(self.high) or not self.low or self.horizon < 1:
            raise HeedfulError(
                f"action space: {len(self.low)} lower and {len(self.high)} upper bounds with a horizon of "
                f"{self.horizon}; as many of each, at least one, and a horizon of 1 or more are needed"
            )
        for i, (low, high) in enumerate(zip(self.low, self.high, strict=True)):
            if not (-float("inf") < low < high < float("inf")):
                raise HeedfulError(
                    f"action space: number {i} has the bounds [{low}, {high}]; finite bounds with low < high are "
                    "needed: take those of the data (--action-bounds data) where the environment has none"
                )

    @property
    def shape(self) -> tuple[int, int]:
        """(H, A), the shape of one action."""
        return self.horizon, len(self.low)

    @property
    def numbers(self) -> int:
        """T = H * A."""
        return self.horizon * len(self.low)

    def bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """(A,) lower and (A,) upper bounds in the type and on the device of `like`."""
        return like.new_tensor(self.low), like.new_tensor(self.high)

    def clip(self, actions: Tensor) -> Tensor:
        """Actions (..., H, A) inside the bounds."""
        low, high = self.bounds(actions)
        return torch.minimum(torch.maximum(actions, low), high)

    def to_unit(self, actions: Tensor) -> Tensor:
        """Actions (..., H, A) as numbers in [-1, 1], (..., T)."""
        low, high = self.bounds(actions)
        return (2 * (actions - low) / (high - low) - 1).clamp(-1, 1).flatten(-2)

    def from_unit(self, numbers: Tensor) -> Tensor:
        """The inverse, clipped to the bounds: (..., T) -> (..., H, A)."""
        low, high = self.bounds(numbers)
        return self.clip(low + (numbers.unflatten(-1, self.shape) + 1) / 2 * (high - low))

    def uniform(self, *lead: int, generator: torch.Generator | None = None) -> Tensor:
        """Actions (*lead, H, A) drawn evenly between the bounds."""
        device = "cpu" if generator is None else generator.device
        share = torch.rand(*lead, *self.shape, generator=generator, device=device)
        low, high = self.bounds(share)
        return low + share * (high - low)

    def check(self, actions: Tensor, what: str = "actions") -> Tensor:
        """Actions (..., H, A), clipped where they leave the bounds by rounding alone.

        Raises HeedfulError naming the first action of another shape, that is not finite, or out of bounds.
        """
        if tuple(actions.shape[-2:]) != self.shape:
            raise HeedfulError(
                f"{what}: shape {tuple(actions.shape)} does not end in {self.shape} "
                "(steps of a chunk, numbers of an action)"
            )
        flat = actions.reshape(-1, *self.shape)
        low, high = self.bounds(flat)
        slack = SLACK * (high - low)
        wrong = ~flat.isfinite() | (flat < low - slack) | (flat > high + slack)
        if wrong.any():
            row, step, number = wrong.nonzero()[0].tolist()
            raise HeedfulError(
                f"{what}: row {row}, step {step}: number {number} is {float(flat[row, step, number])}, outside "
                f"[{self.low[number]}, {self.high[number]}]; clip the data or give the bounds it has"
            )
        return self.clip(actions)


class ActionPolicy(ABC):
    """What every policy class is: it encodes, draws and learns. `module` holds what `fit` trains."""

    module: nn.Module
    space: ActionSpace
    average: Polyak | None = None

    @abstractmethod
    def encode(self, observations: Observations) -> Any:
        """What `draw` and `log_prob` need of B observations, computed once for all their actions."""

    @abstractmethod
    def draw(self, encoded: Any, n: int, *, temperature: float = 1.0, generator: torch.Generator) -> Tensor:
        """N actions for each observation, (B, N, H, A), inside the bounds; `generator` is the only randomness."""

    @abstractmethod
    def log_prob(self, encoded: Any, actions: Tensor) -> Tensor:
        """Log-probabilities or, of diffusion, a lower bound, of actions (B, N, H, A): (B, N, T), or (B, N, 1) where
        they do not fall apart by number. Densities are per unit of action; tokens have probabilities."""

    @abstractmethod
    def loss(self, observations: Observations, actions: Tensor, *, weight: Tensor | None = None) -> Result:
        """The supervised loss of one action (B, H, A) for each observation; weight (B,) multiplies each term."""

    def acting(self) -> nn.Module:
        """The module that `encode` and `draw` run: the average of what learns, where there is one."""
        return self.average.module if self.average else self.module

    def after_step(self, step: int) -> None:
        """What has to follow each step of `fit` (its `after_step`): the average moves."""
        if self.average:
            self.average.update()

    def state(self) -> dict[str, Tensor]:
        """What `after_step` changes (`fit`'s `state`)."""
        return self.average.tensors("ema") if self.average else {}

    def fingerprint(self) -> str:
        """A hash of the weights that act: equal where nothing was learned in between."""
        digest = hashlib.sha256()
        for name, value in self.acting().state_dict().items():
            flat = value.detach().cpu().contiguous().reshape(-1)
            digest.update(name.encode() + flat.view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def act(
        self, observations: Observations, n: int = 1, *, temperature: float = 1.0, generator: torch.Generator
    ) -> Tensor:
        """N actions for each observation, (B, N, H, A), without gradients and with dropout off."""
        with torch.no_grad(), evaluating(self.acting()):
            return self.draw(self.encode(observations), n, temperature=temperature, generator=generator)

    def sample(
        self, inputs: Sequence[Observations], n: int, *, temperature: float = 1.0, generator: torch.Generator
    ) -> Samples:
        """The library's own form of `act`: inputs are single observations, outputs actions (H, A)."""
        actions = self.act(stack(inputs), n, temperature=temperature, generator=generator)
        return Samples(inputs=list(inputs), outputs=list(actions.flatten(0, 1)), n=n)

    def logp(self, samples: Samples) -> tuple[Tensor, Tensor]:
        """(B*N, T) log-probabilities of samples and their mask, dropout off; see `log_prob`."""
        actions = torch.stack(list(samples.outputs)).unflatten(0, (len(samples.inputs), samples.n))
        with evaluating(self.acting()):
            values = self.log_prob(self.encode(stack(samples.inputs)), actions).flatten(0, 1)
        return values, torch.ones_like(values, dtype=torch.bool)


class NetworkPolicy(ActionPolicy):
    """An encoder of observations and a head that makes the action; see `actions.build.build`.

    The head works on numbers in [-1, 1]; this class does bounds, chunks and averaged weights (ema: the rate at which
    they follow, 0 for none; PA-RL's release has 0.002; rise: see `Polyak`). With an average, that is what acts.
    """

    def __init__(
        self, encoder: nn.Module, head: Any, space: ActionSpace, *, ema: float = 0.0, rise: float = 1.0
    ) -> None:
        self.module = nn.ModuleDict({"encoder": encoder, "head": head})
        self.space = space
        self.average = Polyak(self.module, ema, rise=rise) if ema else None

    def encode(self, observations: Observations) -> Tensor:
        """Features (B, F)."""
        return self.acting()["encoder"](observations)  # type: ignore[index, operator]

    def draw(
        self, encoded: Tensor, n: int, *, temperature: float = 1.0, generator: torch.Generator
    ) -> Tensor:
        """See `ActionPolicy.draw`."""
        if n < 1 or not temperature >= 0:
            raise HeedfulError(
                f"n must be at least 1 and temperature 0 or more; they are {n} and {temperature}"
            )
        head: Any = self.acting()["head"]  # type: ignore[index]
        return self.space.from_unit(head.draw(encoded, n, temperature=temperature, generator=generator))

    def log_prob(self, encoded: Tensor, actions: Tensor) -> Tensor:
        """See `ActionPolicy.log_prob`."""
        head: Any = self.acting()["head"]  # type: ignore[index]
        values = head.log_prob(encoded, self.space.to_unit(actions))
        if not head.continuous:
            return values
        low, high = self.space.bounds(values)
        scale = ((high - low) / 2).log().repeat(self.space.horizon)
        return values - (scale if values.shape[-1] == self.space.numbers else scale.sum())

    def loss(self, observations: Observations, actions: Tensor, *, weight: Tensor | None = None) -> Result:
        """See `ActionPolicy.loss`; this is the module that learns, never its average."""
        features = self.module["encoder"](observations)  # type: ignore[index, operator]
        head: Any = self.module["head"]  # type: ignore[index]
        return head.loss(features, self.space.to_unit(actions), weight=weight)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Inside, dropout and augmentation are off."""
    learning = [part for part in module.modules() if part.training]
    if learning:  # a policy that acts is asked many times a second, and is already as it should be
        module.eval()
    try:
        yield
    finally:
        for part in learning:
            part.training = True


def stack(observations: Sequence[Observations]) -> dict[str, Any]:
    """Single observations as a batch: tensors get a leading dimension, texts become a list.

    Raises HeedfulError when they do not all have the same names.
    """
    if not observations:
        raise HeedfulError("there are no observations")
    names = list(observations[0])
    for i, observation in enumerate(observations):
        if list(observation) != names:
            raise HeedfulError(
                f"observation {i} has {', '.join(observation)}; the first has {', '.join(names)}"
            )
    columns = {name: [observation[name] for observation in observations] for name in names}
    return {
        name: c if isinstance(c[0], str) else torch.stack([torch.as_tensor(v) for v in c])
        for name, c in columns.items()
    }


def size(observations: Observations) -> int:
    """B. Raises HeedfulError when the parts differ in it, or there is none."""
    sizes = {name: len(value) for name, value in observations.items()}
    if not sizes or len(set(sizes.values())) > 1:
        raise HeedfulError(f"observations have different numbers of rows: {sizes or 'none'}")
    return next(iter(sizes.values()))


def rows(observations: Observations, index: Sequence[int] | Tensor) -> dict[str, Any]:
    """Some of B observations, in the order of `index`."""
    places = torch.as_tensor(index)
    return {
        name: value[places] if isinstance(value, Tensor) else [value[int(i)] for i in places]
        for name, value in observations.items()
    }
