r"""Incompressible Navier-Stokes on the torus, in vorticity form: w(0) -> w at the following frames.

.. math:: w_t + u\cdot\nabla w = \nu \Delta w - \mu w + f,\qquad u = (\partial_y\psi, -\partial_x\psi),\ -\Delta\psi = w

w     vorticity   [1/s]     sought; initial w ~ N(0, tau^3 (-Delta + tau^2)^{-5/2}) with tau = 7
nu    viscosity   [m^2/s]   given: 1e-3 (smooth), 1e-4, 1e-5 (fine filaments; use at least 128²)
mu    linear drag [1/s]     given, default 0
f     forcing     [1/s^2]   ``fno``: 0.1 (sin 2 pi (x+y) + cos 2 pi (x+y)) on the unit torus (Li et al. 2021);
                            ``kolmogorov``: -n cos(n y) on the torus of side 2 pi; ``none``

Kolmogorov flow is chaotic and its data are states on the attractor: ``burn_in`` seconds are computed and thrown away
before a sample is one. Each is computed alone, so that it does not depend on how many are drawn. At Reynolds number
500 a state holds finer scales than 64² nodes carry, so those of the published sets were computed on more nodes and read
off at fewer: ``solve_on`` does so.

Measured from one trajectory each (n = 4, mu = 0), the enstrophy spectrum falls below its peak, at the edge of the 2/3
rule, by so many decades:

=======  ====  ====  ====  ====  =====
Re       64²   128²  256²  512²  1024²
=======  ====  ====  ====  ====  =====
500      2.1   3.4   6.0   12.7
5000           1.8   3.1   4.9   8.8
=======  ====  ====  ====  ====  =====

Four make the small scales right: presets compute at Re 500 on 256² and at Re 5000 on 512². Their cost: a second of
flow takes some 5 s on one CPU core at 256² and 50 s at 512², and burn-in comes to 100 of them a sample. Re 500 is the
set of the Markov neural operator (Li et al. 2022); of Re 5000 no published settings are known, its preset is ours.
The nonlinear term is evaluated in Basdevant's form, :math:`u\cdot\nabla w = (\partial_{xx}-\partial_{yy})(u v) +
\partial_{xy}(v^2-u^2)`: two inverse and two forward real transforms instead of five (J. Comput. Phys. 50, 1983).
Invariants for nu = mu = f = 0: mean vorticity, energy, enstrophy.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Generator, Tensor

from ._grid import Grid
from ._periodic import PeriodicEvolution, Semilinear, check_box, check_not_negative, check_positive, coarse_ladder
from ._problem import Channel, Problem, Setup, Signature
from ._random_fields import periodic_field
from ._refined import RefinedEvolution
from ._solver import Solver
from ._spectral import Modes
from ._symmetry import Symmetry, WithSymmetries

Forcing = Literal["fno", "kolmogorov", "none"]


@dataclass(frozen=True, kw_only=True)
class NavierStokes(Problem, Semilinear, WithSymmetries):
    """Two-dimensional, periodic, forced."""

    viscosity: float = 1e-3  # nu [m^2/s]
    forcing: Forcing = "fno"
    wavenumber: int = 4  # n of the Kolmogorov forcing, an integer so that it is periodic
    drag: float = 0.0  # mu [1/s]
    tau: float = 7.0  # inverse correlation length of w(0) [1/m]
    alpha: float = 2.5  # smoothness of w(0)
    frames: int = 20
    spacing: float = 1.0  # time between frames [s]
    burn_in: float = 0.0  # time before a sample [s]
    solve_on: int = 0  # nodes an axis, at least, that burn-in and reference compute on; 0: those of the grid

    setups: ClassVar[Mapping[str, Setup]] = {
        "quick": Setup(resolution=64, train=128, validation=8, test=24, starts=(10, 0), horizon=10),
        "paper": Setup(resolution=64, train=1000, validation=100, test=200, starts=(10, 0), horizon=10),
    }
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "fno_ns_1e-3": {"viscosity": 1e-3, "frames": 50},
        "fno_ns_1e-4": {"viscosity": 1e-4, "frames": 30},
        "fno_ns_1e-5": {"viscosity": 1e-5, "frames": 20},
        "kolmogorov_re500": {
            **{"viscosity": 1 / 500, "forcing": "kolmogorov", "wavenumber": 4, "frames": 400},
            **{"burn_in": 100.0, "solve_on": 256},
        },
        "kolmogorov_re5000": {
            **{"viscosity": 1 / 5000, "forcing": "kolmogorov", "wavenumber": 4, "frames": 100},
            **{"burn_in": 100.0, "solve_on": 512},
        },
    }

    def __post_init__(self) -> None:
        check_not_negative(viscosity=self.viscosity, drag=self.drag, tau=self.tau)
        check_not_negative(burn_in=self.burn_in, solve_on=self.solve_on)
        check_positive(frames=self.frames, spacing=self.spacing)
        if self.forcing not in ("fno", "kolmogorov", "none"):
            raise ValueError(f"forcing is 'fno', 'kolmogorov' or 'none', got {self.forcing!r}.")
        if self.wavenumber < 1:
            raise ValueError(f"wavenumber is a whole number, at least 1; got {self.wavenumber}.")
        if not 1 < self.alpha < math.inf:
            raise ValueError(f"alpha must be above 1, or w(0) has no finite variance; got {self.alpha}.")

    @property
    def signature(self) -> Signature:
        vorticity = (Channel("vorticity", "1/s", "vorticity w"),)
        return Signature(vorticity, vorticity, self.frames, self.spacing, "s")

    def grid(self, resolution: int | Sequence[int]) -> Grid:
        side = 2 * math.pi if self.forcing == "kolmogorov" else 1.0
        return check_box(Grid.box(resolution, dim=2, upper=side, unit="m"), 2, "navier_stokes")

    def sample(self, count: int, grid: Grid, *, generator: Generator) -> Tensor:
        start = periodic_field(count, grid, alpha=self.alpha, tau=self.tau, generator=generator)[:, None]
        if not self.burn_in:
            return start
        return self.reference(chunk=1)(start, grid, (self.burn_in,))[:, 0]

    def reference(self, *, tolerance: float = 2e-5, **accuracy: Any) -> PeriodicEvolution | RefinedEvolution:
        """Fourier in space, order 4 in time; see :class:`PeriodicEvolution` for ``tolerance``, ``step``, ``method``."""
        if self.solve_on:
            return RefinedEvolution(self, nodes=self.solve_on, tolerance=tolerance, **accuracy)
        return PeriodicEvolution(self, tolerance=tolerance, **accuracy)

    def ladder(self, grid: Grid) -> Mapping[str, Solver]:
        return coarse_ladder(self, grid, smallest=max(8, 3 * self._forced_mode + 1))

    def symmetries(self, grid: Grid) -> Sequence[Symmetry]:
        """Shifts by eighths of the period, half turns and mirrors, as far as the forcing shares them.

        Vorticity changes its sign under a mirror, and so must f: ``fno`` does when half a period moves x + y too (and
        is its own half turn about x + y = 1/8), ``kolmogorov`` when a crest of cos(n y) becomes a trough.
        """
        eighths = [i / 8 for i in range(8)]
        if self.forcing == "fno":
            turns = [((0, 1), False, 0.0, 1.0), ((0, 1), True, 0.25, 1.0)]
            turns += [((1, 0), turn, shift + 0.5, -1.0) for _, turn, shift, _ in turns]
            return [_moved(axes, (turn, turn), (c + s, -s), sign) for axes, turn, c, sign in turns for s in eighths]
        if self.forcing == "kolmogorov":
            crests = range(2 * self.wavenumber)
            return [
                _moved((0, 1), (bool(k % 2) != turn, turn), (s, k / (2 * self.wavenumber)), (-1.0) ** k)
                for turn in (False, True)
                for k in crests
                for s in eighths
            ]
        return [
            _moved(axes, (x, y), (s, t), -1.0 if (axes == (1, 0)) ^ x ^ y else 1.0)
            for axes in ((0, 1), (1, 0))
            for x in (False, True)
            for y in (False, True)
            for s in eighths
            for t in eighths
        ]

    @property
    def _forced_mode(self) -> int:
        """Largest mode number of the forcing; a grid keeps it if it has more than three times as many nodes."""
        return {"fno": 1, "kolmogorov": self.wavenumber, "none": 0}[self.forcing]

    def symbol(self, modes: Modes) -> Tensor:
        return -self.viscosity * modes.k2 - self.drag

    def nonlinear(self, spectrum: Tensor, modes: Modes) -> Tensor:
        flow = _flow(self.forcing, self._forced_mode, modes)
        u, v = modes.inverse(flow.to_velocity * spectrum).unbind(dim=1)
        products = u.new_empty(len(u), 2, *u.shape[1:])
        torch.mul(u, v, out=products[:, 0])
        torch.mul(v, v, out=products[:, 1]).addcmul_(u, u, value=-1)
        of_uv, of_squares = modes.forward(products).split(1, dim=1)
        return torch.addcmul(flow.forcing, flow.of_uv, of_uv).addcmul_(flow.of_squares, of_squares)

    def velocity(self, spectrum: Tensor, modes: Modes) -> Tensor:
        """Velocity (u, v) at the nodes from the kept modes of the vorticity: ``batch 2 *space``."""
        return modes.inverse(_flow(self.forcing, self._forced_mode, modes).to_velocity * spectrum)

    def top_speed(self, spectrum: Tensor, modes: Modes) -> float:
        """Largest abs(u) + abs(v): the two directions add up in the advective limit."""
        u, v = self.velocity(spectrum, modes).unbind(dim=1)
        return float(u.abs_().add_(v.abs_()).max())


@dataclass(frozen=True)
class _Flow:
    """What the right-hand side multiplies with, complex and dealiased; computed once a grid."""

    to_velocity: Tensor  # 2 *modes: (i ky, -i kx) / |k|²
    of_uv: Tensor  # *modes: -(dxx - dyy) = kx² - ky²
    of_squares: Tensor  # *modes: -dxy = kx ky
    forcing: Tensor  # *modes


@functools.lru_cache(maxsize=16)
def _flow(forcing: Forcing, mode: int, modes: Modes) -> _Flow:
    if 3 * mode >= min(modes.grid.shape):
        raise ValueError(
            f"The forcing has mode number {mode}, which takes more than {3 * mode} nodes an axis; "
            f"got a grid of {modes.grid.shape}."
        )
    ikx, iky = modes.ik
    inverse = -modes.inverse_laplacian * modes.kept
    return _Flow(
        to_velocity=torch.stack([iky * inverse, -ikx * inverse]),
        of_uv=(iky**2 - ikx**2) * modes.kept,
        of_squares=-ikx * iky * modes.kept,
        forcing=_forcing_spectrum(forcing, mode, modes),
    )


def _forcing_spectrum(forcing: Forcing, mode: int, modes: Modes) -> Tensor:
    x, y = modes.grid.mesh(dtype=modes.k2.dtype, device=modes.k2.device)
    if forcing == "fno":
        phase = 2 * math.pi * (x + y)
        values = 0.1 * (torch.sin(phase) + torch.cos(phase))
    elif forcing == "kolmogorov":
        values = -mode * torch.cos(mode * y)
    else:
        values = torch.zeros_like(x)
    return modes.forward(values) * modes.kept


def _moved(axes: tuple[int, int], mirrored: tuple[bool, bool], shift: tuple[float, float], sign: float) -> Symmetry:
    wrapped = (shift[0] % 1.0, shift[1] % 1.0)
    return Symmetry(axes=axes, mirrored=mirrored, shift=wrapped, input_signs=(sign,), output_signs=(sign,))


build = NavierStokes
