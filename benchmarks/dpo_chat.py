"""DPO on chat-like pairs: about 40 prompt tokens, completions of about 85 with lengths from 14 to 300.

What is compared, and how, is in dpo.py.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.dpo import compare, run_child
from benchmarks.harness import main

MODULE = "benchmarks.dpo_chat"


def run(pairs: int, keep: Path | None, count: int, extra: int) -> list[str]:
    """The lines of this benchmark."""
    return compare(MODULE, "chat", pairs, keep, count, extra)


if __name__ == "__main__":
    main(MODULE, run_child, run)
