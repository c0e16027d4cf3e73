r"""Kuramoto-Sivashinsky equation on a periodic box: u(0) -> u at the following frames.

.. math:: \text{conservative:}\quad u_t + b\, u\, u_x + \psi\, u_{xx} + \zeta\, u_{xxxx} = 0 \\
          \text{combustion:}\quad   u_t + \tfrac b2 |\nabla u|^2 + \psi\, \Delta u + \zeta\, \Delta^2 u = 0

u      conservative: slope of a flame front [m/s]; combustion: its height (in one and two dimensions)
b      nonlinearity      [1]      given
psi    antidiffusion     [m^2/s]  given: feeds waves longer than 2 pi sqrt(zeta / psi)
zeta   hyperdiffusion    [m^4/s]  given: damps the shorter ones

The slope of a solution of the one is a solution of the other. A small wave of wave number k grows at the rate
psi k² - zeta k⁴. Scaled to b = psi = zeta = 1, everything decays for L < 2 pi, steady and travelling cells follow, and
from L of about 22 on (32 pi: fully) the solution is chaotic with a largest Lyapunov exponent near 0.1: an error grows
e-fold in about 10 time units, so no solver's frames agree with another's beyond some 100; statistics do. Use two or
more nodes a unit length.

The mean of the height moves by -b/2 mean(abs(grad u)²), apart from everything else; ``drift = False`` takes it out.
``warmup`` lets the state of the law evolve onto the attractor before it is time 0.

``kassam_trefethen``: L = 32 pi up to t = 150 (SIAM J. Sci. Comput. 26, 2005; there from cos(x/16)(1 + sin(x/16))).
``apebench``, ``apebench_conservative``: APEBench's difficulties (-6, -1.2, -15) and (-1, -2, -18) on 160 nodes in units
where L = 1 and a frame is 1, after 500 frames of warm-up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Generator, Tensor

from ._grid import Grid
from ._initial_states import Law, check_law, initial_states
from ._periodic import Semilinear, check_box, check_not_negative, check_positive
from ._problem import Channel, Problem, Setup, Signature
from ._products import minus_half_derivative
from ._refined import RefinedEvolution, refined_ladder
from ._solver import Solver
from ._spectral import Modes


@dataclass(frozen=True, kw_only=True)
class KuramotoSivashinsky(Problem, Semilinear):
    """Spatio-temporal chaos in one or two dimensions."""

    form: Literal["conservative", "combustion"] = "conservative"
    dim: Literal[1, 2] = 1  # dimensions of the box; two in combustion form only
    nonlinearity: float = 1.0  # b
    antidiffusion: float = 1.0  # psi [m^2/s]
    hyperdiffusion: float = 1.0  # zeta [m^4/s]
    drift: bool = True  # combustion: whether the mean height moves
    initial: Law = "truncated_fourier"  # law of u(0), before the warm-up
    alpha: float = 3.0  # smoothness of a random field
    tau: float = 1.0  # its inverse correlation length [1/m]
    warmup: float = 0.0  # time a sample has evolved before it is time 0 [s]
    length: float = 64.0  # side of the box [m]
    frames: int = 10
    spacing: float = 1.0  # time between frames [s]

    setups: ClassVar[Mapping[str, Setup]] = {
        "quick": Setup(resolution=128, train=128, validation=16, test=32),
        "paper": Setup(resolution=256, train=1000, validation=100, test=200),
    }
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "kassam_trefethen": {"length": 32 * math.pi, "frames": 150, "spacing": 1.0},
        "apebench": {
            **{"form": "combustion", "nonlinearity": 6 / 160**2, "drift": False, "length": 1.0},
            **{"antidiffusion": 1.2 / (2 * 160**2), "hyperdiffusion": 15 / (8 * 160**4)},
            **{"warmup": 500.0, "frames": 50, "spacing": 1.0},
        },
        "apebench_conservative": {
            **{"nonlinearity": 1 / 160, "length": 1.0},
            **{"antidiffusion": 2 / (2 * 160**2), "hyperdiffusion": 18 / (8 * 160**4)},
            **{"warmup": 500.0, "frames": 50, "spacing": 1.0},
        },
    }

    def __post_init__(self) -> None:
        if self.form not in ("conservative", "combustion"):
            raise ValueError(f"form is 'conservative' or 'combustion', got {self.form!r}.")
        if self.dim not in ((1,) if self.form == "conservative" else (1, 2)):
            raise ValueError(f"dim is 1 (conservative form) or 1 or 2 (combustion form), got {self.dim}.")
        if not math.isfinite(self.nonlinearity):
            raise ValueError(f"nonlinearity must be finite, got {self.nonlinearity}.")
        check_not_negative(antidiffusion=self.antidiffusion, tau=self.tau, warmup=self.warmup)
        check_positive(hyperdiffusion=self.hyperdiffusion, length=self.length)
        check_positive(frames=self.frames, spacing=self.spacing)
        check_law(self.initial, self.alpha, self.dim)

    @property
    def signature(self) -> Signature:
        name, unit = ("slope", "m/s") if self.form == "conservative" else ("height", "m^2/s")
        state = (Channel(name, unit, f"{name} u"),)
        return Signature(state, state, self.frames, self.spacing, "s")

    def grid(self, resolution: int | Sequence[int]) -> Grid:
        box = Grid.box(resolution, dim=self.dim, upper=self.length, unit="m")
        return check_box(box, self.dim, "kuramoto_sivashinsky")

    def sample(self, count: int, grid: Grid, *, generator: Generator) -> Tensor:
        state = initial_states(self.initial, count, grid, alpha=self.alpha, tau=self.tau, generator=generator)
        return self.reference()(state, grid, (self.warmup,))[:, 0] if self.warmup > 0 else state

    def reference(self, **accuracy: Any) -> RefinedEvolution:
        """Fourier in space, order 4 in time; ``nodes``, ``tolerance``, … of :class:`RefinedEvolution`."""
        return RefinedEvolution(self, **accuracy)

    def ladder(self, grid: Grid) -> Mapping[str, Solver]:
        return refined_ladder(self, grid)

    def symbol(self, modes: Modes) -> Tensor:
        return self.antidiffusion * modes.k2 - self.hyperdiffusion * modes.k2.square()

    def nonlinear(self, spectrum: Tensor, modes: Modes) -> Tensor:
        if self.form == "conservative":
            squares = modes.forward(modes.inverse(spectrum).square_())
            return squares * (self.nonlinearity * minus_half_derivative(modes))
        squares = sum((modes.inverse(ik * spectrum).square_() for ik in modes.ik), start=torch.zeros(()))
        wanted = modes.kept if self.drift else modes.kept * (modes.k2 > 0)
        return modes.forward(squares) * (-0.5 * self.nonlinearity * wanted)

    def top_speed(self, spectrum: Tensor, modes: Modes) -> float:
        """Largest abs(b u), or abs(b grad u): the slope carries itself."""
        slopes = (spectrum,) if self.form == "conservative" else (ik * spectrum for ik in modes.ik)
        return abs(self.nonlinearity) * max(float(modes.inverse(slope).abs().max()) for slope in slopes)

    def growth_rate(self, wavenumber: float) -> float:
        """Of a small wave, psi k² - zeta k⁴ [1/s]."""
        return self.antidiffusion * wavenumber**2 - self.hyperdiffusion * wavenumber**4


build = KuramotoSivashinsky
