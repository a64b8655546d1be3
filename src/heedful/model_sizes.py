"""Sizes of a model from its configuration alone, for plans of memory and cost; no weights are made or fetched."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from heedful import hub
from heedful.errors import HeedfulError
from heedful.model_folder import is_adapter

_MISTRAL_7B: tuple[str, dict[str, Any]] = (
    "mistral",
    {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 32000,
        "max_position_embeddings": 32768,
        "tie_word_embeddings": False,
    },
)
# The shapes of the models in paper presets, so that their plans can be printed without a network.
PUBLISHED: dict[str, tuple[str, dict[str, Any]]] = {
    "EleutherAI/pythia-1.4b": (
        "gpt_neox",
        {
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "vocab_size": 50304,
            "max_position_embeddings": 2048,
            "tie_word_embeddings": False,
        },
    ),
    "Ray2333/GRM-Gemma-2B-rewardmodel-ft": (
        "gemma",
        {
            "hidden_size": 2048,
            "intermediate_size": 16384,
            "num_hidden_layers": 18,
            "num_attention_heads": 8,
            "num_key_value_heads": 1,
            "head_dim": 256,
            "vocab_size": 256000,
            "max_position_embeddings": 8192,
            "tie_word_embeddings": True,
        },
    ),
    "meta-llama/Meta-Llama-3-8B-Instruct": (
        "llama",
        {
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "vocab_size": 128256,
            "max_position_embeddings": 8192,
            "tie_word_embeddings": False,
        },
    ),
    "mistralai/Mistral-7B-v0.1": _MISTRAL_7B,
    "mistralai/Mistral-7B-Instruct-v0.2": _MISTRAL_7B,
}


@dataclass(frozen=True)
class Size:
    """What memory plans need. linear: (in, out) of every linear layer but the output layer; kv_width: numbers
    per layer in the keys (or the values) of one token."""

    parameters: int
    layers: int
    hidden: int
    kv_width: int
    vocabulary: int
    linear: list[tuple[int, int]]


def _skeleton(config: Any) -> Any:
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    model.tie_weights()
    return model


def count_parameters(config: Any) -> int:
    """Parameters of the language model a config describes, tied ones once; no weights are made."""
    return sum(p.numel() for p in _skeleton(config).parameters())


def size_of(name: str | Path) -> Size:
    """The sizes of a model, of an adapter's base, from its config.json alone.

    The models of paper presets need not be there. Raises HeedfulError when another one is not, or its architecture is
    unknown.
    """
    from transformers import AutoConfig

    try:
        folder = hub.config_folder(name)
    except HeedfulError:
        if str(name) not in PUBLISHED:
            raise
        kind, shape = PUBLISHED[str(name)]
        return _size(AutoConfig.for_model(kind, **shape))
    if is_adapter(folder):
        return size_of(hub.base_of(folder))
    with hub.loading(name):
        return _size(AutoConfig.from_pretrained(folder))


def _size(config: Any) -> Size:
    model = _skeleton(config)
    text = config.get_text_config()
    head = model.get_output_embeddings()
    linear = []
    for layer in model.modules():
        if isinstance(layer, nn.Linear) and layer is not head:
            linear.append((layer.in_features, layer.out_features))
        elif type(layer).__name__ == "Conv1D":  # GPT-2's linear layer, which keeps its weight as (in, out)
            linear.append((layer.weight.shape[0], layer.weight.shape[1]))  # type: ignore[union-attr]
    heads = text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // heads
    return Size(
        parameters=sum(p.numel() for p in model.parameters()),
        layers=int(text.num_hidden_layers),
        hidden=int(text.hidden_size),
        kv_width=int((getattr(text, "num_key_value_heads", None) or heads) * width),
        vocabulary=int(text.vocab_size),
        linear=linear,
    )
