"""Two processes through torchrun compute what one computes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from heedful.errors import HeedfulError
from heedful.processes import join_processes
from heedful.run import read_metrics

WORKER = str(Path(__file__).with_name("ranks_worker.py"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Run folders of the same program, started alone and by torchrun with two processes."""
    found = {world: tmp_path_factory.mktemp(f"world{world}") for world in (1, 2)}
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    for world, folder in found.items():
        # --standalone picks a free port by itself.
        launcher = (
            ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={world}"] if world > 1 else []
        )
        command = [sys.executable, *launcher, WORKER, str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
        assert done.returncode == 0, done.stderr[-4000:]
    return found


def seen(folder: Path, rank: int) -> dict[str, Any]:
    return json.loads((folder / f"seen-{rank}.json").read_text())


def rows(folder: Path, stage: str) -> list[dict[str, Any]]:
    return [
        {k: v for k, v in row.items() if k not in ("time", "tokens_per_s", "stage")}
        for row in read_metrics(folder)
        if row["stage"] == stage
    ]


def close(one: dict[str, Any], two: dict[str, Any]) -> bool:
    return one.keys() == two.keys() and all(abs(one[k] - two[k]) < 1e-6 for k in one)


def test_losses_and_metrics_are_those_of_one_process(folders: dict[int, Path]) -> None:
    assert [seen(folders[2], rank)["world"] for rank in (0, 1)] == [2, 2]
    one, two = (rows(folders[world], "plain") for world in (1, 2))
    assert [row["step"] for row in one] == [*range(1, 13), 12]
    assert len(one) == len(two) and all(map(close, one, two))
    assert any("odd_output" in row for row in one)


def test_weights_are_those_of_one_process_and_the_same_in_all(folders: dict[int, Path]) -> None:
    alone, first, second = seen(folders[1], 0), seen(folders[2], 0), seen(folders[2], 1)
    assert first["weights"] == second["weights"]
    for name, weight in alone["weights"].items():
        assert (torch.tensor(weight) - torch.tensor(first["weights"][name])).abs().max() < 1e-6
    assert first["measured"] == second["measured"] == [12], "evaluate runs in every process"


def test_a_crash_resumes_to_the_same_bytes(folders: dict[int, Path]) -> None:
    for folder in folders.values():
        again = folder / "crashed"
        assert rows(again, "plain") == [row for row in rows(folder, "plain") if "half" not in row]
        final = "plain/final/model.safetensors"
        assert (folder / final).read_bytes() == (again / final).read_bytes()


def test_a_signal_to_one_process_stops_all_at_the_same_step(folders: dict[int, Path]) -> None:
    for rank in (0, 1):
        found = seen(folders[2], rank)
        assert found["exit"] == 143 and found["stopped at"] == ["step-00000004"]


def test_every_process_names_the_row_that_is_not_finite(folders: dict[int, Path]) -> None:
    first, second = (seen(folders[2], rank)["error"] for rank in (0, 1))
    assert first == second
    for error in (first, seen(folders[1], 0)["error"]):
        assert error.startswith("broken, step 3: loss nan") and "nothing was applied" in error
        assert "4" in error.split("Rows: ")[1].split(";")[0].split(", ")


def test_prefer_on_two_processes_learns_what_one_learns(tmp_path: Path) -> None:
    from prefer_worker import command as prefer_command
    from prefer_worker import make_inputs

    make_inputs(tmp_path)
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    printed = {}
    for world in (1, 2):
        launcher = ["torch.distributed.run", "--standalone", f"--nproc_per_node={world}", "-m"]
        words = [*(launcher if world > 1 else []), "heedful"]
        arguments = prefer_command(tmp_path, tmp_path / f"world{world}", "onpolicy")
        # torchrun takes --n for an abbreviation of its own options, wherever it stands.
        at = arguments.index("--n")
        del arguments[at : at + 2]
        done = subprocess.run(
            [sys.executable, "-m", *words, *arguments, "--json"],
            capture_output=True,
            text=True,
            env=environment,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        assert done.stdout.count("\n") == 1, "one process speaks"
        if world == 1:
            noise = [line for line in done.stderr.splitlines() if re.search("Warning|Writing model", line)]
            assert noise == [], "a person can do nothing about these"
        printed[world] = json.loads(done.stdout)
    losses = {
        world: [
            (r["stage"], r["step"], r["loss"])
            for r in read_metrics(tmp_path / f"world{world}")
            if "loss" in r
        ]
        for world in (1, 2)
    }
    assert [x[:2] for x in losses[1]] == [x[:2] for x in losses[2]] and len(losses[1]) > 6
    # Until the first sample that rounding tips over, the two are the same run.
    fitted = [i for i, x in enumerate(losses[1]) if x[0] == "reward"]
    for i in fitted:
        assert losses[1][i][2] == pytest.approx(losses[2][i][2], abs=1e-5)
    assert printed[1].keys() == printed[2].keys()
    assert printed[1]["answer_length_before"] == printed[2]["answer_length_before"]


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(
        HeedfulError, match=r"than there are GPUs \(1\); give --nproc_per_node 1, or CUDA_VIS"
    ):
        join_processes()
