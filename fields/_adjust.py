r"""Inductive gradient adjustment: the slow directions of the tangent kernel learn as fast as a chosen one (ICML 2025).

.. math:: K = J J^T = \sum_i \lambda_i v_i v_i^T,\qquad
          S = I - \sum_{i<q}\Bigl(1-\frac{\lambda_q}{\lambda_i}\Bigr)v_iv_i^T,
          \qquad \tilde r_j = S r_j

Points are put into groups of neighbours; K (groups x groups) is that of one point of each group, the middle one, and
the same S acts on the j-th points of all groups. The gradient of :math:`\frac2N\sum f\,\tilde r` replaces that of the
mean square, with no derivative through S. ``leading = 0`` is the plain gradient (Shi et al. 2025).
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ._field import Field

ROWS = 64  # points whose gradients are made at once


@dataclass(frozen=True, kw_only=True)
class Adjustment:
    """groups: of points; leading: eigenvalues that are lowered to the next one."""

    groups: int = 64
    leading: int = 15
    members: Tensor | None = dataclasses.field(default=None, repr=False)  # group member, once points are known

    def __post_init__(self) -> None:
        if self.groups < 1 or not 0 <= self.leading < self.groups:
            raise ValueError(f"0 <= leading < groups is needed, got {self.leading} and {self.groups}.")

    def on(self, points: Float[Tensor, "point dim"]) -> Adjustment:
        """The groups of these points: boxes by repeated halving of the longest side, equal to one point."""
        if self.groups > len(points):
            raise ValueError(f"{self.groups} groups need as many points, got {len(points)}.")
        parts = [torch.arange(len(points))]
        while len(parts) < self.groups:
            part = parts.pop(max(range(len(parts)), key=lambda i: len(parts[i])))
            spread = points[part].max(dim=0).values - points[part].min(dim=0).values
            order = part[points[part, int(spread.argmax())].argsort(stable=True)]
            parts += [order[: len(order) // 2], order[len(order) // 2 :]]
        size = max(len(part) for part in parts)
        ordered = [_middle_first(part, points) for part in parts]
        # -1: no member, in groups smaller than the largest
        padded = [torch.cat([part, part.new_full((size - len(part),), -1)]) for part in ordered]
        return dataclasses.replace(self, members=torch.stack(padded))

    def loss(self, field: Field, points: Tensor, values: Tensor, residual: Tensor) -> Tensor:
        """The scalar whose gradient is the adjusted one of the mean square of the residual of these values."""
        if self.members is None:
            raise ValueError("Points are grouped first: use .on(points).")
        matrix = self.matrix(tangent_kernel(field, points[self.members[:, 0]]))
        return 2 * (values * self.apply(matrix, residual.detach())).mean()

    def matrix(self, kernel: Float[Tensor, "group group"]) -> Float[Tensor, "group group"]:
        """S: the leading eigenvalues of S K equal the next one."""
        values, vectors = torch.linalg.eigh(kernel.double())  # ascending
        count = self.leading
        identity = torch.eye(len(kernel), dtype=values.dtype, device=values.device)
        if not count:
            return identity
        top, basis = values[-count:], vectors[:, -count:]
        target = values[-count - 1]
        return identity - (basis * (1 - target / top)) @ basis.t()

    def apply(self, matrix: Tensor, residual: Float[Tensor, "point channel"]) -> Float[Tensor, "point channel"]:
        """S across the groups, for each member; absent members count as zero."""
        members: Tensor = self.members  # type: ignore[assignment] # set by on()
        present = members >= 0
        grouped = residual[members.clamp_min(0)] * present[..., None]
        mixed = torch.einsum("gh,hjc->gjc", matrix.to(residual), grouped)
        adjusted = torch.zeros_like(residual)
        adjusted[members[present]] = mixed[present]
        return adjusted


def _middle_first(part: Tensor, points: Tensor) -> Tensor:
    """The member nearest to the centre of the group leads it."""
    centre = points[part].mean(dim=0)
    nearest = int((points[part] - centre).square().sum(dim=1).argmin())
    return torch.cat([part[nearest : nearest + 1], part[:nearest], part[nearest + 1 :]])


def tangent_kernel(field: Field, points: Float[Tensor, "point dim"]) -> Float[Tensor, "point point"]:
    r"""K = J J^T of the sum of the channels over the root of their number, by gradients of single points."""
    named = {name: value.detach() for name, value in field.named_parameters()}

    def of_one(values: dict[str, Tensor], point: Tensor) -> Tensor:
        jet = torch.func.functional_call(field, values, (point[None],), {"extrapolate": True})
        return jet.sum() / math.sqrt(jet.shape[1])

    rows = []
    for part in points.split(ROWS):
        gradients = torch.func.vmap(torch.func.grad(of_one), in_dims=(None, 0))(named, part)
        rows.append(torch.cat([_real(g).flatten(1) for g in gradients.values()], dim=1).detach())
    jacobian = torch.cat(rows).double()
    return jacobian @ jacobian.t()


def _real(values: Tensor) -> Tensor:
    return torch.view_as_real(values) if values.is_complex() else values
