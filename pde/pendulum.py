r"""Pendulum driven by a random torque: :math:`s_1' = s_2`, :math:`s_2' = -k \sin s_1 + u(t)`; u -> (s1, s2).

u   torque over moment of inertia  [1/s²]  given; Gaussian process, covariance exp(-(t - t')² / 2 l²), l = 0.2
s1  angle                          [1]     sought
s2  angular velocity               [1/s]   sought
k   stiffness g / length           [1/s²]  given: 1

Lu, Jin and Karniadakis 2019 (arXiv 1910.03193): k = 1, from rest, up to t = 1 (and 3, 5). The grid's one axis is time.
Undriven, :math:`\tfrac12 s_2^2 - k\cos s_1` stays what it was, and from rest at angle a,
:math:`\sin(s_1/2) = \sin(a/2)\,\mathrm{cd}(\sqrt k\, t \mid \sin^2(a/2))` with Jacobi's cd = cn / dn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor

from ._gaussian_process import squared_exponential
from ._grid import Axis, Grid
from ._local_polynomial import check_degree, interpolation
from ._periodic import check_box, check_not_negative, check_positive
from ._problem import Channel, Problem, Setup, Signature
from ._solver import Solver, SolverError, check_fields


@dataclass(frozen=True, kw_only=True)
class Pendulum(Problem):
    """A nonlinear, causal operator."""

    stiffness: float = 1.0  # k [1/s^2]
    correlation: float = 0.2  # l, correlation time of u [s]
    amplitude: float = 1.0  # pointwise standard deviation of u [1/s^2]
    angle: float = 0.0  # s1(0)
    rate: float = 0.0  # s2(0) [1/s]
    duration: float = 1.0  # [s]

    setups: ClassVar[Mapping[str, Setup]] = {
        "quick": Setup(resolution=65, train=500, validation=50, test=100),
        "paper": Setup(resolution=100, train=10_000, validation=1000, test=10_000),
    }
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "deeponet": {"stiffness": 1.0, "correlation": 0.2, "duration": 1.0},
        "deeponet_t3": {"stiffness": 1.0, "correlation": 0.2, "duration": 3.0},
        "deeponet_t5": {"stiffness": 1.0, "correlation": 0.2, "duration": 5.0},
    }

    def __post_init__(self) -> None:
        check_positive(correlation=self.correlation, amplitude=self.amplitude, duration=self.duration)
        check_not_negative(stiffness=self.stiffness)
        if not (math.isfinite(self.angle) and math.isfinite(self.rate)):
            raise ValueError(f"angle and rate are finite; got {self.angle} and {self.rate}.")

    @property
    def signature(self) -> Signature:
        outputs = (Channel("angle", "1", "angle s1"), Channel("rate", "1/s", "angular velocity s2"))
        return Signature((Channel("torque", "1/s^2", "torque u"),), outputs)

    def grid(self, resolution: int | Sequence[int]) -> Grid:
        box = check_box(Grid.box(resolution, boundary="outflow", placement="ends"), 1, "pendulum")
        return Grid((Axis("t", box.shape[0], 0.0, self.duration, ("outflow", "outflow"), "ends", "s"),))

    def sample(self, count: int, grid: Grid, *, generator: Generator) -> Tensor:
        law = {"correlation": self.correlation, "amplitude": self.amplitude}
        return squared_exponential(count, grid.axes[0], **law, generator=generator)[:, None]

    def reference(self, **accuracy: Any) -> RungeKutta:
        """Order 4 in the step, 8 in the spacing of u's nodes; see :class:`RungeKutta` for ``substeps``, ``degree``."""
        return RungeKutta(self, **accuracy)

    def ladder(self, grid: Grid) -> Mapping[str, Solver]:
        """One step between nodes with linear interpolation of u, up to the reference."""
        pairs = ((1, 1), (3, 1), (5, 2), (7, 8))
        return {f"Runge-Kutta degree {d}, {n} steps": RungeKutta(self, degree=d, substeps=n) for d, n in pairs}


class RungeKutta(Solver):
    """The classical method of order 4, several steps between two nodes, on the interpolant of the torque.

    substeps   steps between two nodes
    degree     of the polynomials through neighbouring nodes that continue u between them, odd

    Measured for the published law at 100 nodes, largest error against ``substeps=64``: 6e-9 with 1 step, 1.5e-12 with 8
    (t <= 1). Up to t = 5, where 100 nodes are 4 a correlation length, the interpolation of u leaves 4e-5.
    """

    def __init__(self, problem: Pendulum, *, substeps: int = 8, degree: int = 7) -> None:
        if substeps < 1:
            raise ValueError(f"substeps is at least 1, got {substeps}.")
        check_degree(degree)
        self.problem = problem
        self.substeps = substeps
        self.degree = degree

    @torch.no_grad()
    def __call__(self, inputs: Tensor, grid: Grid, times: Sequence[float] | None = None) -> Tensor:
        check_fields(inputs, grid, 1)
        axis, halves = grid.axes[0], 2 * self.substeps
        stages = torch.linspace(axis.lower, axis.upper, halves * (axis.size - 1) + 1, dtype=torch.float64)
        matrix = interpolation(axis, tuple(stages.tolist()), self.degree).to(inputs.device)
        torque = matrix @ inputs[:, 0].to(torch.float64).T  # stage, batch
        state = torque.new_zeros(2, len(inputs))
        state[0], state[1] = self.problem.angle, self.problem.rate
        frames = [state]
        for i in range(0, len(stages) - 1, 2):
            state = self._step(state, torque[i : i + 3], axis.spacing / self.substeps)
            if (i + 2) % halves == 0:
                frames.append(state)
        outputs = torch.stack(frames, dim=-1).movedim(1, 0)
        _check_finite(outputs)
        return outputs.to(inputs.dtype).contiguous()

    def _step(self, state: Tensor, torque: Tensor, dt: float) -> Tensor:
        k1 = self._slope(state, torque[0])
        k2 = self._slope(state + 0.5 * dt * k1, torque[1])
        k3 = self._slope(state + 0.5 * dt * k2, torque[1])
        k4 = self._slope(state + dt * k3, torque[2])
        return state + dt / 6 * (k1 + 2 * (k2 + k3) + k4)

    def _slope(self, state: Tensor, torque: Tensor) -> Tensor:
        return torch.stack([state[1], torque - self.problem.stiffness * torch.sin(state[0])])


def _check_finite(outputs: Tensor) -> None:
    finite = torch.isfinite(outputs).flatten(1).all(dim=1)
    if not bool(finite.all()):
        bad = (~finite).nonzero().flatten().tolist()
        raise SolverError(f"The angle left the range of numbers at sample(s) {bad[:8]}. Check the inputs' size.")


build = Pendulum
