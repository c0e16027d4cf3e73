r"""Patches of fixed physical size: local integrals of a field over them, and functions made of them, on any grid.

A field known at the nodes of an axis is read as its piecewise linear interpolant I_h v (wrapped on periodic axes;
between a wall and outermost nodes that are cell centres it is continued linearly). On patches p_t that tile the axis::

    moments   m_{t,k} = 1/|p_t| int_{p_t} e_k(xi) I_h v dx       xi from -1 to 1 across p_t, e_k = sqrt(2k+1) P_k
    blend     u(x) = sum_t chi_t(x) sum_k c_{t,k} e_k(eta_t)     chi_t hats over the patch centres, sum_t chi_t = 1,
                                                                 eta_t from -1 to 1 across the support of chi_t

P_k are Legendre polynomials, k < ``degrees``. Moments are *exact* integrals of I_h v, so they meet those of v with the
order 2 of the interpolant wherever the edges of patches lie between the nodes, and a kernel sum_k w_k e_k is one
function at every resolution. Blended functions are evaluated at the nodes: that makes no error at all.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from numpy.polynomial.legendre import leggauss, legvander
from torch import Tensor, nn

from ..pde import Grid
from ..pde._grid import Axis

Edges = tuple[float, ...]  # of the patches of an axis, from 0 to 1, in lengths of the axis
Vector = np.ndarray


def tiles(count: int) -> Edges:
    """Equal patches."""
    return tuple(t / count for t in range(count + 1))


def tiles_of_length(length: float, grid: Grid) -> tuple[Edges, ...]:
    """Patches with this physical length on every axis [unit of the grid]; the last is what remains."""
    every = []
    for axis in grid.axes:
        whole = math.ceil(axis.length / length - 1e-9)
        every.append((*(t * length / axis.length for t in range(whole)), 1.0))
    return tuple(every)


@functools.lru_cache(maxsize=128)
def moments(axis: Axis, edges: Edges, degrees: int) -> Float[Tensor, "coefficient node"]:
    """Node values to moments, ``coefficient`` = patch * degrees + k; double precision."""
    start, width = np.array(edges[:-1]), np.diff(edges)
    nodes = _nodes(axis)
    breaks = np.unique(np.concatenate([np.array(edges), nodes[(nodes > 0) & (nodes < 1)]]))
    patch = np.searchsorted(start, 0.5 * (breaks[1:] + breaks[:-1]), side="right") - 1
    gauss, weight = leggauss(degrees // 2 + 1)  # exact for e_k times a line
    half = 0.5 * np.diff(breaks)[:, None]
    x = breaks[:-1, None] + half * (1 + gauss)
    local = _legendre(2 * (x - start[patch, None]) / width[patch, None] - 1, degrees)
    local *= (half * weight / width[patch, None])[..., None]
    left, right, share = _between(axis, x)
    table = np.zeros((len(start), axis.size, degrees))
    for node, part in ((left, 1 - share), (right, share)):
        np.add.at(table, (np.broadcast_to(patch[:, None], x.shape), node), local * part[..., None])
    return _tensor(table.transpose(0, 2, 1).reshape(-1, axis.size))


@functools.lru_cache(maxsize=128)
def blend(axis: Axis, edges: Edges, degrees: int) -> Float[Tensor, "node coefficient"]:
    """Coefficients to values at the nodes; on an axis with walls the outermost hats are 1 up to the wall."""
    centres = 0.5 * (np.array(edges[1:]) + np.array(edges[:-1]))
    count, x = len(centres), _nodes(axis)
    table = np.zeros((len(x), count, degrees))
    rows = np.arange(len(x))
    if count == 1 and not axis.periodic:
        return _tensor(_legendre(2 * (x - 0.5), degrees))
    around = np.concatenate([centres[-1:] - 1, centres, centres[:1] + 1])  # with the neighbours across the period
    gaps = np.diff(around)
    if not axis.periodic:
        gaps[0], gaps[-1] = centres[0], 1 - centres[-1]
    reach = np.maximum(gaps[1:], gaps[:-1])
    left = np.clip(np.searchsorted(around, x, side="right") - 1, 0, count)
    share = (x - around[left]) / (around[left + 1] - around[left])
    if not axis.periodic:
        share = np.where(left == 0, 1.0, np.where(left == count, 0.0, share))
    for neighbour, part in ((left, 1 - share), (left + 1, share)):
        patch = (neighbour - 1) % count
        table[rows, patch] += part[:, None] * _legendre((x - around[neighbour]) / reach[patch], degrees)
    return _tensor(table.reshape(len(x), -1))


class Patchwork(nn.Module):
    """Between fields at the nodes and coefficients on patches, along every axis, at any resolution.

    The matrices of ``grid`` are buffers, so that compilers and exports see constants; those of other resolutions are
    made when they are asked for. They are no part of the state: a network can be rebuilt for another grid.
    """

    def __init__(self, grid: Grid, edges: Sequence[Edges], degrees: int) -> None:
        super().__init__()
        self.grid, self.edges, self.degrees = grid, tuple(edges), degrees
        self.counts = tuple(len(e) - 1 for e in self.edges)
        for i, (axis, e) in enumerate(zip(grid.axes, self.edges, strict=True)):
            self.register_buffer(f"moments_{i}", moments(axis, e, degrees).float(), persistent=False)
            self.register_buffer(f"blend_{i}", blend(axis, e, degrees).float(), persistent=False)

    def gather(self, values: Float[Tensor, "batch channel *space"]) -> Float[Tensor, "batch channel *coefficient"]:
        for matrix in self._matrices("moments", tuple(values.shape[2:]), values):
            values = torch.tensordot(values, matrix, ([2], [1]))  # takes the first space axis, appends it again
        return values

    def scatter(
        self, coefficients: Float[Tensor, "batch channel *coefficient"], space: Sequence[int]
    ) -> Float[Tensor, "batch channel *space"]:
        for matrix in self._matrices("blend", tuple(space), coefficients):
            coefficients = torch.tensordot(coefficients, matrix, ([2], [1]))
        return coefficients

    def measures(self) -> Float[Tensor, " patch"]:
        """Shares of the domain, patches in array order."""
        total = torch.ones(1, dtype=torch.float64)
        for e in self.edges:
            widths = torch.tensor([b - a for a, b in pairwise(e)], dtype=torch.float64)
            total = (total[:, None] * widths).flatten()
        return total

    def centres(self) -> tuple[Tensor, ...]:
        """Of the patches, one vector an axis, from 0 to 1."""
        return tuple(torch.tensor([0.5 * (a + b) for a, b in pairwise(e)], dtype=torch.float64) for e in self.edges)

    def _matrices(self, kind: str, space: tuple[int, ...], like: Tensor) -> list[Tensor]:
        if space == self.grid.shape and like.dtype == torch.float32:
            return [getattr(self, f"{kind}_{i}") for i in range(len(space))]
        make = moments if kind == "moments" else blend
        axes = self.grid.at(space).axes
        return [make(a, e, self.degrees).to(like) for a, e in zip(axes, self.edges, strict=True)]


class Positions(nn.Module):
    """Appends the position of each node as fields: cos and sin of 2 pi x on periodic axes, 2 x - 1 on others."""

    fields: Tensor

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        self.grid = grid
        self.count = sum(1 + axis.periodic for axis in grid.axes)
        self.register_buffer("fields", positions(grid).float(), persistent=False)

    def forward(self, values: Float[Tensor, "batch channel *space"]) -> Float[Tensor, "batch more *space"]:
        space = tuple(values.shape[2:])
        here = space == self.grid.shape and values.dtype == torch.float32
        fields = self.fields if here else positions(self.grid.at(space)).to(values)
        return torch.cat([values, fields.expand(values.shape[0], *fields.shape)], dim=1)


@functools.lru_cache(maxsize=32)
def positions(grid: Grid) -> Float[Tensor, "feature *space"]:
    with torch.inference_mode(False):
        mesh = torch.meshgrid(*(torch.from_numpy(_nodes(axis)) for axis in grid.axes), indexing="ij")
        along = zip(grid.axes, mesh, strict=True)
        return torch.stack([field for axis, x in along for field in waves_of(x, 1, periodic=axis.periodic)])


def waves_of(x: Tensor, count: int, *, periodic: bool) -> list[Tensor]:
    """Continuous functions of a coordinate in [0, 1]: 2 count waves where it is periodic, else 2 x - 1 and cosines."""
    orders = range(1, count + 1)
    if periodic:
        return [f(2 * math.pi * m * x) for m in orders for f in (torch.cos, torch.sin)]
    return [2 * x - 1, *(torch.cos(math.pi * m * x) for m in orders[1:])]


def _nodes(axis: Axis) -> Vector:
    """From 0 to 1, in lengths of the axis."""
    offset = 0.5 if axis.placement == "centres" else 0.0
    return (np.arange(axis.size) + offset) / (axis.size - 1 if axis.placement == "ends" else axis.size)


def _between(axis: Axis, x: Vector) -> tuple[Vector, Vector, Vector]:
    """The nodes on either side of x and the share of the right one (beyond 0 and 1 where the line is continued)."""
    nodes = _nodes(axis)
    place = (x - nodes[0]) / (nodes[1] - nodes[0])
    left = np.floor(place).astype(int)
    if axis.periodic:
        return left % axis.size, (left + 1) % axis.size, place - left
    left = np.clip(left, 0, axis.size - 2)
    return left, left + 1, place - left


def _legendre(x: Vector, degrees: int) -> Vector:
    return legvander(x, degrees - 1) * np.sqrt(2 * np.arange(degrees) + 1)


def _tensor(table: Vector) -> Tensor:
    with torch.inference_mode(False):  # or it could not serve autograd later
        return torch.from_numpy(np.ascontiguousarray(table))
