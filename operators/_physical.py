r"""Layers that mean the same operator on every grid of a domain: stencils as functions of distance, means as integrals.

A stencil of three weights an axis, learned on a grid of spacing h_0, is read as the function

.. math:: k(y) = h_0^{-d} \sum_i w_i\, \Lambda(y/h_0 - i),\qquad \Lambda(s) = \max(0, 1 - |s|),

on the fixed support (-2 h_0, 2 h_0), and the convolution as an integral over the domain by the trapezoidal rule:

.. math:: (k * v)(x) = \int k(x - y)\, v(y)\, dy \approx \sum_j k(x - y_j)\, v(y_j)\, h.

On the grid of spacing h_0 of a torus this is the stencil itself; under refinement it converges with order 2. (Kernel
interpolation of Berner et al. 2025, arXiv 2506.10973; they interpolate between the outermost weights, where k jumps,
and divide by the ratio of areas.) Zero padding is the integral over the domain alone, so nodes on such a wall count
half. A stencil of n nodes on grids r times finer has some 4 r taps an axis: cost grows with the support.
"""

from __future__ import annotations

import functools
import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..pde import Axis, Grid
from ._multigrid import _CONV, Stencil, pad, padding_of


class PhysicalStencil(Stencil):
    """The stencil whose three weights an axis are those on ``grid``, on any grid of the same domain."""

    def __init__(self, c_in: int, c_out: int, *, grid: Grid, bias: bool = False) -> None:
        super().__init__(c_in, c_out, dim=grid.dim, padding=padding_of(grid), bias=bias)
        self.grid = grid

    def forward(self, values: Float[Tensor, "batch c_in *space"]) -> Float[Tensor, "batch c_out *space"]:
        weight: Tensor = self.weight
        for place, (old, size) in enumerate(zip(self.grid.axes, values.shape[2:], strict=True), start=-self.dim):
            taps, half = taps_of(old, size)
            weight = (weight.movedim(place, -1) @ taps.to(weight)).movedim(-1, place)
            if half:  # the wall nodes of a field that ends there
                values = values * half_at_ends(size, values).reshape(-1, *[1] * (-1 - place))
        widths = [(n - 1) // 2 for n in weight.shape[2:]]
        return _CONV[self.dim](pad(values, widths, self.padding), weight, self.bias)


@functools.lru_cache(maxsize=64)
def taps_of(axis: Axis, size: int) -> tuple[Float[Tensor, "3 taps"], bool]:
    """How three weights become those on ``size`` nodes of the axis, and whether its wall nodes count half."""
    cells, wanted = (n - (axis.placement == "ends") for n in (axis.size, size))
    ratio = cells / wanted  # h / h_0
    reach = max(1, math.ceil(2 / ratio - 1e-9) - 1)
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float64) * ratio
    taps = ratio * hat(offsets - torch.arange(-1, 2, dtype=torch.float64)[:, None])
    return taps, axis.placement == "ends" and axis.boundary[0] == "dirichlet"


def hat(distance: Tensor) -> Tensor:
    return (1 - distance.abs()).clamp_min(0)


def half_at_ends(size: int, like: Tensor) -> Float[Tensor, " size"]:
    weights = like.new_ones(size)
    weights[0] = weights[-1] = 0.5
    return weights


class IntegralNorm(nn.GroupNorm):
    """Group norm whose mean and variance are integrals over the domain, by the grid's quadrature."""

    def __init__(self, groups: int, channels: int, grid: Grid) -> None:
        super().__init__(groups, channels)
        self.grid = grid

    def forward(self, values: Float[Tensor, "batch channel *space"]) -> Float[Tensor, "batch channel *space"]:
        shares = _shares(self.grid.at(values.shape[2:])).to(values)
        grouped = values.unflatten(1, (self.num_groups, -1))
        axes = tuple(range(2, grouped.ndim))
        weights = shares / grouped.shape[2]
        mean = (grouped * weights).sum(dim=axes, keepdim=True)
        centred = grouped - mean
        variance = (centred.square() * weights).sum(dim=axes, keepdim=True)
        scaled = (centred / (variance + self.eps).sqrt()).flatten(1, 2)
        shape = (-1, *[1] * (values.ndim - 2))
        return scaled * self.weight.reshape(shape) + self.bias.reshape(shape)


@functools.lru_cache(maxsize=16)
def _shares(grid: Grid) -> Tensor:
    weights = grid.weights()
    return weights / weights.sum()


def carry(
    fields: Float[Tensor, "batch channel *old"], source: Grid, target: Grid
) -> Float[Tensor, "batch channel *new"]:
    """Local means with the hat of the coarser grid's spacing: linear interpolation upwards, a smoothing integral
    downwards; the identity between equal grids.
    """
    for place, (old, new) in enumerate(zip(source.axes, target.axes, strict=True), start=-source.dim):
        if old.size != new.size:
            fields = (fields.movedim(place, -1) @ _local_means(old, new).to(fields).T).movedim(-1, place)
    return fields


@functools.lru_cache(maxsize=64)
def _local_means(old: Axis, new: Axis) -> Float[Tensor, "new old"]:
    distance = (new.coordinates()[:, None] - old.coordinates()).abs()
    if old.periodic:
        distance = torch.minimum(distance, old.length - distance)
    weights = hat(distance / max(old.spacing, new.spacing))
    weights = weights * old.weights() if old.spacing < new.spacing else weights  # an integral, or an interpolation
    return weights / weights.sum(dim=1, keepdim=True)
