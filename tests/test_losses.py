"""Each loss: values worked out by hand, which way its gradient pushes, and what must not change it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from torch import Tensor

from heedful import losses, returns

Args = dict[str, Tensor]
NAN = float("nan")


def t(*values: Any) -> Tensor:
    return torch.tensor(values)


def grown(*names: str, **args: Tensor) -> Args:
    """The arguments with gradients switched on for `names`."""
    return {k: v.clone().requires_grad_() if k in names else v for k, v in args.items()}


def near(value: Tensor | float, wanted: float) -> None:
    assert torch.as_tensor(value).item() == pytest.approx(wanted, rel=1e-5, abs=1e-6)


# ---- values by hand

# h_w = (0.5, 0), h_l = (-1, 1): margins 1.5 and -1
PAIRS = {
    "chosen": t(-1.0, -2.0),
    "rejected": t(-3.0, -1.0),
    "ref_chosen": t(-1.5, -2.0),
    "ref_rejected": t(-2.0, -2.0),
}
# three tokens that count; what stands in the fourth place must not matter
LOGP = t([-1.0, -2.0], [-3.0, NAN])
MASK = t([1, 1], [1, 0])


def test_sequence_logp_by_hand() -> None:
    assert losses.sequence_logp(LOGP, MASK).tolist() == [-3.0, -3.0]


def test_nll_by_hand() -> None:
    near(losses.nll_loss(LOGP, MASK)[0], 6 / 3)
    near(losses.nll_loss(LOGP, MASK, reduction="sequence")[0], (3 + 3) / 2)
    weight = t(2.0, 0.5)
    near(losses.nll_loss(LOGP, MASK, weight=weight)[0], (2 * 3 + 0.5 * 3) / 3)
    loss, metrics = losses.nll_loss(LOGP, MASK, weight=weight, reduction="sequence")
    near(loss, (2 * 3 + 0.5 * 3) / 2)
    near(metrics["nll"], 2.0)


def test_rwr_by_hand() -> None:
    score = t(0.0, math.log(4))
    near(losses.rwr_loss(LOGP, MASK, score)[0], (1 * 3 + 4 * 3) / 2)
    loss, metrics = losses.rwr_loss(LOGP, MASK, score, clamp=3.0)
    near(loss, (1 * 3 + 3 * 3) / 2)
    near(metrics["weight"], 2.0)
    near(losses.rwr_loss(LOGP, MASK, score, tau=0.5, clamp=None)[0], (1 * 3 + 16 * 3) / 2)
    # the released code's min(exp(score / tau), 10)
    assert losses.rwr_weight(t(math.log(2), 100.0, -200.0)).tolist() == pytest.approx([2.0, 10.0, 0.0])
    assert not losses.rwr_weight(t(0.0).requires_grad_()).requires_grad


def test_dpo_by_hand() -> None:
    # beta 0.5: logits 0.75 and -0.5; log(1 + e^-0.75) = 0.386871, log(1 + e^0.5) = 0.974077
    loss, metrics = losses.dpo_loss(**PAIRS, beta=0.5)
    near(loss, (0.3868709 + 0.9740770) / 2)
    for name, wanted in {"h_w": 0.25, "h_l": 0.0, "margin": 0.25, "accuracy": 0.5}.items():
        near(metrics[name], wanted)
    # the loss of a flipped label is log(1 + e^0.75) = 1.136871 and log(1 + e^-0.5) = 0.474077
    smooth = losses.dpo_loss(**PAIRS, beta=0.5, label_smoothing=0.1)[0]
    near(smooth, (0.9 * 0.3868709 + 0.1 * 1.1368709 + 0.9 * 0.9740770 + 0.1 * 0.4740770) / 2)
    robust = losses.dpo_loss(**PAIRS, beta=0.5, label_smoothing=0.1, robust=True)[0]
    near(robust, (0.9 * 0.3868709 - 0.1 * 1.1368709 + 0.9 * 0.9740770 - 0.1 * 0.4740770) / 0.8 / 2)


def test_dpo_starts_at_log_2_and_even_odds() -> None:
    start = {"chosen": t(-5.0), "rejected": t(-7.0), "ref_chosen": t(-5.0), "ref_rejected": t(-7.0)}
    loss, metrics = losses.dpo_loss(**start)
    near(loss, math.log(2))
    near(metrics["accuracy"], 0.5)


def test_conservative_dpo_has_its_minimum_at_the_log_odds_of_the_label() -> None:
    # label right with 0.9: beta * margin = log(0.9 / 0.1)
    chosen = t(math.log(9) / 0.5).requires_grad_()
    zero = t(0.0)
    losses.dpo_loss(chosen, zero, zero, zero, beta=0.5, label_smoothing=0.1)[0].backward()
    assert chosen.grad is not None
    near(chosen.grad, 0.0)


def test_robust_dpo_is_unbiased_under_flips() -> None:
    # (1 - e) robust(pair) + e robust(flipped pair) is the loss without noise
    flipped = {
        "chosen": PAIRS["rejected"],
        "rejected": PAIRS["chosen"],
        "ref_chosen": PAIRS["ref_rejected"],
        "ref_rejected": PAIRS["ref_chosen"],
    }
    e = 0.2
    robust = partial(losses.dpo_loss, beta=0.5, label_smoothing=e, robust=True)
    near(
        (1 - e) * robust(**PAIRS)[0] + e * robust(**flipped)[0], float(losses.dpo_loss(**PAIRS, beta=0.5)[0])
    )


def test_ipo_by_hand() -> None:
    # beta 0.25: the target margin is 2
    near(losses.ipo_loss(**PAIRS, beta=0.25)[0], (0.5**2 + 3**2) / 2)
    lengths = {"chosen_length": t(2.0, 1.0), "rejected_length": t(1.0, 2.0)}
    loss, metrics = losses.ipo_loss(**PAIRS, **lengths, beta=0.25, per_token=True)
    # per token h_w = (0.25, 0), h_l = (-1, 0.5): margins 1.25 and -0.5
    near(loss, (0.75**2 + 2.5**2) / 2)
    near(metrics["margin"], 0.25)


def test_ipo_has_its_minimum_at_a_margin_of_one_over_two_beta() -> None:
    chosen = t(5.0).requires_grad_()
    loss, _ = losses.ipo_loss(chosen, t(0.0), t(0.0), t(0.0), beta=0.1)
    loss.backward()
    assert chosen.grad is not None
    near(loss, 0.0)
    near(chosen.grad, 0.0)


def test_hinge_by_hand() -> None:
    near(losses.hinge_loss(**PAIRS, beta=0.5)[0], (0.25 + 1.5) / 2)
    near(losses.hinge_loss(**PAIRS, beta=1.0)[0], (0 + 2) / 2)


def test_simpo_by_hand() -> None:
    # per token -0.5 and -2: 2 * 1.5 - 0.5 = 2.5, log(1 + e^-2.5) = 0.0788897
    loss, metrics = losses.simpo_loss(t(-2.0), t(-6.0), t(4.0), t(3.0), beta=2.0, gamma=0.5)
    near(loss, 0.0788897)
    near(metrics["h_w"], -0.5)
    near(metrics["margin"], 1.5)


def test_orpo_by_hand() -> None:
    # p = 1/2 and 1/4 per token: odds 1 and 1/3, ratio 3; -log sigmoid(log 3) = log(4/3)
    loss, metrics = losses.orpo_loss(t(2 * math.log(0.5)), t(math.log(0.25)), t(2.0), t(1.0), beta=0.5)
    near(loss, math.log(2) + 0.5 * math.log(4 / 3))
    near(metrics["log_odds_ratio"], math.log(3))
    near(metrics["nll"], math.log(2))


def test_kto_by_hand() -> None:
    # h = (1, -1); 1 - sigmoid(0.25) = 0.4378235, 1 - sigmoid(0.75) = 0.3208213
    args = {"logp": t(-1.0, -3.0), "ref": t(-2.0, -2.0), "label": t(True, False)}
    loss, metrics = losses.kto_loss(**args, beta=0.5, kl=0.5, desirable_weight=2.0)
    near(loss, (2 * 0.4378235 + 0.3208213) / 2)
    for name, wanted in {"h_w": 1.0, "h_l": -1.0, "margin": 2.0, "accuracy": 1.0, "kl": 0.5}.items():
        near(metrics[name], wanted)
    # a negative estimate of a divergence counts as 0
    assert losses.kto_loss(**args, kl=-3.0)[0] == losses.kto_loss(**args)[0]


def test_kto_kl_by_hand() -> None:
    near(losses.kto_kl(t(-1.0, -2.0), t(-2.0, -4.0)), 1.5)
    near(losses.kto_kl(t(-2.0, -4.0), t(-1.0, -2.0)), 0.0)
    assert not losses.kto_kl(t(-1.0).requires_grad_(), t(-2.0)).requires_grad


def test_kto_leaves_out_the_metric_of_an_absent_label() -> None:
    _, metrics = losses.kto_loss(t(-1.0), t(-2.0), t(True))
    assert set(metrics) == {"h_w", "accuracy", "kl"}


def test_bradley_terry_by_hand() -> None:
    # gaps 0.5 and -1 after the margin: log(1 + e^-0.5) = 0.4740770, log(1 + e) = 1.3132617
    r_w, r_l, margin = t(2.0, 0.0), t(1.0, 1.0), t(0.5, 0.0)
    loss, metrics = losses.bradley_terry_loss(r_w, r_l, margin=margin)
    near(loss, (0.4740770 + 1.3132617) / 2)
    near(losses.bradley_terry_loss(r_w, r_l, margin=margin, center=0.1)[0], 0.8936693 + 0.1 * (9 + 1) / 2)
    wanted = {"chosen_score": 1.0, "rejected_score": 1.0, "margin": 0.0, "accuracy": 0.5}
    assert {k: float(v) for k, v in metrics.items()} == pytest.approx(wanted)


def test_bradley_terry_of_an_ensemble_is_the_mean_of_its_members_losses() -> None:
    # gaps 3 and -3: the loss of the mean score would be log 2
    loss, _ = losses.bradley_terry_loss(t([3.0], [0.0]), t([0.0], [3.0]))
    near(loss, (math.log1p(math.exp(-3)) + math.log1p(math.exp(3))) / 2)


def test_reinforce_by_hand() -> None:
    advantage = t(2.0, -1.0)
    near(losses.reinforce_loss(LOGP, MASK, advantage)[0], (2 * 3 - 1 * 3) / 2)
    near(losses.reinforce_loss(LOGP, MASK, advantage, reduction="token")[0], (2 * 3 - 1 * 3) / 3)
    loss, metrics = losses.reinforce_loss(LOGP, MASK, t([1.0, 2.0], [3.0, NAN]))
    near(loss, (1 * 1 + 2 * 2 + 3 * 3) / 2)
    near(metrics["advantage"], 2.0)


def test_ppo_by_hand() -> None:
    # ratios 3/2, 1/2, 3/2, 1/2 and advantages 1, 1, -1, -1: min(.) = 1.2, 0.5, -1.5, -0.8
    ratio = t([1.5, 0.5, 1.5, 0.5])
    args = grown("logp", logp=ratio.log(), old=torch.zeros(1, 4), mask=torch.ones(1, 4))
    loss, metrics = losses.ppo_loss(**args, advantage=t([1.0, 1.0, -1.0, -1.0]))
    near(loss, 0.6)
    near(metrics["ratio"], 1.0)
    near(metrics["clip_fraction"], 0.5)
    near(metrics["approx_kl"], -math.log(0.75) / 2)
    near(losses.ppo_loss(**args, advantage=t([1.0, 1.0, -1.0, -1.0]), reduction="token")[0], 0.15)
    loss.backward()
    # only the tokens that are not clipped are pushed, by -ratio * advantage
    assert args["logp"].grad is not None
    assert args["logp"].grad.tolist()[0] == pytest.approx([0.0, -0.5, 1.5, 0.0])


def test_value_by_hand() -> None:
    one = torch.ones(1, 1)
    near(losses.value_loss(1.0 * one, 0.0 * one, one, 2.0 * one)[0], 1.8**2 / 2)
    near(losses.value_loss(0.1 * one, 0.0 * one, one, 2.0 * one)[0], 1.9**2 / 2)
    near(losses.value_loss(2.0 * one, 2.5 * one, one, 0.0 * one)[0], 2.3**2 / 2)
    loss, metrics = losses.value_loss(1.0 * one, 0.0 * one, one, 2.0 * one, clip=None)
    near(loss, 0.5)
    near(metrics["clip_fraction"], 0.0)


def test_gae_by_hand() -> None:
    reward, value, mask = t([0.0, 0.0, 1.0]), t([0.5, 0.6, 0.7]), torch.ones(1, 3)
    advantage, target = returns.gae(reward, value, mask, gamma=0.9, lam=0.5)
    # errors 0.04, 0.03, 0.3; each takes in 0.45 of the next
    assert advantage[0].tolist() == pytest.approx([0.11425, 0.165, 0.3])
    assert target[0].tolist() == pytest.approx([0.61425, 0.765, 1.0])
    cut, _ = returns.gae(reward, value, mask, gamma=0.9, lam=0.5, final=t(2.0))
    assert cut[0, -1].item() == pytest.approx(0.3 + 0.9 * 2)


def test_gae_skips_masked_steps_wherever_they_stand() -> None:
    real = {"reward": t([0.0, 0.0, 1.0]), "value": t([0.5, 0.6, 0.7]), "mask": torch.ones(1, 3)}
    wanted = returns.gae(**real, gamma=0.9)
    places = [1, 3, 5]
    spread = {k: torch.full((1, 7), NAN if k != "mask" else 0.0) for k in real}
    for name, values in real.items():
        spread[name][:, places] = values
    for part, whole in zip(returns.gae(**spread, gamma=0.9), wanted, strict=True):
        assert torch.equal(part[:, places], whole)
        assert part.count_nonzero() == 3


def test_whiten_by_hand() -> None:
    white = returns.whiten(t([1.0, 3.0, NAN]), t([True, True, False]))
    assert white[0].tolist() == pytest.approx([-1.0, 1.0, 0.0], abs=1e-6)
    assert returns.whiten(t([7.0, 7.0]), t([1, 1])).tolist() == [[0.0, 0.0]]


def test_apa_by_hand() -> None:
    args = {"logp": t([-1.0, -2.0]), "ref": t([-1.5, -1.0]), "mask": t([1, 1]), "advantage": t(2.0)}
    loss, metrics = losses.apa_loss(**args, lam=2.0)
    near(loss, ((0.5 - 1) ** 2 + (-1 - 1) ** 2) / 2)
    near(losses.apa_loss(**args, lam=2.0, reduction="sequence")[0], 0.25 + 4)
    near(metrics["log_ratio"], -0.25)
    near(metrics["residual"], (0.5 + 2) / 2)
    # the target is log ref + A / lam
    near(losses.apa_loss(args["ref"] + 0.5, args["ref"], args["mask"], t(2.0), lam=4.0)[0], 0.0)


def test_td_by_hand() -> None:
    q, target = t([1.0, 2.0], [3.0, 4.0]), t(0.0, 2.0)
    loss, metrics = losses.td_loss(q, target)
    near(loss, (1 + 0 + 9 + 4) / 4)
    near(metrics["td_error"], (1 + 0 + 3 + 2) / 4)
    near(losses.td_loss(q, target, mask=t(1, 0))[0], (1 + 9) / 2)
    near(losses.td_loss(q, t([0.0, NAN], [1.0, NAN]), mask=t(1, 0))[0], (1 + 4) / 2)
    near(losses.td_loss(q[0], target)[0], 1 / 2)


def test_hl_gauss_target_by_hand() -> None:
    # bins [0, 1], [1, 2], [2, 3] and one sigma = one bin round 1.5: Phi(-.5) .. Phi(.5) in the middle
    share = losses.hl_gauss_target(t(1.5), low=0.0, high=3.0, bins=3, sigma=1.0)[0]
    outer, middle = 0.3085375 - 0.0668072, 0.3829249
    assert share.tolist() == pytest.approx(
        [outer / 0.8663856, middle / 0.8663856, outer / 0.8663856], rel=1e-5
    )
    # beyond the support all weight leans on the nearest end
    past = losses.hl_gauss_target(t(99.0, -99.0), low=0.0, high=3.0, bins=3)
    assert past.argmax(-1).tolist() == [2, 0] and past.sum(-1).tolist() == pytest.approx([1.0, 1.0])
    near(losses.hl_gauss_value(t([0.0, 0.0, 0.0]), low=0.0, high=3.0)[0], 1.5)


def test_hl_gauss_by_hand() -> None:
    # even logits: log 3 whatever the target; the transition that does not count may hold anything
    loss, metrics = losses.hl_gauss_loss(torch.zeros(2, 2, 3), t(1.0, NAN), low=0.0, high=3.0, mask=t(1, 0))
    near(loss, math.log(3))
    for name, wanted in {"q": 1.5, "target": 1.0, "td_error": 0.5, "outside": 0.0}.items():
        near(metrics[name], wanted)


@pytest.mark.parametrize("target", [-7.3, -4.0, -1.1])
def test_hl_gauss_has_its_minimum_where_the_histogram_means_the_target(target: float) -> None:
    share = losses.hl_gauss_target(t(target), low=-10.0, high=0.0, bins=101)
    best = share.clamp(min=1e-12).log().requires_grad_()
    loss, metrics = losses.hl_gauss_loss(best, t(target), low=-10.0, high=0.0)
    loss.backward()
    assert best.grad is not None and best.grad.abs().max() < 1e-6
    near(metrics["q"], target)


def test_cql_by_hand() -> None:
    # log((e^0 + e^1 + e^2) / 3) - 2
    loss, metrics = losses.cql_loss(t([2.0]), t([[0.0]]), t([[1.0]]))
    near(loss, math.log((1 + math.e + math.e**2) / 3) - 2)
    # lifted from 1 to 1.5, standing twice: log((1 + 2 e^1.5 + e^2) / 4) - 2
    loss, metrics = losses.cql_loss(t([2.0]), t([[0.0]]), t([[1.0]]), copies=2, floor=t(1.5))
    near(loss, math.log((1 + 2 * math.e**1.5 + math.e**2) / 4) - 2)
    for name, wanted in {"q_random": 0.0, "q_policy": 1.0, "floored": 1.0}.items():
        near(metrics[name], wanted)


@pytest.mark.parametrize("floor", [None, "returns"])
def test_copies_of_an_action_count_exactly_as_if_they_stood_there(floor: str | None) -> None:
    """The shortcut of Cal-QL with a deterministic policy: n + 3 values instead of 3 n + 1, and the same gradient."""
    n = 10
    made = with_returns(torch.Generator().manual_seed(5), 6)
    reached = made.pop("floor")
    returns_ = {"floor": reached} if floor else {}
    short = grown("q", "random", "policy", **made)
    long = grown("q", "random", "policy", **made)
    loss, _ = losses.cql_loss(**short, **returns_, copies=n)
    whole, _ = losses.cql_loss(long["q"], long["random"], long["policy"].repeat(1, 1, n), **returns_)
    torch.testing.assert_close(loss, whole)
    loss.backward()
    whole.backward()
    for name in short:
        torch.testing.assert_close(short[name].grad, long[name].grad)


def test_expectile_by_hand() -> None:
    # u = 1 and -2
    loss, metrics = losses.expectile_loss(t(0.0, 3.0), t(1.0, 1.0), tau=0.9)
    near(loss, (0.9 * 1 + 0.1 * 4) / 2)
    near(metrics["advantage"], -0.5)


def test_expectile_at_a_half_is_the_mean_and_near_one_the_maximum() -> None:
    q = t(0.0, 1.0, 5.0)
    for tau, wanted in ((0.5, 2.0), (0.9999, 5.0)):
        value = torch.zeros(1, requires_grad=True)
        optimizer = torch.optim.LBFGS([value], max_iter=50)

        def closure(value: Tensor = value, tau: float = tau, optimizer: Any = optimizer) -> Tensor:
            optimizer.zero_grad()
            loss, _ = losses.expectile_loss(value.expand(3), q, tau=tau)
            (loss / (1 - tau)).backward()
            return loss / (1 - tau)

        for _ in range(20):
            optimizer.step(closure)
        assert value.item() == pytest.approx(wanted, abs=0.01)


def test_denoising_by_hand() -> None:
    loss, metrics = losses.denoising_loss(
        t([1.0, 2.0], [0.0, 0.0]), t([0.0, 0.0], [3.0, 0.0]), weight=t(2.0, 1.0)
    )
    near(loss, (2 * 5 + 9) / 2)
    near(metrics["error"], 7.0)


def test_act_by_hand() -> None:
    """Padding takes no part in the sum; the denominator is that of a whole chunk."""
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    predicted, target = t([1.0, 2.0, 9.0], [0.0, 0.0, 0.0]), t([0.0, 0.0, 0.0], [3.0, 0.0, -3.0])
    loss, metrics = losses.act_loss(predicted, target, mask, t(0.1, 0.3), numbers=3, kl_weight=10.0)
    near(loss, ((3 / 3 + 1.0) + (6 / 3 + 3.0)) / 2)
    near(metrics["l1"], 9 / 5)
    near(metrics["kl"], 0.2)
    wanted = torch.distributions.kl_divergence(
        torch.distributions.Normal(t([0.5, -1.0]), t([0.3, 2.0])), torch.distributions.Normal(0.0, 1.0)
    ).sum(-1)
    torch.testing.assert_close(losses.gaussian_kl(t([0.5, -1.0]), t([0.3, 2.0]).log() * 2), wanted)
    with pytest.raises(ValueError, match="numbers must be"):
        losses.act_loss(predicted, target, mask, t(0.1, 0.3), numbers=0)


def test_choice_by_hand() -> None:
    logits = t([0.0, math.log(3.0)], [math.log(4.0), 0.0])
    loss, metrics = losses.choice_loss(logits, torch.tensor([0, 0]), weight=t(1.0, 3.0))
    near(loss, (math.log(4.0) + 3 * math.log(1.25)) / 2)
    near(metrics["accuracy"], 0.5)


# ---- every loss as a case


@dataclass
class Case:
    """A loss with a maker of random arguments; learns: those that get a gradient; dim: the batch's in arguments of
    several dimensions, dims: in those where it is another."""

    loss: Callable[..., tuple[Tensor, dict[str, Tensor]]]
    make: Callable[[torch.Generator, int], Args]
    learns: tuple[str, ...]
    dim: int = 0
    dims: dict[str, int] = field(default_factory=dict)

    def along(self, name: str, value: Tensor) -> int:
        """The dimension of the batch in the argument `name`."""
        return self.dims.get(name, self.dim if value.ndim > 1 else 0)

    def some(self, name: str, value: Tensor, index: Tensor) -> Tensor:
        return value.index_select(self.along(name, value), index)


def rand(g: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(shape, generator=g)


def pairs(g: torch.Generator, b: int) -> Args:
    return {name: -20 * rand(g, b) for name in PAIRS}


def pairs_and_lengths(g: torch.Generator, b: int) -> Args:
    return {**pairs(g, b), **lengths(g, b)}


def lengths(g: torch.Generator, b: int) -> Args:
    return {f"{side}_length": (9 * rand(g, b)).ceil() for side in ("chosen", "rejected")}


def without_reference(g: torch.Generator, b: int) -> Args:
    return {"chosen": -20 * rand(g, b), "rejected": -20 * rand(g, b), **lengths(g, b)}


def tokens(*names: str, **more: Callable[[torch.Generator, int], Tensor]) -> Callable[..., Args]:
    def make(g: torch.Generator, b: int) -> Args:
        mask = rand(g, b, 5) < 0.7
        mask[:, 2] = True
        args = {name: -3 * rand(g, b, 5) for name in names}
        return {**args, "mask": mask, **{name: draw(g, b) for name, draw in more.items()}}

    return make


def best_and_losers(g: torch.Generator, b: int) -> Args:
    """`there`, not `mask`: what learns is not all by token here."""
    made = tokens("losers")(g, b)
    return {"best": -3 * rand(g, b), "losers": made["losers"], "there": made["mask"]}


def best_of_n(best: Tensor, losers: Tensor, there: Tensor) -> losses.Result:
    return losses.best_of_n_loss(best, losers, there, negative="mean", floor=0.0)


def normal(g: torch.Generator, b: int) -> Tensor:
    return torch.randn((b,), generator=g)


def normal_tokens(g: torch.Generator, b: int) -> Tensor:
    return torch.randn((b, 5), generator=g)


def single(g: torch.Generator, b: int) -> Args:
    return {"logp": -20 * rand(g, b), "ref": -20 * rand(g, b), "label": rand(g, b) < 0.5}


def scores(g: torch.Generator, b: int) -> Args:
    return {name: torch.randn((3, b), generator=g) for name in ("chosen", "rejected")} | {
        "margin": rand(g, b)
    }


def values(g: torch.Generator, b: int) -> Args:
    mask = rand(g, b) < 0.7
    mask[0] = True
    return {"q": torch.randn((3, b), generator=g), "target": normal(g, b), "mask": mask}


def histograms(g: torch.Generator, b: int) -> Args:
    made = values(g, b)
    return {"logits": torch.randn((3, b, 7), generator=g), "target": made["target"], "mask": made["mask"]}


def action_values(g: torch.Generator, b: int) -> Args:
    return {
        "q": torch.randn((3, b), generator=g),
        "random": torch.randn((3, b, 4), generator=g),
        "policy": torch.randn((3, b, 2), generator=g),
    }


def with_returns(g: torch.Generator, b: int) -> Args:
    return {**action_values(g, b), "floor": normal(g, b)}


def two_columns(g: torch.Generator, b: int) -> Args:
    return {"value": normal(g, b), "q": normal(g, b)}


def noise(g: torch.Generator, b: int) -> Args:
    made = {name: torch.randn((b, 5), generator=g) for name in ("predicted", "target")}
    return {**made, "weight": rand(g, b)}


def latent_chunk(g: torch.Generator, b: int) -> Args:
    """`there`, not `mask`: the divergence is not by token."""
    made = tokens("predicted", "target")(g, b)
    return {**{k: made[k] for k in ("predicted", "target")}, "there": made["mask"], "kl": rand(g, b)}


def act(predicted: Tensor, target: Tensor, there: Tensor, kl: Tensor) -> losses.Result:
    return losses.act_loss(predicted, target, there, kl, numbers=5, kl_weight=2.0)


def choices(g: torch.Generator, b: int) -> Args:
    return {"logits": torch.randn((b, 7), generator=g), "label": torch.randint(7, (b,), generator=g)}


CHOSEN = ("chosen", "rejected")
ACTIONS = {"random": -2, "policy": -2}
CASES = {
    "nll": Case(losses.nll_loss, tokens("logp"), ("logp",)),
    "nll weighted": Case(
        partial(losses.nll_loss, reduction="sequence"), tokens("logp", weight=normal), ("logp",)
    ),
    "rwr": Case(losses.rwr_loss, tokens("logp", score=normal), ("logp",)),
    "best_of_n": Case(best_of_n, best_and_losers, ("best", "losers")),
    "dpo": Case(losses.dpo_loss, pairs, CHOSEN),
    "dpo conservative": Case(partial(losses.dpo_loss, label_smoothing=0.1), pairs, CHOSEN),
    "dpo robust": Case(partial(losses.dpo_loss, label_smoothing=0.1, robust=True), pairs, CHOSEN),
    "ipo": Case(losses.ipo_loss, pairs, CHOSEN),
    "ipo per token": Case(partial(losses.ipo_loss, per_token=True), pairs_and_lengths, CHOSEN),
    "hinge": Case(losses.hinge_loss, pairs, CHOSEN),
    "simpo": Case(losses.simpo_loss, without_reference, CHOSEN),
    "orpo": Case(losses.orpo_loss, without_reference, CHOSEN),
    "kto": Case(partial(losses.kto_loss, kl=0.3, undesirable_weight=1.5), single, ("logp",)),
    "bradley_terry": Case(partial(losses.bradley_terry_loss, center=0.1), scores, CHOSEN, dim=-1),
    "reinforce": Case(losses.reinforce_loss, tokens("logp", advantage=normal), ("logp",)),
    "ppo": Case(losses.ppo_loss, tokens("logp", "old", advantage=normal), ("logp",)),
    "ppo by token": Case(
        partial(losses.ppo_loss, reduction="token"), tokens("logp", "old", advantage=normal_tokens), ("logp",)
    ),
    "value": Case(losses.value_loss, tokens("value", "old", "target"), ("value",)),
    "apa": Case(losses.apa_loss, tokens("logp", "ref", advantage=normal), ("logp",)),
    "td": Case(losses.td_loss, values, ("q",), dim=-1),
    "hl_gauss": Case(
        partial(losses.hl_gauss_loss, low=-2.0, high=1.0), histograms, ("logits",), dims={"logits": -2}
    ),
    "cql": Case(losses.cql_loss, action_values, ("q", "random", "policy"), dim=-1, dims=ACTIONS),
    "cql calibrated": Case(
        partial(losses.cql_loss, copies=4), with_returns, ("q", "random", "policy"), dim=-1, dims=ACTIONS
    ),
    "expectile": Case(losses.expectile_loss, two_columns, ("value",)),
    "denoising": Case(losses.denoising_loss, noise, ("predicted",)),
    "denoising masked": Case(losses.denoising_loss, tokens("predicted", "target"), ("predicted",)),
    "act": Case(act, latent_chunk, ("predicted", "kl")),
    "choice": Case(losses.choice_loss, choices, ("logits",)),
}
every_case = pytest.mark.parametrize("name", CASES)
by_token = pytest.mark.parametrize(
    "name", [n for n, c in CASES.items() if "mask" in c.make(torch.Generator(), 2)]
)
quick = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**31)
sizes = st.integers(1, 6)


def drawn(case: Case, seed: int, b: int) -> Args:
    return case.make(torch.Generator().manual_seed(seed), b)


def gradients(case: Case, args: Args) -> tuple[Tensor, Args]:
    """The loss and the gradient of each argument that learns."""
    args = grown(*case.learns, **args)
    loss, _ = case.loss(**args)
    loss.backward()
    return loss.detach(), {name: args[name].grad for name in case.learns}  # type: ignore[misc]


def test_every_loss_is_a_case() -> None:
    public = {name.removesuffix("_loss") for name in vars(losses) if name.endswith("_loss")}
    assert public == {name.split(" ")[0] for name in CASES}


@every_case
def test_float32_inside_and_plain_metrics(name: str) -> None:
    case = CASES[name]
    args = drawn(case, 0, 4)
    half = {k: v.bfloat16() if v.is_floating_point() and "length" not in k else v for k, v in args.items()}
    loss, metrics = case.loss(**grown(*case.learns, **half))
    same, _ = case.loss(**{k: v.float() if v.dtype == torch.bfloat16 else v for k, v in half.items()})
    assert loss.dtype == torch.float32 and loss.ndim == 0 and loss.requires_grad
    assert torch.equal(loss, same)
    for value in metrics.values():
        assert value.dtype == torch.float32 and value.ndim == 0 and not value.requires_grad
        assert value.isfinite()


@every_case
def test_gradient_reaches_what_learns_and_nothing_else(name: str) -> None:
    case = CASES[name]
    args = drawn(case, 1, 4)
    floats = [k for k, v in args.items() if v.is_floating_point()]
    args = grown(*floats, **args)
    case.loss(**args)[0].backward()
    reached = {k for k in floats if args[k].grad is not None and args[k].grad.abs().sum() > 0}  # type: ignore[union-attr]
    assert reached == set(case.learns)


@every_case
@quick
@given(seed=seeds, b=sizes)
def test_order_in_the_batch_does_not_matter(name: str, seed: int, b: int) -> None:
    case = CASES[name]
    args = drawn(case, seed, b)
    order = torch.randperm(b, generator=torch.Generator().manual_seed(seed))
    mixed = {k: case.some(k, v, order) for k, v in args.items()}
    loss, grads = gradients(case, args)
    other, moved = gradients(case, mixed)
    torch.testing.assert_close(other, loss, rtol=1e-4, atol=1e-5)
    for k in grads:
        torch.testing.assert_close(moved[k], case.some(k, grads[k], order), rtol=1e-4, atol=1e-5)


@by_token
@quick
@given(seed=seeds, b=sizes, rubbish=st.sampled_from([NAN, math.inf, -math.inf, 1e30, 3.0]))
def test_padding_never_matters(name: str, seed: int, b: int, rubbish: float) -> None:
    case = CASES[name]
    args = drawn(case, seed, b)
    loss, grads = gradients(case, args)
    spoiled = {
        k: v.masked_fill(~args["mask"], rubbish)
        if v.shape[-1:] == args["mask"].shape[-1:] and k != "mask"
        else v
        for k, v in args.items()
        if k not in ("score", "weight", "advantage") or v.ndim == 2
    } | {k: v for k, v in args.items() if k in ("score", "weight", "advantage") and v.ndim == 1}
    longer = spoiled
    if args["mask"].ndim == 2:
        longer = {
            k: torch.cat([torch.full((b, 2), False if k == "mask" else rubbish), v], 1) if v.ndim == 2 else v
            for k, v in spoiled.items()
        }
    for changed, left in ((spoiled, 0), (longer, longer["mask"].shape[-1] - args["mask"].shape[-1])):
        other, moved = gradients(case, changed)
        torch.testing.assert_close(other, loss, rtol=1e-5, atol=1e-6)
        for k in grads:
            torch.testing.assert_close(moved[k][..., left:], grads[k], rtol=1e-5, atol=1e-6)
            assert moved[k][..., :left].count_nonzero() == 0
        assert all(value.isfinite() for value in case.loss(**changed)[1].values())


@every_case
@quick
@given(seed=seeds, b=st.integers(2, 6), cut=st.integers(1, 5))
def test_parts_of_a_batch_add_up(name: str, seed: int, b: int, cut: int) -> None:
    """What `fit` builds on: a batch's loss is the mean of its parts', by tokens or by rows."""
    case = CASES[name]
    args = drawn(case, seed, b)
    cut = min(cut, b - 1)
    whole, total = case.loss(**args)[0], 0.0
    weights = []
    for part in (torch.arange(cut), torch.arange(cut, b)):
        some = {k: case.some(k, v, part) for k, v in args.items()}
        weights.append(float(some["mask"].sum()) if name in BY_TOKENS else float(len(part)))
        total += weights[-1] * float(case.loss(**some)[0])
    assert total / sum(weights) == pytest.approx(float(whole), rel=1e-4, abs=1e-5)


BY_TOKENS = {"nll", "ppo by token", "value", "apa", "td", "hl_gauss"}


@every_case
@quick
@given(seed=seeds, size=st.sampled_from([0.0, 1e2, 1e4, 1e6]), sign=st.sampled_from([1, -1]))
def test_extreme_values_stay_finite(name: str, seed: int, size: float, sign: int) -> None:
    case = CASES[name]
    g = torch.Generator().manual_seed(seed)
    args = {
        # log-probabilities do not exceed 0 where the loss needs them as probabilities
        k: (
            -size * rand(g, *v.shape).round()
            if name in ("orpo", "simpo")
            else sign * size * rand(g, *v.shape).sub(0.5).sign()
        )
        if v.is_floating_point() and "length" not in k
        else v
        for k, v in case.make(g, 4).items()
    }
    loss, grads = gradients(case, args)
    assert loss.isfinite()
    assert all(grad.isfinite().all() for grad in grads.values())
    assert all(value.isfinite() for value in case.loss(**args)[1].values())


# ---- what a loss must not see


@pytest.mark.parametrize("name", ["dpo", "dpo conservative", "dpo robust", "ipo", "ipo per token", "hinge"])
@quick
@given(seed=seeds, b=sizes, shift=st.floats(-20, 20))
def test_only_log_ratios_matter_with_a_reference(name: str, seed: int, b: int, shift: float) -> None:
    case = CASES[name]
    args = drawn(case, seed, b)
    loss, metrics = case.loss(**args)
    moved = args | {k: args[k] + shift for k in ("chosen", "ref_chosen")}
    moved |= {k: args[k] - 2 * shift for k in ("rejected", "ref_rejected")}
    other, same = case.loss(**moved)
    torch.testing.assert_close(other, loss, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(same["h_l"], metrics["h_l"], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["dpo", "dpo conservative", "dpo robust", "ipo", "hinge"])
@quick
@given(seed=seeds, b=sizes, shift=st.floats(-20, 20))
def test_only_the_margin_matters_to_a_pair(name: str, seed: int, b: int, shift: float) -> None:
    case = CASES[name]
    args = drawn(case, seed, b)
    moved = args | {k: args[k] + shift for k in CHOSEN}
    torch.testing.assert_close(case.loss(**moved)[0], case.loss(**args)[0], rtol=1e-3, atol=1e-3)


@quick
@given(seed=seeds, b=sizes, shift=st.floats(-5, 5))
def test_shifts_that_other_losses_do_not_see(seed: int, b: int, shift: float) -> None:
    kto = drawn(CASES["kto"], seed, b)
    moved = {**kto, "logp": kto["logp"] + shift, "ref": kto["ref"] + shift}
    torch.testing.assert_close(losses.kto_loss(**moved)[0], losses.kto_loss(**kto)[0], rtol=1e-3, atol=1e-4)
    # a shift of every token's log-probability
    simpo = drawn(CASES["simpo"], seed, b)
    moved = simpo | {side: simpo[side] + shift * simpo[f"{side}_length"] for side in CHOSEN}
    torch.testing.assert_close(
        losses.simpo_loss(**moved)[0], losses.simpo_loss(**simpo)[0], rtol=1e-3, atol=1e-3
    )
    bt = drawn(CASES["bradley_terry"], seed, b)
    moved = bt | {side: bt[side] + shift for side in CHOSEN}
    torch.testing.assert_close(
        losses.bradley_terry_loss(**moved)[0], losses.bradley_terry_loss(**bt)[0], rtol=1e-4, atol=1e-5
    )
    for name, start in (("ppo", "old"), ("apa", "ref")):
        args = drawn(CASES[name], seed, b)
        moved = args | {k: args[k] + shift for k in ("logp", start)}
        torch.testing.assert_close(
            CASES[name].loss(**moved)[0], CASES[name].loss(**args)[0], rtol=1e-3, atol=1e-4
        )


def test_the_two_forms_of_ipo_are_not_the_same_loss() -> None:
    args = drawn(CASES["ipo per token"], 0, 4)
    per_token = losses.ipo_loss(**args, per_token=True)[0]
    summed = losses.ipo_loss(**{k: v for k, v in args.items() if "length" not in k})[0]
    assert abs(float(per_token - summed)) > 0.1


@quick
@given(seed=seeds, b=sizes)
def test_ppo_on_the_first_step_is_reinforce(seed: int, b: int) -> None:
    args = drawn(CASES["reinforce"], seed, b)
    _, reinforce = gradients(CASES["reinforce"], args)
    _, ppo = gradients(CASES["ppo"], args | {"old": args["logp"]})
    torch.testing.assert_close(ppo, reinforce)


@quick
@given(seed=seeds, b=sizes, gamma=st.sampled_from([1.0, 0.9]))
def test_gae_with_lam_1_gives_discounted_returns_whatever_the_critic_says(
    seed: int, b: int, gamma: float
) -> None:
    g = torch.Generator().manual_seed(seed)
    reward, value = torch.randn((b, 6), generator=g), torch.randn((b, 6), generator=g)
    _, target = returns.gae(reward, value, torch.ones(b, 6), gamma=gamma, lam=1.0)
    for i in range(6):
        wanted = sum(gamma**k * reward[:, i + k] for k in range(6 - i))
        torch.testing.assert_close(target[:, i], wanted, rtol=1e-4, atol=1e-5)


# ---- which way a loss pushes


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c.learns == CHOSEN])
def test_raises_chosen_and_lowers_rejected(name: str) -> None:
    case = CASES[name]
    args = drawn(case, 3, 5)
    if "ref_chosen" in args:
        args |= {"ref_chosen": args["chosen"], "ref_rejected": args["rejected"]}
    if name == "bradley_terry":
        args = {"chosen": args["chosen"] * 0, "rejected": args["chosen"] * 0}
    _, grads = gradients(case, args)
    assert (grads["chosen"] < 0).all()
    assert (grads["rejected"] > 0).all()


def test_kto_raises_good_and_lowers_bad_completions() -> None:
    args = drawn(CASES["kto"], 0, 8) | {"label": t(*[True, False] * 4)}
    _, grads = gradients(CASES["kto"], args)
    assert (grads["logp"].sign() == torch.where(args["label"], -1.0, 1.0)).all()


@pytest.mark.parametrize("name", ["reinforce", "ppo", "ppo by token", "apa"])
def test_raises_what_has_an_advantage_and_lowers_the_rest(name: str) -> None:
    case = CASES[name]
    args = drawn(case, 0, 6)
    args |= {k: args["logp"] for k in ("old", "ref") if k in args}
    _, grads = gradients(case, args)
    gain = args["advantage"] if args["advantage"].ndim == 2 else args["advantage"][:, None].expand(-1, 5)
    assert (grads["logp"].sign() == torch.where(args["mask"], -gain.sign(), 0.0)).all()
    assert (gain > 0).any() and (gain < 0).any()


@pytest.mark.parametrize("name", ["nll", "rwr"])
def test_raises_what_is_imitated(name: str) -> None:
    args = drawn(CASES[name], 0, 6)
    _, grads = gradients(CASES[name], args)
    assert (grads["logp"].sign() == torch.where(args["mask"], -1.0, 0.0)).all()


def test_rwr_raises_better_sequences_more() -> None:
    args = {"logp": torch.full((3, 2), -1.0), "mask": torch.ones(3, 2), "score": t(-1.0, 0.0, 1.0)}
    _, grads = gradients(CASES["rwr"], args)
    pushes = grads["logp"][:, 0].tolist()
    assert pushes == sorted(pushes, reverse=True) and pushes[0] > pushes[2]


def test_a_histogram_moves_towards_its_target() -> None:
    flat = {"logits": torch.zeros(3, 7), "target": t(-1.5, 0.9, 5.0), "mask": torch.ones(3)}
    _, grads = gradients(CASES["hl_gauss"], flat)
    after = losses.hl_gauss_value(-grads["logits"], low=-2.0, high=1.0)
    assert after[0] < -0.5 < after[1] and after[2] > -0.5


def test_cql_raises_the_data_and_lowers_the_rest() -> None:
    _, grads = gradients(CASES["cql"], drawn(CASES["cql"], 0, 6))
    assert (grads["q"] < 0).all() and (grads["random"] > 0).all() and (grads["policy"] > 0).all()
    args = drawn(CASES["cql calibrated"], 0, 6)
    _, grads = gradients(CASES["cql calibrated"], args)
    below = args["policy"] < args["floor"][:, None]
    assert below.any() and (~below).any()
    # what is below the returns that were reached is left alone
    assert (grads["policy"][below] == 0).all() and (grads["policy"][~below] > 0).all()


@pytest.mark.parametrize(("name", "learns"), [("value", "value"), ("td", "q")])
def test_critics_move_towards_their_targets(name: str, learns: str) -> None:
    args = drawn(CASES[name], 0, 6)
    if "old" in args:
        args["old"] = args["value"]
    _, grads = gradients(CASES[name], args)
    error = args[learns] - args["target"]
    assert (grads[learns].sign() == torch.where(args["mask"].expand_as(error), error.sign(), 0.0)).all()


# ---- what is refused


def test_shapes_are_checked() -> None:
    """The annotations are live in the tests (see conftest.py): a wrong shape cannot broadcast in silence."""
    with pytest.raises(TypeCheckError):
        losses.dpo_loss(t(-1.0, -2.0), t(-1.0), t(-1.0, -2.0), t(-1.0, -2.0))
    with pytest.raises(TypeCheckError):
        losses.apa_loss(torch.zeros(2, 2), torch.zeros(2, 3), torch.ones(2, 2), t(0.0, 0.0))
    with pytest.raises(TypeCheckError):
        losses.kto_loss(t(-1.0), t(-1.0), t(1.0))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: losses.dpo_loss(**PAIRS, label_smoothing=0.5), "label_smoothing"),
        (lambda: losses.dpo_loss(**PAIRS, label_smoothing=-0.1), "label_smoothing"),
        (lambda: losses.ipo_loss(**PAIRS, per_token=True), "chosen_length and rejected_length"),
        (lambda: losses.ipo_loss(**PAIRS, chosen_length=t(1.0, 1.0)), "only with per_token"),
        (lambda: losses.rwr_loss(LOGP, MASK, t(0.0, 0.0), tau=0.0), "tau"),
        (lambda: losses.rwr_weight(t(0.0), clamp=0.0), "clamp"),
        (lambda: losses.apa_loss(LOGP, LOGP, MASK, t(0.0, 0.0), lam=0.0), "lam"),
        (lambda: losses.cql_loss(t([2.0]), t([[0.0]]), t([[1.0]]), copies=0), "copies"),
        (lambda: losses.expectile_loss(t(0.0), t(0.0), tau=1.0), "tau"),
        (lambda: losses.hl_gauss_target(t(0.0), low=1.0, high=1.0, bins=3), "low < high"),
        (lambda: losses.hl_gauss_target(t(0.0), low=0.0, high=1.0, bins=3, sigma=0.0), "sigma"),
    ],
)
def test_options_out_of_range_are_refused(call: Callable[[], Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()
