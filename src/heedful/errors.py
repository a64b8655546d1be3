"""The one exception that means 'the user can fix this'; the command line prints it without a traceback."""

from __future__ import annotations


class HeedfulError(ValueError):
    """Bad input, option or environment. The message is complete: what is wrong, where, and what to do."""
