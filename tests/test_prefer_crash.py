"""`heedful prefer` killed at random moments, offline and on-policy, ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

WORKER = Path(__file__).with_name("prefer_worker.py")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All trials, run once by a process that forks them."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "RANK": "0",
        "WORLD_SIZE": "1",
    }
    command = [sys.executable, str(WORKER), str(tmp_path_factory.mktemp("prefer"))]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_killed_prefer_ends_byte_identical_with_each_metric_row_once(report: dict[str, Any]) -> None:
    assert report["failures"] == []
    assert report["steps"]["offline"] == list(range(1, 8))
    assert report["steps"]["driver"] == [1, 2, 3, 4] * 4
    assert report["steps"]["mixed"] and max(report["steps"]["mixed"]) >= 2
    fitted, rounds = report["steps"]["onpolicy"][:-6], report["steps"]["onpolicy"][-6:]
    assert fitted == list(range(1, len(fitted) + 1)) and len(fitted) > 3 and rounds == [1, 2, 3, 1, 2, 3]


def test_most_trials_were_stopped_before_their_end(report: dict[str, Any]) -> None:
    stopped = [status for status in report["statuses"] if status != 0]
    assert len(stopped) >= 0.6 * len(report["statuses"])
    assert set(stopped) <= {-9, -15, 143} and -9 in stopped and {-15, 143} & set(stopped)
