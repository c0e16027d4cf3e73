r"""Gaussian activations: layers of bells exp(-(c z)^2) (Ramasinghe and Lucey 2022).

``sharpness`` c = 30 is what published comparisons use. Weights start at torch's default; with ``init="vi3nr"`` they
follow variance theory (Koneputugodage et al., CVPR 2025), stable forwards and backwards at pre-activations of
deviation sigma = a sqrt(1 + sqrt 2), a = 1/(c sqrt 2). Far from their ridges the values underflow: on processors that
compute denormal numbers slowly, ``torch.set_flush_denormal(True)`` in the caller's program makes it several times
faster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Generator

from ..pde import Grid, Problem
from ..training import Preset
from ._activations import bell
from ._field import Field, composed
from ._network import Circles, Layered, dense, set_bandwidth_, widths_of
from ._solve import QUICK, FieldSolver

INSTANCES = 1  # it learns from no data
PRESETS: Mapping[tuple[str, str], Preset] = QUICK


class Gauss(Layered):
    """Positions -> channels; periodic axes on circles."""

    def __init__(
        self,
        dim: int,
        channels: int,
        *,
        width: int = 256,
        layers: int = 4,
        sharpness: float = 30.0,
        bandwidth: Sequence[float] | None = None,
        periodic: Sequence[bool] | None = None,
        generator: Generator | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        generator = generator or torch.Generator().manual_seed(0)
        circles = Circles(periodic or (False,) * dim)
        pairs = widths_of(circles.count, channels, width, layers)
        linears = [dense(a, b, generator=generator, dtype=dtype) for a, b in pairs]
        set_bandwidth_(linears[0], circles, bandwidth, sharpness)
        super().__init__(linears, bell(sharpness), circles)


def field(
    domain: Grid,
    channels: int = 1,
    *,
    width: int = 256,
    layers: int = 4,
    sharpness: float = 30.0,
    bandwidth: Sequence[float] | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    **promises: Any,
) -> Field:
    """A Gaussian network on the box of a grid; ``promises`` are those of :func:`~._field.composed`."""
    generator = torch.Generator().manual_seed(seed)
    periodic = [axis.periodic for axis in domain.axes]

    def network(outputs: int) -> Gauss:
        return Gauss(
            domain.dim, outputs, width=width, layers=layers, sharpness=sharpness, bandwidth=bandwidth,
            periodic=periodic, generator=generator, dtype=dtype,
        )  # fmt: skip

    return composed(domain, network, channels, generator=generator, **promises)


def build(
    problem: Problem,
    grid: Grid,
    *,
    width: int = 48,
    layers: int = 2,
    sharpness: float = 1.0,
    kappa: float = 1.0,
    iterations: int = 60,
    points: int = 0,
    seed: int = 0,
) -> FieldSolver:
    """A Gaussian network in double precision solves the declared equation, one instance at a time, from no data.

    width        units a layer
    layers       of bells
    sharpness    c of the activation; images take 30, solutions with derivatives about 1
    kappa        slopes of the first layer's bells in units of the waves of source and boundary data
    iterations   of Levenberg-Marquardt at most
    points       collocation points at a time; 0: two a weight
    seed         of weights and points
    """

    def make(domain: Grid, waves: Sequence[float], **promises: Any) -> Field:
        bandwidth = [kappa * k for k in waves]
        return field(
            domain, width=width, layers=layers, sharpness=sharpness, bandwidth=bandwidth, seed=seed, **promises
        )

    return FieldSolver(problem, grid, make, iterations=iterations, points=points, seed=seed)
