"""Tokenizers for streams in Hugging Face format, made here and so there without a network.

`AutoTokenizer.from_pretrained` loads what `save_pretrained` writes. Each text begins with <s>; </s> ends a stream and
is not the padding, so that it is learned like every other token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from heedful.data.countdown.vocabulary import END, PAD, SPECIAL, START, TOKENS, UNKNOWN

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast


def compact_tokenizer() -> PreTrainedTokenizerFast:
    """For the compact language: one token for each number to 999 and each mark; spaces do not matter."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.WordLevel({token: i for i, token in enumerate(TOKENS)}, unk_token=UNKNOWN))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Split(Regex("[0-9]+|[^0-9]"), behavior="isolated"),
        ]
    )
    return _fast(made)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """For any text, the paper's too: one token for each of the 256 bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *letters])}
    made = Tokenizer(models.BPE(vocabulary, [], unk_token=UNKNOWN))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    return _fast(made)


def _fast(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A", special_tokens=[(START, SPECIAL.index(START))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=START,
        eos_token=END,
        pad_token=PAD,
        unk_token=UNKNOWN,
        clean_up_tokenization_spaces=False,
    )
