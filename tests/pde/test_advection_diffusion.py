"""Each Fourier mode moves with the velocity and decays as exp(-nu |k|² t), to round-off."""

import math

import pytest
import torch
from resolvent.pde.advection import Advection
from resolvent.pde.advection_diffusion import AdvectionDiffusion
from resolvent.pde.heat import Heat

TIMES = (0.1, 0.35, 1.0, 7.0)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("size", [32, 33])
@pytest.mark.parametrize("mode", [0, 1, 5, 15])
def test_one_mode_in_one_dimension(size, mode):
    problem = AdvectionDiffusion(speed=-0.7, diffusivity=0.003, length=2.0)
    grid = problem.grid(size)
    k = math.pi * mode
    x = grid.coordinates()[0]
    expected = torch.stack([math.exp(-0.003 * k**2 * t) * torch.cos(k * (x + 0.7 * t) + 0.3) for t in TIMES])
    got = problem.exact(torch.cos(k * x + 0.3)[None, None], grid, TIMES)
    torch.testing.assert_close(got[0, :, 0], expected, rtol=0, atol=1e-13)  # k c t of up to 230 loses two digits


@pytest.mark.parametrize("dim", [2, 3])
def test_a_wave_moves_along_the_velocity(dim):
    problem = AdvectionDiffusion(dim=dim, speed=1.3, angle=40.0, elevation=25.0, diffusivity=0.01)
    grid = problem.grid(12)
    k = 2 * math.pi * torch.tensor([2.0, -3.0, 1.0][:dim], dtype=torch.float64)
    phase = torch.einsum("d,d...->...", k, grid.mesh())
    a, e = math.radians(40), math.radians(25 if dim == 3 else 0)
    c = 1.3 * torch.tensor(
        [math.cos(e) * math.cos(a), math.cos(e) * math.sin(a), math.sin(e)][:dim], dtype=torch.float64
    )
    got = problem.reference()(torch.sin(phase)[None, None], grid, (0.4,))[0, 0, 0]
    decay = math.exp(-0.01 * 0.4 * float(k.square().sum()))
    torch.testing.assert_close(got, decay * torch.sin(phase - 0.4 * float(k @ c)), rtol=0, atol=1e-13)
    assert math.hypot(*problem.velocity) == pytest.approx(1.3, rel=1e-15)


@pytest.mark.parametrize("dim", [1, 2])
def test_the_parts_are_advection_and_heat(dim):
    shared = {"dim": dim, "frames": 3, "spacing": 0.2}
    both = AdvectionDiffusion(**shared, speed=0.8, diffusivity=0.02)
    grid = both.grid(15)
    u = both.sample(2, grid, generator=seeded())
    only = AdvectionDiffusion(**shared, speed=0.8, diffusivity=0.0).reference()(u, grid)
    torch.testing.assert_close(only, Advection(**shared, speed=0.8).reference()(u, grid), rtol=0, atol=1e-14)
    only = AdvectionDiffusion(**shared, speed=0.0, diffusivity=0.02).reference()(u, grid)
    torch.testing.assert_close(only, Heat(**shared, diffusivity=0.02).reference()(u, grid), rtol=0, atol=1e-14)


def test_the_nyquist_mode_decays_where_it_is():
    problem = AdvectionDiffusion(speed=1.0, diffusivity=1e-3)
    u = torch.tensor([1.0, -1.0] * 4, dtype=torch.float64)[None, None]
    got = problem.exact(u, problem.grid(8), (0.5,))[:, 0]
    torch.testing.assert_close(got, math.exp(-5e-4 * (8 * math.pi) ** 2) * u, rtol=1e-14, atol=0)


def test_published_parameters():
    """APEBench: gamma_j = alpha_j N^j 2^(j-1) = 4 for both terms on 160 nodes."""
    ape = AdvectionDiffusion(**AdvectionDiffusion.presets["apebench"])
    assert ape.speed * 160 == pytest.approx(4.0)
    assert ape.diffusivity * 160**2 * 2 == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"diffusivity": -1.0}, "diffusivity must be at least 0"),
        ({"speed": math.nan}, "must be finite"),
        ({"dim": 4}, "dim is 1, 2 or 3"),
        ({"dim": 2, "alpha": 1.0}, "alpha must be above dim / 2"),
        ({"dim": 2, "initial": "sinusoids"}, "one dimension"),
        ({"length": 0.0}, "length must be positive"),
    ],
)
def test_parameters_out_of_range_are_refused(values, message, unchecked):
    with pytest.raises(ValueError, match=message):
        AdvectionDiffusion(**values)
