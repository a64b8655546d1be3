"""Sampling many short prompts with small models: a fixed number of rows, each refilled as soon as it ends.

`sampling.generate` draws a batch until its longest row ends, with ever fewer rows. Here a row that ends makes room for
the next prompt at once, which is encoded in the same forward pass that draws the next token of the others, so that the
batch is full until the prompts run out. Keys and values lie in one buffer a layer, made once. As there, every row has
its own random stream: what is drawn does not depend on how many rows there are and in what order they are refilled (up
to rounding of the arithmetic).

Letters as in `sampling`: R rows alive, K key/value heads, H heads, D head size, C positions a row can hold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heedful.policies.packing import UnsupportedModel
from heedful.policies.sampling import Drawn, choose, uniforms

CACHE_BYTES = 512 << 20  # of keys and values; fewer rows are drawn at a time where they would need more
COMPILED = ("cpu",)  # devices with a kernel for rows of many lengths


class Rows:
    """Keys and values of all rows alive, and the prompts that join them in the next forward pass.

    `lengths` (S,) says how many positions each of the S rows holds. In a forward pass the tokens of rows that go on
    come first, one of each; they are the first rows. Then come whole prompts.
    """

    def __init__(self, size: int, capacity: int, device: torch.device | str) -> None:
        self.size, self.capacity, self.device = size, capacity, torch.device(device)
        self.lengths = np.zeros(size, np.int64)
        self.compiled = self.device.type in COMPILED
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self.going = 0
        self.joining: dict[int, list[int]] = {}
        self.seen: Tensor | None = None

    def plan(self, going: int, joining: Sequence[tuple[int, int]]) -> None:
        """What the next forward pass holds: so many rows that go on, and (row, prompt length) of those that join, the
        short ones first."""
        self.going, self.seen = going, None
        self.joining = {}
        for row, length in joining:
            self.joining.setdefault(length, []).append(row)

    def move(self, source: int, target: int) -> None:
        """Give a row's place to another one."""
        length = int(self.lengths[source])
        for store in (*self.keys, *self.values):
            store[target, :, :length] = store[source, :, :length]
        self.lengths[target] = length

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
        """(1, H, T, D) -> (1, T, H, D)."""
        if window is not None and self.capacity > window:
            raise UnsupportedModel("a sample longer than the model's sliding window")
        kind = value.dtype
        if self.compiled:
            query, key, value = query.float(), key.float(), value.float()
        q, k, v = (x[0].transpose(0, 1).contiguous() for x in (query, key, value))  # (T, heads, D)
        if layer == len(self.keys):
            shape = (self.size, k.shape[1], self.capacity, k.shape[2])
            # under a mask, places that were never written are read, and must be numbers
            make = torch.empty if self.compiled else torch.zeros
            self.keys.append(make(shape, dtype=k.dtype, device=k.device))
            self.values.append(make(shape, dtype=v.dtype, device=v.device))
        at = self.going
        pieces = [self._step(layer, q[:at], k[:at], v[:at], scaling)] if at else []
        with torch.autocast(self.device.type, enabled=False):
            for length, rows in self.joining.items():
                part = slice(at, at + length * len(rows))
                pieces.append(self._prompts(layer, rows, length, q[part], k[part], v[part], scaling))
                at = part.stop
        return torch.cat(pieces)[None].to(kind)

    def _prompts(
        self, layer: int, rows: list[int], length: int, q: Tensor, k: Tensor, v: Tensor, scaling: float
    ) -> Tensor:
        """Whole prompts of one length, (rows * length, heads, D), causal."""
        q, k, v = (x.view(len(rows), length, *x.shape[1:]).transpose(1, 2) for x in (q, k, v))
        place = torch.tensor(rows, device=self.device)
        self.keys[layer][place, :, :length] = k
        self.values[layer][place, :, :length] = v
        out = F.scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=scaling, enable_gqa=q.shape[1] != k.shape[1]
        )
        return out.transpose(1, 2).reshape(-1, q.shape[1], q.shape[3])

    def _step(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scaling: float) -> Tensor:
        """One token of each row that goes on, (R, heads, D)."""
        keys, values = self.keys[layer][: len(q)], self.values[layer][: len(q)]
        if not self.compiled:
            return self._torch_step(q, k, v, keys, values, scaling)
        from heedful.policies.refill_kernel import attend

        out = torch.empty_like(q)
        attend(
            *(x.numpy() for x in (q, k, v, keys, values)),
            self.lengths[: len(q)],
            np.float32(scaling),
            out.numpy(),
        )
        return out

    def _torch_step(
        self, q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor, scaling: float
    ) -> Tensor:
        """The same on other devices: all rows as long as the longest, under a mask."""
        lengths = torch.from_numpy(self.lengths[: len(q)]).to(self.device)
        longest = int(self.lengths[: len(q)].max()) + 1
        if self.seen is None:
            self.seen = (torch.arange(longest, device=self.device)[None] <= lengths[:, None])[:, None, None]
        row = torch.arange(len(q), device=self.device)
        keys[row, :, lengths] = k
        values[row, :, lengths] = v
        with torch.autocast(self.device.type, enabled=False):
            out = F.scaled_dot_product_attention(
                q[:, :, None].to(keys.dtype),
                keys[:, :, :longest],
                values[:, :, :longest],
                attn_mask=self.seen,
                scale=scaling,
                enable_gqa=q.shape[1] != keys.shape[1],
            )
        return out[:, :, 0]


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
    """Sample n completions for each prompt; arguments and results are those of `sampling.generate`.

    max_rows: rows that are drawn at the same time, as far as CACHE_BYTES has room for them.
    """
    total = len(prompts) * n
    if not total:
        return []
    capacity = max(map(len, prompts)) + max_new_tokens
    config: Any = decoder.config
    size_of = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    kv = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    row_bytes = 2 * 4 * config.num_hidden_layers * kv * size_of * capacity
    slots = max(1, min(max_rows, total, CACHE_BYTES // row_bytes))
    state = Rows(slots, capacity, device)

    row_of = np.zeros(slots, np.int64)  # which completion each slot draws
    tokens = np.zeros(slots, np.int64)  # the token it drew last
    ids = np.zeros((total, max_new_tokens), np.int32)
    counts, logps, ended = np.zeros(total, np.int64), np.zeros(total), np.zeros(total, bool)
    ends = np.array(sorted(end), np.int64)
    queued = going = 0
    while True:
        joining = list(range(going, min(slots, going + total - queued)))
        row_of[joining] = np.arange(queued, queued + len(joining))
        queued += len(joining)
        joining.sort(key=lambda slot: len(prompts[row_of[slot] // n]))
        alive = going + len(joining)
        if not alive:
            break  # nothing is left to draw
        new = [prompts[row_of[slot] // n] for slot in joining]
        lengths = np.array([len(prompt) for prompt in new], np.int64)
        state.plan(going, list(zip(joining, lengths.tolist(), strict=True)))
        order = np.concatenate([np.arange(going), np.array(joining, np.int64)])
        flat = np.concatenate([tokens[:going], *(np.array(prompt, np.int64) for prompt in new)])
        places = np.concatenate([state.lengths[:going], *map(np.arange, lengths)])
        hidden = decoder(
            input_ids=torch.from_numpy(flat)[None].to(device),
            position_ids=torch.from_numpy(places)[None].to(device),
            use_cache=False,
            heedful_layout=state,
        ).last_hidden_state[0]
        state.lengths[:going] += 1
        state.lengths[joining] = lengths
        read = np.concatenate([np.arange(going), going + np.cumsum(lengths) - 1])
        logits = head(hidden if not joining else hidden[torch.from_numpy(read).to(device)])

        rows = row_of[order]
        u = torch.from_numpy(uniforms(seeds[rows], counts[rows])).float().to(device)
        drawn, logp = choose(logits, u, temperature=temperature, top_p=top_p, top_k=top_k)
        told = drawn.cpu().numpy()
        tokens[order] = told
        ids[rows, counts[rows]] = told
        counts[rows] += 1
        logps[rows] += logp.cpu().double().numpy()
        ended[rows] = np.isin(told, ends)
        if stopped is not None:
            for row in rows[~ended[rows]]:
                ended[row] = stopped(ids[row, : counts[row]].tolist())
        if progress is not None:
            progress(alive)
        done = ended[row_of[:alive]] | (counts[row_of[:alive]] == max_new_tokens)
        going = alive
        for slot in np.flatnonzero(done)[::-1].tolist():  # from the end, so that what moves in goes on
            going -= 1
            if slot != going:
                state.move(going, slot)
                row_of[slot], tokens[slot] = row_of[going], tokens[going]
    return [
        Drawn(ids[row, : counts[row]].tolist(), float(logps[row]), bool(ended[row])) for row in range(total)
    ]
