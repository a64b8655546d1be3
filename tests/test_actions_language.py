"""Language models that act: OpenVLA's tokens and prompt, images in both layouts, one prompt for many actions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import tiny_vision
import torch
from torch import Tensor

from heedful import hub
from heedful.errors import HeedfulError
from heedful.policies.actions import ActionSpace, stack
from heedful.policies.actions.language import LanguageActionPolicy, least_used_ids
from heedful.policies.actions.vision import VisionActionPolicy, VisionLanguage
from heedful.policies.backbone import Lora
from heedful.policies.language import LanguagePolicy

SPACE = ActionSpace((-1.0, -2.0), (1.0, 4.0))
PLAIN: dict[str, Any] = {"device": "cpu", "precision": "fp32"}
TASKS = ["Pick up the red cube", "stop"]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def text_policy(lora: Lora | None = None, space: ActionSpace = SPACE, **options: Any) -> LanguageActionPolicy:
    model = tiny.model()
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(4)  # else no token can be likelier than a few percent
    made = LanguagePolicy(model, tiny.tokenizer(), lora=lora, **PLAIN)
    return LanguageActionPolicy(made, space, **options)


def views(b: int, *cameras: str, seed: int = 0) -> dict[str, Any]:
    g = generator(seed)
    images = {c: torch.randint(0, 256, (b, 3, 20, 12), generator=g).to(torch.uint8) for c in cameras}
    return {"task": [TASKS[i % 2] for i in range(b)], **images}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("vision")
    return {name: tiny_vision.save(root / name, name) for name in ("smolvlm", "paligemma", "paligemma2")}


def vision_policy(
    folder: Path, *cameras: str, lora: Lora | None = None, **options: Any
) -> VisionActionPolicy:
    language = VisionLanguage.load(str(folder), lora=lora, **PLAIN)
    return VisionActionPolicy(language, SPACE, cameras=cameras or ("front",), **options)


LAYOUTS = pytest.mark.parametrize("layout", ["smolvlm", "paligemma", "paligemma2"])

# ---- tokens and prompts


def test_the_least_used_tokens_are_the_last_ones_that_nobody_added() -> None:
    tokenizer = tiny_vision.tokenizer()
    ids = least_used_ids(tokenizer, 5, 420)
    added = set(tokenizer.get_added_vocab().values())
    last = max(i for i in tokenizer.get_vocab().values() if i not in added)
    assert ids == [last - i for i in range(5)] and not added & set(ids)
    # rows of the embedding that are not there cannot be taken
    assert least_used_ids(tokenizer, 5, last) == [last - 1 - i for i in range(5)]
    with pytest.raises(HeedfulError, match="plain tokens; 500 are needed"):
        least_used_ids(tokenizer, 500, 420)


def test_bins_are_those_of_openvla() -> None:
    policy = text_policy()
    numbers = torch.cat([torch.linspace(-1, 1, 1001), torch.tensor([-1.0, 1.0, 0.9999])])
    # its ActionTokenizer: digitize by 256 edges; decode by 255 middles
    edges = np.linspace(-1, 1, 256).astype(np.float32)
    digitised = np.digitize(numbers.numpy(), edges)
    middles = (edges[:-1] + edges[1:]) / 2
    decoded = middles[np.clip(digitised - 1, 0, len(middles) - 1)]
    bins = policy.to_bins(numbers)
    assert bins.tolist() == (digitised - 1).tolist()
    assert policy.ids[0] == policy.ids.max() and (policy.ids.diff() == -1).all()
    torch.testing.assert_close(policy.to_numbers(bins), torch.from_numpy(decoded))
    assert (policy.to_numbers(bins) - numbers).abs().max() < 1 / 250


def test_the_prompt_is_openvlas_and_a_state_is_written_into_it() -> None:
    policy = text_policy(state=([0.0, -1.0], [1.0, 1.0]))
    assert (
        policy.text("Pick up the Cube ", None)
        == "In: What action should the robot take to pick up the cube?\nOut:"
    )
    said = policy.text("stop", torch.tensor([0.5, 9.0]))
    assert said == "In: What action should the robot take to stop? State: 128 255\nOut:"
    encoded = policy.encode({"task": ["stop"], "state": torch.tensor([[0.5, 9.0]])})
    assert policy.language.tokenizer.decode(encoded.prompts[0]) == said


@pytest.mark.parametrize(
    ("observations", "said"),
    [
        ({"state": torch.zeros(1, 2)}, "needs observations with a 'task'"),
        ({"task": ["stop"], "state": torch.zeros(1, 2)}, "between which bounds"),
        ({"task": ["stop " * 300]}, "the model's context is 512"),
    ],
)
def test_observations_it_cannot_read(observations: dict[str, Any], said: str) -> None:
    with pytest.raises(HeedfulError, match=said):
        text_policy().encode(observations)


# ---- drawing


def test_actions_are_drawn_as_often_as_they_are_likely() -> None:
    policy = text_policy(space=ActionSpace((-1.0,), (1.0,), horizon=2), bins=4)
    observations = {"task": TASKS}
    drawn = policy.act(observations, 3000, generator=generator())
    middles = policy.to_numbers(torch.arange(3))
    pairs = torch.cartesian_prod(middles, middles)[:, :, None]
    encoded = policy.encode(observations)
    with torch.no_grad():
        likely = policy.log_prob(encoded, pairs[None].expand(2, -1, -1, -1)).sum(-1).exp()
    seen = ((drawn[:, :, None] - pairs).abs() < 1e-4).all(-1).all(-1).float().mean(1)
    # the last of the four tokens reads as the third bin, so what it takes is missing from `likely`
    assert (likely.sum(-1) < 1).all() and likely.std() > 0.03
    low = torch.cartesian_prod(torch.arange(3), torch.arange(3)).amax(-1) < 2
    torch.testing.assert_close(seen[:, low], likely[:, low], rtol=0, atol=0.03)
    assert (seen >= likely - 0.03).all()


def test_what_is_drawn_does_not_depend_on_what_it_is_drawn_beside() -> None:
    policy = text_policy()
    observations = {"task": [*TASKS, "open the drawer"]}
    whole = policy.act(observations, 6, generator=generator(3))
    policy.max_rows = 6
    assert torch.equal(policy.act(observations, 6, generator=generator(3)), whole)
    assert len(torch.unique(whole[:, :, 0, 0])) > 4
    low, high = SPACE.bounds(whole)
    assert (whole >= low).all() and (whole <= high).all()


def test_without_shared_prompts_the_same_is_drawn_and_said() -> None:
    policy = text_policy()
    assert policy.language.shares_prefix
    observations = {"task": TASKS}
    encoded = policy.encode(observations)
    drawn = policy.act(observations, 3, generator=generator(1))
    logp = policy.log_prob(encoded, drawn)
    loss = policy.loss(observations, drawn[:, 0])[0]
    policy.language.shares_prefix = False
    assert torch.equal(policy.act(observations, 3, generator=generator(1)), drawn)
    torch.testing.assert_close(policy.log_prob(encoded, drawn), logp, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(policy.loss(observations, drawn[:, 0])[0], loss, rtol=1e-4, atol=1e-4)


def test_a_prompt_is_computed_once_for_all_actions(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = text_policy()
    decoder: Any = policy.language.decoder
    seen: list[int] = []
    forward = decoder.forward

    def counted(*args: Any, **inputs: Any) -> Any:
        seen.append(inputs["input_ids"].shape[1])
        return forward(*args, **inputs)

    monkeypatch.setattr(decoder, "forward", counted)
    policy.act({"task": TASKS}, 5, generator=generator())
    prompts = sum(len(p) for p in policy.encode({"task": TASKS}).prompts)
    # both prompts once, then a token for each of ten rows, for all numbers of an action but the last
    assert seen == [prompts, 10]


# ---- learning


def test_lora_learns_what_to_do_when_it_is_told_to() -> None:
    policy = text_policy(Lora(rank=8, alpha=16.0))
    trained = [p for p in policy.module.parameters() if p.requires_grad]
    assert 0 < sum(p.numel() for p in trained) < sum(p.numel() for p in policy.module.parameters()) / 2
    observations, actions = {"task": TASKS}, torch.tensor([[[0.5, -1.0]], [[-0.5, 2.5]]])
    before = policy.fingerprint()
    optimizer = torch.optim.Adam(trained, lr=5e-3)
    policy.module.train()
    loss = torch.zeros(())
    for _ in range(40):
        loss, _ = policy.loss(observations, actions)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.3 and policy.fingerprint() != before
    drawn = policy.act(observations, 8, temperature=0.0, generator=generator())
    assert ((drawn - actions[:, None]).abs() < torch.tensor([0.01, 0.03])).all()
    samples = policy.sample([{"task": TASKS[0]}], 4, generator=generator())
    logp, mask = policy.logp(samples)
    assert logp.shape == (4, 2) and mask.all() and logp.sum(-1).max() > -0.5


def test_the_loss_is_the_models_own_with_its_end_token() -> None:
    policy = text_policy()
    observations, actions = {"task": TASKS}, torch.tensor([[[0.5, -1.0]], [[-0.5, 2.5]]])
    weight = torch.tensor([1.0, 3.0])
    loss, _ = policy.loss(observations, actions, weight=weight)
    total = 0.0
    for i, prompt in enumerate(policy.encode(observations).prompts):
        bins = policy.to_bins(SPACE.to_unit(actions[i]))
        ids = [*prompt, *policy.ids[bins].tolist(), policy.language.tokenizer.eos_token_id]
        labels = torch.tensor([[-100] * len(prompt) + ids[len(prompt) :]])
        model: Any = policy.language.transformer
        total += (weight[i] * model(input_ids=torch.tensor([ids]), labels=labels).loss).item()
    assert loss.item() == pytest.approx(total / 2, rel=1e-4)


# ---- images


def reference(policy: VisionActionPolicy, observations: dict[str, Any], i: int, ids: list[int]) -> Tensor:
    """Log-probabilities of a completion by the transformers model as it is, one observation by itself."""
    model: Any = policy.language.transformer
    prompt = policy.encode(observations).prompts[i]
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.5, 0.5, 0.25])
    pixels = torch.stack([observations[c][i].float() / 255 for c in policy.cameras])
    pixels = torch.nn.functional.interpolate(pixels, (16, 16), mode="bilinear", antialias=True)
    pixels = (pixels - mean[:, None, None]) / std[:, None, None]
    tokens = torch.tensor([[*prompt, *ids]])
    more: dict[str, Any] = {"pixel_values": pixels[None]}
    if policy.language.prefix_is_open:
        kinds = torch.arange(tokens.shape[1])[None] >= len(prompt)
        more = {"pixel_values": pixels, "token_type_ids": kinds.long()}
    logits = model(input_ids=tokens, **more).logits[0, len(prompt) - 1 : -1]
    return logits.float().log_softmax(-1).gather(-1, torch.tensor(ids)[:, None]).squeeze(-1)


@LAYOUTS
@pytest.mark.parametrize("cameras", [("front",), ("front", "wrist")])
def test_actions_have_the_probabilities_the_model_itself_gives(
    folders: dict[str, Path], layout: str, cameras: tuple[str, ...]
) -> None:
    policy = vision_policy(folders[layout], *cameras)
    assert policy.language.shares_prefix == (layout != "paligemma2")
    observations = views(2, *cameras)
    encoded = policy.encode(observations)
    actions = SPACE.uniform(2, 3, generator=generator())
    ids = policy.ids[policy.to_bins(SPACE.to_unit(actions))]
    from heedful.policies.packing import Group

    groups = [Group(p, rows) for p, rows in zip(encoded.prompts, ids.tolist(), strict=True)]
    with torch.no_grad():
        logp, _ = policy.token_logp(encoded, groups)
        restricted = policy.log_prob(encoded, actions).flatten(0, 1)
        wanted = torch.stack(
            [reference(policy, observations, i, row) for i in range(2) for row in ids[i].tolist()]
        )
    torch.testing.assert_close(logp, wanted, rtol=1e-3, atol=1e-3)
    # among action tokens alone each is likelier, by the same factor for the first token of an observation
    gain = (restricted - logp)[:, 0].view(2, 3)
    assert (restricted > logp).all()
    torch.testing.assert_close(gain, gain[:, :1].expand(-1, 3), rtol=1e-3, atol=1e-3)
    # what it sees matters
    other = policy.encode(views(2, *cameras, seed=1))
    with torch.no_grad():
        assert (policy.log_prob(other, actions).flatten(0, 1) - restricted).abs().max() > 0.01


@LAYOUTS
def test_images_and_prompt_are_computed_once(
    folders: dict[str, Path], layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = vision_policy(folders[layout], "front", "wrist")
    observations = views(3, "front", "wrist")
    drawn = policy.act(observations, 4, generator=generator(2))
    assert drawn.shape == (3, 4, 1, 2) and len(torch.unique(drawn[..., 0])) > 4
    looks: list[int] = []
    features = policy.language.image_features
    monkeypatch.setattr(policy.language, "image_features", lambda x: looks.append(len(x)) or features(x))
    assert torch.equal(policy.act(observations, 4, generator=generator(2)), drawn)
    assert looks == [6]
    # by rows that repeat image and prompt, the very same actions
    policy.language.shares_prefix = False
    assert torch.equal(policy.act(observations, 4, generator=generator(2)), drawn)


def test_prompts_of_both_layouts(folders: dict[str, Path]) -> None:
    asked = "In: What action should the robot take to stop?\nOut:"
    one = vision_policy(folders["smolvlm"], "front", "wrist")
    tokenizer = one.language.tokenizer
    image = tiny_vision.BORDER + "<global-img>" + tiny_vision.IMAGE * 4 + tiny_vision.BORDER
    assert one.prompt_ids(asked) == tokenizer(image * 2 + asked)["input_ids"]
    two = vision_policy(folders["paligemma"], "front")
    wanted = tiny_vision.IMAGE * 16 + tokenizer.bos_token + asked + "\n"
    assert two.prompt_ids(asked) == tokenizer(wanted, add_special_tokens=False)["input_ids"]


def test_a_vision_model_learns_by_lora_and_comes_back_from_disk(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    policy = vision_policy(folders["smolvlm"], lora=Lora(rank=4, alpha=8.0))
    observations = views(2, "front")
    observations["task"] = ["stop", "stop"]  # only what it sees tells the two apart
    actions = torch.tensor([[[0.5, -1.0]], [[-0.5, 2.5]]])
    optimizer = torch.optim.Adam([p for p in policy.module.parameters() if p.requires_grad], lr=5e-3)
    loss = torch.zeros(())
    for _ in range(35):
        loss, _ = policy.loss(observations, actions)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.3
    drawn = policy.act(observations, 4, temperature=0.0, generator=generator())
    assert ((drawn - actions[:, None]).abs() < torch.tensor([0.01, 0.03])).all()
    saved = hub.save_model(policy.module, policy.language.tokenizer, tmp_path / "adapter", card="a policy")
    assert (saved / "adapter_model.safetensors").exists()
    again = vision_policy(saved)
    assert torch.equal(again.act(observations, 4, temperature=0.0, generator=generator()), drawn)


def test_what_a_vision_policy_refuses(folders: dict[str, Path]) -> None:
    policy = vision_policy(folders["smolvlm"])
    with pytest.raises(HeedfulError, match="lack the images front"):
        policy.encode({"task": ["stop"]})
    with pytest.raises(HeedfulError, match="name the cameras"):
        VisionActionPolicy(policy.language, SPACE, cameras=())
    with pytest.raises(HeedfulError, match="of the type 'llama'"):
        VisionLanguage(tiny.model(), tiny.tokenizer(), **PLAIN)
    policy.language.tokenizer = tiny.tokenizer(chat=False)
    with pytest.raises(HeedfulError, match="not the one that belongs to this model"):
        policy.prompt_ids("stop")
    assert stack([{"task": "a"}, {"task": "b"}]) == {"task": ["a", "b"]}


def test_an_adapter_trained_in_bfloat16_is_folded_into_the_vision_model_it_belongs_to(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    """Frozen layers were rounded while it was trained; what is folded are the weights as they are in the file."""
    language = VisionLanguage.load(str(folders["smolvlm"]), lora=Lora(rank=4), device="cpu", precision="bf16")
    with torch.no_grad():
        for name, p in language.module.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.1)
    hub.save_model(language.module, language.tokenizer, tmp_path / "whole", card="a policy", merged=True)
    whole = VisionLanguage.load(str(tmp_path / "whole"), **PLAIN).transformer.state_dict()
    plain = VisionLanguage.load(str(folders["smolvlm"]), **PLAIN).transformer.state_dict()
    changed = [name for name in plain if not torch.equal(whole[name], plain[name])]
    assert changed and all(
        (".layers." in name and "norm" not in name) or "connector" in name for name in changed
    )
