"""One epoch of DPO on the same pairs, by heedful and by TRL's DPOTrainer; used by the dpo_* benchmarks.

Both get SmolLM2-135M-Instruct in float32 and put the same LoRA on it (rank 16, all linear layers, the same first
weights), bf16 autocast, the same pairs in the same order, 8 a step, beta 0.1, AdamW, the same learning rate and
linear schedule. The clock starts when the model is in memory and stops when the last step is done; on both sides it
covers the making of the adapter, tokenisation and the reference pass. TRL is at its defaults (activation
checkpointing is one), and once more with `precompute_ref_log_probs`; no pair reaches its truncation length of 1024.

In bf16 the two differ by rounding alone, which Adam's first steps turn into different losses. That it is the same
work shows in float32: a short run of both is part of each benchmark, outside the timing.
"""

from __future__ import annotations

import re
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Result, alternate, line, median, peak_mib

BATCH, LR, SEED, RANK, ALPHA = 8, 1e-4, 0, 16, 32
CHECKED = 2 * BATCH  # pairs of the float32 run: the second step's loss depends on the first one's gradient
MICRO = 320.0
"""Positions in one of our micro-batches; the peer has no like setting that leaves its step of 8 pairs as it is."""
WORDS = re.findall(
    r"\w+",
    """
    time year people way day man thing woman life child world school state family student group country
    problem hand part place case week company system program question work government number night point
    home water room mother area money story fact month lot right study book eye job word business issue side
    kind head house service friend father power hour game line end member law car city community name
    """,
)


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


def ordered(pairs: list[dict[str, str]]) -> list[dict[str, str]]:
    """The pairs in the order our loop takes them, so that the peer can take them in turn."""
    from heedful.batches import row_order

    return [pairs[i] for i in row_order(SEED, "dpo", 0, len(pairs)).tolist()]


def first_weights(module: Any) -> float:
    """A number that tells one random adapter from another."""
    with_a = (p for name, p in module.named_parameters() if "lora_A" in name)
    return sum(float(p.detach().double().abs().sum()) for p in with_a)


def ours(source: str, kind: str, count: int, threads: int, precision: str) -> Result:
    """Our run: reference pass, then one epoch."""
    import torch

    from heedful import hub
    from heedful.fit import FitConfig, fit
    from heedful.policies.backbone import Lora
    from heedful.policies.language import LanguagePolicy
    from heedful.policies.objectives import collate, objective, pair_rows, row_cost
    from heedful.run import open_run, read_metrics

    torch.set_num_threads(threads)
    before = peak_mib()
    module, tokenizer = hub.load_model(source), hub.load_tokenizer(source)
    pairs = make_pairs(kind, count)
    with tempfile.TemporaryDirectory() as folder, open_run(folder, {}, seed=SEED) as run:
        began, cpu = time.monotonic(), time.process_time()
        lora = Lora(rank=RANK, alpha=ALPHA)
        model = LanguagePolicy(
            module, tokenizer, lora=lora, template="none", precision=precision, device="cpu", seed=SEED
        )
        adapter = first_weights(model.module)
        rows = pair_rows(model, pairs, "dpo", run)
        cfg = FitConfig(
            lr=LR,
            batch_size=BATCH,
            schedule="linear",
            save_every=0,
            micro_cost=MICRO,
            precision=model.precision,
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
    return result(seconds, cpu, before, losses, adapter)


def trl(source: str, kind: str, count: int, threads: int, precision: str, precompute: bool = False) -> Result:
    """TRL's run at its defaults, or with precomputed references."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import TrainerCallback
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    from heedful import hub

    torch.set_num_threads(threads)
    before = peak_mib()
    module, tokenizer = hub.load_model(source), hub.load_tokenizer(source)
    losses: list[float] = []

    class Log(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "loss" in logs:
                losses.append(logs["loss"])

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
            model=module,
            args=config,
            train_dataset=Dataset.from_list(pairs),
            processing_class=tokenizer,
            callbacks=[Log()],
            peft_config=LoraConfig(
                r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"
            ),
        )
        adapter = first_weights(trainer.model)
        trainer.train()
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    return result(seconds, cpu, before, losses, adapter)


def result(seconds: float, cpu: float, before: float, losses: list[float], adapter: float) -> Result:
    """What a run returns; before: the process's peak with everything imported and no model loaded."""
    memory = {"peak_mib": peak_mib(), "imported_mib": before}
    return {"seconds": seconds, "cpu_s": cpu, **memory, "adapter": adapter, "losses": losses}


def run_child(arm: str, **options: Any) -> Result:
    """One run of one arm."""
    if arm == "ours":
        return ours(**options)
    return trl(**options, precompute=arm == "trl_precompute")


def difference(a: Result, b: Result) -> str:
    """What both lost at each step, for the note."""
    gap = max(abs(x - y) for x, y in zip(a["losses"], b["losses"], strict=True))
    last = f"{a['losses'][-1]:.6f} against {b['losses'][-1]:.6f}"
    return f"loss at step {len(a['losses'])} {last}, largest gap at a step {gap:.1g}"


def compare(module: str, kind: str, pairs: int, keep: Path | None, count: int, precomputed: int) -> list[str]:
    """All runs of a dpo_* benchmark and its lines. precomputed: runs of the peer with precomputed references."""
    name = f"dpo_{kind}"
    same = {"source": "smollm2", "kind": kind, "threads": 1}
    work = {**same, "count": count, "precision": "bf16"}
    exact = {**same, "count": CHECKED, "precision": "fp32"}
    check = alternate(module, {f"{arm}_fp32": {"arm": arm, **exact} for arm in ("ours", "trl")}, 1, keep)
    done = alternate(module, {arm: {"arm": arm, **work} for arm in ("ours", "trl")}, pairs, keep)
    arm = "trl_precompute"
    done |= alternate(module, {arm: {"arm": arm, **work}}, min(pairs, precomputed), keep)
    mine, defaults, precompute = done["ours"], done["trl"], done[arm]
    for peer in (*defaults, *precompute, *check["trl_fp32"]):
        if abs(peer["adapter"] - mine[0]["adapter"]) > 1e-6 * mine[0]["adapter"]:
            raise SystemExit(f"{name}: the adapters began with different weights")

    def note(peer: list[Result]) -> str:
        return (
            f"{count} pairs, {count // BATCH} steps, bf16 autocast, 1 thread; medians of {len(mine)} of our runs "
            f"and {len(peer)} of TRL's; wall {median(mine, 'seconds'):.0f} s against "
            f"{median(peer, 'seconds'):.0f} s; {difference(mine[0], peer[0])}; in float32, {CHECKED} pairs: "
            f"{difference(check['ours_fp32'][0], check['trl_fp32'][0])}"
        )

    def above(results: list[Result]) -> float:
        return median(results, "peak_mib") - median(results, "imported_mib")

    def memory(peer: list[Result]) -> str:
        return (
            f"peak of the whole process, libraries included, in the runs of {name}; above the process before the "
            f"model is loaded {above(mine):.0f} against {above(peer):.0f} MiB, {above(peer) / above(mine):.2f} "
            f"times; micro-batches of {MICRO:.0f} positions against steps of {BATCH} pairs"
        )

    lines = []
    for suffix, peer in (("", defaults), ("_precompute", precompute)):
        lines.append(
            line(name + suffix, median(mine, "cpu_s"), median(peer, "cpu_s"), "CPU seconds", note(peer))
        )
    if kind == "long_prompt":
        for suffix, peer in (("_memory", defaults), ("_memory_precompute", precompute)):
            ours_mib, peer_mib = median(mine, "peak_mib"), median(peer, "peak_mib")
            lines.append(line(name + suffix, ours_mib, peer_mib, "MiB", memory(peer)))
    return lines
