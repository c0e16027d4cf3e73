"""What a reader has to say about a file that it can read."""

from __future__ import annotations

import sys
import warnings


class FormatWarning(UserWarning):
    """Something about a foreign file that its user should know."""


class KnownFault(FormatWarning):
    """A fault of a published format or data set, with the thread or paper that reports it."""


class Assumption(FormatWarning):
    """Something the file does not say and the reader had to take for granted."""


def tell(kind: type[FormatWarning], text: str) -> None:
    """Warn at the first caller outside the package, once a place and text."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(__package__ or "resolvent.data"):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, kind, stacklevel=level)
