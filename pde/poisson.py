r"""Poisson's equation :math:`-\Delta u = f` on the unit interval, square or cube, u = 0 on the boundary; f -> u.

f     source     [1]   given; f ~ N(0, tau^{2 alpha - dim} (-Delta + tau²)^{-alpha}), zero on the boundary
u     potential  [1]   sought

Non-dimensional: lengths in sides of the box. The inputs are band-limited, so the solution is known in closed form:
each sine mode is divided by :math:`\pi^2 |n|^2`.
"""

from __future__ import annotations

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
from ._weak_form import Balance, Candidate, WithWeakForm, box_envelope, root_mean_squares

LADDER = (8, 6, 4, 3, 2, 1)  # how many times coarser the rungs of the ladder are


@dataclass(frozen=True, kw_only=True)
class Poisson(Problem, WithEquation, WithExact, WithResidual, WithWeakForm):
    """A linear problem with a known answer: the first thing a solver should get right."""

    dim: int = 2  # 1, 2 or 3
    tau: float = 3.0  # inverse correlation length of f
    alpha: float = 2.0  # smoothness of f, more than dim / 2

    setups: ClassVar[Mapping[str, Setup]] = {
        "quick": Setup(resolution=65, train=400, validation=40, test=100),
        "paper": Setup(resolution=129, train=1000, validation=100, test=200),
    }

    def __post_init__(self) -> None:
        if self.dim not in (1, 2, 3):
            raise ValueError(f"dim is 1, 2 or 3, got {self.dim}.")
        if not self.tau > 0:
            raise ValueError(f"tau must be positive, got {self.tau}.")
        if not 2 * self.alpha > self.dim:
            raise ValueError(f"In {self.dim} dimension(s) alpha must exceed {self.dim / 2}, got {self.alpha}.")

    @property
    def signature(self) -> Signature:
        return Signature((Channel("source", "1", "source f"),), (Channel("potential", "1", "potential u"),))

    def grid(self, resolution: int | Sequence[int]) -> Grid:
        return Grid.box(resolution, dim=self.dim, boundary="dirichlet")

    def sample(self, count: int, grid: Grid, *, generator: Generator) -> Tensor:
        return dirichlet_field(count, grid, alpha=self.alpha, tau=self.tau, generator=generator)[:, None]

    def reference(self, **accuracy: Any) -> FastSine:
        """Exact for the problem's inputs; see :class:`FastSine` for ``symbol`` and ``shape``."""
        return FastSine(**accuracy)

    def exact(self, inputs: Tensor, grid: Grid, times: Sequence[float] | None = None) -> Tensor:
        return FastSine()(inputs, grid)

    def equation(self, inputs: Tensor, grid: Grid) -> Equation:
        return shifted_laplace(inputs, grid)

    def posed(self, inputs: Tensor, grid: Grid, target: Grid) -> Tensor | None:
        return sine_posed(inputs, grid, target)

    def ladder(self, grid: Grid) -> Mapping[str, Solver]:
        """Second-order differences and the sine method on coarser grids, cheap to dear."""
        ladder: dict[str, Solver] = {}
        for divisor in LADDER:
            shape = tuple(max(4, round((n - 1) / divisor) + 1) for n in grid.shape)
            if shape > grid.shape:
                continue
            label = "x".join(str(n) for n in shape)
            ladder[f"differences {label}"] = FastSine(symbol="second_order", shape=shape)
            ladder[f"sine {label}"] = FastSine(shape=shape)
        return ladder

    def balances(self, candidate: Candidate) -> Mapping[str, Balance]:
        return {"potential": Balance(candidate.gradients["potential"], -candidate.inputs["source"])}

    def energy(self, candidate: Candidate) -> Tensor:
        """|grad u|² / 2 - f u."""
        stored = 0.5 * candidate.gradients["potential"].square().sum(dim=-1)
        return stored - candidate.inputs["source"] * candidate.outputs["potential"]

    def balance_scales(self, inputs: Tensor, grid: Grid) -> Mapping[str, Tensor]:
        return {"potential": root_mean_squares(inputs)}

    def output_scales(self, inputs: Tensor, grid: Grid) -> Mapping[str, float]:
        """As if every source were the longest wave."""
        return {"potential": float(root_mean_squares(inputs).mean()) / (self.dim * math.pi**2)}

    def envelope(self, points: Tensor) -> Mapping[str, Tensor]:
        return {"potential": box_envelope(self.grid(2), points)}

    def residual(self, inputs: Tensor, outputs: Tensor, grid: Grid) -> Tensor:
        r""":math:`-\Delta u - f` of the sine interpolant at inner nodes, u itself at boundary nodes; differentiable."""
        check_fields(inputs, grid, 1)
        check_fields(outputs, grid, 1, "outputs")
        values = interior(outputs, grid.dim)
        inner = -interior(inputs, grid.dim)
        for j, axis in enumerate(grid.axes, start=2):
            inner = inner + apply_along(sine_second_derivative(axis), values, j)
        edge = torch.ones(grid.shape, dtype=torch.bool, device=outputs.device)
        interior(edge, grid.dim).fill_(False)
        return torch.where(edge, outputs, torch.nn.functional.pad(inner, (1, 1) * grid.dim))


class FastSine(Solver):
    """Fast sine transforms (DST-I), on the grid itself or on a coarser one.

    symbol  ``spectral`` (exact for sources that are a sine series on the grid) or ``second_order`` (the 3, 5 or
            7-point difference, of order 2)
    shape   solve on a grid with these numbers of nodes; source and solution are carried over as sine series
    """

    def __init__(self, *, symbol: Symbol = "spectral", shape: Sequence[int] | None = None) -> None:
        self.symbol: Symbol = symbol
        self.shape = None if shape is None else tuple(shape)

    @torch.no_grad()
    def __call__(self, inputs: Tensor, grid: Grid, times: Sequence[float] | None = None) -> Tensor:
        check_fields(inputs, grid, 1)
        if self.shape is None or self.shape == grid.shape:
            return fast_poisson(inputs, grid, symbol=self.symbol)
        source = sine_resample(inputs.cpu(), self.shape)
        solution = fast_poisson(source, grid.at(self.shape), symbol=self.symbol)
        return sine_resample(solution, grid.shape).to(inputs)


build = Poisson
