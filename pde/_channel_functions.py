r"""Functions of a channel [0, L] x [0, 1] with a disc in it, that satisfy conditions by their form.

.. math:: \text{waves } \cos(i\pi x/L)\cos(j\pi y),\qquad
          \text{rings } \cos(k\pi s)\,\{\cos, \sin\}(m\theta)\,(1-s)^3,\quad s = \frac{r - R}{R_1 - R},\; r < R_1

rings       live around the disc up to R1, short of the nearest wall: what is small there would take many waves. Times
            s or s², they vanish on it, with their slopes
held        vanishes on inlet, walls and disc, and nowhere else: x / (x + 0.3), 4 y (1 - y), d / (1 + d) with
            d = (r/R)² - 1. A wave times its first or second power vanishes there, with its slopes
core        1 on the disc, with slope zero, and 0 from three radii on: a stream function is some constant there
streams     (1 - core) (1 - cos(k pi y)) / (k pi): flows sin(k pi y) that come in, around the disc

Rvachev's functions of the domain, Kantorovich and Krylov 1958; all are smooth functions of the points, so that forward
differentiation tells their derivatives.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ._eigenfunctions import family

ENTRY = 0.3  # over which the factor of the inlet grows [m]
REACH = 0.95  # of the rings, in parts of the way from the disc's centre to the nearest wall
SHIELD = 3.0  # where the core ends [radii]

Points = Float[Tensor, "point 2"]
Values = Float[Tensor, "point _"]


@dataclass(frozen=True)
class Channel:
    """The domain; ``radius`` 0: no disc."""

    length: float
    centre: tuple[float, float]
    radius: float

    def waves(self, points: Points, along: int, across: int) -> Values:
        x, y = points[:, 0] / self.length, points[:, 1]
        return _products(family("cosine", along, x, 0), family("cosine", across, y, 0))

    def held(self, points: Points) -> Float[Tensor, "point 1"]:
        x, y = points[:, 0], points[:, 1]
        factor = (1 + ENTRY) * x / (x + ENTRY) * 4 * y * (1 - y)
        if self.radius:
            beyond = (self._away(points).square().sum(dim=1) / self.radius**2) - 1
            factor = factor * beyond / (1 + beyond)
        return factor[:, None]

    def rings(self, points: Points, along: int, around: int, *, power: int) -> Values:
        """``along`` waves of the radius times 2 ``around`` + 1 of the angle, times s to the ``power``."""
        if not self.radius:
            return points[:, :0]
        away = self._away(points)
        distance = away.square().sum(dim=1).sqrt()
        room = REACH * min(self.centre[0], self.centre[1], 1 - self.centre[1])
        s = (distance - self.radius) / (room - self.radius)
        radial = family("cosine", along, s, 0) * ((1 - s).clamp_min(0) ** 3 * s**power)[:, None]
        return _products(radial, _angular(away / distance[:, None], around))

    def core(self, points: Points) -> Values:
        if not self.radius:
            return points[:, :0]
        distance = self._away(points).square().sum(dim=1).sqrt()
        s = ((distance / self.radius - 1) / (SHIELD - 1)).clamp(0, 1)
        return (1 - s**3 * (10 - 15 * s + 6 * s**2))[:, None]

    def streams(self, points: Points, count: int) -> Values:
        number = math.pi * torch.arange(1, count + 1, dtype=points.dtype, device=points.device)
        profile = (1 - torch.cos(points[:, 1:] * number)) / number
        return profile * (1 - self.core(points)) if self.radius else profile

    def _away(self, points: Points) -> Points:
        return points - points.new_tensor(self.centre)


def _products(first: Values, second: Values) -> Values:
    return (first[:, :, None] * second[:, None]).flatten(1)


def _angular(direction: Points, around: int) -> Values:
    """1, cos(m theta) and sin(m theta) by Chebyshev's recurrences."""
    x, y = direction.unbind(1)
    cosines, sines = [torch.ones_like(x), x], [torch.zeros_like(x), y]
    for _ in range(2, around + 1):
        cosines.append(2 * x * cosines[-1] - cosines[-2])
        sines.append(2 * x * sines[-1] - sines[-2])
    return torch.stack([*cosines[: around + 1], *sines[1 : around + 1]], dim=1)
