"""Freezing a data set of `heedful act collect`: how much noise, decided before any reinforcement learning.

Data that cloning already solves, or from which it learns nothing, separate no methods. So data are collected with
--noise times each of --scales in turn; each time a policy is cloned from them and measured in episodes that no other
run resets to. The first scale whose clone succeeds as often as --freeze says is taken; where none does, the nearest.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from heedful.atomic import write_file
from heedful.errors import HeedfulError

if TYPE_CHECKING:
    from heedful.recipes.act_collect import Config
    from heedful.run import Run

VALIDATION = 1_000_003
"""Added to the seed of the clone and of the episodes that it is measured in."""


def problems(cfg: Config) -> list[str]:
    """What is wrong with the options of freezing; each a sentence."""
    if not cfg.freeze:
        return []
    wrong = []
    if (
        len(cfg.freeze) != 2
        or not 0 <= min(cfg.freeze) < max(cfg.freeze) <= 1
        or cfg.freeze[0] > cfg.freeze[1]
    ):
        wrong.append("--freeze is the least and the most success of the clone, as 0.3 0.5")
    if not cfg.scales or any(not 0 <= s < float("inf") for s in cfg.scales):
        wrong.append("--scales are numbers of 0 or more")
    if not any(cfg.noise):
        wrong.append("--freeze scales the --noise, which is 0")
    if cfg.clone_steps < 1 or cfg.clone_episodes < 1:
        wrong.append("--clone-steps and --clone-episodes must be at least 1")
    return wrong


def frozen(cfg: Config, run: Run) -> dict[str, Any]:
    """What was tried and taken: {"tried": [{"scale", "noise", "success"}, ...], "scale", "noise", "success", "inside"}.

    The data that the taken clone learned from lie in freeze/SCALE/data of the run. Raises HeedfulError where the
    environment does not say what success is.
    """
    low, high = cfg.freeze
    tried: list[dict[str, Any]] = []
    for scale in cfg.scales:
        name = f"freeze/{scale:g}"
        success = run.once(f"{name}.json", lambda scale=scale, name=name: _clone(cfg, scale, name, run))
        noise = [scale * n for n in cfg.noise]
        tried.append({"scale": scale, "noise": noise, "success": success["success"]})
        if low <= success["success"] <= high:
            break
    taken = nearest(tried, low, high)
    return {"tried": tried, **taken, "inside": low <= taken["success"] <= high}


def nearest(tried: Sequence[dict[str, Any]], low: float, high: float) -> dict[str, Any]:
    """The trial whose success is nearest to the range, of equals the first."""
    return min(tried, key=lambda one: max(low - one["success"], one["success"] - high, 0.0))


def table(cfg: Config, found: dict[str, Any]) -> dict[str, Any]:
    """What each scale gave, for the report."""
    rows = [
        [
            f"{one['scale']:g}",
            " ".join(f"{n:g}" for n in one["noise"]),
            f"{one['success']:.1%}",
            "taken" if one["scale"] == found["scale"] else "",
        ]
        for one in found["tried"]
    ]
    return {
        "title": f"Noise, chosen so that a clone succeeds {cfg.freeze[0]:.0%} to {cfg.freeze[1]:.0%} of the time",
        "columns": ["scale", "noise", "the clone's success", ""],
        "rows": rows,
    }


def warnings(cfg: Config, found: dict[str, Any]) -> list[str]:
    """That no scale was right, where it is so."""
    if found["inside"]:
        return []
    return [
        f"No scale of the noise gave a clone between {cfg.freeze[0]:.0%} and {cfg.freeze[1]:.0%}; the nearest, "
        f"{found['success']:.1%}, was taken. Try other --scales, other behaviours, or fewer episodes."
    ]


def remember(found: dict[str, Any], run: Run) -> None:
    """Write what was tried and taken into the run's manifest, as "frozen"."""
    path = run.path("manifest.json")
    said = json.loads(path.read_bytes())
    if said.get("frozen") != found:
        text = json.dumps({**said, "frozen": found}, indent=1, ensure_ascii=False)
        write_file(path, (text + "\n").encode())


def _clone(cfg: Config, scale: float, name: str, run: Run) -> dict[str, Any]:
    from heedful.recipes import act, act_collect, act_plan
    from heedful.run import open_run

    noise = tuple(scale * n for n in cfg.noise)
    trial = replace(cfg, out=str(run.path(name)), noise=noise, freeze=(), scales=(1.0,), quiet=True)
    with open_run(trial.out, trial, seed=cfg.seed, volatile=act_collect.VOLATILE) as own:
        act_collect.run(trial, own)
    cloning = act_plan.settle(
        act.Config(
            out=str(run.path(f"{name}-clone")),
            data=(trial.out,),
            env=cfg.env,
            env_args=cfg.eval_args or cfg.env_args,
            task=cfg.task,
            method="clone",
            clone_steps=cfg.clone_steps,
            eval_episodes=cfg.clone_episodes,
            max_steps=cfg.max_steps,
            seed=cfg.seed + VALIDATION,
            quiet=True,
        )
    )
    with open_run(cloning.out, cloning, seed=cloning.seed, data=cloning.data, volatile=act.VOLATILE) as own:
        found = act.run(cloning, own)
    if "cloned_success" not in found:
        raise HeedfulError(
            f"--freeze: {cfg.env} does not say whether an episode succeeded (info['success']), so a clone cannot be "
            "judged"
        )
    return {"success": found["cloned_success"], "episodes": cfg.clone_episodes, "seed": cloning.seed}
