"""What DROID's policy sees and says, in numbers: a state of 10 and an action of 7 (arXiv 2403.12945, appendix).

    state   position (m), rotation as six numbers, gripper (0 open, 1 closed)
    action  position, Euler angles (rad) and gripper that the robot is told: where to go ("absolute"), or by how much to
            move from where it is ("delta"; the turn is in the base frame, as in DROID's `pose_diff`)

The paper gives the state's rotation as Euler angles. The gripper looks down, where the first of them jumps between pi
and -pi, so here it has six numbers too.

Letters: T frames.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from heedful.policies.rotations import euler_to_matrix, euler_to_rot6d, matrix_to_euler

Actions = Literal["absolute", "delta"]
STATE, ACTION = 10, 7
EULER, GRIPPER = (3,), 6
"""Where an action's angles begin, and its gripper."""


def state_of(pose: ArrayLike, gripper: ArrayLike) -> NDArray[np.float32]:
    """Poses (..., 6) and grippers (..., 1) -> states (..., 10)."""
    at, closed = _tensor(pose), _tensor(gripper)
    return torch.cat([at[..., :3], euler_to_rot6d(at[..., 3:]), closed], -1).float().numpy()


def action_of(
    told: ArrayLike, gripper: ArrayLike, pose: ArrayLike, actions: Actions = "absolute"
) -> NDArray[np.float32]:
    """Poses (..., 6) that a robot was told, grippers (..., 1), and poses (..., 6) it was at -> actions (..., 7)."""
    to, at = _tensor(told), _tensor(pose)
    if actions == "delta":
        turn = euler_to_matrix(to[..., 3:]) @ euler_to_matrix(at[..., 3:]).transpose(-1, -2)
        to = torch.cat([to[..., :3] - at[..., :3], matrix_to_euler(turn)], -1)
    return torch.cat([to, _tensor(gripper)], -1).float().numpy()


def command_of(action: ArrayLike, pose: ArrayLike, actions: Actions = "absolute") -> NDArray[np.float64]:
    """The inverse: (..., 7) actions at poses (..., 6) -> (..., 7), the pose and gripper to tell the robot."""
    said, at = _tensor(action), _tensor(pose)
    if actions == "delta":
        turn = euler_to_matrix(said[..., 3:6]) @ euler_to_matrix(at[..., 3:])
        said = torch.cat([said[..., :3] + at[..., :3], matrix_to_euler(turn), said[..., 6:]], -1)
    return said.numpy()


def without_moving(actions: NDArray[np.float32], pads: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Deltas (..., 7) with no motion where `pads` (...): beyond an episode's ends nobody moved, so that its first and
    last change must not be repeated there as its first and last place may be. The gripper stays as it was."""
    stay = np.where(pads[..., None], np.float32(0), actions)
    stay[..., GRIPPER] = actions[..., GRIPPER]
    return stay


def _tensor(values: ArrayLike) -> Tensor:
    return torch.from_numpy(np.asarray(values, np.float64))
