"""LoRA adapters added up on their files, against the changes of the weights written out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from tell_adapters import adapter

from heedful import hub
from heedful.errors import HeedfulError
from heedful.model_folder import ADAPTER, ADAPTER_CONFIG
from heedful.policies.adapter_sum import sum_adapters, why_not, write_sum
from heedful.policies.backbone import Lora
from heedful.policies.language import LanguagePolicy

IDS = torch.arange(3, 43).reshape(2, 20)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("base") / "start")


def changes(folder: Path) -> dict[str, torch.Tensor]:
    """alpha / r * B A of every layer, in float64."""
    config = json.loads((folder / ADAPTER_CONFIG).read_text())
    tensors = load_file(folder / ADAPTER)
    return {
        name.removesuffix(".lora_A.weight"): config["lora_alpha"]
        / config["r"]
        * tensors[name.replace("lora_A", "lora_B")].double()
        @ tensors[name].double()
        for name in tensors
        if name.endswith(".lora_A.weight")
    }


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.double()(IDS).logits


def by_hand(base: Path, parts: list[tuple[Path, float]]) -> torch.Tensor:
    """Logits of the base with every change added to its weights."""
    model = hub.load_model(base).double()
    with torch.no_grad():
        for folder, weight in parts:
            for name, change in changes(folder).items():
                model.get_submodule(name.removeprefix("base_model.model.")).weight += weight * change
    return logits(model)


@pytest.mark.parametrize(("rank", "alpha"), [(2, 4), (3, 1), (4, 2.5)])
def test_one_adapter_at_weight_one_is_the_same_bytes(
    base: Path, tmp_path: Path, rank: int, alpha: float
) -> None:
    one = adapter(tmp_path / "one", base, rank=rank, alpha=alpha)
    out = write_sum([one], [1.0], tmp_path / "out", card={})
    for name in (ADAPTER, ADAPTER_CONFIG, "tokenizer.json", "tokenizer_config.json"):
        assert (out / name).read_bytes() == (one / name).read_bytes(), name
    torch.testing.assert_close(logits(hub.load_model(out)), logits(hub.load_model(one)), atol=0, rtol=0)


@pytest.mark.parametrize(
    ("ranks", "alphas", "weights"),
    [((2, 2), (4, 4), (1.0, 1.0)), ((2, 3), (4, 1), (0.3, -1.7)), ((1, 4), (2, 8), (0.5, 2.0))],
)
def test_the_sum_changes_the_weights_by_the_sum_of_the_changes(
    base: Path, tmp_path: Path, ranks: tuple[int, int], alphas: tuple[int, int], weights: tuple[float, float]
) -> None:
    folders = [
        adapter(tmp_path / str(i), base, seed=i, rank=ranks[i], alpha=alphas[i], target_modules="all-linear")
        for i in range(2)
    ]
    out = write_sum(folders, weights, tmp_path / "out", card={})
    dense = [changes(folder) for folder in folders]
    total = changes(out)
    assert set(total) == set(dense[0]) and len(total) == 14
    for name, change in total.items():
        torch.testing.assert_close(
            change, weights[0] * dense[0][name] + weights[1] * dense[1][name], atol=1e-6, rtol=0
        )
    assert json.loads((out / ADAPTER_CONFIG).read_text())["r"] == sum(ranks)
    wanted = by_hand(base, list(zip(folders, weights, strict=True)))
    torch.testing.assert_close(logits(hub.load_model(out)), wanted, atol=1e-5, rtol=0)
    assert (wanted - logits(hub.load_model(base))).abs().max() > 0.1


def test_powers_of_two_are_folded_in_without_rounding(base: Path, tmp_path: Path) -> None:
    folders = [adapter(tmp_path / str(i), base, seed=i, rank=2, alpha=(4, 1)[i]) for i in range(2)]
    config, tensors = sum_adapters(folders, [0.25, -8.0])
    own = [load_file(folder / ADAPTER) for folder in folders]
    for name, tensor in tensors.items():
        if "lora_A" in name:
            assert torch.equal(tensor, torch.cat([own[0][name], own[1][name]]))
        else:  # scalings 2 and 1/2, outside 1
            assert torch.equal(tensor, torch.cat([own[0][name] * 0.5, own[1][name] * -4.0], dim=1))
    assert config["lora_alpha"] == config["r"] == 4


def test_a_half_precision_adapter_keeps_its_bytes_alone_and_its_value_in_a_sum(
    base: Path, tmp_path: Path
) -> None:
    one = adapter(tmp_path / "one", base)
    half = {name: tensor.bfloat16() for name, tensor in load_file(one / ADAPTER).items()}
    save_file(half, one / ADAPTER, metadata={"format": "pt"})
    write_sum([one], [1.0], tmp_path / "same", card={})
    assert (tmp_path / "same" / ADAPTER).read_bytes() == (one / ADAPTER).read_bytes()
    write_sum([one], [0.3], tmp_path / "less", card={})
    for name, change in changes(tmp_path / "less").items():
        torch.testing.assert_close(change, 0.3 * changes(one)[name], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"use_rslora": True}, "rsLoRA"),
        ({"use_dora": True}, "DoRA"),
        ({"bias": "lora_only"}, "bias='lora_only'"),
        ({"lora_bias": True}, "lora_bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"rank_pattern": {"q_proj": 1}}, "rank_pattern"),
        ({"alpha_pattern": {"q_proj": 1}}, "alpha_pattern"),
        ({"trainable_token_indices": [3]}, "trainable_token_indices"),
        ({"target_modules": ["embed_tokens"]}, "no part of a low-rank change"),
    ],
)
def test_what_does_not_add_up_is_refused_with_the_reason(
    base: Path, tmp_path: Path, more: dict[str, Any], reason: str
) -> None:
    odd = adapter(tmp_path / "odd", base, **more)
    with pytest.raises(HeedfulError, match=reason):
        write_sum([odd], [1.0], tmp_path / "out", card={})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"use_rslora": True}, "'b' cannot be added up: it is rsLoRA"),
        ({"use_dora": True}, "'b' cannot be added up: it is DoRA"),
        ({"bias": "all"}, "'b' cannot be added up: it trains biases"),
    ],
)
def test_a_policy_refuses_to_add_up_what_peft_would_add_wrongly(more: dict[str, Any], reason: str) -> None:
    policy = LanguagePolicy(tiny.model(), tiny.tokenizer(), lora=Lora(rank=2), precision="fp32")
    policy.module.add_adapter("b", LoraConfig(r=2, target_modules=["q_proj"], **more))  # type: ignore[operator]
    with pytest.raises(HeedfulError, match=reason):
        policy.add_adapters("sum", {"default": 1.0, "b": 1.0})
    assert "sum" not in policy.module.peft_config  # type: ignore[operator]
    with pytest.raises(HeedfulError, match="at least one"):
        policy.add_adapters("sum", {})


def test_adapters_of_other_layers_or_sizes_are_refused(base: Path, tmp_path: Path) -> None:
    one = adapter(tmp_path / "one", base)
    fewer = adapter(tmp_path / "fewer", base, target_modules=["q_proj"])
    with pytest.raises(HeedfulError, match=r"different layers, and .*down_proj.* is in .*one alone"):
        sum_adapters([fewer, one], [1.0, 1.0])
    wide = tmp_path / "wide-start"
    config = tiny.model().config
    config.hidden_size, config.num_attention_heads, config.num_key_value_heads = 48, 6, 3
    tiny.model(config=config).save_pretrained(wide)
    tiny.tokenizer().save_pretrained(wide)
    wider = adapter(tmp_path / "wider", wide)
    with pytest.raises(HeedfulError, match=r"is \[2, \d+\] and \[2, \d+\]|is \[\d+, 2\] and \[\d+, 2\]"):
        sum_adapters([one, wider], [1.0, 1.0])


def damage(what: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / ADAPTER_CONFIG).read_text())
        if what == "type":
            config["peft_type"] = "IA3"
        elif what == "start":
            config["init_lora_weights"] = "pissa"
        elif what == "rank":
            config["r"] = 5
        elif what == "alpha":
            config["lora_alpha"] = None
        elif what == "tensor":
            save_file(
                {**load_file(folder / ADAPTER), "base_model.model.x.weight": torch.ones(1)}, folder / ADAPTER
            )
        elif what == "torn":
            (folder / ADAPTER).write_bytes((folder / ADAPTER).read_bytes()[:100])
        elif what == "nan":
            tensors = load_file(folder / ADAPTER)
            next(iter(tensors.values()))[0, 0] = float("nan")
            save_file(tensors, folder / ADAPTER)
        (folder / ADAPTER_CONFIG).write_text(json.dumps(config))

    return change


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("type", "no LoRA adapter but IA3"),
        ("start", "init_lora_weights='pissa'"),
        ("rank", "has rank 2, its configuration says 5"),
        ("alpha", "r and lora_alpha must be numbers, not 2, None"),
        ("tensor", "base_model.model.x.weight is no part of a low-rank change"),
        ("torn", "cannot be read"),
        ("nan", "is not finite in"),
    ],
)
def test_damaged_adapters_are_refused(base: Path, tmp_path: Path, what: str, message: str) -> None:
    one = adapter(tmp_path / "one", base)
    damage(what)(one)
    with pytest.raises(HeedfulError, match=message):
        sum_adapters([one], [1.0])


def test_weights_that_are_no_numbers_are_refused(base: Path, tmp_path: Path) -> None:
    one = adapter(tmp_path / "one", base)
    for weights, message in (
        ([float("nan")], "finite number"),
        ([1.0, 2.0], "one weight for each"),
        ([1e300], "smaller weights"),
    ):
        with pytest.raises(HeedfulError, match=message):
            sum_adapters([one], weights)
    with pytest.raises(HeedfulError, match="holds no adapter"):
        sum_adapters([base], [1.0])


def test_plain_lora_is_not_refused() -> None:
    assert why_not(LoraConfig(r=2, target_modules=["q_proj"]).to_dict()) == ""
