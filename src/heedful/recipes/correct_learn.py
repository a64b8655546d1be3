"""`heedful correct learn`: what a person said becomes what the high level says by itself.

The high level goes on from where it was, on its old lessons and the new ones: of each step a share comes from the
newest corrections, the rest from everything before. The low level is not touched. A run has all that the next round
needs (Yell At Your Robot, arXiv 2403.12910, post-training; HG-DAgger in the space of language).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from heedful.errors import HeedfulError

if TYPE_CHECKING:
    from heedful.data.corrections import Correction
    from heedful.data.narrated import Narrated
    from heedful.recipes.correct_high import Lessons
    from heedful.recipes.correct_models import Talker
    from heedful.run import Run

VOLATILE = ("json", "quiet", "save_every", "keep", "log_every")
LOG = "corrections.jsonl"


@dataclass(frozen=True)
class Learn:
    """Teach the high level of a run what a person said while it acted. The low level stays as it is."""

    run: Positional[Annotated[str, arg(metavar="RUN")]]
    """A run of `correct train` or of `correct learn`."""
    corrections: str = ""
    """A folder of `correct run`: episodes and corrections.jsonl. "" only with --ratio 0."""
    out: str = "runs/correct-learned"
    """The new run folder. The same command again resumes it."""
    ratio: float = 0.1
    """Share of each step that comes from these corrections; 0: none does, for comparison at equal steps."""
    no_pre_roll: bool = False
    """Leave out what came before the words (an ablation)."""
    raw_words: bool = False
    """Learn the words as they were said, not the commands they were taken for (an ablation)."""
    lesson_every: float = 0.2
    """Seconds between the moments that are learned from."""
    high_steps: int = 1000
    """Steps of the high level."""
    high_batch: int = 64
    """Moments in a step."""
    high_rate: float = 1e-4
    """Learning rate."""
    save_every: int = 500
    """Steps between checkpoints."""
    keep: int = 2
    """Checkpoints kept."""
    log_every: int = 50
    """Steps between metric rows."""
    eval_episodes: int = 20
    """PackTable: episodes in which the pair is measured, before and after; 0: none."""
    seed: int = 0
    """Of everything."""
    device: str = "auto"
    """cpu, cuda, mps or auto."""
    precision: Literal["auto", "bf16", "fp32"] = "fp32"
    """Arithmetic of training."""
    json: bool = False
    """Print result.json on standard output."""
    quiet: bool = False
    """No progress display."""


@dataclass(frozen=True)
class Taught:
    """A round. used: corrections that were learned from; refused: why clips were not, each with its id; left: how many
    were not accepted or have no clip, by reason; new: texts that the bank did not have."""

    round: int
    used: Sequence[Correction] = ()
    refused: Sequence[str] = ()
    left: dict[str, int] = field(default_factory=dict)
    new: Sequence[str] = ()
    lessons: int = 0


def main(options: Learn) -> int:
    """What `heedful correct learn` does; the exit status."""
    from heedful.recipes import correct_report
    from heedful.run import open_run

    check(options)
    log = Path(options.corrections).expanduser() / LOG
    files = [
        Path(options.run) / "model" / "high" / "model.safetensors",
        *([log] if options.corrections else []),
    ]
    with open_run(
        options.out, options, seed=options.seed, data=[str(f) for f in files], volatile=VOLATILE
    ) as opened:
        result = run(options, opened)
    correct_report.tell(options, result)
    return 0


COMMANDS = {"learn": (Learn, main)}


def check(options: Learn) -> None:
    """Raises HeedfulError with the reason for options that have no meaning."""
    from heedful.recipes.settings import out_of_range

    wrong = out_of_range(
        options,
        at_least_one=("high_steps", "high_batch", "keep"),
        not_negative=("save_every", "log_every", "eval_episodes"),
        above_zero=("high_rate", "lesson_every"),
    )
    if not 0 <= options.ratio <= 1:
        wrong.append("--ratio is a share, from 0 to 1")
    if not options.corrections and options.ratio:
        wrong.append("give --corrections, a folder of `heedful correct run` (without it --ratio must be 0)")
    if Path(options.out).expanduser().resolve() == Path(options.run).expanduser().resolve():
        wrong.append("--out must be another folder than the run: each round has its own")
    if wrong:
        raise HeedfulError("; ".join(wrong))


def run(options: Learn, run: Run) -> dict[str, Any]:
    """Take over the old lessons, add the corrections', fine-tune the high level, measure; returns result.json.

    Every stage is kept in the run folder: a second call goes on where the first one stopped.
    """
    from heedful.device import pick_device
    from heedful.recipes import correct_eval, correct_report
    from heedful.recipes.correct_models import open_talker, save_talker

    talker = open_talker(options.run, device=pick_device(options.device))
    old = inherit(Path(options.run).expanduser(), run)
    before = _before(options, talker, run)
    new, taught = lessons_of(options, talker, len(old), run)
    talker = teach(options, talker, old, new, run)
    save_talker(talker, run.path("model"))
    after = correct_eval.measured(talker, options.eval_episodes, "evaluation", run)
    return correct_report.finish_learning(options, talker, taught, before, after, run)


def teach(options: Any, talker: Talker, old: Sequence[Lessons], new: Lessons | None, run: Run) -> Talker:
    """The pair with its high level trained on: `options.ratio` of each step from `new`, the rest from all of `old`.

    The bank becomes the union of what it was and what is new, without repeats. options: see `correct_high.learn`.
    """
    from heedful.recipes import correct_high
    from heedful.recipes.correct_models import Talker as Pair

    speaker = talker.high.with_commands([] if new is None else new.texts)
    shares = [(correct_high.joined(old), 1.0 - options.ratio if new is not None else 1.0)]
    shares += [] if new is None else [(new, options.ratio)]
    correct_high.learn(options, speaker, shares, options.high_steps, run, aliases=talker.making.aliases)
    return Pair(talker.making, talker.low, talker.low_making, speaker)


def inherit(folder: Path, run: Run) -> list[Lessons]:
    """Copy the lessons of an earlier run into this one, so that it needs no other; all sets, in order.

    Raises HeedfulError where the earlier run has none.
    """
    from heedful.atomic import make_folder, write_file
    from heedful.recipes.correct_high import read_lessons

    count = 0
    while (folder / f"lessons/{count}.safetensors").is_file():
        count += 1
    if not count:
        raise HeedfulError(
            f"{folder} has no lessons (there is no {folder / 'lessons/0.safetensors'}): train it again"
        )
    make_folder(run.path("lessons"))
    for k in range(count):
        for name in (f"lessons/{k}.json", f"lessons/{k}.safetensors"):
            if not run.path(name).exists():
                write_file(run.path(name), (folder / name).read_bytes())
    return [read_lessons(f"lessons/{k}", run) for k in range(count)]


def lessons_of(options: Learn, talker: Talker, number: int, run: Run) -> tuple[Lessons | None, Taught]:
    """Lessons of round `number`, of the corrections' clips, and what became of each correction; none without a folder.

    Raises HeedfulError for episodes that the pair cannot have seen, and where no correction is left to learn from.
    """
    from heedful.data.corrections import CorrectionLog
    from heedful.data.narrated import open_narrated
    from heedful.data.segments import Saying
    from heedful.recipes import correct_high

    if not options.corrections:
        return None, Taught(number)
    folder = Path(options.corrections).expanduser()
    if not (folder / LOG).is_file():
        raise HeedfulError(f"{folder / LOG} is not there: --corrections is a folder of `heedful correct run`")
    narrated = open_narrated(folder, list(talker.making.cameras.values()))
    check_same(talker, narrated)
    used, refused, left = sort_out(CorrectionLog(folder / LOG).rows(), narrated)
    if not used:
        why = "; ".join([*refused, *(f"{n} {what}" for what, n in left.items())]) or "nobody said anything"
        raise HeedfulError(f"{folder}: there is no correction to learn from ({why})")
    stride = max(1, round(options.lesson_every * talker.fps))
    said = [
        Saying(row.episode, step, row.words if options.raw_words else str(row.command))
        for row in used
        for step in range(row.step if options.no_pre_roll else row.clip[0], row.clip[1], stride)  # type: ignore[index]
    ]
    lessons = correct_high.make_lessons(
        f"lessons/{number}",
        narrated,
        said,
        talker.eyes,
        run,
        history=talker.high.making.observations.history,
        stride=talker.making.stride,
        about={"source": str(folder), "episodes": len(narrated.segments), "corrections": len(used)},
        quiet=options.quiet,
    )
    new = [text for text in lessons.texts if text not in talker.high.bank]
    return lessons, Taught(number, used, refused, left, new, len(lessons))


def check_same(talker: Talker, narrated: Narrated) -> None:
    """Raises HeedfulError where episodes differ from what the pair was trained on: rate, pictures, states."""
    place, making = narrated.episodes.path, talker.making
    if narrated.fps != making.fps:
        raise HeedfulError(
            f"{place} has {narrated.fps:g} frames a second; the run was trained at {making.fps:g}"
        )
    shapes = talker.low_making.observations.shapes
    for name, column in narrated.cameras.items():
        height, width, colours = narrated.episodes.info.features[column].shape
        if (colours, height, width) != tuple(shapes[name]):
            raise HeedfulError(
                f"{place}: pictures of {name} are {height} x {width}; the run was trained on "
                f"{shapes[name][1]} x {shapes[name][2]}"
            )
    if narrated.states[0].shape[1:] != tuple(shapes["state"]):
        raise HeedfulError(
            f"{place}: a state has {narrated.states[0].shape[1]} numbers; the run was trained on {shapes['state'][0]}"
        )


def sort_out(
    rows: Sequence[Correction], narrated: Narrated
) -> tuple[list[Correction], list[str], dict[str, int]]:
    """(corrections to learn from, why clips are refused, how many were never to be learned from by reason).

    A clip is refused, by its id, where its frames are not there, or the recorded episode does not say its words: a
    program that was killed leaves rows of an episode that was then recorded anew.
    """
    from heedful.data.corrections import ACCEPTED

    used: list[Correction] = []
    refused: list[str] = []
    left: Counter[str] = Counter()
    lengths = [len(actions) for actions in narrated.actions]
    events: dict[int, set[tuple[int, str]]] = {}
    for row in rows:
        if row.status != ACCEPTED or row.command is None:
            left[row.status] += 1
            continue
        if row.clip is None:
            left["without steps"] += 1
            continue
        if row.episode >= len(lengths):
            refused.append(f"{row.id}: episode {row.episode} was not saved, there are {len(lengths)}")
            continue
        if row.clip[1] > lengths[row.episode]:
            refused.append(
                f"{row.id}: episode {row.episode} has no step {row.clip[1] - 1}, it ends at {lengths[row.episode] - 1}"
            )
            continue
        if row.episode not in events:
            events[row.episode] = {
                (round(said.timestamp * narrated.fps), said.content or "")
                for said in narrated.episodes.language(row.episode)
                if said.style == "interjection"
            }
        if (row.step, row.words) not in events[row.episode]:
            refused.append(f"{row.id}: nobody says {row.words!r} at step {row.step} of episode {row.episode}")
            continue
        used.append(row)
    return used, refused, dict(left)


def _before(options: Learn, talker: Talker, run: Run) -> list[dict[str, Any]]:
    """How far the pair got before: as its own run measured it, where it did so in as many episodes."""
    import json

    from heedful.recipes import correct_eval

    known = Path(options.run).expanduser() / "evaluation.jsonl"
    if known.is_file() and talker.making.world is not None:
        rows = [json.loads(line) for line in known.read_text().splitlines()]
        if len(rows) >= options.eval_episodes:
            return run.once("evaluation-before.jsonl", lambda: rows[: options.eval_episodes])
    return correct_eval.measured(talker, options.eval_episodes, "evaluation-before", run)
