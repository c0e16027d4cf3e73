r"""A field solves one instance of a declared equation: no data, conditions exact, a Gauss-Newton finish.

.. math:: u = g + d\,N_\theta,\qquad
          \min_\theta \sum_i w_i \Bigl(\sum_t c_t\,\partial^{\alpha_t} u + r(u) - f\Bigr)^2(x_i)

in double precision. Values on faces hold exactly (:mod:`._conditions`); derivatives on faces are further rows of the
least-squares problem. First the last layer alone is solved for, then all weights by Levenberg-Marquardt. Points are
nodes, more of them than weights (the equation would else hold at the points and nowhere between). Where there are more
nodes than points wanted, these are drawn anew every few iterations: half of them evenly, half by the residual, with
weights one over the probability, so that the sum stays that over all nodes. A tenth of the nodes is kept out: the
residual there is what is reported, and what the best weights are chosen by.

What it does not do: systems, mixed derivatives, derivatives of order 3 and more.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from ..pde import Condition, Equation, Grid, Problem, Solver, WithEquation
from ..training import Preset
from ._field import Field, points_of
from ._jet import Jet, seed
from ._levenberg import PATIENCE, Damping, descend, linear_part
from ._spectrum import bandwidths

Make = Callable[..., Field]  # (domain, waves, conditions=, dtype=) -> Field
PROBED = 9  # nodes an axis of the instance that is posed when a solver is built
HELD = 0.1  # share of the nodes that is kept out
ROWS = 2  # points a weight
CHUNK = 512  # points whose rows are made at once
ROUND = 10  # iterations on one set of points
TARGET = 1e-11  # relative residual at which there is nothing left to do in double precision
POOR = 1e-2  # relative residual above which an answer comes with a warning
QUICK: Mapping[tuple[str, str], Preset] = {("quick", "*"): Preset(model={"iterations": 20}), ("paper", "*"): Preset()}
CAUTION = "refine the nodes, or allow more width, points or iterations"


class MisfitWarning(UserWarning):
    """The equation is not satisfied well by the answer."""


class FieldSolver(Solver):
    """One instance at a time; ``misfits``: the relative residual of each sample of the last call, at nodes kept out.

    points   collocation points at a time; 0: ``ROWS`` a weight of the network
    """

    def __init__(
        self, problem: Problem, grid: Grid, make: Make, *, iterations: int, points: int, seed: int,
        watch: Callable[[float], bool] | None = None,
    ) -> None:  # fmt: skip
        if not isinstance(problem, WithEquation):
            raise ValueError(
                f"Fields solve problems that declare their equation (WithEquation); {problem.name} does not. "
                "Name a problem that does, or add its 'equation'."
            )
        if problem.signature.evolves or len(problem.signature.outputs) != 1:
            raise ValueError(
                f"Fields solve for one scalar, with time as an axis of the grid where there is one; {problem.name} has "
                f"{len(problem.signature.outputs)} output(s) and {problem.signature.frames} frame(s)."
            )
        if iterations < 1 or points < 0:
            raise ValueError(f"iterations is at least 1 and points at least 0, got {iterations} and {points}.")
        self.problem, self.make, self.iterations, self.points, self.seed = problem, make, iterations, points, seed
        self.watch = watch or (lambda cost: False)
        self.misfits: tuple[float, ...] = ()
        coarse = grid.at([min(n, PROBED) for n in grid.shape])
        inputs = problem.sample(1, coarse, generator=Generator().manual_seed(0)).double()
        check_terms(self._declared().equation(inputs, coarse), problem.name)

    def __call__(self, inputs: Tensor, grid: Grid, times: Sequence[float] | None = None) -> Tensor:
        """The fields at the nodes."""
        with torch.no_grad():
            nodes = points_of(grid)
            answers = [field(nodes).t().unflatten(1, grid.shape) for field in self.solve(inputs, grid)]
        return torch.stack(answers).to(inputs)

    def solve(self, inputs: Tensor, grid: Grid) -> list[Field]:
        """The solutions as fields, one a sample."""
        exact = inputs.detach().to("cpu", torch.float64)
        self._declared().equation(exact, grid)  # the door: shapes and values are refused before any work
        solved = [self._one(sample[None], grid) for sample in exact]
        self.misfits = tuple(misfit for _, misfit in solved)
        if max(self.misfits, default=0.0) > POOR:
            warnings.warn(f"Relative residual {max(self.misfits):.1e}: {CAUTION}.", MisfitWarning, stacklevel=2)
        return [field for field, _ in solved]

    def _declared(self) -> Any:
        return self.problem

    def _one(self, inputs: Tensor, grid: Grid) -> tuple[Field, float]:
        points = self.points or ROWS * sum(
            p.numel() * (1 + p.is_complex()) for p in self._made(inputs, grid).parameters()
        )
        inputs, nodes = self._nodes(inputs, grid, math.ceil(points / (1 - HELD)))
        field = self._made(inputs, nodes)
        residual = Residual(self._declared().equation(inputs, nodes), nodes, field)
        return field, residual.minimise(self.iterations, points, self.seed, self.watch)

    def _made(self, inputs: Tensor, nodes: Grid) -> Field:
        equation: Equation = self._declared().equation(inputs, nodes)
        hard = [c for c in equation.conditions if c.order == 0]
        return self.make(nodes, waves_of(equation, nodes), conditions=hard, dtype=torch.float64)

    def _nodes(self, inputs: Tensor, grid: Grid, wanted: int) -> tuple[Tensor, Grid]:
        """More nodes than are asked for, if the instance is known between them and there are too few."""
        inner = math.prod(max(axis.size - (0 if axis.periodic else 2), 1) for axis in grid.axes)
        if inner >= wanted or self._declared().posed(inputs, grid, grid) is None:
            return inputs, grid
        factor = (wanted / inner) ** (1 / grid.dim)
        target = grid.at([math.ceil(factor * n) + 1 for n in grid.shape])
        return self._declared().posed(inputs, grid, target), target


class Residual:
    """The rows of one instance: of the equation at nodes, of derivatives given on faces."""

    def __init__(self, equation: Equation, grid: Grid, field: Field) -> None:
        self.equation, self.field, self.dim = equation, field, grid.dim
        self.names = [name for name, _ in field.network.named_parameters()]
        values = dict(field.network.named_parameters())
        self.complex = {name for name in self.names if values[name].is_complex()}
        self.shapes = [self._real(values[name].detach()).shape for name in self.names]
        self.points, self.coefficients, self.right, self.at, self.reacts = self._rows(grid)

    # ---- what is known before any weight is

    @torch.no_grad()
    def _rows(self, grid: Grid) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Points, coefficients of the network's jet, right sides, value (g, d) there, whether the reaction acts."""
        inner = _inner(grid, [c for c in self.equation.conditions if c.order == 0]).flatten()
        points = points_of(grid)[inner]
        coefficients = _term_matrix(self.equation, grid)[inner]
        norm = _norm(self.equation, coefficients)
        parts = [self._composed(points, coefficients / norm, self.equation.source.flatten()[inner] / norm)]
        for condition in self.equation.conditions:
            if condition.order:
                parts.append(self._face(condition, grid))
        reacts = [torch.full((len(part[0]),), float(i == 0), dtype=torch.float64) for i, part in enumerate(parts)]
        self.norm = norm
        p, c, r, a = (torch.cat(column) for column in zip(*parts, strict=True))
        return p, c, r, a, torch.cat(reacts)

    def _face(self, condition: Condition, grid: Grid) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        axis = grid.axes[condition.axis]
        mesh = grid.mesh().select(1 + condition.axis, 0 if condition.end == "lower" else -1).clone()
        mesh[condition.axis] = axis.lower if condition.end == "lower" else axis.upper
        points = mesh.flatten(1).t().contiguous()
        coefficients = torch.zeros(len(points), 1 + 2 * self.dim, dtype=torch.float64)
        coefficients[:, 1 + condition.axis] = 1.0
        values = condition.values.flatten().double()
        # as much weight as the equation: per node of the face, relative to the size of its data or of one wave
        size = max(float(values.square().mean().sqrt()), math.pi / axis.length)
        weight = math.sqrt(grid.size / len(points)) / size
        return self._composed(points, weight * coefficients, weight * values)

    def _composed(self, points: Tensor, coefficients: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """From coefficients of the jet of u = g + d (mean + scale N) to those of N's."""
        at = seed(points, second="axes")
        if self.field.lift is None:
            values, distance = at.select(slice(0, 1)) * 0.0, at.select(slice(0, 1)) * 0.0 + 1.0
        else:
            values, distance = self.field.lift(at)
        values = values + distance * self.field.mean
        distance = distance * self.field.scale
        g, d = values.orders[..., 0].t(), distance.orders[..., 0].t()
        n = self.dim
        c0, c1, c2 = coefficients[:, 0], coefficients[:, 1 : 1 + n], coefficients[:, 1 + n :]
        first, second = d[:, 1 : 1 + n], d[:, 1 + n :]
        of_value = c0 * d[:, 0] + (c1 * first).sum(dim=1) + (c2 * second).sum(dim=1)
        of_first = c1 * d[:, :1] + 2 * c2 * first
        composed = torch.cat([of_value[:, None], of_first, c2 * d[:, :1]], dim=1)
        return points, composed, right - (coefficients * g).sum(dim=1), torch.stack([g[:, 0], d[:, 0]], dim=1)

    # ---- rows as functions of the weights

    def rows(self, weights: Tensor, chosen: Tensor, importance: Tensor) -> Tensor:
        with torch.no_grad():
            jets = torch.cat([self._network(weights, part) for part in self.points[chosen].split(8 * CHUNK)])
        return importance * self._residual(jets, chosen)

    def jacobian(self, weights: Tensor, chosen: Tensor, importance: Tensor) -> tuple[Tensor, Tensor]:
        """Residuals and their derivatives by the weights."""
        residuals, rows = [], []
        for part in chosen.split(CHUNK):
            with torch.no_grad():
                jets = self._network(weights, self.points[part])
            residuals.append(self._residual(jets, part))
            rows.append(self._gradients(weights, self.points[part], self._slopes(jets, part)))
        return importance * torch.cat(residuals), importance[:, None] * torch.cat(rows)

    def _residual(self, jets: Tensor, chosen: Tensor) -> Tensor:
        left = (self.coefficients[chosen] * jets).sum(dim=1)
        if self.equation.reaction is not None:
            left = left + self.reacts[chosen] * self.equation.reaction(self._u(jets, chosen)) / self.norm
        return left - self.right[chosen]

    def _slopes(self, jets: Tensor, chosen: Tensor) -> Tensor:
        """Derivatives of the residuals by the entries of the network's jet."""
        slopes = self.coefficients[chosen].clone()
        if self.equation.reaction is not None:
            slope = self.equation.slope(self._u(jets, chosen)) / self.norm
            slopes[:, 0] += self.reacts[chosen] * slope * self.at[chosen, 1]
        return slopes

    def _u(self, jets: Tensor, chosen: Tensor) -> Tensor:
        return self.at[chosen, 0] + self.at[chosen, 1] * jets[:, 0]

    def _network(self, weights: Tensor, points: Tensor) -> Tensor:
        """The network's jet in physical derivatives, ``point order``."""
        at = (seed(points, second="axes") - self.field.lower) * self.field.slope + -1.0
        jet: Jet = torch.func.functional_call(self.field.network, self.named(weights), (at,))
        return jet.orders[..., 0].t()

    def _gradients(self, weights: Tensor, points: Tensor, slopes: Tensor) -> Tensor:
        def of_one(values: Tensor, point: Tensor, slope: Tensor) -> Tensor:
            return (self._network(values, point[None])[0] * slope).sum()

        return torch.func.vmap(torch.func.grad(of_one), in_dims=(None, 0, 0))(weights, points, slopes)

    # ---- weights as one vector

    @staticmethod
    def _real(values: Tensor) -> Tensor:
        return torch.view_as_real(values) if values.is_complex() else values

    def vector(self) -> Tensor:
        values = dict(self.field.network.named_parameters())
        return torch.cat([self._real(values[name].detach()).flatten() for name in self.names])

    def named(self, weights: Tensor) -> dict[str, Tensor]:
        parts = weights.split([shape.numel() for shape in self.shapes])
        shaped = {name: part.view(shape) for name, part, shape in zip(self.names, parts, self.shapes, strict=True)}
        return {name: torch.view_as_complex(p.clone()) if name in self.complex else p for name, p in shaped.items()}

    def last_layer(self) -> Tensor:
        """Numbers of the weights in which the network is linear: its two last parameters."""
        total, last = len(self.vector()), sum(shape.numel() for shape in self.shapes[-2:])
        return torch.arange(total - last, total)

    # ---- the minimisation

    def minimise(self, iterations: int, points: int, seed: int, watch: Callable[[float], bool]) -> float:
        """Leaves the best weights in the field; the relative residual at the nodes kept out."""
        generator = Generator().manual_seed(seed)
        order = torch.randperm(len(self.points), generator=generator)
        held, used = order[: math.ceil(HELD * len(order))], order[math.ceil(HELD * len(order)) :]
        weights, damping, done = self.vector(), Damping(), 0
        weights[self.last_layer()] = 0.0  # what is not better than nothing is not kept
        best, least = weights, self._misfit(weights, held)
        while done < iterations and least > TARGET:
            chosen, importance = self._draw(weights, used, points, generator)
            weights = self._with_last_layer(weights, chosen, importance)
            weights, _ = descend(
                weights, lambda w: self.rows(w, chosen, importance), lambda w: self.jacobian(w, chosen, importance),  # noqa: B023 - used at once
                damping, min(ROUND, iterations - done), TARGET**2 * len(chosen), watch,
            )  # fmt: skip
            done += ROUND
            misfit = self._misfit(weights, held)
            if misfit < least:
                best, least = weights, misfit
            if damping.idle >= PATIENCE:
                break
        with torch.no_grad():
            for name, values in self.named(best).items():
                self.field.network.get_parameter(name).copy_(values)
        return least

    def _misfit(self, weights: Tensor, chosen: Tensor) -> float:
        even = torch.ones(len(chosen), dtype=torch.float64)
        return float(self.rows(weights, chosen, even).square().mean().sqrt())

    def _with_last_layer(self, weights: Tensor, chosen: Tensor, importance: Tensor) -> Tensor:
        which = self.last_layer()
        _, matrix = self.jacobian(weights, chosen, importance)
        return linear_part(weights, which, lambda w: self.rows(w, chosen, importance), matrix[:, which])

    def _draw(self, weights: Tensor, used: Tensor, points: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """All rows; or some, half evenly and half by the residual, with the root of one over their probability."""
        even = torch.ones(len(used), dtype=torch.float64)
        if len(used) <= points:
            return used, even
        size = self.rows(weights, used, even).abs()
        share = 0.5 / len(used) + 0.5 * size / size.sum().clamp_min(1e-300)
        chosen = torch.multinomial(share, points, replacement=True, generator=generator)
        return used[chosen], (1 / (len(used) * share[chosen])).sqrt()


def check_terms(equation: Equation, name: str) -> None:
    """Refuse what the jets of a field do not hold."""
    for term in equation.terms:
        if sum(term.orders) > 2 or len(term.along) > 1:
            raise ValueError(
                f"Fields solve equations of first and second derivatives along one axis each; {name} has a term of "
                f"orders {term.orders}."
            )


def waves_of(equation: Equation, grid: Grid) -> list[float]:
    """Root mean square wave numbers of source and data along each axis [rad per internal unit], at least pi / 2.

    Of an axis along which nothing given varies, the largest of the others.
    """
    known = list(bandwidths(equation.source, grid)) if bool(equation.source.any()) else [0.0] * grid.dim
    for condition in equation.conditions:
        others = [j for j in range(grid.dim) if j != condition.axis]
        if others and bool(condition.values.any()):
            face = Grid(tuple(grid.axes[j] for j in others))
            for j, k in zip(others, bandwidths(condition.values, face), strict=True):
                known[j] = max(known[j], k)
    return [max(k if k > 0 else max(known), math.pi / 2) for k in known]


def _inner(grid: Grid, conditions: Sequence[Condition]) -> Tensor:
    """Nodes that no given value fixes."""
    inner = torch.ones(grid.shape, dtype=torch.bool)
    for condition in conditions:
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


def _norm(equation: Equation, coefficients: Tensor) -> float:
    """What residuals are relative to: the source, or the coefficients where there is none."""
    source = float(equation.source.square().mean().sqrt())
    return source or float(coefficients.square().sum(dim=1).mean().sqrt())
