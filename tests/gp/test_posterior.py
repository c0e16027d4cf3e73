"""Bands: the conditional by hand, samples with the moments they should have, coverage over draws of noise."""

from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import torch
from resolvent.gp._condition import Functional, covariance_of, observations
from resolvent.gp._covariance import Matern, SquaredExponential
from resolvent.gp._posterior import (
    Dense,
    Noise,
    best_scale,
    best_scale_and_noise,
    broad_prior,
    half_width,
    measured_prior,
    posterior_of,
)
from resolvent.gp.gp import GaussianProcess
from resolvent.pde import Equation, Grid, SolverError
from resolvent.pde.high_frequency_allen_cahn import HighFrequencyAllenCahn
from resolvent.pde.high_frequency_poisson import HighFrequencyPoisson

P2 = HighFrequencyPoisson(case="p2", spread=0.0)
X = torch.linspace(0.05, 0.95, 7, dtype=torch.float64)


def small() -> Dense:
    seen = Functional.value(torch.tensor([[0.0], [0.3], [0.7], [1.0]], dtype=torch.float64))
    values = torch.tensor([1.0, -0.5, 0.2, 0.4], dtype=torch.float64)
    return Dense([Matern(3.5, 0.4)], [seen], values, torch.tensor([0.1, 0.2, 0.1, 0.3], dtype=torch.float64).square())


@pytest.mark.parametrize("order", [0, 1])
def test_mean_and_deviation_are_the_dense_conditional(order: int) -> None:
    field = small()
    seen, prior = field.observed[0], field.priors[0]
    noise = torch.diag(torch.tensor([0.1, 0.2, 0.1, 0.3], dtype=torch.float64).square())
    gram = field.scale * covariance_of([prior], seen, seen) + noise
    wanted = Functional.value(X[:, None], (order,))
    cross = field.scale * covariance_of([prior], wanted, seen)
    values = torch.tensor([1.0, -0.5, 0.2, 0.4], dtype=torch.float64)
    mean = cross @ torch.linalg.solve(gram, values)
    whole = field.scale * covariance_of([prior], wanted, wanted) - cross @ torch.linalg.solve(gram, cross.T)
    torch.testing.assert_close(field.mean([X], (order,)), mean, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(field.deviation([X], (order,)), whole.diagonal().sqrt(), rtol=1e-7, atol=1e-9)


def test_the_scale_is_where_the_likelihood_is_largest() -> None:
    """Against the likelihood itself, from dense matrices, on a ladder of scales."""
    field = small()
    seen = field.observed[0]
    values = torch.tensor([1.0, -0.5, 0.2, 0.4], dtype=torch.float64)
    noise = torch.diag(torch.tensor([0.1, 0.2, 0.1, 0.3], dtype=torch.float64).square())

    def likelihood(scale: float) -> float:
        gram = scale * covariance_of(field.priors, seen, seen) + noise
        return float(torch.distributions.MultivariateNormal(torch.zeros_like(values), gram).log_prob(values))

    assert field.log_likelihood() == pytest.approx(likelihood(field.scale), rel=1e-9)
    assert all(likelihood(field.scale) >= likelihood(field.scale * f) for f in (0.2, 0.9, 0.99, 1.01, 1.1, 5.0))
    assert best_scale(torch.ones(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64), 1.0) == 1.0


def test_samples_have_the_posterior_moments() -> None:
    """20 000 draws: means to 4 standard errors, deviations to 4 times 1 / sqrt(2 n)."""
    field, count = small(), 20_000
    draws = field.sample(count, [X], generator=torch.Generator().manual_seed(0))
    deviation = field.deviation([X])
    assert bool(((draws.mean(dim=0) - field.mean([X])).abs() < 4 * deviation / math.sqrt(count)).all())
    assert bool(((draws.std(dim=0) / deviation - 1).abs() < 4 / math.sqrt(2 * count)).all())
    again = field.sample(2, [X], generator=torch.Generator().manual_seed(0))
    assert torch.equal(again, field.sample(2, [X], generator=torch.Generator().manual_seed(0)))


def test_other_values_of_the_same_observations_cost_a_product() -> None:
    field = small()
    values = torch.tensor([0.3, 0.1, -0.2, 0.4], dtype=torch.float64)
    variances = torch.tensor([0.1, 0.2, 0.1, 0.3], dtype=torch.float64).square()
    fresh = Dense(field.priors, field.observed, values, variances)
    torch.testing.assert_close(field.given(values).mean([X]), fresh.mean([X]), rtol=1e-5, atol=1e-6)


def noisy(case: str, nodes: int, share: float) -> tuple[HighFrequencyPoisson, Grid, Equation, Noise]:
    """Errors of a share of the size of source and solution."""
    problem = HighFrequencyPoisson(case=case, spread=0.0)
    grid = problem.grid(nodes)
    inputs = problem.sample(1, grid, generator=torch.Generator().manual_seed(0))
    truth = problem.solution.field(grid.coordinates())
    return problem, grid, problem.equation(inputs, grid), Noise(share * float(inputs.std()), share * float(truth.std()))


def disturbed(equation: Equation, noise: Noise, generator: torch.Generator) -> Equation:
    error = torch.randn(equation.source.shape, generator=generator, dtype=torch.float64)
    return dataclasses.replace(equation, source=equation.source + noise.source * error)


@pytest.mark.parametrize(("case", "nodes", "share"), [("p1", 300, 1e-4), ("p2", 100, 0.05)])
def test_bands_cover_noisy_problems(case: str, nodes: int, share: float) -> None:
    """Source and boundary data with errors of a share of their size; 95 % bands, mean over 200 draws of noise.

    Errors of a solution are smooth, so that one draw covers nearly all or nearly nothing: 200 draws know the coverage to
    about 0.01. Asked: 93 % to 99 %. The prior's power is measured on a draw that is not among the 200.
    """
    problem, grid, equation, noise = noisy(case, nodes, share)
    points, generator = problem.grid(40).coordinates(), torch.Generator().manual_seed(0)
    truth = problem.solution.field(points)
    prior = measured_prior(disturbed(equation, noise, generator), grid, noise)
    base = posterior_of(equation, grid, prior, noise)
    observed, values = observations(equation, grid)
    size = noise.variances(observed).sqrt()
    total = 0.0
    for _ in range(200):
        error = size * torch.randn(size.shape, generator=generator, dtype=torch.float64)
        total += base.given(torch.cat(values) + error).coverage(truth, points) / 200
    assert 0.93 <= total <= 0.99


def test_the_measured_prior_does_not_shrink_a_lone_wave() -> None:
    """P1 at 87 % of the Nyquist limit, exact data: a prior for white sources is biased by much of a deviation there."""
    problem, grid, equation, noise = noisy("p1", 230, 1e-3)
    points = problem.grid(100).coordinates()
    truth = problem.solution.field(points)
    prior = measured_prior(disturbed(equation, noise, torch.Generator().manual_seed(0)), grid, noise)
    bias = []
    for each in (broad_prior(grid), prior):
        field = posterior_of(equation, grid, each, noise)
        bias.append(float(((field.mean(points) - truth) / field.deviation(points)).square().mean().sqrt()))
    assert bias[1] < 0.1
    assert bias[0] > 3 * bias[1]


def test_a_noise_level_is_learnt() -> None:
    """Stated a hundred times too small; 300 values know a deviation to 1 / sqrt(600), its square to 8 %: three times that.

    The second way is the likelihood itself, on a ladder about what was found.
    """
    problem, grid, equation, noise = noisy("p2", 300, 0.05)
    rough = disturbed(equation, noise, torch.Generator().manual_seed(1))
    small = Noise(noise.source / 100, noise.boundary / 100)
    prior = measured_prior(rough, grid, small, learn_noise=True)
    field = posterior_of(rough, grid, prior, small, learn_noise=True)
    assert field.noise == pytest.approx(1e4, rel=0.25)
    found = best_scale_and_noise(field.eigenvalues, field.inner, 1.0)
    for factor in (0.8, 0.97, 1.03, 1.25):
        other = copy.copy(field)
        other.noise = field.noise * factor
        assert other.log_likelihood() < field.log_likelihood()
    assert found == pytest.approx((field.scale, field.noise), rel=1e-3)
    inputs = rough.source[:, None]
    with pytest.raises(ValueError, match="state its shape"):
        GaussianProcess(problem).posterior(inputs, grid, learn_noise=True)


def test_the_model_answers_with_a_random_field() -> None:
    """Without noise the mean is the solution (5e-7 of conditioning on 300 nodes), and the derivative comes along."""
    grid = P2.grid(300)
    inputs = P2.sample(1, grid, generator=torch.Generator().manual_seed(0))
    field = GaussianProcess(P2).posterior(inputs, grid)
    points = P2.grid(50).coordinates()
    truth = P2.solution.field(points)
    assert float((field.mean(points) - truth).norm() / truth.norm()) < 5e-6
    (x,) = points
    slope = torch.cos(x) + 2 * torch.cos(20 * x) + 5 * torch.cos(100 * x)
    assert float((field.mean(points, (1,)) - slope).norm() / slope.norm()) < 5e-5
    lower, upper = field.band(points)
    assert bool((lower <= upper).all())
    torch.testing.assert_close(upper - lower, 2 * 1.959964 * field.deviation(points), rtol=1e-6, atol=1e-12)


def test_what_bands_are_not_for_is_refused() -> None:
    problem = HighFrequencyAllenCahn(case="ac1", spread=0.0)
    grid = problem.grid(500)
    inputs = problem.sample(2, grid, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="has a reaction"):
        GaussianProcess(problem).posterior(inputs[:1], grid)
    with pytest.raises(ValueError, match="one instance, got 2"):
        GaussianProcess(problem).posterior(inputs, grid)
    with pytest.raises(ValueError, match="standard deviations"):
        Noise(source=-1.0)
    with pytest.raises(ValueError, match="probability"):
        half_width(1.0)
    many = Functional.value(torch.zeros((7000, 1), dtype=torch.float64))
    zeros = torch.zeros(7000, dtype=torch.float64)
    with pytest.raises(SolverError, match="at most 6000"):
        Dense([SquaredExponential(1.0)], [many], zeros, zeros)
    assert dataclasses.asdict(Noise()) == {"source": 0.0, "boundary": 0.0}
