r"""Advection and diffusion on a periodic box, in one to three dimensions: u(0) -> u at the following frames.

.. math:: u_t + c\cdot\nabla u = \nu\, \Delta u

u     concentration  [kg/m^3]  sought; initial u ~ N(0, sigma^2 (-Delta + tau^2)^{-alpha}), without mean
c     velocity       [m/s]     given: speed, angle to the x axis, elevation above the x-y plane
nu    diffusivity    [m^2/s]   given; 0 leaves pure advection

Exact for band-limited inputs: the mode of wave vector k becomes exp(-i c·k t - nu |k|² t) of itself. (The Nyquist mode
of an even axis, which has no direction, decays where it is.) The mean is conserved, extremes only shrink.

Preset ``apebench``: difficulties -4 and 4 on 160 nodes, that is c dt / L = 4 / 160 and nu dt / L² = 4 / (2 · 160²).
PDEBench's advection is the problem ``advection``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Generator, Tensor

from ._grid import Grid
from ._initial_states import Law, check_law, initial_states
from ._periodic import PeriodicEvolution, Semilinear, check_box, check_not_negative, check_positive, coarse_ladder
from ._problem import Channel, Problem, Setup, Signature, WithExact
from ._solver import Solver
from ._spectral import Modes


@dataclass(frozen=True, kw_only=True)
class AdvectionDiffusion(Problem, Semilinear, WithExact):
    """Periodic transport that smooths."""

    dim: Literal[1, 2, 3] = 1  # dimensions of the box
    speed: float = 1.0  # abs(c) [m/s]; in one dimension its sign is the direction
    angle: float = 30.0  # of c to the x axis, in two dimensions and more [degrees]
    elevation: float = 0.0  # of c above the x-y plane, in three dimensions [degrees]
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
            **{"speed": 4 / 160, "diffusivity": 4 / (2 * 160**2), "initial": "truncated_fourier"},
            **{"frames": 50, "spacing": 1.0},
        },
    }

    def __post_init__(self) -> None:
        if self.dim not in (1, 2, 3):
            raise ValueError(f"dim is 1, 2 or 3, got {self.dim}.")
        if not all(math.isfinite(value) for value in (self.speed, self.angle, self.elevation)):
            raise ValueError(
                f"speed, angle and elevation must be finite, got {self.speed}, {self.angle} and {self.elevation}."
            )
        check_not_negative(diffusivity=self.diffusivity, tau=self.tau)
        check_positive(length=self.length, frames=self.frames, spacing=self.spacing)
        check_law(self.initial, self.alpha, self.dim)

    @property
    def velocity(self) -> tuple[float, ...]:
        """c, one component a dimension [m/s]."""
        if self.dim == 1:
            return (self.speed,)
        turn, rise = math.radians(self.angle), math.radians(self.elevation if self.dim == 3 else 0.0)
        components = math.cos(rise) * math.cos(turn), math.cos(rise) * math.sin(turn), math.sin(rise)
        return tuple(self.speed * c for c in components[: self.dim])

    @property
    def signature(self) -> Signature:
        concentration = (Channel("concentration", "kg/m^3", "concentration u"),)
        return Signature(concentration, concentration, self.frames, self.spacing, "s")

    def grid(self, resolution: int | Sequence[int]) -> Grid:
        return check_box(
            Grid.box(resolution, dim=self.dim, upper=self.length, unit="m"), self.dim, "advection_diffusion"
        )

    def sample(self, count: int, grid: Grid, *, generator: Generator) -> Tensor:
        return initial_states(self.initial, count, grid, alpha=self.alpha, tau=self.tau, generator=generator)

    def reference(self, **accuracy: Any) -> PeriodicEvolution:
        """Exact in time for every Fourier mode of the grid, so ``accuracy`` changes nothing."""
        return PeriodicEvolution(self, **accuracy)

    def exact(self, inputs: Tensor, grid: Grid, times: Sequence[float] | None = None) -> Tensor:
        """The reference is the closed form."""
        return self.reference()(inputs, grid, times)

    def ladder(self, grid: Grid) -> Mapping[str, Solver]:
        return coarse_ladder(self, grid)

    def symbol(self, modes: Modes) -> Tensor:
        symbol = (-self.diffusivity * modes.k2).to(torch.complex128)
        for c, ik in zip(self.velocity, modes.ik, strict=True):
            symbol = symbol - c * ik
        return symbol


build = AdvectionDiffusion
