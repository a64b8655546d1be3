"""The simulated Franka table: kinematics, limits, conventions, scenes, the scripted operator, data sets."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("mujoco")
from scipy.spatial.transform import Rotation

from heedful.data.episodes import open_episodes
from heedful.data.table import Layout, Table
from heedful.data.table import arm as arm
from heedful.data.table.episodes import VARIANTS, run_episode, table_info
from heedful.data.table.objects import THINGS
from heedful.data.table.operator import Operator
from heedful.data.table.render import choose_backend, project
from heedful.data.table.scene import CAMERAS, draw_scene, noisy_calibration, vary
from heedful.data.table.sets import (
    HELD_OUT,
    SETS,
    draw_trial,
    generate,
    held_out_scene,
    in_domain_tasks,
    make_episode,
    set_of,
)
from heedful.data.table.tasks import VERBS, Task, draw_layout, draw_task, tasks_of
from heedful.errors import HeedfulError

SMALL = (48, 64)


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def play(number: int, seed: int, *, mistake: Any = "") -> tuple[Table, Task, Operator]:
    """An episode without pictures, to its end."""
    table = Table(draw_scene(0, number), cameras=())
    random = rng(seed)
    task = draw_task(table.scene, random)
    table.reset(draw_layout(table.scene, task, random))
    operator = Operator(table, task, random, mistake=mistake)
    while not operator.done:
        action = operator.act()
        if not operator.done:
            table.hold() if action is None else table.act(action)
    return table, task, operator


# ---- kinematics


def test_chain_is_frankas_and_the_simulations() -> None:
    # Straight up, the Panda's flange is at (0.088, 0, 0.333 + 0.316 + 0.384 - 0.107), looking down.
    up = arm.forward(np.zeros(7))
    np.testing.assert_allclose(up[:3], [0.088, 0, 0.926], atol=1e-12)
    np.testing.assert_allclose(np.abs(up[3:]), [np.pi, 0, 0], atol=1e-9)
    table = Table(draw_scene(0, 1), cameras=())
    for k in range(20):
        joints = rng(k).uniform(arm.LOWEST, arm.HIGHEST)
        table.data.qpos[:7] = joints
        table._mujoco.mj_forward(table.model, table.data)
        body = table.model.body("gripper").id
        flange = arm.joint_frames(joints)[7]
        np.testing.assert_allclose(table.data.xpos[body], flange[:3, 3], atol=1e-6)
        np.testing.assert_allclose(table.data.xmat[body].reshape(3, 3), flange[:3, :3], atol=1e-6)
        np.testing.assert_allclose(table.model.jnt_range[:7], np.stack([arm.LOWEST, arm.HIGHEST], 1))


def test_rotations_are_scipys() -> None:
    for k in range(50):
        euler = rng(k).uniform(-3.1, 3.1, 3)
        turn = arm.rotation_of(euler)
        known = Rotation.from_euler("xyz", euler)
        np.testing.assert_allclose(turn, known.as_matrix(), atol=1e-12)
        np.testing.assert_allclose(arm.rotation_of(arm.euler_of(turn)), turn, atol=1e-9)
        np.testing.assert_allclose(
            Rotation.from_rotvec(arm.rotation_vector(turn)).as_matrix(), turn, atol=1e-9
        )
    half = arm.rotation_of(np.array([np.pi, 0, 0.3]))
    np.testing.assert_allclose(Rotation.from_rotvec(arm.rotation_vector(half)).as_matrix(), half, atol=1e-6)
    pose, other = np.array([0.4, 0.1, 0.3, 3.0, 0.1, 0.5]), np.array([0.5, 0.0, 0.2, -3.1, 0.0, -0.4])
    back = arm.add_pose(arm.pose_change(other, pose), pose)
    np.testing.assert_allclose(back[:3], other[:3], atol=1e-12)
    np.testing.assert_allclose(arm.rotation_of(back[3:]), arm.rotation_of(other[3:]), atol=1e-9)


def test_frames_that_are_kept_cannot_be_changed_by_who_asked() -> None:
    first = arm.joint_frames(arm.RESET)
    with pytest.raises(ValueError, match="read-only"):
        first[7] += 1
    moved = arm.joint_frames(arm.RESET + 0.1)
    assert not np.array_equal(first, moved) and np.array_equal(arm.joint_frames(arm.RESET.tolist()), first)


def test_jacobian_is_the_derivative() -> None:
    joints = rng(3).uniform(arm.LOWEST, arm.HIGHEST)
    frames = arm.joint_frames(joints)
    moves = arm.jacobian(frames)
    for i in range(7):
        step = np.zeros(7)
        step[i] = 1e-6
        after = arm.joint_frames(joints + step)[7]
        np.testing.assert_allclose((after[:3, 3] - frames[7, :3, 3]) / 1e-6, moves[:3, i], atol=1e-5)
        turned = arm.rotation_vector(after[:3, :3] @ frames[7, :3, :3].T) / 1e-6
        np.testing.assert_allclose(turned, moves[3:, i], atol=1e-4)


def test_inverse_reaches_the_workspace_inside_the_limits() -> None:
    for k in range(60):
        place = rng(k).uniform([0.32, -0.33, 0.10], [0.72, 0.33, 0.50])
        pose = np.array([*place, np.pi, 0, rng(k, 1).uniform(-1.5, 1.5)])
        joints, left = arm.inverse(pose, arm.RESET)
        assert left < 1e-3, pose
        assert (joints >= arm.LOWEST).all() and (joints <= arm.HIGHEST).all()
        np.testing.assert_allclose(arm.forward(joints)[:3], place, atol=1e-3)
    _, left = arm.inverse([2.0, 0, 0.5, np.pi, 0, 0], arm.RESET)
    assert left > 1


# ---- DROID's conventions


@pytest.mark.parametrize("k", range(8))
def test_limits_of_a_step(k: int) -> None:
    joints, gripper = arm.RESET + rng(k).normal(0, 0.2, 7), 0.4
    for space, size in (
        ("cartesian_velocity", 7),
        ("cartesian_position", 7),
        ("joint_velocity", 8),
        ("joint_position", 8),
    ):
        wild = rng(k, 1).normal(0, 30, size)
        told = arm.action_variants(wild, space, joints=joints, gripper=gripper)  # type: ignore[arg-type]
        assert {*told} == {*VARIANTS} and all(told[name].shape == (VARIANTS[name],) for name in VARIANTS)
        target, closed = arm.within_step(told, joints, gripper)
        assert np.abs(target - joints).max() <= arm.MOST_JOINT + 1e-12
        assert abs(closed - gripper) <= arm.MOST_GRIPPER + 1e-12 and 0 <= closed <= 1
        assert (target >= arm.LOWEST).all() and (target <= arm.HIGHEST).all()
    change = arm.cartesian_change(wild[:6])
    assert np.linalg.norm(change[:3]) <= 0.075 + 1e-12 and np.linalg.norm(change[3:]) <= 0.15 + 1e-12


def test_variants_say_the_same_thing() -> None:
    velocity = np.array([0.3, -0.2, 0.1, 0.1, -0.2, 0.3, 0.5])
    told = arm.action_variants(velocity, "cartesian_velocity", joints=arm.RESET, gripper=0.25)
    pose = arm.forward(arm.RESET)
    np.testing.assert_allclose(told["cartesian_position"][:3], pose[:3] + 0.075 * velocity[:3])
    np.testing.assert_allclose(
        arm.forward(told["joint_position"])[:3], told["cartesian_position"][:3], atol=1e-3
    )
    np.testing.assert_allclose(told["joint_position"], arm.RESET + 0.2 * told["joint_velocity"])
    assert told["gripper_position"][0] == pytest.approx(0.25 + 0.5 * 0.25)
    again = arm.action_variants(
        np.r_[told["cartesian_position"], told["gripper_position"]],
        "cartesian_position",
        joints=arm.RESET,
        gripper=0.25,
    )
    for name in VARIANTS:
        np.testing.assert_allclose(again[name], told[name], atol=1e-6)
    for bad, space in (
        (np.zeros(8), "cartesian_velocity"),
        (np.full(7, np.nan), "cartesian_velocity"),
        (np.zeros(7), "torque"),
    ):
        with pytest.raises(HeedfulError):
            arm.action_variants(bad, space, joints=arm.RESET, gripper=0)  # type: ignore[arg-type]


def test_grip_released_is_an_action_of_zero_and_no_motion() -> None:
    table = Table(draw_scene(0, 1), cameras=())
    task = Task("lift", table.scene.things[0].name)
    table.reset(draw_layout(table.scene, task, rng(0)))
    before = table.joints
    for _ in range(5):
        table.hold()
    assert not table.action["cartesian_velocity"].any() and not table.action["gripper_velocity"].any()
    np.testing.assert_allclose(
        table.action["cartesian_position"][:3], arm.forward(table.joints)[:3], atol=1e-4
    )
    np.testing.assert_allclose(table.joints, before, atol=2e-3)
    table.act([0, 0, 0, 0, 0, 0, 1])
    table.act([0, 0, 0, 0, 0, 0, 1])
    assert table.gripper > 0.2


def test_a_simulation_that_broke_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MuJoCo itself only counts a warning, which it logs in the working folder, and begins again from the start."""
    monkeypatch.chdir(tmp_path)
    table = Table(draw_scene(0, 1), cameras=())
    table.reset(draw_layout(table.scene, Task("lift", table.scene.things[0].name), rng(0)))
    table.act(np.zeros(7))
    table.data.qvel[0] = 1e12
    with pytest.raises(HeedfulError, match="scene 1 became unstable at step 1"):
        table.act(np.zeros(7))


def test_what_is_held_stays_held_while_the_gripper_is_asked_for_nothing() -> None:
    table = Table(draw_scene(0, 2), cameras=())
    task = Task("lift", "red block")
    table.reset(draw_layout(table.scene, task, rng(0)))
    operator = Operator(table, task, rng(1), mistake="", pauses=False)
    while not operator.done:
        action = operator.act()
        if not operator.done:
            table.hold() if action is None else table.act(action)
    assert table.succeeded(task)
    for _ in range(15):
        table.act([0.0, 0.2, 0.0, 0, 0, 0, 0])
    assert table.place("red block").touched and table.place("red block").at[2] > table.scene.height + 0.06
    for _ in range(4):
        table.act([0, 0, 0, 0, 0, 0, -1])
    assert not table.place("red block").touched


# ---- scenes


def test_scenes_are_functions_of_their_numbers_and_differ() -> None:
    scenes = [draw_scene(0, n) for n in range(20)]
    assert scenes == [draw_scene(0, n) for n in range(20)]
    assert len({scene.cameras for scene in scenes}) == 20 and draw_scene(1, 0) != scenes[0]
    assert len({draw_scene(0, n, fixed_cameras=True).cameras for n in range(5)}) == 1
    assert {task.verb for scene in scenes for task in tasks_of(scene)} == {*VERBS} and len(THINGS) == 12
    heights = [scene.height for scene in scenes]
    assert min(heights) < -0.02 and max(heights) > 0.02
    errors = np.array([noisy_calibration(s, 0)[:3] - s.cameras[0].pose()[:3] for s in scenes])
    assert 0.004 < np.median(np.linalg.norm(errors, axis=1)) < 0.05


def test_layouts_are_apart_and_within_reach() -> None:
    from heedful.data.table import room_of

    for n in range(12):
        scene = draw_scene(0, n)
        task = draw_task(scene, rng(n))
        places = draw_layout(scene, task, rng(n, 1)).places
        names = [*places]
        for i, one in enumerate(names):
            for other in names[:i]:
                gap = np.hypot(*(np.subtract(places[one][:2], places[other][:2])))
                assert gap > room_of(scene, one) + room_of(scene, other)
            assert 0.3 < places[one][0] < 0.75
    with pytest.raises(HeedfulError, match="must have a place"):
        Table(draw_scene(0, 0), cameras=()).reset(Layout({}))


def test_every_training_scene_has_room_for_each_kind_of_task() -> None:
    for made in SETS.values():
        for number in range(made.first, made.first + made.scenes):
            scene = draw_scene(0, number)
            kinds = {(task.verb, task.target): task for task in tasks_of(scene)}
            for task in kinds.values():
                draw_layout(scene, task, rng(number))


def test_variants_of_a_scene_change_what_they_say() -> None:
    scene = held_out_scene(0)
    more, other, moved = (vary(scene, v, 0) for v in ("distractors", "instance", "camera"))
    assert len(more.things) == len(scene.things) + 3 and more.cameras == scene.cameras
    assert [t.name for t in other.things] == [t.name for t in scene.things]
    assert all(
        a.colour != b.colour and a.across != b.across for a, b in zip(other.things, scene.things, strict=True)
    )
    for before, after in zip(scene.cameras, moved.cameras, strict=True):
        assert 0.0499 < np.linalg.norm(np.subtract(after.at, before.at)) < 0.1001
    assert vary(scene, "", 0) == scene
    task = in_domain_tasks(0)[0]
    plain, crowded = draw_trial(0, 3, task)[1], draw_trial(0, 3, task, "distractors")[1]
    assert {**crowded.places, **plain.places} == crowded.places and len(crowded.places) == len(
        plain.places
    ) + 3


def test_calibration_projects_things_to_where_they_are_seen() -> None:
    """A red block alone on a grey table: the middle of the red pixels is the projection of its middle."""
    scene = draw_scene(0, 1)
    scene = replace(
        scene, things=(THINGS["red block"],), fixtures=(), drawer="", pattern="flat", colours=((0.5, 0.5, 0.5),) * 2,
        room=((0.4, 0.4, 0.4), (0.6, 0.6, 0.6)),
    )  # fmt: skip
    table = Table(scene, size=(180, 320))
    seen = table.reset(Layout({"red block": (0.5, 0.05, 0.4)}))
    for camera in CAMERAS:
        picture = seen[camera].astype(int)
        red = (
            (picture[..., 0] > 90)
            & (picture[..., 1] < 0.5 * picture[..., 0])
            & (picture[..., 2] < 0.5 * picture[..., 0])
        )
        rows, columns = np.nonzero(red)
        assert len(rows) > 15, camera
        at = project(table.place("red block").at, table.extrinsics(camera), table.intrinsics(camera))[0]
        np.testing.assert_allclose(at, [columns.mean() + 0.5, rows.mean() + 0.5], atol=4)
    table.close()


def test_a_table_left_open_is_closed_before_the_program_takes_its_modules_apart() -> None:
    left = """
import atexit
def after():  # registered first, so it runs last
    try:
        table.observe()
    except Exception as error:
        print(error)
atexit.register(after)
from heedful.data.table import Table
from heedful.data.table.scene import draw_scene
table = Table(draw_scene(0, 0), size=(48, 64))
print(table.observe()["wrist_left"].shape)
"""
    ended = subprocess.run(
        [sys.executable, "-c", left], capture_output=True, text=True, check=True, timeout=120
    )
    assert ended.stdout.split("\n")[:2] == ["(48, 64, 3)", "the table has been closed"] and not ended.stderr


def test_backend_is_chosen_once_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "egl")
    assert choose_backend() == "egl"
    monkeypatch.delenv("MUJOCO_GL")
    assert choose_backend() in ("egl", "osmesa", "")
    with pytest.raises(HeedfulError, match="960 x 1280"):
        Table(draw_scene(0, 0), size=(5000, 10))
    with pytest.raises(HeedfulError, match="no camera"):
        Table(draw_scene(0, 0), cameras=("top",))


# ---- the operator


def test_operator_succeeds_without_mistakes_and_fails_with_them() -> None:
    good = [play(n // 2, n)[:2] for n in range(20)]
    assert sum(table.succeeded(task) for table, task in good) >= 17
    assert len({task.verb for _, task in good}) >= 4
    bad = [play(n // 2, n, mistake="stop")[:2] for n in range(5)]
    assert sum(table.succeeded(task) for table, task in bad) <= 1


def test_nothing_succeeds_before_it_is_done() -> None:
    for n in range(6):
        scene = draw_scene(0, n)
        table = Table(scene, cameras=())
        for verb in dict.fromkeys(task.verb for task in tasks_of(scene)):
            task = next(task for task in tasks_of(scene) if task.verb == verb)
            table.reset(draw_layout(scene, task, rng(n)))
            assert not table.succeeded(task), task


def digest(episode: Any) -> str:
    found = hashlib.sha256()
    for frame in episode.frames:
        for name in sorted(frame):
            found.update(np.ascontiguousarray(frame[name]).tobytes())
    return found.hexdigest() + repr(sorted(episode.meta.items(), key=str))


def test_episodes_are_functions_of_seed_and_index() -> None:
    first = digest(make_episode("diverse", 0, 21, SMALL))
    make_episode("diverse", 0, 40, SMALL)  # another scene in between
    assert digest(make_episode("diverse", 0, 21, SMALL)) == first
    assert digest(make_episode("diverse", 1, 21, SMALL)) != first
    with pytest.raises(HeedfulError, match="0 to 1199"):
        make_episode("diverse", 0, 1200, SMALL)


def test_episode_in_droids_columns() -> None:
    episode = make_episode("diverse", 0, 22, SMALL)
    frames, meta = episode.frames, episode.meta
    features = table_info(SMALL).features
    assert all({*frame} == {*features} for frame in frames)
    for frame in frames:
        for name, feature in features.items():
            assert np.shape(frame[name]) in (feature.shape, ()), name
        np.testing.assert_allclose(
            frame["action.original"],
            np.r_[frame["action.cartesian_position"], frame["action.gripper_position"]],
        )
        np.testing.assert_allclose(
            frame["action"], np.r_[frame["action.joint_position"], frame["action.gripper_position"]]
        )
        np.testing.assert_allclose(
            arm.forward(frame["observation.state.joint_position"]),
            frame["observation.state.cartesian_position"],
        )
    idle = [frame for frame in frames if frame["skip_action"]]
    assert len(idle) == meta["idle_frames"] and all(not f["action.cartesian_velocity"].any() for f in idle)
    assert [frame["is_last"] for frame in frames] == [False] * (len(frames) - 1) + [True]
    assert frames[-1]["reward"] == float(meta["is_episode_successful"])
    assert len({*episode.instructions}) == 3 and meta["language_instruction_2"] == episode.instructions[1]
    one = make_episode("oxe", 0, 1, SMALL)
    assert (
        one.frames[0]["action"].shape == (7,) and one.frames[0]["observation.state"][-1] > 0.9
    )  # open is 1 there


def test_sets_are_what_droid_mini_needs() -> None:
    assert {name: one.episodes for name, one in SETS.items()} == {
        "diverse": 1200, "narrow": 1200, "oxe": 1200, "full": 2400, "in_domain": 120,
    }  # fmt: skip
    assert held_out_scene(0).number >= HELD_OUT and len({t.verb for t in in_domain_tasks(0)}) == 3
    assert make_episode("in_domain", 0, 45, SMALL).meta["is_episode_successful"] is True


def test_a_set_is_written_and_continued(tmp_path: Path) -> None:
    assert generate(tmp_path / "a", "diverse", episodes=2, size=SMALL) == 2
    assert generate(tmp_path / "b", "diverse", episodes=1, size=SMALL) == 1
    assert generate(tmp_path / "b", "diverse", episodes=2, size=SMALL) == 2
    a, b = open_episodes(tmp_path / "a"), open_episodes(tmp_path / "b")
    for i in range(2):
        left, right = a.columns(i), b.columns(i)
        assert a.episode(i) == b.episode(i) and all((left[name] == right[name]).all() for name in left)
        picture = a.frames(i, "observation.images.wrist_left", [2])[0]
        assert picture.shape == (*SMALL, 3) and picture.std() > 5
    with pytest.raises(HeedfulError, match="holds 'diverse'"):
        generate(tmp_path / "a", "narrow", episodes=1, size=SMALL)
    with pytest.raises(HeedfulError, match="there is no data set"):
        generate(tmp_path / "c", "wide")
    with pytest.raises(HeedfulError, match="not 'diverse' of seed 0 with 2 episodes of a scene"):
        generate(tmp_path / "a", "diverse", per_scene=2, size=SMALL)


def test_a_smaller_set_has_as_many_scenes() -> None:
    assert {name: set_of(name, 2).episodes for name in ("diverse", "narrow", "full")} == {
        "diverse": 120, "narrow": 6, "full": 240,
    }  # fmt: skip
    one = make_episode("diverse", 0, 5, SMALL, per_scene=2)
    assert one.meta["scene_id"] == 2 and make_episode("diverse", 0, 5, SMALL).meta["scene_id"] == 0
    with pytest.raises(HeedfulError, match="in_domain cannot have 3"):
        set_of("in_domain", 3)


def test_run_episode_leaves_mistakes_to_its_caller() -> None:
    scene = draw_scene(0, 2)
    table = Table(scene, cameras=())
    task = next(task for task in tasks_of(scene) if task.verb == "lift")
    layout = draw_layout(scene, task, rng(1))
    good = run_episode(table, layout, task, rng(2), mistake="", pauses=False)
    missed = run_episode(table, layout, task, rng(2), mistake="miss", pauses=False)
    assert good.meta["is_episode_successful"] and not missed.meta["is_episode_successful"]
    assert missed.meta["operator_mistake"] == "miss" and good.meta["idle_frames"] == 0
