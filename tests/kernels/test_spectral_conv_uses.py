"""The spectral convolution under torch's transformations and exports, and its answers to unfit input."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from resolvent.kernels._factors import CP, TT, Planes, Tucker
from resolvent.kernels.spectral_conv import cases, spectral_conv, spectral_conv_reference
from torch import Tensor, nn

NAMED = {case.name: case for case in cases()}
SEEN = ["1d", "2d odd modes", "2d finer and coarser", "3d", "2d channel", "cosine", "tucker fourier", "depthwise"]


def called(case, inputs: Tensor | None = None) -> Tensor:
    inputs = case.inputs if inputs is None else inputs
    return spectral_conv(inputs, case.weight, case.bias, output_shape=case.output_shape, basis=case.basis)


def by_reference(case) -> Tensor:
    return spectral_conv_reference(case.inputs, case.weight, case.bias, case.output_shape, case.basis)


@pytest.mark.parametrize("name", SEEN)
def test_vmap_is_a_loop(name):
    case = NAMED[name]
    several = torch.stack([case.inputs, 2 * case.inputs, case.inputs.flip(0)])
    got = torch.func.vmap(lambda u: called(case, u))(several)
    torch.testing.assert_close(got, torch.stack([called(case, u) for u in several]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", SEEN)
def test_jvp_is_the_linear_map_itself(name):
    case = NAMED[name]
    tangent = torch.linspace(-1, 1, case.inputs.numel(), dtype=torch.float64).reshape(case.inputs.shape)
    value, derivative = torch.func.jvp(lambda u: called(case, u), (case.inputs,), (tangent,))
    torch.testing.assert_close(value, called(case), rtol=0, atol=1e-12)
    linear = called(case, tangent) - called(case, torch.zeros_like(tangent))
    torch.testing.assert_close(derivative, linear, rtol=0, atol=1e-12)


def test_batched_gradients_and_jacobian():
    """One row of a Jacobian after another, and torch.func's, both against the linear map on unit vectors."""
    case = NAMED["1d"]
    inputs, weight = case.inputs[:1, :1, :8].clone(), case.weight[:1, :1, :4].clone()
    jacobian = torch.func.jacrev(lambda u: spectral_conv(u, weight))(inputs).reshape(8, 8)
    columns = spectral_conv(torch.eye(8, dtype=torch.float64)[:, None], weight)[:, 0].t()
    torch.testing.assert_close(jacobian, columns, rtol=0, atol=1e-13)
    rows = torch.autograd.functional.jacobian(lambda u: spectral_conv(u, weight), inputs).reshape(8, 8)
    torch.testing.assert_close(rows, columns, rtol=0, atol=1e-13)


COMPILED = """
import torch
from resolvent.kernels import spectral_conv
from resolvent.kernels.spectral_conv import cases

for case in cases():
    if case.name not in ("2d odd modes", "2d channel", "tucker fourier"):
        continue
    def plain(u):
        return spectral_conv(u, case.weight, case.bias, output_shape=case.output_shape, basis=case.basis)
    results = []
    for function in (torch.compile(plain, backend="aot_eager", fullgraph=True), plain):
        leaf = case.inputs.clone().requires_grad_()
        outputs = function(leaf)
        results.append((outputs.detach(), *torch.autograd.grad(outputs.square().sum(), leaf)))
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
print("same")
"""


def test_compiled_code_gives_the_same_values_and_gradients():
    """In a process of its own, without the shape checker, whose random numbers no compiler can follow."""
    told = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, timeout=300, check=False)
    assert told.stdout == "same\n", told.stderr


class Layer(nn.Module):
    """A layer with its weight as two real tensors."""

    def __init__(self, case) -> None:
        super().__init__()
        self.real = nn.Parameter(case.weight.real.float().contiguous())
        self.imaginary = nn.Parameter(case.weight.imag.float().contiguous())
        self.bias = nn.Parameter(case.bias.float())

    def forward(self, inputs: Tensor) -> Tensor:
        return spectral_conv(inputs, Planes(self.real, self.imaginary), self.bias)


def test_the_exported_graph_has_no_complex_number():
    case = NAMED["2d odd modes"]
    layer, inputs = Layer(case), case.inputs.float()
    program = torch.export.export(layer, (inputs,), strict=False)
    values = [node.meta["val"] for node in program.graph.nodes if isinstance(node.meta.get("val"), Tensor)]
    assert values
    assert not any(value.is_complex() for value in values)
    torch.testing.assert_close(program.module()(inputs), layer(inputs), rtol=1e-5, atol=1e-5)
    # nothing of the tracing stays in the cache of matrices
    torch.testing.assert_close(called(case), by_reference(case), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["1d", "3d"])
def test_onnx_runs_and_agrees(name, tmp_path):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    case = NAMED[name]
    layer, inputs = Layer(case).eval(), case.inputs.float()
    path = tmp_path / "layer.onnx"
    torch.onnx.export(layer, (inputs,), dynamo=True, verbose=False).save(str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})
    torch.testing.assert_close(torch.from_numpy(got), layer(inputs).detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["2d odd modes", "2d sine"])
def test_strided_inputs_and_weights_give_the_same(name):
    case = NAMED[name]
    expected = called(case)
    strided = torch.stack([case.inputs, case.inputs], dim=-1)[..., 0].transpose(2, 3).contiguous().transpose(2, 3)
    weight = case.weight.transpose(0, 2).contiguous().transpose(0, 2)
    got = spectral_conv(strided, weight, case.bias, basis=case.basis)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-13)
    negated = spectral_conv(case.inputs.neg().neg(), weight.conj().resolve_conj().conj(), case.bias, basis=case.basis)
    torch.testing.assert_close(negated, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("columns", [3, 17])
def test_an_empty_batch_gives_an_empty_result(columns):
    weight = torch.ones(2, 3, 4, columns, dtype=torch.complex64, requires_grad=True)
    got = spectral_conv(torch.zeros(0, 2, 32, 32), weight, output_shape=(16, 40))
    assert got.shape == (0, 3, 16, 40)
    got.sum().backward()
    assert float(weight.grad.abs().sum()) == 0


W1, W2 = torch.ones(2, 2, 5, dtype=torch.complex64), torch.ones(2, 2, 4, 3, dtype=torch.complex64)
UNFIT = {
    "integers": ({"inputs": torch.ones(1, 2, 16, dtype=torch.int64), "weight": W1}, "real floating-point inputs"),
    "complex inputs": ({"inputs": torch.ones(1, 2, 16, dtype=torch.complex64), "weight": W1}, "real floating-point"),
    "integer weight": ({"inputs": torch.ones(1, 2, 16), "weight": torch.ones(2, 2, 5, dtype=torch.int64)}, "floating"),
    "real weight": ({"inputs": torch.ones(1, 2, 16), "weight": W1.real}, "complex .* with a Fourier axis"),
    "complex sine weight": ({"inputs": torch.ones(1, 2, 16), "weight": W1, "basis": "sine"}, "real without"),
    "complex planes": ({"inputs": torch.ones(1, 2, 16), "weight": Planes(W1, W1)}, "Planes of reals"),
    "channels": ({"inputs": torch.ones(1, 3, 16), "weight": W1}, r"got \(1, 3, 16\), \(2, 2, 5\)"),
    "no space": ({"inputs": torch.ones(1, 2), "weight": W1}, "1 to 3 directions"),
    "four directions": (
        {"inputs": torch.ones(1, 2, 4, 4, 4, 4), "weight": torch.ones(2, 2, 1, 1, 1, 1) + 0j},
        "1 to 3",
    ),
    "empty space": ({"inputs": torch.ones(1, 2, 0), "weight": W1}, "keeps"),
    "modes beyond Nyquist": (
        {"inputs": torch.ones(1, 2, 8, 8), "weight": torch.ones(2, 2, 4, 6) + 0j},
        r"has \(8, 5\)",
    ),
    "no modes": ({"inputs": torch.ones(1, 2, 16), "weight": W1[..., :0]}, "at least one"),
    "sine beyond": ({"inputs": torch.ones(1, 2, 6), "weight": W1.real, "basis": "sine"}, r"has \(4,\)"),
    "basis": ({"inputs": torch.ones(1, 2, 16), "weight": W1, "basis": "chebyshev"}, "basis is one of"),
    "too many bases": ({"inputs": torch.ones(1, 2, 16), "weight": W1, "basis": ("fourier", "sine")}, "basis is one of"),
    "bias": ({"inputs": torch.ones(1, 2, 16), "weight": W1, "bias": torch.ones(3)}, "bias 2 entries"),
    "output": ({"inputs": torch.ones(1, 2, 16, 16), "weight": W2, "output_shape": (16, 0)}, "at least"),
    "output directions": (
        {"inputs": torch.ones(1, 2, 16, 16), "weight": W2, "output_shape": (16,)},
        "1 to 3 directions",
    ),
    "planes apart": ({"inputs": torch.ones(1, 2, 16), "weight": Planes(W1.real, W1.real[..., :4])}, "do not fit"),
    "cp ranks": (
        {"inputs": torch.ones(1, 2, 16), "weight": CP(torch.ones(3) + 0j, (W1[0], W1[0], W1[0]))},
        "do not fit",
    ),
    "tucker ranks": ({"inputs": torch.ones(1, 2, 16), "weight": Tucker(W1, (W1[0], W1[0], W1[0]))}, "do not fit"),
    "tt ends": ({"inputs": torch.ones(1, 2, 16), "weight": TT((W1, W1, W1))}, "do not fit"),
    "tt empty": ({"inputs": torch.ones(1, 2, 16), "weight": TT(())}, "do not fit"),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", UNFIT)
def test_unfit_input_is_refused_with_a_reason(name):
    given, message = UNFIT[name]
    with pytest.raises(ValueError, match=message):
        spectral_conv(**given)
