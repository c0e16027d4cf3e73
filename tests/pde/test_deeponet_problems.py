"""The operators of the DeepONet literature and their Gaussian process, against closed forms and observed orders."""

import math

import numpy as np
import pytest
import torch
from resolvent.pde import SolverError
from resolvent.pde._gaussian_process import squared_exponential
from resolvent.pde._grid import Axis
from resolvent.pde._local_polynomial import integration, interpolation
from resolvent.pde.antiderivative import Antiderivative
from resolvent.pde.diffusion_reaction import DiffusionReaction
from resolvent.pde.pendulum import Pendulum
from scipy.special import ellipj

PROBLEMS = [Antiderivative, Pendulum, DiffusionReaction]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def line(size, upper=1.0):
    return Axis("x", size, 0.0, upper, ("outflow", "outflow"), "ends")


def rates(errors):
    return [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]


# ---------------------------------------------------------------------- the process


@pytest.mark.parametrize(("correlation", "amplitude", "length"), [(0.2, 1.0, 1.0), (0.5, 3.0, 4.0), (2.0, 1.0, 1.0)])
def test_the_process_has_its_covariance(correlation, amplitude, length):
    """20,000 draws fix each entry to sigma² sqrt(2 / 20,000) = 1 % of sigma²; five times that is never met by chance."""
    axis = line(9, length)
    u = squared_exponential(20_000, axis, correlation=correlation, amplitude=amplitude, generator=generator())
    x = axis.coordinates()
    expected = amplitude**2 * torch.exp(-0.5 * ((x[:, None] - x) / correlation) ** 2)
    torch.testing.assert_close(u.T @ u / len(u), expected, rtol=0, atol=0.05 * amplitude**2)
    assert float(u.mean(dim=0).abs().max()) < 5 * amplitude / math.sqrt(20_000)


@pytest.mark.parametrize("build", PROBLEMS)
def test_the_same_seed_is_the_same_function_at_every_resolution(build):
    problem = build()
    coarse, fine = (problem.sample(3, problem.grid(n), generator=generator(5)) for n in (17, 33))
    torch.testing.assert_close(coarse[:, :, :, ...], fine[:, :, ::2][..., : coarse.shape[-1]], rtol=0, atol=1e-13)


# ---------------------------------------------------------------------- local polynomials


@pytest.mark.parametrize("degree", [1, 3, 5, 7, 9])
def test_polynomials_of_the_degree_are_exact(degree):
    axis = line(12, 2.0)
    points = tuple(np.linspace(0, 2, 29).tolist())
    for power in range(degree + 1):
        u = axis.coordinates() ** power
        expected = torch.tensor(points, dtype=torch.float64) ** power
        torch.testing.assert_close(interpolation(axis, points, degree) @ u, expected, rtol=1e-11, atol=1e-10)
        integral = axis.coordinates() ** (power + 1) / (power + 1)
        torch.testing.assert_close(integration(axis, degree) @ u, integral, rtol=1e-11, atol=1e-10)
    wrong = interpolation(axis, points, degree) @ axis.coordinates() ** (degree + 1)
    assert float((wrong - torch.tensor(points, dtype=torch.float64) ** (degree + 1)).abs().max()) > 1e-6


# ---------------------------------------------------------------------- antiderivative


@pytest.mark.parametrize("degree", [1, 3, 5, 7])
def test_the_antiderivative_of_a_wave_at_the_claimed_order(degree):
    problem, errors = Antiderivative(), []
    for n in (33, 65, 129):
        grid = problem.grid(n)
        x = grid.coordinates()[0]
        got = problem.reference(degree=degree)(torch.cos(8 * x)[None, None], grid)
        errors.append(float((got[0, 0] - torch.sin(8 * x) / 8).abs().max()))
    assert all(degree + 0.7 < rate < degree + 2.2 for rate in rates(errors))


def test_samples_of_the_published_law_are_integrated_to_nine_digits():
    """The same functions on a four times finer grid with another degree; 100 sensors are 20 a correlation length."""
    problem = Antiderivative()
    coarse, fine = problem.grid(100), problem.grid(397)
    u, v = (problem.sample(20, grid, generator=generator()) for grid in (coarse, fine))
    truth = problem.reference(degree=9)(v, fine)[..., ::4]
    assert float((problem.reference()(u, coarse) - truth).abs().max()) < 1e-9
    assert float(truth[..., 0].abs().max()) == 0.0


# ---------------------------------------------------------------------- pendulum


@pytest.mark.parametrize("start", [0.1, 1.0, 3.0])
def test_an_undriven_pendulum_swings_like_jacobis_elliptic_functions(start):
    k = 2.3
    problem = Pendulum(stiffness=k, angle=start, duration=5.0)
    grid = problem.grid(201)
    angle, rate = problem.reference()(torch.zeros(1, 1, 201, dtype=torch.float64), grid)[0]
    m = math.sin(start / 2) ** 2
    _, cn, dn, _ = ellipj(math.sqrt(k) * grid.coordinates()[0].numpy(), m)
    expected = 2 * np.arcsin(math.sin(start / 2) * cn / dn)
    torch.testing.assert_close(angle, torch.from_numpy(expected), rtol=0, atol=2e-9)  # dt = 1/320: C dt^4 ~ 1e-10
    energy = 0.5 * rate.square() - k * torch.cos(angle)
    torch.testing.assert_close(energy, energy[:1].expand(201), rtol=0, atol=2e-9)


def test_without_gravity_the_torque_is_integrated_twice():
    problem = Pendulum(stiffness=0.0, angle=0.2, rate=-0.3)
    grid = problem.grid(65)
    t = grid.coordinates()[0]
    angle, rate = problem.reference()(torch.cos(5 * t)[None, None], grid)[0]
    torch.testing.assert_close(rate, -0.3 + torch.sin(5 * t) / 5, rtol=0, atol=1e-11)
    torch.testing.assert_close(angle, 0.2 - 0.3 * t + (1 - torch.cos(5 * t)) / 25, rtol=0, atol=1e-11)


def test_a_driven_pendulum_of_known_motion_at_order_four():
    """s1 = sin 3t by the torque -9 sin 3t + k sin(sin 3t)."""
    problem, errors = Pendulum(stiffness=4.0, rate=3.0, duration=2.0), []
    grid = problem.grid(129)
    t = grid.coordinates()[0]
    torque = (-9 * torch.sin(3 * t) + 4 * torch.sin(torch.sin(3 * t)))[None, None]
    for substeps in (1, 2, 4):
        got = problem.reference(substeps=substeps, degree=9)(torque, grid)[0]
        errors.append(float((got - torch.stack([torch.sin(3 * t), 3 * torch.cos(3 * t)])).abs().max()))
    assert all(3.8 < rate < 4.3 for rate in rates(errors))


def test_published_samples_of_the_pendulum_to_ten_digits():
    problem = Pendulum(**Pendulum.presets["deeponet"])
    coarse, fine = problem.grid(100), problem.grid(397)
    u, v = (problem.sample(20, grid, generator=generator()) for grid in (coarse, fine))
    error = problem.reference()(u, coarse) - problem.reference(substeps=2)(v, fine)[..., ::4]
    assert float(error.abs().max()) < 1e-10


# ---------------------------------------------------------------------- diffusion-reaction


def sine_series(problem, grid, source, modes=4000):
    """The closed form for k = 0; u_n by Gauss-Legendre quadrature on panels fine enough for mode 4000.

    Terms fall as n^-3: what is left out is below 2 max|u| / (D pi^3) sum n^-3 ~ 2e-7 / 100.
    """
    abscissae, weights = np.polynomial.legendre.leggauss(8)
    edges = np.linspace(0, 1, 2001)
    x = torch.from_numpy((0.5 * (edges[1:] + edges[:-1])[:, None] + 0.5 * np.diff(edges)[:, None] * abscissae).ravel())
    w = torch.from_numpy((0.5 * np.diff(edges)[:, None] * weights).ravel())
    n = torch.arange(1, modes + 1, dtype=torch.float64)[:, None]
    coefficients = 2 * (torch.sin(math.pi * n * x) * (w * source(x))).sum(dim=1, keepdim=True)
    decay = problem.diffusivity * (math.pi * n) ** 2
    space, time = grid.coordinates()
    amplitudes = coefficients * -torch.expm1(-decay * time) / decay
    return torch.sin(math.pi * n * space).T @ amplitudes


def test_without_reaction_the_solution_is_a_sine_series():
    """u does not vanish at the ends: the boundary layers of early times are the hard part."""
    problem = DiffusionReaction(reaction=0.0)
    grid = problem.grid((41, 11))

    def source(x):
        return torch.cos(3 * x) + 0.5 * x

    u = source(grid.coordinates()[0])[None, None, :, None].expand(1, 1, 41, 11)
    expected = sine_series(problem, grid, source)
    for nodes, tolerance in ((24, 1e-4), (48, 3e-7), (96, 2e-8)):
        got = problem.reference(nodes=nodes)(u, grid)[0, 0]
        assert float((got - expected).abs().max()) < tolerance


def test_a_source_whose_solution_is_one_mode():
    problem = DiffusionReaction(reaction=0.0, diffusivity=0.1, length=2.0, duration=3.0)
    grid = problem.grid((33, 9))
    x, t = grid.mesh()
    decay = 0.1 * (math.pi / 2) ** 2
    u = torch.sin(math.pi * x / 2)[None, None]
    expected = u * -torch.expm1(-decay * t) / decay
    torch.testing.assert_close(problem.reference()(u, grid), expected, rtol=0, atol=1e-9)


def test_a_stationary_solution_is_reached_where_source_balances_reaction():
    """u = -D S'' - k S² for S = sin pi x: s -> S; slowest decay exp(-D pi² t) ~ 1e-11 at D t = 2.6."""
    problem = DiffusionReaction(diffusivity=1.0, reaction=1.5, duration=3.0)
    grid = problem.grid((65, 33))
    x = grid.coordinates()[0]
    steady = torch.sin(math.pi * x)
    u = (math.pi**2 * steady - 1.5 * steady.square())[None, None, :, None].expand(1, 1, 65, 33)
    got = problem.reference(substeps=8)(u, grid)[0, 0, :, -1]
    torch.testing.assert_close(got, steady, rtol=0, atol=1e-8)


def test_diffusion_reaction_is_of_order_four_in_time():
    problem = DiffusionReaction(diffusivity=0.05, reaction=4.0)
    grid = problem.grid((33, 9))
    u = problem.sample(1, grid, generator=generator(3))
    truth = problem.reference(substeps=64)(u, grid)
    errors = [float((problem.reference(substeps=n)(u, grid) - truth).abs().max()) for n in (1, 2, 4)]
    assert all(3.6 < rate < 4.5 for rate in rates(errors))


def test_published_samples_of_diffusion_reaction_to_six_digits():
    problem = DiffusionReaction(**DiffusionReaction.presets["deeponet"])
    grid = problem.grid(33)
    u = problem.sample(5, grid, generator=generator())
    got, truth = problem.reference()(u, grid), problem.reference(nodes=120, substeps=8)(u, grid)
    assert float((got - truth).norm() / truth.norm()) < 1e-6
    assert float(got[..., 0].abs().max()) == float(got[:, :, [0, -1]].abs().max()) == 0.0


def test_a_source_that_moves_in_time_is_refused():
    problem = DiffusionReaction()
    grid = problem.grid((9, 9))
    u = torch.ones(2, 1, 9, 9, dtype=torch.float64)
    u[1, 0, :, 4] = 2.0
    with pytest.raises(ValueError, match=r"x alone.*\[1\]"):
        problem.reference()(u, grid)


def test_blow_up_is_named():
    """s_t >= k s² + u runs away for u = 100, k = 10 at t = pi / (2 sqrt(1000)) = 0.05, diffusion or not."""
    problem = DiffusionReaction(reaction=10.0)
    grid = problem.grid((17, 17))
    u = torch.stack([torch.ones(1, 17, 17), 100 * torch.ones(1, 17, 17)]).double()
    with pytest.raises(SolverError, match=r"blew up near time .* sample\(s\) \[1\]"):
        problem.reference()(u, grid)


@pytest.mark.parametrize(
    ("build", "values", "message"),
    [
        (Antiderivative, {"correlation": 0.0}, "correlation must be positive"),
        (Antiderivative, {"length": -1.0}, "length must be positive"),
        (Pendulum, {"stiffness": -1.0}, "stiffness must be at least 0"),
        (Pendulum, {"angle": math.inf}, "angle and rate are finite"),
        (Pendulum, {"duration": 0.0}, "duration must be positive"),
        (DiffusionReaction, {"diffusivity": 0.0}, "diffusivity must be positive"),
        (DiffusionReaction, {"reaction": math.nan}, "reaction is a finite rate"),
    ],
)
def test_parameters_out_of_range_are_refused(build, values, message):
    with pytest.raises(ValueError, match=message):
        build(**values)


@pytest.mark.parametrize(
    ("solver", "message"),
    [
        (lambda: Antiderivative().reference(degree=2), "odd number from 1 to 9"),
        (lambda: Pendulum().reference(degree=11), "odd number from 1 to 9"),
        (lambda: Pendulum().reference(substeps=0), "substeps is at least 1"),
        (lambda: DiffusionReaction().reference(nodes=3), "nodes is from 4 to 256"),
        (lambda: DiffusionReaction().reference(substeps=0), "substeps is at least 1"),
    ],
)
def test_solver_options_out_of_range_are_refused(solver, message):
    with pytest.raises(ValueError, match=message):
        solver()
