"""Sampling with refill: the same samples as without, however many rows there are; the kernel; the work it saves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from test_sampling import PROMPTS, SHARING, policy, seeded, with_ends

from heedful.policies import refill
from heedful.policies.refill_kernel import attend

MANY = [f"{prompt}{' Hm.' * (i % 4)}" for i, prompt in enumerate(PROMPTS * 3)]


def ended(p: Any) -> Any:
    """The policy with end tokens that are drawn now and then, so that rows have many lengths."""
    free = policy().sample(PROMPTS, 8, generator=seeded(2), max_new_tokens=30).outputs
    counts = torch.bincount(torch.tensor([t for out in free for t in out.ids]), minlength=420)
    return with_ends(p, 2, *counts.argsort(descending=True)[8:20].tolist())


@pytest.mark.parametrize(
    ("name", "compiled"), [*((name, True) for name in SHARING), ("llama-grouped", False)]
)
def test_refilled_rows_draw_what_they_draw_without(
    name: str, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refill, "COMPILED", ("cpu",) if compiled else ())
    how: dict[str, Any] = {"max_new_tokens": 16, "temperature": 0.9, "top_p": 0.95}
    whole = ended(policy(SHARING[name])).sample(MANY, 2, generator=seeded(5), **how).outputs
    assert len({len(out.ids) for out in whole}) > 3 and len({out.ids for out in whole}) > 15
    small = ended(policy(SHARING[name], small=True))
    for rows in (1, 7) if compiled else (3, 100):
        drawn = small.sample(MANY, 2, generator=seeded(5), max_rows=rows, **how).outputs
        assert [out.ids for out in drawn] == [out.ids for out in whole]
        assert [out.finished for out in drawn] == [out.finished for out in whole]
        np.testing.assert_allclose([out.logp for out in drawn], [out.logp for out in whole], atol=1e-4)


def test_later_prompts_take_no_part() -> None:
    p = ended(policy(small=True))

    def draw(prompts: list[str]) -> list[tuple[int, ...]]:
        drawn = p.sample(prompts, 2, generator=seeded(1), max_new_tokens=16, max_rows=3)
        return [out.ids for out in drawn.outputs]

    assert draw(MANY)[:8] == draw(MANY[:4])
    changed = draw([MANY[0], "Boil an egg, please!", *MANY[2:]])
    assert [a == b for a, b in zip(changed, draw(MANY), strict=True)] == [True] * 2 + [False] * 2 + [
        True
    ] * 20


def test_a_full_batch_needs_few_forward_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    p = ended(policy(small=True))
    planned: list[tuple[int, int]] = []
    plan = refill.Rows.plan

    def noted(self: refill.Rows, going: int, joining: Any) -> None:
        planned.append((going, len(joining)))
        plan(self, going, joining)

    monkeypatch.setattr(refill.Rows, "plan", noted)
    lengths = [
        len(out.ids) for out in p.sample(MANY, 4, generator=seeded(3), max_new_tokens=40, max_rows=8).outputs
    ]
    assert sum(joined for _, joined in planned) == 48
    assert sum(going + joined for going, joined in planned) == sum(lengths), (
        "no row is computed after its end"
    )
    full = [going + joined for going, joined in planned]
    last = max(i for i, (_, joined) in enumerate(planned) if joined)
    assert set(full[: last + 1]) == {8}, "full until the prompts run out"
    in_turn = sum(max(lengths[i : i + 8]) for i in range(0, 48, 8))
    assert sum(lengths) / 8 <= len(planned) < sum(lengths) / 8 + 40 and len(planned) < 0.7 * in_turn


def test_rows_are_fewer_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    p = policy(small=True)
    how: dict[str, Any] = {"generator": seeded(3), "max_new_tokens": 12}
    whole = p.sample(MANY, 1, **how).outputs
    made: list[int] = []
    start = refill.Rows.__init__

    def noted(self: refill.Rows, size: int, *rest: Any) -> None:
        made.append(size)
        start(self, size, *rest)

    monkeypatch.setattr(refill.Rows, "__init__", noted)
    monkeypatch.setattr(refill, "CACHE_BYTES", 100_000)
    assert p.sample(MANY, 1, **{**how, "generator": seeded(3)}).outputs == whole
    longest = max(len(p.encoder.prompt(prompt)) for prompt in MANY) + 12
    assert made == [100_000 // (2 * 4 * 2 * 2 * 8 * longest)] and 1 <= made[0] < 12


def test_greedy_streams_are_those_of_transformers() -> None:
    p = policy(small=True)
    ours = p.sample(PROMPTS, 1, temperature=0.0, generator=seeded(), max_new_tokens=60, max_rows=2).outputs
    model = tiny.model()
    for out, prompt in zip(ours, PROMPTS, strict=True):
        ids = torch.tensor([p.encoder.prompt(prompt)])
        theirs = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=60, do_sample=False, pad_token_id=0
        )[0, ids.shape[1] :].tolist()
        assert list(out.ids) == theirs


def test_stop_strings_and_the_limit_end_rows() -> None:
    p, plain = policy(small=True), policy()
    for stop in ((), ("e",), ("e", "o")):
        how: dict[str, Any] = {"max_new_tokens": 9, "stop": stop}
        drawn = p.sample(MANY, 2, generator=seeded(4), max_rows=5, **how).outputs
        assert [(out.ids, out.text, out.finished) for out in drawn] == [
            (out.ids, out.text, out.finished)
            for out in plain.sample(MANY, 2, generator=seeded(4), **how).outputs
        ]
    assert p.sample([], 3, generator=seeded()).outputs == []


def test_progress_counts_what_is_drawn() -> None:
    told: list[int] = []
    p = ended(policy(small=True))
    drawn = p.sample(MANY, 2, generator=seeded(), max_new_tokens=20, max_rows=6, progress=told.append)
    assert sum(told) == sum(len(out.ids) for out in drawn.outputs) and max(told) == 6


# ---- the kernel


def rows(count: int, heads: int, kv: int, size: int, longest: int) -> list[Any]:
    torch.manual_seed(count)
    made = [torch.randn(count, heads, size), torch.randn(count, kv, size), torch.randn(count, kv, size)]
    made += [torch.randn(count, kv, longest, size), torch.randn(count, kv, longest, size)]
    return made


@pytest.mark.parametrize(("heads", "kv", "size"), [(4, 4, 8), (4, 2, 8), (6, 1, 5), (1, 1, 3)])
def test_the_kernel_is_attention_over_each_rows_own_keys(heads: int, kv: int, size: int) -> None:
    query, key, value, keys, values = rows(7, heads, kv, size, 20)
    lengths = np.array([0, 1, 5, 19, 7, 3, 12])
    keys[2, :, 6:] = float("nan")  # behind a row's own keys nothing is read
    expected = []
    for r, n in enumerate(lengths):
        k = torch.cat([keys[r, :, :n], key[r, :, None]], 1)
        v = torch.cat([values[r, :, :n], value[r, :, None]], 1)
        q = query[r, :, None]
        expected.append(
            F.scaled_dot_product_attention(q[None], k[None], v[None], enable_gqa=True, scale=0.3)[0, :, 0]
        )
    out = torch.empty_like(query)
    attend(*(x.numpy() for x in (query, key, value, keys, values)), lengths, np.float32(0.3), out.numpy())
    torch.testing.assert_close(out, torch.stack(expected), atol=2e-6, rtol=1e-5)
    for r, n in enumerate(lengths):
        assert torch.equal(keys[r, :, n], key[r]) and torch.equal(values[r, :, n], value[r])


def test_a_row_gets_the_same_bits_whatever_is_beside_it() -> None:
    query, key, value, keys, values = rows(9, 4, 2, 8, 30)
    lengths = np.arange(9) * 3
    out, alone = torch.empty_like(query), torch.empty_like(query)
    attend(*(x.numpy() for x in (query, key, value, keys, values)), lengths, np.float32(0.3), out.numpy())
    for r in range(9):
        one = [x[r : r + 1].numpy() for x in (query, key, value, keys, values)]
        attend(*one, lengths[r : r + 1], np.float32(0.3), alone[r : r + 1].numpy())
    assert torch.equal(out, alone)


def test_large_scores_do_not_overflow() -> None:
    query, key, value, keys, values = rows(1, 1, 1, 4, 3)
    keys[:] = 1e3
    key[:] = 1e3
    query[:] = 10.0
    out = torch.empty_like(query)
    attend(*(x.numpy() for x in (query, key, value, keys, values)), np.array([2]), np.float32(1), out.numpy())
    torch.testing.assert_close(out[0, 0], torch.cat([values[0, 0, :2], value[0]]).mean(0))
