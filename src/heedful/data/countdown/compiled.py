"""numba for this package: compiled when first called, without Python's lock, and kept on disk where it can be."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit

F = TypeVar("F", bound=Callable[..., Any])
# numba compiles a function again for an argument that is a constant, and not for these.
ZERO, ONE = cast(int, np.int64(0)), cast(int, np.int64(1))
FILES = ("twister.py", "searchers.py", "vocabulary.py", "writers.py", "sampler.py", "packed.py")


def _stamp() -> bytes:
    digest = hashlib.sha256()
    for name in FILES:
        digest.update(Path(__file__).with_name(name).read_bytes())
    return digest.digest()


STAMP = _stamp()


def part(function: F) -> F:
    """Compile `function` into those that call it."""
    made: Any = njit(nogil=True)(function)
    return made


def entry(function: F) -> F:
    """Compile `function`, which Python calls; the machine code goes to `__pycache__`, or to the user's cache folder.

    Where neither can be written (a read-only installation, no home), each process compiles anew.
    """
    try:
        made: Any = njit(nogil=True, cache=True)(function)
        # numba looks for changes in the function's own file only, but code from the others is compiled into it.
        made._cache._cache_file._source_stamp = STAMP
    except (RuntimeError, AttributeError):
        made = njit(nogil=True)(function)
    return made
