r"""Spectral convolution: keep the low Fourier modes of a real field, mix its channels mode by mode, transform back.

.. math:: y_o(x) = b_o + \mathrm{Re} \sum_k e^{2\pi i k\cdot x} \sum_i W_{io}(k)\,\hat u_i(k),\qquad
          \hat u(k) = \frac1N \sum_x u(x)\,e^{-2\pi i k\cdot x}

x in [0, 1)^d, d = 1, 2 or 3. The weight is complex, of shape ``c_in c_out m_1 ... m_d``:

- axes 1 .. d-1 are centred: index j holds the mode k = j - m // 2 (even m: -m/2 .. m/2-1, odd m: symmetric);
- the last axis is halved, as for a real transform: index j holds k = j; the modes -k are their mirror images, so
  every column but k = 0 counts twice.

This is neuraloperator's layout (fft_norm="forward"), with two of its results put right: the inverse transform onto
another number of nodes pads between the positive and the negative modes (theirs pads behind the negative ones, which
aliases them), and odd sizes keep their phase (theirs shifts the spectrum twice in the same direction).

Onto another grid (``output_shape``), the result is the band-limited interpolation of the result on the input grid:
the Nyquist mode of an even axis is shared evenly by +n/2 and -n/2 when refining, folded when coarsening.

Two forms, equal in values and gradients: :func:`spectral_conv_reference` in plain ``torch.fft``, and
:func:`spectral_conv_products`, truncated transforms as products with real matrices, which computes kept modes only.
:func:`spectral_conv` chooses. It computes in the wider precision of inputs and weight, also under autocast.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float
from torch import Tensor

# Products win while an axis keeps at most this many modes, positive and negative. Measured on one CPU core, values and
# gradients, time of torch.fft over time of products (benchmarks/fno_training_step.py --kernels): 128² nodes with 16
# modes 1.6, 32 modes 1.7, 64 modes 0.95, 128 modes 0.94; 256² with 64 modes 1.4, 128 modes 0.7; 4096 nodes in one
# dimension with 16 modes 3.9, 64 modes 1.1, 256 modes 0.7; 64³ with 16 modes 2.0.
MOST_MODES = 64


def spectral_conv(
    inputs: Float[Tensor, "batch c_in *space"],
    weight: Complex[Tensor, "c_in c_out *modes"],
    bias: Float[Tensor, " c_out"] | None = None,
    *,
    output_shape: Sequence[int] | None = None,
) -> Float[Tensor, "batch c_out *out"]:
    """Apply the spectral convolution in whichever form is faster here; see the module for the definition.

    ``output_shape`` is the number of nodes of the result an axis (default: that of the inputs). The result has the
    wider precision of inputs and weight. Raises ``ValueError`` where the weight holds modes the inputs cannot resolve.
    """
    space = tuple(inputs.shape[2:])
    shape = space if output_shape is None else tuple(output_shape)
    _check(inputs, weight, shape)
    form = spectral_conv_products if _prefers_products(inputs, weight) else spectral_conv_reference
    # Module.double() leaves complex parameters single, and autocast makes inputs half: meet at the wider of the two
    dtype = torch.promote_types(inputs.dtype, weight.dtype.to_real())
    bias = None if bias is None else bias.to(dtype)
    with torch.autocast(inputs.device.type, enabled=False):
        return form(inputs.to(dtype), weight.to(dtype.to_complex()), bias, shape)


def spectral_conv_reference(
    inputs: Float[Tensor, "batch c_in *space"],
    weight: Complex[Tensor, "c_in c_out *modes"],
    bias: Float[Tensor, " c_out"] | None,
    shape: Sequence[int],
) -> Float[Tensor, "batch c_out *out"]:
    """The plain form: real FFT, kept modes, channel mixing, placement, inverse real FFT."""
    space, dim = inputs.shape[2:], inputs.ndim - 2
    values = torch.fft.rfftn(inputs, dim=tuple(range(-dim, 0)), norm="forward")
    for axis in range(2, dim + 1):
        rows = _centred(weight.shape[axis], inputs.device) % space[axis - 2]
        values = values.index_select(axis, rows)
    values = torch.einsum("bi...,io...->bo...", values[..., : weight.shape[-1]], weight)
    for axis in range(2, dim + 1):
        values = _place(values, axis, space[axis - 2], shape[axis - 2])
    if dim > 1:
        values = torch.fft.ifftn(values, dim=tuple(range(-dim, -1)), norm="forward")
    values = torch.fft.irfft(_halved(values, space[-1], shape[-1]), n=shape[-1], norm="forward")
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


def _halved(values: Tensor, size: int, new_size: int) -> Tensor:
    """Columns ready for an inverse real FFT: real where it must be, Nyquist column shared or folded.

    Some inverse real FFTs do not ignore the imaginary part of the mean and Nyquist columns (pytorch issue 154496).
    """
    columns = list(values[..., : new_size // 2 + 1].split(1, dim=-1))
    columns[0] = columns[0].real.to(values.dtype)
    nyquist = min(size, new_size) // 2
    if min(size, new_size) % 2 == 0 and nyquist < len(columns):
        share = 1.0 if size == new_size else (0.5 if size < new_size else 2.0)
        columns[nyquist] = share * columns[nyquist].real.to(values.dtype)
    return torch.cat(columns, dim=-1)


def spectral_conv_products(
    inputs: Float[Tensor, "batch c_in *space"],
    weight: Complex[Tensor, "c_in c_out *modes"],
    bias: Float[Tensor, " c_out"] | None,
    shape: Sequence[int],
) -> Float[Tensor, "batch c_out *out"]:
    """The fast form: each transform a product with a real matrix that holds the kept modes only.

    Complex values are carried as ``... 2 m_d`` (real, imaginary part), so that every product is a real one.
    """
    batch, c_in, *space = inputs.shape
    c_out, *modes = weight.shape[1:]
    m, like = modes[-1], (inputs.dtype, inputs.device)
    values = inputs.reshape(-1, space[-1]) @ _last_analysis(space[-1], m, math.prod(space), *like)
    for axis in reversed(range(len(space) - 1)):
        turns = _turns(space[axis], space[axis], modes[axis], *like)
        rows = batch * c_in * math.prod(space[:axis])
        values = _turn(turns, values.reshape(rows, space[axis], -1, 2, m))
    real, imaginary = values.reshape(batch, c_in, -1, 2, m).unbind(dim=3)
    values = _mix(real.flatten(2), imaginary.flatten(2), weight, bias)
    for axis in range(len(space) - 1):
        turns = _turns(space[axis], shape[axis], modes[axis], *like)
        rows = batch * c_out * math.prod(shape[:axis])
        values = _turn_back(turns, values.reshape(rows, modes[axis], -1, 2, m))
    values = values.reshape(-1, 2 * m) @ _last_synthesis(space[-1], shape[-1], m, *like)
    return values.reshape(batch, c_out, *shape)


def _turn(turns: Tensor, values: Float[Tensor, "rows size rest 2 m"]) -> Float[Tensor, "rows modes rest 2 m"]:
    """Multiply by exp(-i angle) and sum over the nodes; ``turns`` stacks cosines over sines, (2 modes, size)."""
    rows, size, rest, _, m = values.shape
    parts = torch.bmm(turns.expand(rows, -1, -1), values.reshape(rows, size, -1)).view(rows, 2, -1, rest, 2, m)
    (cosine_real, cosine_imaginary), (sine_real, sine_imaginary) = (part.unbind(dim=-2) for part in parts.unbind(dim=1))
    return torch.stack([cosine_real + sine_imaginary, cosine_imaginary - sine_real], dim=-2)


def _turn_back(turns: Tensor, values: Float[Tensor, "rows modes rest 2 m"]) -> Float[Tensor, "rows size rest 2 m"]:
    """Multiply by exp(+i angle) and sum over the modes."""
    rows, _, rest, _, m = values.shape
    real, imaginary = values.unbind(dim=-2)
    stacked = torch.stack([values, torch.stack([-imaginary, real], dim=-2)], dim=1)
    summed = torch.bmm(turns.t().expand(rows, -1, -1), stacked.reshape(rows, len(turns), -1))
    return summed.view(rows, -1, rest, 2, m)


def _mix(real: Tensor, imaginary: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Channel mixing as one batch of real products, a mode each: ``batch c_in mode`` to ``batch c_out row 2 m_d``."""
    batch, c_in, count = real.shape
    c_out, m = weight.shape[1], weight.shape[-1]
    # contiguous: a batched product of strided matrices would go mode by mode
    values = torch.cat([real, imaginary]).permute(2, 0, 1).contiguous()
    matrices = torch.view_as_real(weight).reshape(c_in, c_out, count, 2).permute(2, 0, 3, 1).reshape(count, c_in, -1)
    products = torch.bmm(values, matrices).view(count, 2, batch, 2, c_out)
    # unbind, not indexing: its gradient is one stack, that of an index is a zero-filled whole
    (rr, ri), (ir, ii) = (part.unbind(dim=2) for part in products.unbind(dim=1))
    mixed = torch.stack([rr - ii, ri + ir])
    if bias is not None:
        # a constant is the mode 0, which costs less to change than every node
        mean = mixed.new_zeros(2, count, 1, 1)
        mean[0, _index_of_mean(weight.shape[2:])] = 1.0
        mixed = mixed + mean * bias.flatten()
    return mixed.view(2, -1, m, batch, c_out).permute(3, 4, 1, 0, 2)


def _index_of_mean(modes: Sequence[int]) -> int:
    index = 0
    for count in modes[:-1]:
        index = index * count + count // 2
    return index * modes[-1]


@functools.lru_cache(maxsize=128)
def _last_analysis(size: int, modes: int, nodes: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(size, 2 modes): the forward transform of the last axis, with the factor 1/nodes of all axes together."""
    with torch.inference_mode(False):
        angles = _angles(torch.arange(modes), size)
        return (torch.cat([angles.cos(), -angles.sin()]).t() / nodes).contiguous().to(device, dtype)


@functools.lru_cache(maxsize=128)
def _last_synthesis(size: int, new_size: int, modes: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(2 modes, new_size): the inverse of the halved axis, each column standing for k and -k."""
    with torch.inference_mode(False):
        k = torch.arange(modes)
        once = (k == 0) | (2 * k == size)  # the mean and the Nyquist mode are their own mirror images
        share = torch.where(once, 1.0, 2.0).double() * (2 * k <= new_size)
        angles = _angles(k, new_size)
        sines = torch.where((2 * k == size)[:, None], 0.0, angles.sin())
        return torch.cat([share[:, None] * angles.cos(), -share[:, None] * sines]).to(device, dtype)


@functools.lru_cache(maxsize=128)
def _turns(size: int, new_size: int, modes: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(2 modes, new_size): cosines over sines of a centred axis at ``new_size`` nodes, for modes known from ``size``.

    Forward transforms have ``new_size == size``.
    """
    with torch.inference_mode(False):
        k = _centred(modes)
        angles = _angles(k, new_size)
        resolved = (2 * k.abs() <= new_size)[:, None].double()
        sines = torch.where((2 * k.abs() == size)[:, None], 0.0, angles.sin())
        return torch.cat([resolved * angles.cos(), resolved * sines]).to(device, dtype)


def _angles(k: Tensor, size: int) -> Tensor:
    """2 pi k j / size at the nodes j, in float64, reduced as integers first: exact to round-off for any k."""
    return 2 * math.pi * (torch.outer(k, torch.arange(size)) % size).double() / size


def _centred(count: int, device: torch.device | None = None) -> Tensor:
    return torch.arange(-(count // 2), count - count // 2, device=device)


def _prefers_products(inputs: Tensor, weight: Tensor) -> bool:
    *leading, last = weight.shape[2:]
    return inputs.device.type == "cpu" and max(2 * (last - 1), *leading, 0) <= MOST_MODES


def _check(inputs: Tensor, weight: Tensor, shape: Sequence[int]) -> None:
    space, modes = tuple(inputs.shape[2:]), tuple(weight.shape[2:])
    if not (1 <= len(space) <= 3 and len(space) == len(modes) == len(shape) and inputs.shape[1] == weight.shape[0]):
        raise ValueError(
            "spectral_conv takes inputs (batch, c_in, *space) and a weight (c_in, c_out, *modes), 1 to 3 directions; "
            f"got {tuple(inputs.shape)}, {tuple(weight.shape)} and output shape {tuple(shape)}."
        )
    available = (*space[:-1], space[-1] // 2 + 1)
    if any(kept > there for kept, there in zip(modes, available, strict=True)):
        raise ValueError(
            f"spectral_conv: the weight keeps {modes} modes an axis, but a grid of {space} nodes has {available} "
            "(the last axis is halved). Keep fewer modes or use a finer grid."
        )


@dataclass(frozen=True)
class Case:
    """One named input of the op, for the parity test and the benchmark alike."""

    name: str
    inputs: Tensor
    weight: Tensor
    bias: Tensor | None
    output_shape: tuple[int, ...]


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


def cases(dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu") -> list[Case]:
    """Named inputs that cover dimensions, odd and even sizes, full and truncated spectra, and resampling."""
    generator = torch.Generator().manual_seed(20_21)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    made = []
    for name, batch, c_in, c_out, sizes, modes, shape, biased in _CASES:
        inputs = draw(batch, c_in, *sizes).to(device, dtype)
        weight = torch.complex(draw(c_in, c_out, *modes), draw(c_in, c_out, *modes)) / c_in
        bias = draw(c_out).to(device, dtype) if biased else None
        made.append(Case(name, inputs, weight.to(device, dtype.to_complex()), bias, shape))
    return made
