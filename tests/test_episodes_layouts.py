"""The other layouts: LeRobotDataset v2.1, DROID as recorded, RLDS, HDF5; and `convert` from each to v3."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from episode_sets import picture, write_episodes

from heedful.data.episodes import Episodes, open_episodes
from heedful.data.episodes.copy import Piece, copy_pieces
from heedful.data.episodes.rlds import features_json
from heedful.data.episodes.video import VideoWriter
from heedful.data.tfrecord import crc32c, make_example, parse_example, record_places, write_records
from heedful.errors import HeedfulError

h5py = pytest.importorskip("h5py")
LENGTHS = (6, 4)


def jpeg(values: np.ndarray, quality: int = 95) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(values).save(out, "JPEG", quality=quality)
    return out.getvalue()


def numbers(i: int, name: str, length: int, size: int) -> np.ndarray:
    return np.random.default_rng([i, len(name), size]).normal(size=(length, size)).astype(np.float32)


def film(path: Path, i: int, length: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = VideoWriter(path, 60)
    for t in range(length):
        writer.add(picture(i, t))
    writer.close()


def droid_raw(root: Path) -> Path:
    for i, length in enumerate(LENGTHS):
        folder = root / "LAB" / ("success" if i else "failure") / "2023-05-01" / f"Mon_{i}"
        told = {"uuid": f"LAB+u+{i}", "lab": "LAB", "building": "b1", "scene_id": 40 + i, "success": bool(i)}
        told |= {
            "current_task": "Move the cup",
            "wrist_cam_serial": "11",
            "ext1_cam_serial": "22",
            "ext2_cam_serial": "33",
        }
        told["wrist_cam_extrinsics"] = [0.1] * 6
        folder.mkdir(parents=True)
        (folder / f"metadata_{told['uuid']}.json").write_text(json.dumps(told))
        with h5py.File(folder / "trajectory.h5", "w") as file:
            for name, size in (("joint_position", 7), ("cartesian_position", 6), ("joint_velocity", 7)):
                file[f"action/{name}"] = numbers(i, name, length, size).astype(np.float64)
            file["action/gripper_position"] = np.linspace(0, 1, length)
            file["observation/robot_state/joint_positions"] = numbers(i, "state", length, 7)
            file["observation/robot_state/cartesian_position"] = numbers(i, "cart", length, 6)
            file["observation/robot_state/gripper_position"] = np.linspace(0, 1, length)
            file["observation/controller_info/movement_enabled"] = np.arange(length) != 1
            for serial in ("11", "22", "33"):
                file[f"observation/camera_extrinsics/{serial}_left"] = np.full((length, 6), float(serial))
        for serial in ("11", "22", "33"):
            film(folder / "recordings" / "MP4" / f"{serial}.mp4", i, length)
    spoken = {
        "LAB+u+0": {
            "language_instruction1": "Lift the mug",
            "language_instruction2": "",
            "language_instruction3": "Mug up",
        }
    }
    (root / "aggregated-annotations-1.json").write_text(json.dumps(spoken))
    return root


def droid_rlds(root: Path) -> Path:
    records = []
    shapes: dict[str, Any] = {
        "action": ((7,), "float64"),
        "reward": ((), "float32"),
        "is_first": ((), "bool"),
    }
    for i, length in enumerate(LENGTHS):
        steps: dict[str, Any] = {
            "is_first": np.arange(length) == 0,
            "reward": (np.arange(length) == length - 1) * 1.0,
        }
        steps["action"] = numbers(i, "action", length, 7)
        for name, size in (
            ("joint_position", 7),
            ("cartesian_position", 6),
            ("gripper_position", 1),
            ("joint_velocity", 7),
        ):
            steps[f"action_dict/{name}"] = numbers(i, name, length, size)
            shapes[f"action_dict/{name}"] = ((size,), "float64")
        for name, size in (("joint_position", 7), ("cartesian_position", 6), ("gripper_position", 1)):
            steps[f"observation/{name}"] = numbers(i, name + "o", length, size)
            shapes[f"observation/{name}"] = ((size,), "float64")
        for k, name in enumerate(("wrist_image_left", "exterior_image_1_left", "exterior_image_2_left")):
            steps[f"observation/{name}"] = [jpeg(picture(i + k, t)) for t in range(length)]
        for name, words in (("", "put it down"), ("_2", "lay it down"), ("_3", "")):
            steps[f"language_instruction{name}"] = [words.encode()] * length
        features = {f"steps/{n}": v for n, v in steps.items()}
        features["episode_metadata/file_path"] = [
            f"/nfs/LAB/{'failure' if i else 'success'}/x{i}/trajectory.h5".encode()
        ]
        features["episode_metadata/recording_folderpath"] = [f"/nfs/LAB/x{i}/recordings/MP4".encode()]
        records.append(make_example(features))
    root.mkdir(parents=True)
    write_records(root / "droid_100-train.tfrecord-00000-of-00002", records[:1])
    write_records(root / "droid_100-train.tfrecord-00001-of-00002", records[1:])
    (root / "features.json").write_text(features_json(shapes))
    return root


def robomimic(root: Path) -> Path:
    root.mkdir(parents=True)
    with h5py.File(root / "demos.hdf5", "w") as file:
        file.create_group("data").attrs["env_args"] = json.dumps(
            {"env_name": "Lift", "env_kwargs": {"control_freq": 20, "robots": ["Panda"]}}
        )
        for i, length in enumerate(LENGTHS):
            group = file.create_group(f"data/demo_{i * 8 + 2}")  # demo_2, demo_10
            group["actions"] = numbers(i, "actions", length, 7).astype(np.float64)
            group["dones"] = (np.arange(length) == length - 1).astype(np.int64)
            group["obs/robot0_eef_pos"] = numbers(i, "eef", length, 3)
            group["obs/agentview_image"] = np.stack([picture(i, t) for t in range(length)])
        file["mask/train"] = np.array([b"demo_2"])
    return root


def aloha(root: Path) -> Path:
    root.mkdir(parents=True)
    for i, length in enumerate(LENGTHS):
        with h5py.File(root / f"episode_{i}.hdf5", "w") as file:
            file.attrs["sim"], file.attrs["compress"] = False, True
            file["action"] = numbers(i, "action", length, 14)
            file["observations/qpos"] = numbers(i, "qpos", length, 14)
            pictures = [jpeg(picture(i, t)) for t in range(length)]
            longest = max(map(len, pictures))
            file["observations/images/cam_high"] = np.stack(
                [np.frombuffer(p.ljust(longest, b"\0"), np.uint8) for p in pictures]
            )
            file["compress_len"] = np.array([[len(p) for p in pictures]], dtype=np.float32)
    commands = [{"command": "open the bag", "start_timestep": 0, "end_timestep": 2, "type": "instruction"}]
    commands += [{"command": "higher", "start_timestep": 3, "end_timestep": 5, "type": "correction"}]
    (root / "episode_1.json").write_text(json.dumps(commands))
    return root


def v21(root: Path) -> Path:
    from dataclasses import replace

    from episode_sets import INFO

    names = ("action", "observation.state", "observation.images.top")
    info = replace(INFO, features={n: INFO.features[n] for n in names})
    new = open_episodes(write_episodes(root.parent / "as-v3", LENGTHS, info=info))
    told = json.loads((new.path / "meta" / "info.json").read_text())
    told |= {
        "codebase_version": "v2.1",
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
    }
    told["video_path"] = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    (root / "meta").mkdir(parents=True)
    (root / "meta" / "info.json").write_text(json.dumps(told))
    tasks = [{"task_index": k, "task": t} for t, k in new.tasks.items()]  # type: ignore[attr-defined]
    rows = [
        {"episode_index": i, "tasks": list(new.episode(i).tasks), "length": n} for i, n in enumerate(LENGTHS)
    ]
    for name, lines in (("tasks", tasks), ("episodes", rows)):
        (root / "meta" / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    table = pq.read_table(next((new.path / "data").rglob("*.parquet")))
    for i in range(len(LENGTHS)):
        part = table.filter(pa.compute.equal(table.column("episode_index"), i))
        out = root / "data" / "chunk-000" / f"episode_{i:06d}.parquet"
        out.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(part, out)
        film_path = root / "videos" / "chunk-000" / "observation.images.top" / f"episode_{i:06d}.mp4"
        film_path.parent.mkdir(parents=True, exist_ok=True)
        writer = VideoWriter(film_path, 15)
        for t in range(LENGTHS[i]):
            writer.add(picture(i, t))
        writer.close()
    return root


MAKERS = {"v2.1": v21, "droid": droid_raw, "rlds": droid_rlds, "robomimic": robomimic, "aloha": aloha}


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Episodes]:
    import pyarrow.compute

    assert pyarrow.compute
    return {
        name: open_episodes(make(tmp_path_factory.mktemp("raw") / "set")) for name, make in MAKERS.items()
    }


EXPECTED = {
    "v2.1": ("LeRobotDataset v2.1", 15, ["observation.images.top"], "pick block 1"),
    "droid": (
        "DROID (raw)",
        15,
        ["observation.images.wrist_left", "observation.images.exterior_1_left"],
        "Move the cup",
    ),
    "rlds": ("RLDS (TFRecord), DROID", 15, ["observation.images.exterior_1_left"], "put it down"),
    "robomimic": ("HDF5 (robomimic)", 20, ["observation.images.agentview"], "Lift"),
    "aloha": ("HDF5 (ALOHA)", 50, ["observation.images.cam_high"], None),
}


@pytest.mark.parametrize("name", MAKERS)
def test_each_layout_is_read_frame_by_frame(sets: dict[str, Episodes], name: str) -> None:
    episodes = sets[name]
    layout, fps, cameras, task = EXPECTED[name]
    assert (
        episodes.layout == layout and episodes.info.fps == fps and set(cameras) <= set(episodes.info.cameras)
    )
    assert [episodes.episode(i).length for i in range(len(episodes))] == list(LENGTHS)
    assert episodes.problems() == [] and (episodes.episode(1).tasks[:1] == ((task,) if task else ()))
    columns = episodes.columns(1)
    assert columns["timestamp"] == pytest.approx(np.arange(4) / fps) and columns["frame_index"].tolist() == [
        0,
        1,
        2,
        3,
    ]
    for t in (3, 0, 2):
        shift = 1 if name == "rlds" else 0  # the exterior camera of episode 1 shows what episode 2 would
        got = episodes.frames(1, cameras[-1], [t])[0]
        assert np.abs(got.astype(int) - picture(1 + shift, t)).mean() < 5


@pytest.mark.parametrize("name", MAKERS)
def test_each_layout_becomes_v3(sets: dict[str, Episodes], tmp_path: Path, name: str) -> None:
    source = sets[name]
    copy_pieces([source], [Piece(0, i) for i in range(2)], tmp_path / "out", made_by="convert", task="do it")
    made = open_episodes(tmp_path / "out")
    assert made.layout == "LeRobotDataset v3.0" and made.info.fps == source.info.fps and made.problems() == []
    for i in range(2):
        assert made.episode(i).tasks == (source.episode(i).tasks or ("do it",))
        old, new = source.columns(i), made.columns(i)
        assert {n for n in old if n not in new} == set()
        assert all(np.array_equal(v, new[n]) for n, v in old.items())
        for camera in source.info.cameras:
            a, b = (e.frames(i, camera, [0, 3]).astype(int) for e in (source, made))
            assert np.abs(a - b).mean() < 4
        assert [(r.content, r.style) for r in made.language(i)] == [
            (r.content, r.style) for r in source.language(i)
        ]


def test_v21_videos_are_copied_without_loss(sets: dict[str, Episodes], tmp_path: Path) -> None:
    counts = copy_pieces([sets["v2.1"]], [Piece(0, 0), Piece(0, 1)], tmp_path / "out", made_by="convert")
    assert counts["videos copied"] == 2 and not counts["videos encoded"]
    made = open_episodes(tmp_path / "out")
    for i in range(2):
        same = (e.frames(i, "observation.images.top", range(LENGTHS[i])) for e in (sets["v2.1"], made))
        assert np.array_equal(*same)


def test_droid_means_the_same_raw_and_in_rlds(sets: dict[str, Episodes]) -> None:
    raw, rlds = sets["droid"], sets["rlds"]
    assert raw.episode(0).tasks == ("Lift the mug", "Mug up")  # three labels, one of them empty
    assert raw.episode(0).meta["scene_id"] == 40 and raw.episode(0).meta["success"] is False
    assert rlds.episode(0).meta["success"] is True and rlds.episode(0).tasks == ("put it down", "lay it down")
    columns = raw.columns(0)
    assert columns["skip_action"].tolist() == [False, True, False, False, False, False]
    assert columns["camera_extrinsics.exterior_1_left"][0].tolist() == [22.0] * 6
    for episodes in (raw, rlds):
        columns = episodes.columns(0)
        joints, grip = columns["action.joint_position"], columns["action.gripper_position"]
        assert np.array_equal(columns["action"], np.concatenate([joints, grip[:, None]], axis=1))
        assert columns["observation.state"].shape == (6, 8)
    assert np.array_equal(rlds.columns(1)["action.original"], numbers(1, "action", 4, 7))


def test_droid_video_one_picture_short(tmp_path: Path) -> None:
    root = droid_raw(tmp_path / "set")
    film(next(root.rglob("Mon_0/recordings/MP4/22.mp4")), 0, LENGTHS[0] - 1)
    next(root.rglob("Mon_1/recordings/MP4/33.mp4")).unlink()
    episodes = open_episodes(root)
    with pytest.raises(
        HeedfulError, match=r"episode 0, camera '.*exterior_1_left': frame 5 of 6 is not in 22.mp4"
    ):
        episodes.frames(0, "observation.images.exterior_1_left", [0, 5])
    with pytest.raises(
        HeedfulError, match=r"episode 1, camera '.*exterior_2_left': frame 2: its video .*33.mp4 is missing"
    ):
        episodes.frames(1, "observation.images.exterior_2_left", [2])


def test_commands_of_yell_at_your_robot(sets: dict[str, Episodes]) -> None:
    said = [(r.content, r.style, r.timestamp) for r in sets["aloha"].language(1)]
    assert said == [("open the bag", "subtask", 0.0), ("higher", "interjection", 3 / 50)]
    assert sets["aloha"].language(0) == []


def test_robomimic_order_and_filter_keys(sets: dict[str, Episodes]) -> None:
    metas = [sets["robomimic"].episode(i).meta for i in range(2)]
    assert [m["demo"] for m in metas] == ["demo_2", "demo_10"] and metas[0]["filter_keys"] == ["train"]


@pytest.mark.parametrize(("data", "value"), [(b"123456789", 0xE3069283), (bytes(32), 0x8A9136AA), (b"", 0)])
def test_crc32c_of_published_vectors(data: bytes, value: int) -> None:
    assert crc32c(data) == value


@pytest.mark.parametrize("size", [8191, 8192, 20_001, 100_000])
def test_crc32c_of_long_data_is_that_of_its_bytes_in_turn(size: int) -> None:
    data = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8).tobytes()
    table = [0] * 256
    for k in range(256):
        state = k
        for _ in range(8):
            state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)
        table[k] = state
    state = 0xFFFFFFFF
    for byte in data:
        state = table[(state ^ byte) & 255] ^ state >> 8
    assert crc32c(data) == state ^ 0xFFFFFFFF


def test_example_against_protobuf_itself() -> None:
    """A tf.train.Example made by Google's library, with packed and unpacked lists, read by ours."""
    pytest.importorskip("google.protobuf")
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="tensorflow", syntax="proto3")
    kinds = {"BytesList": 12, "FloatList": 2, "Int64List": 3}
    for name, kind in kinds.items():
        message = file.message_type.add(name=name)
        message.field.add(name="value", number=1, type=kind, label=3)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for k, name in enumerate(kinds, start=1):
        feature.field.add(
            name=name.lower(), number=k, type=11, label=1, type_name=f".tensorflow.{name}", oneof_index=0
        )
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=9, label=1)
    entry.field.add(name="value", number=2, type=11, label=1, type_name=".tensorflow.Feature")
    features.field.add(
        name="feature", number=1, type=11, label=3, type_name=".tensorflow.Features.FeatureEntry"
    )
    file.message_type.add(name="Example").field.add(
        name="features", number=1, type=11, label=1, type_name=".tensorflow.Features"
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    example = message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Example"))()
    example.features.feature["a/b"].floatlist.value.extend([1.5, -2.0])
    example.features.feature["n"].int64list.value.extend([3, -1, 300])
    example.features.feature["s"].byteslist.value.extend([b"x", b""])
    found = parse_example(example.SerializeToString(), "here")
    assert (
        found["a/b"].tolist() == [1.5, -2.0]
        and found["n"].tolist() == [3, -1, 300]
        and found["s"] == [b"x", b""]
    )  # type: ignore[union-attr]
    ours = example.__class__.FromString(make_example({"n": np.array([3, -1, 300]), "s": [b"x", b""]}))
    assert list(ours.features.feature["n"].int64list.value) == [3, -1, 300]


def test_damaged_records_are_named(tmp_path: Path) -> None:
    root = droid_rlds(tmp_path / "set")
    file = sorted(root.glob("*.tfrecord*"))[1]
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(HeedfulError, match=r"episode 1: the checksum of its data is wrong: .*00001"):
        open_episodes(root).columns(1)
    file.write_bytes(bytes(data[:-10]))
    with pytest.raises(HeedfulError, match="record 0 at byte 0 ends too early"):
        record_places(file)
    data[3] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(HeedfulError, match="checksum of its length"):
        open_episodes(root)


def test_an_instruction_of_rlds_that_is_not_utf8(tmp_path: Path) -> None:
    root = tmp_path / "set"
    root.mkdir()
    good = {"steps/is_first": np.arange(3) == 0, "steps/action": np.zeros(6)}
    records = [
        make_example(good | {"steps/language_instruction": [b"ok"] * 2 + [last]}) for last in (b"ok", b"\xff")
    ]
    write_records(root / "a.tfrecord-00000-of-00001", records)
    episodes = open_episodes(root)
    assert episodes.columns(0)["action"].shape == (3, 2)
    with pytest.raises(HeedfulError, match="episode 1, frame 2, language_instruction is not UTF-8"):
        episodes.episode(1)


def test_an_episode_with_other_columns_is_named(tmp_path: Path) -> None:
    root = robomimic(tmp_path / "set")
    with h5py.File(root / "demos.hdf5", "a") as file:
        del file["data/demo_10/obs/robot0_eef_pos"]
    with pytest.raises(HeedfulError, match=r"episode 1 lacks 'observation.robot0_eef_pos'"):
        open_episodes(root).episode(1)


def test_a_cut_off_hdf5_is_named(tmp_path: Path) -> None:
    root = aloha(tmp_path / "set")
    file = root / "episode_1.hdf5"
    file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(HeedfulError, match=r"episode_1.hdf5 cannot be read as HDF5"):
        open_episodes(root).episode(1)


def test_a_stopped_copy_goes_on(sets: dict[str, Episodes], tmp_path: Path) -> None:
    source, pieces = sets["v2.1"], [Piece(0, 0), Piece(0, 1)]

    def stop(done: int, total: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy_pieces([source], pieces, tmp_path / "out", made_by="convert", progress=stop)
    assert copy_pieces([source], pieces, tmp_path / "out", made_by="convert")["episodes"] == 1
    assert len(open_episodes(tmp_path / "out")) == 2
    with pytest.raises(HeedfulError, match="was made otherwise"):
        copy_pieces([source], pieces[:1], tmp_path / "out", made_by="convert")


def test_mixed_rates_are_not_joined(sets: dict[str, Episodes], tmp_path: Path) -> None:
    with pytest.raises(HeedfulError, match="20 frames a second"):
        copy_pieces(
            [sets["v2.1"], sets["robomimic"]], [Piece(0, 0), Piece(1, 0)], tmp_path / "out", made_by="merge"
        )
