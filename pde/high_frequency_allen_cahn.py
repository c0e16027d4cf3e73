r"""Steady Allen-Cahn equation :math:`\Delta u + u(u^2 - 1) = f` with high-frequency solutions; (f, g) -> u.

f     source               [1]   given; made from the solution
g     values on the faces  [1]   given; zero inside
u     solution             [1]   sought

Non-dimensional. The solutions of Fang et al. (ICLR 2024): ``ac1`` is sin 100x and ``ac2`` is sin 6x cos 100x on
[0, 2 pi]; ``ac2d`` is q(x) q(y) with q = sin x + 0.1 sin 20x + cos 100x on the unit square. The cube triples the
frequencies that f holds. Each draw has other amplitudes and phases at the same frequencies; ``spread`` 0, as in the
presets, is the published instance itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from torch import Tensor

from ._equation import Reaction
from ._grid import Grid
from ._high_frequency import HighFrequency
from ._manufactured import Manufactured, Product, cosine, sine
from ._problem import Setup
from .high_frequency_poisson import SOLUTIONS

Case = Literal["ac1", "ac2", "ac2d"]
_FACTORS = ((1.0, sine(1)), (0.1, sine(20)), (1.0, cosine(100)))  # q
_PRODUCT = tuple(Product(a * b, (p, q)) for (a, p), (b, q) in itertools.product(_FACTORS, repeat=2))
_SOLUTIONS = {"ac1": SOLUTIONS["p1"], "ac2": SOLUTIONS["p3"], "ac2d": (1.0, _PRODUCT)}


def _reaction(u: Tensor) -> Tensor:
    return u * (u.square() - 1)


@dataclass(frozen=True, kw_only=True)
class HighFrequencyAllenCahn(HighFrequency):
    """A double well under waves; ``case`` names the solution."""

    case: Case = "ac1"  # see the head of the file

    reaction: ClassVar[Reaction | None] = staticmethod(_reaction)
    resolved = 1.5  # products of the solution with itself are sampled above their own frequency
    setups: ClassVar[Mapping[str, Setup]] = {
        "quick": Setup(resolution=400, train=16, validation=4, test=4),
        "paper": Setup(resolution=400, train=128, validation=16, test=16),
    }
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {name: {"case": name, "spread": 0.0} for name in _SOLUTIONS}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.case not in get_args(Case):
            raise ValueError(f"case is one of {get_args(Case)}, got {self.case!r}.")

    @property
    def dim(self) -> int:
        return 2 if self.case == "ac2d" else 1

    @property
    def solution(self) -> Manufactured:
        return Manufactured(_SOLUTIONS[self.case][1])

    @property
    def terms(self) -> tuple[tuple[tuple[int, ...], float], ...]:
        return tuple((tuple(2 * (i == j) for i in range(self.dim)), 1.0) for j in range(self.dim))

    def grid(self, resolution: int | Sequence[int]) -> Grid:
        return Grid.box(resolution, upper=_SOLUTIONS[self.case][0], dim=self.dim, boundary="dirichlet")


build = HighFrequencyAllenCahn
