"""Sampling against naive references: choices, distributions, ends, stops, batching, other architectures."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import Gemma2Config, GPT2Config, GPTNeoXConfig, LlamaConfig

from heedful.errors import HeedfulError
from heedful.policies import sampling
from heedful.policies.language import LanguagePolicy

SMALL: dict[str, Any] = {
    "vocab_size": 420,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GEMMA2 = Gemma2Config(**SMALL, num_key_value_heads=2, head_dim=8, sliding_window=64)  # shares no prefixes
GPT2 = GPT2Config(
    vocab_size=420, n_embd=32, n_layer=2, n_head=4, n_positions=256, bos_token_id=1, eos_token_id=2
)
SHARING = {
    "llama": LlamaConfig(**SMALL),
    "llama-grouped": LlamaConfig(**SMALL, num_key_value_heads=2),
    "llama-one-key": LlamaConfig(**SMALL, num_key_value_heads=1),
    "gpt-neox": GPTNeoXConfig(**SMALL),
    "gpt2": GPT2,
}
PROMPTS = [
    "Hi",
    "What is the capital of France?",
    "Boil an egg for me and for all of my friends, please.",
    "Why?",
]


def policy(config: Any = None, **options: Any) -> LanguagePolicy:
    made = LanguagePolicy(
        tiny.model(config=config), tiny.tokenizer(), **{"device": "cpu", "precision": "fp32", **options}
    )
    assert made.shares_prefix is (config is not GEMMA2)
    return made


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---- one choice


def reference(logits: Tensor, temperature: float, top_p: float, top_k: int) -> Tensor:
    """Probabilities by the definition, in double precision: temperature, then the k most likely, then the least number
    of these that reaches top_p."""
    p = (logits.double() / temperature).softmax(-1)
    order = sorted(range(len(p)), key=lambda i: -float(p[i]))
    order = order[:top_k] if top_k else order
    kept, total, whole = [], 0.0, sum(float(p[i]) for i in order)
    for i in order:
        kept.append(i)
        total += float(p[i]) / whole
        if total >= top_p:
            break
    out = torch.zeros_like(p)
    out[kept] = p[kept]
    return out / out.sum()


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 10_000),
    st.sampled_from([0.3, 1.0, 2.5]),
    st.sampled_from([1.0, 0.95, 0.6, 0.1, 1e-6]),
    st.sampled_from([0, 1, 3, 50]),
)
def test_a_choice_follows_the_definition(seed: int, temperature: float, top_p: float, top_k: int) -> None:
    logits = torch.randn(9, generator=seeded(seed)) * 2
    grid = 4000
    u = (torch.arange(grid, dtype=torch.float64) + 0.5) / grid
    tokens, logp = sampling.choose(
        logits.repeat(grid, 1), u, temperature=temperature, top_p=top_p, top_k=top_k
    )
    share = torch.bincount(tokens, minlength=9) / grid
    wanted = reference(logits, temperature, top_p, top_k)
    assert torch.all((share - wanted).abs() < 2e-3)
    assert torch.all(wanted[share > 0] > 0), "nothing is drawn that was cut off"
    torch.testing.assert_close(logp, logits.log_softmax(-1)[tokens], atol=1e-5, rtol=0)


@pytest.mark.parametrize("u", [0.0, 0.5, 1 - 2**-24, 1.0])
@pytest.mark.parametrize("how", [{}, {"top_k": 5}, {"top_p": 0.9}])
def test_an_impossible_token_is_never_drawn(u: float, how: dict[str, Any]) -> None:
    logits = torch.full((1, 50), float("-inf"))
    logits[0, 20:23] = torch.tensor([0.1, 0.2, 0.3])
    token, logp = sampling.choose(logits, torch.tensor([u]), temperature=1.0, **how)
    assert token.item() in (20, 21, 22) and math.isfinite(logp.item())


def test_temperature_0_takes_the_most_likely_whatever_else_is_set() -> None:
    logits = torch.randn(40, 30, generator=seeded())
    for how in ({}, {"top_k": 3}, {"top_p": 0.2}):
        tokens, _ = sampling.choose(logits, torch.rand(40, generator=seeded()), temperature=0.0, **how)
        assert torch.equal(tokens, logits.argmax(-1))


# ---- distributions


def fits(counts: Tensor, probs: Tensor) -> None:
    """A chi-square test. Tokens are put together, the most likely first, until seven are expected of each bin."""
    total = int(counts.sum())
    assert total >= 40 and int(counts[probs == 0].sum()) == 0
    observed, expected = [0.0], [0.0]
    for token in probs.argsort(descending=True).tolist():
        if expected[-1] >= 7:
            observed.append(0.0)
            expected.append(0.0)
        observed[-1] += float(counts[token])
        expected[-1] += float(probs[token]) * total
    free = len(expected) - 1
    statistic = sum((o - e) ** 2 / e for o, e in zip(observed, expected) if e)
    # Wilson and Hilferty: the cube root is nearly normal; 4 standard deviations are about 1 in 30,000.
    z = ((statistic / free) ** (1 / 3) - (1 - 2 / (9 * free))) / math.sqrt(2 / (9 * free))
    assert free >= 3 and z < 4, (statistic, free)


def next_probs(p: LanguagePolicy, ids: list[int], **how: Any) -> Tensor:
    with torch.no_grad():
        logits = p.transformer(input_ids=torch.tensor([ids])).logits[0, -1].float()
    return reference(logits, **{"temperature": 1.0, "top_p": 1.0, "top_k": 0, **how})


@pytest.mark.parametrize("config", [None, GPT2, GEMMA2], ids=["llama", "gpt2", "gemma2"])
@pytest.mark.parametrize(
    "how", [{}, {"temperature": 0.7, "top_p": 0.8}, {"temperature": 1.5, "top_p": 0.9, "top_k": 12}], ids=str
)
def test_the_first_two_tokens_follow_the_model(config: Any, how: dict[str, Any]) -> None:
    p = policy(config)
    count = 3000
    ids = p.encoder.prompt("What is red?")
    drawn = p.sample(
        ["What is red?"], count, generator=seeded(7), max_new_tokens=2, max_rows=count, **how
    ).outputs
    counts = torch.bincount(torch.tensor([out.ids[0] for out in drawn]), minlength=420)
    fits(counts, next_probs(p, ids, **how))
    common = [t for t in counts.argsort(descending=True).tolist() if t not in p._end_tokens()]
    for first in common[:1]:
        second = torch.tensor([out.ids[1] for out in drawn if out.ids[0] == first])
        fits(torch.bincount(second, minlength=420), next_probs(p, [*ids, first], **how))


def test_the_draws_of_a_row_and_of_its_neighbours_are_independent() -> None:
    p = policy()
    drawn = p.sample(["Hi", "Hi"], 3000, generator=seeded(3), max_new_tokens=2, max_rows=6000).outputs
    ids = torch.tensor([(*out.ids, 0)[:2] for out in drawn])
    top = int(torch.bincount(ids[:, 0]).argmax())
    share = float((ids[:, 0] == top).double().mean())
    both = float(((ids[:3000, 0] == top) & (ids[3000:, 0] == top)).double().mean())
    assert abs(both - share**2) < 4.5 * math.sqrt(share**2 * (1 - share**2) / 3000)
    neighbours = float(((ids[:-1, 0] == top) & (ids[1:, 0] == top)).double().mean())
    assert abs(neighbours - share**2) < 4.5 * math.sqrt(share**2 * (1 - share**2) / 3000)


# ---- what is drawn is the same however it is computed


@pytest.mark.parametrize("name", SHARING)
def test_samples_do_not_depend_on_batches_and_neighbours(name: str) -> None:
    p = policy(SHARING[name])

    def draw(prompts: list[str], n: int = 3, **how: Any) -> list[tuple[int, ...]]:
        drawn = p.sample(prompts, n, generator=seeded(5), max_new_tokens=12, **how)
        return [out.ids for out in drawn.outputs]

    whole = draw(PROMPTS)
    assert all(draw(PROMPTS, max_rows=rows) == whole for rows in (1, 3, 7, 12))
    assert len(set(whole)) == 12
    assert draw(PROMPTS[:2]) == whole[:6], "later prompts take no part"
    swapped = [PROMPTS[0], PROMPTS[1], "How are you?", PROMPTS[3]]
    assert [draw(swapped)[i] == whole[i] for i in range(12)] == [True] * 6 + [False] * 3 + [True] * 3


def test_the_fallback_repeats_its_samples_and_leaves_the_random_state_alone() -> None:
    p = policy(GEMMA2)

    def draw(seed: int) -> list[tuple[int, ...]]:
        return [out.ids for out in p.sample(PROMPTS, 3, generator=seeded(seed), max_new_tokens=8).outputs]

    torch.manual_seed(11)
    first = draw(1)
    after = torch.rand(3)
    torch.manual_seed(11)
    assert torch.equal(after, torch.rand(3))
    assert draw(1) == first != draw(2) and len(set(first)) == 12


def test_sampling_leaves_the_random_state_and_the_training_mode_alone() -> None:
    config = GPT2Config(
        vocab_size=420, n_embd=32, n_layer=2, n_head=4, resid_pdrop=0.5, attn_pdrop=0.5, embd_pdrop=0.5
    )
    p = policy(config)
    before = [out.ids for out in p.sample(PROMPTS, 2, generator=seeded(), max_new_tokens=6).outputs]
    p.module.train()
    torch.manual_seed(11)
    assert [out.ids for out in p.sample(PROMPTS, 2, generator=seeded(), max_new_tokens=6).outputs] == before
    assert p.module.training
    after = torch.rand(3)
    torch.manual_seed(11)
    assert torch.equal(after, torch.rand(3))


@pytest.mark.parametrize("name", [*SHARING, "gemma2"])
def test_long_greedy_answers_are_those_of_transformers(name: str) -> None:
    config = SHARING.get(name, GEMMA2)
    p = policy(config)
    ours = p.sample(PROMPTS, 2, temperature=0.0, generator=seeded(), max_new_tokens=80).outputs
    model = tiny.model(config=config)
    for i, prompt in enumerate(PROMPTS):
        ids = torch.tensor([p.encoder.prompt(prompt)])
        theirs = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=80, do_sample=False, pad_token_id=0
        )[0, ids.shape[1] :].tolist()
        assert [list(out.ids) for out in ours[2 * i : 2 * i + 2]] == [theirs, theirs]
    assert max(len(out.ids) for out in ours) > 64, "the buffers of keys have grown twice"


@pytest.mark.parametrize("name", [*SHARING, "gemma2"])
def test_the_log_probability_of_a_sample_is_that_of_the_policy(name: str) -> None:
    p = policy(SHARING.get(name, GEMMA2))
    samples = p.sample(PROMPTS, 3, generator=seeded(), max_new_tokens=10, temperature=0.8, top_p=0.9)
    with torch.no_grad():
        logp, mask = p.logp(samples)
    for row, real, out in zip(logp, mask, samples.outputs, strict=True):
        assert int(real.sum()) == len(out.ids)
        assert float(row[real].sum()) == pytest.approx(out.logp, abs=1e-4), (
            "at temperature 1, nothing cut off"
        )


# ---- ends and stops


def with_ends(p: LanguagePolicy, *ends: int) -> LanguagePolicy:
    p.transformer.generation_config.eos_token_id = list(ends)  # type: ignore[union-attr]
    return p


@pytest.mark.parametrize("config", [None, GEMMA2], ids=["shared", "fallback"])
def test_every_end_token_ends_a_sample_and_is_counted(config: Any) -> None:
    free = policy(config).sample(["Hi", "Why?"], 40, generator=seeded(), max_new_tokens=10)
    seen = torch.bincount(torch.tensor([t for out in free.outputs for t in out.ids[1:]])).argsort()
    ends = {2, *seen[-4:].tolist()}
    p = with_ends(policy(config), *ends)
    samples = p.sample(["Hi", "Why?"], 40, generator=seeded(), max_new_tokens=10)
    finished = [out.finished for out in samples.outputs]
    assert sum(finished) > 10 and not all(finished)
    for out in samples.outputs:
        assert out.finished == (out.ids[-1] in ends) and not ends & set(out.ids[:-1])
        assert out.finished or len(out.ids) == 10
    assert {out.ids[-1] for out in samples.outputs if out.finished} >= set(list(ends - {2})[:2])


@pytest.mark.parametrize("name", SHARING)
def test_rows_that_end_change_nothing_for_the_others(name: str) -> None:
    config = SHARING[name]
    free = policy(config).sample(PROMPTS, 8, generator=seeded(2), max_new_tokens=40).outputs
    # Tokens that are drawn now and then: rows leave the batch one after the other.
    counts = torch.bincount(torch.tensor([t for out in free for t in out.ids]), minlength=420)
    ends = {2, *counts.argsort(descending=True)[8:20].tolist()}
    ended = (
        with_ends(policy(config), *ends).sample(PROMPTS, 8, generator=seeded(2), max_new_tokens=40).outputs
    )
    for a, b in zip(free, ended, strict=True):
        cut = next((i + 1 for i, token in enumerate(a.ids) if token in ends), len(a.ids))
        assert b.ids == a.ids[:cut]
    assert len({len(out.ids) for out in ended}) > 8


def test_all_rows_may_end_at_once() -> None:
    p = with_ends(policy(), *range(420))
    samples = p.sample(PROMPTS, 2, generator=seeded(), max_new_tokens=10)
    assert all(len(out.ids) == 1 and out.finished for out in samples.outputs)


@pytest.mark.parametrize("config", [None, GEMMA2], ids=["shared", "fallback"])
def test_a_stop_string_may_span_tokens_and_the_first_one_cuts(config: Any) -> None:
    p = policy(config)

    def draw(*stop: str) -> list[Any]:
        return p.sample(["Hi"], 24, generator=seeded(4), max_new_tokens=16, stop=stop).outputs

    free = draw()
    spanning = next(
        p.encoder.decode(out.ids[i : i + 2])[:-1]
        for out in free
        for i in range(3, 12)
        if all(p.encoder.decode([t]).isascii() and len(p.encoder.decode([t])) > 1 for t in out.ids[i : i + 2])
    )
    assert len(spanning) > 1
    cut = draw(spanning)
    assert any(spanning in out.text for out in free)
    for a, b in zip(free, cut, strict=True):
        if spanning in a.text:
            assert b.text == a.text[: a.text.index(spanning)] and b.finished
            assert spanning in p.encoder.decode(b.ids) and spanning not in p.encoder.decode(b.ids[:-1])
        else:
            assert b == a or config is GEMMA2
    letters = sorted({c for out in free for c in out.text if c.isalpha() and c.isascii()})[:6]
    for a, b in zip(free, draw(*letters), strict=True):
        at = min((a.text.index(c) for c in letters if c in a.text), default=len(a.text))
        assert b.text == a.text[:at]


def test_a_stop_string_in_the_prompt_stops_nothing() -> None:
    p = policy()
    free = p.sample(["Stop!"], 8, generator=seeded(4), max_new_tokens=8).outputs
    assert p.sample(["Stop!"], 8, generator=seeded(4), max_new_tokens=8, stop=["Stop!"]).outputs == free


# ---- what is told and refused


@pytest.mark.parametrize("config", [None, GEMMA2], ids=["shared", "fallback"])
def test_progress_counts_tokens(config: Any) -> None:
    told: list[int] = []
    samples = policy(config).sample(
        PROMPTS, 2, generator=seeded(), max_new_tokens=6, max_rows=4, progress=told.append
    )
    drawn = sum(len(out.ids) for out in samples.outputs)
    assert drawn <= sum(told) <= 8 * 6


def test_no_inputs_are_no_samples() -> None:
    for config in (None, GEMMA2):
        assert policy(config).sample([], 3, generator=seeded()).outputs == []


def test_the_context_holds_prompt_and_completion_exactly() -> None:
    p = policy(SHARING["gpt2"])
    room = p.context - len(p.encoder.prompt("Why?"))
    (out,) = p.sample(["Why?"], 1, generator=seeded(), max_new_tokens=room, temperature=0.0).outputs
    assert len(out.ids) == room or out.finished
    with pytest.raises(HeedfulError, match=r"prompt 2 has \d+ tokens; .* context of 256"):
        p.sample(["Hi", "Why?"], 1, generator=seeded(), max_new_tokens=room + 1 - len("Hi") + 2)


@pytest.mark.parametrize(
    "how",
    [
        {"n": 0},
        {"max_new_tokens": 0},
        {"max_rows": 0},
        {"temperature": -0.1},
        {"temperature": math.nan},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_k": -1},
    ],
)
def test_options_out_of_range_are_refused(how: dict[str, Any]) -> None:
    with pytest.raises(HeedfulError, match="must be"):
        policy().sample(["Hi"], **{"n": 1, "generator": seeded(), **how})


def test_random_numbers_of_rows_and_steps_are_all_different() -> None:
    seeds = np.array([0, 1, 2, 2**62 - 1], dtype=np.uint64)
    drawn = np.stack([sampling.uniforms(seeds, step) for step in range(500)])
    assert len(np.unique(drawn)) == drawn.size
    for a, b in itertools.combinations(range(4), 2):
        assert abs(np.corrcoef(drawn[:, a], drawn[:, b])[0, 1]) < 0.2
