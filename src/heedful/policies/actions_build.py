"""Policies by name: built from a seed, saved to a folder, loaded from one.

config.json says what it is made of; model.safetensors holds the weights, and average.safetensors those that act where
they are averaged.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from heedful.atomic import write_folder
from heedful.errors import HeedfulError
from heedful.model_folder import read_json
from heedful.policies.actions import ActionSpace, NetworkPolicy
from heedful.policies.actions_diffusion import DiffusionHead
from heedful.policies.actions_flow import FlowHead
from heedful.policies.actions_gaussian import GaussianHead
from heedful.policies.actions_observe import ObservationEncoder, ObservationSpace
from heedful.policies.actions_tokens import TokenHead

HEADS = {"gaussian": GaussianHead, "diffusion": DiffusionHead, "flow": FlowHead, "tokens": TokenHead}
FORMAT = "heedful-action-policy"


@dataclass(frozen=True)
class Making:
    """What a policy is made of. head, encoder: options of the head's class and of `ObservationEncoder`."""

    kind: str
    observations: ObservationSpace
    actions: ActionSpace
    head: Mapping[str, Any] = field(default_factory=dict)
    encoder: Mapping[str, Any] = field(default_factory=dict)
    ema: float = 0.0


def build(making: Making, *, seed: int = 0) -> NetworkPolicy:
    """A new policy; its weights are a function of the seed alone.

    Raises HeedfulError for an unknown kind and for options that the head or the encoder does not have.
    """
    if making.kind not in HEADS:
        raise HeedfulError(f"there is no policy {making.kind!r}; choose {', '.join(HEADS)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            encoder = ObservationEncoder(making.observations, **making.encoder)
            head = HEADS[making.kind](encoder.features, making.actions.numbers, **making.head)
        except HeedfulError:
            raise
        except (TypeError, ValueError) as error:
            raise HeedfulError(
                f"a {making.kind} policy cannot be made with these options: {error}"
            ) from error
    return NetworkPolicy(encoder, head, making.actions, ema=making.ema)


def save(policy: NetworkPolicy, making: Making, folder: str | Path) -> Path:
    """Write a policy that `load` reads back; a folder that is there is replaced."""
    target = Path(folder)

    def fill(beside: Path) -> None:
        text = json.dumps({"format": FORMAT, **asdict(making)}, indent=1)
        (beside / "config.json").write_text(text + "\n", encoding="utf-8")
        save_file(_own(policy.module), beside / "model.safetensors")
        if policy.average:
            save_file(_own(policy.average.module), beside / "average.safetensors")

    write_folder(target, fill)
    return target


def load(folder: str | Path) -> tuple[NetworkPolicy, Making]:
    """A policy that `save` wrote, and what it is made of.

    Raises HeedfulError when the folder holds none, or weights of another.
    """
    path = Path(folder)
    said = read_json(path / "config.json")
    if said.pop("format", None) != FORMAT:
        raise HeedfulError(
            f"{path} holds no action policy of heedful's (config.json has no format {FORMAT!r})"
        )
    try:
        seen, space = said.pop("observations"), said.pop("actions")
        observations = ObservationSpace(
            {name: tuple(shape) for name, shape in seen["shapes"].items()},
            {name: tuple(values) for name, values in seen["mean"].items()},
            {name: tuple(values) for name, values in seen["std"].items()},
        )
        actions = ActionSpace(tuple(space["low"]), tuple(space["high"]), space["horizon"])
        making = Making(observations=observations, actions=actions, **said)
    except (KeyError, TypeError, AttributeError) as error:
        raise HeedfulError(f"{path / 'config.json'} is damaged: {error}; save the policy again") from error
    policy = build(making)
    parts = [(policy.module, "model")] + ([(policy.average.module, "average")] if policy.average else [])
    for module, name in parts:
        file = path / f"{name}.safetensors"
        try:
            missing, unexpected = module.load_state_dict(load_file(file), strict=False)
        except (OSError, SafetensorError, RuntimeError) as error:
            raise HeedfulError(f"cannot read {file}: {str(error).splitlines()[0]}") from error
        wrong = unexpected or [key for key in missing if ".frozen." not in key]
        if wrong:
            raise HeedfulError(f"{file} is of another policy: {', '.join(sorted(wrong)[:3])}")
    return policy, making


def _own(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Its tensors but those of a frozen encoder, which lies in a folder of its own."""
    return {k: v.detach().cpu().contiguous() for k, v in module.state_dict().items() if ".frozen." not in k}
