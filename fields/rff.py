r"""Random Fourier features before a perceptron (Tancik et al. 2020).

.. math:: \gamma(x) = [\cos Bx, \sin Bx],\quad B_{ji} \sim N(0, \sigma_i^2)

B is drawn once and stays; sigma in radians per internal unit, one an axis. On periodic axes B is rounded to multiples
of pi. The published perceptron has rectified units, whose second derivatives are zero but on kinks: Laplacians of such
a field see the encoding's curvature only. ``activation="gelu"``, the default, is smooth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn

from ..pde import Grid, Problem
from ..training import Preset
from ._activations import cosine_of, gelu, relu, sine
from ._field import Field, composed
from ._jet import Jet, joined
from ._network import Layered, dense, normal, widths_of
from ._solve import QUICK, FieldSolver

INSTANCES = 1  # it learns from no data
PRESETS: Mapping[tuple[str, str], Preset] = QUICK
Activation = Literal["gelu", "relu"]


class RandomWaves(nn.Module):
    """cos Bx and sin Bx; B is stored with the weights and not trained."""

    waves: Tensor

    def __init__(
        self, count: int, sigma: Sequence[float], periodic: Sequence[bool], generator: Generator, dtype: torch.dtype
    ) -> None:
        super().__init__()
        drawn = normal((count, len(sigma)), generator) * torch.as_tensor(sigma, dtype=torch.float64)
        whole = (drawn / math.pi).round() * math.pi
        self.register_buffer("waves", torch.where(torch.tensor(list(periodic)), whole, drawn).to(dtype))

    def forward(self, points: Jet) -> Jet:
        angles = points.linear(self.waves)
        return joined([angles.through(cosine_of), angles.through(sine(1.0))])


class Rff(Layered):
    """Positions -> channels; ``features`` random waves, then ``layers`` activated layers."""

    def __init__(
        self,
        dim: int,
        channels: int,
        *,
        width: int = 256,
        layers: int = 3,
        features: int = 256,
        sigma: Sequence[float] | float = 10.0,
        activation: Activation = "gelu",
        periodic: Sequence[bool] | None = None,
        generator: Generator | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        generator = generator or torch.Generator().manual_seed(0)
        sigmas = [float(sigma)] * dim if isinstance(sigma, int | float) else list(sigma)
        encoding = RandomWaves(features, sigmas, periodic or (False,) * dim, generator, dtype)
        pairs = widths_of(2 * features, channels, width, layers)
        linears = [dense(a, b, generator=generator, dtype=dtype) for a, b in pairs]
        super().__init__(linears, gelu if activation == "gelu" else relu, encoding)


def field(
    domain: Grid,
    channels: int = 1,
    *,
    width: int = 256,
    layers: int = 3,
    features: int = 256,
    sigma: Sequence[float] | float = 10.0,
    activation: Activation = "gelu",
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    **promises: Any,
) -> Field:
    """Random Fourier features on the box of a grid; ``promises`` are those of :func:`~._field.composed`."""
    generator = torch.Generator().manual_seed(seed)
    periodic = [axis.periodic for axis in domain.axes]

    def network(outputs: int) -> Rff:
        return Rff(
            domain.dim, outputs, width=width, layers=layers, features=features, sigma=sigma, activation=activation,
            periodic=periodic, generator=generator, dtype=dtype,
        )  # fmt: skip

    return composed(domain, network, channels, generator=generator, **promises)


def build(
    problem: Problem,
    grid: Grid,
    *,
    width: int = 32,
    layers: int = 2,
    kappa: float = 1.0,
    iterations: int = 60,
    points: int = 0,
    seed: int = 0,
) -> FieldSolver:
    """Random Fourier features in double precision solve the declared equation, one instance at a time, from no data.

    width        units a layer, and random waves
    layers       activated layers after the waves
    kappa        deviation of the random waves in units of those of the source and the boundary data
    iterations   of Levenberg-Marquardt at most
    points       collocation points at a time; 0: two a weight
    seed         of weights and points
    """

    def make(domain: Grid, waves: Sequence[float], **promises: Any) -> Field:
        sigma = [kappa * k for k in waves]
        return field(domain, width=width, layers=layers, features=width, sigma=sigma, seed=seed, **promises)

    return FieldSolver(problem, grid, make, iterations=iterations, points=points, seed=seed)
