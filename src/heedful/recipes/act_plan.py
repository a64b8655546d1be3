"""Before and after a run of `heedful act`: what does not go together, what it will cost, what came out."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heedful.errors import HeedfulError
from heedful.recipes.act_methods import METHODS, critic_of, has_critic
from heedful.recipes.plan import hours

if TYPE_CHECKING:
    from heedful.recipes.act import Config

AT_LEAST_ONE = (
    *(
        "horizon",
        "width",
        "blocks",
        "denoising_steps",
        "rounds",
        "epoch_episodes",
        "warmup_episodes",
        "samples",
    ),
    *(
        "keep_best",
        "td_samples",
        "td_keep",
        "members",
        "critic_width",
        "critic_depth",
        "random_actions",
        "batch_size",
    ),
    *("parallel", "keep"),
)
NOT_NEGATIVE = (
    *(
        "max_steps",
        "lora_rank",
        "image_shift",
        "clone_steps",
        "critic_steps",
        "distill_steps",
        "online_episodes",
    ),
    *(
        "critic_utd",
        "policy_utd",
        "climb_steps",
        "step_size",
        "td_climb_steps",
        "target_members",
        "conservatism",
    ),
    *(
        "q_weight",
        "learning_rate",
        "distill_rate",
        "critic_rate",
        "warmup",
        "clip_norm",
        "save_every",
        "log_every",
    ),
    *("eval_episodes", "eval_every", "video", "ema", "dropout"),
)
ABOVE_ZERO = ("awr_temperature", "awr_clip", "reward_scale")
SEARCHING = ("parl", "rerank", "idql")
OPTION_OF = {
    "rounds": (1, ("parl", "awr")),
    "target_choice": ("argmax", ("parl",)),
    "acting": ("argmax", SEARCHING),
    "critic": ("calql", ("parl", "awr", "rerank")),
    "awr_temperature": (1.0, ("awr",)),
    "awr_clip": (100.0, ("awr",)),
    "q_weight": (1.0, ("dql",)),
    "entropy": (0.0, ("calql", "rlpd")),
}
"""Options that have no meaning with other methods."""


def settle(cfg: Config) -> Config:
    """Fill in what other options decide and refuse what does not go together.

    Raises HeedfulError with the reason for every pair of options that has no meaning.
    """
    if cfg.method not in METHODS:
        raise HeedfulError(f"there is no method {cfg.method!r}; choose {', '.join(METHODS)}")
    can = METHODS[cfg.method].policies
    if cfg.policy == "diffusion" and can == ("gaussian",):
        cfg = replace(cfg, policy="gaussian")
    wrong = problems(cfg)
    if wrong:
        raise HeedfulError("; ".join(wrong))
    if cfg.video:
        from heedful.evals.environments import opener
        from heedful.evals.video import check_renders, codec

        codec()
        check_renders(opener(cfg.env, cfg.env_args))
    return cfg


def problems(cfg: Config) -> list[str]:
    """Why these options cannot run, each a sentence; empty when they can."""
    from heedful.recipes.act import preset

    method, given = METHODS[cfg.method], preset(cfg.preset)
    wrong = []
    if cfg.policy not in method.policies:
        wrong.append(f"{cfg.method} is for {' and '.join(method.policies)} policies, not for {cfg.policy}")
    wrong += _where_from(cfg)
    wrong += [
        f"--{name.replace('_', '-')} has no meaning with {cfg.method} (only {', '.join(methods)})"
        for name, (default, methods) in OPTION_OF.items()
        if cfg.method not in methods and getattr(cfg, name) not in (default, getattr(given, name))
    ]
    wrong += [f"--{n.replace('_', '-')} must be at least 1" for n in AT_LEAST_ONE if getattr(cfg, n) < 1]
    wrong += [
        f"--{n.replace('_', '-')} must be a number of 0 or more"
        for n in NOT_NEGATIVE
        if not 0 <= getattr(cfg, n) < math.inf
    ]
    wrong += [
        f"--{n.replace('_', '-')} must be a number above 0"
        for n in ABOVE_ZERO
        if not 0 < getattr(cfg, n) < math.inf
    ]
    for name, samples in (("keep_best", "samples"), ("td_keep", "td_samples"), ("td_samples", "samples")):
        if getattr(cfg, name) > getattr(cfg, samples):
            wrong.append(f"--{name.replace('_', '-')} can be at most --{samples.replace('_', '-')}")
    if not 0 <= cfg.mixing <= 1:
        wrong.append("--mixing is a share, from 0 to 1")
    if not 0 <= cfg.gamma < 1:
        wrong.append("--gamma must be 0 or more and below 1")
    if not 0 < cfg.target_rate <= 1:
        wrong.append("--target-rate must be above 0 and at most 1")
    if not 0 < cfg.expectile < 1:
        wrong.append("--expectile must be between 0 and 1")
    if cfg.ema > 1 or not cfg.dropout < 1:
        wrong.append("--ema can be at most 1, and --dropout must be below 1")
    if cfg.bins < 3:
        wrong.append("--bins must be at least 3")
    if cfg.q_target == "hl_gauss" and not cfg.q_min < cfg.q_max:
        wrong.append("--q-min must be below --q-max")
    if not cfg.sparse and (cfg.success_reward, cfg.failure_reward) != (1.0, 0.0):
        wrong.append("--success-reward and --failure-reward need --sparse")
    return [*wrong, *_policy_problems(cfg)]


def _where_from(cfg: Config) -> list[str]:
    method, wrong = METHODS[cfg.method], []
    if not cfg.data and not cfg.env:
        return ["give --data (offline data), --env (an environment), or both"]
    if not cfg.data and (method.clones or method.offline) and not cfg.start:
        wrong.append(f"{cfg.method} begins with offline data: give --data")
    if not cfg.env:
        needs = [n for n in ("online_episodes", "video") if getattr(cfg, n)]
        needs += [n for n in ("env_args", "task") if getattr(cfg, n) and not (n == "task" and cfg.data)]
        wrong += [f"--{name.replace('_', '-')} needs an environment: give --env" for name in needs]
        if cfg.method == "rlpd":
            wrong.append("rlpd learns online: give --env")
    if cfg.online_episodes and not has_critic(cfg.method):
        wrong.append(f"{cfg.method} does not learn online: leave --online-episodes out")
    if cfg.method == "rlpd" and not cfg.online_episodes:
        wrong.append("rlpd learns online alone: give --online-episodes")
    if cfg.drop_faulty and not cfg.data:
        wrong.append("--drop-faulty is about --data")
    return wrong


def _policy_problems(cfg: Config) -> list[str]:
    wrong = []
    language = cfg.policy == "language"
    if language and not (cfg.model or cfg.start):
        wrong.append("--policy language needs --model")
    if language and not cfg.task:
        wrong.append("--policy language is told what to do: give --task")
    if language and not cfg.data:
        wrong.append("--policy language needs --data, whose range its bins cover")
    if cfg.model and not language:
        wrong.append("--model is for --policy language")
    if cfg.start and cfg.method == "rlpd":
        wrong.append("--start has no meaning with rlpd, which begins from nothing")
    if cfg.images == "frozen" and not cfg.vision:
        wrong.append("--images frozen needs --vision")
    if cfg.vision and cfg.images != "frozen":
        wrong.append("--vision needs --images frozen")
    if cfg.policy == "tokens" and cfg.width % 8 and cfg.width > 8:
        wrong.append("--policy tokens needs a --width that 8 divides")
    return wrong


def describe(cfg: Config) -> str:
    """The plan, the memory and the cost; nothing is trained, and the environment is opened only for its shapes."""
    numbers, actions, told = _sizes(cfg)
    method = METHODS[cfg.method]
    policy = _policy_weights(cfg, numbers, actions)
    critic = cfg.members * (
        (numbers + actions) * cfg.critic_width
        + (cfg.critic_depth - 1) * cfg.critic_width**2
        + cfg.critic_width
    )
    critic = critic if has_critic(cfg.method) else 0
    member = critic / max(1, cfg.members)
    passes = {"diffusion": cfg.denoising_steps, "flow": cfg.denoising_steps, "gaussian": 1}.get(
        cfg.policy, actions
    )
    searched = method.acts == "search" or method.climbs
    kind = critic_of(cfg.method, cfg.critic)
    # Multiplications by transition; a gradient costs twice what the value does.
    look = cfg.td_samples * critic + (3 * cfg.td_keep * cfg.td_climb_steps * critic if method.climbs else 0)
    both = 0 if kind in ("iql", "none") else (1 if kind == "td" else 2)
    wary = cfg.random_actions * cfg.target_members * member if kind in ("calql", "cql") else 0
    td = 3 * critic + 3 * wary + both * (look if searched else member)
    drawn = cfg.samples * passes * policy
    search = cfg.samples * critic + (3 * cfg.keep_best * cfg.climb_steps * critic if method.climbs else 0)
    steps = cfg.max_steps or 200
    online = cfg.online_episodes * steps
    offline = cfg.critic_steps if method.offline and has_critic(cfg.method) and cfg.data else 0
    distilled = cfg.distill_steps if method.policy_step in ("distill", "weighted") and offline else 0
    work = {
        "cloning": cfg.clone_steps * cfg.batch_size * 3 * policy if method.clones and cfg.data else 0,
        "critic offline": offline * cfg.batch_size * td,
        "candidates offline": (told["rows"] * drawn if searched and offline else 0),
        "distillation": distilled * cfg.batch_size * 3 * policy,
        "critic online": online * cfg.critic_utd * cfg.batch_size * (td + 2 * cfg.td_samples * passes * policy),
        "policy online": online * cfg.policy_utd * cfg.batch_size
        * (3 * policy + (drawn + search if method.policy_step == "distill" else critic)),
        "acting": (online + 5 * cfg.eval_episodes * steps) * (drawn + search if searched else passes * policy),
    }  # fmt: skip
    flops = 2 * sum(work.values())
    memory = 16 * (policy + critic) + 4 * told["rows"] * cfg.samples * actions * bool(searched and offline)
    disk = 4 * (told["rows"] + online) * (numbers + actions + 2)
    lines = [
        f"plan ({cfg.preset} preset)",
        f"  method       {cfg.method}: {method.about}",
        f"  policy       {cfg.policy}, {policy / 1e6:,.2f} M weights; critic {kind}, {cfg.members} members, "
        f"{critic / 1e6:,.2f} M weights",
        f"  data         {told['data']}",
        f"  environment  {cfg.env or 'none: nothing is measured'}; {numbers} numbers seen, {actions} in an action",
        f"  offline      {cfg.clone_steps if method.clones and cfg.data else 0:,} steps of cloning, {offline:,} of the "
        f"critic, {distilled:,} of the policy after it, {cfg.batch_size} transitions each",
        f"  online       {cfg.online_episodes:,} episodes (of {steps:,} steps)",
        f"  evaluation   {cfg.eval_episodes} episodes each time",
        "memory",
        f"  networks and candidates about {memory / 2**30:.2f} GiB, buffers on disk about {disk / 2**30:.2f} GiB",
        "cost",
        *(f"  {name:<19} {2 * value / 1e12:,.2f} TFLOP" for name, value in work.items() if value),
        f"  time         about {hours(flops / 2e10)} on one CPU core (20 GFLOP/s), {hours(flops / 1e13)} on a GPU "
        "(10 TFLOP/s), without the environment's own",
        "nothing was run (--dry-run)",
    ]
    return "\n".join(lines)


def _sizes(cfg: Config) -> tuple[int, int, dict[str, Any]]:
    """Numbers of an observation and of an action chunk, as the environment or the first file has them."""
    numbers = actions = rows = 0
    seen: dict[str, tuple[int, ...]] = {}
    said = "none"
    if cfg.env:
        from heedful.evals.control import shapes_of
        from heedful.evals.environments import opener

        env = opener(cfg.env, cfg.env_args)()
        seen = shapes_of(env)
        numbers = sum(s[0] if len(s) == 1 else 128 for s in seen.values())
        actions = int((env.action_space.shape or (1,))[0])
        env.close()
    if cfg.data:
        from heedful.data.offline_files import read_episodes

        episodes = 0
        for path in cfg.data:
            for found in read_episodes(
                path,
                max_steps=cfg.max_steps,
                names=tuple(seen),
                unmarked_succeed=cfg.unmarked_succeed,
                faulty=(lambda said: None) if cfg.drop_faulty else None,
            ):
                episodes, rows = episodes + 1, rows + found.episode.steps
                if not actions:
                    shapes = [v.shape[1:] for v in found.episode.observations.values()]
                    numbers = sum(s[0] if len(s) == 1 else 128 for s in shapes)
                    actions = found.episode.action.shape[-1]
        said = f"{episodes:,} episodes, {rows:,} steps"
    return numbers, actions * cfg.horizon, {"rows": rows, "data": said}


def _policy_weights(cfg: Config, numbers: int, actions: int) -> float:
    width = cfg.width
    if cfg.policy == "language":
        from heedful.model_sizes import size_of
        from heedful.recipes.act_agent import policy_folder

        return float(size_of(policy_folder(cfg.start) if cfg.start else cfg.model).parameters)
    if cfg.policy == "gaussian":
        return numbers * width + (cfg.blocks - 1) * width**2 + 2 * width * actions
    if cfg.policy == "tokens":
        return numbers * width + cfg.blocks * 12 * width**2 + actions * cfg.bins * width
    return (numbers + 2 * actions + 128) * width + cfg.blocks * 8 * width**2 + 128 * 512


def closing(folder: Path) -> str:
    """What a finished run says in the terminal: the summary of its report, and where things are."""
    from heedful.recipes.plan import closing as told

    return told(folder, {})
