"""A run killed at any file-system call, or at any moment, ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

WORKER = Path(__file__).with_name("crash_worker.py")


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    """All trials, run once by a process that forks them."""
    # In memory where there is room: hundreds of fsyncs to a slow disk test the disk.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "RANK": "0",
            "WORLD_SIZE": "1",
        }
        done = subprocess.run(
            [sys.executable, str(WORKER), folder],
            capture_output=True,
            text=True,
            env=environment,
            timeout=500,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_every_kill_ends_byte_identical_with_each_metric_row_once(report: dict[str, Any]) -> None:
    assert report["failures"] == []
    assert report["killed"] > len(report["calls"]) > 100
    steps = [row["step"] for row in report["want"]["metrics"]]
    assert steps == [1, 2, 3, 3, 4, 5, 6, 6], "rows of training and, at 3 and 6, of evaluation"


def test_the_trials_stop_at_all_calls_of_a_checkpoint(report: dict[str, Any]) -> None:
    names = {name for name, path in report["calls"] if "step-" in path or "final" in path}
    assert names == {"mkdir", "save_file", "chmod", "open", "write", "fsync", "rename", "unlink", "rmdir"}


def test_signals_finish_the_step_save_and_exit(report: dict[str, Any]) -> None:
    assert {tuple(pair) for pair in report["statuses"]} == {(9, -9), (15, 143), (2, 130)}


def test_no_name_is_given_before_its_content_is_on_the_disk(report: dict[str, Any]) -> None:
    """A power cut keeps renames and loses unflushed content, which killing a process cannot show."""
    calls: list[list[str]] = report["calls"]
    renames = [(i, path) for i, (name, path) in enumerate(calls) if name in ("rename", "replace")]
    assert len(renames) >= 6
    for i, path in renames:
        old, new = path.split(" -> ")
        inside = [p for name, p in calls[:i] if name in ("save_file", "write") and p.startswith(old)]
        assert inside
        for file in [*inside, old]:
            last_write = max(
                (j for j in range(i) if calls[j] in (["save_file", file], ["write", file])), default=0
            )
            assert ["fsync", file] in calls[last_write:i], f"{file} is renamed before it is flushed"
        assert calls[i + 2] == ["fsync", str(Path(new).parent)], f"the name {new} is not flushed"


def test_older_checkpoints_go_after_the_new_one_has_its_name(report: dict[str, Any]) -> None:
    paths = [(name, path.split("/s/")[-1]) for name, path in report["calls"]]
    placed = next(
        i for i, (name, path) in enumerate(paths) if name == "rename" and path.endswith("step-00000004")
    )
    removed = next(i for i, (name, path) in enumerate(paths) if name == "unlink" and "step-00000002" in path)
    assert paths[placed + 2][0] == "fsync" and placed + 2 < removed
