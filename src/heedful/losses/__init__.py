"""Every objective: tensors in, (loss, metrics) out. Pure functions of torch tensors.

Letters: B sequences, pairs or transitions; T tokens or action steps; K ensemble members.

- `logp` (B, T) holds log-probabilities of tokens under the policy that learns, in nats. `mask` (B, T) is
  non-zero where a token counts. What stands elsewhere never matters, not even NaN. Sequence-level losses
  take summed log-probabilities (B,), see `sequence_logp`.
- Inputs of any floating type; float32 inside. No gradient flows into references, old policies, advantages,
  scores, lengths or targets.
- A loss is a mean over the batch. reduction="sequence" sums over the tokens of a sequence and takes the
  mean over sequences; reduction="token" takes the mean over all tokens that count.
- Metrics are detached 0-d float32 tensors, means over the batch. Preference losses report `h_w` and `h_l`,
  the implicit rewards h = log pi(y|x) - log ref(y|x) of chosen and rejected in nats, *not* multiplied by
  beta; `margin`, the mean of h_w - h_l; and `accuracy`, the share of pairs with h_w > h_l, ties counting
  half. Losses without a reference use the log-probability per token instead of h.
- Options outside their range raise ValueError.
"""

from heedful.losses.actions import act_loss, denoising_loss, gaussian_kl
from heedful.losses.critics import (
    cql_loss,
    expectile_loss,
    hl_gauss_loss,
    hl_gauss_target,
    hl_gauss_value,
    td_loss,
)
from heedful.losses.imitation import (
    best_of_n_loss,
    choice_loss,
    nll_loss,
    rwr_loss,
    rwr_weight,
    sequence_logp,
)
from heedful.losses.preferences import (
    bradley_terry_loss,
    dpo_loss,
    hinge_loss,
    ipo_loss,
    kto_kl,
    kto_loss,
    orpo_loss,
    simpo_loss,
)
from heedful.losses.reinforcement import MAX_LOG_RATIO, apa_loss, ppo_loss, reinforce_loss, value_loss
from heedful.losses.shapes import (
    MIN_NEG_LOGP,
    Flags,
    Gain,
    Kept,
    Mask,
    Members,
    Reduction,
    Result,
    Scalar,
    Seq,
    Tok,
)

__all__ = [
    "MAX_LOG_RATIO",
    "MIN_NEG_LOGP",
    "Flags",
    "Gain",
    "Kept",
    "Mask",
    "Members",
    "Reduction",
    "Result",
    "Scalar",
    "Seq",
    "Tok",
    "act_loss",
    "apa_loss",
    "best_of_n_loss",
    "bradley_terry_loss",
    "choice_loss",
    "cql_loss",
    "denoising_loss",
    "dpo_loss",
    "expectile_loss",
    "gaussian_kl",
    "hinge_loss",
    "hl_gauss_loss",
    "hl_gauss_target",
    "hl_gauss_value",
    "ipo_loss",
    "kto_kl",
    "kto_loss",
    "nll_loss",
    "orpo_loss",
    "ppo_loss",
    "reinforce_loss",
    "rwr_loss",
    "rwr_weight",
    "sequence_logp",
    "simpo_loss",
    "td_loss",
    "value_loss",
]
