"""Shock-capturing solvers on fewer cells: what a learned solver competes with at equal accuracy."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import get_args

import torch
from torch import Tensor

from ._elliptic import apply_along
from ._finite_volume import FEWEST_NODES, ConservationLaw, FiniteVolumes, Scheme, check_sign
from ._grid import Axis, Grid
from ._solver import Solver, check_fields


class OnCoarserCells(Solver):
    """On fewer cells: means of what is conserved go down, the solution comes back by linear interpolation."""

    def __init__(self, solver: FiniteVolumes, shape: Sequence[int]) -> None:
        self.solver = solver
        self.shape = tuple(shape)

    @torch.no_grad()
    def __call__(self, inputs: Tensor, grid: Grid, times: Sequence[float] | None = None) -> Tensor:
        equation, coarse = self.solver.equation, grid.at(self.shape)
        check_fields(inputs, grid, len(equation.signature.inputs))
        check_sign(inputs, equation)
        if self.shape == grid.shape:
            return self.solver(inputs, grid, times)
        values = equation.conserved(inputs.to(torch.float64))
        for j, (old, new) in enumerate(zip(grid.axes, coarse.axes, strict=True), start=2):
            values = apply_along(_cell_means(old, new), values, j)
        outputs = self.solver(equation.state(values), coarse, times)
        for j, (old, new) in enumerate(zip(coarse.axes, grid.axes, strict=True), start=3):
            outputs = apply_along(_linear(old, new), outputs, j)
        return outputs.to(inputs.dtype)


def shock_ladder(equation: ConservationLaw, grid: Grid) -> Mapping[str, Solver]:
    """Both schemes on coarser grids, cheap to dear, each serving ``grid``; the last is the reference."""
    ladder: dict[str, Solver] = {}
    for divisor in (4, 3, 2, 1):
        shape = tuple(min(n, max(FEWEST_NODES, round(n / divisor))) for n in grid.shape)
        for scheme in reversed(get_args(Scheme)):
            name = f"finite volumes ({scheme}) {'x'.join(map(str, shape))}"
            ladder[name] = OnCoarserCells(FiniteVolumes(equation, scheme=scheme), shape)
    return ladder


@functools.lru_cache(maxsize=64)
def _cell_means(source: Axis, target: Axis) -> Tensor:
    """Means over the target's cells of what is constant on the source's cells: shares of overlap."""
    low, wide = source.coordinates() - 0.5 * source.spacing, 0.5 * target.spacing
    centres = target.coordinates()
    total = torch.zeros(target.size, source.size, dtype=torch.float64)
    for shift in (-source.length, 0.0, source.length) if source.periodic else (0.0,):
        left = torch.maximum(low + shift, (centres - wide)[:, None])
        right = torch.minimum(low + shift + source.spacing, (centres + wide)[:, None])
        total += (right - left).clamp_min(0.0)
    return total / target.spacing


@functools.lru_cache(maxsize=64)
def _linear(source: Axis, target: Axis) -> Tensor:
    """Linear interpolation between cell centres; constant beyond the last of them."""
    place = (target.coordinates() - source.coordinates()[0]) / source.spacing
    if not source.periodic:
        place = place.clamp(0, source.size - 1)
    below = torch.floor(place).to(torch.int64)
    share = (place - below)[:, None]
    identity = torch.eye(source.size, dtype=torch.float64)
    last = source.size if source.periodic else source.size - 1
    upper = (below + 1) % source.size if source.periodic else (below + 1).clamp_max(last)
    return (1 - share) * identity[below % source.size] + share * identity[upper]
