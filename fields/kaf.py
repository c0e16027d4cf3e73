r"""KAF: each layer adds learnt Fourier features to a smooth rectifier (Zhang et al. 2025).

.. math:: y = W\,[\,a\,\mathrm{GELU}(x)
          + c\,V\,(\cos(\hat x\,\Omega + \varphi);\ \sin(\hat x\,\Omega + \varphi)) + v\,] + \beta

with :math:`\hat x = x` in the first layer and layer-normalised in the others; a = 1 and c = 0.01 are learnt,
:math:`\Omega \sim N(0, 1/(1.64\,d))`, phases U(0, 2 pi), V uniform (Xavier). All parameters exist from the start, so an
optimiser trains them: in the released benchmarks it is built before them. As a field the first layer's
:math:`\Omega` is to hold the field's waves (``bandwidth``); the default knows no high frequencies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, nn

from ._activations import cosine_of, gelu, sine
from ._builder import QUICK, fields_of, solver_of
from ._jet import Jet, joined
from ._network import Circles, Network, apply, check_sizes, dense, normal, uniform_, widths_of
from .fkan import LayerNorm

INSTANCES, PRESETS = 1, QUICK  # it learns from no data


class KafLayer(nn.Module):
    """One layer; ``waves``: number m of learnt frequencies."""

    def __init__(
        self, c_in: int, c_out: int, waves: int, *, normalise: bool, generator: Generator, dtype: torch.dtype
    ) -> None:
        super().__init__()
        omega = normal((waves, c_in), generator) / math.sqrt(1.64 * c_in)
        self.norm = LayerNorm(c_in, dtype=dtype) if normalise else None
        self.smooth = nn.Parameter(torch.ones((), dtype=dtype))
        self.wavy = nn.Parameter(torch.full((), 0.01, dtype=dtype))
        self.omega = nn.Parameter(omega.to(dtype))
        phase = 2 * math.pi * torch.rand(waves, dtype=torch.float64, generator=generator)
        self.phase = nn.Parameter(phase.to(dtype))
        self.mixing = dense(
            2 * waves, c_in, bound=math.sqrt(6 / (2 * waves + c_in)), bias=0.0, generator=generator, dtype=dtype
        )
        self.linear = dense(c_in, c_out, generator=generator, dtype=dtype)

    def forward(self, x: Jet) -> Jet:
        angles = (x if self.norm is None else self.norm(x)).linear(self.omega, self.phase)
        features = joined([angles.through(cosine_of), angles.through(sine(1.0))])
        wavy = features.linear(self.mixing.weight) * self.wavy
        return apply(self.linear, x.through(gelu) * self.smooth + wavy + self.mixing.bias)


class Kaf(Network):
    """Positions -> channels; periodic axes on circles.

    width       channels a layer
    layers      of KAF, before the last, affine one
    waves       learnt frequencies a layer
    bandwidth   root mean square of the first layer's frequencies, one an axis [rad per internal unit]
    """

    precise = ("layers.0.omega", "layers.0.phase")

    def __init__(
        self,
        dim: int,
        channels: int,
        *,
        width: int = 128,
        layers: int = 4,
        waves: int = 9,
        bandwidth: Sequence[float] | None = None,
        periodic: Sequence[bool] | None = None,
        generator: Generator | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        check_sizes(waves=waves)
        generator = generator or torch.Generator().manual_seed(0)
        self.circles = Circles(periodic or (False,) * dim)
        *hidden, (c_in, c_out) = widths_of(self.circles.count, channels, width, layers)
        self.layers = nn.ModuleList(
            KafLayer(a, b, waves, normalise=level > 0, generator=generator, dtype=dtype)
            for level, (a, b) in enumerate(hidden)
        )
        if bandwidth is not None:
            self._set_waves(bandwidth, generator)
        self.last = dense(c_in, c_out, generator=generator, dtype=dtype)

    @torch.no_grad()
    def _set_waves(self, bandwidth: Sequence[float], generator: Generator) -> None:
        """The first layer's frequencies from the field's, and as much weight for them as for the rectifier."""
        first: KafLayer = self.layers[0]  # type: ignore[assignment] # made above
        limits: list[float] = []
        for k, circle in zip(bandwidth, self.circles.periodic, strict=True):
            limits += [k / math.pi] * 2 if circle else [k]
        uniform_(first.omega, math.sqrt(3), generator)
        first.omega.mul_(torch.tensor(limits, dtype=first.omega.dtype))
        first.wavy.fill_(1.0)

    def forward(self, points: Jet) -> Jet:
        jet = self.circles(points)
        for layer in self.layers:
            jet = layer(jet)
        return apply(self.last, jet)


field = fields_of(Kaf)
matched = field.matched
build = solver_of(Kaf, width=32, layers=2, waves=16)
