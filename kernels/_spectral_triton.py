r"""The spectral convolution on the GPU: Triton kernels near the memory limit, with their own backward passes.

.. math:: y = \sigma\big(\mathcal F^{-1}[W\,\mathcal F u] + S v + b\big)

u, W, b as in :mod:`.spectral_conv` (whose plain form is the reference here); S v an optional pointwise channel mixing
of v (default: u itself), sigma an optional GELU.

Three kernels where the transform of a plane fits on the chip (one analysis, one product per mode, one synthesis): the
field is read once and written once, and what lies between the transforms of the last two axes stays there. Bytes
moved, float32, batch B, channels C (in and out), n nodes (n_1 on the first axis), m modes (m_2 m_3 on the axes behind
the first); what neighbouring programs read again comes from the cache and is not counted:

    fused layer         8 B C n + 8 C C m + 32 B C m      (field in and out, weight, spectra written and read once)
    here, 1 and 2 axes  the same
    with skip product   both: + 4 B C n to read the skip; here, 2 axes: + 16 B C n_1 m_2, as a program then needs all
                        channels of a line and the rows of the synthesis pass memory
    three axes          + 32 B C n_1 m_2 m_3 (the first axis has kernels of its own)
    planes too large    + 32 B C n_1 m_2 (more than 64 modes an axis: one axis after the other)
    backward            the adjoint of a synthesis is an analysis with the same tables and vice versa, so: the same with
                        8 C C m and 8 B C m more, for the gradient of the weight. A skip product or an activation
                        costs one pass of its own over the gradient

:func:`bytes_moved` says it for a shape. Precision: ``tf32x3`` (three tensor-core products for one, error as float32),
``ieee`` (float32 or float64 multiply-adds), ``bf16`` (operands of all transforms rounded, sums in float32). Channels
are mixed per mode in plain float32 or float64 arithmetic in every case. float64 is always ``ieee``.

Gradients of a factorised weight (CP, Tucker, TT) follow by the chain rule from that of the dense weight, which autograd
does where the weight is reconstructed with torch: reconstruction costs as much memory traffic as reading the weight.
Second derivatives are refused by torch (no formula is registered); ``torch.func`` transforms and forward-mode tangents
go to the reference, with one warning.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float
from torch import Tensor

from ._triton_tables import Tables, fits_on_chip

_COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}
PRECISIONS = ("tf32x3", "ieee", "bf16")


def spectral_conv_triton(
    inputs: Float[Tensor, "batch c_in *space"],
    weight: Complex[Tensor, "c_in c_out *modes"],
    bias: Float[Tensor, " c_out"] | None,
    shape: Sequence[int],
    *,
    skip: Float[Tensor, "batch c_skip *out"] | None = None,
    skip_weight: Float[Tensor, "c_out c_skip"] | None = None,
    activation: str | None = None,
    precision: str = "tf32x3",
    deterministic: bool = False,
) -> Float[Tensor, "batch c_out *out"]:
    """``activation(spectral convolution + skip_weight @ skip + bias)`` on ``shape`` nodes, as Triton kernels.

    ``skip_weight`` without ``skip`` mixes the inputs themselves; that is also the faster way, as their two gradients
    are then one. ``activation`` is None or "gelu". inputs may be float32, float64 or bfloat16 (sums are float32 then).
    ``deterministic`` fixes the block sizes instead of tuning them by time. Raises ``ValueError`` on unfit arguments
    and off the GPU, ``ModuleNotFoundError`` without Triton.
    """
    shape = tuple(shape)
    _check(inputs, weight, shape, skip, skip_weight, activation, precision)
    if skip is inputs:
        skip = None
    dtype = _sums(inputs)
    parts = torch.view_as_real(weight.to(_COMPLEX[dtype]).resolve_conj())
    bias, skip_weight = (None if x is None else x.to(dtype) for x in (bias, skip_weight))
    skip = None if skip is None else skip.to(inputs.dtype)
    if _transformed(inputs, weight, bias, skip, skip_weight):
        _say_once("torch.func transforms and forward-mode derivatives of spectral_conv_triton use the reference form")
        return _plain(inputs, torch.view_as_complex(parts), bias, shape, skip, skip_weight, activation)
    _check_device(inputs)
    given = [x for x in (inputs, parts, bias, skip, skip_weight) if x is not None]
    keep = activation is not None and torch.is_grad_enabled() and any(x.requires_grad for x in given)
    precision = "ieee" if dtype == torch.float64 else precision
    return torch.ops.resolvent.spectral_conv(
        inputs, parts, bias, skip, skip_weight, shape, activation or "", precision, deterministic, keep
    )[0]


def bytes_moved(
    batch: int, c_in: int, c_out: int, space: Sequence[int], modes: Sequence[int], *, skip: bool = False
) -> dict[str, int]:
    """Bytes of one forward call in float32 on one grid: of the fully ``fused`` layer, and of the kernels ``here``."""
    nodes, kept = math.prod(space), math.prod(modes)
    fused = 4 * batch * nodes * (c_in + c_out) + 8 * c_in * c_out * kept + 16 * batch * kept * (c_in + c_out)
    fused += 4 * batch * nodes * c_in * skip
    fits = len(space) > 1 and fits_on_chip(Tables(tuple(space), tuple(space), tuple(modes), inverse=False))
    extra = 0
    for channels, on_chip in ((c_in, fits), (c_out, fits and not skip)):
        for axis in range(len(space) - (2 if on_chip else 1)):  # each transform that has its own kernel, once more
            extra += 16 * batch * channels * math.prod(space[: axis + 1]) * math.prod(modes[axis + 1 :])
    return {"fused": fused, "here": fused + extra}


def _sums(inputs: Tensor) -> torch.dtype:
    return torch.float64 if inputs.dtype == torch.float64 else torch.float32


def _tables(space: Sequence[int], weight: Tensor, shape: Sequence[int]) -> tuple[Tables, Tables]:
    space, modes = tuple(space), tuple(weight.shape[2:-1])
    return Tables(space, space, modes, inverse=False), Tables(tuple(shape), space, modes, inverse=True)


_SCHEMA = (
    "(Tensor inputs, Tensor weight, Tensor? bias, Tensor? skip, Tensor? skip_weight, int[] shape, str activation, "
    "str precision, bool deterministic, bool keep) -> (Tensor, Tensor, Tensor)"
)
_SCHEMA_BACKWARD = (
    "(Tensor gradient, Tensor weight, Tensor spectrum, Tensor before, Tensor? source, Tensor? skip_weight, "
    "bool own, int[] space, int[] shape, str activation, str precision, bool deterministic, bool[] wanted) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor)"
)


def _run_forward(inputs, weight, bias, skip, skip_weight, shape, activation, precision, deterministic, keep):
    """Result, spectrum of the inputs, argument of the activation (the last two for the gradients)."""
    from . import _triton_launch as run

    how = run.How(precision, _sums(inputs), deterministic)
    inputs, weight = inputs.contiguous(), weight.contiguous()
    there, back = _tables(inputs.shape[2:], weight, shape)
    spectrum = run.analyse(inputs, there, how)
    mixed = run.mix(spectrum, weight, "values", (len(inputs), *weight.shape[1:]), how)
    source = inputs if skip is None else skip.contiguous()
    extra = run.Epilogue(
        None if bias is None else bias.contiguous(),
        None if skip_weight is None else source,
        skip_weight,
        activation,
        keep,
    )
    result, before = run.synthesise(mixed, back, how, inputs.dtype, extra)
    return result, spectrum, before


_forward = torch.library.custom_op("resolvent::spectral_conv", _run_forward, mutates_args=(), schema=_SCHEMA)


@_forward.register_fake
def _(inputs, weight, bias, skip, skip_weight, shape, activation, precision, deterministic, keep):
    batch, (c_in, c_out, *modes, _) = inputs.shape[0], weight.shape
    result = inputs.new_empty(batch, c_out, *shape)
    spectrum = inputs.new_empty(batch, c_in, *modes, 2, dtype=_sums(inputs))
    return result, spectrum, torch.empty_like(result) if keep else inputs.new_empty(0)


def _run_backward(
    gradient, weight, spectrum, before, source, skip_weight, own, space, shape, activation, precision, deterministic,
    wanted,
):  # fmt: skip
    """Gradients of inputs, weight, bias, skip and skip weight; empty where not wanted.

    The adjoint of a synthesis is an analysis with the same tables, and the other way round. ``own`` says that the skip
    product's ``source`` is the inputs: its gradient is then the skip product of the adjoint synthesis.
    """
    from . import _triton_launch as run

    how = run.How(precision, _sums(gradient), deterministic)
    there, back = _tables(space, weight, shape)
    results = [gradient.new_empty(0) for _ in range(5)]
    gradient = gradient.contiguous()
    if wanted[4]:
        results[4], gradient = run.skip_gradient(gradient, before, source.contiguous(), activation, how)
    elif activation:
        gradient = torch.ops.aten.gelu_backward(gradient, before)
    if any(wanted[:3]):
        rising = run.analyse(gradient, back, how)
    if wanted[0]:
        falling = run.mix(rising, weight.contiguous(), "inputs", spectrum.shape, how)
        extra = run.Epilogue(skip=gradient, skip_weight=skip_weight.t()) if own else run.Epilogue()
        results[0], _ = run.synthesise(falling, there, how, gradient.dtype, extra)
    if wanted[1]:
        results[1] = run.mix(spectrum, rising, "weight", weight.shape, how)
    if wanted[2]:  # the mode 0 of the gradient is its sum
        mean = (slice(None), *(m // 2 for m in weight.shape[2:-2]), 0)
        results[2] = rising[..., 0].sum(dim=0)[mean].contiguous()
    if wanted[3]:
        matrix = skip_weight.t().to(gradient.dtype)
        results[3] = torch.matmul(matrix, gradient.flatten(2)).unflatten(2, gradient.shape[2:])
    return tuple(results)


_backward = torch.library.custom_op(
    "resolvent::spectral_conv_backward", _run_backward, mutates_args=(), schema=_SCHEMA_BACKWARD
)


@_backward.register_fake
def _(
    gradient, weight, spectrum, before, source, skip_weight, own, space, shape, activation, precision, deterministic,
    wanted,
):  # fmt: skip
    batch, (c_in, c_out) = gradient.shape[0], weight.shape[:2]
    shapes = [
        (batch, c_in, *space),
        weight.shape,
        (c_out,),
        () if source is None else source.shape,
        () if skip_weight is None else skip_weight.shape,
    ]
    kinds = [gradient.dtype, weight.dtype, weight.dtype, gradient.dtype, weight.dtype]
    return tuple(
        gradient.new_empty(shape if asked else (0,), dtype=kind if asked else gradient.dtype)
        for shape, kind, asked in zip(shapes, kinds, wanted, strict=True)
    )


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    values, weight, _, skip, skip_weight, shape, activation, precision, deterministic, _ = inputs
    source = None if skip_weight is None else (values if skip is None else skip)
    ctx.set_materialize_grads(False)  # no zeros, as large as a field, for outputs that nobody differentiates
    ctx.save_for_backward(weight, output[1], output[2], source, skip_weight)
    own = skip_weight is not None and skip is None
    ctx.options = (own, list(values.shape[2:]), list(shape), activation, precision, deterministic)


def _differentiate(ctx: Any, gradient: Tensor | None, *_: Any) -> tuple[Any, ...]:
    if gradient is None:  # nothing downstream depends on the result
        return (None,) * 10
    wanted = [bool(x) for x in ctx.needs_input_grad[:5]]
    results = torch.ops.resolvent.spectral_conv_backward(gradient, *ctx.saved_tensors, *ctx.options, wanted)
    return (*(x if asked else None for x, asked in zip(results, wanted, strict=True)), *(None,) * 5)


_forward.register_autograd(_differentiate, setup_context=_remember)


def layer_on_meta(
    batch: int,
    width: int,
    space: Sequence[int],
    modes: Sequence[int],
    *,
    precision: str,
    dtype: torch.dtype,
    skip: bool,
) -> None:
    """Both passes of a layer on meta tensors: every launch is made, for :mod:`._triton_report` to note."""
    sums = torch.promote_types(dtype, torch.float32)
    inputs = torch.empty(batch, width, *space, dtype=dtype, device="meta")
    weight = torch.empty(width, width, *modes, 2, dtype=sums, device="meta")
    mixing = weight.new_empty(width, width) if skip else None
    options = [list(space), "gelu" if skip else "", precision, False]
    given: list[Any] = [inputs, weight, weight.new_empty(width), None, mixing, *options, skip]
    result, spectrum, before = _run_forward(*given)
    source, wanted = inputs if skip else None, [True, True, True, False, skip]
    given = [result, weight, spectrum, before, source, mixing, skip, list(space), *options, wanted]
    _run_backward(*given)


def _plain(
    inputs: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    shape: tuple[int, ...],
    skip: Tensor | None,
    skip_weight: Tensor | None,
    activation: str | None,
) -> Tensor:
    """The same in plain torch."""
    from .spectral_conv import spectral_conv_reference

    values = inputs.to(weight.dtype.to_real())
    result = spectral_conv_reference(values, weight, bias, shape)
    if skip_weight is not None:
        source = values if skip is None else skip.to(values.dtype)
        result = result + torch.einsum("oi,bi...->bo...", skip_weight, source)
    return (F.gelu(result) if activation else result).to(inputs.dtype)


def _transformed(*tensors: Tensor | None) -> bool:
    """Whether a ``torch.func`` transform or a forward-mode tangent is at work. (Compiled code has neither here.)"""
    if torch.compiler.is_compiling():
        return False
    given = [x for x in tensors if x is not None]
    if any(torch._C._functorch.is_functorch_wrapped_tensor(x) for x in given):
        return True
    return any(torch.autograd.forward_ad.unpack_dual(x).tangent is not None for x in given)


@functools.cache
def _say_once(message: str) -> None:
    warnings.warn(message, stacklevel=3)


def _check_device(inputs: Tensor) -> None:
    if inputs.device.type == "cuda":
        return
    from . import _triton_launch as run

    if not run.interpreted():
        raise ValueError(
            f"spectral_conv_triton runs on a CUDA device, got inputs on {inputs.device}. Use spectral_conv, which "
            "chooses the form by device (or TRITON_INTERPRET=1, to check the kernels on the CPU)."
        )


def _check(
    inputs: Tensor,
    weight: Tensor,
    shape: tuple[int, ...],
    skip: Tensor | None,
    skip_weight: Tensor | None,
    activation: str | None,
    precision: str,
) -> None:
    _check_shapes(inputs, weight, shape)
    if inputs.dtype not in (torch.float32, torch.float64, torch.bfloat16) or not weight.is_complex():
        raise ValueError(
            "spectral_conv_triton takes float32, float64 or bfloat16 inputs and a complex weight; got "
            f"{inputs.dtype} and {weight.dtype}."
        )
    if activation not in (None, "gelu") or precision not in PRECISIONS:
        raise ValueError(
            f"spectral_conv_triton: activation is None or 'gelu', precision one of {PRECISIONS}; got {activation!r} "
            f"and {precision!r}."
        )
    if inputs.dtype == torch.float64 and precision == "bf16":
        raise ValueError("spectral_conv_triton: float64 inputs and precision 'bf16' contradict each other.")
    _check_skip(inputs if skip is None else skip, skip is not None, skip_weight, (len(inputs), weight.shape[1]), shape)


def _check_shapes(inputs: Tensor, weight: Tensor, shape: tuple[int, ...]) -> None:
    space, modes = tuple(inputs.shape[2:]), tuple(weight.shape[2:])
    if not (1 <= len(space) <= 3 and len(space) == len(modes) == len(shape) and inputs.shape[1] == weight.shape[0]):
        raise ValueError(
            "spectral_conv_triton takes inputs (batch, c_in, *space) and a weight (c_in, c_out, *modes), 1 to 3 "
            f"directions; got {tuple(inputs.shape)}, {tuple(weight.shape)} and output shape {shape}."
        )
    available = (*space[:-1], space[-1] // 2 + 1)
    if min(shape) < 1 or any(not 1 <= kept <= there for kept, there in zip(modes, available, strict=True)):
        raise ValueError(
            f"spectral_conv_triton: a grid of {space} nodes has {available} modes (the last axis is halved), of which "
            f"at least one is kept; got a weight of {modes} modes and an output of {shape} nodes."
        )


def _check_skip(
    source: Tensor, given: bool, skip_weight: Tensor | None, sizes: tuple[int, int], shape: tuple[int, ...]
) -> None:
    """``sizes`` are batch and c_out."""
    if skip_weight is None:
        if given:
            raise ValueError("spectral_conv_triton: skip needs a skip_weight (c_out, c_skip).")
        return
    expected, got = (sizes[0], skip_weight.shape[-1], *shape), tuple(source.shape)
    if skip_weight.ndim != 2 or len(skip_weight) != sizes[1] or expected != got:
        raise ValueError(
            f"spectral_conv_triton mixes skip of {expected} on the output grid with a skip_weight "
            f"({sizes[1]}, c_skip); got {got} and {tuple(skip_weight.shape)}."
        )
