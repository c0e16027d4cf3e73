"""The block in one pass against its plain form: values, gradients, gradients of gradients."""

from __future__ import annotations

import pytest
import torch
from resolvent.kernels import spectral_conv
from resolvent.kernels.fourier_block import fourier_block, fourier_block_reference
from torch import Tensor

SETTINGS = [(activate, biased) for activate in (True, False) for biased in (True, False)]


def operands(space: tuple[int, ...], *, biased: bool) -> list[Tensor | None]:
    """v, y, S, s, W_1, b_1, W_2, b_2, g of width 4, hidden width 3."""
    generator = torch.Generator().manual_seed(17)
    shapes = [(2, 4, *space), (2, 4, *space), (4, 4), (4,), (3, 4), (3,), (4, 3), (4,), (4,)]
    made = [torch.randn(s, dtype=torch.float64, generator=generator).requires_grad_() for s in shapes]
    return [x if biased or i != 3 else None for i, x in enumerate(made)]


def block(form, activate: bool, *given: Tensor | None) -> Tensor:
    v, y, s, bs, w1, b1, w2, b2, gate = given
    return form(v, y.clone(), (s, bs), (w1, b1), (w2, b2), gate, activate=activate)


@pytest.mark.parametrize(("activate", "biased"), SETTINGS)
def test_one_pass_agrees_with_the_plain_form_in_values_and_gradients(activate, biased):
    given = operands((65, 67), biased=biased)  # more nodes than one part holds
    leaves = [x for x in given if x is not None]
    results = []
    for form in (fourier_block, fourier_block_reference):
        outputs = block(form, activate, *given)
        cotangent = torch.linspace(-1, 1, outputs.numel(), dtype=torch.float64).view_as(outputs)
        results.append((outputs, *torch.autograd.grad(outputs, leaves, cotangent)))
    for fast, plain in zip(*results, strict=True):
        # sums of at most 8710 float64 terms of size one
        torch.testing.assert_close(fast, plain, rtol=0, atol=1e-12 * max(1.0, float(plain.detach().abs().max())))


@pytest.mark.parametrize(("activate", "biased"), SETTINGS)
def test_first_and_second_derivatives_are_those_of_finite_differences(activate, biased):
    given = operands((3, 2), biased=biased)
    leaves = [x for x in given if x is not None]

    def function(*values: Tensor) -> Tensor:
        found = iter(values)
        return block(fourier_block, activate, *(None if x is None else next(found) for x in given))

    assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradgradcheck(function, leaves)


def test_second_derivatives_go_through_the_convolution():
    """The memory of y is taken over, but not its place in the graph."""
    given = operands((6, 6), biased=True)
    weight = torch.randn(4, 4, 3, 2, dtype=torch.complex128, generator=torch.Generator().manual_seed(2))

    def curvature(form) -> Tensor:
        v = given[0]
        outputs = block(form, True, v, spectral_conv(v, weight), *given[2:])
        (slope,) = torch.autograd.grad(outputs.square().sum(), v, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), v)[0]

    expected = curvature(fourier_block_reference)
    torch.testing.assert_close(curvature(fourier_block), expected, rtol=1e-10, atol=1e-10 * float(expected.abs().max()))
