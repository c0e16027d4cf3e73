r"""Gray-Scott reaction-diffusion on a periodic box: (A, B)(0) -> (A, B) at the following frames.

.. math:: A_t = D_A \Delta A - A B^2 + f (1 - A),\qquad B_t = D_B \Delta B + A B^2 - (f + k) B

A     feed species       [1]     sought: 1 where nothing reacts
B     catalyst           [1]     sought: 0 where nothing reacts
f     feed rate          [1/s]   given: 0.01 to 0.1
k     kill rate          [1/s]   given: 0.045 to 0.07
D_A   diffusivity of A   [m^2/s] given: 2e-5
D_B   diffusivity of B   [m^2/s] given: 1e-5. Fronts are some sqrt(D_B / (f + k)) = 0.01 m thick: use 64 nodes a metre.
                         With half of that B overshoots below 0, and the reaction may run away: the solver then says so

The presets are the pattern classes of The Well (gray_scott_reaction_diffusion; Pearson, Science 261, 1993): 1000 frames
of 10 s in a box of side 2 at 128². Its page prints -A B^2 in both equations; its generator has the signs above. The
laws of its initial states are those of the released generator (danfortunato/spectral-gray-scott), half of the set each:

``gaussians``  1 - A and B are each a sum of m bumps a exp(-s r^2), m from 10 … 100, a from [1, 3], s from
               [150, 300] / m^2, at random places, all uniform; then A and B are shifted and scaled onto [0, 1]
``fourier``    uniform noise from [-1/4, 1/4] on 32 nodes an axis, interpolated by trigonometric polynomials, added to
               (A, B) = (1, 0); where k < sqrt(f)/2 - f (bubbles), to another steady state instead, times 0.9 of its
               distance from 0 or 1

The range onto which ``gaussians`` are scaled is that of the values at the nodes (published: of the function). B becomes
negative by some percent in ``fourier`` states, as published.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Generator, Tensor

from ._grid import Grid
from ._periodic import PeriodicEvolution, Semilinear, check_box, check_positive, coarse_ladder
from ._problem import Channel, Problem, Setup, Signature
from ._products import pointwise
from ._solver import Solver
from ._spectral import Modes, fourier_resample

MOST_BUMPS, FEWEST_BUMPS = 100, 10
NOISE_NODES = 32
COARSEST = 2.0  # fronts a cell, of the ladder's coarsest grid

_WELL: Mapping[str, tuple[float, float]] = {
    "gliders": (0.014, 0.054),
    "bubbles": (0.098, 0.057),
    "maze": (0.029, 0.057),
    "worms": (0.058, 0.065),
    "spirals": (0.018, 0.051),
    "spots": (0.03, 0.062),
}


@dataclass(frozen=True, kw_only=True)
class GrayScott(Problem, Semilinear):
    """Pattern formation, periodic, in one to three dimensions."""

    dim: Literal[1, 2, 3] = 2  # dimensions of the box
    feed: float = 0.029  # f [1/s]
    kill: float = 0.057  # k [1/s]
    diffusivity_a: float = 2e-5  # D_A [m^2/s]
    diffusivity_b: float = 1e-5  # D_B [m^2/s]
    initial: Literal["gaussians", "fourier"] = "gaussians"  # law of (A, B)(0)
    length: float = 1.0  # side of the box [m]
    frames: int = 20
    spacing: float = 50.0  # time between frames [s]

    setups: ClassVar[Mapping[str, Setup]] = {
        "quick": Setup(resolution=64, train=64, validation=8, test=16),
        "paper": Setup(resolution=128, train=160, validation=20, test=20),
    }
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        name: {"feed": feed, "kill": kill, "length": 2.0, "frames": 1000, "spacing": 10.0}
        for name, (feed, kill) in _WELL.items()
    }

    def __post_init__(self) -> None:
        if self.dim not in (1, 2, 3):
            raise ValueError(f"dim is 1, 2 or 3, got {self.dim}.")
        check_positive(feed=self.feed, kill=self.kill, length=self.length, frames=self.frames, spacing=self.spacing)
        check_positive(diffusivity_a=self.diffusivity_a, diffusivity_b=self.diffusivity_b)
        if self.initial not in ("gaussians", "fourier"):
            raise ValueError(f"initial is 'gaussians' or 'fourier', got {self.initial!r}.")

    @property
    def signature(self) -> Signature:
        species = (Channel("A", "1", "feed species A"), Channel("B", "1", "catalyst B"))
        return Signature(species, species, self.frames, self.spacing, "s")

    def grid(self, resolution: int | Sequence[int]) -> Grid:
        half = self.length / 2
        return check_box(Grid.box(resolution, dim=self.dim, lower=-half, upper=half, unit="m"), self.dim, "gray_scott")

    def sample(self, count: int, grid: Grid, *, generator: Generator) -> Tensor:
        draw = self._gaussians if self.initial == "gaussians" else self._fourier
        return torch.stack([draw(grid, generator) for _ in range(count)])

    def _gaussians(self, grid: Grid, generator: Generator) -> Tensor:
        state = torch.stack([-_bumps(grid, generator), _bumps(grid, generator)])
        low = state.flatten(1).amin(dim=1).reshape(2, *(1,) * grid.dim)
        state = state - low
        return state / state.flatten(1).amax(dim=1).reshape(2, *(1,) * grid.dim)

    def _fourier(self, grid: Grid, generator: Generator) -> Tensor:
        noise = torch.rand(2, *(NOISE_NODES,) * grid.dim, dtype=torch.float64, generator=generator) - 0.5
        mean, reach = torch.tensor(self._around(), dtype=torch.float64).reshape(2, 2, *(1,) * grid.dim)
        return mean + 0.5 * reach * fourier_resample(noise, grid.shape)

    def _around(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """(A, B) of the steady state that ``fourier`` disturbs, and how far each may go."""
        a, b = self.steady_state
        if (a, b) == (1.0, 0.0):
            return (a, b), (1.0, 1.0)
        return (a, b), (0.9 * min(a, 1 - a), 0.9 * min(b, 1 - b))

    @property
    def steady_state(self) -> tuple[float, float]:
        """The uniform steady state with the most B: (1, 0) alone, unless k < sqrt(f)/2 - f."""
        f, decay = self.feed, self.feed + self.kill
        if not self.kill < math.sqrt(f) / 2 - f:
            return 1.0, 0.0
        root = math.sqrt(1 - 4 * decay**2 / f)
        return (1 - root) / 2, f * (1 + root) / (2 * decay)

    def reference(self, **accuracy: Any) -> PeriodicEvolution:
        """Fourier in space, order 4 in time; see :class:`PeriodicEvolution` for ``tolerance``, ``step``, ``method``."""
        return PeriodicEvolution(self, **accuracy)

    def ladder(self, grid: Grid) -> Mapping[str, Solver]:
        front = math.sqrt(self.diffusivity_b / (self.feed + self.kill))
        return coarse_ladder(self, grid, smallest=round(self.length / (COARSEST * front)))

    def symbol(self, modes: Modes) -> Tensor:
        of_a = -self.diffusivity_a * modes.k2 - self.feed
        of_b = -self.diffusivity_b * modes.k2 - (self.feed + self.kill)
        return torch.stack([of_a, of_b])

    def nonlinear(self, spectrum: Tensor, modes: Modes) -> Tensor:
        return pointwise(self._reaction, spectrum, modes, degree=3)

    def _reaction(self, state: Tensor) -> Tensor:
        """What the linear part leaves: (f - A B^2, A B^2)."""
        rate = state[:, 0] * state[:, 1].square()
        return torch.stack([self.feed - rate, rate], dim=1)


def _bumps(grid: Grid, generator: Generator) -> Tensor:
    """A sum of Gaussian bumps over all periodic images; separable, so one factor an axis."""
    count = int(torch.randint(FEWEST_BUMPS, MOST_BUMPS + 1, (), generator=generator))
    height, sharpness, *centres = torch.rand(2 + grid.dim, count, dtype=torch.float64, generator=generator)
    total, letters = 1 + 2 * height, "xyz"[: grid.dim]
    factors = []
    for axis, centre in zip(grid.axes, centres, strict=True):
        images = axis.lower + axis.length * (centre[:, None] + torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64))
        squares = (axis.coordinates() - images[..., None]).square()
        factors.append(torch.exp(-(150 + 150 * sharpness)[:, None, None] * squares).sum(dim=1))
    pattern = "b," + ",".join(f"b{letter}" for letter in letters) + "->" + letters
    return torch.einsum(pattern, total, *factors)


build = GrayScott
