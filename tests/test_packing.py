"""Packed log-probabilities against the naive computation: more architectures, adapters, the output layer, edges."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from torch import Tensor, nn
from transformers import (
    Gemma2Config,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    PhiConfig,
    Qwen3Config,
)

from heedful.errors import HeedfulError
from heedful.policies import backbone, packing
from heedful.policies.backbone import Lora
from heedful.policies.language import LanguagePolicy
from heedful.policies.packing import Group, pack

PLAIN: dict[str, Any] = {
    "vocab_size": 420,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
SMALL: dict[str, Any] = {**PLAIN, "intermediate_size": 64}
GPT2 = GPT2Config(
    vocab_size=420, n_embd=32, n_layer=2, n_head=4, n_positions=256, bos_token_id=1, eos_token_id=2
)
NEOX = GPTNeoXConfig(**SMALL)
GEMMA2 = Gemma2Config(**SMALL, num_key_value_heads=2, head_dim=8, sliding_window=64)
SHARING = {
    "gpt-neox": NEOX,
    "gpt-neox-in-turn": GPTNeoXConfig(**SMALL, use_parallel_residual=False),
    "phi-biased-head": PhiConfig(**SMALL, partial_rotary_factor=0.5),
    "opt-learned-positions": OPTConfig(**PLAIN, ffn_dim=64, word_embed_proj_dim=32),
    "gemma-one-key": GemmaConfig(**SMALL, num_key_value_heads=1, head_dim=16),
    "qwen3-tied": Qwen3Config(**SMALL, num_key_value_heads=2, head_dim=8, tie_word_embeddings=True),
    "llama-untied-biased": LlamaConfig(
        **SMALL, tie_word_embeddings=False, attention_bias=True, mlp_bias=True
    ),
}


def policy(config: Any = None, lora: Lora | None = None, **options: Any) -> LanguagePolicy:
    options = {"precision": "fp32", "device": "cpu", **options}
    return LanguagePolicy(tiny.model(config=config), tiny.tokenizer(), lora=lora, **options)


def ids(seed: int, count: int) -> list[int]:
    return np.random.default_rng(seed).integers(3, 400, count).tolist()


SHAPES = [Group(ids(0, 7), [ids(1, 5), ids(2, 1), ids(3, 8)]), Group(ids(4, 1), [ids(5, 3)])]
SHAPES += [Group(ids(6, 12), [ids(7, 1), ids(8, 1)]), Group(ids(9, 2), [ids(10, 4), ids(10, 4)])]
"""Branches of different lengths, a prompt of one token, completions of one token, two that are the same."""


def naive(model: nn.Module, groups: list[Group]) -> tuple[Tensor, Tensor]:
    """(completions, T) log-probabilities and mask: a right-padded batch of whole sequences, the full softmax."""
    rows = [(g.prompt, c) for g in groups for c in g.completions]
    width = max(len(p) + len(c) for p, c in rows)
    longest = max(len(c) for _, c in rows)
    tokens, attended = torch.zeros(2, len(rows), width, dtype=torch.long)
    for i, (p, c) in enumerate(rows):
        tokens[i, : len(p) + len(c)] = torch.tensor([*p, *c])
        attended[i, : len(p) + len(c)] = 1
    logits = model(input_ids=tokens, attention_mask=attended, use_cache=False).logits.float().log_softmax(-1)
    mask = torch.zeros(len(rows), longest, dtype=torch.bool)
    parts = []
    for i, (p, c) in enumerate(rows):
        at = torch.arange(len(p) - 1, len(p) + len(c) - 1)
        values = logits[i, at, tokens[i, at + 1]]
        parts.append(torch.cat([values, values.new_zeros(longest - len(c))]))
        mask[i, : len(c)] = True
    return torch.stack(parts), mask


def agree(p: LanguagePolicy, groups: list[Group]) -> None:
    """Values to 1e-4, and gradients of a weighted square to 1e-4 of the largest."""
    logp, mask = p.logp_groups(groups)
    wanted, real = naive(p.module, groups)
    assert torch.equal(mask, real)
    torch.testing.assert_close(logp, wanted, atol=1e-4, rtol=0)
    weights = torch.rand(logp.shape, generator=torch.Generator().manual_seed(1))
    trained = [q for q in p.module.parameters() if q.requires_grad]
    ours = torch.autograd.grad((weights * logp.square()).sum(), trained, allow_unused=True)
    theirs = torch.autograd.grad((weights * wanted.square()).sum(), trained, allow_unused=True)
    scale = max(float(g.abs().max()) for g in theirs if g is not None)
    assert scale > 0.1
    for a, b in zip(ours, theirs, strict=True):
        if a is None or b is None:
            # An unused row of an embedding may come as zeros or not at all.
            assert a is b or float((a if b is None else b).abs().max()) == 0  # type: ignore[union-attr]
        else:
            assert (a - b).abs().max() <= 1e-4 * scale


@pytest.mark.parametrize("name", SHARING)
def test_more_architectures_equal_the_padded_computation(name: str) -> None:
    p = policy(SHARING[name])
    assert p.shares_prefix
    agree(p, SHAPES)


@pytest.mark.parametrize(
    "config",
    [NEOX, GPT2, SHARING["phi-biased-head"], GEMMA2],
    ids=["gpt-neox", "gpt2", "phi", "gemma2-fallback"],
)
def test_adapters_equal_the_padded_computation(config: Any) -> None:
    p = policy(config, lora=Lora(rank=4))
    assert p.shares_prefix is (config is not GEMMA2)
    with torch.no_grad():
        for name, q in p.module.named_parameters():
            if "lora_B" in name:
                q.normal_(std=0.1)
    agree(p, SHAPES)


def test_the_fallback_is_the_padded_computation() -> None:
    p = policy(GEMMA2)
    assert not p.shares_prefix and p.cost(SHAPES[0]) == 3 * (7 + 8)
    assert policy().cost(SHAPES[0]) == 7 + 4 + 0 + 7
    agree(p, SHAPES)


@pytest.mark.parametrize("window", [2, 5, 9])
def test_a_sliding_window_is_kept_within_branches(window: int) -> None:
    p = policy(MistralConfig(**SMALL, num_key_value_heads=2, sliding_window=window))
    assert p.shares_prefix
    agree(p, SHAPES)


@pytest.mark.parametrize("chunk", [1, 3, 1000])
@pytest.mark.parametrize("lora", [None, Lora(rank=2)], ids=["trained-head", "frozen-head"])
def test_the_output_layer_in_parts_gives_the_same(
    chunk: int, lora: Lora | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in vars(packing) if name.startswith("HEAD_CHUNK")]:
        monkeypatch.setattr(packing, name, chunk)
    agree(policy(lora=lora), SHAPES)


# ---- the output layer alone


def test_a_frozen_head_with_a_bias_passes_the_gradient_on() -> None:
    torch.manual_seed(0)
    head = nn.Linear(6, 11).double().requires_grad_(False)
    hidden = torch.randn(9, 6, dtype=torch.double, requires_grad=True)
    target = torch.randint(11, (9,))
    upstream = torch.randn(9)
    ours = packing.token_logp(hidden, head, target)
    theirs = head(hidden).log_softmax(-1).gather(-1, target[:, None]).squeeze(-1)
    torch.testing.assert_close(ours, theirs.float())
    (a,) = torch.autograd.grad((ours * upstream).sum(), hidden)
    (b,) = torch.autograd.grad((theirs * upstream).sum(), hidden)
    torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_the_logits_of_a_frozen_head_are_not_kept() -> None:
    head = nn.Linear(8, 5000, bias=False).requires_grad_(False)
    kept: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        packing.token_logp(torch.randn(30, 8, requires_grad=True), head, torch.zeros(30, dtype=torch.long))
    assert kept == [30 * 8]


def test_a_trained_head_gets_its_gradient_without_kept_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "HEAD_CHUNK_NUMBERS", 0)  # or all logits of so small a vocabulary are kept
    torch.manual_seed(0)
    head, hidden = nn.Linear(8, 500), torch.randn(30, 8, requires_grad=True)
    target = torch.randint(500, (30,))
    kept: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        ours = packing.token_logp(hidden, head, target)
    assert max(kept, default=0) <= 30 * 8
    theirs = head(hidden).log_softmax(-1).gather(-1, target[:, None]).squeeze(-1)
    for a, b in zip(
        torch.autograd.grad(ours.square().sum(), [hidden, *head.parameters()]),
        torch.autograd.grad(theirs.square().sum(), [hidden, *head.parameters()]),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-5)


# ---- layouts and batches


def test_a_layout_has_no_padding_and_numbers_completions_in_order() -> None:
    layout = pack(SHAPES)
    assert layout.tokens.shape == (1, sum(g.cost for g in SHAPES)) and layout.shape == (8, 8)
    lengths = [len(c) for g in SHAPES for c in g.completions]
    assert torch.bincount(layout.row).tolist() == lengths
    flat = [t for g in SHAPES for c in g.completions for t in c]
    assert layout.target.tolist() == flat
    read = {
        (int(row), int(column)): int(at) for row, column, at in zip(layout.row, layout.column, layout.read)
    }
    for row, length in enumerate(lengths):
        at = [int(layout.positions[0, read[row, column]]) for column in range(length)]
        assert at == list(range(at[0], at[0] + length)), "a token is predicted from the one before it"


@pytest.mark.parametrize("config", [None, GPT2, NEOX], ids=["llama", "gpt2", "gpt-neox"])
def test_a_rounded_layout_gives_the_same(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    p = policy(config)
    weights = list(p.module.parameters())
    # more positions behind them than the context has
    groups = [*SHAPES, *(Group(ids(i, 200), [ids(50 + i, 30)]) for i in range(40))]

    def told() -> tuple[Tensor, list[Tensor | None]]:
        logp, mask = p.logp_groups(groups)
        return logp.detach(), list(torch.autograd.grad(logp[mask].sum(), weights, allow_unused=True))

    logp, grads = told()
    monkeypatch.setattr(packing, "kernels_by_length", lambda _: True)
    again, regrads = told()
    torch.testing.assert_close(again, logp, atol=1e-5, rtol=1e-5)
    for a, b in zip(grads, regrads, strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            torch.testing.assert_close(a, b, atol=2e-3, rtol=1e-4)


def test_rounded_lengths_are_few_and_little_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "kernels_by_length", lambda _: True)
    lengths = {}
    for length in range(2, 3000):
        layout = packing.rounded(pack([Group([5] * length, [[7]])]))
        lengths[length] = layout.tokens.shape[1]
        assert layout.positions.shape == layout.tokens.shape
        assert layout.segments[-1][1] == lengths[length] and layout.read.tolist() == [length - 1]
    assert len(set(lengths.values())) < 80
    assert all(n <= made < n + max(16, n / 16) for n, made in lengths.items())


@pytest.mark.parametrize(("precision", "multiple"), [("bf16", True), ("fp32", False)])
def test_lengths_are_rounded_for_bfloat16_on_a_cpu(precision: str, multiple: bool) -> None:
    p = policy(precision=precision)
    with p.autocast():
        _, layout = p.hidden(SHAPES)
    assert (layout.tokens.shape[1] % 16 == 0) == multiple


def test_the_output_layer_gets_rounded_lengths_for_bfloat16() -> None:
    head, seen = nn.Linear(32, 420), []
    head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[0]))
    hidden, target = torch.randn(37, 32, requires_grad=True), torch.arange(37)
    plain = packing.token_logp(hidden, head, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again = packing.token_logp(hidden, head, target)
    assert seen == [37, 48] and again.shape == plain.shape
    torch.testing.assert_close(again, plain, atol=0.05, rtol=0.05)
    (a,), (b,) = (torch.autograd.grad(x.sum(), [hidden]) for x in (plain, again))
    torch.testing.assert_close(b, a, atol=0.02, rtol=0.1)


def by_bounds(calls: list[int], query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> Tensor:
    """What the one call on a GPU gives, segment by segment; `calls` gets the count of segments."""
    bounds, longest, scaling = rest
    ends = bounds.tolist()
    calls.append(len(ends) - 1)
    assert longest == max(b - a for a, b in pairwise(ends)) and query.dtype == torch.bfloat16
    again, out = query.shape[1] // key.shape[1], []
    for a, b in pairwise(ends):
        q, k, v = (x[a:b].transpose(0, 1) for x in (query, key, value))
        k, v = (x.repeat_interleave(again, 0) for x in (k, v))
        mask = torch.ones(b - a, b - a, dtype=torch.bool).tril()
        scores = (q @ k.transpose(1, 2) * scaling).masked_fill(~mask, -torch.inf)
        out.append((scores.softmax(-1) @ v).transpose(0, 1))
    return torch.cat(out)


@pytest.mark.parametrize("config", [None, NEOX, GPT2], ids=["llama", "gpt-neox", "gpt2"])
def test_attention_in_one_call_gives_the_same(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a GPU does it, but for the call itself, which is only there (see the next test)."""
    p, calls = policy(config, precision="bf16"), []
    groups = [Group(g.prompt, g.completions[:1]) for g in SHAPES]
    with torch.no_grad():
        before, mask = p.logp_groups(groups)
        monkeypatch.setattr(packing, "one_call", lambda device: True)
        monkeypatch.setattr(packing, "kernels_by_length", lambda device: False)
        monkeypatch.setattr(packing, "_by_bounds", partial(by_bounds, calls))
        after, _ = p.logp_groups(groups)
        assert calls == [len(groups)] * 2, "once a layer"
        p.logp_groups(SHAPES)
        policy(config).logp_groups(groups)
        assert len(calls) == 2, "neither where completions share a prompt nor in float32"
    torch.testing.assert_close(after[mask], before[mask], atol=0.05, rtol=0)


def test_windows_shorter_than_a_segment_are_not_left_to_the_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(packing, "one_call", lambda device: True)
    monkeypatch.setattr(packing, "kernels_by_length", lambda device: False)
    monkeypatch.setattr(packing, "_by_bounds", partial(by_bounds, calls))
    for window, count in ((8, 0), (64, 2)):
        p = policy(MistralConfig(**SMALL, num_key_value_heads=2, sliding_window=window), precision="bf16")
        with torch.no_grad():
            p.logp_groups([Group(ids(0, 20), [ids(1, 5)])])
        assert len(calls) == count


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_attention_in_one_call_on_a_gpu_is_that_of_each_group(monkeypatch: pytest.MonkeyPatch) -> None:
    if not packing.one_call(torch.device("cuda")):
        pytest.skip("needs a GPU with flash attention")
    p = policy(device="cuda", precision="bf16")
    groups = [Group(ids(n, n), [ids(90 + n, 80 - n)]) for n in (1, 7, 30)]

    def told() -> tuple[Tensor, list[Tensor]]:
        logp, mask = p.logp_groups(groups)
        weights = list(p.module.parameters())
        return logp.detach(), list(torch.autograd.grad(logp[mask].sum(), weights))

    logp, grads = told()
    monkeypatch.setattr(packing, "one_call", lambda device: False)
    again, regrads = told()
    torch.testing.assert_close(logp, again, atol=0.06, rtol=0)
    for a, b in zip(grads, regrads, strict=True):
        assert float((a - b).norm()) < 0.05 * float(b.norm()) + 1e-3


@pytest.mark.parametrize("config", [None, NEOX, GPT2], ids=["llama", "gpt-neox", "gpt2"])
def test_a_token_sees_its_own_branch_and_prompt_alone(config: Any) -> None:
    p = policy(config)

    def changed(groups: list[Group]) -> list[list[bool]]:
        with torch.no_grad():
            (a, mask), (b, _) = p.logp_groups(SHAPES), p.logp_groups(groups)
        return [((x - y).abs() > 1e-5)[m].tolist() for x, y, m in zip(a, b, mask, strict=True)]

    other, same = SHAPES[0].completions[1:], SHAPES[1:]
    first = [*SHAPES[0].completions[0]]
    for at in range(len(first)):
        tokens = [*first[:at], 3 + (first[at] + 1) % 300, *first[at + 1 :]]
        moved = changed([Group(SHAPES[0].prompt, [tokens, *other]), *same])
        assert moved[0] == [False] * at + [True] * (len(first) - at)
        assert not any(any(row) for row in moved[1:])
    moved = changed([Group([5, *SHAPES[0].prompt[1:]], SHAPES[0].completions), *same])
    assert all(all(row) for row in moved[:3]) and not any(any(row) for row in moved[3:])


@pytest.mark.parametrize("group", [Group([], [[1]]), Group([1], [[1], []])])
def test_an_empty_prompt_or_completion_is_refused(group: Group) -> None:
    with pytest.raises(ValueError, match="at least one token"):
        pack([group])


@pytest.mark.parametrize("config", [None, NEOX, GEMMA2], ids=["llama", "gpt-neox", "gemma2-fallback"])
def test_sums_do_not_depend_on_how_groups_are_batched(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    p = policy(config)
    groups = [
        Group(ids(i, 1 + i % 9), [ids(100 + i + j, 1 + (i * j) % 6) for j in range(1 + i % 3)])
        for i in range(20)
    ]
    with torch.no_grad():
        logp, _ = naive(p.module, groups)
    told: list[int] = []
    sums = []
    for budget in (1, 40, 10_000):
        monkeypatch.setattr(backbone, "TOKEN_BUDGET", budget)
        sums.append(p.sequence_logps(groups, progress=told.append))
        assert [len(row) for row in sums[-1]] == [len(g.completions) for g in groups]
        assert [v for row in sums[-1] for v in row] == pytest.approx(logp.sum(-1).tolist(), abs=1e-4)
    assert sum(told) == 3 * len(groups)


def test_a_pair_longer_than_the_context_is_refused() -> None:
    p = policy(NEOX)
    room = p.context - len(p.encoder.prompt("Why?"))
    p.group("Why?", ["a" * 3])
    with pytest.raises(HeedfulError, match=r"have \d+ tokens; the model's context is 256"):
        p.group("Why?", ["a", "no " * room])


def test_dropout_is_off_where_no_gradient_is_kept_and_on_where_it_is() -> None:
    p = policy(lora=Lora(rank=4, dropout=0.5))
    with torch.no_grad():
        for name, q in p.module.named_parameters():
            if "lora_B" in name:
                q.normal_(std=0.1)
    p.module.train()
    assert p.sequence_logps(SHAPES) == p.sequence_logps(SHAPES) and p.module.training
    assert not torch.equal(p.logp_groups(SHAPES)[0], p.logp_groups(SHAPES)[0])
