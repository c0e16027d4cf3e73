r"""The prior of the published method: a spectrum an axis, and values at uniform nodes with their conditional means.

.. math:: u_{xx} = K'' (K + \epsilon I)^{-1} U\quad\text{along one axis},\qquad \log|C|,\quad U^T C^{-1} U

Covariances of uniform nodes are Toeplitz: they are evaluated, factored and differentiated by their lags
(:mod:`._toeplitz`). Gradients are hand-written through the solves; what is solved once with a factor is shared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..pde import Grid
from ._covariance import TURN, SpectralMixture, Stationary, StudentMixture
from ._kronecker import apply
from ._toeplitz import Factor, LogDet, Product, Solve

Mixture = Literal["student", "gaussian", "matern", "squared_exponential"]


class Spectrum:
    """The free parameters of one axis' covariance."""

    def __init__(self, mixture: Mixture, components: int, highest: float) -> None:
        self.mixture = mixture
        start = torch.full((components,), -math.log(components), dtype=torch.float64)
        self.log_weights = start.requires_grad_()
        self.log_lengths = torch.zeros(components, dtype=torch.float64, requires_grad=True)
        waves = mixture in ("student", "gaussian")
        top = highest if waves else 0.0
        self.frequencies = torch.linspace(0, top, components, dtype=torch.float64).requires_grad_(waves)

    @property
    def free(self) -> list[Tensor]:
        every = [self.log_weights, self.log_lengths, self.frequencies]
        return [one for one in every if one.requires_grad]

    def covariance(self) -> Stationary:
        """The stored length is the logarithm of 2 pi² s² (Gaussian) or of the inverse length b (Student-t)."""
        weights = self.log_weights.exp()
        if self.mixture in ("gaussian", "squared_exponential"):
            return SpectralMixture(weights, self.frequencies, (0.5 * self.log_lengths).exp() * math.sqrt(2) / TURN)
        return StudentMixture(weights, self.frequencies, self.log_lengths.exp())

    def lags(self, nodes: Tensor, orders: Sequence[int]) -> dict[int, Tensor]:
        """k^(p) at the lags of uniform nodes: the first columns of K^(p)."""
        return self.covariance().lags(nodes - nodes[0], orders)


@dataclass
class Process:
    """A prior and the values of a solution at the nodes of a grid."""

    grid: Grid
    spectra: tuple[Spectrum, ...]
    values: Tensor  # U
    jitter: float

    @property
    def hyperparameters(self) -> list[Tensor]:
        return [one for spectrum in self.spectra for one in spectrum.free]

    def jittered(self, lags: Tensor) -> Tensor:
        return torch.cat([lags[:1] + self.jitter, lags[1:]])

    def fields(self, wanted: set[tuple[int, ...]]) -> tuple[dict[tuple[int, ...], Tensor], Tensor, Tensor]:
        """Derivatives at the nodes as conditional means, log|C|, and U^T C^{-1} U."""
        logdet, whole = torch.zeros((), dtype=torch.float64), self.values
        lines = []
        for j, spectrum in enumerate(self.spectra):
            orders = {orders[j] for orders in wanted} | {0}
            line = _Along(j, spectrum.lags(self.grid.axes[j].coordinates(), sorted(orders)), self.jittered)
            logdet = logdet + LogDet.apply(line.jittered, line.factor) * (self.values.numel() / self.grid.shape[j])
            whole = line.solve(whole)
            lines.append(line)
        fields = {orders: self._derivative(orders, lines) for orders in wanted}
        return fields, logdet, (self.values * whole).sum()

    def _derivative(self, orders: tuple[int, ...], lines: Sequence[_Along]) -> Tensor:
        field = self.values
        for line, order in zip(lines, orders, strict=True):
            if order:
                field = line.derivative(field, order)
        return field

    @torch.no_grad()
    def predict(self, points: Sequence[Tensor], orders: Sequence[int]) -> Tensor:
        """The conditional mean of a derivative on a tensor grid of points."""
        rows, whole = [], self.values
        for j, (spectrum, x, order) in enumerate(zip(self.spectra, points, orders, strict=True)):
            nodes, covariance = self.grid.axes[j].coordinates(), spectrum.covariance()
            whole = _Along(j, spectrum.lags(nodes, (0,)), self.jittered).solve(whole)
            rows.append(covariance.matrix(x, nodes, order))
        return apply(rows, whole)


class _Along:
    """One axis at the current hyperparameters: a factor of its covariance, and derivatives of fields."""

    def __init__(self, axis: int, lags: dict[int, Tensor], jittered: Callable[[Tensor], Tensor]) -> None:
        self.axis, self.lags, self.jittered = axis, lags, jittered(lags[0])
        self.factor = Factor(self.jittered.detach())

    def solve(self, field: Tensor) -> Tensor:
        return Solve.apply(self.jittered, field, self.axis, self.factor)

    def derivative(self, field: Tensor, order: int) -> Tensor:
        """K^(p) K^{-1} field."""
        return Product.apply(self.lags[order], self.solve(field), self.axis, -1.0 if order % 2 else 1.0)
