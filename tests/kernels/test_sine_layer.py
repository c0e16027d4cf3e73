"""The jet of a sine layer against nested forward mode, closed forms and its own lower orders."""

from __future__ import annotations

import math

import pytest
import torch
from resolvent.kernels.sine_layer import Case, cases, jet_of_points, sine_layer, sine_layer_reference
from torch import Tensor

CASES = [pytest.param(case, id=case.name) for case in cases()]


def network(case: Case, jet: Tensor, *, laplacian: bool = False) -> Tensor:
    *hidden, last = case.layers
    for weight, bias in hidden:
        jet = sine_layer(jet, weight, bias, case.frequency, laplacian=laplacian)
    return sine_layer(jet, *last, laplacian=laplacian, activate=False)


def plain(case: Case, point: Tensor) -> Tensor:
    *hidden, (last_weight, last_bias) = case.layers
    for weight, bias in hidden:
        point = torch.sin(case.frequency * (weight @ point + bias))
    return last_weight @ point + last_bias


@pytest.mark.parametrize("case", CASES)
@pytest.mark.usefixtures("unchecked")  # forward mode passes its own stand-ins for tensors
def test_value_gradient_and_laplacian_are_those_of_forward_mode(case: Case) -> None:
    got = network(case, jet_of_points(case.points, laplacian=True), laplacian=True)
    expected = sine_layer_reference(lambda point: plain(case, point), case.points)
    scale = expected.abs().amax(dim=(1, 2), keepdim=True)
    torch.testing.assert_close(got / scale, expected / scale, rtol=0, atol=1e-13)  # round-off, order by order


@pytest.mark.parametrize("case", CASES)
def test_lower_orders_are_the_same_with_and_without_the_higher(case: Case) -> None:
    whole = network(case, jet_of_points(case.points, laplacian=True), laplacian=True)
    gradient = network(case, jet_of_points(case.points, gradient=True))
    value = network(case, jet_of_points(case.points))
    torch.testing.assert_close(whole[:-1], gradient, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(gradient[:1], value, rtol=1e-14, atol=1e-14)


def test_one_layer_is_a_plane_wave() -> None:
    """sin(omega (w.x + b)) has the Laplacian -(omega |w|)² sin."""
    points = torch.rand(9, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weight, bias = torch.tensor([[0.3, -0.7]], dtype=torch.float64), torch.tensor([0.2], dtype=torch.float64)
    jet = sine_layer(jet_of_points(points, laplacian=True), weight, bias, 11.0, laplacian=True)
    wave = torch.sin(11.0 * (points @ weight.t() + bias))
    expected = -((11.0 * math.hypot(0.3, 0.7)) ** 2) * wave
    torch.testing.assert_close(jet[-1], expected, rtol=0, atol=1e-12)


def test_a_loss_with_the_laplacian_has_the_gradient_of_finite_differences() -> None:
    case = next(c for c in cases() if c.name == "1d")
    tensors = [x.requires_grad_() for layer in case.layers for x in layer]
    assert torch.autograd.gradcheck(
        lambda *_: network(case, jet_of_points(case.points, laplacian=True), laplacian=True), tensors
    )


def test_a_laplacian_without_derivatives_is_refused() -> None:
    case = cases()[0]
    with pytest.raises(ValueError, match="got 1 orders"):
        sine_layer(jet_of_points(case.points), *case.layers[0], laplacian=True)
