"""What was said into a microphone, as one of the phrases of a bank: offline, by PocketSphinx (extra `speech`).

Its small English model comes with the package. It hears only the phrases that it was given: anything else is taken for
one of them or for nothing, which is why what was heard is shown, and can be undone. Another recogniser is any function
from sound to text: see `Hear`.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

RATE = 16_000
"""Samples a second; mono, 16 bits, the low byte first."""
LONGEST = 10
"""Seconds of a saying."""
QUIET = bytes(RATE // 2)
"""A quarter of a second; the recogniser wants some around the words."""
Hear = Callable[[bytes], str]
"""Sound to text; "" where nothing was understood."""


def recogniser(phrases: Sequence[str]) -> Hear | None:
    """A recogniser of these phrases; None where PocketSphinx is not installed, or knows the words of none of them."""
    try:
        sphinx: Any = import_module("pocketsphinx")
    except ImportError:
        return None
    # Without dither, digital silence before the words is taken for an infinitely quiet room, and little is heard.
    decoder = sphinx.Decoder(sphinx.Config(samprate=RATE, loglevel="FATAL", dither=True, cmn="batch"))
    said = {_plain(phrase): phrase for phrase in phrases}
    known = [p for p in said if p and all(decoder.lookup_word(word) is not None for word in p.split())]
    if not known:
        return None
    decoder.add_jsgf_string("bank", f"#JSGF V1.0;\ngrammar bank;\npublic <bank> = {' | '.join(known)} ;\n")
    decoder.activate_search("bank")
    one_at_a_time = threading.Lock()

    def hear(sound: bytes) -> str:
        with one_at_a_time:
            decoder.start_utt()
            decoder.process_raw(QUIET + sound[: len(sound) // 2 * 2] + QUIET, full_utt=True)
            decoder.end_utt()
            found = decoder.hyp()
        # A part of a phrase means that the rest was not understood.
        return said.get(found.hypstr, "") if found else ""

    return hear


def _plain(phrase: str) -> str:
    return " ".join(re.sub(r"[^a-z' ]", " ", phrase.lower()).split())
