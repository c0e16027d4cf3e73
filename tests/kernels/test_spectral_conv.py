"""The spectral convolution against its definition, its closed forms, and its fast form against the plain one."""

from __future__ import annotations

import math
import sys
from itertools import product

import pytest
import torch
from resolvent.kernels.spectral_conv import (
    cases,
    spectral_conv,
    spectral_conv_by_fft,
    spectral_conv_mixed,
    spectral_conv_products,
    spectral_conv_reference,
)
from torch import Tensor

spectral_module = sys.modules["resolvent.kernels.spectral_conv"]  # kernels exports the function under this name
FAST = [spectral_conv_products, spectral_conv_mixed, spectral_conv_by_fft]
FORMS = [spectral_conv_reference, *FAST]
CASES = [pytest.param(case, id=case.name) for case in cases() if case.dense_fourier]
SMALL = [param for param in CASES if param.values[0].inputs.numel() < 5000]


def conv(form, inputs: Tensor, weight: Tensor, shape=None) -> Tensor:
    return form(inputs, weight, None, tuple(inputs.shape[2:]) if shape is None else shape)


def by_definition(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The sum in the module's docstring, mode by mode, on the input grid."""
    space, modes = inputs.shape[2:], weight.shape[2:]
    mesh = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) / n for n in space), indexing="ij")
    axes = [range(-(m // 2), m - m // 2) for m in modes[:-1]] + [range(modes[-1])]
    total = torch.zeros(inputs.shape[0], weight.shape[1], *space, dtype=torch.float64)
    for k in product(*axes):
        wave = torch.exp(2j * math.pi * sum(ki * xi for ki, xi in zip(k, mesh, strict=True)))
        spectrum = (inputs * wave.conj()).flatten(2).mean(dim=2)
        index = (*(ki + m // 2 for ki, m in zip(k[:-1], modes[:-1], strict=True)), k[-1])
        once = k[-1] == 0 or 2 * k[-1] == space[-1]
        mixed = spectrum @ weight[(slice(None), slice(None), *index)]
        total += (1.0 if once else 2.0) * (mixed[(..., *(None,) * len(space))] * wave).real
    return total if bias is None else total + bias.reshape(-1, *(1,) * len(space))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", SMALL)
def test_every_form_is_the_definition(case, form):
    same = tuple(case.inputs.shape[2:])
    got = form(case.inputs, case.weight, case.bias, same)
    # sums of at most 720 terms of size one in double precision
    torch.testing.assert_close(got, by_definition(case.inputs, case.weight, case.bias), rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_fast_forms_agree_with_reference_in_values_and_gradients(case):
    wanted = [x.clone().requires_grad_() for x in (case.inputs, case.weight, case.bias) if x is not None]
    results = []
    for form in FORMS:
        outputs = form(wanted[0], wanted[1], wanted[2] if len(wanted) > 2 else None, case.output_shape)
        cotangent = torch.linspace(-1, 1, outputs.numel(), dtype=outputs.dtype).reshape(outputs.shape)
        results.append((outputs, *torch.autograd.grad(outputs, wanted, cotangent)))
    # relative to the largest value: sums of up to 32,768 float64 terms (bias gradient of the largest case)
    for plain, fast in [pair for got in results[1:] for pair in zip(results[0], got, strict=True)]:
        torch.testing.assert_close(fast, plain, rtol=0, atol=1e-12 * max(1.0, float(plain.detach().abs().max())))


@pytest.mark.parametrize("case", CASES)
def test_single_precision_and_dispatch(case):
    inputs, weight = case.inputs.float(), case.weight.to(torch.complex64)
    bias = None if case.bias is None else case.bias.float()
    expected = spectral_conv_reference(case.inputs, case.weight, case.bias, case.output_shape)
    for form in (*FORMS, lambda i, w, b, s: spectral_conv(i, w, b, output_shape=s)):
        got = form(inputs, weight, bias, case.output_shape)
        assert got.dtype == torch.float32
        # float32 transforms of up to 4096 nodes: a few times 1e-7 of the largest value
        torch.testing.assert_close(got.double(), expected, rtol=0, atol=5e-6 * float(expected.abs().max()))


@pytest.mark.parametrize("case", CASES)
def test_folded_axes_and_weights_in_pieces_change_nothing(case, monkeypatch):
    """What the sizes of a test would not reach: the leading axis folded, fields, waves and weight piece by piece."""
    monkeypatch.setattr(sys.modules["resolvent.kernels._products"], "FOLD_FROM", (2, 2))
    monkeypatch.setattr(sys.modules["resolvent.kernels._folded"], "PIECE", 400)
    monkeypatch.setattr(sys.modules["resolvent.kernels._mixing"], "PIECE", 20)
    test_fast_forms_agree_with_reference_in_values_and_gradients(case)


def test_gradients_are_derivatives():
    case = next(c for c in cases() if c.name == "2d non-integer ratio")
    inputs, weight, bias = (x.clone().requires_grad_() for x in (case.inputs, case.weight, case.bias))
    for form in FORMS:
        assert torch.autograd.gradcheck(
            lambda u, w, b, f=form: f(u, w, b, case.output_shape), (inputs, weight, bias), fast_mode=True
        )


@pytest.mark.parametrize("form", FAST)
@pytest.mark.parametrize("fold_from", [(2, 2), (128, 32)])
def test_second_derivatives(form, fold_from, monkeypatch):
    """The gradient depends on inputs and weight bilinearly; torch differentiates the hand-written backward again."""
    monkeypatch.setattr(sys.modules["resolvent.kernels._products"], "FOLD_FROM", fold_from)
    case = next(c for c in cases() if c.name == "2d odd modes")
    inputs, weight = case.inputs[:1, :, :8, :6].clone(), case.weight[:, :1, :3, :2].clone()
    assert torch.autograd.gradgradcheck(
        lambda u, w: form(u, w, None, (8, 6)), (inputs.requires_grad_(), weight.requires_grad_()), fast_mode=True
    )


def centred_wavenumbers(count: int) -> Tensor:
    return torch.arange(-(count // 2), count - count // 2, dtype=torch.float64)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [32, 31])
def test_identity_weight_is_the_ideal_low_pass_filter(form, size):
    """Of cos(2 pi 3x) + sin(2 pi (2x + 4y)) + cos(2 pi 9y), modes |k1| <= 3, k2 <= 4 keep the first two."""
    x = torch.arange(size, dtype=torch.float64)[:, None] / size
    y = x.t()
    low = torch.cos(6 * math.pi * x) + torch.sin(2 * math.pi * (2 * x + 4 * y))
    weight = torch.ones(1, 1, 7, 5, dtype=torch.complex128)
    got = conv(form, (low + torch.cos(18 * math.pi * y))[None, None], weight)
    torch.testing.assert_close(got[0, 0], low, rtol=0, atol=1e-13)


@pytest.mark.parametrize("form", FORMS)
def test_squared_wavenumbers_are_the_laplacian(form):
    """R(k) = -4 pi^2 |k|^2 applied to sin(2 pi (2x - 3y)) multiplies it by -4 pi^2 (4 + 9)."""
    x = torch.arange(20, dtype=torch.float64)[:, None] / 20
    y = torch.arange(18, dtype=torch.float64)[None, :] / 18
    u = torch.sin(2 * math.pi * (2 * x - 3 * y))
    k1, k2 = centred_wavenumbers(9)[:, None], torch.arange(5, dtype=torch.float64)[None, :]
    weight = (-4 * math.pi**2 * (k1**2 + k2**2)).to(torch.complex128)[None, None]
    got = conv(form, u[None, None], weight)
    torch.testing.assert_close(got[0, 0], -4 * math.pi**2 * 13 * u, rtol=0, atol=1e-10)  # 513 times round-off


@pytest.mark.parametrize("form", FORMS)
def test_refining_a_field_evaluates_its_modes_at_the_new_nodes(form):
    """A two-mode field at 12 x 9 nodes, asked for at 30 x 20: negative modes stay negative."""

    def field(n1: int, n2: int) -> Tensor:
        x = torch.arange(n1, dtype=torch.float64)[:, None] / n1
        y = torch.arange(n2, dtype=torch.float64)[None, :] / n2
        return torch.cos(2 * math.pi * (-3 * x + 2 * y)) + torch.sin(2 * math.pi * (4 * x + y))

    weight = torch.ones(1, 1, 9, 4, dtype=torch.complex128)
    got = conv(form, field(12, 9)[None, None], weight, (30, 20))
    torch.testing.assert_close(got[0, 0], field(30, 20), rtol=0, atol=1e-13)


@pytest.mark.parametrize("form", FORMS)
def test_nyquist_is_shared_evenly_when_refining(form):
    """(-1)^i (-1)^j on an even grid is cos(pi n x) cos(pi n y) between the nodes."""
    signs = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(4)
    weight = torch.ones(1, 1, 8, 5, dtype=torch.complex128)
    got = conv(form, torch.outer(signs, signs)[None, None], weight, (24, 40))
    wave = [torch.cos(2 * math.pi * 4 * torch.arange(n, dtype=torch.float64) / n) for n in (24, 40)]
    torch.testing.assert_close(got[0, 0], torch.outer(*wave), rtol=0, atol=1e-13)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("coarse", "fine"), [((16, 12), (32, 24)), ((15, 12), (45, 36))])
def test_finer_inputs_give_the_same_outputs_at_common_nodes(form, coarse, fine):
    """Check 1 of the dossier: band-limited inputs, output at a multiple of the resolution, subsampled."""
    generator = torch.Generator().manual_seed(5)
    field = torch.randn(2, 3, *coarse, dtype=torch.float64, generator=generator)
    low_pass = torch.eye(3, dtype=torch.complex128)[:, :, None, None].expand(3, 3, 7, 4).contiguous()
    weight = torch.randn(3, 2, 7, 4, dtype=torch.complex128, generator=generator)
    at_coarse = conv(form, conv(form, field, low_pass), weight)
    at_fine = conv(form, conv(form, field, low_pass, fine), weight)
    ratio = fine[0] // coarse[0]
    torch.testing.assert_close(at_fine[:, :, ::ratio, ::ratio], at_coarse, rtol=0, atol=1e-13)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("sizes", [(12,), (11, 14), (6, 5, 8)])
def test_it_commutes_with_translation(form, sizes):
    generator = torch.Generator().manual_seed(8)
    inputs = torch.randn(2, 2, *sizes, dtype=torch.float64, generator=generator)
    modes = (*(5, 4)[: len(sizes) - 1], 3)
    weight = torch.randn(2, 3, *modes, dtype=torch.complex128, generator=generator)
    dims = tuple(range(2, inputs.ndim))
    shifts = (1, 3, 2)[: len(sizes)]
    moved = conv(form, inputs.roll(shifts, dims), weight)
    torch.testing.assert_close(moved, conv(form, inputs, weight).roll(shifts, dims), rtol=0, atol=1e-13)


def test_computes_in_the_wider_precision_also_under_autocast():
    case = next(c for c in cases(torch.float32) if c.name == "2d")
    expected = spectral_conv(case.inputs, case.weight, case.bias)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = spectral_conv(case.inputs, case.weight, case.bias)
    assert torch.equal(got, expected)
    rounded = spectral_conv(case.inputs.bfloat16(), case.weight, case.bias)
    assert rounded.dtype == torch.float32
    wide = spectral_conv(case.inputs.double(), case.weight, case.bias)
    exact = spectral_conv(case.inputs.double(), case.weight.to(torch.complex128), case.bias.double())
    assert torch.equal(wide, exact)


@pytest.mark.parametrize(
    ("basis", "modes", "chosen"),
    [
        (("fourier", "fourier"), (8, 4), "spectral_conv_products"),
        (("fourier", "fourier"), (8, 65), "spectral_conv_products"),
        (("fourier", "fourier"), (32, 17), "spectral_conv_by_fft"),
        (("sine", "fourier"), (8, 65), "spectral_conv_mixed"),
    ],
)
def test_dispatch_takes_the_fft_where_every_axis_keeps_many_waves(basis, modes, chosen, monkeypatch):
    called = []
    for form in FAST:
        monkeypatch.setattr(spectral_module, form.__name__, lambda *a, name=form.__name__: called.append(name) or a[0])
    spectral_conv(torch.zeros(1, 1, 128, 128), torch.zeros(1, 1, *modes, dtype=torch.complex64), basis=basis)
    assert called == [chosen]


@pytest.mark.parametrize("form", FAST)
@pytest.mark.parametrize(("sizes", "modes"), [((256, 256), (64, 33)), ((256,), (129,)), ((32, 32, 32), (16, 16, 9))])
def test_single_precision_errs_by_a_millionth_at_most(form, sizes, modes):
    """The issue's bound on the relative L2 error of values and gradients, N <= 256."""
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(2, 4, *sizes, dtype=torch.float64, generator=generator)
    weight = torch.randn(4, 4, *modes, dtype=torch.complex128, generator=generator)
    cotangent = torch.randn(2, 4, *sizes, dtype=torch.float64, generator=generator)

    def values_and_gradients(function, dtype):
        leaves = inputs.to(dtype).requires_grad_(), weight.to(dtype.to_complex()).requires_grad_()
        outputs = function(*leaves, None, sizes)
        return outputs, *torch.autograd.grad(outputs, leaves, cotangent.to(dtype))

    exact = values_and_gradients(spectral_conv_reference, torch.float64)
    for got, expected in zip(values_and_gradients(form, torch.float32), exact, strict=True):
        assert (got - expected).norm() <= 1e-6 * expected.norm()


def test_first_call_under_inference_mode_leaves_later_gradients_alone():
    """The transforms are cached; one made under inference mode must still serve autograd."""
    inputs = torch.randn(1, 1, 22, 26, generator=torch.Generator().manual_seed(1))
    weight = torch.ones(1, 1, 5, 3, dtype=torch.complex64)
    with torch.inference_mode():
        spectral_conv(inputs, weight)
    spectral_conv(inputs.requires_grad_(), weight).sum().backward()
    assert inputs.grad is not None


def test_refuses_modes_beyond_the_grid_and_unfit_shapes():
    weight = torch.ones(2, 2, 9, 5, dtype=torch.complex64)
    with pytest.raises(ValueError, match=r"keeps \(9, 5\) modes an axis, but a grid of \(8, 16\)"):
        spectral_conv(torch.zeros(1, 2, 8, 16), weight)
    with pytest.raises(ValueError, match="1 to 3 directions"):
        spectral_conv(torch.zeros(1, 2, 16, 16), weight, output_shape=(16,))
