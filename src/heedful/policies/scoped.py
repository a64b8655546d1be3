"""The objective of scoped feedback: prefer the revision in scope, stay as you are elsewhere (C3PO and relatives).

C3PO (Stephan et al. 2024, section 4.2) is DPO on in-scope pairs plus the likelihood of the start model's own answers
on near-scope and general prompts. A row is one in-scope item with its share of the others: smaller sets are cycled,
not cut to the shortest, and of larger ones several go into a row. Every part of the loss is a mean over the rows by
itself, so none dilutes another.

Departures of our own, each with a weight of its own (see `Weights`): likelihood of the revision, and the fork. Where
plain answer and revision part, a few tokens decide whether the effect is written. In a mean over all tokens they
hardly count; the fork terms count them alone, in scope for the revision and elsewhere against it.

Letters: R rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from heedful import losses
from heedful.data.scopes import KINDS
from heedful.errors import HeedfulError
from heedful.policies.language import LanguagePolicy
from heedful.policies.packing import Group
from heedful.run import Run

Row = dict[str, Any]
"""{"in", "near", "general": [Group]}, of which those without weight are absent, and "ref": [of revision, of plain].
What plain answer and revision share is a group's stem, so it is computed once. The completions are, in scope, what
follows in the revision and in the plain answer; elsewhere what follows in the plain answer and the revision's fork."""
FORK = 4
"""Tokens of a fork: enough to know the effect from a chance likeness, few enough to be decided at its start."""
SURE = 1e-4
"""The probability of a fork is scaled to stay this far below 1, where the log of what is left has no bound."""


@dataclass(frozen=True)
class Weights:
    """What each part of the loss counts; 0 leaves it out."""

    dpo: float = 0.0
    """In scope: -log sigmoid(beta (h_w - h_l)) of revision and plain answer."""
    imitate: float = 0.0
    """In scope: mean-token negative log-likelihood of the revision."""
    near: float = 0.0
    """Near scope: that of the start model's own answers (the paper's lambda_2)."""
    general: float = 0.0
    """General prompts: the same (the paper's lambda_1)."""
    near_kl: float = 0.0
    """Near scope: KL(start || tuned) summed over tokens, in place of the likelihood."""
    general_kl: float = 0.0
    """General prompts: the same."""
    fork: float = 0.0
    """In scope: mean-token negative log-likelihood of the revision from the fork on."""
    near_fork: float = 0.0
    """Near scope: -log(1 - p) of the revision's first tokens at the fork."""
    general_fork: float = 0.0
    """General prompts: the same."""

    def __post_init__(self) -> None:
        wrong = [name for name, value in asdict(self).items() if not 0 <= value < float("inf")]
        if wrong:
            raise HeedfulError(f"{', '.join(wrong)}: a weight must be a number of 0 or more")
        if not (self.dpo or self.imitate or self.fork):
            raise HeedfulError("nothing teaches the effect: dpo, imitate or fork must be above 0")


@dataclass(frozen=True)
class Item:
    """One prompt with the start model's plain answer and, where the effect can be written in, its revision.

    ended: whether the plain answer ended by itself. One that was cut off has no end token to learn.
    """

    prompt: Any
    plain: str
    revised: str | None = None
    ended: bool = True


def fork_at(plain: Sequence[int], revised: Sequence[int]) -> int:
    """Index of the first token at which two token sequences differ, at most the last of the shorter one."""
    last = min(len(plain), len(revised)) - 1
    return next((i for i in range(last) if plain[i] != revised[i]), last)


def scoped_rows(
    policy: LanguagePolicy,
    items: Mapping[str, Sequence[Item]],
    weights: Weights,
    run: Run,
    *,
    shown: str = "",
) -> list[Row]:
    """Training rows from the items of "in", "near" and "general", one for each in-scope item.

    Reference log-probabilities are computed once and kept in the run folder; shown: a name for its progress display.
    Raises HeedfulError for an in-scope item without a revision, a kind that counts and has no items, and a prompt
    that does not fit the model's context with its answer.
    """
    used = ["in"]
    for kind in ("near", "general"):
        if any(getattr(weights, f"{kind}{suffix}") for suffix in ("", "_kl", "_fork")):
            used.append(kind)
    for kind in used:
        if not items.get(kind):
            raise HeedfulError(f"there are no {kind} prompts to train on")
    for item in items["in"]:
        if item.revised is None:
            raise HeedfulError(f"an in-scope prompt has no revision: {item.prompt!r}")
    groups = {"in": [_pair(policy, item, bool(weights.dpo)) for item in items["in"]]}
    for kind in used[1:]:
        forked = bool(getattr(weights, f"{kind}_fork"))
        groups[kind] = [_plain(policy, item, forked) for item in items[kind]]
    ref: list[list[float]] = []
    if weights.dpo:
        with policy.reference():
            ref = [
                sums_of(g, s)
                for g, s in zip(groups["in"], policy.cached_logps(groups["in"], run, shown=shown))
            ]
    rows: list[Row] = []
    for i in range(len(groups["in"])):
        row: Row = {kind: _share(groups[kind], i, len(groups["in"])) for kind in used}
        if ref:
            row["ref"] = ref[i]
        rows.append(row)
    return rows


def _share(groups: Sequence[Group], i: int, rows: int) -> list[Group]:
    """What row i of so many takes of a set: its part of a larger one, the next in turn of a smaller one."""
    if len(groups) <= rows:
        return [groups[i % len(groups)]]
    return list(groups[i * len(groups) // rows : (i + 1) * len(groups) // rows])


def _ids(policy: LanguagePolicy, item: Item, text: str, ended: bool = True) -> list[int]:
    ids = policy.group(item.prompt, [text]).completions[0]
    return list(ids if ended or len(ids) < 2 else ids[:-1])


def _pair(policy: LanguagePolicy, item: Item, both: bool) -> Group:
    plain, revised = _ids(policy, item, item.plain, item.ended), _ids(policy, item, str(item.revised))
    at = fork_at(plain, revised)
    prompt = [*policy.encoder.prompt(item.prompt), *revised[:at]]
    return Group(prompt, [revised[at:], plain[at:]] if both else [revised[at:]], stem=at)


def _plain(policy: LanguagePolicy, item: Item, forked: bool) -> Group:
    plain, prompt = _ids(policy, item, item.plain, item.ended), policy.encoder.prompt(item.prompt)
    if not forked or item.revised is None or item.revised == item.plain:
        return Group(prompt, [plain])
    revised = _ids(policy, item, item.revised)
    at = fork_at(plain, revised)
    return Group([*prompt, *plain[:at]], [plain[at:], revised[at : at + FORK]], stem=at)


def sums_of(group: Group, scored: Sequence[Any]) -> list[Any]:
    """Log-probability of each completion with the stem before it, from what is scored in the group's order."""
    if not group.stem:
        return list(scored)
    return [scored[0] + value for value in scored[1:]]


def row_cost(policy: LanguagePolicy) -> Callable[[Row], float]:
    """For `fit`: positions of a row in the forward pass."""
    return lambda row: float(sum(policy.cost(group) for kind in KINDS for group in row.get(kind, ())))


def objective(
    policy: LanguagePolicy, weights: Weights, *, beta: float = 0.1
) -> Callable[[Sequence[Row]], tuple[Tensor, dict[str, Tensor]]]:
    """The loss of a list of rows, a mean over them; metrics are its parts, unweighted, and h_w, h_l, margin."""

    counted = [
        kind for kind in KINDS if kind == "in" or getattr(weights, kind) or getattr(weights, f"{kind}_fork")
    ]

    def loss(rows: Sequence[Row]) -> tuple[Tensor, dict[str, Tensor]]:
        parts = [(row, kind, group) for kind in counted for row in rows for group in row.get(kind, ())]
        logp, mask = policy.logp_groups([group for _, _, group in parts])
        totals = losses.sequence_logp(logp, mask)
        terms: dict[str, list[Tensor]] = {}
        pairs: list[tuple[Tensor, list[float]]] = []
        at = 0
        for row, kind, group in parts:
            scored = list(totals[at : at + len(group.scored)])
            at += len(scored)
            whole = sums_of(group, scored)
            length = group.stem + len(group.completions[0])
            if kind == "in":
                terms.setdefault("imitate", []).append(-whole[0] / length)
                terms.setdefault("fork", []).append(-scored[-len(whole)] / len(group.completions[0]))
                if weights.dpo:
                    pairs.append((torch.stack(whole), row["ref"]))
                continue
            share = len(row[kind])
            terms.setdefault(kind, []).append(-whole[0] / length / share)
            if len(whole) == 2:
                terms.setdefault(f"{kind}_fork", []).append(_unlikely(scored[-1]) / share)
        for kind in ("near", "general"):
            if getattr(weights, f"{kind}_kl"):
                flat = [(group, len(row[kind])) for row in rows for group in row.get(kind, ())]
                values, real = policy.kl_groups([group for group, _ in flat])
                sums = (values * real).sum(-1)
                terms[f"{kind}_kl"] = [value / share for value, (_, share) in zip(sums, flat, strict=True)]
        metrics: dict[str, Tensor] = {}
        value = logp.new_zeros(())
        if pairs:
            both = torch.stack([total for total, _ in pairs])
            ref = torch.tensor([r for _, r in pairs], dtype=torch.float32, device=both.device)
            dpo, metrics = losses.dpo_loss(both[:, 0], both[:, 1], ref[:, 0], ref[:, 1], beta=beta)
            value = value + weights.dpo * dpo
            metrics = {**metrics, "dpo": dpo.detach()}
        for name, given in terms.items():
            # An item without a fork (nothing can be written in) counts as one whose fork is as unlikely as can be.
            mean = torch.stack(given).sum() / len(rows)
            if getattr(weights, name):
                value = value + getattr(weights, name) * mean
            metrics[name] = mean.detach()
        return value, metrics

    return loss


def _unlikely(logp: Tensor) -> Tensor:
    """-log(1 - p) of a log-probability."""
    return -torch.log1p(-(1 - SURE) * logp.exp())
