"""From rows of feedback to a loss that `fit` can call: the methods a language policy learns by.

A method is one entry of METHODS: what it learns from, whether it needs the reference, and a function of a scored
batch. The formulas are in losses.py; what is here only lines up tensors.

Letters: R rows in a batch, N completions of a row, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from heedful import losses
from heedful.errors import HeedfulError
from heedful.policies.backbone import Backbone
from heedful.policies.language import LanguagePolicy
from heedful.policies.packing import Group
from heedful.run import Run

Row = dict[str, Any]
"""{"group": Group, and per completion: "ref", "old", "advantage", "weight"}: a list of N numbers each."""
Scored = tuple[Tensor, dict[str, Tensor]]


@dataclass(frozen=True)
class Batch:
    """A batch after the forward pass: logp and mask (R*N, T), and the rows' numbers, (R*N,) each."""

    logp: Tensor
    mask: Tensor
    numbers: dict[str, Tensor]

    @property
    def total(self) -> Tensor:
        """Summed log-probability of each completion, (R*N,)."""
        return losses.sequence_logp(self.logp, self.mask)

    @property
    def length(self) -> Tensor:
        """Tokens of each completion, (R*N,)."""
        return self.mask.sum(-1).float()


@dataclass(frozen=True)
class Method:
    """How a method learns: from "pairs" (chosen first) or from scored "samples"."""

    feedback: Literal["pairs", "samples"]
    reference: bool
    loss: Callable[[Batch, Mapping[str, Any]], Scored]
    about: str


def _halves(values: Tensor) -> tuple[Tensor, Tensor]:
    return values[0::2], values[1::2]


def _with_reference(name: str, **fixed: Any) -> Callable[[Batch, Mapping[str, Any]], Scored]:
    def loss(b: Batch, options: Mapping[str, Any]) -> Scored:
        function = getattr(losses, f"{name}_loss")
        return function(*_halves(b.total), *_halves(b.numbers["ref"]), **_given(options, function), **fixed)

    return loss


def _given(options: Mapping[str, Any], function: Callable[..., Any]) -> dict[str, Any]:
    """The options that this loss has; others were refused before (see `check_options`)."""
    import inspect

    known = inspect.signature(function).parameters
    return {name: value for name, value in options.items() if name in known}


def _simpo(b: Batch, options: Mapping[str, Any]) -> Scored:
    given = _given(options, losses.simpo_loss)
    return losses.simpo_loss(*_halves(b.total), *_halves(b.length), **given)


def _orpo(b: Batch, options: Mapping[str, Any]) -> Scored:
    return losses.orpo_loss(*_halves(b.total), *_halves(b.length), **_given(options, losses.orpo_loss))


def _kto(b: Batch, options: Mapping[str, Any]) -> Scored:
    good = torch.arange(len(b.total), device=b.total.device) % 2 == 0
    return losses.kto_loss(b.total, b.numbers["ref"], good, **_given(options, losses.kto_loss))


def _sft(b: Batch, options: Mapping[str, Any]) -> Scored:
    return losses.nll_loss(b.logp[0::2], b.mask[0::2])


def _imitate(b: Batch, options: Mapping[str, Any]) -> Scored:
    return losses.nll_loss(b.logp, b.mask)


def _rwr(b: Batch, options: Mapping[str, Any]) -> Scored:
    return losses.nll_loss(b.logp, b.mask, weight=b.numbers["weight"], reduction="sequence")


def _reinforce(b: Batch, options: Mapping[str, Any]) -> Scored:
    return losses.reinforce_loss(b.logp, b.mask, b.numbers["advantage"])


def _ppo(b: Batch, options: Mapping[str, Any]) -> Scored:
    return losses.ppo_loss(
        b.logp, b.numbers["old"], b.mask, b.numbers["advantage"], **_given(options, losses.ppo_loss)
    )


def _apa(b: Batch, options: Mapping[str, Any]) -> Scored:
    lam = {"lam": options["tau"]} if "tau" in options else {}
    return losses.apa_loss(b.logp, b.numbers["old"], b.mask, b.numbers["advantage"], **lam)


METHODS: dict[str, Method] = {
    "dpo": Method("pairs", True, _with_reference("dpo"), "Rafailov et al. 2023"),
    "robust": Method(
        "pairs", True, _with_reference("dpo", robust=True), "DPO for flipped labels, Chowdhury et al. 2024"
    ),
    "ipo": Method("pairs", True, _with_reference("ipo"), "Azar et al. 2023, summed log-probabilities"),
    "hinge": Method("pairs", True, _with_reference("hinge"), "SLiC, Zhao et al. 2023"),
    "simpo": Method("pairs", False, _simpo, "length-normalised, no reference, Meng et al. 2024"),
    "orpo": Method("pairs", False, _orpo, "Hong et al. 2024"),
    "kto": Method("pairs", True, _kto, "chosen as good, rejected as bad, Ethayarajh et al. 2024"),
    "sft": Method("pairs", False, _sft, "imitate the chosen answers (Pref-FT)"),
    "best": Method("samples", False, _imitate, "imitate the best of N samples (best-of-N, ReST)"),
    "rwr": Method("samples", False, _rwr, "reward-weighted regression"),
    "reinforce": Method("samples", False, _reinforce, "policy gradient with a baseline"),
    "ppo": Method("samples", False, _ppo, "clipped policy gradient on group advantages, no value head"),
    "apa": Method("samples", False, _apa, "squared loss on log-ratio and advantage"),
}
TOKEN_LOGPS = {"ppo": "policy", "apa": "reference"}
"""Methods that need the token log-probabilities of another policy: of the one that sampled, or of the reference."""


@dataclass(frozen=True)
class Lazy(Sequence[Any]):
    """`length` items, each made by `make(i)` whenever it is asked for."""

    length: int
    make: Callable[[int], Any]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self.make(j) for j in range(*i.indices(self.length))]
        if not -self.length <= i < self.length:
            raise IndexError(i)
        return self.make(i % self.length)


def pair_rows(
    policy: LanguagePolicy,
    pairs: Sequence[Mapping[str, Any]],
    method: str,
    run: Run,
    *,
    shown: str = "",
) -> Sequence[Row]:
    """Training rows of preference pairs: {"prompt" or "input", "chosen", "rejected"}, chosen first.

    They are tokenised when they are asked for, so that pairs on disk stay there. Reference log-probabilities are
    computed once and kept in the run folder; shown: a name for the progress display of that.
    Raises HeedfulError naming every pair that is longer than the model's context.
    """

    def group(i: int) -> Group:
        pair = pairs[i]
        prompt = pair["prompt"] if "prompt" in pair else pair["input"]
        return policy.group(prompt, [pair["chosen"], pair["rejected"]])

    check_lengths(len(pairs), group, getattr(pairs, "where", lambda i: f"pair {i + 1}"))
    if not check_method(method).reference:
        return Lazy(len(pairs), lambda i: {"group": group(i)})
    with policy.reference():
        values = policy.cached_logps(Lazy(len(pairs), group), run, shown=shown)
    ref = np.array(values, dtype=np.float64).reshape(-1, 2)
    return Lazy(len(pairs), lambda i: {"group": group(i), "ref": ref[i].tolist()})


def check_lengths(count: int, group: Callable[[int], Group], where: Callable[[int], str]) -> None:
    """Tokenise everything once. Raises HeedfulError with the place and the reason of all that does not fit."""
    problems = []
    for i in range(count):
        try:
            group(i)
        except HeedfulError as error:
            problems.append(f"{where(i)}: {error}")
    if problems:
        more = f"\n… and {len(problems) - 20} more" if len(problems) > 20 else ""
        raise HeedfulError("\n".join(problems[:20]) + more)


def sample_rows(
    policy: LanguagePolicy, rows: Sequence[Mapping[str, Any]], method: str, run: Run, *, name: str = "round0"
) -> list[Row]:
    """Training rows of scored samples: {"input", "output", "advantage" | "weight"}; neighbours with one input
    become one row, so their prompt is encoded once. name: the stage under which token log-probabilities from before
    the update are kept, for the methods that need them."""
    grouped: list[tuple[Any, list[Mapping[str, Any]]]] = []
    for row in rows:
        if not grouped or grouped[-1][0] is not row["input"]:
            grouped.append((row["input"], []))
        grouped[-1][1].append(row)
    groups = [policy.group(prompt, [row["output"] for row in part]) for prompt, part in grouped]
    made: list[Row] = [{"group": group} for group in groups]
    for row, (_, part) in zip(made, grouped, strict=True):
        for key in ("advantage", "weight"):
            if key in part[0]:
                row[key] = [float(item[key]) for item in part]
    if method in TOKEN_LOGPS:
        with policy.reference() if TOKEN_LOGPS[method] == "reference" else nullcontext():
            values = policy.cached_token_logps(groups, run, f"{name}/token_logps.json")
        for row, old in zip(made, values, strict=True):
            row["old"] = old
    return made


def collate(policy: Backbone) -> Callable[[list[Row]], dict[str, Any]]:
    """For `fit`: rows -> {"groups": [...], name: (R*N,) tensor or (R*N, T) for token log-probabilities}."""

    def join(rows: list[Row]) -> dict[str, Any]:
        batch: dict[str, Any] = {"groups": [row["group"] for row in rows]}
        for name in rows[0]:
            if name == "group":
                continue
            values = [value for row in rows for value in row[name]]
            if isinstance(values[0], list):
                longest = max(map(len, values))
                values = [[*value, *[0.0] * (longest - len(value))] for value in values]
            batch[name] = torch.tensor(values, dtype=torch.float32, device=policy.device)
        return batch

    return join


def row_cost(policy: Backbone) -> Callable[[Row], float]:
    """For `fit`: positions of a row in the forward pass."""
    return lambda row: float(policy.cost(row["group"]))


def row_weight(method: str) -> Callable[[Row], float]:
    """For `fit`: what a row counts in a step's mean, so that micro-batches add up to one big batch exactly."""

    def tokens(row: Row) -> float:
        completions = row["group"].completions
        return float(sum(map(len, completions[:1] if method == "sft" else completions)))

    if method in ("sft", "best"):
        return tokens
    if METHODS[method].feedback == "samples":
        return lambda row: float(len(row["group"].completions))
    return lambda row: 1.0


def objective(policy: LanguagePolicy, method: str, **options: Any) -> Callable[[dict[str, Any]], Scored]:
    """The loss of a collated batch. options: beta, label_smoothing, gamma, ... of the method's loss.

    Raises HeedfulError for an unknown method.
    """
    check_method(method)

    def loss(batch: dict[str, Any]) -> Scored:
        logp, mask = policy.logp_groups(batch["groups"])
        numbers = {name: value for name, value in batch.items() if name != "groups"}
        value, metrics = METHODS[method].loss(Batch(logp, mask, numbers), options)
        total = losses.sequence_logp(logp.detach(), mask)
        metrics = {**metrics, "length": mask.sum(-1).float().mean()}
        if "ref" in numbers:
            metrics["logp_minus_ref"] = (total - numbers["ref"]).mean()
        return value, metrics

    return loss


def check_method(name: str) -> Method:
    """The method of that name. Raises HeedfulError with the known ones."""
    if name not in METHODS:
        raise HeedfulError(f"there is no method {name!r}; choose one of {', '.join(METHODS)}")
    return METHODS[name]
