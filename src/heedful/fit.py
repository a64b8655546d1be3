"""The one training loop. Every recipe learns through `fit`, whatever the model and the loss.

1. The order of the rows and all of torch's randomness are pure functions of (seed, stage, step), so resuming
   needs no generator state: after SIGTERM or SIGKILL at any moment the final weights are the same bytes.
2. A step takes `batch_size` rows over all processes, in micro-batches by cost; their gradients add up to
   those of one big batch exactly, however uneven the micro-batches or the rows' weights are.
3. A non-finite loss or gradient norm stops the run before anything is applied.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from heedful.batches import Micro, micro_batches, step_rows
from heedful.device import pick_precision
from heedful.errors import HeedfulError
from heedful.optimise import (
    Average,
    Groups,
    lr_factor,
    make_optimizer,
    running_buffers,
    set_lr,
    trainable,
)
from heedful.processes import gather, wrap
from heedful.progress import Progress
from heedful.run import Run
from heedful.signals import leave_on, noted_signals
from heedful.stage import Stage


@dataclass(frozen=True)
class FitConfig:
    """How a stage learns."""

    lr: float = 1e-5
    """Peak learning rate of AdamW."""
    batch_size: int = 8
    """Rows per step, over all processes."""
    epochs: float = 1.0
    """Passes over the rows."""
    max_steps: int = 0
    """Steps, instead of epochs, when above 0."""
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    """How the learning rate falls after warm-up: not, or to 0."""
    warmup: float = 0.0
    """Steps of warm-up, or a share of all steps when below 1."""
    weight_decay: float = 0.0
    """Decoupled weight decay of matrices; biases and norms have none."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's decay rates of the gradient's mean and square."""
    eps: float = 1e-8
    """AdamW's epsilon."""
    clip_norm: float = 1.0
    """Largest gradient norm; 0 does not clip."""
    ema: float = 0.0
    """Decay of averaged weights, which then become the result; 0 keeps none."""
    micro_cost: float = 0.0
    """Largest summed cost (tokens, say) of a micro-batch; 0 takes a process's share at once. Lower it when
    memory runs out: the result is the same."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Arithmetic of the forward pass; parameters stay as they are. auto: bf16 where the hardware has it."""
    save_every: int = 50
    """Steps between checkpoints; 0 saves only when stopped by SIGTERM or Ctrl-C."""
    keep: int = 2
    """Newest checkpoints kept while a stage runs; its final weights replace them."""
    log_every: int = 1
    """Steps between rows in metrics.jsonl."""
    eval_every: int = 0
    """Steps between evaluations; 0 evaluates after the last step only."""
    quiet: bool = False
    """No progress display."""

    def __post_init__(self) -> None:
        checks = {
            "lr must be a number of 0 or more": math.isfinite(self.lr) and self.lr >= 0,
            "batch_size must be at least 1": self.batch_size >= 1,
            "epochs must be above 0": 0 < self.epochs < math.inf,
            "max_steps must be 0 or more": self.max_steps >= 0,
            "schedule must be constant, linear or cosine": self.schedule in ("constant", "linear", "cosine"),
            "warmup must be 0 or more": 0 <= self.warmup < math.inf,
            "weight_decay must be 0 or more": self.weight_decay >= 0,
            "betas must be two numbers from 0 to below 1": all(0 <= b < 1 for b in self.betas),
            "eps must be above 0": self.eps > 0,
            "clip_norm must be 0 or more": self.clip_norm >= 0,
            "ema must be from 0 to below 1": 0 <= self.ema < 1,
            "micro_cost must be 0 or more": self.micro_cost >= 0,
            "precision must be auto, bf16 or fp32": self.precision in ("auto", "bf16", "fp32"),
            "save_every, log_every and eval_every must be 0 or more": min(
                self.save_every, self.log_every, self.eval_every
            )
            >= 0,
            "keep must be at least 1": self.keep >= 1,
        }
        wrong = [rule for rule, holds in checks.items() if not holds]
        if wrong:
            raise HeedfulError(f"fit settings: {'; '.join(wrong)}")


@dataclass(frozen=True)
class Chain:
    """A stage's place among several that learn as one: optimiser and schedule go on from the stage before.

    The schedule takes every stage to have as many steps as the one at hand; sizes that differ a little only bend it.
    Once a stage is finished its predecessor's tensors are removed, and that one counts as finished without them.
    """

    before: str
    """The stage before; "" for the first."""
    index: int
    """Which of them this is, from 0."""
    count: int
    """How many there are."""


def fit(
    stage: str,
    loss: Callable[[Any], tuple[Tensor, Mapping[str, Any]]],
    module: nn.Module,
    rows: Sequence[Any],
    cfg: FitConfig,
    run: Run,
    *,
    collate: Callable[[list[Any]], Any] | None = None,
    after_step: Callable[[int], None] | None = None,
    evaluate: Callable[[int], Mapping[str, Any]] | None = None,
    cost: Callable[[Any], float] | None = None,
    weight: Callable[[Any], float] | None = None,
    groups: Groups | None = None,
    state: Mapping[str, Tensor] | None = None,
    chain: Chain | None = None,
) -> None:
    """Train `module`'s trainable parameters on `rows`; a finished stage is loaded instead.

    loss(batch) -> (scalar, metrics): a mean over the batch's rows, each counting `weight(row)` (1).
    collate: list of rows -> batch (the list itself). cost(row): what a micro-batch's `cfg.micro_cost` limits,
    tokens as a rule (1). after_step(step) runs after each update and evaluate(step) -> metrics after every
    `eval_every` steps and the last, in eval mode, without gradients, on the averaged weights if any; both
    count steps from 1 and run in every process. groups(module): parameter groups (see `make_optimizer`).
    state: tensors that after_step changes in place, such as a target network's; they are checkpointed too.
    chain: where several stages learn as one, see `Chain`.

    With several processes each takes every world-th row of a step; one left without rows adds zero.

    Raises `HeedfulError` for: no rows, settings or rows other than those the stage began with, a non-finite
    loss or gradient norm (stage, step and rows are named, the weights stay as they were), a full or read-only
    disk. SIGTERM and Ctrl-C finish the step, save and raise `SystemExit` 143 and 130; a second Ctrl-C stops
    at once.
    """
    params = trainable(module)
    place = Stage(stage, run, params | running_buffers(module), dict(state or {}), len(rows), cfg, chain)
    if place.load_finished():
        return
    if len(rows) == 0:
        raise HeedfulError(f"{stage}: there are no rows to train on")
    optimizer = make_optimizer(
        module, params, groups, lr=cfg.lr, betas=cfg.betas, eps=cfg.eps, weight_decay=cfg.weight_decay
    )
    # Before anything takes in the weights: with several processes these become rank 0's.
    call, private = wrap(loss, module, run.world)
    average = Average(params, cfg.ema) if cfg.ema else None
    per_epoch = math.ceil(len(rows) / cfg.batch_size)
    total = cfg.max_steps or max(1, math.ceil(round(cfg.epochs * per_epoch, 6)))
    device = next(iter(params.values())).device
    modes = {part: part.training for part in module.modules()}
    begun, whole_chain = (chain.index * total, chain.count * total) if chain else (0, total)
    unit = "tokens" if cost else "rows"
    with (
        torch.random.fork_rng([device] if device.type == "cuda" else []),
        noted_signals() as signals,
        Progress(stage, total, unit=unit, quiet=cfg.quiet or run.rank != 0) as progress,
    ):
        start = progress.start = place.resume(optimizer, params, average, progress.say)
        for step in range(start + 1, total + 1):
            began = time.monotonic()
            module.train()
            chosen = step_rows(run.seed, stage, step - 1, len(rows), cfg.batch_size)
            micros = micro_batches(chosen[run.rank :: run.world], rows, cfg.micro_cost, cost, weight)
            shares = gather([sum(m.weight for m in micros), sum(m.cost for m in micros)], run.world)
            whole = math.fsum(share[0] for share in shares)
            done = _gradients(
                call, private, micros, whole, collate, device, cfg.precision, (stage, step), run
            )
            for p in params.values():
                # torch skips a parameter without gradient; which ones lack it may depend on the processes.
                p.grad = torch.zeros_like(p) if p.grad is None else p.grad
            norm = float(nn.utils.clip_grad_norm_(params.values(), cfg.clip_norm or math.inf))
            means, bad = _agree(done, chosen, norm, run.world)
            if bad:
                optimizer.zero_grad(set_to_none=True)
                raise place.not_finite(step, bad, means["loss"], norm)
            lr = set_lr(optimizer, lr_factor(cfg.schedule, begun + step - 1, whole_chain, cfg.warmup))
            if whole > 0:
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if average:
                average.update(step)
            if after_step:
                after_step(step)

            rate = sum(share[1] for share in shares) / max(1e-9, time.monotonic() - began)
            if step == total or (cfg.log_every and step % cfg.log_every == 0):
                more = {
                    "lr": lr,
                    "grad_norm": norm,
                    "epoch": step / per_epoch,
                    f"{unit}_per_s": round(rate, 3),
                }
                run.log(step, means | more, stage=stage)
            if evaluate and (step == total or (cfg.eval_every and step % cfg.eval_every == 0)):
                run.log(step, _evaluated(evaluate, step, module, average), stage=stage)
            progress.update(step, means["loss"], rate)
            stop = max(gather(max(signals, default=0), run.world))
            if step < total and (stop or (cfg.save_every and step % cfg.save_every == 0)):
                place.save(step, optimizer, params, average)
            if step < total and stop:
                progress.say(
                    f"stopped after step {step} of {total} and saved; the same command goes on from there"
                )
                # torchrun ends the others when one process leaves, so none does before all is saved.
                gather(None, run.world)
                leave_on(stop)
        if average:
            average.swap()
        place.finish(total, optimizer, params)
        for part, mode in modes.items():
            part.training = mode
        leave_on(max(gather(max(signals, default=0), run.world)))


def _gradients(
    call: Callable[[Any], tuple[Tensor, Mapping[str, Any]]],
    private: Callable[[], AbstractContextManager[Any]],
    micros: Sequence[Micro],
    whole: float,
    collate: Callable[[list[Any]], Any] | None,
    device: torch.device,
    precision: str,
    where: tuple[str, int],
    run: Run,
) -> list[tuple[Micro, Tensor, Mapping[str, Any]]]:
    """Add the gradients of the step's mean loss into `.grad`; what each micro-batch gave."""
    done = []
    bf16 = pick_precision(precision, device.type) == "bf16"
    # DDP needs a last backward pass of every process, of one without rows too.
    queue = [*micros] or ([None] if run.world > 1 else [])
    for number, micro in enumerate(queue):
        torch.manual_seed(run.seed_for(where[0], "torch", where[1], number, run.rank))
        batch = None if micro is None else collate(micro.rows) if collate else micro.rows
        with private() if number < len(queue) - 1 else nullcontext():
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                value, metrics = call(batch)
            if value.ndim != 0:
                raise HeedfulError(f"{where[0]}: the loss has shape {tuple(value.shape)}; a scalar is needed")
            # DDP divides the summed gradients by the number of processes.
            (value * (run.world * micro.weight / whole if micro else 1.0)).backward()
        if micro:
            done.append((micro, value.detach(), metrics))
    return done


def _agree(
    done: Sequence[tuple[Micro, Tensor, Mapping[str, Any]]],
    chosen: list[int],
    norm: float,
    world: int,
) -> tuple[dict[str, float], list[int]]:
    """(weighted means, rows to blame for what is not finite), the same in all processes."""
    sums: dict[str, list[float]] = {"loss": [0.0, 0.0]}
    bad: list[int] = []
    for micro, value, metrics in done:
        for name, number in {**metrics, "loss": value}.items():
            entry = sums.setdefault(name, [0.0, 0.0])
            entry[0] += float(number) * micro.weight
            entry[1] += micro.weight
        if not math.isfinite(float(value)):
            bad += micro.indices
    everyone = gather([sums, bad], world)
    bad = sorted(index for _, theirs in everyone for index in theirs)
    if not bad and not math.isfinite(norm):
        bad = sorted(chosen)
    names = dict.fromkeys(name for theirs, _ in everyone for name in theirs)
    means = {}
    for name in names:
        parts = [theirs[name] for theirs, _ in everyone if name in theirs]
        means[name] = math.fsum(p[0] for p in parts) / (math.fsum(p[1] for p in parts) or 1.0)
    return means, bad


def _evaluated(
    evaluate: Callable[[int], Mapping[str, Any]], step: int, module: nn.Module, average: Average | None
) -> Mapping[str, Any]:
    if average:
        average.swap()
    module.eval()
    try:
        with torch.no_grad():
            return evaluate(step)
    finally:
        if average:
            average.swap()
