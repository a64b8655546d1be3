"""Policies over actions: one protocol for every class, densities that are densities, images, averages, the cache."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModel, Dinov2Config

from heedful.errors import HeedfulError
from heedful.fit import FitConfig, fit
from heedful.policies.actions import ActionSpace, NetworkPolicy, evaluating, rows, size, stack
from heedful.policies.actions.build import Making, build, load, save
from heedful.policies.actions.cache import CandidateCache
from heedful.policies.actions.diffusion import DiffusionHead, cosine_betas
from heedful.policies.actions.flow import FlowHead
from heedful.policies.actions.gaussian import GaussianHead
from heedful.policies.actions.nets import DenoisingNet
from heedful.policies.actions.observe import (
    ImageInput,
    ObservationEncoder,
    ObservationSpace,
    shifted,
)
from heedful.policies.actions.tokens import TokenHead
from heedful.polyak import Polyak
from heedful.run import open_run

SPACE = ActionSpace((-1.0, -2.0), (1.0, 4.0), horizon=2)
STATE = ObservationSpace({"state": (3,)}, mean={"state": (1.0, 0.0, 0.0)}, std={"state": (2.0, 1.0, 1.0)})
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "gaussian": ("gaussian", {"hidden": (16,)}),
    "tanh gaussian": ("gaussian", {"hidden": (16,), "tanh": True}),
    "diffusion": ("diffusion", {"width": 16, "blocks": 1}),
    "diffusion ddim": ("diffusion", {"width": 16, "blocks": 1, "sampler": "ddim", "sample_steps": 3}),
    "flow": ("flow", {"width": 16, "blocks": 1, "steps": 6}),
    "tokens": ("tokens", {"width": 16, "layers": 2, "heads": 2, "bins": 9}),
}
every_kind = pytest.mark.parametrize("kind", KINDS)
quick = settings(max_examples=15, deadline=None)


def making(kind: str, space: ActionSpace = SPACE, ema: float = 0.0) -> Making:
    name, head = KINDS[kind]
    return Making(name, STATE, space, head, ema=ema)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shaken(policy: NetworkPolicy, scale: float = 1.5) -> NetworkPolicy:
    """Larger weights than at the start, so that a mistake in a formula shows."""
    with torch.no_grad():
        for p in policy.module.parameters():
            if p.ndim > 1:
                p.mul_(scale)
    return policy


# ---- the protocol


@every_kind
@quick
@given(
    seed=st.integers(0, 2**31),
    b=st.integers(1, 4),
    n=st.integers(1, 5),
    size=st.sampled_from([0.1, 1.0, 1e4]),
)
def test_actions_stay_inside_the_bounds_and_are_a_function_of_the_generator(
    kind: str, seed: int, b: int, n: int, size: float
) -> None:
    policy = build(making(kind))
    observations = {"state": size * torch.randn(b, 3, generator=generator(seed))}
    drawn = policy.act(observations, n, generator=generator(seed))
    assert drawn.shape == (b, n, 2, 2) and drawn.isfinite().all()
    low, high = SPACE.bounds(drawn)
    assert (drawn >= low).all() and (drawn <= high).all()
    assert torch.equal(drawn, policy.act(observations, n, generator=generator(seed)))


@every_kind
def test_samples_and_their_log_probabilities(kind: str) -> None:
    policy = build(making(kind))
    inputs = [{"state": torch.randn(3, generator=generator(i))} for i in range(3)]
    samples = policy.sample(inputs, 4, generator=generator())
    assert samples.n == 4 and len(samples.outputs) == 12 and samples.outputs[0].shape == (2, 2)
    logp, mask = policy.logp(samples)
    assert logp.shape == mask.shape and mask.all() and logp.isfinite().all()
    # one observation alone gives the same numbers as among others
    alone, _ = policy.logp(type(samples)(inputs[1:2], samples.outputs[4:8], 4))
    torch.testing.assert_close(alone, logp[4:8], rtol=1e-4, atol=1e-4)


@every_kind
def test_an_observation_is_encoded_once_for_all_its_actions(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = build(making(kind))
    seen: list[int] = []
    encoder: Any = policy.module["encoder"]  # type: ignore[index]
    forward = encoder.forward
    monkeypatch.setattr(encoder, "forward", lambda o: seen.append(size(o)) or forward(o))
    policy.act({"state": torch.zeros(3, 3)}, 7, generator=generator())
    assert seen == [3]


@every_kind
def test_a_policy_learns_what_it_is_shown(kind: str) -> None:
    """Two observations, two actions far apart: afterwards each is what is done there."""
    policy = build(making(kind, ActionSpace((-1.0, -2.0), (1.0, 4.0))))
    observations = {"state": torch.tensor([[3.0, 0.0, 0.0], [-3.0, 0.0, 0.0]])}
    actions = torch.tensor([[[0.5, -1.0]], [[-0.5, 2.5]]])
    optimizer = torch.optim.Adam(policy.module.parameters(), lr=5e-3)
    many = rows(observations, [0, 1] * 16)
    torch.manual_seed(0)
    for _ in range(110):
        loss, metrics = policy.loss(many, actions.repeat(16, 1, 1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(value.isfinite() and not value.requires_grad for value in metrics.values())
    drawn = policy.act(observations, 64, generator=generator())
    policy.module.eval()
    far = (drawn - actions[:, None]).abs() / torch.tensor([2.0, 6.0])
    assert far.mean() < 0.08, far.mean()
    right = policy.log_prob(policy.encode(observations), actions[:, None]).sum((-1, -2))
    wrong = policy.log_prob(policy.encode(observations), actions.flip(0)[:, None]).sum((-1, -2))
    assert (right > wrong + 1).all()


@every_kind
def test_a_weight_of_zero_is_no_row_and_of_two_is_two(kind: str) -> None:
    policy = build(making(kind))
    policy.module.eval()
    observations = {"state": torch.randn(4, 3, generator=generator(1))}
    actions = SPACE.uniform(4, generator=generator(2))

    def at(weight: list[float]) -> float:
        torch.manual_seed(3)
        return float(policy.loss(observations, actions, weight=torch.tensor(weight))[0].detach())

    single = [at([float(i == j) for j in range(4)]) for i in range(4)]
    assert at([1.0, 0.0, 2.0, 0.0]) == pytest.approx(single[0] + 2 * single[2], rel=1e-4, abs=1e-5)
    assert at([1.0] * 4) == pytest.approx(sum(single), rel=1e-4, abs=1e-5)


@every_kind
def test_the_seed_makes_the_policy_and_a_folder_keeps_it(kind: str, tmp_path: Path) -> None:
    recipe = making(kind, ema=0.01)
    policy = build(recipe, seed=3)
    assert policy.fingerprint() == build(recipe, seed=3).fingerprint() != build(recipe, seed=4).fingerprint()
    shaken(policy)
    assert policy.average is not None
    policy.after_step(1)
    policy.after_step(2)
    save(policy, recipe, tmp_path / "p")
    again, said = load(tmp_path / "p")
    assert said.kind == recipe.kind and said.actions == SPACE
    observations = {"state": torch.ones(2, 3)}
    assert torch.equal(*(p.act(observations, 3, generator=generator()) for p in (policy, again)))
    # both the weights that learn and those that act came back
    for a, b in zip(policy.module.state_dict().values(), again.module.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_folder_of_another_policy_is_refused(tmp_path: Path) -> None:
    recipe = making("gaussian")
    folder = save(build(recipe), recipe, tmp_path / "p")
    weights = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in weights.items() if "net.0" not in k}, folder / "model.safetensors")
    with pytest.raises(HeedfulError, match=r"model\.safetensors is of another policy"):
        load(folder)
    (folder / "config.json").write_text('{"format": "other"}')
    with pytest.raises(HeedfulError, match="no action policy"):
        load(folder)
    with pytest.raises(HeedfulError, match="no policy 'mlp'"):
        build(Making("mlp", STATE, SPACE))
    with pytest.raises(HeedfulError, match="cannot be made with these options"):
        build(Making("flow", STATE, SPACE, {"bins": 3}))


# ---- spaces and observations


def test_looking_leaves_learning_as_it_was() -> None:
    module = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout(), nn.Dropout()))
    module[1].eval()  # frozen by its owner
    for outer in (True, False):
        module.training = module[0].training = outer
        before = [part.training for part in module.modules()]
        with pytest.raises(ZeroDivisionError), evaluating(module):
            assert not any(part.training for part in module.modules())
            _ = 1 / 0
        assert [part.training for part in module.modules()] == before


def test_actions_and_unit_numbers_are_each_others_inverse() -> None:
    actions = SPACE.uniform(50, generator=generator())
    assert actions.shape == (50, 2, 2) and SPACE.to_unit(actions).shape == (50, 4)
    torch.testing.assert_close(SPACE.from_unit(SPACE.to_unit(actions)), actions)
    assert SPACE.to_unit(torch.tensor([[-1.0, -2.0], [1.0, 4.0]])).tolist() == [-1, -1, 1, 1]
    low, high = SPACE.bounds(actions)
    assert (actions >= low).all() and (actions <= high).all() and actions.amax(0)[0, 1] > 3


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: ActionSpace((0.0,), (1.0, 2.0)), "1 lower and 2 upper"),
        (lambda: ActionSpace((0.0, -math.inf), (1.0, math.inf)), "number 1 has the bounds"),
        (lambda: ActionSpace((1.0,), (0.0,)), "finite bounds with low < high"),
        (lambda: SPACE.check(torch.zeros(3, 2)), r"shape \(3, 2\) does not end in \(2, 2\)"),
        (
            lambda: SPACE.check(torch.full((3, 2, 2), 1.5)),
            r"row 0, step 0: number 0 is 1.5, outside \[-1.0, 1.0\]",
        ),
        (lambda: SPACE.check(torch.full((1, 2, 2), math.nan)), "is nan"),
        (lambda: STATE.check({"pose": torch.zeros(1, 3)}), "lack 'state'"),
        (lambda: STATE.check({"state": torch.zeros(1, 4)}), r"has the shape \(4,\); \(3,\) is expected"),
        (lambda: STATE.check({"state": torch.tensor([[0.0, math.nan, 0.0]])}), "row 0: number 1 is nan"),
        (lambda: ObservationSpace({"state": (3, 3)}), "numbers are"),
        (lambda: ObservationSpace({"state": (3,)}, mean={"state": (0.0,)}), "1 values of mean for 3"),
        (lambda: size({"a": torch.zeros(2), "b": torch.zeros(3)}), "different numbers of rows"),
        (lambda: stack([{"a": torch.zeros(1)}, {"b": torch.zeros(1)}]), "observation 1 has b"),
        (
            lambda: build(making("gaussian")).act({"state": torch.zeros(1, 3)}, 0, generator=generator()),
            "n must be",
        ),
    ],
)
def test_what_is_refused(call: Any, said: str) -> None:
    with pytest.raises(HeedfulError, match=said):
        call()


def test_rounding_past_a_bound_is_clipped_and_no_more() -> None:
    near = torch.tensor([[[1.0 + 1e-5, 4.0], [-1.0, -2.0 - 1e-5]]])
    assert SPACE.check(near).tolist() == [[[1.0, 4.0], [-1.0, -2.0]]]


# ---- densities


@pytest.mark.parametrize("kind", ["gaussian", "tanh gaussian", "flow", "diffusion", "tokens"])
def test_densities_sum_to_one_over_actions(kind: str) -> None:
    """By quadrature over one number, in units of the action; a bound sums to less."""
    space = ActionSpace((-3.0,), (5.0,))
    policy = shaken(build(making(kind, space), seed=1), 1.0 if kind == "flow" else 1.5)
    policy.module.eval()
    features = policy.encode({"state": torch.tensor([[0.3, -0.5, 0.2]])})
    if kind == "tokens":
        grid = torch.linspace(-3, 5, 9)
        assert policy.log_prob(features, grid[None, :, None, None]).exp().sum().item() == pytest.approx(
            1, abs=1e-4
        )
        return
    grid = torch.linspace(-2.999, 4.999, 4001) if kind == "tanh gaussian" else torch.linspace(-60, 60, 4001)
    # what is out of bounds has a density too, before it is clipped; `to_unit` would clip it first
    head: Any = policy.module["head"]  # type: ignore[index]
    unit = (2 * (grid + 3) / 8 - 1)[None, :, None]
    scale = 0.0 if kind == "tanh gaussian" else math.log(4)
    with torch.no_grad():
        if kind == "tanh gaussian":
            density = policy.log_prob(features, grid[None, :, None, None]).sum(-1)[0].exp()
        else:
            density = (head.log_prob(features, unit).sum(-1)[0] - scale).exp()
    mass = torch.trapezoid(density, grid).item()
    if kind == "diffusion":
        assert mass < 1.02
    else:
        assert mass == pytest.approx(1, abs=0.02)


def test_log_prob_of_a_flow_that_is_known() -> None:
    """A velocity of zero leaves the normal distribution; one of c x stretches it by e^c."""
    head = FlowHead(1, 2, steps=4, width=8, blocks=1)
    x = torch.tensor([[[0.3, -0.7]]])
    for c in (0.0, 0.5, -1.0):
        head.net.forward = lambda condition, numbers, time, c=c: c * numbers  # type: ignore[method-assign]
        wanted = -0.5 * (x / math.exp(c)).square().sum() - math.log(2 * math.pi) - 2 * c
        assert head.log_prob(torch.zeros(1, 1), x).item() == pytest.approx(wanted.item(), abs=1e-3)


def test_the_gaussian_head_is_torchs_own() -> None:
    head = GaussianHead(3, 2, hidden=(8,), log_std=(-2.0, 0.5))
    features, x = torch.randn(4, 3), torch.rand(4, 5, 2) * 2 - 1
    mean, log_std = head._moments(features)
    assert (log_std > -2).all() and (log_std < 0.5).all()
    wanted = torch.distributions.Normal(mean, log_std.exp()).log_prob(x)
    torch.testing.assert_close(head.log_prob(features, x), wanted)
    squashed = GaussianHead(3, 2, hidden=(8,), tanh=True)
    mean, log_std = squashed._moments(features)
    normal = torch.distributions.Normal(mean, log_std.exp())
    tanh = torch.distributions.TransformedDistribution(normal, torch.distributions.TanhTransform())
    torch.testing.assert_close(
        squashed.log_prob(features, 0.99 * x), tanh.log_prob(0.99 * x), rtol=1e-3, atol=1e-4
    )
    # at the bounds themselves the density stays finite, and so does the gradient
    edge = squashed.log_prob(features, torch.ones(4, 1, 2))
    edge.sum().backward()
    assert edge.isfinite().all() and all(p.grad.isfinite().all() for p in squashed.parameters())  # type: ignore[union-attr]


@every_kind
def test_temperature_narrows_what_is_drawn(kind: str) -> None:
    if kind == "diffusion":
        head = DiffusionHead(1, 1, steps=50, width=8, blocks=1)
        exact_noise(head, 0.2, 0.1)
        spread = [
            head.draw(torch.zeros(1, 1), 200, temperature=t, generator=generator()).std().item()
            for t in (1.0, 0.0)
        ]
        assert spread[1] < 0.5 * spread[0]
        return
    policy, observations = build(making(kind), seed=2), {"state": torch.zeros(1, 3)}
    drawn = [policy.act(observations, 200, temperature=t, generator=generator()) for t in (1.0, 0.0)]
    assert drawn[1].std(1).max() < 1e-6 < drawn[0].std(1).min()


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    head = TokenHead(3, 2, bins=3, width=8, layers=1, heads=2)
    with torch.no_grad():
        for p in head.parameters():
            p.mul_(12.0)
    features = torch.randn(1, 3, generator=generator(5))
    drawn = head.draw(features, 20_000, temperature=1.0, generator=generator())[0]
    pairs = torch.cartesian_prod(*[torch.tensor([-1.0, 0.0, 1.0])] * 2)
    likely = head.log_prob(features, pairs[None]).sum(-1)[0].exp()
    seen = (drawn[:, None] == pairs).all(-1).float().mean(0)
    assert likely.sum().item() == pytest.approx(1, abs=1e-4) and likely.std() > 0.02
    torch.testing.assert_close(seen, likely, rtol=0, atol=0.015)


def test_tokens_take_the_nearest_bin() -> None:
    head = TokenHead(1, 1, bins=5, width=8, layers=1, heads=1)
    numbers = torch.tensor([-1.0, -0.76, -0.74, 0.2, 0.26, 1.0])
    assert head.to_tokens(numbers).tolist() == [0, 0, 1, 2, 3, 4]
    assert head.to_numbers(torch.arange(5)).tolist() == [-1, -0.5, 0, 0.5, 1]


# ---- diffusion


def test_the_cosine_schedule() -> None:
    beta = cosine_betas(5)
    kept = (1 - beta.double()).cumprod(0)

    def f(t: float) -> float:
        return math.cos((t / 5 + 0.008) / 1.008 * math.pi / 2) ** 2

    for t in range(4):
        assert kept[t].item() == pytest.approx(f(t + 1) / f(0), rel=1e-5)
    assert beta[-1].item() == pytest.approx(0.999)


def exact_noise(head: DiffusionHead, mean: float, std: float) -> None:
    """Let the net be what it would learn of N(mean, std): E[noise | x] in closed form."""

    def noise(condition: Tensor, x: Tensor, time: Tensor) -> Tensor:
        kept = head.kept[int(time)]
        variance = kept * std**2 + 1 - kept
        return (x - kept.sqrt() * mean) * (1 - kept).sqrt() / variance

    head.net.forward = noise  # type: ignore[method-assign]


@pytest.mark.parametrize("sampler", ["ancestral", "ddim"])
def test_diffusion_draws_what_it_has_learned(sampler: Any) -> None:
    """With the exact noise of N(0.2, 0.1) and many steps, both samplers give that distribution back."""
    head = DiffusionHead(1, 1, steps=100, width=8, blocks=1, sampler=sampler)
    exact_noise(head, 0.2, 0.1)
    drawn = head.draw(torch.zeros(1, 1), 4000, temperature=1.0, generator=generator())
    assert drawn.mean().item() == pytest.approx(0.2, abs=0.03)
    assert drawn.std().item() == pytest.approx(0.1, abs=0.04)


def test_the_bound_of_diffusion_is_close_to_the_density_where_the_noise_is_exact() -> None:
    head = DiffusionHead(1, 1, steps=100, width=8, blocks=1)
    exact_noise(head, 0.2, 0.1)
    x = torch.tensor([[[0.2], [0.3], [0.0]]])
    bound = head.log_prob(torch.zeros(1, 1), x)[..., 0]
    density = torch.distributions.Normal(0.2, 0.1).log_prob(x)[..., 0]
    assert (bound < density + 0.3).all() and (bound > density - 1.0).all()


def test_the_parts_of_the_first_layer_add_up_to_one_over_all() -> None:
    net = DenoisingNet(3, 2, width=8, blocks=1, dropout=0.0)
    features, x, time = torch.randn(2, 3), torch.randn(2, 4, 2), torch.tensor(1.0)
    whole = nn.Linear(3 + 2 + 128, 8)
    with torch.no_grad():
        whole.weight.copy_(torch.cat([net.of_features.weight, net.of_numbers.weight, net.of_time.weight], 1))
        whole.bias.copy_(net.of_features.bias)
    inputs = torch.cat([features[:, None].expand(-1, 4, -1), x, net.time(time).expand(2, 4, -1)], -1)
    wanted = net.out(net.blocks(whole(inputs)))
    torch.testing.assert_close(net(net.condition(features), x, time), wanted)


# ---- averages


def test_polyak_follows_and_rises() -> None:
    fast = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        fast.weight.fill_(0.0)
    slow, rising, quicker = Polyak(fast, 0.1), Polyak(fast, 0.1, rise=True), Polyak(fast, 0.1, rise=0.5)
    for value in (1.0, 2.0, 3.0):
        with torch.no_grad():
            fast.weight.fill_(value)
        slow.update()
        rising.update()
        quicker.update()
    assert slow.module.weight.item() == pytest.approx(((0.1 * 0.9) + 0.2) * 0.9 + 0.3)
    assert rising.module.weight.item() == pytest.approx(2.0)
    second = 1 + 2**-0.5
    assert quicker.module.weight.item() == pytest.approx(second + 3**-0.5 * (3 - second))
    assert not slow.module.weight.requires_grad
    with pytest.raises(ValueError, match="rate"):
        Polyak(fast, 0.0)


def test_polyak_shares_what_is_frozen() -> None:
    fast = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    fast[0].requires_grad_(False)
    slow = Polyak(fast, 0.5)
    assert slow.module[0].weight is fast[0].weight and slow.module[1].weight is not fast[1].weight  # type: ignore[index]
    assert set(slow.tensors()) == {"slow/1.weight", "slow/1.bias", "slow/updates"}
    assert fast[1].weight.requires_grad


def test_the_average_is_trained_through_fit_and_survives_a_restart(tmp_path: Path) -> None:
    """Stopped half way, the run goes on to the very same weights, averaged ones included."""
    observations = {"state": torch.randn(32, 3, generator=generator(1))}
    actions = SPACE.uniform(32, generator=generator(2))

    def learn(folder: Path, parts: tuple[int, ...]) -> str:
        for steps in parts:
            policy = build(making("diffusion", ema=0.05))
            with open_run(folder, {}, seed=0) as run:
                stop = {"at": steps}

                def after(step: int, policy: NetworkPolicy = policy, stop: dict[str, int] = stop) -> None:
                    policy.after_step(step)
                    if step == stop["at"]:
                        raise KeyboardInterrupt

                how = FitConfig(
                    lr=1e-3, batch_size=8, max_steps=10, save_every=3, quiet=True, precision="fp32"
                )
                try:
                    fit(
                        "clone",
                        lambda batch: policy.loss(rows(observations, batch), actions[batch]),  # noqa: B023
                        policy.module,
                        range(32),
                        how,
                        run,
                        after_step=after,
                        state=policy.state(),
                    )
                except KeyboardInterrupt:
                    continue
                return policy.fingerprint()
        raise AssertionError("not finished")

    assert learn(tmp_path / "a", (99,)) == learn(tmp_path / "b", (5, 8, 99))


# ---- images

CAMERA = ObservationSpace({"state": (2,), "front": (3, 24, 32), "wrist": (1, 16, 16)})


def views(b: int, seed: int = 0) -> dict[str, Tensor]:
    g = generator(seed)
    return {
        "state": torch.randn(b, 2, generator=g),
        "front": torch.randint(0, 256, (b, 3, 24, 32), generator=g).to(torch.uint8),
        "wrist": torch.randint(0, 256, (b, 1, 16, 16), generator=g).to(torch.uint8),
    }


def test_images_through_the_small_cnn() -> None:
    encoder = ObservationEncoder(CAMERA, size=8)
    features = encoder(views(5))
    assert features.shape == (5, 18) == (5, encoder.features)
    changed = views(5)
    changed["wrist"][2] = 0
    moved = (encoder(changed) - features).abs().sum(-1) > 1e-4
    assert moved.tolist() == [False, False, True, False, False]
    features.sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())


def test_numbers_are_normalised() -> None:
    encoder = ObservationEncoder(STATE)
    assert encoder({"state": torch.tensor([[3.0, 1.0, 0.5]])}).tolist() == [[1.0, 1.0, 0.5]]


def test_shifts_move_a_whole_image_by_at_most_so_many_pixels() -> None:
    images = torch.arange(8 * 8, dtype=torch.uint8).view(1, 1, 8, 8).repeat(40, 1, 1, 1)
    torch.manual_seed(0)
    moved = shifted(images, 2)
    assert moved.dtype == torch.uint8 and moved.shape == images.shape
    seen = set()
    for image in moved[:, 0]:
        centre = image[4, 4].item()
        seen.add(centre)
        y, x = divmod(centre, 8)
        assert abs(y - 4) <= 2 and abs(x - 4) <= 2
        assert torch.equal(image[3:6, 3:6], images[0, 0, y - 1 : y + 2, x - 1 : x + 2])
    assert len(seen) > 10
    encoder = ObservationEncoder(CAMERA, size=8, shift=2)
    assert not torch.equal(encoder(views(2)), encoder(views(2)))
    encoder.eval()
    assert torch.equal(encoder(views(2)), encoder(views(2)))


def test_a_frozen_pretrained_encoder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    AutoModel.from_config(config).save_pretrained(tmp_path / "eye")
    options = {"images": "frozen", "pretrained": str(tmp_path / "eye"), "size": 8}
    recipe = Making("gaussian", CAMERA, SPACE, {"hidden": (8,)}, options)
    policy = build(recipe)
    policy.module.train()
    frozen: Any = policy.module["encoder"].frozen  # type: ignore[index, union-attr]
    assert not frozen.model.training and not any(p.requires_grad for p in frozen.parameters())
    loss, _ = policy.loss(views(4), SPACE.uniform(4, generator=generator()))
    loss.backward()
    assert all(p.grad is not None for p in policy.module.parameters() if p.requires_grad)
    # what the pretrained model itself says of the same pixels
    pixels = frozen.look(views(4)["front"].float() / 255)
    with torch.no_grad():
        wanted = frozen.model(pixel_values=pixels).pooler_output
    torch.testing.assert_close(frozen(views(4)["front"].float() / 255), wanted)
    # its weights are in a folder of their own, not in the policy's
    save(policy, recipe, tmp_path / "p")
    assert not any(".frozen." in name for name in load_file(tmp_path / "p" / "model.safetensors"))
    again, _ = load(tmp_path / "p")
    same = [p.act(views(2), 2, generator=generator()) for p in (policy, again)]
    assert torch.equal(*same)
    with pytest.raises(HeedfulError, match="needs the pretrained vision model"):
        build(Making("gaussian", CAMERA, SPACE, {}, {"images": "frozen"}))


def test_images_as_a_vision_model_wants_them() -> None:
    look = ImageInput(4, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    grey = torch.full((2, 1, 8, 6), 0.75)
    assert look(grey).shape == (2, 3, 4, 4)
    torch.testing.assert_close(look(grey), torch.ones(2, 3, 4, 4))


# ---- the cache


def looked(states: Tensor) -> Any:
    return lambda index: {"state": states[index]}


@every_kind
def test_candidates_are_the_same_bytes_in_whatever_order_they_are_asked_for(kind: str) -> None:
    states = torch.randn(45, 3, generator=generator(1))
    policy = build(making(kind))
    asked = [torch.tensor([44, 3, 3, 20]), torch.tensor([0, 44]), torch.arange(45)]
    caches = [CandidateCache(policy, looked(states), 3, seed=1, block=8) for _ in range(2)]
    first = [caches[0](index, 45) for index in asked]
    second = [caches[1](index, 45) for index in reversed(asked)][::-1]
    assert first[0].shape == (4, 3, 2, 2)
    assert all(map(torch.equal, first, second))
    assert torch.equal(first[0][1], first[2][3]) and caches[0].drawn == 45
    # another seed, other noise
    assert not torch.equal(CandidateCache(policy, looked(states), 3, seed=2, block=8)(asked[0], 45), first[0])


def test_candidates_of_an_earlier_policy_never_come_out() -> None:
    states = torch.randn(20, 3, generator=generator(1))
    policy = build(making("gaussian", ema=0.5))
    cache = CandidateCache(policy, looked(states), 2, seed=1, block=8)
    index = torch.tensor([2, 19])
    before = cache(index, 20)
    assert torch.equal(cache(index, 20), before) and cache.drawn == 12 and cache.dropped == 0
    with torch.no_grad():
        policy.module["head"].net[0].weight.add_(1.0)  # type: ignore[index, union-attr]
    # what learns has changed, what acts has not
    assert torch.equal(cache(index, 20), before)
    policy.after_step(1)
    after = cache(index, 20)
    assert not torch.equal(after, before) and cache.dropped == 1 and cache.drawn == 12


def test_a_growing_list_keeps_its_candidates_and_gets_new_ones() -> None:
    states = torch.randn(20, 3, generator=generator(1))
    policy = build(making("diffusion"))
    whole = CandidateCache(policy, looked(states), 2, seed=1, block=8)(torch.arange(20), 20)
    cache = CandidateCache(policy, looked(states), 2, seed=1, block=8)
    assert torch.equal(cache(torch.arange(11), 11), whole[:11])
    assert torch.equal(cache(torch.arange(20), 20), whole)
