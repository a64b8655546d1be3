"""Training a reward model with 100 heads on one language model against the same with one head.

SmolLM2-135M-Instruct, LoRA of rank 16 on all linear layers, bf16 autocast, the same pairs in the same order, 8 a step,
one epoch of the Bradley-Terry loss, per head and then the mean. The clock starts when the model is in memory and stops
when the last step is done. The ratio is that of CPU seconds: the goal is at most a tenth more for 100 heads, .91.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from benchmarks.dpo import make_pairs
from benchmarks.harness import Result, alternate, line, main, median, peak_mib

MODULE = "benchmarks.ensemble_heads"
HEADS, BATCH, SEED = 100, 8, 0


def run_child(heads: int, count: int) -> Result:
    """One epoch with so many heads."""
    import torch

    from heedful.fit import FitConfig, fit
    from heedful.judges.ensemble import RewardEnsemble, ensemble_objective
    from heedful.policies import objectives
    from heedful.policies.backbone import Lora
    from heedful.run import open_run, read_metrics

    torch.set_num_threads(1)
    model = RewardEnsemble.load(
        "smollm2", heads=heads, lora=Lora(16, 32.0), device="cpu", precision="bf16", seed=SEED
    )
    rows = [
        {"group": model.group(pair["prompt"], [pair["chosen"], pair["rejected"]]), "margin": [0.0]}
        for pair in make_pairs("chat", count)
    ]
    cfg = FitConfig(lr=1e-4, batch_size=BATCH, save_every=0, precision=model.precision, quiet=True)
    with tempfile.TemporaryDirectory() as folder, open_run(folder, {}, seed=SEED) as run:
        began, cpu = time.monotonic(), time.process_time()
        collate, cost = objectives.collate(model), objectives.row_cost(model)
        fit("heads", ensemble_objective(model), model.module, rows, cfg, run, collate=collate, cost=cost)
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu
        losses = [row["loss"] for row in read_metrics(Path(folder)) if "loss" in row]
    return {"seconds": seconds, "cpu_s": cpu, "peak_mib": peak_mib(), "loss": losses[-1]}


def run(pairs: int, keep: Path | None, count: int, extra: int) -> list[str]:
    """Alternating runs of 100 heads and one, and the line."""
    arms = {str(k): {"heads": k, "count": count} for k in (HEADS, 1)}
    done = alternate(MODULE, arms, pairs, keep)
    many, one = done[str(HEADS)], done["1"]
    note = (
        f"{count} pairs, {count // BATCH} steps, 1 thread; medians of {len(many)} alternating runs; peak "
        f"{median(many, 'peak_mib'):.0f} against {median(one, 'peak_mib'):.0f} MiB; goal: a ratio of at least .91"
    )
    return [line("ensemble_heads", median(many, "cpu_s"), median(one, "cpu_s"), "CPU seconds", note)]


if __name__ == "__main__":
    main(MODULE, run_child, run)
