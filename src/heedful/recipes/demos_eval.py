"""`heedful demos eval`: a policy of `heedful demos train` at the simulated table, in and out of distribution.

DROID's evaluation (arXiv 2403.12945, section 5) in simulation: the held-out scene of `heedful demos generate
in_domain`, as it was demonstrated and with distractors, other instances of its objects, or cameras moved by 5 to 10 cm.
Whether a task is done is asked of the simulator, which needs it done for a third of a second.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from heedful.errors import HeedfulError

if TYPE_CHECKING:
    from heedful.data.table.scene import Variant
    from heedful.data.table.tasks import Task
    from heedful.evals.table_trials import Acting
    from heedful.policies.actions.chunks import ChunkPolicy
    from heedful.run import Run

SETTINGS: dict[str, Variant] = {
    "as_shown": "",
    "distractors": "distractors",
    "instance": "instance",
    "camera": "camera",
}
"""What `table.scene.vary` calls each setting."""
VOLATILE = ("json", "quiet")
Rows = Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]
"""Trials by setting and task."""


@dataclass(frozen=True)
class Config:
    """Roll a policy out at the simulated table: success, time to the first motion, how often it is stuck."""

    run: Positional[Annotated[str, arg(metavar="RUN")]]
    """A finished run of `heedful demos train`."""
    out: str = ""
    """The folder of the evaluation; the default is RUN/eval. The same command again resumes it."""
    tasks: tuple[str, ...] = ()
    """What is asked for, as `lift: carrot` or `open: drawer`; the default is the three tasks of `in_domain`."""
    settings: tuple[Literal["as_shown", "distractors", "instance", "camera"], ...] = (
        "as_shown",
        "distractors",
        "instance",
        "camera",
    )
    """as_shown: the scene of the demonstrations. The others change what lies there, how it looks, or the cameras."""
    episodes: int = 20
    """Of each task in each setting."""
    max_steps: int = 300
    """Steps after which a trial has failed; 15 are a second."""
    parallel: int = 8
    """Trials side by side."""
    video: int = 1
    """Film the first so many of each task in each setting."""
    seed: int = -1
    """Of the scene and the starts: that of the demonstrations; -1: as the run's data says."""
    device: str = "auto"
    """cpu, cuda, mps or auto."""
    json: bool = False
    """Print result.json on standard output."""
    quiet: bool = False
    """No progress display."""


def main(cfg: Config) -> int:
    """What `heedful demos eval` does; the exit status."""
    from heedful.recipes import plan
    from heedful.run import open_run

    cfg = settle(cfg)
    model = str(Path(cfg.run) / "model")
    with open_run(cfg.out, cfg, seed=cfg.seed, data=[model], volatile=VOLATILE) as opened:
        result = run(cfg, opened)
    told = (
        json.dumps(result, ensure_ascii=False)
        if cfg.json
        else plan.closing(Path(cfg.out), result, model=False)
    )
    print(told)
    return 0


def settle(cfg: Config) -> Config:
    """Fill in what the run decides: folder, seed, tasks. Raises HeedfulError for what makes no sense."""
    from heedful.evals.video import codec
    from heedful.recipes.demos_train_report import read_acting

    low = [name for name in ("episodes", "max_steps", "parallel") if getattr(cfg, name) < 1]
    if low or cfg.video < 0 or not cfg.settings:
        raise HeedfulError(
            "--episodes, --max-steps and --parallel must be at least 1; --settings names one or more"
        )
    seed = cfg.seed if cfg.seed >= 0 else read_acting(cfg.run).table_seed
    if seed is None:
        raise HeedfulError(
            f"{cfg.run} has not learned from the simulated table: say with --seed which scene to take"
        )
    if cfg.video:
        codec()
    asked = tuple(task.name for task in chosen_tasks(cfg.tasks, seed))
    return replace(cfg, out=cfg.out or str(Path(cfg.run) / "eval"), seed=seed, tasks=asked)


def run(cfg: Config, run: Run) -> dict[str, Any]:
    """All trials, kept as they are done; writes the report and returns result.json. cfg: settled."""
    from heedful.device import pick_device
    from heedful.recipes.demos_eval_report import finish
    from heedful.recipes.demos_train_report import open_trained

    policy, acting = open_trained(cfg.run)
    device = pick_device(cfg.device)
    policy.module.to(device)
    if policy.average:
        policy.average.module.to(device)
    done = {setting: _setting(cfg, run, policy, acting, setting, device) for setting in cfg.settings}
    return finish(cfg, done, run)


def _setting(
    cfg: Config, run: Run, policy: ChunkPolicy, acting: Acting, setting: str, device: str
) -> dict[str, Any]:
    """The trials of a setting by task; the tables are built when the first trial is not done yet."""
    from heedful.evals.table_trials import Trials

    tables: list[Trials] = []

    def one(task: Task, place: str) -> list[dict[str, Any]]:
        def film(index: int) -> Path | None:
            if index >= cfg.video:
                return None
            folder = run.path("video")
            folder.mkdir(exist_ok=True)
            return folder / f"{place.replace('/', '-')}-{index:03d}.mp4"

        def part(first: int) -> list[dict[str, Any]]:
            if not tables:
                count, vary = min(cfg.parallel, cfg.episodes), SETTINGS[setting]
                tables.append(
                    Trials(acting, seed=cfg.seed, setting=vary, parallel=count, max_steps=cfg.max_steps)
                )
            indices = range(first, min(first + cfg.parallel, cfg.episodes))
            drawn = run.generator("act", place, first, device=device)
            rows = tables[0].run(policy, task, indices, generator=drawn, film=film)
            if not cfg.quiet:
                good = sum(row.get("success", 0) for row in rows)
                print(f"{setting}, {task.name}: {good} of {len(rows)} succeeded", file=sys.stderr, flush=True)
            return rows

        return run.in_parts(place, cfg.episodes, cfg.parallel, part)

    found = {
        task.name: one(task, f"{setting}/task{number}")
        for number, task in enumerate(chosen_tasks(cfg.tasks, cfg.seed))
    }
    for trials in tables:
        trials.close()
    return found


def chosen_tasks(names: Sequence[str], seed: int) -> list[Task]:
    """The tasks of these names at the held-out scene of a seed. Raises HeedfulError naming what can be asked for."""
    from heedful.data.table.sets import held_out_scene, in_domain_tasks
    from heedful.data.table.tasks import tasks_of

    if not names:
        return in_domain_tasks(seed)
    possible = {task.name: task for task in tasks_of(held_out_scene(seed))}
    unknown = [name for name in names if name not in possible]
    if unknown:
        raise HeedfulError(
            f"{unknown[0]!r} cannot be asked for at this scene; what can: {'; '.join(possible)}"
        )
    return [possible[name] for name in names]
