r"""Incompressible Navier-Stokes in three dimensions on the torus, in velocities: u(0) -> u at the following frames.

.. math:: u_t + \nabla\cdot(u \otimes u) + \nabla p = \nu \Delta u,\qquad \nabla\cdot u = 0

u     velocity   [m/s]    sought, three components; without divergence, also initially
nu    viscosity  [m^2/s]  given as 1 / Reynolds number, at the velocity scale 1 m/s and the length scale 1 m
L     side       [m]      given: 2 pi

``taylor_green``  u = (sin x cos y cos z, -cos x sin y cos z, 0), every sample the same (Taylor & Green 1937; Brachet et
                  al., J. Fluid Mech. 130, 1983): energy 1/8, enstrophy 3/8. At Re 1600 the largest dissipation, near
                  t = 9, takes 256³ nodes or more; 64³ serve up to Re 200
``random_field``  a Gaussian field without divergence, N(0, sigma^2 (-Delta + tau^2)^{-alpha}) projected; ours

In closed form: the two-dimensional Taylor-Green vortex, and Beltrami flows (curl u = k u), decaying as exp(-nu k^2 t).
The pressure is eliminated by projection, so the divergence stays zero to round-off. The nonlinear term takes three
inverse and five forward transforms: of the six products u_i u_j one is left to the pressure (Basdevant 1983).
Invariants for nu = 0: mean velocity, energy, helicity.
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
from ._problem import Channel, Problem, Setup, Signature
from ._random_fields import periodic_field
from ._solver import Solver
from ._spectral import Modes, modes_of

DIVERGENCE = 1e-4  # of the gradient, largest that an initial state may have: a float32 file has 1e-6


@dataclass(frozen=True, kw_only=True)
class NavierStokes3D(Problem, Semilinear):
    """Three-dimensional, periodic, decaying."""

    reynolds: float = 100.0  # Re = 1 / nu; infinity: Euler's equations
    initial: Literal["random_field", "taylor_green"] = "random_field"  # law of u(0)
    sigma: float = 2.0  # amplitude of a random field
    alpha: float = 3.0  # its smoothness
    tau: float = 2.0  # its inverse correlation length [1/m]
    length: float = 2 * math.pi  # L [m]
    frames: int = 10
    spacing: float = 0.25  # time between frames [s]

    setups: ClassVar[Mapping[str, Setup]] = {
        "quick": Setup(resolution=16, train=32, validation=4, test=8),
        "paper": Setup(resolution=64, train=200, validation=20, test=40),
    }
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        f"taylor_green_re{re}": {"reynolds": float(re), "initial": "taylor_green", "frames": 40, "spacing": 0.5}
        for re in (100, 200, 400, 800, 1600)
    }

    def __post_init__(self) -> None:
        if not self.reynolds > 0:
            raise ValueError(f"reynolds must be positive (infinity: no viscosity), got {self.reynolds}.")
        check_positive(length=self.length, frames=self.frames, spacing=self.spacing, sigma=self.sigma)
        check_not_negative(tau=self.tau)
        if self.initial not in ("random_field", "taylor_green"):
            raise ValueError(f"initial is 'random_field' or 'taylor_green', got {self.initial!r}.")
        if not 1.5 < self.alpha < math.inf:
            raise ValueError(f"alpha must be above 1.5, or u(0) has no finite variance; got {self.alpha}.")

    @property
    def signature(self) -> Signature:
        velocity = tuple(Channel(f"velocity_{axis}", "m/s", f"velocity along {axis}") for axis in "xyz")
        return Signature(velocity, velocity, self.frames, self.spacing, "s")

    def grid(self, resolution: int | Sequence[int]) -> Grid:
        return check_box(Grid.box(resolution, dim=3, upper=self.length, unit="m"), 3, "navier_stokes_3d")

    def sample(self, count: int, grid: Grid, *, generator: Generator) -> Tensor:
        if self.initial == "taylor_green":
            x, y, z = 2 * math.pi / self.length * grid.mesh()
            u, v = torch.sin(x) * torch.cos(y) * torch.cos(z), -torch.cos(x) * torch.sin(y) * torch.cos(z)
            return torch.stack([u, v, torch.zeros_like(u)]).repeat(count, 1, 1, 1, 1)
        law = {"alpha": self.alpha, "tau": self.tau, "sigma": self.sigma}
        fields = torch.stack([periodic_field(count, grid, **law, generator=generator) for _ in range(3)], dim=1)
        modes = modes_of(grid, fields)
        return modes.inverse(_project(modes.forward(fields), modes))

    def reference(self, **accuracy: Any) -> PeriodicEvolution:
        """Fourier in space, order 4 in time; see :class:`PeriodicEvolution` for ``tolerance``, ``step``, ``method``."""
        return PeriodicEvolution(self, **accuracy)

    def ladder(self, grid: Grid) -> Mapping[str, Solver]:
        return coarse_ladder(self, grid)

    def check_state(self, spectrum: Tensor, modes: Modes) -> None:
        # of the modes that take part: at a Nyquist mode a component of k has no sign and the divergence no meaning
        spectrum = spectrum * modes.kept
        along = spectrum - _project(spectrum, modes)
        share = torch.linalg.vector_norm(along.flatten(1), dim=1)
        share = share / torch.linalg.vector_norm(spectrum.flatten(1), dim=1).clamp_min(1e-300)
        bad = (share > DIVERGENCE).nonzero().flatten().tolist()
        if bad:
            raise ValueError(
                f"Initial velocity with divergence at sample(s) {bad[:8]} of its chunk: of its norm the share "
                f"{float(share.max()):.2g} is a gradient, at most {DIVERGENCE:g} may be. Project it first."
            )

    def symbol(self, modes: Modes) -> Tensor:
        return -modes.k2 / self.reynolds

    def nonlinear(self, spectrum: Tensor, modes: Modes) -> Tensor:
        u, v, w = modes.inverse(spectrum).unbind(dim=1)
        # what all three diagonal products have in common is a pressure: w² is taken off
        products = torch.stack([u * u - w * w, v * v - w * w, u * v, u * w, v * w], dim=1)
        uu, vv, uv, uw, vw = modes.forward(products).unbind(dim=1)
        x, y, z = _minus_ik(modes)
        flux = torch.stack([x * uu + y * uv + z * uw, x * uv + y * vv + z * vw, x * uw + y * vw], dim=1)
        return _project(flux, modes)

    def top_speed(self, spectrum: Tensor, modes: Modes) -> float:
        """Largest abs(u) + abs(v) + abs(w): the directions add up in the advective limit."""
        return float(modes.inverse(spectrum).abs_().sum(dim=1).max())

    def energy(self, velocity: Float[Tensor, "batch 3 *space"]) -> Float[Tensor, " batch"]:
        """Mean of abs(u)^2 / 2 [m^2/s^2]."""
        return 0.5 * velocity.square().sum(dim=1).flatten(1).mean(dim=1)

    def enstrophy(self, velocity: Float[Tensor, "batch 3 *space"], grid: Grid) -> Float[Tensor, " batch"]:
        """Mean of abs(curl u)^2 / 2 [1/s^2]; the energy decays at 2 nu times its rate."""
        return self.energy(vorticity(velocity, grid))


def vorticity(velocity: Float[Tensor, "batch 3 *space"], grid: Grid) -> Float[Tensor, "batch 3 *space"]:
    """The curl of u [1/s]."""
    modes = modes_of(grid, velocity)
    u, v, w = modes.forward(velocity).unbind(dim=1)
    x, y, z = modes.ik
    return modes.inverse(torch.stack([y * w - z * v, z * u - x * w, x * v - y * u], dim=1))


def _project(spectrum: Tensor, modes: Modes) -> Tensor:
    """Without the gradient part, u - k (k . u) / |k|²."""
    waves, over_square = _waves(modes)
    return spectrum - waves * ((waves * spectrum).sum(dim=1, keepdim=True) * over_square)


@functools.lru_cache(maxsize=16)
def _waves(modes: Modes) -> tuple[Tensor, Tensor]:
    """Wave vectors k as ``3 *modes``, zero where a Nyquist mode has no sign, and 1 / |k|² of it (0 for no wave)."""
    waves = torch.stack(torch.broadcast_tensors(*(ik.imag for ik in modes.ik)))
    square = waves.square().sum(dim=0)
    return waves, torch.where(square > 0, 1 / square.clamp_min(1e-300), 0.0)


@functools.lru_cache(maxsize=16)
def _minus_ik(modes: Modes) -> tuple[Tensor, ...]:
    """-d/dx_j, dealiased."""
    return tuple(-ik * modes.kept for ik in modes.ik)


build = NavierStokes3D
