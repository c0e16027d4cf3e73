"""The Triton kernels in Triton's interpreter, on the CPU, against the plain form in float64.

The interpreter is chosen when triton is first imported, so the checks run in a process of their own: the first tests
start it, all others belong to it. A program costs it 30 to 60 ms: fields are small and odd.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import warnings

import pytest
import torch
from resolvent.kernels._spectral_triton import _plain, _say_once, bytes_moved, spectral_conv_triton
from resolvent.kernels.spectral_conv import cases
from torch import Tensor

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
inside = pytest.mark.skipif(not INTERPRETED, reason="belongs to the process that the first tests start")
CASES = [
    pytest.param(
        case,
        id=case.name,
        marks=[inside] if case.inputs.numel() < 2500 and case.inputs.ndim < 5 else [inside, pytest.mark.slow],
    )
    for case in cases()
    if case.dense_fourier
]


def run_inside(*arguments: str) -> None:
    pytest.importorskip("triton")
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *arguments, __file__]
    # CUDA hidden: pointers of the interpreter are the host's
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


@pytest.mark.skipif(INTERPRETED, reason="is the one that starts the others")
def test_kernels_in_the_interpreter():
    run_inside("-m", "not slow")


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="is the one that starts the others")
def test_larger_cases_in_the_interpreter():
    run_inside("-m", "slow")


def random(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 11) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed + sum(shape)))


def differ(got: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> float:
    """Largest relative L2 difference."""
    return max(
        float((a.detach().to(b.dtype) - b).norm() / b.norm().clamp_min(1e-300))
        for a, b in zip(got, (x.detach() for x in expected), strict=True)
    )


def both(inputs, weight, bias, shape, *, skip=None, skip_weight=None, activation=None, dtype=torch.float64, **options):
    """Values and all gradients: of the kernels, in ``dtype``; of the plain form, in float64."""

    def derived(form, real, complex_) -> tuple[Tensor, ...]:
        def typed(x):
            return None if x is None else x.detach().to(complex_ if x.is_complex() else real).requires_grad_()

        given = [typed(x) for x in (inputs, weight, bias, skip, skip_weight)]
        outputs = form(*given)
        cotangent = random(*outputs.shape, seed=3).to(outputs.dtype)
        return (outputs, *torch.autograd.grad(outputs, [x for x in given if x is not None], cotangent))

    def ours(u, w, b, s, m):
        return spectral_conv_triton(u, w, b, shape, skip=s, skip_weight=m, activation=activation, **options)

    wide = torch.promote_types(dtype, torch.float32).to_complex()
    return derived(ours, dtype, wide), derived(
        lambda u, w, b, s, m: _plain(u, w, b, shape, s, m, activation), torch.float64, torch.complex128
    )


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_those_of_the_plain_form(case):
    got, expected = both(case.inputs, case.weight, case.bias, case.output_shape)
    assert differ(got, expected) < 1e-14  # sums of at most 4096 doubles


@inside
@pytest.mark.parametrize(
    ("name", "activation"),
    [
        ("1d odd", "gelu"),
        ("2d odd sizes", "gelu"),
        ("2d full even", None),
        ("2d non-integer ratio", "gelu"),
        pytest.param("3d full, resampled", "gelu", marks=pytest.mark.slow),
    ],
)
def test_skip_bias_and_activation_in_the_epilogue(name, activation):
    """The skip is the inputs where grids agree, else a field of its own with other channels."""
    case = next(c for c in cases() if c.name == name)
    c_in, c_out = case.weight.shape[:2]
    same = case.output_shape == tuple(case.inputs.shape[2:])
    skip = None if same else random(len(case.inputs), 3, *case.output_shape)
    skip_weight = random(c_out, c_in if same else 3)
    bias = random(c_out)
    got, expected = both(
        case.inputs, case.weight, bias, case.output_shape, skip=skip, skip_weight=skip_weight, activation=activation
    )
    assert differ(got, expected) < 1e-14


@inside
def test_activation_without_skip():
    case = next(c for c in cases() if c.name == "2d odd modes")
    got, expected = both(case.inputs, case.weight, case.bias, case.output_shape, activation="gelu")
    assert differ(got, expected) < 1e-14


@inside
@pytest.mark.parametrize(("batch", "c_in", "c_out"), [(9, 9, 9), (2, 1, 66)])
def test_several_blocks_in_every_direction(batch, c_in, c_out):
    """More samples, channels, modes and nodes than one program takes."""
    weight = torch.complex(random(c_in, c_out, 40), random(c_in, c_out, 40, seed=2))
    got, expected = both(random(batch, c_in, 80), weight, None, (80,), skip_weight=random(c_out, c_in))
    assert differ(got, expected) < 1e-14


@inside
def test_three_axes():
    got, expected = both(random(1, 1, 5, 6, 8), random(1, 2, 4, 3, 4) * (1 - 2j), random(2), (5, 6, 8))
    assert differ(got, expected) < 1e-14


@inside
@pytest.mark.parametrize("form", ["split", "chain", "deterministic"])
def test_every_way_through_gives_the_same(form, monkeypatch):
    """Rows of a plane over several programs; planes that do not fit on the chip; fixed block sizes."""
    from resolvent.kernels import _triton_launch as launch
    from resolvent.kernels import _triton_tables as tables

    inputs, weight, bias = random(1, 2, 70, 38), random(2, 3, 6, 5).to(torch.complex128) * (1 + 0.5j), random(3)
    shape = (96, 20)
    if form == "split":
        monkeypatch.setattr(launch, "processors", lambda device: 8)
        assert launch._rows_each(2, 35, inputs.device) == 32
    if form == "chain":
        monkeypatch.setattr(tables, "ON_CHIP", 0)
    got, expected = both(inputs, weight, bias, shape, deterministic=form == "deterministic")
    assert differ(got, expected) < 1e-14


@inside
@pytest.mark.parametrize(("space", "modes"), [((24,), (9,)), ((12, 10), (6, 5))])
@pytest.mark.parametrize(
    ("precision", "bound"), [("tf32x3", 1e-6), ("ieee", 1e-6), ("bf16", 1e-2)], ids=["tf32x3", "ieee", "bf16"]
)
def test_error_in_single_precision(space, modes, precision, bound):
    """The interpreter multiplies tf32x3 in float32; what the three products lose is below 2e-6 by construction."""
    inputs, bias, mixing = random(2, 3, *space), random(5), random(5, 3)
    weight = torch.complex(random(3, 5, *modes), random(3, 5, *modes, seed=5))
    got, expected = both(
        inputs, weight, bias, space, skip_weight=mixing, activation="gelu", dtype=torch.float32, precision=precision
    )
    assert differ(got, expected) < bound
    if precision == "bf16":
        assert differ(got, expected) > 1e-4  # the operands were rounded


@inside
def test_bfloat16_fields():
    inputs, weight = random(2, 3, 20, 24), torch.complex(random(3, 4, 6, 5), random(3, 4, 6, 5, seed=5))
    rounded = inputs.bfloat16()
    got = spectral_conv_triton(rounded, weight.to(torch.complex64), None, (20, 24), precision="bf16")
    expected = _plain(inputs, weight, None, (20, 24), None, None, None)
    assert got.dtype == torch.bfloat16
    assert differ((got,), (expected,)) < 1e-2


@inside
def test_strided_operands_are_read_right():
    inputs = random(20, 3, 2, 18).permute(2, 1, 0, 3)
    weight = torch.complex(random(5, 4, 3, 6), random(5, 4, 3, 6, seed=2)).permute(2, 1, 3, 0).conj()
    skip, mixing, bias = random(2, 20, 18, 3).movedim(-1, 1), random(3, 8)[:, ::2].t(), random(8)[::2]
    got, expected = both(inputs, weight, bias, (20, 18), skip=skip, skip_weight=mixing)
    assert differ(got, expected) < 1e-14


@inside
def test_one_mode_one_channel_and_an_empty_batch():
    got, expected = both(random(1, 1, 5, 6), torch.ones(1, 1, 1, 1, dtype=torch.complex128), None, (5, 6))
    assert differ(got, expected) < 1e-14
    inputs = torch.zeros(0, 2, 8, 8, requires_grad=True)
    weight = torch.ones(2, 3, 4, 3, dtype=torch.complex64, requires_grad=True)
    outputs = spectral_conv_triton(inputs, weight, torch.ones(3), (8, 8))
    assert outputs.shape == (0, 3, 8, 8)
    assert not torch.autograd.grad(outputs.sum(), weight)[0].any()


@inside
def test_gradients_of_factors_follow_from_the_dense_weight():
    """A weight of rank 3 (CP): the gradient of each factor is the contraction of the dense one."""
    factors = [torch.complex(random(n, 3, seed=n), random(n, 3, seed=9 + n)) for n in (2, 4, 6, 5)]
    inputs, cotangent = random(2, 2, 16, 12), random(2, 4, 16, 12)

    def gradients(form) -> tuple[Tensor, ...]:
        given = [f.clone().requires_grad_() for f in factors]
        weight = torch.einsum("ir,or,xr,yr->ioxy", *given)
        return torch.autograd.grad(form(inputs, weight, None, (16, 12)), given, cotangent)

    plain = gradients(lambda u, w, b, s: _plain(u, w, b, s, None, None, None))
    assert (
        differ(tuple(map(torch.view_as_real, gradients(spectral_conv_triton))), tuple(map(torch.view_as_real, plain)))
        < 1e-14
    )


@inside
def test_gradients_are_derivatives():
    inputs = random(1, 1, 7).requires_grad_()
    weight = torch.complex(random(1, 2, 3), random(1, 2, 3, seed=4)).requires_grad_()
    bias, mixing = random(2).requires_grad_(), random(2, 1, seed=6).requires_grad_()

    def function(u, w, b, m):
        return spectral_conv_triton(u, w, b, (7,), skip_weight=m, activation="gelu")

    assert torch.autograd.gradcheck(function, (inputs, weight, bias, mixing), fast_mode=True)


@inside
def test_the_operator_is_registered_as_torch_wants_it():
    """Schema, fake tensors and autograd registration, and the same under a graph of unknown sizes."""
    inputs, weight = random(2, 1, 8).requires_grad_(), random(1, 3, 4, 2).requires_grad_()
    given = (inputs, weight, random(3), None, random(3, 1).requires_grad_(), [8], "gelu", "ieee", False, True)
    torch.library.opcheck(torch.ops.resolvent.spectral_conv.default, given)


@inside
@pytest.mark.usefixtures("unchecked")
def test_compiled_equals_eager():
    inputs, weight = random(2, 2, 8, 6).requires_grad_(), torch.complex(random(2, 3, 4, 3), random(2, 3, 4, 3, seed=1))
    weight.requires_grad_()

    def function(u: Tensor, w: Tensor) -> Tensor:
        return spectral_conv_triton(torch.sin(u), w, None, (8, 6), activation="gelu").square().sum()

    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    expected = torch.autograd.grad(function(inputs, weight), (inputs, weight))
    got = torch.autograd.grad(compiled(inputs, weight), (inputs, weight))
    assert differ(got, expected) < 1e-14


def test_transforms_of_functions_use_the_reference_and_say_so_once():
    inputs, weight = random(3, 1, 2, 8, 6), torch.complex(random(2, 2, 4, 3), random(2, 2, 4, 3, seed=1))

    def function(u: Tensor) -> Tensor:
        return spectral_conv_triton(u, weight, None, (8, 6))

    _say_once.cache_clear()
    with pytest.warns(UserWarning, match="use the reference form"):
        mapped = torch.func.vmap(function)(inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        value, slope = torch.func.jvp(function, (inputs[0],), (inputs[1],))
    expected = torch.stack([_plain(u, weight, None, (8, 6), None, None, None) for u in inputs])
    torch.testing.assert_close(mapped, expected, rtol=0, atol=1e-13)
    torch.testing.assert_close(value, expected[0], rtol=0, atol=1e-13)
    torch.testing.assert_close(slope, expected[1], rtol=0, atol=1e-13)  # the map is linear


def test_bytes_of_the_published_example():
    """Batch 16, 64 channels, 256 x 256 nodes, 32 modes at 3.0 TB/s: fused 191 us, chain of products 238 us (issue 9)."""
    moved = bytes_moved(16, 64, 64, (256, 256), (32, 17))
    assert math.isclose(moved["fused"] / 3.0e6, 191, abs_tol=0.5)
    assert moved["here"] == moved["fused"]
    chain = moved["fused"] + 4 * 8 * 16 * 64 * 256 * 17
    assert math.isclose(chain / 3.0e6, 238, abs_tol=0.5)


def call(**changes):
    given = {
        "inputs": torch.zeros(1, 2, 8, 8),
        "weight": torch.ones(2, 3, 4, 3, dtype=torch.complex64),
        "bias": None,
        "shape": (8, 8),
    } | changes
    return spectral_conv_triton(**given)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": torch.ones(2, 3, 9, 3, dtype=torch.complex64)}, r"has \(8, 5\) modes"),
        ({"weight": torch.ones(3, 3, 4, 3, dtype=torch.complex64)}, "1 to 3 directions"),
        ({"shape": (8, 0)}, "output of"),
        ({"inputs": torch.zeros(1, 2, 8, 8, dtype=torch.long)}, "float32, float64 or bfloat16"),
        ({"weight": torch.ones(2, 3, 4, 3)}, "complex weight"),
        ({"activation": "relu"}, "None or 'gelu'"),
        ({"precision": "tf32"}, "one of"),
        ({"inputs": torch.zeros(1, 2, 8, 8, dtype=torch.float64), "precision": "bf16"}, "contradict"),
        ({"skip": torch.zeros(1, 2, 8, 8)}, "needs a skip_weight"),
        ({"skip_weight": torch.zeros(3, 4)}, "mixes skip"),
        ({"skip_weight": torch.zeros(3, 2), "shape": (16, 16)}, "mixes skip"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_unfit_arguments_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        call(**changes)


@pytest.mark.skipif(INTERPRETED, reason="there the CPU will do")
def test_off_the_gpu_it_says_what_to_use():
    pytest.importorskip("triton")
    with pytest.raises(ValueError, match="Use spectral_conv"):
        call()


@pytest.mark.skipif(INTERPRETED, reason="triton is here")
def test_importing_does_not_need_triton():
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "from resolvent.kernels._spectral_triton import spectral_conv_triton\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
