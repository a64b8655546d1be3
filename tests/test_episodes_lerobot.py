"""What this library writes, read by `lerobot` itself: every frame, index for index. Runs where lerobot is installed.

lerobot 0.4.4 wants an older torch than the library does, so it lives in an environment of its own:

    PYTHONPATH=src LEROBOT_ENV/bin/python -m pytest --noconftest tests/test_episodes_lerobot.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from episode_sets import INFO, picture, write_episodes

pytest.importorskip("lerobot", reason="lerobot is not installed")

from heedful.data.episodes import open_episodes


@pytest.fixture(scope="module")
def lerobot() -> Any:
    """lerobot's own reader."""
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        # torchvision from PyPI is linked to CUDA; without its library these two are missing and importing it fails.
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    return LeRobotDataset


def read_all(dataset: Any, path: Path) -> None:
    ours = open_episodes(path)
    assert dataset.meta.total_episodes == len(ours) and len(dataset) == ours.info.total_frames
    k = 0
    for i in range(len(ours)):
        episode = ours.episode(i)
        columns = ours.columns(i)
        assert dataset.meta.episodes[i]["tasks"] == list(episode.tasks)
        for t in range(episode.length):
            item = dataset[k]
            for name, values in columns.items():
                theirs = item[name]
                if not isinstance(theirs, str):  # torch makes float32 of Python's numbers
                    theirs, values = np.asarray(theirs), values.astype(np.asarray(theirs).dtype)
                assert np.array_equal(theirs, values[t]), (i, t, name)
            assert item["task"] == episode.tasks[0]
            for camera in ours.info.cameras:
                theirs = np.asarray(item[camera]).transpose(1, 2, 0) * 255
                mine = ours.frames(i, camera, [t])[0].astype(np.float64)
                assert np.abs(theirs - mine).mean() < 2.5, (i, t, camera)
                # Every frame differs from its neighbours by more than the codec does.
                assert abs(theirs[..., 2].mean() - picture(i, t)[..., 2].mean()) < 3, (i, t, camera)
            k += 1


def test_lerobot_reads_what_the_writer_writes(lerobot: Any, tmp_path: Path) -> None:
    write_episodes(tmp_path / "set", lengths=(5, 9, 4))
    read_all(lerobot("a/b", root=tmp_path / "set"), tmp_path / "set")


def test_lerobot_reads_a_data_set_that_was_not_finalised(lerobot: Any, tmp_path: Path) -> None:
    write_episodes(tmp_path / "set", lengths=(5, 6), finalize=False)
    read_all(lerobot("a/b", root=tmp_path / "set"), tmp_path / "set")


def test_lerobot_gives_the_same_windows(lerobot: Any, tmp_path: Path) -> None:
    write_episodes(tmp_path / "set", lengths=(6, 6))
    steps = [k / INFO.fps for k in (-2, -1, 0, 1)]
    dataset = lerobot("a/b", root=tmp_path / "set", delta_timestamps={"action": steps})
    ours = open_episodes(tmp_path / "set").columns(1, ["action"])["action"]
    item = dataset[6]
    assert np.array_equal(np.asarray(item["action"]), ours[[0, 0, 0, 1]])
    assert np.asarray(item["action_is_pad"]).tolist() == [True, True, False, False]


def test_lerobot_appends_to_it_and_it_is_read_here(lerobot: Any, tmp_path: Path) -> None:
    """A data set that lerobot itself wrote, with its own video encoder and file sizes."""
    features = {
        "observation.state": {"dtype": "float32", "shape": (3,), "names": None},
        "observation.images.top": {
            "dtype": "video",
            "shape": (64, 64, 3),
            "names": ["height", "width", "channels"],
        },
    }
    theirs = lerobot.create("a/c", fps=10, root=tmp_path / "theirs", features=features, vcodec="h264")
    for i in range(2):
        for t in range(5 + i):
            theirs.add_frame(
                {
                    "observation.state": np.full(3, 10 * i + t, dtype=np.float32),
                    "observation.images.top": picture(i, t),
                    "task": f"task {i}",
                }
            )
        theirs.save_episode(parallel_encoding=False)
    theirs.finalize()
    ours = open_episodes(tmp_path / "theirs")
    assert [ours.episode(i).length for i in range(2)] == [5, 6] and ours.episode(1).tasks == ("task 1",)
    for i in range(2):
        assert ours.columns(i, ["observation.state"])["observation.state"][:, 0].tolist() == [
            10 * i + t for t in range(5 + i)
        ]
        for t in range(5 + i):
            seen = ours.frames(i, "observation.images.top", [t])[0]
            assert abs(seen[..., 2].mean() - picture(i, t)[..., 2].mean()) < 3
    assert ours.problems() == []
