"""How the arms of PA-RL are run: data once a setup, settings chosen once a tuning setup, then a run folder an arm.

An arm is one run of `heedful act` beside a JSON of what was measured. All arms of a seed and a class of policy begin
with the same clone (but Cal-QL's Gaussian, which is squashed and clones for itself) and meet the same episodes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import Any

from heedful.errors import NotFinite
from heedful.papers.onpolicy_arms import attempt
from heedful.papers.parl_sizes import (
    ABLATED,
    DATA_SEED,
    METHOD,
    NOISE,
    ONLINE,
    SETTINGS,
    SIZES,
    TUNED,
    TUNING_SEED,
    Knobs,
    Setup,
)
from heedful.papers.results import Tier
from heedful.papers.seeds import Done, Result
from heedful.recipes import act, act_collect, act_plan
from heedful.run import Run, open_run

GOAL = 0.8
"""Success that an online arm is to reach."""


def arms_of(setup: Setup) -> list[tuple[str, str]]:
    """(class, arm) of all runs of a seed, clones before what begins with them."""
    told = []
    for kind in setup.policies:
        for arm in setup.arms:
            fits = arm not in ("idql", "online-idql") or kind in NOISE
            if fits and (arm not in ONLINE or kind == "diffusion"):
                told.append(("gaussian" if arm == "online-calql" else kind, arm))
    return told


def run_arms(tier: Tier, name: str, seed: int, run: Run, until: float | None = None) -> Done:
    """The arms of a seed by "class/arm", those that can be begun before `until` and those done earlier."""
    setup, done = SIZES[tier][name], {}
    if data_of(tier, name, run, until) is None:
        return done
    for kind, arm in arms_of(setup):
        chosen = chosen_for(tier, setup, METHOD.get(arm, arm), run, until)
        if chosen is None:
            continue
        clone = done.get((name, f"{kind}/clone", seed))
        if arm not in ("clone", "online-calql") and (clone is None or "failed" in clone):
            if clone is not None:
                done[name, f"{kind}/{arm}", seed] = {"failed": f"the clone: {clone['failed']}"}
            continue
        folder = f"{name}/seed{seed}/{kind}-{arm}"
        made = partial(trained, setup, name, kind, arm, chosen, seed, folder, run)
        result = attempt(f"{folder}.json", made, run, until)
        if result is not None:
            done[name, f"{kind}/{arm}", seed] = result
    return done


# ---- data and settings


def data_of(tier: Tier, name: str, run: Run, until: float | None = None) -> Result | None:
    """result.json of the data's collection, with what they were frozen by; None when it is late."""
    setup = SIZES[tier][name]

    def make() -> Result:
        cfg = act_collect.Config(
            **{"env_args": setup.env_args, **setup.collect},
            env=setup.env,
            out=str(run.path(f"{name}/data")),
            seed=DATA_SEED,
            quiet=True,
        )
        with open_run(cfg.out, cfg, seed=cfg.seed, command="reproduce", volatile=act_collect.VOLATILE) as own:
            return act_collect.run(cfg, own)

    return attempt(f"{name}/data.json", make, run, until)


def chosen_for(tier: Tier, setup: Setup, method: str, run: Run, until: float | None = None) -> Knobs | None:
    """The setting with the highest score on the tuning task, of equals the first; None when one could not be tried."""
    if method not in TUNED:
        return {}
    if not setup.tuning:
        return setup.knobs.get(method, {})
    scores = [score for _, score in tried(tier, setup.tuning, method, run, until)]
    known = [score for score in scores if score is not None]
    if len(known) < len(scores):
        return None
    return SETTINGS[setup.tuning][method][known.index(max(known))]


def tried(
    tier: Tier, tuning: str, method: str, run: Run, until: float | None = None
) -> list[tuple[Knobs, float | None]]:
    """Each setting of a method with its score on the tuning task; None where it could not be tried any more."""
    setup, kind = SIZES[tier][tuning], "gaussian" if method == "calql" else "diffusion"
    told: list[tuple[Knobs, float | None]] = []
    data = data_of(tier, tuning, run, until)
    place = f"{tuning}/seed{TUNING_SEED}"

    def one(arm: str, knobs: Knobs, folder: str) -> Result | None:
        made = partial(trained, setup, tuning, kind, arm, knobs, TUNING_SEED, folder, run)
        return attempt(f"{folder}.json", made, run, until)

    clone = one("clone", {}, f"{place}/{kind}-clone") if data is not None and method != "calql" else {}
    for number, knobs in enumerate(SETTINGS[tuning].get(method, ())):
        result = None
        if data is not None and clone is not None:
            result = clone if "failed" in clone else one(method, knobs, f"{place}/{method}-{number}")
        told.append((knobs, None if result is None else score(result)))
    return told


def score(result: Result) -> float:
    """What a setting is chosen by: the mean success of what the run ends with (of PA-RL, the policy alone and the
    critic's choice among its samples); -1 of a run that went to pieces."""
    if "failed" in result:
        return -1.0
    last = {one["how"]: one for one in result["measured"] if one["label"] != "at the start"}
    return fmean(success(one) for one in last.values())


# ---- one arm


def trained(
    setup: Setup, name: str, kind: str, arm: str, knobs: Knobs, seed: int, folder: str, run: Run
) -> Result:
    """Run an arm as `heedful act` does; {"failed": why} where numbers were not finite.

    measured: in order, {label, how ("policy" or "search"), success (0 or 1 an episode)}; gap: Q less the return that
    was reached; online: {episodes, success} of each epoch.
    """
    cfg = config_of(setup, name, kind, arm, knobs, seed, folder, run)
    try:
        with open_run(cfg.out, cfg, seed=seed, command="reproduce", volatile=act.VOLATILE) as own:
            told = act.run(cfg, own)
            return read(own, told)
    except NotFinite as error:
        return {"failed": str(error)}


def config_of(
    setup: Setup, name: str, kind: str, arm: str, knobs: Knobs, seed: int, folder: str, run: Run
) -> act.Config:
    """The options of an arm. Online ones alone have online episodes; all but a clone and Cal-QL begin with a clone."""
    options: dict[str, Any] = {**setup.act, **ABLATED.get(arm, {}), **knobs}
    online = {key: options.pop(key, 0) for key in ("online_episodes", "eval_every")}
    if arm in ONLINE:
        options |= online
    method = METHOD.get(arm, arm)
    if method not in ("clone", "calql"):
        options |= {"start": str(run.path(f"{name}/seed{seed}/{kind}-clone")), "clone_steps": 0}
    return act_plan.settle(
        act.Config(
            **options,
            out=str(run.path(folder)),
            data=(str(run.path(f"{name}/data")),),
            env=setup.env,
            env_args=setup.env_args,
            method=method,  # type: ignore[arg-type]
            policy=kind,  # type: ignore[arg-type]
            seed=seed,
            save_every=0,
            quiet=True,
        )
    )


def read(own: Run, told: Mapping[str, Any]) -> Result:
    """What a finished run of `heedful act` measured."""
    measured = []
    for path in sorted(own.path("eval").glob("*.json")):
        one = json.loads(path.read_bytes())
        flags = [int(episode["success"]) for episode in one["episodes"]]
        measured.append({"label": one["label"], "how": one["how"], "success": flags})
    epochs = [json.loads(p.read_bytes()) for p in sorted(own.path("online").glob("*/collected.json"))]
    return {
        "measured": measured,
        "gap": told.get("q_minus_return"),
        "online": {"episodes": told["online_episodes"], "success": [one["success"] for one in epochs]},
    }


# ---- numbers of one result


def success(measurement: Mapping[str, Any]) -> float:
    """The share of episodes that succeeded."""
    return fmean(measurement["success"])


def at(result: Result, label: str, how: str = "") -> float:
    """Success at a measurement, by its label and, where two share it, how it acted."""
    return next(
        success(one) for one in result["measured"] if one["label"] == label and (not how or one["how"] == how)
    )


def raw(result: Result) -> float:
    """Success of the policy alone at the end of the offline phase, or of the clone."""
    labels = [one["label"] for one in result["measured"] if one["how"] == "policy"]
    offline = [label for label in labels if label in ("cloned", "at the start", "offline")]
    return at(result, offline[-1], "policy")


def marks(result: Result) -> list[tuple[int, float]]:
    """(episodes collected online, success as the arm acts) of an online arm, 0 being the end of the offline phase."""
    acts = result["measured"][-1]["how"]
    told: list[tuple[int, float]] = []
    for one in result["measured"]:
        after = re.fullmatch(r"after (\d+) episodes", one["label"])
        if one["how"] != acts:
            continue
        if after:
            told.append((int(after[1]), success(one)))
        elif one["label"] == "online":
            told.append((result["online"]["episodes"], success(one)))
        else:
            told = [(0, success(one))]
    return told


def episodes_to_goal(result: Result, goal: float = GOAL) -> int:
    """The first mark with such a success; one mark beyond the last where it is never reached."""
    seen: Sequence[tuple[int, float]] = marks(result)
    step = seen[-1][0] - seen[-2][0] if len(seen) > 1 else 1
    return next((episodes for episodes, value in seen if value >= goal), seen[-1][0] + step)
