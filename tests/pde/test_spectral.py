"""Transforms, derivatives, dealiasing and resampling on trigonometric polynomials, where all of them are exact."""

import itertools
import math

import pytest
import torch
from resolvent.pde import Grid
from resolvent.pde._spectral import Modes, fourier_resample, modes_of

EXACT = {"rtol": 0.0, "atol": 2e-13}  # a few FFTs of O(1) doubles on at most some thousand nodes


def random_field(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def trigonometric(grid, highest, seed=0):
    """A random real trigonometric polynomial with mode numbers up to ``highest``, evaluated at the grid's nodes."""
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(grid.shape, dtype=torch.float64)
    for numbers in itertools.product(range(-highest, highest + 1), repeat=grid.dim):
        phase = torch.zeros(grid.shape, dtype=torch.float64)
        for n, x, length in zip(numbers, grid.mesh(), grid.lengths, strict=True):
            phase = phase + 2 * math.pi * n * x / length
        a, b = torch.randn(2, dtype=torch.float64, generator=generator)
        total = total + a * torch.cos(phase) + b * torch.sin(phase)
    return total


SHAPES = [(12,), (13,), (8, 12), (9, 7), (6, 8, 9)]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_transform_and_back_is_the_identity(shape):
    modes = Modes(Grid.box(shape))
    u = random_field(2, 3, *shape)
    torch.testing.assert_close(modes.inverse(modes.forward(u)), u, **EXACT)


@pytest.mark.parametrize("shape", SHAPES)
def test_truncated_modes_are_the_kept_modes(shape):
    """Truncated transforms equal full ones with everything beyond the 2/3 rule set to zero."""
    full, truncated = Modes(Grid.box(shape)), Modes(Grid.box(shape), truncated=True)
    u = random_field(2, 3, *shape)
    expected = full.inverse(full.forward(u) * full.kept)
    torch.testing.assert_close(truncated.inverse(truncated.forward(u) * truncated.kept), expected, **EXACT)


@pytest.mark.parametrize("truncated", [False, True])
@pytest.mark.parametrize("length", [1.0, 2 * math.pi, 0.3])
def test_derivatives_are_exact_on_domains_of_any_length(length, truncated):
    """u = sin(2 p) cos(3 q), p = 2 pi x / L, q = 2 pi y / (2 L)."""
    grid = Grid.box((16, 18), upper=(length, 2 * length))
    modes = Modes(grid, truncated=truncated)
    x, y = grid.mesh()
    a, b = 2 * math.pi / length, math.pi / length
    spectrum = modes.forward(torch.sin(2 * a * x) * torch.cos(3 * b * y))
    size = {"rtol": 0.0, "atol": 1e-13 * (2 * a) ** 2}
    expected = 2 * a * torch.cos(2 * a * x) * torch.cos(3 * b * y)
    torch.testing.assert_close(modes.inverse(modes.ik[0] * spectrum), expected, **size)
    expected = -3 * b * torch.sin(2 * a * x) * torch.sin(3 * b * y)
    torch.testing.assert_close(modes.inverse(modes.ik[1] * spectrum), expected, **size)
    expected = -((2 * a) ** 2 + (3 * b) ** 2) * torch.sin(2 * a * x) * torch.cos(3 * b * y)
    torch.testing.assert_close(modes.inverse(-modes.k2 * spectrum), expected, **size)
    back = modes.inverse(modes.inverse_laplacian * -modes.k2 * spectrum)
    torch.testing.assert_close(back, torch.sin(2 * a * x) * torch.cos(3 * b * y), **EXACT)


def test_the_nyquist_mode_has_no_first_derivative():
    """cos(pi x / h) is +-1 at the nodes; its derivative -sin is zero there."""
    modes = Modes(Grid.box(8))
    u = torch.tensor([1.0, -1.0] * 4, dtype=torch.float64)
    assert float(modes.inverse(modes.ik[0] * modes.forward(u)).abs().max()) == 0.0


@pytest.mark.parametrize("size", [15, 16, 17, 18])
def test_products_of_kept_modes_do_not_alias_onto_kept_modes(size):
    """The kept part of a product on this grid is the kept part of the true product, taken where nothing aliases."""
    grid = Grid.box(size, dim=2)
    modes, fine = Modes(grid), Modes(grid.at(4 * size))
    keep = lambda m, u: m.inverse(m.forward(u) * m.kept)  # noqa: E731
    u, v = keep(modes, random_field(*grid.shape)), keep(modes, random_field(*grid.shape, seed=1))
    true = fourier_resample(fourier_resample(u, fine.grid.shape) * fourier_resample(v, fine.grid.shape), grid.shape)
    torch.testing.assert_close(keep(modes, u * v), keep(modes, true), **EXACT)


def test_the_highest_kept_wavenumber():
    """Of 18 nodes, mode 5 is kept and 6 is not (3 * 6 = 18); of 19, mode 6 is."""
    modes = Modes(Grid.box((18, 19), upper=(1.0, 2.0)))
    assert modes.highest == pytest.approx((5 * 2 * math.pi, 6 * math.pi))
    assert float((modes.k[0].abs() * modes.kept).max()) == pytest.approx(modes.highest[0])


RESAMPLINGS = list(itertools.product([9, 10], [9, 10, 12, 13, 20, 21]))


@pytest.mark.parametrize(("old", "new"), RESAMPLINGS)
def test_resampling_evaluates_trigonometric_polynomials(old, new):
    coarse, fine = (Grid.box((n, n + 1), upper=(1.0, 3.0)) for n in (old, new))
    given, expected = trigonometric(coarse, 4), trigonometric(fine, 4)
    torch.testing.assert_close(fourier_resample(given, fine.shape), expected, **EXACT)
    torch.testing.assert_close(fourier_resample(expected, coarse.shape), given, **EXACT)


@pytest.mark.parametrize(("old", "new"), RESAMPLINGS)
def test_refining_and_coarsening_back_is_the_identity(old, new):
    """For any field, Nyquist mode included."""
    u = random_field(3, old, old + 1)
    back = fourier_resample(fourier_resample(u, (new + 2, new + 3)), u.shape[1:])
    torch.testing.assert_close(back, u, **EXACT)


@pytest.mark.parametrize("size", [12, 13, 15, 16])
def test_the_nyquist_mode_stays_a_cosine(size):
    """The interpolant of (+1, -1, ...) on 8 nodes is cos(8 pi x): with a sine part it would not be symmetric."""
    u = torch.tensor([1.0, -1.0] * 4, dtype=torch.float64)
    expected = torch.cos(8 * math.pi * torch.arange(size, dtype=torch.float64) / size)
    torch.testing.assert_close(fourier_resample(u, (size,)), expected, **EXACT)


def test_a_cosine_that_becomes_nyquist_keeps_its_values():
    """cos(8 pi x) on 8 nodes is +-1; sin(8 pi x) vanishes there."""
    x = torch.arange(16, dtype=torch.float64) / 16
    expected = torch.tensor([1.0, -1.0] * 4, dtype=torch.float64)
    torch.testing.assert_close(fourier_resample(torch.cos(8 * math.pi * x), (8,)), expected, **EXACT)
    torch.testing.assert_close(fourier_resample(torch.sin(8 * math.pi * x), (8,)), 0 * expected, **EXACT)


def test_axes_are_resampled_independently():
    u = random_field(10, 12)
    both = fourier_resample(u, (15, 8))
    by_turns = fourier_resample(fourier_resample(u, (10, 8)), (15, 8))
    torch.testing.assert_close(both, by_turns, **EXACT)
    torch.testing.assert_close(fourier_resample(u.T, (8, 15)).T, both, **EXACT)


def test_modes_are_computed_once_and_only_for_tori():
    grid = Grid.box(8)
    u = random_field(8)
    assert modes_of(grid, u) is modes_of(Grid.box(8), modes_of(grid, u).forward(u))
    assert modes_of(grid, u) is not modes_of(grid, u, truncated=True)
    assert modes_of(grid, u.float()).k2.dtype == torch.float32
    with pytest.raises(ValueError, match="periodic grid"):
        Modes(Grid.box(8, boundary="dirichlet"))
