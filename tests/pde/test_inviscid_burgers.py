"""Inviscid Burgers: characteristics, Rankine-Hugoniot, rarefactions, and the limit of vanishing viscosity."""

import math

import pytest
import torch
from resolvent.pde.burgers import Burgers
from resolvent.pde.inviscid_burgers import InviscidBurgers, first_crossing


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def wave(grid, mean=0.2):
    return (mean + torch.sin(2 * math.pi * grid.coordinates()[0]))[None, None]


def test_characteristics_solve_the_equation():
    """u(x + t u0(x)) = u0(x): the closed form, read at the arriving points by its own series."""
    problem = InviscidBurgers()
    grid = problem.grid(64)
    time = 0.1
    got = problem.exact(wave(grid), grid, (time,))[0, 0, 0]
    x = grid.coordinates()[0]
    torch.testing.assert_close(0.2 + torch.sin(2 * math.pi * (x - time * got)), got, rtol=0, atol=1e-12)


def test_the_first_shock_is_where_the_slope_says():
    """min u_x = -2 pi: characteristics cross at 1 / 2 pi."""
    problem = InviscidBurgers()
    grid = problem.grid(33)
    assert first_crossing(wave(grid)[:, 0], grid) == pytest.approx(1 / (2 * math.pi), rel=1e-3)
    with pytest.raises(ValueError, match=r"cross at time 0\.159"):
        problem.exact(wave(grid), grid, (0.1, 0.2))
    assert first_crossing(torch.ones(1, 33).double(), grid) > 1e9  # never, but for round-off


@pytest.mark.parametrize(("scheme", "order", "counts"), [("weno", 5, (64, 128)), ("muscl", 2, (64, 128))])
def test_order_before_the_shock(scheme, order, counts):
    problem, errors = InviscidBurgers(), []
    for count in counts:
        grid = problem.grid(count)
        got = problem.reference(scheme=scheme)(wave(grid), grid, (0.08,))
        errors.append(float((got - problem.exact(wave(grid), grid, (0.08,))).abs().mean()))
    assert order - 0.5 < math.log2(errors[0] / errors[1]) < order + 0.7


def riemann(grid, left, right, at=0.0):
    return torch.where(grid.coordinates()[0] < 0.3125 + at, left, right).double()[None, None]


@pytest.mark.parametrize(("left", "right"), [(1.0, 0.0), (2.0, -1.0), (0.5, -1.5)])
def test_shocks_move_at_the_mean_of_their_sides(left, right):
    problem = InviscidBurgers(boundary="outflow")
    errors = []
    for count in (64, 128):
        grid = problem.grid(count)
        got = problem.reference()(riemann(grid, left, right), grid, (0.25,))[:, 0]
        errors.append(float((got - riemann(grid, left, right, 0.125 * (left + right))).abs().mean()))
    assert errors[1] < 0.02 * (left - right)
    assert errors[1] < 0.8 * errors[0]


@pytest.mark.parametrize(("left", "right"), [(0.2, 1.0), (-1.0, 1.0)])
def test_rarefactions_open_also_through_the_sonic_point(left, right):
    """No expansion shock: u = x / t in the fan."""
    problem = InviscidBurgers(boundary="outflow")
    errors = []
    for count in (64, 128):
        grid = problem.grid(count)
        got = problem.reference()(riemann(grid, left, right), grid, (0.25,))[0, 0, 0]
        fan = ((grid.coordinates()[0] - 0.3125) / 0.25).clamp(left, right)
        errors.append(float((got - fan).abs().mean()))
    assert errors[1] < 0.01
    assert errors[1] < 0.7 * errors[0]


def test_after_the_shock_the_wave_is_the_limit_of_small_viscosity():
    """L1 distance of the solution at nu from the inviscid one is of order nu: halving nu halves it."""
    inviscid = InviscidBurgers()
    grid = inviscid.grid(256)
    sharp = inviscid.reference()(wave(grid, 0.0), grid, (0.4,))
    gaps = []
    for nu in (1.6e-2, 8e-3):
        smooth = Burgers(viscosity=nu).reference(tolerance=1e-7)(wave(grid, 0.0), grid, (0.4,))
        gaps.append(float((smooth - sharp).abs().mean()))
    assert 0.4 < gaps[1] / gaps[0] < 0.65


def test_mean_is_conserved_energy_falls_and_nothing_exceeds_its_bounds():
    problem = InviscidBurgers(frames=5)
    grid = problem.grid(128)
    u = problem.sample(3, grid, generator=generator())
    frames = torch.cat([u[:, None], problem.reference()(u, grid)], dim=1)[:, :, 0]
    assert float(frames.mean(dim=-1).abs().max()) < 1e-14
    assert bool((frames.square().mean(dim=-1).diff(dim=1) < 0).all())
    spread = float(u.max() - u.min())
    assert float(frames.max()) < float(u.max()) + 0.01 * spread
    assert float(frames.min()) > float(u.min()) - 0.01 * spread


def test_open_ends_let_shocks_out():
    problem = InviscidBurgers(boundary="outflow")
    grid = problem.grid(64)
    got = problem.reference()(riemann(grid, 1.0, 0.0), grid, (2.0,))[:, 0]
    torch.testing.assert_close(got, torch.ones_like(got), rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match="periodic grids"):
        problem.exact(riemann(grid, 1.0, 0.0), grid, (0.1,))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"boundary": "wall"}, "'periodic' or 'outflow'"),
        ({"alpha": 0.5}, "alpha must be above 0.5"),
        ({"sigma": 0.0}, "sigma must be positive"),
        ({"tau": -1.0}, "tau must be at least 0"),
        ({"spacing": 0.0}, "spacing must be positive"),
    ],
)
def test_parameters_out_of_range_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        InviscidBurgers(**values)
