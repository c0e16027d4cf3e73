r"""Every weak residual of a box at once, in the norm that is dual to the energy.

.. math:: \|r\|^2 = \sum_k \frac{r_k^2}{\lambda_k},\qquad
          r_k = \frac{1}{|\Omega|}\int_\Omega F\cdot\nabla\varphi_k + G\,\varphi_k\;dx,\qquad
          -\Delta\varphi_k = \lambda_k\varphi_k

phi   sines, zero on the walls (waves on periodic axes; cosines between Neumann walls, where r loses what these feed
      in), of mean square 1: complete among functions that vanish there
F, G  flux and density of a balance (``_weak_form``)

The error of a solution of -Delta u - s u = f has (lambda - s)² / lambda in place of lambda: waves that resonate make
small residuals of large errors. So a problem may say its own ``stiffness`` for lambda, whose square over lambda it is.

The error of a candidate's gradient is bounded by this norm from both sides, with constants of the equation; for
-nu u'' = f the norm is nu times the error's slope. Residuals on small balls see short waves first. An evolution is
tested in space at each of Gauss' times: the mean over time and the misfit of the beginning bound its error over space
and time (Lions and Magenes 1972).

Integrals by Gauss's rule, on periodic axes by equal weights.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ._eigenfunctions import Kind, eigenvalues_of, family
from ._grid import Axis, Grid
from ._weak_form import Balance, Lattice, Places

TIMES = 32  # exact for squares of residuals of polynomials up to degree 16 that are multiplied by themselves

LEAST = 1e-10  # of the squares of nearly dependent functions, in double precision


class DualNorm(ABC):
    """Where balances are asked for, and what they come to."""

    places: Places

    @abstractmethod
    def square(self, balance: Balance, name: str = "") -> Float[Tensor, " batch"]:
        """||r||², of an evolution its mean over time."""


class BoxNorm(DualNorm):
    """Of the balances of a problem on a box.

    domain   space, and time behind it
    tested   axes of space
    waves    test functions an axis
    nodes    of the rule along each axis of space
    fed      by Neumann walls, by name of the balance; {}: tests vanish there
    stiffness   of the equation
    """

    def __init__(
        self,
        domain: Grid,
        tested: int,
        *,
        waves: Sequence[int],
        nodes: Sequence[int],
        fed: Mapping[str, Tensor] = MappingProxyType({}),
        stiffness: Callable[[Tensor], Tensor] = lambda squares: squares,
    ) -> None:
        sizes = [*nodes, *[TIMES] * (domain.dim - tested)]
        rules = [_gauss(axis, size) for axis, size in zip(domain.axes, sizes, strict=True)]
        self.places = Lattice(tuple(points for points, _ in rules))
        kinds = [_kind(axis, free=bool(fed)) for axis in domain.axes[:tested]]
        self.tests = [_tests(*several) for several in zip(domain.axes, rules, kinds, waves, strict=False)]
        self.times = rules[-1][1] if domain.dim > tested else torch.ones(1, dtype=torch.float64)
        total = torch.zeros(())
        size = torch.ones((), dtype=torch.float64)
        for axis, kind, count in zip(domain.axes, kinds, waves, strict=False):
            total = (total[..., None] + eigenvalues_of(kind, count) / axis.length**2).contiguous()
            size = size[..., None] * _sizes(kind, count) / axis.length
        # a constant is no error of a gradient: it counts like the longest wave
        total = total.clamp_min(float(total[total > 0].min()))
        self.levels = stiffness(total).square() / total
        self.fed = {name: size * load for name, load in fed.items()}

    def square(self, balance: Balance, name: str = "") -> Float[Tensor, " batch"]:
        assert isinstance(self.places, Lattice)
        shape, tested = self.places.shape, len(self.tests)
        density = balance.density.unflatten(1, shape)
        total = _tested(density, [values for values, _ in self.tests])
        for number in range(tested):
            factors = [slopes if axis == number else values for axis, (values, slopes) in enumerate(self.tests)]
            total = total + _tested(balance.flux[..., number].unflatten(1, shape), factors)
        if name in self.fed:
            total = total - self.fed[name].to(total)
        total = total.flatten(1, tested).flatten(2) if len(shape) > tested else total.flatten(1)[..., None]
        squares = (total.square() / self.levels.flatten().to(total)[:, None]).sum(dim=1)
        return squares @ self.times.to(total)


class TestedNorm(DualNorm):
    r"""Of a domain that is no box, with functions v that the problem declares: :math:`r^T M^{-1} r` with
    :math:`M_{kl} = \int\nabla v_k\cdot\nabla v_l`, the same norm of what these functions span.

    points, weights   a rule of quadrature
    tests             points -> ``point function``
    """

    def __init__(
        self,
        points: Float[Tensor, "point dim"],
        weights: Float[Tensor, " point"],
        tests: Callable[[Tensor], Float[Tensor, "point function"]],
    ) -> None:
        self.places: Tensor = points.float()
        values, slopes = derivatives(tests, points)
        share = weights / weights.sum()
        basis = whitened(slopes.movedim(-1, 0).flatten(0, 1), share.repeat(points.shape[1]))
        self.values = (share[:, None] * (values @ basis)).float()
        self.slopes = (share[:, None, None] * torch.einsum("pfd,fk->pdk", slopes, basis)).float()

    def square(self, balance: Balance, name: str = "") -> Float[Tensor, " batch"]:
        tested = torch.einsum("bpd,pdk->bk", balance.flux, self.slopes.to(balance.flux))
        return (tested + balance.density @ self.values.to(balance.density)).square().sum(dim=1)


def derivatives(functions: Callable[[Tensor], Tensor], points: Tensor) -> tuple[Tensor, Tensor]:
    """Values ``point function`` and slopes ``point function dim``, forwards."""
    directions = torch.eye(points.shape[1], dtype=points.dtype, device=points.device)
    found = [torch.func.jvp(functions, (points,), (d.expand_as(points),)) for d in directions]
    return found[0][0], torch.stack([slopes for _, slopes, *_ in found], dim=-1)


def whitened(rows: Float[Tensor, "row function"], weights: Float[Tensor, " row"]) -> Float[Tensor, "function kept"]:
    """Combinations that are orthonormal in the weighted sum; those with less than ``LEAST`` of the largest go."""
    gram = rows.t() @ (weights[:, None] * rows)
    size = gram.diagonal().clamp_min(1e-300).sqrt()
    values, vectors = torch.linalg.eigh(gram / size[:, None] / size)
    kept = values > LEAST * values[-1]
    return vectors[:, kept] / size[:, None] / values[kept].sqrt()


def _tested(field: Float[Tensor, "batch *node"], factors: Sequence[Tensor]) -> Tensor:
    """One axis of space after the other from nodes to waves."""
    for number, factor in enumerate(factors, start=1):
        field = (field.movedim(number, -1) @ factor.to(field)).movedim(-1, number)
    return field


def _kind(axis: Axis, *, free: bool) -> Kind:
    if axis.periodic:
        return "fourier"
    return "cosine" if free and axis.boundary == ("neumann", "neumann") else "sine"


def _sizes(kind: Kind, count: int) -> Float[Tensor, " wave"]:
    """That make mean squares 1."""
    sizes = torch.full((count,), math.sqrt(2), dtype=torch.float64)
    if kind != "sine":
        sizes[0] = 1.0
    return sizes


def _gauss(axis: Axis, count: int) -> tuple[Float[Tensor, " node"], Float[Tensor, " node"]]:
    """Points of the axis and weights that add to 1."""
    if axis.periodic:
        unit, weights = torch.arange(count, dtype=torch.float64) / count, torch.full((count,), 1 / count).double()
    else:
        points, parts = np.polynomial.legendre.leggauss(count)
        unit, weights = torch.from_numpy(points + 1) / 2, torch.from_numpy(parts / 2)
    return axis.lower + axis.length * unit, weights


def _tests(axis: Axis, rule: tuple[Tensor, Tensor], kind: Kind, count: int) -> tuple[Tensor, Tensor]:
    """Test functions of mean square 1 times the weights, and their slopes: ``node wave``."""
    points, weights = rule
    unit, scaled = (points - axis.lower) / axis.length, weights[:, None] * _sizes(kind, count)
    return family(kind, count, unit, 0) * scaled, family(kind, count, unit, 1) / axis.length * scaled
