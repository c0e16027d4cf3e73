"""What the pipeline tells whoever watches; this one is silent."""

from __future__ import annotations


class Reporter:
    """Long work announces itself as stages with a count; the command line draws them, Python use is silent."""

    def stage(self, title: str, total: float) -> None:
        """A stage begins; it ends when the next begins or the work is done."""

    def advance(self, done: float, detail: str = "") -> None:
        """So much of the present stage is done, in its own units."""

    def say(self, text: str) -> None:
        """One line worth reading later."""

    def stopping(self) -> bool:
        """True once the user has asked to stop; long work then ends resumably."""
        return False
