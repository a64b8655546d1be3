"""Small decoders made from nothing: a Llama of one to five million parameters, and rows of token ids to train it on.

Such a decoder is a `LanguagePolicy` like any other: it saves, loads and samples as Hugging Face models do. Training
rows go through `packing` behind each other, so a step costs its real tokens and no padding.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from heedful.errors import HeedfulError
from heedful.fit import FitConfig, fit
from heedful.policies import objectives
from heedful.policies.language import LanguagePolicy
from heedful.policies.packing import Group
from heedful.run import Run

MOST_WORDS = 8192
SIZES: dict[str, dict[str, int]] = {
    "tiny": {"hidden": 64, "inner": 160, "layers": 2},
    "1m": {"hidden": 128, "inner": 384, "layers": 4},
    "3m": {"hidden": 192, "inner": 512, "layers": 6},
    "5m": {"hidden": 256, "inner": 704, "layers": 6},
}
"""With a vocabulary of a thousand tokens: 0.2, 1.0, 2.9 and 5.0 million parameters."""


def small_llama(
    made: Any, *, hidden: int, inner: int, layers: int, key_values: int = 4, context: int = 512
) -> LlamaForCausalLM:
    """A Llama of four heads with new weights, drawn by torch's global generator, for this tokenizer."""
    config = LlamaConfig(
        vocab_size=len(made),
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=key_values,
        max_position_embeddings=context,
        bos_token_id=made.bos_token_id,
        eos_token_id=made.eos_token_id,
        pad_token_id=made.pad_token_id,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config)


def word_tokenizer(texts: Iterable[str]) -> Any:
    """A tokenizer with one token for every word of the texts, words being what white space is between.

    Texts come back with single spaces; where lines matter, use `heedful.data.countdown.tokenizer.byte_tokenizer`.
    Raises HeedfulError where there are more words than a small model should have.
    """
    special = ["<pad>", "<s>", "</s>", "<unk>"]
    words = sorted({word for text in texts for word in text.split()} - set(special))
    if len(words) > MOST_WORDS:
        raise HeedfulError(f"the texts have {len(words):,} different words; use bytes above {MOST_WORDS:,}")
    inner = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate([*special, *words])}, unk_token="<unk>")
    )
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.add_special_tokens(special)
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )


def new_decoder(tokenizer: Any, size: str, *, context: int, seed: int, **options: Any) -> LanguagePolicy:
    """A decoder of one of SIZES with weights that are a function of the seed alone. options: those of `Backbone`.

    Raises HeedfulError for an unknown size and for a tokenizer without an end token.
    """
    if size not in SIZES:
        raise HeedfulError(f"there is no size {size!r}; choose one of {', '.join(SIZES)}")
    if tokenizer.eos_token_id is None:
        raise HeedfulError("the tokenizer has no end-of-sequence token; set tokenizer.eos_token")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = small_llama(tokenizer, **SIZES[size], key_values=2, context=context)
    return LanguagePolicy(module, tokenizer, **{"template": "none", "small": True, **options})


@dataclass(frozen=True)
class TokenRows(Sequence[objectives.Row]):
    """N training rows, a prompt and its completion each, as token ids behind each other.

    ids: (T,) integers; ends: (N,) where each row ends; prompts: (N,) how many of a row's first ids are its prompt. Rows
    longer than `context` lose their end, and so have no end token to be learned; `cut` counts them.
    """

    ids: np.ndarray
    ends: np.ndarray
    prompts: np.ndarray
    context: int
    starts: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        starts = np.concatenate([np.zeros(1, np.int64), np.asarray(self.ends, np.int64)[:-1]])
        object.__setattr__(self, "starts", starts)
        short = np.flatnonzero((self.prompts < 1) | (self.prompts >= np.minimum(self.lengths, self.context)))
        if len(short):
            i = int(short[0])
            raise HeedfulError(
                f"training row {i + 1}: its prompt has {int(self.prompts[i])} of its {int(self.lengths[i])} tokens, "
                f"and a row holds {self.context}: prompt and completion need at least one token each"
            )

    @property
    def lengths(self) -> np.ndarray:
        """(N,) tokens of each row as it was given."""
        return np.asarray(self.ends, np.int64) - self.starts

    @property
    def cut(self) -> int:
        """How many rows lost their end."""
        return int((self.lengths > self.context).sum())

    @property
    def tokens(self) -> int:
        """Tokens of all rows, as far as they are trained on."""
        return int(np.minimum(self.lengths, self.context).sum())

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        start, first = int(self.starts[i]), int(self.prompts[i])
        end = min(int(self.ends[i]), start + self.context)
        ids = self.ids[start:end].tolist()
        return {"group": Group(ids[:first], [ids[first:]])}


def token_rows(groups: Sequence[Group], context: int) -> TokenRows:
    """`TokenRows` of groups with one completion each."""
    flat = [[*group.prompt, *group.completions[0]] for group in groups]
    return TokenRows(
        np.array([token for row in flat for token in row], np.int32),
        np.cumsum([len(row) for row in flat], dtype=np.int64),
        np.array([len(group.prompt) for group in groups], np.int64),
        context,
    )


def fit_tokens(
    stage: str, policy: LanguagePolicy, rows: Sequence[objectives.Row], cfg: FitConfig, run: Run, **more: Any
) -> None:
    """Train on the completions of rows, a mean over their tokens; prompts are given, not learned. more: of `fit`."""
    fit(
        stage,
        objectives.objective(policy, "best"),
        policy.module,
        rows,
        cfg,
        run,
        collate=objectives.collate(policy),
        cost=objectives.row_cost(policy),
        weight=objectives.row_weight("best"),
        **more,
    )


def steps_for(rows: TokenRows, tokens: int, batch_size: int) -> int:
    """How many steps of `batch_size` rows take about so many tokens; at least one."""
    mean = rows.tokens / len(rows)
    return max(1, round(tokens / (mean * batch_size)))


def parameters(policy: LanguagePolicy) -> int:
    """How many parameters the model has."""
    return sum(p.numel() for p in policy.module.parameters())


def size_facts(policy: LanguagePolicy) -> Mapping[str, Any]:
    """For a report: parameters, layers, width and context."""
    config: Any = policy.transformer.config
    return {
        "parameters": parameters(policy),
        "layers": config.num_hidden_layers,
        "width": config.hidden_size,
        "context": policy.context,
    }
