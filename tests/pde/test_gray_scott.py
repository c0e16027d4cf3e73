"""Gray-Scott: no reaction, a uniform reaction and an independent integrator; the published laws; order."""

import math

import numpy as np
import pytest
import torch
from resolvent.pde._spectral import modes_of
from resolvent.pde.gray_scott import GrayScott
from scipy.integrate import solve_ivp


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def relative(got, expected):
    return float((got - expected).norm() / expected.norm())


def smooth(grid):
    """Waves on kept modes that react."""
    x, y = (2 * math.pi * c / grid.lengths[0] for c in grid.mesh())
    return torch.stack([0.6 + 0.2 * torch.cos(x + y), 0.3 + 0.1 * torch.sin(2 * x - y)])[None]


def test_without_catalyst_the_feed_relaxes():
    """B = 0: 1 - A decays as exp(-(f + D_A k²) t), mode by mode."""
    problem = GrayScott()
    grid = problem.grid(16)
    x, y = grid.mesh()
    k = 2 * math.pi
    wave = torch.cos(3 * k * x) * torch.sin(k * y)
    state = torch.stack([0.7 + 0.1 * wave, 0 * wave])[None]
    times = (5.0, 60.0)
    got = problem.reference()(state, grid, times)[0]
    for frame, t in zip(got, times, strict=True):
        decay = math.exp(-problem.feed * t)
        a = 1 - 0.3 * decay + 0.1 * decay * math.exp(-2e-5 * 10 * k**2 * t) * wave
        torch.testing.assert_close(frame, torch.stack([a, 0 * a]), rtol=0, atol=1e-11)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_a_uniform_state_follows_the_reaction(dim):
    problem = GrayScott(dim=dim)
    grid = problem.grid(8)
    state = torch.tensor([0.5, 0.3], dtype=torch.float64).reshape(1, 2, *(1,) * dim).expand(1, 2, *grid.shape)
    f, k = problem.feed, problem.kill

    def reaction(_, y):
        rate = y[0] * y[1] ** 2
        return [-rate + f * (1 - y[0]), rate - (f + k) * y[1]]

    truth = solve_ivp(reaction, (0, 50), [0.5, 0.3], "DOP853", rtol=1e-12, atol=1e-14).y[:, -1]
    got = problem.reference(tolerance=1e-9)(state, grid, (50.0,))[0, 0]
    expected = torch.from_numpy(truth).reshape(2, *(1,) * dim).expand(2, *grid.shape)
    torch.testing.assert_close(got, expected, rtol=1e-8, atol=0)


def test_an_independent_integrator_agrees():
    """SciPy's DOP853 on a grid so fine that the cube of what is there does not alias."""
    problem = GrayScott(length=1.0, diffusivity_a=2e-4, diffusivity_b=1e-4)
    grid = problem.grid(48)
    state = smooth(grid)
    k = 2 * np.pi * np.fft.fftfreq(48, 1 / 48)
    k2 = k[:, None] ** 2 + k[None] ** 2
    diffusivity = np.array([2e-4, 1e-4])[:, None, None]

    def right_hand_side(_, flat):
        y = flat.reshape(2, 48, 48)
        spread = np.fft.ifft2(-diffusivity * k2 * np.fft.fft2(y)).real
        rate = y[0] * y[1] ** 2
        reaction = [-rate + problem.feed * (1 - y[0]), rate - (problem.feed + problem.kill) * y[1]]
        return (spread + np.stack(reaction)).ravel()

    truth = solve_ivp(right_hand_side, (0, 40), state.numpy().ravel(), "DOP853", rtol=1e-11, atol=1e-13).y[:, -1]
    got = problem.reference(tolerance=1e-9)(state, grid, (40.0,))
    assert relative(got.flatten(), torch.from_numpy(truth)) < 1e-7
    assert relative(got.flatten(), state.flatten()) > 0.1


@pytest.mark.parametrize("method", ["etdrk4", "ifrk4"])
def test_observed_order_is_four(method):
    problem = GrayScott(length=1.0)
    grid = problem.grid(16)
    state = smooth(grid)
    truth = problem.reference(step=40.0 / 256)(state, grid, (40.0,))
    coarse, fine = (
        relative(problem.reference(step=40.0 / n, method=method)(state, grid, (40.0,)), truth) for n in (16, 32)
    )
    assert math.log2(coarse / fine) == pytest.approx(4.0, abs=0.3)


@pytest.mark.parametrize("name", ["bubbles", "spots"])
def test_the_steady_states_are_steady(name):
    problem = GrayScott(**GrayScott.presets[name])
    grid = problem.grid(8)
    steady = torch.tensor(problem.steady_state, dtype=torch.float64)
    assert (problem.steady_state == (1.0, 0.0)) == (name == "spots")
    state = steady.reshape(1, 2, 1, 1).expand(1, 2, 8, 8)
    got = problem.reference()(state, grid, (10.0,))[:, 0]
    torch.testing.assert_close(got, state, rtol=0, atol=1e-12)


def test_gaussians_fill_the_unit_interval_and_are_periodic():
    """Also over the edge: the bumps are smooth where the torus closes, so that the spectrum falls to round-off."""
    problem = GrayScott(**GrayScott.presets["maze"])
    grid = problem.grid(128)
    states = problem.sample(3, grid, generator=generator())
    assert states.flatten(2).amin(dim=2).tolist() == [[0.0, 0.0]] * 3
    assert states.flatten(2).amax(dim=2).tolist() == [[1.0, 1.0]] * 3
    # a bump exp(-300 r²) has at the highest wave, 64 pi / m, exp(-k² / 1200) = 2e-15 of its largest mode
    spectrum = modes_of(grid, states).forward(states).abs()
    assert float(spectrum[..., 60:65, :].max() / spectrum.max()) < 1e-12


def test_fourier_states_hold_the_published_noise():
    """Uniform in +-1/4 around (1, 0) at the 32 nodes an axis; between them the interpolant reaches a little further."""
    problem = GrayScott(initial="fourier", length=2.0)
    states = problem.sample(20, problem.grid(64), generator=generator())
    coarse = states[..., ::2, ::2]
    assert float((coarse[:, 0] - 1).abs().max()) == pytest.approx(0.25, abs=1e-3)
    assert float(coarse[:, 1].std()) == pytest.approx(0.25 / math.sqrt(3), rel=0.02)
    around = GrayScott(**GrayScott.presets["bubbles"], initial="fourier")
    a, b = around.steady_state
    coarse = around.sample(20, around.grid(32), generator=generator())
    assert float((coarse[:, 0] - a).abs().max()) == pytest.approx(0.25 * 0.9 * a, rel=1e-3)
    assert float((coarse[:, 1] - b).abs().max()) == pytest.approx(0.25 * 0.9 * min(b, 1 - b), rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "patterned"), [("spots", True), ("maze", True), ("gliders", True)])
def test_patterns_grow_from_the_published_states(name, patterned):
    """After 1000 s on 128² there is structure in B, neither everywhere nor nowhere."""
    problem = GrayScott(**GrayScott.presets[name])
    grid = problem.grid(128)
    state = problem.sample(1, grid, generator=generator(1))
    b = problem.reference()(state, grid, (1000.0,))[0, 0, 1]
    assert (float(b.std()) > 0.05) == patterned


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"feed": -0.01}, "feed must be positive"),
        ({"diffusivity_b": 0.0}, "diffusivity_b must be positive"),
        ({"initial": "square"}, "'gaussians' or 'fourier'"),
        ({"dim": 0}, "dim is 1, 2 or 3"),
    ],
)
def test_parameters_out_of_range_are_refused(values, message, unchecked):
    with pytest.raises(ValueError, match=message):
        GrayScott(**values)
