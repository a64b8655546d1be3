"""Not a test: what test_distributed.py starts with torchrun, and once alone, to compare."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from heedful.errors import HeedfulError
from heedful.fit import FitConfig, fit
from heedful.run import Run, open_run

torch.set_num_threads(1)


def config(**changes: Any) -> FitConfig:
    return FitConfig(
        **{"lr": 1e-2, "batch_size": 3, "micro_cost": 4, "precision": "fp32", "quiet": True, **changes}
    )


def train(run: Run, stage: str, cfg: FitConfig, rows: list[dict[str, Any]], **options: Any) -> nn.Module:
    torch.manual_seed(run.rank)  # rank 0's start is what counts
    module = nn.ModuleDict({"even": nn.Linear(3, 1), "odd": nn.Linear(3, 1), "never": nn.Linear(3, 1)})

    def loss(batch: list[dict[str, Any]]) -> tuple[Tensor, dict[str, Any]]:
        # Each row uses one part of the model only, so a micro-batch may leave parameters unused.
        w = torch.tensor([row["w"] for row in batch])
        out = torch.cat([module["odd" if row["odd"] else "even"](torch.tensor(row["x"])) for row in batch])
        value = ((out - 1).square() * w).sum() / w.sum()
        odd = [float(o.detach()) for o, row in zip(out, batch, strict=True) if row["odd"]]
        return value, {"squared": value.detach()} | ({"odd_output": sum(odd) / len(odd)} if odd else {})

    fit(stage, loss, module, rows, cfg, run, cost=lambda r: r["cost"], weight=lambda r: r["w"], **options)
    return module


def make_rows(run: Run) -> list[dict[str, Any]]:
    assert run.rank == 0, "only rank 0 makes"
    return [
        {
            "x": torch.randn(3, generator=run.generator(i)).tolist(),
            "odd": i % 3 == 1,
            "w": 1 + i % 4,
            "cost": 1 + i % 3,
        }
        for i in range(10)
    ]


class Stop(Exception):
    """Stands for a crash."""


def main(folder: Path) -> None:
    seen: dict[str, Any] = {}
    with open_run(folder, {}, seed=0) as run:
        seen["world"] = run.world
        rows = run.once("rows.jsonl", lambda: make_rows(run))

        # 10 rows by 3: the last step of an epoch has one row, and the second process none.
        cfg = config(epochs=3, save_every=5, ema=0.5)
        measured: list[int] = []

        def evaluate(step: int) -> dict[str, float]:
            measured.append(step)
            return {"half": step / 2}

        module = train(run, "plain", cfg, rows, evaluate=evaluate)
        seen["weights"] = {name: p.tolist() for name, p in module.named_parameters()}
        seen["measured"] = measured
        again = train(run, "plain", cfg, rows)
        assert all(torch.equal(a, b) for a, b in zip(module.parameters(), again.parameters(), strict=True))

        def crash(step: int) -> None:
            if step == 7:
                raise Stop

        with open_run(folder / "crashed", {}, seed=0) as second:
            try:
                train(second, "plain", cfg, rows, after_step=crash)
            except Stop:
                train(second, "plain", cfg, rows)

        def terminate_last(step: int) -> None:
            if step == 4 and run.rank == run.world - 1:
                os.kill(os.getpid(), signal.SIGTERM)

        try:
            train(run, "stopped", cfg, rows, after_step=terminate_last)
        except SystemExit as leaving:
            seen["exit"] = leaving.code
            seen["stopped at"] = sorted(p.name for p in run.path("stopped").iterdir())

        broken = [{**row, "x": [float("nan")] * 3} if i == 4 else row for i, row in enumerate(rows)]
        try:
            train(run, "broken", cfg, broken)
        except HeedfulError as error:
            seen["error"] = str(error)
    (folder / f"seen-{run.rank}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
