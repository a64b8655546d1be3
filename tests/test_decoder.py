"""Small decoders made from nothing: weights, tokenizers, rows of token ids, and training on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from heedful import hub
from heedful.errors import HeedfulError
from heedful.fit import FitConfig
from heedful.policies import decoder, objectives, packing
from heedful.policies.decoder import TokenRows, fit_tokens, new_decoder, token_rows, word_tokenizer
from heedful.policies.language import LanguagePolicy
from heedful.policies.packing import Group
from heedful.run import open_run, read_metrics

TEXTS = ["a b c", "c b a", "d d"]
GROUPS = [Group([1, 4, 5], [[6, 7, 2]]), Group([1, 7], [[4, 4, 4, 5, 2]]), Group([1], [[5, 2]])]


def made(**options: Any) -> LanguagePolicy:
    how: dict[str, Any] = {"context": 16, "seed": 3, "precision": "fp32", "device": "cpu"}
    return new_decoder(word_tokenizer(TEXTS), "tiny", **{**how, **options})


def test_words_are_tokens_and_come_back() -> None:
    tokenizer = word_tokenizer(TEXTS)
    assert len(tokenizer) == 8
    ids = tokenizer("c  b\na")["input_ids"]
    assert ids == [1, 6, 5, 4] and tokenizer.decode(ids, skip_special_tokens=True) == "c b a"
    assert tokenizer("a e")["input_ids"] == [1, 4, 3], "a word that was not there is unknown"
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 0)
    with pytest.raises(HeedfulError, match="9,000 different words"):
        word_tokenizer(map(str, range(9000)))


def test_weights_are_a_function_of_the_seed_and_leave_torch_alone() -> None:
    torch.manual_seed(0)
    before = torch.rand(2)
    torch.manual_seed(0)
    first = made().module.state_dict()
    assert torch.equal(torch.rand(2), before)
    torch.manual_seed(9)
    for same, other in ((made(), made(seed=4)),):
        names = [name for name in first if first[name].ndim > 1]
        assert all(torch.equal(first[name], same.module.state_dict()[name]) for name in first)
        assert not any(torch.equal(first[name], other.module.state_dict()[name]) for name in names)


@pytest.mark.parametrize(("size", "millions"), [("1m", 1.0), ("3m", 2.9), ("5m", 5.0)])
def test_sizes_are_what_they_are_called(size: str, millions: float) -> None:
    with torch.device("meta"):
        module = decoder.small_llama(
            word_tokenizer(map(str, range(1015))), **decoder.SIZES[size], key_values=2, context=256
        )
    assert sum(p.numel() for p in module.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)


def test_unknown_sizes_and_tokenizers_without_an_end_are_refused() -> None:
    tokenizer = word_tokenizer(TEXTS)
    with pytest.raises(HeedfulError, match="no size '9b'"):
        new_decoder(tokenizer, "9b", context=16, seed=0)
    tokenizer.eos_token = None
    with pytest.raises(HeedfulError, match="no end-of-sequence token"):
        new_decoder(tokenizer, "tiny", context=16, seed=0)


def test_a_saved_decoder_is_one_like_any_other(tmp_path: Path) -> None:
    policy = made()
    hub.save_model(policy.module, policy.tokenizer, tmp_path / "model", card={"title": "x"})
    again = LanguagePolicy.load(
        str(tmp_path / "model"), template="none", precision="fp32", device="cpu", small=True
    )
    draw = [
        p.sample(["a b", "d"], 3, generator=torch.Generator().manual_seed(0), max_new_tokens=8).outputs
        for p in (policy, again)
    ]
    assert draw[0] == draw[1] and policy.context == again.context == 16


# ---- rows


def test_rows_are_the_groups_they_were_made_of() -> None:
    rows = token_rows(GROUPS, 16)
    assert [rows[i]["group"] for i in range(3)] == GROUPS and len(rows) == 3
    assert [row["group"] for row in rows[1:]] == GROUPS[1:]
    assert (rows.tokens, rows.cut, rows.lengths.tolist()) == (16, 0, [6, 7, 3])
    assert decoder.steps_for(rows, 160, 2) == 15


def test_long_rows_lose_their_end_and_are_counted() -> None:
    rows = token_rows(GROUPS, 5)
    assert rows[0]["group"] == Group([1, 4, 5], [[6, 7]]) and rows[1]["group"] == Group([1, 7], [[4, 4, 4]])
    assert (rows.cut, rows.tokens) == (2, 13)


@pytest.mark.parametrize(("prompts", "context"), [([3, 2, 0], 16), ([6, 2, 1], 16), ([3, 2, 1], 3)])
def test_rows_without_prompt_or_completion_are_refused(prompts: list[int], context: int) -> None:
    rows = token_rows(GROUPS, 16)
    with pytest.raises(HeedfulError, match=r"training row \d: its prompt has"):
        TokenRows(rows.ids, rows.ends, np.array(prompts), context)


# ---- training


def test_training_is_that_of_transformers_on_padded_rows(tmp_path: Path) -> None:
    """One step of gradient descent by both: loss and weights agree."""
    policy, other = made(), made()
    settings = FitConfig(lr=1e-3, batch_size=3, max_steps=2, precision="fp32", quiet=True, clip_norm=0.0)
    with open_run(tmp_path, {}, seed=0) as run:
        fit_tokens("pretrain", policy, token_rows(GROUPS, 16), settings, run)
    tokens, labels = torch.zeros(3, 7, dtype=torch.long), torch.full((3, 7), -100)
    for i, group in enumerate(GROUPS):
        whole = [*group.prompt, *group.completions[0]]
        tokens[i, : len(whole)] = torch.tensor(whole)
        labels[i, len(group.prompt) : len(whole)] = torch.tensor(group.completions[0])
    optimizer = torch.optim.AdamW(other.module.parameters(), lr=1e-3, weight_decay=0.0)
    losses = []
    for factor in (1.0, 0.5):  # the linear schedule
        for part in optimizer.param_groups:
            part["lr"] = 1e-3 * factor
        loss = other.transformer(input_ids=tokens, attention_mask=(tokens > 0).long(), labels=labels).loss
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    ours = [row["loss"] for row in read_metrics(tmp_path)]
    assert ours == pytest.approx(losses, abs=1e-5) and ours[0] != pytest.approx(ours[1], abs=1e-3)
    for a, b in zip(policy.module.parameters(), other.module.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=0)


def test_attention_in_float32_changes_nothing_but_rounding() -> None:
    policy = made(precision="bf16")
    plain = made(precision="bf16", small=False)
    with torch.no_grad():
        (a, mask), (b, _) = policy.logp_groups(GROUPS), plain.logp_groups(GROUPS)
        exact, _ = made().logp_groups(GROUPS)
    assert packing.pack(GROUPS, float_attention=True).float_attention
    assert float((a - b)[mask].abs().max()) < 0.05
    assert float((a - exact)[mask].abs().mean()) <= float((b - exact)[mask].abs().mean()) + 1e-3


def test_gradients_of_many_rows_are_those_of_each_row() -> None:
    """Rows are split, not sliced, for attention: a mistake there would mix their gradients."""
    policy = made()

    def gradient(groups: list[Group]) -> torch.Tensor:
        policy.module.zero_grad()
        logp, mask = policy.logp_groups(groups)
        (logp * mask).sum().backward()
        weight: Any = policy.transformer.model.layers[0].self_attn.k_proj.weight  # type: ignore[union-attr]
        return weight.grad.clone()

    together = gradient(GROUPS)
    torch.testing.assert_close(together, sum(gradient([g]) for g in GROUPS), atol=1e-5, rtol=1e-4)  # type: ignore[arg-type]
    assert float(together.abs().max()) > 1e-4


def test_small_vocabularies_keep_their_logits_and_large_ones_do_not() -> None:
    torch.manual_seed(0)
    hidden, target = torch.randn(200, 8, requires_grad=True), torch.randint(50, (200,))
    head = torch.nn.Linear(8, 50)
    kept = packing.token_logp(hidden, head, target)
    (a,) = torch.autograd.grad(kept.sum(), hidden)
    expected = head(hidden).log_softmax(-1).gather(-1, target[:, None]).squeeze(-1)
    (b,) = torch.autograd.grad(expected.sum(), hidden)
    torch.testing.assert_close(kept, expected)
    torch.testing.assert_close(a, b)
    assert packing._chunk(49_152) == packing.HEAD_CHUNK < packing._chunk(1019)


def test_row_costs_are_positions() -> None:
    policy = made()
    assert [objectives.row_cost(policy)({"group": g}) for g in GROUPS] == [5.0, 6.0, 2.0]
