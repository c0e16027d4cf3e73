r"""Viscous Burgers equation on an interval, periodic or between walls: u(0) -> u at the following frames.

.. math:: u_t + u\,u_x = \nu\, u_{xx}

u     velocity   [m/s]    sought; initial u ~ N(0, sigma^2 (-d_xx + tau^2)^{-alpha}), without mean
nu    viscosity  [m^2/s]  given: 0.1 (smooth); at 1e-3 fronts are about 4 nu / max(u) thick, and 1024 nodes show them

boundary   ``periodic``, or ``dirichlet``: u = 0 at both walls (nodes ``ends``, sine series). Both live on
           [lower, lower + length].

The default law is the paper's, 625 (-d_xx + 25)^{-2} (Li et al. 2021, arXiv 2010.08895): alpha = 2, tau = 5,
sigma = 25. The released generator draws with alpha = 2.5, tau = 7, sigma = 49 instead: preset ``fno_generator``.

``pdebench_burgers_nu…``  PDEBench: the equation with nu / pi in place of nu, 200 frames up to t = 2, sums of two
    sinusoids (see ``_initial_states``: what of the law is not known), on (-1, 1) as the stored coordinates of the
    released files have it. The paper says (0, 1); issues 46 and 51 of PDEBench find that scaling inconsistent too.
``apebench_burgers``      APEBench's difficulties -1.5 (convection) and 1.5 (diffusion) on 160 nodes: a frame is
    dt = 1.5 L / 160, nu dt / L² = 1.5 / (2 · 160²). Its own reference takes one second-order step a frame.
``pinn_shock``            -sin(pi x) on [-1, 1] between walls, nu = 0.01 / pi, becomes a standing shock (Raissi et al.
    2019; published solution on 256 x 100 points). Samples are random fields; bring that state yourself.
``dgno``                  walls, nu = 0.1 / pi on [-1, 1] (Zang & Koutsourelakis 2025). The law of its inputs is not
    known; the one input that the released notebook shows is odd, somewhat rough, and 0.25 at most. Ours: odd random
    fields with alpha = 2, tau = 5 and a deviation of 0.13, whose largest value is 0.21 on average.

The reference refines its grid until the solution is resolved (:class:`RefinedEvolution`), so a shock given on 256
nodes is right at those nodes.

In closed form (Hopf 1950, Cole 1951): u = -2 nu phi_x / phi, where phi solves the heat equation from
phi(0) = exp(-U / 2 nu), U_x = u(0). The mean of u is conserved and only carries the solution along.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Generator, Tensor

from ._grid import Axis, Grid
from ._initial_states import Law, check_law, initial_states
from ._periodic import Semilinear, check_box, check_not_negative, check_positive
from ._problem import Channel, Problem, Setup, Signature, WithExact
from ._products import minus_half_derivative
from ._refined import RefinedEvolution, refined_ladder
from ._solver import Solver, check_fields, check_times
from ._spectral import Modes, fourier_resample, modes_of
from ._walls import BetweenWalls, between_walls, check_walls, extend, restrict, torus_of, wall_grid
from ._weak_form import Balance, Candidate, WithWeakForm, root_mean_squares

# phi(0) varies by exp(range of U / 2 nu), and as many digits of u are lost where phi is small; exp(14) leaves ten.
LARGEST_EXPONENT = 14.0


# one of PDEBench's file names each
PDEBENCH = (0.001, 0.002, 0.004, 0.01, 0.02, 0.04, 0.1, 0.2, 0.4, 1.0, 2.0, 4.0)


def _pdebench(nu: float) -> dict[str, Any]:
    box = {"lower": -1.0, "length": 2.0, "frames": 200, "spacing": 0.01}
    return {"viscosity": nu / math.pi, "initial": "sinusoids", **box}


@dataclass(frozen=True, kw_only=True)
class Burgers(Problem, Semilinear, WithExact, WithWeakForm):
    """One-dimensional, viscous, periodic or between walls."""

    viscosity: float = 0.1  # nu [m^2/s]
    boundary: Literal["periodic", "dirichlet"] = "periodic"
    initial: Law = "random_field"  # law of u(0)
    alpha: float = 2.0  # smoothness of a random field
    tau: float = 5.0  # its inverse correlation length [1/m]
    sigma: float = 25.0  # its amplitude
    lower: float = 0.0  # where the interval begins [m]
    length: float = 1.0  # of the interval [m]
    frames: int = 1
    spacing: float = 1.0  # time between frames [s]

    setups: ClassVar[Mapping[str, Setup]] = {
        "quick": Setup(resolution=128, train=256, validation=32, test=64),
        "paper": Setup(resolution=1024, train=1000, validation=100, test=200),
    }
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "fno_paper": {"viscosity": 0.1, "alpha": 2.0, "tau": 5.0, "sigma": 25.0},
        "fno_generator": {"viscosity": 0.1, "alpha": 2.5, "tau": 7.0, "sigma": 49.0},
        "fno_generator_1e-3": {
            **{"viscosity": 1e-3, "alpha": 2.5, "tau": 7.0, "sigma": 49.0},
            **{"frames": 200, "spacing": 0.005},
        },
        **{f"pdebench_burgers_nu{nu}": _pdebench(nu) for nu in PDEBENCH},
        "apebench_burgers": {
            **{"viscosity": 1.5 / (2 * 160**2) / (1.5 / 160), "initial": "truncated_fourier"},
            **{"frames": 50, "spacing": 1.5 / 160},
        },
        "pinn_shock": {
            **{"viscosity": 0.01 / math.pi, "boundary": "dirichlet", "lower": -1.0, "length": 2.0},
            **{"frames": 99, "spacing": 0.01},
        },
        "dgno": {
            **{"viscosity": 0.1 / math.pi, "boundary": "dirichlet", "lower": -1.0, "length": 2.0},
            **{"frames": 100, "spacing": 0.01, "initial": "odd_field", "sigma": 2.6},
        },
    }

    def __post_init__(self) -> None:
        if self.viscosity == 0:
            raise ValueError("Without viscosity fronts become shocks: use the problem inviscid_burgers.")
        check_positive(viscosity=self.viscosity, sigma=self.sigma, length=self.length)
        check_positive(frames=self.frames, spacing=self.spacing)
        check_not_negative(tau=self.tau)
        if self.boundary not in ("periodic", "dirichlet"):
            raise ValueError(f"boundary is 'periodic' or 'dirichlet' (u u_x is not even), got {self.boundary!r}.")
        if not math.isfinite(self.lower):
            raise ValueError(f"lower must be finite, got {self.lower}.")
        check_law(self.initial, self.alpha, 1, self.boundary)

    @property
    def signature(self) -> Signature:
        velocity = (Channel("velocity", "m/s", "velocity u"),)
        return Signature(velocity, velocity, self.frames, self.spacing, "s")

    def grid(self, resolution: int | Sequence[int]) -> Grid:
        upper = self.lower + self.length
        return check_box(wall_grid(resolution, self.boundary, dim=1, lower=self.lower, upper=upper), 1, "burgers")

    def sample(self, count: int, grid: Grid, *, generator: Generator) -> Tensor:
        law = {"alpha": self.alpha, "tau": self.tau, "sigma": self.sigma}
        return initial_states(self.initial, count, grid, **law, generator=generator)

    def reference(self, **accuracy: Any) -> BetweenWalls:
        """Fourier or sine series, order 4 in time; ``nodes``, ``tolerance``, … of :class:`RefinedEvolution`."""
        return BetweenWalls(RefinedEvolution(self, **accuracy))

    def ladder(self, grid: Grid) -> Mapping[str, Solver]:
        return between_walls(refined_ladder(self, torus_of(grid)))

    def weak_domain(self, grid: Grid) -> Grid:
        """The interval and the time that the frames span."""
        until = self.frames * self.spacing
        return Grid((*grid.axes, Axis("t", self.frames + 1, 0.0, until, ("neumann", "outflow"), "ends", "s")))

    def balances(self, candidate: Candidate) -> Mapping[str, Balance]:
        """Strong in time and weak in space."""
        u, slope = candidate.outputs["velocity"], candidate.gradients["velocity"]
        return {"momentum": Balance(self.viscosity * slope[..., :1], slope[..., 1] + u * slope[..., 0])}

    def balance_scales(self, inputs: Tensor, grid: Grid) -> Mapping[str, Tensor]:
        """U sqrt(nu / T) / l, l a quarter of the interval, T the time of the frames: in the norm dual to diffusion a
        residual then counts as much as a misfit of the beginning, whatever the amplitude U.
        """
        speed = math.sqrt(self.viscosity / (self.frames * self.spacing))
        return {"momentum": root_mean_squares(inputs).clamp_min(1e-6) * speed / (self.length / 4)}

    def output_scales(self, inputs: Tensor, grid: Grid) -> Mapping[str, float]:
        return {"velocity": float(root_mean_squares(inputs).mean())}

    def envelope(self, points: Tensor) -> Mapping[str, Tensor]:
        if self.boundary == "periodic":
            return {}
        unit = (points[..., 0] - self.lower) / self.length
        return {"velocity": torch.sin(math.pi * unit)}

    def boundary_points(self, count: int, grid: Grid, *, generator: Generator) -> Tensor:
        """Where the time begins."""
        x = self.lower + self.length * torch.rand(count, generator=generator, dtype=torch.float64)
        return torch.stack([x, torch.zeros_like(x)], dim=1)

    def conditions(self, candidate: Candidate) -> Mapping[str, Tensor]:
        given = candidate.inputs["velocity"]
        size = given.square().mean(dim=1, keepdim=True).sqrt().clamp_min(1e-6)
        return {"beginning": (candidate.outputs["velocity"] - given) / size}

    def symbol(self, modes: Modes) -> Tensor:
        return -self.viscosity * modes.k2

    def nonlinear(self, spectrum: Tensor, modes: Modes) -> Tensor:
        return modes.forward(modes.inverse(spectrum).square_()) * minus_half_derivative(modes)

    def top_speed(self, spectrum: Tensor, modes: Modes) -> float:
        """Largest abs(u): the velocity carries itself."""
        return float(modes.inverse(spectrum).abs_().max())

    @torch.no_grad()
    def exact(self, inputs: Tensor, grid: Grid, times: Sequence[float] | None = None) -> Tensor:
        """Cole-Hopf on a four times finer grid, for the trigonometric interpolant of ``inputs``.

        Raises ``ValueError`` where u(0) / nu is so large that the closed form loses more than six digits.
        """
        check_fields(inputs, grid, 1)
        times = tuple(self.signature.times if times is None else times)
        check_times(times)
        if not grid.periodic:
            check_walls(inputs, grid)
            return restrict(self.exact(extend(inputs, grid), torus_of(grid), times), grid)
        refinement = max(4, -(-1024 // grid.size))
        fine = fourier_resample(inputs.to(torch.float64), (refinement * grid.size,))
        modes = modes_of(grid.at(fine.shape[-1]), fine)
        mean = fine.mean(dim=-1, keepdim=True)
        heat = modes.forward(self._cole_hopf(fine, modes))
        frames = []
        for time in times:
            phi = heat * torch.exp(-self.viscosity * modes.k2 * time - modes.ik[0] * mean * time)
            ratio = modes.inverse(modes.ik[0] * phi) / modes.inverse(phi)
            frames.append((mean - 2 * self.viscosity * ratio)[..., ::refinement])
        return torch.stack(frames, dim=1).to(inputs.dtype)

    def _cole_hopf(self, velocity: Tensor, modes: Modes) -> Tensor:
        """phi(0), scaled to at most 1."""
        spectrum = modes.forward(velocity)
        potential = modes.inverse(modes.ik[0] * modes.inverse_laplacian * spectrum)
        exponent = -potential / (2 * self.viscosity)
        exponent = exponent - exponent.amax(dim=-1, keepdim=True)
        worst = -float(exponent.min())
        if worst > LARGEST_EXPONENT:
            raise ValueError(
                f"Cole-Hopf needs (max U - min U) / (2 nu) at most {LARGEST_EXPONENT:g} to keep its digits, got "
                f"{worst:.3g}. Use a larger viscosity, or the reference solver."
            )
        return torch.exp(exponent)


build = Burgers
