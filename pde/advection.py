r"""Advection with constant velocity on a periodic box, in one or two dimensions: u(0) -> u at the following frames.

.. math:: u_t + c\cdot\nabla u = 0

u     a passive concentration  [kg/m^3]  sought; initial u ~ N(0, sigma^2 (-Delta + tau^2)^{-alpha}), without mean,
                                         or of another law (``initial``, see ``_initial_states``)
c     velocity                 [m/s]     given: speed, and in two dimensions its angle to the x axis

In closed form u(x, t) = u(x - c t, 0). Exact for band-limited inputs; the Nyquist mode of an even axis, which has no
direction, stays where it is.

Presets ``pdebench_advection_beta…``: c = beta on (0, 1), 200 frames up to t = 2, PDEBench's sums of sinusoids (see
``_initial_states``: what of the law is not known).
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

PDEBENCH = (0.1, 0.2, 0.4, 0.7, 1.0, 2.0, 4.0, 7.0)  # beta, one of the file names each


@dataclass(frozen=True, kw_only=True)
class Advection(Problem, Semilinear, WithExact):
    """Periodic transport without change of shape."""

    dim: Literal[1, 2] = 1  # dimensions of the box
    speed: float = 1.0  # abs(c) [m/s]; in one dimension its sign is the direction
    angle: float = 30.0  # of c to the x axis, in two dimensions [degrees]
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
        f"pdebench_advection_beta{beta}": {"speed": beta, "initial": "sinusoids", "frames": 200, "spacing": 0.01}
        for beta in PDEBENCH
    }

    def __post_init__(self) -> None:
        if self.dim not in (1, 2):
            raise ValueError(f"dim is 1 or 2, got {self.dim}.")
        if not (math.isfinite(self.speed) and math.isfinite(self.angle)):
            raise ValueError(f"speed and angle must be finite, got {self.speed} and {self.angle}.")
        check_not_negative(tau=self.tau)
        check_positive(length=self.length, frames=self.frames, spacing=self.spacing)
        check_law(self.initial, self.alpha, self.dim)

    @property
    def velocity(self) -> tuple[float, ...]:
        """c, one component a dimension [m/s]."""
        turn = math.radians(self.angle)
        return (self.speed,) if self.dim == 1 else (self.speed * math.cos(turn), self.speed * math.sin(turn))

    @property
    def signature(self) -> Signature:
        concentration = (Channel("concentration", "kg/m^3", "concentration u"),)
        return Signature(concentration, concentration, self.frames, self.spacing, "s")

    def grid(self, resolution: int | Sequence[int]) -> Grid:
        return check_box(Grid.box(resolution, dim=self.dim, upper=self.length, unit="m"), self.dim, "advection")

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
        transport = torch.zeros_like(modes.k2, dtype=torch.complex128)
        for c, ik in zip(self.velocity, modes.ik, strict=True):
            transport = transport - c * ik
        return transport


build = Advection
