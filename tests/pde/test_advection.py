"""u(x, t) = u(x - c t, 0), to round-off for trigonometric polynomials."""

import math

import pytest
import torch
from resolvent.pde import Grid
from resolvent.pde.advection import Advection

TIMES = (0.1, 0.35, 1.0, 7.0)
EXACT = {"rtol": 0.0, "atol": 1e-13}  # phases k c t up to 700 of eps 2e-16 each, for O(1) amplitudes


def profile(x):
    return (
        torch.sin(2 * math.pi * x) + 0.5 * torch.cos(2 * math.pi * 3 * x + 0.2) + 0.25 * torch.sin(2 * math.pi * 15 * x)
    )


@pytest.mark.parametrize("speed", [1.0, -0.37])
@pytest.mark.parametrize("size", [32, 31])
@pytest.mark.parametrize("length", [1.0, 2.5])
def test_a_profile_is_carried_along(speed, size, length):
    problem = Advection(speed=speed, length=length)
    grid = problem.grid(size)
    x = grid.coordinates()[0]
    expected = torch.stack([profile((x - speed * t) / length) for t in TIMES])[None, :, None]
    for solution in (
        problem.reference()(profile(x / length)[None, None], grid, TIMES),
        problem.exact(profile(x / length)[None, None], grid, TIMES),
    ):
        torch.testing.assert_close(solution, expected, **EXACT)


@pytest.mark.parametrize("angle", [0.0, 30.0, -135.0])
def test_a_field_is_carried_along_in_two_dimensions(angle):
    problem = Advection(dim=2, speed=0.8, angle=angle)
    grid = Grid.box((16, 20), upper=(1.0, 2.0))
    x, y = grid.mesh()
    cx, cy = 0.8 * math.cos(math.radians(angle)), 0.8 * math.sin(math.radians(angle))

    def field(t):
        a, b = 2 * math.pi * (x - cx * t), math.pi * (y - cy * t)
        return torch.sin(3 * a - 2 * b) + torch.cos(7 * a) * torch.sin(9 * b)

    expected = torch.stack([field(t) for t in TIMES])[None, :, None]
    torch.testing.assert_close(problem.reference()(field(0.0)[None, None], grid, TIMES), expected, **EXACT)


def test_after_one_period_any_field_is_back():
    """Nyquist mode included, which does not move."""
    problem = Advection(speed=2.0)
    grid = problem.grid(32)
    u = torch.randn(3, 1, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(problem.exact(u, grid, (0.5, 3.0)), torch.stack([u, u], dim=1), **EXACT)


def test_every_norm_is_kept():
    problem = Advection(dim=2)
    grid = problem.grid(17)
    u = problem.sample(3, grid, generator=torch.Generator().manual_seed(0))
    frames = problem.reference()(u, grid)
    size = frames.square().mean(dim=(-2, -1))
    torch.testing.assert_close(size, u.square().mean(dim=(-2, -1))[:, None].expand_as(size), rtol=1e-13, atol=0)


def test_presets_are_those_of_pdebench():
    """Eight speeds, 201 stored times with t = 0 up to t = 2, and sums of the sinusoids 1 to 8: carried, each shifts."""
    assert {Advection(**values).speed for values in Advection.presets.values()} == {0.1, 0.2, 0.4, 0.7, 1, 2, 4, 7}
    problem = Advection(**Advection.presets["pdebench_advection_beta0.4"])
    assert (problem.frames, problem.signature.times[-1]) == (200, pytest.approx(2.0))
    grid = problem.grid(40)
    u = problem.sample(50, grid, generator=torch.Generator().manual_seed(0))
    power = torch.fft.rfft(u[:, 0], norm="forward").abs() > 1e-12
    waves = power.sum(dim=1) <= 2  # the others are absolute values
    assert float(waves.double().mean()) > 0.7
    assert not power[waves][:, [0, *range(9, 21)]].any()
    # after 1 / (0.4 · 40) s it has gone on by one node
    answer = problem.reference()(u[waves], grid, (1 / 16,))[:, 0]
    torch.testing.assert_close(answer, u[waves].roll(1, dims=-1), **EXACT)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dim": 2, "initial": "sinusoids"}, "one dimension"),
        ({"initial": "gaussian"}, "initial is one of"),
        ({"speed": math.nan}, "speed and angle must be finite"),
        ({"angle": math.inf}, "speed and angle must be finite"),
        ({"dim": 0}, "dim is 1 or 2"),
        ({"alpha": 0.2}, "alpha must be above dim / 2"),
        ({"spacing": -1.0}, "spacing must be positive"),
    ],
)
def test_parameters_out_of_range_are_refused(values, message, unchecked):
    with pytest.raises(ValueError, match=message):
        Advection(**values)
