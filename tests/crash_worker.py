"""Not a test: the process that test_crash.py starts, which trains in forked children and kills them.

Python and torch start once; every trial is a fork. The children wrap each call by which a checkpoint touches
the file system, count them, and die by SIGKILL at the call they were told.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from heedful import checkpoint
from heedful import run as run_module
from heedful.fit import FitConfig, fit
from heedful.run import open_run

torch.set_num_threads(1)
# Three git processes per trial would take longer than the trial.
run_module.commit = lambda: None
CALLS = (
    "open",
    "write",
    "pwrite",
    "rename",
    "replace",
    "fsync",
    "unlink",
    "rmdir",
    "mkdir",
    "ftruncate",
    "chmod",
)
CONFIG = FitConfig(
    lr=1e-2, batch_size=4, max_steps=6, save_every=2, keep=1, ema=0.9, warmup=2, precision="fp32", quiet=True,
    micro_cost=2, eval_every=3,
)  # fmt: skip


def train(folder: Path, pause: float = 0.0) -> None:
    """A whole small program: a `once` stage, then a fit with dropout, batch norm, EMA and a target."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 1))
    target = {name: p.detach().clone() for name, p in module.named_parameters()}

    def loss(batch: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        time.sleep(pause)
        x = torch.tensor([row["x"] for row in batch])
        aim = x.sum(-1) + sum(t.sum() for t in target.values()) * 0.01
        value = (module(x)[:, 0] - aim).square().mean()
        return value, {"error": value.detach().sqrt()}

    def after_step(step: int) -> None:
        for name, p in module.named_parameters():
            target[name].lerp_(p.detach(), 0.1)

    with open_run(folder, {"fit": CONFIG}, seed=7, command="crash test") as run:
        rows = run.once(
            "s/rows.jsonl",
            lambda: [{"x": torch.randn(3, generator=run.generator("rows", i)).tolist()} for i in range(10)],
        )
        measure = {"after_step": after_step, "evaluate": lambda step: {"half": step / 2}}
        fit("s", loss, module, rows, CONFIG, run, state=target, **measure)


def watch(note: Callable[[str, tuple[Any, ...]], None], half: Callable[[], bool]) -> None:
    """Call `note` before each file-system call; `half()` true makes a write stop in its middle and die."""

    def wrap(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            note(name, args)
            if name == "write" and half():
                call(args[0], bytes(args[1])[: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return wrapped

    for name in CALLS:
        setattr(os, name, wrap(name, getattr(os, name)))
    save_file = checkpoint.save_file

    def save(tensors: dict[str, torch.Tensor], path: Path) -> None:
        note("save_file", (path,))
        save_file(tensors, path)
        if half():
            path.write_bytes(path.read_bytes()[:100])
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoint.save_file = save


def child(work: Callable[[], None], number: int = 0, seconds: float = 0.0) -> int:
    """Run `work` in a fork, sending it `number` after some seconds; its status, -n for death by signal n."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
        finally:
            os._exit(code)
    if number:
        # Not waited for yet, so the number is still this child's, dead or alive.
        time.sleep(seconds)
        os.kill(pid, number)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def result(folder: Path) -> dict[str, Any]:
    """What must be the same after any crash: weights to the byte, metric rows without clocks, file names."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        "weights": {f.name: f.read_bytes().hex() for f in sorted((folder / "s/final").iterdir())},
        "metrics": [{k: v for k, v in row.items() if k not in ("time", "rows_per_s")} for row in rows],
        "files": sorted(str(f.relative_to(folder)) for f in folder.rglob("*")),
    }


def calls_of(folder: Path) -> list[list[str]]:
    """The names and first arguments of all file-system calls of an undisturbed run, in order."""
    record = folder.parent / "calls.jsonl"

    def work() -> None:
        seen: list[list[str]] = []
        watch(lambda name, args: seen.append([name, name_of(args)]), lambda: False)
        train(folder)
        record.write_text(json.dumps(seen))

    def name_of(args: tuple[Any, ...]) -> str:
        first = os.readlink(f"/proc/self/fd/{args[0]}") if isinstance(args[0], int) else str(args[0])
        return " -> ".join([first, *(str(a) for a in args[1:2] if isinstance(a, Path))])

    assert child(work) == 0
    return json.loads(record.read_text())


def killed_at(folder: Path, number: int, half: bool) -> int:
    """Train until the file-system call `number` (from 0): die before it, or in its middle."""

    def work() -> None:
        count = -1

        def note(name: str, args: tuple[Any, ...]) -> None:
            nonlocal count
            count += 1
            if count == number and not half:
                os.kill(os.getpid(), signal.SIGKILL)

        watch(note, lambda: half and count == number)
        train(folder)

    return child(work)


def signalled(folder: Path, seconds: float, number: int) -> int:
    """Train slowly, and get the signal after some seconds."""
    return child(lambda: train(folder, pause=0.02), number, seconds)


def main(root: Path) -> None:
    """Every trial: a run that is killed, the same run again, and the result against an undisturbed one."""
    # What torch imports and builds at first use is then there in every fork.
    train(root / "warm")
    calls = calls_of(root / "whole")
    want = result(root / "whole")
    failures: list[str] = []
    killed = 0

    def check(name: str, status: int, folder: Path) -> None:
        again = child(lambda: train(folder))
        if again != 0:
            failures.append(f"{name}: the rerun ended with {again}")
        else:
            got = result(folder)
            failures.extend(f"{name}: {key} differ" for key in want if got[key] != want[key])
        shutil.rmtree(folder)

    folder = root / "trial"
    for number, (name, _) in enumerate(calls):
        for half in (False, True) if name in ("write", "save_file") else (False,):
            status = killed_at(folder, number, half)
            killed += status == -signal.SIGKILL
            if status != -signal.SIGKILL:
                failures.append(f"call {number} ({name}): not killed but {status}")
            check(f"call {number} ({name}{', half' * half})", status, folder)
    moments = random.Random(5)
    statuses = []
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT) * 3:
        seconds = moments.uniform(0.01, 0.15)
        statuses.append([int(number), signalled(folder, seconds, number)])
        check(f"signal {number} after {seconds:.3f} s", statuses[-1][1], folder)
    report = {"calls": calls, "killed": killed, "failures": failures, "statuses": statuses, "want": want}
    print(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
