r"""Swift-Hohenberg equation on a periodic box, in one to three dimensions: u(0) -> u at the following frames.

.. math:: u_t = r\, u - (q^2 + \Delta)^2 u + g\, u^2 - b\, u^3

u    amplitude of a pattern (convection rolls)  [1]      sought
r    distance from the onset of the pattern     [1/s]    given
q    its wave number                            [1/m]    given; with [m^4/s] = 1 before the fourth derivative
g    preference for spots over stripes          [1/s]    given
b    saturation                                 [1/s]    given

A small wave of wave number k grows at the rate r - (q² - k²)²: for r > 0 those of length near 2 pi / q. They saturate
as stripes (g small) or spots, while the energy
:math:`\int \frac12 ((q^2 + \Delta) u)^2 - \frac r2 u^2 - \frac g3 u^3 + \frac b4 u^4` only falls. Allow 8 nodes
for 2 pi / q.

The cube is dealiased exactly (``_products``). Preset ``apebench``: r = 0.7, q = 1, g = b = 1, L = 10 pi, frames of 0.1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Generator, Tensor

from ._grid import Grid
from ._initial_states import Law, check_law, initial_states
from ._periodic import Semilinear, check_box, check_not_negative, check_positive
from ._problem import Channel, Problem, Setup, Signature
from ._products import pointwise
from ._refined import RefinedEvolution, refined_ladder
from ._solver import Solver
from ._spectral import Modes, modes_of


@dataclass(frozen=True, kw_only=True)
class SwiftHohenberg(Problem, Semilinear):
    """Stripes and spots out of nothing."""

    dim: Literal[1, 2, 3] = 1  # dimensions of the box
    growth: float = 0.7  # r [1/s]
    wavenumber: float = 1.0  # q [1/m]
    quadratic: float = 1.0  # g [1/s]
    cubic: float = 1.0  # b [1/s]
    initial: Law = "truncated_fourier"  # law of u(0)
    alpha: float = 3.0  # smoothness of a random field
    tau: float = 1.0  # its inverse correlation length [1/m]
    length: float = 10 * math.pi  # side of the box [m]
    frames: int = 10
    spacing: float = 1.0  # time between frames [s]

    setups: ClassVar[Mapping[str, Setup]] = {
        "quick": Setup(resolution=64, train=128, validation=16, test=32),
        "paper": Setup(resolution=160, train=1000, validation=100, test=200),
    }
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "apebench": {
            **{"growth": 0.7, "wavenumber": 1.0, "quadratic": 1.0, "cubic": 1.0, "length": 10 * math.pi},
            **{"frames": 50, "spacing": 0.1},
        },
    }

    def __post_init__(self) -> None:
        if self.dim not in (1, 2, 3):
            raise ValueError(f"dim is 1, 2 or 3, got {self.dim}.")
        if not (math.isfinite(self.growth) and math.isfinite(self.quadratic)):
            raise ValueError(f"growth and quadratic must be finite, got {self.growth} and {self.quadratic}.")
        check_not_negative(wavenumber=self.wavenumber, cubic=self.cubic, tau=self.tau)
        check_positive(length=self.length, frames=self.frames, spacing=self.spacing)
        check_law(self.initial, self.alpha, self.dim)

    @property
    def signature(self) -> Signature:
        amplitude = (Channel("amplitude", "1", "pattern amplitude u"),)
        return Signature(amplitude, amplitude, self.frames, self.spacing, "s")

    def grid(self, resolution: int | Sequence[int]) -> Grid:
        return check_box(Grid.box(resolution, dim=self.dim, upper=self.length, unit="m"), self.dim, "swift_hohenberg")

    def sample(self, count: int, grid: Grid, *, generator: Generator) -> Tensor:
        return initial_states(self.initial, count, grid, alpha=self.alpha, tau=self.tau, generator=generator)

    def reference(self, **accuracy: Any) -> RefinedEvolution:
        """Fourier in space, order 4 in time; ``nodes``, ``tolerance``, … of :class:`RefinedEvolution`."""
        return RefinedEvolution(self, **accuracy)

    def ladder(self, grid: Grid) -> Mapping[str, Solver]:
        return refined_ladder(self, grid)

    def symbol(self, modes: Modes) -> Tensor:
        return self.growth - (self.wavenumber**2 - modes.k2).square()

    def nonlinear(self, spectrum: Tensor, modes: Modes) -> Tensor:
        return pointwise(self._reaction, spectrum, modes, degree=3)

    def _reaction(self, u: Tensor) -> Tensor:
        """The reaction, q u² - c u³."""
        return u.square().mul_(u.mul_(-self.cubic).add_(self.quadratic))

    def energy(self, fields: Tensor, grid: Grid) -> Tensor:
        """Per leading index, the functional of the head of this file; it never grows."""
        modes = modes_of(grid, fields)
        bent = modes.inverse((self.wavenumber**2 - modes.k2) * modes.forward(fields))
        density = 0.5 * bent.square() - 0.5 * self.growth * fields.square()
        density = density - self.quadratic / 3 * fields**3 + 0.25 * self.cubic * fields**4
        return density.mean(dim=modes.axes) * math.prod(grid.lengths)


build = SwiftHohenberg
