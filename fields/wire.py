r"""WIRE: complex Gabor wavelets as activations (Saragadam et al., CVPR 2023).

.. math:: h_l = \exp(i\,\omega\, z_l - s^2 |z_l|^2),\quad z_l = W_l h_{l-1} + b_l,\qquad
          N(x) = \mathrm{Re}(W_{L+1} h_L + b_{L+1})

The first W is real, the others are complex, at torch's default initialisation (real and imaginary parts uniform within
1 / sqrt(fan-in)); ``width`` counts real units: floor(width / sqrt 2) complex ones have about as many numbers. Published
pairs (omega, s): images 20, 30; noisy ones 5, 5; tomography 10, 10. Three wavelet layers. Derivatives are exact: |z|²
is the product of the jets of z and its conjugate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, nn

from ._activations import exponential
from ._builder import QUICK, fields_of, solver_of
from ._jet import Jet
from ._network import Circles, Network, apply, check_sizes, dense, set_bandwidth_, uniform_

INSTANCES, PRESETS = 1, QUICK  # it learns from no data


class Wire(Network):
    """Positions -> channels; periodic axes on circles.

    width       units a layer, counted in real numbers
    layers      of wavelets
    omega       waves of a wavelet
    decay       s of its envelope
    bandwidth   root mean square of the first layer's wave numbers, one an axis [rad per internal unit]
    """

    def __init__(
        self,
        dim: int,
        channels: int,
        *,
        width: int = 256,
        layers: int = 3,
        omega: float = 20.0,
        decay: float = 30.0,
        bandwidth: Sequence[float] | None = None,
        periodic: Sequence[bool] | None = None,
        generator: Generator | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        check_sizes(width=width, layers=layers, channels=channels)
        generator = generator or torch.Generator().manual_seed(0)
        self.omega, self.decay = omega, decay
        self.circles = Circles(periodic or (False,) * dim)
        units = max(1, math.floor(width / math.sqrt(2)))
        first = dense(self.circles.count, units, generator=generator, dtype=dtype)
        set_bandwidth_(first, self.circles, bandwidth, omega)
        ends = [units] * layers + [channels]
        later = [_complex_dense(a, b, generator, dtype) for a, b in zip(ends, ends[1:], strict=False)]
        self.linears = nn.ModuleList([first, *later])

    def forward(self, points: Jet) -> Jet:
        jet = self.circles(points)
        for linear in self.linears[:-1]:
            jet = self.wavelet(apply(linear, jet))
        return apply(self.linears[-1], jet).real()

    def wavelet(self, z: Jet) -> Jet:
        """exp(i omega z - s² |z|²)."""
        exponent = z * complex(0, self.omega) + (z * z.conj()) * complex(-(self.decay**2), 0)
        return exponent.through(exponential)


def _complex_dense(c_in: int, c_out: int, generator: Generator, dtype: torch.dtype) -> nn.Linear:
    """Torch's default of a complex layer: real and imaginary parts uniform within 1 / sqrt(fan-in)."""
    kind = torch.complex128 if dtype == torch.float64 else torch.complex64
    linear = nn.utils.skip_init(nn.Linear, c_in, c_out, dtype=kind)
    with torch.no_grad():
        for values in (linear.weight, linear.bias):
            uniform_(torch.view_as_real(values), 1 / math.sqrt(c_in), generator)
    return linear


field = fields_of(Wire)
matched = field.matched
build = solver_of(Wire, width=32, layers=2, omega=5.0, decay=1.0)
