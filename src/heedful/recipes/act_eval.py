"""How well a policy of `heedful act` does: the same seeded episodes at every measurement, kept in the run folder."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from heedful.errors import HeedfulError
from heedful.evals.control import roll_out
from heedful.evals.intervals import Interval, bootstrap, share
from heedful.policies.actions import Observations
from heedful.recipes.act_agent import Agent, by_policy, by_search
from heedful.recipes.act_world import World
from heedful.run import Run

if TYPE_CHECKING:
    from heedful.recipes.act import Config

Act = Callable[[Observations], Tensor]


@dataclass(frozen=True)
class Measurement:
    """A measured policy: `episodes` have seed, return, length and success (null where nobody says)."""

    label: str
    how: str
    episodes: list[dict[str, Any]]
    broken: list[str]

    def column(self, name: str) -> dict[int, float]:
        """Numbers by the episode's seed, for pairing; empty where one is not known."""
        values = {e["seed"]: e[name] for e in self.episodes}
        return {} if any(v is None for v in values.values()) else {k: float(v) for k, v in values.items()}

    def interval(self, name: str) -> Interval | None:
        """Mean with its 95% interval over episodes; None where it is not known."""
        values = list(self.column(name).values())
        if not values:
            return None
        return share(values) if name == "success" else bootstrap(values)


class Measured:
    """All measurements of a run, in order; without an environment, none."""

    def __init__(self, cfg: Config, world: World, agent: Agent, run: Run) -> None:
        self.cfg, self.world, self.agent, self.run = cfg, world, agent, run
        self.taken: list[Measurement] = []

    def policy(self, label: str) -> None:
        """Measure the policy by itself, one sample for each observation."""
        self._measure(label, "policy", lambda g: by_policy(self.agent, g, temperature_of(self.cfg)))

    def search(self, label: str) -> None:
        """Measure what the critic chooses among its samples."""
        self._measure(label, "search", lambda g: by_search(self.cfg, self.agent, g))

    def as_it_acts(self, label: str) -> None:
        """Measure whichever of the two the method acts by."""
        if self.agent.method.acts == "search":
            self.search(label)
        else:
            self.policy(label)

    def last(self, how: str) -> Measurement | None:
        """The last one of the policy, or of the search."""
        return next((m for m in reversed(self.taken) if m.how == how), None)

    def _measure(self, label: str, how: str, acting: Callable[[Any], Act]) -> None:
        world, cfg, run = self.world, self.cfg, self.run
        if world.make is None or not cfg.eval_episodes:
            return
        make, number = world.make, len(self.taken)

        def measure() -> dict[str, Any]:
            found = roll_out(
                make,
                acting(run.generator("eval", number)),
                episodes=cfg.eval_episodes,
                seed=run.seed,
                max_steps=world.max_steps,
                parallel=cfg.parallel,
                task=world.task,
            )
            episodes = [
                {
                    "seed": e.info["seed"],
                    "return": value,
                    "length": e.steps,
                    "success": world.solved(e.reward, e.info.get("success")),
                }
                for e, value in zip(found.episodes, found.returns(), strict=True)
            ]
            if not episodes:
                raise HeedfulError(
                    f"measuring {label!r}: no episode was finished: {'; '.join(found.broken[:3])}"
                )
            return {"label": label, "how": how, "episodes": episodes, "broken": found.broken}

        told = run.once(f"eval/{number:03d}.json", measure)
        taken = Measurement(**told)
        self.taken.append(taken)
        if not cfg.quiet:
            values = {n: i.estimate for n in ("success", "return", "length") if (i := taken.interval(n))}
            said = ", ".join(f"{name} {value:.3g}" for name, value in values.items())
            print(f"measured {label} ({how}): {said} over {len(taken.episodes)} episodes", file=sys.stderr)


def temperature_of(cfg: Config) -> float:
    """At which policies are evaluated: what is asked for, else 1, and the mean of actor-critics."""
    if cfg.temperature >= 0:
        return cfg.temperature
    return 0.0 if cfg.policy == "gaussian" and cfg.method in ("calql", "rlpd") else 1.0


def film(cfg: Config, world: World, agent: Agent, run: Run) -> list[str]:
    """Film the first evaluation episodes as the method acts at the end; the files' names.

    What goes wrong becomes a warning of the report: all that was learned is still to be saved.
    """
    if not cfg.video or world.make is None:
        return []
    from heedful.evals.video import record

    def names() -> list[str]:
        generator = run.generator("video")
        act = (
            by_search(cfg, agent, generator)
            if agent.method.acts == "search"
            else by_policy(agent, generator, temperature_of(cfg))
        )
        assert world.make is not None
        made = record(
            world.make,
            act,
            run.path("video"),
            episodes=cfg.video,
            seed=run.seed,
            max_steps=world.max_steps,
            task=world.task,
        )
        return [path.name for path in made]

    try:
        return run.once(f"video-{cfg.video}.json", names)
    except Exception as error:
        said = " ".join(str(error).split())
        world.warnings.append(f"Filming failed ({type(error).__name__}): {said}.")
        return []
