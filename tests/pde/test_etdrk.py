"""Coefficients against eighty-digit arithmetic, steps against solutions in closed form and at their order."""

import cmath
import math
from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
import torch
from resolvent.pde._etdrk import etdrk4_coefficients, exponential_step
from resolvent.pde._periodic import DAMPING_HELPS, STABLE


def one(symbol):
    return torch.tensor([symbol], dtype=torch.complex128 if isinstance(symbol, complex) else torch.float64)


METHODS = ["etdrk4", "ifrk4"]


def exact_coefficients(value):
    """The textbook formulas (Cox & Matthews 2002, eq. 26) with enough digits that their cancellation does no harm."""
    with localcontext() as context:
        context.prec = 80
        z = Decimal(value)
        e = z.exp()
        return [
            float(c)
            for c in (
                ((z / 2).exp() - 1) / z,
                (-4 - z + e * (4 - 3 * z + z * z)) / z**3,
                2 * (2 + z + e * (z - 2)) / z**3,
                (-4 - 3 * z - z * z + e * (4 - z)) / z**3,
            )
        ]


@pytest.mark.parametrize(
    "z", [-1e-9, -1e-4, -0.03, -0.5, -0.999, -1.0, -1.001, -2.0, -7.0, -40.0, -1e3, -1e6, 1e-3, 3.0]
)
def test_coefficients_agree_with_eighty_digits(z):
    """1e-13: the closed form at \\|z\\| = 1, the least favourable place, divides a cancellation 4 -> 0.06 by 1."""
    got = [float(c) for c in etdrk4_coefficients(torch.tensor([z], dtype=torch.float64))]
    assert got == pytest.approx(exact_coefficients(z), rel=1e-13, abs=0)


def test_coefficients_at_zero_are_those_of_runge_kutta():
    """1/2, and 1/6, 2 * 1/6 shared by two stages as 1/3 + 1/3, 1/6."""
    got = [float(c) for c in etdrk4_coefficients(torch.zeros(1, dtype=torch.float64))]
    assert got == pytest.approx([1 / 2, 1 / 6, 1 / 3, 1 / 6], rel=1e-14)


@pytest.mark.parametrize("angle", [0.5, 1.0, -0.7])
@pytest.mark.parametrize("size", [1e-6, 0.3, 0.999, 1.2, 9.0])
def test_coefficients_of_oscillations(angle, size):
    """Complex z: Taylor series of the four functions in exact fractions, 120 terms."""
    z = cmath.rect(size, angle * math.pi)
    got = [complex(c) for c in etdrk4_coefficients(torch.tensor([z], dtype=torch.complex128))]
    assert got == pytest.approx(taylor(z), rel=2e-13, abs=0)


def taylor(z):
    x, y = Fraction(z.real), Fraction(z.imag)
    sums = [(Fraction(0), Fraction(0))] * 4

    def e(m):
        return Fraction(1, math.factorial(m))

    for n in range(119, -1, -1):  # coefficient of z^n, from the numerators' coefficient of z^(n + 3)
        m = n + 3
        terms = (
            Fraction(1, 2 ** (n + 1) * math.factorial(n + 1)),
            4 * e(m) - 3 * e(m - 1) + e(m - 2),
            2 * (e(m - 1) - 2 * e(m)),
            4 * e(m) - e(m - 1),
        )
        sums = [(p * x - q * y + t, p * y + q * x) for (p, q), t in zip(sums, terms, strict=True)]
    return [complex(float(p), float(q)) for p, q in sums]


def test_repeated_and_shaped_symbols_give_the_same_coefficients():
    """Equal z share one evaluation; places and shapes must survive."""
    z = -torch.tensor([[0.0, 3.0, 0.25], [3.0, 0.25, 17.0]], dtype=torch.float64)
    one_by_one = zip(*map(etdrk4_coefficients, z.flatten()[:, None]), strict=True)
    for together, alone in zip(etdrk4_coefficients(z), one_by_one, strict=True):
        torch.testing.assert_close(together.flatten(), torch.cat(alone), rtol=1e-14, atol=0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("symbol", [-3.0, 0.0, -2.0 + 5.0j], ids=["decay", "none", "spiral"])
def test_without_a_nonlinear_term_a_step_is_exact(method, symbol):
    u = torch.tensor([1.0 + 2.0j], dtype=torch.complex128)
    step = exponential_step(method, one(symbol), 0.7)
    torch.testing.assert_close(step(u, torch.zeros_like), u * cmath.exp(0.7 * symbol), rtol=1e-14, atol=0)


def test_a_constant_forcing_is_integrated_exactly_by_etdrk4():
    """u' = L u + 1: u(t) = (exp(L t) - 1) / L, for every L, however stiff."""
    symbol = torch.tensor([-1e5, -3.0, -1e-7], dtype=torch.float64)
    step = exponential_step("etdrk4", symbol, 0.5)
    got = step(torch.zeros(3, dtype=torch.complex128), torch.ones_like)
    expected = (torch.expm1(0.5 * symbol) / symbol).to(torch.complex128)
    torch.testing.assert_close(got, expected, rtol=1e-13, atol=0)


def bernoulli_error(method, count, symbol):
    """u' = L u - u², u(0) = 1/2, to t = 1: 1/u = (2 - 1/L) exp(-L t) + 1/L."""
    u = torch.tensor([0.5], dtype=torch.complex128)
    step = exponential_step(method, one(symbol), 1 / count)
    for _ in range(count):
        u = step(u, lambda v: -v * v)
    exact = 1 / ((2 - 1 / symbol) * cmath.exp(-symbol) + 1 / symbol)
    return abs(complex(u) - exact)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("symbol", [-2.0, -1.0 + 3.0j], ids=["real", "complex"])
def test_observed_order_is_four(method, symbol):
    errors = [bernoulli_error(method, count, symbol) for count in (16, 32, 64)]
    orders = [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
    assert orders[-1] == pytest.approx(4.0, abs=0.15)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("damping", [0.0, 0.1, 0.5, 1.5, 4.0, 16.0, 64.0])
def test_damping_adds_to_the_bound_of_stability(method, damping):
    """L = -d and N = i w: no wave grows while w dt is below 2.8 + 0.35 d dt, what the solver plans with."""
    w = torch.linspace(0, STABLE + DAMPING_HELPS * damping, 200, dtype=torch.float64)
    step = exponential_step(method, torch.full_like(w, -damping), 1.0)
    after = step(torch.ones_like(w, dtype=torch.complex128), lambda u: 1j * w * u)
    assert float(after.abs().max()) <= 1 + 1e-12  # of the round-off of four stages


def test_an_unknown_method_is_refused(unchecked):
    with pytest.raises(ValueError, match="'etdrk4' or 'ifrk4'"):
        exponential_step("rk2", torch.zeros(1), 0.1)
