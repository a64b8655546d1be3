"""`heedful retrieve demo`: the whole job on a generated world, offline.

A world of linked things is written, with a passage about each and questions that need two of them; then the model of
`heedful retrieve train` learns what to search for. The sizes are meant for a quarter of an hour on two CPU cores with
SmolLM2; that model writes much the same with any prompt, so each prompt writes two queries at a temperature of 0.7.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from heedful.errors import HeedfulError

if TYPE_CHECKING:
    from heedful.recipes.retrieve_train import Config


@dataclass(frozen=True)
class Demo:
    """Try `heedful retrieve train` on a generated world of linked things: offline, about a quarter of an hour."""

    out: str = "runs/retrieve-demo"
    """The run folder; the world is in OUT/world. The same command again resumes it."""
    model: str = "smollm2"
    """Where to start: a Hub id, a model folder, a run folder, or `smollm2`."""
    entities: int = 1200
    """Things in the world, one passage each."""
    train: int = 64
    """Questions to learn from."""
    test: int = 40
    """Questions to measure before and after; no passage that they need is needed by the others."""
    dev: int = 12
    """Of the questions to learn from: those that few-shot prompts are chosen by."""
    seed: int = 0
    """Of everything."""
    device: str = "auto"
    """cpu, cuda, mps or auto."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Arithmetic of the forward pass."""
    json: bool = False
    """Print result.json on standard output."""
    quiet: bool = False
    """No progress display."""


def demo(options: Demo) -> int:
    """Run `heedful retrieve demo`."""
    from heedful.recipes.retrieve_train import main

    if min(options.train, options.test) < 4 or not 1 <= options.dev < options.train:
        raise HeedfulError("--train and --test must be at least 4, and --dev from 1 to below --train")
    write_world(options)
    return main(training(options))


def write_world(options: Demo) -> None:
    """Write OUT/world: corpus.jsonl, train.jsonl and test.jsonl; nothing where they are already.

    Raises HeedfulError where a world of other options is there.
    """
    from heedful.data.hops.world import World
    from heedful.run import open_run

    made = {name: getattr(options, name) for name in ("entities", "train", "test", "seed")}
    with open_run(Path(options.out) / "world", made, seed=options.seed) as run:
        world = World(options.seed, options.entities, (2,))
        run.once("corpus.jsonl", lambda: [passage._asdict() for passage in world])
        run.once("train.jsonl", lambda: [q.as_row() for q in world.questions("train", options.train)])
        run.once("test.jsonl", lambda: [q.as_row() for q in world.questions("test", options.test)])


def training(options: Demo) -> Config:
    """The options of `heedful retrieve train` that a demo is."""
    from heedful.recipes.retrieve_train import Config

    world = Path(options.out) / "world"
    return Config(
        questions=str(world / "train.jsonl"),
        eval_questions=str(world / "test.jsonl"),
        corpus=str(world / "corpus.jsonl"),
        out=options.out,
        model=options.model,
        hops=2,
        eval_limit=options.test,
        measure=("few_shot", "question", "title"),
        bootstrap_train=max(1, options.train // 3),
        bootstrap_dev=options.dev,
        candidates=3,
        demos=2,
        samples=2,
        temperature=0.7,
        max_new_tokens=24,
        cd_epochs=1.0,
        cd_learning_rate=5e-4,
        learning_rate=1e-4,
        epochs=1.0,
        seed=options.seed,
        device=options.device,
        precision=options.precision,
        json=options.json,
        quiet=options.quiet,
    )


COMMANDS: dict[str, tuple[type, Callable[[Any], int]]] = {"demo": (Demo, demo)}
