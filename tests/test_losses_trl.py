"""Our losses against TRL's own code (extra `bench`), run on the same random log-probabilities.

TRL computes its losses inside methods of its trainers. Those methods run here as they are, on a stand-in for
the trainer that holds its settings, and with a stand-in for the model that puts out the log-probabilities.
One test goes through a real DPOTrainer and a tiny model, so that the stand-ins are known to be faithful.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("trl", minversion="1.16.0")

from trl import DPOConfig, DPOTrainer, KTOTrainer, RewardTrainer
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer

from heedful import losses

B, T = 6, 9
SEEDS = range(4)
BETAS = (0.05, 0.1, 0.7)


def trainer(**settings: Any) -> Any:
    """What the methods read of a trainer."""
    accelerator = SimpleNamespace(
        device=torch.device("cpu"), gather=lambda x: x, gather_for_metrics=lambda x: x
    )
    return SimpleNamespace(
        accelerator=accelerator,
        model=SimpleNamespace(training=True),
        aux_loss_enabled=False,
        precompute_ref_logps=True,
        _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
        _tp_size=1,
        **settings,
    )


def batch(seed: int, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """Token log-probabilities (rows, T); their mask, left of it a prompt; reference sums (rows,)."""
    g = torch.Generator().manual_seed(seed)
    prompt = torch.randint(1, 4, (rows, 1), generator=g)
    end = torch.randint(5, T + 1, (rows, 1), generator=g)
    place = torch.arange(T)
    mask = (place >= prompt) & (place < end)
    logp = (-3 * torch.rand(rows, T, generator=g)).requires_grad_()
    return logp, mask, -3 * torch.rand(rows, generator=g) * mask.sum(1)


def model(logp: Tensor, mask: Tensor) -> Callable[..., Any]:
    """A model whose forward pass gives these log-probabilities, 0 where no token counts as TRL's output layer
    does, with the other outputs that TRL logs."""
    zeros = torch.zeros_like(logp)
    output = SimpleNamespace(log_probs=logp * mask, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool())
    return lambda **_: output


def inputs(mask: Tensor) -> dict[str, Tensor]:
    """TRL's masks are those of tokens; log-probabilities are one place to the left of their token."""
    ids = torch.ones(len(mask), T + 1, dtype=torch.long)
    first = torch.zeros(len(mask), 1, dtype=torch.long)
    return {"input_ids": ids, "attention_mask": ids, "completion_mask": torch.cat([first, mask.long()], 1)}


def trl_dpo(
    kind: str, logp: Tensor, mask: Tensor, ref: Tensor, beta: float, smoothing: float
) -> tuple[Tensor, Any]:
    """DPOTrainer's loss of `kind` and what it logs, chosen rows first."""
    stand_in = trainer(
        loss_types=[kind],
        loss_weights=[1.0],
        beta=beta,
        label_smoothing=smoothing,
        ld_alpha=None,
        f_divergence_type="reverse_kl",
        use_weighting=False,
    )
    ref_chosen, ref_rejected = ref.chunk(2)
    data = {**inputs(mask), "ref_chosen_logps": ref_chosen, "ref_rejected_logps": ref_rejected}
    loss = DPOTrainer._compute_loss(stand_in, model(logp, mask), data, return_outputs=False)
    return loss, {name: values[-1] for name, values in stand_in._metrics["train"].items()}


def ours(kind: str, logp: Tensor, mask: Tensor, ref: Tensor, beta: float, smoothing: float) -> Any:
    """Our loss under TRL's name."""
    args = (*losses.sequence_logp(logp, mask).chunk(2), *ref.chunk(2))
    if kind == "sigmoid":
        return losses.dpo_loss(*args, beta=beta)
    if kind == "robust":
        return losses.dpo_loss(*args, beta=beta, label_smoothing=smoothing, robust=True)
    if kind == "hinge":
        return losses.hinge_loss(*args, beta=beta)
    chosen_length, rejected_length = mask.sum(1).float().chunk(2)
    return losses.ipo_loss(
        *args, beta=beta, per_token=True, chosen_length=chosen_length, rejected_length=rejected_length
    )


def same(a: Tensor, b: Tensor, *inputs: Tensor) -> None:
    """Equal values, equal gradients."""
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    for x, y in zip(*(torch.autograd.grad(x, inputs, retain_graph=True) for x in (a, b)), strict=True):
        assert x.count_nonzero()
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("kind", ["sigmoid", "robust", "hinge", "ipo"])
def test_dpo_trainer(kind: str, beta: float, seed: int) -> None:
    logp, mask, ref = batch(seed, 2 * B)
    theirs, logged = trl_dpo(kind, logp, mask, ref, beta, smoothing=0.2)
    loss, metrics = ours(kind, logp, mask, ref, beta, smoothing=0.2)
    same(loss, theirs, logp)
    # TRL logs rewards times beta
    for name, key in (("h_w", "rewards/chosen"), ("h_l", "rewards/rejected"), ("margin", "rewards/margins")):
        assert beta * float(metrics[name]) == pytest.approx(logged[key], rel=1e-4, abs=1e-5)
    assert float(metrics["accuracy"]) == pytest.approx(logged["rewards/accuracies"])


def test_summed_ipo_is_not_trls() -> None:
    """The trap that ipo_loss warns of is real: TRL's loss is the per-token form, not the summed one."""
    logp, mask, ref = batch(0, 2 * B)
    theirs, _ = trl_dpo("ipo", logp, mask, ref, 0.1, 0.0)
    summed, _ = losses.ipo_loss(*losses.sequence_logp(logp, mask).chunk(2), *ref.chunk(2), beta=0.1)
    assert abs(float((summed / theirs).detach()) - 1) > 0.1


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.3])
def test_conservative_dpo(smoothing: float, seed: int) -> None:
    """TRL's DPOTrainer has no label smoothing with "sigmoid", but its CPOTrainer has the same formula."""
    g = torch.Generator().manual_seed(seed)
    h_w, h_l = (torch.randn(B, generator=g).mul(5).requires_grad_() for _ in range(2))
    stand_in = trainer(loss_type="sigmoid", alpha=0.0, beta=0.3, label_smoothing=smoothing)
    theirs, *_ = CPOTrainer.cpo_loss(stand_in, h_w, h_l)
    loss, _ = losses.dpo_loss(h_w, h_l, torch.zeros(B), torch.zeros(B), beta=0.3, label_smoothing=smoothing)
    same(loss, theirs.mean(), h_w, h_l)


def scored_logits(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Random logits (2B, T + 1, V), labels with -100 where no token counts; what a policy makes of them:
    log-probabilities (2B, T) and their mask."""
    _, mask, _ = batch(seed, 2 * B)
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(2 * B, T + 1, 11, generator=g).mul(2).requires_grad_()
    ids = torch.randint(0, 11, (2 * B, T + 1), generator=g)
    labels = torch.cat([torch.full((2 * B, 1), -100), ids[:, 1:].masked_fill(~mask, -100)], 1)
    logp = logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
    return logits, labels, logp, mask


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("beta", "gamma"), [(2.0, 1.0), (2.5, 0.0), (0.5, 1.6)])
def test_simpo(beta: float, gamma: float, seed: int) -> None:
    logits, labels, logp, mask = scored_logits(seed)
    average = CPOTrainer.get_batch_logps(logits, labels, average_log_prob=True)
    stand_in = trainer(loss_type="simpo", alpha=0.0, beta=beta, simpo_gamma=gamma, label_smoothing=0.0)
    theirs, chosen_rewards, rejected_rewards = CPOTrainer.cpo_loss(stand_in, *average.chunk(2))
    sums, lengths = losses.sequence_logp(logp, mask), mask.sum(1).float()
    loss, metrics = losses.simpo_loss(*sums.chunk(2), *lengths.chunk(2), beta=beta, gamma=gamma)
    same(loss, theirs.mean(), logits)
    torch.testing.assert_close(beta * metrics["h_w"], chosen_rewards.mean(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(beta * metrics["h_l"], rejected_rewards.mean(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_odds_ratio_of_orpo(seed: int) -> None:
    """TRL adds a likelihood of prompt and answer; ours is of the answer, so it is taken off here."""
    logits, labels, logp, mask = scored_logits(seed)
    average = ORPOTrainer.get_batch_logps(logits, labels, average_log_prob=True)
    theirs, _, _, _, log_odds = ORPOTrainer.odds_ratio_loss(trainer(beta=0.3), *average.chunk(2))
    sums, lengths = losses.sequence_logp(logp, mask), mask.sum(1).float()
    loss, metrics = losses.orpo_loss(*sums.chunk(2), *lengths.chunk(2), beta=0.3)
    same(loss + average[:B].mean(), -theirs.mean(), logits)
    torch.testing.assert_close(metrics["log_odds_ratio"], log_odds.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("good", "shift"), [(3, 0.0), (3, 2.0), (3, -20.0), (B, 2.0), (0, 2.0)])
def test_kto_trainer(good: int, shift: float, seed: int) -> None:
    logp, mask, ref = batch(seed, B)
    mismatched, other, mismatched_ref = batch(seed + 100, B)
    mismatched_ref = mismatched_ref - shift
    label = torch.arange(B) < good
    stand_in = trainer(
        loss_type="kto", beta=0.2, calculate_KL=True, desirable_weight=1.0, undesirable_weight=1.3
    )
    # both passes go through the model: the second one, over mismatched pairs, is told by its input
    stand_in._compute_kl_logps = lambda _, data: KTOTrainer._compute_kl_logps(
        stand_in, model(mismatched, other), data
    )
    data = {
        **inputs(mask),
        **{f"KL_{name}": value for name, value in inputs(other).items()},
        "label": label,
        "ref_logps": ref,
        "ref_KL_logps": mismatched_ref,
    }
    theirs = KTOTrainer._compute_loss(stand_in, model(logp, mask), data, return_outputs=False)
    logged = {name: values[-1] for name, values in stand_in._metrics["train"].items()}
    kl = losses.kto_kl(losses.sequence_logp(mismatched, other), mismatched_ref)
    loss, metrics = losses.kto_loss(
        losses.sequence_logp(logp, mask), ref, label, beta=0.2, kl=kl, undesirable_weight=1.3
    )
    same(loss, theirs, logp)
    assert (kl > 0) == (shift == 2.0) or shift == 0.0
    assert float(metrics["kl"]) == pytest.approx(logged["kl"], rel=1e-5)
    for name, key in (("h_w", "rewards/chosen"), ("h_l", "rewards/rejected"), ("margin", "rewards/margins")):
        assert (name in metrics) == (key in logged)
        if name in metrics:
            assert 0.2 * float(metrics[name]) == pytest.approx(logged[key], rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("margin", [False, True])
@pytest.mark.parametrize("center", [None, 0.01])
def test_reward_trainer(center: float | None, margin: bool) -> None:
    g = torch.Generator().manual_seed(0)
    scores = torch.randn(2 * B, 1, generator=g).requires_grad_()
    wanted = torch.rand(B, generator=g) if margin else None
    stand_in = trainer(args=SimpleNamespace(center_rewards_coefficient=center))
    data = {**inputs(torch.ones(2 * B, T, dtype=torch.bool)), **({"margin": wanted} if margin else {})}
    theirs = RewardTrainer.compute_loss(stand_in, lambda **_: SimpleNamespace(logits=scores), data)
    loss, metrics = losses.bradley_terry_loss(
        *scores.squeeze(1).chunk(2), margin=wanted, center=center or 0.0
    )
    same(loss, theirs, scores)
    assert float(metrics["accuracy"]) == pytest.approx(stand_in._metrics["train"]["accuracy"][-1])


@pytest.mark.parametrize("kind", ["sigmoid", "robust", "hinge", "ipo"])
def test_a_real_trainer_and_model(kind: str, tmp_path: Path) -> None:
    """TRL's trainer from rows to loss, and ours from log-probabilities computed without TRL."""
    import tiny
    from datasets import Dataset

    rows = [
        {
            "prompt": "What is the capital of France?",
            "chosen": " Paris.",
            "rejected": " I do not know, sorry!",
        },
        {"prompt": "Name a colour.", "chosen": " red, green and blue", "rejected": " water"},
    ]
    args = DPOConfig(
        str(tmp_path),
        loss_type=[kind],
        beta=0.3,
        label_smoothing=0.2,
        per_device_train_batch_size=2,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to=[],
        disable_tqdm=True,
    )
    policy, start, tokenizer = tiny.model(0), tiny.model(1), tiny.tokenizer(chat=False)
    real = DPOTrainer(policy, start, args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    data = real.data_collator([real.train_dataset[i] for i in range(2)])
    with torch.no_grad():
        theirs = real.compute_loss(real.model, data)

        def score(lm: Any) -> Tensor:
            logits = lm(input_ids=data["input_ids"], attention_mask=data["attention_mask"]).logits
            return logits[:, :-1].log_softmax(-1).gather(-1, data["input_ids"][:, 1:, None]).squeeze(-1)

        mask = data["completion_mask"][:, 1:].bool()
        ref = losses.sequence_logp(score(real.ref_model), mask)
        loss, _ = ours(kind, score(real.model), mask, ref, beta=0.3, smoothing=0.2)
    assert not math.isclose(float(loss), {"hinge": 1.0}.get(kind, math.log(2)), rel_tol=1e-2)
    torch.testing.assert_close(loss, theirs, rtol=1e-4, atol=1e-5)
