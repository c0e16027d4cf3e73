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
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Generator, nn

from ..pde import Grid, Problem
from ..training import Preset
from ._activations import cosine_of, gelu, sine
from ._field import Field, composed
from ._jet import Jet, joined
from ._network import Circles, Network, apply, check_sizes, dense, normal, uniform_, widths_of
from ._solve import QUICK, FieldSolver
from .fkan import LayerNorm

INSTANCES = 1  # it learns from no data
PRESETS: Mapping[tuple[str, str], Preset] = QUICK


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
    """Positions -> channels; ``layers`` of KAF before the last, affine one."""

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


def field(
    domain: Grid,
    channels: int = 1,
    *,
    width: int = 128,
    layers: int = 4,
    waves: int = 9,
    bandwidth: Sequence[float] | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    **promises: Any,
) -> Field:
    """A KAF on the box of a grid; ``promises`` are those of :func:`~._field.composed`."""
    generator = torch.Generator().manual_seed(seed)
    periodic = [axis.periodic for axis in domain.axes]

    def network(outputs: int) -> Kaf:
        return Kaf(
            domain.dim, outputs, width=width, layers=layers, waves=waves, bandwidth=bandwidth, periodic=periodic,
            generator=generator, dtype=dtype,
        )  # fmt: skip

    return composed(domain, network, channels, generator=generator, **promises)


def build(
    problem: Problem,
    grid: Grid,
    *,
    width: int = 32,
    layers: int = 2,
    waves: int = 16,
    kappa: float = 1.0,
    iterations: int = 60,
    points: int = 0,
    seed: int = 0,
) -> FieldSolver:
    """A KAF in double precision solves the declared equation, one instance at a time, from no data.

    width        channels a layer
    layers       of KAF
    waves        learnt frequencies a layer
    kappa        the first layer's frequencies in units of those of the source and the boundary data
    iterations   of Levenberg-Marquardt at most
    points       collocation points at a time; 0: two a weight
    seed         of weights and points
    """

    def make(domain: Grid, given: Sequence[float], **promises: Any) -> Field:
        bandwidth = [kappa * k for k in given]
        return field(domain, width=width, layers=layers, waves=waves, bandwidth=bandwidth, seed=seed, **promises)

    return FieldSolver(problem, grid, make, iterations=iterations, points=points, seed=seed)
