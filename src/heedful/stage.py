"""A stage of training on disk: resumed from its newest whole checkpoint, loaded when it is finished."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

import heedful
from heedful.atomic import remove_folder, write_file, writing
from heedful.checkpoint import (
    drop_after,
    load_into,
    newest_checkpoint,
    prune,
    read_meta,
    read_part,
    save_checkpoint,
    step_folder,
)
from heedful.config import content_hash, difference, to_plain
from heedful.errors import HeedfulError, NotFinite
from heedful.optimise import Average, load_optimizer, optimizer_tensors
from heedful.processes import gather
from heedful.run import Run

PASSED = "passed"
"""The mark of a finished stage whose tensors a later one of its chain has taken over."""
# Settings that may change between two starts: the weights come out the same (micro_cost: to rounding).
VOLATILE = ("save_every", "keep", "log_every", "eval_every", "quiet", "micro_cost")


def finished(name: str, run: Run) -> bool:
    """Whether the stage is trained to its end, here or, in a chain, by way of a later one."""
    folder = run.path(name)
    return (folder / "final" / "model.safetensors").exists() or (folder / PASSED).exists()


@dataclass
class Stage:
    """What `fit` keeps of a stage: `saved` and `extra` are the tensors that make up its state, by name."""

    name: str
    run: Run
    saved: Mapping[str, Tensor]
    extra: Mapping[str, Tensor]
    rows: int
    cfg: Any
    chain: Any = None

    def __post_init__(self) -> None:
        self.folder = self.run.path(self.name)
        self.final = self.folder / "final"
        self.settings = {k: v for k, v in to_plain(self.cfg).items() if k not in VOLATILE}
        self.last = 0

    def load_finished(self) -> bool:
        """Load the final weights if the stage is finished.

        Raises `HeedfulError` when it was made with other settings, is damaged, or is another model's.
        """
        there, passed = gather(
            [(self.final / "model.safetensors").exists(), (self.folder / PASSED).exists()], self.run.world
        )[0]
        if passed:
            return True  # its weights went into those of a later stage
        if not there:
            return False
        try:
            meta = read_meta(self.final)
        except HeedfulError as problem:
            raise HeedfulError(f"{problem}; delete {self.folder} to train this stage again") from problem
        self._compare(meta)
        load_into(self.saved, read_part(self.final, "model"), self.final)
        load_into(self.extra, read_part(self.final, "state"), self.final)
        if self.run.rank == 0:
            prune(self.folder, 0)
            self._pass_over()
        return True

    def resume(
        self,
        optimizer: Optimizer,
        params: Mapping[str, nn.Parameter],
        average: Average | None,
        say: Callable[[str], None],
    ) -> int:
        """Load the newest whole checkpoint and drop later metric rows; the steps done by then, 0 for none."""
        found = newest_checkpoint(self.folder) if self.run.rank == 0 else None
        step, problems = gather(found, self.run.world)[0]
        if self.run.rank == 0:
            for problem in problems:
                say(f"{problem}; going back to " + (f"step {step}" if step else "the start"))
            self.run.drop_metrics(self.name, step + 1)
            drop_after(self.folder, step)
            prune(self.folder, self.cfg.keep)
        self.last = step
        if step == 0:
            self._go_on(optimizer, params)
            return 0
        path = step_folder(self.folder, step)
        meta = read_meta(path)
        self._compare(meta)
        if meta.get("rows") != self.rows:
            raise HeedfulError(
                f"{self.name} was begun with {meta.get('rows')} rows and now has {self.rows}: "
                f"restore the rows, or delete {self.folder} to train this stage again"
            )
        load_into(self.saved, read_part(path, "model"), path)
        load_into(self.extra, read_part(path, "state"), path)
        stored = read_part(path, "optim")
        averages = {slot[4:]: tensor for slot, tensor in stored.items() if slot.startswith("ema/")}
        if average:
            load_into(average.weights, averages, path)
        load_optimizer(optimizer, params, {s: t for s, t in stored.items() if not s.startswith("ema/")})
        say(f"resumed after step {step}")
        return step

    def save(
        self,
        step: int,
        optimizer: Optimizer,
        params: Mapping[str, nn.Parameter],
        average: Average | None,
    ) -> None:
        """Checkpoint the stage after `step` steps, then prune older ones. Rank 0 writes."""
        if self.run.rank == 0:
            averages = average.weights if average else {}
            optim = optimizer_tensors(optimizer, params) | {f"ema/{name}": w for name, w in averages.items()}
            self.run.sync_metrics()
            self._write(step, step_folder(self.folder, step), {"optim": optim})
            prune(self.folder, self.cfg.keep)
        self.last = step

    def finish(self, step: int, optimizer: Optimizer, params: Mapping[str, nn.Parameter]) -> None:
        """Write the final weights, which replace the checkpoints; every process waits for them."""
        if self.run.rank == 0:
            self.run.sync_metrics()
            more = self.chain is not None and self.chain.index + 1 < self.chain.count
            self._write(step, self.final, {"optim": optimizer_tensors(optimizer, params)} if more else {})
            prune(self.folder, 0)
            self._pass_over()
        gather(None, self.run.world)

    def _go_on(self, optimizer: Optimizer, params: Mapping[str, nn.Parameter]) -> None:
        """Take over the optimiser of the stage before, whose weights the module has already."""
        if self.chain is None or not self.chain.before:
            return
        path = self.run.path(self.chain.before) / "final"
        read_meta(path)
        load_optimizer(optimizer, params, read_part(path, "optim"))

    def _pass_over(self) -> None:
        """Remove the tensors of the stage before: the ones here contain them."""
        if self.chain is None or not self.chain.before:
            return
        folder = self.run.path(self.chain.before)
        if (folder / "final").exists():
            write_file(folder / PASSED, b"")
            with writing(folder):
                remove_folder(folder / "final")

    def not_finite(self, step: int, rows: list[int], loss: float, norm: float) -> NotFinite:
        """The error of a step that was not applied because its loss or gradient is not finite."""
        shown = ", ".join(map(str, rows[:20])) + (f" and {len(rows) - 20} more" if len(rows) > 20 else "")
        last = (
            f"last good checkpoint: {step_folder(self.folder, self.last)}"
            if self.last
            else "no checkpoint yet"
        )
        return NotFinite(
            f"{self.name}, step {step}: loss {loss}, gradient norm {norm}; nothing was applied. "
            f"Rows: {shown}; {last}. Look at these rows, or lower the learning rate."
        )

    def _write(self, step: int, path: Any, parts: Mapping[str, Mapping[str, Tensor]]) -> None:
        state = {"state": self.extra} if self.extra else {}
        meta = {
            "stage": self.name,
            "step": step,
            "rows": self.rows,
            "seed": self.run.seed,
            "heedful": heedful.__version__,
            "config": self.settings,
            "config_hash": content_hash(self.settings),
        }
        save_checkpoint(path, {"model": self.saved, **parts, **state}, meta)

    def _compare(self, meta: Mapping[str, Any]) -> None:
        lines = difference(
            {**meta.get("config", {}), "seed": meta.get("seed")}, {**self.settings, "seed": self.run.seed}
        )
        if lines:
            raise HeedfulError(
                f"{self.folder} was trained with other settings: {'; '.join(lines)}. "
                "Use the old ones, or another output folder."
            )
