"""Environments and behaviours by what a command line says of them: gymnasium ids, modules, functions in files.

An environment is `ID`, `module:ID` (the module is imported first, as in gymnasium) or `path.py:function`, a function
that returns one. A behaviour is `random`, `module:function` or `path.py:function`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import numpy as np

from heedful.errors import HeedfulError
from heedful.policies.actions import ActionSpace
from heedful.python_files import function_of

Behaviour = Callable[[Any, np.random.Generator], Callable[[Any], Any]]
"""(environment, generator) at the start of an episode -> what maps each raw observation to an action."""


def gymnasium() -> Any:
    """The package. Raises HeedfulError with what to install where it is missing."""
    try:
        return import_module("gymnasium")
    except ImportError as error:
        raise HeedfulError("environments need gymnasium: pip install 'heedful[act]'") from error


def opener(spec: str, arguments: Sequence[str] = ()) -> Callable[[], Any]:
    """What makes the environment of `spec`, again and again; arguments: `name=value`, values as JSON or plain text.

    Raises HeedfulError for an id that nobody registered, a module or file that cannot be imported, and arguments that
    are no pairs. What it returns raises one when the environment cannot be made, or is none.
    """
    options = _options(arguments)
    path, colon, name = spec.rpartition(":")
    if colon and path.endswith(".py") and name:
        made = function_of(Path(path).expanduser(), name, "environment")

        def make() -> Any:
            return made(**options)

    else:
        package = gymnasium()
        if path:
            _module(path, f"environment {spec!r}")
        try:
            package.spec(name)
        except Exception as error:
            near = "" if path else "; where a package registers it, write package:ID"
            raise HeedfulError(f"there is no environment {name!r}: {error}{near}") from error

        def make() -> Any:
            return package.make(name, **options)

    def opened() -> Any:
        try:
            env = make()
        except Exception as error:
            raise HeedfulError(
                f"environment {spec!r} cannot be made: {type(error).__name__}: {error}"
            ) from error
        lacking = [
            part for part in ("reset", "step", "action_space", "observation_space") if not hasattr(env, part)
        ]
        if lacking:
            raise HeedfulError(f"environment {spec!r} has no {', '.join(lacking)}: is it one of gymnasium's?")
        return env

    return opened


def behaviour_of(spec: str, space: ActionSpace) -> Behaviour:
    """The behaviour of `spec`; `random` draws actions evenly between the bounds of `space`.

    Raises HeedfulError when it cannot be found.
    """
    if spec == "random":
        low, high = np.array(space.low), np.array(space.high)

        def random(env: Any, generator: np.random.Generator) -> Callable[[Any], Any]:
            return lambda observation: generator.uniform(low, high)

        return random
    path, colon, name = spec.rpartition(":")
    if not colon or not name:
        raise HeedfulError(f"the behaviour {spec!r} is not random, module:function or path.py:function")
    if path.endswith(".py"):
        return function_of(Path(path).expanduser(), name, "behaviour")
    found: Any = getattr(_module(path, f"behaviour {spec!r}"), name, None)
    if not callable(found):
        raise HeedfulError(f"the module {path} has no function {name!r}")
    return cast(Behaviour, found)


class Behaving:
    """An environment whose actions a behaviour chooses: `next_action()` after each reset and step.

    choose: from a reset's seed to the behaviour of that episode and its noise, the standard deviation added to each
    number of an action as a share of half its range; what leaves the bounds is clipped. Behaviour and noise have a
    generator that is a function of the seed.
    """

    def __init__(
        self, env: Any, choose: Callable[[int], tuple[Behaviour, float]], space: ActionSpace
    ) -> None:
        self.env, self.choose = env, choose
        self.low, self.high = np.array(space.low), np.array(space.high)
        self.observation_space, self.action_space = env.observation_space, env.action_space
        self.close = env.close

    def reset(self, *, seed: int) -> Any:
        """Reset the environment and the behaviour."""
        self.seen, info = self.env.reset(seed=seed)
        self.generator = np.random.default_rng(seed)
        behaviour, self.noise = self.choose(seed)
        self.act = behaviour(self.env, self.generator)
        return self.seen, info

    def step(self, action: Any) -> Any:
        """One step of the environment."""
        result = self.env.step(action)
        self.seen = result[0]
        return result

    def next_action(self) -> np.ndarray:
        """(A,) float32, inside the bounds. Raises HeedfulError when the behaviour gives no such action."""
        try:
            action = np.asarray(self.act(self.seen), dtype=np.float64)
        except Exception as error:
            raise HeedfulError(f"the behaviour raised {type(error).__name__}: {error}") from error
        if action.shape != self.low.shape or not np.isfinite(action).all():
            raise HeedfulError(
                f"the behaviour gave {action.tolist()}; {len(self.low)} finite numbers are expected"
            )
        noise = self.noise * (self.high - self.low) / 2 * self.generator.normal(size=action.shape)
        return np.clip(action + noise, self.low, self.high).astype(np.float32)


def _module(name: str, what: str) -> Any:
    try:
        return import_module(name)
    except Exception as error:
        raise HeedfulError(
            f"{what}: the module {name} cannot be imported: {type(error).__name__}: {error}"
        ) from error


def _options(arguments: Sequence[str]) -> dict[str, Any]:
    options = {}
    for text in arguments:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise HeedfulError(f"--env-args: {text!r} is not name=value")
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    return options
