r"""One instance of a declared equation in a Gaussian-process prior: linear, semilinear, with variable coefficients.

.. math:: \underbrace{\textstyle\sum_j D_j u}_{\text{constant, one axis each}} + R\,u + r(u) = f

The sum of one-directional operators is inverted by :class:`Green`; S is that inverse, F = sum_j D_j u the unknown. What
is left over (variable coefficients, mixed derivatives) and the slope of a reaction are small beside it in the sense
that I + (R + r'(u)) S is the identity plus something compact: GMRES needs few steps whatever the grid. A reaction takes
Newton's method. Each answer is then corrected with its true misfit, evaluated from the waves, while that helps.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, gmres
from torch import Tensor

from ..pde import Axis, Grid, SolverError
from ..pde._equation import Condition, Equation, Term
from ._green import Green, Lift, Orders, relative
from ._health import Health, check_corners, check_signs
from ._kronecker import apply
from ._line import CUT, Line, Operator, Pin
from ._spectrum import Band, prior_of

CORRECTIONS = 4  # of the linear solution by its own misfit
NEWTON_STEPS = 40
KRYLOV = 80  # GMRES basis
GMRES_CYCLES = 4
LARGEST_CUT = 0.05
ENOUGH = 1e-13  # relative change of u at which nothing more is gained


@dataclass(frozen=True)
class Answer:
    """The solution as a function: evaluate it (and its derivatives) on any tensor grid of points."""

    green: Green
    lift: Lift
    inner: Tensor
    outer: Tensor
    health: Health

    def __call__(self, points: Sequence[Tensor], orders: Orders | None = None) -> Tensor:
        return self.green.field(self.inner, points, orders) + self.lift.field(self.outer, points, orders)


class Collocation:
    """An equation of one sample on a grid, with the bands of its prior."""

    def __init__(self, equation: Equation, grid: Grid, bands: Sequence[Band]) -> None:
        self.equation, self.grid, self.bands = equation, grid, tuple(bands)
        self.scale, operators, self.rest = split(equation, grid.dim)
        self.lines = [
            Line(axis, prior_of(band, axis), operator, pins_of(equation.conditions_of(j), axis), cut=cut_of(band))
            for j, (axis, band, operator) in enumerate(zip(grid.axes, bands, operators, strict=True))
        ]
        for line in self.lines:
            check_signs(line)
        self.green, self.lift = Green(self.lines), Lift(self.lines)
        self.everything = (
            tuple(
                Term(tuple(m if i == j else 0 for i in range(grid.dim)), c)
                for j, operator in enumerate(operators)
                for m, c in operator
            )
            + self.rest
        )
        self.orders = {term.orders for term in self.everything} | {(0,) * grid.dim}

    def solve(self) -> Answer:
        faces = [[c.values.double() for c in self.equation.conditions_of(j)] for j in range(self.grid.dim)]
        w, mismatch = self.lift(faces)
        check_corners(mismatch, max((float(f.abs().max()) for side in faces for f in side), default=0.0))
        outer = self.lift.coefficients(w)
        lifted = {orders: self.lift.field(outer, None, orders) for orders in self.orders}
        source = (self.equation.source.double() / self.scale).expand_as(w)
        target = source - self._applied(lifted)
        if self.equation.reaction is None:
            inner, left, steps = self._linear(target)
        else:
            inner, left, steps = self._newton(target, lifted[(0,) * self.grid.dim])
        size = max(float(source.norm()), float(target.norm()), math.ulp(0.0))
        health = Health(
            tuple(band.crowding for band in self.bands),
            tuple(band.floor for band in self.bands),
            float(left.norm()) / size,
            tuple(line.rank for line in self.lines),
            self.grid.shape,
            steps,
        )
        return Answer(self.green, self.lift, inner, outer, health)

    def _applied(self, fields: dict[Orders, Tensor], terms: Sequence[Term] | None = None) -> Tensor:
        parts = [term.coefficient * fields[term.orders] for term in (self.everything if terms is None else terms)]
        return torch.stack(torch.broadcast_tensors(*parts)).sum(dim=0) if parts else torch.zeros(())

    @functools.lru_cache(maxsize=64)  # noqa: B019 - lives as long as one solve
    def _rows(self, orders: Orders) -> list[Tensor]:
        return self.green.rows([line.nodes for line in self.lines], orders)

    def _fields(self, coefficients: Tensor, wanted: set[Orders]) -> dict[Orders, Tensor]:
        return {orders: apply(self._rows(orders), coefficients).real for orders in wanted}

    def _linear(self, target: Tensor) -> tuple[Tensor, Tensor, int]:
        """Coefficients and what is left of the equation, corrected while corrections shrink.

        Their size in u is the measure: what is left at the nodes may lie outside the prior's space, and then stays.
        """
        inner, before = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        left, last, step = target, math.inf, 0
        while True:
            change = self._corrected(left, None)
            size = self._size(change)
            if step and size > 0.5 * last:
                inner = (
                    before if step > 1 and size > last else inner
                )  # a correction that grows shows the one before to be noise
                break
            before, inner = inner, inner + change
            left, last, step = target - self._applied(self._fields(inner, self.orders)), size, step + 1
            if step > CORRECTIONS or size <= ENOUGH * self._size(inner) or relative(left, target) <= ENOUGH:
                break
        return inner, target - self._applied(self._fields(inner, self.orders)), step

    def _size(self, coefficients: Tensor) -> float:
        return float(apply(self._rows((0,) * self.grid.dim), coefficients).norm())

    def _corrected(self, misfit: Tensor, slope: Tensor | None) -> Tensor:
        """Coefficients of the change that removes a misfit, to first order."""
        if not self.rest and slope is None:
            return self.green.coefficients(misfit)
        zero = (0,) * self.grid.dim
        wanted = {term.orders for term in self.rest} | ({zero} if slope is not None else set())

        def product(values: np.ndarray) -> np.ndarray:
            field = torch.from_numpy(np.array(values)).reshape(misfit.shape)
            fields = self._fields(self.green.coefficients(field), wanted)
            total = field + (self._applied(fields, self.rest) if self.rest else 0.0)
            return np.asarray((total if slope is None else total + slope * fields[zero]).flatten())

        size = misfit.numel()
        system = LinearOperator((size, size), matvec=product, dtype=np.float64)
        found, _ = gmres(system, misfit.flatten().numpy(), rtol=1e-10, atol=0.0, restart=KRYLOV, maxiter=GMRES_CYCLES)
        return self.green.coefficients(torch.from_numpy(found).reshape(misfit.shape))

    def _projected(self, misfit: Tensor) -> float:
        """The size of a misfit as a change of u: without the part that the prior's space cannot hold."""
        return self._size(self.green.coefficients(misfit))

    def _newton(self, target: Tensor, lifted: Tensor) -> tuple[Tensor, Tensor, int]:
        reaction = self.equation.reaction
        assert reaction is not None
        zero = (0,) * self.grid.dim

        def misfit(coefficients: Tensor) -> tuple[Tensor, Tensor]:
            fields = self._fields(coefficients, self.orders)
            u = fields[zero] + lifted
            return target - self._applied(fields) - reaction(u) / self.scale, u

        inner = torch.zeros_like(self.green.coefficients(target))
        left, u = misfit(inner)
        for step in range(NEWTON_STEPS):
            change, share = self._corrected(left, self.equation.slope(u) / self.scale), 1.0
            now, (after, there) = self._projected(left), misfit(inner + change)
            while not self._projected(after) < now and share > 1 / 64:
                share /= 2  # far from the solution Newton's step may be too long
                after, there = misfit(inner + share * change)
            if not self._projected(after) < 0.9 * now:
                return inner, left, step
            inner, left, u = inner + share * change, after, there
            if self._size(change) <= ENOUGH * float(u.norm()):
                return inner, left, step + 1
        raise SolverError(
            f"Newton's method has not settled in {NEWTON_STEPS} steps (misfit {relative(left, target):.1e}); the "
            "equation may have several solutions or none for these data: make the source smaller or the grid finer."
        )


def split(equation: Equation, dim: int) -> tuple[Tensor | float, list[Operator], tuple[Term, ...]]:
    """(what the equation is divided by, a constant operator per axis, the rest of the terms).

    A coefficient field of a leading term is made as constant as possible by dividing the equation by the mean of such
    fields; what remains of it beside its average belongs to the rest.
    """
    leading = {j: max((t.orders[j] for t in equation.terms if t.along == (j,)), default=0) for j in range(dim)}
    variable = [
        t.coefficient for t in equation.terms
        if not t.constant and len(t.along) == 1 and t.orders[t.along[0]] == leading[t.along[0]]
    ]  # fmt: skip
    scale: Tensor | float = 1.0
    if variable:
        scale = torch.stack([c.double() for c in variable if isinstance(c, Tensor)]).mean(dim=0)
        if not bool((scale > 0).all() or (scale < 0).all()):
            raise ValueError(
                "The leading coefficient changes its sign, so the equation changes its type inside the box: "
                "outside the class that gp solves."
            )
    operators: list[dict[int, float]] = [{} for _ in range(dim)]
    rest = []
    for term in equation.terms:
        coefficient = term.coefficient / scale if variable else term.coefficient
        if isinstance(coefficient, Tensor) and float(coefficient.std()) <= 1e-14 * float(coefficient.abs().max()):
            coefficient = float(coefficient.mean())
        if len(term.along) > 1 or (isinstance(coefficient, Tensor) and not _leads(term, leading)):
            rest.append(Term(term.orders, coefficient))
            continue
        axis, constant = (term.along or (0,))[0], float(torch.as_tensor(coefficient).mean())
        operators[axis][term.orders[axis]] = operators[axis].get(term.orders[axis], 0.0) + constant
        if isinstance(coefficient, Tensor):
            rest.append(Term(term.orders, coefficient - constant))
    empty = [j for j in range(dim) if not any(operators[j])]
    if empty:
        raise ValueError(f"No term differentiates along axis {empty[0]} alone; gp needs one for each axis.")
    return scale, [tuple(sorted(o.items())) for o in operators], tuple(rest)


def _leads(term: Term, leading: dict[int, int]) -> bool:
    return len(term.along) == 1 and term.orders[term.along[0]] == leading[term.along[0]]


def cut_of(band: Band) -> float:
    """Directions of the prior that are weaker than what the nodes miss of the data would only carry that noise."""
    return min(max(CUT, 3 * band.floor), LARGEST_CUT)


def pins_of(conditions: Sequence[Condition], axis: Axis) -> tuple[Pin, ...]:
    pins = tuple((condition.end, condition.order) for condition in conditions)
    if len(set(pins)) != len(pins):
        raise ValueError(f"Along {axis.name!r} the same condition is given twice: {pins}.")
    return pins
