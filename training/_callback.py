"""What a caller may watch and decide while a network trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Progress:
    """Where the training stands after a step."""

    epoch: int  # from 1
    epochs: int
    step: int
    fraction: float  # of the budget, in [0, 1]
    loss: float
    seconds: float
    samples_per_second: float

    @property
    def remaining(self) -> float:
        """Seconds to go at the present rate."""
        return self.seconds * (1 / self.fraction - 1) if self.fraction > 0 else float("inf")


class Callback:
    """Does nothing; override what you need."""

    def batch(self, progress: Progress) -> None:
        """After every optimiser step."""

    def epoch(self, record: dict[str, Any]) -> None:
        """After every epoch, with its row of the history."""

    def stop(self) -> bool:
        """True ends the training after this step, resumably (asked after every step)."""
        return False
