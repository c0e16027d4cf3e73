"""FitzHugh-Nagumo: linear waves in closed form, a uniform state, an independent finite-volume method, order."""

import math

import numpy as np
import pytest
import torch
from resolvent.pde import fourier_resample
from resolvent.pde.fitzhugh_nagumo import FitzHughNagumo
from scipy.integrate import solve_ivp
from scipy.linalg import expm


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def relative(got, expected):
    return float((got - expected).norm() / expected.norm())


def smooth(grid):
    """Cosines, which have no slope at the walls -1 and 1."""
    x, y = ((c + 1) * math.pi / 2 for c in grid.mesh())
    return torch.stack([torch.cos(x) * torch.cos(2 * y) + 0.3, 0.5 * torch.cos(3 * x) - 0.2 * torch.cos(y)])[None]


def finite_volumes(state, problem, time):
    """Cell averages, five-point Laplacian without flux through the walls, SciPy's DOP853: second order in h."""
    n = state.shape[-1]
    h2 = (2 / n) ** 2
    diffusivity = np.array([problem.diffusivity_u, problem.diffusivity_v])[:, None, None]

    def right_hand_side(_, flat):
        w = flat.reshape(2, n, n)
        p = np.pad(w, ((0, 0), (1, 1), (1, 1)), mode="edge")
        spread = (p[:, 2:, 1:-1] + p[:, :-2, 1:-1] + p[:, 1:-1, 2:] + p[:, 1:-1, :-2] - 4 * w) / h2
        u, v = w
        return (diffusivity * spread + np.stack([u - u**3 - problem.offset - v, u - v])).ravel()

    y = solve_ivp(right_hand_side, (0, time), state.numpy().ravel(), "DOP853", rtol=1e-10, atol=1e-12).y[:, -1]
    return torch.from_numpy(y.reshape(1, 2, n, n))


def test_small_waves_follow_the_matrix_exponential():
    """Of amplitude 1e-6 around 0 without offset: the cube is 1e-12 of it, and each cosine turns by its own 2 x 2 matrix."""
    problem = FitzHughNagumo(offset=0.0)
    grid = problem.grid(16)
    x, y = ((c + 1) * math.pi / 2 for c in grid.mesh())
    wave = torch.cos(3 * x) * torch.cos(y)
    got = problem.reference()(1e-6 * torch.stack([wave, 0.5 * wave])[None], grid, (2.0,))[0, 0]
    k2 = 10 * (math.pi / 2) ** 2
    matrix = np.array([[1 - 1e-3 * k2, -1.0], [1.0, -1 - 5e-3 * k2]])
    u, v = 1e-6 * expm(2.0 * matrix) @ [1.0, 0.5]
    torch.testing.assert_close(got, torch.stack([u * wave, v * wave]), rtol=0, atol=1e-16)


@pytest.mark.parametrize("boundary", ["neumann", "periodic"])
def test_a_uniform_state_follows_the_reaction(boundary):
    problem = FitzHughNagumo(dim=1, boundary=boundary)
    grid = problem.grid(8)
    state = torch.tensor([0.9, -0.4], dtype=torch.float64).reshape(1, 2, 1).expand(1, 2, 8)
    reaction = lambda _, y: [y[0] - y[0] ** 3 - 5e-3 - y[1], y[0] - y[1]]  # noqa: E731
    truth = solve_ivp(reaction, (0, 3), [0.9, -0.4], "DOP853", rtol=1e-12, atol=1e-14).y[:, -1]
    got = problem.reference(tolerance=1e-9)(state, grid, (3.0,))[0, 0]
    torch.testing.assert_close(got, torch.from_numpy(truth)[:, None].expand(2, 8), rtol=1e-7, atol=0)


def test_the_rest_state_is_steady():
    """u = v = -k^(1/3)."""
    problem = FitzHughNagumo(offset=0.008)
    grid = problem.grid(8)
    state = torch.full((1, 2, 8, 8), -0.2, dtype=torch.float64)
    torch.testing.assert_close(problem.reference()(state, grid, (5.0,))[:, 0], state, rtol=0, atol=1e-11)


def test_finite_volumes_converge_to_the_reference_at_their_order():
    problem = FitzHughNagumo(diffusivity_u=1e-2, diffusivity_v=5e-2)
    errors = []
    for n in (32, 64):
        grid = problem.grid(n)
        got = problem.reference(tolerance=1e-7)(smooth(grid), grid, (0.5,))[:, 0]
        errors.append(relative(finite_volumes(smooth(grid), problem, 0.5), got))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.05)
    assert errors[1] < 1e-3


@pytest.mark.parametrize("all_modes", [True, False])
def test_an_independent_integrator_agrees(all_modes):
    """The equation in its 24 x 24 cosine coefficients with SciPy's DCT, on nodes enough for the cube, by DOP853."""
    from scipy.fft import dctn, idctn

    problem = FitzHughNagumo(diffusivity_u=5e-3, diffusivity_v=2e-2)
    grid = problem.grid(48)
    state = 0.5 * smooth(grid)
    k = np.arange(48) * np.pi / 2
    k2 = k[:, None] ** 2 + k[None] ** 2
    diffusivity = np.array([5e-3, 2e-2])[:, None, None]

    def right_hand_side(_, flat):
        w = flat.reshape(2, 48, 48)
        u, v = w
        spread = idctn(-diffusivity * k2 * dctn(w, axes=(1, 2)), axes=(1, 2))
        return (spread + np.stack([u - u**3 - problem.offset - v, u - v])).ravel()

    truth = solve_ivp(right_hand_side, (0, 1.5), state.numpy().ravel(), "DOP853", rtol=1e-10, atol=1e-12).y[:, -1]
    got = problem.reference(tolerance=1e-9, all_modes=all_modes)(state, grid, (1.5,))
    assert relative(got.flatten(), torch.from_numpy(truth)) < 5e-7


@pytest.mark.parametrize("method", ["etdrk4", "ifrk4"])
def test_observed_order_is_four(method):
    problem = FitzHughNagumo(boundary="periodic")
    grid = problem.grid(16)
    state = smooth(grid)
    truth = problem.reference(tolerance=1e-12, all_modes=False)(state, grid, (1.0,))
    coarse, fine = (
        relative(problem.reference(step=1 / n, method=method, all_modes=False)(state, grid, (1.0,)), truth)
        for n in (16, 32)
    )
    assert math.log2(coarse / fine) == pytest.approx(4.0, abs=0.3)


def test_of_noise_all_waves_take_part():
    """Noise on its grid against the same on twice the nodes by hand; leaving out the short waves shows."""
    problem = FitzHughNagumo(dim=1, boundary="periodic")
    grid = problem.grid(24)
    noise = problem.sample(1, grid, generator=generator())
    noise = fourier_resample(fourier_resample(noise, (23,)), (24,))  # the Nyquist wave has no part in any
    fine = problem.reference(tolerance=1e-8, all_modes=False)(fourier_resample(noise, (96,)), problem.grid(96), (0.2,))
    fine = fine[..., ::4]
    every, few = (problem.reference(tolerance=1e-8, all_modes=m)(noise, grid, (0.2,)) for m in (True, False))
    # what is left are the waves that the reaction makes beyond the grid's
    assert relative(every, fine) < 0.6 * relative(few, fine)


def test_the_published_set_up():
    problem = FitzHughNagumo(**FitzHughNagumo.presets["pdebench_2d_diff_react"])
    grid = problem.grid(128)
    assert [(axis.lower, axis.upper, axis.placement, axis.boundary[0]) for axis in grid.axes] == [
        (-1.0, 1.0, "centres", "neumann")
    ] * 2
    assert (problem.diffusivity_u, problem.diffusivity_v, problem.offset) == (1e-3, 5e-3, 5e-3)
    assert problem.signature.times[-1] == pytest.approx(5.0)
    noise = problem.sample(2, grid, generator=generator())
    assert float(noise.std()) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"boundary": "dirichlet"}, "'neumann' or 'periodic'"),
        ({"diffusivity_u": -1.0}, "diffusivity_u must be at least 0"),
        ({"offset": math.inf}, "offset must be finite"),
        ({"initial": "square"}, "'noise' or 'random_field'"),
        ({"dim": 4}, "dim is 1, 2 or 3"),
    ],
)
def test_parameters_out_of_range_are_refused(values, message, unchecked):
    with pytest.raises(ValueError, match=message):
        FitzHughNagumo(**values)
