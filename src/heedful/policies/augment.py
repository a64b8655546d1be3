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
    places = zip(*(torch.randint(0, room + 1, (b,)).tolist() for room in (down, across)), strict=True)
    return torch.stack(
        [
            one[..., top : top + height, left : left + width]
            for one, (top, left) in zip(images, places, strict=True)
        ]
    )


def jittered(images: Tensor, how: Jitter) -> Tensor:
    """Images (B, To, 3, H, W) in [0, 1], each of B changed its own way, and clipped; other numbers of colours as they
    are.

    In this order: brightness (a product), contrast (away from the mean grey of the observation), saturation (away from
    each pixel's grey), hue. Each is linear in a pixel's colours, so together they are one matrix and one shift.
    """
    if images.shape[2] != 3:
        return images
    b = len(images)
    drawn = (torch.rand(4, b, 1, 1) * 2 - 1).to(images)
    brightness, contrast, saturation = (
        1 + most * by
        for most, by in zip((how.brightness, how.contrast, how.saturation), drawn[:3], strict=True)
    )
    grey = images.new_tensor(TO_YIQ[0])
    mean = (images.mean((1, 3, 4)) @ grey).view(b, 1, 1)
    turn = saturation * torch.eye(3).to(images) + (1 - saturation) * grey
    if how.hue:
        turn = _hue(2 * math.pi * how.hue * drawn[3].view(b)) @ turn
    shift = turn.sum(2, keepdim=True) * (1 - contrast) * brightness * mean
    matrix = turn * contrast * brightness
    pixels = images.transpose(1, 2).flatten(2)
    changed = torch.baddbmm(shift, matrix, pixels).clamp_(0, 1)
    return changed.unflatten(2, (images.shape[1], *images.shape[3:])).transpose(1, 2)


def _hue(angle: Tensor) -> Tensor:
    """(B,) radians -> (B, 3, 3), what turns colours by that much and leaves greys alone."""
    to = angle.new_tensor(TO_YIQ)
    turn = torch.zeros(len(angle), 3, 3).to(angle)
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = angle.cos()
    turn[:, 1, 2], turn[:, 2, 1] = -angle.sin(), angle.sin()
    return torch.linalg.inv(to) @ turn @ to
