"""Parts that policies which follow commands are made of: rotations, action numbers, augmentation, image networks,
sentences."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from heedful.errors import HeedfulError
from heedful.policies.actions import ActionSpace
from heedful.policies.actions.numbers import ActionNumbers, ranges, z_scores
from heedful.policies.augment import TO_YIQ, Jitter, cropped, jittered
from heedful.policies.history import FrameHistory
from heedful.policies.rotations import (
    euler_to_matrix,
    euler_to_rot6d,
    matrix_to_euler,
    matrix_to_rot6d,
    rot6d_to_euler,
    rot6d_to_matrix,
)
from heedful.policies.sentences import Sentences, distinct, hashed_words
from heedful.policies.trunks import Keypoints, Trunk

quick = settings(max_examples=30, deadline=None)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---- rotations


def test_euler_angles_are_scipys_xyz() -> None:
    scipy = pytest.importorskip("scipy.spatial.transform")
    angles = (torch.rand(200, 3, generator=generator(), dtype=torch.float64) * 2 - 1) * math.pi
    wanted = scipy.Rotation.from_euler("xyz", angles.numpy()).as_matrix()
    np.testing.assert_allclose(euler_to_matrix(angles).numpy(), wanted, atol=1e-12)
    back = scipy.Rotation.from_matrix(wanted).as_euler("xyz")
    np.testing.assert_allclose(matrix_to_euler(torch.from_numpy(wanted)).numpy(), back, atol=1e-9)
    # DROID's six numbers: the first two rows
    assert torch.equal(matrix_to_rot6d(torch.arange(9.0).view(3, 3)), torch.arange(6.0))


@quick
@given(seed=st.integers(0, 2**31), pole=st.booleans())
def test_rotations_come_back(seed: int, pole: bool) -> None:
    angles = (torch.rand(5, 3, generator=generator(seed), dtype=torch.float64) * 2 - 1) * math.pi
    if pole:
        angles[:, 1] = math.copysign(math.pi / 2, angles[0, 1].item())
    matrix = euler_to_matrix(angles)
    torch.testing.assert_close(rot6d_to_matrix(euler_to_rot6d(angles)), matrix)
    torch.testing.assert_close(
        euler_to_matrix(rot6d_to_euler(euler_to_rot6d(angles))), matrix, atol=1e-6, rtol=0
    )
    # any six numbers give a rotation
    free = torch.randn(5, 6, generator=generator(seed), dtype=torch.float64)
    found = rot6d_to_matrix(free)
    torch.testing.assert_close(found @ found.mT, torch.eye(3, dtype=torch.float64).expand(5, 3, 3))
    torch.testing.assert_close(torch.linalg.det(found), torch.ones(5, dtype=torch.float64))


def test_six_numbers_do_not_jump_where_angles_do() -> None:
    near = torch.tensor([[0.0, 0.0, math.pi - 1e-3], [0.0, 0.0, -math.pi + 1e-3]])
    assert (near[0] - near[1]).abs().max() > 6
    assert (euler_to_rot6d(near[0]) - euler_to_rot6d(near[1])).abs().max() < 0.01


# ---- numbers that stand for actions


def droid(n: int) -> Tensor:
    """xyz, Euler angles, gripper."""
    x = torch.rand(n, 7, generator=generator()) * 2 - 1
    x[:, 3:6] *= math.pi
    x[:, 6] = x[:, 6].abs()
    return x


@pytest.mark.parametrize("make", [lambda a: z_scores(a, euler=[3]), lambda a: ranges(a, euler=[3], keep=[6])])
def test_numbers_and_actions_are_each_others_inverse(make: Any) -> None:
    actions = droid(60).view(20, 3, 7)
    numbers = make(actions)
    assert (numbers.size, numbers.per_action) == (10, 7)
    encoded = numbers.encode(actions)
    back = numbers.decode(encoded)
    assert encoded.shape == (20, 3, 10)
    torch.testing.assert_close(back[..., [0, 1, 2, 6]], actions[..., [0, 1, 2, 6]], atol=1e-5, rtol=0)
    torch.testing.assert_close(
        euler_to_matrix(back[..., 3:6]), euler_to_matrix(actions[..., 3:6]), atol=1e-4, rtol=0
    )
    again = ActionNumbers.from_json(
        {"shift": list(numbers.shift), "scale": list(numbers.scale), "euler": [3]}
    )
    assert again == numbers


@pytest.mark.parametrize("make", [z_scores, ranges])
def test_velocities_are_learned_as_where_they_lead(make: Any) -> None:
    chunks = torch.randn(50, 8, 3, generator=generator())
    numbers = make(chunks, sums=[0, 2])
    encoded = numbers.encode(chunks)
    led = chunks.cumsum(1)
    raw = encoded * torch.tensor(numbers.scale) + torch.tensor(numbers.shift)
    torch.testing.assert_close(raw[..., [0, 2]], led[..., [0, 2]])
    torch.testing.assert_close(raw[..., 1], chunks[..., 1])
    torch.testing.assert_close(numbers.decode(encoded), chunks)
    # one step's noise that the next one takes back does not show in where the chunk leads
    noisy = chunks + torch.tensor([1.0, -1.0] * 4)[:, None] * torch.tensor([1.0, 0.0, 0.0])
    moved = (numbers.encode(noisy) - encoded)[:, :, 0]
    assert moved[:, 1::2].abs().max() < 1e-5 < moved[:, ::2].abs().min()
    assert ActionNumbers.from_json(asdict(numbers)) == numbers
    with pytest.raises(HeedfulError, match="not all places"):
        make(chunks, sums=[3])


def test_ranges_leave_the_gripper_and_z_scores_have_a_floor() -> None:
    actions = droid(500)
    actions[:, 0] = 0.25
    unit = ranges(actions, euler=[3], keep=[6]).encode(actions)
    assert torch.equal(unit[:, 9], actions[:, 6]) and unit[:, 0].abs().max() == 0
    assert unit[:, 1:9].amax(0).sub(1).abs().max() < 1e-5 and unit[:, 1:9].amin(0).add(1).abs().max() < 1e-5
    numbers = z_scores(actions, euler=[3])
    z = numbers.encode(actions)
    assert numbers.scale[0] == pytest.approx(0.01) and z[:, 1:].std(0, correction=0).sub(1).abs().max() < 1e-4
    assert z.mean(0).abs().max() < 1e-4
    for call, said in (
        (lambda: ranges(actions, euler=[3], keep=[4]), "number 4 is an angle"),
        (lambda: z_scores(actions[:0]), "none, or some are not finite"),
        (lambda: z_scores(actions * math.nan), "not finite"),
        (lambda: ActionNumbers((0.0,), (0.0,)), "scales above 0"),
        (lambda: ActionNumbers((0.0,) * 12, (1.0,) * 12, (0, 2)), "overlap"),
        (lambda: numbers.check(ActionSpace((0.0,), (1.0,))), "stand for 7 numbers, and the actions have 1"),
    ):
        with pytest.raises(HeedfulError, match=said):
            call()


# ---- keypoints


def test_a_keypoint_is_where_its_feature_is() -> None:
    points = Keypoints(2, 2)
    with torch.no_grad():
        points.features.weight.copy_(torch.eye(2)[:, :, None, None] * 100)
    maps = torch.zeros(3, 2, 5, 9)
    for image, (row, column) in enumerate(((0, 0), (4, 8), (2, 2))):
        maps[image, 0, row, column] = maps[image, 1, 4 - row, 8 - column] = 1.0
    found = points(maps)  # columns of both, rows of both
    wanted = torch.tensor([[-1.0, 1, -1, 1], [1, -1, 1, -1], [-0.5, 0.5, 0, 0]])
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


# ---- augmentation


def test_crops_are_random_by_observation_and_the_middle_otherwise() -> None:
    place = torch.arange(8)[:, None] * 10 + torch.arange(8)
    images = place.expand(40, 2, 3, 8, 8)
    middle = cropped(images, 4, 6, random=False)
    assert middle.shape == (40, 2, 3, 4, 6) and middle[0, 0, 0, 0, 0] == 21
    torch.manual_seed(0)
    some = cropped(images, 4, 6, random=True)
    corners = some[:, :, :, 0, 0]
    assert (corners == corners[:, :1, :1]).all()  # frames and colours of one observation move together
    assert len(corners[:, 0, 0].unique()) > 8
    assert torch.equal(some - corners[..., None, None], (place[:4, :6] - place[0, 0]).expand(40, 2, 3, 4, 6))
    assert cropped(images, 8, 8, random=True) is images
    with pytest.raises(ValueError, match="does not fit"):
        cropped(images, 9, 8, random=True)


def test_jitter_is_brightness_contrast_saturation_and_hue_one_after_the_other() -> None:
    images = torch.rand(5, 2, 3, 4, 6, generator=generator()) * 0.2 + 0.4
    how = Jitter(0.1, 0.2, 0.3, 0.04)
    torch.manual_seed(3)
    found = jittered(images, how)
    torch.manual_seed(3)
    by = torch.rand(4, 5) * 2 - 1
    luma, to = torch.tensor(TO_YIQ[0]), torch.tensor(TO_YIQ)
    for i, image in enumerate(images):
        seen = image.movedim(1, 3) * (1 + 0.1 * by[0, i])
        mean = (seen @ luma).mean()
        seen = mean + (seen - mean) * (1 + 0.2 * by[1, i])
        dull = (seen @ luma)[..., None]
        seen = dull + (seen - dull) * (1 + 0.3 * by[2, i])
        y, one, two = (seen @ to.T).unbind(-1)
        angle = 2 * torch.pi * 0.04 * by[3, i]
        turned = (y, one * angle.cos() - two * angle.sin(), one * angle.sin() + two * angle.cos())
        wanted = torch.stack(turned, -1) @ torch.linalg.inv(to).T
        assert wanted.min() > 0 and wanted.max() < 1
        torch.testing.assert_close(found[i], wanted.movedim(3, 1), atol=2e-6, rtol=0)


def test_jitter_changes_what_it_says() -> None:
    images = torch.rand(6, 2, 3, 5, 5, generator=generator()) * 0.4 + 0.3
    torch.manual_seed(0)
    assert torch.allclose(jittered(images, Jitter(0, 0, 0, 0)), images, atol=1e-6)
    bright = jittered(images, Jitter(0.2, 0, 0, 0)) / images
    assert (bright - bright.mean((1, 2, 3, 4), keepdim=True)).abs().max() < 1e-5
    assert bright.amax() <= 1.2 + 1e-5 and bright.mean((1, 2, 3, 4)).std() > 0.02
    grey = images.mean(2, keepdim=True).expand_as(images)
    for how in (Jitter(0, 0, 0.3, 0), Jitter(0, 0, 0, 0.5)):
        torch.testing.assert_close(jittered(grey, how), grey, atol=2e-3, rtol=0)
        assert (jittered(images, how) - images).abs().max() > 0.01
    twice = jittered(images[:, :1].expand(-1, 2, -1, -1, -1), Jitter())
    assert torch.equal(twice[:, 0], twice[:, 1])
    depth = torch.rand(2, 1, 1, 4, 4)
    assert jittered(depth, Jitter()) is depth
    with pytest.raises(ValueError, match="between 0 and 1"):
        Jitter(hue=2.0)


# ---- image networks


HUB: dict[str, dict[str, Any]] = {
    "resnet": {"depths": [1, 2], "hidden_sizes": [32, 64], "embedding_size": 16, "layer_type": "basic"},
    "efficientnet": {
        "width_coefficient": 0.2,
        "depth_coefficient": 0.1,
        "hidden_dim": 256,
        "depthwise_padding": [],
        "drop_connect_rate": 0.0,
    },
}


@pytest.mark.parametrize("kind", HUB)
def test_networks_of_transformers(kind: Any, tmp_path: Path) -> None:
    """FiLM after each stage, batch norms replaced or frozen, pretrained weights taken over, normalised once."""
    import transformers

    torch.manual_seed(0)
    name = {"resnet": "ResNet", "efficientnet": "EfficientNet"}[kind]
    model = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**HUB[kind]))
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
                part.weight.uniform_(0.5, 1.5)
    model.save_pretrained(tmp_path / "net")
    trunk = Trunk(kind, 3, language=5, pretrained=str(tmp_path / "net"), norm="frozen").train()
    images = torch.rand(2, 3, 32, 32, generator=generator())
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    before = {k: v.clone() for k, v in trunk.state_dict().items()}
    wanted = model.eval()((images - mean) / std).last_hidden_state
    torch.testing.assert_close(trunk(images), wanted)
    torch.testing.assert_close(trunk(images, torch.randn(2, 5)), wanted)
    assert all(torch.equal(v, before[k]) for k, v in trunk.state_dict().items())  # no running mean moved
    assert trunk.films is not None and len(trunk.films) == len(trunk.stages)
    with torch.no_grad():
        trunk.films[-1].layer.weight.fill_(0.3)
    assert not torch.allclose(trunk(images, torch.ones(2, 5)), wanted)
    grouped = Trunk(kind, 3, hub=HUB[kind])
    assert not any(isinstance(part, nn.BatchNorm2d) for part in grouped.modules())
    assert tuple(grouped(images).shape[1:]) == grouped.shape(3, 32, 32)
    # a row's result depends on that row alone
    torch.testing.assert_close(grouped.eval()(images)[:1], grouped(images[:1]), rtol=1e-4, atol=1e-5)
    other = "resnet" if kind == "efficientnet" else "efficientnet"
    for call, said in (
        (lambda: Trunk(other, 3, pretrained=str(tmp_path / "net")), f"is a {kind}, not a {other}"),
        (lambda: Trunk(kind, 3, pretrained="x", hub=HUB[kind]), "leave hub out"),
        (lambda: Trunk(kind, 1), "3 colours, not 1"),
        (lambda: Trunk("conv", 3, pretrained="x"), "always new"),
        (lambda: Trunk(kind, 3, hub=HUB[kind], points=4), "keypoints are for"),
        (lambda: Trunk("conv", 3, norm="batch"), "no image network"),  # type: ignore[arg-type]
    ):
        with pytest.raises(HeedfulError, match=said):
            call()


# ---- sentences


def test_each_sentence_is_encoded_once() -> None:
    sentences = Sentences()
    calls: list[list[str]] = []
    first = sentences(["go left", "go right", "go left"])
    inner = sentences._embed
    assert inner is not None
    sentences._embed = lambda texts: calls.append(list(texts)) or inner(texts)
    again = sentences(["go right", "go up", "go up", "go left"])
    assert calls == [["go up"]] and sentences.encoded == 3
    assert torch.equal(first[0], first[2]) and torch.equal(again[3], first[0])
    assert sentences([]).shape == (0, sentences.size)
    assert distinct(["a", "b", "a"]) == ["a", "b"]
    with pytest.raises(HeedfulError, match="sentence 1 is NoneType"):
        sentences(["a", None])  # type: ignore[list-item]


def test_hashed_words_are_near_where_words_are_shared() -> None:
    a, b, c = (hashed_words(t) for t in ("pick up the red cube", "Pick up the blue cube!", "close it now"))
    assert np.linalg.norm(a) == pytest.approx(1.0, abs=1e-6)
    assert a @ b > 0.5 > abs(a @ c) + 0.2
    assert a @ hashed_words("cube red the up pick") < 0.99  # order counts
    assert not hashed_words("").any() and np.array_equal(a, hashed_words("pick up the red cube"))


@pytest.mark.parametrize("pooling", ["mean", "cls", "sum"])
def test_an_encoder_from_a_folder(pooling: Any, tmp_path: Path) -> None:
    """DistilBERT's layout, tiny: each pooling, and padding that does not matter."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import DistilBertConfig, DistilBertModel, PreTrainedTokenizerFast

    words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "go", "left", "right", "a", "bit"]
    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 1), ("[SEP]", 2)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]")
    torch.manual_seed(0)
    net = DistilBertModel(
        DistilBertConfig(
            vocab_size=9, dim=16, hidden_dim=32, n_layers=1, n_heads=2, max_position_embeddings=300
        )
    )
    net.save_pretrained(tmp_path / "enc")
    tokenizer.save_pretrained(tmp_path / "enc")
    sentences = Sentences(str(tmp_path / "enc"), pooling)
    texts = ["go left", "go a bit right a bit"]
    found = sentences(texts)
    with torch.no_grad():
        for text, vector in zip(texts, found, strict=True):
            hidden = net.eval()(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
            wanted = {
                "mean": nn.functional.normalize(hidden.mean(0), dim=0),
                "cls": hidden[0],
                "sum": hidden.sum(0),
            }
            torch.testing.assert_close(vector, wanted[pooling], rtol=1e-4, atol=1e-5)
    assert sentences.size == 16
    with pytest.raises(HeedfulError, match="no pooling 'max'"):
        Sentences(str(tmp_path / "enc"), "max")(["go"])  # type: ignore[arg-type]


# ---- histories


def test_a_history_of_frames() -> None:
    history = FrameHistory(3, stride=2)
    with pytest.raises(HeedfulError, match="no frame yet"):
        history.read()
    for step in range(7):
        history.add({"state": np.array([float(step)]), "task": f"t{step}"})
        seen = history.read()
        assert seen["state"][:, 0].tolist() == [max(0, step - 4), max(0, step - 2), step]
        assert seen["task"] == f"t{step}"
    history.clear()
    history.add({"state": torch.tensor([9.0])})
    assert history.read()["state"][:, 0].tolist() == [9, 9, 9]
    plain = FrameHistory(1)
    plain.add({"state": torch.tensor([1.0])})
    assert plain.read()["state"].shape == (1,)
    with pytest.raises(HeedfulError, match="at least 1 frame"):
        FrameHistory(0)
