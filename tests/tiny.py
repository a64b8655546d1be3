"""Tiny random models and tokenizers of real architectures, made in a second, saved as Hub models are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

TEXT = [
    "What is the capital of France? Paris is the capital of France.",
    "How do I boil an egg? Put it into boiling water for eight minutes.",
    "Name three colours of the rainbow: red, green and blue. I do not know, sorry!",
    "Short answers please; long answers are fine as well, if they say more.",
]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def needs_forks() -> None:
    """Skip the test where processes cannot be forked any more."""
    if torch.cuda.is_initialized():
        pytest.skip("a process that has used a GPU cannot be forked; CUDA_VISIBLE_DEVICES= runs this test")


def tokenizer(chat: bool = True) -> Any:
    """A byte-level BPE tokenizer with a ChatML template, about 400 tokens."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(TEXT * 4, trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    if chat:
        made.chat_template = TEMPLATE
    return made


def model(seed: int = 0, config: Any = None) -> Any:
    """A random causal language model; a Llama with grouped heads unless `config` says otherwise."""
    config = config or LlamaConfig(
        vocab_size=420,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    made = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for p in made.parameters():
            if p.ndim > 1:
                p.mul_(6.0)  # freshly initialised logits are so flat that a wrong mask would hardly show
    return made.eval()


def save(folder: Path, seed: int = 0) -> Path:
    """A model folder as `save_pretrained` writes it."""
    model(seed).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


ANSWERS = [
    "Put it into boiling water for eight minutes, and name three colours of the rainbow. I do not know more, sorry!",
    "Paris is the capital of France. Short answers are fine as well, if they say more than the long ones please!",
    "The rainbow: red, green and blue are three colours. What is the water of the capital, if they do not say more?",
]


def assistant(folder: Path, prompts: list[str], config: Any = None) -> Path:
    """A tiny model that has learned to answer `prompts` in whole sentences, saved as a Hub model is. Seconds."""
    from heedful.policies.language import LanguagePolicy

    made = model(config=config)
    with torch.no_grad():
        made.get_input_embeddings().weight.mul_(10)  # else no token can be likelier than a few percent
    policy = LanguagePolicy(made, tokenizer(), device="cpu", precision="fp32")
    groups = [policy.group(p, [ANSWERS[i % len(ANSWERS)]]) for i, p in enumerate(prompts)]
    optimizer = torch.optim.AdamW(policy.module.parameters(), lr=1e-2)
    loss = torch.zeros(())
    for step in range(120):
        logp, mask = policy.logp_groups([groups[(4 * step + i) % len(groups)] for i in range(4)])
        loss = -(logp * mask).sum() / mask.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.module.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    assert loss.item() < 0.5, loss.item()
    policy.module.save_pretrained(folder)
    policy.tokenizer.save_pretrained(folder)
    return folder
