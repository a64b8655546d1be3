"""What a person sees while a stage trains: a live bar in a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskProgressColumn,
    TextColumn,
)
from rich.progress import Progress as Bar

PLAIN_SECONDS = 10.0


def clock(seconds: float) -> str:
    """75 is `1:15`, 3700 is `1:01:40`."""
    whole = max(0, round(seconds))
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


@contextmanager
def transformers_quiet() -> Iterator[None]:
    """The progress bars of transformers and its tables of missing weights are off meanwhile."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


class Progress:
    """Shows step, loss, speed and time left of one stage on stderr; a context manager.

    Not a terminal: a line at the first and last step, every tenth of the steps and every ten seconds at most.
    quiet: nothing but warnings.
    """

    def __init__(self, stage: str, total: int, start: int = 0, *, unit: str = "rows", quiet: bool = False):
        self.stage, self.total, self.start, self.unit, self.quiet = stage, total, start, unit, quiet
        self.begun = self.printed = time.monotonic()
        self.tenth = -1
        self.bar: Bar | None = None
        if not quiet and sys.stderr.isatty():
            self.bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TaskProgressColumn(),
                TextColumn("{task.fields[state]}"),
                console=Console(stderr=True),
            )
            self.task = self.bar.add_task(stage, total=total, completed=start, state="")

    def __enter__(self) -> Progress:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ):
        if self.bar:
            self.bar.stop()

    def update(self, step: int, loss: float, rate: float) -> None:
        """After `step` of `total` steps: the step's loss and the units (tokens, rows) per second."""
        left = (time.monotonic() - self.begun) / max(1, step - self.start) * (self.total - step)
        self.show(step, f"loss {loss:.4f}  {rate:,.0f} {self.unit}/s  {clock(left)} left")

    def show(self, step: int, state: str) -> None:
        """`step` of `total` is reached; `state` says in a few words how it goes."""
        if self.quiet:
            return
        now = time.monotonic()
        if self.bar:
            self.bar.update(self.task, completed=step, state=state)
            return
        tenth = 10 * step // max(1, self.total)
        if tenth > self.tenth or now - self.printed >= PLAIN_SECONDS:
            self.tenth, self.printed = tenth, now
            print(f"{self.stage}: {step}/{self.total}  {state}", file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """A line that stays: a resume, a damaged checkpoint, a stop on request."""
        if self.bar:
            self.bar.console.print(f"{self.stage}: {text}", markup=False, highlight=False)
        else:
            print(f"{self.stage}: {text}", file=sys.stderr, flush=True)
