r"""Gaussian activations: layers of bells exp(-(c z)^2) (Ramasinghe and Lucey 2022).

``sharpness`` c = 30 is what published comparisons use. Weights start at torch's default; with ``init="vi3nr"`` they
follow variance theory (Koneputugodage et al., CVPR 2025), stable forwards and backwards at pre-activations of
deviation sigma = a sqrt(1 + sqrt 2), a = 1/(c sqrt 2). Far from their ridges the values underflow: on processors that
compute denormal numbers slowly, ``torch.set_flush_denormal(True)`` in the caller's program makes it several times
faster.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator

from ._activations import bell
from ._builder import QUICK, fields_of, solver_of
from ._network import Circles, Layered, dense, set_bandwidth_, widths_of

INSTANCES, PRESETS = 1, QUICK  # it learns from no data


class Gauss(Layered):
    """Positions -> channels; periodic axes on circles.

    width       units a layer
    layers      of bells
    sharpness   c of the activation; images take 30, solutions with derivatives about 1
    bandwidth   root mean square of the slopes of the first layer's bells, one an axis [per internal unit]
    """

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


field = fields_of(Gauss)
matched = field.matched
build = solver_of(Gauss, width=48, layers=2, sharpness=1.0)
