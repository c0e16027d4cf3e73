r"""Weak forms tested by compactly supported functions: equations without second derivatives, and without labels.

.. math:: \int F\cdot\nabla v + G\,v\;dx = 0 \qquad\text{for every ball inside the domain, } v = 0 \text{ outside it}

F, G      flux and density, pointwise functions of a candidate's values and first derivatives
v         Wendland's function of :math:`r = |x - x_c| / R`, with :math:`\ell = \lfloor d/2 \rfloor + 3`,

.. math:: v = (1-r)_+^{\ell+2}\,\big[(\ell^2+4\ell+3) r^2 + (3\ell+6) r + 3\big]/3,\qquad
          v'/r = -(1-r)_+^{\ell+1}\,\big[(\ell^3+8\ell^2+19\ell+12) r + \ell^2+7\ell+12\big]/3

four times differentiable at the rim. A ball gives one number, the *virtual observable*

.. math:: r = \Big(\frac{1}{c R} \sum_q w_q F_q \cdot \nabla_\xi v_q + \sum_q w_q G_q v_q\Big) \Big/
          \sum_q w_q v_q,\qquad x_q = x_c + R\,\xi_q,

an average of :math:`G - \nabla\cdot F` over the ball, in units of G. Everything that does not depend on the candidate
is taken in coordinates of the unit ball: v and its gradient carry no rounding of x, however small R.

The bias of a rule. For a linear F, the sum with the gradient is :math:`-c\,(\nabla\cdot F) R \sum w v` with

.. math:: c = -\sum_q w_q\,\xi_q\cdot\nabla_\xi v_q \Big/ d \sum_q w_q v_q,

1 for exact integration and not for a rule of finitely many points: 0.9876 for the published rule (grid points of 7 x 7
inside the disc, plain mean), whose trained solution is therefore u / c, 1.25 % too large. Dividing by c leaves an error
of order R². ``gauss`` needs no division: radii by Gauss and Jacobi, directions by Gauss and Gegenbauer, exact for v.
Zang and Koutsourelakis 2025 (arXiv 2502.06250); the correction is ours.
"""

from __future__ import annotations

import functools
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.special import roots_gegenbauer, roots_jacobi
from torch import Generator, Tensor

from ._grid import Grid

Rule = Literal["gauss", "grid"]


def wendland(radius: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """The test function at distances r from its centre, in radii, and its slope divided by r."""
    order = dim // 2 + 3
    left = (1 - radius).clamp_min(0)
    value = left ** (order + 2) * ((order**2 + 4 * order + 3) * radius**2 + (3 * order + 6) * radius + 3) / 3
    slope = (order**3 + 8 * order**2 + 19 * order + 12) * radius + order**2 + 7 * order + 12
    return value, -(left ** (order + 1)) * slope / 3


@dataclass(frozen=True)
class BallRule:
    """Quadrature over the unit ball, with the test function on it; weights add to 1. Symmetric: every point has its
    opposite, so the gradient adds to nothing and a constant flux to no residual.

    Tensors are in double precision; ``correction`` is c.
    """

    points: Float[Tensor, "node dim"]
    weights: Float[Tensor, " node"]
    values: Float[Tensor, " node"] = field(init=False)
    gradients: Float[Tensor, "node dim"] = field(init=False)

    def __post_init__(self) -> None:
        value, slope = wendland(self.points.norm(dim=1), self.dim)
        object.__setattr__(self, "values", value)
        object.__setattr__(self, "gradients", slope[:, None] * self.points)

    @property
    def dim(self) -> int:
        return self.points.shape[1]

    @functools.cached_property
    def mass(self) -> float:
        """The mean of v over the ball."""
        return float(self.weights @ self.values)

    @functools.cached_property
    def correction(self) -> float:
        return -float(self.weights @ (self.points * self.gradients).sum(1)) / (self.dim * self.mass)


@functools.lru_cache(maxsize=32)
def ball_rule(dim: int, nodes: int, kind: Rule = "gauss") -> BallRule:
    """``gauss``: that many radii and as many halves of the circle; ``grid``: the points of that many an axis of the
    cube that are inside the ball, with equal weights (published).
    """
    if dim < 1 or nodes < 2:
        raise ValueError(f"A rule for balls has dimension 1 or more and at least 2 nodes, got {dim} and {nodes}.")
    if kind == "grid":
        line = np.linspace(-1, 1, nodes)
        cube = np.array(list(itertools.product(line, repeat=dim)))
        inside = torch.from_numpy(cube[np.linalg.norm(cube, axis=1) < 1 - 1e-9])
        return BallRule(inside, torch.full((len(inside),), 1 / len(inside), dtype=torch.float64))
    roots, shares = roots_jacobi(nodes, 0.0, dim - 1.0)  # the weight (1 + s)^{d-1} is r^{d-1} for r = (1 + s) / 2
    directions, parts = _sphere(dim, nodes)
    points = np.einsum("r,sd->rsd", (1 + roots) / 2, directions).reshape(-1, dim)
    weights = np.outer(shares / shares.sum(), parts).ravel()
    return BallRule(torch.from_numpy(points), torch.from_numpy(weights))


def _sphere(dim: int, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Directions and weights on the unit sphere of a space of this dimension, one angle after the other; exact for
    polynomials of degree below 2 ``nodes``.
    """
    if dim == 1:
        return np.array([[1.0], [-1.0]]), np.array([0.5, 0.5])
    cosines, shares = roots_gegenbauer(nodes, (dim - 2) / 2) if dim > 2 else _chebyshev(nodes)
    below, parts = _sphere(dim - 1, nodes)
    sines = np.sqrt(1 - cosines**2)
    first = np.repeat(cosines, len(below))[:, None]
    points = np.concatenate([first, (sines[:, None, None] * below).reshape(-1, dim - 1)], axis=1)
    return points, np.outer(shares / shares.sum(), parts).ravel()


def _chebyshev(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Equal angles of the upper half circle; with their mirror images, of the circle."""
    return np.cos(np.pi * (np.arange(nodes) + 0.5) / nodes), np.full(nodes, 1 / nodes)


@dataclass(frozen=True)
class Balls:
    """Where test functions live: centres in the coordinates of the domain, of which the first ``rule.dim`` are tested
    (an evolution is tested in space, at the time of the centre), and radii.
    """

    centres: Float[Tensor, "ball dim"]
    radii: Float[Tensor, " ball"]
    rule: BallRule

    @property
    def points(self) -> Float[Tensor, "point dim"]:
        """The quadrature points, ball by ball."""
        offsets = torch.nn.functional.pad(
            self.radii[:, None, None] * self.rule.points.to(self.radii),
            (0, self.centres.shape[1] - self.rule.dim),
        )
        return (self.centres[:, None] + offsets).flatten(0, 1)

    def observe(self, balance: Balance) -> Float[Tensor, "batch ball"]:
        """The virtual observables of a candidate; zero for a solution.

        The mean flux of each ball is taken off before the gradient is applied: it adds nothing, and in single
        precision its product with 1/R would drown the rest.
        """
        rule, shape = self.rule, (len(self.centres), len(self.rule.weights))
        flux = balance.flux.unflatten(1, shape)
        density = balance.density.unflatten(1, shape)
        weights = rule.weights.to(flux)
        flux = flux - torch.einsum("q,bnqd->bnd", weights, flux)[:, :, None]
        slopes = (rule.weights[:, None] * rule.gradients / (rule.correction * rule.mass)).to(flux)
        divergence = torch.einsum("qd,bnqd->bn", slopes, flux) / self.radii.to(flux)
        return divergence + density @ (rule.weights * rule.values / rule.mass).to(density)


def draw_balls(
    domain: Grid,
    rule: BallRule,
    count: int,
    radii: Sequence[float],
    *,
    generator: Generator,
    dtype: torch.dtype = torch.float32,
) -> Balls:
    """Fresh balls inside the domain: a Latin hypercube of centres, the radii in turn.

    radii   in units of the domain's coordinates. Centres keep their radius from ends of tested axes; periodic axes
            have no ends
    """
    check_radii(domain, rule.dim, radii)
    sizes = torch.tensor(radii, dtype=torch.float64).repeat(-(-count // len(radii)))[:count]
    centres = []
    for number, axis in enumerate(domain.axes):
        strata = torch.randperm(count, generator=generator) + torch.rand(
            count, generator=generator, dtype=torch.float64
        )
        room = torch.zeros_like(sizes) if axis.periodic or number >= rule.dim else sizes
        centres.append(axis.lower + room + (axis.length - 2 * room) * strata / count)
    return Balls(torch.stack(centres, dim=1).to(dtype), sizes.to(dtype), rule)


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


def check_radii(domain: Grid, tested: int, radii: Sequence[float]) -> None:
    largest = min(axis.length for axis in domain.axes[:tested]) / 2
    if not radii or not all(0 < radius < largest for radius in radii):
        raise ValueError(f"Radii of test functions lie between 0 and half the domain, {largest:g}; got {list(radii)}.")


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

    What is not a balance of a ball is a pointwise *law* at points of the domain, or a *condition* at points of its
    boundary.
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
