"""On-policy DPO: sample two answers to each prompt, score them, take a step; against TRL's OnlineDPOTrainer.

Both get SmolLM2-135M-Instruct in float32 with the same LoRA (rank 16, all linear layers, the same first weights), bf16
autocast, the same prompts of about 80 tokens, 8 a step, two samples of 48 tokens each (no end token stops one early),
the same reward function, beta 0.1, AdamW, the same learning rate, and fresh samples at every step. Which tokens are
drawn differs, so losses are not compared. The clock starts when the model is in memory; it covers the making of the
adapter, tokenisation, sampling, scoring, the reference pass and the steps. TRL's trainer is at its defaults but for
what is named here and for gradient checkpointing, which is off: on, as by default, it samples without a cache of keys
and values, which takes many times as long (the line `online_dpo_default`). Ours is the driver of `heedful prefer` with
all that it writes to disk.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.dpo import ALPHA, BATCH, LR, RANK, SEED, first_weights, result
from benchmarks.generate import make_prompts
from benchmarks.harness import Result, alternate, line, main, median, peak_mib

MODULE = "benchmarks.online_dpo"
TOKENS = 48


def letters(completions: list[str], **_: Any) -> list[float]:
    """The reward: the share of letters in an answer, which seldom ties."""
    return [sum(c.isalpha() for c in text) / max(1, len(text)) for text in completions]


def ours(source: str, count: int, threads: int) -> Result:
    """Our run: the rounds of `heedful prefer`, one step each."""
    import torch

    from heedful import hub
    from heedful.judges.rules import reward_function
    from heedful.policies.backbone import Lora
    from heedful.policies.language import LanguagePolicy
    from heedful.recipes import prefer, prefer_rounds
    from heedful.recipes.prefer_data import Data
    from heedful.run import open_run, read_metrics

    torch.set_num_threads(threads)
    before = peak_mib()
    module, tokenizer = hub.load_model(source), hub.load_tokenizer(source)
    cfg = prefer.Config(
        method="dpo",
        prompts="-",
        judge="-",
        rounds=count // BATCH,
        prompts_per_round=BATCH,
        n=2,
        batch_size=BATCH,
        max_new_tokens=TOKENS,
        learning_rate=LR,
        warmup=0.0,
        save_every=0,
        precision="bf16",
        seed=SEED,
        quiet=True,
    )
    with tempfile.TemporaryDirectory() as folder, open_run(folder, {}, seed=SEED) as run:
        began, cpu = time.monotonic(), time.process_time()
        lora = Lora(rank=RANK, alpha=ALPHA)
        model = LanguagePolicy(
            module, tokenizer, lora=lora, template="none", precision="bf16", device="cpu", seed=SEED
        )
        model._end_tokens = lambda: frozenset()  # every sample has all its tokens, here and there
        adapter = first_weights(model.module)
        data = Data(prompts=make_prompts(count))
        prefer_rounds.learn(cfg, model, data, reward_function(letters), None, run)
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu
        losses = [row["loss"] for row in read_metrics(Path(folder)) if "loss" in row]
    return result(seconds, cpu, before, losses, adapter)


def trl(source: str, count: int, threads: int, checkpointing: bool) -> Result:
    """TRL's run."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import TrainerCallback
    from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer

    from heedful import hub

    torch.set_num_threads(threads)
    before = peak_mib()
    module, tokenizer = hub.load_model(source), hub.load_tokenizer(source)
    losses: list[float] = []

    class Log(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "loss" in logs:
                losses.append(logs["loss"])

    def reward(prompts: list[str], completions: list[str], **more: Any) -> list[float | None]:
        return [*letters(completions)]

    with tempfile.TemporaryDirectory() as folder:
        began, cpu = time.monotonic(), time.process_time()
        config = OnlineDPOConfig(
            output_dir=folder,
            per_device_train_batch_size=BATCH,
            learning_rate=LR,
            max_steps=count // BATCH,
            beta=[0.1],
            max_new_tokens=TOKENS,
            max_length=512,
            temperature=1.0,
            generation_kwargs={"min_new_tokens": TOKENS},
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            bf16=True,
            gradient_checkpointing=checkpointing,
            use_cpu=True,
            seed=SEED,
        )
        trainer = OnlineDPOTrainer(
            model=module,
            reward_funcs=reward,
            args=config,
            train_dataset=Dataset.from_list([{"prompt": p} for p in make_prompts(count)]),
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


def run_child(arm: str, **options: Any) -> Result:
    """One run of one arm."""
    return ours(**options) if arm == "ours" else trl(**options, checkpointing=arm == "trl_default")


def run(pairs: int, keep: Path | None, count: int, extra: int) -> list[str]:
    """The lines of this benchmark; one run of the peer at its defaults is enough to tell 24 from 2."""
    work = {"source": "smollm2", "count": count, "threads": 1}
    done = alternate(MODULE, {arm: {"arm": arm, **work} for arm in ("ours", "trl")}, pairs, keep)
    done |= alternate(MODULE, {"trl_default": {"arm": "trl_default", **work}}, min(extra, 1), keep)
    lines, mine = [], done["ours"]
    for name, arm in (("online_dpo", "trl"), ("online_dpo_default", "trl_default")):
        peer = done[arm]
        if not peer:
            continue
        if abs(peer[0]["adapter"] - mine[0]["adapter"]) > 1e-6 * mine[0]["adapter"]:
            raise SystemExit("online_dpo: the adapters began with different weights")
        note = (
            f"{count} prompts, {count // BATCH} steps of {BATCH} prompts with 2 samples of {TOKENS} tokens, bf16 "
            f"autocast, 1 thread; medians of {len(mine)} of our runs and {len(peer)} of TRL's, its gradient "
            f"checkpointing {'on as by default' if arm == 'trl_default' else 'off'}; wall "
            f"{median(mine, 'seconds'):.0f} s against {median(peer, 'seconds'):.0f} s; peak memory "
            f"{median(mine, 'peak_mib'):.0f} against {median(peer, 'peak_mib'):.0f} MiB"
        )
        lines.append(line(name, median(mine, "cpu_s"), median(peer, "cpu_s"), "CPU seconds", note))
    return lines


if __name__ == "__main__":
    main(MODULE, run_child, run)
