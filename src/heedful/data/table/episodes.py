"""Episodes of the simulated table with a scripted operator, frame by frame in DROID's columns (its LeRobot port)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from heedful.data.episodes import Feature, Info
from heedful.data.table import Layout, Table
from heedful.data.table.arm import HERTZ, pose_change
from heedful.data.table.operator import Mistake, Operator
from heedful.data.table.scene import CAMERAS, noisy_calibration
from heedful.data.table.tasks import Task

Convention = Literal["droid", "delta"]
"""`droid`: `action` is joint position and gripper, 1 closed. `delta`: change of pose in the base frame and gripper, 1
open, as many sets of Open X-Embodiment have it."""
VARIANTS = {
    "cartesian_position": 6,
    "cartesian_velocity": 6,
    "joint_position": 7,
    "joint_velocity": 7,
    "gripper_position": 1,
    "gripper_velocity": 1,
}
POSE = ["x", "y", "z", "roll", "pitch", "yaw"]
JOINTS = [f"joint_{i}" for i in range(7)]


@dataclass(frozen=True)
class Recorded:
    """An episode in memory: frames by column, three instructions, and what else is known of it."""

    frames: list[dict[str, Any]]
    instructions: tuple[str, str, str]
    meta: Mapping[str, Any] = field(default_factory=dict)


def table_info(size: tuple[int, int], convention: Convention = "droid", *, outcome: bool = True) -> Info:
    """The columns of a data set of the table. size: (height, width) of the pictures.

    outcome: with the columns that are known when an episode has ended (is_last, reward, success), as DROID's port has
    them; a recorder, which writes while it records, leaves them to the episode's own row.
    """
    one: dict[str, Feature] = {}
    for camera in CAMERAS:
        one[f"observation.images.{camera}"] = Feature("video", (*size, 3), ["height", "width", "channels"])
    one["observation.state.joint_position"] = Feature("float32", (7,), JOINTS)
    one["observation.state.cartesian_position"] = Feature("float32", (6,), POSE)
    one["observation.state.gripper_position"] = Feature("float32", (1,), ["gripper"])
    if convention == "droid":
        one["observation.state"] = Feature("float32", (8,), [*JOINTS, "gripper"])
        one["action"] = Feature("float32", (8,), [*JOINTS, "gripper"])
    else:
        one["observation.state"] = Feature("float32", (7,), [*POSE, "gripper"])
        one["action"] = Feature("float32", (7,), [*(f"delta_{name}" for name in POSE), "gripper"])
    one["action.original"] = Feature("float32", (7,), [*POSE, "gripper"])
    names = {"cartesian": POSE, "joint": JOINTS, "gripper": ["gripper"]}
    for variant, width in VARIANTS.items():
        one[f"action.{variant}"] = Feature("float32", (width,), names[variant.split("_")[0]])
    for camera in CAMERAS:
        one[f"camera_extrinsics.{camera}"] = Feature("float32", (6,), POSE)
    one["skip_action"] = Feature("bool", (1,))
    one["is_first"] = Feature("bool", (1,))
    if outcome:
        one |= {name: Feature("bool", (1,)) for name in ("is_last", "is_terminal", "is_episode_successful")}
        one |= {name: Feature("float32", (1,)) for name in ("reward", "discount")}
    told = {
        "droid": "action: joint position and gripper (1 closed); action.original: Cartesian position and gripper",
        "delta": "action: change of pose in the base frame and gripper (1 open); state: pose and gripper (1 open)",
    }
    return Info(HERTZ, "franka", one, extra={"action_convention": convention, "convention": told[convention]})


def table_frame(
    table: Table, seen: Mapping[str, Any], skipped: bool, first: bool, convention: Convention
) -> dict[str, Any]:
    """One frame in the columns of `table_info`: what was seen, and the action that was then done (`table.action`)."""
    action, joints, closed = table.action, seen["joint_position"], seen["gripper_position"]
    pose = seen["cartesian_position"]
    if convention == "droid":
        state = np.concatenate([joints, closed])
        done = np.concatenate([action["joint_position"], action["gripper_position"]])
    else:
        state = np.concatenate([pose, 1 - closed])
        done = np.concatenate(
            [pose_change(action["cartesian_position"], pose), 1 - action["gripper_position"]]
        )
    return {
        **{f"observation.images.{camera}": seen[camera] for camera in CAMERAS if camera in seen},
        "observation.state.joint_position": joints,
        "observation.state.cartesian_position": pose,
        "observation.state.gripper_position": closed,
        "observation.state": state,
        "action": done,
        "action.original": np.concatenate([action["cartesian_position"], action["gripper_position"]]),
        **{f"action.{variant}": action[variant] for variant in VARIANTS},
        **{f"camera_extrinsics.{camera}": seen["extrinsics"][camera] for camera in CAMERAS},
        "skip_action": skipped,
        "is_first": first,
    }


def looked(table: Table, seen: dict[str, Any]) -> dict[str, Any]:
    """An observation with the cameras' true poses at that moment, under `extrinsics`."""
    return {**seen, "extrinsics": {camera: table.extrinsics(camera) for camera in CAMERAS}}


def run_episode(
    table: Table,
    layout: Layout,
    task: Task,
    rng: np.random.Generator,
    *,
    mistake: Mistake | None = None,
    pauses: bool = True,
    convention: Convention = "droid",
) -> Recorded:
    """Let the scripted operator do a task from a layout. A function of its arguments and the state of `rng` alone.

    Frame t holds the observation at t and the action done from t to t + 1. The episode's row says whether the task was
    done at the end (asked of the simulator), what mistake was made on purpose, and everything about scene and cameras.
    """
    seen = looked(table, table.reset(layout))
    instructions = task.instructions(rng)
    operator = Operator(table, task, rng, mistake=mistake, pauses=pauses)
    frames: list[dict[str, Any]] = []
    while not operator.done:
        action = operator.act()
        if operator.done:
            break
        following = table.hold() if action is None else table.act(action)
        frames.append(table_frame(table, seen, action is None, not frames, convention))
        seen = looked(table, following)
    done = table.succeeded(task)
    for frame in frames:
        frame |= {
            "is_last": False,
            "is_terminal": False,
            "reward": 0.0,
            "discount": 1.0,
            "is_episode_successful": done,
        }
    frames[-1] |= {"is_last": True, "is_terminal": True, "reward": float(done), "discount": float(not done)}
    meta = {
        **scene_meta(table),
        **task_meta(task, instructions),
        "is_episode_successful": done,
        "operator_mistake": operator.mistake or "none",
        "idle_frames": int(sum(frame["skip_action"] for frame in frames)),
    }
    return Recorded(frames, instructions, meta)


def task_meta(task: Task, instructions: tuple[str, str, str]) -> dict[str, Any]:
    """What an episode's row says of its task."""
    return {
        "current_task": task.name,
        "verb": task.verb,
        "object": task.thing or "drawer",
        "target": task.target,
        **{
            f"language_instruction{n}": words for n, words in zip(("", "_2", "_3"), instructions, strict=True)
        },
    }


def scene_meta(table: Table) -> dict[str, Any]:
    """What an episode's row says of its scene: numbers, calibration exact and with errors, intrinsics."""
    scene = table.scene
    row: dict[str, Any] = {
        "lab": "simulated",
        "building": f"building {scene.number % 9}",
        "scene_id": scene.number,
        "robot_serial": "table-0",
        "table_height": scene.height,
        "table_pattern": scene.pattern,
        "objects": [thing.name for thing in scene.things],
        "fixtures": [*scene.fixtures, *(["drawer"] if scene.drawer else [])],
    }
    for i, camera in enumerate(CAMERAS):
        matrix = table.intrinsics(camera)
        row[f"camera_intrinsics.{camera}"] = [float(matrix[k]) for k in ((0, 0), (1, 1), (0, 2), (1, 2))]
        if camera != "wrist_left":
            row[f"camera_extrinsics_exact.{camera}"] = table.extrinsics(camera).tolist()
            row[f"camera_extrinsics_noisy.{camera}"] = noisy_calibration(scene, i).tolist()
    return row
