"""The methods of `heedful act`: what each trains offline and online, and how it acts. Nothing here imports torch.

All share the data, the networks, the batches and the number of steps; these rows are all that differs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Method:
    """offline, online: what the policy's step is: nothing, learning improved actions, weighted cloning, or climbing the
    critic (offline in the same step as the critic). acts: with its own samples, or the critic's choice among them."""

    about: str
    policies: tuple[str, ...]
    critic: str
    """Which critic, "" for the option's; "none" for no critic."""
    policy_step: Literal["none", "distill", "weighted", "climb"]
    acts: Literal["policy", "search"]
    climbs: bool = False
    """The critic's choice is improved along its gradient, not only ranked."""
    clones: bool = True
    offline: bool = True


ANY = ("diffusion", "flow", "gaussian", "tokens", "language")
NOISE = ("diffusion", "flow")
METHODS = {
    "parl": Method(
        "PA-RL: the policy learns actions that a critic improves", ANY, "", "distill", "search", True
    ),
    "clone": Method("imitates the data", ANY, "none", "none", "policy"),
    "awr": Method("imitates the data, weighted by advantage", ANY, "", "weighted", "policy", True),
    "rerank": Method("imitates the data; acts by the best of its samples", ANY, "", "none", "search"),
    "idql": Method("the same with IQL's critic", NOISE, "iql", "none", "search"),
    "dql": Method("cloning plus Q through the chain of sampling", NOISE, "td", "climb", "policy"),
    "calql": Method(
        "a Gaussian policy that climbs a Cal-QL critic", ("gaussian",), "calql", "climb", "policy"
    ),
    "rlpd": Method(
        "a Gaussian policy from nothing, online, with the data mixed in",
        ("gaussian",),
        "td",
        "climb",
        "policy",
        clones=False,
        offline=False,
    ),
}


def has_critic(name: str) -> bool:
    """Whether the method learns a critic."""
    return METHODS[name].critic != "none"


def critic_of(name: str, chosen: str) -> str:
    """The critic that the method learns, `chosen` where it leaves that open."""
    return METHODS[name].critic or chosen
