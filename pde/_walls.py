r"""Evolutions between walls, by reflection: a periodic solver on twice the box solves them spectrally.

A field that vanishes at both walls (Dirichlet), continued oddly, and a field whose normal derivative vanishes there
(Neumann), continued evenly, are periodic over twice the box. An equation that commutes with the reflection keeps the
symmetry, so that its periodic solution is the one between walls, with the same accuracy:

==========  =====================  ==================  ===========================================================
wall        nodes                  series              equations that keep the symmetry
==========  =====================  ==================  ===========================================================
dirichlet   ``ends``               sine                reactions odd in u; u u_x, which is odd where u is
neumann     ``centres``, ``ends``  cosine              any reaction; no term of odd order in x (advection, u u_x)
==========  =====================  ==================  ===========================================================

Periodic axes pass through, so boundary kinds mix. The symmetry of what comes back is measured: an equation that does
not keep it is refused, not answered.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Generator, Tensor

from ._grid import Axis, Grid
from ._random_fields import dirichlet_field, neumann_field, periodic_field
from ._solver import Solver, SolverError

Walls = Literal["periodic", "dirichlet", "neumann"]

# Of the largest value: what a float32 state leaves at the wall, times a hundred.
AT_THE_WALL = 1e-5
# Of the norm. Round-off starts the asymmetry at 1e-16; an equation without the symmetry makes it of order one.
ASYMMETRY = 1e-6


def wall_grid(
    resolution: int | Sequence[int],
    walls: Walls,
    *,
    dim: int,
    lower: float = 0.0,
    upper: float = 1.0,
    unit: str = "m",
) -> Grid:
    """The box with the nodes that belong to its walls: ``left``, ``ends`` or ``centres``."""
    if walls not in ("periodic", "dirichlet", "neumann"):
        raise ValueError(f"boundary is 'periodic', 'dirichlet' or 'neumann', got {walls!r}.")
    placement: Literal["centres"] | None = "centres" if walls == "neumann" else None
    return Grid.box(resolution, dim=dim, lower=lower, upper=upper, boundary=walls, placement=placement, unit=unit)


def wall_field(
    count: int, grid: Grid, *, alpha: float, tau: float, sigma: float | None = None, generator: Generator
) -> Tensor:
    """The Gaussian random field of the series that belongs to the walls (the same on every axis), without mean."""
    draw = {"periodic": periodic_field, "dirichlet": dirichlet_field, "neumann": neumann_field}
    kinds = {axis.boundary[0] for axis in grid.axes}
    if len(kinds) > 1 or not kinds <= set(draw):
        raise ValueError(
            f"wall_field draws for one kind of walls, periodic, dirichlet or neumann; got {sorted(kinds)}."
        )
    return draw[kinds.pop()](count, grid, alpha=alpha, tau=tau, sigma=sigma, generator=generator)


def torus_of(grid: Grid) -> Grid:
    """The periodic grid that carries the reflected fields: walled axes are twice as long, their spacing is the same."""
    return Grid(tuple(axis if axis.periodic else _doubled(axis) for axis in grid.axes))


def extend(values: Tensor, grid: Grid) -> Tensor:
    """Fields ``... *space`` between walls as fields on :func:`torus_of` the grid: continued oddly or evenly."""
    for j, axis in enumerate(grid.axes, start=-grid.dim):
        if not axis.periodic:
            values = _extend_axis(values.movedim(j, -1), axis).movedim(-1, j)
    return values


def restrict(values: Tensor, grid: Grid) -> Tensor:
    """Back between the walls: the part of ``values`` that has the symmetry, at the nodes of ``grid``."""
    for j, axis in enumerate(grid.axes, start=-grid.dim):
        if not axis.periodic:
            values = _restrict_axis(_symmetric(values.movedim(j, -1), axis), axis).movedim(-1, j)
    return values


def asymmetry(values: Tensor, grid: Grid) -> Tensor:
    """Norm per sample of what :func:`restrict` drops of fields ``batch ... *space`` on the torus of ``grid``."""
    total = values.new_zeros(len(values))
    for j, axis in enumerate(grid.axes, start=-grid.dim):
        if not axis.periodic:
            moved = values.movedim(j, -1)
            total = total + (moved - _symmetric(moved, axis)).flatten(1).square().sum(dim=1)
    return total.sqrt()


class BetweenWalls(Solver):
    """A periodic solver, asked about fields between walls; computes in float64, and answers in the type of the input.

    Raises ``ValueError`` for Dirichlet data that do not vanish at the walls, and :class:`SolverError` where the
    equation does not keep the symmetry of the walls.
    """

    def __init__(self, solver: Solver) -> None:
        self.solver = solver

    @torch.no_grad()
    def __call__(self, inputs: Tensor, grid: Grid, times: Sequence[float] | None = None) -> Tensor:
        if grid.periodic:
            return self.solver(inputs, grid, times)
        torus = torus_of(grid)
        if tuple(inputs.shape[2:]) != grid.shape:
            raise ValueError(f"Expected inputs of shape ('batch', channels, *{grid.shape}), got {tuple(inputs.shape)}.")
        check_walls(inputs, grid)
        state = extend(inputs.to(torch.float64), grid)
        outputs = self.solver(state, torus, times)
        size = torch.maximum(outputs.flatten(1).norm(dim=1), state.flatten(1).norm(dim=1))
        broken = asymmetry(outputs, grid) > ASYMMETRY * size
        if bool(broken.any()):
            kinds = [axis.boundary for axis in grid.axes]
            raise SolverError(
                f"Sample(s) {broken.nonzero().flatten().tolist()[:8]} lost the symmetry of the walls {kinds}: the "
                "equation does not keep it, or its solution is unstable over so long a time."
            )
        return restrict(outputs, grid).to(inputs.dtype)


def between_walls(ladder: Mapping[str, Solver]) -> dict[str, Solver]:
    """A ladder of periodic solvers on :func:`torus_of` a grid, for that grid."""
    return {name: BetweenWalls(rung) for name, rung in ladder.items()}


def check_walls(values: Tensor, grid: Grid) -> None:
    """Refuse fields ``batch channel *space`` that do not vanish at Dirichlet walls."""
    largest = values.abs().flatten(1).amax(dim=1)
    for j, axis in enumerate(grid.axes, start=-grid.dim):
        if "dirichlet" not in axis.boundary:
            continue
        ends = values.movedim(j, -1)[..., [0, -1]].abs().flatten(1).amax(dim=1)
        bad = (ends > AT_THE_WALL * largest).nonzero().flatten().tolist()
        if bad:
            raise ValueError(
                f"Sample(s) {bad[:8]} do not vanish at the Dirichlet walls of axis {axis.name!r}: found up to "
                f"{float(ends.max()):.3g} there. Subtract what the walls hold, or use another boundary."
            )


def _sign(axis: Axis) -> float:
    """Parity of the continuation; refuses what no reflection serves."""
    if axis.boundary == ("dirichlet", "dirichlet") and axis.placement == "ends" and axis.size > 2:
        return -1.0
    if axis.boundary == ("neumann", "neumann"):
        return 1.0
    raise ValueError(
        f"Axis {axis.name!r} has boundary {axis.boundary} on {axis.size} nodes placed {axis.placement!r}; a reflection "
        "takes dirichlet at both ends with nodes 'ends' (3 or more), or neumann with 'centres' or 'ends'."
    )


def _doubled(axis: Axis) -> Axis:
    _sign(axis)
    size = 2 * (axis.size - 1 if axis.placement == "ends" else axis.size)
    upper = axis.lower + 2 * axis.length
    return replace(axis, size=size, upper=upper, boundary=("periodic", "periodic"), placement="left")


def _extend_axis(values: Tensor, axis: Axis) -> Tensor:
    """The last axis, doubled. Nodes at the centres move by half a cell, along their cosine series, onto the walls."""
    sign = _sign(axis)
    if axis.placement == "centres":
        return _shifted(torch.cat([values, values.flip(-1)], dim=-1), 0.5)
    if sign < 0:
        values = torch.nn.functional.pad(values[..., 1:-1], (1, 1))
    return torch.cat([values, sign * values[..., 1:-1].flip(-1)], dim=-1)


def _restrict_axis(values: Tensor, axis: Axis) -> Tensor:
    if axis.placement == "centres":
        values = _shifted(values, -0.5)
    return values[..., : axis.size]


def _symmetric(values: Tensor, axis: Axis) -> Tensor:
    """The odd or even part of the last axis about its node 0."""
    return 0.5 * (values + _sign(axis) * values.flip(-1).roll(1, -1))


def _shifted(values: Tensor, cells: float) -> Tensor:
    """The trigonometric interpolant in the last axis, where the nodes were so many cells further on.

    By half a cell: the Nyquist mode of an even extension about the middle of a cell vanishes, and is left out.
    """
    size = values.shape[-1]
    numbers = torch.arange(size // 2 + 1, dtype=values.dtype, device=values.device)
    angle = -2 * math.pi / size * cells * numbers
    phase = torch.polar(torch.ones_like(angle), angle)
    phase[-1] = 0.0
    return torch.fft.irfft(torch.fft.rfft(values, dim=-1) * phase, n=size, dim=-1)
