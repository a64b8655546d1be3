"""Sampling N completions for each of B prompts, each prompt encoded once.

The keys and values of a prompt are computed once, in a padding-free pack, and stay shared by its N rows; each row
adds keys and values of its own. A long beginning that all prompts have in common is computed and kept once for all
(`prefix`). Attention over a shared part is one matrix product instead of one vector product per row. Rows that have
ended leave the batch. Every row has its own random stream, so what is drawn does not depend on how prompts are batched,
sorted or resumed (up to rounding of the arithmetic).

Letters: B prompts, R rows alive, H heads, K key/value heads, G = H / K, S tokens that all prompts begin with, P longest
prompt without them, D head size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from heedful.policies.packing import Group, Pack, UnsupportedModel, pack
from heedful.policies.prefix import Prefix, shared_length


class Drawn(NamedTuple):
    """One sampled completion: token ids (with the end token when it was drawn) and their log-probability at T=1."""

    ids: list[int]
    logp: float
    finished: bool


@dataclass
class Prefill:
    """Encodes the prompts and keeps their keys and values, (B, K, P, D) a layer. before: what all of them begin with,
    encoded and kept already; layout, keys and values are then of the rest of each."""

    layout: Pack
    before: Prefix | None = None
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)

    def attend(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        scaling: float,
        dropout: float = 0.0,
        window: int | None = None,
    ) -> Tensor:
        """Attention over each prompt's own tokens, as `Pack.attend`; the keys and values are kept."""
        shared = self.before.length if self.before else 0
        longest = max(end - start for start, end, _ in self.layout.segments)
        if layer != len(self.keys) or (window is not None and shared + longest > window):
            raise UnsupportedModel("layers out of order, or a prompt longer than the model's sliding window")
        for store, new in ((self.keys, key), (self.values, value)):
            padded = new.new_zeros(len(self.layout.segments), new.shape[1], longest, new.shape[3])
            for b, (start, end, _) in enumerate(self.layout.segments):
                padded[b, :, : end - start] = new[0, :, start:end]
            store.append(padded)
        if self.before:
            return self.before.attend_from(layer, query, key, value, self.layout, scaling=scaling)
        return self.layout.attend(layer, query, key, value, scaling=scaling)


class Decode:
    """One step for all rows: keys that all prompts share, those of each prompt, and each row's own up to this step.

    lengths: (B,) of the prompts, without what they share.
    """

    def __init__(self, prefill: Prefill, lengths: Tensor, n: int, window: int | None = None) -> None:
        self.before = prefill.before
        self.prefix_keys, self.prefix_values = prefill.keys, prefill.values
        longest = prefill.keys[0].shape[2]
        self.padding = torch.arange(longest, device=lengths.device)[None] >= lengths[:, None]  # (B, P)
        count = len(lengths)
        self.prompt = torch.arange(count, device=lengths.device).repeat_interleave(n)
        self.slot = torch.arange(n, device=lengths.device).repeat(count)
        self.slots = n
        self.own: list[tuple[Tensor, Tensor]] = []
        self.step = 0
        self.length = int(lengths.max()) + (self.before.length if self.before else 0)

    def keep(self, rows: Tensor) -> None:
        """Drop the rows that have ended, and the prompts that have no row left."""
        self.own = [(k[rows], v[rows]) for k, v in self.own]
        prompts, self.prompt = torch.unique(self.prompt[rows], return_inverse=True)
        order = torch.arange(len(self.prompt), device=rows.device)
        first = torch.searchsorted(self.prompt, torch.arange(len(prompts), device=rows.device))
        self.slot = order - first[self.prompt]  # rows stay sorted by prompt
        self.slots = int(self.slot.max()) + 1
        if len(prompts) < len(self.padding):
            self.prefix_keys = [k[prompts] for k in self.prefix_keys]
            self.prefix_values = [v[prompts] for v in self.prefix_values]
            self.padding = self.padding[prompts]

    def attend(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        scaling: float,
        dropout: float = 0.0,
        window: int | None = None,
    ) -> Tensor:
        """(1, H, R, D) -> (1, R, H, D)."""
        if window is not None and self.length + self.step >= window:
            raise UnsupportedModel("a sample longer than the model's sliding window")
        rows, kv, size = query.shape[2], key.shape[1], query.shape[3]
        own_keys, own_values = self._append(layer, key[0].transpose(0, 1), value[0].transpose(0, 1))
        q = (query[0].transpose(0, 1) * scaling).view(rows, kv, -1, size)  # (R, K, G, D)
        groups = q.shape[2]
        keys, values = self.prefix_keys[layer], self.prefix_values[layer]
        shared = q.new_zeros(len(keys), self.slots, kv, groups, size)
        shared[self.prompt, self.slot] = q
        shared = shared.permute(0, 2, 1, 3, 4).reshape(len(keys), kv, self.slots * groups, size)
        scores = (shared @ keys.transpose(-1, -2)).float()
        scores = scores.masked_fill_(self.padding[:, None, None], float("-inf"))
        scores = scores.view(len(keys), kv, self.slots, groups, -1).transpose(1, 2)[self.prompt, self.slot]
        own = (q @ own_keys.transpose(-1, -2)).float()
        before = self.before.scores(layer, q) if self.before else scores[..., :0]
        parts = [before, scores, own]
        weights = torch.cat(parts, -1).softmax(-1).to(value.dtype)  # (R, K, G, S + P + step)
        begun, inside, after = weights.split([part.shape[-1] for part in parts], -1)
        spread = weights.new_zeros(len(keys), self.slots, kv, groups, keys.shape[2])
        spread[self.prompt, self.slot] = inside
        spread = spread.transpose(1, 2).reshape(len(keys), kv, self.slots * groups, -1)
        out = (spread @ values).view(len(keys), kv, self.slots, groups, size).transpose(1, 2)
        out = out[self.prompt, self.slot] + after @ own_values
        if self.before:
            out = out + self.before.mixed(layer, begun)
        return out.reshape(1, rows, kv * groups, size)

    def _append(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store (R, K, D) at the current step; buffers double when they are full."""
        if layer == len(self.own):
            shape = (key.shape[0], key.shape[1], 32, key.shape[2])
            self.own.append((key.new_empty(shape), value.new_empty(shape)))
        if self.step == self.own[layer][0].shape[2]:
            k, v = self.own[layer]
            self.own[layer] = (torch.cat([k, torch.empty_like(k)], 2), torch.cat([v, torch.empty_like(v)], 2))
        k, v = self.own[layer]
        k[:, :, self.step], v[:, :, self.step] = key, value
        return k[:, :, : self.step + 1], v[:, :, : self.step + 1]


def uniforms(seeds: np.ndarray, step: int | np.ndarray) -> np.ndarray:
    """One number in [0, 1) for each row's seed (uint64) at a step, or at a step of its own: SplitMix64, so a pure
    function of both."""
    with np.errstate(over="ignore"):
        x = seeds + np.uint64(0x9E3779B97F4A7C15) * (np.asarray(step) + 1).astype(np.uint64)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(31))
    return (x >> np.uint64(11)).astype(np.float64) / 2.0**53


def choose(
    logits: Tensor, u: Tensor, *, temperature: float, top_p: float = 1.0, top_k: int = 0
) -> tuple[Tensor, Tensor]:
    """Draw one token a row. logits (R, V) float32, u (R,) in [0, 1) -> tokens (R,), log-probability at T=1 (R,).

    temperature 0 takes the most likely token. top_k and top_p cut after the temperature, as in transformers.
    """
    total = logits.logsumexp(-1)
    if temperature == 0:
        tokens = logits.argmax(-1)
    elif top_k or top_p < 1:
        size = min(top_k, logits.shape[-1]) if top_k else logits.shape[-1]
        best, index = logits.topk(size, dim=-1)
        probs = (best / temperature).softmax(-1)
        if top_p < 1:
            before = probs.cumsum(-1) - probs
            probs = probs.masked_fill(before >= top_p, 0.0)
        tokens = index.gather(-1, _invert(probs, u)[:, None]).squeeze(-1)
    else:
        probs = (logits / temperature if temperature != 1 else logits).softmax(-1)
        tokens = _invert(probs, u)
    return tokens, logits.gather(-1, tokens[:, None]).squeeze(-1) - total


def _invert(probs: Tensor, u: Tensor) -> Tensor:
    """Index drawn by inverting the cumulative sum; `probs` (R, V) need not sum to one."""
    cumulative = probs.cumsum(-1)
    point = (u.to(cumulative.dtype) * cumulative[:, -1])[:, None]
    drawn = torch.searchsorted(cumulative, point, right=True).clamp_(max=probs.shape[-1] - 1)
    impossible = probs.gather(-1, drawn) == 0  # rounding may step past the last possible token
    return torch.where(impossible, probs.argmax(-1, keepdim=True), drawn).squeeze(-1)


@torch.no_grad()
def generate(
    decoder: nn.Module,
    head: Callable[[Tensor], Tensor],
    prompts: Sequence[Sequence[int]],
    n: int,
    seeds: np.ndarray,
    *,
    max_new_tokens: int,
    end: frozenset[int],
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
    stopped: Callable[[list[int]], bool] | None = None,
    max_rows: int = 256,
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> list[Drawn]:
    """Sample n completions for each prompt; results stay in the prompts' order, n of each in a row.

    decoder: the transformer under the output layer; head: hidden (R, D) -> logits (R, V) float32; seeds: (B*n,)
    uint64, one random stream a row; end: token ids that end a completion; stopped: True when the ids so far end it.
    """
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    per_batch = max(1, max_rows // n)
    drawn: list[Drawn | None] = [None] * (len(prompts) * n)
    shared = shared_length(prompts)
    before = Prefix(decoder, prompts[0][:shared], device) if shared else None
    for first in range(0, len(order), per_batch):
        batch = order[first : first + per_batch]
        rows = [i * n + j for i in batch for j in range(n)]
        layout = pack([Group(prompts[i][shared:], [[0]]) for i in batch], device)
        prefill = Prefill(layout, before)
        hidden = decoder(
            input_ids=layout.tokens,
            position_ids=layout.positions + shared,
            use_cache=False,
            heedful_layout=prefill,
        ).last_hidden_state[0, layout.read]
        lengths = torch.tensor([len(prompts[i]) for i in batch], device=device)
        state = Decode(prefill, lengths - shared, n)
        positions = lengths.repeat_interleave(n)
        logits = head(hidden).repeat_interleave(n, 0)
        alive = np.arange(len(rows))
        ids: list[list[int]] = [[] for _ in rows]
        logps = np.zeros(len(rows))
        ended = np.zeros(len(rows), dtype=bool)
        for step in range(max_new_tokens):
            u = torch.from_numpy(uniforms(seeds[[rows[a] for a in alive]], step)).float().to(device)
            tokens, logp = choose(logits, u, temperature=temperature, top_p=top_p, top_k=top_k)
            logps[alive] += np.where(ended[alive], 0.0, logp.cpu().double().numpy())
            for a, token in zip(alive, tokens.tolist(), strict=True):
                if not ended[a]:
                    ids[a].append(token)
                    ended[a] = token in end or (stopped is not None and stopped(ids[a]))
            if progress is not None:
                progress(len(alive))
            open_rows = np.flatnonzero(~ended[alive])
            if step + 1 == max_new_tokens or not len(open_rows):
                break
            if len(open_rows) <= 0.9 * len(alive):
                kept = torch.from_numpy(open_rows).to(device)
                state.keep(kept)
                positions, tokens, alive = positions[kept], tokens[kept], alive[open_rows]
            hidden = decoder(
                input_ids=tokens[None], position_ids=positions[None], use_cache=False, heedful_layout=state
            ).last_hidden_state[0]
            logits = head(hidden)
            positions = positions + 1
            state.step += 1
        for a, row in enumerate(rows):
            drawn[row] = Drawn(ids[a], float(logps[a]), bool(ended[a]))
    return [d for d in drawn if d is not None]


@torch.no_grad()
def generate_padded(
    causal: nn.Module,
    prompts: Sequence[Sequence[int]],
    n: int,
    seeds: np.ndarray,
    *,
    max_new_tokens: int,
    end: frozenset[int],
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
    stopped: Callable[[list[int]], bool] | None = None,
    max_rows: int = 256,
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> list[Drawn]:
    """The same through transformers' `generate`, for architectures that cannot share prefixes.

    Left-padded, sorted by length; `logp` is NaN, to be scored by the caller. What is drawn depends on the batching.
    """
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    drawn: list[Drawn | None] = [None] * (len(prompts) * n)
    for first in range(0, len(order), max(1, max_rows // n)):
        batch = order[first : first + max(1, max_rows // n)]
        width = max(len(prompts[i]) for i in batch)
        tokens = torch.zeros(len(batch), width, dtype=torch.long)
        mask = torch.zeros(len(batch), width, dtype=torch.long)
        for b, i in enumerate(batch):
            tokens[b, width - len(prompts[i]) :] = torch.tensor(list(prompts[i]))
            mask[b, width - len(prompts[i]) :] = 1
        how: dict[str, Any] = {
            "do_sample": temperature > 0,
            "num_return_sequences": n if temperature > 0 else 1,
            # What is not said here comes from the model's generation_config.json.
            "num_beams": 1,
            "repetition_penalty": 1.0,
            "no_repeat_ngram_size": 0,
            "typical_p": 1.0,
        }
        if temperature > 0:
            how |= {"temperature": temperature, "top_p": top_p, "top_k": top_k}
        gpus = [device] if torch.device(device).type == "cuda" else []
        with torch.random.fork_rng(devices=gpus):
            torch.manual_seed(int(seeds[batch[0] * n] % 2**62))
            out = causal.generate(  # type: ignore[operator]
                input_ids=tokens.to(device),
                attention_mask=mask.to(device),
                max_new_tokens=max_new_tokens,
                eos_token_id=sorted(end),
                pad_token_id=min(end),
                **how,
            )[:, width:].tolist()
        copies = n // (len(out) // len(batch))
        rows = [row for row in out for _ in range(copies)]
        for b, i in enumerate(batch):
            for j in range(n):
                drawn[i * n + j] = _cut(rows[b * n + j], end, stopped)
        if progress is not None:
            progress(sum(len(r) for r in rows))
    return [d for d in drawn if d is not None]


def _cut(ids: list[int], end: frozenset[int], stopped: Callable[[list[int]], bool] | None) -> Drawn:
    for at, token in enumerate(ids):
        if token in end or (stopped is not None and stopped(ids[: at + 1])):
            return Drawn(ids[: at + 1], float("nan"), True)
    return Drawn(ids, float("nan"), False)
