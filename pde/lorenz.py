r"""Lorenz's convection of three modes, chaotic at the published parameters: (x, y, z)(0) -> (x, y, z) at later times.

.. math:: \dot x = \sigma (y - x),\quad \dot y = x (\rho - z) - y,\quad \dot z = x y - \beta z

x, y, z   amplitudes of flow and temperature  [1]
sigma     Prandtl number                      [1]  given: 10
rho       Rayleigh number over its critical   [1]  given: 28
beta      of the geometry                     [1]  given: 8/3

Lorenz 1963. Time has no unit; errors grow as exp(0.906 t), so that no solver in double precision knows the state after
t = 40. Volumes shrink at the rate sigma + 1 + beta; on the z-axis z = z(0) exp(-beta t); x, y -> -x, -y is a symmetry.

Law of the states: on the attractor, by ``warm_up`` units of time from a box around it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor

from ._grid import Grid
from ._periodic import check_not_negative, check_positive
from ._problem import Channel, Setup, Signature
from ._system import State, System, uniform

WARM_STEP = 0.005  # of the classical method of order 4, to get onto the attractor


@dataclass(frozen=True, kw_only=True)
class Lorenz(System):
    """Two wings, a Lyapunov time of 1.1."""

    sigma: float = 10.0
    rho: float = 28.0
    beta: float = 8 / 3
    warm_up: float = 10.0  # time before the first state
    frames: int = 50
    spacing: float = 0.04  # time between frames

    setups: ClassVar[Mapping[str, Setup]] = {
        "quick": Setup(resolution=2, train=256, validation=16, test=32),
        "paper": Setup(resolution=2, train=1000, validation=100, test=200),
    }
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "lorenz_1963": {"sigma": 10.0, "rho": 28.0, "beta": 8 / 3},
    }

    def __post_init__(self) -> None:
        check_positive(sigma=self.sigma, beta=self.beta, frames=self.frames, spacing=self.spacing)
        check_not_negative(warm_up=self.warm_up)
        if not math.isfinite(self.rho):
            raise ValueError(f"rho is finite, got {self.rho}.")

    @property
    def signature(self) -> Signature:
        state = (Channel("x"), Channel("y"), Channel("z"))
        return Signature(state, state, self.frames, self.spacing)

    def sample(self, count: int, grid: Grid, *, generator: Generator) -> Tensor:
        state = uniform(count, (-15.0, -20.0, 10.0), (15.0, 20.0, 40.0), generator)
        for _ in range(math.ceil(self.warm_up / WARM_STEP)):
            state = self._step(state, WARM_STEP)
        return state

    def _step(self, state: State, dt: float) -> State:
        k1 = self.slope(state)
        k2 = self.slope(state + 0.5 * dt * k1)
        k3 = self.slope(state + 0.5 * dt * k2)
        k4 = self.slope(state + dt * k3)
        return state + dt / 6 * (k1 + 2 * (k2 + k3) + k4)

    def slope(self, state: State) -> State:
        x, y, z = state.unbind(dim=1)
        return torch.stack([self.sigma * (y - x), x * (self.rho - z) - y, x * y - self.beta * z], dim=1)


build = Lorenz
