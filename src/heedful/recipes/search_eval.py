"""`heedful search eval`: how many held-out problems a model solves, greedily and in several tries; its errors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from heedful.errors import HeedfulError
from heedful.recipes.search import VOLATILE, tell
from heedful.recipes.search_world import Settings, open_world, world_files, world_of

if TYPE_CHECKING:
    from heedful.run import Run


@dataclass(frozen=True)
class Config:
    """Measure a model on its test sets: accuracy, pass@k, accuracy against tokens, errors of each kind."""

    out: str = "runs/search-eval"
    """The run folder. The same command again resumes it."""
    model: str = "runs/search"
    """A run of `heedful search`, or any model folder with --prompts and --judge."""
    prompts: str = ""
    """Your own problems, instead of those of the model's run."""
    eval_prompts: str = ""
    """Your own held-out problems."""
    judge: str = ""
    """Your own verifier, `path.py:function`, instead of that of the model's run."""
    problems: int = 1000
    """Problems of each test set."""
    n: int = 8
    """Streams for each problem beside the greedy one, for pass@k; 0 draws none."""
    temperature: float = 0.8
    """Of those."""
    max_new_tokens: int = 0
    """Longest stream; 0: what the context has room for."""
    max_rows: int = 256
    """Streams drawn at the same time."""
    seed: int = 0
    """Of the streams."""
    device: str = "auto"
    """cpu, cuda, mps or auto."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Arithmetic of the model."""
    json: bool = False
    """Print result.json on standard output."""
    quiet: bool = False
    """No progress display."""


def main(cfg: Config) -> int:
    """What `heedful search eval` does; the exit status."""
    from heedful.run import open_run

    wrong = [
        f"--{name.replace('_', '-')} must be at least 1"
        for name in ("problems", "max_rows")
        if getattr(cfg, name) < 1
    ]
    if cfg.n < 0 or cfg.max_new_tokens < 0:
        wrong.append("--n and --max-new-tokens must be 0 or more")
    if cfg.n and not cfg.temperature > 0:
        wrong.append("--temperature must be above 0: the tries would all be the same")
    if wrong:
        raise HeedfulError("; ".join(wrong))
    settings = world_of(cfg.model, prompts=cfg.prompts, eval_prompts=cfg.eval_prompts, judge=cfg.judge)
    with open_run(cfg.out, cfg, seed=cfg.seed, data=world_files(settings), volatile=VOLATILE) as opened:
        cfg = replace(cfg, quiet=True, json=False) if opened.rank else cfg
        result = run(cfg, settings, opened)
    tell(cfg, result)
    return 0


def run(cfg: Config, settings: Settings, run: Run) -> dict[str, Any]:
    """Answer every test set and write the report; returns result.json. Resumes where it stopped."""
    from heedful.policies.language import LanguagePolicy
    from heedful.recipes import search_measure, search_pictures, search_report

    policy = LanguagePolicy.load(
        cfg.model, template="none", small=True, precision=cfg.precision, device=cfg.device
    )
    world = open_world(settings, policy.tokenizer)
    greedy, tries = {}, {}
    for name, prompts in world.tests.items():
        asked = prompts(cfg.problems)
        greedy[name] = search_measure.greedy(policy, world, asked, name, run, cfg)
        if cfg.n:
            tries[name] = search_measure.measure(
                policy, world, asked, cfg.n, f"{name}/tries", run, cfg, temperature=cfg.temperature
            )
    drawn = search_pictures.pictures({"model": greedy}, world, policy.context, run)
    return search_report.finish_evaluation(cfg, greedy, tries, world.facts, drawn, run)
