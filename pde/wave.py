r"""Wave equation on a box, periodic or between walls, in one to three dimensions: (u, v)(0) -> (u, v) at later frames.

.. math:: u_t = v,\qquad v_t = c^2 \Delta u

u     displacement  [m]     sought; initial u ~ N(0, sigma^2 (-Delta + tau^2)^{-alpha}), without mean
v     velocity      [m/s]   sought; initial v ~ c (-Delta + tau^2)^{1/2} u', u' another such field: kinetic and elastic
                            energy are alike. ``at_rest``: v = 0. These laws are ours, not those of a published set
c     wave speed    [m/s]   given

boundary   ``periodic``; ``dirichlet``: u = v = 0 on the walls (nodes ``ends``, sine series), which reflect upside
           down; ``neumann``: free ends (nodes ``centres``, cosine series), which reflect without

Exact for the trigonometric interpolant of the inputs: of each mode u(t) = u cos(c k t) + v sin(c k t) / (c k), and the
mean moves on as u + v t. In one dimension that is d'Alembert's (f(x - c t) + f(x + c t)) / 2 + the mean of v.
Invariant: the energy, (v^2 + c^2 abs(grad u)^2) / 2 integrated.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from ._grid import Grid
from ._periodic import PeriodicEvolution, Semilinear, check_box, check_not_negative, check_positive, coarse_ladder
from ._problem import Channel, Problem, Setup, Signature, WithExact
from ._solver import Solver
from ._spectral import Modes, modes_of
from ._walls import BetweenWalls, Walls, between_walls, extend, torus_of, wall_field, wall_grid


@dataclass(frozen=True, kw_only=True)
class Wave(Problem, Semilinear, WithExact):
    """Linear waves on a torus or between walls."""

    dim: Literal[1, 2, 3] = 1  # dimensions of the box
    boundary: Walls = "periodic"
    speed: float = 1.0  # c [m/s]
    at_rest: bool = False  # v(0) = 0
    sigma: float = 25.0  # amplitude of u(0) [m^(1 - 2 alpha)]
    alpha: float = 3.0  # its smoothness
    tau: float = 5.0  # its inverse correlation length [1/m]
    length: float = 1.0  # side of the box [m]
    frames: int = 10
    spacing: float = 0.1  # time between frames [s]

    setups: ClassVar[Mapping[str, Setup]] = {
        "quick": Setup(resolution=64, train=128, validation=16, test=32),
        "paper": Setup(resolution=128, train=1000, validation=100, test=200),
    }

    def __post_init__(self) -> None:
        if self.dim not in (1, 2, 3):
            raise ValueError(f"dim is 1, 2 or 3, got {self.dim}.")
        check_positive(speed=self.speed, sigma=self.sigma, length=self.length)
        check_positive(frames=self.frames, spacing=self.spacing)
        check_not_negative(tau=self.tau)
        if not 1 + self.dim / 2 < self.alpha < math.inf:
            raise ValueError(f"alpha must be above 1 + dim / 2, or v(0) has no finite variance; got {self.alpha}.")

    @property
    def signature(self) -> Signature:
        state = (Channel("displacement", "m", "displacement u"), Channel("velocity", "m/s", "velocity v"))
        return Signature(state, state, self.frames, self.spacing, "s")

    def grid(self, resolution: int | Sequence[int]) -> Grid:
        return check_box(wall_grid(resolution, self.boundary, dim=self.dim, upper=self.length), self.dim, "wave")

    def sample(self, count: int, grid: Grid, *, generator: Generator) -> Tensor:
        draw = functools.partial(wall_field, count, grid, tau=self.tau, generator=generator)
        u = draw(alpha=self.alpha, sigma=self.sigma)
        v = draw(alpha=self.alpha - 1, sigma=self.speed * self.sigma)
        return torch.stack([u, 0 * v if self.at_rest else v], dim=1)

    def reference(self, **accuracy: Any) -> BetweenWalls:
        """Exact in time for every mode of the grid, so ``accuracy`` changes nothing."""
        return BetweenWalls(PeriodicEvolution(self, **accuracy))

    def exact(self, inputs: Tensor, grid: Grid, times: Sequence[float] | None = None) -> Tensor:
        """The reference is the closed form."""
        return self.reference()(inputs, grid, times)

    def ladder(self, grid: Grid) -> Mapping[str, Solver]:
        return between_walls(coarse_ladder(self, torus_of(grid)))

    def symbol(self, modes: Modes) -> Tensor:
        none, one = torch.zeros_like(modes.k2), torch.ones_like(modes.k2)
        return torch.stack([torch.stack([none, one]), torch.stack([-(self.speed**2) * modes.k2, none])])

    def energy(self, state: Float[Tensor, "batch 2 *space"], grid: Grid) -> Float[Tensor, " batch"]:
        """Kinetic and elastic energy per density [m^(dim + 2)/s^2]."""
        u, v = extend(state, grid).unbind(dim=1)
        modes = modes_of(torus_of(grid), u)
        density = v.square() + self.speed**2 * u * modes.inverse(modes.k2 * modes.forward(u))
        return 0.5 * density.flatten(1).mean(dim=1) * math.prod(grid.lengths)


build = Wave
