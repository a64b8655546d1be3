"""A simulated Franka table (MuJoCo), in DROID's observation and action conventions, at 15 Hz.

    table = Table(draw_scene(seed=0, number=3), size=(128, 128))
    seen = table.reset(draw_layout(table.scene, task, seed=0, index=7))
    seen = table.act([0.1, 0, 0, 0, 0, 0, -1], "cartesian_velocity")     # table.action: what was told to the robot
    table.succeeded(task)                                                # privileged: asks the simulator

An episode is a function of scene, layout and actions: the physics has no other source of chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from heedful.data.table.arm import (
    RESET,
    TIP,
    ActionSpace,
    action_variants,
    euler_of,
    forward,
    joint_frames,
    rotation_of,
    within_step,
)
from heedful.data.table.mjcf import write_mjcf
from heedful.data.table.objects import DRAWER_OUT, FIXTURES
from heedful.data.table.render import Pictures, intrinsics, mujoco
from heedful.data.table.scene import (
    BACK,
    CAMERAS,
    FRONT,
    OPENING,
    SIDE,
    SUBSTEPS,
    WRIST,
    WRIST_FIELD,
    Scene,
)
from heedful.errors import HeedfulError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Layout:
    """Where things lie when an episode begins. places: (x, y, yaw) by name of thing or fixture; drawer: out by (m)."""

    places: Mapping[str, tuple[float, float, float]]
    drawer: float = 0.0
    joints: tuple[float, ...] = tuple(RESET)
    """Where the arm starts (rad)."""


@dataclass(frozen=True)
class Place:
    """Where a thing is: position (m), rotation matrix, and whether a finger touches it."""

    at: Array
    turn: Array
    touched: bool


class Table:
    """The robot at one table. size: (height, width) of the pictures; cameras: which are drawn, none: physics alone.

    more: MJCF of bodies beside the scene's.
    """

    def __init__(
        self,
        scene: Scene,
        *,
        size: tuple[int, int] = (180, 320),
        cameras: Sequence[str] = CAMERAS,
        shadows: bool = False,
        more: str = "",
    ) -> None:
        unknown = [name for name in cameras if name not in CAMERAS]
        if unknown:
            raise HeedfulError(f"the table has no camera {unknown[0]!r}; it has {', '.join(CAMERAS)}")
        self.scene, self.size, self.cameras = scene, size, tuple(cameras)
        self._mujoco = mujoco()
        self.model = self._mujoco.MjModel.from_xml_string(write_mjcf(scene, size, more))
        self.data = self._mujoco.MjData(self.model)
        self._pictures = Pictures(self.model, size, shadows=shadows) if cameras else None
        self._bodies = {f: self.model.body(f).id for f in scene.fixtures}
        self._bodies |= {t.name: self.model.body(f"thing{i}").id for i, t in enumerate(scene.things)}
        self._pads = [self.model.geom(f"pad_{side}").id for side in ("left", "right")]
        self._handle = self.model.geom("handle").id if scene.drawer else -1
        self._slide = int(self.model.joint("drawer").qposadr[0]) if scene.drawer else -1
        self.action: dict[str, Array] = {}
        """DROID's action variants of the last step."""
        self.steps = 0
        self.start: dict[str, Place] = {}
        """Where everything was when the episode began."""

    # ---- the robot

    def reset(self, layout: Layout) -> dict[str, Any]:
        """Lay the things out, let them come to rest, and return the first observation.

        Raises HeedfulError for a layout that leaves out a thing or names one that is not in the scene.
        """
        names = {*self._bodies}
        if {*layout.places} != names:
            wrong = ", ".join(sorted(names ^ {*layout.places}))
            raise HeedfulError(
                f"a layout of scene {self.scene.number} must have a place for each thing: see {wrong}"
            )
        self._mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:7] = self.data.ctrl[:7] = layout.joints
        self.data.qpos[7:9] = self.data.ctrl[7] = OPENING / 2
        rest = {t.name: t.rest for t in self.scene.things}
        for name, (x, y, yaw) in layout.places.items():
            at = self.model.jnt_qposadr[self.model.body_jntadr[self._bodies[name]]]
            z = self.scene.height + rest.get(name, 0.0) + 0.001
            self.data.qpos[at : at + 7] = [x, y, z, np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)]
        if self._slide >= 0:
            self.data.qpos[self._slide] = np.clip(layout.drawer, 0, DRAWER_OUT)
        for _ in range(8 * SUBSTEPS):
            self._mujoco.mj_step(self.model, self.data)
        self.data.qvel[:] = 0
        self.data.time = 0
        self._mujoco.mj_forward(self.model, self.data)
        self.steps = 0
        self.action = action_variants(
            np.zeros(7), "cartesian_velocity", joints=self.joints, gripper=self.gripper
        )
        self.start = {name: self.place(name) for name in self._bodies}
        return self.observe()

    def act(
        self,
        action: ArrayLike,
        space: ActionSpace = "cartesian_velocity",
        *,
        gripper: Literal["velocity", "position"] | None = None,
    ) -> dict[str, Any]:
        """Do one action for 1/15 s and observe; limits as DROID's. Raises HeedfulError for an action that is none."""
        self.move(action, space, gripper=gripper)
        return self.observe()

    def move(
        self,
        action: ArrayLike,
        space: ActionSpace = "cartesian_velocity",
        *,
        gripper: Literal["velocity", "position"] | None = None,
    ) -> None:
        """`act` without a look: pictures cost more than the physics."""
        joints, closed = self.joints, self.gripper
        self.action = action_variants(action, space, joints=joints, gripper=closed, gripper_space=gripper)
        target, grip = within_step(self.action, joints, closed)
        self.data.ctrl[:7] = target
        if abs(grip - closed) > 0.004:
            # Otherwise it keeps its last target: a gripper that is asked for nothing does not let go of what it holds.
            self.data.ctrl[7] = OPENING / 2 * (1 - grip)
        self._step()

    def hold(self) -> dict[str, Any]:
        """Let 1/15 s pass with the grip released: the robot keeps its last target, and the action is zero."""
        self.action = action_variants(
            np.zeros(7), "cartesian_velocity", joints=self.joints, gripper=self.gripper
        )
        self._step()
        return self.observe()

    def _step(self) -> None:
        for _ in range(SUBSTEPS):
            self._mujoco.mj_step(self.model, self.data)
        if not np.isfinite(self.data.qpos).all() or self.data.warning.number.any():
            raise HeedfulError(
                f"the simulation of scene {self.scene.number} became unstable at step {self.steps}"
            )
        self.steps += 1

    def observe(self, *, pictures: bool = True) -> dict[str, Any]:
        """joint_position (7,), cartesian_position (6,), gripper_position (1,), and a picture for each camera."""
        joints = self.joints
        seen: dict[str, Any] = {
            "joint_position": joints,
            "cartesian_position": forward(joints),
            "gripper_position": np.array([self.gripper]),
        }
        if pictures and self._pictures is not None:
            seen |= dict(zip(self.cameras, self._pictures.draw(self.data, self.cameras), strict=True))
        return seen

    def close(self) -> None:
        """Give the picture's memory back."""
        if self._pictures is not None:
            self._pictures.close()
            self._pictures = None

    @property
    def joints(self) -> Array:
        """(7,) rad."""
        return self.data.qpos[:7].copy()

    @property
    def gripper(self) -> float:
        """0 open to 1 closed."""
        return float(np.clip(1 - self.data.qpos[7:9].mean() / (OPENING / 2), 0, 1))

    # ---- cameras

    def extrinsics(self, camera: str) -> Array:
        """(6,) true pose of a camera in the base frame, with OpenCV's axes; the wrist's moves with the gripper."""
        if camera == "wrist_left":
            flange = joint_frames(self.joints)[7]
            turn = flange[:3, :3] @ rotation_of(WRIST[3:])
            return np.concatenate([flange[:3, 3] + flange[:3, :3] @ np.array(WRIST[:3]), euler_of(turn)])
        return self.scene.cameras[CAMERAS.index(camera)].pose()

    def intrinsics(self, camera: str) -> Array:
        """(3, 3) camera matrix in pixels."""
        wrist = camera == "wrist_left"
        field = WRIST_FIELD if wrist else self.scene.cameras[CAMERAS.index(camera)].field
        return intrinsics(field, self.size)

    # ---- what only the simulator knows

    def place(self, name: str) -> Place:
        """Where a thing or fixture is. Raises HeedfulError where it is not in the scene."""
        if name not in self._bodies:
            raise HeedfulError(f"there is no {name!r} on this table; there are {', '.join(self._bodies)}")
        body = self._bodies[name]
        return Place(
            self.data.xpos[body].copy(), self.data.xmat[body].reshape(3, 3).copy(), self._touched(body)
        )

    def _touched(self, body: int) -> bool:
        pairs = self.data.contact.geom
        left, right = self._pads
        other = pairs[:, ::-1][(pairs == left) | (pairs == right)]
        return bool((self.model.geom_bodyid[other] == body).any())

    @property
    def tip(self) -> Array:
        """(3,) m: between the finger tips."""
        flange = joint_frames(self.joints)[7]
        return flange[:3, 3] + TIP * flange[:3, 2]

    @property
    def drawer(self) -> float:
        """How far the drawer is out (m). Raises HeedfulError where there is none."""
        if self._slide < 0:
            raise HeedfulError("there is no drawer at this table")
        return float(self.data.qpos[self._slide])

    @property
    def handle(self) -> Array:
        """(3,) m: the middle of the drawer's handle. Raises HeedfulError where there is none."""
        if self._handle < 0:
            raise HeedfulError("there is no drawer at this table")
        return self.data.geom_xpos[self._handle].copy()

    def succeeded(self, task: Any) -> bool:
        """Whether `task` (a `table.tasks.Task`) is done now."""
        return task.done(self)

    @property
    def fallen(self) -> list[str]:
        """What is no longer on the table."""
        places = {name: self.data.xpos[body] for name, body in self._bodies.items()}
        return [n for n, at in places.items() if not (BACK < at[0] < FRONT and abs(at[1]) < SIDE)]


def room_of(scene: Scene, name: str) -> float:
    """Radius that a thing or fixture needs on the table (m)."""
    if name in FIXTURES:
        return FIXTURES[name][2]
    return next(t.radius for t in scene.things if t.name == name)
