"""Products of kept modes are those of a grid four times finer, where nothing aliases."""

import pytest
import torch
from resolvent.pde import Grid, fourier_resample
from resolvent.pde._products import minus_half_derivative, pointwise
from resolvent.pde._spectral import modes_of

POWERS = {1: lambda u: 2 * u, 2: lambda u: u**2 - u, 3: lambda u: u**3 - 2 * u**2, 5: lambda u: u**5}


@pytest.mark.parametrize("truncated", [True, False])
@pytest.mark.parametrize("degree", POWERS)
@pytest.mark.parametrize("shape", [(6,), (15,), (16,), (17,), (18,), (12, 16), (13, 9), (8, 9, 10)])
def test_a_product_has_the_kept_modes_of_the_true_one(shape, degree, truncated):
    grid = Grid.box(shape)
    noise = torch.randn(2, 1, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    modes = modes_of(grid, noise, truncated=truncated)
    spectrum = modes.forward(noise) * modes.kept
    fine = fourier_resample(modes.inverse(spectrum), [4 * n for n in shape])
    expected = modes.forward(fourier_resample(POWERS[degree](fine), shape)) * modes.kept
    got = pointwise(POWERS[degree], spectrum, modes, degree=degree)
    assert got.shape == spectrum.shape
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12 * float(expected.abs().max()))


def test_the_derivative_of_half_the_square():
    """-(u² / 2)_x of u = sin x is -sin x cos x = -sin(2 x) / 2."""
    grid = Grid.box(16, upper=2 * torch.pi)
    x = grid.coordinates()[0]
    modes = modes_of(grid, x, truncated=True)
    got = modes.inverse(modes.forward(torch.sin(x).square()) * minus_half_derivative(modes))
    torch.testing.assert_close(got, -0.5 * torch.sin(2 * x), rtol=0, atol=1e-14)
