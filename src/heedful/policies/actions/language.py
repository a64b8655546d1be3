"""A language model that acts: the numbers of an action are its least used tokens. OpenVLA (Kim et al. 2024).

Each number falls into one of 256 bins, and a bin is one of the last token ids of the vocabulary, as in OpenVLA's
`ActionTokenizer`: 256 edges from -1 to 1, whose 255 middles are what a token means; the lowest bin is the highest id.
The prompt is OpenVLA's; a state, which OpenVLA has not, is written into it as 256 bins. The prompt (and the camera
images of `actions.vision`) is computed once for the N actions of an observation.

What is drawn are action tokens alone: `draw` and `log_prob` are those of the model's distribution restricted to them.
`loss` is the model's own cross-entropy over its whole vocabulary, with the end token after the action.

Letters: B observations, N actions each, T numbers of an action, M bins, D hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from heedful.errors import HeedfulError
from heedful.losses import Result, nll_loss
from heedful.policies import packing
from heedful.policies.actions import ActionPolicy, ActionSpace, Observations, size
from heedful.policies.encode import Encoder
from heedful.policies.language import LanguagePolicy
from heedful.policies.packing import Group, Pack, pack
from heedful.policies.sampling import Decode, Prefill, choose, uniforms

PROMPT = "In: What action should the robot take to {task}?\nOut:"
STATE_PROMPT = "In: What action should the robot take to {task}? State: {state}\nOut:"
"""The same where observations have a state: its numbers as bins from 0 to 255."""


def least_used_ids(tokenizer: Any, count: int, vocabulary: int) -> list[int]:
    """The `count` highest token ids that no one added, highest first: a BPE tokenizer learned them last.

    vocabulary: rows of the model's embedding. Raises HeedfulError when there are not so many.
    """
    added = set(tokenizer.get_added_vocab().values()) | set(tokenizer.all_special_ids)
    known = sorted(i for i in tokenizer.get_vocab().values() if i not in added and i < vocabulary)
    if len(known) < count:
        raise HeedfulError(
            f"the tokenizer has {len(known)} plain tokens; {count} are needed for the bins of an action"
        )
    return known[::-1][:count]


@dataclass(frozen=True)
class Encoded:
    """B prompts as token ids and, where the model sees, the pixels and features of each observation's images."""

    prompts: list[list[int]]
    pixels: Tensor | None = None  # (B, cameras, 3, side, side)
    seen: Tensor | None = None  # (B, image tokens, D)

    def some(self, index: Sequence[int]) -> Encoded:
        """The same for some of the observations."""
        places = list(index)
        return Encoded(
            [self.prompts[i] for i in places],
            None if self.pixels is None else self.pixels[places],
            None if self.seen is None else self.seen[places],
        )


class LanguageActionPolicy(ActionPolicy):
    """Any causal language model of transformers as a policy; observations have a "task", and may have a "state".

    state: bounds of each number of the state, (low, high), needed where observations have one; what lies outside counts
    as the end. max_rows: actions drawn side by side.
    """

    def __init__(
        self,
        language: LanguagePolicy,
        space: ActionSpace,
        *,
        bins: int = 256,
        state: tuple[Sequence[float], Sequence[float]] | None = None,
        max_rows: int = 256,
    ) -> None:
        if bins < 3:
            raise HeedfulError(f"an action needs at least 3 bins; {bins} were asked for")
        self.language, self.space, self.max_rows = language, space, max_rows
        self.state_bounds = state
        rows = int(language.transformer.get_input_embeddings().weight.shape[0])  # type: ignore[operator]
        self.ids = torch.tensor(least_used_ids(language.tokenizer, bins, rows), device=language.device)
        self.edges = torch.from_numpy(np.linspace(-1, 1, bins).astype(np.float32)).to(language.device)
        self.encoder = Encoder(language.tokenizer, "none")
        self._prompts: dict[str, list[int]] = {}

    @property
    def module(self) -> Any:  # type: ignore[override]
        """The transformers model, or peft's round it."""
        return self.language.module

    def fingerprint(self) -> str:
        """See `Backbone.fingerprint`."""
        return self.language.fingerprint()

    # ---- actions as tokens

    def to_bins(self, numbers: Tensor) -> Tensor:
        """Numbers (..., T) in [-1, 1] as bins from 0, by OpenVLA's edges."""
        return (torch.bucketize(numbers.to(self.edges), self.edges, right=True) - 1).clamp(
            0, len(self.edges) - 1
        )

    def to_numbers(self, bins: Tensor) -> Tensor:
        """The middles of bins; the last edge is no bin of its own."""
        middles = (self.edges[1:] + self.edges[:-1]) / 2
        return middles[bins.clamp(max=len(middles) - 1)]

    # ---- the prompt

    def text(self, task: str, state: Tensor | None) -> str:
        """What is asked, as OpenVLA asks it."""
        asked = task.strip().lower()
        if state is None:
            return PROMPT.format(task=asked)
        if self.state_bounds is None:
            raise HeedfulError("observations have a state; say between which bounds (state=(low, high))")
        low, high = (state.new_tensor(list(side)) for side in self.state_bounds)
        if low.shape != state.shape:
            raise HeedfulError(f"the state has {len(state)} numbers and {len(low)} bounds")
        place = ((state - low) / (high - low) * 255).round().clamp(0, 255).long()
        return STATE_PROMPT.format(task=asked, state=" ".join(map(str, place.tolist())))

    def prompt_ids(self, text: str) -> list[int]:
        """The tokens of a prompt."""
        return self.encoder.prompt(text)

    def encode(self, observations: Observations) -> Encoded:
        """The prompts of B observations. Raises HeedfulError for a missing task, or one too long for the model."""
        if "task" not in observations:
            raise HeedfulError("a language model needs observations with a 'task' to be told what to do")
        prompts, states = [], observations.get("state")
        for i in range(size(observations)):
            text = self.text(observations["task"][i], None if states is None else states[i])
            if text not in self._prompts:
                self._prompts = self._prompts if len(self._prompts) < 10_000 else {}
                self._prompts[text] = self.prompt_ids(text)
            prompts.append(self._prompts[text])
        longest = max(map(len, prompts)) + self.space.numbers + 1
        if longest > self.language.context:
            raise HeedfulError(
                f"prompt and action take {longest} tokens; the model's context is {self.language.context}"
            )
        return Encoded(prompts)

    # ---- the model

    def inputs(self, tokens: Tensor, encoded: Encoded) -> dict[str, Tensor]:
        """What the decoder is given of a row (1, L) of prompts (and completions), in the order of `encoded`."""
        return {"input_ids": tokens}

    def arrange(self, layout: Pack, encoded: Encoded) -> Pack:
        """The layout with the positions and masks this model has in its prompts."""
        return layout

    def offset(self) -> int:
        """The position of a prompt's first token."""
        return 0

    def hidden(
        self, encoded: Encoded, groups: Sequence[Group], keep: Prefill | None = None
    ) -> tuple[Tensor, Pack]:
        """Hidden states (M, D) that predict each completion token, each prompt computed once, and the layout.

        keep: a cache of the prompts' keys and values to fill; its layout is used.
        """
        layout = keep.layout if keep else self.arrange(pack(groups, self.language.device), encoded)
        with self.language.attention(packing.ATTENTION):
            out = self.language.decoder(
                **self.inputs(layout.tokens, encoded),
                position_ids=layout.positions,
                use_cache=False,
                heedful_layout=keep or layout,
            )
        return out.last_hidden_state[0, layout.read], layout

    def plain_logits(self, encoded: Encoded, groups: Sequence[Group]) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (rows, longest, V), targets and mask of completion tokens by padded rows that repeat their prompt."""
        tokens, mask, read, target, real = self.language.padded(groups)
        more = self.plain_inputs(
            encoded, [len(g.completions) for g in groups], tokens, [len(g.prompt) for g in groups]
        )
        logits = self.language.transformer(
            input_ids=tokens, attention_mask=mask, use_cache=False, **more
        ).logits
        return logits.gather(1, read[..., None].expand(-1, -1, logits.shape[-1])).float(), target, real

    def plain_inputs(
        self, encoded: Encoded, copies: Sequence[int], tokens: Tensor, prompts: Sequence[int]
    ) -> dict[str, Tensor]:
        """What else the model is given beside padded rows, of which each observation has so many `copies`."""
        return {}

    def bin_logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (..., D) to the logits of action tokens, (..., M)."""
        head: Any = self.language.head
        weight = head.weight[self.ids]
        bias = None if head.bias is None else head.bias[self.ids]
        return torch.nn.functional.linear(hidden.to(weight.dtype), weight, bias).float()

    def shares(self, encoded: Encoded) -> bool:
        """Whether the prompt can be computed once: on this architecture, and within its sliding window."""
        window = getattr(self.language.decoder.config, "sliding_window", None)
        longest = max(map(len, encoded.prompts)) + self.space.numbers + 1
        return self.language.shares_prefix and (not window or longest <= window)

    # ---- the protocol

    def draw(
        self, encoded: Encoded, n: int, *, temperature: float = 1.0, generator: torch.Generator
    ) -> Tensor:
        """See `ActionPolicy.draw`; each action has a random stream of its own, whatever it is drawn beside."""
        if n < 1 or not temperature >= 0:
            raise HeedfulError(
                f"n must be at least 1 and temperature 0 or more; they are {n} and {temperature}"
            )
        count = len(encoded.prompts)
        seeds = torch.randint(2**62, (count, n), generator=generator, device=generator.device)
        numbers = seeds.cpu().numpy().astype(np.uint64)
        drawn = []
        language = self.language
        with torch.no_grad(), language.eval_mode(), language.folded(), language.autocast():
            step = max(1, self.max_rows // n)
            for first in range(0, count, step):
                part = encoded.some(range(first, min(first + step, count)))
                how = self._shared if self.shares(part) else self._padded
                drawn.append(how(part, n, numbers[first : first + step].reshape(-1), temperature))
        return self.space.from_unit(self.to_numbers(torch.cat(drawn))).unflatten(0, (count, n))

    def _shared(self, encoded: Encoded, n: int, seeds: np.ndarray, temperature: float) -> Tensor:
        device = self.language.device
        groups = [Group(prompt, [[0]]) for prompt in encoded.prompts]
        prefill = Prefill(self.arrange(pack(groups, device), encoded))
        hidden, _ = self.hidden(encoded, groups, prefill)
        lengths = torch.tensor([len(prompt) for prompt in encoded.prompts], device=device)
        state, positions = Decode(prefill, lengths, n), (lengths + self.offset()).repeat_interleave(n)
        logits = self.bin_logits(hidden).repeat_interleave(n, 0)
        bins: list[Tensor] = []
        while True:
            bins.append(self._choose(logits, seeds, len(bins), temperature))
            if len(bins) == self.space.numbers:
                return torch.stack(bins, -1)
            with self.language.attention(packing.ATTENTION):
                hidden = self.language.decoder(
                    input_ids=self.ids[bins[-1]][None],
                    position_ids=positions[None],
                    use_cache=False,
                    heedful_layout=state,
                ).last_hidden_state[0]
            logits = self.bin_logits(hidden)
            positions = positions + 1
            state.step += 1

    def _padded(self, encoded: Encoded, n: int, seeds: np.ndarray, temperature: float) -> Tensor:
        """For architectures whose prompts cannot be shared: everything is computed again for each token."""
        bins = torch.zeros(len(seeds), 0, dtype=torch.long, device=self.language.device)
        for step in range(self.space.numbers):
            ids = [[*row, 0] for row in self.ids[bins].tolist()]
            groups = [Group(p, ids[i * n : i * n + n]) for i, p in enumerate(encoded.prompts)]
            logits = self.plain_logits(encoded, groups)[0][:, step, self.ids]
            bins = torch.cat([bins, self._choose(logits, seeds, step, temperature)[:, None]], 1)
        return bins

    def _choose(self, logits: Tensor, seeds: np.ndarray, step: int, temperature: float) -> Tensor:
        uniform = torch.from_numpy(uniforms(seeds, step)).float().to(logits.device)
        return choose(logits, uniform, temperature=temperature)[0]

    def log_prob(self, encoded: Encoded, actions: Tensor) -> Tensor:
        """See `ActionPolicy.log_prob`: (B, N, T), of the tokens nearest to actions (B, N, H, A)."""
        bins = self.to_bins(self.space.to_unit(actions))
        ids = self.ids[bins].tolist()
        groups = [Group(p, completions) for p, completions in zip(encoded.prompts, ids, strict=True)]
        with self.language.autocast():
            if self.shares(encoded):
                hidden, layout = self.hidden(encoded, groups)
                logp = self.bin_logits(hidden).log_softmax(-1)
                picked = logp.gather(-1, bins.flatten(0, 1)[layout.row, layout.column][:, None]).squeeze(-1)
                values = packing.scatter_rows(picked, layout)[0]
            else:
                logits = self.plain_logits(encoded, groups)[0][..., self.ids]
                values = logits.log_softmax(-1).gather(-1, bins.flatten(0, 1)[..., None]).squeeze(-1)
        return values.unflatten(0, bins.shape[:2])

    def loss(self, observations: Observations, actions: Tensor, *, weight: Tensor | None = None) -> Result:
        """Cross-entropy over the whole vocabulary, a mean over the tokens of an action (B, H, A) and its end."""
        encoded = self.encode(observations)
        ids = self.ids[self.to_bins(self.space.to_unit(actions))].tolist()
        end = self.encoder.end
        logp, mask = self.token_logp(
            encoded, [Group(p, [[*row, end]]) for p, row in zip(encoded.prompts, ids)]
        )
        return nll_loss(logp, mask, weight=weight)

    def token_logp(self, encoded: Encoded, groups: Sequence[Group]) -> tuple[Tensor, Tensor]:
        """(completions, T) log-probabilities over the whole vocabulary, and their mask."""
        with self.language.autocast():
            how = self.shared_logp if self.shares(encoded) else self.plain_logp
            return how(encoded, groups)

    def shared_logp(self, encoded: Encoded, groups: Sequence[Group]) -> tuple[Tensor, Tensor]:
        """The same, each prompt computed once."""
        hidden, layout = self.hidden(encoded, groups)
        language = self.language
        values = packing.token_logp(hidden, language.head, layout.target, language.head_weight())
        return packing.scatter_rows(values, layout)

    def plain_logp(self, encoded: Encoded, groups: Sequence[Group]) -> tuple[Tensor, Tensor]:
        """The same by padded rows that repeat their prompt."""
        logits, target, real = self.plain_logits(encoded, groups)
        return logits.log_softmax(-1).gather(-1, target[..., None]).squeeze(-1) * real, real
