"""Published initialisations: statistics by closed forms, counts, what stays untouched (dossier S1, S2, F1-F5, W1, W2, W6)."""

from __future__ import annotations

import math

import pytest
import torch
from resolvent.fields import finer, kaf, pref, siren, winner
from resolvent.fields._activations import bell, gelu, hyperbolic, relu, sine
from resolvent.fields._fit import KAPPAS
from resolvent.fields._jet import Jet
from resolvent.fields._jet import seed as seed_jet
from resolvent.fields._network import backward_gain, second_moment, stable_deviation
from resolvent.fields._spectrum import bandwidths, centroid
from resolvent.fields.fkan import Fkan, FourierLayer
from resolvent.fields.gauss import Gauss
from resolvent.fields.siren import Siren
from resolvent.fields.winner import OMEGA, published_scales, waves_of
from resolvent.pde import Grid
from torch import Tensor


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pre_activations(network: Siren, points: Tensor) -> list[Tensor]:
    """omega z of every sine layer."""
    h, found = points, []
    for level, linear in enumerate(network.linears[:-1]):
        z = network.omegas[min(level, 1)] * (h @ linear.weight.t() + linear.bias)
        found.append(z.detach())
        h = torch.sin(z)
    return found


@pytest.mark.parametrize(("width", "tolerance"), [(64, 0.10), (256, 0.05)])
def test_siren_pre_activations_follow_the_recursion(width: int, tolerance: float) -> None:
    """s² of layer l + 1 is 1 - exp(-2 s²) + omega² / (3 n) with default biases (mean of 5 seeds)."""
    points = 2 * torch.rand(512, 2, generator=generator(9)) - 1
    runs = [pre_activations(Siren(2, 1, width=width, layers=6, generator=generator(s)), points) for s in range(5)]
    measured = [sum(float(run[level].var()) for run in runs) / 5 for level in range(6)]
    # omega² (dim · 1/12 + 1/(3 dim)) in the first layer: weights U(±1/dim) on U(-1, 1), biases U(±1/sqrt dim)
    assert math.sqrt(measured[0]) == pytest.approx(30 * math.sqrt(2 / 3 / 12 + 1 / 6), rel=0.1)
    variance = measured[0]
    for found in measured[1:]:
        variance = 1 - math.exp(-2 * variance) + 900 / (3 * width)
        assert math.sqrt(found) == pytest.approx(math.sqrt(variance), rel=tolerance)


def test_siren_statistics_hold_in_depth_and_without_biases() -> None:
    """The fixed point without biases is s = 0.893; a network of 20 layers neither collapses nor saturates."""
    network = Siren(2, 1, width=256, layers=20, generator=generator())
    with torch.no_grad():
        for linear in network.linears:
            linear.bias.zero_()
    points = 2 * torch.rand(256, 2, generator=generator(9)) - 1
    for z in pre_activations(network, points)[5:]:
        assert float(z.square().mean().sqrt()) == pytest.approx(0.893, rel=0.12)  # one draw at finite width


def test_siren_has_the_published_size() -> None:
    assert sum(p.numel() for p in Siren(2, 1).parameters()) == 198_401
    with pytest.raises(ValueError, match="layers must be at least 1"):
        Siren(2, 1, layers=0)


def test_fkan_has_the_published_size_less_what_the_release_does_not_use() -> None:
    network = Fkan(2, 3)
    assert sum(p.numel() for p in network.parameters()) == 436_367 - 12
    assert sum(p.numel() for p in network.series.parameters()) == 138_368


def test_fourier_layer_has_unit_variance_at_every_position() -> None:
    """cos² + sin² = 1: 4000 draws give the variance to sqrt(2/4000) = 2.2 %; five of these are allowed."""
    layer = FourierLayer(2, 4000, 12, generator=generator())
    points = torch.tensor([[0.0, 0.0], [0.3, -0.9], [1.0, 1.0]])
    variance = layer(seed_jet(points)).value.var(dim=1)
    torch.testing.assert_close(variance, torch.ones(3), rtol=0, atol=5 * math.sqrt(2 / 4000))


def test_fourier_layer_equals_the_sum_over_edges() -> None:
    layer = FourierLayer(3, 5, 6, periodic=(True, False, True), generator=generator(), dtype=torch.float64)
    points = 2 * torch.rand(8, 3, dtype=torch.float64, generator=generator(1)) - 1
    torch.testing.assert_close(layer(seed_jet(points)).value, layer.by_edges(points), rtol=1e-12, atol=1e-12)


def test_fkan_hidden_statistics_are_those_measured_of_the_release() -> None:
    """Layer normalisation to 1, then pre-activations of deviation 0.070 and 0.041-0.042."""
    network = Fkan(2, 3, generator=generator())
    jet = network.norm(network.series(seed_jet(2 * torch.rand(512, 2, generator=generator(4)) - 1)))
    assert float(jet.value.std()) == pytest.approx(1.0, abs=0.01)
    found = []
    for linear in network.linears[:-1]:
        jet = jet.linear(linear.weight, linear.bias)
        found.append(float(jet.value.std()))
        jet = network._activated(jet)
    assert found[0] == pytest.approx(0.070, rel=0.1)
    assert found[1:] == pytest.approx([0.0415] * 3, rel=0.1)


def test_one_tone_needs_as_many_harmonics() -> None:
    """A linear readout of the features: cos 6x on [-1, 1] is in their span from K = 6 on, up to rounding."""
    x = torch.linspace(-1, 1, 200, dtype=torch.float64)[:, None]
    errors = []
    for harmonics in (2, 6):
        layer = FourierLayer(1, 1, harmonics, generator=generator(), dtype=torch.float64)
        angles = x @ layer.waves.t()
        features = torch.cat([angles.cos(), angles.sin(), torch.ones_like(x)], dim=1)
        solution = torch.linalg.lstsq(features, torch.cos(6 * x)).solution
        errors.append(float((features @ solution - torch.cos(6 * x)).abs().max()))
    assert errors[0] > 0.1
    assert errors[1] < 1e-8


def test_winner_adds_noise_to_two_matrices_and_nothing_else() -> None:
    domain = Grid.box(256, dim=1, boundary="dirichlet")
    values = torch.randn(1, 256, generator=generator(2))
    plain = siren.field(domain, width=256, first=OMEGA, layers=4, seed=3).network
    noisy = winner.field(domain, values=values, published=True, width=256, layers=4, seed=3).network
    scales = published_scales(values, 1)
    for level, (a, b) in enumerate(zip(plain.linears, noisy.linears, strict=True)):  # type: ignore[arg-type]
        assert torch.equal(a.bias, b.bias)
        added = (b.weight - a.weight).detach()
        if level > 1:
            assert torch.equal(added, torch.zeros_like(added))
        else:  # deviation of n normal draws: 1 / sqrt(2 n), four of these
            spread = 4 / math.sqrt(2 * added.numel())
            assert float(added.std()) * OMEGA == pytest.approx(scales[level], rel=spread)


def test_published_scales_of_white_noise() -> None:
    noise = torch.randn(1, 65_536, generator=generator(1))
    assert centroid(noise) == pytest.approx(0.5, abs=0.01)
    assert published_scales(noise, 1) == pytest.approx((3394, 1.5), rel=0.02)
    assert published_scales(noise, 2) == pytest.approx((45.9, 0.2), rel=0.02)
    with pytest.raises(ValueError, match="published=False"):
        published_scales(noise, 3)


def test_centroid_of_one_tone_and_of_a_constant() -> None:
    n, m = 512, 40
    tone = torch.cos(2 * math.pi * m * torch.arange(n, dtype=torch.float64) / n)[None]
    assert centroid(tone) == pytest.approx(2 * m / n, abs=1e-9)
    assert centroid(torch.ones(1, n)) == pytest.approx(0, abs=1e-12)


def test_bandwidth_is_that_of_the_field_on_every_grid_and_axis() -> None:
    """cos 3·2πx sin 2πy on the unit torus: 6π and 2π in radians per unit of [-1, 1] are 3π and π."""
    for n in (16, 32):
        grid = Grid.box((n, n), dim=2)
        x, y = grid.mesh()
        values = (torch.cos(6 * math.pi * x) * torch.sin(2 * math.pi * y))[None]
        assert bandwidths(values, grid) == pytest.approx((3 * math.pi, math.pi), rel=1e-10)
        assert waves_of(values, grid, 0.4) == pytest.approx((1.2 * math.pi, 0.4 * math.pi), rel=1e-10)
    between = Grid.box((64,), dim=1, boundary="dirichlet")
    wave = torch.sin(2 * math.pi * 5.3 * between.mesh())
    assert bandwidths(wave, between)[0] == pytest.approx(math.pi * 5.3, rel=0.05)  # the window's width
    assert max(KAPPAS) == 1.0


def test_second_moments_and_gains_are_the_closed_forms() -> None:
    for sigma in (0.3, 1.0):
        s = 2.0 * sigma
        assert second_moment(sine(2.0), sigma) == pytest.approx((1 - math.exp(-2 * s * s)) / 2, rel=1e-9)
        assert backward_gain(sine(2.0), sigma) == pytest.approx(s * s / math.tanh(s * s), rel=1e-9)
        rho = sigma**2 * 2 * 9  # exp(-(3 z)²): a² = 1 / 18
        assert second_moment(bell(3.0), sigma) == pytest.approx((1 + 2 * rho) ** -0.5, rel=1e-9)
        assert backward_gain(bell(3.0), sigma) == pytest.approx(rho**2 / (1 + 2 * rho), rel=1e-9)
    assert second_moment(relu, 2.0) == pytest.approx(0.5 * 4.0, rel=1e-6)  # half the variance: He's factor 2
    assert 1 / second_moment(hyperbolic(1.0), 1.0) == pytest.approx(2.54, rel=0.01)
    a = 1 / (3 * math.sqrt(2))
    assert stable_deviation(bell(3.0)) == pytest.approx(a * math.sqrt(1 + math.sqrt(2)), rel=0.05)  # the search's step


def test_vi3nr_keeps_pre_activations_in_depth() -> None:
    """Gaussian units, 12 layers of 400: each pre-activation's deviation within 15 % of sigma (one draw)."""
    from resolvent.fields._network import vi3nr_

    network = Gauss(2, 1, width=400, layers=12, sharpness=3.0, generator=generator())
    sigma = stable_deviation(bell(3.0))
    vi3nr_(network, 2, sigma=sigma, generator=generator(1))
    h = 2 * torch.rand(300, 2, generator=generator(2)) - 1
    with torch.no_grad():
        for linear in network.linears[:-1]:
            z = h @ linear.weight.t() + linear.bias
            assert float(z.square().mean().sqrt()) == pytest.approx(sigma, rel=0.15)
            h = bell(3.0)(z, 0)[0]


def test_vi3nr_is_an_option_of_layered_fields_and_refused_elsewhere() -> None:
    domain = Grid.box(8, dim=1)
    field = finer.field(domain, width=8, init="vi3nr", sigma=0.05)
    assert float(field.network.linears[1].bias.abs().max()) == 0  # type: ignore[union-attr, index]
    with pytest.raises(ValueError, match="Use init='published'"):
        kaf.field(domain, width=8, init="vi3nr")


def test_kaf_without_waves_is_a_gelu_perceptron_and_all_is_trained() -> None:
    domain = Grid.box(9, dim=1, boundary="dirichlet")
    network = kaf.field(domain, width=6, layers=2, dtype=torch.float64).network
    points = torch.rand(5, 1, dtype=torch.float64)
    network(Jet(points[None])).value.square().sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    assert all(float(layer.wavy.grad.abs()) > 0 for layer in network.layers)  # type: ignore[union-attr]
    with torch.no_grad():
        h = points
        for layer in network.layers:  # type: ignore[union-attr]
            layer.wavy.zero_()
            h = layer.linear(gelu(h, 0)[0] + layer.mixing.bias)
        torch.testing.assert_close(network(Jet(points[None])).value, network.last(h))  # type: ignore[operator]


def test_one_phasor_is_a_wave_and_the_energy_is_that_of_its_gradient() -> None:
    phasors = pref.Phasors(1, 1, modes=1, reduced=3, periodic=(True,), generator=generator(), dtype=torch.float64)
    with torch.no_grad():
        phasors.weight.zero_()
        phasors.weight[0, 2] = 1.0  # real part of wave 2
    x = torch.linspace(-1, 1, 9, dtype=torch.float64)[:, None]
    jet = phasors(seed_jet(x, gradient=True))
    torch.testing.assert_close(jet.value, 2 * torch.cos(2 * math.pi * x))
    torch.testing.assert_close(jet.first[0], -4 * math.pi * torch.sin(2 * math.pi * x))
    assert float(phasors.energy().detach()) == pytest.approx((2 * math.pi) ** 2 / 3)  # of three phasors
