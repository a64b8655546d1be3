"""`heedful demos`: each command on data with known contents, and the checks against seeded defects."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import defective_demos
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from episode_sets import INFO, damage_pictures, frame, picture, write_episodes

from heedful.cli import main
from heedful.data.episodes import LANGUAGE_FEATURES, Feature, open_episodes
from heedful.data.episodes.copy import Piece, copy_pieces
from heedful.data.episodes.diversity import verb_and_object
from heedful.data.episodes.ranges import idle_by_change, idle_by_speed, keep_ranges, read_ranges, runs
from heedful.data.episodes.write import EpisodeWriter
from heedful.errors import HeedfulError

TOP = "observation.images.top"
SMALL = replace(INFO, features={n: INFO.features[n] for n in ("action", TOP)})


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    """(exit status, what --json printed) of `heedful demos ...`."""
    status = main(["demos", *arguments])
    out = capsys.readouterr()
    return status, json.loads(out.out) if out.out.startswith("{") else out.out + out.err


# ---- the seeded defects


@pytest.mark.parametrize("kind", [*defective_demos.IN_MEMORY, *defective_demos.ON_DISK])
def test_seeded_defects_are_found(kind: str) -> None:
    found, wrong, missed = defective_demos.measure(kind, range(900, 901))
    assert found > 0
    least = 0.6 if kind.startswith("calibration") else 0.9
    assert found / (found + wrong) >= least and found / (found + missed) >= least, (found, wrong, missed)


# ---- trimming


def openpi_ranges(velocity: np.ndarray) -> list[tuple[int, int]]:
    """openpi's rule, written out frame by frame from its description."""
    idle = [False] + [
        all(abs(a - b) < 1e-3 for a, b in zip(now, before)) for before, now in pairwise(velocity)
    ]
    keep = [True] * len(idle)
    t = 0
    while t < len(idle):
        end = t
        while end < len(idle) and idle[end]:
            end += 1
        if end - t >= 7:
            keep[t:end] = [False] * (end - t)
        t = max(end, t + 1)
    ranges, t = [], 0
    while t < len(keep):
        end = t
        while end < len(keep) and keep[end]:
            end += 1
        if end - t >= 16:
            ranges.append((t, end - 10))
        t = max(end, t + 1)
    return ranges


@pytest.mark.parametrize("seed", range(30))
def test_trimming_is_openpis_rule_on_synthetic_signals(seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = []
    for _ in range(int(rng.integers(1, 12))):
        length = int(rng.integers(1, 40))
        kind = rng.integers(0, 4)
        noise = rng.normal(0, [1e-4, 3e-4, 1e-3, 1e-5][kind], (length, 7))
        base = rng.normal(0, 1, 7) * [0, 0, 1, 1][kind]  # still, still, nearly still, steady motion
        parts.append(base + noise if rng.random() < 0.6 else rng.normal(0, 0.5, (length, 7)))
    velocity = np.concatenate(parts)
    assert keep_ranges(idle_by_change(velocity)) == openpi_ranges(velocity)


def test_steady_motion_is_idle_by_change_and_not_by_speed() -> None:
    velocity = np.full((40, 7), 0.3)
    assert keep_ranges(idle_by_change(velocity)) == []  # one moving frame is too short to keep
    assert keep_ranges(idle_by_speed(velocity)) == [(0, 30)]
    velocity[10:25] = 1e-4
    assert runs(idle_by_speed(velocity)) == [(10, 25)]


@pytest.fixture(scope="module")
def idling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two episodes of 60 frames; the second stands still from 20 to 40."""
    info = replace(
        INFO,
        features={
            "action.joint_velocity": Feature("float32", (7,)),
            "action": Feature("float32", (7,)),
            TOP: INFO.features[TOP],
            **LANGUAGE_FEATURES,
        },
    )
    folder = tmp_path_factory.mktemp("idling") / "set"
    rng = np.random.default_rng(0)
    with EpisodeWriter(folder, info) as writer:
        for i in range(2):
            speed = rng.normal(0, 0.5, (60, 7))
            if i:
                speed[20:40] = 0
            for t in range(60):
                writer.add_frame(
                    {"action.joint_velocity": speed[t], "action": np.full(7, t), TOP: picture(i, t)}
                )
                if t == 45:
                    writer.say("go on")
            writer.say("reach", "subtask", timestamp=0)
            writer.save_episode("pick it", {"scene_id": i, "success": True})
    return folder


def test_trim_keeps_what_moves(idling: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, ranges = tmp_path / "out", tmp_path / "ranges.json"
    status, told = run(capsys, "trim", str(idling), "--out", str(out), "--ranges", str(ranges), "--json")
    assert status == 0 and told["frames kept"] == 50 + 11 + 10 and told["frames before"] == 120
    # the frame at 20 differs from the one before, so the idle run begins at 21
    assert json.loads(ranges.read_text()) == {"0": [[0, 50]], "1": [[0, 11], [40, 50]]}
    made = open_episodes(out)
    assert [made.episode(k).length for k in range(3)] == [50, 11, 10]
    meta = made.episode(2).meta
    assert (meta["source_episode"], meta["source_start"], meta["source_stop"]) == (1, 40, 50)
    assert made.columns(2, ["action"])["action"][:, 0].tolist() == list(range(40, 50))
    seen = made.frames(2, TOP, [0, 9])
    assert all(abs(p[..., 2].mean() - picture(1, t)[..., 2].mean()) < 3 for p, t in zip(seen, (40, 49)))
    assert [(r.content, round(r.timestamp * 15)) for r in made.language(2)] == [("reach", 0), ("go on", 5)]
    assert main(["demos", "check", str(out)]) == 0


def test_trim_by_a_file_and_joined(idling: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep = tmp_path / "keep.json"
    keep.write_text(json.dumps({"0": [[3, 7], [50, 53]], "1": [[1, 5]]}))
    status, told = run(
        capsys, "trim", str(idling), "--out", str(tmp_path / "out"), "--keep", str(keep), "--join", "--json"
    )
    assert status == 0 and told["episodes"] == 2
    made = open_episodes(tmp_path / "out")
    assert made.columns(0, ["action"])["action"][:, 0].tolist() == [3, 4, 5, 6, 50, 51, 52]
    keep.write_text(json.dumps({"0": [[3, 7]]}))
    status, told = run(capsys, "trim", str(idling), "--out", str(tmp_path / "no"), "--keep", str(keep))
    assert status == 1 and "no entry for episode 1" in told
    keep.write_text(json.dumps({"0": [[3, 70]], "1": []}))
    status, told = run(capsys, "trim", str(idling), "--out", str(tmp_path / "no"), "--keep", str(keep))
    assert status == 1 and "has 60 frames; the ranges [(3, 70)] do not fit" in told


def test_pieces_of_a_recording_keep_their_own_ranges(
    idling: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded = [
        {"recording_folderpath": f"r2d2://lab/{i}/MP4", "file_path": f"r2d2://lab/{i}/trajectory.h5"}
        for i in range(2)
    ]
    keys = [f"{meta['recording_folderpath']}--{meta['file_path']}" for meta in recorded]
    pieces = [Piece(0, 0, ((0, 60),), recorded[0]), Piece(0, 1, ((0, 60),), recorded[1])]
    copy_pieces([open_episodes(idling)], pieces, tmp_path / "droid", made_by="test")
    keep, ranges = tmp_path / "keep.json", tmp_path / "ranges.json"
    assert main(["demos", "trim", str(tmp_path / "droid"), "--ranges", str(ranges)]) == 0
    # openpi's own keys, as in the files that are exchanged with it
    assert json.loads(ranges.read_text()) == {keys[0]: [[0, 50]], keys[1]: [[0, 11], [40, 50]]}
    keep.write_text(json.dumps({keys[0]: [[0, 20]], keys[1]: [[0, 20], [30, 60]]}))
    trimmed = tmp_path / "trimmed"
    run(capsys, "trim", str(tmp_path / "droid"), "--out", str(trimmed), "--keep", str(keep))

    arguments = ("trim", str(trimmed), "--min-keep", "5", "--drop-last", "3", "--rule", "speed")
    status, told = run(capsys, *arguments, "--ranges", str(ranges), "--json")
    wanted = {0: [(0, 17)], 1: [(0, 17)], 2: [(10, 27)]}
    assert status == 0 and told["frames kept"] == 51
    assert json.loads(ranges.read_text()) == {
        keys[0]: [[0, 17]],
        f"{keys[1]}--1": [[0, 17]],
        f"{keys[1]}--2": [[10, 27]],
    }
    assert read_ranges(ranges, open_episodes(trimmed)) == wanted

    keep.write_text(json.dumps({key: [[0, 5]] for key in keys}))
    status, told = run(capsys, "trim", str(trimmed), "--out", str(tmp_path / "no"), "--keep", str(keep))
    assert status == 1 and f"the entry '{keys[1]}' fits episodes 1, 2 of" in told


# ---- split, merge, convert


@pytest.fixture(scope="module")
def ten(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_episodes(tmp_path_factory.mktemp("ten") / "set", (4,) * 10, info=SMALL)


def test_split_keeps_groups_together(ten: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--parts", "train=0.6", "val=0.4", "--by", "scene_id", "--json")
    status, told = run(capsys, "split", str(ten), "--out", str(tmp_path / "a"), *arguments)
    assert status == 0 and set(told) == {"train", "val"}
    parts = {name: open_episodes(tmp_path / "a" / name) for name in told}
    scenes = {n: {e.episode(i).meta["scene_id"] for i in range(len(e))} for n, e in parts.items()}
    assert not scenes["train"] & scenes["val"] and sorted(map(len, parts.values())) == [4, 6]
    for made in parts.values():
        for k in range(len(made)):
            source = made.episode(k).meta["source_episode"]
            assert np.array_equal(made.columns(k, ["action"])["action"][1], frame(source, 1, 4)["action"])
    run(capsys, "split", str(ten), "--out", str(tmp_path / "b"), *arguments)
    again = open_episodes(tmp_path / "b" / "val")
    assert [again.episode(k).meta for k in range(len(again))] == [
        parts["val"].episode(k).meta for k in range(len(again))
    ]


def test_merge_then_split_gives_the_same_frames_and_new_statistics(
    ten: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_episodes(tmp_path / "other", (3, 5), info=SMALL)
    status, told = run(capsys, "merge", str(ten), str(other), "--out", str(tmp_path / "m"), "--json")
    assert status == 0 and told["episodes"] == 12 and told["videos copied"] == 12
    made = open_episodes(tmp_path / "m")
    assert np.array_equal(made.frames(11, TOP, [0, 4]), open_episodes(other).frames(1, TOP, [0, 4]))
    assert made.episode(10).meta["source"] == str(other) and made.columns(11)["index"][0] == 43
    status, told = run(
        capsys, "check", str(tmp_path / "m"), "--only", "stats", "files", "table", "videos", "--json"
    )
    assert status == 0 and told["findings"] == []
    faster = write_episodes(tmp_path / "faster", (3,), info=replace(SMALL, fps=30))
    status, told = run(capsys, "merge", str(ten), str(faster), "--out", str(tmp_path / "no"))
    assert status == 1 and "mixed rates" in told
    status, told = run(
        capsys, "merge", str(ten), str(write_episodes(tmp_path / "wide", (3,))), "--out", str(tmp_path / "no")
    )
    assert status == 1 and "column 'observation.state' is absent in" in told


def test_convert_changes_rate_size_and_choice(
    ten: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    status, told = run(
        capsys,
        "convert",
        str(ten),
        "--out",
        out,
        "--episodes",
        "3",
        "7",
        "--fps",
        "10",
        "--size",
        "32",
        "48",
        "--json",
    )
    assert status == 0 and told["videos encoded"] == 2
    made = open_episodes(out)
    assert made.info.fps == 10 and made.info.features[TOP].shape == (32, 48, 3)
    assert made.columns(1)["timestamp"] == pytest.approx(np.arange(4) / 10)
    assert np.array_equal(made.columns(1, ["action"])["action"][2], frame(7, 2, 4)["action"])
    assert made.frames(0, TOP, [3]).shape == (1, 32, 48, 3)


@pytest.mark.parametrize("lost", [200, 2000])
def test_convert_names_episode_and_camera_of_a_video_that_is_cut_off(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lost: int
) -> None:
    """Of 200 bytes part of the index is lost, of 2000 all of it."""
    folder = write_episodes(tmp_path / "set", (3, 3), info=SMALL, finalize=False)
    video = next((folder / "videos").rglob("file-001.mp4"))
    video.write_bytes(video.read_bytes()[:-lost])
    status, told = run(capsys, "convert", str(folder), "--out", str(tmp_path / "out"))
    assert status == 1 and f"episode 1, camera '{TOP}': " in told and "cannot be read as a video" in told


# ---- check


def test_check_names_episode_frame_and_column(
    idling: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, told = run(capsys, "check", str(idling), "--json")
    assert status == 0
    idle = [f for f in told["findings"] if f["check"] == "idle"]
    assert [(f["episode"], f["frame"], f["frames"]) for f in idle] == [(1, 20, 20)]
    out = tmp_path / "found.jsonl"
    status, text = run(capsys, "check", str(idling), "--only", "idle", "--out", str(out))
    assert "warning: idle: episode 1, frames 20 to 39" in text
    assert json.loads(out.read_text().splitlines()[0])["frame"] == 20
    status, text = run(capsys, "check", str(idling), "--only", "idel")
    assert status == 1 and "there is no check 'idel'" in text


def test_check_goes_on_after_a_damaged_episode(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three data files; the middle one has no footer, and a video is lost."""
    folder = write_episodes(tmp_path / "set", (4, 4, 4), info=SMALL, finalize=False)
    table = folder / "data" / "chunk-000" / "file-001.parquet"
    table.write_bytes(table.read_bytes()[:-9])
    next((folder / "videos").rglob("file-002.mp4")).unlink()
    status, told = run(capsys, "check", str(folder), "--json")
    assert status == 1
    unreadable = {f["episode"] for f in told["findings"] if f["check"] == "unreadable"}
    assert unreadable == {1}
    lost = [f for f in told["findings"] if f["check"] == "dropped" and f["columns"] == [TOP]]
    assert [(f["episode"], f["frames"]) for f in lost] == [(2, 4)]


def test_a_damaged_picture_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Frame 0 is looked at by all checks that decode; the set has scenes and extrinsics."""
    world, folder = defective_demos.clean(3), tmp_path / "set"
    world.episodes = world.episodes[:6]
    pieces = [Piece(0, i) for i in range(6)]
    copy_pieces([defective_demos.opened(world)], pieces, folder, made_by="test")
    camera = "observation.images.exterior_1_left"
    # Every second picture needs the one before it.
    damage_pictures(next((folder / "videos" / camera).rglob("*.mp4")), (60, 101))
    status, told = run(capsys, "check", str(folder), "--frames", "--json")
    said = [(f["check"], f["episode"], f["frame"], f["frames"], f["columns"]) for f in told["findings"]]
    assert status == 1 and told["errors"] == 2
    assert said == [("unreadable", 1, 0, 2, [camera]), ("unreadable", 1, 41, 1, [camera])]
    assert f"episode 1, camera '{camera}', frame 41" in told["findings"][1]["message"]
    for name in ("calibration", "scenes"):
        status, told = run(capsys, "check", str(folder), "--only", name, "--json")
        assert status == 1 and (told["findings"][0]["episode"], told["findings"][0]["frame"]) == (1, 0)


def test_every_picture_is_decoded_where_nothing_says_how_the_arm_moves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_episodes(tmp_path / "set", (4, 4), info=replace(INFO, features={TOP: INFO.features[TOP]}))
    damage_pictures(next(folder.rglob("*.mp4")), (7,))
    status, told = run(capsys, "check", str(folder), "--frames", "--json")
    damaged = [(f["episode"], f["frame"]) for f in told["findings"] if f["check"] == "unreadable"]
    assert status == 1 and damaged == [(1, 3)]


def test_a_missing_video_is_said_by_checks_that_are_asked_alone(
    ten: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(ten, tmp_path / "set"))
    next(folder.rglob("*.mp4")).unlink()
    for name in ("frozen", "scenes"):
        status, told = run(capsys, "check", str(folder), "--only", name, "--json")
        said = [(f["check"], f["episode"], f["frame"], f["frames"]) for f in told["findings"]]
        assert status == 1 and said == [("unreadable", i, 0, 4) for i in range(10)]


@pytest.mark.parametrize(("column", "said", "frame"), [(1, b"to the left", 3), (0, b"reach for it", 0)])
def test_what_is_said_is_read_by_the_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], column: int, said: bytes, frame: int
) -> None:
    info = replace(SMALL, features={**SMALL.features, **LANGUAGE_FEATURES})
    with EpisodeWriter(tmp_path / "set", info) as writer:
        for i in range(3):
            for t in range(6):
                writer.add_frame({"action": np.full(4, t), TOP: picture(i, t)})
                if t == 3 and i == 1:
                    writer.say("to the left")
            writer.say("reach for it" if i == 1 else "wait", "subtask", timestamp=0)
            writer.save_episode("go")
    table = next((tmp_path / "set" / "data").rglob("*.parquet"))
    raw = table.read_bytes()
    assert said in raw
    table.write_bytes(raw.replace(said, b"\xff" + said[1:]))
    status, told = run(capsys, "check", str(tmp_path / "set"), "--json")
    found = [f for f in told["findings"] if f["check"] == "unreadable"]
    name = list(LANGUAGE_FEATURES)[column]
    assert status == 1 and [(f["episode"], f["frame"], f["columns"]) for f in found] == [(1, frame, [name])]
    assert f"episode 1, column '{name}': frame {frame} is not UTF-8 text" in found[0]["message"]


def rewrite(file: Path, column: str, values: Any) -> None:
    """Put another column of the name into a Parquet file."""
    table = pq.read_table(file)
    pq.write_table(table.set_column(table.schema.get_field_index(column), column, values), file)


def row_file(folder: Path, episode: int) -> Path:
    return folder / "meta" / "episodes" / "chunk-000" / f"file-{episode:03d}.parquet"


@pytest.fixture
def defective(tmp_path: Path) -> Path:
    """Three episodes, a file each for their rows and one for their frames; in the last a number is not finite."""
    folder = tmp_path / "set"
    with EpisodeWriter(folder, SMALL) as writer:
        for i in range(3):
            for t in range(4 + i):
                action = np.full(4, np.nan if (i, t) == (2, 1) else t)
                writer.add_frame({"action": action, TOP: picture(i, t)})
            writer.save_episode(f"task {i}")
    table = pq.read_table(row_file(folder, 0))
    for i in range(3):
        pq.write_table(table.slice(i, 1), row_file(folder, i))
    return folder


def lose_video_row(folder: Path) -> None:
    for part in ("chunk_index", "file_index", "from_timestamp", "to_timestamp"):
        rewrite(row_file(folder, 1), f"videos/{TOP}/{part}", pa.array([None], pa.int64()))


def damage_instruction(folder: Path) -> None:
    rewrite(folder / "meta" / "tasks.parquet", "task", pa.array([b"a", b"\xff", b"c"]).view(pa.string()))


def damage_tasks(folder: Path) -> None:
    tasks = pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), pa.array([b"\xff"]).view(pa.string()))
    rewrite(row_file(folder, 1), "tasks", tasks)


def cut_footer(folder: Path) -> None:
    file = row_file(folder, 1)
    file.write_bytes(file.read_bytes()[:-9])


@pytest.mark.parametrize(
    ("damage", "checks", "words"),
    [
        (lose_video_row, {"dropped"}, f"episode 1 has no video of camera '{TOP}'"),
        (damage_instruction, {"task"}, "task_index 1 is that of no instruction that can be read"),
        (damage_tasks, {"unreadable"}, "'tasks' of episode 1 is not UTF-8 text"),
        (cut_footer, {"unreadable"}, "file-001.parquet is no whole Parquet file"),
    ],
)
def test_check_goes_on_after_damage_of_meta(
    defective: Path, capsys: pytest.CaptureFixture[str], damage: Any, checks: set[str], words: str
) -> None:
    damage(defective)
    status, told = run(capsys, "check", str(defective), "--json")
    assert status == 1
    said = [f for f in told["findings"] if f["episode"] == 1]
    assert {f["check"] for f in said} == checks and words in said[0]["message"]
    # Of the episode after it all is found, and nothing that is not there.
    assert [(f["check"], f["frame"]) for f in told["findings"] if f["episode"] == 2] == [("nan", 1)]
    assert not [f for f in told["findings"] if f["episode"] == 0 or f["check"] == "stats"]
    assert not [f for f in told["findings"] if "could not be made" in f["message"]]


def test_a_check_that_cannot_be_made_does_not_end_the_others(
    defective: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (defective / "meta" / "stats.json").write_text("{")
    status, told = run(capsys, "check", str(defective), "--json")
    said = [(f["check"], f["episode"]) for f in told["findings"] if f["severity"] == "error"]
    assert status == 1 and said == [("nan", 2), ("stats", None)]
    assert "this check could not be made" in told["findings"][-1]["message"]


def test_a_camera_that_stands_still(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with EpisodeWriter(tmp_path / "set", SMALL) as writer:
        for t in range(20):
            writer.add_frame({"action": np.full(4, t), TOP: picture(0, min(t, 9) if t < 16 else t)})
        writer.save_episode("go")
    status, told = run(capsys, "check", str(tmp_path / "set"), "--only", "frozen", "--json")
    assert status == 0 and [(f["episode"], f["frame"], f["frames"]) for f in told["findings"]] == [(0, 10, 6)]


def test_untrusted_text_is_made_printable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with EpisodeWriter(tmp_path / "set", SMALL) as writer:
        for i in range(3):
            writer.add_frame({"action": np.zeros(4), TOP: picture(i, 0)})
            writer.save_episode("go", {"a\x1b[31m": f"v{i}", "b": f"v{i}"})
    status, told = run(capsys, "check", str(tmp_path / "set"), "--only", "copies")
    assert status == 0 and "the same in 3 of 3" in told and "\x1b" not in told


# ---- info and view


@pytest.mark.parametrize(
    ("words", "pair"),
    [
        ("Pick up the red cups", ("pick up", "cup")),
        ("Put the marker in the pot", ("put", "marker")),
        ("please wipe the table with the towel", ("wipe", "table")),
        ("Closing the drawer", ("close", "drawer")),
        ("Move two glasses to the left", ("move", "glasses")),
        ("stirring", ("stir", "")),
        ("", ("", "")),
    ],
)
def test_verbs_and_objects(words: str, pair: tuple[str, str]) -> None:
    assert verb_and_object(words) == pair


def test_info_counts_what_the_generator_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from heedful.data.episodes.diversity import diversity
    from heedful.recipes.demos_report import facts_of, write_page

    world = defective_demos.clean(3)
    truth = defective_demos.scenes(world, np.random.default_rng(3))
    episodes = defective_demos.opened(world)
    found = diversity(episodes)
    assert len(found.scenes) == 4 and found.distinct_scenes == 3
    assert {frozenset(pair) for pair in found.scenes.items() if pair[0] != pair[1]} == truth
    assert found.verbs == {"put": 8} and found.objects == {"it": 8}
    # the camera is moved with each scene, and one scene comes twice
    assert found.viewpoints == {"exterior_1_left": 3, "exterior_2_left": 3}
    # scenes 0, 0, 1, 1, 2, 2, and the last is the first again
    assert [count for _, count in found.growth["scenes"]] == [1, 1, 2, 2, 3, 3, 3, 3]
    assert found.viewpoint_growth["exterior_1_left"] == found.growth["scenes"]
    facts = facts_of(episodes, found)
    assert facts["frames"] == 480 and facts["successes"] == 6
    share, low, high = facts["intervals"]["share of successes"]
    assert share == 0.75 and 0 < low < share < high
    # every scene comes twice: a new one is unlikely, and 8 episodes cannot rule it out
    assert facts["intervals"]["share with one of the scenes that no other episode has"] == [0, 0, 0.3694]
    page = write_page(tmp_path, episodes, found, facts).read_text()
    assert "Scenes that look the same" in page and "Verbs, most common first" in page
    assert "Different viewpoints seen, by camera: exterior_1_left 1 → 3" in page
    assert "95% bootstrap intervals" in page
    assert "<script" not in page


def test_what_one_episode_alone_has() -> None:
    from heedful.data.episodes.diversity import growth, only_here

    labels: list[set[Any]] = [{"a", "b"}, {"a"}, set(), {"a", "c"}]
    assert only_here(labels) == pytest.approx([1, 0, np.nan, 1], nan_ok=True)
    assert growth(labels) == [(1, 2), (2, 2), (3, 2), (4, 3)]


def test_the_spread_of_first_contacts_has_an_interval() -> None:
    from heedful.data.episodes.diversity import Diversity
    from heedful.recipes.demos_report import intervals

    places = np.random.default_rng(0).normal(0, [0.1, 0.2, 0.3], (60, 3))
    told = intervals(Diversity(contacts=places), [None] * 60)
    for k, axis in enumerate("xyz"):
        value, spread = told[f"spread of the first contacts in {axis}, metres"], places[:, k].std()
        assert value.low < value.estimate < value.high and value.estimate == pytest.approx(spread)
        # the standard error of the spread of normal numbers is spread / sqrt(2 n)
        assert (value.high - value.low) / (2 * 1.96) == pytest.approx(spread / 120**0.5, rel=0.3)


def test_successes_are_counted_as_they_are_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with EpisodeWriter(tmp_path / "set", SMALL) as writer:
        for i in range(3):
            writer.add_frame({"action": np.zeros(4), TOP: picture(i, 0)})
            writer.save_episode("go", {"is_episode_successful": i != 1})
    status, told = run(capsys, "info", str(tmp_path / "set"), "--json")
    assert status == 0 and told["successes"] == 2


def test_first_contact_is_where_the_gripper_closes() -> None:
    from heedful.data.episodes.diversity import distinct_poses, first_contact

    world = defective_demos.clean(0)
    closed = np.zeros(60, np.float32)
    closed[17:30] = 0.9
    for row in world.episodes:
        row.columns["observation.state.gripper_position"] = closed
    episodes = defective_demos.opened(world)
    hand = world.episodes[2].columns["observation.state.cartesian_position"][17, :3]
    contact = first_contact(episodes, 2)
    assert contact is not None and np.array_equal(contact, hand)
    assert distinct_poses([np.zeros(6), np.full(6, 0.004), np.array([0.02, 0, 0, 0, 0, 0])]) == 2
    assert distinct_poses([np.array([0, 0, 0, np.pi, 0, 0]), np.array([0, 0, 0, -np.pi, 0, 0])]) == 1


def test_info_prints_facts(ten: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, told = run(capsys, "info", str(ten), "--json", "--out", str(tmp_path / "report"))
    assert status == 0 and told["episodes"] == 10 and told["frames"] == 40 and told["objects"] == 1
    assert told["verbs"] == 2 and told["scenes"] == 5 and (tmp_path / "report" / "report.html").exists()
    assert any("viewpoints are not counted" in problem for problem in told["not counted"])


def test_view_is_one_inert_page(idling: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "</script><img src=x onerror=alert(1)>"
    with EpisodeWriter(
        tmp_path / "<b>set", replace(SMALL, features={**SMALL.features, **LANGUAGE_FEATURES})
    ) as writer:
        for t in range(4):
            writer.add_frame({"action": [np.nan, t, t, t], TOP: picture(0, t)})
        writer.say(hostile)
        writer.save_episode(hostile, {"note": hostile})
    page = tmp_path / "page.html"
    status, _ = run(capsys, "view", str(tmp_path / "<b>set"), "--out", str(page))
    text = page.read_text()
    assert (
        status == 0
        and "<img" not in text
        and "<b>set" not in text
        and "http" not in text.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")
    )
    assert text.count("<script") == 2 and text.count("data:video/mp4;base64,") == 1
    data = json.loads(re.findall(r'id="data">(.*?)</script>', text)[0])
    assert (
        data["tasks"] == [hostile] and data["language"][0][3] == hostile and data["meta"]["note"] == hostile
    )
    assert data["signals"]["action"] == [[None] * 4, [0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3]]
    status, told = run(capsys, "view", str(idling), "--out", str(page), "--columns", "torque")
    assert status == 1 and "there is no column 'torque'" in told


def test_rerun_recording(idling: Path, tmp_path: Path) -> None:
    from heedful.recipes.demos_view import write_recording

    try:
        import rerun  # type: ignore[import-not-found]
    except ImportError:
        with pytest.raises(HeedfulError, match="pip install rerun-sdk"):
            write_recording(open_episodes(idling), 1, tmp_path / "e.rrd")
        return
    assert rerun
    made = write_recording(open_episodes(idling), 1, tmp_path / "e.rrd")
    assert made.read_bytes()[:4] in (b"RRF2", b"RRIO") and made.stat().st_size > 10_000
