"""From rewards by token or step to advantages and returns. Pure functions of torch tensors.

Letters: B sequences, T tokens or steps. `mask` (B, T) is non-zero where a token counts; what stands elsewhere never
matters, not even NaN. float32 inside.
"""

from __future__ import annotations

import torch

from heedful.losses import Mask, Seq, Tok


def gae(
    reward: Tok, value: Tok, mask: Mask, *, gamma: float = 1.0, lam: float = 0.95, final: Seq | None = None
) -> tuple[Tok, Tok]:
    """Generalised advantage estimates and the returns (advantage + value) a critic should fit, both (B, T).

    Schulman et al. 2016, eq. 16. Masked steps are skipped as if they were not there, wherever they stand,
    and come out as 0. final (B,) is the value after the last step of an episode that was cut off; without
    it the episode ended, value 0. No gradient.
    """
    with torch.no_grad():
        real = mask.bool()
        reward, value = torch.where(real, reward.float(), 0.0), torch.where(real, value.float(), 0.0)
        after = torch.zeros_like(value[:, 0]) if final is None else final.float()
        carry, advantage = torch.zeros_like(value[:, 0]), torch.zeros_like(value)
        for t in range(value.shape[1] - 1, -1, -1):
            delta = reward[:, t] + gamma * after - value[:, t]
            carry = torch.where(real[:, t], delta + gamma * lam * carry, carry)
            after = torch.where(real[:, t], value[:, t], after)
            advantage[:, t] = torch.where(real[:, t], carry, 0.0)
        return advantage, advantage + value


def whiten(values: Tok, mask: Mask) -> Tok:
    """Values with mean 0 and variance 1 over the mask, 0 elsewhere; values that are all equal become 0."""
    real = mask.bool()
    count = real.sum().clamp(min=1)
    kept = torch.where(real, values.float(), 0.0)
    centred = torch.where(real, kept - kept.sum() / count, 0.0)
    return centred * (centred.square().sum() / count + 1e-8).rsqrt()
