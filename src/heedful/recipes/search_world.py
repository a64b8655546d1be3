"""What a model searches in: Countdown, or problems of the user's own with a verifier. `heedful search` sees no more.

The settings of a world lie in the run folder as world.json, so `improve` and `eval` of a run need not be told again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from heedful.errors import HeedfulError

if TYPE_CHECKING:
    from heedful.evals.streams import Searches
    from heedful.feedback import Judge
    from heedful.policies.decoder import TokenRows

FILE = "world.json"
Language = Literal["words", "bytes"]


@dataclass(frozen=True)
class Settings:
    """Which world; the fields are options of `heedful search pretrain`, where they are explained."""

    data: str = ""
    prompts: str = ""
    eval_prompts: str = ""
    judge: str = ""
    tokenizer: Language = "words"
    eval_share: float = 0.1
    numbers: int = 3
    inputs: tuple[int, int] = (1, 20)
    targets: tuple[int, int] = (10, 40)
    cap: int = 400
    beams: int = 3
    seed: int = 0


@dataclass(frozen=True)
class World:
    """The parts of a world; each is a pure function.

    train(start, count): prompts of training problems, numbered without end. validation(count): others, for decisions
    while learning. tests: for each test set the function that gives its first `count` prompts. judge: above 0 is
    solved. rows(on, count, context): training rows of "streams" or "solutions", `count` of them (0: all there are).
    census(prompt, completion): errors and what else is counted in one stream. trim: token ids of a stream without what
    follows its goal. searches(prompts, tokens): what symbolic searches do on problems, their states within so many
    tokens; None where there are no such searches, and then streams have no tree either.
    """

    tokenizer: Any
    judge: Judge
    train: Callable[[int, int], list[str]]
    validation: Callable[[int], list[str]]
    tests: Mapping[str, Callable[[int], list[str]]]
    rows: Callable[[str, int, int], TokenRows]
    census: Callable[[str, str], dict[str, float]]
    trim: Callable[[Sequence[int]], list[int]]
    facts: dict[str, Any] = field(default_factory=dict)
    searches: Callable[[Sequence[str], int], Searches] | None = None


def settings_of(cfg: Any) -> Settings:
    """The world's settings among a job's options."""
    return Settings(**{f.name: getattr(cfg, f.name) for f in fields(Settings)})


def open_world(settings: Settings, tokenizer: Any = None) -> World:
    """The world of these settings. tokenizer: that of a model there is; else one is made.

    Raises HeedfulError for settings without a world, and as the files' checks do.
    """
    if settings.data or settings.prompts:
        from heedful.recipes.search_files import files_world

        return files_world(settings, tokenizer)
    from heedful.recipes.search_countdown import countdown_world

    return countdown_world(settings, tokenizer)


def world_files(settings: Settings) -> list[str]:
    """The files whose content the manifest notes: data, and the judge's program."""
    named = [settings.data, settings.prompts, settings.eval_prompts]
    if ".py:" in settings.judge:
        named.append(settings.judge.rpartition(":")[0])
    return [name for name in named if name and not name.startswith("hub:")]


def world_text(settings: Settings) -> dict[str, Any]:
    """What world.json says. Files are named by absolute paths, since other runs read it from elsewhere."""
    told = asdict(settings)
    for name in ("data", "prompts", "eval_prompts"):
        if told[name] and not told[name].startswith("hub:"):
            told[name] = str(Path(told[name]).expanduser().resolve())
    path, colon, function = settings.judge.rpartition(":")
    if colon and path.endswith(".py"):
        told["judge"] = f"{Path(path).expanduser().resolve()}:{function}"
    return told


def world_of(model: str, **given: Any) -> Settings:
    """The settings of the run that made a model, with those that are given (not empty) instead of its own.

    Raises HeedfulError when the model is of no run of `heedful search` and nothing is given, when what is given has no
    meaning for Countdown, or world.json is damaged.
    """
    folder = Path(model).expanduser()
    given = {name: value for name, value in given.items() if value}
    for place in (folder / FILE, folder.parent / FILE):
        if place.exists():
            try:
                told = json.loads(place.read_bytes())
                known = {f.name for f in fields(Settings)}
                own: dict[str, Any] = {
                    k: tuple(v) if isinstance(v, list) else v for k, v in told.items() if k in known
                }
                found = replace(Settings(**own), **given)
            except (ValueError, TypeError, AttributeError) as error:
                raise HeedfulError(f"{place} cannot be read: {error}") from error
            unused = [name for name in ("eval_prompts", "judge") if name in given]
            if unused and not (found.data or found.prompts):
                raise HeedfulError(
                    f"--{unused[0].replace('_', '-')} goes with problems of your own, and {model} learned Countdown, "
                    "which has its own verifier and test sets: give --prompts too, or leave it out"
                )
            return found
    if not given.get("prompts") or not given.get("judge"):
        raise HeedfulError(
            f"{model} was not made by `heedful search`: say what it is to solve with --prompts FILE and "
            "--judge path.py:function"
        )
    return Settings(**given)
