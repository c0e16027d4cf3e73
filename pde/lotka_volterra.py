r"""Prey and predators (Lotka, Volterra): one grows and is eaten, the other eats and dies.

.. math:: \dot x = \alpha x - \beta x y,\qquad \dot y = \delta x y - \gamma y

x       prey                       [1]
y       predators                  [1]
alpha   growth of prey             [1/s]  given: 1.5
beta    prey eaten per predator    [1/s]  given: 1
delta   growth of predators        [1/s]  given: 1
gamma   death of predators         [1/s]  given: 3

Every orbit is closed: :math:`\delta x - \gamma \ln x + \beta y - \alpha \ln y` stays what it was, and numbers positive.

Law of the states: both uniform in [smallest, largest]; ours. The parameters are those of the common demonstration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor

from ._grid import Grid
from ._periodic import check_positive
from ._problem import Channel, Setup, Signature
from ._system import State, System, uniform


@dataclass(frozen=True, kw_only=True)
class LotkaVolterra(System):
    """Periodic orbits, each with a period of its own."""

    alpha: float = 1.5  # growth of prey [1/s]
    beta: float = 1.0  # prey eaten per predator [1/s]
    delta: float = 1.0  # growth of predators per prey [1/s]
    gamma: float = 3.0  # death of predators [1/s]
    smallest: float = 0.5  # of the initial numbers
    largest: float = 4.0  # of the initial numbers
    frames: int = 50
    spacing: float = 0.1  # time between frames [s]

    setups: ClassVar[Mapping[str, Setup]] = {
        "quick": Setup(resolution=2, train=128, validation=16, test=32),
        "paper": Setup(resolution=2, train=1000, validation=100, test=200),
    }
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def __post_init__(self) -> None:
        check_positive(**{name: getattr(self, name) for name in ("alpha", "beta", "delta", "gamma", "smallest")})
        check_positive(frames=self.frames, spacing=self.spacing)
        if not self.smallest < self.largest:
            raise ValueError(f"smallest must be below largest, got {self.smallest} and {self.largest}.")

    @property
    def signature(self) -> Signature:
        state = (Channel("prey"), Channel("predators"))
        return Signature(state, state, self.frames, self.spacing, "s")

    def sample(self, count: int, grid: Grid, *, generator: Generator) -> Tensor:
        return uniform(count, (self.smallest,) * 2, (self.largest,) * 2, generator)

    def check(self, state: State) -> None:
        bad = (state < 0).any(dim=1).nonzero().flatten().tolist()
        if bad:
            raise ValueError(f"Numbers of prey and predators are not negative; they are in sample(s) {bad[:8]}.")

    def slope(self, state: State) -> State:
        prey, predators = state.unbind(dim=1)
        meet = prey * predators
        return torch.stack([self.alpha * prey - self.beta * meet, self.delta * meet - self.gamma * predators], dim=1)


build = LotkaVolterra
