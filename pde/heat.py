r"""Heat equation on a periodic box, in one or two dimensions: u(0) -> u at the following frames.

.. math:: u_t = \nu\, \Delta u

u     temperature  [K]      sought; initial u ~ N(0, sigma^2 (-Delta + tau^2)^{-alpha}), without mean
nu    diffusivity  [m^2/s]  given

Exact for the trigonometric interpolant of the inputs: each Fourier mode decays as exp(-nu |k|² t).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Generator, Tensor

from ._grid import Grid
from ._periodic import PeriodicEvolution, Semilinear, check_box, check_not_negative, check_positive, coarse_ladder
from ._problem import Channel, Problem, Setup, Signature, WithExact
from ._random_fields import periodic_field
from ._solver import Solver
from ._spectral import Modes


@dataclass(frozen=True, kw_only=True)
class Heat(Problem, Semilinear, WithExact):
    """Periodic diffusion."""

    dim: Literal[1, 2] = 1  # dimensions of the box
    diffusivity: float = 0.01  # nu [m^2/s]
    alpha: float = 2.0  # smoothness of u(0)
    tau: float = 5.0  # inverse correlation length of u(0) [1/m]
    length: float = 1.0  # side of the box [m]
    frames: int = 10
    spacing: float = 0.1  # time between frames [s]

    setups: ClassVar[Mapping[str, Setup]] = {
        "quick": Setup(resolution=64, train=128, validation=16, test=32),
        "paper": Setup(resolution=128, train=1000, validation=100, test=200),
    }

    def __post_init__(self) -> None:
        if self.dim not in (1, 2):
            raise ValueError(f"dim is 1 or 2, got {self.dim}.")
        check_not_negative(diffusivity=self.diffusivity, tau=self.tau)
        check_positive(length=self.length, frames=self.frames, spacing=self.spacing)
        if not self.dim / 2 < self.alpha < math.inf:
            raise ValueError(f"alpha must be above dim / 2, or u(0) has no finite variance; got {self.alpha}.")

    @property
    def signature(self) -> Signature:
        temperature = (Channel("temperature", "K", "temperature u"),)
        return Signature(temperature, temperature, self.frames, self.spacing, "s")

    def grid(self, resolution: int | Sequence[int]) -> Grid:
        return check_box(Grid.box(resolution, dim=self.dim, upper=self.length, unit="m"), self.dim, "heat")

    def sample(self, count: int, grid: Grid, *, generator: Generator) -> Tensor:
        return periodic_field(count, grid, alpha=self.alpha, tau=self.tau, generator=generator)[:, None]

    def reference(self, **accuracy: Any) -> PeriodicEvolution:
        """Exact in time for every Fourier mode of the grid, so ``accuracy`` changes nothing."""
        return PeriodicEvolution(self, **accuracy)

    def exact(self, inputs: Tensor, grid: Grid, times: Sequence[float] | None = None) -> Tensor:
        """The reference is the closed form."""
        return self.reference()(inputs, grid, times)

    def ladder(self, grid: Grid) -> Mapping[str, Solver]:
        return coarse_ladder(self, grid)

    def symbol(self, modes: Modes) -> Tensor:
        return -self.diffusivity * modes.k2


build = Heat
