"""From rows of feedback to a loss that `fit` can call: the methods a language policy learns by.

A method is one entry of METHODS: what it learns from, whether it needs the reference, and a function of a scored
batch. The formulas are in losses.py; what is here only lines up tensors.

Letters: R rows in a batch, N completions of a row, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from heedful import losses
from heedful.errors import HeedfulError
from heedful.policies.actor_critic import score_and_value
from heedful.policies.backbone import Backbone
from heedful.policies.language import LanguagePolicy
from heedful.policies.packing import Group
from heedful.run import Run

Row = dict[str, Any]
"""{"group": Group, and per completion: "ref", "drawn", "score", "advantage", "weight"}: a list of N numbers each;
"old", "advantage", "value", "target" of ppo and apa: a list of numbers by token each. "ref" and "drawn" are summed
log-probabilities under the reference and under the policy that sampled (NaN where nobody did); every row of a stage
has the same names."""
Scored = tuple[Tensor, dict[str, Tensor]]
Reference = Callable[[], AbstractContextManager[None]]
"""A context in which the policy is its reference."""


@dataclass(frozen=True)
class Batch:
    """A batch after the forward pass: logp and mask (R*N, T), the rows' numbers, (R*N,) or (R*N, T) each, how many
    completions each row has, and the critic's values (R*N, T) where there is one."""

    logp: Tensor
    mask: Tensor
    numbers: dict[str, Tensor]
    sizes: Sequence[int] = ()
    value: Tensor | None = None

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


def _best(b: Batch, options: Mapping[str, Any]) -> Scored:
    if options.get("negative", "none") == "none":
        return losses.nll_loss(b.logp, b.mask)
    rows, ref = b.total.split(list(b.sizes)), b.numbers["ref"].split(list(b.sizes))
    given = {name: options[f"negative_{name}"] for name in ("form", "weight", "floor")}
    return losses.best_of_n_loss(
        torch.stack([row[0] for row in rows]),
        pad_sequence([row[1:] for row in rows], batch_first=True),
        pad_sequence([torch.ones_like(row[1:]) for row in rows], batch_first=True),
        ref_losers=pad_sequence([row[1:] for row in ref], batch_first=True),
        negative=options["negative"],
        **given,
    )


def _rwr(b: Batch, options: Mapping[str, Any]) -> Scored:
    return losses.nll_loss(b.logp, b.mask, weight=b.numbers["weight"], reduction="sequence")


def _reinforce(b: Batch, options: Mapping[str, Any]) -> Scored:
    return losses.reinforce_loss(b.logp, b.mask, b.numbers["advantage"])


def _ppo(b: Batch, options: Mapping[str, Any]) -> Scored:
    clip = {"clip": options["clip"]} if "clip" in options else {}
    loss, metrics = losses.ppo_loss(b.logp, b.numbers["old"], b.mask, b.numbers["advantage"], **clip)
    if b.value is None:
        return loss, metrics
    wrong, told = losses.value_loss(
        b.value,
        b.numbers["value"],
        b.mask,
        b.numbers["target"],
        clip=options["value_clip"],
        reduction="sequence",
    )
    told = {"value_loss": wrong.detach(), "value": told["value"], "target": told["target"]}
    return loss + options["value_coef"] * wrong, {**metrics, **told}


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
    "best": Method("samples", False, _best, "imitate the best of N samples (best-of-N, ReST)"),
    "rwr": Method("samples", False, _rwr, "reward-weighted regression"),
    "reinforce": Method("samples", False, _reinforce, "policy gradient with a baseline"),
    "ppo": Method(
        "samples", False, _ppo, "clipped policy gradient, with a value head or on group advantages"
    ),
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
    reference: Reference | None = None,
    told: bool = False,
    checked: bool = False,
) -> Sequence[Row]:
    """Training rows of preference pairs: {"prompt" or "input", "chosen", "rejected"}, chosen first.

    reference: the context in which the policy is the reference; `policy.reference` unless given. told: "drawn" and, for
    methods without a reference too, "ref" are in the rows, for the metrics alone. checked: lengths need no look again.

    They are tokenised when they are asked for, so that pairs on disk stay there. Reference log-probabilities are
    computed once and kept in the run folder; shown: a name for the progress display of that.
    Raises HeedfulError naming every pair that is longer than the model's context.
    """

    def group(i: int) -> Group:
        pair = pairs[i]
        prompt = pair["prompt"] if "prompt" in pair else pair["input"]
        return policy.group(prompt, [pair["chosen"], pair["rejected"]])

    if not checked:
        check_lengths(len(pairs), group, getattr(pairs, "where", lambda i: f"pair {i + 1}"))
    if not check_method(method).reference and not told:
        return Lazy(len(pairs), lambda i: {"group": group(i)})
    with (reference or policy.reference)():
        values = policy.cached_logps(Lazy(len(pairs), group), run, shown=shown)
    ref = np.array(values, dtype=np.float64).reshape(-1, 2)

    def row(i: int) -> Row:
        made: Row = {"group": group(i), "ref": ref[i].tolist()}
        return (
            {**made, "drawn": [drawn_logp(pairs[i][side]) for side in ("chosen", "rejected")]}
            if told
            else made
        )

    return Lazy(len(pairs), row)


def drawn_logp(output: Any) -> float:
    """The log-probability with which a policy sampled this output; NaN for a text that none did."""
    return float(getattr(output, "logp", float("nan")))


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
    policy: LanguagePolicy,
    rows: Sequence[Mapping[str, Any]],
    method: str,
    run: Run,
    *,
    name: str = "round0",
    reference: Reference | None = None,
) -> list[Row]:
    """Training rows of scored samples: {"input", "output", "score", "advantage" | "weight"}; neighbours with one input
    become one row, so their prompt is encoded once. name: the stage under which token log-probabilities from before
    the update are kept, for the methods that need them. reference: see `pair_rows`."""
    grouped: list[tuple[Any, list[Mapping[str, Any]]]] = []
    for row in rows:
        if not grouped or grouped[-1][0] is not row["input"]:
            grouped.append((row["input"], []))
        grouped[-1][1].append(row)
    groups = [policy.group(prompt, [row["output"] for row in part]) for prompt, part in grouped]
    with (reference or policy.reference)():
        refs = policy.cached_logps(groups, run)
    made: list[Row] = []
    for group, ref, (_, part) in zip(groups, refs, grouped, strict=True):
        drawn = [drawn_logp(item["output"]) for item in part]
        numbers = {
            key: [float(item[key]) for item in part]
            for key in ("score", "advantage", "weight")
            if key in part[0]
        }
        made.append({"group": group, "ref": ref, "drawn": drawn, **numbers})
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


def row_weight(method: str, *, negative: str = "none") -> Callable[[Row], float]:
    """For `fit`: what a row counts in a step's mean, so that micro-batches add up to one big batch exactly."""

    def tokens(row: Row) -> float:
        completions = row["group"].completions
        return float(sum(map(len, completions[:1] if method == "sft" else completions)))

    if method == "best" and negative != "none":
        return lambda row: 1.0
    if method in ("sft", "best", "apa"):
        return tokens
    if METHODS[method].feedback == "samples":
        return lambda row: float(len(row["group"].completions))
    return lambda row: 1.0


def objective(
    policy: LanguagePolicy,
    method: str,
    *,
    critic: nn.Linear | None = None,
    told: Mapping[str, float] | None = None,
    **options: Any,
) -> Callable[[dict[str, Any]], Scored]:
    """The loss of a collated batch. options: beta, label_smoothing, gamma, ... of the method's loss.

    critic: the value head of ppo. told: numbers of the stage that go into every step's metrics.
    Raises HeedfulError for an unknown method.
    """
    check_method(method)

    def loss(batch: dict[str, Any]) -> Scored:
        groups, value = batch["groups"], None
        if critic is not None:
            logp, value, mask = score_and_value(policy, critic, groups)
        else:
            logp, mask = policy.logp_groups(groups)
        numbers = {name: given for name, given in batch.items() if name != "groups"}
        sizes = [len(group.completions) for group in groups]
        scalar, metrics = METHODS[method].loss(Batch(logp, mask, numbers, sizes, value), options)
        with torch.no_grad():
            more = distances(logp.detach(), mask, numbers, sizes)
        fixed = {name: torch.tensor(float(number)) for name, number in (told or {}).items()}
        return scalar, {**more, **fixed, **metrics}

    return loss


def distances(
    logp: Tensor, mask: Tensor, numbers: Mapping[str, Tensor], sizes: Sequence[int]
) -> dict[str, Tensor]:
    """What the forward pass of a step tells besides the loss: estimates from the step's own completions.

    length (tokens); logp_minus_ref. Of sampled completions kl_ref, the mean of log pi - log ref (exact in expectation
    while the policy is the one that sampled); kl_sampling, of the sampling policy to this one (Schulman's k3); and
    entropy, the mean of -log pi by token. Of scored ones h_w and h_l, the log-ratios of a row's best and worst.
    """
    total, tokens = losses.sequence_logp(logp, mask), mask.sum(-1).float()
    out = {"length": tokens.mean()}
    if "ref" not in numbers:
        return out
    h = total - numbers["ref"]
    out["logp_minus_ref"] = h.mean()
    drawn = numbers.get("drawn")
    if drawn is not None and bool((own := drawn.isfinite()).any()):
        moved = (total - drawn)[own].clamp(max=losses.MAX_LOG_RATIO)
        out["kl_ref"] = h[own].mean()
        out["kl_sampling"] = (moved.exp() - 1 - moved).mean()
        out["entropy"] = -total[own].sum() / tokens[own].sum()
    if "score" in numbers:
        pairs = zip(h.split(list(sizes)), numbers["score"].split(list(sizes)), strict=True)
        ends = [(a[s.argmax()], a[s.argmin()]) for a, s in pairs if s.max() > s.min()]
        if ends:
            h_w, h_l = (torch.stack(side).mean() for side in zip(*ends, strict=True))
            out |= {"h_w": h_w, "h_l": h_l, "margin": h_w - h_l}
    return out


def check_method(name: str) -> Method:
    """The method of that name. Raises HeedfulError with the known ones."""
    if name not in METHODS:
        raise HeedfulError(f"there is no method {name!r}; choose one of {', '.join(METHODS)}")
    return METHODS[name]
