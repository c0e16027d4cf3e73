"""Covariances: derivatives against arbitrary-precision arithmetic, spectra against quadrature, structure against pairs."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch
from resolvent.gp._covariance import (
    Bridged,
    Covariance,
    LineSpectrum,
    Matern,
    SpectralMixture,
    SquaredExponential,
    StudentMixture,
)
from scipy.integrate import quad

W, MU, WIDTH = (torch.tensor(v, dtype=torch.float64) for v in ((0.7, 0.3), (0.0, 2.3), (0.4, 0.9)))
RATES = torch.tensor([1.3, 0.6], dtype=torch.float64)


def matern_function(nu: float, rate: float, r):
    z = rate * r
    polynomial = {1.5: 1 + z, 2.5: 1 + z + z**2 / 3, 3.5: 1 + z + 2 * z**2 / 5 + z**3 / 15}[nu]
    return polynomial * mpmath.exp(-z)


def mixture_function(t):
    return sum(
        w * mpmath.exp(-2 * mpmath.pi**2 * s**2 * t**2) * mpmath.cos(2 * mpmath.pi * m * t)
        for w, m, s in zip(W.tolist(), MU.tolist(), WIDTH.tolist(), strict=True)
    )


def student_function(t):
    return sum(
        w * matern_function(2.5, math.sqrt(5) * b, abs(t)) * mpmath.cos(2 * mpmath.pi * m * t)
        for w, m, b in zip(W.tolist(), MU.tolist(), RATES.tolist(), strict=True)
    )


CASES = [
    pytest.param(SquaredExponential(0.7, 1.4), lambda t: 1.4 * mpmath.exp(-(t**2) / (2 * 0.49)), 8, id="gauss"),
    *(
        pytest.param(
            Matern(nu, 0.7),
            lambda t, nu=nu: matern_function(nu, math.sqrt(2 * nu) / 0.7, abs(t)),
            round(2 * nu) - 1,
            id=f"matern-{nu}",
        )
        for nu in (1.5, 2.5, 3.5)
    ),
    pytest.param(SpectralMixture(W, MU, WIDTH), mixture_function, 8, id="spectral"),
    pytest.param(StudentMixture(W, MU, RATES), student_function, 4, id="student"),
]


@pytest.mark.parametrize(("covariance", "function", "orders"), CASES)
def test_derivatives_equal_those_in_fifty_digits(covariance: Covariance, function, orders: int) -> None:
    """For all orders up to the largest, on both sides of zero; 1e-12 of the size of that derivative."""
    lags = [-1.7, -0.31, 0.023, 0.4, 2.2]
    with mpmath.workdps(50):
        for order in range(orders + 1):
            expected = torch.tensor([float(mpmath.diff(function, t, order)) for t in lags], dtype=torch.float64)
            got = covariance.at(torch.tensor(lags, dtype=torch.float64), torch.zeros(5, dtype=torch.float64), order)
            size = max(float(expected.abs().max()), 1e-300)
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-12 * size)


@pytest.mark.parametrize(("covariance", "function", "orders"), CASES)
def test_coincident_points_have_the_limit(covariance: Covariance, function, orders: int) -> None:
    """A port that differentiates abs(tau) gets 0 instead of k''(0) here. One-sided series, odd orders vanish."""
    zero = torch.zeros((), dtype=torch.float64)
    with mpmath.workdps(60):
        for order in range(orders + 1):
            limit = float(mpmath.diff(function, 0, order, direction=1)) if order % 2 == 0 else 0.0
            assert float(covariance.at(zero, zero, order)) == pytest.approx(limit, rel=1e-10, abs=1e-12)


@pytest.mark.parametrize(("covariance", "function", "orders"), CASES)
def test_both_arguments_share_the_derivative_with_its_sign(covariance: Covariance, function, orders: int) -> None:
    x, y = torch.tensor([0.3], dtype=torch.float64), torch.tensor([0.9], dtype=torch.float64)
    for p in range(min(4, orders) + 1):
        for q in range(min(4, orders - p) + 1):
            torch.testing.assert_close(covariance.at(x, y, p, q), (-1) ** q * covariance.at(x, y, p + q, 0))
            torch.testing.assert_close(covariance.at(x, y, p, q), covariance.at(y, x, q, p), rtol=1e-12, atol=1e-12)


def test_the_gaussian_mixture_is_the_transform_of_its_density() -> None:
    covariance = SpectralMixture(W, MU, WIDTH)
    for tau in (0.0, 0.2, 0.7):
        value = 2 * quad(lambda s, t=tau: float(covariance.density(torch.tensor(s, dtype=torch.float64)))
                         * math.cos(2 * math.pi * s * t), 0, 12, limit=400, epsabs=1e-13)[0]  # fmt: skip
        assert float(covariance.lag(torch.tensor(tau, dtype=torch.float64))) == pytest.approx(value, abs=1e-10)


def test_the_student_mixture_is_the_transform_of_student_densities_with_five_degrees_of_freedom() -> None:
    scale, constant = 1.3 / (2 * math.pi), math.gamma(3) / (math.gamma(2.5) * math.sqrt(5 * math.pi))
    single = StudentMixture(torch.ones(1).double(), torch.zeros(1).double(), torch.tensor([1.3], dtype=torch.float64))

    def density(s: float) -> float:
        return constant / scale * (1 + (s / scale) ** 2 / 5) ** -3

    assert 2 * quad(density, 0, math.inf)[0] == pytest.approx(1.0, abs=1e-10)
    for tau in (0.3, 1.1):
        value = 2 * quad(density, 0, math.inf, weight="cos", wvar=2 * math.pi * tau, epsabs=1e-12)[0]
        assert float(single.lag(torch.tensor(tau, dtype=torch.float64))) == pytest.approx(value, abs=1e-10)


def test_one_component_at_frequency_zero_is_the_gaussian_covariance() -> None:
    """rho² = 2 pi² s² means length 1 / (2 pi s)."""
    one = SpectralMixture(
        torch.tensor([1.4], dtype=torch.float64), torch.zeros(1).double(), torch.tensor([0.5], dtype=torch.float64)
    )
    tau = torch.linspace(-1, 1, 7, dtype=torch.float64)
    for order in range(5):
        same = SquaredExponential(1 / (2 * math.pi * 0.5), 1.4).lag(tau, order)
        torch.testing.assert_close(one.lag(tau, order), same, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("covariance", [case.values[0] for case in CASES])
def test_a_uniform_grid_is_toeplitz(covariance: Covariance) -> None:
    """One evaluation a lag equals all pairs, to the rounding of the coordinates times the next derivative."""
    x = torch.linspace(0.0, 2.0, 23, dtype=torch.float64)
    y = x[4:17]
    for p, q in ((0, 0), (1, 0), (1, 1)):
        torch.testing.assert_close(
            covariance.matrix(x, y, p, q), covariance.at(x[:, None], y, p, q), rtol=1e-9, atol=1e-10
        )


def test_lines_are_the_mixture_and_have_its_exact_factor() -> None:
    """On lags up to the given length; the factor is exact for every order."""
    mixture = SpectralMixture(W, MU, WIDTH)
    lines = mixture.lines(2.0)
    x = torch.linspace(0.0, 2.0, 41, dtype=torch.float64)
    for p, q in ((0, 0), (1, 2), (2, 2)):
        matrix = mixture.matrix(x, x, p, q)
        size = float(matrix.abs().max())
        torch.testing.assert_close(lines.matrix(x, x, p, q), matrix, rtol=0, atol=1e-12 * size)
        factored = lines.features(x, p) @ lines.features(x, q).T
        torch.testing.assert_close(factored, matrix, rtol=0, atol=1e-12 * size)


def test_sums_and_products_follow_leibniz() -> None:
    """The product of two Gaussian covariances is the Gaussian one with 1/l² added; a line spectrum times itself too."""
    x = torch.linspace(0.0, 1.5, 9, dtype=torch.float64)
    first, second = SquaredExponential(0.5, 2.0), SquaredExponential(0.8, 0.5)
    joint = SquaredExponential((0.5**-2 + 0.8**-2) ** -0.5, 1.0)
    for p, q in ((0, 0), (2, 0), (1, 2), (4, 4)):
        size = float(joint.matrix(x, x, p, q).abs().max())
        torch.testing.assert_close(
            (first * second).matrix(x, x, p, q), joint.matrix(x, x, p, q), rtol=0, atol=1e-12 * size
        )
        both = first.matrix(x, x, p, q) + second.matrix(x, x, p, q)
        torch.testing.assert_close((first + second).matrix(x, x, p, q), both)
    assert (first * Matern(2.5, 1.0)).smoothness == 4


def test_a_bridged_covariance_vanishes_where_it_is_pinned() -> None:
    base = SpectralMixture(W, MU, WIDTH)
    bridged = Bridged(base, ((0.0, 0), (1.0, 1)))
    x = torch.linspace(0.0, 1.0, 11, dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    assert float(bridged.matrix(x[:1], x, 0, 2).abs().max()) < 1e-10 * float(base.matrix(x, x, 0, 2).abs().max())
    assert float(bridged.matrix(one, x, 1, 0).abs().max()) < 1e-12 * float(base.matrix(x, x, 1, 1).abs().max())
    assert float(torch.linalg.eigvalsh(bridged.matrix(x, x)).min()) > -1e-13


def test_a_rough_covariance_refuses_what_it_has_not() -> None:
    x = torch.zeros(1, dtype=torch.float64)
    with pytest.raises(ValueError, match="p \\+ q up to 4"):
        Matern(2.5, 1.0).matrix(x, x, 3, 2)
    with pytest.raises(ValueError, match="nu is one of"):
        Matern(2.0, 1.0)
    assert LineSpectrum(torch.ones(2).double(), torch.ones(2).double()).matrix(x, x, 4, 4).isfinite().all()
