"""One epoch of DPO on the same pairs, by heedful and by TRL's DPOTrainer; used by the dpo_* benchmarks.

Both get SmolLM2-135M-Instruct in float32 with the same LoRA (rank 16, all linear layers, the same first
weights), bf16 autocast, the same pairs in the same order, 8 a step, beta 0.1, AdamW, the same learning rate and
linear schedule. The clock starts when model and adapter are in memory and stops when the last step is done; it
covers tokenisation and the reference pass of both.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Result, peak_mib

BATCH, LR, SEED = 8, 1e-4, 0
WORDS = ["time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world", "school", "state", "family", "student", "group", "country", "problem", "hand", "part", "place", "case", "week", "company", "system", "program", "question", "work", "government", "number", "night", "point", "home", "water", "room", "mother", "area", "money", "story", "fact", "month", "lot", "right", "study", "book", "eye", "job", "word", "business", "issue", "side", "kind", "head", "house", "service", "friend", "father", "power", "hour", "game", "line", "end", "member", "law", "car", "city", "community", "name"]


def make_pairs(kind: str, count: int) -> list[dict[str, str]]:
    """Pairs of about (prompt, completion) tokens: "long_prompt" 200 + 50, "chat" 40 + 80 with a wide spread."""
    rng = np.random.default_rng(SEED)

    def text(n: int) -> str:
        return " " + " ".join(rng.choice(WORDS, max(1, n)))

    def lengths(mean: int, spread: float) -> list[int]:
        return [
            int(np.clip(rng.lognormal(np.log(mean) - spread**2 / 2, spread), 4, 4 * mean)) for _ in range(3)
        ]

    rows = []
    for _ in range(count):
        if kind == "long_prompt":
            p, c, r = lengths(200, 0.15)[0], *lengths(50, 0.2)[:2]
        else:
            p, c, r = lengths(40, 0.4)[0], *lengths(80, 0.7)[:2]
        rows.append({"prompt": text(p), "chosen": text(c), "rejected": text(r)})
    return rows


def policy(source: str, precision: str, device: str = "cpu") -> Any:
    """The start model with the benchmark's adapter."""
    from heedful.policies.backbone import Lora
    from heedful.policies.language import LanguagePolicy

    return LanguagePolicy.load(
        source, lora=Lora(rank=16, alpha=32), template="none", precision=precision, device=device, seed=SEED
    )


def ordered(pairs: list[dict[str, str]]) -> list[dict[str, str]]:
    """The pairs in the order our loop takes them, so that the peer can take them in turn."""
    from heedful.batches import row_order

    return [pairs[i] for i in row_order(SEED, "dpo", 0, len(pairs)).tolist()]


def ours(source: str, kind: str, count: int, threads: int, precision: str) -> Result:
    """Our run: reference pass, then one epoch."""
    import torch

    from heedful.fit import FitConfig, fit
    from heedful.policies.objectives import collate, objective, pair_rows, row_cost
    from heedful.run import open_run, read_metrics

    torch.set_num_threads(threads)
    model = policy(source, precision)
    before = peak_mib()
    pairs = make_pairs(kind, count)
    with tempfile.TemporaryDirectory() as folder, open_run(folder, {}, seed=SEED) as run:
        began, cpu = time.monotonic(), time.process_time()
        rows = pair_rows(model, pairs, "dpo", run)
        cfg = FitConfig(
            lr=LR,
            batch_size=BATCH,
            schedule="linear",
            save_every=0,
            micro_cost=MICRO,
            precision=precision,
            quiet=True,
        )
        fit(
            "dpo",
            objective(model, "dpo", beta=0.1),
            model.module,
            rows,
            cfg,
            run,
            collate=collate(model),
            cost=row_cost(model),
        )
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu
        losses = [row["loss"] for row in read_metrics(Path(folder)) if "loss" in row]
    return {"seconds": seconds, "cpu_s": cpu, "peak_mib": peak_mib(), "loaded_mib": before, "losses": losses}


MICRO = 640.0


def trl(source: str, kind: str, count: int, threads: int, precision: str, precompute: bool = False) -> Result:
    """TRL's run at its defaults (bf16 autocast, activation checkpointing), or with precomputed references."""
    import torch
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    torch.set_num_threads(threads)
    model = policy(source, "fp32")  # the adapter's first weights are a function of the seed
    losses: list[float] = []

    class Log(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "loss" in logs:
                losses.append(logs["loss"])

    before = peak_mib()
    pairs = ordered(make_pairs(kind, count))
    with tempfile.TemporaryDirectory() as folder:
        began, cpu = time.monotonic(), time.process_time()
        config = DPOConfig(
            output_dir=folder,
            per_device_train_batch_size=BATCH,
            learning_rate=LR,
            num_train_epochs=1,
            beta=0.1,
            train_sampling_strategy="sequential",
            precompute_ref_log_probs=precompute,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            bf16=precision == "bf16",
            use_cpu=True,
            seed=SEED,
        )
        trainer = DPOTrainer(
            model=model.module,
            args=config,
            train_dataset=Dataset.from_list(pairs),
            processing_class=model.tokenizer,
            callbacks=[Log()],
        )
        trainer.train()
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    return {"seconds": seconds, "cpu_s": cpu, "peak_mib": peak_mib(), "loaded_mib": before, "losses": losses}


def run_child(arm: str, **options: Any) -> Result:
    """One run of one arm."""
    if arm == "ours":
        return ours(**options)
    return trl(**options, precompute=arm == "trl_precompute")


def difference(a: Result, b: Result) -> str:
    """What both lost at each step, for the note."""
    gap = max(abs(x - y) for x, y in zip(a["losses"], b["losses"], strict=True))
    last = f"{a['losses'][-1]:.4f} against {b['losses'][-1]:.4f}"
    return f"loss after {len(a['losses'])} steps {last}, largest gap at a step {gap:.4f}"
