r"""Cubic nonlinear Schrödinger equation on a periodic box: psi(0) -> psi at the following frames.

.. math:: i\,\psi_t + \tfrac12 \Delta\psi + g\,|\psi|^2 \psi = 0,\qquad \psi = a + i b

psi   wave function  [1]   sought, as its real part a and imaginary part b; dimensionless throughout
g     interaction    [1]   given: 1 focusing (solitons in one dimension), -1 defocusing (condensates), 0 a free particle
L     side of the box      the domain is [-L/2, L/2]^dim

``random_field``  a and b independent, N(0, sigma^2 (-Delta + tau^2)^{-alpha}), around the mean ``background``; ours
``sech``          psi(0) = amplitude sech(x), every sample the same: with amplitude 2 and g = 1 Raissi et al. (2019)

In closed form, for g = 1 in one dimension: the bright soliton A sech(A (x - v t)) exp(i v x + i (A^2 - v^2) t / 2); and
from 2 sech(x) two solitons that beat with period pi / 2 (Satsuma & Yajima 1974). A uniform state r exp(i g r^2 t) is
stable for g < 0; for g > 0 waves with k^2 < 4 g r^2 grow. Focusing waves in two and three dimensions may
collapse to a point in finite time (2-D: only with a mass above 5.85 / g), which no grid shows: watch the Hamiltonian.

Invariants, also of the semi-discrete equations (the cubic term is dealiased exactly): mass, momentum, Hamiltonian.
Waves turn by exp(-i k^2 t / 2): the linear part is exact, whatever k^2 dt.
"""

from __future__ import annotations

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
from ._products import pointwise
from ._random_fields import periodic_field
from ._solver import Solver
from ._spectral import Modes, fourier_resample, modes_of


@dataclass(frozen=True, kw_only=True)
class NonlinearSchroedinger(Problem, Semilinear):
    """Cubic, periodic, in one to three dimensions."""

    dim: Literal[1, 2, 3] = 1  # dimensions of the box
    interaction: float = 1.0  # g; above 0 focusing, below 0 defocusing
    initial: Literal["random_field", "sech"] = "random_field"  # law of psi(0)
    background: float = 0.0  # mean of psi(0), of a random field
    sigma: float = 0.5  # amplitude of a random field
    alpha: float = 2.0  # its smoothness
    tau: float = 1.0  # its inverse correlation length
    amplitude: float = 2.0  # of sech
    length: float = 10.0  # L
    frames: int = 20
    spacing: float = 0.1  # time between frames

    setups: ClassVar[Mapping[str, Setup]] = {
        "quick": Setup(resolution=64, train=128, validation=16, test=32),
        "paper": Setup(resolution=256, train=1000, validation=100, test=200),
    }
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "pinn_schroedinger": {"initial": "sech", "amplitude": 2.0, "frames": 200, "spacing": math.pi / 400},
        "defocusing_2d": {"dim": 2, "interaction": -1.0, "background": 1.0, "alpha": 3.0},
    }

    def __post_init__(self) -> None:
        if self.dim not in (1, 2, 3):
            raise ValueError(f"dim is 1, 2 or 3, got {self.dim}.")
        if not (math.isfinite(self.interaction) and math.isfinite(self.background)):
            raise ValueError(f"interaction and background are finite, got {self.interaction} and {self.background}.")
        check_positive(length=self.length, frames=self.frames, spacing=self.spacing, amplitude=self.amplitude)
        check_not_negative(sigma=self.sigma, tau=self.tau)
        if self.initial not in ("random_field", "sech") or (self.initial == "sech" and self.dim > 1):
            raise ValueError(
                f"initial is 'random_field' or, in one dimension, 'sech'; got {self.initial!r} in dim {self.dim}."
            )
        if not self.dim / 2 < self.alpha < math.inf:
            raise ValueError(f"alpha must be above dim / 2, or psi(0) has no finite variance; got {self.alpha}.")

    @property
    def signature(self) -> Signature:
        parts = (Channel("real", "1", "Re psi"), Channel("imaginary", "1", "Im psi"))
        return Signature(parts, parts, self.frames, self.spacing)

    def grid(self, resolution: int | Sequence[int]) -> Grid:
        box = Grid.box(resolution, dim=self.dim, lower=-self.length / 2, upper=self.length / 2)
        return check_box(box, self.dim, "nonlinear_schroedinger")

    def sample(self, count: int, grid: Grid, *, generator: Generator) -> Tensor:
        if self.initial == "sech":
            wave = self.amplitude / torch.cosh(grid.mesh()[0])
            return torch.stack([wave, torch.zeros_like(wave)]).repeat(count, 1, *(1,) * grid.dim)
        law = {"alpha": self.alpha, "tau": self.tau, "sigma": self.sigma}
        parts = [periodic_field(count, grid, **law, generator=generator) for _ in range(2)]
        return torch.stack([self.background + parts[0], parts[1]], dim=1)

    def reference(self, **accuracy: Any) -> PeriodicEvolution:
        """Fourier in space, order 4 in time; see :class:`PeriodicEvolution` for ``tolerance``, ``step``, ``method``."""
        return PeriodicEvolution(self, **accuracy)

    def ladder(self, grid: Grid) -> Mapping[str, Solver]:
        return coarse_ladder(self, grid)

    def symbol(self, modes: Modes) -> Tensor:
        """a_t = -Delta b / 2, b_t = Delta a / 2: a rotation of (a, b)."""
        turn, none = 0.5 * modes.k2, torch.zeros_like(modes.k2)
        return torch.stack([torch.stack([none, turn]), torch.stack([-turn, none])])

    def nonlinear(self, spectrum: Tensor, modes: Modes) -> Tensor:
        return pointwise(self._turned, spectrum, modes, degree=3)

    def _turned(self, psi: Tensor) -> Tensor:
        """The cubic term, i g abs(psi)^2 psi."""
        density = self.interaction * psi.square().sum(dim=1, keepdim=True)
        return density * torch.stack([-psi[:, 1], psi[:, 0]], dim=1)

    def mass(self, psi: Float[Tensor, "batch 2 *space"], grid: Grid) -> Float[Tensor, " batch"]:
        """Integral of abs(psi)^2."""
        return psi.square().flatten(1).sum(dim=1) * math.prod(grid.spacing)

    def momentum(self, psi: Float[Tensor, "batch 2 *space"], grid: Grid) -> Float[Tensor, "batch dim"]:
        """Integral of Im(psi* grad psi) = a grad b - b grad a, one component a direction."""
        modes = modes_of(grid, psi)
        slopes = torch.stack([modes.inverse(ik * modes.forward(psi)) for ik in modes.ik], dim=1)
        density = psi[:, None, 0] * slopes[:, :, 1] - psi[:, None, 1] * slopes[:, :, 0]
        return density.flatten(2).sum(dim=2) * math.prod(grid.spacing)

    def hamiltonian(self, psi: Float[Tensor, "batch 2 *space"], grid: Grid) -> Float[Tensor, " batch"]:
        """Integral of (abs(grad psi)^2 - g abs(psi)^4) / 2."""
        # the fourth power reaches four times as far: on twice the nodes its integral is exact for the kept modes
        psi = fourier_resample(psi, [2 * n for n in grid.shape])
        grid = grid.at(psi.shape[2:])
        modes = modes_of(grid, psi)
        kinetic = psi * modes.inverse(modes.k2 * modes.forward(psi))
        density = kinetic.sum(dim=1) - self.interaction * psi.square().sum(dim=1).square()
        return 0.5 * density.flatten(1).sum(dim=1) * math.prod(grid.spacing)


build = NonlinearSchroedinger
