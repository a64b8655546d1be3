"""From observations to features: numbers as they are (normalised), images through a small CNN or a frozen encoder.

Letters: B observations, To frames of a history, S numbers of a state, F features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heedful import hub
from heedful.errors import HeedfulError
from heedful.model_folder import read_json
from heedful.policies.actions import Observations

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and std of each colour that a vision model is given where its folder does not say."""


@dataclass(frozen=True)
class ObservationSpace:
    """What an observation is made of: (S,) for numbers, (C, H, W) for an image as uint8; "task" has no shape.

    mean and std, (S,) each, normalise numbers; a name without them is taken as it is. history: To, the newest frames
    that an observation holds, oldest first; above 1 every name has one more axis for it, (To, S) or (To, C, H, W).
    """

    shapes: Mapping[str, tuple[int, ...]]
    mean: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    std: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    history: int = 1

    def __post_init__(self) -> None:
        if self.history < 1:
            raise HeedfulError(f"an observation has at least 1 frame; the history is {self.history}")
        for name, shape in self.shapes.items():
            if len(shape) not in (1, 3) or min(shape) < 1:
                raise HeedfulError(
                    f"observation {name!r} has the shape {tuple(shape)}; numbers are (S,), an image is (C, H, W)"
                )
            for what, given in (("mean", self.mean), ("std", self.std)):
                if name in given and len(given[name]) != shape[0]:
                    raise HeedfulError(
                        f"observation {name!r}: {len(given[name])} values of {what} for {shape[0]}"
                    )

    def check(self, observations: Observations) -> None:
        """Raises HeedfulError when a name is missing, a shape differs, or a number is not finite."""
        for name, shape in self.shapes.items():
            if name not in observations:
                raise HeedfulError(
                    f"observations lack {name!r}; they have {', '.join(observations) or 'nothing'}"
                )
            value = observations[name]
            wanted = tuple(shape) if self.history == 1 else (self.history, *shape)
            if tuple(value.shape[1:]) != wanted:
                raise HeedfulError(
                    f"observation {name!r} has the shape {tuple(value.shape[1:])}; {wanted} is expected"
                )
            if len(shape) == 1 and not value.isfinite().all():
                place = (~value.isfinite()).nonzero()[0].tolist()
                frame = f", frame {place[1]}" if self.history > 1 else ""
                raise HeedfulError(
                    f"observation {name!r}, row {place[0]}{frame}: number {place[-1]} is {float(value[tuple(place)])}"
                )

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> ObservationSpace:
        """The inverse of `dataclasses.asdict`."""
        shapes, mean, std = (
            {name: tuple(values) for name, values in said[part].items()} for part in ("shapes", "mean", "std")
        )
        return cls(shapes, mean, std, said.get("history", 1))

    def frames(self, observations: Observations, name: str) -> Tensor:
        """An observation's frames (B, To, ...), also where To is 1."""
        value = observations[name]
        return value if self.history > 1 else value[:, None]


class ObservationEncoder(nn.Module):
    """Observations to features (B, F): all numbers side by side, and `size` features of each image.

    images "cnn" is a small CNN of its own for each camera; "frozen" a pretrained vision model (`pretrained`: a folder
    or Hub id) whose weights never change, with a learned layer on top. shift: pixels by which images are moved at
    random while training (DrQ, Kostrikov et al. 2021: 4).
    """

    def __init__(
        self,
        space: ObservationSpace,
        *,
        images: Literal["cnn", "frozen"] = "cnn",
        pretrained: str = "",
        size: int = 128,
        shift: int = 0,
    ) -> None:
        super().__init__()
        if space.history > 1:
            raise HeedfulError(
                f"a history of {space.history} frames is read by the policies act and unet, not by this encoder"
            )
        self.space, self.shift = space, shift
        self.numbers = [name for name, shape in space.shapes.items() if len(shape) == 1]
        self.cameras = [name for name, shape in space.shapes.items() if len(shape) == 3]
        for i, name in enumerate(self.numbers):
            count = space.shapes[name][0]
            self.register_buffer(f"mean_{i}", torch.tensor(space.mean.get(name, (0.0,) * count)))
            self.register_buffer(
                f"std_{i}", torch.tensor(space.std.get(name, (1.0,) * count)).clamp(min=1e-6)
            )
        if self.cameras and images == "frozen":
            self.frozen = FrozenVision(pretrained)
            layers = [
                nn.Sequential(nn.Linear(self.frozen.size, size), nn.LayerNorm(size), nn.SiLU())
                for _ in self.cameras
            ]
        else:
            self.frozen = None
            layers = [small_cnn(space.shapes[name][0], size) for name in self.cameras]
        self.vision = nn.ModuleList(layers)
        self.features = sum(space.shapes[name][0] for name in self.numbers) + size * len(self.cameras)
        if not self.features:
            raise HeedfulError("an observation needs numbers or an image")

    def forward(self, observations: Observations) -> Tensor:
        """(B, F) in float32. Raises HeedfulError for what `ObservationSpace.check` refuses."""
        self.space.check(observations)
        parts = []
        for i, name in enumerate(self.numbers):
            mean, std = getattr(self, f"mean_{i}"), getattr(self, f"std_{i}")
            parts.append((observations[name].to(mean) - mean) / std)
        for name, layer in zip(self.cameras, self.vision, strict=True):
            images = observations[name].to(parts[0].device if parts else next(layer.parameters()).device)
            if self.training and self.shift:
                images = shifted(images, self.shift)
            pixels = images.float() / 255
            parts.append(layer(self.frozen(pixels) if self.frozen else pixels - 0.5))
        return torch.cat(parts, -1)


def small_cnn(channels: int, size: int) -> nn.Sequential:
    """Four strided convolutions, the mean over all places, and a layer to `size` features."""
    widths = (channels, 32, 64, 64, 64)
    layers: list[nn.Module] = []
    for i in range(4):
        layers += [
            nn.Conv2d(widths[i], widths[i + 1], 3, stride=2, padding=1),
            nn.GroupNorm(8, widths[i + 1]),
            nn.SiLU(),
        ]
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, size), nn.LayerNorm(size), nn.SiLU()]
    return nn.Sequential(*layers, *pool)


def shifted(images: Tensor, pixels: int) -> Tensor:
    """Images (B, C, H, W), each moved by up to `pixels` in both directions, its edge repeated (DrQ)."""
    b, _, height, width = images.shape
    padded = F.pad(images.float(), (pixels,) * 4, mode="replicate").to(images.dtype)
    top, left = torch.randint(0, 2 * pixels + 1, (2, b)).to(images.device)
    down = top[:, None] + torch.arange(height, device=images.device)
    across = left[:, None] + torch.arange(width, device=images.device)
    which = torch.arange(b, device=images.device)[:, None, None]
    return padded.movedim(1, -1)[which, down[:, :, None], across[:, None, :]].movedim(-1, 1)


class FrozenVision(nn.Module):
    """A pretrained vision model that is only read: images (B, C, H, W) in [0, 1] -> (B, size), without gradients."""

    def __init__(self, name: str) -> None:
        super().__init__()
        if not name:
            raise HeedfulError("images='frozen' needs the pretrained vision model: a folder or Hub id")
        model = hub.load_model(name, kind="vision")
        # A model of images and texts has its vision half inside; the other half would only take memory.
        self.model = getattr(model, "vision_model", model).requires_grad_(False).eval()
        self.look = ImageInput.of(hub.config_folder(name), self.model.config)
        with torch.no_grad():
            self.size = self._features(torch.zeros(1, 3, self.look.size, self.look.size)).shape[-1]

    def train(self, mode: bool = True) -> FrozenVision:
        """It never trains: dropout and running means stay as they were."""
        return super().train(False)

    def _features(self, pixels: Tensor) -> Tensor:
        out: Any = self.model(pixel_values=pixels)
        pooled = getattr(out, "pooler_output", None)
        return (out.last_hidden_state.mean(1) if pooled is None else pooled).flatten(1)

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        with torch.no_grad():
            return self._features(self.look(images)).float()


@dataclass(frozen=True)
class ImageInput:
    """How a vision model wants its images: their side, and the mean and std of each colour."""

    size: int
    mean: tuple[float, ...] = IMAGENET[0]
    std: tuple[float, ...] = IMAGENET[1]

    @classmethod
    def of(cls, folder: Any, config: Any, default: tuple[Any, Any] = IMAGENET) -> ImageInput:
        """From a model's folder (`preprocessor_config.json`, where it has one) and its vision configuration."""
        path = folder / "preprocessor_config.json"
        said = read_json(path) if path.is_file() else {}
        size = getattr(config, "image_size", None) or 224
        size = max(size) if isinstance(size, list | tuple) else size
        mean, std = said.get("image_mean") or default[0], said.get("image_std") or default[1]
        return cls(int(size), tuple(map(float, mean)), tuple(map(float, std)))

    def __call__(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] scaled to the side, then normalised; a single colour is taken for all three."""
        images = images.float().expand(-1, 3, -1, -1) if images.shape[1] == 1 else images.float()
        if tuple(images.shape[-2:]) != (self.size, self.size):
            images = F.interpolate(
                images, (self.size, self.size), mode="bilinear", antialias=True, align_corners=False
            )
        mean, std = (images.new_tensor(x)[:, None, None] for x in (self.mean, self.std))
        return (images - mean) / std
