r"""Symmetric Gaussian conditioning: the solution given the equation at all nodes and the data on all faces.

.. math:: y = [g;\, f],\quad C = \mathrm{cov}(y, y),\quad
          \hat u = k_{*y} C^{-1} y,\quad \mathrm{cov}\,\hat u = s^2 (k_{**} - k_{*y} C^{-1} k_{y*}),\quad
          s^2 = y^T C^{-1} y / n

Observations are linear functionals (sums of coefficient times derivative at points), so that variable coefficients and
mixed derivatives need nothing of their own. C is brought to unit diagonal first, and a jitter relative to that is
added: the smallest of a ladder for which the Cholesky factor exists. The scale s² is the maximum-likelihood one.
The cost is the cube of the number of observations.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..pde import Grid, SolverError
from ..pde._equation import Equation
from ._covariance import Covariance
from ._health import Health
from ._spectrum import Band, prior_of

JITTERS = (1e-13, 1e-12, 1e-11, 1e-10, 1e-9, 1e-8)  # relative to the variance of each observation
MOST = 6000  # observations


@dataclass(frozen=True)
class Functional:
    """Observations of one kind: sum over terms of coefficient times the derivative of u, at points."""

    points: Float[Tensor, "point dim"]
    terms: tuple[tuple[tuple[int, ...], Tensor | float], ...]  # (orders, coefficient: a number, or one a point)

    @classmethod
    def value(cls, points: Tensor, orders: Sequence[int] | None = None) -> Functional:
        return cls(points, ((tuple(orders or (0,) * points.shape[1]), 1.0),))


def covariance_of(priors: Sequence[Covariance], left: Functional, right: Functional) -> Float[Tensor, "left right"]:
    """The covariance of two sets of observations under a product of one covariance a direction."""
    total: Tensor | None = None
    for p, a in left.terms:
        for q, b in right.terms:
            part = torch.ones((), dtype=torch.float64)
            for j, prior in enumerate(priors):
                part = part * prior.matrix(left.points[:, j], right.points[:, j], p[j], q[j])
            rows = a[:, None] if isinstance(a, Tensor) else a
            part = rows * part * b
            total = part if total is None else total + part
    assert total is not None
    return total


class Posterior:
    """The process given observations with values (and, if any, noise variances)."""

    def __init__(
        self,
        priors: Sequence[Covariance],
        observed: Sequence[Functional],
        values: Float[Tensor, " observation"],
        noise: Tensor | float = 0.0,
    ) -> None:
        if len(values) > MOST:
            raise SolverError(
                f"Conditioning on {len(values)} observations costs {8 * len(values) ** 2 / 2**30:.0f} GiB and the cube "
                f"of their number in time; at most {MOST} are taken. Use method='green' or fewer nodes."
            )
        self.priors, self.observed, self.values = tuple(priors), tuple(observed), values.double()
        gram = torch.cat([torch.cat([covariance_of(priors, a, b) for b in observed], 1) for a in observed])
        self.diagonal = gram.diagonal().clone()
        gram = gram + torch.diag(torch.as_tensor(noise, dtype=torch.float64).expand(len(values)))
        self.size = gram.diagonal().sqrt()
        self.factor, self.jitter = factor_of(gram / self.size[:, None] / self.size)

    @functools.cached_property
    def weights(self) -> Tensor:
        """C^{-1} y."""
        return self.solve(self.values[:, None])[:, 0]

    @property
    def scale(self) -> Tensor:
        """s²: the maximum-likelihood variance of the prior."""
        return (self.values @ self.weights) / len(self.values)

    def solve(self, right: Float[Tensor, "observation column"]) -> Tensor:
        return torch.cholesky_solve(right / self.size[:, None], self.factor) / self.size[:, None]

    def logdet(self) -> Tensor:
        return 2 * (self.factor.diagonal().log().sum() + self.size.log().sum())

    def log_likelihood(self) -> Tensor:
        """Log N(y; 0, C)."""
        return -0.5 * (self.values @ self.weights + self.logdet() + len(self.values) * math.log(2 * math.pi))

    def cross(self, wanted: Functional) -> Tensor:
        return torch.cat([covariance_of(self.priors, wanted, seen) for seen in self.observed], dim=1)

    def mean(self, wanted: Functional) -> Float[Tensor, " wanted"]:
        return self.cross(wanted) @ self.weights

    def covariance(self, wanted: Functional) -> Float[Tensor, "wanted wanted"]:
        """Of the wanted functionals, with the scale s²."""
        cross = self.cross(wanted)
        return self.scale * (covariance_of(self.priors, wanted, wanted) - cross @ self.solve(cross.T))

    def deviation(self, wanted: Functional) -> Float[Tensor, " wanted"]:
        """Standard deviations; rounding below zero is zero."""
        return self.covariance(wanted).diagonal().clamp_min(0).sqrt()


def factor_of(correlation: Float[Tensor, "n n"]) -> tuple[Tensor, float]:
    """The Cholesky factor with the smallest jitter of the ladder that allows one."""
    eye = torch.eye(len(correlation), dtype=correlation.dtype)
    for jitter in JITTERS:
        factor, info = torch.linalg.cholesky_ex(correlation + jitter * eye)
        if int(info) == 0:
            return factor, jitter
    least = float(torch.linalg.eigvalsh(correlation)[0])
    raise SolverError(
        f"The covariance of the observations is not positive definite: its smallest eigenvalue is {least:.1e} after "
        f"scaling to unit diagonal, beyond rounding. Remove repeated observations, or use fewer nodes."
    )


@dataclass(frozen=True)
class Conditioned:
    """A posterior as a function on tensor grids, like the answer of the other method."""

    posterior: Posterior
    health: Health

    def __call__(self, points: Sequence[Tensor], orders: Sequence[int] | None = None) -> Tensor:
        mesh = torch.stack(torch.meshgrid(*points, indexing="ij"), dim=-1)
        wanted = Functional.value(mesh.flatten(0, -2), orders)
        return self.posterior.mean(wanted).reshape(1, *mesh.shape[:-1])

    def deviation(self, points: Sequence[Tensor], orders: Sequence[int] | None = None) -> Tensor:
        mesh = torch.stack(torch.meshgrid(*points, indexing="ij"), dim=-1)
        wanted = Functional.value(mesh.flatten(0, -2), orders)
        return self.posterior.deviation(wanted).reshape(1, *mesh.shape[:-1])


def conditioned(equation: Equation, grid: Grid, bands: Sequence[Band]) -> Conditioned:
    """A linear equation of one sample, conditioned on at every node."""
    if equation.reaction is not None:
        raise ValueError("Conditioning takes linear equations; this one has a reaction: use method='green'.")
    priors = [prior_of(band, axis) for band, axis in zip(bands, grid.axes, strict=True)]
    observed, values = observations(equation, grid)
    posterior = Posterior(priors, observed, torch.cat(values))
    fit = posterior.mean(observed[-1])
    misfit = float((fit - values[-1]).norm()) / max(float(torch.cat(values).norm()), math.ulp(0.0))
    health = Health(
        tuple(band.crowding for band in bands),
        tuple(band.floor for band in bands),
        misfit,
        (len(posterior.values),) * grid.dim,
        grid.shape,
        0,
    )
    return Conditioned(posterior, health)


def observations(equation: Equation, grid: Grid) -> tuple[list[Functional], list[Tensor]]:
    """Conditions on the faces, then the equation at all nodes, with their values."""
    mesh = grid.mesh().movedim(0, -1)
    observed: list[Functional] = []
    values: list[Tensor] = []
    for condition in equation.conditions:
        face = mesh.select(condition.axis, 0 if condition.end == "lower" else -1).reshape(-1, grid.dim)
        orders = tuple(condition.order if j == condition.axis else 0 for j in range(grid.dim))
        given = condition.values[0].double().flatten()
        keep = _unseen(face, observed, orders)
        observed.append(Functional.value(face[keep], orders))
        values.append(given[keep])
    terms = tuple(
        (t.orders, t.coefficient[0].double().flatten() if isinstance(t.coefficient, Tensor) else t.coefficient)
        for t in equation.terms
    )
    observed.append(Functional(mesh.reshape(-1, grid.dim), terms))
    values.append(equation.source[0].double().flatten())
    return observed, values


def _unseen(points: Tensor, observed: Sequence[Functional], orders: tuple[int, ...]) -> Tensor:
    """Corners belong to several faces; an observation made twice makes C singular."""
    keep = torch.ones(len(points), dtype=torch.bool)
    for seen in observed:
        if seen.terms[0][0] == orders and len(seen.points):
            keep &= (torch.cdist(points, seen.points) > 1e-12).all(dim=1)
    return keep
