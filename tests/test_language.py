"""The language policy against plain computations: log-probabilities, gradients, sampling, boundaries, adapters."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tiny
import torch
from transformers import (
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
)

from heedful.errors import HeedfulError
from heedful.feedback import Samples
from heedful.policies import sampling
from heedful.policies.backbone import Lora
from heedful.policies.encode import Encoder
from heedful.policies.language import Completion, LanguagePolicy
from heedful.policies.packing import Group, _branch_mask, pack

SMALL = {
    "vocab_size": 420,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "head_dim": 8,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
ARCHITECTURES = {
    "llama": LlamaConfig(**SMALL),
    "qwen2": Qwen2Config(**SMALL),
    "mistral-window": MistralConfig(**SMALL, sliding_window=6),
    "gemma2-softcap": Gemma2Config(**SMALL, sliding_window=64),
    "gpt2": GPT2Config(
        vocab_size=420, n_embd=32, n_layer=2, n_head=4, n_positions=256, bos_token_id=1, eos_token_id=2
    ),
}
SHARING = {"llama": True, "qwen2": True, "mistral-window": True, "gemma2-softcap": False}


def policy(config=None, lora: Lora | None = None, **options) -> LanguagePolicy:
    options = {"precision": "fp32", "device": "cpu", **options}
    return LanguagePolicy(tiny.model(config=config), tiny.tokenizer(), lora=lora, **options)


def groups(rng: np.random.Generator, count: int = 5) -> list[Group]:
    def ids(n):
        return rng.integers(3, 400, n).tolist()

    return [
        Group(ids(rng.integers(1, 14)), [ids(rng.integers(1, 9)) for _ in range(rng.integers(1, 5))])
        for _ in range(count)
    ]


def one_by_one(model, gs: list[Group]) -> list[torch.Tensor]:
    """Each completion alone, through the model's own forward pass and the full softmax."""
    out = []
    for g in gs:
        for c in g.completions:
            ids = torch.tensor([[*g.prompt, *c]])
            logits = model(input_ids=ids, use_cache=False).logits[0].float().log_softmax(-1)
            at = torch.arange(len(g.prompt) - 1, ids.shape[1] - 1)
            out.append(logits[at, ids[0, at + 1]])
    return out


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_logp_and_gradients_equal_the_naive_computation(name):
    p = policy(ARCHITECTURES[name])
    if name in SHARING:
        assert p.shares_prefix is SHARING[name]
    gs = groups(np.random.default_rng(0))
    logp, mask = p.logp_groups(gs)
    plain = one_by_one(p.module, gs)
    assert logp.dtype == torch.float32 and mask.sum() == sum(len(x) for x in plain)
    for row, m, x in zip(logp, mask, plain, strict=True):
        torch.testing.assert_close(row[m], x, atol=1e-4, rtol=0)
        assert torch.all(row[~m] == 0) and torch.all(m[: len(x)])
    weights = torch.randn(len(plain), generator=torch.Generator().manual_seed(1))
    params = [q for q in p.module.parameters() if q.requires_grad]
    ours = torch.autograd.grad(((logp * mask).sum(-1) * weights).sum(), params, allow_unused=True)
    theirs = torch.autograd.grad(sum(w * x.sum() for w, x in zip(weights, plain)), params, allow_unused=True)
    for a, b in zip(ours, theirs, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert (a - b).abs().max() <= 1e-4 * max(1.0, float(b.abs().max()))


def test_frozen_head_gradients_equal_the_naive_computation():
    p = policy(lora=Lora(rank=4))
    with torch.no_grad():
        for name, q in p.module.named_parameters():
            if "lora_B" in name:
                q.normal_(std=0.1)
    gs = groups(np.random.default_rng(1))
    params = [q for q in p.module.parameters() if q.requires_grad]
    logp, mask = p.logp_groups(gs)
    ours = torch.autograd.grad((logp * mask).square().sum(), params)
    theirs = torch.autograd.grad(sum(x.square().sum() for x in one_by_one(p.module, gs)), params)
    assert max(float(g.abs().max()) for g in theirs) > 1e-2
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).abs().max() <= 1e-4 * max(1.0, float(b.abs().max()))


def test_bf16_stays_near_fp32():
    exact, rounded = policy(), policy(precision="bf16")
    gs = groups(np.random.default_rng(2))
    a, m = exact.logp_groups(gs)
    b, _ = rounded.logp_groups(gs)
    assert ((a - b).abs() * m).max() < 0.5 and ((a - b).abs() * m).max() > 0


def test_a_prompt_is_encoded_once_for_all_its_completions():
    p = policy()
    group = Group(list(range(3, 43)), [[5, 6, 7]] * 8)
    seen = []
    p.decoder.embed_tokens.register_forward_hook(lambda m, i, o: seen.append(o.shape[:2].numel()))
    p.logp_groups([group])
    assert seen == [40 + 8 * 2] and p.cost(group) == seen[0]


def test_pack_keeps_completions_apart():
    mask = _branch_mask(2, [2, 3], "cpu")
    assert mask is not None
    assert mask[4:, 2:4].sum() == 0 and mask[2:4, 4:].sum() == 0 and mask[6, :2].all()
    layout = pack([Group([1, 2], [[3, 4, 5], [6]])])
    assert layout.tokens.tolist() == [[1, 2, 3, 4]] and layout.positions.tolist() == [[0, 1, 2, 3]]
    assert layout.read.tolist() == [1, 2, 3, 1] and layout.target.tolist() == [3, 4, 5, 6]


def test_reference_is_the_model_without_its_adapter_or_a_frozen_copy():
    gs = groups(np.random.default_rng(3), 2)
    start = [x.sum() for x in one_by_one(tiny.model(), gs)]
    for lora in (Lora(rank=2), None):
        p = policy(lora=lora)
        p.keep_reference()
        with torch.no_grad():
            for name, q in p.module.named_parameters():
                if q.requires_grad and "lora_A" not in name:
                    q.add_(0.05)
        changed = [v for g in p.sequence_logps(gs) for v in g]
        with p.reference():
            reference = [v for g in p.sequence_logps(gs) for v in g]
        assert np.allclose(reference, [float(s.detach()) for s in start], atol=1e-4)
        assert not np.allclose(changed, reference, atol=1e-2)
    with pytest.raises(HeedfulError, match="keep_reference"), policy().reference():
        pass


# ---- sampling


@pytest.mark.parametrize("name", ["llama", "mistral-window", "gemma2-softcap"])
def test_sample_reports_the_log_probability_of_what_it_drew(name):
    p = policy(ARCHITECTURES[name])
    prompts = ["What is the capital of France?", "Hi", "Name three colours of the rainbow, please."]
    samples = p.sample(prompts, 4, generator=torch.Generator().manual_seed(0), max_new_tokens=12)
    assert len(samples.outputs) == 12 and samples.n == 4
    logp, mask = p.logp(samples)
    for row, m, out in zip(logp, mask, samples.outputs, strict=True):
        assert float(row[m].sum()) == pytest.approx(out.logp, abs=2e-3)
        assert out.finished == (out.ids[-1] == p.encoder.end) and m.sum() == len(out.ids)
        assert len(out.ids) <= 12 and out.text == p.encoder.decode(out.ids)


def test_greedy_equals_transformers_generate():
    p = policy()
    prompts = ["What is the capital of France?", "Hi there", "Boil an egg for me and for my friends."]
    ours = p.sample(prompts, 2, temperature=0.0, generator=torch.Generator(), max_new_tokens=16)
    for i, prompt in enumerate(prompts):
        ids = torch.tensor([p.encoder.prompt(prompt)])
        theirs = tiny.model().generate(ids, max_new_tokens=16, do_sample=False, pad_token_id=0)[
            0, ids.shape[1] :
        ]
        for out in ours.outputs[2 * i : 2 * i + 2]:
            assert list(out.ids) == theirs.tolist()[: len(out.ids)]


def test_samples_do_not_depend_on_batching():
    p = policy()
    prompts = [f"Question {i}: {'why ' * (i % 5)}?" for i in range(9)]

    def draw(rows):
        g = torch.Generator().manual_seed(5)
        return [o.ids for o in p.sample(prompts, 3, generator=g, max_new_tokens=10, max_rows=rows).outputs]

    assert draw(3) == draw(12) == draw(256)
    assert len(set(draw(256))) > 20


def test_frequencies_follow_the_model():
    p = policy()
    prompt = p.encoder.prompt("Hi")
    with torch.no_grad():
        probs = p.module(input_ids=torch.tensor([prompt])).logits[0, -1].softmax(-1)
    drawn = p.sample(
        ["Hi"], 4000, generator=torch.Generator().manual_seed(1), max_new_tokens=1, max_rows=4000
    )
    counts = torch.bincount(torch.tensor([o.ids[0] for o in drawn.outputs]), minlength=len(probs))
    top = probs.topk(5).indices
    sigma = (probs[top] * (1 - probs[top]) / 4000).sqrt()
    assert torch.all((counts[top] / 4000 - probs[top]).abs() < 4.5 * sigma)


def test_choose_top_k_top_p_and_temperature():
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]])).repeat(2000, 1)
    u = torch.linspace(0, 1 - 1e-9, 2000, dtype=torch.float64)

    def share(**how):
        tokens, logp = sampling.choose(logits, u, **{"temperature": 1.0, **how})
        assert torch.allclose(logp, logits[0, tokens].float(), atol=1e-5)
        return (torch.bincount(tokens, minlength=4) / 2000).tolist()

    assert share() == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=2e-3)
    assert share(top_k=2) == pytest.approx([0.625, 0.375, 0, 0], abs=2e-3)
    assert share(top_p=0.7) == pytest.approx([0.625, 0.375, 0, 0], abs=2e-3)
    assert share(top_p=0.4) == pytest.approx([1, 0, 0, 0], abs=2e-3)
    assert share(temperature=0.0) == [1, 0, 0, 0]
    squared = np.array([0.25, 0.09, 0.0225, 0.0025])
    assert share(temperature=0.5) == pytest.approx(list(squared / squared.sum()), abs=2e-3)


def test_uniforms_are_uniform_and_reproducible():
    seeds = np.arange(4000, dtype=np.uint64)
    a, b = sampling.uniforms(seeds, 0), sampling.uniforms(seeds, 1)
    assert np.array_equal(a, sampling.uniforms(seeds, 0)) and a.min() >= 0 and a.max() < 1
    assert (
        abs(a.mean() - 0.5) < 0.02 and abs(a.var() - 1 / 12) < 0.005 and abs(np.corrcoef(a, b)[0, 1]) < 0.06
    )


def test_stop_strings_end_and_cut():
    p = policy()
    free = p.sample(["Hi"], 32, generator=torch.Generator().manual_seed(0), max_new_tokens=24)
    letter = next(c for o in free.outputs for c in o.text[2:] if c.isalpha())
    cut = p.sample(["Hi"], 32, generator=torch.Generator().manual_seed(0), max_new_tokens=24, stop=[letter])
    assert all(letter not in o.text for o in cut.outputs)
    for a, b in zip(free.outputs, cut.outputs, strict=True):
        assert a.text.startswith(b.text) and b.finished == (letter in a.text or a.finished)


def test_a_prompt_that_fills_the_context_is_refused():
    with pytest.raises(HeedfulError, match="context of 512"):
        policy().sample(["why " * 600], 1, generator=torch.Generator(), max_new_tokens=8)


# ---- text and tokens


def test_boundary_is_exact_and_the_end_is_trained():
    encoder = Encoder(tiny.tokenizer())
    ids = encoder.completion("Hi", "Paris is the capital.")
    assert (
        ids[-1] == encoder.end
        and encoder.decode(ids) == "Paris is the capital."
        and encoder.boundary_merges == 0
    )
    assert encoder.prompt("Hi") == encoder.prompt([{"role": "user", "content": "Hi"}])


def test_a_token_across_the_boundary_is_split_and_counted():
    encoder = Encoder(tiny.tokenizer(chat=False))
    joint = encoder.tokenizer("the capital")["input_ids"]
    ids = encoder.completion("the ca", "pital")
    assert encoder.boundary_merges == 1
    assert encoder.prompt("the ca") + ids[:-1] != joint
    assert encoder.tokenizer.decode(encoder.prompt("the ca") + ids[:-1]) == "the capital"
    with pytest.raises(HeedfulError, match="no chat template"):
        encoder.render([{"role": "user", "content": "Hi"}])
    with pytest.raises(HeedfulError, match="no chat template"):
        Encoder(tiny.tokenizer(chat=False), "chat")


def test_completions_survive_json():
    import json

    c = Completion("Paris.", (5, 6, 2), True, -1.25)
    assert Completion.from_row(json.loads(json.dumps(c.as_row()))) == c and str(c) == "Paris."


def test_logp_of_samples_is_input_major():
    p = policy()
    texts = ["Paris.", "I do not know.", "red", "green and blue"]
    logp, mask = p.logp(Samples(["A?", "B?"], texts, 2))
    alone = [p.logp(Samples(["AB"[i // 2] + "?"], [t], 1)) for i, t in enumerate(texts)]
    for row, m, (x, _) in zip(logp, mask, alone, strict=True):
        torch.testing.assert_close(row[m], x[0], atol=1e-5, rtol=0)
    assert math.isfinite(float(logp.sum()))
