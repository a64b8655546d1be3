"""Images changed at random while a policy learns: a crop, and jitter of brightness, contrast, saturation and hue.

All frames of one observation are changed alike, so that a history stays one. Nothing here needs torchvision; torch's
global generator is the only randomness, which `fit` sets for each step.

Letters: B observations, To frames, C colours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

TO_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
"""Brightness and two of colour; hue turns those two (NTSC)."""


@dataclass(frozen=True)
class Jitter:
    """Largest change of each: brightness, contrast and saturation by a factor in [1 - x, 1 + x], hue by x turns.

    The defaults are robomimic's, which DROID's policy was trained with.
    """

    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.3
    hue: float = 0.3

    def __post_init__(self) -> None:
        if not all(0 <= x <= 1 for x in (self.brightness, self.contrast, self.saturation, self.hue)):
            raise ValueError(f"jitter must be between 0 and 1; it is {self}")


def cropped(images: Tensor, height: int, width: int, *, random: bool) -> Tensor:
    """Images (B, To, C, H, W) -> (B, To, C, height, width): a random place for each of B, or the middle.

    Raises ValueError when the images are smaller than that.
    """
    b, _, _, tall, wide = images.shape
    if not (1 <= height <= tall and 1 <= width <= wide):
        raise ValueError(f"a crop of {height} x {width} does not fit images of {tall} x {wide}")
    if (height, width) == (tall, wide):
        return images
    down, across = tall - height, wide - width
    if not random:
        return images[..., down // 2 : down // 2 + height, across // 2 : across // 2 + width]
    top, left = (torch.randint(0, room + 1, (b,)).to(images.device) for room in (down, across))
    rows = (top[:, None] + torch.arange(height, device=images.device))[:, :, None]
    columns = (left[:, None] + torch.arange(width, device=images.device))[:, None, :]
    which = torch.arange(b, device=images.device)[:, None, None]
    return images.movedim((1, 2), (3, 4))[which, rows, columns].movedim((3, 4), (1, 2))


def jittered(images: Tensor, how: Jitter) -> Tensor:
    """Images (B, To, 3, H, W) in [0, 1], each of B changed its own way, and clipped; other numbers of colours as they
    are.

    In this order: brightness (a product), contrast (away from the mean grey of the observation), saturation (away from
    each pixel's grey), hue.
    """
    if images.shape[2] != 3:
        return images
    b = len(images)
    brightness, contrast, saturation, hue = torch.rand(4, b, 1, 1, 1, 1).to(images) * 2 - 1
    grey = images.new_tensor(TO_YIQ[0]).view(1, 1, 3, 1, 1)
    images = images * (1 + how.brightness * brightness)
    mean = (images * grey).sum(2, keepdim=True).mean((1, 3, 4), keepdim=True)
    images = mean + (images - mean) * (1 + how.contrast * contrast)
    dull = (images * grey).sum(2, keepdim=True)
    images = dull + (images - dull) * (1 + how.saturation * saturation)
    if how.hue:
        images = torch.einsum("bij,btjhw->btihw", _hue(2 * math.pi * how.hue * hue.view(b)), images)
    return images.clamp(0, 1)


def _hue(angle: Tensor) -> Tensor:
    """(B,) radians -> (B, 3, 3), what turns colours by that much and leaves greys alone."""
    to = angle.new_tensor(TO_YIQ)
    turn = torch.zeros(len(angle), 3, 3).to(angle)
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = angle.cos()
    turn[:, 1, 2], turn[:, 2, 1] = -angle.sin(), angle.sin()
    return torch.linalg.inv(to) @ turn @ to
