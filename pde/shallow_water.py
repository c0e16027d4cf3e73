r"""Shallow-water equations over a flat bottom, in one or two dimensions: the state at 0 -> at the following frames.

.. math:: h_t + \nabla\cdot(h v) = 0, \qquad (h v)_t + \nabla\cdot(h v\otimes v + \tfrac12 g h^2 I) = 0

h  water height  [m]      sought, positive
v  velocity      [m/s]    sought, one component a dimension
g  gravity       [m/s²]   given: 1 (non-dimensional)

The default is PDEBench's radial dam break (Takamoto et al. 2022, arXiv 2210.07182): water at rest on [-2.5, 2.5]², of
height 2 within a radius ~ U(0.3, 0.7) and 1 outside, 100 frames up to t = 1. Its published channel is the height; the
velocity is part of the state and so of ours. Gravity 1 and open ends are taken from the standard example of the
published generator's solver, and are not verified. A cell that the dam cuts gets the share of height that lies
within (but for the dam's curvature), so that every radius is another sample; in one dimension the dam is
abs(x) < radius.

The bottom is wet everywhere: heights are positive (observed to work down to 1e-4 of the highest water).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Generator, Tensor

from ._coarser_cells import shock_ladder
from ._finite_volume import ConservationLaw, FiniteVolumes, cell_grid
from ._grid import Grid
from ._periodic import check_box, check_not_negative, check_positive
from ._problem import Channel, Problem, Setup, Signature
from ._solver import Solver
from ._weno import Wall


@dataclass(frozen=True, kw_only=True)
class ShallowWater(Problem, ConservationLaw):
    """Radial dam break."""

    dim: Literal[1, 2] = 2  # dimensions of the box
    gravity: float = 1.0  # g [m/s^2]
    inside: float = 2.0  # height within the dam [m]
    outside: float = 1.0  # height beyond it [m]
    smallest: float = 0.3  # radius of the dam [m]
    largest: float = 0.7  # radius of the dam [m]
    boundary: Wall = "outflow"
    length: float = 5.0  # side of the box, centred at 0 [m]
    frames: int = 20
    spacing: float = 0.05  # time between frames [s]

    positive: ClassVar[int] = 1
    setups: ClassVar[Mapping[str, Setup]] = {
        "quick": Setup(resolution=64, train=64, validation=8, test=16),
        "paper": Setup(resolution=128, train=900, validation=50, test=50),
    }
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "pdebench_radial_dam_break": {"frames": 100, "spacing": 0.01},
    }

    def __post_init__(self) -> None:
        if self.dim not in (1, 2):
            raise ValueError(f"dim is 1 or 2, got {self.dim}.")
        if self.boundary not in get_args(Wall):
            raise ValueError(f"boundary is one of {get_args(Wall)}, got {self.boundary!r}.")
        check_positive(gravity=self.gravity, inside=self.inside, outside=self.outside, length=self.length)
        check_positive(frames=self.frames, spacing=self.spacing)
        check_not_negative(smallest=self.smallest)
        if not self.smallest <= self.largest <= self.length / 2:
            raise ValueError(
                f"Radii satisfy smallest <= largest <= length / 2 = {self.length / 2}; "
                f"got {self.smallest} and {self.largest}."
            )

    @property
    def signature(self) -> Signature:
        velocities = tuple(Channel(f"velocity_{x}", "m/s", f"velocity {v}") for x, v in zip("xy", "uv", strict=True))
        state = (Channel("height", "m", "water height"), *velocities[: self.dim])
        return Signature(state, state, self.frames, self.spacing, "s")

    def grid(self, resolution: int | Sequence[int]) -> Grid:
        half = 0.5 * self.length
        box = cell_grid(resolution, lower=-half, upper=half, dim=self.dim, wall=self.boundary, unit="m")
        return check_box(box, self.dim, "shallow_water")

    def sample(self, count: int, grid: Grid, *, generator: Generator) -> Tensor:
        radius = torch.rand(count, *(1,) * grid.dim, dtype=torch.float64, generator=generator)
        radius = self.smallest + (self.largest - self.smallest) * radius
        distance = grid.mesh().square().sum(dim=0).sqrt()
        share = ((radius - distance) / math.prod(grid.spacing) ** (1 / grid.dim) + 0.5).clamp(0.0, 1.0)
        state = torch.zeros(count, 1 + grid.dim, *grid.shape, dtype=torch.float64)
        state[:, 0] = self.outside + (self.inside - self.outside) * share
        return state

    def reference(self, **accuracy: Any) -> FiniteVolumes:
        """Fifth order where smooth, first at bores; see :class:`FiniteVolumes` for its options."""
        return FiniteVolumes(self, **accuracy)

    def ladder(self, grid: Grid) -> Mapping[str, Solver]:
        return shock_ladder(self, grid)

    def conserved(self, state: Tensor) -> Tensor:
        """Volume and momentum by area and density."""
        return torch.cat([state[:, :1], state[:, :1] * state[:, 1:]], dim=1)

    def state(self, conserved: Tensor) -> Tensor:
        return torch.cat([conserved[:, :1], conserved[:, 1:] / conserved[:, :1]], dim=1)

    def flux(self, state: Tensor, axis: int) -> Tensor:
        flux = self.conserved(state)
        flux *= state[:, 1 + axis].unsqueeze(1)
        flux[:, 1 + axis] += 0.5 * self.gravity * state[:, 0].square()
        return flux

    def speed(self, state: Tensor, axis: int) -> Tensor:
        return state[:, 1 + axis].abs() + torch.sqrt(self.gravity * state[:, 0])

    def mirrored(self, state: Tensor, axis: int) -> Tensor:
        """The normal velocity changes sign."""
        state = state.clone()
        state[:, 1 + axis].neg_()
        return state

    def to_waves(self, states: Tensor, mean: Tensor, axis: int) -> Tensor:
        """Gravity waves to the left and right, h -+ sqrt(h / g) u; shear, the transverse velocity."""
        normal = self._scale(mean) * states[:, :, 1 + axis]
        waves = [states[:, :, 0] - normal, states[:, :, 0] + normal]
        return torch.stack(waves if self.dim == 1 else [*waves, states[:, :, 2 - axis]], dim=2)

    def wave_scales(self, mean: Tensor) -> Tensor:
        scales = [mean[:, 0], mean[:, 0]]
        return torch.stack(scales if self.dim == 1 else [*scales, torch.sqrt(self.gravity * mean[:, 0])], dim=1)

    def from_waves(self, waves: Tensor, mean: Tensor, axis: int) -> Tensor:
        height = 0.5 * (waves[:, 0] + waves[:, 1])
        normal = 0.5 * (waves[:, 1] - waves[:, 0]) / self._scale(mean)
        velocity = [normal] if self.dim == 1 else [normal, waves[:, 2]] if axis == 0 else [waves[:, 2], normal]
        return torch.stack([height, *velocity], dim=1)

    def riemann_flux(self, left: Tensor, right: Tensor, axis: int) -> Tensor:
        """HLL with Einfeldt's speeds; the transverse velocity is carried by the contact (HLLC; Toro 2001)."""
        low, high = self._outer_speeds(left, right, axis)
        fluxes = [self.flux(side, axis) for side in (left, right)]
        values = [self.conserved(side) for side in (left, right)]
        from_, to = low.clamp_max(0.0).unsqueeze(1), high.clamp_min(0.0).unsqueeze(1)
        width = (to - from_).clamp_min(torch.finfo(from_.dtype).tiny)
        flux = (to * fluxes[0] - from_ * fluxes[1] + from_ * to * (values[1] - values[0])) / width
        if self.dim == 2:
            across = 2 - axis
            flux[:, across] = flux[:, 0] * torch.where(flux[:, 0] >= 0, left[:, across], right[:, across])
        return flux

    def _outer_speeds(self, left: Tensor, right: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """Of the slowest and the fastest wave: the states' own, or those of Roe's mean."""
        (h, k), (u, v) = (left[:, 0], right[:, 0]), (left[:, 1 + axis], right[:, 1 + axis])
        c, d = torch.sqrt(self.gravity * h), torch.sqrt(self.gravity * k)
        mean = (c * u + d * v) / (c + d)
        roe = torch.sqrt(0.5 * self.gravity * (h + k))
        low = torch.minimum(u - c, mean - roe)
        high = torch.maximum(v + d, mean + roe)
        return low, high

    def _scale(self, mean: Tensor) -> Tensor:
        """sqrt(h / g)."""
        return torch.sqrt(mean[:, 0] / self.gravity)


build = ShallowWater
