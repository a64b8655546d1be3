"""The checks that look at pictures: lost frames of videos, cameras that stand still, calibration, scenes twice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heedful.data.episodes import Episodes
from heedful.data.episodes.check_survey import Finding, Survey
from heedful.data.episodes.copy import resized
from heedful.data.episodes.ranges import runs
from heedful.data.episodes.video import Videos
from heedful.errors import HeedfulError

Array = NDArray[Any]
PIXELS_OFF = 0.025
"""Median distance, as a share of the picture's width, between the gripper and where the calibration puts it."""
SHIFT_OFF = 0.02
"""The same where the gripper is found by what stands out from the background."""
WINDOW, SEARCH = 0.25, 0.14
"""Half the side of what is looked at around the gripper, and how far it is shifted, as shares of the width."""
EPISODES_NEEDED = 5
FROZEN = 4.0
"""Grey levels by which no block of a picture may change if the camera stands still; codecs change them by less."""
MOVING = 18
"""Grey levels by which a pixel must differ from the background to stand out."""
SAME_SCENE = 0.2
"""Distance of two scenes' backgrounds, 1 - correlation, below which they are one."""
SIGNATURE = (18, 24)
LOOKS = 6
"""Frames of an episode that its background is made of."""
GRIPPER = ("observation.state.cartesian_position", "observation.cartesian_position")


def check_videos(seen: Survey) -> list[Finding]:
    """Frames of the tables that no picture belongs to, without decoding; and files with other counts than theirs."""
    episodes, found = seen.episodes, []
    videos = Videos()
    for camera in episodes.info.cameras:
        expected: dict[Path, tuple[int, int]] = {}
        named: set[Path] = set()  # of these a finding says already that something is lost
        unplaced = len(seen.columns) < len(episodes)
        for i in seen.columns:
            length, film = episodes.episode(i).length, None
            try:
                film = episodes.film(i, camera)
                if film is None:
                    found += _without_index(seen, i, camera, length)
                    continue
                if not film[0].is_file():
                    raise HeedfulError(f"camera {camera}: its video {film[0].name} is missing")
                video = videos[film[0]]
                fps = episodes.info.fps
                places = video.at([film[1] + k / fps for k in range(length)], 0.5 / fps)
            except HeedfulError as error:
                found.append(Finding("dropped", "error", str(error), i, 0, length, (camera,)))
                seen.said |= {(i, camera, k) for k in range(length)}
                named |= {film[0]} if film else set()
                unplaced = unplaced or film is None
                continue
            lost = [k for k, place in enumerate(places) if place < 0]
            twice = [k for k in range(1, length) if places[k] == places[k - 1] >= 0]
            for k, told in [
                *[(k, "no picture") for k in lost[:1]],
                *[(k, "the picture before it again") for k in twice[:1]],
            ]:
                count = len(lost) if told == "no picture" else len(twice)
                text = f"camera {camera} has {told} for {count} of {length} frames"
                found.append(Finding("dropped", "error", text, i, k, 1, (camera,)))
            seen.said |= {(i, camera, k) for k in lost}
            named |= {film[0]} if lost or twice else set()
            there, last = expected.get(film[0], (0, i))
            expected[film[0]] = (there + length, last)
        for file, (count, last) in expected.items():
            # Where it is not known in which file an episode is, the pictures left over may be its own.
            if file in named or unplaced:
                continue
            pictures = len(videos[file])
            if pictures != count:
                told = f"{file.name} of camera {camera} has {pictures} pictures; its episodes have {count} frames"
                found.append(Finding("dropped", "error", told, last, columns=(camera,)))
    videos.close()
    return found


def _without_index(seen: Survey, i: int, camera: str, length: int) -> list[Finding]:
    """For layouts without an index of pictures: the last picture is asked for, since what is short is short there."""
    try:
        seen.episodes.frames(i, camera, [length - 1])
    except HeedfulError as error:
        seen.said.add((i, camera, length - 1))
        return [Finding("dropped", "error", str(error), i, length - 1, 1, (camera,))]
    return []


def _pictures(
    seen: Survey, i: int, camera: str, frames: Sequence[int], found: list[Finding]
) -> dict[int, Array]:
    """{frame: picture} of those of `frames` that can be read; the others go to `found`, but for those named before."""
    unread = [k for k in frames if (i, camera, k) not in seen.said]
    if not unread:
        return {}
    try:
        return dict(zip(unread, seen.episodes.frames(i, camera, unread), strict=True))
    except HeedfulError as error:
        wrong = {unread[0]: str(error)}
    read: dict[int, Array] = {}
    alone: dict[int, str] = {}
    for k in unread:
        try:
            read[k] = seen.episodes.frames(i, camera, [k])[0]
        except HeedfulError as error:
            alone[k] = str(error)
    wrong = alone or wrong
    seen.said |= {(i, camera, k) for k in wrong}
    groups: list[list[int]] = []
    for k, told in wrong.items():
        if groups and (k == groups[-1][-1] + 1 or told == wrong[groups[-1][-1]]):
            groups[-1].append(k)
        else:
            groups.append([k])
    found += [
        Finding("unreadable", "error", wrong[g[0]], i, g[0], g[-1] - g[0] + 1, (camera,)) for g in groups
    ]
    return read


def check_frozen(seen: Survey, at_least: int = 4) -> list[Finding]:
    """Cameras that show one picture while the arm moves: frames were lost before they were recorded.

    Every picture is decoded for it, and those that cannot be are findings too.
    """
    episodes, found = seen.episodes, []
    for i, columns in seen.columns.items():
        state = next((columns[n] for n in ("observation.state", "action") if n in columns), None)
        for camera in episodes.info.cameras:
            pictures = _pictures(seen, i, camera, range(episodes.episode(i).length), found)
            if state is None or len(state) < at_least + 1:
                continue
            step = np.abs(np.diff(state.reshape(len(state), -1), axis=0)).max(axis=1)
            moved = step > max(1e-3, 0.25 * float(np.nanpercentile(step, 90)))
            same = np.array(
                [
                    t in pictures and t + 1 in pictures and _same_picture(pictures[t + 1], pictures[t])
                    for t in range(len(step))
                ]
            )
            for a, b in runs(same & moved):
                if b - a >= at_least:
                    told = f"camera {camera} shows one picture while the arm moves"
                    found.append(Finding("dropped", "warning", told, i, a + 1, b - a, (camera,)))
    return found


def _same_picture(a: Array, b: Array) -> bool:
    """Whether nothing but the codec differs: no block of 8 by 8 pixels has another mean."""
    height, width = a.shape[0] // 8 * 8, a.shape[1] // 8 * 8
    change = (a.astype(np.int16) - b)[:height, :width]
    blocks = change.reshape(height // 8, 8, width // 8, 8, 3).mean(axis=(1, 3))
    return bool(np.abs(blocks).max() < FROZEN)


# ---- calibration


def euler_matrix(angles: Array) -> Array:
    """(3, 3) rotation of Euler angles about x, y and z of the fixed axes (SciPy's "xyz"), radians."""
    a, b, c = angles
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return z @ y @ x


def project(points: Array, pose: Array, intrinsics: Sequence[float]) -> Array:
    """(T, 2) pixels of `points`, (T, 3) in the robot's base. pose: the camera's in the base, x y z and Euler angles;
    intrinsics: fx, fy, cx, cy. Behind the camera it is NaN. DROID's convention (spec 2.3)."""
    seen = (np.asarray(points) - pose[:3]) @ euler_matrix(np.asarray(pose[3:]))
    depth = np.where(seen[:, 2] > 1e-6, seen[:, 2], np.nan)
    fx, fy, cx, cy = intrinsics
    return np.stack([fx * seen[:, 0] / depth + cx, fy * seen[:, 1] / depth + cy], axis=1)


def check_calibration(seen: Survey) -> list[Finding]:
    """Cameras whose extrinsics put the gripper where it is not.

    The gripper's position is projected into the picture. Where a column `keypoint.CAMERA`, (2,) pixels, says where it
    was seen, the two are compared. Else what stands out from the background around the projected point is compared
    with the same of the camera's other episodes: an episode whose picture of the gripper is shifted against most of
    them has other extrinsics than its camera. Needs camera_extrinsics.CAMERA, (6,), intrinsics as a column
    camera_intrinsics.CAMERA or in info.json under cameras, (fx, fy, cx, cy), and the gripper's position.
    """
    episodes, found = seen.episodes, []
    known: Any = episodes.info.extra.get("cameras") or {}
    grip = next((n for n in GRIPPER if n in episodes.info.columns), None)
    for camera in episodes.info.cameras:
        short = camera.split(".")[-1]
        pose_name = f"camera_extrinsics.{short}"
        if grip is None or pose_name not in episodes.info.columns or "wrist" in short:
            continue
        height, width = episodes.info.features[camera].shape[:2]
        off: dict[int, float] = {}
        patches: dict[int, Array] = {}
        for i, columns in seen.columns.items():
            if grip not in columns or pose_name not in columns:
                continue
            given = columns.get(f"camera_intrinsics.{short}")
            told = episodes.episode(i).meta.get(f"camera_intrinsics.{short}")
            facts = given[0] if given is not None else told or known.get(short)
            if facts is None:
                found.append(
                    Finding("calibration", "note", f"camera {short} has no intrinsics", columns=(camera,))
                )
                break
            pixels = project(columns[grip][:, :3], columns[pose_name][0], list(map(float, facts)))
            marked = columns.get(f"keypoint.{short}")
            if marked is not None:
                away = np.linalg.norm(marked - pixels, axis=1)
                off[i] = float(np.nanmedian(away)) if np.isfinite(away).any() else float(width)
                continue
            looks = np.unique(np.linspace(0, len(pixels) - 1, 24).astype(int)).tolist()
            pictures = _pictures(seen, i, camera, looks, found)
            if len(pictures) == len(looks):
                patches[i] = _around(np.stack(list(pictures.values())), pixels[looks], (height, width))
        off |= _shifts(patches, width)
        # Shifts are whole pixels, so two of them say nothing in a small picture.
        limit = max(SHIFT_OFF * width, 2.0) if patches else PIXELS_OFF * width
        for i, distance in off.items():
            if distance > limit:
                told = f"camera {short}: the gripper is about {distance:.0f} pixels from where the extrinsics put it"
                found.append(Finding("calibration", "error", told, i, columns=(camera, pose_name)))
    return found


def _around(pictures: Array, pixels: Array, size: tuple[int, int]) -> Array:
    """How often each place around the projected gripper, (n, 2) pixels, stands out from the pictures' background."""
    height, width = size
    reach = round(WINDOW * width)
    pictures = pictures.astype(np.int16)
    stands_out = np.abs(pictures - np.median(pictures, axis=0)).max(axis=3) > MOVING
    total = np.zeros((2 * reach + 1, 2 * reach + 1))
    for mask, (u, v) in zip(stands_out, pixels, strict=True):
        if np.isfinite((u, v)).all() and 0 <= u < width and 0 <= v < height:
            padded = np.pad(mask, reach)
            row, column = round(float(v)), round(float(u))
            total += padded[row : row + 2 * reach + 1, column : column + 2 * reach + 1][
                : len(total), : len(total)
            ]
    return total


def _shifts(patches: dict[int, Array], width: int) -> dict[int, float]:
    """Pixels by which each episode's surroundings of the gripper are shifted against most of the others'."""
    whole = {i: patch / np.linalg.norm(patch) for i, patch in patches.items() if patch.any()}
    if len(whole) < EPISODES_NEEDED:
        return {}
    most = np.median(list(whole.values()), axis=0)
    reach, size = round(SEARCH * width), len(most)
    found: dict[int, float] = {}
    inner = most[reach : size - reach, reach : size - reach]
    inner = inner - inner.mean()
    for i, patch in whole.items():
        best, at = -np.inf, (0, 0)
        for dy in range(-reach, reach + 1):
            for dx in range(-reach, reach + 1):
                part = patch[reach + dy : size - reach + dy, reach + dx : size - reach + dx]
                part = part - part.mean()
                alike = float((part * inner).sum() / max(float(np.linalg.norm(part)), 1e-9))
                if alike > best:
                    best, at = alike, (dy, dx)
        found[i] = float(np.hypot(*at))
    return found


# ---- scenes


def background(episodes: Episodes, i: int, camera: str) -> Array:
    """An episode's background seen by a camera: the median of some frames, small, grey, of mean 0 and length 1."""
    looks = _looks(episodes.episode(i).length)
    small = np.stack([resized(p, SIGNATURE) for p in episodes.frames(i, camera, looks)])
    grey = np.median(small, axis=0).mean(axis=2)
    grey = grey - grey.mean()
    return grey.ravel() / max(float(np.linalg.norm(grey)), 1e-9)


def _looks(length: int) -> list[int]:
    return np.unique(np.linspace(0, length - 1, LOOKS).astype(int)).tolist()


def scene_groups(
    episodes: Episodes, chosen: Iterable[int] | None = None
) -> tuple[dict[str, str], list[tuple[int, str, str]]]:
    """({scene: the scene it is the same as}, problems): scenes of one place whose backgrounds are alike.

    A scene is a `scene_id`; only scenes of one robot, laboratory and building are compared (the paper's own rule), by
    the cameras outside: all of them must be alike. problems: (episode, camera, why) of pictures that cannot be read;
    such an episode is left out.
    """
    cameras = [c for c in episodes.info.cameras if "wrist" not in c]
    seen: dict[str, dict[str, list[Array]]] = {}
    place: dict[str, tuple[str, ...]] = {}
    problems: list[tuple[int, str, str]] = []
    for i in range(len(episodes)) if chosen is None else chosen:
        camera, views = "", {}
        try:
            meta = episodes.episode(i).meta
            if meta.get("scene_id") is None or not cameras:
                continue
            for camera in cameras:
                views[camera] = background(episodes, i, camera)
        except HeedfulError as error:
            problems.append((i, camera, str(error)))
            continue
        scene = str(meta["scene_id"])
        for camera, view in views.items():
            seen.setdefault(scene, {}).setdefault(camera, []).append(view)
        place[scene] = tuple(str(meta.get(n, "")) for n in ("robot_serial", "lab", "building"))
    scenes = list(place)
    means = {s: {c: np.median(v, axis=0) for c, v in seen[s].items()} for s in scenes}
    first = {scene: scene for scene in scenes}
    for k, a in enumerate(scenes):
        for b in scenes[:k]:
            if place[a] == place[b] and _alike(means[a], means[b]):
                first[a] = first[b]
                break
    return first, problems


def _alike(a: dict[str, Array], b: dict[str, Array]) -> bool:
    shared = a.keys() & b.keys()
    return bool(shared) and all(
        1 - float(a[c] @ b[c]) / max(float(np.linalg.norm(a[c]) * np.linalg.norm(b[c])), 1e-9) < SAME_SCENE
        for c in shared
    )


def check_scenes(seen: Survey) -> list[Finding]:
    """Scenes that are counted twice, and episodes that are there twice."""
    first, problems = scene_groups(seen.episodes, seen.columns)
    found: list[Finding] = []
    for i, camera, _ in problems:
        _pictures(seen, i, camera, _looks(seen.episodes.episode(i).length), found)
    found += [
        Finding("scenes", "warning", f"scene {scene} looks like scene {same}", columns=(same, scene))
        for scene, same in first.items()
        if same != scene
    ]
    known: dict[bytes, int] = {}
    for i, values in seen.each("action"):
        same = known.setdefault(values.tobytes(), i)
        if same != i and len(values):
            found.append(
                Finding("scenes", "warning", f"its actions are those of episode {same}, number for number", i)
            )
    return found


PICTURE_CHECKS = {
    "videos": check_videos,
    "frozen": check_frozen,
    "calibration": check_calibration,
    "scenes": check_scenes,
}
