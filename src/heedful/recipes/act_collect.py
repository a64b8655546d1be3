"""`heedful act collect`: a seeded data set of a gymnasium environment, by behaviours with noise.

Episode i is by behaviour i mod their number; of each behaviour's episodes, every next one has the next noise. It is a
function of the seed and i alone, so more episodes only add to a data set. What is written is a replay buffer, which
`heedful act --data` reads.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heedful.errors import HeedfulError
from heedful.recipes import act_freeze

if TYPE_CHECKING:
    from heedful.run import Run

VOLATILE = ("json", "quiet")
PART = 20
"""Episodes that a kill may cost."""
NAME = "collect"
"""What the seeds of the episodes are derived from."""
BINS = 10
BAR = 40


@dataclass(frozen=True)
class Config:
    """Collect episodes of an environment with scripted behaviours and noise."""

    env: str = ""
    """The environment: a gymnasium id, `package:ID`, or `path.py:function` that returns one."""
    out: str = "runs/collected"
    """The run folder. The same command again resumes it."""
    env_args: tuple[str, ...] = ()
    """What it is made with, as `name=value`."""
    behaviour: tuple[str, ...] = ("random",)
    """Who acts, in turn: `random`, `path.py:function` or `module:function`. The function takes the environment and a
    numpy generator at the start of an episode and returns what maps an observation to an action."""
    noise: tuple[float, ...] = (0.0,)
    """Standard deviations added to actions, in turn, as shares of half their range."""
    task: str = ""
    """What the episodes are to do, in words."""
    episodes: int = 100
    """How many."""
    max_steps: int = 0
    """Cut episodes after so many steps; 0: where the environment does."""
    seed: int = 0
    """Of resets, behaviours and noise."""
    freeze: tuple[float, ...] = ()
    """Least and most success of a policy cloned from the data, as `0.3 0.5`: choose the noise by it, before any
    reinforcement learning. Not given: take --noise as it is."""
    scales: tuple[float, ...] = (1.0, 2.0, 0.5)
    """With --freeze: --noise times each of these is tried, in turn, until the clone succeeds so often."""
    eval_args: tuple[str, ...] = ()
    """With --freeze: what the environment that clones are measured in is made with. Not given: --env-args."""
    clone_steps: int = 3000
    """With --freeze: steps of cloning."""
    clone_episodes: int = 50
    """With --freeze: episodes in which a clone is measured, with seeds of their own."""
    json: bool = False
    """Print result.json on standard output."""
    quiet: bool = False
    """No progress display."""


def main(cfg: Config) -> int:
    """What `heedful act collect` does; the exit status."""
    import json

    from heedful.run import open_run

    wrong = problems(cfg)
    if wrong:
        raise HeedfulError("; ".join(wrong))
    files = [p for s in (cfg.env, *cfg.behaviour) if (p := s.rpartition(":")[0]).endswith(".py")]
    with open_run(cfg.out, cfg, seed=cfg.seed, data=files, volatile=VOLATILE) as opened:
        if opened.world > 1:
            raise HeedfulError("heedful act collect runs in one process")
        result = run(cfg, opened)
    if cfg.json:
        print(json.dumps(result, ensure_ascii=False))
    elif not cfg.quiet:
        report = json.loads((Path(cfg.out) / "report.json").read_text())
        histogram = shown(report["data"]["returns"])
        print("\n".join([*report["summary"], *histogram, *(f"warning: {w}" for w in report["warnings"]), ""]))
        print(f"report: {Path(cfg.out) / 'report.html'}\ndata:   {Path(cfg.out) / 'data'}")
    return 0


def problems(cfg: Config) -> list[str]:
    """What is wrong with the options; each a sentence."""
    wrong = []
    if not cfg.env:
        wrong.append("give --env, the environment to collect from")
    if not cfg.behaviour or not cfg.noise:
        wrong.append("--behaviour and --noise need at least one each")
    if cfg.episodes < 1 or cfg.max_steps < 0:
        wrong.append("--episodes must be at least 1, --max-steps 0 or more")
    if any(not 0 <= n < float("inf") for n in cfg.noise):
        wrong.append("--noise must be numbers of 0 or more")
    return [*wrong, *act_freeze.problems(cfg)]


def run(cfg: Config, run: Run) -> dict[str, Any]:
    """Collect in parts, write the report; returns result.json. A second call goes on where the first one stopped."""
    from heedful.data.replay import ReplayBuffer
    from heedful.evals.control import action_space_of, roll_out, shapes_of
    from heedful.evals.environments import Behaving, behaviour_of, opener
    from heedful.progress import Progress
    from heedful.recipes.act_world import NEVER
    from heedful.run import derive_seed

    chosen_noise = act_freeze.frozen(cfg, run) if cfg.freeze else None
    if chosen_noise:
        # The data that the clone learned from, collected once more: a function of the same seed and noise.
        cfg = replace(cfg, noise=tuple(chosen_noise["noise"]))
    make = opener(cfg.env, cfg.env_args)
    env = make()
    space, shapes = action_space_of(env), shapes_of(env)
    env.close()
    behaviours = [behaviour_of(spec, space) for spec in cfg.behaviour]
    buffer = ReplayBuffer(run.path("data"), shapes, len(space.low))
    parts: list[dict[str, Any]] = []

    def turn(number: int) -> tuple[int, float]:
        """Which behaviour an episode has, and how much noise."""
        return number % len(behaviours), cfg.noise[number // len(behaviours) % len(cfg.noise)]

    def collected(first: int, count: int, kept: int) -> dict[str, Any]:
        import torch

        buffer.truncate(kept)
        numbers = {derive_seed(run.seed, NAME, n) % 2**31: n for n in range(first, first + count)}
        held: list[Behaving] = []

        def chosen(seed: int) -> tuple[Any, float]:
            which, noise = turn(numbers[seed])
            return behaviours[which], noise

        def begin() -> Behaving:
            held.append(Behaving(make(), chosen, space))
            return held[-1]

        found = roll_out(
            begin,
            lambda observations: torch.from_numpy(held[-1].next_action())[None, None],
            episodes=count,
            seed=run.seed,
            name=NAME,
            first=first,
            max_steps=cfg.max_steps or NEVER,
            parallel=1,
            task=cfg.task,
        )
        for episode in found.episodes:
            which, noise = turn(numbers[episode.info["seed"]])
            episode.info |= {"behaviour": cfg.behaviour[which], "noise": noise}
        buffer.extend(found.episodes)
        return {"episodes": buffer.episodes, "broken": found.broken}

    with Progress("collect", cfg.episodes, unit="episodes", quiet=cfg.quiet) as bar:
        for first in range(0, cfg.episodes, PART):
            count = min(PART, cfg.episodes - first)
            kept = parts[-1]["episodes"] if parts else 0
            part = run.once(
                f"parts/{first // PART:04d}.json",
                lambda first=first, count=count, kept=kept: collected(first, count, kept),
            )
            parts.append(part)
            bar.show(first + count, f"{buffer.rows:,} states")
    if not buffer.episodes:
        raise HeedfulError("no episode was finished: there is no data")
    return _finish(cfg, buffer, [text for one in parts for text in one["broken"]], chosen_noise, run)


def _finish(
    cfg: Config, buffer: Any, broken: list[str], chosen_noise: dict[str, Any] | None, run: Run
) -> dict[str, Any]:
    import json

    import numpy as np

    from heedful.atomic import write_file
    from heedful.report import write_report

    ends = buffer.ends.tolist()
    reward = np.asarray(buffer.column("reward"), dtype=np.float64)
    returns = [float(reward[a : b - 1].sum()) for a, b in zip([0, *ends[:-1]], ends, strict=True)]
    infos = buffer.infos
    groups: dict[tuple[str, float], list[int]] = {}
    for i, info in enumerate(infos):
        groups.setdefault((info["behaviour"], info["noise"]), []).append(i)
    said = all("success" in info for info in infos)

    def rate(which: list[int]) -> float:
        return float(np.mean([bool(infos[i]["success"]) for i in which]))

    everyone = list(range(len(infos)))
    result: dict[str, Any] = {
        "job": "act collect",
        "episodes": len(infos),
        "steps": buffer.rows - len(infos),
        "broken": len(broken),
        "return_mean": round(float(np.mean(returns)), 6),
        "return_median": round(float(np.median(returns)), 6),
        "seed": cfg.seed,
    }
    if said:
        result["success"] = round(rate(everyone), 6)
    warnings = [f"{len(broken)} episodes broke and were dropped; the first: {broken[0]}."] if broken else []
    tables = []
    if chosen_noise:
        result |= {"clone_success": chosen_noise["success"], "noise": chosen_noise["noise"]}
        tables.append(act_freeze.table(cfg, chosen_noise))
        warnings += act_freeze.warnings(cfg, chosen_noise)
        act_freeze.remember(chosen_noise, run)
    rows = [
        [
            name,
            noise,
            len(which),
            f"{rate(which):.1%}" if said else "not said",
            f"{np.mean([returns[i] for i in which]):.4g}",
            f"{np.mean([infos[i]['rows'] - 1 for i in which]):.1f}",
        ]
        for (name, noise), which in groups.items()
    ]
    success = f", {result['success']:.1%} of them successful" if said else ""
    page = {
        "job": "act collect",
        "title": f"Data of {cfg.env}",
        "summary": [
            f"{len(infos)} episodes of {result['steps']:,} steps{success}; the mean return is "
            f"{result['return_mean']:.4g}."
        ],
        "warnings": warnings,
        "tables": [
            {
                "title": "By behaviour and noise",
                "columns": ["behaviour", "noise", "episodes", "success", "return", "steps"],
                "rows": rows,
            },
            *tables,
        ],
        "curves": [
            {"title": "returns, the highest first", "x": "episodes", "bars": sorted(returns, reverse=True)}
        ],
        "data": {
            "returns": returns_by_bin(returns),
            "behaviours": list(cfg.behaviour),
            "noise": list(cfg.noise),
        },
        "limits": ["What no behaviour does is not in the data, and cannot be learned from it."],
    }
    for name, value in (("report.json", page), ("result.json", result)):
        write_file(run.path(name), (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode())
    write_report(run.folder)
    return result


def returns_by_bin(returns: list[float]) -> dict[str, int]:
    """How many episodes have a return in each of `BINS` equal ranges, or just one where all are the same."""
    import numpy as np

    low, high = min(returns), max(returns)
    if low == high:
        return {f"{low:.4g}": len(returns)}
    counts, edges = np.histogram(returns, bins=BINS)
    return {f"{a:.4g} to {b:.4g}": int(n) for a, b, n in zip(edges, edges[1:], counts)}


def shown(bins: dict[str, int]) -> list[str]:
    """The distribution of returns as lines of text."""
    width, most = max(map(len, bins)), max(bins.values())
    return [
        "returns:",
        *(f"  {name:>{width}}  {'#' * round(BAR * n / most)} {n}" for name, n in bins.items()),
    ]
