r"""Diffusion-reaction on an interval with a source in space:
:math:`s_t = D s_{xx} + k s^2 + u(x)`, s = 0 at t = 0 and at both ends; u -> s(x, t).

u  source       [1/s]    given, constant in time; Gaussian process, covariance exp(-(x - x')² / 2 l²), l = 0.2
s  density      [1]      sought
D  diffusivity  [m^2/s]  given: 0.01
k  reaction     [1/s]    given: 0.01

Lu, Jin and Karniadakis 2019 (arXiv 1910.03193), on 100 x 100 nodes. One static map on space-time: the axes are x and
t, the input u(x) stands at every t. u does not vanish at the ends, so s has boundary layers sqrt(D t) thick and, for
k = 0, the sine series

.. math:: s = \sum_n u_n \frac{1 - e^{-D \lambda_n t}}{D \lambda_n} \sin(\pi n x / L),\qquad \lambda_n = (\pi n/L)^2
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor

from ._etdrk import etdrk4_coefficients
from ._gaussian_process import squared_exponential
from ._grid import Axis, Grid
from ._local_polynomial import interpolation
from ._periodic import check_box, check_positive
from ._problem import Channel, Problem, Setup, Signature
from ._solver import Solver, SolverError, check_fields

DEGREE = 7  # of the polynomials that carry u from the nodes to Chebyshev's
CONSTANT = 1e-5  # variation of u in time, relative to its size, that float32 storage explains


@dataclass(frozen=True, kw_only=True)
class DiffusionReaction(Problem):
    """From a source to the whole space-time solution."""

    diffusivity: float = 0.01  # D [m^2/s]
    reaction: float = 0.01  # k [1/s]
    correlation: float = 0.2  # l, correlation length of u [m]
    amplitude: float = 1.0  # pointwise standard deviation of u [1/s]
    length: float = 1.0  # of the interval [m]
    duration: float = 1.0  # [s]

    setups: ClassVar[Mapping[str, Setup]] = {
        "quick": Setup(resolution=33, train=300, validation=30, test=60),
        "paper": Setup(resolution=100, train=1000, validation=100, test=1000),
    }
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "deeponet": {"diffusivity": 0.01, "reaction": 0.01, "correlation": 0.2}
    }

    def __post_init__(self) -> None:
        check_positive(diffusivity=self.diffusivity, correlation=self.correlation, amplitude=self.amplitude)
        check_positive(length=self.length, duration=self.duration)
        if not math.isfinite(self.reaction):
            raise ValueError(f"reaction is a finite rate, got {self.reaction}.")

    @property
    def signature(self) -> Signature:
        return Signature((Channel("source", "1/s", "source u"),), (Channel("density", "1", "density s"),))

    def grid(self, resolution: int | Sequence[int]) -> Grid:
        """Axes x and t, with as many nodes each, or (x nodes, t nodes)."""
        sizes = check_box(Grid.box(resolution, dim=2, boundary="dirichlet"), 2, "diffusion_reaction").shape
        space = Axis("x", sizes[0], 0.0, self.length, ("dirichlet", "dirichlet"), "ends", "m")
        return Grid((space, Axis("t", sizes[1], 0.0, self.duration, ("dirichlet", "outflow"), "ends", "s")))

    def sample(self, count: int, grid: Grid, *, generator: Generator) -> Tensor:
        law = {"correlation": self.correlation, "amplitude": self.amplitude}
        source = squared_exponential(count, grid.axes[0], **law, generator=generator)
        return source[:, None, :, None].expand(-1, -1, -1, grid.shape[1]).contiguous()

    def reference(self, **accuracy: Any) -> Chebyshev:
        """Spectral in space, order 4 in time; see :class:`Chebyshev` for ``nodes`` and ``substeps``."""
        return Chebyshev(self, **accuracy)

    def ladder(self, grid: Grid) -> Mapping[str, Solver]:
        """Fewer Chebyshev nodes."""
        return {f"Chebyshev {nodes} nodes": Chebyshev(self, nodes=nodes) for nodes in (6, 9, 14, 24, 48)}


class Chebyshev(Solver):
    """Chebyshev collocation in x, exponential time differencing of order 4 (ETDRK4) in t.

    nodes      of the Chebyshev grid, ends included
    substeps   time steps between two nodes of the t axis

    The diffusion is exact in time. Measured for the published law on 100 x 100 nodes, relative L2 against 128 nodes
    and 8 substeps: 1.2e-4 (16 nodes), 5e-6 (24), 7e-9 (48). Raises :class:`SolverError` where s blows up, as k s²
    makes it for large sources.
    """

    def __init__(self, problem: DiffusionReaction, *, nodes: int = 48, substeps: int = 2) -> None:
        if not 4 <= nodes <= 256:
            raise ValueError(f"nodes is from 4 to 256, got {nodes}.")
        if substeps < 1:
            raise ValueError(f"substeps is at least 1, got {substeps}.")
        self.problem = problem
        self.nodes = nodes
        self.substeps = substeps

    @torch.no_grad()
    def __call__(self, inputs: Tensor, grid: Grid, times: Sequence[float] | None = None) -> Tensor:
        check_fields(inputs, grid, 1)
        _check_constant(inputs)
        space, time = grid.axes
        basis = _basis(self.nodes, space.length, str(inputs.device))
        inner = space.lower + 0.5 * space.length * (1 + basis.points[1:-1])
        down = interpolation(space, tuple(inner.tolist()), DEGREE).to(inputs.device)
        source = inputs[:, 0, :, 0].to(torch.float64) @ down.T @ basis.to_modes.T
        up = _barycentric(2 * (space.coordinates() - space.lower) / space.length - 1, basis.points).to(inputs.device)
        outputs = torch.zeros(len(inputs), space.size, time.size, dtype=torch.float64, device=inputs.device)
        for i, modes in enumerate(self._frames(source, time, basis), start=1):
            values = modes @ basis.to_values.T
            outputs[:, :, i] = values @ up[:, 1:-1].T
            _check_finite(outputs[:, :, i], time.lower + i * time.spacing)
        return outputs[:, None].to(inputs.dtype)

    def _frames(self, source: Tensor, time: Axis, basis: Basis) -> list[Tensor]:
        """Eigenmode amplitudes at the nodes of the time axis after the first."""
        step = _etdrk4_step(self.problem.diffusivity * basis.eigenvalues, time.spacing / self.substeps)
        state, frames = torch.zeros_like(source), []

        def nonlinear(modes: Tensor) -> Tensor:
            return source + self.problem.reaction * (modes @ basis.to_values.T).square() @ basis.to_modes.T

        for _ in range(time.size - 1):
            for _ in range(self.substeps):
                state = step(state, nonlinear)
            frames.append(state)
        return frames


def _etdrk4_step(symbol: Float[Tensor, " modes"], dt: float) -> Callable[[Tensor, Callable[[Tensor], Tensor]], Tensor]:
    """Cox and Matthews's step for real amplitudes; ``_etdrk`` has it for spectra."""
    half, full = torch.exp(symbol * dt / 2), torch.exp(symbol * dt)
    q, f1, f2, f3 = (dt * c for c in etdrk4_coefficients(symbol * dt))

    def step(u: Tensor, nonlinear: Callable[[Tensor], Tensor]) -> Tensor:
        n_u = nonlinear(u)
        a = half * u + q * n_u
        n_a = nonlinear(a)
        n_b = nonlinear(half * u + q * n_a)
        n_c = nonlinear(half * a + q * (2 * n_b - n_u))
        return full * u + f1 * n_u + f2 * (n_a + n_b) + f3 * n_c

    return step


@dataclass(frozen=True, eq=False)
class Basis:
    """Chebyshev points in [-1, 1] and the eigenvectors of d²/dx² with zero ends, as nodal values."""

    points: Float[Tensor, " nodes"]
    eigenvalues: Float[Tensor, " modes"]
    to_values: Float[Tensor, "inner modes"]
    to_modes: Float[Tensor, "modes inner"]


@functools.lru_cache(maxsize=16)
def _basis(nodes: int, length: float, device: str) -> Basis:
    """The eigenvalues of the Chebyshev matrix are real, negative and simple (Gottlieb and Lustman 1983)."""
    points = -np.cos(np.pi * np.arange(nodes) / (nodes - 1))
    first = _differentiation(points)
    second = (first @ first)[1:-1, 1:-1] * (2 / length) ** 2
    values, vectors = np.linalg.eig(second)
    parts = (points, values.real, vectors.real, np.linalg.inv(vectors.real))
    return Basis(*(torch.from_numpy(np.ascontiguousarray(part)).to(device) for part in parts))


def _differentiation(points: np.ndarray) -> np.ndarray:
    """Of the polynomial through all points (barycentric; diagonal by the negative sum of the others)."""
    weights = _weights(len(points))
    gaps = points[:, None] - points[None, :] + np.eye(len(points))
    matrix = weights[None, :] / weights[:, None] / gaps
    np.fill_diagonal(matrix, 0.0)
    np.fill_diagonal(matrix, -matrix.sum(axis=1))
    return matrix


def _weights(count: int) -> np.ndarray:
    """Barycentric weights of Chebyshev's extreme points: alternating, halved at the ends."""
    weights = (-1.0) ** np.arange(count)
    weights[[0, -1]] *= 0.5
    return weights


def _barycentric(targets: Tensor, points: Tensor) -> Tensor:
    """Values at targets of the polynomial with given values at the points, as a matrix."""
    gaps = targets[:, None] - points[None, :].to(targets)
    hit = gaps.abs() < 1e-14
    terms = torch.from_numpy(_weights(len(points))) / torch.where(hit, 1.0, gaps)
    matrix = terms / terms.sum(dim=1, keepdim=True)
    return torch.where(hit.any(dim=1, keepdim=True), hit.to(matrix), matrix)


def _check_constant(inputs: Tensor) -> None:
    spread = (inputs - inputs[..., :1]).abs().flatten(1).amax(dim=1)
    moving = spread > CONSTANT * inputs.abs().flatten(1).amax(dim=1)
    if bool(moving.any()):
        bad = moving.nonzero().flatten().tolist()
        raise ValueError(f"The source is a function of x alone, the same at every t; it is not at sample(s) {bad[:8]}.")


def _check_finite(values: Tensor, time: float) -> None:
    finite = torch.isfinite(values).all(dim=1)
    if not bool(finite.all()):
        bad = (~finite).nonzero().flatten().tolist()
        raise SolverError(f"The density blew up near time {time:g} at sample(s) {bad[:8]}: k s² outgrew diffusion.")


build = DiffusionReaction
