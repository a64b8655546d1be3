"""The command line: its options are frozen, help comes at once, wrong usage and refused options say why.

The options are kept in cli_options.txt. After a change on purpose, write it anew:

    UPDATE_CLI_OPTIONS=1 .venv/bin/python -m pytest tests/test_cli.py
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import tiny
from transformers import GPTNeoXConfig

from heedful import cli
from heedful.cli import COMMANDS, main
from heedful.errors import HeedfulError
from heedful.fit import FitConfig
from heedful.recipes import plan, prefer

FROZEN = Path(__file__).with_name("cli_options.txt")


def heedful(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "heedful", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **variables}
    )


# ---- the frozen list


def kind_of(kind: Any) -> str:
    """A type as the list shows it: the choices, or the type's name."""
    if get_origin(kind) is Literal:
        return "|".join(get_args(kind))
    if get_origin(kind) is tuple:
        return f"{get_args(kind)[0].__name__}..."
    return kind.__name__


def place_of(cls: type, name: str) -> str:
    """What help calls an option that has no flag but a place; empty for the others."""
    marks = getattr(get_type_hints(cls, include_extras=True)[name], "__metadata__", ())
    return next((mark.metavar for mark in marks if hasattr(mark, "metavar")), "")


def options_of(cls: type) -> list[str]:
    """One line for each option of a command: its name, what it takes and its default."""
    kinds = get_type_hints(cls)
    lines = []
    for field in dataclasses.fields(cls):
        name = place_of(cls, field.name) or f"--{field.name.replace('_', '-')}"
        default = "" if field.default is dataclasses.MISSING else f" = {field.default!r}"
        lines.append(f"  {name} {kind_of(kinds[field.name])}{default}")
    return lines


def all_options() -> str:
    """Every command with its options, and what each preset changes."""
    lines = []
    for name, command in COMMANDS.items():
        lines += [f"heedful {name}", *options_of(command.options())]
        if command.preset is None:
            continue
        for chosen in get_args(get_type_hints(command.options())["preset"]):
            changed = [
                f"    --{field.name.replace('_', '-')} = {value!r}"
                for field in dataclasses.fields(command.options())
                if (value := getattr(command.preset(chosen), field.name)) != field.default
            ]
            lines += [f"  with --preset {chosen}", *changed]
    return "\n".join(lines) + "\n"


def test_options_are_those_of_the_frozen_list() -> None:
    now = all_options()
    if os.environ.get("UPDATE_CLI_OPTIONS"):
        FROZEN.write_text(now)
    assert now == FROZEN.read_text(), (
        "the command line has changed; if on purpose, run this test once with UPDATE_CLI_OPTIONS=1 and say so in "
        "CHANGELOG.md"
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_help_offers_exactly_these_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([*name.split(), "--help"])
    assert left.value.code == 0
    text = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    offered = set(re.findall(r"^\W*(?:-\w(?: [A-Z]+)?, )?(--[a-z][a-z0-9-]*)", text, re.MULTILINE))
    cls = COMMANDS[name].options()
    flags = [field.name for field in dataclasses.fields(cls) if not place_of(cls, field.name)]
    assert offered == {"--help", *(f"--{name.replace('_', '-')}" for name in flags)}
    places = [place for field in dataclasses.fields(cls) if (place := place_of(cls, field.name))]
    assert all(place in text.splitlines()[0] for place in places)


def test_every_option_is_explained() -> None:
    for command in COMMANDS.values():
        cls = command.options()
        body = ast.parse(inspect.getsource(cls)).body[0]
        assert isinstance(body, ast.ClassDef)
        explained = {
            before.target.id
            for before, after in zip(body.body, body.body[1:])
            if isinstance(before, ast.AnnAssign) and isinstance(before.target, ast.Name)
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        }
        assert explained == {field.name for field in dataclasses.fields(cls)}


def test_arguments_become_options() -> None:
    cfg = cli.parse("prefer", ["--rounds", "-1", "--stop", "a", "b", "--columns", "prompt=q", "--merged"])
    assert cfg == prefer.Config(rounds=-1, stop=("a", "b"), columns=("prompt=q",), merged=True)
    checked = cli.parse("check", ["a.jsonl", "b.jsonl", "--kind", "prompt"])
    assert checked == cli.Check(files=("a.jsonl", "b.jsonl"), kind="prompt")
    assert cli.parse("sample", ["smollm2"]).prompt == ""


@pytest.mark.parametrize("arguments", [["--preset", "paper"], ["--preset=paper"]])
def test_flags_win_over_the_preset_they_stand_with(arguments: list[str]) -> None:
    paper = prefer.preset("paper")
    assert cli.parse("prefer", arguments) == paper
    assert cli.parse("prefer", ["--beta", "0.5", *arguments]) == dataclasses.replace(paper, beta=0.5)
    assert cli.parse("prefer", [*arguments, "--model", "smollm2"]).model == "smollm2"
    assert cli.parse("prefer", ["--preset", "laptop"]) == prefer.Config()
    assert cli.parse("prefer", ["--preset", "laptop", *arguments]) == paper, (
        "the last one counts, as of any flag"
    )


# ---- help and wrong usage


LOADED = """
import sys
from heedful.cli import main
try:
    status = main(sys.argv[1:])
except SystemExit as left:
    status = left.code
heavy = {"torch", "transformers", "datasets", "pyarrow", "peft", "accelerate", "pandas", "matplotlib", "mujoco"}
print("status", status, "heavy", sorted(heavy & set(sys.modules)), file=sys.stderr)
"""


def test_checking_a_file_needs_no_torch(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    good.write_text('{"prompt": "A?", "chosen": "b", "rejected": "c"}\n')
    bad.write_text('{"prompt": "A?", "chosen": "b"\n')
    for file, status in ((good, 0), (bad, 1)):
        done = subprocess.run(
            [sys.executable, "-c", LOADED, "check", str(file)], capture_output=True, text=True, check=False
        )
        assert done.stderr == f"status {status} heavy []\n" and file.name in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["prefer", "--help"], ["sample", "--help"], ["prefer", "--nothing"]],
)
def test_help_comes_without_loading_what_is_slow_to_load(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *arguments], capture_output=True, text=True, check=False
    )
    wrong = "--nothing" in arguments
    assert done.stderr.endswith(f"status {2 if wrong else 0} heavy []\n"), done.stderr


@pytest.mark.parametrize(
    "command",
    [["prefer"], ["act"], ["critique"], ["search", "generate"], ["demos", "train"], ["correct", "train"]],
)
def test_a_seed_below_0_is_refused_before_anything_is_made(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*command, "--seed", "-1"]) == 1
    assert capsys.readouterr().err == f"heedful {' '.join(command)}: --seed must be 0 or more, not -1\n"
    assert not list(tmp_path.iterdir())


def test_help_lists_every_command() -> None:
    done = heedful("--help")
    assert done.returncode == 0 and done.stderr == ""
    for name, command in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(command.about)}$", done.stdout, re.MULTILINE)
    assert heedful("-h").stdout == done.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "usage: heedful COMMAND"),
        (["preferr"], "heedful: there is no command 'preferr'\n\nusage: heedful COMMAND"),
        (["prefer", "--no-such-option", "1"], "--no-such-option"),
        (["prefer", "--n", "many"], "--n"),
        (["prefer", "--pairs", "some"], "best_worst"),
        (["sample"], "MODEL"),
        (["compare", "one"], "RUN_B"),
    ],
)
def test_wrong_usage_ends_with_2_and_help_on_stderr(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = main(arguments)
    except SystemExit as left:
        status = left.code
    said = capsys.readouterr()
    assert status == 2 and said.out == "" and told in said.err and "Traceback" not in said.err


def test_a_clear_error_ends_with_1_and_without_a_traceback(tmp_path: Path) -> None:
    done = heedful("report", str(tmp_path / "nothing"))
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("heedful report: ") and "nothing" in done.stderr
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr


def test_an_unexpected_error_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(options: Any) -> int:
        raise RuntimeError("a bug of ours")

    monkeypatch.setitem(COMMANDS, "env", dataclasses.replace(COMMANDS["env"], run=broken))
    with pytest.raises(RuntimeError, match="a bug of ours"):
        main(["env"])


def test_interruption_ends_with_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(options: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setitem(COMMANDS, "env", dataclasses.replace(COMMANDS["env"], run=interrupted))
    assert main(["env"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize("buffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["--help"], ["prefer", "--help"]])
def test_a_reader_that_leaves_is_no_traceback(arguments: list[str], buffered: str) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "heedful", *arguments],
            stdout=write,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": buffered},
            check=False,
        )
    finally:
        os.close(write)
    assert done.returncode == 1 and done.stderr == b""


def test_env_prints_versions_for_people_and_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["env", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert main(["env"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ", 1)[0] for line in lines] == list(facts)
    assert {"heedful", "torch", "python"} <= {name.lower() for name in facts}


# ---- options that do not go together

ASKED = ["--prompts", "q.jsonl", "--judge", "rule:exact"]
PAIRS = ["--data", "p.jsonl"]
REFUSED = [
    ([*PAIRS, "--method", "dpoo"], "there is no method 'dpoo'; choose one of dpo, robust,"),
    ([], "give --data FILE (preference pairs) or --prompts FILE with --judge"),
    (["--judge", "rule:exact"], "give --data FILE"),
    ([*ASKED, "--reward-model", "r"], "give --judge or --reward-model, not both"),
    (["--prompts", "q.jsonl"], "learning from samples needs --judge or --reward-model"),
    ([*PAIRS, "--rounds", "2"], "learning from samples needs --judge or --reward-model"),
    ([*PAIRS, "--method", "best"], "best learns from scored samples: give --prompts and --judge"),
    ([*PAIRS, "--method", "ppo"], "ppo learns from scored samples"),
    ([*PAIRS, *ASKED, "--rounds", "0"], "--rounds 0 learns from --data and leaves --prompts unused"),
    ([*ASKED, "--rounds", "0"], "--rounds 0 needs --data"),
    ([*ASKED, "--n", "1"], "dpo compares samples of a prompt: --n must be at least 2"),
    ([*ASKED, "--method", "reinforce", "--n", "1"], "--baseline group compares samples of a prompt"),
    (
        [*ASKED, "--method", "reinforce", "--n", "1", "--baseline", "leave_one_out"],
        "--baseline leave_one_out compares samples of a prompt",
    ),
    ([*ASKED, "--eval-data", "e.jsonl"], "--eval-data needs --data"),
    ([*PAIRS, "--method", "ipo", "--label-smoothing", "0.1"], "--label-smoothing has no meaning with ipo"),
    ([*PAIRS, "--gamma", "0.5"], "--gamma has no meaning with dpo (only simpo)"),
    ([*ASKED, "--tau", "0.5"], "--tau has no meaning with dpo (only rwr, apa)"),
    ([*ASKED, "--method", "reinforce", "--clip", "0.1"], "--clip has no meaning with reinforce (only ppo)"),
    ([*ASKED, "--kl", "0.1"], "--kl has no meaning with dpo (only best, rwr, reinforce, ppo, apa)"),
    ([*ASKED, "--method", "best", "--baseline", "none"], "--baseline has no meaning with best"),
    ([*ASKED, "--method", "rwr", "--pairs", "all"], "--pairs has no meaning with rwr"),
    ([*ASKED, "--method", "rwr", "--margin", "0.1"], "--margin has no meaning with rwr"),
    ([*PAIRS, "--pairs", "all"], "--pairs and --margin select among samples; with --rounds 0 there are none"),
    ([*PAIRS, "--margin", "0.5"], "--pairs and --margin select among samples"),
    ([*PAIRS, "--merged", "--lora-rank", "0"], "--merged has no meaning with --lora-rank 0"),
    ([*PAIRS, "--n", "0"], "--n must be at least 1"),
    ([*PAIRS, "--max-new-tokens", "0"], "--max-new-tokens must be at least 1"),
    ([*PAIRS, "--batch-size", "0"], "--batch-size must be at least 1"),
    ([*PAIRS, "--eval-limit", "0"], "--eval-limit must be at least 1"),
    ([*PAIRS, "--eval-n", "0"], "--eval-n must be at least 1"),
    ([*PAIRS, "--max-rows", "0"], "--max-rows must be at least 1"),
    ([*PAIRS, "--temperature", "-1"], "--temperature and --top-k must be 0 or more"),
    ([*PAIRS, "--top-k", "-1"], "--temperature and --top-k must be 0 or more"),
    ([*PAIRS, "--top-p", "0"], "--top-p above 0 and at most 1"),
    ([*PAIRS, "--top-p", "1.5"], "--top-p above 0 and at most 1"),
    ([*PAIRS, "--eval-share", "0"], "--eval-share must be between 0 and 1"),
    ([*PAIRS, "--eval-share", "1"], "--eval-share must be between 0 and 1"),
    ([*PAIRS, "--lora-rank", "-1"], "--lora-rank must be 0 or more"),
    ([*PAIRS, "--beta", "0"], "--beta must be a number above 0"),
    ([*PAIRS, "--beta", "nan"], "--beta must be a number above 0"),
    ([*PAIRS, "--temperature", "nan"], "--temperature and --top-k must be 0 or more"),
    ([*PAIRS, "--keep", "0"], "--keep must be at least 1"),
    ([*PAIRS, "--learning-rate", "inf"], "--learning-rate must be a number of 0 or more"),
    ([*PAIRS, "--learning-rate", "-1"], "--learning-rate must be a number of 0 or more"),
    ([*PAIRS, "--warmup", "nan"], "--warmup must be a number of 0 or more"),
    ([*PAIRS, "--weight-decay", "-1"], "--weight-decay must be a number of 0 or more"),
    ([*PAIRS, "--clip-norm", "-1"], "--clip-norm must be a number of 0 or more"),
    ([*PAIRS, "--micro-tokens", "-1"], "--micro-tokens must be a number of 0 or more"),
    ([*PAIRS, "--max-steps", "-1"], "--max-steps must be a number of 0 or more"),
    ([*PAIRS, "--save-every", "-1"], "--save-every must be a number of 0 or more"),
    ([*PAIRS, "--log-every", "-1"], "--log-every must be a number of 0 or more"),
    ([*ASKED, "--margin", "-1"], "--margin must be a number of 0 or more"),
    ([*PAIRS, "--epochs", "0"], "--epochs must be a number above 0"),
    ([*ASKED, "--method", "rwr", "--tau", "0"], "--tau must be a number above 0"),
    ([*ASKED, "--method", "ppo", "--clip", "0"], "--clip must be a number above 0"),
    ([*PAIRS, "--ema", "1"], "--ema must be 0 or more and below 1"),
    ([*PAIRS, "--label-smoothing", "0.5"], "--label-smoothing must be 0 or more and below 0.5"),
    ([*ASKED, "--method", "ppo", "--discount", "1.5"], "--discount must be from 0 to 1"),
    ([*PAIRS, "--value-coef", "0.5"], "--value-coef has no meaning with dpo"),
    ([*PAIRS, "--value-clip", "0.5"], "--value-clip has no meaning with dpo"),
    ([*PAIRS, "--discount", "0.9"], "--discount has no meaning with dpo"),
    ([*PAIRS, "--gae-lambda", "0.9"], "--gae-lambda has no meaning with dpo"),
    ([*ASKED, "--kl-target", "3"], "--kl-target has no meaning with dpo"),
    ([*ASKED, "--negative", "worst"], "--negative has no meaning with dpo"),
    ([*ASKED, "--negative-form", "ratio"], "--negative-form has no meaning with dpo"),
    ([*ASKED, "--negative-weight", "1"], "--negative-weight has no meaning with dpo"),
    ([*ASKED, "--negative-floor", "0.5"], "--negative-floor has no meaning with dpo"),
    ([*ASKED, "--method", "rwr", "--reference", "ema"], "--reference has no meaning with rwr"),
    (
        [*ASKED, "--method", "best", "--negative", "worst", "--negative-floor", "1"],
        "--negative-floor must be 0 or more and below 1",
    ),
]


@pytest.mark.parametrize(("arguments", "told"), REFUSED, ids=[" ".join(a) or "nothing" for a, _ in REFUSED])
def test_options_that_do_not_go_together_are_refused(
    arguments: list[str],
    told: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["prefer", *arguments]) == 1
    said = capsys.readouterr()
    assert said.err.startswith("heedful prefer: ") and told in said.err and said.out == ""
    assert list(tmp_path.iterdir()) == [], "nothing was begun"


def test_every_refusal_has_a_case() -> None:
    lines, first = inspect.getsourcelines(plan.problems)
    tree = ast.parse("".join(lines))
    refusals = {
        node.lineno + first - 1
        for node in ast.walk(tree)
        if (isinstance(node, ast.Expr) and ast.unparse(node).startswith("wrong.append"))
        or (isinstance(node, ast.Return) and isinstance(node.value, ast.List))
    }
    reached = set()

    def follow(frame: FrameType, event: str, argument: Any) -> Callable[..., Any] | None:
        if frame.f_code is plan.problems.__code__:
            reached.add(frame.f_lineno)
            return follow
        return None

    before = sys.gettrace()
    sys.settrace(follow)
    try:
        for arguments, _ in REFUSED:
            cfg = cli.parse("prefer", arguments)
            rounds = cfg.rounds if cfg.rounds >= 0 else 2 if cfg.prompts else 0
            plan.problems(dataclasses.replace(cfg, rounds=rounds))
    finally:
        sys.settrace(before)
    assert len(refusals) >= 15 and refusals <= reached
    told = {f"--{name.replace('_', '-')}" for name in plan.OPTION_OF}
    assert told <= {word for arguments, _ in REFUSED for word in arguments}


def test_what_training_would_refuse_is_refused_before_the_model_is_loaded() -> None:
    given = {"lr": "learning_rate", "micro_cost": "micro_tokens"}
    shared = {field.name for field in dataclasses.fields(prefer.Config)}
    checked = set()
    for field in dataclasses.fields(FitConfig):
        name = given.get(field.name, field.name)
        if (
            name not in shared
            or not isinstance(field.default, int | float)
            or isinstance(field.default, bool)
        ):
            continue
        # a flag that takes a whole number cannot be NaN
        odd = [float("nan"), float("inf")] if isinstance(field.default, float) else []
        for value in (-1, 0, 1, *odd):
            try:
                FitConfig(**{field.name: value})
            except HeedfulError:
                cfg = dataclasses.replace(prefer.Config(data="p.jsonl", rounds=0), **{name: value})
                assert any(f"--{name.replace('_', '-')} " in said for said in plan.problems(cfg)), (
                    name,
                    value,
                )
                checked.add(name)
    assert {"learning_rate", "epochs", "warmup", "ema", "keep", "batch_size"} <= checked


def test_everything_refused_is_said_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prefer", "--gamma", "2", "--top-p", "2", "--eval-data", "e"]) == 1
    said = capsys.readouterr().err
    for part in ("give --data", "--eval-data needs --data", "--gamma has no meaning", "--top-p"):
        assert part in said


@pytest.mark.parametrize(
    "arguments",
    [
        PAIRS,
        ASKED,
        [*PAIRS, "--reward-model", "smollm2", "--rounds", "1"],
        [*PAIRS, "--prompts", "q.jsonl", "--reward-model", "smollm2"],
        [*PAIRS, "--judge", "rule:exact"],
        [*ASKED, "--method", "reinforce", "--n", "1", "--baseline", "none"],
        [*ASKED, "--method", "apa", "--tau", "0.5", "--kl", "0.1", "--baseline", "leave_one_out"],
        [*ASKED, "--pairs", "all", "--margin", "0.5"],
        [*PAIRS, "--lora-rank", "0", "--label-smoothing", "0.1"],
        [*PAIRS, "--preset", "paper"],
        [*ASKED, "--preset", "paper"],
    ],
)
def test_these_options_go_together(arguments: list[str]) -> None:
    cfg = prefer.settle(cli.parse("prefer", arguments))
    assert cfg.rounds >= 0


# ---- the preset of the paper

PYTHIA = {"vocab_size": 50304, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24}
SMALL = {"vocab_size": 420, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}


@pytest.fixture(scope="module")
def pythia(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders: `tiny`, a random model of Pythia's architecture without a chat template, as the Hub has it; `real`,
    the configuration of Pythia-1.4B alone; pairs and prompts."""
    folder = tmp_path_factory.mktemp("pythia")
    shared: dict[str, Any] = {"max_position_embeddings": 2048, "bos_token_id": 0, "eos_token_id": 2}
    tiny.model(config=GPTNeoXConfig(num_attention_heads=4, **SMALL, **shared)).save_pretrained(
        folder / "tiny"
    )
    tiny.tokenizer(chat=False).save_pretrained(folder / "tiny")
    GPTNeoXConfig(num_attention_heads=16, **PYTHIA, **shared).save_pretrained(folder / "real")
    words = ["red", "green", "blue", "egg", "water", "France", "rainbow", "colour"]
    pairs = [
        {"prompt": f"Name {a} and {b}?", "chosen": f" {a}, {b}.", "rejected": f" I do not know {b}."}
        for i, a in enumerate(words)
        for b in words[:i]
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    prompts = [{"prompt": f"What is {word}?"} for word in words]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts))
    return folder


def test_a_dry_run_says_plan_memory_and_cost_and_writes_nothing(
    pythia: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["prefer", "--preset", "paper", "--dry-run", "--model", str(pythia / "real")]
    assert main([*words, "--data", f"{pythia}/pairs.jsonl"]) == 0
    said = capsys.readouterr().out
    # 1,414,647,808 is the number of parameters on the model's card; four bytes each are 5.27 GiB.
    for part in (
        r"plan \(paper preset\)",
        r"1,414\.6 M parameters, 24 layers",
        r"trained +1,414\.65 M parameters \(all\) by dpo",
        r"data +28 pairs, 0 prompts",
        r"work +1 stage\(s\), 600 steps of 64",
        r"weights +5\.27 GiB, reference 5\.27 GiB",
        r"training +15\.81 GiB gradients and AdamW",
        r"at most +about \d+\.\d\d GiB",
        r"arithmetic +about [\d,.]+ PFLOP",
        r"time +about .* at 150 GFLOP/s .* at 160 TFLOP/s",
        r"nothing was run \(--dry-run\)",
    ):
        assert re.search(part, said), part
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_follows_the_options(pythia: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def figures(*more: str) -> tuple[str, float]:
        words = ["prefer", "--preset", "paper", "--dry-run", "--model", f"{pythia}/tiny", *more]
        assert main(words) == 0
        text = capsys.readouterr().out
        found = re.search(r"about ([\d,.]+) PFLOP", text)
        assert found is not None
        return text, float(found[1].replace(",", ""))

    text, _ = figures("--prompts", f"{pythia}/prompts.jsonl", "--judge", "rule:length<9w", "--rounds", "3")
    assert "0 pairs, 8 prompts" in text and "3 stage(s), 1,800 steps of 64" in text
    # 3 rounds of 8 prompts with 4 samples, and one held-out prompt answered twice, before and after.
    assert "sampling     100 completions of up to 256 tokens" in text
    text, _ = figures("--data", f"{pythia}/pairs.jsonl", "--lora-rank", "4")
    assert "(LoRA)" in text and "reference" not in text


def test_the_preset_of_the_paper_runs(
    pythia: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoModelForCausalLM

    monkeypatch.setattr("heedful.run.commit", lambda: None)
    words = ["prefer", "--preset", "paper", "--model", f"{pythia}/tiny", "--max-steps", "2", "--quiet"]
    words += ["--max-new-tokens", "8", "--eval-limit", "2", "--device", "cpu", "--precision", "fp32"]
    asked = ["--prompts", f"{pythia}/prompts.jsonl", "--judge", "rule:length<9c", "--rounds", "1", "--n", "4"]
    for name, more in (("offline", ["--data", f"{pythia}/pairs.jsonl"]), ("onpolicy", asked)):
        run = tmp_path / name
        assert main([*words, *more, "--out", str(run)]) == 0, capsys.readouterr().err
        result = json.loads((run / "result.json").read_text())
        assert result["steps"] == 2 and result["method"] == "dpo"
        logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        rates = [row["lr"] for row in logged if "lr" in row]
        assert rates == [5e-7, 5e-7], "a constant rate without warm-up, as in the paper's code"
        before, after = (
            AutoModelForCausalLM.from_pretrained(folder).state_dict()
            for folder in (pythia / "tiny", run / "model")
        )
        moved = {n: float((after[n] - before[n]).abs().max()) for n in before}
        # AdamW's first steps move a weight by about its rate; all weights are trained, there is no adapter.
        assert sum(value > 1e-7 for value in moved.values()) > 0.8 * len(moved)
        assert max(moved.values()) < 3e-6
