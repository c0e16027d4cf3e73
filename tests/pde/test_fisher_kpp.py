"""Fisher-KPP against the front of Ablowitz and Zeppetella, the logistic law, and its bounds."""

import math

import pytest
import torch
from resolvent.pde import SolverError
from resolvent.pde.fisher_kpp import FisherKPP


def relative(got, expected):
    return float((got - expected).norm() / expected.norm())


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_front_of_ablowitz_and_zeppetella():
    """(1 + exp(z / sqrt 6))^-2, z = x sqrt(rho/nu) - 5 rho t / sqrt 6; the walls cut off exp(-2 * 40 / sqrt 6)."""
    problem = FisherKPP(boundary="neumann", diffusivity=0.25, rate=1.5, length=40.0)
    grid = problem.grid(256)
    x = grid.coordinates()[0] - 20.0

    def front(t):
        z = x * math.sqrt(1.5 / 0.25) - 5 * 1.5 * t / math.sqrt(6)
        return ((1 + torch.exp(z / math.sqrt(6))) ** -2)[None, None]

    got = problem.reference(tolerance=1e-8)(front(0.0), grid, (1.0, 2.0))
    assert relative(got, torch.stack([front(1.0), front(2.0)], dim=1)) < 1e-6


@pytest.mark.parametrize("boundary", ["periodic", "neumann"])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_a_uniform_state_is_logistic(dim, boundary):
    problem = FisherKPP(dim=dim, boundary=boundary, rate=2.0)
    grid = problem.grid(8)
    got = problem.reference(tolerance=1e-9)(torch.full((1, 1, *grid.shape), 0.1, dtype=torch.float64), grid, (0.7, 3.0))
    for i, t in enumerate((0.7, 3.0)):
        expected = 1 / (1 + 9 * math.exp(-2.0 * t))
        torch.testing.assert_close(got[:, i], torch.full_like(got[:, i], expected), rtol=1e-8, atol=0)


def test_without_diffusion_every_node_is_logistic():
    """Smooth enough that 64 nodes carry the solution: u / (1 - u) is multiplied by exp(rho t)."""
    problem = FisherKPP(diffusivity=0.0, rate=1.0)
    grid = problem.grid(64)
    u = (0.5 + 0.2 * torch.sin(2 * math.pi * grid.coordinates()[0]))[None, None]
    grown = u / (1 - u) * math.exp(0.8)
    assert relative(problem.reference(tolerance=1e-9)(u, grid, (0.8,))[:, 0], grown / (1 + grown)) < 1e-8


@pytest.mark.parametrize("initial", ["random_field", "sinusoids", "truncated_fourier"])
def test_states_lie_between_nothing_and_full_and_stay_there(initial):
    """Bounds hold for the equation; the series between the nodes overshoots by what 64 nodes do not resolve."""
    problem = FisherKPP(initial=initial, diffusivity=0.01)
    grid = problem.grid(64)
    u = problem.sample(4, grid, generator=seeded())
    assert float(u.min()) >= 0.0
    torch.testing.assert_close(u.flatten(1).amax(dim=1), torch.ones(4, dtype=torch.float64))
    frames = problem.reference()(u, grid)
    assert float(frames.max()) < 1 + 1e-6
    assert float(frames.min()) > -1e-3
    assert bool((frames.mean(dim=-1).diff(dim=1) > 0).all())


def test_a_negative_population_is_reported_as_a_blow_up():
    """u = -1 runs into the pole of the logistic law at rho t = log 2."""
    problem = FisherKPP()
    grid = problem.grid(8)
    with pytest.raises(SolverError, match=r"blew up near time 0\.6"):
        problem.reference()(-torch.ones(1, 1, 8, dtype=torch.float64), grid, (1.0,))


def test_published_parameters():
    pdebench = FisherKPP(**FisherKPP.presets["pdebench_reacdiff_nu0.5_rho1.0"])
    assert (pdebench.diffusivity, pdebench.rate, pdebench.signature.times[-1]) == (0.5, 1.0, pytest.approx(1.0))
    ape = FisherKPP(**FisherKPP.presets["apebench_fisher"])
    assert ape.rate == pytest.approx(0.02)  # gamma_0 = alpha_0
    assert ape.diffusivity * 160**2 * 2 == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"diffusivity": -1.0}, "diffusivity must be at least 0"),
        ({"rate": -1.0}, "rate must be at least 0"),
        ({"boundary": "dirichlet"}, "boundary is 'periodic' or 'neumann'"),
        ({"dim": 0}, "dim is 1, 2 or 3"),
        ({"frames": 0}, "frames must be positive"),
    ],
)
def test_parameters_out_of_range_are_refused(values, message, unchecked):
    with pytest.raises(ValueError, match=message):
        FisherKPP(**values)
