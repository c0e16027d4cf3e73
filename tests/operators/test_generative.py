"""The parts of generative models: priors, media, decoders."""

from __future__ import annotations

import dataclasses
import functools
import math

import pytest
import torch
from resolvent.operators._declared import Span
from resolvent.operators._generative import Decoders, Medium, picked
from resolvent.operators._prior import Prior, standard_normal
from resolvent.operators._waves import Decoder, Products, family, wave_decoder
from resolvent.operators.multionet import MultiONet
from resolvent.pde import Grid
from resolvent.pde._weak_form import Lattice
from resolvent.pde.burgers import Burgers
from resolvent.training._physics import Between
from torch import Tensor


@pytest.mark.parametrize("law", ["box", "gaussian", "flow"])
def test_a_prior_is_the_image_of_the_normal_law(law: str) -> None:
    """Leads there and back, and its density obeys the change of variables (numerical Jacobian)."""
    torch.manual_seed(1)
    prior = Prior(4, law).double()
    if law == "gaussian":
        prior.fit(torch.randn(200, 4, dtype=torch.float64) @ torch.randn(4, 4, dtype=torch.float64) + 0.7)
    for parameter in prior.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    latent = torch.randn(5, 4, dtype=torch.float64)
    code = prior.push(latent)
    torch.testing.assert_close(prior.pull(code), latent, rtol=1e-6, atol=1e-6)
    jacobians = torch.stack([torch.func.jacrev(lambda z: prior.push(z[None])[0])(z) for z in latent])
    expected = standard_normal(latent) - torch.linalg.slogdet(jacobians).logabsdet
    torch.testing.assert_close(prior.log_density(code), expected, rtol=1e-8, atol=1e-8)


def test_a_gaussian_prior_has_the_moments_of_the_codes() -> None:
    torch.manual_seed(0)
    codes = torch.randn(4000, 3) @ torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.3, 0.0], [0.0, 0.0, 2.0]]) + 1.5
    prior = Prior(3, "gaussian")
    prior.fit(codes)
    drawn = prior.push(torch.randn(4000, 3))
    torch.testing.assert_close(drawn.mean(0), codes.mean(0), rtol=0, atol=0.15)  # 2 / sqrt(4000) = 0.03
    torch.testing.assert_close(drawn.t().cov(), codes.t().cov(), rtol=0.15, atol=0.1)


def test_two_phases_are_bernoulli_and_more_are_categorical() -> None:
    logits = torch.tensor([[[0.0, 2.0, -3.0]]])
    two = Medium((5.0, 10.0))
    torch.testing.assert_close(two.probabilities(logits)[0, :, 1], torch.sigmoid(logits[0, 0]))
    truth = torch.tensor([[5.0, 10.0, 10.0]])
    expected = -torch.log(
        torch.stack([torch.tensor(0.5), torch.sigmoid(torch.tensor(2.0)), torch.sigmoid(torch.tensor(-3.0))])
    )
    torch.testing.assert_close(two.misfit(logits, truth)[0], expected.mean())
    three = Medium((1.0, 2.0, 4.0))
    assert three.logits == 3
    many = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(three.probabilities(many).sum(-1), torch.ones(2, 5))
    field = torch.tensor([[1.0, 2.0, 4.0, 1.0, 2.0]]).expand(2, 5)
    chances = three.probabilities(many).gather(2, three.indices(field)[..., None])[..., 0]
    torch.testing.assert_close(three.misfit(many, field), -chances.log().mean(1))


def test_draws_have_the_chances_of_the_phases() -> None:
    medium = Medium((1.0, 2.0, 4.0))
    logits = torch.tensor([0.5, -0.3, 1.0])[None, :, None].expand(1, 3, 40_000)
    drawn = medium.drawn(logits, torch.Generator().manual_seed(0))[0]
    shares = torch.stack([(drawn == phase).double().mean() for phase in medium.phases])
    torch.testing.assert_close(
        shares, medium.probabilities(logits)[0, 0].double(), rtol=0, atol=0.01
    )  # 4 / sqrt(4e4)/2


def test_a_relaxed_draw_is_logistic_noise_through_the_sigmoid() -> None:
    """One draw: z > 1/2 with the chance of the phase (the concrete law). 25: a fifth of the deviation pi / sqrt 3."""
    medium = Medium((0.0, 1.0))
    logits = torch.full((1, 1, 40_000), 0.8)
    once = medium.relaxed(logits, torch.Generator().manual_seed(0), draws=1)
    assert float((once > 0.5).double().mean()) == pytest.approx(torch.sigmoid(torch.tensor(0.8)).item(), abs=0.01)
    many = torch.logit(medium.relaxed(logits, torch.Generator().manual_seed(0)).double())
    assert float(many.std()) == pytest.approx(math.pi / math.sqrt(3) / 5, rel=0.03)


def test_the_medium_picks_the_flux_of_its_phase() -> None:
    fluxes = torch.arange(8.0)[None, :4, None] + torch.zeros(2, 4, 3)  # phase 0: (0, 1); phase 1: (2, 3)
    index = torch.tensor([[0, 1, 0], [1, 1, 0]])
    chosen = picked(fluxes, index, 2)
    torch.testing.assert_close(chosen[..., 0], 2.0 * index)
    torch.testing.assert_close(chosen[..., 1], 2.0 * index + 1)
    torch.testing.assert_close(picked(fluxes[:, :2], None, 2)[0, 0], torch.tensor([0.0, 1.0]))


@pytest.mark.parametrize("kind", ["sine", "cosine", "fourier", "growth"])
def test_waves_are_orthogonal_and_their_slopes_are_derivatives(kind: str) -> None:
    x = torch.rand(20, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    values = family(kind, 7, x, 0)
    slopes = torch.stack(
        [torch.autograd.grad(v.sum(), x, retain_graph=True, allow_unused=True)[0] for v in values.unbind(1)], 1
    )
    torch.testing.assert_close(family(kind, 7, x, 1), slopes, rtol=1e-10, atol=1e-10)
    ends = family(kind, 7, torch.tensor([0.0, 1.0], dtype=torch.float64), 0)
    if kind == "growth":
        torch.testing.assert_close(ends, torch.tensor([[1.0] + [0.0] * 6, [1.0] * 7]).double())
        return
    nodes, weights = (torch.from_numpy(a) for a in __import__("numpy").polynomial.legendre.leggauss(40))
    gram = family(kind, 7, (nodes + 1) / 2, 0)
    products = gram.t() @ (weights[:, None] / 2 * gram)
    torch.testing.assert_close(products, products.diag().diag(), rtol=0, atol=1e-12)
    if kind == "sine":
        assert float(ends.abs().max()) < 1e-14


def test_waves_near_a_resonance_begin_large() -> None:
    """Level 1 / (1 + stiffness / least): of cosines with stiffness |lambda - 4 pi²|, at least 1, the third leads."""
    grid = Grid.box(9, dim=1, boundary="neumann")
    options = {"walls": False, "waves": 6, "hidden": [4]}
    waves = wave_decoder(grid, 3, **options, stiffness=lambda squares: (squares - 4 * math.pi**2).abs().clamp_min(1.0))
    number = torch.arange(6)
    expected = 1 / (1 + (math.pi**2 * (number**2 - 4).abs()).clamp_min(1.0))
    torch.testing.assert_close(waves.level, expected, rtol=1e-5, atol=0)
    assert int(waves.level.argmax()) == 2
    assert int(wave_decoder(grid, 3, **options).level.argmax()) == 0


def features_at(decoder: Decoder, point: Tensor) -> Tensor:
    return decoder.features(point[None])[0]


def test_sweeps_are_the_gradients_of_the_decoders() -> None:
    torch.manual_seed(0)
    grid = Grid.box((5, 7), lower=(-1.0, 0.0), upper=(1.0, 3.0), boundary="dirichlet")
    multionet = MultiONet(2, 4, branch=[6] * 3, trunk=[6] * 3, factors="one")
    decoder: Decoder
    for decoder in (wave_decoder(grid, 4, walls=True, waves=3, hidden=[8]), Products(multionet)):
        points = torch.rand(9, 2)
        features, slopes = decoder.sweep(points)
        torch.testing.assert_close(features, decoder.features(points))
        expected = torch.stack([torch.func.jacrev(functools.partial(features_at, decoder))(p) for p in points])
        torch.testing.assert_close(slopes, expected, rtol=1e-4, atol=1e-4)
    code = torch.randn(3, 4)
    torch.testing.assert_close(
        decoder.coefficients(code) @ features.t(), multionet(code, points)[:, 0], rtol=1e-4, atol=1e-5
    )


def test_on_a_lattice_decoders_say_what_they_say_point_by_point() -> None:
    torch.manual_seed(0)
    domain = dataclasses.replace(Burgers(**Burgers.presets["dgno"])).weak_domain(Burgers(boundary="dirichlet").grid(9))
    code, lattice = torch.randn(3, 4), Lattice((torch.rand(5), torch.rand(6)))
    waves = wave_decoder(domain, 4, walls=True, waves=3, hidden=[8], times=4)
    decoders = Decoders([waves, Products(MultiONet(2, 4, branch=[6] * 3, trunk=[6] * 3, factors="one"))])
    values, slopes = decoders.with_gradients(code, lattice)
    listed_values, listed_slopes = decoders.with_gradients(code, lattice.points)
    torch.testing.assert_close(values, listed_values, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(slopes, listed_slopes, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(decoders(code, lattice), listed_values, rtol=1e-5, atol=1e-5)
    field, grid = torch.randn(2, 9, 7), Grid.box((9, 7), boundary="dirichlet")
    one, other = Between(grid, lattice), Between(grid, lattice.points)
    torch.testing.assert_close(one(field), other(field), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(one.gradient(field), other.gradient(field), rtol=1e-4, atol=1e-3)


def test_what_is_kept_at_points_that_stay_follows_the_basis() -> None:
    points = torch.rand(4, 2)
    span = Span(lambda x: torch.stack([x[:, 0] ** 3, x[:, 0] * x[:, 1]], dim=1), torch.eye(2).double(), [points])
    first = span.bends(points)
    assert span.bends(points) is first
    assert span.bends(points.clone()) is first  # as they come from another device
    torch.testing.assert_close(span.bends(points.flip(0)), first.flip(0))
    span.load_state_dict({"basis": 2 * torch.eye(2).double()})
    torch.testing.assert_close(span.bends(points), 2 * first)
