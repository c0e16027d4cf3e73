r"""FINER: sines whose frequency grows with their argument (Liu et al., CVPR 2024).

.. math:: h_l = \sin(\omega\,(|z_l| + 1)\, z_l),\quad z_l = W_l h_{l-1} + b_l

Weights as SIREN's; the first layer's biases ~ U(±``spread``), which decides how high the frequencies reach (about 5 to
20; None: torch's default). The published code leaves the factor |z| + 1 out of derivatives, so that derivatives by
position are wrong; here they are those of the function. z |z| has a jump in its second derivative: so has the
Laplacian, where z = 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Generator

from ..pde import Grid, Problem
from ..training import Preset
from ._activations import finer_sine
from ._field import Field, composed
from ._network import Circles, Layered, dense, set_bandwidth_, widths_of
from ._solve import QUICK, FieldSolver

INSTANCES = 1  # it learns from no data
PRESETS: Mapping[tuple[str, str], Preset] = QUICK


class Finer(Layered):
    """Positions -> channels; periodic axes on circles."""

    def __init__(
        self,
        dim: int,
        channels: int,
        *,
        width: int = 256,
        layers: int = 4,
        omega: float = 30.0,
        spread: float | None = None,
        bandwidth: Sequence[float] | None = None,
        periodic: Sequence[bool] | None = None,
        generator: Generator | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        generator = generator or torch.Generator().manual_seed(0)
        circles = Circles(periodic or (False,) * dim)
        linears = []
        for level, (c_in, c_out) in enumerate(widths_of(circles.count, channels, width, layers)):
            bound = 1 / c_in if level == 0 else math.sqrt(6 / c_in) / omega
            bias = spread if level == 0 else None
            linears.append(dense(c_in, c_out, bound=bound, bias=bias, generator=generator, dtype=dtype))
        set_bandwidth_(linears[0], circles, bandwidth, omega)
        super().__init__(linears, finer_sine(omega), circles)


def field(
    domain: Grid,
    channels: int = 1,
    *,
    width: int = 256,
    layers: int = 4,
    omega: float = 30.0,
    spread: float | None = None,
    bandwidth: Sequence[float] | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    **promises: Any,
) -> Field:
    """A FINER network on the box of a grid; ``promises`` are those of :func:`~._field.composed`."""
    generator = torch.Generator().manual_seed(seed)
    periodic = [axis.periodic for axis in domain.axes]

    def network(outputs: int) -> Finer:
        return Finer(
            domain.dim, outputs, width=width, layers=layers, omega=omega, spread=spread, bandwidth=bandwidth,
            periodic=periodic, generator=generator, dtype=dtype,
        )  # fmt: skip

    return composed(domain, network, channels, generator=generator, **promises)


def build(
    problem: Problem,
    grid: Grid,
    *,
    width: int = 48,
    layers: int = 2,
    kappa: float = 1.0,
    iterations: int = 60,
    points: int = 0,
    seed: int = 0,
) -> FieldSolver:
    """A FINER network in double precision solves the declared equation, one instance at a time, from no data.

    width        units a layer
    layers       of sines
    kappa        waves of the first layer in units of those of the source and the boundary data
    iterations   of Levenberg-Marquardt at most
    points       collocation points at a time; 0: two a weight
    seed         of weights and points
    """

    def make(domain: Grid, waves: Sequence[float], **promises: Any) -> Field:
        bandwidth = [kappa * k for k in waves]
        return field(domain, width=width, layers=layers, bandwidth=bandwidth, seed=seed, **promises)

    return FieldSolver(problem, grid, make, iterations=iterations, points=points, seed=seed)
