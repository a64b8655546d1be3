"""What a run was made with: versions, commit, device and the content of its data files."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import subprocess
from pathlib import Path

import heedful


def versions() -> dict[str, str]:
    """Versions of what decides a run's numbers."""
    found = {"heedful": heedful.__version__, "python": platform.python_version()}
    for name in ("torch", "transformers", "peft"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def commit() -> str | None:
    """The commit of heedful's own source when it runs from a checkout; a `+` marks uncommitted changes."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        for command in (["ls-files", "--error-unmatch", "run.py"], ["rev-parse", "HEAD"]):
            done = subprocess.run([*git, *command], capture_output=True, text=True, timeout=20)
            if done.returncode != 0:
                return None
        dirty = subprocess.run(
            [*git, "status", "--porcelain", "."], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() + ("+" if dirty.stdout.strip() else "")


def device_name() -> str:
    """The accelerator's name, or the CPU and how many threads torch uses on it."""
    import torch

    if torch.cuda.is_available():
        return f"cuda: {torch.cuda.get_device_name()}"
    return f"cpu: {platform.machine()}, {torch.get_num_threads()} threads"


def sha256_of(path: Path) -> str | None:
    """Of a file's bytes, or of the names and hashes in a folder; None for what is no path (Hub data)."""
    if path.is_dir():
        lines = [f"{sha256_of(f)}  {f.relative_to(path)}\n" for f in sorted(path.rglob("*")) if f.is_file()]
        return hashlib.sha256("".join(lines).encode()).hexdigest()
    if not path.exists():
        return None
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
