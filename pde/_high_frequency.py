"""What the high-frequency problems share: draws, recovery of the closed form, the collocation reference."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from ._chebyshev import Collocation, Direction, evaluation, operators, spline
from ._equation import Equation, Reaction, Term, WithEquation, dirichlet
from ._grid import Grid
from ._manufactured import Manufactured
from ._problem import Channel, Problem, Signature, WithExact
from ._solver import Solver, check_fields

INPUTS = (Channel("source", "1", "source f"), Channel("data", "1", "boundary data g"))
OUTPUTS = (Channel("solution", "1", "solution u"),)


@dataclass(frozen=True, kw_only=True)
class HighFrequency(Problem, WithEquation, WithExact):
    """A box, constant coefficients, data on the faces, and a manufactured solution. Subclasses declare the equation."""

    spread: float = 0.1  # of amplitudes (relative) and phases (times pi) around the published instance; 0: that one

    reaction: ClassVar[Reaction | None] = None  # a staticmethod in subclasses
    resolved: ClassVar[float] = 1.0  # the reference resolves waves this many times the frequency of the solution

    def __post_init__(self) -> None:
        if not 0 <= self.spread <= 1:
            raise ValueError(f"spread is between 0 (the published instance) and 1, got {self.spread}.")

    @property
    @abstractmethod
    def terms(self) -> tuple[tuple[tuple[int, ...], float], ...]:
        """(orders of differentiation, coefficient) of the linear terms."""

    @property
    @abstractmethod
    def solution(self) -> Manufactured:
        """The published solution."""

    @property
    def signature(self) -> Signature:
        return Signature(INPUTS, OUTPUTS)

    def given(self, grid: Grid) -> Tensor:
        """Where data are given: the nodes of Dirichlet faces."""
        mask = torch.zeros(grid.shape, dtype=torch.bool)
        for j, axis in enumerate(grid.axes):
            for end, kind in ((0, axis.boundary[0]), (-1, axis.boundary[1])):
                if kind == "dirichlet":
                    mask.select(j, end).fill_(True)
        return mask

    def pose(self, exact: Manufactured, grid: Grid) -> Float[Tensor, "channel *space"]:
        """Source and data of a solution on a grid."""
        x = grid.coordinates()
        return torch.stack([exact.source(x, self.terms, type(self).reaction), exact.field(x) * self.given(grid)])

    def sample(self, count: int, grid: Grid, *, generator: Generator) -> Tensor:
        """Instances around the published one; with spread 0 each is the published one."""
        return torch.stack([self.pose(self.drawn(generator), grid) for _ in range(count)])

    def drawn(self, generator: Generator) -> Manufactured:
        return self.solution.drawn(self.spread, generator)

    def closed_form(self, inputs: Float[Tensor, "channel *space"], grid: Grid) -> Manufactured | None:
        """The solution that these inputs were made from; None where they are not of this problem's distribution."""
        source, data = inputs.detach().to("cpu", torch.float64)
        reaction = type(self).reaction
        return self.solution.recovered(source, data, self.given(grid), grid.coordinates(), self.terms, reaction)

    def exact(self, inputs: Tensor, grid: Grid, times: Sequence[float] | None = None) -> Tensor:
        """Raises ``ValueError`` for inputs that are not of this problem's distribution."""
        check_fields(inputs, grid, 2)
        found = [self.closed_form(sample, grid) for sample in inputs]
        strange = [i for i, exact in enumerate(found) if exact is None]
        if strange:
            raise ValueError(
                f"A closed form exists for this problem's own inputs; sample(s) {strange[:8]} of {len(inputs)} are "
                "none of them (or the grid has too few nodes to tell). Use reference()."
            )
        fields = [exact.field(grid.coordinates()) for exact in found if exact is not None]
        return torch.stack(fields)[:, None].to(inputs)

    def posed(self, inputs: Tensor, grid: Grid, target: Grid) -> Tensor | None:
        found = [self.closed_form(sample, grid) for sample in inputs]
        if any(exact is None for exact in found):
            return None
        return torch.stack([self.pose(exact, target) for exact in found if exact is not None]).to(inputs)

    def equation(self, inputs: Tensor, grid: Grid) -> Equation:
        check_fields(inputs, grid, 2)
        terms = tuple(Term(orders, coefficient) for orders, coefficient in self.terms)
        ends = [
            (j, end)
            for j, axis in enumerate(grid.axes)
            for end, kind in zip(("lower", "upper"), axis.boundary, strict=True)
            if kind == "dirichlet"
        ]
        return Equation(terms, inputs[:, 0], dirichlet(inputs[:, 1], ends), type(self).reaction)  # type: ignore[arg-type]

    def reference(self, **accuracy: Any) -> ChebyshevReference:
        """Chebyshev collocation; see :class:`ChebyshevReference` for ``points`` and its order."""
        return ChebyshevReference(self, **accuracy)


class ChebyshevReference(Solver):
    """Chebyshev collocation of the equation, of spectral order.

    points   collocation points an axis; default: enough for rounding level at the problem's highest frequency

    The problem's own inputs are carried to the collocation points in closed form; any other source and data by splines
    of degree 7 (order 8 in the grid's spacing), which then limit the accuracy.
    """

    def __init__(self, problem: HighFrequency, *, points: int | None = None) -> None:
        if points is not None and points < 4:
            raise ValueError(f"Collocation needs at least 4 points an axis, got {points}.")
        self.problem, self.points = problem, points

    def directions(self, grid: Grid) -> list[Direction]:
        parts = operators(self.problem.terms, grid.dim)
        found = []
        for j, (axis, part) in enumerate(zip(grid.axes, parts, strict=True)):
            given = (axis.boundary[0] == "dirichlet", axis.boundary[1] == "dirichlet")
            found.append(Direction(axis.lower, axis.upper, self.points or self._enough(j, axis.length), part, given))
        return found

    def _enough(self, axis: int, length: float) -> int:
        """Half the phase across the box (pi points a wave), a tenth more, and 40 for the exponential tail."""
        highest = max(abs(product.factors[axis].frequency) for product in self.problem.solution.products)
        return math.ceil(1.1 * self.problem.resolved * highest * length / 2) + 40

    @torch.no_grad()
    def __call__(self, inputs: Tensor, grid: Grid, times: Sequence[float] | None = None) -> Tensor:
        check_fields(inputs, grid, 2)
        directions = self.directions(grid)
        collocation = Collocation(directions, type(self.problem).reaction)
        nodes = [direction.nodes() for direction in directions]
        back = [evaluation(d, x) for d, x in zip(directions, grid.coordinates(), strict=True)]
        answers = []
        for sample in inputs.detach().to("cpu", torch.float64):
            source, data = self._carried(sample, grid, nodes)
            field = collocation(source, data)
            for j, matrix in enumerate(back):
                field = (field.movedim(j, -1) @ matrix.T).movedim(-1, j)
            answers.append(field)
        return torch.stack(answers)[:, None].to(inputs)

    def _carried(self, sample: Tensor, grid: Grid, nodes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        exact = self.problem.closed_form(sample, grid)
        if exact is not None:
            return exact.source(nodes, self.problem.terms, type(self.problem).reaction), exact.field(nodes)
        source = spline(sample[0], grid.coordinates(), nodes)
        return source, _faces(sample[1], grid, nodes)


def _faces(data: Tensor, grid: Grid, nodes: Sequence[Tensor]) -> Tensor:
    """The data of each face carried to the face of the collocation grid; zero inside."""
    field = torch.zeros([len(x) for x in nodes], dtype=torch.float64)
    for j, axis in enumerate(grid.axes):
        others = [i for i in range(grid.dim) if i != j]
        for end, kind in ((0, axis.boundary[0]), (-1, axis.boundary[1])):
            if kind == "dirichlet":
                old, new = [grid.coordinates()[i] for i in others], [nodes[i] for i in others]
                field.select(j, end).copy_(spline(data.select(j, end), old, new))
    return field
