r"""Weak forms: equations without second derivatives, and without labels.

.. math:: \int F\cdot\nabla v + G\,v\;dx = 0 \qquad\text{for every test function } v

F, G      flux and density, pointwise functions of a candidate's values and first derivatives
v         functions of small balls inside the domain (``_balls``), or many at once (``_dual_norm``)

A problem that declares them can be learned from its equation alone. Zang and Koutsourelakis 2025 (arXiv 2502.06250).
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from ._grid import Grid


@dataclass(frozen=True)
class Lattice:
    """Points that are all combinations of coordinates along the axes, in array order: what is a product there costs a
    sum of axes, not their product.
    """

    axes: tuple[Float[Tensor, " _"], ...]

    @functools.cached_property
    def points(self) -> Float[Tensor, "point dim"]:
        return torch.stack(torch.meshgrid(*self.axes, indexing="ij"), dim=-1).flatten(0, -2)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(axis) for axis in self.axes)

    def to(self, like: Tensor) -> Lattice:
        return Lattice(tuple(axis.to(like) for axis in self.axes))


Places = Tensor | Lattice  # points one by one, ``point dim``, or a lattice of them


def listed(places: Places) -> Float[Tensor, "point dim"]:
    return places.points if isinstance(places, Lattice) else places


def draw_strata(domain: Grid, cells: Sequence[int], *, generator: Generator) -> Float[Tensor, "point dim"]:
    """One random point in each of equal cells: their mean is an unbiased integral, with little noise."""
    indices = torch.cartesian_prod(*(torch.arange(count) for count in cells)).reshape(-1, len(cells))
    unit = indices + torch.rand(indices.shape, generator=generator, dtype=torch.float64)
    lower, length = (torch.tensor([getattr(a, name) for a in domain.axes]) for name in ("lower", "length"))
    return lower + length * unit / torch.tensor(cells, dtype=torch.float64)


def centres(domain: Grid, cells: Sequence[int]) -> Lattice:
    """Of equal cells: of cosines shorter than twice their number the mean is exact."""
    pairs = zip(domain.axes, cells, strict=True)
    return Lattice(
        tuple(
            axis.lower + axis.length * (torch.arange(count, dtype=torch.float64) + 0.5) / count for axis, count in pairs
        )
    )


@dataclass(frozen=True)
class Candidate:
    """What is known of a would-be solution at points ``point dim`` of the domain, by name of the channel.

    inputs      ``batch point``, in physical units
    outputs     ``batch point``
    gradients   of the outputs, ``batch point dim``; of an evolution the last entry is the derivative by time
    """

    points: Float[Tensor, "point dim"]
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    gradients: Mapping[str, Tensor]


@dataclass(frozen=True)
class Balance:
    """One equation at points: its flux and its density."""

    flux: Float[Tensor, "batch point tested"]
    density: Float[Tensor, "batch point"]


Call = Callable[[Float[Tensor, "point dim"]], Float[Tensor, "point _"]]  # differentiable forwards


@dataclass(frozen=True)
class Carried:
    """Functions that carry an input into an output: their coefficients are ``weights`` times the first input at
    ``sensors``.
    """

    call: Call
    sensors: Float[Tensor, "sensor dim"]
    weights: Float[Tensor, "function sensor"]


@dataclass(frozen=True)
class Functions:
    """What a field may be: what is ``carried`` and a sum of functions ``call``: points -> ``point function``.

    order   of the derivatives whose squares the natural norm integrates (0 for a pressure, 2 for a stream function)
    """

    call: Call
    order: int
    carried: Carried | None = None


class WithWeakForm(ABC):
    """For problems whose solutions balance fluxes and densities on every ball of the domain.

    What is not a balance of a ball is a *condition* at points of the boundary.
    """

    @abstractmethod
    def balances(self, candidate: Candidate) -> Mapping[str, Balance]:
        """The equations, by name."""

    @abstractmethod
    def balance_scales(self, inputs: Float[Tensor, "batch channel *space"], grid: Grid) -> Mapping[str, Tensor]:
        """The size that each residual is measured by, one a sample, in units of its density."""

    @abstractmethod
    def output_scales(self, inputs: Float[Tensor, "batch channel *space"], grid: Grid) -> Mapping[str, float]:
        """The size of each output (of each potential, where there are some), estimated from the inputs alone: what a
        network's answer of 1 stands for.
        """

    @property
    def potentials(self) -> tuple[str, ...]:
        """Functions that the outputs derive from, where that builds a law in; () where outputs are found themselves."""
        return ()

    def from_potentials(
        self, values: Mapping[str, Tensor], gradients: Mapping[str, Tensor], curvatures: Mapping[str, Tensor]
    ) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        """Outputs and their gradients from values, gradients ``batch point dim`` and second derivatives ``batch point
        dim dim`` of the potentials.
        """
        raise NotImplementedError(f"{type(self).__name__} names no potentials.")

    def functions(self, waves: int) -> Mapping[str, Functions]:
        """Functions that all outputs (or potentials), and inputs, are to be sums of, by name, where the problem knows
        some that satisfy its conditions; about ``waves`` an axis.
        """
        return {}

    def tests(self, waves: int) -> Call:
        """Functions that vanish where the solution is held, to test declared ``functions`` by."""
        raise NotImplementedError(f"{type(self).__name__} declares no functions of its own.")

    def quadrature(self) -> tuple[Float[Tensor, "point dim"], Float[Tensor, " point"]]:
        """Points and weights that integrate over the domain, where it is no box."""
        raise NotImplementedError(f"{type(self).__name__} declares no functions of its own.")

    def energy(self, candidate: Candidate) -> Float[Tensor, "batch point"] | None:
        """The density whose integral the solution makes smallest among functions with its boundary values, where there
        is one: all weak residuals at once, in the norm that is dual to it.
        """
        return None

    def fed(self, waves: Sequence[int]) -> Mapping[str, Float[Tensor, "*wave"]]:
        """What Neumann walls feed into each balance by its test functions there, products of cosines n pi x of unit
        maximum, so many an axis; {} where test functions vanish on the walls, and ``conditions`` say what holds there.
        """
        return {}

    def stiffness(self, squares: Tensor) -> Tensor:
        """What the equation makes of a wave with this squared wave number, about and positive: residuals and answers
        are levelled by it.
        """
        return squares

    def weak_domain(self, grid: Grid) -> Grid:
        """Space, and after it time where the problem evolves; its nodes do not matter."""
        return grid

    @property
    def phases(self) -> tuple[float, ...]:
        """The values of an input that takes only these; it is constant around each node. () for continuous inputs."""
        return ()

    def envelope(self, points: Float[Tensor, "point dim"]) -> Mapping[str, Tensor]:
        """Factors ``point`` that make an output vanish where it must, by name; what is not named is free."""
        return {}

    def clear(self, centres: Float[Tensor, "ball dim"], radii: Float[Tensor, " ball"]) -> Bool[Tensor, " ball"]:
        """Balls without an obstacle in them."""
        return torch.ones(len(centres), dtype=torch.bool, device=centres.device)

    def boundary_points(self, count: int, grid: Grid, *, generator: Generator) -> Float[Tensor, "point dim"]:
        """Random points where ``conditions`` are asked for; none where all are built in."""
        return torch.zeros(0, len(self.weak_domain(grid).axes), dtype=torch.float64)

    def conditions(self, candidate: Candidate) -> Mapping[str, Tensor]:
        """Residuals ``batch point`` at boundary points, divided by their size."""
        return {}


def in_the_clear(problem: object, points: Float[Tensor, "point dim"]) -> Bool[Tensor, " point"]:
    """Which points of the box lie in the domain: all but those inside an obstacle that the problem declares."""
    if not isinstance(problem, WithWeakForm):
        return torch.ones(len(points), dtype=torch.bool, device=points.device)
    return problem.clear(points, points.new_zeros(len(points)))


def minimises(problem: WithWeakForm) -> bool:
    """Whether the problem declares an energy."""
    return type(problem).energy is not WithWeakForm.energy


def box_envelope(grid: Grid, points: Float[Tensor, "point dim"]) -> Float[Tensor, " point"]:
    """4 x (1 - x) on every axis between two Dirichlet walls, x from 0 to 1: zero on them, 1 in the middle."""
    factor = torch.ones_like(points[..., 0])
    for x, axis in zip(points.unbind(-1), grid.axes, strict=False):
        if axis.boundary == ("dirichlet", "dirichlet"):
            unit = (x - axis.lower) / axis.length
            factor = factor * 4 * unit * (1 - unit)
    return factor


def root_mean_squares(fields: Float[Tensor, "batch *rest"]) -> Float[Tensor, " batch"]:
    return fields.flatten(1).square().mean(dim=1).sqrt()
