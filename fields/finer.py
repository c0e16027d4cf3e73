r"""FINER: sines whose frequency grows with their argument (Liu et al., CVPR 2024).

.. math:: h_l = \sin(\omega\,(|z_l| + 1)\, z_l),\quad z_l = W_l h_{l-1} + b_l

Weights as SIREN's; the first layer's biases ~ U(±``spread``), which decides how high the frequencies reach (about 5 to
20; None: torch's default). The published code leaves the factor |z| + 1 out of derivatives, so that derivatives by
position are wrong; here they are those of the function. z |z| has a jump in its second derivative: so has the
Laplacian, where z = 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator

from ._activations import finer_sine
from ._builder import QUICK, fields_of, solver_of
from ._network import Circles, Layered, dense, set_bandwidth_, widths_of

INSTANCES, PRESETS = 1, QUICK  # it learns from no data


class Finer(Layered):
    """Positions -> channels; periodic axes on circles.

    width       units a layer
    layers      of sines
    omega       of the layers
    spread      bound of the first layer's biases; None: torch's
    bandwidth   root mean square of the first layer's wave numbers, one an axis [rad per internal unit]
    """

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


field = fields_of(Finer)
matched = field.matched
build = solver_of(Finer, width=48, layers=2)
