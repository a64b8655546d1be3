"""Sampling streams of search from a decoder of a million parameters: 1,000 problems, against transformers' `generate`.

The model is made first, by `heedful search pretrain` on a million tokens of Countdown with three numbers to 49 (two
minutes of one core), and kept in runs/bench-small: a trained one, because how long streams are is what decides. Both
sides sample one stream for each problem at temperature 1 in float32, with the end token or the context of 256 as the
limit. Ours refills rows as they end, 256 at a time; the peer pads on the left and goes on until the longest row of a
batch ends, with batches of 256 and with all problems in one. Tokens are counted up to the end token on both sides. The
clock covers tokenisation and decoding to text, and on our side loading the compiled kernel.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from benchmarks.harness import Result, alternate, line, main, median, peak_mib

MODULE = "benchmarks.sample_small"
SEED, ROWS, CONTEXT = 0, 256, 256
FOLDER = Path(__file__).parent.parent / "runs" / "bench-small"


def make_model() -> Path:
    """The folder of the model; trained at the first call, which resumes where it was stopped."""
    from dataclasses import replace

    from heedful.recipes import search
    from heedful.run import open_run

    config = replace(
        search.preset("main"),
        out=str(FOLDER),
        problems=20_000,
        tokens=1_000_000,
        learning_rate=3e-3,
        eval_problems=0,
        precision="bf16",
        device="cpu",
        quiet=True,
    )
    if not (FOLDER / "result.json").exists():
        with open_run(FOLDER, config, seed=SEED, command="python -m benchmarks.sample_small") as run:
            search.run(config, run)
    return FOLDER / "model"


def problems(count: int) -> list[str]:
    """Held-out problems."""
    from heedful.recipes import search
    from heedful.recipes.search_world import open_world, settings_of

    return open_world(settings_of(search.preset("main"))).tests["heldout-inputs"](count)


def ours(source: str, count: int, threads: int) -> Result:
    """Our run: `LanguagePolicy.sample` with refill."""
    import torch

    from heedful.policies.language import LanguagePolicy

    torch.set_num_threads(threads)
    model = LanguagePolicy.load(source, template="none", precision="fp32", device="cpu", small=True)
    asked = problems(count)
    before = peak_mib()
    began, cpu = time.monotonic(), time.process_time()
    samples = model.sample(
        asked,
        generator=torch.Generator().manual_seed(SEED),
        max_new_tokens=limit(model, asked),
        max_rows=ROWS,
    )
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    ids = [list(out.ids) for out in samples.outputs]
    return result(seconds, cpu, ids, mean_logp(model, asked, ids), before)


def limit(model: Any, asked: list[str]) -> int:
    """New tokens that the context has room for."""
    return CONTEXT - max(len(model.encoder.prompt(prompt)) for prompt in asked)


def transformers(source: str, count: int, threads: int, rows: int) -> Result:
    """The peer's run: `generate`, `rows` problems in a batch."""
    import torch

    from heedful.policies.language import LanguagePolicy

    torch.set_num_threads(threads)
    scorer = LanguagePolicy.load(source, template="none", precision="fp32", device="cpu")
    asked = problems(count)
    model: Any = scorer.module
    tokenizer = scorer.tokenizer
    tokenizer.padding_side = "left"
    new = limit(scorer, asked)
    before = peak_mib()
    torch.manual_seed(SEED)
    ids: list[list[int]] = []
    began, cpu = time.monotonic(), time.process_time()
    for first in range(0, count, rows):
        batch = tokenizer(asked[first : first + rows], return_tensors="pt", padding=True)
        with torch.no_grad():
            out = model.generate(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                max_new_tokens=new,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )[:, batch["input_ids"].shape[1] :]
        tokenizer.batch_decode(out, skip_special_tokens=True)
        ids += [cut(row, tokenizer.eos_token_id) for row in out.tolist()]
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    return result(seconds, cpu, ids, mean_logp(scorer, asked, ids), before)


def cut(ids: list[int], end: int) -> list[int]:
    """The tokens up to the end token."""
    return ids[: ids.index(end) + 1] if end in ids else ids


def mean_logp(model: Any, asked: list[str], ids: list[list[int]]) -> float:
    """Log-probability of a drawn token under the model, by our scorer and outside the clock."""
    from heedful.policies.packing import Group

    groups = [Group(model.encoder.prompt(p), [row]) for p, row in zip(asked, ids, strict=True)]
    return sum(row[0] for row in model.sequence_logps(groups)) / sum(map(len, ids))


def result(seconds: float, cpu: float, ids: list[list[int]], logp: float, before: float) -> Result:
    """What one run returns."""
    lengths = [len(row) for row in ids]
    rate = {"tokens": sum(lengths), "tokens_per_cpu_s": sum(lengths) / cpu, "longest": max(lengths)}
    return {
        "seconds": seconds,
        "cpu_s": cpu,
        **rate,
        "logp": logp,
        "peak_mib": peak_mib(),
        "loaded_mib": before,
    }


def run_child(arm: str, **options: Any) -> Result:
    """One run of one arm."""
    if arm == "ours":
        return ours(**options)
    return transformers(**options, rows=ROWS if arm == "batches" else options["count"])


def run(pairs: int, keep: Path | None, count: int, extra: int) -> list[str]:
    """The lines of this benchmark."""
    work = {"source": str(make_model()), "count": count, "threads": 1}
    done = alternate(MODULE, {arm: {"arm": arm, **work} for arm in ("ours", "batches")}, pairs, keep)
    done |= alternate(MODULE, {"whole": {"arm": "whole", **work}}, min(pairs, extra), keep)
    mine = done["ours"]
    lines = []
    for name, arm, how in (
        ("sample_small", "batches", f"the peer's batches of {ROWS}"),
        ("sample_small_one_batch", "whole", "the peer's one batch of all"),
    ):
        peer = done[arm]
        note = (
            f"{count} problems, one stream each, float32, 1 thread, 1.0 million parameters; {how}, ours {ROWS} rows "
            f"refilled; medians of {len(mine)} of our runs and {len(peer)} of the peer's; "
            f"{median(mine, 'tokens') / count:.1f} against {median(peer, 'tokens') / count:.1f} tokens a stream, the "
            f"longest {median(mine, 'longest'):.0f}; mean log-probability of a drawn token "
            f"{median(mine, 'logp'):.3f} against {median(peer, 'logp'):.3f}; wall {median(mine, 'seconds'):.0f} s "
            f"against {median(peer, 'seconds'):.0f} s; peak of the process {median(mine, 'peak_mib'):.0f} against "
            f"{median(peer, 'peak_mib'):.0f} MiB"
        )
        rates = median(mine, "tokens_per_cpu_s"), median(peer, "tokens_per_cpu_s")
        lines.append(line(name, *rates, "tokens per CPU second", note, more_is_better=True))
    return lines


if __name__ == "__main__":
    main(MODULE, run_child, run, count=1000)
