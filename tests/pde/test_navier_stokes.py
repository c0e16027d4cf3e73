"""Navier-Stokes against exact solutions, invariants, an independent integrator, and at its order."""

import math

import numpy as np
import pytest
import torch
from resolvent.pde import SolverError, fourier_resample
from resolvent.pde._spectral import modes_of
from resolvent.pde.navier_stokes import NavierStokes
from scipy.integrate import solve_ivp

TIMES = (0.25, 1.0, 2.5)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def relative(got, expected):
    return float((got - expected).norm() / expected.norm())


def resolved(problem, grid, count=1, seed=0):
    """Samples without the modes that the 2/3 rule removes: what the nonlinear term sees is then all there is."""
    w = problem.sample(count, grid, generator=generator(seed))
    modes = modes_of(grid, w)
    return modes.inverse(modes.forward(w) * modes.kept)


def plain_advection(w, grid):
    """-u . grad w from its definition, with complex FFTs in NumPy and the 2/3 rule."""
    w = np.asarray(w)
    kx, ky = (
        2 * np.pi / length * np.fft.fftfreq(n, 1 / n).reshape(shape)
        for n, length, shape in zip(grid.shape, grid.lengths, [(-1, 1), (1, -1)], strict=True)
    )
    keep = (np.abs(kx) * grid.spacing[0] * 3 < 2 * np.pi - 1e-9) & (np.abs(ky) * grid.spacing[1] * 3 < 2 * np.pi - 1e-9)
    k2 = kx**2 + ky**2
    spectrum = np.fft.fft2(w) * keep
    stream = spectrum / np.where(k2 > 0, k2, 1.0)
    u, v, wx, wy = (
        np.fft.ifft2(s).real for s in (1j * ky * stream, -1j * kx * stream, 1j * kx * spectrum, 1j * ky * spectrum)
    )
    return np.fft.ifft2(np.fft.fft2(-(u * wx + v * wy)) * keep).real


@pytest.mark.parametrize("viscosity", [1e-2, 1e-4, 0.0])
def test_taylor_green(viscosity):
    """w = 2 k cos(k x) cos(k y) decays as exp(-2 nu k² t): its nonlinear term vanishes."""
    problem = NavierStokes(viscosity=viscosity, forcing="none")
    grid = problem.grid(32)
    x, y = grid.mesh()
    k = 4 * math.pi
    w = (2 * k * torch.cos(k * x) * torch.cos(k * y))[None, None]
    expected = torch.stack([math.exp(-2 * viscosity * k**2 * t) * w for t in TIMES], dim=1)
    assert relative(problem.reference()(w, grid, TIMES), expected) < 1e-10


def test_all_waves_of_one_length_decay_together():
    """Eigenfunctions of the Laplacian are steady Euler flows, also sums of waves of different directions.

    Twelve waves with n_x² + n_y² = 25: their products are everywhere nonzero and cancel only in the whole sum.
    """
    problem = NavierStokes(viscosity=1e-3, forcing="none")
    grid = problem.grid(48)
    x, y = grid.mesh()
    w = torch.zeros(1, 1, *grid.shape, dtype=torch.float64)
    waves = [(5, 0), (0, 5), (3, 4), (3, -4), (4, 3), (4, -3)]
    for (n, m), (a, b) in zip(waves, torch.randn(6, 2, dtype=torch.float64, generator=generator()), strict=True):
        phase = 2 * math.pi * (n * x + m * y)
        w += a * torch.cos(phase) + b * torch.sin(phase)
    expected = torch.stack([math.exp(-1e-3 * 25 * (2 * math.pi) ** 2 * t) * w for t in TIMES], dim=1)
    assert relative(problem.reference()(w, grid, TIMES), expected) < 1e-10


@pytest.mark.parametrize("drag", [0.0, 0.3])
@pytest.mark.parametrize("forcing", ["fno", "kolmogorov"])
def test_a_forced_flow_from_rest(forcing, drag):
    """f is one wave length: w = f (1 - exp(-r t)) / r with r = nu |k|² + mu, towards the laminar steady flow f / r."""
    problem = NavierStokes(viscosity=0.05, forcing=forcing, drag=drag, wavenumber=3)
    grid = problem.grid(24)
    x, y = grid.mesh()
    if forcing == "fno":
        f, k2 = 0.1 * (torch.sin(2 * math.pi * (x + y)) + torch.cos(2 * math.pi * (x + y))), 8 * math.pi**2
    else:
        f, k2 = -3 * torch.cos(3 * y), 9.0
    rate = 0.05 * k2 + drag
    expected = torch.stack([-math.expm1(-rate * t) / rate * f for t in TIMES])[None, :, None]
    got = problem.reference()(torch.zeros(1, 1, *grid.shape, dtype=torch.float64), grid, TIMES)
    assert relative(got, expected) < 1e-10


def test_the_laminar_kolmogorov_flow_is_steady():
    problem = NavierStokes(viscosity=0.2, forcing="kolmogorov", drag=0.1, wavenumber=4)
    grid = problem.grid(32)
    w = (-4 * torch.cos(4 * grid.mesh()[1]) / (0.2 * 16 + 0.1))[None, None]
    got = problem.reference()(w, grid, TIMES)
    torch.testing.assert_close(got, w[:, None].expand_as(got), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(16, 16), (15, 20)])
@pytest.mark.parametrize("truncated", [False, True])
def test_basdevant_form_is_u_grad_w(shape, truncated):
    problem = NavierStokes(forcing="none")
    grid = problem.grid(shape)
    w = torch.randn(2, 1, *shape, dtype=torch.float64, generator=generator())
    modes = modes_of(grid, w, truncated=truncated)
    got = modes.inverse(problem.nonlinear(modes.forward(w) * modes.kept, modes))
    expected = torch.from_numpy(np.stack([plain_advection(sample[0], grid) for sample in w]))[:, None]
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-13 * float(expected.abs().max()) + 1e-13)


def test_the_velocity_is_that_of_the_vorticity():
    """dv/dx - du/dy = w and du/dx + dv/dy = 0; top_speed is the largest \\|u\\| + \\|v\\|."""
    problem = NavierStokes()
    grid = problem.grid(32)
    w = resolved(problem, grid)
    modes = modes_of(grid, w)
    velocity = problem.velocity(modes.forward(w), modes)
    u, v = modes.forward(velocity).unbind(dim=1)
    torch.testing.assert_close(modes.inverse(modes.ik[0] * v - modes.ik[1] * u), w[:, 0], rtol=0, atol=1e-14)
    assert float(modes.inverse(modes.ik[0] * u + modes.ik[1] * v).abs().max()) < 1e-14
    assert problem.top_speed(modes.forward(w), modes) == pytest.approx(float(velocity.abs().sum(dim=1).max()))


def test_an_independent_integrator_agrees():
    """SciPy's DOP853 on -u . grad w + nu Laplace w + f from its definition, at tolerance 1e-12."""
    problem = NavierStokes(viscosity=1e-3)
    grid = problem.grid(16)
    w = resolved(problem, grid) * 10
    x, y = (c.numpy() for c in grid.mesh())
    f = 0.1 * (np.sin(2 * np.pi * (x + y)) + np.cos(2 * np.pi * (x + y)))
    k = 2 * np.pi * np.fft.fftfreq(16, 1 / 16)
    decay = -1e-3 * (k[:, None] ** 2 + k[None] ** 2)

    def right_hand_side(_, flat):
        field = flat.reshape(16, 16)
        return (plain_advection(field, grid) + np.fft.ifft2(decay * np.fft.fft2(field)).real + f).ravel()

    truth = solve_ivp(right_hand_side, (0, 2), w.numpy().ravel(), "DOP853", rtol=1e-12, atol=1e-13).y[:, -1]
    got = problem.reference(tolerance=1e-11)(w, grid, (2.0,))
    assert relative(got.flatten(), torch.from_numpy(truth)) < 1e-9
    assert relative(got.flatten(), (w * torch.exp(torch.tensor(-0.1))).flatten()) > 0.05  # it did move


def test_without_viscosity_energy_and_enstrophy_are_conserved():
    """The dealiased equations conserve both exactly; what is left is the tolerance."""
    problem = NavierStokes(viscosity=0.0, forcing="none")
    grid = problem.grid(24)
    w = 5 * resolved(problem, grid, count=2)
    frames = torch.cat([w[:, None], problem.reference(tolerance=1e-9)(w, grid, (0.5, 1.5))], dim=1)
    modes = modes_of(grid, w)
    spectrum = modes.forward(frames)
    enstrophy = frames.square().mean(dim=(-2, -1))
    energy = (frames * modes.inverse(-modes.inverse_laplacian * spectrum)).mean(dim=(-2, -1))
    assert relative(frames[:, -1], w) > 0.3
    for invariant in (enstrophy, energy):
        torch.testing.assert_close(invariant, invariant[:, :1].expand_as(invariant), rtol=1e-8, atol=0)
    assert float(frames.mean(dim=(-2, -1)).abs().max()) < 1e-14


@pytest.mark.parametrize("method", ["etdrk4", "ifrk4"])
@pytest.mark.parametrize("viscosity", [1e-2, 1e-4])
def test_observed_order_is_four(method, viscosity):
    problem = NavierStokes(viscosity=viscosity)
    grid = problem.grid(24)
    w = 10 * resolved(problem, grid)
    truth = problem.reference(tolerance=1e-11)(w, grid, (0.5,))
    solvers = [problem.reference(step=0.5 / count, method=method) for count in (32, 64)]
    coarse, fine = (relative(solver(w, grid, (0.5,)), truth) for solver in solvers)
    assert 3.8 <= math.log2(coarse / fine) < 4.5


def test_shifting_or_turning_the_start_shifts_or_turns_the_solution():
    """Without forcing the torus has no preferred place; a quarter turn (x, y) -> (-y, x) keeps vorticity."""
    problem = NavierStokes(viscosity=1e-4, forcing="none")
    grid = problem.grid(24)
    w = 10 * resolved(problem, grid)
    solver = problem.reference(tolerance=1e-7)
    solution = solver(w, grid, (1.0,))
    shifted = solver(w.roll((5, -3), dims=(-2, -1)), grid, (1.0,))
    turned = solver(w.rot90(dims=(-2, -1)).contiguous(), grid, (1.0,))
    assert relative(shifted, solution.roll((5, -3), dims=(-2, -1))) < 1e-6
    assert relative(turned, solution.rot90(dims=(-2, -1))) < 1e-6


def test_modes_beyond_the_two_thirds_rule_follow_the_linear_part():
    problem = NavierStokes(viscosity=1e-3, forcing="none", drag=0.2)
    grid = problem.grid(16)
    x, y = grid.mesh()
    w = torch.cos(2 * math.pi * (7 * x - 6 * y))[None, None]
    rate = 1e-3 * 85 * (2 * math.pi) ** 2 + 0.2
    got = problem.reference()(w, grid, (0.5,))[:, 0]
    torch.testing.assert_close(got, math.exp(-0.5 * rate) * w, rtol=0, atol=1e-14)


def test_samples_have_the_standard_deviation_of_the_published_generator():
    problem = NavierStokes()
    w = problem.sample(400, problem.grid(32), generator=generator())
    assert float(w.std()) == pytest.approx(0.185, rel=0.03)  # operators.md, D8


def test_a_fixed_step_beyond_cfl_is_refused():
    problem = NavierStokes(viscosity=1e-4)
    grid = problem.grid(64)
    w = 10 * problem.sample(1, grid, generator=generator())
    with pytest.raises(SolverError, match=r"breaks the CFL condition; the largest stable step is 0\.0"):
        problem.reference(step=0.5)(w, grid)


def test_a_flow_that_speeds_up_in_one_frame_is_followed():
    """From rest the CFL condition asks for nothing; under strong forcing the flow is fast before the frame is over."""
    problem = NavierStokes(viscosity=1e-3, forcing="kolmogorov", wavenumber=2, frames=1, spacing=4.0)
    grid = problem.grid(16)
    w = 1e-3 * problem.sample(1, grid, generator=generator())
    coarse, fine = (problem.reference(tolerance=t)(w, grid) for t in (1e-4, 1e-7))
    assert relative(coarse, fine) < 1e-4


def test_a_grid_too_coarse_for_the_forcing_is_refused():
    problem = NavierStokes(forcing="kolmogorov", wavenumber=4)
    grid = problem.grid(12)
    with pytest.raises(ValueError, match="more than 12 nodes an axis"):
        problem.reference()(torch.zeros(1, 1, 12, 12, dtype=torch.float64), grid)
    assert all(min(solver.shape) > 12 for solver in problem.ladder(problem.grid(32)).values())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"viscosity": -1e-3}, "viscosity must be at least 0"),
        ({"viscosity": math.nan}, "viscosity must be at least 0"),
        ({"drag": -1.0}, "drag must be at least 0"),
        ({"forcing": "wind"}, "'fno', 'kolmogorov' or 'none'"),
        ({"wavenumber": 0}, "at least 1"),
        ({"alpha": 1.0}, "alpha must be above 1"),
        ({"frames": 0}, "frames must be positive"),
        ({"spacing": math.inf}, "spacing must be positive"),
        ({"burn_in": -1.0}, "burn_in must be at least 0"),
        ({"solve_on": -64}, "solve_on must be at least 0"),
    ],
)
def test_parameters_out_of_range_are_refused(values, message, unchecked):
    with pytest.raises(ValueError, match=message):
        NavierStokes(**values)


def spectrum_of_enstrophy(w):
    """Sums of abs(w_k)² over shells of the mode number, of one field."""
    n = w.shape[-1]
    numbers = torch.fft.fftfreq(n, 1 / n, dtype=torch.float64)
    shell = (numbers[:, None].square() + numbers.square()).sqrt().round().long()
    power = torch.fft.fft2(w, norm="forward").abs().square()
    return torch.zeros(n, dtype=torch.float64).index_add_(0, shell.flatten(), power.flatten())


def test_a_sample_after_burn_in_is_a_later_state_and_its_own():
    """The same whether drawn alone or with others; that of the evolution without burn-in; repeatable."""
    cold = NavierStokes(viscosity=1 / 40, forcing="kolmogorov", wavenumber=2)
    warm = NavierStokes(viscosity=1 / 40, forcing="kolmogorov", wavenumber=2, burn_in=3.0)
    grid = cold.grid(24)
    start = cold.sample(3, grid, generator=generator(5))
    got = warm.sample(3, grid, generator=generator(5))
    assert torch.equal(got, warm.sample(3, grid, generator=generator(5)))
    for i in range(3):
        assert torch.equal(got[i : i + 1], cold.reference()(start[i : i + 1], grid, (3.0,))[:, 0])
    assert relative(got, start) > 0.3


def test_computed_on_more_nodes_and_read_off():
    """``solve_on``: the same state on four times the nodes, at every fourth of them."""
    coarse = NavierStokes(viscosity=1 / 100, forcing="kolmogorov", wavenumber=2, solve_on=64, frames=1)
    fine = NavierStokes(viscosity=1 / 100, forcing="kolmogorov", wavenumber=2, frames=1)
    grid = coarse.grid(16)
    w = coarse.sample(1, grid, generator=generator())
    got = coarse.reference()(w, grid)
    expected = fine.reference()(fourier_resample(w, (64, 64)), grid.at(64))[..., ::4, ::4]
    assert relative(got, expected) < 1e-9
    assert relative(fine.reference()(w, grid), expected) > 1e-3


def test_the_kolmogorov_flow_at_re_500_is_resolved_where_it_says_so():
    """In the attractor's dissipation: energy input = output on average; here the spectrum, after 3 s at 128².

    The start has no fine scales; what stands at the edge of the 2/3 rule came down the cascade. Halving the step
    (a tolerance 16 times smaller) moves the state by less than a thousandth.
    """
    problem = NavierStokes(viscosity=1 / 500, forcing="kolmogorov")
    grid = problem.grid(128)
    w = problem.sample(1, grid, generator=generator())
    first = problem.reference(tolerance=2e-5)
    last = first(w, grid, (1.5,))[0, 0, 0]
    power = spectrum_of_enstrophy(last)
    assert math.log10(float(power.max() / power[39:42].mean())) > 3.0
    second = problem.reference(tolerance=2e-5 / 16)
    assert relative(last, second(w, grid, (1.5,))[0, 0, 0]) < 1e-3
    assert second.steps_taken > 1.5 * first.steps_taken


@pytest.mark.slow
def test_the_kolmogorov_flow_at_re_5000_falls_four_decades_on_512():
    """Spun up on 128² and 256², which are too coarse, then 2 s on 512²: minutes."""
    problem = NavierStokes(**{**NavierStokes.presets["kolmogorov_re5000"], "solve_on": 0, "burn_in": 0.0})
    w = problem.sample(1, problem.grid(128), generator=generator())
    for size, time in ((128, 15.0), (256, 3.0), (512, 2.0)):
        w = fourier_resample(w, (size, size))
        w = problem.reference()(w, problem.grid(size), (time,))[:, 0]
    power = spectrum_of_enstrophy(w[0, 0])
    assert math.log10(float(power.max() / power[167:170].mean())) > 4.0


def test_presets_of_kolmogorov_flow_hold_the_published_law():
    values = NavierStokes.presets["kolmogorov_re500"]
    problem = NavierStokes(**values)
    assert (problem.viscosity, problem.wavenumber, problem.burn_in, problem.frames) == (1 / 500, 4, 100.0, 400)
    assert problem.grid(64).lengths == pytest.approx((2 * math.pi, 2 * math.pi))
    assert (problem.alpha, problem.tau) == (2.5, 7.0)
