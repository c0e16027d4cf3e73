"""Schrödinger: solitons, beats, plane waves, free packets in closed form; invariants; order."""

import cmath
import math

import pytest
import torch
from resolvent.pde import SolverError
from resolvent.pde._spectral import modes_of
from resolvent.pde.nonlinear_schroedinger import NonlinearSchroedinger


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def relative(got, expected):
    return float((got - expected).norm() / expected.norm())


def parts(psi):
    return torch.stack([psi.real, psi.imag])[None]


def resolved(problem, grid, seed=0):
    psi = problem.sample(1, grid, generator=generator(seed))
    modes = modes_of(grid, psi)
    return modes.inverse(modes.forward(psi) * modes.kept)


def test_a_bright_soliton():
    """A sech(A (x - v t)) exp(i v x + i (A² - v²) t / 2); v a multiple of 2 pi / L, and sech(20 A) = 4e-11 at the ends."""
    problem = NonlinearSchroedinger(length=40.0)
    grid = problem.grid(384)
    x, a, v = grid.coordinates()[0], 1.2, 2 * math.pi / 40 * 4

    def soliton(t):
        at = torch.remainder(x - v * t + 20, 40) - 20
        return a / torch.cosh(a * at) * torch.exp(1j * (v * x + (a**2 - v**2) * t / 2))

    times = (1.0, 4.0)
    got = problem.reference(tolerance=1e-9)(parts(soliton(0.0)), grid, times)
    for i, t in enumerate(times):
        assert relative(got[:, i], parts(soliton(t))) < 1e-7


def test_two_solitons_that_beat():
    """From 2 sech x (Satsuma & Yajima): 4 e^{it/2} (cosh 3x + 3 e^{4it} cosh x) / (cosh 4x + 4 cosh 2x + 3 cos 4t)."""
    problem = NonlinearSchroedinger(initial="sech", length=36.0)
    grid = problem.grid(864)
    start = problem.sample(1, grid, generator=generator())
    x = grid.coordinates()[0]

    def breather(t):
        above = torch.cosh(3 * x) + 3 * cmath.exp(4j * t) * torch.cosh(x)
        below = torch.cosh(4 * x) + 4 * torch.cosh(2 * x) + 3 * math.cos(4 * t)
        return 4 * cmath.exp(0.5j * t) * above / below

    assert relative(start, parts(breather(0.0))) < 1e-14
    times = (0.4, math.pi / 4)
    got = problem.reference(tolerance=1e-10)(start, grid, times)
    for i, t in enumerate(times):
        assert relative(got[:, i], parts(breather(t))) < 1e-6
    assert float(got[0, 1].square().sum(dim=0).max()) == pytest.approx(16.0, rel=1e-6)  # twice as high at half a beat


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("g", [1.0, -2.0])
def test_a_plane_wave(dim, g):
    """r exp(i k.x - i (k² / 2 - g r²) t): the nonlinear term only turns it."""
    problem = NonlinearSchroedinger(dim=dim, interaction=g, length=5.0)
    grid = problem.grid(12)
    k = 2 * math.pi / 5
    phase = sum(k * (-1) ** j * x for j, x in enumerate(grid.mesh()))
    turn = dim * k**2 / 2 - g * 0.7**2
    got = problem.reference(tolerance=1e-9)(parts(0.7 * torch.exp(1j * phase)), grid, (0.5, 1.5))
    for i, t in enumerate((0.5, 1.5)):
        assert relative(got[:, i], parts(0.7 * torch.exp(1j * (phase - turn * t)))) < 1e-7


def test_a_free_packet_spreads():
    """g = 0: exp(-x² / (2 (1 + i t))) / sqrt(1 + i t), to the tail exp(-15² / 2) at the ends."""
    problem = NonlinearSchroedinger(interaction=0.0, length=60.0)
    grid = problem.grid(192)
    x, t = grid.coordinates()[0], 2.0
    start = torch.exp(-(x**2) / 2) + 0j
    expected = torch.exp(-(x**2) / (2 * (1 + 1j * t))) / cmath.sqrt(1 + 1j * t)
    torch.testing.assert_close(problem.reference()(parts(start), grid, (t,))[:, 0], parts(expected), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("dim", "size", "g"), [(1, 48, 1.0), (2, 16, -1.0), (3, 9, -1.0)])
def test_mass_momentum_and_hamiltonian_are_conserved(dim, size, g):
    """Exact invariants of the dealiased equations: what is left is the tolerance. The cube aliases without its care."""
    problem = NonlinearSchroedinger(dim=dim, interaction=g, background=0.5, alpha=2 + dim / 2)
    grid = problem.grid(size)
    psi = resolved(problem, grid)
    last = problem.reference(tolerance=1e-9)(psi, grid, (1.0,))[:, 0]
    assert relative(last, psi) > 0.3
    torch.testing.assert_close(problem.mass(last, grid), problem.mass(psi, grid), rtol=1e-8, atol=0)
    torch.testing.assert_close(problem.hamiltonian(last, grid), problem.hamiltonian(psi, grid), rtol=1e-7, atol=0)
    scale = float(problem.mass(psi, grid))
    torch.testing.assert_close(problem.momentum(last, grid), problem.momentum(psi, grid), rtol=0, atol=1e-8 * scale)


def test_the_invariants_of_a_soliton():
    """A sech(A x) exp(i v x): mass 2 A, momentum 2 A v, Hamiltonian A v² - A³ / 3."""
    problem = NonlinearSchroedinger(length=60.0)
    grid = problem.grid(512)
    x, a, v = grid.coordinates()[0], 1.5, 2 * math.pi / 60 * 5
    psi = parts(a / torch.cosh(a * x) * torch.exp(1j * v * x))
    assert float(problem.mass(psi, grid)) == pytest.approx(2 * a, rel=1e-12)
    assert float(problem.momentum(psi, grid)) == pytest.approx(2 * a * v, rel=1e-12)
    assert float(problem.hamiltonian(psi, grid)) == pytest.approx(a * v**2 - a**3 / 3, rel=1e-11)


@pytest.mark.parametrize("method", ["etdrk4", "ifrk4"])
def test_observed_order_is_four(method):
    problem = NonlinearSchroedinger(background=1.0)
    grid = problem.grid(32)
    psi = resolved(problem, grid)
    truth = problem.reference(tolerance=1e-12)(psi, grid, (0.5,))
    coarse, fine = (
        relative(problem.reference(step=0.5 / n, method=method)(psi, grid, (0.5,)), truth) for n in (100, 200)
    )
    assert math.log2(coarse / fine) == pytest.approx(4.0, abs=0.3)


def test_a_state_that_cannot_be_followed_is_said():
    problem = NonlinearSchroedinger()
    grid = problem.grid(16)
    with pytest.raises(SolverError, match="blew up"):
        problem.reference(step=0.5)(torch.full((1, 2, 16), 1e3, dtype=torch.float64), grid, (10.0,))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dim": 4}, "dim is 1, 2 or 3"),
        ({"dim": 2, "initial": "sech"}, "in one dimension, 'sech'"),
        ({"interaction": math.nan}, "interaction and background are finite"),
        ({"length": 0.0}, "length must be positive"),
        ({"alpha": 0.5}, "alpha must be above"),
    ],
)
def test_parameters_out_of_range_are_refused(values, message, unchecked):
    with pytest.raises(ValueError, match=message):
        NonlinearSchroedinger(**values)


def test_an_axis_too_short_for_the_dealiasing_is_refused():
    problem = NonlinearSchroedinger()
    with pytest.raises(ValueError, match="at least 4 nodes"):
        problem.reference()(torch.zeros(1, 2, 3, dtype=torch.float64), problem.grid(3))
