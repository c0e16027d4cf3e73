r"""Korteweg-de Vries equation on a periodic interval: u(0) -> u at the following frames.

.. math:: u_t + a\, u\, u_x + b\, u_{xxx} = -\zeta\, u_{xxxx}

u      elevation of a shallow-water surface  [m]      sought
a      nonlinearity                          [1/s]    given, not 0
b      dispersion                            [m^3/s]  given, not 0
zeta   hyperviscosity                        [m^4/s]  given; 0 (default) is the equation itself

Waves steepen until dispersion splits them into solitons, which pass through each other unchanged. A soliton of speed c
is (3 c / a) sech²(sqrt(c / b) (x - c t) / 2): it is 4 sqrt(b / c) wide; allow 10 nodes for that. Without hyperviscosity
mass, momentum and energy (:meth:`KortewegDeVries.invariants`) are conserved, among infinitely many integrals.

Default: Zabusky & Kruskal 1965 (a = 1, b = 0.022², L = 2; there u(0) = cos(pi x), which recurs at about 30.4 / pi; of
their law of initial states there is none). ``canonical`` is a = 6, b = 1. ``apebench``: APEBench's difficulties -2
(convection), -14 (dispersion) and -9 (hyperdiffusion) on 160 nodes; L = 1, a frame is 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor

from ._grid import Grid
from ._initial_states import Law, check_law, initial_states
from ._periodic import Semilinear, check_box, check_not_negative, check_positive
from ._problem import Channel, Problem, Setup, Signature
from ._products import minus_half_derivative
from ._refined import RefinedEvolution, refined_ladder
from ._solver import Solver
from ._spectral import Modes, modes_of


@dataclass(frozen=True, kw_only=True)
class KortewegDeVries(Problem, Semilinear):
    """One-dimensional, periodic, dispersive."""

    nonlinearity: float = 1.0  # a [1/s]
    dispersion: float = 0.022**2  # b [m^3/s]
    hyperviscosity: float = 0.0  # zeta [m^4/s]
    initial: Law = "truncated_fourier"  # law of u(0)
    alpha: float = 3.0  # smoothness of a random field
    tau: float = 5.0  # its inverse correlation length [1/m]
    length: float = 2.0  # of the interval [m]
    frames: int = 10
    spacing: float = 0.1  # time between frames [s]

    setups: ClassVar[Mapping[str, Setup]] = {
        "quick": Setup(resolution=256, train=128, validation=16, test=32),
        "paper": Setup(resolution=512, train=1000, validation=100, test=200),
    }
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "zabusky_kruskal": {"nonlinearity": 1.0, "dispersion": 0.022**2, "length": 2.0},
        "canonical": {"nonlinearity": 6.0, "dispersion": 1.0, "length": 40.0, "frames": 20, "spacing": 0.25},
        "apebench": {
            **{"nonlinearity": 2 / 160, "dispersion": 14 / (4 * 160**3), "hyperviscosity": 9 / (8 * 160**4)},
            **{"length": 1.0, "frames": 50, "spacing": 1.0},
        },
    }

    def __post_init__(self) -> None:
        for name in ("nonlinearity", "dispersion"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value != 0):
                raise ValueError(f"{name} must be finite and not 0, got {value}.")
        check_not_negative(hyperviscosity=self.hyperviscosity, tau=self.tau)
        check_positive(length=self.length, frames=self.frames, spacing=self.spacing)
        check_law(self.initial, self.alpha, 1)

    @property
    def signature(self) -> Signature:
        elevation = (Channel("elevation", "m", "elevation u"),)
        return Signature(elevation, elevation, self.frames, self.spacing, "s")

    def grid(self, resolution: int | Sequence[int]) -> Grid:
        return check_box(Grid.box(resolution, upper=self.length, unit="m"), 1, "kdv")

    def sample(self, count: int, grid: Grid, *, generator: Generator) -> Tensor:
        return initial_states(self.initial, count, grid, alpha=self.alpha, tau=self.tau, generator=generator)

    def reference(self, **accuracy: Any) -> RefinedEvolution:
        """Fourier in space, order 4 in time; ``nodes``, ``tolerance``, … of :class:`RefinedEvolution`."""
        return RefinedEvolution(self, **accuracy)

    def ladder(self, grid: Grid) -> Mapping[str, Solver]:
        return refined_ladder(self, grid)

    def symbol(self, modes: Modes) -> Tensor:
        return -self.dispersion * modes.ik[0] ** 3 - self.hyperviscosity * modes.k2.square()

    def nonlinear(self, spectrum: Tensor, modes: Modes) -> Tensor:
        return modes.forward(modes.inverse(spectrum).square_()) * (self.nonlinearity * minus_half_derivative(modes))

    def top_speed(self, spectrum: Tensor, modes: Modes) -> float:
        """Largest abs(a u): the wave carries itself."""
        return abs(self.nonlinearity) * float(modes.inverse(spectrum).abs().max())

    def soliton(self, grid: Grid, time: float, *, speed: float, centre: float) -> Tensor:
        """The solitary wave of this speed (of the sign of b), ``*space``, as seen on a long interval.

        Zeta is left out. The tails fall as exp(-abs(x) sqrt(c / b)): an interval of 75 sqrt(b / c) hides them.
        """
        if not speed / self.dispersion > 0:
            raise ValueError(f"A soliton's speed has the sign of the dispersion {self.dispersion}, got {speed}.")
        x = grid.coordinates()[0] - centre - speed * time
        x = x - self.length * torch.round(x / self.length)
        return 3 * speed / self.nonlinearity / torch.cosh(0.5 * math.sqrt(speed / self.dispersion) * x).square()

    def invariants(self, fields: Tensor, grid: Grid) -> Tensor:
        """Mass int u, momentum int u² / 2 and energy int (b u_x² / 2 - a u³ / 6), stacked last."""
        modes = modes_of(grid, fields)
        slope = modes.inverse(modes.ik[0] * modes.forward(fields))
        energy = 0.5 * self.dispersion * slope.square() - self.nonlinearity / 6 * fields**3
        densities = (fields, 0.5 * fields.square(), energy)
        return torch.stack([density.mean(dim=-1) * self.length for density in densities], dim=-1)


build = KortewegDeVries
