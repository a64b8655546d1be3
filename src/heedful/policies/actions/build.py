"""Policies by name: built from a seed, saved to a folder, loaded from one.

config.json says what it is made of; model.safetensors holds the weights, and average.safetensors those that act where
they are averaged.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from heedful.atomic import write_folder
from heedful.errors import HeedfulError
from heedful.model_folder import read_json
from heedful.policies.actions import ActionSpace, NetworkPolicy
from heedful.policies.actions import act as actions_act
from heedful.policies.actions import unet as actions_unet
from heedful.policies.actions.chunks import ChunkPolicy, bound_numbers
from heedful.policies.actions.diffusion import DiffusionHead
from heedful.policies.actions.flow import FlowHead
from heedful.policies.actions.gaussian import GaussianHead
from heedful.policies.actions.numbers import ActionNumbers
from heedful.policies.actions.observe import ObservationEncoder, ObservationSpace
from heedful.policies.actions.task import TaskEncoder
from heedful.policies.actions.tokens import TokenHead

HEADS = {"gaussian": GaussianHead, "diffusion": DiffusionHead, "flow": FlowHead, "tokens": TokenHead}
CHUNK_HEADS = {"act": actions_act.ActHead, "unet": actions_unet.UNetHead}
"""Those that follow commands: a `TaskEncoder`'s scenes to chunks."""
FORMAT = "heedful-action-policy"
Size = Literal["laptop", "paper"]


@dataclass(frozen=True)
class Making:
    """What a policy is made of. head, encoder: options of the head's class and of `ObservationEncoder`, or
    `TaskEncoder` for those of `CHUNK_HEADS`. numbers: what those predict in place of actions."""

    kind: str
    observations: ObservationSpace
    actions: ActionSpace
    head: Mapping[str, Any] = field(default_factory=dict)
    encoder: Mapping[str, Any] = field(default_factory=dict)
    ema: float = 0.0
    numbers: ActionNumbers | None = None


def build(making: Making, *, seed: int = 0) -> NetworkPolicy:
    """A new policy; its weights are a function of the seed alone.

    Raises HeedfulError for an unknown kind and for options that the head or the encoder does not have.
    """
    chunks = making.kind in CHUNK_HEADS
    if not chunks and making.kind not in HEADS:
        raise HeedfulError(f"there is no policy {making.kind!r}; choose {', '.join((*HEADS, *CHUNK_HEADS))}")
    if making.numbers is not None and not chunks:
        raise HeedfulError(
            f"a {making.kind} policy works on actions between their bounds; numbers are for {', '.join(CHUNK_HEADS)}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            if chunks:
                return _chunk_policy(making)
            encoder = ObservationEncoder(making.observations, **making.encoder)
            head = HEADS[making.kind](encoder.features, making.actions.numbers, **making.head)
        except HeedfulError:
            raise
        except (TypeError, ValueError) as error:
            raise HeedfulError(
                f"a {making.kind} policy cannot be made with these options: {error}"
            ) from error
    return NetworkPolicy(encoder, head, making.actions, ema=making.ema)


def act_making(
    observations: ObservationSpace,
    actions: ActionSpace,
    numbers: ActionNumbers,
    *,
    size: Size = "laptop",
    sentences: str = "minilm",
    **encoder: Any,
) -> Making:
    """ACT that follows commands. numbers: `z_scores` of the data. sentences: the sentence encoder, a folder with
    DistilBERT at the size "paper". encoder: further options of `TaskEncoder`.

    paper: Yell At Your Robot's, EfficientNet-B3 included; laptop: small convolutions and small transformers.
    """
    _check_size(size)
    seen = {"images": "efficientnet", "pooling": "cls"} if size == "paper" else {"images": "conv"}
    head = actions_act.PAPER if size == "paper" else actions_act.LAPTOP
    chosen = {**seen, "film": True, "crop": 0.95, "sentences": sentences, **encoder}
    return Making("act", observations, actions, head, chosen, numbers=numbers)


def unet_making(
    observations: ObservationSpace,
    actions: ActionSpace,
    numbers: ActionNumbers,
    *,
    size: Size = "laptop",
    sentences: str = "minilm",
    ema: float = 1e-4,
    **encoder: Any,
) -> Making:
    """Diffusion that follows commands. numbers: `ranges` of the data. sentences, encoder: as in `act_making`.

    paper: DROID's, ResNet-50 included, whose sentence vector is the sum over tokens; laptop: small convolutions. ema:
    the rate of averaging that n^-0.75 of the n-th step comes down to.
    """
    _check_size(size)
    seen = {"images": "resnet", "pooling": "sum"} if size == "paper" else {"images": "conv"}
    head = actions_unet.PAPER if size == "paper" else actions_unet.LAPTOP
    chosen = {**seen, "film": False, "crop": 116 / 128, "jitter": {}, "sentences": sentences, **encoder}
    return Making("unet", observations, actions, head, chosen, ema, numbers)


def _check_size(size: str) -> None:
    if size not in ("laptop", "paper"):
        raise HeedfulError(f"there is no size {size!r}; choose laptop or paper")


def _chunk_policy(making: Making) -> ChunkPolicy:
    numbers = making.numbers or bound_numbers(making.actions)
    encoder = TaskEncoder(making.observations, **making.encoder)
    head = CHUNK_HEADS[making.kind](encoder, making.actions.horizon, numbers.size, **making.head)
    return ChunkPolicy(encoder, head, making.actions, numbers=numbers, ema=making.ema)


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
        numbers = said.pop("numbers", None)
        observations = ObservationSpace.from_json(seen)
        actions = ActionSpace(tuple(space["low"]), tuple(space["high"]), space["horizon"])
        stand_in = None if numbers is None else ActionNumbers.from_json(numbers)
        making = Making(observations=observations, actions=actions, numbers=stand_in, **said)
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
