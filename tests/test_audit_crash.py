"""`heedful audit` killed at random moments ends as if nothing had happened, and holds a large file in little memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from audit_pairs import PLAIN

WORKER = Path(__file__).with_name("audit_worker.py")
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "RANK": "0",
    "WORLD_SIZE": "1",
}


def test_a_killed_audit_ends_byte_identical(tmp_path: Path) -> None:
    command = [sys.executable, str(WORKER), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["failures"] == []
    stopped = [status for status in report["statuses"] if status != 0]
    assert len(stopped) >= 0.4 * len(report["statuses"])
    # SIGTERM is the default one here: no stage of an audit holds half a model.
    assert set(stopped) <= {-9, -15, 143} and -9 in stopped


SURVEY = """
import resource, sys
from heedful.recipes.audit_survey import survey, usable_pairs
from heedful.judges import probes
from heedful.run import open_run
import torch
file, folder, small = sys.argv[1:]
with open_run(folder, {}, seed=0) as run:
    survey([small], {}, run)
probes.count_words([("a", "b", "c")], two=False)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with open_run(folder + "-large", {}, seed=0) as run:
    found = survey([file], {}, run)
one = found[0]
count = int(one.usable.sum())
read = lambda: usable_pairs(one, {})
make = lambda some: probes.count_words(some, two=False)
parts = probes.cached_parts(run.path("features"), "k", count, read, make, size=200)
print(count, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in other units elsewhere")
def test_a_file_of_a_hundred_megabytes_is_read_in_a_fraction_of_that(tmp_path: Path) -> None:
    """What is kept of a pair are fingerprints, some 200 bytes with its prompt's, however long its answers are."""
    file, count = tmp_path / "large.jsonl", 4000
    filler = " ".join(PLAIN * 26)  # about 13 kB
    for path, rows in ((file, count), (tmp_path / "large.jsonl.small.jsonl", 20)):
        with path.open("w") as out:
            for i in range(rows):
                row = {"prompt": f"Question {i}?", "chosen": f"{filler} {i}", "rejected": f"{i} {filler}"}
                out.write(json.dumps(row) + "\n")
    assert file.stat().st_size > 100 * 2**20
    command = [
        sys.executable,
        "-c",
        SURVEY,
        str(file),
        str(tmp_path / "run"),
        str(tmp_path / "large.jsonl.small.jsonl"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    rows, grown = done.stdout.split()
    assert int(rows) == count and float(grown) < 50
