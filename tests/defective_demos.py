"""Demonstrations with seeded defects, and how well each check finds them.

    PYTHONPATH=src python tests/defective_demos.py 40

prints the table of docs/demos.md. The clean data has what the checks could take for a defect: short pauses, quick
moves, a gripper that closes in a frame, an angle that turns past pi, scenes in one room, buildings with one collector.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from heedful.data.episodes import Episodes, open_episodes
from heedful.data.episodes.check import CHECKS
from heedful.data.episodes.check_pictures import PICTURE_CHECKS, project
from heedful.data.episodes.check_survey import Finding, survey
from heedful.data.episodes.loaded import Loaded, LoadedEpisodes

FPS, EPISODES, FRAMES = 15.0, 8, 60
HEIGHT, WIDTH = 72, 96
INTRINSICS = (90.0, 90.0, 48.0, 36.0)
CAMERAS = ("exterior_1_left", "exterior_2_left")
Truth = set[Any]


@dataclass
class World:
    """Episodes in memory and what they are drawn from."""

    episodes: list[Loaded]
    fps: float = FPS


def pose_of(rng: np.random.Generator, side: int) -> np.ndarray:
    """A camera about 1 m from the workspace that looks at its middle: x y z and Euler angles."""
    from heedful.data.episodes.check_pictures import euler_matrix

    eye = np.array(
        [0.5 + rng.uniform(-0.1, 0.1), side * (0.9 + rng.uniform(0, 0.2)), 0.5 + rng.uniform(0, 0.2)]
    )
    ahead = np.array([0.5, 0.0, 0.2]) - eye
    z = ahead / np.linalg.norm(ahead)
    x = np.cross(z, [0, 0, 1.0])
    x /= np.linalg.norm(x)
    matrix = np.stack([x, np.cross(z, x), z], axis=1)
    angles = np.array(
        [
            np.arctan2(matrix[2, 1], matrix[2, 2]),
            -np.arcsin(matrix[2, 0]),
            np.arctan2(matrix[1, 0], matrix[0, 0]),
        ]
    )
    assert np.allclose(euler_matrix(angles), matrix)
    return np.concatenate([eye, angles])


def smooth(rng: np.random.Generator, frames: int, size: int, reach: float) -> np.ndarray:
    """A path of `size` numbers made of three slow waves, with a pause too short to be idle."""
    t = np.arange(frames) / FPS
    path = sum(
        rng.uniform(0.4, 1, size)
        * np.sin(2 * np.pi * rng.uniform(0.15, 0.5, size) * t[:, None] + rng.uniform(0, 6.3, size))
        for _ in range(3)
    )
    at, pause = int(rng.integers(10, frames - 20)), int(rng.integers(2, 5))
    order = np.concatenate([np.arange(at), np.full(pause, at), np.arange(at, frames - pause)])
    return reach * path[order] / 3


def scene_picture(
    seed: int, camera: int, t_noise: int, gripper: np.ndarray, objects: int, light: float = 0.0
) -> np.ndarray:
    """The scene's background, a few objects, and the arm down to the gripper at pixel `gripper`."""
    rng = np.random.default_rng([seed, camera])
    coarse = rng.uniform(40, 200, (5, 6, 3))
    rows = np.kron(coarse, np.ones((15, 16, 1)))[:HEIGHT, :WIDTH]
    image = rows + light
    items = np.random.default_rng([seed, camera, objects])
    for _ in range(3):
        r, c = items.integers(5, HEIGHT - 12), items.integers(5, WIDTH - 12)
        image[r : r + 7, c : c + 7] = items.uniform(0, 255, 3)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    if np.isfinite(gripper).all():
        u, v = gripper
        arm = (np.abs(x - u) < 2.5) & (y < v)
        image[arm] = (225, 225, 230)
        image[(x - u) ** 2 + (y - v) ** 2 < 9] = (20, 20, 20)
    noise = np.random.default_rng([seed, camera, t_noise, 7]).normal(0, 2, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def episode(seed: int, i: int, scene: int, *, light: float = 0.0, objects: int | None = None) -> Loaded:
    """One clean episode."""
    rng = np.random.default_rng([seed, i])
    joints = smooth(rng, FRAMES + 1, 7, 0.6)
    middle = np.array([0.5, 0.0, 0.2, 3.1, 0.0, 0.0])
    hand = middle + smooth(rng, FRAMES + 1, 6, 1.0) * [0.15, 0.2, 0.12, 0.2, 0.2, 0.3]
    hand[:, 3] = (hand[:, 3] + np.pi) % (2 * np.pi) - np.pi  # turns past pi
    joint_speed = np.gradient(joints, axis=0) * FPS
    hand_speed = np.gradient(hand, axis=0) * FPS
    noise = rng.normal(0, 1e-4, joint_speed.shape)
    grip = (np.arange(FRAMES + 1) > rng.integers(20, 40)).astype(float)[:, None]
    static = np.random.default_rng([seed, 10_000 + scene])
    columns = {
        "observation.state.joint_position": joints[:-1],
        "observation.state.joint_velocity": (joint_speed + noise)[:-1],
        "observation.state.cartesian_position": hand[:-1],
        "observation.state": np.concatenate([joints, grip], axis=1)[:-1],
        "action.joint_position": joints[1:],
        "action.joint_velocity": (joint_speed + noise)[1:],
        "action.cartesian_position": hand[1:],
        "action.cartesian_velocity": hand_speed[1:],
        "action": np.concatenate([joints, grip], axis=1)[1:],
        "action.original": np.concatenate([joint_speed[1:, :6] + noise[1:, :6], grip[1:]], axis=1),
    }
    columns = {name: values.astype(np.float32) for name, values in columns.items()}
    pictures: dict[str, Any] = {}
    for k, camera in enumerate(CAMERAS):
        pose = pose_of(static, 1 if k else -1)
        columns[f"camera_extrinsics.{camera}"] = np.tile(pose.astype(np.float32), (FRAMES, 1))
        columns[f"camera_intrinsics.{camera}"] = np.tile(np.float32(INTRINSICS), (FRAMES, 1))
        pixels = project(hand[:-1, :3], pose, INTRINSICS)
        pictures[f"observation.images.{camera}"] = _draw(
            seed * 100 + scene, k, i, pixels, i if objects is None else objects, light
        )
    meta = {
        "scene_id": 100 + scene,
        "lab": "LAB",
        "robot_serial": "r1",
        "building": f"house {scene % 2}",
        "task_category": ("pick", "fold", "wipe")[i % 3],
        "collector_id": f"person {(scene + i) % 3}",
        "date": f"2023-0{1 + i % 9}-0{1 + scene}",
        "success": bool(i % 4),
    }
    return Loaded(FRAMES, (f"put it in box {i % 3}",), columns, pictures, meta)


def _draw(
    seed: int, camera: int, i: int, pixels: np.ndarray, objects: int, light: float
) -> Callable[..., np.ndarray]:
    return lambda wanted: np.stack(
        [scene_picture(seed, camera, 1000 * i + k, pixels[k], objects, light) for k in wanted]
    )


def clean(seed: int) -> World:
    """Eight episodes in four scenes."""
    return World([episode(seed, i, i // 2) for i in range(EPISODES)])


def opened(world: World) -> Episodes:
    """The world as episodes."""
    rows = world.episodes

    def load(i: int) -> Loaded:
        return replace(rows[i], columns=dict(rows[i].columns))

    return LoadedEpisodes(Path("memory"), "memory (DROID)", len(rows), load, fps=world.fps)


# ---- defects; each returns what is wrong


def idle(world: World, rng: np.random.Generator) -> Truth:
    """The dead man's grip is let go for half a second and more."""
    chosen = rng.choice(EPISODES, 3, replace=False)
    for i in chosen:
        columns, at, count = world.episodes[i].columns, int(rng.integers(5, 35)), int(rng.integers(8, 20))
        for name, values in columns.items():
            if "velocity" in name:
                values[at : at + count] = rng.normal(0, 1e-4, values[at : at + count].shape)
            elif name.split(".")[0] in ("action", "observation"):
                values[at : at + count] = values[at]
    return set(map(int, chosen))


def jump(world: World, rng: np.random.Generator) -> Truth:
    """A commanded joint is far off for one frame."""
    chosen = rng.choice(EPISODES, 3, replace=False)
    for i in chosen:
        t, d, size = (
            int(rng.integers(5, 55)),
            int(rng.integers(0, 7)),
            rng.choice([-1, 1]) * rng.uniform(0.4, 1.2),
        )
        for name in ("action.joint_position", "action"):
            world.episodes[i].columns[name][t, d] += size
    return set(map(int, chosen))


def nan(world: World, rng: np.random.Generator) -> Truth:
    """A number that is none."""
    chosen = rng.choice(EPISODES, 3, replace=False)
    for i in chosen:
        columns = world.episodes[i].columns
        name = str(rng.choice([n for n in columns if not n.startswith("camera")]))
        columns[name][int(rng.integers(0, FRAMES)), 0] = rng.choice([np.nan, np.inf])
    return set(map(int, chosen))


def rate(world: World, rng: np.random.Generator) -> Truth:
    """The data set says 10, 20 or 30 frames a second, and was recorded at 15."""
    world.fps = float(rng.choice([10, 20, 30]))
    return {"set"}


def copies(world: World, rng: np.random.Generator) -> Truth:
    """One column of the metadata is written over another, as in DROID's LeRobot port (lerobot issue 4402)."""
    names = ["task_category", "building", "collector_id", "date"]
    a, b = rng.choice(names, 2, replace=False)
    for row in world.episodes:
        row.meta = {**row.meta, a: row.meta[b]}
    return {frozenset((str(a), str(b)))}


def action(world: World, rng: np.random.Generator) -> Truth:
    """`action.original` is documented as joint velocities and holds Cartesian positions (droid issue 77)."""
    for row in world.episodes:
        row.columns["action.original"][:, :6] = row.columns["action.cartesian_position"]
    return {"set"}


def calibration(world: World, rng: np.random.Generator) -> Truth:
    """Extrinsics that are 5 cm and 5 degrees off, each in a random direction."""
    found = set()
    for i in rng.choice(EPISODES, 3, replace=False):
        camera = str(rng.choice(CAMERAS))
        pose = world.episodes[i].columns[f"camera_extrinsics.{camera}"]
        for part, size in ((slice(0, 3), 0.05), (slice(3, 6), np.radians(5))):
            way = rng.normal(size=3)
            pose[:, part] += (size * way / np.linalg.norm(way)).astype(np.float32)
        found.add((int(i), camera))
    return found


def marked(world: World, rng: np.random.Generator) -> Truth:
    """The same, where a detector has marked the gripper in the pictures, give or take a pixel and a half."""
    for row in world.episodes:
        for camera in CAMERAS:
            pose = row.columns[f"camera_extrinsics.{camera}"][0].astype(np.float64)
            seen = project(row.columns["observation.state.cartesian_position"][:, :3], pose, INTRINSICS)
            row.columns[f"keypoint.{camera}"] = (seen + rng.normal(0, 1.5, seen.shape)).astype(np.float32)
    return calibration(world, rng)


def scenes(world: World, rng: np.random.Generator) -> Truth:
    """A scene comes back under a new number, with other objects and other light."""
    seed = int(rng.integers(1, 2**30))
    scene = int(rng.integers(0, 3))
    world.episodes[:] = [episode(seed, i, i // 2) for i in range(EPISODES)]
    for i in (6, 7):
        again = episode(seed, i, scene, light=float(rng.uniform(-25, 25)), objects=50 + i)
        again.meta = {**again.meta, "scene_id": 100 + 3}
        world.episodes[i] = again
    return {frozenset((str(100 + scene), "103"))}


IN_MEMORY: dict[str, Callable[[World, np.random.Generator], Truth]] = {
    "idle": idle,
    "jump": jump,
    "nan": nan,
    "rate": rate,
    "copies": copies,
    "action": action,
    "calibration, gripper marked": marked,
    "calibration": calibration,
    "scenes": scenes,
}
CHECK_OF = {
    "calibration, gripper marked": "calibration",
    "dropped frame of a video": "dropped",
    "dropped rows of a table": "dropped",
    "not finalised": "files",
    "stale": "stats",
}


# ---- on disk


def write_small(folder: Path, seed: int, episodes: int = 4, frames: int = 12) -> Path:
    """A data set on disk: four episodes, one camera."""
    from heedful.data.episodes import Feature, Info
    from heedful.data.episodes.write import EpisodeWriter

    side = ["height", "width", "channels"]
    features = {
        "action": Feature("float32", (7,)),
        "observation.images.top": Feature("video", (32, 32, 3), side),
    }
    rng = np.random.default_rng(seed)
    with EpisodeWriter(folder, Info(FPS, "panda", features)) as writer:
        for i in range(episodes):
            path = smooth(rng, frames + 30, 7, 1.0)
            for t in range(frames):
                picture = np.full((32, 32, 3), (i * 50 + t * 9) % 256, np.uint8)
                writer.add_frame({"action": path[t] + seed, "observation.images.top": picture})
            writer.save_episode(f"task {i % 2}")
    return folder


def lose_picture(folder: Path, rng: np.random.Generator) -> Truth:
    """The last picture of one episode's video is not there."""
    from heedful.data.episodes.video import Video, cut_video

    video = next(folder.rglob("*.mp4"))
    lost = int(rng.integers(0, 4))
    short = folder.parent / "short.mp4"
    opened_video = Video(video)
    end = 12 * (lost + 1)
    if lost == 3:
        cut_video(opened_video, [(0, end - 1)], FPS, short)
    else:
        # The pictures after it keep their times, as in a recorder that skips one.
        _copy_without(video, end - 1, short)
    opened_video.close()
    shutil.move(short, video)
    return {lost}


def _copy_without(path: Path, position: int, out: Path) -> None:
    import av

    with av.open(str(path)) as source, av.open(str(out), "w", format="mp4") as made:
        stream = source.streams.video[0]
        target = made.add_stream_from_template(stream)
        target.time_base = stream.time_base
        for k, packet in enumerate(p for p in source.demux(stream) if p.dts is not None):
            if k != position:
                packet.stream = target
                made.mux(packet)


def lose_rows(folder: Path, rng: np.random.Generator) -> Truth:
    """One row of the table is lost and the numbers around it stay; the next episodes' rows shift into its place."""
    import pyarrow.parquet as pq

    file = next((folder / "data").rglob("*.parquet"))
    table = pq.read_table(file)
    lost = int(rng.integers(0, 4))
    row = 12 * lost + int(rng.integers(2, 10))
    import pyarrow as pa

    doubled = pa.concat_tables([table.slice(0, row), table.slice(row + 1), table.slice(len(table) - 1)])
    pq.write_table(doubled, file)
    return set(range(lost, 4))


def stop_early(folder: Path, rng: np.random.Generator) -> Truth:
    """The recorder was killed: a footer is missing, or its folder of unfinished work is there."""
    if rng.random() < 0.5:
        (folder / ".recording").mkdir()
        (folder / ".recording" / "observation.images.top.mp4").write_bytes(b"\0" * 100)
    else:
        extra = folder / "data" / "chunk-000" / "file-001.parquet"
        extra.write_bytes(b"PAR1" + b"\0" * 64)
    return {"set"}


def stale(folder: Path, rng: np.random.Generator) -> Truth:
    """The statistics are those of another data set, as after a merge that forgot them."""
    other = write_small(folder.parent / "other", int(rng.integers(1, 1000)) + 7)
    shutil.copy(other / "meta" / "stats.json", folder / "meta" / "stats.json")
    shutil.rmtree(other)
    if rng.random() < 0.5:
        return {"set"}
    file = folder / "meta" / "stats.json"
    told = json.loads(file.read_text())
    told["action"]["count"] = told["index"]["count"] = [48]
    file.write_text(json.dumps(told))
    return {"set"}


ON_DISK: dict[str, Callable[[Path, np.random.Generator], Truth]] = {
    "dropped frame of a video": lose_picture,
    "dropped rows of a table": lose_rows,
    "not finalised": stop_early,
    "stale": stale,
}


# ---- measured


def keys(kind: str, findings: list[Finding]) -> Truth:
    """What the check says is wrong, in the words of the truth."""
    check = CHECK_OF.get(kind, kind)
    mine = [f for f in findings if f.check == check and f.severity != "note"]
    if check in ("rate", "action", "files", "stats"):
        return {"set"} if mine else set()
    if check == "copies" or (check == "scenes" and kind == "scenes"):
        return {frozenset(f.columns) for f in mine if f.columns}
    if check == "calibration":
        return {(f.episode, f.columns[0].split(".")[-1]) for f in mine}
    return {f.episode for f in mine}


def run_checks(episodes: Episodes, kind: str) -> list[Finding]:
    """The checks that concern a kind of defect."""
    seen = survey(episodes)
    names = {
        "calibration": "calibration",
        "calibration, gripper marked": "calibration",
        "scenes": "scenes",
        "dropped frame of a video": "videos",
    }
    if kind in names:
        return PICTURE_CHECKS[names[kind]](seen)
    return CHECKS[{"dropped": "table"}.get(CHECK_OF.get(kind, kind), CHECK_OF.get(kind, kind))](seen)


def measure(kind: str, seeds: range) -> tuple[int, int, int]:
    """(found, said wrongly, missed) over sets with the defect and as many without."""
    found = wrong = missed = 0
    for seed in seeds:
        for defective in (True, False):
            rng = np.random.default_rng([seed, len(kind)])
            if kind in IN_MEMORY:
                world = clean(seed)
                truth = IN_MEMORY[kind](world, rng) if defective else set()
                said = keys(kind, run_checks(opened(world), kind))
            else:
                with tempfile.TemporaryDirectory() as place:
                    folder = write_small(Path(place) / "set", seed)
                    truth = ON_DISK[kind](folder, rng) if defective else set()
                    said = keys(kind, run_checks(open_episodes(folder), kind))
            found += len(said & truth)
            wrong += len(said - truth)
            missed += len(truth - said)
    return found, wrong, missed


def table(seeds: range) -> str:
    """Markdown: precision and recall of each check."""
    lines = [
        "| defect | check | seeded | found | said wrongly | precision | recall |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind in (*IN_MEMORY, *ON_DISK):
        found, wrong, missed = measure(kind, seeds)
        precision = f"{found / (found + wrong):.2f}" if found + wrong else "-"
        recall = f"{found / (found + missed):.2f}"
        check = CHECK_OF.get(kind, kind)
        lines.append(
            f"| {kind} | `{check}` | {found + missed} | {found} | {wrong} | {precision} | {recall} |"
        )
        print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(range(int(sys.argv[1]) if len(sys.argv) > 1 else 10)))
