"""The exception that means 'the user can fix this'; the command line prints it without a traceback."""

from __future__ import annotations


class HeedfulError(ValueError):
    """Bad input, option or environment. The message is complete: what is wrong, where, and what to do."""


class NotFinite(HeedfulError):
    """A step was not applied because its loss or gradient is not finite: these settings cannot learn this."""


class NothingToLearn(HeedfulError):
    """All samples of a round were worth the same to the judge."""
