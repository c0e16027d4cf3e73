r"""Laws of initial states that several problems share, beside the Gaussian random fields.

``sinusoids``          PDEBench (Takamoto et al. 2022, arXiv 2210.07182, appendix): the sum of two waves
                       A sin(2 pi n x / L + phi) with n from 1 to 8, A from [0, 1], phi from [0, 2 pi], all uniform;
                       with probability 0.1 its absolute value, with a random sign. *Law not known:* with probability
                       0.1 the published states are also multiplied by a window, which is not described; ours never.
``truncated_fourier``  APEBench / exponax: white noise cut off above mode 5 on every axis, without mean, divided by
                       its largest absolute value at the nodes
``odd_field``          between Dirichlet walls: (u(x) - u(-x)) / sqrt(2) of a Gaussian field, x from the middle, which
                       keeps the waves that are zero there, with twice their variance
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Generator, Tensor

from ._grid import Grid
from ._spectral import fourier_resample
from ._walls import Walls, wall_field

Law = Literal["random_field", "odd_field", "sinusoids", "truncated_fourier"]
FIELDS = ("random_field", "odd_field")

WAVES = 2
HIGHEST_WAVE = 8
CHANCE = 0.1
CUTOFF = 5


def initial_states(
    law: Law,
    count: int,
    grid: Grid,
    *,
    alpha: float,
    tau: float,
    sigma: float | None = None,
    generator: Generator,
) -> Tensor:
    """``count`` states of one channel, ``count 1 *space``, float64; alpha, tau and sigma are the random field's."""
    if law in FIELDS:
        field = wall_field(count, grid, alpha=alpha, tau=tau, sigma=sigma, generator=generator)
        if law == "odd_field":
            field = (field - field.flip(tuple(range(1, field.ndim)))) / math.sqrt(2)
        return field[:, None]
    if not grid.periodic:
        raise ValueError(f"The law {law!r} draws periodic states; between walls take 'random_field'.")
    if law == "sinusoids":
        return sinusoids(count, grid, generator=generator)[:, None]
    return truncated_fourier(count, grid, generator=generator)[:, None]


def check_law(law: Law, alpha: float, dim: int, walls: Walls = "periodic") -> None:
    """Refuse walls and laws that do not exist, and laws that have no samples between such walls."""
    if walls not in get_args(Walls):
        raise ValueError(f"boundary is one of {get_args(Walls)}, got {walls!r}.")
    if law not in get_args(Law):
        raise ValueError(f"initial is one of {get_args(Law)}, got {law!r}.")
    if not dim / 2 < alpha < math.inf:
        raise ValueError(f"alpha must be above dim / 2 = {dim / 2:g}, or u(0) has no finite variance; got {alpha}.")
    if law == "odd_field" and walls != "dirichlet":
        raise ValueError(f"initial 'odd_field' vanishes on Dirichlet walls and in the middle; boundary is {walls!r}.")
    if law not in FIELDS and walls != "periodic":
        raise ValueError(f"initial {law!r} draws periodic states; with boundary {walls!r} take 'random_field'.")
    if law == "sinusoids" and dim != 1:
        raise ValueError(f"initial 'sinusoids' is a law in one dimension, got dim {dim}.")


def sinusoids(count: int, grid: Grid, *, generator: Generator) -> Tensor:
    """PDEBench's sums of sinusoids, ``count space`` (float64)."""
    axis = grid.axes[0]
    if grid.dim != 1 or axis.size <= 2 * HIGHEST_WAVE:
        raise ValueError(
            f"The sinusoids need one axis of more than {2 * HIGHEST_WAVE} nodes for {HIGHEST_WAVE} waves; "
            f"got a grid of shape {grid.shape}."
        )
    uniform = torch.rand(5, count, WAVES, 1, dtype=torch.float64, generator=generator)
    number = (1 + (HIGHEST_WAVE * uniform[0]).floor()).clamp(max=HIGHEST_WAVE)
    phase, amplitude = 2 * math.pi * uniform[1], uniform[2]
    x = (axis.coordinates() - axis.lower) / axis.length
    waves = (amplitude * torch.sin(2 * math.pi * number * x + phase)).sum(dim=1)
    sign = torch.where(uniform[4, :, 0] < 0.5, -1.0, 1.0)
    return torch.where(uniform[3, :, 0] < CHANCE, sign * waves.abs(), waves)


def truncated_fourier(count: int, grid: Grid, *, generator: Generator) -> Tensor:
    """APEBench's default states, ``count *space`` (float64)."""
    few = 2 * CUTOFF + 1
    if min(grid.shape) < few:
        raise ValueError(f"The truncated Fourier series needs at least {few} nodes an axis, got {grid.shape}.")
    # white noise on so few nodes is white in just the modes that are kept
    noise = torch.randn(count, *(few,) * grid.dim, dtype=torch.float64, generator=generator)
    axes = tuple(range(1, grid.dim + 1))
    fields = fourier_resample(noise - noise.mean(dim=axes, keepdim=True), grid.shape)
    return fields / fields.abs().amax(dim=axes, keepdim=True)
