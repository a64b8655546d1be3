"""Not a test: what test_audit_crash.py starts, which kills `heedful audit` at random moments and runs it again."""

from __future__ import annotations

import json
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
from audit_pairs import pairs, write
from crash_worker import child

from heedful import run as run_module
from heedful.cli import main as heedful

torch.set_num_threads(1)
run_module.commit = lambda: None
TRIALS = 5


def command(root: Path, name: str) -> list[str]:
    """The arguments of an audit with everything in it."""
    out = f"--out {root}/{name} --cache {root}/{name}-features --clean {root}/{name}.jsonl"
    return f"audit {root}/a.jsonl --eval {root}/b.jsonl {out} --quiet".split()


def result(root: Path, name: str) -> dict[str, str]:
    """What must be the same after any crash: every number to the byte, and what files there are."""
    folder = root / name
    kept = {str(f.relative_to(folder)): f.read_bytes().hex() for f in folder.rglob("*.safetensors")}
    texts = {n: (folder / n).read_text() for n in ("result.json", "report.json", "suspicious.jsonl")}
    cleaned = {n: (root / f"{name}{n}").read_text() for n in (".jsonl", ".dropped.jsonl")}
    files = sorted(str(f.relative_to(folder)) for f in folder.rglob("*"))
    features = {f.name: f.read_bytes().hex() for f in (root / f"{name}-features").glob("*")}
    found: dict[str, Any] = {**kept, **texts, **cleaned, "files": files, "features": features}
    return {key: json.dumps(value).replace(name, "NAME") for key, value in found.items()}


def main(root: Path) -> None:
    """An undisturbed run, then trials that are killed up to three times before they may end."""
    write(root / "a.jsonl", pairs(300, flipped=0.1))
    write(root / "b.jsonl", pairs(80, seed=1))
    moments = random.Random(5)
    # Twice: what is imported at first use is then there in every fork, and the time is that of a warm run.
    heedful(command(root, "warm"))
    began = time.monotonic()
    assert child(lambda: sys.exit(heedful(command(root, "whole")))) == 0
    seconds = time.monotonic() - began
    want = result(root, "whole")
    failures, statuses = [], []
    for trial in range(TRIALS):
        words = command(root, "trial")
        for _ in range(1 + trial % 3):
            number = (signal.SIGKILL, signal.SIGTERM)[trial % 2]
            statuses.append(
                child(lambda w=words: sys.exit(heedful(w)), number, moments.uniform(0, 0.6 * seconds))
            )
        again = child(lambda w=words: sys.exit(heedful(w)))
        if again != 0:
            failures.append(f"trial {trial}: the rerun ended with {again}")
        else:
            got = result(root, "trial")
            failures += [
                f"trial {trial}: {key} differs" for key in want.keys() | got if want.get(key) != got.get(key)
            ]
        for path in root.glob("trial*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    print(json.dumps({"failures": failures, "statuses": statuses}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
