"""Rotations as Euler angles, matrices, and six numbers without jumps (Zhou et al. 2019, arXiv 1812.07035).

Euler angles are those of SciPy's "xyz" and of DROID: radians about the fixed axes x, then y, then z, so that the
matrix is Rz Ry Rx. The six numbers are the first two *rows* of the matrix, one after the other, as in DROID's policy
and PyTorch3D; the paper itself takes columns.
"""

from __future__ import annotations

import torch
from torch import Tensor

POLE = 1e-6
"""Cosine of the second angle below which the other two are not told apart."""


def euler_to_matrix(angles: Tensor) -> Tensor:
    """(..., 3) radians -> (..., 3, 3)."""
    (sx, sy, sz), (cx, cy, cz) = (f(angles).unbind(-1) for f in (torch.sin, torch.cos))
    rows = [
        [cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx],
        [sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx],
        [-sy, cy * sx, cy * cx],
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def matrix_to_euler(matrix: Tensor) -> Tensor:
    """(..., 3, 3) -> (..., 3): the first and third angle in (-pi, pi], the second in [-pi/2, pi/2].

    With the second at +-pi/2 the other two turn about one axis; the first is 0 then.
    """
    cos = torch.hypot(matrix[..., 0, 0], matrix[..., 1, 0])
    y = torch.atan2(-matrix[..., 2, 0], cos)
    pole = cos < POLE
    x = torch.where(pole, torch.zeros_like(y), torch.atan2(matrix[..., 2, 1], matrix[..., 2, 2]))
    z = torch.where(
        pole,
        torch.atan2(-matrix[..., 0, 1], matrix[..., 1, 1]),
        torch.atan2(matrix[..., 1, 0], matrix[..., 0, 0]),
    )
    return torch.stack([x, y, z], -1)


def matrix_to_rot6d(matrix: Tensor) -> Tensor:
    """(..., 3, 3) -> (..., 6)."""
    return matrix[..., :2, :].flatten(-2)


def rot6d_to_matrix(six: Tensor) -> Tensor:
    """(..., 6), two vectors of any length that are not parallel -> (..., 3, 3), by Gram and Schmidt."""
    first, second = six[..., :3], six[..., 3:]
    first = torch.nn.functional.normalize(first, dim=-1)
    second = second - (first * second).sum(-1, keepdim=True) * first
    second = torch.nn.functional.normalize(second, dim=-1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], -2)


def euler_to_rot6d(angles: Tensor) -> Tensor:
    """(..., 3) radians -> (..., 6)."""
    return matrix_to_rot6d(euler_to_matrix(angles))


def rot6d_to_euler(six: Tensor) -> Tensor:
    """(..., 6) -> (..., 3) radians."""
    return matrix_to_euler(rot6d_to_matrix(six))
