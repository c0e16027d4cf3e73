r"""Fields carried from one grid of a domain to another, axis by axis, each by a matrix that fits its boundary.

Two different things:

``restrict``   samples of the same function on a coarser grid, to train on: the Fourier series cut off on periodic axes,
               the shared nodes where both ends are nodes, means of cells where nodes are centres of cells
``resample``   any other grid, to serve it: ``fourier`` the trigonometric series through the nodes (between walls the
               cosine series), cut off or continued; ``cubic`` splines (not-a-knot, or periodic); ``linear``

Series are exact for what both grids carry, splines for cubics, linear interpolation for straight lines.
"""

from __future__ import annotations

import functools
import math
from typing import Literal

import torch
from jaxtyping import Float
from scipy.interpolate import CubicSpline
from torch import Tensor

from ..pde import Axis, Grid, fourier_resample

Kind = Literal["fourier", "cubic", "linear"]


def restrict(fields: Float[Tensor, "... *space"], source: Grid, target: Grid) -> Tensor:
    """Differentiable. Raises ``ValueError`` where the target is not a coarser grid of that kind."""
    return _each_axis(fields, source, target, _restriction)


def resample(fields: Float[Tensor, "... *space"], source: Grid, target: Grid, kind: Kind) -> Tensor:
    """Differentiable. Raises ``ValueError`` for grids of different domains."""
    return _each_axis(fields, source, target, functools.partial(_interpolation, kind=kind))


def coarser(grid: Grid, nodes: int) -> Grid:
    """The grid with ``nodes`` on its first axis and the other axes in proportion, if that is a restriction of it."""
    cells = [axis.size - (axis.placement == "ends") for axis in grid.axes]
    wanted = nodes - (grid.axes[0].placement == "ends")
    ratios = [n * wanted / cells[0] for n in cells]
    sizes = [round(n) + (axis.placement == "ends") for n, axis in zip(ratios, grid.axes, strict=True)]
    if any(abs(n - round(n)) > 1e-9 for n in ratios) or min(sizes) < 2:
        raise ValueError(f"A grid {grid.shape} with {nodes} nodes on its first axis has no whole number on the others.")
    target = grid.at(sizes)
    for mine, other in zip(grid.axes, target.axes, strict=True):
        _restriction(mine, other)
    return target


def _each_axis(fields: Tensor, source: Grid, target: Grid, matrix_of: object) -> Tensor:
    for place, (old, new) in enumerate(zip(source.axes, target.axes, strict=True), start=-source.dim):
        if (old.lower, old.upper, old.boundary, old.placement) != (new.lower, new.upper, new.boundary, new.placement):
            raise ValueError(f"Fields are carried between grids of one domain; got {old} and {new}.")
        if old.size != new.size:
            matrix = matrix_of(old, new).to(fields)  # type: ignore[operator]
            fields = (fields.movedim(place, -1) @ matrix.T).movedim(-1, place)
    return fields


@functools.lru_cache(maxsize=64)
def _restriction(old: Axis, new: Axis) -> Float[Tensor, "new old"]:
    cells, coarse = (axis.size - (axis.placement == "ends") for axis in (old, new))
    if new.size > old.size or (not old.periodic and cells % coarse):
        served = [n + (old.placement == "ends") for n in range(2, cells) if cells % n == 0]
        raise ValueError(
            f"Axis {old.name!r} has {old.size} nodes placed {old.placement!r}; they are restricted to fewer, "
            f"{'any number' if old.periodic else f'one of {served}'}, not to {new.size}."
        )
    identity = torch.eye(old.size, dtype=torch.float64)
    if old.periodic:
        return fourier_resample(identity, (new.size,)).T
    if old.placement == "ends":
        return identity[:: cells // coarse]
    return identity.unflatten(0, (new.size, -1)).mean(dim=1)


@functools.lru_cache(maxsize=64)
def _interpolation(old: Axis, new: Axis, *, kind: Kind) -> Float[Tensor, "new old"]:
    identity = torch.eye(old.size, dtype=torch.float64)
    if kind == "fourier":
        return fourier_resample(identity, (new.size,)).T if old.periodic else _cosines(old, new)
    if old.periodic:  # the first node closes the circle
        identity = torch.cat([identity, identity[:1]])
    nodes = [*old.coordinates().tolist(), *([old.upper] if old.periodic else [])]
    wanted = new.coordinates().numpy()
    if kind == "linear":
        return _lines(torch.tensor(nodes, dtype=torch.float64), torch.from_numpy(wanted), identity)
    if len(nodes) < 4:
        raise ValueError(f"A cubic spline needs at least 4 nodes, axis {old.name!r} has {old.size}.")
    ends = "periodic" if old.periodic else "not-a-knot"
    return torch.from_numpy(CubicSpline(nodes, identity.numpy(), bc_type=ends)(wanted))


def _cosines(old: Axis, new: Axis) -> Float[Tensor, "new old"]:
    """Interpolation by cos(pi k (x - lower) / length), k = 0 … n-1, through ends or centres."""
    kept = min(old.size, new.size)

    def basis(axis: Axis) -> Tensor:
        x = (axis.coordinates() - axis.lower) / axis.length
        return torch.cos(math.pi * x[:, None] * torch.arange(old.size))

    return basis(new)[:, :kept] @ torch.linalg.inv(basis(old))[:kept]


def _lines(nodes: Tensor, wanted: Tensor, values: Tensor) -> Float[Tensor, "new old"]:
    """Straight lines between neighbours, continued beyond the first and the last (centres of cells)."""
    right = torch.searchsorted(nodes, wanted).clamp(1, len(nodes) - 1)
    share = ((wanted - nodes[right - 1]) / (nodes[right] - nodes[right - 1]))[:, None]
    return (1 - share) * values[right - 1] + share * values[right]
