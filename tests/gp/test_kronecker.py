"""Kronecker algebra against the dense matrix, operation by operation; the likelihood's gradient against autograd."""

from __future__ import annotations

import math

import pytest
import torch
from resolvent.gp._kronecker import Kronecker, apply, log_likelihood, matheron, outer

SHAPES = [(5,), (7, 5), (4, 3, 5)]


def factors_of(shape: tuple[int, ...], seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    roots = [torch.randn((n, n), generator=generator, dtype=torch.float64) for n in shape]
    return [root @ root.T / len(root) + 0.1 * torch.eye(len(root), dtype=torch.float64) for root in roots]


def dense(factors: list[torch.Tensor]) -> torch.Tensor:
    total = torch.ones((1, 1), dtype=torch.float64)
    for factor in factors:
        total = torch.kron(total, factor)
    return total


def field_of(shape: tuple[int, ...], seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_operation_has_its_dense_twin(shape: tuple[int, ...], noise: float) -> None:
    """1e-10 relative: condition numbers here are below 1e5."""
    factors, field = factors_of(shape), field_of(shape)
    algebra = Kronecker(factors, noise)
    matrix = dense(factors) + noise * torch.eye(math.prod(shape), dtype=torch.float64)
    flat = field.flatten()
    torch.testing.assert_close(algebra.product(field).flatten(), matrix @ flat, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(algebra.solve(field).flatten(), torch.linalg.solve(matrix, flat), rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(algebra.logdet(), torch.logdet(matrix), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(algebra.quadratic(field), flat @ torch.linalg.solve(matrix, flat), rtol=1e-9, atol=0)
    normal = torch.distributions.MultivariateNormal(torch.zeros_like(flat), matrix)
    torch.testing.assert_close(algebra.log_likelihood(field), normal.log_prob(flat), rtol=1e-9, atol=1e-9)
    values = torch.linalg.eigvalsh(matrix)
    torch.testing.assert_close(algebra.spectrum.flatten().sort().values, values, rtol=1e-9, atol=1e-11)
    roots = torch.stack([algebra.root(e.reshape(shape)).flatten() for e in torch.eye(len(flat), dtype=flat.dtype)], 1)
    torch.testing.assert_close(roots @ roots.T, matrix, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("shape", SHAPES)
def test_rectangular_factors_predict_like_the_dense_product(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(3)
    cross = [torch.randn((n + 2, n), generator=generator, dtype=torch.float64) for n in shape]
    field = field_of((2, *shape))
    expected = torch.stack([(dense(cross) @ one.flatten()).reshape([n + 2 for n in shape]) for one in field])
    torch.testing.assert_close(apply(cross, field), expected, rtol=1e-12, atol=1e-12)
    complex_cross = [m + 1j * m for m in cross]
    torch.testing.assert_close(apply(complex_cross, field), (1 + 1j) ** len(shape) * expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_gradient_in_closed_form_is_that_of_the_dense_likelihood(shape: tuple[int, ...]) -> None:
    """By every entry of every factor, by the noise and by the field; symmetric changes, so both triangles count."""
    factors = [f.requires_grad_() for f in factors_of(shape)]
    noise = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    field = field_of(shape).requires_grad_()
    log_likelihood(field, factors, noise).backward()
    got = [f.grad.clone() for f in factors] + [noise.grad.clone(), field.grad.clone()]
    for leaf in (*factors, noise, field):
        leaf.grad = None
    symmetric = [0.5 * (f + f.T) for f in factors]
    matrix = dense(symmetric) + noise * torch.eye(math.prod(shape), dtype=torch.float64)
    flat = field.flatten()
    factor = torch.linalg.cholesky(matrix)
    whitened = torch.linalg.solve_triangular(factor, flat[:, None], upper=False)
    value = -0.5 * whitened.square().sum() - factor.diagonal().log().sum() - 0.5 * len(flat) * math.log(2 * math.pi)
    value.backward()
    for ours, leaf in zip(got, (*factors, noise, field), strict=True):
        torch.testing.assert_close(ours, leaf.grad, rtol=1e-8, atol=1e-9)


def test_samples_have_the_covariance() -> None:
    """40 000 draws: standard error of an entry below 0.03 of the largest variance."""
    factors = factors_of((3, 2))
    draws = Kronecker(factors, 0.1).sample(40000, generator=torch.Generator().manual_seed(5)).flatten(1)
    matrix = dense(factors) + 0.1 * torch.eye(6, dtype=torch.float64)
    assert float((draws.T @ draws / len(draws) - matrix).abs().max()) < 0.03 * float(matrix.max())


def test_matherons_rule_gives_the_posterior() -> None:
    """Mean and covariance of corrected draws, against the dense conditional."""
    kernel = factors_of((6,))[0]
    seen, noise = torch.arange(4), 0.2
    algebra, cross = Kronecker([kernel[:4, :4]], noise), [kernel[:, :4]]
    observed = field_of((4,))
    generator = torch.Generator().manual_seed(2)
    joint = torch.randn((30000, 6), generator=generator, dtype=torch.float64) @ torch.linalg.cholesky(kernel).T
    here = joint[:, seen] + math.sqrt(noise) * torch.randn((30000, 4), generator=generator, dtype=torch.float64)
    draws = matheron(algebra, cross, observed, here=here, there=joint)
    gram = kernel[:4, :4] + noise * torch.eye(4, dtype=torch.float64)
    mean = kernel[:, :4] @ torch.linalg.solve(gram, observed)
    covariance = kernel - kernel[:, :4] @ torch.linalg.solve(gram, kernel[:4])
    assert float((draws.mean(dim=0) - mean).abs().max()) < 0.03  # five standard errors
    assert float((draws.T.cov() - covariance).abs().max()) < 0.05


def test_an_indefinite_matrix_is_refused_with_a_remedy() -> None:
    bad = torch.diag(torch.tensor([1.0, -0.5], dtype=torch.float64))
    with pytest.raises(ValueError, match=r"not positive definite.*Add noise"):
        Kronecker([bad]).logdet()
    with pytest.raises(ValueError, match="square"):
        Kronecker([torch.ones(2, 3, dtype=torch.float64)])
    with pytest.raises(ValueError, match="variance"):
        Kronecker([torch.eye(2, dtype=torch.float64)], -1.0)


def test_outer_products_follow_the_grid() -> None:
    a, b = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0, 5.0])
    assert torch.equal(outer([a, b]), a[:, None] * b)
