"""Where errors sit: single modes land in their shell, and nothing of the energy is lost."""

from __future__ import annotations

import math

import pytest
import torch
from resolvent.evaluation.curves import cutoff, energy_by_wavenumber, error_by_wavenumber, relative_l2_by_frame
from resolvent.pde import Axis, Grid

TAU = 2 * math.pi
WALL = ("dirichlet", "dirichlet")
MIXED = Grid((Axis("x", 12, 0.0, 3.0), Axis("y", 9, 0.0, 1.0, WALL, "ends"), Axis("z", 8, -1.0, 1.0, WALL, "centres")))
GRIDS = {
    "line": Grid.box(15),
    "torus": Grid.box((16, 10), upper=(1.0, 2.5)),
    "walls": Grid.box((9, 8), boundary="neumann", placement="centres"),
    "mixed": MIXED,
}


@pytest.mark.parametrize("name", GRIDS)
def test_parseval_the_shells_add_up_to_the_mean_square(name: str) -> None:
    grid = GRIDS[name]
    generator = torch.Generator().manual_seed(3)
    for lead in ((4, 2), (4, 3, 2)):
        u, v = (torch.randn(*lead, *grid.shape, generator=generator, dtype=torch.float64) for _ in range(2))
        shells, error, truth = error_by_wavenumber(v, u, grid)
        assert error.shape == truth.shape == (4, len(shells))
        # some thousand terms of O(1) doubles
        torch.testing.assert_close(error.sum(1), (u - v).square().flatten(1).mean(1), rtol=1e-12, atol=0)
        torch.testing.assert_close(truth.sum(1), u.square().flatten(1).mean(1), rtol=1e-12, atol=0)


@pytest.mark.parametrize("k", [(3, 4), (3, -4), (-3, 4)])
def test_a_wave_lands_in_its_shell_whatever_its_direction(k: tuple[int, int]) -> None:
    """The known bug of a benchmark that reads a quarter of the spectrum: (3, -4) scored 0 in all bands."""
    grid = Grid.box(64, dim=2)
    x, y = grid.mesh()
    u = torch.zeros(1, 1, 64, 64, dtype=torch.float64)
    shells, error, _ = error_by_wavenumber(u + 0.1 * torch.sin(TAU * (k[0] * x + k[1] * y)), u, grid)
    expected = torch.zeros(len(shells), dtype=torch.float64)
    expected[5] = 0.005
    torch.testing.assert_close(error[0], expected, rtol=1e-12, atol=1e-16)


def test_shells_are_round_in_physical_space() -> None:
    """On a 2 x 1 torus, one cycle across the short side is as short a wave as two along the long side."""
    grid = Grid.box((32, 16), upper=(2.0, 1.0))
    x, y = grid.mesh()
    for wave in (torch.cos(TAU * y), torch.cos(TAU * x)):
        shells, energy = energy_by_wavenumber(wave[None, None], grid)
        assert int(shells[energy[0].argmax()]) == 2
        assert float(energy[0, 2]) == pytest.approx(0.5, rel=1e-12)


def test_between_walls_a_cosine_mode_is_half_a_wave() -> None:
    """cos(m pi x) at cell centres is one mode, of m/2 cycles: shell round(m/2)."""
    grid = Grid.box(32, boundary="neumann", placement="centres")
    x = grid.mesh()[0]
    for m, shell in ((0, 0), (2, 1), (6, 3), (7, 4)):
        shells, energy = energy_by_wavenumber(torch.cos(m * math.pi * x)[None, None], grid)
        expected = torch.zeros(len(shells), dtype=torch.float64)
        expected[shell] = 1.0 if m == 0 else 0.5
        torch.testing.assert_close(energy[0], expected, rtol=1e-12, atol=1e-15)


def test_ends_that_differ_put_no_tail() -> None:
    """A ramp: shell s holds the odd mode 2s - 1 of the evenly continued, continuous field, and it falls as its k^-4.

    A sine or Fourier series would see a jump, and its energies fall as k^-2.
    """
    grid = Grid.box(256, boundary="dirichlet")
    _, energy = energy_by_wavenumber(grid.mesh()[0][None, None], grid)
    # the discrete series differs from the continuous one by (pi m / 2 n)²/3, below 1e-2 here
    assert float(energy[0, 8] / energy[0, 4]) == pytest.approx((7 / 15) ** 4, rel=0.02)


def test_cutoff_is_the_largest_complete_shell() -> None:
    assert cutoff(Grid.box(64, dim=2)) == 32
    assert cutoff(Grid.box((64, 32))) == 16
    assert cutoff(Grid.box((64, 32), upper=(2.0, 1.0))) == 32


def test_a_diverged_prediction_has_infinite_error_in_every_shell() -> None:
    grid = Grid.box(8)
    u = torch.ones(2, 1, 8)
    v = u.clone()
    v[0, 0, 0] = math.nan
    _, error, truth = error_by_wavenumber(v, u, grid)
    assert bool((error[0] == math.inf).all())
    assert bool((error[1] == 0).all())
    assert bool(torch.isfinite(truth).all())
    assert bool((energy_by_wavenumber(v, grid)[1][0] == math.inf).all())


def test_by_frame() -> None:
    """Frame j is wrong by the factor 1 + j/10; after the first frame that is lost, all are."""
    grid = Grid.box(8)
    u = torch.randn(2, 4, 3, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    factors = 1 + torch.arange(4, dtype=torch.float64) / 10
    v = u * factors[:, None, None]
    v[1, 2, 0, 0] = math.inf
    got = relative_l2_by_frame(v, u, grid)
    torch.testing.assert_close(got[0], factors - 1, rtol=1e-12, atol=1e-15)
    assert got[1].tolist()[2:] == [math.inf, math.inf]
    assert bool((relative_l2_by_frame(u, u, grid) == 0).all())
