"""Offline data out of other people's files, and what is said of wrong ones: which file, which row, which field."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from heedful.data.offline_files import bounds_in, read_episodes
from heedful.data.offline_import import import_episodes, space_of_data
from heedful.data.replay import Episode, ReplayBuffer
from heedful.data.transitions import Rewards, TransitionTable
from heedful.errors import HeedfulError
from heedful.policies.actions import ActionSpace
from heedful.recipes import act_plan
from heedful.recipes.act import Config

SPACE = ActionSpace((-1.0, -1.0), (1.0, 1.0))
LENGTHS = (3, 4)


def flat(**change: Any) -> dict[str, Any]:
    """Two episodes in D4RL's names: 3 steps that end the task, then 4 that ran out of time. State t of all is t."""
    count = sum(LENGTHS)
    fields: dict[str, Any] = {
        "observations": np.arange(3 * count, dtype=np.float32).reshape(count, 3),
        "actions": np.linspace(-1, 1, 2 * count, dtype=np.float32).reshape(count, 2),
        "rewards": np.arange(count, dtype=np.float32),
        "terminals": np.array([0, 0, 1, 0, 0, 0, 0], bool),
        "timeouts": np.array([0, 0, 0, 0, 0, 0, 1], bool),
    }
    return {k: v for k, v in {**fields, **change}.items() if v is not None}


def hdf5(path: Path, fields: dict[str, Any]) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in fields.items():
            file[name] = values
    return path


def npz(path: Path, fields: dict[str, Any]) -> Path:
    np.savez(path, **fields)
    return path


def minari(folder: Path, *, infos: str = "group", **change: Any) -> Path:
    """Two episodes as Minari stores them, observations of two parts, one of them nested."""
    (folder / "data").mkdir(parents=True)
    space = {"type": "Box", "dtype": "float32", "shape": [2], "low": [-1.0, -2.0], "high": [1.0, 2.0]}
    said = {"data_format": "hdf5", "total_episodes": 2, "action_space": json.dumps(space)}
    (folder / "data" / "metadata.json").write_text(json.dumps(said))
    with h5py.File(folder / "data" / "main_data.hdf5", "w") as file:
        for number, steps in enumerate(LENGTHS):
            group = file.create_group(f"episode_{number}")
            group["observations/seen"] = np.full((steps + 1, 2), number, np.float64)
            group["observations/goal/place"] = np.zeros((steps + 1, 1), np.float32)
            for name, values in {
                "actions": np.zeros((steps, 2), np.float32),
                "rewards": np.ones(steps),
                "terminations": np.arange(steps) == steps - 1 if number == 0 else np.zeros(steps, bool),
                "truncations": np.zeros(steps, bool),
            }.items():
                if change.get(name, values) is not None:
                    group[name] = change.get(name, values)
            success = np.arange(steps + 1) == steps if number == 0 else np.zeros(steps + 1, bool)
            if infos == "group":
                group["infos/success"] = success
            else:
                group["infos"] = [json.dumps({"success": bool(s)}) for s in success]
    return folder


def minari_of_today(folder: Path, *, jpeg: bool = True) -> Path:
    """As minari 0.5.4 lays it out (compared with a data set that it wrote): attributes, chunks, pictures as JPEG."""
    (folder / "data").mkdir(parents=True)

    def box(low: float, high: float, *shape: int, kind: str = "float64") -> dict[str, Any]:
        bounds = {"low": np.full(shape, low).tolist(), "high": np.full(shape, high).tolist()}
        return {"type": "Box", "dtype": kind, "shape": list(shape), **bounds}

    seen = {"camera": box(0, 255, 32, 40, 3, kind="uint8"), "place": box(-10, 10, 3)}
    metadata = {
        "total_episodes": 2,
        "total_steps": 7,
        "data_format": "hdf5",
        "jpeg_encoding": jpeg,
        "observation_space": json.dumps({"type": "Dict", "subspaces": seen}),
        "action_space": json.dumps(box(-1, 1, 2, kind="float32")),
        "dataset_id": "goal/test-v0",
        "minari_version": "0.5.4",
    }
    (folder / "data" / "metadata.json").write_text(json.dumps(metadata))
    with h5py.File(folder / "data" / "main_data.hdf5", "w", track_order=True) as file:
        for number, steps in enumerate(LENGTHS):
            group = file.create_group(f"episode_{number}")
            group.attrs.update({"id": number, "seed": number, "total_steps": steps})
            pictures = [np.full((32, 40, 3), 20 * i, np.uint8) for i in range(steps + 1)]
            inner = group.create_group("observations")
            if jpeg:
                coded = []
                for picture in pictures:
                    Image.fromarray(picture).save(buffer := io.BytesIO(), format="JPEG")
                    coded.append(np.frombuffer(buffer.getvalue(), np.uint8))
                inner.create_dataset("camera", (steps + 1,), h5py.vlen_dtype(np.uint8), chunks=True)
                for i, frame in enumerate(coded):
                    inner["camera"][i] = frame
            else:
                inner["camera"] = np.stack(pictures)
            ended = (np.arange(steps) == steps - 1) & (number == 0)
            for name, values in {
                "observations/place": np.full((steps + 1, 3), number, np.float64),
                "actions": np.zeros((steps, 2), np.float32),
                "rewards": np.ones(steps),
                "terminations": ended,
                "truncations": (np.arange(steps) == steps - 1) & (number == 1),
                "infos/success": np.append(False, ended),
            }.items():
                group.create_dataset(name, data=values, chunks=True, maxshape=(None, *values.shape[1:]))
    return folder


def lerobot(path: Path, **change: Any) -> Path:
    fields = flat()
    columns: dict[str, Any] = {
        "observation.state": fields["observations"].tolist(),
        "action": fields["actions"].tolist(),
        "next.reward": fields["rewards"].tolist(),
        "next.done": [False, False, True, False, False, False, True],
        "next.truncated": [False] * 6 + [True],
        "next.success": [False, False, True] + [False] * 4,
        "episode_index": [0] * 3 + [7] * 4,
        "frame_index": [0, 1, 2, 0, 1, 2, 3],
    }
    parquet.write_table(pa.table({k: v for k, v in {**columns, **change}.items() if v is not None}), path)
    return path


def episodes(path: Path, **how: Any) -> list[Episode]:
    return [found.episode for found in read_episodes(path, **how)]


# ---- what is read


@pytest.mark.parametrize("infos", ["group", "texts"])
def test_minari(infos: str, tmp_path: Path) -> None:
    folder = minari(tmp_path / "set", infos=infos)
    first, second = episodes(folder)
    assert first.steps == 3 and first.observations["seen"].shape == (4, 2)
    assert first.observations["goal/place"].shape == (4, 1)
    assert first.terminal.tolist() == [False, False, True] and not second.terminal.any()
    assert first.info == {"success": True} and second.info == {"success": False}
    assert (second.observations["seen"] == 1).all()
    assert bounds_in(folder) == ((-1.0, -2.0), (1.0, 2.0))
    # the file itself, and the folder inside, are the same data set
    for path in (folder / "data", folder / "data" / "main_data.hdf5"):
        assert [e.steps for e in episodes(path)] == [3, 4] and bounds_in(path) == bounds_in(folder)


@pytest.mark.parametrize("jpeg", [True, False])
def test_minari_as_it_is_written_today(jpeg: bool, tmp_path: Path) -> None:
    folder = minari_of_today(tmp_path / "set", jpeg=jpeg)
    first, second = episodes(folder)
    assert (first.steps, second.steps) == LENGTHS[:2] and bounds_in(folder) == ((-1.0, -1.0), (1.0, 1.0))
    assert first.info == {"success": True} and second.info == {"success": False}
    assert first.terminal.tolist() == [False, False, True] and not second.terminal.any()
    camera = second.observations["camera"]
    assert camera.shape == (5, 3, 32, 40) and camera.dtype == np.uint8
    assert camera[:, 0, 5, 5].tolist() == pytest.approx([0, 20, 40, 60, 80], abs=2)
    assert (second.observations["place"] == 1).all()


def test_a_picture_that_is_none_is_named(tmp_path: Path) -> None:
    folder = minari_of_today(tmp_path / "set")
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        file["episode_1/observations/camera"][2] = np.arange(9, dtype=np.uint8)
    with pytest.raises(HeedfulError, match=r"episode_1/camera, row 2: not a JPEG picture"):
        episodes(folder)


@pytest.mark.parametrize("write", [hdf5, npz])
def test_d4rl_with_timeouts(write: Any, tmp_path: Path) -> None:
    path = write(tmp_path / ("d.hdf5" if write is hdf5 else "d.npz"), flat())
    found = list(read_episodes(path))
    first, second = (f.episode for f in found)
    # after the end of the task no state counts; where time ran out, the last step has no state after it
    assert first.steps == 3 and second.steps == 3 and [f.left_out for f in found] == [0, 1]
    assert first.observations["state"][:, 0].tolist() == [0, 3, 6, 6]
    assert second.observations["state"][:, 0].tolist() == [9, 12, 15, 18]
    assert first.reward.tolist() == [0, 1, 2] and second.reward.tolist() == [3, 4, 5]
    assert bounds_in(path) is None


def test_d4rl_with_next_observations(tmp_path: Path) -> None:
    after = flat()["observations"] + 3
    after[2] += 100  # where the first episode ended
    with_both = hdf5(tmp_path / "a.hdf5", flat(next_observations=after))
    # without timeouts an episode ends where the next row begins elsewhere
    terminals = np.zeros(7, bool)
    jumps = hdf5(tmp_path / "b.hdf5", flat(next_observations=after, timeouts=None, terminals=terminals))
    for path in (with_both, jumps):
        first, second = episodes(path)
        assert (first.steps, second.steps) == (3, 4)
        assert first.observations["state"][:, 0].tolist() == [0, 3, 6, 109]
        assert second.observations["state"][-1, 0] == 21


def test_d4rl_without_timeouts_needs_the_length_of_episodes(tmp_path: Path) -> None:
    path = hdf5(tmp_path / "d.hdf5", flat(timeouts=None))
    with pytest.raises(HeedfulError, match=r"d\.hdf5: timeouts is missing.*--max-steps"):
        episodes(path)
    assert [e.steps for e in episodes(path, max_steps=2)] == [1, 1, 1, 1]
    ended = flat(timeouts=None, terminals=np.array([0, 0, 1, 0, 0, 0, 1]))
    assert [e.steps for e in episodes(hdf5(tmp_path / "e.hdf5", ended))] == [3, 4]


def test_parquet_in_lerobots_columns(tmp_path: Path) -> None:
    first, second = episodes(lerobot(tmp_path / "d.parquet"))
    assert (first.steps, second.steps) == (3, 3)
    assert first.terminal.tolist() == [0, 0, 1] and not second.terminal.any()
    assert first.info == {"episode_index": 0, "success": True}
    assert second.info == {"episode_index": 7, "success": False}
    assert second.observations["state"].shape == (4, 3)


def test_images_become_channels_first(tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (7, 5, 6, 3)).astype(np.uint8)
    path = npz(tmp_path / "d.npz", flat(observations=pictures))
    first = episodes(path)[0]
    assert first.observations["image"].shape == (4, 3, 5, 6)
    assert np.array_equal(first.observations["image"][1], pictures[1].transpose(2, 0, 1))


def test_import_is_a_buffer_whatever_the_file(tmp_path: Path) -> None:
    path = hdf5(tmp_path / "d.hdf5", flat())
    buffer, facts = import_episodes([str(path)], tmp_path / "r", space=SPACE, task="go")
    assert facts["episodes"] == 2 and facts["steps"] == 6 and facts["left_out"] == 1
    assert facts["shapes"] == {"state": [3]} and buffer.infos[0]["task"] == "go"
    table = TransitionTable(buffer, SPACE, Rewards())
    assert len(table) == 6 and table.mask.tolist() == [1, 1, 0, 1, 1, 1]
    # once more into the same folder replaces it; our own folders and several files can be read too
    again, more = import_episodes([str(tmp_path / "r"), str(lerobot(tmp_path / "l.parquet"))], tmp_path / "s")
    assert again.episodes == 4 and more["low"] == pytest.approx([-1.0, -1 + 2 / 13])
    first, _ = import_episodes([str(path)], tmp_path / "s")
    assert first.episodes == 2 and first.infos[0].get("task") is None
    assert ReplayBuffer(tmp_path / "s", {"state": (3,)}, 2).episodes == 2


def test_bounds_of_the_data() -> None:
    space = space_of_data([-0.5, 2.0], [0.5, 2.0], 3)
    assert space.low[0] == -0.5 and space.high[0] == 0.5 and space.horizon == 3
    assert space.low[1] < 2.0 < space.high[1]


# ---- what is wrong


def spoiled(name: str, place: Any, value: Any) -> dict[str, Any]:
    fields = flat()
    fields[name] = fields[name].astype(float)
    fields[name][place] = value
    return flat(**{name: fields[name]})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (spoiled("rewards", 1, np.nan), r"d\.hdf5: rewards, row 1: nan is not finite"),
        (spoiled("rewards", slice(3, 6), np.inf), r"rewards, row 3: inf is not finite \(2 more rows"),
        (spoiled("actions", (4, 1), 1.5), r"actions, row 4, number 1: 1\.5 is outside \[-1, 1\]"),
        (spoiled("actions", (5, 0), np.nan), r"actions, row 5, number 0: nan is not finite"),
        (spoiled("observations", (0, 2), np.nan), r"observations, row 0, number 2: nan is not finite"),
        (spoiled("terminals", 1, 0.5), r"terminals, row \d: .* is neither 0 nor 1|no episode"),
        (flat(actions=np.zeros((7, 3))), r"actions: an action has 3 numbers; 2 are expected"),
        (
            flat(observations=np.zeros((7, 4))),
            r"observations: a row has the shape \(4,\); \(3,\) is expected",
        ),
        (flat(terminals=None), r"d\.hdf5: terminals is missing; there are actions, observations"),
        (flat(rewards=None, actions=None), r"actions, rewards are missing"),
        (flat(rewards=np.zeros(6)), r"different numbers of rows: rewards 6, terminals 7, actions 7"),
        (flat(timeouts=np.zeros(5)), r"different numbers of rows: rewards 7, timeouts 5"),
        (flat(actions=np.array([[b"up"]] * 7)), r"d\.hdf5: actions is \|S2 .*; numbers, a row for each step"),
        (flat(terminals=np.array([b"no"] * 7)), r"d\.hdf5: terminals is \|S2"),
        (flat(rewards=1.0), r"d\.hdf5: rewards is float64 of the shape \(\); numbers, a row for each step"),
        (flat(actions=None) | {"actions/arm": np.zeros(7)}, r"d\.hdf5: actions is a group of arm; one array"),
        (
            flat(timeouts=None, next_observations=np.zeros((6, 3))),
            r"d\.hdf5: next_observations has the shape \(6, 3\); \(7, 3\) is expected",
        ),
        (flat(next_observations=np.zeros((7, 2))), r"next_observations has the shape \(7, 2\); \(7, 3\)"),
        (
            flat(timeouts=None) | {"next_observations/place": np.zeros((7, 3))},
            r"d\.hdf5: next_observations has place; one array is expected, as observations has",
        ),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = hdf5(tmp_path / "d.hdf5", fields)
    with pytest.raises(HeedfulError, match=said):
        import_episodes([str(path)], tmp_path / "r", shapes={"state": (3,)}, space=SPACE)


def test_minari_errors_name_the_episode(tmp_path: Path) -> None:
    with pytest.raises(HeedfulError, match=r"main_data\.hdf5: episode_0/terminations is missing"):
        episodes(minari(tmp_path / "a", terminations=None))
    with pytest.raises(HeedfulError, match=r"episode_0/actions 2, episode_0/rewards 3"):
        episodes(minari(tmp_path / "b", actions=np.zeros((2, 2))))
    folder = minari(tmp_path / "c")
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        file["episode_1/rewards"][2] = np.nan
    with pytest.raises(HeedfulError, match=r"episode_1/rewards, row 2: nan"):
        import_episodes([str(folder)], tmp_path / "r")


@pytest.mark.parametrize(
    ("field", "values", "said"),
    [
        ("actions", None, "actions is missing"),
        (
            "actions/0",
            np.zeros(4),
            "actions is a group of 0; one array of numbers, a row for each step, is needed",
        ),
        (
            "actions",
            [b"up"] * 4,
            r"actions is .* of the shape \(4,\); numbers, a row for each step, are needed",
        ),
        ("rewards", np.zeros((4, 2)), r"rewards has the shape \(4, 2\); \(4,\), one number for each step"),
        ("rewards", 1.0, r"rewards is float64 of the shape \(\)"),
        ("terminations", np.zeros((4, 2)), r"terminations has the shape \(4, 2\)"),
        ("observations/seen", np.zeros((3, 2)), r"seen has 3 rows; 5, one more than steps"),
        ("observations/seen", [b"far"] * 5, r"seen is .*: no rows of numbers, no images"),
    ],
)
def test_faults_of_form_are_told_with_the_others_and_left_out(
    field: str, values: Any, said: str, tmp_path: Path
) -> None:
    folder = minari(tmp_path / "set")
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        del file[f"episode_1/{field.removesuffix('/0')}"]
        if values is not None:
            file[f"episode_1/{field}"] = values
        file.copy("episode_0", "episode_2")
        del file["episode_2/terminations"]
        file.copy("episode_0", "episode_3")
        file["episode_3/rewards"][1] = np.nan
    with pytest.raises(HeedfulError, match=rf"main_data\.hdf5: episode_1/{said}") as told:
        import_episodes([str(folder)], tmp_path / "r")
    assert "3 problem(s) in 3 episode(s)" in str(told.value) and "episode_2/terminations is" in str(
        told.value
    )
    assert "episode_3/rewards, row 1: nan" in str(told.value)
    buffer, facts = import_episodes([str(folder)], tmp_path / "r", drop_faulty=True)
    assert buffer.episodes == 1 and facts["faulty"] == 3 and buffer.episode(0).steps == 3
    cfg = Config(data=(str(folder),), drop_faulty=True, dry_run=True)
    assert "2 episodes" in act_plan.describe(act_plan.settle(cfg)), "the plan reads no numbers"
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        del file["episode_0/rewards"]
    with pytest.raises(HeedfulError, match=r"4 faulty.*; the first problem: .*episode_0/rewards is missing"):
        import_episodes([str(folder)], tmp_path / "r", drop_faulty=True)


def test_numbers_in_columns_are_one_for_each_step(tmp_path: Path) -> None:
    folder = minari(tmp_path / "set")
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        for field in ("rewards", "terminations"):
            values = file[f"episode_0/{field}"][()]
            del file[f"episode_0/{field}"]
            file[f"episode_0/{field}"] = values[:, None]
        # of two observations one without the state after the last step: the task has ended, and both do without it
        values = file["episode_0/observations/seen"][:3]
        del file["episode_0/observations/seen"]
        file["episode_0/observations/seen"] = values
    buffer, _ = import_episodes([str(folder)], tmp_path / "r")
    assert buffer.episode(0).reward.tolist() == [1, 1, 1]
    assert buffer.episode(0).terminal.tolist() == [False, False, True]


def test_all_problems_are_told_and_faulty_episodes_can_be_left_out(tmp_path: Path) -> None:
    fields = spoiled("rewards", 1, np.nan)
    fields["actions"] = fields["actions"].copy()
    fields["actions"][0, 0] = 9.0
    path = hdf5(tmp_path / "d.hdf5", fields)
    with pytest.raises(HeedfulError) as told:
        import_episodes([str(path)], tmp_path / "r", space=SPACE)
    text = str(told.value)
    assert "2 problem(s) in 1 episode(s)" in text and "row 0, number 0: 9" in text and "row 1: nan" in text
    buffer, facts = import_episodes([str(path)], tmp_path / "r", space=SPACE, drop_faulty=True)
    assert buffer.episodes == 1 and facts["faulty"] == 1
    assert buffer.episode(0).reward.tolist() == [3, 4, 5]
    every = hdf5(tmp_path / "e.hdf5", spoiled("rewards", slice(None), np.nan))
    with pytest.raises(HeedfulError, match="no episode can be used"):
        import_episodes([str(every)], tmp_path / "r", drop_faulty=True)


def test_parquet_errors(tmp_path: Path) -> None:
    def read(**change: Any) -> None:
        episodes(lerobot(tmp_path / "d.parquet", **change))

    with pytest.raises(HeedfulError, match=r"next\.done is missing"):
        read(**{"next.done": None})
    with pytest.raises(HeedfulError, match="do not stand together; sort the file"):
        read(episode_index=[0, 0, 1, 1, 1, 1, 0])
    with pytest.raises(HeedfulError, match=r"action, row 3: \[1\.0\]: not 2 numbers"):
        read(action=[[0.0, 0.0]] * 3 + [[1.0]] + [[0.0, 0.0]] * 3)
    with pytest.raises(HeedfulError, match=r"next\.reward, row 4: nan"):
        path = lerobot(tmp_path / "n.parquet", **{"next.reward": [0.0] * 4 + [None] + [0.0] * 2})
        import_episodes([str(path)], tmp_path / "r")


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1,2")
    (tmp_path / "b.hdf5").write_text("no hdf5")
    (tmp_path / "c.npz").write_text("no zip")
    (tmp_path / "d.parquet").write_text("no parquet")
    np.savez(tmp_path / "e.npz", observations=np.array([{"a": 1}], dtype=object))
    (tmp_path / "folder").mkdir()
    (tmp_path / "arrow" / "data").mkdir(parents=True)
    (tmp_path / "arrow" / "data" / "metadata.json").write_text('{"data_format": "arrow"}')
    for name, said in {
        "nowhere": "does not exist",
        "a.csv": r"\.csv is not known",
        "b.hdf5": "not readable as HDF5",
        "c.npz": r"not readable as \.npz",
        "d.parquet": "not readable as Parquet",
        "e.npz": r"not readable as \.npz",
        "folder": "a folder without data that is known",
        "arrow": "its format is 'arrow'",
    }.items():
        with pytest.raises(HeedfulError, match=said):
            episodes(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("episode_last", "episode_last has no number"),
        ("episode_7", "episode_7/observations, actions, rewards, term"),
    ],
)
def test_what_stands_in_the_place_of_an_episode_is_named(name: str, match: str, tmp_path: Path) -> None:
    folder = minari(tmp_path / "set")
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        file[name] = np.zeros(3)
    with pytest.raises(HeedfulError, match=match):
        list(read_episodes(folder))
