"""What is trained for PA-RL, on which tasks and how much of it: one `Setup` a task, by tier of the reproduction.

clone    the data imitated
parl     PA-RL from that clone: ranking, climbing, distilling
global   the same without climbing (of whose critic's first choice is also "ranking alone")
local    the same without ranking: one sample, and the data's action, are climbed from
awr      weighted cloning, by a critic of the same kind with settings of its own
idql     the best of the clone's samples by IQL's critic (diffusion and flow)
online-* the same methods, and Cal-QL of a Gaussian policy, in the environment afterwards
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from heedful.papers.results import Tier

Knobs = Mapping[str, Any]

CLASSES = ("diffusion", "flow", "gaussian", "tokens")
NOISE = ("diffusion", "flow")
OFFLINE = ("clone", "parl", "global", "local", "awr", "idql")
ONLINE = ("online-parl", "online-calql", "online-idql")
NAMES = {
    "clone": "clone",
    "parl": "PA-RL",
    "global": "PA-RL, ranking alone",
    "local": "PA-RL, climbing alone",
    "awr": "weighted cloning",
    "idql": "IDQL",
    "online-parl": "PA-RL, online",
    "online-calql": "Cal-QL (Gaussian), online",
    "online-idql": "IDQL (frozen), online",
}
METHOD = {
    "global": "parl",
    "local": "parl",
    "online-parl": "parl",
    "online-calql": "calql",
    "online-idql": "idql",
}
"""The method of `heedful act` where it has another name than the arm; also whose settings the arm takes."""
ABLATED: dict[str, Knobs] = {
    "global": {"climb_steps": 0, "td_climb_steps": 0},
    "local": {"samples": 1, "keep_best": 1, "td_samples": 1, "td_keep": 1},
}
TUNED = ("parl", "awr", "idql", "calql")
TUNING_SEED = 1000
"""Settings are chosen with it; reported seeds are 0, 1, ..."""
DATA_SEED = 500
"""Of the data and, by `act_freeze.VALIDATION`, of what they were frozen by."""

SETTINGS: dict[str, dict[str, tuple[Knobs, ...]]] = {
    "maze-tuning": {
        "parl": (
            {"conservatism": 1.0, "step_size": 0.03},
            {"conservatism": 1.0, "step_size": 0.1},
            {"conservatism": 0.1, "step_size": 0.03},
        ),
        "awr": (
            {"conservatism": 1.0, "awr_temperature": 1.0},
            {"conservatism": 1.0, "awr_temperature": 0.3},
            {"conservatism": 0.1, "awr_temperature": 1.0},
        ),
        "idql": ({"expectile": 0.7}, {"expectile": 0.8}, {"expectile": 0.9}),
        "calql": ({"conservatism": 1.0}, {"conservatism": 0.1}, {"conservatism": 5.0}),
    },
    "bandit-tuning": {
        "parl": (
            {"conservatism": 0.1, "step_size": 0.03},
            {"conservatism": 0.01, "step_size": 0.03},
            {"conservatism": 0.01, "step_size": 0.1},
        ),
        "awr": (
            {"conservatism": 0.1, "awr_temperature": 0.1},
            {"conservatism": 0.01, "awr_temperature": 0.1},
            {"conservatism": 0.01, "awr_temperature": 0.03},
        ),
        "idql": ({"expectile": 0.7}, {"expectile": 0.8}, {"expectile": 0.9}),
    },
}
"""Three settings of each method, by the task on which they are tried."""


@dataclass(frozen=True)
class Setup:
    """A task. collect: options of `heedful act collect`; act: those of `heedful act`, of all arms alike. near: whether
    its data have near-optimal actions. tuning: the setup on which its settings are chosen; of those setups themselves
    "", and they have no other arms. seeds: the first so many; 0: all."""

    about: str
    env: str
    collect: Knobs
    act: Knobs
    policies: tuple[str, ...] = CLASSES
    arms: tuple[str, ...] = OFFLINE
    near: bool = True
    env_args: tuple[str, ...] = ()
    tuning: str = ""
    seeds: int = 0
    knobs: Knobs = field(default_factory=dict)
    """Settings that are not chosen but given, by method: of the smoke tier."""


MAZE = "heedful.data.worlds.maze"
PLAY: Knobs = {
    "env_args": ("start=anywhere",),
    "eval_args": ("start=cell",),
    "behaviour": (f"{MAZE}:play",),
    "noise": (0.3,),
    "scales": (1.0, 2.0, 0.5),
    "freeze": (0.3, 0.5),
    "episodes": 200,
    "clone_steps": 1500,
}
NETS: Knobs = {"width": 64, "members": 2, "critic_depth": 2, "batch_size": 64, "bins": 64}
SEARCH: Knobs = {"samples": 8, "keep_best": 2, "climb_steps": 3, "td_samples": 4, "td_climb_steps": 1}
STEPS: Knobs = {"clone_steps": 1500, "critic_steps": 1500, "distill_steps": 1500, "eval_episodes": 50}
FASTER: Knobs = {"target_rate": 0.05}
"""Ten times the usual rate of target networks: at 0.005 what 1500 steps pass on reaches some seven decisions back, and
the critic's values stay near where they began (seen on the small maze)."""
SPARSE: Knobs = {**NETS, **SEARCH, **STEPS, **FASTER, "sparse": True, "reward_bias": -1.0, "gamma": 0.98}
ONE_STEP: Knobs = {
    **NETS,
    **SEARCH,
    "climb_steps": 5,
    "clone_steps": 600,
    "critic_steps": 600,
    "distill_steps": 600,
    "eval_episodes": 50,
    "gamma": 0.0,
}
PEAKS = "heedful.data.peaks"
BANDIT = Setup(
    "a bandit of four peaks, data about all four",
    f"{PEAKS}:Peaks-v0",
    {"behaviour": (f"{PEAKS}:around",), "noise": (0.12,), "episodes": 1000},
    ONE_STEP,
    tuning="bandit-tuning",
)
UMAZE = Setup(
    "PointMaze UMaze, play",
    f"{MAZE}:PlayMaze-UMaze-v0",
    {**PLAY, "max_steps": 45},
    {**SPARSE, "max_steps": 45},
    tuning="maze-tuning",
)
DRAWER = Setup(
    "MetaWorld drawer-open, scripted with noise and random phases",
    "heedful.data.worlds.sawyer:Sawyer-v0",
    {
        "behaviour": tuple(f"heedful.data.worlds.sawyer:{name}" for name in ("scripted", "phases")),
        "env_args": ("task=drawer-open-v3", "repeat=2"),
        "noise": (0.2, 0.6),
        "episodes": 150,
        "max_steps": 100,
        "scales": (2.0, 1.7, 2.5),
        "freeze": (0.3, 0.5),
        "clone_steps": 1500,
    },
    {**SPARSE, "max_steps": 100},
    env_args=("task=drawer-open-v3", "repeat=2"),
    policies=("diffusion",),
    tuning="maze-tuning",
)
POINT = "heedful.data.point_reach"
BRIEF: Knobs = {
    "clone_steps": 80,
    "critic_steps": 60,
    "distill_steps": 60,
    "eval_episodes": 10,
    "batch_size": 32,
    "width": 16,
    "critic_width": 16,
}

SIZES: dict[Tier, dict[str, Setup]] = {
    # Too little to learn from; shows that every arm runs.
    "smoke": {
        "bandit": replace(
            BANDIT,
            collect={**BANDIT.collect, "episodes": 100},
            act={**ONE_STEP, **BRIEF},
            policies=("diffusion", "gaussian"),
            tuning="",
            knobs={name: some[0] for name, some in SETTINGS["bandit-tuning"].items()},
        ),
        "point": Setup(
            "a point that goes to four corners",
            f"{POINT}:PointReach-v0",
            {"behaviour": (f"{POINT}:corners",), "noise": (0.0, 0.3), "episodes": 40},
            {**SPARSE, **BRIEF, "max_steps": 10, "gamma": 0.9, "online_episodes": 4, "eval_every": 2},
            policies=("diffusion",),
            arms=("clone", "parl", "idql", *ONLINE),
            knobs={name: some[0] for name, some in SETTINGS["maze-tuning"].items()},
        ),
    },
    "main": {
        "bandit-tuning": replace(BANDIT, about="the bandit, turned", env_args=("turned=true",), tuning=""),
        "maze-tuning": Setup(
            "a small maze of our own, play",
            f"{MAZE}:PlayMaze-Tuning-v0",
            {**PLAY, "max_steps": 60, "freeze": ()},
            {**SPARSE, "max_steps": 60},
        ),
        "bandit": BANDIT,
        "bandit-beside": replace(
            BANDIT,
            about="the bandit, data beside all four peaks",
            collect={**BANDIT.collect, "behaviour": (f"{PEAKS}:beside",), "noise": (0.0,)},
            near=False,
        ),
        "umaze": UMAZE,
        "umaze-biased": replace(
            UMAZE,
            about="PointMaze UMaze, play with half the force and 50 degrees aside",
            collect={**UMAZE.collect, "behaviour": (f"{MAZE}:biased",), "max_steps": 60},
            act={**SPARSE, "max_steps": 60, "online_episodes": 60, "eval_every": 10},
            arms=(*OFFLINE, *ONLINE),
            near=False,
        ),
        "medium": replace(
            UMAZE,
            about="PointMaze Medium, play of which every third episode goes to the goal",
            env=f"{MAZE}:PlayMaze-Medium-v0",
            # A clone of play alone arrives in 8% of episodes, even in twice PointMaze's time: so every third episode
            # goes to the goal.
            env_args=("max_episode_steps=240",),
            collect={
                **PLAY,
                "env_args": ("start=anywhere", "max_episode_steps=240"),
                "eval_args": ("max_episode_steps=240",),
                "behaviour": (f"{MAZE}:play", f"{MAZE}:play", f"{MAZE}:solve"),
                "max_steps": 240,
                "episodes": 150,
            },
            act={**SPARSE, "max_steps": 240, "critic_steps": 2000},
            policies=("diffusion",),
        ),
        "drawer": DRAWER,
    },
}
