r"""Viscous Burgers equation on a periodic interval: u(0) -> u at the following frames.

.. math:: u_t + u\,u_x = \nu\, u_{xx}

u     velocity   [m/s]    sought; initial u ~ N(0, sigma^2 (-d_xx + tau^2)^{-alpha}), without mean
nu    viscosity  [m^2/s]  given: 0.1 (smooth); at 1e-3 fronts are about 4 nu / max(u) thick: use at least 1024 nodes

The default law is the paper's, 625 (-d_xx + 25)^{-2} (Li et al. 2021, arXiv 2010.08895): alpha = 2, tau = 5,
sigma = 25. The released generator draws with alpha = 2.5, tau = 7, sigma = 49 instead: preset ``fno_generator``.

In closed form (Hopf 1950, Cole 1951): u = -2 nu phi_x / phi, where phi solves the heat equation from
phi(0) = exp(-U / 2 nu), U_x = u(0). The mean of u is conserved and only carries the solution along.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor

from ._grid import Grid
from ._periodic import PeriodicEvolution, Semilinear, check_box, check_not_negative, check_positive, coarse_ladder
from ._problem import Channel, Problem, Setup, Signature, WithExact
from ._random_fields import periodic_field
from ._solver import Solver, check_fields, check_times
from ._spectral import Modes, fourier_resample, modes_of

# phi(0) varies by exp(range of U / 2 nu), and as many digits of u are lost where phi is small; exp(14) leaves ten.
LARGEST_EXPONENT = 14.0


@dataclass(frozen=True, kw_only=True)
class Burgers(Problem, Semilinear, WithExact):
    """One-dimensional, periodic, viscous."""

    viscosity: float = 0.1  # nu [m^2/s]
    alpha: float = 2.0  # smoothness of u(0)
    tau: float = 5.0  # inverse correlation length of u(0) [1/m]
    sigma: float = 25.0  # amplitude of u(0)
    length: float = 1.0  # of the interval [m]
    frames: int = 1
    spacing: float = 1.0  # time between frames [s]

    setups: ClassVar[Mapping[str, Setup]] = {
        "quick": Setup(resolution=128, train=256, validation=32, test=64),
        "paper": Setup(resolution=1024, train=1000, validation=100, test=200),
    }
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "fno_paper": {"viscosity": 0.1, "alpha": 2.0, "tau": 5.0, "sigma": 25.0},
        "fno_generator": {"viscosity": 0.1, "alpha": 2.5, "tau": 7.0, "sigma": 49.0},
        "fno_generator_1e-3": {
            **{"viscosity": 1e-3, "alpha": 2.5, "tau": 7.0, "sigma": 49.0},
            **{"frames": 200, "spacing": 0.005},
        },
    }

    def __post_init__(self) -> None:
        check_positive(viscosity=self.viscosity, sigma=self.sigma, length=self.length)
        check_positive(frames=self.frames, spacing=self.spacing)
        check_not_negative(tau=self.tau)
        if not 0.5 < self.alpha < math.inf:
            raise ValueError(f"alpha must be above 0.5, or u(0) has no finite variance; got {self.alpha}.")

    @property
    def signature(self) -> Signature:
        velocity = (Channel("velocity", "m/s", "velocity u"),)
        return Signature(velocity, velocity, self.frames, self.spacing, "s")

    def grid(self, resolution: int | Sequence[int]) -> Grid:
        return check_box(Grid.box(resolution, upper=self.length, unit="m"), 1, "burgers")

    def sample(self, count: int, grid: Grid, *, generator: Generator) -> Tensor:
        law = {"alpha": self.alpha, "tau": self.tau, "sigma": self.sigma}
        return periodic_field(count, grid, **law, generator=generator)[:, None]

    def reference(self, **accuracy: Any) -> PeriodicEvolution:
        """Fourier in space, order 4 in time; see :class:`PeriodicEvolution` for ``tolerance``, ``step``, ``method``."""
        return PeriodicEvolution(self, **accuracy)

    def ladder(self, grid: Grid) -> Mapping[str, Solver]:
        return coarse_ladder(self, grid)

    def symbol(self, modes: Modes) -> Tensor:
        return -self.viscosity * modes.k2

    def nonlinear(self, spectrum: Tensor, modes: Modes) -> Tensor:
        return modes.forward(modes.inverse(spectrum).square_()) * _minus_half_derivative(modes)

    def top_speed(self, spectrum: Tensor, modes: Modes) -> float:
        """Largest abs(u): the velocity carries itself."""
        return float(modes.inverse(spectrum).abs_().max())

    @torch.no_grad()
    def exact(self, inputs: Tensor, grid: Grid, times: Sequence[float] | None = None) -> Tensor:
        """Cole-Hopf on a four times finer grid, for the trigonometric interpolant of ``inputs``.

        Raises ``ValueError`` where u(0) / nu is so large that the closed form loses more than six digits.
        """
        check_fields(inputs, grid, 1)
        times = tuple(self.signature.times if times is None else times)
        check_times(times)
        refinement = max(4, -(-1024 // grid.size))
        fine = fourier_resample(inputs.to(torch.float64), (refinement * grid.size,))
        modes = modes_of(grid.at(fine.shape[-1]), fine)
        mean = fine.mean(dim=-1, keepdim=True)
        heat = modes.forward(self._cole_hopf(fine, modes))
        frames = []
        for time in times:
            phi = heat * torch.exp(-self.viscosity * modes.k2 * time - modes.ik[0] * mean * time)
            ratio = modes.inverse(modes.ik[0] * phi) / modes.inverse(phi)
            frames.append((mean - 2 * self.viscosity * ratio)[..., ::refinement])
        return torch.stack(frames, dim=1).to(inputs.dtype)

    def _cole_hopf(self, velocity: Tensor, modes: Modes) -> Tensor:
        """phi(0), scaled to at most 1."""
        spectrum = modes.forward(velocity)
        potential = modes.inverse(modes.ik[0] * modes.inverse_laplacian * spectrum)
        exponent = -potential / (2 * self.viscosity)
        exponent = exponent - exponent.amax(dim=-1, keepdim=True)
        worst = -float(exponent.min())
        if worst > LARGEST_EXPONENT:
            raise ValueError(
                f"Cole-Hopf needs (max U - min U) / (2 nu) at most {LARGEST_EXPONENT:g} to keep its digits, got "
                f"{worst:.3g}. Use a larger viscosity, or the reference solver."
            )
        return torch.exp(exponent)


@functools.lru_cache(maxsize=16)
def _minus_half_derivative(modes: Modes) -> Tensor:
    """Of u²: u u_x = (u² / 2)_x. Dealiased."""
    return -0.5 * modes.ik[0] * modes.kept


build = Burgers
