"""Swift-Hohenberg: growth rates, uniform states, its energy, and the amplitude of its stripes."""

import math

import pytest
import torch
from resolvent.pde.swift_hohenberg import SwiftHohenberg
from scipy.integrate import solve_ivp


def relative(got, expected):
    return float((got - expected).norm() / expected.norm())


@pytest.mark.parametrize(("dim", "vector"), [(1, (4,)), (2, (3, -4)), (3, (2, 1, -3))])
def test_a_small_wave_grows_at_the_known_rate(dim, vector):
    """r - (q² - |k|²)²; products of a wave of 1e-9 are smaller by 1e-9."""
    problem = SwiftHohenberg(dim=dim, growth=0.3, wavenumber=0.9)
    grid = problem.grid(16)
    k = 0.2 * torch.tensor(vector, dtype=torch.float64)  # 2 pi / L is 0.2
    wave = 1e-9 * torch.cos(torch.einsum("d,d...->...", k, grid.mesh()))[None, None]
    rate = 0.3 - (0.81 - float(k.square().sum())) ** 2
    assert relative(problem.reference()(wave, grid, (2.0,))[:, 0], math.exp(2.0 * rate) * wave) < 1e-7


def test_a_uniform_state_obeys_the_ordinary_equation():
    """u' = (r - q⁴) u + g u² - b u³, by SciPy."""
    problem = SwiftHohenberg(growth=1.2, quadratic=0.8, cubic=0.5)
    grid = problem.grid(16)
    got = problem.reference(tolerance=1e-9)(torch.full((1, 1, 16), 0.3, dtype=torch.float64), grid, (2.0,))
    rate = lambda _, u: 0.2 * u + 0.8 * u**2 - 0.5 * u**3  # noqa: E731
    truth = solve_ivp(rate, (0, 2.0), [0.3], method="DOP853", rtol=1e-12, atol=1e-13).y[0, -1]
    torch.testing.assert_close(got, torch.full_like(got, truth), rtol=1e-8, atol=0)


@pytest.mark.parametrize("dim", [1, 2])
def test_the_energy_only_falls(dim):
    """dE/dt = -int u_t²."""
    problem = SwiftHohenberg(dim=dim, frames=8, spacing=1.0)
    grid = problem.grid(48)
    u = problem.sample(2, grid, generator=torch.Generator().manual_seed(0))
    frames = torch.cat([u[:, None], problem.reference(nodes="given")(u, grid)], dim=1)
    energy = problem.energy(frames, grid)[..., 0]
    assert energy.shape == (2, 9)
    assert bool((energy.diff(dim=1) < 0).all())


def test_the_energy_of_a_wave():
    """((q² - k²)² / 4 - r / 4 + 3 b / 32) L for sin(k x); the cubic term averages out."""
    problem = SwiftHohenberg(growth=0.4, wavenumber=1.2, quadratic=0.9, cubic=0.7)
    grid = problem.grid(32)
    u = torch.sin(0.6 * grid.coordinates()[0])
    expected = ((1.44 - 0.36) ** 2 / 4 - 0.4 / 4 + 3 * 0.7 / 32) * 10 * math.pi
    assert float(problem.energy(u, grid)) == pytest.approx(expected, rel=1e-12)


def test_the_energy_of_a_uniform_state():
    """((q^4 - r) c² / 2 - g c³ / 3 + b c^4 / 4) L: here the cubic term counts."""
    problem = SwiftHohenberg(growth=0.4, wavenumber=1.2, quadratic=0.9, cubic=0.7)
    grid = problem.grid(16)
    u = torch.full_like(grid.coordinates()[0], 0.8)
    density = (1.2**4 - 0.4) * 0.64 / 2 - 0.9 * 0.512 / 3 + 0.7 * 0.4096 / 4
    assert float(problem.energy(u, grid)) == pytest.approx(density * 10 * math.pi, rel=1e-12)


def test_stripes_saturate_at_the_amplitude_of_weakly_nonlinear_theory():
    """For g = 0 and small r: u = 2 sqrt(r / 3 b) cos(q x) (1 + O(r)); third harmonics are r / 64 of it."""
    problem = SwiftHohenberg(growth=0.02, quadratic=0.0, cubic=2.0)
    grid = problem.grid(32)
    u = 0.1 * torch.cos(grid.coordinates()[0])[None, None]
    got = problem.reference()(u, grid, (600.0,))
    assert float(got.max()) == pytest.approx(2 * math.sqrt(0.02 / 6), rel=1e-3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"growth": math.inf}, "growth and quadratic must be finite"),
        ({"cubic": -1.0}, "cubic must be at least 0"),
        ({"wavenumber": -1.0}, "wavenumber must be at least 0"),
        ({"dim": 4}, "dim is 1, 2 or 3"),
        ({"length": 0.0}, "length must be positive"),
    ],
)
def test_parameters_out_of_range_are_refused(values, message, unchecked):
    with pytest.raises(ValueError, match=message):
        SwiftHohenberg(**values)
