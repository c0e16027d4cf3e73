r"""Spectral convolution: keep the low waves of a real field, mix its channels wave by wave, transform back.

.. math:: y_o(x) = b_o + \mathrm{Re} \sum_k e^{2\pi i k\cdot x} \sum_i W_{io}(k)\,\hat u_i(k),\qquad
          \hat u(k) = \frac1N \sum_x u(x)\,e^{-2\pi i k\cdot x}

x in [0, 1)^d, d = 1, 2 or 3. The weight is complex, of shape ``c_in c_out m_1 ... m_d``:

- axes 1 .. d-1 are centred: index j holds the mode k = j - m // 2 (even m: -m/2 .. m/2-1, odd m: symmetric);
- the last axis is halved, as for a real transform: index j holds k = j; the modes -k are their mirror images, so
  every column but k = 0 counts twice.

This is neuraloperator's layout (fft_norm="forward"), with two of its results put right: the inverse transform onto
another number of nodes pads between the positive and the negative modes (theirs pads behind the negative ones, which
aliases them), and odd sizes keep their phase (theirs shifts the spectrum twice in the same direction).

``basis`` names the waves of each axis: ``fourier``, or sines and cosines for walls (see :mod:`._bases`), where the
wave is :math:`\sin\pi kx`, index j holding k = j + 1, or :math:`\cos\pi kx`, index j holding k = j, and u-hat is the
coefficient of u in these waves. The last *Fourier* axis is then the halved one; without any the weight is real.

The weight may be depthwise (``c m_1 ... m_d``: no channel mixing) or factorised (see :mod:`._factors`).

Onto another grid (``output_shape``), the result is the band-limited interpolation of the result on the input grid:
the Nyquist mode of an even Fourier axis is shared evenly by +n/2 and -n/2 when refining, folded when coarsening.

Forms, equal in values and gradients: :func:`spectral_conv_reference` in plain ``torch.fft`` (walls by odd and even
extension); ``spectral_conv_products``, truncated transforms as products with real matrices; ``spectral_conv_mixed``,
the last axis by truncated FFT; ``spectral_conv_by_fft``, every axis so; on a GPU with Triton ``spectral_conv_triton``.
:func:`spectral_conv` chooses. It computes in the wider precision of inputs and weight, also under autocast.
"""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ._bases import BASES, axes_of, real_forward, real_inverse
from ._by_fft import spectral_conv_by_fft
from ._factors import (
    CP,
    REAL_OF,
    TT,
    Planes,
    Tucker,
    Weight,
    converted,
    is_complex,
    is_depthwise,
    modes_of,
    shape_of,
    tensors_of,
    to_dense,
)
from ._plain import tracing
from ._products import spectral_conv_mixed, spectral_conv_products

# FFTs where every axis keeps so many wavenumbers k >= 0 at least, on up to and beyond so many nodes an axis. Measured,
# batch 8, 32 channels, one thread, float32, values and gradients, least CPU time of spectral_conv_by_fft over that of
# the better form with matrices: 64² nodes with 9 columns 1.24, 13 1.07, 17 0.94, 33 0.85; 128² with 9 1.35, 13 1.10,
# 17 0.98, 25 0.87, 33 0.83; 256² with 17 1.06, 33 0.96; 64² and 128² with 8 and 16 rows but 17 and 33 columns 1.49 and
# 1.42; 1024 nodes with 33 1.03, 129 0.95. (benchmarks/spectral_conv.py --table times the forms over sizes.)
FFT_FROM, FFT_NODES = (17, 33), 128
# Beside walls the matrices of a last Fourier axis give way to the FFT from this many columns on: 33 columns 1.10.
MIXED_FROM = 33


def spectral_conv(
    inputs: Float[Tensor, "batch c_in *space"],
    weight: Weight,
    bias: Float[Tensor, " c_out"] | None = None,
    *,
    output_shape: Sequence[int] | None = None,
    basis: str | Sequence[str] = "fourier",
) -> Float[Tensor, "batch c_out *out"]:
    """Apply the spectral convolution in whichever form is faster here; see the module for the definition.

    output_shape  nodes of the result an axis (default: those of the inputs)
    basis         one word for all axes, or one each: fourier, sine, sine-centres, cosine, cosine-ends
    weight        dense or depthwise tensor, :class:`Planes` (no complex type in the graph), :class:`CP`,
                  :class:`Tucker` or :class:`TT`

    The result has the wider precision of inputs and weight. Raises ``ValueError`` where the weight holds modes the
    inputs cannot resolve, and for shapes and types that do not fit.
    """
    space = tuple(inputs.shape[2:])
    shape = space if output_shape is None else tuple(output_shape)
    words = (basis,) * len(space) if isinstance(basis, str) else tuple(basis)
    _check(inputs, weight, bias, shape, words)
    # Module.double() leaves complex parameters single, and autocast makes inputs half: meet at the wider of the two
    dtype = inputs.dtype
    for part in tensors_of(weight):
        dtype = torch.promote_types(dtype, REAL_OF.get(part.dtype, part.dtype))
    bias = None if bias is None else bias.to(dtype)
    with torch.autocast(inputs.device.type, enabled=False):
        return _apply(inputs.to(dtype), converted(weight, dtype), bias, shape, words)


def _apply(
    inputs: Tensor, weight: Weight, bias: Tensor | None, shape: tuple[int, ...], basis: tuple[str, ...]
) -> Tensor:
    if inputs.shape[0] == 0:  # an FFT refuses empty tensors
        one = torch.cat([inputs, inputs.new_zeros(1, *inputs.shape[1:])])
        return spectral_conv_products(one, weight, bias, shape, basis)[:0]
    if _triton_serves(inputs, weight, basis):
        from ._spectral_triton import spectral_conv_triton

        return spectral_conv_triton(inputs, to_dense(weight), bias, shape)
    return _form(inputs, weight, basis)(inputs, weight, bias, shape, basis)


def _triton_serves(inputs: Tensor, weight: Weight, basis: tuple[str, ...]) -> bool:
    """The kernels know Fourier axes and dense weights (factors are multiplied out before)."""
    return (
        inputs.is_cuda
        and inputs.dtype in (torch.float32, torch.float64)
        and set(basis) == {"fourier"}
        and not is_depthwise(weight, len(basis))
        and importlib.util.find_spec("triton") is not None
    )


def _form(inputs: Tensor, weight: Weight, basis: tuple[str, ...]) -> Callable[..., Tensor]:
    """Matrices wherever a compiler, an export or ``torch.func`` looks on: they are plain real operations."""
    if basis[-1] != "fourier" or isinstance(weight, Planes) or tracing():
        return spectral_conv_products
    axes = axes_of(basis, modes_of(weight, len(basis)))
    if set(basis) == {"fourier"}:
        enough = FFT_FROM[max(inputs.shape[2:]) > FFT_NODES]
        return spectral_conv_by_fft if min(axis.height for axis in axes) >= enough else spectral_conv_products
    return spectral_conv_mixed if axes[-1].modes >= MIXED_FROM else spectral_conv_products


def spectral_conv_reference(
    inputs: Float[Tensor, "batch c_in *space"],
    weight: Weight,
    bias: Float[Tensor, " c_out"] | None,
    shape: Sequence[int],
    basis: Sequence[str] | None = None,
) -> Float[Tensor, "batch c_out *out"]:
    """The plain form: transform, kept waves, mixing, placement, inverse transform; ``basis`` has a word an axis."""
    space, dim, dense = inputs.shape[2:], inputs.ndim - 2, to_dense(weight)
    axes = axes_of(basis or ["fourier"] * dim, dense.shape[-dim:])
    fourier = [i for i, axis in enumerate(axes) if axis.fourier]
    walls = [i for i, axis in enumerate(axes) if not axis.fourier]
    values = inputs
    for i in walls:
        values = real_forward(values, i + 2, axes[i])
    if fourier:
        values = torch.fft.rfftn(values, dim=[i + 2 for i in fourier], norm="forward")
        for i in fourier[:-1]:
            values = values.index_select(i + 2, _centred(axes[i].modes, inputs.device) % space[i])
        values = values.narrow(fourier[-1] + 2, 0, axes[fourier[-1]].modes)
    values = values * dense if dense.ndim == dim + 1 else torch.einsum("bi...,io...->bo...", values, dense)
    for i in fourier[:-1]:
        values = _place(values, i + 2, space[i], shape[i])
        values = torch.fft.ifft(values, dim=i + 2, norm="forward")
    for i in fourier[-1:]:
        values = _halved(values, i + 2, space[i], shape[i])
        values = torch.fft.irfft(values, n=shape[i], dim=i + 2, norm="forward")
    for i in walls:
        values = real_inverse(values, i + 2, axes[i], shape[i])
    return values if bias is None else values + bias.reshape(-1, *(1,) * dim)


def _place(values: Tensor, axis: int, size: int, new_size: int) -> Tensor:
    """Centred rows to the order of an inverse FFT of ``new_size`` nodes, the Nyquist row shared or folded."""
    rows = _centred(values.shape[axis], values.device)
    if size % 2 == 0 and len(rows) == size < new_size:
        nyquist, others = values.split([1, size - 1], dim=axis)
        values = torch.cat([0.5 * nyquist, others, 0.5 * nyquist], dim=axis)
        rows = torch.arange(-size // 2, size // 2 + 1, device=values.device)
    resolved = (2 * rows.abs() <= new_size).nonzero().flatten()
    placed = values.new_zeros(*values.shape[:axis], new_size, *values.shape[axis + 1 :])
    return placed.index_add(axis, rows[resolved] % new_size, values.index_select(axis, resolved))


def _halved(values: Tensor, axis: int, size: int, new_size: int) -> Tensor:
    """Columns ready for an inverse real FFT: real where it must be, Nyquist column shared or folded.

    Some inverse real FFTs do not ignore the imaginary part of the mean and Nyquist columns (pytorch issue 154496).
    """
    kept = min(values.shape[axis], new_size // 2 + 1)
    columns = list(values.narrow(axis, 0, kept).split(1, dim=axis))
    columns[0] = columns[0].real.to(values.dtype)
    nyquist = min(size, new_size) // 2
    if min(size, new_size) % 2 == 0 and 0 < nyquist < len(columns):
        share = 1.0 if size == new_size else (0.5 if size < new_size else 2.0)
        columns[nyquist] = share * columns[nyquist].real.to(values.dtype)
    return torch.cat(columns, dim=axis)


def _centred(count: int, device: torch.device | None = None) -> Tensor:
    return torch.arange(-(count // 2), count - count // 2, device=device)


def _check(inputs: Tensor, weight: Weight, bias: Tensor | None, shape: tuple[int, ...], basis: tuple[str, ...]) -> None:
    space, full = tuple(inputs.shape[2:]), shape_of(weight)
    dim = len(space)
    channels = inputs.shape[1] if inputs.ndim > 1 else None
    fits = dim == len(shape) and len(full) in (dim + 1, dim + 2) and channels == full[0] and 0 not in full[:-dim]
    if not (1 <= dim <= 3 and fits):
        raise ValueError(
            "spectral_conv takes inputs (batch, c_in, *space) and a weight (c_in, c_out, *modes) or, depthwise, "
            f"(c_in, *modes), 1 to 3 directions; got {tuple(inputs.shape)}, {full} and output shape {shape}."
        )
    if len(basis) != dim or not set(basis) <= set(BASES):
        raise ValueError(f"spectral_conv: basis is one of {BASES}, or one of them for each of {dim} axes; got {basis}.")
    _check_types(inputs, weight, basis)
    axes = axes_of(basis, full[-dim:])
    available = tuple(axis.available(n) for axis, n in zip(axes, space, strict=True))
    if any(not 1 <= axis.modes <= there for axis, there in zip(axes, available, strict=True)):
        raise ValueError(
            f"spectral_conv: the weight keeps {full[-dim:]} modes an axis, but a grid of {space} nodes has {available} "
            "(the last Fourier axis is halved). Keep fewer modes, at least one, or use a finer grid."
        )
    c_out = full[0] if len(full) == dim + 1 else full[1]
    least = tuple(2 if axis.basis in ("sine", "cosine-ends") else 1 for axis in axes)
    if any(n < few for n, few in zip(shape, least, strict=True)) or (bias is not None and bias.shape != (c_out,)):
        raise ValueError(
            f"spectral_conv: the output needs at least {least} nodes and the bias {c_out} entries; got output shape "
            f"{shape} and bias {None if bias is None else tuple(bias.shape)}."
        )


def _check_types(inputs: Tensor, weight: Weight, basis: tuple[str, ...]) -> None:
    parts = tensors_of(weight)
    if not inputs.is_floating_point() or not all(part.is_floating_point() or part.is_complex() for part in parts):
        raise ValueError(
            "spectral_conv takes real floating-point inputs and a floating-point or complex weight; got "
            f"{inputs.dtype} and {parts[0].dtype}. Convert with .float(), or pass real and imaginary part as channels."
        )
    mixed = len({part.is_complex() for part in parts}) > 1
    if mixed or is_complex(weight) != ("fourier" in basis) or (isinstance(weight, Planes) and parts[0].is_complex()):
        raise ValueError(
            "spectral_conv: the weight is complex (or Planes of reals) with a Fourier axis and real without; got "
            f"{type(weight).__name__} of {parts[0].dtype} and basis {basis}."
        )


@dataclass(frozen=True)
class Case:
    """One named input of the op, for the parity test and the benchmark alike."""

    name: str
    inputs: Tensor
    weight: Weight
    bias: Tensor | None
    output_shape: tuple[int, ...]
    basis: tuple[str, ...]

    @property
    def dense_fourier(self) -> bool:
        """Whether it is the plain op: Fourier axes, dense weight."""
        return set(self.basis) == {"fourier"} and isinstance(self.weight, Tensor) and not self.depthwise

    @property
    def depthwise(self) -> bool:
        return is_depthwise(self.weight, len(self.basis))


# name, batch, c_in, c_out, sizes, modes as kept (last halved), output sizes, bias
_CASES: tuple[tuple[str, int, int, int, tuple[int, ...], tuple[int, ...], tuple[int, ...], bool], ...] = (
    ("1d", 3, 2, 4, (32,), (9,), (32,), True),
    ("1d odd", 2, 3, 2, (27,), (14,), (27,), False),
    ("1d full", 2, 2, 2, (16,), (9,), (16,), False),
    ("1d long", 4, 8, 8, (1024,), (17,), (1024,), True),
    ("1d finer, nyquist", 2, 2, 2, (16,), (9,), (40,), True),
    ("1d coarser, folded", 2, 2, 2, (32,), (17,), (16,), True),
    ("2d", 2, 3, 4, (16, 20), (8, 5), (16, 20), True),
    ("2d odd sizes", 2, 3, 3, (15, 21), (8, 5), (15, 21), True),
    ("2d odd modes", 2, 2, 3, (16, 16), (7, 4), (16, 16), True),
    ("2d full even", 2, 2, 2, (8, 10), (8, 6), (8, 10), False),
    ("2d full odd", 2, 2, 2, (9, 7), (9, 4), (9, 7), False),
    ("2d twice as fine, nyquist", 2, 2, 2, (8, 10), (8, 6), (16, 20), True),
    ("2d non-integer ratio", 2, 2, 2, (12, 10), (6, 4), (17, 13), True),
    ("2d coarser, folded", 2, 2, 2, (16, 16), (16, 9), (8, 6), True),
    ("2d coarser, odd", 2, 2, 2, (16, 15), (13, 8), (9, 7), False),
    ("2d finer and coarser", 2, 2, 2, (8, 16), (8, 9), (12, 10), False),
    ("3d", 2, 2, 3, (8, 9, 10), (4, 5, 4), (8, 9, 10), True),
    ("3d full, resampled", 1, 2, 2, (6, 8, 6), (6, 8, 4), (9, 6, 12), True),
    ("2d 64 width 32", 8, 32, 32, (64, 64), (16, 9), (64, 64), True),
)

# name, kind of weight, batch, c_in, c_out, basis, sizes, modes as kept, output sizes, bias
_OTHER_CASES: tuple[
    tuple[str, str, int, int, int, tuple[str, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...], bool], ...
] = (
    ("sine", "dense", 2, 3, 2, ("sine",), (17,), (6,), (17,), True),
    ("sine full, finer", "dense", 2, 2, 2, ("sine",), (9,), (7,), (21,), False),
    ("sine coarser", "dense", 2, 2, 2, ("sine",), (17,), (15,), (9,), True),
    ("sine centres", "dense", 2, 2, 3, ("sine-centres",), (12,), (12,), (12,), True),
    ("sine centres coarser", "dense", 2, 2, 3, ("sine-centres",), (12,), (12,), (7,), False),
    ("cosine", "dense", 2, 3, 2, ("cosine",), (16,), (16,), (16,), True),
    ("cosine finer", "dense", 2, 3, 2, ("cosine",), (10,), (10,), (25,), True),
    ("cosine coarser", "depthwise", 2, 3, 3, ("cosine",), (16,), (12,), (8,), False),
    ("cosine ends", "dense", 2, 2, 2, ("cosine-ends",), (9,), (9,), (9,), True),
    ("cosine ends resampled", "dense", 2, 2, 2, ("cosine-ends",), (9,), (9,), (14,), False),
    ("cosine ends coarser", "dense", 2, 2, 2, ("cosine-ends",), (13,), (11,), (7,), False),
    ("2d sine", "dense", 2, 3, 2, ("sine", "sine"), (13, 17), (5, 6), (13, 17), True),
    ("2d cosine", "dense", 2, 3, 2, ("cosine", "cosine"), (12, 11), (5, 11), (16, 9), True),
    ("2d channel", "dense", 2, 2, 3, ("fourier", "sine"), (12, 13), (6, 5), (12, 13), True),
    ("2d channel, last periodic", "dense", 2, 2, 3, ("cosine-ends", "fourier"), (9, 12), (7, 7), (11, 16), True),
    ("3d channel", "dense", 1, 2, 2, ("fourier", "sine-centres", "fourier"), (6, 7, 8), (5, 4, 5), (8, 5, 7), True),
    ("3d first halved", "dense", 1, 2, 2, ("fourier", "sine", "cosine"), (8, 7, 5), (5, 4, 5), (7, 6, 9), True),
    ("depthwise", "depthwise", 2, 3, 3, ("fourier", "fourier"), (12, 10), (6, 4), (17, 13), True),
    ("planes", "planes", 2, 3, 2, ("fourier", "fourier"), (12, 10), (7, 4), (12, 10), True),
    ("planes depthwise", "planes depthwise", 2, 3, 3, ("fourier",), (12,), (5,), (9,), True),
    *(
        (f"{kind} {'channel' if 'sine' in basis else 'fourier'}{' wide batch' if batch > 9 else ''}", kind, batch, 3, 4,
         basis, (10, 11), (6, 5), (10, 11), True)
        for kind in ("cp", "tucker", "tt")
        for basis in (("fourier", "fourier"), ("sine", "fourier"), ("cosine", "sine"))
        for batch in (2, 40)
    ),
    ("cp depthwise", "cp depthwise", 2, 3, 3, ("fourier", "fourier"), (10, 11), (6, 5), (10, 11), True),
    ("tucker depthwise", "tucker depthwise", 2, 3, 3, ("fourier", "fourier"), (10, 11), (6, 5), (10, 11), True),
    ("tt depthwise", "tt depthwise", 2, 3, 3, ("fourier", "fourier"), (10, 11), (6, 5), (10, 11), True),
    ("tucker 3d", "tucker", 2, 2, 3, ("fourier",) * 3, (6, 8, 6), (4, 5, 4), (6, 8, 6), True),
    ("tt 1d", "tt", 2, 2, 3, ("fourier",), (16,), (7,), (16,), True),
    ("cp 3d", "cp", 2, 2, 3, ("fourier",) * 3, (6, 8, 6), (4, 5, 4), (6, 8, 6), True),
)  # fmt: skip


def cases(dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu") -> list[Case]:
    """Named inputs that cover dimensions, sizes, spectra, resampling; then every basis and kind of weight."""
    generator = torch.Generator().manual_seed(20_21)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    made = []
    plain = ((row[0], "dense", *row[1:4], ("fourier",) * len(row[4]), *row[4:]) for row in _CASES)
    for name, kind, batch, c_in, c_out, basis, sizes, modes, shape, biased in (*plain, *_OTHER_CASES):
        inputs = draw(batch, c_in, *sizes).to(device, dtype)
        channels = (c_in,) if "depthwise" in kind else (c_in, c_out)
        weight = _drawn(kind, (*channels, *modes), "fourier" in basis, dtype, device, generator)
        bias = draw(c_out).to(device, dtype) if biased else None
        made.append(Case(name, inputs, weight, bias, shape, basis))
    return made


def _drawn(
    kind: str,
    shape: tuple[int, ...],
    of_complex: bool,
    dtype: torch.dtype,
    device: torch.device | str,
    generator: torch.Generator,
) -> Weight:
    """A weight of this kind, of entries of size one over c_in."""

    def draw(*size: int) -> Tensor:
        real = torch.randn(*size, dtype=torch.float64, generator=generator)
        if not of_complex:
            return real.to(device, dtype)
        imaginary = torch.randn(*size, dtype=torch.float64, generator=generator)
        return torch.complex(real, imaginary).to(device, dtype.to_complex())

    ranks = [min(n, 2 + i % 2) for i, n in enumerate(shape)]
    match kind.split()[0]:
        case "cp":
            return CP(draw(3) / shape[0], tuple(draw(n, 3) for n in shape))
        case "tucker":
            return Tucker(draw(*ranks) / shape[0], tuple(draw(n, r) for n, r in zip(shape, ranks, strict=True)))
        case "tt":
            between = [1, *ranks[1:], 1]
            cores = [draw(a, n, b) for (a, b), n in zip(itertools.pairwise(between), shape, strict=True)]
            return TT((cores[0] / shape[0], *cores[1:]))
    weight = draw(*shape) / shape[0]
    return Planes(weight.real.contiguous(), weight.imag.contiguous()) if kind.startswith("planes") else weight
