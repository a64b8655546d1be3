"""Policies that follow commands, ACT and the diffusion U-Net: what they learn, what they see, what they keep."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from heedful.errors import HeedfulError
from heedful.fit import FitConfig, fit
from heedful.policies.actions import ActionSpace, rows
from heedful.policies.actions import act as actions_act
from heedful.policies.actions import build as actions_build
from heedful.policies.actions import unet as actions_unet
from heedful.policies.actions.act import grid_positions, line_positions
from heedful.policies.actions.build import Making, build, load, save
from heedful.policies.actions.chunks import (
    ChunkBatch,
    ChunkPolicy,
    TemporalEnsemble,
    bound_numbers,
    chunk_objective,
    collate_chunks,
    executed,
)
from heedful.policies.actions.numbers import ActionNumbers, ranges, z_scores
from heedful.policies.actions.observe import ObservationEncoder, ObservationSpace
from heedful.policies.actions.task import Scene, TaskEncoder
from heedful.run import open_run

CAMERA = "observation.images.top"
SPACE = ActionSpace((-1.0, -2.0), (1.0, 4.0), horizon=4)
SEEN = ObservationSpace(
    {"state": (2,), CAMERA: (3, 16, 16)}, mean={"state": (1.0, 0.0)}, std={"state": (2.0, 1.0)}, history=2
)
SMALL: dict[str, dict[str, Any]] = {
    "act": {
        "hidden": 32,
        "feedforward": 64,
        "heads": 2,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "latent_layers": 1,
        "latent": 4,
        "kl_weight": 1.0,
        "dropout": 0.0,
    },
    "unet": {"widths": (16, 32), "size": 16, "hidden": (32,), "steps": 10, "noises": 4},
}
NETWORK = {"widths": (8, 8)}
every_kind = pytest.mark.parametrize("kind", SMALL)


def making(kind: str, seen: ObservationSpace = SEEN, space: ActionSpace = SPACE, **more: Any) -> Making:
    return Making(kind, seen, space, SMALL[kind], {"network": NETWORK, **more.pop("encoder", {})}, **more)


def made(recipe: Making, seed: int = 0) -> ChunkPolicy:
    policy = build(recipe, seed=seed)
    assert isinstance(policy, ChunkPolicy)
    return policy


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def looks(b: int, seen: ObservationSpace = SEEN, seed: int = 0) -> dict[str, Any]:
    g, lead = generator(seed), (b,) if seen.history == 1 else (b, seen.history)
    out: dict[str, Any] = {
        name: torch.randn(*lead, *shape, generator=g)
        if len(shape) == 1
        else torch.randint(0, 256, (*lead, *shape), generator=g).to(torch.uint8)
        for name, shape in seen.shapes.items()
    }
    return {**out, "task": [("move left", "go higher", "release")[i % 3] for i in range(b)]}


# ---- the protocol


@every_kind
def test_one_protocol_for_all_policies(kind: str) -> None:
    policy, seen = made(making(kind, ema=0.1)), looks(3)
    drawn = policy.act(seen, 5, generator=generator())
    assert drawn.shape == (3, 5, 4, 2) and torch.equal(SPACE.clip(drawn), drawn)
    assert torch.equal(drawn, policy.act(seen, 5, generator=generator()))
    single = [{name: value[i] for name, value in seen.items()} for i in range(3)]
    samples = policy.sample(single, 5, generator=generator())
    torch.testing.assert_close(torch.stack(samples.outputs).unflatten(0, (3, 5)), drawn, rtol=1e-4, atol=1e-4)
    logp, mask = policy.logp(samples)
    assert logp.shape == mask.shape and mask.all() and logp.isfinite().all()
    # one observation alone has the numbers that it has among others
    alone, _ = policy.logp(type(samples)(single[1:2], samples.outputs[5:10], 5))
    torch.testing.assert_close(alone, logp[5:10], rtol=1e-3, atol=1e-3)
    cold = policy.act(seen, 2, temperature=0.0, generator=generator())
    assert (cold[:, 0] - cold[:, 1]).abs().max() < 1e-5 < drawn.std(1).max()


@every_kind
def test_an_observation_is_encoded_once_for_all_its_actions(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = made(making(kind))
    calls: list[int] = []
    encoder: Any = policy.module["encoder"]  # type: ignore[index]
    trunk = encoder.trunks[0]
    located = trunk.located
    monkeypatch.setattr(trunk, "located", lambda x, e: calls.append(len(x)) or located(x, e))
    policy.act(looks(3), 7, generator=generator())
    assert calls == [6]  # 3 observations of 2 frames


@every_kind
def test_the_seed_makes_it_and_a_folder_keeps_it(kind: str, tmp_path: Path) -> None:
    numbers = ranges(torch.randn(50, 2, generator=generator()), keep=[1])
    recipe = making(kind, numbers=numbers, ema=0.5, encoder={"crop": 0.9, "jitter": {"hue": 0.1}})
    policy = made(recipe, seed=3)
    assert policy.fingerprint() == build(recipe, seed=3).fingerprint() != build(recipe, seed=4).fingerprint()
    with torch.no_grad():
        for p in policy.module.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=generator()))
    policy.after_step(1)
    again, said = load(save(policy, recipe, tmp_path / "p"))
    assert said.numbers == numbers and said.observations == SEEN and isinstance(again, ChunkPolicy)
    assert torch.equal(*(p.act(looks(2), 2, generator=generator()) for p in (policy, again)))
    for a, b in zip(policy.module.state_dict().values(), again.module.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    # folders from before there were histories and numbers
    config = json.loads((tmp_path / "p" / "config.json").read_text())
    assert config["observations"]["history"] == 2 and config["numbers"]["shift"]


@every_kind
def test_keypoints_are_seen_and_can_be_left_out(kind: str) -> None:
    policy = made(making(kind, encoder={"network": {**NETWORK, "points": 3}}))
    plain = made(making(kind))
    assert {n for n, _ in policy.module.named_parameters()} > {n for n, _ in plain.module.named_parameters()}
    policy.module.eval()

    def loss() -> float:
        torch.manual_seed(0)
        return float(policy.loss(looks(2), 0.5 * SPACE.uniform(2, generator=generator()))[0].detach())

    encoder: Any = policy.module["encoder"]  # type: ignore[index]
    before = loss()
    with torch.no_grad():
        encoder.trunks[0].points.features.weight.mul_(-20)
    assert loss() != before
    other: Any = plain.module["encoder"]  # type: ignore[index]
    widths = [one.features(looks(2))[CAMERA].shape[-1] for one in (encoder, other)]
    assert widths[0] == widths[1] + 2 * 3


@every_kind
def test_padding_and_weights(kind: str) -> None:
    """What the mask leaves out does not matter; a weight of 2 is two rows, of 0 none."""
    policy, seen = made(making(kind)), looks(4)
    policy.module.eval()
    actions = 0.8 * SPACE.uniform(4, generator=generator(1))
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]]).bool()

    def at(shown: Tensor, weight: list[float]) -> float:
        torch.manual_seed(3)
        return float(policy.loss(seen, shown, mask=mask, weight=torch.tensor(weight))[0].detach())

    spoiled = torch.where(mask[..., None], actions, math.nan)
    assert at(spoiled, [1.0] * 4) == pytest.approx(at(actions, [1.0] * 4), rel=1e-5)
    single = [at(actions, [float(i == j) for j in range(4)]) for i in range(4)]
    assert at(actions, [1.0, 0.0, 2.0, 0.0]) == pytest.approx(single[0] + 2 * single[2], rel=1e-4)
    policy.loss(seen, spoiled, mask=mask)[0].backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in policy.module.parameters())


def test_what_is_refused() -> None:
    policy = made(making("unet"))
    seen = looks(2)
    actions = SPACE.uniform(2, generator=generator())
    for call, said in (
        (lambda: policy.loss({**seen, "task": ["a"]}, actions), "1 commands for 2 observations"),
        (lambda: policy.loss({k: v for k, v in seen.items() if k != "task"}, actions), 'lack "task"'),
        (lambda: policy.loss(seen, actions[:, :3]), r"the shape \(3, 2\); \(4, 2\)"),
        (lambda: policy.loss(seen, 9 * actions), "works on numbers in"),
        (
            lambda: policy.act(rows_without_history(seen), generator=generator()),
            r"shape \(2,\); \(2, 2\) is expected",
        ),
        (lambda: policy.act({**seen, "task": [1, 2]}, generator=generator()), "sentence 0 is int"),
        (lambda: made(replace(making("unet"), actions=replace(SPACE, horizon=5))), "multiple of 2; it has 5"),
        (lambda: made(making("act", encoder={"images": "vgg"})), "no image network 'vgg'"),
        (lambda: made(making("act", numbers=ActionNumbers((0.0,), (1.0,)))), "and the actions have 2"),
        (lambda: build(Making("gaussian", SEEN, SPACE)), "a history of 2 frames is read by"),
        (
            lambda: build(Making("flow", replace(SEEN, history=1), SPACE, numbers=bound_numbers(SPACE))),
            "numbers are for act, unet",
        ),
        (lambda: ObservationEncoder(SEEN), "not by this encoder"),
    ):
        with pytest.raises(HeedfulError, match=said):
            call()


def rows_without_history(seen: dict[str, Any]) -> dict[str, Any]:
    return {name: value if name == "task" else value[:, 0] for name, value in seen.items()}


def test_angles_have_no_density() -> None:
    space = ActionSpace((-1.0,) * 3 + (-4.0,) * 3 + (0.0,), (1.0,) * 3 + (4.0,) * 3 + (1.0,), horizon=4)
    shown = space.uniform(50, generator=generator())
    for kind in SMALL:
        policy = made(making(kind, space=space, numbers=ranges(shown, euler=[3], keep=[6])))
        assert policy.act(looks(2), 2, generator=generator()).shape == (2, 2, 4, 7)
        assert policy.loss(looks(4), shown[:4])[0].isfinite()
        with pytest.raises(HeedfulError, match="no density over Euler angles"):
            policy.log_prob(policy.encode(looks(2)), shown[:2, None])


# ---- what they learn


def learned(
    kind: str, seen: ObservationSpace, batch: dict[str, Any], actions: Tensor, tmp_path: Path
) -> Tensor:
    """The error of each row after a short training by `fit`: mean absolute, as a share of the bounds, (B,)."""
    recipe = making(kind, seen, ActionSpace((-1.0,), (1.0,), horizon=4), ema=0.05)
    policy = made(replace(recipe, head={**SMALL[kind], **QUICK[kind]}))
    table = [
        ChunkBatch(rows(batch, [i]), actions[i : i + 1], torch.ones(1, 4).bool()) for i in range(len(actions))
    ]
    cfg = FitConfig(
        lr=5e-3,
        batch_size=8,
        max_steps=STEPS[kind],
        schedule="constant",
        save_every=0,
        quiet=True,
        precision="fp32",
    )
    with open_run(tmp_path / kind, {"kind": kind}, seed=0) as run:
        fit(
            "act",
            chunk_objective(policy),
            policy.module,
            table * 16,
            cfg,
            run,
            collate=collate_chunks,
            after_step=policy.after_step,
            state=policy.state(),
        )
    drawn = policy.act(batch, 8, generator=generator())
    return (drawn - actions[:, None]).abs().mean((1, 2, 3)) / 2


STEPS = {"act": 100, "unet": 110}
QUICK: dict[str, dict[str, Any]] = {"act": {}, "unet": {"widths": (16,), "noises": 8}}
UP, DOWN = (torch.linspace(0.2, 0.8, 4), torch.linspace(-0.2, -0.8, 4))


@every_kind
def test_two_commands_become_two_actions(kind: str, tmp_path: Path) -> None:
    seen = ObservationSpace({"state": (2,)})
    batch = {"state": torch.zeros(2, 2), "task": ["move left", "move right"]}
    errors = learned(kind, seen, batch, torch.stack([UP, DOWN])[..., None], tmp_path)
    assert errors.max() < 0.12, errors  # 0.25 for what ignores the command


@every_kind
def test_what_is_seen_decides(kind: str, tmp_path: Path) -> None:
    """The same command with a spot on the left or the right of the image."""
    seen = ObservationSpace({CAMERA: (3, 16, 16)})
    images = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    images[0, :, 4:12, 1:6] = images[1, :, 4:12, 10:15] = 255
    errors = learned(
        kind, seen, {CAMERA: images, "task": ["go"] * 2}, torch.stack([UP, DOWN])[..., None], tmp_path
    )
    assert errors.max() < 0.12, errors


@every_kind
def test_what_was_seen_before_decides(kind: str, tmp_path: Path) -> None:
    """The newest frame is the same: only the one before tells the two apart."""
    seen = ObservationSpace({"state": (1,)}, history=2)
    batch = {"state": torch.tensor([[[1.0], [0.0]], [[-1.0], [0.0]]]), "task": ["go"] * 2}
    errors = learned(kind, seen, batch, torch.stack([UP, DOWN])[..., None], tmp_path)
    assert errors.max() < 0.12, errors


# ---- ACT


def test_act_takes_the_last_layer_and_its_bound_is_a_bound() -> None:
    """With an encoder of actions that ignores them, the evidence bound is below the log of the mean density over z."""
    policy = made(making("act"))
    head: Any = policy.module["head"]  # type: ignore[index]
    policy.module.eval()
    scene = policy.encode(looks(2))
    x = torch.rand(2, 1, 8, generator=generator()) - 0.5
    bound = head.log_prob(scene, x)[..., 0]
    z = torch.randn(2, 4000, 4, generator=generator())
    with torch.no_grad():
        predicted = head.chunks(head.seen(scene), z)
    density = torch.distributions.Laplace(predicted, 1.0).log_prob(x).sum(-1)
    exact = density.logsumexp(1) - math.log(4000)
    assert (bound[:, 0] <= exact + 0.02).all() and (bound[:, 0] > exact - 5).all()
    assert len(head.decode.layers) == 1
    deep = made(replace(making("act"), head={**SMALL["act"], "decoder_layers": 3}))
    inner: Any = deep.module["head"]  # type: ignore[index]
    torch.manual_seed(0)
    deep.loss(looks(2), SPACE.uniform(2, generator=generator()))[0].backward()
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0 for p in inner.decode.layers[-1].linear2.parameters()
    )


def test_positions_are_those_of_vaswani_and_detr() -> None:
    line = line_positions(5, 6)
    assert line[3, 2].item() == pytest.approx(math.sin(3 / 10_000 ** (2 / 6)))
    assert line[3, 3].item() == pytest.approx(math.cos(3 / 10_000 ** (2 / 6)))
    grid = grid_positions(4, 3, 8)
    assert grid.shape == (8, 4, 3)
    assert torch.equal(grid[:4, :, 0], grid[:4, :, 2]) and torch.equal(grid[4:, 0], grid[4:, 3])
    assert grid[0, 1, 0].item() == pytest.approx(math.sin(2 * math.pi * 2 / 4), abs=1e-6)
    assert len({tuple(grid[:, i, j].tolist()) for i in range(4) for j in range(3)}) == 12


# ---- diffusion


def test_noises_of_one_observation_are_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = made(making("unet"))
    head: Any = policy.module["head"]  # type: ignore[index]
    seen: list[tuple[int, ...]] = []
    condition, forward = head.net.condition, head.net.forward

    def spy(given: Tensor, x: Tensor, time: Tensor) -> Tensor:
        seen.append((*given.shape[:2], *x.shape[:2]))
        return forward(given, x, time)

    monkeypatch.setattr(head.net, "forward", spy)
    monkeypatch.setattr(head.net, "condition", lambda scene: condition(scene))
    policy.loss(looks(3), SPACE.uniform(3, generator=generator()))
    assert seen == [(3, 1, 3, 4)]


def test_the_unet_sees_time_and_every_step_of_a_chunk() -> None:
    policy = made(making("unet"))
    head: Any = policy.module["head"]  # type: ignore[index]
    condition = head.net.condition(policy.encode(looks(1)))
    x = torch.randn(1, 1, 8, generator=generator()).requires_grad_()
    out = head.net(condition, x, torch.tensor(3.0))
    other = head.net(condition, x, torch.tensor(7.0))
    assert out.shape == (1, 1, 8) and (out - other).abs().max() > 1e-4
    out[0, 0, 0].backward()
    assert (x.grad != 0).all()  # type: ignore[operator]


# ---- the sizes


def test_sizes_are_the_papers() -> None:
    """Widths, layers and options; built with image networks small enough for a test."""
    seen = ObservationSpace({"state": (7,), CAMERA: (3, 64, 64)})
    shown = torch.randn(20, 7, generator=generator())
    space = ActionSpace((-4.0,) * 7, (4.0,) * 7, horizon=16)
    act = actions_build.act_making(seen, space, z_scores(shown), size="paper", sentences="words")
    assert (act.encoder["images"], act.encoder["pooling"], act.encoder["crop"]) == (
        "efficientnet",
        "cls",
        0.95,
    )
    assert (act.head["hidden"], act.head["feedforward"], act.head["heads"]) == (512, 3200, 8)
    assert (act.head["encoder_layers"], act.head["decoder_layers"], act.head["kl_weight"]) == (4, 7, 80.0)
    tiny = {"width_coefficient": 0.2, "depth_coefficient": 0.1, "hidden_dim": 256, "depthwise_padding": []}
    encoder = {**act.encoder, "network": {"hub": tiny}}
    small = replace(act, head={**SMALL["act"]}, encoder=encoder)
    assert made(small).act(looks(1, seen), generator=generator()).shape == (1, 1, 16, 7)
    unet = actions_build.unet_making(seen, space, ranges(shown), size="paper", sentences="words")
    assert (unet.encoder["images"], unet.encoder["pooling"], unet.encoder["film"]) == ("resnet", "sum", False)
    assert (unet.head["widths"], unet.head["hidden"], unet.head["noises"]) == (
        (256, 512, 1024),
        (1024, 512, 512),
        8,
    )
    assert round(unet.encoder["crop"] * 128) == 116 and unet.ema
    bottleneck = {"depths": [1, 1], "hidden_sizes": [32, 64], "embedding_size": 16}
    encoder = {**unet.encoder, "network": {"hub": bottleneck}}
    policy = made(replace(unet, head=SMALL["unet"], encoder=encoder))
    assert not any(isinstance(part, nn.BatchNorm2d) for part in policy.module.modules())
    assert policy.act(looks(1, seen), generator=generator()).shape == (1, 1, 16, 7)
    for size in (actions_build.act_making, actions_build.unet_making):
        laptop = made(size(seen, space, ranges(shown), sentences="words"))
        assert 5e5 < sum(p.numel() for p in laptop.module.parameters()) < 8e6
        with pytest.raises(HeedfulError, match="no size 'huge'"):
            size(seen, space, ranges(shown), size="huge")  # type: ignore[arg-type]
    assert actions_act.LAPTOP["hidden"] == 128 and actions_unet.LAPTOP["sample_steps"] == 10


# ---- carrying chunks out


def test_what_is_executed_of_a_chunk() -> None:
    chunk = torch.arange(16.0)[:, None]
    assert executed(chunk, steps=8, past=1)[:, 0].tolist() == list(range(1, 9))
    for steps, past in ((16, 1), (0, 0), (1, -1)):
        with pytest.raises(HeedfulError, match="a chunk of 16 steps"):
            executed(chunk, steps=steps, past=past)


def test_the_oldest_chunk_weighs_most() -> None:
    ensemble = TemporalEnsemble(k=0.5)
    ensemble.add(0, torch.full((4, 1), 1.0))
    ensemble.add(2, torch.full((4, 1), 3.0))
    assert ensemble.at(1).item() == 1.0
    weight = math.exp(-0.5)
    assert ensemble.at(2).item() == pytest.approx((1 + 3 * weight) / (1 + weight))
    assert ensemble.at(5).item() == 3.0
    ensemble.add(5, torch.zeros(1, 1))
    ensemble.clear()
    with pytest.raises(HeedfulError, match="no chunk says what to do at step 5"):
        ensemble.at(5)


# ---- what is seen


def test_film_begins_as_the_identity_and_then_matters() -> None:
    encoder = TaskEncoder(replace(SEEN, history=1), network=NETWORK)
    encoder.eval()
    one = looks(1, encoder.space)
    two = {**one, "task": ["something else"]}
    plain = encoder.features(one)[CAMERA]
    assert torch.equal(encoder(one).maps[CAMERA].flatten(2), plain)
    assert not torch.equal(encoder(one).language, encoder(two).language)
    with torch.no_grad():
        for film in encoder.trunks[0].films:  # type: ignore[union-attr]
            film.layer.weight.normal_(0, 0.5)
    assert not torch.equal(encoder(one).maps[CAMERA], encoder(two).maps[CAMERA])
    assert torch.equal(encoder.features(two)[CAMERA], plain)


def test_a_scene_has_every_frame_normalised() -> None:
    encoder = TaskEncoder(SEEN, network=NETWORK, sentences="")
    seen = {k: v for k, v in looks(2).items() if k != "task"}
    scene = encoder.eval()(seen)
    assert isinstance(scene, Scene) and len(scene) == 2 and scene.language.shape == (2, 0)
    wanted = (seen["state"] - torch.tensor([1.0, 0.0])) / torch.tensor([2.0, 1.0])
    torch.testing.assert_close(scene.numbers, wanted.flatten(1))
    assert scene.maps[CAMERA].shape == (2, 2, 8, 4, 4)
    swapped = {name: value.flip(1) for name, value in seen.items()}
    torch.testing.assert_close(encoder(swapped).maps[CAMERA], scene.maps[CAMERA].flip(1))
