"""Demonstrations as DROID's policy learns from them: the cameras it has, `state`, `action`, and what was asked for.

Episodes that failed are left out (DROID's policy learns from successes), and an episode that says what it is for in
no words is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from heedful.data.episodes import (
    Array,
    Episode,
    Episodes,
    Feature,
    LanguageRow,
    check_columns,
    check_index,
    check_range,
    outcome,
)
from heedful.errors import HeedfulError
from heedful.policies.droid import ACTION, STATE, Actions, action_of, state_of

Reading = Literal["cartesian", "as_is"]
"""cartesian: DROID's columns of Cartesian positions and grippers. as_is: `action` and `observation.state`, which then
have 7 numbers each (a pose, or a change of one, and a gripper), whatever they mean."""
POSE, CLOSED = "observation.state.cartesian_position", "observation.state.gripper_position"
TOLD, GRIP = "action.cartesian_position", "action.gripper_position"
SPOKEN = ("language_instruction", "language_instruction_2", "language_instruction_3")


class PolicyEpisodes:
    """`Episodes` with the columns `state` (10,) and `action` (7,), and `cameras`.

    Raises HeedfulError where a column or a camera is missing, or has another shape.
    """

    def __init__(
        self,
        of: Episodes,
        cameras: Sequence[str],
        *,
        actions: Actions = "absolute",
        reading: Reading = "cartesian",
    ) -> None:
        self._of, self._reading = of, reading
        self._actions: Actions = actions
        self.path, self.layout = of.path, of.layout
        missing = [camera for camera in cameras if camera not in of.info.cameras]
        if missing:
            raise HeedfulError(
                f"{of.path}: there is no camera {missing[0]!r}; it has {', '.join(of.info.cameras) or 'none'} "
                "(--cameras)"
            )
        wanted = {"observation.state": 7, "action": 7}
        if reading == "cartesian":
            wanted = {POSE: 6, CLOSED: 1, TOLD: 6, GRIP: 1}
        lacking = [name for name in wanted if name not in of.info.columns]
        if lacking:
            what = "no actions" if lacking[0].startswith("action") else "no states"
            raise HeedfulError(
                f"{of.path} has {what} that this policy can learn: the column {lacking[0]!r} is missing; it has "
                f"{', '.join(of.info.columns)}"
            )
        for name, size in wanted.items():
            if of.info.features[name].shape != (size,):
                raise HeedfulError(
                    f"{of.path}: column {name!r} has frames of {of.info.features[name].shape}, not ({size},)"
                )
        shown = {camera: of.info.features[camera] for camera in cameras}
        made = {"state": Feature("float32", (STATE,)), "action": Feature("float32", (ACTION,))}
        self.info = replace(of.info, features={**shown, **made})

    def __len__(self) -> int:
        return len(self._of)

    def episode(self, i: int) -> Episode:
        """See `Episodes.episode`."""
        return self._of.episode(i)

    def columns(
        self, i: int, names: Sequence[str] | None = None, start: int = 0, stop: int | None = None
    ) -> dict[str, Array]:
        """See `Episodes.columns`. Raises HeedfulError naming the first frame with a number that is not finite."""
        i = check_index(i, len(self), self.path)
        start, stop = check_range(self.episode(i), start, stop, self.path)
        wanted = check_columns(names, self.info, self.path)
        if self._reading == "as_is":
            found = self._read(i, ("observation.state", "action"), start, stop)
            seen, action = found["observation.state"], found["action"].astype(np.float32)
            pose, closed = seen[:, :6], seen[:, 6:]
        else:
            found = self._read(i, (POSE, CLOSED, TOLD, GRIP), start, stop)
            pose, closed = found[POSE], found[CLOSED].reshape(-1, 1)
            action = action_of(found[TOLD], found[GRIP].reshape(-1, 1), pose, self._actions)
        made = {"state": state_of(pose, closed), "action": action}
        return {name: made[name] for name in wanted}

    def _read(self, i: int, names: Sequence[str], start: int, stop: int) -> dict[str, Array]:
        found = self._of.columns(i, names, start, stop)
        for name, values in found.items():
            wrong = ~np.isfinite(values.reshape(len(values), -1)).all(1)
            if wrong.any():
                raise HeedfulError(
                    f"{self.path}: episode {i}, frame {start + int(wrong.argmax())}: {name!r} is not finite"
                )
        return found

    def frames(self, i: int, camera: str, indices: Sequence[int]) -> NDArray[np.uint8]:
        """See `Episodes.frames`."""
        return self._of.frames(i, camera, indices)

    def language(self, i: int) -> list[LanguageRow]:
        """See `Episodes.language`."""
        return self._of.language(i)

    def film(self, i: int, camera: str) -> tuple[Path, float] | None:
        """See `Episodes.film`."""
        return self._of.film(i, camera)

    def problems(self) -> list[str]:
        """See `Episodes.problems`."""
        return self._of.problems()


def succeeded(episode: Episode) -> bool:
    """Whether an episode is one to learn from: its row does not say that it failed."""
    return outcome(episode) is not False


def instructions_of(episodes: Episodes, i: int) -> tuple[str, ...]:
    """The different instructions of an episode, the main one first. Raises HeedfulError where there is none."""
    episode = episodes.episode(i)
    said = [*episode.tasks, *(episode.meta.get(name) for name in SPOKEN)]
    found = tuple(dict.fromkeys(" ".join(text.split()) for text in said if isinstance(text, str)))
    found = tuple(text for text in found if text)
    if not found:
        raise HeedfulError(
            f"{episodes.path}: episode {i} has no instruction; give it one with `heedful demos convert --task TEXT`"
        )
    return found
