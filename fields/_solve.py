r"""A field solves one instance of a declared equation: no data, conditions exact, a Gauss-Newton finish.

.. math:: u = g + \sum_q w_q N_q,\qquad
          \min_\theta \sum_i \Bigl(\sum_t c_t\,\partial^{\alpha_t} u + r(u) - f\Bigr)^2(x_i)

in double precision (:mod:`._satisfy`). Values and slopes on faces hold exactly (:mod:`._conditions`); what cannot, is a
further law (slopes on both ends of several axes too: they would take nine functions in place of one). Points are
nodes, more of them than weights: else the equation would hold there and nowhere between. Of a problem ``WithRemainder``
the field is the remainder; answers at nodes have the known part.

What it does not do: systems, mixed derivatives, derivatives of order 3 and more. Evolutions: :mod:`._march`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from ..pde import Condition, Equation, Grid, Problem, Solver, WithEquation, WithRemainder
from ..training import Preset
from ._conditions import free_functions, given_on
from ._field import Field, points_of
from ._satisfy import HELD, Finish, Law, enough, satisfy
from ._spectrum import bandwidths

Make = Callable[..., Field]  # (domain, waves, conditions=, dtype=) -> Field
PROBED = 9  # nodes an axis of the instance that is posed when a solver is built
POOR = 1e-2  # relative residual above which an answer comes with a warning
QUICK: Mapping[tuple[str, str], Preset] = {("quick", "*"): Preset(model={"iterations": 60}), ("paper", "*"): Preset()}
# a linear equation of waves: one wide layer, whose last one is found at once, is worth more than two that learn
WAVES: Mapping[tuple[str, str], Preset] = {
    **QUICK,
    ("quick", "helmholtz_source"): Preset(model={"width": 500, "layers": 1, "iterations": 1}),
    ("quick", "helmholtz"): Preset(model={"width": 1500, "layers": 1, "iterations": 0, "kappa": 1.2}),
}
FREE = 4  # functions that conditions may leave free, else slopes are laws
FAINT = 1e-2  # a source this much smaller than what edges drive has no say in the waves
CAUTION = "refine the nodes, or allow more width, points or iterations"


class MisfitWarning(UserWarning):
    """The equation is not satisfied well by the answer."""


class FieldSolver(Solver):
    """One instance at a time; ``misfits``: the relative residual of each sample of the last call, at nodes kept out.

    points   collocation points at a time; 0: ``enough`` for the network's weights
    """

    def __init__(
        self, problem: Problem, grid: Grid, make: Make, *, iterations: int, points: int, seed: int,
        finish: Finish = "levenberg", watch: Callable[[float], bool] | None = None,
    ) -> None:  # fmt: skip
        if not isinstance(problem, WithEquation | WithRemainder):
            raise ValueError(
                f"Fields solve problems that declare their equation (WithEquation); {problem.name} does not. "
                "Name a problem that does (poisson, darcy, helmholtz_source, …), or add its 'equation'."
            )
        if problem.signature.evolves or len(problem.signature.outputs) != 1:
            raise ValueError(
                f"Fields solve for one scalar, with time as an axis of the grid where there is one; {problem.name} has "
                f"{len(problem.signature.outputs)} output(s) and {problem.signature.frames} frame(s)."
            )
        check_counts(iterations, points)
        self.problem, self.make, self.iterations, self.points, self.seed = problem, make, iterations, points, seed
        self.finish, self.watch = finish, watch
        self.misfits: tuple[float, ...] = ()
        coarse = grid.at([min(n, PROBED) for n in grid.shape])
        inputs = problem.sample(1, coarse, generator=Generator().manual_seed(0)).double()
        check_terms(self._equation(inputs, coarse), problem.name)

    def __call__(self, inputs: Tensor, grid: Grid, times: Sequence[float] | None = None) -> Tensor:
        """The fields at the nodes."""
        with torch.no_grad():
            nodes = points_of(grid)
            answers = [field(nodes).t().unflatten(1, grid.shape) for field in self.solve(inputs, grid)]
            found = torch.stack(answers)
            if isinstance(self.problem, WithRemainder):
                found = found + self.problem.known(inputs.double(), grid).cpu()[:, None]
        return found.to(inputs)

    def solve(self, inputs: Tensor, grid: Grid) -> list[Field]:
        """The solutions as fields, one a sample; of a problem ``WithRemainder`` the remainders."""
        exact = inputs.detach().to("cpu", torch.float64)
        self._equation(exact, grid)  # the door: shapes and values are refused before any work
        solved = [self._one(sample[None], grid) for sample in exact]
        self.misfits = tuple(misfit for _, misfit in solved)
        if max(self.misfits, default=0.0) > POOR:
            warnings.warn(f"Relative residual {max(self.misfits):.1e}: {CAUTION}.", MisfitWarning, stacklevel=2)
        return [field for field, _ in solved]

    def _equation(self, inputs: Tensor, grid: Grid) -> Equation:
        if isinstance(self.problem, WithRemainder):
            return self.problem.remainder(inputs, grid)
        assert isinstance(self.problem, WithEquation)
        return self.problem.equation(inputs, grid)

    def _declared(self) -> Any:
        return self.problem

    def _one(self, inputs: Tensor, grid: Grid) -> tuple[Field, float]:
        points = self.points or enough(self._made(inputs, grid).network, self.iterations)
        inputs, nodes = self._nodes(inputs, grid, math.ceil(points / (1 - HELD)))
        field, equation = self._made(inputs, nodes), self._equation(inputs, nodes)
        laws = laws_of(equation, nodes, parted(equation.conditions, nodes)[1])
        misfit = satisfy(
            field, laws, iterations=self.iterations, points=points, seed=self.seed, finish=self.finish, watch=self.watch
        )
        return field, misfit

    def _made(self, inputs: Tensor, nodes: Grid) -> Field:
        equation = self._equation(inputs, nodes)
        hard = parted(equation.conditions, nodes)[0]
        return self.make(nodes, waves_of(equation, nodes), conditions=hard, dtype=torch.float64)

    def _nodes(self, inputs: Tensor, grid: Grid, wanted: int) -> tuple[Tensor, Grid]:
        """More nodes than are asked for, if the instance is known between them and there are too few."""
        inner = math.prod(max(axis.size - (0 if axis.periodic else 2), 1) for axis in grid.axes)
        if inner >= wanted or self._declared().posed(inputs, grid, grid) is None:
            return inputs, grid
        factor = (wanted / inner) ** (1 / grid.dim)
        target = grid.at([math.ceil(factor * n) + 1 for n in grid.shape])
        return self._declared().posed(inputs, grid, target), target


def laws_of(equation: Equation, grid: Grid, soft: Sequence[Condition]) -> list[Law]:
    """The equation at the nodes that no value fixes, and the conditions that do not hold by themselves."""
    inner = _inner(grid, equation.conditions).flatten()
    coefficients, source = _term_matrix(equation, grid)[inner], equation.source.flatten()[inner]
    size = _norm(equation, grid)

    def rows(jets: Tensor, chosen: Tensor) -> Tensor:
        left = (coefficients[chosen] * jets[:, 0]).sum(dim=1)
        if equation.reaction is not None:
            left = left + equation.reaction(jets[:, 0, 0])
        return (left - source[chosen])[:, None]

    sizes = [_given(equation, order) for order in (0, 1)]
    return [Law(points_of(grid)[inner], rows, size), *(_on_face(c, grid, sizes[c.order]) for c in soft)]


def _given(equation: Equation, order: int) -> float:
    """Root mean square of the data of this order, of the face that has most."""
    data = [condition.values.double() for condition in equation.conditions if condition.order == order]
    return max((float(values.square().mean().sqrt()) for values in data), default=0.0)


def _on_face(condition: Condition, grid: Grid, size: float) -> Law:
    """One condition; relative to the data of its order, or to one wave where these are nothing."""
    axis = grid.axes[condition.axis]
    mesh = grid.mesh().select(1 + condition.axis, 0 if condition.end == "lower" else -1).clone()
    mesh[condition.axis] = axis.lower if condition.end == "lower" else axis.upper
    values = condition.values.flatten().double()
    column = 1 + condition.axis if condition.order else 0
    return Law(
        mesh.flatten(1).t().contiguous(),
        lambda jets, chosen: (jets[:, 0, column] - values[chosen])[:, None],
        size or (math.pi / axis.length) ** condition.order,
    )


def parted(conditions: Sequence[Condition], grid: Grid) -> tuple[list[Condition], list[Condition]]:
    """Conditions that the field can have exactly, of few free functions, and the others."""
    hard: list[Condition] = []
    soft: list[Condition] = []
    for condition in sorted(conditions, key=lambda c: c.order):
        try:
            given_on(grid, [*hard, condition])
        except ValueError:
            soft.append(condition)
        else:
            hard.append(condition)
    if free_functions(grid, hard) > FREE:
        return [c for c in hard if not c.order], soft + [c for c in hard if c.order]
    return hard, soft


def check_terms(equation: Equation, name: str) -> None:
    """Refuse what the jets of a field do not hold."""
    for term in equation.terms:
        if sum(term.orders) > 2 or len(term.along) > 1:
            raise ValueError(
                f"Fields solve equations of first and second derivatives along one axis each; {name} has a term of "
                f"orders {term.orders}."
            )


def waves_of(equation: Equation, grid: Grid) -> list[float]:
    """Root mean square wave numbers along each axis [rad per internal unit], at least pi / 2: those of source and data,
    or of the waves that the equation has without them; where nothing varies along an axis, the largest of the others.
    """
    heard = float(equation.source.square().mean().sqrt()) > FAINT * _norm(equation, grid)
    known = list(bandwidths(equation.source, grid)) if heard else [0.0] * grid.dim
    for condition in equation.conditions:
        others = [j for j in range(grid.dim) if j != condition.axis]
        if others and bool(condition.values.any()):
            face = Grid(tuple(grid.axes[j] for j in others))
            for j, k in zip(others, bandwidths(condition.values, face), strict=True):
                known[j] = max(known[j], k)
    known = [max(k, own) for k, own in zip(known, own_waves(equation, grid), strict=True)]
    return [max(k if k > 0 else max(known), math.pi / 2) for k in known]


def own_waves(equation: Equation, grid: Grid) -> list[float]:
    """Of solutions of a u_jj + … + c u = 0, with c and a of one sign, in all directions: sqrt(c / a / dim) an axis."""
    free, along = _means(equation, grid)
    squares = [free / a / grid.dim if a else 0.0 for a in along]
    return [0.5 * axis.length * math.sqrt(max(k2, 0.0)) for axis, k2 in zip(grid.axes, squares, strict=True)]


def _means(equation: Equation, grid: Grid) -> tuple[float, list[float]]:
    """Mean coefficients of u and of its second derivatives."""
    mean = _term_matrix(equation, grid).mean(dim=0).tolist()
    return mean[0], mean[1 + grid.dim :]


def _inner(grid: Grid, conditions: Sequence[Condition]) -> Tensor:
    """Nodes that no given value fixes."""
    inner = torch.ones(grid.shape, dtype=torch.bool)
    for condition in (c for c in conditions if c.order == 0):
        if grid.axes[condition.axis].placement == "ends":
            inner.select(condition.axis, 0 if condition.end == "lower" else -1).fill_(False)
    return inner


def _term_matrix(equation: Equation, grid: Grid) -> Tensor:
    """Coefficients of value, first and second derivatives at the nodes."""
    n = grid.dim
    matrix = torch.zeros(grid.size, 1 + 2 * n, dtype=torch.float64)
    for term in equation.terms:
        column = 0 if not term.along else term.along[0] + (1 if max(term.orders) == 1 else 1 + n)
        value = term.coefficient
        matrix[:, column] += value.double().expand(1, *grid.shape).flatten() if isinstance(value, Tensor) else value
    return matrix


def _norm(equation: Equation, grid: Grid) -> float:
    """What residuals are relative to: the source, or what the data of the faces make of u, or the coefficients."""
    source = float(equation.source.square().mean().sqrt())
    free, along = _means(equation, grid)
    values, slopes = (_given(equation, order) for order in (0, 1))
    driven = abs(free) * values + math.sqrt(abs(free) * max(map(abs, along))) * slopes
    return max(source, driven) or float(_term_matrix(equation, grid).square().sum(dim=1).mean().sqrt())


def check_counts(iterations: int, points: int) -> None:
    """Refuse what no least squares can be told."""
    if iterations < 0 or points < 0:
        raise ValueError(f"iterations and points are at least 0, got {iterations} and {points}.")
