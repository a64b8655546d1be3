"""The source as text and syntax tree: what is banned, who may import whom, and what every file must have."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "heedful"
FILES = sorted(SOURCE.rglob("*.py"))
TEXTS = {str(path.relative_to(SOURCE)): path.read_text() for path in FILES}

BANNED_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
BANNED_BUILTINS = {"eval", "exec", "compile", "__import__"}
BANNED_CALLS = {
    "torch.load",
    "torch.hub.load",
    "torch.save",
    "os.system",
    "os.popen",
    "pandas.read_pickle",
    "builtins.eval",
    "builtins.exec",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
}

LAYERS = (
    ("papers", "serve"),
    ("recipes",),
    (
        *("policies", "judges", "evals", "data"),
        *("report", "report_compare", "report_drawings", "report_plots", "report_values"),
    ),
    ("feedback", "losses", "returns", "fit", "run"),
    ("config", "checkpoint", "errors"),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


@cache
def parsed(name: str) -> ast.Module:
    """The tree of a file, to be read and not changed."""
    return ast.parse(TEXTS[name])


def wrong(rule: Callable[[str], Iterable[str]]) -> dict[str, list[str]]:
    """What `rule` finds in each file; files where it finds nothing are not there."""
    assert len(TEXTS) > 100
    return {name: found for name in TEXTS if (found := list(rule(name)))}


# ---- what is banned


def dotted(node: ast.expr, known: dict[str, str]) -> str:
    """`a.b.c` with import aliases resolved; "" for anything else."""
    if isinstance(node, ast.Name):
        return known.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        left = dotted(node.value, known)
        return f"{left}.{node.attr}" if left else ""
    return ""


def aliases(tree: ast.AST) -> dict[str, str]:
    """What each imported name stands for."""
    known = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                if name.asname:
                    known[name.asname] = name.name
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for name in node.names:
                known[name.asname or name.name] = f"{node.module}.{name.name}"
    return known


def banned(module: str) -> bool:
    """Whether a module is for pickles."""
    return module.split(".")[0] in BANNED_MODULES or module.endswith(".pickle")


def offences(tree: ast.Module) -> list[str]:
    """Everything banned in one file, as `line: what`."""
    known = aliases(tree)
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [name.name for name in node.names]
            found += [f"{node.lineno}: import of {module}" for module in modules if banned(module)]
        elif isinstance(node, ast.ImportFrom) and not node.level and banned(node.module or ""):
            found.append(f"{node.lineno}: import of {node.module}")
        if isinstance(node, ast.Name) and node.id in BANNED_BUILTINS and isinstance(node.ctx, ast.Load):
            found.append(f"{node.lineno}: {node.id}")
        elif isinstance(node, ast.Name | ast.Attribute) and dotted(node, known) in BANNED_CALLS:
            found.append(f"{node.lineno}: {dotted(node, known)}")
        if isinstance(node, ast.keyword):
            false = isinstance(node.value, ast.Constant) and node.value.value is False
            if node.arg in ("trust_remote_code", "shell", "allow_pickle") and not false:
                found.append(f"{node.value.lineno}: {node.arg} is not False")
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                named = isinstance(key, ast.Constant) and key.value == "trust_remote_code"
                if named and not (isinstance(value, ast.Constant) and value.value is False):
                    found.append(f"{value.lineno}: trust_remote_code is not False")
    return found


def test_nothing_banned() -> None:
    assert wrong(lambda name: offences(parsed(name))) == {}


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from pickle import loads",
        "import joblib as j",
        "import torch\ntorch.load('x')",
        "import torch as t\nt.load('x')",
        "from torch import load\nload('x')",
        "from torch import load as fetch\nread = fetch",
        "eval('1')",
        "run = exec",
        "__import__('os')",
        "import os\nos.system('ls')",
        "from os import system\nsystem('ls')",
        "import subprocess\nsubprocess.run('ls', shell=True)",
        "import subprocess\nsubprocess.run('ls', shell=flag)",
        "AutoModel.from_pretrained(x, trust_remote_code=True)",
        "AutoModel.from_pretrained(x, **{'trust_remote_code': flag})",
        "import numpy as np\nnp.load(x, allow_pickle=True)",
        "import yaml\nyaml.load(x)",
    ],
)
def test_the_scan_sees_what_is_banned(text: str) -> None:
    assert offences(ast.parse(text))


@pytest.mark.parametrize(
    "text",
    [
        "# eval() and pickle are banned\nx = 'torch.load(y)'",
        "model.eval()",
        "import re\nre.compile('a')",
        "from safetensors.torch import load_file\nload_file('x')",
        "AutoModel.from_pretrained(x, trust_remote_code=False)",
        "import subprocess\nsubprocess.run(['ls'], shell=False)",
        "import torch\ntorch.compile(f)",
    ],
)
def test_the_scan_lets_the_rest_pass(text: str) -> None:
    assert offences(ast.parse(text)) == []


# ---- who imports whom


def imported(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """(line, absolute module) of each import anywhere in the tree; `package` resolves relative ones."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            # `from heedful import losses` imports the module heedful.losses.
            yield from ((node.lineno, f"{module}.{name.name}") for name in node.names)


def at_import(tree: ast.Module) -> ast.Module:
    """The tree without function bodies and `if TYPE_CHECKING:`, that is, what runs when it is imported."""

    class Prune(ast.NodeTransformer):
        def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
            return None

        def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
            return None

        def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
            if dotted(node.test, {}).split(".")[-1] == "TYPE_CHECKING":
                return [self.visit(kept) for kept in node.orelse]
            return self.generic_visit(node)

    return Prune().visit(tree)


def package_of(name: str) -> str:
    return ".".join(["heedful", *Path(name).parent.parts])


def part_of(name: str) -> str:
    """The part of the library a file belongs to: its folder, or its own name at the top."""
    first = Path(name).parts[0]
    return first.removesuffix(".py")


def upward(tree: ast.Module, name: str) -> list[str]:
    """Imports that point from a lower layer to a higher one."""
    if name in ("cli.py", "__main__.py"):
        return []
    # A file at the top that no layer names (hub, device, ...) serves the layers: it stands with `fit`.
    level = LEVEL.get(part_of(name), LEVEL["fit"])
    found = []
    for line, module in imported(tree, package_of(name)):
        parts = module.split(".")
        if parts[0] == "heedful" and len(parts) > 1 and LEVEL.get(parts[1], len(LAYERS)) < level:
            found.append(f"{line}: {part_of(name)} imports {module}")
    return found


def test_imports_point_one_way() -> None:
    assert wrong(lambda name: upward(parsed(name), name)) == {}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("policies/language.py", "from heedful.recipes.prefer import run"),
        ("policies/language.py", "def f():\n    from heedful import recipes"),
        ("fit.py", "from heedful.policies.language import LanguagePolicy"),
        ("run.py", "import heedful.evals.language"),
        ("recipes/prefer.py", "from ..papers import preferences"),
        ("errors.py", "from heedful.run import Run"),
        ("hub.py", "from heedful.policies.backbone import Lora"),
    ],
)
def test_the_direction_test_sees_upward_imports(name: str, text: str) -> None:
    assert upward(ast.parse(text), name)


def test_only_the_entry_point_imports_the_command_line() -> None:
    def of_cli(name: str) -> list[str]:
        found = [module for _, module in imported(parsed(name), package_of(name))]
        return [module for module in found if module.startswith("heedful.cli")]

    assert set(wrong(of_cli)) <= {"cli.py", "__main__.py"}


def test_losses_import_torch_and_jaxtyping_alone() -> None:
    import sys

    for path in (SOURCE / "losses").glob("*.py"):
        modules = {module for _, module in imported(ast.parse(path.read_text()), "heedful.losses")}
        foreign = {module for module in modules if not module.startswith("heedful.losses.")}
        assert {m.split(".")[0] for m in foreign} - set(sys.stdlib_module_names) <= {"torch", "jaxtyping"}


HEAVY = {"torch", "transformers", "datasets", "pyarrow", "peft", "accelerate", "pandas"}
WITHOUT_TORCH = [
    "__init__.py",
    "__main__.py",
    "cli.py",
    "config.py",
    "errors.py",
    "report.py",
    "journal.py",
    "run.py",
    "data/corrections.py",
    "data/rows.py",
    "data/segments.py",
    "data/validate.py",
    "data/episodes/__init__.py",
    "data/scopes/grammar.py",
    "data/scopes/__init__.py",
    "judges/effects.py",
    "policies/commands.py",
    "policies/override.py",
    "recipes/act.py",
    "recipes/act_collect.py",
    "recipes/act_plan.py",
    "recipes/demos.py",
    "recipes/prefer.py",
    "recipes/retrieve.py",
    "recipes/retrieve_demo.py",
    "recipes/retrieve_eval.py",
    "recipes/retrieve_train.py",
    "recipes/tell.py",
    "recipes/tell_commands.py",
    "serve/command.py",
]


def needs_at_import(name: str, seen: set[str] | None = None) -> set[str]:
    """Packages that importing a file of the library brings in, through the library's own files too."""
    seen = set() if seen is None else seen
    if name in seen or not (SOURCE / name).exists():
        return set()
    seen.add(name)
    found = set()
    for _, module in imported(at_import(ast.parse(TEXTS[name])), package_of(name)):
        parts = module.split(".")
        if parts[0] != "heedful":
            found.add(parts[0])
            continue
        for i in range(1, len(parts) + 1):
            path = "/".join(parts[1:i])
            found |= needs_at_import(f"{path}.py" if path else "__init__.py", seen)
            found |= needs_at_import(f"{path}/__init__.py" if path else "__init__.py", seen)
    return found


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_these_import_without_torch(name: str) -> None:
    assert (SOURCE / name).exists()
    assert needs_at_import(name) & HEAVY == set()


def test_the_chain_of_imports_is_followed() -> None:
    assert "torch" in needs_at_import("fit.py")
    assert "torch" in needs_at_import("judges/reward.py")


# ---- what every file has


def test_no_file_is_too_long() -> None:
    long = {name: lines for name, text in TEXTS.items() if (lines := len(text.splitlines())) > 400}
    assert long == {}, "over 400 lines: two things in one file?"


def undocumented(tree: ast.Module) -> list[str]:
    """Public functions, classes and methods without a docstring; `__init__` and overloads are exempt."""

    def look(body: list[ast.stmt], prefix: str) -> Iterator[str]:
        for node in body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            if node.name.startswith("_"):
                continue
            if not ast.get_docstring(node):
                yield f"{node.lineno}: {prefix}{node.name}"
            if isinstance(node, ast.ClassDef):
                yield from look(node.body, f"{node.name}.")

    missing = [] if ast.get_docstring(tree) or not tree.body else ["1: the module"]
    return [*missing, *look(tree.body, "")]


def test_everything_public_has_a_docstring() -> None:
    assert wrong(lambda name: undocumented(parsed(name))) == {}


def test_missing_docstrings_are_seen() -> None:
    tree = ast.parse(
        '"""Here."""\ndef f(): ...\nclass C:\n    """C."""\n    def m(self): ...\ndef _p(): ...\n'
    )
    assert undocumented(tree) == ["2: f", "5: C.m"]


def test_names_say_something() -> None:
    vague = {"utils", "util", "helpers", "manager", "base", "common"}
    assert wrong(lambda name: vague & set(Path(name).stem.split("_"))) == {}


def test_nothing_is_left_unfinished() -> None:
    def marks(name: str) -> Iterator[str]:
        nodes = ast.walk(parsed(name))
        yield from (n.id for n in nodes if isinstance(n, ast.Name) and n.id == "NotImplementedError")
        comments = [line.split("#", 1)[1] for line in TEXTS[name].splitlines() if "#" in line]
        yield from (c for c in comments if any(mark in c for mark in ("TODO", "FIXME", "XXX")))

    assert wrong(marks) == {}
