"""Allen-Cahn against closed forms (uniform states, elliptic sines, a travelling front), its energy and its walls."""

import math

import pytest
import torch
from resolvent.pde import Grid
from resolvent.pde.allen_cahn import AllenCahn
from scipy.special import ellipj, ellipk


def relative(got, expected):
    return float((got - expected).norm() / expected.norm())


@pytest.mark.parametrize("boundary", ["periodic", "neumann"])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_a_uniform_state_obeys_the_ordinary_equation(dim, boundary):
    """u² = a / (b + (a / u0² - b) exp(-2 a t)), a logistic law for u²."""
    problem = AllenCahn(dim=dim, boundary=boundary, growth=1.5, saturation=0.5)
    grid = problem.grid(8)
    times = (0.5, 3.0)
    got = problem.reference(tolerance=1e-9)(torch.full((1, 1, *grid.shape), 0.1, dtype=torch.float64), grid, times)
    for i, t in enumerate(times):
        expected = math.sqrt(1.5 / (0.5 + (1.5 / 0.01 - 0.5) * math.exp(-3.0 * t)))
        torch.testing.assert_close(got[:, i], torch.full_like(got[:, i], expected), rtol=1e-8, atol=0)


@pytest.mark.parametrize("boundary", ["periodic", "dirichlet", "neumann"])
def test_an_elliptic_sine_stands_still(boundary):
    """sqrt(2 m / (1 + m)) sn(x / sqrt((1 + m) eps), m) solves eps u'' + u - u³ = 0; quarter periods meet the walls.

    It is unstable: what differs in the last digits grows as exp(t), to 1e-12 here.
    """
    m, size = 0.9, 65 if boundary == "dirichlet" else 64
    epsilon = (1 / (4 * ellipk(m))) ** 2 / (1 + m)  # one period on the unit interval
    problem = AllenCahn(boundary=boundary, diffusivity=epsilon)
    grid = problem.grid(size)
    x = grid.coordinates()[0] + (0.25 if boundary == "neumann" else 0.0)
    u = torch.from_numpy(math.sqrt(2 * m / (1 + m)) * ellipj(4 * ellipk(m) * x.numpy(), m)[0])[None, None]
    if boundary == "dirichlet":
        u[..., [0, -1]] = 0.0
    got = problem.reference(tolerance=1e-10)(u, grid, (1.0, 3.0))
    assert relative(got, u[:, None].expand_as(got)) < 1e-8


def test_a_front_travels_between_insulated_walls_at_its_speed():
    """1 / (1 + exp((x - s t) / w)) with w = sqrt(2 eps / a), s = 3 sqrt(a eps / 2): the phase 1 invades the state 0.

    The walls cut off tails of exp(-20 / 0.5) or less, which grow as exp(a t) = e^4 ahead of the front.
    """
    problem = AllenCahn(boundary="neumann", diffusivity=0.25, growth=2.0, saturation=2.0, lower=-25.0, length=50.0)
    grid = problem.grid(256)
    x = grid.coordinates()[0]
    front = lambda t: (1 / (1 + torch.exp((x - 1.5 * t) / 0.5)))[None, None]  # noqa: E731
    got = problem.reference(tolerance=1e-8)(front(0.0), grid, (1.0, 2.0))
    assert relative(got, torch.stack([front(1.0), front(2.0)], dim=1)) < 1e-6


def test_an_odd_state_lives_between_dirichlet_walls():
    """The periodic solution from an odd state, cut in half, is the solution between walls."""
    walls = AllenCahn(boundary="dirichlet", diffusivity=0.01)
    torus = AllenCahn(diffusivity=0.01, length=2.0)
    x = torus.grid(64).coordinates()[0]
    u = (torch.sin(math.pi * x) - 0.5 * torch.sin(3 * math.pi * x))[None, None]
    expected = torus.reference(tolerance=1e-9)(u, torus.grid(64), (1.0, 4.0))[..., :33]
    got = walls.reference(tolerance=1e-9)(u[..., :33].clone(), walls.grid(33), (1.0, 4.0))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("boundary", ["periodic", "dirichlet", "neumann"])
@pytest.mark.parametrize("dim", [1, 2])
def test_the_energy_only_falls(dim, boundary):
    """dE/dt = -int u_t²."""
    problem = AllenCahn(dim=dim, boundary=boundary, diffusivity=0.01, frames=8, spacing=0.25, sigma=100.0)
    grid = problem.grid(33 if boundary == "dirichlet" else 32)
    u = problem.sample(3, grid, generator=torch.Generator().manual_seed(0))
    frames = torch.cat([u[:, None], problem.reference(nodes="given")(u, grid)], dim=1)
    energy = problem.energy(frames, grid)[..., 0]
    assert energy.shape == (3, 9)
    assert bool((energy.diff(dim=1) < 0).all())


def test_the_energy_of_a_wave():
    """eps k²/4 - a/4 + 3 b/32 per length, of sin(k x)."""
    problem = AllenCahn(boundary="dirichlet", diffusivity=0.3, growth=0.7, saturation=1.1, length=2.0)
    grid = problem.grid(33)
    k = 1.5 * math.pi
    u = torch.sin(k * grid.coordinates()[0])
    u[-1] = 0.0
    assert float(problem.energy(u, grid)) == pytest.approx(2 * (0.3 * k**2 / 4 - 0.7 / 4 + 1.1 * 3 / 32), rel=1e-12)


def test_samples_have_about_the_stated_spread():
    problem = AllenCahn()
    u = problem.sample(2000, problem.grid(64), generator=torch.Generator().manual_seed(0))
    k = 2 * math.pi * torch.arange(1, 33, dtype=torch.float64)
    expected = math.sqrt(2 * 300.0**2 * float(((k**2 + 25) ** -3.0).sum()))
    assert float(u.std()) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"diffusivity": -1.0}, "diffusivity must be at least 0"),
        ({"saturation": -1.0}, "saturation must be at least 0"),
        ({"growth": math.nan}, "growth and lower must be finite"),
        ({"dim": 4}, "dim is 1, 2 or 3"),
        ({"boundary": "dirichlet", "initial": "sinusoids"}, "draws periodic states"),
        ({"sigma": 0.0}, "sigma must be positive"),
        ({"dim": 2, "alpha": 1.0}, "alpha must be above"),
    ],
)
def test_parameters_out_of_range_are_refused(values, message, unchecked):
    with pytest.raises(ValueError, match=message):
        AllenCahn(**values)


def test_a_grid_of_another_dimension_is_refused():
    with pytest.raises(ValueError, match=r"1 dimension\(s\)"):
        AllenCahn().grid((16, 16))
    with pytest.raises(ValueError, match="shape"):
        AllenCahn(boundary="neumann").reference()(
            torch.zeros(1, 1, 8, dtype=torch.float64), Grid.box(16, boundary="neumann", placement="centres")
        )
