"""Several stages that learn as one: optimiser and schedule go on, and only the newest stage keeps its tensors."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_fit import config, data, model, same, squared, trained, weights
from torch import nn

from heedful.errors import HeedfulError
from heedful.fit import Chain, FitConfig, fit
from heedful.run import open_run

STEPS, STAGES = 4, 3


def settings(steps: int) -> FitConfig:
    return config(
        batch_size=10, max_steps=steps, schedule="cosine", warmup=0.25, weight_decay=0.1, save_every=1
    )


def chained(folder: Path, stages: range, module: nn.Module) -> None:
    with open_run(folder, {}, seed=0) as run:
        for i in stages:
            place = Chain(f"s{i - 1}" if i else "", i, STAGES)
            fit(f"s{i}", squared(module), module, data(10), settings(STEPS), run, chain=place)


def test_a_chain_learns_as_one_long_stage_does(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", settings(STEPS * STAGES))
    module = model()
    chained(tmp_path / "chain", range(STAGES), module)
    assert same(weights(module), weights(whole), 1e-5)  # row order rounds differently


def test_the_optimiser_is_what_makes_the_difference(tmp_path: Path) -> None:
    module, apart = model(), model()
    chained(tmp_path / "chain", range(2), module)
    with open_run(tmp_path / "apart", {}, seed=0) as run:
        for i in range(2):
            fit(f"s{i}", squared(apart), apart, data(10), settings(STEPS), run)
    assert not same(weights(module), weights(apart), 1e-4)


def test_a_chain_is_taken_up_again_at_any_of_its_stages(tmp_path: Path) -> None:
    whole = model()
    chained(tmp_path / "whole", range(STAGES), whole)
    for upto in range(1, STAGES + 1):
        folder = tmp_path / str(upto)
        chained(folder, range(upto), model())
        for i in range(upto):
            assert (folder / f"s{i}/final").exists() == (i == upto - 1)
            assert (folder / f"s{i}/passed").exists() == (i < upto - 1)
        again = model()
        chained(folder, range(STAGES), again)
        assert same(weights(again), weights(whole))


def test_a_kill_between_finishing_and_removing_is_made_good(tmp_path: Path) -> None:
    folder, module = tmp_path / "run", model()
    chained(folder, range(1), module)
    kept = {f.name: f.read_bytes() for f in (folder / "s0/final").iterdir()}
    chained(folder, range(2), model())
    (folder / "s0/passed").unlink()
    (folder / "s0/final").mkdir()
    for name, content in kept.items():
        (folder / "s0/final" / name).write_bytes(content)
    again = model()
    chained(folder, range(2), again)
    assert not (folder / "s0/final").exists() and (folder / "s0/passed").exists()
    fresh = model()
    chained(tmp_path / "fresh", range(2), fresh)
    assert same(weights(again), weights(fresh))


def test_a_chain_without_its_stage_before_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HeedfulError, match="s0/final"):
        chained(tmp_path / "run", range(1, 2), model())
