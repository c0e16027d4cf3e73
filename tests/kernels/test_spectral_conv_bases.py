"""Sine and cosine bases, depthwise and factorised weights: closed forms, special = general, fast = plain."""

from __future__ import annotations

import math

import pytest
import torch
from resolvent.kernels._bases import Axis, analysis, synthesis
from resolvent.kernels._factors import CP, TT, Planes, Tucker, mixing_of, tensors_of, to_dense
from resolvent.kernels.spectral_conv import (
    cases,
    spectral_conv,
    spectral_conv_by_fft,
    spectral_conv_mixed,
    spectral_conv_products,
    spectral_conv_reference,
)
from torch import Tensor

WALLS = ["sine", "sine-centres", "cosine", "cosine-ends"]
CASES = [pytest.param(case, id=case.name) for case in cases() if not case.dense_fourier]
FORMS = [spectral_conv_reference, spectral_conv_products]


def nodes(basis: str, size: int) -> Tensor:
    j = torch.arange(size, dtype=torch.float64)
    return j / (size - 1) if basis in ("sine", "cosine-ends") else (j + 0.5) / size


def wave(basis: str, k: int, size: int) -> Tensor:
    angle = math.pi * k * nodes(basis, size)
    return angle.sin() if basis.startswith("sine") else angle.cos()


@pytest.mark.parametrize("case", CASES)
def test_fast_forms_agree_with_reference_in_values_and_gradients(case):
    wanted = [*tensors_of(case.weight), case.inputs, *([] if case.bias is None else [case.bias])]
    for leaf in wanted:
        leaf.requires_grad_()
    forms = [*FORMS, spectral_conv_mixed] if case.basis[-1] == "fourier" else FORMS
    forms = [*forms, spectral_conv_by_fft] if set(case.basis) == {"fourier"} else forms
    plain, *others = (values_and_gradients(form, case, wanted) for form in forms)
    others.append(
        values_and_gradients(
            lambda i, w, b, s, words: spectral_conv(i, w, b, output_shape=s, basis=words), case, wanted
        )
    )
    for fast in others:
        for got, expected in zip(fast, plain, strict=True):
            # relative to the largest value: sums of at most some thousand float64 terms
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-12 * max(1.0, float(expected.abs().max())))


def values_and_gradients(form, case, wanted) -> list[Tensor]:
    outputs = form(case.inputs, case.weight, case.bias, case.output_shape, case.basis)
    cotangent = torch.linspace(-1, 1, outputs.numel(), dtype=outputs.dtype).reshape(outputs.shape)
    return [x.detach() for x in (outputs, *torch.autograd.grad(outputs, wanted, cotangent))]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("basis", WALLS)
@pytest.mark.parametrize(("size", "new_size"), [(12, 12), (9, 9), (10, 23), (12, 30)])
def test_each_wave_is_an_eigenfunction(form, basis, size, new_size):
    """Of a diagonal weight, at the input's nodes and at others: k times phi_k for every wave that the grid resolves."""
    axis = Axis(basis, 1)
    count = axis.available(size)
    k = torch.arange(axis.first, axis.first + count, dtype=torch.float64)
    inputs = torch.stack([wave(basis, int(one), size) for one in k])[:, None]
    got = form(inputs, k[None, None], None, (new_size,), (basis,))
    expected = torch.stack([one * wave(basis, int(one), new_size) for one in k])[:, None]
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-11)  # up to 30 waves of size 30


@pytest.mark.parametrize("basis", [*WALLS, "fourier"])
def test_synthesis_undoes_analysis(basis):
    """With every wave kept: the identity (sine: on functions that vanish at the walls)."""
    size = 11
    halved = basis == "fourier"
    axis = Axis(basis, Axis(basis, 1, halved).available(size), halved)
    like = (torch.float64, torch.device("cpu"))
    product = synthesis(axis, size, size, *like).t() @ analysis(axis, size, *like)
    expected = torch.eye(size, dtype=torch.float64)
    if basis == "sine":
        expected[[0, -1]] = 0
    torch.testing.assert_close(product, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("form", FORMS)
def test_sine_weights_solve_the_dirichlet_problem(form):
    """-u'' - u_yy = f with f = sin(2 pi x) sin(3 pi y): u = f / (pi^2 13), by the weight 1 / (pi^2 (k^2 + l^2))."""
    x, y = nodes("sine", 14)[:, None], nodes("sine", 17)[None, :]
    f = torch.sin(2 * math.pi * x) * torch.sin(3 * math.pi * y)
    k = torch.arange(1, 6, dtype=torch.float64)
    weight = 1 / (math.pi**2 * (k[:, None] ** 2 + k[None, :] ** 2))
    got = form(f[None, None], weight[None, None], None, (14, 17), ("sine", "sine"))
    torch.testing.assert_close(got[0, 0], f / (13 * math.pi**2), rtol=0, atol=1e-15)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("order", [("fourier", "sine"), ("sine", "fourier")])
def test_channel_flow_basis_is_the_laplacian(form, order):
    """Periodic in one direction, walls in the other: waves e^{2 pi i k x} sin(pi l y) have (2 pi k)^2 + (pi l)^2."""
    x = torch.arange(16, dtype=torch.float64) / 16
    u = torch.outer(torch.cos(4 * math.pi * x) + torch.sin(4 * math.pi * x), torch.sin(3 * math.pi * nodes("sine", 13)))
    k = (2 * math.pi * torch.arange(5, dtype=torch.float64)) ** 2  # either order: the only Fourier axis is halved
    weight = k[:, None] + (math.pi * torch.arange(1, 8, dtype=torch.float64)) ** 2
    u, weight = (u, weight) if order[0] == "fourier" else (u.t(), weight.t())
    got = form(u[None, None], weight.to(torch.complex128)[None, None], None, u.shape, order)
    torch.testing.assert_close(got[0, 0], 25 * math.pi**2 * u, rtol=0, atol=1e-10)


@pytest.mark.parametrize("basis", WALLS)
def test_the_result_keeps_the_wall_condition(basis):
    """Zero or of zero slope at the walls whatever the weight: seen on the odd or even extension of a fine result."""
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(1, 2, 14, dtype=torch.float64, generator=generator)
    weight = torch.randn(2, 2, 6, dtype=torch.float64, generator=generator)
    fine = spectral_conv(inputs, weight, output_shape=(4097,), basis=basis)
    slope, value = 4097 * (fine[..., 1] - fine[..., 0]), fine[..., 0]
    small = value if basis.startswith("sine") else slope
    # at most 6 waves of slope 6 pi and curvature (6 pi)^2, one cell of 1/4096 away from the wall
    assert float(small.abs().max()) < 0.05 * float(fine.abs().max()) * (1 if basis.startswith("sine") else 6)


@pytest.mark.parametrize("kind", ["cp", "tucker", "tt"])
@pytest.mark.parametrize("depthwise", [False, True])
def test_factors_follow_tensorly(kind, depthwise):
    tltorch = pytest.importorskip("tltorch")
    torch.manual_seed(4)
    shape = (3, 6, 4) if depthwise else (3, 5, 6, 4)
    theirs = tltorch.FactorizedTensor.new(
        shape, rank=0.5, factorization="Complex" + kind.upper().replace("TUCKER", "Tucker"), dtype=torch.cfloat
    )
    theirs.normal_(0, 1)
    parts = [x.detach() for x in theirs.factors]
    if kind == "cp":
        ours = CP(theirs.weights.detach(), tuple(parts))
    else:
        ours = Tucker(theirs.core.detach(), tuple(parts)) if kind == "tucker" else TT(tuple(parts))
    torch.testing.assert_close(to_dense(ours), theirs.to_tensor().detach())
    inputs = torch.randn(2, 3, 12, 10)
    torch.testing.assert_close(spectral_conv(inputs, ours), spectral_conv(inputs, to_dense(ours)), rtol=1e-4, atol=1e-4)


def dense_as(kind: str, dense: Tensor):
    """The same tensor at full rank."""
    eyes = [torch.eye(n, dtype=dense.dtype) for n in dense.shape]
    if kind == "tucker":
        return Tucker(dense, tuple(eyes))
    if kind == "tt":  # every rank the product of the sizes before: identities up to the last core
        cores, before = [], 1
        for n in dense.shape[:-1]:
            cores.append(torch.eye(before * n, dtype=dense.dtype).reshape(before, n, before * n))
            before *= n
        return TT((*cores, dense.reshape(before, dense.shape[-1], 1)))
    index = torch.cartesian_prod(*(torch.arange(n) for n in dense.shape))
    return CP(dense.flatten(), tuple(eye[:, index[:, i]] for i, eye in enumerate(eyes)))


@pytest.mark.parametrize("kind", ["cp", "tucker", "tt"])
@pytest.mark.parametrize("batch", [1, 50])
def test_full_rank_is_the_dense_weight(kind, batch):
    generator = torch.Generator().manual_seed(6)
    dense = torch.randn(2, 3, 4, 3, dtype=torch.complex128, generator=generator)
    inputs = torch.randn(batch, 2, 8, 7, dtype=torch.float64, generator=generator)
    factorised = dense_as(kind, dense)
    torch.testing.assert_close(to_dense(factorised), dense, rtol=0, atol=1e-14)
    got, expected = spectral_conv(inputs, factorised), spectral_conv(inputs, dense)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


def test_low_rank_never_forms_the_dense_weight():
    """Rank 4 of 32 channels, a batch of two: mixing keeps the factors apart. A batch of 1000 and rank 32: formed."""
    low = Tucker(
        torch.randn(4, 4, 5, 5), (torch.randn(32, 4), torch.randn(32, 4), torch.randn(8, 5), torch.randn(9, 5))
    )
    kept = mixing_of(low, 2, batch=2)
    assert kept.left is not None
    assert kept.middle.shape == (72, 4, 4)
    full = Tucker(
        torch.randn(32, 32, 5, 5), (torch.randn(32, 32), torch.randn(32, 32), torch.randn(8, 5), torch.randn(9, 5))
    )
    assert mixing_of(full, 2, batch=1000).left is None


def test_depthwise_is_the_diagonal_of_a_dense_weight():
    generator = torch.Generator().manual_seed(7)
    inputs = torch.randn(2, 3, 12, 10, dtype=torch.float64, generator=generator)
    weight = torch.randn(3, 6, 4, dtype=torch.complex128, generator=generator)
    dense = torch.diag_embed(weight.permute(1, 2, 0)).permute(2, 3, 0, 1).contiguous()
    torch.testing.assert_close(spectral_conv(inputs, weight), spectral_conv(inputs, dense), rtol=0, atol=1e-13)


def test_planes_are_the_complex_weight():
    case = next(c for c in cases() if c.name == "planes")
    assert isinstance(case.weight, Planes)
    got = spectral_conv(case.inputs, case.weight, case.bias)
    torch.testing.assert_close(got, spectral_conv(case.inputs, to_dense(case.weight), case.bias), rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", ["2d channel", "cp channel", "tucker fourier", "tt fourier wide batch"])
def test_gradients_are_derivatives(name):
    case = next(c for c in cases() if c.name == name)
    parts = [x.requires_grad_() for x in tensors_of(case.weight)]
    inputs = case.inputs[:1].clone().requires_grad_()

    def rebuilt(*given):
        if isinstance(case.weight, Tensor):
            return given[0]
        return {
            CP: lambda: CP(given[0], given[1:]),
            Tucker: lambda: Tucker(given[0], given[1:]),
            TT: lambda: TT(given),
        }[type(case.weight)]()

    def function(u, *given):
        return spectral_conv(u, rebuilt(*given), case.bias, output_shape=case.output_shape, basis=case.basis)

    assert torch.autograd.gradcheck(function, (inputs, *parts), fast_mode=True)
