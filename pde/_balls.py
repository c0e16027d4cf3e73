r"""Weak forms (``_weak_form``) tested by compactly supported functions, one small ball each.

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
of order R². ``gauss`` (radii by Gauss and Jacobi, directions by Gauss and Gegenbauer) is exact for v from 5 nodes on;
at 4 its c is 1.0066 in two dimensions, and divided out too.
Zang and Koutsourelakis 2025 (arXiv 2502.06250); the correction is ours.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import roots_gegenbauer, roots_jacobi
from torch import Generator, Tensor

from ._grid import Grid
from ._weak_form import Balance

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
        if not len(inside) or not bool(inside.norm(dim=1).max() > 0):  # the middle alone sees no gradient
            raise ValueError(
                f"A grid rule with {nodes} points an axis has none off the middle of the ball: use 4 or more."
            )
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


def check_radii(domain: Grid, tested: int, radii: Sequence[float]) -> None:
    largest = min(axis.length for axis in domain.axes[:tested]) / 2
    if not radii or not all(0 < radius < largest for radius in radii):
        raise ValueError(f"Radii of test functions lie between 0 and half the domain, {largest:g}; got {list(radii)}.")
