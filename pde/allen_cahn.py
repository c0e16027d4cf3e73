r"""Allen-Cahn equation on a box, periodic or between walls, in one to three dimensions: u(0) -> u at later frames.

.. math:: u_t = \epsilon\, \Delta u + a\, u - b\, u^3

u         order parameter  [1]      sought: tends to the phases +-sqrt(a / b)
epsilon   diffusivity      [m^2/s]  given
a, b      growth and saturation of the two phases [1/s]

boundary   ``periodic``; ``dirichlet``: u = 0 on the walls (nodes ``ends``); ``neumann``: interfaces meet the walls at
           right angles (nodes ``centres``)

Within a time of some 1 / a the domain falls into the two phases, parted by interfaces tanh(x / w) of width
w = sqrt(2 epsilon / a), which then creep by their curvature (in one dimension exponentially slowly) while the energy
:math:`\int \frac\epsilon2 |\nabla u|^2 - \frac a2 u^2 + \frac b4 u^4` only falls. Allow four nodes for w.

The cube is dealiased exactly (``_products``). Preset ``pinn``: u_t = 1e-4 u_xx - 5 u³ + 5 u on [-1, 1], periodic, of
the literature on physics-informed networks (Raissi et al. 2019); its one state is x² cos(pi x), with a kink at the
ends. Samples here are random fields of amplitude sigma: published data sets have no common law.
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
from ._walls import BetweenWalls, Walls, between_walls, extend, torus_of, wall_grid


@dataclass(frozen=True, kw_only=True)
class AllenCahn(Problem, Semilinear):
    """Two phases and the interfaces between them."""

    dim: Literal[1, 2, 3] = 1  # dimensions of the box
    boundary: Walls = "periodic"
    diffusivity: float = 1e-3  # epsilon [m^2/s]
    growth: float = 1.0  # a [1/s]
    saturation: float = 1.0  # b [1/s]
    initial: Law = "random_field"  # law of u(0)
    alpha: float = 3.0  # smoothness of a random field
    tau: float = 5.0  # its inverse correlation length [1/m]
    sigma: float = 300.0  # its amplitude: with the values above the standard deviation is about 0.6 in one dimension
    lower: float = 0.0  # where the box begins on each axis [m]
    length: float = 1.0  # side of the box [m]
    frames: int = 10
    spacing: float = 0.5  # time between frames [s]

    setups: ClassVar[Mapping[str, Setup]] = {
        "quick": Setup(resolution=128, train=128, validation=16, test=32),
        "paper": Setup(resolution=256, train=1000, validation=100, test=200),
    }
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "pinn": {
            **{"diffusivity": 1e-4, "growth": 5.0, "saturation": 5.0, "lower": -1.0, "length": 2.0},
            **{"frames": 200, "spacing": 0.005},
        },
    }

    def __post_init__(self) -> None:
        if self.dim not in (1, 2, 3):
            raise ValueError(f"dim is 1, 2 or 3, got {self.dim}.")
        if not (math.isfinite(self.growth) and math.isfinite(self.lower)):
            raise ValueError(f"growth and lower must be finite, got {self.growth} and {self.lower}.")
        check_not_negative(diffusivity=self.diffusivity, saturation=self.saturation, tau=self.tau)
        check_positive(length=self.length, sigma=self.sigma, frames=self.frames, spacing=self.spacing)
        check_law(self.initial, self.alpha, self.dim, self.boundary)

    @property
    def signature(self) -> Signature:
        phase = (Channel("phase", "1", "order parameter u"),)
        return Signature(phase, phase, self.frames, self.spacing, "s")

    def grid(self, resolution: int | Sequence[int]) -> Grid:
        upper = self.lower + self.length
        box = wall_grid(resolution, self.boundary, dim=self.dim, lower=self.lower, upper=upper)
        return check_box(box, self.dim, "allen_cahn")

    def sample(self, count: int, grid: Grid, *, generator: Generator) -> Tensor:
        law = {"alpha": self.alpha, "tau": self.tau, "sigma": self.sigma}
        return initial_states(self.initial, count, grid, **law, generator=generator)

    def reference(self, **accuracy: Any) -> BetweenWalls:
        """Trigonometric series, order 4 in time; ``nodes``, ``tolerance``, … of :class:`RefinedEvolution`."""
        return BetweenWalls(RefinedEvolution(self, **accuracy))

    def ladder(self, grid: Grid) -> Mapping[str, Solver]:
        return between_walls(refined_ladder(self, torus_of(grid)))

    def symbol(self, modes: Modes) -> Tensor:
        return self.growth - self.diffusivity * modes.k2

    def nonlinear(self, spectrum: Tensor, modes: Modes) -> Tensor:
        return pointwise(lambda u: u.pow_(3), spectrum, modes, degree=3, times=-self.saturation)

    def energy(self, fields: Tensor, grid: Grid) -> Tensor:
        """Per leading index, the functional of the head of this file; it never grows."""
        torus = torus_of(grid)
        u = extend(fields, grid)
        modes = modes_of(torus, u)
        spectrum = modes.forward(u)
        density = -0.5 * self.growth * u.square() + 0.25 * self.saturation * u**4
        for ik in modes.ik:
            density = density + 0.5 * self.diffusivity * modes.inverse(ik * spectrum).square()
        return density.mean(dim=modes.axes) * math.prod(grid.lengths)


build = AllenCahn
