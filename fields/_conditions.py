r"""Values on faces that hold exactly: a lift g that has them and a distance d that vanishes there, u = g + d N.

g is the Boolean sum of blendings along the axes, :math:`1 - \prod_j (1 - P_j)`, where P_j carries the values of the
faces of axis j into the box: linearly between two faces, constantly from one. Between the nodes of a face its values
are a tensor-product spline of degree up to 7 (periodic axes: a trigonometric interpolant). d is the product over faces
of the distances to them, 4 s (1 - s) between two, s beside one (s from 0 to 1): its slope at a face is not zero.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from scipy.interpolate import make_interp_spline
from torch import Tensor, nn

from ..pde import Axis, Condition, Grid
from ._activations import cosine_of, sine
from ._jet import Jet, joined

DEGREE = 7  # of splines: 6 continuous derivatives, order 8


class AxisBasis(nn.Module):
    """Cardinal functions of the nodes of an axis (1 at one, 0 at the others) as combinations of basis functions."""

    knots: Tensor
    to_coefficients: Tensor  # basis node

    def __init__(self, axis: Axis) -> None:
        super().__init__()
        self.axis = axis
        self.degree = 0 if axis.periodic else min(DEGREE, axis.size - 1)
        knots, matrix = _trigonometric(axis) if axis.periodic else _spline(axis, self.degree)
        self.register_buffer("knots", torch.from_numpy(knots))
        self.register_buffer("to_coefficients", torch.from_numpy(matrix))

    def forward(self, x: Jet) -> Jet:
        """One channel in, one a node out."""
        basis = self._waves(x) if self.axis.periodic else self._pieces(x)
        return basis.linear(self.to_coefficients.t())

    def _waves(self, x: Jet) -> Jet:
        angles = (x + -self.axis.lower) * (2 * math.pi / self.axis.length) * self.knots
        return joined([angles.through(cosine_of), angles.through(sine(1.0))])

    def _pieces(self, x: Jet) -> Jet:
        """Cox and de Boor's recursion; at the ends, and outside, the polynomials of the last pieces."""
        t, k = self.knots, self.degree
        place = torch.searchsorted(t[k + 1 : -k - 1].contiguous(), x.value.detach()[:, 0].contiguous(), right=True) + k
        one = torch.nn.functional.one_hot(place, len(t) - 1).to(x.orders)
        basis = x * 0.0 + one
        for p in range(1, k + 1):
            left, right = t[p:-1] - t[: -p - 1], t[p + 1 :] - t[1:-p]
            a, b = _inverse(left), _inverse(right)
            rising = (x * torch.ones_like(a) - t[: -p - 1]) * a
            falling = ((x * -1.0) * torch.ones_like(b) + t[p + 1 :]) * b
            count = len(t) - 1 - p
            basis = rising * basis.select(slice(0, count)) + falling * basis.select(slice(1, count + 1))
        return basis


def _inverse(width: Tensor) -> Tensor:
    return torch.where(width > 0, 1 / width.where(width > 0, torch.ones_like(width)), torch.zeros_like(width))


def _spline(axis: Axis, degree: int) -> tuple[np.ndarray, np.ndarray]:
    nodes = axis.coordinates().numpy()
    spline = make_interp_spline(nodes, np.eye(axis.size), k=degree)
    return np.ascontiguousarray(spline.t, dtype=float), np.ascontiguousarray(spline.c, dtype=float)


def _trigonometric(axis: Axis) -> tuple[np.ndarray, np.ndarray]:
    """Wave numbers, and cosine and sine coefficients of the trigonometric interpolant of each node."""
    n = axis.size
    waves = np.arange(n // 2 + 1, dtype=float)
    angles = 2 * np.pi * np.outer(waves, np.arange(n)) / n
    weights = np.where((waves == 0) | (2 * waves == n), 1.0, 2.0)[:, None] / n
    return waves, np.concatenate([weights * np.cos(angles), weights * np.sin(angles)])


class Lift(nn.Module):
    """The pair (g, d) of conditions on faces, as jets."""

    def __init__(self, domain: Grid, conditions: Sequence[Condition]) -> None:
        super().__init__()
        if any(condition.order for condition in conditions):
            raise ValueError("Values (order 0) are imposed by a lift; derivatives on faces are not.")
        self.domain = domain
        self.ends: dict[int, list[str]] = {}
        self.bases = nn.ModuleList([AxisBasis(axis) for axis in domain.axes])
        for condition in conditions:
            if domain.axes[condition.axis].periodic:
                raise ValueError(f"Axis {domain.axes[condition.axis].name!r} is periodic: it has no face for a value.")
            self.ends.setdefault(condition.axis, []).append(condition.end)
            self.register_buffer(
                f"face_{condition.axis}_{condition.end}", condition.values.detach().double().squeeze(0)
            )

    def forward(self, at: Jet) -> tuple[Jet, Jet]:
        units = [self._unit(at, j) for j in range(self.domain.dim)]
        return self._values(at, units), self._distance(units)

    def _unit(self, at: Jet, j: int) -> Jet:
        axis = self.domain.axes[j]
        return (at.select(slice(j, j + 1)) + -axis.lower) * (1 / axis.length)

    def _distance(self, units: Sequence[Jet]) -> Jet:
        factor = units[0] * 0.0 + 1.0
        for j, ends in self.ends.items():
            both = set(ends) == {"lower", "upper"}
            for end in set(ends):
                factor = factor * (_toward(units[j], end) * (2.0 if both else 1.0))
        return factor

    def _values(self, at: Jet, units: Sequence[Jet]) -> Jet:
        """Inclusion and exclusion over the axes that have faces."""
        total = units[0] * 0.0
        if not any(bool(buffer.any()) for name, buffer in self.named_buffers() if name.startswith("face_")):
            return total
        cardinal = [basis(at.select(slice(j, j + 1))) for j, basis in enumerate(self.bases)]
        axes = sorted(self.ends)
        for count in range(1, len(axes) + 1):
            for chosen in itertools.combinations(axes, count):
                for ends in itertools.product(*(self.ends[j] for j in chosen)):
                    part = self._corner(cardinal, dict(zip(chosen, ends, strict=True)))
                    for j, end in zip(chosen, ends, strict=True):
                        if len(self.ends[j]) == 2:
                            part = part * _toward(units[j], "upper" if end == "lower" else "lower")
                    total = total + part * (-1.0) ** (count + 1)
        return total

    def _corner(self, cardinal: Sequence[Jet], at: dict[int, str]) -> Jet:
        """The values where these faces meet, between the nodes of what is left of the grid."""
        (first, end), *others = at.items()
        values = cast(Tensor, getattr(self, f"face_{first}_{end}"))
        left = [j for j in range(self.domain.dim) if j != first]
        for j, side in others:
            values = values.select(left.index(j), 0 if side == "lower" else -1)
            left.remove(j)
        if not left:
            return cardinal[0].select(slice(0, 1)) * 0.0 + values
        if len(left) == 1:
            return cardinal[left[0]].linear(values[None])
        return (cardinal[left[0]].linear(values.t()) * cardinal[left[1]]).sum()


def _toward(unit: Jet, end: str) -> Jet:
    """Distance from an end, in lengths of the axis."""
    return unit if end == "lower" else unit * -1.0 + 1.0
