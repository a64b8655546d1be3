"""A value head beside a language policy, and what PPO learns from: advantages and returns by token.

Schulman et al. 2017 as in Ziegler et al. 2019 and TRL 0.7, which Tajwar et al. 2024 use (section 4 and code): a
token's reward is -kl (log pi - log ref) under the policy that sampled, and the last one's also the score.

Letters: G groups (a prompt and its completions), N completions of a group, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from heedful import returns
from heedful.errors import HeedfulError
from heedful.policies import packing
from heedful.policies.language import LanguagePolicy
from heedful.policies.packing import Group
from heedful.run import Run


def value_head(policy: LanguagePolicy) -> nn.Linear:
    """A new linear map from the hidden state before a token to the value there; it starts at zero everywhere.

    Raises HeedfulError for an architecture whose prompts cannot be shared, whose hidden states are not at hand.
    """
    if not policy.shares_prefix:
        raise HeedfulError(
            f"{policy.source or 'this model'} cannot share prompts between completions, which the value head of ppo "
            "needs: use --value-coef 0 (group advantages instead), or another method"
        )
    head = nn.Linear(int(policy.head.weight.shape[1]), 1)  # type: ignore[union-attr, arg-type]
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head.to(policy.device)


def score_and_value(
    policy: LanguagePolicy, head: nn.Linear, groups: Sequence[Group]
) -> tuple[Tensor, Tensor, Tensor]:
    """One forward pass: log-probability and value (completions, T) of every completion token, and the mask."""
    with policy.autocast():
        hidden, layout = policy.hidden(groups)
        logp = packing.token_logp(hidden, policy.head, layout.target, policy.head_weight())
    value = head(hidden.float()).squeeze(-1)
    rows, mask = packing.scatter_rows(logp, layout)
    return rows, packing.scatter_rows(value, layout)[0], mask


def token_values(
    policy: LanguagePolicy, head: nn.Linear, groups: Sequence[Group], run: Run, name: str
) -> list[list[list[float]]]:
    """The value before every token of every completion, made once and kept as `name` (.json)."""

    def make() -> list[list[list[float]]]:
        out = []
        for group in groups:
            with torch.no_grad(), policy.eval_mode():
                _, value, mask = score_and_value(policy, head, [group])
            out.append([row[m].tolist() for row, m in zip(value, mask, strict=True)])
        return out

    return run.once(name, make)


def ppo_targets(
    old: Sequence[Sequence[Sequence[float]]],
    ref: Sequence[Sequence[Sequence[float]]],
    value: Sequence[Sequence[Sequence[float]]],
    score: Sequence[Sequence[float]],
    *,
    kl: float,
    discount: float = 1.0,
    lam: float = 0.95,
) -> list[dict[str, Any]]:
    """For each of G groups {"advantage", "target"}, lists of T numbers for each of its N completions.

    old, ref, value: by group, completion and token; score: by group and completion, NaN has no opinion and counts
    as no score at the end (its KL still counts). Advantages are generalised advantage estimates, whitened over all
    tokens; targets are the returns the critic should fit.
    """
    flat = [
        (o, r, v, s)
        for go, gr, gv, gs in zip(old, ref, value, score, strict=True)
        for o, r, v, s in zip(go, gr, gv, gs, strict=True)
    ]
    longest = max(len(o) for o, *_ in flat)
    shape = (len(flat), longest)
    reward, values, mask = torch.zeros(shape), torch.zeros(shape), torch.zeros(shape, dtype=torch.bool)
    for i, (o, r, v, s) in enumerate(flat):
        size = len(o)
        mask[i, :size] = True
        values[i, :size] = torch.tensor(v)
        reward[i, :size] = -kl * (torch.tensor(o) - torch.tensor(r))
        reward[i, size - 1] += 0.0 if s != s else s
    advantage, target = returns.gae(reward, values, mask, gamma=discount, lam=lam)
    advantage = returns.whiten(advantage, mask)
    rows: list[dict[str, Any]] = []
    at = 0
    for group in old:
        taken = range(at, at + len(group))
        rows.append(
            {
                name: [part[i, : len(flat[i][0])].tolist() for i in taken]
                for name, part in (("advantage", advantage), ("target", target))
            }
        )
        at += len(group)
    return rows


def next_kl(kl: float, seen: float, samples: int, *, target: float, horizon: float = 10_000) -> float:
    """The adaptive coefficient after `samples` completions whose mean KL was `seen` nats. Ziegler et al. 2019, 2.2.

    target 0 keeps it fixed.
    """
    if not target:
        return kl
    error = min(0.2, max(-0.2, seen / target - 1))
    return kl * (1 + error * samples / horizon)
