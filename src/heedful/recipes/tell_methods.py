"""The ways `heedful tell` can learn one sentence: what each part of the loss counts, and the two that only prompt.

The rows of C3PO's Table 2 (Stephan et al. 2024), its KL variant (figure 8), both lambdas at 0, and our departures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from heedful.errors import HeedfulError
from heedful.policies.scoped import Weights

NEAR, GENERAL = 0.1, 0.2
"""The paper's lambda_2 and lambda_1."""


@dataclass(frozen=True)
class TellMethod:
    """A method: its weights (None: no training, `ask` rewrites the prompt), and what it is."""

    weights: Weights | None
    about: str
    reasons: bool = False


METHODS: dict[str, TellMethod] = {
    "in_context": TellMethod(None, "the sentence is appended to every prompt; nothing is trained"),
    "in_context_cot": TellMethod(
        None, "the same, and the model first reasons whether it applies; nothing is trained", reasons=True
    ),
    "scd": TellMethod(Weights(imitate=1.0), "supervised context distillation: imitate the revisions"),
    "scd_negatives": TellMethod(
        Weights(imitate=1.0, near=0.5, general=0.5), "SCD and the start model's answers elsewhere, .5 each"
    ),
    "dpo": TellMethod(Weights(dpo=1.0), "DPO on in-scope pairs only; C3PO with both lambdas at 0"),
    "c3po": TellMethod(Weights(dpo=1.0, near=NEAR, general=GENERAL), "C3PO as published"),
    "c3po_kl": TellMethod(
        Weights(dpo=1.0, near_kl=1.0, general_kl=1.0),
        "C3PO with KL to the start model in place of likelihood",
    ),
    "c3po_no_near": TellMethod(Weights(dpo=1.0, general=GENERAL), "C3PO with lambda_near at 0"),
    "c3po_no_general": TellMethod(Weights(dpo=1.0, near=NEAR), "C3PO with lambda_general at 0"),
    "c3po_imitate": TellMethod(
        Weights(dpo=1.0, imitate=1.0, near=NEAR, general=GENERAL),
        "C3PO and the likelihood of the revision (ours)",
    ),
    "fork": TellMethod(
        Weights(dpo=1.0, imitate=1.0, near=0.2, general=0.2, fork=1.0, near_fork=2.0, general_fork=0.5),
        "C3PO, the likelihood of the revision, and the fork terms (ours)",
    ),
}


def method(name: str) -> TellMethod:
    """The method of that name. Raises HeedfulError with the known ones."""
    if name not in METHODS:
        raise HeedfulError(f"there is no method {name!r}; choose one of {', '.join(METHODS)}")
    return METHODS[name]


def weights_of(name: str, near: float | None, general: float | None) -> Weights | None:
    """The weights of a method, its two lambdas replaced where they are given.

    Raises HeedfulError for a lambda that the method does not have.
    """
    weights = method(name).weights
    for kind, value in (("near", near), ("general", general)):
        if value is None:
            continue
        if weights is None:
            raise HeedfulError(f"--lambda-{kind} has no meaning with {name}: it trains nothing")
        term = kind if getattr(weights, kind) else f"{kind}_kl"
        if not getattr(weights, term):
            raise HeedfulError(f"--lambda-{kind} has no meaning with {name}: its loss has no such part")
        weights = replace(weights, **{term: value})
    return weights


def ask(name: str, sentence: str, prompts: Sequence[Any]) -> list[Any]:
    """The prompts as an in-context method puts them. (Our words; the paper's prompts say the same.)"""
    if method(name).reasons:
        more = (
            f"Someone once gave you this feedback: {sentence}\n"
            "First say in one sentence, after 'Reasoning:', whether it applies to the request above. Then write, after "
            "'Answer:', your answer to the request, and follow the feedback only if it applies."
        )
    else:
        more = f"Someone once gave you this feedback, follow it if it applies here: {sentence}"
    return [f"{prompt}\n\n{more}" for prompt in prompts]


def answer_of(name: str, text: str) -> str:
    """The answer in a completion: after 'Answer:' where the method reasons first, all of it where that is missing."""
    _, marker, tail = text.partition("Answer:")
    return tail.strip() if method(name).reasons and marker and tail.strip() else text
