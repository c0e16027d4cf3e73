r"""Chebyshev collocation on boxes for constant-coefficient equations with values given on faces, and a reaction.

.. math:: \sum_j T_j u + r(u) = f,\qquad T_j = \sum_m c_{jm}\,\partial_j^m

The matrices of the axes are diagonalised once (Schur form where the operator is of first order, whose eigenvectors are
useless), so that a right side costs a few matrix products; reactions are solved by Newton's method with that inverse as
preconditioner. Spectral: the error falls faster than any power of the number of points once each wave has pi of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.interpolate import make_interp_spline
from scipy.linalg import get_lapack_funcs, schur
from scipy.sparse.linalg import LinearOperator, gmres
from torch import Tensor

from ._elliptic import apply_along
from ._equation import Reaction
from ._solver import SolverError

NEWTON_STEPS = 50


@dataclass(frozen=True)
class Direction:
    """One axis: interval, number of points, operator (order of derivative, coefficient), ends with given values."""

    lower: float
    upper: float
    points: int
    operator: tuple[tuple[int, float], ...]
    given: tuple[bool, bool] = (True, True)

    def nodes(self) -> Float[Tensor, " point"]:
        """Ascending Chebyshev-Lobatto points."""
        turn = torch.linspace(-1, 1, self.points, dtype=torch.float64) * (torch.pi / 2)
        return self.lower + 0.5 * (self.upper - self.lower) * (1 + torch.sin(turn))

    @property
    def unknown(self) -> slice:
        return slice(int(self.given[0]), self.points - int(self.given[1]))


@functools.lru_cache(maxsize=32)
def differentiation(direction: Direction) -> tuple[Tensor, ...]:
    """The matrices of the derivatives of order 0, 1 and 2, diagonals by negative sums (rounding; Baltensperger)."""
    x, weights = direction.nodes(), _barycentric(direction.points)
    apart = x[:, None] - x + torch.eye(len(x), dtype=x.dtype)
    first = weights / weights[:, None] / apart
    first.fill_diagonal_(0.0)
    first -= torch.diag(first.sum(dim=1))
    second = 2 * first * (first.diagonal()[:, None] - 1 / apart)
    second.fill_diagonal_(0.0)
    second -= torch.diag(second.sum(dim=1))
    return torch.eye(len(x), dtype=x.dtype), first, second


def evaluation(direction: Direction, x: Float[Tensor, " where"]) -> Float[Tensor, "where point"]:
    """The matrix that carries values at the nodes to the points x, by the barycentric formula."""
    apart = x[:, None] - direction.nodes()
    hit = apart.abs() < 1e-14 * (direction.upper - direction.lower)
    rows = _barycentric(direction.points) / torch.where(hit, torch.ones_like(apart), apart)
    rows = rows / rows.sum(dim=1, keepdim=True)
    return torch.where(hit.any(dim=1, keepdim=True), hit.to(rows), rows)


def _barycentric(points: int) -> Tensor:
    weights = 1.0 - 2.0 * (torch.arange(points, dtype=torch.float64) % 2)
    weights[0], weights[-1] = 0.5 * weights[0], 0.5 * weights[-1]
    return weights


class Collocation:
    """The equation on one tensor grid of Chebyshev points."""

    def __init__(self, directions: Sequence[Direction], reaction: Reaction | None = None) -> None:
        self.directions = tuple(directions)
        self.reaction = reaction
        self.matrices = [
            torch.stack([c * differentiation(d)[m] for m, c in d.operator]).sum(dim=0) for d in self.directions
        ]
        self.unknown = tuple(d.unknown for d in self.directions)
        self.invert = _inverse(self.directions)

    def left(self, u: Tensor) -> Tensor:
        """The linear left side at all nodes."""
        return torch.stack([apply_along(matrix, u, j) for j, matrix in enumerate(self.matrices)]).sum(dim=0)

    def __call__(self, source: Tensor, given: Tensor) -> Tensor:
        """U at the nodes from the source there and a field whose values on the given faces count."""
        u = given.clone()
        u[self.unknown] = 0.0
        if self.reaction is None:
            u[self.unknown] = self.invert((source - self.left(u))[self.unknown])
            return u
        return self._newton(u, source)

    def _newton(self, u: Tensor, source: Tensor) -> Tensor:
        assert self.reaction is not None
        best = torch.inf
        for _ in range(NEWTON_STEPS):
            with torch.enable_grad():
                at = u.clone().requires_grad_()
                slope = torch.autograd.grad(self.reaction(at).sum(), at)[0][self.unknown]
            change = self._linearised(slope, (self.left(u) + self.reaction(u) - source)[self.unknown])
            u[self.unknown] = u[self.unknown] - change
            size = float(change.norm() / u.norm().clamp_min(1e-300))
            if size < 1e-13 or (size < 1e-9 and size >= 0.5 * best):
                return u
            best = min(best, size)
        raise SolverError(
            f"Newton's method has not converged in {NEWTON_STEPS} steps (last change {size:.1e}, relative); the data "
            "may admit several solutions or none: make amplitudes smaller."
        )

    def _linearised(self, slope: Tensor, misfit: Tensor) -> Tensor:
        """(T + slope)^{-1} misfit by GMRES, preconditioned with T^{-1}."""
        shape, size = misfit.shape, misfit.numel()

        def product(values: np.ndarray) -> np.ndarray:
            field = torch.from_numpy(np.array(values)).reshape(shape)
            return np.asarray((field + self.invert(slope * field)).flatten())

        system = LinearOperator((size, size), matvec=product, dtype=np.float64)
        right = self.invert(misfit).flatten().numpy()
        return torch.from_numpy(gmres(system, right, rtol=1e-12, atol=0.0, restart=60, maxiter=5)[0]).reshape(shape)


@functools.lru_cache(maxsize=8)
def _inverse(directions: tuple[Direction, ...]) -> Callable[[Tensor], Tensor]:
    """F -> U with sum_j T_j U = F on the unknown nodes."""
    inner = []
    for d in directions:
        matrix = torch.stack([c * differentiation(d)[m] for m, c in d.operator]).sum(dim=0)
        inner.append(matrix[d.unknown, d.unknown])
    if len(inner) == 1:
        factors = torch.linalg.lu_factor(inner[0])
        return lambda f: torch.linalg.lu_solve(*factors, f[:, None])[:, 0]
    if all(all(d.given) for d in directions):
        return _by_eigenvectors(inner)
    return _by_schur(inner)


def _by_eigenvectors(matrices: Sequence[Tensor]) -> Callable[[Tensor], Tensor]:
    """Eigenvalues of the second derivative between fixed ends are real and negative (Gottlieb and Lustman)."""
    found = [torch.linalg.eig(matrix) for matrix in matrices]
    vectors = [pair[1].real.contiguous() for pair in found]
    inverses = [torch.linalg.inv(v) for v in vectors]
    total = torch.zeros((), dtype=torch.float64)
    for values, _ in found:
        total = total[..., None] + values.real

    def solve(f: Tensor) -> Tensor:
        for j, matrix in enumerate(inverses):
            f = apply_along(matrix, f, j)
        f = f / total
        for j, matrix in enumerate(vectors):
            f = apply_along(matrix, f, j)
        return f

    return solve


def _by_schur(matrices: Sequence[Tensor]) -> Callable[[Tensor], Tensor]:
    if len(matrices) != 2:
        raise ValueError(f"Equations of first order are solved in two dimensions here, got {len(matrices)}.")
    (t1, z1), (t2, z2) = (schur(matrix.numpy(), output="real") for matrix in matrices)
    (trsyl,) = get_lapack_funcs(("trsyl",), (t1, t2))

    def solve(f: Tensor) -> Tensor:
        solution, scale, _ = trsyl(t1, t2, z1.T @ f.numpy() @ z2, tranb="T")
        return torch.from_numpy(z1 @ (solution / scale) @ z2.T)

    return solve


def spline(values: Tensor, nodes: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """Values at the nodes of a tensor grid carried to another one: splines of degree 7 (less on few nodes)."""
    array = values.numpy()
    for j, (old, new) in enumerate(zip(nodes, targets, strict=True)):
        degree = min(7, (len(old) - 1) // 2 * 2 - 1) if len(old) > 2 else 1
        array = make_interp_spline(old.numpy(), array, k=max(1, degree), axis=j)(new.numpy())
    return torch.from_numpy(np.array(array))


def operators(
    terms: Mapping[tuple[int, ...], float] | Sequence[tuple[tuple[int, ...], float]], dim: int
) -> list[tuple[tuple[int, float], ...]]:
    """Terms that differentiate along one axis each, sorted by that axis."""
    found: list[list[tuple[int, float]]] = [[] for _ in range(dim)]
    for orders, coefficient in dict(terms).items():
        (axis,) = [j for j, order in enumerate(orders) if order] or [0]
        found[axis].append((orders[axis], coefficient))
    return [tuple(parts) for parts in found]
