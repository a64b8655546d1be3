"""The reference of a round: the start model, the policy as it is, or a moving average of the rounds' policies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from heedful.errors import HeedfulError
from heedful.optimise import trainable
from heedful.policies.language import LanguagePolicy
from heedful.policies.objectives import Reference
from heedful.run import Run

if TYPE_CHECKING:
    from heedful.recipes.prefer import Config


def referring(cfg: Config, policy: LanguagePolicy, r: int, run: Run) -> Reference:
    """The context in which the policy is the reference of round r, to be asked for at the round's start.

    The moving average (Gorbatovski et al. 2024, TR-DPO, soft update) is kept as round<r>/reference.safetensors.
    """
    if cfg.reference == "start":
        return policy.reference
    if cfg.reference == "refresh":
        return nullcontext
    params = trainable(policy.module)

    def make() -> dict[str, Tensor]:
        now = {name: p.detach().float().cpu() for name, p in params.items()}
        if r == 0:
            return now
        before = run.once(_name(r - 1), partial(_missing, r - 1))
        return {name: before[name].lerp(weights, 1 - cfg.reference_decay) for name, weights in now.items()}

    kept = run.once(_name(r), make)
    if r > 1 and run.rank == 0:
        run.path(_name(r - 2)).unlink(missing_ok=True)
    return partial(borrowed, policy.module, kept)


@contextmanager
def borrowed(module: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside, the module's trainable parameters have these values."""
    own = {name: p.data for name, p in trainable(module).items()}
    try:
        for name, p in trainable(module).items():
            p.data = weights[name].to(p.device, p.dtype)
        yield
    finally:
        for name, p in trainable(module).items():
            p.data = own[name]


def _name(r: int) -> str:
    return f"round{r}/reference.safetensors"


def _missing(r: int) -> Any:
    raise HeedfulError(f"{_name(r)} is missing from the run folder; start the run anew in another one")
