r"""PREF: learnt spectra (phasors) as features of a shallow perceptron (Huang et al. 2022), with exact derivatives.

.. math:: f_c(x) = \alpha \sum_{\text{axis}} \mathrm{Re} \sum_k w_k\, P_{c,k}\, e^{i\,\kappa_k\cdot x},\qquad
          \alpha = \mathrm{softplus}_{10}(\hat\alpha)

One volume of phasors an axis: there its waves are 0, 1, 2, 4, … 2^(reduced-2), with weights w = 1 for the 0 and 2 for
the others (which stand for the conjugate half); along the other axes they are -modes … modes. Published volumes are
brought to a grid by an FFT and read between its nodes linearly, which leaves no second derivative. Here the sums are
evaluated at the points, as they stand: derivatives are exact, periodic axes are periodic. On other axes the waves have
twice the length of the axis, so that its ends are not made alike. One dimension: the one volume is the reduced axis.

Phasors start as noise of deviation 1 / sqrt(number of waves); the perceptron has 64 units, here smooth (GELU).
:meth:`Pref.energy` is the published Parseval regulariser.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from ..pde import Grid, Problem
from ..training import Preset
from ._activations import cosine_of, gelu, sine
from ._field import Field, composed
from ._jet import Jet, joined
from ._network import Layered, check_sizes, dense, normal, widths_of
from ._solve import QUICK, FieldSolver

INSTANCES = 1  # it learns from no data
PRESETS: Mapping[tuple[str, str], Preset] = QUICK
SHARP = 10.0  # beta of the softplus


class Phasors(nn.Module):
    """The features of all volumes; ``weight`` holds real parts, then minus imaginary parts."""

    waves: Tensor
    multiplicity: Tensor

    def __init__(
        self, dim: int, features: int, *, modes: int, reduced: int, periodic: Sequence[bool], generator: Generator,
        dtype: torch.dtype,
    ) -> None:  # fmt: skip
        super().__init__()
        check_sizes(features=features, modes=modes, reduced=reduced)
        few = [0, *(2**i for i in range(reduced - 1))]
        volumes = []
        for axis in range(dim):
            choices = [few if j == axis else list(range(-modes, modes + 1)) for j in range(dim)]
            volumes += [(wave, 1.0 if wave[axis] == 0 else 2.0) for wave in itertools.product(*choices)]
        unit = torch.tensor([math.pi if circle else math.pi / 2 for circle in periodic], dtype=torch.float64)
        self.register_buffer("waves", (torch.tensor([w for w, _ in volumes]) * unit).to(dtype), persistent=False)
        twice = torch.tensor([m for _, m in volumes] * 2, dtype=dtype)
        self.register_buffer("multiplicity", twice, persistent=False)
        drawn = normal((features, 2 * len(volumes)), generator) / math.sqrt(len(volumes))
        self.weight = nn.Parameter(drawn.to(dtype))
        amplitude = math.log(math.expm1(SHARP)) / SHARP  # softplus of it is 1
        self.amplitude = nn.Parameter(torch.full((), amplitude, dtype=dtype))

    def forward(self, points: Jet) -> Jet:
        angles = points.linear(self.waves)
        features = joined([angles.through(cosine_of), angles.through(sine(1.0))])
        alpha = nn.functional.softplus(self.amplitude, beta=SHARP)
        return features.linear(self.weight * self.multiplicity * alpha)

    def energy(self) -> Float[Tensor, ""]:
        """Mean of |i k P_k|² over the phasors: the energy of the features' gradients."""
        power = self.weight.unflatten(1, (2, -1)).square().sum(dim=1)
        return (self.waves.square().sum(dim=1) * power).mean()


class Pref(Layered):
    """Positions -> channels: phasors, then ``layers`` activated layers."""

    def __init__(
        self,
        dim: int,
        channels: int,
        *,
        width: int = 64,
        layers: int = 1,
        features: int = 16,
        modes: int = 8,
        reduced: int = 5,
        periodic: Sequence[bool] | None = None,
        generator: Generator | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        generator = generator or torch.Generator().manual_seed(0)
        phasors = Phasors(
            dim, features, modes=modes, reduced=reduced, periodic=periodic or (False,) * dim, generator=generator,
            dtype=dtype,
        )  # fmt: skip
        linears = [
            dense(a, b, generator=generator, dtype=dtype) for a, b in widths_of(features, channels, width, layers)
        ]
        super().__init__(linears, gelu, phasors)

    def energy(self) -> Float[Tensor, ""]:
        """The Parseval regulariser."""
        return self.encoding.energy()  # type: ignore[operator] # Phasors


def field(
    domain: Grid,
    channels: int = 1,
    *,
    width: int = 64,
    layers: int = 1,
    features: int = 16,
    modes: int = 8,
    reduced: int = 5,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    **promises: Any,
) -> Field:
    """Phasors on the box of a grid; ``promises`` are those of :func:`~._field.composed`."""
    generator = torch.Generator().manual_seed(seed)
    periodic = [axis.periodic for axis in domain.axes]

    def network(outputs: int) -> Pref:
        return Pref(
            domain.dim, outputs, width=width, layers=layers, features=features, modes=modes, reduced=reduced,
            periodic=periodic, generator=generator, dtype=dtype,
        )  # fmt: skip

    return composed(domain, network, channels, generator=generator, **promises)


def build(
    problem: Problem,
    grid: Grid,
    *,
    width: int = 32,
    layers: int = 1,
    features: int = 8,
    modes: int = 4,
    reduced: int = 4,
    iterations: int = 60,
    points: int = 0,
    seed: int = 0,
) -> FieldSolver:
    """Learnt phasors in double precision solve the declared equation, one instance at a time, from no data.

    width        units a layer of the perceptron
    layers       of the perceptron
    features     sums of phasors
    modes        highest wave along the dense axes of a volume
    reduced      waves along its reduced axis: 0, 1, 2, 4, …
    iterations   of Levenberg-Marquardt at most
    points       collocation points at a time; 0: two a weight
    seed         of weights and points
    """

    def make(domain: Grid, waves: Sequence[float], **promises: Any) -> Field:
        options: dict[str, Any] = {"features": features, "modes": modes, "reduced": reduced}
        return field(domain, width=width, layers=layers, seed=seed, **options, **promises)

    return FieldSolver(problem, grid, make, iterations=iterations, points=points, seed=seed)
