"""DPO with long prompts: pairs of about 200 prompt tokens and completions of about 50, time and peak memory.

What is compared, and how, is in dpo.py.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.dpo import compare, run_child
from benchmarks.harness import main

MODULE = "benchmarks.dpo_long_prompt"


def run(pairs: int, keep: Path | None, count: int, extra: int) -> list[str]:
    """The lines of this benchmark."""
    return compare(MODULE, "long_prompt", pairs, keep, count, extra)


if __name__ == "__main__":
    main(MODULE, run_child, run)
