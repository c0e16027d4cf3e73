r"""SIREN: layers of sines, the field that is its own derivative (Sitzmann et al. 2020).

.. math:: h_l = \sin(\omega_l (W_l h_{l-1} + b_l)),\quad l = 1 \dots L;\qquad N(x) = W_{L+1} h_L + b_{L+1}

W_1 ~ U(±1/dim); W_l ~ U(±sqrt(6/n)/omega), the last layer's too; biases ~ U(±1/sqrt(fan-in)), which hold the gradients
up: the variance of pre-activations settles at s² = 1 - exp(-2 s²) + omega²/(3 n), and the gradients' gain a layer
1 + exp(-2 s²) is 1.01 at n = 256, against 1.20 without biases. ``omega = 30`` is published for images, distances and
equations; what it means depends on the field's own waves: ``bandwidth`` sets it by them, axis by axis.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from ..kernels.sine_layer import sine_layer
from ..pde import Grid, Problem
from ..training import Preset
from ._activations import sine
from ._field import Field, composed
from ._jet import Jet
from ._network import Layered, Waves, dense, normal, uniform_, widths_of
from ._solve import QUICK, FieldSolver

INSTANCES = 1  # it learns from no data
PRESETS: Mapping[tuple[str, str], Preset] = QUICK


class Siren(Layered):
    """Positions -> channels.

    first       omega of the first layer, where no bandwidth is given
    bandwidth   root mean square of the first layer's wave numbers, one an axis [rad per internal unit]
    gaussian    the first layer's waves are normal; else uniform
    """

    def __init__(
        self,
        dim: int,
        channels: int,
        *,
        width: int = 256,
        layers: int = 4,
        omega: float = 30.0,
        first: float = 30.0,
        bandwidth: Sequence[float] | None = None,
        gaussian: bool = False,
        periodic: Sequence[bool] | None = None,
        generator: Generator | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        generator = generator or torch.Generator().manual_seed(0)
        omegas = (first if bandwidth is None else omega, omega)
        linears = []
        for level, (c_in, c_out) in enumerate(widths_of(dim, channels, width, layers)):
            bound = 1 / dim if level == 0 else math.sqrt(6 / c_in) / omega
            linears.append(dense(c_in, c_out, bound=bound, generator=generator, dtype=dtype))
        if bandwidth is not None:
            _set_waves(linears[0].weight, bandwidth, omega, gaussian, generator)
        linears[0] = Waves(linears[0], periodic or (False,) * dim, omegas[0])
        super().__init__(linears, sine(omega))
        self.omegas = omegas  # of the first layer, of the others

    def features(self, points: Jet) -> Jet:
        jet = points
        for level, linear in enumerate(self.linears[:-1]):
            omega = self.omegas[min(level, 1)]
            weight = linear.moving if isinstance(linear, Waves) else linear.weight
            if jet.second == "axes":
                jet = jet.linear(weight, linear.bias).through(sine(omega))  # type: ignore[arg-type]
            else:
                summed = jet.second == "laplacian"
                orders = sine_layer(jet.orders, weight, linear.bias, omega, laplacian=summed)  # type: ignore[arg-type]
                jet = Jet(orders, jet.dim, jet.second)
        return jet


@torch.no_grad()
def _set_waves(weight: Tensor, bandwidth: Sequence[float], omega: float, gaussian: bool, generator: Generator) -> None:
    scale = torch.as_tensor(bandwidth, dtype=torch.float64) / omega
    if gaussian:
        weight.copy_(normal(weight.shape, generator) * scale)
    else:
        uniform_(weight, math.sqrt(3), generator)
        weight.mul_(scale.to(weight.dtype))


def field(
    domain: Grid,
    channels: int = 1,
    *,
    width: int = 256,
    layers: int = 4,
    omega: float = 30.0,
    first: float = 30.0,
    bandwidth: Sequence[float] | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    **promises: Any,
) -> Field:
    """A SIREN on the box of a grid; ``promises`` are those of :func:`~._field.composed`."""
    generator = torch.Generator().manual_seed(seed)
    periodic = [axis.periodic for axis in domain.axes]

    def network(outputs: int) -> Siren:
        return Siren(
            domain.dim, outputs, width=width, layers=layers, omega=omega, first=first, bandwidth=bandwidth,
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
    """A SIREN in double precision solves the problem's declared equation, one instance at a time, from no data.

    width        sines a layer
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
