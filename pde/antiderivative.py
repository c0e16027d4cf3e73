r"""Antiderivative :math:`s'(x) = u(x)`, s(0) = 0, on an interval; u -> s. The first operator of the DeepONet paper.

u  integrand       [1/m]  given; Gaussian process with covariance exp(-(x - x')² / 2 l²), l = ``correlation`` = 0.2
s  antiderivative  [1]    sought

Lu, Jin and Karniadakis 2019 (arXiv 1910.03193). Their demonstration reads u at 100 sensors and evaluates s at one
random point for each of 10,000 u (test: 100,000); here s comes at all nodes. It draws u on 1000 points and
interpolates; here the process itself is evaluated at the nodes, the same law without the detour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor

from ._gaussian_process import squared_exponential
from ._grid import Grid
from ._local_polynomial import check_degree, integration
from ._periodic import check_box, check_positive
from ._problem import Channel, Problem, Setup, Signature
from ._solver import Solver, check_fields


@dataclass(frozen=True, kw_only=True)
class Antiderivative(Problem):
    """The simplest operator there is: linear, causal."""

    correlation: float = 0.2  # l, correlation length of u [m]
    amplitude: float = 1.0  # pointwise standard deviation of u [1/m]
    length: float = 1.0  # of the interval [m]

    setups: ClassVar[Mapping[str, Setup]] = {
        "quick": Setup(resolution=65, train=500, validation=50, test=100),
        "paper": Setup(resolution=100, train=10_000, validation=1000, test=10_000),
    }
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"deeponet": {"correlation": 0.2}}

    def __post_init__(self) -> None:
        check_positive(correlation=self.correlation, amplitude=self.amplitude, length=self.length)

    @property
    def signature(self) -> Signature:
        given, sought = Channel("integrand", "1/m", "integrand u"), Channel("antiderivative", "1", "antiderivative s")
        return Signature((given,), (sought,))

    def grid(self, resolution: int | Sequence[int]) -> Grid:
        box = Grid.box(resolution, upper=self.length, boundary="outflow", placement="ends", unit="m")
        return check_box(box, 1, "antiderivative")

    def sample(self, count: int, grid: Grid, *, generator: Generator) -> Tensor:
        law = {"correlation": self.correlation, "amplitude": self.amplitude}
        return squared_exponential(count, grid.axes[0], **law, generator=generator)[:, None]

    def reference(self, **accuracy: Any) -> Quadrature:
        """Order 8; see :class:`Quadrature` for ``degree``."""
        return Quadrature(**accuracy)

    def ladder(self, grid: Grid) -> Mapping[str, Solver]:
        """The trapezoidal rule and its successors."""
        return {f"quadrature of degree {degree}": Quadrature(degree=degree) for degree in (1, 3, 5, 7)}


class Quadrature(Solver):
    """Integrates the polynomials through neighbouring nodes: exact for polynomials of the degree, of order one more.

    degree   of the polynomials, odd: 1 is the trapezoidal rule
    """

    def __init__(self, *, degree: int = 7) -> None:
        check_degree(degree)
        self.degree = degree

    @torch.no_grad()
    def __call__(self, inputs: Tensor, grid: Grid, times: Sequence[float] | None = None) -> Tensor:
        check_fields(inputs, grid, 1)
        matrix = integration(grid.axes[0], self.degree).to(inputs.device)
        return (inputs.to(torch.float64) @ matrix.T).to(inputs.dtype)


build = Antiderivative
