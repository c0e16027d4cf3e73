r"""Poisson's equation :math:`-\Delta u = f` on an L-shape, u = 0 on its boundary; f -> u.

The domain is :math:`(-1,1)^2` without the quadrant :math:`x \ge 0,\ y \le 0`.

f     source     [1]   given; a Gaussian field N(0, tau^{2 alpha - 2} (-Delta + tau²)^{-alpha}), Neumann on the square
u     potential  [1]   sought

Non-dimensional: lengths in half sides. Fields live on the grid of the whole square and are *zero in the missing
quadrant* x > 0, y < 0, both inputs and outputs; norms over the square are therefore norms over the L-shape.

At the re-entrant corner (angle 3 pi / 2) almost every solution behaves as :func:`singular_function`,
:math:`r^{2/3}\sin(2\theta/3)`: the gradient is unbounded, and with uniform nodes *every* method based on the smoothness
of u is of order 4/3 in L2, however high its order elsewhere. Differences of second order reach exactly that: observed
1.26, 1.29, 1.31 from 33² to 257² nodes, with a relative L2 error of 0.0011 at 65².
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from scipy.sparse.linalg import SuperLU, splu
from torch import Generator, Tensor

from ._elliptic import apply_along, assemble, diffusion, interior
from ._grid import Axis, Grid
from ._problem import Channel, Problem, Setup, Signature, WithResidual
from ._random_fields import neumann_field
from ._solver import Solver, check_fields

LADDER = (8, 4, 2)  # how many times coarser the rungs of the ladder are


@dataclass(frozen=True, kw_only=True)
class LShape(Problem, WithResidual):
    """A smooth source and a solution that is not: what a re-entrant corner costs."""

    tau: float = 3.0  # inverse correlation length of f
    alpha: float = 2.0  # smoothness of f, more than 1

    setups: ClassVar[Mapping[str, Setup]] = {
        "quick": Setup(resolution=65, train=400, validation=40, test=100),
        "paper": Setup(resolution=129, train=1000, validation=100, test=200),
    }

    def __post_init__(self) -> None:
        if not self.tau > 0:
            raise ValueError(f"tau must be positive, got {self.tau}.")
        if not self.alpha > 1:
            raise ValueError(f"In two dimensions alpha must exceed 1, got {self.alpha}.")

    @property
    def signature(self) -> Signature:
        return Signature((Channel("source", "1", "source f"),), (Channel("potential", "1", "potential u"),))

    def grid(self, resolution: int | Sequence[int]) -> Grid:
        return Grid.box(resolution, dim=2, lower=-1.0, boundary="dirichlet")

    def sample(self, count: int, grid: Grid, *, generator: Generator) -> Float[Tensor, "batch 1 x y"]:
        field = neumann_field(count, grid, alpha=self.alpha, tau=self.tau, generator=generator)[:, None]
        return torch.where(closure(grid), field, 0.0)

    def reference(self, **accuracy: Any) -> Differences:
        """Order 4/3, the corner's; see :class:`Differences` for ``refine`` and ``shape``."""
        return Differences(**accuracy)

    def ladder(self, grid: Grid) -> Mapping[str, Solver]:
        """Differences on the coarser grids that still have a node in the corner, cheap to dear."""
        shapes = [tuple((n - 1) // k + 1 for n in grid.shape) for k in LADDER if _divides(k, grid)]
        return {f"differences {'x'.join(map(str, shape))}": Differences(shape=shape) for shape in [*shapes, grid.shape]}

    def residual(self, inputs: Tensor, outputs: Tensor, grid: Grid) -> Tensor:
        r""":math:`-\Delta u - f` by second differences at nodes inside the L-shape, u itself at all others.

        Zero to round-off for the reference at ``refine=1``; differentiable.
        """
        check_fields(inputs, grid, 1)
        check_fields(outputs, grid, 1, "outputs")
        values = outputs[:, 0]
        misfit = diffusion(_ones(grid), values, grid) - interior(inputs[:, 0], 2)
        return torch.where(inside(grid).to(outputs.device), torch.nn.functional.pad(misfit, (1, 1, 1, 1)), values)[
            :, None
        ]


class Differences(Solver):
    """Second-order five-point differences, on the grid itself or another one; factorised once a grid.

    refine    solve on a grid this many times finer, with the source interpolated linearly
    shape     solve on a grid with these numbers of nodes instead
    """

    def __init__(self, *, refine: int = 1, shape: Sequence[int] | None = None) -> None:
        if refine < 1:
            raise ValueError(f"refine must be at least 1, got {refine}.")
        if refine > 1 and shape is not None:
            raise ValueError(f"Give refine or shape, not both: got {refine} and {tuple(shape)}.")
        self.refine = refine
        self.shape = None if shape is None else tuple(shape)

    @torch.no_grad()
    def __call__(self, inputs: Tensor, grid: Grid, times: Sequence[float] | None = None) -> Tensor:
        check_fields(inputs, grid, 1)
        target = grid.at(self.shape or [self.refine * (n - 1) + 1 for n in grid.shape])
        source = _carry(inputs.detach().to("cpu", torch.float64)[:, 0], grid, target)
        return _carry(solve(source, target), target, grid)[:, None].to(inputs)


def solve(
    source: Float[Tensor, "batch x y"], grid: Grid, boundary: Float[Tensor, "batch x y"] | None = None
) -> Float[Tensor, "batch x y"]:
    """Five-point differences with the given source inside and the values of ``boundary`` (0) on the edge of the L."""
    within = inside(grid)
    rim = closure(grid) & ~within
    solution = torch.zeros_like(source) if boundary is None else torch.where(rim, boundary, 0.0)
    right = interior(source, 2) - diffusion(_ones(grid), solution, grid)
    unknown = interior(within, 2)
    found = _factorised(grid).solve(right[:, unknown].numpy().T.copy())
    solution[:, within] = torch.from_numpy(found.T.copy())
    return solution


@functools.lru_cache(maxsize=8)
def _factorised(grid: Grid) -> SuperLU:
    """The five-point matrix of the square, restricted to the nodes inside the L."""
    unknown: NDArray[np.bool_] = interior(inside(grid), 2).flatten().numpy()
    matrix = assemble([face[0].numpy() for face in _ones(grid)], grid.spacing)
    part = matrix[unknown][:, unknown]
    return splu(part, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})


def inside(grid: Grid) -> Bool[Tensor, "x y"]:
    """Nodes of the open L-shape."""
    x, y = grid.mesh()
    return (x > -1) & (x < 1) & (y > -1) & (y < 1) & ~((x >= 0) & (y <= 0)) & closure(grid)


def closure(grid: Grid) -> Bool[Tensor, "x y"]:
    """Nodes of the L-shape with its boundary. Refuses grids without a node in the corner."""
    _check(grid)
    x, y = grid.mesh()
    return ~((x > 0) & (y < 0))


def singular_function(grid: Grid) -> Float[Tensor, "x y"]:
    r""":math:`r^{2/3}\sin(2\theta/3)`, harmonic, zero on both edges at the corner; zero in the missing quadrant."""
    x, y = grid.mesh()
    angle = torch.atan2(y, x) % (2 * torch.pi)
    return torch.where(closure(grid), (x**2 + y**2) ** (1 / 3) * torch.sin(2 / 3 * angle), 0.0)


def _check(grid: Grid) -> None:
    if grid.dim != 2 or any((a.lower, a.upper, a.placement) != (-1.0, 1.0, "ends") for a in grid.axes):
        raise ValueError("The L-shape lies in the square from -1 to 1 with nodes placed 'ends': use LShape().grid(n).")
    if any(n % 2 == 0 for n in grid.shape):
        near = tuple(n + 1 - n % 2 for n in grid.shape)
        raise ValueError(f"The re-entrant corner must be a node: odd numbers of nodes, as {near}; got {grid.shape}.")


def _ones(grid: Grid) -> list[Tensor]:
    """Faces of the coefficient 1."""
    return [torch.ones(1, *(n - (i == j) for i, n in enumerate(grid.shape)), dtype=torch.float64) for j in range(2)]


def _divides(factor: int, grid: Grid) -> bool:
    return all((n - 1) % (2 * factor) == 0 and (n - 1) // factor >= 4 for n in grid.shape)


def _carry(values: Tensor, source: Grid, target: Grid) -> Tensor:
    """Linear interpolation; the corner is a node of both grids, so no cell reaches into the missing quadrant."""
    if source == target:
        return values
    for j, (old, new) in enumerate(zip(source.axes, target.axes, strict=True), start=1):
        values = apply_along(_linear(old, new), values, j)
    return torch.where(closure(target), values, 0.0)


@functools.lru_cache(maxsize=32)
def _linear(source: Axis, target: Axis) -> Tensor:
    rows = [np.interp(target.coordinates(), source.coordinates(), unit) for unit in np.eye(source.size)]
    return torch.from_numpy(np.stack(rows, axis=1))


build = LShape
