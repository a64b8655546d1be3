"""Tiny random models that read images, in the layouts of SmolVLM and PaliGemma, saved as Hub models are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tiny
import torch
from transformers import AutoModelForImageTextToText, PaliGemmaConfig, SmolVLMConfig

IMAGE = "<image>"
BORDER = "<fake_token_around_image>"
VISION = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
}
TEXT = {
    "vocab_size": 420,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
}


def tokenizer() -> Any:
    made = tiny.tokenizer(chat=False)
    made.add_tokens([BORDER, "<global-img>", IMAGE], special_tokens=True)
    return made


def config(layout: str) -> Any:
    """smolvlm, paligemma, or paligemma2, whose attention no packed layout has."""
    image = tokenizer().convert_tokens_to_ids(IMAGE)
    if layout == "smolvlm":
        text = {"model_type": "llama", "num_key_value_heads": 2, "pad_token_id": 0, **TEXT}
        return SmolVLMConfig(vision_config=VISION, text_config=text, image_token_id=image, scale_factor=2)  # type: ignore[call-arg]
    text = {"model_type": "gemma", "num_key_value_heads": 1, "head_dim": 8, **TEXT}
    if layout == "paligemma2":
        text |= {"model_type": "gemma2", "query_pre_attn_scalar": 8, "sliding_window": 64}
    vision = {"model_type": "siglip_vision_model", "vision_use_head": False, **VISION}
    return PaliGemmaConfig(  # type: ignore[call-arg]
        vision_config=vision, text_config=text, image_token_index=image, projection_dim=32, hidden_size=32
    )


def save(folder: Path, layout: str, seed: int = 0) -> Path:
    """A model folder as `save_pretrained` writes it, with weights large enough for a wrong mask to show."""
    torch.manual_seed(seed)
    made = AutoModelForImageTextToText.from_config(config(layout))
    with torch.no_grad():
        for p in made.parameters():
            if p.ndim > 1:
                p.mul_(4.0)
        if layout == "smolvlm":  # the others' embeddings are their output layer, and large enough
            made.lm_head.weight.mul_(10.0)  # else no token can be likelier than a few percent
    made.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    preprocessing = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.5, 0.25]}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing))
    return folder
