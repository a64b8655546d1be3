"""The benchmark of training small decoders: both sides train on the same tokens, with the same loss."""

from __future__ import annotations

import pytest

pytest.importorskip("accelerate")
from benchmarks.train_small import ours, trainer


def test_both_sides_train_on_the_same_tokens() -> None:
    here, there = ours(8, 1, "fp32"), trainer(8, 1, "fp32", longest=True)
    assert here["tokens"] == there["tokens"] > 0
    assert here["losses"] == pytest.approx(there["losses"], abs=1e-4) and len(here["losses"]) == 1
