"""Log-probabilities of many completions, each prompt encoded once and no position wasted.

Three savings over a padded batch, all exact (they change the order of work, not the mathematics):

1. a prompt with N completions is one *group* of P + C1 + ... + CN tokens, instead of N rows of P + C;
2. groups stand one behind the other in a single flat row, so nothing is padded (but see `spare`); attention is called
   per group (on a GPU once for all groups with one completion each);
3. the output layer runs only where a completion token is predicted, and keeps no logits.

Letters: B prompts, N completions per prompt, T tokens, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

ATTENTION = "heedful_packed"
HEAD_CHUNK = 128  # positions whose logits exist at the same time: 128 x 49152 x 4 bytes = 25 MB
HEAD_CHUNK_NUMBERS = 128 * 49152  # with a small vocabulary more positions have room for theirs


class Group(NamedTuple):
    """One prompt and its completions, as token ids. The prompt and every completion have at least one token.

    stem: so many of the prompt's last tokens are themselves what the policy wrote, the part that all completions begin
    with. They are scored too: as a completion of their own, numbered before the others.
    """

    prompt: Sequence[int]
    completions: Sequence[Sequence[int]]
    stem: int = 0

    @property
    def scored(self) -> list[list[int]]:
        """What is scored, in the order of the results: the stem if there is one, then the completions."""
        stem = [list(self.prompt[len(self.prompt) - self.stem :])] if self.stem else []
        return [*stem, *map(list, self.completions)]

    @property
    def cost(self) -> int:
        """Positions this group takes in a pack; the last token of a completion predicts nothing."""
        return len(self.prompt) + sum(len(c) - 1 for c in self.completions)


@dataclass(frozen=True)
class Pack:
    """Groups laid out in one row of T positions; built by `pack`."""

    tokens: Tensor  # (1, T)
    positions: Tensor  # (1, T): a completion continues at its prompt's length
    segments: list[tuple[int, int, Tensor | None]]  # start, end, attention mask (L, L); None means causal
    read: Tensor  # (M,) position whose output predicts a completion token
    target: Tensor  # (M,) that token
    row: Tensor  # (M,) which completion it belongs to
    column: Tensor  # (M,) where in that completion
    shape: tuple[int, int]  # completions, longest completion
    float_attention: bool = False  # attention in float32 under autocast too
    bounds: Tensor | None = (
        None  # (segments + 1,) where they begin and end, where one call can do all of them
    )

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
        """Attention inside each group: (1, H, T, D) -> (1, T, H, D)."""
        kind = value.dtype
        if self.float_attention:
            query, key, value = query.float(), key.float(), value.float()
        lengths = [end - start for start, end, _ in self.segments]
        longest, device, size = max(lengths), query.device.type, query.shape[-1]
        near = window is not None and window < longest
        if self.bounds is not None and not (
            self.float_attention or dropout or near or size % 8 or size > 256
        ):
            half = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else kind
            if half in (torch.bfloat16, torch.float16):
                q, k, v = (x[0].transpose(0, 1).to(half) for x in (query, key, value))
                return _by_bounds(q, k, v, self.bounds, longest, scaling)[None].to(kind)
        pieces = []
        with torch.autocast(device, enabled=False) if self.float_attention else nullcontext():
            # split, not slices: a slice's gradient is as long as the whole row, of zeros but for the slice
            parts = zip(*(x.split(lengths, dim=2) for x in (query, key, value)), strict=True)
            for (start, end, mask), (q, k, v) in zip(self.segments, parts, strict=True):
                mask, causal = _within(mask, end - start, self.positions[0, start:end], window)
                pieces.append(
                    F.scaled_dot_product_attention(
                        q,
                        k,
                        v,
                        attn_mask=mask,
                        is_causal=causal,
                        dropout_p=dropout,
                        scale=scaling,
                        enable_gqa=query.shape[1] != key.shape[1],
                    )
                )
        return torch.cat(pieces, dim=2).transpose(1, 2).to(kind)


def _by_bounds(
    query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, longest: int, scaling: float
) -> Tensor:
    """Causal attention inside each segment in one call on a GPU, (T, H, D) -> (T, H, D): calls are what short segments
    cost there. torch's public name for it, `torch.nn.attention.varlen`, has other arguments from version to version."""
    return torch.ops.aten._flash_attention_forward(
        query, key, value, bounds, bounds, longest, longest, 0.0, True, False, scale=scaling
    )[0]


def one_call(device: torch.device) -> bool:
    """Whether attention over segments of different lengths is one call here, see `_by_bounds`."""
    return (
        device.type == "cuda"
        and torch.backends.cuda.is_flash_attention_available()
        and torch.cuda.get_device_capability(device) >= (8, 0)
    )


def _within(
    mask: Tensor | None, length: int, positions: Tensor, window: int | None
) -> tuple[Tensor | None, bool]:
    """The mask of one group, narrowed to a sliding window where the layer has one."""
    if window is None or length <= window:
        return mask, mask is None
    near = (positions[:, None] - positions[None, :]) < window
    causal = torch.ones(length, length, dtype=torch.bool, device=positions.device).tril()
    return (causal if mask is None else mask) & near, False


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    heedful_layout: Any = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The attention function transformers calls; the layout (a `Pack` or a decoding cache) does the work."""
    unknown = {k for k in ("softcap", "s_aux", "position_bias") if kwargs.get(k) is not None}
    if unknown or heedful_layout is None:
        raise UnsupportedModel(f"attention of {type(module).__name__} needs {unknown or 'a layout'}")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    out = heedful_layout.attend(
        module.layer_idx, query, key, value, scaling=scale, dropout=dropout, window=sliding_window
    )
    return out, None


AttentionInterface.register(ATTENTION, packed_attention)


class UnsupportedModel(RuntimeError):
    """This architecture cannot share prefixes; the caller falls back to padded batches."""


def pack(
    groups: Sequence[Group], device: torch.device | str = "cpu", *, float_attention: bool = False
) -> Pack:
    """Lay groups out in one row. Completions are numbered in order: those of the first group first."""
    tokens: list[int] = []
    positions: list[int] = []
    segments: list[tuple[int, int, Tensor | None]] = []
    read: list[int] = []
    target: list[int] = []
    rows: list[int] = []
    columns: list[int] = []
    row = longest = 0
    for group in groups:
        prefix, start = len(group.prompt), len(tokens)
        if not prefix or not all(len(c) for c in group.completions):
            raise ValueError("a prompt and each of its completions need at least one token")
        if not 0 <= group.stem < prefix:
            raise ValueError("a stem is shorter than its prompt")
        tokens.extend(group.prompt)
        positions.extend(range(prefix))
        if group.stem:
            read.extend(range(start + prefix - group.stem - 1, start + prefix - 1))
            target.extend(group.prompt[prefix - group.stem :])
            rows.extend([row] * group.stem)
            columns.extend(range(group.stem))
            row, longest = row + 1, max(longest, group.stem)
        for completion in group.completions:
            first = len(tokens)
            tokens.extend(completion[:-1])
            positions.extend(range(prefix, prefix + len(completion) - 1))
            read.append(start + prefix - 1)
            read.extend(range(first, first + len(completion) - 1))
            target.extend(completion)
            rows.extend([row] * len(completion))
            columns.extend(range(len(completion)))
            row, longest = row + 1, max(longest, len(completion))
        lengths = [len(c) - 1 for c in group.completions]
        segments.append((start, len(tokens), _branch_mask(prefix, lengths, device)))

    def tensor(values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=device)

    causal = all(mask is None for _, _, mask in segments)
    bounds = None
    if causal and one_call(torch.device(device)):
        ends = [0, *(end for _, end, _ in segments)]
        bounds = torch.tensor(ends, dtype=torch.int32, device=device)
    return Pack(
        tensor(tokens)[None],
        tensor(positions)[None],
        segments,
        tensor(read),
        tensor(target),
        tensor(rows),
        tensor(columns),
        (row, longest),
        float_attention,
        bounds,
    )


def kernels_by_length(device: torch.device) -> bool:
    """Whether matrices are multiplied by oneDNN in bfloat16 here, see `spare`."""
    return device.type == "cpu" and torch.is_autocast_enabled("cpu")


def spare(length: int, device: torch.device) -> int:
    """How many positions make `length` up to a multiple of 16, and of a 16th of the power of two below it; 0 where
    that saves nothing.

    oneDNN compiles a kernel for each new length, which takes as long as the product, and keeps a thousand of them:
    with all lengths different that is gigabytes, and no kernel is used again.
    """
    return -length % max(16, 1 << max(0, length.bit_length() - 5)) if kernels_by_length(device) else 0


def rounded(layout: Pack) -> Pack:
    """The same layout with `spare` positions behind it that nobody reads."""
    length = layout.tokens.shape[1]
    more = spare(length, layout.tokens.device)
    if not more:
        return layout
    return replace(
        layout,
        tokens=F.pad(layout.tokens, (0, more)),
        positions=F.pad(layout.positions, (0, more)),  # 0 is one that every model knows
        segments=[*layout.segments, (length, length + more, None)],
    )


def _branch_mask(prefix: int, lengths: list[int], device: torch.device | str) -> Tensor | None:
    """Causal, and no completion sees another. None when there is at most one branch: plain causal is the same."""
    if sum(n > 0 for n in lengths) <= 1:
        return None
    total = prefix + sum(lengths)
    mask = torch.ones(total, total, dtype=torch.bool, device=device).tril()
    start = prefix
    for n in lengths:
        mask[start : start + n, prefix:start] = False
        start += n
    return mask


class _FrozenHeadLogp(torch.autograd.Function):
    """log softmax(h W^T)[target] with no logits kept: the gradient of one log-probability with respect to its
    hidden state is W[target] - softmax(h W^T) W, so it is computed at once and scaled later.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor) -> Tensor:
        logp = torch.empty(hidden.shape[0], dtype=torch.float32, device=hidden.device)
        direction = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for start in range(0, hidden.shape[0], HEAD_CHUNK):
            part = slice(start, start + HEAD_CHUNK)
            logits = F.linear(hidden[part].to(weight.dtype), weight, bias).float()
            total = logits.logsumexp(-1, keepdim=True)
            picked = target[part, None]
            logp[part] = (logits.gather(-1, picked) - total).squeeze(-1)
            if direction is not None:
                share = logits.sub_(total).exp_()
                share.scatter_add_(-1, picked, share.new_full(picked.shape, -1.0))
                direction[part] = -(share.to(weight.dtype) @ weight).to(hidden.dtype)
        ctx.save_for_backward(*(() if direction is None else (direction,)))
        return logp

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, None, None, None]:
        (direction,) = ctx.saved_tensors
        return grad_outputs[0][:, None].to(direction.dtype) * direction, None, None, None


def _chunk(vocabulary: int) -> int:
    return max(HEAD_CHUNK, HEAD_CHUNK_NUMBERS // vocabulary)


def _plain_logp(hidden: Tensor, head: nn.Module, target: Tensor) -> Tensor:
    logits = head(hidden).float()
    return logits.gather(-1, target[:, None]).squeeze(-1) - logits.logsumexp(-1)


def token_logp(hidden: Tensor, head: nn.Module, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Log-probability of each target from the hidden state that predicts it.

    hidden (M, D), target (M,) -> (M,) float32. `weight` is the head's matrix in the compute type, if a copy exists.
    A frozen linear head keeps nothing for the backward pass but (M, D); a trained one recomputes its logits, unless
    the vocabulary is so small that all of them are kept.
    """
    if type(head) is nn.Linear and not head.weight.requires_grad:
        return _FrozenHeadLogp.apply(hidden, head.weight if weight is None else weight, head.bias, target)  # type: ignore[return-value]
    pieces = []
    size = _chunk(int(getattr(head, "out_features", HEAD_CHUNK_NUMBERS)))
    if hidden.shape[0] <= size > HEAD_CHUNK:
        count = len(target)
        if more := spare(count, hidden.device):
            hidden = F.pad(hidden, (0, 0, 0, more))
        return -F.cross_entropy(head(hidden)[:count].float(), target, reduction="none")
    for start in range(0, hidden.shape[0], size):
        part = slice(start, start + size)
        if torch.is_grad_enabled():
            from torch.utils.checkpoint import checkpoint

            pieces.append(checkpoint(_plain_logp, hidden[part], head, target[part], use_reentrant=False))
        else:
            pieces.append(_plain_logp(hidden[part], head, target[part]))
    return torch.cat(pieces)


def _plain_kl(hidden: Tensor, ref_hidden: Tensor, head: nn.Module) -> Tensor:
    ref = head(ref_hidden).float().log_softmax(-1)
    return (ref.exp() * (ref - head(hidden).float().log_softmax(-1))).sum(-1)


def token_kl(hidden: Tensor, ref_hidden: Tensor, head: nn.Module) -> Tensor:
    """KL(reference || policy) of the next-token distributions, (M, D) and (M, D) -> (M,) float32, in nats.

    For a frozen head, which both share. Logits are made chunk by chunk, and again for the backward pass.
    """
    from torch.utils.checkpoint import checkpoint

    pieces = []
    for start in range(0, hidden.shape[0], HEAD_CHUNK):
        part = (hidden[start : start + HEAD_CHUNK], ref_hidden[start : start + HEAD_CHUNK].detach(), head)
        pieces.append(
            checkpoint(_plain_kl, *part, use_reentrant=False) if torch.is_grad_enabled() else _plain_kl(*part)
        )
    return torch.cat(pieces)


def scatter_rows(values: Tensor, layout: Pack) -> tuple[Tensor, Tensor]:
    """(M,) per-token values -> (completions, longest) and the mask of real tokens."""
    out = values.new_zeros(layout.shape).index_put((layout.row, layout.column), values)
    mask = torch.zeros(layout.shape, dtype=torch.bool, device=values.device)
    mask[layout.row, layout.column] = True
    return out, mask
