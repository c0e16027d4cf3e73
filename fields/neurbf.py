r"""NeuRBF: radial bases whose places and shapes come from the field, each with several sines (Chen et al., ICCV 2023).

.. math:: \varphi_i(x) = \psi\big((x-c_i)^T \Sigma_i^{-1} (x-c_i)\big),\quad
          \hat\varphi_i = \frac{\varphi_i}{\sum_j \varphi_j},\qquad
          f_k(x) = b_k + \sum_i a_{ik} \sin(m_k\, \hat\varphi_i(x))

then h + sin(w_l h_l), h = W f + b, with w log-spaced from 10 to 100, in the first hidden layer of a perceptron, and
smooth units in the others. Beside f stand the features of a small grid. Centres c: weighted k-means of the nodes, ten
iterations, weights :math:`|\nabla u|`; shapes Σ: the weighted covariance of each cluster over 0.5. Both are frozen:
only features, the grid and the perceptron are trained.

Published: the inverse quadratic :math:`\psi(s) = 1/(1 + s)` of the 4 nearest centres with the sum not differentiated, m
from 1/8 to 4096, a hash grid, rectified units: values only, for neighbours come and go by jumps. Here, because fields
have derivatives: all centres, the sum differentiated, so that the weights are a partition of unity; ``wendland`` of
compact support, :math:`(1-r)^6_+(35 r^2 + 18 r + 3)/3`, which has four continuous derivatives, beside the published
``quadratic``; m from 1/8 to ``finest``; a grid of cubic B-splines; GELU. On periodic axes distances go around.

Every pair of point and centre is computed: for some hundreds of centres.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from ._activations import gelu, power, sine
from ._builder import QUICK, fields_of, solver_of
from ._jet import Jet, joined
from ._network import Network, apply, check_sizes, dense, uniform_

INSTANCES, PRESETS = 1, QUICK  # it learns from no data
Kernel = Literal["wendland", "quadratic"]
ITERATIONS, SHARE = 10, 0.5  # of k-means; what covariances are divided by
REACH = 9.0  # Wendland's support ends where the squared distance is this
CLUSTERED = 16_384  # points that clusters are made of
COARSEST = 0.125  # least m
FEATURES = 1e-1  # bound of the features at the start


class NeuRbf(Network):
    """Positions -> channels.

    width      units a layer of the perceptron
    layers     of it
    centres    radial bases
    features   sums of them, each of its own frequency
    finest     the highest frequency m
    cells      of the grid of splines, one axis
    beside     features of the grid
    kernel     wendland, or quadratic: as published
    values     the values at the nodes of the domain that place the centres; None: even centres
    """

    precise = ("centres", "shapes")
    centres: Tensor
    shapes: Tensor
    tones: Tensor
    waves: Tensor
    grows = "centres"

    def __init__(
        self,
        dim: int,
        channels: int,
        *,
        width: int = 64,
        layers: int = 2,
        centres: int = 64,
        features: int = 32,
        finest: float = 8.0,
        cells: int = 8,
        beside: int = 2,
        kernel: Kernel = "wendland",
        values: Tensor | None = None,
        periodic: Sequence[bool] | None = None,
        generator: Generator | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        check_sizes(width=width, layers=layers, centres=centres, features=features, cells=cells, beside=beside)
        generator = generator or torch.Generator().manual_seed(0)
        self.periodic, self.kernel = tuple(periodic or (False,) * dim), kernel
        self.grid = Splines(beside, cells, self.periodic, generator, dtype)
        points, weights = _places(values, dim, self.periodic, generator)
        found, shapes = clusters(points, weights, centres, self.periodic, generator)
        self.register_buffer("centres", found.to(dtype))
        self.register_buffer("shapes", shapes.to(dtype))  # triangular factors of the inverse covariances
        self.factors = nn.Parameter(_uniform((features, centres), FEATURES, generator, dtype))
        self.shift = nn.Parameter(torch.zeros(features, dtype=dtype))
        sizes = [features + beside, *[width] * layers, channels]
        self.linears = nn.ModuleList(
            dense(a, b, generator=generator, dtype=dtype) for a, b in zip(sizes, sizes[1:], strict=False)
        )
        self.register_buffer("tones", _spaced(COARSEST, finest, features, dtype), persistent=False)
        self.register_buffer("waves", _spaced(10.0, 100.0, width, dtype) / width, persistent=False)

    @classmethod
    def matched(cls, waves: Sequence[float], /, **options: Any) -> dict[str, Any]:
        """The grid has a cell for each half wave, from 4 to 32 cells an axis; the bases go where the values vary."""
        cells = min(max(4, math.ceil(2 * max(waves) / math.pi)), 32)
        return {"cells": cells, **options}

    def forward(self, points: Jet) -> Jet:
        jet = apply(self.linears[0], joined([self.sums(points), self.grid(points)]))
        jet = jet + (jet * self.waves).through(sine(1.0))
        for linear in self.linears[1:]:
            jet = apply(linear, jet.through(gelu))
        return jet

    def bases(self, points: Jet) -> Jet:
        """The partition of unity: one channel a centre."""
        squares = self.distances(points)
        far = squares.through(wendland if self.kernel == "wendland" else inverse)
        return far * (far.sum() + 1e-8).through(power(-1.0))

    def distances(self, points: Jet) -> Jet:
        """(x - c)^T Sigma^-1 (x - c), one channel a centre."""
        total = None
        parts = []
        for j, circle in enumerate(self.periodic):
            away = points.select(slice(j, j + 1)) * torch.ones_like(self.centres[:, j]) + -self.centres[:, j]
            # around the axis: whole turns have no derivative
            parts.append(away + -2 * (away.value.detach() / 2).round() if circle else away)
        for row in range(len(parts)):
            along = parts[0] * self.shapes[:, row, 0]
            for j in range(1, len(parts)):
                along = along + parts[j] * self.shapes[:, row, j]
            total = along * along if total is None else total + along * along
        assert total is not None
        return total

    def sums(self, points: Jet) -> Jet:
        """The features: one frequency after the other, so that no tensor has points, centres and features."""
        bases, found = self.bases(points), []
        for tone, factor in zip(self.tones.tolist(), self.factors, strict=True):
            found.append(bases.through(sine(tone)).linear(factor[None]))
        return joined(found) + self.shift


class Splines(nn.Module):
    """Features of an even grid of cubic B-splines: two continuous derivatives."""

    def __init__(
        self, features: int, cells: int, periodic: Sequence[bool], generator: Generator, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.cells, self.periodic = cells, tuple(periodic)
        counts = [cells if circle else cells + 3 for circle in self.periodic]
        self.weight = nn.Parameter(_uniform((features, math.prod(counts)), FEATURES, generator, dtype))

    def forward(self, points: Jet) -> Jet:
        jet = points.select(slice(0, 1)) * 0.0 + 1.0
        for j, circle in enumerate(self.periodic):
            along = self._along(points.select(slice(j, j + 1)), circle)
            count, before = along.orders.shape[-1], jet.orders.shape[-1]
            left = Jet(jet.orders.repeat_interleave(count, dim=-1), jet.dim, jet.second)
            jet = left * Jet(along.orders.repeat(1, 1, before), along.dim, along.second)
        return jet.linear(self.weight)

    def _along(self, x: Jet, circle: bool) -> Jet:
        """The splines of one axis; on a circle the last three are the first."""
        place = torch.arange(-1, self.cells + 2, dtype=x.orders.dtype, device=x.orders.device)
        splines = ((x + 1.0) * (self.cells / 2) * torch.ones_like(place) + -place).through(cubic)
        if not circle:
            return splines
        # within one turn
        turned = x + -2 * ((x.value.detach() + 1) / 2).floor()
        splines = ((turned + 1.0) * (self.cells / 2) * torch.ones_like(place) + -place).through(cubic)
        fold = torch.zeros(self.cells, self.cells + 3, dtype=x.orders.dtype, device=x.orders.device)
        fold[torch.arange(self.cells + 3) % self.cells, torch.arange(self.cells + 3)] = 1.0
        return splines.linear(fold)


# ---------------------------------------------------------------------- functions of one variable


def inverse(s: Tensor, degree: int) -> list[Tensor]:
    """1 / (1 + s)."""
    v = 1 / (1 + s)
    return [v] if not degree else [v, -v * v, 2 * v**3]


def wendland(s: Tensor, degree: int) -> list[Tensor]:
    """(1 - r)^6 (35 r² + 18 r + 3) / 3 for r = sqrt(s / REACH) < 1, else 0; derivatives by s have no root of it."""
    r = (s / REACH).clamp(1e-24, 1.0).sqrt()  # the root has no slope at 0
    rest = 1 - r
    value = rest**6 * (35 * r * r + 18 * r + 3) / 3
    if not degree:
        return [value]
    return [value, -28 / 3 * rest**5 * (5 * r + 1) / REACH, 140 * rest**4 / REACH**2]


def cubic(x: Tensor, degree: int) -> list[Tensor]:
    """The cubic B-spline of unit spacing, centred at 0."""
    a = x.abs()
    near, far = (a < 1).to(x), ((a >= 1) & (a < 2)).to(x)
    value = near * (2 / 3 - a * a + a**3 / 2) + far * (2 - a) ** 3 / 6
    if not degree:
        return [value]
    slope = x.sign() * (near * (-2 * a + 1.5 * a * a) - far * (2 - a) ** 2 / 2)
    return [value, slope, near * (3 * a - 2) + far * (2 - a)]


# ---------------------------------------------------------------------- places and shapes


def _places(
    values: Tensor | None, dim: int, periodic: Sequence[bool], generator: Generator
) -> tuple[Float[Tensor, "point dim"], Float[Tensor, " point"]]:
    """Points to cluster and their weights: the nodes with the size of the gradient, or even ones."""
    if values is None:
        points = 2 * torch.rand(CLUSTERED // 4, dim, dtype=torch.float64, generator=generator) - 1
        return points, torch.ones(len(points), dtype=torch.float64)
    known = values.detach().double()
    square = torch.zeros(known.shape[1:], dtype=torch.float64)
    axes = []
    for j, circle in enumerate(periodic):
        n = known.shape[1 + j]
        nodes = torch.arange(n, dtype=torch.float64)
        axes.append(2 * nodes / n - 1 if circle else 2 * nodes / (n - 1) - 1)
        slope = (known.roll(-1, 1 + j) - known.roll(1, 1 + j)) / 2
        if not circle:
            slope = torch.gradient(known, dim=1 + j)[0]
        square += (slope * n).square().sum(dim=0)
    points = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1).t()
    weights = square.flatten().sqrt()
    if len(points) > CLUSTERED:
        chosen = torch.randperm(len(points), generator=generator)[:CLUSTERED]
        points, weights = points[chosen], weights[chosen]
    return points, weights + 1e-3 * weights.mean() + 1e-12


def clusters(
    points: Float[Tensor, "point dim"],
    weights: Float[Tensor, " point"],
    count: int,
    periodic: Sequence[bool],
    generator: Generator,
) -> tuple[Float[Tensor, "centre dim"], Float[Tensor, "centre dim dim"]]:
    """Weighted k-means: centres, and factors A of the inverse shapes, |A (x - c)|² the squared distance."""
    if count > len(points):
        raise ValueError(f"{count} centres need as many points to be placed by, got {len(points)}.")
    turns = torch.tensor([2.0 if circle else 0.0 for circle in periodic], dtype=points.dtype)
    first = torch.multinomial(weights, count, generator=generator)
    centres = points[first].clone()
    for _ in range(ITERATIONS):
        nearest = _away(points, centres, turns).square().sum(dim=-1).argmin(dim=1)
        offsets = _away(points, centres, turns)[torch.arange(len(points)), nearest]
        total = torch.zeros(count, dtype=points.dtype).index_add_(0, nearest, weights)
        moved = torch.zeros_like(centres).index_add_(0, nearest, weights[:, None] * offsets)
        centres = centres + moved / total.clamp_min(1e-300)[:, None]
    away = _away(points, centres, turns)
    nearest = away.square().sum(dim=-1).argmin(dim=1)
    offsets = away[torch.arange(len(points)), nearest]
    total = torch.zeros(count, dtype=points.dtype).index_add_(0, nearest, weights).clamp_min(1e-300)
    outer = weights[:, None, None] * offsets[:, :, None] * offsets[:, None, :]
    covariance = torch.zeros(count, *outer.shape[1:], dtype=points.dtype).index_add_(0, nearest, outer)
    covariance = covariance / total[:, None, None] / SHARE
    # a cluster of few points has no shape of its own: at least a part of the typical one, or a cell's where none has
    cell = (2 / count ** (1 / points.shape[1])) ** 2 / 12 / SHARE
    least = 0.1 * float(covariance.diagonal(dim1=1, dim2=2).mean()) or cell
    covariance = covariance + least * torch.eye(points.shape[1], dtype=points.dtype)
    return centres, torch.linalg.cholesky(torch.linalg.inv(covariance)).mT


def _away(points: Tensor, centres: Tensor, turns: Tensor) -> Float[Tensor, "point centre dim"]:
    away = points[:, None] - centres
    return torch.where(turns > 0, away - turns * (away / turns.clamp_min(1.0)).round(), away)


def _spaced(low: float, high: float, count: int, dtype: torch.dtype) -> Tensor:
    return torch.logspace(math.log10(low), math.log10(high), count, dtype=torch.float64).to(dtype)


def _uniform(shape: Sequence[int], limit: float, generator: Generator, dtype: torch.dtype) -> Tensor:
    values = torch.empty(*shape, dtype=dtype)
    uniform_(values, limit, generator)
    return values


field = fields_of(NeuRbf)
matched = field.matched
build = solver_of(NeuRbf, width=24, layers=1, centres=48, features=8, cells=6)
