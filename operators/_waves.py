r"""Decoders whose trunk is known: the eigenfunctions of the Laplacian between the walls, with energies levelled.

.. math:: G(\beta)(x) = \sum_k \frac{\alpha_k(\beta)}{(1 + \lambda_k / \lambda_1)^s}\,\varphi_k(x),\qquad
          \alpha = \text{network}(\beta)

sines where a function vanishes on the walls, cosines where it is free there, both on a torus; along an axis of time 1
and t times Legendre polynomials, so that the first alone is the beginning; products of them on several axes; logits of
phases are ``gain`` times as large. s is 1, and 1/2 where there is time, for fronts. For lambda stands the problem's
``stiffness``, so that waves near a resonance are large.

With the factor, coefficients of order one give a solution of order one for a rough source, so that an objective of
energy is nearly round in them; features of a trained trunk are correlated, and its steps are as much slower. Measured
on two-phase Darcy at 29² (energy form, 2000 inputs): relative L2 of 0.020 in 30 s of one thread, against 0.070 in 40 s
of a MultiONet's trunk.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..pde import Axis, Grid
from ..pde._dual_norm import derivatives
from ..pde._eigenfunctions import Kind, eigenvalues_of, family
from ..pde._weak_form import Lattice, Places, listed
from ._branches import Dense
from .multionet import MultiONet


class Decoder(nn.Module, ABC):
    """A function of code and place: coefficients of the code times features of the place."""

    @abstractmethod
    def coefficients(self, code: Float[Tensor, "batch code"]) -> Float[Tensor, "batch feature"]: ...

    @abstractmethod
    def features(self, points: Float[Tensor, "point dim"]) -> Float[Tensor, "point feature"]: ...

    def sweep(
        self, points: Float[Tensor, "point dim"]
    ) -> tuple[Float[Tensor, "point feature"], Float[Tensor, "point feature dim"]]:
        """Features and their derivatives, forward."""
        return derivatives(self.features, points)

    def bends(self, points: Float[Tensor, "point dim"]) -> Float[Tensor, "point feature all"]:
        """Features, derivatives and second derivatives (1 + dim + dim² numbers): the sweep of the sweep."""
        features, slopes = self.sweep(points)
        bent = [torch.func.jvp(self.sweep, (points,), (d.expand_as(points),))[1][1] for d in _directions(points)]
        return torch.cat([features[..., None], slopes, *bent], dim=-1)

    def values(self, code: Float[Tensor, "batch code"], places: Places) -> Float[Tensor, "batch point"]:
        return self.coefficients(code) @ self.features(listed(places)).t()

    def with_slopes(
        self, code: Float[Tensor, "batch code"], places: Places
    ) -> tuple[Float[Tensor, "batch point"], Float[Tensor, "batch point dim"]]:
        points, coefficients = listed(places), self.coefficients(code)
        features, slopes = self.sweep(points)
        gradient = (coefficients @ slopes.permute(1, 0, 2).flatten(1)).unflatten(1, points.shape)
        return coefficients @ features.t(), gradient


def _directions(points: Tensor) -> Tensor:
    return torch.eye(points.shape[1], dtype=points.dtype, device=points.device)


class Straight(nn.Module):
    """A linear map and layers beside it that say nothing at first: what is linear need not be learned by curves."""

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.line, self.curves = nn.Linear(sizes[0], sizes[-1]), Dense(sizes, "silu")
        nn.init.zeros_(self.curves.layers[-1].weight)  # type: ignore[arg-type]

    def forward(self, values: Float[Tensor, "batch c_in"]) -> Float[Tensor, "batch c_out"]:
        return self.line(values) + self.curves(values)


class Products(Decoder):
    """A MultiONet, as published: a constant is one more feature."""

    def __init__(self, multionet: MultiONet) -> None:
        super().__init__()
        self.multionet = multionet

    def coefficients(self, code: Float[Tensor, "batch code"]) -> Float[Tensor, "batch feature"]:
        layers = self.multionet.code_layers(code).flatten(1)
        return torch.cat([layers, self.multionet.constant().expand(len(code), 1)], dim=1)

    def features(self, points: Float[Tensor, "point dim"]) -> Float[Tensor, "point feature"]:
        features = self.multionet.pair.features(points).flatten(1)
        return torch.cat([features, torch.ones_like(features[:, :1])], dim=1)

    def sweep(
        self, points: Float[Tensor, "point dim"]
    ) -> tuple[Float[Tensor, "point feature"], Float[Tensor, "point feature dim"]]:
        """The values depend on no direction, so they are computed once."""
        features, slopes = self.multionet.pair.features_and_gradients(points)
        features, slopes = features.flatten(1), slopes.flatten(1, 2)
        one = torch.ones_like(features[:, :1])
        return torch.cat([features, one], dim=1), torch.cat([slopes, 0 * slopes[:, :1]], dim=1)


class Waves(Decoder):
    """Products of one family an axis, the lowest ``counts`` of each; ``network``: code -> alpha."""

    level: Tensor

    def __init__(
        self,
        grid: Grid,
        kinds: Sequence[Kind],
        counts: Sequence[int],
        network: nn.Module,
        *,
        gain: float = 1.0,
        smoothness: float = 1.0,
        stiffness: Callable[[Tensor], Tensor] = lambda squares: squares,
    ) -> None:
        super().__init__()
        self.axes = tuple((axis.lower, axis.length) for axis in grid.axes)
        self.kinds, self.counts, self.network = tuple(kinds), tuple(counts), network
        eigenvalues = [
            eigenvalues_of(kind, count) / axis.length**2
            for kind, count, axis in zip(kinds, counts, grid.axes, strict=True)
        ]
        total = torch.zeros(())
        for values in eigenvalues:
            total = (total[..., None] + values).contiguous()
        total = stiffness(total)
        first = total[total > 0].min()
        self.register_buffer("level", (gain / (1 + total / first) ** smoothness).flatten().float(), persistent=False)

    def coefficients(self, code: Float[Tensor, "batch code"]) -> Float[Tensor, "batch feature"]:
        return self.network(code) * self.level

    def start(
        self,
        codes: Float[Tensor, "sample code"],
        points: Float[Tensor, "point dim"],
        values: Float[Tensor, "sample point"],
    ) -> None:
        """Begin as the regression of sampled functions on their codes, so that training need not find what is linear.

        Waves that vanish at all points begin with coefficients zero.
        """
        regress(self.network, codes, self.features(points) * self.level, values)

    def features(self, points: Float[Tensor, "point dim"]) -> Float[Tensor, "point feature"]:
        return self._product([self._along(number, points[:, number], 0) for number in range(len(self.axes))])

    def sweep(
        self, points: Float[Tensor, "point dim"]
    ) -> tuple[Float[Tensor, "point feature"], Float[Tensor, "point feature dim"]]:
        """Derivatives in closed form, axis by axis."""
        values = [self._along(number, points[:, number], 0) for number in range(len(self.axes))]
        slopes = []
        for number in range(len(self.axes)):
            slope = self._along(number, points[:, number], 1)
            slopes.append(self._product([*values[:number], slope, *values[number + 1 :]]))
        return self._product(values), torch.stack(slopes, dim=-1)

    def values(self, code: Float[Tensor, "batch code"], places: Places) -> Float[Tensor, "batch point"]:
        if not isinstance(places, Lattice):
            return super().values(code, places)
        return self._on_lattice(code, places, [[0] * len(self.axes)])[0]

    def with_slopes(
        self, code: Float[Tensor, "batch code"], places: Places
    ) -> tuple[Float[Tensor, "batch point"], Float[Tensor, "batch point dim"]]:
        if not isinstance(places, Lattice):
            return super().with_slopes(code, places)
        each = range(len(self.axes))
        value, *slopes = self._on_lattice(
            code, places, [[0] * len(self.axes), *([int(i == j) for i in each] for j in each)]
        )
        return value, torch.stack(slopes, dim=-1)

    def _on_lattice(self, code: Tensor, lattice: Lattice, orders: Sequence[Sequence[int]]) -> list[Tensor]:
        """Derivatives of these orders, one axis after the other: a sum of their lengths in place of their product."""
        coefficients = self.coefficients(code).unflatten(1, self.counts)
        found = []
        for order in orders:
            values = coefficients
            for number in reversed(range(len(self.axes))):
                matrix = self._along(number, lattice.axes[number], order[number])
                values = (values.movedim(number + 1, -1) @ matrix.t()).movedim(-1, number + 1)
            found.append(values.flatten(1))
        return found

    def _along(self, number: int, x: Tensor, order: int) -> Float[Tensor, "point wave"]:
        lower, length = self.axes[number]
        values = family(self.kinds[number], self.counts[number], (x - lower) / length, order)
        return values / length**order

    @staticmethod
    def _product(factors: Sequence[Tensor]) -> Float[Tensor, "point feature"]:
        product = factors[0]
        for factor in factors[1:]:
            product = (product[:, :, None] * factor[:, None]).flatten(1)
        return product


@torch.no_grad()
def regress(
    network: nn.Module,
    codes: Float[Tensor, "sample code"],
    features: Float[Tensor, "point feature"],
    values: Float[Tensor, "sample point"],
) -> None:
    """The linear map of a branch becomes the best one for sampled functions."""
    assert isinstance(network, Straight)
    wanted = ridge(features.double(), values.double().t()).t()  # sample feature
    known = torch.cat([codes, torch.ones_like(codes[:, :1])], dim=1).double()
    weights = ridge(known, wanted)
    network.line.weight.copy_(weights[:-1].t())
    network.line.bias.copy_(weights[-1])


def ridge(matrix: Float[Tensor, "row column"], wanted: Float[Tensor, "row many"]) -> Float[Tensor, "column many"]:
    """Least squares, with a millionth of the mean square of the columns on the diagonal."""
    normal = matrix.t() @ matrix
    normal.diagonal().add_(1e-6 * normal.diagonal().mean().clamp_min(1e-30))
    return torch.linalg.solve(normal, matrix.t() @ wanted)


def kinds_of(domain: Grid, *, walls: bool) -> tuple[Kind, ...]:
    """The family of each axis of space, and polynomials in time; ``walls``: vanish on Dirichlet walls."""
    return tuple(_kind(axis, walls=walls) for axis in domain.axes)


def _kind(axis: Axis, *, walls: bool) -> Kind:
    if axis.name == "t":
        return "growth"
    if axis.periodic:
        return "fourier"
    return "sine" if walls and axis.boundary == ("dirichlet", "dirichlet") else "cosine"


def wave_decoder(
    domain: Grid,
    code: int,
    *,
    walls: bool,
    waves: int,
    hidden: Sequence[int],
    times: int = 16,
    gain: float = 1.0,
    stiffness: Callable[[Tensor], Tensor] = lambda squares: squares,
) -> Waves:
    """``waves`` an axis of space, ``times`` polynomials; the branch has layers of widths ``hidden``."""
    kinds = kinds_of(domain, walls=walls)
    counts = [times if kind == "growth" else waves for kind in kinds]
    return Waves(
        domain,
        kinds,
        counts,
        Straight([code, *hidden, math.prod(counts)]),
        gain=gain,
        smoothness=0.5 if "growth" in kinds else 1.0,
        stiffness=stiffness,
    )
