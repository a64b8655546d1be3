"""Training a decoder of a million parameters on streams of search: real tokens per second, against the `Trainer`.

Both get the same rows of Countdown with three numbers to 49, the same first weights, AdamW and linear schedule, 64 rows
a step in the same order, the loss on the same tokens (those after the problem). Ours lays rows behind each other; the
peer pads every row to the context of 256, as the official code of Stream of Search pads to its 4096, and once more to
the longest row of the batch only. Under bf16 autocast, as the official code trains, and in float32, where the losses
of both are compared. The clock starts when model and rows are in memory.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.harness import Result, alternate, line, main, median, peak_mib

MODULE = "benchmarks.train_small"
SEED, BATCH, LR, CONTEXT, BETAS, DECAY = 0, 64, 1e-3, 256, (0.9, 0.98), 0.05


def parts(count: int) -> tuple[Any, Any]:
    """Training rows, and the tokenizer."""
    from heedful.recipes import search
    from heedful.recipes.search_world import open_world, settings_of

    world = open_world(settings_of(search.preset("main")))
    return world.rows("streams", count, CONTEXT), world.tokenizer


def ours(count: int, threads: int, precision: str) -> Result:
    """Our run: `fit_tokens`."""
    import torch

    from heedful.fit import FitConfig
    from heedful.policies.decoder import fit_tokens, new_decoder
    from heedful.run import open_run, read_metrics

    torch.set_num_threads(threads)
    rows, tokenizer = parts(count)
    policy = new_decoder(tokenizer, "1m", context=CONTEXT, seed=SEED, precision=precision, device="cpu")
    before = peak_mib()
    settings: dict[str, Any] = {"lr": LR, "batch_size": BATCH, "betas": BETAS, "weight_decay": DECAY}
    settings |= {
        "schedule": "linear",
        "precision": precision,
        "micro_cost": 8192.0,
        "save_every": 0,
        "quiet": True,
    }
    with tempfile.TemporaryDirectory() as folder, open_run(folder, {}, seed=SEED) as run:
        began, cpu = time.monotonic(), time.process_time()
        fit_tokens("pretrain", policy, rows, FitConfig(**settings), run)
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu
        losses = [row["loss"] for row in read_metrics(Path(folder)) if "loss" in row]
    return result(seconds, cpu, rows.tokens, losses, before)


def trainer(count: int, threads: int, precision: str, longest: bool) -> Result:
    """The peer's run; longest: pads to the longest row of a batch instead of the context."""
    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from heedful.batches import row_order
    from heedful.policies.decoder import new_decoder

    torch.set_num_threads(threads)
    rows, tokenizer = parts(count)
    policy = new_decoder(tokenizer, "1m", context=CONTEXT, seed=SEED, precision="fp32", device="cpu")
    data = []
    for i in row_order(SEED, "pretrain", 0, count).tolist():
        group = rows[i]["group"]
        ids = [*group.prompt, *group.completions[0]]
        data.append({"input_ids": ids, "labels": [-100] * len(group.prompt) + list(group.completions[0])})
    losses: list[float] = []

    class Log(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "loss" in logs:
                losses.append(logs["loss"])

    def padded(batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        width = max(len(row["input_ids"]) for row in batch) if longest else CONTEXT
        made = {
            name: torch.full((len(batch), width), fill) for name, fill in (("input_ids", 0), ("labels", -100))
        }
        made["attention_mask"] = torch.zeros(len(batch), width, dtype=torch.long)
        for i, row in enumerate(batch):
            size = len(row["input_ids"])
            made["input_ids"][i, :size] = torch.tensor(row["input_ids"])
            made["labels"][i, :size] = torch.tensor(row["labels"])
            made["attention_mask"][i, :size] = 1
        return made

    before = peak_mib()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=BATCH,
            learning_rate=LR,
            adam_beta1=BETAS[0],
            adam_beta2=BETAS[1],
            weight_decay=DECAY,
            num_train_epochs=1,
            train_sampling_strategy="sequential",
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            bf16=precision == "bf16",
            use_cpu=True,
            seed=SEED,
        )
        began, cpu = time.monotonic(), time.process_time()
        dataset: Any = data  # a list is a dataset to transformers, and not to its types
        made: Any = Trainer(
            model=policy.module,
            args=arguments,
            train_dataset=dataset,
            data_collator=padded,
            callbacks=[Log()],
        )
        made.train()
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    return result(seconds, cpu, rows.tokens, losses, before)


def result(seconds: float, cpu: float, tokens: int, losses: list[float], before: float) -> Result:
    """What one run returns; tokens: the real ones of all rows."""
    memory = {"peak_mib": peak_mib(), "loaded_mib": before}
    rate = {"tokens": tokens, "tokens_per_cpu_s": tokens / cpu}
    return {"seconds": seconds, "cpu_s": cpu, **rate, **memory, "losses": losses}


def run_child(arm: str, **options: Any) -> Result:
    """One run of one arm."""
    if arm == "ours":
        return ours(**options)
    return trainer(**options, longest=arm == "longest")


def difference(a: Result, b: Result) -> str:
    """What both lost at each step, for the note."""
    gap = max(abs(x - y) for x, y in zip(a["losses"], b["losses"], strict=True))
    last = f"{a['losses'][-1]:.6f} against {b['losses'][-1]:.6f}"
    return f"loss at step {len(a['losses'])} {last}, largest gap at a step {gap:.1g}"


def run(pairs: int, keep: Path | None, count: int, extra: int) -> list[str]:
    """The lines of this benchmark."""
    lines = []
    for precision, runs in (("bf16", pairs), ("fp32", min(pairs, extra))):
        work = {"count": count, "threads": 1, "precision": precision}
        done = alternate(MODULE, {arm: {"arm": arm, **work} for arm in ("ours", "trainer")}, runs, keep)
        done |= alternate(MODULE, {"longest": {"arm": "longest", **work}}, min(runs, extra), keep)
        mine = done["ours"]
        for arm, suffix, how in (
            ("trainer", "", f"the peer's rows padded to {CONTEXT}"),
            ("longest", "_longest", "the peer's rows padded to the longest of a batch"),
        ):
            peer = done[arm]
            name = "train_small" + ("" if precision == "bf16" else "_fp32") + suffix
            note = (
                f"{count} rows, {mine[0]['tokens']} real tokens, {count // BATCH} steps of {BATCH} rows, 1.0 million "
                f"parameters, {precision}, 1 thread; {how}; medians of {len(mine)} of our runs and {len(peer)} of the "
                f"peer's; {difference(mine[0], peer[0])}; wall {median(mine, 'seconds'):.0f} s against "
                f"{median(peer, 'seconds'):.0f} s; peak of the process {median(mine, 'peak_mib'):.0f} against "
                f"{median(peer, 'peak_mib'):.0f} MiB"
            )
            rates = median(mine, "tokens_per_cpu_s"), median(peer, "tokens_per_cpu_s")
            lines.append(line(name, *rates, "real tokens per CPU second", note, more_is_better=True))
    return lines


if __name__ == "__main__":
    main(MODULE, run_child, run, count=1024)
