r"""Fisher-KPP equation on a box, periodic or with impermeable walls, in one to three dimensions.

.. math:: u_t = \nu\, \Delta u + \rho\, u\, (1 - u)

u     density of a population, as a share of what the place carries  [1]  sought, from 0 to 1; u(0) -> u at later frames
nu    diffusivity  [m^2/s]  given
rho   growth rate  [1/s]    given

boundary   ``periodic`` or ``neumann``: nobody crosses the walls (nodes ``centres``)

The state 0 is unstable and 1 attracts: wherever there is something it grows, and invades the rest in fronts about
sqrt(nu / rho) wide that travel at 2 sqrt(nu rho) or faster. States stay between 0 and 1; a negative one runs to
-infinity and is reported as a blow-up. For nu = 0 this is the logistic equation. One front is known in closed form
(Ablowitz & Zeppetella 1979): (1 + exp(z / sqrt 6))^-2 with z = x sqrt(rho / nu) - 5 rho t / sqrt 6.

States are drawn from a law and brought into [0, 1]: ``sinusoids`` as abs(u) / max abs(u), the others linearly from
their minimum to their maximum. Presets ``pdebench_reacdiff_nu…_rho…``: PDEBench's one-dimensional reaction-diffusion
data, 100 frames up to t = 1 (see ``_initial_states``: what of the law is not known); they soon are almost constant, so
persistence is a strong baseline. ``apebench_fisher``: difficulties 0.02 (growth) and 0.2 (diffusion) on 160 nodes in
units where L = 1 and a frame is 1.
"""

from __future__ import annotations

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
from ._spectral import Modes
from ._walls import BetweenWalls, between_walls, torus_of, wall_grid


def _pdebench(nu: float, rho: float) -> dict[str, Any]:
    return {"diffusivity": nu, "rate": rho, "initial": "sinusoids", "frames": 100, "spacing": 0.01}


@dataclass(frozen=True, kw_only=True)
class FisherKPP(Problem, Semilinear):
    """Growth that spreads."""

    dim: Literal[1, 2, 3] = 1  # dimensions of the box
    boundary: Literal["periodic", "neumann"] = "periodic"
    diffusivity: float = 1e-3  # nu [m^2/s]
    rate: float = 1.0  # rho [1/s]
    initial: Law = "random_field"  # law of u(0), before it is brought into [0, 1]
    alpha: float = 3.0  # smoothness of a random field
    tau: float = 5.0  # its inverse correlation length [1/m]
    length: float = 1.0  # side of the box [m]
    frames: int = 10
    spacing: float = 0.5  # time between frames [s]

    setups: ClassVar[Mapping[str, Setup]] = {
        "quick": Setup(resolution=64, train=128, validation=16, test=32),
        "paper": Setup(resolution=128, train=1000, validation=100, test=200),
    }
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        **{
            f"pdebench_reacdiff_nu{nu}_rho{rho}": _pdebench(nu, rho)
            for nu in (0.5, 1.0, 2.0, 5.0)
            for rho in (1.0, 2.0, 5.0, 10.0)
        },
        "apebench_fisher": {
            **{"diffusivity": 0.2 / (2 * 160**2), "rate": 0.02, "initial": "truncated_fourier"},
            **{"frames": 50, "spacing": 1.0},
        },
    }

    def __post_init__(self) -> None:
        if self.dim not in (1, 2, 3):
            raise ValueError(f"dim is 1, 2 or 3, got {self.dim}.")
        if self.boundary not in ("periodic", "neumann"):
            raise ValueError(f"boundary is 'periodic' or 'neumann' (u² is not odd), got {self.boundary!r}.")
        check_not_negative(diffusivity=self.diffusivity, rate=self.rate, tau=self.tau)
        check_positive(length=self.length, frames=self.frames, spacing=self.spacing)
        check_law(self.initial, self.alpha, self.dim, self.boundary)

    @property
    def signature(self) -> Signature:
        density = (Channel("density", "1", "population density u"),)
        return Signature(density, density, self.frames, self.spacing, "s")

    def grid(self, resolution: int | Sequence[int]) -> Grid:
        return check_box(wall_grid(resolution, self.boundary, dim=self.dim, upper=self.length), self.dim, "fisher_kpp")

    def sample(self, count: int, grid: Grid, *, generator: Generator) -> Tensor:
        raw = initial_states(self.initial, count, grid, alpha=self.alpha, tau=self.tau, generator=generator)
        axes = tuple(range(1, raw.ndim))
        raw = raw.abs() if self.initial == "sinusoids" else raw - raw.amin(dim=axes, keepdim=True)
        return raw / raw.amax(dim=axes, keepdim=True)

    def reference(self, **accuracy: Any) -> BetweenWalls:
        """Fourier or cosine series, order 4 in time; ``nodes``, ``tolerance``, … of :class:`RefinedEvolution`."""
        return BetweenWalls(RefinedEvolution(self, **accuracy))

    def ladder(self, grid: Grid) -> Mapping[str, Solver]:
        return between_walls(refined_ladder(self, torus_of(grid)))

    def symbol(self, modes: Modes) -> Tensor:
        return self.rate - self.diffusivity * modes.k2

    def nonlinear(self, spectrum: Tensor, modes: Modes) -> Tensor:
        return pointwise(Tensor.square_, spectrum, modes, degree=2, times=-self.rate)


build = FisherKPP
