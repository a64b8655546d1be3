"""A function out of a user's own Python file: `path.py:function`. The file is a program, and it runs."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from heedful.errors import HeedfulError


def function_of(path: Path, name: str, what: str = "judge") -> Callable[..., Any]:
    """Function `name` of the Python file at `path`; what: the part it plays, for messages.

    Raises HeedfulError when the file is not there, does not run (with its line) or has no such function.
    """
    if not path.is_file():
        raise HeedfulError(f"the {what}'s file {path} does not exist")
    found = getattr(_module(path, what), name, None)
    if not callable(found):
        raise HeedfulError(f"{path} has no function {name!r}")
    return found


def _module(path: Path, what: str) -> ModuleType:
    name = f"heedful_{what}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise HeedfulError(f"{path} cannot be loaded as a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their own module up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        line = error.lineno if isinstance(error, SyntaxError) else line_in(str(path), error)
        said = error.msg if isinstance(error, SyntaxError) else error
        raise HeedfulError(f"{path}{f':{line}' if line else ''}: {type(error).__name__}: {said}") from error
    return module


def line_in(file: str, error: BaseException) -> int | None:
    """The innermost line of a file that an exception passed through."""
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
