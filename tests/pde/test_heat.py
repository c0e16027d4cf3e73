"""Each Fourier mode decays as exp(-nu |k|² t), to round-off."""

import math

import pytest
import torch
from resolvent.pde import Grid
from resolvent.pde.heat import Heat

TIMES = (0.1, 0.35, 1.0, 7.0)


@pytest.mark.parametrize("length", [1.0, 3.0])
@pytest.mark.parametrize("size", [32, 33])
@pytest.mark.parametrize("mode", [0, 1, 5, 15])
def test_one_mode_in_one_dimension(size, mode, length):
    problem = Heat(diffusivity=0.003, length=length)
    grid = problem.grid(size)
    k = 2 * math.pi * mode / length
    u = torch.cos(k * grid.coordinates()[0] + 0.3)[None, None]
    expected = torch.stack([math.exp(-0.003 * k**2 * t) * u for t in TIMES], dim=1)
    for solution in (problem.reference()(u, grid, TIMES), problem.exact(u, grid, TIMES)):
        torch.testing.assert_close(solution, expected, rtol=0, atol=1e-14)  # an FFT there and back of O(1) doubles


@pytest.mark.parametrize(("shape", "sides"), [((16, 16), (1.0, 1.0)), ((12, 17), (2.0, 0.5))])
def test_a_sum_of_modes_in_two_dimensions(shape, sides):
    problem = Heat(dim=2, diffusivity=0.02)
    grid = Grid.box(shape, upper=sides)
    x, y = grid.mesh()
    a, b = 2 * math.pi / sides[0], 2 * math.pi / sides[1]
    first, second = torch.sin(2 * a * x - b * y), torch.cos(5 * b * y)
    rates = 0.02 * (4 * a**2 + b**2), 0.02 * 25 * b**2
    expected = torch.stack([math.exp(-rates[0] * t) * first + math.exp(-rates[1] * t) * second for t in TIMES])
    got = problem.reference()((first + second)[None, None], grid, TIMES)
    torch.testing.assert_close(got[0, :, 0], expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize(("boundary", "wave"), [("dirichlet", torch.sin), ("neumann", torch.cos)])
def test_a_mode_between_walls(boundary, wave, dim):
    """Products of sin(n pi x / L) or cos(n pi x / L) decay at nu times the sum of (n pi / L)²."""
    problem = Heat(dim=dim, boundary=boundary, diffusivity=0.02, length=2.0)
    grid = problem.grid(9)
    numbers = (3, 1, 2)[:dim]
    factors = [wave(n * math.pi / 2.0 * x) for n, x in zip(numbers, grid.mesh(), strict=True)]
    u = torch.stack(factors).prod(dim=0)[None, None]
    rate = 0.02 * sum((n * math.pi / 2.0) ** 2 for n in numbers)
    expected = torch.stack([math.exp(-rate * t) * u for t in TIMES], dim=1)
    torch.testing.assert_close(problem.exact(u, grid, TIMES), expected, rtol=0, atol=1e-14)


def test_heat_is_kept_by_insulated_walls_and_lost_through_cold_ones():
    generator = torch.Generator().manual_seed(0)
    insulated, cold = Heat(boundary="neumann"), Heat(boundary="dirichlet")
    grid = insulated.grid(16)
    u = insulated.sample(3, grid, generator=generator) + 1.0
    torch.testing.assert_close(insulated.reference()(u, grid).mean(dim=-1), torch.ones(3, 10, 1, dtype=u.dtype))
    grid = cold.grid(17)
    frames = cold.reference()(cold.sample(3, grid, generator=generator), grid)
    assert bool((frames.square().mean(dim=-1).diff(dim=1) < 0).all())


def test_apebench_diffusion_has_its_difficulty():
    assert Heat(**Heat.presets["apebench"]).diffusivity * 160**2 * 2 == pytest.approx(4.0)


def test_the_nyquist_mode_decays_too():
    grid = Grid.box(8)
    u = torch.tensor([1.0, -1.0] * 4, dtype=torch.float64)[None, None]
    got = Heat(diffusivity=1e-3).exact(u, grid, (1.0,))[:, 0]
    torch.testing.assert_close(got, math.exp(-1e-3 * (8 * math.pi) ** 2) * u, rtol=1e-14, atol=0)


def test_the_signature_and_the_sample_fit_the_solver():
    for dim in (1, 2):
        problem = Heat(dim=dim)
        grid = problem.grid(16)
        u = problem.sample(3, grid, generator=torch.Generator().manual_seed(0))
        assert problem.reference()(u, grid).shape == (3, problem.frames, 1, *grid.shape)
        for solver in problem.ladder(grid).values():
            assert solver(u, grid).shape == (3, problem.frames, 1, *grid.shape)


def test_steps_of_any_length_lead_to_the_same_place():
    """exp(-nu k² (s + t)) = exp(-nu k² s) exp(-nu k² t)."""
    problem = Heat(dim=2)
    grid = problem.grid(16)
    solver = problem.reference()
    u = problem.sample(2, grid, generator=torch.Generator().manual_seed(0))
    halfway = solver(u, grid, (0.3,))[:, 0]
    torch.testing.assert_close(solver(halfway, grid, (0.7,)), solver(u, grid, (1.0,)), rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"diffusivity": -1.0}, "diffusivity must be at least 0"),
        ({"dim": 4}, "dim is 1, 2 or 3"),
        ({"boundary": "robin"}, "boundary is"),
        ({"boundary": "neumann", "initial": "truncated_fourier"}, "draws periodic states"),
        ({"dim": 2, "alpha": 1.0}, "alpha must be above dim / 2"),
        ({"length": 0.0}, "length must be positive"),
        ({"frames": 0}, "frames must be positive"),
    ],
)
def test_parameters_out_of_range_are_refused(values, message, unchecked):
    with pytest.raises(ValueError, match=message):
        Heat(**values)
