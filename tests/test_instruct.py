"""The policy that speaks: it learns what to say from what it sees and saw, over a bank that may grow."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModel, CLIPConfig

from heedful.errors import HeedfulError
from heedful.feedback import Samples
from heedful.fit import FitConfig, fit
from heedful.policies.actions import rows
from heedful.policies.actions.observe import ObservationSpace
from heedful.policies.actions.task import TaskEncoder
from heedful.policies.instruct import (
    FLOOR,
    PAPER,
    InstructionBatch,
    Speaker,
    SpeakerMaking,
    build,
    speaking_objective,
)
from heedful.policies.instruct_files import load_speaker, save_speaker
from heedful.run import open_run

CAMERA = "observation.images.top"
BANK = ("move left a bit", "move right a bit", "open the lid", "wait")
SEEN = ObservationSpace(
    {CAMERA: (3, 16, 16), "state": (2,)}, mean={"state": (1.0, 0.0)}, std={"state": (2.0, 1.0)}, history=4
)
SMALL: dict[str, Any] = {"hidden": 32, "layers": 1, "heads": 2, "feedforward": 64, "dropout": 0.0}
every_head = pytest.mark.parametrize("head", ["cosine", "onehot"])


def making(seen: ObservationSpace = SEEN, **more: Any) -> SpeakerMaking:
    return SpeakerMaking(seen, BANK, **{**SMALL, **more})


def looks(b: int, seed: int = 0) -> dict[str, Any]:
    g = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (b, 4, 3, 16, 16), generator=g).to(torch.uint8)
    return {CAMERA: images, "state": torch.randn(b, 4, 2, generator=g)}


# ---- what it says


@every_head
def test_candidates_are_the_softmax_of_the_logits(head: Any) -> None:
    speaker, seen = build(making(head=head)), looks(3)
    some = speaker.candidates(seen, 3)
    speaker.module.eval()
    with torch.no_grad():
        p = speaker.logits(seen).softmax(-1)
    for row, candidates in zip(p, some, strict=True):
        best = row.sort(descending=True)
        assert [c.command for c in candidates] == [BANK[i] for i in best.indices[:3]]
        assert [c.probability for c in candidates] == pytest.approx(best.values[:3].tolist(), abs=1e-6)
    assert len(speaker.candidates(seen, 99)[0]) == 4
    # a row is the same alone
    alone = speaker.candidates(rows(seen, [1]), 3)[0]
    assert [c.command for c in alone] == [c.command for c in some[1]]


def test_logits_are_cosines_over_the_temperature() -> None:
    speaker, seen = build(making()), looks(2)
    speaker.module.eval()
    assert speaker.module.temperature.item() == pytest.approx(0.07)
    with torch.no_grad():
        logits, z = speaker.logits(seen), speaker.module(seen)
        cosine = torch.nn.functional.cosine_similarity(z[:, None], speaker.embeddings[None], dim=-1)
        torch.testing.assert_close(logits, cosine / 0.07)
        speaker.module.log_temperature.fill_(-100.0)
        assert speaker.module.temperature.item() == pytest.approx(FLOOR)
        assert speaker.logits(seen).abs().max() <= 1 / FLOOR + 1e-3


def test_the_temperature_learns_and_the_bank_does_not() -> None:
    speaker = build(making())
    value, metrics = speaker.loss(looks(4), speaker.labels([BANK[i] for i in (0, 1, 2, 3)]))
    value.backward()
    assert speaker.module.log_temperature.grad is not None and speaker.module.log_temperature.grad != 0
    assert not speaker.embeddings.requires_grad
    assert metrics["temperature"].item() == pytest.approx(0.07) and set(metrics) == {
        "nll",
        "accuracy",
        "temperature",
    }
    onehot = build(making(head="onehot"))
    assert not onehot.module.log_temperature.requires_grad


@every_head
def test_samples_and_their_log_probabilities(head: Any) -> None:
    speaker, seen = build(making(head=head)), looks(2)
    single = [{name: value[i] for name, value in seen.items()} for i in range(2)]
    g = torch.Generator().manual_seed(0)
    samples = speaker.sample(single, 2000, generator=g)
    assert len(samples.outputs) == 4000 and set(samples.outputs) <= set(BANK)
    p = {c.command: c.probability for c in speaker.candidates(seen, 4)[1]}
    for command in BANK:
        share = samples.outputs[2000:].count(command) / 2000
        assert share == pytest.approx(p[command], abs=0.04)
    logp, mask = speaker.logp(Samples(single, [*BANK, *BANK], 4))
    assert logp.shape == (8, 1) and mask.all()
    assert logp[4:].exp().flatten().tolist() == pytest.approx([p[c] for c in BANK], abs=1e-5)
    greedy = speaker.sample(single, 2, temperature=0.0, generator=g)
    assert greedy.outputs == [speaker.candidates(seen, 1)[i][0].command for i in (0, 0, 1, 1)]


# ---- what it learns


def trained(
    recipe: SpeakerMaking, batch: dict[str, Any], said: list[str], tmp_path: Path
) -> tuple[Speaker, float]:
    """(speaker, share it gets right) after a short training by `fit`."""
    speaker = build(recipe)
    labels = speaker.labels(said)
    table = list(range(len(said)))

    def collate(some: list[int]) -> InstructionBatch:
        return InstructionBatch(rows(batch, some), labels[some])

    cfg = FitConfig(
        lr=3e-3, batch_size=8, max_steps=50, schedule="constant", save_every=0, quiet=True, precision="fp32"
    )
    with open_run(tmp_path / "run", {}, seed=0) as run:
        fit("speak", speaking_objective(speaker), speaker.module, table * 8, cfg, run, collate=collate)
    found = [c[0].command for c in speaker.candidates(batch, 1)]
    return speaker, sum(a == b for a, b in zip(found, said, strict=True)) / len(said)


@every_head
def test_what_is_seen_decides(head: Any, tmp_path: Path) -> None:
    seen = ObservationSpace({CAMERA: (3, 16, 16)}, history=2)
    images = torch.zeros(4, 2, 3, 16, 16, dtype=torch.uint8)
    for i, (top, left) in enumerate([(2, 2), (2, 10), (10, 2), (10, 10)]):
        images[i, :, :, top : top + 5, left : left + 5] = 255
    _, right = trained(making(seen, head=head), {CAMERA: images}, list(BANK), tmp_path)
    assert right == 1.0


def test_what_was_seen_before_decides_and_history_can_be_taken_away(tmp_path: Path) -> None:
    """The newest frame is always the same: with it alone nothing can be told apart."""
    past = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    state = torch.stack([torch.zeros(4, 2), past, torch.zeros(4, 2), torch.zeros(4, 2)], 1)
    plain = ObservationSpace({"state": (2,)})
    speaker, right = trained(making(replace(plain, history=4)), {"state": state}, list(BANK), tmp_path / "a")
    assert right == 1.0
    assert min(c[0].probability for c in speaker.candidates({"state": state}, 1)) > 0.5
    _, without = trained(making(plain), {"state": state[:, -1]}, list(BANK), tmp_path / "b")
    assert without == 0.25


def test_the_low_levels_eyes_can_be_used(tmp_path: Path) -> None:
    """Features of the policy that acts, as numbers of the observation."""
    eyes = TaskEncoder(ObservationSpace({CAMERA: (3, 16, 16)}, history=2), network={"widths": (8, 8)}).eval()
    images = torch.zeros(4, 2, 3, 16, 16, dtype=torch.uint8)
    for i, (top, left) in enumerate([(2, 2), (2, 10), (10, 2), (10, 10)]):
        images[i, :, :, top : top + 5, left : left + 5] = 255
    with torch.no_grad():
        features = eyes.features({CAMERA: images})
    size = features[CAMERA].shape[-1]
    assert size == math.prod(eyes.maps[CAMERA])
    seen = ObservationSpace({CAMERA: (size,)}, history=2)
    _, right = trained(making(seen), features, list(BANK), tmp_path)
    assert right == 1.0


def test_a_frozen_vision_model_is_read_and_never_saved(tmp_path: Path) -> None:
    torch.manual_seed(0)
    vision = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 8,
    }
    text = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 50,
    }
    AutoModel.from_config(
        CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)
    ).save_pretrained(tmp_path / "clip")
    recipe = making(images="frozen", pretrained=str(tmp_path / "clip"))
    speaker = build(recipe)
    value, _ = speaker.loss(looks(2), torch.tensor([0, 1]))
    value.backward()
    assert all(p.grad is None for n, p in speaker.module.named_parameters() if n.startswith("frozen."))
    folder = save_speaker(speaker, tmp_path / "s")
    assert (folder / "model.safetensors").stat().st_size < 120_000
    again = load_speaker(folder)
    assert again.candidates(looks(2)) == speaker.candidates(looks(2))
    with pytest.raises(HeedfulError, match="needs the pretrained vision model"):
        build(making(images="frozen"))
    assert PAPER["layers"] == 6 and PAPER["hidden"] == 512 and PAPER["images"] == "frozen"


# ---- the bank


@every_head
def test_a_bank_grows(head: Any) -> None:
    """As corrections bring new words: what was known keeps its place and its odds."""
    speaker, seen = build(making(head=head)), looks(3)
    wider = speaker.with_commands(["wait", "go lower", "go lower", "press down"])
    assert wider.bank == (*BANK, "go lower", "press down") and speaker.with_commands(["wait"]) is speaker
    assert wider.labels(["press down"]).tolist() == [5]
    before = {c.command: c.probability for c in build(making(head=head)).candidates(seen, 9)[0]}
    after = {c.command: c.probability for c in wider.candidates(seen, 9)[0]}
    assert len(after) == 6
    for a, b in pairwise(BANK):
        assert after[a] / after[b] == pytest.approx(before[a] / before[b], rel=1e-4)
    value, _ = wider.loss(seen, wider.labels(["press down", "wait", "go lower"]))
    value.backward()
    assert value.isfinite()


@every_head
def test_the_seed_makes_it_and_a_folder_keeps_it(
    head: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = making(head=head, crop=0.9, jitter={"hue": 0.1})
    speaker = build(recipe, seed=5).with_commands(["größer greifen"])
    folder = save_speaker(speaker, tmp_path / "s")
    # the embeddings lie in the folder: no sentence encoder is needed to speak
    monkeypatch.setattr("heedful.policies.instruct.Sentences", None)
    again = load_speaker(folder)
    assert again.bank == speaker.bank and again.making == speaker.making
    assert again.candidates(looks(3), 5) == speaker.candidates(looks(3), 5)
    config = json.loads((folder / "config.json").read_text())
    assert config["bank"][-1] == "größer greifen"
    (folder / "config.json").write_text(json.dumps({**config, "hidden": 64}))
    with pytest.raises(HeedfulError, match="cannot read"):
        load_speaker(folder)
    (folder / "config.json").write_text(json.dumps({**config, "bank": config["bank"][:3]}))
    with pytest.raises(HeedfulError, match=r"cannot read|of another speaker"):
        load_speaker(folder)
    (folder / "config.json").write_text(json.dumps({**config, "wings": 2}))
    with pytest.raises(HeedfulError, match=r"config\.json is damaged"):
        load_speaker(folder)
    (folder / "config.json").write_text("{}")
    with pytest.raises(HeedfulError, match="holds no speaker"):
        load_speaker(folder)


def test_what_is_refused() -> None:
    speaker = build(making())
    bad: list[tuple[Any, str]] = [
        (lambda: build(replace(making(), bank=())), "at least one command"),
        (lambda: build(replace(making(), bank=("a", "a"))), "each once"),
        (lambda: build(replace(making(), bank=("a", " "))), "none empty"),
        (lambda: build(making(head="max")), "cosine or onehot"),
        (lambda: build(making(temperature=0.005)), "above 0.01"),
        (lambda: build(making(heads=5)), "cannot be made with these options"),
        (lambda: speaker.labels(["wait", "fly"]), "command 1 is 'fly', which is not among the 4"),
        (lambda: speaker.candidates({"state": torch.zeros(1, 4, 2)}), "lack 'observation.images.top'"),
    ]
    for call, said in bad:
        with pytest.raises(HeedfulError, match=said):
            call()


def test_a_weight_of_two_is_two_rows() -> None:
    speaker, seen = build(making()), looks(3)
    speaker.module.eval()

    def at(weight: list[float]) -> float:
        return float(speaker.loss(seen, torch.tensor([0, 1, 2]), weight=Tensor(weight))[0].detach())

    assert at([1.0, 0.0, 2.0]) == pytest.approx(at([1.0, 0, 0]) + 2 * at([0, 0, 1.0]), rel=1e-4)
