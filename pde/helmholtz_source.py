r"""Helmholtz equation :math:`-\Delta u - k^2 u = f`, constant k, in the unit box, u = 0 on its boundary; f -> u.

f     source      [1]   given; f ~ N(0, tau^{2 alpha - dim} (-Delta + tau²)^{-alpha}), zero on the boundary
u     amplitude   [1]   sought; oscillates k / pi times across the box even where f does not

Non-dimensional: lengths in sides of the box. The closed-form companion of ``helmholtz``, for methods that solve one
instance: inputs are band-limited, so each sine mode is divided by :math:`\pi^2|n|^2 - k^2` and that is all. The default
k = 20 lies between the eigenvalues 40 pi² and 41 pi² (k² = 40.53 pi²). Within ``CLEARANCE`` of an eigenvalue the answer
would be one mode with an arbitrary factor, and the problem is refused.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor

from ._elliptic import apply_along, interior
from ._equation import Equation, WithEquation
from ._grid import Grid
from ._problem import Channel, Problem, Setup, Signature, WithExact, WithResidual
from ._random_fields import dirichlet_field
from ._sine_sources import shifted_laplace, sine_posed
from ._solver import Solver, check_fields
from ._trigonometric import Symbol, fast_poisson, sine_resample, sine_second_derivative

LADDER = (4, 3, 2, 1)  # how many times coarser the rungs of the ladder are
CLEARANCE = 1e-4  # smallest distance of k² to an eigenvalue, in eigenvalues


@dataclass(frozen=True, kw_only=True)
class HelmholtzSource(Problem, WithEquation, WithExact, WithResidual):
    """An indefinite problem with a known answer: where methods made for Poisson's equation fail."""

    dim: int = 2  # 1, 2 or 3
    wavenumber: float = 20.0  # k
    tau: float = 3.0  # inverse correlation length of f
    alpha: float = 2.0  # smoothness of f, more than dim / 2

    setups: ClassVar[Mapping[str, Setup]] = {
        "quick": Setup(resolution=65, train=400, validation=40, test=100),
        "paper": Setup(resolution=129, train=1000, validation=100, test=200),
    }

    def __post_init__(self) -> None:
        if self.dim not in (1, 2, 3):
            raise ValueError(f"dim is 1, 2 or 3, got {self.dim}.")
        if not self.wavenumber >= 0:
            raise ValueError(f"wavenumber must be at least 0 (Poisson's equation), got {self.wavenumber}.")
        if not self.tau > 0:
            raise ValueError(f"tau must be positive, got {self.tau}.")
        if not 2 * self.alpha > self.dim:
            raise ValueError(f"In {self.dim} dimension(s) alpha must exceed {self.dim / 2}, got {self.alpha}.")
        nearest = self._nearest_eigenvalue()
        if abs(self.wavenumber**2 / nearest - 1) < CLEARANCE:
            raise ValueError(
                f"wavenumber {self.wavenumber} is a resonance of the box, sqrt({nearest / math.pi**2:.0f}) pi; "
                f"keep a relative distance of {CLEARANCE / 2:g} from it."
            )

    def _nearest_eigenvalue(self) -> float:
        numbers = range(1, math.ceil(self.wavenumber / math.pi) + 2)
        values = {sum(n**2 for n in mode) for mode in itertools.product(numbers, repeat=self.dim)}
        return math.pi**2 * min(values, key=lambda n: abs(math.pi**2 * n - self.wavenumber**2))

    @property
    def signature(self) -> Signature:
        return Signature((Channel("source", "1", "source f"),), (Channel("amplitude", "1", "amplitude u"),))

    def grid(self, resolution: int | Sequence[int]) -> Grid:
        return Grid.box(resolution, dim=self.dim, boundary="dirichlet")

    def sample(self, count: int, grid: Grid, *, generator: Generator) -> Tensor:
        return dirichlet_field(count, grid, alpha=self.alpha, tau=self.tau, generator=generator)[:, None]

    def reference(self, **accuracy: Any) -> ShiftedSine:
        """Exact for the problem's inputs; see :class:`ShiftedSine` for ``symbol`` and ``shape``."""
        return ShiftedSine(self, **accuracy)

    def exact(self, inputs: Tensor, grid: Grid, times: Sequence[float] | None = None) -> Tensor:
        return ShiftedSine(self)(inputs, grid)

    def equation(self, inputs: Tensor, grid: Grid) -> Equation:
        return shifted_laplace(inputs, grid, shift=self.wavenumber**2)

    def posed(self, inputs: Tensor, grid: Grid, target: Grid) -> Tensor | None:
        return sine_posed(inputs, grid, target)

    def ladder(self, grid: Grid) -> Mapping[str, Solver]:
        """Second-order differences and the sine method on coarser grids that still carry the wave, cheap to dear."""
        ladder: dict[str, Solver] = {}
        for divisor in LADDER:
            shape = tuple(round((n - 1) / divisor) + 1 for n in grid.shape)
            if max(self.wavenumber / math.pi, 3) < min(shape) - 1 and shape <= grid.shape:
                label = "x".join(str(n) for n in shape)
                ladder[f"differences {label}"] = ShiftedSine(self, symbol="second_order", shape=shape)
                ladder[f"sine {label}"] = ShiftedSine(self, shape=shape)
        return ladder

    def residual(self, inputs: Tensor, outputs: Tensor, grid: Grid) -> Tensor:
        r""":math:`-\Delta u - k^2 u - f` of the sine interpolant at inner nodes, u itself at others; differentiable."""
        check_fields(inputs, grid, 1)
        check_fields(outputs, grid, 1, "outputs")
        values = interior(outputs, grid.dim)
        inner = -interior(inputs, grid.dim) - self.wavenumber**2 * values
        for j, axis in enumerate(grid.axes, start=2):
            inner = inner + apply_along(sine_second_derivative(axis), values, j)
        edge = torch.ones(grid.shape, dtype=torch.bool, device=outputs.device)
        interior(edge, grid.dim).fill_(False)
        return torch.where(edge, outputs, torch.nn.functional.pad(inner, (1, 1) * grid.dim))


class ShiftedSine(Solver):
    """Fast sine transforms (DST-I), on the grid itself or on a coarser one.

    symbol  ``spectral`` (exact for sources that are a sine series on the grid) or ``second_order`` (three-point
            differences along each axis, of order 2: wavelengths are off by (k h)²/24)
    shape   solve on a grid with these numbers of nodes; source and solution are carried over as sine series

    A grid with fewer than two nodes a wavelength is refused: it has no mode of this wavenumber.
    """

    def __init__(
        self, problem: HelmholtzSource, *, symbol: Symbol = "spectral", shape: Sequence[int] | None = None
    ) -> None:
        self.problem = problem
        self.symbol: Symbol = symbol
        self.shape = None if shape is None else tuple(shape)

    @torch.no_grad()
    def __call__(self, inputs: Tensor, grid: Grid, times: Sequence[float] | None = None) -> Tensor:
        check_fields(inputs, grid, 1)
        shape, least = self.shape or grid.shape, math.floor(self.problem.wavenumber / math.pi) + 2
        if min(shape) < least:
            raise ValueError(
                f"Wavenumber {self.problem.wavenumber} needs at least {least} nodes along each axis; got {shape}."
            )
        shift = self.problem.wavenumber**2
        if shape == grid.shape:
            return fast_poisson(inputs, grid, symbol=self.symbol, shift=shift)
        source = sine_resample(inputs.cpu(), shape)
        solution = fast_poisson(source, grid.at(shape), symbol=self.symbol, shift=shift)
        return sine_resample(solution, grid.shape).to(inputs)


build = HelmholtzSource
