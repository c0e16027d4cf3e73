"""Small problems with a known best answer, and data sets of them in memory."""

from __future__ import annotations

import pytest
import torch
from resolvent.data import Dataset
from resolvent.pde import Channel, Grid, Signature
from resolvent.training import NetworkSolver, Recipe
from torch import nn

CHANNEL = (Channel("u"),)
STATIC = Signature(CHANNEL, CHANNEL)
EVOLUTION = Signature(CHANNEL, CHANNEL, frames=4, spacing=0.5)
RECIPE = Recipe(epochs=5, batch=4, learning_rate=0.05, weight_decay=0.0, seed=3)


def waves(count: int, size: int, *, seed: int = 0) -> torch.Tensor:
    """Random sums of three periodic waves, ``count 1 size size``."""
    generator = torch.Generator().manual_seed(seed)
    spectrum = torch.zeros(count, 1, size, size // 2 + 1, dtype=torch.complex64)
    spectrum[..., :3, :3] = torch.randn(count, 1, 3, 3, dtype=torch.complex64, generator=generator)
    return torch.fft.irfft2(spectrum, s=(size, size), norm="forward")


def solver_for(data: Dataset, recipe: Recipe, **options) -> NetworkSolver:
    torch.manual_seed(recipe.seed)
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.GELU(), nn.Conv2d(4, 1, 1))
    return NetworkSolver(network, data.signature, data.grid, recipe, any_resolution=True, **options)


def walled(size: int, count: int = 24) -> Dataset:
    """Fields between walls that nothing leaves alone, and their doubles plus 1."""
    grid = Grid.box(size, dim=2, boundary="dirichlet")
    inputs = torch.randn(count, 1, size, size, generator=torch.Generator().manual_seed(0))
    return Dataset.from_tensors(inputs, 2 * inputs + 1, grid=grid, signature=STATIC)


@pytest.fixture
def doubling() -> Dataset:
    """The static map u -> 2 u + 1."""
    inputs = waves(24, 8)
    return Dataset.from_tensors(inputs, 2 * inputs + 1, grid=Grid.box(8, dim=2), signature=STATIC)


@pytest.fixture
def decay() -> Dataset:
    """The evolution u -> 0.9 u per frame."""
    inputs = waves(12, 8)
    outputs = torch.stack([inputs * 0.9**k for k in range(1, 5)], dim=1)
    return Dataset.from_tensors(inputs, outputs, grid=Grid.box(8, dim=2), signature=EVOLUTION)


@pytest.fixture
def finer_decay() -> Dataset:
    """The same evolution on 16 nodes an axis."""
    inputs = waves(6, 16)
    outputs = torch.stack([inputs * 0.9**k for k in range(1, 5)], dim=1)
    return Dataset.from_tensors(inputs, outputs, grid=Grid.box(16, dim=2), signature=EVOLUTION)


@pytest.fixture
def white_noise() -> Dataset:
    """A static map of fields with energy in every mode."""
    noise = torch.randn(8, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    return Dataset.from_tensors(noise, noise, grid=Grid.box(16, dim=2), signature=STATIC)
