"""K reward heads on one transformer that is trained with them: a shared base with frozen random priors.

f_k(x) = g_k(h(x)) + scale * p_k(h(x)), g and p linear (HyRe, arXiv 2412.08812; the shared base of arXiv 2502.13131).
All heads are one matrix product, so that a hundred cost hardly more than one beside the transformer. Afterwards they
are plain linear heads over the states of the trunk: `PersonalReward.from_weights`.

Letters: B pairs, K heads, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from heedful import hub
from heedful.errors import HeedfulError
from heedful.feedback import Feedback, Samples
from heedful.judges.reward import RewardModel
from heedful.losses import bradley_terry_loss


class HeadLayer(nn.Module):
    """(..., D) -> (..., K): what is learned, begun at a given head, and beside it the prior, which never changes.

    Two parts, so that an optimiser's decay pulls the learned part alone.
    """

    prior: Tensor

    def __init__(self, start: Tensor, heads: int, prior_scale: float, seed: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(start.detach().float().expand(heads, -1).clone())
        drawn = np.random.default_rng([seed, 1]).normal(size=self.weight.shape)
        # Of states of unit size the prior's scores then have the size prior_scale, whatever D is.
        scaled = prior_scale * drawn / np.sqrt(start.shape[-1])
        self.register_buffer("prior", torch.from_numpy(scaled).float())

    def forward(self, states: Tensor) -> Tensor:
        """Scores of every head."""
        return nn.functional.linear(states, (self.weight + self.prior).to(states.dtype))


class RewardEnsemble(RewardModel):
    """A reward model with K heads; `scores` are (completions, K), of one head (completions,)."""

    @classmethod
    def load(
        cls, name: str, *, heads: int = 100, prior_scale: float = 1.0, seed: int = 0, **options: Any
    ) -> RewardEnsemble:
        """Put K heads on a saved reward model, each begun at its head, or on a language model, begun at zero.

        Raises HeedfulError as `hub.load_model` does, and for fewer than one head.
        """
        if heads < 1:
            raise HeedfulError(f"{heads} heads; at least one is needed")
        module: Any = hub.load_model(name, kind="reward")
        module.score = HeadLayer(module.score.weight, heads, prior_scale, seed)
        module.config.num_labels = heads
        return cls(module, hub.load_tokenizer(name), source=name, seed=seed, **options)

    def __call__(self, samples: Samples) -> Feedback:
        """Judge samples by the mean of the heads: score (B, N)."""
        groups = [
            self.group(prompt, samples.outputs[i * samples.n : (i + 1) * samples.n])
            for i, prompt in enumerate(samples.inputs)
        ]
        found = torch.tensor(self.score(groups), dtype=torch.float32)
        return Feedback(score=found.reshape(len(groups), samples.n, -1).mean(-1))

    def head_weights(self) -> NDArray[np.float64]:
        """The heads as linear ones over `states`, (D, K), priors included."""
        layers = [part for part in self.head.modules() if isinstance(part, HeadLayer)]
        layer = layers[-1]  # peft keeps the first weights beside the trained ones
        return (layer.weight + layer.prior).detach().double().cpu().numpy().T


def ensemble_objective(
    model: RewardEnsemble, *, center: float = 0.0
) -> Callable[[dict[str, Any]], tuple[Tensor, dict[str, Tensor]]]:
    """For `fit`: the Bradley-Terry loss of every head, then their mean; batches as in `reward.reward_objective`.

    The mean and not the sum: the gradient of the trunk then does not grow with K.
    """

    def loss(batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        scores = model.scores(batch["groups"])
        chosen, rejected = scores.reshape(len(scores) // 2, 2, -1).unbind(1)
        return bradley_terry_loss(chosen.T, rejected.T, margin=batch.get("margin"), center=center)

    return loss
