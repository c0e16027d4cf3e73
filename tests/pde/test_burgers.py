"""Burgers against the closed form of Cole and Hopf."""

import math

import pytest
import torch
from resolvent.pde import Grid, SolverError
from resolvent.pde.burgers import Burgers

TIMES = (0.1, 0.25, 1.0)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def one_wave(grid, time, viscosity, *, ratio=0.6, mode=1, mean=0.0):
    """phi = 1 + ratio exp(-nu k² t) cos(k x): u = 2 nu k ratio e sin(k x) / phi, carried along by the mean."""
    k = 2 * math.pi * mode / grid.lengths[0]
    x = grid.coordinates()[0] - mean * time
    e = ratio * math.exp(-viscosity * k**2 * time)
    return (mean + 2 * viscosity * k * e * torch.sin(k * x) / (1 + e * torch.cos(k * x)))[None, None]


def relative(got, expected):
    return float((got - expected).norm() / expected.norm())


@pytest.mark.parametrize("mean", [0.0, 0.7])
@pytest.mark.parametrize(("method", "length"), [("etdrk4", 1.0), ("etdrk4", 2 * math.pi), ("ifrk4", 2 * math.pi)])
def test_one_wave_of_cole_and_hopf(mean, length, method):
    problem = Burgers(viscosity=0.05, length=length)
    grid = problem.grid(128)
    solver = problem.reference(tolerance=1e-11, method=method)
    got = solver(one_wave(grid, 0.0, 0.05, mean=mean), grid, TIMES)
    expected = torch.stack([one_wave(grid, t, 0.05, mean=mean) for t in TIMES], dim=1)
    assert relative(got, expected) < 1e-8


def test_exact_is_the_closed_form():
    problem = Burgers(viscosity=0.05)
    grid = problem.grid(96)
    got = problem.exact(one_wave(grid, 0.0, 0.05, mean=-0.4), grid, TIMES)
    expected = torch.stack([one_wave(grid, t, 0.05, mean=-0.4) for t in TIMES], dim=1)
    assert relative(got, expected) < 1e-12


@pytest.mark.parametrize("preset", ["fno_paper", "fno_generator"])
def test_samples_of_the_published_laws_agree_with_cole_hopf(preset):
    """256 nodes leave a spatial error of 1e-11 where u(0) ~ k^-2; the rest is the tolerance."""
    problem = Burgers(**Burgers.presets[preset])
    grid = problem.grid(256)
    u = problem.sample(4, grid, generator=generator())
    assert relative(problem.reference(tolerance=1e-10)(u, grid), problem.exact(u, grid)) < 1e-8
    assert relative(problem.reference()(u, grid), problem.exact(u, grid)) < 1e-6  # at the default tolerance


@pytest.mark.parametrize(("method", "counts"), [("etdrk4", (64, 128)), ("ifrk4", (256, 512))])
def test_observed_order_is_four(method, counts):
    """A front of thickness 4 nu / max u, fixed steps, against the closed form; space contributes 1e-10."""
    problem = Burgers(viscosity=0.02)
    grid = problem.grid(128)
    start, end = (one_wave(grid, t, 0.02, ratio=0.9, mode=2) for t in (0.0, 0.5))
    solvers = [problem.reference(step=0.5 / count, method=method) for count in counts]
    coarse, fine = (relative(solver(start, grid, (0.5,))[:, 0], end) for solver in solvers)
    assert 3.8 <= math.log2(coarse / fine) < 4.3


def test_momentum_is_conserved_and_energy_dissipated():
    """d/dt int u = 0 and d/dt int u² / 2 = -nu int u_x² <= 0."""
    problem = Burgers(viscosity=0.01, frames=5, spacing=0.1)
    grid = problem.grid(256)
    u = problem.sample(3, grid, generator=generator()) + 0.3
    frames = torch.cat([u[:, None], problem.reference()(u, grid)], dim=1)
    momentum, energy = frames.mean(dim=-1), frames.square().mean(dim=-1)
    torch.testing.assert_close(momentum, torch.full_like(momentum, 0.3), rtol=0, atol=1e-14)
    assert bool((energy.diff(dim=1) < 0).all())


def test_samples_have_the_variance_of_their_law():
    """Pointwise variance: sum over k != 0 of sigma² (4 pi² k² + tau²)^-alpha; 4000 samples fix it to 5 %."""
    problem = Burgers()
    grid = problem.grid(64)
    u = problem.sample(4000, grid, generator=generator())
    k = torch.arange(1, 33, dtype=torch.float64)
    expected = 2 * float((25.0**2 * (4 * math.pi**2 * k**2 + 25) ** -2).sum())
    assert float(u.var()) == pytest.approx(expected, rel=0.05)
    assert float(u.mean(dim=-1).abs().max()) < 1e-14


def test_cole_hopf_says_where_it_loses_its_digits():
    problem = Burgers(viscosity=1e-3)
    grid = problem.grid(64)
    with pytest.raises(ValueError, match="larger viscosity"):
        problem.exact(problem.sample(2, grid, generator=generator()), grid)


def test_a_fixed_step_beyond_cfl_is_refused_with_the_largest_that_works():
    problem = Burgers(viscosity=1e-4)
    grid = problem.grid(128)
    u = torch.sin(2 * math.pi * grid.coordinates()[0])[None, None]
    highest = 42 * 2 * math.pi
    with pytest.raises(SolverError, match=f"largest stable step is {2.8 / highest:.3g}"):
        problem.reference(step=0.1)(u, grid, (0.5,))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"viscosity": 0.0}, "viscosity must be positive"),
        ({"viscosity": math.nan}, "viscosity must be positive"),
        ({"alpha": 0.5}, "alpha must be above 0.5"),
        ({"sigma": -1.0}, "sigma must be positive"),
        ({"tau": -1.0}, "tau must be at least 0"),
        ({"length": math.inf}, "length must be positive"),
        ({"frames": 0}, "frames must be positive"),
        ({"spacing": 0.0}, "spacing must be positive"),
    ],
)
def test_parameters_out_of_range_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Burgers(**values)


def test_a_grid_of_another_dimension_is_refused():
    with pytest.raises(ValueError, match=r"1 dimension\(s\); got a resolution for 2"):
        Burgers().grid((16, 16))
    with pytest.raises(ValueError, match="Expected inputs of shape"):
        Burgers().reference()(torch.zeros(1, 1, 8, dtype=torch.float64), Grid.box(16))
