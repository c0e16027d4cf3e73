r"""Symmetric Toeplitz matrices, the covariances of uniform grids, by their first column and their two halves.

A symmetric Toeplitz matrix is unchanged when rows and columns are reversed, so its eigenvectors are even or odd about
the middle, and in the basis of sums and differences of mirrored entries it falls apart:

.. math:: T \simeq E \oplus O,\qquad E_{ij} = t_{|i-j|} + t_{n-1-i-j},\quad O_{ij} = t_{|i-j|} - t_{n-1-i-j},
          \quad i, j < n/2

(with a middle node E has one row more, scaled by the root of 2). Factors and eigendecompositions of the halves cost a
quarter. Gradients are wanted by the lags t: of entries they are sums along diagonals, which are correlations where a
matrix is an outer product, and of log|T| they follow from the first column x of the inverse alone (Gohberg-Semencul),

.. math:: \sum_i (T^{-1})_{i,i+k} = \frac{1}{x_0} \sum_j (n - k - 2 j)\, x_j\, x_{j+k}.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from ..pde import SolverError

HALF = math.sqrt(0.5)


def toeplitz(lags: Float[Tensor, " n"], sign: float = 1.0) -> Float[Tensor, "n n"]:
    """Row i, column j: the value at abs(i - j), with a sign above the diagonal. Not differentiable."""
    line = torch.cat([lags.flip(0), sign * lags[1:]])  # row i of the matrix starts at n - 1 - i
    return line.unfold(0, len(lags), 1).flip(0)


def halves(lags: Float[Tensor, " n"]) -> tuple[Float[Tensor, "even even"], Float[Tensor, "odd odd"]]:
    """The matrix between even vectors and between odd ones."""
    n, m = len(lags), len(lags) // 2
    if not m:
        return lags[:, None], lags.new_zeros(0, 0)
    same, mirrored = toeplitz(lags[:m]), lags.flip(0).unfold(0, m, 1)[:m]
    even, odd = same + mirrored, same - mirrored
    if n % 2:
        middle = math.sqrt(2) * lags[1 : m + 1].flip(0)
        even = torch.cat([torch.cat([even, middle[:, None]], 1), torch.cat([middle, lags[:1]])[None]])
    return even, odd


def fold(x: Float[Tensor, "n *rest"]) -> tuple[Tensor, Tensor]:
    """Coordinates of the even and of the odd part of vectors along the first axis: an orthogonal map."""
    m = len(x) // 2
    top, bottom = x[:m], x[len(x) - m :].flip(0)
    even = HALF * (top + bottom)
    return (torch.cat([even, x[m : m + 1]]) if len(x) % 2 else even), HALF * (top - bottom)


def unfold(even: Tensor, odd: Tensor) -> Tensor:
    """The inverse of :func:`fold`."""
    m = len(odd)
    top, bottom = HALF * (even[:m] + odd), HALF * (even[:m] - odd).flip(0)
    return torch.cat([top, even[m:], bottom])


def toeplitz_eigh(lags: Float[Tensor, " n"]) -> tuple[Tensor, Tensor]:
    """Eigenvalues (those of even vectors first, each half ascending) and orthonormal eigenvectors."""
    (e, left), (o, right) = (torch.linalg.eigh(half) for half in halves(lags))
    zeros = left.new_zeros
    vectors = torch.cat(
        [unfold(left, zeros(len(o), len(e))), unfold(zeros(len(e), len(o)), right)], dim=1
    )  # fmt: skip
    return torch.cat([e, o]), vectors


def diagonal_sums(left: Float[Tensor, "n column"], right: Float[Tensor, "n column"], sign: float = 1.0) -> Tensor:
    """The gradient by the lags of a quantity whose gradient by the entries is left right^T."""
    n = len(left)
    if left.shape[1] > math.log2(n):  # the matrix itself is cheaper than a transform a column
        return _sums(left @ right.T, sign)
    size = 2 * n
    f, g = torch.fft.rfft(left, size, dim=0), torch.fft.rfft(right, size, dim=0)
    sums = torch.fft.irfft((f * g.conj()).sum(dim=1), size)  # at k: sum of left_{j+k} right_j, below the diagonal
    lower, upper = sums[:n], sums[n:].flip(0)[: n - 1]
    return torch.cat([lower[:1], lower[1:] + sign * upper])


def _sums(entries: Float[Tensor, "n n"], sign: float) -> Tensor:
    n = len(entries)
    # rows shifted against each other turn diagonals into columns: entry (i, j) lands in column n - 1 + i - j
    padded = torch.cat([entries.flip(1), entries.new_zeros(n, n)], dim=1).flatten()[: n * (2 * n - 1)]
    sums = padded.reshape(n, 2 * n - 1).sum(dim=0)
    lower, upper = sums[n - 1 :], sums[: n - 1].flip(0)
    return torch.cat([lower[:1], lower[1:] + sign * upper])


class Factor:
    """The Cholesky factors of a symmetric positive definite Toeplitz matrix' halves."""

    def __init__(self, lags: Float[Tensor, " n"]) -> None:
        found = [torch.linalg.cholesky_ex(half) for half in halves(lags)]
        if any(int(info) for _, info in found):
            raise SolverError(
                "A covariance of the prior is not positive definite with this jitter: a larger one, fewer nodes or a "
                "smaller learning rate is needed."
            )
        self.factors, self.size = [factor for factor, _ in found], len(lags)

    def solve(self, right: Float[Tensor, "n column"]) -> Float[Tensor, "n column"]:
        even, odd = (torch.cholesky_solve(p, f) for p, f in zip(fold(right), self.factors, strict=True))
        return unfold(even, odd)

    def logdet(self) -> Tensor:
        return 2 * torch.cat([factor.diagonal() for factor in self.factors]).log().sum()

    def logdet_slope(self) -> Tensor:
        """The gradient of log|T| by the lags."""
        n = self.size
        unit = self.factors[0].new_zeros(n, 1)
        unit[0] = 1
        x = self.solve(unit)[:, 0]
        at = torch.arange(n, dtype=x.dtype, device=x.device)
        sums = _correlation((n - at) * x, x) - _correlation(x, at * x)
        return torch.cat([sums[:1], 2 * sums[1:]]) / x[0]


def _correlation(later: Tensor, earlier: Tensor) -> Tensor:
    """At k: the sum over j of later_{j+k} earlier_j."""
    size = 2 * len(later)
    spectrum = torch.fft.rfft(later, size) * torch.fft.rfft(earlier, size).conj()
    return torch.fft.irfft(spectrum, size)[: len(later)]


class Solve(torch.autograd.Function):
    """T^{-1} B along an axis of B by a factor of T, differentiable in the lags and in B."""

    @staticmethod
    def forward(ctx, lags: Tensor, right: Tensor, axis: int, factor: Factor) -> Tensor:
        solved = _along(factor.solve, right, axis)
        ctx.axis, ctx.factor = axis, factor
        ctx.save_for_backward(solved)
        return solved

    @staticmethod
    def backward(ctx, by: Tensor):
        (solved,) = ctx.saved_tensors
        back = _along(ctx.factor.solve, by, ctx.axis)
        return -diagonal_sums(_columns(back, ctx.axis), _columns(solved, ctx.axis)), back, None, None


class LogDet(torch.autograd.Function):
    """log|T| by a factor of T, differentiable in the lags."""

    @staticmethod
    def forward(ctx, lags: Tensor, factor: Factor) -> Tensor:
        ctx.factor = factor
        return factor.logdet()

    @staticmethod
    def backward(ctx, by: Tensor):
        return by * ctx.factor.logdet_slope(), None


class Product(torch.autograd.Function):
    """T B along an axis of B, T with this sign above its diagonal, differentiable in the lags and in B."""

    @staticmethod
    def forward(ctx, lags: Tensor, right: Tensor, axis: int, sign: float) -> Tensor:
        ctx.axis, ctx.sign, matrix = axis, sign, toeplitz(lags, sign)
        ctx.save_for_backward(matrix, right)
        return _along(lambda columns: matrix @ columns, right, axis)

    @staticmethod
    def backward(ctx, by: Tensor):
        matrix, right = ctx.saved_tensors
        by_lags = diagonal_sums(_columns(by, ctx.axis), _columns(right, ctx.axis), ctx.sign)
        return by_lags, _along(lambda columns: matrix.T @ columns, by, ctx.axis), None, None


def _columns(field: Tensor, axis: int) -> Float[Tensor, "n column"]:
    return field.movedim(axis, 0).reshape(field.shape[axis], -1)


def _along(action: Callable[[Tensor], Tensor], field: Tensor, axis: int) -> Tensor:
    moved = field.movedim(axis, 0)
    return action(_columns(field, axis)).reshape(moved.shape).movedim(0, axis)
