"""What a policy that follows commands sees: numbers, a sentence, and a map of features of each camera and frame.

Letters: B observations, To frames, S numbers of a frame, E numbers of an embedded sentence, C channels of a map.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from heedful.errors import HeedfulError
from heedful.policies.actions import Observations
from heedful.policies.actions.observe import ObservationSpace
from heedful.policies.augment import Jitter, cropped, jittered
from heedful.policies.sentences import WORDS, Pooling, Sentences
from heedful.policies.trunks import Kind, Trunk


@dataclass(frozen=True)
class Scene:
    """B observations, encoded. numbers (B, To * S), normalised; language (B, E); maps: (B, To, C, h, w) by camera;
    points: (B, To, 2 P) by camera, P may be 0."""

    numbers: Tensor
    language: Tensor
    maps: dict[str, Tensor]
    points: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.numbers)


class TaskEncoder(nn.Module):
    """Observations to a `Scene`. Each camera has an image network of its own, which all frames of a history share.

    images: see `trunks`; network: further options of `Trunk`. film: whether sentences enter the images too. sentences,
    pooling: see `sentences`; those of unit length are multiplied by sqrt(E), so that their numbers are as large as the
    others. "" is for policies without commands, whose observations then need no "task". crop: the share
    of each side that is cut out, at random while learning and the middle otherwise (DROID 116/128; ACT 0.95). jitter:
    of colours, as `Jitter`; None for none.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        space: ObservationSpace,
        *,
        images: Kind = "conv",
        film: bool = True,
        sentences: str = WORDS,
        pooling: Pooling = "mean",
        crop: float = 1.0,
        jitter: Mapping[str, float] | None = None,
        network: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not 0 < crop <= 1:
            raise HeedfulError(f"crop is a share of each side, above 0 and at most 1; it is {crop}")
        self.space, self.crop = space, crop
        self.jitter = None if jitter is None else Jitter(**jitter)
        self.sentences = Sentences(sentences, pooling) if sentences else None
        self.language = self.sentences.size if self.sentences else 0
        self.names = [name for name, shape in space.shapes.items() if len(shape) == 1]
        self.cameras = [name for name, shape in space.shapes.items() if len(shape) == 3]
        if not self.names and not self.cameras:
            raise HeedfulError("an observation needs numbers or an image")
        values = {
            what: [v for n in self.names for v in given.get(n, (default,) * space.shapes[n][0])]
            for what, given, default in (("mean", space.mean, 0.0), ("std", space.std, 1.0))
        }
        self.register_buffer("mean", torch.tensor(values["mean"]))
        self.register_buffer("std", torch.tensor(values["std"]).clamp(min=1e-6))
        trunks = [
            Trunk(images, space.shapes[name][0], language=self.language if film else 0, **(network or {}))
            for name in self.cameras
        ]
        self.trunks: Any = nn.ModuleList(trunks)
        self.maps = {
            name: trunk.shape(space.shapes[name][0], *self._cut(name))
            for name, trunk in zip(self.cameras, trunks, strict=True)
        }
        """(C, h, w) of each camera's map."""
        self.places = 2 * int((network or {}).get("points", 0))
        """2 P, of each camera and frame."""
        self.numbers = len(values["mean"]) * space.history
        """To * S."""

    def forward(self, observations: Observations) -> Scene:
        """Raises HeedfulError for what `ObservationSpace.check` refuses, and for a missing "task"."""
        self.space.check(observations)
        device = self.mean.device
        count = len(observations[next(iter(self.space.shapes))])
        language = self._said(observations, count).to(device)
        seen = [self.space.frames(observations, name).to(self.mean) for name in self.names]
        numbers = (torch.cat(seen, -1) - self.mean) / self.std if seen else torch.zeros(count, 1, 0)
        seen = self._seen(observations, language if self.sentences else None)
        return Scene(numbers.flatten(1).to(device), language, *seen)

    def features(self, observations: Observations) -> dict[str, Tensor]:
        """Each camera's maps and keypoints without any sentence, (B, To, C * h * w + 2 P): what another policy can see
        with these eyes."""
        self.space.check(observations)
        maps, points = self._seen(observations, None)
        return {name: torch.cat([maps[name].flatten(2), points[name]], -1) for name in maps}

    def _said(self, observations: Observations, count: int) -> Tensor:
        if self.sentences is None:
            return torch.zeros(count, 0)
        if "task" not in observations:
            raise HeedfulError(
                f'observations lack "task", a command each; they have {", ".join(observations)}'
            )
        if len(observations["task"]) != count:
            raise HeedfulError(f"there are {len(observations['task'])} commands for {count} observations")
        vectors = self.sentences(observations["task"])
        return vectors * self.language**0.5 if self.sentences.pooling == "mean" else vectors

    def _seen(
        self, observations: Observations, language: Tensor | None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        maps, points = {}, {}
        for name, trunk in zip(self.cameras, self.trunks, strict=True):
            images = self.space.frames(observations, name).to(self.mean.device)
            images = cropped(images, *self._cut(name), random=self.training).div(255).float()
            if self.training and self.jitter:
                images = jittered(images, self.jitter)
            sentence = None if language is None else language.repeat_interleave(images.shape[1], 0)
            found = trunk.located(images.flatten(0, 1), sentence)
            maps[name], points[name] = (part.unflatten(0, images.shape[:2]) for part in found)
        return maps, points

    def _cut(self, name: str) -> tuple[int, int]:
        _, height, width = self.space.shapes[name]
        return max(1, round(self.crop * height)), max(1, round(self.crop * width))


class SceneVector(nn.Module):
    """A scene as one vector (B, F): `size` numbers of each camera's map and frame, then everything through an MLP.

    DROID's policy: 512 of each image, an MLP of 1024, 512 and 512; its sentences are not projected first.
    """

    def __init__(self, encoder: TaskEncoder, *, size: int = 64, hidden: tuple[int, ...] = (256, 128)) -> None:
        super().__init__()
        self.images = nn.ModuleDict(
            {_key(i): nn.Linear(c * h * w, size) for i, (c, h, w) in enumerate(encoder.maps.values())}
        )
        frames = encoder.space.history * len(encoder.maps)
        wide = encoder.numbers + encoder.language + (size + encoder.places) * frames
        layers: list[nn.Module] = []
        for inner, outer in zip((wide, *hidden), hidden):
            layers += [nn.Linear(inner, outer), nn.SiLU()]
        self.layers = nn.Sequential(*layers)
        self.features = hidden[-1] if hidden else wide

    def forward(self, scene: Scene) -> Tensor:
        """(B, F)."""
        seen = [
            self.images[_key(i)](maps.flatten(2)).flatten(1) for i, maps in enumerate(scene.maps.values())
        ]
        places = [points.flatten(1) for points in scene.points.values()]
        return self.layers(torch.cat([scene.numbers, scene.language, *seen, *places], -1))


def _key(index: int) -> str:
    """Names of cameras have dots, which a module's name must not have."""
    return f"camera_{index}"
