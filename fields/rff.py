r"""Random Fourier features before a perceptron (Tancik et al. 2020).

.. math:: \gamma(x) = [\cos Bx, \sin Bx],\quad B_{ji} \sim N(0, \sigma_i^2)

B is drawn once and stays; sigma in radians per internal unit, one an axis. On periodic axes B is rounded to multiples
of pi. The published perceptron has rectified units, whose second derivatives are zero but on kinks: Laplacians of such
a field see the encoding's curvature only. ``activation="gelu"``, the default, is smooth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn

from ._activations import cosine_of, gelu, relu, sine
from ._builder import QUICK, fields_of, solver_of
from ._jet import Jet, joined
from ._network import Layered, dense, normal, widths_of

INSTANCES, PRESETS = 1, QUICK  # it learns from no data
Activation = Literal["gelu", "relu"]


class RandomWaves(nn.Module):
    """cos Bx and sin Bx; B is stored with the weights and not trained."""

    waves: Tensor

    def __init__(
        self, count: int, sigma: Sequence[float], periodic: Sequence[bool], generator: Generator, dtype: torch.dtype
    ) -> None:
        super().__init__()
        drawn = normal((count, len(sigma)), generator) * torch.as_tensor(sigma, dtype=torch.float64)
        self.periodic = tuple(periodic)
        self.register_buffer("waves", drawn.to(dtype))
        self.round_()

    @torch.no_grad()
    def round_(self) -> None:
        """Round what has to be whole."""
        whole = (self.waves / math.pi).round() * math.pi
        periodic = torch.tensor(self.periodic, device=whole.device)
        self.waves.copy_(torch.where(periodic, whole, self.waves))

    def forward(self, points: Jet) -> Jet:
        angles = points.linear(self.waves)
        return joined([angles.through(cosine_of), angles.through(sine(1.0))])


class Rff(Layered):
    """Positions -> channels.

    width        units a layer
    layers       activated layers after the waves
    features     random waves
    sigma        their deviation, one an axis or one for all [rad per internal unit]
    activation   gelu, or relu: as published, without second derivatives
    """

    precise = ("encoding.waves",)

    @classmethod
    def matched(cls, waves: Sequence[float], /, **options: Any) -> dict[str, Any]:
        """Random waves with this deviation; as many as units a layer."""
        return {"sigma": tuple(waves), "features": options.get("width", 256), **options}

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


field = fields_of(Rff)
matched = field.matched
build = solver_of(Rff, width=32, layers=2)
