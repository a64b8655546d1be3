"""Reward models: a transformer with one number on top, fitted to preference pairs, used as a judge.

Bradley and Terry (1952) as in Ouyang et al. 2022, section 3.5; saved as a transformers sequence-classification
model with one label, the layout TRL's reward models have.

Letters: B inputs, N samples per input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from heedful import hub
from heedful.feedback import Feedback, Samples
from heedful.losses import bradley_terry_loss
from heedful.policies.backbone import Backbone
from heedful.policies.packing import Group


class RewardModel(Backbone):
    """A transformer whose last token's hidden state is mapped to one score; itself a judge of samples."""

    task = "SEQ_CLS"

    @classmethod
    def load(cls, name: str, **options: Any) -> RewardModel:
        """Load a saved reward model, or put a new, zero score head on a language model; options as in `Backbone`.

        Raises HeedfulError as `hub.load_model` does.
        """
        module = hub.load_model(name, kind="reward")
        return cls(module, hub.load_tokenizer(name), source=name, **options)

    @property
    def head(self) -> nn.Module:
        """The score layer, (D) -> (1)."""
        return self.transformer.score  # type: ignore[return-value]

    def scores(self, groups: Sequence[Group]) -> Tensor:
        """One score for every completion, (completions,) in float32, completions numbered group by group."""
        with self.autocast():
            return self.shared(groups) if self.shares_prefix else self.plain(groups)

    def states(self, groups: Sequence[Group]) -> Tensor:
        """What the head reads: the hidden state of every completion's last token, (completions, D)."""
        with self.autocast():
            return (self._shared_states if self.shares_prefix else self._plain_states)(groups)

    def shared(self, groups: Sequence[Group]) -> Tensor:
        """Scores by the packed computation."""
        return self.head(self._shared_states(groups)).float().squeeze(-1)

    def _shared_states(self, groups: Sequence[Group]) -> Tensor:
        # the state that would predict a token after the end is the state of the end itself
        longer = [Group(g.prompt, [[*c, 0] for c in g.completions]) for g in groups]
        hidden, layout = self.hidden(longer)
        last = torch.zeros(layout.shape[0], dtype=torch.long, device=hidden.device)
        last.scatter_reduce_(0, layout.row, torch.arange(len(layout.row), device=hidden.device), "amax")
        return hidden[last]

    def plain(self, groups: Sequence[Group]) -> Tensor:
        """Scores by a padded batch that repeats each prompt."""
        return self.head(self._plain_states(groups)).float().squeeze(-1)

    def _plain_states(self, groups: Sequence[Group]) -> Tensor:
        tokens, mask, *_ = self.padded(groups)
        hidden = self.decoder(input_ids=tokens, attention_mask=mask, use_cache=False).last_hidden_state
        last = mask.sum(-1) - 1
        return hidden[torch.arange(len(tokens), device=hidden.device), last]

    def score(
        self, groups: Sequence[Group], *, progress: Callable[[int], None] | None = None
    ) -> list[list[float]]:
        """Scores without gradients, packed to a token budget."""
        return self.in_batches(groups, self.scores, progress)

    def __call__(self, samples: Samples) -> Feedback:
        """Judge samples: score (B, N)."""
        n = samples.n
        groups = [self.group(p, samples.outputs[i * n : (i + 1) * n]) for i, p in enumerate(samples.inputs)]
        return Feedback(score=torch.tensor(self.score(groups), dtype=torch.float32))


def reward_objective(
    model: RewardModel, *, center: float = 0.0
) -> Callable[[dict[str, Any]], tuple[Tensor, dict[str, Tensor]]]:
    """The Bradley-Terry loss of a batch of pairs for `fit`: batch["groups"] hold (chosen, rejected), and
    batch["margin"] (B,) where the data has a margin column."""

    def loss(batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        scores = model.scores(batch["groups"]).view(-1, 2)
        return bradley_terry_loss(scores[:, 0], scores[:, 1], margin=batch.get("margin"), center=center)

    return loss
