"""Functions of small matrices: rotations, decays and Jordan blocks in closed form, and stiff ones."""

import math

import pytest
import torch
from resolvent.pde._etdrk import etdrk4_coefficients, exponential_step, linear_flow
from resolvent.pde._matrix_functions import balance, phi_functions


def wave_matrix(k, c=1.0):
    return torch.tensor([[0.0, 1.0], [-((c * k) ** 2), 0.0]], dtype=torch.float64)


@pytest.mark.parametrize("k", [1e-6, 0.3, 7.0, 1e3])
def test_the_exponential_of_a_wave(k):
    """cos and sin of k; the sine of a rounded angle of 1e3 is known to 1e-13, the same lost in squaring."""
    (got,) = phi_functions(wave_matrix(k)[None], 0)
    expected = torch.tensor([[math.cos(k), math.sin(k) / k], [-k * math.sin(k), math.cos(k)]], dtype=torch.float64)
    torch.testing.assert_close(got[0], expected, rtol=0, atol=1e-13 * max(1.0, k) ** 2)
    torch.testing.assert_close(
        got[0] / torch.tensor([[1, 1 / k], [k, 1]]),
        expected / torch.tensor([[1, 1 / k], [k, 1]]),
        rtol=0,
        atol=1e-15 * max(100.0, k),
    )


def test_a_matrix_without_eigenvectors():
    """A = [[0, 1], [0, 0]]: A² = 0, so phi_j = I / j! + A / (j + 1)!."""
    matrix = torch.tensor([[0.0, 1.0], [0.0, 0.0]], dtype=torch.float64)[None]
    for j, got in enumerate(phi_functions(matrix, 3)):
        expected = torch.eye(2, dtype=torch.float64) / math.factorial(j) + matrix[0] / math.factorial(j + 1)
        torch.testing.assert_close(got[0], expected, rtol=1e-15, atol=0)


@pytest.mark.parametrize("value", [0.0, -1e-3, -0.7, -30.0, -1e5])
def test_phi_functions_of_one_by_one_matrices(value):
    """By recurrence from below where it does not cancel, by the series elsewhere."""
    got = [float(f) for f in phi_functions(torch.full((1, 1, 1), value, dtype=torch.float64), 3)]
    if abs(value) < 1:
        expected = [sum(value**m / math.factorial(m + j) for m in range(30)) for j in range(4)]
    else:
        expected = [math.exp(value)]
        for j in range(3):
            expected.append((expected[-1] - 1 / math.factorial(j)) / value)
    assert got == pytest.approx(expected, rel=1e-12, abs=1e-300)


def test_balancing_is_a_similarity_that_evens_rows_and_columns():
    matrices = torch.randn(5, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    matrices = matrices * torch.tensor([1.0, 1e4, 1e-3])[:, None] / torch.tensor([1.0, 1e2, 1e-5])
    balanced, d = balance(matrices)
    torch.testing.assert_close(d[:, :, None] * balanced / d[:, None], matrices, rtol=1e-13, atol=0)
    off = balanced.abs() * (1 - torch.eye(3))
    ratio = off.square().sum(dim=1) / off.square().sum(dim=2)
    assert float(ratio.max()) < 1.5
    assert float(ratio.min()) > 1 / 1.5
    assert float(balance(wave_matrix(1e3)[None])[0].abs().max()) == pytest.approx(1e3)


def diagonal(symbol):
    """A symbol of one number a channel, as a matrix."""
    return torch.diag_embed(symbol.movedim(0, -1)).movedim((-2, -1), (0, 1))


@pytest.mark.parametrize("method", ["etdrk4", "ifrk4"])
def test_a_coupled_step_of_a_diagonal_matrix_is_the_plain_step(method):
    symbol = -torch.rand(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 20
    u = torch.randn(3, 2, 5, dtype=torch.complex128, generator=torch.Generator().manual_seed(1))
    nonlinear = lambda v: v.conj() * v.flip(1)  # noqa: E731
    plain = exponential_step(method, symbol, 0.1)(u, nonlinear)
    coupled = exponential_step(method, diagonal(symbol), 0.1, coupled=True)(u, nonlinear)
    torch.testing.assert_close(coupled, plain, rtol=1e-13, atol=1e-14)
    flows = linear_flow(symbol, 0.7)(u), linear_flow(diagonal(symbol), 0.7, coupled=True)(u)
    torch.testing.assert_close(flows[1], flows[0], rtol=1e-13, atol=1e-14)


def test_a_rotation_is_one_complex_number():
    """(a, b) with a_t = w b, b_t = -w a is a + i b times -i w: the step coefficients of both must agree."""
    w = torch.tensor([1e-7, 0.4, 1.0, 3.0, 50.0, 2e3], dtype=torch.float64)
    z = torch.zeros_like(w)
    step = exponential_step("etdrk4", torch.stack([torch.stack([z, w]), torch.stack([-w, z])]), 1.0, coupled=True)
    single = exponential_step("etdrk4", -1j * w, 1.0)
    a, b = 0.3 * torch.randn(2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    pair = torch.stack([a, b])[None].to(torch.complex128)
    turned = lambda v: torch.stack([-v[:, 1], v[:, 0]], dim=1) * (v[:, :1] ** 2 + v[:, 1:] ** 2)  # noqa: E731
    got = step(pair, turned)[0]
    expected = single(a + 1j * b, lambda v: 1j * v * v.abs() ** 2)
    torch.testing.assert_close(got[0].real + 1j * got[1].real, expected, rtol=0, atol=1e-12)
    assert etdrk4_coefficients(-1j * w)[0].is_complex()


@pytest.mark.parametrize("method", ["etdrk4", "ifrk4"])
def test_observed_order_is_four_for_a_coupled_part(method):
    """i psi_t = 3 psi - abs(psi)² psi, one mode: psi = r exp(-3 i t + i r² t)."""
    z, w = torch.zeros(1, dtype=torch.float64), torch.full((1,), 3.0, dtype=torch.float64)
    symbol = torch.stack([torch.stack([z, w]), torch.stack([-w, z])])
    turned = lambda v: torch.stack([-v[:, 1], v[:, 0]], dim=1) * (v[:, :1] ** 2 + v[:, 1:] ** 2)  # noqa: E731
    errors = []
    for count in (16, 32, 64):
        step, u = exponential_step(method, symbol, 1 / count, coupled=True), torch.tensor([[[1.5], [0.0]]]) + 0j
        u = u.to(torch.complex128)
        for _ in range(count):
            u = step(u, turned)
        angle = 1.5**2 - 3
        errors.append(abs(complex(u[0, 0]) + 1j * complex(u[0, 1]) - 1.5 * complex(math.cos(angle), math.sin(angle))))
    assert math.log2(errors[1] / errors[2]) == pytest.approx(4.0, abs=0.15)
