"""A fitted run of two tastes for the tests of the web page, and its server as a program of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from personalize_people import crowd, write

from heedful.cli import main

ATTACKS = (
    "<script>document.title='pwned'</script>",
    "<img src=x onerror=\"document.title='pwned'\">",
    "</div></article><iframe src='javascript:parent.document.title=`pwned`'></iframe>",
    "{{7*7}} ${document.title='pwned'} javascript:alert(1)",
    "\u202egnp.exe \u0000\u001b[31m & &amp; &lt;b&gt;",
)


def fit_run(folder: Path) -> Path:
    """The run of a fit to 160 generated pairs, without labels; 48 pairs to ask about."""
    write(folder / "people.jsonl", crowd(160))
    words = [str(folder / "people.jsonl"), "--out", str(folder / "run"), "--cache", str(folder / "cache")]
    words += ["--heads", "20", "--dimensions", "8", "--pool-share", "0.3", "--quiet"]
    assert main(["personalize", "fit", *words]) == 0
    return folder / "run"


def pool_of(run: Path) -> list[dict[str, Any]]:
    """The pairs that the person may be asked about."""
    return [json.loads(line) for line in (run / "pool.jsonl").read_text().splitlines()]


def events(run: Path) -> list[dict[str, Any]]:
    """labels.jsonl without the times."""
    path = run / "labels.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [{key: value for key, value in json.loads(line).items() if key != "time"} for line in lines]


def poison(run: Path) -> None:
    """Put foreign text where a page might take it for its own."""
    rows = pool_of(run)
    for i, row in enumerate(rows):
        attack = ATTACKS[i % len(ATTACKS)]
        row["prompt"] = [{"role": attack, "content": attack}, {"role": "user", "content": f"{attack}?"}]
        row["first"], row["second"] = f"{attack} first", f"second {attack}{'w' * 400}"
    write(run / "pool.jsonl", rows)


@contextmanager
def serving(
    run: Path, *words: str, port: int = 0, **variables: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`heedful serve` as a program, and the address that it prints."""
    command = [sys.executable, "-m", "heedful", "serve", str(run), "--port", str(port), *words]
    environment: Mapping[str, str] = {**os.environ, "PYTHONUNBUFFERED": "1", **variables}
    server = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )
    assert server.stdout is not None
    lines = []
    try:
        for line in server.stdout:
            lines.append(line)
            if line.startswith("open "):
                break
        else:
            raise AssertionError("the server has not started: " + "".join(lines))
        yield server, lines[-1].split()[1]
    finally:
        server.kill()
        server.wait()
        server.stdout.close()
