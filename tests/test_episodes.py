"""Demonstrations on disk: written and read back index-exact, killed at every step, and damaged in every way."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from episode_sets import INFO, damage_pictures, frame, picture, write_episodes

from heedful.data.episodes import LANGUAGE_FEATURES, Feature, Info, LanguageRow, open_episodes
from heedful.data.episodes.stats import column_stats, pool_stats
from heedful.data.episodes.write import EpisodeWriter
from heedful.errors import HeedfulError

TOP, WRIST = "observation.images.top", "observation.images.wrist"
SMALL = replace(INFO, features={n: INFO.features[n] for n in ("action", TOP)})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_episodes(tmp_path_factory.mktemp("whole") / "set", (5, 9, 4))


def break_it(whole: Path, tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(whole, tmp_path / "broken"))


# ---- round trip


def test_what_is_written_is_read(whole: Path) -> None:
    episodes = open_episodes(whole)
    assert len(episodes) == 3 and episodes.info.total_frames == 18 and episodes.info.fps == 15
    assert episodes.problems() == []
    row = 0
    for i, length in enumerate((5, 9, 4)):
        episode = episodes.episode(i)
        assert episode.length == length
        assert episode.tasks == (f"pick block {i % 2}", f"take block {i % 2}")
        assert episode.meta == {"scene_id": i // 2, "success": i != 1}
        columns = episodes.columns(i)
        for t in range(length):
            given = frame(i, t, length)
            for name in ("observation.state", "action", "pose", "done", "note"):
                assert np.array_equal(columns[name][t], given[name]), name
            assert columns["index"][t] == row and columns["frame_index"][t] == t
            row += 1
        assert columns["timestamp"] == pytest.approx(np.arange(length) / 15)
        assert np.array_equal(
            episodes.frames(i, WRIST, range(length)), [picture(i, t) for t in range(length)]
        )


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [8, 0, 5, 5, 2], [7], [3, 2, 1, 0]])
def test_video_frames_come_in_any_order(whole: Path, order: list[int]) -> None:
    found = open_episodes(whole).frames(1, TOP, order)
    for got, t in zip(found, order, strict=True):
        errors = [np.abs(got.astype(int) - picture(1, k)).mean() for k in range(9)]
        assert int(np.argmin(errors)) == t and errors[t] < 3


def test_part_of_an_episode(whole: Path) -> None:
    episodes = open_episodes(whole)
    part = episodes.columns(1, ["action", "note"], 3, 5)
    assert list(part) == ["action", "note"] and part["note"].tolist() == ["frame 3 ü", "frame 4 ü"]
    assert np.array_equal(part["action"], episodes.columns(1)["action"][3:5])


def test_files_are_packed_and_stay_exact(tmp_path: Path) -> None:
    loose = open_episodes(write_episodes(tmp_path / "loose", (5, 3, 6), finalize=False))
    assert len(list((tmp_path / "loose").rglob("*.mp4"))) == 3
    write_episodes(tmp_path / "packed", (5, 3, 6))
    packed = open_episodes(tmp_path / "packed")
    assert [p.name for p in sorted((tmp_path / "packed").rglob("*.mp4"))] == ["file-000.mp4"]
    for i in range(3):
        assert np.array_equal(loose.frames(i, TOP, range(3)), packed.frames(i, TOP, range(3)))
        assert all(np.array_equal(v, packed.columns(i)[n]) for n, v in loose.columns(i).items())


def test_files_keep_to_their_size(tmp_path: Path) -> None:
    write_episodes(
        tmp_path / "set", (6, 6, 6, 6), info=replace(SMALL, data_files_size_in_mb=0.008, chunks_size=1)
    )
    names = [
        str(p.relative_to(tmp_path / "set")) for p in sorted((tmp_path / "set" / "data").rglob("*.parquet"))
    ]
    assert names == [f"data/chunk-00{k}/file-000.parquet" for k in range(2)]
    episodes = open_episodes(tmp_path / "set")
    assert [episodes.columns(i)["episode_index"].tolist() for i in range(4)] == [[i] * 6 for i in range(4)]


def test_it_goes_on_where_it_stopped(tmp_path: Path) -> None:
    write_episodes(tmp_path / "set", (4, 5), info=SMALL)
    write_episodes(tmp_path / "set", (3,), info=SMALL)
    episodes = open_episodes(tmp_path / "set")
    assert [episodes.episode(i).length for i in range(3)] == [4, 5, 3]
    assert episodes.columns(2)["index"].tolist() == [9, 10, 11]
    got = episodes.frames(2, TOP, [2])[0]
    assert abs(got[..., 2].mean() - picture(2, 2)[..., 2].mean()) < 3


def test_language_rows(tmp_path: Path) -> None:
    info = replace(SMALL, features={**SMALL.features, **LANGUAGE_FEATURES})
    with EpisodeWriter(tmp_path / "set", info) as writer:
        for t in range(6):
            writer.add_frame({n: v for n, v in frame(0, t, 6).items() if n in info.features})
            if t == 0:
                writer.say("reach", "subtask")
            if t == 3:
                writer.say("no, left")
        writer.save_episode(
            "tidy", language=[LanguageRow("grasp", "subtask", 4 / 15, "assistant", None, ({"a": 1},))]
        )
    episodes = open_episodes(tmp_path / "set")
    said = [(r.content, r.style, round(r.timestamp * 15), r.role) for r in episodes.language(0)]
    assert said == [
        ("reach", "subtask", 0, "assistant"),
        ("no, left", "interjection", 3, "user"),
        ("grasp", "subtask", 4, "assistant"),
    ]
    assert episodes.language(0)[2].tool_calls == ({"a": 1},)
    table = pq.read_table(next((tmp_path / "set" / "data").rglob("*.parquet")))
    rows = table.column("language_persistent").type.value_type
    assert [f.name for f in rows] == ["role", "content", "style", "timestamp", "camera", "tool_calls"]
    assert rows.field("timestamp").type == pa.float32()
    assert [len(r) for r in table.column("language_persistent").to_pylist()] == [2] * 6
    assert [len(r) for r in table.column("language_events").to_pylist()] == [0, 0, 0, 1, 0, 0]


def test_statistics_are_those_of_the_frames(whole: Path) -> None:
    episodes = open_episodes(whole)
    stats = json.loads((whole / "meta" / "stats.json").read_text())
    actions = np.concatenate([episodes.columns(i)["action"] for i in range(3)]).astype(np.float64)
    for name in ("min", "max", "mean", "std"):
        assert stats["action"][name] == pytest.approx(getattr(actions, name)(axis=0), rel=1e-5)
    assert stats["action"]["count"] == [18] and np.shape(stats[TOP]["mean"]) == (3, 1, 1)
    assert 0.2 < stats[TOP]["mean"][0][0][0] < 0.5


@pytest.mark.parametrize("seed", range(3))
def test_pooled_statistics(seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = [rng.normal(size=(n, 3)) * 10 for n in (2, 17, 40)]
    pooled = pool_stats([{"a": column_stats(p)} for p in parts])["a"]
    direct = column_stats(np.concatenate(parts))
    for name in ("min", "max", "mean", "std", "count"):
        assert pooled[name] == pytest.approx(direct[name])


# ---- killed


def killed_writer(folder: Path, step: int, packing: bool) -> bool:
    """Write two episodes and finalise in a process that dies at its `step`-th rename; whether it got that far."""
    pid = os.fork()
    if pid == 0:
        try:
            calls = 0
            replace_, unlink = os.replace, os.unlink

            def dying(call: Any) -> Any:
                def run(*args: Any, **kwargs: Any) -> Any:
                    nonlocal calls
                    calls += 1
                    if calls > step:
                        os._exit(9)
                    return call(*args, **kwargs)

                return run

            writer = EpisodeWriter(folder, SMALL)
            if not packing:
                os.replace = dying(replace_)
            for i in range(writer.info.total_episodes, 2):
                for t in range(3):
                    writer.add_frame({n: v for n, v in frame(i, t, 3).items() if n in SMALL.features})
                writer.save_episode("go")
            if packing:
                os.replace, os.unlink = dying(replace_), dying(unlink)
            writer.finalize()
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) in (0, 9)
    return os.waitstatus_to_exitcode(status) == 0


@pytest.mark.parametrize("packing", [False, True])
def test_a_kill_loses_at_most_the_episode_in_hand(tmp_path: Path, packing: bool) -> None:
    ended = False
    for step in range(0, 40, 3):
        folder = tmp_path / str(step)
        ended = killed_writer(folder, step, packing)
        if packing:
            # What readers find is whole too: an interrupted packing is finished by whoever opens it.
            assert len(open_episodes(folder)) == 2
        write_episodes(folder, (3,), info=SMALL)
        episodes = open_episodes(folder)
        assert episodes.problems() == []
        count = len(episodes)
        assert count == 3 if packing or ended else 1 <= count <= 3
        for i in range(count):
            columns = episodes.columns(i)
            assert np.array_equal(columns["action"], [frame(i, t, 3)["action"] for t in range(3)])
            seen = episodes.frames(i, TOP, [0, 2])
            assert abs(seen[1][..., 2].mean() - picture(i, 2)[..., 2].mean()) < 3
        if ended:
            break
    assert ended and step > 5, "the writer was never killed, or always"


def save(writer: EpisodeWriter, length: int) -> None:
    i = writer.info.total_episodes
    for t in range(length):
        writer.add_frame({n: v for n, v in frame(i, t, length).items() if n in SMALL.features})
    writer.save_episode("go")


def interrupted(folder: Path, monkeypatch: pytest.MonkeyPatch, length: int = 5) -> EpisodeWriter:
    """A writer whose episode is all written but for meta/info.json."""
    writer = EpisodeWriter(folder, SMALL)

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("heedful.data.episodes.write.write_info", stop)
        with pytest.raises(KeyboardInterrupt):
            save(writer, length)
    return writer


@pytest.mark.parametrize("killed", [False, True])
def test_an_episode_that_does_not_count_is_not_in_the_statistics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    folder = write_episodes(tmp_path / "set", (3, 4), info=SMALL)
    writer = interrupted(folder, monkeypatch)
    if killed:
        writer.close()
        writer = EpisodeWriter(folder, SMALL)
        assert open_episodes(folder).stats()["index"]["count"] == [7]  # type: ignore[attr-defined]
    else:
        writer.discard()
    save(writer, 6)
    writer.finalize()
    episodes = open_episodes(folder)
    assert [episodes.episode(i).length for i in range(len(episodes))] == [3, 4, 6]
    assert episodes.problems() == []
    found = episodes.stats()  # type: ignore[attr-defined]
    with EpisodeWriter(write_episodes(tmp_path / "whole", (3, 4), info=SMALL), SMALL) as writer:
        save(writer, 6)
    wanted = open_episodes(tmp_path / "whole").stats()  # type: ignore[attr-defined]
    for column, stats in wanted.items():
        for name, value in stats.items():
            np.testing.assert_allclose(found[column][name], value, err_msg=f"{column}, {name}")


def test_a_first_episode_that_does_not_count_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "set"
    interrupted(folder, monkeypatch).close()
    assert sorted(p.suffix for p in folder.rglob("file-*")) == [".mp4", ".parquet", ".parquet"]
    (folder / "data" / "chunk-000" / ".file-000.parquet.12ab.tmp").write_bytes(b"half")
    write_episodes(folder, (3,), info=SMALL)
    episodes = open_episodes(folder)
    assert len(episodes) == 1 and episodes.problems() == [] and not list(folder.rglob("*.tmp"))


@pytest.mark.parametrize("name", ["data/thesis.csv", "videos/holiday.mp4", "meta/notes.txt"])
def test_files_of_others_are_not_removed(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_text("years of work")
    with pytest.raises(HeedfulError, match=f"no meta/info.json, and {re.escape(name)} is in it"):
        EpisodeWriter(tmp_path, SMALL)
    assert (tmp_path / name).read_text() == "years of work"


def test_files_of_others_beside_a_first_episode_that_does_not_count_are_not_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(tmp_path, monkeypatch).close()
    (tmp_path / "data" / "thesis.csv").write_text("years of work")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(HeedfulError, match=r"data/thesis\.csv is in it"):
        EpisodeWriter(tmp_path, SMALL)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("finalize", [False, True])
@pytest.mark.parametrize("lengths", [(3,), (3, 4, 2)])
def test_episodes_of_a_set_that_lost_its_info_are_not_removed(
    tmp_path: Path, lengths: tuple[int, ...], finalize: bool
) -> None:
    folder = write_episodes(tmp_path / "set", lengths, info=SMALL, finalize=finalize)
    os.replace(folder / "meta" / "info.json", tmp_path / "info.json")
    with pytest.raises(HeedfulError, match=r"put its meta/info\.json back"):
        EpisodeWriter(folder, SMALL)
    os.replace(tmp_path / "info.json", folder / "meta" / "info.json")
    episodes = open_episodes(folder)
    assert len(episodes) == len(lengths)
    assert all(len(episodes.frames(i, TOP, [0])) for i in range(len(lengths)))


def test_two_writers_do_not_share_a_folder(tmp_path: Path) -> None:
    writer = EpisodeWriter(tmp_path / "set", SMALL)
    with pytest.raises(HeedfulError, match="being written by another process"):
        EpisodeWriter(tmp_path / "set", SMALL)
    writer.close()


def test_discarding_forgets_the_episode(tmp_path: Path) -> None:
    with EpisodeWriter(tmp_path / "set", SMALL) as writer:
        for t in range(3):
            writer.add_frame({n: v for n, v in frame(7, t, 3).items() if n in SMALL.features})
        writer.discard()
        for t in range(2):
            writer.add_frame({n: v for n, v in frame(0, t, 2).items() if n in SMALL.features})
        writer.save_episode("go")
    episodes = open_episodes(tmp_path / "set")
    assert len(episodes) == 1 and episodes.episode(0).length == 2
    assert np.array_equal(episodes.columns(0)["action"][0], frame(0, 0, 2)["action"])


# ---- refused


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"action": None}, "episode 0, frame 1 comes without action"),
        ({"extra": 1}, "with unknown extra"),
        ({"action": np.zeros(3)}, r"frame 1, action must be float32 \(4,\)"),
        ({TOP: np.zeros((4, 4, 3), np.uint8)}, "must be uint8"),
        ({TOP: np.zeros((64, 64, 3))}, "not float64"),
    ],
)
def test_a_wrong_frame_is_refused_and_the_episode_goes_on(tmp_path: Path, change: Any, match: str) -> None:
    def good(t: int) -> dict[str, Any]:
        return {n: v for n, v in frame(0, t, 3).items() if n in SMALL.features}

    with EpisodeWriter(tmp_path / "set", SMALL) as writer:
        writer.add_frame(good(0))
        with pytest.raises(HeedfulError, match=match):
            writer.add_frame({n: v for n, v in {**good(1), **change}.items() if v is not None})
        writer.add_frame(good(1))
        writer.save_episode("go")
    episodes = open_episodes(tmp_path / "set")
    assert episodes.episode(0).length == 2 and len(episodes.frames(0, TOP, [0, 1])) == 2


def test_an_episode_needs_frames_and_an_instruction(tmp_path: Path) -> None:
    writer = EpisodeWriter(tmp_path / "set", SMALL)
    with pytest.raises(HeedfulError, match="no frames"):
        writer.save_episode("go")
    writer.add_frame({n: v for n, v in frame(0, 0, 1).items() if n in SMALL.features})
    with pytest.raises(HeedfulError, match="no instruction"):
        writer.save_episode()
    with pytest.raises(HeedfulError, match="name of LeRobot's own"):
        writer.save_episode("go", {"length": 3})
    writer.close()


def test_other_columns_or_rate_are_refused(whole: Path) -> None:
    with pytest.raises(HeedfulError, match="30"):
        EpisodeWriter(whole, replace(INFO, fps=30))
    with pytest.raises(HeedfulError, match="column 'done'"):
        EpisodeWriter(whole, replace(INFO, features={n: f for n, f in INFO.features.items() if n != "done"}))
    with pytest.raises(HeedfulError, match="dtype 'float31'"):
        EpisodeWriter(whole.parent / "new", Info(10, features={"a": Feature("float31", (1,))}))


# ---- damaged


def first(folder: Path, suffix: str) -> Path:
    return next(p for p in sorted(folder.rglob(f"*{suffix}")) if "meta" not in p.parts)


def test_a_video_shorter_than_its_table(whole: Path, tmp_path: Path) -> None:
    broken = break_it(whole, tmp_path)
    from heedful.data.episodes.video import Video, cut_video

    video = first(broken, ".mp4")
    cut_video(Video(video), [(0, 17)], 15, tmp_path / "short.mp4")
    os.replace(tmp_path / "short.mp4", video)
    episodes = open_episodes(broken)
    assert len(episodes.frames(2, TOP, [0, 1, 2])) == 3
    with pytest.raises(HeedfulError, match=r"episode 2, camera '.*top': frame 3 of 4 is not in file-000.mp4"):
        episodes.frames(2, TOP, [0, 3])


def test_a_missing_camera(whole: Path, tmp_path: Path) -> None:
    broken = break_it(whole, tmp_path)
    first(broken, ".mp4").unlink()
    episodes = open_episodes(broken)
    assert any("file-000.mp4 is missing" in told for told in episodes.problems())
    with pytest.raises(HeedfulError, match=r"episode 1, camera '.*top': its video"):
        episodes.frames(1, TOP, [0])
    with pytest.raises(HeedfulError, match="there is no camera 'front'"):
        episodes.frames(1, "front", [0])


def test_a_video_that_is_none(whole: Path, tmp_path: Path) -> None:
    broken = break_it(whole, tmp_path)
    first(broken, ".mp4").write_bytes(b"nothing" * 100)
    with pytest.raises(HeedfulError, match=r"episode 0, camera '.*top': .* cannot be read as a video"):
        open_episodes(broken).frames(0, TOP, [0])


def test_a_damaged_picture_is_named_by_its_frame(whole: Path, tmp_path: Path) -> None:
    broken = break_it(whole, tmp_path)
    damage_pictures(first(broken, ".mp4"), (8,))  # picture 9 does not need it
    episodes = open_episodes(broken)
    assert len(episodes.frames(1, TOP, [4, 2, 0])) == 3
    with pytest.raises(HeedfulError, match=r"episode 1, camera '.*top', frame 3: .* picture 8 is damaged"):
        episodes.frames(1, TOP, [4, 3, 2])


def test_a_corrupt_footer(whole: Path, tmp_path: Path) -> None:
    broken = break_it(whole, tmp_path)
    table = first(broken, ".parquet")
    table.write_bytes(table.read_bytes()[:-20])
    with pytest.raises(
        HeedfulError, match=r"file-000.parquet is no whole Parquet file .* it holds episode 1"
    ):
        open_episodes(broken).columns(1)
    rows = next((broken / "meta" / "episodes").rglob("*.parquet"))
    rows.write_bytes(rows.read_bytes()[:-20])
    with pytest.raises(HeedfulError, match="it holds rows of meta/episodes"):
        open_episodes(broken)


def test_text_that_is_not_utf8(whole: Path, tmp_path: Path) -> None:
    broken = break_it(whole, tmp_path)
    file = first(broken, ".parquet")
    table = pq.read_table(file)
    raw = [
        b"\xff\xfe bad" if k == 7 else text.encode()
        for k, text in enumerate(table.column("note").to_pylist())
    ]
    bad = pa.array(raw, pa.binary()).view(pa.string())
    pq.write_table(table.set_column(table.schema.get_field_index("note"), "note", bad), file)
    episodes = open_episodes(broken)
    assert episodes.columns(0, ["note"])["note"][0] == "frame 0 ü"
    with pytest.raises(HeedfulError, match="episode 1, column 'note': frame 2 is not UTF-8"):
        episodes.columns(1, ["note"])


def test_an_instruction_that_is_not_utf8(whole: Path, tmp_path: Path) -> None:
    broken = break_it(whole, tmp_path)
    file = next((broken / "meta" / "episodes").rglob("*.parquet"))
    table = pq.read_table(file)
    texts = pa.array([b"ok", b"ok", b"\xff", b"ok", b"ok", b"ok"], pa.binary()).view(pa.string())
    tasks = pa.ListArray.from_arrays(pa.array([0, 2, 4, 6], pa.int32()), texts)
    pq.write_table(table.set_column(table.schema.get_field_index("tasks"), "tasks", tasks), file)
    with pytest.raises(HeedfulError, match="'tasks' of episode 1 is not UTF-8"):
        open_episodes(broken)


@pytest.mark.parametrize(
    "column",
    ["data/chunk_index", "data/file_index", "dataset_from_index", "tasks", f"videos/{TOP}/from_timestamp"],
)
def test_a_column_of_places_that_is_missing(whole: Path, tmp_path: Path, column: str) -> None:
    broken = break_it(whole, tmp_path)
    file = next((broken / "meta" / "episodes").rglob("*.parquet"))
    pq.write_table(pq.read_table(file).drop_columns([column]), file)
    with pytest.raises(HeedfulError, match=f"file-000.parquet has no column '{column}'.*: restore the file"):
        open_episodes(broken)


def test_a_place_that_is_missing(whole: Path, tmp_path: Path) -> None:
    broken = break_it(whole, tmp_path)
    file = next((broken / "meta" / "episodes").rglob("*.parquet"))
    table = pq.read_table(file)
    place = table.schema.get_field_index("data/file_index")
    pq.write_table(table.set_column(place, "data/file_index", pa.array([0, None, 0])), file)
    with pytest.raises(HeedfulError, match="'data/file_index' of episode 1 has no value"):
        open_episodes(broken)


def test_frames_are_found_though_the_rows_before_them_are_lost(whole: Path, tmp_path: Path) -> None:
    from heedful.data.episodes.lerobot import open_folder

    broken = break_it(whole, tmp_path)
    file = next((broken / "meta" / "episodes").rglob("*.parquet"))
    pq.write_table(pq.read_table(file).slice(2), file)
    with pytest.raises(HeedfulError, match="counts 3 episodes, and meta/episodes has rows of 1"):
        open_episodes(broken)
    episodes, truth = open_folder(broken, strict=False), open_episodes(whole)
    assert np.array_equal(episodes.columns(2)["action"], truth.columns(2)["action"])
    assert np.array_equal(episodes.frames(2, TOP, [3]), truth.frames(2, TOP, [3]))
    with pytest.raises(HeedfulError, match="episode 1 has no row"):
        episodes.episode(1)


def test_unknown_and_missing_columns(whole: Path, tmp_path: Path) -> None:
    broken = break_it(whole, tmp_path)
    file = first(broken, ".parquet")
    table = pq.read_table(file)
    pq.write_table(table.rename_columns(["torque" if n == "action" else n for n in table.column_names]), file)
    episodes = open_episodes(broken)
    assert any("column 'torque' is not in meta/info.json" in told for told in episodes.problems())
    with pytest.raises(HeedfulError, match="no column 'action'; it holds episode 2"):
        episodes.columns(2, ["action"])
    with pytest.raises(HeedfulError, match="there is no column 'torque'; it has"):
        episodes.columns(2, ["torque"])


def test_a_table_shorter_than_its_episodes(whole: Path, tmp_path: Path) -> None:
    broken = break_it(whole, tmp_path)
    file = first(broken, ".parquet")
    pq.write_table(pq.read_table(file).slice(0, 15), file)
    with pytest.raises(HeedfulError, match="has 15 rows, and 18 are needed; it holds episode 2"):
        open_episodes(broken).columns(2)


def test_a_value_that_is_missing(whole: Path, tmp_path: Path) -> None:
    broken = break_it(whole, tmp_path)
    file = first(broken, ".parquet")
    table = pq.read_table(file)
    actions = table.column("action").to_pylist()
    actions[6] = None
    actions = pa.array(actions, pa.list_(pa.float32()))
    pq.write_table(table.set_column(table.schema.get_field_index("action"), "action", actions), file)
    with pytest.raises(HeedfulError, match="episode 1, column 'action': frame 1 has no value"):
        open_episodes(broken).columns(1, ["action"])


def test_rows_of_episodes_that_are_lost(whole: Path, tmp_path: Path) -> None:
    broken = break_it(whole, tmp_path)
    file = broken / "meta" / "info.json"
    file.write_text(file.read_text().replace('"total_episodes": 3', '"total_episodes": 4'))
    with pytest.raises(HeedfulError, match="counts 4 episodes"):
        open_episodes(broken)


def test_paths_stay_inside_the_data_set(whole: Path, tmp_path: Path) -> None:
    broken = break_it(whole, tmp_path)
    file = broken / "meta" / "info.json"
    told = json.loads(file.read_text())
    told["data_path"] = "../../secret-{chunk_index}-{file_index}.parquet"
    file.write_text(json.dumps(told))
    with pytest.raises(HeedfulError, match="lies outside the data set"):
        open_episodes(broken).columns(0)


def test_what_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(HeedfulError, match="no demonstrations that are known"):
        open_episodes(tmp_path)
    with pytest.raises(HeedfulError, match="no such file"):
        open_episodes(tmp_path / "nothing")
