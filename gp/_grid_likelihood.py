r"""Marginal likelihood of values on a uniform grid, with its gradient by the lags of the covariances, at least cost.

.. math:: C = K_1 \otimes\dots\otimes K_d + \sigma^2 I,\qquad K_j = F_j F_j^T,\quad F_j^T F_j = \Lambda_j,\qquad
          C^{-1} = \frac{1}{\sigma^2}\Big(I - F \frac{1}{\Lambda + \sigma^2} F^T\Big)

K_j is Toeplitz: it splits into its even and its odd half (:mod:`._toeplitz`). A smooth covariance has a small numerical
rank: a pivoted Cholesky factor of each half ends where what is left is rounding (``LEFT`` of the noise), and the
eigenvectors of its small Gram matrix turn it into F_j. A rough one goes on to full rank; the formulas are the same.
With z = F^T y and Z = z / (Lambda + sigma²):

    y^T C^{-1} y = (|y|² - z . Z) / sigma²        log|C| = sum log(1 + Lambda / sigma²) + N log sigma²
    d/dK_j       = B B^T / 2 - (trace), B = the same factors on all other axes of C^{-1} y

Where the noise is so small that the difference |y|² - z . Z would lose more than six digits, eigenvectors of the whole
matrices take over (:class:`._kronecker.Kronecker`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg.lapack import dpstrf, dsyevd
from torch import Tensor

from ._kronecker import Kronecker
from ._toeplitz import diagonal_sums, toeplitz

LEFT = 1e-14  # of the noise: what may be left out of the covariance of the whole grid
CANCELLED = 1e-6  # share of |y|² below which the difference has lost too many digits
Array = np.ndarray


def log_likelihood(field: Tensor, lags: Sequence[Tensor], noise: Tensor | float) -> Tensor:
    """Log N(vec(field); 0, C), differentiable in the lags (first columns of K_j) and the noise (a variance)."""
    if len(lags) != field.ndim or any(len(lag) != n for lag, n in zip(lags, field.shape, strict=False)):
        raise ValueError(
            f"The covariances' lags are one vector an axis of the field {tuple(field.shape)}, got lengths "
            f"{[len(lag) for lag in lags]}."
        )
    if not float(torch.as_tensor(noise).detach()) > 0:
        raise ValueError(f"The noise is a positive variance, got {noise}.")
    return _GridLikelihood.apply(field.detach(), torch.as_tensor(noise, dtype=torch.float64), *lags)


class _GridLikelihood(torch.autograd.Function):
    @staticmethod
    def forward(ctx, field: Tensor, noise: Tensor, *lags: Tensor) -> Tensor:
        value, by_noise, by_lags = value_and_slopes(field.numpy(), [lag.detach().numpy() for lag in lags], float(noise))
        ctx.slopes = (by_noise, by_lags)
        return torch.tensor(value, dtype=torch.float64)

    @staticmethod
    def backward(ctx, by: Tensor):
        by_noise, by_lags = ctx.slopes
        return None, by * by_noise, *(by * torch.from_numpy(each) for each in by_lags)


def value_and_slopes(field: Array, lags: Sequence[Array], noise: float) -> tuple[float, float, list[Array]]:
    """(log likelihood, its derivative by the noise, its gradients by the lags)."""
    total, largest = float(np.vdot(field, field)), math.prod(float(np.abs(lag).sum()) for lag in lags)
    if noise < CANCELLED * largest:
        return _whole(field, lags, noise)
    factors = [_factor(lag, LEFT * noise * lag[0] * len(lag) / largest) for lag in lags]
    eigenvalues = functools.reduce(np.multiply.outer, [factor.values for factor in factors])
    weights = 1 / (eigenvalues + noise)
    partial = [_others(field, factors, j) for j in range(len(lags))]
    inner = (factors[0].waves.T @ partial[0]).reshape(eigenvalues.shape)
    scaled = weights * inner
    left = total - float(np.vdot(inner, scaled))
    if not left > CANCELLED * total:
        return _whole(field, lags, noise)
    count = field.size
    logdet = float(np.log1p(eigenvalues / noise).sum()) + count * math.log(noise)
    value = -0.5 * (left / noise + logdet + count * math.log(2 * math.pi))
    size = total - 2 * float(np.vdot(inner, scaled)) + float(np.vdot(scaled, eigenvalues * scaled))  # noise² |C^-1 y|²
    trace = (count - float((eigenvalues * weights).sum())) / noise
    slopes = [
        _by_lags(j, factors, partial[j], scaled, weights, noise, math.prod(n * lag[0] for n, lag in
                 zip(field.shape, lags, strict=True)) / lags[j][0])
        for j in range(len(lags))
    ]  # fmt: skip
    return value, 0.5 * (size / noise**2 - trace), slopes


@dataclass(frozen=True)
class _Factor:
    waves: Array  # F, one column a direction
    values: Array  # Lambda


def _factor(lags: Array, left: float) -> _Factor:
    """F and Lambda of a symmetric Toeplitz matrix, up to pivots of the size ``left``."""
    n, m = len(lags), len(lags) // 2
    parts = [_half(half, left) for half in _halves(lags)]
    waves = np.zeros((n, sum(part.shape[1] for part, _ in parts)))
    split, root = parts[0][0].shape[1], math.sqrt(0.5)
    even, odd = root * parts[0][0][:m], root * parts[1][0]
    waves[:m, :split], waves[n - m :, :split] = even, even[::-1]
    waves[:m, split:], waves[n - m :, split:] = odd, -odd[::-1]
    if n % 2:
        waves[m, :split] = parts[0][0][m]
    return _Factor(waves, np.concatenate([values for _, values in parts]))


def _halves(lags: Array) -> tuple[Array, Array]:
    n, m = len(lags), len(lags) // 2
    line = np.concatenate([lags[m - 1 : 0 : -1], lags]) if m else lags
    shape, step, middle = (m, m), line.itemsize, max(0, m - 1)
    same = np.ndarray(shape, float, line, middle * step, (step, -step))  # t at abs(i - j)
    mirrored = np.ndarray(shape, float, line, (middle + n - 1) * step, (-step, -step))  # at n - 1 - i - j
    even = same + mirrored
    if n % 2:
        whole = np.empty((m + 1, m + 1))
        whole[:m, :m], whole[m, m] = even, lags[0]
        whole[m, :m] = whole[:m, m] = math.sqrt(2) * lags[m:0:-1]
        even = whole
    return even, same - mirrored


def _half(matrix: Array, left: float) -> tuple[Array, Array]:
    """(F, Lambda) of a symmetric positive semi-definite matrix."""
    if not len(matrix):
        return np.zeros((0, 0)), np.zeros(0)
    rounding = len(matrix) * 2.3e-16 * float(matrix.max())
    packed, pivots, rank, _ = dpstrf(matrix, tol=max(left, rounding), lower=1)
    root = np.empty((len(matrix), rank))
    root[pivots - 1] = packed[:, :rank] * _lower(len(matrix))[:, :rank]
    values, vectors, _ = dsyevd(root.T @ root)
    return root @ vectors, np.maximum(values, 0.0)


@functools.lru_cache(maxsize=8)
def _lower(n: int) -> Array:
    return np.tri(n)


def _others(field: Array, factors: Sequence[_Factor], j: int) -> Array:
    """F_i^T on every axis but one, which comes first; the others as one axis."""
    for i, factor in enumerate(factors):
        if i != j:
            shape = field.shape
            before = math.prod(shape[:i])
            if i == len(factors) - 1:
                field = field.reshape(-1, shape[i]) @ factor.waves
            else:
                field = factor.waves.T @ field.reshape(before, shape[i], -1)
            field = field.reshape(*shape[:i], -1, *shape[i + 1 :])
    return np.moveaxis(field, j, 0).reshape(field.shape[j], -1)


def _by_lags(
    j: int, factors: Sequence[_Factor], partial: Array, scaled: Array, weights: Array, noise: float, traces: float
) -> Array:
    """The gradient by the lags of axis j: half of (C^{-1} y y^T C^{-1} - C^{-1}), summed along its diagonals."""
    waves = factors[j].waves
    ones = [factor.values for i, factor in enumerate(factors) if i != j]
    others = functools.reduce(np.multiply.outer, ones) if ones else np.ones(())
    turned, faded = (np.moveaxis(each, j, 0).reshape(waves.shape[1], -1) for each in (scaled, weights))
    slope = (partial - waves @ (turned * others.reshape(-1))) / noise
    entries = slope @ slope.T + (waves * (faded @ np.square(others).reshape(-1) / noise)) @ waves.T
    sums = _diagonals(entries)
    sums[0] -= traces / noise
    sums[0] *= 0.5
    return sums


def _diagonals(entries: Array) -> Array:
    """Sums along the diagonals of a symmetric matrix, from the main one down."""
    n = len(entries)
    padded = np.zeros((n, 2 * n))
    padded[:, :n] = entries
    # one step more a row: entry (i, i + k), or a zero beyond the last column, in row i and column k
    return np.ndarray((n, n), float, padded, 0, ((2 * n + 1) * padded.itemsize, padded.itemsize)).sum(axis=0)


def _whole(field: Array, lags: Sequence[Array], noise: float) -> tuple[float, float, list[Array]]:
    """By eigenvectors of the whole matrices."""
    y = torch.from_numpy(np.ascontiguousarray(field))
    algebra = Kronecker([toeplitz(torch.from_numpy(np.ascontiguousarray(lag))) for lag in lags], noise)
    by_factors, by_noise = algebra.gradient(y)
    slopes = [diagonal_sums(slope, torch.eye(len(slope), dtype=slope.dtype)).numpy() for slope in by_factors]
    return float(algebra.log_likelihood(y)), float(by_noise), slopes
