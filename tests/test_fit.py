"""The one loop: what it computes, and what it does when something goes wrong."""

from __future__ import annotations

import errno
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, get_scheduler

from heedful import checkpoint
from heedful.batches import micro_batches, row_order, step_rows
from heedful.errors import HeedfulError
from heedful.fit import FitConfig, fit
from heedful.optimise import lr_factor
from heedful.run import Run, open_run, read_metrics

Rows = list[dict[str, Any]]


def config(**changes: Any) -> FitConfig:
    return FitConfig(**{"lr": 1e-2, "batch_size": 4, "precision": "fp32", "quiet": True, **changes})


def model(dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 1))


def data(count: int) -> Rows:
    generator = torch.Generator().manual_seed(2)
    return [{"x": torch.randn(3, generator=generator).tolist(), "w": 0.5 + i % 3} for i in range(count)]


def squared(module: nn.Module) -> Callable[[Rows], tuple[Tensor, dict[str, Tensor]]]:
    """A weighted mean of squared errors."""

    def loss(batch: Rows) -> tuple[Tensor, dict[str, Tensor]]:
        x, w = torch.tensor([r["x"] for r in batch]), torch.tensor([r["w"] for r in batch])
        errors = (module(x)[:, 0] - x.sum(-1)).square()
        value = (errors * w).sum() / w.sum()
        return value, {"error": value.detach()}

    return loss


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def same(a: dict[str, Tensor], b: dict[str, Tensor], within: float = 0.0) -> bool:
    return a.keys() == b.keys() and all(float((a[k] - b[k]).abs().max()) <= within for k in a)


def trained(
    folder: Path, cfg: FitConfig, rows: Rows | None = None, dropout: float = 0.0, **options: Any
) -> nn.Module:
    module = model(dropout)
    with open_run(folder, {}, seed=0) as run:
        fit("s", squared(module), module, data(10) if rows is None else rows, cfg, run, **options)
    return module


def rows_of(folder: Path, name: str = "loss") -> list[tuple[int, float]]:
    return [(row["step"], row[name]) for row in read_metrics(folder) if name in row]


def weight(row: dict[str, Any]) -> float:
    return row["w"]


@pytest.mark.parametrize("limit", [1, 3, 6.5])
def test_micro_batches_of_any_size_and_weight_equal_one_big_batch(tmp_path: Path, limit: float) -> None:
    cfg = {"batch_size": 7, "epochs": 3, "clip_norm": 0.5}
    whole = trained(tmp_path / "whole", config(**cfg), weight=weight)
    cut = trained(
        tmp_path / "cut",
        config(**cfg, micro_cost=limit),
        weight=weight,
        cost=lambda row: 1 + abs(row["x"][0]),
    )
    assert same(weights(whole), weights(cut), 1e-6)
    for name in ("loss", "error", "grad_norm"):
        assert [step for step, _ in rows_of(tmp_path / "cut", name)] == [1, 2, 3, 4, 5, 6]
        pairs = zip(rows_of(tmp_path / "whole", name), rows_of(tmp_path / "cut", name), strict=True)
        assert all(abs(a[1] - b[1]) < 1e-6 for a, b in pairs)


def test_a_step_is_adamw_on_the_weighted_mean_of_its_rows(tmp_path: Path) -> None:
    """The same few steps by hand, with torch's optimiser and the rows that `step_rows` names."""
    cfg = config(max_steps=4, weight_decay=0.1, schedule="constant", clip_norm=0, micro_cost=2)
    module = trained(tmp_path, cfg, weight=weight)
    by_hand, rows = model(), data(10)
    matrices = [p for p in by_hand.parameters() if p.ndim == 2]
    vectors = [p for p in by_hand.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}], lr=1e-2
    )
    for step in range(4):
        loss, _ = squared(by_hand)([rows[i] for i in step_rows(0, "s", step, 10, 4)])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert same(weights(module), weights(by_hand), 1e-6)


def test_rows_come_in_a_new_order_each_epoch_and_each_exactly_once() -> None:
    epochs = [
        [i for step in range(3) for i in step_rows(5, "s", epoch * 3 + step, 10, 4)] for epoch in range(3)
    ]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert len(step_rows(5, "s", 2, 10, 4)) == 2
    assert row_order(5, "s", 0, 10).tolist() != row_order(6, "s", 0, 10).tolist()
    assert row_order(5, "s", 0, 10).tolist() != row_order(5, "t", 0, 10).tolist()


def test_micro_batches_respect_the_limit_and_lose_no_row() -> None:
    costs = [5, 1, 9, 3, 3, 2, 0]
    micros = micro_batches(range(7), costs, 6, cost=float, weight=lambda c: float(c > 0))
    assert sorted(i for m in micros for i in m.indices) == [0, 1, 2, 3, 4, 5], "weight 0 adds nothing"
    assert all(m.cost <= 6 or len(m.rows) == 1 for m in micros) and micros[0].indices == [2]
    with pytest.raises(HeedfulError, match="row 1 has weight -1"):
        micro_batches([1], [0, 0], 0, weight=lambda row: -1)


@pytest.mark.parametrize("name", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("warmup", [0, 3, 0.25])
def test_schedules_have_transformers_values(name: str, warmup: float) -> None:
    steps = math.ceil(warmup * 10) if warmup < 1 else int(warmup)
    kind = "constant_with_warmup" if name == "constant" else name
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = get_scheduler(kind, optimizer, num_warmup_steps=steps, num_training_steps=10)
    for step in range(10):
        assert lr_factor(name, step, 10, warmup) == pytest.approx(scheduler.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("name", ["constant", "linear", "cosine"])
def test_a_share_of_warm_up_leaves_the_last_step_its_rate(name: str) -> None:
    assert lr_factor(name, 0, 1, 0.1) == 1, "a run of one step learns"
    assert [lr_factor(name, step, 3, 0.99) for step in range(3)] == [0, 0.5, 1]
    assert lr_factor(name, 0, 1, 1) == 0, "warm-up in steps is as in transformers"


def test_the_schedule_is_what_the_optimiser_gets(tmp_path: Path) -> None:
    trained(tmp_path, config(max_steps=4, warmup=2, lr=0.1))
    assert [lr for _, lr in rows_of(tmp_path, "lr")] == pytest.approx([0.0, 0.05, 0.1, 0.05])


def test_parameter_groups_keep_their_own_learning_rate(tmp_path: Path) -> None:
    def groups(module: nn.Module) -> list[dict[str, Any]]:
        first, last = module[0], module[3]  # type: ignore[index]
        return [{"params": first.parameters(), "lr": 0.0}, {"params": list(last.parameters())}]

    module = trained(tmp_path / "a", config(max_steps=2), groups=groups)
    start, end = weights(model()), weights(module)
    assert same({"w": start["0.weight"]}, {"w": end["0.weight"]}) and not torch.equal(
        start["3.bias"], end["3.bias"]
    )
    with pytest.raises(HeedfulError, match=r"hold 3\.weight, 3\.bias not exactly once"):
        trained(tmp_path / "b", config(), groups=lambda m: [{"params": m[0].parameters()}])


def test_clipping_bounds_the_update_and_reports_the_norm(tmp_path: Path) -> None:
    module = model()
    before = weights(module)
    with open_run(tmp_path, {}, seed=0) as run:
        fit("s", squared(module), module, data(4), config(max_steps=1, clip_norm=1e-12, eps=1.0), run)
    assert rows_of(tmp_path, "grad_norm")[0][1] > 0.1
    assert same(before, weights(module), 1e-12)


def test_frozen_parameters_stay_and_are_not_stored(tmp_path: Path) -> None:
    module = model()
    module[0].requires_grad_(False)  # type: ignore[index]
    before = weights(module)
    with open_run(tmp_path, {}, seed=0) as run:
        fit("s", squared(module), module, data(4), config(max_steps=2), run)
    assert same({"w": before["0.weight"]}, {"w": weights(module)["0.weight"]})
    assert set(checkpoint.read_part(tmp_path / "s/final", "model")) == {"3.weight", "3.bias"}
    for p in module.parameters():
        p.requires_grad_(False)
    with open_run(tmp_path, {}, seed=0) as run, pytest.raises(HeedfulError, match="no trainable parameter"):
        fit("t", squared(module), module, data(4), config(), run)


def test_averaged_weights_become_the_result(tmp_path: Path) -> None:
    seen: list[dict[str, Tensor]] = []
    module = model()
    with open_run(tmp_path, {}, seed=0) as run:
        fit("s", squared(module), module, data(8), config(max_steps=5, ema=0.25), run,
            after_step=lambda step: seen.append(weights(module)),
            evaluate=lambda step: {"first": float(module[0].weight[0, 0])})  # type: ignore[index] # fmt: skip
    average = weights(model())
    for step, now in enumerate(seen, start=1):
        decay = min(0.25, (1 + step) / (10 + step))
        average = {name: decay * average[name] + (1 - decay) * now[name] for name in now}
    assert same(weights(module), average, 1e-6) and not same(weights(module), seen[-1], 1e-4)
    assert same(checkpoint.read_part(tmp_path / "s/final", "model"), weights(module))
    assert rows_of(tmp_path, "first")[0][1] == pytest.approx(float(average["0.weight"][0, 0]), abs=1e-6)


def test_hooks_run_at_their_steps_in_their_modes(tmp_path: Path) -> None:
    steps: list[int] = []
    module = model()
    module.eval()

    def evaluate(step: int) -> dict[str, Any]:
        assert not module.training and not torch.is_grad_enabled()
        return {"measured": step * 10}

    def after_step(step: int) -> None:
        assert module.training
        steps.append(step)

    with open_run(tmp_path, {}, seed=0) as run:
        cfg = config(max_steps=7, eval_every=3, log_every=2)
        fit("s", squared(module), module, data(8), cfg, run, after_step=after_step, evaluate=evaluate)
    assert steps == [1, 2, 3, 4, 5, 6, 7]
    assert rows_of(tmp_path, "measured") == [(3, 30), (6, 60), (7, 70)]
    assert [step for step, _ in rows_of(tmp_path)] == [2, 4, 6, 7]
    assert not module.training and all(not part.training for part in module.modules())


def test_the_callers_randomness_is_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(3)
    want = torch.rand(3)
    module = model(0.5)
    torch.manual_seed(3)
    with open_run(tmp_path, {}, seed=0) as run:
        fit("s", squared(module), module, data(4), config(max_steps=2), run)
    assert torch.equal(torch.rand(3), want)


def test_a_finished_stage_is_loaded_not_repeated(tmp_path: Path) -> None:
    module = trained(tmp_path, config(max_steps=3))

    def never(batch: Any) -> Any:
        raise AssertionError("trained again")

    again = model()
    with open_run(tmp_path, {}, seed=0) as run:
        fit("s", never, again, [], config(max_steps=3, save_every=7, quiet=False), run)
        with pytest.raises(HeedfulError, match=r"other settings: lr: 0\.01 -> 0\.02"):
            fit("s", never, again, [], config(max_steps=3, lr=0.02), run)
        with pytest.raises(HeedfulError, match=r"does not fit this model: 3\.weight has shape \(1, 8\)"):
            wider = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Identity(), nn.Linear(8, 2))
            fit("s", never, wider, [], config(max_steps=3), run)
        (tmp_path / "s/final/model.safetensors").write_bytes(b"x")
        with pytest.raises(
            HeedfulError, match=r"final is damaged: model\.safetensors is not what was written; del"
        ):
            fit("s", never, again, [], config(max_steps=3), run)
    assert same(weights(again), weights(module))
    assert len(rows_of(tmp_path)) == 3


class Stop(Exception):
    """Stands for a crash."""


def crash_after(last: int) -> Callable[[int], None]:
    def after_step(step: int) -> None:
        if step == last:
            raise Stop

    return after_step


@pytest.mark.parametrize("at", [1, 2, 3, 5, 6])
def test_resuming_gives_the_same_bytes_and_rows(tmp_path: Path, at: int) -> None:
    cfg = config(max_steps=6, save_every=2, micro_cost=2, ema=0.5, warmup=1)
    whole = trained(tmp_path / "whole", cfg, dropout=0.4)
    with pytest.raises(Stop):
        trained(tmp_path / "cut", cfg, dropout=0.4, after_step=crash_after(at))
    cut = trained(tmp_path / "cut", cfg, dropout=0.4)
    assert same(weights(whole), weights(cut))
    final = "s/final/model.safetensors"
    assert (tmp_path / "whole" / final).read_bytes() == (tmp_path / "cut" / final).read_bytes()
    assert rows_of(tmp_path / "whole") == rows_of(tmp_path / "cut")
    assert not list((tmp_path / "cut/s").glob("step-*")), "final weights replace the checkpoints"


def test_a_language_model_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    def train(folder: Path, last: int) -> bytes:
        torch.manual_seed(0)
        shape: dict[str, Any] = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 32}
        depth: dict[str, Any] = {"num_hidden_layers": 2, "num_attention_heads": 2, "attention_dropout": 0.2}
        module = LlamaForCausalLM(LlamaConfig(**shape, **depth))

        def loss(batch: Tensor) -> tuple[Tensor, dict[str, Any]]:
            return module(input_ids=batch, labels=batch).loss, {}

        rows = [torch.randint(40, (7,), generator=torch.Generator().manual_seed(i)) for i in range(9)]
        cfg = config(max_steps=5, save_every=2, batch_size=3, micro_cost=14)
        with open_run(folder, {}, seed=0) as run:
            fit(
                "s", loss, module, rows, cfg, run, collate=torch.stack, cost=len, after_step=crash_after(last)
            )
        return (folder / "s/final/model.safetensors").read_bytes()

    want = train(tmp_path / "whole", 0)
    with pytest.raises(Stop):
        train(tmp_path / "cut", 5)
    assert train(tmp_path / "cut", 0) == want
    assert "tokens_per_s" in next(read_metrics(tmp_path / "cut"))


def test_checkpoints_are_pruned_and_verified_with_a_fallback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = config(max_steps=9, save_every=2, keep=2)
    whole = trained(tmp_path / "whole", cfg)
    with pytest.raises(Stop):
        trained(tmp_path / "cut", cfg, after_step=crash_after(9))
    assert sorted(p.name for p in (tmp_path / "cut/s").iterdir()) == ["step-00000006", "step-00000008"]
    damaged = tmp_path / "cut/s/step-00000008/optim.safetensors"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    capsys.readouterr()
    assert same(weights(trained(tmp_path / "cut", cfg)), weights(whole))
    said = capsys.readouterr().err
    assert "step-00000008 is damaged: optim.safetensors is not what was written; going back to step 6" in said
    assert "resumed after step 6" in said
    assert rows_of(tmp_path / "cut") == rows_of(tmp_path / "whole")


@pytest.mark.parametrize("damage", ["missing", "meta", "all"])
def test_other_damage_is_survived_too(tmp_path: Path, damage: str) -> None:
    cfg = config(max_steps=5, save_every=2, keep=2)
    whole = trained(tmp_path / "whole", cfg)
    with pytest.raises(Stop):
        trained(tmp_path / "cut", cfg, after_step=crash_after(5))
    for step in ("2", "4") if damage == "all" else ("4",):
        folder = tmp_path / f"cut/s/step-0000000{step}"
        if damage == "missing":
            (folder / "model.safetensors").unlink()
        else:
            (folder / "meta.json").write_text('{"step": ')
    assert same(weights(trained(tmp_path / "cut", cfg)), weights(whole))
    assert rows_of(tmp_path / "cut") == rows_of(tmp_path / "whole")


def test_changed_settings_or_rows_do_not_resume(tmp_path: Path) -> None:
    cfg = config(max_steps=6, save_every=2)
    with pytest.raises(Stop):
        trained(tmp_path, cfg, after_step=crash_after(5))
    with pytest.raises(HeedfulError, match=r"other settings: max_steps: 6 -> 8; ema: 0\.0 -> 0\.5"):
        trained(tmp_path, config(max_steps=8, save_every=2, ema=0.5))
    with pytest.raises(HeedfulError, match="begun with 10 rows and now has 9"):
        trained(tmp_path, cfg, rows=data(9))
    trained(tmp_path, config(max_steps=6, save_every=3, log_every=2, keep=1))


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_nothing_is_applied_when_something_is_not_finite(tmp_path: Path, kind: str) -> None:
    rows = data(10)
    poison = step_rows(0, "s", 4, 10, 2)[1]
    rows[poison]["x"] = [math.nan] * 3 if kind == "loss" else [0.0, 0.0, 0.0]
    module = model()
    plain_loss, seen = squared(module), []

    def loss(batch: Rows) -> tuple[Tensor, dict[str, Tensor]]:
        value, metrics = plain_loss(batch)
        if kind == "gradient" and any(row is rows[poison] for row in batch):
            value = value + module[3].bias.sub(module[3].bias.detach()).abs().sqrt().sum()  # type: ignore[index]
        return value, metrics

    cfg = config(max_steps=8, batch_size=2, micro_cost=1, save_every=3)
    with open_run(tmp_path, {}, seed=0) as run, pytest.raises(HeedfulError) as caught:
        fit("s", loss, module, rows, cfg, run, after_step=lambda step: seen.append(weights(module)))
    blamed = str(poison) if kind == "loss" else ", ".join(map(str, sorted(step_rows(0, "s", 4, 10, 2))))
    message = str(caught.value)
    assert message.startswith("s, step 5: loss ") and "nothing was applied" in message
    assert f"Rows: {blamed}; last good checkpoint: {tmp_path}/s/step-00000003." in message
    assert len(seen) == 4 and same(weights(module), seen[-1])
    assert all(p.grad is None for p in module.parameters())
    assert [step for step, _ in rows_of(tmp_path)] == [1, 2, 3, 4]
    assert checkpoint.newest_checkpoint(tmp_path / "s") == (3, [])


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize("call", ["mkdir", "save_file", "write", "fsync", "rename"])
def test_a_full_or_read_only_disk_keeps_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    cfg = config(max_steps=6, save_every=2, log_every=0)
    whole = trained(tmp_path / "whole", cfg)

    def break_disk(step: int) -> None:
        if step == 4:
            place = checkpoint if call == "save_file" else os
            monkeypatch.setattr(place, call, fail)

    def fail(*_: Any, **__: Any) -> None:
        if call == "save_file":
            from safetensors import SafetensorError

            raise SafetensorError(f"Error while serializing: I/O error: full (os error {code})")
        raise OSError(code, os.strerror(code))

    with pytest.raises(
        HeedfulError, match=rf"cannot write {tmp_path}/cut/s/step-00000004: (no space|the file sys)"
    ):
        trained(tmp_path / "cut", cfg, after_step=break_disk)
    monkeypatch.undo()
    assert sorted(p.name for p in (tmp_path / "cut/s").iterdir() if call != "rename" or p.name[0] != ".") == [
        "step-00000002"
    ]
    assert checkpoint.newest_checkpoint(tmp_path / "cut/s") == (2, [])
    assert same(weights(trained(tmp_path / "cut", cfg)), weights(whole))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_finishes_the_step_saves_and_exits(tmp_path: Path, number: int, code: int) -> None:
    def handler(*_: Any) -> None:
        raise AssertionError("the caller's handler ran")

    cfg = config(max_steps=6, save_every=0)
    whole = trained(tmp_path / "whole", cfg)
    before = signal.signal(number, handler)
    try:
        for last in (3, 6):

            def send(step: int, last: int = last) -> None:
                if step == last:
                    os.kill(os.getpid(), number)

            with pytest.raises(SystemExit) as caught:
                trained(tmp_path / "cut", cfg, after_step=send)
            assert caught.value.code == code
            assert signal.getsignal(number) is handler
            place = "step-00000003" if last == 3 else "final"
            assert [p.name for p in (tmp_path / "cut/s").iterdir()] == [place]
    finally:
        signal.signal(number, before)
    assert same(weights(trained(tmp_path / "cut", cfg)), weights(whole))
    assert [step for step, _ in rows_of(tmp_path / "cut")] == [1, 2, 3, 4, 5, 6]


def test_tensors_that_after_step_changes_are_restored(tmp_path: Path) -> None:
    def train(folder: Path, last: int) -> Tensor:
        module, count = model(), torch.zeros(2)

        def after_step(step: int) -> None:
            count.add_(step)
            crash_after(last)(step)

        with open_run(folder, {}, seed=0) as run:
            cfg = config(max_steps=5, save_every=2)
            fit("s", squared(module), module, data(8), cfg, run, after_step=after_step, state={"n": count})
        return count

    with pytest.raises(Stop):
        train(tmp_path, 4)
    assert train(tmp_path, 0).tolist() == [15, 15]
    assert train(tmp_path, 0).tolist() == [15, 15], "from the finished stage"


def test_bf16_computes_in_bf16_and_keeps_fp32_parameters(tmp_path: Path) -> None:
    kinds = []
    module = model()
    module[0].register_forward_hook(lambda m, i, out: kinds.append(out.dtype))  # type: ignore[index]
    with open_run(tmp_path, {}, seed=0) as run:
        fit("s", squared(module), module, data(4), config(max_steps=1, precision="bf16"), run)
    assert kinds == [torch.bfloat16]
    assert {p.dtype for p in module.parameters()} == {torch.float32}


def test_bad_requests_are_refused(tmp_path: Path) -> None:
    with pytest.raises(HeedfulError, match="batch_size must be at least 1; ema must be"):
        config(batch_size=0, ema=1.0)
    with pytest.raises(HeedfulError, match="s: there are no rows"):
        trained(tmp_path, config(), rows=[])
    module = model()
    with (
        open_run(tmp_path, {}, seed=0) as run,
        pytest.raises(HeedfulError, match=r"shape \(4, 1\); a scalar"),
    ):
        fit("s", lambda b: (module(torch.tensor([r["x"] for r in b])), {}), module, data(4), config(), run)


def test_a_step_whose_rows_weigh_nothing_changes_nothing(tmp_path: Path) -> None:
    rows = [{**row, "w": 0.0} for row in data(4)]
    assert same(weights(trained(tmp_path, config(), rows=rows, weight=weight)), weights(model()))


def test_plain_lines_where_there_is_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained(tmp_path, config(max_steps=40, quiet=False), cost=lambda row: 5)
    lines = capsys.readouterr().err.splitlines()
    assert 10 <= len(lines) <= 12 and lines[-1].startswith("s: 40/40  loss ")
    assert " tokens/s  " in lines[-1] and lines[-1].endswith("0:00 left") and "\x1b" not in "".join(lines)
    assert all(value > 0 for _, value in rows_of(tmp_path, "tokens_per_s"))


def test_wrong_process_numbers_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(HeedfulError, match="RANK=2 does not fit WORLD_SIZE=2"):
        open_run(tmp_path, {}, seed=0)


def test_a_run_made_by_hand_serves_too(tmp_path: Path) -> None:
    module = model()
    fit("s", squared(module), module, data(4), config(max_steps=1), Run(tmp_path, {}, 0))
    assert rows_of(tmp_path)


def test_a_second_interrupt_stops_at_once_but_not_a_launchers_echo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []

    def echo(step: int) -> None:
        steps.append(step)
        for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM, signal.SIGTERM):
            os.kill(os.getpid(), number)

    with pytest.raises(SystemExit):
        trained(tmp_path, config(max_steps=5), after_step=echo)
    monkeypatch.setattr("heedful.signals.REPEAT_SECONDS", -1.0)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, config(max_steps=5), after_step=echo)
    assert steps == [1, 2]


def test_rows_after_the_resumed_step_are_dropped_and_others_kept(tmp_path: Path) -> None:
    cfg = config(max_steps=6, save_every=2)
    with pytest.raises(Stop):
        trained(tmp_path, cfg, after_step=crash_after(6))
    with open_run(tmp_path, {}, seed=0) as run:
        for step, stage in ((0, "s"), (4, "s"), (5, "s"), (5, "other")):
            run.log(step, {"planted": step}, stage=stage)
    trained(tmp_path, cfg)
    assert rows_of(tmp_path, "planted") == [(0, 0), (4, 4), (5, 5)]
    assert [step for step, _ in rows_of(tmp_path)] == [1, 2, 3, 4, 5, 6]
