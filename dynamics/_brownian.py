r"""Brownian paths as functions of seed and time: the same path at any refinement, in any order of questions.

Levy's construction on [0, T]: at u = t/T

    W(t) = \sqrt T \Big[ u Z_0 + \sum_{l < L} 2^{-l/2 - 1} \Lambda(2^l u - k_l)\, Z_{l, k_l} \Big]

with :math:`k_l = \lfloor 2^l u \rfloor` and the hat :math:`\Lambda(x) = 1 - |2x - 1|`; one term a level is not zero.
The normal numbers Z are hashes of (seed,
sample, unknown, level, k), so nothing is stored and a sample's path does not depend on its company. Exact at multiples
of :math:`2^{-L} T`, straight lines in between: steps must stay well above (they are refused below 16 of these cells).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 in two's complement: splitmix64 (Steele et al., OOPSLA 2014)
_FIRST, _SECOND = -4658895280553007687, -7723592293110705685


def _shifted(values: Tensor, bits: int) -> Tensor:
    """Logical shift to the right; torch's keeps the sign."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)


def mix(values: Tensor) -> Tensor:
    """The finaliser of splitmix64: a bijection of 64 bits whose output bits pass for independent."""
    values = (values ^ _shifted(values, 30)) * _FIRST
    values = (values ^ _shifted(values, 27)) * _SECOND
    return values ^ _shifted(values, 31)


def normals(keys: Tensor) -> Float[Tensor, "*shape"]:
    """Standard normal numbers (Box and Muller), one from each hashed key; float64, at most 6.8 in size."""
    high, low = _shifted(keys, 32), keys & 0xFFFFFFFF
    radius = (-2.0 * ((high.double() + 0.5) * 2.0**-32).log()).sqrt()
    return radius * (low.double() * (2.0 * math.pi * 2.0**-32)).cos()


@dataclass(frozen=True, kw_only=True)
class Brownian:
    """Independent paths for every sample and unknown.

    seed         of the paths
    start, end   of the interval; W(start) = 0
    batch        samples
    unknowns     paths a sample
    depth        levels L of halving
    """

    seed: int
    start: float
    end: float
    batch: int
    unknowns: int
    depth: int = 26
    device: torch.device | str = "cpu"

    def __post_init__(self) -> None:
        if not self.end > self.start or self.batch < 1 or self.unknowns < 1 or not 1 <= self.depth <= 50:
            raise ValueError(
                "A Brownian path needs end > start, batch and unknowns of at least 1, depth in 1 ... 50; got "
                f"[{self.start}, {self.end}], {self.batch}, {self.unknowns}, {self.depth}."
            )

    @property
    def cell(self) -> float:
        """Below it a path is a straight line."""
        return (self.end - self.start) * 2.0**-self.depth

    @cached_property
    def _paths(self) -> Tensor:
        """One key for each path."""
        samples = torch.arange(self.batch, dtype=torch.int64, device=self.device)[:, None]
        unknowns = torch.arange(self.unknowns, dtype=torch.int64, device=self.device)
        seeded = mix(torch.tensor(self.seed, dtype=torch.int64, device=self.device) + _GOLDEN)
        return mix(mix(seeded + (samples + 1) * _GOLDEN) + (unknowns + 1) * _GOLDEN)

    @cached_property
    def _levels(self) -> Tensor:
        return torch.arange(self.depth, dtype=torch.int64, device=self.device)

    def __call__(self, time: float) -> Float[Tensor, "batch unknown"]:
        """W at one time, float64."""
        place = (time - self.start) / (self.end - self.start)
        if not -1e-12 <= place <= 1 + 1e-12:
            raise ValueError(f"This Brownian path lives on [{self.start}, {self.end}]; it was asked at {time}.")
        place = min(max(place, 0.0), 1.0)
        widths = 2.0 ** self._levels.double()  # not of the default dtype, which may be single
        scaled = place * widths
        number = torch.minimum(scaled.floor().long(), 2**self._levels - 1)
        hats = (1 - (2 * (scaled - number) - 1).abs()) * 0.5 * widths.rsqrt()
        factors = torch.cat([hats.new_tensor([place]), hats])
        nodes = torch.cat([number.new_zeros(1), 2**self._levels + number])  # numbered as a heap: all different
        keys = mix(mix(self._paths[..., None] + (nodes + 1) * _GOLDEN))
        return math.sqrt(self.end - self.start) * (normals(keys) * factors).sum(dim=-1)
