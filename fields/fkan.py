r"""FKAN: a first layer of learnt Fourier series, one an edge, then gated layers (Mehrabian et al., ICASSP 2025).

.. math:: \psi_j(x) = \beta_j + \sum_{i=1}^{d}\sum_{k=1}^{K} a_{jik}\cos k x_i + b_{jik}\sin k x_i,
          \qquad a, b \sim N(0, 1/(dK)), \quad \beta = 0

then a layer normalisation and hidden layers z = W h + b, h' = (z + tanh 30 z) sigmoid(z) (as released; ``tanh`` of the
paper's summary: h' = tanh 30 z), W ~ U(±sqrt(6/fan-in)/30). Waves k are in radians per internal unit, so the series is
not periodic on the domain; on periodic axes it is k pi x. The variance of psi_j over draws is 1 at every x, because
cos² + sin² = 1. Features are one cosine and one sine of dim K angles and one matrix product, not a tensor of an entry
for each edge and harmonic (1.1 GB a batch of 4096 in the release).

Widths 128, 256, 256, 256, 512 with K = 270 from two to three: 436,355 parameters that act. The release stores 12 more
scalars, which its forward pass does not use: 436,367.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from ..training import Preset
from ._activations import cosine_of, hyperbolic, power, sigmoid, sine
from ._builder import QUICK, fields_of, solver_of
from ._jet import Jet, joined
from ._network import Network, apply, check_sizes, dense, normal

INSTANCES = 1  # it learns from no data
# sums of series become products of positions in a wide second layer, whose own last layer is found at once
PRODUCTS = {"first": 150, "width": 1500, "gate": "tanh", "gentle": 0.1, "iterations": 0, "kappa": 0.8}
PRESETS: Mapping[tuple[str, str], Preset] = {**QUICK, ("quick", "helmholtz"): Preset(model=PRODUCTS)}
STEEP = 30.0
Gate = Literal["gated", "tanh"]
RELEASED = (128, 256, 256, 256, 512)


class FourierLayer(nn.Module):
    """The edges' Fourier series, as features and one product; ``weight`` holds cosines, then sines."""

    waves: Tensor

    def __init__(
        self, dim: int, width: int, harmonics: int, *, periodic: Sequence[bool] | None = None,
        generator: Generator, dtype: torch.dtype = torch.float32,
    ) -> None:  # fmt: skip
        super().__init__()
        check_sizes(width=width, harmonics=harmonics)
        drawn = normal((width, 2 * dim * harmonics), generator) / math.sqrt(dim * harmonics)
        self.weight = nn.Parameter(drawn.to(dtype))
        self.bias = nn.Parameter(torch.zeros(width, dtype=dtype))
        unit = torch.tensor([math.pi if circle else 1.0 for circle in periodic or (False,) * dim], dtype=dtype)
        tones = torch.arange(1, harmonics + 1, dtype=dtype)
        self.register_buffer("waves", torch.block_diag(*[(u * tones)[:, None] for u in unit]), persistent=False)

    def forward(self, points: Jet) -> Jet:
        angles = points.linear(self.waves)
        return joined([angles.through(cosine_of), angles.through(sine(1.0))]).linear(self.weight, self.bias)

    def by_edges(self, points: Float[Tensor, "point dim"]) -> Float[Tensor, "point c_out"]:
        """The slow twin: every edge's series by itself, then their sum."""
        dim, harmonics = points.shape[1], self.waves.shape[0] // points.shape[1]
        a, b = self.weight.unflatten(1, (2, dim, harmonics)).unbind(1)
        angles = (points @ self.waves.t()).unflatten(1, (dim, harmonics))[:, None]
        return (a * angles.cos() + b * angles.sin()).sum(dim=(2, 3)) + self.bias


class LayerNorm(nn.LayerNorm):
    """Layer normalisation of a jet."""

    def forward(self, jet: Jet) -> Jet:  # type: ignore[override] # of jets
        centred = jet - jet.mean()
        spread = (centred * centred).mean() + self.eps
        return centred * spread.through(power(-0.5)) * self.weight + self.bias


class Fkan(Network):
    """Positions -> channels.

    widths      of the Fourier layer and of the hidden layers
    harmonics   K; more than the band of the field alias between the nodes
    gate        gated: as released; tanh: as the paper's summary has it
    gentle      factor on what hidden layers start with (released: 1); 0.2 with tanh makes, by smooth cubes, products of
                sums of series: what a wide last layer that is solved for needs of waves
    """

    precise = ()  # its waves are whole numbers

    @classmethod
    def matched(
        cls, waves: Sequence[float], /, *, width: int = 32, layers: int = 2, first: int = 0, **options: Any
    ) -> dict[str, Any]:
        """As many harmonics as the highest wave, at least 4.

        width    channels a layer
        layers   the Fourier layer and the hidden layers
        first    channels of the Fourier layer; 0: as the others
        """
        told = {"widths": (first or width, *(width,) * (layers - 1)), "harmonics": max(4, math.ceil(max(waves)))}
        return {**told, **options}

    def __init__(
        self,
        dim: int,
        channels: int,
        *,
        widths: Sequence[int] = RELEASED,
        harmonics: int = 270,
        gate: Gate = "gated",
        gentle: float = 1.0,
        periodic: Sequence[bool] | None = None,
        generator: Generator | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        check_sizes(channels=channels, layers=len(widths))
        generator = generator or torch.Generator().manual_seed(0)
        self.gate = gate
        self.series = FourierLayer(dim, widths[0], harmonics, periodic=periodic, generator=generator, dtype=dtype)
        self.norm = LayerNorm(widths[0], dtype=dtype)
        pairs = list(zip(widths, [*widths[1:], channels], strict=True))
        # the last layer's bound has the first layer's width in place of its own fan-in, as released
        fans = [c_in for c_in, _ in pairs[:-1]] + [widths[0]]
        self.linears = nn.ModuleList(
            dense(a, b, bound=math.sqrt(6 / fan) / STEEP, generator=generator, dtype=dtype)
            for (a, b), fan in zip(pairs, fans, strict=True)
        )
        with torch.no_grad():
            for linear in self.linears[:-1]:
                for values in linear.parameters():
                    values.mul_(gentle)

    def forward(self, points: Jet) -> Jet:
        jet = self.norm(self.series(points))
        for linear in self.linears[:-1]:
            jet = self._activated(apply(linear, jet))
        return apply(self.linears[-1], jet)

    def _activated(self, z: Jet) -> Jet:
        steep = z.through(hyperbolic(STEEP))
        return steep if self.gate == "tanh" else (z + steep) * z.through(sigmoid)


field = fields_of(Fkan)
matched = field.matched
build = solver_of(Fkan, width=32, layers=2, first=0, gate="gated", gentle=1.0)
