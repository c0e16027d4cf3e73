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
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from ._activations import cosine_of, gelu, sine
from ._builder import QUICK, fields_of, solver_of
from ._jet import Jet, joined
from ._network import Layered, check_sizes, dense, normal, widths_of

INSTANCES, PRESETS = 1, QUICK  # it learns from no data
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
        volumes, self.periodic = [], tuple(periodic)
        self.keys: list[tuple[int, ...]] = []  # the volume of a phasor, then its wave
        for axis in range(dim):
            choices = [few if j == axis else list(range(-modes, modes + 1)) for j in range(dim)]
            volumes += [(wave, 1.0 if wave[axis] == 0 else 2.0) for wave in itertools.product(*choices)]
            self.keys += [(axis, *wave) for wave in itertools.product(*choices)]
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

    @torch.no_grad()
    def enlarged(self, modes: int, reduced: int) -> Phasors:
        """More phasors, the new ones zero: the same function, from which a fit goes on (coarse to fine)."""
        dim, features = self.waves.shape[1], len(self.weight)
        made = Phasors(
            dim, features, modes=modes, reduced=reduced, periodic=self.periodic, generator=torch.Generator(),
            dtype=self.weight.dtype,
        )  # fmt: skip
        places = {key: number for number, key in enumerate(made.keys)}
        if absent := [key for key in self.keys if key not in places]:
            raise ValueError(f"{modes} modes and {reduced} reduced ones leave out {len(absent)} of the present ones.")
        chosen = torch.tensor([places[key] for key in self.keys])
        made.weight.zero_()
        made.weight.unflatten(1, (2, -1))[:, :, chosen] = self.weight.unflatten(1, (2, -1))
        made.amplitude.copy_(self.amplitude)
        return made

    def energy(self) -> Float[Tensor, ""]:
        """Mean of |i k P_k|² over the phasors: the energy of the features' gradients."""
        power = self.weight.unflatten(1, (2, -1)).square().sum(dim=1)
        return (self.waves.square().sum(dim=1) * power).mean()


class Pref(Layered):
    """Positions -> channels.

    width      units a layer of the perceptron
    layers     of the perceptron
    features   sums of phasors
    modes      highest wave along the dense axes of a volume; 0: the highest of the waves it is to start with
    reduced    waves along its reduced axis: 0, 1, 2, 4, …
    """

    precise = ()  # its waves are whole numbers
    grows = "features"

    @classmethod
    def matched(cls, waves: Sequence[float], /, *, modes: int = 0, **options: Any) -> dict[str, Any]:
        """Modes up to the highest wave, at least 4."""
        return {"modes": modes or max(4, math.ceil(max(waves) / math.pi)), **options}

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


field = fields_of(Pref)
matched = field.matched
build = solver_of(Pref, width=32, layers=1, features=8, modes=4, reduced=4)
