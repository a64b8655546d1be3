"""A small assistant made from nothing in a minute, for the smoke tiers: it answers any prompt in whole sentences.

It knows nothing. It is there so that a reproduction's every path runs where no weights can be had, and so that what a
method does to a model that finishes its answers can be seen in seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from heedful import hub
from heedful.fit import FitConfig, fit
from heedful.policies import objectives
from heedful.policies.decoder import small_llama
from heedful.policies.language import LanguagePolicy
from heedful.run import Run

ANSWERS = (
    "Hello, thank you for asking. I have looked at it and will write to you again on Monday. Best regards, Sam",
    "Here is what I would say. It is best to begin early, to keep it short and to ask when something is not clear.",
    "Good day! There are two things to know about this. The first one is simple, and the second one follows from it.",
    "That is a good question. Most people do it in the morning, because they have more time then than in the evening.",
)
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
STEPS = 240


def scratch_assistant(prompts: Sequence[str], run: Run, *, steps: int = STEPS) -> Path:
    """The folder of a Llama of a third of a million parameters that has learned to answer; made once per run folder.

    Its tokenizer is made from these prompts and the answers, and its answers to them are four, in turn.
    """
    folder = run.path("assistant")
    if (folder / "config.json").exists():
        return folder
    made = tokenizer([*prompts, *ANSWERS])
    torch.manual_seed(run.seed_for("scratch"))
    module = small_llama(made, hidden=64, inner=160, layers=3, key_values=2, context=512)
    policy = LanguagePolicy(module, made, precision="fp32", device="cpu")
    rows = [{"group": policy.group(p, [ANSWERS[i % len(ANSWERS)]])} for i, p in enumerate(prompts)]
    settings = FitConfig(
        lr=3e-3, batch_size=16, max_steps=steps, schedule="cosine", warmup=0.05, precision="fp32", quiet=True
    )
    fit(
        "scratch",
        objectives.objective(policy, "best"),
        policy.module,
        rows,
        settings,
        run,
        collate=objectives.collate(policy),
        cost=objectives.row_cost(policy),
        weight=objectives.row_weight("best"),
    )
    return hub.save_model(policy.module, made, folder, card={"title": "A scratch assistant for smoke tests"})


def tokenizer(texts: Sequence[str]) -> Any:
    """A byte-level BPE tokenizer of these texts with a ChatML template."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1200,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(list(texts), trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    made.chat_template = TEMPLATE
    return made
