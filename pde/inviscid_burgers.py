r"""Inviscid Burgers equation on an interval: u(0) -> u at the following frames, with shocks.

.. math:: u_t + (u^2 / 2)_x = 0

u  velocity  [m/s]  sought; initial u ~ N(0, sigma^2 (-d_xx + tau^2)^{-alpha}), without mean: periodic, or as a cosine
                    series between open ends

The entropy solution: the limit of ``burgers`` for viscosity -> 0. Before characteristics cross, at t = -1 / min u_x(0),
it is u(x, t) = u(x - u t, 0) (``exact``); shocks move with the mean of the states beside them (Rankine, Hugoniot).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from ._coarser_cells import shock_ladder
from ._finite_volume import ConservationLaw, FiniteVolumes, cell_grid
from ._grid import Grid
from ._periodic import check_box, check_not_negative, check_positive
from ._problem import Channel, Problem, Setup, Signature, WithExact
from ._random_fields import neumann_field, periodic_field
from ._solver import Solver, check_fields, check_times
from ._spectral import fourier_resample, modes_of
from ._weno import Wall

NEWTON = 50  # steps to find where a characteristic started


@dataclass(frozen=True, kw_only=True)
class InviscidBurgers(Problem, ConservationLaw, WithExact):
    """One-dimensional, with shocks; periodic or between open ends."""

    alpha: float = 2.0  # smoothness of u(0)
    tau: float = 5.0  # inverse correlation length of u(0) [1/m]
    sigma: float = 25.0  # amplitude of u(0)
    boundary: Wall = "periodic"
    length: float = 1.0  # of the interval [m]
    frames: int = 10
    spacing: float = 0.1  # time between frames [s]

    setups: ClassVar[Mapping[str, Setup]] = {
        "quick": Setup(resolution=128, train=256, validation=32, test=64),
        "paper": Setup(resolution=1024, train=1000, validation=100, test=200),
    }

    def __post_init__(self) -> None:
        if self.boundary not in ("periodic", "outflow"):
            raise ValueError(f"boundary is 'periodic' or 'outflow', got {self.boundary!r}.")
        check_positive(sigma=self.sigma, length=self.length, frames=self.frames, spacing=self.spacing)
        check_not_negative(tau=self.tau)
        if not 0.5 < self.alpha < math.inf:
            raise ValueError(f"alpha must be above 0.5, or u(0) has no finite variance; got {self.alpha}.")

    @property
    def signature(self) -> Signature:
        velocity = (Channel("velocity", "m/s", "velocity u"),)
        return Signature(velocity, velocity, self.frames, self.spacing, "s")

    def grid(self, resolution: int | Sequence[int]) -> Grid:
        box = cell_grid(resolution, lower=0.0, upper=self.length, dim=1, wall=self.boundary, unit="m")
        return check_box(box, 1, "inviscid_burgers")

    def sample(self, count: int, grid: Grid, *, generator: Generator) -> Tensor:
        draw = periodic_field if grid.periodic else neumann_field
        return draw(count, grid, alpha=self.alpha, tau=self.tau, sigma=self.sigma, generator=generator)[:, None]

    def reference(self, **accuracy: Any) -> FiniteVolumes:
        """Fifth order where smooth, first at shocks; see :class:`FiniteVolumes` for its options."""
        return FiniteVolumes(self, **accuracy)

    def ladder(self, grid: Grid) -> Mapping[str, Solver]:
        return shock_ladder(self, grid)

    def conserved(self, state: Tensor) -> Tensor:
        return state

    def state(self, conserved: Tensor) -> Tensor:
        return conserved

    def flux(self, state: Tensor, axis: int) -> Tensor:
        return 0.5 * state.square()

    def speed(self, state: Tensor, axis: int) -> Tensor:
        return state[:, 0].abs()

    def riemann_flux(self, left: Tensor, right: Tensor, axis: int) -> Tensor:
        """Godunov's: the flux of the exact solution at the face."""
        return 0.5 * torch.maximum(left.clamp_min(0.0).square(), right.clamp_max(0.0).square())

    @torch.no_grad()
    def exact(self, inputs: Tensor, grid: Grid, times: Sequence[float] | None = None) -> Tensor:
        """By characteristics, for the trigonometric interpolant of periodic inputs, before they cross.

        Raises ``ValueError`` for open ends, and for times from the first crossing on.
        """
        check_fields(inputs, grid, 1)
        times = tuple(self.signature.times if times is None else times)
        check_times(times)
        if not grid.periodic:
            raise ValueError("The closed form is for periodic grids; between open ends use the reference solver.")
        start = inputs[:, 0].to(torch.float64)
        first = first_crossing(start, grid)
        if times[-1] >= first:
            raise ValueError(
                f"Characteristics cross at time {first:.6g}, so the closed form cannot answer for {times[-1]:g}. "
                "Use an earlier time or the reference solver."
            )
        return torch.stack([_traced(start, grid, time) for time in times], dim=1)[:, :, None].to(inputs.dtype)


def first_crossing(start: Float[Tensor, "batch nodes"], grid: Grid) -> float:
    """The time of the batch's first shock, -1 / min u_x(0), from the slopes on an eight times finer grid."""
    fine = fourier_resample(start, (8 * grid.size,))
    modes = modes_of(grid.at(8 * grid.size), fine)
    steepest = -float(modes.inverse(modes.ik[0] * modes.forward(fine)).min())
    return 1 / steepest if steepest > 0 else math.inf


def _traced(start: Tensor, grid: Grid, time: float) -> Tensor:
    """The value at the foot y of each characteristic, y + t u(y) = x, by Newton from y = x - t u(x)."""
    spectrum = modes_of(grid, start).forward(start) / grid.size
    x = grid.coordinates(device=start.device)[0]
    foot = x - time * start
    for _ in range(NEWTON):
        value, slope = _series(spectrum, foot, grid)
        step = (foot + time * value - x) / (1 + time * slope)
        foot = foot - step
        if float(step.abs().max()) < 1e-13 * grid.lengths[0]:
            return _series(spectrum, foot, grid)[0]
    raise ValueError(f"At time {time:g} characteristics are too close to crossing. Use an earlier time.")


def _series(spectrum: Tensor, points: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """The Fourier series (half of its spectrum) and its derivative at arbitrary points, per sample."""
    ik = 1j * modes_of(grid, points).k[0]
    weights = torch.full_like(spectrum.real, 2.0)
    weights[:, 0] = 1.0
    if grid.size % 2 == 0:
        weights[:, -1] = 1.0  # the Nyquist mode, a cosine, is its own mirror image
    waves = torch.exp(ik * points[..., None]) * (weights * spectrum)[:, None]
    return waves.sum(dim=-1).real, (ik * waves).sum(dim=-1).real


build = InviscidBurgers
