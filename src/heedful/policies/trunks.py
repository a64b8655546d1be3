"""Networks from images to maps of features, with language mixed in by FiLM (Perez et al. 2018).

    conv          four strided convolutions, for a laptop
    resnet        ResNet-50 (DROID's policy)
    efficientnet  EfficientNet-B3 (Yell At Your Robot's)

The latter two are transformers' own, new or from a folder. FiLM stands after every convolution, stage or block; it
begins as the identity, so that a pretrained network is not disturbed (RT-1, Brohan et al. 2022).

Letters: M images, C channels, E numbers of an embedded sentence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from heedful import hub
from heedful.errors import HeedfulError
from heedful.policies.actions.observe import IMAGENET

Kind = Literal["conv", "resnet", "efficientnet"]
KINDS = ("conv", "resnet", "efficientnet")
B3: Mapping[str, Any] = {
    "width_coefficient": 1.2,
    "depth_coefficient": 1.4,
    "hidden_dim": 1536,
    "image_size": 300,
    "dropout_rate": 0.3,
    "depthwise_padding": [5, 18],
}
"""What tells EfficientNet-B3 from transformers' default, which is B7."""
EARLY = 1
"""The stage after which keypoints are looked for, or the last."""
PER_GROUP = 16
"""Channels of a group where a batch norm becomes a group norm, as in diffusion policies' code."""


class Film(nn.Module):
    """x (1 + gamma(e)) + beta(e), by channel; gamma and beta are linear in e and begin at 0."""

    def __init__(self, language: int, channels: int) -> None:
        super().__init__()
        self.layer = nn.Linear(language, 2 * channels)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, x: Tensor, sentence: Tensor) -> Tensor:
        """x (M, C, h, w), sentence (M, E)."""
        gamma, beta = self.layer(sentence)[..., None, None].chunk(2, 1)
        return x * (1 + gamma) + beta


class Keypoints(nn.Module):
    """Where P learned features are in a map: the mean place of each under a softmax over places (Levine et al. 2016,
    arXiv 1504.00702): small networks learn from fewer scenes where a thing is than they do from the map."""

    def __init__(self, channels: int, points: int) -> None:
        super().__init__()
        self.features = nn.Conv2d(channels, points, 1)
        self.sharpness = nn.Parameter(torch.zeros(()))

    def forward(self, maps: Tensor) -> Tensor:
        """(M, C, h, w) -> (M, 2 P): columns, then rows, in [-1, 1]."""
        m, _, h, w = maps.shape
        there = (self.features(maps).flatten(2) * self.sharpness.exp()).softmax(-1).view(m, -1, h, w)
        columns, rows = (torch.linspace(-1, 1, n, device=maps.device, dtype=there.dtype) for n in (w, h))
        return torch.cat([there.sum(2) @ columns, there.sum(3) @ rows], -1)


class Trunk(nn.Module):
    """Images (M, C, H, W) in [0, 1] to maps (M, channels, h, w). language: E, or 0 for no FiLM.

    pretrained: a folder or Hub id of a ResNet or EfficientNet; hub: fields of their configuration, for a new one. norm:
    what becomes of their batch norms; "group" replaces them, so that a row's result depends on that row alone, and
    "frozen" keeps their running means (DETR), for pretrained ones. points: how many keypoints `located` finds, 0: none,
    for conv. Images are normalised here and nowhere else.
    """

    centre: Tensor
    spread: Tensor

    def __init__(
        self,
        kind: Kind,
        colours: int,
        *,
        language: int = 0,
        widths: Sequence[int] = (32, 64, 64, 64),
        pretrained: str = "",
        hub: Mapping[str, Any] | None = None,
        norm: Literal["group", "frozen"] = "group",
        points: int = 0,
    ) -> None:
        super().__init__()
        if kind not in KINDS or norm not in ("group", "frozen"):
            raise HeedfulError(
                f"there is no image network {kind!r} with {norm!r} norms; choose {', '.join(KINDS)} and group or frozen"
            )
        self.kind, self.norm = kind, norm
        if kind == "conv":
            if pretrained or hub:
                raise HeedfulError("the image network conv is always new: pretrained is for the others")
            self.stem: nn.Module = nn.Identity()
            self.stages = nn.ModuleList(_convolution(a, b) for a, b in pairwise((colours, *widths)))
            self.end: nn.Module = nn.Identity()
            wide = list(widths)
            centre, spread = (0.5,) * colours, (1.0,) * colours
        else:
            if colours != 3:
                raise HeedfulError(f"the image network {kind} takes images of 3 colours, not {colours}")
            model = _from_hub(kind, pretrained, hub or {})
            if norm == "group":
                _replace_batch_norms(model)
            self.stem = model.embedder if kind == "resnet" else model.embeddings
            self.stages = nn.ModuleList(model.encoder.stages if kind == "resnet" else model.encoder.blocks)
            tops = () if kind == "resnet" else ("top_conv", "top_bn", "top_activation")
            self.end = nn.Sequential(*(getattr(model.encoder, name) for name in tops))
            wide = _channels(self.stem, self.stages)
            centre, spread = IMAGENET
        self.films = nn.ModuleList(Film(language, c) for c in wide) if language else None
        if points and kind != "conv":
            raise HeedfulError(f"keypoints are for the image network conv, not {kind}")
        self.early = min(EARLY, len(wide) - 1)
        self.points = Keypoints(wide[self.early], points) if points else None
        self.register_buffer("centre", torch.tensor(centre)[:, None, None], persistent=False)
        self.register_buffer("spread", torch.tensor(spread)[:, None, None], persistent=False)

    def train(self, mode: bool = True) -> Trunk:
        """Frozen batch norms stay as they are."""
        super().train(mode)
        if self.norm == "frozen":
            for part in self.modules():
                if isinstance(part, nn.BatchNorm2d):
                    part.eval()
        return self

    def forward(self, images: Tensor, sentence: Tensor | None = None) -> Tensor:
        """sentence (M, E); None leaves FiLM out, which then is the identity."""
        return self.located(images, sentence)[0]

    def located(self, images: Tensor, sentence: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Maps, and (M, 2 * points) places of what an early map, of a quarter of the resolution, shows."""
        x = self.stem((images - self.centre) / self.spread)
        places = x.new_zeros(len(x), 0)
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if self.films is not None and sentence is not None:
                x = self.films[i](x, sentence)
            if self.points is not None and i == self.early:
                places = self.points(x)
        return self.end(x), places

    def shape(self, colours: int, height: int, width: int) -> tuple[int, int, int]:
        """(channels, h, w) of the map of an image. Raises HeedfulError when the image is too small."""
        modes = {part: part.training for part in self.modules()}
        self.eval()
        try:
            with torch.no_grad():
                c, h, w = self(torch.zeros(1, colours, height, width)).shape[1:]
        except RuntimeError as error:
            raise HeedfulError(
                f"the image network {self.kind} cannot read images of {height} x {width}"
            ) from error
        finally:
            for part, mode in modes.items():
                part.training = mode
        return c, h, w


def _convolution(inner: int, outer: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inner, outer, 3, stride=2, padding=1),
        nn.GroupNorm(_groups(outer, outer // 8), outer),
        nn.SiLU(),
    )


def _from_hub(kind: str, pretrained: str, fields: Mapping[str, Any]) -> Any:
    from transformers import EfficientNetConfig, EfficientNetModel, ResNetConfig, ResNetModel

    if pretrained:
        if fields:
            raise HeedfulError("a pretrained image network has its own configuration: leave hub out")
        model = hub.load_model(pretrained, kind="vision")
        if model.config.model_type != kind:
            raise HeedfulError(f"{pretrained} is a {model.config.model_type}, not a {kind}")
        return model.train()
    if kind == "resnet":
        return ResNetModel(ResNetConfig(**fields))
    return EfficientNetModel(EfficientNetConfig(**{**B3, **fields}))


def _channels(stem: nn.Module, stages: nn.ModuleList) -> list[int]:
    """Channels after each stage, found with an image of zeros, without moving a running mean."""
    modes = {part: part.training for top in (stem, stages) for part in top.modules()}
    try:
        stem.eval()
        stages.eval()
        wide = []
        with torch.no_grad():
            x = stem(torch.zeros(1, 3, 64, 64))
            for stage in stages:
                x = stage(x)
                wide.append(x.shape[1])
    finally:
        for part, mode in modes.items():
            part.training = mode
    return wide


def _replace_batch_norms(module: nn.Module) -> None:
    for name, part in list(module.named_children()):
        if isinstance(part, nn.BatchNorm2d):
            count = part.num_features
            setattr(module, name, nn.GroupNorm(_groups(count, count // PER_GROUP), count))
        else:
            _replace_batch_norms(part)


def _groups(channels: int, wanted: int) -> int:
    """The largest number of groups, up to `wanted`, that divides the channels."""
    return next(n for n in range(max(1, wanted), 0, -1) if channels % n == 0)
