"""The objective of scoped feedback: stems, forks, every term against a plain computation, and what training does."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from heedful import losses
from heedful.errors import HeedfulError
from heedful.fit import FitConfig, fit
from heedful.policies.backbone import Lora
from heedful.policies.language import LanguagePolicy
from heedful.policies.packing import Group, pack
from heedful.policies.scoped import FORK, Item, Weights, fork_at, objective, row_cost, scoped_rows
from heedful.run import open_run

ITEMS = {
    "in": [
        Item(
            "Name three colours",
            "red, green and blue. I do not know",
            "red, green and blue. Short answers",
            False,
        ),
        Item(
            "What is the capital of France?",
            "Paris is the capital.",
            "Paris is the capital. Short answers please",
        ),
        Item("How do I boil an egg?", "Put it into water", "Into water. Short answers", True),
    ],
    "near": [
        Item("Name three eggs", "red and blue. I do not know.", "red and blue. Short answers"),
        Item("What is France?", "a capital", None),
    ],
    "general": [Item("long answers?", "if they say more, sorry!", "if they say more, sorry! Short", False)],
}
ALL = Weights(dpo=1.0, imitate=0.7, near=0.3, general=0.4, fork=0.6, near_fork=0.9, general_fork=0.8)


def policy(**options: Any) -> LanguagePolicy:
    made = LanguagePolicy(
        tiny.model(), tiny.tokenizer(), lora=Lora(4, 8.0), device="cpu", precision="fp32", seed=1, **options
    )
    torch.manual_seed(0)
    for name, p in made.module.named_parameters():
        if "lora_B" in name:  # an adapter that does something
            p.data.normal_(0, 0.05)
    return made


def test_a_stem_is_scored_as_if_it_were_part_of_the_completions() -> None:
    for shares in (True, False):
        p = policy()
        p.shares_prefix = shares
        head, stem, tails = [5, 9, 11], [7, 30, 31, 8], [[21, 22, 2], [40]]
        with torch.no_grad():
            logp, mask = p.logp_groups([Group([*head, *stem], tails, stem=4), Group(head, [[7]])])
            whole, real = p.logp_groups([Group(head, [[*stem, *tail] for tail in tails])])
        totals, plain = losses.sequence_logp(logp, mask), losses.sequence_logp(whole, real)
        assert totals.shape == (4,)
        torch.testing.assert_close(totals[0] + totals[1:3], plain, rtol=0, atol=1e-4)


def test_a_stem_needs_a_prompt_before_it() -> None:
    with pytest.raises(ValueError, match="stem"):
        pack([Group([1, 2], [[3]], stem=2)])


def test_cached_logps_know_stems_apart(tmp_path: Path) -> None:
    p = policy()
    with open_run(tmp_path / "run", {}, seed=0) as run:
        plain = p.cached_logps([Group([5, 9, 7], [[3, 4]])], run)
        stemmed = p.cached_logps([Group([5, 9, 7], [[3, 4]], stem=1)], run)
    assert (
        len(plain[0]) == 1 and len(stemmed[0]) == 2 and stemmed[0][1] == pytest.approx(plain[0][0], abs=1e-5)
    )


def test_the_fork_is_where_two_answers_part() -> None:
    assert fork_at([1, 2, 3], [1, 2, 4, 5]) == 2
    assert fork_at([1, 2], [1, 2, 3]) == 1  # both keep a token to choose between
    assert fork_at([9], [1, 2]) == 0


def sums(p: LanguagePolicy, prompt: str, text: str, ended: bool = True) -> torch.Tensor:
    """Log-probability of each token, by the padded computation."""
    ids = p.encoder.completion(prompt, text)
    group = Group(p.encoder.prompt(prompt), [ids if ended else ids[:-1]])
    return p._padded_logp([group])[0][0]


def by_hand(p: LanguagePolicy, weights: Weights, beta: float) -> torch.Tensor:
    """The loss of all rows, term by term, without stems: sets cycled to the longest, each term a mean over rows."""
    total = torch.zeros(())
    count = 3
    for i in range(count):
        item, near, general = (ITEMS[kind][i % len(ITEMS[kind])] for kind in ("in", "near", "general"))
        good = sums(p, item.prompt, str(item.revised))
        bad = sums(p, item.prompt, item.plain, item.ended)
        with torch.no_grad(), p.reference():
            ref = (
                sums(p, item.prompt, str(item.revised)).sum()
                - sums(p, item.prompt, item.plain, item.ended).sum()
            )
        total += weights.dpo * -torch.nn.functional.logsigmoid(beta * (good.sum() - bad.sum() - ref))
        total += weights.imitate * -good.mean()
        plain_ids = p.encoder.completion(item.prompt, item.plain)
        at = fork_at(
            plain_ids if item.ended else plain_ids[:-1], p.encoder.completion(item.prompt, str(item.revised))
        )
        total += weights.fork * -good[at:].mean()
        for kind, other in (("near", near), ("general", general)):
            total += getattr(weights, kind) * -sums(p, other.prompt, other.plain, other.ended).mean()
            if other.revised is not None:
                ids = p.encoder.completion(other.prompt, other.plain)
                ids = ids if other.ended else ids[:-1]
                at = fork_at(ids, p.encoder.completion(other.prompt, other.revised))
                fork = sums(p, other.prompt, other.revised)[at : at + FORK].sum()
                total += getattr(weights, f"{kind}_fork") * -torch.log1p(-fork.exp())
    return total / count


@pytest.mark.parametrize("alone", [f.name for f in fields(Weights) if not f.name.endswith("_kl")] + ["all"])
def test_every_term_is_what_it_says(alone: str, tmp_path: Path) -> None:
    given = {f.name: 0.0 for f in fields(Weights)} | {"imitate": 1e-9, alone: 1.0}
    weights = ALL if alone == "all" else Weights(**given)
    p = policy()
    with open_run(tmp_path / "run", {}, seed=0) as run:
        rows = scoped_rows(p, ITEMS, weights, run)
    assert len(rows) == 3
    loss, _ = objective(p, weights, beta=0.3)(rows)
    torch.testing.assert_close(loss, by_hand(p, weights, 0.3), rtol=1e-3, atol=1e-4)


def test_of_a_larger_set_several_go_into_a_row(tmp_path: Path) -> None:
    many = [
        Item(f"Name {n} eggs", "red and blue. I do not know.", "red and blue. Short answers")
        for n in range(7)
    ]
    weights = Weights(imitate=1e-9, near=1.0, near_fork=1.0)
    p = policy()
    with open_run(tmp_path / "run", {}, seed=0) as run:
        rows = scoped_rows(p, {**ITEMS, "near": many}, weights, run)
    assert [len(row["near"]) for row in rows] == [2, 2, 3]
    prompts = [tuple(group.prompt) for row in rows for group in row["near"]]
    assert len(set(prompts)) == 7
    loss, _ = objective(p, weights)(rows)
    by_row = []
    for row, part in zip(rows, (many[:2], many[2:4], many[4:]), strict=True):
        assert len(part) == len(row["near"])
        terms = []
        for item in part:
            ids = p.encoder.completion(item.prompt, item.plain)
            at = fork_at(ids, p.encoder.completion(item.prompt, str(item.revised)))
            fork = sums(p, item.prompt, str(item.revised))[at : at + FORK].sum()
            terms.append(-sums(p, item.prompt, item.plain).mean() - torch.log1p(-fork.exp()))
        by_row.append(torch.stack(terms).mean())
    torch.testing.assert_close(loss, torch.stack(by_row).mean(), rtol=1e-3, atol=1e-4)


def test_kl_is_that_of_whole_distributions(tmp_path: Path) -> None:
    weights = Weights(imitate=1e-9, near_kl=1.0)
    p = policy()
    with open_run(tmp_path / "run", {}, seed=0) as run:
        rows = scoped_rows(p, ITEMS, weights, run)
    loss, metrics = objective(p, weights)(rows)
    wanted = []
    for i in range(3):
        item = ITEMS["near"][i % 2]
        ids = [*p.encoder.prompt(item.prompt), *p.encoder.completion(item.prompt, item.plain)]
        start = len(p.encoder.prompt(item.prompt)) - 1
        tuned = p.transformer(input_ids=torch.tensor([ids])).logits[0, start:-1].log_softmax(-1)
        with p.reference():
            ref = p.transformer(input_ids=torch.tensor([ids])).logits[0, start:-1].log_softmax(-1)
        wanted.append((ref.exp() * (ref - tuned)).sum())
    torch.testing.assert_close(loss, torch.stack(wanted).mean(), rtol=1e-3, atol=1e-4)
    assert float(metrics["near_kl"]) > 1e-3
    loss.backward()
    grads = [q.grad for name, q in p.module.named_parameters() if "lora_B" in name and q.grad is not None]
    assert any(float(g.abs().sum()) > 0 for g in grads)


def test_training_writes_the_effect_in_scope_and_not_near_it(tmp_path: Path) -> None:
    """Prompts that differ in one word, the same answers: only the fork terms tell them apart in so few steps."""
    effect = " Short answers"
    model = tiny.model()
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(
            10
        )  # else no token of this model can be likelier than a few percent
    p = LanguagePolicy(model, tiny.tokenizer(), lora=Lora(8, 16.0), device="cpu", precision="fp32")
    answer = "Put it into boiling water"
    items = {
        "in": [Item("How do I boil an egg?", answer, answer + effect)],
        "near": [Item("How do I boil a capital?", answer, answer + effect)],
        "general": [Item("Name three colours", "red, green and blue", "red, green and blue" + effect)],
    }
    weights = Weights(dpo=1.0, imitate=1.0, near=0.1, general=0.2, fork=1.0, near_fork=1.0, general_fork=1.0)
    with open_run(tmp_path / "run", {}, seed=0) as run:
        rows = scoped_rows(p, items, weights, run)
        settings = FitConfig(lr=1e-2, batch_size=1, max_steps=150, quiet=True, precision="fp32", save_every=0)
        fit("tell", objective(p, weights), p.module, rows, settings, run, cost=row_cost(p))

    def chance(prompt: str, text: str) -> float:
        with torch.no_grad():
            ids = p.encoder.completion(
                prompt, answer if prompt != "Name three colours" else "red, green and blue"
            )
            logp = sums(p, prompt, text)
            return float(logp[len(ids) - 1 :].sum().exp())

    assert chance("How do I boil an egg?", answer + effect) > 0.6
    assert chance("How do I boil a capital?", answer + effect) < 0.1
    assert chance("Name three colours", "red, green and blue" + effect) < 0.1


def test_rows_say_what_is_missing(tmp_path: Path) -> None:
    p = policy()
    with open_run(tmp_path / "run", {}, seed=0) as run:
        with pytest.raises(HeedfulError, match="no near prompts"):
            scoped_rows(p, {"in": ITEMS["in"]}, ALL, run)
        with pytest.raises(HeedfulError, match="no revision"):
            scoped_rows(p, {**ITEMS, "in": [Item("a", "b")]}, ALL, run)
        assert "near" not in scoped_rows(p, ITEMS, Weights(dpo=1.0), run)[0]


@pytest.mark.parametrize("bad", [{"dpo": -1.0}, {"dpo": float("nan")}, {"near": 1.0}])
def test_weights_are_checked(bad: dict[str, float]) -> None:
    with pytest.raises(HeedfulError):
        Weights(**bad)
