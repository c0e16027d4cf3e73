r"""Heat equation on a box, periodic or between walls, in one to three dimensions: u(0) -> u at the following frames.

.. math:: u_t = \nu\, \Delta u

u     temperature  [K]      sought; initial u ~ N(0, sigma^2 (-Delta + tau^2)^{-alpha}), without mean
nu    diffusivity  [m^2/s]  given

boundary   ``periodic``; ``dirichlet``: u = 0 on the walls (nodes ``ends``, sine series); ``neumann``: no heat passes
           them (nodes ``centres``, cosine series)

Exact for the trigonometric (sine, cosine) interpolant of the inputs: each mode decays as exp(-nu |k|² t).

Preset ``apebench``: diffusion of difficulty 4 on 160 nodes (Koehler et al. 2024): nu dt / L² = 4 / (2 · 160²).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Generator, Tensor

from ._grid import Grid
from ._initial_states import Law, check_law, initial_states
from ._periodic import PeriodicEvolution, Semilinear, check_box, check_not_negative, check_positive, coarse_ladder
from ._problem import Channel, Problem, Setup, Signature, WithExact
from ._solver import Solver
from ._spectral import Modes
from ._walls import BetweenWalls, Walls, between_walls, torus_of, wall_grid


@dataclass(frozen=True, kw_only=True)
class Heat(Problem, Semilinear, WithExact):
    """Diffusion on a torus or between walls."""

    dim: Literal[1, 2, 3] = 1  # dimensions of the box
    boundary: Walls = "periodic"
    diffusivity: float = 0.01  # nu [m^2/s]
    initial: Law = "random_field"  # law of u(0)
    alpha: float = 2.0  # smoothness of a random field
    tau: float = 5.0  # its inverse correlation length [1/m]
    length: float = 1.0  # side of the box [m]
    frames: int = 10
    spacing: float = 0.1  # time between frames [s]

    setups: ClassVar[Mapping[str, Setup]] = {
        "quick": Setup(resolution=64, train=128, validation=16, test=32),
        "paper": Setup(resolution=128, train=1000, validation=100, test=200),
    }
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "apebench": {
            **{"diffusivity": 4 / (2 * 160**2), "initial": "truncated_fourier"},
            **{"frames": 50, "spacing": 1.0},
        },
    }

    def __post_init__(self) -> None:
        if self.dim not in (1, 2, 3):
            raise ValueError(f"dim is 1, 2 or 3, got {self.dim}.")
        check_not_negative(diffusivity=self.diffusivity, tau=self.tau)
        check_positive(length=self.length, frames=self.frames, spacing=self.spacing)
        check_law(self.initial, self.alpha, self.dim, self.boundary)

    @property
    def signature(self) -> Signature:
        temperature = (Channel("temperature", "K", "temperature u"),)
        return Signature(temperature, temperature, self.frames, self.spacing, "s")

    def grid(self, resolution: int | Sequence[int]) -> Grid:
        return check_box(wall_grid(resolution, self.boundary, dim=self.dim, upper=self.length), self.dim, "heat")

    def sample(self, count: int, grid: Grid, *, generator: Generator) -> Tensor:
        return initial_states(self.initial, count, grid, alpha=self.alpha, tau=self.tau, generator=generator)

    def reference(self, **accuracy: Any) -> BetweenWalls:
        """Exact in time for every mode of the grid, so ``accuracy`` changes nothing."""
        return BetweenWalls(PeriodicEvolution(self, **accuracy))

    def exact(self, inputs: Tensor, grid: Grid, times: Sequence[float] | None = None) -> Tensor:
        """The reference is the closed form."""
        return self.reference()(inputs, grid, times)

    def ladder(self, grid: Grid) -> Mapping[str, Solver]:
        return between_walls(coarse_ladder(self, torus_of(grid)))

    def symbol(self, modes: Modes) -> Tensor:
        return -self.diffusivity * modes.k2


build = Heat
