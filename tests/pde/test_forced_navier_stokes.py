"""Forced from rest: single waves in closed form, the plain solver's forcing, an independent integrator, order."""

import math

import numpy as np
import pytest
import torch
from resolvent.pde.forced_navier_stokes import ForcedNavierStokes
from resolvent.pde.navier_stokes import NavierStokes
from scipy.integrate import solve_ivp


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def relative(got, expected):
    return float((got - expected).norm() / expected.norm())


@pytest.mark.parametrize("viscosity", [0.0, 0.05])
def test_one_wave_length_grows_towards_the_laminar_flow(viscosity):
    """f of waves of one length: w = f (1 - exp(-r T)) / r with r = nu k², or f T."""
    problem = ForcedNavierStokes(viscosity=viscosity, time=3.0)
    grid = problem.grid(24)
    x, y = grid.mesh()
    f = (torch.cos(5 * x) + torch.sin(3 * x + 4 * y) - 0.5 * torch.sin(4 * x - 3 * y))[None, None]
    rate = 25 * viscosity
    expected = f * (-math.expm1(-rate * 3) / rate if rate else 3.0)
    torch.testing.assert_close(problem.reference()(f, grid), expected, rtol=0, atol=1e-11)


def test_the_published_forcing_of_the_evolution_gives_its_vorticity():
    """0.1 (sin + cos) on the unit torus is the forcing of ``navier_stokes``."""
    evolution = NavierStokes(viscosity=1e-3)
    problem = ForcedNavierStokes(viscosity=1e-3, length=1.0, time=2.0)
    grid = problem.grid(16)
    x, y = grid.mesh()
    f = 0.1 * (torch.sin(2 * math.pi * (x + y)) + torch.cos(2 * math.pi * (x + y)))[None, None]
    got = problem.reference(tolerance=1e-9)(f, grid)
    expected = evolution.reference(tolerance=1e-9)(torch.zeros_like(f), grid, (2.0,))[:, 0]
    assert relative(got, expected) < 1e-9


def test_an_independent_integrator_agrees():
    """SciPy's DOP853 on -u . grad w + nu Laplace w + f from its definition, with complex FFTs and the 2/3 rule."""
    problem = ForcedNavierStokes(viscosity=0.01, time=1.5)
    grid = problem.grid(16)
    k1 = np.fft.fftfreq(16, 1 / 16)
    keep = (np.abs(k1)[:, None] < 16 / 3) & (np.abs(k1) < 16 / 3)
    kx, ky = k1[:, None] * keep, k1[None] * keep
    k2 = k1[:, None] ** 2 + k1**2
    inverse = 1 / np.where(k2 > 0, k2, 1.0)
    f = problem.sample(1, grid, generator=generator())
    f = torch.from_numpy(np.fft.ifft2(keep * np.fft.fft2(f.numpy())).real)

    def right_hand_side(_, flat):
        s = keep * np.fft.fft2(flat.reshape(16, 16))
        parts = (1j * ky * inverse * s, -1j * kx * inverse * s, 1j * kx * s, 1j * ky * s, -0.01 * k2 * s)
        u, v, wx, wy, diffusion = (np.fft.ifft2(part).real for part in parts)
        advection = np.fft.ifft2(keep * np.fft.fft2(u * wx + v * wy)).real
        return (diffusion - advection + f[0, 0].numpy()).ravel()

    truth = solve_ivp(right_hand_side, (0, 1.5), np.zeros(256), "DOP853", rtol=1e-11, atol=1e-12).y[:, -1]
    got = problem.reference(tolerance=1e-10)(f, grid)
    assert relative(got.flatten(), torch.from_numpy(truth)) < 1e-8
    assert relative(got, 1.5 * f) > 0.1  # the flow did more than add up its forcing


@pytest.mark.parametrize("method", ["etdrk4", "ifrk4"])
def test_observed_order_is_four(method):
    problem = ForcedNavierStokes(time=2.0)
    grid = problem.grid(16)
    f = problem.sample(1, grid, generator=generator())
    truth = problem.reference(tolerance=1e-11)(f, grid)
    coarse, fine = (relative(problem.reference(step=2.0 / n, method=method)(f, grid), truth) for n in (64, 128))
    assert math.log2(coarse / fine) == pytest.approx(4.0, abs=0.4)


def test_a_steady_laminar_flow_is_reached():
    """Strongly damped: w = -f / (nu Laplace) when all is over, for a sum of wave lengths small enough to stay linear."""
    problem = ForcedNavierStokes(viscosity=1.0, time=60.0)
    grid = problem.grid(16)
    x, y = grid.mesh()
    f = 1e-7 * (torch.cos(x) + torch.sin(2 * x + 3 * y))[None, None]
    expected = 1e-7 * (torch.cos(x) + torch.sin(2 * x + 3 * y) / 13)[None, None]
    assert relative(problem.reference()(f, grid), expected) < 1e-6


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"viscosity": -1.0}, "viscosity must be at least 0"),
        ({"time": 0.0}, "time must be positive"),
        ({"alpha": 1.0}, "alpha must be above 1"),
    ],
)
def test_parameters_out_of_range_are_refused(values, message, unchecked):
    with pytest.raises(ValueError, match=message):
        ForcedNavierStokes(**values)
