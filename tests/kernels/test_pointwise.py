"""The fused channel MLP against its plain form, in values, gradients and gradients of gradients."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from resolvent.kernels.pointwise import Case, cases, channel_mix, channel_mlp, channel_mlp_reference
from torch import Tensor

CASES = [pytest.param(case, id=case.name) for case in cases()]


def leaves(case: Case) -> list[Tensor]:
    tensors = (case.values, *case.first, *case.second, case.plus, case.gate)
    return [x.requires_grad_() for x in tensors if x is not None]


def fused(case: Case) -> Tensor:
    return channel_mlp(case.values, case.first, case.second, case.plus, case.gate, activate=case.activate)


def plain(case: Case) -> Tensor:
    return channel_mlp_reference(case.values, case.first, case.second, case.plus, case.gate, activate=case.activate)


@pytest.mark.parametrize("case", CASES)
def test_fused_agrees_with_plain_in_values_and_gradients(case: Case) -> None:
    inputs = leaves(case)
    got, expected = fused(case), plain(case)
    torch.testing.assert_close(got, expected, rtol=1e-13, atol=1e-13)  # sums of a few products of O(1) doubles
    weights = torch.randn(expected.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for a, b in zip(gradients(got, inputs, weights), gradients(expected, inputs, weights), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)  # sums over up to 8710 nodes


def gradients(out: Tensor, inputs: Sequence[Tensor], weights: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(out, inputs, weights)


@pytest.mark.parametrize("case", [c for c in CASES if c.id in ("gate activated", "skip", "2d activated")])
def test_gradients_are_those_of_finite_differences_twice_over(case: Case) -> None:
    inputs = leaves(case)
    assert torch.autograd.gradcheck(lambda *_: fused(case), inputs)
    # the second ones along random directions: entry by entry they take a quarter of a minute
    assert torch.autograd.gradgradcheck(lambda *_: fused(case), inputs, atol=1e-4, fast_mode=True)


def test_strided_values_give_the_same() -> None:
    case = next(c for c in cases() if c.name == "gate activated")
    strided = case.values.transpose(2, 3).contiguous().transpose(2, 3)
    assert not strided.is_contiguous()
    got = channel_mlp(strided, case.first, case.second, case.plus, case.gate, activate=True)
    torch.testing.assert_close(got, fused(case), rtol=0, atol=1e-14)


def test_single_precision_is_as_good_as_its_arithmetic() -> None:
    single, double = (next(c for c in cases(d) if c.name == "several parts") for d in (torch.float32, torch.float64))
    error = (fused(single).double() - fused(double)).norm() / fused(double).norm()
    assert error < 1e-6  # eight roundings of 6e-8


@pytest.mark.usefixtures("unchecked")  # dynamo cannot look through the shape checker
def test_transforms_of_torch_func_and_compile_see_the_plain_form() -> None:
    case = next(c for c in cases() if c.name == "gate activated")

    def answer(values: Tensor) -> Tensor:
        return channel_mlp(values, case.first, case.second, case.plus, case.gate, activate=True)

    direction = torch.ones_like(case.values)
    _, derivative = torch.func.jvp(answer, (case.values,), (direction,))
    step = 1e-6
    expected = (answer(case.values + step * direction) - answer(case.values - step * direction)) / (2 * step)
    torch.testing.assert_close(derivative, expected, rtol=0, atol=1e-8)  # h^2 and round-off / h
    stacked = torch.func.vmap(answer)(torch.stack([case.values, 2 * case.values]))
    torch.testing.assert_close(stacked[1], answer(2 * case.values), rtol=0, atol=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = torch.compile(answer, backend="aot_eager")(case.values)
    torch.testing.assert_close(compiled, answer(case.values), rtol=0, atol=1e-12)


def test_autocast_keeps_its_precision() -> None:
    case = next(c for c in cases(torch.float32) if c.name == "skip")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert fused(case).dtype == plain(case).dtype
        torch.testing.assert_close(fused(case), plain(case), rtol=0, atol=0)


def test_a_mix_is_a_convolution_of_one_node() -> None:
    case = next(c for c in cases() if c.name == "gate")
    weight, bias = case.first
    expected = F.conv2d(case.values, weight[:, :, None, None], bias)
    torch.testing.assert_close(channel_mix(case.values, weight, bias), expected, rtol=0, atol=1e-13)


def test_a_gate_without_a_skip_is_refused() -> None:
    case = next(c for c in cases() if c.name == "gate")
    with pytest.raises(ValueError, match="give both"):
        channel_mlp(case.values, case.first, case.second, None, case.gate)


def test_gradients_to_be_differentiated_again_count_a_shared_operand_once():
    """The skip is often what the values were made of."""
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(2, 3, 5, dtype=torch.float64, generator=generator, requires_grad=True)
    first, second = ((torch.randn(3, 3, dtype=torch.float64, generator=generator), x.new_zeros(3)) for _ in range(2))
    outputs = channel_mlp(torch.tanh(x), first, second, plus=x)
    (plain,) = torch.autograd.grad(outputs.sum(), x, retain_graph=True)
    (again,) = torch.autograd.grad(outputs.sum(), x, create_graph=True)
    torch.testing.assert_close(again, plain, rtol=0, atol=1e-14 * float(plain.abs().max()))
