r"""Values between the nodes: :math:`u(x) \approx \sum_c w_c(x)\, u_c` over the corners of the cell that holds x.

Multilinear, error :math:`h^2/8\,\max|u''|` per axis; exact at nodes. Periodic axes close; beyond the last centre of an
axis without nodes at its ends the slope of the last cell is continued.
"""

from __future__ import annotations

import itertools

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..pde import Axis, Grid, Signature


def nodes(signature: Signature, grid: Grid) -> Float[Tensor, "point dim"]:
    """All nodes; of an evolution all frames of all nodes, the initial state first, with the time as last column."""
    space = grid.mesh().flatten(1).T
    if not signature.evolves:
        return space
    times = torch.tensor((0.0, *signature.times), dtype=torch.float64)
    return torch.cat([space.repeat(len(times), 1), times.repeat_interleave(len(space))[:, None]], dim=1)


def at_points(
    values: Float[Tensor, "*rest"], grid: Grid, points: Float[Tensor, "point dim"]
) -> Float[Tensor, "*found"]:
    """Fields ``… *space`` at points [the grid's units]: ``… point``."""
    index, weight = corners(grid, points)
    flat = values.flatten(-grid.dim)
    return (flat[..., index.to(flat.device)] * weight.to(flat)).sum(dim=-1)


def corners(
    grid: Grid, points: Float[Tensor, "point dim"]
) -> tuple[Int64[Tensor, "point corner"], Float[Tensor, "point corner"]]:
    """Numbers of the surrounding nodes in the flattened grid, and their weights."""
    ends = [_ends(axis, points[:, i].double()) for i, axis in enumerate(grid.axes)]
    indices, weights = [], []
    for corner in itertools.product((0, 1), repeat=grid.dim):
        number = torch.zeros(len(points), dtype=torch.int64)
        weight = torch.ones(len(points), dtype=torch.float64)
        for axis, (low, high, part), side in zip(grid.axes, ends, corner, strict=True):
            number = number * axis.size + (high if side else low)
            weight = weight * (part if side else 1 - part)
        indices.append(number)
        weights.append(weight)
    return torch.stack(indices, dim=1), torch.stack(weights, dim=1)


def _ends(axis: Axis, x: Float[Tensor, " point"]) -> tuple[Tensor, Tensor, Tensor]:
    """Nodes on both sides along one axis, and how far from the lower to the upper."""
    place = (x - float(axis.coordinates()[0])) / axis.spacing
    nearest = place.round()
    place = torch.where((place - nearest).abs() < 1e-9, nearest, place)  # a node is itself, whatever rounding says
    low = place.floor().clamp(0, axis.size - 1 if axis.periodic else axis.size - 2).long()
    return low, (low + 1) % axis.size, place - low
