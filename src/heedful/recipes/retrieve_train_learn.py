"""What a writer of queries learns from what was tried: first to imitate the best queries, then to prefer the better.

Imitation is context distillation: the queries were written with demonstrations, and are learned for the prompt without
(LeReT-CD). Preferences start from there, and what they start from is their reference, too (LeReT, arXiv 2410.23214).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from heedful import losses
from heedful.fit import fit
from heedful.policies import objectives
from heedful.policies.language import LanguagePolicy
from heedful.recipes.settings import fit_config
from heedful.run import Run

if TYPE_CHECKING:
    from heedful.recipes.retrieve_train import Config


def imitate(
    cfg: Config, policy: LanguagePolicy, targets: Sequence[Mapping[str, Any]], stage: str, run: Run
) -> None:
    """Learn to write {"output"} to {"input"}, a mean over the queries' tokens.

    Raises HeedfulError naming every row that is longer than the model's context.
    """

    def group(i: int) -> Any:
        return policy.group(targets[i]["input"], [targets[i]["output"]])

    objectives.check_lengths(len(targets), group, lambda i: f"query {i + 1} to imitate")
    settings = replace(
        fit_config(cfg, policy.precision),
        lr=cfg.cd_learning_rate,
        epochs=cfg.cd_epochs,
        batch_size=cfg.cd_batch_size,
    )
    fit(
        stage,
        objectives.objective(policy, "best"),
        policy.module,
        objectives.Lazy(len(targets), lambda i: {"group": group(i)}),
        settings,
        run,
        collate=objectives.collate(policy),
        cost=objectives.row_cost(policy),
        weight=objectives.row_weight("best"),
    )


def prefer(
    cfg: Config, policy: LanguagePolicy, pairs: Sequence[Mapping[str, Any]], stage: str, run: Run
) -> None:
    """Learn to prefer {"chosen"} to {"rejected"} for {"input"}; the policy as it comes is the reference.

    Raises HeedfulError naming every pair that is longer than the model's context.
    """
    shown = "" if cfg.quiet else f"{stage}/reference"
    method = "dpo" if cfg.loss == "dpo" else "ipo"
    rows = objectives.pair_rows(policy, pairs, method, run, shown=shown, reference=nullcontext)
    fit(
        stage,
        per_token_ipo(policy, cfg.beta)
        if cfg.loss == "ipo_per_token"
        else objectives.objective(policy, method, beta=cfg.beta),
        policy.module,
        rows,
        fit_config(cfg, policy.precision),
        run,
        collate=objectives.collate(policy),
        cost=objectives.row_cost(policy),
        weight=objectives.row_weight(method),
    )


def per_token_ipo(policy: LanguagePolicy, beta: float) -> Callable[[dict[str, Any]], objectives.Scored]:
    """IPO on means over tokens, as TRL has it: the margin 1 / (2 beta) is then one of nats per token."""

    def loss(batch: dict[str, Any]) -> objectives.Scored:
        logp, mask = policy.logp_groups(batch["groups"])
        total, length, ref = losses.sequence_logp(logp, mask), mask.sum(-1).float(), batch["ref"]
        return losses.ipo_loss(
            total[0::2],
            total[1::2],
            ref[0::2],
            ref[1::2],
            beta=beta,
            per_token=True,
            chosen_length=length[0::2],
            rejected_length=length[1::2],
        )

    return loss
