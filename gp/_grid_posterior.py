r"""The solution as a random field on large grids: everything in Kronecker form, memory linear in the grid points.

.. math:: L u = f,\quad f = (F_1 \otimes\dots\otimes F_d)\,\xi,\ \xi \sim N(0, s^2 I),\qquad
          y = f + \epsilon,\ \epsilon \sim N(0, \sigma^2 I)\ \text{at the nodes}

L     a sum of one-directional operators with constant coefficients, inverted by :class:`._green.Green`
F_j   the images D_j phi0 of the waves of one direction, at the nodes: the prior is stated for the source, so that the
      observations are Kronecker; u = L^{-1} f inherits it. Conditions on the faces hold exactly.

With F_j = Q_j T_j Y_j^T the coordinates eta = Y^T xi are independent in the posterior,

    E eta = s² t (Q^T y) / (s² t² + sigma²),    var eta = s² sigma² / (s² t² + sigma²),    t = t_1 x ... x t_d

and u is linear in them: means and samples cost a Green solve. A sample is drawn by its coordinates, which is Matheron's
rule (a prior draw corrected by the conditional mean of its own misfit) carried out where both are diagonal. Deviations
are exact, a functional of eta for each point asked for.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from ..pde import Grid
from ..pde._equation import Equation
from ._collocation import pins_of, split
from ._covariance import Covariance, LineSpectrum
from ._green import Green, Lift
from ._health import check_corners, check_signs
from ._kronecker import apply, outer
from ._line import CUT, Line
from ._posterior import Noise, Orders, RandomField, best_scale, best_scale_and_noise

CHUNK = 2**21  # coordinates of functionals held at a time


class Gridded(RandomField):
    """One sample of a linear equation with constant coefficients, its source known at all nodes up to white errors."""

    def __init__(
        self, equation: Equation, grid: Grid, priors: Sequence[Covariance], noise: Noise, *, learn_noise: bool = False
    ) -> None:
        operators = _operators(equation, grid, noise)
        self.grid, self.stated, self.learn_noise = grid, noise.source, learn_noise
        self.lines = []
        for j, (axis, prior, operator) in enumerate(zip(grid.axes, priors, operators, strict=True)):
            assert isinstance(prior, LineSpectrum)
            self.lines.append(Line(axis, prior, operator, pins_of(equation.conditions_of(j), axis), cut=CUT))
            check_signs(self.lines[-1])
        self.green, self.lift = Green(self.lines), Lift(self.lines)
        factors = [_decomposed(line) for line in self.lines]
        self.turns = [q for q, _ in factors]
        self.sizes = outer([t for _, t in factors])  # t
        self.maps = [
            mode.analysis @ (q * t).to(mode.analysis) for mode, (q, t) in zip(self.green.modes, factors, strict=True)
        ]  # eta -> coefficients in the modes
        self._lifted(equation)
        self._take(equation.source[0].double())

    def _lifted(self, equation: Equation) -> None:
        faces = [[c.values.double() for c in equation.conditions_of(j)] for j in range(self.grid.dim)]
        w, mismatch = self.lift(faces)
        check_corners(mismatch, max((float(f.abs().max()) for side in faces for f in side), default=0.0))
        self.outer = self.lift.coefficients(w)
        parts = [term.coefficient * self.lift.field(self.outer, None, term.orders)[0] for term in equation.terms]
        self.known = torch.stack(torch.broadcast_tensors(*parts)).sum(dim=0)

    def _take(self, source: Tensor) -> None:
        y = (source - self.known) / self.stated
        self.inner = apply([q.T for q in self.turns], y)
        eigenvalues = (self.sizes / self.stated).square()
        reference = float(y.square().mean() / (eigenvalues.sum() / y.numel())) or 1.0
        self.noise, flat = 1.0, (eigenvalues.flatten(), self.inner.flatten(), reference)
        if self.learn_noise:
            left = max(float(y.square().sum() - self.inner.square().sum()), 0.0)
            outside = (left, y.numel() - self.inner.numel())
            self.scale, self.noise = best_scale_and_noise(*flat, outside=outside)
        else:
            self.scale = best_scale(*flat)

    def given(self, source: Tensor) -> Gridded:
        """The posterior of another source, at the cost of a product."""
        other = copy.copy(self)
        other._take(source.double())
        return other

    @property
    def variances(self) -> Tensor:
        """Of eta."""
        return self.scale * self.noise / (self.scale * (self.sizes / self.stated).square() + self.noise)

    @property
    def means(self) -> Tensor:
        """Of eta."""
        return self.variances / self.noise * (self.sizes / self.stated) * self.inner

    def _field(self, eta: Tensor, points: Sequence[Tensor], orders: Orders | None) -> Tensor:
        """A batch of coordinates -> derivatives of u."""
        wanted = tuple(orders or (0,) * self.grid.dim)
        where = [p.double() for p in points]
        known = self.lift.field(self.outer, where, wanted)
        return self.green.field(self.green.inverted(apply(self.maps, eta)), where, wanted) + known

    def mean(self, points: Sequence[Tensor], orders: Orders | None = None) -> Tensor:
        return self._field(self.means[None], points, orders)[0]

    def sample(
        self, count: int, points: Sequence[Tensor], orders: Orders | None = None, *, generator: Generator
    ) -> Tensor:
        step = max(1, CHUNK // self.sizes.numel())
        parts = []
        for start in range(0, count, step):
            size = (min(step, count - start), *self.sizes.shape)
            white = torch.randn(size, generator=generator, dtype=torch.float64)
            parts.append(self._field(self.means + self.variances.sqrt() * white, points, orders))
        return torch.cat(parts)

    def deviation(self, points: Sequence[Tensor], orders: Orders | None = None) -> Tensor:
        if self.green.triangular:
            raise ValueError(
                "Exact deviations on large grids are those of boundary-value directions; this equation has an "
                "initial-value direction: take the deviation of a few hundred samples, or a grid of fewer nodes."
            )
        wanted, where = tuple(orders or (0,) * self.grid.dim), [p.double() for p in points]
        rows = self.green.rows(where, wanted)
        shape = tuple(len(p) for p in where)
        numbers = torch.cartesian_prod(*(torch.arange(n) for n in shape)).reshape(-1, len(shape))
        step = max(1, CHUNK // self.sizes.numel())
        return torch.cat([self._spread(rows, part) for part in numbers.split(step)]).sqrt().reshape(shape)

    def _spread(self, rows: Sequence[Tensor], numbers: Tensor) -> Tensor:
        """The variances at some points of the tensor grid: those of eta, seen through each point's functional."""
        dim, total = len(rows), torch.ones((), dtype=rows[0].dtype)
        for j, row in enumerate(rows):
            total = total * row[numbers[:, j]].reshape(len(numbers), *(-1 if i == j else 1 for i in range(dim)))
        through = apply([m.mT for m in self.maps], self.green.inverted(total))
        seen = through.real if through.is_complex() else through
        return (seen.square() * self.variances).flatten(1).sum(dim=1)


def _decomposed(line: Line) -> tuple[Tensor, Tensor]:
    """Q and t of the image of one direction's waves at its nodes; directions that rounding made are left out."""
    q, t, _ = torch.linalg.svd(line.image(line.nodes), full_matrices=False)
    rank = min(int((t > line.cut * t[0]).sum()), line.rank)
    return q[:, :rank], t[:rank]


def _operators(equation: Equation, grid: Grid, noise: Noise):
    """The constant operator of each direction; everything else is refused with what to use instead."""
    scale, operators, rest = split(equation, grid.dim)
    if equation.reaction is not None or rest or isinstance(scale, Tensor):
        raise ValueError(
            "On grids this large (Kronecker form) bands are those of linear equations with constant coefficients and "
            "without mixed derivatives; use fewer nodes (a dense posterior takes any linear equation)."
        )
    if not 0 < noise.source < math.inf or noise.boundary:
        raise ValueError(
            f"On grids this large the source has errors of a stated size and the boundary data are exact; got {noise}. "
            "Use fewer nodes (a dense posterior) for boundary data with errors."
        )
    return operators
