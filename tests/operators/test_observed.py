"""What is observed beside the solution: the input itself, and the equation."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from resolvent.data.observations import Observations
from resolvent.operators._discrepancy import Discrepancy, Seen
from resolvent.operators._inference import Inversion
from resolvent.operators._log_posterior import LogPosterior

from ._latent_waves import (
    DOUBLE,
    GAUSSIAN,
    GRID,
    NOISE,
    SHORT,
    SIGNATURE,
    SIZE,
    Phases,
    Waves,
    assert_gaussian,
    found,
    seen,
)


def test_the_equation_counts_for_so_many_observations():
    """Of zero: twenty of c z, whose mean square is 1/2 on held-out samples, beside readings of the solution."""
    towards = torch.tensor([1.0, -2.0, 0.5, 1.0], dtype=DOUBLE)

    class Tied(Waves):
        def residual(self, latent):
            return (latent @ towards).square()

    _, observations = seen(Waves(), noise=0.2)
    nothing = {"heat": torch.zeros(17, dtype=DOUBLE)}, {"heat": torch.zeros(1, 17, dtype=DOUBLE)}
    held_out = Discrepancy(*nothing, GRID, SIGNATURE, residual=0.5)
    kept = Discrepancy.from_state(held_out.state(), GRID, SIGNATURE)
    assert kept.residual == 0.5
    how = dataclasses.replace(SHORT, equation=20)
    posterior = found(Tied(), observations, how, discrepancy=kept)
    design = Waves().waves(observations.points, 2.0)
    precision = torch.eye(SIZE, dtype=DOUBLE) + design.T @ design / 0.04 + 40 * torch.outer(towards, towards)
    covariance = torch.linalg.inv(precision)
    mean = covariance @ design.T @ observations.values / 0.04
    assert_gaussian(posterior.latents, mean, covariance, posterior.diagnosis.ess)
    with pytest.raises(ValueError, match="none were measured"):
        found(Tied(), observations, how)
    with pytest.raises(ValueError, match="laplace fits the readings alone"):
        Inversion(method="laplace", equation=3)


def test_an_observed_input_has_the_error_that_the_model_states():
    """Readings of a source whose decoded value errs by 0.3, as white as the noise of 0.05."""

    class Erring(Waves):
        input_errors = {"source": 0.3}  # noqa: RUF012

        def draw(self, latent, points, *, generator):
            mean = self.fields(latent, points)["source"]
            return {"source": mean + 0.3 * torch.randn(mean.shape, generator=generator, dtype=mean.dtype)}

    points = torch.rand(12, 1, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    values = torch.sin(math.pi * points[:, 0]) + 0.4 * torch.sin(9 * math.pi * points[:, 0])
    design = Waves().waves(points)
    inverse = torch.linalg.inv(torch.eye(SIZE, dtype=DOUBLE) + design.T @ design / (NOISE**2 + 0.09))
    mean = inverse @ design.T @ values / (NOISE**2 + 0.09)
    how = dataclasses.replace(GAUSSIAN, samples=4000)
    posterior = found(Erring(), Observations("source", points, values, NOISE), how)
    assert_gaussian(posterior.latents, mean, inverse, 4000)
    spread = (posterior.predicted - posterior.latents @ design.T).std(dim=0)
    torch.testing.assert_close(spread, torch.full((12,), 0.3, dtype=DOUBLE), rtol=0.06, atol=0)  # 5 deviations


def test_the_likelihood_of_phases_is_that_of_either():
    """Of each reading p N(y; 3, 0.04) + (1 - p) N(y; 1, 0.04), times the noise's deviation and sqrt(2 pi)."""
    points = torch.linspace(0.1, 0.9, 3, dtype=DOUBLE)[:, None]
    values, states = torch.tensor([1.1, 2.0, 2.9], dtype=DOUBLE), 0.03 * torch.randn(1, 5, SIZE, dtype=DOUBLE)
    noise, seen_by = torch.tensor([0.2], dtype=DOUBLE), Seen.of(None, "source", points)
    target = LogPosterior(Phases(), "source", points, values[None], noise, seen_by, DOUBLE, phased=True)
    high = Phases().high(states[0], points)
    low, up = (torch.exp(-0.5 * ((values - level) / 0.2).square()) / 0.2 for level in (1.0, 3.0))
    torch.testing.assert_close(target.likelihood(states)[0], (high * up + (1 - high) * low).log().sum(dim=1))
    spread = target.variances(states)[0]
    torch.testing.assert_close(spread, 0.04 + 4 * high * (1 - high))  # of the mean, for curvature and misfit


def test_readings_of_phases_are_a_mixture():
    """Two of six readings are of the higher phase; against two million draws of the prior, weighed."""
    points = torch.linspace(0.1, 0.9, 6, dtype=DOUBLE)[:, None]
    values = torch.tensor([1.1, 0.8, 1.0, 2.9, 3.2, 1.2], dtype=DOUBLE)
    model = Phases()
    draws = torch.randn(400_000, SIZE, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    high = model.high(draws, points)
    low, up = (torch.exp(-0.5 * ((values - level) / 0.2).square()) for level in (1.0, 3.0))
    weights = ((1 - high) * low + high * up).prod(dim=1)
    weights /= weights.sum()
    assert float(1 / weights.square().sum()) > 2000  # draws that count
    where = torch.linspace(0.02, 0.98, 17, dtype=DOUBLE)[:, None]
    expected = weights @ model.high(draws, where)
    how = dataclasses.replace(SHORT, samples=1000, warmup=200, draws=200)
    posterior = found(model, Observations("source", points, values, 0.2), how)
    close = model.high(posterior.latents, where).mean(dim=0)
    torch.testing.assert_close(close, expected, rtol=0, atol=0.06)  # 3 deviations of 0.5 / sqrt(600)
    assert posterior.diagnosis.misfit < 2
    assert set(posterior.predicted.unique().tolist()) == {1.0, 3.0}


def test_sensors_inside_an_obstacle_are_refused():
    class Holed(Waves):
        def clear(self, points):
            return points[:, 0] > 0.3

    with pytest.raises(ValueError, match=r"2 of 3 observations lie outside.*point 0 is \(0.1\)"):
        found(Holed(), Observations("heat", torch.tensor([[0.1], [0.2], [0.6]]), torch.ones(3), NOISE))
