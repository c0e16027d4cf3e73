r"""SIREN: layers of sines, the field that is its own derivative (Sitzmann et al. 2020).

.. math:: h_l = \sin(\omega_l (W_l h_{l-1} + b_l)),\quad l = 1 \dots L;\qquad N(x) = W_{L+1} h_L + b_{L+1}

W_1 ~ U(±1/dim); W_l ~ U(±sqrt(6/n)/omega), the last layer's too; biases ~ U(±1/sqrt(fan-in)), which hold the gradients
up: the variance of pre-activations settles at s² = 1 - exp(-2 s²) + omega²/(3 n), and the gradients' gain a layer
1 + exp(-2 s²) is 1.01 at n = 256, against 1.20 without biases. ``omega = 30`` is published for images, distances and
equations; what it means depends on the field's own waves: ``bandwidth`` sets it by them, axis by axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from ..kernels.sine_layer import sine_layer
from ._activations import sine
from ._builder import fields_of, solver_of
from ._jet import Jet
from ._network import Layered, Waves, apply, dense, normal, uniform_, widths_of
from ._solve import WAVES

INSTANCES, PRESETS = 1, WAVES  # it learns from no data


class Siren(Layered):
    """Positions -> channels.

    width       sines a layer
    layers      of sines
    omega       of the layers
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

    def activated(self, level: int, linear: nn.Module, jet: Jet) -> Jet:
        omega = self.omegas[min(level, 1)]
        if jet.second == "axes":
            return apply(linear, jet).through(sine(omega))
        weight = linear.moving if isinstance(linear, Waves) else linear.weight
        summed = jet.second == "laplacian"
        orders = sine_layer(jet.orders, weight, linear.bias, omega, laplacian=summed)  # type: ignore[arg-type]
        return Jet(orders, jet.dim, jet.second)


@torch.no_grad()
def _set_waves(weight: Tensor, bandwidth: Sequence[float], omega: float, gaussian: bool, generator: Generator) -> None:
    scale = torch.as_tensor(bandwidth, dtype=torch.float64) / omega
    if gaussian:
        weight.copy_(normal(weight.shape, generator) * scale)
    else:
        uniform_(weight, math.sqrt(3), generator)
        weight.mul_(scale.to(weight.dtype))


field = fields_of(Siren)
matched = field.matched
build = solver_of(Siren, width=48, layers=2)
