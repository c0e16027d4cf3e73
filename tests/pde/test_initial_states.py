"""Laws of initial states: moments and spectra of what the papers describe."""

import math

import pytest
import torch
from resolvent.pde import Grid
from resolvent.pde._initial_states import initial_states, sinusoids, truncated_fourier
from resolvent.pde.burgers import Burgers


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_sinusoids_are_two_waves_of_numbers_one_to_eight():
    """At most two modes each, all of 1..8 as often, amplitudes of mean square 1/3; 4000 samples, five deviations."""
    grid = Grid.box(64, lower=-1.0, upper=1.0)
    u = sinusoids(4000, grid, generator=seeded())
    power = torch.fft.rfft(u, norm="forward").abs() > 1e-12
    waves = power.sum(dim=1) <= 2  # the others are absolute values
    assert bool((power[waves].nonzero()[:, 1] <= 8).all())
    assert bool((power[waves].nonzero()[:, 1] >= 1).all())
    assert float((~waves).double().mean()) == pytest.approx(0.1, abs=5 * math.sqrt(0.09 / 4000))
    counts = power[waves].sum(dim=0)[1:9].double()
    assert float(counts.std() / counts.mean()) < 5 / math.sqrt(float(counts.mean()))
    # two independent waves of mean square A² / 2 = 1/6 each
    assert float(u.square().mean()) == pytest.approx(1 / 3, rel=0.05)


def test_a_tenth_of_the_sinusoids_has_one_sign_either_way():
    u = sinusoids(4000, Grid.box(64), generator=seeded(1))
    positive, negative = (u >= 0).all(dim=1), (u <= 0).all(dim=1)
    for share in (positive, negative):
        assert float(share.double().mean()) == pytest.approx(0.05, abs=5 * math.sqrt(0.05 / 4000))


def test_the_law_does_not_depend_on_the_resolution():
    """Every other node of a fine sample is the coarse sample."""
    coarse, fine = (sinusoids(5, Grid.box(n), generator=seeded()) for n in (32, 64))
    torch.testing.assert_close(fine[:, ::2], coarse, rtol=0, atol=1e-13)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_truncated_fourier_series_have_five_waves_an_axis_and_a_maximum_of_one(dim):
    grid = Grid.box(16, dim=dim)
    u = truncated_fourier(50, grid, generator=seeded())
    axes = tuple(range(1, dim + 1))
    torch.testing.assert_close(u.abs().amax(dim=axes), torch.ones(50, dtype=torch.float64))
    assert float(u.mean(dim=axes).abs().max()) < 1e-14
    spectrum = torch.fft.fftn(u, dim=axes, norm="forward").abs().square()
    n = torch.fft.fftfreq(16, d=1 / 16).abs()
    inside = torch.stack(torch.meshgrid(*[n] * dim, indexing="ij")).amax(dim=0) <= 5
    assert float(spectrum[:, ~inside].max()) < 1e-28
    # white: every mode but the mean carries the same (normalised) power on average
    power = (spectrum / spectrum.sum(dim=axes, keepdim=True)).mean(dim=0)[inside]
    assert float(power[1:].std() / power[1:].mean()) < 0.5


@pytest.mark.parametrize(
    ("law", "grid", "message"),
    [
        ("sinusoids", Grid.box(16), "more than 16 nodes"),
        ("sinusoids", Grid.box(32, dim=2), "one axis"),
        ("truncated_fourier", Grid.box(10), "at least 11 nodes"),
        ("truncated_fourier", Grid.box(32, boundary="dirichlet"), "periodic states"),
    ],
)
def test_grids_too_coarse_for_the_law_are_refused(law, grid, message):
    with pytest.raises(ValueError, match=message):
        initial_states(law, 1, grid, alpha=2.0, tau=1.0, generator=seeded())


def test_odd_fields_are_odd_and_vary_as_much_as_the_field_they_come_from() -> None:
    grid = Burgers(**Burgers.presets["dgno"]).grid(65)
    law = {"alpha": 2.0, "tau": 5.0, "sigma": 2.6}
    odd = initial_states("odd_field", 4000, grid, **law, generator=seeded())[:, 0]
    assert torch.equal(odd, -odd.flip(1))
    assert float(odd[:, (0, 32, 64)].abs().max()) < 1e-12  # walls and middle
    # waves of mean square 1 and even number, with twice their variance: 2 sigma² (pi² k² / 4 + tau²)^-alpha
    number = torch.arange(2, 64, 2, dtype=torch.float64)
    expected = 2 * 2.6**2 * ((math.pi * number / 2) ** 2 + 25.0).pow(-2.0).sum()
    # a few waves carry it: 4000 samples know their mean square within 3 %
    assert float(odd[:, :-1].square().mean()) == pytest.approx(float(expected), rel=0.03)
    with pytest.raises(ValueError, match="Dirichlet walls"):
        Burgers(initial="odd_field")
