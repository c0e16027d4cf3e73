"""Conditioning on a prior whose every hyperparameter was learnt from the equation's own data."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..pde import Grid
from ..pde._equation import Equation
from ._condition import Conditioned, Posterior, conditioned, observations
from ._likelihood import LearntMixture, learn
from ._spectrum import Band

STEPS = 60  # of L-BFGS


def conditioned_on_learnt(equation: Equation, grid: Grid, bands: Sequence[Band]) -> Conditioned:
    """Spectral mixtures that start from the bands of the data; the likelier prior answers."""
    given = conditioned(equation, grid, bands)
    observed, parts = observations(equation, grid)
    values = torch.cat(parts)
    mixtures = [LearntMixture.of_band(band, axis) for band, axis in zip(bands, grid.axes, strict=True)]
    priors, _ = learn(mixtures, observed, values, steps=STEPS)
    posterior = Posterior(priors, observed, values)
    if not _profile(posterior) > _profile(given.posterior):
        return given
    misfit = posterior.mean(observed[-1]) - parts[-1]
    relative = float(misfit.norm()) / max(float(values.norm()), math.ulp(0.0))
    return Conditioned(posterior, dataclasses.replace(given.health, misfit=relative))


def _profile(posterior: Posterior) -> Tensor:
    """The log likelihood at the best scale, up to a constant."""
    return -0.5 * (len(posterior.values) * posterior.scale.log() + posterior.logdet())
