"""The arm of the simulated table: the kinematic chain of a Franka Panda, and DROID's limits and action conventions.

Poses are DROID's: 6 numbers, position (m) and Euler angles (rad), extrinsic x, y, z, of the flange in the base frame.
A gripper position is 0 open to 1 closed. Velocities are in [-1, 1], as shares of what a step of 1/15 s may move.

Sources: Franka's Denavit-Hartenberg parameters and joint limits (its control interface's documentation); reset pose,
limits a step and the six action variants: DROID (Khazatsky et al. 2024), `robot_ik_solver.py` and `franka/robot.py`.
One departure: DROID's inverse kinematics pulls the free joint towards zero, this one towards the reset pose, which
keeps the elbow in sight of the cameras.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from heedful.errors import HeedfulError

Array = NDArray[np.float64]
ActionSpace = Literal["cartesian_velocity", "cartesian_position", "joint_velocity", "joint_position"]

HERTZ = 15
RESET = np.array([0, -np.pi / 5, 0, -4 * np.pi / 5, 0, 3 * np.pi / 5, 0])
"""DROID's reset pose (rad): the flange looks straight down."""
LOWEST = np.array([-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973])
HIGHEST = np.array([2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973])
MOST_METRES, MOST_RADIANS, MOST_JOINT, MOST_GRIPPER = 0.075, 0.15, 0.2, 0.25
"""What one step may move at most: position, orientation, each joint, the gripper."""
CHAIN = (
    (0.0, 0.333, 0.0),
    (0.0, 0.0, -np.pi / 2),
    (0.0, 0.316, np.pi / 2),
    (0.0825, 0.0, np.pi / 2),
    (-0.0825, 0.384, -np.pi / 2),
    (0.0, 0.0, np.pi / 2),
    (0.088, 0.0, np.pi / 2),
)
"""(a, d, alpha) of each joint, after Craig: translate along x, turn about x, then along and about the new z."""
FLANGE = 0.107
"""From the last joint to the flange, along its axis (m)."""
TIP = 0.155
"""From the flange to between the finger tips (m)."""
_MARGIN = 0.05
_FIXED = []
for _a, _d, _alpha in CHAIN:
    _c, _s = np.cos(_alpha), np.sin(_alpha)
    _FIXED.append(
        np.array(
            [[1, 0, 0, _a], [0, _c, -_s, -_s * _d], [0, _s, _c, _c * _d], [0, 0, 0, 1]], dtype=np.float64
        )
    )


def joint_frames(joints: ArrayLike) -> Array:
    """(8, 4, 4): the frames of the seven joints and of the flange in the base frame; joints: (7,) rad. Read-only."""
    return _joint_frames(np.asarray(joints, np.float64).tobytes())


@lru_cache(maxsize=4)  # one control step asks several times where the same joints are
def _joint_frames(joints: bytes) -> Array:
    frames = np.empty((8, 4, 4))
    at = np.eye(4)
    for i, angle in enumerate(np.frombuffer(joints)):
        at = at @ _FIXED[i]
        c, s = np.cos(angle), np.sin(angle)
        x, y = at[:, 0].copy(), at[:, 1].copy()
        at[:, 0], at[:, 1] = c * x + s * y, c * y - s * x
        frames[i] = at
    frames[7] = at
    frames[7, :3, 3] += FLANGE * at[:3, 2]
    frames.flags.writeable = False
    return frames


def forward(joints: ArrayLike) -> Array:
    """(6,): the pose of the flange where the joints stand at (7,) rad."""
    flange = joint_frames(joints)[7]
    return np.concatenate([flange[:3, 3], euler_of(flange[:3, :3])])


def jacobian(frames: Array) -> Array:
    """(6, 7): linear (m) and angular (rad) motion of the flange by motion of each joint; frames: of `joint_frames`."""
    axes = frames[:7, :3, 2]
    arms = frames[7, :3, 3] - frames[:7, :3, 3]
    (x, y, z), (a, b, c) = axes.T, arms.T
    # np.cross costs more here than all the rest of a step of `inverse`
    return np.array([y * c - z * b, z * a - x * c, x * b - y * a, x, y, z], order="F")


def inverse(
    pose: ArrayLike, joints: ArrayLike, *, steps: int = 60, tolerance: float = 1e-4
) -> tuple[Array, float]:
    """((7,), error): joints that bring the flange to `pose`, from `joints` on, and what is left (m and rad together).

    Damped least squares (Buss 2009) inside the joint limits. What cannot be reached is approached: look at the error.
    """
    wanted = np.asarray(pose, np.float64)
    turn = rotation_of(wanted[3:])
    at = np.clip(np.asarray(joints, np.float64), LOWEST + _MARGIN, HIGHEST - _MARGIN)
    left = np.inf
    for step in range(steps + 1):
        frames = joint_frames(at)
        error = np.concatenate([wanted[:3] - frames[7, :3, 3], rotation_vector(turn @ frames[7, :3, :3].T)])
        left = float(np.linalg.norm(error))
        if left < tolerance or step == steps:
            break
        moves = jacobian(frames)
        damped = moves @ moves.T + 1e-4 * np.eye(6)
        pinned = np.linalg.solve(damped, moves).T
        home = 0.05 * (RESET - at)
        change = pinned @ error + home - pinned @ (moves @ home)
        largest = np.abs(change).max()
        if largest > MOST_JOINT:
            change *= MOST_JOINT / largest
        at = np.clip(at + change, LOWEST + _MARGIN, HIGHEST - _MARGIN)
    return at, left


def euler_of(rotation: Array) -> Array:
    """(3,) rad, extrinsic x, y, z, of a rotation matrix (3, 3)."""
    across = np.hypot(rotation[0, 0], rotation[1, 0])
    if across < 1e-9:
        return np.array(
            [np.arctan2(-rotation[1, 2], rotation[1, 1]), np.arctan2(-rotation[2, 0], across), 0.0]
        )
    return np.array(
        [
            np.arctan2(rotation[2, 1], rotation[2, 2]),
            np.arctan2(-rotation[2, 0], across),
            np.arctan2(rotation[1, 0], rotation[0, 0]),
        ]
    )


def rotation_of(euler: ArrayLike) -> Array:
    """(3, 3) of Euler angles (3,) rad, extrinsic x, y, z."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(euler), np.sin(euler)
    return np.array(
        [
            [cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx],
            [sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx],
            [-sy, cy * sx, cy * cx],
        ]
    )


def rotation_vector(rotation: Array) -> Array:
    """(3,): axis times angle (rad) of a rotation matrix."""
    axis = np.array(
        [rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]]
    )
    sine, cosine = np.linalg.norm(axis) / 2, (np.trace(rotation) - 1) / 2
    if sine > 1e-6:
        return axis / (2 * sine) * np.arctan2(sine, cosine)
    if cosine > 0:
        return axis / 2
    # Half a turn: the axis is the column of R + 1 that is longest.
    column = (rotation + np.eye(3))[:, int(np.argmax(np.diag(rotation)))]
    return np.pi * column / np.linalg.norm(column)


def add_pose(change: ArrayLike, pose: ArrayLike) -> Array:
    """`pose` moved by `change`, both (6,); the turn is applied in the base frame (DROID's `add_poses`)."""
    by, at = np.asarray(change, np.float64), np.asarray(pose, np.float64)
    return np.concatenate([at[:3] + by[:3], euler_of(rotation_of(by[3:]) @ rotation_of(at[3:]))])


def pose_change(target: ArrayLike, source: ArrayLike) -> Array:
    """What `add_pose` has to be given to come from `source` to `target` (DROID's `pose_diff`)."""
    to, at = np.asarray(target, np.float64), np.asarray(source, np.float64)
    return np.concatenate([to[:3] - at[:3], euler_of(rotation_of(to[3:]) @ rotation_of(at[3:]).T)])


def limited(velocity: ArrayLike) -> Array:
    """(6,) Cartesian velocity with the position and the turn each at most 1 long."""
    given = np.array(velocity, np.float64)
    for part in (given[:3], given[3:]):
        part /= max(1.0, float(np.linalg.norm(part)))
    return given


def cartesian_change(velocity: ArrayLike) -> Array:
    """(6,) metres and radians a step of a Cartesian velocity, within the limits."""
    return limited(velocity) * np.array([MOST_METRES] * 3 + [MOST_RADIANS] * 3)


def cartesian_velocity(change: ArrayLike) -> Array:
    """(6,) velocity of a change of pose; above 1 where the change is more than a step may be."""
    return np.asarray(change, np.float64) / np.array([MOST_METRES] * 3 + [MOST_RADIANS] * 3)


def joint_change(velocity: ArrayLike) -> Array:
    """(7,) radians a step of a joint velocity, all scaled down together where one is above its limit."""
    given = np.asarray(velocity, np.float64)
    return given / max(1.0, float(np.abs(given).max())) * MOST_JOINT


def action_variants(
    action: ArrayLike,
    space: ActionSpace,
    *,
    joints: ArrayLike,
    gripper: float,
    gripper_space: Literal["velocity", "position"] | None = None,
) -> dict[str, Array]:
    """DROID's `action_dict`: {joint,cartesian,gripper}_{position,velocity} of one action at one state.

    action: 6 or 7 numbers of `space` and one of the gripper (velocity or position, as `space` unless said). joints:
    (7,) rad and gripper as observed. `joint_position` and `gripper_position` are what the robot is told; `*_position`
    is what was asked for and may be further away than a step goes. Of a joint action the Cartesian variants are where
    the commanded joints bring the flange. Raises HeedfulError for an unknown space, a wrong size, or NaN.
    """
    given, at = np.asarray(action, np.float64), np.asarray(joints, np.float64)
    if space not in ("cartesian_velocity", "cartesian_position", "joint_velocity", "joint_position"):
        raise HeedfulError(f"there is no action space {space!r}")
    size = 7 if space.startswith("cartesian") else 8
    if given.shape != (size,) or not np.isfinite(given).all():
        raise HeedfulError(f"an action of {space} is {size} finite numbers, not {given.tolist()}")
    arm, grip = given[:-1], given[-1]
    kind = gripper_space or ("velocity" if space.endswith("velocity") else "position")
    if kind == "velocity":
        grip_velocity = float(np.clip(grip, -1, 1))
        grip_position = float(np.clip(gripper + grip_velocity * MOST_GRIPPER, 0, 1))
    else:
        grip_position = float(np.clip(grip, 0, 1))
        grip_velocity = (grip_position - gripper) / MOST_GRIPPER
    pose = forward(at)
    if space.startswith("cartesian"):
        velocity = arm if space.endswith("velocity") else cartesian_velocity(pose_change(arm, pose))
        step = cartesian_change(velocity)
        position = add_pose(step, pose) if space.endswith("velocity") else arm
        reached, _ = inverse(add_pose(step, pose), at, steps=4)
        joint_velocity = (reached - at) / MOST_JOINT
        joint_position = at + joint_change(joint_velocity)
    else:
        joint_velocity = arm if space.endswith("velocity") else (arm - at) / MOST_JOINT
        joint_position = at + joint_change(arm) if space.endswith("velocity") else arm
        position = forward(np.clip(joint_position, LOWEST, HIGHEST))
        velocity = cartesian_velocity(pose_change(position, pose))
    return {
        "cartesian_position": position,
        "cartesian_velocity": np.asarray(velocity, np.float64),
        "joint_position": joint_position,
        "joint_velocity": joint_velocity,
        "gripper_position": np.array([grip_position]),
        "gripper_velocity": np.array([grip_velocity]),
    }


def within_step(variants: Mapping[str, Any], joints: ArrayLike, gripper: float) -> tuple[Array, float]:
    """((7,), gripper): what the robot is told: at most the limits of a step away, inside the joints' limits."""
    at = np.asarray(joints, np.float64)
    target = at + joint_change((np.asarray(variants["joint_position"]) - at) / MOST_JOINT)
    asked = float(np.asarray(variants["gripper_position"]).reshape(-1)[0])
    closed = float(np.clip(asked, gripper - MOST_GRIPPER, gripper + MOST_GRIPPER))
    return np.clip(target, LOWEST, HIGHEST), float(np.clip(closed, 0, 1))
