r"""Damped spiral, cubes component by component: (x, y)(0) -> (x, y) at later times.

.. math:: \dot y = A\, y^3,\qquad A = \begin{pmatrix} -a & \omega \\ -\omega & -a \end{pmatrix}

x, y    coordinates  [1]
a       damping      [1/s]  given: 0.1
omega   rotation     [1/s]  given: 2

The demonstration of neural ordinary differential equations (Chen et al. 2018; in torchdiffeq's examples from (2, 0) up
to t = 25 in 1000 points): turns are slow near the axes and the centre. :math:`x^4 + y^4` falls, at the rate
:math:`-4a (x^6 + y^6)`; without damping it stays what it was.

Law of the states: radius uniform in [inner, outer], angle uniform; ours (the demonstration has one state).
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
from ._system import State, System


@dataclass(frozen=True, kw_only=True)
class Spiral(System):
    """Two unknowns, a slow inward spiral."""

    damping: float = 0.1  # a [1/s]
    rotation: float = 2.0  # omega [1/s]
    inner: float = 1.0  # smallest initial radius
    outer: float = 2.0  # largest initial radius
    frames: int = 50
    spacing: float = 0.1  # time between frames [s]

    setups: ClassVar[Mapping[str, Setup]] = {
        "quick": Setup(resolution=2, train=128, validation=16, test=32),
        "paper": Setup(resolution=2, train=1000, validation=100, test=200),
    }
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "torchdiffeq_demo": {"damping": 0.1, "rotation": 2.0, "frames": 999, "spacing": 25 / 999},
    }

    def __post_init__(self) -> None:
        check_not_negative(damping=self.damping)
        check_positive(inner=self.inner, frames=self.frames, spacing=self.spacing)
        if not self.inner <= self.outer < math.inf or not math.isfinite(self.rotation):
            raise ValueError(f"inner <= outer and rotation is finite; got {self.inner}, {self.outer}, {self.rotation}.")

    @property
    def signature(self) -> Signature:
        state = (Channel("x"), Channel("y"))
        return Signature(state, state, self.frames, self.spacing, "s")

    def sample(self, count: int, grid: Grid, *, generator: Generator) -> Tensor:
        share, turn = torch.rand(2, count, generator=generator, dtype=torch.float64)
        radius, angle = self.inner + (self.outer - self.inner) * share, 2 * math.pi * turn
        return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)

    def slope(self, state: State) -> State:
        x, y = (state**3).unbind(dim=1)
        a, w = self.damping, self.rotation
        return torch.stack([w * y - a * x, -w * x - a * y], dim=1)


build = Spiral
