"""The newest frames of a running episode as one observation, oldest first.

For data there is `segments.frames_before`, which gives the steps; both repeat the first frame where there is no
earlier one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import torch

from heedful.errors import HeedfulError
from heedful.policies.actions import Observations


class FrameHistory:
    """Keeps what `count` frames, `stride` steps apart, need. `clear` it when an episode begins."""

    def __init__(self, count: int, stride: int = 1) -> None:
        if count < 1 or stride < 1:
            raise HeedfulError(f"a history has at least 1 frame and stride 1, not {count} and {stride}")
        self.count, self.stride = count, stride
        self._frames: deque[Mapping[str, Any]] = deque(maxlen=(count - 1) * stride + 1)

    def clear(self) -> None:
        """Forget all frames."""
        self._frames.clear()

    def add(self, observation: Observations) -> None:
        """One step's observation: tensors or arrays of one frame, and texts."""
        self._frames.append(observation)

    def read(self) -> dict[str, Any]:
        """One observation, (count, ...) of each name, or without that axis when count is 1; texts are the newest.

        Raises HeedfulError before the first frame.
        """
        if not self._frames:
            raise HeedfulError("there is no frame yet: add one first")
        last = len(self._frames) - 1
        places = [max(0, last - self.stride * i) for i in range(self.count - 1, -1, -1)]
        newest = self._frames[last]
        out: dict[str, Any] = {}
        for name, value in newest.items():
            if isinstance(value, str):
                out[name] = value
            elif self.count == 1:
                out[name] = torch.as_tensor(value)
            else:
                out[name] = torch.stack([torch.as_tensor(self._frames[i][name]) for i in places])
        return out
