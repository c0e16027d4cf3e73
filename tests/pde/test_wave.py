"""Waves: d'Alembert on the torus, standing waves between walls, reflections, energy; all to round-off."""

import math

import pytest
import torch
from resolvent.pde.wave import Wave

TIMES = (0.1, 0.37, 1.0, 6.3)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def bump(x):
    """Periodic with period 1, band-limited to round-off on 64 nodes."""
    return torch.exp(3 * torch.cos(2 * math.pi * x))


@pytest.mark.parametrize("size", [64, 65])
def test_dalembert(size):
    """From rest (f(x - c t) + f(x + c t)) / 2; with v = -c f' the bump travels."""
    problem = Wave(speed=0.7)
    grid = problem.grid(size)
    x = grid.coordinates()[0]
    rest = torch.stack([bump(x), torch.zeros_like(x)])
    travelling = torch.stack([bump(x), 0.7 * 3 * 2 * math.pi * torch.sin(2 * math.pi * x) * bump(x)])
    got = problem.reference()(torch.stack([rest, travelling]), grid, TIMES)[:, :, 0]
    expected = [[(bump(x - 0.7 * t) + bump(x + 0.7 * t)) / 2 for t in TIMES], [bump(x - 0.7 * t) for t in TIMES]]
    # values to 20; of 1 / k in v -> u nothing is lost, the angle c k t of up to 900 turns keeps 13 digits
    torch.testing.assert_close(got, torch.stack([torch.stack(e) for e in expected]), rtol=0, atol=1e-11)


@pytest.mark.parametrize(("dim", "size"), [(1, 16), (2, 17), (3, 8)])
def test_the_mean_moves_on_and_modes_turn(dim, size):
    """u = 2 + 3 t + cos(k.x) cos(c k t) - sin(k.x) sin(c k t) / (c k), k = (1, 2, 3) 2 pi; the mean has no eigenvector."""
    problem = Wave(dim=dim, speed=1.3)
    grid = problem.grid(size)
    phase = sum(2 * math.pi * (j + 1) * x for j, x in enumerate(grid.mesh()))
    k = 2 * math.pi * math.sqrt(sum((j + 1) ** 2 for j in range(dim)))
    state = torch.stack([2 + torch.cos(phase), 3 - torch.sin(phase)])[None]
    got = problem.reference()(state, grid, TIMES)[0]
    for frame, t in zip(got, TIMES, strict=True):
        cos, sin = math.cos(1.3 * k * t), math.sin(1.3 * k * t)
        u = 2 + 3 * t + torch.cos(phase) * cos - torch.sin(phase) * sin / (1.3 * k)
        v = 3 - 1.3 * k * torch.cos(phase) * sin - torch.sin(phase) * cos
        torch.testing.assert_close(frame, torch.stack([u, v]), rtol=0, atol=1e-11)


@pytest.mark.parametrize("boundary", ["dirichlet", "neumann"])
def test_standing_waves_between_walls(boundary):
    """sin(3 pi x) sin(pi y), or cosines, times cos(c k t), k = pi sqrt(10)."""
    problem = Wave(dim=2, boundary=boundary, speed=0.5)
    grid = problem.grid(17)
    x, y = grid.mesh()
    shape = torch.sin if boundary == "dirichlet" else torch.cos
    u = shape(3 * math.pi * x) * shape(math.pi * y)
    rate = 0.5 * math.pi * math.sqrt(10)
    got = problem.reference()(torch.stack([u, 0 * u])[None], grid, TIMES)[0]
    expected = torch.stack([torch.stack([math.cos(rate * t) * u, -rate * math.sin(rate * t) * u]) for t in TIMES])
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("boundary", "sign"), [("dirichlet", -1.0), ("neumann", 1.0)])
def test_a_pulse_comes_back_from_the_wall(boundary, sign):
    """A pulse from rest at 0.3 splits; after two lengths of the box both halves met a wall each and are back, unturned.

    After one length each half has met one wall: the pulse stands mirrored at 0.7, upside down at fixed ends.
    """
    problem = Wave(boundary=boundary, speed=2.0)
    grid = problem.grid(129 if boundary == "dirichlet" else 128)
    x = grid.coordinates()[0]
    pulse = lambda centre: torch.exp(-(((x - centre) / 0.04) ** 2))  # noqa: E731
    state = torch.stack([pulse(0.3), torch.zeros_like(x)])[None]
    got = problem.reference()(state, grid, (0.5, 1.0))[0, :, 0]
    torch.testing.assert_close(got, torch.stack([sign * pulse(0.7), pulse(0.3)]), rtol=0, atol=1e-10)


@pytest.mark.parametrize("boundary", ["periodic", "dirichlet", "neumann"])
@pytest.mark.parametrize("dim", [1, 2])
def test_the_energy_is_conserved_and_shared(dim, boundary):
    problem = Wave(dim=dim, boundary=boundary, frames=5)
    grid = problem.grid(24)
    state = problem.sample(64, grid, generator=generator())
    frames = problem.reference()(state, grid)
    start = problem.energy(state, grid)
    for frame in frames.unbind(dim=1):
        torch.testing.assert_close(problem.energy(frame, grid), start, rtol=1e-11, atol=0)
    kinetic = problem.energy(torch.stack([0 * state[:, 0], state[:, 1]], dim=1), grid)
    assert 0.4 < float((kinetic / start).mean()) < 0.75  # (k² + tau²) / k² of the elastic energy, mode by mode


def test_the_energy_of_one_wave():
    """u = 0.1 sin(2 pi x) on [0, 2 pi): c²/2 · 0.01 (2 pi / L)² / 2 · L with L = 3."""
    problem = Wave(length=3.0, speed=2.0)
    grid = problem.grid(16)
    u = 0.1 * torch.sin(2 * math.pi / 3 * grid.coordinates()[0])
    expected = 0.5 * 4 * 0.01 * (2 * math.pi / 3) ** 2 * 0.5 * 3
    assert float(problem.energy(torch.stack([u, 0 * u])[None], grid)) == pytest.approx(expected, rel=1e-13)


def test_at_rest_the_velocity_is_zero():
    problem = Wave(at_rest=True)
    state = problem.sample(2, problem.grid(16), generator=generator())
    assert float(state[:, 1].abs().max()) == 0.0
    assert float(state[:, 0].std()) > 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dim": 4}, "dim is 1, 2 or 3"),
        ({"speed": -1.0}, "speed must be positive"),
        ({"alpha": 1.5}, "alpha must be above 1"),
        ({"frames": 0}, "frames must be positive"),
    ],
)
def test_parameters_out_of_range_are_refused(values, message, unchecked):
    with pytest.raises(ValueError, match=message):
        Wave(**values)
