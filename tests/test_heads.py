"""Making heads: each has its own loss, and what the data are silent about stays as it was drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from heedful.errors import HeedfulError
from heedful.judges import heads_mixture
from heedful.judges.heads import Making, build, fit_linear_heads
from heedful.judges.heads_epinet import epinet_scores
from heedful.judges.reweighting import sigmoid

BUILDERS = ("prior", "epinet", "bootstrap", "pca", "random", "annotator", "mixture")


def pairs_of(wanted: Any, n: int, seed: int, beta: float = 4.0) -> tuple[Any, Any]:
    """(chosen, rejected) of points in the first dimensions; the label follows Bradley and Terry."""
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(2, n, len(wanted)))
    wins = (rng.random(n) < sigmoid(beta * (first - second) @ wanted))[:, None]
    return np.where(wins, first, second), np.where(wins, second, first)


def turned(x: Any, size: int, seed: int = 9) -> tuple[Any, Any]:
    """Points (n, r) put into `size` dimensions by a random rotation; and a basis of what they never touch."""
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))
    return x @ q[:, : x.shape[1]].T, q[:, x.shape[1] :]


WANTED = np.array([1.0, -0.5, 0.25, 0.0])


# ---- fitting


def test_a_head_is_the_optimum_of_its_own_loss() -> None:
    from scipy.optimize import minimize

    chosen, rejected = pairs_of(WANTED, 200, 0)
    x, rng = chosen - rejected, np.random.default_rng(1)
    offset, counts = 2 * rng.normal(size=(200, 3)), rng.integers(0, 4, (200, 3)).astype(float)
    made = fit_linear_heads(x, 3, offset=offset, counts=counts, anchor=0.7)
    for k in range(3):

        def loss(w: Any, k: int = k) -> Any:
            return counts[:, k] @ np.logaddexp(0, -(x @ w + offset[:, k])) + 0.35 * w @ w

        assert made[:, k] == pytest.approx(minimize(loss, np.zeros(4)).x, rel=0.02, abs=0.02)
        # other heads play no part: neither the loss of an averaged prediction nor a shared step would do this
        alone = fit_linear_heads(x, 1, offset=offset[:, [k]], counts=counts[:, [k]], anchor=0.7)
        assert made[:, k] == pytest.approx(alone[:, 0], rel=0.02, abs=0.02)


def test_nothing_to_learn_from_moves_nothing() -> None:
    assert (fit_linear_heads(np.zeros((3, 4)), 2, anchor=0.0) == 0).all()
    assert (fit_linear_heads(np.zeros((3, 4)), 2) == 0).all()
    assert (fit_linear_heads(np.zeros((0, 4)), 2) == 0).all()


def test_without_an_anchor_separable_pairs_only_grow() -> None:
    x = np.abs(np.random.default_rng(0).normal(size=(20, 1)))
    assert np.isfinite(w := fit_linear_heads(x, 1, anchor=0.0)).all() and w[0, 0] > 2


# ---- off the span


def test_prior_heads_keep_their_prior_off_the_span_and_agree_on_it() -> None:
    chosen, rejected = pairs_of(WANTED, 3000, 0)
    (left, off), (right, _) = turned(chosen, 10), turned(rejected, 10)
    heads = build(left, right, Making(heads=40, prior_scale=3.0, seed=5))
    weights = heads.arrays["weights"]
    drawn = 3.0 * np.random.default_rng([5, 1]).normal(size=(10, 40))
    assert off.T @ weights == pytest.approx(off.T @ drawn, abs=1e-9)
    on = np.linalg.svd(left - right, full_matrices=False)[2][:4]
    spread = (on @ weights).std(1).max()
    assert spread < 0.15 < 2 < (off.T @ weights).std(1).min()
    # and so they give pairs that differ there other orders, and pairs that do not the same
    inside, outside = (np.random.default_rng(2).normal(size=(200, n)) for n in (4, 6))
    assert np.mean(np.sign(inside @ on @ weights).mean(1) ** 2) > 0.95
    assert np.mean(np.sign(outside @ off.T @ weights).mean(1) ** 2) < 0.2


def optimised(x: Any, start: Any, make: Any) -> Any:
    """The sum (g + prior) trained as one weight, as deep ensembles with a random start are."""
    w = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    optimiser, points = make([w]), torch.tensor(x)
    for _ in range(300):
        optimiser.zero_grad()
        torch.nn.functional.softplus(-points @ w).mean().backward()
        optimiser.step()
    return w.detach().numpy()


def test_plain_gradients_keep_what_is_off_the_span_and_adam_or_decay_do_not() -> None:
    chosen, rejected = pairs_of(WANTED, 300, 0)
    (left, off), (right, _) = turned(chosen, 10), turned(rejected, 10)
    start = 3.0 * np.random.default_rng(0).normal(size=(10, 20))

    def moved(make: Any) -> float:
        return float(np.abs(off.T @ (optimised(left - right, start, make) - start)).max())

    assert moved(lambda p: torch.optim.SGD(p, lr=0.3)) < 1e-9
    assert moved(lambda p: torch.optim.Adam(p, lr=0.03)) > 0.3
    assert moved(lambda p: torch.optim.SGD(p, lr=0.3, weight_decay=0.01)) > 0.3


def test_a_prior_in_the_same_class_as_the_head_is_learned_away_where_data_are_complete() -> None:
    """What is behind the standard deviation of .000 in arXiv 2502.13131."""
    chosen, rejected = pairs_of(WANTED, 3000, 0)
    linear, mlp = (
        build(chosen, rejected, Making(heads=20, prior_scale=3.0, prior=kind)) for kind in ("linear", "mlp")
    )
    new = np.random.default_rng(1).normal(size=(300, 4))
    assert linear.scores(new).std(1).mean() < 0.1 < 0.5 < mlp.scores(new).std(1).mean()


# ---- builders


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    chosen, rejected = pairs_of(WANTED, 300, 3)
    who = np.arange(300) % 3
    return {
        name: build(chosen, rejected, Making(heads=6, builder=name, seed=1), annotators=who)  # type: ignore[arg-type]
        for name in BUILDERS
    }


@pytest.mark.parametrize("name", BUILDERS)
def test_builders_give_named_heads_that_differ(name: str, made: dict[str, Any]) -> None:
    heads, new = made[name], np.random.default_rng(0).normal(size=(50, 4))
    scores = heads.scores(new)
    k = 3 if name == "annotator" else 6
    assert scores.shape == (50, k) == (50, len(heads.names)) and len(set(heads.names)) == k
    assert np.isfinite(scores).all() and (scores.std(1) > 1e-6).any()
    assert heads.size == 4 and heads.scores(new[:0]).shape == (0, k)
    assert heads.scores(new[7:9]) == pytest.approx(scores[7:9], abs=1e-9)
    single = new @ heads.single
    assert np.corrcoef(single, new @ WANTED)[0, 1] > 0.97
    assert heads.fitted == (name not in ("pca", "random"))
    if heads.fitted:
        assert np.corrcoef(scores.mean(1), new @ WANTED)[0, 1] > 0.9
    with pytest.raises(HeedfulError, match=r"must be \(answers, 4\)"):
        heads.scores(new[:, :3])


@pytest.mark.parametrize("name", BUILDERS)
def test_the_same_seed_gives_the_same_bits(name: Any, made: dict[str, Any]) -> None:
    chosen, rejected = pairs_of(WANTED, 300, 3)
    again = build(chosen, rejected, Making(heads=6, builder=name, seed=1), annotators=np.arange(300) % 3)
    for key, array in made[name].arrays.items():
        assert (array == again.arrays[key]).all()


def test_bootstrap_heads_are_fitted_to_pairs_drawn_with_replacement() -> None:
    chosen, rejected = pairs_of(WANTED, 60, 3)
    heads = build(chosen, rejected, Making(heads=4, builder="bootstrap", seed=7))
    counts = np.random.default_rng([7, 2]).multinomial(60, np.full(60, 1 / 60), 4)
    repeated = np.repeat(chosen - rejected, counts[2], 0)
    assert heads.arrays["weights"][:, 2] == pytest.approx(fit_linear_heads(repeated, 1)[:, 0], abs=0.02)


def test_pca_heads_are_principal_directions_both_ways() -> None:
    rng = np.random.default_rng(0)
    chosen, rejected = rng.normal(size=(2, 500, 4)) * np.array([1, 4, 2, 0.1])
    heads = build(chosen, rejected, Making(heads=4, builder="pca"))
    weights = heads.arrays["weights"]
    assert np.abs(weights[:, 0]).argmax() == 1 and np.abs(weights[:, 1]).argmax() == 2
    assert (weights[:, 2:] == -weights[:, :2]).all() and np.abs(weights.mean(1)).max() < 1e-15
    assert heads.names == ("direction 1+", "direction 2+", "direction 1-", "direction 2-")
    # no more directions than there are, and none where pairs do not differ
    assert len(build(chosen, rejected, Making(heads=50, builder="pca")).names) == 8
    with pytest.raises(HeedfulError, match="no directions"):
        build(chosen, chosen, Making(heads=4, builder="pca"))


def test_annotator_heads_follow_their_annotator_and_little_data_stays_near_all() -> None:
    first, second = pairs_of(WANTED, 400, 0)
    # b wants the opposite, c said the opposite too but four times only
    chosen = np.concatenate([first, second, second[:4]])
    rejected = np.concatenate([second, first, first[:4]])
    who = ["a"] * 400 + ["b"] * 400 + ["c"] * 4
    heads = build(chosen, rejected, Making(builder="annotator"), annotators=who)
    a, b, c = heads.arrays["weights"].T
    assert heads.names == ("a", "b", "c") and np.linalg.norm(heads.single) < 0.2
    assert a @ WANTED > 1 and b == pytest.approx(-a, abs=0.2)
    assert np.linalg.norm(c - heads.single) < np.linalg.norm(b - heads.single)
    with pytest.raises(HeedfulError, match="two annotators or more"):
        build(first, second, Making(builder="annotator"))
    with pytest.raises(HeedfulError, match="two annotators or more"):
        build(first, second, Making(builder="annotator"), annotators=["a"] * 400)


def test_a_mixture_finds_two_groups_and_explains_the_pairs_better_than_one_head() -> None:
    other = np.array([0.0, 0.25, -0.5, 1.0])
    a, b = pairs_of(3 * WANTED, 600, 0), pairs_of(3 * other, 600, 1)
    chosen, rejected = (np.concatenate(sides) for sides in zip(a, b, strict=True))
    who = np.concatenate([np.arange(600) % 10, 10 + np.arange(600) % 10])
    new = np.random.default_rng(5).normal(size=(1000, 4))
    for annotators, least in ((who, 0.95), (None, 0.85)):
        how = Making(heads=2, builder="mixture", seed=2)
        weights = build(chosen, rejected, how, annotators=annotators).arrays["weights"]
        right = np.array(
            [[((new @ w > 0) == (new @ u > 0)).mean() for u in (WANTED, other)] for w in weights.T]
        )
        assert max(min(right[0, 0], right[1, 1]), min(right[0, 1], right[1, 0])) > least
    single = build(chosen, rejected, Making(heads=2)).single
    assert min(((new @ single > 0) == (new @ u > 0)).mean() for u in (WANTED, other)) < 0.85


def test_responsibilities_are_bayes_rule() -> None:
    rng = np.random.default_rng(0)
    prior = np.log(np.array([0.2, 0.8]))
    told = -np.logaddexp(0, rng.normal(size=(6, 2)))
    each, likelihood = heads_mixture._responsibilities(told + prior, prior, None)
    joint = np.exp(told + prior)
    assert each == pytest.approx(joint / joint.sum(1, keepdims=True))
    assert likelihood == pytest.approx(np.log(joint.sum(1)).sum())
    by, _ = heads_mixture._responsibilities(told + prior, prior, np.array([0, 0, 0, 1, 1, 1]))
    joint = np.exp(told[:3].sum(0) + prior)
    assert by[0] == pytest.approx(joint / joint.sum())


def test_an_epinet_is_its_formula() -> None:
    chosen, rejected = pairs_of(WANTED, 100, 0)
    heads = build(chosen, rejected, Making(heads=5, builder="epinet", prior_scale=0.5))
    a, x = heads.arrays, np.random.default_rng(0).normal(size=(3, 4))
    for k, z in enumerate(a["z"]):
        value = x @ a["base"]
        for name in ("", "fixed_"):
            both = np.concatenate([a[f"{name}index"], a[f"{name}input"]])
            joined = np.concatenate([np.tile(z, (3, 1)), x], 1)
            value = value + np.maximum(joined @ both + a[f"{name}shift"], 0) @ a[f"{name}output"] @ z
        assert epinet_scores(a, x)[:, k] == pytest.approx(value)
    none = build(chosen, rejected, Making(heads=5, builder="epinet", prior_scale=0.0)).arrays
    assert (none["fixed_output"] == 0).all() and (a["fixed_output"] != 0).all()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"builder": "deep"}, "no builder 'deep'; known: prior, epinet"),
        ({"prior": "tree"}, "no prior 'tree'"),
        ({"heads": 1}, "at least two are needed"),
        ({"anchor": -1}, "must not be negative"),
    ],
)
def test_wrong_settings_are_refused(options: Any, told: str) -> None:
    with pytest.raises(HeedfulError, match=told):
        Making(**options)


def test_wrong_pairs_are_refused() -> None:
    x = np.ones((3, 2))
    for chosen, rejected, told in (
        (x, x[:2], "3 chosen answers and 2 rejected ones"),
        (x[:0], x[:0], "one pair or more"),
        (x[0], x[0], "must be a matrix"),
        (x, x * np.nan, "must be finite; row 0 is not"),
    ):
        with pytest.raises(HeedfulError, match=told):
            build(chosen, rejected, Making())
    with pytest.raises(HeedfulError, match="2 annotators for 3 pairs"):
        build(x, x, Making(), annotators=["a", "b"])


# ---- through a transformer


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    tiny.model().save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return str(folder)


def test_heads_on_a_transformer_are_trained_each_with_its_own_loss(
    language_model: str, tmp_path: Path
) -> None:
    from heedful.fit import FitConfig, fit
    from heedful.judges.ensemble import RewardEnsemble, ensemble_objective
    from heedful.judges.personal import PersonalReward
    from heedful.losses import bradley_terry_loss
    from heedful.policies import objectives
    from heedful.policies.backbone import Lora
    from heedful.run import open_run, read_metrics

    model = RewardEnsemble.load(
        language_model, heads=6, prior_scale=2.0, device="cpu", precision="fp32", lora=Lora(4, 8.0)
    )
    groups = [model.group("What?", ["a cat is here", "a dog"]), model.group("Why?", ["because", "so it is"])]
    scores = model.scores(groups).detach()
    states = model.states(groups).detach().double().numpy()
    assert scores.shape == (4, 6) and model.shares_prefix
    assert states @ model.head_weights() == pytest.approx(scores.numpy(), abs=1e-5)
    prior = model.head.modules_to_save["default"].prior.clone()  # type: ignore[union-attr, index]

    objective = ensemble_objective(model)
    rows = [{"group": group, "margin": [0.0]} for group in groups]
    loss, _ = objective(objectives.collate(model)(rows))
    alone = [bradley_terry_loss(scores[0::2, k], scores[1::2, k])[0] for k in range(6)]
    of_the_mean, _ = bradley_terry_loss(scores[0::2].mean(1), scores[1::2].mean(1))
    assert float(loss) == pytest.approx(float(torch.stack(alone).mean()), rel=1e-5)
    assert float(loss) != pytest.approx(float(of_the_mean), rel=1e-3)

    with open_run(tmp_path / "run", {}, seed=0) as run:
        cfg = FitConfig(lr=1e-2, batch_size=2, epochs=15, quiet=True)
        fit("heads", objective, model.module, rows, cfg, run, collate=objectives.collate(model))
    losses = [row["loss"] for row in read_metrics(tmp_path / "run") if "loss" in row]
    assert losses[-1] < 0.2 * losses[0]
    assert torch.equal(model.head.modules_to_save["default"].prior, prior)  # type: ignore[union-attr, index]

    pool = np.random.default_rng(0).normal(size=(50, states.shape[1]))
    reward = PersonalReward.from_weights(model.head_weights(), pool)
    new = model.states(groups).detach().double().numpy()
    unscaled = reward.head_scores(new) / reward._scale
    assert unscaled == pytest.approx(model.scores(groups).detach().numpy(), abs=1e-4)


def test_an_ensemble_judges_by_the_mean_of_its_heads(language_model: str) -> None:
    from heedful.feedback import Samples
    from heedful.judges.ensemble import RewardEnsemble

    model = RewardEnsemble.load(language_model, heads=3, prior_scale=5.0, device="cpu", precision="fp32")
    found = model(Samples(["Why?", "What?"], ["so", "because", "a", "the cat"], 2)).score
    groups = [model.group("Why?", ["so", "because"]), model.group("What?", ["a", "the cat"])]
    assert found.flatten().tolist() == pytest.approx(model.scores(groups).mean(1).tolist(), abs=1e-5)
    with pytest.raises(HeedfulError, match="at least one is needed"):
        RewardEnsemble.load(language_model, heads=0)
