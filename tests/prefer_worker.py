"""Not a test: what test_prefer_crash.py starts, which kills `heedful prefer` at random moments and runs it again."""

from __future__ import annotations

import json
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import tiny
import torch
from crash_worker import child

from heedful import run as run_module
from heedful.cli import main as heedful

torch.set_num_threads(1)
run_module.commit = lambda: None
CLOCKS = ("time", "tokens_per_s", "seconds")
TRIALS = 8


def make_inputs(root: Path) -> None:
    """A model, pairs and prompts, enough for a dozen steps."""
    tiny.save(root / "start")
    words = ["red", "green", "blue", "egg", "water", "France", "rainbow", "colour", "capital", "answer"]
    pairs = [
        {"prompt": f"Name {a} and {b}?", "chosen": f"{a}, {b}.", "rejected": f"I do not know {b} at all."}
        for i, a in enumerate(words)
        for b in words[:i]
    ]
    (root / "pairs.jsonl").write_text("".join(json.dumps(p) + "\n" for p in pairs))
    prompts = [{"prompt": f"What is {w}?"} for w in words]
    (root / "prompts.jsonl").write_text("".join(json.dumps(p) + "\n" for p in prompts))


def command(root: Path, out: Path, kind: str) -> list[str]:
    """The arguments of `heedful prefer`: offline, on-policy with a reward model fitted to the pairs, or many short
    rounds of the driver with all that they carry from one to the next."""
    shared = (
        f"--model {root}/start --out {out} --max-new-tokens 12 --learning-rate 1e-3 --save-every 2 --quiet"
    )
    shared += f" --data {root}/pairs.jsonl --eval-limit 4 --precision fp32 --device cpu --micro-tokens 200"
    if kind == "offline":
        return f"prefer {shared} --max-steps 7".split()
    if kind == "driver":
        shared += " --rounds 4 --prompts-per-round 4 --n 3 --eval-rounds 2 --epochs 2 --batch-size 2"
        shared += f" --judge rule:length<20w --prompts {root}/prompts.jsonl"
        return f"prefer {shared} --method ppo --kl 0.1 --kl-target 1 --kl-horizon 50".split()
    if kind == "mixed":
        shared += " --rounds 4 --prompts-per-round 4 --n 3 --epochs 2 --batch-size 2 --offline-share 0.5"
        return (
            f"prefer {shared} --judge rule:length<3w --prompts {root}/prompts.jsonl --reference ema".split()
        )
    asked = f"--prompts {root}/prompts.jsonl --reward-model {root}/start --rounds 2 --n 3 --pairs all"
    return f"prefer {shared} {asked} --max-steps 3".split()


def result(folder: Path) -> dict[str, Any]:
    """What must be the same after any crash."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    text = ("result.json", "heldout.jsonl", "report.json")
    return {
        "weights": {str(f.relative_to(folder)): f.read_bytes().hex() for f in folder.rglob("*.safetensors")},
        "metrics": [{k: v for k, v in row.items() if k not in CLOCKS} for row in rows],
        "files": sorted(str(f.relative_to(folder)) for f in folder.rglob("*")),
        **{name: (folder / name).read_text() for name in text},
    }


def main(root: Path) -> None:
    """For both kinds: an undisturbed run, then trials that are killed up to three times before they may end."""
    make_inputs(root)
    moments = random.Random(3)
    failures: list[str] = []
    statuses: list[int] = []
    steps: dict[str, list[int]] = {}
    for kind in ("offline", "onpolicy", "driver", "mixed"):
        # Twice: what is imported at first use is then there in every fork, and the time is that of a warm run.
        heedful(command(root, root / f"{kind}-warm", kind))
        began = time.monotonic()
        assert child(lambda kind=kind: heedful(command(root, root / f"{kind}-whole", kind)) and None) == 0
        seconds = time.monotonic() - began
        want = result(root / f"{kind}-whole")
        steps[kind] = [row["step"] for row in want["metrics"] if "loss" in row]
        folder = root / f"{kind}-trial"
        for trial in range(TRIALS // 4):
            words = command(root, folder, kind)
            for _ in range(1 + trial % 3):
                number = (signal.SIGKILL, signal.SIGTERM)[trial % 2]
                statuses.append(
                    child(lambda w=words: sys.exit(heedful(w)), number, moments.uniform(0, seconds))
                )
            again = child(lambda w=words: sys.exit(heedful(w)))
            name = f"{kind}, trial {trial}"
            if again != 0:
                failures.append(f"{name}: the rerun ended with {again}")
            else:
                got = result(folder)
                failures += [f"{name}: {key} differ" for key in want if _plain(got[key]) != _plain(want[key])]
            shutil.rmtree(folder)
    print(json.dumps({"failures": failures, "statuses": statuses, "steps": steps}))


def _plain(value: Any) -> str:
    """The folder's own name is the one thing two runs may differ in."""
    return json.dumps(value).replace("-whole", "").replace("-trial", "")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
