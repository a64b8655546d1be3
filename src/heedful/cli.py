"""The command line: one table of commands, options made by tyro from dataclasses.

Nothing here imports torch until a command runs, so `--help` and `check` answer at once.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional, arg

import heedful
from heedful.errors import HeedfulError


@dataclass(frozen=True)
class Check:
    """Find everything that is wrong with data files, with file, line and field. Exit status 1 on errors."""

    files: Positional[Annotated[tuple[str, ...], arg(metavar="FILE [FILE ...]")]]
    """JSONL (also .gz), Parquet or CSV files, or `hub:owner/name[:split]`."""
    kind: Literal["auto", "preference", "unpaired", "prompt_completion", "prompt"] = "auto"
    """What the rows are."""
    columns: tuple[str, ...] = ()
    """Column names, as `prompt=instruction chosen=good`."""
    context: int = 0
    """Longest prompt allowed, in tokens (estimated from characters); 0 does not check."""
    json: bool = False
    """Print the findings as JSON."""


@dataclass(frozen=True)
class Sample:
    """Sample from a model or a run: one prompt, a file of prompts, or a chat."""

    model: Positional[Annotated[str, arg(metavar="MODEL")]]
    """A run folder, a model folder, a Hub id or `smollm2`."""
    prompt: Positional[Annotated[str, arg(metavar="[PROMPT]")]] = ""
    """The prompt; without one and without --prompts, a chat starts."""
    prompts: str = ""
    """A file of prompts."""
    out: str = ""
    """Where to write the samples as JSONL; the default is standard output."""
    n: int = 1
    """Samples per prompt."""
    max_new_tokens: int = 256
    """Longest completion, in tokens."""
    temperature: float = 0.7
    """0 always takes the most likely token."""
    top_p: float = 1.0
    """Keep the most likely tokens up to this probability."""
    top_k: int = 0
    """Keep this many of the most likely tokens; 0 keeps all."""
    stop: tuple[str, ...] = ()
    """Strings that end a completion."""
    template: Literal["auto", "chat", "none"] = "auto"
    """Whether a plain prompt goes through the chat template."""
    seed: int = 0
    """Seed of the samples."""
    device: str = "auto"
    """cpu, cuda, mps or auto."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Arithmetic of the model."""


@dataclass(frozen=True)
class Compare:
    """Compare two runs: results with intervals on the prompts they share, settings, and answers side by side."""

    a: Positional[Annotated[str, arg(metavar="RUN_A")]]
    """The first run folder."""
    b: Positional[Annotated[str, arg(metavar="RUN_B")]]
    """The second run folder."""
    out: str = "comparison.html"
    """Where to write the page."""


@dataclass(frozen=True)
class Report:
    """Write a run's report.html again and print its path."""

    run: Positional[Annotated[str, arg(metavar="RUN")]]
    """A run folder."""


@dataclass(frozen=True)
class Env:
    """Print versions, device and precision, for a bug report."""

    json: bool = False
    """Print as JSON."""


@dataclass(frozen=True)
class Command:
    """A line of `heedful --help`: how to get the options class and what to run with them."""

    about: str
    options: Callable[[], Any]
    run: Callable[[Any], int]
    preset: Callable[[str], Any] | None = field(default=None)


def check(options: Check) -> int:
    """Run `heedful check`; 1 when there are errors."""
    from heedful.data.rows import parse_columns
    from heedful.data.validate import check as check_files

    found = check_files(
        options.files,
        kind=options.kind,
        columns=parse_columns(options.columns),
        context=options.context or None,
    )
    print(json.dumps(found.as_dict(), ensure_ascii=False) if options.json else found.text())
    return 1 if found.error_count else 0


def sample(options: Sample) -> int:
    """Run `heedful sample`."""
    from heedful.policies.chat import sample_from

    return sample_from(options)


def compare(options: Compare) -> int:
    """Run `heedful compare`."""
    from heedful.report import write_comparison

    print(write_comparison(Path(options.a), Path(options.b), Path(options.out)))
    return 0


def report(options: Report) -> int:
    """Run `heedful report`."""
    from heedful.report import write_report

    print(write_report(Path(options.run)))
    return 0


def env(options: Env) -> int:
    """Run `heedful env`."""
    from heedful.device import describe

    facts = describe()
    if options.json:
        print(json.dumps(facts))
    else:
        print("\n".join(f"{name}: {value}" for name, value in facts.items()))
    return 0


def _job(about: str, module: str) -> Command:
    """The command of a recipe: its `Config`, `main` and `preset`, imported when they are needed."""

    def recipe() -> Any:
        return import_module(f"heedful.recipes.{module}")

    return Command(
        about, lambda: recipe().Config, lambda o: recipe().main(o), lambda name: recipe().preset(name)
    )


def _plain_job(about: str, module: str) -> Command:
    """The same for a recipe without presets."""
    job = _job(about, module)
    return Command(about, job.options, job.run)


def _parts(job: str, about: dict[str, str], modules: dict[str, str]) -> dict[str, Command]:
    """The commands `heedful JOB PART`; each stands in the COMMANDS of a recipe's module: its options and what runs."""

    def make(part: str) -> Command:
        def command() -> tuple[type, Callable[[Any], int]]:
            module = import_module(f"heedful.recipes.{modules.get(part, modules[''])}")
            return module.COMMANDS[part]

        return Command(about[part], lambda: command()[0], lambda options: command()[1](options))

    return {f"{job} {part}": make(part) for part in about}


def _tool(about: str, module: str, options: str) -> Command:
    """The command of a module with a `main`, and the name of its options there."""
    return Command(
        about,
        lambda: getattr(import_module(f"heedful.{module}"), options),
        lambda given: import_module(f"heedful.{module}").main(given),
    )


def _here_or_on_a_page(name: str, about: dict[str, str], module: str, page: str) -> Command:
    """The same for one that runs in this terminal or, where its options say so, on a web page."""
    here = _parts(name.split()[0], about, {"": module})[name]

    def run(options: Any) -> int:
        return (
            import_module(f"heedful.serve.{page}").main(options) if options.on_a_page else here.run(options)
        )

    return Command(here.about, here.options, run)


TELL = {
    "list": "list the adapters of a store",
    "enable": "use adapters; refuses one that leaks",
    "disable": "stop using adapters",
    "compose": "make one adapter of several",
    "revert": "undo the last change",
    "conflicts": "find sentences that get in each other's way",
}


PERSONALIZE = {
    "adapt": "fit it to one person with a few labels",
    "query": "print the pairs to ask that person about",
    "score": "score a file with that person's reward",
}


SEARCH = {
    "streams": "write the search of a symbolic strategy for every problem of a file",
    "verify": "check streams of search: strictly, as the paper does, and what went wrong",
    "generate": "draw problems and write a data set of streams",
}


RETRIEVE = {
    "index": "make a corpus searchable: BM25, dense, or both",
    "ask": "search for the answer to one question, hop by hop",
    "generate": "write a corpus and questions to try it on",
    "demo": "learn to search a generated world, offline",
}


DEMOS = {
    "check": "find what is wrong with robot demonstrations, by episode and frame",
    "info": "what demonstrations hold and how varied they are",
    "trim": "keep only the frames in which something happens",
    "split": "divide demonstrations into parts",
    "merge": "put data sets of demonstrations together",
    "convert": "make a LeRobotDataset v3 of any layout",
    "view": "one episode as a page: video, signals, language",
    "record": "collect demonstrations on a robot or the simulated table",
    "mark": "say afterwards whether an episode succeeded, or what it shows",
    "generate": "make demonstrations on the simulated table",
}
DEMOS_IN = {"": "demos", "record": "demos_record", "mark": "demos_record", "generate": "demos_generate"}


CORRECT = {
    "run": "let a robot act and tell it what to do instead",
    "learn": "teach its high level what it was told",
    "replay": "corrections again: what was said, seen and done",
    "eval": "measure how far it gets by itself",
}
CORRECT_IN = {name: f"correct_{name}" for name in CORRECT}


COMMANDS = {
    "tell": _job(
        "teach a language model one sentence of feedback, where it applies and nowhere else", "tell"
    ),
    **_parts("tell", TELL, {"": "tell_commands"}),
    "prefer": _job("tune a language model from preference pairs, or from prompts and a judge", "prefer"),
    "compare-methods": _job("compare methods of preference tuning at one budget", "compare_methods"),
    "audit": _job("compare preference files: scale, noise, information, length, suspicious pairs", "audit"),
    "personalize fit": _job("fit a reward model of many heads to preference pairs", "personalize"),
    **_parts("personalize", PERSONALIZE, {"": "personalize_commands"}),
    "personalize serve": _tool("ask that person on a local web page", "serve.command", "Serve"),
    "critique": _job("compare AI feedback with imitation of the critic, at equal budget", "critique"),
    **_parts("search", SEARCH, {"": "search_streams"}),
    "search pretrain": _job("train a small decoder to search in text", "search"),
    "search improve": _plain_job("improve it on its own streams: star, apa, dpo, grpo", "search_improve"),
    "search eval": _plain_job("measure how many held-out problems it solves", "search_eval"),
    "search view": _plain_job("draw the tree of a search", "search_view"),
    "act": _job("improve any policy class by a critic, offline and then in the environment", "act"),
    "act collect": _plain_job("collect a data set of an environment by scripted behaviours", "act_collect"),
    **_parts("retrieve", RETRIEVE, {"": "retrieve", "demo": "retrieve_demo"}),
    "retrieve train": _job("teach a language model what to search for, hop by hop", "retrieve_train"),
    "retrieve eval": _plain_job("measure what any writer of queries finds, hop by hop", "retrieve_eval"),
    **_parts("demos", DEMOS, DEMOS_IN),
    "demos train": _job("train DROID's policy on demonstrations, co-trained on others", "demos_train"),
    "demos eval": _plain_job("roll that policy out at the simulated table", "demos_eval"),
    "demos record": _here_or_on_a_page("demos record", DEMOS, "demos_record", "record_app"),
    "correct train": _job(
        "train a robot that can be told what to do, from narrated demonstrations", "correct"
    ),
    **_parts("correct", CORRECT, CORRECT_IN | {"": "correct_run"}),
    "correct run": _here_or_on_a_page("correct run", CORRECT, "correct_run", "correct_app"),
    "check": Command("find everything wrong with data files", lambda: Check, check),
    "sample": Command("sample from a model or a run; chat with it", lambda: Sample, sample),
    "compare": Command("compare two runs", lambda: Compare, compare),
    "report": Command("write a run's report again", lambda: Report, report),
    "reproduce": _tool("run a paper's claims and write what holds", "papers.reproduce", "Reproduce"),
    "serve": _tool("open a run's local web page, where there is one", "serve.command", "Serve"),
    "env": Command("print versions and device", lambda: Env, env),
}


def usage() -> str:
    """What `heedful --help` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.about}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: heedful COMMAND [OPTIONS]    (heedful COMMAND --help lists the options)",
            "",
            "Improve a model from feedback, whatever the model and whatever the feedback.",
            "",
            *lines,
            "",
            f"heedful {heedful.__version__}",
        ]
    )


def parse(name: str, arguments: Sequence[str]) -> Any:
    """The options of command `name` from its arguments. A preset gives the defaults that flags override."""
    command = COMMANDS[name]
    kwargs: dict[str, Any] = {"args": list(arguments), "prog": f"heedful {name}"}
    chosen = _value_of("--preset", arguments)
    if command.preset is not None and chosen is not None:
        kwargs["default"] = command.preset(chosen)
    return tyro.cli(command.options(), **kwargs)


def _value_of(flag: str, arguments: Sequence[str]) -> str | None:
    value = None
    for i, argument in enumerate(arguments):
        if argument == flag and i + 1 < len(arguments):
            value = arguments[i + 1]
        elif argument.startswith(f"{flag}="):
            value = argument.split("=", 1)[1]
    return value  # of several the last, as tyro has it


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. 0 on success, 1 on a clear error, 2 on wrong usage, 130 after Ctrl-C, 143 after SIGTERM."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Threads that spin while they wait make torch several times slower where other programs run too.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # peft asks transformers by the old name; nobody who runs a command can do anything about it.
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
    try:
        try:
            return _command(list(sys.argv[1:] if arguments is None else arguments))
        finally:
            sys.stdout.flush()  # a reader that has gone is noticed here, not while Python ends
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _command(arguments: Sequence[str]) -> int:
    if not arguments:
        print(usage(), file=sys.stderr)
        return 2
    if arguments[0] in ("-h", "--help"):
        print(usage())
        return 0
    if arguments[0] == "--version":
        print(heedful.__version__)
        return 0
    two = " ".join(arguments[:2])  # `tell list` is a command of its own, `tell SENTENCE` is not
    name = two if two in COMMANDS else arguments[0]
    parts = [command for command in COMMANDS if command.startswith(f"{name} ")]
    if name not in COMMANDS and parts:
        asked = arguments[1:2] in (["-h"], ["--help"])
        told = "\n".join(f"  heedful {part}: {COMMANDS[part].about}" for part in parts)
        print(f"heedful {name} is one of\n{told}", file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    if name not in COMMANDS or " " in arguments[0]:
        print(f"heedful: there is no command {arguments[0]!r}\n\n{usage()}", file=sys.stderr)
        return 2
    try:
        options = parse(name, arguments[len(name.split()) :])
        if isinstance(seed := getattr(options, "seed", 0), int) and seed < 0:
            raise HeedfulError(f"--seed must be 0 or more, not {seed}")
        return COMMANDS[name].run(options)
    except HeedfulError as error:
        print(f"heedful {name}: {error}", file=sys.stderr)
        return 1
