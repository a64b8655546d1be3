"""SIGTERM and Ctrl-C as a request that a loop honours between two steps."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

REPEAT_SECONDS = 1.0
NOTED = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def noted_signals() -> Iterator[list[int]]:
    """The numbers of SIGTERM and SIGINT as they arrive; a later second Ctrl-C acts as it did before, at once.

    The handlers are put back afterwards. Outside the main thread, and for a signal that is being ignored
    (nohup), nothing changes.
    """
    arrived: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield arrived
        return
    before = {number: signal.getsignal(number) for number in NOTED}

    first = [0.0]

    def note(number: int, frame: FrameType | None) -> None:
        # Launchers pass on what the whole process group has got already, so an immediate repeat is no wish.
        if arrived and number == signal.SIGINT and time.monotonic() - first[0] > REPEAT_SECONDS:
            signal.signal(number, before[signal.SIGINT])
            signal.raise_signal(number)
            return
        if not arrived:
            first[0] = time.monotonic()
            # A signal can arrive while the display prints, so this goes past Python's buffers.
            os.write(2, b"\nstopping after this step, then saving (a second Ctrl-C stops at once)\n")
        arrived.append(number)

    for number, handler in before.items():
        if handler not in (None, signal.SIG_IGN):
            signal.signal(number, note)
    try:
        yield arrived
    finally:
        for number, handler in before.items():
            if handler not in (None, signal.SIG_IGN):
                signal.signal(number, handler)


def leave_on(number: int) -> None:
    """Raise `SystemExit` as a shell reports the signal: 143 for SIGTERM, 130 for SIGINT; 0 is no signal."""
    if number:
        raise SystemExit(128 + number)
