"""Text to token ids, with an exact boundary between prompt and completion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from heedful.errors import HeedfulError

Prompt = str | Sequence[Mapping[str, str]]


@dataclass
class Encoder:
    """A tokenizer with its chat template.

    template: "chat" puts a plain-string prompt into the chat template as one user message, "none" leaves it as it
    is, "auto" is "chat" where the tokenizer has a template. A list of messages always goes through the template.
    `boundary_merges` counts the completions whose first characters the tokenizer would have joined with the prompt
    if it had seen both at once; they are tokenised apart, which is what the model meets when it samples.
    """

    tokenizer: Any
    template: str = "auto"
    _merged: set[int] = field(default_factory=set, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.template not in ("auto", "chat", "none"):
            raise HeedfulError(f"template must be auto, chat or none, not {self.template!r}")
        has = bool(getattr(self.tokenizer, "chat_template", None))
        if self.template == "chat" and not has:
            raise HeedfulError("the tokenizer has no chat template; use --template none")
        self._chat = has and self.template != "none"

    @property
    def boundary_merges(self) -> int:
        """How many different completions began inside what would have been one token with the prompt."""
        return len(self._merged)

    @property
    def end(self) -> int:
        """The token id that ends a completion; it is trained like every other."""
        if self.tokenizer.eos_token_id is None:
            raise HeedfulError("the tokenizer has no end-of-sequence token; set tokenizer.eos_token")
        return int(self.tokenizer.eos_token_id)

    def render(self, prompt: Prompt) -> str:
        """The exact text the model sees before it answers.

        Raises HeedfulError when messages are given and the tokenizer has no chat template.
        """
        if isinstance(prompt, str):
            if not self._chat:
                return prompt
            prompt = [{"role": "user", "content": prompt}]
        if not getattr(self.tokenizer, "chat_template", None):
            raise HeedfulError("the prompt is a list of messages, but the tokenizer has no chat template")
        return self.tokenizer.apply_chat_template(list(prompt), tokenize=False, add_generation_prompt=True)

    def prompt(self, prompt: Prompt) -> list[int]:
        """Token ids of a prompt. A template writes its own special tokens; plain text gets the tokenizer's."""
        text = self.render(prompt)
        templated = self._chat or not isinstance(prompt, str)
        ids = self.tokenizer(text, add_special_tokens=not templated)["input_ids"]
        if not ids:
            start = self.tokenizer.bos_token_id
            ids = [self.end if start is None else start]
        if not templated and len(ids) > 1 and ids[-1] == self.tokenizer.eos_token_id:
            ids = ids[:-1]  # some tokenizers end every text; the completion has yet to come
        return list(ids)

    def completion(self, prompt: Prompt, text: str) -> list[int]:
        """Token ids of a completion and its end token.

        Prompt and completion are tokenised together as well, and offsets say whether a token lies across the
        boundary; if so the two are kept apart and counted in `boundary_merges`.
        """
        ids = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        if getattr(self.tokenizer, "is_fast", False):
            head = self.render(prompt)
            joint = self.tokenizer(head + text, add_special_tokens=False, return_offsets_mapping=True)
            across = any(a < len(head) < b for a, b in joint["offset_mapping"])
            if across or (ids and joint["input_ids"][-len(ids) :] != ids):
                self._merged.add(hash((head, text)))
        return [*ids, self.end]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of a completion without special tokens."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)
