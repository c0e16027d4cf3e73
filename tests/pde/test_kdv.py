"""Korteweg-de Vries against solitons, alone and two at a time, and its conserved integrals."""

import math

import pytest
import torch
from resolvent.pde.kdv import KortewegDeVries

CANONICAL = KortewegDeVries(**KortewegDeVries.presets["canonical"])


def relative(got, expected):
    return float((got - expected).norm() / expected.norm())


@pytest.mark.parametrize(("a", "b", "speed"), [(6.0, 1.0, 4.0), (1.0, 0.05, 0.2), (-6.0, 1.0, 4.0), (6.0, -1.0, -4.0)])
def test_a_soliton_travels_without_change(a, b, speed):
    """Of either polarity and direction, through the end of the interval; its tails there are exp(-40)."""
    problem = KortewegDeVries(nonlinearity=a, dispersion=b, length=40.0, spacing=2.0)
    grid = problem.grid(256)
    times = (0.5, 1.0)
    u, *expected = (problem.soliton(grid, t, speed=speed, centre=38.5)[None, None] for t in (0.0, *times))
    got = problem.reference(tolerance=1e-6)(u, grid, times)
    assert relative(got, torch.stack(expected, dim=1)) < 1e-6


def two_solitons(x, t, k1, k2):
    """Hirota 1971, for a = 6, b = 1: u = 2 (log F)_xx, of speeds k1² and k2², here by the closed second derivative."""
    e1, e2 = torch.exp(k1 * x - k1**3 * t), torch.exp(k2 * x - k2**3 * t)
    ratio = ((k1 - k2) / (k1 + k2)) ** 2
    f = 1 + e1 + e2 + ratio * e1 * e2
    fx = k1 * e1 + k2 * e2 + (k1 + k2) * ratio * e1 * e2
    fxx = k1**2 * e1 + k2**2 * e2 + (k1 + k2) ** 2 * ratio * e1 * e2
    return 2 * (fxx / f - (fx / f).square())


def test_two_solitons_pass_through_each_other():
    """The fast one starts behind and ends in front; exp(-1.5 * 20) is what the interval cuts off."""
    problem = KortewegDeVries(**{**KortewegDeVries.presets["canonical"], "length": 60.0})
    grid = problem.grid(256)
    x = grid.coordinates()[0] - 30.0
    times = (-1.5, 0.0, 1.5)
    frames = torch.stack([two_solitons(x, t, 1.5, 2.2) for t in times])
    got = problem.reference(tolerance=1e-6)(frames[None, :1], grid, (1.5, 3.0))
    assert relative(got[0, :, 0], frames[1:]) < 1e-6
    behind, ahead = frames[0].argmax(), frames[2].argmax()
    assert behind < grid.size // 2 < ahead


def test_mass_momentum_and_energy_are_conserved_as_far_as_the_order_allows():
    """Halving the step divides the drift by at least 2^4; mass is exact."""
    problem = KortewegDeVries(frames=5, spacing=0.2)
    grid = problem.grid(128)
    u = torch.cos(math.pi * grid.coordinates()[0])[None, None] + 0.3
    start = problem.invariants(u[:, None], grid)
    drifts = []
    for step in (2e-3, 1e-3):
        frames = problem.reference(step=step, nodes="given")(u, grid)
        drifts.append(((problem.invariants(frames, grid) - start) / start).abs().amax(dim=(0, 1, 2)))
    assert float(drifts[0][0]) < 1e-13  # a sum of 128 doubles
    assert bool((drifts[0][1:] > 12 * drifts[1][1:]).all())
    assert float(drifts[1].max()) < 1e-5


def test_invariants_of_a_soliton():
    """Integrals of sech², sech⁴ and sech⁶: 2 sqrt c, c^(3/2) / 3 and -c^(5/2) / 5 for a = 6, b = 1."""
    grid = CANONICAL.grid(512)
    c = 3.0
    got = CANONICAL.invariants(CANONICAL.soliton(grid, 0.0, speed=c, centre=20.0), grid)
    expected = torch.tensor([2 * c**0.5, c**1.5 / 3, -0.2 * c**2.5], dtype=torch.float64)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=0)


def test_hyperviscosity_dissipates():
    """A small wave decays as exp(-zeta k⁴ t) and travels at -b k²: the linear equation."""
    problem = KortewegDeVries(dispersion=0.1, hyperviscosity=0.02, length=2 * math.pi)
    grid = problem.grid(32)
    x = grid.coordinates()[0]
    got = problem.reference()(1e-9 * torch.sin(2 * x)[None, None], grid, (1.5,))
    expected = 1e-9 * math.exp(-0.02 * 16 * 1.5) * torch.sin(2 * (x + 0.1 * 4 * 1.5))
    assert relative(got[0, 0, 0], expected) < 1e-7


def test_apebench_coefficients_have_their_difficulties():
    """gamma_j = alpha_j N^j 2^(j-1) and delta = beta N, with alpha_j the coefficients for L = 1 and a frame of 1."""
    problem = KortewegDeVries(**KortewegDeVries.presets["apebench"])
    assert problem.nonlinearity * 160 == pytest.approx(2.0)
    assert problem.dispersion * 160**3 * 4 == pytest.approx(14.0)
    assert problem.hyperviscosity * 160**4 * 8 == pytest.approx(9.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"nonlinearity": 0.0}, "nonlinearity must be finite and not 0"),
        ({"dispersion": math.inf}, "dispersion must be finite and not 0"),
        ({"hyperviscosity": -1.0}, "hyperviscosity must be at least 0"),
        ({"initial": "white"}, "initial is one of"),
        ({"alpha": 0.5}, "alpha must be above"),
        ({"length": 0.0}, "length must be positive"),
        ({"frames": 0}, "frames must be positive"),
    ],
)
def test_parameters_out_of_range_are_refused(values, message, unchecked):
    with pytest.raises(ValueError, match=message):
        KortewegDeVries(**values)


def test_a_soliton_against_the_dispersion_is_refused():
    with pytest.raises(ValueError, match="sign of the dispersion"):
        CANONICAL.soliton(CANONICAL.grid(32), 0.0, speed=-1.0, centre=0.0)
