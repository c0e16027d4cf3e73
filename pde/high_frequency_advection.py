r"""Advection :math:`c\,u_x + u_t = f` in the space-time square, from initial and inflow data only; (f, g) -> u.

f     source                                  [1]   given; zero for the published instance
g     values at x = 0 and at t = 0            [1]   given; zero elsewhere, also at the outflow x = 1 and at t = 1
u     concentration                           [1]   sought
c     velocity                                [1]   200, so that a wave passes the box 32 times

Non-dimensional; t is an axis of the grid like x. The instance of Fang et al. (ICLR 2024) is u = sin(x - 200 t) on the
unit square; they hand the solver all four sides, which a causal equation does not need, and report that it fails from
initial data. Each draw has another amplitude and phase; ``spread`` 0, as in the preset, is the published instance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Generator

from ._grid import Axis, Boundary, Grid
from ._high_frequency import HighFrequency
from ._manufactured import QUARTER, Manufactured, Product, Wave, cosine, sine
from ._problem import Setup


@dataclass(frozen=True, kw_only=True)
class HighFrequencyAdvection(HighFrequency):
    """Transport as one space-time equation."""

    velocity: float = 200.0  # c > 0

    setups: ClassVar[Mapping[str, Setup]] = {
        "quick": Setup(resolution=200, train=16, validation=4, test=4),
        "paper": Setup(resolution=200, train=128, validation=16, test=16),
    }
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"adv": {"spread": 0.0}}

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.velocity < math.inf:
            raise ValueError(f"velocity must be positive and finite (inflow is at x = 0), got {self.velocity}.")

    @property
    def solution(self) -> Manufactured:
        return self._wave(1.0, 0.0)

    def _wave(self, amplitude: float, phase: float) -> Manufactured:
        """Amplitude times sin(x - c t + phase) = sin(x + phase) cos c t - cos(x + phase) sin c t."""
        shifted = (Wave(1.0, phase), Wave(1.0, phase + QUARTER))
        c = self.velocity
        return Manufactured((Product(amplitude, (shifted[0], cosine(c))), Product(-amplitude, (shifted[1], sine(c)))))

    def drawn(self, generator: Generator) -> Manufactured:
        normal = float(torch.randn((), dtype=torch.float64, generator=generator))
        turn = 2 * float(torch.rand((), dtype=torch.float64, generator=generator)) - 1
        return self._wave(1 + self.spread * normal, self.spread * math.pi * turn)

    @property
    def terms(self) -> tuple[tuple[tuple[int, ...], float], ...]:
        return (((1, 0), self.velocity), ((0, 1), 1.0))

    def grid(self, resolution: int | Sequence[int]) -> Grid:
        nx, nt = (resolution,) * 2 if isinstance(resolution, int) else tuple(resolution)
        open_end: tuple[Boundary, Boundary] = ("dirichlet", "outflow")
        return Grid((Axis("x", nx, 0.0, 1.0, open_end, "ends"), Axis("t", nt, 0.0, 1.0, open_end, "ends")))


build = HighFrequencyAdvection
