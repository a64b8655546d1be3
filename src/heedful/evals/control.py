"""Rollouts in gymnasium environments: seeded, several side by side, with intervals; broken episodes are counted.

An environment that raises in the middle of an episode, or gives observations or rewards that are no finite numbers of
one shape, costs that episode alone: it is dropped and counted, and the run goes on, until too many have been. Every
reset has a seed that is a function of the run's and of the episode's number.

Letters: B environments side by side, S steps of an episode, H steps of an action chunk, A numbers of an action.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from heedful.data.replay import Episode
from heedful.errors import HeedfulError
from heedful.evals.intervals import Interval, bootstrap, share
from heedful.policies.actions import ActionSpace, Observations
from heedful.run import derive_seed

Act = Callable[[Observations], Tensor]
"""B observations to action chunks (B, H, A)."""
MAX_BROKEN = 0.2
"""Share of episodes that may break before a rollout stops."""
SUCCESS = ("success", "is_success", "task_success")
"""Where environments say in `info` that a task was solved: MetaWorld, gymnasium-robotics, others."""


@dataclass
class Rollouts:
    """Whole episodes in the order of their numbers, and what broke: "episode 3, step 17: ...", one text each."""

    episodes: list[Episode] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def returns(self) -> list[float]:
        """Undiscounted sum of rewards of each episode."""
        return [float(np.sum(e.reward, dtype=np.float64)) for e in self.episodes]

    def successes(self) -> list[float]:
        """1 or 0 for each episode; empty where the environment does not say."""
        said = [e.info.get("success") for e in self.episodes]
        return [] if any(s is None for s in said) else [float(s) for s in said]  # type: ignore[arg-type]

    def summary(self) -> dict[str, Any]:
        """Success rate and return with 95% intervals over episodes, their mean length, and how many broke."""
        if not self.episodes:
            raise HeedfulError("no episode was finished: there is nothing to sum up")
        out: dict[str, Any] = {
            "episodes": len(self.episodes),
            "broken": len(self.broken),
            "length": float(np.mean([e.steps for e in self.episodes])),
            "return": _plain(bootstrap(self.returns())),
        }
        if self.successes():
            out["success"] = _plain(share(self.successes()))
        return out


def roll_out(
    make: Callable[[], Any],
    act: Act,
    *,
    episodes: int,
    seed: int,
    name: str = "eval",
    first: int = 0,
    max_steps: int = 1000,
    parallel: int = 8,
    task: str = "",
) -> Rollouts:
    """Run `episodes` episodes, numbered from `first`, up to `parallel` side by side in environments that `make` gives.

    act: called with the observations of the environments that wait for an action; a chunk of H actions is carried out
    before it is asked again. Episode i begins with `reset(seed=...)`, a function of (seed, name, i). max_steps: an
    episode is cut there where the environment has no limit of its own. task: put into every observation.
    Raises HeedfulError when more than `MAX_BROKEN` of the episodes break, the first one always may, and for
    observations or actions the environment does not have.
    """
    if episodes < 1 or parallel < 1 or max_steps < 1:
        raise HeedfulError("episodes, parallel and max_steps must be at least 1")
    waiting = list(range(first, first + episodes))
    done: dict[int, Episode] = {}
    out = Rollouts()
    shapes: dict[str, tuple[int, ...]] = {}
    places = [_Place(make, shapes) for _ in range(min(parallel, episodes))]
    try:
        while waiting or any(place.running for place in places):
            for place in places:
                if not place.running and waiting:
                    number = waiting.pop(0)
                    place.begin(number, derive_seed(seed, name, number) % 2**31, task, out.broken)
            asking = [place for place in places if place.running and not place.queue]
            if asking:
                chunks = act(_batch([place.seen[-1] for place in asking], task))
                for place, chunk in zip(asking, chunks, strict=True):
                    place.queue = list(chunk.cpu().numpy())
            for place in places:
                if place.running:
                    place.step(max_steps, out.broken)
                    if place.finished is not None:
                        done[place.number] = place.finished
                        place.finished = None
            if len(out.broken) > max(1.0, MAX_BROKEN * episodes):
                shown = "\n  ".join(out.broken[:5])
                raise HeedfulError(
                    f"{len(out.broken)} of {episodes} episodes broke; the first ones:\n  {shown}"
                )
    finally:
        for place in places:
            place.close()
    out.episodes = [done[number] for number in sorted(done)]
    return out


class _Place:
    """One environment, the episode that runs in it, and the actions still to be carried out.

    shapes: of the first observation in any of the places, which all others have to have.
    """

    def __init__(self, make: Callable[[], Any], shapes: dict[str, tuple[int, ...]]) -> None:
        self.make, self.env, self.shapes = make, None, shapes
        self.running, self.number, self.queue = False, -1, []
        self.seen: list[dict[str, Any]] = []
        self.finished: Episode | None = None

    def begin(self, number: int, seed: int, task: str, broken: list[str]) -> None:
        """Reset for an episode; a reset that raises breaks it, and so does what is no observation."""
        self.number, self.queue = number, []
        self.actions: list[Any] = []
        self.rewards: list[float] = []
        self.terminals: list[bool] = []
        self.info: dict[str, Any] = {"seed": seed, **({"task": task} if task else {})}
        try:
            self.env = self.env or self.make()
            observation, _ = self.env.reset(seed=seed)
            self.seen = [self._checked(observation)]
        except Exception as error:
            self._break("reset", error, broken)
            return
        self.running = True

    def step(self, max_steps: int, broken: list[str]) -> None:
        """Carry out one action; the episode may end, be cut, or break."""
        action = self.queue.pop(0)
        try:
            observation, reward, ended, cut, info = self.env.step(action)  # type: ignore[union-attr]
            seen, worth, ended, cut = self._checked(observation), _worth(reward), bool(ended), bool(cut)
            said = next((info[key] for key in SUCCESS if key in info), None)
            said = None if said is None else float(np.asarray(said)) > 0.5
        except Exception as error:
            self._break(f"step {len(self.rewards)}", error, broken)
            return
        self.seen.append(seen)
        self.actions.append(action)
        self.rewards.append(worth)
        self.terminals.append(ended)
        if said is not None:
            self.info["success"] = self.info.get("success", False) or said
        if ended or cut or len(self.rewards) >= max_steps:
            self.running = False
            self.finished = Episode(
                {name: np.stack([seen[name] for seen in self.seen]) for name in self.seen[0]},
                np.stack(self.actions),
                np.array(self.rewards, dtype=np.float32),
                np.array(self.terminals),
                self.info,
            )

    def _checked(self, observation: Any) -> dict[str, Any]:
        seen = to_observation(observation)
        for name, values in seen.items():
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                number = int(np.argmin(np.isfinite(values)))
                raise ValueError(f"number {number} of the observation {name!r} is {values[number]}")
        shapes = {name: values.shape for name, values in seen.items()}
        if not self.shapes:
            self.shapes.update(shapes)
        if shapes != self.shapes:
            raise ValueError(f"the observation has the shapes {shapes}; the first one had {self.shapes}")
        return seen

    def _break(self, where: str, error: Exception, broken: list[str]) -> None:
        broken.append(f"episode {self.number}, {where}: {type(error).__name__}: {error}")
        self.running = False
        # What an environment that has raised holds is not to be trusted: the next episode gets a new one.
        self.close()

    def close(self) -> None:
        """Close the environment; one that cannot even do that has been counted already."""
        env, self.env = self.env, None
        if env is not None:
            try:
                env.close()
            except Exception:
                return


# ---- spaces


def to_observation(observation: Any) -> dict[str, Any]:
    """What an environment sees as named arrays: numbers flat in float32, images channels first in uint8.

    A plain array is called "state" (an image: "image"). Raises HeedfulError for what is neither.
    """
    parts = observation if isinstance(observation, Mapping) else None
    if parts is None:
        array = np.asarray(observation)
        parts = {"image" if _is_image(array) else "state": array}
    out = {}
    for name, value in parts.items():
        array = np.asarray(value)
        if _is_image(array):
            out[name] = array.transpose(2, 0, 1).copy() if array.shape[-1] in (1, 3, 4) else array
        elif array.dtype.kind in "fiub":
            out[name] = array.astype(np.float32).reshape(-1)
        else:
            raise HeedfulError(
                f"observation {name!r} is {array.dtype} of shape {array.shape}: no numbers, no image"
            )
    return out


def shapes_of(env: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of an environment's observations by name, as a `ReplayBuffer` and an `ObservationSpace` take them."""
    return {name: value.shape for name, value in to_observation(env.observation_space.sample()).items()}


def action_space_of(env: Any, horizon: int = 1) -> ActionSpace:
    """The bounds of an environment's actions. Raises HeedfulError for discrete or unbounded ones."""
    space = env.action_space
    low, high = getattr(space, "low", None), getattr(space, "high", None)
    if low is None or high is None or np.asarray(low).ndim != 1:
        raise HeedfulError(f"actions are {space}; a vector of bounded numbers (gymnasium's Box) is needed")
    return ActionSpace(tuple(map(float, low)), tuple(map(float, high)), horizon)


def _worth(reward: Any) -> float:
    value = np.asarray(reward)
    if value.dtype.kind not in "fiub" or value.size != 1 or not np.isfinite(value).all():
        raise ValueError(f"the reward is {reward}; one finite number is expected")
    return float(value.item())


def _is_image(array: Any) -> bool:
    return array.ndim == 3 and array.dtype == np.uint8


def _batch(seen: Sequence[dict[str, Any]], task: str) -> dict[str, Any]:
    batch: dict[str, Any] = {name: torch.from_numpy(np.stack([s[name] for s in seen])) for name in seen[0]}
    return {**batch, "task": [task] * len(seen)} if task else batch


def _plain(interval: Interval) -> dict[str, Any]:
    return {"estimate": interval.estimate, "interval": interval.bounds()}
