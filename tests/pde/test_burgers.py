"""Burgers against the closed form of Cole and Hopf."""

import math
from pathlib import Path

import numpy as np
import pytest
import resolvent
import scipy.io
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
    solvers = [problem.reference(step=0.5 / count, method=method, nodes="given") for count in counts]
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
    k = 2 * math.pi * torch.arange(43)  # what the 2/3 rule keeps; the top speed is 1
    fastest = float((k - 0.35 * problem.viscosity * k**2).max())  # damping by d adds 0.35 d dt to the bound 2.8
    with pytest.raises(SolverError, match=f"largest stable step is {2.8 / fastest:.3g}"):
        problem.reference(step=0.1)(u, grid, (0.5,))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"viscosity": -0.1}, "viscosity must be positive"),
        ({"viscosity": math.nan}, "viscosity must be positive"),
        ({"alpha": 0.5}, "alpha must be above dim / 2 = 0.5"),
        ({"boundary": "neumann"}, "boundary is 'periodic' or 'dirichlet'"),
        ({"boundary": "dirichlet", "initial": "sinusoids"}, "draws periodic states"),
        ({"lower": math.inf}, "lower must be finite"),
        ({"sigma": -1.0}, "sigma must be positive"),
        ({"tau": -1.0}, "tau must be at least 0"),
        ({"length": math.inf}, "length must be positive"),
        ({"frames": 0}, "frames must be positive"),
        ({"spacing": 0.0}, "spacing must be positive"),
    ],
)
def test_parameters_out_of_range_are_refused(values, message, unchecked):
    with pytest.raises(ValueError, match=message):
        Burgers(**values)


def test_a_grid_of_another_dimension_is_refused():
    with pytest.raises(ValueError, match=r"1 dimension\(s\); got a resolution for 2"):
        Burgers().grid((16, 16))
    with pytest.raises(ValueError, match="Expected inputs of shape"):
        Burgers().reference()(torch.zeros(1, 1, 8, dtype=torch.float64), Grid.box(16))


# ---------------------------------------------------------------------- between walls

SHOCK = Burgers(**Burgers.presets["pinn_shock"])


def hopf_cole(x, time, viscosity):
    """The solution from -sin(pi x), as a quotient of two Gaussian integrals over the line, by 100 Hermite nodes.

    With 200 nodes the values agree to 4e-16.
    """
    node, weight = np.polynomial.hermite.hermgauss(100)
    y = x[:, None] - 2 * math.sqrt(viscosity * time) * node
    exponent = -np.cos(np.pi * y) / (2 * np.pi * viscosity)
    density = weight * np.exp(exponent - exponent.max(axis=1, keepdims=True))
    return -(np.sin(np.pi * y) * density).sum(axis=1) / density.sum(axis=1)


def shock_state(grid):
    u = -torch.sin(math.pi * grid.coordinates()[0])
    u[[0, -1]] = 0.0
    return u[None, None]


def test_the_shock_is_right_at_the_nodes_of_any_grid():
    """Not a power of two, far too coarse for the shock (0.01 wide), and at times that are no frames."""
    grid = SHOCK.grid(60)
    times = (0.2, 1 / math.pi, 0.95)
    got = SHOCK.reference()(shock_state(grid), grid, times)[0, :, 0]
    expected = [torch.from_numpy(hopf_cole(grid.coordinates()[0].numpy(), t, 0.01 / math.pi)) for t in times]
    assert relative(got, torch.stack(expected)) < 1e-7


def test_on_its_own_nodes_the_shock_is_not_resolved():
    """What the refinement is for: 256 nodes alone are off by a percent and more."""
    grid = SHOCK.grid(256)
    got = SHOCK.reference(nodes="given")(shock_state(grid), grid, (0.6,))[0, 0, 0]
    expected = torch.from_numpy(hopf_cole(grid.coordinates()[0].numpy(), 0.6, 0.01 / math.pi))
    assert relative(got, expected) > 1e-2


def test_the_published_shock_is_reproduced():
    """Raissi et al.: 256 nodes, 100 times. Their file differs from Cole and Hopf by 2.9e-12, our default by 5e-9."""
    path = Path(resolvent.__file__).resolve().parent.parent / "shared" / "data" / "burgers_shock.mat"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    data = scipy.io.loadmat(path)
    x, times = data["x"][:, 0], data["t"][1:, 0]
    published = torch.from_numpy(data["usol"][:, 1:].T.copy())
    grid = SHOCK.grid(256)
    assert grid.coordinates()[0].numpy() == pytest.approx(x, abs=1e-15)
    got = SHOCK.reference()(torch.from_numpy(data["usol"][:, 0].copy())[None, None], grid, tuple(times.tolist()))
    assert relative(got[0, :, 0], published) < 1e-7
    exact = torch.from_numpy(np.stack([hopf_cole(x, t, 0.01 / math.pi) for t in times]))
    assert relative(published, exact) < 1e-11


def test_between_walls_the_closed_form_agrees():
    problem = Burgers(boundary="dirichlet", viscosity=0.1, lower=-1.0, length=2.0, sigma=10.0, frames=3, spacing=0.3)
    grid = problem.grid(129)
    u = problem.sample(3, grid, generator=generator())
    got = problem.reference()(u, grid)
    assert relative(got, problem.exact(u, grid)) < 1e-6
    assert float(got[..., [0, -1]].abs().max()) == 0.0


def test_published_parameters():
    """PDEBench stores nu and solves with nu / pi; APEBench's difficulties are gamma_2 = 1.5 and delta_1 = 1.5."""
    pdebench = Burgers(**Burgers.presets["pdebench_burgers_nu0.01"])
    assert pdebench.viscosity == pytest.approx(0.01 / math.pi)
    assert pdebench.signature.times[-1] == pytest.approx(2.0)
    assert (pdebench.grid(1024).axes[0].lower, pdebench.grid(1024).axes[0].upper) == (-1.0, 1.0)
    ape = Burgers(**Burgers.presets["apebench_burgers"])
    assert ape.spacing * 160 == pytest.approx(1.5)
    assert ape.viscosity * ape.spacing * 160**2 * 2 == pytest.approx(1.5)
    assert ape.sample(1, ape.grid(160), generator=generator()).abs().max() == 1.0


def test_no_viscosity_names_the_problem_for_shocks():
    with pytest.raises(ValueError, match="inviscid_burgers"):
        Burgers(viscosity=0.0)
