"""Latent models whose posteriors have closed forms: waves with Gaussian amplitudes, seen through a linear map."""

from __future__ import annotations

import math

import torch
from resolvent.data.observations import Observations
from resolvent.operators._inference import Inversion, invert
from resolvent.operators._latent import WithLatent
from resolvent.pde import Channel, Grid, Signature

SIGNATURE = Signature((Channel("source", "W"),), (Channel("heat", "K"),))
GRID = Grid.box(17, boundary="dirichlet", unit="m")
SIZE, NOISE = 4, 0.05
DOUBLE = torch.float64
SHORT = Inversion(samples=400, chains=8, warmup=60, draws=50, starts=4, steps=40)
GAUSSIAN = Inversion(method="laplace", samples=400, starts=4, steps=40)


class Waves(WithLatent):
    """source = sum z_k sin(k pi x), heat = sum z_k sin(k pi x) / k^2; z is standard normal."""

    size = SIZE

    @property
    def latent_size(self):
        return self.size

    def log_prior(self, latent):
        return -0.5 * latent.square().sum(dim=1) - 0.5 * self.size * math.log(2 * math.pi)

    def waves(self, points, power=0.0):
        k = torch.arange(1, self.size + 1, dtype=points.dtype)
        return torch.sin(k * math.pi * points[:, :1]) / k**power

    def fields(self, latent, points):
        return {"source": latent @ self.waves(points).T, "heat": latent @ self.waves(points, 2.0).T}

    def draw(self, latent, points, *, generator):
        return {"source": self.fields(latent, points)["source"]}

    def encode(self, inputs, grid):
        return torch.linalg.lstsq(self.waves(grid.mesh().flatten(1).T.to(inputs)), inputs[:, 0].T).solution.T


class Phases(Waves):
    """The source is 1 or 3, the latter with probability sigmoid(20 g), g the sum of waves."""

    phases = (1.0, 3.0)

    def high(self, latent, points):
        return torch.sigmoid(20 * latent @ self.waves(points).T)

    def fields(self, latent, points):
        high = self.high(latent, points)
        heat = latent @ self.waves(points, 2.0).T
        return {"source": 1 + 2 * high, "heat": heat, "phases": torch.stack([1 - high, high], dim=-1)}

    def draw(self, latent, points, *, generator):
        high = self.high(latent, points)
        return {"source": 1 + 2 * (torch.rand(high.shape, generator=generator, dtype=high.dtype) < high).to(high)}


class Squared(Waves):
    """The square of one amplitude is seen: every posterior has two equal modes."""

    size = 1

    def fields(self, latent, points):
        return {"source": latent @ self.waves(points).T, "heat": latent.square() @ self.waves(points).T}


class Decaying(Waves):
    """u(x, t) = sum z_k sin(k pi x) exp(-k t): an evolution, whose input is its state at time 0."""

    def fields(self, latent, points):
        k = torch.arange(1, self.size + 1, dtype=points.dtype)
        return {"u": latent @ (torch.sin(k * math.pi * points[:, :1]) * torch.exp(-k * points[:, 1:])).T}

    def draw(self, latent, points, *, generator):
        return self.fields(latent, points)


def seen(model, count=12, *, seed=0, noise=NOISE, told=True):
    """A truth, and what sensors at random points say about it."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(count, 1, generator=generator, dtype=DOUBLE)
    latent = torch.randn(1, model.latent_size, generator=generator, dtype=DOUBLE)
    clean = model.fields(latent, points)["heat"][0]
    values = clean + noise * torch.randn(count, generator=generator, dtype=DOUBLE)
    return latent[0], Observations("heat", points, values, noise if told else None)


def exact(observations, covariance):
    """Mean and covariance of the posterior of the waves' amplitudes; the covariance is that of the errors."""
    design = Waves().waves(observations.points, 2.0)
    precision = torch.eye(SIZE, dtype=DOUBLE) + design.T @ torch.linalg.solve(covariance, design)
    inverse = torch.linalg.inv(precision)
    return inverse @ design.T @ torch.linalg.solve(covariance, observations.values), inverse


def found(model, observations, how=SHORT, **options):
    return invert(model, observations, SIGNATURE, GRID, how=how, dtype=DOUBLE, **options)


def assert_gaussian(latents, mean, covariance, effective):
    """Mean and covariance of samples, within four standard errors of so many independent draws."""
    whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), (latents - mean).T, upper=False)
    assert float(whitened.mean(dim=1).abs().max()) < 4 / math.sqrt(effective)
    spread = whitened @ whitened.T / len(latents) - torch.eye(len(whitened), dtype=DOUBLE)
    assert float(spread.abs().max()) < 4 * math.sqrt(2 / effective)
