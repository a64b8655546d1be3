"""The optimiser's pieces, each with a state that is plain tensors: AdamW, the schedule, averaged weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from heedful.errors import HeedfulError

Groups = Callable[[nn.Module], Sequence[dict[str, Any]]]


def lr_factor(schedule: str, step: int, total: int, warmup: float) -> float:
    """What the learning rate is multiplied with at `step` (from 0) of `total`.

    warmup: steps, or a share of all steps when below 1 (rounded up, and less than all of them, so that a run of one
    step learns). The values are those of transformers' `get_{constant,linear,cosine}_schedule_with_warmup` with as
    many steps: 0 at step 0 of a warm-up, 0 after the last step.
    """
    rise = min(math.ceil(warmup * total), total - 1) if warmup < 1 else int(warmup)
    if step < rise:
        return step / max(1, rise)
    if schedule == "constant":
        return 1.0
    done = (step - rise) / max(1, total - rise)
    if schedule == "linear":
        return max(0.0, 1.0 - done)
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * done)))


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters with gradients, by name. Raises `HeedfulError` when there are none."""
    found = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if not found:
        raise HeedfulError("the model has no trainable parameter: every requires_grad is False")
    return found


def running_buffers(module: nn.Module) -> dict[str, Tensor]:
    """Stored buffers of submodules that train, such as a batch norm's running mean: they move in training."""
    stored = module.state_dict(keep_vars=True)
    return {
        f"{prefix}.{name}" if prefix else name: buffer
        for prefix, part in module.named_modules()
        if any(p.requires_grad for p in part.parameters(recurse=False))
        for name, buffer in part.named_buffers(recurse=False)
        if (f"{prefix}.{name}" if prefix else name) in stored
    }


def make_optimizer(
    module: nn.Module,
    params: Mapping[str, nn.Parameter],
    groups: Groups | None,
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> torch.optim.AdamW:
    """AdamW over `params`: decoupled weight decay (Loshchilov & Hutter 2019) on matrices, not on vectors.

    groups(module) may give the groups instead, each a dict with "params" and any of lr, weight_decay, betas,
    eps. Raises `HeedfulError` when they do not hold each trainable parameter once.
    """
    if groups is None:
        parts: list[dict[str, Any]] = [
            {"params": [p for p in params.values() if p.ndim >= 2]},
            {"params": [p for p in params.values() if p.ndim < 2], "weight_decay": 0.0},
        ]
    else:
        parts = [{**part, "params": list(part["params"])} for part in groups(module)]
    given = [id(p) for part in parts for p in part["params"]]
    lacking = [name for name, p in params.items() if given.count(id(p)) != 1]
    frozen = set(given) - {id(p) for p in params.values()}
    if lacking or frozen:
        what = f"hold {', '.join(lacking[:5])} not exactly once" if lacking else "hold frozen parameters"
        raise HeedfulError(f"the parameter groups {what}: each trainable parameter belongs to one group")
    parts = [part for part in parts if part["params"]]
    optimizer = torch.optim.AdamW(parts, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=True)
    for group in optimizer.param_groups:
        group["peak_lr"] = group["lr"]
    return optimizer


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Every group's learning rate at `factor` of its peak; returns the first group's."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
    return optimizer.param_groups[0]["lr"]


def optimizer_tensors(
    optimizer: torch.optim.Optimizer, params: Mapping[str, nn.Parameter]
) -> dict[str, Tensor]:
    """The optimiser's state as `exp_avg/<parameter>` and the like; a parameter never reached has none."""
    return {
        f"{key}/{name}": value
        for name, p in params.items()
        for key, value in optimizer.state.get(p, {}).items()
    }


def load_optimizer(
    optimizer: torch.optim.Optimizer, params: Mapping[str, nn.Parameter], stored: Mapping[str, Tensor]
) -> None:
    """Put what `optimizer_tensors` gave back, each on its parameter's device."""
    for slot, value in stored.items():
        key, name = slot.split("/", 1)
        optimizer.state[params[name]][key] = value.to(params[name].device)


class Average:
    """The exponential moving average of weights, `decay * average + (1 - decay) * weight` after every step.

    The decay of step t is at most (1 + t) / (10 + t), so that the start does not weigh on a short run
    (tf.train.ExponentialMovingAverage, `num_updates`).
    """

    def __init__(self, params: Mapping[str, nn.Parameter], decay: float) -> None:
        self.decay, self.params = decay, params
        self.weights = {name: p.detach().clone() for name, p in params.items()}

    def update(self, step: int) -> None:
        """Take in the weights after `step` steps."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, p in self.params.items():
            self.weights[name].lerp_(p.detach(), 1 - decay)

    def swap(self) -> None:
        """Exchange weights and average; a second call undoes the first."""
        for name, p in self.params.items():
            held = p.detach().clone()
            p.detach().copy_(self.weights[name])
            self.weights[name].copy_(held)
