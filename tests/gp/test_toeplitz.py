"""Toeplitz algebra by halves against dense matrices, in values and in gradients by the lags."""

from __future__ import annotations

import pytest
import torch
from resolvent.gp._covariance import Matern, StudentMixture
from resolvent.gp._toeplitz import (
    Factor,
    LogDet,
    Product,
    Solve,
    diagonal_sums,
    fold,
    halves,
    toeplitz,
    toeplitz_eigh,
    unfold,
)
from resolvent.pde import SolverError

SIZES = (1, 2, 3, 6, 7, 12)


def lags(size: int) -> torch.Tensor:
    values = Matern(1.5, 0.3).lag(
        torch.linspace(0, 1, size, dtype=torch.float64) if size > 1 else torch.zeros(1).double()
    )
    return torch.cat([values[:1] + 0.1, values[1:]])


def dense(values: torch.Tensor, sign: float = 1.0) -> torch.Tensor:
    i = torch.arange(len(values))
    return values[(i[:, None] - i).abs()] * torch.where(i[:, None] < i, sign, 1.0)


@pytest.mark.parametrize("size", SIZES)
def test_values(size: int) -> None:
    t = lags(size)
    matrix, right = dense(t), torch.randn((size, 3), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(toeplitz(t), matrix)
    assert torch.equal(toeplitz(t, -1.0), dense(t, -1.0))
    torch.testing.assert_close(unfold(*fold(right)), right)
    left = [half @ part for half, part in zip(halves(t), fold(right), strict=True)]
    torch.testing.assert_close(unfold(*left), matrix @ right, rtol=1e-13, atol=1e-14)
    values, vectors = toeplitz_eigh(t)
    torch.testing.assert_close((vectors * values) @ vectors.T, matrix, rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(size, dtype=torch.float64), rtol=0, atol=1e-14)
    factor = Factor(t)
    torch.testing.assert_close(matrix @ factor.solve(right), right, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(factor.logdet(), torch.logdet(matrix), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("columns", [1, 20])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_sums_along_diagonals(columns: int, sign: float) -> None:
    """One column goes by transforms, twenty by the matrix."""
    left, right = torch.randn((2, 9, columns), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    entries = left @ right.T
    expected = [entries.diagonal(-k).sum() + (sign * entries.diagonal(k).sum() if k else 0.0) for k in range(9)]
    torch.testing.assert_close(diagonal_sums(left, right, sign), torch.stack(expected), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [2, 5, 6])
@pytest.mark.parametrize("axis", [0, 1])
def test_gradients_by_the_lags(size: int, axis: int) -> None:
    t = lags(size).requires_grad_()
    shape = (size, 2) if axis == 0 else (2, size)
    right = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v, r: Solve.apply(v, r, axis, Factor(v.detach())), (t, right))
    assert torch.autograd.gradcheck(lambda v: LogDet.apply(v, Factor(v.detach())), t)
    for sign in (1.0, -1.0):
        assert torch.autograd.gradcheck(lambda v, r, s=sign: Product.apply(v, r, axis, s), (t, right))


@pytest.mark.parametrize("orders", [(0,), (0, 2), (0, 1, 2)])
def test_all_orders_of_a_student_mixture_at_once(orders: tuple[int, ...]) -> None:
    """Against the method for one order, whose gradient is autograd's; a frequency of zero included."""
    tau = torch.linspace(0, 1, 9, dtype=torch.float64)
    free = [torch.tensor(v, dtype=torch.float64, requires_grad=True)
            for v in ([0.3, 1.1, 0.6], [0.0, 1.3, 4.0], [0.5, 2.0, 1.0])]  # fmt: skip
    mixture = StudentMixture(*free)
    got, expected = (
        torch.stack(list(mixture.lags(tau, orders).values())),
        torch.stack([mixture.lag(tau, p) for p in orders]),
    )
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    weights = torch.randn(got.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    slopes = [torch.autograd.grad((weights * value).sum(), free) for value in (got, expected)]
    torch.testing.assert_close(*slopes, rtol=1e-11, atol=1e-11)


def test_what_is_not_positive_definite_is_refused() -> None:
    with pytest.raises(SolverError, match="not positive definite"):
        Factor(torch.tensor([1.0, 2.0, 0.0], dtype=torch.float64))
