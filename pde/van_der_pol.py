r"""Van der Pol's oscillator: (place, rate)(0) -> later; stiff for large mu.

.. math:: \ddot x = \mu (1 - x^2)\, \dot x - x

place   x           [1]
rate    dx/dt       [1/s]
mu      excitation  [1/s]  given: 1

Every state but rest ends on one cycle. mu = 0 is the harmonic oscillator; the period is 6.6632868593231 at mu = 1 and
(3 - 2 ln 2) mu + ... for large mu, where fast jumps follow slow crawls and the reference is implicit (mu > 20).

Law of the states: place and rate uniform in [-width, width]; ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from ._grid import Grid
from ._periodic import check_not_negative, check_positive
from ._problem import Channel, Setup, Signature
from ._system import State, System, uniform

STIFF = 20.0  # of mu, from which on the explicit reference would be held back by stability


@dataclass(frozen=True, kw_only=True)
class VanDerPol(System):
    """A relaxation oscillator."""

    mu: float = 1.0  # excitation [1/s]
    width: float = 3.0  # of the box of initial states
    frames: int = 50
    spacing: float = 0.2  # time between frames [s]

    setups: ClassVar[Mapping[str, Setup]] = {
        "quick": Setup(resolution=2, train=128, validation=16, test=32),
        "paper": Setup(resolution=2, train=1000, validation=100, test=200),
    }
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "stiff": {"mu": 1000.0, "width": 2.0, "frames": 50, "spacing": 40.0},
    }

    def __post_init__(self) -> None:
        check_not_negative(mu=self.mu)
        check_positive(width=self.width, frames=self.frames, spacing=self.spacing)

    @property
    def signature(self) -> Signature:
        state = (Channel("place"), Channel("rate", "1/s"))
        return Signature(state, state, self.frames, self.spacing, "s")

    def sample(self, count: int, grid: Grid, *, generator: Generator) -> Tensor:
        return uniform(count, (-self.width,) * 2, (self.width,) * 2, generator)

    @property
    def stiff(self) -> bool:
        return self.mu > STIFF

    def slope(self, state: State) -> State:
        place, rate = state.unbind(dim=1)
        return torch.stack([rate, self.mu * (1 - place**2) * rate - place], dim=1)

    def jacobian(self, state: State) -> Float[Tensor, "batch row column"]:
        place, rate = state.unbind(dim=1)
        zero, one = torch.zeros_like(place), torch.ones_like(place)
        first, second = (zero, one), (-2 * self.mu * place * rate - 1, self.mu * (1 - place**2))
        return torch.stack([torch.stack(first, dim=1), torch.stack(second, dim=1)], dim=1)


build = VanDerPol
