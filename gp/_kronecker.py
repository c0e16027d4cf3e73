r"""Kronecker algebra on tensor grids: :math:`C = K_1 \otimes \dots \otimes K_d`, never formed.

A field U with one axis a factor stands for vec(U) in row-major order, so that C vec(U) is each factor applied to its
own axis. Work is :math:`O(\sum_j n_j^3 + M \sum_j n_j)` and memory :math:`O(\sum_j n_j^2 + M)` for M grid points. With
a constant diagonal, C + s I is solved, its determinant taken and its root applied in the eigenbases of the factors.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Generator, Tensor


def apply(matrices: Sequence[Tensor | None], field: Tensor) -> Tensor:
    """Each matrix on its own axis of the last ``len(matrices)`` axes of the field; None leaves an axis alone."""
    first = field.ndim - len(matrices)
    for j, matrix in enumerate(matrices):
        if matrix is not None:
            field = _along(matrix, field, first + j)
    return field


def _along(matrix: Tensor, field: Tensor, axis: int) -> Tensor:
    """One matrix on one axis: a single product on a reshaped field, without moving the axis."""
    shape = field.shape
    before, after = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
    if matrix.dtype != field.dtype:
        common = torch.promote_types(matrix.dtype, field.dtype)
        matrix, field = matrix.to(common), field.to(common)
    if after == 1:
        product = field.reshape(before, shape[axis]) @ matrix.T
    else:
        product = matrix @ field.reshape(before, shape[axis], after)
    return product.reshape(*shape[:axis], matrix.shape[0], *shape[axis + 1 :])


class Kronecker:
    """A symmetric positive definite Kronecker product plus a constant diagonal, ``noise`` (a variance)."""

    def __init__(self, factors: Sequence[Tensor], noise: Tensor | float = 0.0) -> None:
        for j, factor in enumerate(factors):
            if factor.ndim != 2 or factor.shape[0] != factor.shape[1]:
                raise ValueError(f"Factor {j} must be a square matrix, got shape {tuple(factor.shape)}.")
        if float(noise) < 0:
            raise ValueError(f"The noise is a variance, so it is not negative; got {float(noise):.3g}.")
        self.factors = tuple(factors)
        self.noise = torch.as_tensor(noise, dtype=factors[0].dtype, device=factors[0].device)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(factor) for factor in self.factors)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def product(self, field: Tensor) -> Tensor:
        """(C + noise I) vec(field)."""
        return apply(self.factors, field) + self.noise * field

    @functools.cached_property
    def eigen(self) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Eigenvalues and orthonormal eigenvectors of the factors; outside of any gradient."""
        with torch.no_grad():
            pairs = [torch.linalg.eigh(factor) for factor in self.factors]
        return tuple(p[0] for p in pairs), tuple(p[1] for p in pairs)

    @functools.cached_property
    def spectrum(self) -> Tensor:
        """All eigenvalues of C + noise I, on the grid of the factors' own. Raises ``ValueError`` unless positive."""
        values = outer(self.eigen[0]) + self.noise
        # rounding leaves eigenvalues of a positive semi-definite factor anywhere within eps times the largest
        least = float(values.min())
        if not least > 0:
            raise ValueError(
                f"This covariance is not positive definite: its smallest eigenvalue is {least:.2e}, its largest "
                f"{float(values.max()):.2e}. Add noise (a jitter of 1e-12 times the largest is enough), use fewer "
                "nodes or a rougher covariance."
            )
        return values

    def solve(self, field: Tensor) -> Tensor:
        """(C + noise I)^{-1} vec(field)."""
        vectors = self.eigen[1]
        inner = apply([v.T for v in vectors], field) / self.spectrum
        return apply(vectors, inner)

    def quadratic(self, field: Tensor) -> Tensor:
        """vec(field)^T (C + noise I)^{-1} vec(field)."""
        return (apply([v.T for v in self.eigen[1]], field).square() / self.spectrum).sum()

    def logdet(self) -> Tensor:
        return self.spectrum.log().sum()

    def root(self, field: Tensor) -> Tensor:
        """A square root R of C + noise I (R R^T is the covariance) applied to a field of its shape."""
        return apply(self.eigen[1], self.spectrum.sqrt() * field)

    def sample(self, count: int, *, generator: Generator) -> Float[Tensor, "count *space"]:
        """Draws of the Gaussian field with this covariance."""
        white = torch.randn((count, *self.shape), generator=generator, dtype=self.factors[0].dtype)
        return self.root(white.to(self.noise.device))

    def log_likelihood(self, field: Tensor) -> Tensor:
        """Log N(vec(field); 0, C + noise I)."""
        return -0.5 * (self.quadratic(field) + self.logdet() + self.size * math.log(2 * math.pi))

    def gradient(self, field: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        r"""The derivatives of the log likelihood by each factor's entries (symmetric) and by the noise, in closed form.

        With a = (C + noise I)^{-1} y: d/dtheta = (a^T dC a - tr((C + noise I)^{-1} dC)) / 2. In the eigenbasis both
        parts are a contraction of a field with itself along all axes but one.
        """
        values, vectors = self.eigen
        inner = apply([v.T for v in vectors], field) / self.spectrum
        inverse = 1 / self.spectrum
        by_factor = []
        for j, v in enumerate(vectors):
            others = [None if i == j else value for i, value in enumerate(values)]
            weighted = inner * _scaled(others, inner)
            dims = [i for i in range(len(values)) if i != j]
            outer_part = torch.tensordot(weighted, inner, dims=(dims, dims))
            trace = (inverse * _scaled(others, inner)).sum(dim=dims) if dims else inverse
            by_factor.append(0.5 * v @ (outer_part - torch.diag(trace)) @ v.T)
        return tuple(by_factor), 0.5 * (inner.square().sum() - inverse.sum())


def matheron(algebra: Kronecker, cross: Sequence[Tensor], observed: Tensor, *, here: Tensor, there: Tensor) -> Tensor:
    """A posterior draw by Matheron's rule: a prior draw, corrected by the conditional mean of its own misfit.

    here, there   one joint prior draw at the observed nodes (with its noise) and at the points wanted
    cross         covariance factors between the points wanted and the nodes
    """
    return there + apply(cross, algebra.solve(observed - here))


def _scaled(values: Sequence[Tensor | None], like: Tensor) -> Tensor:
    """The outer product of the given vectors, broadcast along the axes that have none."""
    total = torch.ones((1,) * len(values), dtype=like.dtype, device=like.device)
    for j, value in enumerate(values):
        if value is not None:
            total = total * value.reshape([-1 if i == j else 1 for i in range(len(values))])
    return total


def outer(vectors: Sequence[Tensor]) -> Tensor:
    """The product of one entry of each vector, on the grid of all combinations."""
    total = torch.ones((), dtype=vectors[0].dtype, device=vectors[0].device)
    for vector in vectors:
        total = total[..., None] * vector
    return total


class LogLikelihood(torch.autograd.Function):
    """The marginal likelihood with its closed-form gradient: nothing is differentiated through an eigensolver."""

    @staticmethod
    def forward(ctx, field: Tensor, noise: Tensor, *factors: Tensor) -> Tensor:
        algebra = Kronecker([factor.detach() for factor in factors], noise.detach())
        ctx.algebra, ctx.field = algebra, field.detach()
        return algebra.log_likelihood(ctx.field)

    @staticmethod
    def backward(ctx, by: Tensor):
        by_factor, by_noise = ctx.algebra.gradient(ctx.field)
        by_field = -ctx.algebra.solve(ctx.field) if ctx.needs_input_grad[0] else None
        return (None if by_field is None else by * by_field, by * by_noise, *(by * g for g in by_factor))


def log_likelihood(field: Tensor, factors: Sequence[Tensor], noise: Tensor | float = 0.0) -> Tensor:
    """Log N(vec(field); 0, C + noise I), differentiable in everything."""
    return LogLikelihood.apply(field, torch.as_tensor(noise, dtype=field.dtype), *factors)
