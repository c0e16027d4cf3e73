r"""FitzHugh-Nagumo diffusion-reaction on a box, between walls or periodic: (u, v)(0) -> (u, v) at the following frames.

.. math:: u_t = D_u \Delta u + u - u^3 - k - v,\qquad v_t = D_v \Delta v + u - v

u     activator   [1]      sought
v     inhibitor   [1]      sought
D_u   diffusivity [m^2/s] given: 1e-3
D_v   diffusivity [m^2/s] given: 5e-3; patterns need it well above D_u
k     offset      [1/s]    given: 5e-3

boundary   ``neumann``: nothing passes the walls (nodes ``centres``, cosine series); ``periodic``

``noise``         u and v at every node independent N(0, 1). It has no limit under refinement: the law belongs to its
                  grid, and coarse and fine samples are samples of different laws
``random_field``  the Gaussian field of the boundary's series, N(0, sigma^2 (-Delta + tau^2)^{-alpha}); ours

Preset ``pdebench_2d_diff_react``: the defaults, at 128² (Takamoto et al. 2022, arXiv 2210.07182; 101 frames from t = 0
to 5, of which the first is the initial state). Its initial law is described as standard normal noise; its generator is
unread, so whether u and v are drawn independently is not known. It computes by finite volumes, in which waves of few
nodes diffuse more slowly than in the equation: from noise the two agree in their statistics, not sample by sample.

The coupling of u and v is linear and solved exactly, with diffusion; the uniform rest state u = v = -k^(1/3) is stable.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from scipy import fft as scipy_fft
from torch import Generator, Tensor

from ._grid import Grid
from ._periodic import (
    OnCoarserGrid,
    PeriodicEvolution,
    Semilinear,
    check_box,
    check_not_negative,
    check_positive,
    coarse_ladder,
)
from ._problem import Channel, Problem, Setup, Signature
from ._products import pointwise
from ._solver import Solver
from ._spectral import Modes
from ._walls import BetweenWalls, between_walls, torus_of, wall_field, wall_grid


@dataclass(frozen=True, kw_only=True)
class FitzHughNagumo(Problem, Semilinear):
    """Activator and inhibitor, in one to three dimensions."""

    dim: Literal[1, 2, 3] = 2  # dimensions of the box
    boundary: Literal["neumann", "periodic"] = "neumann"
    diffusivity_u: float = 1e-3  # D_u [m^2/s]
    diffusivity_v: float = 5e-3  # D_v [m^2/s]
    offset: float = 5e-3  # k [1/s]
    initial: Literal["noise", "random_field"] = "noise"  # law of (u, v)(0)
    sigma: float = 25.0  # amplitude of a random field
    alpha: float = 2.0  # its smoothness
    tau: float = 5.0  # its inverse correlation length [1/m]
    length: float = 2.0  # side of the box [m]
    frames: int = 100
    spacing: float = 0.05  # time between frames [s]

    setups: ClassVar[Mapping[str, Setup]] = {
        "quick": Setup(resolution=32, train=64, validation=8, test=16),
        "paper": Setup(resolution=128, train=900, validation=0, test=100),
    }
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "pdebench_2d_diff_react": {"diffusivity_u": 1e-3, "diffusivity_v": 5e-3, "offset": 5e-3, "frames": 100},
    }

    def __post_init__(self) -> None:
        if self.dim not in (1, 2, 3):
            raise ValueError(f"dim is 1, 2 or 3, got {self.dim}.")
        if self.boundary not in ("neumann", "periodic"):
            raise ValueError(f"boundary is 'neumann' or 'periodic' (1 is not odd in u), got {self.boundary!r}.")
        check_not_negative(diffusivity_u=self.diffusivity_u, diffusivity_v=self.diffusivity_v, tau=self.tau)
        check_positive(length=self.length, frames=self.frames, spacing=self.spacing, sigma=self.sigma)
        if not math.isfinite(self.offset):
            raise ValueError(f"offset must be finite, got {self.offset}.")
        if self.initial not in ("noise", "random_field"):
            raise ValueError(f"initial is 'noise' or 'random_field', got {self.initial!r}.")
        if not self.dim / 2 < self.alpha < math.inf:
            raise ValueError(f"alpha must be above dim / 2, or u(0) has no finite variance; got {self.alpha}.")

    @property
    def signature(self) -> Signature:
        state = (Channel("activator", "1", "activator u"), Channel("inhibitor", "1", "inhibitor v"))
        return Signature(state, state, self.frames, self.spacing, "s")

    def grid(self, resolution: int | Sequence[int]) -> Grid:
        half = self.length / 2
        box = wall_grid(resolution, self.boundary, dim=self.dim, lower=-half, upper=half)
        return check_box(box, self.dim, "fitzhugh_nagumo")

    def sample(self, count: int, grid: Grid, *, generator: Generator) -> Tensor:
        if self.initial == "noise":
            return torch.randn(count, 2, *grid.shape, dtype=torch.float64, generator=generator)
        law = {"alpha": self.alpha, "tau": self.tau, "sigma": self.sigma}
        return torch.stack([wall_field(count, grid, **law, generator=generator) for _ in range(2)], dim=1)

    def reference(self, *, all_modes: bool = True, **accuracy: Any) -> BetweenWalls:
        """Fourier or cosine series, order 4 in time; ``tolerance``, ``step``, ``method`` of :class:`PeriodicEvolution`.

        all_modes   solve on 3/2 times as many nodes an axis, so that every wave of the grid takes part in the reaction.
                    Noise has as much in its short waves as in its long ones; smooth states may do without, three
                    times faster (128², one core: 9 s instead of 26 s a published trajectory)
        """
        evolution = PeriodicEvolution(self, **accuracy)
        return BetweenWalls(_AllModes(evolution) if all_modes else evolution)

    def ladder(self, grid: Grid) -> Mapping[str, Solver]:
        return between_walls(coarse_ladder(self, torus_of(grid)))

    def symbol(self, modes: Modes) -> Tensor:
        one = torch.ones_like(modes.k2)
        of_u, of_v = 1 - self.diffusivity_u * modes.k2, -1 - self.diffusivity_v * modes.k2
        return torch.stack([torch.stack([of_u, -one]), torch.stack([one, of_v])])

    def nonlinear(self, spectrum: Tensor, modes: Modes) -> Tensor:
        cube = pointwise(lambda u: -(u**3) - self.offset, spectrum[:, :1], modes, degree=3)
        return torch.cat([cube, torch.zeros_like(cube)], dim=1)


class _AllModes(Solver):
    """A periodic solver on so many more nodes that the 2/3 rule keeps all modes of the grid that is asked for."""

    def __init__(self, solver: PeriodicEvolution) -> None:
        self.solver = solver

    def __call__(self, inputs: Tensor, grid: Grid, times: Sequence[float] | None = None) -> Tensor:
        shape = [scipy_fft.next_fast_len(-(-3 * n // 2), real=True) for n in grid.shape]
        return OnCoarserGrid(self.solver, shape)(inputs, grid, times)


build = FitzHughNagumo
