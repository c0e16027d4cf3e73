r"""Compressible Euler equations of an ideal gas, in one or two dimensions: the state at 0 -> at the following frames.

.. math:: \partial_t(\rho, \rho v, E) + \nabla\cdot(\rho v, \rho v\otimes v + p I, (E + p) v) = 0,
          \qquad E = \frac{p}{\gamma - 1} + \tfrac12 \rho |v|^2

rho    density          [kg/m^3]  sought, positive
p      pressure         [Pa]      sought, positive
v      velocity         [m/s]     sought, one component a dimension
gamma  ratio of specific heats    given, above 1

Channels are in PDEBench's order: density, pressure, velocities. Initial states, by ``law`` (L = ``length``):

``random``       smooth and random: rho = 1 + a w, p = 1 + a w', v = mach sqrt(gamma) w'' where each w, in [-1, 1], is a
                 normalised sum of four plane waves with wave numbers up to 4 and random amplitudes and phases, a =
                 ``amplitude``
``turbulent``    rho = p = 1 and a divergence-free velocity of wave numbers 1 to 4 with amplitudes ~ 1/|k|, of root mean
                 square Mach number ``mach`` (2-D)
``shock``        two random states, jump at U(0.25, 0.75) L: rho and p log-uniform in [0.1, 1], v ~ U(-1, 1) mach
                 sqrt(gamma)
``quadrants``    four such states (2-D); the periodic square makes more of them
``sod``, ``lax``, ``double_rarefaction``, ``shu_osher``, ``four_shocks``: the classical tests, always the same sample
                 (Sod 1978; Lax 1954; Toro 2009, table 4.1; Shu and Osher 1989; Schulz-Rinne et al. 1993)
``vortex``       isentropic vortex (Shu 1998) at the centre, carried along by (1, 1) (2-D); strength 5

PDEBench's ``random``, ``turbulent`` and ``shock`` sets with eta = zeta = 1e-8 are inviscid. Of their laws its paper
(Takamoto et al. 2022, arXiv 2210.07182) gives the kind (plane waves on a uniform background; a solenoidal velocity
with amplitudes ~ 1/|k|; two random states with a random jump), but not all amplitudes: the presets ``pdebench_*``
have its boundaries, Mach numbers and gamma = 5/3 as far as known, and OUR amplitudes (not verified). Of The Well's
``euler_multi_quadrants`` (512² cells, 100 frames of 0.015, ten values of gamma) the law of the states is not published.
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
from ._gas_states import PLANAR, TUBES, initial_state
from ._grid import Grid
from ._periodic import check_box, check_positive
from ._problem import Channel, Problem, Setup, Signature
from ._solver import Solver
from ._weno import Wall

Law = Literal[
    "random",
    "turbulent",
    "shock",
    "quadrants",
    "sod",
    "lax",
    "double_rarefaction",
    "shu_osher",
    "four_shocks",
    "vortex",
]


@dataclass(frozen=True, kw_only=True)
class Euler(Problem, ConservationLaw):
    """Inviscid gas dynamics, with shocks."""

    dim: Literal[1, 2] = 1  # dimensions of the box
    law: Law = "random"
    gamma: float = 1.4  # ratio of specific heats
    mach: float = 0.5  # of the random velocities
    amplitude: float = 0.3  # of random density and pressure, below 1
    boundary: Wall = "periodic"
    length: float = 1.0  # side of the box [m]
    frames: int = 10
    spacing: float = 0.05  # time between frames [s]

    positive: ClassVar[int] = 2
    setups: ClassVar[Mapping[str, Setup]] = {
        "quick": Setup(resolution=64, train=128, validation=16, test=32),
        "paper": Setup(resolution=128, train=900, validation=100, test=100),
    }
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "sod": {"law": "sod", "boundary": "outflow", "frames": 10, "spacing": 0.02},
        "lax": {"law": "lax", "boundary": "outflow", "frames": 13, "spacing": 0.01},
        "shu_osher": {"law": "shu_osher", "boundary": "outflow", "length": 10.0, "frames": 18, "spacing": 0.1},
        "double_rarefaction": {"law": "double_rarefaction", "boundary": "outflow", "frames": 15, "spacing": 0.01},
        "vortex": {"dim": 2, "law": "vortex", "length": 10.0, "frames": 10, "spacing": 1.0},
        "four_shocks": {"dim": 2, "law": "four_shocks", "boundary": "outflow", "frames": 8, "spacing": 0.1},
        "the_well_quadrants_periodic": {"dim": 2, "law": "quadrants", "frames": 100, "spacing": 0.015},
        "the_well_quadrants_open": {
            **{"dim": 2, "law": "quadrants", "boundary": "outflow", "frames": 100, "spacing": 0.015}
        },
        "pdebench_1d_rand": {"gamma": 5 / 3, "frames": 100, "spacing": 0.01},
        "pdebench_1d_shock": {"gamma": 5 / 3, "law": "shock", "boundary": "outflow", "frames": 100, "spacing": 0.01},
        "pdebench_2d_rand_m0.1": {"dim": 2, "gamma": 5 / 3, "mach": 0.1, "frames": 20, "spacing": 0.05},
        "pdebench_2d_rand_m1.0": {"dim": 2, "gamma": 5 / 3, "mach": 1.0, "frames": 20, "spacing": 0.05},
        "pdebench_2d_turb_m0.1": {
            **{"dim": 2, "gamma": 5 / 3, "law": "turbulent", "mach": 0.1, "frames": 20, "spacing": 0.05}
        },
        "pdebench_2d_turb_m1.0": {
            **{"dim": 2, "gamma": 5 / 3, "law": "turbulent", "mach": 1.0, "frames": 20, "spacing": 0.05}
        },
    }

    def __post_init__(self) -> None:
        if self.dim not in (1, 2):
            raise ValueError(f"dim is 1 or 2, got {self.dim}.")
        if self.law not in get_args(Law):
            raise ValueError(f"law is one of {get_args(Law)}, got {self.law!r}.")
        if self.boundary not in get_args(Wall):
            raise ValueError(f"boundary is one of {get_args(Wall)}, got {self.boundary!r}.")
        if self.law in PLANAR and self.dim != 2:
            raise ValueError(f"The law {self.law!r} lives in two dimensions; got dim {self.dim}.")
        if self.law in TUBES and self.boundary == "periodic":
            raise ValueError(f"The law {self.law!r} has different ends: boundary is 'outflow' or 'wall'.")
        if not 1 < self.gamma < math.inf:
            raise ValueError(f"gamma must be above 1 and finite, got {self.gamma}.")
        if not 0 <= self.amplitude < 1:
            raise ValueError(f"amplitude is from 0 to below 1 (density stays positive), got {self.amplitude}.")
        check_positive(mach=self.mach, length=self.length, frames=self.frames, spacing=self.spacing)

    @property
    def signature(self) -> Signature:
        velocities = tuple(Channel(f"velocity_{x}", "m/s", f"velocity {v}") for x, v in zip("xy", "uv", strict=True))
        state = (Channel("density", "kg/m^3"), Channel("pressure", "Pa"), *velocities[: self.dim])
        return Signature(state, state, self.frames, self.spacing, "s")

    def grid(self, resolution: int | Sequence[int]) -> Grid:
        box = cell_grid(resolution, lower=0.0, upper=self.length, dim=self.dim, wall=self.boundary, unit="m")
        return check_box(box, self.dim, "euler")

    def sample(self, count: int, grid: Grid, *, generator: Generator) -> Tensor:
        scales = {"gamma": self.gamma, "mach": self.mach, "amplitude": self.amplitude}
        return initial_state(self.law, count, grid, **scales, generator=generator)

    def reference(self, **accuracy: Any) -> FiniteVolumes:
        """Fifth order where smooth, first at shocks; see :class:`FiniteVolumes` for its options."""
        return FiniteVolumes(self, **accuracy)

    def ladder(self, grid: Grid) -> Mapping[str, Solver]:
        return shock_ladder(self, grid)

    def conserved(self, state: Tensor) -> Tensor:
        """Densities of mass, energy, momentum."""
        density, pressure, velocity = state[:, :1], state[:, 1:2], state[:, 2:]
        energy = pressure / (self.gamma - 1) + 0.5 * density * _square(velocity)
        return torch.cat([density, energy, density * velocity], dim=1)

    def state(self, conserved: Tensor) -> Tensor:
        density, energy, momentum = conserved[:, :1], conserved[:, 1:2], conserved[:, 2:]
        velocity = momentum / density
        pressure = (self.gamma - 1) * (energy - 0.5 * density * _square(velocity))
        return torch.cat([density, pressure, velocity], dim=1)

    def flux(self, state: Tensor, axis: int) -> Tensor:
        normal = state[:, 2 + axis].unsqueeze(1)
        flux = self.conserved(state)
        flux[:, 1] += state[:, 1]
        flux *= normal
        flux[:, 2 + axis] += state[:, 1]
        return flux

    def sound_speed(self, state: Tensor) -> Tensor:
        return torch.sqrt(self.gamma * state[:, 1] / state[:, 0])

    def speed(self, state: Tensor, axis: int) -> Tensor:
        return state[:, 2 + axis].abs() + self.sound_speed(state)

    def mirrored(self, state: Tensor, axis: int) -> Tensor:
        """The normal velocity changes sign."""
        state = state.clone()
        state[:, 2 + axis].neg_()
        return state

    def to_waves(self, states: Tensor, mean: Tensor, axis: int) -> Tensor:
        """Sound to the left and right, p -+ rho c u; entropy, rho - p / c²; shear, the transverse velocity."""
        impedance, inverse = self._acoustics(mean)
        density, pressure, normal = states[:, :, 0], states[:, :, 1], impedance * states[:, :, 2 + axis]
        waves = [density - inverse * pressure, pressure - normal, pressure + normal]
        return torch.stack(waves if self.dim == 1 else [*waves, states[:, :, 3 - axis]], dim=2)

    def wave_scales(self, mean: Tensor) -> Tensor:
        scales = [mean[:, 0], mean[:, 1], mean[:, 1]]
        return torch.stack(scales if self.dim == 1 else [*scales, self.sound_speed(mean)], dim=1)

    def from_waves(self, waves: Tensor, mean: Tensor, axis: int) -> Tensor:
        impedance, inverse = self._acoustics(mean)
        pressure = 0.5 * (waves[:, 1] + waves[:, 2])
        normal = 0.5 * (waves[:, 2] - waves[:, 1]) / impedance
        velocity = [normal] if self.dim == 1 else [normal, waves[:, 3]] if axis == 0 else [waves[:, 3], normal]
        return torch.stack([waves[:, 0] + inverse * pressure, pressure, *velocity], dim=1)

    def riemann_flux(self, left: Tensor, right: Tensor, axis: int) -> Tensor:
        """HLLC (Toro, Spruce and Speares 1994), wave speeds of Einfeldt and Batten: positive, exact at contacts."""
        low, high = self._outer_speeds(left, right, axis)
        push_left = left[:, 0] * (low - left[:, 2 + axis])
        push_right = right[:, 0] * (high - right[:, 2 + axis])
        jump = right[:, 1] - left[:, 1] + left[:, 2 + axis] * push_left - right[:, 2 + axis] * push_right
        middle = jump / (push_left - push_right)
        from_left = middle >= 0  # the side of the contact that the face is on, and the wave that bounds it
        side = torch.where(from_left.unsqueeze(1), left, right)
        edge = torch.where(from_left, low, high)
        travelled = torch.where(from_left, low.clamp_max(0.0), high.clamp_min(0.0)).unsqueeze(1)
        before = self.conserved(side)
        behind = self._behind(side, before, edge, middle, axis)
        return self.flux(side, axis) + travelled * (behind - before)

    def _behind(self, side: Tensor, before: Tensor, edge: Tensor, middle: Tensor, axis: int) -> Tensor:
        """What is conserved between an outer wave of speed ``edge`` and the contact of speed ``middle``."""
        approach = edge - side[:, 2 + axis]
        behind = before * (approach / (edge - middle)).unsqueeze(1)
        density = behind[:, 0]
        behind[:, 2 + axis] = density * middle
        work = middle + side[:, 1] / (side[:, 0] * approach)
        behind[:, 1] += density * (middle - side[:, 2 + axis]) * work
        return behind

    def _outer_speeds(self, left: Tensor, right: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """Of the slowest and the fastest wave: the states' own, or those of Roe's mean."""
        share = torch.sqrt(right[:, 0] / left[:, 0])
        share = (share / (1 + share)).unsqueeze(1)
        velocity = left[:, 2:] + share * (right[:, 2:] - left[:, 2:])
        enthalpies = [_enthalpy(side, self.gamma) for side in (left, right)]
        enthalpy = enthalpies[0] + share[:, 0] * (enthalpies[1] - enthalpies[0])
        sound = torch.sqrt(((self.gamma - 1) * (enthalpy - 0.5 * _square(velocity)[:, 0])).clamp_min(0.0))
        normal = velocity[:, axis]
        low = torch.minimum(normal - sound, left[:, 2 + axis] - self.sound_speed(left))
        high = torch.maximum(normal + sound, right[:, 2 + axis] + self.sound_speed(right))
        return low, high

    def _acoustics(self, mean: Tensor) -> tuple[Tensor, Tensor]:
        """Impedance rho c, and 1 / c²."""
        return torch.sqrt(self.gamma * mean[:, 0] * mean[:, 1]), mean[:, 0] / (self.gamma * mean[:, 1])


def _square(velocity: Tensor) -> Tensor:
    return velocity.square().sum(dim=1, keepdim=True)


def _enthalpy(state: Tensor, gamma: float) -> Tensor:
    """Per mass, (E + p) / rho."""
    return gamma / (gamma - 1) * state[:, 1] / state[:, 0] + 0.5 * _square(state[:, 2:])[:, 0]


build = Euler
