r"""The strong form of a scalar equation, as data: what a Gaussian process, a field or a label-free operator solves.

.. math:: \sum_t c_t(x)\, \partial^{\alpha_t} u + r(u) = f(x) \quad\text{in the box},\qquad
          \partial_j^{m} u = g_{j,m} \quad\text{on declared ends of axis } j

A problem declares its terms (coefficient, multi-index of differentiation), a pointwise reaction r if it has one, its
source and its conditions; everything else (residual, linearisation, covariance of observations, discrete inverses)
follows from them. Time is an axis like any other: an initial value is a condition at the lower end of the axis ``t``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from ._grid import Grid
from ._solver import Solver

End = Literal["lower", "upper"]
Reaction = Callable[[Tensor], Tensor]  # pointwise; differentiable by torch


@runtime_checkable
class Derivatives(Protocol):
    """A candidate solution that can be differentiated: nodal fields, a network, a posterior mean."""

    def d(self, orders: tuple[int, ...]) -> Tensor:
        """The partial derivative of these orders, one an axis; all zero: u itself. Shape ``batch *where``."""


@dataclass(frozen=True)
class Term:
    """One linear term: a coefficient (a number, or a field ``batch *space``) times a partial derivative."""

    orders: tuple[int, ...]  # of differentiation, one an axis
    coefficient: float | Tensor = 1.0

    def __post_init__(self) -> None:
        if any(order < 0 or order > 4 for order in self.orders):
            raise ValueError(f"A term differentiates 0 to 4 times along each axis, got {self.orders}.")

    @property
    def constant(self) -> bool:
        return not isinstance(self.coefficient, Tensor)

    @property
    def along(self) -> tuple[int, ...]:
        """The axes along which it differentiates."""
        return tuple(j for j, order in enumerate(self.orders) if order)


@dataclass(frozen=True)
class Condition:
    """Given on one face: the value (order 0) or the derivative along the axis (order 1) at one end of an axis.

    values   ``batch *face``, the face being the grid without that axis
    """

    axis: int
    end: End
    values: Tensor
    order: int = 0

    def __post_init__(self) -> None:
        if self.end not in ("lower", "upper") or self.order not in (0, 1):
            raise ValueError(
                f"A condition is at end 'lower' or 'upper', of order 0 or 1; got {self.end!r} and {self.order}."
            )


@dataclass(frozen=True)
class Equation:
    """One batch of instances on one grid: ``terms`` + ``reaction`` = ``source``, with ``conditions``."""

    terms: tuple[Term, ...]
    source: Tensor  # batch *space
    conditions: tuple[Condition, ...]
    reaction: Reaction | None = None

    def __post_init__(self) -> None:
        dims = {len(term.orders) for term in self.terms}
        if dims != {self.source.ndim - 1}:
            raise ValueError(
                f"Terms of an equation differentiate along each axis of the source ({self.source.ndim - 1}), got "
                f"orders {[term.orders for term in self.terms]}."
            )

    def apply(self, u: Derivatives) -> Tensor:
        """The left side without the reaction."""
        parts = [term.coefficient * u.d(term.orders) for term in self.terms]
        return torch.stack(torch.broadcast_tensors(*parts)).sum(dim=0)

    def residual(self, u: Derivatives) -> Float[Tensor, "batch *where"]:
        """Left side minus right side, where u was differentiated (the nodes of the source)."""
        left = self.apply(u)
        if self.reaction is not None:
            left = left + self.reaction(u.d((0,) * (self.source.ndim - 1)))
        return left - self.source

    def slope(self, u: Tensor) -> Tensor:
        """The derivative of the reaction at the values u, for Newton's method."""
        if self.reaction is None:
            return torch.zeros_like(u)
        with torch.enable_grad():
            at = u.detach().requires_grad_()
            return torch.autograd.grad(self.reaction(at).sum(), at)[0]

    def conditions_of(self, axis: int) -> tuple[Condition, ...]:
        return tuple(condition for condition in self.conditions if condition.axis == axis)


class WithEquation(ABC):
    """For problems whose scalar solution satisfies a declared strong form on the grid."""

    @abstractmethod
    def equation(self, inputs: Float[Tensor, "batch channel *space"], grid: Grid) -> Equation:
        """The equation of these inputs."""

    def posed(self, inputs: Float[Tensor, "batch channel *space"], grid: Grid, target: Grid) -> Tensor | None:
        """The same instances on another grid, where they are known between the nodes; None where they are not."""
        return None


class WithRemainder(ABC):
    """For problems whose solution has what no smooth function has, as the jump of what is given on an edge makes it: a
    part that is known, and a remainder that satisfies a declared strong form.
    """

    @abstractmethod
    def known(self, inputs: Float[Tensor, "batch channel *space"], grid: Grid) -> Float[Tensor, "batch *space"]:
        """The part that is known, at the nodes."""

    @abstractmethod
    def remainder(self, inputs: Float[Tensor, "batch channel *space"], grid: Grid) -> Equation:
        """The equation of the solution without that part."""

    @abstractmethod
    def continuum(self) -> Solver:
        """The solver that an answer to the equation is judged by, where data are those of a discrete problem."""

    def posed(self, inputs: Float[Tensor, "batch channel *space"], grid: Grid, target: Grid) -> Tensor | None:
        """As :meth:`WithEquation.posed`."""
        return None


def face_values(field: Float[Tensor, "batch *space"], axis: int, end: End) -> Tensor:
    """A nodal field on one face."""
    return field.select(1 + axis, 0 if end == "lower" else -1)


def dirichlet(
    field: Float[Tensor, "batch *space"], ends: Sequence[tuple[int, End]] | None = None
) -> tuple[Condition, ...]:
    """The values of a nodal field as conditions on all faces, or on those named by (axis, end)."""
    every: list[tuple[int, End]] = [(j, end) for j in range(field.ndim - 1) for end in ("lower", "upper")]
    return tuple(Condition(axis, end, face_values(field, axis, end)) for axis, end in ends or every)
