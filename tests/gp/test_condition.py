"""Symmetric conditioning: a dense Gaussian conditional by hand, interpolation, calibration, refusals."""

from __future__ import annotations

import math

import pytest
import torch
from resolvent.gp._condition import Functional, Posterior, covariance_of, factor_of, observations
from resolvent.gp._covariance import Matern, SquaredExponential
from resolvent.pde import Grid, SolverError
from resolvent.pde._equation import Equation, Term, dirichlet


def points(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def test_blocks_are_the_covariances_of_derivatives() -> None:
    """cov(2 u'' - u, u') at two points, written out."""
    prior = SquaredExponential(0.6)
    left = Functional(points(0.2, 0.9), (((2,), 2.0), ((0,), -1.0)))
    right = Functional(points(0.5), (((1,), 1.0),))
    lag = left.points[:, 0] - 0.5
    expected = (-2 * prior.lag(lag, 3) + prior.lag(lag, 1))[:, None]
    torch.testing.assert_close(covariance_of([prior], left, right), expected)


def test_two_dimensional_blocks_are_products() -> None:
    priors = [SquaredExponential(0.6), Matern(3.5, 0.8)]
    a, b = torch.rand(4, 2, dtype=torch.float64), torch.rand(3, 2, dtype=torch.float64)
    coefficient = torch.rand(4, dtype=torch.float64)
    left = Functional(a, (((2, 0), coefficient), ((0, 2), 1.0)))
    first = [prior.at(a[:, j, None], b[:, j], 2, 0) for j, prior in enumerate(priors)]
    plain = [prior.at(a[:, j, None], b[:, j]) for j, prior in enumerate(priors)]
    expected = coefficient[:, None] * first[0] * plain[1] + plain[0] * first[1]
    torch.testing.assert_close(covariance_of(priors, left, Functional.value(b)), expected)


def test_posterior_equals_the_dense_conditional() -> None:
    """Mean, covariance (with s²) and likelihood by plain linear algebra."""
    prior = Matern(2.5, 0.5)
    seen, wanted = Functional.value(points(0.0, 0.3, 0.7)), Functional.value(points(0.1, 0.5), (1,))
    values = torch.tensor([1.0, -0.5, 0.2], dtype=torch.float64)
    posterior = Posterior([prior], [seen], values, noise=0.1)
    gram = covariance_of([prior], seen, seen) + 0.1 * torch.eye(3, dtype=torch.float64)
    cross = covariance_of([prior], wanted, seen)
    scale = values @ torch.linalg.solve(gram, values) / 3
    torch.testing.assert_close(posterior.mean(wanted), cross @ torch.linalg.solve(gram, values), rtol=1e-10, atol=1e-11)
    plain = covariance_of([prior], wanted, wanted) - cross @ torch.linalg.solve(gram, cross.T)
    torch.testing.assert_close(posterior.covariance(wanted), scale * plain, rtol=1e-9, atol=1e-10)
    normal = torch.distributions.MultivariateNormal(torch.zeros(3).double(), gram)
    torch.testing.assert_close(posterior.log_likelihood(), normal.log_prob(values), rtol=1e-9, atol=1e-10)


def test_data_are_interpolated_with_no_uncertainty_left() -> None:
    """At the observations the mean is the value and the deviation is that of the jitter, 1e-13 of the variance."""
    x = torch.linspace(0, 1, 8, dtype=torch.float64)[:, None]
    values = torch.sin(4 * x[:, 0])
    posterior = Posterior([Matern(2.5, 0.3)], [Functional.value(x)], values)
    torch.testing.assert_close(posterior.mean(Functional.value(x)), values, rtol=0, atol=1e-9)
    assert float(posterior.deviation(Functional.value(x)).max()) < 1e-5
    assert float(posterior.deviation(Functional.value(points(0.5))).max()) > 1e-3


def test_bands_cover_functions_drawn_from_the_prior() -> None:
    """200 draws, 9 points: 95 % bands cover between 91 and 98 % (dependent points: 1.5 % standard error)."""
    prior = Matern(2.5, 0.25)
    x = torch.linspace(0, 1, 30, dtype=torch.float64)[:, None]
    seen = torch.arange(0, 30, 3)
    unseen = torch.tensor([i for i in range(30) if i % 3])[:9]
    root = torch.linalg.cholesky(prior.matrix(x[:, 0], x[:, 0]) + 1e-10 * torch.eye(30, dtype=torch.float64))
    generator = torch.Generator().manual_seed(1)
    inside = 0
    for _ in range(200):
        u = root @ torch.randn(30, generator=generator, dtype=torch.float64)
        noisy = u[seen] + 0.05 * torch.randn(10, generator=generator, dtype=torch.float64)
        posterior = Posterior([prior], [Functional.value(x[seen])], noisy, noise=0.05**2)
        wanted = Functional.value(x[unseen])
        width = 1.96 * posterior.deviation(wanted) / posterior.scale.sqrt()  # the prior's own scale is 1
        inside += int(((posterior.mean(wanted) - u[unseen]).abs() < width).sum())
    assert 0.91 < inside / (200 * 9) < 0.98


def test_corners_are_observed_once() -> None:
    grid = Grid.box(4, dim=2, boundary="dirichlet")
    field = grid.mesh().sum(dim=0)[None]
    equation = Equation((Term((2, 0)), Term((0, 2))), torch.zeros_like(field), dirichlet(field))
    observed, values = observations(equation, grid)
    faces = torch.cat([functional.points for functional in observed[:-1]])
    assert len(faces) == len(faces.unique(dim=0)) == 12
    assert sum(map(len, values)) == 12 + 16
    torch.testing.assert_close(torch.cat(values[:-1]), faces.sum(dim=1))


def test_breakdowns_are_named() -> None:
    with pytest.raises(SolverError, match="not positive definite"):
        factor_of(torch.tensor([[1.0, 1.1], [1.1, 1.0]], dtype=torch.float64))
    # a correlation matrix that is singular to rounding takes the smallest jitter that works
    x = torch.linspace(0, 1, 200, dtype=torch.float64)
    factor, jitter = factor_of(SquaredExponential(0.5).matrix(x, x))
    assert 1e-13 <= jitter <= 1e-11
    assert math.isfinite(float(factor.sum()))
    with pytest.raises(SolverError, match="Use method='green'"):
        Posterior([Matern()], [Functional.value(torch.zeros(7000, 1).double())], torch.zeros(7000).double())
