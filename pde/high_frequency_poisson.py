r"""Poisson's equation :math:`\Delta u = f` with waves far above the reach of plain networks; (f, g) -> u.

f     source               [1]   given; made from the solution
g     values on the faces  [1]   given; zero inside
u     solution             [1]   sought

Non-dimensional. The solutions are those of Fang et al., "Solving high frequency and multi-scale PDEs with Gaussian
processes" (ICLR 2024), with the formulas that its released code solves:

==========  ===========================================  ==============
case        u                                            domain
==========  ===========================================  ==============
p1          sin 100x                                     [0, 2 pi]
p2          sin x + 0.1 sin 20x + 0.05 sin 100x          [0, 1]
p3          sin 6x cos 100x                              [0, 2 pi]
p4          x sin 200x                                   [0, 2 pi]
p5          sin 500x - 2 (x - 1/2)²                      [0, 1]
p2d1        sin 100x sin 100y                            [0, 2 pi]²
p2d2        sin 6x cos 20x + sin 6y cos 20y              [0, 2 pi]²
p2d3        sin 100x cos 100y                            [0, 1]²
p3d         sin 60x cos 40y sin 50z (ours)               [0, 1]³
==========  ===========================================  ==============

Products of two waves of one coordinate are written as sums. Each draw has other amplitudes and phases at the
same frequencies; ``spread`` 0, as in the presets, is the published instance itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from ._grid import Grid
from ._high_frequency import HighFrequency
from ._manufactured import ONE, QUARTER, Manufactured, Product, Wave, cosine, sine
from ._problem import Setup

Case = Literal["p1", "p2", "p3", "p4", "p5", "p2d1", "p2d2", "p2d3", "p3d"]
TURN = 2 * math.pi

# sin a cos b = (sin(a + b) + sin(a - b)) / 2
SOLUTIONS: Mapping[str, tuple[float, tuple[Product, ...]]] = {
    "p1": (TURN, (Product(1.0, (sine(100),)),)),
    "p2": (1.0, (Product(1.0, (sine(1),)), Product(0.1, (sine(20),)), Product(0.05, (sine(100),)))),
    "p3": (TURN, (Product(0.5, (sine(106),)), Product(-0.5, (sine(94),)))),
    "p4": (TURN, (Product(1.0, (Wave(200, power=1),)),)),
    "p5": (1.0, (Product(1.0, (sine(500),)), Product(-2.0, (Wave(phase=QUARTER, power=2, centre=0.5),)))),
    "p2d1": (TURN, (Product(1.0, (sine(100), sine(100))),)),
    "p2d2": (
        TURN,
        (
            Product(0.5, (sine(26), ONE)),
            Product(-0.5, (sine(14), ONE)),
            Product(0.5, (ONE, sine(26))),
            Product(-0.5, (ONE, sine(14))),
        ),
    ),
    "p2d3": (1.0, (Product(1.0, (sine(100), cosine(100))),)),
    "p3d": (1.0, (Product(1.0, (sine(60), cosine(40), sine(50))),)),
}


@dataclass(frozen=True, kw_only=True)
class HighFrequencyPoisson(HighFrequency):
    """The Laplacian inverted on waves; ``case`` names the solution."""

    case: Case = "p1"  # a row of the table above

    setups: ClassVar[Mapping[str, Setup]] = {
        "quick": Setup(resolution=400, train=16, validation=4, test=4),
        "paper": Setup(resolution=400, train=128, validation=16, test=16),
    }
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {name: {"case": name, "spread": 0.0} for name in SOLUTIONS}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.case not in get_args(Case):
            raise ValueError(f"case is one of {get_args(Case)}, got {self.case!r}.")

    @property
    def dim(self) -> int:
        return len(self.solution.products[0].factors)

    @property
    def solution(self) -> Manufactured:
        return Manufactured(SOLUTIONS[self.case][1])

    @property
    def terms(self) -> tuple[tuple[tuple[int, ...], float], ...]:
        return tuple((tuple(2 * (i == j) for i in range(self.dim)), 1.0) for j in range(self.dim))

    def grid(self, resolution: int | Sequence[int]) -> Grid:
        return Grid.box(resolution, upper=SOLUTIONS[self.case][0], dim=self.dim, boundary="dirichlet")


build = HighFrequencyPoisson
