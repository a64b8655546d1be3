"""Sampling for on-policy training: 64 prompts x 4 samples x 48 tokens, against `generate` as TRL's trainers call it.

Both sample from SmolLM2-135M-Instruct without an adapter at temperature 1, and no end token stops a sample early.
The peer's call is that of TRL's GRPOTrainer and RLOOTrainer: each prompt stands in the batch four times, padded on
the left, with a key/value cache. It runs at two precisions: bf16 autocast round each forward pass over float32
weights, which is what TRL's default `bf16=True` does and what ours does too, and weights cast to bfloat16, which is
faster and the harder comparison. The clock covers tokenisation and decoding to text.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.dpo import SEED, WORDS
from benchmarks.harness import Result, alternate, line, main, median, peak_mib

MODULE = "benchmarks.generate"
SAMPLES, TOKENS = 4, 48


def make_prompts(count: int) -> list[str]:
    """Prompts of about 80 tokens; their lengths are log-normal, 0.4 wide in the logarithm."""
    rng = np.random.default_rng(SEED)
    lengths = np.clip(rng.lognormal(np.log(80) - 0.4**2 / 2, 0.4, count), 8, 320).astype(int)
    return [" " + " ".join(rng.choice(WORDS, n)) for n in lengths]


def ours(source: str, count: int, threads: int) -> Result:
    """Our run: `LanguagePolicy.sample`."""
    import torch

    from heedful.policies.language import LanguagePolicy

    torch.set_num_threads(threads)
    model = LanguagePolicy.load(source, template="none", precision="bf16", device="cpu")
    model._end_tokens = lambda: frozenset()  # every sample has all its tokens, here and there
    before = peak_mib()
    prompts = make_prompts(count)
    began, cpu = time.monotonic(), time.process_time()
    samples = model.sample(
        prompts, SAMPLES, generator=torch.Generator().manual_seed(SEED), max_new_tokens=TOKENS
    )
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    made = [len(c.ids) for c in samples.outputs]
    logp = sum(c.logp for c in samples.outputs) / sum(made)
    lengths = [len(model.encoder.prompt(p)) for p in prompts]
    return result(seconds, cpu, made, lengths, before, logp)


def trl(source: str, count: int, threads: int, half: bool) -> Result:
    """The peer's run; half: weights in bfloat16 instead of autocast."""
    import torch
    from transformers import GenerationConfig
    from trl.trainer.utils import pad

    from heedful import hub

    torch.set_num_threads(threads)
    model: Any = hub.load_model(source)
    tokenizer: Any = hub.load_tokenizer(source)
    if half:
        model.to(torch.bfloat16)
    else:
        # Accelerate wraps the forward pass in the same way, so the cast weights live for one forward pass.
        model.forward = torch.autocast("cpu", torch.bfloat16)(model.forward)
    config = GenerationConfig(
        max_new_tokens=TOKENS,
        do_sample=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        repetition_penalty=1.0,
        disable_compile=True,
    )
    model.generation_config.eos_token_id = None  # what the given configuration leaves open comes from here
    before = peak_mib()
    prompts = make_prompts(count)
    torch.manual_seed(SEED)
    began, cpu = time.monotonic(), time.process_time()
    ids = tokenizer(text=[p for p in prompts for _ in range(SAMPLES)])["input_ids"]
    rows = [torch.tensor(row) for row in ids]
    inputs = {
        "input_ids": pad(rows, padding_value=tokenizer.pad_token_id, padding_side="left"),
        "attention_mask": pad([torch.ones_like(r) for r in rows], padding_value=0, padding_side="left"),
    }
    with torch.no_grad():
        out = model.generate(**inputs, generation_config=config)[:, inputs["input_ids"].shape[1] :]
    tokenizer.batch_decode(out, skip_special_tokens=True)
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    logp = mean_logp(source, ids, out.tolist())
    return result(seconds, cpu, [out.shape[1]] * len(out), [len(r) for r in ids[::SAMPLES]], before, logp)


def mean_logp(source: str, prompts: list[list[int]], completions: list[list[int]]) -> float:
    """Log-probability of a sampled token under the model, by our scorer and outside the clock."""
    from heedful.policies.language import LanguagePolicy
    from heedful.policies.packing import Group

    model = LanguagePolicy.load(source, template="none", precision="bf16", device="cpu")
    scored = model.sequence_logps([Group(p, [c]) for p, c in zip(prompts, completions, strict=True)])
    return sum(row[0] for row in scored) / sum(map(len, completions))


def result(
    seconds: float, cpu: float, made: list[int], lengths: list[int], before: float, logp: float
) -> Result:
    """What one run returns; `made` is the number of tokens of every sample."""
    tokens = {"tokens": sum(made), "shortest": min(made), "tokens_per_cpu_s": sum(made) / cpu}
    prompts = {
        "prompt_mean": sum(lengths) / len(lengths),
        "prompt_min": min(lengths),
        "prompt_max": max(lengths),
    }
    memory = {"peak_mib": peak_mib(), "loaded_mib": before}
    return {"seconds": seconds, "cpu_s": cpu, "logp": logp, **tokens, **prompts, **memory}


def run_child(arm: str, **options: Any) -> Result:
    """One run of one arm."""
    if arm == "ours":
        return ours(**options)
    return trl(**options, half=arm == "trl_half")


def run(pairs: int, keep: Path | None, count: int, extra: int) -> list[str]:
    """The lines of this benchmark."""
    work = {"source": "smollm2", "count": count, "threads": 1}
    done = alternate(MODULE, {arm: {"arm": arm, **work} for arm in ("ours", "trl")}, pairs, keep)
    done |= alternate(MODULE, {"trl_half": {"arm": "trl_half", **work}}, min(pairs, extra), keep)
    mine = done["ours"]
    made = {r["tokens"] for results in done.values() for r in results}
    if made != {count * SAMPLES * TOKENS} or any(r["shortest"] != TOKENS for r in mine):
        raise SystemExit(f"generate: the arms drew {sorted(made)} tokens")
    lines = []
    for name, arm, how in (
        ("generate", "trl", "bf16 autocast over float32 weights on both sides"),
        ("generate_bf16_weights", "trl_half", "the peer's weights in bfloat16, ours under bf16 autocast"),
    ):
        peer = done[arm]
        note = (
            f"{count} prompts x {SAMPLES} samples x {TOKENS} tokens, prompts of {mine[0]['prompt_min']} to "
            f"{mine[0]['prompt_max']} tokens, {mine[0]['prompt_mean']:.0f} on average; {how}; 1 thread; medians of "
            f"{len(mine)} of our runs and {len(peer)} of the peer's; {TOKENS} tokens for every sample; mean "
            f"log-probability of a drawn token {median(mine, 'logp'):.3f} against {median(peer, 'logp'):.3f}; wall "
            f"{median(mine, 'seconds'):.0f} s against {median(peer, 'seconds'):.0f} s; peak of the process "
            f"{median(mine, 'peak_mib'):.0f} against {median(peer, 'peak_mib'):.0f} MiB"
        )
        rates = median(mine, "tokens_per_cpu_s"), median(peer, "tokens_per_cpu_s")
        lines.append(line(name, *rates, "tokens per CPU second", note, more_is_better=True))
    return lines


if __name__ == "__main__":
    main(MODULE, run_child, run)
