"""The problem behind a user's own data: signature and grid are known, the equation is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Generator, Tensor

from ..pde import Grid, Problem, Setup, Signature, Solver

NAME = "data"  # where a command-line name of a problem stands: runs/data-mgno-…


@dataclass(frozen=True, kw_only=True)
class Given(Problem):
    """Data without an equation: it cannot be sampled, and no reference solver stands behind it."""

    fields: Signature
    domain: Grid
    setups: ClassVar[Mapping[str, Setup]] = {}

    @property
    def signature(self) -> Signature:
        return self.fields

    @property
    def name(self) -> str:
        return NAME

    def parameters(self) -> dict[str, Any]:
        return {}

    def grid(self, resolution: int | Sequence[int]) -> Grid:
        return self.domain.at(resolution)

    def sample(self, count: int, grid: Grid, *, generator: Generator) -> Tensor:
        raise ValueError("These data were given, not generated: their distribution is not known.")

    def reference(self, **accuracy: Any) -> Solver:
        raise ValueError("These data were given without an equation: there is no reference solver to ask.")
