"""heedful improves a model from feedback, whatever the model and whatever the feedback."""

from __future__ import annotations

__version__ = "0.1.0"
